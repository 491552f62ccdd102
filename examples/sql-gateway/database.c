/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * database.c - the database connections, in the workers
 *
 * libpq's asynchronous calls do not block, but they say only what to wait for: the waiting is
 * ours. All jobs of one connection are in its group, of width 1. So each callback has the
 * connection to itself; and a job that it cancels will not begin, not even if it had fired
 * already. A stale event of a socket, or of a timer, can't come.
 *
 *   DOWN        waits for the timer, then connects
 *   CONNECTING  PQconnectPoll says when it is done; the timer limits it
 *   IDLE        in the queue's list; reads, to notice when the server ends the connection
 *   BUSY        a query is sent or its result is read
 *   RESTING     the query is over, but the server may not yet have seen a cancel that was sent for
 *               it, which would hit the next query
 *
 * The socket is libpq's. PQconnectPoll may close it and open another, which may get the same
 * number; PQconsumeInput closes it when the server has gone, and PQfinish in any case. So the jobs
 * on it have PRESERVE_FD, and none is armed during these calls: the others than the one that runs
 * are cancelled before. After PQconnectPoll they are made anew, since an add verifies what the
 * poller has under that number, and a rearm does not.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "gateway.h"

enum {
    CONNECT_MS = 10000, /* for one attempt */
    BACK_OFF_MS = 50,   /* before the second attempt; doubled before each further one */
    BACK_OFF_MOST_MS = 2000,
    CANCEL_MS = 250, /* until a cancel that had no effect is sent again */
    CANCELS = 8,     /* then the connection is given up */
    RESULT_MOST = 16 << 20,
};

static void on_timer(struct ns_job_t *job);
static void on_socket(struct ns_job_t *job);

/*
 * What it waits for
 */

static void cancel(struct ns_job_t **job)
{
    if (*job) {
        ns_job_cancel(*job);
        *job = NULL;
    }
}

static void set_timer(struct database *db, unsigned ms)
{
    struct timeval tv = {ms / 1000, ms % 1000 * 1000};

    cancel(&db->timer);
    ns_result_t result = ns_add_timeout_job(gateway.pool, &tv, NS_JOB_THREAD | NS_JOB_UNARMED,
                                            on_timer, db, &db->timer);
    if (!start_in_group(result, &db->timer, db->group) && result != NS_SHUTDOWN) {
        fprintf(stderr, "sql-gateway: no memory for a timer\n");
        ns_thrpool_shutdown(gateway.pool); /* without it, this connection would stay as it is */
    }
}

/* Wait until the socket can be read or written. False if there is no memory for it. */
static bool watch(struct database *db, struct ns_job_t **job, ns_job_type_t direction)
{
    if (*job) {
        ns_job_rearm(*job); /* refused if it is armed: as well */
        return true;
    }
    ns_result_t result = ns_add_fd_job(
        gateway.pool, PQsocket(db->conn),
        direction | NS_JOB_THREAD | NS_JOB_PRESERVE_FD | NS_JOB_UNARMED, on_socket, db, job);
    return start_in_group(result, job, db->group) || result == NS_SHUTDOWN;
}

/*
 * Its beginning and its end
 */

/* End the connection, and begin another in so many milliseconds. */
static void disconnect(struct database *db, unsigned ms)
{
    cancel(&db->reader);
    cancel(&db->writer);
    PQfinish(db->conn);
    db->conn = NULL;
    db->state = DOWN;
    set_timer(db, ms);
}

static void answer(struct database *db)
{
    struct query *q = db->query;

    db->query = NULL;
    atomic_fetch_sub(&gateway.running, 1);
    query_answer(q, db->status, &db->answer);
}

/* Print libpq's message, which may have several lines, as one. */
static void report(const char *why)
{
    char line[256];

    snprintf(line, sizeof line, "%s", why);
    for (char *at = line; (at = strpbrk(at, "\n\t")); at++) {
        *at = ' ';
    }
    fprintf(stderr, "sql-gateway: a database connection is lost: %s\n", line);
}

/* The connection has failed, or can't be made. The server may have done what the query asked for,
 * or not: so the query is not sent again, and its client learns of it. */
static void lose(struct database *db, const char *why)
{
    if (db->state != CONNECTING || db->back_off == BACK_OFF_MS) { /* not at every further try */
        report(why);
    }
    if (db->state == IDLE) {
        queue_without(db);
    }
    if (db->state > CONNECTING) {
        atomic_fetch_add(&gateway.lost, 1);
        atomic_fetch_sub(&gateway.connected, 1);
    }
    if (db->state == BUSY) {
        text_free(&db->answer);
        text_print(&db->answer, "the database connection was lost: %s", why);
        db->status = 502;
        answer(db);
    }
    /* Some time at random, so that they do not all come back at once. */
    disconnect(db, db->back_off + (unsigned)random() % BACK_OFF_MS);
    db->back_off = db->back_off * 2 < BACK_OFF_MOST_MS ? db->back_off * 2 : BACK_OFF_MOST_MS;
}

static void ignore_notice(void *arg, const PGresult *result)
{
    (void)arg;
    (void)result;
}

/* In a worker: it may block while it looks up a name. */
static void begin_to_connect(struct database *db)
{
    const char *const names[] = {"fallback_application_name", "client_encoding", "dbname", NULL};
    const char *const values[] = {"sql-gateway", "UTF8", gateway.conninfo, NULL};

    db->conn = PQconnectStartParams(names, values, 1);
    db->state = CONNECTING;
    if (!db->conn || PQstatus(db->conn) == CONNECTION_BAD) {
        lose(db, db->conn ? PQerrorMessage(db->conn) : "no memory");
        return;
    }
    PQsetNoticeReceiver(db->conn, ignore_notice, NULL);
    set_timer(db, CONNECT_MS);
    if (!watch(db, &db->writer, NS_JOB_WRITE)) { /* at first, and until PQconnectPoll says else */
        lose(db, "no memory");
    }
}

static void offer(struct database *db)
{
    db->state = IDLE;
    queue_offer(db);
}

static void go_on_connecting(struct database *db)
{
    bool watched = true;

    cancel(&db->reader);
    cancel(&db->writer);
    switch (PQconnectPoll(db->conn)) {
    case PGRES_POLLING_READING: watched = watch(db, &db->reader, NS_JOB_READ); break;
    case PGRES_POLLING_WRITING: watched = watch(db, &db->writer, NS_JOB_WRITE); break;
    case PGRES_POLLING_OK:
        cancel(&db->timer);
        atomic_fetch_add(&gateway.connected, 1);
        if (db->back_off > BACK_OFF_MS) {
            fprintf(stderr, "sql-gateway: a database connection is back\n");
        }
        db->back_off = BACK_OFF_MS;
        watched = PQsetnonblocking(db->conn, 1) == 0 && watch(db, &db->reader, NS_JOB_READ);
        db->state = RESTING;
        if (watched && !db->cancel) { /* the last connection's may still be under way */
            offer(db);
        }
        break;
    default: lose(db, PQerrorMessage(db->conn)); return;
    }
    if (!watched) {
        lose(db, "no memory");
    }
}

/*
 * Cancels
 */

/*
 * Cancel the query that runs. PQcancel makes a connection of its own, and blocks until the server
 * has taken the cancel: so it is sent by another job, which has the PGcancel to itself until it
 * says that it is done. (From version 17 on, libpq has a PQcancelStart that does not block.)
 */
static void begin_to_cancel(struct database *db)
{
    if (db->cancel) {
        return;
    }
    db->cancel = PQgetCancel(db->conn);
    if (db->cancel) {
        ns_job_rearm(db->send_cancel);
    }
    set_timer(db, CANCEL_MS);
}

/* In a worker, and in the group of the cancels. */
static void on_send_cancel(struct ns_job_t *job)
{
    struct database *db = ns_job_get_data(job);
    char error[256];

    PQcancel(db->cancel, error, sizeof error); /* if it fails, the timer comes */
    atomic_fetch_add(&gateway.cancels_sent, 1);
    ns_job_rearm(db->cancel_sent);
}

static void on_cancel_sent(struct ns_job_t *job)
{
    struct database *db = ns_job_get_data(job);

    PQfreeCancel(db->cancel);
    db->cancel = NULL;
    if (db->state == RESTING) {
        offer(db);
    }
}

/* The client of a query has left; of this one, perhaps, or of one that is over. */
static void on_look(struct ns_job_t *job)
{
    struct database *db = ns_job_get_data(job);

    if (db->state == BUSY && query_was_left(db->query)) {
        begin_to_cancel(db);
    }
}

/*
 * Queries
 */

static void set_status(struct database *db, int status, const char *why)
{
    if (db->status == 0) {
        db->status = status;
        text_free(&db->answer);
        text_print(&db->answer, "%s", why);
    }
}

/* What an SQLSTATE means to a client of HTTP. */
static int status_of(const char *state)
{
    if (!state || strncmp(state, "XX", 2) == 0) {
        return 500;
    }
    if (strcmp(state, "57014") == 0) {
        return 504; /* by the server's statement_timeout */
    }
    return strncmp(state, "53", 2) == 0 || strncmp(state, "57", 2) == 0 ? 503 : 400;
}

/* Take a part of the result. False if the connection can't be used any more. */
static bool take_part(struct database *db, const PGresult *part)
{
    switch (PQresultStatus(part)) {
    case PGRES_SINGLE_TUPLE: /* one row */
        if (db->status == 0 && !result_add_rows(&db->answer, part)) {
            set_status(db, 500, "no memory for the result\n");
            begin_to_cancel(db);
        } else if (db->answer.length > RESULT_MOST) {
            set_status(db, 500, "the result is too large\n");
            begin_to_cancel(db);
        }
        return true;
    case PGRES_TUPLES_OK: /* no more rows */
    case PGRES_EMPTY_QUERY:
        if (db->status == 0) {
            db->status = 200;
        }
        return true;
    case PGRES_COMMAND_OK:
        if (db->status == 0) {
            text_print(&db->answer, "%s\n", PQcmdStatus((PGresult *)part));
            db->status = 200;
        }
        return true;
    case PGRES_COPY_IN:
    case PGRES_COPY_OUT:
    case PGRES_COPY_BOTH: set_status(db, 400, "COPY is not served\n"); return false;
    default:
        set_status(db, status_of(PQresultErrorField(part, PG_DIAG_SQLSTATE)),
                   PQresultErrorMessage(part));
        return true;
    }
}

/* The query is over. */
static void finish_query(struct database *db, bool usable)
{
    if (db->status == 0) {
        set_status(db, 500, "no result\n");
    }
    answer(db);
    cancel(&db->timer);
    if (!usable || PQtransactionStatus(db->conn) != PQTRANS_IDLE) {
        /* The next client must not find itself in this one's transaction. */
        atomic_fetch_sub(&gateway.connected, 1);
        disconnect(db, 0);
    } else if (db->cancel) {
        db->state = RESTING;
    } else {
        offer(db);
    }
}

/* Send what is unsent. False if the connection is lost. */
static bool flush(struct database *db)
{
    int unsent = PQflush(db->conn);

    if (unsent < 0) {
        lose(db, PQerrorMessage(db->conn));
    } else if (unsent > 0 && !watch(db, &db->writer, NS_JOB_WRITE)) {
        lose(db, "no memory");
    }
    return db->conn != NULL;
}

/* The reader has fired. What is unsent can be sent when the server has been read from: it may not
 * have read before. */
static void receive(struct database *db)
{
    PGnotify *notify;

    cancel(&db->writer);
    if (!PQconsumeInput(db->conn)) {
        lose(db, PQerrorMessage(db->conn));
        return;
    }
    while (db->state == BUSY && !PQisBusy(db->conn)) {
        PGresult *part = PQgetResult(db->conn);
        bool usable = !part || take_part(db, part);
        PQclear(part);
        if (!part || !usable) {
            finish_query(db, usable);
        }
    }
    if (!db->conn) {
        return;
    }
    while ((notify = PQnotifies(db->conn))) {
        PQfreemem(notify); /* some client has said LISTEN */
    }
    if (flush(db) && !watch(db, &db->reader, NS_JOB_READ)) {
        lose(db, "no memory");
    }
}

/* The queue has given it a query. */
static void on_take(struct ns_job_t *job)
{
    struct database *db = ns_job_get_data(job);

    atomic_fetch_add(&gateway.running, 1);
    db->status = 0;
    db->cancels = 0;
    if (db->state != IDLE) {
        /* It was lost at the moment when the queue chose it. The query was not sent. */
        set_status(db, 503, "the database connection was lost\n");
        answer(db);
        return;
    }
    db->state = BUSY;
    if (query_was_left(db->query)) {
        finish_query(db, true);
    } else if (!PQsendQueryParams(db->conn, db->query->sql, 0, NULL, NULL, NULL, NULL, 0)) {
        /* With parameters, even if none: then PostgreSQL takes one statement only. */
        lose(db, PQerrorMessage(db->conn));
    } else {
        PQsetSingleRowMode(db->conn);
        flush(db);
    }
}

/*
 * Jobs
 */

static void on_socket(struct ns_job_t *job)
{
    struct database *db = ns_job_get_data(job);

    if (db->state == CONNECTING) {
        go_on_connecting(db);
    } else if (job == db->reader) {
        receive(db);
    } else {
        flush(db);
    }
}

static void on_timer(struct ns_job_t *job)
{
    struct database *db = ns_job_get_data(job);

    switch (db->state) {
    case DOWN: begin_to_connect(db); break;
    case CONNECTING: lose(db, "no answer from the server"); break;
    case BUSY:
        /* A cancel that comes before the query, or at the wrong moment of it, has no effect. */
        if (++db->cancels == CANCELS) {
            lose(db, "a cancel has no effect");
        } else if (db->cancel) {
            set_timer(db, CANCEL_MS);
        } else {
            begin_to_cancel(db);
        }
        break;
    default: break;
    }
}

static void on_end(struct ns_group_t *group)
{
    free(ns_group_get_data(group));
    atomic_fetch_add(&gateway.connections_freed, 1);
}

/* A connection, which begins to connect by itself. NULL if it can't be made. */
struct database *database_new(void)
{
    struct database *db = calloc(1, sizeof *db);

    if (!db || ns_group_new(gateway.pool, 1, db, on_end, &db->group) != NS_SUCCESS) {
        free(db);
        return NULL;
    }
    db->back_off = BACK_OFF_MS;
    if (!make_message(db->group, NS_JOB_THREAD, on_take, db, &db->take) ||
        !make_message(db->group, NS_JOB_THREAD, on_look, db, &db->look) ||
        !make_message(db->group, NS_JOB_THREAD, on_cancel_sent, db, &db->cancel_sent) ||
        !make_message(gateway.cancels, NS_JOB_THREAD, on_send_cancel, db, &db->send_cancel)) {
        ns_group_cancel(db->group);
        ns_group_release(db->group);
        return NULL;
    }
    set_timer(db, 0);
    return db;
}

/* By main, when no callback runs any more. */
void database_end(struct database *db)
{
    if (db->query) {
        query_drop(db->query);
    }
    text_free(&db->answer);
    ns_group_cancel(db->group); /* the jobs on the socket, before it is closed */
    PQfreeCancel(db->cancel);
    PQfinish(db->conn);
    ns_group_release(db->group); /* frees the rest when its jobs are gone */
}
