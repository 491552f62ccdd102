/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The loop in the caller's thread: who is the loop, who may be it, and pools that turn one another. */
#include "caller.h"
#include "sockets.h"

static ns_result_t run_now_done(struct ns_thrpool_t *tp, ns_job_func_t func, void *data)
{
    return ns_add_job(tp, NS_JOB_NONE, func, data, NULL);
}

TEST(bad_calls_are_refused)
{
    assert_int_equal(ns_thrpool_run(NULL), NS_INVALID_REQUEST);
    assert_int_equal(ns_thrpool_turn(NULL, NULL), NS_INVALID_REQUEST);
    assert_int_equal(ns_thrpool_get_wait_fd(NULL), -1);

    /* A pool with a loop thread. */
    struct ns_thrpool_t *tp = pool_of(1);
    assert_int_equal(ns_thrpool_run(tp), NS_INVALID_STATE);
    assert_int_equal(ns_thrpool_turn(tp, &at_once), NS_INVALID_STATE);
    assert_int_equal(ns_thrpool_get_wait_fd(tp), -1);
    pool_end(tp);

    tp = caller_pool(1);
    struct timeval negative = {-1, 0}, micros = {0, -1}, many = {0, 1500};
    assert_int_equal(ns_thrpool_turn(tp, &negative), NS_INVALID_REQUEST);
    assert_int_equal(ns_thrpool_turn(tp, &micros), NS_INVALID_REQUEST);
    assert_int_equal(ns_thrpool_turn(tp, &many), NS_TIMEOUT);
    pool_end(tp);
}

/* What a callback was told. */
static ns_result_t told[6];

static void ask(struct ns_job_t *job)
{
    struct ns_thrpool_t *tp = ns_job_get_tp(job);
    told[0] = ns_thrpool_run(tp);
    told[1] = ns_thrpool_turn(tp, &at_once);
    told[2] = ns_thrpool_turn(tp, NULL);
    told[3] = ns_thrpool_wait(tp);
    ns_thrpool_destroy(tp);
    latch_add(ns_job_get_data(job), 1);
    ns_job_done(job);
}

static void check_told(void)
{
    assert_int_equal(told[0], NS_INVALID_STATE);
    assert_int_equal(told[1], NS_INVALID_STATE);
    assert_int_equal(told[2], NS_INVALID_STATE);
    assert_int_equal(told[3], NS_THREAD_FAILURE);
    memset(told, -1, sizeof told);
}

static void ask_group(struct ns_group_t *group)
{
    struct ns_thrpool_t *tp = ns_group_get_tp(group);
    told[0] = ns_thrpool_run(tp);
    told[1] = ns_thrpool_turn(tp, &at_once);
    told[2] = ns_thrpool_turn(tp, NULL);
    told[3] = ns_thrpool_wait(tp);
    latch_add(ns_group_get_data(group), 1);
}

TEST(callbacks_of_the_pool_can_not_turn_it)
{
    struct ns_thrpool_t *tp = caller_pool(1);
    struct latch runs = LATCH_INIT;
    /* In the loop, in a worker, in a done callback, in that of a group. */
    for EACH_THREAD(i) {
        assert_int_equal(ns_add_job(tp, where[i], ask, &runs, NULL), NS_SUCCESS);
        TURN_UNTIL(tp, latch_count(&runs) == (long)i + 1);
        check_told();
    }
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_timeout_job(tp, &far_away, NS_JOB_UNARMED, do_nothing, &runs, &job),
                     NS_SUCCESS);
    arm_with(job, ask);
    assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
    TURN_UNTIL(tp, latch_count(&runs) == 3);
    check_told();
    struct ns_group_t *group = NULL;
    assert_int_equal(ns_group_new(tp, 1, &runs, ask_group, &group), NS_SUCCESS);
    ns_group_release(group);
    TURN_UNTIL(tp, latch_count(&runs) == 4);
    check_told();
    /* And in destroy, which is the loop. */
    assert_int_equal(ns_add_timeout_job(tp, &far_away, NS_JOB_UNARMED, do_nothing, &runs, &job),
                     NS_SUCCESS);
    arm_with(job, ask);
    pool_end(tp);
    assert_int_equal(latch_count(&runs), 5);
    check_told();
}

static void *turn_at_once(void *tp)
{
    return (void *)(intptr_t)ns_thrpool_turn(tp, &at_once);
}

TEST(one_thread_at_a_time)
{
    struct ns_thrpool_t *tp = caller_pool(1);
    pthread_t other = start_thread(run_loop, tp);
    struct gate gate = GATE_INIT;
    struct ns_job_t *job = occupy(tp, NS_JOB_NONE, &gate);
    assert_int_equal(ns_thrpool_run(tp), NS_INVALID_STATE);
    assert_int_equal(ns_thrpool_turn(tp, &at_once), NS_INVALID_STATE);
    assert_int_equal(ns_thrpool_turn(tp, NULL), NS_INVALID_STATE);
    latch_add(&gate.leave, 1);
    finish_idle(job);
    assert_int_equal(ns_thrpool_turn(tp, &at_once), NS_INVALID_STATE);
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    assert_int_equal(join_thread(other), NS_SUCCESS);
    /* Whoever turns a quiet pool is told so. */
    assert_int_equal(turn_for(tp, 0), NS_SHUTDOWN);
    assert_int_equal(ns_thrpool_turn(tp, NULL), NS_SHUTDOWN);
    assert_int_equal(ns_thrpool_run(tp), NS_SUCCESS);
    ns_thrpool_destroy(tp);
}

/* Nothing but the pool keeps these threads apart. */
struct turns {
    struct ns_thrpool_t *tp;
    long *plain;
    struct latch *runs;
    atomic_int *over;
};

static void count_plainly(struct ns_job_t *job)
{
    struct turns *turns = ns_job_get_data(job);
    ++*turns->plain;
    latch_add(turns->runs, 1);
}

static void *take_turns(void *arg)
{
    struct turns *turns = arg;
    long inside = 0;
    /* Each is inside at least once. */
    while (!atomic_load(turns->over) || inside == 0) {
        inside += turn_for(turns->tp, 200) != NS_INVALID_STATE;
        sched_yield();
    }
    return (void *)(intptr_t)inside;
}

TEST(threads_by_turns_see_what_the_one_before_wrote)
{
    enum { THREADS = 4 };
    struct ns_thrpool_t *tp = caller_pool(1);
    long plain = 0;
    struct latch runs = LATCH_INIT;
    atomic_int over = 0;
    struct turns turns = {tp, &plain, &runs, &over};
    struct ns_job_t *again = NULL, *timer = NULL;
    struct timeval tv = {0, 10};
    pthread_t threads[THREADS];
    assert_int_equal(ns_add_job(tp, NS_JOB_PERSIST, count_plainly, &turns, &again), NS_SUCCESS);
    assert_int_equal(ns_add_timeout_job(tp, &tv, NS_JOB_PERSIST, count_plainly, &turns, &timer),
                     NS_SUCCESS);
    for (int i = 0; i < THREADS; i++) {
        threads[i] = start_thread(take_turns, &turns);
    }
    assert_latch(&runs, scaled(20000));
    ns_job_cancel(again);
    ns_job_cancel(timer);
    atomic_store(&over, 1);
    for (int i = 0; i < THREADS; i++) {
        assert_true(join_thread(threads[i]) > 0);
    }
    pool_end(tp);
    assert_int_equal(plain, latch_count(&runs));
}

TEST(the_thread_last_inside_counts_as_the_loop)
{
    struct ns_thrpool_t *tp = caller_pool(1);
    struct ns_job_t *job = NULL;
    struct timeval tv = {0, 1000};
    struct ns_group_t *group = NULL;
    assert_int_equal(ns_group_new(tp, 1, NULL, NULL, &group), NS_SUCCESS);
    assert_int_equal(ns_add_timeout_job(tp, &far_away, NS_JOB_NONE, do_nothing, NULL, &job), NS_SUCCESS);
    /* Nobody was inside: another thread may be the loop some time. */
    assert_int_equal(ns_job_timedwait(job, &tv), NS_TIMEOUT);
    turn_to_the_end(tp);
    assert_int_equal(ns_job_wait(job), NS_INVALID_STATE);
    assert_int_equal(ns_job_timedwait(job, &tv), NS_INVALID_STATE);
    struct ns_job_t *member = NULL;
    assert_int_equal(ns_add_group_job(group, NS_JOB_NONE, do_nothing, NULL, &member), NS_SUCCESS);
    assert_int_equal(ns_group_wait(group, NULL), NS_INVALID_STATE);
    /* Now another was. */
    join_thread(start_thread(turn_at_once, tp));
    assert_int_equal(ns_job_timedwait(job, &tv), NS_TIMEOUT);
    turn_to_the_end(tp);
    assert_int_equal(ns_group_wait(group, NULL), NS_SUCCESS);
    ns_group_cancel(group);
    ns_group_release(group);
    ns_job_cancel(job);
    pool_end(tp);
}

/*
 * A callback of one pool turns another.
 */
struct nest {
    struct ns_thrpool_t *inner;
    struct ns_group_t *group;       /* of the outer pool */
    struct ns_job_t *outer_job;
    struct latch runs;
    int current;
    ns_result_t turn_outer, turn_inner, wait_own, wait_inner, cancel_own, group_wait, wait_outer;
};

static void innermost(struct ns_job_t *job)
{
    struct nest *nest = ns_job_get_data(job);
    struct ns_thrpool_t *outer = ns_job_get_tp(nest->outer_job);
    nest->current = ns_group_is_current(nest->group);
    nest->turn_outer = ns_thrpool_turn(outer, &at_once);
    nest->turn_inner = ns_thrpool_turn(nest->inner, &at_once);
    nest->wait_outer = ns_thrpool_wait(outer);
    nest->wait_inner = ns_job_wait(job);
    nest->wait_own = ns_job_wait(nest->outer_job);
    nest->group_wait = ns_group_wait(nest->group, NULL);
    nest->cancel_own = ns_job_cancel(nest->outer_job);
    latch_add(&nest->runs, 1);
    ns_job_done(job);
}

static void turn_another(struct ns_job_t *job)
{
    struct nest *nest = ns_job_get_data(job);
    run_now_done(nest->inner, innermost, nest);
    while (ns_thrpool_turn(nest->inner, &at_once) == NS_SUCCESS) {
    }
    /* The thread is in its own callback again, and in no other. */
    int right = ns_job_wait(job) == NS_INVALID_STATE;
    right += ns_group_is_current(nest->group);
    latch_add(&nest->runs, right + 1);
}

/* The outer pool's callback runs in its loop thread, in a worker, or in the caller. */
static void nested(struct ns_thrpool_t *outer, ns_job_type_t type, int turn)
{
    struct nest nest = {.inner = caller_pool(0), .runs = LATCH_INIT};
    assert_int_equal(ns_group_new(outer, 1, NULL, NULL, &nest.group), NS_SUCCESS);
    assert_int_equal(ns_add_group_job(nest.group, type | NS_JOB_UNARMED, turn_another, &nest,
                                      &nest.outer_job), NS_SUCCESS);
    assert_int_equal(ns_job_rearm(nest.outer_job), NS_SUCCESS);
    if (turn) {
        TURN_UNTIL(outer, latch_count(&nest.runs) == 4);
    } else {
        assert_latch(&nest.runs, 4);
    }
    assert_int_equal(nest.current, 1);
    assert_int_equal(nest.turn_outer, NS_INVALID_STATE);
    assert_int_equal(nest.turn_inner, NS_INVALID_STATE);
    assert_int_equal(nest.wait_outer, NS_THREAD_FAILURE);
    assert_int_equal(nest.wait_inner, NS_INVALID_STATE);
    assert_int_equal(nest.wait_own, NS_INVALID_STATE);
    /* Nothing of the group runs but the caller. */
    assert_int_equal(nest.group_wait, NS_SUCCESS);
    assert_int_equal(nest.cancel_own, NS_SUCCESS);
    ns_group_cancel(nest.group);
    ns_group_release(nest.group);
    if (turn) {
        turn_to_the_end(outer);
    }
    /* The inner one waits for the thread that was last inside, until that has ended. */
    pool_end(outer);
    pool_end(nest.inner);
}

TEST(a_callback_may_turn_another_pool)
{
    nested(pool_of(1), NS_JOB_NONE, 0);
    nested(pool_of(1), NS_JOB_THREAD, 0);
    nested(caller_pool(0), NS_JOB_NONE, 1);
    nested(caller_pool(1), NS_JOB_THREAD, 1);
}

/* A pool in the loop of another: one turn of the outer one serves both. */
static void turn_inner(struct ns_job_t *job)
{
    ns_thrpool_turn(ns_job_get_data(job), &at_once);
}

TEST(a_pool_watches_another)
{
    struct ns_thrpool_t *inner = caller_pool(1);
    needs_wait_fd(inner);
    struct ns_thrpool_t *outer = caller_pool(0);
    struct latch runs = LATCH_INIT;
    struct ns_job_t *watch = NULL;
    ns_job_type_t type = NS_JOB_READ | NS_JOB_PERSIST | NS_JOB_PRESERVE_FD;
    assert_int_equal(ns_add_fd_job(outer, ns_thrpool_get_wait_fd(inner), type, turn_inner, inner,
                                   &watch), NS_SUCCESS);
    for (int i = 0; i < 100; i++) {
        struct timeval tv = {0, i % 2 * 100};
        assert_int_equal(ns_add_timeout_job(inner, &tv, where[i / 2 % 2], count_and_finish, &runs, NULL),
                         NS_SUCCESS);
        TURN_UNTIL(outer, latch_count(&runs) == i + 1);
    }
    turn_to_the_end(outer);
    assert_not_readable(ns_thrpool_get_wait_fd(outer));
    ns_job_cancel(watch);
    pool_end(inner);
    pool_end(outer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bad_calls_are_refused),
        cmocka_unit_test(callbacks_of_the_pool_can_not_turn_it),
        cmocka_unit_test(one_thread_at_a_time),
        cmocka_unit_test(threads_by_turns_see_what_the_one_before_wrote),
        cmocka_unit_test(the_thread_last_inside_counts_as_the_loop),
        cmocka_unit_test(a_callback_may_turn_another_pool),
        cmocka_unit_test(a_pool_watches_another),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
