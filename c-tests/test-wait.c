/* SPDX-License-Identifier: GPL-3.0-or-later */
/* ns_job_wait and ns_job_timedwait: what they return, and that no waiter is forgotten. */
#include "fm.h"
#include "waiters.h"

#include <sys/syscall.h>

/*
 * The library reads the clock through this function: a thread in ns_job_timedwait can be delayed
 * there, before it has looked at the job.
 */
static _Thread_local int hold_me;
static struct gate on_the_way_in;

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int result = (int)syscall(SYS_clock_gettime, clock, now);
    if (hold_me && clock == CLOCK_MONOTONIC) {
        hold_me = 0;
        stay_in_gate(&on_the_way_in);
    }
    return result;
}

static struct timeval limit = {LIMIT_SECONDS, 0};

TEST(waiting_job_is_a_success_at_once)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_create_job(tp, NS_JOB_THREAD, finish_job, &job), NS_SUCCESS);
    assert_int_equal(ns_job_wait(job), NS_SUCCESS);
    assert_int_equal(ns_job_timedwait(job, &at_once), NS_SUCCESS);
    assert_int_equal(ns_job_timedwait(job, &far_away), NS_SUCCESS);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    pool_end(tp);
}

TEST(wait_lasts_until_the_callback_has_returned)
{
    struct ns_thrpool_t *tp = pool_of(1);
    for EACH_THREAD(type) {
        for (int timed = 0; timed < 2; timed++) {
            struct gate gate = GATE_INIT;
            struct crowd crowd;
            struct ns_job_t *job = occupy(tp, where[type], &gate);
            crowd_begin(&crowd, job, timed);
            assert_int_equal(latch_count(&crowd.left), 0);
            latch_add(&gate.leave, 1);
            crowd_end(&crowd, NS_SUCCESS);
            assert_int_equal(ns_job_done(job), NS_SUCCESS);
        }
    }
    pool_end(tp);
}

static void finish_in_gate(struct ns_job_t *job)
{
    stay_in_gate(ns_job_get_data(job));
    ns_job_done(job);
}

TEST(waiters_for_a_job_that_is_done_in_its_callback_learn_that_it_goes)
{
    struct ns_thrpool_t *tp = pool_of(1);
    for EACH_THREAD(type) {
        for (int timed = 0; timed < 2; timed++) {
            struct gate gate = GATE_INIT;
            struct ns_job_t *job = NULL;
            struct crowd crowd;
            assert_int_equal(ns_add_job(tp, where[type], finish_in_gate, &gate, &job), NS_SUCCESS);
            assert_latch(&gate.begun, 1);
            crowd_begin(&crowd, job, timed);
            latch_add(&gate.leave, 1);
            crowd_end(&crowd, NS_DELETING);
        }
    }
    pool_end(tp);
}

TEST(waiters_for_an_armed_job_that_is_cancelled_learn_that_it_goes)
{
    struct ns_thrpool_t *tp = pool_of(1);
    for (int timed = 0; timed < 2; timed++) {
        struct ns_job_t *job = NULL;
        struct crowd crowd;
        assert_int_equal(ns_add_timeout_job(tp, &far_away, NS_JOB_NONE, finish_job, NULL, &job),
                         NS_SUCCESS);
        crowd_begin(&crowd, job, timed);
        assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
        crowd_end(&crowd, NS_DELETING);
    }
    pool_end(tp);
}

TEST(waiters_for_an_armed_job_are_released_when_the_pool_stops)
{
    for (int timed = 0; timed < 2; timed++) {
        struct ns_thrpool_t *tp = pool_of(2);
        struct ns_job_t *job = NULL;
        struct crowd crowd;
        assert_int_equal(ns_add_timeout_job(tp, &far_away, NS_JOB_NONE, finish_job, NULL, &job),
                         NS_SUCCESS);
        crowd_begin(&crowd, job, timed);
        ns_thrpool_shutdown(tp);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        crowd_end(&crowd, NS_SHUTDOWN);
        /* A waiter that comes later gets the same. */
        assert_int_equal(ns_job_wait(job), NS_SHUTDOWN);
        assert_int_equal(ns_job_timedwait(job, &far_away), NS_SHUTDOWN);
        ns_thrpool_destroy(tp);
    }
}

TEST(waiters_are_released_and_have_left_when_destroy_returns)
{
    struct ns_thrpool_t *tp = pool_of(2);
    struct ns_job_t *job = NULL;
    struct crowd crowd;
    assert_int_equal(ns_add_timeout_job(tp, &far_away, NS_JOB_NONE, finish_job, NULL, &job),
                     NS_SUCCESS);
    crowd_begin(&crowd, job, 0);
    ns_thrpool_destroy(tp);
    assert_latch(&crowd.left, WAITERS);
    for (int i = 0; i < WAITERS; i++) {
        pthread_join(crowd.threads[i], NULL);
    }
    /* The pool stops first and disposes of the job afterwards, so either result is true. */
    assert_int_equal(atomic_load(&crowd.results[NS_SHUTDOWN])
                         + atomic_load(&crowd.results[NS_DELETING]), WAITERS);
}

TEST(a_rearmed_job_is_waited_for_to_its_end)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct gate gate = GATE_INIT;
    struct crowd crowd;
    struct ns_job_t *job = occupy(tp, NS_JOB_THREAD, &gate);
    assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
    crowd_begin(&crowd, job, 0);
    latch_add(&gate.leave, 1);
    crowd_end(&crowd, NS_SUCCESS);
    assert_int_equal(latch_count(&gate.begun), 2);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    pool_end(tp);
}

/* Threads that wait for every run of a job. */
struct visitors {
    struct ns_job_t *job;
    pthread_barrier_t begin;
    pthread_barrier_t end;
    int rounds;
    atomic_int wrong;
};

static void *visit(void *arg)
{
    struct visitors *visitors = arg;
    for (int round = 0; round < visitors->rounds; round++) {
        pthread_barrier_wait(&visitors->begin);
        if (ns_job_timedwait(visitors->job, &limit) != NS_SUCCESS) {
            atomic_fetch_add(&visitors->wrong, 1);
        }
        pthread_barrier_wait(&visitors->end);
    }
    return NULL;
}

TEST(nobody_is_lost_while_the_job_is_rearmed_many_times)
{
    struct ns_thrpool_t *tp = pool_of(2);
    for EACH_THREAD(type) {
        struct visitors visitors = {.rounds = scaled(1000)};
        struct latch runs = LATCH_INIT;
        pthread_t threads[WAITERS];
        pthread_barrier_init(&visitors.begin, NULL, WAITERS + 1);
        pthread_barrier_init(&visitors.end, NULL, WAITERS + 1);
        assert_int_equal(ns_create_job(tp, where[type], count_callback, &visitors.job),
                         NS_SUCCESS);
        assert_int_equal(ns_job_set_data(visitors.job, &runs), NS_SUCCESS);
        for (int i = 0; i < WAITERS; i++) {
            assert_int_equal(pthread_create(&threads[i], NULL, visit, &visitors), 0);
        }
        int refused = 0;
        for (int round = 0; round < visitors.rounds; round++) {
            pthread_barrier_wait(&visitors.begin);
            refused += ns_job_rearm(visitors.job) != NS_SUCCESS;
            refused += ns_job_timedwait(visitors.job, &limit) != NS_SUCCESS;
            pthread_barrier_wait(&visitors.end);
        }
        for (int i = 0; i < WAITERS; i++) {
            pthread_join(threads[i], NULL);
        }
        assert_int_equal(refused, 0);
        assert_int_equal(atomic_load(&visitors.wrong), 0);
        assert_int_equal(latch_count(&runs), visitors.rounds);
        assert_int_equal(ns_job_done(visitors.job), NS_SUCCESS);
        pthread_barrier_destroy(&visitors.begin);
        pthread_barrier_destroy(&visitors.end);
    }
    pool_end(tp);
}

TEST(a_job_may_be_finished_as_soon_as_wait_says_so)
{
    struct ns_thrpool_t *tp = pool_of(2);
    struct latch gone = LATCH_INIT;
    int rounds = scaled(20000);
    for (int i = 0; i < rounds; i++) {
        struct ns_job_t *job = NULL;
        ns_job_type_t type = (i & 1 ? NS_JOB_THREAD : 0) | (i & 2 ? NS_JOB_TIMER : 0);
        assert_int_equal(ns_create_job(tp, type, count_callback, &job), NS_SUCCESS);
        struct latch runs = LATCH_INIT;
        assert_int_equal(ns_job_set_data(job, &runs), NS_SUCCESS);
        arm_with(job, count_callback);
        assert_int_equal(ns_job_wait(job), NS_SUCCESS);
        assert_int_equal(latch_count(&runs), 1);
        assert_int_equal(ns_job_set_data(job, &gone), NS_SUCCESS);
        assert_int_equal(ns_job_done(job), NS_SUCCESS);
    }
    assert_latch(&gone, rounds);
    pool_end(tp);
}

/*
 * The job and its memory go while its waiters are still leaving. The heap detects writes to that
 * memory.
 *
 * To see it fail: in Waiters::wait, clear the job's mark when there is an outcome.
 */
TEST(a_waiter_touches_nothing_of_a_job_that_goes)
{
    struct ns_thrpool_t *tp = checked_pool(2);
    int rounds = scaled(500);
    for (int round = 0; round < rounds; round++) {
        struct gate gate = GATE_INIT;
        struct ns_job_t *job = NULL;
        struct crowd crowd;
        assert_int_equal(ns_add_job(tp, where[round & 1], finish_in_gate, &gate, &job), NS_SUCCESS);
        assert_latch(&gate.begun, 1);
        crowd_of(&crowd, job, round & 2, 3);
        latch_add(&gate.leave, 1);
        crowd_end(&crowd, NS_DELETING);
    }
    checked_end(tp);
}

/* A thread that begins to wait for a live job, which ends before the thread has looked at it. */
struct racer {
    struct ns_job_t *job;
    ns_result_t result;
};

static void *race_wait(void *arg)
{
    struct racer *racer = arg;
    hold_me = 1;
    racer->result = ns_job_timedwait(racer->job, &limit);
    return NULL;
}

/*
 * The job's memory must not be freed before the waiter has seen that the job ends, and must be
 * freed in the end.
 *
 * To see it fail: in JobPtr::free, do not ask whether somebody is ENTERING.
 */
TEST(a_job_that_goes_while_a_thread_begins_to_wait_stays_in_memory)
{
    struct ns_thrpool_t *tp = checked_pool(1);
    for (int way = 0; way < 3; way++) {
        struct gate gate = GATE_INIT;
        struct ns_job_t *job = NULL;
        struct racer racer;
        on_the_way_in = (struct gate)GATE_INIT;
        assert_int_equal(way < 2 ? ns_add_job(tp, way ? NS_JOB_THREAD : 0, gate_callback, &gate, &job)
                                 : ns_add_timeout_job(tp, &far_away, NS_JOB_NONE, finish_job, NULL,
                                                      &job), NS_SUCCESS);
        if (way < 2) {
            assert_latch(&gate.begun, 1);
        }
        racer.job = job;
        pthread_t thread = start_thread(race_wait, &racer);
        assert_latch(&on_the_way_in.begun, 1);
        assert_true(ns_job_cancel(job) <= NS_RUNNING);
        latch_add(&gate.leave, 1);
        /* Once the disposing thread has run a later job, it is through with this one. */
        struct latch next = LATCH_INIT;
        struct ns_job_t *after = NULL;
        assert_int_equal(ns_add_job(tp, way == 1 ? NS_JOB_THREAD : 0, count_callback, &next, &after),
                         NS_SUCCESS);
        finish_idle(after);
        loop_passes(tp, 0);
        latch_add(&on_the_way_in.leave, 1);
        pthread_join(thread, NULL);
        assert_int_equal(racer.result, NS_DELETING);
    }
    checked_end(tp);
}

/* A worker whose callback waits for a job that never becomes idle. */
struct blocked {
    struct ns_job_t *other;
    struct latch inside;
    int tid;
    int timed;
    ns_result_t result;
};

static void wait_in_worker(struct ns_job_t *job)
{
    struct blocked *blocked = ns_job_get_data(job);
    blocked->tid = (int)gettid();
    latch_add(&blocked->inside, 1);
    blocked->result = blocked->timed ? ns_job_timedwait(blocked->other, &far_away)
                                     : ns_job_wait(blocked->other);
    ns_job_done(job);
}

static void *shut_down_and_wait(void *arg)
{
    ns_thrpool_shutdown(arg);
    return ns_thrpool_wait(arg) == NS_SUCCESS ? arg : NULL;
}

/*
 * The pool's end waits for its workers, so a worker that waited for the pool's end would deadlock.
 *
 * To see it fail: take Waiters::stop_workers out of Pool::shutdown; for a wait that begins later,
 * in Shared::wait_for, do not ask is_worker.
 */
TEST(a_worker_that_waits_is_released_when_the_pool_shuts_down)
{
    for (int way = 0; way < 4; way++) {
        struct ns_thrpool_t *tp = pool_of(2);
        struct blocked blocked = {.inside = LATCH_INIT, .timed = way & 1};
        struct gate gate = GATE_INIT;
        struct ns_job_t *blocker = NULL;
        void *ended = NULL;
        assert_int_equal(ns_add_timeout_job(tp, &far_away, NS_JOB_NONE, finish_job, NULL,
                                            &blocked.other), NS_SUCCESS);
        if (way & 2) {
            /* This wait begins when the pool is already shutting down. */
            blocker = occupy(tp, NS_JOB_THREAD, &gate);
            struct gate second = GATE_INIT;
            struct ns_job_t *other_blocker = occupy(tp, NS_JOB_THREAD, &second);
            assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, wait_in_worker, &blocked, NULL),
                             NS_SUCCESS);
            ns_thrpool_shutdown(tp);
            latch_add(&gate.leave, 1);
            latch_add(&second.leave, 1);
            assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
            assert_int_equal(ns_job_done(other_blocker), NS_SUCCESS);
            assert_int_equal(ns_job_done(blocker), NS_SUCCESS);
        } else {
            assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, wait_in_worker, &blocked, NULL),
                             NS_SUCCESS);
            assert_latch(&blocked.inside, 1);
            EVENTUALLY(sleeps(blocked.tid) && sleeps(blocked.tid));
            pthread_t thread = start_thread(shut_down_and_wait, tp);
            pthread_join(thread, &ended);
            assert_ptr_equal(ended, tp);
        }
        assert_int_equal(blocked.result, NS_SHUTDOWN);
        ns_thrpool_destroy(tp);
    }
}

/* What a wait in a done callback returns. */
struct last_words {
    struct ns_job_t *armed;
    struct ns_job_t *idle;
    ns_result_t of_own, of_armed, of_idle;
    struct latch over;
};

static void wait_when_done(struct ns_job_t *job)
{
    struct last_words *words = ns_job_get_data(job);
    struct timeval soon = {0, 1000};
    words->of_own = ns_job_wait(job);
    words->of_armed = ns_job_timedwait(words->armed, &soon);
    words->of_idle = ns_job_wait(words->idle);
    latch_add(&words->over, 1);
}

/* To see it fail: in Shared::wait_for, do not ask on_loop_of. */
TEST(wait_in_a_done_callback_never_blocks_the_loop)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct last_words words = {.over = LATCH_INIT};
    assert_int_equal(ns_add_timeout_job(tp, &far_away, NS_JOB_NONE, finish_job, NULL, &words.armed),
                     NS_SUCCESS);
    assert_int_equal(ns_create_job(tp, NS_JOB_NONE, finish_job, &words.idle), NS_SUCCESS);
    for (int in_worker = 0; in_worker < 2; in_worker++) {
        struct ns_job_t *job = NULL;
        assert_int_equal(ns_add_job(tp, NS_JOB_UNARMED | (in_worker ? NS_JOB_THREAD : 0), finish_job,
                                    &words, &job), NS_SUCCESS);
        arm_with(job, wait_when_done);
        assert_latch(&words.over, in_worker + 1);
        assert_int_equal(words.of_own, in_worker ? NS_DELETING : NS_INVALID_STATE);
        assert_int_equal(words.of_armed, in_worker ? NS_TIMEOUT : NS_INVALID_STATE);
        assert_int_equal(words.of_idle, NS_SUCCESS);
    }
    assert_int_equal(ns_job_cancel(words.armed), NS_SUCCESS);
    assert_int_equal(ns_job_done(words.idle), NS_SUCCESS);
    pool_end(tp);
}

TEST(timed_out_is_never_early)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_timeout_job(tp, &far_away, NS_JOB_NONE, finish_job, NULL, &job),
                     NS_SUCCESS);
    const long times[] = {0, 1, 10, 999, 1000, 1001, 5000, 20000, 50000};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        for (int again = 0; again < 5; again++) {
            struct timeval tv = {0, times[i]};
            double begin = now_seconds();
            assert_int_equal(ns_job_timedwait(job, &tv), NS_TIMEOUT);
            double took = now_seconds() - begin;
            if (took < (double)times[i] / 1e6) {
                fail_msg("%ld us took %.1f us", times[i], took * 1e6);
            }
        }
    }
    /* The microseconds may be a second or more. */
    struct timeval wide = {0, 1000500};
    double begin = now_seconds();
    assert_int_equal(ns_job_timedwait(job, &wide), NS_TIMEOUT);
    assert_true(now_seconds() - begin >= 1.0005);
    assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
    pool_end(tp);
}

TEST(a_huge_time_is_for_ever)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct gate gate = GATE_INIT;
    struct ns_job_t *job = NULL;
    struct timeval soon = {0, 20000};
    struct timeval huge = {(time_t)(((uint64_t)1 << (sizeof(time_t) * 8 - 1)) - 1), 999999};
    assert_int_equal(ns_add_timeout_job(tp, &soon, NS_JOB_NONE, gate_callback, &gate, &job),
                     NS_SUCCESS);
    latch_add(&gate.leave, 1);
    assert_int_equal(ns_job_timedwait(job, &huge), NS_SUCCESS);
    assert_int_equal(latch_count(&gate.begun), 1);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    pool_end(tp);
}

TEST(one_that_gives_up_does_not_take_the_others_with_it)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct gate gate = GATE_INIT;
    struct crowd crowd;
    struct timeval soon = {0, 1000};
    struct ns_job_t *job = occupy(tp, NS_JOB_THREAD, &gate);
    crowd_begin(&crowd, job, 1);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(ns_job_timedwait(job, &soon), NS_TIMEOUT);
    }
    assert_int_equal(latch_count(&crowd.left), 0);
    latch_add(&gate.leave, 1);
    crowd_end(&crowd, NS_SUCCESS);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    pool_end(tp);
}

/* What a callback gets when it waits for a job that it may not wait for. */
struct confused {
    struct ns_job_t *armed;
    struct ns_job_t *idle;
    ns_result_t own, own_timed, other, other_timed, other_idle;
    struct latch over;
};

static void wait_inside(struct ns_job_t *job)
{
    struct confused *confused = ns_job_get_data(job);
    struct timeval soon = {0, 1000};
    confused->own = ns_job_wait(job);
    confused->own_timed = ns_job_timedwait(job, &far_away);
    if (!NS_JOB_IS_THREAD(ns_job_get_type(job))) {
        confused->other = ns_job_wait(confused->armed);
    }
    confused->other_timed = ns_job_timedwait(confused->armed, &soon);
    confused->other_idle = ns_job_wait(confused->idle);
    ns_job_done(job);
    latch_add(&confused->over, 1);
}

TEST(wait_from_the_own_callback_or_the_loop_is_the_wrong_state)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct confused confused = {.over = LATCH_INIT};
    assert_int_equal(ns_add_timeout_job(tp, &far_away, NS_JOB_NONE, finish_job, NULL,
                                        &confused.armed), NS_SUCCESS);
    assert_int_equal(ns_create_job(tp, NS_JOB_NONE, finish_job, &confused.idle), NS_SUCCESS);
    assert_int_equal(ns_add_job(tp, NS_JOB_NONE, wait_inside, &confused, NULL), NS_SUCCESS);
    assert_latch(&confused.over, 1);
    assert_int_equal(confused.own, NS_INVALID_STATE);
    assert_int_equal(confused.own_timed, NS_INVALID_STATE);
    assert_int_equal(confused.other, NS_INVALID_STATE);
    assert_int_equal(confused.other_timed, NS_INVALID_STATE);
    assert_int_equal(confused.other_idle, NS_SUCCESS);
    /* A worker may wait for another job. */
    assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, wait_inside, &confused, NULL), NS_SUCCESS);
    assert_latch(&confused.over, 2);
    assert_int_equal(confused.own, NS_INVALID_STATE);
    assert_int_equal(confused.own_timed, NS_INVALID_STATE);
    assert_int_equal(confused.other_timed, NS_TIMEOUT);
    assert_int_equal(confused.other_idle, NS_SUCCESS);
    assert_int_equal(ns_job_cancel(confused.armed), NS_SUCCESS);
    assert_int_equal(ns_job_done(confused.idle), NS_SUCCESS);
    pool_end(tp);
}

static void wait_for_other(struct ns_job_t *job)
{
    struct confused *confused = ns_job_get_data(job);
    confused->other = ns_job_wait(confused->armed);
    ns_job_done(job);
    latch_add(&confused->over, 1);
}

TEST(the_loop_of_one_pool_may_wait_for_a_job_of_another)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct ns_thrpool_t *other = pool_of(1);
    struct confused confused = {.over = LATCH_INIT};
    struct gate gate = GATE_INIT;
    confused.armed = occupy(other, NS_JOB_NONE, &gate);
    assert_int_equal(ns_add_job(tp, NS_JOB_NONE, wait_for_other, &confused, NULL), NS_SUCCESS);
    latch_add(&gate.leave, 1);
    assert_latch(&confused.over, 1);
    assert_int_equal(confused.other, NS_SUCCESS);
    assert_int_equal(ns_job_done(confused.armed), NS_SUCCESS);
    pool_end(tp);
    pool_end(other);
}

static void on_signal(int signum)
{
    UNUSED(signum);
}

TEST(a_wait_is_not_cut_short_by_a_signal)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct gate gate = GATE_INIT;
    struct ns_job_t *job = NULL;
    struct crowd crowd;
    struct sigaction act = {.sa_handler = on_signal}; /* no SA_RESTART */
    assert_int_equal(sigaction(SIGUSR1, &act, NULL), 0);
    for (int timed = 0; timed < 2; timed++) {
        gate = (struct gate)GATE_INIT;
        job = occupy(tp, NS_JOB_THREAD, &gate);
        crowd_begin(&crowd, job, timed);
        for (int i = 0; i < 100; i++) {
            pthread_kill(crowd.threads[i % WAITERS], SIGUSR1);
            sched_yield();
        }
        assert_int_equal(latch_count(&crowd.left), 0);
        latch_add(&gate.leave, 1);
        crowd_end(&crowd, NS_SUCCESS);
        assert_int_equal(ns_job_done(job), NS_SUCCESS);
    }
    pool_end(tp);
    signal(SIGUSR1, SIG_DFL);
}

TEST(bad_arguments_are_refused)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct ns_job_t *job = NULL;
    struct timeval negative = {-1, 0};
    struct timeval backwards = {1, -1};
    assert_int_equal(ns_create_job(tp, NS_JOB_NONE, finish_job, &job), NS_SUCCESS);
    assert_int_equal(ns_job_timedwait(job, NULL), NS_INVALID_REQUEST);
    assert_int_equal(ns_job_timedwait(job, &negative), NS_INVALID_REQUEST);
    assert_int_equal(ns_job_timedwait(job, &backwards), NS_INVALID_REQUEST);
    assert_int_equal(ns_job_timedwait(NULL, &at_once), NS_INVALID_REQUEST);
    assert_int_equal(ns_job_wait(NULL), NS_INVALID_REQUEST);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    pool_end(tp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waiting_job_is_a_success_at_once),
        cmocka_unit_test(wait_lasts_until_the_callback_has_returned),
        cmocka_unit_test(waiters_for_a_job_that_is_done_in_its_callback_learn_that_it_goes),
        cmocka_unit_test(waiters_for_an_armed_job_that_is_cancelled_learn_that_it_goes),
        cmocka_unit_test(waiters_for_an_armed_job_are_released_when_the_pool_stops),
        cmocka_unit_test(waiters_are_released_and_have_left_when_destroy_returns),
        cmocka_unit_test(a_rearmed_job_is_waited_for_to_its_end),
        cmocka_unit_test(nobody_is_lost_while_the_job_is_rearmed_many_times),
        cmocka_unit_test(a_job_may_be_finished_as_soon_as_wait_says_so),
        cmocka_unit_test(a_waiter_touches_nothing_of_a_job_that_goes),
        cmocka_unit_test(a_job_that_goes_while_a_thread_begins_to_wait_stays_in_memory),
        cmocka_unit_test(a_worker_that_waits_is_released_when_the_pool_shuts_down),
        cmocka_unit_test(wait_in_a_done_callback_never_blocks_the_loop),
        cmocka_unit_test(timed_out_is_never_early),
        cmocka_unit_test(a_huge_time_is_for_ever),
        cmocka_unit_test(one_that_gives_up_does_not_take_the_others_with_it),
        cmocka_unit_test(wait_from_the_own_callback_or_the_loop_is_the_wrong_state),
        cmocka_unit_test(the_loop_of_one_pool_may_wait_for_a_job_of_another),
        cmocka_unit_test(a_wait_is_not_cut_short_by_a_signal),
        cmocka_unit_test(bad_arguments_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
