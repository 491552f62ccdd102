/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * gateway.h - what the parts of sql-gateway know of each other
 *
 *   main.c      the daemon: its arguments, its listener, its end
 *   client.c    the HTTP clients, in the event loop
 *   queue.c     the queries that wait, and how a query comes to a database connection and back
 *   database.c  the database connections, in the workers
 *   result.c    a result of PostgreSQL's as text
 *
 * There are four kinds of group:
 *
 *   a client's      width 1, one for each client. Its jobs run in the loop. Cancelling it ends all
 *                   that belongs to the client in one call; its done callback frees the client.
 *   a connection's  width 1, one for each database connection. Its jobs run in whichever worker is
 *                   free, one at a time: libpq allows one thread at a time on a connection, and
 *                   this is all that it takes. No lock guards a connection.
 *   the queue       width 1. A query that waits is a job in it. It is suspended while no
 *                   connection is idle, and its limit is the limit of waiting queries.
 *   the cancels     width 1. PQcancel blocks; a server that does not answer holds up one worker.
 */
#ifndef GATEWAY_H
#define GATEWAY_H

#include <libpq-fe.h>
#include <nunc-stans.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

/* Text that grows. */
struct text {
    char *at; /* NULL while it is empty; not terminated */
    size_t length, size;
};

enum stage {
    WAITING,  /* in the queue */
    RUNNING,  /* with a database connection */
    ANSWERED, /* the answer is on its way to the client */
    LEFT,     /* the client has gone, or was told that its time is up */
};

struct database;

struct query {
    atomic_int holders;        /* the last one frees it */
    struct ns_job_t *turn;     /* its place in the queue; the client finishes it */
    enum stage stage;          /* under the queue's lock */
    struct ns_job_t *tell;     /* the client's; armed by the answer, unless the stage is LEFT */
    struct database *database; /* from RUNNING on; under the queue's lock */
    int status;                /* the answer: HTTP's status, */
    struct text answer;        /* and the text that goes with it */
    char sql[];
};

struct gateway {
    struct ns_thrpool_t *pool;
    struct ns_group_t *cancels;
    const char *conninfo;
    struct timeval idle;  /* until a silent client is dropped */
    struct timeval limit; /* for a query, its time in the queue included */
    bool stopping;        /* the loop's */

    atomic_ulong clients_made, clients_freed, queries_made, queries_freed, connections_freed;
    atomic_ulong answered, overloaded, timeouts, hang_ups, cancels_sent, lost;
    atomic_ulong clients, running, connected; /* now */
};

extern struct gateway gateway;

/* main.c */

/*
 * Put a job into its group and arm it: `result` is that of the add, which made it unarmed. False if
 * there is no job. In a shutdown nothing is armed any more; main disposes of such a job with its
 * group, so that this is no failure.
 */
bool start_in_group(ns_result_t result, struct ns_job_t **job, struct ns_group_t *group);

/* Make a run-now job in a group that is armed, again and again, as a message: it needs no memory
 * then. Messages that are sent before it has run are one. */
bool make_message(struct ns_group_t *group, ns_job_type_t type, ns_job_func_t func, void *data,
                  struct ns_job_t **job);

/* client.c: in the loop, or by main when the pool has stopped */

void client_new(int fd);
void clients_stop(void);
void clients_close(void);

/* queue.c */

bool queue_new(size_t limit);
void queue_end(void);
size_t queue_length(void);
struct query *query_new(const char *sql, struct ns_job_t *tell);
void query_drop(struct query *q);
ns_result_t query_wait(struct query *q);
void query_done(struct query *q);
enum stage query_leave(struct query *q, enum stage last);
bool query_was_left(struct query *q);
void query_answer(struct query *q, int status, struct text *text);
void queue_offer(struct database *db);
void queue_without(struct database *db);

/* database.c */

struct database {
    struct ns_group_t *group; /* all that follows is its jobs' alone, but for these three: */
    struct ns_job_t *take;    /* a message: `query` is yours */
    struct ns_job_t *look;    /* a message: the client of your query may have left */
    struct database *next;    /* of the idle ones, under the queue's lock */

    enum { DOWN, CONNECTING, IDLE, BUSY, RESTING } state;
    PGconn *conn;
    struct ns_job_t *reader, *writer, *timer; /* NULL where there is none */
    unsigned back_off;                        /* milliseconds until the next try to connect */

    struct query *query;
    int status; /* of its answer, 0: not known yet */
    struct text answer;

    PGcancel *cancel; /* not NULL: it is being sent */
    struct ns_job_t *send_cancel, *cancel_sent;
    unsigned cancels; /* sent for this query */
};

struct database *database_new(void);
void database_end(struct database *db);

/* result.c */

bool text_add(struct text *text, const char *more, size_t length);
bool text_print(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_free(struct text *text);
bool result_add_rows(struct text *text, const PGresult *result);

#endif
