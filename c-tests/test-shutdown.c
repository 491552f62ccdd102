/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The end of a pool: shutdown, wait, destroy, from anywhere and against everything. */
#include "harness.h"

static struct timeval far_away = {1000000, 0};
static struct timeval at_once = {0, 0};

static const ns_job_type_t both[] = {NS_JOB_NONE, NS_JOB_THREAD};
#define EACH_THREAD(type) (size_t type = 0; type < 2; type++)

/* A pool of n workers whose memory is counted. */
static struct ns_thrpool_t *counted_pool(size_t workers)
{
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.max_threads = workers;
    config.log_fct = recording_log;
    config.calloc_fct = counting_calloc;
    config.free_fct = counting_free;
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    assert_non_null(tp);
    return tp;
}

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
            for (int kind = 0; kind < 5; kind++) {
                struct ns_thrpool_t *tp = pool_of(1 + (size_t)round % 3);
                struct ns_job_t *job = NULL;
                int ends[2];
                socket_pair(ends);
                ns_result_t made = NS_INVALID_STATE;
                switch (kind) {
                case 0:
                    made = ns_add_job(tp, both[i], shut_down, NULL, NULL);
                    break;
                case 1:
                    made = ns_add_timeout_job(tp, &at_once, both[i], shut_down, NULL, NULL);
                    break;
                case 2:
                    made = ns_add_fd_job(tp, ends[0], both[i] | NS_JOB_WRITE | NS_JOB_PRESERVE_FD,
                                         shut_down, NULL, NULL);
                    break;
                case 3:
                    made = ns_add_signal_job(tp, SIGUSR1, both[i], shut_down, NULL, NULL);
                    kill(getpid(), SIGUSR1);
                    break;
                default:
                    /* A done callback. */
                    made = ns_add_job(tp, both[i] | NS_JOB_UNARMED, finish_job, NULL, &job);
                    assert_int_equal(ns_job_set_done_cb(job, shut_down_when_gone), NS_SUCCESS);
                    assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
                }
                assert_int_equal(made, NS_SUCCESS);
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
        int blockers = both[i] == NS_JOB_THREAD ? 2 : 1;
        for (int b = 0; b < blockers; b++) {
            assert_int_equal(ns_add_job(tp, both[i], gate_callback, &gate, &busy[b]), NS_SUCCESS);
        }
        assert_latch(&gate.begun, blockers);
        for (int n = 0; n < jobs; n++) {
            assert_int_equal(ns_add_job(tp, both[i], probe_run, &probe, NULL), NS_SUCCESS);
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
            ns_job_type_t type = both[i] | triggers[kind] | NS_JOB_PERSIST;
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
        struct ns_job_t *job = NULL;
        assert_int_equal(ns_add_job(tp, both[i], gate_callback, &gate, &job), NS_SUCCESS);
        assert_latch(&gate.begun, 1);
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        ns_thrpool_shutdown(tp);
        latch_add(&gate.leave, 1);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        assert_int_equal(latch_count(&gate.begun), 1);
        assert_int_equal(ns_job_wait(job), NS_SUCCESS);
        assert_int_equal(ns_job_done(job), NS_SUCCESS);
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
        assert_int_equal(ns_add_job(late.tp, both[i], stay_inside, &gate, NULL), NS_SUCCESS);
        assert_latch(&gate.begun, 1);
        ns_thrpool_shutdown(late.tp);
        assert_int_equal(pthread_create(&thread, NULL, wait_and_look, &late), 0);
        poll(NULL, 0, 20); /* time for it to return too early */
        assert_int_equal(latch_count(&late.over), 0);
        latch_add(&gate.leave, 1);
        pthread_join(thread, NULL);
        assert_int_equal(late.inside_after, 0);
        ns_thrpool_destroy(late.tp);
    }
}

/* What the pool's own threads get that wait for it or destroy it. */
struct suicide {
    ns_result_t result;
    int errors_of_wait;
    int errors_of_destroy;
    int named_wait;
    int named_destroy;
    struct latch over;
};

static void wait_and_destroy(struct ns_job_t *job)
{
    struct suicide *suicide = ns_job_get_data(job);
    int errors = count_logged_errors();
    suicide->result = ns_thrpool_wait(ns_job_get_tp(job));
    suicide->errors_of_wait = count_logged_errors() - errors;
    suicide->named_wait = logged("ns_thrpool_wait");
    errors = count_logged_errors();
    ns_thrpool_destroy(ns_job_get_tp(job));
    suicide->errors_of_destroy = count_logged_errors() - errors;
    suicide->named_destroy = logged("ns_thrpool_destroy");
    latch_add(&suicide->over, 1);
}

static void assert_nothing_happened(struct suicide *suicide)
{
    assert_int_equal(suicide->result, NS_THREAD_FAILURE);
    assert_int_equal(suicide->errors_of_wait, 1);
    assert_int_equal(suicide->errors_of_destroy, 1);
    assert_true(suicide->named_wait);
    assert_true(suicide->named_destroy);
}

TEST(own_callbacks_can_neither_wait_nor_destroy)
{
    for EACH_THREAD(i) {
        for (int before = 0; before < 2; before++) {
            struct ns_thrpool_t *tp = counted_pool(1);
            struct suicide suicide = {.result = NS_SUCCESS, .over = LATCH_INIT};
            struct ns_job_t *job = NULL;
            ns_job_func_t func = before ? wait_and_destroy : finish_job;
            assert_int_equal(ns_add_job(tp, both[i] | NS_JOB_UNARMED, func, &suicide, &job),
                             NS_SUCCESS);
            if (!before) {
                assert_int_equal(ns_job_set_done_cb(job, wait_and_destroy), NS_SUCCESS);
            }
            assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
            assert_latch(&suicide.over, 1);
            assert_nothing_happened(&suicide);
            assert_int_equal(ns_thrpool_is_shutdown(tp), 0);
            loop_passes(tp, 0);
            if (before) {
                assert_int_equal(ns_job_wait(job), NS_SUCCESS);
                assert_int_equal(ns_job_done(job), NS_SUCCESS);
            }
            pool_end(tp);
        }
    }
}

TEST(a_done_callback_of_a_stopped_pool_can_neither_wait_nor_destroy)
{
    struct ns_thrpool_t *tp = counted_pool(1);
    struct suicide suicide = {.result = NS_SUCCESS, .over = LATCH_INIT};
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_job(tp, NS_JOB_UNARMED, finish_job, &suicide, &job), NS_SUCCESS);
    assert_int_equal(ns_job_set_done_cb(job, wait_and_destroy), NS_SUCCESS);
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    assert_latch(&suicide.over, 1);
    assert_nothing_happened(&suicide);
    ns_thrpool_destroy(tp);
}

static void destroy_other(struct ns_job_t *job)
{
    ns_thrpool_destroy(ns_job_get_data(job));
    ns_job_set_data(job, NULL);
}

TEST(a_callback_of_another_pool_may_destroy)
{
    struct ns_thrpool_t *tp = pool_of(1);
    for EACH_THREAD(i) {
        struct ns_job_t *job = NULL;
        struct latch gone = LATCH_INIT;
        struct ns_thrpool_t *other = pool_of(2);
        struct ns_job_t *armed = NULL;
        assert_int_equal(ns_add_timeout_job(other, &far_away, NS_JOB_UNARMED, finish_job, &gone,
                                            &armed), NS_SUCCESS);
        assert_int_equal(ns_job_set_done_cb(armed, count_callback), NS_SUCCESS);
        assert_int_equal(ns_job_rearm(armed), NS_SUCCESS);
        assert_int_equal(ns_add_job(tp, both[i], destroy_other, other, &job), NS_SUCCESS);
        assert_int_equal(ns_job_wait(job), NS_SUCCESS);
        assert_null(ns_job_get_data(job));
        assert_int_equal(latch_count(&gone), 1);
        assert_int_equal(ns_job_done(job), NS_SUCCESS);
    }
    pool_end(tp);
}

static atomic_long late_runs;
static atomic_long disposed;

static void count_late_run(struct ns_job_t *job)
{
    char bytes[16];
    atomic_fetch_add(&late_runs, 1);
    if (ns_job_get_native_fd(job) >= 0) {
        recv(ns_job_get_native_fd(job), bytes, sizeof bytes, 0);
    }
}

static void count_disposed(struct ns_job_t *job)
{
    UNUSED(job);
    atomic_fetch_add(&disposed, 1);
}

/* Give an unarmed job its done callback, and arm it. */
static struct ns_job_t *arm_counted(struct ns_job_t *job)
{
    assert_int_equal(ns_job_set_done_cb(job, count_disposed), NS_SUCCESS);
    assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
    return job;
}

/* One armed job of each kind but run-now, on each kind of thread; they fire all the time. */
enum { KINDS = 6 };

static void arm_all(struct ns_thrpool_t *tp, int fd, struct timeval *tv, struct ns_job_t **jobs)
{
    for EACH_THREAD(i) {
        ns_job_type_t type = both[i] | NS_JOB_PERSIST | NS_JOB_UNARMED;
        ns_job_type_t io = type | NS_JOB_READ | NS_JOB_PRESERVE_FD;
        assert_int_equal(ns_add_timeout_job(tp, tv, type, count_late_run, NULL, &jobs[i]),
                         NS_SUCCESS);
        assert_int_equal(ns_add_fd_job(tp, fd, io, count_late_run, NULL, &jobs[2 + i]),
                         NS_SUCCESS);
        assert_int_equal(ns_add_signal_job(tp, SIGUSR1, type, count_late_run, NULL, &jobs[4 + i]),
                         NS_SUCCESS);
    }
    for (int i = 0; i < KINDS; i++) {
        arm_counted(jobs[i]);
    }
}

TEST(after_wait_no_callback_runs_though_all_would_fire)
{
    struct ns_thrpool_t *tp = pool_of(2);
    struct ns_job_t *jobs[KINDS];
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
        /* Still caught: by default it would end this process. */
        kill(getpid(), SIGUSR1);
        poll(NULL, 0, 1);
    }
    /* The loop is there and has had its turn: it disposes. */
    assert_int_equal(ns_job_done(idle), NS_SUCCESS);
    EVENTUALLY(atomic_load(&disposed) == 1);
    assert_int_equal(atomic_load(&late_runs), runs);
    /* One that ran when the pool shut down is WAITING now, and the application's. */
    for (int i = 0; i < KINDS; i++) {
        assert_int_equal(ns_job_done(jobs[i]), NS_SUCCESS);
    }
    ns_thrpool_destroy(tp);
    assert_int_equal(atomic_load(&late_runs), runs);
    assert_int_equal(atomic_load(&disposed), 1 + KINDS);
    close(ends[0]);
    close(ends[1]);
}

TEST(armed_jobs_can_be_done_once_the_pool_shuts_down)
{
    for (int waited = 0; waited < 2; waited++) {
        struct ns_thrpool_t *tp = pool_of(1);
        struct gate gate = GATE_INIT;
        struct ns_job_t *jobs[KINDS];
        struct ns_job_t *busy = NULL;
        int ends[2];
        socket_pair(ends);
        atomic_store(&disposed, 0);
        atomic_store(&late_runs, 0);
        arm_all(tp, ends[0], &far_away, jobs);
        /* A busy worker keeps the pool from stopping. */
        assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, gate_callback, &gate, &busy), NS_SUCCESS);
        assert_latch(&gate.begun, 1);
        for (int i = 0; i < KINDS; i++) {
            assert_int_equal(ns_job_done(jobs[i]), NS_INVALID_STATE);
        }
        ns_thrpool_shutdown(tp);
        if (waited) {
            latch_add(&gate.leave, 1);
            assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        }
        for (int i = 0; i < KINDS; i++) {
            assert_int_equal(ns_job_done(jobs[i]), NS_SUCCESS);
            EVENTUALLY(atomic_load(&disposed) == i + 1);
        }
        assert_int_equal(ns_job_done(busy), NS_SUCCESS);
        latch_add(&gate.leave, 1);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        ns_thrpool_destroy(tp);
        assert_int_equal(atomic_load(&disposed), KINDS);
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
        ns_job_type_t type = both[i & 1] | NS_JOB_UNARMED;
        struct timeval *tv = i & 2 ? &far_away : &at_once;
        ns_result_t made = i & 4 ? ns_add_job(tp, type, count_late_run, NULL, &jobs[i])
                                 : ns_add_timeout_job(tp, tv, type, count_late_run, NULL, &jobs[i]);
        assert_int_equal(made, NS_SUCCESS);
        arm_counted(jobs[i]);
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

TEST(destroy_disposes_of_all_that_is_armed)
{
    int fds = count_fds();
    int threads = count_threads();
    long blocks = atomic_load(&blocks_out);
    struct sigaction signals_before;
    struct sigaction signals_after;
    assert_int_equal(sigaction(SIGUSR1, NULL, &signals_before), 0);
    for (int how = 0; how < 3; how++) {
        struct ns_thrpool_t *tp = counted_pool(2);
        struct ns_job_t *jobs[KINDS];
        int ends[2];
        int peers[20];
        socket_pair(ends);
        atomic_store(&disposed, 0);
        arm_all(tp, ends[0], &far_away, jobs);
        for (int i = 0; i < 20; i++) {
            int pair[2];
            struct ns_job_t *job = NULL;
            socket_pair(pair);
            peers[i] = pair[1];
            /* Some without a time-out, some with, and of all kinds the descriptor is the job's. */
            assert_int_equal(ns_add_fd_timeout_job(tp, pair[0], i & 2 ? &far_away : &at_once,
                                                   both[i & 1] | NS_JOB_READ | NS_JOB_UNARMED,
                                                   count_late_run, NULL, &job), NS_SUCCESS);
            arm_counted(job);
        }
        if (how > 0) {
            ns_thrpool_shutdown(tp);
        }
        if (how > 1) {
            assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        }
        ns_thrpool_destroy(tp);
        assert_int_equal(atomic_load(&disposed), KINDS + 20);
        for (int i = 0; i < 20; i++) {
            /* The other side sees the close. */
            char byte;
            assert_int_equal(recv(peers[i], &byte, 1, 0), 0);
            close(peers[i]);
        }
        assert_true(fd_is_open(ends[0]));
        close(ends[0]);
        close(ends[1]);
        assert_int_equal(count_fds(), fds);
        EVENTUALLY(count_threads() == threads); /* joined, but maybe still listed */
        assert_int_equal(atomic_load(&blocks_out), blocks);
        assert_int_equal(sigaction(SIGUSR1, NULL, &signals_after), 0);
        assert_true(signals_before.sa_handler == signals_after.sa_handler);
    }
}

TEST(destroy_outlasts_the_disposal_of_all_that_was_done)
{
    struct ns_thrpool_t *tp = counted_pool(2);
    int count = scaled(5000);
    atomic_store(&disposed, 0);
    for (int i = 0; i < count; i++) {
        struct ns_job_t *job = NULL;
        assert_int_equal(ns_create_job(tp, both[i & 1], count_late_run, &job), NS_SUCCESS);
        assert_int_equal(ns_job_set_done_cb(job, count_disposed), NS_SUCCESS);
        assert_int_equal(ns_job_done(job), NS_SUCCESS);
    }
    ns_thrpool_destroy(tp);
    assert_int_equal(atomic_load(&disposed), count);
    assert_int_equal(atomic_load(&blocks_out), 0);
}

static struct ns_job_t *chain[100];
static int chain_next;

static void finish_the_next(struct ns_job_t *job)
{
    UNUSED(job);
    atomic_fetch_add(&disposed, 1);
    if (chain_next < 100) {
        ns_job_done(chain[chain_next++]);
    }
}

TEST(destroy_follows_what_done_callbacks_finish)
{
    struct ns_thrpool_t *tp = counted_pool(1);
    struct ns_job_t *first = NULL;
    atomic_store(&disposed, 0);
    chain_next = 0;
    for (int i = 0; i < 100; i++) {
        assert_int_equal(ns_create_job(tp, both[i & 1], count_late_run, &chain[i]), NS_SUCCESS);
        assert_int_equal(ns_job_set_done_cb(chain[i], finish_the_next), NS_SUCCESS);
    }
    assert_int_equal(ns_add_timeout_job(tp, &far_away, NS_JOB_UNARMED, count_late_run, NULL,
                                        &first), NS_SUCCESS);
    assert_int_equal(ns_job_set_done_cb(first, finish_the_next), NS_SUCCESS);
    assert_int_equal(ns_job_rearm(first), NS_SUCCESS);
    ns_thrpool_destroy(tp);
    assert_int_equal(atomic_load(&disposed), 101);
    assert_int_equal(atomic_load(&blocks_out), 0);
}

TEST(pools_without_a_job_come_and_go_and_leave_nothing)
{
    int fds = count_fds();
    int threads = count_threads();
    int rounds = scaled(500);
    for (int round = 0; round < rounds; round++) {
        struct ns_thrpool_t *tp = counted_pool(1 + (size_t)round % 16);
        switch (round % 3) {
        case 0:
            break;
        case 1:
            ns_thrpool_shutdown(tp);
            break;
        default:
            ns_thrpool_shutdown(tp);
            assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        }
        ns_thrpool_destroy(tp);
        assert_int_equal(atomic_load(&blocks_out), 0);
    }
    assert_int_equal(count_fds(), fds);
    EVENTUALLY(count_threads() == threads); /* joined, but maybe still listed */
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
        ns_job_type_t type = both[add->kind & 1] | (add->kind & 2 ? NS_JOB_TIMER : 0);
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
        /* An add without a done callback: run, or freed at the end. */
        result = ns_add_job(add->tp, type, finish_job, NULL, NULL);
        add->wrong += result != NS_SUCCESS && result != NS_SHUTDOWN;
    }
    return NULL;
}

TEST(shutdown_against_the_first_add_loses_no_job)
{
    int rounds = scaled(500);
    for (int round = 0; round < rounds; round++) {
        struct first_add add = {.tp = counted_pool(1 + (size_t)round % 4), .kind = round};
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
    /* As long as it is let. */
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
        struct ns_thrpool_t *tp = counted_pool(1 + (size_t)round % 16);
        for EACH_THREAD(i) {
            assert_int_equal(ns_add_job(tp, both[i], add_more, NULL, NULL), NS_SUCCESS);
        }
        if (round & 1) {
            sched_yield();
        }
        ns_thrpool_shutdown(tp);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        ns_thrpool_destroy(tp);
        assert_int_equal(atomic_load(&blocks_out), 0);
    }
    assert_int_equal(count_fds(), fds);
    EVENTUALLY(count_threads() == threads); /* joined, but maybe still listed */
}

enum { RACING = 20 };

/* A thread that adds jobs which take something of the process's while another shuts down. */
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
        ns_job_type_t type = both[i & 1] | NS_JOB_UNARMED;
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
        struct taking_add add = {.tp = counted_pool(1 + (size_t)round % 3)};
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
            /* The descriptor of a job is closed with it, one that was refused is left alone. */
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

static atomic_int warnings;

static void count_warnings(int priority, const char *format, va_list args)
{
    UNUSED(format);
    UNUSED(args);
    atomic_fetch_add(&warnings, priority == LOG_WARNING);
}

static void do_nothing(struct ns_job_t *job)
{
    UNUSED(job);
}

/* Jobs that are the application's, which it does not finish with: only the process is looked
 * after. Their memory is lost; here it stays in sight, for the tools that look for leaks. */
static struct ns_job_t *unfinished[2][3];

TEST(destroy_with_idle_jobs_gives_the_signal_back_and_leaves_the_rest)
{
    for EACH_THREAD(i) {
        struct ns_thrpool_config config;
        struct ns_job_t **left = unfinished[i];
        struct timeval soon = {0, 1000};
        struct sigaction now;
        int ends[2];
        socket_pair(ends);
        ns_thrpool_config_init(&config);
        config.max_threads = 2;
        config.log_fct = count_warnings;
        struct ns_thrpool_t *tp = ns_thrpool_new(&config);
        assert_non_null(tp);
        atomic_store(&disposed, 0);
        assert_int_equal(ns_add_signal_job(tp, SIGUSR1, both[i], do_nothing, NULL, &left[0]),
                         NS_SUCCESS);
        assert_int_equal(ns_add_fd_timeout_job(tp, ends[0], &soon, both[i] | NS_JOB_READ,
                                               do_nothing, NULL, &left[1]), NS_SUCCESS);
        assert_int_equal(ns_add_timeout_job(tp, &soon, both[i], do_nothing, NULL, &left[2]),
                         NS_SUCCESS);
        assert_int_equal(raise(SIGUSR1), 0);
        for (int j = 0; j < 3; j++) {
            assert_int_equal(ns_job_wait(left[j]), NS_SUCCESS);
            assert_int_equal(ns_job_set_done_cb(left[j], count_disposed), NS_SUCCESS);
        }
        ns_thrpool_shutdown(tp);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        assert_int_equal(atomic_exchange(&warnings, 0), 0);
        ns_thrpool_destroy(tp);
        assert_int_equal(atomic_exchange(&warnings, 0), 1);
        assert_int_equal(sigaction(SIGUSR1, NULL, &now), 0);
        assert_true(now.sa_handler == SIG_DFL);
        assert_int_equal(atomic_load(&disposed), 0);
        assert_true(fd_is_open(ends[0]));
        close(ends[0]);
        close(ends[1]);
    }
}

static void *shut_down_beside(void *tp)
{
    ns_thrpool_shutdown(tp);
    return NULL;
}

/* Destroy overlaps no call that had not let the wait return. */
TEST(wait_and_destroy_at_once_when_another_thread_shuts_down)
{
    /* Under valgrind as well, which sees what a call touches that outlives the pool. */
    int rounds = 300;
    for (int round = 0; round < rounds; round++) {
        struct ns_thrpool_t *tp = counted_pool(1 + (size_t)round % 3);
        pthread_t thread;
        assert_int_equal(pthread_create(&thread, NULL, shut_down_beside, tp), 0);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        ns_thrpool_destroy(tp);
        pthread_join(thread, NULL);
        assert_int_equal(atomic_load(&blocks_out), 0);
    }
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
        cmocka_unit_test(own_callbacks_can_neither_wait_nor_destroy),
        cmocka_unit_test(a_done_callback_of_a_stopped_pool_can_neither_wait_nor_destroy),
        cmocka_unit_test(a_callback_of_another_pool_may_destroy),
        cmocka_unit_test(after_wait_no_callback_runs_though_all_would_fire),
        cmocka_unit_test(armed_jobs_can_be_done_once_the_pool_shuts_down),
        cmocka_unit_test(many_armed_and_queued_jobs_can_be_done_while_shutting_down),
        cmocka_unit_test(destroy_disposes_of_all_that_is_armed),
        cmocka_unit_test(destroy_outlasts_the_disposal_of_all_that_was_done),
        cmocka_unit_test(destroy_follows_what_done_callbacks_finish),
        cmocka_unit_test(pools_without_a_job_come_and_go_and_leave_nothing),
        cmocka_unit_test(shutdown_against_the_first_add_loses_no_job),
        cmocka_unit_test(pools_end_while_their_callbacks_add_more),
        cmocka_unit_test(shutdown_against_io_and_signal_adds_leaves_nothing),
        cmocka_unit_test(destroy_with_idle_jobs_gives_the_signal_back_and_leaves_the_rest),
        cmocka_unit_test(wait_and_destroy_at_once_when_another_thread_shuts_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
