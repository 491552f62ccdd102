/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A server and its clients in one process, of the shape that the original was tested with: NSPR
 * sockets, an accept job in the loop, threaded echo jobs that rearm themselves, six signal jobs;
 * clients in a pool of their own; stopped by a timer job, then every job is done from outside and
 * the pool destroyed. Thousands of connections come in one burst.
 */
#include "harness.h"

#include <nspr.h>

#define CONNECTIONS 8000
#define CLIENT_THREADS 80
#define SERVER_THREADS 20
/* Both ends of each connection are in this process. */
#define DESCRIPTORS_BESIDE 200

static const char GREETING[] = "Howdy, how are you?";

static struct latch accepted = LATCH_INIT, disposed = LATCH_INIT, ended = LATCH_INIT;
static atomic_int failed;
static struct latch stopped = LATCH_INIT;

static void count_disposed(struct ns_job_t *job)
{
    UNUSED(job);
    latch_add(&disposed, 1);
}

/* Add an NSPR I/O job whose disposal is counted. */
static ns_result_t add_counted(struct ns_thrpool_t *tp, PRFileDesc *fd, ns_job_type_t type,
                               ns_job_func_t func, void *data, struct ns_job_t **out)
{
    struct ns_job_t *job = NULL;
    ns_result_t result = ns_add_io_job(tp, fd, type | NS_JOB_UNARMED, func, data, &job);
    if (result != NS_SUCCESS) {
        return result;
    }
    if (out != NULL) {
        *out = job;
    }
    ns_job_set_done_cb(job, count_disposed);
    return ns_job_rearm(job);
}

static void make_nonblocking(PRFileDesc *fd)
{
    PRSocketOptionData option = {.option = PR_SockOpt_Nonblocking, .value.non_blocking = PR_TRUE};
    if (PR_SetSocketOption(fd, &option) != PR_SUCCESS) {
        atomic_fetch_add(&failed, 1);
    }
}

/* The server */

static void echo(struct ns_job_t *job)
{
    char bytes[64];
    PRFileDesc *fd = ns_job_get_fd(job);
    PRInt32 n = PR_Recv(fd, bytes, sizeof(bytes), 0, PR_INTERVAL_NO_WAIT);
    if (n > 0) {
        if (PR_Send(fd, bytes, n, 0, PR_INTERVAL_NO_WAIT) != n) {
            atomic_fetch_add(&failed, 1);
        }
        ns_job_rearm(job);
        return;
    }
    if (n < 0 && PR_GetError() == PR_WOULD_BLOCK_ERROR) {
        ns_job_rearm(job);
        return;
    }
    if (n < 0) {
        atomic_fetch_add(&failed, 1);
    }
    ns_job_done(job);
    latch_add(&ended, 1);
}

static void accept_connection(struct ns_job_t *job)
{
    PRFileDesc *fd = PR_Accept(ns_job_get_fd(job), NULL, PR_INTERVAL_NO_WAIT);
    if (fd == NULL) {
        if (PR_GetError() != PR_WOULD_BLOCK_ERROR) {
            atomic_fetch_add(&failed, 1);
        }
        return;
    }
    make_nonblocking(fd);
    if (add_counted(ns_job_get_tp(job), fd, NS_JOB_READ | NS_JOB_THREAD, echo, NULL, NULL) !=
        NS_SUCCESS) {
        atomic_fetch_add(&failed, 1);
    }
    latch_add(&accepted, 1);
}

static void ignore_signal(struct ns_job_t *job)
{
    UNUSED(job);
}

static void stop_server(struct ns_job_t *job)
{
    if (latch_count(&ended) < (long)(intptr_t)ns_job_get_data(job)) {
        /* Not over yet: try again later. */
        ns_job_rearm(job);
        return;
    }
    ns_thrpool_shutdown(ns_job_get_tp(job));
    latch_add(&stopped, 1);
}

/* The clients: connect, write, read, each a job, and the next added in the one before */

static void read_echo(struct ns_job_t *job)
{
    char bytes[64];
    PRInt32 n = PR_Recv(ns_job_get_fd(job), bytes, sizeof(bytes), 0, PR_INTERVAL_NO_WAIT);
    if (n != sizeof(GREETING) || memcmp(bytes, GREETING, sizeof(GREETING)) != 0) {
        atomic_fetch_add(&failed, 1);
    }
    ns_job_done(job);
}

static void write_greeting(struct ns_job_t *job)
{
    PRFileDesc *fd = ns_job_get_fd(job);
    if (PR_Send(fd, GREETING, sizeof(GREETING), 0, PR_INTERVAL_NO_WAIT) != sizeof(GREETING) ||
        add_counted(ns_job_get_tp(job), fd, NS_JOB_READ | NS_JOB_THREAD, read_echo, NULL, NULL) !=
            NS_SUCCESS) {
        atomic_fetch_add(&failed, 1);
    }
    ns_job_done(job);
}

static void connected(struct ns_job_t *job)
{
    if (add_counted(ns_job_get_tp(job), ns_job_get_fd(job),
                    NS_JOB_WRITE | NS_JOB_THREAD | NS_JOB_PRESERVE_FD, write_greeting, NULL,
                    NULL) != NS_SUCCESS) {
        atomic_fetch_add(&failed, 1);
    }
    ns_job_done(job);
}

static void connect_client(struct ns_job_t *job)
{
    PRFileDesc *fd = PR_OpenTCPSocket(PR_AF_INET);
    if (fd == NULL) {
        atomic_fetch_add(&failed, 1);
    } else {
        make_nonblocking(fd);
        if (PR_Connect(fd, ns_job_get_data(job), PR_INTERVAL_NO_WAIT) != PR_SUCCESS &&
            PR_GetError() != PR_IN_PROGRESS_ERROR) {
            atomic_fetch_add(&failed, 1);
        }
        if (add_counted(ns_job_get_tp(job), fd,
                        NS_JOB_CONNECT | NS_JOB_THREAD | NS_JOB_PRESERVE_FD, connected, NULL,
                        NULL) != NS_SUCCESS) {
            atomic_fetch_add(&failed, 1);
        }
    }
    ns_job_done(job);
}

/* As many connections as the limit of descriptors allows, at most CONNECTIONS. */
static int connections_possible(void)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    limit.rlim_cur = limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    int wanted = scaled(CONNECTIONS);
    if (limit.rlim_cur >= (rlim_t)wanted * 2 + DESCRIPTORS_BESIDE) {
        return wanted;
    }
    int possible = ((int)limit.rlim_cur - DESCRIPTORS_BESIDE) / 2;
    print_message("# only %d of %d connections: the limit is %lu descriptors\n", possible, wanted,
                  (unsigned long)limit.rlim_cur);
    return possible;
}

TEST(eight_thousand_connections_in_one_burst_are_all_served)
{
    int connections = connections_possible();
    assert_true(connections > 0);
    int fds = count_fds();
    struct ns_thrpool_t *server = pool_of(SERVER_THREADS), *clients = pool_of(CLIENT_THREADS);

    PRNetAddr address;
    PRFileDesc *listener = PR_OpenTCPSocket(PR_AF_INET);
    make_nonblocking(listener);
    PR_InitializeNetAddr(PR_IpAddrLoopback, 0, &address);
    assert_int_equal(PR_Bind(listener, &address), PR_SUCCESS);
    assert_int_equal(PR_Listen(listener, SOMAXCONN), PR_SUCCESS);
    assert_int_equal(PR_GetSockName(listener, &address), PR_SUCCESS);

    static const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGUSR2, SIGTSTP};
    struct ns_job_t *jobs[8];
    int own_jobs = 0;
    for (int i = 0; i < 6; i++) {
        assert_int_equal(ns_add_signal_job(server, signals[i], NS_JOB_PERSIST, ignore_signal, NULL,
                                           &jobs[own_jobs++]), NS_SUCCESS);
    }
    assert_int_equal(add_counted(server, listener, NS_JOB_ACCEPT | NS_JOB_PERSIST,
                                 accept_connection, NULL, &jobs[own_jobs++]), NS_SUCCESS);
    struct timeval soon = {0, 50000};
    assert_int_equal(ns_add_timeout_job(server, &soon, NS_JOB_NONE, stop_server,
                                        (void *)(intptr_t)connections, &jobs[own_jobs++]),
                     NS_SUCCESS);

    double begin = now_seconds();
    for (int i = 0; i < connections; i++) {
        assert_int_equal(ns_add_job(clients, NS_JOB_THREAD, connect_client, &address, NULL),
                         NS_SUCCESS);
    }
    assert_latch(&stopped, 1);
    double took = now_seconds() - begin;
    assert_int_equal(ns_thrpool_wait(server), NS_SUCCESS);
    for (int i = 0; i < own_jobs; i++) {
        assert_int_equal(ns_job_done(jobs[i]), NS_SUCCESS);
    }
    ns_thrpool_destroy(server);
    pool_end(clients);

    print_message("# %d connections in %.2f s\n", connections, took);
    assert_int_equal(atomic_load(&failed), 0);
    assert_int_equal(latch_count(&accepted), connections);
    assert_int_equal(latch_count(&ended), connections);
    /* The listener's job, and of each connection the echo, connect, write and read jobs. */
    assert_int_equal(latch_count(&disposed), 1 + 4L * connections);
    assert_int_equal(count_fds(), fds);
    assert_true(took < 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(eight_thousand_connections_in_one_burst_are_all_served),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
