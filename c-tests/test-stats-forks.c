/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The statistics in a forked child: not those of its parent's pools, but those of its own. */
#include "children.h"

static void idle(struct ns_job_t *job)
{
    UNUSED(job);
}

static struct ns_thrpool_t *parents;

static void ask_in_child(void *arg)
{
    UNUSED(arg);
    struct ns_thrpool_stats stats;
    char text[16] = "unchanged";
    ns_thrpool_stats_init(&stats, sizeof stats);
    if (ns_thrpool_get_stats(parents, &stats) != NS_SHUTDOWN || stats.jobs_made != 0) {
        _exit(1);
    }
    ns_thrpool_reset_stats(parents);
    if (ns_thrpool_format_stats(parents, text, sizeof text) != 0 || text[0] != 0) {
        _exit(2);
    }
    /* The parent's pools are none of this process. */
    size_t none = ns_thrpool_format_stats(NULL, NULL, 0);
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.log_fct = quiet_log;
    struct ns_thrpool_t *own = ns_thrpool_new(&config);
    if (own == NULL || ns_thrpool_format_stats(NULL, NULL, 0) <= none) {
        _exit(3);
    }
    ns_thrpool_destroy(parents);
    ns_thrpool_destroy(own);
    _exit(ns_thrpool_format_stats(NULL, NULL, 0) == none ? 0 : 4);
}

TEST(a_forked_child_is_told_nothing_of_its_parents_pools)
{
    struct ns_job_t *job;
    parents = pool_of(1);
    assert_int_equal(ns_add_job(parents, NS_JOB_UNARMED, idle, NULL, &job), NS_SUCCESS);
    assert_exits(in_child(ask_in_child, NULL), 0);
    struct ns_thrpool_stats stats;
    ns_thrpool_stats_init(&stats, sizeof stats);
    assert_int_equal(ns_thrpool_get_stats(parents, &stats), NS_SUCCESS);
    assert_int_equal(stats.jobs_made, 1);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    pool_end(parents);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_forked_child_is_told_nothing_of_its_parents_pools),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
