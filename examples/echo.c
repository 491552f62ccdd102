/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * echo - a TCP server that sends back what it is sent, on 127.0.0.1, until SIGTERM
 *
 *     echo [port [idle-seconds]]
 *
 * No client holds up another: every socket is non-blocking, and a client that does not read is not
 * read from either. One that does nothing for the idle time is dropped. While the process has no
 * descriptor to spare, the listener rests.
 *
 * Each client has one job, which waits for WRITE while there are bytes to send and for READ
 * otherwise. The thread that runs that job's callback owns the client,
 * so no lock guards it.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <nunc-stans.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct client {
    int fd;
    size_t from, to; /* data[from] to data[to - 1] is still to be sent back */
    char data[4096];
};

static struct timeval idle = {60, 0};
static struct timeval moment = {0, 100000};

static void wait_for(ns_job_type_t direction, struct client *c, ns_thrpool_t *tp);

/* Receive if everything was sent, then send what the socket takes. False: the client has gone. */
static bool echo(struct client *c)
{
    if (c->from == c->to) {
        ssize_t n = recv(c->fd, c->data, sizeof c->data, 0);
        if (n <= 0)
            return n < 0 && errno == EAGAIN;
        c->from = 0, c->to = (size_t)n;
    }
    ssize_t n = send(c->fd, c->data + c->from, c->to - c->from, MSG_NOSIGNAL);
    c->from += n > 0 ? (size_t)n : 0;
    return n >= 0 || errno == EAGAIN;
}

/* In a worker: the socket is ready, or the idle time is up. */
static void on_ready(struct ns_job_t *job)
{
    struct client *c = ns_job_get_data(job);
    if (!NS_JOB_IS_TIMER(ns_job_get_output_type(job)) && echo(c)) {
        ns_job_type_t direction = c->from < c->to ? NS_JOB_WRITE : NS_JOB_READ;
        if (!(ns_job_get_type(job) & direction)) {
            ns_job_set_data(job, NULL); /* a job keeps its direction, so another takes over */
            wait_for(direction, c, ns_job_get_tp(job));
        } else if (ns_job_rearm(job) == NS_SUCCESS) {
            return;
        }
    }
    ns_job_done(job);
}

/* Done callback: runs once for each job, also for one that is armed when the pool is destroyed. */
static void on_done(struct ns_job_t *job)
{
    struct client *c = ns_job_get_data(job);
    if (c != NULL)
        close(c->fd);
    free(c);
}

/* Give the client to a new job. The caller must not touch it afterwards. */
static void wait_for(ns_job_type_t direction, struct client *c, ns_thrpool_t *tp)
{
    struct ns_job_t *job;
    ns_job_type_t type = direction | NS_JOB_THREAD | NS_JOB_PRESERVE_FD | NS_JOB_UNARMED;
    if (ns_add_fd_timeout_job(tp, c->fd, &idle, type, on_ready, c, &job) != NS_SUCCESS) {
        close(c->fd); /* a call that fails takes nothing over */
        free(c);
        return;
    }
    ns_job_set_done_cb(job, on_done);
    if (ns_job_rearm(job) != NS_SUCCESS) /* the pool is shutting down */
        ns_job_done(job);
}

/* In the event loop, where nothing may block. */
static void on_client(struct ns_job_t *job)
{
    int fd = accept4(ns_job_get_native_fd(job), NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    bool failed = fd < 0 && errno != EAGAIN && errno != ECONNABORTED;
    struct client *c = fd < 0 ? NULL : calloc(1, sizeof *c);
    if (c != NULL) {
        c->fd = fd;
        wait_for(NS_JOB_READ, c, ns_job_get_tp(job));
    } else if (fd >= 0) {
        close(fd);
    }
    if (failed)
        /* Out of descriptors or memory: the client still waits, so the listener would fire for ever. */
        ns_job_rearm_after(job, &moment);
    else
        ns_job_rearm(job);
}

static void on_sigterm(struct ns_job_t *job)
{
    ns_thrpool_shutdown(ns_job_get_tp(job));
    ns_job_done(job);
}

#define USAGE "usage: echo [port (1 to 65535) [idle-seconds (1 to 86400)]]"

static long number(const char *text, long most)
{
    char *end;
    long n = strtol(text, &end, 10);
    if (end == text || *end != '\0' || n < 1 || n > most)
        errx(2, USAGE);
    return n;
}

int main(int argc, char **argv)
{
    if (argc > 3)
        errx(2, USAGE);
    long port = argc > 1 ? number(argv[1], 65535) : 7007;
    if (argc > 2)
        idle.tv_sec = number(argv[2], 86400);
    struct ns_job_t *listener;
    struct sockaddr_in at = {AF_INET, htons((in_port_t)port), {htonl(INADDR_LOOPBACK)}, {0}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) < 0 ||
        bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, SOMAXCONN) < 0)
        err(1, "port %ld", port);
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config); /* one worker, and the log goes to syslog */
    ns_thrpool_t *tp = ns_thrpool_new(&config);
    if (tp == NULL ||
        ns_add_signal_job(tp, SIGTERM, NS_JOB_NONE, on_sigterm, NULL, NULL) != NS_SUCCESS ||
        ns_add_fd_job(tp, fd, NS_JOB_ACCEPT, on_client, NULL, &listener) != NS_SUCCESS)
        errx(1, "can't start: the system log says why");
    ns_thrpool_wait(tp); /* until the signal has shut it down, and every callback has returned */
    ns_job_done(listener);  /* closes fd */
    ns_thrpool_destroy(tp); /* and all connections */
}
