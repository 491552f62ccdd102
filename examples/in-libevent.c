/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * in-libevent - a pool in libevent's loop
 *
 *     in-libevent
 *
 * libevent watches the pool's wait descriptor beside a timer of its own, and turns the pool when there is
 * something to do. Callbacks of jobs without NS_JOB_THREAD then run in the thread of that loop. What the jobs
 * do is in in-host.h: they read the standard input there, and a worker writes it back.
 */
#define _GNU_SOURCE
#include <event2/event.h>
#include <nunc-stans.h>

#include "in-host.h"

static struct event_base *host;

static void on_host_timer(evutil_socket_t fd, short events, void *text)
{
    (void)fd;
    (void)events;
    show(text);
}

static void on_ready(evutil_socket_t fd, short events, void *tp)
{
    struct timeval at_once = {0, 0};

    (void)fd;
    (void)events;
    if (ns_thrpool_turn(tp, &at_once) == NS_SHUTDOWN) {
        event_base_loopbreak(host);
    }
}

int main(void)
{
    ns_thrpool_t *tp = pool_with_jobs();
    if (tp == NULL) {
        return 1;
    }
    struct timeval sooner = {0, 10000};
    host = event_base_new();
    struct event *ready = event_new(host, ns_thrpool_get_wait_fd(tp), EV_READ | EV_PERSIST, on_ready, tp);
    event_add(ready, NULL);
    event_base_once(host, -1, EV_TIMEOUT, on_host_timer, "a timer of libevent's\n", &sooner);
    event_base_dispatch(host);
    event_free(ready);
    ns_thrpool_wait(tp);
    ns_thrpool_destroy(tp);
    event_base_free(host);
    return 0;
}
