/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What broke the original, shown absent: exhausted resources, and memory that goes back to the
 * wrong allocator.
 *
 * Each test is named for its row in docs/RELIABILITY.md, and says what to take out of the library
 * to see it fail.
 */
#include "fm.h"

static atomic_int calls;

static void called(struct ns_job_t *job)
{
    UNUSED(job);
    atomic_fetch_add(&calls, 1);
}

static void run_and_finish(struct ns_job_t *job)
{
    atomic_fetch_add(&calls, 1);
    ns_job_done(job);
}

static void refuse_calloc_after(long n)
{
    pthread_mutex_lock(&the_heap.lock);
    the_heap.left = n;
    pthread_mutex_unlock(&the_heap.lock);
}

/* Limit how many descriptors may be opened beyond those that are open now; negative: lift the
 * limit. */
static void leave_descriptors(int n)
{
    static struct rlimit before;
    struct rlimit limit;
    if (n < 0) {
        setrlimit(RLIMIT_NOFILE, &before);
        return;
    }
    getrlimit(RLIMIT_NOFILE, &before);
    limit = before;
    /* The limit counts numbers, so those in use must be the lowest. */
    int lowest = dup(0);
    assert_true(lowest >= 0);
    close(lowest);
    limit.rlim_cur = (rlim_t)(lowest + n);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

/* See that a pool that could not be made left nothing. Returns whether it could be made. */
static int new_pool_or_nothing(struct ns_thrpool_config *config, int fds, int threads)
{
    int errors = count_logged_errors();
    struct ns_thrpool_t *tp = ns_thrpool_new(config);
    leave_descriptors(-1);
    refuse_calloc_after(-1);
    if (tp != NULL) {
        checked_end(tp);
        assert_int_equal(count_fds(), fds);
        return 1;
    }
    assert_int_equal(count_logged_errors(), errors + 1);
    assert_true(logged("ns_thrpool_new"));
    assert_nothing_left(fds, threads);
    heap_check(&the_heap);
    return 0;
}

/*
 * To see it fail: in Pool::make, do not close the pipe, free the memory or join the workers on the
 * way out.
 */
TEST(fm11_a_pool_that_fails_at_any_step_leaves_nothing_behind)
{
    struct ns_thrpool_config config = checked_config(3);
    config.log_fct = recording_log;
    int fds = count_fds();
    int threads = count_threads();
    leave_descriptors(100);
    assert_true(new_pool_or_nothing(&config, fds, threads));
    int steps = 0;
    for (;; steps++) {
        leave_descriptors(steps);
        if (new_pool_or_nothing(&config, fds, threads)) {
            break;
        }
    }
    assert_true(steps >= 3);
    for (steps = 0;; steps++) {
        leave_descriptors(100);
        refuse_calloc_after(steps);
        if (new_pool_or_nothing(&config, fds, threads)) {
            break;
        }
    }
    assert_true(steps >= 2);
    /* Threads whose stacks need more memory than there is. */
    config.stacksize = sizeof(size_t) > 4 ? (size_t)(UINT64_C(1) << 46) : NO_STACK;
    leave_descriptors(100);
    assert_false(new_pool_or_nothing(&config, fds, threads));
    /* More than any system has. */
    config = checked_config(SIZE_MAX);
    config.log_fct = recording_log;
    leave_descriptors(100);
    assert_false(new_pool_or_nothing(&config, fds, threads));
    config.max_threads = SIZE_MAX / sizeof(pthread_t);
    leave_descriptors(100);
    assert_false(new_pool_or_nothing(&config, fds, threads));
}

/* Every function that adds, with one wrong argument or one resource missing. */
enum { ADDS = 5 };

static ns_result_t add(int which, struct ns_thrpool_t *tp, int fd, ns_job_type_t type,
                       ns_job_func_t func, struct timeval *tv, struct ns_job_t **job)
{
    switch (which) {
    case 0: return ns_add_job(tp, type, func, NULL, job);
    case 1: return ns_add_timeout_job(tp, tv, type, func, NULL, job);
    case 2: return ns_add_signal_job(tp, SIGUSR1, type, func, NULL, job);
    case 3: return ns_add_fd_job(tp, fd, type | NS_JOB_READ, func, NULL, job);
    default: return ns_add_fd_timeout_job(tp, fd, tv, type | NS_JOB_READ, func, NULL, job);
    }
}

static struct ns_job_t *const sentinel = (struct ns_job_t *)&calls;

/* See that the call failed as it should and had no other effect. */
static void assert_nothing(ns_result_t result, ns_result_t expected, struct ns_job_t **job,
                           int fd, long out)
{
    struct sigaction disposition;
    assert_int_equal(result, expected);
    assert_null(*job);
    assert_true(fd_is_open(fd));
    assert_int_equal(the_heap.out, out);
    sigaction(SIGUSR1, NULL, &disposition);
    assert_ptr_equal(disposition.sa_handler, SIG_IGN);
}

/*
 * To see it fail: in Shared::make, do not free the block on the way out; in Shared::unmake, close
 * the descriptor, as a disposal would.
 */
TEST(fm23_an_add_that_fails_has_had_no_effect)
{
    struct timeval soon = {0, 10};
    struct timeval negative = {-1, 0};
    int ends[2];
    signal(SIGUSR1, SIG_IGN);
    socket_pair(ends);
    assert_int_equal(write(ends[1], "x", 1), 1);
    atomic_store(&calls, 0);
    for (int which = 0; which < ADDS; which++) {
        struct ns_thrpool_t *tp = checked_pool(1);
        struct gate gate = GATE_INIT;
        struct ns_job_t *blocker = occupy(tp, NS_JOB_THREAD, &gate);
        long out = the_heap.out;
        struct ns_job_t *job = sentinel;
        /* Arguments. */
        assert_nothing(add(which, NULL, ends[0], 0, called, &soon, &job), NS_INVALID_REQUEST, &job,
                       ends[0], out);
        job = sentinel;
        assert_nothing(add(which, tp, ends[0], 0, NULL, &soon, &job), NS_INVALID_REQUEST, &job,
                       ends[0], out);
        job = sentinel;
        assert_nothing(add(which, tp, ends[0], NS_JOB_SHUTDOWN_WORKER, called, &soon, &job),
                       NS_INVALID_REQUEST, &job, ends[0], out);
        job = sentinel;
        assert_nothing(add(which, tp, ends[0], (ns_job_type_t)1 << 15, called, &soon, &job),
                       NS_INVALID_REQUEST, &job, ends[0], out);
        if (which == 1 || which == 4) {
            job = sentinel;
            assert_nothing(add(which, tp, ends[0], 0, called, &negative, &job),
                           NS_INVALID_REQUEST, &job, ends[0], out);
        }
        /* Memory. */
        refuse_calloc_after(0);
        job = sentinel;
        ns_result_t result = add(which, tp, ends[0], 0, called, &soon, &job);
        refuse_calloc_after(-1);
        assert_nothing(result, NS_ALLOCATION_FAILURE, &job, ends[0], out);
        /* The end. */
        ns_thrpool_shutdown(tp);
        job = sentinel;
        assert_nothing(add(which, tp, ends[0], 0, called, &soon, &job), NS_SHUTDOWN, &job, ends[0],
                       out);
        latch_add(&gate.leave, 1);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        assert_int_equal(ns_job_done(blocker), NS_SUCCESS);
        checked_end(tp);
    }
    assert_int_equal(atomic_load(&calls), 0);
    char byte;
    assert_int_equal(read(ends[0], &byte, 1), 1);
    close(ends[0]);
    close(ends[1]);
    signal(SIGUSR1, SIG_DFL);
}

/* To see it fail: in Make::finish, leave out the checks of the flags. */
TEST(fm35_a_job_is_not_made_without_what_its_type_needs)
{
    struct ns_thrpool_config config = checked_config(1);
    config.log_fct = recording_log;
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    assert_non_null(tp);
    struct timeval soon = {0, 10};
    struct ns_job_t *job = NULL;
    int ends[2];
    socket_pair(ends);
    const ns_job_type_t directions[] = {NS_JOB_ACCEPT, NS_JOB_CONNECT, NS_JOB_READ, NS_JOB_WRITE};
    int errors = count_logged_errors();
    int calls_made = 0;
#define REFUSED(call)                                                                          \
    do {                                                                                       \
        job = sentinel;                                                                        \
        assert_int_equal((call), NS_INVALID_REQUEST);                                          \
        assert_null(job);                                                                      \
        calls_made++;                                                                          \
    } while (0)
    for (size_t i = 0; i < 4; i++) {
        REFUSED(ns_create_job(tp, directions[i], called, &job));
        REFUSED(ns_add_job(tp, directions[i], called, NULL, &job));
        REFUSED(ns_add_timeout_job(tp, &soon, directions[i], called, NULL, &job));
        REFUSED(ns_add_signal_job(tp, SIGUSR1, directions[i], called, NULL, &job));
        REFUSED(ns_add_fd_job(tp, ends[0], directions[i] | NS_JOB_SIGNAL, called, NULL, &job));
        REFUSED(ns_add_fd_job(tp, -1, directions[i], called, NULL, &job));
        REFUSED(ns_add_io_job(tp, NULL, directions[i], called, NULL, &job));
        REFUSED(ns_add_fd_timeout_job(tp, ends[0], NULL, directions[i], called, NULL, &job));
    }
    REFUSED(ns_create_job(tp, NS_JOB_SIGNAL, called, &job));
    REFUSED(ns_add_job(tp, NS_JOB_SIGNAL, called, NULL, &job));
    REFUSED(ns_add_timeout_job(tp, NULL, NS_JOB_NONE, called, NULL, &job));
    REFUSED(ns_add_timeout_job(tp, &soon, NS_JOB_SIGNAL, called, NULL, &job));
    REFUSED(ns_add_signal_job(tp, SIGUSR1, NS_JOB_TIMER, called, NULL, &job));
    REFUSED(ns_add_signal_job(tp, SIGKILL, NS_JOB_NONE, called, NULL, &job));
    REFUSED(ns_add_signal_job(tp, 0, NS_JOB_NONE, called, NULL, &job));
    REFUSED(ns_add_signal_job(tp, 9999, NS_JOB_NONE, called, NULL, &job));
    REFUSED(ns_add_fd_job(tp, ends[0], NS_JOB_NONE, called, NULL, &job));
    REFUSED(ns_add_fd_job(tp, ends[0], NS_JOB_TIMER, called, NULL, &job));
    REFUSED(ns_add_fd_job(tp, ends[0], NS_JOB_ACCEPT | NS_JOB_THREAD, called, NULL, &job));
#undef REFUSED
    assert_int_equal(ns_create_job(tp, NS_JOB_NONE, called, NULL), NS_INVALID_REQUEST);
    assert_int_equal(ns_add_job(tp, NS_JOB_UNARMED, called, NULL, NULL), NS_INVALID_REQUEST);
    assert_int_equal(count_logged_errors(), errors + calls_made + 2);
    checked_end(tp);
    close(ends[0]);
    close(ends[1]);
}

/*
 * A job that could be added must also run and end without further memory.
 *
 * To see it fail: in Shared::make, write to the block without asking whether there is one.
 */
TEST(fm41_each_allocation_that_fails_is_told_and_nothing_more)
{
    struct timeval soon = {0, 10};
    int fds = count_fds();
    for (long n = 0;; n++) {
        struct ns_thrpool_config config = checked_config(2);
        int ends[2];
        int failures = 0;
        long made = 0;
        socket_pair(ends);
        assert_int_equal(write(ends[1], "x", 1), 1);
        atomic_store(&calls, 0);
        refuse_calloc_after(n);
        struct ns_thrpool_t *tp = ns_thrpool_new(&config);
        failures += tp == NULL;
        for (int which = 0; tp != NULL && which < 2 * ADDS; which++) {
            struct ns_job_t *job = sentinel;
            ns_result_t result = add(which / 2, tp, ends[0],
                                     NS_JOB_UNARMED | NS_JOB_PRESERVE_FD |
                                         (which & 1 ? NS_JOB_THREAD : 0),
                                     run_and_finish, &soon, &job);
            if (result != NS_SUCCESS) {
                assert_int_equal(result, NS_ALLOCATION_FAILURE);
                assert_null(job);
                failures++;
            } else if (which / 2 == 2) {
                assert_int_equal(ns_job_done(job), NS_SUCCESS);
            } else {
                assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
                made++;
            }
        }
        EVENTUALLY(atomic_load(&calls) == made);
        if (tp != NULL) {
            pool_end(tp);
        }
        refuse_calloc_after(-1);
        heap_check(&the_heap);
        close(ends[0]);
        close(ends[1]);
        assert_int_equal(count_fds(), fds);
        if (failures == 0) {
            assert_int_equal(made, 2 * ADDS - 2);
            assert_true(n >= 2 * ADDS);
            return;
        }
    }
}

/* Two pools, each with a heap and a log of its own. */
static struct heap heaps[2] = {HEAP_INIT, HEAP_INIT};
static atomic_int lines[2];

static void *calloc_0(size_t count, size_t size)
{
    return heap_calloc(&heaps[0], 10, count, size);
}

static void *calloc_1(size_t count, size_t size)
{
    return heap_calloc(&heaps[1], 11, count, size);
}

static void free_0(void *at)
{
    heap_free(&heaps[0], 10, at);
}

static void free_1(void *at)
{
    heap_free(&heaps[1], 11, at);
}

static void log_0(int priority, const char *format, va_list args)
{
    UNUSED(format);
    UNUSED(args);
    atomic_fetch_add(&lines[0], priority == LOG_ERR);
}

static void log_1(int priority, const char *format, va_list args)
{
    UNUSED(format);
    UNUSED(args);
    atomic_fetch_add(&lines[1], priority == LOG_ERR);
}

/* A callback of one pool that works on the other. */
static struct ns_thrpool_t *others[2];

static void work_on_the_other(struct ns_job_t *job)
{
    struct ns_thrpool_t *other = others[ns_job_get_tp(job) == others[0]];
    ns_add_job(other, NS_JOB_THREAD, run_and_finish, NULL, NULL);
    ns_add_job(other, NS_JOB_SHUTDOWN_WORKER, called, NULL, NULL);
    ns_job_done(job);
}

/* To see it fail: keep the allocator of the last pool in a global, and use that. */
TEST(fm42_each_pool_keeps_its_allocator_and_logger)
{
    struct ns_thrpool_config config = checked_config(2);
    config.calloc_fct = calloc_0;
    config.free_fct = free_0;
    config.log_fct = log_0;
    others[0] = ns_thrpool_new(&config);
    config.calloc_fct = calloc_1;
    config.free_fct = free_1;
    config.log_fct = log_1;
    others[1] = ns_thrpool_new(&config);
    assert_non_null(others[0]);
    assert_non_null(others[1]);
    atomic_store(&calls, 0);
    for (int i = 0; i < 200; i++) {
        assert_int_equal(ns_add_job(others[i % 2], i & 2 ? NS_JOB_THREAD : 0, work_on_the_other,
                                    NULL, NULL), NS_SUCCESS);
    }
    EVENTUALLY(atomic_load(&calls) == 200);
    assert_int_equal(ns_add_job(others[0], NS_JOB_NONE, NULL, NULL, NULL), NS_INVALID_REQUEST);
    EVENTUALLY(atomic_load(&lines[0]) == 101 && atomic_load(&lines[1]) == 100);
    assert_true(heaps[0].out > 0);
    assert_true(heaps[1].out > 0);
    pool_end(others[0]);
    assert_true(heaps[1].out > 0);
    pool_end(others[1]);
    heap_check(&heaps[0]);
    heap_check(&heaps[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fm11_a_pool_that_fails_at_any_step_leaves_nothing_behind),
        cmocka_unit_test(fm23_an_add_that_fails_has_had_no_effect),
        cmocka_unit_test(fm35_a_job_is_not_made_without_what_its_type_needs),
        cmocka_unit_test(fm41_each_allocation_that_fails_is_told_and_nothing_more),
        cmocka_unit_test(fm42_each_pool_keeps_its_allocator_and_logger),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
