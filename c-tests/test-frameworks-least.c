/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A little of everything, in a moment: run over each event framework by frameworks.sh. */
#include "children.h"

#include <netinet/in.h>

static struct ns_thrpool_t *tp;

static int begin(void **state)
{
    UNUSED(state);
    tp = pool_of(2);
    return 0;
}

static int end(void **state)
{
    UNUSED(state);
    pool_end(tp);
    return 0;
}

TEST(jobs_run_in_the_loop_and_in_workers)
{
    for EACH_THREAD(i) {
        struct probe probe = PROBE(finish_job, -1);
        struct ns_job_t *job = NULL;
        assert_int_equal(ns_add_job(tp, where[i] | NS_JOB_UNARMED, probe_run, &probe, &job),
                         NS_SUCCESS);
        probe_arm(job);
        assert_latch(&probe.disposals, 1);
    }
}

static atomic_int early;

static void check_time(struct ns_job_t *job)
{
    double *due = ns_job_get_data(job);
    if (now_seconds() < *due) {
        atomic_fetch_add(&early, 1);
    }
}

TEST(timers_are_never_early_and_come)
{
    enum { TIMERS = 200 };
    static double due[TIMERS];
    static struct ns_job_t *jobs[TIMERS];
    for (int i = 0; i < TIMERS; i++) {
        struct timeval tv = {0, i * 137 % 30000};
        due[i] = now_seconds() + (double)tv.tv_usec / 1e6;
        assert_int_equal(ns_add_timeout_job(tp, &tv, where[i % 2], check_time, &due[i], &jobs[i]),
                         NS_SUCCESS);
    }
    for (int i = 0; i < TIMERS; i++) {
        finish_idle(jobs[i]);
    }
    assert_int_equal(atomic_load(&early), 0);
}

static void take_byte(struct ns_job_t *job)
{
    char byte;
    UNUSED(read(ns_job_get_native_fd(job), &byte, 1) == 1);
}

TEST(descriptors_fire_each_time_that_they_are_ready)
{
    for EACH_THREAD(i) {
        int ends[2];
        socket_pair(ends);
        struct probe probe = PROBE(take_byte, ends[0]);
        struct ns_job_t *job = probe_fd(tp, NS_JOB_READ | where[i], 0, &probe);
        for (int run = 1; run <= 20; run++) {
            assert_int_equal(write(ends[1], "x", 1), 1);
            assert_latch(&probe.runs, run);
            assert_int_equal(atomic_load(&probe.output), NS_JOB_READ);
            assert_int_equal(ns_job_wait(job), NS_SUCCESS);
            assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        }
        loop_passes(tp, 0);
        assert_latch(&probe.runs, 20);
        probe_cancel(job, &probe);
        assert_false(fd_is_open(ends[0]));
        close(ends[1]);
    }
}

TEST(a_reader_and_a_writer_share_a_descriptor)
{
    int ends[2];
    socket_pair(ends);
    struct probe reader = PROBE(take_byte, ends[0]), writer = PROBE(NULL, ends[0]);
    struct ns_job_t *read_job = probe_fd(tp, NS_JOB_READ | NS_JOB_PRESERVE_FD, 0, &reader);
    struct ns_job_t *write_job = probe_fd(tp, NS_JOB_WRITE, 0, &writer);
    assert_latch(&writer.runs, 1);
    assert_int_equal(atomic_load(&writer.output), NS_JOB_WRITE);
    assert_latch(&reader.runs, 0);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_latch(&reader.runs, 1);
    finish_idle(read_job);
    finish_idle(write_job);
    assert_latch(&writer.disposals, 1);
    close(ends[1]);
}

/* A writer alone hears of what only a reader would be told by some frameworks: a refused connect,
 * and a hang-up while the peer takes no data and there is unread data. */
TEST(a_writer_alone_hears_of_errors)
{
    struct sockaddr_in nowhere = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof nowhere;
    int bound = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(bound, (struct sockaddr *)&nowhere, sizeof nowhere), 0);
    assert_int_equal(getsockname(bound, (struct sockaddr *)&nowhere, &size), 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    UNUSED(connect(fd, (struct sockaddr *)&nowhere, sizeof nowhere) == 0);
    struct probe connecting = PROBE(finish_job, fd);
    probe_fd(tp, NS_JOB_CONNECT, 0, &connecting);
    assert_latch(&connecting.disposals, 1);
    assert_int_equal(atomic_load(&connecting.output), NS_JOB_WRITE);
    close(bound);

    int ends[2];
    socket_pair(ends);
    assert_int_equal(write(ends[1], "x", 1), 1);
    static char bytes[65536];
    while (write(ends[0], bytes, sizeof bytes) > 0) {
    }
    struct probe full = PROBE(finish_job, ends[0]);
    probe_fd(tp, NS_JOB_WRITE, 0, &full);
    loop_passes(tp, 1000);
    assert_latch(&full.runs, 0);
    close(ends[1]);
    assert_latch(&full.disposals, 1);
}

TEST(time_outs_and_cancelled_jobs)
{
    int ends[2];
    socket_pair(ends);
    struct probe probe = PROBE(NULL, ends[0]);
    struct ns_job_t *job = probe_fd(tp, NS_JOB_READ, 2000, &probe);
    assert_latch(&probe.runs, 1);
    assert_int_equal(atomic_load(&probe.output), NS_JOB_TIMER);
    assert_int_equal(ns_job_wait(job), NS_SUCCESS);
    assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
    probe_cancel(job, &probe);
    close(ends[1]);
}

/* The application closes a number that an armed job keeps, and gets it again for another file. */
TEST(a_number_that_is_used_again_is_the_new_files)
{
    for (int round = 0; round < 20; round++) {
        int old[2], new[2];
        socket_pair(old);
        struct probe stale = PROBE(NULL, old[0]), fresh = PROBE(finish_job, old[0]);
        struct ns_job_t *job =
            probe_fd(tp, NS_JOB_READ | NS_JOB_PRESERVE_FD | where[round % 2], 0, &stale);
        loop_passes(tp, 0);
        socket_pair(new);
        close(old[0]);
        move_to_closed(new[0], old[0]);
        probe_fd(tp, NS_JOB_READ | where[round / 2 % 2], 0, &fresh);
        assert_int_equal(write(new[1], "x", 1), 1);
        assert_latch(&fresh.disposals, 1);
        assert_latch(&stale.runs, 0);
        probe_cancel(job, &stale);
        close(old[1]);
        close(new[1]);
    }
}

/* Its number is closed, its file lives on and is readable: no processor time. */
TEST(a_file_that_outlives_its_number_costs_nothing)
{
    int ends[2];
    socket_pair(ends);
    struct probe probe = PROBE(NULL, ends[0]);
    struct ns_job_t *job = probe_fd(tp, NS_JOB_READ | NS_JOB_PRESERVE_FD, 0, &probe);
    loop_passes(tp, 0);
    int copy = dup(ends[0]);
    close(ends[0]);
    probe_cancel(job, &probe);
    assert_int_equal(write(ends[1], "x", 1), 1);
    loop_passes(tp, 20000);
    double before = cpu_seconds();
    loop_passes(tp, 200000);
    assert_true(getenv("NS_SLOW") != NULL || cpu_seconds() - before < 0.1);
    close(copy);
    close(ends[1]);
}

TEST(a_closed_number_costs_nothing_and_the_loop_goes_on)
{
    int ends[2];
    socket_pair(ends);
    struct probe probe = PROBE(NULL, ends[0]), other = PROBE(finish_job, -1);
    struct ns_job_t *job = probe_fd(tp, NS_JOB_READ | NS_JOB_PRESERVE_FD, 0, &probe);
    loop_passes(tp, 0);
    close(ends[0]);
    close(ends[1]);
    loop_passes(tp, 20000);
    double before = cpu_seconds();
    loop_passes(tp, 100000);
    assert_true(getenv("NS_SLOW") != NULL || cpu_seconds() - before < 0.05);
    assert_latch(&probe.runs, 0);
    probe_cancel(job, &probe);
    socket_pair(ends);
    other.fd = ends[0];
    probe_fd(tp, NS_JOB_WRITE, 0, &other);
    assert_latch(&other.disposals, 1);
    close(ends[1]);
}

TEST(files_are_always_ready)
{
    struct probe probe = PROBE(finish_job, open("/proc/self/stat", O_RDONLY | O_CLOEXEC));
    struct probe dir = PROBE(finish_job, open("/", O_RDONLY | O_CLOEXEC));
    probe_fd(tp, NS_JOB_READ, 0, &probe);
    probe_fd(tp, NS_JOB_READ | NS_JOB_THREAD, 0, &dir);
    assert_latch(&probe.disposals, 1);
    assert_latch(&dir.disposals, 1);
}

TEST(signals_fire)
{
    struct probe probe = PROBE(NULL, -1);
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_signal_job(tp, SIGUSR1, NS_JOB_PERSIST | NS_JOB_UNARMED, probe_run, &probe, &job),
                     NS_SUCCESS);
    probe_arm(job);
    loop_passes(tp, 0);
    for (int i = 1; i <= 5; i++) {
        kill(getpid(), SIGUSR1);
        assert_latch(&probe.runs, i);
    }
    probe_cancel(job, &probe);
}

/* A child destroys the pool, and makes one of its own; the parent's goes on. */
TEST(forks_do_not_disturb)
{
    int ends[2];
    socket_pair(ends);
    struct probe probe = PROBE(finish_job, ends[0]);
    probe_fd(tp, NS_JOB_READ, 0, &probe);
    loop_passes(tp, 0);
    pid_t child = fork();
    if (child == 0) {
        struct timeval tv = {0, 0};
        if (ns_add_timeout_job(tp, &tv, 0, do_nothing, NULL, NULL) != NS_SHUTDOWN) {
            _exit(1);
        }
        ns_thrpool_destroy(tp);
        struct ns_thrpool_t *own = pool_of(1);
        struct latch ran = LATCH_INIT;
        if (ns_add_timeout_job(own, &tv, 0, count_and_finish, &ran, NULL) != NS_SUCCESS) {
            _exit(2);
        }
        latch_reaches(&ran, 1);
        pool_end(own);
        _exit(0);
    }
    int status = 1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_latch(&probe.disposals, 1);
    close(ends[1]);
}

int main(void)
{
#define EACH(test) cmocka_unit_test_setup_teardown(test, begin, end)
    const struct CMUnitTest tests[] = {
        EACH(jobs_run_in_the_loop_and_in_workers),
        EACH(timers_are_never_early_and_come),
        EACH(descriptors_fire_each_time_that_they_are_ready),
        EACH(a_reader_and_a_writer_share_a_descriptor),
        EACH(a_writer_alone_hears_of_errors),
        EACH(time_outs_and_cancelled_jobs),
        EACH(a_number_that_is_used_again_is_the_new_files),
        EACH(a_file_that_outlives_its_number_costs_nothing),
        EACH(a_closed_number_costs_nothing_and_the_loop_goes_on),
        EACH(files_are_always_ready),
        EACH(signals_fire),
        EACH(forks_do_not_disturb),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
