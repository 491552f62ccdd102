/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * dns NAME [SERVER[:PORT]] - look up a name with c-ares, without blocking a thread
 *
 * c-ares tells which of its sockets it wants to be watched, and is told when they are ready. One channel
 * may be used by one thread at a time: so all jobs of the channel are in one group of width 1.
 */
#define _GNU_SOURCE
#include <ares.h>
#include <arpa/inet.h>
#include <err.h>
#include <netdb.h>
#include <nunc-stans.h>
#include <stdio.h>

enum { SOCKETS = 32 };

static ares_channel channel;
static struct ns_group_t *group;
static struct ns_job_t *jobs[SOCKETS]; /* the job of each socket that c-ares uses */
static int status = 1;

static void on_socket(struct ns_job_t *job) /* PERSIST arms it again, unless c-ares has closed the socket */
{
    ns_job_type_t ready = ns_job_get_output_type(job);
    int fd = ns_job_get_native_fd(job);
    ares_process_fd(channel, NS_JOB_IS_READ(ready) ? fd : ARES_SOCKET_BAD,
                    NS_JOB_IS_WRITE(ready) ? fd : ARES_SOCKET_BAD);
}

static void on_tick(struct ns_job_t *job) /* c-ares looks whether a server is late, and asks again */
{
    (void)job;
    ares_process_fd(channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
}

/* Called by c-ares, in one of the group's callbacks: watch a socket, or forget it before it is closed. */
static void watch(void *data, ares_socket_t fd, int readable, int writable)
{
    ns_thrpool_t *tp = data;
    struct ns_job_t **free_one = NULL, *job;
    for (int i = 0; i < SOCKETS; i++) {
        if (jobs[i] != NULL && ns_job_get_native_fd(jobs[i]) == fd) {
            ns_job_cancel(jobs[i]); /* may be the job whose callback runs */
            jobs[i] = NULL;
        }
        if (jobs[i] == NULL)
            free_one = &jobs[i];
    }
    if (!readable && !writable)
        return;
    ns_job_type_t type = (readable ? NS_JOB_READ : 0) | (writable ? NS_JOB_WRITE : 0) | NS_JOB_PERSIST |
                         NS_JOB_THREAD | NS_JOB_PRESERVE_FD | NS_JOB_UNARMED;
    if (free_one == NULL || ns_add_fd_job(tp, fd, type, on_socket, NULL, &job) != NS_SUCCESS)
        return; /* the query ends by its time-out */
    ns_job_set_group(job, group);
    ns_job_rearm(job);
    *free_one = job;
}

static void on_answer(void *data, int result, int timeouts, struct ares_addrinfo *found)
{
    (void)timeouts;
    if (result != ARES_SUCCESS)
        printf("%s\n", ares_strerror(result));
    for (struct ares_addrinfo_node *n = result == ARES_SUCCESS ? found->nodes : NULL; n; n = n->ai_next) {
        char text[INET6_ADDRSTRLEN];
        const void *address = n->ai_family == AF_INET
                                  ? (const void *)&((struct sockaddr_in *)(void *)n->ai_addr)->sin_addr
                                  : (const void *)&((struct sockaddr_in6 *)(void *)n->ai_addr)->sin6_addr;
        puts(inet_ntop(n->ai_family, address, text, sizeof text));
        status = 0;
    }
    ares_freeaddrinfo(found);
    ns_thrpool_shutdown(data);
}

static void ask(struct ns_job_t *job)
{
    struct ares_addrinfo_hints hints = {.ai_family = AF_UNSPEC};
    ares_getaddrinfo(channel, ns_job_get_data(job), NULL, &hints, on_answer, ns_job_get_tp(job));
    ns_job_done(job);
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 3)
        errx(2, "usage: dns NAME [SERVER[:PORT]]");
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    ns_thrpool_t *tp = ns_thrpool_new(&config);
    struct ares_options options = {
        .timeout = 1000, .tries = 2, .sock_state_cb = watch, .sock_state_cb_data = tp};
    if (tp == NULL || ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS ||
        ares_init_options(&channel, &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB) !=
            ARES_SUCCESS ||
        (argc > 2 && ares_set_servers_ports_csv(channel, argv[2]) != ARES_SUCCESS))
        errx(1, "can't start");

    struct timeval tick = {0, 100000};
    struct ns_job_t *ticker;
    if (ns_group_new(tp, 1, NULL, NULL, &group) != NS_SUCCESS ||
        ns_add_timeout_job(tp, &tick, NS_JOB_PERSIST | NS_JOB_THREAD | NS_JOB_UNARMED, on_tick, NULL,
                           &ticker) != NS_SUCCESS ||
        ns_job_set_group(ticker, group) != NS_SUCCESS || ns_job_rearm(ticker) != NS_SUCCESS ||
        ns_add_group_job(group, NS_JOB_THREAD, ask, argv[1], NULL) != NS_SUCCESS)
        errx(1, "can't start");
    ns_thrpool_wait(tp);
    ares_destroy(channel); /* closes its sockets, and so cancels their jobs; no callback runs any more */
    ns_group_release(group);
    ns_thrpool_destroy(tp);
    return status;
}
