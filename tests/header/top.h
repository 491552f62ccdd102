/* SPDX-License-Identifier: GPL-3.0-or-later */
/* With additional permission to link OpenSSL: see COPYING.openssl. */
/*
 * nunc-stans.h - hand events to threads
 *
 * Generated from the library's source. Do not edit.
 *
 * An application makes a pool: worker threads and one event-loop thread. From any thread it posts
 * jobs: a callback, and what triggers it (a descriptor, a time, a signal, or nothing: run now).
 * The callback of a job with NS_JOB_THREAD runs in a worker, that of any other in the loop, which
 * it blocks for as long as it takes. One job's callback never runs twice at once.
 *
 *     static void on_readable(struct ns_job_t *job)
 *     {
 *         struct connection *c = ns_job_get_data(job);
 *         if (serve(c, ns_job_get_output_type(job)))
 *             ns_job_rearm(job);        when the callback returns
 *         else
 *             ns_job_done(job);         closes the descriptor, calls the done callback
 *     }
 *
 *     ns_add_fd_job(tp, fd, NS_JOB_READ | NS_JOB_THREAD, on_readable, c, NULL);
 *
 * A job's life, in states that the functions below speak of:
 *
 *     WAITING        idle, the application's: rearm it, or finish with it
 *     NEEDS_ARM      rearmed while it runs: armed when the callback returns
 *     ARMED          queued, or waiting for its descriptor, time or signal
 *     RUNNING        its callback is executing
 *     NEEDS_DELETE   done or cancelled: no further callback; disposed of soon
 *     DELETED        its done callback is running, its memory is about to go
 *
 * A job is made WAITING (ns_create_job, NS_JOB_UNARMED) or ARMED (all others). An armed job may
 * fire, and even be gone, before the call that armed it has returned. When its callback returns
 * the job is WAITING, unless it was rearmed or finished with meanwhile, or has NS_JOB_PERSIST.
 *
 * Ownership. Finish with each job once: with ns_job_done, usually in its own callback, or with
 * ns_job_cancel, which ends an ARMED job too. A job that nobody finishes with stays idle. Once it is
 * finished with, the job belongs to the library, which closes its descriptor (unless it has
 * NS_JOB_PRESERVE_FD), calls its done callback once, and frees the job. After the call that finishes
 * with a job, use the job only in its own callback, until that returns, and in its done callback. A
 * callback may call both rearm and done: done wins. What a job's data points to always belongs to the
 * application, which may free it in the done callback. Below, "a live job" is one that is not finished
 * with.
 *
 * The end. Call ns_thrpool_shutdown, from any thread; then ns_thrpool_wait: when it returns, no job's
 * callback runs any more; then ns_job_done for each job that the application still has, armed or idle;
 * then ns_thrpool_destroy.
 *
 * Descriptors. Make them non-blocking: what was readable may be gone when a callback reads it, and a
 * callback that blocks holds up its worker, or the loop and all that waits for it. Call listen or
 * connect on a socket before you add its job: until then the kernel reports it as hung up, and the job
 * fires. A job fires for as long as its descriptor has an error, so read the error, and the error queue
 * too. It does not fire for urgent data alone. docs/NOTES.md, in the source, says more.
 *
 * Threads. Every function may be called from any thread, callbacks included; where one may not,
 * it says so. Only the wait functions (ns_job_wait, ns_job_timedwait, ns_group_wait,
 * ns_thrpool_wait) and ns_thrpool_destroy wait for a callback. What was written before a job was
 * armed is visible to its callback. What the callback wrote is visible to the done callback, and to
 * a thread that sees the job WAITING.
 *
 * Errors. A function that refuses says why in its result and, by name, in the log of its pool or,
 * where there is no pool, as ns_set_log tells; on any failure nothing has happened. No function
 * changes errno, is cut short by a signal, raises SIGPIPE, or is a cancellation point. Never call
 * one in a signal handler: see ns_add_signal_job.
 *
 * Times are given as a struct timeval, in microseconds of the monotonic clock. Nothing fires
 * early; how late is a matter of scheduling.
 */
#ifndef NS_THRPOOL_H
#define NS_THRPOOL_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/time.h>
#include <sys/types.h>

/* NSPR's header is included where it can be found; define NS_NO_NSPR to keep it out. Nothing below
 * depends on it: struct PRFileDesc is the same type either way. */
#if !defined(NS_NO_NSPR) && defined(__has_include)
#if __has_include(<nspr.h>)
#include <nspr.h>
#elif __has_include(<nspr/nspr.h>)
#include <nspr/nspr.h>
#elif __has_include(<nspr4/nspr.h>)
#include <nspr4/nspr.h>
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* The library's times have 32 bits where the C library's had before _TIME_BITS. In a program whose
 * times have 64 (_TIME_BITS=64, which some distributions set), the functions that take a struct timeval
 * are inline functions, defined below, that convert it. In structs of this header, a time is the
 * library's: set its fields. */
#if defined(__GLIBC__) && defined(__TIMESIZE) && __TIMESIZE == 32 && defined(__USE_TIME_BITS64)
#define NS_TIME32 1
struct ns_time32 {
    long tv_sec;
    long tv_usec;
};
#define timeval ns_time32
#endif

/** A pool: opaque. */
struct ns_thrpool_t;
typedef struct ns_thrpool_t ns_thrpool_t;

/** A job: opaque. */
struct ns_job_t;

/** NSPR's descriptor: opaque here. */
struct PRFileDesc;

/*
 * Job types
 *
 * What triggers a job, and how it runs: flags, or'ed together.
 */

/** Flags from NS_JOB_... */
typedef uint_fast16_t ns_job_type_t;
