/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * one-port POOLS [PORT] - pools that listen on one port, on 127.0.0.1, until SIGTERM
 *
 * Each pool has a listening socket of its own, and the kernel spreads the clients over them. A client is
 * told which pool took it. Each pool's event loop is another thread: so no loop is the limit.
 */
#define _GNU_SOURCE
#include <err.h>
#include <netinet/in.h>
#include <nunc-stans.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct pool {
    int number;
    ns_thrpool_t *tp;
    struct ns_job_t *listener;
};

static void on_client(struct ns_job_t *job) /* in the pool's event loop */
{
    struct pool *p = ns_job_get_data(job);
    int fd = accept4(ns_job_get_native_fd(job), NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0)
        return;
    dprintf(fd, "pool %d\n", p->number);
    close(fd);
}

static void on_sigterm(struct ns_job_t *job) /* each pool has its own, and all of them fire */
{
    ns_thrpool_shutdown(ns_job_get_tp(job));
    ns_job_done(job);
}

static void start(struct pool *p, in_port_t port)
{
    struct sockaddr_in at = {AF_INET, htons(port), {htonl(INADDR_LOOPBACK)}, {0}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &(int){1}, sizeof(int)) < 0 ||
        bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, SOMAXCONN) < 0)
        err(1, "port %d", port);
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    char name[16];
    snprintf(name, sizeof name, "pool%d", p->number);
    struct ns_thrpool_options options;
    ns_thrpool_options_init(&options, sizeof options);
    options.name = name; /* threads: pool0-loop and so on */
    p->tp = ns_thrpool_new_with(&config, &options);
    if (p->tp == NULL ||
        ns_add_signal_job(p->tp, SIGTERM, NS_JOB_NONE, on_sigterm, NULL, NULL) != NS_SUCCESS ||
        ns_add_fd_job(p->tp, fd, NS_JOB_ACCEPT | NS_JOB_PERSIST, on_client, p, &p->listener) != NS_SUCCESS)
        errx(1, "can't start: the system log says why");
}

int main(int argc, char **argv)
{
    int n = argc > 1 ? atoi(argv[1]) : 0;
    in_port_t port = (in_port_t)(argc > 2 ? atoi(argv[2]) : 7009);
    if (n < 1 || n > 64)
        errx(2, "usage: one-port POOLS [PORT]");
    struct pool pools[n];
    for (int i = 0; i < n; i++) {
        pools[i].number = i;
        start(&pools[i], port);
    }
    printf("%d pools listen on port %d\n", n, port);
    fflush(stdout);
    for (int i = 0; i < n; i++) {
        ns_thrpool_wait(pools[i].tp);
        ns_job_done(pools[i].listener);
        ns_thrpool_destroy(pools[i].tp);
    }
    puts("done");
}
