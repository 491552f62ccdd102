/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * rate-limit - 20 requests that come at once, of which 5 are served in each fifth of a second
 *
 * The requests are jobs of a group of width 1. The one that takes the last token suspends the group, so
 * that none begins after it. A timer brings new tokens and resumes the group. No thread waits.
 */
#define _GNU_SOURCE
#include <err.h>
#include <nunc-stans.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>

enum { REQUESTS = 20, TOKENS = 5 };

static struct ns_group_t *requests;
static struct timespec begin;
static int tokens = TOKENS, served; /* the group's own */
static atomic_bool suspended;

static void serve(struct ns_job_t *job)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double at = (double)(now.tv_sec - begin.tv_sec) + (double)(now.tv_nsec - begin.tv_nsec) / 1e9;
    int earliest = served / TOKENS; /* in fifths of a second */
    if (at < earliest * 0.2)
        errx(1, "request %d was served too early", served);
    if (++served % TOKENS == 0)
        printf("%d served, the last not before %.1f s\n", served, earliest * 0.2);
    ns_job_done(job);
    if (served == REQUESTS) {
        ns_thrpool_shutdown(ns_job_get_tp(job));
    } else if (--tokens == 0) {
        tokens = TOKENS; /* for when the group goes on */
        ns_group_suspend(requests);
        atomic_store(&suspended, true);
    }
}

static void on_fifth(struct ns_job_t *job) /* in the loop */
{
    (void)job;
    if (atomic_exchange(&suspended, false))
        ns_group_resume(requests);
}

int main(void)
{
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.max_threads = 4;
    ns_thrpool_t *tp = ns_thrpool_new(&config);
    struct timeval fifth = {0, 200000};
    struct ns_job_t *timer;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    if (tp == NULL || ns_group_new(tp, 1, NULL, NULL, &requests) != NS_SUCCESS ||
        ns_add_timeout_job(tp, &fifth, NS_JOB_PERSIST | NS_JOB_CADENCE, on_fifth, NULL, &timer) != NS_SUCCESS)
        errx(1, "can't start: the system log says why");
    for (int i = 0; i < REQUESTS; i++)
        ns_add_group_job(requests, NS_JOB_THREAD, serve, NULL, NULL);
    ns_thrpool_wait(tp);
    ns_job_done(timer);
    ns_group_release(requests);
    ns_thrpool_destroy(tp);
}
