/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The statistics of a pool: each field, the struct's sizes, who may ask and when, and the text.
 * test-random compares them with its model at the end of each pool; test-prometheus.sh hands the text to
 * Prometheus; test-stats-forks.c asks in a child.
 *
 * To see it fail: leave out count_disposed in EventLoop::detach for one kind; count a group's job before it is
 * added; in Shared::note_busy, look before the worker says that it is busy; in Text::write_str, write all. */
#include "harness.h"

static struct ns_thrpool_stats stats_of(struct ns_thrpool_t *tp)
{
    struct ns_thrpool_stats stats;
    memset(&stats, 0xff, sizeof stats);
    ns_thrpool_stats_init(&stats, sizeof stats);
    assert_int_equal(ns_thrpool_get_stats(tp, &stats), NS_SUCCESS);
    assert_int_equal(stats.size, sizeof stats);
    assert_int_equal(stats.jobs_made, stats.jobs_disposed + stats.live_run_now + stats.live_io +
                                          stats.live_timers + stats.live_signals);
    return stats;
}

#define HAS(tp, field, value) (stats_of(tp).field == (uint64_t)(value))

/* A job that stays until it is let go. */
static struct latch here = LATCH_INIT, gate = LATCH_INIT;

static void stay(struct ns_job_t *job)
{
    latch_add(&here, 1);
    latch_reaches(&gate, 1);
    ns_job_done(job);
}

static void reset_latches(void)
{
    here.count = gate.count = 0;
}

static void idle(struct ns_job_t *job)
{
    UNUSED(job);
}

TEST(the_layout_is_final)
{
    struct first {
        size_t size;
        uint64_t first; /* where the ABI puts it */
    };
    const size_t first = offsetof(struct first, first);
    assert_int_equal(offsetof(struct ns_thrpool_stats, size), 0);
    assert_int_equal(offsetof(struct ns_thrpool_stats, jobs_made), first);
    assert_int_equal(offsetof(struct ns_thrpool_stats, refused_overload), first + 8 * 18);
    assert_int_equal(offsetof(struct ns_thrpool_stats, queue_loop_ns), first + 8 * 19);
    assert_int_equal(offsetof(struct ns_thrpool_stats, late_ns), first + 8 * (19 + 4 * 64));
    assert_int_equal(offsetof(struct ns_thrpool_stats, queue_loop_sum), first + 8 * (19 + 5 * 64));
    assert_int_equal(sizeof(struct ns_thrpool_stats), first + 8 * (19 + 5 * 64 + 7));
}

TEST(a_new_pool_has_done_nothing)
{
    struct ns_thrpool_t *tp = pool_of(3);
    struct ns_thrpool_stats stats = stats_of(tp);
    assert_int_equal(stats.jobs_made, 0);
    assert_int_equal(stats.runs_loop + stats.runs_worker, 0);
    assert_int_equal(stats.requests + stats.loop_queue + stats.work_queue + stats.work_queue_max, 0);
    assert_int_equal(stats.workers, 3);
    assert_int_equal(stats.workers_busy, 0);
    assert_int_equal(stats.workers_busy_max, 0);
    assert_int_equal(stats.refused_overload, 0);
    assert_int_equal(stats.wakes, 0);
    pool_end(tp);
}

TEST(jobs_live_by_kind_and_are_disposed_of)
{
    struct ns_thrpool_t *tp = pool_of(2);
    struct ns_job_t *jobs[5];
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    for EACH_THREAD(i) {
        struct ns_thrpool_stats before = stats_of(tp);
        assert_int_equal(ns_create_job(tp, where[i], idle, &jobs[0]), NS_SUCCESS);
        assert_int_equal(ns_add_timeout_job(tp, &far_away, where[i], idle, NULL, &jobs[1]), NS_SUCCESS);
        assert_int_equal(ns_add_fd_job(tp, pipes[0], NS_JOB_READ | NS_JOB_PRESERVE_FD | where[i], idle,
                                       NULL, &jobs[2]), NS_SUCCESS);
        assert_int_equal(ns_add_fd_timeout_job(tp, pipes[0], &far_away, NS_JOB_READ |
                                               NS_JOB_PRESERVE_FD | where[i], idle, NULL, &jobs[3]),
                         NS_SUCCESS);
        assert_int_equal(ns_add_signal_job(tp, SIGUSR1, where[i], idle, NULL, &jobs[4]), NS_SUCCESS);
        struct ns_thrpool_stats now = stats_of(tp);
        assert_int_equal(now.jobs_made, before.jobs_made + 5);
        assert_int_equal(now.live_run_now, 1);
        assert_int_equal(now.live_timers, 1);
        assert_int_equal(now.live_io, 2);
        assert_int_equal(now.live_signals, 1);
        for (int job = 0; job < 5; job++) {
            assert_int_equal(ns_job_cancel(jobs[job]), NS_SUCCESS);
        }
        EVENTUALLY(HAS(tp, jobs_disposed, before.jobs_disposed + 5));
        now = stats_of(tp);
        assert_int_equal(now.live_run_now + now.live_timers + now.live_io + now.live_signals, 0);
    }
    close(pipes[0]);
    close(pipes[1]);
    pool_end(tp);
}

TEST(runs_are_counted_where_they_happen)
{
    struct ns_thrpool_t *tp = pool_of(2);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, finish_job, NULL, NULL), NS_SUCCESS);
        assert_int_equal(ns_add_job(tp, NS_JOB_NONE, finish_job, NULL, NULL), NS_SUCCESS);
        assert_int_equal(ns_add_timeout_job(tp, &at_once, NS_JOB_NONE, finish_job, NULL, NULL),
                         NS_SUCCESS);
    }
    void *data[50] = {0};
    assert_int_equal(ns_add_jobs(tp, NS_JOB_THREAD, finish_job, 50, data, NULL), NS_SUCCESS);
    EVENTUALLY(HAS(tp, jobs_disposed, 350));
    struct ns_thrpool_stats stats = stats_of(tp);
    assert_int_equal(stats.jobs_made, 350);
    assert_int_equal(stats.runs_worker, 150);
    assert_int_equal(stats.runs_loop, 200);
    assert_true(stats.turns > 0);
    assert_true(stats.waits >= stats.turns);
    pool_end(tp);
}

TEST(jobs_of_groups_count_too)
{
    struct ns_thrpool_t *tp = pool_of(2);
    for (size_t width = 0; width < 3; width++) {
        struct ns_thrpool_stats before = stats_of(tp);
        struct ns_group_t *group;
        assert_int_equal(ns_group_new(tp, width, NULL, NULL, &group), NS_SUCCESS);
        assert_int_equal(ns_group_suspend(group), NS_SUCCESS);
        for EACH_THREAD(i) {
            assert_int_equal(ns_add_group_job(group, where[i], finish_job, NULL, NULL), NS_SUCCESS);
        }
        struct ns_job_t *job;
        assert_int_equal(ns_add_timeout_job(tp, &far_away, NS_JOB_UNARMED, idle, NULL, &job), NS_SUCCESS);
        assert_int_equal(ns_job_set_group(job, group), NS_SUCCESS);
        assert_int_equal(stats_of(tp).jobs_made, before.jobs_made + 3);
        assert_int_equal(stats_of(tp).live_run_now, 2);
        assert_int_equal(stats_of(tp).live_timers, 1);
        assert_int_equal(ns_group_resume(group), NS_SUCCESS);
        EVENTUALLY(HAS(tp, jobs_disposed, before.jobs_disposed + 2));
        assert_int_equal(ns_group_cancel(group), NS_SUCCESS);
        EVENTUALLY(HAS(tp, jobs_disposed, before.jobs_disposed + 3));
        /* What is refused was never made. */
        assert_int_equal(ns_add_group_job(group, NS_JOB_THREAD, idle, NULL, NULL), NS_DELETING);
        assert_int_equal(stats_of(tp).jobs_made, before.jobs_made + 3);
        ns_group_release(group);
    }
    pool_end(tp);
}

TEST(queues_and_busy_workers_and_their_maxima)
{
    enum { WORKERS = 3, QUEUED = 40 };
    struct ns_thrpool_t *tp = pool_of(WORKERS);
    reset_latches();
    for (int i = 0; i < WORKERS + QUEUED; i++) {
        assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, stay, NULL, NULL), NS_SUCCESS);
    }
    assert_latch(&here, WORKERS);
    struct ns_thrpool_stats stats = stats_of(tp);
    assert_int_equal(stats.workers_busy, WORKERS);
    assert_int_equal(stats.workers_busy_max, WORKERS);
    assert_int_equal(stats.work_queue, QUEUED);
    assert_true(stats.work_queue_max >= QUEUED);
    assert_int_equal(stats.runs_worker, WORKERS);
    latch_add(&gate, 1);
    EVENTUALLY(HAS(tp, jobs_disposed, WORKERS + QUEUED));
    EVENTUALLY(HAS(tp, workers_busy, 0));
    stats = stats_of(tp);
    assert_int_equal(stats.workers_busy_max, WORKERS);
    assert_true(stats.work_queue_max >= QUEUED);
    ns_thrpool_reset_stats(tp);
    stats = stats_of(tp);
    assert_int_equal(stats.workers_busy_max, 0);
    assert_int_equal(stats.work_queue_max, 0);
    assert_int_equal(stats.jobs_made, WORKERS + QUEUED);
    pool_end(tp);
}

TEST(workers_see_the_maximum_of_busy_workers_themselves)
{
    /* Nobody asks while they are busy. */
    enum { WORKERS = 4 };
    for (int round = 0; round < scaled(200); round++) {
        struct ns_thrpool_t *tp = pool_of(WORKERS);
        reset_latches();
        for (int i = 0; i < WORKERS; i++) {
            assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, stay, NULL, NULL), NS_SUCCESS);
        }
        assert_latch(&here, WORKERS);
        latch_add(&gate, 1);
        ns_thrpool_shutdown(tp);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        assert_int_equal(stats_of(tp).workers_busy_max, WORKERS);
        assert_int_equal(stats_of(tp).workers, 0);
        ns_thrpool_destroy(tp);
    }
}

TEST(a_blocked_loop_shows_in_its_queues)
{
    struct ns_thrpool_t *tp = pool_of(1);
    reset_latches();
    assert_int_equal(ns_add_job(tp, NS_JOB_NONE, stay, NULL, NULL), NS_SUCCESS);
    assert_latch(&here, 1);
    for (int i = 0; i < 7; i++) {
        assert_int_equal(ns_add_job(tp, NS_JOB_NONE, finish_job, NULL, NULL), NS_SUCCESS);
    }
    for (int i = 0; i < 5; i++) {
        assert_int_equal(ns_add_timeout_job(tp, &at_once, NS_JOB_NONE, finish_job, NULL, NULL), NS_SUCCESS);
    }
    struct ns_thrpool_stats stats = stats_of(tp);
    assert_int_equal(stats.loop_queue, 7);
    assert_int_equal(stats.requests, 5);
    assert_int_equal(stats.runs_loop, 1);
    latch_add(&gate, 1);
    EVENTUALLY(HAS(tp, jobs_disposed, 13));
    assert_int_equal(stats_of(tp).loop_queue + stats_of(tp).requests, 0);
    pool_end(tp);
}

TEST(wakes_count_adds_to_a_sleeping_loop)
{
    struct ns_thrpool_t *tp = pool_of(1);
    uint64_t wakes = 0;
    for (int i = 0; i < 1000 && wakes < 5; i++) {
        assert_int_equal(ns_add_job(tp, NS_JOB_NONE, finish_job, NULL, NULL), NS_SUCCESS);
        EVENTUALLY(HAS(tp, jobs_disposed, i + 1));
        wakes = stats_of(tp).wakes;
        assert_true(wakes <= (uint64_t)i + 1);
    }
    assert_int_equal(wakes, 5);
    pool_end(tp);
}

TEST(refusals_of_overload_are_counted)
{
    struct ns_thrpool_config config;
    struct ns_thrpool_options options;
    ns_thrpool_config_init(&config);
    config.log_fct = quiet_log;
    ns_thrpool_options_init(&options, sizeof options);
    options.queue_limit = 2;
    struct ns_thrpool_t *tp = ns_thrpool_new_with(&config, &options);
    assert_non_null(tp);
    reset_latches();
    assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, stay, NULL, NULL), NS_SUCCESS);
    assert_latch(&here, 1);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, finish_job, NULL, NULL), NS_SUCCESS);
    }
    assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, finish_job, NULL, NULL), NS_OVERLOADED);
    assert_int_equal(ns_add_jobs(tp, NS_JOB_THREAD, finish_job, 3, NULL, NULL), NS_OVERLOADED);
    struct ns_group_t *group;
    assert_int_equal(ns_group_new(tp, 1, NULL, NULL, &group), NS_SUCCESS);
    assert_int_equal(ns_group_set_limit(group, 1), NS_SUCCESS);
    assert_int_equal(ns_group_suspend(group), NS_SUCCESS);
    assert_int_equal(ns_add_group_job(group, NS_JOB_THREAD, finish_job, NULL, NULL), NS_SUCCESS);
    assert_int_equal(ns_add_group_job(group, NS_JOB_THREAD, finish_job, NULL, NULL), NS_OVERLOADED);
    assert_int_equal(stats_of(tp).refused_overload, 3);
    assert_int_equal(stats_of(tp).jobs_made, 4);
    latch_add(&gate, 1);
    assert_int_equal(ns_group_cancel(group), NS_SUCCESS);
    ns_group_release(group);
    pool_end(tp);
}

TEST(any_size_is_written_as_far_as_it_goes)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct ns_job_t *job;
    assert_int_equal(ns_add_job(tp, NS_JOB_UNARMED, idle, NULL, &job), NS_SUCCESS);
    struct { struct ns_thrpool_stats stats; char more[64]; } room, want;
    const size_t sizes[] = {sizeof(size_t), sizeof(size_t) + 1, offsetof(struct ns_thrpool_stats, runs_loop),
                            offsetof(struct ns_thrpool_stats, late_ns), sizeof(struct ns_thrpool_stats),
                            sizeof room - 1, sizeof room};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        memset(&room, 0xff, sizeof room);
        ns_thrpool_stats_init(&room.stats, sizes[i]);
        assert_int_equal(room.stats.size, sizes[i]);
        for (size_t at = sizeof(size_t); at < sizeof room; at++) {
            assert_int_equal(((unsigned char *)&room)[at], at < sizes[i] ? 0 : 0xff);
        }
        memset((char *)&room + sizeof(size_t), 0xff, sizeof room - sizeof(size_t));
        assert_int_equal(ns_thrpool_get_stats(tp, &room.stats), NS_SUCCESS);
        memset(&want, 0, sizeof want);
        want.stats = stats_of(tp);
        /* The loop may have turned meanwhile. */
        want.stats.turns = room.stats.turns;
        want.stats.waits = room.stats.waits;
        want.stats.size = sizes[i];
        memset((char *)&want + sizes[i], 0xff, sizeof want - sizes[i]);
        assert_memory_equal(&room, &want, sizeof room);
    }
    ns_thrpool_stats_init(NULL, sizeof room);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    pool_end(tp);
}

TEST(bad_arguments_are_refused)
{
    struct ns_thrpool_stats stats;
    struct ns_thrpool_t *tp = pool_of(1);
    char text[4];
    ns_thrpool_stats_init(&stats, sizeof stats);
    assert_int_equal(ns_thrpool_get_stats(NULL, &stats), NS_INVALID_REQUEST);
    assert_int_equal(ns_thrpool_get_stats(tp, NULL), NS_INVALID_REQUEST);
    const size_t sizes[] = {0, 1, sizeof(size_t) - 1, 1 << 20, SIZE_MAX};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        stats.size = sizes[i];
        assert_int_equal(ns_thrpool_get_stats(tp, &stats), NS_INVALID_REQUEST);
        assert_int_equal(stats.jobs_made, 0);
    }
    ns_thrpool_stats_init(&stats, sizeof(size_t) - 1);
    assert_int_equal(stats.size, SIZE_MAX);
    ns_thrpool_reset_stats(NULL);
    assert_int_equal(ns_thrpool_format_stats(tp, NULL, sizeof text), 0);
    pool_end(tp);
}

static struct ns_thrpool_stats seen_inside;
static struct latch inside = LATCH_INIT;

static void ask_inside(struct ns_job_t *job)
{
    ns_thrpool_stats_init(&seen_inside, sizeof seen_inside);
    if (ns_thrpool_get_stats(ns_job_get_tp(job), &seen_inside) == NS_SUCCESS) {
        latch_add(&inside, 1);
    }
    ns_job_done(job);
}

TEST(callbacks_may_ask)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct ns_job_t *job;
    for EACH_THREAD(i) {
        inside.count = 0;
        /* Once in the callback, once in the done callback, in which it counts as disposed of. */
        assert_int_equal(ns_add_job(tp, where[i] | NS_JOB_UNARMED, ask_inside, NULL, &job), NS_SUCCESS);
        arm_with(job, ask_inside);
        assert_latch(&inside, 2);
        assert_int_equal(seen_inside.jobs_disposed, i + 1);
        assert_int_equal(seen_inside.live_run_now, 0);
        assert_int_equal(i == 0 ? seen_inside.runs_loop : seen_inside.runs_worker, 1);
    }
    pool_end(tp);
}

static int lines_with(const char *text, const char *what)
{
    int count = 0;
    for (const char *at = text; (at = strstr(at, what)) != NULL; at++) {
        count++;
    }
    return count;
}

TEST(the_text_has_all_pools_and_keeps_to_snprintfs_rule)
{
    static char text[1 << 16], part[1 << 16];
    struct ns_thrpool_config config;
    struct ns_thrpool_options options;
    ns_thrpool_config_init(&config);
    config.log_fct = quiet_log;
    ns_thrpool_options_init(&options, sizeof options);
    options.name = "a\"b\\c\n\xff";
    struct ns_thrpool_t *one = pool_of(1), *odd = ns_thrpool_new_with(&config, &options);
    assert_non_null(odd);
    size_t length = ns_thrpool_format_stats(one, text, sizeof text);
    assert_int_equal(length, strlen(text));
    assert_int_equal(lines_with(text, "\nnunc_stans_workers{pool=\"ns-"), 1);
    assert_int_equal(lines_with(text, "# TYPE nunc_stans_jobs_made_total counter\n"), 1);
    assert_int_equal(lines_with(text, "# TYPE "), 19);
    assert_int_equal(lines_with(text, "# HELP "), 19);
    assert_int_equal(text[length - 1], '\n');
    for (size_t size = 0; size < 100; size++) {
        memset(part, 'x', sizeof part);
        assert_int_equal(ns_thrpool_format_stats(one, size ? part : NULL, size), length);
        if (size > 0) {
            assert_memory_equal(part, text, size - 1);
            assert_int_equal(part[size - 1], 0);
        }
        assert_int_equal(part[size], 'x');
    }
    length = ns_thrpool_format_stats(NULL, text, sizeof text);
    assert_int_equal(length, strlen(text));
    assert_int_equal(lines_with(text, "\nnunc_stans_workers{"), 2);
    assert_int_equal(lines_with(text, "# TYPE "), 19);
    assert_int_equal(lines_with(text, "\nnunc_stans_workers{pool=\"a\\\"b\\\\c\\n\xef\xbf\xbd-"), 1);
    pool_end(odd);
    ns_thrpool_format_stats(NULL, text, sizeof text);
    assert_int_equal(lines_with(text, "\nnunc_stans_workers{"), 1);
    pool_end(one);
    ns_thrpool_format_stats(NULL, text, sizeof text);
    assert_int_equal(lines_with(text, "\nnunc_stans_workers{"), 0);
}

static atomic_int reading;

static void *read_all(void *arg)
{
    struct ns_thrpool_t *tp = arg;
    static _Thread_local char text[1 << 18];
    uint64_t made = 0, disposed = 0;
    while (atomic_load(&reading)) {
        struct ns_thrpool_stats stats;
        ns_thrpool_stats_init(&stats, sizeof stats);
        if (ns_thrpool_get_stats(tp, &stats) != NS_SUCCESS || stats.jobs_made < made ||
            stats.jobs_disposed < disposed || ns_thrpool_format_stats(NULL, text, sizeof text) == 0) {
            return (void *)1;
        }
        made = stats.jobs_made;
        disposed = stats.jobs_disposed;
    }
    return NULL;
}

TEST(four_threads_read_during_a_flood_while_pools_come_and_go)
{
    enum { READERS = 4 };
    struct ns_thrpool_t *tp = pool_of(2);
    pthread_t readers[READERS];
    int jobs = scaled(100000);
    atomic_store(&reading, 1);
    for (int i = 0; i < READERS; i++) {
        assert_int_equal(pthread_create(&readers[i], NULL, read_all, tp), 0);
    }
    for (int i = 0; i < jobs; i++) {
        assert_int_equal(ns_add_job(tp, where[i % 2], finish_job, NULL, NULL), NS_SUCCESS);
        if (i % 2000 == 0) {
            pool_end(pool_of(1));
        }
    }
    atomic_store(&reading, 0);
    for (int i = 0; i < READERS; i++) {
        void *bad;
        pthread_join(readers[i], &bad);
        assert_null(bad);
    }
    EVENTUALLY(HAS(tp, jobs_disposed, jobs));
    assert_int_equal(stats_of(tp).runs_loop + stats_of(tp).runs_worker, jobs);
    pool_end(tp);
}

TEST(there_may_be_more_pools_than_the_first_places)
{
    static char text[1 << 19];
    enum { POOLS = 70 };
    struct ns_thrpool_t *pools[POOLS];
    for (int i = 0; i < POOLS; i++) {
        pools[i] = pool_of(1);
    }
    assert_true(ns_thrpool_format_stats(NULL, text, sizeof text) < sizeof text);
    assert_int_equal(lines_with(text, "\nnunc_stans_workers{"), POOLS);
    for (int i = 0; i < POOLS; i++) {
        pool_end(pools[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_layout_is_final),
        cmocka_unit_test(a_new_pool_has_done_nothing),
        cmocka_unit_test(jobs_live_by_kind_and_are_disposed_of),
        cmocka_unit_test(runs_are_counted_where_they_happen),
        cmocka_unit_test(jobs_of_groups_count_too),
        cmocka_unit_test(queues_and_busy_workers_and_their_maxima),
        cmocka_unit_test(workers_see_the_maximum_of_busy_workers_themselves),
        cmocka_unit_test(a_blocked_loop_shows_in_its_queues),
        cmocka_unit_test(wakes_count_adds_to_a_sleeping_loop),
        cmocka_unit_test(refusals_of_overload_are_counted),
        cmocka_unit_test(any_size_is_written_as_far_as_it_goes),
        cmocka_unit_test(bad_arguments_are_refused),
        cmocka_unit_test(callbacks_may_ask),
        cmocka_unit_test(the_text_has_all_pools_and_keeps_to_snprintfs_rule),
        cmocka_unit_test(four_threads_read_during_a_flood_while_pools_come_and_go),
        cmocka_unit_test(there_may_be_more_pools_than_the_first_places),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
