/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * An event framework of an application's own, over epoll: one that has a wait descriptor. It counts what it
 * is asked, checks that no two calls come at once, and does what it is told to do wrong.
 */
#ifndef FRAMEWORK_EPOLL_H
#define FRAMEWORK_EPOLL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <nunc-stans.h>

static struct {
    atomic_int opens, closes, waits, overlaps;
    atomic_long sleeps;                        /* waits until a time that is neither 0 nor -1 */
    atomic_int watch_error, watch_fd;          /* this descriptor is refused */
    atomic_int wait_error, refuse_open, hides; /* hides: no wait descriptor */
} by_epoll;

struct epoll_context {
    int epoll;
    atomic_flag busy;
};

static inline void enter(struct epoll_context *it)
{
    if (atomic_flag_test_and_set(&it->busy)) {
        atomic_fetch_add(&by_epoll.overlaps, 1);
    }
}

static inline int leave(struct epoll_context *it, int result)
{
    atomic_flag_clear(&it->busy);
    return result;
}

static inline void *fe_open(void *arg)
{
    (void)arg;
    struct epoll_context *it = malloc(sizeof *it);
    if (it == NULL || atomic_load(&by_epoll.refuse_open)) {
        free(it);
        return NULL;
    }
    atomic_flag_clear(&it->busy);
    it->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (it->epoll < 0) {
        free(it);
        return NULL;
    }
    atomic_fetch_add(&by_epoll.opens, 1);
    return it;
}

static inline int fe_watch(void *fw, int fd, uint64_t key, int interest, int flags)
{
    struct epoll_context *it = fw;
    enter(it);
    if (atomic_load(&by_epoll.watch_error) != 0 && fd == atomic_load(&by_epoll.watch_fd)) {
        return leave(it, atomic_load(&by_epoll.watch_error));
    }
    struct epoll_event event = {.data.u64 = key};
    /* Without an interest, epoll would still report a hang-up: once, then. */
    event.events = (interest & NS_JOB_READ ? EPOLLIN : 0u) | (interest & NS_JOB_WRITE ? EPOLLOUT : 0u);
    if (flags & NS_FRAMEWORK_ONCE || event.events == 0) {
        event.events |= EPOLLONESHOT;
    }
    int known = flags & NS_FRAMEWORK_KNOWN;
    int done = epoll_ctl(it->epoll, known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event);
    if (done != 0 && !known && errno == EEXIST) {
        done = epoll_ctl(it->epoll, EPOLL_CTL_MOD, fd, &event);
    }
    return leave(it, done == 0 ? 0 : errno);
}

static inline int fe_unwatch(void *fw, int fd)
{
    struct epoll_context *it = fw;
    enter(it);
    return leave(it, epoll_ctl(it->epoll, EPOLL_CTL_DEL, fd, NULL) == 0 ? 0 : errno);
}

static inline int fe_wait(void *fw, struct ns_framework_event *events, int max, int64_t until)
{
    struct epoll_context *it = fw;
    struct epoll_event found[64];
    enter(it);
    atomic_fetch_add(&by_epoll.waits, 1);
    if (until > 0) {
        atomic_fetch_add(&by_epoll.sleeps, 1);
    }
    if (atomic_load(&by_epoll.wait_error) != 0) {
        errno = atomic_load(&by_epoll.wait_error);
        return leave(it, -1);
    }
    int count = epoll_wait(it->epoll, found, max < 64 ? max : 64, until < 0 ? -1 : 0);
    for (int i = 0; i < count; i++) {
        int both = (found[i].events & (EPOLLERR | EPOLLHUP)) != 0;
        events[i].key = found[i].data.u64;
        events[i].ready = (both || found[i].events & EPOLLIN ? (uint32_t)NS_JOB_READ : 0) |
                          (both || found[i].events & EPOLLOUT ? (uint32_t)NS_JOB_WRITE : 0);
    }
    return leave(it, count < 0 && errno == EINTR ? 0 : count);
}

static inline int fe_wait_fd(void *fw)
{
    struct epoll_context *it = fw;
    return atomic_load(&by_epoll.hides) ? -1 : it->epoll;
}

static inline void fe_close(void *fw, int in_child)
{
    struct epoll_context *it = fw;
    (void)in_child; /* to close a number has no effect on what the parent's instance watches */
    close(it->epoll);
    free(it);
    atomic_fetch_add(&by_epoll.closes, 1);
}

static inline struct ns_framework framework_epoll(void)
{
    struct ns_framework table = {sizeof table, "epoll",  NULL,       fe_open,  fe_watch,
                                 fe_unwatch,   fe_wait, fe_wait_fd, fe_close};
    return table;
}

#endif
