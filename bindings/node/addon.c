/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The library's functions for index.js, one by one, by Node-API. A pool lives in the libuv loop of its environment: libuv
 * watches the pool's wait descriptor, and a turn of the pool calls JavaScript in this thread, the only one there is. */
#define NAPI_VERSION 8
#define NS_NO_NSPR
#define NS_EXTENDED_RESULTS
#include <math.h>
#include <node_api.h>
#include <nunc-stans.h>
#include <stdio.h>
#include <stdlib.h>
#include <uv.h>

/* What the dispatch function of index.js is called for. */
enum { RUN, GONE, POSTED, GROUP_GONE, ENDED };

/* A job, until its done callback. */
struct entry {
    struct entry **from, *next;
    struct ns_job_t *job;
    double id;
};

struct pool {
    napi_env env;
    napi_ref dispatch;
    napi_async_context context;
    napi_async_cleanup_hook_handle hook;
    ns_thrpool_t *tp;
    struct entry *entries;
    uv_poll_t poll;
    int turning; /* calls of ns_thrpool_turn on the stack */
    int stopped; /* whether JavaScript was told that it has */
    int silent;  /* JavaScript ends: nothing of it is called any more */
};

/* The pool whose callbacks run in this thread, and the last line that the library logged here. */
static _Thread_local struct pool *inside;
static _Thread_local char logged[1024];
static const struct timeval zero;

static void on_log(int priority, const char *format, va_list arguments)
{
    vsnprintf(logged, sizeof logged, format, arguments);
    /* Errors are thrown: the line is their message. */
    if (priority <= 4 && priority != 3 && !(inside != NULL && inside->silent))
        fprintf(stderr, "nunc-stans: %s", logged);
}

static napi_value number(napi_env env, double value)
{
    napi_value made = NULL;
    napi_create_double(env, value, &made);
    return made;
}

/* index.js lets no exception out of its dispatch function. But JavaScript may be ended in it. */
static void dispatch(struct pool *pool, int what, double id, double fired)
{
    napi_env env = pool->env;
    napi_handle_scope scope;
    if (pool->silent || napi_open_handle_scope(env, &scope) != napi_ok)
        return;
    napi_value function, receiver, arguments[] = {number(env, what), number(env, id), number(env, fired)};
    if (napi_get_reference_value(env, pool->dispatch, &function) == napi_ok &&
        napi_get_global(env, &receiver) == napi_ok &&
        napi_make_callback(env, pool->context, receiver, function, 3, arguments, NULL) == napi_pending_exception)
        napi_get_and_clear_last_exception(env, &receiver);
    napi_close_handle_scope(env, scope);
}

static double id_of(void *data) { return (double)(uintptr_t)data; }
static void on_group_gone(struct ns_group_t *group) { dispatch(inside, GROUP_GONE, id_of(ns_group_get_data(group)), 0); }

static void on_run(struct ns_job_t *job)
{
    dispatch(inside, RUN, ((struct entry *)ns_job_get_data(job))->id, (double)ns_job_get_output_type(job));
}

static void on_posted(struct ns_job_t *job)
{
    double id = id_of(ns_job_get_data(job));
    ns_job_done(job);
    dispatch(inside, POSTED, id, 0);
}

static void on_gone(struct ns_job_t *job)
{
    struct entry *entry = ns_job_get_data(job);
    double id = entry->id;
    *entry->from = entry->next;
    if (entry->next != NULL)
        entry->next->from = entry->from;
    free(entry);
    dispatch(inside, GONE, id, 0);
}

static ns_result_t turn(struct pool *pool)
{
    struct pool *outer = inside;
    inside = pool;
    pool->turning++;
    ns_result_t result = ns_thrpool_turn(pool->tp, &zero);
    pool->turning--;
    inside = outer;
    return result;
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct pool *pool = poll->data;
    (void)status, (void)events;
    if (turn(pool) == NS_SHUTDOWN && !pool->stopped) {
        pool->stopped = 1;
        uv_unref((uv_handle_t *)poll); /* nobody need wait for it any more */
        dispatch(pool, ENDED, 0, 0);
    }
}

static void on_closed(uv_handle_t *handle)
{
    struct pool *pool = handle->data;
    napi_remove_async_cleanup_hook(pool->hook);
    if (!pool->turning)
        free(pool);
}

/* End a pool, once. In one of its own callbacks, where the process is about to exit, the rest goes with that. */
static void end(struct pool *pool)
{
    struct pool *outer = inside;
    uv_close((uv_handle_t *)&pool->poll, on_closed);
    if (pool->turning)
        return;
    inside = pool;
    for (struct entry *entry = pool->entries; entry != NULL; entry = entry->next)
        ns_job_cancel(entry->job); /* of a job that is finished with already, only its number is left to go */
    ns_thrpool_destroy(pool->tp);
    inside = outer;
    napi_delete_reference(pool->env, pool->dispatch);
    napi_async_destroy(pool->env, pool->context);
}

static void on_cleanup(napi_async_cleanup_hook_handle hook, void *data)
{
    struct pool *pool = data;
    (void)hook;
    pool->silent = 1;
    if (!uv_is_closing((uv_handle_t *)&pool->poll))
        end(pool);
}

/* What a function is called with, which index.js has checked. Pools, jobs and groups are addresses: a number of
 * JavaScript's holds those of user space exactly, and asks nothing of its collector. */
struct call {
    napi_env env;
    napi_value arguments[6];
};

static struct call called(napi_env env, napi_callback_info info)
{
    struct call call = {.env = env};
    size_t count = 6;
    napi_get_cb_info(env, info, &count, call.arguments, NULL, NULL);
    return call;
}

static double real(const struct call *call, int index)
{
    double value = 0;
    napi_get_value_double(call->env, call->arguments[index], &value);
    return value;
}

static void *pointer(const struct call *call, int index) { return (void *)(uintptr_t)real(call, index); }

/* A time for C: rounded up, not negative, at most a century. */
static struct timeval time_of(double seconds)
{
    double us = ceil(fmin(fmax(seconds, 0), 3.2e9) * 1e6);
    time_t whole = (time_t)(us / 1e6);
    return (struct timeval){whole, (suseconds_t)(us - (double)whole * 1e6)};
}

#define POINTER(index) pointer(&call, index)
#define POOL(index) ((struct pool *)pointer(&call, index))
#define INT(index) ((int)real(&call, index))
#define FUNCTION(name, expression)                                                                                     \
    static napi_value name(napi_env env, napi_callback_info info)                                                      \
    {                                                                                                                  \
        struct call call = called(env, info);                                                                          \
        return number(env, (double)(expression));                                                                      \
    }
FUNCTION(job_rearm, ns_job_rearm(POINTER(0)))
FUNCTION(job_rearm_after, ns_job_rearm_after(POINTER(0), &(struct timeval[]){time_of(real(&call, 1))}[0]))
FUNCTION(job_rearm_for, ns_job_rearm_for(POINTER(0), (ns_job_type_t)INT(1), &(struct timeval[]){time_of(real(&call, 2))}[0]))
FUNCTION(job_done, ns_job_done(POINTER(0)))
FUNCTION(job_cancel, ns_job_cancel(POINTER(0)))
FUNCTION(job_set_group, ns_job_set_group(POINTER(0), POINTER(1)))
FUNCTION(post, ns_add_job(POOL(0)->tp, NS_JOB_NONE, on_posted, POINTER(1), NULL))
FUNCTION(post_group, ns_add_group_job(POINTER(0), NS_JOB_NONE, on_posted, POINTER(1), NULL))
FUNCTION(group_cancel, ns_group_cancel(POINTER(0)))
FUNCTION(group_suspend, ns_group_suspend(POINTER(0)))
FUNCTION(group_resume, ns_group_resume(POINTER(0)))
FUNCTION(group_set_limit, ns_group_set_limit(POINTER(0), (size_t)real(&call, 1)))
FUNCTION(group_length, ns_group_get_length(POINTER(0)))
FUNCTION(group_wait, ns_group_wait(POINTER(0), &zero))
FUNCTION(group_release, (ns_group_release(POINTER(0)), 0))
FUNCTION(pool_turn, turn(POOL(0)))
FUNCTION(pool_turning, POOL(0)->turning)
FUNCTION(pool_end, (end(POOL(0)), 0))
FUNCTION(pool_shutdown, (ns_thrpool_shutdown(POOL(0)->tp), 0))
FUNCTION(pool_is_shutdown, ns_thrpool_is_shutdown(POOL(0)->tp))
FUNCTION(pool_ref, (uv_ref((uv_handle_t *)&POOL(0)->poll), 0))
FUNCTION(pool_unref, (uv_unref((uv_handle_t *)&POOL(0)->poll), 0))

#define TEXT(name, expression)                                                                                         \
    static napi_value name(napi_env env, napi_callback_info info)                                                      \
    {                                                                                                                  \
        struct call call = called(env, info);                                                                          \
        napi_value text = NULL;                                                                                        \
        (void)call;                                                                                                    \
        napi_create_string_utf8(env, expression, NAPI_AUTO_LENGTH, &text);                                             \
        return text;                                                                                                   \
    }
TEXT(result_name, ns_result_name((ns_result_t)INT(0)))
TEXT(result_message, ns_result_message((ns_result_t)INT(0)))
TEXT(pool_framework, ns_thrpool_get_framework(POOL(0)->tp))
TEXT(version, ns_version())
TEXT(last_line, logged)

/* Functions that make something return its address or, if it is refused, the result. */
static napi_value made(napi_env env, ns_result_t result, void *raw)
{
    return number(env, result != NS_SUCCESS ? (double)result : (double)(uintptr_t)raw);
}

/* add_job(pool, trigger, flags, id, descriptor or signal, seconds). Unarmed, with its done callback. */
static napi_value add_job(napi_env env, napi_callback_info info)
{
    struct call call = called(env, info);
    struct pool *pool = POOL(0);
    ns_job_type_t flags = (ns_job_type_t)INT(2) | NS_JOB_UNARMED;
    struct timeval tv = time_of(real(&call, 5));
    struct entry *entry = calloc(1, sizeof *entry);
    ns_result_t result = NS_ALLOCATION_FAILURE;
    if (entry == NULL)
        return made(env, result, NULL);
    entry->id = real(&call, 3);
    switch (INT(1)) {
    case 0: result = ns_add_job(pool->tp, flags, on_run, entry, &entry->job); break;
    case 1: result = ns_add_timeout_job(pool->tp, &tv, flags, on_run, entry, &entry->job); break;
    case 2: result = ns_add_fd_timeout_job(pool->tp, INT(4), &tv, flags, on_run, entry, &entry->job); break;
    case 3: result = ns_add_signal_job(pool->tp, INT(4), flags, on_run, entry, &entry->job); break;
    }
    if (result != NS_SUCCESS) {
        free(entry);
        return made(env, result, NULL);
    }
    ns_job_set_done_cb(entry->job, on_gone);
    entry->next = pool->entries;
    entry->from = &pool->entries;
    if (entry->next != NULL)
        entry->next->from = &entry->next;
    pool->entries = entry;
    return made(env, result, entry->job);
}

static napi_value group_new(napi_env env, napi_callback_info info)
{
    struct call call = called(env, info);
    struct ns_group_t *group = NULL;
    ns_result_t result = ns_group_new(POOL(0)->tp, (size_t)real(&call, 1), POINTER(2), on_group_gone, &group);
    return made(env, result, group);
}

/* pool_new(dispatch, framework). It has no thread. */
static napi_value pool_new(napi_env env, napi_callback_info info)
{
    struct call call = called(env, info);
    struct ns_thrpool_config config;
    struct ns_thrpool_options options;
    struct pool *pool = calloc(1, sizeof *pool);
    struct uv_loop_s *loop;
    napi_value name;
    char framework[64] = "";
    size_t length = 0;
    napi_get_value_string_utf8(env, call.arguments[1], framework, sizeof framework, &length);
    ns_thrpool_config_init(&config);
    ns_thrpool_options_init(&options, sizeof options);
    config.max_threads = 0;
    config.log_fct = on_log;
    options.flags = NS_POOL_CALLER_LOOP;
    options.framework = length != 0 ? framework : NULL;
    if (pool == NULL)
        return made(env, NS_ALLOCATION_FAILURE, NULL);
    pool->env = env;
    pool->poll.data = pool;
    pool->tp = ns_thrpool_new_with(&config, &options);
    if (pool->tp == NULL || napi_get_uv_event_loop(env, &loop) != napi_ok ||
        uv_poll_init(loop, &pool->poll, ns_thrpool_get_wait_fd(pool->tp)) != 0) {
        ns_thrpool_destroy(pool->tp);
        free(pool);
        return made(env, NS_INVALID_REQUEST, NULL);
    }
    napi_create_string_utf8(env, "nunc-stans", NAPI_AUTO_LENGTH, &name);
    napi_async_init(env, NULL, name, &pool->context);
    napi_create_reference(env, call.arguments[0], 1, &pool->dispatch);
    napi_add_async_cleanup_hook(env, on_cleanup, pool, &pool->hook);
    uv_poll_start(&pool->poll, UV_READABLE, on_readable);
    return made(env, NS_SUCCESS, pool);
}

#define F(name) {#name, NULL, name, NULL, NULL, NULL, napi_enumerable, NULL}
NAPI_MODULE_INIT()
{
    const napi_property_descriptor functions[] = {
        F(job_rearm), F(job_rearm_after), F(job_rearm_for), F(job_done), F(job_cancel), F(job_set_group), F(post),
        F(post_group), F(group_cancel), F(group_suspend), F(group_resume), F(group_set_limit), F(group_length),
        F(group_wait), F(group_release), F(pool_turn), F(pool_turning), F(pool_end), F(pool_shutdown), F(pool_is_shutdown), F(pool_ref),
        F(pool_unref), F(result_name), F(result_message), F(pool_framework), F(version), F(last_line), F(add_job),
        F(group_new), F(pool_new),
    };
    napi_define_properties(env, exports, sizeof functions / sizeof *functions, functions);
    return exports;
}
