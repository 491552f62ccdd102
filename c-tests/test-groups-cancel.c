/* SPDX-License-Identifier: GPL-3.0-or-later */
/* ns_group_cancel: every job of a group ends, in whatever state, and the result says whether callbacks
 * still run. */
#include "fm.h"
#include "groups.h"
#include "sockets.h"

/* Jobs of every kind, in the loop and in workers: idle, armed, and in the queue. */
TEST(jobs_of_every_kind_and_state_end_without_a_run)
{
    enum { JOBS = 2 * KINDS * 3 };
    struct ns_thrpool_t *tp = checked_pool(2);
    signal(SIGUSR1, SIG_IGN);
    for (size_t width = 0; width < 3; width++) {
        for (int suspended = 0; suspended < 2; suspended++) {
            struct crew crew;
            struct member members[JOBS];
            int ends[JOBS][2], queued = 0;
            crew_begin(&crew, tp, width);
            assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
            for (int i = 0; i < JOBS; i++) {
                int kind = i / 2 % KINDS, state = i / (2 * KINDS); /* idle, armed, queued */
                members[i] = (struct member){.crew = &crew, .number = i};
                socket_pair(ends[i]);
                const struct trigger on = {state == 2 && kind == KIND_TIMER ? &at_once : &far_away,
                                           ends[i][0], NS_JOB_READ};
                struct ns_job_t *job = member_make_kind(&members[i], kind, &on, where[i % 2]);
                if (kind == KIND_FD || kind == KIND_FD_TIMEOUT) {
                    if (state == 2) {
                        send_byte(ends[i][1]);
                    }
                } else {
                    close(ends[i][0]);
                }
                if (state == 2 && kind != KIND_SIGNAL) {
                    assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
                    queued++;
                } else if (state == 1 && kind != KIND_NOW) {
                    assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
                }
            }
            EVENTUALLY(ns_group_get_length(crew.group) == (size_t)queued);
            assert_int_equal(ns_group_cancel(crew.group), NS_SUCCESS);
            if (!suspended) {
                assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
            }
            assert_int_equal(ns_group_get_length(crew.group), 0);
            assert_latch(&crew.disposals, JOBS);
            assert_int_equal(ns_group_wait(crew.group, NULL), NS_SUCCESS);
            crew_end(&crew);
            assert_int_equal(atomic_load(&crew.at), 0);
            for (int i = 0; i < JOBS; i++) {
                assert_int_equal(atomic_load(&members[i].disposals), 1);
                if (i / 2 % KINDS == KIND_FD || i / 2 % KINDS == KIND_FD_TIMEOUT) {
                    assert_int_equal(send(ends[i][1], "x", 1, MSG_NOSIGNAL), -1);
                }
                close(ends[i][1]);
            }
        }
    }
    checked_end(tp);
    signal(SIGUSR1, SIG_DFL);
}

TEST(an_empty_group_is_cancelled_and_again)
{
    struct ns_thrpool_t *tp = checked_pool(1);
    struct crew crew;
    crew_begin(&crew, tp, 1);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ns_group_cancel(crew.group), NS_SUCCESS);
    }
    crew_end(&crew);
    checked_end(tp);
}

/* While some run it says so, as often as it is asked; those are the last runs, and no other begins. */
TEST(callbacks_that_run_are_said_to_run_and_are_the_last)
{
    enum { JOBS = 20 };
    for (int i = 0; i < 6; i++) {
        struct ns_thrpool_t *tp = checked_pool(2);
        struct crew crew;
        struct gate gate = GATE_INIT;
        struct member members[JOBS];
        struct ns_job_t *jobs[JOBS];
        ns_job_type_t first = where[i % 2] | (i >= 4 ? NS_JOB_PERSIST : 0);
        crew_begin(&crew, tp, i / 2 == 0 ? 0 : 1);
        members[0] = (struct member){.crew = &crew, .gate = &gate, .act = do_nothing};
        jobs[0] = member_add(&members[0], first);
        assert_latch(&gate.begun, 1);
        assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
        for (int n = 1; n < JOBS; n++) {
            members[n] = (struct member){.crew = &crew};
            jobs[n] = member_add(&members[n], where[n % 2]);
        }
        if (i == 2) {
            assert_int_equal(ns_job_rearm(jobs[0]), NS_SUCCESS); /* recorded, and void */
        }
        assert_int_equal(ns_group_cancel(crew.group), NS_RUNNING);
        assert_int_equal(ns_group_cancel(crew.group), NS_RUNNING);
        assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
        assert_int_equal(ns_group_get_length(crew.group), 0);
        assert_int_equal(atomic_load(&members[0].disposals), 0);
        latch_add(&gate.leave, 1);
        assert_latch(&crew.disposals, JOBS);
        EVENTUALLY(ns_group_cancel(crew.group) == NS_SUCCESS);
        crew_end(&crew);
        assert_int_equal(atomic_load(&crew.at), 1);
        checked_end(tp);
    }
}

/* A done callback counts as one that runs. */
static struct gate gone_gate;

static void gone_and_stay(struct ns_job_t *job)
{
    stay_in_gate(&gone_gate);
    member_gone(job);
}

TEST(a_done_callback_that_runs_is_said_to_run)
{
    for EACH_THREAD(i) {
        struct ns_thrpool_t *tp = checked_pool(2);
        struct crew crew;
        gone_gate = (struct gate)GATE_INIT;
        crew_begin(&crew, tp, i);
        struct member member = {.crew = &crew};
        struct ns_job_t *job = member_make(&member, where[i]);
        assert_int_equal(ns_job_set_done_cb(job, gone_and_stay), NS_SUCCESS);
        assert_int_equal(ns_job_done(job), NS_SUCCESS);
        assert_latch(&gone_gate.begun, 1);
        assert_int_equal(ns_group_cancel(crew.group), NS_RUNNING);
        latch_add(&gone_gate.leave, 1);
        EVENTUALLY(ns_group_cancel(crew.group) == NS_SUCCESS);
        crew_end(&crew);
        checked_end(tp);
    }
}

/* From a callback of its own: the caller's own run aside, nothing runs. */
static void cancel_own_group(struct ns_job_t *job)
{
    struct member *member = ns_job_get_data(job);
    struct crew *crew = member->crew;
    ns_result_t result = ns_group_cancel(crew->group);
    crew_expect(crew, result == (crew->plain ? NS_RUNNING : NS_SUCCESS));
    crew_expect(crew, ns_add_group_job(crew->group, NS_JOB_THREAD, do_nothing, NULL, NULL) ==
                          NS_DELETING);
    crew_expect(crew, ns_job_rearm(job) == NS_INVALID_STATE);
    crew_expect(crew, ns_job_done(job) == NS_SUCCESS);
    crew_expect(crew, ns_group_is_current(crew->group) == 1);
    crew_expect(crew, ns_job_get_data(job) == member);
    crew_expect(crew, atomic_load(&member->disposals) == 0);
}

TEST(from_a_callback_of_its_own_the_caller_does_not_count)
{
    enum { JOBS = 10 };
    struct ns_thrpool_t *tp = checked_pool(2);
    for (int i = 0; i < 12; i++) {
        struct crew crew;
        struct gate gates[2] = {GATE_INIT, GATE_INIT};
        struct member members[JOBS];
        int beside = i % 3 == 2; /* another runs, too */
        crew_begin(&crew, tp, beside ? 2 : (size_t)i % 3);
        crew.plain = beside;
        members[0] = (struct member){.crew = &crew, .gate = &gates[0], .act = cancel_own_group};
        members[1] = (struct member){.crew = &crew, .gate = &gates[1]};
        member_add(&members[0], where[i / 3 % 2] | (i >= 6 ? NS_JOB_PERSIST : 0));
        if (beside) {
            member_add(&members[1], NS_JOB_THREAD);
            assert_latch(&gates[1].begun, 1);
        }
        assert_latch(&gates[0].begun, 1);
        assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
        for (int n = 2; n < JOBS; n++) {
            members[n] = (struct member){.crew = &crew};
            member_add(&members[n], where[n % 2]);
        }
        latch_add(&gates[0].leave, 1);
        assert_latch(&crew.runs, 1);
        assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
        latch_add(&gates[1].leave, 1);
        crew_end(&crew);
        assert_int_equal(atomic_load(&crew.at), 1 + beside);
        assert_int_equal(latch_count(&crew.disposals), JOBS - 1 + beside);
    }
    checked_end(tp);
}

/* From the done callback of one of its jobs, and from another group's callback. */
static void gone_and_cancel(struct ns_job_t *job)
{
    struct member *member = ns_job_get_data(job);
    crew_expect(member->crew, ns_group_cancel(member->crew->group) == NS_SUCCESS);
    member_gone(job);
}

static struct crew *cancelled_from_outside;

static void cancel_another(struct ns_job_t *job)
{
    struct crew *crew = cancelled_from_outside;
    crew_expect(crew, ns_group_cancel(crew->group) == NS_SUCCESS);
    ns_job_done(job);
}

TEST(from_done_callbacks_and_from_other_groups)
{
    struct ns_thrpool_t *tp = checked_pool(2);
    for (int i = 0; i < 4; i++) {
        struct crew crew, other;
        const struct trigger on = {&far_away, -1, 0};
        crew_begin(&crew, tp, 1);
        crew_begin(&other, tp, 1);
        struct member members[2] = {{.crew = &crew}, {.crew = &crew}};
        struct member outside = {.crew = &other, .act = cancel_another};
        struct ns_job_t *job = member_make(&members[0], where[i % 2]);
        member_add_kind(&members[1], KIND_TIMER, &on, where[i % 2]);
        if (i < 2) {
            assert_int_equal(ns_job_set_done_cb(job, gone_and_cancel), NS_SUCCESS);
            assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        } else {
            cancelled_from_outside = &crew;
            member_add(&outside, where[i % 2]);
        }
        assert_latch(&crew.disposals, 2);
        crew_end(&crew);
        crew_end(&other);
        assert_int_equal(atomic_load(&members[1].runs), 0);
    }
    checked_end(tp);
}

/* It waits for nothing: not for a callback that runs, nor for a loop that is blocked. */
TEST(it_never_waits)
{
    struct ns_thrpool_t *tp = checked_pool(2);
    struct crew crew;
    struct gate gates[3] = {GATE_INIT, GATE_INIT, GATE_INIT};
    int ends[2];
    socket_pair(ends);
    const struct trigger on = {&far_away, ends[0], NS_JOB_READ};
    struct ns_job_t *loop = occupy(tp, NS_JOB_NONE, &gates[0]);
    struct ns_job_t *worker = occupy(tp, NS_JOB_THREAD, &gates[1]);
    crew_begin(&crew, tp, 1);
    struct member members[4];
    for (int i = 0; i < 4; i++) {
        members[i] = (struct member){.crew = &crew, .gate = i == 0 ? &gates[2] : NULL};
    }
    member_add(&members[0], NS_JOB_THREAD);
    assert_latch(&gates[2].begun, 1);
    member_add(&members[1], NS_JOB_NONE);
    member_add_kind(&members[2], KIND_FD, &on, NS_JOB_THREAD);
    member_make(&members[3], NS_JOB_THREAD);
    assert_int_equal(ns_group_cancel(crew.group), NS_RUNNING);
    for (int i = 0; i < 3; i++) {
        latch_add(&gates[i].leave, 1);
    }
    crew_end(&crew);
    assert_int_equal(atomic_load(&crew.at), 1);
    assert_int_equal(latch_count(&crew.disposals), 4);
    finish_idle(loop);
    finish_idle(worker);
    checked_end(tp);
    close(ends[1]);
}

/* A million members: the call returns, and the loop goes on meanwhile. */
static atomic_long beats;
static _Atomic double last_beat;
static _Atomic double longest_gap;

static void beat(struct ns_job_t *job)
{
    UNUSED(job);
    /* By the loop's own processor time: that it has to wait for a processor is not the group's doing. */
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    double now = (double)t.tv_sec + (double)t.tv_nsec / 1e9, gap = now - atomic_load(&last_beat);
    atomic_store(&last_beat, now);
    if (gap > atomic_load(&longest_gap)) {
        atomic_store(&longest_gap, gap);
    }
    atomic_fetch_add(&beats, 1);
}

static atomic_long gone_members;

static void count_member(struct ns_job_t *job)
{
    UNUSED(job);
    atomic_fetch_add(&gone_members, 1);
}

TEST(a_million_members_do_not_hold_up_the_loop)
{
    struct ns_thrpool_t *tp = pool_of(2);
    long members = count_of(200000, 1000000);
    struct timeval often = {0, 1000};
    struct ns_job_t *heart = NULL;
    for (int i = 0; i < 3; i++) {
        struct crew crew;
        crew_begin(&crew, tp, (size_t)i);
        atomic_store(&gone_members, 0);
        assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
        for (long n = 0; n < members; n++) {
            struct ns_job_t *job = NULL;
            ns_result_t result;
            if (n % 3 == 0) {
                result = ns_add_timeout_job(tp, &far_away, where[n / 3 % 2] | NS_JOB_UNARMED, do_nothing,
                                            NULL, &job);
                assert_int_equal(ns_job_set_group(job, crew.group), NS_SUCCESS);
            } else {
                result = ns_add_group_job(crew.group, where[n / 3 % 2] | NS_JOB_UNARMED, do_nothing, NULL,
                                          &job);
            }
            assert_int_equal(result, NS_SUCCESS);
            assert_int_equal(ns_job_set_done_cb(job, count_member), NS_SUCCESS);
            if (n % 3 != 2) { /* timers armed, run-now jobs queued, and others idle */
                assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
            }
        }
        loop_passes(tp, 0);
        assert_int_equal(ns_add_timeout_job(tp, &often, NS_JOB_PERSIST, beat, NULL, &heart), NS_SUCCESS);
        long begin_beats = atomic_load(&beats);
        EVENTUALLY(atomic_load(&beats) > begin_beats + 5);
        atomic_store(&longest_gap, 0);
        double begin = now_seconds();
        assert_int_equal(ns_group_cancel(crew.group), NS_SUCCESS);
        double returned = now_seconds();
        while (atomic_load(&gone_members) < members && now_seconds() < begin + LIMIT_SECONDS * 4) {
            sched_yield();
        }
        double end = now_seconds();
        long end_beats = atomic_load(&beats);
        EVENTUALLY(atomic_load(&beats) > end_beats); /* the gap that the end is in has been measured */
        double gap = atomic_load(&longest_gap);
        assert_int_equal(atomic_load(&gone_members), members);
        print_message("# %ld members: cancel took %.1f ms, all were gone after %.1f ms, the loop's timer "
                      "was held up for at most %.1f ms\n", members, (returned - begin) * 1e3,
                      (end - begin) * 1e3, gap * 1e3);
        /* Had they gone in one turn, nearly the whole time would be one gap. */
        assert_true(getenv("NS_SLOW") != NULL || gap < 0.05 || gap < (end - begin) / 4);
        assert_true(ns_job_cancel(heart) <= NS_RUNNING);
        crew_end(&crew);
    }
    pool_end(tp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_of_every_kind_and_state_end_without_a_run),
        cmocka_unit_test(an_empty_group_is_cancelled_and_again),
        cmocka_unit_test(callbacks_that_run_are_said_to_run_and_are_the_last),
        cmocka_unit_test(a_done_callback_that_runs_is_said_to_run),
        cmocka_unit_test(from_a_callback_of_its_own_the_caller_does_not_count),
        cmocka_unit_test(from_done_callbacks_and_from_other_groups),
        cmocka_unit_test(it_never_waits),
        cmocka_unit_test(a_million_members_do_not_hold_up_the_loop),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
