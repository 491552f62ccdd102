/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The descriptors of I/O jobs: shared by several jobs, who closes them and when, not open, not
 * sockets. */
#include "sockets.h"

/* Several jobs on one descriptor */

TEST(fm34_reader_and_writer_of_one_descriptor_fire_each_by_itself)
{
    struct ns_thrpool_t *tp = pool_of(2);
    for (int i = 0; i < 4; i++) {
        ns_job_type_t reads_in = i % 2 ? NS_JOB_THREAD : 0, writes_in = i / 2 ? NS_JOB_THREAD : 0;
        int ends[2];
        socket_pair(ends);
        fill(ends[0]);
        struct probe reader = PROBE(drain_own, ends[0]), writer = PROBE(NULL, ends[0]);
        struct ns_job_t *read_job = probe_fd(tp, NS_JOB_READ | reads_in, 0, &reader);
        struct ns_job_t *write_job =
            probe_fd(tp, NS_JOB_WRITE | NS_JOB_PRESERVE_FD | writes_in, 0, &writer);
        send_byte(ends[1]);
        assert_latch(&reader.runs, 1);
        loop_passes(tp, 0);
        assert_int_equal(latch_count(&writer.runs), 0);
        drain(ends[1]);
        assert_latch(&writer.runs, 1);
        assert_int_equal(latch_count(&reader.runs), 1);
        assert_int_equal(atomic_load(&writer.output), NS_JOB_WRITE);
        assert_int_equal(atomic_load(&reader.output), NS_JOB_READ);
        probe_finish(write_job, &writer);
        probe_finish(read_job, &reader);
        close(ends[1]);
    }
    pool_end(tp);
}

TEST(fm34_either_of_reader_and_writer_can_be_cancelled)
{
    struct ns_thrpool_t *tp = pool_of(2);
    for (int i = 0; i < 4; i++) {
        ns_job_type_t where = NS_JOB_PRESERVE_FD | (i % 2 ? NS_JOB_THREAD : 0);
        int ends[2];
        socket_pair(ends);
        fill(ends[0]);
        struct probe reader = PROBE(NULL, ends[0]), writer = PROBE(NULL, ends[0]);
        struct ns_job_t *read_job = probe_fd(tp, NS_JOB_READ | where, 0, &reader);
        struct ns_job_t *write_job = probe_fd(tp, NS_JOB_WRITE | where, 0, &writer);
        struct probe *left = i / 2 ? &reader : &writer;
        struct probe *gone = i / 2 ? &writer : &reader;
        probe_cancel(i / 2 ? write_job : read_job, gone);
        drain(ends[1]);
        send_byte(ends[1]);
        assert_latch(&left->runs, 1);
        probe_finish(i / 2 ? read_job : write_job, left);
        assert_int_equal(latch_count(&gone->runs), 0);
        assert_true(fd_is_open(ends[0]));
        close(ends[0]);
        close(ends[1]);
    }
    pool_end(tp);
}

TEST(two_readers_both_fire)
{
    struct ns_thrpool_t *tp = pool_of(2);
    for (int i = 0; i < 4; i++) {
        int ends[2];
        socket_pair(ends);
        struct probe one = PROBE(NULL, ends[0]), other = PROBE(NULL, ends[0]);
        ns_job_type_t type = NS_JOB_READ | NS_JOB_PRESERVE_FD;
        struct ns_job_t *first = probe_fd(tp, type | where[i % 2], 0, &one);
        struct ns_job_t *second = probe_fd(tp, type | where[i / 2], 0, &other);
        send_byte(ends[1]);
        assert_latch(&one.runs, 1);
        assert_latch(&other.runs, 1);
        probe_finish(first, &one);
        probe_finish(second, &other);
        close(ends[0]);
        close(ends[1]);
    }
    pool_end(tp);
}

static struct probe replacement;
static struct ns_job_t *replacement_job;
static ns_job_type_t replacement_type;

/* Add a new job for the same descriptor, and only then finish the old one. */
static void replace(struct ns_job_t *job)
{
    char byte;
    if (read(ns_job_get_native_fd(job), &byte, 1) == 1) {
        ns_add_fd_job(ns_job_get_tp(job), ns_job_get_native_fd(job), replacement_type, probe_run,
                      &replacement, &replacement_job);
    }
    ns_job_done(job);
}

TEST(job_added_inside_the_callback_of_the_old_one_takes_over)
{
    struct ns_thrpool_t *tp = pool_of(2);
    for (int i = 0; i < scaled(400); i++) {
        int ends[2];
        socket_pair(ends);
        replacement = (struct probe)PROBE(NULL, ends[0]);
        replacement_type = NS_JOB_READ | NS_JOB_PRESERVE_FD | where[i % 2];
        struct probe old = PROBE(replace, ends[0]);
        probe_fd(tp, NS_JOB_READ | NS_JOB_PRESERVE_FD | where[i / 2 % 2], 0, &old);
        send_byte(ends[1]);
        assert_latch(&old.disposals, 1);
        assert_int_equal(latch_count(&replacement.runs), 0);
        send_byte(ends[1]);
        assert_latch(&replacement.runs, 1);
        assert_int_equal(latch_count(&old.runs), 1);
        assert_int_equal(ns_job_wait(replacement_job), NS_SUCCESS);
        assert_int_equal(ns_job_set_done_cb(replacement_job, probe_gone), NS_SUCCESS);
        probe_finish(replacement_job, &replacement);
        assert_true(fd_is_open(ends[0]));
        close(ends[0]);
        close(ends[1]);
    }
    pool_end(tp);
}

TEST(shared_descriptor_is_closed_once_and_the_others_keep_their_time)
{
    struct ns_thrpool_t *tp = pool_logging_to(1, count_warnings);
    int ends[2];
    socket_pair(ends);
    struct probe first = PROBE(NULL, ends[0]), timed = PROBE(NULL, ends[0]);
    struct probe idle = PROBE(NULL, ends[0]);
    struct ns_job_t *first_job = probe_fd(tp, NS_JOB_READ, 0, &first);
    struct ns_job_t *timed_job = probe_fd(tp, NS_JOB_READ, 100000, &timed);
    struct ns_job_t *idle_job = probe_fd(tp, NS_JOB_READ | NS_JOB_WRITE, 0, &idle);
    assert_latch(&idle.runs, 1);
    assert_int_equal(ns_job_wait(idle_job), NS_SUCCESS);
    drain(ends[1]);
    assert_int_equal(atomic_load(&warnings), 0);
    probe_cancel(first_job, &first);
    assert_false(fd_is_open(ends[0]));
    assert_int_equal(atomic_load(&warnings), 1);
    /* The number is reused. The jobs that are left must not fire for the new file. */
    int again[2];
    socket_pair(again);
    assert_true(again[0] == ends[0] || again[1] == ends[0]);
    send_byte(again[0]);
    send_byte(again[1]);
    assert_latch(&timed.runs, 1);
    assert_int_equal(atomic_load(&timed.output), NS_JOB_TIMER);
    probe_finish(timed_job, &timed);
    assert_int_equal(ns_job_rearm(idle_job), NS_SUCCESS);
    loop_passes(tp, 10000);
    assert_int_equal(latch_count(&idle.runs), 1);
    probe_cancel(idle_job, &idle);
    assert_true(fd_is_open(again[0]));
    assert_true(fd_is_open(again[1]));
    ns_thrpool_destroy(tp);
    close(again[0]);
    close(again[1]);
    close(ends[1]);
}

static atomic_int open_in_done_callback;

static void note_whether_open(struct ns_job_t *job)
{
    atomic_store(&open_in_done_callback, fd_is_open(ns_job_get_native_fd(job)));
    probe_gone(job);
}

TEST(descriptor_is_closed_before_the_done_callback_unless_preserved)
{
    struct ns_thrpool_t *tp = pool_of(2);
    for (int i = 0; i < 8; i++) {
        int preserved = i % 2, threaded = i / 2 % 2, cancelled = i / 4;
        int ends[2];
        socket_pair(ends);
        struct probe probe = PROBE(cancelled ? NULL : finish_job, ends[0]);
        struct ns_job_t *job = NULL;
        ns_job_type_t type = NS_JOB_READ | NS_JOB_UNARMED;
        type |= (preserved ? NS_JOB_PRESERVE_FD : 0) | (threaded ? NS_JOB_THREAD : 0);
        assert_int_equal(ns_add_fd_job(tp, ends[0], type, probe_run, &probe, &job), NS_SUCCESS);
        arm_with(job, note_whether_open);
        if (cancelled) {
            assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
        } else {
            send_byte(ends[1]);
        }
        assert_latch(&probe.disposals, 1);
        assert_int_equal(atomic_load(&open_in_done_callback), preserved);
        assert_int_equal(fd_is_open(ends[0]), preserved);
        if (preserved) {
            close(ends[0]);
        }
        close(ends[1]);
    }
    pool_end(tp);
}

/* Descriptors that are no sockets, or not open */

TEST(fm37_files_directories_and_dev_null_are_always_ready)
{
    struct ns_thrpool_t *tp = pool_of(1);
    char path[] = "/tmp/test-io-XXXXXX";
    int file = mkstemp(path);
    unlink(path);
    int fds[] = {file, open("/", O_RDONLY | O_DIRECTORY), open("/dev/null", O_RDWR)};
    for (int i = 0; i < 3; i++) {
        assert_true(fds[i] >= 0);
        for (int threaded = 0; threaded < 2; threaded++) {
            ns_job_type_t where = threaded ? NS_JOB_THREAD : 0;
            ns_job_type_t both = NS_JOB_READ | NS_JOB_WRITE;
            assert_int_equal(output_of(tp, fds[i], NS_JOB_READ | where), NS_JOB_READ);
            assert_int_equal(output_of(tp, fds[i], both | where), both);
            struct probe probe = PROBE(NULL, fds[i]);
            struct ns_job_t *job =
                probe_fd(tp, NS_JOB_READ | NS_JOB_PERSIST | NS_JOB_PRESERVE_FD | where, 0, &probe);
            assert_latch(&probe.runs, 100);
            /* Other jobs are served meanwhile. */
            loop_passes(tp, 1000);
            probe_cancel(job, &probe);
        }
        close(fds[i]);
    }
    pool_end(tp);
}

static atomic_int read_errno;

static void read_own(struct ns_job_t *job)
{
    char byte;
    ssize_t n = read(ns_job_get_native_fd(job), &byte, 1);
    atomic_store(&read_errno, n < 0 ? errno : 0);
}

TEST(fm37_descriptor_closed_before_it_is_armed_fires_and_its_read_fails)
{
    struct ns_thrpool_t *tp = pool_logging_to(1, count_warnings);
    for (int i = 0; i < 4; i++) {
        ns_job_type_t type = NS_JOB_READ | (i % 2 ? NS_JOB_WRITE : 0);
        int fd = dup(0);
        struct probe probe = PROBE(read_own, fd);
        struct ns_job_t *job = NULL;
        assert_int_equal(ns_add_fd_job(tp, fd,
                                       type | where[i / 2] | NS_JOB_UNARMED | NS_JOB_PRESERVE_FD,
                                       probe_run, &probe, &job), NS_SUCCESS);
        close(fd);
        atomic_store(&warnings, 0);
        atomic_store(&read_errno, 0);
        probe_arm(job);
        assert_latch(&probe.runs, 1);
        assert_int_equal(atomic_load(&probe.output), type);
        assert_int_equal(atomic_load(&read_errno), EBADF);
        assert_true(atomic_load(&warnings) >= 1);
        /* It fires again after a rearm. */
        assert_int_equal(ns_job_wait(job), NS_SUCCESS);
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        assert_latch(&probe.runs, 2);
        assert_int_equal(atomic_load(&read_errno), EBADF);
        probe_finish(job, &probe);
    }
    ns_thrpool_destroy(tp);
}

TEST(fm37_duplicate_that_outlives_its_number_costs_nothing)
{
    struct ns_thrpool_t *tp = pool_of(1);
    /* The number stays closed, or is reused by a file without a job, or by one with a job. */
    for (int i = 0; i < 6; i++) {
        int ends[2], other[2];
        socket_pair(ends);
        struct probe probe = PROBE(NULL, ends[0]);
        ns_job_type_t type = NS_JOB_READ | NS_JOB_PRESERVE_FD | where[i % 2];
        struct ns_job_t *job = probe_fd(tp, type, 0, &probe);
        loop_passes(tp, 0);
        int copy = dup(ends[0]);
        if (i / 2 > 0) {
            socket_pair(other);
        }
        close(ends[0]);
        struct probe new_probe = PROBE(NULL, ends[0]);
        struct ns_job_t *new_job = NULL;
        if (i / 2 > 0) {
            move_to_closed(other[0], ends[0]);
        }
        if (i / 2 == 2) {
            new_job = probe_fd(tp, type, 0, &new_probe);
            loop_passes(tp, 0);
        }
        probe_cancel(job, &probe);
        send_byte(ends[1]);
        loop_passes(tp, 0);
        double before = cpu_seconds();
        loop_passes(tp, 100000);
        assert_true(cpu_seconds() - before < 0.05);
        assert_int_equal(latch_count(&probe.runs), 0);
        if (new_job != NULL) {
            assert_int_equal(latch_count(&new_probe.runs), 0);
            send_byte(other[1]);
            assert_latch(&new_probe.runs, 1);
            probe_finish(new_job, &new_probe);
        }
        if (i / 2 > 0) {
            close(ends[0]);
            close(other[1]);
        }
        close(copy);
        close(ends[1]);
    }
    pool_end(tp);
}

TEST(registrations_of_others_survive_a_stale_one)
{
    struct ns_thrpool_t *tp = pool_of(1);
    enum { OTHERS = 20 };
    struct probe others[OTHERS];
    struct ns_job_t *jobs[OTHERS];
    int ends[OTHERS][2];
    for (int i = 0; i < OTHERS; i++) {
        socket_pair(ends[i]);
        others[i] = (struct probe)PROBE(drain_own, ends[i][0]);
        jobs[i] = probe_fd(tp, NS_JOB_READ | (i % 2 ? NS_JOB_THREAD : 0), 0, &others[i]);
    }
    int stale[2];
    socket_pair(stale);
    struct probe probe = PROBE(NULL, stale[0]);
    struct ns_job_t *job = probe_fd(tp, NS_JOB_READ | NS_JOB_PRESERVE_FD, 0, &probe);
    loop_passes(tp, 0);
    int copy = dup(stale[0]);
    close(stale[0]);
    probe_cancel(job, &probe);
    send_byte(stale[1]);
    loop_passes(tp, 10000);
    for (int i = 0; i < OTHERS; i++) {
        assert_int_equal(latch_count(&others[i].runs), 0);
        send_byte(ends[i][1]);
        assert_latch(&others[i].runs, 1);
        probe_finish(jobs[i], &others[i]);
        close(ends[i][1]);
    }
    pool_end(tp);
    close(copy);
    close(stale[1]);
}

/*
 * One job closes the descriptor of another that was never armed.
 *
 * To see it fail: in EventLoop::attach, leave a job whose descriptor is closed to its time-out.
 */
TEST(an_unarmed_job_whose_descriptor_the_pool_has_closed_fires)
{
    struct ns_thrpool_t *tp = pool_of(1);
    for (int threaded = 0; threaded < 2; threaded++) {
        int ends[2];
        socket_pair(ends);
        struct probe first = PROBE(NULL, ends[0]);
        struct probe second = PROBE(finish_job, ends[0]);
        struct ns_job_t *closes = probe_fd(tp, NS_JOB_READ, 0, &first);
        struct ns_job_t *job = NULL;
        assert_int_equal(ns_add_fd_job(tp, ends[0], NS_JOB_READ | NS_JOB_UNARMED |
                                       (threaded ? NS_JOB_THREAD : 0), probe_run, &second, &job),
                         NS_SUCCESS);
        assert_int_equal(ns_job_cancel(closes), NS_SUCCESS);
        assert_latch(&first.disposals, 1);
        assert_false(fd_is_open(ends[0]));
        probe_arm(job);
        assert_latch(&second.disposals, 1);
        assert_int_equal(latch_count(&second.runs), 1);
        assert_int_equal(atomic_load(&second.output), NS_JOB_READ);
        close(ends[1]);
    }
    pool_end(tp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fm34_reader_and_writer_of_one_descriptor_fire_each_by_itself),
        cmocka_unit_test(fm34_either_of_reader_and_writer_can_be_cancelled),
        cmocka_unit_test(two_readers_both_fire),
        cmocka_unit_test(job_added_inside_the_callback_of_the_old_one_takes_over),
        cmocka_unit_test(shared_descriptor_is_closed_once_and_the_others_keep_their_time),
        cmocka_unit_test(descriptor_is_closed_before_the_done_callback_unless_preserved),
        cmocka_unit_test(fm37_files_directories_and_dev_null_are_always_ready),
        cmocka_unit_test(fm37_descriptor_closed_before_it_is_armed_fires_and_its_read_fails),
        cmocka_unit_test(fm37_duplicate_that_outlives_its_number_costs_nothing),
        cmocka_unit_test(registrations_of_others_survive_a_stale_one),
        cmocka_unit_test(an_unarmed_job_whose_descriptor_the_pool_has_closed_fires),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
