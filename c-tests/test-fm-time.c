/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What broke the original, shown absent: timers and signals.
 *
 * Each test is named for its row in docs/RELIABILITY.md, and says what to take out of the library
 * to see it fail.
 */
#include "fm.h"

#include <sys/wait.h>

/* A repeating timer: how late it was at worst. */
struct pulse {
    double period;
    double last; /* when it was armed; later touched only by the thread that runs it */
    _Atomic double worst;
    double *each; /* how late each was, or NULL */
    double cpu;   /* CPU time of its thread at the last beat */
    _Atomic double busiest; /* the most that it used between two beats */
    atomic_long beats;
};

static void beat(struct ns_job_t *job)
{
    struct pulse *pulse = ns_job_get_data(job);
    double now = now_seconds();
    struct timespec used;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used);
    double cpu = (double)used.tv_sec + (double)used.tv_nsec / 1e9;
    if (pulse->cpu != 0 && cpu - pulse->cpu > pulse->busiest) {
        pulse->busiest = cpu - pulse->cpu;
    }
    pulse->cpu = cpu;
    double late = now - pulse->last - pulse->period;
    if (late > pulse->worst) {
        pulse->worst = late;
    }
    if (pulse->each != NULL) {
        pulse->each[atomic_load(&pulse->beats)] = late;
    }
    pulse->last = now_seconds();
    atomic_fetch_add(&pulse->beats, 1);
}

static void busy_for_a_second(struct ns_job_t *job)
{
    double end = now_seconds() + 1;
    while (now_seconds() < end) {
        sched_yield();
    }
    latch_add(ns_job_get_data(job), 1);
}

/*
 * The descriptor stays readable all the time, so that the PERSIST job fires again at once.
 *
 * To see it fail: in EventLoop::fire, put threaded jobs on the loop's own ready list.
 */
TEST(fm14_a_busy_worker_does_not_hold_up_the_loop)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct latch over = LATCH_INIT;
    struct pulse pulse = {.period = 0.01};
    struct timeval tv = {0, 10000};
    struct ns_job_t *jobs[2];
    int ends[2];
    socket_pair(ends);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_int_equal(ns_add_fd_job(tp, ends[0], NS_JOB_READ | NS_JOB_PERSIST | NS_JOB_THREAD,
                                   busy_for_a_second, &over, &jobs[0]), NS_SUCCESS);
    pulse.last = now_seconds();
    assert_int_equal(ns_add_timeout_job(tp, &tv, NS_JOB_PERSIST, beat, &pulse, &jobs[1]),
                     NS_SUCCESS);
    assert_latch(&over, 2);
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    print_message("# %ld beats of 10 ms in 2 s, the worst %.1f ms late\n",
                  atomic_load(&pulse.beats), pulse.worst * 1e3);
    assert_true(pulse.worst < 0.5);
    assert_true(atomic_load(&pulse.beats) >= 10);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ns_job_done(jobs[i]), NS_SUCCESS);
    }
    ns_thrpool_destroy(tp);
    close(ends[1]);
}

/* Data that comes at about the time of the time-out. */
struct contest {
    int ends[2];
    struct timeval tv;
    double armed_at;
    double written_at; /* when the write had been made */
    atomic_int runs;
    atomic_int bad;
    atomic_int timed_out;
    atomic_int disposals;
};

static void judge(struct ns_job_t *job)
{
    struct contest *contest = ns_job_get_data(job);
    ns_job_type_t output = ns_job_get_output_type(job);
    char byte;
    ssize_t got = read(contest->ends[0], &byte, 1);
    double passed = now_seconds() - contest->armed_at;
    atomic_fetch_add(&contest->runs, 1);
    if (output == NS_JOB_TIMER) {
        /* Not early. Data that is there now may have come after the time-out fired. */
        atomic_fetch_add(&contest->timed_out, 1);
        atomic_fetch_add(&contest->bad, passed < (double)contest->tv.tv_usec / 1e6);
    } else {
        atomic_fetch_add(&contest->bad, output != NS_JOB_READ || got != 1);
    }
    ns_job_done(job);
}

static void contest_over(struct ns_job_t *job)
{
    struct contest *contest = ns_job_get_data(job);
    atomic_fetch_add(&contest->disposals, 1);
}

/*
 * Many jobs at once, each of which is sent data at about its deadline. Data that was sent before
 * the deadline wins, a time-out is never early, and both outcomes occur.
 *
 * To see it fail: in EventLoop::turn, let timers expire before the poller is asked, and in
 * EventLoop::expire do not ask it again.
 */
TEST(fm29_time_out_or_data_but_the_true_one)
{
    enum { AT_ONCE = 100 };
    struct ns_thrpool_t *tp = pool_of(2);
    static struct contest contests[AT_ONCE];
    uint64_t sequence = run_seed();
    long rounds = count_of(60, 1000);
    long timed_out = 0;
    long in_time = 0;
    int fds[AT_ONCE][2];
    for (int i = 0; i < AT_ONCE; i++) {
        socket_pair(fds[i]);
    }
    for (long round = 0; round < rounds; round++) {
        for (int i = 0; i < AT_ONCE; i++) {
            struct contest *contest = &contests[i];
            *contest = (struct contest){.ends = {fds[i][0], fds[i][1]}};
            contest->tv.tv_usec = 2000 + 20 * i;
            struct ns_job_t *job = NULL;
            assert_int_equal(ns_add_fd_timeout_job(tp, contest->ends[0], &contest->tv,
                                                   NS_JOB_READ | NS_JOB_UNARMED |
                                                       NS_JOB_PRESERVE_FD |
                                                       (i & 1 ? NS_JOB_THREAD : 0),
                                                   judge, contest, &job), NS_SUCCESS);
            contest->armed_at = now_seconds();
            arm_with(job, contest_over);
        }
        /* Within a millisecond of their deadlines. */
        for (int i = 0; i < AT_ONCE; i++) {
            double at = contests[i].armed_at + (double)contests[i].tv.tv_usec / 1e6 +
                        (double)(next_random(&sequence) % 400) / 1e6 - 0.00035;
            while (now_seconds() < at) {
                sched_yield();
            }
            assert_int_equal(write(contests[i].ends[1], "x", 1), 1);
            contests[i].written_at = now_seconds();
        }
        for (int i = 0; i < AT_ONCE; i++) {
            SOON(atomic_load(&contests[i].disposals) == 1);
            assert_int_equal(atomic_load(&contests[i].runs), 1);
            assert_int_equal(atomic_load(&contests[i].bad), 0);
            /* The deadline is no earlier than this. */
            double deadline = contests[i].armed_at + (double)contests[i].tv.tv_usec / 1e6;
            if (contests[i].written_at < deadline) {
                in_time++;
                assert_int_equal(atomic_load(&contests[i].timed_out), 0);
            }
            timed_out += atomic_load(&contests[i].timed_out);
            char rest[8];
            while (read(contests[i].ends[0], rest, sizeof rest) > 0) {
            }
        }
        /* The data comes long before the deadline, while the loop is busy until long after it. */
        struct gate gate = GATE_INIT;
        struct contest *contest = &contests[0];
        struct timeval passing = {0, 300};
        *contest = (struct contest){.ends = {fds[0][0], fds[0][1]}, .tv = {0, 200}};
        struct ns_job_t *job = occupy(tp, NS_JOB_NONE, &gate);
        assert_int_equal(write(contest->ends[1], "x", 1), 1);
        contest->armed_at = now_seconds();
        struct ns_job_t *fd_job = NULL;
        assert_int_equal(ns_add_fd_timeout_job(tp, contest->ends[0], &passing,
                                               NS_JOB_READ | NS_JOB_UNARMED | NS_JOB_PRESERVE_FD,
                                               judge, contest, &fd_job), NS_SUCCESS);
        arm_with(fd_job, contest_over);
        while (now_seconds() < contest->armed_at + 0.0005) {
            sched_yield();
        }
        latch_add(&gate.leave, 1);
        SOON(atomic_load(&contest->disposals) == 1);
        assert_int_equal(atomic_load(&contest->timed_out), 0);
        assert_int_equal(atomic_load(&contest->bad), 0);
        finish_idle(job);
    }
    print_message("# %ld contests, %ld written to in time, %ld timed out\n", rounds * AT_ONCE,
                  in_time, timed_out);
    /* Under a tool every write is late, and few rounds are made. */
    assert_true(rounds < 10 || in_time > 0);
    assert_true(rounds < 10 || (timed_out > 0 && timed_out < rounds * AT_ONCE));
    pool_end(tp);
    for (int i = 0; i < AT_ONCE; i++) {
        close(fds[i][0]);
        close(fds[i][1]);
    }
}

/* To see it fail: in capi::nanoseconds, take a negative field as zero. */
TEST(fm30_times_of_every_kind)
{
    const time_t most = (time_t)(((uint64_t)1 << (sizeof(time_t) * 8 - 1)) - 1);
    const struct {
        struct timeval tv;
        ns_result_t result;
        double least; /* seconds until it fires; negative: not during this test */
    } table[] = {
        {{0, 0}, NS_SUCCESS, 0},
        {{0, 1}, NS_SUCCESS, 1e-6},
        {{0, 999}, NS_SUCCESS, 999e-6},
        {{0, 50000}, NS_SUCCESS, 0.05},
        {{0, 1000000}, NS_SUCCESS, 1},
        {{0, 1250000}, NS_SUCCESS, 1.25},
        {{most, 0}, NS_SUCCESS, -1},
        {{most, 999999}, NS_SUCCESS, -1},
        {{0, most}, NS_SUCCESS, -1},
        {{most, most}, NS_SUCCESS, -1},
        {{1000000000, 0}, NS_SUCCESS, -1},
        {{-1, 0}, NS_INVALID_REQUEST, 0},
        {{0, -1}, NS_INVALID_REQUEST, 0},
        {{1, -1}, NS_INVALID_REQUEST, 0},
        {{-1, 1000000}, NS_INVALID_REQUEST, 0},
        {{-most - 1, -most - 1}, NS_INVALID_REQUEST, 0},
    };
    enum { ROWS = sizeof table / sizeof *table };
    struct ns_thrpool_t *tp = pool_of(1);
    static struct pulse pulses[2 * ROWS];
    struct ns_job_t *jobs[2 * ROWS] = {NULL};
    double armed_at[2 * ROWS];
    int ends[2];
    socket_pair(ends);
    for (size_t i = 0; i < 2 * ROWS; i++) {
        struct timeval tv = table[i / 2].tv;
        pulses[i] = (struct pulse){.period = table[i / 2].least};
        armed_at[i] = now_seconds();
        ns_result_t result =
            i & 1 ? ns_add_fd_timeout_job(tp, ends[0], &tv, NS_JOB_READ | NS_JOB_PRESERVE_FD |
                                          NS_JOB_UNARMED, beat, &pulses[i], &jobs[i])
                  : ns_add_timeout_job(tp, &tv, NS_JOB_UNARMED, beat, &pulses[i], &jobs[i]);
        assert_int_equal(result, table[i / 2].result);
        assert_int_equal(jobs[i] != NULL, result == NS_SUCCESS);
        if (result == NS_SUCCESS) {
            assert_int_equal(ns_job_rearm(jobs[i]), NS_SUCCESS);
        }
    }
    for (size_t i = 0; i < 2 * ROWS; i++) {
        /* For a descriptor, zero is no time-out. */
        int fires = table[i / 2].least > (i & 1 ? 0 : -1e-9);
        if (jobs[i] != NULL && fires) {
            EVENTUALLY(atomic_load(&pulses[i].beats) == 1);
            assert_int_equal(ns_job_wait(jobs[i]), NS_SUCCESS);
            assert_true(pulses[i].last - armed_at[i] >= table[i / 2].least);
            assert_int_equal(ns_job_done(jobs[i]), NS_SUCCESS);
        }
    }
    for (size_t i = 0; i < 2 * ROWS; i++) {
        if (jobs[i] != NULL && table[i / 2].least <= (i & 1 ? 0 : -1e-9)) {
            assert_int_equal(atomic_load(&pulses[i].beats), 0);
            assert_int_equal(ns_job_cancel(jobs[i]), NS_SUCCESS);
        }
    }
    pool_end(tp);
    close(ends[0]);
    close(ends[1]);
}

/* Jobs that are cancelled right after the add: the loop only takes the request and drops it. */
struct flooder {
    struct ns_thrpool_t *tp;
    atomic_int stop;
    atomic_long adds;
};

static void *flood(void *arg)
{
    struct flooder *flooder = arg;
    struct timeval far = {3600, 0};
    while (!atomic_load(&flooder->stop)) {
        struct ns_job_t *job = NULL;
        if (ns_add_timeout_job(flooder->tp, &far, NS_JOB_NONE, do_nothing, NULL, &job) == NS_SUCCESS) {
            ns_job_cancel(job);
            atomic_fetch_add(&flooder->adds, 1);
        }
    }
    return NULL;
}

/*
 * To see it fail: in EventLoop::turn, take requests without a bound; and in take_requests, do not ask
 * whether the slice is over.
 */
TEST(fm31_a_timer_keeps_its_time_beside_four_threads_that_add)
{
    enum { FLOODERS = 4, BEATS = 60, ROOM = 100000 };
    static double late[ROOM];
    struct ns_thrpool_t *tp = pool_of(1);
    struct pulse pulse = {.period = 0.01, .each = late};
    struct flooder flooder = {tp, 0, 0};
    struct timeval tv = {0, 10000};
    struct ns_job_t *job = NULL;
    pthread_t threads[FLOODERS];
    pulse.last = now_seconds();
    assert_int_equal(ns_add_timeout_job(tp, &tv, NS_JOB_PERSIST, beat, &pulse, &job), NS_SUCCESS);
    for (int i = 0; i < FLOODERS; i++) {
        threads[i] = start_thread(flood, &flooder);
    }
    EVENTUALLY(atomic_load(&pulse.beats) >= BEATS);
    atomic_store(&flooder.stop, 1);
    for (int i = 0; i < FLOODERS; i++) {
        pthread_join(threads[i], NULL);
    }
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    qsort(late, BEATS, sizeof *late, compare_doubles);
    print_message("# %ld adds beside %ld beats of 10 ms, half less than %.2f ms late, nine in ten "
                  "%.2f ms, the worst %.1f ms\n", atomic_load(&flooder.adds),
                  atomic_load(&pulse.beats), late[BEATS / 2] * 1e3, late[BEATS * 9 / 10] * 1e3,
                  pulse.worst * 1e3);
    assert_true(pulse.worst < 1);
    /* Four threads keep the processors busy, so the loop has to wait for one. */
    assert_true(late[BEATS * 9 / 10] < (getenv("NS_SLOW") != NULL ? 1 : 0.1));
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    ns_thrpool_destroy(tp);
}

/* What a signal job has seen. */
struct watcher {
    atomic_int marked; /* set before the last signal */
    atomic_int saw_mark;
    atomic_long runs;
};

static void watch(struct ns_job_t *job)
{
    struct watcher *watcher = ns_job_get_data(job);
    atomic_fetch_add(&watcher->runs, 1);
    atomic_store(&watcher->saw_mark, atomic_load(&watcher->marked));
    if (!NS_JOB_IS_PERSIST(ns_job_get_type(job))) {
        ns_job_rearm(job);
    }
}

static void earlier_handler(int signum)
{
    UNUSED(signum);
}

/*
 * To see it fail: in signals::unwatch, do not put the disposition back.
 */
TEST(fm32_a_storm_of_signals_loses_no_job_and_leaves_the_disposition)
{
    struct sigaction earlier = {.sa_handler = earlier_handler, .sa_flags = SA_RESTART | SA_NODEFER};
    struct sigaction before, after;
    sigaddset(&earlier.sa_mask, SIGUSR2);
    sigaddset(&earlier.sa_mask, SIGWINCH);
    sigaction(SIGUSR1, &earlier, NULL);
    sigaction(SIGUSR1, NULL, &before); /* as the kernel reports it */
    for (int round = 0; round < 3; round++) {
        struct ns_thrpool_t *pools[2] = {checked_pool(1), checked_pool(2)};
        struct watcher watchers[8];
        struct ns_job_t *jobs[8];
        memset(watchers, 0, sizeof watchers);
        for (int i = 0; i < 8; i++) {
            ns_job_type_t type = (i & 1 ? NS_JOB_THREAD : 0) | (i & 2 ? NS_JOB_PERSIST : 0);
            assert_int_equal(ns_add_signal_job(pools[i / 4], SIGUSR1, type, watch, &watchers[i],
                                               &jobs[i]), NS_SUCCESS);
        }
        for (long n = count_of(10000, 10000); n > 0; n--) {
            kill(getpid(), SIGUSR1);
        }
        for (int i = 0; i < 8; i++) {
            atomic_store(&watchers[i].marked, 1);
        }
        kill(getpid(), SIGUSR1);
        for (int i = 0; i < 8; i++) {
            EVENTUALLY(atomic_load(&watchers[i].saw_mark));
        }
        for (int i = 0; i < 8; i++) {
            assert_true(ns_job_cancel(jobs[i]) <= NS_RUNNING);
        }
        for (int i = 0; i < 2; i++) {
            pool_end(pools[i]);
        }
        heap_check(&the_heap);
        sigaction(SIGUSR1, NULL, &after);
        assert_ptr_equal(after.sa_handler, earlier_handler);
        assert_int_equal(after.sa_flags, before.sa_flags);
        for (int signum = 1; signum < 32; signum++) {
            assert_int_equal(sigismember(&after.sa_mask, signum),
                             sigismember(&before.sa_mask, signum));
        }
    }
    signal(SIGUSR1, SIG_DFL);
}

static void end_on_signal(struct ns_job_t *job)
{
    ns_job_done(job);
}

static void tell_gone(struct ns_job_t *job)
{
    atomic_fetch_add((atomic_int *)ns_job_get_data(job), 1);
}

/* Runs in a child: the first SIGTERM fires a job, the second kills the process. */
static int live_through_one_signal(int disposition)
{
    struct ns_thrpool_config config;
    atomic_int gone = 0;
    struct ns_job_t *job = NULL;
    ns_thrpool_config_init(&config);
    config.log_fct = quiet_log;
    signal(SIGTERM, disposition ? SIG_IGN : SIG_DFL);
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    if (tp == NULL || ns_add_signal_job(tp, SIGTERM, NS_JOB_UNARMED, end_on_signal, &gone, &job) !=
                          NS_SUCCESS ||
        ns_job_set_done_cb(job, tell_gone) != NS_SUCCESS || ns_job_rearm(job) != NS_SUCCESS) {
        return 2;
    }
    kill(getpid(), SIGTERM);
    double end = now_seconds() + LIMIT_SECONDS;
    while (atomic_load(&gone) == 0) {
        if (now_seconds() > end) {
            return 3;
        }
        sched_yield();
    }
    kill(getpid(), SIGTERM); /* delivered before kill returns, or not at all */
    ns_thrpool_destroy(tp);
    return 4;
}

/* To see it fail: in signals::unwatch, do not put the disposition back. */
TEST(fm32_the_second_signal_kills_once_its_last_job_is_gone)
{
    for (int ignored = 0; ignored < 2; ignored++) {
        int status = 0;
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            _exit(live_through_one_signal(ignored));
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        if (ignored) {
            assert_true(WIFEXITED(status));
            assert_int_equal(WEXITSTATUS(status), 4);
        } else {
            assert_true(WIFSIGNALED(status));
            assert_int_equal(WTERMSIG(status), SIGTERM);
        }
    }
}

/*
 * Many timers for the same distant time, which the wheel keeps in one slot until that slot is due.
 * The work of the loop between two beats of a short timer is measured in its thread's CPU time,
 * which a busy machine does not increase. Quick runs have few timers, for two seconds;
 * NS_COUNT=full has a million, for forty, and moving them all at once would take about 30 ms.
 *
 * To see it fail (full only): make MOVES, in timers.rs, ten million.
 */
TEST(fm31_a_timer_keeps_its_time_beside_a_million_that_are_far)
{
    long crowd = count_of(50000, 1000000);
    int whole = crowd >= 1000000;
    struct ns_thrpool_t *tp = pool_of(1);
    struct timeval far = {whole ? 40 : 2, 0};
    struct timeval often = {0, 1000};
    struct pulse pulse = {.period = 0.001};
    atomic_long fired = 0;
    struct ns_job_t *job = NULL;
    double begin = now_seconds();
    for (long i = 0; i < crowd; i++) {
        assert_int_equal(ns_add_timeout_job(tp, &far, NS_JOB_NONE, tally_and_finish, &fired, NULL),
                         NS_SUCCESS);
    }
    loop_passes(tp, 0);
    pulse.last = now_seconds();
    assert_int_equal(ns_add_timeout_job(tp, &often, NS_JOB_PERSIST, beat, &pulse, &job),
                     NS_SUCCESS);
    double until = begin + (whole ? 39 : 1.9);
    /* The beats are the clock: they go on while the slots come up. */
    for (long beats = 0; now_seconds() < until; beats = atomic_load(&pulse.beats)) {
        EVENTUALLY(atomic_load(&pulse.beats) > beats);
    }
    double worst_before = pulse.worst;
    double busiest = pulse.busiest;
    assert_true(now_seconds() > begin + (double)far.tv_sec || atomic_load(&fired) == 0);
    EVENTUALLY(atomic_load(&fired) == crowd);
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    print_message("# %ld timers of %ld s, %ld beats of 1 ms, %.1f ms of work between two at most, the "
                  "worst %.1f ms late, %.1f ms when they fired too\n", crowd, (long)far.tv_sec,
                  atomic_load(&pulse.beats), busiest * 1e3, worst_before * 1e3, pulse.worst * 1e3);
    assert_true(!whole || busiest < 0.015);
    assert_true(worst_before < 1);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    ns_thrpool_destroy(tp);
}

static void stay_and_rearm(struct ns_job_t *job)
{
    stay_in_gate(ns_job_get_data(job));
    ns_job_rearm(job);
}

/* To see it fail: in EventLoop::watch_signal, do not look at what arrived before. */
TEST(fm32_a_signal_that_comes_while_the_callback_runs_fires_after_it)
{
    for (int kind = 0; kind < 2; kind++) {
        struct ns_thrpool_t *tp = checked_pool(2);
        struct gate gate = GATE_INIT;
        struct ns_job_t *job = NULL;
        assert_int_equal(ns_add_signal_job(tp, SIGUSR1,
                                           NS_JOB_THREAD | (kind ? NS_JOB_PERSIST : 0),
                                           kind ? gate_callback : stay_and_rearm, &gate, &job),
                         NS_SUCCESS);
        kill(getpid(), SIGUSR1);
        assert_latch(&gate.begun, 1);
        kill(getpid(), SIGUSR1);
        loop_passes(tp, 1000); /* the loop has seen the signal and found no job to fire */
        latch_add(&gate.leave, 1);
        assert_latch(&gate.begun, 2);
        assert_true(ns_job_cancel(job) <= NS_RUNNING);
        checked_end(tp);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fm14_a_busy_worker_does_not_hold_up_the_loop),
        cmocka_unit_test(fm29_time_out_or_data_but_the_true_one),
        cmocka_unit_test(fm30_times_of_every_kind),
        cmocka_unit_test(fm31_a_timer_keeps_its_time_beside_four_threads_that_add),
        cmocka_unit_test(fm32_a_signal_that_comes_while_the_callback_runs_fires_after_it),
        cmocka_unit_test(fm31_a_timer_keeps_its_time_beside_a_million_that_are_far),
        cmocka_unit_test(fm32_the_second_signal_kills_once_its_last_job_is_gone),
        cmocka_unit_test(fm32_a_storm_of_signals_loses_no_job_and_leaves_the_disposition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
