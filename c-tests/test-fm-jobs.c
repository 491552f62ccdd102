/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What broke the original, shown absent: the end of a job, whoever asks for it and when.
 *
 * Each test is named for its row in docs/RELIABILITY.md, and says what to take out of the library
 * to see it fail.
 */
#include "fm.h"
#include "kinds.h"

/* The results of done and rearm in a callback, called in either order. */
struct both {
    int rearm_first;
    ns_result_t results[6]; /* the last two: in the done callback */
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
    struct ns_job_t *job = occupy(tp, NS_JOB_THREAD, &gate);
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
    atomic_int beside; /* done callbacks that ran during the callback */
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
    struct timeval *time = fires ? &soon : &far_away;
    ns_job_type_t type = NS_JOB_UNARMED | thread | (way == WAY_PERSIST ? NS_JOB_PERSIST : 0);
    struct ns_job_t *job = NULL;
    int ends[2];
    socket_pair(ends);
    const struct trigger on = {time, ends[0], NS_JOB_READ};
    ns_result_t result = add_kind(tp, kind, &on, type, go, &going, &job);
    if (kind == KIND_FD || kind == KIND_FD_TIMEOUT) {
        going.fd = ends[0];
    }
    if (kind == KIND_SIGNAL && fires) {
        kill(getpid(), SIGUSR1);
    } else if (kind == KIND_FD && fires) {
        assert_int_equal(write(ends[1], "x", 1), 1);
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
        for (int kind = 0; kind < KINDS; kind++) {
            /* A run-now job that is armed runs. */
            if (kind == KIND_NOW && (way == WAY_CANCEL || way == WAY_SHUTDOWN || way == WAY_DESTROY)) {
                continue;
            }
            see_it_go(way, kind, NS_JOB_NONE);
            see_it_go(way, kind, NS_JOB_THREAD);
        }
    }
    assert_int_equal(count_fds(), fds);
}

/* One race of a cancel against a firing. */
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

/* Cancel jobs just as they fire. Returns how often the run came first. */
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
        const struct trigger on = {&soon, ends[0], NS_JOB_READ | NS_JOB_PRESERVE_FD};
        ns_result_t result = add_kind(tp, kind, &on, type, race_run, &race, &job);
        assert_int_equal(result, NS_SUCCESS);
        arm_with(job, race_gone);
        if (kind == KIND_SIGNAL) {
            kill(getpid(), SIGUSR1);
        } else if (kind == KIND_FD) {
            hesitate(&sequence, 1u << next_random(&sequence) % 14);
            assert_int_equal(write(ends[1], "x", 1), 1);
        }
        /* On a busy machine no run would begin in so short a time, so wait for it in one race of
         * eight. */
        int see = next_random(&sequence) % 8 == 0;
        for (int tries = 0; see && tries < 1000 && atomic_load(&race.begun) == 0; tries++) {
            sched_yield();
        }
        hesitate(&sequence, 1u << next_random(&sequence) % (see ? 6 : 14));
        result = ns_job_cancel(job);
        int begun = atomic_load(&race.begun);
        int ended = atomic_load(&race.ended);
        /* Either no run is in progress and none will begin, or one is, and it is the last. */
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
        if (kind == KIND_FD) {
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
    static const struct {
        int kind;
        const char *name;
    } races[] = {{KIND_NOW, "queued"}, {KIND_TIMER, "timers"}, {KIND_FD, "descriptors"},
                 {KIND_SIGNAL, "signals"}};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGUSR1, &ignore, NULL);
    for (size_t i = 0; i < sizeof races / sizeof *races; i++) {
        long count = count_of(10000, 1000000);
        for (int threaded = 0; threaded < 2; threaded++) {
            double begin = now_seconds();
            long lost = race_cancel(races[i].kind, threaded ? NS_JOB_THREAD : 0, count);
            print_message("# %s%s: %ld races, %ld had begun, %.0f s\n", races[i].name,
                          threaded ? " in workers" : "", count, lost, now_seconds() - begin);
            assert_true(count < 1000 || (0 < lost && lost < count));
        }
    }
}

/* Jobs that end from inside a callback: the job itself, another job, and in a done callback. */
struct chain {
    struct ns_job_t *other;
    int cancel;
    atomic_int disposals;
    atomic_int bad;
};

static void chain_gone(struct ns_job_t *job)
{
    struct chain *chain = ns_job_get_data(job);
    /* The first to end cancels the other. */
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
        /* The other job is an armed reader of the same descriptor, or a timer. */
        if (kind & 2) {
            assert_int_equal(ns_add_fd_job(tp, ends[0], NS_JOB_READ | NS_JOB_UNARMED |
                                           NS_JOB_PRESERVE_FD | thread, do_nothing, &chain,
                                           &chain.other), NS_SUCCESS);
        } else {
            assert_int_equal(ns_add_timeout_job(tp, &far_away, NS_JOB_UNARMED | thread, do_nothing, &chain,
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

/* Many jobs that have fired at once. The second to run cancels the others. */
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
    /* Long enough for the loop to take the requests before it has run all jobs. */
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
        memset(&crowd, 0, sizeof crowd);
        struct ns_job_t *blocker = occupy(tp, NS_JOB_NONE, &gate);
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
        cmocka_unit_test(fm19_done_twice_is_a_success_and_rearm_after_it_refused),
        cmocka_unit_test(fm20_done_wins_over_rearm_in_either_order),
        cmocka_unit_test(fm21_the_done_callback_runs_once_and_last_however_a_job_goes),
        cmocka_unit_test(fm24_of_cancel_and_firing_exactly_one_wins),
        cmocka_unit_test(fm28_a_job_may_be_finished_from_inside_any_callback),
        cmocka_unit_test(fm28_jobs_that_are_about_to_run_may_be_finished_from_a_callback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
