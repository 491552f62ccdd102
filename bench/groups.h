/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The outer half of the works with groups. A group is what runs one callback at a time and in order
 * on whichever worker is free: ns_group_t of width 1, a strand of Asio's, a list with a lock by hand.
 *
 * Each peer allocates what it needs for a post as its users do, one post at a time. The callbacks of
 * a group change what they share (struct lane) without a lock or an atomic operation: that is what
 * groups are for, and the count at the end shows that no change was lost.
 */
#ifndef BENCH_GROUPS_H
#define BENCH_GROUPS_H

#include "bench.h"

/* What the callbacks of one group share: a cache line, as a connection has at least one. */
struct lane {
    uint64_t runs;
    char apart[56];
};

static struct lane *lanes; /* one for each group */

struct groups {
    /* Start so many workers. */
    void (*start)(size_t workers);
    /* Make so many groups. */
    void (*make)(size_t count);
    /* Post to a group; the callback calls lane_ran(which). */
    void (*post)(size_t which);
    /* Post to one of two groups; if ping_again(), the callback posts so to the other. */
    void (*ping)(size_t which);
    /* Post to a group; the callback calls burden_carried(). */
    void (*burden)(size_t which);
};

static inline void lane_ran(size_t which)
{
    lanes[which].runs++;
    tally_one();
}

static inline void lanes_make(size_t count)
{
    lanes = (struct lane *)aligned_alloc(64, count * sizeof(*lanes));
    check(lanes != NULL, "aligned_alloc");
    memset(lanes, 0, count * sizeof(*lanes));
}

/*
 * group-post, PARAM producers x workers: all posts go to one group. groups, PARAM how many :
 * producers x workers: each producer posts to all of them in turn, in a scattered order. In the
 * works ...-window no more than WINDOW posts wait at a time.
 */

struct group_producer {
    void (*post)(size_t which);
    size_t groups;
    size_t first;
    size_t count;
    size_t window; /* of all producers, or 0 */
    size_t producers;
};

static inline void *group_produce(void *argument)
{
    struct group_producer *self = (struct group_producer *)argument;
    for (size_t i = 0; i < self->count; i++) {
        if (self->window && i % 256 == 0)
            while (i * self->producers > tally_count() + self->window)
                sched_yield();
        /* scatter() is below 2^31. */
        self->post((scatter(self->first + i) * self->groups) >> 31);
    }
    return NULL;
}

static inline void groups(const struct work *work, const struct groups *peer)
{
    const char *colon = strchr(work->param, ':');
    size_t count = colon ? strtoul(work->param, NULL, 10) : 1;
    size_t producers = strtoul(colon ? colon + 1 : work->param, NULL, 10);
    size_t each = how_many(1000000) / producers;
    size_t window = strstr(work->name, "-window") ? WINDOW : 0;
    struct group_producer all[2] = {{peer->post, count, 0, each, window, producers},
                                    {peer->post, count, each, each, window, producers}};
    pthread_t second = pthread_self();
    lanes_make(count);
    peer->start(workers_of(work));
    peer->make(count);
    tally_start(each * producers);
    usage_begin();
    uint64_t start = nanoseconds();
    if (producers > 1)
        second = thread(group_produce, &all[1]);
    group_produce(&all[0]);
    tally_wait();
    double seconds = (double)(nanoseconds() - start) / 1e9;
    if (producers > 1)
        pthread_join(second, NULL);
    metric(work, "rate", (double)tally.total / seconds);
    usage_end(work, (double)tally.total);
    size_t runs = 0;
    for (size_t i = 0; i < count; i++)
        runs += lanes[i].runs;
    check(runs == tally.total, "two callbacks of one group ran at once");
}

/* group-ping, PARAM workers: two groups post to each other in turn, one post at a time. */

static size_t ping_left; /* passes with the ball */

static inline bool ping_again(void)
{
    if (--ping_left > 0)
        return true;
    tally_one();
    return false;
}

static inline void group_ping(const struct work *work, const struct groups *peer)
{
    size_t count = how_many(400000);
    peer->start(strtoul(work->param, NULL, 10));
    peer->make(2);
    tally_start(1);
    ping_left = count;
    usage_begin();
    uint64_t start = nanoseconds();
    peer->ping(0);
    tally_wait();
    metric(work, "rate", (double)count * 1e9 / (double)(nanoseconds() - start));
    usage_end(work, (double)count);
}

/*
 * overburdened: a hundred tasks arrive at once, each for a connection of its own, and each sleeps
 * for 5 ms, as one does that waits for a slow back end. There are sixteen threads. Connection i
 * belongs to loop i % 16 where loops are bound to threads. PARAM "one-loop": all tasks are for
 * connections of one loop; "all-loops": they are spread evenly. Ideal is that all threads share
 * them: seven tasks, one after the other.
 */

#define BURDEN_THREADS ((size_t)16)
#define BURDENS ((size_t)100)
#define BURDEN_US 5000
#define BURDEN_IDEAL ((double)((BURDENS + BURDEN_THREADS - 1) / BURDEN_THREADS * BURDEN_US) * 1e3)

static inline void burden_carried(void)
{
    pause_for_us(BURDEN_US);
    tally_one();
}

static inline void burden_round(size_t apart, void (*burden)(size_t connection))
{
    tally_start(BURDENS);
    for (size_t i = 0; i < BURDENS; i++)
        burden(i * apart);
    tally_wait();
}

/* The first round starts what starts slowly, and is not counted. */
static inline void overburdened(const struct work *work, const struct groups *peer)
{
    size_t apart = strcmp(work->param, "one-loop") == 0 ? BURDEN_THREADS : 1;
    size_t rounds = how_many(6);
    uint64_t *took = (uint64_t *)calloc(rounds, sizeof(*took));
    peer->start(BURDEN_THREADS);
    peer->make(BURDENS * apart);
    burden_round(1, peer->burden);
    usage_begin();
    for (size_t i = 0; i < rounds; i++) {
        uint64_t start = nanoseconds();
        burden_round(apart, peer->burden);
        took[i] = nanoseconds() - start;
    }
    usage_end(work, (double)(rounds * BURDENS));
    qsort(took, rounds, sizeof(*took), by_size);
    metric(work, "makespan_ms", (double)took[rounds / 2] / 1e6);
    metric(work, "ideals", (double)took[rounds / 2] / BURDEN_IDEAL);
    free(took);
}

/* groups-idle, PARAM how many: heap for each group, with what the application keeps it by, and how
 * long making one takes. */
static inline void groups_idle(const struct work *work, const struct groups *peer)
{
    size_t count = strtoul(work->param, NULL, 10);
    peer->start(1);
    usage_begin();
    size_t before = heap_in_use();
    uint64_t start = nanoseconds();
    peer->make(count);
    metric(work, "make_ns", (double)(nanoseconds() - start) / (double)count);
    metric(work, "bytes", (double)(heap_in_use() - before) / (double)count);
    usage_end(work, (double)count);
}

#endif
