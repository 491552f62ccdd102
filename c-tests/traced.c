/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * traced MODE: the program that test-syscalls.sh traces. The system calls between two marks are
 * counted; a mark is a write to a descriptor that is not open.
 */
#include "harness.h"

#include <sys/wait.h>

#define NO_DESCRIPTOR 9999

static void mark(const char *what)
{
    if (write(NO_DESCRIPTOR, what, strlen(what)) >= 0) {
        abort();
    }
}

static void add(struct ns_thrpool_t *tp, ns_job_type_t type, struct latch *ran)
{
    if (ns_add_job(tp, type, count_and_finish, ran, NULL) != NS_SUCCESS) {
        abort();
    }
}

/* Adds for workers that are all busy. */
static void add_to_busy_workers(struct ns_thrpool_t *tp)
{
    struct gate gate = GATE_INIT;
    struct latch ran = LATCH_INIT;
    occupy(tp, NS_JOB_THREAD, &gate);
    occupy(tp, NS_JOB_THREAD, &gate);
    for (int i = 0; i < 1000; i++) {
        add(tp, NS_JOB_THREAD, &ran);
    }
    mark("begin");
    for (int i = 0; i < 1000; i++) {
        add(tp, NS_JOB_THREAD, &ran);
    }
    mark("end");
    latch_add(&gate.leave, 1);
    latch_reaches(&ran, 2000);
}

/* A pool with jobs of each kind armed, and nothing to do. */
static void be_idle(struct ns_thrpool_t *tp)
{
    const char *seconds = getenv("NS_IDLE_SECONDS");
    struct timespec pause = {seconds != NULL ? atoi(seconds) : 3, 0};
    struct timeval never = {1000000, 0};
    struct latch ran = LATCH_INIT;
    int ends[2];
    socket_pair(ends);
    ns_add_timeout_job(tp, &never, 0, count_callback, &ran, NULL);
    ns_add_fd_job(tp, ends[0], NS_JOB_READ, count_callback, &ran, NULL);
    ns_add_fd_timeout_job(tp, ends[1], &never, NS_JOB_READ | NS_JOB_THREAD, count_callback, &ran,
                          NULL);
    ns_add_signal_job(tp, SIGUSR1, 0, count_callback, &ran, NULL);
    for (int i = 0; i < 100; i++) {
        add(tp, i % 2 ? NS_JOB_THREAD : 0, &ran);
    }
    latch_reaches(&ran, 100);
    /* Time for all threads to fall asleep. */
    struct timespec settle = {0, 300000000};
    nanosleep(&settle, NULL);
    mark("begin");
    nanosleep(&pause, NULL);
    mark("end");
}

static void echo(struct ns_job_t *job)
{
    char bytes[16];
    int fd = ns_job_get_native_fd(job);
    ssize_t n = read(fd, bytes, sizeof(bytes));
    if (n > 0 && write(fd, bytes, (size_t)n) == n) {
        ns_job_rearm(job);
    }
}

/* Round trips to a loop job that rearms itself in its callback. */
static void echo_in_the_loop(struct ns_thrpool_t *tp)
{
    int ends[2];
    socket_pair(ends);
    fcntl(ends[1], F_SETFL, 0);
    ns_add_fd_job(tp, ends[0], NS_JOB_READ, echo, NULL, NULL);
    for (int i = 0; i < 1100; i++) {
        char byte = 'x';
        if (i == 100) {
            mark("begin");
        }
        if (write(ends[1], &byte, 1) != 1 || read(ends[1], &byte, 1) != 1) {
            abort();
        }
    }
    mark("end");
}

/* Adds while the loop is in a callback. */
static void add_to_a_blocked_loop(struct ns_thrpool_t *tp)
{
    struct gate gate = GATE_INIT;
    struct latch ran = LATCH_INIT;
    occupy(tp, NS_JOB_NONE, &gate);
    mark("begin");
    for (int i = 0; i < 10000; i++) {
        add(tp, NS_JOB_NONE, &ran);
    }
    mark("end");
    latch_add(&gate.leave, 1);
    latch_reaches(&ran, 10000);
}

struct adder {
    struct ns_thrpool_t *tp;
    struct latch *ran;
};

static void *add_many(void *arg)
{
    struct adder *adder = arg;
    for (int i = 0; i < 20000; i++) {
        add(adder->tp, NS_JOB_NONE, adder->ran);
    }
    return NULL;
}

/* Adds from three threads while the loop does what it can. */
static void flood_a_busy_loop(struct ns_thrpool_t *tp)
{
    struct latch ran = LATCH_INIT;
    struct adder adder = {tp, &ran};
    pthread_t threads[3];
    mark("begin");
    for (int i = 0; i < 3; i++) {
        pthread_create(&threads[i], NULL, add_many, &adder);
    }
    for (int i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
    }
    latch_reaches(&ran, 60000);
    mark("end");
}

static atomic_int raise_in_forked_child;

/* Registered before the first pool. */
static void raise_at_once(void)
{
    if (atomic_load(&raise_in_forked_child)) {
        raise(SIGUSR1);
    }
}

/* A child that gets a signal that its parent watches: as early as possible, and again after it has
 * destroyed the parent's pool. */
static void stay_alive(int signum)
{
    UNUSED(signum);
}

static void fork_a_child_with_signals(struct ns_thrpool_t *tp)
{
    struct latch ran = LATCH_INIT;
    struct ns_job_t *job = NULL;
    int status = -1;
    /* In the child no job watches, so the signal has the effect that it had before the pool. */
    signal(SIGUSR1, stay_alive);
    if (ns_add_signal_job(tp, SIGUSR1, NS_JOB_PERSIST, count_callback, &ran, &job) != NS_SUCCESS) {
        abort();
    }
    raise(SIGUSR1);
    latch_reaches(&ran, 1);
    atomic_store(&raise_in_forked_child, 1);
    mark("begin");
    pid_t child = fork();
    if (child == 0) {
        mark("child");
        for (int i = 0; i < 10; i++) {
            raise(SIGUSR1);
        }
        ns_thrpool_destroy(tp);
        raise(SIGUSR1);
        _exit(0);
    }
    if (waitpid(child, &status, 0) != child || status != 0) {
        abort();
    }
    mark("end");
    ns_job_cancel(job);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *mode;
        void (*body)(struct ns_thrpool_t *);
    } modes[] = {
        {"busy-workers", add_to_busy_workers},
        {"idle", be_idle},
        {"echo", echo_in_the_loop},
        {"blocked-loop", add_to_a_blocked_loop},
        {"flood", flood_a_busy_loop},
        {"fork", fork_a_child_with_signals},
    };
    pthread_atfork(NULL, NULL, raise_at_once);
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++) {
        if (argc == 2 && strcmp(argv[1], modes[i].mode) == 0) {
            struct ns_thrpool_t *tp = pool_of(2);
            modes[i].body(tp);
            ns_thrpool_destroy(tp);
            return 0;
        }
    }
    return 2;
}
