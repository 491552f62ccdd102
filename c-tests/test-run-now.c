/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Run-now jobs: where they run, in which order, and again with PERSIST. */
#include "harness.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

static struct latch ran = LATCH_INIT;

static void finish_and_count(struct ns_job_t *job)
{
    ns_job_done(job);
    latch_add(&ran, 1);
}

TEST(every_add_runs_once)
{
    struct ns_thrpool_t *tp = pool_of(4);
    for (int i = 0; i < 1000; i++) {
        ns_job_type_t type = i % 2 ? NS_JOB_THREAD : NS_JOB_NONE;
        assert_int_equal(ns_add_job(tp, type, finish_and_count, NULL, NULL), NS_SUCCESS);
    }
    assert_latch(&ran, 1000);
    pool_end(tp);
    assert_int_equal(latch_count(&ran), 1000);
}

/* Which thread a job ran on. */
struct place {
    struct latch ran;
    pid_t thread;
    char name[16];
};

static void note_place(struct ns_job_t *job)
{
    struct place *place = ns_job_get_data(job);
    place->thread = gettid();
    pthread_getname_np(pthread_self(), place->name, sizeof place->name);
    ns_job_done(job);
    latch_add(&place->ran, 1);
}

static void place_of(struct ns_thrpool_t *tp, ns_job_type_t type, struct place *place)
{
    *place = (struct place){.ran = LATCH_INIT};
    assert_int_equal(ns_add_job(tp, type, note_place, place, NULL), NS_SUCCESS);
    assert_latch(&place->ran, 1);
}

TEST(without_thread_it_runs_in_the_loop_and_with_it_in_a_worker)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct place loop, worker, timer, again;
    place_of(tp, NS_JOB_NONE, &loop);
    place_of(tp, NS_JOB_THREAD, &worker);
    place_of(tp, NS_JOB_TIMER, &timer);
    assert_int_not_equal(loop.thread, gettid());
    assert_int_not_equal(worker.thread, gettid());
    assert_int_not_equal(loop.thread, worker.thread);
    assert_int_equal(loop.thread, timer.thread);
    assert_string_equal(loop.name, timer.name);
    assert_string_not_equal(loop.name, worker.name);
    for (int i = 0; i < 100; i++) {
        place_of(tp, NS_JOB_NONE, &again);
        assert_int_equal(again.thread, loop.thread);
        place_of(tp, NS_JOB_THREAD, &again);
        assert_int_equal(again.thread, worker.thread);
    }
    pool_end(tp);
}

/* The order in which callbacks began; the thread that runs them all writes it. */
static int order[4096];
static int ordered;

static void note_order(struct ns_job_t *job)
{
    order[ordered++] = (int)(intptr_t)ns_job_get_data(job);
    ns_job_done(job);
    latch_add(&ran, 1);
}

struct adder {
    struct ns_thrpool_t *tp;
    ns_job_type_t type;
    int first;
    int count;
    int failed;
};

static void *add_in_order(void *arg)
{
    struct adder *adder = arg;
    for (int i = adder->first; i < adder->first + adder->count; i++) {
        if (ns_add_job(adder->tp, adder->type, note_order, (void *)(intptr_t)i, NULL)
            != NS_SUCCESS) {
            adder->failed++;
        }
    }
    return NULL;
}

TEST(jobs_of_one_thread_start_in_the_order_of_their_adding)
{
    enum { THREADS = 4, EACH = 1000 };
    const ns_job_type_t types[] = {NS_JOB_THREAD, NS_JOB_NONE};
    for (size_t type = 0; type < 2; type++) {
        struct ns_thrpool_t *tp = pool_of(1);
        struct adder adders[THREADS];
        pthread_t threads[THREADS];
        long before = latch_count(&ran);
        ordered = 0;
        for (int t = 0; t < THREADS; t++) {
            adders[t] = (struct adder){tp, types[type], t * EACH, EACH, 0};
            assert_int_equal(pthread_create(&threads[t], NULL, add_in_order, &adders[t]), 0);
        }
        for (int t = 0; t < THREADS; t++) {
            pthread_join(threads[t], NULL);
            assert_int_equal(adders[t].failed, 0);
        }
        assert_latch(&ran, before + THREADS * EACH);
        pool_end(tp);
        int next[THREADS] = {0};
        for (int i = 0; i < THREADS * EACH; i++) {
            int t = order[i] / EACH;
            assert_int_equal(order[i] % EACH, next[t]);
            next[t]++;
        }
    }
}

static void persist_note_order(struct ns_job_t *job)
{
    order[ordered++] = (int)(intptr_t)ns_job_get_data(job);
    if (ordered >= 200) {
        ns_job_done(job);
        latch_add(&ran, 1);
    }
}

TEST(persist_goes_to_the_back_of_its_queue_each_time)
{
    const ns_job_type_t types[] = {NS_JOB_THREAD, NS_JOB_NONE};
    for (size_t type = 0; type < 2; type++) {
        struct ns_thrpool_t *tp = pool_of(1);
        struct gate gate = GATE_INIT;
        long before = latch_count(&ran);
        ordered = 0;
        struct ns_job_t *blocker = occupy(tp, types[type], &gate);
        for (intptr_t i = 0; i < 3; i++) {
            assert_int_equal(ns_add_job(tp, types[type] | NS_JOB_PERSIST, persist_note_order,
                                        (void *)i, NULL), NS_SUCCESS);
        }
        latch_add(&gate.leave, 1);
        assert_latch(&ran, before + 3);
        finish_idle(blocker);
        pool_end(tp);
        for (int i = 0; i < 200; i++) {
            assert_int_equal(order[i], i % 3);
        }
    }
}

static atomic_int stop_repeating;
static atomic_int repeated;

static void repeat_until_told(struct ns_job_t *job)
{
    atomic_fetch_add(&repeated, 1);
    if (atomic_load(&stop_repeating)) {
        ns_job_done(job);
    } else if (!NS_JOB_IS_PERSIST(ns_job_get_type(job))) {
        ns_job_rearm(job);
    }
}

TEST(a_job_that_repeats_at_once_keeps_nobody_waiting)
{
    const ns_job_type_t types[] = {
        NS_JOB_NONE, NS_JOB_THREAD, NS_JOB_PERSIST, NS_JOB_PERSIST | NS_JOB_THREAD,
        NS_JOB_TIMER, NS_JOB_TIMER | NS_JOB_PERSIST,
    };
    int ends[2];
    socket_pair(ends);
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct ns_thrpool_t *tp = pool_of(1);
        struct latch gone = LATCH_INIT;
        struct ns_job_t *job = NULL;
        atomic_store(&stop_repeating, 0);
        atomic_store(&repeated, 0);
        assert_int_equal(ns_add_job(tp, types[i] | NS_JOB_UNARMED, repeat_until_told, &gone, &job),
                         NS_SUCCESS);
        arm_with(job, count_callback);
        EVENTUALLY(atomic_load(&repeated) > 10);

        struct probe others = PROBE(finish_job, -1);
        struct timeval soon = {0, 10000};
        const ns_job_type_t io = NS_JOB_WRITE | NS_JOB_PRESERVE_FD;
        for (int thread = 0; thread < 2; thread++) {
            ns_job_type_t where = thread ? NS_JOB_THREAD : NS_JOB_NONE;
            assert_int_equal(ns_add_job(tp, where, probe_run, &others, NULL), NS_SUCCESS);
            assert_int_equal(ns_add_timeout_job(tp, &soon, where, probe_run, &others, NULL),
                             NS_SUCCESS);
            assert_int_equal(ns_add_fd_job(tp, ends[0], io | where, probe_run, &others, NULL),
                             NS_SUCCESS);
        }
        assert_latch(&others.runs, 6);
        int before = atomic_load(&repeated);
        EVENTUALLY(atomic_load(&repeated) > before);
        atomic_store(&stop_repeating, 1);
        assert_latch(&gone, 1);
        pool_end(tp);
    }
    close(ends[0]);
    close(ends[1]);
}

/* Plain memory, neither locked nor atomic. */
struct letter {
    int to_callback[64];
    int from_callback[64];
    int torn;
};

static void answer_letter(struct ns_job_t *job)
{
    struct letter *letter = ns_job_get_data(job);
    for (int i = 0; i < 64; i++) {
        if (letter->to_callback[i] != letter->to_callback[0]) {
            letter->torn = 1;
        }
        letter->from_callback[i] = letter->to_callback[i] + 1;
    }
}

TEST(what_is_written_before_arming_and_in_the_callback_is_visible)
{
    struct ns_thrpool_t *tp = pool_of(2);
    const ns_job_type_t types[] = {NS_JOB_THREAD, NS_JOB_NONE};
    int rounds = scaled(20000);
    for (size_t type = 0; type < 2; type++) {
        struct letter letter = {.torn = 0};
        struct ns_job_t *job = NULL;
        assert_int_equal(ns_create_job(tp, types[type], answer_letter, &job), NS_SUCCESS);
        assert_int_equal(ns_job_set_data(job, &letter), NS_SUCCESS);
        for (int round = 0; round < rounds; round++) {
            for (int i = 0; i < 64; i++) {
                letter.to_callback[i] = round;
            }
            assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
            assert_int_equal(ns_job_wait(job), NS_SUCCESS);
            for (int i = 0; i < 64; i++) {
                assert_int_equal(letter.from_callback[i], round + 1);
            }
        }
        assert_int_equal(letter.torn, 0);
        assert_int_equal(ns_job_done(job), NS_SUCCESS);
    }
    pool_end(tp);
}

static atomic_int flood_ran;

static void flood_callback(struct ns_job_t *job)
{
    atomic_fetch_add(&flood_ran, 1);
    ns_job_done(job);
}

TEST(a_million_adds_against_a_blocked_loop_block_nobody)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct gate gate = GATE_INIT;
    int adds = scaled(1000000);
    atomic_store(&flood_ran, 0);
    struct ns_job_t *blocker = occupy(tp, NS_JOB_NONE, &gate);
    int refused = 0;
    for (int i = 0; i < adds; i++) {
        refused += ns_add_job(tp, NS_JOB_NONE, flood_callback, NULL, NULL) != NS_SUCCESS;
    }
    assert_int_equal(refused, 0);
    assert_int_equal(atomic_load(&flood_ran), 0);
    latch_add(&gate.leave, 1);
    EVENTUALLY(atomic_load(&flood_ran) == adds);
    assert_int_equal(ns_job_done(blocker), NS_SUCCESS);
    pool_end(tp);
    assert_int_equal(atomic_load(&flood_ran), adds);
}

TEST(single_jobs_handed_to_a_sleeping_worker_are_never_stranded)
{
    struct ns_thrpool_t *tp = pool_of(2);
    struct ns_job_t *job = NULL;
    struct latch runs = LATCH_INIT;
    assert_int_equal(ns_create_job(tp, NS_JOB_THREAD, count_callback, &job), NS_SUCCESS);
    assert_int_equal(ns_job_set_data(job, &runs), NS_SUCCESS);
    int rounds = scaled(100000);
    struct timeval limit = {LIMIT_SECONDS, 0};
    for (int i = 0; i < rounds; i++) {
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        assert_int_equal(ns_job_timedwait(job, &limit), NS_SUCCESS);
    }
    assert_int_equal(latch_count(&runs), rounds);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    pool_end(tp);
}

/* Kill this process when the calling thread wakes anybody: through a futex or a pipe. */
static int forbid_wakes(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_futex, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_write, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
    };
    struct sock_fprog program = {sizeof code / sizeof *code, code};
    return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
           && prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0;
}

static void *add_without_a_wake(void *arg)
{
    struct adder *adder = arg;
    if (!forbid_wakes()) {
        adder->failed = 1;
        return NULL;
    }
    for (int i = 0; i < adder->count; i++) {
        if (ns_add_job(adder->tp, adder->type, flood_callback, NULL, NULL) != NS_SUCCESS) {
            adder->failed = 2;
        }
    }
    return NULL;
}

/* Runs in a process of its own, which may be killed. Returns 0 if all went well. */
static int adds_without_a_wake(ns_job_type_t type)
{
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.log_fct = quiet_log;
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    struct gate gate = GATE_INIT;
    if (tp == NULL || ns_add_job(tp, type, gate_callback, &gate, NULL) != NS_SUCCESS
        || !latch_reaches(&gate.begun, 1)) {
        return 3;
    }
    struct adder adder = {tp, type, 0, 1000, 0};
    pthread_t thread;
    if (pthread_create(&thread, NULL, add_without_a_wake, &adder) != 0) {
        return 3;
    }
    pthread_join(thread, NULL);
    latch_add(&gate.leave, 1);
    ns_thrpool_shutdown(tp);
    if (ns_thrpool_wait(tp) != NS_SUCCESS) {
        return 3;
    }
    return adder.failed != 0 ? adder.failed : atomic_load(&flood_ran) == adder.count ? 0 : 4;
}

TEST(an_add_wakes_nobody_while_those_who_would_run_it_are_busy)
{
    if (scaled(100) != 100) {
        skip(); /* valgrind does not run under a filter of system calls */
    }
    const ns_job_type_t types[] = {NS_JOB_THREAD, NS_JOB_NONE};
    for (size_t type = 0; type < 2; type++) {
        atomic_store(&flood_ran, 0);
        pid_t child = fork();
        assert_int_not_equal(child, -1);
        if (child == 0) {
            _exit(adds_without_a_wake(types[type]));
        }
        int status = 0;
        assert_int_equal(waitpid(child, &status, 0), child);
        if (WIFSIGNALED(status)) {
            fail_msg("an add woke somebody (signal %d)", WTERMSIG(status));
        }
        assert_int_equal(WEXITSTATUS(status), 0);
    }
}

/* Slow done callbacks, and a timer beside them. */
static atomic_int went, ticks, ticks_at_first, ticks_at_last;

enum { SLOW_TO_GO = 2000 };

static void go_slowly(struct ns_job_t *job)
{
    UNUSED(job);
    for (double end = now_seconds() + 0.0002; now_seconds() < end;) {
    }
    int n = atomic_load(&went) + 1; /* only the loop is here */
    if (n == 1) {
        atomic_store(&ticks_at_first, atomic_load(&ticks));
    } else if (n == SLOW_TO_GO) {
        atomic_store(&ticks_at_last, atomic_load(&ticks));
    }
    atomic_store(&went, n);
}

static void tick(struct ns_job_t *job)
{
    UNUSED(job);
    atomic_fetch_add(&ticks, 1);
}

/* To see it fail: in EventLoop::take_requests, do not ask whether the slice is over. */
TEST(a_flood_of_done_callbacks_leaves_timers_alone)
{
    struct ns_thrpool_t *tp = pool_of(1);
    static struct ns_job_t *jobs[SLOW_TO_GO];
    struct timeval often = {0, 1000};
    struct ns_job_t *timer = NULL;
    for (int i = 0; i < SLOW_TO_GO; i++) {
        assert_int_equal(ns_create_job(tp, NS_JOB_TIMER, tick, &jobs[i]), NS_SUCCESS);
        assert_int_equal(ns_job_set_done_cb(jobs[i], go_slowly), NS_SUCCESS);
    }
    assert_int_equal(ns_add_timeout_job(tp, &often, NS_JOB_PERSIST, tick, NULL, &timer), NS_SUCCESS);
    EVENTUALLY(atomic_load(&ticks) > 0);
    struct gate gate = GATE_INIT;
    struct ns_job_t *blocker = occupy(tp, NS_JOB_NONE, &gate);
    for (int i = 0; i < SLOW_TO_GO; i++) {
        assert_int_equal(ns_job_done(jobs[i]), NS_SUCCESS);
    }
    latch_add(&gate.leave, 1);
    EVENTUALLY(atomic_load(&went) == SLOW_TO_GO);
    /* They take 0.4 s together. */
    int beside = atomic_load(&ticks_at_last) - atomic_load(&ticks_at_first);
    print_message("# %d ticks of 1 ms beside %d done callbacks\n", beside, SLOW_TO_GO);
    assert_true(beside >= 20);
    assert_true(ns_job_cancel(timer) <= NS_RUNNING);
    finish_idle(blocker);
    pool_end(tp);
}

/* Two jobs rearm themselves on one worker while the other worker is blocked. Then one of the two
 * blocks, so that only the other worker can run its neighbour. */
static struct {
    struct gate blocker;
    struct latch neighbour;
    struct latch over;
    struct latch gone;  /* of the jobs that repeat */
    atomic_int added;   /* of those */
    atomic_int flood;   /* that worker always has work: see below */
    atomic_int repeated; /* on that worker */
    atomic_int before;   /* its runs before the neighbour ran there, or -1 */
    int runs;
} near;

enum { IDLE, FROM_OUTSIDE, ITS_OWN };

static void repeating_gone(struct ns_job_t *job)
{
    UNUSED(job);
    latch_add(&near.gone, 1);
}

/* A job that repeats until its callback finishes it. */
static void repeat(struct ns_thrpool_t *tp, ns_job_func_t func)
{
    struct ns_job_t *job = NULL;
    if (ns_create_job(tp, NS_JOB_THREAD | NS_JOB_PERSIST, func, &job) != NS_SUCCESS ||
        ns_job_set_done_cb(job, repeating_gone) != NS_SUCCESS || ns_job_rearm(job) != NS_SUCCESS) {
        abort();
    }
    atomic_fetch_add(&near.added, 1);
}

/* A slow job that rearms itself on that worker. */
static void repeat_slowly(struct ns_job_t *job)
{
    for (double end = now_seconds() + 0.001; now_seconds() < end;) {
    }
    if (atomic_load(&near.flood)) {
        atomic_fetch_add(&near.repeated, 1);
    } else {
        ns_job_done(job);
    }
}

static void add_another(struct ns_job_t *job)
{
    if (atomic_load(&near.flood)) {
        ns_add_job(ns_job_get_tp(job), NS_JOB_THREAD, add_another, NULL, NULL);
    }
    ns_job_done(job);
}

static void run_neighbour(struct ns_job_t *job)
{
    int not_yet = -1;
    if (latch_count(&near.blocker.leave) > 0) {
        atomic_compare_exchange_strong(&near.before, &not_yet, atomic_load(&near.repeated));
    }
    latch_add(&near.neighbour, 1);
    if (latch_count(&near.over) > 0) {
        ns_job_done(job);
    }
}

static void stay(struct ns_job_t *job)
{
    if (++near.runs < 100) {
        return;
    }
    long before = latch_count(&near.neighbour);
    if (atomic_load(&near.flood) == FROM_OUTSIDE) {
        ns_add_job(ns_job_get_tp(job), NS_JOB_THREAD, add_another, NULL, NULL);
    } else if (atomic_load(&near.flood) == ITS_OWN) {
        repeat(ns_job_get_tp(job), repeat_slowly);
    }
    latch_add(&near.blocker.leave, 1);
    int ran = latch_reaches(&near.neighbour, before + 1);
    atomic_store(&near.flood, 0);
    ns_job_done(job);
    latch_add(&near.over, ran ? 1 : 1000);
}

static void a_callback_that_stays_holds_no_job_back(int flood)
{
    struct ns_thrpool_t *tp = pool_of(2);
    struct ns_job_t *blocker = NULL;
    near.blocker = (struct gate)GATE_INIT;
    near.neighbour = near.over = near.gone = (struct latch)LATCH_INIT;
    atomic_store(&near.added, 0);
    near.runs = 0;
    atomic_store(&near.repeated, 0);
    atomic_store(&near.before, -1);
    atomic_store(&near.flood, flood);
    blocker = occupy(tp, NS_JOB_THREAD, &near.blocker);
    repeat(tp, run_neighbour);
    repeat(tp, stay);
    assert_latch(&near.over, 1);
    assert_int_equal(latch_count(&near.over), 1);
    /* A job that shutdown stops from repeating would be left idle. */
    assert_latch(&near.gone, atomic_load(&near.added));
    finish_idle(blocker);
    pool_end(tp);
}

/* To see it fail: in WorkQueue::take_any, look at the worker's own near queue only. */
TEST(a_job_near_a_blocked_worker_is_run_by_another)
{
    for (int i = 0; i < 50; i++) {
        a_callback_that_stays_holds_no_job_back(IDLE);
    }
}

/* To see it fail: in WorkQueue::take_any, let no queue have its turn. */
TEST(a_job_near_a_blocked_worker_is_run_by_one_that_is_never_idle)
{
    for (int i = 0; i < 50; i++) {
        a_callback_that_stays_holds_no_job_back(FROM_OUTSIDE);
    }
}

/* The same, before that worker's own job has run many times. To see it fail: have Seat::look never
 * find that it was slow. */
TEST(a_job_near_a_blocked_worker_is_run_before_others_are_run_often)
{
    for (int i = 0; i < 20; i++) {
        a_callback_that_stays_holds_no_job_back(ITS_OWN);
        assert_in_range(atomic_load(&near.before), 0, 24);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_add_runs_once),
        cmocka_unit_test(without_thread_it_runs_in_the_loop_and_with_it_in_a_worker),
        cmocka_unit_test(jobs_of_one_thread_start_in_the_order_of_their_adding),
        cmocka_unit_test(persist_goes_to_the_back_of_its_queue_each_time),
        cmocka_unit_test(a_job_that_repeats_at_once_keeps_nobody_waiting),
        cmocka_unit_test(what_is_written_before_arming_and_in_the_callback_is_visible),
        cmocka_unit_test(a_million_adds_against_a_blocked_loop_block_nobody),
        cmocka_unit_test(single_jobs_handed_to_a_sleeping_worker_are_never_stranded),
        cmocka_unit_test(an_add_wakes_nobody_while_those_who_would_run_it_are_busy),
        cmocka_unit_test(a_flood_of_done_callbacks_leaves_timers_alone),
        cmocka_unit_test(a_job_near_a_blocked_worker_is_run_by_another),
        cmocka_unit_test(a_job_near_a_blocked_worker_is_run_by_one_that_is_never_idle),
        cmocka_unit_test(a_job_near_a_blocked_worker_is_run_before_others_are_run_often),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
