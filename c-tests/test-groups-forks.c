/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Groups in a forked child. */
#include "children.h"
#include "groups.h"

/* In a forked child nothing works on the parent's groups but the getters, and nothing hangs. */
struct inherited {
    struct crew crew;
    struct ns_job_t *queued;
    struct ns_job_t *outside;
};

static void use_in_child(void *arg)
{
    struct inherited *in = arg;
    struct ns_group_t *group = in->crew.group;
    struct ns_group_t *made = group;
    struct ns_job_t *job = in->queued;
    CHILD_CHECK(ns_group_get_data(group) == &in->crew);
    CHILD_CHECK(ns_group_get_tp(group) == in->crew.tp);
    CHILD_CHECK(ns_job_get_group(in->queued) == group);
    CHILD_CHECK(ns_job_get_group(in->outside) == NULL);
    CHILD_CHECK(ns_group_get_length(group) == 1);
    CHILD_CHECK(ns_group_is_current(group) == 0);
    CHILD_CHECK(ns_group_new(in->crew.tp, 1, NULL, NULL, &made) == NS_SHUTDOWN);
    CHILD_CHECK(made == NULL);
    CHILD_CHECK(ns_add_group_job(group, NS_JOB_THREAD, do_nothing, NULL, &job) == NS_SHUTDOWN);
    CHILD_CHECK(job == NULL);
    CHILD_CHECK(ns_job_set_group(in->outside, group) == NS_SHUTDOWN);
    CHILD_CHECK(ns_group_suspend(group) == NS_SHUTDOWN);
    CHILD_CHECK(ns_group_resume(group) == NS_SHUTDOWN);
    CHILD_CHECK(ns_group_set_limit(group, 7) == NS_SHUTDOWN);
    CHILD_CHECK(ns_group_wait(group, NULL) == NS_SHUTDOWN);
    CHILD_CHECK(ns_group_wait(group, &at_once) == NS_SHUTDOWN);
    CHILD_CHECK(ns_group_cancel(group) == NS_SHUTDOWN);
    CHILD_CHECK(ns_job_cancel(in->queued) == NS_SHUTDOWN);
    ns_group_hold(group);
    ns_group_release(group);
    ns_group_release(group);
    ns_group_release(group);
    CHILD_CHECK(latch_count(&in->crew.ended) == 0);
    CHILD_CHECK(ns_group_get_length(group) == 1);
    /* A pool of its own has groups of its own. */
    struct ns_thrpool_t *tp = pool_of(1);
    CHILD_CHECK(ns_group_new(tp, 1, NULL, NULL, &made) == NS_SUCCESS);
    CHILD_CHECK(ns_job_set_group(in->outside, made) != NS_SUCCESS);
    struct latch runs = LATCH_INIT;
    CHILD_CHECK(ns_add_group_job(made, NS_JOB_THREAD, count_and_finish, &runs, NULL) == NS_SUCCESS);
    CHILD_CHECK(latch_reaches(&runs, 1));
    ns_group_release(made);
    ns_thrpool_destroy(tp);
    ns_thrpool_destroy(in->crew.tp);
}

TEST(in_a_forked_child_getters_answer_and_the_rest_says_shutdown)
{
    static struct inherited in;
    struct ns_thrpool_t *tp = pool_of(1);
    crew_begin(&in.crew, tp, 1);
    struct member member = {.crew = &in.crew};
    assert_int_equal(ns_group_suspend(in.crew.group), NS_SUCCESS);
    in.queued = member_add(&member, NS_JOB_THREAD);
    assert_int_equal(ns_add_job(tp, NS_JOB_UNARMED, finish_job, NULL, &in.outside), NS_SUCCESS);
    assert_exits(in_child(use_in_child, &in), 0);
    /* And the parent's are as they were. */
    assert_int_equal(ns_group_resume(in.crew.group), NS_SUCCESS);
    assert_int_equal(ns_job_done(in.outside), NS_SUCCESS);
    crew_end(&in.crew);
    assert_int_equal(atomic_load(&member.runs), 1);
    pool_end(tp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_a_forked_child_getters_answer_and_the_rest_says_shutdown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
