/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Groups in the random operations, and their model.
 *
 * A team is a place for a group, with a lock, under which whoever names the group from outside does so.
 * It stays unused from the release of the maker's hold until the group's done callback. Who has a slot's
 * lock only tries for a team's, and the other way round.
 *
 * To see it fail: in a group of width 2 begin three; begin a job after a cancel without a look at the mark;
 * push at the head; forget one resume; run the group's done callback before the last job's.
 */
#ifndef RANDOM_GROUPS_H
#define RANDOM_GROUPS_H

#include "random.h"

enum { TEAMS = 12, MOST_WORKERS = 4 };

struct team {
    pthread_mutex_t lock;
    struct ns_group_t *group;
    int width;
    int suspensions;  /* under the lock, as the next three */
    int cancelled;
    size_t limit;
    long ticket;      /* the last that was given out */
    long began_before; /* how many had begun when it was suspended */
    atomic_int stage;
    atomic_int no_more; /* a cancel has said: none runs, none will begin */
    atomic_int inside;  /* callbacks and done callbacks */
    atomic_int members; /* jobs in slots */
    atomic_long begun;
    atomic_long last; /* the ticket that ran last; of width 1 */
};

static struct team teams[TEAMS];

static struct {
    atomic_long made, ended, joined, cancels, cancels_running, overloaded;
    atomic_long loose_made, loose_runs;
} counts;

/* A callback (1) or a done callback (0) of the team's begins. */
static inline void team_enter(struct team *team, int callback)
{
    if (team == NULL) {
        return;
    }
    int inside = atomic_fetch_add(&team->inside, 1) + 1;
    HOLDS(team->width == 0 || inside <= team->width);
    HOLDS(ns_group_is_current(team->group) == 1);
    if (callback) {
        atomic_fetch_add(&team->begun, 1);
        HOLDS(!atomic_load(&team->no_more));
    }
}

static inline void team_leave(struct team *team)
{
    if (team != NULL) {
        HOLDS(atomic_fetch_sub(&team->inside, 1) >= 1);
    }
}

/* What was armed one after the other runs so. */
static inline void team_in_order(struct team *team, struct slot *slot)
{
    if (team != NULL && team->width == 1 && slot->ticket != 0) {
        HOLDS(slot->ticket > atomic_load(&team->last));
        atomic_store(&team->last, slot->ticket);
        slot->ticket = 0;
    }
}

static inline void team_ended(struct ns_group_t *group)
{
    struct team *team = ns_group_get_data(group);
    HOLDS(team->group == group);
    HOLDS(atomic_load(&team->inside) == 0);
    HOLDS(atomic_load(&team->members) == 0);
    HOLDS(ns_group_is_current(group) == 1);
    HOLDS(ns_group_get_length(group) == 0);
    HOLDS(ns_group_get_tp(group) == pool);
    atomic_fetch_add(&counts.ended, 1);
    atomic_store(&team->stage, EMPTY);
}

/* Put a job in that was just made: the caller holds its slot's lock. */
static inline void team_join(struct slot *slot, uint64_t which)
{
    struct team *team = &teams[which];
    if (pthread_mutex_trylock(&team->lock) != 0) {
        return;
    }
    if (atomic_load(&team->stage) == LIVE) {
        HOLDS(ns_job_get_group(slot->job) == NULL);
        ns_result_t result = ns_job_set_group(slot->job, team->group);
        HOLDS(result == (team->cancelled ? NS_DELETING : NS_SUCCESS));
        if (result == NS_SUCCESS) {
            slot->team = team;
            atomic_fetch_add(&team->members, 1);
            atomic_fetch_add(&counts.joined, 1);
            HOLDS(ns_job_set_group(slot->job, team->group) == NS_INVALID_STATE);
        }
    }
    pthread_mutex_unlock(&team->lock);
}

/* Arm a run-now job. One that is idle gets a ticket, if nobody else gives one out at the time. */
static inline ns_result_t team_rearm(struct slot *slot)
{
    struct team *team = slot->team;
    if (NS_JOB_IS_PERSIST(slot->type) || pthread_mutex_trylock(&team->lock) != 0) {
        return ns_job_rearm(slot->job);
    }
    int idle = ns_job_timedwait(slot->job, &at_once) == NS_SUCCESS;
    if (idle) {
        slot->ticket = ++team->ticket;
    }
    ns_result_t result = ns_job_rearm(slot->job);
    HOLDS(!idle || result == NS_SUCCESS || (result == NS_SHUTDOWN && ns_thrpool_is_shutdown(pool)));
    if (idle && result != NS_SUCCESS) {
        slot->ticket = 0;
    }
    pthread_mutex_unlock(&team->lock);
    return result;
}

/* A job that no slot has, and nobody names. */
static inline void run_loose(struct ns_job_t *job)
{
    struct team *team = ns_job_get_data(job);
    team_enter(team, 1);
    atomic_fetch_add(&counts.loose_runs, 1);
    HOLDS(!atomic_load(&model.quiet));
    HOLDS(ns_job_get_group(job) == team->group);
    HOLDS(ns_job_done(job) == NS_SUCCESS);
    team_leave(team);
}

static inline void team_add_loose(struct team *team, uint64_t dice, const struct slot *own)
{
    struct ns_job_t *job = NULL;
    ns_result_t result = ns_add_group_job(team->group, where[dice & 1], run_loose, team,
                                          dice & 2 ? &job : NULL);
    int in_worker = own != NULL && NS_JOB_IS_THREAD(own->type);
    switch (result) {
    case NS_SUCCESS:
        HOLDS(!team->cancelled);
        atomic_fetch_add(&counts.loose_made, 1);
        break;
    case NS_DELETING: HOLDS(team->cancelled); break;
    case NS_SHUTDOWN: HOLDS(ns_thrpool_is_shutdown(pool)); break;
    default:
        HOLDS(result == NS_OVERLOADED && team->limit != 0 && !team->cancelled && !in_worker);
        atomic_fetch_add(&counts.overloaded, 1);
    }
    HOLDS(result == NS_SUCCESS || job == NULL);
}

/* Cancel a team whose lock the caller holds, if all of its jobs' locks can be had. */
static inline void team_cancel(struct team *team, const struct slot *own)
{
    static _Thread_local int locked[SLOTS];
    int count = 0, all = 1;
    for (int i = 0; i < SLOTS && all; i++) {
        /* Who makes a job of this team holds the team's lock, so none is missed. */
        if (pthread_mutex_trylock(&slots[i].lock) != 0) {
            all = 0;
        } else if (slots[i].team != team || atomic_load(&slots[i].stage) == EMPTY) {
            pthread_mutex_unlock(&slots[i].lock);
        } else {
            locked[count++] = i;
        }
    }
    if (all) {
        ns_result_t result = ns_group_cancel(team->group);
        HOLDS(result == NS_SUCCESS || result == NS_RUNNING);
        team->cancelled = 1;
        HOLDS(ns_group_get_length(team->group) == 0);
        atomic_fetch_add(&counts.cancels, 1);
        atomic_fetch_add(&counts.cancels_running, result == NS_RUNNING);
        if (result == NS_SUCCESS) {
            atomic_store(&team->no_more, 1);
        }
        for (int i = 0; i < count; i++) {
            struct slot *slot = &slots[locked[i]];
            int live = LIVE;
            atomic_compare_exchange_strong(&slot->stage, &live, ENDING);
            if (result == NS_SUCCESS) {
                atomic_store(&slot->no_more, 1);
                HOLDS(slot == own || atomic_load(&slot->executing) == 0);
                atomic_store(&slot->most_runs, atomic_load(&slot->runs));
            } else if (atomic_load(&slot->most_runs) == INT32_MAX) {
                /* A run may have begun without having counted itself. */
                atomic_store(&slot->most_runs, atomic_load(&slot->runs) + 1);
            }
        }
    }
    while (count > 0) {
        pthread_mutex_unlock(&slots[locked[--count]].lock);
    }
}

/* Resume a team as often as it was suspended. The caller holds its lock. */
static inline void team_resume(struct team *team)
{
    while (team->suspensions > 0) {
        /* Those that had begun had not all counted themselves. */
        HOLDS(atomic_load(&team->begun) <= team->began_before + MOST_WORKERS + 1);
        team->suspensions--;
        HOLDS(ns_group_resume(team->group) == NS_SUCCESS);
    }
    HOLDS(ns_group_resume(team->group) == NS_INVALID_STATE);
}

static inline void team_make(struct team *team, uint64_t dice)
{
    team->width = (int)(dice % 4);
    team->suspensions = team->cancelled = 0;
    team->limit = 0;
    team->ticket = 0;
    atomic_store(&team->last, 0);
    atomic_store(&team->no_more, 0);
    atomic_store(&team->begun, 0);
    atomic_store(&team->stage, LIVE);
    ns_result_t result = ns_group_new(pool, (size_t)team->width, team, team_ended, &team->group);
    if (result != NS_SUCCESS) {
        HOLDS(result == NS_SHUTDOWN && ns_thrpool_is_shutdown(pool) && team->group == NULL);
        atomic_store(&team->stage, EMPTY);
        return;
    }
    HOLDS(ns_group_get_data(team->group) == team && ns_group_get_tp(team->group) == pool);
    atomic_fetch_add(&counts.made, 1);
}

static inline void team_wait(struct team *team, uint64_t dice, const struct slot *own)
{
    struct timeval tv = {0, (long)(dice % 200)};
    ns_result_t result = ns_group_wait(team->group, &tv);
    HOLDS(result == NS_SUCCESS || result == NS_TIMEOUT ||
          (result == NS_SHUTDOWN && ns_thrpool_is_shutdown(pool)) ||
          (result == NS_INVALID_STATE && own != NULL));
    /* It never waits in the loop, nor in a callback of the group's own. */
    HOLDS(own == NULL || (own->team != team && NS_JOB_IS_THREAD(own->type)) || result != NS_TIMEOUT);
}

/* An operation on a group. */
static inline void team_act(uint64_t *sequence, const struct slot *own)
{
    uint64_t dice = next_random(sequence);
    struct team *team = &teams[dice % TEAMS];
    if (pthread_mutex_trylock(&team->lock) != 0) {
        return;
    }
    int stage = atomic_load(&team->stage);
    if (atomic_load(&model.left) <= 0 || stage == ENDING) {
        pthread_mutex_unlock(&team->lock);
        return;
    }
    count_operation();
    if (stage == EMPTY) {
        team_make(team, dice >> 8);
        pthread_mutex_unlock(&team->lock);
        return;
    }
    switch ((dice >> 16) % 32) {
    case 0: team_cancel(team, own); break;
    case 1:
        team_resume(team);
        ns_group_hold(team->group);
        ns_group_release(team->group);
        atomic_store(&team->stage, ENDING);
        ns_group_release(team->group);
        break;
    case 2:
    case 3:
    case 4:
        HOLDS(ns_group_suspend(team->group) == NS_SUCCESS);
        if (team->suspensions++ == 0) {
            team->began_before = atomic_load(&team->begun);
        }
        break;
    case 5: HOLDS(ns_group_set_limit(team->group, team->limit = (dice >> 24) % 5) == NS_SUCCESS); break;
    case 6:
    case 7:
    case 8: team_wait(team, dice >> 24, own); break;
    case 9:
    case 10:
    case 11:
    case 12:
    case 13: team_add_loose(team, dice >> 24, own); break;
    case 14:
        HOLDS(ns_group_get_data(team->group) == team && ns_group_get_tp(team->group) == pool);
        HOLDS(ns_group_is_current(team->group) == (own != NULL && own->team == team));
        break;
    default: team_resume(team);
    }
    pthread_mutex_unlock(&team->lock);
}

/* Nothing is held back any more. */
static inline void teams_resume(void)
{
    for (int i = 0; i < TEAMS; i++) {
        pthread_mutex_lock(&teams[i].lock);
        if (atomic_load(&teams[i].stage) == LIVE) {
            team_resume(&teams[i]);
        }
        pthread_mutex_unlock(&teams[i].lock);
    }
}

/* Release the groups that are left, but for some: the pool ends those. */
static inline void teams_release(uint64_t *sequence)
{
    for (int i = 0; i < TEAMS; i++) {
        if (atomic_load(&teams[i].stage) == LIVE && next_random(sequence) % 4 != 0) {
            atomic_store(&teams[i].stage, ENDING);
            ns_group_release(teams[i].group);
        }
    }
}

/* The pool is gone: so is every group, once. */
static inline void teams_check(void)
{
    for (int i = 0; i < TEAMS; i++) {
        HOLDS(atomic_load(&teams[i].stage) == EMPTY);
        HOLDS(atomic_load(&teams[i].inside) == 0 && atomic_load(&teams[i].members) == 0);
    }
    HOLDS(atomic_load(&counts.made) == atomic_load(&counts.ended));
}

#endif
