/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The loop in the caller's thread, and its process: forks, descriptors that the application closes, threads
 * that end inside, the environment, what the system refuses. */
#include "caller.h"
#include "children.h"
#include "sockets.h"

/*
 * Forks
 */
struct inherited {
    struct ns_thrpool_t *tp;
    struct ns_job_t *job;
};

static void use_in_child(void *arg)
{
    struct inherited *in = arg;
    struct timeval little = {0, 1000};
    CHILD_CHECK(ns_thrpool_run(in->tp) == NS_SHUTDOWN);
    CHILD_CHECK(ns_thrpool_turn(in->tp, NULL) == NS_SHUTDOWN);
    CHILD_CHECK(ns_thrpool_turn(in->tp, &at_once) == NS_SHUTDOWN);
    CHILD_CHECK(ns_thrpool_get_wait_fd(in->tp) == -1);
    CHILD_CHECK(ns_thrpool_wait(in->tp) == NS_SHUTDOWN);
    CHILD_CHECK(ns_thrpool_timedwait(in->tp, &little) == NS_SHUTDOWN);
    CHILD_CHECK(ns_job_wait(in->job) == NS_SHUTDOWN);
    CHILD_CHECK(ns_job_cancel(in->job) == NS_SHUTDOWN);
    /* A pool of its own works, in the thread that was the parent's loop. */
    struct latch runs = LATCH_INIT;
    struct ns_thrpool_t *own = caller_pool(1);
    CHILD_CHECK(ns_add_job(own, NS_JOB_NONE, count_and_finish, &runs, NULL) == NS_SUCCESS);
    CHILD_CHECK(ns_thrpool_get_wait_fd(own) < 0 || readable(ns_thrpool_get_wait_fd(own)));
    while (latch_count(&runs) == 0) {
        CHILD_CHECK(ns_thrpool_turn(own, NULL) == NS_SUCCESS);
    }
    ns_thrpool_shutdown(own);
    CHILD_CHECK(ns_thrpool_wait(own) == NS_SUCCESS);
    ns_thrpool_destroy(own);
    int fds = count_fds();
    ns_thrpool_destroy(in->tp);
    CHILD_CHECK(count_fds() < fds);
    if (getenv("NS_SLOW") == NULL) {
        /* So that thread-local destructors run; tools would look for leaks. */
        exit(0);
    }
}

static atomic_int in_child_status;

static void fork_in_callback(struct ns_job_t *job)
{
    atomic_store(&in_child_status, in_child(use_in_child, ns_job_get_data(job)));
    ns_job_done(job);
}

static void *fork_elsewhere(void *arg)
{
    atomic_store(&in_child_status, in_child(use_in_child, arg));
    return NULL;
}

TEST(in_a_forked_child_nothing_turns_the_parents_pool)
{
    for (int how = 0; how < 5; how++) {
        if (how == 2 && getenv("NS_SLOW") != NULL) {
            continue; /* valgrind misses glibc's list of what that thread has to destroy */
        }
        /* Static: for tools that look for leaks, it is still there in the child. */
        static struct inherited in;
        in = (struct inherited){caller_pool(1), NULL};
        int fd = ns_thrpool_get_wait_fd(in.tp);
        assert_int_equal(ns_add_timeout_job(in.tp, &far_away, NS_JOB_NONE, do_nothing, NULL, &in.job),
                         NS_SUCCESS);
        atomic_store(&in_child_status, -1);
        pthread_t thread;
        if (how > 0) {
            turn_to_the_end(in.tp);
        }
        switch (how) {
        case 0: /* nobody was inside */
        case 1: /* the caller was */
            fork_elsewhere(&in);
            break;
        case 2: /* another thread is */
            thread = start_thread(run_loop, in.tp);
            fork_elsewhere(&in);
            ns_thrpool_shutdown(in.tp);
            assert_int_equal(join_thread(thread), NS_SUCCESS);
            break;
        case 3: /* the thread itself is */
            assert_int_equal(ns_add_job(in.tp, NS_JOB_NONE, fork_in_callback, &in, NULL), NS_SUCCESS);
            turn_to_the_end(in.tp);
            break;
        default: /* the caller was, and another forks */
            join_thread(start_thread(fork_elsewhere, &in));
        }
        assert_exits(atomic_load(&in_child_status), 0);
        /* The child has not taken anything from the parent. */
        if (how != 2) {
            struct latch runs = LATCH_INIT;
            assert_int_equal(ns_thrpool_get_wait_fd(in.tp), fd);
            assert_int_equal(ns_add_job(in.tp, NS_JOB_NONE, count_and_finish, &runs, NULL), NS_SUCCESS);
            assert_readable(fd);
            TURN_UNTIL(in.tp, latch_count(&runs) == 1);
        }
        ns_thrpool_destroy(in.tp);
    }
}

static void return_in_child(struct ns_job_t *job)
{
    pid_t child = begin_child();
    if (child == 0) {
        struct rlimit none = {0, 0};
        setrlimit(RLIMIT_CORE, &none);
        return;
    }
    atomic_store(&in_child_status, end_child(child));
    ns_job_done(job);
}

TEST(a_callback_that_returns_in_a_child_ends_it)
{
    struct ns_thrpool_t *tp = caller_pool(0);
    assert_int_equal(ns_add_job(tp, NS_JOB_NONE, return_in_child, NULL, NULL), NS_SUCCESS);
    turn_to_the_end(tp);
    assert_killed_by(atomic_load(&in_child_status), SIGABRT);
    pool_end(tp);
}

/*
 * A callback ends the thread
 */
static void end_thread(struct ns_job_t *job)
{
    UNUSED(job);
    struct rlimit none = {0, 0};
    setrlimit(RLIMIT_CORE, &none);
    pthread_exit(NULL);
}

static void end_inside(void *arg)
{
    UNUSED(arg);
    struct ns_thrpool_t *tp = caller_pool(0);
    ns_add_job(tp, NS_JOB_NONE, end_thread, NULL, NULL);
    ns_thrpool_turn(tp, &at_once);
}

TEST(a_thread_that_ends_inside_ends_the_process)
{
    assert_killed_by(in_child(end_inside, NULL), SIGABRT);
}

/*
 * The application closes the pool's descriptors
 */
static void close_all(void)
{
    for (int fd = 3; fd < 200; fd++) {
        close(fd);
    }
}

static void work_after_close(void *arg)
{
    int inside = arg != NULL;
    struct ns_thrpool_t *tp = caller_pool_over(NULL, 1);
    struct latch runs = LATCH_INIT;
    CHILD_CHECK(ns_thrpool_get_wait_fd(tp) > 0);
    if (inside) {
        pthread_t thread = start_thread(run_loop, tp);
        struct gate gate = GATE_INIT;
        CHILD_CHECK(ns_job_done(occupy(tp, NS_JOB_NONE, &gate)) == NS_SUCCESS);
        latch_add(&gate.leave, 1);
        let_time_pass(20000);
        close_all();
        for (int i = 0; i < 10; i++) {
            CHILD_CHECK(ns_add_job(tp, NS_JOB_NONE, count_and_finish, &runs, NULL) == NS_SUCCESS);
        }
        CHILD_CHECK(latch_reaches(&runs, 10));
        ns_thrpool_shutdown(tp);
        CHILD_CHECK(ns_thrpool_wait(tp) == NS_SUCCESS);
        CHILD_CHECK(join_thread(thread) == NS_SUCCESS);
        ns_thrpool_destroy(tp);
        return;
    }
    turn_for(tp, 0);
    close_all();
    CHILD_CHECK(ns_add_job(tp, NS_JOB_NONE, count_and_finish, &runs, NULL) == NS_SUCCESS);
    while (latch_count(&runs) < 1) {
        CHILD_CHECK(turn_for(tp, 0) == NS_SUCCESS);
    }
    for (int i = 0; i < 10; i++) {
        turn_for(tp, 0);
    }
    /* Another one, which works. */
    int fd = ns_thrpool_get_wait_fd(tp);
    CHILD_CHECK(fd > 0 && !readable(fd));
    CHILD_CHECK(ns_add_job(tp, NS_JOB_NONE, count_and_finish, &runs, NULL) == NS_SUCCESS);
    CHILD_CHECK(readable_in(fd, 10000));
    turn_for(tp, 0);
    CHILD_CHECK(latch_count(&runs) == 2);
    ns_thrpool_destroy(tp);
}

TEST(closed_descriptors_are_replaced)
{
    assert_exits(in_child(work_after_close, NULL), 0);
    static int inside;
    assert_exits(in_child(work_after_close, &inside), 0);
}

/*
 * The environment, and what the system refuses
 */
TEST(the_environment_does_not_choose_the_framework)
{
    const char *chosen = getenv("NUNC_STANS_FRAMEWORK");
    setenv("NUNC_STANS_FRAMEWORK", "no-such-framework", 1);
    struct ns_thrpool_t *tp = caller_pool_over(NULL, 0);
    assert_string_equal(ns_thrpool_get_framework(tp), "native");
    assert_true(ns_thrpool_get_wait_fd(tp) >= 0);
    pool_end(tp);
    if (chosen == NULL) {
        unsetenv("NUNC_STANS_FRAMEWORK");
    } else {
        setenv("NUNC_STANS_FRAMEWORK", chosen, 1);
    }
    tp = caller_pool_over("portable", 0);
    assert_string_equal(ns_thrpool_get_framework(tp), "portable");
    assert_true(ns_thrpool_get_wait_fd(tp) >= 0);
    pool_end(tp);
}

TEST(no_descriptor_for_the_wait_descriptor)
{
    struct ns_thrpool_t *tp = caller_pool(0);
    needs_wait_fd(tp);
    ns_thrpool_destroy(tp);
    tp = caller_pool(0);
    struct rlimit before, none;
    getrlimit(RLIMIT_NOFILE, &before);
    none = before;
    none.rlim_cur = 3;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
    assert_int_equal(ns_thrpool_get_wait_fd(tp), -1);
    setrlimit(RLIMIT_NOFILE, &before);
    int fd = ns_thrpool_get_wait_fd(tp);
    assert_true(fd >= 0);
    struct latch runs = LATCH_INIT;
    assert_int_equal(ns_add_job(tp, NS_JOB_NONE, count_and_finish, &runs, NULL), NS_SUCCESS);
    assert_readable(fd);
    turn_to_the_end(tp);
    assert_int_equal(latch_count(&runs), 1);
    pool_end(tp);
}

/* As every pool does, at each point at which its allocator may fail. */
static int blocks_left;

static void *failing_calloc(size_t count, size_t size)
{
    return blocks_left-- > 0 ? counting_calloc(count, size) : NULL;
}

TEST(no_memory_for_the_pool)
{
    int fds = count_fds(), made = 0;
    for (int blocks = 0; !made; blocks++) {
        struct ns_thrpool_config config;
        struct ns_thrpool_options options;
        ns_thrpool_config_init(&config);
        ns_thrpool_options_init(&options, sizeof options);
        config.max_threads = 0;
        config.log_fct = quiet_log;
        config.calloc_fct = failing_calloc;
        config.free_fct = counting_free;
        options.flags = NS_POOL_CALLER_LOOP;
        blocks_left = blocks;
        struct ns_thrpool_t *tp = ns_thrpool_new_with(&config, &options);
        made = tp != NULL;
        if (made) {
            /* The table may have no room for its number. */
            int fd = ns_thrpool_get_wait_fd(tp);
            assert_true(fd >= -1);
            assert_int_equal(turn_for(tp, 0), NS_TIMEOUT);
            pool_end(tp);
        }
        assert_int_equal(count_fds(), fds);
        assert_int_equal(atomic_load(&blocks_out), 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_a_forked_child_nothing_turns_the_parents_pool),
        cmocka_unit_test(a_callback_that_returns_in_a_child_ends_it),
        cmocka_unit_test(a_thread_that_ends_inside_ends_the_process),
        cmocka_unit_test(closed_descriptors_are_replaced),
        cmocka_unit_test(the_environment_does_not_choose_the_framework),
        cmocka_unit_test(no_descriptor_for_the_wait_descriptor),
        cmocka_unit_test(no_memory_for_the_pool),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
