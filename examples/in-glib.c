/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * in-glib - a pool in GLib's main loop
 *
 *     in-glib
 *
 * GLib watches the pool's wait descriptor beside a timer of its own, and turns the pool when there is
 * something to do. A job reads the standard input in that loop, until it ends, and a worker writes it back.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <glib-unix.h>
#include <nunc-stans.h>

static GMainLoop *host;

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

/* In GLib's thread, like every callback of a job without NS_JOB_THREAD. */
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

static gboolean on_host_timer(gpointer data)
{
    show(data);
    return G_SOURCE_REMOVE;
}

static gboolean on_ready(gint fd, GIOCondition condition, gpointer tp)
{
    struct timeval at_once = {0, 0};

    (void)fd;
    (void)condition;
    if (ns_thrpool_turn(tp, &at_once) != NS_SHUTDOWN) {
        return G_SOURCE_CONTINUE;
    }
    g_main_loop_quit(host);
    return G_SOURCE_REMOVE;
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
    host = g_main_loop_new(NULL, FALSE);
    g_unix_fd_add(ns_thrpool_get_wait_fd(tp), G_IO_IN, on_ready, tp);
    g_timeout_add(10, on_host_timer, "a timer of GLib's\n");
    if (ns_add_timeout_job(tp, &soon, NS_JOB_NONE, on_pool_timer, NULL, NULL) != NS_SUCCESS ||
        ns_add_fd_job(tp, STDIN_FILENO, NS_JOB_READ | NS_JOB_PERSIST | NS_JOB_PRESERVE_FD, on_input,
                      NULL, NULL) != NS_SUCCESS) {
        return 1;
    }
    g_main_loop_run(host);
    ns_thrpool_wait(tp);
    ns_thrpool_destroy(tp);
    g_main_loop_unref(host);
    return 0;
}
