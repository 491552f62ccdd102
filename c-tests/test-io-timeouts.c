/* SPDX-License-Identifier: GPL-3.0-or-later */
/* I/O jobs with a time-out: which of the two fires, and when the time starts. */
#include "sockets.h"

TEST(io_or_time_fires_but_not_both)
{
    struct ns_thrpool_t *tp = pool_of(2);
    for (int i = 0; i < 2; i++) {
        ns_job_type_t type = NS_JOB_READ | NS_JOB_WRITE | where[i];
        int ends[2];
        socket_pair(ends);
        fill(ends[0]);
        struct probe probe = PROBE(NULL, ends[0]);
        struct ns_job_t *job = probe_fd(tp, type, 20000, &probe);
        assert_int_equal(ns_job_get_type(job), type | NS_JOB_TIMER);
        assert_latch(&probe.runs, 1);
        assert_int_equal(atomic_load(&probe.output), NS_JOB_TIMER);
        probe_finish(job, &probe);

        close(ends[1]);
        socket_pair(ends);
        send_byte(ends[1]);
        struct probe quick = PROBE(NULL, ends[0]);
        job = probe_fd(tp, NS_JOB_READ | where[i], 20000, &quick);
        assert_latch(&quick.runs, 1);
        assert_int_equal(atomic_load(&quick.output), NS_JOB_READ);
        loop_passes(tp, 40000);
        assert_int_equal(latch_count(&quick.runs), 1);
        probe_finish(job, &quick);
        close(ends[1]);
    }
    pool_end(tp);
}

TEST(time_out_of_zero_means_none)
{
    struct ns_thrpool_t *tp = pool_of(1);
    int ends[2];
    socket_pair(ends);
    struct probe probe = PROBE(NULL, ends[0]);
    struct ns_job_t *job = probe_fd(tp, NS_JOB_READ, 0, &probe);
    loop_passes(tp, 50000);
    assert_int_equal(latch_count(&probe.runs), 0);
    send_byte(ends[1]);
    assert_latch(&probe.runs, 1);
    assert_int_equal(atomic_load(&probe.output), NS_JOB_READ);
    probe_finish(job, &probe);
    pool_end(tp);
    close(ends[1]);
}

#define TIME_OUT 0.060

static double armed_at;
static atomic_int early;

/* Drain, and count a time-out that fired early. */
static void check_time_out(struct ns_job_t *job)
{
    drain_own(job);
    double now = now_seconds();
    if (NS_JOB_IS_TIMER(ns_job_get_output_type(job)) && now - armed_at < TIME_OUT) {
        atomic_fetch_add(&early, 1);
    }
    armed_at = now;
}

TEST(each_firing_of_a_persist_job_starts_the_full_time_afresh)
{
    struct ns_thrpool_t *tp = pool_of(1);
    for (int i = 0; i < 2; i++) {
        int ends[2];
        socket_pair(ends);
        struct probe probe = PROBE(check_time_out, ends[0]);
        armed_at = now_seconds();
        struct ns_job_t *job =
            probe_fd(tp, NS_JOB_READ | NS_JOB_PERSIST | where[i], TIME_OUT * 1e6, &probe);
        long runs = 0;
        for (int n = 0; n < 5; n++) {
            loop_passes(tp, 30000);
            send_byte(ends[1]);
            assert_latch(&probe.runs, ++runs);
            runs = latch_count(&probe.runs);
        }
        /* No more data comes: only time-outs fire. */
        assert_latch(&probe.runs, runs + 2);
        assert_int_equal(atomic_load(&probe.output), NS_JOB_TIMER);
        probe_cancel(job, &probe);
        close(ends[1]);
    }
    assert_int_equal(atomic_load(&early), 0);
    pool_end(tp);
}

TEST(each_rearm_starts_the_full_time_afresh)
{
    struct ns_thrpool_t *tp = pool_of(1);
    int ends[2];
    socket_pair(ends);
    struct probe probe = PROBE(drain_own, ends[0]);
    struct ns_job_t *job = probe_fd(tp, NS_JOB_READ, TIME_OUT * 1e6, &probe);
    loop_passes(tp, 40000);
    send_byte(ends[1]);
    assert_latch(&probe.runs, 1);
    assert_int_equal(ns_job_wait(job), NS_SUCCESS);
    drain(ends[0]); /* if this thread was held up, the time was up before it sent */
    loop_passes(tp, 40000);
    double rearmed = now_seconds();
    assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
    assert_latch(&probe.runs, 2);
    assert_int_equal(atomic_load(&probe.output), NS_JOB_TIMER);
    assert_true(now_seconds() - rearmed >= TIME_OUT);
    probe_finish(job, &probe);
    pool_end(tp);
    close(ends[1]);
}

TEST(fm29_data_at_about_the_deadline_gives_one_true_answer)
{
    struct ns_thrpool_t *tp = pool_of(2);
    unsigned seed = 29;
    int times = 0, reads = 0;
    for (int i = 0; i < scaled(600); i++) {
        int ends[2];
        socket_pair(ends);
        struct probe probe = PROBE(NULL, ends[0]);
        ns_job_type_t where = i % 2 ? NS_JOB_THREAD : 0;
        double begin = now_seconds();
        struct ns_job_t *job = probe_fd(tp, NS_JOB_READ | where, 1000, &probe);
        seed = seed * 1103515245 + 12345;
        double at = begin + (700 + (seed >> 8) % 600) / 1e6;
        while (now_seconds() < at) {
            sched_yield();
        }
        send_byte(ends[1]);
        double sent = now_seconds();
        assert_latch(&probe.runs, 1);
        double seen = now_seconds();
        unsigned long output = atomic_load(&probe.output);
        if (output == NS_JOB_TIMER) {
            times++;
            assert_true(seen - begin >= 0.001);
            /* The deadline was no earlier than this. Data that was sent before it would have won.
             * */
            assert_true(sent > begin + 0.001);
        } else {
            reads++;
            assert_int_equal(output, NS_JOB_READ);
        }
        probe_finish(job, &probe);
        assert_int_equal(latch_count(&probe.runs), 1);
        close(ends[1]);
    }
    print_message("# %d times data, %d times the time-out\n", reads, times);
    pool_end(tp);
}

static atomic_long file_runs, file_time_outs;

static void note_output(struct ns_job_t *job)
{
    atomic_fetch_add(&file_runs, 1);
    atomic_fetch_add(&file_time_outs, NS_JOB_IS_TIMER(ns_job_get_output_type(job)) != 0);
}

/*
 * A file that poll(2) calls always ready is ready before any time-out.
 *
 * To see it fail: in EventLoop::rearm, let what is always ready wait for its time-out.
 */
TEST(a_file_with_a_time_out_is_ready_again_and_again_and_the_loop_goes_on)
{
    struct ns_thrpool_t *tp = pool_of(2);
    for (int threaded = 0; threaded < 2; threaded++) {
        struct timeval soon = {0, 1};
        struct ns_job_t *jobs[2];
        int ends[2];
        socket_pair(ends);
        atomic_store(&file_runs, 0);
        atomic_store(&file_time_outs, 0);
        for (int i = 0; i < 2; i++) {
            int fd = open(i ? "/" : "/proc/self/exe", O_RDONLY);
            assert_int_equal(ns_add_fd_timeout_job(tp, fd, &soon, NS_JOB_READ | NS_JOB_PERSIST |
                                                   (threaded ? NS_JOB_THREAD : 0), note_output, NULL,
                                                   &jobs[i]), NS_SUCCESS);
        }
        for (int i = 0; i < 50; i++) {
            long runs = atomic_load(&file_runs);
            struct probe probe = PROBE(finish_job, ends[0]);
            probe_fd(tp, NS_JOB_READ | NS_JOB_PRESERVE_FD, 0, &probe);
            loop_passes(tp, 100);
            send_byte(ends[1]);
            assert_latch(&probe.disposals, 1);
            drain(ends[0]);
            EVENTUALLY(atomic_load(&file_runs) > runs);
        }
        for (int i = 0; i < 2; i++) {
            assert_true(ns_job_cancel(jobs[i]) <= NS_RUNNING);
        }
        assert_int_equal(atomic_load(&file_time_outs), 0);
        close(ends[0]);
        close(ends[1]);
    }
    pool_end(tp);
}

static void stay_and_read(struct ns_job_t *job)
{
    stay_in_gate(ns_job_get_data(job));
    drain(ns_job_get_native_fd(job));
}

/*
 * Data that comes while the callback of a time-out runs does not fire the job before it is armed
 * again.
 *
 * To see it fail: have io::mode_of say Level always, and io::wanted count all jobs.
 */
TEST(fm26_a_threaded_job_whose_time_is_up_is_out_of_the_poller_while_it_runs)
{
    struct ns_thrpool_t *tp = pool_of(3);
    /* They live until the pool has ended, since a run may still be leaving them. */
    struct gate gates[2] = {GATE_INIT, GATE_INIT};
    for (int persist = 0; persist < 2; persist++) {
        struct gate *gate = &gates[persist];
        struct ns_job_t *job = NULL;
        struct timeval soon = {0, 2000};
        int ends[2];
        socket_pair(ends);
        assert_int_equal(ns_add_fd_timeout_job(tp, ends[0], &soon, NS_JOB_READ | NS_JOB_THREAD |
                                               (persist ? NS_JOB_PERSIST : 0), stay_and_read, gate,
                                               &job), NS_SUCCESS);
        assert_latch(&gate->begun, 1);
        assert_int_equal(ns_job_get_output_type(job), NS_JOB_TIMER);
        double cpu = cpu_seconds(), begin = now_seconds();
        send_byte(ends[1]);
        for (int i = 0; i < 50; i++) {
            loop_passes(tp, 2000);
        }
        /* No thread has anything to do. */
        assert_true((cpu_seconds() - cpu) / (now_seconds() - begin) < 0.5);
        assert_int_equal(latch_count(&gate->begun), 1);
        assert_int_equal(ns_job_get_output_type(job), NS_JOB_TIMER);
        latch_add(&gate->leave, 1);
        if (persist) {
            assert_latch(&gate->begun, 3);
        } else {
            assert_int_equal(ns_job_wait(job), NS_SUCCESS);
            assert_int_equal(latch_count(&gate->begun), 1);
        }
        assert_true(ns_job_cancel(job) <= NS_RUNNING);
        close(ends[1]);
    }
    pool_end(tp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(io_or_time_fires_but_not_both),
        cmocka_unit_test(time_out_of_zero_means_none),
        cmocka_unit_test(each_firing_of_a_persist_job_starts_the_full_time_afresh),
        cmocka_unit_test(each_rearm_starts_the_full_time_afresh),
        cmocka_unit_test(fm29_data_at_about_the_deadline_gives_one_true_answer),
        cmocka_unit_test(a_file_with_a_time_out_is_ready_again_and_again_and_the_loop_goes_on),
        cmocka_unit_test(fm26_a_threaded_job_whose_time_is_up_is_out_of_the_poller_while_it_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
