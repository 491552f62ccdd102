/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * client.c - the HTTP clients, in the event loop
 *
 * All that a client's jobs do is quick, so they run in the loop, and what is static here is the
 * loop's alone. The jobs of one client:
 *
 *   reader    READ with a time-out. It stays armed while a query runs: so a client that hangs up
 *             is noticed, and its query is cancelled. A client that only closes its sending side
 *             counts as one that has hung up.
 *   writer    WRITE with a time-out, made when the client is first found slower than we are.
 *   deadline  TIMER, made for each query.
 *   tell      run-now. A worker arms it when the answer is there.
 *
 * They are in the client's group. client_close cancels the group, which ends them all whatever
 * state they are in, and closes the socket. The memory goes when the last of them has gone.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "../http.h"
#include "gateway.h"

enum {
    INPUT_SIZE = 8192,        /* the longest request head */
    LINGER_BYTES = 256 << 10, /* of a refused request that are read and dropped */
};

/* What comes after the response that is being sent. */
enum after {
    NEXT,   /* the next request */
    LAST,   /* close */
    LINGER, /* close when the client has: closing with unread input would lose the response */
};

/* What a client needs next. */
enum step { GO_ON, WAIT, WANT_READ, WANT_WRITE, CLOSE };

struct client {
    struct client *next, *prev;
    struct ns_group_t *group;
    int fd;
    struct ns_job_t *reader, *writer, *deadline, *tell;
    struct query *query; /* the one that waits or runs, or NULL */
    bool head;           /* asked by HEAD: the response has no body */
    enum after after;
    size_t lingered;
    size_t sent; /* of the response: out, then body */
    size_t out_length;
    struct text body;
    size_t in_length;
    char in[INPUT_SIZE + 1];
    char out[512];
};

static struct client *clients;

static void serve(struct client *c);

/*
 * The end of a client
 */

static void on_end(struct ns_group_t *group)
{
    struct client *c = ns_group_get_data(group);

    text_free(&c->body);
    free(c);
    atomic_fetch_add(&gateway.clients_freed, 1);
}

static void client_close(struct client *c)
{
    if (c->query && query_leave(c->query, RUNNING) == ANSWERED) {
        query_done(c->query);
    }
    if (c->next) {
        c->next->prev = c->prev;
    }
    if (c->prev) {
        c->prev->next = c->next;
    } else {
        clients = c->next;
    }
    atomic_fetch_sub(&gateway.clients, 1);
    ns_group_cancel(c->group);
    close(c->fd); /* the jobs have PRESERVE_FD: several share it */
    ns_group_release(c->group);
    if (gateway.stopping && !clients) {
        ns_thrpool_shutdown(gateway.pool);
    }
}

/*
 * Responses
 */

/* Make a response. The text, which may be NULL, becomes the client's. */
static void respond(struct client *c, int status, const char *type, struct text *text)
{
    text_free(&c->body);
    if (text) {
        c->body = *text;
        *text = (struct text){0};
    }
    if (c->body.length == 0 && status != 200) {
        text_print(&c->body, "%d %s\n", status, http_reason(status));
    }
    if (gateway.stopping && c->after == NEXT) {
        c->after = LAST;
    }
    c->sent = 0;
    c->out_length = http_head(c->out, sizeof c->out, status, type, (long long)c->body.length,
                              c->after == NEXT);
    if (c->head) {
        text_free(&c->body);
    }
}

static void respond_text(struct client *c, int status, struct text *text)
{
    respond(c, status, "text/plain; charset=utf-8", text);
}

static void respond_status(struct client *c)
{
    struct text text = {0};

    text_print(&text,
               "{\"clients\": %lu, \"waiting\": %zu, \"running\": %lu, \"connected\": %lu, "
               "\"answered\": %lu, \"overloaded\": %lu, \"timeouts\": %lu, \"hang_ups\": %lu, "
               "\"cancels\": %lu, \"lost\": %lu}\n",
               atomic_load(&gateway.clients), queue_length(), atomic_load(&gateway.running),
               atomic_load(&gateway.connected), atomic_load(&gateway.answered),
               atomic_load(&gateway.overloaded), atomic_load(&gateway.timeouts),
               atomic_load(&gateway.hang_ups), atomic_load(&gateway.cancels_sent),
               atomic_load(&gateway.lost));
    respond(c, 200, "application/json", &text);
}

/* Send as much of the response as the socket takes. */
static enum step send_response(struct client *c)
{
    size_t length = c->out_length + c->body.length;

    while (c->sent < length) {
        size_t of_out = c->sent < c->out_length ? c->sent : c->out_length;
        size_t of_body = c->sent - of_out;
        struct iovec parts[] = {
            {c->out + of_out, c->out_length - of_out},
            {c->body.at ? c->body.at + of_body : NULL, c->body.length - of_body},
        };
        struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};
        ssize_t n = sendmsg(c->fd, &message, MSG_NOSIGNAL);
        if (n < 0) {
            return errno == EAGAIN || errno == EINTR ? WANT_WRITE : CLOSE;
        }
        c->sent += (size_t)n;
    }
    c->out_length = 0;
    text_free(&c->body);
    if (c->after == LINGER) {
        shutdown(c->fd, SHUT_WR);
        return WANT_READ;
    }
    return c->after == LAST ? CLOSE : GO_ON;
}

/*
 * Queries
 */

/* The answer is there. */
static void on_answer(struct ns_job_t *job)
{
    struct client *c = ns_job_get_data(job);
    struct query *q = c->query;

    c->query = NULL;
    ns_job_cancel(c->deadline);
    respond_text(c, q->status, &q->answer);
    query_done(q);
    atomic_fetch_add(&gateway.answered, 1);
    serve(c);
}

static void on_deadline(struct ns_job_t *job)
{
    struct client *c = ns_job_get_data(job);
    enum stage stage = query_leave(c->query, RUNNING);

    if (stage == ANSWERED) {
        return; /* just in time: tell is armed */
    }
    c->query = NULL;
    ns_job_cancel(job);
    atomic_fetch_add(&gateway.timeouts, 1);
    respond_text(c, stage == WAITING ? 503 : 504, NULL);
    serve(c);
}

/* Put a query into the queue, or respond why not. */
static enum step begin_query(struct client *c, const char *sql)
{
    ns_result_t result = ns_add_timeout_job(gateway.pool, &gateway.limit, NS_JOB_UNARMED, on_deadline,
                                            c, &c->deadline);

    if (!start_in_group(result, &c->deadline, c->group)) {
        respond_text(c, 503, NULL);
        return GO_ON;
    }
    c->query = query_new(sql, c->tell);
    result = c->query ? query_wait(c->query) : NS_ALLOCATION_FAILURE;
    if (result == NS_SUCCESS) {
        return WAIT;
    }
    if (result == NS_OVERLOADED) {
        atomic_fetch_add(&gateway.overloaded, 1);
    }
    if (c->query) {
        query_drop(c->query);
        c->query = NULL;
    }
    ns_job_cancel(c->deadline);
    respond_text(c, 503, NULL);
    return GO_ON;
}

/* Take the first request out of the buffer, and answer it. */
static enum step answer(struct client *c)
{
    struct request r = {0};
    size_t blank = 0;

    /* Empty lines before a request are ignored. */
    while (blank < c->in_length && (c->in[blank] == '\r' || c->in[blank] == '\n')) {
        blank++;
    }
    c->in_length -= blank;
    memmove(c->in, c->in + blank, c->in_length);
    char *end = memmem(c->in, c->in_length, "\r\n\r\n", 4);
    if (!end && c->in_length < INPUT_SIZE) {
        return gateway.stopping ? CLOSE : WANT_READ;
    }
    int status;
    if (!end) {
        status = 431;
    } else {
        *end = '\0';
        status = strlen(c->in) < (size_t)(end - c->in) ? 400 : http_parse(c->in, &r);
    }
    enum step step = GO_ON;
    c->head = r.head;
    c->after = status != 0 ? LINGER : r.keep ? NEXT : LAST;
    if (status != 0) {
        respond_text(c, status, NULL);
    } else if (strncmp(r.target, "/sql/", 5) == 0) {
        step = begin_query(c, r.target + 5);
    } else if (strcmp(r.target, "/status") == 0) {
        respond_status(c);
    } else {
        respond_text(c, 404, NULL);
    }
    c->in_length -= end ? (size_t)(end + 4 - c->in) : c->in_length;
    if (end) {
        memmove(c->in, end + 4, c->in_length);
    }
    return step;
}

/*
 * Jobs
 */

static void on_writable(struct ns_job_t *job)
{
    struct client *c = ns_job_get_data(job);

    if (NS_JOB_IS_TIMER(ns_job_get_output_type(job))) {
        client_close(c);
    } else {
        serve(c);
    }
}

static bool arm_writer(struct client *c)
{
    if (c->writer) {
        ns_job_rearm(c->writer);
        return true;
    }
    ns_result_t result = ns_add_fd_timeout_job(
        gateway.pool, c->fd, &gateway.idle, NS_JOB_WRITE | NS_JOB_PRESERVE_FD | NS_JOB_UNARMED,
        on_writable, c, &c->writer);
    return start_in_group(result, &c->writer, c->group) || result == NS_SHUTDOWN;
}

/* Go on with a client as far as its input and its socket allow. */
static void serve(struct client *c)
{
    enum step step = GO_ON;

    while (step == GO_ON) {
        step = c->out_length > 0 ? send_response(c) : answer(c);
    }
    if (step == CLOSE || (step == WANT_WRITE && !arm_writer(c))) {
        client_close(c);
    } else if (step != WANT_WRITE && c->in_length < INPUT_SIZE) {
        ns_job_rearm(c->reader); /* refused if it is armed: as well */
    }
}

static void on_readable(struct ns_job_t *job)
{
    struct client *c = ns_job_get_data(job);

    if (NS_JOB_IS_TIMER(ns_job_get_output_type(job))) {
        if (c->query || c->out_length > 0) {
            ns_job_rearm(job); /* it is not for the client to do something */
        } else {
            client_close(c);
        }
        return;
    }
    size_t room = INPUT_SIZE - c->in_length;
    if (room == 0) {
        return; /* serve rearms it when there is room */
    }
    ssize_t n = recv(c->fd, c->in + c->in_length, room, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        ns_job_rearm(job);
    } else if (n <= 0) {
        if (c->query) {
            atomic_fetch_add(&gateway.hang_ups, 1);
        }
        client_close(c);
    } else if (c->after == LINGER) {
        c->lingered += (size_t)n;
        if (c->lingered > LINGER_BYTES) {
            client_close(c);
        } else {
            ns_job_rearm(job);
        }
    } else {
        c->in_length += (size_t)n;
        if (!c->query) {
            serve(c);
        } else if (c->in_length < INPUT_SIZE) {
            ns_job_rearm(job); /* the next request must wait */
        }
    }
}

/* Take over a new socket. */
void client_new(int fd)
{
    struct client *c = calloc(1, sizeof *c);

    if (!c || ns_group_new(gateway.pool, 1, c, on_end, &c->group) != NS_SUCCESS) {
        free(c);
        close(fd);
        return;
    }
    atomic_fetch_add(&gateway.clients_made, 1);
    c->fd = fd;
    ns_result_t result = ns_add_fd_timeout_job(
        gateway.pool, fd, &gateway.idle, NS_JOB_READ | NS_JOB_PRESERVE_FD | NS_JOB_UNARMED,
        on_readable, c, &c->reader);
    if (!make_message(c->group, NS_JOB_NONE, on_answer, c, &c->tell) ||
        !start_in_group(result, &c->reader, c->group)) {
        if (result == NS_SUCCESS && c->reader) {
            ns_job_done(c->reader);
        }
        ns_group_cancel(c->group);
        close(fd);
        ns_group_release(c->group);
        return;
    }
    c->next = clients;
    if (c->next) {
        c->next->prev = c;
    }
    clients = c;
    atomic_fetch_add(&gateway.clients, 1);
}

/* The daemon stops: queries that run are answered, those that wait are refused, the other clients
 * are closed. The pool is shut down when the last one has gone. */
void clients_stop(void)
{
    struct client *next;

    gateway.stopping = true;
    if (!clients) {
        ns_thrpool_shutdown(gateway.pool);
    }
    for (struct client *c = clients; c; c = next) {
        next = c->next;
        if (c->query && query_leave(c->query, WAITING) == WAITING) {
            c->query = NULL;
            ns_job_cancel(c->deadline);
            respond_text(c, 503, NULL);
            serve(c);
        } else if (!c->query && c->out_length == 0) {
            client_close(c);
        }
    }
}

/* By main, when no callback runs any more. */
void clients_close(void)
{
    while (clients) {
        client_close(clients);
    }
}
