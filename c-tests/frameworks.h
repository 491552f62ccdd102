/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What the tests of event frameworks share. */
#ifndef FRAMEWORKS_H
#define FRAMEWORKS_H

#include "harness.h"

/* The pool, which was to be made over the framework `name`; if there is none, the test fails and says why. */
static inline struct ns_thrpool_t *made_over(const char *name, struct ns_thrpool_t *tp)
{
    if (tp == NULL) {
        fail_msg("%s: %s", name, logged_last);
    }
    return tp;
}

/* A job in the loop and one in a worker are told of a byte, and not before it comes. */
static inline void works(struct ns_thrpool_t *tp)
{
    for EACH_THREAD(i) {
        int ends[2];
        socket_pair(ends);
        struct probe probe = PROBE(finish_job, ends[0]);
        probe_fd(tp, NS_JOB_READ | where[i], 0, &probe);
        loop_passes(tp, 1000);
        assert_latch(&probe.runs, 0);
        assert_int_equal(write(ends[1], "x", 1), 1);
        assert_latch(&probe.disposals, 1);
        assert_int_equal(atomic_load(&probe.output), NS_JOB_READ);
        close(ends[1]);
    }
}

#endif
