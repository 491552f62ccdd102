/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * dns NAME [SERVER[:PORT]] - look up a name with c-ares, without blocking a thread
 *
 * One c-ares channel may be used by one thread at a time: so everything that concerns it runs in one group of
 * width 1.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <netdb.h>
#include <nunc-stans/nunc-stans-cares.h>
#include <stdio.h>

static struct caresNuncStans *dns;
static char **arguments;
static int status = 1;

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
    struct ares_options options = {.timeout = 1000, .tries = 2};
    if (caresNuncStansNew(ns_job_get_group(job), &options, ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES, &dns) !=
            ARES_SUCCESS ||
        (arguments[2] != NULL && ares_set_servers_ports_csv(dns->channel, arguments[2]) != ARES_SUCCESS))
        errx(1, "can't start");
    ares_getaddrinfo(dns->channel, arguments[1], NULL, &hints, on_answer, ns_job_get_tp(job));
    caresNuncStansAsked(dns);
    ns_job_done(job);
}

int main(int argc, char **argv)
{
    if (argc < 2 || argc > 3)
        errx(2, "usage: dns NAME [SERVER[:PORT]]");
    arguments = argv;
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    ns_thrpool_t *tp = ns_thrpool_new(&config);
    struct ns_group_t *group;
    if (tp == NULL || ares_library_init(ARES_LIB_INIT_ALL) != ARES_SUCCESS ||
        ns_group_new(tp, 1, NULL, NULL, &group) != NS_SUCCESS ||
        ns_add_group_job(group, NS_JOB_THREAD, ask, NULL, NULL) != NS_SUCCESS)
        errx(1, "can't start");
    ns_thrpool_wait(tp);
    caresNuncStansFree(dns); /* no callback runs any more */
    ns_group_release(group);
    ns_thrpool_destroy(tp);
    return status;
}
