/* SPDX-License-Identifier: GPL-3.0-or-later */
/* NS_JOB_CADENCE: firings that do not drift, and what is missed. */
#include "harness.h"

enum { MOST = 64 };

/* When the callback of a job began and ended, and what it does. */
struct record {
    struct latch runs;
    double begun[MOST];
    double ended[MOST];
    double busy;                               /* seconds that each run takes */
    double first;                              /* and the first */
    void (*act)(struct ns_job_t *job, int run);
};

/* Be busy for so long. */
static void stay(double seconds)
{
    double end = now_seconds() + seconds;
    while (now_seconds() < end) {
        sched_yield();
    }
}

static void note_time(struct ns_job_t *job)
{
    struct record *record = ns_job_get_data(job);
    int run = (int)latch_count(&record->runs);
    if (run >= MOST) {
        return;
    }
    record->begun[run] = now_seconds();
    stay(run == 0 && record->first > 0 ? record->first : record->busy);
    if (record->act != NULL) {
        record->act(job, run);
    }
    record->ended[run] = now_seconds();
    latch_add(&record->runs, 1);
}

static struct ns_job_t *add_cadence(struct ns_thrpool_t *tp, ns_job_type_t type, long usec,
                                    struct record *record)
{
    struct timeval tv = {0, usec};
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_timeout_job(tp, &tv, type | NS_JOB_PERSIST | NS_JOB_CADENCE, note_time,
                                        record, &job), NS_SUCCESS);
    return job;
}

static void cancel(struct ns_job_t *job)
{
    ns_result_t result = ns_job_cancel(job);
    assert_true(result == NS_SUCCESS || result == NS_RUNNING);
}

TEST(it_is_for_persistent_timers_with_a_time)
{
    struct ns_thrpool_t *tp = pool_logging_to(1, recording_log);
    const ns_job_type_t both = NS_JOB_PERSIST | NS_JOB_CADENCE;
    struct timeval some = {0, 1000};
    struct ns_job_t *job = NULL;
    int ends[2];
    socket_pair(ends);
    assert_int_equal(NS_JOB_CADENCE, 0x800);
    assert_int_equal(ns_add_timeout_job(tp, &some, NS_JOB_CADENCE, do_nothing, NULL, &job),
                     NS_INVALID_REQUEST);
    assert_true(logged("ns_add_timeout_job: ") && logged("CADENCE"));
    assert_int_equal(ns_add_timeout_job(tp, &at_once, both, do_nothing, NULL, &job),
                     NS_INVALID_REQUEST);
    assert_true(logged("ns_add_timeout_job: ") && logged("CADENCE"));
    assert_int_equal(ns_create_job(tp, both | NS_JOB_TIMER, do_nothing, &job), NS_INVALID_REQUEST);
    assert_int_equal(ns_add_job(tp, both | NS_JOB_TIMER, do_nothing, NULL, &job),
                     NS_INVALID_REQUEST);
    assert_int_equal(ns_add_job(tp, both | NS_JOB_THREAD, do_nothing, NULL, &job),
                     NS_INVALID_REQUEST);
    assert_int_equal(ns_add_fd_job(tp, ends[0], both | NS_JOB_READ, do_nothing, NULL, &job),
                     NS_INVALID_REQUEST);
    assert_int_equal(ns_add_fd_timeout_job(tp, ends[0], &some, both | NS_JOB_READ, do_nothing, NULL,
                                           &job), NS_INVALID_REQUEST);
    assert_int_equal(ns_add_signal_job(tp, SIGUSR1, both, do_nothing, NULL, &job),
                     NS_INVALID_REQUEST);
    assert_null(job);
    assert_int_equal(ns_add_timeout_job(tp, &far_away, both | NS_JOB_THREAD | NS_JOB_UNARMED,
                                        do_nothing, NULL, &job), NS_SUCCESS);
    assert_int_equal(ns_job_get_type(job), both | NS_JOB_THREAD | NS_JOB_TIMER);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    pool_end(tp);
    close(ends[0]);
    close(ends[1]);
}

TEST(no_firing_is_early_and_none_drifts)
{
    enum { RUNS = 25, LAST = 5, TRIES = 40 };
    const double interval = 0.02; /* more than others hold us up, mostly */
    for EACH_THREAD(i) {
        struct ns_thrpool_t *tp = pool_of(1);
        /* A callback takes a third of the interval: counted from each return, the last ones would come some
         * seven intervals late. Other programs may hold us up, but not each time. */
        int in_time = 0;
        for (int n = 0; n < TRIES && !in_time; n++) {
            struct record record = {.runs = LATCH_INIT, .busy = interval / 3};
            double begin = now_seconds();
            struct ns_job_t *job = add_cadence(tp, where[i], 20000, &record);
            assert_latch(&record.runs, RUNS);
            cancel(job);
            for (int run = 0; run < RUNS; run++) {
                double due = (run + 1) * interval;
                assert_true(record.begun[run] - begin >= due);
                in_time |= run >= RUNS - LAST && record.begun[run] - begin < due + interval;
            }
            ns_thrpool_shutdown(tp);
            assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
            ns_thrpool_destroy(tp);
            tp = pool_of(1);
        }
        assert_true(in_time);
        pool_end(tp);
    }
}

/* See that `missed` ended in period k of a cadence that began at `begin` or, at the latest, at
 * `after`; that there was one firing for all that was missed; and that the next, number `next`, came
 * in its own time. */
static void on_the_grid(double missed, double begin, double after, double interval, double next)
{
    int k = (int)((missed - after) / interval);
    assert_true(next - begin >= (k + 1) * interval);
}

TEST(what_a_callback_misses_is_one_firing)
{
    const double interval = 0.01;
    for EACH_THREAD(i) {
        struct ns_thrpool_t *tp = pool_of(1);
        struct record record = {.runs = LATCH_INIT, .first = 3.5 * interval};
        double begin = now_seconds();
        struct ns_job_t *job = add_cadence(tp, where[i], 10000, &record);
        double after = now_seconds();
        assert_latch(&record.runs, 4);
        cancel(job);
        pool_end(tp);
        /* The second is for what the first missed; the third is due in its time. */
        on_the_grid(record.ended[0], begin, after, interval, record.begun[2]);
    }
}

TEST(what_comes_while_the_loop_stands_still_is_one_firing)
{
    const double interval = 0.01;
    for EACH_THREAD(i) {
        struct ns_thrpool_t *tp = pool_of(1);
        struct record record = {.runs = LATCH_INIT};
        struct gate gate = GATE_INIT;
        /* The loop has the job, and stands still. */
        double begin = now_seconds();
        struct ns_job_t *job = add_cadence(tp, where[i], 10000, &record);
        double after = now_seconds();
        struct ns_job_t *block = occupy(tp, 0, &gate);
        /* The one worker has run what fired before. */
        struct latch passed = LATCH_INIT;
        assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, count_and_finish, &passed, NULL), NS_SUCCESS);
        assert_latch(&passed, 1);
        long runs = latch_count(&record.runs);
        stay(4.5 * interval);
        double released = now_seconds(); /* the worker may begin a period later than the loop fires */
        latch_add(&gate.leave, 1);
        assert_latch(&record.runs, runs + 2);
        cancel(job);
        finish_idle(block);
        pool_end(tp);
        if (runs > MOST - 2) {
            continue; /* the machine itself stood still */
        }
        on_the_grid(released, begin, after, interval, record.begun[runs + 1]);
    }
}

TEST(it_counts_from_the_arming)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct record record = {.runs = LATCH_INIT};
    struct timeval tv = {0, 5000};
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_timeout_job(tp, &tv, NS_JOB_PERSIST | NS_JOB_CADENCE | NS_JOB_UNARMED,
                                        note_time, &record, &job), NS_SUCCESS);
    stay(0.02);
    double begin = now_seconds();
    assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
    assert_latch(&record.runs, 3);
    for (int run = 0; run < 3; run++) {
        assert_true(record.begun[run] - begin >= 0.005 * (run + 1));
    }
    /* As on every PERSIST job. */
    cancel(job);
    pool_end(tp);
}

static struct timeval half = {0, 15000};
static atomic_int results;

static void rest_once(struct ns_job_t *job, int run)
{
    if (run == 0) {
        atomic_fetch_add(&results, ns_job_rearm_after(job, &half) != NS_SUCCESS);
    }
}

static void change_once(struct ns_job_t *job, int run)
{
    if (run == 0) {
        atomic_fetch_add(&results, ns_job_rearm_for(job, 0, &half) != NS_SUCCESS);
        atomic_fetch_add(&results, ns_job_rearm_for(job, 0, &half) != NS_INVALID_STATE);
    } else if (run == 1) {
        atomic_fetch_add(&results, ns_job_rearm_for(job, 0, &at_once) != NS_INVALID_REQUEST);
    }
}

TEST(it_counts_anew_after_a_delay_and_with_another_time)
{
    for EACH_THREAD(i) {
        struct ns_thrpool_t *tp = pool_of(1);
        struct record rests = {.runs = LATCH_INIT, .act = rest_once};
        struct ns_job_t *job = add_cadence(tp, where[i], 5000, &rests);
        assert_latch(&rests.runs, 4);
        cancel(job);
        assert_true(rests.begun[1] - rests.begun[0] >= 0.02);
        assert_true(rests.begun[2] - rests.begun[0] >= 0.025);
        struct record changes = {.runs = LATCH_INIT, .act = change_once};
        job = add_cadence(tp, where[i], 5000, &changes);
        assert_latch(&changes.runs, 4);
        cancel(job);
        pool_end(tp);
        assert_true(changes.begun[1] - changes.begun[0] >= 0.015);
        assert_true(changes.begun[2] - changes.begun[0] >= 0.030);
        assert_true(changes.begun[3] - changes.begun[0] >= 0.045);
        assert_int_equal(atomic_load(&results), 0);
    }
}

TEST(in_a_group_too)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct ns_group_t *group = NULL;
    struct record record = {.runs = LATCH_INIT, .first = 0.035};
    struct timeval tv = {0, 10000};
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_group_new(tp, 1, NULL, NULL, &group), NS_SUCCESS);
    assert_int_equal(ns_add_timeout_job(tp, &tv, NS_JOB_PERSIST | NS_JOB_CADENCE | NS_JOB_UNARMED,
                                        note_time, &record, &job), NS_SUCCESS);
    assert_int_equal(ns_job_set_group(job, group), NS_SUCCESS);
    double begin = now_seconds();
    assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
    double after = now_seconds();
    assert_latch(&record.runs, 4);
    cancel(job);
    ns_group_release(group);
    pool_end(tp);
    on_the_grid(record.ended[0], begin, after, 0.01, record.begun[2]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_for_persistent_timers_with_a_time),
        cmocka_unit_test(no_firing_is_early_and_none_drifts),
        cmocka_unit_test(what_a_callback_misses_is_one_firing),
        cmocka_unit_test(what_comes_while_the_loop_stands_still_is_one_firing),
        cmocka_unit_test(it_counts_from_the_arming),
        cmocka_unit_test(it_counts_anew_after_a_delay_and_with_another_time),
        cmocka_unit_test(in_a_group_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
