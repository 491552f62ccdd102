/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Groups of the tests. A crew is a group and what its callbacks note: who ran in which order, how many at
 * once, and what they found wrong. A member is the data of one of its jobs.
 */
#ifndef GROUPS_H
#define GROUPS_H

#include "kinds.h"

enum { LOGGED = 4096 };

struct crew {
    struct ns_group_t *group;
    struct ns_thrpool_t *tp;
    struct latch ended;     /* runs of the group's done callback */
    struct latch runs;      /* callbacks that are about to return */
    struct latch disposals; /* done callbacks that are about to return */
    atomic_int inside;      /* callbacks and done callbacks that run now */
    atomic_int most;        /* the most that ever ran at once */
    atomic_int wrong;       /* what callbacks found wrong */
    atomic_int at;          /* how many have begun */
    int log[LOGGED];        /* the first of them, by number */
    long plain;             /* without atomics: the group of width 1 guards it */
};

struct member {
    struct crew *crew;
    int number;
    struct gate *gate;                 /* to stay in; may be NULL */
    void (*act)(struct ns_job_t *job); /* in the callback; NULL: ns_job_done */
    atomic_int runs;
    atomic_int disposals;
    atomic_ulong output; /* of the last run */
    atomic_int thread;   /* of the last run, as gettid says */
};

#define CREW_INIT {.ended = LATCH_INIT, .runs = LATCH_INIT, .disposals = LATCH_INIT}

static inline void crew_enter(struct crew *crew)
{
    int now = atomic_fetch_add(&crew->inside, 1) + 1;
    int most = atomic_load(&crew->most);
    while (most < now && !atomic_compare_exchange_weak(&crew->most, &most, now)) {
    }
}

static inline void crew_leave(struct crew *crew)
{
    atomic_fetch_sub(&crew->inside, 1);
}

/* Note that something in a callback is not as it should be. */
static inline void crew_expect(struct crew *crew, int holds)
{
    if (!holds) {
        atomic_fetch_add(&crew->wrong, 1);
    }
}

/* The done callback of the group. No callback runs beside it. */
static inline void crew_ended(struct ns_group_t *group)
{
    struct crew *crew = ns_group_get_data(group);
    crew_expect(crew, atomic_load(&crew->inside) == 0);
    crew_expect(crew, ns_group_is_current(group) == 1);
    crew_expect(crew, ns_group_get_tp(group) == crew->tp);
    crew_expect(crew, ns_group_get_length(group) == 0);
    latch_add(&crew->ended, 1);
}

static inline void crew_begin(struct crew *crew, struct ns_thrpool_t *tp, size_t width)
{
    *crew = (struct crew)CREW_INIT;
    crew->tp = tp;
    assert_int_equal(ns_group_new(tp, width, crew, crew_ended, &crew->group), NS_SUCCESS);
    assert_non_null(crew->group);
}

/* Nothing that a callback found was wrong. */
static inline void crew_check(struct crew *crew)
{
    assert_int_equal(atomic_load(&crew->wrong), 0);
}

/* See the group end, all of whose jobs end by themselves: release it, and wait for its done callback. */
static inline void crew_end(struct crew *crew)
{
    ns_group_release(crew->group);
    assert_latch(&crew->ended, 1);
    crew_check(crew);
}

/* As crew_end, with a cancel first. */
static inline void crew_cancel_and_end(struct crew *crew)
{
    ns_result_t result = ns_group_cancel(crew->group);
    assert_true(result == NS_SUCCESS || result == NS_RUNNING);
    crew_end(crew);
}

static inline void member_run(struct ns_job_t *job)
{
    struct member *member = ns_job_get_data(job);
    struct crew *crew = member->crew;
    crew_enter(crew);
    int at = atomic_fetch_add(&crew->at, 1);
    if (at < LOGGED) {
        crew->log[at] = member->number;
    }
    crew_expect(crew, ns_group_is_current(crew->group) == 1);
    crew_expect(crew, ns_job_get_group(job) == crew->group);
    atomic_store(&member->output, ns_job_get_output_type(job));
    atomic_store(&member->thread, (int)gettid());
    atomic_fetch_add(&member->runs, 1);
    if (member->gate != NULL) {
        stay_in_gate(member->gate);
    }
    if (member->act != NULL) {
        member->act(job);
    } else {
        ns_job_done(job);
    }
    latch_add(&crew->runs, 1);
    crew_leave(crew);
}

static inline void member_gone(struct ns_job_t *job)
{
    struct member *member = ns_job_get_data(job);
    struct crew *crew = member->crew;
    crew_enter(crew);
    crew_expect(crew, ns_group_is_current(crew->group) == 1);
    crew_expect(crew, ns_job_get_group(job) == crew->group);
    crew_expect(crew, latch_count(&crew->ended) == 0);
    crew_expect(crew, atomic_fetch_add(&member->disposals, 1) == 0);
    latch_add(&crew->disposals, 1);
    crew_leave(crew);
}

/* A run-now job of the group's, not armed. */
static inline struct ns_job_t *member_make(struct member *member, ns_job_type_t type)
{
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_group_job(member->crew->group, type | NS_JOB_UNARMED, member_run, member,
                                      &job), NS_SUCCESS);
    assert_int_equal(ns_job_set_done_cb(job, member_gone), NS_SUCCESS);
    return job;
}

/* A run-now job of the group's, armed. */
static inline struct ns_job_t *member_add(struct member *member, ns_job_type_t type)
{
    struct ns_job_t *job = member_make(member, type);
    assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
    return job;
}

/* A job of any kind in the group, not armed. */
static inline struct ns_job_t *member_make_kind(struct member *member, int kind,
                                                const struct trigger *on, ns_job_type_t type)
{
    struct ns_job_t *job = NULL;
    assert_int_equal(add_kind(member->crew->tp, kind, on, type | NS_JOB_UNARMED, member_run, member,
                              &job), NS_SUCCESS);
    assert_int_equal(ns_job_set_group(job, member->crew->group), NS_SUCCESS);
    assert_int_equal(ns_job_set_done_cb(job, member_gone), NS_SUCCESS);
    return job;
}

/* A job of any kind in the group, armed. */
static inline struct ns_job_t *member_add_kind(struct member *member, int kind,
                                               const struct trigger *on, ns_job_type_t type)
{
    struct ns_job_t *job = member_make_kind(member, kind, on, type);
    assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
    return job;
}

/* See the jobs that ran have run in the order of their numbers, from 0 to count - 1. */
static inline void assert_in_order(const struct crew *crew, int count)
{
    assert_int_equal(atomic_load(&crew->at), count);
    for (int i = 0; i < count && i < LOGGED; i++) {
        assert_int_equal(crew->log[i], i);
    }
}

/* Let something pass through the loop and through the workers, so that what could run has run: each of
 * `workers` workers that are free takes a job and stays until all have theirs. */
static inline void everyone_passes(struct ns_thrpool_t *tp, int workers)
{
    struct gate gate = GATE_INIT;
    struct ns_job_t *jobs[64];
    for (int round = 0; round < 2; round++) {
        loop_passes(tp, 0);
        gate = (struct gate)GATE_INIT;
        for (int i = 0; i < workers; i++) {
            jobs[i] = occupy(tp, NS_JOB_THREAD, &gate);
        }
        latch_add(&gate.leave, 1);
        for (int i = 0; i < workers; i++) {
            finish_idle(jobs[i]);
        }
    }
}

#endif
