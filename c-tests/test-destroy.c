/* SPDX-License-Identifier: GPL-3.0-or-later */
/* ns_thrpool_destroy: who may call it, what it disposes of, and that nothing is left. */
#include "kinds.h"

/* What the pool's own threads get when they wait for the pool or destroy it. */
struct suicide {
    ns_result_t result;
    int errors_of_wait;
    int errors_of_destroy;
    int named_wait;
    int named_destroy;
    struct latch over;
};

static void wait_and_destroy(struct ns_job_t *job)
{
    struct suicide *suicide = ns_job_get_data(job);
    int errors = count_logged_errors();
    suicide->result = ns_thrpool_wait(ns_job_get_tp(job));
    suicide->errors_of_wait = count_logged_errors() - errors;
    suicide->named_wait = logged("ns_thrpool_wait");
    errors = count_logged_errors();
    ns_thrpool_destroy(ns_job_get_tp(job));
    suicide->errors_of_destroy = count_logged_errors() - errors;
    suicide->named_destroy = logged("ns_thrpool_destroy");
    latch_add(&suicide->over, 1);
}

static void assert_nothing_happened(struct suicide *suicide)
{
    assert_int_equal(suicide->result, NS_THREAD_FAILURE);
    assert_int_equal(suicide->errors_of_wait, 1);
    assert_int_equal(suicide->errors_of_destroy, 1);
    assert_true(suicide->named_wait);
    assert_true(suicide->named_destroy);
}

TEST(own_callbacks_can_neither_wait_nor_destroy)
{
    for EACH_THREAD(i) {
        for (int before = 0; before < 2; before++) {
            struct ns_thrpool_t *tp = counting_pool(1);
            struct suicide suicide = {.result = NS_SUCCESS, .over = LATCH_INIT};
            struct ns_job_t *job = NULL;
            ns_job_func_t func = before ? wait_and_destroy : finish_job;
            assert_int_equal(ns_add_job(tp, where[i] | NS_JOB_UNARMED, func, &suicide, &job),
                             NS_SUCCESS);
            if (!before) {
                assert_int_equal(ns_job_set_done_cb(job, wait_and_destroy), NS_SUCCESS);
            }
            assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
            assert_latch(&suicide.over, 1);
            assert_nothing_happened(&suicide);
            assert_int_equal(ns_thrpool_is_shutdown(tp), 0);
            loop_passes(tp, 0);
            if (before) {
                finish_idle(job);
            }
            pool_end(tp);
        }
    }
}

TEST(a_done_callback_of_a_stopped_pool_can_neither_wait_nor_destroy)
{
    struct ns_thrpool_t *tp = counting_pool(1);
    struct suicide suicide = {.result = NS_SUCCESS, .over = LATCH_INIT};
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_job(tp, NS_JOB_UNARMED, finish_job, &suicide, &job), NS_SUCCESS);
    assert_int_equal(ns_job_set_done_cb(job, wait_and_destroy), NS_SUCCESS);
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    assert_latch(&suicide.over, 1);
    assert_nothing_happened(&suicide);
    ns_thrpool_destroy(tp);
}

static void destroy_other(struct ns_job_t *job)
{
    ns_thrpool_destroy(ns_job_get_data(job));
    ns_job_set_data(job, NULL);
}

TEST(a_callback_of_another_pool_may_destroy)
{
    struct ns_thrpool_t *tp = pool_of(1);
    for EACH_THREAD(i) {
        struct ns_job_t *job = NULL;
        struct latch gone = LATCH_INIT;
        struct ns_thrpool_t *other = pool_of(2);
        struct ns_job_t *armed = NULL;
        assert_int_equal(ns_add_timeout_job(other, &far_away, NS_JOB_UNARMED, finish_job, &gone,
                                            &armed), NS_SUCCESS);
        arm_with(armed, count_callback);
        assert_int_equal(ns_add_job(tp, where[i], destroy_other, other, &job), NS_SUCCESS);
        assert_int_equal(ns_job_wait(job), NS_SUCCESS);
        assert_null(ns_job_get_data(job));
        assert_int_equal(latch_count(&gone), 1);
        assert_int_equal(ns_job_done(job), NS_SUCCESS);
    }
    pool_end(tp);
}

TEST(destroy_disposes_of_all_that_is_armed)
{
    int fds = count_fds();
    int threads = count_threads();
    long blocks = atomic_load(&blocks_out);
    struct sigaction signals_before;
    struct sigaction signals_after;
    assert_int_equal(sigaction(SIGUSR1, NULL, &signals_before), 0);
    for (int how = 0; how < 3; how++) {
        struct ns_thrpool_t *tp = counting_pool(2);
        struct ns_job_t *jobs[ARMED];
        int ends[2];
        int peers[20];
        socket_pair(ends);
        atomic_store(&disposed, 0);
        arm_all(tp, ends[0], &far_away, jobs);
        for (int i = 0; i < 20; i++) {
            int pair[2];
            struct ns_job_t *job = NULL;
            socket_pair(pair);
            peers[i] = pair[1];
            /* Some with a time-out, some without. All own their descriptors. */
            assert_int_equal(ns_add_fd_timeout_job(tp, pair[0], i & 2 ? &far_away : &at_once,
                                                   where[i & 1] | NS_JOB_READ | NS_JOB_UNARMED,
                                                   count_late_run, NULL, &job), NS_SUCCESS);
            arm_with(job, count_disposed);
        }
        if (how > 0) {
            ns_thrpool_shutdown(tp);
        }
        if (how > 1) {
            assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        }
        ns_thrpool_destroy(tp);
        assert_int_equal(atomic_load(&disposed), ARMED + 20);
        for (int i = 0; i < 20; i++) {
            /* The other side sees the close. */
            char byte;
            assert_int_equal(recv(peers[i], &byte, 1, 0), 0);
            close(peers[i]);
        }
        assert_true(fd_is_open(ends[0]));
        close(ends[0]);
        close(ends[1]);
        assert_nothing_left(fds, threads);
        assert_int_equal(atomic_load(&blocks_out), blocks);
        assert_int_equal(sigaction(SIGUSR1, NULL, &signals_after), 0);
        assert_true(signals_before.sa_handler == signals_after.sa_handler);
    }
}

TEST(destroy_outlasts_the_disposal_of_all_that_was_done)
{
    struct ns_thrpool_t *tp = counting_pool(2);
    int count = scaled(5000);
    atomic_store(&disposed, 0);
    for (int i = 0; i < count; i++) {
        struct ns_job_t *job = NULL;
        assert_int_equal(ns_create_job(tp, where[i & 1], count_late_run, &job), NS_SUCCESS);
        assert_int_equal(ns_job_set_done_cb(job, count_disposed), NS_SUCCESS);
        assert_int_equal(ns_job_done(job), NS_SUCCESS);
    }
    ns_thrpool_destroy(tp);
    assert_int_equal(atomic_load(&disposed), count);
    assert_int_equal(atomic_load(&blocks_out), 0);
}

static struct ns_job_t *chain[100];
static int chain_next;

static void finish_the_next(struct ns_job_t *job)
{
    UNUSED(job);
    atomic_fetch_add(&disposed, 1);
    if (chain_next < 100) {
        ns_job_done(chain[chain_next++]);
    }
}

TEST(destroy_follows_what_done_callbacks_finish)
{
    struct ns_thrpool_t *tp = counting_pool(1);
    struct ns_job_t *first = NULL;
    atomic_store(&disposed, 0);
    chain_next = 0;
    for (int i = 0; i < 100; i++) {
        assert_int_equal(ns_create_job(tp, where[i & 1], count_late_run, &chain[i]), NS_SUCCESS);
        assert_int_equal(ns_job_set_done_cb(chain[i], finish_the_next), NS_SUCCESS);
    }
    assert_int_equal(ns_add_timeout_job(tp, &far_away, NS_JOB_UNARMED, count_late_run, NULL,
                                        &first), NS_SUCCESS);
    arm_with(first, finish_the_next);
    ns_thrpool_destroy(tp);
    assert_int_equal(atomic_load(&disposed), 101);
    assert_int_equal(atomic_load(&blocks_out), 0);
}

TEST(pools_without_a_job_come_and_go_and_leave_nothing)
{
    int fds = count_fds();
    int threads = count_threads();
    int rounds = scaled(500);
    for (int round = 0; round < rounds; round++) {
        struct ns_thrpool_t *tp = counting_pool(1 + (size_t)round % 16);
        switch (round % 3) {
        case 0:
            break;
        case 1:
            ns_thrpool_shutdown(tp);
            break;
        default:
            ns_thrpool_shutdown(tp);
            assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        }
        ns_thrpool_destroy(tp);
        assert_int_equal(atomic_load(&blocks_out), 0);
    }
    assert_nothing_left(fds, threads);
}

/* Idle jobs that the application never finishes. The library restores the process's state, but
 * their memory is lost. It stays reachable from here, so that leak checkers stay quiet. */
static struct ns_job_t *unfinished[2][3];

TEST(destroy_with_idle_jobs_gives_the_signal_back_and_leaves_the_rest)
{
    for EACH_THREAD(i) {
        struct ns_job_t **left = unfinished[i];
        struct timeval soon = {0, 1000};
        struct sigaction now;
        int ends[2];
        socket_pair(ends);
        struct ns_thrpool_t *tp = pool_logging_to(2, count_warnings);
        atomic_store(&disposed, 0);
        assert_int_equal(ns_add_signal_job(tp, SIGUSR1, where[i], do_nothing, NULL, &left[0]),
                         NS_SUCCESS);
        assert_int_equal(ns_add_fd_timeout_job(tp, ends[0], &soon, where[i] | NS_JOB_READ,
                                               do_nothing, NULL, &left[1]), NS_SUCCESS);
        assert_int_equal(ns_add_timeout_job(tp, &soon, where[i], do_nothing, NULL, &left[2]),
                         NS_SUCCESS);
        assert_int_equal(raise(SIGUSR1), 0);
        for (int j = 0; j < 3; j++) {
            assert_int_equal(ns_job_wait(left[j]), NS_SUCCESS);
            assert_int_equal(ns_job_set_done_cb(left[j], count_disposed), NS_SUCCESS);
        }
        ns_thrpool_shutdown(tp);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        assert_int_equal(atomic_exchange(&warnings, 0), 0);
        ns_thrpool_destroy(tp);
        assert_int_equal(atomic_exchange(&warnings, 0), 1);
        assert_int_equal(sigaction(SIGUSR1, NULL, &now), 0);
        assert_true(now.sa_handler == SIG_DFL);
        assert_int_equal(atomic_load(&disposed), 0);
        assert_true(fd_is_open(ends[0]));
        close(ends[0]);
        close(ends[1]);
    }
}

static void *shut_down_beside(void *tp)
{
    ns_thrpool_shutdown(tp);
    return NULL;
}

/* When the wait has returned, the call that let it return no longer touches the pool. */
TEST(wait_and_destroy_at_once_when_another_thread_shuts_down)
{
    /* As many under valgrind, which detects a call that touches the pool after destroy. */
    int rounds = 300;
    for (int round = 0; round < rounds; round++) {
        struct ns_thrpool_t *tp = counting_pool(1 + (size_t)round % 3);
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, shut_down_beside, tp), 0);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        ns_thrpool_destroy(tp);
        pthread_join(thread, NULL);
        assert_int_equal(atomic_load(&blocks_out), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(own_callbacks_can_neither_wait_nor_destroy),
        cmocka_unit_test(a_done_callback_of_a_stopped_pool_can_neither_wait_nor_destroy),
        cmocka_unit_test(a_callback_of_another_pool_may_destroy),
        cmocka_unit_test(destroy_disposes_of_all_that_is_armed),
        cmocka_unit_test(destroy_outlasts_the_disposal_of_all_that_was_done),
        cmocka_unit_test(destroy_follows_what_done_callbacks_finish),
        cmocka_unit_test(pools_without_a_job_come_and_go_and_leave_nothing),
        cmocka_unit_test(destroy_with_idle_jobs_gives_the_signal_back_and_leaves_the_rest),
        cmocka_unit_test(wait_and_destroy_at_once_when_another_thread_shuts_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
