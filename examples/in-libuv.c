/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * in-libuv - a pool in libuv's loop
 *
 *     in-libuv
 *
 * libuv watches the pool's wait descriptor beside a timer of its own, and turns the pool when there is
 * something to do. Callbacks of jobs without NS_JOB_THREAD then run in the thread of that loop. What the jobs
 * do is in in-host.h: they read the standard input there, and a worker writes it back.
 */
#define _GNU_SOURCE
#include <uv.h>
#include <nunc-stans.h>

#include "in-host.h"

static uv_timer_t host_timer;
static uv_poll_t poll_pool;

static void on_host_timer(uv_timer_t *timer)
{
    show(timer->data);
    uv_close((uv_handle_t *)timer, NULL);
}

static void on_ready(uv_poll_t *poll, int status, int events)
{
    struct timeval at_once = {0, 0};

    (void)status;
    (void)events;
    if (ns_thrpool_turn(poll->data, &at_once) == NS_SHUTDOWN) {
        /* Nothing else is left, so the loop ends. */
        uv_close((uv_handle_t *)poll, NULL);
    }
}

int main(void)
{
    ns_thrpool_t *tp = pool_with_jobs();
    if (tp == NULL) {
        return 1;
    }
    uv_loop_t *host = uv_default_loop();
    poll_pool.data = tp;
    uv_poll_init(host, &poll_pool, ns_thrpool_get_wait_fd(tp));
    uv_poll_start(&poll_pool, UV_READABLE, on_ready);
    host_timer.data = "a timer of libuv's\n";
    uv_timer_init(host, &host_timer);
    uv_timer_start(&host_timer, on_host_timer, 10, 0);
    uv_run(host, UV_RUN_DEFAULT);
    ns_thrpool_wait(tp);
    ns_thrpool_destroy(tp);
    uv_loop_close(host);
    return 0;
}
