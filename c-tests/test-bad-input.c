/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Bad input and exhausted resources: the call fails, the log names the function, and nothing is
 * left behind. */
#include "harness.h"

#include <limits.h>
#include <sys/prctl.h>
#include <sys/wait.h>

static struct timeval soon = {0, 1000};
static struct timeval negative_seconds = {-1, 0};
static struct timeval negative_micros = {1, -1};

/* Any pointer but NULL, to see that the call overwrites it. */
#define STALE ((struct ns_job_t *)&soon)

/* The config of a pool that records what it logs and counts what it allocates. */
static void careful_config(struct ns_thrpool_config *config)
{
    ns_thrpool_config_init(config);
    config->log_fct = recording_log;
    config->calloc_fct = counting_calloc;
    config->free_fct = counting_free;
}

/* The pool of all refused calls, and what must be the same after each. */
struct scene {
    struct ns_thrpool_t *tp;
    int ends[2];
    int fds;
    int threads;
    long blocks;
};

static int begin_scene(void **state)
{
    static struct scene scene;
    static int alone; /* how many threads there are without a pool */
    struct ns_thrpool_config config;
    careful_config(&config);
    /* The system may still count those of the pool before, though they were joined. A tool may have a
     * thread of its own, once there was another. */
    if (alone == 0) {
        pool_end(pool_of(1));
        alone = count_threads();
        for (int looks = 0; looks < 1000; looks++) {
            int threads = count_threads();
            alone = threads < alone ? threads : alone;
        }
    }
    EVENTUALLY(count_threads() <= alone);
    scene.tp = ns_thrpool_new(&config);
    socket_pair(scene.ends);
    scene.fds = count_fds();
    scene.threads = count_threads();
    scene.blocks = atomic_load(&blocks_out);
    *state = &scene;
    return scene.tp == NULL;
}

static int end_scene(void **state)
{
    struct scene *scene = *state;
    int same = count_fds() == scene->fds && count_threads() == scene->threads
               && atomic_load(&blocks_out) == scene->blocks;
    pool_end(scene->tp);
    close(scene->ends[0]);
    close(scene->ends[1]);
    return !same || atomic_load(&blocks_out) != 0;
}

/* See a call refused, with one message in the log that has the function's name and a word of the
 * reason. The call writes to &job. */
#define REFUSED(function, word, ...)                                                           \
    do {                                                                                       \
        struct ns_job_t *job = STALE;                                                          \
        int errors_before = count_logged_errors();                                             \
        assert_int_equal(function(__VA_ARGS__), NS_INVALID_REQUEST);                           \
        assert_null(job);                                                                      \
        assert_int_equal(count_logged_errors(), errors_before + 1);                            \
        if (!logged(#function ":") || !logged(word)) {                                         \
            fail_msg("%s with a bad %s logs: %s", #function, word, logged_last);               \
        }                                                                                      \
    } while (0)

/* What the library logs when it knows no pool's logger. This program replaces syslog. */
static char syslog_last[1024];
static int syslog_calls, syslog_priority;

void syslog(int priority, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(syslog_last, sizeof syslog_last, format, args);
    va_end(args);
    syslog_priority = priority;
    syslog_calls++;
}

/* See a call refused, with one message in syslog that names the function and the argument. */
#define TOLD_TO_SYSLOG(function, word, call)                                                   \
    do {                                                                                       \
        int calls_before = syslog_calls;                                                       \
        call;                                                                                  \
        assert_int_equal(syslog_calls, calls_before + 1);                                      \
        assert_int_equal(syslog_priority, LOG_LOCAL1 | LOG_ERR);                               \
        const char *start = "nunc-stans: " function ": " word;                                 \
        if (strncmp(syslog_last, start, strlen(start)) != 0) {                                 \
            fail_msg("%s with a bad %s logs: %s", function, word, syslog_last);                \
        }                                                                                      \
    } while (0)

/* As REFUSED, for calls that name no pool whose logger could be used. */
#define REFUSED_WITHOUT_POOL(function, ...)                                                    \
    do {                                                                                       \
        struct ns_job_t *job = STALE;                                                          \
        TOLD_TO_SYSLOG(#function, "tp is NULL",                                                \
                       assert_int_equal(function(NULL, __VA_ARGS__), NS_INVALID_REQUEST));     \
        assert_null(job);                                                                      \
    } while (0)

static void a_null_pool_is_refused(void **state)
{
    struct scene *s = *state;
    int fd = s->ends[0];
    REFUSED_WITHOUT_POOL(ns_create_job, NS_JOB_NONE, do_nothing, &job);
    REFUSED_WITHOUT_POOL(ns_add_job, NS_JOB_NONE, do_nothing, NULL, &job);
    REFUSED_WITHOUT_POOL(ns_add_timeout_job, &soon, NS_JOB_NONE, do_nothing, NULL, &job);
    REFUSED_WITHOUT_POOL(ns_add_signal_job, SIGUSR1, NS_JOB_NONE, do_nothing, NULL, &job);
    REFUSED_WITHOUT_POOL(ns_add_fd_job, fd, NS_JOB_READ, do_nothing, NULL, &job);
    REFUSED_WITHOUT_POOL(ns_add_fd_timeout_job, fd, &soon, NS_JOB_READ, do_nothing, NULL, &job);
    /* Two arguments are NULL here: the message may name either. */
    struct ns_job_t *job = STALE;
    TOLD_TO_SYSLOG("ns_add_io_job", "fd is NULL",
                   assert_int_equal(ns_add_io_job(NULL, NULL, NS_JOB_READ, do_nothing, NULL, &job),
                                    NS_INVALID_REQUEST));
    assert_null(job);
    job = STALE;
    TOLD_TO_SYSLOG("ns_add_io_timeout_job", "fd is NULL",
                   assert_int_equal(ns_add_io_timeout_job(NULL, NULL, &soon, NS_JOB_READ,
                                                          do_nothing, NULL, &job),
                                    NS_INVALID_REQUEST));
    assert_null(job);
    /* The same without a variable to write the job to. */
    TOLD_TO_SYSLOG("ns_add_job", "tp is NULL",
                   assert_int_equal(ns_add_job(NULL, NS_JOB_NONE, do_nothing, NULL, NULL),
                                    NS_INVALID_REQUEST));
}

static void a_null_callback_is_refused(void **state)
{
    struct scene *s = *state;
    int fd = s->ends[0];
    REFUSED(ns_create_job, "func", s->tp, NS_JOB_NONE, NULL, &job);
    REFUSED(ns_add_job, "func", s->tp, NS_JOB_NONE, NULL, NULL, &job);
    REFUSED(ns_add_timeout_job, "func", s->tp, &soon, NS_JOB_NONE, NULL, NULL, &job);
    REFUSED(ns_add_signal_job, "func", s->tp, SIGUSR1, NS_JOB_NONE, NULL, NULL, &job);
    REFUSED(ns_add_fd_job, "func", s->tp, fd, NS_JOB_READ, NULL, NULL, &job);
    REFUSED(ns_add_fd_timeout_job, "func", s->tp, fd, &soon, NS_JOB_READ, NULL, NULL, &job);
}

static void a_null_or_negative_time_is_refused(void **state)
{
    struct scene *s = *state;
    struct timeval *const times[] = {NULL, &negative_seconds, &negative_micros};
    for (size_t i = 0; i < 3; i++) {
        REFUSED(ns_add_timeout_job, "tv", s->tp, times[i], NS_JOB_NONE, do_nothing, NULL, &job);
        REFUSED(ns_add_fd_timeout_job, "tv", s->tp, s->ends[0], times[i], NS_JOB_READ, do_nothing,
                NULL, &job);
        REFUSED(ns_add_io_timeout_job, "tv", s->tp, NULL, times[i], NS_JOB_READ, do_nothing, NULL,
                &job);
    }
    /* The call did not change the caller's timeval. */
    assert_int_equal(negative_seconds.tv_sec, -1);
    assert_int_equal(negative_micros.tv_usec, -1);
}

static void a_null_place_for_a_job_is_refused_where_it_is_required(void **state)
{
    struct scene *s = *state;
    int errors = count_logged_errors();
    assert_int_equal(ns_create_job(s->tp, NS_JOB_NONE, do_nothing, NULL), NS_INVALID_REQUEST);
    assert_int_equal(count_logged_errors(), errors + 1);
    assert_true(logged("ns_create_job:") && logged("job"));
}

/* A call that needs a variable to write its job to, and is given none. */
#define NOWHERE(function, ...)                                                                 \
    do {                                                                                       \
        int errors_before = count_logged_errors();                                             \
        assert_int_equal(function(__VA_ARGS__, NULL), NS_INVALID_REQUEST);                     \
        assert_int_equal(count_logged_errors(), errors_before + 1);                            \
        if (!logged(#function ": job is NULL")) {                                              \
            fail_msg("%s with job NULL logs: %s", #function, logged_last);                     \
        }                                                                                      \
    } while (0)

static void an_unarmed_job_needs_a_place_in_every_add(void **state)
{
    struct scene *s = *state;
    int fd = s->ends[0];
    ns_job_type_t type = NS_JOB_UNARMED;
    for (int threaded = 0; threaded < 2; threaded++) {
        NOWHERE(ns_create_job, s->tp, type, do_nothing);
        NOWHERE(ns_add_job, s->tp, type, do_nothing, NULL);
        NOWHERE(ns_add_timeout_job, s->tp, &soon, type, do_nothing, NULL);
        NOWHERE(ns_add_signal_job, s->tp, SIGUSR1, type, do_nothing, NULL);
        NOWHERE(ns_add_fd_job, s->tp, fd, type | NS_JOB_READ, do_nothing, NULL);
        NOWHERE(ns_add_fd_timeout_job, s->tp, fd, &soon, type | NS_JOB_READ, do_nothing, NULL);
        type |= NS_JOB_THREAD;
    }
    /* A refused call leaves the signal's disposition alone. */
    struct sigaction now;
    assert_int_equal(sigaction(SIGUSR1, NULL, &now), 0);
    assert_true(now.sa_handler == SIG_DFL);
}

static void a_descriptor_that_is_not_open_is_refused(void **state)
{
    struct scene *s = *state;
    int closed = dup(s->ends[0]);
    close(closed);
    const int bad[] = {closed, -1, -100, INT_MIN, INT_MAX};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        REFUSED(ns_add_fd_job, "fd", s->tp, bad[i], NS_JOB_READ, do_nothing, NULL, &job);
        REFUSED(ns_add_fd_timeout_job, "fd", s->tp, bad[i], &soon, NS_JOB_WRITE, do_nothing, NULL,
                &job);
    }
}

static void an_nspr_descriptor_is_refused_where_there_is_none_or_no_nspr(void **state)
{
    struct scene *s = *state;
    /* Never dereferenced, because NSPR is not in this process. */
    struct PRFileDesc *unknown = (struct PRFileDesc *)&soon;
    REFUSED(ns_add_io_job, "fd", s->tp, NULL, NS_JOB_READ, do_nothing, NULL, &job);
    REFUSED(ns_add_io_timeout_job, "fd", s->tp, NULL, &soon, NS_JOB_READ, do_nothing, NULL, &job);
    REFUSED(ns_add_io_job, "NSPR", s->tp, unknown, NS_JOB_READ, do_nothing, NULL, &job);
    REFUSED(ns_add_io_timeout_job, "NSPR", s->tp, unknown, &soon, NS_JOB_READ, do_nothing, NULL,
            &job);
}

/* See every function refuse this type. */
static void refused_everywhere(struct scene *s, ns_job_type_t type, const char *word)
{
    int fd = s->ends[0];
    REFUSED(ns_create_job, word, s->tp, type, do_nothing, &job);
    REFUSED(ns_add_job, word, s->tp, type, do_nothing, NULL, &job);
    REFUSED(ns_add_timeout_job, word, s->tp, &soon, type, do_nothing, NULL, &job);
    REFUSED(ns_add_signal_job, word, s->tp, SIGUSR1, type, do_nothing, NULL, &job);
    REFUSED(ns_add_fd_job, word, s->tp, fd, type | NS_JOB_READ, do_nothing, NULL, &job);
    REFUSED(ns_add_fd_timeout_job, word, s->tp, fd, &soon, type | NS_JOB_READ, do_nothing, NULL,
            &job);
}

static void unknown_flags_are_refused(void **state)
{
    for (unsigned bit = 11; bit < 8 * sizeof(ns_job_type_t); bit++) {
        refused_everywhere(*state, (ns_job_type_t)1 << bit, "type");
    }
    refused_everywhere(*state, (ns_job_type_t)-1, "");
}

static void shutdown_worker_is_refused(void **state)
{
    refused_everywhere(*state, NS_JOB_SHUTDOWN_WORKER, "NS_JOB_SHUTDOWN_WORKER");
    refused_everywhere(*state, NS_JOB_SHUTDOWN_WORKER | NS_JOB_THREAD, "NS_JOB_SHUTDOWN_WORKER");
}

static void a_trigger_that_the_call_gives_no_means_for_is_refused(void **state)
{
    struct scene *s = *state;
    int fd = s->ends[0];
    const ns_job_type_t directions[] = {NS_JOB_ACCEPT, NS_JOB_CONNECT, NS_JOB_READ, NS_JOB_WRITE};
    for (size_t i = 0; i < 4; i++) {
        ns_job_type_t type = directions[i];
        REFUSED(ns_create_job, "type", s->tp, type, do_nothing, &job);
        REFUSED(ns_add_job, "type", s->tp, type, do_nothing, NULL, &job);
        REFUSED(ns_add_job, "type", s->tp, type | NS_JOB_TIMER, do_nothing, NULL, &job);
        REFUSED(ns_add_timeout_job, "type", s->tp, &soon, type, do_nothing, NULL, &job);
        REFUSED(ns_add_signal_job, "type", s->tp, SIGUSR1, type, do_nothing, NULL, &job);
    }
    REFUSED(ns_create_job, "type", s->tp, NS_JOB_SIGNAL, do_nothing, &job);
    REFUSED(ns_add_job, "type", s->tp, NS_JOB_SIGNAL, do_nothing, NULL, &job);
    REFUSED(ns_add_timeout_job, "type", s->tp, &soon, NS_JOB_SIGNAL, do_nothing, NULL, &job);
    REFUSED(ns_add_signal_job, "type", s->tp, SIGUSR1, NS_JOB_TIMER, do_nothing, NULL, &job);
    ns_job_type_t both = NS_JOB_SIGNAL | NS_JOB_READ;
    REFUSED(ns_add_fd_job, "type", s->tp, fd, both, do_nothing, NULL, &job);
    REFUSED(ns_add_fd_timeout_job, "type", s->tp, fd, &soon, both, do_nothing, NULL, &job);
}

static void io_without_a_direction_is_refused(void **state)
{
    struct scene *s = *state;
    int fd = s->ends[0];
    const ns_job_type_t types[] = {NS_JOB_NONE, NS_JOB_THREAD, NS_JOB_TIMER, NS_JOB_PRESERVE_FD};
    for (size_t i = 0; i < 4; i++) {
        REFUSED(ns_add_fd_job, "type", s->tp, fd, types[i], do_nothing, NULL, &job);
        REFUSED(ns_add_fd_timeout_job, "type", s->tp, fd, &soon, types[i], do_nothing, NULL, &job);
    }
}

static void accept_in_a_worker_is_refused(void **state)
{
    struct scene *s = *state;
    int fd = s->ends[0];
    ns_job_type_t type = NS_JOB_ACCEPT | NS_JOB_THREAD;
    REFUSED(ns_add_fd_job, "ACCEPT", s->tp, fd, type, do_nothing, NULL, &job);
    REFUSED(ns_add_fd_job, "ACCEPT", s->tp, fd, type | NS_JOB_READ, do_nothing, NULL, &job);
    REFUSED(ns_add_fd_timeout_job, "ACCEPT", s->tp, fd, &soon, type, do_nothing, NULL, &job);
}

TEST(timer_on_a_plain_io_job_means_nothing)
{
    struct ns_thrpool_t *tp = pool_of(1);
    int ends[2];
    socket_pair(ends);
    struct probe probe = PROBE(NULL, ends[0]);
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_fd_job(tp, ends[0], NS_JOB_READ | NS_JOB_TIMER | NS_JOB_UNARMED,
                                   probe_run, &probe, &job), NS_SUCCESS);
    probe_arm(job);
    loop_passes(tp, 5000);
    assert_int_equal(latch_count(&probe.runs), 0);
    assert_int_equal(send(ends[1], "x", 1, 0), 1);
    assert_latch(&probe.runs, 1);
    assert_int_equal(atomic_load(&probe.output), NS_JOB_READ);
    finish_idle(job);
    pool_end(tp);
    close(ends[1]);
}

static void signals_that_cannot_be_watched_are_refused(void **state)
{
    struct scene *s = *state;
    const int bad[] = {
        0, -1, -SIGUSR1, SIGKILL, SIGSTOP, SIGILL, SIGFPE, SIGSEGV, 32, 33, SIGRTMAX + 1, 1000,
        INT_MAX, INT_MIN,
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        REFUSED(ns_add_signal_job, "signum", s->tp, bad[i], NS_JOB_NONE, do_nothing, NULL, &job);
    }
}

TEST(times_that_are_odd_but_times_are_taken)
{
    struct ns_thrpool_t *tp = pool_of(1);
    time_t most = (time_t)(((uint64_t)1 << (sizeof(time_t) * 8 - 1)) - 1);
    struct timeval times[] = {{most, 0}, {most, 999999}, {0, LONG_MAX}, {most, LONG_MAX}};
    struct probe probe = PROBE(NULL, -1);
    for (size_t i = 0; i < 4; i++) {
        struct ns_job_t *job = NULL;
        assert_int_equal(ns_add_timeout_job(tp, &times[i], NS_JOB_UNARMED, probe_run, &probe, &job),
                         NS_SUCCESS);
        probe_arm(job);
    }
    loop_passes(tp, 5000);
    assert_int_equal(latch_count(&probe.runs), 0);
    pool_end(tp);
    assert_int_equal(latch_count(&probe.disposals), 4);
}

#define JOB_IS_NULL(function, ...)                                                             \
    TOLD_TO_SYSLOG(#function, "job is NULL",                                                   \
                   assert_int_equal(function(__VA_ARGS__), NS_INVALID_REQUEST))

TEST(null_jobs_are_refused_or_answer_nothing)
{
    JOB_IS_NULL(ns_job_rearm, NULL);
    JOB_IS_NULL(ns_job_done, NULL);
    JOB_IS_NULL(ns_job_cancel, NULL);
    JOB_IS_NULL(ns_job_wait, NULL);
    JOB_IS_NULL(ns_job_timedwait, NULL, &soon);
    JOB_IS_NULL(ns_job_set_data, NULL, NULL);
    JOB_IS_NULL(ns_job_set_done_cb, NULL, do_nothing);
    /* The message may name either. */
    TOLD_TO_SYSLOG("ns_job_timedwait", "tv is NULL",
                   assert_int_equal(ns_job_timedwait(NULL, NULL), NS_INVALID_REQUEST));
    int calls = syslog_calls;
    assert_null(ns_job_get_data(NULL));
    assert_int_equal(ns_job_get_type(NULL), 0);
    assert_int_equal(ns_job_get_output_type(NULL), 0);
    assert_null(ns_job_get_tp(NULL));
    assert_null(ns_job_get_fd(NULL));
    assert_int_equal(ns_job_get_native_fd(NULL), -1);
    assert_int_equal(ns_job_is_func(NULL, do_nothing), 0);
    assert_int_equal(ns_job_is_func(NULL, NULL), 0);
    assert_int_equal(syslog_calls, calls);
}

TEST(null_pools_are_refused_or_nothing)
{
    int calls = syslog_calls;
    ns_thrpool_config_init(NULL);
    ns_thrpool_shutdown(NULL);
    ns_thrpool_destroy(NULL);
    assert_int_equal(ns_thrpool_is_shutdown(NULL), 0);
    assert_int_equal(syslog_calls, calls);
    TOLD_TO_SYSLOG("ns_thrpool_wait", "tp is NULL",
                   assert_int_equal(ns_thrpool_wait(NULL), NS_INVALID_REQUEST));
    TOLD_TO_SYSLOG("ns_thrpool_new", "config is NULL", assert_null(ns_thrpool_new(NULL)));
}

static void bad_times_to_wait_are_refused_and_logged(void **state)
{
    struct scene *s = *state;
    struct ns_job_t *job = NULL;
    struct timeval *const times[] = {NULL, &negative_seconds, &negative_micros};
    assert_int_equal(ns_create_job(s->tp, NS_JOB_NONE, do_nothing, &job), NS_SUCCESS);
    for (size_t i = 0; i < 3; i++) {
        int errors = count_logged_errors();
        assert_int_equal(ns_job_timedwait(job, times[i]), NS_INVALID_REQUEST);
        assert_int_equal(count_logged_errors(), errors + 1);
        assert_true(logged("ns_job_timedwait:") && logged("tv"));
    }
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    EVENTUALLY(atomic_load(&blocks_out) == s->blocks);
}

TEST(an_uninitialised_config_is_refused)
{
    struct ns_thrpool_config config;
    memset(&config, 0, sizeof config);
    TOLD_TO_SYSLOG("ns_thrpool_new", "config was not initialised",
                   assert_null(ns_thrpool_new(&config)));
    /* A config full of wild pointers: calling any of them would crash. */
    memset(&config, 0xa5, sizeof config);
    TOLD_TO_SYSLOG("ns_thrpool_new", "config was not initialised",
                   assert_null(ns_thrpool_new(&config)));
    careful_config(&config);
    config.init_flag++;
    int errors = count_logged_errors();
    TOLD_TO_SYSLOG("ns_thrpool_new", "config was not initialised",
                   assert_null(ns_thrpool_new(&config)));
    /* Not even the logger. */
    assert_int_equal(count_logged_errors(), errors);
}

/* See that a pool cannot be made, that the log says so, and that nothing is left. */
static void assert_no_pool(struct ns_thrpool_config *config)
{
    int fds = count_fds();
    int threads = count_threads();
    long blocks = atomic_load(&blocks_out);
    int errors = count_logged_errors();
    assert_null(ns_thrpool_new(config));
    assert_true(count_logged_errors() > errors);
    assert_true(logged("ns_thrpool_new:"));
    assert_nothing_left(fds, threads);
    assert_int_equal(atomic_load(&blocks_out), blocks);
}

/* Whether the last error names this argument and its value. */
static int logged_argument(const char *name, size_t value)
{
    char digits[32];
    snprintf(digits, sizeof digits, "%zu", value);
    return logged(name) && logged(digits);
}

TEST(no_workers_are_refused)
{
    struct ns_thrpool_config config;
    careful_config(&config);
    config.max_threads = 0;
    assert_no_pool(&config);
    assert_true(logged("max_threads"));
}

TEST(more_workers_than_there_can_be_are_refused)
{
    struct ns_thrpool_config config;
    const size_t counts[] = {SIZE_MAX, SIZE_MAX - 1, SIZE_MAX / 8, SIZE_MAX / 8 + 1, SIZE_MAX / 16};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        careful_config(&config);
        config.max_threads = counts[i];
        assert_no_pool(&config);
        assert_true(logged_argument("max_threads", counts[i]));
    }
}

TEST(a_stack_below_the_least_is_refused_and_not_rounded)
{
    struct ns_thrpool_config config;
    const size_t least = (size_t)sysconf(_SC_THREAD_STACK_MIN);
    const size_t sizes[] = {1, 1024, least - 1};
    for (size_t i = 0; i < 3; i++) {
        careful_config(&config);
        config.stacksize = sizes[i];
        assert_no_pool(&config);
        assert_true(logged("stack"));
    }
}

TEST(a_stack_that_cannot_be_had_is_refused)
{
    struct ns_thrpool_config config;
    careful_config(&config);
    config.stacksize = NO_STACK;
    assert_no_pool(&config);
    assert_true(logged_argument("stacksize", config.stacksize));
}

static atomic_int allocations_left;

static void *counted_out_calloc(size_t count, size_t size)
{
    return atomic_fetch_sub(&allocations_left, 1) > 0 ? counting_calloc(count, size) : NULL;
}

TEST(without_memory_at_any_step_there_is_no_pool)
{
    struct ns_thrpool_config config;
    careful_config(&config);
    config.calloc_fct = counted_out_calloc;
    int failures = 0;
    for (int left = 0;; left++) {
        atomic_store(&allocations_left, left);
        int fds = count_fds();
        int threads = count_threads();
        struct ns_thrpool_t *tp = ns_thrpool_new(&config);
        if (tp != NULL) {
            atomic_store(&allocations_left, INT_MAX);
            pool_end(tp);
            break;
        }
        failures++;
        assert_true(logged("ns_thrpool_new:"));
        assert_int_equal(count_fds(), fds);
        assert_int_equal(count_threads(), threads);
    }
    assert_true(failures > 0);
    assert_int_equal(atomic_load(&blocks_out), 0);
}

TEST(without_descriptors_at_any_step_there_is_no_pool)
{
    struct ns_thrpool_config config;
    struct rlimit before;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    int first_free = dup(0);
    assert_true(first_free >= 0);
    close(first_free);
    int failures = 0;
    int fds = count_fds();
    int threads = count_threads();
    for (int left = 0;; left++) {
        careful_config(&config);
        config.max_threads = 4;
        struct rlimit few = before;
        few.rlim_cur = (rlim_t)(first_free + left);
        int errors = count_logged_errors();
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &few), 0);
        struct ns_thrpool_t *tp = ns_thrpool_new(&config);
        assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
        if (tp != NULL) {
            pool_end(tp);
            break;
        }
        failures++;
        assert_int_equal(count_logged_errors(), errors + 1);
        assert_true(logged("ns_thrpool_new:"));
        assert_int_equal(count_fds(), fds);
        assert_int_equal(count_threads(), threads);
        assert_int_equal(atomic_load(&blocks_out), 0);
    }
    /* The pipe and the poller need three. */
    assert_true(failures >= 3);
    assert_int_equal(count_fds(), fds);
}

/* Runs in a process of its own, since it lowers the limits. Returns 0 if every pool that could not
 * be made left nothing behind, and at least one could not be made; 77 if the limit does not bind
 * here. */
static int without_threads(int resource, rlim_t first, rlim_t step, int steps)
{
    struct ns_thrpool_config config;
    int failures = 0;
    int fds = count_fds();
    for (int i = 0; i < steps; i++) {
        rlim_t limit = first + (rlim_t)i * step;
        struct rlimit few = {limit, first + (rlim_t)steps * step};
        careful_config(&config);
        config.max_threads = 8;
        config.stacksize = 8 << 20;
        int errors = count_logged_errors();
        if (setrlimit(resource, &few) != 0) {
            return 77;
        }
        struct ns_thrpool_t *tp = ns_thrpool_new(&config);
        if (tp != NULL) {
            ns_thrpool_destroy(tp);
            break;
        }
        failures++;
        if (count_logged_errors() != errors + 1 || !logged("ns_thrpool_new:")) {
            return 1;
        }
        double end = now_seconds() + LIMIT_SECONDS;
        while (count_threads() != 1 && now_seconds() < end) {
            sched_yield();
        }
        if (count_threads() != 1) {
            return 2;
        }
        if (count_fds() != fds) {
            return 3;
        }
        if (atomic_load(&blocks_out) != 0) {
            return 4;
        }
    }
    return failures > 0 ? 0 : 77;
}

/* Bytes of address space that this process has. */
static rlim_t address_space(void)
{
    FILE *file = fopen("/proc/self/statm", "r");
    unsigned long pages = 0;
    if (file == NULL || fscanf(file, "%lu", &pages) != 1) {
        pages = 0;
    }
    if (file != NULL) {
        fclose(file);
    }
    return (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE);
}

static int without_address_space(void)
{
    /* Room for none of the threads, for some of them, for all. */
    return without_threads(RLIMIT_AS, address_space() + (2 << 20), 5 << 20, 60);
}

static int without_processes(void)
{
    /* Root is exempt from the limit. */
    if (geteuid() == 0) {
        if (setgid(65534) != 0 || setuid(65534) != 0) {
            return 77;
        }
        /* A process that has changed its user can't look at its own descriptors. */
        prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
        /* The user's other processes count too, so begin with no room and raise the limit step by
         * step. */
        return without_threads(RLIMIT_NPROC, 1, 1, 100);
    }
    return 77;
}

static void in_a_child(int (*test)(void))
{
    if (scaled(100) != 100) {
        skip(); /* valgrind needs the resources itself */
    }
    pid_t child = fork();
    assert_int_not_equal(child, -1);
    if (child == 0) {
        _exit(test());
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 77) {
        skip(); /* nothing here keeps this user from having threads */
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

TEST(without_room_for_stacks_at_any_step_there_is_no_pool)
{
    in_a_child(without_address_space);
}

TEST(without_processes_at_any_step_there_is_no_pool)
{
    in_a_child(without_processes);
}

#define WITH_SCENE(test) cmocka_unit_test_setup_teardown(test, begin_scene, end_scene)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SCENE(a_null_pool_is_refused),
        WITH_SCENE(a_null_callback_is_refused),
        WITH_SCENE(a_null_or_negative_time_is_refused),
        WITH_SCENE(a_null_place_for_a_job_is_refused_where_it_is_required),
        WITH_SCENE(an_unarmed_job_needs_a_place_in_every_add),
        WITH_SCENE(a_descriptor_that_is_not_open_is_refused),
        WITH_SCENE(an_nspr_descriptor_is_refused_where_there_is_none_or_no_nspr),
        WITH_SCENE(unknown_flags_are_refused),
        WITH_SCENE(shutdown_worker_is_refused),
        WITH_SCENE(a_trigger_that_the_call_gives_no_means_for_is_refused),
        WITH_SCENE(io_without_a_direction_is_refused),
        WITH_SCENE(accept_in_a_worker_is_refused),
        cmocka_unit_test(timer_on_a_plain_io_job_means_nothing),
        WITH_SCENE(signals_that_cannot_be_watched_are_refused),
        WITH_SCENE(bad_times_to_wait_are_refused_and_logged),
        cmocka_unit_test(times_that_are_odd_but_times_are_taken),
        cmocka_unit_test(null_jobs_are_refused_or_answer_nothing),
        cmocka_unit_test(null_pools_are_refused_or_nothing),
        cmocka_unit_test(an_uninitialised_config_is_refused),
        cmocka_unit_test(no_workers_are_refused),
        cmocka_unit_test(more_workers_than_there_can_be_are_refused),
        cmocka_unit_test(a_stack_below_the_least_is_refused_and_not_rounded),
        cmocka_unit_test(a_stack_that_cannot_be_had_is_refused),
        cmocka_unit_test(without_memory_at_any_step_there_is_no_pool),
        cmocka_unit_test(without_descriptors_at_any_step_there_is_no_pool),
        cmocka_unit_test(without_room_for_stacks_at_any_step_there_is_no_pool),
        cmocka_unit_test(without_processes_at_any_step_there_is_no_pool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
