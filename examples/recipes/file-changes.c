/* SPDX-License-Identifier: GPL-3.0-or-later */
/* file-changes DIRECTORY - tell which files change in a directory, until SIGTERM */
#define _GNU_SOURCE
#include <err.h>
#include <nunc-stans.h>
#include <signal.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <unistd.h>

static void on_events(struct ns_job_t *job) /* in a worker; PERSIST arms it again */
{
    _Alignas(struct inotify_event) char events[4096];
    ssize_t n;
    while ((n = read(ns_job_get_native_fd(job), events, sizeof events)) > 0) { /* until EAGAIN */
        for (char *at = events; at < events + n;) {
            const struct inotify_event *event = (const struct inotify_event *)at;
            const char *what = event->mask & IN_CLOSE_WRITE ? "written"
                               : event->mask & IN_DELETE    ? "deleted"
                                                            : "moved";
            if (event->mask & IN_Q_OVERFLOW)
                puts("too many changes: some were lost");
            else if (event->len > 0)
                printf("%s: %s\n", event->name, what);
            at += sizeof *event + event->len;
        }
    }
    fflush(stdout);
}

static void on_sigterm(struct ns_job_t *job)
{
    ns_thrpool_shutdown(ns_job_get_tp(job));
    ns_job_done(job);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        errx(2, "usage: file-changes DIRECTORY");
    int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
    if (fd < 0 || inotify_add_watch(fd, argv[1], IN_CLOSE_WRITE | IN_DELETE | IN_MOVE) < 0)
        err(1, "%s", argv[1]);
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    ns_thrpool_t *tp = ns_thrpool_new(&config);
    struct ns_job_t *watcher;
    if (tp == NULL || ns_add_signal_job(tp, SIGTERM, NS_JOB_NONE, on_sigterm, NULL, NULL) != NS_SUCCESS ||
        ns_add_fd_job(tp, fd, NS_JOB_READ | NS_JOB_PERSIST | NS_JOB_THREAD, on_events, NULL, &watcher) !=
            NS_SUCCESS)
        errx(1, "can't start: the system log says why");
    puts("watching");
    fflush(stdout);
    ns_thrpool_wait(tp);
    ns_job_done(watcher);
    ns_thrpool_destroy(tp);
}
