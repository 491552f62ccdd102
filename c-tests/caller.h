/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Pools whose loop runs in the threads of the test. */
#ifndef CALLER_H
#define CALLER_H

#define NS_EXTENDED_RESULTS
#include "harness.h"

/* A pool of n workers over this framework (NULL: the default one), with the caller as the loop. */
static inline struct ns_thrpool_t *caller_pool_over(const char *framework, size_t workers)
{
    struct ns_thrpool_config config;
    struct ns_thrpool_options options;
    ns_thrpool_config_init(&config);
    ns_thrpool_options_init(&options, sizeof options);
    config.max_threads = workers;
    config.log_fct = quiet_log;
    options.flags = NS_POOL_CALLER_LOOP;
    options.framework = framework;
    struct ns_thrpool_t *tp = ns_thrpool_new_with(&config, &options);
    assert_non_null(tp);
    return tp;
}

/* The framework that the variable names, which the library does not look at for these pools: so each of
 * these tests can run over each. */
static inline struct ns_thrpool_t *caller_pool(size_t workers)
{
    return caller_pool_over(getenv("NUNC_STANS_FRAMEWORK"), workers);
}

/* One turn that waits for at most usec microseconds. */
static inline ns_result_t turn_for(struct ns_thrpool_t *tp, long usec)
{
    struct timeval tv = {usec / 1000000, usec % 1000000};
    return ns_thrpool_turn(tp, &tv);
}

/* Whether a descriptor polls readable within so many milliseconds. */
static inline int readable_in(int fd, int ms)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    int found = poll(&poll_fd, 1, ms);
    return found == 1 && (poll_fd.revents & POLLIN);
}

static inline int readable(int fd)
{
    return readable_in(fd, 0);
}

/* Of a framework without a wait descriptor, nothing is asked. */
#define assert_readable(fd) assert_true((fd) < 0 || readable_in((fd), LIMIT_SECONDS * 1000))
#define assert_not_readable(fd) assert_false((fd) >= 0 && readable(fd))

/* Skip a test that is about the wait descriptor, where there is none. */
static inline void needs_wait_fd(struct ns_thrpool_t *tp)
{
    if (ns_thrpool_get_wait_fd(tp) < 0) {
        ns_thrpool_destroy(tp);
        skip();
    }
}

/* Turn until there is nothing left to do. */
static inline void turn_to_the_end(struct ns_thrpool_t *tp)
{
    ns_result_t result;
    while ((result = turn_for(tp, 0)) == NS_SUCCESS) {
    }
    assert_int_equal(result, NS_TIMEOUT);
}

/* Turn, as a host does: whenever the wait descriptor is readable, or now and then where there is none. Until
 * cond holds. */
#define TURN_UNTIL(tp, cond)                                                                   \
    do {                                                                                       \
        int turn_until_fd = ns_thrpool_get_wait_fd(tp);                                        \
        double turn_until_end = now_seconds() + LIMIT_SECONDS;                                 \
        while (!(cond)) {                                                                      \
            if (now_seconds() > turn_until_end) {                                              \
                fail_msg("never came to hold: %s", #cond);                                     \
            }                                                                                  \
            if (turn_until_fd < 0) {                                                           \
                turn_for((tp), 1000);                                                          \
            } else if (readable_in(turn_until_fd, 100)) {                                      \
                turn_for((tp), 0);                                                             \
            }                                                                                  \
        }                                                                                      \
    } while (0)

/* As a thread: be the loop until the pool has stopped. */
static inline void *run_loop(void *tp)
{
    return (void *)(intptr_t)ns_thrpool_run(tp);
}

static inline pthread_t start_thread(void *(*body)(void *), void *arg)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, body, arg), 0);
    return thread;
}

static inline void *come_and_go(void *arg)
{
    return arg;
}

static inline intptr_t join_thread(pthread_t thread)
{
    void *result;
    assert_int_equal(pthread_join(thread, &result), 0);
    return (intptr_t)result;
}

/* How many threads there are before the first pool. A sanitizer starts one of its own with the first thread
 * of the program, and a thread that was joined may be listed for a moment: so the least of some looks. */
static inline int first_count_of_threads(void)
{
    join_thread(start_thread(come_and_go, NULL));
    int least = count_threads();
    for (int i = 0; i < 20; i++) {
        let_time_pass(1000);
        int count = count_threads();
        least = count < least ? count : least;
    }
    return least;
}

#endif
