/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The works of the benchmark through nunc-stans. */
#include "groups.h"
#include "own-threads.h"
#include <poll.h>
#define NS_NO_NSPR
#include <nunc-stans.h>

static ns_thrpool_t *tp;

static void good(ns_result_t result)
{
    check(result == NS_SUCCESS, "nunc-stans refuses");
}

/* The flags of the pool, where the program has its own loop thread. */
static uint64_t flags;

static void start(size_t workers)
{
    struct ns_thrpool_config config;
    struct ns_thrpool_options options;
    ns_thrpool_config_init(&config);
    ns_thrpool_options_init(&options, sizeof(options));
    config.max_threads = workers;
    options.flags = flags;
    tp = ns_thrpool_new_with(&config, &options);
    check(tp != NULL, "ns_thrpool_new_with");
}

/* A pool whose loop is a thread of the program's: body runs in it. */
static void start_caller(size_t workers, void *(*body)(void *))
{
    struct ns_thrpool_config config;
    struct ns_thrpool_options options;
    pthread_t loop;
    ns_thrpool_config_init(&config);
    ns_thrpool_options_init(&options, sizeof(options));
    config.max_threads = workers;
    options.flags = NS_POOL_CALLER_LOOP;
    tp = ns_thrpool_new_with(&config, &options);
    check(tp != NULL, "ns_thrpool_new_with");
    check(pthread_create(&loop, NULL, body, NULL) == 0, "pthread_create");
}

static void *run_loop(void *unused)
{
    ns_thrpool_run(tp);
    return unused;
}

/* As a host does that watches the wait descriptor. */
static void *turn_loop(void *unused)
{
    struct pollfd ready = {.fd = ns_thrpool_get_wait_fd(tp), .events = POLLIN};
    struct timeval at_once = {0, 0};
    while (poll(&ready, 1, -1) == 1 && ns_thrpool_turn(tp, &at_once) != NS_SHUTDOWN) {
    }
    return unused;
}

static void on_run_now(struct ns_job_t *job)
{
    tally_one();
    ns_job_done(job);
}

static void post_run_now(void *context)
{
    (void)context;
    good(ns_add_job(tp, NS_JOB_THREAD, on_run_now, NULL, NULL));
}

static void work_run_now(const struct work *work)
{
    start(workers_of(work));
    run_now(work, post_run_now, NULL);
}

/* The same in the loop: in its own thread, and in one of the program's. */
static void post_run_now_loop(void *context)
{
    (void)context;
    good(ns_add_job(tp, NS_JOB_NONE, on_run_now, NULL, NULL));
}

static void work_run_now_loop(const struct work *work)
{
    start(1);
    run_now(work, post_run_now_loop, NULL);
}

static void work_run_now_loop_caller(const struct work *work)
{
    start_caller(0, run_loop);
    run_now(work, post_run_now_loop, NULL);
}

static void work_run_now_loop_turns(const struct work *work)
{
    start_caller(0, turn_loop);
    run_now(work, post_run_now_loop, NULL);
}

/* Adding many at once, PARAM at a time, while the only worker is busy: what the adder pays. */
static void on_stay(struct ns_job_t *job)
{
    sem_post((sem_t *)ns_job_get_data(job));
    for (;;)
        pause();
}

static void work_add_jobs(const struct work *work)
{
    size_t n = strtoul(work->param, NULL, 10), calls = how_many(1000000) / n;
    sem_t begun;
    sem_init(&begun, 0, 0);
    start(1);
    good(ns_add_job(tp, NS_JOB_THREAD, on_stay, &begun, NULL));
    sem_wait(&begun);
    usage_begin();
    uint64_t start = nanoseconds();
    for (size_t i = 0; i < calls; i++)
        good(ns_add_jobs(tp, NS_JOB_THREAD, on_run_now, n, NULL, NULL));
    metric(work, "each", (double)(nanoseconds() - start) / (double)(calls * n));
    usage_end(work, (double)(calls * n));
}

static void on_hand_off(struct ns_job_t *job)
{
    hand_off_began();
    ns_job_done(job);
}

static void post_hand_off(void *context)
{
    (void)context;
    good(ns_add_job(tp, NS_JOB_THREAD, on_hand_off, NULL, NULL));
}

static void work_hand_off(const struct work *work)
{
    start(1);
    hand_off(work, post_hand_off, NULL);
}

static void on_rearm(struct ns_job_t *job)
{
    if (chain_again(ns_job_get_data(job)))
        ns_job_rearm(job);
    else
        ns_job_done(job);
}

static void start_chain(void *context, struct chain *chain)
{
    (void)context;
    good(ns_add_job(tp, NS_JOB_THREAD, on_rearm, chain, NULL));
}

static void work_rearm(const struct work *work)
{
    start(2);
    rearm(work, start_chain, NULL);
}

static void on_echo(struct ns_job_t *job)
{
    if (!echo_once(ns_job_get_native_fd(job)) || ns_job_rearm(job) != NS_SUCCESS)
        ns_job_done(job);
}

static void on_echo_persist(struct ns_job_t *job)
{
    if (!echo_once(ns_job_get_native_fd(job)))
        ns_job_done(job);
}

/* loop: what a thread of the program's does as the loop; NULL: the pool has a thread for it. */
static void echo_in(const struct work *work, ns_job_type_t type, ns_job_func_t func,
                    void *(*loop)(void *))
{
    size_t count;
    int *fds = echo_connections(work, &count);
    if (loop == NULL)
        start(2);
    else
        start_caller(2, loop);
    for (size_t i = 0; i < count; i++)
        good(ns_add_fd_job(tp, fds[i], NS_JOB_READ | type, func, NULL, NULL));
    free(fds);
    client_run(work);
}

static void echo(const struct work *work, ns_job_type_t type, ns_job_func_t func)
{
    echo_in(work, type, func, NULL);
}

static void work_echo_loop_caller(const struct work *work)
{
    echo_in(work, 0, on_echo, run_loop);
}

static void work_echo_loop_turns(const struct work *work)
{
    echo_in(work, 0, on_echo, turn_loop);
}

static void work_echo_loop(const struct work *work)
{
    echo(work, 0, on_echo);
}

static void work_echo_loop_persist(const struct work *work)
{
    echo(work, NS_JOB_PERSIST, on_echo_persist);
}

static void work_echo_workers(const struct work *work)
{
    echo(work, NS_JOB_THREAD, on_echo);
}

static void work_echo_workers_persist(const struct work *work)
{
    echo(work, NS_JOB_THREAD | NS_JOB_PERSIST, on_echo_persist);
}

static void finish_watch(struct served *served)
{
    ns_job_done(served->watch);
}

static void on_readable(struct ns_job_t *job)
{
    own_threads_readable(ns_job_get_data(job), finish_watch);
}

static void watch_served(struct served *served)
{
    struct timeval limit = {300, 0};
    good(ns_add_fd_timeout_job(tp, served->fd, &limit, NS_JOB_READ | NS_JOB_PRESERVE_FD,
                               on_readable, served, (struct ns_job_t **)&served->watch));
}

static void work_own_threads(const struct work *work)
{
    own_threads(work, start, watch_served);
}

static void on_first_byte(struct ns_job_t *job)
{
    echo_once(ns_job_get_native_fd(job));
    ns_job_done(job);
}

static void on_connection(struct ns_job_t *job)
{
    int fd = accept4(ns_job_get_native_fd(job), NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0)
        good(ns_add_fd_job(tp, fd, NS_JOB_READ, on_first_byte, NULL, NULL));
}

static void work_accept(const struct work *work)
{
    int listener = accept_listener();
    start(2);
    good(ns_add_fd_job(tp, listener, NS_JOB_ACCEPT | NS_JOB_PERSIST, on_connection, NULL, NULL));
    client_run(work);
}

static void on_timer(struct ns_job_t *job)
{
    timer_fired(ns_job_get_data(job));
    ns_job_done(job);
}

static void *timer_add(uint64_t delay_us, struct due *due)
{
    struct timeval tv = {(time_t)(delay_us / 1000000), (suseconds_t)(delay_us % 1000000)};
    struct ns_job_t *job;
    good(ns_add_timeout_job(tp, &tv, NS_JOB_NONE, on_timer, due, &job));
    return job;
}

static void timer_cancel(void *timer)
{
    good(ns_job_cancel(timer));
}

static void on_settled(struct ns_job_t *job)
{
    sem_post(&begun);
    ns_job_done(job);
}

/* The loop handles requests in order: wait until it has handled one more. */
static void settle(void)
{
    good(ns_add_job(tp, NS_JOB_TIMER, on_settled, NULL, NULL));
    sem_wait_for(&begun);
}

static const struct timers of_ns = {timer_add, timer_cancel, settle, NULL};

static void work_timers(const struct work *work)
{
    start(1);
    timers(work, &of_ns);
}

static void work_timers_fire(const struct work *work)
{
    start(1);
    timers_fire(work, &of_ns);
}

static void work_timers_due(const struct work *work)
{
    start(1);
    timers_due(work, &of_ns);
}

static void on_idle(struct ns_job_t *job)
{
    idle_touched((size_t)(uintptr_t)ns_job_get_data(job));
    ns_job_rearm(job);
}

static void watch(size_t which, int fd)
{
    struct timeval tv = {IDLE_SECONDS, 0};
    good(ns_add_fd_timeout_job(tp, fd, &tv, NS_JOB_READ, on_idle, (void *)(uintptr_t)which, NULL));
}

static void work_idle(const struct work *work)
{
    start(1);
    idle(work, watch, settle);
}

static void on_signal(struct ns_job_t *job)
{
    (void)job;
    sem_post(&begun);
}

static void work_signals(const struct work *work)
{
    start(1);
    good(ns_add_signal_job(tp, SIGUSR1, NS_JOB_PERSIST, on_signal, NULL, NULL));
    settle();
    signals(work);
}

static void once(void)
{
    start(2);
    ns_thrpool_shutdown(tp);
    ns_thrpool_wait(tp);
    ns_thrpool_destroy(tp);
}

static void work_start_stop(const struct work *work)
{
    start_stop(work, once);
}

static struct ns_group_t **made;

static void groups_make(size_t count)
{
    made = malloc(count * sizeof(*made));
    for (size_t i = 0; i < count; i++)
        good(ns_group_new(tp, 1, NULL, NULL, &made[i]));
}

static void post_to(size_t which, ns_job_func_t func)
{
    good(ns_add_group_job(made[which], NS_JOB_THREAD, func, (void *)(uintptr_t)which, NULL));
}

static size_t which_of(struct ns_job_t *job)
{
    return (size_t)(uintptr_t)ns_job_get_data(job);
}

static void on_lane(struct ns_job_t *job)
{
    lane_ran(which_of(job));
    ns_job_done(job);
}

static void group_post(size_t which)
{
    post_to(which, on_lane);
}

static void on_ping(struct ns_job_t *job)
{
    if (ping_again())
        post_to(1 - which_of(job), on_ping);
    ns_job_done(job);
}

static void ping(size_t which)
{
    post_to(which, on_ping);
}

static void on_burden(struct ns_job_t *job)
{
    burden_carried();
    ns_job_done(job);
}

static void burden(size_t which)
{
    post_to(which, on_burden);
}

static const struct groups of_groups = {start, groups_make, group_post, ping, burden};

static void work_groups(const struct work *work)
{
    groups(work, &of_groups);
}

static void work_group_ping(const struct work *work)
{
    group_ping(work, &of_groups);
}

static void work_overburdened(const struct work *work)
{
    overburdened(work, &of_groups);
}

static void work_groups_idle(const struct work *work)
{
    groups_idle(work, &of_groups);
}

/* The same works in a pool that measures times. */
#define TIMED(name)                                    \
    static void work_##name##_timed(const struct work *work) \
    {                                                  \
        flags = NS_POOL_TIMINGS;                       \
        work_##name(work);                             \
    }

TIMED(run_now)
TIMED(rearm)
TIMED(echo_loop)
TIMED(echo_workers)
TIMED(timers_fire)
TIMED(groups)

const struct work works[] = {
    {"run-now", "1x1", work_run_now},
    {"run-now", "1x2", work_run_now},
    {"run-now", "1x8", work_run_now},
    {"run-now", "2x1", work_run_now},
    {"run-now", "2x2", work_run_now},
    {"run-now", "2x8", work_run_now},
    {"run-now-window", "1x1", work_run_now},
    {"run-now-window", "1x2", work_run_now},
    {"run-now-window", "2x2", work_run_now},
    {"run-now-timed", "1x1", work_run_now_timed},
    {"run-now-timed", "2x2", work_run_now_timed},
    {"run-now-loop", "1x1", work_run_now_loop},
    {"run-now-loop-caller", "1x1", work_run_now_loop_caller},
    {"run-now-loop-turns", "1x1", work_run_now_loop_turns},
    {"add-jobs", "1", work_add_jobs},
    {"add-jobs", "64", work_add_jobs},
    {"hand-off", "busy", work_hand_off},
    {"hand-off", "idle", work_hand_off},
    {"rearm", "1", work_rearm},
    {"rearm", "4", work_rearm},
    {"rearm", "64", work_rearm},
    {"rearm-timed", "4", work_rearm_timed},
    {"echo-loop", "1", work_echo_loop},
    {"echo-loop", "32", work_echo_loop},
    {"echo-loop", "1000", work_echo_loop},
    {"echo-loop-timed", "1", work_echo_loop_timed},
    {"echo-loop-timed", "32", work_echo_loop_timed},
    {"echo-loop-persist", "1", work_echo_loop_persist},
    {"echo-loop-persist", "32", work_echo_loop_persist},
    {"echo-loop-persist", "1000", work_echo_loop_persist},
    {"echo-loop-caller", "1", work_echo_loop_caller},
    {"echo-loop-caller", "32", work_echo_loop_caller},
    {"echo-loop-turns", "1", work_echo_loop_turns},
    {"echo-loop-turns", "32", work_echo_loop_turns},
    {"echo-workers", "1", work_echo_workers},
    {"echo-workers", "32", work_echo_workers},
    {"echo-workers", "1000", work_echo_workers},
    {"echo-workers-timed", "32", work_echo_workers_timed},
    {"echo-workers-persist", "1", work_echo_workers_persist},
    {"echo-workers-persist", "32", work_echo_workers_persist},
    {"echo-workers-persist", "1000", work_echo_workers_persist},
    {"echo-loop-tcp", "32", work_echo_loop},
    {"echo-workers-tcp", "32", work_echo_workers},
    {"own-threads", "8:50", work_own_threads},
    {"own-threads", "16:50", work_own_threads},
    {"own-threads", "30:50", work_own_threads},
    {"own-threads", "8:400", work_own_threads},
    {"own-threads", "16:400", work_own_threads},
    {"own-threads", "30:400", work_own_threads},
    {"accept", "16", work_accept},
    {"timers", "1000", work_timers},
    {"timers", "10000", work_timers},
    {"timers", "100000", work_timers},
    {"timers", "1000000", work_timers},
    {"timers-fire", "100000", work_timers_fire},
    {"timers-fire", "1000000", work_timers_fire},
    {"timers-fire-timed", "100000", work_timers_fire_timed},
    {"timers-due", "200000", work_timers_due},
    {"idle", "100", work_idle},
    {"idle", "1000", work_idle},
    {"idle", "19000", work_idle},
    {"signals", "1", work_signals},
    {"start-stop", "2", work_start_stop},
    {"group-post", "1x1", work_groups},
    {"group-post", "1x2", work_groups},
    {"group-post", "2x2", work_groups},
    {"group-post-timed", "1x1", work_groups_timed},
    {"group-post-window", "1x1", work_groups},
    {"group-post-window", "1x2", work_groups},
    {"groups", "1000:1x1", work_groups},
    {"groups", "1000:1x2", work_groups},
    {"groups", "1000:2x1", work_groups},
    {"groups", "1000:2x2", work_groups},
    {"groups", "10000:1x1", work_groups},
    {"groups", "10000:1x2", work_groups},
    {"groups", "10000:2x1", work_groups},
    {"groups", "10000:2x2", work_groups},
    {"groups-window", "1000:1x1", work_groups},
    {"groups-window", "1000:2x2", work_groups},
    {"groups-window", "10000:2x2", work_groups},
    {"groups-idle", "1000", work_groups_idle},
    {"groups-idle", "10000", work_groups_idle},
    {"group-ping", "1", work_group_ping},
    {"group-ping", "2", work_group_ping},
    {"overburdened", "one-loop", work_overburdened},
    {"overburdened", "all-loops", work_overburdened},
    {NULL, NULL, NULL},
};
