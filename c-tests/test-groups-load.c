/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Groups share the workers and the loop: nobody waits for a busy group or for a blocked one, and no worker
 * idles beside work that it may do. */
#include "groups.h"
#include "sockets.h"

#include <limits.h>

/* How many jobs a group may run before it gives its thread to others that wait. */
enum { TURN = 64 };

/* A group with more to do than anybody wants to wait for: a hundred jobs that rearm themselves. */
struct hog {
    struct crew crew;
    atomic_long runs;
    atomic_int over;
    long spin_ns;
};

static void spin(long ns)
{
    double end = now_seconds() + (double)ns / 1e9;
    while (ns > 0 && now_seconds() < end) {
    }
}

static void hog_run(struct ns_job_t *job)
{
    struct hog *hog = ns_job_get_data(job);
    atomic_fetch_add(&hog->runs, 1);
    spin(hog->spin_ns);
    if (atomic_load(&hog->over)) {
        ns_job_done(job);
    } else {
        ns_job_rearm(job);
    }
}

static void hog_begin(struct hog *hog, struct ns_thrpool_t *tp, size_t width, ns_job_type_t type,
                      long spin_ns)
{
    atomic_store(&hog->runs, 0);
    atomic_store(&hog->over, 0);
    hog->spin_ns = spin_ns;
    crew_begin(&hog->crew, tp, width);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(ns_add_group_job(hog->crew.group, type, hog_run, hog, NULL), NS_SUCCESS);
    }
}

static void hog_end(struct hog *hog)
{
    atomic_store(&hog->over, 1);
    crew_end(&hog->crew);
}

/* Something light that notes how many of the hog's jobs ran before it. */
struct light {
    struct hog *hog;
    long before;
    struct latch runs;
};

static void light_run(struct ns_job_t *job)
{
    struct light *light = ns_job_get_data(job);
    light->before = atomic_load(&light->hog->runs);
    ns_job_done(job);
    latch_add(&light->runs, 1);
}

/*
 * One worker, or the loop, and all that waits for it is there before the first begins: the hog first. So
 * what stands behind the hog waits for one turn of it, at most.
 */
static void behind_a_hog(ns_job_type_t type, long spin_ns, long most)
{
    enum { GROUPS = 20 };
    struct ns_thrpool_t *tp = pool_of(1);
    struct hog hog;
    struct gate gate = GATE_INIT;
    struct light lights[GROUPS + 1];
    struct crew crews[GROUPS];
    struct ns_job_t *busy = occupy(tp, type, &gate);
    hog_begin(&hog, tp, 1, type, spin_ns);
    for (int i = 0; i <= GROUPS; i++) {
        lights[i] = (struct light){&hog, 0, LATCH_INIT};
    }
    for (int i = 0; i < GROUPS; i++) {
        crew_begin(&crews[i], tp, 1);
        assert_int_equal(ns_add_group_job(crews[i].group, type, light_run, &lights[i], NULL),
                         NS_SUCCESS);
    }
    /* And one outside all groups. */
    assert_int_equal(ns_add_job(tp, type, light_run, &lights[GROUPS], NULL), NS_SUCCESS);
    latch_add(&gate.leave, 1);
    for (int i = 0; i <= GROUPS; i++) {
        assert_latch(&lights[i].runs, 1);
        if (lights[i].before > most) {
            fail_msg("%ld of the busy group's jobs ran before light job %d", lights[i].before, i);
        }
    }
    hog_end(&hog);
    for (int i = 0; i < GROUPS; i++) {
        crew_end(&crews[i]);
    }
    finish_idle(busy);
    pool_end(tp);
}

TEST(a_busy_group_gives_its_worker_back_after_a_turn)
{
    behind_a_hog(NS_JOB_THREAD, 0, TURN);
}

TEST(a_busy_group_gives_the_loop_back_after_a_turn)
{
    behind_a_hog(NS_JOB_NONE, 0, TURN);
}

/* Half a millisecond: at 150 µs each that is four jobs; a preempted thread is done sooner. */
TEST(a_turn_is_half_a_millisecond_at_most)
{
    behind_a_hog(NS_JOB_THREAD, 150000, 5);
    behind_a_hog(NS_JOB_NONE, 150000, 5);
}

/* In the loop, what waits may also be a timer or a descriptor. */
TEST(a_busy_group_in_the_loop_delays_timers_and_descriptors_by_a_turn_or_two)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct hog hog;
    int ends[2];
    socket_pair(ends);
    send_byte(ends[1]);
    const struct trigger on = {&at_once, ends[0], NS_JOB_READ | NS_JOB_PRESERVE_FD};
    hog_begin(&hog, tp, 1, NS_JOB_NONE, 0);
    EVENTUALLY(atomic_load(&hog.runs) > 0);
    for (int i = 0; i < scaled(2000); i++) {
        struct light light = {&hog, 0, LATCH_INIT};
        struct gate gate = GATE_INIT;
        struct ns_job_t *busy = occupy(tp, NS_JOB_NONE, &gate);
        long before = atomic_load(&hog.runs);
        assert_int_equal(add_kind(tp, i % 2 ? KIND_TIMER : KIND_FD, &on, NS_JOB_NONE, light_run, &light,
                                  NULL), NS_SUCCESS);
        latch_add(&gate.leave, 1);
        assert_latch(&light.runs, 1);
        /* The group had its turn, or was in the middle of one; then the loop asked the poller. */
        assert_true(light.before - before <= 3 * TURN);
        finish_idle(busy);
    }
    hog_end(&hog);
    pool_end(tp);
    close(ends[0]);
    close(ends[1]);
}

/* In one worker, in a job outside: how far the groups have come, at one moment. */
struct reading {
    struct hog *hogs;
    int count;
    long least;
    long most;
    struct latch runs;
};

static void read_hogs(struct ns_job_t *job)
{
    struct reading *reading = ns_job_get_data(job);
    reading->least = LONG_MAX;
    reading->most = 0;
    for (int i = 0; i < reading->count; i++) {
        long runs = atomic_load(&reading->hogs[i].runs);
        reading->least = runs < reading->least ? runs : reading->least;
        reading->most = runs > reading->most ? runs : reading->most;
    }
    ns_job_done(job);
    latch_add(&reading->runs, 1);
}

/* With one worker, groups that are always busy run equally much, to a turn. */
TEST(busy_groups_run_equally_much)
{
    enum { HOGS = 4 };
    struct ns_thrpool_t *tp = pool_of(1);
    struct hog hogs[HOGS];
    struct gate gate = GATE_INIT;
    struct ns_job_t *busy = occupy(tp, NS_JOB_THREAD, &gate);
    for (int i = 0; i < HOGS; i++) {
        hog_begin(&hogs[i], tp, 1, NS_JOB_THREAD, 20000);
    }
    latch_add(&gate.leave, 1);
    for (int i = 0; i < 20; i++) {
        struct reading reading = {.hogs = hogs, .count = HOGS, .runs = LATCH_INIT};
        assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, read_hogs, &reading, NULL), NS_SUCCESS);
        assert_latch(&reading.runs, 1);
        /* At 20 µs each a turn is 25 jobs; turns that the system cuts short make differences, too. */
        assert_true(reading.most > 0);
        assert_true(reading.least >= 0);
        assert_true(reading.most - reading.least <= TURN + reading.most / 2);
    }
    for (int i = 0; i < HOGS; i++) {
        hog_end(&hogs[i]);
    }
    finish_idle(busy);
    pool_end(tp);
}

/* A callback that blocks holds its place in its group, and one worker, and nothing else. */
TEST(a_blocked_callback_holds_its_own_place_only)
{
    enum { JOBS = 200 };
    static struct member members[JOBS];
    struct ns_thrpool_t *tp = pool_of(2);
    for (int width = 1; width <= 2; width++) {
        struct crew crew, other;
        struct gate gate = GATE_INIT;
        struct latch runs = LATCH_INIT;
        crew_begin(&crew, tp, (size_t)width);
        crew_begin(&other, tp, 1);
        for (int i = 0; i < JOBS; i++) {
            members[i] = (struct member){.crew = &crew, .number = i, .gate = i == 0 ? &gate : NULL};
            member_add(&members[i], i == 0 ? NS_JOB_THREAD : where[i % 2]);
        }
        assert_latch(&gate.begun, 1);
        if (width == 2) {
            /* All the others run beside it, in order. */
            assert_latch(&crew.runs, JOBS - 1);
            assert_in_order(&crew, JOBS);
        }
        struct member light = {.crew = &other};
        member_add(&light, NS_JOB_THREAD);
        assert_latch(&other.runs, 1);
        for EACH_THREAD(i) {
            assert_int_equal(ns_add_job(tp, where[i], count_and_finish, &runs, NULL), NS_SUCCESS);
        }
        assert_latch(&runs, 2);
        loop_passes(tp, 0);
        assert_int_equal(latch_count(&crew.runs), width == 2 ? JOBS - 1 : 0);
        latch_add(&gate.leave, 1);
        crew_end(&crew);
        crew_end(&other);
        assert_int_equal(latch_count(&crew.disposals), JOBS);
    }
    pool_end(tp);
}

/* Blocked groups in all workers but one: light groups go through that one. */
TEST(many_blocked_groups_leave_the_other_workers_to_the_rest)
{
    enum { BLOCKED = 3, GROUPS = 50 };
    struct ns_thrpool_t *tp = pool_of(BLOCKED + 1);
    struct crew blocked[BLOCKED], crews[GROUPS];
    struct member stays[2 * BLOCKED], members[GROUPS];
    struct gate gate = GATE_INIT;
    for (int i = 0; i < 2 * BLOCKED; i++) {
        if (i < BLOCKED) {
            crew_begin(&blocked[i], tp, 1);
        }
        stays[i] = (struct member){.crew = &blocked[i % BLOCKED], .gate = &gate};
        member_add(&stays[i], NS_JOB_THREAD);
    }
    assert_latch(&gate.begun, BLOCKED);
    for (int i = 0; i < GROUPS; i++) {
        crew_begin(&crews[i], tp, 1);
        members[i] = (struct member){.crew = &crews[i]};
        member_add(&members[i], NS_JOB_THREAD);
        crew_end(&crews[i]);
    }
    assert_int_equal(latch_count(&gate.begun), BLOCKED);
    latch_add(&gate.leave, 1);
    for (int i = 0; i < BLOCKED; i++) {
        crew_end(&blocked[i]);
    }
    pool_end(tp);
}

/* A group with work to do and width to spare has idle workers woken: as many begin as may, though each
 * stays, and however they were added. */
TEST(width_to_spare_uses_idle_workers)
{
    enum { WORKERS = 4, ROUNDS = 300 };
    struct ns_thrpool_t *tp = pool_of(WORKERS);
    for (int round = 0; round < 20 + scaled(ROUNDS); round++) {
        struct crew crew;
        struct gate gate = GATE_INIT;
        struct member members[WORKERS];
        int width = round % 2 ? WORKERS : 0;
        crew_begin(&crew, tp, (size_t)width);
        if (round % 3 == 0) {
            assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
        }
        for (int i = 0; i < WORKERS; i++) {
            members[i] = (struct member){.crew = &crew, .gate = &gate};
            if (round % 5 == 0) {
                const struct trigger on = {&at_once, -1, 0};
                member_add_kind(&members[i], KIND_TIMER, &on, NS_JOB_THREAD);
            } else {
                member_add(&members[i], NS_JOB_THREAD);
            }
        }
        if (round % 3 == 0) {
            assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
        }
        assert_latch(&gate.begun, WORKERS);
        latch_add(&gate.leave, 1);
        crew_end(&crew);
    }
    pool_end(tp);
}

/* A job that adds others and then stays: they are run by other workers. */
struct spread {
    struct crew *crew;
    struct member *members;
    int count;
    struct gate gate;
};

static void add_and_stay(struct ns_job_t *job)
{
    struct spread *spread = ns_job_get_data(job);
    for (int i = 0; i < spread->count; i++) {
        crew_expect(spread->crew, ns_add_group_job(spread->crew->group, NS_JOB_THREAD, member_run,
                                                   &spread->members[i], NULL) == NS_SUCCESS);
    }
    stay_in_gate(&spread->gate);
    ns_job_done(job);
}

TEST(what_a_callback_adds_before_it_stays_runs_beside_it)
{
    enum { JOBS = 3 };
    struct ns_thrpool_t *tp = pool_of(JOBS + 1);
    for (int round = 0; round < 10 + scaled(300); round++) {
        struct crew crew;
        struct gate gate = GATE_INIT;
        struct member members[JOBS];
        crew_begin(&crew, tp, JOBS + 1);
        struct spread spread = {&crew, members, JOBS, GATE_INIT};
        for (int i = 0; i < JOBS; i++) {
            members[i] = (struct member){.crew = &crew, .gate = &gate};
        }
        assert_int_equal(ns_add_group_job(crew.group, NS_JOB_THREAD, add_and_stay, &spread, NULL),
                         NS_SUCCESS);
        assert_latch(&gate.begun, JOBS);
        latch_add(&gate.leave, 1);
        latch_add(&spread.gate.leave, 1);
        crew_end(&crew);
    }
    pool_end(tp);
}

/* No group belongs to a thread: whichever worker is free runs it. Both are occupied; one is let go, which
 * runs the group's next job; then it is the other's turn. */
TEST(no_group_belongs_to_a_thread)
{
    struct ns_thrpool_t *tp = pool_of(2);
    struct crew crew;
    int threads[2] = {0, 0};
    crew_begin(&crew, tp, 1);
    for (int i = 0; i < 8; i++) {
        struct gate gates[2] = {GATE_INIT, GATE_INIT};
        struct member members[2] = {{.crew = &crew}, {.crew = &crew}};
        struct ns_job_t *first = occupy(tp, NS_JOB_THREAD, &gates[0]);
        struct ns_job_t *second = occupy(tp, NS_JOB_THREAD, &gates[1]);
        member_add(&members[0], NS_JOB_THREAD);
        latch_add(&gates[i % 2].leave, 1);
        assert_latch(&crew.disposals, 2 * i + 1);
        struct gate gate = GATE_INIT;
        struct ns_job_t *again = occupy(tp, NS_JOB_THREAD, &gate);
        latch_add(&gates[1 - i % 2].leave, 1);
        member_add(&members[1], NS_JOB_THREAD);
        assert_latch(&crew.disposals, 2 * i + 2);
        threads[0] = atomic_load(&members[0].thread);
        threads[1] = atomic_load(&members[1].thread);
        assert_int_not_equal(threads[0], threads[1]);
        latch_add(&gate.leave, 1);
        finish_idle(first);
        finish_idle(second);
        finish_idle(again);
    }
    crew_end(&crew);
    pool_end(tp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_busy_group_gives_its_worker_back_after_a_turn),
        cmocka_unit_test(a_busy_group_gives_the_loop_back_after_a_turn),
        cmocka_unit_test(a_turn_is_half_a_millisecond_at_most),
        cmocka_unit_test(a_busy_group_in_the_loop_delays_timers_and_descriptors_by_a_turn_or_two),
        cmocka_unit_test(busy_groups_run_equally_much),
        cmocka_unit_test(a_blocked_callback_holds_its_own_place_only),
        cmocka_unit_test(many_blocked_groups_leave_the_other_workers_to_the_rest),
        cmocka_unit_test(width_to_spare_uses_idle_workers),
        cmocka_unit_test(what_a_callback_adds_before_it_stays_runs_beside_it),
        cmocka_unit_test(no_group_belongs_to_a_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
