/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * tls CERTIFICATE KEY [PORT] - an echo server over TLS, on 127.0.0.1, until SIGTERM
 *
 * Each client is one job. OpenSSL says what it waits for, and the job is armed for that: so a client that
 * is slow, in its handshake too, holds up no thread.
 */
#define _GNU_SOURCE
#include <err.h>
#include <netinet/in.h>
#include <nunc-stans.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

struct client {
    SSL *ssl;
    int length; /* bytes of data that are still to be sent */
    char data[4096];
};

static SSL_CTX *context;
static struct ns_group_t *clients;
static struct timeval idle = {60, 0};

static void on_ready(struct ns_job_t *job) /* in a worker: the socket is ready, or the client idle */
{
    struct client *c = ns_job_get_data(job);
    int n = 1;
    ERR_clear_error(); /* the queue of errors is the thread's, and other clients use it too */
    while (n > 0 && !NS_JOB_IS_TIMER(ns_job_get_output_type(job))) {
        if (c->length == 0) {
            n = SSL_read(c->ssl, c->data, sizeof c->data); /* and the handshake before */
            c->length = n > 0 ? n : 0;
        } else {
            n = SSL_write(c->ssl, c->data, c->length);
            c->length = n > 0 ? 0 : c->length; /* SSL_write writes all, unless it is told otherwise */
        }
    }
    int why = n > 0 ? SSL_ERROR_ZERO_RETURN : SSL_get_error(c->ssl, n);
    ns_job_type_t next = why == SSL_ERROR_WANT_READ    ? NS_JOB_READ
                         : why == SSL_ERROR_WANT_WRITE ? NS_JOB_WRITE
                                                       : NS_JOB_NONE;
    if (next != NS_JOB_NONE && ns_job_rearm_for(job, next, NULL) == NS_SUCCESS)
        return;
    if (why != SSL_ERROR_SSL && why != SSL_ERROR_SYSCALL)
        SSL_shutdown(c->ssl);
    ns_job_done(job);
}

static void on_done(struct ns_job_t *job)
{
    struct client *c = ns_job_get_data(job);
    SSL_free(c->ssl);
    free(c);
}

static void on_client(struct ns_job_t *job) /* in the event loop */
{
    static const struct timeval tenth = {0, 100000};
    int fd = accept4(ns_job_get_native_fd(job), NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) {
        ns_job_rearm_after(job, &tenth);
        return;
    }
    struct client *c = calloc(1, sizeof *c);
    ns_job_type_t type = NS_JOB_READ | NS_JOB_THREAD | NS_JOB_UNARMED;
    struct ns_job_t *reader;
    if (c != NULL && (c->ssl = SSL_new(context)) != NULL && SSL_set_fd(c->ssl, fd) == 1 &&
        ns_add_fd_timeout_job(ns_job_get_tp(job), fd, &idle, type, on_ready, c, &reader) == NS_SUCCESS) {
        SSL_set_accept_state(c->ssl);
        ns_job_set_done_cb(reader, on_done);
        ns_job_set_group(reader, clients);
        if (ns_job_rearm(reader) != NS_SUCCESS)
            ns_job_done(reader);
        return;
    }
    if (c != NULL)
        SSL_free(c->ssl);
    free(c);
    close(fd);
}

static void on_sigterm(struct ns_job_t *job)
{
    ns_thrpool_shutdown(ns_job_get_tp(job));
    ns_job_done(job);
}

int main(int argc, char **argv)
{
    if (argc < 3 || argc > 4)
        errx(2, "usage: tls CERTIFICATE KEY [PORT]");
    context = SSL_CTX_new(TLS_server_method());
    if (context == NULL || SSL_CTX_use_certificate_chain_file(context, argv[1]) != 1 ||
        SSL_CTX_use_PrivateKey_file(context, argv[2], SSL_FILETYPE_PEM) != 1)
        errx(1, "certificate or key: %s", ERR_error_string(ERR_get_error(), NULL));
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes with write(2) */
    in_port_t port = (in_port_t)(argc > 3 ? atoi(argv[3]) : 7443);
    struct sockaddr_in at = {AF_INET, htons(port), {htonl(INADDR_LOOPBACK)}, {0}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)) < 0 ||
        bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, SOMAXCONN) < 0)
        err(1, "port %d", port);
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.max_threads = 4;
    ns_thrpool_t *tp = ns_thrpool_new(&config);
    struct ns_job_t *listener;
    if (tp == NULL || ns_group_new(tp, 0, NULL, NULL, &clients) != NS_SUCCESS ||
        ns_add_signal_job(tp, SIGTERM, NS_JOB_NONE, on_sigterm, NULL, NULL) != NS_SUCCESS ||
        ns_add_fd_job(tp, fd, NS_JOB_ACCEPT | NS_JOB_PERSIST, on_client, NULL, &listener) != NS_SUCCESS)
        errx(1, "can't start: the system log says why");
    printf("listening on port %d\n", port);
    fflush(stdout);
    ns_thrpool_wait(tp);
    ns_job_done(listener);
    ns_group_release(clients);
    ns_thrpool_destroy(tp); /* and all clients */
    SSL_CTX_free(context);
    puts("done");
}
