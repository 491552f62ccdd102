/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Groups: of a group's callbacks no more run at once than its width, done callbacks included, and each
 * sees what the ones before it wrote. */
#include "fm.h"
#include "groups.h"
#include "sockets.h"

enum { CHANNELS = 6, THREADS = 3 };

/* What the callbacks of one group share, without atomics: the group guards it, and is of width 1. */
struct shared {
    struct crew crew;
    long runs;
    long disposals;
    long timers;
    long reads;
    long signals;
    int broken; /* somebody was in the middle of an update */
    int half;
    atomic_long left;  /* how many more jobs are to be added */
    atomic_long armed; /* how many of them were armed by the add: those have no done callback */
    int ends[CHANNELS][2];
};

static void update(struct shared *shared, long *count)
{
    crew_enter(&shared->crew);
    shared->broken += shared->half != 0;
    shared->half = 1;
    ++*count;
    shared->crew.plain++;
    for (volatile int i = 0; i < 100; i++) {
    }
    shared->half = 0;
    crew_leave(&shared->crew);
}

static void note_gone(struct ns_job_t *job)
{
    struct shared *shared = ns_job_get_data(job);
    update(shared, &shared->disposals);
    latch_add(&shared->crew.disposals, 1);
}

static void note_and_finish(struct ns_job_t *job)
{
    struct shared *shared = ns_job_get_data(job);
    update(shared, &shared->runs);
    ns_job_done(job);
}

static void note_timer(struct ns_job_t *job)
{
    struct shared *shared = ns_job_get_data(job);
    update(shared, &shared->timers);
}

static void note_read(struct ns_job_t *job)
{
    struct shared *shared = ns_job_get_data(job);
    update(shared, &shared->reads);
    drain_own(job);
    if (!NS_JOB_IS_PERSIST(ns_job_get_type(job))) {
        ns_job_rearm(job);
    }
}

static void note_signal(struct ns_job_t *job)
{
    struct shared *shared = ns_job_get_data(job);
    update(shared, &shared->signals);
}

static void *add_run_nows(void *arg)
{
    struct shared *shared = arg;
    for (long i = 0; atomic_fetch_sub(&shared->left, 1) > 0; i++) {
        struct ns_job_t *job = NULL;
        int armed = i / 2 % 2;
        if (ns_add_group_job(shared->crew.group, where[i % 2] | (armed ? 0 : NS_JOB_UNARMED),
                             note_and_finish, shared, &job) != NS_SUCCESS) {
            crew_expect(&shared->crew, 0);
            break;
        }
        if (armed) {
            atomic_fetch_add(&shared->armed, 1);
        } else {
            ns_job_set_done_cb(job, note_gone);
            ns_job_rearm(job);
        }
        if (i % 8 == 0) {
            send(shared->ends[i / 8 % CHANNELS][1], "x", 1, MSG_NOSIGNAL);
        }
        if (i % 64 == 0) {
            kill(getpid(), SIGUSR1);
        }
    }
    return NULL;
}

/* Every kind of job, in the loop and in workers, with their done callbacks. */
TEST(at_width_one_no_two_callbacks_run_at_once_whatever_their_kind)
{
    struct ns_thrpool_t *tp = pool_of(4);
    static struct shared shared;
    pthread_t threads[THREADS];
    struct ns_job_t *job;
    struct timeval often = {0, 200};
    long adds = 100 + scaled(60000);
    signal(SIGUSR1, SIG_IGN);
    crew_begin(&shared.crew, tp, 1);
    atomic_store(&shared.left, adds);
    for (int i = 0; i < CHANNELS; i++) {
        socket_pair(shared.ends[i]);
        const struct trigger on = {&often, shared.ends[i][0], NS_JOB_READ | NS_JOB_PRESERVE_FD};
        const struct {
            int kind;
            ns_job_type_t type;
            ns_job_func_t func;
        } kinds[] = {
            {i % 3 == 0 ? KIND_FD_TIMEOUT : KIND_FD, where[i % 2] | (i & 2 ? NS_JOB_PERSIST : 0),
             note_read},
            {KIND_TIMER, where[i % 2] | NS_JOB_PERSIST, note_timer},
            {KIND_SIGNAL, where[i % 2] | NS_JOB_PERSIST, note_signal},
        };
        for (int n = 0; n < 3; n++) {
            assert_int_equal(add_kind(tp, kinds[n].kind, &on, kinds[n].type | NS_JOB_UNARMED,
                                      kinds[n].func, &shared, &job), NS_SUCCESS);
            assert_int_equal(ns_job_set_group(job, shared.crew.group), NS_SUCCESS);
            arm_with(job, note_gone);
        }
    }
    for (int i = 0; i < THREADS; i++) {
        threads[i] = start_thread(add_run_nows, &shared);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    long told = adds - atomic_load(&shared.armed);
    assert_latch(&shared.crew.disposals, told);
    double limit = now_seconds() + LIMIT_SECONDS;
    while (ns_group_get_length(shared.crew.group) > 0 && now_seconds() < limit) {
        sched_yield(); /* timers may keep it from ever being idle, but not from being empty */
    }
    crew_cancel_and_end(&shared.crew);
    assert_int_equal(shared.broken, 0);
    assert_int_equal(atomic_load(&shared.crew.most), 1);
    assert_int_equal(shared.runs, adds);
    assert_int_equal(shared.disposals, told + 3 * CHANNELS);
    assert_true(shared.timers > 0 && shared.reads > 0 && shared.signals > 0);
    assert_int_equal(shared.crew.plain, shared.runs + shared.disposals + shared.timers + shared.reads +
                                            shared.signals);
    pool_end(tp);
    signal(SIGUSR1, SIG_DFL);
    for (int i = 0; i < CHANNELS; i++) {
        close(shared.ends[i][0]);
        close(shared.ends[i][1]);
    }
}

/* While one callback stays, nothing that is added begins, however it is added; and then it does, in order. */
TEST(what_is_added_while_a_callback_stays_waits_for_it)
{
    struct ns_thrpool_t *tp = pool_of(3);
    for (int i = 0; i < 16; i++) {
        struct crew crew;
        struct gate gate = GATE_INIT;
        struct member members[4];
        crew_begin(&crew, tp, 1);
        for (int n = 0; n < 4; n++) {
            members[n] = (struct member){.crew = &crew, .number = n, .gate = n == 0 ? &gate : NULL};
            ns_job_type_t type = where[n == 0 ? i & 1 : i >> n & 1];
            if (n == 0 || i & 8) { /* armed by the add */
                assert_int_equal(ns_add_group_job(crew.group, type, member_run, &members[n], NULL),
                                 NS_SUCCESS);
            } else {
                member_add(&members[n], type);
            }
            if (n == 0) {
                assert_latch(&gate.begun, 1);
            } else if (i & 1) {
                everyone_passes(tp, 2);
            } else {
                /* The loop is in the first callback. */
                struct latch runs = LATCH_INIT;
                assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, count_and_finish, &runs, NULL), NS_SUCCESS);
                assert_latch(&runs, 1);
            }
            assert_int_equal(atomic_load(&crew.at), 1);
        }
        assert_int_equal(ns_group_get_length(crew.group), 3);
        latch_add(&gate.leave, 1);
        crew_end(&crew);
        assert_in_order(&crew, 4);
        assert_int_equal(atomic_load(&crew.most), 1);
    }
    pool_end(tp);
}

/* At width n at most n at once, and n at once when there is work for them. */
static void meet_others(struct ns_job_t *job)
{
    struct member *member = ns_job_get_data(job);
    for (int i = 0; i < 3; i++) {
        sched_yield(); /* to those who may come in, and those who must not */
    }
    if (atomic_load(&member->runs) < 3) {
        ns_job_rearm(job);
    } else {
        ns_job_done(job);
    }
}

TEST(at_width_n_no_more_than_n_run_at_once)
{
    enum { JOBS = 300 };
    static struct member members[JOBS];
    struct ns_thrpool_t *tp = pool_of(6);
    for (int width = 1; width <= 5; width++) {
        struct crew crew;
        int ends[2];
        socket_pair(ends);
        const struct trigger on = {&at_once, ends[1], NS_JOB_WRITE | NS_JOB_PRESERVE_FD};
        static const int kinds[] = {KIND_NOW, KIND_TIMER, KIND_FD, KIND_FD_TIMEOUT};
        crew_begin(&crew, tp, (size_t)width);
        for (int i = 0; i < JOBS; i++) {
            members[i] = (struct member){.crew = &crew, .number = i, .act = meet_others};
            member_add_kind(&members[i], kinds[i % 4], &on, where[i % 5 > 0]);
        }
        crew_end(&crew);
        assert_true(atomic_load(&crew.most) <= width);
        assert_int_equal(latch_count(&crew.runs), 3 * JOBS);
        close(ends[0]);
        close(ends[1]);
    }
    pool_end(tp);
}

/* A done callback takes its turn: not while a callback of the group runs. Its descriptor is closed at
 * once all the same. */
TEST(a_done_callback_waits_its_turn_and_the_descriptor_does_not)
{
    struct ns_thrpool_t *tp = pool_of(2);
    for (int i = 0; i < 8; i++) {
        struct crew crew;
        struct gate gate = GATE_INIT;
        int ends[2];
        socket_pair(ends);
        const struct trigger on = {&far_away, ends[0], NS_JOB_READ};
        crew_begin(&crew, tp, 1);
        struct member members[3] = {{.crew = &crew, .gate = &gate}, {.crew = &crew}, {.crew = &crew}};
        struct ns_job_t *idle = member_make_kind(&members[1], KIND_FD, &on, where[i & 1]);
        if (i & 4) {
            assert_int_equal(ns_job_rearm(idle), NS_SUCCESS); /* armed, then, not idle */
        }
        member_add(&members[0], NS_JOB_THREAD);
        assert_latch(&gate.begun, 1);
        if (i & 2) {
            member_add(&members[2], NS_JOB_THREAD);
        }
        assert_int_equal(i & 4 ? ns_job_cancel(idle) : ns_job_done(idle), NS_SUCCESS);
        EVENTUALLY(!fd_is_open(ends[0]));
        everyone_passes(tp, 1);
        assert_int_equal(latch_count(&crew.disposals), 0);
        assert_int_equal(atomic_load(&members[2].runs), 0);
        latch_add(&gate.leave, 1);
        crew_end(&crew);
        assert_int_equal(atomic_load(&crew.most), 1);
        assert_int_equal(latch_count(&crew.disposals), i & 2 ? 3 : 2);
        close(ends[1]);
    }
    pool_end(tp);
}

/* A done callback that stays: nothing else of the group begins meanwhile, and everything else does. */
static struct gate gone_gate;

static void gone_and_stay(struct ns_job_t *job)
{
    stay_in_gate(&gone_gate);
    member_gone(job);
}

TEST(a_done_callback_counts_against_the_width)
{
    struct ns_thrpool_t *tp = pool_of(3);
    for (int width = 1; width <= 2; width++) {
        for EACH_THREAD(i) {
            struct crew crew;
            struct gate gate = GATE_INIT;
            gone_gate = (struct gate)GATE_INIT;
            crew_begin(&crew, tp, (size_t)width);
            struct member members[4] = {
                {.crew = &crew, .number = 0}, {.crew = &crew, .number = 1, .gate = &gate},
                {.crew = &crew, .number = 2}, {.crew = &crew, .number = 3}};
            struct ns_job_t *job = member_make(&members[0], NS_JOB_THREAD);
            assert_int_equal(ns_job_set_done_cb(job, gone_and_stay), NS_SUCCESS);
            assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
            assert_latch(&gone_gate.begun, 1);
            if (width == 2) {
                member_add(&members[1], NS_JOB_THREAD);
                assert_latch(&gate.begun, 1);
            }
            member_add(&members[2], NS_JOB_THREAD);
            member_add(&members[3], where[i]);
            /* The done callback may be in the loop. */
            struct latch runs = LATCH_INIT;
            assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, count_and_finish, &runs, NULL), NS_SUCCESS);
            assert_latch(&runs, 1);
            assert_int_equal(atomic_load(&members[2].runs) + atomic_load(&members[3].runs), 0);
            assert_int_equal(ns_group_get_length(crew.group), 2);
            latch_add(&gone_gate.leave, 1);
            latch_add(&gate.leave, 1);
            crew_end(&crew);
            assert_int_equal(atomic_load(&members[3].runs), 1);
            assert_true(atomic_load(&crew.most) <= width);
        }
    }
    pool_end(tp);
}

/* What was written outside before the add is visible inside, and what was written inside to who waits. */
static long outside_value;

static void take_over(struct ns_job_t *job)
{
    struct crew *crew = ns_job_get_data(job);
    crew->plain += outside_value;
    ns_job_done(job);
}

TEST(what_is_written_before_an_add_and_in_a_callback_is_seen)
{
    struct ns_thrpool_t *tp = pool_of(2);
    struct crew crew;
    long sum = 0;
    crew_begin(&crew, tp, 1);
    for (long i = 0; i < scaled(20000); i++) {
        outside_value = i;
        sum += i;
        assert_int_equal(ns_add_group_job(crew.group, where[i % 2], take_over, &crew, NULL), NS_SUCCESS);
        assert_int_equal(ns_group_wait(crew.group, NULL), NS_SUCCESS);
        assert_int_equal(crew.plain, sum);
    }
    crew_end(&crew);
    pool_end(tp);
}

/* A group of width 0 holds nothing back. */
TEST(width_zero_sets_no_limit)
{
    enum { JOBS = 4 };
    struct ns_thrpool_t *tp = pool_of(JOBS);
    struct crew crew;
    struct gate gate = GATE_INIT;
    struct member members[JOBS + 1];
    crew_begin(&crew, tp, 0);
    for (int i = 0; i <= JOBS; i++) {
        members[i] = (struct member){.crew = &crew, .gate = &gate};
        member_add(&members[i], i == JOBS ? NS_JOB_NONE : NS_JOB_THREAD);
    }
    assert_latch(&gate.begun, JOBS + 1);
    assert_int_equal(ns_group_get_length(crew.group), 0);
    latch_add(&gate.leave, 1);
    crew_end(&crew);
    pool_end(tp);
}

/* One job's callback never runs twice at once, in a wide group either, and two groups exclude nothing of
 * each other. */
TEST(groups_do_not_hold_each_other)
{
    enum { GROUPS = 3 };
    struct ns_thrpool_t *tp = pool_of(GROUPS);
    struct crew crews[GROUPS + 1];
    struct member members[GROUPS + 1];
    struct gate gate = GATE_INIT;
    for (int i = 0; i <= GROUPS; i++) {
        crew_begin(&crews[i], tp, 1);
        members[i] = (struct member){.crew = &crews[i], .gate = &gate};
        member_add(&members[i], i == GROUPS ? NS_JOB_NONE : NS_JOB_THREAD);
    }
    assert_latch(&gate.begun, GROUPS + 1);
    latch_add(&gate.leave, 1);
    for (int i = 0; i <= GROUPS; i++) {
        crew_end(&crews[i]);
    }
    pool_end(tp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(at_width_one_no_two_callbacks_run_at_once_whatever_their_kind),
        cmocka_unit_test(what_is_added_while_a_callback_stays_waits_for_it),
        cmocka_unit_test(at_width_n_no_more_than_n_run_at_once),
        cmocka_unit_test(a_done_callback_waits_its_turn_and_the_descriptor_does_not),
        cmocka_unit_test(a_done_callback_counts_against_the_width),
        cmocka_unit_test(what_is_written_before_an_add_and_in_a_callback_is_seen),
        cmocka_unit_test(width_zero_sets_no_limit),
        cmocka_unit_test(groups_do_not_hold_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
