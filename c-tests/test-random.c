/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Random operations of the whole interface, from several threads, on many jobs, held against a
 * model: what a result says must be true of every callback that comes before or after it.
 *
 * The interface does not let anybody name a job once its done or cancel was accepted. So each job
 * has a slot here with a lock of its own, under which threads act on it, and which is empty from
 * the accepted done or cancel until the done callback. No callback takes that lock: what callbacks
 * and model share is atomic.
 *
 *   NS_SEED=n    play a run again (the threads' own order is the system's)
 *   NS_COUNT     deep or full for more operations
 */
#include "fm.h"

enum { THREADS = 4, SLOTS = 256, PIPES = 32 };

enum stage { EMPTY, LIVE, ENDED };

struct slot {
    pthread_mutex_t lock;
    struct ns_job_t *job; /* under the lock, while LIVE */
    ns_job_type_t type;
    int kind;
    int pipe;       /* the pair that its descriptor is of, or -1 */
    int fd;         /* its descriptor, if it is the job's own to close */
    atomic_int stage;
    atomic_int closed;     /* a cancel or done that says that no run is to come has returned */
    atomic_int executing;
    atomic_long runs;
    atomic_int disposals;
    atomic_int own_end; /* the callback has ended the job itself */
    uint32_t behaviour;
};

static struct slot slots[SLOTS];
static int pipes[PIPES][2];
static struct ns_thrpool_t *pool;
static atomic_long made, disposed, runs_in_all;
static const char *volatile finding; /* the first thing that was not as the model says */

static void find(const char *what)
{
    if (finding == NULL) {
        finding = what;
    }
}

#define HOLD(cond) ((cond) ? (void)0 : find(#cond))

/* What jobs watch: fed and emptied by everybody. */
static void drain(int pair)
{
    char bytes[16];
    if (read(pipes[pair][0], bytes, sizeof bytes) < 0) {
        HOLD(errno == EAGAIN);
    }
}

static void feed(int pair)
{
    if (write(pipes[pair][1], "x", 1) < 0) {
        HOLD(errno == EAGAIN);
    }
}

static void look_at(struct ns_job_t *job, struct slot *slot)
{
    HOLD(ns_job_get_data(job) == slot);
    HOLD(ns_job_get_tp(job) == pool);
    HOLD(ns_job_get_type(job) == slot->type);
    HOLD(ns_job_get_fd(job) == NULL);
    HOLD((ns_job_get_native_fd(job) >= 0) == (slot->pipe >= 0 || slot->fd >= 0));
}

static void run(struct ns_job_t *job)
{
    struct slot *slot = ns_job_get_data(job);
    ns_job_type_t output = ns_job_get_output_type(job);
    HOLD(atomic_fetch_add(&slot->executing, 1) == 0);
    HOLD(atomic_load(&slot->closed) == 0);
    HOLD(atomic_load(&slot->disposals) == 0);
    atomic_fetch_add(&slot->runs, 1);
    atomic_fetch_add(&runs_in_all, 1);
    look_at(job, slot);
    switch (slot->kind) {
    case 0: HOLD(output == 0); break;
    case 1: HOLD(output == NS_JOB_TIMER); break;
    case 2: HOLD(output == NS_JOB_SIGNAL); break;
    default:
        HOLD(output == NS_JOB_TIMER ||
             (output != 0 && (output & ~(slot->type & (NS_JOB_READ | NS_JOB_WRITE))) == 0));
        if (slot->pipe >= 0) {
            drain(slot->pipe);
        }
    }
    uint64_t sequence = slot->behaviour + (uint64_t)atomic_load(&slot->runs);
    uint64_t dice = next_random(&sequence) % 16;
    hesitate(&sequence, 400);
    if (dice < 6) {
        ns_result_t result = ns_job_rearm(job);
        HOLD(result == NS_SUCCESS || result == NS_INVALID_STATE);
    }
    if (dice == 7 || dice == 3 || atomic_load(&slot->runs) > 50) {
        /* From here on nobody else may name it but under the lock with this flag unset. */
        atomic_store(&slot->own_end, 1);
        HOLD((dice & 1 ? ns_job_done(job) : ns_job_cancel(job)) == NS_SUCCESS);
        HOLD(ns_job_rearm(job) == NS_INVALID_STATE);
        HOLD(ns_job_set_data(job, slot) == NS_INVALID_STATE);
        HOLD(ns_job_done(job) == NS_SUCCESS);
    }
    HOLD(ns_job_get_output_type(job) == output);
    HOLD(atomic_fetch_sub(&slot->executing, 1) == 1);
}

static void gone(struct ns_job_t *job)
{
    struct slot *slot = ns_job_get_data(job);
    HOLD(atomic_load(&slot->executing) == 0);
    HOLD(atomic_fetch_add(&slot->disposals, 1) == 0);
    look_at(job, slot);
    if (slot->fd >= 0) {
        HOLD(!fd_is_open(slot->fd) || ns_job_get_native_fd(job) == slot->fd);
    }
    atomic_fetch_add(&disposed, 1);
    atomic_store(&slot->stage, ENDED);
}

/* Make a job in an empty slot, whose lock the caller has. */
static void make(struct slot *slot, uint64_t *sequence)
{
    uint64_t dice = next_random(sequence);
    struct timeval tv = {0, (long)(dice >> 8 & 0x3ff)};
    ns_job_type_t type = (dice & 1 ? NS_JOB_THREAD : 0) | (dice & 6 ? 0 : NS_JOB_PERSIST);
    ns_job_type_t unarmed = NS_JOB_UNARMED;
    ns_result_t result = NS_SUCCESS;
    slot->kind = (int)(dice >> 20 & 7) % 6;
    slot->pipe = -1;
    slot->fd = -1;
    slot->behaviour = (uint32_t)(dice >> 32);
    atomic_store(&slot->closed, 0);
    atomic_store(&slot->runs, 0);
    atomic_store(&slot->disposals, 0);
    atomic_store(&slot->own_end, 0);
    switch (slot->kind) {
    case 0: result = ns_add_job(pool, type | unarmed, run, slot, &slot->job); break;
    case 1:
        result = ns_add_timeout_job(pool, &tv, type | unarmed, run, slot, &slot->job);
        type |= NS_JOB_TIMER;
        break;
    case 2:
        result = ns_add_signal_job(pool, dice & 8 ? SIGUSR1 : SIGUSR2, type | unarmed, run, slot,
                                   &slot->job);
        type |= NS_JOB_SIGNAL;
        break;
    case 3: /* shares a descriptor with others */
        slot->pipe = (int)(dice >> 40) & (PIPES - 1);
        type |= NS_JOB_PRESERVE_FD | (dice & 16 ? NS_JOB_READ : 0) |
                ((dice & 48) != 16 ? NS_JOB_WRITE : 0);
        result = ns_add_fd_job(pool, pipes[slot->pipe][0], type | unarmed, run, slot, &slot->job);
        break;
    case 4:
        slot->pipe = (int)(dice >> 40) & (PIPES - 1);
        type |= NS_JOB_PRESERVE_FD | NS_JOB_READ;
        result = ns_add_fd_timeout_job(pool, pipes[slot->pipe][0], &tv, type | unarmed, run, slot,
                                       &slot->job);
        type |= NS_JOB_TIMER;
        break;
    default: /* a descriptor of its own, that is always writable, closed with it */
        slot->fd = dup(pipes[0][1]);
        HOLD(slot->fd >= 0);
        type |= NS_JOB_WRITE;
        result = ns_add_fd_timeout_job(pool, slot->fd, &tv, type | unarmed, run, slot, &slot->job);
        type |= NS_JOB_TIMER;
    }
    slot->type = type;
    HOLD(result == NS_SUCCESS);
    HOLD(ns_job_set_done_cb(slot->job, gone) == NS_SUCCESS);
    atomic_fetch_add(&made, 1);
    atomic_store(&slot->stage, LIVE);
    if (dice & 64) {
        HOLD(ns_job_rearm(slot->job) == NS_SUCCESS);
    }
}

/*
 * A job whose own callback may end it at any moment can't be named from outside at all. Those
 * that do (by their behaviour) are ended by nobody else.
 */
static int ends_itself(const struct slot *slot)
{
    uint64_t sequence;
    for (uint64_t n = 1; n <= 50; n++) {
        sequence = slot->behaviour + n;
        uint64_t dice = next_random(&sequence) % 16;
        if (dice == 7 || dice == 3) {
            return 1;
        }
    }
    return 0;
}
