/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The watchdog: callbacks that take long are reported while they run, and when they have returned. */
#include "harness.h"

#include <sys/wait.h>

#define REPORTS 4000

/* What the watchdog has said. */
static struct {
    struct latch count;
    struct ns_slow_call calls[REPORTS];
    char names[REPORTS][40];
    char threads[REPORTS][16];
} said;

static void hear(const struct ns_slow_call *call)
{
    long at = latch_count(&said.count);
    if (at < REPORTS) {
        said.calls[at] = *call;
        snprintf(said.names[at], sizeof said.names[at], "%s", call->name != NULL ? call->name : "");
        pthread_getname_np(pthread_self(), said.threads[at], sizeof said.threads[at]);
        latch_add(&said.count, 1);
    }
}

static void forget_reports(void)
{
    memset(&said, 0, sizeof said);
    said.count = (struct latch)LATCH_INIT;
}

static struct ns_thrpool_t *watched_pool(size_t workers, long usec, void (*fct)(const struct ns_slow_call *),
                                         void (*log_fct)(int, const char *, va_list))
{
    struct ns_thrpool_config config;
    struct ns_thrpool_options options;
    ns_thrpool_config_init(&config);
    config.max_threads = workers;
    config.log_fct = log_fct;
    ns_thrpool_options_init(&options, sizeof options);
    options.slow = (struct timeval){usec / 1000000, usec % 1000000};
    options.slow_fct = fct;
    options.name = "dog";
    struct ns_thrpool_t *tp = ns_thrpool_new_with(&config, &options);
    assert_non_null(tp);
    return tp;
}

/* The linker knows these names. */
void slow_callback(struct ns_job_t *job);
void slow_done_callback(struct ns_job_t *job);

void slow_callback(struct ns_job_t *job)
{
    gate_callback(job);
    ns_job_done(job);
}

void slow_done_callback(struct ns_job_t *job)
{
    gate_callback(job);
}

TEST(a_slow_callback_is_reported_while_it_runs_and_when_it_has_returned)
{
    for EACH_THREAD(i) {
        struct gate gate = GATE_INIT;
        forget_reports();
        struct ns_thrpool_t *tp = watched_pool(1, 20000, hear, quiet_log);
        double begin = now_seconds();
        struct ns_job_t *job = occupy(tp, where[i], &gate);
        assert_latch(&said.count, 1);
        double reported = now_seconds();
        assert_int_equal(said.calls[0].size, sizeof said.calls[0]);
        assert_ptr_equal(said.calls[0].tp, tp);
        assert_ptr_equal(said.calls[0].job, job);
        assert_true(said.calls[0].func == gate_callback);
        assert_ptr_equal(said.calls[0].data, &gate);
        assert_int_equal(said.calls[0].in_loop, where[i] == 0);
        assert_int_equal(said.calls[0].ended, 0);
        assert_true(said.calls[0].ns >= 20000000 && said.calls[0].ns <= (reported - begin) * 1e9);
        assert_string_equal(said.threads[0], "dog-watch");
        char path[64], name[20] = "";
        snprintf(path, sizeof path, "/proc/self/task/%d/comm", (int)said.calls[0].thread);
        FILE *comm = fopen(path, "r");
        assert_non_null(comm);
        assert_non_null(fgets(name, sizeof name, comm));
        fclose(comm);
        assert_string_equal(name, where[i] == 0 ? "dog-loop\n" : "dog-worker\n");
        /* It is reported once, however long it runs. */
        double end = now_seconds() + 0.1;
        EVENTUALLY(now_seconds() > end);
        assert_int_equal(latch_count(&said.count), 1);
        double left = now_seconds();
        assert_int_equal(ns_job_done(job), NS_SUCCESS);
        latch_add(&gate.leave, 1);
        assert_latch(&said.count, 2);
        assert_ptr_equal(said.calls[1].job, job);
        assert_int_equal(said.calls[1].ended, 1);
        assert_true(said.calls[1].ns >= 120000000 && said.calls[1].ns >= (left - reported) * 1e9);
        assert_true(said.calls[1].ns <= (now_seconds() - begin) * 1e9);
        pool_end(tp);
        assert_int_equal(latch_count(&said.count), 2);
    }
}

TEST(callbacks_that_are_quick_are_not_reported)
{
    struct latch ran = LATCH_INIT;
    forget_reports();
    struct ns_thrpool_t *tp = watched_pool(2, 1000000, hear, quiet_log);
    for (int i = 0; i < scaled(20000); i++) {
        assert_int_equal(ns_add_job(tp, where[i % 2], count_and_finish, &ran, NULL), NS_SUCCESS);
    }
    assert_latch(&ran, scaled(20000));
    pool_end(tp);
    for (long i = 0; i < latch_count(&said.count); i++) {
        /* Not by the clock: the machine may have stood still. */
        assert_true(said.calls[i].ns >= 1000000000);
    }
}

TEST(the_name_is_the_linkers_and_done_callbacks_count)
{
    struct gate gate = GATE_INIT, gone = GATE_INIT;
    struct ns_job_t *job;
    forget_reports();
    struct ns_thrpool_t *tp = watched_pool(1, 5000, hear, quiet_log);
    assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, slow_callback, &gate, &job), NS_SUCCESS);
    assert_latch(&said.count, 1);
    assert_string_equal(said.names[0], "slow_callback");
    assert_int_equal(ns_job_set_done_cb(job, slow_done_callback), NS_SUCCESS);
    assert_int_equal(ns_job_set_data(job, &gone), NS_SUCCESS);
    latch_add(&gate.leave, 1);
    assert_latch(&said.count, 3);
    assert_int_equal(said.calls[1].ended, 1);
    assert_string_equal(said.names[2], "slow_done_callback");
    assert_ptr_equal(said.calls[2].data, &gone);
    assert_int_equal(said.calls[2].ended, 0);
    latch_add(&gone.leave, 1);
    assert_latch(&said.count, 4);
    assert_int_equal(said.calls[3].ended, 1);
    pool_end(tp);
}

static char told[2000];
static struct latch tellings = LATCH_INIT;

static void note_warnings(int priority, const char *format, va_list args)
{
    if (priority == LOG_WARNING) {
        size_t used = strlen(told);
        vsnprintf(told + used, sizeof told - used, format, args);
        latch_add(&tellings, 1);
    }
}

TEST(without_a_function_the_log_has_it)
{
    struct gate gate = GATE_INIT;
    struct ns_thrpool_t *tp = watched_pool(1, 5000, NULL, note_warnings);
    assert_int_equal(ns_add_job(tp, 0, slow_callback, &gate, NULL), NS_SUCCESS);
    assert_latch(&tellings, 1);
    latch_add(&gate.leave, 1);
    assert_latch(&tellings, 2);
    assert_non_null(strstr(told, "callback slow_callback (0x"));
    assert_non_null(strstr(told, "has been running for "));
    assert_non_null(strstr(told, "has returned after "));
    assert_non_null(strstr(told, " ms in dog-loop (thread "));
    pool_end(tp);
}

static struct latch started, ended;

static void note_start(void *arg, const char *name)
{
    UNUSED(arg);
    latch_add(&started, strcmp(name, "dog-watch") == 0);
}

static void note_end(void *arg, const char *name)
{
    UNUSED(arg);
    latch_add(&ended, strcmp(name, "dog-watch") == 0);
}

static void try_to_end(const struct ns_slow_call *call)
{
    hear(call);
    /* One of the pool's own threads can't wait for it or destroy it, and may shut it down. */
    if (ns_thrpool_wait(call->tp) == NS_THREAD_FAILURE) {
        ns_thrpool_destroy(call->tp);
        ns_thrpool_shutdown(call->tp);
        latch_add(&said.count, 1);
    }
}

TEST(its_thread_is_the_pools)
{
    struct ns_thrpool_config config;
    struct ns_thrpool_options options;
    struct gate gate = GATE_INIT;
    int threads = count_threads(), fds = count_fds();
    forget_reports();
    ns_thrpool_config_init(&config);
    config.log_fct = quiet_log;
    ns_thrpool_options_init(&options, sizeof options);
    options.slow.tv_usec = 1;
    options.slow_fct = try_to_end;
    options.name = "dog";
    options.thread_start_fct = note_start;
    options.thread_end_fct = note_end;
    struct ns_thrpool_t *tp = ns_thrpool_new_with(&config, &options);
    assert_non_null(tp);
    assert_int_equal(count_threads(), threads + 3);
    assert_int_equal(ns_job_done(occupy(tp, 0, &gate)), NS_SUCCESS);
    assert_latch(&started, 1);
    assert_latch(&said.count, 2);
    assert_true(ns_thrpool_is_shutdown(tp));
    assert_int_equal(latch_count(&ended), 0);
    latch_add(&gate.leave, 1);
    ns_thrpool_destroy(tp);
    assert_latch(&ended, 1);
    assert_nothing_left(fds, threads);
}

TEST(a_pool_without_it_has_no_thread_more)
{
    int threads = count_threads();
    struct ns_thrpool_t *tp = pool_of(1);
    assert_int_equal(count_threads(), threads + 2);
    pool_end(tp);
}

/* On a busy machine any callback may take longer than the limit. */
static void hear_of_gates(const struct ns_slow_call *call)
{
    if (call->func == gate_callback) {
        hear(call);
    }
}

TEST(it_sleeps_while_the_pool_does)
{
    struct latch ran = LATCH_INIT;
    forget_reports();
    struct ns_thrpool_t *tp = watched_pool(2, 1000, hear_of_gates, quiet_log);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(ns_add_job(tp, where[i % 2], count_and_finish, &ran, NULL), NS_SUCCESS);
    }
    assert_latch(&ran, 100);
    /* When it has found everything asleep, it stays so: for a hundred times as long as it would look again. */
    long sleeps = -1;
    int tries = 0;
    for (; tries < 100 && (sleeps <= 0 || sleeps != sleeps_of_named("dog-watch")); tries++) {
        sleeps = sleeps_of_named("dog-watch");
        double end = now_seconds() + 0.1;
        EVENTUALLY(now_seconds() > end);
    }
    assert_true(sleeps > 0 && tries < 100);
    /* And it wakes. */
    struct gate gate = GATE_INIT;
    assert_int_equal(ns_job_done(occupy(tp, 0, &gate)), NS_SUCCESS);
    assert_latch(&said.count, 1);
    latch_add(&gate.leave, 1);
    assert_latch(&said.count, 2);
    pool_end(tp);
}

static void take_a_while(struct ns_job_t *job)
{
    long usec = (long)(intptr_t)ns_job_get_data(job);
    double end = now_seconds() + (double)usec / 1e6;
    while (now_seconds() < end) {
    }
    ns_job_done(job);
}

/* Callbacks around the limit, in the loop and in workers: each report of an end follows one of the same run,
 * and no run is reported twice. */
TEST(reports_come_in_pairs)
{
    forget_reports();
    struct ns_thrpool_t *tp = watched_pool(2, 1000, hear, quiet_log);
    for (int i = 0; i < scaled(600); i++) {
        void *usec = (void *)(intptr_t)(700 + i % 7 * 100);
        assert_int_equal(ns_add_job(tp, where[i % 2], take_a_while, usec, NULL), NS_SUCCESS);
    }
    pool_end(tp);
    long count = latch_count(&said.count);
    assert_int_equal(count % 2, 0);
    for (long i = 0; i < count; i++) {
        struct ns_slow_call *call = &said.calls[i];
        assert_true(call->ns >= 1000000);
        if (call->ended) {
            long open = i - 1;
            while (open >= 0 && said.calls[open].thread != call->thread) {
                open--;
            }
            assert_true(open >= 0 && !said.calls[open].ended);
            assert_ptr_equal(said.calls[open].job, call->job);
            assert_true(call->ns >= said.calls[open].ns);
        }
    }
    print_message("# %ld callbacks were reported\n", count / 2);
}

TEST(a_forked_child_is_not_watched_and_may_end_its_parents_pool)
{
    struct ns_thrpool_t *tp = watched_pool(1, 1000, hear, quiet_log);
    pid_t child = fork();
    if (child == 0) {
        ns_thrpool_destroy(tp);
        _exit(0);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    pool_end(tp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_slow_callback_is_reported_while_it_runs_and_when_it_has_returned),
        cmocka_unit_test(callbacks_that_are_quick_are_not_reported),
        cmocka_unit_test(the_name_is_the_linkers_and_done_callbacks_count),
        cmocka_unit_test(without_a_function_the_log_has_it),
        cmocka_unit_test(its_thread_is_the_pools),
        cmocka_unit_test(a_pool_without_it_has_no_thread_more),
        cmocka_unit_test(it_sleeps_while_the_pool_does),
        cmocka_unit_test(reports_come_in_pairs),
        cmocka_unit_test(a_forked_child_is_not_watched_and_may_end_its_parents_pool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
