/* SPDX-License-Identifier: GPL-3.0-or-later */
/* With additional permission to link OpenSSL: see COPYING.openssl. */
/*
 * nunc-stans-libpq.h - PostgreSQL's libpq on a pool, without a thread that blocks for each connection
 *
 * A connection is for one thread at a time. So give it a group of width 1, and call the functions below in
 * callbacks of jobs of that group. Your callbacks run there, too.
 *
 *     static void on_state(struct pqNuncStans *self, int up)
 *     {
 *         if (up)
 *             pqNuncStansQuery(self, "SELECT $1::int + 1", 1, values, on_result, NULL);
 *         else
 *             pqNuncStansFree(self);               PQerrorMessage(self->conn) says why
 *     }
 *     static void begin(struct ns_job_t *job)
 *     {
 *         pqNuncStansConnect(ns_job_get_group(job), "dbname=postgres", on_state, NULL);
 *         ns_job_done(job);
 *     }
 *     ns_add_group_job(group, NS_JOB_THREAD, begin, NULL, NULL);
 *
 * The end. pqNuncStansFree in a callback of the group, its own callbacks included; or, after
 * ns_thrpool_wait, in any one thread, before ns_thrpool_destroy. Do not cancel the group before.
 *
 * What it leaves to you: time limits (add a timer to the group, and free the connection when it fires),
 * PQcancel, which blocks, and notices. COPY is not served: it counts as a lost connection.
 */
#ifndef NUNC_STANS_LIBPQ_H
#define NUNC_STANS_LIBPQ_H

#include <libpq-fe.h>
#include <nunc-stans.h>
#include <stdlib.h>

struct pqNuncStans;
/** up: 1 once when the connection is made; 0 once when it can't be, or is lost. */
typedef void (*pqNuncStansState)(struct pqNuncStans *self, int up);
/** Each result of a query, which is cleared afterwards; then NULL: the next query may be sent. */
typedef void (*pqNuncStansResult)(struct pqNuncStans *self, PGresult *result, void *data);

struct pqNuncStans {
    PGconn *conn;
    void *data; /* the application's own */
    struct ns_group_t *group;
    struct ns_job_t *reader, *writer;
    pqNuncStansState state;
    pqNuncStansResult result; /* of the query that is under way, or NULL */
    void *result_data;
    int inside; /* in one of its jobs' callbacks: freed when that ends */
    int freed;
};

static inline void pqNuncStansForget(struct ns_job_t **job)
{
    if (*job != NULL)
        ns_job_cancel(*job); /* its callback does not begin any more, even if it has fired */
    *job = NULL;
}

/* Have func called once when the socket is ready. A new job each time that libpq may have another socket:
 * under the same number, an old one would not notice. */
static inline int pqNuncStansWatch(struct pqNuncStans *self, struct ns_job_t **job,
                                   ns_job_type_t direction, ns_job_func_t func)
{
    pqNuncStansForget(job);
    if (ns_add_fd_job(ns_group_get_tp(self->group), PQsocket(self->conn),
                      direction | NS_JOB_THREAD | NS_JOB_PRESERVE_FD | NS_JOB_UNARMED, func, self,
                      job) != NS_SUCCESS)
        return 0;
    if (ns_job_set_group(*job, self->group) == NS_SUCCESS && ns_job_rearm(*job) == NS_SUCCESS)
        return 1;
    pqNuncStansForget(job);
    return 0;
}

static inline void pqNuncStansLeave(struct pqNuncStans *self)
{
    if (--self->inside == 0 && self->freed) {
        struct ns_group_t *group = self->group;
        free(self);
        ns_group_release(group);
    }
}

/* It is lost: who asked something is told first. */
static inline void pqNuncStansLose(struct pqNuncStans *self)
{
    pqNuncStansResult result = self->result;
    pqNuncStansForget(&self->reader);
    pqNuncStansForget(&self->writer);
    self->result = NULL;
    if (result != NULL) {
        PGresult *last = PQmakeEmptyPGresult(self->conn, PGRES_FATAL_ERROR);
        result(self, last, self->result_data);
        PQclear(last);
        if (!self->freed)
            result(self, NULL, self->result_data);
    }
    if (!self->freed)
        self->state(self, 0);
}

static inline void pqNuncStansFlush(struct pqNuncStans *self);

static inline void pqNuncStansOnWritable(struct ns_job_t *job)
{
    struct pqNuncStans *self = (struct pqNuncStans *)ns_job_get_data(job);
    self->inside++;
    self->writer = NULL;
    ns_job_done(job);
    pqNuncStansFlush(self);
    pqNuncStansLeave(self);
}

/* Send what libpq still holds. If that fails, reading finds the connection lost. */
static inline void pqNuncStansFlush(struct pqNuncStans *self)
{
    if (PQflush(self->conn) == 1)
        pqNuncStansWatch(self, &self->writer, NS_JOB_WRITE, pqNuncStansOnWritable);
}

/* Hand out the results that have come. 0: what came can't be served. */
static inline int pqNuncStansDeliver(struct pqNuncStans *self)
{
    while (!self->freed && self->result != NULL && !PQisBusy(self->conn)) {
        PGresult *result = PQgetResult(self->conn);
        ExecStatusType status = PQresultStatus(result);
        pqNuncStansResult function = self->result;
        if (result == NULL)
            self->result = NULL;
        function(self, result, self->result_data);
        PQclear(result);
        if (result != NULL &&
            (status == PGRES_COPY_IN || status == PGRES_COPY_OUT || status == PGRES_COPY_BOTH))
            return 0;
    }
    return 1;
}

static inline void pqNuncStansOnReadable(struct ns_job_t *job)
{
    struct pqNuncStans *self = (struct pqNuncStans *)ns_job_get_data(job);
    self->inside++;
    /* PQconsumeInput closes the socket when the server has gone: nothing may watch it then. */
    pqNuncStansForget(&self->writer);
    int alive = PQconsumeInput(self->conn);
    alive = pqNuncStansDeliver(self) && alive;
    if (self->freed) {
        /* its jobs are cancelled */
    } else if (!alive || PQstatus(self->conn) != CONNECTION_OK) {
        pqNuncStansLose(self);
    } else {
        pqNuncStansFlush(self);
        ns_job_rearm(job);
    }
    pqNuncStansLeave(self);
}

static inline void pqNuncStansOnConnecting(struct ns_job_t *job)
{
    struct pqNuncStans *self = (struct pqNuncStans *)ns_job_get_data(job);
    int well = 1;
    self->inside++;
    self->reader = NULL;
    ns_job_done(job);
    switch (PQconnectPoll(self->conn)) {
    case PGRES_POLLING_READING:
        well = pqNuncStansWatch(self, &self->reader, NS_JOB_READ, pqNuncStansOnConnecting);
        break;
    case PGRES_POLLING_WRITING:
        well = pqNuncStansWatch(self, &self->reader, NS_JOB_WRITE, pqNuncStansOnConnecting);
        break;
    case PGRES_POLLING_OK:
        well = PQsetnonblocking(self->conn, 1) == 0 &&
               pqNuncStansWatch(self, &self->reader, NS_JOB_READ, pqNuncStansOnReadable);
        if (well)
            self->state(self, 1);
        break;
    default:
        well = 0;
    }
    if (!well)
        pqNuncStansLose(self);
    pqNuncStansLeave(self);
}

/**
 * Begin to connect. It may block while it looks a name up.
 *
 * @param group of width 1; the caller is in one of its callbacks. This takes a hold on it
 * @param conninfo libpq's
 * @param state called in the group, later; it may free
 * @param data for self->data; the application's own
 * @return NULL if memory is out, conninfo is wrong, the pool shuts down, or the caller is not in the
 * group: then state is not called
 */
static inline struct pqNuncStans *pqNuncStansConnect(struct ns_group_t *group, const char *conninfo,
                                                     pqNuncStansState state, void *data)
{
    if (!ns_group_is_current(group))
        return NULL;
    struct pqNuncStans *self = (struct pqNuncStans *)calloc(1, sizeof *self);
    if (self == NULL)
        return NULL;
    self->group = group;
    self->state = state;
    self->data = data;
    self->conn = PQconnectStart(conninfo);
    /* libpq says to begin as if PQconnectPoll had asked for WRITING. */
    if (self->conn == NULL || PQstatus(self->conn) == CONNECTION_BAD ||
        !pqNuncStansWatch(self, &self->reader, NS_JOB_WRITE, pqNuncStansOnConnecting)) {
        PQfinish(self->conn);
        free(self);
        return NULL;
    }
    ns_group_hold(group);
    return self;
}

/**
 * Send a query, with n parameters as text. In the group.
 *
 * @return 1; 0 if one is under way or libpq refuses: then result is not called
 */
static inline int pqNuncStansQuery(struct pqNuncStans *self, const char *sql, int n,
                                   const char *const *values, pqNuncStansResult result, void *data)
{
    if (self->result != NULL || !PQsendQueryParams(self->conn, sql, n, NULL, values, NULL, NULL, 0))
        return 0;
    self->result = result;
    self->result_data = data;
    pqNuncStansFlush(self);
    return 1;
}

/** End it: no callback of its is called any more. In the group, or when no callback runs any more. */
static inline void pqNuncStansFree(struct pqNuncStans *self)
{
    pqNuncStansForget(&self->reader);
    pqNuncStansForget(&self->writer);
    PQfinish(self->conn);
    self->conn = NULL;
    self->freed = 1;
    self->inside++;
    pqNuncStansLeave(self);
}

#endif /* NUNC_STANS_LIBPQ_H */
