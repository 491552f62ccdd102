#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# An application that is built with ThreadSanitizer, and the library as it is, without: no report for
# what is handed over through the library, by jobs and by ns_set_log, nor for the descriptors of
# pools that come and go, one for a true race, and signals delivered while a thread is blocked in it. Run in
# the project's root.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat >"$work/hand-over.c" <<'PROGRAM'
/* Plain variables, handed over in every way that the header promises; with an argument, one race. */
#define _GNU_SOURCE
#include <nunc-stans.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* A job's data. */
struct record {
    long input;  /* from who arms to the callback */
    long output; /* from the callback to who waits */
    long last;   /* from the callback to the done callback, and on to who destroys the pool */
};

enum { ROUNDS = 50, JOBS = 3 };
static struct record records[ROUNDS][2][JOBS];
static long at_shutdown;
static volatile long racy;
static int ends[2];

static void work(struct ns_job_t *job)
{
    struct record *record = ns_job_get_data(job);
    record->output = record->input + 1;
}

static void gone(struct ns_job_t *job)
{
    struct record *record = ns_job_get_data(job);
    record->last = record->output;
}

static void read_and_work(struct ns_job_t *job)
{
    char byte;
    if (read(ns_job_get_native_fd(job), &byte, 1) != 1)
        abort();
    work(job);
}

static void check(ns_result_t result)
{
    if (result != NS_SUCCESS) {
        printf("result %u\n", result);
        exit(3);
    }
}

static void see(struct ns_job_t *job, struct record *record)
{
    check(ns_job_wait(job));
    if (record->output != record->input + 1)
        exit(4);
}

/* Every kind, in the loop and in a worker: armed by the add, by a rearm, and done or cancelled. */
static void hand_over(ns_thrpool_t *tp, ns_job_type_t type, struct record *records)
{
    struct timeval soon = {0, 100};
    struct ns_job_t *jobs[JOBS];
    for (int i = 0; i < JOBS; i++)
        records[i].input = i;
    check(ns_add_job(tp, type, work, &records[0], &jobs[0]));
    check(ns_add_timeout_job(tp, &soon, type, work, &records[1], &jobs[1]));
    if (write(ends[1], "x", 1) != 1)
        abort();
    check(ns_add_fd_job(tp, ends[0], type | NS_JOB_READ | NS_JOB_PRESERVE_FD, read_and_work,
                        &records[2], &jobs[2]));
    for (int i = 0; i < JOBS; i++) {
        see(jobs[i], &records[i]);
        records[i].input++;
        check(ns_job_set_done_cb(jobs[i], gone));
        if (i == 2 && write(ends[1], "x", 1) != 1)
            abort();
        check(ns_job_rearm(jobs[i]));
        see(jobs[i], &records[i]);
        check(i == 1 ? ns_job_cancel(jobs[i]) : ns_job_done(jobs[i]));
    }
}

/* The callback, in the loop or in a worker, reads the descriptor; then the library closes it. */
static void give_descriptor(ns_thrpool_t *tp, ns_job_type_t type)
{
    int given[2];
    struct record record = {1, 0, 0};
    struct ns_job_t *job;
    if (pipe(given) != 0 || write(given[1], "x", 1) != 1)
        abort();
    check(ns_add_fd_job(tp, given[0], type | NS_JOB_READ, read_and_work, &record, &job));
    check(ns_job_wait(job));
    check(ns_job_done(job));
    close(given[1]);
}

/* What the job's data points to, set while its callback may run. */
static void use_data(struct ns_job_t *job)
{
    long *data = ns_job_get_data(job);
    *data += 1;
}

/* Often: the sanitizer may miss two accesses that come at the very same moment. */
static void race_on(void)
{
    for (int i = 0; i < 1000; i++)
        racy++;
}

static void *race(void *tp)
{
    struct record record = {1, 0, 0};
    struct ns_job_t *job;
    check(ns_add_job(tp, NS_JOB_THREAD, work, &record, &job));
    race_on(); /* beside main's */
    check(ns_job_wait(job));
    check(ns_job_done(job));
    return NULL;
}

static void *shut_down(void *tp)
{
    at_shutdown++;
    ns_thrpool_shutdown(tp);
    return NULL;
}

int main(int argc, char **argv)
{
    (void)argv;
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.max_threads = 2;
    ns_thrpool_t *tp = ns_thrpool_new(&config);
    if (tp == NULL || pipe(ends) != 0)
        return 2;
    if (argc > 1) {
        pthread_t thread;
        pthread_create(&thread, NULL, race, tp);
        race_on();
        pthread_join(thread, NULL);
    }
    for (int i = 0; i < ROUNDS; i++) {
        hand_over(tp, NS_JOB_NONE, records[i][0]);
        hand_over(tp, NS_JOB_THREAD, records[i][1]);
        give_descriptor(tp, NS_JOB_NONE);
        give_descriptor(tp, NS_JOB_THREAD);
        long *data = malloc(sizeof *data);
        struct ns_job_t *job;
        *data = i;
        check(ns_create_job(tp, NS_JOB_THREAD, use_data, &job));
        check(ns_job_set_data(job, data));
        check(ns_job_rearm(job));
        check(ns_job_wait(job));
        if (*data != i + 1)
            return 4;
        check(ns_job_done(job));
        free(data);
    }
    pthread_t thread;
    pthread_create(&thread, NULL, shut_down, tp);
    while (!ns_thrpool_is_shutdown(tp))
        usleep(100);
    at_shutdown++;
    check(ns_thrpool_wait(tp));
    ns_thrpool_destroy(tp);
    for (int i = 0; i < ROUNDS * 2 * JOBS; i++) {
        const struct record *record = &records[i / JOBS / 2][i / JOBS % 2][i % JOBS];
        if (record->last != record->input + 1)
            return 5;
    }
    pthread_join(thread, NULL);
    return 0;
}
PROGRAM

cat >"$work/sigterm.c" <<'PROGRAM'
/* The pool lives until a SIGTERM, while main is blocked in one of the waits. */
#define _GNU_SOURCE
#include <nunc-stans.h>
#include <signal.h>
#include <unistd.h>

static void stop(struct ns_job_t *job)
{
    ns_thrpool_shutdown(ns_job_get_tp(job));
    ns_job_done(job);
}

static void nothing(struct ns_job_t *job)
{
    (void)job;
}

static void kill_soon(struct ns_job_t *job)
{
    ns_job_done(job);
    kill(getpid(), SIGTERM);
}

int main(int argc, char **argv)
{
    (void)argv;
    struct ns_thrpool_config config;
    struct timeval far = {1000000, 0}, soon = {0, 200000};
    struct ns_job_t *job;
    ns_thrpool_config_init(&config);
    ns_thrpool_t *tp = ns_thrpool_new(&config);
    if (tp == NULL || ns_add_signal_job(tp, SIGTERM, NS_JOB_NONE, stop, NULL, NULL) != NS_SUCCESS ||
        ns_add_timeout_job(tp, &far, NS_JOB_NONE, nothing, NULL, &job) != NS_SUCCESS ||
        ns_add_timeout_job(tp, &soon, NS_JOB_THREAD, kill_soon, NULL, NULL) != NS_SUCCESS)
        return 2;
    if (argc > 1 && ns_job_wait(job) != NS_SHUTDOWN)
        return 3;
    if (ns_thrpool_wait(tp) != NS_SUCCESS)
        return 4;
    ns_thrpool_destroy(tp);
    return 0;
}
PROGRAM

cat >"$work/set-log.c" <<'PROGRAM'
/* Arguments of functions for ns_set_log: written before they are set, used by the threads that are told
 * without any order of their own, freed when another is set; with an argument, before. */
#define _GNU_SOURCE
#include <nunc-stans.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { ROUNDS = 200, THREADS = 2 };
static atomic_long told;
static atomic_int over;

static void hear(void *arg, int priority, const char *message)
{
    const long *number = arg;
    (void)priority;
    (void)message;
    if (*number < 0)
        abort();
    atomic_fetch_add_explicit(&told, 1, memory_order_relaxed);
}

static void *be_refused(void *unused)
{
    while (!atomic_load_explicit(&over, memory_order_relaxed))
        ns_job_done(NULL);
    return unused;
}

int main(int argc, char **argv)
{
    (void)argv;
    long *last = calloc(1, sizeof *last);
    ns_set_log(hear, last);
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, be_refused, NULL);
    for (int i = 1; i < ROUNDS; i++) {
        long before = atomic_load_explicit(&told, memory_order_relaxed);
        while (atomic_load_explicit(&told, memory_order_relaxed) < before + THREADS)
            sched_yield();
        long *next = malloc(sizeof *next);
        *next = i;
        if (argc > 1)
            *last = i;
        ns_set_log(hear, next);
        free(last);
        last = next;
    }
    atomic_store_explicit(&over, 1, memory_order_relaxed);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    ns_set_log(NULL, NULL);
    free(last);
    return 0;
}
PROGRAM

cat >"$work/pools.c" <<'PROGRAM'
/* Threads that have no order between them make and end pools: the numbers of the descriptors that a pool
 * closed are those that the next one opens. */
#define _GNU_SOURCE
#include <nunc-stans.h>
#include <pthread.h>

enum { ROUNDS = 100, THREADS = 4 };

static void *make_and_end(void *unused)
{
    for (int i = 0; i < ROUNDS; i++) {
        struct ns_thrpool_config config;
        ns_thrpool_config_init(&config);
        config.max_threads = 1;
        ns_thrpool_t *tp = ns_thrpool_new(&config);
        if (tp == NULL)
            return (void *)1;
        ns_thrpool_shutdown(tp);
        if (ns_thrpool_wait(tp) != NS_SUCCESS)
            return tp;
        ns_thrpool_destroy(tp);
    }
    return unused;
}

int main(void)
{
    pthread_t threads[THREADS];
    int failed = 0;
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, make_and_end, NULL);
    for (int i = 0; i < THREADS; i++) {
        void *result;
        pthread_join(threads[i], &result);
        failed += result != NULL;
    }
    return failed;
}
PROGRAM

count=0
report() { # NAME STATUS
    count=$((count + 1))
    if [ "$2" -eq 0 ]; then
        echo "ok $count - $1"
    else
        echo "not ok $count - $1"
        head -n 40 "$work/why" | sed 's/^/# /'
    fi
}

export TSAN_OPTIONS=exitcode=66
for compiler in gcc clang; do
    for program in hand-over sigterm set-log pools; do
        $compiler -std=c11 -Wall -Wextra -Werror -g -O1 -fsanitize=thread -Iinclude "$work/$program.c" \
            -o "$work/$program" -Lbuild/lib -Wl,-rpath,"$PWD/build/lib" -lnunc-stans -lpthread \
            >"$work/why" 2>&1
        report "$compiler: $program compiles" $?
    done
    # Without random addresses: the run-time library wants them where it is used to them.
    timeout -k 5 60 setarch -R "$work/hand-over" >"$work/why" 2>&1
    report "$compiler: what is handed over is no race" $?
    timeout -k 5 60 setarch -R "$work/hand-over" race >"$work/why" 2>&1
    [ $? -eq 66 ] && grep -q 'data race' "$work/why" && ! grep -q 'hand_over\|work\b' "$work/why"
    report "$compiler: a true race is one, and the only one" $?
    timeout -k 5 60 setarch -R "$work/set-log" >"$work/why" 2>&1
    report "$compiler: what ns_set_log is given may be freed when another is set" $?
    timeout -k 5 60 setarch -R "$work/set-log" early >"$work/why" 2>&1
    [ $? -eq 66 ] && grep -q 'data race' "$work/why"
    report "$compiler: and not written before" $?
    timeout -k 5 20 setarch -R "$work/sigterm" >"$work/why" 2>&1
    report "$compiler: SIGTERM arrives while main is in ns_thrpool_wait" $?
    timeout -k 5 20 setarch -R "$work/sigterm" job >"$work/why" 2>&1
    report "$compiler: SIGTERM arrives while main is in ns_job_wait" $?
    timeout -k 5 60 setarch -R "$work/pools" >"$work/why" 2>&1
    report "$compiler: pools that several threads make and end use no descriptor at the same time" $?
done
echo "1..$count"
