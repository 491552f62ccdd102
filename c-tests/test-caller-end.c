/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The loop in the caller's thread: shutdown, wait and destroy. No order of these may hang, whoever was
 * inside before and whoever comes to wait. */
#include "caller.h"
#include "sockets.h"

static void *wait_for_pool(void *tp)
{
    return (void *)(intptr_t)ns_thrpool_wait(tp);
}

static void *turn_to_end(void *tp)
{
    while (turn_for(tp, 0) == NS_SUCCESS) {
    }
    return NULL;
}

/* A pool with one of everything, and the latch that counts what was disposed of. */
enum { MEMBERS = 5 };

static void fill_pool(struct ns_thrpool_t *tp, struct latch *gone, int ends[2])
{
    struct ns_job_t *job = NULL;
    socket_pair(ends);
    assert_int_equal(ns_add_fd_job(tp, ends[0], NS_JOB_READ | NS_JOB_UNARMED, do_nothing, gone, &job),
                     NS_SUCCESS);
    arm_with(job, count_callback);
    assert_int_equal(ns_add_timeout_job(tp, &far_away, NS_JOB_UNARMED, do_nothing, gone, &job), NS_SUCCESS);
    arm_with(job, count_callback);
    assert_int_equal(ns_add_signal_job(tp, SIGUSR1, NS_JOB_UNARMED, do_nothing, gone, &job), NS_SUCCESS);
    arm_with(job, count_callback);
    assert_int_equal(ns_add_fd_job(tp, ends[0], NS_JOB_READ | NS_JOB_THREAD | NS_JOB_PERSIST |
                                   NS_JOB_PRESERVE_FD | NS_JOB_UNARMED, do_nothing, gone, &job),
                     NS_SUCCESS);
    arm_with(job, count_callback);
    assert_int_equal(ns_add_job(tp, NS_JOB_PERSIST | NS_JOB_UNARMED, do_nothing, gone, &job), NS_SUCCESS);
    assert_int_equal(ns_job_set_done_cb(job, count_callback), NS_SUCCESS);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
}

TEST(a_pool_that_nobody_turned_ends)
{
    int fds = count_fds(), threads = first_count_of_threads();
    for (int how = 0; how < 4; how++) {
        struct latch gone = LATCH_INIT;
        int ends[2];
        struct ns_thrpool_t *tp = caller_pool(how % 2 + 1);
        ns_thrpool_get_wait_fd(tp);
        fill_pool(tp, &gone, ends);
        if (how >= 1) {
            ns_thrpool_shutdown(tp);
        }
        if (how >= 2) {
            assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
            assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        }
        ns_thrpool_destroy(tp);
        assert_int_equal(latch_count(&gone), MEMBERS);
        assert_false(fd_is_open(ends[0]));
        close(ends[1]);
    }
    assert_nothing_left(fds, threads);
}

TEST(a_pool_that_the_caller_turned_ends)
{
    for (int how = 0; how < 3; how++) {
        struct latch gone = LATCH_INIT;
        int ends[2];
        struct ns_thrpool_t *tp = caller_pool(1);
        fill_pool(tp, &gone, ends);
        for (int i = 0; i < 10; i++) {
            turn_for(tp, 0);
        }
        if (how >= 1) {
            ns_thrpool_shutdown(tp);
        }
        if (how >= 2) {
            assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        }
        ns_thrpool_destroy(tp);
        assert_int_equal(latch_count(&gone), MEMBERS);
        close(ends[1]);
    }
}

/* Run-now jobs that were queued before the shutdown run, wherever they run. */
TEST(what_was_queued_before_runs)
{
    struct ns_thrpool_t *tp = caller_pool(2);
    struct latch runs = LATCH_INIT;
    for (int i = 0; i < 3000; i++) {
        assert_int_equal(ns_add_job(tp, where[i % 2], count_and_finish, &runs, NULL), NS_SUCCESS);
    }
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    assert_int_equal(latch_count(&runs), 3000);
    ns_thrpool_destroy(tp);
}

TEST(the_thread_that_turned_the_pool_has_ended)
{
    /* Before the wait, and while one is under way: nobody else would ever wake it. */
    struct ns_thrpool_t *tp = caller_pool(1);
    join_thread(start_thread(turn_to_end, tp));
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    ns_thrpool_destroy(tp);
}

struct lasting {
    struct ns_thrpool_t *tp;
    struct latch turned, leave;
};

static void *turn_and_linger(void *arg)
{
    struct lasting *lasting = arg;
    turn_to_end(lasting->tp);
    latch_add(&lasting->turned, 1);
    latch_reaches(&lasting->leave, 1);
    return NULL;
}

TEST(it_ends_while_others_wait)
{
    enum { WAITERS = 3 };
    for (int i = 0; i < scaled(100); i++) {
        struct lasting lasting = {caller_pool(1), LATCH_INIT, LATCH_INIT};
        pthread_t last = start_thread(turn_and_linger, &lasting), waiters[WAITERS];
        assert_latch(&lasting.turned, 1);
        ns_thrpool_shutdown(lasting.tp);
        for (int w = 0; w < WAITERS; w++) {
            waiters[w] = start_thread(wait_for_pool, lasting.tp);
        }
        /* They wait for a thread that is not done with the pool, for all they know. */
        struct timeval tv = {0, 1000};
        assert_int_equal(ns_thrpool_timedwait(lasting.tp, &tv), NS_TIMEOUT);
        latch_add(&lasting.leave, 1);
        for (int w = 0; w < WAITERS; w++) {
            assert_int_equal(join_thread(waiters[w]), NS_SUCCESS);
        }
        join_thread(last);
        ns_thrpool_destroy(lasting.tp);
    }
}

static void *wait_and_turn_on(void *arg)
{
    struct lasting *lasting = arg;
    turn_to_end(lasting->tp);
    latch_add(&lasting->turned, 1);
    latch_reaches(&lasting->leave, 1);
    return (void *)(intptr_t)ns_thrpool_run(lasting->tp);
}

TEST(others_wait_for_the_thread_that_was_last_inside)
{
    struct lasting lasting = {caller_pool(1), LATCH_INIT, LATCH_INIT};
    pthread_t last = start_thread(wait_and_turn_on, &lasting);
    assert_latch(&lasting.turned, 1);
    ns_thrpool_shutdown(lasting.tp);
    struct timeval tv = {0, 2000};
    double begin = now_seconds();
    assert_int_equal(ns_thrpool_timedwait(lasting.tp, &tv), NS_TIMEOUT);
    assert_true(now_seconds() - begin >= 0.002);
    latch_add(&lasting.leave, 1);
    assert_int_equal(ns_thrpool_wait(lasting.tp), NS_SUCCESS);
    assert_int_equal(join_thread(last), NS_SUCCESS);
    ns_thrpool_destroy(lasting.tp);
}

static void *shut_down_later(void *tp)
{
    let_time_pass(1000);
    ns_thrpool_shutdown(tp);
    return NULL;
}

TEST(a_shutdown_makes_who_waits_the_loop)
{
    for (int turned = 0; turned < 2; turned++) {
        for (int timed = 0; timed < 2; timed++) {
            struct ns_thrpool_t *tp = caller_pool(1);
            struct latch runs = LATCH_INIT;
            struct timeval little = {0, 1000}, much = {LIMIT_SECONDS, 0};
            if (turned) {
                turn_to_end(tp);
            }
            /* Before the shutdown it only waits. */
            assert_int_equal(ns_add_job(tp, NS_JOB_NONE, count_and_finish, &runs, NULL), NS_SUCCESS);
            assert_int_equal(ns_thrpool_timedwait(tp, &little), NS_TIMEOUT);
            assert_int_equal(latch_count(&runs), 0);
            pthread_t thread = start_thread(shut_down_later, tp);
            assert_int_equal(timed ? ns_thrpool_timedwait(tp, &much) : ns_thrpool_wait(tp), NS_SUCCESS);
            assert_int_equal(latch_count(&runs), 1);
            join_thread(thread);
            ns_thrpool_destroy(tp);
        }
    }
}

/* A wait whose time is up leaves the loop to another that waits. */
TEST(a_wait_that_gives_up_hands_on)
{
    struct ns_thrpool_t *tp = caller_pool(1);
    struct gate gate = GATE_INIT;
    struct ns_job_t *job = occupy(tp, NS_JOB_THREAD, &gate);
    ns_thrpool_shutdown(tp);
    struct timeval tv = {0, 3000};
    assert_int_equal(ns_thrpool_timedwait(tp, &tv), NS_TIMEOUT);
    pthread_t other = start_thread(wait_for_pool, tp);
    assert_int_equal(ns_thrpool_timedwait(tp, &tv), NS_TIMEOUT);
    latch_add(&gate.leave, 1);
    assert_int_equal(join_thread(other), NS_SUCCESS);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    ns_thrpool_destroy(tp);
}

TEST(of_several_that_wait_one_is_the_loop)
{
    enum { WAITERS = 6 };
    for (int i = 0; i < scaled(100); i++) {
        struct ns_thrpool_t *tp = caller_pool(1);
        struct latch runs = LATCH_INIT;
        pthread_t waiters[WAITERS];
        for (int w = 0; w < WAITERS; w++) {
            waiters[w] = start_thread(wait_for_pool, tp);
        }
        for (int j = 0; j < 20; j++) {
            assert_int_equal(ns_add_job(tp, where[j % 2], count_and_finish, &runs, NULL), NS_SUCCESS);
        }
        ns_thrpool_shutdown(tp);
        for (int w = 0; w < WAITERS; w++) {
            assert_int_equal(join_thread(waiters[w]), NS_SUCCESS);
        }
        assert_int_equal(latch_count(&runs), 20);
        ns_thrpool_destroy(tp);
    }
}

/* Destroy overlaps a run or a turn. */
static void *turn_for_long(void *tp)
{
    struct timeval tv = {LIMIT_SECONDS, 0};
    return (void *)(intptr_t)ns_thrpool_turn(tp, &tv);
}

TEST(destroy_waits_for_the_thread_that_is_inside)
{
    for (int i = 0; i < scaled(100); i++) {
        struct ns_thrpool_t *tp = caller_pool(1);
        struct gate gate = GATE_INIT;
        pthread_t inside = start_thread(i % 2 ? run_loop : turn_for_long, tp);
        struct ns_job_t *job = occupy(tp, NS_JOB_NONE, &gate);
        assert_int_equal(ns_job_done(job), NS_SUCCESS);
        latch_add(&gate.leave, 1);
        ns_thrpool_destroy(tp);
        ns_result_t result = (ns_result_t)join_thread(inside);
        assert_true(result == NS_SUCCESS || result == NS_SHUTDOWN);
    }
}

static void shut_own(struct ns_job_t *job)
{
    ns_thrpool_shutdown(ns_job_get_tp(job));
    ns_job_done(job);
}

TEST(a_callback_shuts_the_pool_down)
{
    for EACH_THREAD(i) {
        for (int how = 0; how < 3; how++) {
            struct ns_thrpool_t *tp = caller_pool(1);
            assert_int_equal(ns_add_job(tp, where[i], shut_own, NULL, NULL), NS_SUCCESS);
            if (how == 0) {
                assert_int_equal(ns_thrpool_run(tp), NS_SUCCESS);
            } else if (how == 1) {
                ns_result_t result;
                while ((result = ns_thrpool_turn(tp, NULL)) == NS_SUCCESS) {
                }
                assert_int_equal(result, NS_SHUTDOWN);
            } else {
                turn_to_end(tp);
                if (i == 1) {
                    EVENTUALLY(ns_thrpool_is_shutdown(tp));
                }
            }
            assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
            ns_thrpool_destroy(tp);
        }
    }
}

TEST(a_quiet_pool_disposes_of_what_is_done_when_it_is_turned)
{
    struct ns_thrpool_t *tp = caller_pool(1);
    int fd = ns_thrpool_get_wait_fd(tp);
    struct probe idle = PROBE(NULL, -1), armed = PROBE(NULL, -1);
    struct ns_job_t *job = NULL;
    int ends[2];
    socket_pair(ends);
    assert_int_equal(ns_add_job(tp, NS_JOB_UNARMED, probe_run, &idle, &job), NS_SUCCESS);
    assert_int_equal(ns_job_set_done_cb(job, probe_gone), NS_SUCCESS);
    armed.fd = ends[0];
    struct ns_job_t *reader = probe_fd(tp, NS_JOB_READ, 0, &armed);
    turn_to_the_end(tp);
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_thrpool_run(tp), NS_SUCCESS);
    /* Nothing fires any more, and nothing that is ready makes the descriptor readable. */
    send_byte(ends[1]);
    assert_not_readable(fd);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    assert_readable(fd);
    assert_int_equal(turn_for(tp, 0), NS_SHUTDOWN);
    assert_int_equal(latch_count(&idle.disposals), 1);
    assert_not_readable(fd);
    assert_int_equal(ns_job_cancel(reader), NS_SUCCESS);
    assert_readable(fd);
    assert_int_equal(ns_thrpool_run(tp), NS_SUCCESS);
    assert_int_equal(latch_count(&armed.disposals), 1);
    assert_int_equal(latch_count(&armed.runs), 0);
    close(ends[1]);
    ns_thrpool_destroy(tp);
}

/* A thread whose thread-locals go turns the pool once more: it counts as one that has ended. */
static pthread_key_t key;

static void turn_late(void *tp)
{
    turn_for(tp, 0);
}

static void *end_late(void *tp)
{
    turn_for(tp, 0);
    pthread_setspecific(key, tp);
    return NULL;
}

TEST(a_turn_in_a_destructor_of_a_thread)
{
    assert_int_equal(pthread_key_create(&key, turn_late), 0);
    struct ns_thrpool_t *tp = caller_pool(1);
    struct latch runs = LATCH_INIT;
    assert_int_equal(ns_add_job(tp, NS_JOB_NONE, count_and_finish, &runs, NULL), NS_SUCCESS);
    join_thread(start_thread(end_late, tp));
    assert_int_equal(latch_count(&runs), 1);
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    ns_thrpool_destroy(tp);
    pthread_key_delete(key);
}

/* Pools come and go while threads that turned them live on, and the other way round. */
static void *turn_many(void *arg)
{
    UNUSED(arg);
    for (int i = 0; i < scaled(100); i++) {
        struct ns_thrpool_t *tp = caller_pool((size_t)(i % 2));
        struct latch runs = LATCH_INIT;
        ns_add_job(tp, NS_JOB_NONE, count_and_finish, &runs, NULL);
        turn_to_end(tp);
        pthread_t other = start_thread(turn_to_end, tp);
        if (i % 3) {
            ns_thrpool_shutdown(tp);
        }
        join_thread(other);
        ns_thrpool_destroy(tp);
    }
    return NULL;
}

TEST(pools_and_threads_come_and_go)
{
    int fds = count_fds(), threads = count_threads();
    pthread_t others[3];
    for (int i = 0; i < 3; i++) {
        others[i] = start_thread(turn_many, NULL);
    }
    for (int i = 0; i < 3; i++) {
        join_thread(others[i]);
    }
    assert_nothing_left(fds, threads);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_pool_that_nobody_turned_ends),
        cmocka_unit_test(a_pool_that_the_caller_turned_ends),
        cmocka_unit_test(what_was_queued_before_runs),
        cmocka_unit_test(the_thread_that_turned_the_pool_has_ended),
        cmocka_unit_test(it_ends_while_others_wait),
        cmocka_unit_test(others_wait_for_the_thread_that_was_last_inside),
        cmocka_unit_test(a_shutdown_makes_who_waits_the_loop),
        cmocka_unit_test(a_wait_that_gives_up_hands_on),
        cmocka_unit_test(of_several_that_wait_one_is_the_loop),
        cmocka_unit_test(destroy_waits_for_the_thread_that_is_inside),
        cmocka_unit_test(a_callback_shuts_the_pool_down),
        cmocka_unit_test(a_quiet_pool_disposes_of_what_is_done_when_it_is_turned),
        cmocka_unit_test(a_turn_in_a_destructor_of_a_thread),
        cmocka_unit_test(pools_and_threads_come_and_go),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
