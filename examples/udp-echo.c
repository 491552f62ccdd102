/* SPDX-License-Identifier: GPL-3.0-or-later */
/* udp-echo [port] - sends datagrams back to where they come from, on 127.0.0.1, until SIGTERM */
#define _GNU_SOURCE
#include <err.h>
#include <netinet/in.h>
#include <nunc-stans.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

static atomic_ulong answered;

static void on_datagram(struct ns_job_t *job) /* in a worker; PERSIST arms the job again */
{
    char data[65536];
    struct sockaddr_in from;
    socklen_t length = sizeof from;
    int fd = ns_job_get_native_fd(job);
    ssize_t n = recvfrom(fd, data, sizeof data, MSG_DONTWAIT, (struct sockaddr *)&from, &length);
    if (n >= 0 && sendto(fd, data, (size_t)n, MSG_DONTWAIT, (struct sockaddr *)&from, length) == n)
        atomic_fetch_add(&answered, 1);
}

static void on_minute(struct ns_job_t *job) /* in a worker as well, since printing may block */
{
    (void)job;
    dprintf(1, "%lu datagrams answered\n", atomic_load(&answered));
}

static void on_sigterm(struct ns_job_t *job) /* in the event loop, where nothing may block */
{
    ns_thrpool_shutdown(ns_job_get_tp(job));
    ns_job_done(job);
}

int main(int argc, char **argv)
{
    char *end = "";
    long port = argc > 1 ? strtol(argv[1], &end, 10) : 7007;
    if (argc > 2 || *end != '\0' || port < 1 || port > 65535)
        errx(2, "usage: udp-echo [port (1 to 65535)]");
    struct sockaddr_in at = {AF_INET, htons((in_port_t)port), {htonl(INADDR_LOOPBACK)}, {0}};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) < 0)
        err(1, "port %ld", port);
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.max_threads = 2; /* workers; the log goes to syslog */
    ns_thrpool_t *tp = ns_thrpool_new(&config);
    struct timeval minute = {60, 0};
    ns_job_type_t type = NS_JOB_THREAD | NS_JOB_PERSIST;
    struct ns_job_t *timer, *reader;
    if (tp == NULL ||
        ns_add_signal_job(tp, SIGTERM, NS_JOB_NONE, on_sigterm, NULL, NULL) != NS_SUCCESS ||
        ns_add_timeout_job(tp, &minute, type, on_minute, NULL, &timer) != NS_SUCCESS ||
        ns_add_fd_job(tp, fd, type | NS_JOB_READ, on_datagram, NULL, &reader) != NS_SUCCESS)
        errx(1, "can't start: the system log says why");
    ns_thrpool_wait(tp); /* until SIGTERM has shut it down and every callback has returned */
    ns_job_done(timer);
    ns_job_done(reader); /* closes fd */
    ns_thrpool_destroy(tp);
}
