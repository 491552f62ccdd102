/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Groups: no call waits for a callback, none holds a lock while the application's code runs, and counts are
 * as large as anybody needs. */
#include "fm.h"
#include "groups.h"
#include "sockets.h"

/* The application's lock: whoever has it may call, and callbacks may want it. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct latch wanted = LATCH_INIT;

static void want_the_lock(struct ns_job_t *job)
{
    latch_add(&wanted, 1);
    pthread_mutex_lock(&lock);
    pthread_mutex_unlock(&lock);
    ns_job_done(job);
}

static void gone_and_want(struct ns_job_t *job)
{
    latch_add(&wanted, 1);
    pthread_mutex_lock(&lock);
    pthread_mutex_unlock(&lock);
    member_gone(job);
}

static void ended_and_want(struct ns_group_t *group)
{
    latch_add(&wanted, 1);
    pthread_mutex_lock(&lock);
    pthread_mutex_unlock(&lock);
    crew_ended(group);
}

/* Call all that acts on a group, while its callback waits for what the caller has. */
static void call_everything(struct crew *crew, ns_result_t cancelled)
{
    struct ns_group_t *group = crew->group;
    struct ns_job_t *job = NULL;
    const struct trigger on = {&far_away, -1, 0};
    assert_int_equal(ns_add_group_job(group, NS_JOB_THREAD, finish_job, NULL, NULL), NS_SUCCESS);
    assert_int_equal(ns_add_group_job(group, NS_JOB_UNARMED, finish_job, NULL, &job), NS_SUCCESS);
    assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
    assert_int_equal(add_kind(crew->tp, KIND_TIMER, &on, NS_JOB_UNARMED, finish_job, NULL, &job),
                     NS_SUCCESS);
    assert_int_equal(ns_job_set_group(job, group), NS_SUCCESS);
    assert_ptr_equal(ns_job_get_group(job), group);
    assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
    assert_int_equal(ns_group_suspend(group), NS_SUCCESS);
    assert_int_equal(ns_group_resume(group), NS_SUCCESS);
    assert_int_equal(ns_group_set_limit(group, 1000), NS_SUCCESS);
    assert_true(ns_group_get_length(group) <= 1);
    assert_ptr_equal(ns_group_get_data(group), crew);
    assert_ptr_equal(ns_group_get_tp(group), crew->tp);
    assert_int_equal(ns_group_is_current(group), 0);
    assert_int_equal(ns_group_wait(group, &at_once), NS_TIMEOUT);
    assert_int_equal(ns_group_cancel(group), cancelled);
    ns_group_hold(group);
    ns_group_release(group);
}

/* To see it fail: keep the group's lock while a callback runs. */
TEST(no_call_waits_for_a_callback_that_wants_the_callers_lock)
{
    struct ns_thrpool_t *tp = checked_pool(2);
    for (size_t width = 0; width < 3; width++) {
        for (int i = 0; i < 4; i++) { /* in a callback, in a done callback */
            struct crew crew;
            wanted = (struct latch)LATCH_INIT;
            crew_begin(&crew, tp, width);
            struct member member = {.crew = &crew};
            pthread_mutex_lock(&lock);
            if (i < 2) {
                assert_int_equal(ns_add_group_job(crew.group, where[i], want_the_lock, NULL, NULL),
                                 NS_SUCCESS);
            } else {
                struct ns_job_t *job = member_make(&member, where[i % 2]);
                assert_int_equal(ns_job_set_done_cb(job, gone_and_want), NS_SUCCESS);
                assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
            }
            assert_latch(&wanted, 1);
            call_everything(&crew, NS_RUNNING);
            pthread_mutex_unlock(&lock);
            crew_end(&crew);
        }
    }
    checked_end(tp);
}

/* In the group's own done callback, other groups, and the pool, go on. */
TEST(a_done_callback_of_a_group_that_blocks_holds_its_thread_only)
{
    struct ns_thrpool_t *tp = checked_pool(2);
    for (size_t width = 0; width < 3; width++) {
        struct crew crew = CREW_INIT, other;
        wanted = (struct latch)LATCH_INIT;
        crew.tp = tp;
        pthread_mutex_lock(&lock);
        assert_int_equal(ns_group_new(tp, width, &crew, ended_and_want, &crew.group), NS_SUCCESS);
        ns_group_release(crew.group);
        assert_latch(&wanted, 1);
        for (int i = 0; i < 50; i++) {
            crew_begin(&other, tp, width);
            struct member member = {.crew = &other};
            member_add(&member, NS_JOB_THREAD);
            assert_latch(&other.runs, 1);
            ns_group_release(other.group);
            assert_latch(&other.ended, 1);
        }
        pthread_mutex_unlock(&lock);
        assert_latch(&crew.ended, 1);
        crew_check(&crew);
    }
    checked_end(tp);
}

/* A logger that calls the getters, on whatever the message is about. */
static struct ns_group_t *logged_group;
static struct ns_job_t *logged_job;
static atomic_int looks;

static void log_and_look(int priority, const char *format, va_list args)
{
    UNUSED(priority);
    UNUSED(format);
    UNUSED(args);
    if (logged_group != NULL) {
        ns_group_get_length(logged_group);
        ns_group_is_current(logged_group);
        ns_group_get_data(logged_group);
        ns_group_get_tp(logged_group);
        ns_job_get_group(logged_job);
        atomic_fetch_add(&looks, 1);
    }
}

/* To see it fail: log a refusal under the group's lock. */
TEST(a_logger_may_call_the_getters)
{
    struct ns_thrpool_t *tp = pool_logging_to(1, log_and_look);
    struct crew crew;
    const struct trigger on = {&far_away, -1, 0};
    crew_begin(&crew, tp, 1);
    struct member member = {.crew = &crew};
    logged_job = member_make_kind(&member, KIND_TIMER, &on, NS_JOB_NONE);
    logged_group = crew.group;
    atomic_store(&looks, 0);
    assert_int_equal(ns_job_set_group(logged_job, crew.group), NS_INVALID_STATE);
    assert_int_equal(ns_group_resume(crew.group), NS_INVALID_STATE);
    assert_int_equal(ns_group_set_limit(crew.group, 1), NS_SUCCESS);
    assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
    assert_int_equal(ns_add_group_job(crew.group, NS_JOB_THREAD, finish_job, NULL, NULL), NS_SUCCESS);
    assert_int_equal(ns_add_group_job(crew.group, NS_JOB_THREAD, finish_job, NULL, NULL), NS_OVERLOADED);
    assert_int_equal(ns_add_group_job(crew.group, NS_JOB_READ, finish_job, NULL, NULL),
                     NS_INVALID_REQUEST);
    assert_int_equal(ns_group_wait(crew.group, &(struct timeval){-1, 0}), NS_INVALID_REQUEST);
    assert_true(atomic_load(&looks) >= 5);
    ns_thrpool_shutdown(tp);
    int before = atomic_load(&looks);
    assert_int_equal(ns_add_group_job(crew.group, NS_JOB_THREAD, finish_job, NULL, NULL), NS_SHUTDOWN);
    assert_true(atomic_load(&looks) > before);
    logged_group = NULL;
    assert_int_equal(ns_group_cancel(crew.group), NS_SUCCESS);
    crew_end(&crew);
    pool_end(tp);
}

/* As many suspensions as are counted, and one more, which is refused. */
TEST(a_group_may_be_suspended_65535_times)
{
    struct ns_thrpool_t *tp = checked_pool(1);
    struct crew crew;
    crew_begin(&crew, tp, 1);
    struct member member = {.crew = &crew};
    for (int i = 0; i < 65535; i++) {
        assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
    }
    assert_int_equal(ns_group_suspend(crew.group), NS_INVALID_STATE);
    member_add(&member, NS_JOB_THREAD);
    for (int i = 0; i < 65534; i++) {
        assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
    }
    everyone_passes(tp, 1);
    assert_int_equal(atomic_load(&member.runs), 0);
    assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
    assert_int_equal(ns_group_resume(crew.group), NS_INVALID_STATE);
    crew_end(&crew);
    assert_int_equal(atomic_load(&member.runs), 1);
    checked_end(tp);
}

/* A limit beyond what can be is as good as none; it is not another limit. */
TEST(a_huge_limit_is_not_cut_to_a_small_one)
{
    struct ns_thrpool_t *tp = checked_pool(1);
    const size_t limits[] = {SIZE_MAX, (size_t)UINT32_MAX, (size_t)UINT32_MAX + 1, (size_t)UINT32_MAX + 2,
                             SIZE_MAX - UINT32_MAX + 1};
    /* In 32 bits those beyond UINT32_MAX are small. */
    const size_t count = sizeof(size_t) > 4 ? sizeof limits / sizeof *limits : 2;
    for (size_t i = 0; i < count; i++) {
        struct crew crew;
        crew_begin(&crew, tp, 1);
        assert_int_equal(ns_group_set_limit(crew.group, limits[i]), NS_SUCCESS);
        assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
        for (int n = 0; n < 100; n++) {
            assert_int_equal(ns_add_group_job(crew.group, where[n % 2], finish_job, NULL, NULL),
                             NS_SUCCESS);
        }
        assert_int_equal(ns_group_get_length(crew.group), 100);
        assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
        crew_end(&crew);
    }
    checked_end(tp);
}

/* A timer that repeats does not pile up while it waits in the queue, and its next time counts from the
 * callback's return. */
TEST(a_repeating_timer_is_in_the_queue_once)
{
    struct ns_thrpool_t *tp = checked_pool(1);
    for EACH_THREAD(i) {
        struct crew crew;
        struct timeval often = {0, 2000};
        const struct trigger on = {&often, -1, 0};
        crew_begin(&crew, tp, 1);
        struct member member = {.crew = &crew, .act = do_nothing};
        assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
        struct ns_job_t *job = member_add_kind(&member, KIND_TIMER, &on, where[i] | NS_JOB_PERSIST);
        EVENTUALLY(ns_group_get_length(crew.group) == 1);
        loop_passes(tp, 30000);
        assert_int_equal(ns_group_get_length(crew.group), 1);
        double begin = now_seconds();
        assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
        assert_latch(&crew.runs, 3);
        /* The second and the third are a period later each, and not what was missed. */
        assert_true(now_seconds() - begin >= 0.004);
        assert_true(ns_job_cancel(job) <= NS_RUNNING);
        crew_end(&crew);
    }
    checked_end(tp);
}

/* Several jobs of a group on one descriptor, and one of them closes it: the rule is as outside. */
TEST(jobs_of_a_group_share_a_descriptor)
{
    struct ns_thrpool_t *tp = checked_pool(2);
    for (size_t width = 0; width < 3; width++) {
        struct crew crew;
        int ends[2];
        socket_pair(ends);
        const struct trigger reads = {&far_away, ends[0], NS_JOB_READ | NS_JOB_PRESERVE_FD};
        const struct trigger writes = {&far_away, ends[0], NS_JOB_WRITE | NS_JOB_PRESERVE_FD};
        crew_begin(&crew, tp, width);
        struct member members[4];
        for (int i = 0; i < 4; i++) {
            members[i] = (struct member){.crew = &crew};
        }
        member_add_kind(&members[0], KIND_FD, &reads, NS_JOB_THREAD);
        member_add_kind(&members[1], KIND_FD, &writes, NS_JOB_NONE);
        assert_latch(&crew.disposals, 1);
        assert_int_equal(atomic_load(&members[1].output), NS_JOB_WRITE);
        send_byte(ends[1]);
        assert_latch(&crew.disposals, 2);
        assert_int_equal(atomic_load(&members[0].output), NS_JOB_READ);
        /* What was closed, and its number reused, disturbs nobody. */
        close(ends[0]);
        close(ends[1]);
        socket_pair(ends);
        const struct trigger again = {&far_away, ends[0], NS_JOB_READ};
        member_add_kind(&members[2], KIND_FD, &again, NS_JOB_NONE);
        send_byte(ends[1]);
        assert_latch(&crew.disposals, 3);
        assert_false(fd_is_open(ends[0]));
        crew_end(&crew);
        close(ends[1]);
    }
    checked_end(tp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_call_waits_for_a_callback_that_wants_the_callers_lock),
        cmocka_unit_test(a_done_callback_of_a_group_that_blocks_holds_its_thread_only),
        cmocka_unit_test(a_logger_may_call_the_getters),
        cmocka_unit_test(a_group_may_be_suspended_65535_times),
        cmocka_unit_test(a_huge_limit_is_not_cut_to_a_small_one),
        cmocka_unit_test(a_repeating_timer_is_in_the_queue_once),
        cmocka_unit_test(jobs_of_a_group_share_a_descriptor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
