/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The works of the benchmark through GLib. GLib's loop looks at every source in every turn, so
 * works with many timers are left out.
 */
#include "bench.h"
#include <glib-unix.h>
#include <glib.h>

/* A job such as the other peers make: a function and its argument. */
struct job {
    void (*func)(struct job *job);
    void *data;
};

static GThreadPool *pool;

static void call(gpointer job, gpointer unused)
{
    (void)unused;
    ((struct job *)job)->func(job);
}

static void workers(size_t count)
{
    pool = g_thread_pool_new(call, NULL, (gint)count, TRUE, NULL);
}

static void post(void (*func)(struct job *), void *data)
{
    struct job *job = malloc(sizeof(*job));
    job->func = func;
    job->data = data;
    g_thread_pool_push(pool, job, NULL);
}

static void on_run_now(struct job *job)
{
    tally_one();
    free(job);
}

static void post_run_now(void *context)
{
    (void)context;
    post(on_run_now, NULL);
}

static void work_run_now(const struct work *work)
{
    workers(workers_of(work));
    run_now(work, post_run_now, NULL);
}

static void on_hand_off(struct job *job)
{
    hand_off_began();
    free(job);
}

static void post_hand_off(void *context)
{
    (void)context;
    post(on_hand_off, NULL);
}

static void work_hand_off(const struct work *work)
{
    workers(1);
    hand_off(work, post_hand_off, NULL);
}

static void on_rearm(struct job *job)
{
    if (chain_again(job->data))
        g_thread_pool_push(pool, job, NULL);
    else
        free(job);
}

static void start_chain(void *context, struct chain *chain)
{
    (void)context;
    post(on_rearm, chain);
}

static void work_rearm(const struct work *work)
{
    workers(2);
    rearm(work, start_chain, NULL);
}

static void *loop(void *unused)
{
    (void)unused;
    g_main_loop_run(g_main_loop_new(NULL, FALSE));
    return NULL;
}

static gboolean on_echo(gint fd, GIOCondition condition, gpointer unused)
{
    (void)condition, (void)unused;
    if (echo_once(fd))
        return G_SOURCE_CONTINUE;
    close(fd);
    return G_SOURCE_REMOVE;
}

static void work_echo_loop(const struct work *work)
{
    size_t count;
    int *fds = echo_connections(work, &count);
    for (size_t i = 0; i < count; i++)
        g_unix_fd_add(fds[i], G_IO_IN, on_echo, NULL);
    free(fds);
    thread(loop, NULL);
    client_run(work);
}

static gboolean on_first_byte(gint fd, GIOCondition condition, gpointer unused)
{
    (void)condition, (void)unused;
    echo_once(fd);
    close(fd);
    return G_SOURCE_REMOVE;
}

static gboolean on_connection(gint listener, GIOCondition condition, gpointer unused)
{
    (void)condition, (void)unused;
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0)
        g_unix_fd_add(fd, G_IO_IN, on_first_byte, NULL);
    return G_SOURCE_CONTINUE;
}

static void work_accept(const struct work *work)
{
    g_unix_fd_add(accept_listener(), G_IO_IN, on_connection, NULL);
    thread(loop, NULL);
    client_run(work);
}

static gboolean on_signal(gpointer unused)
{
    (void)unused;
    sem_post(&begun);
    return G_SOURCE_CONTINUE;
}

static void work_signals(const struct work *work)
{
    g_unix_signal_add(SIGUSR1, on_signal, NULL);
    thread(loop, NULL);
    signals(work);
}

static void once(void)
{
    workers(2);
    g_thread_pool_free(pool, FALSE, TRUE);
}

static void work_start_stop(const struct work *work)
{
    start_stop(work, once);
}

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
    {"hand-off", "busy", work_hand_off},
    {"hand-off", "idle", work_hand_off},
    {"rearm", "1", work_rearm},
    {"rearm", "4", work_rearm},
    {"rearm", "64", work_rearm},
    {"echo-loop", "1", work_echo_loop},
    {"echo-loop", "32", work_echo_loop},
    {"echo-loop", "1000", work_echo_loop},
    {"accept", "16", work_accept},
    {"signals", "1", work_signals},
    {"start-stop", "2", work_start_stop},
    {NULL, NULL, NULL},
};
