/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * timers - a one-shot and a periodic timer, and how late they are
 *
 *     timers [period-ms]
 */
#define _POSIX_C_SOURCE 200809L
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <nunc-stans.h>

enum { TICKS = 10, ONE_SHOT_MS = 75 };

struct timer {
    const char *name;
    long period;   /* in microseconds */
    long long due; /* no sooner than this */
    int left;      /* firings to come */
};

static atomic_int timers_left = 2;
static atomic_bool early;

/* Microseconds of the monotonic clock, which the library uses too. */
static long long now(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return ts.tv_sec * 1000000LL + ts.tv_nsec / 1000;
}

static void on_time(struct ns_job_t *job)
{
    struct timer *timer = ns_job_get_data(job);
    long long late = now() - timer->due;

    printf("%-8s %4lld us late\n", timer->name, late);
    if (late < 0) {
        atomic_store(&early, true);
    }
    if (--timer->left == 0) {
        ns_job_done(job); /* ends a periodic timer too */
        if (atomic_fetch_sub(&timers_left, 1) == 1) {
            ns_thrpool_shutdown(ns_job_get_tp(job));
        }
    }
    /* The next period begins when this callback returns. So the callback's own time is added to the
     * period, and missed periods are not made up for. */
    timer->due = now() + timer->period;
}

static void start_timer(struct ns_thrpool_t *pool, struct timer *timer, ns_job_type_t flags)
{
    struct timeval tv = {.tv_sec = timer->period / 1000000, .tv_usec = timer->period % 1000000};

    timer->due = now() + timer->period;
    /* No need to keep the job: its callback gets it and finishes with it. */
    ns_result_t result = ns_add_timeout_job(pool, &tv, flags, on_time, timer, NULL);
    if (result != NS_SUCCESS) {
        fprintf(stderr, "timers: %s: result %d\n", timer->name, (int)result);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    char *end = "";
    long ms = argc > 1 ? strtol(argv[1], &end, 10) : 20;

    if (argc > 2 || *end != '\0' || ms < 1 || ms > 60000) {
        fprintf(stderr, "usage: timers [period-ms (1 to 60000)]\n");
        return 2;
    }
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    struct ns_thrpool_t *pool = ns_thrpool_new(&config);
    if (!pool) {
        fprintf(stderr, "timers: no pool: the system log says why\n");
        return 1;
    }
    struct timer once = {.name = "once", .period = ONE_SHOT_MS * 1000, .left = 1};
    struct timer periodic = {.name = "periodic", .period = ms * 1000, .left = TICKS};
    start_timer(pool, &once, NS_JOB_THREAD);       /* runs in the worker */
    start_timer(pool, &periodic, NS_JOB_PERSIST); /* runs in the event loop */

    ns_result_t result = ns_thrpool_wait(pool);
    ns_thrpool_destroy(pool);
    if (atomic_load(&early)) {
        fprintf(stderr, "timers: one was early\n");
        return 1;
    }
    return result == NS_SUCCESS ? 0 : 1;
}
