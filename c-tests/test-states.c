/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A job's life: what each call returns in each state, and its effect. */
#include "harness.h"

/* A pool and one job, whose callback stays in a gate. */
struct stage {
    struct ns_thrpool_t *tp;
    struct gate gate;
    struct latch runs;
    struct latch disposals;
    void (*first)(struct ns_job_t *job); /* what the callback does before the gate, or NULL */
    struct ns_job_t *job;
};

static void staged(struct ns_job_t *job)
{
    struct stage *stage = ns_job_get_data(job);
    if (stage->first != NULL) {
        stage->first(job);
    }
    latch_add(&stage->runs, 1);
    stay_in_gate(&stage->gate);
}

static void staged_gone(struct ns_job_t *job)
{
    struct stage *stage = ns_job_get_data(job);
    latch_add(&stage->disposals, 1);
}

/* Make the pool and a WAITING job of this type. */
static void stage_begin(struct stage *stage, ns_job_type_t type, void (*first)(struct ns_job_t *))
{
    *stage = (struct stage){NULL, GATE_INIT, LATCH_INIT, LATCH_INIT, first, NULL};
    stage->tp = pool_of(2);
    assert_int_equal(ns_add_job(stage->tp, type | NS_JOB_UNARMED, staged, stage, &stage->job),
                     NS_SUCCESS);
    assert_int_equal(ns_job_set_done_cb(stage->job, staged_gone), NS_SUCCESS);
}

/* Have the job run up to the gate. */
static void stage_run(struct stage *stage)
{
    long before = latch_count(&stage->gate.begun);
    assert_int_equal(ns_job_rearm(stage->job), NS_SUCCESS);
    assert_latch(&stage->gate.begun, before + 1);
}

static void stage_leave(struct stage *stage)
{
    latch_add(&stage->gate.leave, 1);
}

static void stage_end(struct stage *stage)
{
    pool_end(stage->tp);
    assert_int_equal(latch_count(&stage->disposals), 1);
}

TEST(waiting_can_be_set_and_rearmed)
{
    struct stage stage;
    for EACH_THREAD(i) {
        stage_begin(&stage, where[i], NULL);
        assert_int_equal(ns_job_set_data(stage.job, NULL), NS_SUCCESS);
        assert_null(ns_job_get_data(stage.job));
        assert_int_equal(ns_job_set_data(stage.job, &stage), NS_SUCCESS);
        assert_int_equal(ns_job_set_done_cb(stage.job, NULL), NS_SUCCESS);
        assert_int_equal(ns_job_set_done_cb(stage.job, staged_gone), NS_SUCCESS);
        assert_int_equal(ns_job_wait(stage.job), NS_SUCCESS);
        stage_leave(&stage);
        for (int run = 1; run <= 10; run++) {
            assert_int_equal(ns_job_rearm(stage.job), NS_SUCCESS);
            assert_int_equal(ns_job_wait(stage.job), NS_SUCCESS);
            assert_int_equal(latch_count(&stage.runs), run);
        }
        assert_int_equal(ns_job_done(stage.job), NS_SUCCESS);
        assert_latch(&stage.disposals, 1);
        stage_end(&stage);
    }
}

TEST(waiting_that_is_done_or_cancelled_is_disposed_of_without_a_run)
{
    struct stage stage;
    ns_result_t (*const ends[])(struct ns_job_t *) = {ns_job_done, ns_job_cancel};
    for EACH_THREAD(i) {
        for (size_t end = 0; end < 2; end++) {
            stage_begin(&stage, where[i], NULL);
            assert_int_equal(ends[end](stage.job), NS_SUCCESS);
            assert_latch(&stage.disposals, 1);
            stage_end(&stage);
            assert_int_equal(latch_count(&stage.runs), 0);
        }
    }
}

/* ARMED for a time that does not come. */
static struct ns_job_t *armed_job(struct ns_thrpool_t *tp, struct probe *probe)
{
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_timeout_job(tp, &far_away, NS_JOB_UNARMED, probe_run, probe, &job),
                     NS_SUCCESS);
    return probe_arm(job);
}

TEST(armed_refuses_all_but_cancel_and_stays_as_it_was)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct probe probe = PROBE(NULL, -1);
    struct ns_job_t *job = armed_job(tp, &probe);
    for (int twice = 0; twice < 2; twice++) {
        assert_int_equal(ns_job_done(job), NS_INVALID_STATE);
        assert_int_equal(ns_job_rearm(job), NS_INVALID_STATE);
        assert_int_equal(ns_job_set_data(job, NULL), NS_INVALID_STATE);
        assert_int_equal(ns_job_set_done_cb(job, NULL), NS_INVALID_STATE);
        assert_int_equal(ns_job_timedwait(job, &at_once), NS_TIMEOUT);
        assert_ptr_equal(ns_job_get_data(job), &probe);
        assert_int_equal(ns_job_get_output_type(job), 0);
        loop_passes(tp, 1000);
    }
    assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
    assert_latch(&probe.disposals, 1);
    pool_end(tp);
    assert_int_equal(latch_count(&probe.runs), 0);
    assert_int_equal(latch_count(&probe.disposals), 1);
}

TEST(armed_in_the_work_queue_refuses_done_and_then_runs)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct gate gate = GATE_INIT;
    struct probe probe = PROBE(finish_job, -1);
    struct ns_job_t *job = NULL;
    struct ns_job_t *busy = occupy(tp, NS_JOB_THREAD, &gate);
    assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, probe_run, &probe, &job), NS_SUCCESS);
    assert_int_equal(ns_job_done(job), NS_INVALID_STATE);
    assert_int_equal(ns_job_rearm(job), NS_INVALID_STATE);
    assert_int_equal(ns_job_set_data(job, NULL), NS_INVALID_STATE);
    assert_int_equal(ns_job_timedwait(job, &at_once), NS_TIMEOUT);
    latch_add(&gate.leave, 1);
    assert_latch(&probe.runs, 1);
    finish_idle(busy);
    pool_end(tp);
}

TEST(running_takes_settings_from_outside_at_once)
{
    struct stage stage;
    for EACH_THREAD(i) {
        stage_begin(&stage, where[i], NULL);
        stage_run(&stage);
        assert_int_equal(ns_job_set_data(stage.job, NULL), NS_SUCCESS);
        assert_null(ns_job_get_data(stage.job));
        assert_int_equal(ns_job_set_data(stage.job, &stage), NS_SUCCESS);
        assert_int_equal(ns_job_set_done_cb(stage.job, NULL), NS_SUCCESS);
        assert_int_equal(ns_job_set_done_cb(stage.job, staged_gone), NS_SUCCESS);
        assert_int_equal(ns_job_timedwait(stage.job, &at_once), NS_TIMEOUT);
        stage_leave(&stage);
        assert_int_equal(ns_job_wait(stage.job), NS_SUCCESS);
        assert_int_equal(latch_count(&stage.runs), 1);
        assert_int_equal(ns_job_done(stage.job), NS_SUCCESS);
        stage_end(&stage);
    }
}

TEST(running_that_is_rearmed_from_outside_runs_again)
{
    struct stage stage;
    for EACH_THREAD(i) {
        stage_begin(&stage, where[i], NULL);
        stage_run(&stage);
        assert_int_equal(ns_job_rearm(stage.job), NS_SUCCESS);
        /* Asked for: NEEDS_ARM. */
        assert_int_equal(ns_job_rearm(stage.job), NS_INVALID_STATE);
        assert_int_equal(ns_job_set_data(stage.job, NULL), NS_INVALID_STATE);
        assert_int_equal(ns_job_set_done_cb(stage.job, NULL), NS_INVALID_STATE);
        assert_int_equal(ns_job_timedwait(stage.job, &at_once), NS_TIMEOUT);
        assert_int_equal(latch_count(&stage.runs), 1);
        stage_leave(&stage);
        assert_int_equal(ns_job_wait(stage.job), NS_SUCCESS);
        assert_int_equal(latch_count(&stage.runs), 2);
        assert_int_equal(ns_job_done(stage.job), NS_SUCCESS);
        stage_end(&stage);
    }
}

/*
 * The same for jobs that the loop arms: a timer, a descriptor, and one with a time-out.
 *
 * To see it fail: in State::arm, do not record it for a job whose queue is REQ.
 */
TEST(running_timers_and_descriptors_that_are_rearmed_from_outside_fire_again)
{
    struct ns_thrpool_t *tp = pool_of(2);
    struct timeval soon = {0, 2000};
    struct timeval late = {3600, 0};
    int ends[2];
    socket_pair(ends);
    for EACH_THREAD(i) {
        for (int kind = 0; kind < 4; kind++) {
            struct gate gate = GATE_INIT;
            struct ns_job_t *job = NULL;
            ns_job_type_t io = where[i] | NS_JOB_PRESERVE_FD;
            assert_int_equal(
                kind == 0   ? ns_add_timeout_job(tp, &soon, where[i], gate_callback, &gate, &job)
                : kind == 1 ? ns_add_fd_job(tp, ends[0], io | NS_JOB_WRITE, gate_callback, &gate,
                                            &job)
                : kind == 2 ? ns_add_fd_timeout_job(tp, ends[0], &soon, io | NS_JOB_READ,
                                                    gate_callback, &gate, &job)
                            : ns_add_fd_timeout_job(tp, ends[0], &late, io | NS_JOB_WRITE,
                                                    gate_callback, &gate, &job),
                NS_SUCCESS);
            ns_job_type_t output = kind & 1 ? NS_JOB_WRITE : NS_JOB_TIMER;
            assert_latch(&gate.begun, 1);
            assert_int_equal(ns_job_get_output_type(job), output);
            assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
            assert_int_equal(ns_job_rearm(job), NS_INVALID_STATE);
            assert_int_equal(ns_job_timedwait(job, &at_once), NS_TIMEOUT);
            assert_int_equal(latch_count(&gate.begun), 1);
            latch_add(&gate.leave, 1);
            assert_int_equal(ns_job_wait(job), NS_SUCCESS);
            assert_int_equal(latch_count(&gate.begun), 2);
            assert_int_equal(ns_job_done(job), NS_SUCCESS);
        }
    }
    pool_end(tp);
    close(ends[0]);
    close(ends[1]);
}

TEST(running_that_is_done_from_outside_is_disposed_of_when_it_returns)
{
    struct stage stage;
    for EACH_THREAD(i) {
        stage_begin(&stage, where[i], NULL);
        stage_run(&stage);
        assert_int_equal(ns_job_done(stage.job), NS_SUCCESS);
        /* NEEDS_DELETE. */
        assert_int_equal(ns_job_done(stage.job), NS_SUCCESS);
        assert_int_equal(ns_job_rearm(stage.job), NS_INVALID_STATE);
        assert_int_equal(ns_job_set_data(stage.job, NULL), NS_INVALID_STATE);
        assert_int_equal(ns_job_set_done_cb(stage.job, NULL), NS_INVALID_STATE);
        assert_int_equal(ns_job_cancel(stage.job), NS_RUNNING);
        assert_ptr_equal(ns_job_get_data(stage.job), &stage);
        assert_int_equal(latch_count(&stage.disposals), 0);
        stage_leave(&stage);
        assert_latch(&stage.disposals, 1);
        stage_end(&stage);
        assert_int_equal(latch_count(&stage.runs), 1);
    }
}

TEST(done_from_outside_wins_over_rearm_in_either_order)
{
    struct stage stage;
    for EACH_THREAD(i) {
        stage_begin(&stage, where[i], NULL);
        stage_run(&stage);
        assert_int_equal(ns_job_rearm(stage.job), NS_SUCCESS);
        assert_int_equal(ns_job_done(stage.job), NS_SUCCESS);
        stage_leave(&stage);
        assert_latch(&stage.disposals, 1);
        stage_end(&stage);
        assert_int_equal(latch_count(&stage.runs), 1);

        stage_begin(&stage, where[i], NULL);
        stage_run(&stage);
        assert_int_equal(ns_job_done(stage.job), NS_SUCCESS);
        assert_int_equal(ns_job_rearm(stage.job), NS_INVALID_STATE);
        stage_leave(&stage);
        assert_latch(&stage.disposals, 1);
        stage_end(&stage);
        assert_int_equal(latch_count(&stage.runs), 1);
    }
}

/* The results of a callback's own calls, in order. */
static ns_result_t answers[12];

static void rearm_then_try(struct ns_job_t *job)
{
    answers[0] = ns_job_set_data(job, ns_job_get_data(job));
    answers[1] = ns_job_set_done_cb(job, staged_gone);
    answers[2] = ns_job_rearm(job);
    answers[3] = ns_job_rearm(job);
    answers[4] = ns_job_set_data(job, NULL);
    answers[5] = ns_job_set_done_cb(job, NULL);
    answers[6] = ns_job_wait(job);
    answers[7] = ns_job_timedwait(job, &at_once);
    answers[8] = ns_job_done(job);
    answers[9] = ns_job_rearm(job);
    answers[10] = ns_job_done(job);
    answers[11] = ns_job_cancel(job);
}

TEST(own_rearm_then_done_is_done)
{
    struct stage stage;
    const ns_result_t want[] = {
        NS_SUCCESS,       NS_SUCCESS,       NS_SUCCESS,       NS_INVALID_STATE,
        NS_INVALID_STATE, NS_INVALID_STATE, NS_INVALID_STATE, NS_INVALID_STATE,
        NS_SUCCESS,       NS_INVALID_STATE, NS_SUCCESS,       NS_SUCCESS,
    };
    for EACH_THREAD(i) {
        memset(answers, 0xff, sizeof answers);
        stage_begin(&stage, where[i], rearm_then_try);
        stage_leave(&stage);
        stage_run(&stage);
        assert_latch(&stage.disposals, 1);
        stage_end(&stage);
        assert_int_equal(latch_count(&stage.runs), 1);
        for (size_t at = 0; at < 12; at++) {
            assert_int_equal(answers[at], want[at]);
        }
    }
}

static void done_then_try(struct ns_job_t *job)
{
    answers[0] = ns_job_done(job);
    answers[1] = ns_job_rearm(job);
    answers[2] = ns_job_done(job);
    answers[3] = ns_job_set_data(job, NULL);
    answers[4] = ns_job_set_done_cb(job, NULL);
    answers[5] = ns_job_wait(job);
}

TEST(own_done_then_rearm_is_done)
{
    struct stage stage;
    const ns_result_t want[] = {
        NS_SUCCESS, NS_INVALID_STATE, NS_SUCCESS, NS_INVALID_STATE, NS_INVALID_STATE,
        NS_INVALID_STATE,
    };
    for EACH_THREAD(i) {
        stage_begin(&stage, where[i], done_then_try);
        stage_leave(&stage);
        stage_run(&stage);
        assert_latch(&stage.disposals, 1);
        stage_end(&stage);
        assert_int_equal(latch_count(&stage.runs), 1);
        for (size_t at = 0; at < 6; at++) {
            assert_int_equal(answers[at], want[at]);
        }
    }
}

static void rearm_first(struct ns_job_t *job)
{
    answers[0] = ns_job_rearm(job);
}

TEST(after_its_own_rearm_a_job_answers_from_outside_as_one_that_was_asked_for)
{
    struct stage stage;
    for EACH_THREAD(i) {
        stage_begin(&stage, where[i], rearm_first);
        stage_run(&stage);
        assert_int_equal(answers[0], NS_SUCCESS);
        assert_int_equal(ns_job_rearm(stage.job), NS_INVALID_STATE);
        assert_int_equal(ns_job_set_data(stage.job, NULL), NS_INVALID_STATE);
        assert_int_equal(ns_job_set_done_cb(stage.job, NULL), NS_INVALID_STATE);
        assert_int_equal(ns_job_timedwait(stage.job, &at_once), NS_TIMEOUT);
        assert_int_equal(ns_job_done(stage.job), NS_SUCCESS);
        stage_leave(&stage);
        assert_latch(&stage.disposals, 1);
        stage_end(&stage);
        assert_int_equal(latch_count(&stage.runs), 1);
    }
}

static void done_first(struct ns_job_t *job)
{
    answers[0] = ns_job_done(job);
}

TEST(after_its_own_done_a_job_answers_from_outside_as_finished)
{
    struct stage stage;
    for EACH_THREAD(i) {
        stage_begin(&stage, where[i], done_first);
        stage_run(&stage);
        assert_int_equal(answers[0], NS_SUCCESS);
        assert_int_equal(ns_job_done(stage.job), NS_SUCCESS);
        assert_int_equal(ns_job_rearm(stage.job), NS_INVALID_STATE);
        assert_int_equal(ns_job_set_data(stage.job, NULL), NS_INVALID_STATE);
        assert_int_equal(ns_job_set_done_cb(stage.job, NULL), NS_INVALID_STATE);
        assert_int_equal(ns_job_cancel(stage.job), NS_RUNNING);
        assert_ptr_equal(ns_job_get_tp(stage.job), stage.tp);
        assert_int_equal(latch_count(&stage.disposals), 0);
        stage_leave(&stage);
        assert_latch(&stage.disposals, 1);
        stage_end(&stage);
    }
}

static void cancel_first(struct ns_job_t *job)
{
    answers[0] = ns_job_cancel(job);
    answers[1] = ns_job_rearm(job);
}

TEST(own_cancel_is_done)
{
    struct stage stage;
    for EACH_THREAD(i) {
        stage_begin(&stage, where[i], cancel_first);
        stage_run(&stage);
        assert_int_equal(answers[0], NS_SUCCESS);
        assert_int_equal(answers[1], NS_INVALID_STATE);
        assert_int_equal(latch_count(&stage.disposals), 0);
        stage_leave(&stage);
        assert_latch(&stage.disposals, 1);
        stage_end(&stage);
        assert_int_equal(latch_count(&stage.runs), 1);
    }
}

TEST(without_rearm_or_persist_a_job_is_waiting_when_it_returns)
{
    struct stage stage;
    for EACH_THREAD(i) {
        stage_begin(&stage, where[i], NULL);
        stage_leave(&stage);
        stage_run(&stage);
        assert_int_equal(ns_job_wait(stage.job), NS_SUCCESS);
        loop_passes(stage.tp, 1000);
        assert_int_equal(latch_count(&stage.runs), 1);
        assert_int_equal(ns_job_set_data(stage.job, &stage), NS_SUCCESS);
        assert_int_equal(ns_job_done(stage.job), NS_SUCCESS);
        stage_end(&stage);
    }
}

static atomic_int persist_runs;
static atomic_int persist_refusals;

static void rearm_though_persistent(struct ns_job_t *job)
{
    if (ns_job_rearm(job) == NS_INVALID_STATE) {
        atomic_fetch_add(&persist_refusals, 1);
    }
    if (atomic_fetch_add(&persist_runs, 1) + 1 == 100) {
        ns_job_done(job);
    }
}

TEST(rearm_in_the_callback_of_a_persist_job_is_refused_and_does_no_harm)
{
    struct ns_thrpool_t *tp = pool_of(2);
    int ends[2];
    socket_pair(ends);
    const ns_job_type_t triggers[] = {NS_JOB_NONE, NS_JOB_TIMER, NS_JOB_WRITE};
    for EACH_THREAD(i) {
        for (size_t trigger = 0; trigger < 3; trigger++) {
            struct ns_job_t *job = NULL;
            struct latch gone = LATCH_INIT;
            ns_job_type_t type = triggers[trigger] | where[i] | NS_JOB_PERSIST | NS_JOB_UNARMED;
            atomic_store(&persist_runs, 0);
            atomic_store(&persist_refusals, 0);
            if (triggers[trigger] == NS_JOB_WRITE) {
                assert_int_equal(ns_add_fd_job(tp, ends[0], type | NS_JOB_PRESERVE_FD,
                                               rearm_though_persistent, &gone, &job), NS_SUCCESS);
            } else {
                assert_int_equal(ns_add_job(tp, type, rearm_though_persistent, &gone, &job),
                                 NS_SUCCESS);
            }
            arm_with(job, count_callback);
            assert_latch(&gone, 1);
            assert_int_equal(atomic_load(&persist_runs), 100);
            assert_int_equal(atomic_load(&persist_refusals), 100);
        }
    }
    pool_end(tp);
    close(ends[0]);
    close(ends[1]);
}

TEST(rearm_of_a_running_persist_job_from_outside_is_refused)
{
    struct stage stage;
    for EACH_THREAD(i) {
        stage_begin(&stage, where[i] | NS_JOB_PERSIST, NULL);
        stage_run(&stage);
        assert_int_equal(ns_job_rearm(stage.job), NS_INVALID_STATE);
        assert_int_equal(ns_job_set_data(stage.job, &stage), NS_SUCCESS);
        assert_int_equal(ns_job_done(stage.job), NS_SUCCESS);
        stage_leave(&stage);
        assert_latch(&stage.disposals, 1);
        stage_end(&stage);
        assert_int_equal(latch_count(&stage.runs), 1);
    }
}

/* What a done callback learns about its job. */
struct last_words {
    struct latch runs;
    struct latch said;
    struct ns_thrpool_t *tp;
    ns_job_type_t type;
    ns_job_type_t output;
    int fd;
    int fd_open;
    int is_func;
    long runs_before;
    struct ns_thrpool_t *got_tp;
    struct PRFileDesc *prfd;
    ns_result_t results[5];
};

static void finish_with_words(struct ns_job_t *job)
{
    struct last_words *words = ns_job_get_data(job);
    ns_job_done(job);
    latch_add(&words->runs, 1);
}

static void say_last_words(struct ns_job_t *job)
{
    struct last_words *words = ns_job_get_data(job);
    words->type = ns_job_get_type(job);
    words->output = ns_job_get_output_type(job);
    words->got_tp = ns_job_get_tp(job);
    words->prfd = ns_job_get_fd(job);
    words->fd = ns_job_get_native_fd(job);
    words->fd_open = fd_is_open(words->fd);
    words->is_func = ns_job_is_func(job, finish_with_words);
    words->runs_before = latch_count(&words->runs);
    words->results[0] = ns_job_done(job);
    words->results[1] = ns_job_rearm(job);
    words->results[2] = ns_job_set_data(job, NULL);
    words->results[3] = ns_job_set_done_cb(job, say_last_words);
    words->results[4] = ns_job_cancel(job);
    latch_add(&words->said, 1);
}

TEST(getters_answer_in_the_done_callback_as_before)
{
    struct ns_thrpool_t *tp = pool_of(1);
    for EACH_THREAD(i) {
        for (int preserve = 0; preserve < 2; preserve++) {
            int ends[2];
            socket_pair(ends);
            ns_job_type_t type = where[i] | NS_JOB_WRITE | (preserve ? NS_JOB_PRESERVE_FD : 0);
            struct last_words words = {.runs = LATCH_INIT, .said = LATCH_INIT};
            struct ns_job_t *job = NULL;
            assert_int_equal(ns_add_fd_job(tp, ends[0], type | NS_JOB_UNARMED, finish_with_words,
                                           &words, &job), NS_SUCCESS);
            arm_with(job, say_last_words);
            assert_latch(&words.said, 1);
            assert_int_equal(words.type, type);
            assert_int_equal(words.output, 0);
            assert_ptr_equal(words.got_tp, tp);
            assert_null(words.prfd);
            assert_int_equal(words.fd, ends[0]);
            /* The descriptor is closed by then, unless the job preserves it. */
            assert_int_equal(words.fd_open, preserve);
            assert_int_equal(words.is_func, 1);
            assert_int_equal(words.runs_before, 1);
            assert_int_equal(words.results[0], NS_SUCCESS);
            assert_int_equal(words.results[1], NS_INVALID_STATE);
            assert_int_equal(words.results[2], NS_INVALID_STATE);
            assert_int_equal(words.results[3], NS_INVALID_STATE);
            assert_int_equal(words.results[4], NS_SUCCESS);
            if (preserve) {
                close(ends[0]);
            }
            close(ends[1]);
        }
    }
    pool_end(tp);
}

static struct latch exactly_once = LATCH_INIT;
static atomic_int done_calls;

static void count_gone(struct ns_job_t *job)
{
    atomic_int *count = ns_job_get_data(job);
    atomic_fetch_add(count, 1);
    latch_add(&exactly_once, 1);
}

static void *finish_it(void *job)
{
    if (ns_job_done(job) == NS_SUCCESS) {
        atomic_fetch_add(&done_calls, 1);
    }
    return NULL;
}

TEST(done_by_many_threads_while_it_runs_disposes_of_it_once)
{
    enum { THREADS = 4 };
    int rounds = scaled(50);
    for EACH_THREAD(i) {
        struct stage stage;
        for (int round = 0; round < rounds; round++) {
            pthread_t threads[THREADS];
            stage_begin(&stage, where[i], NULL);
            stage_run(&stage);
            atomic_store(&done_calls, 0);
            for (int t = 0; t < THREADS; t++) {
                assert_int_equal(pthread_create(&threads[t], NULL, finish_it, stage.job), 0);
            }
            for (int t = 0; t < THREADS; t++) {
                pthread_join(threads[t], NULL);
            }
            assert_int_equal(atomic_load(&done_calls), THREADS);
            stage_leave(&stage);
            stage_end(&stage);
        }
    }
}

TEST(done_callback_runs_exactly_once_for_each_job)
{
    int jobs = scaled(10000);
    atomic_int *counts = calloc((size_t)jobs, sizeof *counts);
    struct ns_thrpool_t *tp = pool_of(4);
    for (int i = 0; i < jobs; i++) {
        struct ns_job_t *job = NULL;
        ns_job_type_t type = i & 1 ? NS_JOB_THREAD : 0;
        if (i & 2) {
            type |= NS_JOB_TIMER;
        }
        assert_int_equal(ns_add_job(tp, type | NS_JOB_UNARMED, finish_job, &counts[i], &job),
                         NS_SUCCESS);
        assert_int_equal(ns_job_set_done_cb(job, count_gone), NS_SUCCESS);
        switch (i / 4 % 3) {
        case 0:
            assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
            break;
        case 1:
            assert_int_equal(ns_job_done(job), NS_SUCCESS);
            break;
        default:
            assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
        }
    }
    assert_latch(&exactly_once, jobs);
    pool_end(tp);
    for (int i = 0; i < jobs; i++) {
        assert_int_equal(atomic_load(&counts[i]), 1);
    }
    free(counts);
}

static pthread_t done_thread;

static void note_done_thread(struct ns_job_t *job)
{
    done_thread = pthread_self();
    latch_add(ns_job_get_data(job), 1);
}

TEST(done_callback_never_runs_inside_the_call)
{
    struct ns_thrpool_t *tp = pool_of(1);
    ns_result_t (*const ends[])(struct ns_job_t *) = {ns_job_done, ns_job_cancel};
    for EACH_THREAD(i) {
        for (size_t end = 0; end < 2; end++) {
            struct latch gone = LATCH_INIT;
            struct ns_job_t *job = NULL;
            assert_int_equal(ns_add_job(tp, where[i] | NS_JOB_UNARMED, finish_job, &gone, &job),
                             NS_SUCCESS);
            assert_int_equal(ns_job_set_done_cb(job, note_done_thread), NS_SUCCESS);
            assert_int_equal(ends[end](job), NS_SUCCESS);
            assert_latch(&gone, 1);
            assert_false(pthread_equal(done_thread, pthread_self()));
        }
    }
    pool_end(tp);
}

static void shut_pool_down_and_rearm(struct ns_job_t *job)
{
    ns_thrpool_shutdown(ns_job_get_tp(job));
    answers[0] = ns_job_rearm(job);
    answers[1] = ns_job_set_data(job, ns_job_get_data(job));
}

TEST(rearm_while_shutting_down_is_refused_and_the_job_stays_usable)
{
    struct stage stage;
    for EACH_THREAD(i) {
        stage_begin(&stage, where[i], shut_pool_down_and_rearm);
        stage_run(&stage);
        assert_int_equal(answers[0], NS_SHUTDOWN);
        assert_int_equal(answers[1], NS_SUCCESS);
        assert_int_equal(ns_job_rearm(stage.job), NS_SHUTDOWN);
        assert_int_equal(ns_job_done(stage.job), NS_SUCCESS);
        stage_leave(&stage);
        assert_latch(&stage.disposals, 1);
        stage_end(&stage);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(waiting_can_be_set_and_rearmed),
        cmocka_unit_test(waiting_that_is_done_or_cancelled_is_disposed_of_without_a_run),
        cmocka_unit_test(armed_refuses_all_but_cancel_and_stays_as_it_was),
        cmocka_unit_test(armed_in_the_work_queue_refuses_done_and_then_runs),
        cmocka_unit_test(running_takes_settings_from_outside_at_once),
        cmocka_unit_test(running_that_is_rearmed_from_outside_runs_again),
        cmocka_unit_test(running_timers_and_descriptors_that_are_rearmed_from_outside_fire_again),
        cmocka_unit_test(running_that_is_done_from_outside_is_disposed_of_when_it_returns),
        cmocka_unit_test(done_from_outside_wins_over_rearm_in_either_order),
        cmocka_unit_test(own_rearm_then_done_is_done),
        cmocka_unit_test(own_done_then_rearm_is_done),
        cmocka_unit_test(after_its_own_rearm_a_job_answers_from_outside_as_one_that_was_asked_for),
        cmocka_unit_test(after_its_own_done_a_job_answers_from_outside_as_finished),
        cmocka_unit_test(own_cancel_is_done),
        cmocka_unit_test(without_rearm_or_persist_a_job_is_waiting_when_it_returns),
        cmocka_unit_test(rearm_in_the_callback_of_a_persist_job_is_refused_and_does_no_harm),
        cmocka_unit_test(rearm_of_a_running_persist_job_from_outside_is_refused),
        cmocka_unit_test(getters_answer_in_the_done_callback_as_before),
        cmocka_unit_test(done_by_many_threads_while_it_runs_disposes_of_it_once),
        cmocka_unit_test(done_callback_runs_exactly_once_for_each_job),
        cmocka_unit_test(done_callback_never_runs_inside_the_call),
        cmocka_unit_test(rearm_while_shutting_down_is_refused_and_the_job_stays_usable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
