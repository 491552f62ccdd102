/* SPDX-License-Identifier: GPL-3.0-or-later */
/* ns_job_cancel: a job ends in whatever state it is, and the result says whether it may still be
 * running. */
#include "harness.h"

/* Cancel an armed job that reports to a probe: it never runs and is disposed of, once. */
static void cancel_armed(struct ns_thrpool_t *tp, struct ns_job_t *job, struct probe *probe)
{
    loop_passes(tp, 1000);
    assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
    assert_latch(&probe->disposals, 1);
    loop_passes(tp, 1000);
    assert_int_equal(latch_count(&probe->runs), 0);
    assert_int_equal(latch_count(&probe->disposals), 1);
}

TEST(an_armed_timer_never_fires)
{
    struct ns_thrpool_t *tp = pool_of(1);
    for EACH_THREAD(i) {
        for (int persist = 0; persist < 2; persist++) {
            struct probe probe = PROBE(NULL, -1);
            struct timeval soon = {0, 30000};
            struct ns_job_t *job = NULL;
            ns_job_type_t type = where[i] | (persist ? NS_JOB_PERSIST : 0) | NS_JOB_UNARMED;
            assert_int_equal(ns_add_timeout_job(tp, &soon, type, probe_run, &probe, &job),
                             NS_SUCCESS);
            probe_arm(job);
            assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
            assert_latch(&probe.disposals, 1);
            loop_passes(tp, 40000);
            assert_int_equal(latch_count(&probe.runs), 0);
        }
    }
    pool_end(tp);
}

TEST(an_armed_descriptor_is_closed_or_not_and_never_fires)
{
    struct ns_thrpool_t *tp = pool_of(1);
    for EACH_THREAD(i) {
        for (int preserve = 0; preserve < 2; preserve++) {
            for (long usec = 0; usec <= 900000; usec += 900000) {
                int ends[2];
                socket_pair(ends);
                struct probe probe = PROBE(NULL, ends[0]);
                ns_job_type_t type = where[i] | NS_JOB_READ | (preserve ? NS_JOB_PRESERVE_FD : 0);
                struct ns_job_t *job = probe_fd(tp, type, usec, &probe);
                cancel_armed(tp, job, &probe);
                assert_int_equal(fd_is_open(ends[0]), preserve);
                assert_int_equal(send(ends[1], "x", 1, MSG_NOSIGNAL), preserve ? 1 : -1);
                loop_passes(tp, 1000);
                assert_int_equal(latch_count(&probe.runs), 0);
                if (preserve) {
                    close(ends[0]);
                }
                close(ends[1]);
            }
        }
    }
    pool_end(tp);
}

static void before_signal(int signum)
{
    UNUSED(signum);
}

TEST(an_armed_signal_job_gives_the_signal_back)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct sigaction act = {.sa_handler = before_signal};
    struct sigaction now;
    assert_int_equal(sigaction(SIGUSR1, &act, NULL), 0);
    for EACH_THREAD(i) {
        struct probe probe = PROBE(NULL, -1);
        struct ns_job_t *job = NULL;
        assert_int_equal(ns_add_signal_job(tp, SIGUSR1, where[i] | NS_JOB_UNARMED, probe_run, &probe,
                                           &job), NS_SUCCESS);
        probe_arm(job);
        cancel_armed(tp, job, &probe);
        assert_int_equal(sigaction(SIGUSR1, NULL, &now), 0);
        assert_true(now.sa_handler == before_signal);
        kill(getpid(), SIGUSR1);
        loop_passes(tp, 1000);
        assert_int_equal(latch_count(&probe.runs), 0);
    }
    pool_end(tp);
    signal(SIGUSR1, SIG_DFL);
}

TEST(a_job_queued_behind_a_busy_worker_goes_at_once)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct gate gate = GATE_INIT;
    int ends[2];
    socket_pair(ends);
    struct ns_job_t *busy = occupy(tp, NS_JOB_THREAD, &gate);
    struct probe probes[3] = {PROBE(NULL, -1), PROBE(NULL, -1), PROBE(NULL, ends[0])};
    struct ns_job_t *jobs[3];
    assert_int_equal(ns_add_job(tp, NS_JOB_THREAD | NS_JOB_UNARMED, probe_run, &probes[0],
                                &jobs[0]), NS_SUCCESS);
    assert_int_equal(ns_add_timeout_job(tp, &at_once, NS_JOB_THREAD | NS_JOB_UNARMED, probe_run,
                                        &probes[1], &jobs[1]), NS_SUCCESS);
    probe_arm(jobs[0]);
    probe_arm(jobs[1]);
    jobs[2] = probe_fd(tp, NS_JOB_WRITE | NS_JOB_THREAD, 0, &probes[2]);
    loop_passes(tp, 1000);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ns_job_cancel(jobs[i]), NS_SUCCESS);
        /* The disposal did not wait for the queue: the worker is still busy. */
        assert_latch(&probes[i].disposals, 1);
    }
    assert_false(fd_is_open(ends[0]));
    assert_int_equal(latch_count(&gate.leave), 0);
    latch_add(&gate.leave, 1);
    finish_idle(busy);
    pool_end(tp);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(latch_count(&probes[i].runs), 0);
        assert_int_equal(latch_count(&probes[i].disposals), 1);
    }
    close(ends[1]);
}

TEST(a_job_queued_behind_a_blocked_loop_never_runs)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct gate gate = GATE_INIT;
    struct ns_job_t *busy = occupy(tp, NS_JOB_NONE, &gate);
    enum { JOBS = 100 };
    struct probe probe = PROBE(NULL, -1);
    for (int i = 0; i < JOBS; i++) {
        struct ns_job_t *job = NULL;
        assert_int_equal(ns_add_job(tp, NS_JOB_UNARMED | (i & 1 ? NS_JOB_TIMER : 0), probe_run,
                                    &probe, &job), NS_SUCCESS);
        probe_arm(job);
        assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
    }
    latch_add(&gate.leave, 1);
    assert_latch(&probe.disposals, JOBS);
    finish_idle(busy);
    pool_end(tp);
    assert_int_equal(latch_count(&probe.runs), 0);
    assert_int_equal(latch_count(&probe.disposals), JOBS);
}

/* Jobs that fire together, the first of which cancels the others. */
static struct ns_job_t *together[16];
static struct probe together_probe = PROBE(NULL, -1);
static atomic_int together_successes;

static void cancel_the_others(struct ns_job_t *job)
{
    for (int i = 0; i < 16; i++) {
        if (together[i] != NULL && together[i] != job) {
            if (ns_job_cancel(together[i]) == NS_SUCCESS) {
                atomic_fetch_add(&together_successes, 1);
            }
        }
        together[i] = NULL;
    }
    ns_job_done(job);
}

TEST(a_job_that_has_fired_but_not_run_can_be_cancelled_by_one_that_runs)
{
    struct ns_thrpool_t *tp = pool_of(1);
    int ends[2];
    socket_pair(ends);
    struct gate gate = GATE_INIT;
    struct ns_job_t *busy = occupy(tp, NS_JOB_NONE, &gate);
    together_probe.act = cancel_the_others;
    for (int i = 0; i < 16; i++) {
        ns_job_type_t type = NS_JOB_UNARMED;
        if (i % 2 == 0) {
            assert_int_equal(ns_add_timeout_job(tp, &at_once, type, probe_run, &together_probe,
                                                &together[i]), NS_SUCCESS);
        } else {
            type |= NS_JOB_WRITE | NS_JOB_PRESERVE_FD;
            assert_int_equal(ns_add_fd_job(tp, ends[0], type, probe_run, &together_probe,
                                           &together[i]), NS_SUCCESS);
        }
        probe_arm(together[i]);
    }
    latch_add(&gate.leave, 1);
    assert_latch(&together_probe.disposals, 16);
    assert_int_equal(latch_count(&together_probe.runs), 1);
    assert_int_equal(atomic_load(&together_successes), 15);
    finish_idle(busy);
    pool_end(tp);
    close(ends[0]);
    close(ends[1]);
}

static struct latch gone = LATCH_INIT;

static void count_going(struct ns_job_t *job)
{
    UNUSED(job);
    latch_add(&gone, 1);
}

/* Slow callbacks that are ready together. Each stays until it is released. */
static struct latch slow_begun, slow_leave;

static void stay_slowly(struct ns_job_t *job)
{
    double end = now_seconds() + 0.002; /* more than the time slice of a turn */
    latch_add(&slow_begun, 1);
    latch_reaches(&slow_leave, latch_count(&slow_begun));
    while (now_seconds() < end) {
    }
    ns_job_done(job);
}

/*
 * A job that is cancelled while it waits behind them is disposed of, and its descriptor closed, as
 * soon as the callback that runs returns: not when its own turn would come.
 *
 * To see it fail: in EventLoop::take_requests, only mark a job that is READY, and dispose of it in
 * run_ready.
 */
TEST(a_job_that_has_fired_is_disposed_of_before_the_next_slow_callback_ends)
{
    enum { SLOW = 5 };
    struct ns_thrpool_t *tp = pool_of(1);
    struct gate gate = GATE_INIT;
    int ends[SLOW + 1][2];
    slow_begun = slow_leave = (struct latch)LATCH_INIT;
    struct ns_job_t *blocker = occupy(tp, NS_JOB_NONE, &gate);
    for (int i = 0; i <= SLOW; i++) {
        socket_pair(ends[i]);
        assert_int_equal(send(ends[i][1], "x", 1, 0), 1);
    }
    struct probe probes[SLOW + 1];
    struct ns_job_t *jobs[SLOW + 1];
    for (int i = 0; i <= SLOW; i++) {
        probes[i] = (struct probe)PROBE(stay_slowly, ends[i][0]);
        jobs[i] = probe_fd(tp, NS_JOB_READ, 0, &probes[i]);
    }
    latch_add(&gate.leave, 1);
    assert_latch(&slow_begun, 1);
    /* One that waits: a framework may report them in any order. */
    int at = atomic_load(&probes[0].thread) != 0;
    assert_int_equal(ns_job_cancel(jobs[at]), NS_SUCCESS);
    latch_add(&slow_leave, 1);
    /* The second does not leave. */
    assert_latch(&probes[at].disposals, 1);
    assert_false(fd_is_open(probes[at].fd));
    assert_true(latch_count(&slow_begun) <= 2);
    latch_add(&slow_leave, SLOW);
    finish_idle(blocker);
    assert_latch(&slow_begun, SLOW);
    pool_end(tp);
    assert_int_equal(latch_count(&probes[at].runs), 0);
    for (int i = 0; i <= SLOW; i++) {
        close(ends[i][1]);
    }
}

TEST(a_running_job_is_said_to_run_and_runs_no_more)
{
    for EACH_THREAD(i) {
        for (int persist = 0; persist < 3; persist++) {
            struct ns_thrpool_t *tp = pool_of(1);
            struct gate gate = GATE_INIT;
            struct ns_job_t *job = NULL;
            long before = latch_count(&gone);
            ns_job_type_t type = where[i] | (persist == 1 ? NS_JOB_PERSIST : 0) | NS_JOB_UNARMED;
            assert_int_equal(ns_add_job(tp, type, gate_callback, &gate, &job), NS_SUCCESS);
            arm_with(job, count_going);
            assert_latch(&gate.begun, 1);
            if (persist == 2) {
                /* Asked for again: NEEDS_ARM. */
                assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
            }
            assert_int_equal(ns_job_cancel(job), NS_RUNNING);
            assert_int_equal(ns_job_cancel(job), NS_RUNNING);
            assert_int_equal(latch_count(&gone), before);
            latch_add(&gate.leave, 1);
            assert_latch(&gone, before + 1);
            pool_end(tp);
            assert_int_equal(latch_count(&gate.begun), 1);
            assert_int_equal(latch_count(&gone), before + 1);
        }
    }
}

static atomic_int own_answer;

static void cancel_itself(struct ns_job_t *job)
{
    atomic_store(&own_answer, (int)ns_job_cancel(job));
    latch_add(ns_job_get_data(job), 1);
}

TEST(from_its_own_callback_it_is_a_success_and_the_last_run)
{
    int ends[2];
    socket_pair(ends);
    for EACH_THREAD(i) {
        for (int kind = 0; kind < 6; kind++) {
            struct ns_thrpool_t *tp = pool_of(1);
            struct latch runs = LATCH_INIT;
            struct ns_job_t *job = NULL;
            long before = latch_count(&gone);
            ns_job_type_t type = where[i] | NS_JOB_UNARMED | (kind & 1 ? NS_JOB_PERSIST : 0);
            ns_result_t made = kind / 2 == 0 ? ns_add_job(tp, type, cancel_itself, &runs, &job)
                             : kind / 2 == 1 ? ns_add_timeout_job(tp, &at_once, type, cancel_itself,
                                                                  &runs, &job)
                                             : ns_add_fd_job(tp, ends[0], type | NS_JOB_WRITE
                                                                 | NS_JOB_PRESERVE_FD,
                                                             cancel_itself, &runs, &job);
            assert_int_equal(made, NS_SUCCESS);
            assert_int_equal(ns_job_set_done_cb(job, count_going), NS_SUCCESS);
            atomic_store(&own_answer, -1);
            assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
            assert_latch(&gone, before + 1);
            assert_int_equal(atomic_load(&own_answer), NS_SUCCESS);
            pool_end(tp);
            assert_int_equal(latch_count(&runs), 1);
            assert_int_equal(latch_count(&gone), before + 1);
        }
    }
    close(ends[0]);
    close(ends[1]);
}

TEST(an_idle_job_is_disposed_of_without_a_run)
{
    struct ns_thrpool_t *tp = pool_of(1);
    int ends[2];
    socket_pair(ends);
    struct probe probe = PROBE(NULL, ends[0]);
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_fd_job(tp, ends[0], NS_JOB_READ | NS_JOB_UNARMED, probe_run, &probe,
                                   &job), NS_SUCCESS);
    assert_int_equal(ns_job_set_done_cb(job, probe_gone), NS_SUCCESS);
    assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
    assert_latch(&probe.disposals, 1);
    assert_false(fd_is_open(ends[0]));
    pool_end(tp);
    assert_int_equal(latch_count(&probe.runs), 0);
    close(ends[1]);
}

TEST(null_is_refused)
{
    assert_int_equal(ns_job_cancel(NULL), NS_INVALID_REQUEST);
}

/* Cancels against firings: the cancel's result must agree with whether the job ran. */
enum race { RACE_NOW, RACE_TIMER, RACE_FD, RACE_FD_PERSIST, RACE_SIGNAL };

struct contest {
    atomic_int begun;  /* runs that began */
    atomic_int ended;  /* and ended */
    atomic_int disposed;
};

static void spin_for(unsigned turns)
{
    for (; turns > 0; turns--) {
        atomic_signal_fence(memory_order_seq_cst);
    }
}

/* Wait for the disposal, which is near: without a pause at first. */
static void contest_over(struct contest *contest)
{
    for (int i = 0; i < 10000 && atomic_load(&contest->disposed) == 0; i++) {
        sched_yield();
    }
    EVENTUALLY(atomic_load(&contest->disposed) > 0);
}

static void contest_run(struct ns_job_t *job)
{
    struct contest *contest = ns_job_get_data(job);
    atomic_fetch_add(&contest->begun, 1);
    spin_for(3000); /* long enough for some cancels to hit it */
    char byte;
    if (ns_job_get_native_fd(job) >= 0) {
        recv(ns_job_get_native_fd(job), &byte, 1, 0);
    }
    atomic_fetch_add(&contest->ended, 1);
}

static void contest_gone(struct ns_job_t *job)
{
    struct contest *contest = ns_job_get_data(job);
    atomic_fetch_add(&contest->disposed, 1);
}

static void race(enum race kind, ns_job_type_t where, int rounds)
{
    struct ns_thrpool_t *tp = pool_of(2);
    int ends[2];
    socket_pair(ends);
    int kept = 0;
    int ran = 0;
    unsigned spin = 1;
    for (int round = 0; round < rounds; round++) {
        struct contest contest = {0, 0, 0};
        struct ns_job_t *job = NULL;
        ns_job_type_t type = where | NS_JOB_UNARMED;
        ns_job_type_t io = type | NS_JOB_READ | NS_JOB_PRESERVE_FD;
        struct timeval soon = {0, round % 40};
        ns_result_t made =
            kind == RACE_NOW     ? ns_add_job(tp, type, contest_run, &contest, &job)
            : kind == RACE_TIMER ? ns_add_timeout_job(tp, &soon, type, contest_run, &contest, &job)
            : kind == RACE_FD    ? ns_add_fd_job(tp, ends[0], io, contest_run, &contest, &job)
            : kind == RACE_FD_PERSIST
                ? ns_add_fd_job(tp, ends[0], io | NS_JOB_PERSIST, contest_run, &contest, &job)
                : ns_add_signal_job(tp, SIGUSR1, type, contest_run, &contest, &job);
        assert_int_equal(made, NS_SUCCESS);
        arm_with(job, contest_gone);
        if (kind == RACE_FD || kind == RACE_FD_PERSIST) {
            assert_int_equal(send(ends[1], "x", 1, 0), 1);
        } else if (kind == RACE_SIGNAL) {
            kill(getpid(), SIGUSR1);
        }
        /* Wait for a random time, up to what a run takes to begin and end. */
        spin = spin * 1103515245 + 12345;
        if (round & 1) {
            sched_yield();
        }
        spin_for(spin >> 16 & 0x3fff);
        int began_before = atomic_load(&contest.begun);
        ns_result_t answer = ns_job_cancel(job);
        int began = atomic_load(&contest.begun);
        int ended = atomic_load(&contest.ended);
        if (answer == NS_SUCCESS) {
            /* No run was in progress, and none may start. */
            assert_int_equal(began, ended);
            kept += began == 0;
            ran += began != 0;
        } else {
            assert_int_equal(answer, NS_RUNNING);
        }
        contest_over(&contest);
        int total = atomic_load(&contest.begun);
        assert_int_equal(atomic_load(&contest.ended), total);
        assert_int_equal(atomic_load(&contest.disposed), 1);
        if (answer == NS_SUCCESS) {
            assert_int_equal(total, began);
        } else {
            assert_true(total >= 1 && total <= began_before + 1);
        }
        char byte;
        while (recv(ends[0], &byte, 1, 0) == 1) {
        }
    }
    pool_end(tp);
    close(ends[0]);
    close(ends[1]);
    print_message("# %d cancelled before the run, %d after it, %d during it\n", kept, ran,
                  rounds - kept - ran);
}

static void race_each_thread(enum race kind)
{
    for EACH_THREAD(i) {
        race(kind, where[i], scaled(10000));
    }
}

TEST(against_a_run_now_job_exactly_one_wins)
{
    race_each_thread(RACE_NOW);
}

TEST(against_a_timer_exactly_one_wins)
{
    race_each_thread(RACE_TIMER);
}

TEST(against_a_descriptor_exactly_one_wins)
{
    race_each_thread(RACE_FD);
}

TEST(against_a_persistent_descriptor_exactly_one_wins)
{
    race_each_thread(RACE_FD_PERSIST);
}

TEST(against_a_signal_exactly_one_wins)
{
    /* Between two jobs the signal is handled as before the first. */
    struct sigaction act = {.sa_handler = before_signal};
    assert_int_equal(sigaction(SIGUSR1, &act, NULL), 0);
    race_each_thread(RACE_SIGNAL);
    signal(SIGUSR1, SIG_DFL);
}

/* A repeating job that is cancelled from outside at a random moment. */
TEST(a_repeating_job_is_stopped_at_any_moment)
{
    struct ns_thrpool_t *tp = pool_of(2);
    int rounds = scaled(2000);
    for EACH_THREAD(i) {
        for (int round = 0; round < rounds; round++) {
            struct contest contest = {0, 0, 0};
            struct ns_job_t *job = NULL;
            assert_int_equal(ns_add_job(tp, where[i] | NS_JOB_PERSIST | NS_JOB_UNARMED, contest_run,
                                        &contest, &job), NS_SUCCESS);
            arm_with(job, contest_gone);
            while (atomic_load(&contest.begun) < round % 4) {
                sched_yield();
            }
            ns_result_t answer = ns_job_cancel(job);
            int began = atomic_load(&contest.begun);
            assert_true(answer == NS_SUCCESS || answer == NS_RUNNING);
            if (answer == NS_SUCCESS) {
                assert_int_equal(atomic_load(&contest.ended), began);
            }
            contest_over(&contest);
            int more = atomic_load(&contest.begun) - began;
            /* When the cancel came, a run may have begun without having counted itself. */
            assert_true(more == 0 || (more == 1 && answer == NS_RUNNING));
            assert_int_equal(atomic_load(&contest.ended), atomic_load(&contest.begun));
        }
    }
    pool_end(tp);
}

struct rivals {
    struct ns_job_t *job;
    pthread_barrier_t start;
    atomic_int answers[9];
};

static void *cancel_too(void *arg)
{
    struct rivals *rivals = arg;
    pthread_barrier_wait(&rivals->start);
    atomic_fetch_add(&rivals->answers[ns_job_cancel(rivals->job)], 1);
    pthread_barrier_wait(&rivals->start);
    return NULL;
}

TEST(several_threads_cancel_a_running_job_and_it_goes_once)
{
    enum { THREADS = 4 };
    struct ns_thrpool_t *tp = pool_of(1);
    int rounds = scaled(200);
    for (int round = 0; round < rounds; round++) {
        struct gate gate = GATE_INIT;
        struct rivals rivals = {.job = NULL};
        pthread_t threads[THREADS];
        long before = latch_count(&gone);
        pthread_barrier_init(&rivals.start, NULL, THREADS + 1);
        assert_int_equal(ns_add_job(tp, where[round & 1] | NS_JOB_UNARMED, gate_callback, &gate,
                                    &rivals.job), NS_SUCCESS);
        arm_with(rivals.job, count_going);
        assert_latch(&gate.begun, 1);
        for (int t = 0; t < THREADS; t++) {
            assert_int_equal(pthread_create(&threads[t], NULL, cancel_too, &rivals), 0);
        }
        pthread_barrier_wait(&rivals.start);
        pthread_barrier_wait(&rivals.start);
        latch_add(&gate.leave, 1);
        for (int t = 0; t < THREADS; t++) {
            pthread_join(threads[t], NULL);
        }
        assert_int_equal(atomic_load(&rivals.answers[NS_RUNNING]), THREADS);
        assert_latch(&gone, before + 1);
        loop_passes(tp, 0);
        assert_int_equal(latch_count(&gone), before + 1);
        pthread_barrier_destroy(&rivals.start);
    }
    pool_end(tp);
}

TEST(an_idle_connections_job_is_replaced_at_once)
{
    struct ns_thrpool_t *tp = pool_of(1);
    int ends[2];
    socket_pair(ends);
    const ns_job_type_t type = NS_JOB_READ | NS_JOB_THREAD | NS_JOB_PRESERVE_FD;
    int rounds = scaled(1000);
    for (int round = 0; round < rounds; round++) {
        struct probe old = PROBE(NULL, ends[0]);
        struct probe new = PROBE(finish_job, ends[0]);
        struct ns_job_t *job = probe_fd(tp, type, 0, &old);
        /* No data comes on any descriptor, and the disposals must not wait for any. */
        assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
        probe_fd(tp, type, 0, &new);
        assert_latch(&old.disposals, 1);
        assert_int_equal(send(ends[1], "x", 1, 0), 1);
        assert_latch(&new.disposals, 1);
        assert_int_equal(latch_count(&old.runs), 0);
        assert_int_equal(latch_count(&new.runs), 1);
        char byte;
        assert_int_equal(recv(ends[0], &byte, 1, 0), 1);
    }
    pool_end(tp);
    close(ends[0]);
    close(ends[1]);
}

TEST(many_armed_timers_are_cancelled_and_their_memory_comes_back)
{
    struct ns_thrpool_t *tp = pool_with(1, quiet_log, counting_calloc, counting_free);
    long before = atomic_load(&blocks_out);
    int count = scaled(20000);
    struct ns_job_t **jobs = calloc((size_t)count, sizeof *jobs);
    for (int i = 0; i < count; i++) {
        assert_int_equal(ns_add_timeout_job(tp, &far_away, where[i & 1], finish_job, NULL, &jobs[i]),
                         NS_SUCCESS);
    }
    assert_int_equal(atomic_load(&blocks_out), before + count);
    for (int i = 0; i < count; i++) {
        assert_int_equal(ns_job_cancel(jobs[i]), NS_SUCCESS);
    }
    EVENTUALLY(atomic_load(&blocks_out) == before);
    free(jobs);
    pool_end(tp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_armed_timer_never_fires),
        cmocka_unit_test(an_armed_descriptor_is_closed_or_not_and_never_fires),
        cmocka_unit_test(an_armed_signal_job_gives_the_signal_back),
        cmocka_unit_test(a_job_queued_behind_a_busy_worker_goes_at_once),
        cmocka_unit_test(a_job_queued_behind_a_blocked_loop_never_runs),
        cmocka_unit_test(a_job_that_has_fired_but_not_run_can_be_cancelled_by_one_that_runs),
        cmocka_unit_test(a_job_that_has_fired_is_disposed_of_before_the_next_slow_callback_ends),
        cmocka_unit_test(a_running_job_is_said_to_run_and_runs_no_more),
        cmocka_unit_test(from_its_own_callback_it_is_a_success_and_the_last_run),
        cmocka_unit_test(an_idle_job_is_disposed_of_without_a_run),
        cmocka_unit_test(null_is_refused),
        cmocka_unit_test(against_a_run_now_job_exactly_one_wins),
        cmocka_unit_test(against_a_timer_exactly_one_wins),
        cmocka_unit_test(against_a_descriptor_exactly_one_wins),
        cmocka_unit_test(against_a_persistent_descriptor_exactly_one_wins),
        cmocka_unit_test(against_a_signal_exactly_one_wins),
        cmocka_unit_test(a_repeating_job_is_stopped_at_any_moment),
        cmocka_unit_test(several_threads_cancel_a_running_job_and_it_goes_once),
        cmocka_unit_test(an_idle_connections_job_is_replaced_at_once),
        cmocka_unit_test(many_armed_timers_are_cancelled_and_their_memory_comes_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
