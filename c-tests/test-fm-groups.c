/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What breaks programs whose tasks share objects, shown absent: two jobs of one object at once, callbacks
 * after a cancel, memory that is used after its end, work that is held up by a blocked or busy neighbour,
 * and waits without end.
 *
 * Each test is named for its row in docs/RELIABILITY.md, and says what to take out of the library
 * to see it fail.
 */
#include "fm.h"
#include "groups.h"
#include "sockets.h"

/* Objects that nothing guards but their groups. */
enum { OBJECTS = 32, PRODUCERS = 3 };

struct object {
    struct ns_group_t *group;
    int inside;
    int bad;
    long runs;
    long next[PRODUCERS]; /* the number of each producer's next job */
    struct latch *ended;
};

struct task {
    struct object *object;
    int producer;
    int plain; /* without a done callback */
    long number;
};

static void use_object(struct ns_job_t *job)
{
    struct task *task = ns_job_get_data(job);
    struct object *object = task->object;
    object->bad += object->inside++ != 0;
    object->bad += object->next[task->producer]++ != task->number;
    object->runs++;
    for (volatile int i = 0; i < 20; i++) {
    }
    object->bad += --object->inside != 0;
    if (task->plain) {
        free(task);
    }
    ns_job_done(job);
}

static void task_gone(struct ns_job_t *job)
{
    struct task *task = ns_job_get_data(job);
    struct object *object = task->object;
    object->bad += object->inside++ != 0;
    object->bad += --object->inside != 0;
    free(task);
}

static void object_ended(struct ns_group_t *group)
{
    struct object *object = ns_group_get_data(group);
    object->bad += object->inside != 0;
    latch_add(object->ended, 1);
}

static struct object objects[OBJECTS];

struct producer {
    int number;
    uint64_t seed;
    long jobs;
    ns_job_type_t (*type)(uint64_t dice);
    atomic_int bad;
};

static void *produce(void *arg)
{
    struct producer *producer = arg;
    uint64_t sequence = producer->seed + (uint64_t)producer->number;
    long made[OBJECTS] = {0};
    for (long i = 0; i < producer->jobs; i++) {
        uint64_t dice = next_random(&sequence);
        int at = (int)(dice % OBJECTS);
        struct task *task = malloc(sizeof *task);
        int plain = (dice >> 16) % 3 > 0;
        *task = (struct task){&objects[at], producer->number, plain, made[at]++};
        struct ns_job_t *job = NULL;
        if (plain) {
            atomic_fetch_add(&producer->bad,
                             ns_add_group_job(objects[at].group, producer->type(dice >> 8), use_object, task,
                                              NULL) != NS_SUCCESS);
        } else if (ns_add_group_job(objects[at].group, producer->type(dice >> 8) | NS_JOB_UNARMED, use_object,
                             task, &job) != NS_SUCCESS ||
            ns_job_set_done_cb(job, task_gone) != NS_SUCCESS || ns_job_rearm(job) != NS_SUCCESS) {
            atomic_fetch_add(&producer->bad, 1);
        }
        if (i % 4096 == 4095) {
            ns_group_wait(objects[at].group, NULL); /* so that the queue does not grow without end */
        }
    }
    return NULL;
}

static ns_job_type_t in_workers(uint64_t dice)
{
    UNUSED(dice);
    return NS_JOB_THREAD;
}

static ns_job_type_t anywhere(uint64_t dice)
{
    return where[dice % 4 > 0];
}

/*
 * Ten million with NS_COUNT=full. The objects' numbers are no atomics: ThreadSanitizer sees whether each
 * callback sees what the one before it wrote.
 *
 * To see it fail: let a group of width 1 begin a second job; or push at the head.
 */
TEST(fm22_no_two_jobs_of_one_object_run_at_once)
{
    ns_job_type_t (*const types[])(uint64_t) = {in_workers, anywhere};
    long jobs = count_of(100000, 5000000);
    for (size_t t = 0; t < 2; t++) {
        struct ns_thrpool_t *tp = checked_pool(3);
        struct latch ended = LATCH_INIT;
        struct producer producers[PRODUCERS];
        pthread_t threads[PRODUCERS];
        long runs = 0;
        memset(objects, 0, sizeof objects);
        for (int i = 0; i < OBJECTS; i++) {
            objects[i].ended = &ended;
            assert_int_equal(ns_group_new(tp, 1, &objects[i], object_ended, &objects[i].group),
                             NS_SUCCESS);
        }
        for (int i = 0; i < PRODUCERS; i++) {
            producers[i] = (struct producer){i, run_seed(), jobs / PRODUCERS, types[t], 0};
            threads[i] = start_thread(produce, &producers[i]);
        }
        for (int i = 0; i < PRODUCERS; i++) {
            pthread_join(threads[i], NULL);
            assert_int_equal(atomic_load(&producers[i].bad), 0);
        }
        for (int i = 0; i < OBJECTS; i++) {
            ns_group_release(objects[i].group);
        }
        assert_latch(&ended, OBJECTS);
        for (int i = 0; i < OBJECTS; i++) {
            assert_int_equal(objects[i].bad, 0);
            runs += objects[i].runs;
        }
        assert_int_equal(runs, jobs / PRODUCERS * PRODUCERS);
        checked_end(tp);
    }
}

/* A group that is cancelled while its jobs are added, fire, are armed again and run. */
struct hunt {
    struct ns_group_t *group;
    atomic_int begun;
    atomic_int ended;
    atomic_int made;
    atomic_int disposals;
    atomic_int late;    /* callbacks that began though a cancel had said that none would */
    atomic_int no_more; /* a cancel has said: none runs, and none will begin */
    atomic_int bad;
    atomic_int gone; /* the group's done callback */
    int fd;
};

static void hunted_gone(struct ns_job_t *job)
{
    struct hunt *hunt = ns_job_get_data(job);
    atomic_fetch_add(&hunt->bad, atomic_load(&hunt->gone));
    atomic_fetch_add(&hunt->disposals, 1);
}

static void hunt_over(struct ns_group_t *group)
{
    struct hunt *hunt = ns_group_get_data(group);
    atomic_fetch_add(&hunt->bad, atomic_load(&hunt->disposals) != atomic_load(&hunt->made));
    atomic_fetch_add(&hunt->bad, atomic_load(&hunt->begun) != atomic_load(&hunt->ended));
    atomic_fetch_add(&hunt->gone, 1);
}

static void hunted(struct ns_job_t *job)
{
    struct hunt *hunt = ns_job_get_data(job);
    atomic_fetch_add(&hunt->begun, 1);
    atomic_fetch_add(&hunt->late, atomic_load(&hunt->no_more));
    char byte;
    if (ns_job_get_native_fd(job) >= 0 && recv(ns_job_get_native_fd(job), &byte, 1, 0) < 0) {
        atomic_fetch_add(&hunt->bad, errno != EAGAIN);
    }
    if (!NS_JOB_IS_PERSIST(ns_job_get_type(job))) {
        ns_result_t result = ns_job_rearm(job);
        atomic_fetch_add(&hunt->bad, result != NS_SUCCESS && result != NS_INVALID_STATE);
    }
    for (volatile int i = 0; i < 100; i++) {
    }
    atomic_fetch_add(&hunt->ended, 1);
}

/* The group that another thread adds to, until it is refused. */
static _Atomic(struct hunt *) hunt_now;
static atomic_int hunts_over;

static void *add_to_hunts(void *arg)
{
    UNUSED(arg);
    for (int i = 0; !atomic_load(&hunts_over); i++) {
        struct hunt *hunt = atomic_load(&hunt_now);
        /* A few hundred at a time: on a busy machine millions could come before the cancel. */
        if (hunt == NULL || ns_group_get_length(hunt->group) > 300) {
            sched_yield();
            continue;
        }
        struct ns_job_t *job = NULL;
        ns_result_t result = ns_add_group_job(hunt->group, where[i % 2], finish_job, NULL, &job);
        if (result != NS_SUCCESS) {
            atomic_fetch_add(&hunt->bad, result != NS_DELETING || job != NULL);
            atomic_store(&hunt_now, NULL);
        }
    }
    return NULL;
}

/*
 * A hundred thousand with NS_COUNT=full.
 *
 * To see it fail: begin a job of a group without asking whether it is cancelled; or cancel only what the
 * list of members holds, and not what is being added.
 */
TEST(fm50_no_callback_begins_after_a_cancel)
{
    struct ns_thrpool_t *tp = checked_pool(2);
    uint64_t sequence = run_seed();
    long rounds = count_of(2000, 100000), running = 0, before_any = 0;
    int ends[2];
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGUSR1, &ignore, NULL);
    socket_pair(ends);
    atomic_store(&hunts_over, 0);
    pthread_t adder = start_thread(add_to_hunts, NULL);
    for (long round = 0; round < rounds; round++) {
        static const int kinds[] = {KIND_NOW, KIND_TIMER, KIND_FD, KIND_FD_TIMEOUT, KIND_SIGNAL};
        struct hunt hunt = {.fd = ends[0]};
        uint64_t dice = next_random(&sequence);
        struct timeval soon = {0, (long)(dice >> 32 & 31)};
        const struct trigger on = {&soon, ends[0], NS_JOB_READ | NS_JOB_PRESERVE_FD};
        size_t width = dice % 4;
        assert_int_equal(ns_group_new(tp, width, &hunt, hunt_over, &hunt.group), NS_SUCCESS);
        for (int i = 0; i < 5; i++) {
            struct ns_job_t *job = NULL;
            uint64_t each = next_random(&sequence);
            ns_job_type_t type = NS_JOB_UNARMED | (each & 1 ? NS_JOB_THREAD : 0) |
                                 (each & 6 ? 0 : NS_JOB_PERSIST);
            assert_int_equal(add_kind(tp, kinds[(each >> 8) % 5], &on, type, hunted, &hunt, &job),
                             NS_SUCCESS);
            assert_int_equal(ns_job_set_group(job, hunt.group), NS_SUCCESS);
            assert_int_equal(ns_job_set_done_cb(job, hunted_gone), NS_SUCCESS);
            atomic_fetch_add(&hunt.made, 1);
            if (each & 56) {
                assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
            }
        }
        if (dice & 16) {
            send(ends[1], "x", 1, 0);
        }
        if (dice & 32) {
            kill(getpid(), SIGUSR1);
        }
        if (dice & 64) {
            atomic_store(&hunt_now, &hunt);
        }
        for (int tries = 0; dice & 128 && tries < 1000 && atomic_load(&hunt.begun) == 0; tries++) {
            sched_yield();
        }
        hesitate(&sequence, 1u << (dice >> 48) % 13);
        ns_result_t result = ns_group_cancel(hunt.group);
        int begun = atomic_load(&hunt.begun), ended = atomic_load(&hunt.ended);
        if (result == NS_SUCCESS) {
            atomic_store(&hunt.no_more, 1);
            assert_int_equal(begun, ended);
        } else {
            assert_int_equal(result, NS_RUNNING);
            running++;
        }
        before_any += begun == 0;
        SOON(atomic_load(&hunt_now) == NULL); /* the other thread was refused, too */
        assert_int_equal(ns_add_group_job(hunt.group, NS_JOB_THREAD, hunted, &hunt, NULL), NS_DELETING);
        result = ns_group_cancel(hunt.group);
        assert_true(result == NS_SUCCESS || result == NS_RUNNING);
        ns_group_release(hunt.group);
        SOON(atomic_load(&hunt.gone) == 1);
        /* Those that had begun when the call returned had not all counted themselves: three threads. */
        assert_true(atomic_load(&hunt.begun) <= begun + (atomic_load(&hunt.no_more) ? 0 : 3));
        assert_int_equal(atomic_load(&hunt.late), 0);
        assert_int_equal(atomic_load(&hunt.bad), 0);
        drain(ends[0]);
    }
    atomic_store(&hunts_over, 1);
    pthread_join(adder, NULL);
    checked_end(tp);
    print_message("# %ld cancels, %ld met a callback that ran, %ld came before any\n", rounds, running,
                  before_any);
    assert_true(rounds < 1000 || (running > 0 && before_any > 0));
    close(ends[0]);
    close(ends[1]);
}

/*
 * The last hold goes, in turn, in a callback, in a done callback, in another thread, by a cancel, with a job
 * that is still in the queue of a suspended group. What callbacks use is freed, and overwritten, in the
 * group's done callback; the pool's heap notices whether the group itself is used later.
 *
 * To see it fail: run the done callback before the last done callback of a job has returned; free the group
 * when the last release has come and not when the last worker has left it.
 */
struct estate {
    struct ns_group_t *group;
    int way;
    struct latch *ended;
    atomic_int *bad;
    long used;
};

static void estate_use(struct ns_job_t *job)
{
    struct estate *estate = ns_job_get_data(job);
    estate->used++;
    if (estate->way == 0) {
        estate->way = -1;
        ns_group_release(estate->group);
        estate->used++;
    }
    ns_job_done(job);
}

static void estate_job_gone(struct ns_job_t *job)
{
    struct estate *estate = ns_job_get_data(job);
    estate->used++;
    if (estate->way == 1) {
        estate->way = -1;
        ns_group_release(estate->group);
        estate->used++;
    }
}

static void estate_ended(struct ns_group_t *group)
{
    struct estate *estate = ns_group_get_data(group);
    struct latch *ended = estate->ended;
    atomic_fetch_add(estate->bad, estate->used < 3 || !ns_group_is_current(group));
    memset(estate, 0xdd, sizeof *estate);
    free(estate);
    latch_add(ended, 1);
}

static void *release_it(void *arg)
{
    ns_group_release(arg);
    return NULL;
}

TEST(fm51_a_groups_memory_is_not_used_after_its_done_callback)
{
    struct ns_thrpool_t *tp = checked_pool(3);
    struct latch ended = LATCH_INIT;
    atomic_int bad = 0;
    long rounds = count_of(20000, 1000000);
    for (long round = 0; round < rounds; round++) {
        struct estate *estate = calloc(1, sizeof *estate);
        struct ns_group_t *group = NULL;
        int way = (int)(round % 5);
        estate->ended = &ended;
        estate->bad = &bad;
        estate->way = way;
        assert_int_equal(ns_group_new(tp, 1, estate, estate_ended, &group), NS_SUCCESS);
        estate->group = group;
        if (way >= 3) {
            assert_int_equal(ns_group_suspend(group), NS_SUCCESS);
        }
        struct ns_job_t *jobs[3];
        for (int i = 0; i < 3; i++) {
            assert_int_equal(ns_add_group_job(group, where[(round / 5 + i) % 2] | NS_JOB_UNARMED,
                                              estate_use, estate, &jobs[i]), NS_SUCCESS);
            assert_int_equal(ns_job_set_done_cb(jobs[i], estate_job_gone), NS_SUCCESS);
        }
        /* In ways 0 and 1 the group may be gone as soon as the last of them is armed. */
        for (int i = 0; i < 3; i++) {
            assert_int_equal(ns_job_rearm(jobs[i]), NS_SUCCESS);
        }
        switch (way) {
        case 2: {
            if (round % 10 == 2) {
                pthread_t thread = start_thread(release_it, group);
                pthread_join(thread, NULL);
            } else {
                ns_group_release(group);
            }
            break;
        }
        case 3:
            assert_int_equal(ns_group_cancel(group), NS_SUCCESS);
            ns_group_release(group);
            break;
        case 4:
            ns_group_hold(group);
            ns_group_release(group);
            assert_int_equal(ns_group_resume(group), NS_SUCCESS);
            ns_group_release(group);
            break;
        default: break;
        }
        if (round % 64 == 63) {
            assert_latch(&ended, round + 1);
        }
    }
    assert_latch(&ended, rounds);
    assert_int_equal(atomic_load(&bad), 0);
    checked_end(tp);
    assert_int_equal(latch_count(&ended), rounds);
}

/*
 * Groups that are blocked: in a worker, in a done callback, by a full width, suspended, and behind a job for
 * the loop, which is busy elsewhere. All others go on meanwhile.
 *
 * To see it fail: let a worker that finds a group full wait for it; or bind groups to workers.
 */
static struct gate blocked_gate;

static void blocked_gone(struct ns_job_t *job)
{
    stay_in_gate(&blocked_gate);
    member_gone(job);
}

TEST(fm52_a_blocked_group_holds_nobody_up)
{
    enum { BLOCKED = 5, LIGHT = 20 };
    struct ns_thrpool_t *tp = checked_pool(4);
    struct crew blocked[BLOCKED], light[LIGHT];
    struct member stay[BLOCKED][3];
    struct gate gate = GATE_INIT, loop_gate = GATE_INIT;
    long posts = count_of(20000, 1000000);
    blocked_gate = (struct gate)GATE_INIT;
    for (int i = 0; i < BLOCKED; i++) {
        crew_begin(&blocked[i], tp, i == 2 ? 2 : 1);
        for (int n = 0; n < 3; n++) {
            stay[i][n] = (struct member){.crew = &blocked[i], .number = n};
        }
    }
    /* 0: a callback blocks. 1: a done callback does. 2: one of two places is blocked, and others pass. */
    stay[0][0].gate = &gate;
    member_add(&stay[0][0], NS_JOB_THREAD);
    assert_latch(&gate.begun, 1);
    struct ns_job_t *job = member_make(&stay[1][0], NS_JOB_THREAD);
    assert_int_equal(ns_job_set_done_cb(job, blocked_gone), NS_SUCCESS);
    assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
    assert_latch(&blocked_gate.begun, 1);
    stay[2][0].gate = &gate;
    member_add(&stay[2][0], NS_JOB_THREAD);
    assert_latch(&gate.begun, 2);
    /* 3: suspended. */
    assert_int_equal(ns_group_suspend(blocked[3].group), NS_SUCCESS);
    member_add(&stay[3][0], NS_JOB_THREAD);
    /* 4: behind a job of the loop's. */
    struct ns_job_t *loop = NULL;
    assert_int_equal(ns_add_job(tp, NS_JOB_NONE, gate_callback, &loop_gate, &loop), NS_SUCCESS);
    member_add(&stay[4][0], NS_JOB_NONE);
    for (int i = 0; i < BLOCKED; i++) {
        for (int n = 1; n < 3; n++) {
            member_add(&stay[i][n], NS_JOB_THREAD);
        }
    }
    for (int i = 0; i < LIGHT; i++) {
        crew_begin(&light[i], tp, (size_t)i % 4);
    }
    /* If the done callback of 1 is in the loop it is that which blocks it; either way the loop is. */
    struct latch runs = LATCH_INIT;
    for (long i = 0; i < posts; i++) {
        assert_int_equal(ns_add_group_job(light[i % LIGHT].group, NS_JOB_THREAD, count_and_finish, &runs,
                                          NULL), NS_SUCCESS);
        if (i % 256 == 0) {
            assert_latch(&runs, i + 1);
        }
    }
    assert_latch(&runs, posts);
    assert_latch(&blocked[2].runs, 2);
    assert_int_equal(latch_count(&blocked[0].runs), 0);
    assert_int_equal(latch_count(&blocked[1].runs), 1);
    assert_int_equal(latch_count(&blocked[3].runs), 0);
    assert_int_equal(latch_count(&blocked[4].runs), 0);
    latch_add(&gate.leave, 1);
    latch_add(&blocked_gate.leave, 1);
    latch_add(&loop_gate.leave, 1);
    assert_int_equal(ns_group_resume(blocked[3].group), NS_SUCCESS);
    for (int i = 0; i < BLOCKED; i++) {
        crew_end(&blocked[i]);
        assert_int_equal(latch_count(&blocked[i].runs), 3);
    }
    for (int i = 0; i < LIGHT; i++) {
        crew_end(&light[i]);
    }
    finish_idle(loop);
    checked_end(tp);
}

/* A group with a hundred thousand jobs that never end, and light ones beside it on the same thread. */
enum { TURN = 64, LIGHT_GROUPS = 50 };

static atomic_long hog_runs;

static void hog_run(struct ns_job_t *job)
{
    UNUSED(job);
    atomic_fetch_add(&hog_runs, 1);
}

static struct {
    struct ns_group_t *groups[LIGHT_GROUPS];
    ns_job_type_t type;
    long posts;
    long at;         /* how many have run */
    long posted;     /* how far the hog was then */
    atomic_long ran; /* how far it was when the last of them ran */
    atomic_int over;
    long *waits;
    int bad;
} light;

/* The thread that runs the hog posts the next, so nothing runs between the look at the hog and the post. */
static void post_the_next(struct ns_job_t *job)
{
    light.waits[light.at++] = atomic_load(&hog_runs) - light.posted;
    if (light.at == light.posts) {
        atomic_store(&light.over, 1);
    } else {
        light.posted = atomic_load(&hog_runs);
        light.bad += ns_add_group_job(light.groups[light.at % LIGHT_GROUPS], light.type, post_the_next,
                                      NULL, NULL) != NS_SUCCESS;
    }
    ns_job_done(job);
}

static void note_the_hog(struct ns_job_t *job)
{
    atomic_store(&light.ran, atomic_load(&hog_runs));
    ns_job_done(job);
    atomic_store(&light.over, 1);
}

static int compare_longs(const void *a, const void *b)
{
    long x = *(const long *)a, y = *(const long *)b;
    return (x > y) - (x < y);
}

static void assert_short_waits(const char *what)
{
    qsort(light.waits, (size_t)light.posts, sizeof *light.waits, compare_longs);
    long p99 = light.waits[light.posts * 99 / 100];
    print_message("# %s: jobs of the busy group that a light one waited for: median %ld, p99 %ld, most %ld\n",
                  what, light.waits[light.posts / 2], p99, light.waits[light.posts - 1]);
    assert_true(p99 <= 2 * TURN);
}

static void beside_a_hog(ns_job_type_t type)
{
    struct ns_thrpool_t *tp = checked_pool(1);
    struct ns_group_t *hog = NULL;
    struct gate gate = GATE_INIT;
    long hogs = count_of(20000, 100000);
    memset(&light, 0, sizeof light);
    light.type = type;
    light.posts = count_of(1000, 20000);
    light.waits = calloc((size_t)light.posts, sizeof *light.waits);
    assert_int_equal(ns_group_new(tp, 1, NULL, NULL, &hog), NS_SUCCESS);
    struct ns_job_t *busy = occupy(tp, type, &gate);
    for (long i = 0; i < hogs; i++) {
        assert_int_equal(ns_add_group_job(hog, type | NS_JOB_PERSIST, hog_run, NULL, NULL), NS_SUCCESS);
    }
    for (int i = 0; i < LIGHT_GROUPS; i++) {
        assert_int_equal(ns_group_new(tp, 1, NULL, NULL, &light.groups[i]), NS_SUCCESS);
    }
    light.posted = atomic_load(&hog_runs);
    assert_int_equal(ns_add_group_job(light.groups[0], type, post_the_next, NULL, NULL), NS_SUCCESS);
    latch_add(&gate.leave, 1);
    EVENTUALLY(atomic_load(&light.over));
    assert_int_equal(light.bad, 0);
    assert_short_waits(type ? "worker, from inside" : "loop, from inside");
    /* From another thread: it looks at the hog after the add, so what it sees is no more than the truth. */
    for (long i = 0; i < light.posts; i++) {
        atomic_store(&light.over, 0);
        assert_int_equal(ns_add_group_job(light.groups[i % LIGHT_GROUPS], type, note_the_hog, NULL, NULL),
                         NS_SUCCESS);
        long posted = atomic_load(&hog_runs);
        SOON(atomic_load(&light.over));
        light.waits[i] = atomic_load(&light.ran) - posted;
    }
    assert_short_waits(type ? "worker, from outside" : "loop, from outside");
    assert_true(ns_group_cancel(hog) <= NS_RUNNING);
    ns_group_release(hog);
    for (int i = 0; i < LIGHT_GROUPS; i++) {
        ns_group_release(light.groups[i]);
    }
    finish_idle(busy);
    free(light.waits);
    checked_end(tp);
}

/*
 * Twenty thousand posts beside a hundred thousand jobs with NS_COUNT=full.
 *
 * To see it fail: let a worker, or the loop, run a group until its queue is empty.
 */
TEST(fm53_a_busy_group_starves_nobody)
{
    beside_a_hog(NS_JOB_THREAD);
    beside_a_hog(NS_JOB_NONE);
}

/* A wait for a group against everything by which it may come to its end. */
struct waits {
    struct ns_thrpool_t *tp;
    struct ns_group_t *group;
    int timed;
    ns_result_t result;
    struct latch entered;
};

static void *wait_for_it(void *arg)
{
    struct waits *waits = arg;
    const struct timeval tv = {LIMIT_SECONDS, 0};
    latch_add(&waits->entered, 1);
    waits->result = ns_group_wait(waits->group, waits->timed ? &tv : NULL);
    return NULL;
}

enum how { BY_RUN, BY_CANCEL, BY_JOB_CANCEL, BY_RESUME, BY_DONE, BY_SHUTDOWN, BY_SHUTDOWN_SUSPENDED, HOWS };

/*
 * To see it fail: let the last done callback of a group wake nobody; let the end of a pool's quiet wake
 * only those who wait for jobs.
 */
TEST(fm54_no_wait_for_a_group_is_without_end)
{
    enum { WAITERS = 3 };
    uint64_t sequence = run_seed();
    long rounds = count_of(1500, 20000);
    for (long round = 0; round < rounds; round++) {
        enum how how = (enum how)(round % HOWS);
        struct ns_thrpool_t *tp = checked_pool(1 + (size_t)round % 2);
        struct crew crew;
        struct member member = {.crew = &crew};
        struct gate gate = GATE_INIT;
        const struct trigger on = {&far_away, -1, 0};
        struct ns_job_t *job;
        struct waits waits[WAITERS];
        pthread_t threads[WAITERS];
        crew_begin(&crew, tp, (size_t)(round / HOWS) % 3);
        if (how == BY_RESUME || how == BY_SHUTDOWN_SUSPENDED) {
            assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
        }
        if (how == BY_RUN || how == BY_DONE) {
            member.gate = &gate;
            member.act = how == BY_DONE ? do_nothing : NULL;
        }
        if (how == BY_JOB_CANCEL || how == BY_SHUTDOWN || how == BY_CANCEL) {
            job = member_add_kind(&member, KIND_TIMER, &on, where[round / 2 % 2]);
        } else {
            job = member_add(&member, where[round / 2 % 2]);
        }
        for (int i = 0; i < WAITERS; i++) {
            waits[i] = (struct waits){tp, crew.group, i == 1, NS_SUCCESS, LATCH_INIT};
            threads[i] = start_thread(wait_for_it, &waits[i]);
        }
        for (int i = 0; i < WAITERS; i++) {
            assert_latch(&waits[i].entered, 1);
        }
        hesitate(&sequence, 20000);
        switch (how) {
        case BY_RUN: latch_add(&gate.leave, 1); break;
        case BY_CANCEL: assert_int_equal(ns_group_cancel(crew.group), NS_SUCCESS); break;
        case BY_JOB_CANCEL: assert_int_equal(ns_job_cancel(job), NS_SUCCESS); break;
        case BY_RESUME: assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS); break;
        case BY_DONE:
            assert_latch(&gate.begun, 1);
            assert_int_equal(ns_job_done(job), NS_SUCCESS);
            latch_add(&gate.leave, 1);
            break;
        default:
            ns_thrpool_shutdown(tp);
            assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        }
        for (int i = 0; i < WAITERS; i++) {
            pthread_join(threads[i], NULL);
            assert_int_equal(waits[i].result, how < BY_SHUTDOWN ? NS_SUCCESS : NS_SHUTDOWN);
        }
        if (how >= BY_SHUTDOWN) {
            assert_int_equal(ns_group_cancel(crew.group), NS_SUCCESS);
        }
        crew_end(&crew);
        checked_end(tp);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fm22_no_two_jobs_of_one_object_run_at_once),
        cmocka_unit_test(fm50_no_callback_begins_after_a_cancel),
        cmocka_unit_test(fm51_a_groups_memory_is_not_used_after_its_done_callback),
        cmocka_unit_test(fm52_a_blocked_group_holds_nobody_up),
        cmocka_unit_test(fm53_a_busy_group_starves_nobody),
        cmocka_unit_test(fm54_no_wait_for_a_group_is_without_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
