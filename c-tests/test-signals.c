/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Signal jobs: they fire, and afterwards the process's signals are as they were. */
#include "children.h"
#include "signals.h"

#include <dlfcn.h>

/* The signal may be delivered after this returns, so wait for its effect. raise delivers at once.
 * */
static void send_to_process(int signum)
{
    assert_int_equal(kill(getpid(), signum), 0);
}

static void *wait_for_the_end(void *arg)
{
    struct gate *gate = arg;
    stay_in_gate(gate);
    return NULL;
}

TEST(fires_for_raise_kill_and_pthread_kill)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct gate gate = GATE_INIT;
    pthread_t thread;
    pthread_create(&thread, NULL, wait_for_the_end, &gate);
    for (int threaded = 0; threaded < 2; threaded++) {
        ns_job_type_t type = NS_JOB_PERSIST | (threaded ? NS_JOB_THREAD : 0);
        struct probe probe = PROBE(NULL, -1);
        struct ns_job_t *job = probe_signal(tp, SIGUSR1, type, &probe);
        assert_int_equal(ns_job_get_type(job), type | NS_JOB_SIGNAL);
        assert_int_equal(raise(SIGUSR1), 0);
        assert_latch(&probe.runs, 1);
        assert_int_equal(atomic_load(&probe.output), NS_JOB_SIGNAL);
        send_to_process(SIGUSR1);
        assert_latch(&probe.runs, 2);
        assert_int_equal(pthread_kill(thread, SIGUSR1), 0);
        assert_latch(&probe.runs, 3);
        /* The callback ran in the pool's thread, not in the one that the kernel picked. */
        assert_int_not_equal(atomic_load(&probe.thread), (int)gettid());
        loop_passes(tp, 1000);
        assert_int_equal(latch_count(&probe.runs), 3);
        probe_cancel(job, &probe);
    }
    latch_add(&gate.leave, 1);
    pthread_join(thread, NULL);
    pool_end(tp);
}

TEST(several_jobs_in_two_pools_all_fire)
{
    struct ns_thrpool_t *pools[2] = {pool_of(1), pool_of(2)};
    struct probe probes[6];
    struct ns_job_t *jobs[6];
    for (int i = 0; i < 6; i++) {
        probes[i] = (struct probe)PROBE(NULL, -1);
        jobs[i] = probe_signal(pools[i % 2], SIGUSR1, i / 2 ? 0 : NS_JOB_THREAD, &probes[i]);
    }
    send_to_process(SIGUSR1);
    for (int i = 0; i < 6; i++) {
        assert_latch(&probes[i].runs, 1);
    }
    /* The first pool's jobs are gone; the second pool's still fire. */
    for (int i = 0; i < 6; i++) {
        assert_int_equal(ns_job_wait(jobs[i]), NS_SUCCESS);
    }
    for (int i = 0; i < 6; i += 2) {
        probe_cancel(jobs[i], &probes[i]);
    }
    pool_end(pools[0]);
    for (int i = 1; i < 6; i += 2) {
        assert_int_equal(ns_job_rearm(jobs[i]), NS_SUCCESS);
    }
    send_to_process(SIGUSR1);
    for (int i = 1; i < 6; i += 2) {
        assert_latch(&probes[i].runs, 2);
        probe_cancel(jobs[i], &probes[i]);
    }
    pool_end(pools[1]);
}

TEST(jobs_for_different_signals_fire_each_for_its_own)
{
    struct ns_thrpool_t *tp = pool_of(1);
    static const int signals[] = {SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGCHLD, SIGWINCH};
    enum { COUNT = sizeof(signals) / sizeof(signals[0]) };
    struct probe probes[COUNT];
    struct ns_job_t *jobs[COUNT];
    for (int i = 0; i < COUNT; i++) {
        probes[i] = (struct probe)PROBE(NULL, -1);
        jobs[i] = probe_signal(tp, signals[i], NS_JOB_PERSIST, &probes[i]);
    }
    for (int i = 0; i < COUNT; i++) {
        send_to_process(signals[i]);
        assert_latch(&probes[i].runs, 1);
    }
    loop_passes(tp, 1000);
    for (int i = 0; i < COUNT; i++) {
        assert_int_equal(latch_count(&probes[i].runs), 1);
        probe_cancel(jobs[i], &probes[i]);
    }
    pool_end(tp);
}

static atomic_int sent, seen;

static void see_what_was_sent(struct ns_job_t *job)
{
    UNUSED(job);
    atomic_store(&seen, atomic_load(&sent));
}

TEST(fm32_burst_coalesces_and_its_last_signal_is_not_lost)
{
    struct ns_thrpool_t *pools[2] = {pool_of(1), pool_of(1)};
    int count = scaled(10000);
    atomic_store(&sent, 0);
    struct probe persist = PROBE(see_what_was_sent, -1), other = PROBE(NULL, -1);
    struct ns_job_t *job = probe_signal(pools[0], SIGUSR2, NS_JOB_PERSIST, &persist);
    struct ns_job_t *other_job =
        probe_signal(pools[1], SIGUSR2, NS_JOB_PERSIST | NS_JOB_THREAD, &other);
    for (int i = 1; i <= count; i++) {
        atomic_store(&sent, i);
        assert_int_equal(raise(SIGUSR2), 0);
    }
    EVENTUALLY(atomic_load(&seen) == count);
    assert_latch(&other.runs, 1);
    loop_passes(pools[0], 1000);
    assert_true(latch_count(&persist.runs) <= count);
    assert_true(latch_count(&other.runs) <= count);
    print_message("# %d signals: %ld runs and %ld runs\n", count, latch_count(&persist.runs),
                  latch_count(&other.runs));
    probe_cancel(job, &persist);
    probe_cancel(other_job, &other);
    pool_end(pools[0]);
    pool_end(pools[1]);
}

TEST(without_persist_it_fires_once_and_what_came_since_fires_on_rearm)
{
    struct ns_thrpool_t *tp = pool_of(1);
    for (int threaded = 0; threaded < 2; threaded++) {
        struct probe probe = PROBE(NULL, -1);
        struct ns_job_t *job =
            probe_signal(tp, SIGUSR1, threaded ? NS_JOB_THREAD : 0, &probe);
        send_to_process(SIGUSR1);
        assert_latch(&probe.runs, 1);
        assert_int_equal(ns_job_wait(job), NS_SUCCESS);
        /* Still handled: the default action would end this process. */
        assert_int_equal(raise(SIGUSR1), 0);
        assert_int_equal(raise(SIGUSR1), 0);
        loop_passes(tp, 1000);
        assert_int_equal(latch_count(&probe.runs), 1);
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        assert_latch(&probe.runs, 2);
        assert_int_equal(ns_job_wait(job), NS_SUCCESS);
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        loop_passes(tp, 1000);
        assert_int_equal(latch_count(&probe.runs), 2);
        probe_cancel(job, &probe);
    }
    pool_end(tp);
}

TEST(what_came_before_the_job_does_not_fire_it)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct probe first = PROBE(NULL, -1), second = PROBE(NULL, -1);
    struct ns_job_t *first_job = probe_signal(tp, SIGUSR1, 0, &first);
    send_to_process(SIGUSR1);
    assert_latch(&first.runs, 1);
    struct ns_job_t *second_job = probe_signal(tp, SIGUSR1, 0, &second);
    loop_passes(tp, 1000);
    assert_int_equal(latch_count(&second.runs), 0);
    probe_cancel(first_job, &first);
    probe_cancel(second_job, &second);
    pool_end(tp);
}

/* The disposition that was there before */

static void count_handled_with_info(int signum, siginfo_t *info, void *context)
{
    UNUSED(info);
    UNUSED(context);
    count_handled(signum);
}

/* Watch a signal with one job, send one, and stop watching. */
static void watch_once(struct ns_thrpool_t *tp, int signum)
{
    struct probe probe = PROBE(NULL, -1);
    struct ns_job_t *job = probe_signal(tp, signum, 0, &probe);
    send_to_process(signum);
    assert_latch(&probe.runs, 1);
    probe_cancel(job, &probe);
}

/* Whether two masks hold the same signals. */
static int same_mask(const sigset_t *a, const sigset_t *b)
{
    for (int signum = 1; signum <= SIGRTMAX; signum++) {
        if (sigismember(a, signum) != sigismember(b, signum)) {
            return 0;
        }
    }
    return 1;
}

TEST(handler_that_was_there_does_not_run_meanwhile_and_comes_back)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct sigaction mine, original, there, back;
    memset(&mine, 0, sizeof(mine));
    mine.sa_sigaction = count_handled_with_info;
    mine.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
    sigemptyset(&mine.sa_mask);
    sigaddset(&mine.sa_mask, SIGUSR2);
    sigaddset(&mine.sa_mask, SIGHUP);
    assert_int_equal(sigaction(SIGUSR1, &mine, &original), 0);
    assert_int_equal(sigaction(SIGUSR1, NULL, &there), 0);
    atomic_store(&handled, 0);
    /* Twice: a later job installs the library's handler again. */
    for (int i = 0; i < 2; i++) {
        watch_once(tp, SIGUSR1);
        assert_int_equal(atomic_load(&handled), i);
        assert_int_equal(sigaction(SIGUSR1, NULL, &back), 0);
        assert_true(back.sa_sigaction == count_handled_with_info);
        assert_int_equal(back.sa_flags, there.sa_flags);
        assert_true(same_mask(&back.sa_mask, &there.sa_mask));
        send_to_process(SIGUSR1);
        EVENTUALLY(atomic_load(&handled) == i + 1);
    }
    assert_int_equal(sigaction(SIGUSR1, &original, NULL), 0);
    pool_end(tp);
}

TEST(ignored_signal_is_ignored_again)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct sigaction back;
    signal(SIGHUP, SIG_IGN);
    watch_once(tp, SIGHUP);
    assert_int_equal(sigaction(SIGHUP, NULL, &back), 0);
    assert_true(back.sa_handler == SIG_IGN);
    send_to_process(SIGHUP);
    signal(SIGHUP, SIG_DFL);
    pool_end(tp);
}

TEST(disposition_stays_ours_until_the_last_job_of_any_pool_is_gone)
{
    struct ns_thrpool_t *pools[2] = {pool_of(1), pool_of(1)};
    struct probe probes[2] = {PROBE(NULL, -1), PROBE(NULL, -1)};
    struct ns_job_t *jobs[2];
    struct sigaction now;
    for (int i = 0; i < 2; i++) {
        jobs[i] = probe_signal(pools[i], SIGUSR1, NS_JOB_PERSIST, &probes[i]);
    }
    probe_cancel(jobs[0], &probes[0]);
    assert_int_equal(sigaction(SIGUSR1, NULL, &now), 0);
    assert_true(now.sa_handler != SIG_DFL);
    pool_end(pools[0]);
    send_to_process(SIGUSR1);
    assert_latch(&probes[1].runs, 1);
    /* Rearm it, so that destroy disposes of it. */
    loop_passes(pools[1], 0);
    ns_thrpool_destroy(pools[1]);
    assert_int_equal(latch_count(&probes[1].disposals), 1);
    assert_int_equal(sigaction(SIGUSR1, NULL, &now), 0);
    assert_true(now.sa_handler == SIG_DFL);
}

/* Runs in a child: watch SIGTERM, get one, stop watching, get another. */
static void take_two_terms(void *unused)
{
    UNUSED(unused);
    struct ns_thrpool_t *tp = pool_of(1);
    watch_once(tp, SIGTERM);
    raise(SIGTERM);
}

TEST(fm32_second_term_kills_when_nobody_watches_any_more)
{
    assert_killed_by(in_child(take_two_terms, NULL), SIGTERM);
}

TEST(handler_that_somebody_else_set_meanwhile_is_left_alone)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct probe probe = PROBE(NULL, -1);
    struct ns_job_t *job = probe_signal(tp, SIGUSR1, NS_JOB_PERSIST, &probe);
    send_to_process(SIGUSR1);
    assert_latch(&probe.runs, 1);
    signal(SIGUSR1, count_handled);
    probe_cancel(job, &probe);
    struct sigaction now;
    assert_int_equal(sigaction(SIGUSR1, NULL, &now), 0);
    assert_true(now.sa_handler == count_handled);
    /* A later job fires all the same, and restores that handler when it ends. */
    watch_once(tp, SIGUSR1);
    assert_int_equal(sigaction(SIGUSR1, NULL, &now), 0);
    assert_true(now.sa_handler == count_handled);
    signal(SIGUSR1, SIG_DFL);
    pool_end(tp);
}

TEST(numbers_that_cannot_be_watched_are_refused)
{
    struct ns_thrpool_t *tp = pool_of(1);
    static const int32_t numbers[] = {
        SIGKILL, SIGSTOP, SIGILL, SIGFPE, SIGSEGV, SIGBUS, SIGTRAP, SIGSYS, 32, 33, 0, -1, 65, 1000,
        INT32_MIN, INT32_MAX,
    };
    struct probe probe = PROBE(NULL, -1);
    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        struct sigaction before, after;
        int known = sigaction(numbers[i], NULL, &before);
        struct ns_job_t *job = (struct ns_job_t *)&probe;
        assert_int_equal(ns_add_signal_job(tp, numbers[i], 0, probe_run, &probe, &job),
                         NS_INVALID_REQUEST);
        assert_null(job);
        if (known == 0) {
            assert_int_equal(sigaction(numbers[i], NULL, &after), 0);
            assert_true(before.sa_handler == after.sa_handler);
        }
    }
    pool_end(tp);
}

TEST(real_time_signals_are_watched_too)
{
    struct ns_thrpool_t *tp = pool_of(1);
    watch_once(tp, SIGRTMIN);
    watch_once(tp, SIGRTMAX - 1); /* valgrind keeps the last one for itself */
    pool_end(tp);
}

/* Delivery */

TEST(fires_when_every_other_thread_has_it_blocked)
{
    sigset_t all, before;
    sigfillset(&all);
    assert_int_equal(pthread_sigmask(SIG_SETMASK, &all, &before), 0);
    struct ns_thrpool_t *tp = pool_of(2);
    for (int i = 0; i < 3; i++) {
        watch_once(tp, SIGUSR1);
        watch_once(tp, SIGTERM);
    }
    pool_end(tp);
    assert_int_equal(pthread_sigmask(SIG_SETMASK, &before, NULL), 0);
}

static struct latch may_stop = LATCH_INIT;
static atomic_int lost_errno;

static void *keep_errno(void *arg)
{
    UNUSED(arg);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    errno = 4711;
    while (latch_count(&may_stop) == 0) {
        if (errno != 4711) {
            atomic_fetch_add(&lost_errno, 1);
            errno = 4711;
        }
    }
    return NULL;
}

TEST(handler_keeps_errno)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct probe probe = PROBE(NULL, -1);
    struct ns_job_t *job = probe_signal(tp, SIGUSR1, NS_JOB_PERSIST, &probe);
    pthread_t thread;
    pthread_create(&thread, NULL, keep_errno, NULL);
    for (int i = 0; i < scaled(2000); i++) {
        pthread_kill(thread, SIGUSR1);
    }
    assert_latch(&probe.runs, 1);
    latch_add(&may_stop, 1);
    pthread_join(thread, NULL);
    assert_int_equal(atomic_load(&lost_errno), 0);
    probe_cancel(job, &probe);
    pool_end(tp);
}

static void *send_often(void *arg)
{
    const pthread_t *to = arg;
    while (latch_count(&may_stop) == 0) {
        pthread_kill(*to, SIGWINCH);
        sched_yield();
    }
    return NULL;
}

TEST(interrupting_handler_cuts_no_function_short)
{
    struct sigaction mine, original;
    memset(&mine, 0, sizeof(mine));
    mine.sa_handler = count_handled; /* without SA_RESTART */
    assert_int_equal(sigaction(SIGWINCH, &mine, &original), 0);
    may_stop.count = 0;
    pthread_t self = pthread_self(), sender;
    pthread_create(&sender, NULL, send_often, &self);
    for (int i = 0; i < 10; i++) {
        struct ns_thrpool_t *tp = pool_of(2);
        struct probe probe = PROBE(NULL, -1);
        struct timeval tv = {0, 10000}, limit = {LIMIT_SECONDS, 0};
        struct ns_job_t *job = NULL;
        assert_int_equal(ns_add_timeout_job(tp, &tv, NS_JOB_UNARMED, probe_run, &probe, &job),
                         NS_SUCCESS);
        probe_arm(job);
        assert_int_equal(ns_job_wait(job), NS_SUCCESS);
        assert_int_equal(latch_count(&probe.runs), 1);
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        assert_int_equal(ns_job_timedwait(job, &limit), NS_SUCCESS);
        assert_int_equal(latch_count(&probe.runs), 2);
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        double begin = now_seconds();
        struct timeval short_limit = {0, 5000};
        ns_result_t result = ns_job_timedwait(job, &short_limit);
        assert_true(result == NS_SUCCESS || now_seconds() - begin >= 0.005);
        ns_thrpool_shutdown(tp);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        ns_job_cancel(job);
        ns_thrpool_destroy(tp);
        assert_int_equal(latch_count(&probe.disposals), 1);
    }
    latch_add(&may_stop, 1);
    pthread_join(sender, NULL);
    assert_true(atomic_load(&handled) > 0);
    assert_int_equal(sigaction(SIGWINCH, &original, NULL), 0);
}

TEST(watched_signals_stay_caught_after_the_wait_until_destroy)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct probe probe = PROBE(NULL, -1);
    probe_signal(tp, SIGUSR1, NS_JOB_PERSIST, &probe);
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(raise(SIGUSR1), 0);
    }
    ns_thrpool_destroy(tp);
    assert_int_equal(latch_count(&probe.runs), 0);
    assert_int_equal(latch_count(&probe.disposals), 1);
}

TEST(an_unarmed_job_catches_its_signal_and_fires_when_armed)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct probe probe = PROBE(NULL, -1);
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_signal_job(tp, SIGUSR1, NS_JOB_UNARMED, probe_run, &probe, &job),
                     NS_SUCCESS);
    assert_int_equal(raise(SIGUSR1), 0);
    loop_passes(tp, 1000);
    assert_int_equal(latch_count(&probe.runs), 0);
    probe_arm(job);
    assert_latch(&probe.runs, 1);
    probe_cancel(job, &probe);
    pool_end(tp);
}

TEST(a_handler_set_while_a_job_watches_gives_way_to_a_second_job)
{
    for (int other_pool = 0; other_pool < 2; other_pool++) {
        struct ns_thrpool_t *pools[2] = {pool_of(1), pool_of(1)};
        struct probe first = PROBE(NULL, -1), second = PROBE(NULL, -1);
        struct sigaction now;
        struct ns_job_t *first_job = probe_signal(pools[0], SIGUSR1, NS_JOB_PERSIST, &first);
        atomic_store(&handled, 0);
        signal(SIGUSR1, count_handled);
        struct ns_job_t *second_job =
            probe_signal(pools[other_pool], SIGUSR1, NS_JOB_PERSIST, &second);
        assert_int_equal(raise(SIGUSR1), 0);
        assert_latch(&first.runs, 1);
        assert_latch(&second.runs, 1);
        assert_int_equal(atomic_load(&handled), 0);
        /* With one of them left, the library's handler is still installed. With none, the handler
         * from before the first is back. */
        probe_cancel(first_job, &first);
        assert_int_equal(raise(SIGUSR1), 0);
        assert_latch(&second.runs, 2);
        assert_int_equal(atomic_load(&handled), 0);
        probe_cancel(second_job, &second);
        assert_int_equal(sigaction(SIGUSR1, NULL, &now), 0);
        assert_true(now.sa_handler == SIG_DFL);
        pool_end(pools[0]);
        pool_end(pools[1]);
    }
}

#ifndef SANITIZED

/* A signal that comes right after one of the library's calls of sigaction, in this thread. */
static _Thread_local struct {
    int signum;
    int behind; /* which call, from 1 */
    int calls;
    int changed; /* whether that call changed the disposition */
} strike;

int sigaction(int signum, const struct sigaction *new, struct sigaction *old)
{
    static int (*_Atomic real)(int, const struct sigaction *, struct sigaction *);
    if (real == NULL) {
        /* ISO C knows no pointer to a function from dlsym. */
        int (*found)(int, const struct sigaction *, struct sigaction *);
        *(void **)&found = dlsym(RTLD_NEXT, "sigaction");
        real = found;
    }
    int result = real(signum, new, old);
    if (strike.signum == signum && ++strike.calls == strike.behind) {
        strike.changed = new != NULL;
        raise(signum);
    }
    return result;
}

/* Add a job for a signal, and have the signal come right after the n-th call of sigaction. Returns
 * 0 if there are fewer calls. */
static int add_under_strike(struct ns_thrpool_t *tp, int signum, int n)
{
    struct probe probe = PROBE(NULL, -1);
    struct ns_job_t *job = NULL;
    atomic_store(&handled, 0);
    strike.calls = strike.changed = 0;
    strike.behind = n;
    strike.signum = signum;
    ns_result_t result = ns_add_signal_job(tp, signum, NS_JOB_PERSIST | NS_JOB_UNARMED, probe_run,
                                           &probe, &job);
    strike.signum = 0;
    assert_int_equal(result, NS_SUCCESS);
    probe_arm(job);
    int struck = strike.calls >= n;
    if (struck && strike.changed) {
        assert_latch(&probe.runs, 1);
        assert_int_equal(atomic_load(&handled), 0);
    } else if (struck) {
        /* Before the disposition changes, the earlier handler gets the signal: one of the two has
         * it. */
        EVENTUALLY(atomic_load(&handled) + latch_count(&probe.runs) > 0);
    }
    probe_cancel(job, &probe);
    return struck;
}

TEST(a_signal_in_the_middle_of_the_add_is_not_lost)
{
    struct ns_thrpool_t *pools[2] = {pool_of(1), pool_of(1)};
    int struck[3] = {0, 0, 0};
    for (int n = 1; n <= 10; n++) {
        /* Each signal is watched for the first time, then again, then by a second pool too. */
        int signum = SIGRTMIN + 2 + n;
        struct probe other = PROBE(NULL, -1);
        signal(signum, count_handled);
        struck[0] += add_under_strike(pools[0], signum, n);
        struck[1] += add_under_strike(pools[0], signum, n);
        struct ns_job_t *other_job = probe_signal(pools[1], signum, NS_JOB_PERSIST, &other);
        atomic_store(&handled, 0);
        struct probe probe = PROBE(NULL, -1);
        struct ns_job_t *job = NULL;
        strike.calls = 0;
        strike.behind = n;
        strike.signum = signum;
        ns_result_t result = ns_add_signal_job(pools[0], signum, NS_JOB_UNARMED, probe_run, &probe,
                                               &job);
        strike.signum = 0;
        assert_int_equal(result, NS_SUCCESS);
        probe_arm(job);
        if (strike.calls >= n) {
            struck[2]++;
            assert_latch(&other.runs, 1);
            assert_int_equal(atomic_load(&handled), 0);
        }
        probe_cancel(job, &probe);
        probe_cancel(other_job, &other);
        assert_int_equal(raise(signum), 0);
        assert_int_equal(atomic_load(&handled), 1);
        signal(signum, SIG_DFL);
    }
    print_message("# a signal behind %d, %d and %d calls\n", struck[0], struck[1], struck[2]);
    assert_true(struck[0] > 0 && struck[1] > 0);
    assert_true(struck[0] < 10 && struck[1] < 10 && struck[2] < 10);
    pool_end(pools[0]);
    pool_end(pools[1]);
}

#endif

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fires_for_raise_kill_and_pthread_kill),
        cmocka_unit_test(several_jobs_in_two_pools_all_fire),
        cmocka_unit_test(jobs_for_different_signals_fire_each_for_its_own),
        cmocka_unit_test(fm32_burst_coalesces_and_its_last_signal_is_not_lost),
        cmocka_unit_test(without_persist_it_fires_once_and_what_came_since_fires_on_rearm),
        cmocka_unit_test(what_came_before_the_job_does_not_fire_it),
        cmocka_unit_test(handler_that_was_there_does_not_run_meanwhile_and_comes_back),
        cmocka_unit_test(ignored_signal_is_ignored_again),
        cmocka_unit_test(disposition_stays_ours_until_the_last_job_of_any_pool_is_gone),
        cmocka_unit_test(fm32_second_term_kills_when_nobody_watches_any_more),
        cmocka_unit_test(handler_that_somebody_else_set_meanwhile_is_left_alone),
        cmocka_unit_test(numbers_that_cannot_be_watched_are_refused),
        cmocka_unit_test(real_time_signals_are_watched_too),
        cmocka_unit_test(fires_when_every_other_thread_has_it_blocked),
        cmocka_unit_test(handler_keeps_errno),
        cmocka_unit_test(interrupting_handler_cuts_no_function_short),
        cmocka_unit_test(watched_signals_stay_caught_after_the_wait_until_destroy),
        cmocka_unit_test(an_unarmed_job_catches_its_signal_and_fires_when_armed),
        cmocka_unit_test(a_handler_set_while_a_job_watches_gives_way_to_a_second_job),
#ifndef SANITIZED
        cmocka_unit_test(a_signal_in_the_middle_of_the_add_is_not_lost),
#endif
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
