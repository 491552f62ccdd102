/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A server that keeps its own threads. Its loop finds what is readable and hands the connection to the
 * server's queue; one of the server's threads reads the request, has the loop watch the connection
 * again, works, and answers. PARAM is THREADS:CONNECTIONS.
 *
 * The client is a process that keeps every connection busy. It sleeps when there is nothing to read, so
 * that it, the loop and the threads share the processors as they would.
 */
#ifndef OWN_THREADS_H
#define OWN_THREADS_H

#include "bench.h"
#include <sys/epoll.h>

enum {
    REQUEST_BYTES = 64,
    WORK_NS = 25000,
    TRIPS = 1 << 18,
};

struct served {
    pthread_mutex_t lock;
    int fd;
    void *watch; /* the peer's own */
    struct served *next;
};

static struct {
    pthread_mutex_t lock;
    pthread_cond_t more;
    struct served *first, *last;
    bool stop;
    long done;     /* requests that were answered */
    long switches; /* how often the server's threads gave up the processor of themselves */
    void (*watch)(struct served *);
} server = {.lock = PTHREAD_MUTEX_INITIALIZER, .more = PTHREAD_COND_INITIALIZER};

/* What the client saw, in memory that both processes have. */
struct seen {
    size_t count;
    uint64_t begin; /* trips that began later count; 0: none yet */
    bool stop;
    uint64_t took[TRIPS];
};

/* The loop calls this for a readable connection, which it watches no more. `finish` may be NULL. */
static inline void own_threads_readable(struct served *served, void (*finish)(struct served *))
{
    pthread_mutex_lock(&served->lock);
    pthread_mutex_lock(&server.lock);
    served->next = NULL;
    *(server.first ? &server.last->next : &server.first) = served;
    server.last = served;
    pthread_cond_signal(&server.more);
    pthread_mutex_unlock(&server.lock);
    if (finish)
        finish(served);
    pthread_mutex_unlock(&served->lock);
}

static inline void *own_thread(void *unused)
{
    char bytes[REQUEST_BYTES];
    (void)unused;
    for (;;) {
        pthread_mutex_lock(&server.lock);
        while (!server.first && !server.stop)
            pthread_cond_wait(&server.more, &server.lock);
        struct served *served = server.first;
        if (served)
            server.first = served->next;
        pthread_mutex_unlock(&server.lock);
        if (!served)
            break;
        if (recv(served->fd, bytes, sizeof(bytes), 0) <= 0)
            continue;
        pthread_mutex_lock(&served->lock);
        server.watch(served);
        pthread_mutex_unlock(&served->lock);
        for (uint64_t end = nanoseconds() + WORK_NS; nanoseconds() < end;)
            ;
        if (send(served->fd, bytes, sizeof(bytes), MSG_NOSIGNAL) == sizeof(bytes))
            __atomic_fetch_add(&server.done, 1, __ATOMIC_RELAXED);
    }
    struct rusage used;
    getrusage(RUSAGE_THREAD, &used);
    __atomic_fetch_add(&server.switches, used.ru_nvcsw, __ATOMIC_RELAXED);
    return NULL;
}

static inline void own_threads_client(size_t count, struct seen *seen)
{
    int poller = epoll_create1(0);
    char bytes[REQUEST_BYTES] = "request";
    int *fds = (int *)calloc(count, sizeof(int));
    uint64_t *sent = (uint64_t *)calloc(count, sizeof(*sent));
    for (size_t i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data = {.u64 = i}};
        fds[i] = connect_there();
        epoll_ctl(poller, EPOLL_CTL_ADD, fds[i], &event);
        sent[i] = nanoseconds();
        check(send(fds[i], bytes, sizeof(bytes), MSG_NOSIGNAL) == sizeof(bytes), "client: send");
    }
    while (!__atomic_load_n(&seen->stop, __ATOMIC_RELAXED)) {
        struct epoll_event events[128];
        int ready = epoll_wait(poller, events, 128, 100);
        for (int i = 0; i < ready; i++) {
            size_t which = events[i].data.u64;
            if (recv(fds[which], bytes, sizeof(bytes), 0) <= 0)
                _exit(EXIT_SUCCESS);
            uint64_t now = nanoseconds(), begin = __atomic_load_n(&seen->begin, __ATOMIC_RELAXED);
            if (begin && sent[which] > begin && seen->count < TRIPS)
                seen->took[seen->count++] = now - sent[which];
            sent[which] = now;
            if (send(fds[which], bytes, sizeof(bytes), MSG_NOSIGNAL) != sizeof(bytes))
                _exit(EXIT_SUCCESS);
        }
    }
    _exit(EXIT_SUCCESS);
}

/* `start` starts the peer's loop; `watch` has it watch a connection for one readiness. */
static inline void own_threads(const struct work *work, void (*start)(size_t threads),
                               void (*watch)(struct served *))
{
    size_t threads = strtoul(work->param, NULL, 10);
    size_t count = strtoul(strchr(work->param, ':') + 1, NULL, 10);
    struct seen *seen = (struct seen *)mmap(NULL, sizeof(*seen), PROT_READ | PROT_WRITE,
                                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int listener = listen_here(4096);
    fcntl(listener, F_SETFL, 0); /* its accepts wait */
    pid_t child = fork();
    check(child >= 0, "fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        own_threads_client(count, seen);
    }
    pthread_t *ids = (pthread_t *)calloc(threads, sizeof(*ids));
    struct served *all = (struct served *)calloc(count, sizeof(*all));
    server.watch = watch;
    start(threads);
    for (size_t i = 0; i < threads; i++)
        ids[i] = thread(own_thread, NULL);
    for (size_t i = 0; i < count; i++) {
        int on = 1;
        pthread_mutex_init(&all[i].lock, NULL);
        all[i].fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
        check(all[i].fd >= 0, "accept");
        setsockopt(all[i].fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        pthread_mutex_lock(&all[i].lock);
        watch(&all[i]);
        pthread_mutex_unlock(&all[i].lock);
    }
    pause_for_us(300000);
    long before = __atomic_load_n(&server.done, __ATOMIC_RELAXED);
    uint64_t begin = nanoseconds();
    __atomic_store_n(&seen->begin, begin, __ATOMIC_RELAXED);
    pause_for_us((long)(1500000 * effort));
    double took = (double)(nanoseconds() - begin) / 1e9;
    long done = __atomic_load_n(&server.done, __ATOMIC_RELAXED) - before;
    __atomic_store_n(&seen->stop, true, __ATOMIC_RELAXED);
    waitpid(child, NULL, 0);
    pthread_mutex_lock(&server.lock);
    server.stop = true;
    pthread_cond_broadcast(&server.more);
    pthread_mutex_unlock(&server.lock);
    for (size_t i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    metric(work, "rate", (double)done / took);
    if (seen->count)
        percentiles(work, seen->took, seen->count);
    metric(work, "own_switches", (double)server.switches / (double)server.done);
    fflush(stdout);
    _exit(EXIT_SUCCESS);
}

#endif
