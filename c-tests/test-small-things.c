/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The results in words, a pool's wait with an end, many jobs at once, and timers at a cadence. */
#include "children.h"

TEST(each_result_has_its_name_and_a_message)
{
    const char *names[] = {
        "NS_SUCCESS", "NS_SHUTDOWN", "NS_ALLOCATION_FAILURE", "NS_INVALID_REQUEST",
        "NS_INVALID_STATE", "NS_THREAD_FAILURE", "NS_DELETING", "NS_TIMEOUT", "NS_RUNNING",
        "NS_OVERLOADED",
    };
    const ns_result_t results[] = {
        NS_SUCCESS, NS_SHUTDOWN, NS_ALLOCATION_FAILURE, NS_INVALID_REQUEST, NS_INVALID_STATE,
        NS_THREAD_FAILURE, NS_DELETING, NS_TIMEOUT, NS_RUNNING, NS_OVERLOADED,
    };
    for (size_t i = 0; i < 10; i++) {
        assert_string_equal(ns_result_name(results[i]), names[i]);
        assert_true(strlen(ns_result_message(results[i])) > 8);
        assert_string_not_equal(ns_result_message(results[i]), "unknown result");
        for (size_t j = 0; j < i; j++) {
            assert_string_not_equal(ns_result_message(results[i]), ns_result_message(results[j]));
        }
    }
    const unsigned unknown[] = {10, 11, 255, 256, 0x80000000u, 0xffffffffu};
    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        assert_string_equal(ns_result_name((ns_result_t)unknown[i]), "unknown result");
        assert_string_equal(ns_result_message((ns_result_t)unknown[i]), "unknown result");
    }
}

/* A child that exits has its parent's pool: here valgrind finds it. */
static struct ns_thrpool_t *volatile parents_pool;

/* ns_thrpool_timedwait */

static struct timeval while_ago = {-1, 0};
static struct timeval micros_ago = {0, -1};
static struct timeval a_little = {0, 20000};
static struct timeval half_a_minute = {LIMIT_SECONDS, 0};

TEST(a_timed_wait_refuses_what_is_wrong)
{
    struct ns_thrpool_t *tp = pool_logging_to(1, recording_log);
    assert_int_equal(ns_thrpool_timedwait(NULL, &a_little), NS_INVALID_REQUEST);
    struct timeval *wrong[] = {NULL, &while_ago, &micros_ago};
    const char *why[] = {"tv is NULL", "tv is negative", "tv is negative"};
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ns_thrpool_timedwait(tp, wrong[i]), NS_INVALID_REQUEST);
        assert_true(logged("ns_thrpool_timedwait: ") && logged(why[i]));
    }
    parents_pool = tp;
    pid_t child = begin_child();
    if (child == 0) {
        _exit(ns_thrpool_timedwait(tp, &a_little) != NS_SHUTDOWN);
    }
    assert_exits(end_child(child), 0);
    pool_end(tp);
}

TEST(a_timed_wait_ends_with_its_time_and_no_sooner)
{
    struct ns_thrpool_t *tp = pool_of(2);
    double begin = now_seconds();
    errno = 77;
    assert_int_equal(ns_thrpool_timedwait(tp, &a_little), NS_TIMEOUT);
    assert_int_equal(errno, 77);
    assert_true(now_seconds() - begin >= 0.02);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(ns_thrpool_timedwait(tp, &at_once), NS_TIMEOUT);
    }
    /* A callback that does not return holds it up. */
    struct gate gate = GATE_INIT;
    struct ns_job_t *job = occupy(tp, NS_JOB_THREAD, &gate);
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_thrpool_timedwait(tp, &a_little), NS_TIMEOUT);
    latch_add(&gate.leave, 1);
    assert_int_equal(ns_thrpool_timedwait(tp, &half_a_minute), NS_SUCCESS);
    /* Again, with no time at all, and without an end. */
    assert_int_equal(ns_thrpool_timedwait(tp, &at_once), NS_SUCCESS);
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    ns_thrpool_destroy(tp);
}

static atomic_int own_threads;

static void wait_for_own_pool(struct ns_job_t *job)
{
    if (ns_thrpool_timedwait(ns_job_get_tp(job), &half_a_minute) == NS_THREAD_FAILURE) {
        atomic_fetch_add(&own_threads, 1);
    }
    ns_job_done(job);
}

TEST(a_pools_own_threads_do_not_wait_for_it)
{
    struct ns_thrpool_t *tp = pool_of(1);
    for EACH_THREAD(i) {
        assert_int_equal(ns_add_job(tp, where[i], wait_for_own_pool, NULL, NULL), NS_SUCCESS);
    }
    pool_end(tp);
    assert_int_equal(atomic_load(&own_threads), 2);
}

struct waiting {
    struct ns_thrpool_t *tp;
    struct timeval tv; /* none if negative */
    struct latch *in;
    ns_result_t result;
};

static void *wait_in_thread(void *arg)
{
    struct waiting *waiting = arg;
    latch_add(waiting->in, 1);
    waiting->result = waiting->tv.tv_sec < 0 ? ns_thrpool_wait(waiting->tp)
                                             : ns_thrpool_timedwait(waiting->tp, &waiting->tv);
    return NULL;
}

TEST(many_wait_with_and_without_a_time)
{
    enum { WAITERS = 12 };
    for (int round = 0; round < scaled(200); round++) {
        struct ns_thrpool_t *tp = pool_of(2);
        struct waiting waiting[WAITERS];
        struct latch in = LATCH_INIT;
        pthread_t threads[WAITERS];
        for (int i = 0; i < WAITERS; i++) {
            struct timeval tv = {i % 3 == 0 ? -1 : i % 3 == 1 ? LIMIT_SECONDS : 0, 100 * i};
            waiting[i] = (struct waiting){tp, tv, &in, NS_INVALID_REQUEST};
            assert_int_equal(pthread_create(&threads[i], NULL, wait_in_thread, &waiting[i]), 0);
        }
        assert_latch(&in, WAITERS);
        ns_thrpool_shutdown(tp);
        for (int i = 0; i < WAITERS; i++) {
            pthread_join(threads[i], NULL);
            assert_true(waiting[i].result == NS_SUCCESS
                        || (i % 3 == 2 && waiting[i].result == NS_TIMEOUT));
        }
        ns_thrpool_destroy(tp);
    }
}

/* A worker whose thread-local destructor does not return keeps a timed wait no longer than its time. */
static pthread_key_t key;
static struct gate at_the_end = GATE_INIT;

static void stay_at_the_end(void *arg)
{
    UNUSED(arg);
    stay_in_gate(&at_the_end);
}

static void use_key(struct ns_job_t *job)
{
    pthread_setspecific(key, job);
    ns_job_done(job);
}

TEST(a_worker_that_does_not_end_keeps_nobody_longer_than_its_time)
{
    assert_int_equal(pthread_key_create(&key, stay_at_the_end), 0);
    struct ns_thrpool_t *tp = pool_of(1);
    assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, use_key, NULL, NULL), NS_SUCCESS);
    ns_thrpool_shutdown(tp);
    assert_latch(&at_the_end.begun, 1);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ns_thrpool_timedwait(tp, &a_little), NS_TIMEOUT);
    }
    latch_add(&at_the_end.leave, 1);
    assert_int_equal(ns_thrpool_timedwait(tp, &half_a_minute), NS_SUCCESS);
    ns_thrpool_destroy(tp);
    pthread_key_delete(key);
}

static atomic_int handled;

static void handle(int signum)
{
    UNUSED(signum);
    atomic_fetch_add(&handled, 1);
}

TEST(a_timed_wait_may_end_when_a_handler_has_run)
{
    struct sigaction action = {.sa_handler = handle};
    struct sigaction before;
    assert_int_equal(sigaction(SIGUSR2, &action, &before), 0);
    struct ns_thrpool_t *tp = pool_of(1);
    struct latch in = LATCH_INIT;
    struct waiting waiting = {tp, {10 * LIMIT_SECONDS, 0}, &in, NS_INVALID_REQUEST};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, wait_in_thread, &waiting), 0);
    assert_latch(&in, 1);
    /* It may be on its way into the wait still: until it has left, signal it. */
    double end = now_seconds() + LIMIT_SECONDS;
    while (pthread_tryjoin_np(thread, NULL) == EBUSY && now_seconds() < end) {
        pthread_kill(thread, SIGUSR2);
        sched_yield();
    }
    assert_true(now_seconds() < end);
    assert_int_equal(waiting.result, NS_TIMEOUT);
    assert_true(atomic_load(&handled) > 0);
    pool_end(tp);
    sigaction(SIGUSR2, &before, NULL);
}

/* ns_add_jobs */

enum { MANY = 200 };

/* The order in which jobs began. */
static int order[MANY];
static atomic_int begun, noted;

static void note_order(struct ns_job_t *job)
{
    int *number = ns_job_get_data(job);
    order[atomic_fetch_add(&begun, 1)] = number == NULL ? -1 : *number;
    atomic_fetch_add(&noted, 1);
    ns_job_done(job);
}

TEST(many_jobs_begin_in_order_and_have_their_data)
{
    struct ns_thrpool_t *tp = counting_pool(1);
    int numbers[MANY];
    void *data[MANY];
    struct ns_job_t *jobs[MANY];
    for (int i = 0; i < MANY; i++) {
        numbers[i] = i;
        data[i] = &numbers[i];
    }
    for (int n = 0; n <= MANY; n = 2 * n + 1) {
        for (int with = 0; with < 4; with++) {
            atomic_store(&begun, 0);
            atomic_store(&noted, 0);
            memset(jobs, 0xff, sizeof jobs);
            struct gate gate = GATE_INIT;
            struct ns_job_t *first = occupy(tp, NS_JOB_THREAD, &gate);
            assert_int_equal(ns_add_jobs(tp, NS_JOB_THREAD, note_order, (size_t)n,
                                         with & 1 ? data : NULL, with & 2 ? jobs : NULL),
                             NS_SUCCESS);
            for (int i = 0; with & 2 && i < n; i++) {
                assert_ptr_equal(ns_job_get_data(jobs[i]), with & 1 ? data[i] : NULL);
                assert_int_equal(ns_job_get_type(jobs[i]), NS_JOB_THREAD);
            }
            assert_int_equal(atomic_load(&begun), 0);
            latch_add(&gate.leave, 1);
            EVENTUALLY(atomic_load(&noted) == n);
            for (int i = 0; i < n; i++) {
                assert_int_equal(order[i], with & 1 ? i : -1);
            }
            finish_idle(first);
        }
    }
    pool_end(tp);
    assert_int_equal(atomic_load(&blocks_out), 0);
}

/* As a callback: see that the out pointers of all were written before. */
static struct ns_job_t *seen[MANY];
static atomic_int unseen;

static void look_at_all(struct ns_job_t *job)
{
    int own = 0;
    for (int i = 0; i < MANY; i++) {
        own += seen[i] == job;
        atomic_fetch_add(&unseen, seen[i] == NULL);
    }
    atomic_fetch_add(&unseen, own != 1);
    count_and_finish(job);
}

TEST(the_pointers_of_all_are_written_before_the_first_runs)
{
    struct ns_thrpool_t *tp = pool_of(2);
    struct latch runs = LATCH_INIT;
    void *data[MANY];
    for (int i = 0; i < MANY; i++) {
        data[i] = &runs;
    }
    for (int round = 0; round < scaled(200); round++) {
        assert_int_equal(ns_add_jobs(tp, NS_JOB_THREAD, look_at_all, MANY, data, seen), NS_SUCCESS);
        assert_latch(&runs, (round + 1) * MANY);
    }
    assert_int_equal(atomic_load(&unseen), 0);
    pool_end(tp);
}

TEST(many_unarmed_ones_wait_and_many_persistent_ones_repeat)
{
    struct ns_thrpool_t *tp = counting_pool(2);
    struct probe probe = PROBE(NULL, -1);
    struct ns_job_t *jobs[MANY];
    void *data[MANY];
    for (int i = 0; i < MANY; i++) {
        data[i] = &probe;
    }
    assert_int_equal(ns_add_jobs(tp, NS_JOB_THREAD | NS_JOB_UNARMED, probe_run, MANY, data, jobs),
                     NS_SUCCESS);
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(ns_job_timedwait(jobs[i], &at_once), NS_SUCCESS);
        probe_arm(jobs[i]);
    }
    for (int i = 0; i < MANY; i++) {
        finish_idle(jobs[i]);
    }
    assert_latch(&probe.disposals, MANY);
    assert_int_equal(latch_count(&probe.runs), MANY);
    assert_int_equal(ns_add_jobs(tp, NS_JOB_THREAD | NS_JOB_PERSIST, probe_run, 3, data, jobs),
                     NS_SUCCESS);
    assert_latch(&probe.runs, 2 * MANY);
    for (int i = 0; i < 3; i++) {
        ns_job_cancel(jobs[i]);
    }
    pool_end(tp);
    assert_int_equal(atomic_load(&blocks_out), 0);
}

/* An allocator that fails after so many blocks. */
static atomic_long blocks_left;

static void *failing_calloc(size_t count, size_t size)
{
    return atomic_fetch_sub(&blocks_left, 1) > 0 ? counting_calloc(count, size) : NULL;
}

TEST(all_are_made_or_none)
{
    atomic_store(&blocks_left, 1000000);
    struct ns_thrpool_t *tp = pool_with(1, recording_log, failing_calloc, counting_free);
    long idle = atomic_load(&blocks_out);
    struct ns_job_t *jobs[MANY];
    for (int unarmed = 0; unarmed < 2; unarmed++) {
        for (int left = 0; left < MANY; left += 37) {
            memset(jobs, 0xff, sizeof jobs);
            atomic_store(&blocks_left, left);
            assert_int_equal(ns_add_jobs(tp, NS_JOB_THREAD | (unarmed ? NS_JOB_UNARMED : 0),
                                         note_order, MANY, NULL, jobs), NS_ALLOCATION_FAILURE);
            assert_true(logged("ns_add_jobs: no memory"));
            for (int i = 0; i < MANY; i++) {
                assert_null(jobs[i]);
            }
            assert_int_equal(atomic_load(&blocks_out), idle);
        }
    }
    atomic_store(&blocks_left, 1000000);
    pool_end(tp); /* which would warn of idle jobs */
    assert_false(logged("idle job"));
    assert_int_equal(atomic_load(&blocks_out), 0);
}

TEST(many_jobs_are_refused_as_one_is)
{
    struct ns_thrpool_t *tp = counting_pool(1);
    struct ns_job_t *jobs[3];
    long idle = atomic_load(&blocks_out);
    const struct {
        const char *why;
        ns_job_type_t type;
        ns_job_func_t func;
    } wrong[] = {
        {"func is NULL", NS_JOB_THREAD, NULL},
        {"does not have THREAD", 0, do_nothing},
        {"does not have THREAD", NS_JOB_PERSIST, do_nothing},
        {"SHUTDOWN_WORKER", NS_JOB_THREAD | NS_JOB_SHUTDOWN_WORKER, do_nothing},
        {"does not take", NS_JOB_THREAD | NS_JOB_TIMER, do_nothing},
        {"does not take", NS_JOB_THREAD | NS_JOB_READ, do_nothing},
        {"does not take", NS_JOB_THREAD | NS_JOB_SIGNAL, do_nothing},
        {"does not take", NS_JOB_THREAD | NS_JOB_CADENCE, do_nothing},
        {"does not take", NS_JOB_THREAD | 0x8000, do_nothing},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        for (size_t n = 0; n <= 3; n += 3) {
            memset(jobs, 0xff, sizeof jobs);
            assert_int_equal(ns_add_jobs(tp, wrong[i].type, wrong[i].func, n, NULL, jobs),
                             NS_INVALID_REQUEST);
            assert_true(logged("ns_add_jobs: ") && logged(wrong[i].why));
            for (size_t at = 0; at < n; at++) {
                assert_null(jobs[at]);
            }
        }
    }
    assert_int_equal(ns_add_jobs(tp, NS_JOB_THREAD | NS_JOB_UNARMED, do_nothing, 3, NULL, NULL),
                     NS_INVALID_REQUEST);
    assert_true(logged("jobs is NULL"));
    memset(jobs, 0xff, sizeof jobs);
    assert_int_equal(ns_add_jobs(NULL, NS_JOB_THREAD, do_nothing, 3, NULL, jobs),
                     NS_INVALID_REQUEST);
    assert_null(jobs[0]);
    assert_int_equal(ns_add_jobs(tp, NS_JOB_THREAD, do_nothing, 0, NULL, NULL), NS_SUCCESS);
    assert_int_equal(atomic_load(&blocks_out), idle);
    parents_pool = tp;
    pid_t child = begin_child();
    if (child == 0) {
        _exit(ns_add_jobs(tp, NS_JOB_THREAD, do_nothing, 3, NULL, jobs) != NS_SHUTDOWN
              || jobs[2] != NULL);
    }
    assert_exits(end_child(child), 0);
    ns_thrpool_shutdown(tp);
    memset(jobs, 0xff, sizeof jobs);
    assert_int_equal(ns_add_jobs(tp, NS_JOB_THREAD, do_nothing, 3, NULL, jobs), NS_SHUTDOWN);
    assert_null(jobs[2]);
    pool_end(tp);
}

TEST(many_jobs_are_refused_whole_when_so_many_wait)
{
    struct ns_thrpool_config config;
    struct ns_thrpool_options options;
    ns_thrpool_config_init(&config);
    ns_thrpool_options_init(&options, sizeof options);
    config.log_fct = quiet_log;
    options.queue_limit = 10;
    struct ns_thrpool_t *tp = ns_thrpool_new_with(&config, &options);
    struct gate gate = GATE_INIT;
    struct ns_job_t *jobs[20];
    struct ns_job_t *first = occupy(tp, NS_JOB_THREAD, &gate);
    atomic_store(&begun, 0);
    assert_int_equal(ns_add_jobs(tp, NS_JOB_THREAD, note_order, 9, NULL, NULL), NS_SUCCESS);
    /* There is room for one, so all are taken. */
    assert_int_equal(ns_add_jobs(tp, NS_JOB_THREAD, note_order, 20, NULL, jobs), NS_SUCCESS);
    memset(jobs, 0xff, sizeof jobs);
    assert_int_equal(ns_add_jobs(tp, NS_JOB_THREAD, note_order, 20, NULL, jobs), NS_OVERLOADED);
    assert_null(jobs[0]);
    assert_null(jobs[19]);
    assert_int_equal(ns_add_jobs(tp, NS_JOB_THREAD, note_order, 0, NULL, NULL), NS_SUCCESS);
    assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, note_order, NULL, NULL), NS_OVERLOADED);
    assert_int_equal(ns_add_jobs(tp, NS_JOB_THREAD | NS_JOB_UNARMED, note_order, 2, NULL, jobs),
                     NS_SUCCESS);
    assert_int_equal(ns_job_done(jobs[0]), NS_SUCCESS);
    assert_int_equal(ns_job_done(jobs[1]), NS_SUCCESS);
    latch_add(&gate.leave, 1);
    finish_idle(first);
    EVENTUALLY(atomic_load(&begun) == 29);
    /* Each was counted out. */
    for (int i = 0; i < 50; i++) {
        EVENTUALLY(ns_add_jobs(tp, NS_JOB_THREAD, note_order, 3, NULL, NULL) == NS_SUCCESS);
        EVENTUALLY(atomic_load(&begun) == 29 + 3 * (i + 1));
    }
    pool_end(tp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_result_has_its_name_and_a_message),
        cmocka_unit_test(a_timed_wait_refuses_what_is_wrong),
        cmocka_unit_test(a_timed_wait_ends_with_its_time_and_no_sooner),
        cmocka_unit_test(a_pools_own_threads_do_not_wait_for_it),
        cmocka_unit_test(many_wait_with_and_without_a_time),
        cmocka_unit_test(a_worker_that_does_not_end_keeps_nobody_longer_than_its_time),
        cmocka_unit_test(a_timed_wait_may_end_when_a_handler_has_run),
        cmocka_unit_test(many_jobs_begin_in_order_and_have_their_data),
        cmocka_unit_test(the_pointers_of_all_are_written_before_the_first_runs),
        cmocka_unit_test(many_unarmed_ones_wait_and_many_persistent_ones_repeat),
        cmocka_unit_test(all_are_made_or_none),
        cmocka_unit_test(many_jobs_are_refused_as_one_is),
        cmocka_unit_test(many_jobs_are_refused_whole_when_so_many_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
