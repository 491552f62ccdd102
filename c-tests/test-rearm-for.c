/* SPDX-License-Identifier: GPL-3.0-or-later */
/* ns_job_rearm_for: jobs that are armed again for other directions, or with another time. */
#include "kinds.h"

#include <sys/wait.h>

static struct timeval soon = {0, 5000};
static struct timeval later = {0, 30000};
static struct timeval negative = {-1, 0};

/* What a callback saw, and what it is to do. */
struct serve {
    struct latch runs;
    struct latch gone;
    double begun[8];
    unsigned long output[8];
    unsigned long type[8];
    ns_result_t result[8];
    ns_result_t (*act)(struct ns_job_t *job, int run);
};

#define SERVE(action) {.runs = LATCH_INIT, .gone = LATCH_INIT, .act = (action)}

static void note_run(struct ns_job_t *job)
{
    struct serve *serve = ns_job_get_data(job);
    int run = (int)latch_count(&serve->runs);
    if (run < 8) {
        serve->begun[run] = now_seconds();
        serve->output[run] = ns_job_get_output_type(job);
        serve->type[run] = ns_job_get_type(job);
        serve->result[run] = serve->act == NULL ? NS_SUCCESS : serve->act(job, run);
    }
    latch_add(&serve->runs, 1);
}

static void note_gone(struct ns_job_t *job)
{
    struct serve *serve = ns_job_get_data(job);
    latch_add(&serve->gone, 1);
}

static struct ns_job_t *unarmed(struct ns_thrpool_t *tp, int kind, const struct trigger *on,
                                ns_job_type_t type, struct serve *serve)
{
    struct ns_job_t *job = NULL;
    assert_int_equal(add_kind(tp, kind, on, type | NS_JOB_UNARMED, note_run, serve, &job),
                     NS_SUCCESS);
    assert_int_equal(ns_job_set_done_cb(job, note_gone), NS_SUCCESS);
    return job;
}

static void cancel(struct ns_job_t *job, struct serve *serve)
{
    ns_result_t result = ns_job_cancel(job);
    assert_true(result == NS_SUCCESS || result == NS_RUNNING);
    assert_latch(&serve->gone, 1);
}

TEST(what_is_wrong_is_refused_and_changes_nothing)
{
    struct ns_thrpool_t *tp = pool_logging_to(1, recording_log);
    struct serve serve = SERVE(NULL);
    int ends[2];
    socket_pair(ends);
    const struct trigger on = {&far_away, ends[0], NS_JOB_READ | NS_JOB_PRESERVE_FD};
    assert_int_equal(ns_job_rearm_for(NULL, 0, NULL), NS_INVALID_REQUEST);
    const struct {
        int kind;
        ns_job_type_t directions;
        struct timeval *tv;
        const char *why;
    } wrong[] = {
        {KIND_NOW, 0, NULL, "job is a run-now job"},
        {KIND_SIGNAL, 0, NULL, "job is a signal job"},
        {KIND_SIGNAL, NS_JOB_READ, NULL, "job is a signal job"},
        {KIND_TIMER, NS_JOB_READ, NULL, "the job has no descriptor"},
        {KIND_TIMER, NS_JOB_TIMER, NULL, "directions has a flag"},
        {KIND_TIMER, 0, &negative, "tv is negative"},
        {KIND_FD, NS_JOB_ACCEPT, NULL, "directions has a flag"},
        {KIND_FD, NS_JOB_READ | NS_JOB_ACCEPT, NULL, "directions has a flag"},
        {KIND_FD, NS_JOB_READ | NS_JOB_PERSIST, NULL, "directions has a flag"},
        {KIND_FD, NS_JOB_WRITE | NS_JOB_THREAD, NULL, "directions has a flag"},
        {KIND_FD, NS_JOB_WRITE | NS_JOB_TIMER, NULL, "directions has a flag"},
        {KIND_FD, 0x8000, NULL, "directions has a flag"},
        {KIND_FD, NS_JOB_WRITE, &negative, "tv is negative"},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct ns_job_t *job = unarmed(tp, wrong[i].kind, &on, 0, &serve);
        ns_job_type_t type = ns_job_get_type(job);
        assert_int_equal(ns_job_rearm_for(job, wrong[i].directions, wrong[i].tv),
                         NS_INVALID_REQUEST);
        if (!logged("ns_job_rearm_for: ") || !logged(wrong[i].why)) {
            fail_msg("wanted \"%s\" in: %s", wrong[i].why, logged_last);
        }
        assert_int_equal(ns_job_get_type(job), type);
        assert_int_equal(ns_job_done(job), NS_SUCCESS);
    }
    struct ns_job_t *job = unarmed(tp, KIND_FD, &on, 0, &serve);
    assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
    assert_int_equal(ns_job_rearm_for(job, NS_JOB_WRITE, &soon), NS_INVALID_STATE);
    assert_int_equal(ns_job_get_type(job), NS_JOB_READ | NS_JOB_PRESERVE_FD);
    pid_t child = fork();
    if (child == 0) {
        _exit(ns_job_rearm_for(job, NS_JOB_WRITE, NULL) != NS_SHUTDOWN);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
    job = unarmed(tp, KIND_FD, &on, 0, &serve);
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_job_rearm_for(job, NS_JOB_WRITE, NULL), NS_SHUTDOWN);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    pool_end(tp);
    assert_int_equal(latch_count(&serve.runs), 0);
    close(ends[0]);
    close(ends[1]);
}

/* A job that reads, then writes, by turns: what the callback of each run arms it for. */
static ns_result_t turn_round(struct ns_job_t *job, int run)
{
    char byte;
    if (run == 7) {
        return ns_job_done(job);
    }
    if (run % 2 == 0) {
        if (read(ns_job_get_native_fd(job), &byte, 1) != 1) {
            return NS_TIMEOUT;
        }
        return ns_job_rearm_for(job, NS_JOB_WRITE, NULL);
    }
    if (write(ns_job_get_native_fd(job), "y", 1) != 1) {
        return NS_TIMEOUT;
    }
    return ns_job_rearm_for(job, NS_JOB_READ, NULL);
}

TEST(one_job_reads_and_writes_by_turns)
{
    for EACH_THREAD(i) {
        for (int persist = 0; persist < 2; persist++) {
            for (int grouped = 0; grouped < 2; grouped++) {
                struct ns_thrpool_t *tp = pool_of(2);
                struct serve serve = SERVE(turn_round);
                struct ns_group_t *group = NULL;
                int ends[2];
                char byte;
                socket_pair(ends);
                const struct trigger on = {NULL, ends[0], NS_JOB_READ};
                ns_job_type_t kept = where[i] | (persist ? NS_JOB_PERSIST : 0);
                struct ns_job_t *job = unarmed(tp, KIND_FD, &on, kept, &serve);
                if (grouped) {
                    assert_int_equal(ns_group_new(tp, 1, NULL, NULL, &group), NS_SUCCESS);
                    assert_int_equal(ns_job_set_group(job, group), NS_SUCCESS);
                }
                assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
                for (int round = 0; round < 4; round++) {
                    /* It is writable all the time, and does not fire for that now. */
                    loop_passes(tp, 1000);
                    assert_int_equal(latch_count(&serve.runs), 2 * round);
                    assert_int_equal(write(ends[1], "x", 1), 1);
                    assert_latch(&serve.runs, 2 * round + 2);
                    assert_true(round == 3 || read(ends[1], &byte, 1) == 1);
                }
                assert_latch(&serve.gone, 1);
                for (int run = 0; run < 8; run++) {
                    unsigned long direction = run % 2 ? NS_JOB_WRITE : NS_JOB_READ;
                    assert_int_equal(serve.result[run], NS_SUCCESS);
                    assert_int_equal(serve.output[run], direction);
                    assert_int_equal(serve.type[run], direction | kept);
                }
                if (grouped) {
                    ns_group_release(group);
                }
                pool_end(tp);
                close(ends[1]);
            }
        }
    }
}

TEST(from_outside_an_idle_job_takes_every_direction)
{
    struct ns_thrpool_t *tp = pool_of(1);
    for EACH_THREAD(i) {
        struct serve serve = SERVE(NULL);
        int ends[2];
        socket_pair(ends);
        assert_int_equal(write(ends[1], "x", 1), 1);
        const struct trigger on = {NULL, ends[0], NS_JOB_ACCEPT};
        struct ns_job_t *job = NULL;
        assert_int_equal(add_kind(tp, KIND_FD, &on, NS_JOB_UNARMED | NS_JOB_PRESERVE_FD, note_run,
                                  &serve, &job), NS_SUCCESS);
        assert_int_equal(ns_job_set_done_cb(job, note_gone), NS_SUCCESS);
        const unsigned long directions[] = {
            0, NS_JOB_WRITE, NS_JOB_READ, NS_JOB_READ | NS_JOB_WRITE, 0, NS_JOB_CONNECT,
        };
        const unsigned long types[] = {
            NS_JOB_ACCEPT, NS_JOB_WRITE, NS_JOB_READ, NS_JOB_READ | NS_JOB_WRITE,
            NS_JOB_READ | NS_JOB_WRITE, NS_JOB_CONNECT,
        };
        const unsigned long outputs[] = {
            NS_JOB_READ, NS_JOB_WRITE, NS_JOB_READ, NS_JOB_READ | NS_JOB_WRITE,
            NS_JOB_READ | NS_JOB_WRITE, NS_JOB_WRITE,
        };
        for (int n = 0; n < 6; n++) {
            assert_int_equal(ns_job_rearm_for(job, directions[n], NULL), NS_SUCCESS);
            assert_int_equal(ns_job_get_type(job), types[n] | NS_JOB_PRESERVE_FD);
            assert_int_equal(ns_job_wait(job), NS_SUCCESS);
            assert_int_equal(serve.output[n], outputs[n]);
        }
        cancel(job, &serve);
        close(ends[0]);
        close(ends[1]);
    }
    pool_end(tp);
}

TEST(a_job_beside_it_keeps_its_own_directions)
{
    for EACH_THREAD(i) {
        struct ns_thrpool_t *tp = pool_of(1);
        struct serve changes = SERVE(NULL);
        struct serve stays = SERVE(NULL);
        int ends[2];
        socket_pair(ends);
        const struct trigger reads = {NULL, ends[0], NS_JOB_READ | NS_JOB_PRESERVE_FD};
        struct ns_job_t *one = unarmed(tp, KIND_FD, &reads, where[i], &changes);
        struct ns_job_t *other = unarmed(tp, KIND_FD, &reads, 0, &stays);
        assert_int_equal(ns_job_rearm(other), NS_SUCCESS);
        loop_passes(tp, 1000);
        assert_int_equal(ns_job_rearm_for(one, NS_JOB_WRITE, NULL), NS_SUCCESS);
        assert_int_equal(ns_job_wait(one), NS_SUCCESS);
        assert_int_equal(changes.output[0], NS_JOB_WRITE);
        assert_int_equal(latch_count(&stays.runs), 0);
        assert_int_equal(ns_job_rearm_for(one, NS_JOB_READ, NULL), NS_SUCCESS);
        loop_passes(tp, 1000);
        assert_int_equal(latch_count(&changes.runs), 1);
        assert_int_equal(write(ends[1], "x", 1), 1);
        assert_latch(&changes.runs, 2);
        assert_latch(&stays.runs, 1);
        assert_int_equal(stays.output[0], NS_JOB_READ);
        finish_idle(one);
        finish_idle(other);
        pool_end(tp);
        close(ends[0]);
        close(ends[1]);
    }
}

TEST(a_time_out_comes_goes_and_changes)
{
    for EACH_THREAD(i) {
        struct ns_thrpool_t *tp = pool_of(1);
        struct serve serve = SERVE(NULL);
        int ends[2];
        socket_pair(ends);
        const struct trigger on = {NULL, ends[0], NS_JOB_READ | NS_JOB_PRESERVE_FD};
        struct ns_job_t *job = unarmed(tp, KIND_FD, &on, where[i], &serve);
        const ns_job_type_t plain = where[i] | NS_JOB_READ | NS_JOB_PRESERVE_FD;
        assert_int_equal(ns_job_get_type(job), plain);
        /* It gets one, keeps it, and gets a longer one. */
        struct timeval *times[] = {&soon, NULL, &later, NULL};
        const double least[] = {0.005, 0.005, 0.03, 0.03};
        for (int n = 0; n < 4; n++) {
            double begin = now_seconds();
            assert_int_equal(n == 3 ? ns_job_rearm(job) : ns_job_rearm_for(job, 0, times[n]),
                             NS_SUCCESS);
            assert_int_equal(ns_job_get_type(job), plain | NS_JOB_TIMER);
            assert_int_equal(ns_job_wait(job), NS_SUCCESS);
            assert_int_equal(serve.output[n], NS_JOB_TIMER);
            assert_true(serve.begun[n] - begin >= least[n]);
        }
        /* None. */
        assert_int_equal(ns_job_rearm_for(job, 0, &at_once), NS_SUCCESS);
        assert_int_equal(ns_job_get_type(job), plain);
        loop_passes(tp, 50000);
        assert_int_equal(latch_count(&serve.runs), 4);
        assert_int_equal(write(ends[1], "x", 1), 1);
        assert_latch(&serve.runs, 5);
        assert_int_equal(serve.output[4], NS_JOB_READ);
        finish_idle(job);
        pool_end(tp);
        close(ends[0]);
        close(ends[1]);
    }
}

static ns_result_t read_then_hurry(struct ns_job_t *job, int run)
{
    char byte;
    if (run > 0) {
        return ns_job_done(job);
    }
    if (read(ns_job_get_native_fd(job), &byte, 1) != 1) {
        return NS_TIMEOUT;
    }
    return ns_job_rearm_for(job, 0, &soon);
}

/* The timer of a job that fired for its descriptor may be in the wheel still, by its old time. */
TEST(a_shorter_time_is_not_as_late_as_the_longer_was)
{
    struct timeval minutes = {300, 0};
    for EACH_THREAD(i) {
        for (int persist = 0; persist < 2; persist++) {
            struct ns_thrpool_t *tp = pool_of(1);
            struct serve serve = SERVE(read_then_hurry);
            int ends[2];
            socket_pair(ends);
            const struct trigger on = {&minutes, ends[0], NS_JOB_READ};
            struct ns_job_t *job = unarmed(tp, KIND_FD_TIMEOUT, &on,
                                           where[i] | (persist ? NS_JOB_PERSIST : 0), &serve);
            assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
            loop_passes(tp, 1000);
            assert_int_equal(write(ends[1], "x", 1), 1);
            assert_latch(&serve.gone, 1); /* within LIMIT_SECONDS */
            assert_int_equal(serve.output[0], NS_JOB_READ);
            assert_int_equal(serve.output[1], NS_JOB_TIMER);
            assert_true(serve.begun[1] - serve.begun[0] >= 0.005);
            pool_end(tp);
            close(ends[1]);
        }
        /* From outside, too. */
        struct ns_thrpool_t *tp = pool_of(1);
        struct serve serve = SERVE(NULL);
        int ends[2];
        socket_pair(ends);
        const struct trigger on = {&minutes, ends[0], NS_JOB_READ};
        struct ns_job_t *job = unarmed(tp, KIND_FD_TIMEOUT, &on, where[i], &serve);
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        assert_int_equal(write(ends[1], "x", 1), 1);
        assert_int_equal(ns_job_wait(job), NS_SUCCESS);
        char byte;
        assert_int_equal(read(ends[0], &byte, 1), 1);
        assert_int_equal(ns_job_rearm_for(job, 0, &soon), NS_SUCCESS);
        assert_latch(&serve.runs, 2);
        assert_int_equal(serve.output[1], NS_JOB_TIMER);
        finish_idle(job);
        pool_end(tp);
        close(ends[1]);
    }
}

static ns_result_t slow_down(struct ns_job_t *job, int run)
{
    return run == 0   ? ns_job_rearm_for(job, 0, &later)
           : run == 2 ? ns_job_rearm_for(job, 0, &at_once)
           : run == 4 ? ns_job_done(job)
                      : NS_SUCCESS;
}

TEST(a_timer_takes_another_time_for_good)
{
    for EACH_THREAD(i) {
        struct ns_thrpool_t *tp = pool_of(1);
        struct serve serve = SERVE(slow_down);
        const struct trigger on = {&soon, -1, 0};
        struct ns_job_t *job = unarmed(tp, KIND_TIMER, &on, where[i] | NS_JOB_PERSIST, &serve);
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        assert_latch(&serve.gone, 1);
        assert_int_equal(latch_count(&serve.runs), 5);
        assert_true(serve.begun[1] - serve.begun[0] >= 0.03);
        assert_true(serve.begun[2] - serve.begun[1] >= 0.03);
        for (int run = 0; run < 5; run++) {
            assert_int_equal(serve.result[run], NS_SUCCESS);
            assert_int_equal(serve.output[run], NS_JOB_TIMER);
            assert_int_equal(serve.type[run], where[i] | NS_JOB_PERSIST | NS_JOB_TIMER);
        }
        /* From outside, on an idle one: by its call. */
        struct serve idle = SERVE(NULL);
        const struct trigger never = {&far_away, -1, 0};
        job = unarmed(tp, KIND_TIMER, &never, where[i], &idle);
        for (int n = 0; n < 2; n++) {
            double begin = now_seconds();
            assert_int_equal(ns_job_rearm_for(job, 0, n == 0 ? &soon : NULL), NS_SUCCESS);
            assert_int_equal(ns_job_wait(job), NS_SUCCESS);
            assert_true(idle.begun[n] - begin >= 0.005);
        }
        assert_int_equal(ns_job_rearm_for(job, 0, &at_once), NS_SUCCESS);
        assert_int_equal(ns_job_wait(job), NS_SUCCESS);
        assert_int_equal(latch_count(&idle.runs), 3);
        cancel(job, &idle);
        pool_end(tp);
    }
}

static struct gate inside = GATE_INIT;

static ns_result_t stay_inside(struct ns_job_t *job, int run)
{
    UNUSED(job);
    if (run == 0) {
        stay_in_gate(&inside);
    }
    return NS_SUCCESS;
}

TEST(from_outside_it_changes_a_running_job_but_not_a_persistent_one)
{
    for EACH_THREAD(i) {
        for (int persist = 0; persist < 2; persist++) {
            struct ns_thrpool_t *tp = pool_of(1);
            struct serve serve = SERVE(stay_inside);
            int ends[2];
            socket_pair(ends);
            assert_int_equal(write(ends[1], "x", 1), 1);
            const struct trigger on = {NULL, ends[0], NS_JOB_READ | NS_JOB_PRESERVE_FD};
            ns_job_type_t kept = where[i] | NS_JOB_PRESERVE_FD | (persist ? NS_JOB_PERSIST : 0);
            struct ns_job_t *job = unarmed(tp, KIND_FD, &on, kept, &serve);
            inside = (struct gate)GATE_INIT;
            assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
            assert_latch(&inside.begun, 1);
            assert_int_equal(ns_job_rearm_for(job, NS_JOB_WRITE, NULL),
                             persist ? NS_INVALID_STATE : NS_SUCCESS);
            ns_job_type_t direction = persist ? NS_JOB_READ : NS_JOB_WRITE;
            assert_int_equal(ns_job_get_type(job), direction | kept);
            assert_int_equal(ns_job_get_output_type(job), NS_JOB_READ);
            latch_add(&inside.leave, 1);
            assert_latch(&serve.runs, 2);
            assert_int_equal(serve.output[1], direction);
            cancel(job, &serve);
            pool_end(tp);
            close(ends[0]);
            close(ends[1]);
        }
    }
}

static ns_result_t finish_then_change(struct ns_job_t *job, int run)
{
    UNUSED(run);
    ns_job_type_t type = ns_job_get_type(job);
    ns_result_t done = ns_job_done(job);
    return done == NS_SUCCESS && ns_job_rearm_for(job, NS_JOB_READ, &soon) == NS_INVALID_STATE
                   && ns_job_get_type(job) == type
               ? NS_SUCCESS
               : NS_INVALID_REQUEST;
}

TEST(a_job_that_is_finished_with_is_not_changed)
{
    struct ns_thrpool_t *tp = pool_of(1);
    for EACH_THREAD(i) {
        struct serve serve = SERVE(finish_then_change);
        int ends[2];
        socket_pair(ends);
        const struct trigger on = {NULL, ends[0], NS_JOB_WRITE};
        struct ns_job_t *job = unarmed(tp, KIND_FD, &on, where[i], &serve);
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        assert_latch(&serve.gone, 1);
        assert_int_equal(serve.result[0], NS_SUCCESS);
        close(ends[1]);
    }
    pool_end(tp);
}

TEST(a_connection_that_is_gone_fires_in_the_new_direction)
{
    struct ns_thrpool_t *tp = pool_of(1);
    for EACH_THREAD(i) {
        struct serve serve = SERVE(NULL);
        int ends[2];
        socket_pair(ends);
        const struct trigger on = {NULL, ends[0], NS_JOB_READ};
        struct ns_job_t *job = unarmed(tp, KIND_FD, &on, where[i], &serve);
        assert_int_equal(write(ends[1], "x", 1), 1);
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        assert_int_equal(ns_job_wait(job), NS_SUCCESS);
        close(ends[1]);
        assert_int_equal(ns_job_rearm_for(job, NS_JOB_WRITE, NULL), NS_SUCCESS);
        assert_int_equal(ns_job_wait(job), NS_SUCCESS);
        assert_int_equal(serve.output[1], NS_JOB_WRITE);
        cancel(job, &serve);
        assert_false(fd_is_open(ends[0]));
    }
    pool_end(tp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_wrong_is_refused_and_changes_nothing),
        cmocka_unit_test(one_job_reads_and_writes_by_turns),
        cmocka_unit_test(from_outside_an_idle_job_takes_every_direction),
        cmocka_unit_test(a_job_beside_it_keeps_its_own_directions),
        cmocka_unit_test(a_time_out_comes_goes_and_changes),
        cmocka_unit_test(a_shorter_time_is_not_as_late_as_the_longer_was),
        cmocka_unit_test(a_timer_takes_another_time_for_good),
        cmocka_unit_test(from_outside_it_changes_a_running_job_but_not_a_persistent_one),
        cmocka_unit_test(a_job_that_is_finished_with_is_not_changed),
        cmocka_unit_test(a_connection_that_is_gone_fires_in_the_new_direction),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
