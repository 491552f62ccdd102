/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * server.h - what httpd, chat and sql-gateway have in common: how a server takes clients in, and how it ends
 *
 * Its jobs run in the event loop:
 *
 *   listener       ACCEPT | PERSIST: accepting is quick and never blocks. It rests when descriptors have run
 *                  out.
 *   SIGTERM/SIGINT call the server's function, which begins the end.
 */
#ifndef EXAMPLES_SERVER_H
#define EXAMPLES_SERVER_H

#include <dirent.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <syslog.h>
#include <unistd.h>

#include <nunc-stans.h>

enum {
    ACCEPTS_PER_TURN = 64, /* then the loop serves others */
    PAUSE_MS = 100,        /* the listener rests so long when descriptors have run out */
};

static struct {
    struct ns_thrpool_t *pool;
    int listen_fd;
    void (*on_client)(int fd); /* takes the socket over */
    void (*on_stop)(void);     /* has the pool shut down, now or soon */
    /* The loop's while the pool runs, main's before and after. */
    struct ns_job_t *listener, *sigterm, *sigint;
    bool starved; /* the lack of descriptors has been reported */

    atomic_ulong pauses, jobs_made, jobs_disposed, warnings;
} server;

/*
 * Jobs
 */

/* The done callback of every job that has nothing else to clean up. */
static void job_disposed(struct ns_job_t *job)
{
    (void)job;
    atomic_fetch_add(&server.jobs_disposed, 1);
}

/*
 * Finish making a job: `result` is that of an add with NS_JOB_UNARMED. Such a job can't run yet, so
 * this is the time for its done callback and its group, or NULL. ns_job_rearm arms it. On failure
 * there is no job, and *job is NULL.
 */
static bool job_made(ns_result_t result, struct ns_job_t **job, ns_job_func_t done,
                     struct ns_group_t *group)
{
    if (result == NS_SUCCESS && group) {
        result = ns_job_set_group(*job, group);
        if (result != NS_SUCCESS) {
            ns_job_done(*job);
            *job = NULL;
        }
    }
    if (result != NS_SUCCESS) {
        return false;
    }
    atomic_fetch_add(&server.jobs_made, 1);
    ns_job_set_done_cb(*job, done);
    return true;
}

/*
 * Clients come
 */

/*
 * accept has failed and would fail again at once: the client still waits, and a level-triggered
 * listener would fire without end. So it rests for a while.
 */
static void pause_accepting(struct ns_job_t *listener, int error)
{
    atomic_fetch_add(&server.pauses, 1);
    if (!server.starved) {
        warnx("accept: %s; trying again every %d ms", strerror(error), PAUSE_MS);
        server.starved = true;
    }
    ns_job_rearm_after(listener, &(struct timeval){.tv_usec = PAUSE_MS * 1000});
}

static void on_connection(struct ns_job_t *job)
{
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = accept4(server.listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
                pause_accepting(job, errno);
            }
            return;
        }
        server.starved = false;
        server.on_client(fd);
    }
}

static bool add_listener(void)
{
    return job_made(ns_add_fd_job(server.pool, server.listen_fd,
                                  NS_JOB_ACCEPT | NS_JOB_PERSIST | NS_JOB_PRESERVE_FD |
                                      NS_JOB_UNARMED,
                                  on_connection, NULL, &server.listener),
                    &server.listener, job_disposed, NULL) &&
           ns_job_rearm(server.listener) == NS_SUCCESS;
}

/*
 * The server's begin and end
 */

static void on_stop_signal(struct ns_job_t *job)
{
    (void)job;
    server.on_stop();
}

static bool add_stop_signal(int signum, struct ns_job_t **job, struct ns_group_t *group)
{
    return job_made(ns_add_signal_job(server.pool, signum, NS_JOB_PERSIST | NS_JOB_UNARMED,
                                      on_stop_signal, NULL, job),
                    job, job_disposed, group) &&
           ns_job_rearm(*job) == NS_SUCCESS;
}

/*
 * Make the jobs that a server has from its beginning, and wait until a signal has ended it. on_stop
 * runs in the group, or in none. Returns false if something failed.
 */
static bool server_run(void (*on_client)(int fd), void (*on_stop)(void), struct ns_group_t *group)
{
    server.on_client = on_client;
    server.on_stop = on_stop;
    bool made = add_stop_signal(SIGTERM, &server.sigterm, group) &&
                add_stop_signal(SIGINT, &server.sigint, group) && add_listener();
    /* The first signal may already have come. */
    made = made || ns_thrpool_is_shutdown(server.pool);
    if (!made) {
        warnx("the first jobs could not be made");
        ns_thrpool_shutdown(server.pool);
    }
    ns_result_t result = ns_thrpool_wait(server.pool); /* here a server spends its life */
    if (result != NS_SUCCESS) {
        warnx("ns_thrpool_wait: result %d", (int)result);
    }
    return made && result == NS_SUCCESS;
}

/*
 * Clean up. No job's callback runs any more, so these jobs are main's, and ns_job_done now takes
 * armed ones too. ns_thrpool_destroy disposes of every other job that is armed, and all that is
 * done is gone when it returns. `group` is the last group that main holds.
 */
static void server_end(struct ns_group_t *group)
{
    struct ns_job_t *const jobs[] = {server.listener, server.sigterm, server.sigint};

    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
        if (jobs[i]) {
            ns_job_done(jobs[i]);
        }
    }
    ns_group_release(group);
    ns_thrpool_destroy(server.pool);
    close(server.listen_fd);
}

/*
 * The process
 */

/* The descriptors that this process has open, or -1. */
static int count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int count = -3; /* ".", ".." and the directory's own */

    if (!dir) {
        return -1;
    }
    while (readdir(dir)) {
        count++;
    }
    closedir(dir);
    return count;
}

/* Say how many jobs and descriptors there were and are. Returns whether none is left, and the
 * library had nothing to warn of. */
static bool nothing_left(int fds_before)
{
    unsigned long made = atomic_load(&server.jobs_made);
    unsigned long disposed = atomic_load(&server.jobs_disposed);
    int fds = count_fds() - fds_before;

    printf("jobs made: %lu, jobs disposed: %lu, descriptors left open: %d\n", made, disposed, fds);
    return made == disposed && fds == 0 && atomic_load(&server.warnings) == 0;
}

static inline void limit_fds(long most)
{
    struct rlimit limit;

    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = (rlim_t)most;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0) {
        err(2, "no limit of %ld descriptors", most);
    }
}

/* Read a number from an argument. Exits with status 2 if it is none, or out of the range. */
static long number(const char *text, long least, long most)
{
    char *end;

    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || end == text || *end || value < least || value > most) {
        errx(2, "%s: not a number from %ld to %ld", text, least, most);
    }
    return value;
}

/* Warnings and worse go to the standard error output. */
static void log_message(int priority, const char *format, va_list args)
{
    char text[512];

    if (priority <= LOG_WARNING) {
        atomic_fetch_add(&server.warnings, 1);
        vsnprintf(text, sizeof text, format, args);
        warnx("%.*s", (int)strcspn(text, "\n"), text);
    }
}

/* Listen on 127.0.0.1, and say where. Port 0 lets the kernel choose. Exits with 1 on errors. */
static void open_listener(uint16_t port)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof at;
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    /* The sockets that are accepted inherit TCP_NODELAY, and SO_KEEPALIVE, by which the kernel
     * finds clients that have vanished. */
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on) < 0 ||
        bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, SOMAXCONN) < 0 ||
        getsockname(fd, (struct sockaddr *)&at, &length) < 0) {
        err(1, "port %u", port);
    }
    printf("listening on 127.0.0.1:%u\n", ntohs(at.sin_port));
    fflush(stdout);
    server.listen_fd = fd;
}

#endif
