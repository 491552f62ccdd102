/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The model that test-random holds the library against: the jobs, and what was found. */
#ifndef RANDOM_H
#define RANDOM_H

#include "fm.h"

enum { THREADS = 4, SLOTS = 200, PAIRS = 16, OPERATIONS = 20000, AFTERWARDS = 2000 };

#define NONE INT32_MIN

enum kind { NOW, TIMER, SIGNAL, SHARED_FD, SHARED_FD_TIMEOUT, OWN_FD, KINDS };

enum stage { EMPTY, LIVE, ENDING };

struct slot {
    pthread_mutex_t lock;
    struct ns_job_t *job;
    ns_job_type_t type;
    enum kind kind;
    int pair;         /* of sockets, that the job watches, or -1 */
    int ends_itself;
    struct team *team; /* the group that the job is in, or NULL; see random-groups.h */
    long ticket;       /* its place in the order of adds, or 0 */
    int untold;       /* it was armed by the add, and has no done callback until it runs */
    int life;         /* runs after which one that ends itself does so */
    uint32_t temper;  /* the seed of what its callback does */
    atomic_int stage;
    atomic_long born;
    atomic_int no_more; /* something was accepted that says: no run is in progress, none will be */
    atomic_int executing;
    atomic_int runs;
    atomic_int most_runs; /* after an end was accepted */
    atomic_int disposals;
};

static struct slot slots[SLOTS];
static int pairs[PAIRS][2];
static struct ns_thrpool_t *pool;

static struct {
    atomic_long left;  /* operations on a running pool */
    atomic_long after; /* those on one that shuts down */
    atomic_long shutdown_at; /* a callback shuts down when so many are left, or NONE */
    atomic_long made;
    atomic_long disposed;
    atomic_long runs;
    atomic_int shutting_down;
    atomic_int quiet; /* wait has returned */
    atomic_long beside[10]; /* results of waits without the lock */
} model;

/* The first thing that contradicted the model. */
static _Atomic(const char *) finding;

#define HOLDS(cond)                                                                            \
    do {                                                                                       \
        if (!(cond)) {                                                                         \
            const char *none = NULL;                                                           \
            atomic_compare_exchange_strong(&finding, &none, #cond);                            \
        }                                                                                      \
    } while (0)

static void count_operation(void);

#endif
