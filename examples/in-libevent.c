/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * in-libevent - a pool in libevent's loop
 *
 *     in-libevent
 *
 * libevent watches the pool's wait descriptor beside a timer of its own, and turns the pool when there is
 * something to do. A job reads the standard input in that loop, until it ends, and a worker writes it back.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <event2/event.h>
#include <nunc-stans.h>

static struct event_base *host;

static void show(const char *what)
{
    fputs(what, stdout);
    fflush(stdout);
}

/* In a worker. */
static void write_back(struct ns_job_t *job)
{
    char *text = ns_job_get_data(job);

    show(text);
    free(text);
    ns_job_done(job);
}

/* In libevent's thread, like every callback of a job without NS_JOB_THREAD. */
static void on_input(struct ns_job_t *job)
{
    char bytes[256];
    ssize_t length = read(ns_job_get_native_fd(job), bytes, sizeof bytes - 1);

    if (length <= 0) {
        ns_job_done(job);
        ns_thrpool_shutdown(ns_job_get_tp(job));
        return;
    }
    bytes[length] = '\0';
    char *text = strdup(bytes);
    if (text == NULL ||
        ns_add_job(ns_job_get_tp(job), NS_JOB_THREAD, write_back, text, NULL) != NS_SUCCESS) {
        free(text);
    }
}

static void on_pool_timer(struct ns_job_t *job)
{
    show("a timer of the pool's\n");
    ns_job_done(job);
}

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
    struct ns_thrpool_config config;
    struct ns_thrpool_options options;
    struct timeval soon = {0, 20000};

    ns_thrpool_config_init(&config);
    ns_thrpool_options_init(&options, sizeof options);
    options.flags = NS_POOL_CALLER_LOOP;
    ns_thrpool_t *tp = ns_thrpool_new_with(&config, &options);
    if (tp == NULL) {
        return 1;
    }
    struct timeval sooner = {0, 10000};
    host = event_base_new();
    struct event *ready = event_new(host, ns_thrpool_get_wait_fd(tp), EV_READ | EV_PERSIST, on_ready, tp);
    event_add(ready, NULL);
    event_base_once(host, -1, EV_TIMEOUT, on_host_timer, "a timer of libevent's\n", &sooner);
    if (ns_add_timeout_job(tp, &soon, NS_JOB_NONE, on_pool_timer, NULL, NULL) != NS_SUCCESS ||
        ns_add_fd_job(tp, STDIN_FILENO, NS_JOB_READ | NS_JOB_PERSIST | NS_JOB_PRESERVE_FD, on_input,
                      NULL, NULL) != NS_SUCCESS) {
        return 1;
    }
    event_base_dispatch(host);
    event_free(ready);
    ns_thrpool_wait(tp);
    ns_thrpool_destroy(tp);
    event_base_free(host);
    return 0;
}
