/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What broke the original, shown absent: needless system calls, locks and wake-ups.
 *
 * The program replaces these functions of the C library with its own, which count the library's
 * calls and pass them on.
 */
#include "fm.h"

#include <dlfcn.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

/* The calls of this thread. */
static _Thread_local struct {
    long writes;
    long others;
    long yields;
    long locks;
} calls;

/* Of all threads: writes to the wake pipe, turns of the loop, and the most bytes that
 * were found in the pipe. */
static atomic_long all_writes;
static atomic_long turns;
static atomic_int most_bytes;

/* The C library's own function, under a name that the program has taken. */
static void *real(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

/* As the C library's, it takes six arguments, however many its caller gave. */
__attribute__((no_sanitize("address"))) long syscall(long number, ...)
{
    static long (*next)(long, ...);
    if (next == NULL) {
        void *at = real("syscall");
        memcpy(&next, &at, sizeof next);
    }
    va_list args;
    va_start(args, number);
    long a = va_arg(args, long);
    long b = va_arg(args, long);
    long c = va_arg(args, long);
    long d = va_arg(args, long);
    long e = va_arg(args, long);
    long f = va_arg(args, long);
    va_end(args);
    if (number != SYS_write) {
        calls.others++;
        return next(number, a, b, c, d, e, f);
    }
    calls.writes++;
    atomic_fetch_add(&all_writes, 1);
    long result = next(number, a, b, c, d, e, f);
    int bytes = 0;
    if (ioctl((int)a, FIONREAD, &bytes) == 0 && bytes > atomic_load(&most_bytes)) {
        atomic_store(&most_bytes, bytes);
    }
    return result;
}

int sched_yield(void)
{
    calls.yields++;
    return (int)syscall(SYS_sched_yield, 0L, 0L, 0L, 0L, 0L, 0L);
}

int pthread_mutex_lock(pthread_mutex_t *mutex)
{
    static int (*next)(pthread_mutex_t *);
    if (next == NULL) {
        void *at = real("pthread_mutex_lock");
        memcpy(&next, &at, sizeof next);
    }
    calls.locks++;
    return next(mutex);
}

/*
 * Delay the loop's thread between a full poll and the next step, as a scheduler might.
 */
static struct {
    atomic_int armed;
    atomic_int full; /* 1: a poll has been full, 2: the thread was delayed */
    double until;
} hold;

static _Thread_local int is_loop;

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*next)(clockid_t, struct timespec *);
    if (next == NULL) {
        void *at = real("clock_gettime");
        memcpy(&next, &at, sizeof next);
    }
    int result = next(clock, now);
    int full = 1;
    if (is_loop && atomic_compare_exchange_strong(&hold.full, &full, 2)) {
        struct timespec later;
        do {
            next(CLOCK_MONOTONIC, &later);
        } while ((double)later.tv_sec + (double)later.tv_nsec / 1e9 < hold.until);
    }
    return result;
}

int epoll_wait(int epoll, struct epoll_event *events, int room, int timeout)
{
    static int (*next)(int, struct epoll_event *, int, int);
    if (next == NULL) {
        void *at = real("epoll_wait");
        memcpy(&next, &at, sizeof next);
    }
    atomic_fetch_add(&turns, 1);
    is_loop = 1;
    int count = next(epoll, events, room, timeout);
    if (count == room && atomic_exchange(&hold.armed, 0)) {
        atomic_store(&hold.full, 1);
    }
    return count;
}

static void finish_counted(struct ns_job_t *job)
{
    atomic_fetch_add((atomic_long *)ns_job_get_data(job), 1);
    ns_job_done(job);
}

static ns_result_t add_any(struct ns_thrpool_t *tp, long i, atomic_long *runs)
{
    struct timeval soon = {0, 100};
    switch (i % 3) {
    case 0: return ns_add_job(tp, NS_JOB_THREAD, finish_counted, runs, NULL);
    case 1: return ns_add_job(tp, NS_JOB_NONE, finish_counted, runs, NULL);
    default: return ns_add_timeout_job(tp, &soon, NS_JOB_NONE, finish_counted, runs, NULL);
    }
}

/*
 * Each lock of a pthread mutex is counted. Locks of Rust's library show only as system calls, when
 * they are contended or wake a thread.
 *
 * To see it fail: call yield_now in Shared::request; or have Wake::wake write always.
 */
TEST(fm15_an_add_to_busy_threads_makes_no_system_call_and_to_idle_ones_few)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct gate gates[2] = {GATE_INIT, GATE_INIT};
    struct ns_job_t *blockers[2];
    atomic_long runs = 0;
    for (int i = 0; i < 2; i++) {
        blockers[i] = occupy(tp, i ? NS_JOB_THREAD : 0, &gates[i]);
    }
    /* The loop and the worker are busy: no call at all. */
    memset(&calls, 0, sizeof calls);
    long refused = 0;
    for (long i = 0; i < 3000; i++) {
        refused += add_any(tp, i, &runs) != NS_SUCCESS;
    }
    assert_int_equal(calls.writes, 0);
    assert_int_equal(calls.others, 0);
    assert_int_equal(calls.yields, 0);
    assert_int_equal(calls.locks, 0);
    assert_int_equal(refused, 0);
    for (int i = 0; i < 2; i++) {
        latch_add(&gates[i].leave, 1);
    }
    EVENTUALLY(atomic_load(&runs) == 3000);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ns_job_done(blockers[i]), NS_SUCCESS);
    }
    /* They sleep, or are about to: at most one call for the job and, while the sleeper holds the
     * lock, two for the lock. */
    for (long i = 0; i < count_of(2000, 200000); i++) {
        memset(&calls, 0, sizeof calls);
        ns_result_t result = add_any(tp, i, &runs);
        long made = calls.writes + calls.others;
        assert_int_equal(result, NS_SUCCESS);
        assert_true(calls.writes <= 1);
        assert_true(made <= 3);
        assert_int_equal(calls.yields, 0);
        SOON(atomic_load(&runs) == 3001 + i);
    }
    pool_end(tp);
}

struct flooder {
    struct ns_thrpool_t *tp;
    atomic_long *runs;
    long adds;
};

static void *flood(void *arg)
{
    struct flooder *flooder = arg;
    for (long i = 0; i < flooder->adds; i++) {
        if (add_any(flooder->tp, 1, flooder->runs) != NS_SUCCESS) {
            break;
        }
    }
    return NULL;
}

/* To see it fail: have Wake::wake write always. */
TEST(fm47_the_loop_is_woken_once_and_only_if_it_sleeps)
{
    enum { THREADS = 4 };
    struct ns_thrpool_t *tp = pool_of(1);
    struct gate gate = GATE_INIT;
    atomic_long runs = 0;
    struct flooder flooder = {tp, &runs, count_of(50000, 2500000)};
    pthread_t threads[THREADS];
    struct ns_job_t *blocker = occupy(tp, NS_JOB_NONE, &gate);
    /* The loop is in a callback: no byte is written. */
    long before = atomic_load(&all_writes);
    long turns_before = atomic_load(&turns);
    for (int i = 0; i < THREADS; i++) {
        threads[i] = start_thread(flood, &flooder);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(atomic_load(&all_writes), before);
    /* The loop is released, so that it goes to sleep again and again and wakes are pending. */
    latch_add(&gate.leave, 1);
    for (int i = 0; i < THREADS; i++) {
        threads[i] = start_thread(flood, &flooder);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    EVENTUALLY(atomic_load(&runs) == 2 * THREADS * flooder.adds);
    assert_int_equal(ns_job_done(blocker), NS_SUCCESS);
    pool_end(tp);
    /* Never more bytes than threads that add: these, this one and the worker. */
    assert_true(atomic_load(&most_bytes) <= THREADS + 2);
    long writes = atomic_load(&all_writes) - before;
    long slept = atomic_load(&turns) - turns_before;
    print_message("# %ld adds, %ld turns, %ld writes, %d bytes in the pipe at most\n",
                  2 * THREADS * flooder.adds, slept, writes, atomic_load(&most_bytes));
    assert_true(writes <= slept + 1);
}

static struct {
    atomic_int timed_out;
    atomic_int ready;
} verdicts;

static void take_verdict(struct ns_job_t *job)
{
    int timed_out = NS_JOB_IS_TIMER(ns_job_get_output_type(job)) != 0;
    atomic_fetch_add(timed_out ? &verdicts.timed_out : &verdicts.ready, 1);
    ns_job_done(job);
}

/*
 * More descriptors than one poll returns have had data since long before their deadlines, and the
 * deadlines pass before the loop polls again.
 *
 * To see it fail: in EventLoop::expire, poll once instead of to the end.
 */
TEST(fm29_seven_hundred_with_data_are_told_no_time_out)
{
    enum { MANY = 700 };
    static int ends[MANY][2];
    struct rlimit before, files;
    getrlimit(RLIMIT_NOFILE, &before);
    files = before;
    files.rlim_cur = files.rlim_max < 4096 ? files.rlim_max : 4096;
    setrlimit(RLIMIT_NOFILE, &files);
    for (int round = 0; round < 3; round++) {
        struct ns_thrpool_t *tp = pool_of(1);
        struct gate gate = GATE_INIT;
        struct timeval tv = {0, 300000};
        memset(&verdicts, 0, sizeof verdicts);
        double first = now_seconds() + 0.3; /* before any of their deadlines */
        for (int i = 0; i < MANY; i++) {
            socket_pair(ends[i]);
            assert_int_equal(ns_add_fd_timeout_job(tp, ends[i][0], &tv,
                                                   NS_JOB_READ | (round & 1 ? NS_JOB_THREAD : 0),
                                                   take_verdict, NULL, NULL), NS_SUCCESS);
        }
        hold.until = now_seconds() + 0.301; /* the last deadline is past */
        loop_passes(tp, 0);
        struct ns_job_t *blocker = occupy(tp, NS_JOB_NONE, &gate);
        /* If this machine is too slow, some have timed out, and their sockets are closed. */
        int sent = 0;
        for (int i = 0; i < MANY; i++) {
            sent += send(ends[i][1], "x", 1, MSG_NOSIGNAL) == 1;
        }
        int in_time = now_seconds() < first - 0.1;
        assert_true(!in_time || sent == MANY);
        atomic_store(&hold.full, 0);
        atomic_store(&hold.armed, 1);
        latch_add(&gate.leave, 1);
        EVENTUALLY(atomic_load(&verdicts.ready) + atomic_load(&verdicts.timed_out) == MANY);
        finish_idle(blocker);
        pool_end(tp);
        atomic_store(&hold.armed, 0);
        for (int i = 0; i < MANY; i++) {
            close(ends[i][1]);
        }
        print_message("# %d had data, %d timed out%s\n", atomic_load(&verdicts.ready),
                      atomic_load(&verdicts.timed_out), in_time ? "" : " (this machine was too slow)");
        assert_true(!in_time || atomic_load(&verdicts.timed_out) == 0);
        assert_true(!in_time || atomic_load(&hold.full) == 2);
    }
    setrlimit(RLIMIT_NOFILE, &before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fm15_an_add_to_busy_threads_makes_no_system_call_and_to_idle_ones_few),
        cmocka_unit_test(fm29_seven_hundred_with_data_are_told_no_time_out),
        cmocka_unit_test(fm47_the_loop_is_woken_once_and_only_if_it_sleeps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
