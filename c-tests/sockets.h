/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Sockets of the tests: bytes on their way, and connections by TCP. */
#ifndef SOCKETS_H
#define SOCKETS_H

#include "harness.h"

#include <arpa/inet.h>
#include <netinet/in.h>

static inline void send_byte(int fd)
{
    assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), 1);
}

/* Write until the socket takes no more. */
static inline void fill(int fd)
{
    char bytes[4096] = {0};
    while (write(fd, bytes, sizeof(bytes)) > 0) {
    }
    while (write(fd, bytes, 1) > 0) {
    }
    assert_int_equal(errno, EAGAIN);
}

/* Read until there is nothing more. */
static inline void drain(int fd)
{
    char bytes[4096];
    while (read(fd, bytes, sizeof(bytes)) > 0) {
    }
}

/* As a callback: drain the job's descriptor. */
static inline void drain_own(struct ns_job_t *job)
{
    drain(ns_job_get_native_fd(job));
}

/* As a callback: read one byte, and finish if there is none. */
static inline void read_one_byte(struct ns_job_t *job)
{
    char byte;
    if (read(ns_job_get_native_fd(job), &byte, 1) != 1) {
        ns_job_done(job);
    }
}

/* A socket that listens on 127.0.0.1 and does not block; its address. */
static inline int listen_on_loopback(struct sockaddr_in *address)
{
    socklen_t length = sizeof(*address);
    *address = (struct sockaddr_in){.sin_family = AF_INET,
                                    .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)address, sizeof(*address)), 0);
    assert_int_equal(listen(fd, SOMAXCONN), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)address, &length), 0);
    return fd;
}

/* The server's end of a connection that a client has made; it does not block. */
static inline int accept_soon(int listener)
{
    struct pollfd poll_for = {listener, POLLIN, 0};
    assert_int_equal(poll(&poll_for, 1, LIMIT_SECONDS * 1000), 1);
    int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    assert_true(fd >= 0);
    return fd;
}

/* Two sockets that are connected by TCP and do not block. */
static inline void tcp_pair(int ends[2])
{
    struct sockaddr_in address;
    int listener = listen_on_loopback(&address);
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(ends[0], (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(fcntl(ends[0], F_SETFL, O_NONBLOCK), 0);
    ends[1] = accept_soon(listener);
    close(listener);
}

/* Close with a reset, whatever is on its way: the peer gets an error, not an end. */
static inline void vanish(int fd)
{
    struct linger none = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none));
    close(fd);
}

/* The output type of a job of this type on this descriptor, which is ready. */
static inline unsigned long output_of(struct ns_thrpool_t *tp, int fd, ns_job_type_t type)
{
    struct probe probe = PROBE(finish_job, fd);
    probe_fd(tp, type | NS_JOB_PRESERVE_FD, 0, &probe);
    assert_latch(&probe.disposals, 1);
    assert_int_equal(latch_count(&probe.runs), 1);
    return atomic_load(&probe.output);
}

#endif
