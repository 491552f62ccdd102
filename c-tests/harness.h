/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the C tests share. Each file of tests is one program; run.sh gives it a time limit, so that
 * a hang is reported as a failure of that program.
 *
 * No test relies on a sleep. A test that waits for something waits on a latch, or with EVENTUALLY,
 * and fails after LIMIT_SECONDS. A test that must see that something does NOT happen waits for
 * something that would come later (a later job, a shutdown and wait).
 */
#ifndef HARNESS_H
#define HARNESS_H

#define _GNU_SOURCE
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include <nunc-stans.h>

/* Whether NS_SKIP, a list of words, names this test: what the machine, or an event framework, can't do. */
static inline int is_left_out(const char *name)
{
    const char *list = getenv("NS_SKIP");
    size_t length = strlen(name);
    for (const char *at = list; at != NULL && (at = strstr(at, name)) != NULL; at += length) {
        if ((at == list || at[-1] == ' ') && (at[length] == ' ' || at[length] == '\0')) {
            return 1;
        }
    }
    return 0;
}

static inline void leave_out(void **state)
{
    (void)state;
    skip();
}

/* As cmocka_run_group_tests, which this replaces, and leaves out the tests that NS_SKIP names. */
static inline int run_cases(const char *group, const struct CMUnitTest *tests, size_t count,
                            CMFixtureFunction setup, CMFixtureFunction teardown)
{
    struct CMUnitTest *chosen = calloc(count, sizeof *chosen);
    memcpy(chosen, tests, count * sizeof *chosen);
    for (size_t i = 0; i < count; i++) {
        if (is_left_out(tests[i].name)) {
            chosen[i].test_func = leave_out;
            chosen[i].setup_func = chosen[i].teardown_func = NULL;
        }
    }
    int failed = _cmocka_run_group_tests(group, chosen, count, setup, teardown);
    free(chosen);
    return failed;
}

#undef cmocka_run_group_tests
#define cmocka_run_group_tests(tests, setup, teardown)                                         \
    run_cases(#tests, tests, sizeof(tests) / sizeof *(tests), setup, teardown)

/* How long a test waits for something that must happen, however slow the machine. */
#define LIMIT_SECONDS 30

#define UNUSED(x) ((void)(x))

/* A stack for which there is no room. In an address space of 32 bits there may be for a fourth of it. */
#define NO_STACK (sizeof(size_t) > 4 ? SIZE_MAX / 4 : SIZE_MAX / 16 * 15)

/* The head of a test that needs nothing of what cmocka hands it. */
#define TEST(name) static void name(void **state __attribute__((unused)))

/* A time that does not come during a test, and one that has come. */
static struct timeval far_away __attribute__((unused)) = {1000000, 0};
static struct timeval at_once __attribute__((unused)) = {0, 0};

/* Where a job runs: in the loop, or in a worker. for EACH_THREAD(i) counts through them. */
static const ns_job_type_t where[] __attribute__((unused)) = {NS_JOB_NONE, NS_JOB_THREAD};
#define EACH_THREAD(i) (size_t i = 0; i < 2; i++)

/* Seconds on the monotonic clock. */
static inline double now_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/*
 * Lets some time pass, so that another thread most likely gets as far as the case is about. No test may
 * need that it does: it only shows less then.
 */
static inline void let_time_pass(long microseconds)
{
    struct timespec time = {microseconds / 1000000, microseconds % 1000000 * 1000};
    nanosleep(&time, NULL);
}

/* Poll until cond holds. Fail the test if it does not within LIMIT_SECONDS. */
#define EVENTUALLY(cond)                                                                       \
    do {                                                                                       \
        double eventually_end = now_seconds() + LIMIT_SECONDS;                                 \
        while (!(cond)) {                                                                      \
            if (now_seconds() > eventually_end) {                                              \
                fail_msg("never came to hold: %s", #cond);                                     \
            }                                                                                  \
            struct timespec eventually_pause = {0, 200000};                                    \
            nanosleep(&eventually_pause, NULL);                                                \
        }                                                                                      \
    } while (0)

/* n, or a hundredth of it (at least 1) if NS_SLOW is set, as it is under valgrind. */
static inline int scaled(int n)
{
    if (getenv("NS_SLOW") == NULL) {
        return n;
    }
    return n < 200 ? 1 : n / 100;
}

/* Seconds of CPU time that this process has used. */
static inline double cpu_seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

/* A count that threads add to and wait for. */
struct latch {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    long count;
};

#define LATCH_INIT {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0}

static inline void latch_add(struct latch *latch, long n)
{
    pthread_mutex_lock(&latch->lock);
    latch->count += n;
    pthread_cond_broadcast(&latch->changed);
    pthread_mutex_unlock(&latch->lock);
}

static inline long latch_count(struct latch *latch)
{
    pthread_mutex_lock(&latch->lock);
    long count = latch->count;
    pthread_mutex_unlock(&latch->lock);
    return count;
}

/* Wait until the count is at least n. Returns 0 if the time ran out: for callbacks, which can't
 * fail a test. */
static inline int latch_reaches(struct latch *latch, long n)
{
    struct timespec end;
    clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += LIMIT_SECONDS;
    pthread_mutex_lock(&latch->lock);
    int error = 0;
    while (latch->count < n && error == 0) {
        error = pthread_cond_timedwait(&latch->changed, &latch->lock, &end);
    }
    int reached = latch->count >= n;
    pthread_mutex_unlock(&latch->lock);
    return reached;
}

#define assert_latch(latch, n)                                                                 \
    do {                                                                                       \
        if (!latch_reaches((latch), (n))) {                                                    \
            fail_msg("%s stays at %ld, wanted %ld", #latch, latch_count(latch), (long)(n));    \
        }                                                                                      \
    } while (0)

/* A logger that drops all messages, so that tests that provoke errors don't fill syslog. */
static inline void quiet_log(int priority, const char *format, va_list args)
{
    UNUSED(priority);
    UNUSED(format);
    UNUSED(args);
}

/* A pool of n workers with this logger and this allocator; NULL stands for the library's own. */
static inline struct ns_thrpool_t *pool_with(size_t workers,
                                             void (*log_fct)(int, const char *, va_list),
                                             void *(*calloc_fct)(size_t, size_t),
                                             void (*free_fct)(void *))
{
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.max_threads = workers;
    config.log_fct = log_fct;
    config.calloc_fct = calloc_fct;
    config.free_fct = free_fct;
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    assert_non_null(tp);
    return tp;
}

/* A pool of n workers with this logger. */
static inline struct ns_thrpool_t *pool_logging_to(size_t workers,
                                                   void (*log_fct)(int, const char *, va_list))
{
    return pool_with(workers, log_fct, NULL, NULL);
}

/* A pool of n workers with a silent log. */
static inline struct ns_thrpool_t *pool_of(size_t workers)
{
    return pool_logging_to(workers, quiet_log);
}

/* Shut down, wait, destroy. */
static inline void pool_end(struct ns_thrpool_t *tp)
{
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    ns_thrpool_destroy(tp);
}

/* A job's data: what its callback has seen, and what it is to do. */
struct probe {
    struct latch runs;
    struct latch disposals;
    atomic_ulong output;                /* of the last run */
    atomic_int thread;                  /* of the last run, as gettid says */
    void (*act)(struct ns_job_t *job);  /* may be NULL */
    int fd;                             /* for act to use */
};

#define PROBE(action, descriptor) {LATCH_INIT, LATCH_INIT, 0, 0, (action), (descriptor)}

/* The callback of a job whose data is a probe. */
static inline void probe_run(struct ns_job_t *job)
{
    struct probe *probe = ns_job_get_data(job);
    atomic_store(&probe->output, ns_job_get_output_type(job));
    atomic_store(&probe->thread, (int)gettid());
    if (probe->act != NULL) {
        probe->act(job);
    }
    latch_add(&probe->runs, 1);
}

/* Its done callback. */
static inline void probe_gone(struct ns_job_t *job)
{
    struct probe *probe = ns_job_get_data(job);
    latch_add(&probe->disposals, 1);
}

/* What a probe does: finish. */
static inline void finish_job(struct ns_job_t *job)
{
    ns_job_done(job);
}

/* Give an unarmed job a done callback, and arm it. */
static inline struct ns_job_t *arm_with(struct ns_job_t *job, ns_job_func_t gone)
{
    assert_int_equal(ns_job_set_done_cb(job, gone), NS_SUCCESS);
    assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
    return job;
}

/* Have the done callback of an unarmed job report to its probe, and arm it. */
static inline struct ns_job_t *probe_arm(struct ns_job_t *job)
{
    return arm_with(job, probe_gone);
}

/* Add a job for probe->fd, with a time-out of usec microseconds; 0 means none. */
static inline struct ns_job_t *probe_fd(struct ns_thrpool_t *tp, ns_job_type_t type, long usec,
                                        struct probe *probe)
{
    struct timeval tv = {0, usec};
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_fd_timeout_job(tp, probe->fd, &tv, type | NS_JOB_UNARMED, probe_run,
                                           probe, &job), NS_SUCCESS);
    return probe_arm(job);
}

/* Wait until a job is idle, and finish it. */
static inline void finish_idle(struct ns_job_t *job)
{
    assert_int_equal(ns_job_wait(job), NS_SUCCESS);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
}

/* Finish a job when it is idle, unless its callback has done so, and see it go. */
static inline void probe_finish(struct ns_job_t *job, struct probe *probe)
{
    ns_result_t result = ns_job_wait(job);
    assert_true(result == NS_SUCCESS || result == NS_DELETING);
    if (result == NS_SUCCESS) {
        assert_int_equal(ns_job_done(job), NS_SUCCESS);
    }
    assert_latch(&probe->disposals, 1);
}

/* Cancel a job in whatever state it is, and see it go. */
static inline void probe_cancel(struct ns_job_t *job, struct probe *probe)
{
    ns_result_t result = ns_job_cancel(job);
    assert_true(result == NS_SUCCESS || result == NS_RUNNING);
    assert_latch(&probe->disposals, 1);
}

/* Let usec microseconds pass in the pool's loop. Whatever was due before has fired by then. */
static inline void loop_passes(struct ns_thrpool_t *tp, long usec)
{
    struct probe probe = PROBE(finish_job, -1);
    struct timeval tv = {0, usec};
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_timeout_job(tp, &tv, NS_JOB_UNARMED, probe_run, &probe, &job),
                     NS_SUCCESS);
    probe_arm(job);
    assert_latch(&probe.disposals, 1);
}

/* Whether a descriptor number is open. */
static inline int fd_is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

/* Duplicate fd to this number, if it is free. */
static inline int gets_number(int fd, int number)
{
    int got = fcntl(fd, F_DUPFD_CLOEXEC, number);
    if (got != number) {
        close(got);
    }
    return got == number;
}

/*
 * Move an open file to a number that was closed, as soon as it is free. A pool opens files too: over some
 * frameworks it reads a list of the kernel's, some milliseconds after a number was closed. So the number
 * may be the pool's for a moment. Open the file before the number is closed, or it gets it by itself.
 */
static inline void move_to_closed(int fd, int number)
{
    EVENTUALLY(gets_number(fd, number));
    close(fd);
}

/* A number that is closed by now; or will be in a moment, because the pool has it. */
static inline void assert_closed(int fd)
{
    EVENTUALLY(!fd_is_open(fd));
}

/* How many descriptors this process has open. */
static inline int count_fds(void)
{
    int count = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (readdir(dir) != NULL) {
        count++;
    }
    closedir(dir);
    return count - 3; /* ".", "..", and the directory itself */
}

/* Whether a thread has begun to end, or has gone: it may be joined by then, and is listed a moment longer. */
static inline int is_ending(const char *id)
{
    char path[320], text[512] = "";
    unsigned flags = 0;
    snprintf(path, sizeof path, "/proc/self/task/%s/stat", id);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return errno == ENOENT;
    }
    int gone = read(fd, text, sizeof text - 1) < 0 && errno == ESRCH;
    close(fd);
    /* The name, in parentheses, may contain anything. The seventh word behind it is the flags. */
    const char *rest = strrchr(text, ')');
    if (rest != NULL) {
        sscanf(rest + 1, " %*c %*d %*d %*d %*d %*d %u", &flags);
    }
    return gone || (flags & 4) != 0; /* the kernel's PF_EXITING */
}

/* How many threads this process has. */
static inline int count_threads(void)
{
    int count = 0;
    DIR *dir = opendir("/proc/self/task");
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        count += entry->d_name[0] != '.' && !is_ending(entry->d_name);
    }
    closedir(dir);
    return count;
}

/* How often a thread of this name has gone to sleep. -1 if there is none. */
static inline long sleeps_of_named(const char *wanted)
{
    long sleeps = -1;
    DIR *dir = opendir("/proc/self/task");
    struct dirent *entry;
    while (sleeps < 0 && (entry = readdir(dir)) != NULL) {
        char path[300], line[100];
        snprintf(path, sizeof path, "/proc/self/task/%s/status", entry->d_name);
        FILE *file = fopen(path, "r");
        int found = 0;
        while (file != NULL && fgets(line, sizeof line, file) != NULL) {
            char name[20];
            if (sscanf(line, "Name: %19s", name) == 1) {
                found = strcmp(name, wanted) == 0;
            } else if (found) {
                sscanf(line, "voluntary_ctxt_switches: %ld", &sleeps);
            }
        }
        if (file != NULL) {
            fclose(file);
        }
    }
    closedir(dir);
    return sleeps;
}

/* See that there are as many descriptors and threads as before. Under qemu-user (NS_QEMU) a thread that was
 * joined lives on for a moment, and was perhaps counted before. */
static inline void assert_nothing_left(int fds, int threads)
{
    assert_int_equal(count_fds(), fds);
    EVENTUALLY(count_threads() == threads || (getenv("NS_QEMU") != NULL && count_threads() < threads));
}

/* A callback that reports that it has begun, and does not return until the gate is opened. */
struct gate {
    struct latch begun;
    struct latch leave;
};

#define GATE_INIT {LATCH_INIT, LATCH_INIT}

static inline void stay_in_gate(struct gate *gate)
{
    latch_add(&gate->begun, 1);
    latch_reaches(&gate->leave, 1);
}

/* As a callback: the job's data is a gate. */
static inline void gate_callback(struct ns_job_t *job)
{
    stay_in_gate(ns_job_get_data(job));
}

/* Keep a worker, or for type 0 the loop, in a callback until the gate is opened. */
static inline struct ns_job_t *occupy(struct ns_thrpool_t *tp, ns_job_type_t type,
                                      struct gate *gate)
{
    struct ns_job_t *job = NULL;
    long begun = latch_count(&gate->begun);
    assert_int_equal(ns_add_job(tp, type, gate_callback, gate, &job), NS_SUCCESS);
    assert_latch(&gate->begun, begun + 1);
    return job;
}

/* As a callback or a done callback: the job's data is a latch. */
static inline void count_callback(struct ns_job_t *job)
{
    latch_add(ns_job_get_data(job), 1);
}

/* As a callback: the same, and the last run. */
static inline void count_and_finish(struct ns_job_t *job)
{
    count_callback(job);
    ns_job_done(job);
}

/* A callback that has nothing to do, or never runs. */
static inline void do_nothing(struct ns_job_t *job)
{
    UNUSED(job);
}

/* Connected sockets that do not block. */
static inline void socket_pair(int ends[2])
{
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
}

/* An allocator that counts the blocks in use. */
static atomic_long blocks_out;

static inline void *counting_calloc(size_t count, size_t size)
{
    void *block = calloc(count, size);
    if (block != NULL) {
        atomic_fetch_add(&blocks_out, 1);
    }
    return block;
}

static inline void counting_free(void *block)
{
    if (block != NULL) {
        atomic_fetch_sub(&blocks_out, 1);
    }
    free(block);
}

/* A logger that counts the messages of LOG_WARNING. */
static atomic_int warnings;

static inline void count_warnings(int priority, const char *format, va_list args)
{
    UNUSED(format);
    UNUSED(args);
    if (priority == LOG_WARNING) {
        atomic_fetch_add(&warnings, 1);
    }
}

/* A logger that counts the messages of LOG_ERR and keeps the last. */
static pthread_mutex_t logged_lock = PTHREAD_MUTEX_INITIALIZER;
static char logged_last[1024];
static int logged_errors;

static inline void recording_log(int priority, const char *format, va_list args)
{
    if (priority != LOG_ERR) {
        return;
    }
    pthread_mutex_lock(&logged_lock);
    vsnprintf(logged_last, sizeof logged_last, format, args);
    logged_errors++;
    pthread_mutex_unlock(&logged_lock);
}

static inline int count_logged_errors(void)
{
    pthread_mutex_lock(&logged_lock);
    int errors = logged_errors;
    pthread_mutex_unlock(&logged_lock);
    return errors;
}

/* Whether the last error in the log contains this text. */
static inline int logged(const char *what)
{
    pthread_mutex_lock(&logged_lock);
    int found = strstr(logged_last, what) != NULL;
    pthread_mutex_unlock(&logged_lock);
    return found;
}

/* A pool of n workers whose blocks are counted in blocks_out, and whose errors are recorded. */
static inline struct ns_thrpool_t *counting_pool(size_t workers)
{
    return pool_with(workers, recording_log, counting_calloc, counting_free);
}

/* For qsort. */
static inline int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

#endif
