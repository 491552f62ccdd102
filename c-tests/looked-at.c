/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * looked-at MODE: a program for tools that look in from outside. It says "ready" and its process id,
 * and ends when its standard input does.
 *
 *   work      at each line of input: jobs of each kind run. One keeps the worker while others wait for
 *             it, and one keeps the loop.
 *   blocked   a callback keeps the loop, another the one worker, and jobs of each kind are armed.
 *   watched   the same, in a pool with a watchdog.
 *   timed     the same, in a pool with NS_POOL_TIMINGS.
 */
#include "harness.h"

#define WORK_MS 30

static void hold_for_a_while(void)
{
    double end = now_seconds() + WORK_MS / 1e3;
    while (now_seconds() < end) {
    }
}

/* The callbacks have names that a tool can show. */
void hold_the_loop(struct ns_job_t *job);
void hold_the_worker(struct ns_job_t *job);
void wait_for_the_worker(struct ns_job_t *job);
void on_timer(struct ns_job_t *job);
void on_socket(struct ns_job_t *job);
void on_signal(struct ns_job_t *job);
void in_a_group(struct ns_job_t *job);
void stuck_in_the_loop(struct ns_job_t *job);
void stuck_in_a_worker(struct ns_job_t *job);

void hold_the_loop(struct ns_job_t *job)
{
    hold_for_a_while();
    count_and_finish(job);
}

void hold_the_worker(struct ns_job_t *job)
{
    hold_for_a_while();
    count_and_finish(job);
}

void wait_for_the_worker(struct ns_job_t *job)
{
    count_and_finish(job);
}

void on_timer(struct ns_job_t *job)
{
    count_and_finish(job);
}

void on_socket(struct ns_job_t *job)
{
    count_and_finish(job);
}

void on_signal(struct ns_job_t *job)
{
    count_and_finish(job);
}

void in_a_group(struct ns_job_t *job)
{
    count_and_finish(job);
}

/* Twice the limit of a test: whoever looks may want to for as long as one. */
static void be_stuck(struct ns_job_t *job)
{
    struct gate *gate = ns_job_get_data(job);
    stay_in_gate(gate);
    latch_reaches(&gate->leave, 1);
    ns_job_done(job);
}

void stuck_in_the_loop(struct ns_job_t *job)
{
    be_stuck(job);
}

void stuck_in_a_worker(struct ns_job_t *job)
{
    be_stuck(job);
}

static void need(int holds, const char *what)
{
    if (!holds) {
        fprintf(stderr, "looked-at: %s\n", what);
        abort();
    }
}

#define NEED(condition) need(condition, #condition)

static struct ns_thrpool_t *make_pool(uint64_t flags, time_t slow)
{
    struct ns_thrpool_config config;
    struct ns_thrpool_options options;
    ns_thrpool_config_init(&config);
    config.log_fct = quiet_log;
    ns_thrpool_options_init(&options, sizeof options);
    options.name = "look";
    options.flags = flags;
    options.slow.tv_sec = slow;
    struct ns_thrpool_t *tp = ns_thrpool_new_with(&config, &options);
    NEED(tp != NULL);
    return tp;
}

static void say_ready(void)
{
    printf("ready %d\n", (int)getpid());
    fflush(stdout);
}

static void work(struct ns_thrpool_t *tp, struct ns_group_t *group, int reader)
{
    struct latch ran = LATCH_INIT;
    struct timeval soon = {0, 1000};
    struct ns_job_t *job;
    NEED(ns_add_signal_job(tp, SIGUSR1, 0, on_signal, &ran, NULL) == NS_SUCCESS);
    NEED(ns_add_fd_job(tp, reader, NS_JOB_READ | NS_JOB_PRESERVE_FD, on_socket, &ran, NULL)
         == NS_SUCCESS);
    NEED(ns_add_timeout_job(tp, &soon, 0, on_timer, &ran, NULL) == NS_SUCCESS);
    NEED(ns_add_job(tp, NS_JOB_THREAD, hold_the_worker, &ran, NULL) == NS_SUCCESS);
    for (int i = 0; i < 5; i++) {
        NEED(ns_add_job(tp, NS_JOB_THREAD, wait_for_the_worker, &ran, NULL) == NS_SUCCESS);
        NEED(ns_add_group_job(group, NS_JOB_THREAD, in_a_group, &ran, NULL) == NS_SUCCESS);
    }
    NEED(ns_add_job(tp, 0, hold_the_loop, &ran, &job) == NS_SUCCESS);
    /* The loop sleeps again, so this add has to wake it. */
    NEED(latch_reaches(&ran, 14));
    NEED(ns_add_job(tp, 0, on_timer, &ran, NULL) == NS_SUCCESS);
    kill(getpid(), SIGUSR1);
    NEED(latch_reaches(&ran, 16));
}

static void work_at_each_line(void)
{
    int ends[2], c;
    struct ns_group_t *group;
    struct ns_thrpool_t *tp = make_pool(0, 0);
    NEED(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
    NEED(write(ends[1], "x", 1) == 1);
    NEED(ns_group_new(tp, 1, NULL, NULL, &group) == NS_SUCCESS);
    say_ready();
    while ((c = getchar()) != EOF) {
        if (c == '\n') {
            work(tp, group, ends[0]);
            printf("done\n");
            fflush(stdout);
        }
    }
    ns_group_release(group);
    ns_thrpool_shutdown(tp);
    ns_thrpool_wait(tp);
    ns_thrpool_destroy(tp);
}

static void be_blocked(uint64_t flags, time_t slow)
{
    int ends[2];
    struct gate gate = GATE_INIT;
    struct latch ran = LATCH_INIT;
    struct ns_group_t *group;
    struct timeval hour = {3600, 0};
    struct ns_thrpool_t *tp = make_pool(flags, slow);
    NEED(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends) == 0);
    NEED(ns_add_signal_job(tp, SIGUSR1, 0, on_signal, &ran, NULL) == NS_SUCCESS);
    NEED(ns_add_fd_job(tp, ends[0], NS_JOB_READ, on_socket, &ran, NULL) == NS_SUCCESS);
    NEED(ns_add_fd_timeout_job(tp, ends[1], &hour, NS_JOB_READ | NS_JOB_THREAD, on_socket, &ran,
                               NULL) == NS_SUCCESS);
    NEED(ns_add_timeout_job(tp, &hour, 0, on_timer, &ran, NULL) == NS_SUCCESS);
    NEED(ns_group_new(tp, 1, NULL, NULL, &group) == NS_SUCCESS);
    /* The loop takes requests in order, so it has armed all of that when this has run. */
    NEED(ns_add_timeout_job(tp, &at_once, 0, on_timer, &ran, NULL) == NS_SUCCESS);
    NEED(latch_reaches(&ran, 1));
    NEED(ns_add_job(tp, 0, stuck_in_the_loop, &gate, NULL) == NS_SUCCESS);
    NEED(latch_reaches(&gate.begun, 1));
    NEED(ns_add_job(tp, NS_JOB_THREAD, stuck_in_a_worker, &gate, NULL) == NS_SUCCESS);
    NEED(latch_reaches(&gate.begun, 2));
    NEED(ns_add_group_job(group, NS_JOB_THREAD, in_a_group, &ran, NULL) == NS_SUCCESS);
    NEED(ns_add_group_job(group, NS_JOB_THREAD, in_a_group, &ran, NULL) == NS_SUCCESS);
    NEED(ns_add_job(tp, NS_JOB_THREAD, wait_for_the_worker, &ran, NULL) == NS_SUCCESS);
    say_ready();
    while (getchar() != EOF) {
    }
    latch_add(&gate.leave, 1);
    ns_group_release(group);
    ns_thrpool_shutdown(tp);
    ns_thrpool_wait(tp);
    ns_thrpool_destroy(tp);
}

int main(int argc, char **argv)
{
    if (argc == 2 && strcmp(argv[1], "work") == 0) {
        work_at_each_line();
    } else if (argc == 2 && strcmp(argv[1], "blocked") == 0) {
        be_blocked(0, 0);
    } else if (argc == 2 && strcmp(argv[1], "watched") == 0) {
        be_blocked(0, 1);
    } else if (argc == 2 && strcmp(argv[1], "timed") == 0) {
        be_blocked(NS_POOL_TIMINGS, 0);
    } else {
        fprintf(stderr, "usage: looked-at work|blocked|watched|timed\n");
        return 2;
    }
    return 0;
}
