/* SPDX-License-Identifier: GPL-3.0-or-later */
/* ns_job_rearm_after: jobs that rest before they watch for their trigger. */
#include "kinds.h"

#include <sys/wait.h>

static struct timeval soon = {0, 1000};
static struct timeval delay = {0, 20000};
static struct timeval longer = {0, 200000};
static struct timeval negative = {0, -1};
static const double delay_s = 0.02;

/* What a callback saw, and what it is to do. */
struct rest {
    struct latch runs;
    struct latch gone;
    double begun[8];
    double ended[8];
    unsigned long output[8];
    ns_result_t result[8];
    ns_result_t (*act)(struct ns_job_t *job, int run);
};

static void note_run(struct ns_job_t *job)
{
    struct rest *rest = ns_job_get_data(job);
    int run = (int)latch_count(&rest->runs);
    if (run < 8) {
        rest->begun[run] = now_seconds();
        rest->output[run] = ns_job_get_output_type(job);
        rest->result[run] = rest->act == NULL ? NS_SUCCESS : rest->act(job, run);
        rest->ended[run] = now_seconds();
    }
    latch_add(&rest->runs, 1);
}

static void note_gone(struct ns_job_t *job)
{
    struct rest *rest = ns_job_get_data(job);
    latch_add(&rest->gone, 1);
}

/* A job of this kind that was never armed. */
static struct ns_job_t *unarmed(struct ns_thrpool_t *tp, int kind, int fd, struct timeval *tv,
                                ns_job_type_t type, struct rest *rest)
{
    const struct trigger on = {tv, fd, NS_JOB_WRITE | NS_JOB_PRESERVE_FD};
    struct ns_job_t *job = NULL;
    assert_int_equal(add_kind(tp, kind, &on, type | NS_JOB_UNARMED, note_run, rest, &job),
                     NS_SUCCESS);
    assert_int_equal(ns_job_set_done_cb(job, note_gone), NS_SUCCESS);
    return job;
}

static void cancel(struct ns_job_t *job, struct rest *rest)
{
    ns_result_t result = ns_job_cancel(job);
    assert_true(result == NS_SUCCESS || result == NS_RUNNING);
    assert_latch(&rest->gone, 1);
}

TEST(what_is_wrong_is_refused)
{
    struct ns_thrpool_t *tp = pool_logging_to(1, recording_log);
    struct rest rest = {.runs = LATCH_INIT, .gone = LATCH_INIT};
    assert_int_equal(ns_job_rearm_after(NULL, &delay), NS_INVALID_REQUEST);
    struct ns_job_t *now = unarmed(tp, KIND_NOW, -1, NULL, NS_JOB_THREAD, &rest);
    assert_int_equal(ns_job_rearm_after(now, &delay), NS_INVALID_REQUEST);
    assert_true(logged("ns_job_rearm_after: job is a run-now job"));
    assert_int_equal(ns_job_done(now), NS_SUCCESS);
    assert_latch(&rest.gone, 1);
    struct ns_job_t *job = unarmed(tp, KIND_TIMER, -1, &far_away, 0, &rest);
    assert_int_equal(ns_job_rearm_after(job, NULL), NS_INVALID_REQUEST);
    assert_true(logged("ns_job_rearm_after: tv is NULL"));
    assert_int_equal(ns_job_rearm_after(job, &negative), NS_INVALID_REQUEST);
    assert_true(logged("ns_job_rearm_after: tv is negative"));
    /* It is as it was, can be armed once, and then not again. */
    errno = 77;
    assert_int_equal(ns_job_rearm_after(job, &far_away), NS_SUCCESS);
    assert_int_equal(ns_job_rearm_after(job, &delay), NS_INVALID_STATE);
    assert_int_equal(ns_job_rearm(job), NS_INVALID_STATE);
    assert_int_equal(ns_job_rearm_for(job, 0, &delay), NS_INVALID_STATE);
    assert_int_equal(ns_job_done(job), NS_INVALID_STATE);
    assert_int_equal(ns_job_set_data(job, NULL), NS_INVALID_STATE);
    assert_int_equal(ns_job_timedwait(job, &soon), NS_TIMEOUT);
    assert_int_equal(errno, 77);
    pid_t child = fork();
    if (child == 0) {
        _exit(ns_job_rearm_after(job, &delay) != NS_SHUTDOWN);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    struct ns_job_t *idle = unarmed(tp, KIND_TIMER, -1, &far_away, 0, &rest);
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_job_rearm_after(idle, &delay), NS_SHUTDOWN);
    assert_int_equal(ns_job_done(idle), NS_SUCCESS);
    /* Shutting down, an armed one can be done. */
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    pool_end(tp);
    assert_int_equal(latch_count(&rest.gone), 3);
    assert_int_equal(latch_count(&rest.runs), 0);
}

TEST(a_job_of_each_kind_rests_and_then_fires)
{
    int ends[2];
    socket_pair(ends);
    const unsigned long fired[] = {0, NS_JOB_TIMER, NS_JOB_WRITE, NS_JOB_WRITE, NS_JOB_SIGNAL};
    for (int kind = KIND_TIMER; kind < KINDS; kind++) {
        for EACH_THREAD(i) {
            for (int grouped = 0; grouped < 2; grouped++) {
                struct ns_thrpool_t *tp = pool_of(1);
                struct rest rest = {.runs = LATCH_INIT, .gone = LATCH_INIT};
                struct ns_group_t *group = NULL;
                struct timeval *tv = kind == KIND_TIMER ? &soon : &far_away;
                struct ns_job_t *job = unarmed(tp, kind, ends[0], tv, where[i], &rest);
                if (grouped) {
                    assert_int_equal(ns_group_new(tp, 1, NULL, NULL, &group), NS_SUCCESS);
                    assert_int_equal(ns_job_set_group(job, group), NS_SUCCESS);
                }
                /* The first arming rests, the second does not, the third does. */
                for (int run = 0; run < 3; run++) {
                    double begin = now_seconds();
                    assert_int_equal(run == 1 ? ns_job_rearm(job) : ns_job_rearm_after(job, &delay),
                                     NS_SUCCESS);
                    if (kind == KIND_SIGNAL) {
                        assert_int_equal(raise(SIGUSR1), 0); /* meanwhile: it fires then */
                    }
                    assert_int_equal(ns_job_wait(job), NS_SUCCESS);
                    assert_int_equal(latch_count(&rest.runs), run + 1);
                    assert_int_equal(rest.output[run], fired[kind]);
                    double least = (run == 1 ? 0 : delay_s) + (kind == KIND_TIMER ? 0.001 : 0);
                    assert_true(rest.begun[run] - begin >= least);
                }
                assert_int_equal(ns_job_done(job), NS_SUCCESS);
                assert_latch(&rest.gone, 1);
                if (grouped) {
                    ns_group_release(group);
                }
                pool_end(tp);
            }
        }
    }
    close(ends[0]);
    close(ends[1]);
}

static ns_result_t rest_again(struct ns_job_t *job, int run)
{
    struct timespec pause = {0, 5000000};
    if (run > 1) {
        return ns_job_done(job);
    }
    ns_result_t result = ns_job_rearm_after(job, &delay);
    nanosleep(&pause, NULL); /* the delay counts from the return, not from the call */
    return result != NS_SUCCESS ? result
           : ns_job_rearm_after(job, &delay) == NS_INVALID_STATE
                   && ns_job_rearm(job) == NS_INVALID_STATE
               ? NS_SUCCESS
               : NS_INVALID_REQUEST;
}

TEST(in_its_callback_the_delay_counts_from_the_return)
{
    int ends[2];
    socket_pair(ends);
    for (int kind = KIND_TIMER; kind <= KIND_FD_TIMEOUT; kind++) {
        for EACH_THREAD(i) {
            for (int persist = 0; persist < 2; persist++) {
                struct ns_thrpool_t *tp = pool_of(1);
                struct rest rest = {.runs = LATCH_INIT, .gone = LATCH_INIT, .act = rest_again};
                struct timeval *tv = kind == KIND_TIMER ? &soon : &far_away;
                struct ns_job_t *job = unarmed(tp, kind, ends[0], tv,
                                               where[i] | (persist ? NS_JOB_PERSIST : 0), &rest);
                assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
                assert_latch(&rest.gone, 1);
                assert_int_equal(latch_count(&rest.runs), 3);
                for (int run = 0; run < 3; run++) {
                    assert_int_equal(rest.result[run], NS_SUCCESS);
                    double least = delay_s + (kind == KIND_TIMER ? 0.001 : 0);
                    /* ended is taken a little before the return. */
                    assert_true(run == 0 || rest.begun[run] - rest.ended[run - 1] >= least);
                }
                pool_end(tp);
            }
        }
    }
    close(ends[0]);
    close(ends[1]);
}

static ns_result_t rest_at_first(struct ns_job_t *job, int run)
{
    return run == 0 ? ns_job_rearm_after(job, &delay) : NS_SUCCESS;
}

TEST(on_a_persistent_job_it_delays_the_next_arming_alone)
{
    int ends[2];
    socket_pair(ends);
    for EACH_THREAD(i) {
        /* If the machine stands still, the later ones are late, too; but not each time. */
        int quick = 0;
        for (int n = 0; n < 50 && !quick; n++) {
            struct ns_thrpool_t *tp = pool_of(1);
            struct rest rest = {.runs = LATCH_INIT, .gone = LATCH_INIT, .act = rest_at_first};
            struct ns_job_t *job = unarmed(tp, KIND_FD, ends[0], NULL, where[i] | NS_JOB_PERSIST,
                                           &rest);
            assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
            assert_latch(&rest.runs, 8);
            cancel(job, &rest);
            assert_int_equal(rest.result[0], NS_SUCCESS);
            assert_true(rest.begun[1] - rest.begun[0] >= delay_s);
            quick = rest.begun[7] - rest.begun[1] < delay_s;
            pool_end(tp);
        }
        assert_true(quick);
    }
    close(ends[0]);
    close(ends[1]);
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

TEST(from_outside_a_running_job_rests_from_the_call_on)
{
    for (int persist = 0; persist < 2; persist++) {
        for EACH_THREAD(i) {
            struct ns_thrpool_t *tp = pool_of(1);
            struct rest rest = {.runs = LATCH_INIT, .gone = LATCH_INIT, .act = stay_inside};
            struct ns_job_t *job = unarmed(tp, KIND_TIMER, -1, &soon,
                                           where[i] | (persist ? NS_JOB_PERSIST : 0), &rest);
            inside = (struct gate)GATE_INIT;
            assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
            assert_latch(&inside.begun, 1);
            double begin = now_seconds();
            assert_int_equal(ns_job_rearm_after(job, &delay),
                             persist ? NS_INVALID_STATE : NS_SUCCESS);
            if (!persist) {
                assert_int_equal(ns_job_rearm(job), NS_INVALID_STATE);
                assert_int_equal(ns_job_rearm_after(job, &delay), NS_INVALID_STATE);
            }
            latch_add(&inside.leave, 1);
            assert_latch(&rest.runs, 2);
            assert_true(persist || rest.begun[1] - begin >= delay_s + 0.001);
            cancel(job, &rest);
            pool_end(tp);
        }
    }
}

static ns_result_t done_and_rest(struct ns_job_t *job, int run)
{
    return (run % 2 ? ns_job_done(job) : ns_job_cancel(job)) != NS_SUCCESS
                   || ns_job_rearm_after(job, &delay) != NS_INVALID_STATE
                   || ns_job_rearm_for(job, 0, &delay) != NS_INVALID_STATE
               ? NS_INVALID_REQUEST
               : NS_SUCCESS;
}

static ns_result_t rest_and_done(struct ns_job_t *job, int run)
{
    UNUSED(run);
    return ns_job_rearm_after(job, &delay) == NS_SUCCESS ? ns_job_done(job) : NS_INVALID_REQUEST;
}

TEST(done_wins_in_either_order)
{
    ns_result_t (*acts[])(struct ns_job_t *, int) = {done_and_rest, rest_and_done};
    for (int act = 0; act < 2; act++) {
        for (int persist = 0; persist < 2; persist++) {
            for EACH_THREAD(i) {
                struct ns_thrpool_t *tp = pool_of(1);
                struct rest rest = {.runs = LATCH_INIT, .gone = LATCH_INIT, .act = acts[act]};
                struct ns_job_t *job = unarmed(tp, KIND_TIMER, -1, &soon,
                                               where[i] | (persist ? NS_JOB_PERSIST : 0), &rest);
                assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
                assert_latch(&rest.gone, 1);
                assert_int_equal(latch_count(&rest.runs), 1);
                assert_int_equal(rest.result[0], NS_SUCCESS);
                pool_end(tp);
            }
        }
    }
}

TEST(a_resting_job_can_be_cancelled_and_its_descriptor_is_closed)
{
    for (int kind = KIND_TIMER; kind < KINDS; kind++) {
        for EACH_THREAD(i) {
            for (int attached = 0; attached < 2; attached++) {
                struct ns_thrpool_t *tp = pool_of(1);
                struct rest rest = {.runs = LATCH_INIT, .gone = LATCH_INIT};
                int ends[2];
                socket_pair(ends);
                const struct trigger on = {&soon, ends[0], NS_JOB_READ};
                struct ns_job_t *job = NULL;
                assert_int_equal(add_kind(tp, kind, &on, where[i] | NS_JOB_UNARMED, note_run, &rest,
                                          &job), NS_SUCCESS);
                assert_int_equal(ns_job_set_done_cb(job, note_gone), NS_SUCCESS);
                if (attached) {
                    assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
                    assert_int_equal(write(ends[1], "x", 1), 1);
                    raise(kind == KIND_SIGNAL ? SIGUSR1 : 0);
                    assert_int_equal(ns_job_wait(job), NS_SUCCESS);
                }
                assert_int_equal(ns_job_rearm_after(job, &far_away), NS_SUCCESS);
                loop_passes(tp, 1000); /* the loop has it */
                assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
                assert_latch(&rest.gone, 1);
                assert_int_equal(latch_count(&rest.runs), attached);
                if (kind == KIND_FD || kind == KIND_FD_TIMEOUT) {
                    assert_false(fd_is_open(ends[0]));
                } else {
                    close(ends[0]);
                }
                close(ends[1]);
                pool_end(tp);
            }
        }
    }
}

TEST(what_rests_is_disposed_of_when_the_pool_is_destroyed)
{
    int fds = count_fds();
    struct ns_thrpool_t *tp = counting_pool(2);
    struct rest rest = {.runs = LATCH_INIT, .gone = LATCH_INIT};
    long made = 0;
    int ends[2];
    for (int round = 0; round < 2; round++) {
        for (int kind = KIND_TIMER; kind < KINDS; kind++) {
            for EACH_THREAD(i) {
                socket_pair(ends);
                close(ends[1]);
                const struct trigger on = {&far_away, ends[0], NS_JOB_READ};
                struct ns_job_t *job = NULL;
                assert_int_equal(add_kind(tp, kind, &on, where[i] | NS_JOB_UNARMED, note_run, &rest,
                                          &job), NS_SUCCESS);
                assert_int_equal(ns_job_set_done_cb(job, note_gone), NS_SUCCESS);
                assert_int_equal(ns_job_rearm_after(job, &far_away), NS_SUCCESS);
                made++;
                if (kind != KIND_FD && kind != KIND_FD_TIMEOUT) {
                    close(ends[0]);
                }
            }
        }
        if (round == 0) {
            loop_passes(tp, 1000); /* those of the other round it may not have seen */
        }
    }
    pool_end(tp);
    assert_int_equal(latch_count(&rest.gone), made);
    assert_int_equal(latch_count(&rest.runs), 0);
    assert_int_equal(atomic_load(&blocks_out), 0);
    assert_int_equal(count_fds(), fds);
}

static ns_result_t rest_for_long(struct ns_job_t *job, int run)
{
    UNUSED(run);
    return ns_job_rearm_after(job, &longer);
}

TEST(a_resting_listener_costs_nothing_and_another_job_on_it_fires)
{
    for EACH_THREAD(i) {
        struct ns_thrpool_t *tp = pool_of(1);
        struct rest rest = {.runs = LATCH_INIT, .gone = LATCH_INIT, .act = rest_for_long};
        int ends[2];
        socket_pair(ends);
        /* Ready all the time. */
        struct ns_job_t *job = unarmed(tp, KIND_FD, ends[0], NULL, where[i] | NS_JOB_PERSIST, &rest);
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        assert_latch(&rest.runs, 1);
        loop_passes(tp, 1000);
        double cpu = cpu_seconds(), begin = now_seconds();
        struct probe other = PROBE(finish_job, ends[0]);
        assert_int_equal(write(ends[1], "x", 1), 1);
        probe_fd(tp, NS_JOB_READ | NS_JOB_PRESERVE_FD, 0, &other);
        assert_latch(&other.disposals, 1);
        assert_int_equal(atomic_load(&other.output), NS_JOB_READ);
        assert_latch(&rest.runs, 2);
        assert_true(cpu_seconds() - cpu < 0.5 * (now_seconds() - begin));
        assert_true(rest.begun[1] - rest.ended[0] >= 0.2);
        cancel(job, &rest);
        pool_end(tp);
        close(ends[0]);
        close(ends[1]);
    }
}

TEST(a_time_out_counts_from_when_it_begins_to_watch)
{
    for EACH_THREAD(i) {
        struct ns_thrpool_t *tp = pool_of(1);
        struct rest rest = {.runs = LATCH_INIT, .gone = LATCH_INIT};
        struct timeval tv = {0, 10000};
        int ends[2];
        socket_pair(ends);
        const struct trigger on = {&tv, ends[0], NS_JOB_READ | NS_JOB_PRESERVE_FD};
        struct ns_job_t *job = NULL;
        assert_int_equal(add_kind(tp, KIND_FD_TIMEOUT, &on, where[i] | NS_JOB_UNARMED, note_run,
                                  &rest, &job), NS_SUCCESS);
        assert_int_equal(ns_job_set_done_cb(job, note_gone), NS_SUCCESS);
        for (int run = 0; run < 3; run++) {
            double begin = now_seconds();
            assert_int_equal(ns_job_rearm_after(job, &delay), NS_SUCCESS);
            assert_int_equal(ns_job_wait(job), NS_SUCCESS);
            assert_int_equal(rest.output[run], NS_JOB_TIMER);
            assert_true(rest.begun[run] - begin >= 0.03);
        }
        cancel(job, &rest);
        pool_end(tp);
        close(ends[0]);
        close(ends[1]);
    }
}

/* Several threads arm one idle job in every way: one of them does. */
enum { THREADS = 4 };

struct racer {
    struct ns_job_t *job;
    pthread_barrier_t *begin;
    int way;
    atomic_int *armed;
    atomic_int *wrong;
};

static struct timeval tenth_of_milli = {0, 100};

static void *race(void *arg)
{
    struct racer *racer = arg;
    pthread_barrier_wait(racer->begin);
    ns_result_t result = racer->way == 0   ? ns_job_rearm(racer->job)
                         : racer->way == 1 ? ns_job_rearm_after(racer->job, &tenth_of_milli)
                                           : ns_job_rearm_for(racer->job, 0, &tenth_of_milli);
    if (result == NS_SUCCESS) {
        atomic_fetch_add(racer->armed, 1);
    } else if (result != NS_INVALID_STATE) {
        atomic_fetch_add(racer->wrong, 1);
    }
    return NULL;
}

TEST(of_threads_that_arm_one_job_at_once_one_does)
{
    struct ns_thrpool_t *tp = pool_of(2);
    for EACH_THREAD(i) {
        struct rest rest = {.runs = LATCH_INIT, .gone = LATCH_INIT};
        struct ns_job_t *job = unarmed(tp, KIND_TIMER, -1, &soon, where[i], &rest);
        for (int round = 0; round < scaled(500); round++) {
            atomic_int armed = 0, wrong = 0;
            pthread_barrier_t begin;
            pthread_t threads[THREADS];
            struct racer racers[THREADS];
            pthread_barrier_init(&begin, NULL, THREADS);
            for (int t = 0; t < THREADS; t++) {
                racers[t] = (struct racer){job, &begin, (t + round) % 3, &armed, &wrong};
                assert_int_equal(pthread_create(&threads[t], NULL, race, &racers[t]), 0);
            }
            for (int t = 0; t < THREADS; t++) {
                pthread_join(threads[t], NULL);
            }
            pthread_barrier_destroy(&begin);
            assert_int_equal(atomic_load(&wrong), 0);
            assert_true(atomic_load(&armed) >= 1);
            assert_int_equal(ns_job_wait(job), NS_SUCCESS);
            /* More than one only if the job had run in between. */
            EVENTUALLY(latch_count(&rest.runs) >= 1);
            assert_true(latch_count(&rest.runs) == atomic_load(&armed));
            rest.runs = (struct latch)LATCH_INIT;
        }
        assert_int_equal(ns_job_done(job), NS_SUCCESS);
        assert_latch(&rest.gone, 1);
    }
    pool_end(tp);
}

TEST(cancel_against_the_end_of_a_rest)
{
    struct ns_thrpool_t *tp = counting_pool(2);
    for EACH_THREAD(i) {
        for (int round = 0; round < scaled(2000); round++) {
            struct rest rest = {.runs = LATCH_INIT, .gone = LATCH_INIT};
            struct timeval tv = {0, round % 200};
            struct ns_job_t *job = unarmed(tp, KIND_TIMER, -1, &at_once, where[i], &rest);
            assert_int_equal(ns_job_rearm_after(job, &tv), NS_SUCCESS);
            ns_result_t result = ns_job_cancel(job);
            long runs = latch_count(&rest.runs);
            assert_latch(&rest.gone, 1);
            /* After NS_SUCCESS no run begins. */
            assert_true(result == NS_RUNNING || latch_count(&rest.runs) == runs);
        }
    }
    pool_end(tp);
    assert_int_equal(atomic_load(&blocks_out), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_wrong_is_refused),
        cmocka_unit_test(a_job_of_each_kind_rests_and_then_fires),
        cmocka_unit_test(in_its_callback_the_delay_counts_from_the_return),
        cmocka_unit_test(on_a_persistent_job_it_delays_the_next_arming_alone),
        cmocka_unit_test(from_outside_a_running_job_rests_from_the_call_on),
        cmocka_unit_test(done_wins_in_either_order),
        cmocka_unit_test(a_resting_job_can_be_cancelled_and_its_descriptor_is_closed),
        cmocka_unit_test(what_rests_is_disposed_of_when_the_pool_is_destroyed),
        cmocka_unit_test(a_resting_listener_costs_nothing_and_another_job_on_it_fires),
        cmocka_unit_test(a_time_out_counts_from_when_it_begins_to_watch),
        cmocka_unit_test(of_threads_that_arm_one_job_at_once_one_does),
        cmocka_unit_test(cancel_against_the_end_of_a_rest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
