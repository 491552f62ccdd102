/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * signals - signals as jobs: no handler to write, nothing async-signal-safe to restrict it
 *
 *     signals [times]
 *
 * Sends itself SIGUSR1 many times. The job for it fires only a few times, because signals
 * coalesce. Then it sends itself SIGTERM, whose job shuts the pool down.
 */
#define _POSIX_C_SOURCE 200809L
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include <nunc-stans.h>

static atomic_long firings;
static sem_t fired;

/* Runs in an ordinary thread: printf, locks and malloc are all allowed. */
static void on_usr1(struct ns_job_t *job)
{
    (void)job;
    atomic_fetch_add(&firings, 1);
    sem_post(&fired);
}

static void on_term(struct ns_job_t *job)
{
    printf("SIGTERM: shutting down\n");
    ns_thrpool_shutdown(ns_job_get_tp(job));
}

static struct ns_job_t *watch(struct ns_thrpool_t *pool, int signum, ns_job_func_t func)
{
    struct ns_job_t *job;
    /* Without PERSIST it would fire once, and again only after a rearm. */
    ns_result_t result = ns_add_signal_job(pool, signum, NS_JOB_PERSIST, func, NULL, &job);

    if (result != NS_SUCCESS) {
        fprintf(stderr, "signals: signal %d: result %d\n", signum, (int)result);
        exit(1);
    }
    return job;
}

int main(int argc, char **argv)
{
    char *end = "";
    long times = argc > 1 ? strtol(argv[1], &end, 10) : 1000;

    if (argc > 2 || *end != '\0' || times < 1 || times > 1000000) {
        fprintf(stderr, "usage: signals [times (1 to 1000000)]\n");
        return 2;
    }
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    struct ns_thrpool_t *pool = ns_thrpool_new(&config);
    if (!pool || sem_init(&fired, 0, 0) < 0) {
        fprintf(stderr, "signals: no pool: the system log says why\n");
        return 1;
    }
    struct ns_job_t *usr1 = watch(pool, SIGUSR1, on_usr1);
    struct ns_job_t *term = watch(pool, SIGTERM, on_term);

    for (long i = 0; i < times; i++) {
        kill(getpid(), SIGUSR1);
    }
    struct timespec limit;
    clock_gettime(CLOCK_REALTIME, &limit);
    limit.tv_sec += 10;
    if (sem_timedwait(&fired, &limit) < 0) {
        perror("signals: SIGUSR1 did not fire");
        return 1;
    }
    kill(getpid(), SIGTERM);

    ns_result_t result = ns_thrpool_wait(pool);
    printf("SIGUSR1: sent %ld times, fired %ld times\n", times, atomic_load(&firings));
    /* After a shutdown ns_job_done takes armed jobs too. When the last job for a signal goes, the
     * library restores the earlier disposition. */
    ns_job_done(usr1);
    ns_job_done(term);
    ns_thrpool_destroy(pool);
    sem_destroy(&fired);
    return result == NS_SUCCESS && atomic_load(&firings) <= times ? 0 : 1;
}
