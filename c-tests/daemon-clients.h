/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The clients of test-daemon-patterns. They run in processes of their own, which report by their
 * exit status.
 */
#ifndef DAEMON_CLIENTS_H
#define DAEMON_CLIENTS_H

#include "sockets.h"

#define REMAINING 100   /* connections of each client that are open when the daemon stops */
#define BATCH 5000      /* the most connections that a client has open at once */
#define PINGS 3

static inline void demand(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "# client: %s: %s\n", what, strerror(errno));
        _exit(1);
    }
}

static inline int dial(int port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    struct timeval limit = {LIMIT_SECONDS, 0};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    demand(fd >= 0, "socket");
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    demand(connect(fd, (struct sockaddr *)&address, sizeof address) == 0, "connect");
    return fd;
}

static inline void say(int fd, char what)
{
    demand(send(fd, &what, 1, MSG_NOSIGNAL) == 1, "send");
}

/* The server's answer: a byte, or 0 when it has ended the connection. */
static inline char answer(int fd)
{
    char byte = 0;
    ssize_t n = recv(fd, &byte, 1, 0);
    demand(n >= 0 || errno == ECONNRESET, "recv");
    return n == 1 ? byte : 0;
}

enum kind { POLITE, SILENT, VANISHES, ASKS_AND_VANISHES, LEAVING, KINDS = 8 };

static inline enum kind kind_of(int i)
{
    static const enum kind kinds[KINDS] = {POLITE, SILENT, POLITE,  VANISHES,
                                           POLITE, LEAVING, POLITE, ASKS_AND_VANISHES};
    return kinds[i % KINDS];
}

/* One batch of connections. Each step is taken for all of them before the next, so that they are
 * served together. */
static inline void client_batch(const int ports[2], int count)
{
    static int fds[BATCH];
    for (int i = 0; i < count; i++) {
        fds[i] = dial(ports[kind_of(i) != POLITE]);
        if (kind_of(i) == VANISHES) {
            vanish(fds[i]);
        } else if (kind_of(i) == ASKS_AND_VANISHES) {
            say(fds[i], 'p');
            vanish(fds[i]);
        } else if (kind_of(i) == LEAVING) {
            /* May fail: a slow client has been timed out by now. */
            send(fds[i], "q", 1, MSG_NOSIGNAL);
        }
    }
    for (int round = 0; round < PINGS; round++) {
        for (int i = 0; i < count; i++) {
            if (kind_of(i) == POLITE) {
                say(fds[i], 'p');
            }
        }
        for (int i = 0; i < count; i++) {
            if (kind_of(i) == POLITE) {
                demand(answer(fds[i]) == 'p', "no answer");
            }
        }
    }
    for (int i = 0; i < count; i++) {
        if (kind_of(i) == SILENT || kind_of(i) == LEAVING) {
            demand(answer(fds[i]) == 0, "not disconnected");
        }
        if (kind_of(i) != VANISHES && kind_of(i) != ASKS_AND_VANISHES) {
            close(fds[i]);
        }
    }
}

/* Talk on every second connection and stay silent on the others, until the server has ended them
 * all. */
static inline void client_remains(int *fds, int count)
{
    double end = now_seconds() + LIMIT_SECONDS;
    int left = count;
    while (left > 0) {
        demand(now_seconds() < end, "the server does not end");
        for (int i = 0; i < count; i++) {
            char bytes[64];
            if (fds[i] < 0) {
                continue;
            }
            int ended = i % 2 == 0 && send(fds[i], "p", 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 &&
                        errno != EAGAIN;
            ssize_t got = recv(fds[i], bytes, sizeof bytes, MSG_DONTWAIT);
            if (ended || got == 0 || (got < 0 && errno != EAGAIN)) {
                close(fds[i]);
                fds[i] = -1;
                left--;
            }
        }
    }
}

static inline void client(const int ports[2], int count, int ready)
{
    static int fds[REMAINING];
    int remaining = scaled(REMAINING * 10) < REMAINING ? 10 : REMAINING;
    for (int done = 0; done < count; done += BATCH) {
        client_batch(ports, count - done < BATCH ? count - done : BATCH);
    }
    for (int i = 0; i < remaining; i++) {
        fds[i] = dial(ports[0]);
        say(fds[i], 'p');
        demand(answer(fds[i]) == 'p', "no answer");
    }
    demand(write(ready, "r", 1) == 1, "write");
    client_remains(fds, remaining);
    _exit(0);
}

#endif
