/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Signals beside other code that sets handlers: what the library's handler does when such code
 * restores it after the last job has gone, and which handlers it calls.
 */
#include "children.h"
#include "signals.h"

/* As in_child_with, in a process group of the child's own. Returns the wait status also of a child
 * that has stopped, which is then continued to its end. */
static int in_child_of_own_group(void (*body)(int), int number)
{
    pid_t child = begin_child();
    if (child == 0) {
        setpgid(0, 0);
        body(number);
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, WUNTRACED), child);
    if (WIFSTOPPED(status)) {
        assert_int_equal(kill(child, SIGCONT), 0);
        assert_exits(end_child(child), 0);
    }
    return status;
}

/* Save the library's handler while a job watches, and restore it when there is no job and no pool
 * any more, as other code may do. */
static void save_ours_and_put_it_back(int signum)
{
    struct sigaction ignore, saved;
    struct ns_thrpool_t *tp = pool_of(1);
    struct probe probe = PROBE(NULL, -1);
    struct ns_job_t *job = probe_signal(tp, signum, NS_JOB_PERSIST, &probe);
    memset(&ignore, 0, sizeof ignore);
    ignore.sa_handler = SIG_IGN;
    assert_int_equal(sigaction(signum, &ignore, &saved), 0);
    probe_cancel(job, &probe);
    pool_end(tp);
    assert_int_equal(sigaction(signum, &saved, NULL), 0);
}

/* Nobody watches: the default action */

static void raise_with_ours_put_back(int signum)
{
    save_ours_and_put_it_back(signum);
    raise(signum);
}

static void raise_plainly(int signum)
{
    raise(signum);
}

TEST(default_action_is_the_kernels_where_nobody_watches)
{
    const int killing[] = {SIGINT, SIGTERM, SIGQUIT, SIGIO, SIGVTALRM, SIGRTMIN + 1,
#ifdef SIGPWR
                           SIGPWR,
#endif
    };
    for (size_t i = 0; i < sizeof killing / sizeof killing[0]; i++) {
        assert_killed_by(in_child_of_own_group(raise_with_ours_put_back, killing[i]), killing[i]);
    }
    const int harmless[] = {SIGCHLD, SIGWINCH, SIGURG, SIGCONT};
    for (size_t i = 0; i < sizeof harmless / sizeof harmless[0]; i++) {
        assert_exits(in_child_of_own_group(raise_with_ours_put_back, harmless[i]), 0);
    }
    /* The same status as without the library: valgrind's programs do not stop. */
    int status = in_child_of_own_group(raise_with_ours_put_back, SIGTSTP);
    assert_int_equal(status, in_child_of_own_group(raise_plainly, SIGTSTP));
}

static void *send_to_process(void *signum)
{
    kill(getpid(), (int)(intptr_t)signum);
    return NULL;
}

/* The signal comes from another thread, which blocks it. */
static void kill_with_ours_put_back(int signum)
{
    pthread_t thread;
    sigset_t all, before;
    save_ours_and_put_it_back(signum);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_create(&thread, NULL, send_to_process, (void *)(intptr_t)signum);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_join(thread, NULL);
    for (;;) {
        pause();
    }
}

TEST(a_thread_that_is_asked_to_end_the_process_does)
{
    assert_killed_by(in_child_of_own_group(kill_with_ours_put_back, SIGTERM), SIGTERM);
}

TEST(an_ignored_signal_is_ignored_where_nobody_watches)
{
    struct sigaction now;
    signal(SIGTERM, SIG_IGN);
    save_ours_and_put_it_back(SIGTERM);
    assert_int_equal(raise(SIGTERM), 0);
    /* And the handler that was restored too late is gone. */
    assert_int_equal(sigaction(SIGTERM, NULL, &now), 0);
    assert_true(now.sa_handler == SIG_IGN);
    signal(SIGTERM, SIG_DFL);
}

/* Nobody watches: a handler */

static atomic_int value;
static sigset_t mask_inside;

static void note_mask(void)
{
    pthread_sigmask(SIG_BLOCK, NULL, &mask_inside);
    atomic_fetch_add(&handled, 1);
}

static void plain(int signum)
{
    UNUSED(signum);
    note_mask();
}

static void with_info(int signum, siginfo_t *info, void *context)
{
    UNUSED(context);
    note_mask();
    atomic_store(&value, info->si_signo == signum ? info->si_value.sival_int : -1);
}

TEST(a_handler_is_called_by_its_own_conventions_where_nobody_watches)
{
    sigset_t outside;
    pthread_sigmask(SIG_BLOCK, NULL, &outside);
    for (int flags = 0; flags < 8; flags++) {
        struct sigaction mine, now;
        memset(&mine, 0, sizeof mine);
        if (flags & 1) {
            mine.sa_sigaction = with_info;
        } else {
            mine.sa_handler = plain;
        }
        mine.sa_flags = (flags & 1 ? SA_SIGINFO : 0) | (flags & 2 ? SA_NODEFER : 0) |
                        (int)(flags & 4 ? SA_RESETHAND : 0);
        sigemptyset(&mine.sa_mask);
        sigaddset(&mine.sa_mask, SIGHUP);
        assert_int_equal(sigaction(SIGUSR1, &mine, NULL), 0);
        save_ours_and_put_it_back(SIGUSR1);
        atomic_store(&handled, 0);
        atomic_store(&value, 0);
        errno = 4711;
        assert_int_equal(sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = 17}), 0);
        assert_int_equal(errno, 4711);
        EVENTUALLY(atomic_load(&handled) == 1); /* at once, but for valgrind */
        EVENTUALLY(atomic_load(&value) == (flags & 1 ? 17 : 0));
#ifndef SANITIZED
        for (int signum = 1; signum <= SIGRTMAX; signum++) {
            int blocked = sigismember(&outside, signum) || signum == SIGHUP ||
                          (signum == SIGUSR1 && !(flags & 2));
            assert_int_equal(sigismember(&mask_inside, signum), blocked);
        }
#endif
        assert_int_equal(sigaction(SIGUSR1, NULL, &now), 0);
        if (flags & 4) {
            assert_true(now.sa_handler == SIG_DFL);
        } else {
            assert_true(now.sa_sigaction == mine.sa_sigaction);
            assert_int_equal(raise(SIGUSR1), 0);
            assert_int_equal(atomic_load(&handled), 2);
        }
        /* The jump has restored the thread's mask. */
        sigset_t after;
        pthread_sigmask(SIG_BLOCK, NULL, &after);
        assert_memory_equal(&after, &outside, sizeof(unsigned long));
    }
    signal(SIGUSR1, SIG_DFL);
}

static sigjmp_buf out;

static void jump_out(int signum)
{
    UNUSED(signum);
    siglongjmp(out, 1);
}

TEST(a_handler_may_jump_out)
{
    signal(SIGUSR1, jump_out);
    for (volatile int i = 0; i < 100; i++) {
        save_ours_and_put_it_back(SIGUSR1);
        if (sigsetjmp(out, 1) == 0) {
            raise(SIGUSR1);
            fail();
        }
    }
    /* The library must not think that a handler is still running. */
    struct ns_thrpool_t *tp = pool_of(1);
    struct probe probe = PROBE(NULL, -1);
    struct ns_job_t *job = probe_signal(tp, SIGUSR1, NS_JOB_PERSIST, &probe);
    assert_int_equal(raise(SIGUSR1), 0);
    assert_latch(&probe.runs, 1);
    probe_cancel(job, &probe);
    pool_end(tp);
    signal(SIGUSR1, SIG_DFL);
}

/* What is there while another job is added */

TEST(what_is_there_for_a_while_is_not_taken_for_the_earlier)
{
    for (int other_pool = 0; other_pool < 2; other_pool++) {
        struct ns_thrpool_t *pools[2] = {pool_of(1), pool_of(1)};
        struct probe probes[2] = {PROBE(NULL, -1), PROBE(NULL, -1)};
        struct ns_job_t *jobs[2];
        struct sigaction saved, now, ignore;
        signal(SIGUSR1, plain);
        jobs[0] = probe_signal(pools[0], SIGUSR1, NS_JOB_PERSIST, &probes[0]);
        memset(&ignore, 0, sizeof ignore);
        ignore.sa_handler = SIG_IGN;
        assert_int_equal(sigaction(SIGUSR1, &ignore, &saved), 0);
        jobs[1] = probe_signal(pools[other_pool], SIGUSR1, NS_JOB_PERSIST, &probes[1]);
        assert_int_equal(raise(SIGUSR1), 0);
        assert_latch(&probes[0].runs, 1);
        assert_latch(&probes[1].runs, 1);
        assert_int_equal(sigaction(SIGUSR1, &saved, NULL), 0);
        probe_cancel(jobs[0], &probes[0]);
        probe_cancel(jobs[1], &probes[1]);
        assert_int_equal(sigaction(SIGUSR1, NULL, &now), 0);
        assert_true(now.sa_handler == plain);
        pool_end(pools[0]);
        pool_end(pools[1]);
    }
    signal(SIGUSR1, SIG_DFL);
}

/* A handler that calls the one that it replaced */

static struct sigaction found;
static atomic_int chained;

static void go_on(int signum, siginfo_t *info, void *context)
{
    atomic_fetch_add(&chained, 1);
    if (found.sa_flags & SA_SIGINFO) {
        found.sa_sigaction(signum, info, context);
    } else if (found.sa_handler != SIG_DFL && found.sa_handler != SIG_IGN) {
        found.sa_handler(signum);
    }
}

/* The same, for handlers that take the number only. */
static void go_on_with_the_number(int signum)
{
    atomic_fetch_add(&chained, 1);
    found.sa_handler(signum);
}

/* Install one of them over the library's. */
static void chain(int signum, int with_number_only)
{
    struct sigaction mine;
    memset(&mine, 0, sizeof mine);
    if (with_number_only) {
        mine.sa_handler = go_on_with_the_number;
    } else {
        mine.sa_sigaction = go_on;
        mine.sa_flags = SA_SIGINFO;
    }
    atomic_store(&chained, 0);
    assert_int_equal(sigaction(signum, &mine, &found), 0);
}

/* Watch with one job, do something meanwhile, and stop. */
static void watch_meanwhile(int signum, void (*meanwhile)(int, int), int arg)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct probe probe = PROBE(NULL, -1);
    struct ns_job_t *job = probe_signal(tp, signum, NS_JOB_PERSIST, &probe);
    assert_int_equal(raise(signum), 0);
    assert_latch(&probe.runs, 1);
    if (meanwhile != NULL) {
        meanwhile(signum, arg);
    }
    probe_cancel(job, &probe);
    pool_end(tp);
}

TEST(a_handler_that_goes_on_to_ours_reaches_the_one_before)
{
    for (int with_number_only = 0; with_number_only < 2; with_number_only++) {
        signal(SIGUSR1, plain);
        watch_meanwhile(SIGUSR1, chain, with_number_only);
        struct sigaction ours = found, now;
        /* And also when later jobs have found it instead of the library's. */
        for (int i = 0; i < 3; i++) {
            atomic_store(&handled, 0);
            atomic_store(&chained, 0);
            assert_int_equal(raise(SIGUSR1), 0);
            assert_int_equal(atomic_load(&chained), 1);
            assert_int_equal(atomic_load(&handled), 1);
            assert_int_equal(sigaction(SIGUSR1, NULL, &now), 0);
            assert_true(now.sa_sigaction != ours.sa_sigaction);
            watch_meanwhile(SIGUSR1, NULL, 0);
        }
        /* And when the library's has been restored over it: each would call the other. */
        assert_int_equal(sigaction(SIGUSR1, &ours, NULL), 0);
        atomic_store(&handled, 0);
        atomic_store(&chained, 0);
        assert_int_equal(raise(SIGUSR1), 0);
        assert_int_equal(atomic_load(&chained), 1);
        assert_int_equal(atomic_load(&handled), 1);
        signal(SIGUSR1, SIG_DFL);
    }
}

static void chain_over_the_default(int with_number_only)
{
    watch_meanwhile(SIGTERM, chain, with_number_only);
    watch_meanwhile(SIGTERM, NULL, 0);
    raise(SIGTERM);
}

TEST(a_handler_that_goes_on_to_ours_reaches_the_default_action)
{
    assert_killed_by(in_child_of_own_group(chain_over_the_default, 0), SIGTERM);
    assert_killed_by(in_child_of_own_group(chain_over_the_default, 1), SIGTERM);
}

/* A storm */

static atomic_int stop_storm;

static void *storm(void *unused)
{
    UNUSED(unused);
    while (!atomic_load(&stop_storm)) {
        kill(getpid(), SIGUSR1);
        kill(getpid(), SIGUSR2);
        raise(SIGUSR1);
    }
    return NULL;
}

static void *watch_and_stop(void *kept)
{
    for (int i = 0; i < scaled(300); i++) {
        struct ns_thrpool_t *tp = i % 3 == 0 ? pool_of(1) : kept;
        struct probe probes[2] = {PROBE(NULL, -1), PROBE(NULL, -1)};
        struct ns_job_t *jobs[2];
        for (int k = 0; k < 2; k++) {
            CHILD_CHECK(ns_add_signal_job(tp, k ? SIGUSR2 : SIGUSR1, NS_JOB_PERSIST | NS_JOB_UNARMED,
                                          probe_run, &probes[k], &jobs[k]) == NS_SUCCESS);
            CHILD_CHECK(ns_job_set_done_cb(jobs[k], probe_gone) == NS_SUCCESS);
            CHILD_CHECK(ns_job_rearm(jobs[k]) == NS_SUCCESS);
        }
        for (int k = 0; k < 2; k++) {
            CHILD_CHECK(latch_reaches(&probes[k].runs, 1));
        }
        if (tp == kept || i % 2) {
            for (int k = 0; k < 2; k++) {
                CHILD_CHECK(ns_job_cancel(jobs[k]) != NS_INVALID_STATE);
                CHILD_CHECK(latch_reaches(&probes[k].disposals, 1));
            }
        }
        if (tp != kept) {
            if (i % 2 == 0) {
                /* The signal is watched until the end. The job that ran last is idle, and must be
                 * finished. */
                ns_thrpool_shutdown(tp);
                CHILD_CHECK(ns_thrpool_wait(tp) == NS_SUCCESS);
                ns_job_cancel(jobs[0]);
                ns_job_cancel(jobs[1]);
            }
            ns_thrpool_destroy(tp);
            CHILD_CHECK(latch_count(&probes[0].disposals) == 1);
            CHILD_CHECK(latch_count(&probes[1].disposals) == 1);
        }
    }
    return NULL;
}

TEST(watching_and_stopping_in_a_storm_ends)
{
    enum { STORMS = 2, WATCHERS = 3 };
    pthread_t storms[STORMS], watchers[WATCHERS];
    struct ns_thrpool_t *pools[WATCHERS];
    struct sigaction now;
    signal(SIGUSR1, plain);
    signal(SIGUSR2, plain);
    atomic_store(&stop_storm, 0);
    for (int i = 0; i < STORMS; i++) {
        pthread_create(&storms[i], NULL, storm, NULL);
    }
    for (int i = 0; i < WATCHERS; i++) {
        pools[i] = pool_of(1);
        pthread_create(&watchers[i], NULL, watch_and_stop, pools[i]);
    }
    for (int i = 0; i < WATCHERS; i++) {
        pthread_join(watchers[i], NULL);
        pool_end(pools[i]);
    }
    atomic_store(&stop_storm, 1);
    for (int i = 0; i < STORMS; i++) {
        pthread_join(storms[i], NULL);
    }
    for (int i = 0; i < 2; i++) {
        int signum = i ? SIGUSR2 : SIGUSR1;
        assert_int_equal(sigaction(signum, NULL, &now), 0);
        assert_true(now.sa_handler == plain);
        signal(signum, SIG_IGN); /* what is still to be delivered */
        signal(signum, SIG_DFL);
    }
}

/* At real-time priority on the one processor that all threads share. */
static void watch_at_real_time_priority(int unused)
{
    UNUSED(unused);
    cpu_set_t one;
    sigset_t sent;
    pthread_t thread;
    double longest = 0;
    struct sched_param priority = {.sched_priority = 1};
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    sched_setaffinity(0, sizeof one, &one);
    signal(SIGUSR1, plain);
    signal(SIGUSR2, plain);
    atomic_store(&stop_storm, 0);
    for (int i = 0; i < 2; i++) {
        pthread_create(&thread, NULL, storm, NULL);
    }
    if (sched_setscheduler(0, SCHED_FIFO, &priority) != 0) {
        _exit(77);
    }
    /* This thread blocks them, so that the others get them and are preempted inside handlers. */
    sigemptyset(&sent);
    sigaddset(&sent, SIGUSR1);
    sigaddset(&sent, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &sent, NULL);
    /* The pool's threads inherit the priority. */
    struct ns_thrpool_t *tp = pool_of(1);
    for (int i = 0; i < scaled(1000); i++) {
        struct probe probe = PROBE(NULL, -1);
        struct ns_job_t *job = probe_signal(tp, SIGUSR1, NS_JOB_PERSIST, &probe);
        /* The others run meanwhile, and are preempted at varying points. */
        loop_passes(tp, 200 + i % 16);
        double begin = now_seconds();
        probe_cancel(job, &probe);
        double took = now_seconds() - begin;
        longest = took > longest ? took : longest;
    }
    print_message("# the longest stop took %.1f ms\n", longest * 1000);
    /* A thread that spun would keep the processor from those it waits for until the kernel's limit
     * ends that, after nearly a second. */
    _exit(longest < 0.5 ? 0 : 1);
}

TEST(stopping_at_real_time_priority_waits_asleep)
{
    int status = in_child_of_own_group(watch_at_real_time_priority, 0);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
        skip();
    }
    assert_exits(status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(default_action_is_the_kernels_where_nobody_watches),
        cmocka_unit_test(a_thread_that_is_asked_to_end_the_process_does),
        cmocka_unit_test(an_ignored_signal_is_ignored_where_nobody_watches),
        cmocka_unit_test(a_handler_is_called_by_its_own_conventions_where_nobody_watches),
        cmocka_unit_test(a_handler_may_jump_out),
        cmocka_unit_test(what_is_there_for_a_while_is_not_taken_for_the_earlier),
        cmocka_unit_test(a_handler_that_goes_on_to_ours_reaches_the_one_before),
        cmocka_unit_test(a_handler_that_goes_on_to_ours_reaches_the_default_action),
        cmocka_unit_test(stopping_at_real_time_priority_waits_asleep),
        cmocka_unit_test(watching_and_stopping_in_a_storm_ends),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
