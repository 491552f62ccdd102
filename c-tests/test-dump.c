/* SPDX-License-Identifier: GPL-3.0-or-later */
/* ns_thrpool_dump: a line for each job that is armed, queued in a group, or running. */
#include "caller.h"
#include "dumps.h"

#include <sys/wait.h>

static struct timeval hour = {3600, 0};

/* Callbacks that the dynamic linker knows: they are not static, and the program is linked so. */
void wait_in_the_loop(struct ns_job_t *job);
void wait_in_a_worker(struct ns_job_t *job);
void on_event(struct ns_job_t *job);
void count_here(struct ns_job_t *job);
void dump_here(struct ns_job_t *job);

void count_here(struct ns_job_t *job)
{
    count_and_finish(job);
}

void wait_in_the_loop(struct ns_job_t *job)
{
    gate_callback(job);
    ns_job_done(job);
}

void wait_in_a_worker(struct ns_job_t *job)
{
    gate_callback(job);
    ns_job_done(job);
}

void on_event(struct ns_job_t *job)
{
    ns_job_done(job);
}

/* Put a job of the worker's or the loop's into a callback that stays there. */
static struct ns_job_t *enter(struct ns_thrpool_t *tp, ns_job_type_t type, ns_job_func_t func, struct gate *gate)
{
    struct ns_job_t *job = NULL;
    long begun = latch_count(&gate->begun);
    assert_int_equal(ns_add_job(tp, type, func, gate, &job), NS_SUCCESS);
    assert_latch(&gate->begun, begun + 1);
    return job;
}

TEST(each_kind_of_job_has_a_line)
{
    struct ns_thrpool_t *tp = pool_of(2);
    struct ns_job_t *timer, *timed, *reader, *writer, *listener, *watcher, *idle, *resting;
    struct timeval minute = {60, 0};
    int ends[2], others[2];
    char where[40];
    socket_pair(ends);
    socket_pair(others);
    assert_int_equal(ns_add_timeout_job(tp, &hour, 0, on_event, &ends, &timer), NS_SUCCESS);
    assert_int_equal(ns_add_fd_timeout_job(tp, ends[0], &minute, NS_JOB_READ | NS_JOB_THREAD, on_event, NULL, &timed), NS_SUCCESS);
    assert_int_equal(ns_add_fd_job(tp, ends[1], NS_JOB_READ | NS_JOB_PERSIST, on_event, NULL, &reader), NS_SUCCESS);
    assert_int_equal(ns_add_fd_job(tp, others[0], NS_JOB_READ, on_event, NULL, &writer), NS_SUCCESS);
    int listening = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
    struct sockaddr any = {.sa_family = AF_UNIX};
    assert_int_equal(bind(listening, &any, sizeof any.sa_family), 0);
    assert_int_equal(listen(listening, 5), 0);
    assert_int_equal(ns_add_fd_job(tp, listening, NS_JOB_ACCEPT, on_event, NULL, &listener), NS_SUCCESS);
    assert_int_equal(ns_add_signal_job(tp, SIGUSR1, 0, on_event, NULL, &watcher), NS_SUCCESS);
    assert_int_equal(ns_add_timeout_job(tp, &hour, NS_JOB_UNARMED, on_event, NULL, &idle), NS_SUCCESS);
    assert_int_equal(ns_add_fd_job(tp, others[1], NS_JOB_READ | NS_JOB_UNARMED, on_event, NULL, &resting), NS_SUCCESS);
    assert_int_equal(ns_job_rearm_after(resting, &minute), NS_SUCCESS);

    struct dump dump = dump_of(tp);
    assert_int_equal(dump.result, NS_SUCCESS);
    assert_line(&dump, line_of(timer).text, "TIMER, armed, due in 3599.", "callback on_event (0x");
    snprintf(where, sizeof where, "data %p", (void *)&ends);
    assert_line(&dump, line_of(timer).text, where, NULL);
    snprintf(where, sizeof where, "READ TIMER THREAD on descriptor %d,", ends[0]);
    assert_line(&dump, line_of(timed).text, where, ", armed, due in 59.");
    snprintf(where, sizeof where, "READ PERSIST on descriptor %d,", ends[1]);
    assert_line(&dump, line_of(reader).text, where, ", armed, callback");
    assert_line(&dump, line_of(writer).text, "READ on", NULL);
    assert_line(&dump, line_of(listener).text, "ACCEPT on descriptor", "armed");
    snprintf(where, sizeof where, "SIGNAL signal %d, armed", SIGUSR1);
    assert_line(&dump, line_of(watcher).text, where, NULL);
    assert_line(&dump, line_of(resting).text, "READ on", "rests for 59.");
    assert_int_equal(lines_with(&dump, line_of(idle).text, NULL, NULL), 0);
    assert_line(&dump, "queues: 0 requests to the loop, 0 run-now jobs", "0 jobs and groups for workers", NULL);
    assert_int_equal(dump.count, 8);
    forget_dump(&dump);
    ns_job_done(idle);
    pool_end(tp);
}

TEST(jobs_that_run_say_where_and_those_in_queues_are_counted)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct gate worker = GATE_INIT;
    struct latch ran = LATCH_INIT;
    struct ns_job_t *inside = enter(tp, NS_JOB_THREAD, wait_in_a_worker, &worker);
    for (int i = 0; i < 7; i++) {
        assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, count_and_finish, &ran, NULL), NS_SUCCESS);
    }
    struct dump dump = dump_of(tp);
    assert_int_equal(dump.result, NS_SUCCESS);
    assert_line(&dump, line_of(inside).text, "running in ns-worker 1 (thread ", "callback wait_in_a_worker");
    assert_line(&dump, "queues:", "7 jobs and groups for workers", NULL);
    assert_int_equal(dump.count, 2);
    forget_dump(&dump);
    latch_add(&worker.leave, 1);
    pool_end(tp);
    assert_int_equal(latch_count(&ran), 7);
}

TEST(a_descriptor_job_that_runs_in_a_worker_has_one_line)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct gate worker = GATE_INIT;
    struct ns_job_t *job;
    int ends[2];
    socket_pair(ends);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_int_equal(ns_add_fd_job(tp, ends[0], NS_JOB_READ | NS_JOB_THREAD, wait_in_a_worker, &worker, &job), NS_SUCCESS);
    assert_latch(&worker.begun, 1);
    struct dump dump = dump_of(tp);
    assert_line(&dump, line_of(job).text, "READ THREAD on descriptor", "running in ns-worker 1");
    assert_int_equal(dump.count, 2);
    forget_dump(&dump);
    latch_add(&worker.leave, 1);
    pool_end(tp);
    close(ends[1]);
}

TEST(what_waits_in_groups_has_lines)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct ns_group_t *group, *other;
    struct latch ran = LATCH_INIT;
    struct ns_job_t *queued[20], *member;
    char name[40];
    assert_int_equal(ns_group_new(tp, 1, NULL, NULL, &group), NS_SUCCESS);
    assert_int_equal(ns_group_new(tp, 0, NULL, NULL, &other), NS_SUCCESS);
    ns_group_suspend(group);
    for (int i = 0; i < 20; i++) {
        assert_int_equal(ns_add_group_job(group, where[i % 2], count_here, &ran, &queued[i]), NS_SUCCESS);
    }
    assert_int_equal(ns_add_timeout_job(tp, &hour, NS_JOB_UNARMED, on_event, NULL, &member), NS_SUCCESS);
    assert_int_equal(ns_job_set_group(member, other), NS_SUCCESS);
    assert_int_equal(ns_job_rearm(member), NS_SUCCESS);
    struct dump dump = dump_of(tp);
    assert_int_equal(dump.result, NS_SUCCESS);
    snprintf(name, sizeof name, "group %p", (void *)group);
    for (int i = 0; i < 20; i++) {
        assert_line(&dump, line_of(queued[i]).text, "run-now", name);
        assert_line(&dump, line_of(queued[i]).text, "in its group's queue", "callback count_here (0x");
    }
    snprintf(name, sizeof name, "group %p", (void *)other);
    assert_line(&dump, line_of(member).text, "TIMER, armed, due in", name);
    assert_int_equal(dump.count, 22);
    forget_dump(&dump);
    ns_group_resume(group);
    ns_group_release(group);
    ns_group_release(other);
    pool_end(tp);
    assert_int_equal(latch_count(&ran), 20);
}

static struct dump inner;

void dump_here(struct ns_job_t *job)
{
    inner = dump_of(ns_job_get_tp(job));
    count_and_finish(job);
}

TEST(callbacks_may_ask_and_the_loop_answers_at_once)
{
    for EACH_THREAD(i) {
        struct ns_thrpool_t *tp = pool_of(1);
        struct latch ran = LATCH_INIT;
        struct ns_job_t *timer, *soon[3], *asking;
        struct timeval tv = {0, 1000};
        assert_int_equal(ns_add_timeout_job(tp, &hour, 0, on_event, NULL, &timer), NS_SUCCESS);
        loop_passes(tp, 0);
        /* Due with those below, and first: these have fired when it runs. */
        struct gate gate = GATE_INIT;
        enter(tp, 0, wait_in_the_loop, &gate);
        assert_int_equal(ns_add_timeout_job(tp, &tv, where[i], dump_here, &ran, &asking), NS_SUCCESS);
        for (int n = 0; n < 3; n++) {
            assert_int_equal(ns_add_timeout_job(tp, &tv, 0, on_event, NULL, &soon[n]), NS_SUCCESS);
        }
        double end = now_seconds() + 0.005;
        EVENTUALLY(now_seconds() > end);
        latch_add(&gate.leave, 1);
        assert_latch(&ran, 1);
        assert_int_equal(inner.result, NS_SUCCESS);
        assert_line(&inner, line_of(timer).text, "armed, due in", NULL);
        assert_line(&inner, line_of(asking).text, "running in", "dump_here");
        if (where[i] == 0) {
            for (int n = 0; n < 3; n++) {
                assert_line(&inner, line_of(soon[n]).text, "has fired", NULL);
            }
        }
        forget_dump(&inner);
        pool_end(tp);
    }
}

TEST(a_loop_that_does_not_answer_is_told_with_its_callback)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct gate loop = GATE_INIT, worker = GATE_INIT;
    struct ns_job_t *in_loop = enter(tp, 0, wait_in_the_loop, &loop);
    struct ns_job_t *in_worker = enter(tp, NS_JOB_THREAD, wait_in_a_worker, &worker);
    char of[60];
    struct dump dump = dump_of(tp);
    assert_int_equal(dump.result, NS_TIMEOUT);
    assert_true(dump.seconds >= 1.0);
    snprintf(of, sizeof of, "of job %p for at least 1.", (void *)in_loop);
    assert_line(&dump, "ns-loop (thread ", "does not answer: it is in callback wait_in_the_loop (0x", of);
    assert_line(&dump, line_of(in_worker).text, "running in ns-worker 1 (thread ", "for at least 1.");
    assert_line(&dump, "queues: ", NULL, NULL);
    assert_int_equal(dump.count, 3);
    forget_dump(&dump);
    /* Nothing is left on the desk: the next one is answered. */
    latch_add(&loop.leave, 1);
    latch_add(&worker.leave, 1);
    dump = dump_of(tp);
    assert_int_equal(dump.result, NS_SUCCESS);
    forget_dump(&dump);
    pool_end(tp);
}

static void *dump_in_thread(void *tp)
{
    struct dump *dump = malloc(sizeof *dump);
    *dump = dump_of(tp);
    return dump;
}

TEST(several_threads_take_turns)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct gate gate = GATE_INIT;
    struct ns_job_t *timer;
    pthread_t threads[6];
    assert_int_equal(ns_add_timeout_job(tp, &hour, 0, on_event, NULL, &timer), NS_SUCCESS);
    enter(tp, 0, wait_in_the_loop, &gate);
    for (int i = 0; i < 6; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, dump_in_thread, tp), 0);
    }
    latch_add(&gate.leave, 1);
    for (int i = 0; i < 6; i++) {
        void *result;
        pthread_join(threads[i], &result);
        struct dump *dump = result;
        assert_int_equal(dump->result, NS_SUCCESS);
        assert_line(dump, line_of(timer).text, "armed", NULL);
        forget_dump(dump);
        free(dump);
    }
    pool_end(tp);
}

static _Atomic double latest;
static double ticked;

/* Runs in the loop each millisecond: by how much it is late at most. */
static void tick(struct ns_job_t *job)
{
    double now = now_seconds();
    if (ticked > 0 && now - ticked - 0.001 > latest) {
        latest = now - ticked - 0.001;
    }
    ticked = now;
    if (latch_count(ns_job_get_data(job)) > 0) {
        ns_job_done(job);
    }
}

static void reset_tick(struct ns_job_t *job)
{
    latest = ticked = 0;
    count_and_finish(job);
}

/* Other programs may delay a timer as well. So it is enough if it is not late once. */
TEST(many_jobs_are_all_told_and_delay_no_timer)
{
    const int jobs = scaled(10000);
    struct ns_thrpool_t *tp = pool_of(1);
    struct latch stop = LATCH_INIT, ran = LATCH_INIT;
    struct timeval ms = {0, 1000};
    double best = 1e9;
    for (int i = 0; i < jobs; i++) {
        struct timeval tv = {3605 + i % 7, i % 1000};
        assert_int_equal(ns_add_timeout_job(tp, &tv, 0, on_event, NULL, NULL), NS_SUCCESS);
    }
    assert_int_equal(ns_add_timeout_job(tp, &ms, NS_JOB_PERSIST, tick, &stop, NULL), NS_SUCCESS);
    for (int round = 0; round < 50 && (round < 5 || best >= 0.005); round++) {
        assert_int_equal(ns_add_job(tp, 0, reset_tick, &ran, NULL), NS_SUCCESS);
        assert_latch(&ran, 2 * round + 1);
        loop_passes(tp, 3000);
        struct dump dump = dump_of(tp);
        loop_passes(tp, 3000);
        double late = latest;
        best = late < best ? late : best;
        assert_int_equal(dump.result, NS_SUCCESS);
        assert_int_equal(lines_with(&dump, "TIMER, armed, due in 36", NULL, NULL), jobs);
        forget_dump(&dump);
        assert_int_equal(ns_add_job(tp, 0, count_here, &ran, NULL), NS_SUCCESS);
        assert_latch(&ran, 2 * round + 2);
    }
    latch_add(&stop, 1);
    print_message("# a timer of 1 ms is late by %.3f ms while %d jobs are told\n", best * 1e3, jobs);
    if (getenv("NS_SLOW") == NULL) {
        assert_true(best < 0.005);
    }
    pool_end(tp);
}

static atomic_int churning;

static void churn(struct ns_job_t *job)
{
    if (atomic_load(&churning)) {
        ns_job_rearm(job);
    } else {
        ns_job_done(job);
    }
}

/* Jobs come, fire, run and go while threads look at them. */
TEST(a_pool_that_is_busy_can_be_looked_at)
{
    struct ns_thrpool_t *tp = pool_of(2);
    struct ns_group_t *groups[10];
    struct ns_job_t *stable;
    struct latch ran = LATCH_INIT;
    int ends[2];
    atomic_store(&churning, 1);
    assert_int_equal(ns_add_timeout_job(tp, &hour, 0, on_event, NULL, &stable), NS_SUCCESS);
    for (int i = 0; i < 10; i++) {
        struct timeval tv = {0, 10 * i};
        struct ns_job_t *job;
        assert_int_equal(ns_group_new(tp, (size_t)i % 3, NULL, NULL, &groups[i]), NS_SUCCESS);
        assert_int_equal(ns_add_timeout_job(tp, &tv, where[i % 2], churn, NULL, NULL), NS_SUCCESS);
        assert_int_equal(ns_add_timeout_job(tp, &tv, where[i % 2] | NS_JOB_UNARMED, churn, NULL, &job), NS_SUCCESS);
        assert_int_equal(ns_job_set_group(job, groups[i]), NS_SUCCESS);
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
    }
    socket_pair(ends);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_int_equal(ns_add_fd_job(tp, ends[0], NS_JOB_READ | NS_JOB_THREAD, churn, NULL, NULL), NS_SUCCESS);
    long added = 0;
    for (int round = 0; round < scaled(300); round++) {
        for (int i = 0; i < 50; i++, added++) {
            assert_int_equal(ns_add_group_job(groups[i % 10], where[i / 10 % 2], count_and_finish, &ran, NULL), NS_SUCCESS);
        }
        struct dump dump = dump_of(tp);
        assert_int_equal(dump.result, NS_SUCCESS);
        assert_line(&dump, line_of(stable).text, "armed, due in", NULL);
        forget_dump(&dump);
    }
    atomic_store(&churning, 0);
    for (int i = 0; i < 10; i++) {
        ns_group_release(groups[i]);
    }
    assert_latch(&ran, added);
    pool_end(tp);
    close(ends[1]);
}

static void *be_the_loop(void *tp)
{
    return (void *)(intptr_t)(ns_thrpool_run(tp) == NS_SUCCESS);
}

TEST(where_the_application_runs_the_loop)
{
    struct ns_thrpool_t *tp = caller_pool(1);
    struct latch ran = LATCH_INIT;
    struct ns_job_t *timer;
    pthread_t thread;
    assert_int_equal(ns_add_timeout_job(tp, &hour, 0, on_event, NULL, &timer), NS_SUCCESS);
    /* Nobody is the loop, and nobody has been: the request waits. */
    struct dump dump = dump_of(tp);
    assert_int_equal(dump.result, NS_SUCCESS);
    assert_true(dump.seconds < 1);
    assert_int_equal(dump.count, 1);
    forget_dump(&dump);
    while (ns_thrpool_turn(tp, &at_once) == NS_SUCCESS) {
    }
    for (int round = 0; round < 100; round++) {
        dump = dump_of(tp);
        assert_int_equal(dump.result, NS_SUCCESS);
        assert_line(&dump, line_of(timer).text, "armed, due in 3599", NULL);
        assert_int_equal(dump.count, 2);
        forget_dump(&dump);
    }
    /* In a callback of a turn. */
    assert_int_equal(ns_add_job(tp, 0, dump_here, &ran, NULL), NS_SUCCESS);
    while (ns_thrpool_turn(tp, &at_once) == NS_SUCCESS) {
    }
    assert_int_equal(latch_count(&ran), 1);
    assert_int_equal(inner.result, NS_SUCCESS);
    assert_line(&inner, line_of(timer).text, "armed", NULL);
    forget_dump(&inner);
    /* While another thread comes and goes, and while it stays. */
    for (int round = 0; round < scaled(200); round++) {
        pthread_t asking;
        void *result;
        assert_int_equal(pthread_create(&asking, NULL, dump_in_thread, tp), 0);
        for (int turn = 0; turn < round % 7; turn++) {
            ns_thrpool_turn(tp, &at_once);
        }
        pthread_join(asking, &result);
        struct dump *got = result;
        assert_int_equal(got->result, NS_SUCCESS);
        assert_line(got, line_of(timer).text, "armed", NULL);
        forget_dump(got);
        free(got);
    }
    assert_int_equal(pthread_create(&thread, NULL, be_the_loop, tp), 0);
    dump = dump_of(tp);
    assert_int_equal(dump.result, NS_SUCCESS);
    assert_line(&dump, line_of(timer).text, "armed", NULL);
    forget_dump(&dump);
    ns_thrpool_shutdown(tp);
    void *good;
    pthread_join(thread, &good);
    assert_non_null(good);
    pool_end(tp);
}

TEST(it_answers_after_the_shutdown)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct ns_job_t *timer;
    assert_int_equal(ns_add_timeout_job(tp, &hour, 0, on_event, NULL, &timer), NS_SUCCESS);
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    struct dump dump = dump_of(tp);
    assert_int_equal(dump.result, NS_SUCCESS);
    assert_line(&dump, line_of(timer).text, "armed", NULL);
    forget_dump(&dump);
    ns_thrpool_destroy(tp);
}

static void destroy_pool(void *arg, const char *text)
{
    struct ns_thrpool_t **tp = arg;
    UNUSED(text);
    if (*tp != NULL) {
        ns_thrpool_destroy(*tp);
        *tp = NULL;
    }
}

TEST(the_function_for_lines_may_destroy_the_pool)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct ns_job_t *timer;
    assert_int_equal(ns_add_timeout_job(tp, &hour, 0, on_event, NULL, &timer), NS_SUCCESS);
    assert_int_equal(ns_thrpool_dump(tp, destroy_pool, &tp), NS_SUCCESS);
    assert_null(tp);
}

static atomic_int no_memory;

static void *failing_calloc(size_t count, size_t size)
{
    return atomic_load(&no_memory) ? NULL : calloc(count, size);
}

TEST(bad_input_forks_and_no_memory)
{
    struct ns_thrpool_t *tp = pool_with(1, quiet_log, failing_calloc, free);
    struct dump dump = {NULL, 0, NS_SUCCESS, 0};
    assert_int_equal(ns_thrpool_dump(tp, NULL, &dump), NS_INVALID_REQUEST);
    atomic_store(&no_memory, 1);
    assert_int_equal(ns_thrpool_dump(tp, keep_line, &dump), NS_ALLOCATION_FAILURE);
    atomic_store(&no_memory, 0);
    assert_int_equal(dump.count, 0);
    pid_t child = fork();
    if (child == 0) {
        ns_result_t result = ns_thrpool_dump(tp, keep_line, &dump);
        _exit(result == NS_SHUTDOWN && dump.count == 0 ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    pool_end(tp);
}

static void drop_text(void *arg, int priority, const char *message)
{
    UNUSED(arg);
    UNUSED(priority);
    UNUSED(message);
}

TEST(no_pool)
{
    ns_set_log(drop_text, NULL);
    assert_int_equal(ns_thrpool_dump(NULL, keep_line, NULL), NS_INVALID_REQUEST);
    ns_set_log(NULL, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_kind_of_job_has_a_line),
        cmocka_unit_test(jobs_that_run_say_where_and_those_in_queues_are_counted),
        cmocka_unit_test(a_descriptor_job_that_runs_in_a_worker_has_one_line),
        cmocka_unit_test(what_waits_in_groups_has_lines),
        cmocka_unit_test(callbacks_may_ask_and_the_loop_answers_at_once),
        cmocka_unit_test(a_loop_that_does_not_answer_is_told_with_its_callback),
        cmocka_unit_test(several_threads_take_turns),
        cmocka_unit_test(many_jobs_are_all_told_and_delay_no_timer),
        cmocka_unit_test(a_pool_that_is_busy_can_be_looked_at),
        cmocka_unit_test(where_the_application_runs_the_loop),
        cmocka_unit_test(it_answers_after_the_shutdown),
        cmocka_unit_test(the_function_for_lines_may_destroy_the_pool),
        cmocka_unit_test(bad_input_forks_and_no_memory),
        cmocka_unit_test(no_pool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
