/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What stable Rust cannot do: make a va_list, catch pthread_exit, and refer to functions that may
 * not exist. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
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

/* ThreadSanitizer's functions; NULL if the process does not run under it. */
extern void __tsan_acquire(void *at) __attribute__((weak));
extern void __tsan_release(void *at) __attribute__((weak));

int nunc_stans_shim_has_tsan(void)
{
    return __tsan_acquire != NULL && __tsan_release != NULL;
}

/* until - now, two times of one clock, as a time of the wall clock. */
static struct timespec by_wall_clock(const struct timespec *until, const struct timespec *now)
{
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    long nsec = at.tv_nsec + until->tv_nsec - now->tv_nsec + 1000000000;
    at.tv_sec += until->tv_sec - now->tv_sec + nsec / 1000000000 - 1;
    at.tv_nsec = nsec % 1000000000;
    return at;
}

#ifdef __linux__
/* glibc has these since 2.30 and 2.31; musl has not. ThreadSanitizer knows only those that go by the wall
 * clock: it would not see that a thread was joined, and would deliver no signal to one that waits. */
extern int sem_clockwait(sem_t *, clockid_t, const struct timespec *) __attribute__((weak));
extern int pthread_clockjoin_np(pthread_t, void **, clockid_t, const struct timespec *)
    __attribute__((weak));
extern int pthread_timedjoin_np(pthread_t, void **, const struct timespec *) __attribute__((weak));

/* Wait for a permit until a time of the monotonic clock, which is now at now: 0, EINTR or ETIMEDOUT.
 * By the wall clock it may be too early, if that is set meanwhile. */
int nunc_stans_shim_sem_wait(sem_t *sem, const struct timespec *until, const struct timespec *now)
{
    if (sem_clockwait != NULL && !nunc_stans_shim_has_tsan()) {
        return sem_clockwait(sem, CLOCK_MONOTONIC, until) == 0 ? 0 : errno;
    }
    struct timespec at = by_wall_clock(until, now);
    return sem_timedwait(sem, &at) == 0 ? 0 : errno;
}
#endif

/* Join a thread until a time of the monotonic clock, which is now at now; where the system can't, until
 * it has ended. 0, ETIMEDOUT or another error. */
int nunc_stans_shim_join(pthread_t thread, const struct timespec *until, const struct timespec *now)
{
#ifdef __linux__
    if (pthread_clockjoin_np != NULL && !nunc_stans_shim_has_tsan()) {
        return pthread_clockjoin_np(thread, NULL, CLOCK_MONOTONIC, until);
    }
    if (pthread_timedjoin_np != NULL) {
        struct timespec at = by_wall_clock(until, now);
        return pthread_timedjoin_np(thread, NULL, &at);
    }
#else
    (void)by_wall_clock(until, now);
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
