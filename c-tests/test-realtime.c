/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Real-time threads on one processor, beside ordinary ones that they wait for. A wait must sleep:
 * while a thread of higher priority spins, the thread that it waits for never runs.
 *
 * Skipped if the process may not set priorities, if the kernel does not limit the share of
 * real-time threads, and under tools, which schedule threads themselves.
 */
#include "harness.h"

static cpu_set_t all_processors;

static double clock_seconds(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* Restrict the calling thread, and all that it creates, to one processor. */
static void take_one_processor(void)
{
    cpu_set_t one;
    CPU_ZERO(&one);
    for (int i = CPU_SETSIZE - 1; i >= 0; i--) {
        if (CPU_ISSET(i, &all_processors)) {
            CPU_SET(i, &one);
            break;
        }
    }
    assert_int_equal(sched_setaffinity(0, sizeof(one), &one), 0);
}

static void take_all_processors(void)
{
    assert_int_equal(sched_setaffinity(0, sizeof(all_processors), &all_processors), 0);
}

/* 0 if that is refused. */
static int be_realtime(int priority)
{
    struct sched_param param = {.sched_priority = priority};
    return sched_setscheduler(0, priority ? SCHED_FIFO : SCHED_OTHER, &param) == 0;
}

/* Why these tests can say nothing here, or NULL if they can. */
static const char *unsuitable(void)
{
    if (getenv("NS_SLOW") != NULL) {
        return "a tool has a schedule of its own";
    }
    /* Without a limit, a thread that spins would do so for ever, and hang the test. */
    long period = 0, runtime = -1;
    FILE *file = fopen("/proc/sys/kernel/sched_rt_runtime_us", "r");
    if (file != NULL) {
        if (fscanf(file, "%ld", &runtime) != 1) {
            runtime = -1;
        }
        fclose(file);
    }
    file = fopen("/proc/sys/kernel/sched_rt_period_us", "r");
    if (file != NULL) {
        if (fscanf(file, "%ld", &period) != 1) {
            period = 0;
        }
        fclose(file);
    }
    if (runtime < 0 || runtime >= period) {
        return "real-time threads may take all of a processor";
    }
    if (!be_realtime(10)) {
        return "the process may not set priorities";
    }
    be_realtime(0);
    return NULL;
}

#define SKIP_IF_UNSUITABLE()                                                                   \
    do {                                                                                       \
        const char *why = unsuitable();                                                        \
        if (why != NULL) {                                                                     \
            print_message("skipped: %s\n", why);                                               \
            skip();                                                                            \
        }                                                                                      \
    } while (0)

static struct ns_job_t *awaited;
static struct latch waiting;

static void never(struct ns_job_t *job)
{
    UNUSED(job);
}

static void *wait_for_it(void *unused)
{
    latch_add(&waiting, 1);
    ns_job_wait(awaited);
    return unused;
}

TEST(destroy_sleeps_until_those_in_a_wait_have_left)
{
    SKIP_IF_UNSUITABLE();
    enum { WAITERS = 20, ROUNDS = 10 };
    double longest = 0, busiest = 0;
    for (int round = 0; round < ROUNDS; round++) {
        struct ns_thrpool_t *tp = pool_of(1);
        struct timeval far = {100000, 0};
        assert_int_equal(ns_add_timeout_job(tp, &far, NS_JOB_NONE, never, NULL, &awaited),
                         NS_SUCCESS);
        pthread_t waiters[WAITERS];
        waiting = (struct latch)LATCH_INIT;
        take_one_processor();
        for (int i = 0; i < WAITERS; i++) {
            assert_int_equal(pthread_create(&waiters[i], NULL, wait_for_it, NULL), 0);
        }
        assert_latch(&waiting, WAITERS);
        /* Each is asleep or about to be: they run before a later job of the pool on the same
         * processor, or a little after it. Any of these is right. */
        loop_passes(tp, 20000);
        assert_true(be_realtime(10));
        double wall = clock_seconds(CLOCK_MONOTONIC);
        double busy = clock_seconds(CLOCK_THREAD_CPUTIME_ID);
        ns_thrpool_destroy(tp);
        wall = clock_seconds(CLOCK_MONOTONIC) - wall;
        busy = clock_seconds(CLOCK_THREAD_CPUTIME_ID) - busy;
        assert_true(be_realtime(0));
        for (int i = 0; i < WAITERS; i++) {
            pthread_join(waiters[i], NULL);
        }
        take_all_processors();
        longest = wall > longest ? wall : longest;
        busiest = busy > busiest ? busy : busiest;
    }
    print_message("destroy took %.1f ms at most, and up to %.1f ms of the processor\n",
                  longest * 1e3, busiest * 1e3);
    /* Asleep, it needs a millisecond or two. Spinning, it would take all that the limit allows. */
    if (busiest > 0.05) {
        fail_msg("destroy was busy for %.3f s, of %.3f s", busiest, longest);
    }
}

/* Jobs that ordinary threads add, and others that fire in a real-time loop. */
static struct ns_thrpool_t *pool;
static atomic_long added, ran;
static atomic_int enough;

/* Of the only worker: the longest time between two callbacks, and its CPU time in between. */
static double last_run, last_busy, longest_stall, busy_meanwhile;

static void note_run(void)
{
    double now = now_seconds(), busy = clock_seconds(CLOCK_THREAD_CPUTIME_ID);
    /* Only a worker that was busy meanwhile has stalled: one that sleeps waits for nobody. */
    if (last_run > 0 && busy - last_busy > busy_meanwhile) {
        longest_stall = now - last_run;
        busy_meanwhile = busy - last_busy;
    }
    last_run = now;
    last_busy = busy;
}

static void count_run(struct ns_job_t *job)
{
    note_run();
    atomic_fetch_add(&ran, 1);
    ns_job_done(job);
}

static void *add_on(void *unused)
{
    while (!atomic_load(&enough)) {
        /* This many jobs wait once the worker has used up the share of real-time threads. */
        if (atomic_load(&added) - atomic_load(&ran) > 1000) {
            sched_yield();
        } else if (ns_add_job(pool, NS_JOB_THREAD, count_run, NULL, NULL) == NS_SUCCESS) {
            atomic_fetch_add(&added, 1);
        }
    }
    return unused;
}

/* Makes the worker look at the queue while an add may be in progress. */
static void pulse(struct ns_job_t *job)
{
    UNUSED(job);
    note_run();
}

/* The limit that README states: how long an ordinary thread in the middle of an add may delay a
 * real-time worker. The test only requires that the delay ends. */
TEST(adds_by_ordinary_threads_keep_a_realtime_worker_for_a_time)
{
    SKIP_IF_UNSUITABLE();
    enum { ADDERS = 3 };
    pthread_t adders[ADDERS];
    take_one_processor();
    /* A pool's threads inherit the scheduling policy and the processors of the thread that makes
     * it. */
    assert_true(be_realtime(10));
    pool = pool_of(1);
    assert_true(be_realtime(0));
    for (int i = 0; i < ADDERS; i++) {
        assert_int_equal(pthread_create(&adders[i], NULL, add_on, NULL), 0);
    }
    take_all_processors();
    struct timeval tv = {0, 200};
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_timeout_job(pool, &tv, NS_JOB_THREAD | NS_JOB_PERSIST, pulse, NULL, &job),
                     NS_SUCCESS);
    double end = now_seconds() + 5;
    EVENTUALLY(now_seconds() > end);
    atomic_store(&enough, 1);
    for (int i = 0; i < ADDERS; i++) {
        pthread_join(adders[i], NULL);
    }
    EVENTUALLY(atomic_load(&ran) == atomic_load(&added));
    ns_job_cancel(job);
    pool_end(pool);
    print_message("%ld jobs; the longest stall took %.1f ms, in which the worker was busy for %.1f ms\n",
                  atomic_load(&added), longest_stall * 1e3, busy_meanwhile * 1e3);
    assert_true(atomic_load(&added) > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(destroy_sleeps_until_those_in_a_wait_have_left),
        cmocka_unit_test(adds_by_ordinary_threads_keep_a_realtime_worker_for_a_time),
    };
    sched_getaffinity(0, sizeof(all_processors), &all_processors);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
