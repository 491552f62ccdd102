/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What broke the original, shown absent: system calls, locks and wake-ups that nobody needs.
 *
 * The library calls these functions of the C library through the program, which counts them and
 * hands them on.
 */
#include "fm.h"

#include <dlfcn.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>

/* What the calling thread did. */
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

long syscall(long number, ...)
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

int epoll_wait(int epoll, struct epoll_event *events, int room, int timeout)
{
    static int (*next)(int, struct epoll_event *, int, int);
    if (next == NULL) {
        void *at = real("epoll_wait");
        memcpy(&next, &at, sizeof next);
    }
    atomic_fetch_add(&turns, 1);
    return next(epoll, events, room, timeout);
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
 * Locks of pthread are counted each time; those of Rust's library show as system calls, where they
 * are contended or somebody is woken.
 *
 * To see it fail: call yield_now in Shared::request; or have Wake::wake write always.
 */
static void fm15_an_add_to_busy_threads_makes_no_system_call_and_to_idle_ones_few(void **state)
{
    UNUSED(state);
    struct ns_thrpool_t *tp = pool_of(1);
    struct gate gates[2] = {GATE_INIT, GATE_INIT};
    struct ns_job_t *blockers[2];
    atomic_long runs = 0;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ns_add_job(tp, i ? NS_JOB_THREAD : 0, gate_callback, &gates[i],
                                    &blockers[i]), NS_SUCCESS);
        assert_latch(&gates[i].begun, 1);
    }
    /* Loop and worker are busy: nothing at all. */
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
    /* They sleep, or nearly: no more than one for the job and, while the sleeper has the lock,
     * two for that. */
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
static void fm47_the_loop_is_woken_once_and_only_if_it_sleeps(void **state)
{
    UNUSED(state);
    enum { THREADS = 4 };
    struct ns_thrpool_t *tp = pool_of(1);
    struct gate gate = GATE_INIT;
    struct ns_job_t *blocker;
    atomic_long runs = 0;
    struct flooder flooder = {tp, &runs, count_of(50000, 2500000)};
    pthread_t threads[THREADS];
    assert_int_equal(ns_add_job(tp, NS_JOB_NONE, gate_callback, &gate, &blocker), NS_SUCCESS);
    assert_latch(&gate.begun, 1);
    /* Against a loop that is in a callback: no byte. */
    long before = atomic_load(&all_writes);
    long turns_before = atomic_load(&turns);
    for (int i = 0; i < THREADS; i++) {
        threads[i] = start_thread(flood, &flooder);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    assert_int_equal(atomic_load(&all_writes), before);
    /* While a wake is pending: the loop is let go, so that it goes to sleep again and again. */
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
    /* Never more bytes than there are threads that add: these, this one and the worker. */
    assert_true(atomic_load(&most_bytes) <= THREADS + 2);
    long writes = atomic_load(&all_writes) - before;
    long slept = atomic_load(&turns) - turns_before;
    print_message("# %ld adds, %ld turns, %ld writes, %d bytes in the pipe at most\n",
                  2 * THREADS * flooder.adds, slept, writes, atomic_load(&most_bytes));
    assert_true(writes <= slept + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fm15_an_add_to_busy_threads_makes_no_system_call_and_to_idle_ones_few),
        cmocka_unit_test(fm47_the_loop_is_woken_once_and_only_if_it_sleeps),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
