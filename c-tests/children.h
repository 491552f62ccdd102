/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Run part of a test in a child process, and look at how the child ended. */
#ifndef CHILDREN_H
#define CHILDREN_H

#include "harness.h"

#include <sys/wait.h>

/* As fork, but a child that hangs is killed. The limit is long, because children are slow under
 * valgrind. */
static inline pid_t begin_child(void)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(LIMIT_SECONDS);
    }
    return child;
}

/* Wait for a child to end. Returns its wait status. */
static inline int end_child(pid_t child)
{
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

/* Run a function in a child. Returns the wait status: the exit status is 0 if it returns. */
static inline int in_child(void (*body)(void *), void *arg)
{
    pid_t child = begin_child();
    if (child == 0) {
        body(arg);
        _exit(0);
    }
    return end_child(child);
}

/* As in_child, for a function of a number. */
static inline int in_child_with(void (*body)(int), int number)
{
    pid_t child = begin_child();
    if (child == 0) {
        body(number);
        _exit(0);
    }
    return end_child(child);
}

#define assert_exits(status, code)                                                             \
    do {                                                                                       \
        int exits_status = (status);                                                           \
        if (!WIFEXITED(exits_status) || WEXITSTATUS(exits_status) != (code)) {                 \
            fail_msg("wait status %#x, wanted exit status %d", exits_status, (code));          \
        }                                                                                      \
    } while (0)

#define assert_killed_by(status, signum)                                                       \
    do {                                                                                       \
        int killed_status = (status);                                                          \
        if (!WIFSIGNALED(killed_status) || WTERMSIG(killed_status) != (signum)) {              \
            fail_msg("wait status %#x, wanted signal %d", killed_status, (signum));            \
        }                                                                                      \
    } while (0)

/* cmocka's assertions work only in the test's own process and thread. In a child or another thread,
 * print what failed and exit. */
#define CHILD_CHECK(cond)                                                                      \
    do {                                                                                       \
        if (!(cond)) {                                                                         \
            fprintf(stderr, "# child: line %d: %s\n", __LINE__, #cond);                        \
            _exit(99);                                                                         \
        }                                                                                      \
    } while (0)

#endif
