/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A good citizen of its process: fork, exec, exit, threads, masks, stacks, cancellation. */
#include "harness.h"

#include <sys/wait.h>

/* Run a function in a child, and tell how the child ended. */
static int in_child(void (*body)(void *), void *arg)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        /* A child that hangs is killed. Valgrind's children are slow. */
        alarm(LIMIT_SECONDS);
        body(arg);
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

#define assert_exits(status, code)                                                             \
    do {                                                                                       \
        int exits_status = (status);                                                           \
        if (!WIFEXITED(exits_status) || WEXITSTATUS(exits_status) != (code)) {                 \
            fail_msg("wait status %#x, wanted exit status %d", exits_status, (code));          \
        }                                                                                      \
    } while (0)

/* In a child there is no test to fail: say what failed, and end. */
#define CHILD_CHECK(cond)                                                                      \
    do {                                                                                       \
        if (!(cond)) {                                                                         \
            fprintf(stderr, "# child: line %d: %s\n", __LINE__, #cond);                        \
            _exit(99);                                                                         \
        }                                                                                      \
    } while (0)

/* Descriptors */

TEST(all_descriptors_are_closed_by_exec)
{
    char was_open[1024];
    for (int fd = 0; fd < 1024; fd++) {
        was_open[fd] = (char)fd_is_open(fd);
    }
    struct ns_thrpool_t *tp = pool_of(3);
    loop_passes(tp, 0);
    int made = 0;
    for (int fd = 0; fd < 1024; fd++) {
        int flags = fcntl(fd, F_GETFD);
        if (flags >= 0 && !was_open[fd]) {
            made++;
            assert_true(flags & FD_CLOEXEC);
        }
    }
    assert_true(made >= 3);
    pool_end(tp);
}

/* fork */

struct parent {
    struct ns_thrpool_t *tp;
    struct ns_job_t *armed;
    struct ns_job_t *waiting;
    struct probe reads, idle, signals;
    int ends[2];
    int pool_fds;
};

static void parent_begin(struct parent *parent)
{
    memset(parent, 0, sizeof(*parent));
    socket_pair(parent->ends);
    int without = count_fds();
    parent->tp = pool_of(2);
    parent->pool_fds = count_fds() - without;
    parent->reads = (struct probe)PROBE(NULL, parent->ends[0]);
    parent->idle = (struct probe)PROBE(NULL, -1);
    parent->signals = (struct probe)PROBE(NULL, -1);
    parent->armed = probe_fd(parent->tp, NS_JOB_READ | NS_JOB_PRESERVE_FD, 0, &parent->reads);
    assert_int_equal(ns_create_job(parent->tp, NS_JOB_THREAD, probe_run, &parent->waiting),
                     NS_SUCCESS);
    assert_int_equal(ns_job_set_data(parent->waiting, &parent->idle), NS_SUCCESS);
    assert_int_equal(ns_job_set_done_cb(parent->waiting, probe_gone), NS_SUCCESS);
    loop_passes(parent->tp, 0);
}

/* The parent's pool works as if there had been no child. */
static void parent_end(struct parent *parent)
{
    assert_int_equal(write(parent->ends[1], "x", 1), 1);
    assert_latch(&parent->reads.runs, 1);
    assert_int_equal(ns_job_wait(parent->armed), NS_SUCCESS);
    assert_int_equal(ns_job_done(parent->armed), NS_SUCCESS);
    assert_latch(&parent->reads.disposals, 1);
    assert_int_equal(ns_job_rearm(parent->waiting), NS_SUCCESS);
    assert_latch(&parent->idle.runs, 1);
    assert_int_equal(ns_job_wait(parent->waiting), NS_SUCCESS);
    assert_int_equal(ns_job_done(parent->waiting), NS_SUCCESS);
    pool_end(parent->tp);
    assert_int_equal(latch_count(&parent->idle.disposals), 1);
    close(parent->ends[0]);
    close(parent->ends[1]);
}

static void call_everything_in_child(void *arg)
{
    struct parent *parent = arg;
    struct ns_thrpool_t *tp = parent->tp;
    struct timeval tv = {1, 0};
    struct ns_job_t *job = NULL;
    CHILD_CHECK(ns_add_job(tp, 0, finish_job, NULL, &job) == NS_SHUTDOWN && job == NULL);
    CHILD_CHECK(ns_add_job(tp, NS_JOB_THREAD, finish_job, NULL, NULL) == NS_SHUTDOWN);
    CHILD_CHECK(ns_create_job(tp, 0, finish_job, &job) == NS_SHUTDOWN);
    CHILD_CHECK(ns_add_timeout_job(tp, &tv, 0, finish_job, NULL, NULL) == NS_SHUTDOWN);
    CHILD_CHECK(ns_add_signal_job(tp, SIGUSR1, 0, finish_job, NULL, NULL) == NS_SHUTDOWN);
    CHILD_CHECK(ns_add_fd_job(tp, parent->ends[0], NS_JOB_READ, finish_job, NULL, NULL) ==
                NS_SHUTDOWN);
    CHILD_CHECK(ns_add_fd_timeout_job(tp, parent->ends[0], &tv, NS_JOB_READ, finish_job, NULL,
                                      NULL) == NS_SHUTDOWN);
    CHILD_CHECK(ns_job_rearm(parent->waiting) == NS_SHUTDOWN);
    CHILD_CHECK(ns_job_done(parent->waiting) == NS_SHUTDOWN);
    CHILD_CHECK(ns_job_cancel(parent->armed) == NS_SHUTDOWN);
    CHILD_CHECK(ns_job_wait(parent->armed) == NS_SHUTDOWN);
    CHILD_CHECK(ns_job_timedwait(parent->armed, &tv) == NS_SHUTDOWN);
    CHILD_CHECK(ns_job_set_data(parent->waiting, NULL) == NS_SHUTDOWN);
    CHILD_CHECK(ns_job_set_done_cb(parent->waiting, NULL) == NS_SHUTDOWN);
    CHILD_CHECK(ns_thrpool_wait(tp) == NS_SHUTDOWN);
    ns_thrpool_shutdown(tp);
    CHILD_CHECK(ns_job_get_data(parent->armed) == &parent->reads);
    CHILD_CHECK(ns_job_get_type(parent->armed) ==
                (NS_JOB_READ | NS_JOB_PRESERVE_FD | NS_JOB_TIMER));
    CHILD_CHECK(ns_job_get_native_fd(parent->armed) == parent->ends[0]);
    CHILD_CHECK(ns_job_get_tp(parent->armed) == tp);
    CHILD_CHECK(ns_job_get_output_type(parent->armed) == 0);
    CHILD_CHECK(ns_job_is_func(parent->armed, probe_run) == 1);
    CHILD_CHECK(latch_count(&parent->reads.runs) == 0);
}

TEST(fork_makes_functions_answer_shutdown_and_getters_work_in_the_child)
{
    struct parent parent;
    parent_begin(&parent);
    assert_exits(in_child(call_everything_in_child, &parent), 0);
    parent_end(&parent);
}

static void destroy_in_child(void *arg)
{
    struct parent *parent = arg;
    int before = count_fds();
    ns_thrpool_destroy(parent->tp);
    CHILD_CHECK(before - count_fds() == parent->pool_fds);
    CHILD_CHECK(fd_is_open(parent->ends[0]));
    CHILD_CHECK(latch_count(&parent->reads.disposals) == 0);
    CHILD_CHECK(latch_count(&parent->idle.disposals) == 0);
}

TEST(destroy_in_the_child_closes_its_descriptors_and_spares_the_parent)
{
    struct parent parent;
    parent_begin(&parent);
    assert_exits(in_child(destroy_in_child, &parent), 0);
    parent_end(&parent);
}

static void make_a_pool_in_child(void *arg)
{
    struct parent *parent = arg;
    for (int destroyed = 0; destroyed < 2; destroyed++) {
        struct ns_thrpool_config config;
        ns_thrpool_config_init(&config);
        config.max_threads = 2;
        config.log_fct = quiet_log;
        struct ns_thrpool_t *tp = ns_thrpool_new(&config);
        CHILD_CHECK(tp != NULL);
        struct latch runs = LATCH_INIT;
        struct timeval tv = {0, 1000};
        struct ns_job_t *job = NULL;
        CHILD_CHECK(ns_add_timeout_job(tp, &tv, NS_JOB_THREAD, count_callback, &runs, &job) ==
                    NS_SUCCESS);
        CHILD_CHECK(latch_reaches(&runs, 1));
        CHILD_CHECK(ns_job_wait(job) == NS_SUCCESS);
        CHILD_CHECK(ns_job_done(job) == NS_SUCCESS);
        CHILD_CHECK(ns_add_signal_job(tp, SIGUSR1, 0, count_callback, &runs, &job) == NS_SUCCESS);
        CHILD_CHECK(raise(SIGUSR1) == 0);
        CHILD_CHECK(latch_reaches(&runs, 2));
        CHILD_CHECK(ns_job_wait(job) == NS_SUCCESS);
        CHILD_CHECK(ns_job_done(job) == NS_SUCCESS);
        ns_thrpool_shutdown(tp);
        CHILD_CHECK(ns_thrpool_wait(tp) == NS_SUCCESS);
        ns_thrpool_destroy(tp);
        if (!destroyed) {
            ns_thrpool_destroy(parent->tp);
        }
    }
}

TEST(child_can_make_a_pool_of_its_own)
{
    struct parent parent;
    parent_begin(&parent);
    assert_exits(in_child(make_a_pool_in_child, &parent), 0);
    parent_end(&parent);
}

static atomic_int got_in_child;

static void count_in_child(int signum)
{
    UNUSED(signum);
    atomic_fetch_add(&got_in_child, 1);
}

static void get_signals_in_child(void *arg)
{
    UNUSED(arg);
    for (int i = 0; i < 100; i++) {
        CHILD_CHECK(raise(SIGUSR1) == 0);
    }
    CHILD_CHECK(atomic_load(&got_in_child) == 100);
}

TEST(signal_in_the_child_does_not_reach_the_parent)
{
    struct parent parent;
    parent_begin(&parent);
    signal(SIGUSR1, count_in_child);
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_signal_job(parent.tp, SIGUSR1, NS_JOB_PERSIST | NS_JOB_UNARMED,
                                       probe_run, &parent.signals, &job), NS_SUCCESS);
    probe_arm(job);
    loop_passes(parent.tp, 0);
    assert_exits(in_child(get_signals_in_child, &parent), 0);
    loop_passes(parent.tp, 10000);
    assert_int_equal(latch_count(&parent.signals.runs), 0);
    assert_int_equal(raise(SIGUSR1), 0);
    assert_latch(&parent.signals.runs, 1);
    ns_job_cancel(job);
    assert_latch(&parent.signals.disposals, 1);
    signal(SIGUSR1, SIG_DFL);
    assert_int_equal(atomic_load(&got_in_child), 0);
    parent_end(&parent);
}

static atomic_int stop_forking_beside;

static void *add_and_watch(void *arg)
{
    while (!atomic_load(&stop_forking_beside)) {
        struct probe probe = PROBE(finish_job, -1);
        struct ns_job_t *job = NULL;
        if (ns_add_signal_job(arg, SIGUSR2, NS_JOB_UNARMED, probe_run, &probe, &job) ==
            NS_SUCCESS) {
            ns_job_set_done_cb(job, probe_gone);
            ns_job_done(job);
            latch_reaches(&probe.disposals, 1);
        }
    }
    return NULL;
}

TEST(fork_beside_busy_threads_leaves_a_child_that_works)
{
    struct parent parent;
    parent_begin(&parent);
    pthread_t thread;
    pthread_create(&thread, NULL, add_and_watch, parent.tp);
    int status = 0;
    for (int i = 0; i < scaled(200) && status == 0; i++) {
        status = in_child(make_a_pool_in_child, &parent);
    }
    atomic_store(&stop_forking_beside, 1);
    pthread_join(thread, NULL);
    assert_exits(status, 0);
    parent_end(&parent);
}

static atomic_int stop_signalling;
static pthread_t signalled[4];

static void *take_signals(void *unused)
{
    UNUSED(unused);
    while (!atomic_load(&stop_signalling)) {
        sched_yield();
    }
    return NULL;
}

static void *send_signals(void *unused)
{
    UNUSED(unused);
    for (unsigned i = 0; !atomic_load(&stop_signalling); i++) {
        pthread_kill(signalled[i % 4], SIGUSR1);
    }
    return NULL;
}

static void watch_another_signal_in_child(void *unused)
{
    UNUSED(unused);
    struct ns_thrpool_config config;
    struct ns_job_t *job = NULL;
    ns_thrpool_config_init(&config);
    config.log_fct = quiet_log;
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    CHILD_CHECK(tp != NULL);
    CHILD_CHECK(ns_add_signal_job(tp, SIGUSR2, 0, finish_job, NULL, &job) == NS_SUCCESS);
}

TEST(fork_while_other_threads_handle_signals_leaves_a_child_that_can_watch)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct probe probe = PROBE(NULL, -1);
    struct ns_job_t *job = NULL;
    pthread_t sender;
    assert_int_equal(ns_add_signal_job(tp, SIGUSR1, NS_JOB_PERSIST | NS_JOB_UNARMED, probe_run,
                                       &probe, &job), NS_SUCCESS);
    probe_arm(job);
    atomic_store(&stop_signalling, 0);
    for (int i = 0; i < 4; i++) {
        pthread_create(&signalled[i], NULL, take_signals, NULL);
    }
    pthread_create(&sender, NULL, send_signals, NULL);
    assert_latch(&probe.runs, 1);
    int status = 0;
    double end = now_seconds() + 1.5;
    for (int i = 0; i < 60 && status == 0 && now_seconds() < end; i++) {
        status = in_child(watch_another_signal_in_child, NULL);
    }
    atomic_store(&stop_signalling, 1);
    pthread_join(sender, NULL);
    for (int i = 0; i < 4; i++) {
        pthread_join(signalled[i], NULL);
    }
    assert_exits(status, 0);
    /* None that came meanwhile is lost. */
    loop_passes(tp, 0);
    long runs = latch_count(&probe.runs);
    assert_int_equal(raise(SIGUSR1), 0);
    assert_latch(&probe.runs, runs + 1);
    ns_job_cancel(job);
    assert_latch(&probe.disposals, 1);
    pool_end(tp);
}

/* The application's lock, which its fork handlers take: they come before the first pool. */
static pthread_mutex_t application = PTHREAD_MUTEX_INITIALIZER;

static void take_application_lock(void)
{
    pthread_mutex_lock(&application);
}

static void give_application_lock_back(void)
{
    pthread_mutex_unlock(&application);
}

/* Not on stacks alone: valgrind would take it for lost in a child, which has one of them. */
static struct ns_thrpool_t *forked_beside;

static void *watch_under_the_lock(void *unused)
{
    UNUSED(unused);
    while (!atomic_load(&stop_forking_beside)) {
        struct ns_job_t *job = NULL;
        pthread_mutex_lock(&application);
        CHILD_CHECK(ns_add_signal_job(forked_beside, SIGUSR2, NS_JOB_UNARMED, finish_job, NULL,
                                      &job) == NS_SUCCESS);
        CHILD_CHECK(ns_job_done(job) == NS_SUCCESS);
        pthread_mutex_unlock(&application);
    }
    return NULL;
}

static void fork_beside_watchers(void *unused)
{
    UNUSED(unused);
    pthread_t thread;
    forked_beside = pool_of(1);
    atomic_store(&stop_forking_beside, 0);
    CHILD_CHECK(pthread_create(&thread, NULL, watch_under_the_lock, NULL) == 0);
    for (int i = 0; i < scaled(300); i++) {
        int status = -1;
        pid_t child = fork();
        if (child == 0) {
            _exit(0);
        }
        CHILD_CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
    atomic_store(&stop_forking_beside, 1);
    pthread_join(thread, NULL);
    ns_thrpool_destroy(forked_beside);
}

TEST(fork_handlers_may_take_a_lock_that_is_held_while_a_signal_is_watched)
{
    assert_exits(in_child(fork_beside_watchers, NULL), 0);
}

/* What a callback that forks sees of its child, and what that does: its data. */
struct forker {
    struct latch over;
    void (*in_child)(struct ns_job_t *job);
    int status;
};

static void fork_in_callback(struct ns_job_t *job)
{
    struct forker *forker = ns_job_get_data(job);
    pid_t child = fork();
    if (child == 0) {
        alarm(LIMIT_SECONDS);
        forker->in_child(job);
        return;
    }
    if (waitpid(child, &forker->status, 0) != child) {
        forker->status = -1;
    }
    ns_job_done(job);
    latch_add(&forker->over, 1);
}

static void live_anew(struct ns_job_t *job)
{
    struct ns_thrpool_t *tp = ns_job_get_tp(job);
    struct forker *forker = ns_job_get_data(job);
    struct parent parent = {.tp = tp};
    CHILD_CHECK(ns_job_rearm(job) == NS_SHUTDOWN);
    CHILD_CHECK(ns_job_wait(job) == NS_SHUTDOWN);
    CHILD_CHECK(ns_job_done(job) == NS_SHUTDOWN);
    CHILD_CHECK(ns_job_cancel(job) == NS_SHUTDOWN);
    CHILD_CHECK(ns_thrpool_wait(tp) == NS_SHUTDOWN);
    CHILD_CHECK(ns_job_is_func(job, fork_in_callback) == 1);
    CHILD_CHECK(latch_count(&forker->over) == 0);
    make_a_pool_in_child(&parent);
    _exit(42);
}

static void leave_the_callback(struct ns_job_t *job)
{
    struct rlimit none = {0, 0};
    UNUSED(job);
    setrlimit(RLIMIT_CORE, &none);
}

/* How the child of a callback of this type ends; the pool works on. */
static int fork_in(ns_job_type_t type, void (*in_child)(struct ns_job_t *))
{
    struct parent parent;
    struct forker forker = {LATCH_INIT, in_child, -1};
    struct ns_job_t *job = NULL;
    parent_begin(&parent);
    assert_int_equal(ns_add_signal_job(parent.tp, SIGUSR1, NS_JOB_PERSIST | NS_JOB_UNARMED,
                                       probe_run, &parent.signals, &job), NS_SUCCESS);
    probe_arm(job);
    assert_int_equal(ns_add_job(parent.tp, type, fork_in_callback, &forker, NULL), NS_SUCCESS);
    assert_latch(&forker.over, 1);
    /* The child's signals were its own. */
    loop_passes(parent.tp, 1000);
    assert_int_equal(latch_count(&parent.signals.runs), 0);
    assert_int_equal(raise(SIGUSR1), 0);
    assert_latch(&parent.signals.runs, 1);
    ns_job_cancel(job);
    assert_latch(&parent.signals.disposals, 1);
    parent_end(&parent);
    return forker.status;
}

static const ns_job_type_t callback_types[] = {NS_JOB_NONE, NS_JOB_THREAD, NS_JOB_TIMER,
                                               NS_JOB_TIMER | NS_JOB_THREAD};

TEST(child_of_a_callback_can_leave_the_pool_and_make_its_own)
{
    for (int i = 0; i < 4; i++) {
        assert_exits(fork_in(callback_types[i], live_anew), 42);
    }
}

TEST(child_that_returns_from_the_callback_it_was_forked_in_aborts)
{
    for (int i = 0; i < 4; i++) {
        int status = fork_in(callback_types[i], leave_the_callback);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGABRT);
    }
}

static void destroy_in_child_with_cancellation_pending(void *arg)
{
    struct parent *parent = arg;
    int before = count_fds(), unused = 0;
    pthread_cancel(pthread_self());
    ns_thrpool_destroy(parent->tp);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &unused);
    CHILD_CHECK(before - count_fds() == parent->pool_fds);
    _exit(42);
}

TEST(destroy_in_the_child_is_no_cancellation_point)
{
    struct parent parent;
    parent_begin(&parent);
    assert_exits(in_child(destroy_in_child_with_cancellation_pending, &parent), 42);
    parent_end(&parent);
}

static void destroy_in_child_without_descriptors(void *arg)
{
    struct parent *parent = arg;
    struct rlimit usual, few;
    int before = count_fds();
    getrlimit(RLIMIT_NOFILE, &usual);
    few = usual;
    /* The first that is free becomes the last that may be opened. */
    int last = dup(STDERR_FILENO);
    CHILD_CHECK(last >= 0);
    few.rlim_cur = (rlim_t)last + 1;
    CHILD_CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    CHILD_CHECK(dup(STDERR_FILENO) < 0 && errno == EMFILE);
    ns_thrpool_destroy(parent->tp);
    CHILD_CHECK(setrlimit(RLIMIT_NOFILE, &usual) == 0);
    close(last);
    CHILD_CHECK(before - count_fds() == parent->pool_fds);
    CHILD_CHECK(fd_is_open(parent->ends[0]));
    CHILD_CHECK(latch_count(&parent->reads.disposals) == 0);
}

TEST(destroy_in_a_child_that_has_no_free_descriptor_closes_all)
{
    struct parent parent;
    parent_begin(&parent);
    assert_exits(in_child(destroy_in_child_without_descriptors, &parent), 0);
    parent_end(&parent);
}

/* exit and the ends of threads */

static void exit_with_42(struct ns_job_t *job)
{
    UNUSED(job);
    exit(42);
}

static void leave_from_a_callback(void *arg)
{
    const ns_job_type_t *type = arg;
    struct ns_thrpool_t *tp = pool_of(2);
    CHILD_CHECK(ns_add_job(tp, *type, exit_with_42, NULL, NULL) == NS_SUCCESS);
    for (;;) {
        pause();
    }
}

TEST(exit_from_a_callback_ends_the_process_with_its_status)
{
    ns_job_type_t types[] = {NS_JOB_NONE, NS_JOB_THREAD, NS_JOB_TIMER};
    for (int i = 0; i < 3; i++) {
        assert_exits(in_child(leave_from_a_callback, &types[i]), 42);
    }
}

static void leave_the_thread(struct ns_job_t *job)
{
    UNUSED(job);
    pthread_exit(NULL);
}

static void end_a_thread_of_the_pool(void *arg)
{
    const ns_job_type_t *type = arg;
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    struct ns_thrpool_t *tp = pool_of(1);
    CHILD_CHECK(ns_add_job(tp, *type, leave_the_thread, NULL, NULL) == NS_SUCCESS);
    for (;;) {
        pause();
    }
}

TEST(pthread_exit_in_a_callback_aborts)
{
    ns_job_type_t types[] = {NS_JOB_NONE, NS_JOB_THREAD};
    for (int i = 0; i < 2; i++) {
        int status = in_child(end_a_thread_of_the_pool, &types[i]);
        assert_true(WIFSIGNALED(status));
        assert_int_equal(WTERMSIG(status), SIGABRT);
    }
}

static struct ns_thrpool_t *late_pool;
static struct ns_job_t *late_job;

/* A life of a pool where a thread, or the process, is about to end. */
static void live_late(void)
{
    struct latch runs = LATCH_INIT;
    CHILD_CHECK(ns_add_job(late_pool, NS_JOB_THREAD, count_callback, &runs, &late_job) ==
                NS_SUCCESS);
    CHILD_CHECK(latch_reaches(&runs, 1));
    CHILD_CHECK(ns_job_wait(late_job) == NS_SUCCESS);
    CHILD_CHECK(ns_add_job(late_pool, NS_JOB_READ, count_callback, &runs, NULL) ==
                NS_INVALID_REQUEST);
    CHILD_CHECK(ns_job_done(late_job) == NS_SUCCESS);
    ns_thrpool_shutdown(late_pool);
    CHILD_CHECK(ns_thrpool_wait(late_pool) == NS_SUCCESS);
    ns_thrpool_destroy(late_pool);
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.log_fct = quiet_log;
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    CHILD_CHECK(tp != NULL);
    ns_thrpool_destroy(tp);
    _exit(7);
}

static void exit_normally(void *arg)
{
    UNUSED(arg);
    late_pool = pool_of(1);
    CHILD_CHECK(atexit(live_late) == 0);
    exit(0);
}

TEST(everything_works_in_an_atexit_handler)
{
    assert_exits(in_child(exit_normally, NULL), 7);
}

static void live_late_in_thread(void *unused)
{
    UNUSED(unused);
    live_late();
}

static void *thread_with_key(void *arg)
{
    pthread_setspecific(*(pthread_key_t *)arg, arg);
    return NULL;
}

static void end_a_thread(void *arg)
{
    UNUSED(arg);
    late_pool = pool_of(1);
    pthread_key_t key;
    pthread_t thread;
    CHILD_CHECK(pthread_key_create(&key, live_late_in_thread) == 0);
    CHILD_CHECK(pthread_create(&thread, NULL, thread_with_key, &key) == 0);
    pthread_join(thread, NULL);
}

TEST(everything_works_in_the_destructor_of_a_thread_key)
{
    assert_exits(in_child(end_a_thread, NULL), 7);
}

/* The pool's own threads end too, with the application's destructors: the workers once it shuts
 * down, the loop when it is destroyed. */
struct own_end {
    struct ns_thrpool_t *tp;
    struct ns_job_t *idle;
    struct latch *gone;
    int fd;
};

static pthread_key_t own_key;
static atomic_int own_ends;

static void call_everything_at_the_end(void *arg)
{
    struct own_end *end = arg;
    struct ns_thrpool_t *tp = end->tp;
    struct timeval tv = {0, 0};
    struct ns_job_t *job = end->idle;
    CHILD_CHECK(ns_thrpool_is_shutdown(tp) == 1);
    CHILD_CHECK(ns_thrpool_wait(tp) == NS_THREAD_FAILURE);
    ns_thrpool_shutdown(tp);
    ns_thrpool_destroy(tp);
    CHILD_CHECK(ns_create_job(tp, NS_JOB_THREAD, finish_job, &job) == NS_SHUTDOWN && job == NULL);
    CHILD_CHECK(ns_add_job(tp, NS_JOB_NONE, finish_job, NULL, NULL) == NS_SHUTDOWN);
    CHILD_CHECK(ns_add_job(tp, NS_JOB_THREAD, finish_job, NULL, NULL) == NS_SHUTDOWN);
    CHILD_CHECK(ns_add_timeout_job(tp, &tv, 0, finish_job, NULL, NULL) == NS_SHUTDOWN);
    CHILD_CHECK(ns_add_signal_job(tp, SIGUSR1, 0, finish_job, NULL, NULL) == NS_SHUTDOWN);
    CHILD_CHECK(ns_add_fd_job(tp, end->fd, NS_JOB_READ, finish_job, NULL, NULL) == NS_SHUTDOWN);
    CHILD_CHECK(ns_add_fd_timeout_job(tp, end->fd, &tv, NS_JOB_READ, finish_job, NULL, NULL) ==
                NS_SHUTDOWN);
    CHILD_CHECK(ns_job_get_data(end->idle) == end->gone);
    CHILD_CHECK(ns_job_get_tp(end->idle) == tp);
    CHILD_CHECK(ns_job_rearm(end->idle) == NS_SHUTDOWN);
    CHILD_CHECK(ns_job_wait(end->idle) == NS_SUCCESS);
    CHILD_CHECK(ns_job_set_done_cb(end->idle, count_callback) == NS_SUCCESS);
    CHILD_CHECK(ns_job_done(end->idle) == NS_SUCCESS);
    /* A pool of their own is a pool like any other. */
    struct ns_thrpool_config config;
    struct latch runs = LATCH_INIT;
    ns_thrpool_config_init(&config);
    config.log_fct = quiet_log;
    tp = ns_thrpool_new(&config);
    CHILD_CHECK(tp != NULL);
    CHILD_CHECK(ns_add_timeout_job(tp, &tv, NS_JOB_THREAD, count_callback, &runs, &job) ==
                NS_SUCCESS);
    CHILD_CHECK(latch_reaches(&runs, 1));
    CHILD_CHECK(ns_job_wait(job) == NS_SUCCESS);
    CHILD_CHECK(ns_job_done(job) == NS_SUCCESS);
    CHILD_CHECK(ns_add_signal_job(tp, SIGUSR1, 0, count_callback, &runs, &job) == NS_SUCCESS);
    raise(SIGUSR1);
    CHILD_CHECK(ns_job_wait(job) == NS_SUCCESS);
    CHILD_CHECK(ns_job_done(job) == NS_SUCCESS);
    ns_thrpool_destroy(tp);
    atomic_fetch_add(&own_ends, 1);
}

static void have_an_end(struct ns_job_t *job)
{
    pthread_setspecific(own_key, ns_job_get_data(job));
    ns_job_done(job);
}

static void end_the_pools_own_threads(void *arg)
{
    int *ends = arg;
    struct ns_thrpool_config config;
    struct own_end own[2];
    struct latch gone = LATCH_INIT;
    ns_thrpool_config_init(&config);
    config.log_fct = quiet_log;
    config.calloc_fct = counting_calloc;
    config.free_fct = counting_free;
    CHILD_CHECK(pthread_key_create(&own_key, call_everything_at_the_end) == 0);
    long blocks = atomic_load(&blocks_out);
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    CHILD_CHECK(tp != NULL);
    for (int i = 0; i < 2; i++) {
        own[i] = (struct own_end){tp, NULL, &gone, ends[0]};
        CHILD_CHECK(ns_create_job(tp, NS_JOB_THREAD, finish_job, &own[i].idle) == NS_SUCCESS);
        CHILD_CHECK(ns_job_set_data(own[i].idle, &gone) == NS_SUCCESS);
        CHILD_CHECK(ns_add_job(tp, i ? NS_JOB_THREAD : NS_JOB_NONE, have_an_end, &own[i], NULL) ==
                    NS_SUCCESS);
    }
    /* The loop has had its turn; the worker runs what was queued before. */
    loop_passes(tp, 0);
    ns_thrpool_shutdown(tp);
    CHILD_CHECK(ns_thrpool_wait(tp) == NS_SUCCESS);
    CHILD_CHECK(atomic_load(&own_ends) == 1);
    ns_thrpool_destroy(tp);
    CHILD_CHECK(atomic_load(&own_ends) == 2);
    CHILD_CHECK(latch_count(&gone) == 2);
    CHILD_CHECK(atomic_load(&blocks_out) == blocks);
    CHILD_CHECK(fd_is_open(ends[0]));
}

TEST(everything_answers_in_thread_key_destructors_of_the_pools_own_threads)
{
    int ends[2];
    socket_pair(ends);
    assert_exits(in_child(end_the_pools_own_threads, ends), 0);
    close(ends[0]);
    close(ends[1]);
}

static void end_the_pool_that_exits(void)
{
    struct ns_job_t *job = NULL;
    CHILD_CHECK(ns_thrpool_wait(late_pool) == NS_THREAD_FAILURE);
    ns_thrpool_destroy(late_pool);
    CHILD_CHECK(ns_thrpool_is_shutdown(late_pool) == 0);
    CHILD_CHECK(ns_add_signal_job(late_pool, SIGUSR1, 0, finish_job, NULL, NULL) == NS_SUCCESS);
    ns_thrpool_shutdown(late_pool);
    CHILD_CHECK(ns_thrpool_is_shutdown(late_pool) == 1);
    CHILD_CHECK(ns_create_job(late_pool, NS_JOB_NONE, finish_job, &job) == NS_SHUTDOWN);
    CHILD_CHECK(ns_thrpool_wait(late_pool) == NS_THREAD_FAILURE);
    ns_thrpool_destroy(late_pool);
}

static void exit_in_callback(void *arg)
{
    const ns_job_type_t *type = arg;
    struct ns_job_t *job = NULL;
    late_pool = pool_of(2);
    CHILD_CHECK(atexit(end_the_pool_that_exits) == 0);
    /* With UNARMED for type, in the done callback of a job that never runs. */
    CHILD_CHECK(ns_add_job(late_pool, *type | NS_JOB_UNARMED, exit_with_42, NULL, &job) ==
                NS_SUCCESS);
    if (*type == NS_JOB_UNARMED) {
        CHILD_CHECK(ns_job_set_done_cb(job, exit_with_42) == NS_SUCCESS);
        CHILD_CHECK(ns_job_done(job) == NS_SUCCESS);
    } else {
        CHILD_CHECK(ns_job_rearm(job) == NS_SUCCESS);
    }
    for (;;) {
        pause();
    }
}

TEST(atexit_handlers_may_end_the_pool_whose_callback_called_exit)
{
    ns_job_type_t types[] = {NS_JOB_NONE, NS_JOB_THREAD, NS_JOB_TIMER,
                             NS_JOB_TIMER | NS_JOB_THREAD, NS_JOB_UNARMED};
    for (int i = 0; i < 5; i++) {
        assert_exits(in_child(exit_in_callback, &types[i]), 42);
    }
}

/* SIGPIPE */

static atomic_int broken_pipes;

static void count_broken_pipe(int signum)
{
    UNUSED(signum);
    atomic_fetch_add(&broken_pipes, 1);
}

static void *raise_all_the_time(void *unused)
{
    UNUSED(unused);
    while (!atomic_load(&stop_signalling)) {
        raise(SIGUSR1);
        sched_yield();
    }
    return NULL;
}

/* The pool's pipe is closed here, while what the parent watches still has its handler. */
static void raise_behind_destroy_in_child(void *arg)
{
    ns_thrpool_destroy(arg);
    for (int i = 0; i < 100; i++) {
        CHILD_CHECK(raise(SIGUSR1) == 0);
    }
    CHILD_CHECK(atomic_load(&broken_pipes) == 0);
}

/* Lives of a pool, with peers that are gone, while signals write into its pipe. */
TEST(nothing_raises_sigpipe)
{
    struct sigaction mine, original;
    signal(SIGUSR1, count_in_child); /* what a signal in the child does */
    struct ns_thrpool_t *keeper = pool_of(1);
    struct probe kept = PROBE(NULL, -1);
    struct ns_job_t *keeping = NULL;
    pthread_t thread;
    memset(&mine, 0, sizeof(mine));
    mine.sa_handler = count_broken_pipe;
    assert_int_equal(sigaction(SIGPIPE, &mine, &original), 0);
    assert_int_equal(ns_add_signal_job(keeper, SIGUSR1, NS_JOB_PERSIST | NS_JOB_UNARMED, probe_run,
                                       &kept, &keeping), NS_SUCCESS);
    probe_arm(keeping);
    assert_exits(in_child(raise_behind_destroy_in_child, keeper), 0);
    atomic_store(&stop_signalling, 0);
    pthread_create(&thread, NULL, raise_all_the_time, NULL);
    for (int i = 0; i < scaled(200); i++) {
        struct ns_thrpool_t *tp = pool_of(2);
        struct probe signals = PROBE(NULL, -1), io = PROBE(finish_job, -1);
        struct ns_job_t *job = NULL;
        int ends[2];
        socket_pair(ends);
        close(ends[1]);
        io.fd = ends[0];
        assert_int_equal(ns_add_signal_job(tp, SIGUSR1, NS_JOB_PERSIST | NS_JOB_UNARMED,
                                           probe_run, &signals, &job), NS_SUCCESS);
        probe_arm(job);
        probe_fd(tp, NS_JOB_READ | NS_JOB_WRITE | (i & 1 ? NS_JOB_THREAD : 0), 1000, &io);
        assert_int_equal(ns_add_job(tp, NS_JOB_NONE, finish_job, NULL, NULL), NS_SUCCESS);
        assert_latch(&io.disposals, 1);
        ns_job_cancel(job);
        if (i & 2) {
            pool_end(tp);
        } else {
            ns_thrpool_destroy(tp);
        }
        assert_int_equal(latch_count(&signals.disposals), 1);
    }
    atomic_store(&stop_signalling, 1);
    pthread_join(thread, NULL);
    assert_true(latch_count(&kept.runs) > 0);
    assert_int_equal(atomic_load(&broken_pipes), 0);
    /* They would have been counted. */
    raise(SIGPIPE);
    assert_int_equal(atomic_load(&broken_pipes), 1);
    ns_job_cancel(keeping);
    assert_latch(&kept.disposals, 1);
    pool_end(keeper);
    assert_int_equal(sigaction(SIGPIPE, &original, NULL), 0);
    signal(SIGUSR1, SIG_DFL);
}

/* Threads */

struct thread_facts {
    char name[16];
    sigset_t mask;
    size_t stack;
    int cancel_state;
};

static void note_facts(struct ns_job_t *job)
{
    struct thread_facts *facts = ns_job_get_data(job);
    pthread_attr_t attributes;
    pthread_getname_np(pthread_self(), facts->name, sizeof(facts->name));
    pthread_sigmask(SIG_BLOCK, NULL, &facts->mask);
    pthread_getattr_np(pthread_self(), &attributes);
    pthread_attr_getstacksize(&attributes, &facts->stack);
    pthread_attr_destroy(&attributes);
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &facts->cancel_state);
}

/* What the loop, for type 0, or a worker of the pool is like. */
static struct thread_facts facts_of(struct ns_thrpool_t *tp, ns_job_type_t type)
{
    struct thread_facts facts;
    struct ns_job_t *job = NULL;
    memset(&facts, 0, sizeof(facts));
    assert_int_equal(ns_add_job(tp, type, note_facts, &facts, &job), NS_SUCCESS);
    assert_int_equal(ns_job_wait(job), NS_SUCCESS);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    return facts;
}

TEST(threads_have_names_of_their_own)
{
    char mine[16];
    pthread_getname_np(pthread_self(), mine, sizeof(mine));
    struct ns_thrpool_t *tp = pool_of(1);
    struct thread_facts loop = facts_of(tp, 0), worker = facts_of(tp, NS_JOB_THREAD);
    assert_string_not_equal(loop.name, mine);
    assert_string_not_equal(worker.name, mine);
    assert_string_not_equal(worker.name, loop.name);
    pool_end(tp);
}

TEST(threads_have_the_signal_mask_of_their_maker)
{
    sigset_t mask, before;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR2);
    sigaddset(&mask, SIGUSR1);
    sigaddset(&mask, SIGTERM);
    assert_int_equal(pthread_sigmask(SIG_SETMASK, &mask, &before), 0);
    struct ns_thrpool_t *tp = pool_of(1);
    assert_int_equal(pthread_sigmask(SIG_SETMASK, &before, NULL), 0);
    struct probe probe = PROBE(NULL, -1);
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_signal_job(tp, SIGUSR1, NS_JOB_UNARMED, probe_run, &probe, &job),
                     NS_SUCCESS);
    probe_arm(job);
    loop_passes(tp, 0);
    struct thread_facts loop = facts_of(tp, 0), worker = facts_of(tp, NS_JOB_THREAD);
    for (int signum = 1; signum < SIGRTMAX; signum++) {
        int blocked = sigismember(&mask, signum);
        assert_int_equal(sigismember(&worker.mask, signum), blocked);
        /* The loop lets in what its jobs watch. */
        assert_int_equal(sigismember(&loop.mask, signum), blocked && signum != SIGUSR1);
    }
    ns_job_cancel(job);
    assert_latch(&probe.disposals, 1);
    loop = facts_of(tp, 0);
    assert_true(sigismember(&loop.mask, SIGUSR1));
    pool_end(tp);
}

TEST(stacksize_is_that_of_the_config_or_of_pthread)
{
    size_t usual = 0;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_getstacksize(&attributes, &usual);
    pthread_attr_destroy(&attributes);
    /* glibc hands out the stack of an earlier thread if it is not more than four times too large:
     * so these are further apart. */
    size_t sizes[] = {256 * 1024, 1536 * 1024, 0, 40 * 1024 * 1024};
    for (int i = 0; i < 4; i++) {
        struct ns_thrpool_config config;
        ns_thrpool_config_init(&config);
        config.log_fct = quiet_log;
        config.stacksize = sizes[i];
        struct ns_thrpool_t *tp = ns_thrpool_new(&config);
        assert_non_null(tp);
        size_t wanted = sizes[i] ? sizes[i] : usual;
        size_t stacks[] = {facts_of(tp, 0).stack, facts_of(tp, NS_JOB_THREAD).stack};
        for (int n = 0; n < 2; n++) {
            /* glibc counts the guard page in or not, by version. */
            assert_true(stacks[n] >= wanted - 8192);
            assert_true(stacks[n] <= wanted + 65536);
        }
        pool_end(tp);
    }
}

static atomic_int fired_on_small_stacks;

static void fire_on_small_stack(struct ns_job_t *job)
{
    UNUSED(job);
    atomic_fetch_add(&fired_on_small_stacks, 1);
    raise(SIGUSR1);
}

/* The least that the system takes, and what is no whole number of pages. */
TEST(stacks_may_be_of_the_least_size_and_of_any)
{
    size_t sizes[] = {(size_t)PTHREAD_STACK_MIN, (size_t)PTHREAD_STACK_MIN + 1, 100001, 262143};
    for (int i = 0; i < 4; i++) {
        struct ns_thrpool_config config;
        struct probe signals = PROBE(NULL, -1);
        struct timeval tv = {0, 100};
        struct ns_job_t *job = NULL, *watching = NULL;
        ns_thrpool_config_init(&config);
        config.log_fct = quiet_log;
        config.max_threads = 2;
        config.stacksize = sizes[i];
        struct ns_thrpool_t *tp = ns_thrpool_new(&config);
        assert_non_null(tp);
        assert_int_equal(ns_add_signal_job(tp, SIGUSR1, NS_JOB_PERSIST | NS_JOB_UNARMED, probe_run,
                                           &signals, &watching), NS_SUCCESS);
        probe_arm(watching);
        /* On each kind of thread: a callback, and our handler on top of it. */
        for (int type = 0; type < 2; type++) {
            atomic_store(&fired_on_small_stacks, 0);
            assert_int_equal(ns_add_timeout_job(tp, &tv, type ? NS_JOB_THREAD : 0,
                                                fire_on_small_stack, NULL, &job), NS_SUCCESS);
            assert_int_equal(ns_job_wait(job), NS_SUCCESS);
            assert_int_equal(atomic_load(&fired_on_small_stacks), 1);
            assert_int_equal(ns_job_done(job), NS_SUCCESS);
            assert_latch(&signals.runs, type + 1);
        }
        ns_job_cancel(watching);
        assert_latch(&signals.disposals, 1);
        pool_end(tp);
    }
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.log_fct = quiet_log;
    config.stacksize = (size_t)PTHREAD_STACK_MIN - 1;
    assert_null(ns_thrpool_new(&config));
}

TEST(cancellation_is_disabled_in_our_threads)
{
    struct ns_thrpool_t *tp = pool_of(1);
    assert_int_equal(facts_of(tp, 0).cancel_state, PTHREAD_CANCEL_DISABLE);
    assert_int_equal(facts_of(tp, NS_JOB_THREAD).cancel_state, PTHREAD_CANCEL_DISABLE);
    pool_end(tp);
}

static atomic_int calls_survived;

#define SURVIVES(call)                                                                         \
    do {                                                                                       \
        (void)(call);                                                                          \
        atomic_fetch_add(&calls_survived, 1);                                                  \
    } while (0)

/* A logger and an allocator that are places where a cancellation takes effect. */
static atomic_int places_passed;

static void cancellable_log(int priority, const char *format, va_list args)
{
    pthread_testcancel();
    atomic_fetch_add(&places_passed, 1);
    quiet_log(priority, format, args);
}

static void cancellable_start_or_close(void)
{
    pthread_testcancel();
    atomic_fetch_add(&places_passed, 1);
}

static void *cancellable_calloc(size_t count, size_t size)
{
    pthread_testcancel();
    atomic_fetch_add(&places_passed, 1);
    return calloc(count, size);
}

static void cancellable_free(void *block)
{
    pthread_testcancel();
    atomic_fetch_add(&places_passed, 1);
    free(block);
}

/* Call everything with a cancellation pending: none is a place where it takes effect. */
static void *call_with_cancellation_pending(void *arg)
{
    struct ns_thrpool_config config = *(struct ns_thrpool_config *)arg, untouched;
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    struct ns_job_t *job = NULL, *now = NULL;
    struct timeval tv = {0, 2000}, never = {1000000, 0}, negative = {-1, 0};
    int fd = dup(STDIN_FILENO);
    pthread_cancel(pthread_self());
    SURVIVES(ns_thrpool_config_init(&untouched));
    SURVIVES(ns_thrpool_new(NULL));
    config.stacksize = 1;
    SURVIVES(ns_thrpool_new(&config));
    config.stacksize = 0;
    SURVIVES(ns_add_job(tp, NS_JOB_READ, finish_job, NULL, NULL));
    SURVIVES(ns_add_signal_job(tp, SIGKILL, 0, finish_job, NULL, NULL));
    SURVIVES(ns_add_timeout_job(tp, &tv, NS_JOB_THREAD, finish_job, NULL, NULL));
    SURVIVES(ns_add_timeout_job(tp, &negative, 0, finish_job, NULL, NULL));
    SURVIVES(ns_create_job(tp, NS_JOB_TIMER, finish_job, &now));
    SURVIVES(ns_job_set_data(now, NULL));
    SURVIVES(ns_job_set_done_cb(now, NULL));
    SURVIVES(ns_job_wait(now));
    SURVIVES(ns_job_rearm(now));
    SURVIVES(ns_add_timeout_job(tp, &never, NS_JOB_UNARMED, finish_job, NULL, &job));
    SURVIVES(ns_job_rearm(job));
    SURVIVES(ns_job_rearm(job));
    SURVIVES(ns_job_set_data(job, NULL));
    SURVIVES(ns_job_set_done_cb(job, NULL));
    SURVIVES(ns_job_timedwait(job, &tv));
    SURVIVES(ns_job_done(job));
    SURVIVES(ns_job_cancel(job));
    SURVIVES(ns_add_fd_job(tp, fd, NS_JOB_READ | NS_JOB_UNARMED, finish_job, NULL, &job));
    SURVIVES(ns_job_cancel(job));
    SURVIVES(ns_add_fd_timeout_job(tp, -1, &tv, NS_JOB_READ, finish_job, NULL, NULL));
    SURVIVES(ns_add_signal_job(tp, SIGUSR1, NS_JOB_UNARMED, finish_job, NULL, &job));
    SURVIVES(ns_job_get_data(job));
    SURVIVES(ns_job_get_type(job));
    SURVIVES(ns_job_get_output_type(job));
    SURVIVES(ns_job_get_tp(job));
    SURVIVES(ns_job_get_fd(job));
    SURVIVES(ns_job_get_native_fd(job));
    SURVIVES(ns_job_is_func(job, finish_job));
    SURVIVES(ns_job_done(job));
    /* Looked for, and not found: NSPR is not in this process. */
    struct PRFileDesc *unknown = (struct PRFileDesc *)&tv;
    SURVIVES(ns_add_io_job(tp, unknown, NS_JOB_READ, finish_job, NULL, NULL));
    SURVIVES(ns_add_io_timeout_job(tp, unknown, &tv, NS_JOB_READ, finish_job, NULL, NULL));
    SURVIVES(ns_add_job(tp, NS_JOB_THREAD, finish_job, NULL, NULL));
    SURVIVES(ns_add_job(tp, NS_JOB_NONE, finish_job, NULL, NULL));
    SURVIVES(ns_version());
    SURVIVES(ns_set_log(NULL, NULL));
    struct ns_thrpool_t *own = NULL;
    static struct thread_facts facts;
    SURVIVES(own = ns_thrpool_new(&config));
    SURVIVES(ns_add_timeout_job(own, &tv, NS_JOB_UNARMED, note_facts, &facts,
                                &job));
    SURVIVES(ns_job_rearm(job));
    SURVIVES(ns_job_wait(job));
    SURVIVES(ns_job_done(job));
    SURVIVES(ns_thrpool_is_shutdown(own));
    SURVIVES(ns_thrpool_shutdown(own));
    SURVIVES(ns_create_job(own, NS_JOB_TIMER, finish_job, &job));
    SURVIVES(ns_thrpool_wait(own));
    SURVIVES(ns_thrpool_destroy(own));
    SURVIVES(ns_thrpool_shutdown(tp));
    SURVIVES(ns_thrpool_destroy(tp));
    int survived = atomic_exchange(&calls_survived, -1);
    pthread_testcancel();
    /* Not reached: the cancellation was pending all the time. */
    atomic_store(&calls_survived, survived);
    return NULL;
}

TEST(no_function_is_a_cancellation_point)
{
    for (int own = 0; own < 2; own++) {
        struct ns_thrpool_config config;
        pthread_t thread;
        void *result = NULL;
        ns_thrpool_config_init(&config);
        config.log_fct = own ? cancellable_log : quiet_log;
        config.log_start_fct = own ? cancellable_start_or_close : NULL;
        config.log_close_fct = own ? cancellable_start_or_close : NULL;
        config.calloc_fct = own ? cancellable_calloc : NULL;
        config.free_fct = own ? cancellable_free : NULL;
        atomic_store(&calls_survived, 0);
        pthread_create(&thread, NULL, call_with_cancellation_pending, &config);
        pthread_join(thread, &result);
        assert_ptr_equal(result, PTHREAD_CANCELED);
        assert_int_equal(atomic_load(&calls_survived), -1);
        assert_true(own ? atomic_load(&places_passed) > 20 : atomic_load(&places_passed) == 0);
    }
}

int main(void)
{
    /* Before the first pool. */
    pthread_atfork(take_application_lock, give_application_lock_back, give_application_lock_back);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_descriptors_are_closed_by_exec),
        cmocka_unit_test(fork_makes_functions_answer_shutdown_and_getters_work_in_the_child),
        cmocka_unit_test(destroy_in_the_child_closes_its_descriptors_and_spares_the_parent),
        cmocka_unit_test(child_can_make_a_pool_of_its_own),
        cmocka_unit_test(signal_in_the_child_does_not_reach_the_parent),
        cmocka_unit_test(fork_beside_busy_threads_leaves_a_child_that_works),
        cmocka_unit_test(fork_while_other_threads_handle_signals_leaves_a_child_that_can_watch),
        cmocka_unit_test(fork_handlers_may_take_a_lock_that_is_held_while_a_signal_is_watched),
        cmocka_unit_test(child_of_a_callback_can_leave_the_pool_and_make_its_own),
        cmocka_unit_test(child_that_returns_from_the_callback_it_was_forked_in_aborts),
        cmocka_unit_test(destroy_in_the_child_is_no_cancellation_point),
        cmocka_unit_test(destroy_in_a_child_that_has_no_free_descriptor_closes_all),
        cmocka_unit_test(exit_from_a_callback_ends_the_process_with_its_status),
        cmocka_unit_test(pthread_exit_in_a_callback_aborts),
        cmocka_unit_test(everything_works_in_an_atexit_handler),
        cmocka_unit_test(everything_works_in_the_destructor_of_a_thread_key),
        cmocka_unit_test(everything_answers_in_thread_key_destructors_of_the_pools_own_threads),
        cmocka_unit_test(atexit_handlers_may_end_the_pool_whose_callback_called_exit),
        cmocka_unit_test(nothing_raises_sigpipe),
        cmocka_unit_test(threads_have_names_of_their_own),
        cmocka_unit_test(threads_have_the_signal_mask_of_their_maker),
        cmocka_unit_test(stacksize_is_that_of_the_config_or_of_pthread),
        cmocka_unit_test(stacks_may_be_of_the_least_size_and_of_any),
        cmocka_unit_test(cancellation_is_disabled_in_our_threads),
        cmocka_unit_test(no_function_is_a_cancellation_point),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
