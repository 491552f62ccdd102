/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What broke the original, shown absent: a job between the threads that act on it.
 *
 * Each test is named for its row in docs/RELIABILITY.md, and says what to take out of the library
 * to see it fail.
 */
#include "fm.h"

static struct timeval far = {3600, 0};

static void nothing(struct ns_job_t *job)
{
    UNUSED(job);
}

/* A descriptor on which nothing comes. */
static int outside_fd = -1;

/* Act on `job`, which may be RUNNING, and on fresh jobs of its pool: everything but the waits. */
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
        bad += ns_create_job(tp, NS_JOB_NONE, nothing, &fresh) != NS_SHUTDOWN;
        return bad;
    }
    int bad_before = bad;
    bad += ns_create_job(tp, NS_JOB_THREAD, nothing, &fresh) != NS_SUCCESS;
    bad += ns_job_rearm(fresh) != NS_SUCCESS;
    bad += ns_job_cancel(fresh) > NS_RUNNING;
    bad += ns_add_timeout_job(tp, &far, NS_JOB_NONE, nothing, NULL, &fresh) != NS_SUCCESS;
    bad += ns_job_done(fresh) != NS_INVALID_STATE;
    bad += ns_job_cancel(fresh) != NS_SUCCESS;
    bad += ns_add_signal_job(tp, SIGUSR2, NS_JOB_NONE, nothing, NULL, &fresh) != NS_SUCCESS;
    bad += ns_job_cancel(fresh) != NS_SUCCESS;
    bad += ns_add_job(tp, NS_JOB_NONE, nothing, NULL, &fresh) != NS_SUCCESS;
    bad += ns_job_cancel(fresh) > NS_RUNNING;
    bad += ns_add_fd_job(tp, outside_fd, NS_JOB_READ | NS_JOB_PRESERVE_FD, nothing, NULL, &fresh) !=
           NS_SUCCESS;
    bad += ns_job_cancel(fresh) != NS_SUCCESS;
    bad += ns_add_fd_timeout_job(tp, outside_fd, &far, NS_JOB_READ | NS_JOB_PRESERVE_FD, nothing,
                                 NULL, &fresh) != NS_SUCCESS;
    bad += ns_job_cancel(fresh) != NS_SUCCESS;
    if (ns_thrpool_is_shutdown(tp)) {
        /* It came in between, and some of these were refused. */
        return bad_before;
    }
    return bad;
}

/* Whoever is called asks another thread to use everything, and stays until that has done so. */
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
    atomic_int armed; /* the logger and the allocator ask once for each time that this is set */
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
 * An application that holds a lock of its own while it calls the library, and takes it in its
 * callbacks, deadlocks if the library holds one across callbacks. Here the other thread's calls
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
            /* In the callback, which the other thread makes the last. */
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
                                      : ns_create_job(tp, NS_JOB_NONE, nothing, &job), NS_SUCCESS);
            assert_int_equal(ns_job_set_done_cb(job, ask_in_done), NS_SUCCESS);
            assert_int_equal(ns_job_done(job), NS_SUCCESS);
            assert_latch(&outside.answered, before + 2);
            /* In the allocator. */
            atomic_store(&outside.armed, 1);
            assert_int_equal(ns_create_job(tp, NS_JOB_NONE, nothing, &job), NS_SUCCESS);
            assert_latch(&outside.answered, before + 3);
            atomic_store(&outside.armed, 1);
            assert_int_equal(ns_job_done(job), NS_SUCCESS);
            assert_latch(&outside.answered, before + 4);
            /* In the logger. */
            atomic_store(&outside.armed, 1);
            assert_int_equal(ns_add_job(tp, NS_JOB_SHUTDOWN_WORKER, nothing, NULL, NULL),
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
        assert_int_equal(ns_job_wait(job), NS_SUCCESS);
        assert_int_equal(ns_job_done(job), NS_SUCCESS);
    }
    checked_end(tp);
}

/* Sixteen threads that wait for one job. */
enum { WAITERS = 16 };

struct waiters {
    struct ns_job_t *job;
    struct latch entered;
    atomic_int results[8];
    atomic_int tids[WAITERS];
    pthread_t threads[WAITERS];
};

static void *wait_for_job(void *arg)
{
    struct waiters *waiters = arg;
    static atomic_uint place;
    atomic_store(&waiters->tids[atomic_fetch_add(&place, 1) % WAITERS], (int)gettid());
    latch_add(&waiters->entered, 1);
    atomic_fetch_add(&waiters->results[ns_job_wait(waiters->job)], 1);
    return NULL;
}

/* Whether all of them sleep: they have said that they enter, so it is in the wait. */
static int are_asleep(struct waiters *waiters)
{
    for (int i = 0; i < WAITERS; i++) {
        char path[64];
        char line[256] = "";
        snprintf(path, sizeof path, "/proc/self/task/%d/stat", atomic_load(&waiters->tids[i]));
        FILE *file = fopen(path, "r");
        if (file == NULL || fgets(line, sizeof line, file) == NULL) {
            fail_msg("a waiter has left");
        }
        fclose(file);
        const char *name_end = strrchr(line, ')');
        if (name_end == NULL || name_end[2] != 'S') {
            return 0;
        }
    }
    return 1;
}

static void begin_waiting(struct waiters *waiters, struct ns_job_t *job)
{
    *waiters = (struct waiters){.job = job, .entered = LATCH_INIT};
    for (int i = 0; i < WAITERS; i++) {
        waiters->threads[i] = start_thread(wait_for_job, waiters);
    }
    assert_latch(&waiters->entered, WAITERS);
    /* Twice: one may have slept for the latch. */
    EVENTUALLY(are_asleep(waiters) && are_asleep(waiters));
}

static void end_waiting(struct waiters *waiters)
{
    for (int i = 0; i < WAITERS; i++) {
        pthread_join(waiters->threads[i], NULL);
    }
}

/*
 * The waiters are let go by what the callback's return makes of the job: WAITING, done, armed and
 * then cancelled, or left armed until the pool stops or is destroyed.
 * All of them sleep when that comes.
 *
 * To see it fail: in Waiters::release, wake one of those that wait instead of all.
 */
TEST(fm18_each_of_sixteen_waiters_is_woken_by_rearm_done_shutdown_and_destroy)
{
    for (long round = 0; round < count_of(40, 2000); round++) {
        for (int way = 0; way < 6; way++) {
            struct ns_thrpool_t *tp = checked_pool(2);
            struct gate gate = GATE_INIT;
            struct waiters waiters;
            struct ns_job_t *job = NULL;
            ns_result_t expected = NS_SUCCESS;
            ns_job_type_t type = round & 1 ? NS_JOB_THREAD : 0;
            if (way < 3) {
                assert_int_equal(ns_add_job(tp, type, gate_callback, &gate, &job), NS_SUCCESS);
                assert_latch(&gate.begun, 1);
            } else {
                assert_int_equal(ns_add_timeout_job(tp, &far, type, gate_callback, &gate, &job),
                                 NS_SUCCESS);
            }
            begin_waiting(&waiters, job);
            switch (way) {
            case 0: /* idle */
                latch_add(&gate.leave, 1);
                end_waiting(&waiters);
                assert_int_equal(ns_job_done(job), NS_SUCCESS);
                break;
            case 1: /* rearmed, runs again, idle: nobody leaves in between for good or ill */
                assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
                latch_add(&gate.leave, 1);
                end_waiting(&waiters);
                assert_int_equal(latch_count(&gate.begun), 2);
                assert_int_equal(ns_job_done(job), NS_SUCCESS);
                break;
            case 2: /* done, or cancelled */
            case 3:
                expected = NS_DELETING;
                assert_int_equal(way == 2 ? ns_job_done(job) : ns_job_cancel(job), NS_SUCCESS);
                latch_add(&gate.leave, 1);
                end_waiting(&waiters);
                break;
            case 4: /* the pool stops */
                expected = NS_SHUTDOWN;
                ns_thrpool_shutdown(tp);
                assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
                end_waiting(&waiters);
                break;
            default: /* and goes */
                expected = NS_SHUTDOWN;
                ns_thrpool_destroy(tp);
                end_waiting(&waiters);
                heap_check(&the_heap);
                assert_int_equal(atomic_load(&waiters.results[NS_SHUTDOWN]), WAITERS);
                continue;
            }
            assert_int_equal(atomic_load(&waiters.results[expected]), WAITERS);
            checked_end(tp);
        }
    }
}

/*
 * Waiters that come at any moment: each to one of many jobs, so that two jobs share a stripe of the
 * pool's table, some for ever, some again and again for a millisecond.
 */
enum { WAITED_FOR = 20 };

static struct {
    pthread_barrier_t begin;
    pthread_barrier_t end;
    struct ns_job_t *jobs[WAITED_FOR];
    atomic_int runs[WAITED_FOR];
    struct gate gate;
    atomic_int over;
    atomic_int untrue; /* they were told that a job is idle, and it had not run */
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
            assert_int_equal(stops ? ns_add_timeout_job(tp, &far, type, nothing, NULL,
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
                assert_true(ns_job_rearm(job) == NS_SUCCESS || ns_job_timedwait(job, &far) == NS_SUCCESS);
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

/* What a callback got from done and rearm, in one order or the other. */
struct both {
    int rearm_first;
    ns_result_t results[6]; /* the last two from the done callback */
    atomic_int runs;
    atomic_int disposals;
};

static void count_both_gone(struct ns_job_t *job)
{
    struct both *both = ns_job_get_data(job);
    both->results[4] = ns_job_done(job);
    both->results[5] = ns_job_rearm(job);
    atomic_fetch_add(&both->disposals, 1);
}

static void done_and_rearm(struct ns_job_t *job)
{
    struct both *both = ns_job_get_data(job);
    atomic_fetch_add(&both->runs, 1);
    if (both->rearm_first) {
        both->results[0] = ns_job_rearm(job);
    }
    both->results[1] = ns_job_done(job);
    both->results[2] = ns_job_done(job);
    both->results[3] = ns_job_rearm(job);
}

static void run_both(int rearm_first)
{
    for (int kind = 0; kind < 4; kind++) {
        struct ns_thrpool_t *tp = checked_pool(2);
        struct both both = {rearm_first, {NS_SUCCESS}, 0, 0};
        struct timeval soon = {0, 10};
        struct ns_job_t *job = NULL;
        ns_job_type_t type = NS_JOB_UNARMED | (kind & 1 ? NS_JOB_THREAD : 0);
        assert_int_equal(kind & 2 ? ns_add_timeout_job(tp, &soon, type, done_and_rearm, &both, &job)
                                  : ns_add_job(tp, type, done_and_rearm, &both, &job), NS_SUCCESS);
        arm_with(job, count_both_gone);
        EVENTUALLY(atomic_load(&both.disposals) == 1);
        checked_end(tp);
        assert_int_equal(both.results[0], NS_SUCCESS);
        assert_int_equal(both.results[1], NS_SUCCESS);
        assert_int_equal(both.results[2], NS_SUCCESS);
        assert_int_equal(both.results[3], NS_INVALID_STATE);
        assert_int_equal(both.results[4], NS_SUCCESS);
        assert_int_equal(both.results[5], NS_INVALID_STATE);
        assert_int_equal(atomic_load(&both.runs), 1);
        assert_int_equal(atomic_load(&both.disposals), 1);
    }
}

/* To see it fail: in State::end, treat NEEDS_DELETE as any other state. */
TEST(fm19_done_twice_is_a_success_and_rearm_after_it_refused)
{
    run_both(0);
    /* From outside, while the job is kept alive by its callback. */
    struct ns_thrpool_t *tp = checked_pool(1);
    struct gate gate = GATE_INIT;
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, gate_callback, &gate, &job), NS_SUCCESS);
    assert_latch(&gate.begun, 1);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    assert_int_equal(ns_job_rearm(job), NS_INVALID_STATE);
    assert_int_equal(ns_job_cancel(job), NS_RUNNING);
    latch_add(&gate.leave, 1);
    checked_end(tp);
}

/* To see it fail: in State::end, leave a job in NEEDS_ARM alone. */
TEST(fm20_done_wins_over_rearm_in_either_order)
{
    run_both(0);
    run_both(1);
}

/* Every way in which a job goes. */
enum way {
    WAY_IDLE,         /* done while WAITING */
    WAY_OWN,          /* done in its own callback */
    WAY_OWN_CANCEL,   /* cancelled there */
    WAY_OUTSIDE,      /* done by another thread while it runs */
    WAY_CANCEL,       /* cancelled while ARMED */
    WAY_CANCEL_BUSY,  /* cancelled by another thread while it runs */
    WAY_PERSIST,      /* a PERSIST job, done in its own callback */
    WAY_SHUTDOWN,     /* done while ARMED, the pool shutting down */
    WAY_DESTROY,      /* left ARMED */
    WAYS
};

struct going {
    enum way way;
    struct gate gate;
    atomic_int inside;
    atomic_int beside; /* done callbacks that ran beside the callback */
    atomic_int open;   /* done callbacks that found the descriptor open */
    atomic_int disposals;
    int fd;
};

static void go(struct ns_job_t *job)
{
    struct going *going = ns_job_get_data(job);
    atomic_store(&going->inside, 1);
    switch (going->way) {
    case WAY_OWN:
    case WAY_PERSIST: ns_job_done(job); break;
    case WAY_OWN_CANCEL: ns_job_cancel(job); break;
    case WAY_OUTSIDE:
    case WAY_CANCEL_BUSY: stay_in_gate(&going->gate); break;
    default: break;
    }
    atomic_store(&going->inside, 0);
}

static void went(struct ns_job_t *job)
{
    struct going *going = ns_job_get_data(job);
    atomic_fetch_add(&going->beside, atomic_load(&going->inside));
    atomic_fetch_add(&going->open, going->fd >= 0 && fd_is_open(going->fd));
    atomic_fetch_add(&going->disposals, 1);
}

static void see_it_go(enum way way, int kind, ns_job_type_t thread)
{
    int fires = way != WAY_IDLE && way != WAY_CANCEL && way != WAY_SHUTDOWN && way != WAY_DESTROY;
    struct ns_thrpool_t *tp = checked_pool(2);
    struct going going = {.way = way, .gate = GATE_INIT, .fd = -1};
    struct timeval soon = {0, 100};
    struct timeval *time = fires ? &soon : &far;
    ns_job_type_t type = NS_JOB_UNARMED | thread | (way == WAY_PERSIST ? NS_JOB_PERSIST : 0);
    struct ns_job_t *job = NULL;
    ns_result_t result = NS_SUCCESS;
    int ends[2];
    socket_pair(ends);
    switch (kind) {
    case 0: result = ns_add_timeout_job(tp, time, type, go, &going, &job); break;
    case 1:
        result = ns_add_signal_job(tp, SIGUSR1, type, go, &going, &job);
        if (fires) {
            kill(getpid(), SIGUSR1);
        }
        break;
    case 2:
        going.fd = ends[0];
        result = ns_add_fd_timeout_job(tp, ends[0], time, type | NS_JOB_READ, go, &going, &job);
        break;
    default: result = ns_add_job(tp, type, go, &going, &job);
    }
    assert_int_equal(result, NS_SUCCESS);
    assert_int_equal(ns_job_set_done_cb(job, went), NS_SUCCESS);
    if (way != WAY_IDLE) {
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
    }
    switch (way) {
    case WAY_IDLE: assert_int_equal(ns_job_done(job), NS_SUCCESS); break;
    case WAY_CANCEL: assert_int_equal(ns_job_cancel(job), NS_SUCCESS); break;
    case WAY_OUTSIDE:
    case WAY_CANCEL_BUSY:
        assert_latch(&going.gate.begun, 1);
        assert_int_equal(way == WAY_OUTSIDE ? ns_job_done(job) : ns_job_cancel(job),
                         way == WAY_OUTSIDE ? NS_SUCCESS : NS_RUNNING);
        latch_add(&going.gate.leave, 1);
        break;
    case WAY_SHUTDOWN:
        ns_thrpool_shutdown(tp);
        assert_int_equal(ns_job_done(job), NS_SUCCESS);
        break;
    default: break;
    }
    if (way != WAY_DESTROY) {
        EVENTUALLY(atomic_load(&going.disposals) == 1);
    }
    checked_end(tp);
    assert_int_equal(atomic_load(&going.disposals), 1);
    assert_int_equal(atomic_load(&going.beside), 0);
    assert_int_equal(atomic_load(&going.open), 0);
    if (going.fd < 0) {
        close(ends[0]);
    }
    close(ends[1]);
}

/* To see it fail: in run::dispose, call the done callback twice. */
TEST(fm21_the_done_callback_runs_once_and_last_however_a_job_goes)
{
    int fds = count_fds();
    for (enum way way = 0; way < WAYS; way++) {
        for (int kind = 0; kind < 4; kind++) {
            /* A run-now job that is armed runs. */
            if (kind == 3 && (way == WAY_CANCEL || way == WAY_SHUTDOWN || way == WAY_DESTROY)) {
                continue;
            }
            see_it_go(way, kind, NS_JOB_NONE);
            see_it_go(way, kind, NS_JOB_THREAD);
        }
    }
    assert_int_equal(count_fds(), fds);
}

/* One race of cancel against firing. */
struct race {
    atomic_int begun;
    atomic_int ended;
    atomic_int disposals;
};

static void race_run(struct ns_job_t *job)
{
    struct race *race = ns_job_get_data(job);
    atomic_fetch_add(&race->begun, 1);
    for (volatile int i = 0; i < 50; i++) {
    }
    atomic_fetch_add(&race->ended, 1);
}

static void race_gone(struct ns_job_t *job)
{
    struct race *race = ns_job_get_data(job);
    atomic_fetch_add(&race->disposals, 1);
}

enum { QUEUED, TIMERS, DESCRIPTORS, SIGNALS };

/* Cancel jobs that fire just then. Returns how often a run had begun before. */
static long race_cancel(int kind, ns_job_type_t thread, long races)
{
    struct ns_thrpool_t *tp = checked_pool(2);
    uint64_t sequence = run_seed() ^ (uint64_t)kind;
    long lost = 0;
    int ends[2];
    socket_pair(ends);
    for (long i = 0; i < races; i++) {
        struct race race = {0, 0, 0};
        struct timeval soon = {0, (long)(next_random(&sequence) % 20)};
        struct ns_job_t *job = NULL;
        ns_job_type_t type = NS_JOB_UNARMED | thread;
        ns_result_t result = NS_SUCCESS;
        switch (kind) {
        case QUEUED: result = ns_add_job(tp, type, race_run, &race, &job); break;
        case TIMERS: result = ns_add_timeout_job(tp, &soon, type, race_run, &race, &job); break;
        case DESCRIPTORS:
            result = ns_add_fd_job(tp, ends[0], type | NS_JOB_READ | NS_JOB_PRESERVE_FD, race_run,
                                   &race, &job);
            break;
        default: result = ns_add_signal_job(tp, SIGUSR1, type, race_run, &race, &job);
        }
        assert_int_equal(result, NS_SUCCESS);
        arm_with(job, race_gone);
        if (kind == SIGNALS) {
            kill(getpid(), SIGUSR1);
        } else if (kind == DESCRIPTORS) {
            hesitate(&sequence, 1u << next_random(&sequence) % 14);
            assert_int_equal(write(ends[1], "x", 1), 1);
        }
        /* On a busy machine it would not begin in so short a time: see it begin now and then. */
        int see = next_random(&sequence) % 8 == 0;
        for (int tries = 0; see && tries < 1000 && atomic_load(&race.begun) == 0; tries++) {
            sched_yield();
        }
        hesitate(&sequence, 1u << next_random(&sequence) % (see ? 6 : 14));
        result = ns_job_cancel(job);
        int begun = atomic_load(&race.begun);
        int ended = atomic_load(&race.ended);
        /* Nobody runs and nobody will; or one runs, and it is the last. */
        if (result == NS_SUCCESS) {
            assert_true(begun == ended);
        } else {
            assert_int_equal(result, NS_RUNNING);
        }
        SOON(atomic_load(&race.disposals) == 1);
        assert_int_equal(atomic_load(&race.begun), atomic_load(&race.ended));
        assert_int_equal(atomic_load(&race.begun), result == NS_SUCCESS ? begun : 1);
        lost += atomic_load(&race.begun);
        char byte;
        if (kind == DESCRIPTORS) {
            assert_int_equal(read(ends[0], &byte, 1), 1);
        }
    }
    checked_end(tp);
    close(ends[0]);
    close(ends[1]);
    return lost;
}

/*
 * A million of each kind with NS_COUNT=full, in the loop and in workers. Each side wins now and then.
 *
 * To see it fail: in State::begin and State::take_work, do not ask whether the job is ARMED.
 */
TEST(fm24_of_cancel_and_firing_exactly_one_wins)
{
    const char *names[] = {"queued", "timers", "descriptors", "signals"};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGUSR1, &ignore, NULL);
    for (int kind = QUEUED; kind <= SIGNALS; kind++) {
        long races = count_of(10000, 1000000);
        for (int threaded = 0; threaded < 2; threaded++) {
            double begin = now_seconds();
            long lost = race_cancel(kind, threaded ? NS_JOB_THREAD : 0, races);
            print_message("# %s%s: %ld races, %ld had begun, %.0f s\n", names[kind],
                          threaded ? " in workers" : "", races, lost, now_seconds() - begin);
            assert_true(races < 1000 || (0 < lost && lost < races));
        }
    }
}

/* Disposal from inside a callback: its own, another's, and in a done callback. */
struct chain {
    struct ns_job_t *other;
    int cancel;
    atomic_int disposals;
    atomic_int bad;
};

static void chain_gone(struct ns_job_t *job)
{
    struct chain *chain = ns_job_get_data(job);
    /* The first that goes takes the other with it. */
    if (atomic_fetch_add(&chain->disposals, 1) == 0 && chain->other != NULL) {
        struct ns_job_t *other = chain->other;
        chain->other = NULL;
        atomic_fetch_add(&chain->bad, ns_job_cancel(other) != NS_SUCCESS);
    }
    atomic_fetch_add(&chain->bad, ns_job_done(job) != NS_SUCCESS);
}

static void end_own(struct ns_job_t *job)
{
    struct chain *chain = ns_job_get_data(job);
    ns_result_t result = chain->cancel ? ns_job_cancel(job) : ns_job_done(job);
    atomic_fetch_add(&chain->bad, result != NS_SUCCESS);
}

static void end_others(struct ns_job_t *job)
{
    struct chain *chain = ns_job_get_data(job);
    struct ns_job_t *other = chain->other;
    chain->other = NULL;
    atomic_fetch_add(&chain->bad, ns_job_cancel(other) != NS_SUCCESS);
    atomic_fetch_add(&chain->bad, ns_job_done(job) != NS_SUCCESS);
}

/* To see it fail: in run::dispose, free the job before its done callback. */
TEST(fm28_a_job_may_be_finished_from_inside_any_callback)
{
    for (int kind = 0; kind < 16; kind++) {
        struct ns_thrpool_t *tp = checked_pool(2);
        ns_job_type_t thread = kind & 1 ? NS_JOB_THREAD : 0;
        struct chain chain = {.cancel = kind & 8};
        struct timeval soon = {0, 500};
        struct ns_job_t *job = NULL;
        int ends[2];
        socket_pair(ends);
        /* The other is an armed reader or timer, that shares nothing or the descriptor. */
        if (kind & 2) {
            assert_int_equal(ns_add_fd_job(tp, ends[0], NS_JOB_READ | NS_JOB_UNARMED |
                                           NS_JOB_PRESERVE_FD | thread, nothing, &chain,
                                           &chain.other), NS_SUCCESS);
        } else {
            assert_int_equal(ns_add_timeout_job(tp, &far, NS_JOB_UNARMED | thread, nothing, &chain,
                                                &chain.other), NS_SUCCESS);
        }
        arm_with(chain.other, chain_gone);
        assert_int_equal(ns_add_fd_timeout_job(tp, ends[0], &soon, NS_JOB_WRITE | NS_JOB_UNARMED |
                                               thread, kind & 4 ? end_own : end_others, &chain,
                                               &job), NS_SUCCESS);
        arm_with(job, chain_gone);
        EVENTUALLY(atomic_load(&chain.disposals) == 2);
        checked_end(tp);
        assert_int_equal(atomic_load(&chain.bad), 0);
        assert_false(fd_is_open(ends[0]));
        close(ends[1]);
    }
}

/* Many that have fired at once, of which the second to run cancels the others. */
enum { CROWDED = 64 };

static struct {
    struct ns_job_t *jobs[CROWDED];
    struct ns_job_t *first;
    atomic_int runs;
    atomic_int disposals;
    atomic_int bad;
} crowd;

static void cancel_the_others(struct ns_job_t *job)
{
    double end = now_seconds() + 0.002;
    if (atomic_fetch_add(&crowd.runs, 1) == 0) {
        crowd.first = job;
        ns_job_done(job);
        return;
    }
    for (int i = 0; i < CROWDED; i++) {
        if (crowd.jobs[i] != job && crowd.jobs[i] != crowd.first) {
            atomic_fetch_add(&crowd.bad, ns_job_cancel(crowd.jobs[i]) != NS_SUCCESS);
        }
    }
    ns_job_done(job);
    /* Long enough for the loop to look at what was asked for before it has run them all. */
    while (now_seconds() < end) {
    }
}

static void crowd_gone(struct ns_job_t *job)
{
    UNUSED(job);
    atomic_fetch_add(&crowd.disposals, 1);
}

/* To see it fail: in EventLoop::take_requests, do not hold a job that is READY. */
TEST(fm28_jobs_that_are_about_to_run_may_be_finished_from_a_callback)
{
    struct ns_thrpool_t *tp = checked_pool(1);
    int ends[2];
    socket_pair(ends);
    for (int round = 0; round < 10; round++) {
        struct gate gate = GATE_INIT;
        struct ns_job_t *blocker = NULL;
        memset(&crowd, 0, sizeof crowd);
        assert_int_equal(ns_add_job(tp, NS_JOB_NONE, gate_callback, &gate, &blocker), NS_SUCCESS);
        assert_latch(&gate.begun, 1);
        for (int i = 0; i < CROWDED; i++) {
            assert_int_equal(ns_add_fd_job(tp, ends[0], NS_JOB_WRITE | NS_JOB_PRESERVE_FD |
                                           NS_JOB_UNARMED, cancel_the_others, NULL,
                                           &crowd.jobs[i]), NS_SUCCESS);
            arm_with(crowd.jobs[i], crowd_gone);
        }
        latch_add(&gate.leave, 1);
        EVENTUALLY(atomic_load(&crowd.disposals) == CROWDED);
        assert_int_equal(atomic_load(&crowd.runs), 2);
        assert_int_equal(atomic_load(&crowd.bad), 0);
        assert_int_equal(ns_job_done(blocker), NS_SUCCESS);
    }
    checked_end(tp);
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fm12_no_lock_is_held_while_code_of_the_application_runs),
        cmocka_unit_test(fm13_getters_answer_while_the_callback_is_busy),
        cmocka_unit_test(fm18_each_of_sixteen_waiters_is_woken_by_rearm_done_shutdown_and_destroy),
        cmocka_unit_test(fm18_waiters_that_come_at_any_moment_get_what_is_true),
        cmocka_unit_test(fm19_done_twice_is_a_success_and_rearm_after_it_refused),
        cmocka_unit_test(fm20_done_wins_over_rearm_in_either_order),
        cmocka_unit_test(fm21_the_done_callback_runs_once_and_last_however_a_job_goes),
        cmocka_unit_test(fm24_of_cancel_and_firing_exactly_one_wins),
        cmocka_unit_test(fm28_a_job_may_be_finished_from_inside_any_callback),
        cmocka_unit_test(fm28_jobs_that_are_about_to_run_may_be_finished_from_a_callback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
