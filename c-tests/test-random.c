/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Random operations of the whole interface, from several threads, on many jobs, held against a
 * model: what a result says must be true of every callback that comes before or after it.
 *
 * The interface does not let anybody name a job once its done or cancel was accepted. So each job
 * has a slot here with a lock, under which whoever acts on the job from outside does so, and which
 * stays unused from the accepted done or cancel until the done callback. A job of the other sort
 * ends itself, in its callback, and is named by nobody else while the pool runs.
 *
 * Only who waits lets go of the lock: once the call has begun, others may finish the job.
 *
 * Half of the jobs are in groups: see random-groups.h.
 *
 * To see it fail: have ns_job_done refuse every second job that is WAITING; in JobPtr::free, do not
 * ask whether somebody is ENTERING; in State::end, leave the mark out for every hundredth job.
 *
 *   NS_SEED=n    the same choices again (in which order threads run is the system's)
 *   NS_COUNT     deep or full: more operations
 */
#include "random-groups.h"

#include <sys/syscall.h>

/*
 * The library reads the clock through this function. In ns_job_timedwait it does so when the call
 * has begun and no longer depends on the caller to keep the job alive.
 */
static _Thread_local pthread_mutex_t *let_go_inside;

int clock_gettime(clockid_t clock, struct timespec *now)
{
    pthread_mutex_t *lock = let_go_inside;
    if (lock != NULL && clock == CLOCK_MONOTONIC) {
        let_go_inside = NULL;
        pthread_mutex_unlock(lock);
    }
    return (int)syscall(SYS_clock_gettime, clock, now);
}

static void feed(int pair)
{
    if (write(pairs[pair][1], "x", 1) < 0) {
        HOLDS(errno == EAGAIN);
    }
}

static void drain(int pair)
{
    char bytes[64];
    if (read(pairs[pair][0], bytes, sizeof bytes) < 0) {
        HOLDS(errno == EAGAIN);
    }
}

static void run(struct ns_job_t *job);

/* The getters, which answer in any state. */
static void look_at(struct ns_job_t *job, struct slot *slot)
{
    HOLDS(ns_job_get_data(job) == slot);
    HOLDS(ns_job_get_tp(job) == pool);
    HOLDS(ns_job_get_type(job) == slot->type);
    HOLDS(ns_job_get_fd(job) == NULL);
    HOLDS((ns_job_get_native_fd(job) >= 0) == (slot->kind >= SHARED_FD));
    HOLDS(ns_job_is_func(job, run) == 1);
    HOLDS(ns_job_is_func(job, NULL) == 0);
    HOLDS(slot->team == NULL || ns_job_get_group(job) == slot->team->group);
}

static void gone(struct ns_job_t *job)
{
    struct slot *slot = ns_job_get_data(job);
    struct team *team = slot->team;
    team_enter(team, 0);
    HOLDS(atomic_load(&slot->executing) == 0);
    HOLDS(atomic_fetch_add(&slot->disposals, 1) == 0);
    look_at(job, slot);
    atomic_fetch_add(&model.disposed, 1);
    atomic_store(&slot->stage, EMPTY);
    team_leave(team);
    if (team != NULL) {
        atomic_fetch_sub(&team->members, 1);
    }
}

static void act(uint64_t *sequence, const struct slot *own);

/* What fired must be what can have fired. */
static void check_output(const struct slot *slot, ns_job_type_t output)
{
    switch (slot->kind) {
    case NOW: HOLDS(output == 0); break;
    case TIMER: HOLDS(output == NS_JOB_TIMER); break;
    case SIGNAL: HOLDS(output == NS_JOB_SIGNAL); break;
    case SHARED_FD:
        HOLDS(output != 0 && (output & ~(slot->type & (NS_JOB_READ | NS_JOB_WRITE))) == 0);
        break;
    default:
        HOLDS(output == NS_JOB_TIMER || output == (slot->type & (NS_JOB_READ | NS_JOB_WRITE)));
    }
}

static void run(struct ns_job_t *job)
{
    struct slot *slot = ns_job_get_data(job);
    ns_job_type_t output = ns_job_get_output_type(job);
    int runs = atomic_fetch_add(&slot->runs, 1) + 1;
    uint64_t sequence = slot->temper + (uint64_t)runs;
    struct team *team = slot->team;
    team_enter(team, 1);
    team_in_order(team, slot);
    HOLDS(atomic_fetch_add(&slot->executing, 1) == 0);
    HOLDS(!atomic_load(&slot->no_more));
    HOLDS(!atomic_load(&model.quiet));
    atomic_fetch_add(&model.runs, 1);
    HOLDS(slot->job == job);
    if (slot->untold) {
        slot->untold = 0;
        HOLDS(ns_job_set_done_cb(job, gone) == NS_SUCCESS);
    }
    look_at(job, slot);
    check_output(slot, output);
    HOLDS((runs & 1 ? ns_job_wait(job) : ns_job_timedwait(job, &at_once)) == NS_INVALID_STATE);
    long shutdown_at = atomic_load(&model.shutdown_at);
    if (atomic_load(&model.left) <= shutdown_at &&
        atomic_compare_exchange_strong(&model.shutdown_at, &shutdown_at, NONE)) {
        atomic_store(&model.shutting_down, 1);
        ns_thrpool_shutdown(pool);
        HOLDS(ns_thrpool_is_shutdown(pool));
    }
    if (slot->pair >= 0 && NS_JOB_IS_READ(slot->type)) {
        drain(slot->pair);
    }
    if (next_random(&sequence) % 8 == 0) {
        act(&sequence, slot);
    }
    hesitate(&sequence, 300);
    int end = slot->ends_itself && runs >= slot->life;
    if (!end && (slot->ends_itself || next_random(&sequence) % 2)) {
        ns_result_t result = ns_job_rearm(job);
        HOLDS(result == NS_SUCCESS || result == NS_INVALID_STATE ||
              atomic_load(&model.shutting_down));
    }
    HOLDS(ns_job_get_output_type(job) == output);
    if (end) {
        atomic_store(&slot->stage, ENDING);
        HOLDS((slot->temper & 1 ? ns_job_done(job) : ns_job_cancel(job)) == NS_SUCCESS);
        HOLDS(ns_job_set_data(job, slot) == NS_INVALID_STATE);
        HOLDS(ns_job_done(job) == NS_SUCCESS);
        ns_result_t result = ns_job_rearm(job);
        HOLDS(result == NS_INVALID_STATE || result == NS_SHUTDOWN);
    }
    HOLDS(atomic_fetch_sub(&slot->executing, 1) == 1);
    team_leave(team);
}

/* Fill an empty slot. */
static void make(struct slot *slot, uint64_t *sequence)
{
    uint64_t dice = next_random(sequence);
    struct timeval tv = {0, (long)(dice >> 8 & 0x7ff) + 1};
    int persist = (dice & 14) == 0;
    /* Armed by the add: then it may run, and be gone, before the add returns. */
    int armed = (dice >> 10) % 8 == 0;
    ns_job_type_t type = (dice & 1 ? NS_JOB_THREAD : 0) | (persist ? NS_JOB_PERSIST : 0);
    ns_job_type_t shown = type;
    ns_job_type_t unarmed = armed ? 0 : NS_JOB_UNARMED;
    ns_result_t result;
    int fd = -1;
    slot->kind = (enum kind)((dice >> 20) % KINDS);
    slot->pair = slot->kind >= SHARED_FD && slot->kind != OWN_FD ? (int)(dice >> 40) % PAIRS : -1;
    slot->temper = (uint32_t)(dice >> 32);
    slot->life = (int)(dice >> 24 & 7) + 1;
    /* A job that is never idle would take all the time. */
    slot->ends_itself =
        armed || (dice & 64) || (persist && slot->kind != TIMER && slot->kind != SIGNAL);
    slot->untold = armed;
    slot->team = NULL;
    slot->ticket = 0;
    atomic_store(&slot->no_more, 0);
    atomic_store(&slot->runs, 0);
    atomic_store(&slot->disposals, 0);
    atomic_store(&slot->most_runs, INT32_MAX);
    switch (slot->kind) {
    case NOW: break;
    case TIMER: shown |= NS_JOB_TIMER; break;
    case SIGNAL: shown |= NS_JOB_SIGNAL; break;
    case SHARED_FD:
        type |= NS_JOB_PRESERVE_FD | (dice & 128 ? NS_JOB_READ : NS_JOB_WRITE) |
                (dice & 256 ? NS_JOB_READ : 0);
        shown = type;
        break;
    case SHARED_FD_TIMEOUT:
        type |= NS_JOB_PRESERVE_FD | NS_JOB_READ;
        shown = type | NS_JOB_TIMER;
        break;
    default: /* the job's to close; always writable */
        fd = dup(pairs[0][1]);
        type |= NS_JOB_WRITE;
        shown = type | NS_JOB_TIMER;
    }
    slot->type = shown;
    atomic_fetch_add(&slot->born, 1);
    atomic_fetch_add(&model.made, 1);
    atomic_store(&slot->stage, LIVE);
    int create = !armed && (dice >> 50) % 2 == 0;
    switch (slot->kind) {
    case NOW:
        result = create ? ns_create_job(pool, type, run, &slot->job)
                        : ns_add_job(pool, type | unarmed, run, slot, &slot->job);
        break;
    case TIMER:
        result = create
                     ? ns_create_job(pool, type | NS_JOB_TIMER, run, &slot->job)
                     : ns_add_timeout_job(pool, &tv, type | unarmed, run, slot, &slot->job);
        break;
    case SIGNAL:
        result = ns_add_signal_job(pool, dice & 128 ? SIGUSR1 : SIGUSR2, type | unarmed, run, slot,
                                   &slot->job);
        break;
    case SHARED_FD:
        result = ns_add_fd_job(pool, pairs[slot->pair][0], type | unarmed, run, slot, &slot->job);
        break;
    case SHARED_FD_TIMEOUT:
        result = ns_add_fd_timeout_job(pool, pairs[slot->pair][0], &tv, type | unarmed, run, slot,
                                       &slot->job);
        break;
    default:
        result = ns_add_fd_timeout_job(pool, fd, &tv, type | unarmed, run, slot, &slot->job);
    }
    if (result != NS_SUCCESS) {
        HOLDS(result == NS_SHUTDOWN && ns_thrpool_is_shutdown(pool) && slot->job == NULL);
        atomic_store(&slot->stage, EMPTY);
        atomic_fetch_sub(&model.made, 1);
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    if (armed) {
        return;
    }
    struct ns_job_t *job = slot->job;
    if (create && slot->kind <= TIMER) {
        HOLDS(ns_job_get_data(job) == NULL);
        HOLDS(ns_job_set_data(job, slot) == NS_SUCCESS);
    }
    if (dice >> 11 & 1) {
        team_join(slot, (dice >> 12) % TEAMS);
    }
    HOLDS(ns_job_set_done_cb(job, gone) == NS_SUCCESS);
    look_at(job, slot);
    if (slot->ends_itself || dice & 512) {
        result = ns_job_rearm(job);
        HOLDS(result == NS_SUCCESS || (result == NS_SHUTDOWN && ns_thrpool_is_shutdown(pool)));
    }
}

/* A bad call, refused whatever the pool is doing, and without effect. */
static void ask_badly(uint64_t *sequence)
{
    uint64_t dice = next_random(sequence);
    struct timeval tv = {0, 10}, bad = {dice & 1 ? -1 : 1, dice & 1 ? 0 : -1};
    struct ns_job_t *job = (struct ns_job_t *)&bad;
    ns_job_type_t unknown = (ns_job_type_t)1 << (11 + (dice >> 8) % 5);
    ns_result_t result;
    int adds = 1;
    switch ((dice >> 16) % 16) {
    case 0: result = ns_add_job(NULL, NS_JOB_NONE, run, NULL, &job); break;
    case 1: result = ns_add_job(pool, unknown, run, NULL, &job); break;
    case 2: result = ns_add_job(pool, NS_JOB_READ, run, NULL, &job); break;
    case 3: result = ns_create_job(pool, NS_JOB_NONE, NULL, &job); break;
    case 4: result = ns_add_timeout_job(pool, &bad, NS_JOB_NONE, run, NULL, &job); break;
    case 5: result = ns_add_timeout_job(pool, NULL, NS_JOB_NONE, run, NULL, &job); break;
    case 6: result = ns_add_fd_job(pool, -1, NS_JOB_READ, run, NULL, &job); break;
    case 7: result = ns_add_fd_job(pool, pairs[0][0], NS_JOB_NONE, run, NULL, &job); break;
    case 8: result = ns_add_fd_timeout_job(pool, pairs[0][0], &tv, NS_JOB_ACCEPT | NS_JOB_THREAD,
                                           run, NULL, &job); break;
    case 9: result = ns_add_signal_job(pool, SIGKILL, NS_JOB_NONE, run, NULL, &job); break;
    case 10: result = ns_add_io_job(pool, NULL, NS_JOB_READ, run, NULL, &job); break;
    default:
        adds = 0;
        switch ((dice >> 16) % 16) {
        case 11: result = ns_job_done(NULL); break;
        case 12: result = ns_job_rearm(NULL); break;
        case 13: result = ns_job_cancel(NULL); break;
        case 14: result = dice & 2 ? ns_job_wait(NULL) : ns_job_timedwait(NULL, &tv); break;
        default: result = dice & 2 ? ns_job_set_data(NULL, NULL) : ns_job_set_done_cb(NULL, gone);
        }
        HOLDS(ns_job_get_data(NULL) == NULL && ns_job_is_func(NULL, run) == 0);
    }
    HOLDS(result == NS_INVALID_REQUEST ||
          (adds && result == NS_SHUTDOWN && ns_thrpool_is_shutdown(pool)));
    HOLDS(!adds || job == NULL);
}

/* Check the results of done and cancel, and what they imply for runs. The caller holds the slot's
 * lock. */
static void end(struct slot *slot, int cancel)
{
    int shut = ns_thrpool_is_shutdown(pool);
    /* A job that is idle under this lock stays so: nobody else may arm it. */
    int idle = ns_job_timedwait(slot->job, &at_once) == NS_SUCCESS;
    int idle_runs = atomic_load(&slot->runs);
    ns_result_t result = cancel ? ns_job_cancel(slot->job) : ns_job_done(slot->job);
    int runs = atomic_load(&slot->runs);
    HOLDS(!idle || result == NS_SUCCESS);
    if (result == NS_INVALID_STATE) {
        HOLDS(!cancel && !shut); /* it is ARMED */
        return;
    }
    /* Its stage is ENDING or, if it was quick, EMPTY: which only the next maker changes, under
     * this lock. */
    int live = LIVE;
    atomic_compare_exchange_strong(&slot->stage, &live, ENDING);
    HOLDS(result == NS_SUCCESS || (cancel && result == NS_RUNNING));
    if (result == NS_SUCCESS && (cancel || idle)) {
        atomic_store(&slot->no_more, 1);
        HOLDS(atomic_load(&slot->executing) == 0);
        atomic_store(&slot->most_runs, idle ? idle_runs : atomic_load(&slot->runs));
        HOLDS(atomic_load(&slot->runs) == (idle ? idle_runs : runs));
    } else {
        /* A run may have begun without having counted itself. */
        atomic_store(&slot->most_runs, runs + 1);
    }
}

/* With the lock: an idle job stays idle, and an event that is certain comes. */
static void wait_a_little(struct slot *slot, uint64_t *sequence)
{
    struct timeval tv = {0, (long)(next_random(sequence) % 100)};
    ns_result_t result = ns_job_timedwait(slot->job, &tv);
    HOLDS(result == NS_SUCCESS || result == NS_TIMEOUT ||
          (result == NS_SHUTDOWN && ns_thrpool_is_shutdown(pool)));
    if (result != NS_SUCCESS) {
        return;
    }
    HOLDS(ns_job_wait(slot->job) == NS_SUCCESS);
    HOLDS(atomic_load(&slot->executing) == 0);
    HOLDS(ns_job_get_output_type(slot->job) == 0);
    HOLDS(ns_job_set_data(slot->job, slot) == NS_SUCCESS);
    int runs = atomic_load(&slot->runs);
    result = ns_job_rearm(slot->job);
    HOLDS(result == NS_SUCCESS || (result == NS_SHUTDOWN && ns_thrpool_is_shutdown(pool)));
    /* One in a group that is suspended may not come soon. */
    if (result == NS_SUCCESS && slot->team == NULL && slot->kind <= TIMER && !NS_JOB_IS_PERSIST(slot->type)) {
        result = ns_job_wait(slot->job);
        HOLDS(result == NS_SUCCESS || (result == NS_SHUTDOWN && ns_thrpool_is_shutdown(pool)));
        HOLDS(result != NS_SUCCESS || atomic_load(&slot->runs) > runs || ns_thrpool_is_shutdown(pool));
    }
}

/* Without the lock, which is released once the call has begun. */
static void wait_beside_others(struct slot *slot, uint64_t *sequence)
{
    struct timeval tv = {0, (long)(next_random(sequence) % 300)};
    struct ns_job_t *job = slot->job;
    long born = atomic_load(&slot->born);
    let_go_inside = &slot->lock;
    ns_result_t result = ns_job_timedwait(job, &tv);
    HOLDS(let_go_inside == NULL);
    if (result == NS_DELETING) {
        /* Whoever ended the job notes it before releasing the lock. */
        pthread_mutex_lock(&slot->lock);
        HOLDS(atomic_load(&slot->stage) != LIVE || atomic_load(&slot->born) != born);
        pthread_mutex_unlock(&slot->lock);
    }
    HOLDS(result == NS_SUCCESS || result == NS_TIMEOUT || result == NS_DELETING ||
          (result == NS_SHUTDOWN && ns_thrpool_is_shutdown(pool)));
    atomic_fetch_add(&model.beside[result], 1);
}

/* One operation, on a pool that runs or that shuts down. */
static void count_operation(void)
{
    if (ns_thrpool_is_shutdown(pool)) {
        atomic_fetch_add(&model.after, 1);
    } else {
        atomic_fetch_sub(&model.left, 1);
    }
}

/* The caller holds the lock. Returns 1 if this has released it. */
static int act_on(struct slot *slot, uint64_t *sequence, int in_callback)
{
    ns_result_t result;
    int stage = atomic_load(&slot->stage);
    if (stage == ENDING || (stage == LIVE && slot->ends_itself)) {
        return 0;
    }
    count_operation();
    if (stage == EMPTY) {
        make(slot, sequence);
        return 0;
    }
    switch (next_random(sequence) % 9) {
    case 0: end(slot, 0); break;
    case 1: end(slot, 1); break;
    case 2:
        if (!in_callback) {
            wait_a_little(slot, sequence);
        }
        break;
    case 3: look_at(slot->job, slot); break;
    case 8:
        if (!in_callback) {
            wait_beside_others(slot, sequence);
            return 1;
        }
        break;
    case 4:
        result = next_random(sequence) & 1 ? ns_job_set_data(slot->job, slot)
                                           : ns_job_set_done_cb(slot->job, gone);
        HOLDS(result == NS_SUCCESS || result == NS_INVALID_STATE);
        break;
    default:
        result = slot->team != NULL && slot->kind == NOW ? team_rearm(slot) : ns_job_rearm(slot->job);
        HOLDS(result == NS_SUCCESS || result == NS_INVALID_STATE ||
              (result == NS_SHUTDOWN && ns_thrpool_is_shutdown(pool)));
    }
    return 0;
}

/* `own`: the slot of the callback that acts, if any. */
static void act(uint64_t *sequence, const struct slot *own)
{
    uint64_t dice = next_random(sequence);
    if (dice % 16 == 0) {
        feed((int)((dice >> 8) % PAIRS));
        return;
    }
    if (dice % 64 == 1) {
        kill(getpid(), dice & 256 ? SIGUSR1 : SIGUSR2);
        return;
    }
    if (dice % 64 == 2) {
        count_operation();
        ask_badly(sequence);
        return;
    }
    if (dice % 8 == 3) {
        team_act(sequence, own);
        return;
    }
    struct slot *slot = &slots[(dice >> 8) % SLOTS];
    if (slot != own && pthread_mutex_trylock(&slot->lock) == 0) {
        if (atomic_load(&model.left) <= 0 || !act_on(slot, sequence, own != NULL)) {
            pthread_mutex_unlock(&slot->lock);
        }
    }
}

static void *operate(void *arg)
{
    uint64_t *sequence = arg;
    while (atomic_load(&model.left) > 0 && atomic_load(&finding) == NULL) {
        act(sequence, NULL);
    }
    return NULL;
}

/* Each job that is live runs when it is armed and its event comes: nothing was lost. */
static int all_run_again(void)
{
    static int before[SLOTS];
    int owed = 0;
    for (int i = 0; i < SLOTS; i++) {
        int live = atomic_load(&slots[i].stage) == LIVE && !slots[i].ends_itself;
        before[i] = live ? atomic_load(&slots[i].runs) : -1;
        if (live) {
            ns_result_t result = ns_job_rearm(slots[i].job);
            HOLDS(result == NS_SUCCESS || result == NS_INVALID_STATE);
        }
    }
    double limit = now_seconds() + LIMIT_SECONDS;
    do {
        owed = 0;
        for (int i = 0; i < SLOTS; i++) {
            owed += before[i] >= 0 ? atomic_load(&slots[i].runs) <= before[i]
                                   : atomic_load(&slots[i].stage) != EMPTY;
        }
        for (int i = 0; i < PAIRS; i++) {
            feed(i);
        }
        kill(getpid(), SIGUSR1);
        kill(getpid(), SIGUSR2);
        sched_yield();
    } while (owed > 0 && now_seconds() < limit);
    return owed;
}

/* No callback runs any more, so all remaining jobs are ours, also those that end themselves. */
static void end_the_rest(void)
{
    for (int i = 0; i < SLOTS; i++) {
        struct slot *slot = &slots[i];
        if (atomic_load(&slot->stage) != LIVE) {
            continue;
        }
        /* A job that never ran has no done callback. If it is ARMED, it gets none. */
        int silent = slot->untold && ns_job_set_done_cb(slot->job, gone) != NS_SUCCESS;
        end(slot, i & 1);
        if (silent) {
            atomic_store(&slot->stage, EMPTY);
            atomic_fetch_add(&model.disposed, 1);
        }
    }
}

/* Threads that are the loop by turns, of a pool that has no thread for it. */
enum { TURNERS = 2 };
static atomic_int turning;

static void *turn_on(void *arg)
{
    UNUSED(arg);
    while (atomic_load(&turning)) {
        struct timeval tv = {0, 100};
        ns_result_t result = ns_thrpool_turn(pool, &tv);
        HOLDS(result == NS_SUCCESS || result == NS_TIMEOUT || result == NS_INVALID_STATE ||
              (result == NS_SHUTDOWN && ns_thrpool_is_shutdown(pool)));
        if (result == NS_INVALID_STATE || result == NS_SHUTDOWN) {
            sched_yield();
        }
    }
    return NULL;
}

/* A pool with these flags. */
static struct ns_thrpool_t *pool_with_flags(size_t workers, uint64_t flags)
{
    struct ns_thrpool_config config = checked_config(workers);
    struct ns_thrpool_options options;
    ns_thrpool_options_init(&options, sizeof options);
    options.flags = flags;
    struct ns_thrpool_t *tp = ns_thrpool_new_with(&config, &options);
    assert_non_null(tp);
    return tp;
}

/* What the model has counted so far, in all pools. */
struct tally {
    long made, runs, loose_runs, loose_made;
};

static struct tally tally(void)
{
    struct tally now = {atomic_load(&model.made), atomic_load(&model.runs),
                        atomic_load(&counts.loose_runs), atomic_load(&counts.loose_made)};
    return now;
}

/* Whether the pool measures times. */
static int timed;

/* Whether so many callbacks have been timed, if any are. */
static int times_agree(const uint64_t *buckets, uint64_t callbacks)
{
    uint64_t count = 0;
    for (int i = 0; i < 64; i++) {
        count += buckets[i];
    }
    return count == (timed ? callbacks : 0);
}

/* Whether the statistics of the pool agree with the model, which had counted so much before. What is finished
 * with must be disposed of first. Nobody knows which loose jobs of cancelled groups still live. */
static int stats_agree(struct tally before)
{
    struct tally now = tally();
    struct ns_thrpool_stats stats;
    uint64_t live[KINDS] = {0};
    ns_thrpool_stats_init(&stats, sizeof stats);
    HOLDS(ns_thrpool_get_stats(pool, &stats) == NS_SUCCESS);
    for (int i = 0; i < SLOTS; i++) {
        live[slots[i].kind] += atomic_load(&slots[i].stage) != EMPTY;
    }
    uint64_t all = stats.live_run_now + stats.live_timers + stats.live_signals + stats.live_io;
    HOLDS(stats.jobs_made == stats.jobs_disposed + all);
    uint64_t loose = (uint64_t)(now.loose_made - before.loose_made);
    uint64_t loose_runs = (uint64_t)(now.loose_runs - before.loose_runs);
    return stats.jobs_made == (uint64_t)(now.made - before.made) + loose &&
           stats.runs_loop + stats.runs_worker == (uint64_t)(now.runs - before.runs) + loose_runs &&
           times_agree(stats.queue_loop_ns, stats.runs_loop) &&
           times_agree(stats.run_loop_ns, stats.runs_loop) &&
           times_agree(stats.queue_worker_ns, stats.runs_worker) &&
           times_agree(stats.run_worker_ns, stats.runs_worker) &&
           stats.live_run_now >= live[NOW] &&
           stats.live_run_now <= live[NOW] + loose - loose_runs &&
           stats.live_timers == live[TIMER] && stats.live_signals == live[SIGNAL] &&
           stats.live_io == live[SHARED_FD] + live[SHARED_FD_TIMEOUT] + live[OWN_FD];
}

/* One pool's life, shut down at the end, in the middle, or in the middle by a callback; with a loop thread
 * of its own, or turned by ours; with times measured, or without. Returns how many operations there were while it ran. */
enum life { TO_THE_END, SHUT_DOWN, SHUT_DOWN_INSIDE, LIVES };

static long live(uint64_t *sequence, enum life life, int turned)
{
    pthread_t turners[TURNERS];
    uint64_t sequences[THREADS];
    pthread_t threads[THREADS];
    long at = (long)(next_random(sequence) % OPERATIONS);
    long operations = OPERATIONS;
    atomic_store(&model.left, OPERATIONS);
    atomic_store(&model.after, 0);
    atomic_store(&model.shutting_down, 0);
    atomic_store(&model.quiet, 0);
    struct tally before = tally();
    size_t workers = (size_t)(next_random(sequence) % 4) + 1;
    timed = next_random(sequence) % 2 == 0;
    pool = pool_with_flags(workers, (turned ? NS_POOL_CALLER_LOOP : 0) | (timed ? NS_POOL_TIMINGS : 0));
    atomic_store(&turning, turned);
    for (int i = 0; turned && i < TURNERS; i++) {
        turners[i] = start_thread(turn_on, NULL);
    }
    atomic_store(&model.shutdown_at, life == SHUT_DOWN_INSIDE ? at : NONE);
    for (int i = 0; i < THREADS; i++) {
        sequences[i] = next_random(sequence);
        threads[i] = start_thread(operate, &sequences[i]);
    }
    if (life != TO_THE_END) {
        SOON(atomic_load(&model.left) <= at || atomic_load(&finding) != NULL);
        if (life == SHUT_DOWN_INSIDE) {
            SOON(ns_thrpool_is_shutdown(pool) || atomic_load(&model.left) <= 0 ||
                 atomic_load(&finding) != NULL);
        }
        atomic_store(&model.shutdown_at, NONE);
        atomic_store(&model.shutting_down, 1);
        ns_thrpool_shutdown(pool);
        assert_int_equal(ns_thrpool_wait(pool), NS_SUCCESS);
        atomic_store(&model.quiet, 1);
        operations -= atomic_load(&model.left);
        SOON(atomic_load(&model.after) > AFTERWARDS || atomic_load(&model.left) <= 0 ||
             atomic_load(&finding) != NULL);
        atomic_store(&model.left, 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    /* This stops callbacks too: those that held a slot's lock are out, and those that get it find
     * nothing to do. */
    atomic_store(&model.left, 0);
    for (int i = 0; i < SLOTS; i++) {
        pthread_mutex_lock(&slots[i].lock);
        pthread_mutex_unlock(&slots[i].lock);
    }
    teams_resume();
    if (life == TO_THE_END) {
        HOLDS(all_run_again() == 0);
        atomic_store(&model.shutting_down, 1);
        ns_thrpool_shutdown(pool);
        assert_int_equal(ns_thrpool_wait(pool), NS_SUCCESS);
        atomic_store(&model.quiet, 1);
    }
    SOON(stats_agree(before));
    end_the_rest();
    SOON(stats_agree(before));
    teams_release(sequence);
    atomic_store(&turning, 0);
    for (int i = 0; turned && i < TURNERS; i++) {
        pthread_join(turners[i], NULL);
    }
    ns_thrpool_destroy(pool);
    teams_check();
    for (int i = 0; i < SLOTS; i++) {
        HOLDS(atomic_load(&slots[i].stage) == EMPTY);
        HOLDS(atomic_load(&slots[i].runs) <= atomic_load(&slots[i].most_runs));
    }
    if (atomic_load(&finding) != NULL) {
        fail_msg("does not hold: %s", atomic_load(&finding));
    }
    assert_int_equal(atomic_load(&model.made), atomic_load(&model.disposed));
    heap_check(&the_heap);
    return operations;
}

TEST(random_operations_keep_to_the_model)
{
    uint64_t sequence = run_seed();
    long operations = count_of(1000000, 10000000);
    struct sigaction before, after, ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGUSR1, &ignore, NULL);
    sigaction(SIGUSR2, &ignore, &before);
    sigaction(SIGUSR1, NULL, &before);
    for (int i = 0; i < SLOTS; i++) {
        pthread_mutex_init(&slots[i].lock, NULL);
    }
    for (int i = 0; i < TEAMS; i++) {
        pthread_mutex_init(&teams[i].lock, NULL);
    }
    for (int i = 0; i < PAIRS; i++) {
        socket_pair(pairs[i]);
    }
    live(&sequence, TO_THE_END, 0);
    int fds = count_fds(); /* first: tools open their own descriptors with the first pool */
    double begin = now_seconds();
    long done = 0;
    for (int lives = 0; done < operations; lives++) {
        done += live(&sequence, (enum life)(lives % LIVES), lives / LIVES % 2);
    }
    assert_int_equal(count_fds(), fds);
    for (int i = 0; i < PAIRS; i++) {
        close(pairs[i][0]);
        close(pairs[i][1]);
    }
    sigaction(SIGUSR1, NULL, &after);
    assert_ptr_equal(after.sa_handler, before.sa_handler);
    print_message("# %ld operations in %.0f s, %ld jobs made and disposed of, %ld runs; waits beside "
                  "others: %ld idle, %ld timed out, %ld going, %ld stopped\n", done,
                  now_seconds() - begin, atomic_load(&model.made), atomic_load(&model.runs),
                  atomic_load(&model.beside[NS_SUCCESS]), atomic_load(&model.beside[NS_TIMEOUT]),
                  atomic_load(&model.beside[NS_DELETING]), atomic_load(&model.beside[NS_SHUTDOWN]));
    print_message("# groups: %ld made, %ld ended, %ld jobs put in, %ld cancels of which %ld met a callback, "
                  "%ld adds refused by a limit\n", atomic_load(&counts.made), atomic_load(&counts.ended),
                  atomic_load(&counts.joined), atomic_load(&counts.cancels),
                  atomic_load(&counts.cancels_running), atomic_load(&counts.overloaded));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_operations_keep_to_the_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
