/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Groups: suspend and resume, the limit and the length, and inside which group a callback is. */
#include "fm.h"
#include "groups.h"
#include "sockets.h"

TEST(suspensions_are_counted_and_a_resume_too_many_is_refused)
{
    struct ns_thrpool_t *tp = checked_pool(2);
    for (size_t width = 0; width < 3; width++) {
        struct crew crew;
        crew_begin(&crew, tp, width);
        struct member members[4];
        assert_int_equal(ns_group_resume(crew.group), NS_INVALID_STATE);
        for (int i = 0; i < 100; i++) {
            assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
        }
        for (int i = 0; i < 4; i++) {
            members[i] = (struct member){.crew = &crew};
            member_add(&members[i], where[i % 2]);
        }
        for (int i = 0; i < 99; i++) {
            assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
        }
        everyone_passes(tp, 2);
        assert_int_equal(atomic_load(&crew.at), 0);
        assert_int_equal(ns_group_get_length(crew.group), 4);
        assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
        assert_latch(&crew.runs, 4);
        assert_int_equal(ns_group_resume(crew.group), NS_INVALID_STATE);
        crew_end(&crew);
    }
    checked_end(tp);
}

/* What runs goes on; nothing else begins, however it is triggered; done callbacks go on. */
TEST(suspended_no_callback_begins_and_done_callbacks_go_on)
{
    enum { JOBS = 2 * KINDS };
    struct ns_thrpool_t *tp = checked_pool(2);
    signal(SIGUSR1, SIG_IGN);
    int ends[2];
    socket_pair(ends);
    send_byte(ends[1]);
    for (size_t width = 0; width < 3; width++) {
        struct crew crew;
        struct gate gate = GATE_INIT;
        struct member first = {.crew = &crew, .number = -1, .gate = &gate}, members[JOBS];
        struct member held = {.crew = &crew};
        crew_begin(&crew, tp, width);
        member_add(&first, NS_JOB_THREAD);
        assert_latch(&gate.begun, 1);
        assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
        for (int i = 0; i < JOBS; i++) {
            const struct trigger on = {i / 2 == KIND_FD_TIMEOUT ? &far_away : &at_once, ends[0],
                                       NS_JOB_READ | NS_JOB_PRESERVE_FD};
            members[i] = (struct member){.crew = &crew, .number = i};
            member_add_kind(&members[i], i / 2, &on, where[i % 2]);
            if (i / 2 == KIND_SIGNAL) {
                assert_int_equal(kill(getpid(), SIGUSR1), 0);
            }
            EVENTUALLY(ns_group_get_length(crew.group) == (size_t)i + 1);
        }
        latch_add(&gate.leave, 1);
        assert_latch(&crew.disposals, 1);
        struct ns_job_t *job = member_add(&held, NS_JOB_THREAD);
        everyone_passes(tp, 2);
        assert_int_equal(atomic_load(&crew.at), 1);
        assert_int_equal(ns_group_get_length(crew.group), JOBS + 1);
        /* The done callback passes all that is held back. */
        assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
        assert_latch(&crew.disposals, 2);
        assert_int_equal(atomic_load(&held.disposals), 1);
        assert_int_equal(ns_group_get_length(crew.group), JOBS);
        assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
        crew_end(&crew);
        assert_int_equal(atomic_load(&crew.at), 1 + JOBS);
        for (int i = 0; width == 1 && i < JOBS; i++) {
            assert_int_equal(crew.log[i + 1], i);
        }
    }
    checked_end(tp);
    signal(SIGUSR1, SIG_DFL);
    close(ends[0]);
    close(ends[1]);
}

/* How a strand waits for an answer: it suspends itself in a callback, and a job outside resumes it. */
struct question {
    struct crew *crew;
    int asked;
    int answered;
    int bad;
    struct latch over; /* answers that have resumed it */
};

static void answer(struct ns_job_t *job)
{
    struct question *question = ns_job_get_data(job);
    question->answered++;
    crew_expect(question->crew, ns_group_resume(question->crew->group) == NS_SUCCESS);
    ns_job_done(job);
    latch_add(&question->over, 1);
}

static void ask_question(struct ns_job_t *job)
{
    struct question *question = ns_job_get_data(job);
    struct ns_thrpool_t *tp = ns_job_get_tp(job);
    question->bad += question->asked != question->answered;
    question->asked++;
    crew_expect(question->crew, ns_group_suspend(question->crew->group) == NS_SUCCESS);
    crew_expect(question->crew, ns_add_job(tp, where[question->asked % 3 == 0], answer, question, NULL) ==
                                    NS_SUCCESS);
    ns_job_done(job);
}

TEST(a_strand_waits_for_an_answer_that_comes_by_another_job)
{
    struct ns_thrpool_t *tp = checked_pool(2);
    struct crew crew;
    int questions = scaled(20000);
    crew_begin(&crew, tp, 1);
    struct question question = {&crew, 0, 0, 0, LATCH_INIT};
    for (int i = 0; i < questions; i++) {
        assert_int_equal(ns_add_group_job(crew.group, where[i % 2], ask_question, &question, NULL),
                         NS_SUCCESS);
    }
    assert_latch(&question.over, questions);
    crew_end(&crew);
    assert_int_equal(question.asked, questions);
    assert_int_equal(question.answered, questions);
    assert_int_equal(question.bad, 0);
    checked_end(tp);
}

/* Suspended and resumed all the time by several threads, beside adds: each job runs, and in order. */
static atomic_int stop_toggling;

static void *toggle(void *arg)
{
    struct crew *crew = arg;
    while (!atomic_load(&stop_toggling)) {
        if (ns_group_suspend(crew->group) != NS_SUCCESS || ns_group_resume(crew->group) != NS_SUCCESS) {
            crew_expect(crew, 0);
        }
    }
    return NULL;
}

TEST(no_job_is_lost_between_suspend_and_resume)
{
    enum { TOGGLERS = 2, ROUNDS = 4000 };
    static struct member members[ROUNDS];
    struct ns_thrpool_t *tp = checked_pool(2);
    for (size_t width = 0; width < 3; width++) {
        struct crew crew;
        pthread_t threads[TOGGLERS];
        int rounds = 50 + scaled(ROUNDS - 50);
        crew_begin(&crew, tp, width);
        atomic_store(&stop_toggling, 0);
        for (int i = 0; i < TOGGLERS; i++) {
            threads[i] = start_thread(toggle, &crew);
        }
        for (int i = 0; i < rounds; i++) {
            members[i] = (struct member){.crew = &crew, .number = i};
            member_add(&members[i], where[i % 2]);
            if (i % 16 == 0) {
                /* The queue is empty again: the next add finds it so. */
                assert_latch(&crew.runs, i + 1);
            }
        }
        assert_latch(&crew.runs, rounds);
        atomic_store(&stop_toggling, 1);
        for (int i = 0; i < TOGGLERS; i++) {
            pthread_join(threads[i], NULL);
        }
        crew_end(&crew);
        if (width == 1) {
            assert_in_order(&crew, rounds);
        }
    }
    checked_end(tp);
}

/* All that was held back is cancelled, with done callbacks or without: the next job runs all the same. */
TEST(after_a_cancel_of_all_that_was_held_back_the_next_job_runs)
{
    struct ns_thrpool_t *tp = checked_pool(2);
    for (size_t width = 0; width < 3; width++) {
        for (int i = 0; i < 32; i++) {
            int told = i & 1, ran_before = i & 2, resumed_first = i & 4, armed = i & 8;
            struct crew crew;
            struct gate gate = GATE_INIT;
            struct member first = {.crew = &crew, .gate = &gate}, held[4], last = {.crew = &crew};
            struct ns_job_t *jobs[4];
            crew_begin(&crew, tp, width);
            if (ran_before) {
                member_add(&first, where[i >> 4]);
                assert_latch(&gate.begun, 1);
            }
            assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
            for (int n = 0; n < 4; n++) {
                held[n] = (struct member){.crew = &crew};
                assert_int_equal(ns_add_group_job(crew.group, where[n % 2] | NS_JOB_UNARMED, member_run,
                                                  &held[n], &jobs[n]), NS_SUCCESS);
                if (told) {
                    assert_int_equal(ns_job_set_done_cb(jobs[n], member_gone), NS_SUCCESS);
                }
                assert_int_equal(ns_job_rearm(jobs[n]), NS_SUCCESS);
            }
            if (ran_before) {
                /* Who ran it finds the others, and leaves them. */
                latch_add(&gate.leave, 1);
                assert_latch(&crew.disposals, 1);
                everyone_passes(tp, 2);
            }
            for (int n = 0; n < 4; n++) {
                assert_int_equal(ns_job_cancel(jobs[n]), NS_SUCCESS);
            }
            if (!resumed_first) {
                everyone_passes(tp, 2);
            }
            assert_int_equal(ns_group_get_length(crew.group), 0);
            assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
            if (armed) {
                assert_int_equal(ns_add_group_job(crew.group, where[i >> 4], member_run, &last, NULL),
                                 NS_SUCCESS);
            } else {
                member_add(&last, where[i >> 4]);
            }
            assert_latch(&crew.runs, ran_before ? 2 : 1);
            crew_end(&crew);
            assert_int_equal(atomic_load(&last.runs), 1);
        }
    }
    checked_end(tp);
}

/* Once the call has returned, and what ran before has ended, nothing begins. */
TEST(after_a_suspend_no_more_begin_than_had_begun)
{
    struct ns_thrpool_t *tp = checked_pool(2);
    static struct member members[100];
    for (int round = 0; round < 3 + scaled(500); round++) {
        struct crew crew;
        size_t width = 1 + (size_t)round % 2;
        crew_begin(&crew, tp, width);
        for (int i = 0; i < 100; i++) {
            members[i] = (struct member){.crew = &crew};
            member_add(&members[i], where[i % 3 > 0]);
        }
        for (volatile int i = 0; i < round * 20; i++) {
        }
        assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
        size_t length = ns_group_get_length(crew.group);
        if (round % 16 == 0) {
            everyone_passes(tp, 2);
        }
        /* What is not in the queue has begun, and what is in it has not. */
        EVENTUALLY(latch_count(&crew.runs) == 100 - (long)length);
        assert_int_equal(ns_group_get_length(crew.group), length);
        assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
        crew_end(&crew);
        assert_int_equal(atomic_load(&crew.at), 100);
    }
    checked_end(tp);
}

/* The limit: an add that finds so many queued is refused, and nothing has happened. */
static pthread_mutex_t said_lock = PTHREAD_MUTEX_INITIALIZER;
static int said_debug, said_more;

static void count_log(int priority, const char *format, va_list args)
{
    char line[512];
    vsnprintf(line, sizeof line, format, args);
    pthread_mutex_lock(&said_lock);
    said_debug += priority == LOG_DEBUG && strstr(line, "ns_add_group_job") != NULL;
    said_more += priority < LOG_INFO;
    pthread_mutex_unlock(&said_lock);
}

TEST(an_add_beyond_the_limit_is_refused_and_nothing_has_happened)
{
    enum { LIMIT = 5 };
    struct ns_thrpool_t *tp = pool_with(1, count_log, counting_calloc, counting_free);
    for (size_t width = 0; width < 3; width++) {
        struct crew crew;
        struct member members[LIMIT + 4];
        struct ns_job_t *jobs[LIMIT + 4];
        crew_begin(&crew, tp, width);
        for (int i = 0; i < LIMIT + 4; i++) {
            members[i] = (struct member){.crew = &crew, .number = i};
        }
        assert_int_equal(ns_group_set_limit(crew.group, LIMIT), NS_SUCCESS);
        assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
        for (int i = 0; i < LIMIT; i++) {
            assert_int_equal(ns_add_group_job(crew.group, where[i % 2], member_run, &members[i], &jobs[i]),
                             NS_SUCCESS);
        }
        for (int i = 0; i < 4; i++) {
            long blocks = atomic_load(&blocks_out);
            int debug = said_debug, more = said_more;
            struct ns_job_t *job = jobs[0];
            assert_int_equal(ns_add_group_job(crew.group, where[i % 2] | (i & 2 ? NS_JOB_PERSIST : 0),
                                              member_run, &members[LIMIT], &job), NS_OVERLOADED);
            assert_null(job);
            assert_int_equal(atomic_load(&blocks_out), blocks);
            assert_int_equal(said_debug, debug + 1);
            assert_int_equal(said_more, more);
            assert_int_equal(ns_group_get_length(crew.group), LIMIT);
        }
        /* One that is not armed is no load, and its first rearm is not refused. */
        jobs[LIMIT] = member_add(&members[LIMIT], NS_JOB_THREAD);
        assert_int_equal(ns_group_get_length(crew.group), LIMIT + 1);
        /* Nor is what fires, and what is put in. */
        const struct trigger on = {&at_once, -1, 0};
        jobs[LIMIT + 1] = member_add_kind(&members[LIMIT + 1], KIND_TIMER, &on, NS_JOB_NONE);
        EVENTUALLY(ns_group_get_length(crew.group) == LIMIT + 2);
        jobs[LIMIT + 2] = member_add_kind(&members[LIMIT + 2], KIND_NOW, &on, NS_JOB_THREAD);
        assert_int_equal(ns_group_get_length(crew.group), LIMIT + 3);
        /* A larger limit, and none. */
        assert_int_equal(ns_group_set_limit(crew.group, LIMIT + 3), NS_SUCCESS);
        assert_int_equal(ns_add_group_job(crew.group, NS_JOB_THREAD, member_run, &members[LIMIT + 3], NULL),
                         NS_OVERLOADED);
        assert_int_equal(ns_group_set_limit(crew.group, 0), NS_SUCCESS);
        assert_int_equal(ns_add_group_job(crew.group, NS_JOB_THREAD, member_run, &members[LIMIT + 3], NULL),
                         NS_SUCCESS);
        /* What was cancelled does not count. */
        assert_int_equal(ns_group_set_limit(crew.group, LIMIT + 4), NS_SUCCESS);
        assert_int_equal(ns_job_cancel(jobs[LIMIT]), NS_SUCCESS);
        struct member late = {.crew = &crew};
        assert_int_equal(ns_add_group_job(crew.group, NS_JOB_NONE, member_run, &late, NULL), NS_SUCCESS);
        assert_int_equal(ns_add_group_job(crew.group, NS_JOB_NONE, member_run, &late, NULL),
                         NS_OVERLOADED);
        assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
        crew_end(&crew);
        assert_int_equal(atomic_load(&crew.at), LIMIT + 4);
    }
    pool_end(tp);
}

/* Of several reasons: shutdown, then deleting, then overloaded. */
TEST(of_several_reasons_the_limit_comes_last)
{
    struct ns_thrpool_t *tp = checked_pool(1);
    struct crew crew;
    crew_begin(&crew, tp, 1);
    struct member member = {.crew = &crew};
    assert_int_equal(ns_group_set_limit(crew.group, 1), NS_SUCCESS);
    assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
    member_add(&member, NS_JOB_THREAD);
    assert_int_equal(ns_add_group_job(crew.group, NS_JOB_NONE, member_run, &member, NULL), NS_OVERLOADED);
    assert_int_equal(ns_add_group_job(crew.group, NS_JOB_READ, member_run, &member, NULL),
                     NS_INVALID_REQUEST);
    assert_int_equal(ns_group_cancel(crew.group), NS_SUCCESS);
    assert_int_equal(ns_add_group_job(crew.group, NS_JOB_NONE, member_run, &member, NULL), NS_DELETING);
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_add_group_job(crew.group, NS_JOB_NONE, member_run, &member, NULL), NS_SHUTDOWN);
    assert_int_equal(ns_group_set_limit(crew.group, 7), NS_SUCCESS);
    crew_end(&crew);
    checked_end(tp);
}

/* What a worker adds in a callback is never refused; what the loop adds is. */
struct bold {
    struct crew *crew;
    struct member added[2];
    int runs;
    struct latch over;
};

static void add_at_the_limit(struct ns_job_t *job)
{
    struct bold *bold = ns_job_get_data(job);
    struct crew *crew = bold->crew;
    int in_worker = NS_JOB_IS_THREAD(ns_job_get_type(job)) != 0;
    if (bold->runs++ > 0) {
        ns_job_done(job);
        latch_add(&bold->over, 1);
        return;
    }
    for (int i = 0; i < 2; i++) {
        ns_result_t result = ns_add_group_job(crew->group, where[i], member_run, &bold->added[i], NULL);
        crew_expect(crew, result == (in_worker ? NS_SUCCESS : NS_OVERLOADED));
    }
    crew_expect(crew, ns_job_rearm(job) == NS_SUCCESS); /* never refused, in either */
}

TEST(a_workers_adds_are_never_refused_the_loops_are)
{
    struct ns_thrpool_t *tp = checked_pool(1);
    for (int i = 0; i < 4; i++) { /* from outside the group, and from its own callback */
        struct crew crew;
        crew_begin(&crew, tp, 1);
        struct bold bold = {&crew, {{.crew = &crew}, {.crew = &crew}}, 0, LATCH_INIT};
        struct member queued = {.crew = &crew};
        assert_int_equal(ns_group_set_limit(crew.group, 1), NS_SUCCESS);
        assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
        if (i >= 2) {
            assert_int_equal(ns_add_group_job(crew.group, where[i % 2], add_at_the_limit, &bold, NULL),
                             NS_SUCCESS);
        }
        /* While the callback adds, this one is in the queue. */
        member_add(&queued, NS_JOB_THREAD);
        if (i < 2) {
            assert_int_equal(ns_add_job(tp, where[i % 2], add_at_the_limit, &bold, NULL), NS_SUCCESS);
            assert_latch(&bold.over, 1);
        }
        assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
        assert_latch(&bold.over, 1);
        crew_end(&crew);
        assert_int_equal(latch_count(&crew.runs), 1 + (i % 2 ? 2 : 0));
    }
    checked_end(tp);
}

/* Adds of several threads pass the limit by no more than there are threads. */
static void *add_until_refused(void *arg)
{
    struct crew *crew = arg;
    ns_result_t result;
    for (int i = 0; (result = ns_add_group_job(crew->group, where[i % 2], finish_job, NULL, NULL)) ==
                    NS_SUCCESS; i++) {
    }
    crew_expect(crew, result == NS_OVERLOADED);
    return NULL;
}

TEST(several_threads_pass_the_limit_by_their_number_at_most)
{
    enum { THREADS = 4, LIMIT = 100 };
    struct ns_thrpool_t *tp = checked_pool(1);
    for (int round = 0; round < 3 + scaled(300); round++) {
        struct crew crew;
        pthread_t threads[THREADS];
        crew_begin(&crew, tp, (size_t)round % 3);
        assert_int_equal(ns_group_set_limit(crew.group, LIMIT), NS_SUCCESS);
        assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
        for (int i = 0; i < THREADS; i++) {
            threads[i] = start_thread(add_until_refused, &crew);
        }
        for (int i = 0; i < THREADS; i++) {
            pthread_join(threads[i], NULL);
        }
        size_t length = ns_group_get_length(crew.group);
        assert_true(length >= LIMIT && length <= LIMIT + THREADS);
        assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
        crew_end(&crew);
    }
    checked_end(tp);
}

/* is_current: in the callbacks and done callbacks of the group's own jobs, and nowhere else. */
static struct crew *elsewhere;

static void look_where(struct ns_job_t *job)
{
    struct member *member = ns_job_get_data(job);
    struct crew *crew = member->crew;
    crew_expect(crew, ns_group_is_current(crew->group) == 1);
    crew_expect(crew, ns_group_is_current(elsewhere->group) == 0);
    ns_job_done(job);
    crew_expect(crew, ns_group_is_current(crew->group) == 1);
}

static void look_from_outside(struct ns_job_t *job)
{
    crew_expect(elsewhere, ns_group_is_current(elsewhere->group) == 0);
    ns_job_done(job);
}

TEST(a_group_is_current_in_its_own_callbacks_only)
{
    struct ns_thrpool_t *tp = checked_pool(2);
    for (size_t width = 0; width < 3; width++) {
        struct crew crew, other;
        struct member members[20];
        crew_begin(&crew, tp, width);
        crew_begin(&other, tp, width);
        elsewhere = &other;
        for (int i = 0; i < 20; i++) {
            members[i] = (struct member){.crew = &crew, .act = look_where};
            member_add(&members[i], where[i % 2]);
            assert_int_equal(ns_add_job(tp, where[i % 2], look_from_outside, NULL, NULL), NS_SUCCESS);
            assert_int_equal(ns_group_is_current(crew.group), 0);
        }
        crew_end(&crew);
        everyone_passes(tp, 2);
        crew_end(&other);
    }
    checked_end(tp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(suspensions_are_counted_and_a_resume_too_many_is_refused),
        cmocka_unit_test(suspended_no_callback_begins_and_done_callbacks_go_on),
        cmocka_unit_test(a_strand_waits_for_an_answer_that_comes_by_another_job),
        cmocka_unit_test(no_job_is_lost_between_suspend_and_resume),
        cmocka_unit_test(after_a_cancel_of_all_that_was_held_back_the_next_job_runs),
        cmocka_unit_test(after_a_suspend_no_more_begin_than_had_begun),
        cmocka_unit_test(an_add_beyond_the_limit_is_refused_and_nothing_has_happened),
        cmocka_unit_test(of_several_reasons_the_limit_comes_last),
        cmocka_unit_test(a_workers_adds_are_never_refused_the_loops_are),
        cmocka_unit_test(several_threads_pass_the_limit_by_their_number_at_most),
        cmocka_unit_test(a_group_is_current_in_its_own_callbacks_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
