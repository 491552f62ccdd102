/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A pool's options: their sizes, the threads' names, what is called in each thread, the event
 * framework, and what is refused. */
#include "children.h"

#include <sys/prctl.h>
#define VARIABLE "NUNC_STANS_FRAMEWORK"

/* The sizes that a program could have been built with: the ends of the fields. */
static const size_t ends[] = {
    offsetof(struct ns_thrpool_options, name),
    offsetof(struct ns_thrpool_options, framework),
    offsetof(struct ns_thrpool_options, custom),
    offsetof(struct ns_thrpool_options, queue_limit),
    offsetof(struct ns_thrpool_options, slow),
    offsetof(struct ns_thrpool_options, slow_fct),
    offsetof(struct ns_thrpool_options, thread_start_fct),
    offsetof(struct ns_thrpool_options, thread_end_fct),
    offsetof(struct ns_thrpool_options, thread_arg),
    sizeof(struct ns_thrpool_options),
};

static void init(struct ns_thrpool_options *options)
{
    memset(options, 0xff, sizeof *options);
    ns_thrpool_options_init(options, sizeof *options);
}

static struct ns_thrpool_t *new_with(size_t workers, const struct ns_thrpool_options *options)
{
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.max_threads = workers;
    config.log_fct = recording_log;
    config.calloc_fct = counting_calloc;
    config.free_fct = counting_free;
    return ns_thrpool_new_with(&config, options);
}

/* See that these options make no pool, that the log says why, and that nothing is left behind. */
static void refused(const struct ns_thrpool_options *options, const char *why)
{
    int fds = count_fds(), errors = count_logged_errors();
    long blocks = atomic_load(&blocks_out);
    assert_null(new_with(1, options));
    assert_int_equal(count_logged_errors(), errors + 1);
    if (!logged("ns_thrpool_new_with: ") || !logged(why)) {
        fail_msg("wanted \"%s\" in: %s", why, logged_last);
    }
    assert_int_equal(count_fds(), fds);
    assert_int_equal(atomic_load(&blocks_out), blocks);
}

TEST(the_layout_is_final)
{
    assert_int_equal(offsetof(struct ns_thrpool_options, size), 0);
#if UINTPTR_MAX == UINT64_MAX
    const size_t want[] = {16, 24, 32, 40, 48, 64, 72, 80, 88, 96};
#elif defined __i386__ /* where 64 bits are aligned as 32 are */
    const size_t want[] = {12, 16, 20, 24, 28, 36, 40, 44, 48, 52};
#else
    const size_t want[] = {16, 20, 24, 28, 32, 40, 44, 48, 52, 56};
#endif
    assert_memory_equal(ends, want, sizeof want);
    assert_int_equal(NS_POOL_CALLER_LOOP, 1);
    assert_int_equal(NS_POOL_TIMINGS, 2);
}

TEST(init_sets_the_size_and_nothing_else)
{
    struct ns_thrpool_options options, zero;
    init(&options);
    assert_int_equal(options.size, sizeof options);
    memset(&zero, 0, sizeof zero);
    zero.size = sizeof zero;
    assert_memory_equal(&options, &zero, sizeof zero);
    ns_thrpool_options_init(NULL, sizeof options);

    /* It writes as much as it is told, and no more. */
    char bytes[sizeof options];
    memset(bytes, 0xff, sizeof bytes);
    memset(&options, 0xff, sizeof options);
    ns_thrpool_options_init(&options, sizeof(size_t) - 1);
    assert_memory_equal(&options, bytes, sizeof options);
    const size_t few = offsetof(struct ns_thrpool_options, framework);
    ns_thrpool_options_init(&options, few);
    assert_int_equal(options.size, few);
    assert_null(options.name);
    assert_memory_equal(&options.framework, bytes, sizeof options - few);
}

TEST(no_options_are_those_of_before)
{
    struct ns_thrpool_t *tp = new_with(2, NULL);
    assert_non_null(tp);
    assert_string_equal(ns_thrpool_get_framework(tp), "native");
    pool_end(tp);
    assert_int_equal(atomic_load(&blocks_out), 0);
}

TEST(the_config_is_checked_as_ever)
{
    struct ns_thrpool_config config;
    struct ns_thrpool_options options;
    init(&options);
    ns_thrpool_config_init(&config);
    config.log_fct = recording_log;
    config.max_threads = 0;
    assert_null(ns_thrpool_new_with(&config, &options));
    assert_true(logged("ns_thrpool_new_with: max_threads is 0"));
}

TEST(every_size_of_an_earlier_version_is_taken)
{
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        /* What lies behind the end is not looked at. */
        struct ns_thrpool_options options;
        memset(&options, 0xff, sizeof options);
        ns_thrpool_options_init(&options, ends[i]);
        struct ns_thrpool_t *tp = new_with(1, &options);
        assert_non_null(tp);
        pool_end(tp);
    }
    for (size_t size = 0; size < sizeof(struct ns_thrpool_options); size++) {
        struct ns_thrpool_options options;
        init(&options);
        options.size = size;
        int taken = 0;
        for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
            taken |= size == ends[i];
        }
        if (!taken) {
            refused(&options, "size is that of no version");
        }
    }
}

TEST(a_later_size_is_taken_if_the_rest_is_zero)
{
    union {
        struct ns_thrpool_options options;
        char bytes[4096];
    } larger;
    const size_t sizes[] = {sizeof larger.options + 1, sizeof larger.options + 8, sizeof larger};
    for (size_t i = 0; i < 3; i++) {
        ns_thrpool_options_init(&larger.options, sizes[i]);
        struct ns_thrpool_t *tp = new_with(1, &larger.options);
        assert_non_null(tp);
        pool_end(tp);
        larger.bytes[sizes[i] - 1] = 1;
        refused(&larger.options, "this version does not know");
    }
    ns_thrpool_options_init(&larger.options, sizeof larger);
    larger.options.size = 4097;
    refused(&larger.options, "size is that of no version");
    larger.options.size = SIZE_MAX;
    refused(&larger.options, "size is that of no version");
}

TEST(what_is_wrong_or_not_there_is_refused_and_logged)
{
    static const size_t no_size;
    const void *custom = &no_size;
    const struct {
        const char *why;
        struct ns_thrpool_options options;
    } wrong[] = {
        {"flags has an unknown bit", {.flags = 4}},
        {"flags has an unknown bit", {.flags = UINT64_C(1) << 63}},
        {"name is empty", {.name = ""}},
        {"name is longer than 8 characters", {.name = "123456789"}},
        {"framework is \"libevent:kqueue\", which is unknown", {.framework = "libevent:kqueue"}},
        {"framework is \"libevent:\", which is unknown", {.framework = "libevent:"}},
        {"framework is \"tevent:epoll\", which is unknown", {.framework = "tevent:epoll"}},
        {"framework is \"io%suring\", which is unknown", {.framework = "io%suring"}},
        {"framework is \"native:epoll\", which is unknown", {.framework = "native:epoll"}},
        {"framework is \"\", which is unknown", {.framework = ""}},
        {"custom's size is that of no version", {.custom = custom}},
        {"framework and custom are both set", {.framework = "native", .custom = custom}},
        {"slow is negative", {.slow = {-1, 0}}},
        {"slow is negative", {.slow = {0, -1}}},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        struct ns_thrpool_options options = wrong[i].options;
        options.size = sizeof options;
        refused(&options, wrong[i].why);
    }
}

/* What the threads of a pool said when they began and ended. */
struct hooks {
    struct latch starts;
    struct latch ends;
    atomic_int wrong;
    int threads[8];
    char names[8][16];
    struct ns_thrpool_t *tp;
};

static void start_hook(void *arg, const char *name)
{
    struct hooks *hooks = arg;
    char own[16];
    prctl(PR_GET_NAME, own);
    pthread_mutex_lock(&hooks->starts.lock);
    long i = hooks->starts.count;
    if (i >= 8 || strcmp(own, name) != 0) {
        atomic_fetch_add(&hooks->wrong, 1);
    } else {
        hooks->threads[i] = (int)gettid();
        strcpy(hooks->names[i], name);
    }
    hooks->starts.count++;
    pthread_cond_broadcast(&hooks->starts.changed);
    pthread_mutex_unlock(&hooks->starts.lock);
}

static void end_hook(void *arg, const char *name)
{
    struct hooks *hooks = arg;
    for (long i = 0; i < latch_count(&hooks->starts); i++) {
        if (hooks->threads[i] == (int)gettid() && strcmp(hooks->names[i], name) == 0) {
            latch_add(&hooks->ends, 1);
            return;
        }
    }
    atomic_fetch_add(&hooks->wrong, 1);
}

/* As a callback: see that the thread has been told of. */
static void told_of(struct ns_job_t *job)
{
    struct hooks *hooks = ns_job_get_data(job);
    int found = 0;
    for (long i = 0; i < latch_count(&hooks->starts); i++) {
        found |= hooks->threads[i] == (int)gettid();
    }
    atomic_fetch_add(&hooks->wrong, !found);
    ns_job_done(job);
}

TEST(each_thread_is_named_and_begins_and_ends_with_the_applications_code)
{
    const char *names[] = {NULL, "a", "ldap-ssl"};
    const char *of_workers[] = {"ns-worker", "a-worker", "ldap-ssl-worker"};
    const char *of_loops[] = {"ns-loop", "a-loop", "ldap-ssl-loop"};
    for (size_t n = 0; n < 3; n++) {
        struct hooks hooks = {LATCH_INIT, LATCH_INIT, 0, {0}, {""}, NULL};
        struct ns_thrpool_options options;
        char name[16] = "";
        init(&options);
        if (names[n] != NULL) {
            strcpy(name, names[n]);
            options.name = name;
        }
        options.thread_start_fct = start_hook;
        options.thread_end_fct = end_hook;
        options.thread_arg = &hooks;
        struct ns_thrpool_t *tp = new_with(3, &options);
        assert_non_null(tp);
        /* All of it was copied. */
        memset(name, 'x', sizeof name - 1);
        memset(&options, 0xff, sizeof options);
        for (int i = 0; i < 100; i++) {
            assert_int_equal(ns_add_job(tp, where[i % 2], told_of, &hooks, NULL), NS_SUCCESS);
        }
        assert_latch(&hooks.starts, 4);
        ns_thrpool_shutdown(tp);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        assert_int_equal(latch_count(&hooks.ends), 3);
        ns_thrpool_destroy(tp);
        assert_int_equal(latch_count(&hooks.ends), 4);
        assert_int_equal(latch_count(&hooks.starts), 4);
        assert_int_equal(atomic_load(&hooks.wrong), 0);
        int loops = 0;
        for (int i = 0; i < 4; i++) {
            loops += strcmp(hooks.names[i], of_loops[n]) == 0;
            assert_true(strcmp(hooks.names[i], of_loops[n]) == 0
                        || strcmp(hooks.names[i], of_workers[n]) == 0);
        }
        assert_int_equal(loops, 1);
    }
}

static void call_own_pool(void *arg, const char *name)
{
    UNUSED(name);
    struct hooks *hooks = arg;
    latch_reaches(&hooks->starts, 1); /* tp is set */
    atomic_fetch_add(&hooks->wrong, ns_thrpool_wait(hooks->tp) != NS_THREAD_FAILURE);
    ns_thrpool_destroy(hooks->tp);
    latch_add(&hooks->ends, 1);
}

TEST(these_functions_are_in_the_pools_own_threads)
{
    struct hooks hooks = {LATCH_INIT, LATCH_INIT, 0, {0}, {""}, NULL};
    struct ns_thrpool_options options;
    init(&options);
    options.thread_start_fct = call_own_pool;
    options.thread_end_fct = call_own_pool;
    options.thread_arg = &hooks;
    hooks.tp = new_with(1, &options);
    latch_add(&hooks.starts, 1);
    assert_latch(&hooks.ends, 2);
    pool_end(hooks.tp);
    assert_int_equal(latch_count(&hooks.ends), 4);
    assert_int_equal(atomic_load(&hooks.wrong), 0);
}

/* Have a job of each sort run. */
static void works(struct ns_thrpool_t *tp)
{
    for EACH_THREAD(i) {
        int fds[2];
        socket_pair(fds);
        struct probe reader = PROBE(finish_job, fds[0]);
        struct ns_job_t *job = probe_fd(tp, where[i] | NS_JOB_READ, 0, &reader);
        assert_int_equal(write(fds[1], "x", 1), 1);
        assert_latch(&reader.disposals, 1);
        assert_int_equal(atomic_load(&reader.output), NS_JOB_READ);
        UNUSED(job);
        close(fds[1]);
        loop_passes(tp, 1000);
    }
}

TEST(a_pool_runs_over_the_framework_that_is_asked_for)
{
    const char *frameworks[] = {"native", "portable"};
    for (size_t i = 0; i < 2; i++) {
        struct ns_thrpool_options options;
        char framework[16];
        init(&options);
        strcpy(framework, frameworks[i]);
        options.framework = framework;
        assert_int_equal(setenv(VARIABLE, "nonsense", 1), 0); /* does not count */
        struct ns_thrpool_t *tp = new_with(2, &options);
        unsetenv(VARIABLE);
        memset(framework, 'x', sizeof framework);
        assert_non_null(tp);
        assert_string_equal(ns_thrpool_get_framework(tp), frameworks[i]);
        works(tp);
        pool_end(tp);
    }
    assert_null(ns_thrpool_get_framework(NULL));
}

TEST(the_environment_names_the_framework_where_the_options_do_not)
{
    const struct {
        const char *value, *framework, *why;
    } values[] = {
        {"native", "native", NULL},
        {"portable", "portable", NULL},
        {"", "native", NULL},
        {"tevent:epoll", NULL, "NUNC_STANS_FRAMEWORK is \"tevent:epoll\", which is unknown"},
        {"epoll", NULL, "NUNC_STANS_FRAMEWORK is \"epoll\", which is unknown"},
    };
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        assert_int_equal(setenv(VARIABLE, values[i].value, 1), 0);
        struct ns_thrpool_options options;
        init(&options);
        if (values[i].why != NULL) {
            refused(&options, values[i].why);
            struct ns_thrpool_config config;
            ns_thrpool_config_init(&config);
            config.log_fct = recording_log;
            assert_null(ns_thrpool_new(&config));
            assert_true(logged("ns_thrpool_new: NUNC_STANS_FRAMEWORK is"));
            continue;
        }
        struct ns_thrpool_t *pools[] = {new_with(1, &options), new_with(1, NULL), pool_of(1)};
        for (size_t p = 0; p < 3; p++) {
            assert_non_null(pools[p]);
            assert_string_equal(ns_thrpool_get_framework(pools[p]), values[i].framework);
            works(pools[p]);
            pool_end(pools[p]);
        }
    }
    unsetenv(VARIABLE);
}

TEST(a_forked_child_is_told_the_framework)
{
    struct ns_thrpool_options options;
    init(&options);
    options.framework = "portable";
    struct ns_thrpool_t *tp = new_with(1, &options);
    pid_t child = begin_child();
    if (child == 0) {
        _exit(strcmp(ns_thrpool_get_framework(tp), "portable") != 0);
    }
    assert_exits(end_child(child), 0);
    pool_end(tp);
}

int main(void)
{
    unsetenv(VARIABLE);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_layout_is_final),
        cmocka_unit_test(init_sets_the_size_and_nothing_else),
        cmocka_unit_test(no_options_are_those_of_before),
        cmocka_unit_test(the_config_is_checked_as_ever),
        cmocka_unit_test(every_size_of_an_earlier_version_is_taken),
        cmocka_unit_test(a_later_size_is_taken_if_the_rest_is_zero),
        cmocka_unit_test(what_is_wrong_or_not_there_is_refused_and_logged),
        cmocka_unit_test(each_thread_is_named_and_begins_and_ends_with_the_applications_code),
        cmocka_unit_test(these_functions_are_in_the_pools_own_threads),
        cmocka_unit_test(a_pool_runs_over_the_framework_that_is_asked_for),
        cmocka_unit_test(the_environment_names_the_framework_where_the_options_do_not),
        cmocka_unit_test(a_forked_child_is_told_the_framework),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
