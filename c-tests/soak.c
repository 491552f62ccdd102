/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * soak PORT PID SECONDS - load the example daemon, and watch it
 *
 * Clients of a daemon at 127.0.0.1:PORT, process PID, that fetch, stall, half-close and vanish; and
 * pools that are made and destroyed beside it, in this process. Each second the memory, the
 * descriptors and the threads of both are looked at; at the end they are tabulated and judged:
 * flat, or the result is 1. tools/soak.sh runs it.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <nunc-stans.h>

enum { CLIENTS = 8, STALLED = 40 };

struct sample {
    long rss; /* KiB */
    long fds;
    long threads;
};

struct row {
    struct sample daemon, self;
    long requests;
    long pools;
};

static struct sockaddr_in daemon_at;
static atomic_int stop;
static atomic_long requests, vanished, stalled, half_closed, pools;

static uint64_t next_random(uint64_t *sequence)
{
    uint64_t z = *sequence += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static int dial(void)
{
    struct timeval limit = {5, 0};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) {
        return -1;
    }
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (connect(fd, (struct sockaddr *)&daemon_at, sizeof daemon_at) != 0) {
        close(fd);
        return -1;
    }
    return fd;
}

static int ask(int fd, const char *path, int keep)
{
    char text[128];
    int length = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: soak\r\n%s\r\n", path,
                          keep ? "" : "Connection: close\r\n");
    return send(fd, text, (size_t)length, MSG_NOSIGNAL) == length;
}

static void read_to_end(int fd)
{
    char bytes[65536];
    while (read(fd, bytes, sizeof bytes) > 0) {
    }
}

/* Closed with a reset, whatever is on the way. */
static void vanish(int fd)
{
    struct linger now = {1, 0};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    close(fd);
}

static void *be_clients(void *arg)
{
    uint64_t sequence = (uintptr_t)arg * 977 + 1;
    int waiting[STALLED];
    int count = 0;
    while (!atomic_load(&stop)) {
        uint64_t dice = next_random(&sequence);
        int fd = dial();
        if (fd < 0) {
            continue;
        }
        switch (dice % 8) {
        case 0: /* connect, and no more */ break;
        case 1: /* stall in the middle of a request */
            atomic_fetch_add(&stalled, 1);
            if (count == STALLED) {
                vanish(waiting[--count]);
            }
            if (send(fd, "GET / HT", 8, MSG_NOSIGNAL) == 8) {
                waiting[count++] = fd;
                fd = -1;
            }
            break;
        case 2: /* say that there is no more, and read on */
            atomic_fetch_add(&half_closed, 1);
            if (ask(fd, "/", 1)) {
                shutdown(fd, SHUT_WR);
                read_to_end(fd);
            }
            break;
        case 3: /* vanish from the answer */
            atomic_fetch_add(&vanished, 1);
            ask(fd, "/big.bin", 1);
            vanish(fd);
            fd = -1;
            break;
        case 4: ask(fd, "/nothing", 0); read_to_end(fd); break;
        default:
            if (ask(fd, dice & 64 ? "/big.bin" : "/", 0)) {
                read_to_end(fd);
                atomic_fetch_add(&requests, 1);
            }
        }
        if (fd >= 0) {
            close(fd);
        }
    }
    while (count > 0) {
        close(waiting[--count]);
    }
    return NULL;
}

static void no_log(int priority, const char *format, va_list args)
{
    (void)priority;
    (void)format;
    (void)args;
}

static void finish(struct ns_job_t *job)
{
    ns_job_done(job);
}

/* Pools that live for a moment, and leave jobs of every kind armed. */
static void *live_and_die(void *arg)
{
    (void)arg;
    for (unsigned i = 0; !atomic_load(&stop); i++) {
        struct ns_thrpool_config config;
        struct timeval soon = {0, 200}, far = {3600, 0};
        int ends[2];
        ns_thrpool_config_init(&config);
        config.max_threads = 1 + i % 8;
        config.log_fct = no_log;
        struct ns_thrpool_t *tp = ns_thrpool_new(&config);
        if (tp == NULL || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) {
            fprintf(stderr, "soak: no pool\n");
            exit(1);
        }
        for (int n = 0; n < 20; n++) {
            ns_add_job(tp, n & 1 ? NS_JOB_THREAD : 0, finish, NULL, NULL);
            ns_add_timeout_job(tp, n & 1 ? &soon : &far, NS_JOB_THREAD, finish, NULL, NULL);
        }
        ns_add_signal_job(tp, SIGUSR1, NS_JOB_NONE, finish, NULL, NULL);
        ns_add_fd_job(tp, ends[0], NS_JOB_READ, finish, NULL, NULL);
        if (i & 1) {
            ns_thrpool_shutdown(tp);
            ns_thrpool_wait(tp);
        }
        ns_thrpool_destroy(tp);
        close(ends[1]);
        atomic_fetch_add(&pools, 1);
    }
    return NULL;
}

static long count_entries(long pid, const char *what)
{
    char path[64];
    long count = 0;
    snprintf(path, sizeof path, "/proc/%ld/%s", pid, what);
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return -1;
    }
    while (readdir(dir) != NULL) {
        count++;
    }
    closedir(dir);
    return count - 2;
}

static struct sample look(long pid)
{
    char path[64];
    char line[256];
    struct sample sample = {-1, count_entries(pid, "fd"), count_entries(pid, "task")};
    snprintf(path, sizeof path, "/proc/%ld/status", pid);
    FILE *file = fopen(path, "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        sscanf(line, "VmRSS: %ld", &sample.rss);
    }
    if (file != NULL) {
        fclose(file);
    }
    return sample;
}

static void pause_until(struct timespec *at)
{
    at->tv_sec++;
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, at, NULL) == EINTR) {
    }
}

/* The maximum over rows [from, to). */
static struct sample most(const struct row *rows, long from, long to, int self)
{
    struct sample max = {0, 0, 0};
    for (long i = from; i < to; i++) {
        const struct sample *at = self ? &rows[i].self : &rows[i].daemon;
        max.rss = at->rss > max.rss ? at->rss : max.rss;
        max.fds = at->fds > max.fds ? at->fds : max.fds;
        max.threads = at->threads > max.threads ? at->threads : max.threads;
    }
    return max;
}

static int failures;

static void judge(const char *what, long before, long after, long allowed)
{
    int flat = after <= allowed;
    failures += !flat;
    printf("%-42s %8ld then %8ld  %s\n", what, before, after, flat ? "flat" : "GROWS");
}

int main(int argc, char **argv)
{
    if (argc != 4 || atol(argv[2]) <= 0 || atol(argv[3]) < 4) {
        fprintf(stderr, "usage: soak PORT PID SECONDS (4 at least)\n");
        return 2;
    }
    long pid = atol(argv[2]);
    long seconds = atol(argv[3]);
    pthread_t threads[CLIENTS + 1];
    struct row *rows = calloc((size_t)seconds, sizeof *rows);
    struct timespec at;
    daemon_at.sin_family = AF_INET;
    daemon_at.sin_port = htons((uint16_t)atoi(argv[1]));
    daemon_at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (rows == NULL) {
        return 1;
    }
    struct sample before = look(pid);
    struct sample self_before = look(getpid());
    for (uintptr_t i = 0; i < CLIENTS; i++) {
        if (pthread_create(&threads[i], NULL, be_clients, (void *)i) != 0) {
            return 1;
        }
    }
    if (pthread_create(&threads[CLIENTS], NULL, live_and_die, NULL) != 0) {
        return 1;
    }
    clock_gettime(CLOCK_MONOTONIC, &at);
    for (long second = 0; second < seconds; second++) {
        pause_until(&at);
        rows[second] = (struct row){look(pid), look(getpid()), atomic_load(&requests),
                                    atomic_load(&pools)};
    }
    atomic_store(&stop, 1);
    for (int i = 0; i <= CLIENTS; i++) {
        pthread_join(threads[i], NULL);
    }
    /* The daemon closes what is left: it has an idle time-out. */
    struct sample after = look(pid);
    for (int tries = 0; tries < 30 && after.fds > before.fds; tries++) {
        pause_until(&at);
        after = look(pid);
    }
    struct sample self_after = look(getpid());

    printf("           daemon                       pools beside it\n");
    printf("second   KiB  fds threads  requests   KiB  fds  pools\n");
    for (long i = 0; i < seconds; i += seconds > 40 ? seconds / 40 : 1) {
        printf("%6ld %6ld %4ld %7ld %9ld %6ld %4ld %6ld\n", i + 1, rows[i].daemon.rss,
               rows[i].daemon.fds, rows[i].daemon.threads, rows[i].requests, rows[i].self.rss,
               rows[i].self.fds, rows[i].pools);
    }
    printf("%ld requests served, %ld clients vanished, %ld stalled, %ld half-closed, %ld pools\n",
           atomic_load(&requests), atomic_load(&vanished), atomic_load(&stalled),
           atomic_load(&half_closed), atomic_load(&pools));
    /* Compare the last quarter with the second. Memory may vary by a tenth and a megabyte; a leak
     * would exceed that. */
    for (int self = 0; self < 2; self++) {
        struct sample early = most(rows, seconds / 4, seconds / 2, self);
        struct sample late = most(rows, seconds - seconds / 4, seconds, self);
        judge(self ? "pools: most memory (KiB)" : "daemon: most memory (KiB)", early.rss, late.rss,
              early.rss + early.rss / 10 + 1024);
    }
    judge("daemon: descriptors, before and after", before.fds, after.fds, before.fds);
    judge("daemon: threads, before and after", before.threads, after.threads, before.threads);
    judge("pools: descriptors, before and after", self_before.fds, self_after.fds,
          self_before.fds);
    judge("pools: threads, before and after", self_before.threads, self_after.threads,
          self_before.threads);
    failures += after.rss < 0 || atomic_load(&requests) == 0 || atomic_load(&pools) == 0;
    printf("soak: %s\n", failures == 0 ? "PASSED" : "FAILED");
    free(rows);
    return failures != 0;
}
