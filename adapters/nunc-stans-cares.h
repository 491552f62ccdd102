/* SPDX-License-Identifier: GPL-3.0-or-later */
/* With additional permission to link OpenSSL: see COPYING.openssl. */
/*
 * nunc-stans-cares.h - a channel of c-ares on a pool: DNS, without a thread that blocks for each name
 *
 * A channel is for one thread at a time. So give it a group of width 1, and make every call on it in a callback
 * of a job of that group. The callbacks of its queries run there, too.
 *
 *     static void begin(struct ns_job_t *job)
 *     {
 *         struct caresNuncStans *self;
 *         if (caresNuncStansNew(ns_job_get_group(job), NULL, 0, &self) == ARES_SUCCESS) {
 *             ares_getaddrinfo(self->channel, "example.com", NULL, &hints, on_answer, self);
 *             caresNuncStansAsked(self);
 *         }
 *         ns_job_done(job);
 *     }
 *     ns_add_group_job(group, NS_JOB_THREAD, begin, NULL, NULL);
 *
 * c-ares does not say when the time of a query begins. So call caresNuncStansAsked after queries, but for those
 * that the callback of another query makes when that has been answered.
 *
 * The end. caresNuncStansFree in a callback of the group (not in a query's), or in any one thread after
 * ns_thrpool_wait and before ns_thrpool_destroy. The queries that are under way are told ARES_EDESTRUCTION. Do not
 * cancel the group before. ares_library_init comes first, as ever.
 *
 * Written for c-ares 1.18.
 */
#ifndef NUNC_STANS_CARES_H
#define NUNC_STANS_CARES_H

#include <ares.h>
#include <nunc-stans.h>
#include <stdlib.h>

/* One direction of a socket. Its job is made when c-ares first wants it. */
struct caresNuncStansSide {
    struct ns_job_t *job;
    int wanted;
    int armed;
};

/* A socket that c-ares watches. */
struct caresNuncStansSocket {
    struct caresNuncStans *all;
    ares_socket_t fd;
    struct caresNuncStansSide reads, writes;
    struct caresNuncStansSocket *next;
};

struct caresNuncStans {
    ares_channel channel;
    void *data; /* the application's own */
    struct ns_group_t *group;
    struct ns_job_t *timer;
    int timing; /* the timer is armed */
    struct caresNuncStansSocket *sockets;
};

static inline void caresNuncStansOnTimer(struct ns_job_t *job);

static inline struct ns_job_t *caresNuncStansMakeTimer(struct caresNuncStans *self, struct timeval *tv)
{
    struct ns_job_t *timer;
    if (ns_add_timeout_job(ns_group_get_tp(self->group), tv, NS_JOB_THREAD | NS_JOB_UNARMED, caresNuncStansOnTimer,
                           self, &timer) != NS_SUCCESS)
        return NULL;
    ns_job_set_group(timer, self->group);
    return timer;
}

/**
 * Look again when the next query's time is up. In the group, after queries that were not made in the callback
 * of another query.
 */
static inline void caresNuncStansAsked(struct caresNuncStans *self)
{
    struct timeval tv;
    if (ares_timeout(self->channel, NULL, &tv) == NULL)
        return;
    if (self->timing) { /* another takes its place; if that can't be had, it fires for all of them */
        struct ns_job_t *timer = caresNuncStansMakeTimer(self, &tv);
        if (timer == NULL)
            return;
        ns_job_cancel(self->timer);
        self->timer = timer;
    }
    self->timing = ns_job_rearm_for(self->timer, NS_JOB_NONE, &tv) == NS_SUCCESS;
}

static inline void caresNuncStansOnTimer(struct ns_job_t *job)
{
    struct caresNuncStans *self = (struct caresNuncStans *)ns_job_get_data(job);
    self->timing = 0;
    ares_process_fd(self->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
    caresNuncStansAsked(self);
}

/* Arm the job before c-ares is told: it may close the socket, and then the job is cancelled. */
static inline int caresNuncStansFires(struct caresNuncStansSide *side)
{
    side->armed = side->wanted && ns_job_rearm(side->job) == NS_SUCCESS;
    return side->wanted;
}

static inline void caresNuncStansOnReadable(struct ns_job_t *job)
{
    struct caresNuncStansSocket *socket = (struct caresNuncStansSocket *)ns_job_get_data(job);
    struct caresNuncStans *self = socket->all;
    if (!caresNuncStansFires(&socket->reads))
        return;
    ares_process_fd(self->channel, socket->fd, ARES_SOCKET_BAD);
    caresNuncStansAsked(self);
}

static inline void caresNuncStansOnWritable(struct ns_job_t *job)
{
    struct caresNuncStansSocket *socket = (struct caresNuncStansSocket *)ns_job_get_data(job);
    struct caresNuncStans *self = socket->all;
    if (!caresNuncStansFires(&socket->writes))
        return;
    ares_process_fd(self->channel, ARES_SOCKET_BAD, socket->fd);
    caresNuncStansAsked(self);
}

/* If a job can't be had, the queries on this socket end by their time. */
static inline void caresNuncStansWant(struct caresNuncStansSocket *socket, struct caresNuncStansSide *side,
                                      int wanted, ns_job_type_t direction, ns_job_func_t func)
{
    struct ns_group_t *group = socket->all->group;
    side->wanted = wanted;
    if (!wanted || side->armed)
        return;
    if (side->job == NULL) {
        if (ns_add_fd_job(ns_group_get_tp(group), socket->fd,
                          direction | NS_JOB_THREAD | NS_JOB_PRESERVE_FD | NS_JOB_UNARMED, func, socket,
                          &side->job) != NS_SUCCESS)
            return;
        ns_job_set_group(side->job, group);
    }
    side->armed = ns_job_rearm(side->job) == NS_SUCCESS;
}

/* No callback of its jobs is under way but the caller, and none begins any more. */
static inline void caresNuncStansForget(struct caresNuncStansSocket **at)
{
    struct caresNuncStansSocket *socket = *at;
    *at = socket->next;
    if (socket->reads.job != NULL)
        ns_job_cancel(socket->reads.job);
    if (socket->writes.job != NULL)
        ns_job_cancel(socket->writes.job);
    free(socket);
}

/* c-ares says what it wants to know of a socket; that is nothing before it closes it. */
static inline void caresNuncStansWatch(void *arg, ares_socket_t fd, int readable, int writable)
{
    struct caresNuncStans *self = (struct caresNuncStans *)arg;
    struct caresNuncStansSocket **at = &self->sockets;
    while (*at != NULL && (*at)->fd != fd)
        at = &(*at)->next;
    if (!readable && !writable) {
        if (*at != NULL)
            caresNuncStansForget(at);
        return;
    }
    if (*at == NULL) {
        *at = (struct caresNuncStansSocket *)calloc(1, sizeof **at);
        if (*at == NULL)
            return;
        (*at)->all = self;
        (*at)->fd = fd;
    }
    caresNuncStansWant(*at, &(*at)->reads, readable, NS_JOB_READ, caresNuncStansOnReadable);
    caresNuncStansWant(*at, &(*at)->writes, writable, NS_JOB_WRITE, caresNuncStansOnWritable);
}

/**
 * Make a channel whose queries run on a group.
 *
 * @param group of width 1; the caller is in one of its callbacks. This takes a hold on it
 * @param options as for ares_init_options, but for sock_state_cb, which is used here; NULL for none
 * @param optmask which of the options are set
 * @param self the channel, in its member `channel`; NULL if it can't be had
 * @return ARES_SUCCESS, or c-ares' reason: ARES_ENOTINITIALIZED also if the caller is not in the group
 */
static inline int caresNuncStansNew(struct ns_group_t *group, const struct ares_options *options, int optmask,
                                    struct caresNuncStans **self)
{
    struct ares_options all;
    struct timeval none = {0, 0};
    int status;
    *self = NULL;
    if (!ns_group_is_current(group))
        return ARES_ENOTINITIALIZED;
    struct caresNuncStans *made = (struct caresNuncStans *)calloc(1, sizeof *made);
    if (made == NULL)
        return ARES_ENOMEM;
    if (options != NULL)
        all = *options;
    made->group = group;
    all.sock_state_cb = caresNuncStansWatch;
    all.sock_state_cb_data = made;
    made->timer = caresNuncStansMakeTimer(made, &none);
    status = made->timer == NULL ? ARES_ENOMEM
                                 : ares_init_options(&made->channel, &all, optmask | ARES_OPT_SOCK_STATE_CB);
    if (status != ARES_SUCCESS) {
        if (made->timer != NULL)
            ns_job_cancel(made->timer);
        free(made);
        return status;
    }
    ns_group_hold(group);
    *self = made;
    return ARES_SUCCESS;
}

/** End it all. In the group, but not in a query's callback; or when no callback runs any more. */
static inline void caresNuncStansFree(struct caresNuncStans *self)
{
    ares_destroy(self->channel); /* tells the queries, and then of each socket that it closes it */
    ns_job_cancel(self->timer);
    while (self->sockets != NULL)
        caresNuncStansForget(&self->sockets);
    ns_group_release(self->group);
    free(self);
}

#endif /* NUNC_STANS_CARES_H */
