/* SPDX-License-Identifier: GPL-3.0-or-later */
/* ns_thrpool_shutdown and ns_thrpool_wait: called from anywhere, and racing with adds. */
#include "kinds.h"

static void shut_down(struct ns_job_t *job)
{
    ns_thrpool_shutdown(ns_job_get_tp(job));
    ns_job_done(job);
}

static void shut_down_when_gone(struct ns_job_t *job)
{
    ns_thrpool_shutdown(ns_job_get_tp(job));
}

TEST(shutdown_is_seen)
{
    struct ns_thrpool_t *tp = pool_of(1);
    assert_int_equal(ns_thrpool_is_shutdown(tp), 0);
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_thrpool_is_shutdown(tp), 1);
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_thrpool_is_shutdown(tp), 1);
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    assert_int_equal(ns_thrpool_is_shutdown(tp), 1);
    ns_thrpool_shutdown(tp);
    ns_thrpool_destroy(tp);
}

TEST(shutdown_may_come_from_every_kind_of_callback)
{
    int rounds = scaled(200);
    for (int round = 0; round < rounds; round++) {
        for EACH_THREAD(i) {
            for (int kind = 0; kind <= KINDS; kind++) {
                struct ns_thrpool_t *tp = pool_of(1 + (size_t)round % 3);
                struct ns_job_t *job = NULL;
                int ends[2];
                socket_pair(ends);
                const struct trigger on = {&at_once, ends[0], NS_JOB_WRITE | NS_JOB_PRESERVE_FD};
                if (kind < KINDS) {
                    assert_int_equal(add_kind(tp, kind, &on, where[i], shut_down, NULL, NULL),
                                     NS_SUCCESS);
                } else {
                    /* A done callback. */
                    assert_int_equal(ns_add_job(tp, where[i] | NS_JOB_UNARMED, finish_job, NULL,
                                                &job), NS_SUCCESS);
                    arm_with(job, shut_down_when_gone);
                }
                if (kind == KIND_SIGNAL) {
                    kill(getpid(), SIGUSR1);
                }
                assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
                assert_int_equal(ns_thrpool_is_shutdown(tp), 1);
                ns_thrpool_destroy(tp);
                close(ends[0]);
                close(ends[1]);
            }
        }
    }
}

static atomic_int said_shutting_down;

static void shutdown_counting_log(int priority, const char *format, va_list args)
{
    char text[256];
    UNUSED(priority);
    vsnprintf(text, sizeof text, format, args);
    if (strstr(text, "shutting down") != NULL) {
        atomic_fetch_add(&said_shutting_down, 1);
    }
}

struct together {
    struct ns_thrpool_t *tp;
    pthread_barrier_t start;
    atomic_int successes;
};

static void *shut_down_together(void *arg)
{
    struct together *together = arg;
    pthread_barrier_wait(&together->start);
    ns_thrpool_shutdown(together->tp);
    if (ns_thrpool_wait(together->tp) == NS_SUCCESS) {
        atomic_fetch_add(&together->successes, 1);
    }
    return NULL;
}

TEST(eight_shutdowns_and_waits_at_once_are_one)
{
    enum { THREADS = 8 };
    int rounds = scaled(200);
    for (int round = 0; round < rounds; round++) {
        struct ns_thrpool_config config;
        ns_thrpool_config_init(&config);
        config.max_threads = 4;
        config.log_fct = shutdown_counting_log;
        atomic_store(&said_shutting_down, 0);
        struct together together = {.tp = ns_thrpool_new(&config)};
        assert_non_null(together.tp);
        pthread_t threads[THREADS];
        pthread_barrier_init(&together.start, NULL, THREADS);
        for (int i = 0; i < THREADS; i++) {
            assert_int_equal(pthread_create(&threads[i], NULL, shut_down_together, &together), 0);
        }
        for (int i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
        }
        assert_int_equal(atomic_load(&together.successes), THREADS);
        assert_int_equal(atomic_load(&said_shutting_down), 1);
        pthread_barrier_destroy(&together.start);
        ns_thrpool_destroy(together.tp);
    }
}

static void *only_wait(void *arg)
{
    struct together *together = arg;
    pthread_barrier_wait(&together->start);
    if (ns_thrpool_wait(together->tp) == NS_SUCCESS) {
        atomic_fetch_add(&together->successes, 1);
    }
    return NULL;
}

TEST(wait_does_not_begin_a_shutdown_and_can_be_repeated)
{
    struct together together = {.tp = pool_of(2)};
    pthread_t threads[4];
    pthread_barrier_init(&together.start, NULL, 5);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, only_wait, &together), 0);
    }
    pthread_barrier_wait(&together.start);
    /* The pool still works. */
    loop_passes(together.tp, 20000);
    assert_int_equal(ns_thrpool_is_shutdown(together.tp), 0);
    assert_int_equal(atomic_load(&together.successes), 0);
    ns_thrpool_shutdown(together.tp);
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(atomic_load(&together.successes), 4);
    assert_int_equal(ns_thrpool_wait(together.tp), NS_SUCCESS);
    assert_int_equal(ns_thrpool_wait(together.tp), NS_SUCCESS);
    ns_thrpool_destroy(together.tp);
    pthread_barrier_destroy(&together.start);
}

TEST(adding_and_rearming_are_refused_from_then_on)
{
    for (int waited = 0; waited < 2; waited++) {
        struct ns_thrpool_t *tp = pool_of(1);
        struct ns_job_t *idle = NULL;
        struct ns_job_t *job = NULL;
        int ends[2];
        socket_pair(ends);
        const ns_job_type_t io = NS_JOB_READ;
        assert_int_equal(ns_create_job(tp, NS_JOB_THREAD, finish_job, &idle), NS_SUCCESS);
        ns_thrpool_shutdown(tp);
        if (waited) {
            assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        }
        assert_int_equal(ns_create_job(tp, NS_JOB_NONE, finish_job, &job), NS_SHUTDOWN);
        for (int unarmed = 0; unarmed < 2; unarmed++) {
            ns_job_type_t type = unarmed ? NS_JOB_UNARMED : 0;
            assert_int_equal(ns_add_job(tp, type, finish_job, NULL, &job), NS_SHUTDOWN);
            assert_int_equal(ns_add_job(tp, type | NS_JOB_THREAD, finish_job, NULL, &job),
                             NS_SHUTDOWN);
            assert_int_equal(ns_add_timeout_job(tp, &at_once, type, finish_job, NULL, &job),
                             NS_SHUTDOWN);
            assert_int_equal(ns_add_fd_job(tp, ends[0], type | io, finish_job, NULL, &job),
                             NS_SHUTDOWN);
            assert_int_equal(ns_add_fd_timeout_job(tp, ends[0], &far_away, type | io, finish_job,
                                                   NULL, &job), NS_SHUTDOWN);
            assert_int_equal(ns_add_signal_job(tp, SIGUSR1, type, finish_job, NULL, &job),
                             NS_SHUTDOWN);
        }
        assert_int_equal(ns_job_rearm(idle), NS_SHUTDOWN);
        assert_int_equal(ns_job_rearm(idle), NS_SHUTDOWN);
        assert_int_equal(ns_job_set_data(idle, NULL), NS_SUCCESS);
        assert_int_equal(ns_job_done(idle), NS_SUCCESS);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        ns_thrpool_destroy(tp);
        /* A failed add leaves the descriptor alone. */
        assert_true(fd_is_open(ends[0]));
        close(ends[0]);
        close(ends[1]);
    }
}

TEST(run_now_jobs_that_were_queued_all_run)
{
    for EACH_THREAD(i) {
        struct ns_thrpool_t *tp = pool_of(2);
        struct gate gate = GATE_INIT;
        struct probe probe = PROBE(finish_job, -1);
        struct ns_job_t *busy[2] = {NULL, NULL};
        int jobs = scaled(20000);
        int blockers = where[i] == NS_JOB_THREAD ? 2 : 1;
        for (int b = 0; b < blockers; b++) {
            assert_int_equal(ns_add_job(tp, where[i], gate_callback, &gate, &busy[b]), NS_SUCCESS);
        }
        assert_latch(&gate.begun, blockers);
        for (int n = 0; n < jobs; n++) {
            assert_int_equal(ns_add_job(tp, where[i], probe_run, &probe, NULL), NS_SUCCESS);
        }
        ns_thrpool_shutdown(tp);
        assert_int_equal(latch_count(&probe.runs), 0);
        latch_add(&gate.leave, 1);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        assert_int_equal(latch_count(&probe.runs), jobs);
        for (int b = 0; b < blockers; b++) {
            assert_int_equal(ns_job_done(busy[b]), NS_SUCCESS);
        }
        ns_thrpool_destroy(tp);
    }
}

TEST(persistent_jobs_end_waiting)
{
    int ends[2];
    socket_pair(ends);
    for EACH_THREAD(i) {
        for (int kind = 0; kind < 3; kind++) {
            struct ns_thrpool_t *tp = pool_of(1);
            struct gate gate = GATE_INIT;
            struct latch gone = LATCH_INIT;
            struct ns_job_t *job = NULL;
            const ns_job_type_t triggers[] = {0, NS_JOB_TIMER, NS_JOB_WRITE | NS_JOB_PRESERVE_FD};
            ns_job_type_t type = where[i] | triggers[kind] | NS_JOB_PERSIST;
            ns_result_t made = kind == 2
                ? ns_add_fd_job(tp, ends[0], type, gate_callback, &gate, &job)
                : ns_add_job(tp, type, gate_callback, &gate, &job);
            assert_int_equal(made, NS_SUCCESS);
            assert_latch(&gate.begun, 1);
            ns_thrpool_shutdown(tp);
            latch_add(&gate.leave, 1);
            assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
            assert_int_equal(latch_count(&gate.begun), 1);
            assert_int_equal(ns_job_wait(job), NS_SUCCESS);
            assert_int_equal(ns_job_set_data(job, &gone), NS_SUCCESS);
            assert_int_equal(ns_job_set_done_cb(job, count_callback), NS_SUCCESS);
            assert_int_equal(ns_job_done(job), NS_SUCCESS);
            assert_latch(&gone, 1);
            ns_thrpool_destroy(tp);
        }
    }
    close(ends[0]);
    close(ends[1]);
}

TEST(a_rearm_that_was_accepted_before_ends_waiting)
{
    for EACH_THREAD(i) {
        struct ns_thrpool_t *tp = pool_of(1);
        struct gate gate = GATE_INIT;
        struct ns_job_t *job = occupy(tp, where[i], &gate);
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        ns_thrpool_shutdown(tp);
        latch_add(&gate.leave, 1);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        assert_int_equal(latch_count(&gate.begun), 1);
        finish_idle(job);
        ns_thrpool_destroy(tp);
    }
}

static atomic_int inside;

static void stay_inside(struct ns_job_t *job)
{
    atomic_store(&inside, 1);
    stay_in_gate(ns_job_get_data(job));
    ns_job_done(job);
    atomic_store(&inside, 0);
}

struct late {
    struct ns_thrpool_t *tp;
    int inside_after;
    struct latch over;
};

static void *wait_and_look(void *arg)
{
    struct late *late = arg;
    ns_thrpool_wait(late->tp);
    late->inside_after = atomic_load(&inside);
    latch_add(&late->over, 1);
    return NULL;
}

TEST(wait_outlasts_the_callback_that_runs)
{
    for EACH_THREAD(i) {
        struct late late = {pool_of(1), -1, LATCH_INIT};
        struct gate gate = GATE_INIT;
        pthread_t thread;
        assert_int_equal(ns_add_job(late.tp, where[i], stay_inside, &gate, NULL), NS_SUCCESS);
        assert_latch(&gate.begun, 1);
        ns_thrpool_shutdown(late.tp);
        assert_int_equal(pthread_create(&thread, NULL, wait_and_look, &late), 0);
        poll(NULL, 0, 20); /* time in which it could return too early */
        assert_int_equal(latch_count(&late.over), 0);
        latch_add(&gate.leave, 1);
        pthread_join(thread, NULL);
        assert_int_equal(late.inside_after, 0);
        ns_thrpool_destroy(late.tp);
    }
}

TEST(after_wait_no_callback_runs_though_all_would_fire)
{
    struct ns_thrpool_t *tp = pool_of(2);
    struct ns_job_t *jobs[ARMED];
    struct ns_job_t *idle = NULL;
    struct timeval often = {0, 1000};
    int ends[2];
    socket_pair(ends);
    atomic_store(&disposed, 0);
    arm_all(tp, ends[0], &often, jobs);
    assert_int_equal(ns_create_job(tp, NS_JOB_NONE, count_late_run, &idle), NS_SUCCESS);
    assert_int_equal(ns_job_set_done_cb(idle, count_disposed), NS_SUCCESS);
    kill(getpid(), SIGUSR1);
    assert_int_equal(send(ends[1], "x", 1, 0), 1);
    EVENTUALLY(atomic_load(&late_runs) > 20);
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    long runs = atomic_load(&late_runs);
    for (int i = 0; i < 30; i++) {
        assert_int_equal(send(ends[1], "x", 1, 0), 1);
        /* Still handled: the default action would end this process. */
        kill(getpid(), SIGUSR1);
        poll(NULL, 0, 1);
    }
    /* The loop still disposes of jobs, so it has had a turn since. */
    assert_int_equal(ns_job_done(idle), NS_SUCCESS);
    EVENTUALLY(atomic_load(&disposed) == 1);
    assert_int_equal(atomic_load(&late_runs), runs);
    /* A job that ran during the shutdown is WAITING now, and must be done like the others. */
    for (int i = 0; i < ARMED; i++) {
        assert_int_equal(ns_job_done(jobs[i]), NS_SUCCESS);
    }
    ns_thrpool_destroy(tp);
    assert_int_equal(atomic_load(&late_runs), runs);
    assert_int_equal(atomic_load(&disposed), 1 + ARMED);
    close(ends[0]);
    close(ends[1]);
}

TEST(armed_jobs_can_be_done_once_the_pool_shuts_down)
{
    for (int waited = 0; waited < 2; waited++) {
        struct ns_thrpool_t *tp = pool_of(1);
        struct gate gate = GATE_INIT;
        struct ns_job_t *jobs[ARMED];
        struct ns_job_t *busy = NULL;
        int ends[2];
        socket_pair(ends);
        atomic_store(&disposed, 0);
        atomic_store(&late_runs, 0);
        arm_all(tp, ends[0], &far_away, jobs);
        /* A busy worker keeps the pool from stopping. */
        busy = occupy(tp, NS_JOB_THREAD, &gate);
        for (int i = 0; i < ARMED; i++) {
            assert_int_equal(ns_job_done(jobs[i]), NS_INVALID_STATE);
        }
        ns_thrpool_shutdown(tp);
        if (waited) {
            latch_add(&gate.leave, 1);
            assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        }
        for (int i = 0; i < ARMED; i++) {
            assert_int_equal(ns_job_done(jobs[i]), NS_SUCCESS);
            EVENTUALLY(atomic_load(&disposed) == i + 1);
        }
        assert_int_equal(ns_job_done(busy), NS_SUCCESS);
        latch_add(&gate.leave, 1);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        ns_thrpool_destroy(tp);
        assert_int_equal(atomic_load(&disposed), ARMED);
        assert_int_equal(atomic_load(&late_runs), 0);
        close(ends[0]);
        close(ends[1]);
    }
}

TEST(many_armed_and_queued_jobs_can_be_done_while_shutting_down)
{
    struct ns_thrpool_t *tp = pool_of(2);
    int count = scaled(10000);
    struct ns_job_t **jobs = calloc((size_t)count, sizeof *jobs);
    atomic_store(&disposed, 0);
    for (int i = 0; i < count; i++) {
        ns_job_type_t type = where[i & 1] | NS_JOB_UNARMED;
        struct timeval *tv = i & 2 ? &far_away : &at_once;
        ns_result_t made = i & 4 ? ns_add_job(tp, type, count_late_run, NULL, &jobs[i])
                                 : ns_add_timeout_job(tp, tv, type, count_late_run, NULL, &jobs[i]);
        assert_int_equal(made, NS_SUCCESS);
        arm_with(jobs[i], count_disposed);
    }
    ns_thrpool_shutdown(tp);
    for (int i = 0; i < count; i++) {
        assert_int_equal(ns_job_done(jobs[i]), NS_SUCCESS);
    }
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    ns_thrpool_destroy(tp);
    assert_int_equal(atomic_load(&disposed), count);
    free(jobs);
}

/* A thread that adds while another shuts down. */
struct first_add {
    struct ns_thrpool_t *tp;
    pthread_barrier_t start;
    int kind;
    int made;
    int wrong;
};

static void *add_first(void *arg)
{
    struct first_add *add = arg;
    pthread_barrier_wait(&add->start);
    for (int i = 0; i < 3; i++) {
        struct ns_job_t *job = NULL;
        ns_job_type_t type = where[add->kind & 1] | (add->kind & 2 ? NS_JOB_TIMER : 0);
        ns_result_t result = ns_add_job(add->tp, type | NS_JOB_UNARMED, finish_job, NULL, &job);
        if (result == NS_SHUTDOWN) {
            add->wrong += job != NULL;
            continue;
        }
        add->made++;
        add->wrong += result != NS_SUCCESS;
        add->wrong += ns_job_set_done_cb(job, count_disposed) != NS_SUCCESS;
        result = ns_job_rearm(job);
        if (result != NS_SUCCESS) {
            add->wrong += result != NS_SHUTDOWN;
            add->wrong += ns_job_done(job) != NS_SUCCESS;
        }
        /* A job without a done callback runs, or is freed at the end. */
        result = ns_add_job(add->tp, type, finish_job, NULL, NULL);
        add->wrong += result != NS_SUCCESS && result != NS_SHUTDOWN;
    }
    return NULL;
}

TEST(shutdown_against_the_first_add_loses_no_job)
{
    int rounds = scaled(500);
    for (int round = 0; round < rounds; round++) {
        struct first_add add = {.tp = counting_pool(1 + (size_t)round % 4), .kind = round};
        pthread_t thread;
        atomic_store(&disposed, 0);
        pthread_barrier_init(&add.start, NULL, 2);
        assert_int_equal(pthread_create(&thread, NULL, add_first, &add), 0);
        pthread_barrier_wait(&add.start);
        if (round & 8) {
            sched_yield();
        }
        ns_thrpool_shutdown(add.tp);
        assert_int_equal(ns_thrpool_wait(add.tp), NS_SUCCESS);
        pthread_join(thread, NULL);
        pthread_barrier_destroy(&add.start);
        ns_thrpool_destroy(add.tp);
        assert_int_equal(add.wrong, 0);
        assert_int_equal(atomic_load(&disposed), add.made);
        assert_int_equal(atomic_load(&blocks_out), 0);
    }
}

static void add_more(struct ns_job_t *job)
{
    /* Until the adds are refused. */
    ns_add_job(ns_job_get_tp(job), ns_job_get_type(job), add_more, NULL, NULL);
    ns_add_timeout_job(ns_job_get_tp(job), &at_once, ns_job_get_type(job) & NS_JOB_THREAD,
                       finish_job, NULL, NULL);
    ns_job_done(job);
}

TEST(pools_end_while_their_callbacks_add_more)
{
    int fds = count_fds();
    int threads = count_threads();
    int rounds = scaled(300);
    for (int round = 0; round < rounds; round++) {
        struct ns_thrpool_t *tp = counting_pool(1 + (size_t)round % 16);
        for EACH_THREAD(i) {
            assert_int_equal(ns_add_job(tp, where[i], add_more, NULL, NULL), NS_SUCCESS);
        }
        if (round & 1) {
            sched_yield();
        }
        ns_thrpool_shutdown(tp);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        ns_thrpool_destroy(tp);
        assert_int_equal(atomic_load(&blocks_out), 0);
    }
    assert_nothing_left(fds, threads);
}

enum { RACING = 20 };

/* A thread that adds jobs for descriptors and signals while another shuts the pool down. */
struct taking_add {
    struct ns_thrpool_t *tp;
    pthread_barrier_t start;
    int fds[RACING];
    int added[RACING];
    int wrong;
};

static void *add_what_takes(void *arg)
{
    struct taking_add *add = arg;
    pthread_barrier_wait(&add->start);
    for (int i = 0; i < RACING; i++) {
        struct ns_job_t *job = NULL;
        ns_job_type_t type = where[i & 1] | NS_JOB_UNARMED;
        ns_result_t result =
            i & 2 ? ns_add_signal_job(add->tp, SIGUSR1, type, finish_job, NULL, &job)
                  : ns_add_fd_timeout_job(add->tp, add->fds[i], i & 4 ? &far_away : &at_once,
                                          type | NS_JOB_READ, finish_job, NULL, &job);
        add->added[i] = result == NS_SUCCESS;
        if (result != NS_SUCCESS) {
            add->wrong += result != NS_SHUTDOWN || job != NULL;
            continue;
        }
        add->wrong += ns_job_set_done_cb(job, count_disposed) != NS_SUCCESS;
        result = ns_job_rearm(job);
        if (result != NS_SUCCESS) {
            add->wrong += result != NS_SHUTDOWN;
            add->wrong += ns_job_done(job) != NS_SUCCESS;
        }
    }
    return NULL;
}

TEST(shutdown_against_io_and_signal_adds_leaves_nothing)
{
    int rounds = scaled(250), raced = 0, fds = count_fds();
    for (int round = 0; round < rounds; round++) {
        struct taking_add add = {.tp = counting_pool(1 + (size_t)round % 3)};
        struct sigaction now;
        pthread_t thread;
        int peers[RACING], added = 0;
        atomic_store(&disposed, 0);
        for (int i = 0; i < RACING; i++) {
            int ends[2];
            socket_pair(ends);
            add.fds[i] = ends[0];
            peers[i] = ends[1];
        }
        pthread_barrier_init(&add.start, NULL, 2);
        assert_int_equal(pthread_create(&thread, NULL, add_what_takes, &add), 0);
        pthread_barrier_wait(&add.start);
        for (volatile int spin = 0; spin < round % 100 * 20; spin++) {
        }
        ns_thrpool_shutdown(add.tp);
        if (round & 1) {
            assert_int_equal(ns_thrpool_wait(add.tp), NS_SUCCESS);
        }
        pthread_join(thread, NULL);
        pthread_barrier_destroy(&add.start);
        ns_thrpool_destroy(add.tp);
        assert_int_equal(add.wrong, 0);
        for (int i = 0; i < RACING; i++) {
            /* A job's descriptor is closed with it. That of a refused add is left open. */
            int taken = add.added[i] && !(i & 2);
            char byte;
            assert_int_equal(recv(peers[i], &byte, 1, 0), taken ? 0 : -1);
            close(peers[i]);
            if (!taken) {
                assert_int_equal(close(add.fds[i]), 0);
            }
            added += add.added[i];
        }
        raced += added > 0 && added < RACING;
        assert_int_equal(atomic_load(&disposed), added);
        assert_int_equal(atomic_load(&blocks_out), 0);
        assert_int_equal(sigaction(SIGUSR1, NULL, &now), 0);
        assert_true(now.sa_handler == SIG_DFL);
    }
    assert_int_equal(count_fds(), fds);
    print_message("# %d of %d shutdowns came in the middle of the adds\n", raced, rounds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shutdown_is_seen),
        cmocka_unit_test(shutdown_may_come_from_every_kind_of_callback),
        cmocka_unit_test(eight_shutdowns_and_waits_at_once_are_one),
        cmocka_unit_test(wait_does_not_begin_a_shutdown_and_can_be_repeated),
        cmocka_unit_test(adding_and_rearming_are_refused_from_then_on),
        cmocka_unit_test(run_now_jobs_that_were_queued_all_run),
        cmocka_unit_test(persistent_jobs_end_waiting),
        cmocka_unit_test(a_rearm_that_was_accepted_before_ends_waiting),
        cmocka_unit_test(wait_outlasts_the_callback_that_runs),
        cmocka_unit_test(after_wait_no_callback_runs_though_all_would_fire),
        cmocka_unit_test(armed_jobs_can_be_done_once_the_pool_shuts_down),
        cmocka_unit_test(many_armed_and_queued_jobs_can_be_done_while_shutting_down),
        cmocka_unit_test(shutdown_against_the_first_add_loses_no_job),
        cmocka_unit_test(pools_end_while_their_callbacks_add_more),
        cmocka_unit_test(shutdown_against_io_and_signal_adds_leaves_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
