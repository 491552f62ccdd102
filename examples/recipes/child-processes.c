/* SPDX-License-Identifier: GPL-3.0-or-later */
/* child-processes COMMAND... - run shell commands at once, and tell how each ends */
#define _GNU_SOURCE
#include <err.h>
#include <nunc-stans.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;
static int running; /* only the event loop touches it, once all jobs are made */

static void on_end(struct ns_job_t *job) /* in the event loop: the process has ended */
{
    siginfo_t how = {0};
    waitid(P_PIDFD, (id_t)ns_job_get_native_fd(job), &how, WEXITED); /* does not block now */
    if (how.si_code == CLD_EXITED)
        printf("%s: exit status %d\n", (char *)ns_job_get_data(job), how.si_status);
    else
        printf("%s: %s\n", (char *)ns_job_get_data(job), strsignal(how.si_status));
    ns_job_done(job); /* closes the descriptor */
    if (--running == 0)
        ns_thrpool_shutdown(ns_job_get_tp(job));
}

int main(int argc, char **argv)
{
    if (argc < 2)
        errx(2, "usage: child-processes COMMAND...");
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    ns_thrpool_t *tp = ns_thrpool_new(&config);
    struct ns_job_t *jobs[argc];
    running = argc - 1;
    for (int i = 1; i < argc; i++) {
        pid_t pid;
        char *command[] = {"sh", "-c", argv[i], NULL};
        if (posix_spawnp(&pid, "sh", NULL, NULL, command, environ) != 0)
            errx(1, "can't start a shell");
        int fd = (int)syscall(SYS_pidfd_open, pid, 0);
        if (fd < 0 || ns_add_fd_job(tp, fd, NS_JOB_READ | NS_JOB_UNARMED, on_end, argv[i], &jobs[i]) != NS_SUCCESS)
            err(1, "can't watch a process");
    }
    for (int i = 1; i < argc; i++)
        ns_job_rearm(jobs[i]);
    ns_thrpool_wait(tp);
    ns_thrpool_destroy(tp);
}
