/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The pool's own descriptors: no job's, no standard streams, and closed behind its back by who closes
 * all that it does not know.
 */
#include "harness.h"

#include <sys/syscall.h>

/* Lines of LOG_ERR and worse; whether one named what. */
static atomic_int lines, timer_lines;
static atomic_int own_named;

static void listen_to_log(int priority, const char *format, va_list args)
{
    char text[1024];
    vsnprintf(text, sizeof text, format, args);
    if (priority <= LOG_ERR) {
        atomic_fetch_add(&lines, 1);
        atomic_fetch_add(&timer_lines, strstr(text, "timerfd fails") != NULL);
    }
    if (strstr(text, "own descriptors") != NULL) {
        atomic_fetch_add(&own_named, 1);
    }
}

#define MOST 16

static struct {
    struct ns_thrpool_t *tp;
    int count;
    int fds[MOST];
} pool;

static char open_before[1024];

static void note_open(void)
{
    for (int fd = 0; fd < 1024; fd++) {
        open_before[fd] = (char)fd_is_open(fd);
    }
}

static void find_own(void)
{
    pool.count = 0;
    for (int fd = 0; fd < 1024; fd++) {
        if (fd_is_open(fd) && !open_before[fd]) {
            assert_true(pool.count < MOST);
            pool.fds[pool.count++] = fd;
        }
    }
}

static void begin(void)
{
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.log_fct = listen_to_log;
    note_open();
    pool.tp = ns_thrpool_new(&config);
    assert_non_null(pool.tp);
    find_own();
    /* The pipe and the poller at least. */
    assert_true(pool.count >= 3);
    atomic_store(&lines, 0);
    atomic_store(&timer_lines, 0);
}

static void runs_of_each_kind(void)
{
    struct latch ran = LATCH_INIT;
    struct probe probe = PROBE(finish_job, -1);
    int ends[2];
    struct timeval soon = {0, 1000};
    struct ns_job_t *jobs[3];
    assert_int_equal(ns_add_job(pool.tp, NS_JOB_NONE, count_callback, &ran, &jobs[0]), NS_SUCCESS);
    assert_latch(&ran, 1);
    assert_int_equal(ns_add_job(pool.tp, NS_JOB_THREAD, count_callback, &ran, &jobs[1]),
                     NS_SUCCESS);
    assert_latch(&ran, 2);
    assert_int_equal(ns_add_timeout_job(pool.tp, &soon, NS_JOB_NONE, count_callback, &ran,
                                        &jobs[2]), NS_SUCCESS);
    assert_latch(&ran, 3);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ns_job_wait(jobs[i]), NS_SUCCESS);
        assert_int_equal(ns_job_done(jobs[i]), NS_SUCCESS);
    }
    socket_pair(ends);
    probe.fd = ends[0];
    probe_fd(pool.tp, NS_JOB_READ, 0, &probe);
    loop_passes(pool.tp, 0);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_latch(&probe.disposals, 1);
    close(ends[1]);
}

static void refused_as_descriptors_of_jobs(void)
{
    for (int i = 0; i < pool.count; i++) {
        struct ns_job_t *job = NULL;
        int named = atomic_load(&own_named);
        assert_int_equal(ns_add_fd_job(pool.tp, pool.fds[i], NS_JOB_READ | NS_JOB_PRESERVE_FD,
                                       count_callback, NULL, &job), NS_INVALID_REQUEST);
        assert_null(job);
        assert_int_equal(atomic_load(&own_named), named + 1);
        assert_true(fd_is_open(pool.fds[i]));
    }
}

TEST(a_descriptor_of_the_pools_own_is_refused)
{
    begin();
    refused_as_descriptors_of_jobs();
    runs_of_each_kind();
    /* The poller is made anew, for a registration that outlived its number. */
    int ends[2];
    socket_pair(ends);
    struct probe probe = PROBE(NULL, ends[0]);
    struct ns_job_t *job = probe_fd(pool.tp, NS_JOB_READ | NS_JOB_PRESERVE_FD, 0, &probe);
    loop_passes(pool.tp, 0);
    int copy = dup(ends[0]);
    close(ends[0]);
    assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
    assert_latch(&probe.disposals, 1);
    assert_int_equal(write(ends[1], "x", 1), 1);
    loop_passes(pool.tp, 1000);
    loop_passes(pool.tp, 0);
    close(copy);
    close(ends[1]);
    int before[MOST], count = pool.count;
    memcpy(before, pool.fds, sizeof before);
    find_own();
    refused_as_descriptors_of_jobs();
    /* A number that it gave up is like any other. */
    for (int i = 0; i < count; i++) {
        if (!fd_is_open(before[i])) {
            int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
            struct probe ready = PROBE(finish_job, file);
            probe_fd(pool.tp, NS_JOB_READ, 0, &ready);
            assert_latch(&ready.disposals, 1);
        }
    }
    runs_of_each_kind();
    pool_end(pool.tp);
}

TEST(its_numbers_are_three_and_up)
{
    for (int closed = 1; closed < 8; closed++) {
        int saved[3];
        int low_taken = 0;
        for (int fd = 0; fd < 3; fd++) {
            saved[fd] = fcntl(fd, F_DUPFD_CLOEXEC, 100);
            if (closed >> fd & 1) {
                close(fd);
            }
        }
        struct ns_thrpool_t *tp = pool_of(1);
        for (int fd = 0; fd < 3; fd++) {
            low_taken += (closed >> fd & 1) && fd_is_open(fd);
        }
        for (int fd = 0; fd < 3; fd++) {
            dup2(saved[fd], fd);
            close(saved[fd]);
        }
        assert_int_equal(low_taken, 0);
        loop_passes(tp, 0);
        pool_end(tp);
    }
}

static void close_own(int which)
{
    for (int i = 0; i < pool.count; i++) {
        if (which < 0 || which == i) {
            /* As the system's close_range is, unseen by ThreadSanitizer: the race is what is tested. */
            syscall(SYS_close, pool.fds[i]);
        }
    }
}

/* All of them, as closefrom(3) does, or one; the loop sleeps then. */
TEST(closed_behind_its_back_they_are_made_anew)
{
    int before = count_fds();
    for (int which = -1; which < 8; which++) {
        begin();
        if (which >= pool.count) {
            pool_end(pool.tp);
            break;
        }
        int ends[2];
        socket_pair(ends);
        struct probe kept = PROBE(finish_job, ends[0]);
        probe_fd(pool.tp, NS_JOB_READ, 0, &kept);
        runs_of_each_kind();
        loop_passes(pool.tp, 1000);
        close_own(which);
        if (which == 0) {
            /* The reading end alone: its writer gets SIGPIPE, which this test ignores. */
            signal(SIGPIPE, SIG_IGN);
        }
        runs_of_each_kind();
        /* A timer that cannot be set is a line of its own, if the loop comes to that first. */
        assert_true(atomic_load(&timer_lines) <= 1);
        assert_true(atomic_load(&lines) <= 2);
        if (which < 0) {
            assert_int_equal(atomic_load(&lines) - atomic_load(&timer_lines), 1);
        }
        /* What was armed before is armed still. */
        assert_int_equal(write(ends[1], "x", 1), 1);
        assert_latch(&kept.disposals, 1);
        close(ends[1]);
        pool_end(pool.tp);
        /* What a poller has that was closed itself stays open: nobody can tell whether it is its own
         * still. */
        assert_true(count_fds() == before || (which >= 0 && count_fds() == before + pool.count - 3));
        before = count_fds();
    }
}

/* Nothing is asked of the pool until it is destroyed. */
TEST(a_pool_without_descriptors_is_destroyed)
{
    int before = count_fds();
    for (int quiet = 0; quiet < 2; quiet++) {
        begin();
        loop_passes(pool.tp, 1000);
        if (quiet) {
            ns_thrpool_shutdown(pool.tp);
            assert_int_equal(ns_thrpool_wait(pool.tp), NS_SUCCESS);
        }
        close_own(-1);
        ns_thrpool_destroy(pool.tp);
        assert_int_equal(count_fds(), before);
    }
}

/* The numbers stand for files of the application's by then: those are not closed. */
TEST(numbers_that_are_somebody_elses_by_now_stay_open)
{
    int before = count_fds();
    begin();
    /* In the loop, which is to look at nothing until all of it has happened. */
    struct gate gate = GATE_INIT;
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_job(pool.tp, NS_JOB_NONE, gate_callback, &gate, &job), NS_SUCCESS);
    assert_latch(&gate.begun, 1);
    int own[MOST], count = pool.count;
    memcpy(own, pool.fds, sizeof own);
    int file = open("/dev/null", O_RDWR | O_CLOEXEC);
    for (int i = 0; i < count; i++) {
        assert_int_equal(dup2(file, own[i]), own[i]);
    }
    latch_add(&gate.leave, 1);
    assert_int_equal(ns_job_wait(job), NS_SUCCESS);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    runs_of_each_kind();
    assert_int_equal(atomic_load(&lines), 1);
    pool_end(pool.tp);
    for (int i = 0; i < count; i++) {
        assert_true(fd_is_open(own[i]));
        close(own[i]);
    }
    close(file);
    assert_int_equal(count_fds(), before);
}

static atomic_int signals;

static void on_signal(int signum)
{
    UNUSED(signum);
    atomic_fetch_add(&signals, 1);
}

/* The signal that is borrowed to rouse the loop is one that nobody uses, and is given back. */
TEST(dispositions_are_what_they_were)
{
    struct sigaction action = {.sa_handler = on_signal}, now;
    static struct sigaction before[128];
    sigaction(SIGURG, &action, NULL);
    for (int signum = 1; signum <= SIGRTMAX; signum++) {
        sigaction(signum, NULL, &before[signum]);
    }
    begin();
    loop_passes(pool.tp, 1000);
    close_own(-1);
    runs_of_each_kind();
    pool_end(pool.tp);
    assert_int_equal(atomic_load(&signals), 0);
    for (int signum = 1; signum <= SIGRTMAX; signum++) {
        if (sigaction(signum, NULL, &now) == 0) {
            assert_true(now.sa_handler == before[signum].sa_handler);
        }
    }
    signal(SIGURG, SIG_DFL);
}

static struct latch destroyed = LATCH_INIT;

static void *destroy(void *tp)
{
    ns_thrpool_destroy(tp);
    latch_add(&destroyed, 1);
    return NULL;
}

/* Programs that take their signals by sigwait(3) block all of them first, in all threads: none is left to
 * rouse the loop with. */
TEST(all_signals_blocked_the_loop_comes_round_by_itself)
{
    sigset_t all, before;
    int open = count_fds();
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    for (int used = 0; used < 2; used++) {
        begin();
        loop_passes(pool.tp, 1000);
        /* Wait until the loop sleeps. Awake, it could find one of its descriptors closed while we still close the
         * others: it would make new ones, perhaps under the numbers that we close next. */
        for (long sleeps = -1; sleeps != sleeps_of_named("ns-loop");) {
            sleeps = sleeps_of_named("ns-loop");
            let_time_pass(20000);
        }
        close_own(-1);
        if (used) {
            runs_of_each_kind();
            assert_int_equal(atomic_load(&lines), 1);
        }
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, destroy, pool.tp), 0);
        assert_latch(&destroyed, used + 1);
        pthread_join(thread, NULL);
        assert_int_equal(count_fds(), open);
    }
    /* Each by itself: what was closed is noticed by who needs it. */
    for (int which = 0; which < 2; which++) {
        begin();
        loop_passes(pool.tp, 1000);
        /* An end of the pipe, which has the lowest numbers. */
        close_own(which);
        runs_of_each_kind();
        pool_end(pool.tp);
    }
    assert_int_equal(pthread_sigmask(SIG_SETMASK, &before, NULL), 0);
}

/* The loop that looks by itself does that once a second: no more, and its timers are in time. */
static void who_looks_by_itself_neither_spins_nor_is_late(void **state)
{
    UNUSED(state);
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &before);
    begin();
    loop_passes(pool.tp, 1000);
    double cpu = cpu_seconds(), start = now_seconds();
    struct probe probe = PROBE(finish_job, -1);
    struct timeval tv = {2, 300000};
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_timeout_job(pool.tp, &tv, NS_JOB_UNARMED, probe_run, &probe, &job),
                     NS_SUCCESS);
    probe_arm(job);
    assert_latch(&probe.disposals, 1);
    double took = now_seconds() - start;
    assert_true(took >= 2.3);
    assert_true(getenv("NS_SLOW") != NULL || (took < 2.6 && cpu_seconds() - cpu < 0.02));
    pool_end(pool.tp);
    assert_int_equal(pthread_sigmask(SIG_SETMASK, &before, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_descriptor_of_the_pools_own_is_refused),
        cmocka_unit_test(its_numbers_are_three_and_up),
        cmocka_unit_test(a_pool_without_descriptors_is_destroyed),
        cmocka_unit_test(closed_behind_its_back_they_are_made_anew),
        cmocka_unit_test(numbers_that_are_somebody_elses_by_now_stay_open),
        cmocka_unit_test(dispositions_are_what_they_were),
        cmocka_unit_test(all_signals_blocked_the_loop_comes_round_by_itself),
        cmocka_unit_test(who_looks_by_itself_neither_spins_nor_is_late),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
