/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * periodic - two timers of 50 ms, whose callbacks take 10 ms: one drifts, one keeps its cadence
 */
#define _GNU_SOURCE
#include <err.h>
#include <nunc-stans.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { TIMES = 10, INTERVAL_MS = 50, WORK_MS = 10 };

struct timer {
    struct ns_job_t *job;
    int fired;
    long last; /* when it fired last, in ms since the start */
};

static struct timespec begin;
static atomic_int timers = 2;

static void on_time(struct ns_job_t *job) /* in a worker */
{
    struct timer *t = ns_job_get_data(job);
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    t->last = (now.tv_sec - begin.tv_sec) * 1000 + (now.tv_nsec - begin.tv_nsec) / 1000000;
    usleep(WORK_MS * 1000);
    if (++t->fired < TIMES)
        return; /* PERSIST arms it again */
    ns_job_done(job);
    if (atomic_fetch_sub(&timers, 1) == 1)
        ns_thrpool_shutdown(ns_job_get_tp(job));
}

int main(void)
{
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.max_threads = 2;
    ns_thrpool_t *tp = ns_thrpool_new(&config);
    struct timeval interval = {0, INTERVAL_MS * 1000};
    ns_job_type_t type = NS_JOB_PERSIST | NS_JOB_THREAD | NS_JOB_UNARMED;
    struct timer plain = {0}, cadence = {0};
    if (tp == NULL ||
        ns_add_timeout_job(tp, &interval, type, on_time, &plain, &plain.job) != NS_SUCCESS ||
        ns_add_timeout_job(tp, &interval, type | NS_JOB_CADENCE, on_time, &cadence, &cadence.job) !=
            NS_SUCCESS)
        errx(1, "can't start: the system log says why");
    clock_gettime(CLOCK_MONOTONIC, &begin);
    ns_job_rearm(plain.job);
    ns_job_rearm(cadence.job);
    ns_thrpool_wait(tp);
    ns_thrpool_destroy(tp);
    printf("plain: the tenth came after %ld ms\n", plain.last);
    printf("cadence: the tenth came after %ld ms\n", cadence.last);
    /* The plain one counts from its callback's return, so the work of all but the last time adds up. */
    if (plain.last < TIMES * INTERVAL_MS + (TIMES - 1) * WORK_MS || cadence.last < TIMES * INTERVAL_MS)
        errx(1, "too early");
}
