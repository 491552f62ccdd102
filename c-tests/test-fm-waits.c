/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What broke the original, shown absent: threads that wait for a callback longer than they have to,
 * or for ever.
 *
 * Each test is named for its row in docs/RELIABILITY.md, and says what to take out of the library
 * to see it fail.
 */
#include "fm.h"
#include "waiters.h"

/* A descriptor on which nothing comes. */
static int outside_fd = -1;

/* Call everything but the waits on `job`, which may be RUNNING, and on new jobs of its pool.
 * Returns the number of wrong results. */
static int use_everything(struct ns_thrpool_t *tp, struct ns_job_t *job, int may_change)
{
    struct ns_job_t *fresh = NULL;
    int bad = 0;
    if (job != NULL) {
        ns_job_get_data(job);
        bad += ns_job_get_tp(job) != tp;
        bad += (ns_job_get_native_fd(job) >= 0) != (NS_JOB_IS_IO(ns_job_get_type(job)) != 0);
        bad += ns_job_is_func(job, NULL);
        ns_job_get_type(job);
        ns_job_get_fd(job);
        ns_job_get_output_type(job);
    }
    if (job != NULL && may_change) {
        bad += ns_job_set_data(job, ns_job_get_data(job)) != NS_SUCCESS;
        bad += ns_job_set_done_cb(job, NULL) != NS_SUCCESS;
        ns_job_rearm(job);
        bad += ns_job_done(job) != NS_SUCCESS;
        bad += ns_job_cancel(job) != NS_RUNNING;
    }
    if (ns_thrpool_is_shutdown(tp)) {
        bad += ns_create_job(tp, NS_JOB_NONE, do_nothing, &fresh) != NS_SHUTDOWN;
        return bad;
    }
    int bad_before = bad;
    bad += ns_create_job(tp, NS_JOB_THREAD, do_nothing, &fresh) != NS_SUCCESS;
    bad += ns_job_rearm(fresh) != NS_SUCCESS;
    bad += ns_job_cancel(fresh) > NS_RUNNING;
    bad += ns_add_timeout_job(tp, &far_away, NS_JOB_NONE, do_nothing, NULL, &fresh) != NS_SUCCESS;
    bad += ns_job_done(fresh) != NS_INVALID_STATE;
    bad += ns_job_cancel(fresh) != NS_SUCCESS;
    bad += ns_add_signal_job(tp, SIGUSR2, NS_JOB_NONE, do_nothing, NULL, &fresh) != NS_SUCCESS;
    bad += ns_job_cancel(fresh) != NS_SUCCESS;
    bad += ns_add_job(tp, NS_JOB_NONE, do_nothing, NULL, &fresh) != NS_SUCCESS;
    bad += ns_job_cancel(fresh) > NS_RUNNING;
    bad += ns_add_fd_job(tp, outside_fd, NS_JOB_READ | NS_JOB_PRESERVE_FD, do_nothing, NULL, &fresh) !=
           NS_SUCCESS;
    bad += ns_job_cancel(fresh) != NS_SUCCESS;
    bad += ns_add_fd_timeout_job(tp, outside_fd, &far_away, NS_JOB_READ | NS_JOB_PRESERVE_FD, do_nothing,
                                 NULL, &fresh) != NS_SUCCESS;
    bad += ns_job_cancel(fresh) != NS_SUCCESS;
    if (ns_thrpool_is_shutdown(tp)) {
        /* The shutdown came in between, and some of the calls were refused. */
        return bad_before;
    }
    return bad;
}

/* A callback, logger or allocator asks another thread to call everything, and does not return until
 * that thread has done so. */
static struct {
    struct latch asked;
    struct latch answered;
    atomic_long wanted;
    struct ns_thrpool_t *tp;
    struct ns_job_t *job;
    int may_change;
    atomic_int stop;
    int bad;
    atomic_int late;
    atomic_int armed; /* the logger and the allocator ask once each time this is set */
} outside;

static void *act_outside(void *arg)
{
    UNUSED(arg);
    for (long n = 1;; n++) {
        if (!latch_reaches(&outside.asked, n) || atomic_load(&outside.stop)) {
            return NULL;
        }
        outside.bad += use_everything(outside.tp, outside.job, outside.may_change);
        latch_add(&outside.answered, 1);
    }
}

static void ask_outside(struct ns_job_t *job, int may_change)
{
    long n = atomic_fetch_add(&outside.wanted, 1) + 1;
    outside.job = job;
    outside.may_change = may_change;
    latch_add(&outside.asked, 1);
    if (!latch_reaches(&outside.answered, n)) {
        atomic_fetch_add(&outside.late, 1);
    }
}

static void ask_in_callback(struct ns_job_t *job)
{
    ask_outside(job, 1);
}

static void ask_in_done(struct ns_job_t *job)
{
    ask_outside(job, 0);
}

static void ask_in_log(int priority, const char *format, va_list args)
{
    UNUSED(priority);
    UNUSED(format);
    UNUSED(args);
    if (atomic_exchange(&outside.armed, 0)) {
        ask_outside(NULL, 0);
    }
}

static void *ask_in_calloc(size_t count, size_t size)
{
    if (atomic_exchange(&outside.armed, 0)) {
        ask_outside(NULL, 0);
    }
    return the_calloc(count, size);
}

static void ask_in_free(void *at)
{
    if (atomic_exchange(&outside.armed, 0)) {
        ask_outside(NULL, 0);
    }
    the_free(at);
}

/*
 * If the library held a lock during a callback, an application that takes a lock of its own in its
 * callbacks, and holds it while it calls the library, would deadlock. Here the other thread's calls
 * must return while the callback, done callback, logger or allocator waits for them.
 *
 * To see it fail: in run::call, hold the lock of a stripe of the pool's waiters, and have
 * State::end take it always.
 */
TEST(fm12_no_lock_is_held_while_code_of_the_application_runs)
{
    int quiet[2], ready[2];
    socket_pair(quiet);
    socket_pair(ready);
    assert_int_equal(write(ready[1], "x", 1), 1);
    outside_fd = quiet[0];
    for (int last = 0; last < 2; last++) {
        struct ns_thrpool_config config = checked_config(2);
        config.log_fct = ask_in_log;
        config.calloc_fct = ask_in_calloc;
        config.free_fct = ask_in_free;
        outside.tp = ns_thrpool_new(&config);
        assert_non_null(outside.tp);
        struct ns_thrpool_t *tp = outside.tp;
        outside.asked = (struct latch)LATCH_INIT;
        outside.answered = (struct latch)LATCH_INIT;
        atomic_store(&outside.wanted, 0);
        atomic_store(&outside.stop, 0);
        pthread_t thread = start_thread(act_outside, NULL);
        for (int kind = 0; kind < 4; kind++) {
            ns_job_type_t type = NS_JOB_UNARMED | (kind & 1 ? NS_JOB_THREAD : 0);
            struct ns_job_t *job = NULL;
            struct timeval soon = {0, 100};
            long before = atomic_load(&outside.wanted);
            /* In the callback. The other thread's done makes this run the last. */
            assert_int_equal(ns_add_timeout_job(tp, &soon, type, ask_in_callback, NULL, &job),
                             NS_SUCCESS);
            assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
            assert_latch(&outside.answered, before + 1);
            /* The same in the callbacks of a descriptor, of one whose time is up, and of a signal. */
            for (int more = 0; more < 3; more++) {
                ns_job_type_t io = type | NS_JOB_READ | NS_JOB_PRESERVE_FD;
                assert_int_equal(
                    more == 0   ? ns_add_fd_job(tp, ready[0], io, ask_in_callback, NULL, &job)
                    : more == 1 ? ns_add_fd_timeout_job(tp, quiet[0], &soon, io, ask_in_callback,
                                                        NULL, &job)
                                : ns_add_signal_job(tp, SIGUSR1, type, ask_in_callback, NULL, &job),
                    NS_SUCCESS);
                assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
                if (more == 2) {
                    kill(getpid(), SIGUSR1);
                }
                assert_latch(&outside.answered, ++before + 1);
            }
            /* In the done callback. */
            assert_int_equal(kind & 2 ? ns_add_job(tp, type, ask_in_callback, NULL, &job)
                                      : ns_create_job(tp, NS_JOB_NONE, do_nothing, &job), NS_SUCCESS);
            assert_int_equal(ns_job_set_done_cb(job, ask_in_done), NS_SUCCESS);
            assert_int_equal(ns_job_done(job), NS_SUCCESS);
            assert_latch(&outside.answered, before + 2);
            /* In the allocator. */
            atomic_store(&outside.armed, 1);
            assert_int_equal(ns_create_job(tp, NS_JOB_NONE, do_nothing, &job), NS_SUCCESS);
            assert_latch(&outside.answered, before + 3);
            atomic_store(&outside.armed, 1);
            assert_int_equal(ns_job_done(job), NS_SUCCESS);
            assert_latch(&outside.answered, before + 4);
            /* In the logger. */
            atomic_store(&outside.armed, 1);
            assert_int_equal(ns_add_job(tp, NS_JOB_SHUTDOWN_WORKER, do_nothing, NULL, NULL),
                             NS_INVALID_REQUEST);
            assert_latch(&outside.answered, before + 5);
        }
        /* The same in a callback while the pool shuts down. */
        long before = atomic_load(&outside.wanted);
        struct gate gate = GATE_INIT;
        struct ns_job_t *blocker = NULL;
        assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, gate_callback, &gate, &blocker),
                         NS_SUCCESS);
        assert_int_equal(ns_add_job(tp, last ? NS_JOB_THREAD : 0, ask_in_callback, NULL, NULL),
                         NS_SUCCESS);
        ns_thrpool_shutdown(tp);
        assert_latch(&outside.answered, before + 1);
        latch_add(&gate.leave, 1);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        assert_int_equal(ns_job_done(blocker), NS_SUCCESS);
        atomic_store(&outside.stop, 1);
        latch_add(&outside.asked, 1);
        pthread_join(thread, NULL);
        checked_end(tp);
        assert_int_equal(outside.bad, 0);
        assert_int_equal(atomic_load(&outside.late), 0);
    }
    for (int i = 0; i < 2; i++) {
        close(quiet[i]);
        close(ready[i]);
    }
}

/* To see it fail: as fm12, with the lock taken in the getters too. */
TEST(fm13_getters_answer_while_the_callback_is_busy)
{
    struct ns_thrpool_t *tp = checked_pool(1);
    for (int threaded = 0; threaded < 2; threaded++) {
        struct gate gate = GATE_INIT;
        struct ns_job_t *job = NULL;
        struct timeval soon = {0, 10};
        assert_int_equal(ns_add_timeout_job(tp, &soon, threaded ? NS_JOB_THREAD : 0, gate_callback,
                                            &gate, &job), NS_SUCCESS);
        assert_latch(&gate.begun, 1);
        /* The callback leaves only after all these have returned. */
        assert_ptr_equal(ns_job_get_data(job), &gate);
        assert_ptr_equal(ns_job_get_tp(job), tp);
        assert_int_equal(ns_job_get_type(job), NS_JOB_TIMER | (threaded ? NS_JOB_THREAD : 0));
        assert_int_equal(ns_job_get_output_type(job), NS_JOB_TIMER);
        assert_int_equal(ns_job_get_native_fd(job), -1);
        assert_null(ns_job_get_fd(job));
        assert_int_equal(ns_job_is_func(job, gate_callback), 1);
        latch_add(&gate.leave, 1);
        finish_idle(job);
    }
    checked_end(tp);
}

/*
 * All waiters sleep until the job becomes WAITING, is done, is cancelled, or its pool stops or is
 * destroyed. Then all of them wake.
 *
 * To see it fail: in Waiters::release, wake one of those that wait instead of all.
 */
TEST(fm18_each_of_sixteen_waiters_is_woken_by_rearm_done_shutdown_and_destroy)
{
    for (long round = 0; round < count_of(40, 2000); round++) {
        for (int way = 0; way < 6; way++) {
            struct ns_thrpool_t *tp = checked_pool(2);
            struct gate gate = GATE_INIT;
            struct crowd crowd;
            struct ns_job_t *job = NULL;
            ns_job_type_t type = round & 1 ? NS_JOB_THREAD : 0;
            if (way < 3) {
                job = occupy(tp, type, &gate);
            } else {
                assert_int_equal(ns_add_timeout_job(tp, &far_away, type, gate_callback, &gate, &job),
                                 NS_SUCCESS);
            }
            crowd_begin(&crowd, job, 0);
            switch (way) {
            case 0: /* idle */
                latch_add(&gate.leave, 1);
                crowd_end(&crowd, NS_SUCCESS);
                assert_int_equal(ns_job_done(job), NS_SUCCESS);
                break;
            case 1: /* rearmed: it runs again, and only then do the waiters leave */
                assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
                latch_add(&gate.leave, 1);
                crowd_end(&crowd, NS_SUCCESS);
                assert_int_equal(latch_count(&gate.begun), 2);
                assert_int_equal(ns_job_done(job), NS_SUCCESS);
                break;
            case 2: /* done, or cancelled */
            case 3:
                assert_int_equal(way == 2 ? ns_job_done(job) : ns_job_cancel(job), NS_SUCCESS);
                latch_add(&gate.leave, 1);
                crowd_end(&crowd, NS_DELETING);
                break;
            case 4: /* armed until the pool stops */
                ns_thrpool_shutdown(tp);
                assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
                crowd_end(&crowd, NS_SHUTDOWN);
                break;
            default: /* armed until the pool is destroyed */
                ns_thrpool_destroy(tp);
                crowd_end(&crowd, NS_SHUTDOWN);
                heap_check(&the_heap);
                continue;
            }
            checked_end(tp);
        }
    }
}

/*
 * Waiters that come at random moments. Each waits for one of many jobs, so that some jobs share a
 * stripe of the pool's table; half of them wait without a limit, half again and again for a
 * millisecond.
 */
enum { WAITED_FOR = 20 };

static struct {
    pthread_barrier_t begin;
    pthread_barrier_t end;
    struct ns_job_t *jobs[WAITED_FOR];
    atomic_int runs[WAITED_FOR];
    struct gate gate;
    atomic_int over;
    atomic_int untrue; /* waits that said a job is idle before it had run */
    atomic_int results[8];
} visit;

static void run_visited(struct ns_job_t *job)
{
    intptr_t i = (intptr_t)ns_job_get_data(job);
    if (i < 3) {
        stay_in_gate(&visit.gate);
    }
    atomic_fetch_add(&visit.runs[i], 1);
}

static void *come_and_wait(void *arg)
{
    uint64_t sequence = run_seed() + (uint64_t)(uintptr_t)arg;
    struct timeval moment = {0, 1000};
    for (;;) {
        pthread_barrier_wait(&visit.begin);
        if (atomic_load(&visit.over)) {
            return NULL;
        }
        hesitate(&sequence, 1u << next_random(&sequence) % 18);
        size_t i = next_random(&sequence) % WAITED_FOR;
        struct ns_job_t *job = visit.jobs[i];
        int patient = next_random(&sequence) % 2 == 0;
        ns_result_t result;
        do {
            result = patient ? ns_job_wait(job) : ns_job_timedwait(job, &moment);
        } while (result == NS_TIMEOUT);
        atomic_fetch_add(&visit.untrue, result == NS_SUCCESS && atomic_load(&visit.runs[i]) == 0);
        atomic_fetch_add(&visit.results[result], 1);
        pthread_barrier_wait(&visit.end);
    }
}

/*
 * To see it fail: in Waiters::wait, do not ask `stopped`; or in Waiters::release, hand the result to
 * all of the stripe.
 */
TEST(fm18_waiters_that_come_at_any_moment_get_what_is_true)
{
    uint64_t sequence = run_seed() ^ 18;
    pthread_t threads[WAITERS];
    pthread_barrier_init(&visit.begin, NULL, WAITERS + 1);
    pthread_barrier_init(&visit.end, NULL, WAITERS + 1);
    atomic_store(&visit.over, 0);
    for (uintptr_t i = 0; i < WAITERS; i++) {
        threads[i] = start_thread(come_and_wait, (void *)i);
    }
    for (long round = 0; round < count_of(1000, 10000); round++) {
        struct ns_thrpool_t *tp = checked_pool(2);
        int stops = round & 1; /* armed until the pool stops, or run when a gate is opened */
        visit.gate = (struct gate)GATE_INIT;
        memset(visit.results, 0, sizeof visit.results);
        memset(visit.runs, 0, sizeof visit.runs);
        for (int i = 0; i < WAITED_FOR; i++) {
            /* Two of them keep the workers, and one the loop, from running the others. */
            ns_job_type_t type = i < 2 || i > 10 ? NS_JOB_THREAD : 0;
            assert_int_equal(stops ? ns_add_timeout_job(tp, &far_away, type, do_nothing, NULL,
                                                        &visit.jobs[i])
                                   : ns_add_job(tp, type, run_visited, (void *)(intptr_t)i,
                                                &visit.jobs[i]), NS_SUCCESS);
            if (!stops && i < 3) {
                assert_latch(&visit.gate.begun, i + 1);
            }
        }
        pthread_barrier_wait(&visit.begin);
        hesitate(&sequence, 1u << next_random(&sequence) % 19);
        if (stops) {
            ns_thrpool_shutdown(tp);
            hesitate(&sequence, 1u << next_random(&sequence) % 16);
            assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        } else {
            latch_add(&visit.gate.leave, 1);
            for (int i = 0; i < 4; i++) {
                /* Idle by now, or not yet. */
                struct ns_job_t *job = visit.jobs[next_random(&sequence) % WAITED_FOR];
                assert_true(ns_job_rearm(job) == NS_SUCCESS || ns_job_timedwait(job, &far_away) == NS_SUCCESS);
            }
        }
        pthread_barrier_wait(&visit.end);
        assert_int_equal(atomic_load(&visit.untrue), 0);
        assert_int_equal(atomic_load(&visit.results[stops ? NS_SHUTDOWN : NS_SUCCESS]), WAITERS);
        for (int i = 0; i < WAITED_FOR; i++) {
            assert_int_equal(ns_job_wait(visit.jobs[i]), stops ? NS_SHUTDOWN : NS_SUCCESS);
            assert_int_equal(ns_job_done(visit.jobs[i]), NS_SUCCESS);
        }
        checked_end(tp);
    }
    atomic_store(&visit.over, 1);
    pthread_barrier_wait(&visit.begin);
    for (int i = 0; i < WAITERS; i++) {
        pthread_join(threads[i], NULL);
    }
    pthread_barrier_destroy(&visit.begin);
    pthread_barrier_destroy(&visit.end);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fm12_no_lock_is_held_while_code_of_the_application_runs),
        cmocka_unit_test(fm13_getters_answer_while_the_callback_is_busy),
        cmocka_unit_test(fm18_each_of_sixteen_waiters_is_woken_by_rearm_done_shutdown_and_destroy),
        cmocka_unit_test(fm18_waiters_that_come_at_any_moment_get_what_is_true),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
