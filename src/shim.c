/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What stable Rust cannot do: make a va_list, catch pthread_exit, and refer to functions that may
 * not exist. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>
#ifdef __linux__
#include <semaphore.h>
#endif

/* Call log_fct as vsyslog is called. */
static void call_log(void (*log_fct)(int, const char *, va_list), int priority,
                     const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_fct(priority, format, args);
    va_end(args);
}

/* Pass one finished message to log_fct, as the argument of "%s", so that no '%' in it is taken for
 * a conversion. */
void nunc_stans_shim_log(void (*log_fct)(int, const char *, va_list), int priority,
                         const char *message)
{
    call_log(log_fct, priority, "%s", message);
}

static void thread_left(void *unused)
{
    (void)unused;
    abort();
}

/* Run a thread of the pool. If a callback ended the thread (pthread_exit), its job would count as
 * running for ever and the pool would wait for it, so we abort instead. */
void nunc_stans_shim_thread(void (*body)(void *), void *arg)
{
    pthread_cleanup_push(thread_left, NULL);
    body(arg);
    pthread_cleanup_pop(0);
}

/* ThreadSanitizer's functions; NULL if the process does not run under it. Go's race detector (go build -race) contains
 * them as well, but there threads of C are unknown to them, and they crash. */
extern void __tsan_acquire(void *at) __attribute__((weak));
extern void __tsan_release(void *at) __attribute__((weak));
extern void __tsan_go_start(void) __attribute__((weak));

int nunc_stans_shim_has_tsan(void)
{
    return __tsan_acquire != NULL && __tsan_release != NULL && __tsan_go_start == NULL;
}

/* A time in nanoseconds. Times come as numbers, because the width of a struct timespec may differ between
 * Rust's C library and this file (_TIME_BITS). */
static struct timespec at_time(int64_t nsec)
{
    struct timespec at = {(time_t)(nsec / 1000000000), (long)(nsec % 1000000000)};
    /* Too late for a time_t of 32 bits: the last time that it can hold. */
    if ((int64_t)at.tv_sec != nsec / 1000000000) {
        at.tv_sec = 0x7fffffff;
    }
    return at;
}

/* The time of the wall clock that is left nanoseconds away, or a century if left is more. */
static struct timespec by_wall_clock(int64_t left)
{
    const int64_t century = (int64_t)100 * 365 * 24 * 3600 * 1000000000;
    if (left > century) {
        left = century;
    }
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    return at_time((int64_t)at.tv_sec * 1000000000 + at.tv_nsec + left);
}

#ifdef __linux__
/* glibc has these since 2.30 and 2.31; musl has not. ThreadSanitizer knows only those that go by the wall
 * clock: it would not see that a thread was joined, and would deliver no signal to one that waits. */
extern int sem_clockwait(sem_t *, clockid_t, const struct timespec *) __attribute__((weak));
extern int pthread_clockjoin_np(pthread_t, void **, clockid_t, const struct timespec *)
    __attribute__((weak));
extern int pthread_timedjoin_np(pthread_t, void **, const struct timespec *) __attribute__((weak));

/* Wait for a permit until a time of the monotonic clock, which is now at now, both in nanoseconds: 0, EINTR
 * or ETIMEDOUT. By the wall clock it may be too early, if that is set meanwhile. */
int nunc_stans_shim_sem_wait(sem_t *sem, int64_t until, int64_t now)
{
    struct timespec at = at_time(until);
    if (sem_clockwait != NULL && !nunc_stans_shim_has_tsan()) {
        return sem_clockwait(sem, CLOCK_MONOTONIC, &at) == 0 ? 0 : errno;
    }
    at = by_wall_clock(until - now);
    return sem_timedwait(sem, &at) == 0 ? 0 : errno;
}
#endif

/* Join a thread until a time of the monotonic clock, which is now at now, both in nanoseconds; where the
 * system can't, until it has ended. 0, ETIMEDOUT or another error. */
int nunc_stans_shim_join(pthread_t thread, int64_t until, int64_t now)
{
    struct timespec at = at_time(until);
#ifdef __linux__
    if (pthread_clockjoin_np != NULL && !nunc_stans_shim_has_tsan()) {
        return pthread_clockjoin_np(thread, NULL, CLOCK_MONOTONIC, &at);
    }
    if (pthread_timedjoin_np != NULL) {
        at = by_wall_clock(until - now);
        return pthread_timedjoin_np(thread, NULL, &at);
    }
#else
    (void)at, (void)now, (void)by_wall_clock;
#endif
    return pthread_join(thread, NULL);
}

void nunc_stans_shim_tsan_acquire(void *at)
{
    __tsan_acquire(at);
}

void nunc_stans_shim_tsan_release(void *at)
{
    __tsan_release(at);
}
