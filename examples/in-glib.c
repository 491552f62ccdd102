/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * in-glib - a pool in GLib's main loop
 *
 *     in-glib
 *
 * GLib watches the pool's wait descriptor beside a timer of its own, and turns the pool when there is
 * something to do. Callbacks of jobs without NS_JOB_THREAD then run in the thread of that loop. What the jobs
 * do is in in-host.h: they read the standard input there, and a worker writes it back.
 */
#define _GNU_SOURCE
#include <glib-unix.h>
#include <nunc-stans.h>

#include "in-host.h"

static GMainLoop *host;

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
    ns_thrpool_t *tp = pool_with_jobs();
    if (tp == NULL) {
        return 1;
    }
    host = g_main_loop_new(NULL, FALSE);
    g_unix_fd_add(ns_thrpool_get_wait_fd(tp), G_IO_IN, on_ready, tp);
    g_timeout_add(10, on_host_timer, "a timer of GLib's\n");
    g_main_loop_run(host);
    ns_thrpool_wait(tp);
    ns_thrpool_destroy(tp);
    g_main_loop_unref(host);
    return 0;
}
