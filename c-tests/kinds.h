/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Every kind of job there is: one call that adds any of them, and one that adds them all. */
#ifndef KINDS_H
#define KINDS_H

#include "harness.h"

enum { KIND_NOW, KIND_TIMER, KIND_FD, KIND_FD_TIMEOUT, KIND_SIGNAL, KINDS };

/* What jobs wait for: a timer for tv, which is also the time-out of KIND_FD_TIMEOUT; a descriptor
 * job for fd in the directions of io, with NS_JOB_PRESERVE_FD or not. Signal jobs wait for SIGUSR1. */
struct trigger {
    struct timeval *tv;
    int fd;
    ns_job_type_t io;
};

static inline ns_result_t add_kind(struct ns_thrpool_t *tp, int kind, const struct trigger *on,
                                   ns_job_type_t type, ns_job_func_t func, void *data,
                                   struct ns_job_t **job)
{
    switch (kind) {
    case KIND_NOW:
        return ns_add_job(tp, type, func, data, job);
    case KIND_TIMER:
        return ns_add_timeout_job(tp, on->tv, type, func, data, job);
    case KIND_FD:
        return ns_add_fd_job(tp, on->fd, type | on->io, func, data, job);
    case KIND_FD_TIMEOUT:
        return ns_add_fd_timeout_job(tp, on->fd, on->tv, type | on->io, func, data, job);
    default:
        return ns_add_signal_job(tp, SIGUSR1, type, func, data, job);
    }
}

/* A job of each kind, each of which runs once: *made counts them, finished their ends. Returns the
 * first result that is no success, or NS_SUCCESS. */
static inline ns_result_t run_each_kind(struct ns_thrpool_t *tp, int ends[2],
                                        struct latch *finished, int *made)
{
    struct timeval soon = {0, 100};
    const struct trigger one = {&soon, ends[0], NS_JOB_WRITE | NS_JOB_PRESERVE_FD};
    const struct trigger other = {&at_once, ends[1], NS_JOB_WRITE | NS_JOB_PRESERVE_FD};
    const struct {
        int kind;
        ns_job_type_t type;
        const struct trigger *on;
    } jobs[] = {
        {KIND_NOW, 0, &one},
        {KIND_NOW, NS_JOB_THREAD, &one},
        {KIND_TIMER, 0, &one},
        {KIND_FD, 0, &one},
        {KIND_FD_TIMEOUT, NS_JOB_THREAD, &other},
        {KIND_SIGNAL, 0, &one},
        {KINDS, NS_JOB_THREAD, NULL}, /* made by ns_create_job */
    };
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
        struct ns_job_t *job = (struct ns_job_t *)finished;
        ns_result_t result =
            jobs[i].kind == KINDS
                ? ns_create_job(tp, jobs[i].type, finish_job, &job)
                : add_kind(tp, jobs[i].kind, jobs[i].on, jobs[i].type | NS_JOB_UNARMED, finish_job,
                           finished, &job);
        if (result != NS_SUCCESS) {
            assert_null(job);
            return result;
        }
        ++*made;
        if (jobs[i].kind == KINDS) {
            assert_int_equal(ns_job_set_data(job, finished), NS_SUCCESS);
        }
        arm_with(job, count_callback);
        if (jobs[i].kind == KIND_SIGNAL) {
            assert_int_equal(raise(SIGUSR1), 0);
        }
    }
    return NS_SUCCESS;
}

/* Runs and disposals of jobs that stay armed. */
static atomic_long late_runs;
static atomic_long disposed;

/* As a callback: count the run, and read what there is to read. */
static inline void count_late_run(struct ns_job_t *job)
{
    char bytes[16];
    atomic_fetch_add(&late_runs, 1);
    if (ns_job_get_native_fd(job) >= 0) {
        recv(ns_job_get_native_fd(job), bytes, sizeof bytes, 0);
    }
}

/* As a done callback. */
static inline void count_disposed(struct ns_job_t *job)
{
    UNUSED(job);
    atomic_fetch_add(&disposed, 1);
}

/* How many jobs arm_all adds. */
enum { ARMED = 6 };

/* A job of each kind but run-now, in the loop and in workers: PERSIST, so that they fire again and
 * again. */
static inline void arm_all(struct ns_thrpool_t *tp, int fd, struct timeval *tv,
                           struct ns_job_t **jobs)
{
    static const int kinds[] = {KIND_TIMER, KIND_FD, KIND_SIGNAL};
    const struct trigger on = {tv, fd, NS_JOB_READ | NS_JOB_PRESERVE_FD};
    for (int i = 0; i < ARMED; i++) {
        ns_job_type_t type = where[i % 2] | NS_JOB_PERSIST | NS_JOB_UNARMED;
        assert_int_equal(add_kind(tp, kinds[i / 2], &on, type, count_late_run, NULL, &jobs[i]),
                         NS_SUCCESS);
    }
    for (int i = 0; i < ARMED; i++) {
        arm_with(jobs[i], count_disposed);
    }
}

#endif
