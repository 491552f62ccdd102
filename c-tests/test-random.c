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
 *   NS_SEED=n    the same choices again (in which order threads run is the system's)
 *   NS_COUNT     deep or full: more operations
 */
#include "fm.h"

enum { THREADS = 4, SLOTS = 200, PAIRS = 16, OPERATIONS = 20000 };

enum kind { NOW, TIMER, SIGNAL, SHARED_FD, SHARED_FD_TIMEOUT, OWN_FD, KINDS };

enum stage { EMPTY, LIVE, ENDING };

struct slot {
    pthread_mutex_t lock;
    struct ns_job_t *job;
    ns_job_type_t type;
    enum kind kind;
    int pair;         /* of sockets, that the job watches, or -1 */
    int ends_itself;
    int life;         /* runs after which one that ends itself does so */
    uint32_t temper;  /* what its callback does is drawn from this */
    atomic_int stage;
    atomic_int no_more; /* something was accepted that says: no run is in progress, none will be */
    atomic_int executing;
    atomic_int runs;
    atomic_int most_runs; /* after an end was accepted */
    atomic_int disposals;
};

static struct slot slots[SLOTS];
static int pairs[PAIRS][2];
static struct ns_thrpool_t *pool;
static struct timeval at_once = {0, 0};

static struct {
    atomic_long left; /* operations */
    atomic_long made;
    atomic_long disposed;
    atomic_long runs;
    atomic_int shutting_down;
    atomic_int quiet; /* wait has returned */
} model;

/* The first thing that was not as the model says. */
static _Atomic(const char *) finding;

#define HOLDS(cond)                                                                            \
    do {                                                                                       \
        if (!(cond)) {                                                                         \
            const char *none = NULL;                                                           \
            atomic_compare_exchange_strong(&finding, &none, #cond);                            \
        }                                                                                      \
    } while (0)

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

/* The getters, which answer in any state. */
static void look_at(struct ns_job_t *job, struct slot *slot)
{
    HOLDS(ns_job_get_data(job) == slot);
    HOLDS(ns_job_get_tp(job) == pool);
    HOLDS(ns_job_get_type(job) == slot->type);
    HOLDS(ns_job_get_fd(job) == NULL);
    HOLDS((ns_job_get_native_fd(job) >= 0) == (slot->kind >= SHARED_FD));
}

static void gone(struct ns_job_t *job)
{
    struct slot *slot = ns_job_get_data(job);
    HOLDS(atomic_load(&slot->executing) == 0);
    HOLDS(atomic_fetch_add(&slot->disposals, 1) == 0);
    look_at(job, slot);
    atomic_fetch_add(&model.disposed, 1);
    atomic_store(&slot->stage, EMPTY);
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
    HOLDS(atomic_fetch_add(&slot->executing, 1) == 0);
    HOLDS(!atomic_load(&slot->no_more));
    HOLDS(!atomic_load(&model.quiet));
    atomic_fetch_add(&model.runs, 1);
    look_at(job, slot);
    check_output(slot, output);
    HOLDS(ns_job_timedwait(job, &at_once) == NS_INVALID_STATE);
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
}

/* Fill an empty slot. */
static void make(struct slot *slot, uint64_t *sequence)
{
    uint64_t dice = next_random(sequence);
    struct timeval tv = {0, (long)(dice >> 8 & 0x7ff) + 1};
    int persist = (dice & 14) == 0;
    ns_job_type_t type = NS_JOB_UNARMED | (dice & 1 ? NS_JOB_THREAD : 0) |
                         (persist ? NS_JOB_PERSIST : 0);
    ns_result_t result;
    int fd = -1;
    slot->kind = (enum kind)((dice >> 20) % KINDS);
    slot->pair = slot->kind >= SHARED_FD && slot->kind != OWN_FD ? (int)(dice >> 40) % PAIRS : -1;
    slot->temper = (uint32_t)(dice >> 32);
    slot->life = (int)(dice >> 24 & 7) + 1;
    /* One that is never idle would take all the time. */
    slot->ends_itself = (dice & 64) || (persist && slot->kind != TIMER && slot->kind != SIGNAL);
    atomic_store(&slot->no_more, 0);
    atomic_store(&slot->runs, 0);
    atomic_store(&slot->disposals, 0);
    atomic_store(&slot->most_runs, INT32_MAX);
    switch (slot->kind) {
    case NOW: result = ns_add_job(pool, type, run, slot, &slot->job); break;
    case TIMER:
        result = ns_add_timeout_job(pool, &tv, type, run, slot, &slot->job);
        type |= NS_JOB_TIMER;
        break;
    case SIGNAL:
        result = ns_add_signal_job(pool, dice & 128 ? SIGUSR1 : SIGUSR2, type, run, slot,
                                   &slot->job);
        type |= NS_JOB_SIGNAL;
        break;
    case SHARED_FD:
        type |= NS_JOB_PRESERVE_FD | (dice & 128 ? NS_JOB_READ : NS_JOB_WRITE) |
                (dice & 256 ? NS_JOB_READ : 0);
        result = ns_add_fd_job(pool, pairs[slot->pair][0], type, run, slot, &slot->job);
        break;
    case SHARED_FD_TIMEOUT:
        type |= NS_JOB_PRESERVE_FD | NS_JOB_READ;
        result = ns_add_fd_timeout_job(pool, pairs[slot->pair][0], &tv, type, run, slot,
                                       &slot->job);
        type |= NS_JOB_TIMER;
        break;
    default: /* the job's to close; always writable */
        fd = dup(pairs[0][1]);
        type |= NS_JOB_WRITE;
        result = ns_add_fd_timeout_job(pool, fd, &tv, type, run, slot, &slot->job);
        type |= NS_JOB_TIMER;
    }
    if (result != NS_SUCCESS) {
        HOLDS(result == NS_SHUTDOWN && ns_thrpool_is_shutdown(pool) && slot->job == NULL);
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    slot->type = type & ~(ns_job_type_t)NS_JOB_UNARMED;
    struct ns_job_t *job = slot->job;
    HOLDS(ns_job_set_done_cb(job, gone) == NS_SUCCESS);
    look_at(job, slot);
    atomic_fetch_add(&model.made, 1);
    atomic_store(&slot->stage, LIVE);
    if (slot->ends_itself || dice & 512) {
        result = ns_job_rearm(job);
        HOLDS(result == NS_SUCCESS || (result == NS_SHUTDOWN && ns_thrpool_is_shutdown(pool)));
    }
}

/* What done and cancel may say, and what that means for runs. The caller has the slot's lock. */
static void end(struct slot *slot, int cancel)
{
    int shut = ns_thrpool_is_shutdown(pool);
    ns_result_t result = cancel ? ns_job_cancel(slot->job) : ns_job_done(slot->job);
    int runs = atomic_load(&slot->runs);
    if (result == NS_INVALID_STATE) {
        HOLDS(!cancel && !shut); /* it is ARMED */
        return;
    }
    /* Its stage is ENDING or, if it was quick, EMPTY: which only the next maker changes, under
     * this lock. */
    int live = LIVE;
    atomic_compare_exchange_strong(&slot->stage, &live, ENDING);
    HOLDS(result == NS_SUCCESS || (cancel && result == NS_RUNNING));
    if (cancel && result == NS_SUCCESS) {
        atomic_store(&slot->no_more, 1);
        HOLDS(atomic_load(&slot->executing) == 0);
        atomic_store(&slot->most_runs, atomic_load(&slot->runs));
        HOLDS(atomic_load(&slot->runs) == runs);
    } else {
        /* One may have begun that has not counted itself yet. */
        atomic_store(&slot->most_runs, runs + 1);
    }
}

/* One that is idle under this lock stays so: nobody else may arm it. */
static void wait_a_little(struct slot *slot, uint64_t *sequence)
{
    struct timeval tv = {0, (long)(next_random(sequence) % 100)};
    ns_result_t result = ns_job_timedwait(slot->job, &tv);
    HOLDS(result == NS_SUCCESS || result == NS_TIMEOUT ||
          (result == NS_SHUTDOWN && ns_thrpool_is_shutdown(pool)));
    if (result == NS_SUCCESS) {
        HOLDS(atomic_load(&slot->executing) == 0);
        HOLDS(ns_job_get_output_type(slot->job) == 0);
        HOLDS(ns_job_set_data(slot->job, slot) == NS_SUCCESS);
        result = ns_job_rearm(slot->job);
        HOLDS(result == NS_SUCCESS || (result == NS_SHUTDOWN && ns_thrpool_is_shutdown(pool)));
    }
}

static void act_on(struct slot *slot, uint64_t *sequence, int in_callback)
{
    ns_result_t result;
    int stage = atomic_load(&slot->stage);
    if (stage == ENDING || (stage == LIVE && slot->ends_itself)) {
        return;
    }
    atomic_fetch_sub(&model.left, 1);
    if (stage == EMPTY) {
        make(slot, sequence);
        return;
    }
    switch (next_random(sequence) % 8) {
    case 0: end(slot, 0); break;
    case 1: end(slot, 1); break;
    case 2:
        if (!in_callback) {
            wait_a_little(slot, sequence);
        }
        break;
    case 3: look_at(slot->job, slot); break;
    case 4:
        result = next_random(sequence) & 1 ? ns_job_set_data(slot->job, slot)
                                           : ns_job_set_done_cb(slot->job, gone);
        HOLDS(result == NS_SUCCESS || result == NS_INVALID_STATE);
        break;
    default:
        result = ns_job_rearm(slot->job);
        HOLDS(result == NS_SUCCESS || result == NS_INVALID_STATE ||
              (result == NS_SHUTDOWN && ns_thrpool_is_shutdown(pool)));
    }
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
    struct slot *slot = &slots[(dice >> 8) % SLOTS];
    if (slot != own && pthread_mutex_trylock(&slot->lock) == 0) {
        if (atomic_load(&model.left) > 0) {
            act_on(slot, sequence, own != NULL);
        }
        pthread_mutex_unlock(&slot->lock);
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

/* One pool's life. */
static void live(uint64_t *sequence, int shutdown_in_the_middle)
{
    uint64_t sequences[THREADS];
    pthread_t threads[THREADS];
    atomic_store(&model.left, OPERATIONS);
    atomic_store(&model.shutting_down, 0);
    atomic_store(&model.quiet, 0);
    pool = checked_pool((size_t)(next_random(sequence) % 4) + 1);
    for (int i = 0; i < THREADS; i++) {
        sequences[i] = next_random(sequence);
        threads[i] = start_thread(operate, &sequences[i]);
    }
    if (shutdown_in_the_middle) {
        long at = (long)(next_random(sequence) % OPERATIONS);
        SOON(atomic_load(&model.left) <= at || atomic_load(&finding) != NULL);
        atomic_store(&model.shutting_down, 1);
        ns_thrpool_shutdown(pool);
        assert_int_equal(ns_thrpool_wait(pool), NS_SUCCESS);
        atomic_store(&model.quiet, 1);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    /* Callbacks too: who had a slot's lock is out, and who gets it finds nothing left to do. */
    atomic_store(&model.left, 0);
    for (int i = 0; i < SLOTS; i++) {
        pthread_mutex_lock(&slots[i].lock);
        pthread_mutex_unlock(&slots[i].lock);
    }
    if (!shutdown_in_the_middle) {
        HOLDS(all_run_again() == 0);
        atomic_store(&model.shutting_down, 1);
        ns_thrpool_shutdown(pool);
        assert_int_equal(ns_thrpool_wait(pool), NS_SUCCESS);
        atomic_store(&model.quiet, 1);
    }
    /* What is left is ours again, also what ends itself: no callback runs. */
    for (int i = 0; i < SLOTS; i++) {
        if (atomic_load(&slots[i].stage) == LIVE) {
            end(&slots[i], i & 1);
        }
    }
    ns_thrpool_destroy(pool);
    for (int i = 0; i < SLOTS; i++) {
        HOLDS(atomic_load(&slots[i].stage) == EMPTY);
        HOLDS(atomic_load(&slots[i].runs) <= atomic_load(&slots[i].most_runs));
    }
    if (atomic_load(&finding) != NULL) {
        fail_msg("does not hold: %s", atomic_load(&finding));
    }
    assert_int_equal(atomic_load(&model.made), atomic_load(&model.disposed));
    heap_check(&the_heap);
}

static void random_operations_keep_to_the_model(void **state)
{
    UNUSED(state);
    uint64_t sequence = run_seed();
    long operations = count_of(1000000, 10000000);
    struct sigaction before, after, ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGUSR1, &ignore, NULL);
    sigaction(SIGUSR2, &ignore, &before);
    sigaction(SIGUSR1, NULL, &before);
    for (int i = 0; i < SLOTS; i++) {
        pthread_mutex_init(&slots[i].lock, NULL);
    }
    for (int i = 0; i < PAIRS; i++) {
        socket_pair(pairs[i]);
    }
    live(&sequence, 0);
    int fds = count_fds(); /* now: what tools open, they open with the first pool */
    for (long lives = 0; lives * OPERATIONS < operations; lives++) {
        live(&sequence, lives & 1);
    }
    assert_int_equal(count_fds(), fds);
    for (int i = 0; i < PAIRS; i++) {
        close(pairs[i][0]);
        close(pairs[i][1]);
    }
    sigaction(SIGUSR1, NULL, &after);
    assert_ptr_equal(after.sa_handler, before.sa_handler);
    print_message("# %ld jobs made and disposed of, %ld runs\n", atomic_load(&model.made),
                  atomic_load(&model.runs));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_operations_keep_to_the_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
