/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * echo - sends back what it is sent, on 127.0.0.1, until SIGTERM
 *
 *     echo [port]
 *
 * As small as it can be: a client that does not read holds a worker, and while descriptors have run
 * out, the loop spins on accept. httpd.c shows what to do about both.
 */
#define _GNU_SOURCE
#include <err.h>
#include <netinet/in.h>
#include <nunc-stans.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void on_data(struct ns_job_t *job) /* in a worker: data has come, or the client has gone */
{
    char data[4096];
    int fd = ns_job_get_native_fd(job);
    ssize_t n = recv(fd, data, sizeof data, MSG_DONTWAIT);
    if (n <= 0 || send(fd, data, (size_t)n, MSG_NOSIGNAL) != n || ns_job_rearm(job) != NS_SUCCESS)
        ns_job_done(job); /* closes fd as well */
}

static void on_client(struct ns_job_t *job) /* in the event loop, where nothing may block */
{
    int fd = accept4(ns_job_get_native_fd(job), NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0 && ns_add_fd_job(ns_job_get_tp(job), fd, NS_JOB_READ | NS_JOB_THREAD, on_data, NULL,
                                 NULL) != NS_SUCCESS)
        close(fd); /* a call that fails takes nothing over */
}

static void on_sigterm(struct ns_job_t *job)
{
    ns_thrpool_shutdown(ns_job_get_tp(job));
    ns_job_done(job);
}

int main(int argc, char **argv)
{
    char *end = "";
    long port = argc > 1 ? strtol(argv[1], &end, 10) : 7007;
    if (argc > 2 || *end != '\0' || port < 1 || port > 65535)
        errx(2, "usage: echo [port (1 to 65535)]");
    struct sockaddr_in at = {AF_INET, htons((in_port_t)port), {htonl(INADDR_LOOPBACK)}, {0}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) < 0 ||
        bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, SOMAXCONN) < 0)
        err(1, "port %ld", port);
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config); /* one worker, and the log goes to syslog */
    ns_thrpool_t *tp = ns_thrpool_new(&config);
    struct ns_job_t *job;
    if (tp == NULL ||
        ns_add_signal_job(tp, SIGTERM, NS_JOB_NONE, on_sigterm, NULL, NULL) != NS_SUCCESS ||
        ns_add_fd_job(tp, fd, NS_JOB_ACCEPT | NS_JOB_PERSIST, on_client, NULL, &job) != NS_SUCCESS)
        errx(1, "can't start: the system log says why");
    ns_thrpool_wait(tp); /* until the signal has shut it down, and every callback has returned */
    ns_job_done(job);    /* closes fd, the listener */
    ns_thrpool_destroy(tp); /* and all connections that wait for data */
}
