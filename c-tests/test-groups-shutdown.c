/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Groups at the end of their pool: what is queued in them runs, what is suspended does not, and nobody
 * waits for it. */
#include "fm.h"
#include "groups.h"
#include "sockets.h"

enum { JOBS = 300 };

static struct member members[JOBS];

/* Run-now jobs that are queued in a group run to the end, in order, the loop's and the workers'. */
static void queued_then_shut_down(size_t width, size_t workers, unsigned pattern)
{
    struct ns_thrpool_t *tp = checked_pool(workers);
    struct crew crew;
    struct gate gate = GATE_INIT;
    struct ns_job_t *blockers[8];
    for (size_t i = 0; i < workers; i++) {
        blockers[i] = occupy(tp, NS_JOB_THREAD, &gate);
    }
    struct gate loop_gate = GATE_INIT;
    struct ns_job_t *loop = occupy(tp, NS_JOB_NONE, &loop_gate);
    crew_begin(&crew, tp, width);
    for (int i = 0; i < JOBS; i++) {
        members[i] = (struct member){.crew = &crew, .number = i};
        member_add(&members[i], where[pattern >> i % 8 & 1]);
    }
    ns_thrpool_shutdown(tp);
    latch_add(&gate.leave, 1);
    latch_add(&loop_gate.leave, 1);
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    assert_int_equal(atomic_load(&crew.at), JOBS);
    if (width == 1) {
        assert_in_order(&crew, JOBS);
    }
    assert_latch(&crew.disposals, JOBS);
    assert_int_equal(ns_group_wait(crew.group, NULL), NS_SUCCESS);
    crew_end(&crew);
    for (size_t i = 0; i < workers; i++) {
        assert_int_equal(ns_job_done(blockers[i]), NS_SUCCESS);
    }
    assert_int_equal(ns_job_done(loop), NS_SUCCESS);
    ns_thrpool_destroy(tp);
    heap_check(&the_heap);
}

TEST(what_is_queued_in_a_group_runs_to_the_end)
{
    for (size_t width = 0; width < 3; width++) {
        for (size_t workers = 1; workers <= 4; workers += 3) {
            queued_then_shut_down(width, workers, 0xff);
            queued_then_shut_down(width, workers, 0x55);
            queued_then_shut_down(width, workers, 0x80); /* a worker's job at the end of loop jobs */
            queued_then_shut_down(width, workers, 0x7f);
        }
    }
}

/* The worker that is to run a group's job is held up by the loop's job before it: it stays for it. */
TEST(a_worker_stays_for_a_job_behind_one_of_the_loops)
{
    for (int round = 0; round < 3 + scaled(300); round++) {
        struct ns_thrpool_t *tp = checked_pool(1);
        struct crew crew;
        struct gate gate = GATE_INIT;
        crew_begin(&crew, tp, 1);
        members[0] = (struct member){.crew = &crew, .number = 0, .gate = &gate};
        members[1] = (struct member){.crew = &crew, .number = 1};
        member_add(&members[0], NS_JOB_NONE);
        member_add(&members[1], NS_JOB_THREAD);
        assert_latch(&gate.begun, 1);
        ns_thrpool_shutdown(tp);
        latch_add(&gate.leave, 1);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        assert_in_order(&crew, 2);
        crew_end(&crew);
        ns_thrpool_destroy(tp);
        heap_check(&the_heap);
    }
}

/* What waits in a suspended group does not run, and nobody waits for it: destroy disposes of it. */
TEST(what_is_suspended_holds_nobody_up)
{
    for (int i = 0; i < 6; i++) {
        struct ns_thrpool_t *tp = checked_pool(2);
        struct crew crew;
        crew_begin(&crew, tp, (size_t)i % 3);
        assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
        for (int n = 0; n < JOBS; n++) {
            members[n] = (struct member){.crew = &crew};
            member_add(&members[n], where[n % 2]);
        }
        ns_thrpool_shutdown(tp);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        assert_int_equal(ns_group_get_length(crew.group), JOBS);
        if (i >= 3) {
            /* Too late: no worker is there any more, and the loop is quiet. */
            assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
        }
        if (i == 4) {
            ns_group_release(crew.group);
        }
        ns_thrpool_destroy(tp);
        assert_int_equal(latch_count(&crew.ended), 1);
        assert_int_equal(latch_count(&crew.disposals), JOBS);
        assert_int_equal(atomic_load(&crew.at), 0);
        crew_check(&crew);
        heap_check(&the_heap);
    }
}

/* Resumed before the workers have left, it runs. */
TEST(what_is_resumed_in_time_runs)
{
    for (int round = 0; round < 3 + scaled(200); round++) {
        struct ns_thrpool_t *tp = checked_pool(1);
        struct crew crew;
        struct gate gate = GATE_INIT;
        struct ns_job_t *worker = occupy(tp, NS_JOB_THREAD, &gate);
        crew_begin(&crew, tp, (size_t)round % 3);
        assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
        for (int n = 0; n < 10; n++) {
            members[n] = (struct member){.crew = &crew};
            member_add(&members[n], where[n % 2]);
        }
        ns_thrpool_shutdown(tp);
        assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
        latch_add(&gate.leave, 1);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        assert_int_equal(atomic_load(&crew.at), 10);
        assert_int_equal(ns_job_done(worker), NS_SUCCESS);
        crew_end(&crew);
        ns_thrpool_destroy(tp);
        heap_check(&the_heap);
    }
}

static atomic_long raced_runs, raced_disposals;

static void raced_run(struct ns_job_t *job)
{
    atomic_fetch_add(&raced_runs, 1);
    ns_job_done(job);
}

static void raced_gone(struct ns_job_t *job)
{
    UNUSED(job);
    atomic_fetch_add(&raced_disposals, 1);
}

/* Resumed after the shutdown, and the loop, which has the first of its jobs, is busy: the workers, which have
 * nothing to do, stay for those behind it. */
TEST(what_is_resumed_in_time_runs_though_the_loop_is_busy)
{
    for (int round = 0; round < 6 + scaled(100); round++) {
        struct ns_thrpool_t *tp = checked_pool(2);
        struct crew crew;
        struct gate gate = GATE_INIT, loop_gate = GATE_INIT;
        struct ns_job_t *worker = occupy(tp, NS_JOB_THREAD, &gate);
        struct ns_job_t *loop = occupy(tp, NS_JOB_NONE, &loop_gate);
        crew_begin(&crew, tp, (size_t)round % 3);
        assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
        for (int n = 0; n < 6; n++) {
            members[n] = (struct member){.crew = &crew};
            member_add(&members[n], where[n % 3 > 0]);
        }
        ns_thrpool_shutdown(tp);
        assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
        latch_add(&gate.leave, 1);
        assert_int_equal(ns_job_wait(worker), NS_SUCCESS);
        latch_add(&loop_gate.leave, 1);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        assert_int_equal(atomic_load(&crew.at), 6);
        assert_int_equal(ns_job_done(worker), NS_SUCCESS);
        assert_int_equal(ns_job_done(loop), NS_SUCCESS);
        crew_end(&crew);
        ns_thrpool_destroy(tp);
        heap_check(&the_heap);
    }
}

/* What was added before the shutdown runs, whoever adds to the same groups at the time, and whatever is
 * disposed of in them. */
enum { SHARED_GROUPS = 4 };

struct busy_adder {
    struct crew *crews;
    int turn;
};

static void *add_beside(void *arg)
{
    struct busy_adder *adder = arg;
    for (int i = adder->turn;; i++) {
        struct crew *crew = &adder->crews[i % SHARED_GROUPS];
        struct ns_job_t *job = NULL;
        int armed = i / 7 % 2;
        ns_result_t result =
            ns_add_group_job(crew->group, where[i / 3 % 2] | (armed ? NS_JOB_NONE : NS_JOB_UNARMED),
                             raced_run, NULL, &job);
        if (result != NS_SUCCESS) {
            crew_expect(crew, result == NS_SHUTDOWN);
            return NULL;
        }
        if (armed) {
            continue;
        }
        ns_job_set_done_cb(job, raced_gone);
        if (i % 5 == 0 || ns_job_rearm(job) != NS_SUCCESS) {
            ns_job_done(job); /* its done callback takes a turn */
        }
    }
}

TEST(what_was_added_before_the_shutdown_runs_whoever_adds_beside)
{
    for (int round = 0; round < 10 + scaled(500); round++) {
        struct ns_thrpool_t *tp = checked_pool(1 + (size_t)round % 2);
        struct crew crews[SHARED_GROUPS];
        struct busy_adder adders[2] = {{crews, 0}, {crews, 1}};
        pthread_t threads[2];
        for (int i = 0; i < SHARED_GROUPS; i++) {
            crew_begin(&crews[i], tp, (size_t)(round + i) % 3);
        }
        for (int i = 0; i < 2; i++) {
            threads[i] = start_thread(add_beside, &adders[i]);
        }
        for (volatile int i = 0; i < round * 7 % 5000; i++) {
        }
        for (int i = 0; i < 8 * SHARED_GROUPS; i++) {
            members[i] = (struct member){.crew = &crews[i % SHARED_GROUPS]};
            assert_int_equal(ns_add_group_job(members[i].crew->group, where[i / 5 % 2], member_run,
                                              &members[i], NULL), NS_SUCCESS);
        }
        ns_thrpool_shutdown(tp);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        for (int i = 0; i < 8 * SHARED_GROUPS; i++) {
            assert_int_equal(atomic_load(&members[i].runs), 1);
        }
        for (int i = 0; i < 2; i++) {
            pthread_join(threads[i], NULL);
        }
        for (int i = 0; i < SHARED_GROUPS; i++) {
            crew_check(&crews[i]);
        }
        ns_thrpool_destroy(tp);
        for (int i = 0; i < SHARED_GROUPS; i++) {
            assert_int_equal(latch_count(&crews[i].ended), 1);
        }
        heap_check(&the_heap);
    }
}

/* The same of one idle strand: one thread adds the first job, another adds the second, which is told that
 * somebody serves the group, and shuts down. */
struct first_add {
    struct crew *crew;
    struct member member;
    pthread_barrier_t *start;
};

static void *add_the_first(void *arg)
{
    struct first_add *first = arg;
    pthread_barrier_wait(first->start);
    ns_result_t result =
        ns_add_group_job(first->crew->group, NS_JOB_THREAD, member_run, &first->member, NULL);
    crew_expect(first->crew, result == NS_SUCCESS || result == NS_SHUTDOWN);
    return NULL;
}

TEST(the_second_job_of_an_idle_strand_runs_though_the_first_is_being_added)
{
    for (int round = 0; round < 20 + scaled(500); round++) {
        struct ns_thrpool_t *tp = checked_pool(1);
        struct crew crew;
        struct member second = {.crew = &crew};
        pthread_barrier_t start;
        pthread_barrier_init(&start, NULL, 2);
        crew_begin(&crew, tp, 1);
        struct first_add first = {&crew, {.crew = &crew}, &start};
        pthread_t thread = start_thread(add_the_first, &first);
        pthread_barrier_wait(&start);
        for (volatile int i = 0; i < round % 64 * 8; i++) {
        }
        assert_int_equal(ns_add_group_job(crew.group, where[round % 2], member_run, &second, NULL),
                         NS_SUCCESS);
        ns_thrpool_shutdown(tp);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        assert_int_equal(atomic_load(&second.runs), 1);
        pthread_join(thread, NULL);
        crew_check(&crew);
        ns_thrpool_destroy(tp);
        assert_int_equal(latch_count(&crew.ended), 1);
        heap_check(&the_heap);
        pthread_barrier_destroy(&start);
    }
}

/* The callback that resumes it is itself one of the last to run. */
static void resume_another(struct ns_job_t *job)
{
    struct crew *crew = ns_job_get_data(job);
    crew_expect(crew, ns_group_resume(crew->group) == NS_SUCCESS);
    ns_job_done(job);
}

TEST(what_the_last_job_resumes_runs)
{
    for (int round = 0; round < 2 + scaled(200); round++) {
        struct ns_thrpool_t *tp = checked_pool(2);
        struct crew crew;
        struct gate gate = GATE_INIT;
        struct ns_job_t *worker = occupy(tp, NS_JOB_THREAD, &gate);
        crew_begin(&crew, tp, 1);
        assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
        for (int n = 0; n < 10; n++) {
            members[n] = (struct member){.crew = &crew};
            member_add(&members[n], NS_JOB_THREAD);
        }
        assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, resume_another, &crew, NULL), NS_SUCCESS);
        ns_thrpool_shutdown(tp);
        latch_add(&gate.leave, 1);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        assert_int_equal(atomic_load(&crew.at), 10);
        assert_int_equal(ns_job_done(worker), NS_SUCCESS);
        crew_end(&crew);
        ns_thrpool_destroy(tp);
        heap_check(&the_heap);
    }
}

/* PERSIST and rearmed jobs become WAITING; they are not armed again. */
static void rearm_it(struct ns_job_t *job)
{
    ns_job_rearm(job);
}

TEST(no_job_of_a_group_is_armed_again)
{
    for (int i = 0; i < 8; i++) {
        struct ns_thrpool_t *tp = checked_pool(2);
        struct crew crew;
        struct gate gate = GATE_INIT;
        crew_begin(&crew, tp, 1);
        members[0] = (struct member){.crew = &crew, .gate = &gate, .act = i & 2 ? rearm_it : do_nothing};
        struct ns_job_t *job = member_add(&members[0], where[i & 1] | (i & 2 ? 0 : NS_JOB_PERSIST));
        assert_latch(&gate.begun, 1);
        if (i & 4) {
            assert_int_equal(ns_job_rearm(job), i & 2 ? NS_SUCCESS : NS_INVALID_STATE);
        }
        ns_thrpool_shutdown(tp);
        latch_add(&gate.leave, 1);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        assert_int_equal(atomic_load(&members[0].runs), 1);
        assert_int_equal(ns_job_wait(job), NS_SUCCESS);
        assert_int_equal(ns_group_wait(crew.group, NULL), NS_SUCCESS);
        assert_int_equal(ns_job_done(job), NS_SUCCESS);
        crew_end(&crew);
        ns_thrpool_destroy(tp);
        heap_check(&the_heap);
    }
}

/* Cancel, wait, suspend, resume, set_limit and set_group work after shutdown, too. */
TEST(the_calls_that_work_after_shutdown)
{
    for (int waited = 0; waited < 2; waited++) {
        struct ns_thrpool_t *tp = checked_pool(1);
        struct crew crew;
        const struct trigger on = {&far_away, -1, 0};
        crew_begin(&crew, tp, 1);
        for (int i = 0; i < 4; i++) {
            members[i] = (struct member){.crew = &crew};
        }
        struct ns_job_t *outside = NULL;
        assert_int_equal(ns_add_job(tp, NS_JOB_UNARMED, member_run, &members[0], &outside), NS_SUCCESS);
        member_make(&members[1], NS_JOB_THREAD);
        member_add_kind(&members[2], KIND_TIMER, &on, NS_JOB_NONE);
        ns_thrpool_shutdown(tp);
        if (waited) {
            assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        }
        assert_int_equal(ns_job_set_group(outside, crew.group), NS_SUCCESS);
        assert_int_equal(ns_job_set_done_cb(outside, member_gone), NS_SUCCESS);
        assert_int_equal(ns_job_rearm(outside), NS_SHUTDOWN);
        assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
        assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
        assert_int_equal(ns_group_resume(crew.group), NS_INVALID_STATE);
        assert_int_equal(ns_group_set_limit(crew.group, 1), NS_SUCCESS);
        assert_int_equal(ns_group_wait(crew.group, &(struct timeval){-1, 0}), NS_INVALID_REQUEST);
        ns_result_t result = ns_group_wait(crew.group, &at_once);
        assert_true(result == NS_SHUTDOWN || (!waited && result == NS_TIMEOUT));
        assert_int_equal(ns_group_cancel(crew.group), NS_SUCCESS);
        assert_latch(&crew.disposals, 3);
        EVENTUALLY(ns_group_cancel(crew.group) == NS_SUCCESS); /* the last is about to return */
        crew_end(&crew);
        assert_int_equal(atomic_load(&crew.at), 0);
        ns_thrpool_destroy(tp);
        heap_check(&the_heap);
    }
}

/* Destroy with full groups: jobs in every state, none of which runs after the wait; all go, once. */
TEST(destroy_disposes_of_all_that_groups_hold)
{
    signal(SIGUSR1, SIG_IGN);
    for (int i = 0; i < 6; i++) {
        struct ns_thrpool_t *tp = checked_pool(2);
        struct crew crew;
        int ends[JOBS][2], owed = 0, count = 30;
        crew_begin(&crew, tp, (size_t)i % 3);
        if (i >= 3) {
            assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
        }
        for (int n = 0; n < count; n++) {
            socket_pair(ends[n]);
            const struct trigger on = {&far_away, ends[n][0], NS_JOB_READ};
            members[n] = (struct member){.crew = &crew, .act = do_nothing};
            int kind = n % KINDS;
            struct ns_job_t *job = NULL;
            if (kind == KIND_NOW) {
                /* Only queued where it does not run: idle jobs are the application's to finish. */
                if (i < 3) {
                    continue;
                }
                job = member_add(&members[n], where[n / KINDS % 2]);
            } else {
                job = member_add_kind(&members[n], kind, &on, where[n / KINDS % 2]);
                if (kind == KIND_FD && i >= 3 && n % 2) {
                    send_byte(ends[n][1]); /* it fires, and waits in the queue */
                }
            }
            assert_non_null(job);
            owed++;
        }
        loop_passes(tp, 1000);
        ns_thrpool_shutdown(tp);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        ns_thrpool_destroy(tp);
        assert_int_equal(latch_count(&crew.disposals), owed);
        assert_int_equal(latch_count(&crew.ended), 1);
        assert_int_equal(atomic_load(&crew.at), 0);
        crew_check(&crew);
        heap_check(&the_heap);
        for (int n = 0; n < count; n++) {
            int own = n % KINDS == KIND_FD || n % KINDS == KIND_FD_TIMEOUT;
            if (own) {
                assert_int_equal(send(ends[n][1], "x", 1, MSG_NOSIGNAL), -1);
            } else {
                close(ends[n][0]);
            }
            close(ends[n][1]);
        }
    }
    signal(SIGUSR1, SIG_DFL);
}

/* Shutdown against adds to groups: each add is refused, or its job runs, or is disposed of. */
struct racer {
    struct crew *crew;
    atomic_long *accepted;
};

static void *add_until_shutdown(void *arg)
{
    struct racer *racer = arg;
    for (int i = 0;; i++) {
        struct ns_job_t *job = NULL;
        ns_result_t result = ns_add_group_job(racer->crew->group, where[i % 2] | NS_JOB_UNARMED, raced_run,
                                              NULL, &job);
        if (result != NS_SUCCESS) {
            crew_expect(racer->crew, result == NS_SHUTDOWN);
            return NULL;
        }
        atomic_fetch_add(racer->accepted, 1);
        ns_job_set_done_cb(job, raced_gone);
        result = ns_job_rearm(job);
        if (result != NS_SUCCESS) {
            crew_expect(racer->crew, result == NS_SHUTDOWN);
            crew_expect(racer->crew, ns_job_done(job) == NS_SUCCESS);
        }
        if (i % 100 == 99) {
            ns_group_wait(racer->crew->group, NULL);
        }
    }
}

TEST(an_add_that_races_shutdown_is_refused_or_its_job_goes)
{
    enum { THREADS = 3 };
    for (int round = 0; round < 5 + scaled(500); round++) {
        struct ns_thrpool_t *tp = checked_pool(1 + (size_t)round % 3);
        struct crew crew;
        atomic_long accepted = 0;
        pthread_t threads[THREADS];
        atomic_store(&raced_runs, 0);
        atomic_store(&raced_disposals, 0);
        crew_begin(&crew, tp, (size_t)round % 4);
        struct racer racer = {&crew, &accepted};
        for (int i = 0; i < THREADS; i++) {
            threads[i] = start_thread(add_until_shutdown, &racer);
        }
        while (atomic_load(&accepted) < round) {
            sched_yield();
        }
        ns_thrpool_shutdown(tp);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        long runs = atomic_load(&raced_runs);
        for (int i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
        }
        ns_thrpool_destroy(tp);
        assert_int_equal(latch_count(&crew.ended), 1);
        assert_int_equal(atomic_load(&raced_runs), runs);
        assert_int_equal(atomic_load(&raced_disposals), atomic_load(&accepted));
        crew_check(&crew);
        heap_check(&the_heap);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_queued_in_a_group_runs_to_the_end),
        cmocka_unit_test(a_worker_stays_for_a_job_behind_one_of_the_loops),
        cmocka_unit_test(what_is_suspended_holds_nobody_up),
        cmocka_unit_test(what_is_resumed_in_time_runs),
        cmocka_unit_test(what_is_resumed_in_time_runs_though_the_loop_is_busy),
        cmocka_unit_test(what_was_added_before_the_shutdown_runs_whoever_adds_beside),
        cmocka_unit_test(the_second_job_of_an_idle_strand_runs_though_the_first_is_being_added),
        cmocka_unit_test(what_the_last_job_resumes_runs),
        cmocka_unit_test(no_job_of_a_group_is_armed_again),
        cmocka_unit_test(the_calls_that_work_after_shutdown),
        cmocka_unit_test(destroy_disposes_of_all_that_groups_hold),
        cmocka_unit_test(an_add_that_races_shutdown_is_refused_or_its_job_goes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
