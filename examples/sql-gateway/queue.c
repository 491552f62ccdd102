/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * queue.c - the queries that wait, and how a query comes to a database connection and back
 *
 * A query that waits is a run-now job in a group of width 1: the group's own queue is the queue.
 * When it is the query's turn its job runs and hands the query to an idle connection. While there
 * is none, the group is suspended. A query that no longer wants to wait is cancelled, wherever it
 * is in the queue; and when as many wait as the group's limit allows, the next is refused with
 * NS_OVERLOADED, which the client gets to read as 503.
 *
 * Client, queue and connection are in three groups, and so may run at the same time. Where they
 * meet there is one lock, which guards the stage of each query and the list of idle connections.
 * It is held for a few steps only, none of which waits. What must hold under it:
 *
 *   the group is suspended if and only if the list of idle connections is empty
 *   there is a `first` only while that list is empty
 *
 * A query has two holders: its client, and the queue, which hands its part on to the connection.
 * When the client leaves, the stage says who drops the other part.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "gateway.h"

static struct {
    pthread_mutex_t lock;
    struct ns_group_t *group;
    struct database *idle;
    struct query *first; /* had its turn when the last idle connection had just been lost */
} queue = {.lock = PTHREAD_MUTEX_INITIALIZER};

bool queue_new(size_t limit)
{
    return ns_group_new(gateway.pool, 1, NULL, NULL, &queue.group) == NS_SUCCESS &&
           ns_group_set_limit(queue.group, limit) == NS_SUCCESS &&
           ns_group_suspend(queue.group) == NS_SUCCESS; /* no connection yet */
}

void queue_end(void)
{
    ns_group_cancel(queue.group);
    ns_group_release(queue.group);
}

size_t queue_length(void)
{
    return ns_group_get_length(queue.group);
}

struct query *query_new(const char *sql, struct ns_job_t *tell)
{
    struct query *q = calloc(1, sizeof *q + strlen(sql) + 1);

    if (q) {
        strcpy(q->sql, sql);
        q->tell = tell;
        atomic_init(&q->holders, 1);
        atomic_fetch_add(&gateway.queries_made, 1);
    }
    return q;
}

void query_drop(struct query *q)
{
    if (atomic_fetch_sub(&q->holders, 1) == 1) {
        text_free(&q->answer);
        free(q);
        atomic_fetch_add(&gateway.queries_freed, 1);
    }
}

/* Give a query to a connection that is idle. Under the lock: so a connection that finds itself
 * taken out of the list has the message in its group before all that it adds itself. */
static void hand_over(struct query *q, struct database *db)
{
    q->stage = RUNNING;
    q->database = db;
    db->query = q;
    ns_job_rearm(db->take);
}

/* It is this query's turn. In a worker. */
static void on_turn(struct ns_job_t *job)
{
    struct query *q = ns_job_get_data(job);

    pthread_mutex_lock(&queue.lock);
    bool left = q->stage == LEFT;
    if (!left && !queue.idle) {
        queue.first = q;
    } else if (!left) {
        struct database *db = queue.idle;
        queue.idle = db->next;
        if (!queue.idle) {
            ns_group_suspend(queue.group);
        }
        hand_over(q, db);
    }
    pthread_mutex_unlock(&queue.lock);
    if (left) {
        query_drop(q);
    }
}

/* Put a query into the queue. In the loop: what a worker adds is not counted against the limit. */
ns_result_t query_wait(struct query *q)
{
    atomic_fetch_add(&q->holders, 1);
    ns_result_t result = ns_add_group_job(queue.group, NS_JOB_THREAD, on_turn, q, &q->turn);
    if (result != NS_SUCCESS) {
        query_drop(q);
    }
    return result;
}

/* The client has its answer. Its part in the query ends. */
void query_done(struct query *q)
{
    ns_job_cancel(q->turn);
    query_drop(q);
}

/*
 * The client wants no answer any more, if the query has come no further than `last`. Returns how
 * far it had come; if that is no further than `last`, the client's part in the query has ended, and
 * its connection, if it has one, cancels it.
 */
enum stage query_leave(struct query *q, enum stage last)
{
    pthread_mutex_lock(&queue.lock);
    enum stage stage = q->stage;
    if (stage > last) {
        pthread_mutex_unlock(&queue.lock);
        return stage;
    }
    struct database *db = q->database;
    q->stage = LEFT;
    /* NS_RUNNING: on_turn waits for the lock and drops its part, or has passed it on. */
    bool unseen = ns_job_cancel(q->turn) == NS_SUCCESS && stage == WAITING;
    if (queue.first == q) {
        queue.first = NULL;
        unseen = true;
    }
    pthread_mutex_unlock(&queue.lock);
    if (unseen) {
        query_drop(q); /* the queue's part */
    }
    if (db) {
        ns_job_rearm(db->look);
    }
    query_drop(q);
    return stage;
}

bool query_was_left(struct query *q)
{
    pthread_mutex_lock(&queue.lock);
    bool left = q->stage == LEFT;
    pthread_mutex_unlock(&queue.lock);
    return left;
}

/* Send the answer to the client, unless it has left. The connection's part in the query ends. The
 * text becomes the query's. */
void query_answer(struct query *q, int status, struct text *text)
{
    q->status = status;
    q->answer = *text;
    *text = (struct text){0};
    pthread_mutex_lock(&queue.lock);
    if (q->stage != LEFT) {
        q->stage = ANSWERED;
        /* Under the lock: so the client, who would leave before it goes, is still there. */
        ns_job_rearm(q->tell);
    }
    pthread_mutex_unlock(&queue.lock);
    query_drop(q);
}

/* A connection is idle. It gets its query by the message. */
void queue_offer(struct database *db)
{
    pthread_mutex_lock(&queue.lock);
    if (queue.first) {
        hand_over(queue.first, db);
        queue.first = NULL;
    } else {
        bool none = !queue.idle;
        db->next = queue.idle;
        queue.idle = db;
        if (none) {
            ns_group_resume(queue.group);
        }
    }
    pthread_mutex_unlock(&queue.lock);
}

/* An idle connection is lost. If it is not in the list, a query is on its way to it. */
void queue_without(struct database *db)
{
    pthread_mutex_lock(&queue.lock);
    struct database **at = &queue.idle;
    while (*at && *at != db) {
        at = &(*at)->next;
    }
    if (*at) {
        *at = db->next;
        if (!queue.idle) {
            ns_group_suspend(queue.group);
        }
    }
    pthread_mutex_unlock(&queue.lock);
}
