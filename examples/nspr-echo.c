/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * nspr-echo - NSPR sockets as jobs: an echo server, and one client of it in the same process
 *
 *     nspr-echo [text]
 *
 * The server uses nothing but the interface of the original library. It is built with NSPR; the
 * library itself finds NSPR in the process.
 */
#define _POSIX_C_SOURCE 200809L
#include <nspr.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <nunc-stans.h>

static sem_t closed;

static void fail(const char *what)
{
    fprintf(stderr, "nspr-echo: %s: NSPR error %d\n", what, (int)PR_GetError());
    exit(1);
}

static void set_nonblocking(PRFileDesc *fd)
{
    PRSocketOptionData option = {.option = PR_SockOpt_Nonblocking, .value.non_blocking = PR_TRUE};

    if (PR_SetSocketOption(fd, &option) != PR_SUCCESS) {
        fail("non-blocking");
    }
}

/* One connection, in a worker. */
static void on_data(struct ns_job_t *job)
{
    PRFileDesc *fd = ns_job_get_fd(job);
    char text[512];
    PRInt32 n = PR_Recv(fd, text, sizeof text, 0, PR_INTERVAL_NO_WAIT);

    /* So little always fits into the socket. A real server waits with NS_JOB_WRITE: see echo.c. */
    if (n > 0 && PR_Send(fd, text, n, 0, PR_INTERVAL_NO_WAIT) == n &&
        ns_job_rearm(job) == NS_SUCCESS) {
        return;
    }
    ns_job_done(job); /* the library calls PR_Close */
    sem_post(&closed);
}

/* In the event loop: a job with ACCEPT can't run in a worker. */
static void on_connection(struct ns_job_t *job)
{
    PRFileDesc *fd = PR_Accept(ns_job_get_fd(job), NULL, PR_INTERVAL_NO_WAIT);

    if (!fd) {
        return; /* the client has gone already */
    }
    set_nonblocking(fd);
    if (ns_add_io_job(ns_job_get_tp(job), fd, NS_JOB_READ | NS_JOB_THREAD, on_data, NULL, NULL) !=
        NS_SUCCESS) {
        PR_Close(fd); /* after an add that fails, the descriptor is still ours */
    }
}

int main(int argc, char **argv)
{
    const char *text = argc > 1 ? argv[1] : "hello";
    char answer[512];
    PRInt32 length = (PRInt32)strlen(text), got = 0;

    if (argc > 2 || length < 1 || length > (PRInt32)sizeof answer) {
        fprintf(stderr, "usage: nspr-echo [text (1 to %zu bytes)]\n", sizeof answer);
        return 2;
    }
    PRNetAddr address = {0};
    PRFileDesc *listener = PR_NewTCPSocket();
    PR_InitializeNetAddr(PR_IpAddrLoopback, 0, &address); /* port 0: one that is free */
    if (!listener || PR_Bind(listener, &address) != PR_SUCCESS ||
        PR_Listen(listener, 16) != PR_SUCCESS || PR_GetSockName(listener, &address) != PR_SUCCESS) {
        fail("listener");
    }
    set_nonblocking(listener);
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    struct ns_thrpool_t *pool = ns_thrpool_new(&config);
    struct ns_job_t *accepting;
    if (!pool || sem_init(&closed, 0, 0) < 0 ||
        ns_add_io_job(pool, listener, NS_JOB_ACCEPT | NS_JOB_PERSIST, on_connection, NULL,
                      &accepting) != NS_SUCCESS) {
        fprintf(stderr, "nspr-echo: no pool or no listener: the system log says why\n");
        return 1;
    }

    PRFileDesc *client = PR_NewTCPSocket();
    if (!client || PR_Connect(client, &address, PR_SecondsToInterval(5)) != PR_SUCCESS ||
        PR_Send(client, text, length, 0, PR_SecondsToInterval(5)) != length) {
        fail("client");
    }
    while (got < length) {
        PRInt32 n = PR_Recv(client, answer + got, length - got, 0, PR_SecondsToInterval(5));
        if (n <= 0) {
            fail("answer");
        }
        got += n;
    }
    printf("sent \"%s\", got \"%.*s\"\n", text, (int)got, answer);
    PR_Close(client);
    sem_wait(&closed); /* the server has seen that */

    ns_thrpool_shutdown(pool);
    ns_result_t result = ns_thrpool_wait(pool);
    ns_job_done(accepting); /* still armed; the library closes its listener */
    ns_thrpool_destroy(pool);
    PR_Cleanup();
    return result == NS_SUCCESS && memcmp(answer, text, (size_t)length) == 0 ? 0 : 1;
}
