/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A test that answers system calls: a filter hands those of the poller's to a thread of the test's, which
 * is asked call by call whether the system is to answer, or an errno.
 */
#ifndef NOTIFY_H
#define NOTIFY_H

#include "harness.h"

#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

static int listener = -1;

/* Newer architectures have none: their C libraries call epoll_pwait. */
#ifndef SYS_epoll_wait
#define SYS_epoll_wait SYS_epoll_pwait
#endif

/* The same for others. */
#ifndef SYS_poll
#define SYS_poll SYS_ppoll
#endif
#ifndef SYS_epoll_create
#define SYS_epoll_create SYS_epoll_create1
#endif
#ifndef SYS_select
#define SYS_select SYS_pselect6
#endif

/* The errno to answer a call with, or 0 for the system to answer. It may take its time. */
static int (*ask)(const struct seccomp_data *);

static void *decide(void *arg)
{
    UNUSED(arg);
    for (;;) {
        struct seccomp_notif call;
        struct seccomp_notif_resp answer;
        memset(&call, 0, sizeof call);
        if (ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &call) != 0) {
            continue;
        }
        memset(&answer, 0, sizeof answer);
        answer.id = call.id;
        answer.error = -ask(&call.data);
        if (answer.error == 0) {
            answer.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
        }
        /* One that was interrupted meanwhile is not waited for any more. */
        ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &answer);
    }
    return NULL;
}

/* From now on, for this thread and those that it starts. 0 if the system has no such filters. */
static inline int filter(int (*answer)(const struct seccomp_data *))
{
#define ASK(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (call), 0, 1),                           \
                  BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF)
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ASK(SYS_epoll_create),
        ASK(SYS_epoll_create1),
        ASK(SYS_epoll_ctl),
        ASK(SYS_epoll_wait),
        ASK(SYS_epoll_pwait),
        ASK(SYS_epoll_pwait2),
        ASK(SYS_timerfd_settime),
        ASK(SYS_poll),
        ASK(SYS_ppoll),
        ASK(SYS_select),
        ASK(SYS_pselect6),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof code[0], code};
    pthread_t thread;
    ask = answer;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) {
        return 0;
    }
    listener = (int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                            SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    return listener >= 0 && pthread_create(&thread, NULL, decide, NULL) == 0;
}

#endif
