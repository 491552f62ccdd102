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

/** No flag. */
#define NS_JOB_NONE 0
/** A listening descriptor has a connection to accept. Fires as NS_JOB_READ. Not with THREAD. */
#define NS_JOB_ACCEPT (1 << 0)
/** A connect that was begun has ended, well or not. Fires as NS_JOB_WRITE. */
#define NS_JOB_CONNECT (1 << 1)
/** The descriptor is readable, at its end, or in error. */
#define NS_JOB_READ (1 << 2)
/** The descriptor is writable, or in error. */
#define NS_JOB_WRITE (1 << 3)
/** A time has passed. */
#define NS_JOB_TIMER (1 << 4)
/** A signal arrived. */
#define NS_JOB_SIGNAL (1 << 5)
/** Armed again by itself whenever its callback returns, until it is finished with. */
#define NS_JOB_PERSIST (1 << 6)
/** The callback runs in a worker thread; without this flag, in the event-loop thread. */
#define NS_JOB_THREAD (1 << 7)
/** The descriptor stays open when the job is disposed of; without this flag it is closed. */
#define NS_JOB_PRESERVE_FD (1 << 8)
/** Of the library's own use; refused everywhere. */
#define NS_JOB_SHUTDOWN_WORKER (1 << 9)

/* Whether a type has a flag. */
#define NS_JOB_IS_ACCEPT(type) ((type) & NS_JOB_ACCEPT)
#define NS_JOB_IS_READ(type) ((type) & NS_JOB_READ)
#define NS_JOB_IS_CONNECT(type) ((type) & NS_JOB_CONNECT)
#define NS_JOB_IS_WRITE(type) ((type) & NS_JOB_WRITE)
#define NS_JOB_IS_TIMER(type) ((type) & NS_JOB_TIMER)
#define NS_JOB_IS_SIGNAL(type) ((type) & NS_JOB_SIGNAL)
#define NS_JOB_IS_PERSIST(type) ((type) & NS_JOB_PERSIST)
#define NS_JOB_IS_THREAD(type) ((type) & NS_JOB_THREAD)
#define NS_JOB_IS_PRESERVE_FD(type) ((type) & NS_JOB_PRESERVE_FD)
#define NS_JOB_IS_SHUTDOWN_WORKER(type) ((type) & NS_JOB_SHUTDOWN_WORKER)

/* Whether a type has any direction of a descriptor. */
#define NS_JOB_IS_IO(type) ((type) & (NS_JOB_ACCEPT | NS_JOB_READ | NS_JOB_CONNECT | NS_JOB_WRITE))

/* Give a flag to a variable of type ns_job_type_t, or take it away: these assign. */
#define NS_JOB_SET_READ(type) ((type) |= NS_JOB_READ)
#define NS_JOB_SET_WRITE(type) ((type) |= NS_JOB_WRITE)
#define NS_JOB_SET_THREAD(type) ((type) |= NS_JOB_THREAD)
#define NS_JOB_UNSET_READ(type) ((type) &= ~(ns_job_type_t)NS_JOB_READ)
#define NS_JOB_UNSET_WRITE(type) ((type) &= ~(ns_job_type_t)NS_JOB_WRITE)
#define NS_JOB_UNSET_THREAD(type) ((type) &= ~(ns_job_type_t)NS_JOB_THREAD)

/*
 * Results
 */

/**
 * Result of a call.
 *
 * The results after NS_DELETING are additions: macros, so that a switch over 0.2's results stays
 * complete. Define NS_EXTENDED_RESULTS before the include, in all files, to have them as
 * enumerators (for case NS_RUNNING, and for generators of bindings).
 */
#if defined(__cplusplus) && __cplusplus >= 201103L
enum _ns_result_t : unsigned int {
#else
enum _ns_result_t {
#endif
    /** Done, or accepted and certain to be done. */
    NS_SUCCESS = 0,
    /** The pool is shutting down (or belongs to the parent of this forked process). */
    NS_SHUTDOWN = 1,
    /** An allocation function of the pool returned NULL. Nothing happened. */
    NS_ALLOCATION_FAILURE = 2,
    /** An argument is wrong. The log names the function and the argument. Nothing happened. */
    NS_INVALID_REQUEST = 3,
    /** The job is not in a state that allows this call. Nothing happened. */
    NS_INVALID_STATE = 4,
    /** Threads could not be waited for, or a pool's own callback waits for the pool. */
    NS_THREAD_FAILURE = 5,
    /** The job is being disposed of, or the group is cancelled. */
    NS_DELETING = 6,
#ifdef NS_EXTENDED_RESULTS
    /** The time of ns_job_timedwait is up. */
    NS_TIMEOUT = 7,
    /** ns_job_cancel, ns_group_cancel: a run had begun on another thread. */
    NS_RUNNING = 8,
    /** Too many jobs wait already. Nothing happened. */
    NS_OVERLOADED = 9,
#endif
};

typedef enum _ns_result_t ns_result_t;

/*
 * Callbacks, and the config of a pool
 */

/**
 * How to make a pool. Initialise it with ns_thrpool_config_init, set what differs, pass it to
 * ns_thrpool_new. It is copied: the caller may drop it afterwards.
 */
struct ns_thrpool_config {
    /** Set by ns_thrpool_config_init; anything else is refused. */
    int32_t init_flag;
    /** Number of worker threads, at least 1. */
    size_t max_threads;
    /** Stack of each thread in bytes; 0: what pthread gives by default. */
    size_t stacksize;
    /**
     * Called as vsyslog(3) is, from any thread. NULL: syslog at LOG_LOCAL1. It may call the
     * getters of this header and nothing else of it.
     */
    void (*log_fct)(int, const char*, va_list);
    /** Called once, before the first message. Only with a log_fct. May be NULL. */
    void (*log_start_fct)(void);
    /**
     * Called once, after the last message: when the pool is destroyed, or could not be made.
     * Only with a log_fct. May be NULL.
     */
    void (*log_close_fct)(void);
    /** As malloc(3). Kept for compatibility: the library calls calloc_fct and free_fct only. */
    void *(*malloc_fct)(size_t);
    /** As memalign(3), but size first and alignment second. Kept for compatibility. */
    void *(*memalign_fct)(size_t, size_t);
    /**
     * As calloc(3); NULL: calloc. Set it and free_fct together. Called from any thread; it
     * must not call this library.
     */
    void *(*calloc_fct)(size_t, size_t);
    /** As realloc(3). Kept for compatibility. */
    void *(*realloc_fct)(void*, size_t);
    /** As free(3); NULL: free. As calloc_fct. */
    void (*free_fct)(void*);
};

/**
 * A job's callback. Called with the job; its data is at ns_job_get_data.
 *
 * It must return normally: no longjmp out of it, no pthread_exit, no C++ exception; and not in a
 * child that it forked, which is to call _exit or one of exec's functions.
 * No lock of the library is held while it runs, and it may call everything in this header on
 * its own job or any other, except ns_thrpool_wait and ns_thrpool_destroy on its own pool.
 */
typedef void (*ns_job_func_t)(struct ns_job_t *job);

/*
 * Pools
 */

/**
 * Set a config to its defaults: one worker, default stacks, libc's allocator, syslog.
 *
 * @param tp_config the config; NULL does nothing
 */
void ns_thrpool_config_init(struct ns_thrpool_config *tp_config);

/**
 * Make a pool: start its workers and its event-loop thread. They inherit the caller's signal
 * mask; the loop unblocks the signals that jobs watch.
 *
 * @param tp_config initialised by ns_thrpool_config_init, max_threads at least 1; copied
 * @return the pool, or NULL if the config is no good or memory, descriptors or threads are
 * exhausted: the log says which, and nothing is left behind. End it with
 * ns_thrpool_shutdown, ns_thrpool_wait and ns_thrpool_destroy.
 */
struct ns_thrpool_t *ns_thrpool_new(struct ns_thrpool_config *tp_config);

/**
 * Begin to end a pool. From now on adding and rearming return NS_SHUTDOWN and no job is armed
 * again. Run-now jobs that were queued before still run, except in a suspended group; then the
 * workers leave. Returns at once. Any thread, callbacks included; a second call does nothing.
 *
 * @param tp the pool; NULL does nothing
 */
void ns_thrpool_shutdown(struct ns_thrpool_t *tp);

/**
 * Whether ns_thrpool_shutdown was called. Any thread.
 *
 * @param tp the pool
 * @return 1 or 0; 1 in a forked child; 0 for NULL
 */
int32_t ns_thrpool_is_shutdown(struct ns_thrpool_t *tp);

/**
 * Wait until a pool has stopped: somebody has called ns_thrpool_shutdown, every worker has
 * left, and from now on no job's callback runs (done callbacks do). The application may then
 * free what its callbacks used. Does not itself begin the shutdown. Any thread but the pool's
 * own; several at once; again later.
 *
 * @param tp the pool
 * @return NS_SUCCESS; NS_THREAD_FAILURE if a worker could not be joined, or, at once, from one
 * of the pool's own threads; NS_SHUTDOWN in a forked child; NS_INVALID_REQUEST for NULL
 */
ns_result_t ns_thrpool_wait(struct ns_thrpool_t *tp);

/**
 * End a pool and free it. Shuts down first, if nobody has, and waits as ns_thrpool_wait does:
 * for callbacks that run, and for run-now jobs that are queued. Then it disposes of every job that
 * is armed (closes its descriptor, runs its done callback) and of all that was done, and waits for
 * these done callbacks, for the end of the pool's threads, and for the threads that are blocked in
 * a wait for a job or a group, which it releases. Jobs that are WAITING and in no group belong to the
 * application: call ns_job_done on them before, since this function does not dispose of them and
 * they leak; the log says, at LOG_WARNING, how many and of which callbacks. It disposes of every job
 * that is in a group, WAITING ones too, and ends every group. When this call begins, no other
 * call on the pool, its jobs or its groups may be under way, except waits and calls in callbacks,
 * and none may begin later. (A call that made a callback run may not have returned when the
 * callback does.) The pool, its jobs and its groups are gone when it returns. Not from the pool's
 * own threads: logged, and nothing happens. In a forked child it closes the pool's descriptors and
 * nothing else.
 *
 * @param tp the pool; NULL does nothing
 */
void ns_thrpool_destroy(struct ns_thrpool_t *tp);

/*
 * Jobs
 */

/**
 * Make a job without arming it, so that its data and done callback can be set first; then arm it
 * with ns_job_rearm. Its data is NULL until ns_job_set_data. Run-now jobs and timers of time
 * zero only; for all others see NS_JOB_UNARMED.
 *
 * @param tp the pool
 * @param job_type NS_JOB_TIMER for one that fires at the loop's next turn after it is armed,
 * else a run-now job; with THREAD, PERSIST
 * @param func the callback
 * @param job where the job is written; must not be NULL
 * @return NS_SUCCESS, NS_SHUTDOWN, NS_ALLOCATION_FAILURE or NS_INVALID_REQUEST; if not the
 * first, *job is NULL and nothing happened
 */
ns_result_t ns_create_job(struct ns_thrpool_t *tp,
                          ns_job_type_t job_type,
                          ns_job_func_t func,
                          struct ns_job_t **job);

/**
 * Make a job that needs no descriptor, time or signal, and arm it. With NS_JOB_TIMER it fires in
 * the loop's next turn; else it is a run-now job: with THREAD it goes straight to the workers,
 * without to the loop. Run-now jobs start in the order in which one thread adds them. With
 * PERSIST it runs again and again, behind others, until it is finished with. A job that its
 * callback does not finish with stays, idle, and can be armed again.
 *
 * @param tp the pool
 * @param job_type THREAD, PERSIST, TIMER
 * @param func the callback
 * @param data for ns_job_get_data; the application's own
 * @param job where the job is written before it can run; may be NULL
 * @return NS_SUCCESS, NS_SHUTDOWN, NS_ALLOCATION_FAILURE or NS_INVALID_REQUEST; NS_OVERLOADED if the
 * pool has a queue_limit and so many jobs wait for workers; if not the first, *job is NULL and nothing happened
 */
ns_result_t ns_add_job(struct ns_thrpool_t *tp,
                       ns_job_type_t job_type,
                       ns_job_func_t func,
                       void *data,
                       struct ns_job_t **job);

/**
 * Make a job for an NSPR descriptor and arm it. It fires once when the descriptor is ready in a
 * direction that it asks for, or was when it was armed; with PERSIST again after each return.
 * Without PRESERVE_FD the descriptor is the job's: PR_Close is called when the job is disposed
 * of. Several jobs may watch one descriptor.
 *
 * @param tp the pool
 * @param fd an open NSPR descriptor over one of the system's; see "Descriptors" above
 * @param job_type at least one of ACCEPT, CONNECT, READ, WRITE; with THREAD (not with ACCEPT),
 * PERSIST, PRESERVE_FD
 * @param func the callback; ns_job_get_output_type tells it what fired
 * @param data for ns_job_get_data; the application's own
 * @param job where the job is written before it can run; may be NULL
 * @return NS_SUCCESS, NS_SHUTDOWN, NS_ALLOCATION_FAILURE or NS_INVALID_REQUEST; if not the
 * first, *job is NULL, the descriptor is open and still the caller's, and nothing happened
 */
ns_result_t ns_add_io_job(struct ns_thrpool_t *tp,
                          struct PRFileDesc *fd,
                          ns_job_type_t job_type,
                          ns_job_func_t func,
                          void *data,
                          struct ns_job_t **job);

/**
 * Make a job for a time and arm it. It fires when the time has passed, never before; with
 * PERSIST again and again, each time counted from the callback's return.
 *
 * @param tp the pool
 * @param tv from now; zero is the loop's next turn; tv_usec may exceed 999999; not negative
 * @param job_type THREAD, PERSIST; TIMER is implied; see NS_JOB_CADENCE for times that do not drift
 * @param func the callback
 * @param data for ns_job_get_data; the application's own
 * @param job where the job is written before it can run; may be NULL
 * @return NS_SUCCESS, NS_SHUTDOWN, NS_ALLOCATION_FAILURE or NS_INVALID_REQUEST; if not the
 * first, *job is NULL and nothing happened
 */
ns_result_t ns_add_timeout_job(struct ns_thrpool_t *tp,
                               struct timeval *tv,
                               ns_job_type_t job_type,
                               ns_job_func_t func,
                               void *data,
                               struct ns_job_t **job);

/**
 * As ns_add_io_job, with a time-out: whichever comes first fires, alone. The output type is
 * then NS_JOB_TIMER and nothing else, or directions and no TIMER. Each arming starts the full
 * time afresh.
 *
 * @param tp the pool
 * @param fd an open NSPR descriptor over one of the system's
 * @param tv the time-out; zero for none; not negative
 * @param job_type as for ns_add_io_job; TIMER is implied
 * @param func the callback
 * @param data for ns_job_get_data; the application's own
 * @param job where the job is written before it can run; may be NULL
 * @return as ns_add_io_job
 */
ns_result_t ns_add_io_timeout_job(struct ns_thrpool_t *tp,
                                  struct PRFileDesc *fd,
                                  struct timeval *tv,
                                  ns_job_type_t job_type,
                                  ns_job_func_t func,
                                  void *data,
                                  struct ns_job_t **job);

/**
 * Make a job for a signal and arm it. It fires once for what has arrived since it was made or
 * last fired, however much that was: signals coalesce. Without PERSIST the signal stays caught
 * after the first firing, until the job is finished with, and what arrives meanwhile fires the
 * job when it is armed again. While a job watches a signal, the handler that was there before
 * does not run; with the last job for it that one is put back. Several jobs, in several pools,
 * may watch one signal: all fire.
 *
 * @param tp the pool
 * @param signum not SIGKILL or SIGSTOP, not one that the running code raises by itself (SIGILL,
 * SIGFPE, SIGSEGV, SIGBUS, SIGTRAP, SIGSYS), not one of the C library's own
 * @param job_type THREAD, PERSIST; SIGNAL is implied
 * @param func the callback, in an ordinary thread and free to do what it likes
 * @param data for ns_job_get_data; the application's own
 * @param job where the job is written before it can run; may be NULL
 * @return NS_SUCCESS, NS_SHUTDOWN, NS_ALLOCATION_FAILURE or NS_INVALID_REQUEST; if not the
 * first, *job is NULL and nothing happened
 */
ns_result_t ns_add_signal_job(struct ns_thrpool_t *tp,
                              int32_t signum,
                              ns_job_type_t job_type,
                              ns_job_func_t func,
                              void *data,
                              struct ns_job_t **job);

/**
 * Arm a job again: the same trigger, its time started afresh. Inside the job's callback, or
 * while it runs, it takes effect when the callback returns. Any thread.
 *
 * @param job a live job, WAITING or RUNNING
 * @return NS_SUCCESS; NS_SHUTDOWN; NS_INVALID_STATE if it is armed, has been rearmed already or is
 * finished with, or runs and has PERSIST; NS_INVALID_REQUEST for NULL
 */
ns_result_t ns_job_rearm(struct ns_job_t *job);

/**
 * Finish with a job. The library disposes of it soon: it closes the job's descriptor, unless the job has
 * PRESERVE_FD, calls its done callback, and frees it. If the job's callback is running, that happens when
 * the callback returns. An armed job is refused until the pool is shutting down: use ns_job_cancel
 * for it. Any thread; never waits. On success the job belongs to the library: after that use it only in
 * its own callback and its done callback.
 *
 * @param job a live job, or, in its callbacks, one that is finished with
 * @return NS_SUCCESS, also if it is finished with already; NS_INVALID_STATE if it is armed;
 * NS_SHUTDOWN in a forked child; NS_INVALID_REQUEST for NULL
 */
ns_result_t ns_job_done(struct ns_job_t *job);

/**
 * Block until a job is idle. Any number of threads. Nobody may finish with the job until the
 * waiting thread is inside this call; then anybody may. It can't wait in the pool's loop thread,
 * in the job's own callback or, if the job is in a group of width 1, in a callback of that group.
 * In a callback in one of the pool's workers the wait ends when the pool shuts down, because the
 * shutdown waits for the workers. A worker that waits here runs no other job: if all workers wait for
 * jobs that are queued for workers, none of these jobs runs.
 *
 * @param job a live job
 * @return NS_SUCCESS when it is WAITING; NS_DELETING when it is being disposed of; NS_SHUTDOWN
 * when the pool has stopped and it can no longer run (in a worker of the pool: when it shuts
 * down), or in a forked child; NS_INVALID_STATE from the loop thread, the job's own callback or a
 * callback of the group of width 1 that it is in, unless it is WAITING; NS_INVALID_REQUEST for
 * NULL
 */
ns_result_t ns_job_wait(struct ns_job_t *job);

/**
 * The application's pointer. Any thread, any state.
 *
 * @param job a live job
 * @return what was set last; NULL for NULL
 */
void *ns_job_get_data(struct ns_job_t *job);

/**
 * Replace the application's pointer, at once. Any thread.
 *
 * @param job a live job, WAITING or RUNNING
 * @param data the application's own; the old one is not touched
 * @return NS_SUCCESS; NS_INVALID_STATE if it is in another state; NS_SHUTDOWN in a forked child;
 * NS_INVALID_REQUEST for NULL
 */
ns_result_t ns_job_set_data(struct ns_job_t *job,
                            void *data);

/**
 * Set the done callback: called exactly once when the job is disposed of, after its last run and
 * after its descriptor was closed, in the loop or in a worker. A close that may block, of a socket
 * with SO_LINGER, is left to a worker, and waits for one. The callback may call the getters; the
 * job is gone when it returns. To set it before the job can run, make the job with NS_JOB_UNARMED
 * or ns_create_job. Any thread.
 *
 * @param job a live job, WAITING or RUNNING
 * @param func the done callback; NULL for none
 * @return NS_SUCCESS; NS_INVALID_STATE if it is in another state; NS_SHUTDOWN in a forked child;
 * NS_INVALID_REQUEST for NULL
 */
ns_result_t ns_job_set_done_cb(struct ns_job_t *job,
                               ns_job_func_t func);

/**
 * The flags that the job was made with, and those that were implied. Any thread, any state.
 *
 * @param job a live job
 * @return NS_JOB_... flags; 0 for NULL
 */
ns_job_type_t ns_job_get_type(struct ns_job_t *job);

/**
 * What fired, for the length of the callback: READ and WRITE (ACCEPT counts as READ, CONNECT as
 * WRITE), or TIMER, or SIGNAL. Any thread.
 *
 * @param job a live job
 * @return NS_JOB_... flags; 0 outside the callback, for run-now jobs and for NULL
 */
ns_job_type_t ns_job_get_output_type(struct ns_job_t *job);

/**
 * The pool that a job belongs to. Any thread, any state.
 *
 * @param job a live job
 * @return its pool; NULL for NULL
 */
struct ns_thrpool_t *ns_job_get_tp(struct ns_job_t *job);

/**
 * The NSPR descriptor that a job was made with. Any thread, any state.
 *
 * @param job a live job
 * @return the same pointer; NULL if it has none, and for NULL
 */
struct PRFileDesc *ns_job_get_fd(struct ns_job_t *job);

/**
 * Whether a job has this callback. Any thread, any state.
 *
 * @param job a live job
 * @param func a callback
 * @return 1 or 0; 0 if either is NULL
 */
int ns_job_is_func(struct ns_job_t *job, ns_job_func_t func);

/*
 * Additions
 *
 * What follows is not in 0.2 of the original. A program that uses none of it still builds and runs
 * there.
 */

/** Defined if the header has what follows. */
#define NS_EXTENSIONS 1
/** The version of the header: major. */
#define NS_VERSION_MAJOR 0
/** The version of the header: minor. */
#define NS_VERSION_MINOR 2
/** The version of the header: patch. */
#define NS_VERSION_PATCH 0
/**
 * A flag on any of the adding functions: the job is made with all that it was given but left
 * WAITING, so that its done callback can be set before ns_job_rearm arms it. The job argument
 * must then not be NULL. Not shown by ns_job_get_type.
 */
#define NS_JOB_UNARMED (1 << 10)
/**
 * A flag for ns_add_timeout_job, with PERSIST and a time that is not zero: the n-th firing is due n
 * intervals after the job was armed, however long its callback takes. If firings were missed, one firing
 * makes up for all of them.
 */
#define NS_JOB_CADENCE (1 << 11)

/* The results that 0.2 does not have. See enum _ns_result_t for NS_EXTENDED_RESULTS. #ifdef works
 * either way. */
#ifndef NS_EXTENDED_RESULTS
/** The time of ns_job_timedwait is up. */
#define NS_TIMEOUT ((ns_result_t)7)
/** ns_job_cancel, ns_group_cancel: a run had begun on another thread. */
#define NS_RUNNING ((ns_result_t)8)
/** Too many jobs wait already. Nothing happened. */
#define NS_OVERLOADED ((ns_result_t)9)
#else
#define NS_TIMEOUT NS_TIMEOUT
#define NS_RUNNING NS_RUNNING
#define NS_OVERLOADED NS_OVERLOADED
#endif

/**
 * The version of the library that is loaded, as "0.2.0".
 *
 * @return a string that stays valid while the library is loaded
 */
const char *ns_version(void);

/**
 * As ns_add_io_job, for a plain descriptor, which is closed with close(2) when the job is
 * disposed of, unless it has PRESERVE_FD.
 *
 * @param tp the pool
 * @param fd an open descriptor; see "Descriptors" above
 * @param job_type at least one of ACCEPT, CONNECT, READ, WRITE; with THREAD (not with ACCEPT),
 * PERSIST, PRESERVE_FD
 * @param func the callback
 * @param data for ns_job_get_data; the application's own
 * @param job where the job is written before it can run; may be NULL
 * @return as ns_add_io_job
 */
ns_result_t ns_add_fd_job(struct ns_thrpool_t *tp,
                          int fd,
                          ns_job_type_t job_type,
                          ns_job_func_t func,
                          void *data,
                          struct ns_job_t **job);

/**
 * As ns_add_io_timeout_job, for a plain descriptor.
 *
 * @param tp the pool
 * @param fd an open descriptor
 * @param tv the time-out; zero for none; not negative
 * @param job_type as for ns_add_fd_job; TIMER is implied
 * @param func the callback
 * @param data for ns_job_get_data; the application's own
 * @param job where the job is written before it can run; may be NULL
 * @return as ns_add_io_job
 */
ns_result_t ns_add_fd_timeout_job(struct ns_thrpool_t *tp,
                                  int fd,
                                  struct timeval *tv,
                                  ns_job_type_t job_type,
                                  ns_job_func_t func,
                                  void *data,
                                  struct ns_job_t **job);

/**
 * The system's descriptor of an I/O job, NSPR's or plain. Any thread, any state.
 *
 * @param job a live job
 * @return the descriptor; -1 if it has none, and for NULL
 */
int ns_job_get_native_fd(struct ns_job_t *job);

/**
 * Finish with a job in any state, armed or not. Any thread, any time; never waits. As after
 * ns_job_done, the job belongs to the library, which closes its descriptor, unless it has
 * PRESERVE_FD, and calls its done callback.
 *
 * @param job a live job
 * @return NS_SUCCESS: no run is in progress and none will start (also from the job's own
 * callback), so what its callback uses may be freed; NS_RUNNING: a run had begun on another
 * thread, and the job is disposed of when that returns: free in the done callback. NS_SHUTDOWN in
 * a forked child; NS_INVALID_REQUEST for NULL
 */
ns_result_t ns_job_cancel(struct ns_job_t *job);

/**
 * As ns_job_wait, but with a time limit.
 *
 * @param job a live job
 * @param tv how long; not negative
 * @return as ns_job_wait; NS_TIMEOUT when the time is up, also if it is zero; NS_INVALID_REQUEST
 * also if tv is NULL or negative
 */
ns_result_t ns_job_timedwait(struct ns_job_t *job,
                             const struct timeval *tv);

/**
 * Say where messages go that have no pool: those of calls with a NULL pool or job, and of a
 * ns_thrpool_new that fails and whose config has no log_fct. One place for the whole process.
 * Before this is called, and after a call with NULL, it is syslog at LOG_LOCAL1 and, where there
 * is no /dev/log (in a container), the standard error output as well.
 *
 * text is called by the thread whose call is refused, by several threads at once, with arg, a
 * priority as in syslog.h, and one line, which names the function and ends in a newline. It has
 * to return. It may call the getters of this header, and this function; if what it calls is
 * refused, that is not logged.
 *
 * When this returns, no other thread is in the function that was set before, nor will be: its
 * arg may be freed. For that it waits until every thread has left that is in such a function, the
 * old or the new, so do not call it with a lock that they may want. It does not wait when it is
 * called in a logger, nor, in a forked child, for what was going on before the fork. Any thread.
 *
 * @param text the function; NULL for none
 * @param arg for text; the application's own
 */
void ns_set_log(void (*text)(void *arg, int priority, const char *message),
                void *arg);

/**
 * As ns_job_rearm, but the job begins to watch for its trigger only after a delay. The delay begins when
 * the callback returns if this is called in the callback, otherwise with this call. So a listener can pause
 * when the process has run out of descriptors: ns_job_rearm_after(job, &tenth). The delay applies to this
 * arming only. During the delay the job is armed, and can be cancelled. A time-out or a timer's time begins
 * at the end of the delay; signals that arrive during it fire the job at its end. Unlike with
 * ns_job_rearm, a PERSIST job may be rearmed in its own callback: this delays its next arming. Any thread.
 *
 * @param job a live job with a trigger, WAITING or RUNNING
 * @param tv the delay; not negative
 * @return NS_SUCCESS; NS_SHUTDOWN; NS_INVALID_STATE if it is armed, has been rearmed already or is
 * finished with, or has PERSIST and runs and this is not its callback; NS_INVALID_REQUEST for a
 * run-now job, for NULL and for a negative tv
 */
ns_result_t ns_job_rearm_after(struct ns_job_t *job,
                               const struct timeval *tv);

/**
 * As ns_job_rearm, but from now on for other directions, or with another time. So one job can serve
 * a connection that reads first and writes next: ns_job_rearm_for(job, NS_JOB_WRITE, NULL). From this
 * call on ns_job_get_type shows the new flags: TIMER too, if a descriptor now has a time-out. Unlike
 * with ns_job_rearm, a PERSIST job may be rearmed in its own callback. Any thread.
 *
 * @param job a live job for a descriptor or a time, WAITING or RUNNING
 * @param directions READ, WRITE, CONNECT, which replace those that it had; 0: as before, and the
 * only choice for a timer
 * @param tv for a descriptor, the time-out (zero: none); for a timer, its time (zero: the next turn of
 * the loop); NULL: as before; not negative
 * @return NS_SUCCESS; NS_SHUTDOWN; NS_INVALID_STATE as ns_job_rearm_after; NS_INVALID_REQUEST for a
 * run-now or signal job, for NULL, for other flags, for directions without a descriptor, for a negative
 * tv, and for a tv of zero with NS_JOB_CADENCE
 */
ns_result_t ns_job_rearm_for(struct ns_job_t *job,
                             ns_job_type_t directions,
                             const struct timeval *tv);

/**
 * Make many run-now jobs for workers at once, and arm them: all or none, in order. It wakes as many
 * workers as there is work for, and takes less time than so many calls of ns_add_job.
 *
 * @param tp the pool
 * @param job_type THREAD, which must be there; PERSIST, UNARMED
 * @param func the callback of each
 * @param n how many; 0 does nothing
 * @param data n pointers for ns_job_get_data, one for each job; NULL: NULL for each
 * @param jobs where n jobs are written before the first can run; may be NULL, but not with UNARMED
 * @return NS_SUCCESS, NS_SHUTDOWN, NS_ALLOCATION_FAILURE or NS_INVALID_REQUEST; NS_OVERLOADED if the
 * pool has a queue_limit and so many jobs wait for workers already. If not the first, all of jobs are
 * NULL and nothing happened
 */
ns_result_t ns_add_jobs(struct ns_thrpool_t *tp,
                        ns_job_type_t job_type,
                        ns_job_func_t func,
                        size_t n,
                        void *const *data,
                        struct ns_job_t **jobs);

/**
 * The name of a result, as this header spells it. Any thread; async-signal-safe.
 *
 * @param result a result
 * @return "NS_SUCCESS" and so on; "unknown result" for any other number. Never NULL; valid as long as
 * the library is loaded
 */
const char *ns_result_name(ns_result_t result);

/**
 * What a result says, for people. Any thread; async-signal-safe.
 *
 * @param result a result
 * @return a sentence without capital and full stop; "unknown result" for any other number. Never NULL;
 * valid as long as the library is loaded
 */
const char *ns_result_message(ns_result_t result);

/**
 * As ns_thrpool_wait, but with a time limit. Unlike all other waits, it may return NS_TIMEOUT early
 * when a signal handler has run in the calling thread. So an interpreter can handle its own signals
 * between two calls.
 *
 * @param tp the pool
 * @param tv how long to wait at most; not negative
 * @return as ns_thrpool_wait; NS_TIMEOUT when the time is up; NS_INVALID_REQUEST also if tv is NULL
 * or negative
 */
ns_result_t ns_thrpool_timedwait(struct ns_thrpool_t *tp,
                                 const struct timeval *tv);

/*
 * Options of a pool
 *
 * In addition to its config, a pool can have options. Later versions may add more:
 *
 *     struct ns_thrpool_options options;
 *     ns_thrpool_options_init(&options, sizeof options);
 *     options.name = "ldap";
 *     options.queue_limit = 1000;
 *     tp = ns_thrpool_new_with(&config, &options);
 *
 * Overload. queue_limit limits how many armed run-now jobs with NS_JOB_THREAD may wait for workers. When so
 * many wait, adding another returns NS_OVERLOADED and has no effect: a daemon can answer "busy" instead of
 * running out of memory. The refusal is logged at LOG_DEBUG. What waits in groups does not count: see
 * ns_group_set_limit. The queue may exceed the limit by as many jobs as there are threads that add at that
 * moment. The limit never refuses a job that fires, a job that is armed again (the first rearm of an unarmed
 * job included), or a job that a worker of the pool adds in a callback. It may refuse what a callback in
 * the loop adds, because that is where daemons take requests in.
 *
 * Environment. NUNC_STANS_FRAMEWORK names the event framework of each pool that has no options or whose
 * options name none. Privileged programs (setuid, file capabilities) and pools with NS_POOL_CALLER_LOOP
 * ignore it. An empty value counts as unset.
 */

struct ns_slow_call;

/** A flag for the options: start no loop thread; see "The loop in the caller's thread". */
#define NS_POOL_CALLER_LOOP (1 << 0)
/**
 * A flag for the options: measure times for the statistics too: how long jobs wait, how long callbacks
 * take, how late timers are, how long the loop sleeps. Each job then takes 8 more bytes, and the pool
 * reads the clock two or three times for each callback.
 */
#define NS_POOL_TIMINGS (1 << 1)

/** A flag for watch: report the descriptor once, and then not until it is watched again. */
#define NS_FRAMEWORK_ONCE 1
/** A flag for watch: the descriptor is already being watched. */
#define NS_FRAMEWORK_KNOWN 2

/** An event: a descriptor is ready. */
struct ns_framework_event {
    /** The key that the descriptor is watched with. */
    uint64_t key;
    /** NS_JOB_READ, NS_JOB_WRITE or both. Report an error or a hang-up as both. */
    uint32_t ready;
};

/**
 * An event framework of the application's own, for ns_thrpool_options. The pool watches descriptors
 * through it, and waits with it. examples/framework-poll.c runs a pool over poll(2).
 *
 * All functions but wait_fd are required; arg may be NULL. The pool copies the struct and its
 * name. It calls the functions from its loop thread, one at a time. It also calls open and close
 * from the threads that make and destroy the pool, and close in a forked child. The functions must
 * not call functions of this library on the pool.
 *
 * The pool watches the library's own descriptors, such as the pipe that wakes the loop, in the same
 * way. An event for a descriptor that is not ready does no harm, nor does one with an earlier key. The
 * library verifies each event. So a framework may watch descriptor numbers, as poll(2) does, and need
 * not notice that a number was closed or reused.
 */
struct ns_framework {
    /** sizeof(struct ns_framework). Members are only ever added at the end. */
    size_t size;
    /** The name, which ns_thrpool_get_framework returns. Not NULL, not empty. */
    const char *name;
    /** The argument of open; the application's own. What it points to must outlive the pool. */
    void *arg;
    /**
     * Make a context. The other functions get it as fw. If it is NULL, no pool is made. The pool
     * also calls this when it has to start over with a new context: when wait fails, when the pool's
     * own descriptors were closed, and when a file may live on although its number was closed. Then it
     * opens the new context before it closes the old one.
     */
    void *(*open)(void *arg);
    /**
     * Watch fd. With NS_FRAMEWORK_KNOWN it is watched already: change how. interest has
     * NS_JOB_READ and NS_JOB_WRITE bits; if it has none, report nothing. Events carry key; a later
     * call may change it. Returns 0 or an errno: EPERM if fd cannot be watched because it is always
     * ready, as regular files are; ENOENT if NS_FRAMEWORK_KNOWN was given but fd is no longer
     * watched; EBADF if it is closed. After any other errno the pool logs it and tries again, at
     * growing intervals.
     */
    int (*watch)(void *fw, int fd, uint64_t key, int interest, int flags);
    /**
     * Stop watching fd. It may already be closed. Returns 0 or an errno; the pool does nothing about
     * an errno.
     */
    int (*unwatch)(void *fw, int fd);
    /**
     * Wait until something is ready or the monotonic clock reaches until, in nanoseconds. If until
     * is 0, do not wait; if it is -1, wait without limit. Write at most max events and return their
     * number. A signal must interrupt the wait; then return 0 if nothing is ready. If more than max
     * descriptors are ready, report them in turn. Return -1 and set errno if waiting fails: the pool
     * then starts over with open.
     */
    int (*wait)(void *fw, struct ns_framework_event *events, int max, int64_t until);
    /**
     * Return a descriptor that polls readable when wait would find something ready, or -1. May be
     * NULL.
     */
    int (*wait_fd)(void *fw);
    /**
     * Free the context. If in_child is 1, this is a forked child, and its parent still uses its own
     * copy of the context: do nothing that affects the parent (with epoll: no epoll_ctl), and do not
     * rely on a lock that the parent's loop thread may have held. The pool does not call this if the
     * application has closed the pool's own descriptors: those of the context may be closed too, and
     * their numbers reused for other files.
     */
    void (*close)(void *fw, int in_child);
};

/**
 * Options of a pool, in addition to its config. Initialize the struct with ns_thrpool_options_init,
 * set the fields that differ from the defaults, and pass it to ns_thrpool_new_with. The pool copies
 * the struct and its strings.
 */
struct ns_thrpool_options {
    /**
     * The size of this struct in the program that fills it in, set by ns_thrpool_options_init. Fields
     * are only ever added at the end. A field that the program does not know has its default; one that
     * the library does not know must be zero.
     */
    size_t size;
    /** NS_POOL_... flags, or'ed together. */
    uint64_t flags;
    /**
     * The prefix of the names of the pool's threads, 1 to 8 characters: NAME-loop, NAME-worker. NULL
     * means "ns".
     */
    const char *name;
    /**
     * The event framework that the pool runs over: "native" (epoll and timerfd on Linux), "portable"
     * (only the polling crate), "libevent", "libevent:epoll", "libevent:poll", "libevent:select",
     * "tevent", which is "tevent:standard", or "tevent:poll". The library loads libevent or tevent when
     * a pool asks for it. If it is missing or lacks a function, no pool is made, and the log names it.
     * If this and custom are NULL, the environment variable NUNC_STANS_FRAMEWORK decides, or else the
     * pool is native. An empty variable counts as unset, and privileged programs (setuid, file
     * capabilities) ignore it. docs/FRAMEWORKS.md says what each framework costs, and how they differ.
     */
    const char *framework;
    /**
     * An event framework of the application's own, on Linux; then framework must be NULL. The pool
     * copies it.
     */
    const struct ns_framework *custom;
    /**
     * How many run-now jobs with NS_JOB_THREAD, outside groups, may wait for workers. When so many wait,
     * adding another returns NS_OVERLOADED. 0 means no limit. See "Overload".
     */
    size_t queue_limit;
    /**
     * Report callbacks and done callbacks of jobs that run longer than this: once while the callback is
     * still running, and once when it has returned. Zero reports none. For this the pool has an
     * additional thread, NAME-watch, and reads the clock twice for each callback. A time below a
     * millisecond counts as one millisecond.
     */
    struct timeval slow;
    /**
     * Called with each of these reports, in the thread NAME-watch, which is one of the pool's own
     * threads. Its argument is valid during the call. If it is NULL, the reports go to the log, at
     * LOG_WARNING.
     */
    void (*slow_fct)(const struct ns_slow_call *call);
    /**
     * Called first in each thread that the pool starts, with thread_arg and the thread's name: for
     * example to attach the thread to a language's runtime, or to pin it to a processor. May be NULL.
     */
    void (*thread_start_fct)(void *arg, const char *name);
    /**
     * Called last in each thread that the pool starts. ns_thrpool_wait returns after these calls in
     * the workers have returned, and ns_thrpool_destroy after that in the loop thread. May be NULL.
     */
    void (*thread_end_fct)(void *arg, const char *name);
    /** The argument of these two functions; the application's own. */
    void *thread_arg;
};

/**
 * Set options to their defaults, which are those of ns_thrpool_new.
 *
 * @param options the options; NULL does nothing
 * @param size sizeof *options; if it is smaller than a size_t, the call does nothing
 */
void ns_thrpool_options_init(struct ns_thrpool_options *options, size_t size);

/**
 * Make a pool, as ns_thrpool_new does, with options.
 *
 * @param tp_config as for ns_thrpool_new
 * @param options initialized by ns_thrpool_options_init; copied; NULL for none
 * @return the pool, or NULL, as ns_thrpool_new; NULL also if an option is wrong, unknown, or not
 * available in this version: the log says which
 */
struct ns_thrpool_t *ns_thrpool_new_with(struct ns_thrpool_config *tp_config,
                                         const struct ns_thrpool_options *options);

/**
 * Get the name of the event framework that a pool runs over. Any thread; in a forked child too.
 *
 * @param tp the pool
 * @return the name, as it was requested, valid as long as the pool; NULL for NULL
 */
const char *ns_thrpool_get_framework(struct ns_thrpool_t *tp);

/*
 * The loop in the caller's thread
 *
 * A pool that is made with NS_POOL_CALLER_LOOP starts no loop thread. Instead, a thread of the application
 * acts as the loop while it is inside ns_thrpool_run or ns_thrpool_turn, and callbacks without
 * NS_JOB_THREAD run there. So a pool can live in another event loop (GLib, libuv, Qt, libevent), or serve a
 * language whose callbacks must all come on one thread:
 *
 *     options.flags = NS_POOL_CALLER_LOOP;
 *     tp = ns_thrpool_new_with(&config, &options);
 *     watch(ns_thrpool_get_wait_fd(tp), READABLE, on_ready);
 *
 *     void on_ready(void) { ns_thrpool_turn(tp, &zero); }
 *
 * A thread with nothing else to do can call ns_thrpool_run instead, which returns when the pool has
 * stopped.
 *
 * Who is the loop. Whatever this header says of "the loop thread" applies to the thread that is inside one
 * of these calls. While no thread is inside, work for the loop waits. Different threads may be the loop one
 * after the other; each sees what the one before wrote. For ns_job_wait and the other waits, the thread that
 * was last inside counts as the loop thread: there they return NS_INVALID_STATE, because they would wait for
 * work that only this thread could run.
 *
 * Threads. The library does not touch the caller's signal mask and thread name, and does not call
 * thread_start_fct and thread_end_fct for it. A signal that a job watches must be unblocked in some thread.
 * max_threads may be 0: then the pool starts no thread at all, and adding a job with NS_JOB_THREAD returns
 * NS_INVALID_REQUEST. The loop then also does closes that linger. A callback must not end the thread
 * (pthread_exit): the process would end.
 *
 * The end. Before the shutdown, ns_thrpool_wait only waits. After the shutdown (also if that comes during
 * the wait) it acts as the loop itself until the pool has stopped, if its caller was the last thread inside,
 * if no thread ever was inside, or if the thread that was last inside has ended. If several threads wait,
 * one of them is the loop. In all other cases ns_thrpool_wait waits for the thread that was last inside to
 * go on turning the pool. ns_thrpool_destroy acts as the loop whichever thread calls it; it first waits for
 * a thread that is inside. So a thread that calls shutdown, wait and destroy without another turn does not
 * hang. Once ns_thrpool_turn has returned NS_SHUTDOWN, the wait descriptor is readable only for jobs and
 * groups that were finished with. Stop watching it before ns_thrpool_destroy, which closes it.
 *
 * Pools with this flag ignore NUNC_STANS_FRAMEWORK: they are native unless their options say otherwise.
 */

/**
 * Act as the loop of a pool that was made with NS_POOL_CALLER_LOOP, until the pool has stopped: somebody
 * has called ns_thrpool_shutdown, every worker has left, and from now on no job's callback runs. Any
 * thread may call this, except one that is in a callback of the pool. Cancellation is disabled during
 * the call.
 *
 * @param tp the pool
 * @return NS_SUCCESS; NS_THREAD_FAILURE if a worker could not be joined; NS_INVALID_STATE, at once, on a
 * pool without the flag, in a callback of the pool (also an outer one on the thread's stack), and while
 * another thread is the loop; NS_SHUTDOWN in a forked child; NS_INVALID_REQUEST for NULL
 */
ns_result_t ns_thrpool_run(struct ns_thrpool_t *tp);

/**
 * Act as the loop of a pool that was made with NS_POOL_CALLER_LOOP for one turn: wait until there is
 * something to do, and do it. The work of one turn is bounded; what it leaves over is for the next. Any
 * thread may call this, except one that is in a callback of the pool. Different threads may take
 * different turns. Cancellation is disabled during the call.
 *
 * @param tp the pool
 * @param tv how long to wait at most: zero does not wait, NULL waits without limit; not negative
 * @return NS_SUCCESS if there was something to do, for the application or for the library itself;
 * NS_TIMEOUT if there was nothing, never before tv has passed; NS_SHUTDOWN once the pool has stopped
 * (then this call has disposed of what was done), and in a forked child; NS_INVALID_STATE as for
 * ns_thrpool_run; NS_INVALID_REQUEST for NULL, and if tv is negative
 */
ns_result_t ns_thrpool_turn(struct ns_thrpool_t *tp,
                            const struct timeval *tv);

/**
 * Get a descriptor that polls readable when a turn of the pool would find something to do: a request
 * from another thread, a timer that is due, a descriptor that is ready, a signal, or work that a turn
 * left over. After each turn the descriptor is readable again, unless nothing is left to do. After a
 * turn that returned NS_TIMEOUT it is not readable until something new comes. Under an edge-triggered
 * poller, call ns_thrpool_turn until its result is not NS_SUCCESS. Any thread.
 *
 * @param tp the pool, made with NS_POOL_CALLER_LOOP
 * @return the descriptor, always the same, valid until ns_thrpool_destroy. It belongs to the pool: do
 * not read or close it. -1 if the event framework has none, if the system is out of descriptors, on a
 * pool without the flag, in a forked child, and for NULL. If the application has closed descriptors of
 * the pool's, call this again
 */
int ns_thrpool_get_wait_fd(struct ns_thrpool_t *tp);

/*
 * Groups
 *
 * A group is a set of jobs of one pool, with a rule for how many of them run at once. A group of
 * width 1 is what others call a strand or a serial queue: one callback at a time, in order, on
 * whichever thread is free, with no lock and no thread of its own. Give each connection one, put
 * all its jobs in it, whatever their kind, and nothing that belongs to the connection needs a lock.
 * A group of width n runs at most n of its callbacks at once. Width 0 sets no limit and keeps no order:
 * use it to cancel many jobs together, or to wait for them.
 *
 * Order. A job that fires, or a run-now job when it is armed, joins the end of the group's queue. It
 * begins when it is at the head and fewer than `width` of the group's callbacks run, in a worker or
 * in the loop as its flags say. The loop never waits for a group. What one thread adds begins in
 * the order in which it adds it; a PERSIST or rearmed run-now job goes to the end. To the
 * application a job in the queue is armed.
 *
 * Exclusion. In a group of width 1 no two callbacks run at once, done callbacks included, and each
 * sees all that those before it wrote. The done callback of a job takes its turn in the queue, and runs
 * in the loop or in a worker. The job's descriptor is closed earlier, without waiting for that turn.
 *
 * Lifetime. The maker of a group has one hold on it, and each job in it is another. When the last
 * is gone, the group's done callback runs once, after those of all its jobs, and then the library frees
 * the group. So the group's done callback may free what all the callbacks use. A thread that calls a function
 * with a group must have a hold, or be in a callback of one of its jobs. ns_thrpool_destroy ends the
 * groups that are still held, and logs how many there were.
 *
 * In a forked child the functions return NS_SHUTDOWN, ns_group_hold and ns_group_release do nothing,
 * and the getters answer.
 */

struct ns_group_t;
typedef struct ns_group_t ns_group_t;

/**
 * Make a group.
 *
 * @param tp the pool
 * @param width how many of its callbacks may run at once; 1 runs them one at a time and in order;
 * 0 sets no limit and keeps no order
 * @param data for ns_group_get_data; the application's own
 * @param done called once, when the last hold and the last job are gone, in the loop or in a
 * worker, never inside a call of the application's; it may use the getters and may free data, and
 * the group is gone when it returns; NULL for none
 * @param group where the group is written; must not be NULL. The caller has a hold, for
 * ns_group_release
 * @return NS_SUCCESS, NS_SHUTDOWN, NS_ALLOCATION_FAILURE or NS_INVALID_REQUEST; if not the first,
 * *group is NULL and nothing happened
 */
ns_result_t ns_group_new(struct ns_thrpool_t *tp,
                         size_t width,
                         void *data,
                         void (*done)(struct ns_group_t *group),
                         struct ns_group_t **group);

/**
 * Take one more hold on a group, which keeps it until ns_group_release. Any thread; not in the
 * group's own done callback.
 *
 * @param group a group that the caller has a hold on, or called in a callback of one of its jobs;
 * NULL does nothing
 */
void ns_group_hold(struct ns_group_t *group);

/**
 * Give a hold back: the maker's, or one of ns_group_hold. With the last hold and the last job the
 * group ends: its done callback is called soon, and its memory goes. Any thread; never waits.
 *
 * @param group a group that the caller has a hold on, which it may not use any more afterwards; NULL
 * does nothing
 */
void ns_group_release(struct ns_group_t *group);

/**
 * The pointer that a group was made with. Any thread.
 *
 * @param group a live group
 * @return the data of ns_group_new; NULL for NULL
 */
void *ns_group_get_data(struct ns_group_t *group);

/**
 * The pool that a group belongs to. Any thread.
 *
 * @param group a live group
 * @return its pool; NULL for NULL
 */
struct ns_thrpool_t *ns_group_get_tp(struct ns_group_t *group);

/**
 * Make a run-now job in a group, and arm it: it joins the end of the group's queue. As ns_add_job
 * otherwise.
 *
 * @param group a group that the caller has a hold on, or called in a callback of one of its jobs
 * @param job_type THREAD, PERSIST, UNARMED
 * @param func the callback
 * @param data for ns_job_get_data; the application's own
 * @param job where the job is written before it can run; may be NULL, but not with UNARMED
 * @return NS_SUCCESS, NS_SHUTDOWN, NS_ALLOCATION_FAILURE or NS_INVALID_REQUEST; NS_DELETING if the
 * group is cancelled; NS_OVERLOADED if its queue is as long as ns_group_set_limit allows; if not
 * the first, *job is NULL and nothing happened
 */
ns_result_t ns_add_group_job(struct ns_group_t *group,
                             ns_job_type_t job_type,
                             ns_job_func_t func,
                             void *data,
                             struct ns_job_t **job);

/**
 * Put a job into a group, for good. The job is of any kind, was made by ns_create_job or with
 * NS_JOB_UNARMED, and was never armed. No other call on the job may overlap this one.
 *
 * @param job a live job, WAITING
 * @param group a group of the same pool
 * @return NS_SUCCESS; NS_INVALID_STATE if the job was armed before, was made armed, or is in a group
 * already; NS_DELETING if the group is cancelled; NS_SHUTDOWN in a forked child; NS_INVALID_REQUEST
 * for NULL and for a group of another pool
 */
ns_result_t ns_job_set_group(struct ns_job_t *job,
                             struct ns_group_t *group);

/**
 * The group that a job is in. Any thread, any state.
 *
 * @param job a live job
 * @return its group; NULL if it is in none, and for NULL
 */
struct ns_group_t *ns_job_get_group(struct ns_job_t *job);

/**
 * Finish with every job in a group, as by ns_job_cancel, idle ones too, and let none in any more.
 * Their done callbacks follow. Afterwards all of them are the library's: only callbacks and done
 * callbacks may name them. Any thread, the group's own callbacks included; never waits, however
 * many jobs there are. The group itself stays until it is released. Adds to the group, and rearms in
 * its callbacks, may overlap this; a rearm from outside must not.
 *
 * @param group a group that the caller has a hold on, or called in a callback of one of its jobs
 * @return NS_SUCCESS: no callback of its jobs runs, the caller's own aside, done callbacks included,
 * and no callback but done callbacks will begin; NS_RUNNING: some run on other threads, and none
 * but done callbacks will begin. A second call answers as it finds. NS_SHUTDOWN in a forked
 * child; NS_INVALID_REQUEST for NULL
 */
ns_result_t ns_group_cancel(struct ns_group_t *group);

/**
 * Block until no job of a group is armed, queued or running: each is idle, or is gone and its done
 * callback has returned. Any number of threads. It can't wait in the pool's loop thread, nor in a
 * callback of the group's own.
 *
 * @param group a group that the caller has a hold on until the call returns
 * @param tv how long; NULL for no limit; not negative
 * @return NS_SUCCESS; NS_TIMEOUT when the time is up; NS_SHUTDOWN when the pool has stopped (in a
 * worker of the pool: when it shuts down), or in a forked child; NS_INVALID_STATE from the loop
 * thread or a callback of the group's own, unless there is nothing to wait for but the caller's own
 * job; NS_INVALID_REQUEST for NULL and for a negative tv
 */
ns_result_t ns_group_wait(struct ns_group_t *group,
                          const struct timeval *tv);

/**
 * Let no callback of a group begin until ns_group_resume: what fires queues up. Done callbacks
 * go on. Suspensions are counted, up to 65,535. A callback that runs goes on. Suspend a group of
 * width 1 to wait for an answer that a job outside it brings. Any thread.
 *
 * @param group a group that the caller has a hold on, or called in a callback of one of its jobs
 * @return NS_SUCCESS; NS_INVALID_STATE if it is suspended 65,535 times; NS_SHUTDOWN in a forked
 * child; NS_INVALID_REQUEST for NULL
 */
ns_result_t ns_group_suspend(struct ns_group_t *group);

/**
 * Undo one ns_group_suspend. With the last the group goes on. Any thread.
 *
 * @param group a group that the caller has a hold on, or called in a callback of one of its jobs
 * @return NS_SUCCESS; NS_INVALID_STATE if it is not suspended; NS_SHUTDOWN in a forked child;
 * NS_INVALID_REQUEST for NULL
 */
ns_result_t ns_group_resume(struct ns_group_t *group);

/**
 * Whether the caller is inside a callback or done callback of a job of this group, or in the
 * group's own done callback, anywhere on the thread's stack.
 *
 * @param group a live group
 * @return 1 or 0; 0 for NULL
 */
int ns_group_is_current(struct ns_group_t *group);

/**
 * Limit the length of a group's queue: ns_add_group_job of an armed job returns NS_OVERLOADED
 * when limit jobs wait already. What a worker of the pool adds in a callback is never refused,
 * nor what fires or is armed again; what the loop adds is. Any thread.
 *
 * @param group a group that the caller has a hold on, or called in a callback of one of its jobs
 * @param limit how many; 0 for no limit, which is the default
 * @return NS_SUCCESS; NS_SHUTDOWN in a forked child; NS_INVALID_REQUEST for NULL
 */
ns_result_t ns_group_set_limit(struct ns_group_t *group,
                               size_t limit);

/**
 * How many jobs are in a group's queue: they have fired or were armed, have not begun, and are not
 * cancelled. Any thread.
 *
 * @param group a live group
 * @return how many at that moment; 0 for NULL
 */
size_t ns_group_get_length(struct ns_group_t *group);

/* ---- Looking in: statistics ---- */

/*
 * A pool always keeps statistics. They cost a few instructions per job, and no system call. Any thread may
 * read them, callbacks included, at any time until ns_thrpool_destroy begins.
 *
 *     struct ns_thrpool_stats stats;
 *     ns_thrpool_stats_init(&stats, sizeof stats);
 *     ns_thrpool_get_stats(tp, &stats);
 *
 * ns_thrpool_format_stats writes the same as text for Prometheus. docs/OBSERVING.md says what to look at.
 *
 * This version does not measure how long jobs wait and how long callbacks take: the histograms and times at
 * the end of the struct are zero.
 */

/**
 * What a pool has done so far, and what it is doing. Initialize it with ns_thrpool_stats_init, then
 * pass it to ns_thrpool_get_stats.
 *
 * The numbers of jobs are consistent at every moment: jobs_made is jobs_disposed plus all live jobs.
 * Other counts may lag slightly behind what threads are doing while they are read.
 */
struct ns_thrpool_stats {
    /**
     * The size of this struct in the program, set by ns_thrpool_stats_init. Fields are only ever added
     * at the end. Fields that the library does not know are set to zero.
     */
    size_t size;
    /** Jobs made since the pool began. */
    uint64_t jobs_made;
    /** Jobs disposed of. A job is counted before its done callback is called. */
    uint64_t jobs_disposed;
    /** Callbacks that have begun in the loop. Done callbacks are not counted. */
    uint64_t runs_loop;
    /** Callbacks that have begun in workers. */
    uint64_t runs_worker;
    /** Live jobs, by kind: run-now jobs. */
    uint64_t live_run_now;
    /** Jobs with a descriptor. */
    uint64_t live_io;
    /** Timers. */
    uint64_t live_timers;
    /** Jobs for signals. */
    uint64_t live_signals;
    /** Requests that wait for the loop now: to watch for a job's trigger, or to dispose of a job. */
    uint64_t requests;
    /** What waits to run in the loop now: run-now jobs, and groups whose next job runs in the loop. */
    uint64_t loop_queue;
    /** What waits for workers now: jobs, and groups that have a job for a worker. */
    uint64_t work_queue;
    /**
     * The most jobs and groups that waited for workers. The loop, workers and readers of statistics
     * sample it, so a short peak may be missed.
     */
    uint64_t work_queue_max;
    /** Workers that exist now. */
    uint64_t workers;
    /** Workers that are busy now. */
    uint64_t workers_busy;
    /** The most workers that were busy at once. */
    uint64_t workers_busy_max;
    /** Turns of the loop. */
    uint64_t turns;
    /** How often the loop asked its event framework for events. It sleeps in some of these calls. */
    uint64_t waits;
    /** How often another thread woke the loop, at the cost of a system call. */
    uint64_t wakes;
    /** Adds that returned NS_OVERLOADED, because of a pool's limit or a group's. */
    uint64_t refused_overload;
    /**
     * The fields from here on are zero unless the pool has NS_POOL_TIMINGS. In each histogram, element 0
     * counts values of zero, element i those from 2^(i-1) to below 2^i nanoseconds, and the last element
     * all longer ones. This one: how long jobs waited in the loop, from the time at which the job fired,
     * or for a run-now job was armed, to the beginning of its callback.
     */
    uint64_t queue_loop_ns[64];
    /** The same in workers. */
    uint64_t queue_worker_ns[64];
    /** How long callbacks took in the loop. Done callbacks are not counted. */
    uint64_t run_loop_ns[64];
    /** The same in workers. */
    uint64_t run_worker_ns[64];
    /**
     * How late timer jobs fired. With NS_JOB_CADENCE, periods that were missed are one firing, as late as
     * the first of them.
     */
    uint64_t late_ns[64];
    /** The sum of what is in queue_loop_ns, in nanoseconds. */
    uint64_t queue_loop_sum;
    /** The sum of what is in queue_worker_ns. */
    uint64_t queue_worker_sum;
    /** The sum of what is in run_loop_ns. */
    uint64_t run_loop_sum;
    /** The sum of what is in run_worker_ns. */
    uint64_t run_worker_sum;
    /** The sum of what is in late_ns. */
    uint64_t late_sum;
    /**
     * How long the loop was busy, in nanoseconds. Together with loop_idle_ns: how long there has been a
     * loop, until it had nothing more to run. While no thread is inside a caller's loop, neither grows.
     */
    uint64_t loop_busy_ns;
    /** How long the loop slept until something happened, in nanoseconds. */
    uint64_t loop_idle_ns;
};

/**
 * Initialize a struct for ns_thrpool_get_stats: all zero except its size.
 *
 * @param stats the struct; NULL does nothing
 * @param size sizeof *stats; if it is smaller than a size_t, the call does nothing
 */
void ns_thrpool_stats_init(struct ns_thrpool_stats *stats, size_t size);

/**
 * Get what a pool has done so far, and what it is doing. Any thread, callbacks included, also while the
 * pool shuts down and after it has stopped. The call neither waits nor allocates.
 *
 * @param tp the pool
 * @param stats initialized by ns_thrpool_stats_init; written up to its size
 * @return NS_SUCCESS; NS_SHUTDOWN in a forked child, where stats is left unchanged; NS_INVALID_REQUEST
 * if tp or stats is NULL, or if its size is not one that ns_thrpool_stats_init has set
 */
ns_result_t ns_thrpool_get_stats(struct ns_thrpool_t *tp,
                                 struct ns_thrpool_stats *stats);

/**
 * Reset the maxima of a pool: work_queue_max and workers_busy_max. All other numbers stay. Any thread.
 *
 * @param tp the pool; NULL does nothing, nor does a pool of the parent process
 */
void ns_thrpool_reset_stats(struct ns_thrpool_t *tp);

/**
 * Write the statistics of a pool as text, in the text format of Prometheus (version 0.0.4): serve it as
 * text/plain; version=0.0.4. Each metric has a help text and a type. It is named after its field, with
 * the prefix nunc_stans_; names of counters end in _total. The label pool has the pool's name and
 * number, as in "ns-0". Any thread, callbacks included. Other threads may make and destroy pools
 * meanwhile.
 *
 * @param tp the pool; NULL: all pools of the process in one text
 * @param text where to write it, at most size bytes with its NUL; may be NULL if size is 0
 * @param size how many bytes there are
 * @return the length of the whole text without its NUL, even if it did not fit, like snprintf. 0, and an
 * empty text, for a pool of the parent process, if text is NULL and size is not 0, or if there is no
 * memory
 */
size_t ns_thrpool_format_stats(struct ns_thrpool_t *tp,
                               char *text,
                               size_t size);

/* ---- Looking in: where a pool is stuck ---- */

/*
 * There are two ways from inside the process. docs/OBSERVING.md describes those from outside: ns-top, gdb
 * and probes.
 *
 * Ask. ns_thrpool_dump reports what each job and each thread of a pool is doing, even when the loop is stuck.
 *
 * Be told. If a pool has `slow` in its options, it has a watchdog: a thread that reports each callback that
 * runs longer, while it is still running and again when it has returned, to slow_fct or to the log. The
 * watchdog sleeps while all threads of the pool sleep.
 *
 *     options.slow = (struct timeval){1, 0};
 *     options.slow_fct = on_slow_callback;
 *
 * Without a watchdog the pool does not record when a callback begins. Then a dump and ns-top show how long
 * the callback has been running since they first saw it.
 */

/** A report on a callback that takes too long: see slow in the options of a pool. */
struct ns_slow_call {
    /** The size of this struct in the library. Fields are only ever added at the end. */
    size_t size;
    /** The pool. */
    struct ns_thrpool_t *tp;
    /** The job. For comparing only: the callback may have returned, and the job may be gone. */
    struct ns_job_t *job;
    /** The callback, or done callback. */
    ns_job_func_t func;
    /** Its name, if the dynamic linker knows it (link the program with -rdynamic); else NULL. */
    const char *name;
    /** The job's data when the callback began. For comparing only. */
    void *data;
    /** The thread's ID, as from gettid(2); 0 on systems without it. */
    pid_t thread;
    /** 1 if it runs in the pool's loop, 0 if in a worker. */
    int in_loop;
    /** 0 while the callback runs, 1 when it has returned. */
    int ended;
    /**
     * For how many nanoseconds it has run so far or, once it has returned, in all. The real time may be
     * longer.
     */
    uint64_t ns;
};

/**
 * Report what each job and each thread of a pool is doing, in lines of text for people: one line for
 * each job that is armed, in the queue of its group, or running, and one with the lengths of the queues.
 * The line of a job has its address, its flags, its descriptor or signal, what it is doing, how much
 * time it has left, for how long it has been running and in which thread, its callback by name (where
 * the dynamic linker knows one: link the program with -rdynamic), its data, and its group. The form of
 * the lines may change.
 *
 * The pool goes on meanwhile. The loop collects all lines, some thousand jobs in each turn, before the
 * first is passed to line. If there are more jobs, one that is armed again meanwhile may be missing.
 * Jobs in the queue of the workers, and run-now jobs that wait for the loop, are only counted, unless
 * they are in groups.
 *
 * If the loop does not answer within a second, the last line says in which callback it is, and for how
 * long. Other lines then say what the workers are doing.
 *
 * Any thread, callbacks included; in the loop it answers at once. If several threads call this at the
 * same time, they take turns. It works after the shutdown too.
 *
 * @param tp the pool
 * @param line called with each line, without a newline at its end, in the calling thread, when the call
 * has nothing more to do with the pool; the text is valid during the call
 * @param arg the first argument of line
 * @return NS_SUCCESS; NS_TIMEOUT if the loop did not answer; NS_ALLOCATION_FAILURE, and line was not
 * called; NS_SHUTDOWN in a forked child; NS_INVALID_REQUEST if tp or line is NULL
 */
ns_result_t ns_thrpool_dump(struct ns_thrpool_t *tp,
                            void (*line)(void *arg, const char *text),
                            void *arg);

#ifdef NS_TIME32
#undef timeval

/* A time as the library takes it, at place; NULL for NULL. What is too large becomes the largest. */
static inline struct ns_time32 *ns_time32_of(const struct timeval *tv, struct ns_time32 *place)
{
    const long most = 0x7fffffffL;
    if (tv == NULL) {
        return NULL;
    }
    place->tv_sec = tv->tv_sec > most ? most : tv->tv_sec < -most ? -most : (long)tv->tv_sec;
    place->tv_usec = tv->tv_usec > most ? most : tv->tv_usec < -most ? -most : (long)tv->tv_usec;
    return place;
}

static inline ns_result_t ns_add_timeout_job_time64(struct ns_thrpool_t *tp, struct timeval *tv,
                                                    ns_job_type_t job_type, ns_job_func_t func,
                                                    void *data, struct ns_job_t **job)
{
    struct ns_time32 time;
    return ns_add_timeout_job(tp, ns_time32_of(tv, &time), job_type, func, data, job);
}

static inline ns_result_t ns_add_io_timeout_job_time64(struct ns_thrpool_t *tp,
                                                       struct PRFileDesc *fd, struct timeval *tv,
                                                       ns_job_type_t job_type, ns_job_func_t func,
                                                       void *data, struct ns_job_t **job)
{
    struct ns_time32 time;
    return ns_add_io_timeout_job(tp, fd, ns_time32_of(tv, &time), job_type, func, data, job);
}

static inline ns_result_t ns_add_fd_timeout_job_time64(struct ns_thrpool_t *tp, int fd,
                                                       struct timeval *tv, ns_job_type_t job_type,
                                                       ns_job_func_t func, void *data,
                                                       struct ns_job_t **job)
{
    struct ns_time32 time;
    return ns_add_fd_timeout_job(tp, fd, ns_time32_of(tv, &time), job_type, func, data, job);
}

static inline ns_result_t ns_job_timedwait_time64(struct ns_job_t *job, const struct timeval *tv)
{
    struct ns_time32 time;
    return ns_job_timedwait(job, ns_time32_of(tv, &time));
}

static inline ns_result_t ns_job_rearm_after_time64(struct ns_job_t *job, const struct timeval *tv)
{
    struct ns_time32 time;
    return ns_job_rearm_after(job, ns_time32_of(tv, &time));
}

static inline ns_result_t ns_job_rearm_for_time64(struct ns_job_t *job, ns_job_type_t directions,
                                                  const struct timeval *tv)
{
    struct ns_time32 time;
    return ns_job_rearm_for(job, directions, ns_time32_of(tv, &time));
}

static inline ns_result_t ns_thrpool_timedwait_time64(struct ns_thrpool_t *tp,
                                                      const struct timeval *tv)
{
    struct ns_time32 time;
    return ns_thrpool_timedwait(tp, ns_time32_of(tv, &time));
}

static inline ns_result_t ns_thrpool_turn_time64(struct ns_thrpool_t *tp, const struct timeval *tv)
{
    struct ns_time32 time;
    return ns_thrpool_turn(tp, ns_time32_of(tv, &time));
}

static inline ns_result_t ns_group_wait_time64(struct ns_group_t *group, const struct timeval *tv)
{
    struct ns_time32 time;
    return ns_group_wait(group, ns_time32_of(tv, &time));
}

#define ns_add_timeout_job ns_add_timeout_job_time64
#define ns_add_io_timeout_job ns_add_io_timeout_job_time64
#define ns_add_fd_timeout_job ns_add_fd_timeout_job_time64
#define ns_job_timedwait ns_job_timedwait_time64
#define ns_job_rearm_after ns_job_rearm_after_time64
#define ns_job_rearm_for ns_job_rearm_for_time64
#define ns_thrpool_timedwait ns_thrpool_timedwait_time64
#define ns_thrpool_turn ns_thrpool_turn_time64
#define ns_group_wait ns_group_wait_time64
#endif

#ifdef __cplusplus
}
#endif

#endif /* NS_THRPOOL_H */
