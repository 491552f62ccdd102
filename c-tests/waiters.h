/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Threads that wait for one job, once each, and are known to be asleep in the wait. */
#ifndef WAITERS_H
#define WAITERS_H

#include "harness.h"

enum { WAITERS = 16 };

struct crowd {
    struct ns_job_t *job;
    struct latch entered;
    struct latch left;
    atomic_int results[9]; /* how many waits returned each result */
    int timed;             /* with ns_job_timedwait */
    int count;
    pthread_t threads[WAITERS];
    atomic_int ids[WAITERS]; /* as gettid says */
    atomic_int next;
};

/* Whether a thread is asleep, by the kernel's account. */
static inline int sleeps(int thread)
{
    char path[64];
    char line[512] = "";
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
    int fd = open(path, O_RDONLY);
    ssize_t length = read(fd, line, sizeof line - 1);
    close(fd);
    const char *name_end = length > 0 ? strrchr(line, ')') : NULL;
    return name_end != NULL && name_end[2] == 'S';
}

static inline void *wait_once(void *arg)
{
    struct crowd *crowd = arg;
    atomic_store(&crowd->ids[atomic_fetch_add(&crowd->next, 1)], gettid());
    latch_add(&crowd->entered, 1);
    struct timeval limit = {LIMIT_SECONDS, 0};
    ns_result_t result = crowd->timed ? ns_job_timedwait(crowd->job, &limit)
                                      : ns_job_wait(crowd->job);
    atomic_fetch_add(&crowd->results[result], 1);
    latch_add(&crowd->left, 1);
    return NULL;
}

/* Start the waiters, and see all of them asleep. From then on the job may be disposed of. They are
 * looked at more than once, since under valgrind a thread may sleep between any two steps. */
static inline void crowd_of(struct crowd *crowd, struct ns_job_t *job, int timed, int count)
{
    *crowd = (struct crowd){.job = job, .entered = LATCH_INIT, .left = LATCH_INIT, .timed = timed,
                            .count = count};
    for (int i = 0; i < count; i++) {
        assert_int_equal(pthread_create(&crowd->threads[i], NULL, wait_once, crowd), 0);
    }
    assert_latch(&crowd->entered, count);
    for (int looks = 0; looks < 5; looks++) {
        for (int i = 0; i < count; i++) {
            EVENTUALLY(sleeps(atomic_load(&crowd->ids[i])));
        }
        sched_yield();
    }
}

/* As crowd_of, with WAITERS threads. */
static inline void crowd_begin(struct crowd *crowd, struct ns_job_t *job, int timed)
{
    crowd_of(crowd, job, timed, WAITERS);
}

/* See every wait return this result. */
static inline void crowd_end(struct crowd *crowd, ns_result_t want)
{
    assert_latch(&crowd->left, crowd->count);
    for (int i = 0; i < crowd->count; i++) {
        pthread_join(crowd->threads[i], NULL);
    }
    assert_int_equal(atomic_load(&crowd->results[want]), crowd->count);
}

#endif
