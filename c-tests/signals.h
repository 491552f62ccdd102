/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Signal jobs of the tests. */
#ifndef SIGNALS_H
#define SIGNALS_H

#include "harness.h"

/* Whether a sanitizer is linked in. Sanitizers intercept sigaction, as some of these programs do,
 * and call handlers themselves. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

/* How many signals came to count_handled, a handler of the application's. */
static atomic_int handled;

static inline void count_handled(int signum)
{
    UNUSED(signum);
    atomic_fetch_add(&handled, 1);
}

/* Add a job for a signal. */
static inline struct ns_job_t *probe_signal(struct ns_thrpool_t *tp, int signum, ns_job_type_t type,
                                            struct probe *probe)
{
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_signal_job(tp, signum, type | NS_JOB_UNARMED, probe_run, probe, &job),
                     NS_SUCCESS);
    return probe_arm(job);
}

#endif
