/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Groups: how they are made, what may be in them, what refuses, and what they cost. */
#include "groups.h"

static struct ns_group_t *const not_a_group = (struct ns_group_t *)&far_away;
static struct ns_job_t *const not_a_job = (struct ns_job_t *)&far_away;

TEST(a_group_is_made_of_any_width_and_answers)
{
    struct ns_thrpool_t *tp = pool_of(1);
    const size_t widths[] = {0, 1, 2, 3, 1000, SIZE_MAX};
    for (size_t i = 0; i < sizeof widths / sizeof *widths; i++) {
        struct crew crew;
        crew_begin(&crew, tp, widths[i]);
        assert_ptr_equal(ns_group_get_data(crew.group), &crew);
        assert_ptr_equal(ns_group_get_tp(crew.group), tp);
        assert_int_equal(ns_group_get_length(crew.group), 0);
        assert_int_equal(ns_group_is_current(crew.group), 0);
        struct member members[3] = {{.crew = &crew}, {.crew = &crew}, {.crew = &crew}};
        member_add(&members[0], NS_JOB_NONE);
        member_add(&members[1], NS_JOB_THREAD);
        member_add(&members[2], NS_JOB_NONE);
        crew_end(&crew);
        assert_int_equal(latch_count(&crew.runs), 3);
        assert_int_equal(latch_count(&crew.disposals), 3);
    }
    pool_end(tp);
}

TEST(a_group_needs_neither_data_nor_a_done_callback)
{
    struct ns_thrpool_t *tp = counting_pool(1);
    struct ns_group_t *group = NULL;
    struct latch runs = LATCH_INIT;
    long before = atomic_load(&blocks_out);
    assert_int_equal(ns_group_new(tp, 1, NULL, NULL, &group), NS_SUCCESS);
    assert_null(ns_group_get_data(group));
    assert_int_equal(ns_add_group_job(group, NS_JOB_THREAD, count_and_finish, &runs, NULL),
                     NS_SUCCESS);
    ns_group_release(group);
    assert_latch(&runs, 1);
    EVENTUALLY(atomic_load(&blocks_out) == before);
    pool_end(tp);
}

TEST(making_a_group_refuses_what_it_cannot_do)
{
    struct ns_thrpool_t *tp = pool_logging_to(1, recording_log);
    struct ns_group_t *group = not_a_group;
    assert_int_equal(ns_group_new(NULL, 1, NULL, NULL, &group), NS_INVALID_REQUEST);
    assert_null(group);
    int errors = count_logged_errors();
    assert_int_equal(ns_group_new(tp, 1, NULL, NULL, NULL), NS_INVALID_REQUEST);
    assert_int_equal(count_logged_errors(), errors + 1);
    assert_true(logged("ns_group_new"));
    ns_thrpool_shutdown(tp);
    group = not_a_group;
    assert_int_equal(ns_group_new(tp, 1, NULL, NULL, &group), NS_SHUTDOWN);
    assert_null(group);
    pool_end(tp);
}

static void *no_memory(size_t count, size_t size)
{
    UNUSED(count);
    UNUSED(size);
    return NULL;
}

static atomic_int refuse_memory;

static void *some_memory(size_t count, size_t size)
{
    return atomic_load(&refuse_memory) ? no_memory(count, size) : counting_calloc(count, size);
}

TEST(without_memory_nothing_has_happened)
{
    struct ns_thrpool_t *tp = pool_with(1, recording_log, some_memory, counting_free);
    struct crew crew;
    crew_begin(&crew, tp, 1);
    struct ns_group_t *group = not_a_group;
    struct ns_job_t *job = not_a_job;
    long before = atomic_load(&blocks_out);
    atomic_store(&refuse_memory, 1);
    ns_result_t results[3] = {
        ns_group_new(tp, 1, NULL, NULL, &group),
        ns_add_group_job(crew.group, NS_JOB_THREAD, count_and_finish, &crew.runs, &job),
        ns_add_group_job(crew.group, NS_JOB_NONE, count_and_finish, &crew.runs, NULL),
    };
    atomic_store(&refuse_memory, 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(results[i], NS_ALLOCATION_FAILURE);
    }
    assert_null(group);
    assert_null(job);
    assert_int_equal(atomic_load(&blocks_out), before);
    assert_int_equal(ns_group_get_length(crew.group), 0);
    /* No job has been counted in: the hold of the maker's is the last. */
    crew_end(&crew);
    assert_int_equal(latch_count(&crew.runs), 0);
    pool_end(tp);
}

TEST(adding_refuses_what_ns_add_job_would_and_what_is_no_run_now_job)
{
    struct ns_thrpool_t *tp = pool_logging_to(1, recording_log);
    struct crew crew;
    crew_begin(&crew, tp, 1);
    const ns_job_type_t bad[] = {NS_JOB_ACCEPT, NS_JOB_CONNECT, NS_JOB_READ, NS_JOB_WRITE,
                                 NS_JOB_TIMER, NS_JOB_SIGNAL, NS_JOB_SHUTDOWN_WORKER,
                                 (ns_job_type_t)1 << 15};
    struct ns_job_t *job;
    for (size_t i = 0; i < 2 * sizeof bad / sizeof *bad; i++) {
        int errors = count_logged_errors();
        job = not_a_job;
        assert_int_equal(ns_add_group_job(crew.group, bad[i / 2] | where[i % 2], member_run, NULL, &job),
                         NS_INVALID_REQUEST);
        assert_null(job);
        assert_int_equal(count_logged_errors(), errors + 1);
        assert_true(logged("ns_add_group_job"));
    }
    job = not_a_job;
    assert_int_equal(ns_add_group_job(NULL, NS_JOB_NONE, member_run, NULL, &job), NS_INVALID_REQUEST);
    assert_null(job);
    job = not_a_job;
    assert_int_equal(ns_add_group_job(crew.group, NS_JOB_NONE, NULL, NULL, &job), NS_INVALID_REQUEST);
    assert_null(job);
    /* Nobody could arm it. */
    assert_int_equal(ns_add_group_job(crew.group, NS_JOB_UNARMED, member_run, NULL, NULL),
                     NS_INVALID_REQUEST);
    ns_thrpool_shutdown(tp);
    job = not_a_job;
    assert_int_equal(ns_add_group_job(crew.group, NS_JOB_THREAD, member_run, NULL, &job), NS_SHUTDOWN);
    assert_null(job);
    crew_end(&crew);
    pool_end(tp);
}

/* The out pointer is written before the job can run. */
static struct ns_job_t *written;
static atomic_int written_late;

static void look_whether_written(struct ns_job_t *job)
{
    atomic_fetch_add(&written_late, written != job);
    count_and_finish(job);
}

TEST(the_job_is_written_before_it_can_run)
{
    struct ns_thrpool_t *tp = pool_of(2);
    struct crew crew;
    crew_begin(&crew, tp, 1);
    int rounds = scaled(20000);
    for (int i = 0; i < rounds; i++) {
        assert_int_equal(ns_add_group_job(crew.group, where[i % 2], look_whether_written, &crew.runs,
                                          &written), NS_SUCCESS);
        assert_latch(&crew.runs, i + 1);
    }
    assert_int_equal(atomic_load(&written_late), 0);
    crew_end(&crew);
    pool_end(tp);
}

TEST(a_job_of_any_kind_is_put_in_for_good)
{
    struct ns_thrpool_t *tp = pool_of(2);
    int ends[2];
    socket_pair(ends);
    assert_int_equal(send(ends[1], "x", 1, 0), 1);
    const struct trigger on = {&at_once, ends[0], NS_JOB_READ | NS_JOB_PRESERVE_FD};
    const ns_job_type_t outputs[KINDS] = {0, NS_JOB_TIMER, NS_JOB_READ, NS_JOB_READ, NS_JOB_SIGNAL};
    signal(SIGUSR1, SIG_IGN);
    for (int kind = 0; kind < KINDS; kind++) {
        for EACH_THREAD(i) {
            struct crew crew, other;
            struct trigger with = on;
            with.tv = kind == KIND_TIMER ? &at_once : &far_away;
            crew_begin(&crew, tp, (size_t)kind % 3);
            crew_begin(&other, tp, 1);
            struct member member = {.crew = &crew};
            struct ns_job_t *job = NULL;
            assert_int_equal(add_kind(tp, kind, &with, where[i] | NS_JOB_UNARMED, member_run, &member,
                                      &job), NS_SUCCESS);
            assert_null(ns_job_get_group(job));
            assert_int_equal(ns_job_set_group(job, crew.group), NS_SUCCESS);
            assert_ptr_equal(ns_job_get_group(job), crew.group);
            assert_ptr_equal(ns_job_get_tp(job), tp);
            assert_ptr_equal(ns_job_get_data(job), &member);
            assert_int_equal(ns_job_get_native_fd(job),
                             kind == KIND_FD || kind == KIND_FD_TIMEOUT ? ends[0] : -1);
            /* It is in one: it cannot leave, nor join again. */
            assert_int_equal(ns_job_set_group(job, other.group), NS_INVALID_STATE);
            assert_int_equal(ns_job_set_group(job, crew.group), NS_INVALID_STATE);
            assert_ptr_equal(ns_job_get_group(job), crew.group);
            arm_with(job, member_gone);
            if (kind == KIND_SIGNAL) {
                assert_int_equal(kill(getpid(), SIGUSR1), 0);
            }
            crew_end(&crew);
            crew_end(&other);
            assert_int_equal(atomic_load(&member.runs), 1);
            assert_int_equal(atomic_load(&member.disposals), 1);
            assert_int_equal(atomic_load(&member.output), outputs[kind]);
        }
    }
    pool_end(tp);
    signal(SIGUSR1, SIG_DFL);
    close(ends[0]);
    close(ends[1]);
}

TEST(a_created_job_is_put_in_too)
{
    struct ns_thrpool_t *tp = pool_of(1);
    for (int i = 0; i < 4; i++) {
        struct crew crew;
        crew_begin(&crew, tp, 1);
        struct member member = {.crew = &crew};
        struct ns_job_t *job = NULL;
        assert_int_equal(ns_create_job(tp, where[i % 2] | (i & 2 ? NS_JOB_TIMER : 0), member_run, &job),
                         NS_SUCCESS);
        assert_int_equal(ns_job_set_data(job, &member), NS_SUCCESS);
        assert_int_equal(ns_job_set_group(job, crew.group), NS_SUCCESS);
        arm_with(job, member_gone);
        crew_end(&crew);
        assert_int_equal(atomic_load(&member.runs), 1);
    }
    pool_end(tp);
}

TEST(a_job_that_was_armed_or_is_in_a_group_is_not_put_in)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct crew crew;
    crew_begin(&crew, tp, 1);
    struct ns_job_t *job = NULL;
    struct latch runs = LATCH_INIT;
    /* Armed now. */
    assert_int_equal(ns_add_timeout_job(tp, &far_away, NS_JOB_NONE, do_nothing, NULL, &job), NS_SUCCESS);
    assert_int_equal(ns_job_set_group(job, crew.group), NS_INVALID_STATE);
    assert_null(ns_job_get_group(job));
    assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
    /* Armed by its add, and idle again. */
    assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, count_callback, &runs, &job), NS_SUCCESS);
    assert_latch(&runs, 1);
    assert_int_equal(ns_job_wait(job), NS_SUCCESS);
    assert_int_equal(ns_job_set_group(job, crew.group), NS_INVALID_STATE);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    /* Made unarmed, armed once, and idle again. */
    for EACH_THREAD(i) {
        assert_int_equal(ns_add_job(tp, where[i] | NS_JOB_UNARMED, count_callback, &runs, &job),
                         NS_SUCCESS);
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        assert_latch(&runs, 2 + (long)i);
        assert_int_equal(ns_job_wait(job), NS_SUCCESS);
        assert_int_equal(ns_job_set_group(job, crew.group), NS_INVALID_STATE);
        assert_null(ns_job_get_group(job));
        assert_int_equal(ns_job_done(job), NS_SUCCESS);
    }
    /* Made in a group. */
    assert_int_equal(ns_add_group_job(crew.group, NS_JOB_UNARMED, do_nothing, NULL, &job), NS_SUCCESS);
    assert_ptr_equal(ns_job_get_group(job), crew.group);
    assert_int_equal(ns_job_set_group(job, crew.group), NS_INVALID_STATE);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    crew_end(&crew);
    pool_end(tp);
}

TEST(another_pools_group_and_null_are_refused)
{
    struct ns_thrpool_t *tp = pool_logging_to(1, recording_log);
    struct ns_thrpool_t *other = pool_of(1);
    struct crew crew, others;
    crew_begin(&crew, tp, 1);
    crew_begin(&others, other, 1);
    struct member member = {.crew = &crew};
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_job(tp, NS_JOB_UNARMED, member_run, &member, &job), NS_SUCCESS);
    int errors = count_logged_errors();
    assert_int_equal(ns_job_set_group(job, others.group), NS_INVALID_REQUEST);
    assert_int_equal(count_logged_errors(), errors + 1);
    assert_true(logged("ns_job_set_group"));
    assert_int_equal(ns_job_set_group(job, NULL), NS_INVALID_REQUEST);
    assert_int_equal(ns_job_set_group(NULL, crew.group), NS_INVALID_REQUEST);
    assert_null(ns_job_get_group(job));
    /* The refusals changed nothing. */
    assert_int_equal(ns_job_set_group(job, crew.group), NS_SUCCESS);
    arm_with(job, member_gone);
    crew_end(&crew);
    crew_end(&others);
    assert_int_equal(atomic_load(&member.runs), 1);
    pool_end(tp);
    pool_end(other);
}

TEST(a_cancelled_group_takes_nothing_more)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct crew crew;
    crew_begin(&crew, tp, 1);
    struct ns_job_t *job = NULL, *refused = not_a_job;
    struct latch runs = LATCH_INIT;
    assert_int_equal(ns_add_job(tp, NS_JOB_UNARMED, count_and_finish, &runs, &job), NS_SUCCESS);
    assert_int_equal(ns_group_set_limit(crew.group, 0), NS_SUCCESS);
    assert_int_equal(ns_group_cancel(crew.group), NS_SUCCESS);
    assert_int_equal(ns_job_set_group(job, crew.group), NS_DELETING);
    assert_null(ns_job_get_group(job));
    assert_int_equal(ns_add_group_job(crew.group, NS_JOB_THREAD, count_and_finish, &runs, &refused),
                     NS_DELETING);
    assert_null(refused);
    refused = not_a_job;
    assert_int_equal(ns_add_group_job(crew.group, NS_JOB_UNARMED, count_and_finish, &runs, &refused),
                     NS_DELETING);
    assert_null(refused);
    assert_int_equal(ns_add_group_job(crew.group, NS_JOB_NONE, count_and_finish, &runs, NULL),
                     NS_DELETING);
    /* The job outside is as good as before. */
    assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
    assert_latch(&runs, 1);
    /* Of several reasons the shutdown comes first. */
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_add_group_job(crew.group, NS_JOB_THREAD, count_and_finish, &runs, NULL),
                     NS_SHUTDOWN);
    crew_end(&crew);
    pool_end(tp);
    assert_int_equal(latch_count(&runs), 1);
}

TEST(null_is_nothing_or_refused)
{
    ns_group_hold(NULL);
    ns_group_release(NULL);
    assert_null(ns_group_get_data(NULL));
    assert_null(ns_group_get_tp(NULL));
    assert_null(ns_job_get_group(NULL));
    assert_int_equal(ns_group_is_current(NULL), 0);
    assert_int_equal(ns_group_get_length(NULL), 0);
    assert_int_equal(ns_group_cancel(NULL), NS_INVALID_REQUEST);
    assert_int_equal(ns_group_wait(NULL, &at_once), NS_INVALID_REQUEST);
    assert_int_equal(ns_group_wait(NULL, NULL), NS_INVALID_REQUEST);
    assert_int_equal(ns_group_suspend(NULL), NS_INVALID_REQUEST);
    assert_int_equal(ns_group_resume(NULL), NS_INVALID_REQUEST);
    assert_int_equal(ns_group_set_limit(NULL, 1), NS_INVALID_REQUEST);
    assert_int_equal(ns_job_set_group(NULL, NULL), NS_INVALID_REQUEST);
}

static atomic_size_t asked;
static atomic_int asked_times;

static void *sizing_calloc(size_t count, size_t size)
{
    atomic_store(&asked, count * size);
    atomic_fetch_add(&asked_times, 1);
    return calloc(count, size);
}

TEST(groups_and_their_jobs_are_small)
{
    struct ns_thrpool_t *tp = pool_with(1, quiet_log, sizing_calloc, free);
    struct ns_group_t *group = NULL;
    struct latch runs = LATCH_INIT;
    int before = atomic_load(&asked_times);
    assert_int_equal(ns_group_new(tp, 1, NULL, NULL, &group), NS_SUCCESS);
    assert_int_equal(atomic_load(&asked_times), before + 1);
    size_t size = atomic_load(&asked);
    for EACH_THREAD(i) {
        struct ns_job_t *job = NULL;
        assert_int_equal(ns_add_job(tp, where[i], count_and_finish, &runs, NULL), NS_SUCCESS);
        size_t outside = atomic_load(&asked);
        before = atomic_load(&asked_times);
        assert_int_equal(ns_add_group_job(group, where[i], count_and_finish, &runs, NULL), NS_SUCCESS);
        assert_int_equal(atomic_load(&asked_times), before + 1);
        size_t inside = atomic_load(&asked);
        assert_true(inside <= outside + 32);
        assert_int_equal(ns_add_timeout_job(tp, &at_once, where[i], count_and_finish, &runs, NULL),
                         NS_SUCCESS);
        outside = atomic_load(&asked);
        before = atomic_load(&asked_times);
        assert_int_equal(ns_add_timeout_job(tp, &at_once, where[i] | NS_JOB_UNARMED, count_and_finish,
                                            &runs, &job), NS_SUCCESS);
        assert_int_equal(ns_job_set_group(job, group), NS_SUCCESS);
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        assert_int_equal(atomic_load(&asked_times), before + 1);
        assert_true(atomic_load(&asked) <= outside + 32);
        assert_latch(&runs, 4 * ((long)i + 1));
    }
    ns_group_release(group);
    print_message("# an idle group asks for %zu bytes\n", size);
    assert_true(size <= 128);
    pool_end(tp);
}

/* The functions of the interface leave errno alone. */
TEST(errno_is_left_alone)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct crew crew;
    struct member member;
    errno = 4711;
    crew_begin(&crew, tp, 1);
    assert_int_equal(errno, 4711);
    member = (struct member){.crew = &crew};
    struct ns_job_t *job = member_make(&member, NS_JOB_THREAD);
    ns_group_hold(crew.group);
    ns_group_suspend(crew.group);
    ns_job_rearm(job);
    assert_int_equal(ns_group_wait(crew.group, &(struct timeval){0, 100}), NS_TIMEOUT);
    ns_group_get_length(crew.group);
    ns_group_is_current(crew.group);
    ns_group_set_limit(crew.group, 3);
    ns_group_resume(crew.group);
    assert_int_equal(ns_group_resume(crew.group), NS_INVALID_STATE);
    ns_job_set_group(NULL, crew.group);
    assert_int_equal(ns_group_wait(crew.group, NULL), NS_SUCCESS);
    ns_group_cancel(crew.group);
    ns_group_release(crew.group);
    assert_int_equal(errno, 4711);
    crew_end(&crew);
    pool_end(tp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_group_is_made_of_any_width_and_answers),
        cmocka_unit_test(a_group_needs_neither_data_nor_a_done_callback),
        cmocka_unit_test(making_a_group_refuses_what_it_cannot_do),
        cmocka_unit_test(without_memory_nothing_has_happened),
        cmocka_unit_test(adding_refuses_what_ns_add_job_would_and_what_is_no_run_now_job),
        cmocka_unit_test(the_job_is_written_before_it_can_run),
        cmocka_unit_test(a_job_of_any_kind_is_put_in_for_good),
        cmocka_unit_test(a_created_job_is_put_in_too),
        cmocka_unit_test(a_job_that_was_armed_or_is_in_a_group_is_not_put_in),
        cmocka_unit_test(another_pools_group_and_null_are_refused),
        cmocka_unit_test(a_cancelled_group_takes_nothing_more),
        cmocka_unit_test(null_is_nothing_or_refused),
        cmocka_unit_test(groups_and_their_jobs_are_small),
        cmocka_unit_test(errno_is_left_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
