/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * An event framework of the application's own: a pool over poll(2).
 *
 * A framework keeps a list of descriptors. `watch` adds one, or changes what is to be reported of it;
 * `unwatch` removes it; `wait` waits, and says which are ready, each by the key that `watch` was given.
 * The pool calls these functions from its loop thread, one at a time, so there are no locks.
 *
 * Here the list is the array that poll(2) takes. framework_poll() fills in the table of functions, and
 * the main function at the end runs a pool over it. The tests include this file to run over it too.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include <nunc-stans.h>

struct context {
    struct pollfd *fds; /* what poll(2) takes; entry i belongs to keys[i] and once[i] */
    uint64_t *keys;
    char *once;
    int *place; /* by number: the entry of a descriptor, plus one; 0 if it has none */
    int count, room, numbers;
    int next; /* the entry that is looked at first */
};

static int grow(void *array, size_t count, size_t size)
{
    void *larger = realloc(*(void **)array, count * size);
    if (larger != NULL) {
        *(void **)array = larger;
    }
    return larger != NULL;
}

static void *fw_open(void *arg)
{
    (void)arg;
    return calloc(1, sizeof(struct context));
}

static int fw_watch(void *fw, int fd, uint64_t key, int interest, int flags)
{
    struct context *it = fw;
    if (fd >= it->numbers) {
        if (!grow(&it->place, (size_t)fd + 1, sizeof *it->place)) {
            return ENOMEM;
        }
        while (it->numbers <= fd) {
            it->place[it->numbers++] = 0;
        }
    }
    if (it->place[fd] == 0) {
        if (it->count == it->room) {
            size_t room = (size_t)it->room * 2 + 8;
            if (!grow(&it->fds, room, sizeof *it->fds) || !grow(&it->keys, room, sizeof *it->keys) ||
                !grow(&it->once, room, 1)) {
                return ENOMEM;
            }
            it->room = (int)room;
        }
        it->place[fd] = ++it->count;
    }
    int at = it->place[fd] - 1;
    it->keys[at] = key;
    it->once[at] = (flags & NS_FRAMEWORK_ONCE) != 0;
    it->fds[at].events = (short)((interest & NS_JOB_READ ? POLLIN : 0) | (interest & NS_JOB_WRITE ? POLLOUT : 0));
    /* poll(2) passes over a negative number. It would report a hang-up even where nothing is asked for. */
    it->fds[at].fd = interest ? fd : -1 - fd;
    it->fds[at].revents = 0;
    return 0;
}

static int fw_unwatch(void *fw, int fd)
{
    struct context *it = fw;
    if (fd >= it->numbers || it->place[fd] == 0) {
        return ENOENT;
    }
    int at = it->place[fd] - 1, last = --it->count;
    it->fds[at] = it->fds[last]; /* the last entry takes the place of this one */
    it->keys[at] = it->keys[last];
    it->once[at] = it->once[last];
    int moved = it->fds[at].fd >= 0 ? it->fds[at].fd : -1 - it->fds[at].fd;
    it->place[moved] = at + 1;
    it->place[fd] = 0;
    return 0;
}

static int fw_wait(void *fw, struct ns_framework_event *events, int max, int64_t until)
{
    struct context *it = fw;
    struct timespec left = {0, 0}, now;
    if (until > 0) {
        clock_gettime(CLOCK_MONOTONIC, &now);
        int64_t ns = until - ((int64_t)now.tv_sec * 1000000000 + now.tv_nsec);
        left.tv_sec = ns > 0 ? (time_t)(ns / 1000000000) : 0;
        left.tv_nsec = ns > 0 ? (long)(ns % 1000000000) : 0;
    }
    int ready = ppoll(it->fds, (nfds_t)it->count, until < 0 ? NULL : &left, NULL);
    if (ready < 0) {
        return errno == EINTR ? 0 : -1;
    }
    int found = 0, at = it->next;
    for (int i = 0; i < it->count && found < ready && found < max; i++) {
        at = (it->next + i) % it->count; /* in turn, so that none waits for ever if many are ready */
        struct pollfd *fd = &it->fds[at];
        if (fd->revents != 0) {
            int both = (fd->revents & (POLLERR | POLLHUP | POLLNVAL)) != 0;
            events[found].key = it->keys[at];
            events[found].ready = (uint32_t)((both || fd->revents & POLLIN ? NS_JOB_READ : 0) |
                                             (both || fd->revents & POLLOUT ? NS_JOB_WRITE : 0));
            found++;
            fd->revents = 0;
            if (it->once[at]) {
                fd->fd = -1 - fd->fd;
            }
        }
    }
    it->next = at + 1;
    return found;
}

static void fw_close(void *fw, int in_child)
{
    struct context *it = fw;
    (void)in_child; /* it has no descriptors that it would share with its parent */
    free(it->fds);
    free(it->keys);
    free(it->once);
    free(it->place);
    free(it);
}

static inline struct ns_framework framework_poll(void)
{
    struct ns_framework table = {sizeof table, "poll", NULL, fw_open, fw_watch, fw_unwatch, fw_wait, NULL, fw_close};
    return table;
}

#ifndef FRAMEWORK_ONLY
static void on_timer(struct ns_job_t *job)
{
    printf("a timer, over the framework \"%s\"\n", ns_thrpool_get_framework(ns_job_get_tp(job)));
    ns_job_done(job);
    ns_thrpool_shutdown(ns_job_get_tp(job));
}

int main(void)
{
    struct ns_framework table = framework_poll();
    struct ns_thrpool_config config;
    struct ns_thrpool_options options;
    ns_thrpool_config_init(&config);
    ns_thrpool_options_init(&options, sizeof options);
    options.custom = &table;
    struct ns_thrpool_t *pool = ns_thrpool_new_with(&config, &options);
    struct timeval soon = {0, 10000};
    if (pool == NULL || ns_add_timeout_job(pool, &soon, NS_JOB_TIMER, on_timer, NULL, NULL) != NS_SUCCESS) {
        fprintf(stderr, "no pool\n");
        return EXIT_FAILURE;
    }
    ns_thrpool_wait(pool);
    ns_thrpool_destroy(pool);
    return EXIT_SUCCESS;
}
#endif
