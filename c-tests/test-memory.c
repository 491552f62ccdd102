/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The pool's own allocator: all memory comes from it, and any allocation may fail. */
#include "kinds.h"

/* An allocator that marks its blocks and can be told to fail */

struct block {
    int tag;
    size_t size;
    max_align_t content[];
};

struct heap {
    atomic_long out;       /* blocks in use */
    atomic_long made;
    atomic_long foreign;   /* blocks freed here that are another heap's, or were freed before */
    atomic_long fail_at;   /* which allocation fails, counted from 1; 0: none */
    atomic_long failed;
};

static struct heap heaps[2];

static void *heap_calloc(int tag, size_t count, size_t size)
{
    struct heap *heap = &heaps[tag];
    if (atomic_fetch_add(&heap->made, 1) + 1 == atomic_load(&heap->fail_at)) {
        atomic_fetch_add(&heap->failed, 1);
        return NULL;
    }
    struct block *block = calloc(1, sizeof(*block) + count * size);
    block->tag = 4711 + tag;
    block->size = count * size;
    atomic_fetch_add(&heap->out, 1);
    return block->content;
}

static void heap_free(int tag, void *content)
{
    if (content == NULL) {
        return;
    }
    struct block *block = (struct block *)((char *)content - offsetof(struct block, content));
    if (block->tag != 4711 + tag) {
        atomic_fetch_add(&heaps[tag].foreign, 1);
        return;
    }
    block->tag = 0;
    /* A later read finds nonsense. */
    memset(content, 0xa5, block->size);
    atomic_fetch_sub(&heaps[tag].out, 1);
    free(block);
}

static void *calloc_0(size_t count, size_t size)
{
    return heap_calloc(0, count, size);
}

static void free_0(void *content)
{
    heap_free(0, content);
}

static void *calloc_1(size_t count, size_t size)
{
    return heap_calloc(1, count, size);
}

static void free_1(void *content)
{
    heap_free(1, content);
}

static void heap_begin(int tag, long fail_at)
{
    atomic_store(&heaps[tag].out, 0);
    atomic_store(&heaps[tag].made, 0);
    atomic_store(&heaps[tag].foreign, 0);
    atomic_store(&heaps[tag].fail_at, fail_at);
    atomic_store(&heaps[tag].failed, 0);
}

static void assert_heap_is_empty(int tag)
{
    assert_int_equal(atomic_load(&heaps[tag].out), 0);
    assert_int_equal(atomic_load(&heaps[tag].foreign), 0);
}

static struct ns_thrpool_config config_with_heap(int tag)
{
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.max_threads = 2;
    config.log_fct = quiet_log;
    config.calloc_fct = tag ? calloc_1 : calloc_0;
    config.free_fct = tag ? free_1 : free_0;
    return config;
}

TEST(all_memory_comes_from_the_pools_allocator_and_goes_back)
{
    heap_begin(0, 0);
    struct ns_thrpool_config config = config_with_heap(0);
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    assert_non_null(tp);
    int ends[2];
    socket_pair(ends);
    struct latch finished = LATCH_INIT;
    long before = atomic_load(&heaps[0].made);
    assert_true(before > 0);
    int made = 0;
    for (int i = 0; i < 10; i++) {
        assert_int_equal(run_each_kind(tp, ends, &finished, &made), NS_SUCCESS);
    }
    assert_true(atomic_load(&heaps[0].made) - before >= made);
    assert_latch(&finished, made);
    pool_end(tp);
    assert_heap_is_empty(0);
    close(ends[0]);
    close(ends[1]);
}

static void *live_often(void *arg)
{
    struct ns_thrpool_t *tp = arg;
    struct latch finished = LATCH_INIT;
    int rounds = scaled(400);
    for (int i = 0; i < rounds; i++) {
        ns_job_type_t type = i % 2 ? NS_JOB_THREAD : 0;
        struct timeval tv = {0, 10 * (i % 20)};
        struct ns_job_t *job = NULL;
        ns_add_timeout_job(tp, &tv, type | NS_JOB_UNARMED, finish_job, &finished, &job);
        ns_job_set_done_cb(job, count_callback);
        ns_job_rearm(job);
    }
    latch_reaches(&finished, rounds);
    return NULL;
}

TEST(fm42_allocators_of_two_pools_never_mix)
{
    struct ns_thrpool_t *pools[2];
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        heap_begin(i, 0);
        struct ns_thrpool_config config = config_with_heap(i);
        pools[i] = ns_thrpool_new(&config);
        assert_non_null(pools[i]);
    }
    for (int i = 0; i < 2; i++) {
        pthread_create(&threads[i], NULL, live_often, pools[i]);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    pool_end(pools[0]);
    assert_heap_is_empty(0);
    pool_end(pools[1]);
    assert_heap_is_empty(1);
}

TEST(fm41_any_allocation_may_fail)
{
    int ends[2];
    socket_pair(ends);
    assert_int_equal(fcntl(ends[1], F_DUPFD, 900), 900);
    close(ends[1]);
    ends[1] = 900;
    /* A first pool, since some things are made once for the process. */
    pool_end(pool_of(1));
    int fds = count_fds(), threads = count_threads(), refused_pools = 0, refused_jobs = 0;
    for (long n = 1;; n++) {
        assert_true(n < 1000);
        heap_begin(0, n);
        struct ns_thrpool_config config = config_with_heap(0);
        struct ns_thrpool_t *tp = ns_thrpool_new(&config);
        if (tp != NULL) {
            struct latch finished = LATCH_INIT;
            int made = 0;
            ns_result_t result = run_each_kind(tp, ends, &finished, &made);
            assert_int_equal(result, atomic_load(&heaps[0].failed) ? NS_ALLOCATION_FAILURE
                                                                   : NS_SUCCESS);
            refused_jobs += result != NS_SUCCESS;
            assert_latch(&finished, made);
            /* A failure leaves the pool usable. */
            atomic_store(&heaps[0].fail_at, 0);
            int again = 0;
            assert_int_equal(run_each_kind(tp, ends, &finished, &again), NS_SUCCESS);
            assert_latch(&finished, made + again);
            pool_end(tp);
        } else {
            assert_int_equal(atomic_load(&heaps[0].failed), 1);
            refused_pools++;
        }
        assert_heap_is_empty(0);
        assert_nothing_left(fds, threads);
        struct sigaction now;
        assert_int_equal(sigaction(SIGUSR1, NULL, &now), 0);
        assert_true(now.sa_handler == SIG_DFL);
        if (atomic_load(&heaps[0].failed) == 0) {
            break;
        }
    }
    print_message("# %d pools and %d jobs were refused\n", refused_pools, refused_jobs);
    assert_true(refused_pools > 0);
    assert_true(refused_jobs >= 7);
    close(ends[0]);
    close(ends[1]);
}

TEST(nothing_is_allocated_between_the_add_and_the_disposal)
{
    heap_begin(0, 0);
    struct ns_thrpool_config config = config_with_heap(0);
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    int ends[2];
    socket_pair(ends);
    assert_int_equal(write(ends[1], "x", 1), 1);
    struct probe probe = PROBE(NULL, ends[0]);
    struct ns_job_t *job = NULL;
    struct timeval tv = {1, 0};
    assert_int_equal(ns_add_fd_timeout_job(tp, ends[0], &tv, NS_JOB_READ | NS_JOB_UNARMED,
                                           probe_run, &probe, &job), NS_SUCCESS);
    assert_int_equal(ns_job_set_done_cb(job, probe_gone), NS_SUCCESS);
    long made = atomic_load(&heaps[0].made);
    for (int run = 1; run <= 100; run++) {
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        assert_latch(&probe.runs, run);
        assert_int_equal(ns_job_wait(job), NS_SUCCESS);
    }
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    assert_latch(&probe.disposals, 1);
    assert_int_equal(atomic_load(&heaps[0].made), made);
    pool_end(tp);
    assert_heap_is_empty(0);
    close(ends[1]);
}

TEST(a_missing_function_is_libcs)
{
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.log_fct = quiet_log;
    config.calloc_fct = counting_calloc; /* free_fct stays NULL */
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    assert_non_null(tp);
    assert_true(atomic_load(&blocks_out) > 0);
    loop_passes(tp, 0);
    pool_end(tp);
    config.calloc_fct = NULL;
    config.free_fct = counting_free;
    tp = ns_thrpool_new(&config);
    assert_non_null(tp);
    loop_passes(tp, 0);
    pool_end(tp);
    assert_int_equal(atomic_load(&blocks_out), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_memory_comes_from_the_pools_allocator_and_goes_back),
        cmocka_unit_test(fm42_allocators_of_two_pools_never_mix),
        cmocka_unit_test(fm41_any_allocation_may_fail),
        cmocka_unit_test(nothing_is_allocated_between_the_add_and_the_disposal),
        cmocka_unit_test(a_missing_function_is_libcs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
