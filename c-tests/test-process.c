/* SPDX-License-Identifier: GPL-3.0-or-later */
/* How the library fits into a process: exec, exit, the ends of threads, SIGPIPE. */
#include "children.h"
#include "signals.h"

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

/* Use a pool while a thread, or the process, is ending. */
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

/* The pool's own threads run the application's destructors too when they end: the workers after the
 * shutdown, the loop when the pool is destroyed. */
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
    /* In a destructor a new pool works like any other. */
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
    /* The loop has run its job by now. The worker runs its own before it ends. */
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
    /* For the type UNARMED, exit in the done callback of a job that never runs. */
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

static atomic_int stop_raising;

static void *raise_all_the_time(void *unused)
{
    UNUSED(unused);
    while (!atomic_load(&stop_raising)) {
        raise(SIGUSR1);
        sched_yield();
    }
    return NULL;
}

/* The child has closed the pool's pipe, but the handler for the parent's job is still installed. */
static void raise_behind_destroy_in_child(void *arg)
{
    ns_thrpool_destroy(arg);
    for (int i = 0; i < 100; i++) {
        CHILD_CHECK(raise(SIGUSR1) == 0);
    }
    CHILD_CHECK(atomic_load(&broken_pipes) == 0);
}

/* Pools come and go, with peers that are gone, while signal handlers write into their pipes. */
TEST(nothing_raises_sigpipe)
{
    struct sigaction mine, original;
    signal(SIGUSR1, count_handled); /* what a signal does in the child */
    struct ns_thrpool_t *keeper = pool_of(1);
    struct probe kept = PROBE(NULL, -1);
    pthread_t thread;
    memset(&mine, 0, sizeof(mine));
    mine.sa_handler = count_broken_pipe;
    assert_int_equal(sigaction(SIGPIPE, &mine, &original), 0);
    struct ns_job_t *keeping = probe_signal(keeper, SIGUSR1, NS_JOB_PERSIST, &kept);
    assert_exits(in_child(raise_behind_destroy_in_child, keeper), 0);
    atomic_store(&stop_raising, 0);
    pthread_create(&thread, NULL, raise_all_the_time, NULL);
    for (int i = 0; i < scaled(200); i++) {
        struct ns_thrpool_t *tp = pool_of(2);
        struct probe signals = PROBE(NULL, -1), io = PROBE(finish_job, -1);
        int ends[2];
        socket_pair(ends);
        close(ends[1]);
        io.fd = ends[0];
        struct ns_job_t *job = probe_signal(tp, SIGUSR1, NS_JOB_PERSIST, &signals);
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
    assert_latch(&kept.runs, 1);
    atomic_store(&stop_raising, 1);
    pthread_join(thread, NULL);
    assert_int_equal(atomic_load(&broken_pipes), 0);
    /* The handler does count SIGPIPE. */
    raise(SIGPIPE);
    assert_int_equal(atomic_load(&broken_pipes), 1);
    ns_job_cancel(keeping);
    assert_latch(&kept.disposals, 1);
    pool_end(keeper);
    assert_int_equal(sigaction(SIGPIPE, &original, NULL), 0);
    signal(SIGUSR1, SIG_DFL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_descriptors_are_closed_by_exec),
        cmocka_unit_test(exit_from_a_callback_ends_the_process_with_its_status),
        cmocka_unit_test(pthread_exit_in_a_callback_aborts),
        cmocka_unit_test(everything_works_in_an_atexit_handler),
        cmocka_unit_test(everything_works_in_the_destructor_of_a_thread_key),
        cmocka_unit_test(everything_answers_in_thread_key_destructors_of_the_pools_own_threads),
        cmocka_unit_test(atexit_handlers_may_end_the_pool_whose_callback_called_exit),
        cmocka_unit_test(nothing_raises_sigpipe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
