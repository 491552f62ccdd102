/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The loop in the caller's thread over an event framework of the application's own: what the framework is
 * asked, and by whom; run and turn; what it refuses. And which frameworks have a wait descriptor.
 */
#include "caller.h"
#include "children.h"
#include "framework-epoll.h"
#include "sockets.h"

#define FRAMEWORK_ONLY
#include "../examples/framework-poll.c"

static struct ns_thrpool_t *try_table(const struct ns_framework *table, size_t workers)
{
    struct ns_thrpool_config config;
    struct ns_thrpool_options options;
    ns_thrpool_config_init(&config);
    ns_thrpool_options_init(&options, sizeof options);
    config.max_threads = workers;
    config.log_fct = recording_log;
    options.flags = NS_POOL_CALLER_LOOP;
    options.custom = table;
    return ns_thrpool_new_with(&config, &options);
}

static struct ns_thrpool_t *epoll_pool(size_t workers)
{
    memset(&by_epoll, 0, sizeof by_epoll);
    struct ns_framework table = framework_epoll();
    struct ns_thrpool_t *tp = try_table(&table, workers);
    assert_non_null(tp);
    return tp;
}

/* The pool ends, and the framework was used as it should be. */
static void epoll_end(struct ns_thrpool_t *tp)
{
    pool_end(tp);
    assert_int_equal(atomic_load(&by_epoll.overlaps), 0);
    assert_int_equal(atomic_load(&by_epoll.opens), atomic_load(&by_epoll.closes));
}

static void add_soon(struct ns_thrpool_t *tp, long usec, struct latch *runs)
{
    struct timeval tv = {0, usec};
    assert_int_equal(ns_add_timeout_job(tp, &tv, NS_JOB_NONE, count_and_finish, runs, NULL),
                     NS_SUCCESS);
}

TEST(which_have_a_wait_descriptor)
{
    static const struct {
        const char *name;
        int has;
    } all[] = {
        {"native", 1},        {"portable", 1},        {"libevent", 1}, {"libevent:epoll", 1},
        {"libevent:poll", 0}, {"libevent:select", 0}, {"tevent", 0},   {"tevent:standard", 0},
        {"tevent:poll", 0},
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct ns_thrpool_t *tp = caller_pool_over(all[i].name, 0);
        int fd = ns_thrpool_get_wait_fd(tp);
        if (all[i].has != (fd >= 0)) {
            fail_msg("%s: %d", all[i].name, fd);
        }
        assert_int_equal(ns_thrpool_get_wait_fd(tp), fd);
        ns_thrpool_destroy(tp);
    }
    struct ns_thrpool_t *tp = epoll_pool(0);
    assert_true(ns_thrpool_get_wait_fd(tp) >= 0);
    epoll_end(tp);
    tp = epoll_pool(0);
    atomic_store(&by_epoll.hides, 1);
    struct ns_framework table = framework_poll();
    struct ns_thrpool_t *other = try_table(&table, 0);
    assert_int_equal(ns_thrpool_get_wait_fd(other), -1);
    pool_end(other);
    epoll_end(tp);
}

/* Each kind of event, by turns of a host that sleeps on the wait descriptor alone. */
TEST(a_host_is_told_of_everything)
{
    struct ns_thrpool_t *tp = epoll_pool(1);
    int fd = ns_thrpool_get_wait_fd(tp), ends[2];
    struct latch runs = LATCH_INIT;
    for (long n = 0; n < 300; n += 3) {
        double due = now_seconds() + 0.002;
        add_soon(tp, 2000, &runs);
        assert_int_equal(ns_add_job(tp, n & 1 ? NS_JOB_THREAD : NS_JOB_NONE, count_and_finish, &runs, NULL),
                         NS_SUCCESS);
        socket_pair(ends);
        assert_int_equal(ns_add_fd_job(tp, ends[0], NS_JOB_READ | (n & 2 ? NS_JOB_THREAD : 0),
                                       count_and_finish, &runs, NULL), NS_SUCCESS);
        send_byte(ends[1]);
        while (latch_count(&runs) < n + 3) {
            if (readable_in(fd, 20)) {
                assert_int_equal(turn_for(tp, 0), NS_SUCCESS);
            }
        }
        assert_true(now_seconds() >= due);
        close(ends[1]);
    }
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_signal_job(tp, SIGUSR1, NS_JOB_NONE, count_and_finish, &runs, &job), NS_SUCCESS);
    turn_to_the_end(tp);
    assert_not_readable(fd);
    kill(getpid(), SIGUSR1);
    TURN_UNTIL(tp, latch_count(&runs) == 301);
    turn_to_the_end(tp);
    /* Nothing is left to do, and the framework is not asked for anything. */
    int waits = atomic_load(&by_epoll.waits);
    assert_false(readable_in(fd, 50));
    assert_int_equal(atomic_load(&by_epoll.waits), waits);
    /* The deadline is a timerfd that it watches. */
    assert_int_equal(atomic_load(&by_epoll.sleeps), 0);
    epoll_end(tp);
}

TEST(a_turn_that_waits_is_never_early)
{
    struct ns_thrpool_t *tp = epoll_pool(0);
    for (long usec = 500; usec < 20000; usec += 1700) {
        double begin = now_seconds();
        assert_int_equal(turn_for(tp, usec), NS_TIMEOUT);
        assert_true(now_seconds() - begin >= (double)usec / 1e6);
        assert_false(readable(ns_thrpool_get_wait_fd(tp)));
    }
    assert_int_equal(atomic_load(&by_epoll.sleeps), 0);
    epoll_end(tp);
}

TEST(run_is_the_loop_until_the_pool_has_stopped)
{
    struct ns_thrpool_t *tp = epoll_pool(1);
    pthread_t thread = start_thread(run_loop, tp);
    struct latch runs = LATCH_INIT;
    int ends[2];
    for (long n = 0; n < 100; n += 2) {
        socket_pair(ends);
        assert_int_equal(ns_add_fd_job(tp, ends[0], NS_JOB_READ | (n & 2 ? NS_JOB_THREAD : 0),
                                       count_and_finish, &runs, NULL), NS_SUCCESS);
        send_byte(ends[1]);
        add_soon(tp, 100, &runs);
        assert_latch(&runs, n + 2);
        close(ends[1]);
    }
    assert_int_equal(turn_for(tp, 0), NS_INVALID_STATE);
    ns_thrpool_shutdown(tp);
    assert_int_equal(join_thread(thread), NS_SUCCESS);
    assert_int_equal(turn_for(tp, 0), NS_SHUTDOWN);
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    ns_thrpool_destroy(tp);
    assert_int_equal(atomic_load(&by_epoll.overlaps), 0);
    assert_int_equal(atomic_load(&by_epoll.opens), atomic_load(&by_epoll.closes));
}

TEST(open_that_returns_null_makes_no_pool)
{
    int fds = count_fds();
    memset(&by_epoll, 0, sizeof by_epoll);
    atomic_store(&by_epoll.refuse_open, 1);
    struct ns_framework table = framework_epoll();
    assert_null(try_table(&table, 1));
    assert_true(logged("ns_thrpool_new_with: open of the framework returned NULL"));
    assert_int_equal(count_fds(), fds);
}

TEST(a_descriptor_that_is_refused_is_tried_again)
{
    struct ns_thrpool_t *tp = epoll_pool(0);
    int ends[2], errors = count_logged_errors(), turns = 0;
    socket_pair(ends);
    struct probe probe = PROBE(NULL, ends[0]);
    atomic_store(&by_epoll.watch_fd, ends[0]);
    atomic_store(&by_epoll.watch_error, ENOSPC);
    struct ns_job_t *job = probe_fd(tp, NS_JOB_READ | NS_JOB_PERSIST, 20000, &probe);
    send_byte(ends[1]);
    double begin = now_seconds();
    while (latch_count(&probe.runs) < 3) {
        assert_readable(ns_thrpool_get_wait_fd(tp));
        turn_for(tp, 0);
        turns++;
    }
    assert_int_equal(atomic_load(&probe.output), NS_JOB_TIMER);
    assert_true(now_seconds() - begin >= 0.06);
    /* Its time-outs and the tries, with pauses that double. */
    assert_true(turns < 100);
    assert_int_equal(count_logged_errors(), errors + 1);
    assert_true(logged("refuses descriptor"));
    atomic_store(&by_epoll.watch_error, 0);
    TURN_UNTIL(tp, atomic_load(&probe.output) == NS_JOB_READ);
    ns_job_cancel(job);
    TURN_UNTIL(tp, latch_count(&probe.disposals) == 1);
    close(ends[1]);
    epoll_end(tp);
}

TEST(a_wait_that_fails_is_logged_once_and_tried_again)
{
    struct ns_thrpool_t *tp = epoll_pool(0);
    int fd = ns_thrpool_get_wait_fd(tp), ends[2];
    struct latch runs = LATCH_INIT;
    socket_pair(ends);
    assert_int_equal(ns_add_fd_job(tp, ends[0], NS_JOB_READ, count_and_finish, &runs, NULL), NS_SUCCESS);
    turn_to_the_end(tp);
    atomic_store(&by_epoll.wait_error, ENOMEM);
    /* Timers come, and the host hears of them. */
    for (long n = 1; n <= 5; n++) {
        add_soon(tp, 20000, &runs);
        while (latch_count(&runs) < n) {
            assert_readable(fd);
            turn_for(tp, 0);
        }
    }
    assert_true(atomic_load(&by_epoll.waits) < 200);
    atomic_store(&by_epoll.wait_error, 0);
    send_byte(ends[1]);
    while (latch_count(&runs) < 6) {
        assert_readable(fd);
        turn_for(tp, 1000);
    }
    assert_true(atomic_load(&by_epoll.opens) > 1);
    /* The descriptor is the same, and speaks for the new context. */
    assert_int_equal(ns_thrpool_get_wait_fd(tp), fd);
    turn_to_the_end(tp);
    assert_not_readable(fd);
    add_soon(tp, 0, &runs);
    assert_readable(fd);
    TURN_UNTIL(tp, latch_count(&runs) == 7);
    close(ends[1]);
    epoll_end(tp);
}

static void leave_in_child(void *tp)
{
    CHILD_CHECK(ns_thrpool_get_wait_fd(tp) == -1);
    CHILD_CHECK((int)turn_for(tp, 0) == NS_SHUTDOWN);
    ns_thrpool_destroy(tp);
    CHILD_CHECK(atomic_load(&by_epoll.closes) == 1);
}

TEST(a_child_closes_its_copy_and_the_parent_goes_on)
{
    struct ns_thrpool_t *tp = epoll_pool(1);
    struct latch runs = LATCH_INIT;
    int ends[2], fd = ns_thrpool_get_wait_fd(tp);
    socket_pair(ends);
    assert_int_equal(ns_add_fd_job(tp, ends[0], NS_JOB_READ, count_and_finish, &runs, NULL), NS_SUCCESS);
    turn_to_the_end(tp);
    assert_exits(in_child(leave_in_child, tp), 0);
    assert_not_readable(fd);
    send_byte(ends[1]);
    assert_readable(fd);
    TURN_UNTIL(tp, latch_count(&runs) == 1);
    close(ends[1]);
    epoll_end(tp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(which_have_a_wait_descriptor),
        cmocka_unit_test(a_host_is_told_of_everything),
        cmocka_unit_test(a_turn_that_waits_is_never_early),
        cmocka_unit_test(run_is_the_loop_until_the_pool_has_stopped),
        cmocka_unit_test(open_that_returns_null_makes_no_pool),
        cmocka_unit_test(a_descriptor_that_is_refused_is_tried_again),
        cmocka_unit_test(a_wait_that_fails_is_logged_once_and_tried_again),
        cmocka_unit_test(a_child_closes_its_copy_and_the_parent_goes_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
