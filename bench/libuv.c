/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The works of the benchmark through libuv. Every function but uv_async_send must be called on the
 * loop's own thread, so run-now jobs and timers are added there, not from outside.
 */
#include "groups.h"
#include <uv.h>

static uv_loop_t uv;

static void *loop(void *unused)
{
    (void)unused;
    uv_run(&uv, UV_RUN_DEFAULT);
    return NULL;
}

static void set_workers(size_t count)
{
    char text[8];
    snprintf(text, sizeof(text), "%zu", count);
    setenv("UV_THREADPOOL_SIZE", text, 1);
    uv_loop_init(&uv);
}

static void on_run_now(uv_work_t *request)
{
    (void)request;
    tally_one();
}

static void after_run_now(uv_work_t *request, int status)
{
    (void)status;
    free(request);
}

static void post_run_now(void *context)
{
    static unsigned long posted;
    (void)context;
    uv_queue_work(&uv, malloc(sizeof(uv_work_t)), on_run_now, after_run_now);
    if (++posted % 1024 == 0)
        uv_run(&uv, UV_RUN_NOWAIT); /* disposes of the requests that have run */
}

static void work_run_now(const struct work *work)
{
    set_workers(workers_of(work));
    run_now(work, post_run_now, NULL);
}

static void on_hand_off(uv_work_t *request)
{
    (void)request;
    hand_off_began();
}

/* The loop sleeps between jobs, as the caller does in the other peers. */
static void work_hand_off(const struct work *work)
{
    size_t count = hand_offs(work);
    uint64_t *took = calloc(count, sizeof(*took));
    set_workers(1);
    sem_init(&begun, 0, 0);
    usage_begin();
    for (size_t i = 0; i < count; i++) {
        if (hand_off_idles(work))
            pause_for_us(60);
        uint64_t start = nanoseconds();
        uv_queue_work(&uv, malloc(sizeof(uv_work_t)), on_hand_off, after_run_now);
        sem_wait_for(&begun);
        took[i] = began - start;
        uv_run(&uv, UV_RUN_DEFAULT);
    }
    usage_end(work, (double)count);
    percentiles(work, took, count);
    free(took);
}

/* A request can be queued again only after the loop was told that it has finished. */

static void on_rearm(uv_work_t *request)
{
    struct chain *chain = request->data;
    if (!chain_again(chain))
        chain->own = NULL;
}

static void after_rearm(uv_work_t *request, int status)
{
    struct chain *chain = request->data;
    (void)status;
    if (chain->own)
        uv_queue_work(&uv, request, on_rearm, after_rearm);
    else
        free(request);
}

static void start_chain(void *context, struct chain *chain)
{
    uv_work_t *request = malloc(sizeof(*request));
    (void)context;
    request->data = chain;
    chain->own = request;
    uv_queue_work(&uv, request, on_rearm, after_rearm);
    if (chain + 1 == (struct chain *)context)
        thread(loop, NULL);
}

static void work_rearm(const struct work *work)
{
    set_workers(2);
    rearm(work, start_chain, &chains[strtoul(work->param, NULL, 10)]);
}

static void on_closed(uv_handle_t *handle)
{
    free(handle);
}

struct connection {
    uv_poll_t poll;
    int fd;
};

static void on_echo(uv_poll_t *poll, int status, int events)
{
    int fd = ((struct connection *)poll)->fd;
    (void)events;
    if (status < 0 || !echo_once(fd)) {
        uv_close((uv_handle_t *)poll, on_closed);
        close(fd);
    }
}

/* uv_poll_t, not uv_stream_t: the callback makes the same read and write calls as in the other
 * peers, and that is faster. */
static void work_echo_loop(const struct work *work)
{
    size_t count;
    int *fds = echo_connections(work, &count);
    uv_loop_init(&uv);
    for (size_t i = 0; i < count; i++) {
        struct connection *connection = malloc(sizeof(*connection));
        connection->fd = fds[i];
        uv_poll_init(&uv, &connection->poll, fds[i]);
        uv_poll_start(&connection->poll, UV_READABLE, on_echo);
    }
    free(fds);
    thread(loop, NULL);
    client_run(work);
}

static void give_buffer(uv_handle_t *handle, size_t size, uv_buf_t *buffer)
{
    static char bytes[4096];
    (void)handle, (void)size;
    buffer->base = bytes;
    buffer->len = sizeof(bytes);
}

static void on_first_byte(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    uv_buf_t out = uv_buf_init(buffer->base, (unsigned)n);
    if (n > 0)
        uv_try_write(stream, &out, 1);
    uv_close((uv_handle_t *)stream, on_closed);
}

static void on_connection(uv_stream_t *listener, int status)
{
    uv_tcp_t *tcp = malloc(sizeof(*tcp));
    (void)status;
    uv_tcp_init(&uv, tcp);
    uv_accept(listener, (uv_stream_t *)tcp);
    uv_read_start((uv_stream_t *)tcp, give_buffer, on_first_byte);
}

static void work_accept(const struct work *work)
{
    static uv_tcp_t tcp;
    int listener = accept_listener();
    uv_loop_init(&uv);
    uv_tcp_init(&uv, &tcp);
    uv_tcp_open(&tcp, listener);
    uv_listen((uv_stream_t *)&tcp, 4096, on_connection);
    thread(loop, NULL);
    client_run(work);
}

static void on_timer(uv_timer_t *timer)
{
    timer_fired(timer->data);
    uv_close((uv_handle_t *)timer, on_closed);
}

static void *timer_add(uint64_t delay_us, struct due *due)
{
    uv_timer_t *timer = malloc(sizeof(*timer));
    uv_timer_init(&uv, timer);
    timer->data = due;
    uv_update_time(&uv); /* otherwise the delay would start at the loop's last turn */
    /* In milliseconds, rounded up. */
    uv_timer_start(timer, on_timer, (delay_us + 999) / 1000, 0);
    return timer;
}

static void timer_cancel(void *timer)
{
    uv_close(timer, on_closed);
}

static void run_nowait(void)
{
    uv_run(&uv, UV_RUN_NOWAIT);
}

static void run_all(void)
{
    uv_run(&uv, UV_RUN_DEFAULT);
}

static const struct timers of_libuv = {timer_add, timer_cancel, run_nowait, run_all};

static void work_timers(const struct work *work)
{
    uv_loop_init(&uv);
    timers(work, &of_libuv);
}

static void work_timers_fire(const struct work *work)
{
    uv_loop_init(&uv);
    timers_fire(work, &of_libuv);
}

static void work_timers_due(const struct work *work)
{
    uv_loop_init(&uv);
    timers_due(work, &of_libuv);
}

struct watched {
    uv_poll_t poll;
    uv_timer_t timer;
    size_t which;
};

static void on_idle_time(uv_timer_t *timer)
{
    (void)timer;
}

static void on_idle(uv_poll_t *poll, int status, int events)
{
    struct watched *watched = (struct watched *)poll;
    (void)status, (void)events;
    idle_touched(watched->which);
    uv_timer_start(&watched->timer, on_idle_time, IDLE_SECONDS * 1000, 0);
}

static void watch(size_t which, int fd)
{
    struct watched *watched = malloc(sizeof(*watched));
    watched->which = which;
    uv_poll_init(&uv, &watched->poll, fd);
    uv_poll_start(&watched->poll, UV_READABLE, on_idle);
    uv_timer_init(&uv, &watched->timer);
    uv_timer_start(&watched->timer, on_idle_time, IDLE_SECONDS * 1000, 0);
}

/* Start the loop's thread, after all descriptors are watched. */
static void settle(void)
{
    if (uv_loop_alive(&uv))
        thread(loop, NULL);
}

static void work_idle(const struct work *work)
{
    uv_loop_init(&uv);
    idle(work, watch, settle);
}

static void on_signal(uv_signal_t *handle, int signum)
{
    (void)handle, (void)signum;
    sem_post(&begun);
}

static void work_signals(const struct work *work)
{
    static uv_signal_t handle;
    uv_loop_init(&uv);
    uv_signal_init(&uv, &handle);
    uv_signal_start(&handle, on_signal, SIGUSR1);
    thread(loop, NULL);
    signals(work);
}

/*
 * Loops that are bound to threads: what is for a connection runs on the loop that has it. A list
 * under a lock and a uv_async_t bring it there.
 */

struct task {
    struct task *next;
};

static struct bound {
    uv_loop_t loop;
    uv_async_t async;
    pthread_mutex_t lock;
    struct task *first;
    struct task **last;
} bound[BURDEN_THREADS];

static void *bound_loop(void *argument)
{
    uv_run(&((struct bound *)argument)->loop, UV_RUN_DEFAULT);
    return NULL;
}

static void on_tasks(uv_async_t *async)
{
    struct bound *self = async->data;
    pthread_mutex_lock(&self->lock);
    struct task *each = self->first;
    self->first = NULL;
    self->last = &self->first;
    pthread_mutex_unlock(&self->lock);
    for (struct task *next; each; each = next) {
        next = each->next;
        burden_carried();
        free(each);
    }
}

static void bound_start(size_t count)
{
    for (struct bound *self = bound; self < bound + count; self++) {
        uv_loop_init(&self->loop);
        uv_async_init(&self->loop, &self->async, on_tasks);
        self->async.data = self;
        pthread_mutex_init(&self->lock, NULL);
        self->last = &self->first;
        thread(bound_loop, self);
    }
}

static void bound_make(size_t connections)
{
    (void)connections;
}

static void bound_burden(size_t connection)
{
    struct bound *self = &bound[connection % BURDEN_THREADS];
    struct task *task = malloc(sizeof(*task));
    task->next = NULL;
    pthread_mutex_lock(&self->lock);
    *self->last = task;
    self->last = &task->next;
    pthread_mutex_unlock(&self->lock);
    uv_async_send(&self->async);
}

static void work_overburdened(const struct work *work)
{
    static const struct groups of_loops = {bound_start, bound_make, NULL, NULL, bound_burden};
    overburdened(work, &of_loops);
}

const struct work works[] = {
    {"run-now", "1x1", work_run_now},
    {"run-now", "1x2", work_run_now},
    {"run-now", "1x8", work_run_now},
    {"run-now-window", "1x1", work_run_now},
    {"run-now-window", "1x2", work_run_now},
    {"hand-off", "busy", work_hand_off},
    {"hand-off", "idle", work_hand_off},
    {"rearm", "1", work_rearm},
    {"rearm", "4", work_rearm},
    {"rearm", "64", work_rearm},
    {"echo-loop", "1", work_echo_loop},
    {"echo-loop", "32", work_echo_loop},
    {"echo-loop", "1000", work_echo_loop},
    {"echo-loop-tcp", "32", work_echo_loop},
    {"accept", "16", work_accept},
    {"timers", "1000", work_timers},
    {"timers", "10000", work_timers},
    {"timers", "100000", work_timers},
    {"timers", "1000000", work_timers},
    {"timers-fire", "100000", work_timers_fire},
    {"timers-fire", "1000000", work_timers_fire},
    {"timers-due", "200000", work_timers_due},
    {"idle", "100", work_idle},
    {"idle", "1000", work_idle},
    {"idle", "19000", work_idle},
    {"signals", "1", work_signals},
    {"overburdened", "one-loop", work_overburdened},
    {"overburdened", "all-loops", work_overburdened},
    {NULL, NULL, NULL},
};
