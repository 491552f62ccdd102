/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The library's functions for nunc_stans.lua, one by one and on raw pointers, for plain Lua 5.4. The same as ffi.lua. */
#define NS_NO_NSPR
#define NS_EXTENDED_RESULTS
#include <lauxlib.h>
#include <lua.h>
#include <math.h>
#include <nunc-stans.h>
#include <signal.h>
#include <stdio.h>

/* The state whose call into the library is under way in this thread: what the library calls, it calls from there. */
static _Thread_local lua_State *inside;
static const char handlers_key;
enum { RUN = 1, GONE, POSTED, GROUP_GONE, LOG };

/* Call a handler of Lua's. No error may leave it: C and Rust are below. */
static void call(int handler, lua_Integer number, void *raw)
{
    lua_State *L = inside;
    if (L == NULL || !lua_checkstack(L, 8))
        return;
    int top = lua_gettop(L);
    lua_rawgetp(L, LUA_REGISTRYINDEX, &handlers_key);
    lua_rawgeti(L, -1, handler);
    lua_pushinteger(L, number);
    lua_pushlightuserdata(L, raw);
    if (lua_pcall(L, 2, 0, 0) != LUA_OK)
        fprintf(stderr, "nunc-stans: %s\n", lua_tostring(L, -1)); /* out of memory */
    lua_settop(L, top);
}

static lua_Integer id(struct ns_job_t *job) { return (lua_Integer)(uintptr_t)ns_job_get_data(job); }
static void on_run(struct ns_job_t *job) { call(RUN, id(job), job); }
static void on_gone(struct ns_job_t *job) { call(GONE, id(job), job); }
static void on_posted(struct ns_job_t *job) { call(POSTED, id(job), job); }
static void on_group(struct ns_group_t *g) { call(GROUP_GONE, (lua_Integer)(uintptr_t)ns_group_get_data(g), g); }

static void on_log(int priority, const char *format, va_list arguments)
{
    char line[2048];
    vsnprintf(line, sizeof line, format, arguments);
    call(LOG, priority, line);
}

/* A function of a raw pointer and of what else it reads: nunc_stans.lua has checked that. What it calls may enter Lua. */
#define FUNCTION(name, expression)                                                                                     \
    static int name(lua_State *L)                                                                                      \
    {                                                                                                                  \
        void *raw = lua_touserdata(L, 1);                                                                              \
        lua_State *outer = inside;                                                                                     \
        inside = L;                                                                                                    \
        lua_Integer result = (lua_Integer)(expression);                                                                \
        inside = outer;                                                                                                \
        lua_pushinteger(L, result);                                                                                    \
        return 1;                                                                                                      \
    }
#define INT(index) lua_tointeger(L, index)
#define DATA(index) (void *)(uintptr_t)INT(index)
#define SECONDS(index) seconds(L, index, &(struct timeval){0, 0})

/* A time for C: rounded up, not negative, at most a century. */
static struct timeval *seconds(lua_State *L, int index, struct timeval *tv)
{
    double us = ceil(fmin(fmax(lua_tonumber(L, index), 0), 3.2e9) * 1e6);
    tv->tv_sec = (time_t)(us / 1e6);
    tv->tv_usec = (suseconds_t)(us - (double)tv->tv_sec * 1e6);
    return tv;
}

FUNCTION(job_rearm, ns_job_rearm(raw))
FUNCTION(job_rearm_after, ns_job_rearm_after(raw, SECONDS(2)))
FUNCTION(job_rearm_for, ns_job_rearm_for(raw, (ns_job_type_t)INT(2), SECONDS(3)))
FUNCTION(job_done, ns_job_done(raw))
FUNCTION(job_cancel, ns_job_cancel(raw))
FUNCTION(job_set_group, ns_job_set_group(raw, lua_touserdata(L, 2)))
FUNCTION(job_set_done, ns_job_set_done_cb(raw, on_gone))
FUNCTION(post, ns_add_job(raw, NS_JOB_NONE, on_posted, DATA(2), NULL))
FUNCTION(post_group, ns_add_group_job(raw, NS_JOB_NONE, on_posted, DATA(2), NULL))
FUNCTION(group_cancel, ns_group_cancel(raw))
FUNCTION(group_suspend, ns_group_suspend(raw))
FUNCTION(group_resume, ns_group_resume(raw))
FUNCTION(group_set_limit, ns_group_set_limit(raw, (size_t)INT(2)))
FUNCTION(group_get_length, ns_group_get_length(raw))
FUNCTION(group_wait, ns_group_wait(raw, &(struct timeval){0, 0}))
FUNCTION(group_release, (ns_group_release(raw), 0))
FUNCTION(turn, ns_thrpool_turn(raw, lua_tonumber(L, 2) < 0 ? NULL : SECONDS(2)))
FUNCTION(wait_fd, ns_thrpool_get_wait_fd(raw))
FUNCTION(shutdown, (ns_thrpool_shutdown(raw), 0))
FUNCTION(destroy, (ns_thrpool_destroy(raw), 0))

/* A function of a pool, flags and a number that makes something, which it returns after the result. */
#define MAKES(name, type, expression)                                                                                  \
    static int name(lua_State *L)                                                                                      \
    {                                                                                                                  \
        void *raw = lua_touserdata(L, 1);                                                                              \
        size_t flags = (size_t)INT(2);                                                                                 \
        type *made = NULL;                                                                                             \
        lua_State *outer = inside;                                                                                     \
        inside = L;                                                                                                    \
        lua_Integer result = (lua_Integer)(expression);                                                                \
        inside = outer;                                                                                                \
        lua_pushinteger(L, result);                                                                                    \
        lua_pushlightuserdata(L, made);                                                                                \
        return 2;                                                                                                      \
    }
MAKES(add_job, struct ns_job_t, ns_add_job(raw, flags, on_run, DATA(3), &made))
MAKES(add_timeout_job, struct ns_job_t, ns_add_timeout_job(raw, SECONDS(4), flags, on_run, DATA(3), &made))
MAKES(add_signal_job, struct ns_job_t, ns_add_signal_job(raw, (int)INT(4), flags, on_run, DATA(3), &made))
MAKES(add_fd_job, struct ns_job_t,
      ns_add_fd_timeout_job(raw, (int)INT(4), SECONDS(5), flags, on_run, DATA(3), &made))
MAKES(group_new, struct ns_group_t, ns_group_new(raw, flags, DATA(3), on_group, &made))

/* A pool without any thread, or nil. */
static int new(lua_State *L)
{
    struct ns_thrpool_config config;
    struct ns_thrpool_options options;
    ns_thrpool_config_init(&config);
    ns_thrpool_options_init(&options, sizeof options);
    config.max_threads = 0;
    config.log_fct = on_log;
    options.flags = NS_POOL_CALLER_LOOP;
    options.framework = lua_tostring(L, 1);
    lua_State *outer = inside;
    inside = L;
    ns_thrpool_t *tp = ns_thrpool_new_with(&config, &options);
    inside = outer;
    tp != NULL ? lua_pushlightuserdata(L, tp) : lua_pushnil(L);
    return 1;
}

/* In its callback: what fired of READ and WRITE, and whether its time is up. */
static int fired(lua_State *L)
{
    ns_job_type_t type = ns_job_get_output_type(lua_touserdata(L, 1));
    lua_pushinteger(L, (lua_Integer)(type & (NS_JOB_READ | NS_JOB_WRITE)));
    lua_pushboolean(L, NS_JOB_IS_TIMER(type));
    return 2;
}

static int is_shutdown(lua_State *L)
{
    lua_pushboolean(L, ns_thrpool_is_shutdown(lua_touserdata(L, 1)));
    return 1;
}

static int text(lua_State *L) { return lua_pushstring(L, lua_touserdata(L, 1)), 1; }
static int framework(lua_State *L) { return lua_pushstring(L, ns_thrpool_get_framework(lua_touserdata(L, 1))), 1; }
static int result_name(lua_State *L) { return lua_pushstring(L, ns_result_name((ns_result_t)INT(1))), 1; }
static int result_message(lua_State *L) { return lua_pushstring(L, ns_result_message((ns_result_t)INT(1))), 1; }

static int handlers(lua_State *L)
{
    lua_createtable(L, 5, 0);
    lua_insert(L, 1);
    for (int handler = LOG; handler >= RUN; handler--)
        lua_rawseti(L, 1, handler);
    lua_rawsetp(L, LUA_REGISTRYINDEX, &handlers_key);
    return 0;
}

/* What calls a function when it is collected, or Lua ends. */
static int guard(lua_State *L)
{
    lua_createtable(L, 0, 0);
    lua_createtable(L, 0, 1);
    lua_pushvalue(L, 1);
    lua_setfield(L, -2, "__gc");
    lua_setmetatable(L, -2);
    return 1;
}

#define F(name) {#name, name}
static const luaL_Reg functions[] = {
    F(job_rearm), F(job_rearm_after), F(job_rearm_for), F(job_done), F(job_cancel), F(job_set_group), F(job_set_done),
    F(post), F(post_group), F(group_cancel), F(group_suspend), F(group_resume), F(group_set_limit),
    F(group_get_length), F(group_wait), F(group_release), F(turn), F(wait_fd), F(shutdown), F(destroy), F(add_job),
    F(add_timeout_job), F(add_signal_job), F(add_fd_job), F(group_new), F(new), F(fired), F(is_shutdown), F(text),
    F(framework), F(result_name), F(result_message), F(handlers), F(guard), {NULL, NULL},
};
static const struct { const char *name; lua_Integer value; } signals[] = {
    {"HUP", SIGHUP}, {"INT", SIGINT}, {"QUIT", SIGQUIT}, {"USR1", SIGUSR1}, {"USR2", SIGUSR2}, {"PIPE", SIGPIPE},
    {"ALRM", SIGALRM}, {"TERM", SIGTERM}, {"CHLD", SIGCHLD}, {"CONT", SIGCONT}, {"WINCH", SIGWINCH},
}, constants[] = {
    {"READ", NS_JOB_READ}, {"WRITE", NS_JOB_WRITE}, {"PERSIST", NS_JOB_PERSIST}, {"UNARMED", NS_JOB_UNARMED},
    {"PRESERVE_FD", NS_JOB_PRESERVE_FD}, {"CADENCE", NS_JOB_CADENCE},
};

int luaopen_nunc_stans_core(lua_State *L)
{
    luaL_newlib(L, functions);
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++)
        lua_pushinteger(L, constants[i].value), lua_setfield(L, -2, constants[i].name);
    lua_pushstring(L, ns_version());
    lua_setfield(L, -2, "version");
    lua_newtable(L);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        lua_pushinteger(L, signals[i].value), lua_setfield(L, -2, signals[i].name);
    lua_setfield(L, -2, "signals");
    return 1;
}
