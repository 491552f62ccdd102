/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Pools that a child inherits by fork: what the child may still do with them. The parent must not
 * be affected.
 */
#include "children.h"
#include "signals.h"

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
    finish_idle(parent->armed);
    assert_latch(&parent->reads.disposals, 1);
    assert_int_equal(ns_job_rearm(parent->waiting), NS_SUCCESS);
    assert_latch(&parent->idle.runs, 1);
    finish_idle(parent->waiting);
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

static void get_signals_in_child(void *arg)
{
    UNUSED(arg);
    for (int i = 0; i < 100; i++) {
        CHILD_CHECK(raise(SIGUSR1) == 0);
    }
    CHILD_CHECK(atomic_load(&handled) == 100);
}

TEST(signal_in_the_child_does_not_reach_the_parent)
{
    struct parent parent;
    parent_begin(&parent);
    signal(SIGUSR1, count_handled);
    struct ns_job_t *job = probe_signal(parent.tp, SIGUSR1, NS_JOB_PERSIST, &parent.signals);
    loop_passes(parent.tp, 0);
    assert_exits(in_child(get_signals_in_child, &parent), 0);
    loop_passes(parent.tp, 10000);
    assert_int_equal(latch_count(&parent.signals.runs), 0);
    assert_int_equal(raise(SIGUSR1), 0);
    assert_latch(&parent.signals.runs, 1);
    ns_job_cancel(job);
    assert_latch(&parent.signals.disposals, 1);
    signal(SIGUSR1, SIG_DFL);
    assert_int_equal(atomic_load(&handled), 0);
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
    pthread_t sender;
    struct ns_job_t *job = probe_signal(tp, SIGUSR1, NS_JOB_PERSIST, &probe);
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
    /* No signal that came during the forks was lost. */
    loop_passes(tp, 0);
    long runs = latch_count(&probe.runs);
    assert_int_equal(raise(SIGUSR1), 0);
    assert_latch(&probe.runs, runs + 1);
    ns_job_cancel(job);
    assert_latch(&probe.disposals, 1);
    pool_end(tp);
}

/* The application's lock, which its fork handlers take. They are registered before the first pool.
 * */
static pthread_mutex_t application = PTHREAD_MUTEX_INITIALIZER;

static void take_application_lock(void)
{
    pthread_mutex_lock(&application);
}

static void give_application_lock_back(void)
{
    pthread_mutex_unlock(&application);
}

/* Global, because a child has only one of the stacks, and valgrind would report the pool as lost
 * there. */
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

/* The data of a callback that forks: what the child does, and how it ended. */
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

/* Fork in a callback of this type, and see that the pool still works. Returns the child's wait
 * status. */
static int fork_in(ns_job_type_t type, void (*in_child)(struct ns_job_t *))
{
    struct parent parent;
    struct forker forker = {LATCH_INIT, in_child, -1};
    parent_begin(&parent);
    struct ns_job_t *job = probe_signal(parent.tp, SIGUSR1, NS_JOB_PERSIST, &parent.signals);
    assert_int_equal(ns_add_job(parent.tp, type, fork_in_callback, &forker, NULL), NS_SUCCESS);
    assert_latch(&forker.over, 1);
    /* The child's signals did not reach the parent. */
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
    /* Lower the limit until no descriptor number is free. */
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

int main(void)
{
    /* Before the first pool. */
    pthread_atfork(take_application_lock, give_application_lock_back, give_application_lock_back);
    const struct CMUnitTest tests[] = {
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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
