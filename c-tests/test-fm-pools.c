/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Several pools in one process: none delays another, neither the freeing of its memory nor its end,
 * whatever the other's threads, logger and allocator do.
 */
#include "fm.h"

enum { WAITERS = 32 };

/* Threads that wait again and again for an idle job of another pool. */
static struct {
    struct ns_job_t *idle;
    atomic_int stop;
    atomic_int begun;
    pthread_t threads[WAITERS];
} others;

static void *wait_again_and_again(void *unused)
{
    atomic_fetch_add(&others.begun, 1);
    while (!atomic_load(&others.stop)) {
        ns_job_wait(others.idle);
    }
    return unused;
}

static void begin_to_wait(struct ns_thrpool_t *tp)
{
    atomic_store(&others.stop, 0);
    atomic_store(&others.begun, 0);
    assert_int_equal(ns_create_job(tp, NS_JOB_NONE, do_nothing, &others.idle), NS_SUCCESS);
    for (int i = 0; i < WAITERS; i++) {
        assert_int_equal(pthread_create(&others.threads[i], NULL, wait_again_and_again, NULL), 0);
    }
    EVENTUALLY(atomic_load(&others.begun) == WAITERS);
}

static void end_to_wait(void)
{
    atomic_store(&others.stop, 1);
    for (int i = 0; i < WAITERS; i++) {
        pthread_join(others.threads[i], NULL);
    }
    assert_int_equal(ns_job_done(others.idle), NS_SUCCESS);
}

/* Add n run-now jobs, with at most a thousand alive at a time, and see the last one end. */
static void make_and_run(struct ns_thrpool_t *tp, long n)
{
    static atomic_long done;
    atomic_store(&done, 0);
    for (long made = 0; made < n; made++) {
        assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, tally_and_finish, &done, NULL), NS_SUCCESS);
        if (made - atomic_load(&done) > 1000) {
            SOON(made - atomic_load(&done) < 1000);
        }
    }
    SOON(atomic_load(&done) == n);
}

/* A thread that makes one call, and reports when it has returned. */
static struct latch returned = LATCH_INIT;

static void *destroy(void *tp)
{
    ns_thrpool_destroy(tp);
    latch_add(&returned, 1);
    return NULL;
}

/*
 * To see it fail: in DeferredFrees::clear, wait until nobody at all is counted.
 */
TEST(fm12_destroy_ends_while_others_wait_again_and_again_in_another_pool)
{
    struct ns_thrpool_t *other = pool_of(1);
    begin_to_wait(other);
    for (long round = 0; round < count_of(10, 1000); round++) {
        struct ns_thrpool_t *tp = counting_pool(1);
        pthread_t thread;
        long before = latch_count(&returned);
        make_and_run(tp, 200);
        assert_int_equal(pthread_create(&thread, NULL, destroy, tp), 0);
        /* While the others go on. */
        assert_latch(&returned, before + 1);
        pthread_join(thread, NULL);
        assert_int_equal(atomic_load(&blocks_out), 0);
    }
    end_to_wait();
    pool_end(other);
}

/*
 * To see it fail: in DeferredFrees::free_later, do not look through what is deferred.
 */
TEST(memory_is_given_back_while_others_wait_again_and_again_in_another_pool)
{
    struct ns_thrpool_t *other = pool_of(1);
    struct ns_thrpool_t *tp = counting_pool(1);
    long own = atomic_load(&blocks_out);
    begin_to_wait(other);
    /* Jobs that end while one thread is between its call and its mark wait to be freed: many of them,
     * if that thread is preempted there. But they go while others come and go there, so however many
     * jobs there were in all, what stays is a small part of them. */
    long jobs = count_of(30000, 3000000);
    double end = now_seconds() + LIMIT_SECONDS;
    long made = 0;
    long left;
    do {
        make_and_run(tp, jobs);
        made += jobs;
        left = atomic_load(&blocks_out) - own;
    } while (left > made / 4 && now_seconds() < end);
    end_to_wait();
    if (left > made / 4) {
        fail_msg("of %ld jobs %ld stay", made, left);
    }
    make_and_run(tp, 100);
    ns_thrpool_destroy(tp);
    pool_end(other);
    assert_int_equal(atomic_load(&blocks_out), 0);
}

/* A logger that takes one of the application's locks. */
static pthread_mutex_t log_lock = PTHREAD_MUTEX_INITIALIZER;
static atomic_int in_logger;

static void locking_log(int priority, const char *format, va_list args)
{
    UNUSED(format);
    UNUSED(args);
    if (priority == LOG_ERR) {
        atomic_fetch_add(&in_logger, 1);
        pthread_mutex_lock(&log_lock);
        pthread_mutex_unlock(&log_lock);
    }
}

static void *wait_for_a_negative_time(void *job)
{
    struct timeval tv = {-1, 0};
    ns_result_t result = ns_job_timedwait(job, &tv);
    return result == NS_INVALID_REQUEST ? job : NULL;
}

/*
 * To see it fail: in wait_until of the C interface, let `entering` live until it has logged.
 */
TEST(fm12_a_logger_that_blocks_holds_up_no_other_pool)
{
    struct ns_thrpool_t *other = pool_logging_to(1, locking_log);
    struct ns_thrpool_t *tp = counting_pool(1);
    long own = atomic_load(&blocks_out);
    struct ns_job_t *idle = NULL;
    pthread_t waiter;
    pthread_t destroyer;
    void *refused = NULL;
    assert_int_equal(ns_create_job(other, NS_JOB_NONE, do_nothing, &idle), NS_SUCCESS);
    atomic_store(&in_logger, 0);
    pthread_mutex_lock(&log_lock);
    assert_int_equal(pthread_create(&waiter, NULL, wait_for_a_negative_time, idle), 0);
    EVENTUALLY(atomic_load(&in_logger) > 0);
    make_and_run(tp, scaled(20000));
    /* A worker frees the last after it has counted it. */
    EVENTUALLY(atomic_load(&blocks_out) == own);
    long before = latch_count(&returned);
    assert_int_equal(pthread_create(&destroyer, NULL, destroy, tp), 0);
    assert_latch(&returned, before + 1);
    pthread_mutex_unlock(&log_lock);
    pthread_join(destroyer, NULL);
    pthread_join(waiter, &refused);
    assert_ptr_equal(refused, idle);
    assert_int_equal(ns_job_done(idle), NS_SUCCESS);
    pool_end(other);
    assert_int_equal(atomic_load(&blocks_out), 0);
}

/*
 * A wait that is refused is inside its own pool while it logs, so that pool is not freed until the
 * logger has returned.
 */
TEST(a_pool_stays_while_its_logger_speaks_of_a_wait)
{
    struct ns_thrpool_t *tp = pool_with(1, locking_log, counting_calloc, counting_free);
    struct ns_job_t *job = NULL;
    struct latch gone = LATCH_INIT;
    pthread_t waiter;
    pthread_t destroyer;
    assert_int_equal(ns_create_job(tp, NS_JOB_NONE, do_nothing, &job), NS_SUCCESS);
    assert_int_equal(ns_job_set_data(job, &gone), NS_SUCCESS);
    assert_int_equal(ns_job_set_done_cb(job, count_callback), NS_SUCCESS);
    atomic_store(&in_logger, 0);
    pthread_mutex_lock(&log_lock);
    assert_int_equal(pthread_create(&waiter, NULL, wait_for_a_negative_time, job), 0);
    EVENTUALLY(atomic_load(&in_logger) > 0);
    int threads = count_threads();
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    long before = latch_count(&returned);
    assert_int_equal(pthread_create(&destroyer, NULL, destroy, tp), 0);
    /* The job ends and the pool's threads end: only the pool itself is still there. */
    assert_latch(&gone, 1);
    EVENTUALLY(count_threads() == threads - 2 + 1);
    assert_true(atomic_load(&blocks_out) > 0);
    assert_int_equal(latch_count(&returned), before);
    pthread_mutex_unlock(&log_lock);
    assert_latch(&returned, before + 1);
    pthread_join(destroyer, NULL);
    pthread_join(waiter, NULL);
    assert_int_equal(atomic_load(&blocks_out), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fm12_destroy_ends_while_others_wait_again_and_again_in_another_pool),
        cmocka_unit_test(memory_is_given_back_while_others_wait_again_and_again_in_another_pool),
        cmocka_unit_test(fm12_a_logger_that_blocks_holds_up_no_other_pool),
        cmocka_unit_test(a_pool_stays_while_its_logger_speaks_of_a_wait),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
