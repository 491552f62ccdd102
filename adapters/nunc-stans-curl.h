/* SPDX-License-Identifier: GPL-3.0-or-later */
/* With additional permission to link OpenSSL: see COPYING.openssl. */
/*
 * nunc-stans-curl.h - libcurl's multi interface on a pool
 *
 * A multi handle is for one thread at a time. So give it a group of width 1, and call the functions below
 * in callbacks of jobs of that group. `done` is called there, too, once for each transfer that ends.
 *
 *     static void done(struct curlNuncStans *self, CURL *easy, CURLcode code) { ... curl_easy_cleanup(easy); }
 *     static void begin(struct ns_job_t *job)
 *     {
 *         self = curlNuncStansNew(ns_job_get_group(job), done, NULL);
 *         curlNuncStansAdd(self, easy);
 *         ns_job_done(job);
 *     }
 *     ns_add_group_job(group, NS_JOB_THREAD, begin, NULL, NULL);
 *
 * The end. curlNuncStansFree in a callback of the group (not in `done`), or in any one thread after
 * ns_thrpool_wait and before ns_thrpool_destroy. Transfers that are still going on are taken out of the
 * multi handle; their easy handles stay the application's. Do not cancel the group before.
 *
 * libcurl looks names up in threads of its own. curl_global_init comes first, as ever.
 */
#ifndef NUNC_STANS_CURL_H
#define NUNC_STANS_CURL_H

#include <curl/curl.h>
#include <nunc-stans.h>
#include <stdlib.h>

struct curlNuncStans;
typedef void (*curlNuncStansDone)(struct curlNuncStans *self, CURL *easy, CURLcode code);

/* A socket that libcurl watches. */
struct curlNuncStansSocket {
    struct curlNuncStans *all;
    struct ns_job_t *job;
    curl_socket_t fd;
    ns_job_type_t directions;
    int firing;  /* in the job's callback, which frees or rearms it at its end */
    int removed; /* libcurl is through with it */
    struct curlNuncStansSocket *next;
};

struct curlNuncStans {
    CURLM *multi;
    struct ns_group_t *group;
    curlNuncStansDone done;
    void *data;
    struct ns_job_t *timer;
    struct curlNuncStansSocket *sockets;
};

static inline ns_result_t curlNuncStansStart(struct curlNuncStans *self, struct ns_job_t **job)
{
    ns_result_t result = ns_job_set_group(*job, self->group);
    if (result == NS_SUCCESS)
        result = ns_job_rearm(*job);
    if (result != NS_SUCCESS) {
        ns_job_done(*job);
        *job = NULL;
    }
    return result;
}

/* What libcurl is told if it can't be served. It takes -1 for the end of all transfers, and then stumbles over those
 * that have no connection yet. At the pool's end nothing has to be told: no callback comes any more. */
static inline int curlNuncStansRefuse(ns_result_t result)
{
    return result == NS_SHUTDOWN ? 0 : -1;
}

/* Tell of the transfers that have ended. `done` may add others. */
static inline void curlNuncStansTell(struct curlNuncStans *self)
{
    CURLMsg *message;
    int left;
    while ((message = curl_multi_info_read(self->multi, &left)) != NULL) {
        if (message->msg != CURLMSG_DONE)
            continue;
        CURL *easy = message->easy_handle;
        CURLcode code = message->data.result;
        curl_multi_remove_handle(self->multi, easy);
        self->done(self, easy, code);
    }
}

static inline void curlNuncStansForget(struct curlNuncStansSocket *socket)
{
    struct curlNuncStansSocket **at = &socket->all->sockets;
    while (*at != socket)
        at = &(*at)->next;
    *at = socket->next;
    free(socket);
}

static inline void curlNuncStansOnSocket(struct ns_job_t *job)
{
    struct curlNuncStansSocket *socket = (struct curlNuncStansSocket *)ns_job_get_data(job);
    struct curlNuncStans *self = socket->all;
    ns_job_type_t fired = ns_job_get_output_type(job);
    int running;
    int events = (fired & NS_JOB_READ ? CURL_CSELECT_IN : 0) | (fired & NS_JOB_WRITE ? CURL_CSELECT_OUT : 0);
    socket->firing = 1;
    curl_multi_socket_action(self->multi, socket->fd, events, &running);
    socket->firing = 0;
    if (socket->removed) {
        ns_job_done(job);
        curlNuncStansForget(socket);
    } else {
        ns_job_rearm_for(job, socket->directions, NULL);
    }
    curlNuncStansTell(self);
}

/* libcurl says what it wants to know of a socket. */
static inline int curlNuncStansWatch(CURL *easy, curl_socket_t fd, int what, void *arg, void *of_socket)
{
    struct curlNuncStans *self = (struct curlNuncStans *)arg;
    struct curlNuncStansSocket *socket = (struct curlNuncStansSocket *)of_socket;
    (void)easy;
    if (what == CURL_POLL_REMOVE) {
        if (socket == NULL)
            return 0;
        curl_multi_assign(self->multi, fd, NULL);
        socket->removed = 1;
        if (!socket->firing) {
            ns_job_cancel(socket->job); /* none of its callbacks begins any more, and it does not run */
            curlNuncStansForget(socket);
        }
        return 0;
    }
    if (socket == NULL) {
        socket = (struct curlNuncStansSocket *)calloc(1, sizeof *socket);
        if (socket == NULL)
            return -1;
        socket->all = self;
        socket->fd = fd;
        socket->next = self->sockets;
        self->sockets = socket;
        curl_multi_assign(self->multi, fd, socket);
    }
    ns_job_type_t directions = (what & CURL_POLL_IN ? NS_JOB_READ : NS_JOB_NONE) |
                               (what & CURL_POLL_OUT ? NS_JOB_WRITE : NS_JOB_NONE);
    if (socket->job != NULL && (socket->firing || socket->directions == directions)) {
        socket->directions = directions;
        return 0;
    }
    /* An armed job does not change its directions: another takes its place. */
    struct ns_job_t *job;
    ns_result_t result = ns_add_fd_job(ns_group_get_tp(self->group), fd,
                                       directions | NS_JOB_THREAD | NS_JOB_PRESERVE_FD | NS_JOB_UNARMED,
                                       curlNuncStansOnSocket, socket, &job);
    if (result == NS_SUCCESS)
        result = curlNuncStansStart(self, &job);
    if (result != NS_SUCCESS) {
        if (socket->job == NULL) {
            curl_multi_assign(self->multi, fd, NULL);
            curlNuncStansForget(socket);
        }
        return curlNuncStansRefuse(result);
    }
    if (socket->job != NULL)
        ns_job_cancel(socket->job);
    socket->job = job;
    socket->directions = directions;
    return 0;
}

static inline void curlNuncStansOnTimer(struct ns_job_t *job)
{
    struct curlNuncStans *self = (struct curlNuncStans *)ns_job_get_data(job);
    int running;
    self->timer = NULL;
    ns_job_done(job);
    curl_multi_socket_action(self->multi, CURL_SOCKET_TIMEOUT, 0, &running);
    curlNuncStansTell(self);
}

/* libcurl says when it wants to be called without an event. It must not be called from here. */
static inline int curlNuncStansSetTimer(CURLM *multi, long ms, void *arg)
{
    struct curlNuncStans *self = (struct curlNuncStans *)arg;
    struct timeval tv;
    (void)multi;
    if (self->timer != NULL)
        ns_job_cancel(self->timer);
    self->timer = NULL;
    if (ms < 0)
        return 0;
    tv.tv_sec = ms / 1000;
    tv.tv_usec = ms % 1000 * 1000;
    ns_result_t result = ns_add_timeout_job(ns_group_get_tp(self->group), &tv, NS_JOB_THREAD | NS_JOB_UNARMED,
                                            curlNuncStansOnTimer, self, &self->timer);
    if (result == NS_SUCCESS)
        result = curlNuncStansStart(self, &self->timer);
    return result == NS_SUCCESS ? 0 : curlNuncStansRefuse(result);
}

/**
 * Make a multi handle whose transfers run on a group.
 *
 * @param group of width 1; the caller is in one of its callbacks. This takes a hold on it
 * @param done called in the group, when a transfer has ended: the easy handle is out of the multi
 * handle and the application's again. It may add transfers, but not free
 * @param data for self->data; the application's own
 * @return NULL if memory is out, or the caller is not in the group
 */
static inline struct curlNuncStans *curlNuncStansNew(struct ns_group_t *group, curlNuncStansDone done,
                                                     void *data)
{
    if (!ns_group_is_current(group))
        return NULL;
    struct curlNuncStans *self = (struct curlNuncStans *)calloc(1, sizeof *self);
    CURLM *multi = curl_multi_init();
    if (self == NULL || multi == NULL) {
        free(self);
        if (multi != NULL)
            curl_multi_cleanup(multi);
        return NULL;
    }
    self->multi = multi;
    self->group = group;
    self->done = done;
    self->data = data;
    ns_group_hold(group);
    curl_multi_setopt(multi, CURLMOPT_SOCKETFUNCTION, curlNuncStansWatch);
    curl_multi_setopt(multi, CURLMOPT_SOCKETDATA, self);
    curl_multi_setopt(multi, CURLMOPT_TIMERFUNCTION, curlNuncStansSetTimer);
    curl_multi_setopt(multi, CURLMOPT_TIMERDATA, self);
    return self;
}

/**
 * Begin a transfer. In the group.
 *
 * @return CURLM_OK, or libcurl's reason: then `done` is not called
 */
static inline CURLMcode curlNuncStansAdd(struct curlNuncStans *self, CURL *easy)
{
    return curl_multi_add_handle(self->multi, easy);
}

/** Abort a transfer: `done` is not called for it. In the group. */
static inline CURLMcode curlNuncStansRemove(struct curlNuncStans *self, CURL *easy)
{
    return curl_multi_remove_handle(self->multi, easy);
}

/** End it all. In the group, but not in `done`; or when no callback runs any more. */
static inline void curlNuncStansFree(struct curlNuncStans *self)
{
    /* Closing the connections that are kept makes libcurl ask for timers and name sockets once more. */
    curl_multi_cleanup(self->multi);
    if (self->timer != NULL)
        ns_job_cancel(self->timer);
    while (self->sockets != NULL) {
        if (self->sockets->job != NULL)
            ns_job_cancel(self->sockets->job);
        curlNuncStansForget(self->sockets);
    }
    ns_group_release(self->group);
    free(self);
}

#endif /* NUNC_STANS_CURL_H */
