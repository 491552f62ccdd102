/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * in-libuv - a pool in libuv's loop
 *
 *     in-libuv
 *
 * libuv watches the pool's wait descriptor beside a timer of its own, and turns the pool when there is
 * something to do. A job reads the standard input in that loop, until it ends, and a worker writes it back.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <nunc-stans.h>
#include <uv.h>

static uv_timer_t host_timer;
static uv_poll_t poll_pool;

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

/* In libuv's thread, like every callback of a job without NS_JOB_THREAD. */
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
    uv_loop_t *host = uv_default_loop();
    poll_pool.data = tp;
    uv_poll_init(host, &poll_pool, ns_thrpool_get_wait_fd(tp));
    uv_poll_start(&poll_pool, UV_READABLE, on_ready);
    host_timer.data = "a timer of libuv's\n";
    uv_timer_init(host, &host_timer);
    uv_timer_start(&host_timer, on_host_timer, 10, 0);
    if (ns_add_timeout_job(tp, &soon, NS_JOB_NONE, on_pool_timer, NULL, NULL) != NS_SUCCESS ||
        ns_add_fd_job(tp, STDIN_FILENO, NS_JOB_READ | NS_JOB_PERSIST | NS_JOB_PRESERVE_FD, on_input,
                      NULL, NULL) != NS_SUCCESS) {
        return 1;
    }
    uv_run(host, UV_RUN_DEFAULT);
    ns_thrpool_wait(tp);
    ns_thrpool_destroy(tp);
    uv_loop_close(host);
    return 0;
}
