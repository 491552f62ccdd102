/* SPDX-License-Identifier: GPL-3.0-or-later */
/* ns_group_wait, and ns_job_wait on a job of a group of width 1: what they wait for, and where they would
 * never end, they refuse. */
#include "fm.h"
#include "groups.h"
#include "sockets.h"

static const struct timeval short_time = {0, 20000};
static const struct timeval long_time = {LIMIT_SECONDS, 0};

TEST(an_idle_group_is_no_wait)
{
    struct ns_thrpool_t *tp = checked_pool(1);
    for (size_t width = 0; width < 3; width++) {
        struct crew crew;
        crew_begin(&crew, tp, width);
        struct member member = {.crew = &crew};
        for (int i = 0; i < 2; i++) {
            assert_int_equal(ns_group_wait(crew.group, NULL), NS_SUCCESS);
            assert_int_equal(ns_group_wait(crew.group, &at_once), NS_SUCCESS);
            assert_int_equal(ns_group_wait(crew.group, &far_away), NS_SUCCESS);
            /* The second time with a job that is WAITING. */
            if (i == 0) {
                struct ns_job_t *job = member_make(&member, NS_JOB_THREAD);
                assert_int_equal(ns_group_wait(crew.group, NULL), NS_SUCCESS);
                assert_int_equal(ns_job_done(job), NS_SUCCESS);
                assert_int_equal(ns_group_wait(crew.group, NULL), NS_SUCCESS);
                /* It is gone with its done callback returned. */
                assert_int_equal(atomic_load(&member.disposals), 1);
            }
        }
        crew_end(&crew);
    }
    checked_end(tp);
}

TEST(bad_times_are_refused)
{
    struct ns_thrpool_t *tp = checked_pool(1);
    struct crew crew;
    crew_begin(&crew, tp, 1);
    const struct timeval bad[] = {{-1, 0}, {0, -1}, {1, -1}, {-1, 999999}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(ns_group_wait(crew.group, &bad[i]), NS_INVALID_REQUEST);
    }
    const struct timeval odd = {0, 1500000};
    assert_int_equal(ns_group_wait(crew.group, &odd), NS_SUCCESS);
    crew_end(&crew);
    checked_end(tp);
}

/* Whatever is armed, queued or running is waited for, and the time is kept. */
TEST(the_time_is_up_while_something_is_armed_queued_or_running)
{
    struct ns_thrpool_t *tp = checked_pool(2);
    int ends[2];
    socket_pair(ends);
    const struct trigger on = {&far_away, ends[0], NS_JOB_READ | NS_JOB_PRESERVE_FD};
    for (size_t width = 0; width < 3; width++) {
        for (int state = 0; state < 6; state++) {
            struct crew crew;
            struct gate gate = GATE_INIT;
            crew_begin(&crew, tp, width);
            struct member member = {.crew = &crew, .gate = &gate, .act = do_nothing};
            struct ns_job_t *job;
            switch (state) {
            case 0: job = member_add_kind(&member, KIND_TIMER, &on, where[width & 1]); break;
            case 1: job = member_add_kind(&member, KIND_FD, &on, where[width & 1]); break;
            case 2: job = member_add_kind(&member, KIND_SIGNAL, &on, where[width & 1]); break;
            case 3:
                assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
                job = member_add(&member, where[width & 1]);
                break;
            default:
                job = member_add(&member, where[state & 1]);
                assert_latch(&gate.begun, 1);
            }
            double begin = now_seconds();
            assert_int_equal(ns_group_wait(crew.group, &at_once), NS_TIMEOUT);
            assert_int_equal(ns_group_wait(crew.group, &short_time), NS_TIMEOUT);
            assert_true(now_seconds() - begin >= 0.02);
            latch_add(&gate.leave, 1);
            if (state < 4) {
                assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
            }
            assert_int_equal(ns_group_wait(crew.group, &long_time), NS_SUCCESS);
            if (state >= 4) {
                assert_int_equal(ns_job_done(job), NS_SUCCESS); /* it was WAITING */
                assert_int_equal(ns_group_wait(crew.group, &long_time), NS_SUCCESS);
            }
            assert_int_equal(atomic_load(&member.disposals), 1);
            crew_end(&crew);
        }
    }
    checked_end(tp);
    close(ends[0]);
    close(ends[1]);
}

/* Several threads wait for one group; the last of its jobs releases all. */
struct waiting {
    struct crew *crew;
    const struct timeval *tv;
    struct latch *entered;
    ns_result_t result;
    int runs;
    int disposals;
};

static void *wait_for_group(void *arg)
{
    struct waiting *waiting = arg;
    latch_add(waiting->entered, 1);
    waiting->result = ns_group_wait(waiting->crew->group, waiting->tv);
    waiting->runs = atomic_load(&waiting->crew->at);
    waiting->disposals = (int)latch_count(&waiting->crew->disposals);
    return NULL;
}

TEST(all_who_wait_are_released_by_the_last_job)
{
    enum { WAITERS = 8, JOBS = 50 };
    struct ns_thrpool_t *tp = checked_pool(2);
    for (int round = 0; round < 3 + scaled(300); round++) {
        struct crew crew;
        struct gate gate = GATE_INIT;
        struct latch entered = LATCH_INIT;
        struct member members[JOBS];
        struct waiting waiting[WAITERS];
        pthread_t threads[WAITERS];
        crew_begin(&crew, tp, (size_t)round % 3);
        for (int i = 0; i < JOBS; i++) {
            members[i] = (struct member){.crew = &crew, .gate = i == 0 ? &gate : NULL};
            member_add(&members[i], where[i == 0 || i % 2]);
        }
        for (int i = 0; i < WAITERS; i++) {
            waiting[i] = (struct waiting){&crew, i % 2 ? &long_time : NULL, &entered, NS_SHUTDOWN, 0, 0};
            threads[i] = start_thread(wait_for_group, &waiting[i]);
        }
        assert_latch(&entered, WAITERS);
        latch_add(&gate.leave, 1);
        for (int i = 0; i < WAITERS; i++) {
            pthread_join(threads[i], NULL);
            assert_int_equal(waiting[i].result, NS_SUCCESS);
            assert_int_equal(waiting[i].runs, JOBS);
            assert_int_equal(waiting[i].disposals, JOBS);
        }
        crew_end(&crew);
    }
    checked_end(tp);
}

/* What a callback wrote is visible to who waited, and nothing runs any more then. */
TEST(after_the_wait_nothing_of_the_group_runs)
{
    struct ns_thrpool_t *tp = checked_pool(3);
    struct crew crew;
    crew_begin(&crew, tp, 0);
    for (int round = 0; round < scaled(3000); round++) {
        struct member members[6];
        for (int i = 0; i < 6; i++) {
            members[i] = (struct member){.crew = &crew};
            member_add(&members[i], where[i % 3 > 0]);
        }
        assert_int_equal(ns_group_wait(crew.group, NULL), NS_SUCCESS);
        assert_int_equal(atomic_load(&crew.inside), 0);
        for (int i = 0; i < 6; i++) {
            assert_int_equal(atomic_load(&members[i].runs), 1);
            assert_int_equal(atomic_load(&members[i].disposals), 1);
        }
    }
    crew_end(&crew);
    checked_end(tp);
}

/* A job that can no longer run is not waited for: SHUTDOWN. */
TEST(what_can_no_longer_run_is_not_waited_for)
{
    for (int i = 0; i < 6; i++) {
        struct ns_thrpool_t *tp = checked_pool(1);
        struct crew crew;
        struct latch entered = LATCH_INIT;
        const struct trigger on = {&far_away, -1, 0};
        crew_begin(&crew, tp, (size_t)i % 3);
        struct member member = {.crew = &crew};
        if (i % 2 == 0) {
            member_add_kind(&member, KIND_TIMER, &on, NS_JOB_NONE);
        } else {
            assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
            member_add(&member, NS_JOB_THREAD);
        }
        struct waiting waiting = {&crew, i < 3 ? NULL : &long_time, &entered, NS_SUCCESS, 0, 0};
        pthread_t thread = start_thread(wait_for_group, &waiting);
        assert_latch(&entered, 1);
        ns_thrpool_shutdown(tp);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        pthread_join(thread, NULL);
        assert_int_equal(waiting.result, NS_SHUTDOWN);
        assert_int_equal(ns_group_wait(crew.group, NULL), NS_SHUTDOWN);
        assert_int_equal(ns_group_wait(crew.group, &at_once), NS_SHUTDOWN);
        /* When they are gone there is nothing to wait for. */
        assert_int_equal(ns_group_cancel(crew.group), NS_SUCCESS);
        EVENTUALLY(latch_count(&crew.disposals) == 1);
        EVENTUALLY(ns_group_wait(crew.group, &at_once) == NS_SUCCESS);
        crew_end(&crew);
        ns_thrpool_destroy(tp);
        heap_check(&the_heap);
    }
}

/* Where it would wait for itself: in callbacks of the group, and in the loop. */
struct inside {
    struct crew *crew;      /* of the group that is waited for */
    int nothing_to_wait_for; /* but the caller's own job */
    struct latch over;
};

static void wait_inside(struct ns_job_t *job)
{
    struct inside *inside = ns_job_get_data(job);
    struct crew *crew = inside->crew;
    ns_result_t want = inside->nothing_to_wait_for ? NS_SUCCESS : NS_INVALID_STATE;
    crew_expect(crew, ns_group_wait(crew->group, NULL) == want);
    crew_expect(crew, ns_group_wait(crew->group, &at_once) == want);
    crew_expect(crew, ns_group_wait(crew->group, &long_time) == want);
    ns_job_done(job);
    latch_add(&inside->over, 1);
}

TEST(in_the_loop_and_in_own_callbacks_it_is_refused_unless_it_need_not_wait)
{
    struct ns_thrpool_t *tp = checked_pool(2);
    for (int i = 0; i < 24; i++) {
        int busy = i & 1, own = i & 2, threaded = i & 4;
        struct crew crew;
        const struct trigger on = {&far_away, -1, 0};
        crew_begin(&crew, tp, (size_t)i / 8);
        struct inside inside = {&crew, !busy, LATCH_INIT};
        struct member member = {.crew = &crew}, idle = {.crew = &crew};
        struct ns_job_t *timer = NULL, *job = NULL, *waiting = NULL;
        if (!own && threaded) {
            crew_end(&crew);
            continue; /* a worker may wait for another group: below */
        }
        waiting = member_make(&idle, NS_JOB_THREAD);
        if (busy) {
            timer = member_add_kind(&member, KIND_TIMER, &on, NS_JOB_THREAD);
        }
        ns_job_type_t type = threaded ? NS_JOB_THREAD : NS_JOB_NONE;
        assert_int_equal(own ? ns_add_group_job(crew.group, type, wait_inside, &inside, &job)
                             : ns_add_job(tp, type, wait_inside, &inside, &job), NS_SUCCESS);
        assert_latch(&inside.over, 1);
        if (timer != NULL) {
            assert_int_equal(ns_job_cancel(timer), NS_SUCCESS);
        }
        assert_int_equal(ns_job_done(waiting), NS_SUCCESS);
        crew_end(&crew);
    }
    checked_end(tp);
}

/* A done callback of the group's is one of its callbacks. */
static void gone_and_wait(struct ns_job_t *job)
{
    struct member *member = ns_job_get_data(job);
    struct crew *crew = member->crew;
    ns_result_t want = crew->plain ? NS_INVALID_STATE : NS_SUCCESS;
    crew_expect(crew, ns_group_wait(crew->group, &long_time) == want);
    crew_expect(crew, ns_group_wait(crew->group, NULL) == want);
    member_gone(job);
}

TEST(in_a_done_callback_of_the_group_too)
{
    struct ns_thrpool_t *tp = checked_pool(1);
    for (int busy = 0; busy < 2; busy++) {
        for EACH_THREAD(i) {
            struct crew crew;
            const struct trigger on = {&far_away, -1, 0};
            crew_begin(&crew, tp, 1);
            crew.plain = busy;
            struct member members[2] = {{.crew = &crew}, {.crew = &crew}};
            struct ns_job_t *timer = NULL;
            if (busy) {
                timer = member_add_kind(&members[1], KIND_TIMER, &on, NS_JOB_THREAD);
            }
            struct ns_job_t *job = member_make(&members[0], where[i]);
            assert_int_equal(ns_job_set_done_cb(job, gone_and_wait), NS_SUCCESS);
            assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
            assert_latch(&crew.disposals, 1);
            if (busy) {
                assert_int_equal(ns_job_cancel(timer), NS_SUCCESS);
            }
            crew_end(&crew);
        }
    }
    checked_end(tp);
}

/* A worker may wait for a group that its job is not in. */
static void wait_elsewhere(struct ns_job_t *job)
{
    struct inside *inside = ns_job_get_data(job);
    crew_expect(inside->crew, ns_group_wait(inside->crew->group, &long_time) == NS_SUCCESS);
    crew_expect(inside->crew, latch_count(&inside->crew->disposals) == 5);
    ns_job_done(job);
    latch_add(&inside->over, 1);
}

TEST(a_worker_may_wait_for_another_group)
{
    struct ns_thrpool_t *tp = checked_pool(2);
    struct crew crew, other;
    struct gate gate = GATE_INIT;
    struct member members[5];
    crew_begin(&crew, tp, 1);
    crew_begin(&other, tp, 1);
    struct inside inside = {&crew, 0, LATCH_INIT};
    for (int i = 0; i < 5; i++) {
        members[i] = (struct member){.crew = &crew, .gate = i == 0 ? &gate : NULL};
        member_add(&members[i], where[i == 0 || i % 2]);
    }
    assert_latch(&gate.begun, 1);
    assert_int_equal(ns_add_group_job(other.group, NS_JOB_THREAD, wait_elsewhere, &inside, NULL),
                     NS_SUCCESS);
    latch_add(&gate.leave, 1);
    assert_latch(&inside.over, 1);
    crew_end(&crew);
    crew_end(&other);
    checked_end(tp);
}

/* ns_job_wait and ns_job_timedwait, inside another callback of the same group. */
struct job_wait {
    struct crew *crew;
    struct ns_job_t *target;
    ns_result_t want;
    struct latch over;
};

static void wait_for_job(struct ns_job_t *job)
{
    struct job_wait *wait = ns_job_get_data(job);
    struct crew *crew = wait->crew;
    crew_expect(crew, ns_job_timedwait(wait->target, &at_once) == wait->want);
    if (wait->want != NS_TIMEOUT) {
        crew_expect(crew, ns_job_wait(wait->target) == wait->want);
        crew_expect(crew, ns_job_timedwait(wait->target, &long_time) == wait->want);
    } else {
        crew_expect(crew, ns_job_timedwait(wait->target, &short_time) == NS_TIMEOUT);
    }
    crew_expect(crew, ns_job_wait(job) == NS_INVALID_STATE);
    ns_job_done(job);
    latch_add(&wait->over, 1);
}

TEST(a_wait_for_another_job_of_the_same_strand_is_refused_unless_it_is_idle)
{
    struct ns_thrpool_t *tp = checked_pool(2);
    for (int state = 0; state < 3; state++) { /* idle, armed, queued */
        for (size_t width = 1; width <= 2; width++) {
            struct crew crew;
            const struct trigger on = {&far_away, -1, 0};
            crew_begin(&crew, tp, width);
            struct member member = {.crew = &crew, .act = do_nothing};
            struct job_wait wait = {&crew, NULL, NS_SUCCESS, LATCH_INIT};
            struct gate gates[2] = {GATE_INIT, GATE_INIT};
            struct member fills[2] = {{.crew = &crew, .gate = &gates[0]}, {.crew = &crew}};
            if (state != 0) {
                wait.want = width == 1 ? NS_INVALID_STATE : NS_TIMEOUT;
            }
            if (width == 2) {
                /* The second place is taken, so that what is queued stays so. */
                member_add(&fills[0], NS_JOB_THREAD);
                assert_latch(&gates[0].begun, 1);
            }
            assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
            assert_int_equal(ns_add_group_job(crew.group, NS_JOB_THREAD, wait_for_job, &wait, NULL),
                             NS_SUCCESS);
            wait.target = state == 1 ? member_make_kind(&member, KIND_TIMER, &on, NS_JOB_THREAD)
                                     : member_make(&member, NS_JOB_THREAD);
            if (state != 0) {
                assert_int_equal(ns_job_rearm(wait.target), NS_SUCCESS);
            }
            assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
            assert_latch(&wait.over, 1);
            latch_add(&gates[0].leave, 1);
            crew_cancel_and_end(&crew);
        }
    }
    checked_end(tp);
}

/* Only width 1 is a strand: from a worker's job outside, a wait for a job of a group is as ever. */
TEST(from_outside_a_job_of_a_group_is_waited_for_as_any)
{
    struct ns_thrpool_t *tp = checked_pool(1);
    for (size_t width = 0; width < 3; width++) {
        struct crew crew;
        struct gate gate = GATE_INIT;
        crew_begin(&crew, tp, width);
        struct member member = {.crew = &crew, .gate = &gate, .act = do_nothing};
        struct ns_job_t *job = member_add(&member, where[width & 1]);
        assert_latch(&gate.begun, 1);
        assert_int_equal(ns_job_timedwait(job, &short_time), NS_TIMEOUT);
        latch_add(&gate.leave, 1);
        assert_int_equal(ns_job_wait(job), NS_SUCCESS);
        assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        assert_int_equal(ns_job_timedwait(job, &short_time), NS_TIMEOUT);
        assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
        assert_int_equal(ns_job_timedwait(job, &long_time), NS_SUCCESS);
        assert_int_equal(ns_job_done(job), NS_SUCCESS);
        crew_end(&crew);
        assert_int_equal(atomic_load(&member.runs), 2);
    }
    checked_end(tp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_idle_group_is_no_wait),
        cmocka_unit_test(bad_times_are_refused),
        cmocka_unit_test(the_time_is_up_while_something_is_armed_queued_or_running),
        cmocka_unit_test(all_who_wait_are_released_by_the_last_job),
        cmocka_unit_test(after_the_wait_nothing_of_the_group_runs),
        cmocka_unit_test(what_can_no_longer_run_is_not_waited_for),
        cmocka_unit_test(in_the_loop_and_in_own_callbacks_it_is_refused_unless_it_need_not_wait),
        cmocka_unit_test(in_a_done_callback_of_the_group_too),
        cmocka_unit_test(a_worker_may_wait_for_another_group),
        cmocka_unit_test(a_wait_for_another_job_of_the_same_strand_is_refused_unless_it_is_idle),
        cmocka_unit_test(from_outside_a_job_of_a_group_is_waited_for_as_any),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
