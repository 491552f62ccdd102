/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What a pool with NS_POOL_TIMINGS measures, beside what this test measures itself: how long jobs wait, how long
 * callbacks take, how late timers are, how long the loop sleeps. test-random compares the numbers of times with
 * its model; test-prometheus.sh hands the histograms to Prometheus.
 *
 * To see it fail: leave out the stamp in Shared::arm_unusual, in arm_member, in Batch::start, in stamp_fired or in
 * run_clocked; in Times::begin, take `returned` alone; in worker_woke, do not pause; in bucket, leave out the
 * min, or count from one; in Times::waited, do not end idle; in turn_until, leave out loop_ends. */
#include "harness.h"

#define SECOND UINT64_C(1000000000)

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_nsec;
}

static struct ns_thrpool_t *pool_timed(size_t workers, uint64_t flags, size_t limit)
{
    struct ns_thrpool_config config;
    struct ns_thrpool_options options;
    ns_thrpool_config_init(&config);
    config.max_threads = workers;
    config.log_fct = quiet_log;
    ns_thrpool_options_init(&options, sizeof options);
    options.flags = NS_POOL_TIMINGS | flags;
    options.queue_limit = limit;
    struct ns_thrpool_t *tp = ns_thrpool_new_with(&config, &options);
    assert_non_null(tp);
    return tp;
}

static struct ns_thrpool_stats stats_of(struct ns_thrpool_t *tp)
{
    struct ns_thrpool_stats stats;
    ns_thrpool_stats_init(&stats, sizeof stats);
    assert_int_equal(ns_thrpool_get_stats(tp, &stats), NS_SUCCESS);
    return stats;
}

/* One histogram, and its sum. */
struct times {
    const uint64_t *buckets;
    uint64_t sum;
};

enum which { QUEUE_LOOP, QUEUE_WORKER, RUN_LOOP, RUN_WORKER, LATE, WHICH };

static struct times times_in(const struct ns_thrpool_stats *stats, enum which which)
{
    const struct times all[WHICH] = {
        {stats->queue_loop_ns, stats->queue_loop_sum}, {stats->queue_worker_ns, stats->queue_worker_sum},
        {stats->run_loop_ns, stats->run_loop_sum},     {stats->run_worker_ns, stats->run_worker_sum},
        {stats->late_ns, stats->late_sum},
    };
    return all[which];
}

static uint64_t count_of(const struct ns_thrpool_stats *stats, enum which which)
{
    uint64_t count = 0;
    for (int i = 0; i < 64; i++) {
        count += times_in(stats, which).buckets[i];
    }
    return count;
}

/* What a sum may be, given the buckets. */
static void buckets_agree(const struct ns_thrpool_stats *stats, enum which which)
{
    struct times times = times_in(stats, which);
    uint64_t least = 0, most = 0;
    for (int i = 1; i < 63; i++) {
        least += times.buckets[i] << (i - 1);
        most += times.buckets[i] * ((UINT64_C(1) << i) - 1);
    }
    assert_int_equal(times.buckets[63], 0);
    assert_in_range(times.sum, least, most);
}

/* The numbers of times are those of callbacks. Holds when nothing runs. */
static int counts_agree(struct ns_thrpool_t *tp)
{
    struct ns_thrpool_stats stats = stats_of(tp);
    return count_of(&stats, QUEUE_LOOP) == stats.runs_loop && count_of(&stats, RUN_LOOP) == stats.runs_loop &&
           count_of(&stats, QUEUE_WORKER) == stats.runs_worker &&
           count_of(&stats, RUN_WORKER) == stats.runs_worker;
}

/* What a sum has grown by since `before`, if the histogram has `more` times more. */
static uint64_t grown(struct ns_thrpool_t *tp, const struct ns_thrpool_stats *before, enum which which,
                      uint64_t more)
{
    EVENTUALLY(counts_agree(tp));
    struct ns_thrpool_stats now = stats_of(tp);
    assert_int_equal(count_of(&now, which), count_of(before, which) + more);
    for (int i = 0; i < WHICH; i++) {
        buckets_agree(&now, (enum which)i);
    }
    return times_in(&now, which).sum - times_in(before, which).sum;
}

static enum which queue_of(size_t place) { return place ? QUEUE_WORKER : QUEUE_LOOP; }
static enum which run_of(size_t place) { return place ? RUN_WORKER : RUN_LOOP; }

/* What one run has seen: it stays until the gate opens. */
static struct latch begun = LATCH_INIT, gate = LATCH_INIT, gone = LATCH_INIT;
static _Atomic uint64_t began_at, left_at;

static void reset(void)
{
    begun.count = gate.count = gone.count = 0;
}

static void stay(struct ns_job_t *job)
{
    atomic_store(&began_at, now_ns());
    latch_add(&begun, 1);
    latch_reaches(&gate, 1);
    atomic_store(&left_at, now_ns());
    ns_job_done(job);
}

static void tell(struct ns_job_t *job)
{
    atomic_store(&began_at, now_ns());
    ns_job_done(job);
    latch_add(&gone, 1);
}

static void stay_idle(struct ns_job_t *job)
{
    UNUSED(job);
}

/* Lets at least this much time pass, and returns when that is over. */
static uint64_t pass(uint64_t ns)
{
    uint64_t end = now_ns() + ns;
    while (now_ns() < end) {
        let_time_pass(200);
    }
    return now_ns();
}

TEST(without_the_flag_there_is_nothing)
{
    struct ns_thrpool_t *tp = pool_of(1);
    for EACH_THREAD(i) {
        assert_int_equal(ns_add_job(tp, where[i], finish_job, NULL, NULL), NS_SUCCESS);
        assert_int_equal(ns_add_timeout_job(tp, &at_once, where[i], finish_job, NULL, NULL), NS_SUCCESS);
    }
    EVENTUALLY(stats_of(tp).jobs_disposed == 4);
    struct ns_thrpool_stats stats = stats_of(tp);
    static const struct ns_thrpool_stats none;
    size_t from = offsetof(struct ns_thrpool_stats, queue_loop_ns);
    assert_memory_equal((char *)&stats + from, (const char *)&none + from, sizeof stats - from);
    static char text[1 << 16];
    ns_thrpool_format_stats(tp, text, sizeof text);
    assert_null(strstr(text, "seconds"));
    pool_end(tp);
}

TEST(a_callback_takes_what_it_takes)
{
    struct ns_thrpool_t *tp = pool_timed(1, 0, 0);
    const uint64_t lengths[] = {0, 3000000, 20000000};
    for EACH_THREAD(i) {
        for (int at = 0; at < 3; at++) {
            struct ns_thrpool_stats before = stats_of(tp);
            reset();
            uint64_t added = now_ns();
            assert_int_equal(ns_add_job(tp, where[i], stay, NULL, NULL), NS_SUCCESS);
            uint64_t was_added = now_ns();
            assert_latch(&begun, 1);
            pass(lengths[at]);
            latch_add(&gate, 1);
            uint64_t took = grown(tp, &before, run_of(i), 1);
            uint64_t over = now_ns();
            assert_in_range(took, left_at - began_at, over - added);
            assert_true(took >= lengths[at]);
            uint64_t waited = grown(tp, &before, queue_of(i), 1);
            assert_true(waited <= began_at - added);
            /* Both together: from inside the add to inside the return. */
            assert_true(waited + took >= left_at - was_added);
        }
    }
    pool_end(tp);
}

/* The ways in which a job comes to wait. Each returns the job, or NULL, which `let` then arms. */
enum way { ADD, ADD_MANY, REARM, TIMER, DESCRIPTOR, GROUP, GROUP_REARM, TEAM, WAYS };

struct start {
    struct ns_thrpool_t *tp;
    struct ns_group_t *group;
    struct ns_job_t *job;
    int pipe[2];
};

static void prepare(struct start *start, enum way way, ns_job_type_t place)
{
    ns_job_type_t unarmed = place | NS_JOB_UNARMED;
    start->group = NULL;
    if (way >= GROUP) {
        assert_int_equal(ns_group_new(start->tp, way == TEAM ? 0 : 1, NULL, NULL, &start->group), NS_SUCCESS);
    }
    if (way == REARM) {
        assert_int_equal(ns_create_job(start->tp, place, tell, &start->job), NS_SUCCESS);
    } else if (way == GROUP_REARM) {
        assert_int_equal(ns_add_group_job(start->group, unarmed, tell, NULL, &start->job), NS_SUCCESS);
    } else if (way == DESCRIPTOR) {
        assert_int_equal(pipe(start->pipe), 0);
        assert_int_equal(write(start->pipe[1], "x", 1), 1);
    }
}

static void let(struct start *start, enum way way, ns_job_type_t place)
{
    void *none[1] = {NULL};
    switch (way) {
    case ADD_MANY:
        if (place != 0) {
            assert_int_equal(ns_add_jobs(start->tp, place, tell, 1, none, NULL), NS_SUCCESS);
            break;
        }
        /* fall through */
    case ADD:
        assert_int_equal(ns_add_job(start->tp, place, tell, NULL, NULL), NS_SUCCESS);
        break;
    case REARM:
    case GROUP_REARM:
        assert_int_equal(ns_job_rearm(start->job), NS_SUCCESS);
        break;
    case TIMER:
        assert_int_equal(ns_add_timeout_job(start->tp, &at_once, place, tell, NULL, NULL), NS_SUCCESS);
        break;
    case DESCRIPTOR:
        assert_int_equal(ns_add_fd_job(start->tp, start->pipe[0], NS_JOB_READ | place, tell, NULL, NULL),
                         NS_SUCCESS);
        break;
    default:
        assert_int_equal(ns_add_group_job(start->group, place, tell, NULL, NULL), NS_SUCCESS);
    }
}

static void clear_up(struct start *start, enum way way)
{
    if (start->group != NULL) {
        ns_group_release(start->group);
    }
    if (way == DESCRIPTOR) {
        close(start->pipe[1]);
    }
}

TEST(a_job_waits_for_a_busy_worker_however_it_came)
{
    const uint64_t length = 5000000;
    for (int way = 0; way < WAYS; way++) {
        struct start start = {.tp = pool_timed(1, 0, way == ADD ? 9 : 0)};
        prepare(&start, (enum way)way, NS_JOB_THREAD);
        struct ns_thrpool_stats before = stats_of(start.tp);
        reset();
        assert_int_equal(ns_add_job(start.tp, NS_JOB_THREAD, stay, NULL, NULL), NS_SUCCESS);
        assert_latch(&begun, 1);
        /* Its own time in the queue is known from here on. */
        uint64_t first = stats_of(start.tp).queue_worker_sum - before.queue_worker_sum;
        uint64_t added = now_ns();
        let(&start, (enum way)way, NS_JOB_THREAD);
        EVENTUALLY(stats_of(start.tp).work_queue == 1);
        uint64_t was_added = now_ns();
        pass(length);
        latch_add(&gate, 1);
        assert_latch(&gone, 1);
        uint64_t waited = grown(start.tp, &before, QUEUE_WORKER, 2) - first;
        assert_in_range(waited, left_at - was_added, began_at - added);
        assert_true(waited >= length);
        clear_up(&start, (enum way)way);
        pool_end(start.tp);
    }
}

TEST(a_job_waits_for_a_busy_loop_however_it_came)
{
    const uint64_t length = 5000000;
    for (int way = 0; way < WAYS; way++) {
        struct start start = {.tp = pool_timed(1, 0, 0)};
        prepare(&start, (enum way)way, NS_JOB_NONE);
        struct ns_thrpool_stats before = stats_of(start.tp);
        reset();
        assert_int_equal(ns_add_job(start.tp, NS_JOB_NONE, stay, NULL, NULL), NS_SUCCESS);
        assert_latch(&begun, 1);
        uint64_t first = stats_of(start.tp).queue_loop_sum - before.queue_loop_sum, added = now_ns();
        let(&start, (enum way)way, NS_JOB_NONE);
        uint64_t was_added = now_ns();
        pass(length);
        latch_add(&gate, 1);
        assert_latch(&gone, 1);
        uint64_t waited = grown(start.tp, &before, QUEUE_LOOP, 2) - first;
        assert_true(waited <= began_at - added);
        if (way != TIMER && way != DESCRIPTOR) {
            assert_true(waited >= left_at - was_added);
        } else {
            /* The busy loop fires it only when it is free again: it has waited for its trigger. */
            assert_true(waited <= began_at - left_at);
        }
        clear_up(&start, (enum way)way);
        pool_end(start.tp);
    }
}

/* Two jobs in the loop that fire together: the second waits for the first. */
TEST(jobs_that_fire_together_wait_for_each_other)
{
    struct ns_thrpool_t *tp = pool_timed(1, 0, 0);
    struct ns_thrpool_stats before = stats_of(tp);
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    reset();
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ns_add_fd_job(tp, pipes[0], NS_JOB_READ | NS_JOB_PRESERVE_FD, stay, NULL, NULL),
                         NS_SUCCESS);
    }
    /* The loop has taken both, and watches them before it waits again. */
    EVENTUALLY(stats_of(tp).requests == 0);
    uint64_t added = now_ns();
    assert_int_equal(write(pipes[1], "x", 1), 1);
    assert_latch(&begun, 1);
    uint64_t here = now_ns(), over = pass(3000000);
    latch_add(&gate, 1);
    assert_latch(&begun, 2);
    assert_in_range(grown(tp, &before, QUEUE_LOOP, 2), over - here, now_ns() - added);
    pool_end(tp);
    close(pipes[0]);
    close(pipes[1]);
}

/* A job that runs again waits from its return. Its callback stays for a while. */
enum { ROUNDS = 50 };
static atomic_int rounds;
static _Atomic uint64_t inside_ns;

static void again(struct ns_job_t *job)
{
    uint64_t here = now_ns();
    pass(50000);
    int left = atomic_fetch_sub(&rounds, 1) - 1;
    if (left == 0) {
        ns_job_done(job);
    } else if (!(ns_job_get_type(job) & NS_JOB_PERSIST)) {
        ns_job_rearm(job);
    }
    atomic_fetch_add(&inside_ns, now_ns() - here);
}

TEST(a_job_that_runs_again_waits_from_its_return)
{
    struct ns_thrpool_t *tp = pool_timed(1, 0, 0);
    struct ns_group_t *group;
    assert_int_equal(ns_group_new(tp, 1, NULL, NULL, &group), NS_SUCCESS);
    const ns_job_type_t how[] = {NS_JOB_NONE, NS_JOB_PERSIST};
    for EACH_THREAD(i) {
        for (int way = 0; way < 4; way++) {
            struct ns_thrpool_stats before = stats_of(tp);
            atomic_store(&rounds, ROUNDS);
            atomic_store(&inside_ns, 0);
            uint64_t start = now_ns();
            if (way < 2) {
                assert_int_equal(ns_add_job(tp, where[i] | how[way], again, NULL, NULL), NS_SUCCESS);
            } else {
                assert_int_equal(ns_add_group_job(group, where[i] | how[way - 2], again, NULL, NULL), NS_SUCCESS);
            }
            EVENTUALLY(stats_of(tp).jobs_disposed == before.jobs_disposed + 1);
            uint64_t ran = grown(tp, &before, run_of(i), ROUNDS);
            uint64_t waited = grown(tp, &before, queue_of(i), ROUNDS);
            uint64_t all = now_ns() - start;
            assert_in_range(ran, inside_ns, all);
            /* What waits from its firing, or from the last callback's beginning, would count twice. */
            assert_true(waited + ran <= all);
        }
    }
    ns_group_release(group);
    pool_end(tp);
}

TEST(timers_are_late_by_what_held_them_up)
{
    struct ns_thrpool_t *tp = pool_timed(1, 0, 0);
    struct timeval soon = {0, 1000};
    for EACH_THREAD(i) {
        struct ns_thrpool_stats before = stats_of(tp);
        reset();
        uint64_t added = now_ns();
        assert_int_equal(ns_add_timeout_job(tp, &soon, where[i], tell, NULL, NULL), NS_SUCCESS);
        uint64_t was_added = now_ns();
        assert_int_equal(ns_add_job(tp, NS_JOB_NONE, stay, NULL, NULL), NS_SUCCESS);
        assert_latch(&begun, 1);
        pass(4000000);
        uint64_t opened = now_ns();
        struct ns_thrpool_stats held_up = stats_of(tp);
        int was_early = count_of(&held_up, LATE) > count_of(&before, LATE);
        latch_add(&gate, 1);
        assert_latch(&gone, 1);
        EVENTUALLY(counts_agree(tp));
        struct ns_thrpool_stats now = stats_of(tp);
        assert_int_equal(count_of(&now, LATE), count_of(&before, LATE) + 1);
        buckets_agree(&now, LATE);
        uint64_t late = now.late_sum - before.late_sum;
        assert_true(added + 1000000 + late <= began_at);
        /* Unless it fired before the loop was held up. */
        if (!was_early) {
            assert_true(was_added + 1000000 + late >= opened);
        }
    }
    /* Neither a time-out of a descriptor nor a delay is a timer. */
    struct ns_thrpool_stats before = stats_of(tp);
    struct ns_job_t *job;
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(write(pipes[1], "x", 1), 1);
    assert_int_equal(ns_add_fd_job(tp, pipes[0], NS_JOB_READ | NS_JOB_UNARMED, finish_job, NULL, &job), NS_SUCCESS);
    assert_int_equal(ns_job_rearm_after(job, &soon), NS_SUCCESS);
    EVENTUALLY(stats_of(tp).jobs_disposed == before.jobs_disposed + 1);
    close(pipes[1]);
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(ns_add_fd_timeout_job(tp, pipes[0], &soon, NS_JOB_READ, finish_job, NULL, NULL), NS_SUCCESS);
    EVENTUALLY(stats_of(tp).jobs_disposed == before.jobs_disposed + 2);
    close(pipes[1]);
    struct ns_thrpool_stats now = stats_of(tp);
    assert_int_equal(count_of(&now, LATE), count_of(&before, LATE));
    pool_end(tp);
}

/* The time between two looks at a pool, as the test sees it: no less, and no more. */
struct look {
    uint64_t first, last;
    struct ns_thrpool_stats stats;
};

static void look_at(struct ns_thrpool_t *tp, struct look *look)
{
    look->first = now_ns();
    look->stats = stats_of(tp);
    look->last = now_ns();
}

static void assert_between(uint64_t ns, const struct look *from, const struct look *to)
{
    assert_in_range(ns, to->first - from->last, to->last - from->first);
}

TEST(the_loop_is_busy_or_sleeps)
{
    struct ns_thrpool_t *tp = pool_timed(1, 0, 0);
    static struct look one, two;
    /* It sleeps, once it has begun, until it is woken. */
    EVENTUALLY((look_at(tp, &one), pass(3000000), look_at(tp, &two),
                two.stats.loop_busy_ns == one.stats.loop_busy_ns &&
                    two.stats.loop_idle_ns > one.stats.loop_idle_ns));
    assert_between(two.stats.loop_idle_ns - one.stats.loop_idle_ns, &one, &two);
    /* It is in a callback. */
    reset();
    assert_int_equal(ns_add_job(tp, NS_JOB_NONE, stay, NULL, NULL), NS_SUCCESS);
    assert_latch(&begun, 1);
    look_at(tp, &one);
    pass(3000000);
    look_at(tp, &two);
    assert_int_equal(two.stats.loop_idle_ns, one.stats.loop_idle_ns);
    assert_between(two.stats.loop_busy_ns - one.stats.loop_busy_ns, &one, &two);
    latch_add(&gate, 1);
    /* It has nothing more to run. */
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    EVENTUALLY((look_at(tp, &one), pass(1000000), look_at(tp, &two),
                two.stats.loop_busy_ns == one.stats.loop_busy_ns));
    assert_int_equal(two.stats.loop_idle_ns, one.stats.loop_idle_ns);
    ns_thrpool_destroy(tp);
}

/* Whether all of a turn counts, but for what the thread does around it. */
static int sleeps_in_a_turn(struct ns_thrpool_t *tp)
{
    static struct look one, two;
    struct timeval while_ = {0, 3000};
    look_at(tp, &one);
    assert_int_equal(ns_thrpool_turn(tp, &while_), NS_TIMEOUT);
    look_at(tp, &two);
    uint64_t all = two.stats.loop_busy_ns - one.stats.loop_busy_ns + two.stats.loop_idle_ns -
                   one.stats.loop_idle_ns;
    assert_true(all <= two.last - one.first);
    return all >= 2900000 && two.stats.loop_idle_ns > one.stats.loop_idle_ns;
}

TEST(a_callers_loop_counts_while_somebody_is_inside)
{
    struct ns_thrpool_t *tp = pool_timed(0, NS_POOL_CALLER_LOOP, 0);
    static struct look one, two;
    /* The first turn has the pool's own beginning to look at. */
    for (int i = 0; i < 9 && ns_thrpool_turn(tp, &at_once) == NS_SUCCESS; i++) {
    }
    look_at(tp, &one);
    pass(2000000);
    look_at(tp, &two);
    assert_int_equal(two.stats.loop_busy_ns, one.stats.loop_busy_ns);
    assert_int_equal(two.stats.loop_idle_ns, one.stats.loop_idle_ns);
    EVENTUALLY(sleeps_in_a_turn(tp));
    reset();
    latch_add(&gate, 1);
    uint64_t added = now_ns();
    assert_int_equal(ns_add_job(tp, NS_JOB_NONE, stay, NULL, NULL), NS_SUCCESS);
    uint64_t was_added = now_ns(), later = pass(2000000);
    look_at(tp, &one);
    assert_int_equal(ns_thrpool_turn(tp, NULL), NS_SUCCESS);
    assert_in_range(grown(tp, &one.stats, QUEUE_LOOP, 1), later - was_added, began_at - added);
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    ns_thrpool_destroy(tp);
}

/* Jobs of all kinds, with room for a group and without, each of which is freed as a whole. */
TEST(every_kind_of_job_is_made_and_freed)
{
    struct ns_thrpool_t *tp = pool_timed(2, 0, 4);
    struct ns_group_t *group;
    assert_int_equal(ns_group_new(tp, 2, NULL, NULL, &group), NS_SUCCESS);
    int pipes[2];
    assert_int_equal(pipe(pipes), 0);
    assert_int_equal(write(pipes[1], "x", 1), 1);
    for (unsigned kind = 0; kind < 16; kind++) {
        ns_job_type_t place = kind & 1 ? NS_JOB_THREAD : 0, room = kind & 2 ? NS_JOB_UNARMED : 0;
        struct ns_job_t *jobs[4] = {NULL};
        struct timeval *when = kind & 4 ? &at_once : &far_away;
        assert_int_equal(ns_add_job(tp, place | room, finish_job, NULL, &jobs[0]), NS_SUCCESS);
        assert_int_equal(ns_add_timeout_job(tp, when, place | room, finish_job, NULL, &jobs[1]), NS_SUCCESS);
        assert_int_equal(ns_add_fd_job(tp, pipes[kind & 4 ? 0 : 1], place | room | NS_JOB_PRESERVE_FD |
                                       (kind & 4 ? NS_JOB_READ : NS_JOB_WRITE), finish_job, NULL, &jobs[2]),
                         NS_SUCCESS);
        assert_int_equal(ns_add_signal_job(tp, SIGUSR2, place | room, finish_job, NULL, &jobs[3]), NS_SUCCESS);
        for (int i = 0; room && i < 4; i++) {
            if (kind & 8) {
                assert_int_equal(ns_job_set_group(jobs[i], group), NS_SUCCESS);
            }
            assert_int_equal(ns_job_get_type(jobs[i]) & NS_JOB_SHUTDOWN_WORKER, 0);
            assert_int_equal(ns_job_rearm(jobs[i]), NS_SUCCESS);
        }
        kill(getpid(), SIGUSR2);
        if (!(kind & 4)) {
            assert_int_equal(ns_job_cancel(jobs[1]), NS_SUCCESS);
        }
        EVENTUALLY(stats_of(tp).jobs_disposed == (kind + 1) * 4);
        EVENTUALLY(counts_agree(tp));
    }
    ns_group_release(group);
    struct ns_job_t *idle;
    assert_int_equal(ns_add_job(tp, NS_JOB_UNARMED, stay_idle, NULL, &idle), NS_SUCCESS);
    assert_int_equal(ns_job_done(idle), NS_SUCCESS);
    pool_end(tp);
    close(pipes[0]);
    close(pipes[1]);
}

static atomic_int reading;

/* Numbers never fall, and a callback has waited before it has run. */
static void *read_all(void *arg)
{
    struct ns_thrpool_t *tp = arg;
    static _Thread_local struct ns_thrpool_stats old, now;
    memset(&old, 0, sizeof old);
    while (atomic_load(&reading)) {
        ns_thrpool_stats_init(&now, sizeof now);
        if (ns_thrpool_get_stats(tp, &now) != NS_SUCCESS || now.loop_busy_ns < old.loop_busy_ns ||
            now.loop_idle_ns < old.loop_idle_ns) {
            return (void *)1;
        }
        for (int which = 0; which < WHICH; which++) {
            if (times_in(&now, (enum which)which).sum < times_in(&old, (enum which)which).sum) {
                return (void *)2;
            }
            for (int i = 0; i < 64; i++) {
                if (times_in(&now, (enum which)which).buckets[i] < times_in(&old, (enum which)which).buckets[i]) {
                    return (void *)3;
                }
            }
        }
        old = now;
    }
    return NULL;
}

TEST(four_threads_read_during_a_flood)
{
    enum { READERS = 4, WORKERS = 3 };
    struct ns_thrpool_t *tp = pool_timed(WORKERS, 0, 0);
    pthread_t readers[READERS];
    int jobs = scaled(100000);
    uint64_t start = now_ns();
    atomic_store(&reading, 1);
    for (int i = 0; i < READERS; i++) {
        assert_int_equal(pthread_create(&readers[i], NULL, read_all, tp), 0);
    }
    for (int i = 0; i < jobs; i++) {
        assert_int_equal(ns_add_job(tp, where[i % 2], finish_job, NULL, NULL), NS_SUCCESS);
    }
    EVENTUALLY(stats_of(tp).jobs_disposed == (uint64_t)jobs);
    atomic_store(&reading, 0);
    for (int i = 0; i < READERS; i++) {
        void *bad;
        pthread_join(readers[i], &bad);
        assert_int_equal((intptr_t)bad, 0);
    }
    assert_true(counts_agree(tp));
    struct ns_thrpool_stats stats = stats_of(tp);
    uint64_t all = now_ns() - start;
    for (int i = 0; i < WHICH; i++) {
        buckets_agree(&stats, (enum which)i);
    }
    assert_true(stats.run_loop_sum <= stats.loop_busy_ns);
    assert_true(stats.run_worker_sum <= all * WORKERS);
    assert_true(stats.loop_busy_ns + stats.loop_idle_ns <= all + SECOND);
    pool_end(tp);
}

TEST(the_text_has_the_histograms_of_the_pools_that_have_them)
{
    static char text[1 << 16];
    struct ns_thrpool_t *plain = pool_of(1), *tp = pool_timed(1, 0, 0);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, finish_job, NULL, NULL), NS_SUCCESS);
    }
    EVENTUALLY(stats_of(tp).jobs_disposed == 10 && counts_agree(tp));
    assert_true(ns_thrpool_format_stats(NULL, text, sizeof text) < sizeof text);
    struct ns_thrpool_stats stats = stats_of(tp);
    assert_non_null(strstr(text, "# TYPE nunc_stans_run_worker_seconds histogram\n"));
    const char *at = text;
    int lines = 0, which = 0;
    double least = -1, most = 0;
    uint64_t count = 0;
    for (; (at = strstr(at, "\nnunc_stans_run_worker_seconds_bucket{")) != NULL; at++, lines++) {
        double bound, value;
        const char *le = strstr(at, "le=\"");
        assert_non_null(le);
        if (strncmp(le, "le=\"+Inf\"", 9) == 0) {
            bound = 1e30;
        } else {
            bound = strtod(le + 4, NULL);
        }
        value = strtod(strchr(le, '}') + 1, NULL);
        assert_true(bound > least && value >= most);
        for (; which < 64 && (double)((UINT64_C(1) << which) - 1) <= bound * 1e9 + 0.5; which++) {
            count += stats.run_worker_ns[which];
        }
        assert_true((uint64_t)value == count);
        least = bound;
        most = value;
    }
    assert_int_equal(lines, 28);
    assert_true(most == 10);
    /* In seconds, to the nanosecond. */
    const char *sum = strstr(text, "nunc_stans_run_worker_seconds_sum{");
    assert_non_null(sum);
    double seconds = strtod(strchr(sum, '}') + 1, NULL) * 1e9 - (double)stats.run_worker_sum;
    assert_true(seconds < 1 && seconds > -1);
    pool_end(tp);
    ns_thrpool_format_stats(NULL, text, sizeof text);
    assert_null(strstr(text, "seconds"));
    pool_end(plain);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_the_flag_there_is_nothing),
        cmocka_unit_test(a_callback_takes_what_it_takes),
        cmocka_unit_test(a_job_waits_for_a_busy_worker_however_it_came),
        cmocka_unit_test(a_job_waits_for_a_busy_loop_however_it_came),
        cmocka_unit_test(jobs_that_fire_together_wait_for_each_other),
        cmocka_unit_test(a_job_that_runs_again_waits_from_its_return),
        cmocka_unit_test(timers_are_late_by_what_held_them_up),
        cmocka_unit_test(the_loop_is_busy_or_sleeps),
        cmocka_unit_test(a_callers_loop_counts_while_somebody_is_inside),
        cmocka_unit_test(every_kind_of_job_is_made_and_freed),
        cmocka_unit_test(four_threads_read_during_a_flood),
        cmocka_unit_test(the_text_has_the_histograms_of_the_pools_that_have_them),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
