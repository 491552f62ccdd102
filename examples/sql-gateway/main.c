/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sql-gateway - an HTTP server that runs queries on PostgreSQL: a group for each connection
 *
 *     sql-gateway [-p port] [-t workers] [-c connections] [-q waiting] [-l limit-ms]
 *                 [-i idle-seconds] conninfo
 *
 *     curl http://127.0.0.1:8080/sql/SELECT%201      one statement, answered as text
 *     curl http://127.0.0.1:8080/status              counters
 *
 * 200 comes with the result, 400 with PostgreSQL's own message. 503: too many wait already, or it
 * waited too long; 504: it ran too long, and was cancelled; 502: the server was lost while it ran.
 * If a client hangs up, its query is cancelled. Lost connections are made again.
 *
 * It runs what it is sent, for everybody who can reach 127.0.0.1, with the rights of the role in
 * conninfo: choose one that may do little. What a statement leaves in its session (SET, a
 * temporary table), a later client finds there.
 *
 * SIGTERM or SIGINT: queries that run get their answers, then it ends; a second signal does not wait
 * for them. SIGALRM kills it if PQcancel still waits then, for a server that hangs. The exit status
 * is 0 only if everything was freed and every descriptor closed.
 */
#define _GNU_SOURCE
#include "gateway.h"

#include "../server.h"

enum {
    CONNECTIONS_MOST = 1000,
    GRACE = 5, /* seconds */
};

struct gateway gateway;

bool start_in_group(ns_result_t result, struct ns_job_t **job, struct ns_group_t *group)
{
    if (result != NS_SUCCESS) {
        return false;
    }
    if (ns_job_set_group(*job, group) != NS_SUCCESS) {
        ns_job_done(*job);
        *job = NULL;
        return false;
    }
    ns_job_rearm(*job);
    return true;
}

bool make_message(struct ns_group_t *group, ns_job_type_t type, ns_job_func_t func, void *data,
                  struct ns_job_t **job)
{
    return ns_add_group_job(group, type | NS_JOB_UNARMED, func, data, job) == NS_SUCCESS;
}

static void finish(struct ns_job_t **job)
{
    if (*job) {
        ns_job_cancel(*job);
        *job = NULL;
    }
}

/* SIGTERM or SIGINT has come. */
static void on_stop(void)
{
    if (gateway.stopping) {
        ns_thrpool_shutdown(server.pool);
        return;
    }
    /* All that it waits for now has a limit, but for PQcancel. */
    alarm((unsigned)(gateway.limit.tv_sec + gateway.idle.tv_sec) + GRACE);
    finish(&server.listener);
    close(server.listen_fd); /* so that who comes now is refused, and does not wait */
    server.listen_fd = -1;
    clients_stop();
}

static void usage(void)
{
    fprintf(stderr, "usage: sql-gateway [-p port] [-t workers] [-c connections] [-q waiting] "
                    "[-l limit-ms] [-i idle-seconds] conninfo\n"
                    "  -p  port on 127.0.0.1, 0: the kernel chooses (default 8080)\n"
                    "  -t  worker threads, at least 2 (default 4)\n"
                    "  -c  connections to the database (default 4)\n"
                    "  -q  queries that may wait for one (default 100)\n"
                    "  -l  milliseconds that a query may wait and run (default 10000)\n"
                    "  -i  seconds until an idle client is dropped (default 10)\n"
                    "  conninfo  as for psql: \"host=/run/postgresql dbname=test\"\n");
    exit(2);
}

int main(int argc, char **argv)
{
    struct ns_thrpool_config config;
    static struct database *databases[CONNECTIONS_MOST];
    size_t connections = 4, waiting = 100, made = 0;
    uint16_t port = 8080;
    long ms = 10000;
    int fds = count_fds();
    int option;

    ns_thrpool_config_init(&config);
    config.max_threads = 4;
    config.log_fct = log_message;
    gateway.idle.tv_sec = 10;
    while ((option = getopt(argc, argv, "p:t:c:q:l:i:")) != -1) {
        switch (option) {
        case 'p': port = (uint16_t)number(optarg, 0, 65535); break;
        case 't': config.max_threads = (size_t)number(optarg, 2, 1024); break;
        case 'c': connections = (size_t)number(optarg, 1, CONNECTIONS_MOST); break;
        case 'q': waiting = (size_t)number(optarg, 1, 1 << 20); break;
        case 'l': ms = number(optarg, 1, 86400000); break;
        case 'i': gateway.idle.tv_sec = number(optarg, 1, 86400); break;
        default: usage();
        }
    }
    if (optind + 1 != argc) {
        usage();
    }
    gateway.conninfo = argv[optind];
    gateway.limit = (struct timeval){ms / 1000, ms % 1000 * 1000};
    signal(SIGPIPE, SIG_IGN); /* PQcancel may write to a server that has gone */

    open_listener(port);
    server.pool = gateway.pool = ns_thrpool_new(&config);
    if (!server.pool || ns_group_new(server.pool, 1, NULL, NULL, &gateway.cancels) != NS_SUCCESS ||
        !queue_new(waiting)) {
        return 1;
    }
    while (made < connections && (databases[made] = database_new())) {
        made++;
    }
    if (made < connections) {
        ns_thrpool_shutdown(server.pool);
    }
    bool good = server_run(client_new, on_stop, NULL) && made == connections;

    /* No callback runs any more: all is main's. */
    clients_close();
    queue_end();
    for (size_t i = 0; i < made; i++) {
        database_end(databases[i]);
    }
    ns_group_cancel(gateway.cancels);
    server_end(gateway.cancels);
    good = nothing_left(fds) && good;

    unsigned long clients = atomic_load(&gateway.clients_made);
    unsigned long queries = atomic_load(&gateway.queries_made);
    unsigned long kept = clients - atomic_load(&gateway.clients_freed) + queries -
                         atomic_load(&gateway.queries_freed) + made -
                         atomic_load(&gateway.connections_freed);
    printf("clients: %lu, queries: %lu, answered: %lu, not freed: %lu\n", clients, queries,
           atomic_load(&gateway.answered), kept);
    return good && kept == 0 ? 0 : 1;
}
