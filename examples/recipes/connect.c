/* SPDX-License-Identifier: GPL-3.0-or-later */
/* connect ADDRESS PORT [MILLISECONDS] - connect, but do not wait for longer than a time */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <nunc-stans.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static int status = 1;

static void on_connected(struct ns_job_t *job) /* the connect has ended, well or not, or the time is up */
{
    int error = ETIMEDOUT;
    socklen_t length = sizeof error;
    if (!NS_JOB_IS_TIMER(ns_job_get_output_type(job)))
        getsockopt(ns_job_get_native_fd(job), SOL_SOCKET, SO_ERROR, &error, &length);
    if (error == 0) {
        puts("connected");
        status = 0;
    } else {
        printf("not connected: %s\n", strerror(error));
    }
    /* A client would arm the job again here: ns_job_rearm_for(job, NS_JOB_WRITE, &other_time). */
    ns_job_done(job); /* closes the socket */
    ns_thrpool_shutdown(ns_job_get_tp(job));
}

int main(int argc, char **argv)
{
    if (argc < 3 || argc > 4)
        errx(2, "usage: connect ADDRESS PORT [MILLISECONDS]");
    struct sockaddr_in to = {AF_INET, htons((in_port_t)atoi(argv[2])), {0}, {0}};
    if (inet_pton(AF_INET, argv[1], &to.sin_addr) != 1)
        errx(2, "%s is no address", argv[1]);
    long ms = argc > 3 ? atol(argv[3]) : 1000;
    struct timeval limit = {ms / 1000, ms % 1000 * 1000};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    /* First connect, then add the job: until then a socket counts as hung up, and fires at once. */
    if (fd < 0 || (connect(fd, (struct sockaddr *)&to, sizeof to) < 0 && errno != EINPROGRESS))
        err(1, "%s", argv[1]);
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    ns_thrpool_t *tp = ns_thrpool_new(&config);
    if (tp == NULL ||
        ns_add_fd_timeout_job(tp, fd, &limit, NS_JOB_CONNECT, on_connected, NULL, NULL) != NS_SUCCESS)
        errx(1, "can't start: the system log says why");
    ns_thrpool_wait(tp);
    ns_thrpool_destroy(tp);
    return status;
}
