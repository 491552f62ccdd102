/* SPDX-License-Identifier: GPL-3.0-or-later */
/* An echo server on 127.0.0.1, port 7007 or the one that is given. SIGTERM stops it. */
#define _GNU_SOURCE
#include <netinet/in.h>
#include <nunc-stans.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void on_data(struct ns_job_t *job) /* in a worker: data, or the client is gone */
{
    char buffer[4096];
    int fd = ns_job_get_native_fd(job);
    ssize_t n = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
    if (n <= 0 || send(fd, buffer, (size_t)n, MSG_NOSIGNAL) != n || ns_job_rearm(job) != NS_SUCCESS)
        ns_job_done(job); /* closes fd, too */
}

static void on_connection(struct ns_job_t *job) /* in the event loop: somebody connects */
{
    int fd = accept4(ns_job_get_native_fd(job), NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0 && ns_add_fd_job(ns_job_get_tp(job), fd, NS_JOB_READ | NS_JOB_THREAD, on_data,
                                 NULL, NULL) != NS_SUCCESS)
        close(fd);
}

static void on_signal(struct ns_job_t *job)
{
    ns_thrpool_shutdown(ns_job_get_tp(job));
    ns_job_done(job);
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_port = htons((uint16_t)(argc > 1 ? atoi(argv[1]) : 7007));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct ns_thrpool_config config;
    struct ns_job_t *accepting;
    ns_thrpool_config_init(&config);
    config.max_threads = 2;
    ns_thrpool_t *tp = ns_thrpool_new(&config);
    if (bind(listener, (struct sockaddr *)&address, sizeof(address)) || listen(listener, 4096) ||
        ns_add_signal_job(tp, SIGTERM, NS_JOB_NONE, on_signal, NULL, NULL) != NS_SUCCESS ||
        ns_add_fd_job(tp, listener, NS_JOB_ACCEPT | NS_JOB_PERSIST, on_connection, NULL,
                      &accepting) != NS_SUCCESS) {
        perror("echo: can't start (the log may say why)");
        return EXIT_FAILURE;
    }
    ns_thrpool_wait(tp); /* until the signal shuts the pool down and every callback is over */
    ns_job_done(accepting);
    ns_thrpool_destroy(tp); /* with every job that is still armed, and its descriptor */
    return EXIT_SUCCESS;
}
