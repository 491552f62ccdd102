/* SPDX-License-Identifier: GPL-3.0-or-later */
/* queue_limit: what counts against it, what is refused, and what never is. */
#include "harness.h"

#include <sys/wait.h>

enum { LIMIT = 10 };

/* A logger that counts refusals, at their priority. */
static atomic_int refusals_logged;

static void log_refusals(int priority, const char *format, va_list args)
{
    char text[256];
    vsnprintf(text, sizeof text, format, args);
    if (strstr(text, "the queue is full") != NULL) {
        atomic_fetch_add(&refusals_logged, priority == LOG_DEBUG ? 1 : 1000);
    }
}

static struct ns_thrpool_t *limited_pool(size_t workers, size_t limit)
{
    struct ns_thrpool_config config;
    struct ns_thrpool_options options;
    ns_thrpool_config_init(&config);
    ns_thrpool_options_init(&options, sizeof options);
    config.max_threads = workers;
    config.log_fct = log_refusals;
    config.calloc_fct = counting_calloc;
    config.free_fct = counting_free;
    options.queue_limit = limit;
    struct ns_thrpool_t *tp = ns_thrpool_new_with(&config, &options);
    assert_non_null(tp);
    return tp;
}

/* Add jobs until one is refused, and say how many were not. The out pointers go to jobs, if any. */
static int fill(struct ns_thrpool_t *tp, ns_job_type_t type, ns_job_func_t func, void *data,
                struct ns_job_t **jobs)
{
    for (int added = 0;; added++) {
        struct ns_job_t *job = (struct ns_job_t *)tp;
        ns_result_t result = ns_add_job(tp, type, func, data, &job);
        if (result == NS_OVERLOADED) {
            assert_null(job);
            return added;
        }
        assert_int_equal(result, NS_SUCCESS);
        assert_true(added < 10 * LIMIT);
        if (jobs != NULL) {
            jobs[added] = job;
        }
    }
}

TEST(an_add_that_finds_so_many_waiting_is_refused_and_nothing_happens)
{
    struct ns_thrpool_t *tp = limited_pool(1, LIMIT);
    struct gate gate = GATE_INIT;
    struct latch runs = LATCH_INIT;
    struct ns_job_t *first = occupy(tp, NS_JOB_THREAD, &gate);
    assert_int_equal(fill(tp, NS_JOB_THREAD, count_and_finish, &runs, NULL), LIMIT);
    long blocks = atomic_load(&blocks_out);
    int logged_before = atomic_load(&refusals_logged);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(ns_add_job(tp, NS_JOB_THREAD | (i % 2 ? NS_JOB_PERSIST : 0),
                                    count_and_finish, &runs, NULL), NS_OVERLOADED);
    }
    assert_int_equal(atomic_load(&blocks_out), blocks);
    assert_int_equal(atomic_load(&refusals_logged), logged_before + 100);
    latch_add(&gate.leave, 1);
    finish_idle(first);
    assert_latch(&runs, LIMIT);
    /* There is room again. */
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, count_and_finish, &runs, NULL), NS_SUCCESS);
        assert_latch(&runs, LIMIT + i + 1);
    }
    pool_end(tp);
    assert_int_equal(atomic_load(&blocks_out), 0);
}

TEST(other_jobs_neither_count_nor_are_refused)
{
    struct ns_thrpool_t *tp = limited_pool(1, LIMIT);
    struct gate gate = GATE_INIT;
    struct latch runs = LATCH_INIT;
    struct ns_job_t *first = occupy(tp, NS_JOB_THREAD, &gate);
    struct ns_group_t *group = NULL;
    assert_int_equal(ns_group_new(tp, 1, NULL, NULL, &group), NS_SUCCESS);
    enum { EACH = 3 * LIMIT };
    int fds[2];
    socket_pair(fds);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < EACH; i++) {
            assert_int_equal(ns_add_job(tp, 0, count_and_finish, &runs, NULL), NS_SUCCESS);
            assert_int_equal(ns_add_timeout_job(tp, &at_once, NS_JOB_THREAD, count_and_finish, &runs,
                                                NULL), NS_SUCCESS);
            assert_int_equal(ns_add_fd_job(tp, fds[0], NS_JOB_WRITE | NS_JOB_PRESERVE_FD
                                           | NS_JOB_THREAD, count_and_finish, &runs, NULL),
                             NS_SUCCESS);
            assert_int_equal(ns_add_group_job(group, NS_JOB_THREAD, count_and_finish, &runs, NULL),
                             NS_SUCCESS);
        }
        assert_latch(&runs, (round + 1) * EACH);
        loop_passes(tp, 0);
        if (round == 0) {
            /* None of these has taken room. */
            assert_int_equal(fill(tp, NS_JOB_THREAD, count_and_finish, &runs, NULL), LIMIT);
        } else {
            latch_add(&gate.leave, 1);
            assert_latch(&runs, 8 * EACH + LIMIT);
        }
    }
    finish_idle(first);
    close(fds[0]);
    close(fds[1]);
    ns_group_release(group);
    pool_end(tp);
}

TEST(a_rearm_counts_and_is_never_refused)
{
    struct ns_thrpool_t *tp = limited_pool(1, LIMIT);
    struct gate gate = GATE_INIT;
    struct probe probe = PROBE(NULL, -1);
    struct ns_job_t *jobs[2 * LIMIT + 1];
    /* Unarmed ones do not wait for a worker, and can be made however many wait. */
    for (int i = 0; i < 2 * LIMIT; i++) {
        assert_int_equal(i % 2 ? ns_create_job(tp, NS_JOB_THREAD, probe_run, &jobs[i])
                               : ns_add_job(tp, NS_JOB_THREAD | NS_JOB_UNARMED, probe_run, &probe,
                                            &jobs[i]), NS_SUCCESS);
        assert_int_equal(ns_job_set_data(jobs[i], &probe), NS_SUCCESS);
        assert_int_equal(ns_job_set_done_cb(jobs[i], probe_gone), NS_SUCCESS);
    }
    struct ns_job_t *first = occupy(tp, NS_JOB_THREAD, &gate);
    for (int i = 0; i < LIMIT; i++) {
        assert_int_equal(ns_job_rearm(jobs[i]), NS_SUCCESS);
    }
    assert_int_equal(fill(tp, NS_JOB_THREAD, do_nothing, NULL, NULL), 0);
    assert_int_equal(ns_add_job(tp, NS_JOB_THREAD | NS_JOB_UNARMED, probe_run, &probe,
                                &jobs[2 * LIMIT]), NS_SUCCESS);
    for (int i = LIMIT; i < 2 * LIMIT; i++) {
        assert_int_equal(ns_job_rearm(jobs[i]), NS_SUCCESS);
    }
    latch_add(&gate.leave, 1);
    assert_latch(&probe.runs, 2 * LIMIT);
    for (int i = 0; i < 2 * LIMIT; i++) {
        finish_idle(jobs[i]);
    }
    assert_int_equal(ns_job_done(jobs[2 * LIMIT]), NS_SUCCESS);
    assert_latch(&probe.disposals, 2 * LIMIT);
    /* Nothing counts any more. */
    finish_idle(first);
    struct gate again = GATE_INIT;
    struct latch runs = LATCH_INIT;
    first = occupy(tp, NS_JOB_THREAD, &again);
    assert_int_equal(fill(tp, NS_JOB_THREAD, count_and_finish, &runs, NULL), LIMIT);
    latch_add(&again.leave, 1);
    finish_idle(first);
    pool_end(tp);
    assert_int_equal(latch_count(&runs), LIMIT);
}

/* As a callback: three runs by its own rearm, then done. */
static void run_three_times(struct ns_job_t *job)
{
    struct probe *probe = ns_job_get_data(job);
    latch_add(&probe->runs, 1);
    if (latch_count(&probe->runs) % 3 != 0) {
        ns_job_rearm(job);
    } else {
        ns_job_done(job);
    }
}

TEST(a_job_that_is_armed_again_when_its_callback_returns_counts_again)
{
    for (int persist = 0; persist < 2; persist++) {
        struct ns_thrpool_t *tp = limited_pool(1, 1);
        struct gate gate = GATE_INIT;
        struct probe probe = PROBE(NULL, -1);
        struct latch runs = LATCH_INIT;
        struct ns_job_t *job = NULL;
        assert_int_equal(ns_add_job(tp, NS_JOB_THREAD | NS_JOB_UNARMED
                                    | (persist ? NS_JOB_PERSIST : 0),
                                    persist ? probe_run : run_three_times, &probe, &job),
                         NS_SUCCESS);
        probe_arm(job);
        if (persist) {
            assert_latch(&probe.runs, 10);
            probe_cancel(job, &probe);
        } else {
            assert_latch(&probe.disposals, 1);
            assert_int_equal(latch_count(&probe.runs), 3);
        }
        /* The count is right: one place is left, and no more. */
        struct ns_job_t *first = occupy(tp, NS_JOB_THREAD, &gate);
        assert_int_equal(fill(tp, NS_JOB_THREAD, count_and_finish, &runs, NULL), 1);
        latch_add(&gate.leave, 1);
        finish_idle(first);
        pool_end(tp);
    }
}

TEST(what_is_cancelled_in_the_queue_makes_room_at_once)
{
    struct ns_thrpool_t *tp = limited_pool(1, LIMIT);
    struct gate gate = GATE_INIT;
    struct latch runs = LATCH_INIT;
    struct ns_job_t *jobs[LIMIT];
    struct ns_job_t *first = occupy(tp, NS_JOB_THREAD, &gate);
    for (int round = 0; round < 5; round++) {
        assert_int_equal(fill(tp, NS_JOB_THREAD, count_and_finish, &runs, jobs), LIMIT);
        for (int i = 0; i < LIMIT; i++) {
            assert_int_equal(ns_job_cancel(jobs[i]), NS_SUCCESS);
        }
    }
    assert_int_equal(fill(tp, NS_JOB_THREAD, count_and_finish, &runs, jobs), LIMIT);
    latch_add(&gate.leave, 1);
    finish_idle(first);
    pool_end(tp);
    assert_int_equal(latch_count(&runs), LIMIT);
    assert_int_equal(atomic_load(&blocks_out), 0);
}

TEST(a_job_that_is_put_into_a_group_counts_no_more)
{
    struct ns_thrpool_t *tp = limited_pool(1, LIMIT);
    struct gate gate = GATE_INIT;
    struct probe probe = PROBE(NULL, -1);
    struct ns_job_t *jobs[2 * LIMIT];
    struct ns_group_t *group = NULL;
    assert_int_equal(ns_group_new(tp, 1, NULL, NULL, &group), NS_SUCCESS);
    struct ns_job_t *first = occupy(tp, NS_JOB_THREAD, &gate);
    for (int i = 0; i < 2 * LIMIT; i++) {
        assert_int_equal(ns_add_job(tp, NS_JOB_THREAD | NS_JOB_UNARMED, probe_run, &probe, &jobs[i]),
                         NS_SUCCESS);
        assert_int_equal(ns_job_set_group(jobs[i], group), NS_SUCCESS);
        assert_int_equal(ns_job_rearm(jobs[i]), NS_SUCCESS);
    }
    struct latch runs = LATCH_INIT;
    assert_int_equal(fill(tp, NS_JOB_THREAD, count_and_finish, &runs, NULL), LIMIT);
    latch_add(&gate.leave, 1);
    assert_latch(&probe.runs, 2 * LIMIT);
    for (int i = 0; i < 2 * LIMIT; i++) {
        finish_idle(jobs[i]);
    }
    finish_idle(first);
    ns_group_release(group);
    pool_end(tp);
    assert_int_equal(latch_count(&runs), LIMIT);
}

/* What a callback adds, and how it went. */
struct adder {
    struct latch done;
    struct latch runs;
    atomic_int added;
    atomic_int refused;
};

static void add_many(struct ns_job_t *job)
{
    struct adder *adder = ns_job_get_data(job);
    for (int i = 0; i < 3 * LIMIT; i++) {
        ns_result_t result = ns_add_job(ns_job_get_tp(job), NS_JOB_THREAD, count_and_finish,
                                        &adder->runs, NULL);
        atomic_fetch_add(result == NS_SUCCESS ? &adder->added : &adder->refused, 1);
    }
    ns_job_done(job);
    latch_add(&adder->done, 1);
}

TEST(what_a_worker_adds_is_never_refused_and_what_the_loop_adds_is)
{
    for EACH_THREAD(i) {
        struct ns_thrpool_t *tp = limited_pool(2, LIMIT);
        struct gate gate = GATE_INIT;
        struct adder adder = {LATCH_INIT, LATCH_INIT, 0, 0};
        struct ns_job_t *first = occupy(tp, NS_JOB_THREAD, &gate);
        struct ns_job_t *second = where[i] ? NULL : occupy(tp, NS_JOB_THREAD, &gate);
        assert_int_equal(ns_add_timeout_job(tp, &at_once, where[i], add_many, &adder, NULL),
                         NS_SUCCESS);
        assert_latch(&adder.done, 1);
        assert_int_equal(atomic_load(&adder.added), where[i] ? 3 * LIMIT : LIMIT);
        assert_int_equal(atomic_load(&adder.refused), where[i] ? 0 : 2 * LIMIT);
        latch_add(&gate.leave, 1);
        assert_latch(&adder.runs, atomic_load(&adder.added));
        finish_idle(first);
        if (second != NULL) {
            finish_idle(second);
        }
        pool_end(tp);
    }
}

enum { FLOODERS = 4, FLOOD = 20000 };

static atomic_long flood_added, flood_refused, flood_ran;

static void count_flood(struct ns_job_t *job)
{
    atomic_fetch_add(&flood_ran, 1);
    ns_job_done(job);
}

static void *flood(void *arg)
{
    for (int i = 0; i < scaled(FLOOD); i++) {
        ns_result_t result = ns_add_job(arg, NS_JOB_THREAD, count_flood, NULL, NULL);
        atomic_fetch_add(result == NS_SUCCESS ? &flood_added : &flood_refused, 1);
    }
    return NULL;
}

TEST(a_flood_is_bounded_and_the_rest_is_served)
{
    struct ns_thrpool_t *tp = limited_pool(2, LIMIT);
    struct gate gate = GATE_INIT;
    long idle = atomic_load(&blocks_out);
    struct ns_job_t *busy[] = {occupy(tp, NS_JOB_THREAD, &gate), occupy(tp, NS_JOB_THREAD, &gate)};
    pthread_t threads[FLOODERS];
    for (int i = 0; i < FLOODERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, flood, tp), 0);
    }
    loop_passes(tp, 2000); /* the loop is served meanwhile */
    for (int i = 0; i < FLOODERS; i++) {
        pthread_join(threads[i], NULL);
    }
    /* Each thread passes the limit by one at the most, whatever it added. */
    assert_in_range(atomic_load(&flood_added), LIMIT, LIMIT + FLOODERS);
    assert_int_equal(atomic_load(&flood_added) + atomic_load(&flood_refused),
                     FLOODERS * (long)scaled(FLOOD));
    assert_in_range(atomic_load(&blocks_out) - idle, 0, LIMIT + FLOODERS + 4);
    latch_add(&gate.leave, 1);
    finish_idle(busy[0]);
    finish_idle(busy[1]);
    /* With workers that work, all that was taken runs. */
    for (int i = 0; i < FLOODERS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, flood, tp), 0);
    }
    for (int i = 0; i < FLOODERS; i++) {
        pthread_join(threads[i], NULL);
    }
    pool_end(tp);
    assert_int_equal(atomic_load(&flood_ran), atomic_load(&flood_added));
    assert_int_equal(atomic_load(&blocks_out), 0);
}

TEST(without_a_limit_nothing_is_refused)
{
    struct ns_thrpool_t *tp = limited_pool(1, 0);
    struct gate gate = GATE_INIT;
    struct latch runs = LATCH_INIT;
    struct ns_job_t *first = occupy(tp, NS_JOB_THREAD, &gate);
    for (int i = 0; i < 10000; i++) {
        assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, count_and_finish, &runs, NULL), NS_SUCCESS);
    }
    latch_add(&gate.leave, 1);
    finish_idle(first);
    pool_end(tp);
    assert_int_equal(latch_count(&runs), 10000);
}

TEST(shutdown_comes_before_overload_and_what_waits_runs)
{
    struct ns_thrpool_t *tp = limited_pool(1, LIMIT);
    struct gate gate = GATE_INIT;
    struct latch runs = LATCH_INIT;
    struct ns_job_t *first = occupy(tp, NS_JOB_THREAD, &gate);
    assert_int_equal(fill(tp, NS_JOB_THREAD, count_and_finish, &runs, NULL), LIMIT);
    pid_t child = fork();
    if (child == 0) {
        _exit(ns_add_job(tp, NS_JOB_THREAD, count_and_finish, &runs, NULL) != NS_SHUTDOWN);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, count_and_finish, &runs, NULL), NS_SHUTDOWN);
    latch_add(&gate.leave, 1);
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    assert_int_equal(latch_count(&runs), LIMIT);
    assert_int_equal(ns_job_done(first), NS_SUCCESS);
    ns_thrpool_destroy(tp);
    assert_int_equal(atomic_load(&blocks_out), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_add_that_finds_so_many_waiting_is_refused_and_nothing_happens),
        cmocka_unit_test(other_jobs_neither_count_nor_are_refused),
        cmocka_unit_test(a_rearm_counts_and_is_never_refused),
        cmocka_unit_test(a_job_that_is_armed_again_when_its_callback_returns_counts_again),
        cmocka_unit_test(what_is_cancelled_in_the_queue_makes_room_at_once),
        cmocka_unit_test(a_job_that_is_put_into_a_group_counts_no_more),
        cmocka_unit_test(what_a_worker_adds_is_never_refused_and_what_the_loop_adds_is),
        cmocka_unit_test(a_flood_is_bounded_and_the_rest_is_served),
        cmocka_unit_test(without_a_limit_nothing_is_refused),
        cmocka_unit_test(shutdown_comes_before_overload_and_what_waits_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
