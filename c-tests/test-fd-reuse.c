/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Descriptor numbers are reused while a job for the file that had them before still exists. */
#include "sockets.h"

/* The old job's state when the number is reused. */
enum old { OLD_WAITING, OLD_ARMED, OLD_ARMED_WITH_TIME_OUT, OLD_KINDS };

/* Move an open file from `fd` to the number `as`. */
static void move_to(int fd, int as)
{
    assert_int_equal(dup2(fd, as), as);
    close(fd);
}

/*
 * A job with PRESERVE_FD on one end of a socket pair; then another socket gets the number of that
 * end and a job of its own.
 */
struct reuse {
    int old_peer;
    int peer; /* the other end of the socket that has the number now */
    struct probe old;
    struct probe new;
    struct ns_job_t *old_job;
    struct ns_job_t *new_job;
};

static void reuse_begin(struct reuse *reuse, struct ns_thrpool_t *tp, enum old kind,
                        ns_job_type_t where, int by_dup2)
{
    int ends[2], again[2];
    socket_pair(ends);
    reuse->old_peer = ends[1];
    reuse->old = (struct probe)PROBE(drain_own, ends[0]);
    reuse->new = (struct probe)PROBE(drain_own, ends[0]);
    ns_job_type_t type = NS_JOB_READ | NS_JOB_PRESERVE_FD | where;
    reuse->old_job = probe_fd(tp, type, kind == OLD_ARMED_WITH_TIME_OUT ? 60000 : 0, &reuse->old);
    if (kind == OLD_WAITING) {
        send_byte(ends[1]);
        assert_latch(&reuse->old.runs, 1);
        assert_int_equal(ns_job_wait(reuse->old_job), NS_SUCCESS);
    } else {
        loop_passes(tp, 0);
    }
    socket_pair(again);
    if (by_dup2) {
        move_to(again[0], ends[0]);
    } else {
        close(ends[0]);
        move_to_closed(again[0], ends[0]);
    }
    reuse->peer = again[1];
    reuse->new_job = probe_fd(tp, type, 0, &reuse->new);
    loop_passes(tp, 0);
}

/* The new job fires, for the n-th time; the old one does not. */
static void reuse_fires(struct reuse *reuse, long runs, long old_runs)
{
    send_byte(reuse->peer);
    assert_latch(&reuse->new.runs, runs);
    assert_int_equal(ns_job_wait(reuse->new_job), NS_SUCCESS);
    assert_int_equal(ns_job_rearm(reuse->new_job), NS_SUCCESS);
    loop_passes(ns_job_get_tp(reuse->new_job), 0);
    assert_int_equal(latch_count(&reuse->new.runs), runs);
    assert_int_equal(latch_count(&reuse->old.runs), old_runs);
}

static void reuse_end(struct reuse *reuse)
{
    probe_cancel(reuse->new_job, &reuse->new);
    assert_true(fd_is_open(reuse->new.fd));
    close(reuse->new.fd);
    close(reuse->peer);
    close(reuse->old_peer);
}

TEST(fm33_new_job_fires_the_old_one_does_not_and_cancelling_it_disturbs_nothing)
{
    struct ns_thrpool_t *tp = pool_of(2);
    for (int kind = 0; kind < OLD_KINDS; kind++) {
        for (int how = 0; how < 4; how++) {
            struct reuse reuse;
            reuse_begin(&reuse, tp, kind, how % 2 ? NS_JOB_THREAD : 0, how / 2);
            long old_runs = kind == OLD_WAITING;
            reuse_fires(&reuse, 1, old_runs);
            probe_cancel(reuse.old_job, &reuse.old);
            assert_true(fd_is_open(reuse.new.fd));
            reuse_fires(&reuse, 2, old_runs);
            reuse_end(&reuse);
        }
    }
    pool_end(tp);
}

TEST(fm33_old_job_with_a_time_out_still_fires_by_time)
{
    struct ns_thrpool_t *tp = pool_of(2);
    for (int how = 0; how < 4; how++) {
        struct reuse reuse;
        reuse_begin(&reuse, tp, OLD_ARMED_WITH_TIME_OUT, how % 2 ? NS_JOB_THREAD : 0, how / 2);
        send_byte(reuse.peer);
        assert_latch(&reuse.new.runs, 1);
        assert_latch(&reuse.old.runs, 1);
        assert_int_equal(atomic_load(&reuse.old.output), NS_JOB_TIMER);
        /* And once more after a rearm. */
        assert_int_equal(ns_job_wait(reuse.old_job), NS_SUCCESS);
        assert_int_equal(ns_job_rearm(reuse.old_job), NS_SUCCESS);
        assert_latch(&reuse.old.runs, 2);
        assert_int_equal(atomic_load(&reuse.old.output), NS_JOB_TIMER);
        finish_idle(reuse.old_job);
        assert_latch(&reuse.old.disposals, 1);
        assert_true(fd_is_open(reuse.new.fd));
        assert_int_equal(ns_job_wait(reuse.new_job), NS_SUCCESS);
        assert_int_equal(ns_job_rearm(reuse.new_job), NS_SUCCESS);
        reuse_fires(&reuse, 2, 2);
        reuse_end(&reuse);
    }
    pool_end(tp);
}

TEST(fm33_done_that_was_refused_and_ignored_harms_nobody)
{
    struct ns_thrpool_t *tp = pool_of(2);
    int ends[2], again[2];
    socket_pair(ends);
    struct probe old = PROBE(NULL, ends[0]), new = PROBE(drain_own, ends[0]);
    struct ns_job_t *old_job = probe_fd(tp, NS_JOB_READ | NS_JOB_PRESERVE_FD, 0, &old);
    loop_passes(tp, 0);
    assert_int_equal(ns_job_done(old_job), NS_INVALID_STATE);
    socket_pair(again);
    close(ends[0]);
    close(ends[1]);
    move_to_closed(again[0], ends[0]);
    /* This one owns its descriptor. */
    struct ns_job_t *new_job = probe_fd(tp, NS_JOB_READ | NS_JOB_THREAD, 0, &new);
    send_byte(again[1]);
    assert_latch(&new.runs, 1);
    finish_idle(new_job);
    assert_latch(&new.disposals, 1);
    assert_closed(ends[0]);
    close(again[1]);
    assert_int_equal(latch_count(&old.runs), 0);
    /* The old job is disposed of only at the end of the pool. */
    pool_end(tp);
    assert_int_equal(latch_count(&old.disposals), 1);
}

TEST(fm33_job_without_preserve_closes_once_and_never_a_reused_number)
{
    struct ns_thrpool_t *tp = pool_of(2);
    int before = count_fds();
    for (int round = 0; round < scaled(400); round++) {
        int ends[2];
        socket_pair(ends);
        struct probe probe = PROBE(finish_job, ends[0]);
        probe_fd(tp, NS_JOB_READ | (round % 2 ? NS_JOB_THREAD : 0), 0, &probe);
        close(ends[1]);
        /* Take the number as soon as it is free. The library must not close it again. */
        int taken;
        do {
            taken = fcntl(STDIN_FILENO, F_DUPFD, ends[0]);
            assert_true(taken >= 0);
            if (taken != ends[0]) {
                close(taken);
                sched_yield();
            }
        } while (taken != ends[0]);
        assert_latch(&probe.disposals, 1);
        loop_passes(tp, 0);
        assert_true(fd_is_open(taken));
        close(taken);
    }
    assert_int_equal(count_fds(), before);
    pool_end(tp);
}

TEST(number_that_became_a_file_or_a_directory_serves_its_new_job_only)
{
    struct ns_thrpool_t *tp = pool_of(1);
    static const char *const paths[] = {"/dev/null", "/"};
    for (int i = 0; i < 2; i++) {
        int ends[2], file = open(paths[i], O_RDONLY);
        socket_pair(ends);
        struct probe old = PROBE(NULL, ends[0]), new = PROBE(NULL, ends[0]);
        ns_job_type_t type = NS_JOB_READ | NS_JOB_PRESERVE_FD;
        struct ns_job_t *old_job = probe_fd(tp, type, 0, &old);
        loop_passes(tp, 0);
        close(ends[0]);
        move_to_closed(file, ends[0]);
        struct ns_job_t *new_job = probe_fd(tp, type, 0, &new);
        assert_latch(&new.runs, 1);
        loop_passes(tp, 0);
        assert_int_equal(latch_count(&old.runs), 0);
        probe_cancel(old_job, &old);
        assert_int_equal(ns_job_wait(new_job), NS_SUCCESS);
        assert_int_equal(ns_job_rearm(new_job), NS_SUCCESS);
        assert_latch(&new.runs, 2);
        probe_cancel(new_job, &new);
        close(ends[0]);
        close(ends[1]);
    }
    pool_end(tp);
}

TEST(fm33_many_rounds_in_random_order_keep_the_newest_job_going)
{
    struct ns_thrpool_t *tp = pool_of(2);
    unsigned seed = 33;
    enum { OLD = 6 };
    for (int round = 0; round < scaled(300); round++) {
        /* One number stands for several files in turn, and a job is left behind for each. */
        int ends[2], peers[OLD];
        struct probe probes[OLD];
        struct ns_job_t *jobs[OLD];
        socket_pair(ends);
        int number = ends[0];
        peers[0] = ends[1];
        for (int i = 0; i < OLD; i++) {
            if (i > 0) {
                socket_pair(ends);
                move_to(ends[0], number);
                peers[i] = ends[1];
            }
            seed = seed * 1103515245 + 12345;
            unsigned dice = seed >> 16;
            ns_job_type_t type = NS_JOB_READ | NS_JOB_PRESERVE_FD;
            type |= dice & 1 ? NS_JOB_THREAD : 0;
            probes[i] = (struct probe)PROBE(drain_own, number);
            jobs[i] = probe_fd(tp, type, 0, &probes[i]);
            if (dice & 2) {
                send_byte(peers[i]);
                assert_latch(&probes[i].runs, 1);
                assert_int_equal(ns_job_wait(jobs[i]), NS_SUCCESS);
                if (dice & 4) {
                    assert_int_equal(ns_job_rearm(jobs[i]), NS_SUCCESS);
                }
            }
            /* The job must be armed before the number is reused. */
            loop_passes(tp, 0);
        }
        long old_runs[OLD];
        for (int i = 0; i < OLD; i++) {
            old_runs[i] = latch_count(&probes[i].runs);
        }
        if (ns_job_rearm(jobs[OLD - 1]) == NS_SUCCESS) {
            loop_passes(tp, 0);
        }
        send_byte(peers[OLD - 1]);
        assert_latch(&probes[OLD - 1].runs, old_runs[OLD - 1] + 1);
        assert_int_equal(ns_job_wait(jobs[OLD - 1]), NS_SUCCESS);
        assert_int_equal(ns_job_rearm(jobs[OLD - 1]), NS_SUCCESS);
        /* Cancel the old ones, in either order. */
        for (int i = 0; i < OLD - 1; i++) {
            int at = seed & 0x100000 ? i : OLD - 2 - i;
            probe_cancel(jobs[at], &probes[at]);
            assert_int_equal(latch_count(&probes[at].runs), old_runs[at]);
        }
        send_byte(peers[OLD - 1]);
        assert_latch(&probes[OLD - 1].runs, old_runs[OLD - 1] + 2);
        probe_cancel(jobs[OLD - 1], &probes[OLD - 1]);
        assert_true(fd_is_open(number));
        close(number);
        for (int i = 0; i < OLD; i++) {
            close(peers[i]);
        }
    }
    pool_end(tp);
}

/* Lines of LOG_WARNING. */
static int new_file = -1;

/* In the first run: closes the job's own number, may give it to another file, and arms the job. */
static void close_own_and_rearm(struct ns_job_t *job)
{
    struct probe *probe = ns_job_get_data(job);
    char byte;
    int result = (int)read(ns_job_get_native_fd(job), &byte, 1);
    probe->fd = result < 0 ? errno : 0;
    if (latch_count(&probe->runs) == 0) {
        if (new_file >= 0) {
            dup2(new_file, ns_job_get_native_fd(job));
        } else {
            close(ns_job_get_native_fd(job));
        }
        ns_job_rearm(job);
    }
}

TEST(a_callback_that_closed_its_number_is_told_alike_in_the_loop_and_in_a_worker)
{
    struct ns_thrpool_t *tp = pool_logging_to(1, count_warnings);
    for (int round = 0; round < 4; round++) {
        int ends[2], others[2];
        int reused = round >= 2;
        socket_pair(ends);
        socket_pair(others);
        new_file = reused ? others[0] : -1;
        struct probe probe = PROBE(close_own_and_rearm, ends[0]);
        atomic_store(&warnings, 0);
        ns_job_type_t type = NS_JOB_READ | NS_JOB_PRESERVE_FD | (round % 2 ? NS_JOB_THREAD : 0);
        struct ns_job_t *job = probe_fd(tp, type, 0, &probe);
        assert_int_equal(write(ends[1], "x", 1), 1);
        assert_int_equal(write(others[1], "x", 1), 1);
        if (!reused) {
            assert_latch(&probe.runs, 2);
            assert_int_equal(atomic_load(&probe.output), NS_JOB_READ);
            assert_int_equal(probe.fd, EBADF);
            assert_int_equal(ns_job_wait(job), NS_SUCCESS);
        }
        /* In the loop the number is looked at after a while: a time-out might come first if all is slow. */
        EVENTUALLY(atomic_load(&warnings) == 1);
        loop_passes(tp, 0);
        assert_int_equal(atomic_load(&warnings), 1);
        assert_int_equal(latch_count(&probe.runs), reused ? 1 : 2);
        probe_cancel(job, &probe);
        if (reused) {
            assert_true(fd_is_open(ends[0]));
            close(ends[0]);
        }
        close(ends[1]);
        close(others[0]);
        close(others[1]);
    }
    pool_end(tp);
}

/* The application cancels a job, or the group that it is in, and closes the descriptor that it kept,
 * while the loop arms it: that is no reason for a warning. */
static void close_behind_cancel(int in_group)
{
    struct ns_thrpool_t *tp = pool_logging_to(1, count_warnings);
    ns_job_type_t type = NS_JOB_READ | NS_JOB_PRESERVE_FD | NS_JOB_UNARMED;
    unsigned seed = 1;
    atomic_store(&warnings, 0);
    for (int round = 0; round < scaled(50000); round++) {
        int ends[2];
        struct ns_group_t *group = NULL;
        struct ns_job_t *job;
        socket_pair(ends);
        assert_int_equal(ns_add_fd_job(tp, ends[0], type, drain_own, NULL, &job), NS_SUCCESS);
        if (in_group) {
            assert_int_equal(ns_group_new(tp, 1, NULL, NULL, &group), NS_SUCCESS);
            assert_int_equal(ns_job_set_group(job, group), NS_SUCCESS);
        }
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        for (volatile int spin = rand_r(&seed) % 20000; spin > 0; spin--) {
        }
        assert_int_equal(in_group ? ns_group_cancel(group) : ns_job_cancel(job), NS_SUCCESS);
        close(ends[0]);
        close(ends[1]);
        ns_group_release(group);
    }
    assert_int_equal(atomic_load(&warnings), 0);
    pool_end(tp);
}

TEST(a_number_that_is_closed_behind_its_cancelled_job_is_not_reported)
{
    close_behind_cancel(0);
}

TEST(a_number_that_is_closed_behind_its_cancelled_group_is_not_reported)
{
    close_behind_cancel(1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(
            fm33_new_job_fires_the_old_one_does_not_and_cancelling_it_disturbs_nothing),
        cmocka_unit_test(fm33_old_job_with_a_time_out_still_fires_by_time),
        cmocka_unit_test(fm33_done_that_was_refused_and_ignored_harms_nobody),
        cmocka_unit_test(fm33_job_without_preserve_closes_once_and_never_a_reused_number),
        cmocka_unit_test(number_that_became_a_file_or_a_directory_serves_its_new_job_only),
        cmocka_unit_test(
            a_callback_that_closed_its_number_is_told_alike_in_the_loop_and_in_a_worker),
        cmocka_unit_test(a_number_that_is_closed_behind_its_cancelled_job_is_not_reported),
        cmocka_unit_test(a_number_that_is_closed_behind_its_cancelled_group_is_not_reported),
        cmocka_unit_test(fm33_many_rounds_in_random_order_keep_the_newest_job_going),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
