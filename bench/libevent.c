/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The works of the benchmark through libevent: one loop, in its own thread. libevent has no
 * workers. */
#include "own-threads.h"
#include <event2/event.h>
#include <event2/thread.h>

static struct event_base *base;

static void *loop(void *unused)
{
    (void)unused;
    event_base_loop(base, EVLOOP_NO_EXIT_ON_EMPTY);
    return NULL;
}

/* For the works that add events from outside the loop, with libevent's locks. */
static void start_loop(void)
{
    evthread_use_pthreads();
    base = event_base_new();
    thread(loop, NULL);
}

static void on_echo(evutil_socket_t fd, short what, void *argument)
{
    struct event **event = argument;
    (void)what;
    if (!echo_once(fd)) {
        event_free(*event);
        close(fd);
    }
}

static void work_echo_loop(const struct work *work)
{
    size_t count;
    int *fds = echo_connections(work, &count);
    struct event **events = calloc(count, sizeof(struct event *));
    base = event_base_new(); /* no locks: only the loop's thread uses it */
    for (size_t i = 0; i < count; i++) {
        events[i] = event_new(base, fds[i], EV_READ | EV_PERSIST, on_echo, &events[i]);
        event_add(events[i], NULL);
    }
    free(fds);
    thread(loop, NULL);
    client_run(work);
}

static void on_readable(evutil_socket_t fd, short what, void *argument)
{
    (void)fd;
    (void)what;
    own_threads_readable(argument, NULL);
}

static void watch_served(struct served *served)
{
    struct timeval limit = {300, 0};
    if (!served->watch)
        served->watch = event_new(base, served->fd, EV_READ, on_readable, served);
    event_add(served->watch, &limit);
}

static void start_for_threads(size_t threads)
{
    (void)threads;
    start_loop();
}

static void work_own_threads(const struct work *work)
{
    own_threads(work, start_for_threads, watch_served);
}

struct connection {
    struct event *event;
};

static void on_first_byte(evutil_socket_t fd, short what, void *argument)
{
    struct connection *connection = argument;
    (void)what;
    echo_once(fd);
    event_free(connection->event);
    close(fd);
    free(connection);
}

static void on_connection(evutil_socket_t listener, short what, void *argument)
{
    (void)what, (void)argument;
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0) {
        struct connection *connection = malloc(sizeof(*connection));
        connection->event = event_new(base, fd, EV_READ, on_first_byte, connection);
        event_add(connection->event, NULL);
    }
}

static void work_accept(const struct work *work)
{
    int listener = accept_listener();
    base = event_base_new();
    event_add(event_new(base, listener, EV_READ | EV_PERSIST, on_connection, NULL), NULL);
    thread(loop, NULL);
    client_run(work);
}

struct timer {
    struct event *event;
    struct due *due;
};

static void on_timer(evutil_socket_t fd, short what, void *argument)
{
    struct timer *timer = argument;
    (void)fd, (void)what;
    timer_fired(timer->due);
    event_free(timer->event);
    free(timer);
}

static void *timer_add(uint64_t delay_us, struct due *due)
{
    struct timeval tv = {(time_t)(delay_us / 1000000), (suseconds_t)(delay_us % 1000000)};
    struct timer *timer = malloc(sizeof(*timer));
    timer->due = due;
    timer->event = evtimer_new(base, on_timer, timer);
    evtimer_add(timer->event, &tv);
    return timer;
}

static void timer_cancel(void *argument)
{
    struct timer *timer = argument;
    event_free(timer->event);
    free(timer);
}

static void settle(void)
{
}

static const struct timers of_libevent = {timer_add, timer_cancel, settle, NULL};

static void work_timers(const struct work *work)
{
    start_loop();
    timers(work, &of_libevent);
}

static void work_timers_fire(const struct work *work)
{
    start_loop();
    timers_fire(work, &of_libevent);
}

static void work_timers_due(const struct work *work)
{
    start_loop();
    timers_due(work, &of_libevent);
}

static void on_idle(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what;
    idle_touched((size_t)(uintptr_t)argument);
}

static void watch(size_t which, int fd)
{
    struct timeval tv = {IDLE_SECONDS, 0};
    event_add(event_new(base, fd, EV_READ | EV_PERSIST, on_idle, (void *)(uintptr_t)which), &tv);
}

static void work_idle(const struct work *work)
{
    start_loop();
    idle(work, watch, settle);
}

static void on_signal(evutil_socket_t fd, short what, void *argument)
{
    (void)fd, (void)what, (void)argument;
    sem_post(&begun);
}

static void work_signals(const struct work *work)
{
    evthread_use_pthreads();
    base = event_base_new();
    event_add(evsignal_new(base, SIGUSR1, on_signal, NULL), NULL);
    thread(loop, NULL);
    signals(work);
}

const struct work works[] = {
    {"echo-loop", "1", work_echo_loop},
    {"echo-loop", "32", work_echo_loop},
    {"echo-loop", "1000", work_echo_loop},
    {"echo-loop-tcp", "32", work_echo_loop},
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
    {"timers-due", "200000", work_timers_due},
    {"idle", "100", work_idle},
    {"idle", "1000", work_idle},
    {"idle", "19000", work_idle},
    {"signals", "1", work_signals},
    {NULL, NULL, NULL},
};
