/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A pool of workers by hand: a list of jobs under a mutex. And groups over it: each has a list and a
 * mutex of its own, and is in the pool's list while it has jobs. */
#ifndef BENCH_FLOOR_POOL_H
#define BENCH_FLOOR_POOL_H

#include "groups.h"

struct job {
    struct job *next;
    void (*func)(struct job *job);
    void *data;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct job *first;
    struct job **last;
    size_t idle;
    bool closed;
} queue = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, NULL, NULL, 0, false};

static void push(struct job *job)
{
    job->next = NULL;
    pthread_mutex_lock(&queue.lock);
    *queue.last = job;
    queue.last = &job->next;
    bool wake = queue.idle > 0;
    pthread_mutex_unlock(&queue.lock);
    if (wake)
        pthread_cond_signal(&queue.more);
}

static void *work_off(void *unused)
{
    (void)unused;
    pthread_mutex_lock(&queue.lock);
    for (;;) {
        struct job *job = queue.first;
        if (job) {
            queue.first = job->next;
            if (!queue.first)
                queue.last = &queue.first;
            pthread_mutex_unlock(&queue.lock);
            job->func(job);
            pthread_mutex_lock(&queue.lock);
        } else if (queue.closed) {
            break;
        } else {
            queue.idle++;
            pthread_cond_wait(&queue.more, &queue.lock);
            queue.idle--;
        }
    }
    pthread_mutex_unlock(&queue.lock);
    return NULL;
}

static void start_workers(pthread_t *threads, size_t count)
{
    queue.first = NULL;
    queue.last = &queue.first;
    queue.closed = false;
    for (size_t i = 0; i < count; i++)
        threads[i] = thread(work_off, NULL);
}

static void workers(size_t count)
{
    pthread_t threads[BURDEN_THREADS]; /* the most that a work wants */
    start_workers(threads, count);
}

static void post(void (*func)(struct job *), void *data)
{
    struct job *job = malloc(sizeof(*job));
    job->func = func;
    job->data = data;
    push(job);
}

/* A group: at most one worker serves it. */
struct key {
    struct job job; /* first: in the pool's list while the group is to be served */
    pthread_mutex_t lock;
    struct job *first;
    struct job **last;
    bool served;
};

/* All that is there now, with one look at the lock; then what came meanwhile goes to the end. */
static void serve(struct job *job)
{
    struct key *key = (struct key *)(void *)job;
    pthread_mutex_lock(&key->lock);
    struct job *each = key->first;
    key->first = NULL;
    key->last = &key->first;
    pthread_mutex_unlock(&key->lock);
    for (struct job *next; each; each = next) {
        next = each->next;
        each->func(each);
    }
    pthread_mutex_lock(&key->lock);
    bool more = key->first != NULL;
    key->served = more;
    pthread_mutex_unlock(&key->lock);
    if (more)
        push(&key->job);
}

static void key_init(struct key *key)
{
    pthread_mutex_init(&key->lock, NULL);
    key->job.func = serve;
    key->first = NULL;
    key->last = &key->first;
    key->served = false;
}

static void post_to(struct key *key, void (*func)(struct job *), void *data)
{
    struct job *job = malloc(sizeof(*job));
    job->func = func;
    job->data = data;
    job->next = NULL;
    pthread_mutex_lock(&key->lock);
    *key->last = job;
    key->last = &job->next;
    bool start = !key->served;
    key->served = true;
    pthread_mutex_unlock(&key->lock);
    if (start)
        push(&key->job);
}

static struct key *keys;

static void keys_make(size_t count)
{
    keys = malloc(count * sizeof(*keys));
    for (size_t i = 0; i < count; i++)
        key_init(&keys[i]);
}

static void on_lane(struct job *job)
{
    lane_ran((size_t)(uintptr_t)job->data);
    free(job);
}

static void key_post(size_t which)
{
    post_to(&keys[which], on_lane, (void *)(uintptr_t)which);
}

static void key_ping(size_t which);

static void on_ping(struct job *job)
{
    if (ping_again())
        key_ping(1 - (size_t)(uintptr_t)job->data);
    free(job);
}

static void key_ping(size_t which)
{
    post_to(&keys[which], on_ping, (void *)(uintptr_t)which);
}

static void on_burden(struct job *job)
{
    burden_carried();
    free(job);
}

static void key_burden(size_t which)
{
    post_to(&keys[which], on_burden, NULL);
}

static const struct groups keys_by_hand = {workers, keys_make, key_post, key_ping, key_burden};

static void work_groups(const struct work *work)
{
    groups(work, &keys_by_hand);
}

static void work_group_ping(const struct work *work)
{
    group_ping(work, &keys_by_hand);
}

static void work_overburdened(const struct work *work)
{
    overburdened(work, &keys_by_hand);
}

static void work_groups_idle(const struct work *work)
{
    groups_idle(work, &keys_by_hand);
}

#endif
