/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The pool of in-glib.c, in-libuv.c and in-libevent.c, and its jobs: the same in each host.
 *
 * A job reads the standard input in the host's loop, until it ends, and a worker writes it back. A timer of the
 * pool's says a word.
 */
#ifndef IN_HOST_H
#define IN_HOST_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <nunc-stans.h>

static inline void show(const char *what)
{
    fputs(what, stdout);
    fflush(stdout);
}

/* In a worker. */
static inline void write_back(struct ns_job_t *job)
{
    char *text = ns_job_get_data(job);

    show(text);
    free(text);
    ns_job_done(job);
}

/* In the host's thread, like every callback of a job without NS_JOB_THREAD. */
static inline void on_input(struct ns_job_t *job)
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

/* In the host's thread. */
static inline void on_pool_timer(struct ns_job_t *job)
{
    show("a timer of the pool's\n");
    ns_job_done(job);
}

/* A pool whose loop is the caller's, with its two jobs; NULL if that fails. */
static inline ns_thrpool_t *pool_with_jobs(void)
{
    struct ns_thrpool_config config;
    struct ns_thrpool_options options;
    struct timeval soon = {0, 20000};

    ns_thrpool_config_init(&config);
    ns_thrpool_options_init(&options, sizeof options);
    options.flags = NS_POOL_CALLER_LOOP;
    ns_thrpool_t *tp = ns_thrpool_new_with(&config, &options);
    if (tp != NULL &&
        (ns_add_timeout_job(tp, &soon, NS_JOB_NONE, on_pool_timer, NULL, NULL) != NS_SUCCESS ||
         ns_add_fd_job(tp, STDIN_FILENO, NS_JOB_READ | NS_JOB_PERSIST | NS_JOB_PRESERVE_FD, on_input,
                       NULL, NULL) != NS_SUCCESS)) {
        ns_thrpool_destroy(tp);
        return NULL;
    }
    return tp;
}

#endif
