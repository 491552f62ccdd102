/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Run-now jobs: where they run, in which order, and again with PERSIST. */
#include "harness.h"

static struct latch ran = LATCH_INIT;

static void count_and_finish(struct ns_job_t *job)
{
    ns_job_done(job);
    latch_add(&ran, 1);
}

static void every_add_runs_once(void **state)
{
    UNUSED(state);
    struct ns_thrpool_t *tp = pool_of(4);
    for (int i = 0; i < 1000; i++) {
        ns_job_type_t type = i % 2 ? NS_JOB_THREAD : NS_JOB_NONE;
        assert_int_equal(ns_add_job(tp, type, count_and_finish, NULL, NULL), NS_SUCCESS);
    }
    assert_latch(&ran, 1000);
    pool_end(tp);
    assert_int_equal(latch_count(&ran), 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_add_runs_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
