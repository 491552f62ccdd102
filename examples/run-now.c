/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * run-now - jobs that need no event: run in the workers, or in the event loop
 *
 *     run-now [limit [workers]]
 *
 * Counts the primes below a limit. Each range of numbers is one job for the workers; the done
 * callbacks add the results up, and the last of them posts a job to the event loop, which prints
 * the sum and ends the pool.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include <nunc-stans.h>

enum { RANGES = 64 };

struct range {
    long from, to, primes;
};

static struct range ranges[RANGES];
static atomic_long primes;
static atomic_int to_come = RANGES;
static atomic_bool reported;

static bool is_prime(long n)
{
    for (long d = 2; d * d <= n; d++) {
        if (n % d == 0) {
            return false;
        }
    }
    return n >= 2;
}

/* In a worker. */
static void count_range(struct ns_job_t *job)
{
    struct range *range = ns_job_get_data(job);

    for (long n = range->from; n < range->to; n++) {
        range->primes += is_prime(n);
    }
    ns_job_done(job); /* a job that nobody finishes with stays, idle */
}

/* In the event loop, which it holds up: keep it short. */
static void report(struct ns_job_t *job)
{
    printf("%ld primes\n", atomic_load(&primes));
    atomic_store(&reported, true);
    ns_job_done(job);
    ns_thrpool_shutdown(ns_job_get_tp(job));
}

/* Done callback: runs once for each range, after its callback has returned for the last time. */
static void range_done(struct ns_job_t *job)
{
    struct range *range = ns_job_get_data(job);

    atomic_fetch_add(&primes, range->primes);
    if (atomic_fetch_sub(&to_come, 1) == 1 &&
        ns_add_job(ns_job_get_tp(job), NS_JOB_NONE, report, NULL, NULL) != NS_SUCCESS) {
        ns_thrpool_shutdown(ns_job_get_tp(job));
    }
}

static void add_range(struct ns_thrpool_t *pool, struct range *range)
{
    struct ns_job_t *job;

    /* Made unarmed: an armed job might be over before its done callback is set. */
    ns_result_t result =
        ns_add_job(pool, NS_JOB_THREAD | NS_JOB_UNARMED, count_range, range, &job);
    if (result == NS_SUCCESS) {
        ns_job_set_done_cb(job, range_done);
        result = ns_job_rearm(job);
    }
    if (result != NS_SUCCESS) {
        fprintf(stderr, "run-now: a job could not be made: result %d\n", (int)result);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    char *end = "";
    long limit = argc > 1 ? strtol(argv[1], &end, 10) : 500000;
    bool good = *end == '\0' && limit >= 1 && limit <= 100000000;
    long workers = argc > 2 ? strtol(argv[2], &end, 10) : 4;

    if (argc > 3 || !good || *end != '\0' || workers < 1 || workers > 256) {
        fprintf(stderr, "usage: run-now [limit (1 to 100000000) [workers (1 to 256)]]\n");
        return 2;
    }
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.max_threads = (size_t)workers;
    struct ns_thrpool_t *pool = ns_thrpool_new(&config);
    if (!pool) {
        fprintf(stderr, "run-now: no pool: the system log says why\n");
        return 1;
    }
    for (int i = 0; i < RANGES; i++) {
        ranges[i].from = limit * i / RANGES;
        ranges[i].to = limit * (i + 1) / RANGES;
        add_range(pool, &ranges[i]);
    }
    ns_result_t result = ns_thrpool_wait(pool); /* until report shuts it down */
    ns_thrpool_destroy(pool);
    return result == NS_SUCCESS && atomic_load(&reported) ? 0 : 1;
}
