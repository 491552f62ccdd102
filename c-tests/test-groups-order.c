/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Groups: in which order their jobs begin, and where they run. */
#include "groups.h"
#include "sockets.h"

enum { MANY = 2000 };

static struct member many[MANY];

/* Members of one crew, numbered. */
static void number_members(struct crew *crew, struct member *members, int count)
{
    for (int i = 0; i < count; i++) {
        members[i] = (struct member){.crew = crew, .number = i};
    }
}

/* What one thread adds begins in the order of its adds, whatever runs where. */
static void adds_in_order(size_t workers, unsigned pattern)
{
    struct ns_thrpool_t *tp = pool_of(workers);
    struct crew crew;
    int count = 20 + scaled(MANY - 20);
    crew_begin(&crew, tp, 1);
    number_members(&crew, many, count);
    for (int i = 0; i < count; i++) {
        ns_job_type_t type = where[pattern >> i % 8 & 1];
        if (i / 3 % 2) {
            member_add(&many[i], type);
        } else { /* armed by the add */
            assert_int_equal(ns_add_group_job(crew.group, type, member_run, &many[i], NULL), NS_SUCCESS);
        }
    }
    crew_end(&crew);
    assert_in_order(&crew, count);
    assert_int_equal(atomic_load(&crew.most), 1);
    pool_end(tp);
}

TEST(what_one_thread_adds_begins_in_the_order_of_its_adds)
{
    for (size_t workers = 1; workers <= 4; workers += 3) {
        adds_in_order(workers, 0x00); /* all in the loop */
        adds_in_order(workers, 0xff); /* all in workers */
        adds_in_order(workers, 0x55);
        adds_in_order(workers, 0xf0);
        adds_in_order(workers, 0x01);
        adds_in_order(workers, 0xfe);
    }
}

/* Several threads, each of which keeps its own order. */
struct adder {
    struct crew *crew;
    struct member *members;
    int count;
    pthread_t thread;
};

static void *add_all(void *arg)
{
    struct adder *adder = arg;
    for (int i = 0; i < adder->count; i++) {
        struct ns_job_t *job = NULL;
        if (ns_add_group_job(adder->crew->group, where[adder->members[i].number * 7 / 3 % 2],
                             member_run, &adder->members[i], &job) != NS_SUCCESS) {
            crew_expect(adder->crew, 0);
        }
    }
    return NULL;
}

TEST(what_each_of_several_threads_adds_keeps_its_order)
{
    enum { ADDERS = 4 };
    struct ns_thrpool_t *tp = pool_of(3);
    struct adder adders[ADDERS];
    struct crew crew;
    int each = 5 + scaled(MANY / ADDERS - 5);
    int next[ADDERS] = {0};
    crew_begin(&crew, tp, 1);
    number_members(&crew, many, ADDERS * each);
    for (int i = 0; i < ADDERS; i++) {
        adders[i] = (struct adder){.crew = &crew, .members = many + i * each, .count = each};
        assert_int_equal(pthread_create(&adders[i].thread, NULL, add_all, &adders[i]), 0);
    }
    for (int i = 0; i < ADDERS; i++) {
        pthread_join(adders[i].thread, NULL);
    }
    crew_end(&crew);
    assert_int_equal(atomic_load(&crew.at), ADDERS * each);
    for (int i = 0; i < ADDERS * each; i++) {
        int adder = crew.log[i] / each;
        assert_int_equal(crew.log[i] % each, next[adder]);
        next[adder]++;
    }
    pool_end(tp);
}

TEST(a_job_runs_where_its_flags_say)
{
    struct ns_thrpool_t *tp = pool_of(2);
    struct probe in_loop = PROBE(finish_job, -1);
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_job(tp, NS_JOB_UNARMED, probe_run, &in_loop, &job), NS_SUCCESS);
    probe_arm(job);
    assert_latch(&in_loop.disposals, 1);
    int loop = atomic_load(&in_loop.thread);
    for (size_t width = 0; width < 3; width++) {
        struct crew crew;
        crew_begin(&crew, tp, width);
        number_members(&crew, many, 100);
        for (int i = 0; i < 100; i++) {
            member_add(&many[i], where[i / 3 % 2]);
        }
        crew_end(&crew);
        for (int i = 0; i < 100; i++) {
            assert_int_equal(atomic_load(&many[i].thread) == loop, where[i / 3 % 2] == NS_JOB_NONE);
            assert_int_not_equal(atomic_load(&many[i].thread), (int)gettid());
        }
    }
    pool_end(tp);
}

/* With width n the job behind n that stay begins only when one of them leaves, and it is the next. */
TEST(with_width_n_the_next_in_order_begins_when_one_of_n_leaves)
{
    enum { JOBS = 8 };
    struct ns_thrpool_t *tp = pool_of(JOBS);
    for (int width = 1; width <= 3; width++) {
        struct crew crew;
        struct gate gates[JOBS];
        struct ns_job_t *jobs[JOBS];
        crew_begin(&crew, tp, (size_t)width);
        number_members(&crew, many, JOBS);
        for (int i = 0; i < JOBS; i++) {
            gates[i] = (struct gate)GATE_INIT;
            many[i].gate = &gates[i];
            jobs[i] = member_add(&many[i], NS_JOB_THREAD);
        }
        UNUSED(jobs);
        for (int i = 0; i < JOBS; i++) {
            for (int n = i; n < i + width && n < JOBS; n++) {
                assert_latch(&gates[n].begun, 1);
            }
            if (i % 3 == 0) {
                everyone_passes(tp, JOBS - width);
            }
            int begun = i + width < JOBS ? i + width : JOBS;
            assert_int_equal(atomic_load(&crew.at), begun);
            assert_int_equal(ns_group_get_length(crew.group), JOBS - begun);
            latch_add(&gates[i].leave, 1);
        }
        crew_end(&crew);
        assert_true(atomic_load(&crew.most) <= width);
    }
    pool_end(tp);
}

/* Things that fire join the end of the queue, one after the other. */
TEST(what_fires_joins_the_end_of_the_queue)
{
    enum { JOBS = 12 };
    struct ns_thrpool_t *tp = pool_of(2);
    int ends[2];
    socket_pair(ends);
    signal(SIGUSR1, SIG_IGN);
    for (int round = 0; round < 4; round++) {
        struct crew crew;
        const struct trigger on = {&at_once, ends[0], NS_JOB_READ | NS_JOB_PRESERVE_FD};
        static const int kinds[] = {KIND_TIMER, KIND_NOW, KIND_FD, KIND_SIGNAL};
        crew_begin(&crew, tp, 1);
        number_members(&crew, many, JOBS);
        assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
        send_byte(ends[1]);
        for (int i = 0; i < JOBS; i++) {
            int kind = kinds[(i + round) % 4];
            member_add_kind(&many[i], kind, &on, where[(i >> (round & 1)) % 2]);
            if (kind == KIND_SIGNAL) {
                assert_int_equal(kill(getpid(), SIGUSR1), 0);
            }
            EVENTUALLY(ns_group_get_length(crew.group) == (size_t)i + 1);
        }
        assert_int_equal(atomic_load(&crew.at), 0);
        assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
        crew_end(&crew);
        assert_in_order(&crew, JOBS);
        drain(ends[0]);
    }
    pool_end(tp);
    signal(SIGUSR1, SIG_DFL);
    close(ends[0]);
    close(ends[1]);
}

/* A job that is armed, but has not fired, is not in the queue: it has no place there yet. */
TEST(what_has_not_fired_has_no_place_in_the_queue)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct crew crew;
    int ends[2];
    socket_pair(ends);
    const struct trigger on = {&far_away, ends[0], NS_JOB_READ | NS_JOB_PRESERVE_FD};
    crew_begin(&crew, tp, 1);
    number_members(&crew, many, 4);
    member_add_kind(&many[3], KIND_FD, &on, NS_JOB_THREAD);
    for (int i = 0; i < 3; i++) {
        member_add(&many[i], where[i % 2]);
    }
    assert_latch(&crew.disposals, 3);
    assert_int_equal(ns_group_get_length(crew.group), 0);
    send_byte(ends[1]);
    crew_end(&crew);
    assert_in_order(&crew, 4);
    pool_end(tp);
    close(ends[0]);
    close(ends[1]);
}

/* Runs before it finishes. */
static void three_times(struct ns_job_t *job)
{
    struct member *member = ns_job_get_data(job);
    if (atomic_load(&member->runs) == 3) {
        ns_job_done(job);
    } else if (!NS_JOB_IS_PERSIST(ns_job_get_type(job))) {
        crew_expect(member->crew, ns_job_rearm(job) == NS_SUCCESS);
    }
}

/* A PERSIST job, or one that rearms itself, goes behind what was added while it ran. */
TEST(a_job_that_is_armed_again_goes_to_the_end)
{
    struct ns_thrpool_t *tp = pool_of(2);
    for (int i = 0; i < 4; i++) {
        struct crew crew;
        struct gate gate = GATE_INIT;
        const int want[] = {0, 1, 2, 3, 0, 0};
        crew_begin(&crew, tp, 1);
        number_members(&crew, many, 4);
        many[0].gate = &gate;
        many[0].act = three_times;
        member_add(&many[0], where[i % 2] | (i & 2 ? NS_JOB_PERSIST : 0));
        assert_latch(&gate.begun, 1);
        for (int n = 1; n < 4; n++) {
            member_add(&many[n], where[(n + i) % 2]);
        }
        latch_add(&gate.leave, 1);
        crew_end(&crew);
        assert_int_equal(atomic_load(&crew.at), 6);
        for (int n = 0; n < 6; n++) {
            assert_int_equal(crew.log[n], want[n]);
        }
    }
    pool_end(tp);
}

static struct member *added_inside;

static void rearm_then_add(struct ns_job_t *job)
{
    struct member *member = ns_job_get_data(job);
    if (atomic_load(&member->runs) > 1) {
        ns_job_done(job);
        return;
    }
    crew_expect(member->crew, ns_job_rearm(job) == NS_SUCCESS);
    for (int i = 0; i < 3; i++) {
        crew_expect(member->crew, ns_add_group_job(member->crew->group, where[i % 2], member_run,
                                                   &added_inside[i], NULL) == NS_SUCCESS);
    }
}

/* A rearm in a callback takes effect when it returns: behind what the callback added. */
TEST(a_rearm_joins_when_the_callback_returns)
{
    struct ns_thrpool_t *tp = pool_of(2);
    for EACH_THREAD(i) {
        struct crew crew;
        const int want[] = {0, 1, 2, 3, 0};
        crew_begin(&crew, tp, 1);
        number_members(&crew, many, 4);
        added_inside = &many[1];
        many[0].act = rearm_then_add;
        member_add(&many[0], where[i]);
        assert_latch(&crew.runs, 5);
        crew_end(&crew);
        for (int n = 0; n < 5; n++) {
            assert_int_equal(crew.log[n], want[n]);
        }
    }
    pool_end(tp);
}

/* Two PERSIST jobs in one group take turns. */
static void ten_times(struct ns_job_t *job)
{
    struct member *member = ns_job_get_data(job);
    if (atomic_load(&member->runs) == 10) {
        ns_job_done(job);
    }
}

TEST(persistent_jobs_take_turns)
{
    struct ns_thrpool_t *tp = pool_of(2);
    for (int pattern = 0; pattern < 8; pattern++) {
        struct crew crew;
        crew_begin(&crew, tp, 1);
        number_members(&crew, many, 3);
        assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
        for (int i = 0; i < 3; i++) {
            many[i].act = ten_times;
            member_add(&many[i], where[pattern >> i & 1] | NS_JOB_PERSIST);
        }
        assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
        crew_end(&crew);
        assert_int_equal(atomic_load(&crew.at), 30);
        for (int i = 0; i < 30; i++) {
            assert_int_equal(crew.log[i], i % 3);
        }
    }
    pool_end(tp);
}

/* A job in the queue is ARMED: nothing but a cancel moves it. */
TEST(a_job_in_the_queue_is_armed)
{
    struct ns_thrpool_t *tp = pool_of(1);
    int ends[2];
    socket_pair(ends);
    send_byte(ends[1]);
    for (int kind = 0; kind < KIND_SIGNAL; kind++) {
        for EACH_THREAD(i) {
            struct crew crew;
            struct trigger on = {kind == KIND_TIMER ? &at_once : &far_away, ends[0],
                                 NS_JOB_READ | NS_JOB_PRESERVE_FD};
            crew_begin(&crew, tp, 1);
            number_members(&crew, many, 3);
            assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
            member_add(&many[0], NS_JOB_THREAD);
            struct ns_job_t *job = member_add_kind(&many[2], kind, &on, where[i]);
            EVENTUALLY(ns_group_get_length(crew.group) == 2);
            member_add(&many[1], NS_JOB_NONE);
            assert_int_equal(ns_job_done(job), NS_INVALID_STATE);
            assert_int_equal(ns_job_rearm(job), NS_INVALID_STATE);
            assert_int_equal(ns_job_set_data(job, NULL), NS_INVALID_STATE);
            assert_int_equal(ns_job_set_done_cb(job, NULL), NS_INVALID_STATE);
            assert_int_equal(ns_job_timedwait(job, &at_once), NS_TIMEOUT);
            assert_int_equal(ns_job_get_output_type(job), 0);
            assert_int_equal(ns_group_get_length(crew.group), 3);
            /* It is out at once, and its done callback does not wait for the resume. */
            assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
            assert_int_equal(ns_group_get_length(crew.group), 2);
            assert_latch(&crew.disposals, 1);
            assert_int_equal(atomic_load(&many[2].disposals), 1);
            assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
            crew_end(&crew);
            assert_in_order(&crew, 2);
            assert_int_equal(atomic_load(&many[2].runs), 0);
        }
    }
    pool_end(tp);
    close(ends[0]);
    close(ends[1]);
}

/* A cancel takes out the first, the last and those between. */
TEST(a_cancel_takes_a_job_out_from_anywhere_in_the_queue)
{
    enum { JOBS = 60 };
    struct ns_thrpool_t *tp = pool_of(1);
    uint32_t dice = 1;
    for (int round = 0; round < 20; round++) {
        struct crew crew;
        struct ns_job_t *jobs[JOBS];
        int kept = 0;
        crew_begin(&crew, tp, 1);
        number_members(&crew, many, JOBS);
        assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
        for (int i = 0; i < JOBS; i++) {
            jobs[i] = member_add(&many[i], where[i % 2]);
        }
        for (int n = 0; n < JOBS; n++) {
            int i = (n * 7 + round) % JOBS;
            dice = dice * 1103515245u + 12345u;
            if (i == 0 || i == JOBS - 1 || dice >> 16 & 1) {
                assert_int_equal(ns_job_cancel(jobs[i]), NS_SUCCESS);
                jobs[i] = NULL;
            } else {
                kept++;
            }
            assert_int_equal(ns_group_get_length(crew.group), JOBS - n - 1 + kept);
        }
        assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
        crew_end(&crew);
        assert_int_equal(atomic_load(&crew.at), kept);
        int at = 0;
        for (int i = 0; i < JOBS; i++) {
            assert_int_equal(atomic_load(&many[i].runs), jobs[i] != NULL);
            if (jobs[i] != NULL) {
                assert_int_equal(crew.log[at++], i);
            }
        }
    }
    pool_end(tp);
}

/* What triggered a job was decided when it fired, not when it runs. */
TEST(the_output_type_is_that_of_the_firing)
{
    struct ns_thrpool_t *tp = pool_of(1);
    for EACH_THREAD(i) {
        struct crew crew;
        int ends[2];
        socket_pair(ends);
        struct timeval soon = {0, 20000};
        const struct trigger read_first = {&soon, ends[0], NS_JOB_READ | NS_JOB_PRESERVE_FD};
        crew_begin(&crew, tp, 1);
        number_members(&crew, many, 2);
        assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
        /* Data, then the time: it is in the queue long before the time is up. */
        struct timeval later = {2, 0};
        struct trigger on = read_first;
        on.tv = &later;
        send_byte(ends[1]);
        member_add_kind(&many[0], KIND_FD_TIMEOUT, &on, where[i]);
        EVENTUALLY(ns_group_get_length(crew.group) == 1);
        drain(ends[0]);
        /* The time, then data. */
        member_add_kind(&many[1], KIND_FD_TIMEOUT, &read_first, where[i]);
        EVENTUALLY(ns_group_get_length(crew.group) == 2);
        send_byte(ends[1]);
        loop_passes(tp, i == 0 ? 2100000 : 1000);
        assert_int_equal(ns_group_get_length(crew.group), 2);
        assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
        crew_end(&crew);
        assert_in_order(&crew, 2);
        assert_int_equal(atomic_load(&many[0].output), NS_JOB_READ);
        assert_int_equal(atomic_load(&many[1].output), NS_JOB_TIMER);
        close(ends[0]);
        close(ends[1]);
    }
    pool_end(tp);
}

/* While a descriptor's job waits in the queue the descriptor, which is still readable, fires no more:
 * the loop does not spin. When it is armed again, it fires again. */
TEST(a_descriptor_whose_job_is_queued_is_left_alone)
{
    struct ns_thrpool_t *tp = pool_of(1);
    for (int i = 0; i < 4; i++) {
        struct crew crew;
        int ends[2];
        socket_pair(ends);
        const struct trigger on = {&far_away, ends[0], NS_JOB_READ | NS_JOB_PRESERVE_FD};
        crew_begin(&crew, tp, 1);
        number_members(&crew, many, 1);
        many[0].act = drain_own;
        assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
        struct ns_job_t *job =
            member_add_kind(&many[0], KIND_FD, &on, where[i % 2] | (i & 2 ? NS_JOB_PERSIST : 0));
        send_byte(ends[1]);
        EVENTUALLY(ns_group_get_length(crew.group) == 1);
        double cpu = cpu_seconds();
        loop_passes(tp, 200000);
        if (getenv("NS_SLOW") == NULL) {
            assert_true(cpu_seconds() - cpu < 0.1);
        }
        assert_int_equal(ns_group_get_length(crew.group), 1);
        assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
        assert_latch(&crew.runs, 1);
        for (int n = 2; n < 20; n++) {
            if (!(i & 2)) {
                assert_int_equal(ns_job_wait(job), NS_SUCCESS);
                assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
            }
            send_byte(ends[1]);
            assert_latch(&crew.runs, n);
        }
        assert_true(ns_job_cancel(job) <= NS_RUNNING);
        crew_end(&crew);
        close(ends[0]);
        close(ends[1]);
    }
    pool_end(tp);
}

/* The loop never waits for a group. */
TEST(a_loop_job_behind_a_blocked_one_does_not_hold_the_loop)
{
    struct ns_thrpool_t *tp = pool_of(2);
    struct crew crew;
    struct gate gate = GATE_INIT;
    crew_begin(&crew, tp, 1);
    number_members(&crew, many, 3);
    many[0].gate = &gate;
    member_add(&many[0], NS_JOB_THREAD);
    assert_latch(&gate.begun, 1);
    member_add(&many[1], NS_JOB_NONE);
    member_add(&many[2], NS_JOB_THREAD);
    everyone_passes(tp, 1);
    assert_int_equal(ns_group_get_length(crew.group), 2);
    latch_add(&gate.leave, 1);
    crew_end(&crew);
    assert_in_order(&crew, 3);
    pool_end(tp);
}

/* A group waits for its loop job at the head, and its workers do other work meanwhile. */
TEST(a_group_waits_for_its_loop_job_and_workers_do_not)
{
    for (size_t workers = 1; workers <= 2; workers++) {
        struct ns_thrpool_t *tp = pool_of(workers);
        struct crew crew, other;
        struct gate gate = GATE_INIT;
        crew_begin(&crew, tp, 1);
        crew_begin(&other, tp, 1);
        number_members(&crew, many, 3);
        struct member beside = {.crew = &other};
        struct ns_job_t *busy = occupy(tp, NS_JOB_NONE, &gate);
        member_add(&many[0], NS_JOB_THREAD);
        member_add(&many[1], NS_JOB_NONE);
        member_add(&many[2], NS_JOB_THREAD);
        assert_latch(&crew.runs, 1);
        struct latch runs = LATCH_INIT;
        for (int i = 0; i < 100; i++) {
            assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, count_and_finish, &runs, NULL), NS_SUCCESS);
        }
        member_add(&beside, NS_JOB_THREAD);
        assert_latch(&runs, 100);
        assert_latch(&other.runs, 1);
        assert_int_equal(latch_count(&crew.runs), 1);
        latch_add(&gate.leave, 1);
        crew_end(&crew);
        crew_end(&other);
        assert_in_order(&crew, 3);
        finish_idle(busy);
        pool_end(tp);
    }
}

/* The loop's job at the head is cancelled while the loop is busy elsewhere: the group waits for the loop no
 * more. */
static void cancel_the_loops_job(struct ns_thrpool_t *tp, size_t width, int told, int one_more)
{
    struct crew crew;
    struct gate gate = GATE_INIT;
    crew_begin(&crew, tp, width);
    number_members(&crew, many, 3);
    struct ns_job_t *busy = occupy(tp, NS_JOB_NONE, &gate);
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_group_job(crew.group, NS_JOB_UNARMED, member_run, &many[0], &job), NS_SUCCESS);
    if (told) {
        assert_int_equal(ns_job_set_done_cb(job, member_gone), NS_SUCCESS);
    }
    assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
    if (one_more) {
        member_add(&many[1], NS_JOB_THREAD);
    }
    assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
    member_add(&many[2], NS_JOB_THREAD);
    assert_latch(&crew.runs, 1 + one_more);
    latch_add(&gate.leave, 1);
    finish_idle(busy);
    crew_end(&crew);
    assert_int_equal(atomic_load(&many[0].runs), 0);
}

TEST(a_loop_job_that_is_cancelled_holds_nothing_up)
{
    struct ns_thrpool_t *tp = pool_of(1);
    const size_t widths[] = {0, 2, 3};
    for (int i = 0; i < 12; i++) {
        cancel_the_loops_job(tp, widths[i / 4], i & 1, i >> 1 & 1);
    }
    pool_end(tp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_one_thread_adds_begins_in_the_order_of_its_adds),
        cmocka_unit_test(what_each_of_several_threads_adds_keeps_its_order),
        cmocka_unit_test(a_job_runs_where_its_flags_say),
        cmocka_unit_test(with_width_n_the_next_in_order_begins_when_one_of_n_leaves),
        cmocka_unit_test(what_fires_joins_the_end_of_the_queue),
        cmocka_unit_test(what_has_not_fired_has_no_place_in_the_queue),
        cmocka_unit_test(a_job_that_is_armed_again_goes_to_the_end),
        cmocka_unit_test(a_rearm_joins_when_the_callback_returns),
        cmocka_unit_test(persistent_jobs_take_turns),
        cmocka_unit_test(a_job_in_the_queue_is_armed),
        cmocka_unit_test(a_cancel_takes_a_job_out_from_anywhere_in_the_queue),
        cmocka_unit_test(the_output_type_is_that_of_the_firing),
        cmocka_unit_test(a_descriptor_whose_job_is_queued_is_left_alone),
        cmocka_unit_test(a_loop_job_behind_a_blocked_one_does_not_hold_the_loop),
        cmocka_unit_test(a_group_waits_for_its_loop_job_and_workers_do_not),
        cmocka_unit_test(a_loop_job_that_is_cancelled_holds_nothing_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
