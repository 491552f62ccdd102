/* SPDX-License-Identifier: GPL-3.0-or-later */
/* With additional permission to link OpenSSL: see COPYING.openssl. */
/*
 * nunc-stans-hiredis.h - hiredis' asynchronous contexts on a pool
 *
 * A context is for one thread at a time. So give it a group of width 1, and make every call on it, the
 * first included, in a callback of a job of that group: hiredis' own callbacks run there, too.
 *
 *     static void begin(struct ns_job_t *job)
 *     {
 *         redisAsyncContext *ac = redisAsyncConnect("127.0.0.1", 6379);
 *         if (ac != NULL && ac->err == 0 && redisNuncStansAttach(ac, ns_job_get_group(job)) == REDIS_OK) {
 *             redisAsyncSetConnectCallback(ac, on_connect);
 *             redisAsyncSetDisconnectCallback(ac, on_disconnect);
 *             redisAsyncCommand(ac, on_reply, NULL, "GET %s", "key");
 *         }
 *         ns_job_done(job);
 *     }
 *     ns_add_group_job(group, NS_JOB_THREAD, begin, NULL, NULL);
 *
 * hiredis frees a context when the connection has failed, or is closed: after the disconnect callback, or
 * after a connect callback whose status is not REDIS_OK, do not use it again.
 *
 * The end. redisAsyncFree or redisAsyncDisconnect in a callback of the group; or, after ns_thrpool_wait,
 * redisAsyncFree in any one thread, before ns_thrpool_destroy. Do not cancel the group of a live context:
 * it would hear of nothing more; free it first.
 *
 * Written for hiredis 0.14 and later. Its time-outs (redisAsyncSetTimeout, from 1.0) are not served: add a
 * timer to the group.
 */
#ifndef NUNC_STANS_HIREDIS_H
#define NUNC_STANS_HIREDIS_H

#include <hiredis/async.h>
#include <hiredis/hiredis.h>
#include <nunc-stans.h>
#include <stdlib.h>

/* One direction. Its job is made when the context is attached, so arming it never lacks memory. */
struct redisNuncStansSide {
    struct ns_job_t *job;
    int wanted;
    int armed;
};

struct redisNuncStans {
    redisAsyncContext *context;
    struct redisNuncStansSide reads, writes;
};

static inline void redisNuncStansWant(struct redisNuncStansSide *side)
{
    side->wanted = 1;
    /* In its own callback as well: then it is armed when that returns. */
    if (!side->armed && ns_job_rearm(side->job) == NS_SUCCESS)
        side->armed = 1;
}

static inline void redisNuncStansOnReadable(struct ns_job_t *job)
{
    struct redisNuncStans *self = (struct redisNuncStans *)ns_job_get_data(job);
    self->reads.armed = 0;
    if (self->reads.wanted)
        redisAsyncHandleRead(self->context); /* may free self */
}

static inline void redisNuncStansOnWritable(struct ns_job_t *job)
{
    struct redisNuncStans *self = (struct redisNuncStans *)ns_job_get_data(job);
    self->writes.armed = 0;
    if (self->writes.wanted)
        redisAsyncHandleWrite(self->context); /* may free self */
}

static inline void redisNuncStansAddRead(void *self)
{
    redisNuncStansWant(&((struct redisNuncStans *)self)->reads);
}
static inline void redisNuncStansDelRead(void *self)
{
    ((struct redisNuncStans *)self)->reads.wanted = 0;
}
static inline void redisNuncStansAddWrite(void *self)
{
    redisNuncStansWant(&((struct redisNuncStans *)self)->writes);
}
static inline void redisNuncStansDelWrite(void *self)
{
    ((struct redisNuncStans *)self)->writes.wanted = 0;
}

/* hiredis calls it once, before it closes the descriptor. No callback of the other job can be under way,
 * for the group has width 1, and none begins once it is cancelled. */
static inline void redisNuncStansCleanup(void *arg)
{
    struct redisNuncStans *self = (struct redisNuncStans *)arg;
    if (self->reads.job != NULL)
        ns_job_cancel(self->reads.job);
    if (self->writes.job != NULL)
        ns_job_cancel(self->writes.job);
    free(self);
}

static inline int redisNuncStansMake(struct redisNuncStans *self, struct redisNuncStansSide *side,
                                     struct ns_group_t *group, ns_job_type_t direction,
                                     ns_job_func_t func)
{
    if (ns_add_fd_job(ns_group_get_tp(group), self->context->c.fd,
                      direction | NS_JOB_THREAD | NS_JOB_PRESERVE_FD | NS_JOB_UNARMED, func, self,
                      &side->job) != NS_SUCCESS)
        return REDIS_ERR;
    return ns_job_set_group(side->job, group) == NS_SUCCESS ? REDIS_OK : REDIS_ERR;
}

/**
 * Attach a new context to a group.
 *
 * @param ac a context that no event library is attached to
 * @param group of width 1; the caller is in one of its callbacks
 * @return REDIS_OK; REDIS_ERR if one is attached, the caller is not in the group, the pool shuts down,
 * or memory is out: the context is then as before
 */
static inline int redisNuncStansAttach(redisAsyncContext *ac, struct ns_group_t *group)
{
    if (ac->ev.data != NULL || !ns_group_is_current(group))
        return REDIS_ERR;
    struct redisNuncStans *self = (struct redisNuncStans *)calloc(1, sizeof *self);
    if (self == NULL)
        return REDIS_ERR;
    self->context = ac;
    if (redisNuncStansMake(self, &self->reads, group, NS_JOB_READ, redisNuncStansOnReadable) != REDIS_OK ||
        redisNuncStansMake(self, &self->writes, group, NS_JOB_WRITE, redisNuncStansOnWritable) !=
            REDIS_OK) {
        redisNuncStansCleanup(self);
        return REDIS_ERR;
    }
    ac->ev.data = self;
    ac->ev.addRead = redisNuncStansAddRead;
    ac->ev.delRead = redisNuncStansDelRead;
    ac->ev.addWrite = redisNuncStansAddWrite;
    ac->ev.delWrite = redisNuncStansDelWrite;
    ac->ev.cleanup = redisNuncStansCleanup;
    return REDIS_OK;
}

#endif /* NUNC_STANS_HIREDIS_H */
