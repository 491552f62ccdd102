/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The binary interface of 0.2: sizes, layouts, values. Most of it is checked by the compiler. */
#include "harness.h"

#include <dlfcn.h>

#define IS(expression, type) _Generic((expression), type: 1, default: 0)

_Static_assert(IS((ns_job_type_t)0, uint_fast16_t), "job types are uint_fast16_t");
_Static_assert(sizeof(ns_job_type_t) == sizeof(uint_fast16_t), "width of a job type");
_Static_assert(IS((ns_thrpool_t *)0, struct ns_thrpool_t *), "the typedef of a pool");
_Static_assert(IS((ns_job_func_t)0, void (*)(struct ns_job_t *)), "the type of a callback");
_Static_assert(sizeof(ns_result_t) == sizeof(int), "width of a result");

_Static_assert(NS_SUCCESS == 0, "");
_Static_assert(NS_SHUTDOWN == 1, "");
_Static_assert(NS_ALLOCATION_FAILURE == 2, "");
_Static_assert(NS_INVALID_REQUEST == 3, "");
_Static_assert(NS_INVALID_STATE == 4, "");
_Static_assert(NS_THREAD_FAILURE == 5, "");
_Static_assert(NS_DELETING == 6, "");
_Static_assert(NS_TIMEOUT == 7, "");
_Static_assert(NS_RUNNING == 8, "");
_Static_assert(IS((enum _ns_result_t)0, ns_result_t), "the tag of the results");
_Static_assert(IS(NS_TIMEOUT, ns_result_t), "an addition has the type of a result");
_Static_assert(IS(NS_RUNNING, ns_result_t), "an addition has the type of a result");

_Static_assert(NS_JOB_NONE == 0x0, "");
_Static_assert(NS_JOB_ACCEPT == 0x1, "");
_Static_assert(NS_JOB_CONNECT == 0x2, "");
_Static_assert(NS_JOB_READ == 0x4, "");
_Static_assert(NS_JOB_WRITE == 0x8, "");
_Static_assert(NS_JOB_TIMER == 0x10, "");
_Static_assert(NS_JOB_SIGNAL == 0x20, "");
_Static_assert(NS_JOB_PERSIST == 0x40, "");
_Static_assert(NS_JOB_THREAD == 0x80, "");
_Static_assert(NS_JOB_PRESERVE_FD == 0x100, "");
_Static_assert(NS_JOB_SHUTDOWN_WORKER == 0x200, "");
_Static_assert(NS_JOB_UNARMED == 0x400, "");

#if !defined NS_THRPOOL_H || NS_EXTENSIONS != 1
#error "the include guard, and the mark of the additions"
#endif

#if UINTPTR_MAX == UINT64_MAX
#define LAYOUT(field, offset) \
    _Static_assert(offsetof(struct ns_thrpool_config, field) == (offset), #field)
LAYOUT(init_flag, 0);
LAYOUT(max_threads, 8);
LAYOUT(stacksize, 16);
LAYOUT(log_fct, 24);
LAYOUT(log_start_fct, 32);
LAYOUT(log_close_fct, 40);
LAYOUT(malloc_fct, 48);
LAYOUT(memalign_fct, 56);
LAYOUT(calloc_fct, 64);
LAYOUT(realloc_fct, 72);
LAYOUT(free_fct, 80);
_Static_assert(sizeof(struct ns_thrpool_config) == 88, "size of the config");
_Static_assert(sizeof(struct timeval) == 16, "size of a time");
#else
#define LAYOUT(field, index) \
    _Static_assert(offsetof(struct ns_thrpool_config, field) == 4 * (index), #field)
LAYOUT(init_flag, 0);
LAYOUT(max_threads, 1);
LAYOUT(stacksize, 2);
LAYOUT(log_fct, 3);
LAYOUT(log_start_fct, 4);
LAYOUT(log_close_fct, 5);
LAYOUT(malloc_fct, 6);
LAYOUT(memalign_fct, 7);
LAYOUT(calloc_fct, 8);
LAYOUT(realloc_fct, 9);
LAYOUT(free_fct, 10);
_Static_assert(sizeof(struct ns_thrpool_config) == 44, "size of the config");
#endif
#if defined __GLIBC__
_Static_assert(sizeof(ns_job_type_t) == sizeof(void *), "width of a job type");
#else
_Static_assert(sizeof(ns_job_type_t) == 4, "width of a job type");
#endif

#define FIELD(field) (((struct ns_thrpool_config *)0)->field)
_Static_assert(IS(FIELD(init_flag), int32_t), "");
_Static_assert(IS(FIELD(max_threads), size_t), "");
_Static_assert(IS(FIELD(stacksize), size_t), "");
_Static_assert(IS(FIELD(log_fct), void (*)(int, const char *, va_list)), "");
_Static_assert(IS(FIELD(log_start_fct), void (*)(void)), "");
_Static_assert(IS(FIELD(log_close_fct), void (*)(void)), "");
_Static_assert(IS(FIELD(malloc_fct), void *(*)(size_t)), "");
_Static_assert(IS(FIELD(memalign_fct), void *(*)(size_t, size_t)), "");
_Static_assert(IS(FIELD(calloc_fct), void *(*)(size_t, size_t)), "");
_Static_assert(IS(FIELD(realloc_fct), void *(*)(void *, size_t)), "");
_Static_assert(IS(FIELD(free_fct), void (*)(void *)), "");

#define FUNCTION(name, ...) _Static_assert(IS(&name, __VA_ARGS__), #name)
FUNCTION(ns_thrpool_config_init, void (*)(struct ns_thrpool_config *));
FUNCTION(ns_thrpool_new, struct ns_thrpool_t *(*)(struct ns_thrpool_config *));
FUNCTION(ns_thrpool_shutdown, void (*)(struct ns_thrpool_t *));
FUNCTION(ns_thrpool_is_shutdown, int32_t (*)(struct ns_thrpool_t *));
FUNCTION(ns_thrpool_wait, ns_result_t (*)(ns_thrpool_t *));
FUNCTION(ns_thrpool_destroy, void (*)(struct ns_thrpool_t *));
FUNCTION(ns_create_job, ns_result_t (*)(struct ns_thrpool_t *, ns_job_type_t, ns_job_func_t,
                                        struct ns_job_t **));
FUNCTION(ns_add_job, ns_result_t (*)(struct ns_thrpool_t *, ns_job_type_t, ns_job_func_t, void *,
                                     struct ns_job_t **));
FUNCTION(ns_add_io_job, ns_result_t (*)(struct ns_thrpool_t *, struct PRFileDesc *, ns_job_type_t,
                                        ns_job_func_t, void *, struct ns_job_t **));
FUNCTION(ns_add_timeout_job, ns_result_t (*)(struct ns_thrpool_t *, struct timeval *, ns_job_type_t,
                                             ns_job_func_t, void *, struct ns_job_t **));
FUNCTION(ns_add_io_timeout_job, ns_result_t (*)(struct ns_thrpool_t *, struct PRFileDesc *,
                                                struct timeval *, ns_job_type_t, ns_job_func_t,
                                                void *, struct ns_job_t **));
FUNCTION(ns_add_signal_job, ns_result_t (*)(struct ns_thrpool_t *, int32_t, ns_job_type_t,
                                            ns_job_func_t, void *, struct ns_job_t **));
FUNCTION(ns_job_rearm, ns_result_t (*)(struct ns_job_t *));
FUNCTION(ns_job_done, ns_result_t (*)(struct ns_job_t *));
FUNCTION(ns_job_wait, ns_result_t (*)(struct ns_job_t *));
FUNCTION(ns_job_get_data, void *(*)(struct ns_job_t *));
FUNCTION(ns_job_set_data, ns_result_t (*)(struct ns_job_t *, void *));
FUNCTION(ns_job_set_done_cb, ns_result_t (*)(struct ns_job_t *, ns_job_func_t));
FUNCTION(ns_job_get_type, ns_job_type_t (*)(struct ns_job_t *));
FUNCTION(ns_job_get_output_type, ns_job_type_t (*)(struct ns_job_t *));
FUNCTION(ns_job_get_tp, ns_thrpool_t *(*)(struct ns_job_t *));
FUNCTION(ns_job_get_fd, struct PRFileDesc *(*)(struct ns_job_t *));
FUNCTION(ns_job_is_func, int (*)(struct ns_job_t *, ns_job_func_t));
FUNCTION(ns_version, const char *(*)(void));
FUNCTION(ns_add_fd_job, ns_result_t (*)(struct ns_thrpool_t *, int, ns_job_type_t, ns_job_func_t,
                                        void *, struct ns_job_t **));
FUNCTION(ns_add_fd_timeout_job, ns_result_t (*)(struct ns_thrpool_t *, int, struct timeval *,
                                                ns_job_type_t, ns_job_func_t, void *,
                                                struct ns_job_t **));
FUNCTION(ns_job_get_native_fd, int (*)(struct ns_job_t *));
FUNCTION(ns_job_cancel, ns_result_t (*)(struct ns_job_t *));
FUNCTION(ns_job_timedwait, ns_result_t (*)(struct ns_job_t *, const struct timeval *));
FUNCTION(ns_set_log, void (*)(void (*)(void *, int, const char *), void *));

TEST(config_init_sets_one_worker_and_else_nothing)
{
    struct ns_thrpool_config config;
    memset(&config, 0xa5, sizeof config);
    ns_thrpool_config_init(&config);
    assert_int_equal(config.init_flag, 0xdefa014);
    assert_int_equal(config.max_threads, 1);
    assert_int_equal(config.stacksize, 0);
    assert_true(config.log_fct == NULL);
    assert_true(config.log_start_fct == NULL);
    assert_true(config.log_close_fct == NULL);
    assert_true(config.malloc_fct == NULL);
    assert_true(config.memalign_fct == NULL);
    assert_true(config.calloc_fct == NULL);
    assert_true(config.realloc_fct == NULL);
    assert_true(config.free_fct == NULL);
}

TEST(version_is_that_of_the_header)
{
    char want[64];
    snprintf(want, sizeof want, "%d.%d.%d", NS_VERSION_MAJOR, NS_VERSION_MINOR, NS_VERSION_PATCH);
    assert_string_equal(ns_version(), want);
}

TEST(is_macros_pick_their_own_flag)
{
    for (ns_job_type_t flag = 1; flag <= NS_JOB_UNARMED; flag <<= 1) {
        assert_int_equal(!!NS_JOB_IS_ACCEPT(flag), flag == NS_JOB_ACCEPT);
        assert_int_equal(!!NS_JOB_IS_CONNECT(flag), flag == NS_JOB_CONNECT);
        assert_int_equal(!!NS_JOB_IS_READ(flag), flag == NS_JOB_READ);
        assert_int_equal(!!NS_JOB_IS_WRITE(flag), flag == NS_JOB_WRITE);
        assert_int_equal(!!NS_JOB_IS_TIMER(flag), flag == NS_JOB_TIMER);
        assert_int_equal(!!NS_JOB_IS_SIGNAL(flag), flag == NS_JOB_SIGNAL);
        assert_int_equal(!!NS_JOB_IS_PERSIST(flag), flag == NS_JOB_PERSIST);
        assert_int_equal(!!NS_JOB_IS_THREAD(flag), flag == NS_JOB_THREAD);
        assert_int_equal(!!NS_JOB_IS_PRESERVE_FD(flag), flag == NS_JOB_PRESERVE_FD);
        assert_int_equal(!!NS_JOB_IS_SHUTDOWN_WORKER(flag), flag == NS_JOB_SHUTDOWN_WORKER);
        assert_int_equal(!!NS_JOB_IS_IO(flag), flag <= NS_JOB_WRITE);
        /* An argument may be any expression. */
        assert_int_equal(!!NS_JOB_IS_READ(NS_JOB_READ | flag), 1);
        assert_int_equal(!NS_JOB_IS_IO(NS_JOB_TIMER | flag), flag > NS_JOB_WRITE);
    }
}

TEST(set_and_unset_macros_assign)
{
    ns_job_type_t type = NS_JOB_PERSIST;
    NS_JOB_SET_READ(type);
    assert_int_equal(type, NS_JOB_PERSIST | NS_JOB_READ);
    NS_JOB_SET_WRITE(type);
    NS_JOB_SET_THREAD(type);
    assert_int_equal(type, NS_JOB_PERSIST | NS_JOB_READ | NS_JOB_WRITE | NS_JOB_THREAD);
    NS_JOB_UNSET_READ(type);
    assert_int_equal(type, NS_JOB_PERSIST | NS_JOB_WRITE | NS_JOB_THREAD);
    NS_JOB_UNSET_WRITE(type);
    NS_JOB_UNSET_THREAD(type);
    assert_int_equal(type, NS_JOB_PERSIST);
    NS_JOB_UNSET_READ(type);
    assert_int_equal(type, NS_JOB_PERSIST);
}

/* A switch over the original's results needs no default and no other case: the added results are
 * not enumerators. The compiler's warnings check it. */
static const char *name_of(ns_result_t result)
{
    switch (result) {
    case NS_SUCCESS:
        return "success";
    case NS_SHUTDOWN:
        return "shutdown";
    case NS_ALLOCATION_FAILURE:
        return "allocation failure";
    case NS_INVALID_REQUEST:
        return "invalid request";
    case NS_INVALID_STATE:
        return "invalid state";
    case NS_THREAD_FAILURE:
        return "thread failure";
    case NS_DELETING:
        return "deleting";
    }
    return "an addition";
}

TEST(a_switch_over_the_results_needs_no_addition)
{
    assert_string_equal(name_of(NS_DELETING), "deleting");
    assert_string_equal(name_of(NS_TIMEOUT), "an addition");
    assert_string_equal(name_of(NS_RUNNING), "an addition");
}

TEST(private_functions_of_the_original_are_not_exported)
{
    void *library = dlopen("libnunc-stans.so.0", RTLD_NOW | RTLD_NOLOAD);
    assert_non_null(library);
    assert_non_null(dlsym(library, "ns_thrpool_new"));
    const char *names[] = {
        "ns_thrpool_is_event_shutdown", "ns_add_shutdown_job", "ns_log", "ns_log_valist",
        "ns_malloc", "ns_memalign", "ns_calloc", "ns_realloc", "ns_free",
        "get_event_framework_event",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        if (dlsym(library, names[i]) != NULL) {
            fail_msg("%s is exported", names[i]);
        }
    }
    dlclose(library);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(config_init_sets_one_worker_and_else_nothing),
        cmocka_unit_test(version_is_that_of_the_header),
        cmocka_unit_test(is_macros_pick_their_own_flag),
        cmocka_unit_test(set_and_unset_macros_assign),
        cmocka_unit_test(a_switch_over_the_results_needs_no_addition),
        cmocka_unit_test(private_functions_of_the_original_are_not_exported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
