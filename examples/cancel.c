/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * cancel - finish a job from outside, and know whether its callback is running
 *
 *     cancel
 *
 * ns_job_done refuses an armed job. ns_job_cancel takes a job in any state, and its result says
 * what may be freed. After NS_SUCCESS the callback is not running and never will run again. After
 * NS_RUNNING it still runs: free what it uses in the done callback.
 */
#define _POSIX_C_SOURCE 200809L
#include <semaphore.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include <nunc-stans.h>

struct work {
    sem_t started, may_end, disposed;
    atomic_int runs;
};

static void run(struct ns_job_t *job)
{
    struct work *work = ns_job_get_data(job);

    atomic_fetch_add(&work->runs, 1);
    sem_post(&work->started);
    sem_wait(&work->may_end);
}

static void disposed(struct ns_job_t *job)
{
    struct work *work = ns_job_get_data(job);

    sem_post(&work->disposed);
}

static void check(const char *what, ns_result_t got, ns_result_t wanted)
{
    printf("%-36s result %d\n", what, (int)got);
    if (got != wanted) {
        fprintf(stderr, "cancel: expected result %d\n", (int)wanted);
        exit(1);
    }
}

/* A job that is armed, with its done callback set. */
static struct ns_job_t *start(struct ns_thrpool_t *pool, struct timeval tv, struct work *work)
{
    struct ns_job_t *job;

    sem_init(&work->started, 0, 0);
    sem_init(&work->may_end, 0, 0);
    sem_init(&work->disposed, 0, 0);
    check("make a timer job",
          ns_add_timeout_job(pool, &tv, NS_JOB_THREAD | NS_JOB_UNARMED, run, work, &job),
          NS_SUCCESS);
    ns_job_set_done_cb(job, disposed);
    check("arm it", ns_job_rearm(job), NS_SUCCESS);
    return job;
}

int main(int argc, char **argv)
{
    (void)argv;
    if (argc > 1) {
        fprintf(stderr, "usage: cancel\n");
        return 2;
    }
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    struct ns_thrpool_t *pool = ns_thrpool_new(&config);
    if (!pool) {
        fprintf(stderr, "cancel: no pool: the system log says why\n");
        return 1;
    }
    const struct timeval moment = {.tv_usec = 20000};
    struct work idle = {0}, busy = {0};

    /* Armed: it would run in an hour. */
    struct ns_job_t *job = start(pool, (struct timeval){.tv_sec = 3600}, &idle);
    check("wait for it, a moment", ns_job_timedwait(job, &moment), NS_TIMEOUT);
    check("done, armed: NS_INVALID_STATE", ns_job_done(job), NS_INVALID_STATE);
    check("cancel, armed: NS_SUCCESS", ns_job_cancel(job), NS_SUCCESS);
    sem_wait(&idle.disposed); /* `job` has been the library's since the cancel */

    /* Running: it begins at once, and returns only when it is told to. */
    job = start(pool, (struct timeval){0}, &busy);
    sem_wait(&busy.started);
    check("wait for it, a moment", ns_job_timedwait(job, &moment), NS_TIMEOUT);
    check("cancel, running: NS_RUNNING", ns_job_cancel(job), NS_RUNNING);
    sem_post(&busy.may_end);
    sem_wait(&busy.disposed);

    ns_thrpool_shutdown(pool);
    check("wait for the pool", ns_thrpool_wait(pool), NS_SUCCESS);
    ns_thrpool_destroy(pool);
    printf("runs: %d of the idle job, %d of the busy one\n", atomic_load(&idle.runs),
           atomic_load(&busy.runs));
    return atomic_load(&idle.runs) == 0 && atomic_load(&busy.runs) == 1 ? 0 : 1;
}
