/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The loop in the caller's thread: what a turn does, and when the wait descriptor is readable. */
#include "caller.h"
#include "sockets.h"

#include <sys/epoll.h>
#include <sys/prctl.h>

static struct ns_job_t *add_now(struct ns_thrpool_t *tp, ns_job_type_t type, struct latch *runs)
{
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_job(tp, type, count_and_finish, runs, &job), NS_SUCCESS);
    return job;
}

static void add_timer(struct ns_thrpool_t *tp, long usec, struct latch *runs)
{
    struct timeval tv = {usec / 1000000, usec % 1000000};
    assert_int_equal(ns_add_timeout_job(tp, &tv, NS_JOB_NONE, count_and_finish, runs, NULL),
                     NS_SUCCESS);
}

/* As a thread. */
struct add {
    struct ns_thrpool_t *tp;
    struct latch *runs;
    ns_job_type_t type;
    long delay;
};

static void *add_later(void *arg)
{
    struct add *add = arg;
    let_time_pass(add->delay);
    ns_add_job(add->tp, add->type, count_and_finish, add->runs, NULL);
    return NULL;
}

static void end(struct ns_thrpool_t *tp)
{
    pool_end(tp);
}

TEST(a_new_pool_has_nothing_to_do_and_no_loop_thread)
{
    int fds = count_fds(), threads = first_count_of_threads();
    struct ns_thrpool_t *tp = caller_pool(2);
    needs_wait_fd(tp);
    EVENTUALLY(count_threads() == threads + 2);
    int fd = ns_thrpool_get_wait_fd(tp);
    assert_true(fd > 2);
    assert_int_equal(ns_thrpool_get_wait_fd(tp), fd);
    assert_true(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    assert_not_readable(fd);
    assert_int_equal(turn_for(tp, 0), NS_TIMEOUT);
    assert_not_readable(fd);
    end(tp);
    assert_false(fd_is_open(fd));
    assert_nothing_left(fds, threads);
}

TEST(a_job_runs_in_the_thread_that_turns_and_not_before)
{
    struct ns_thrpool_t *tp = caller_pool(1);
    int fd = ns_thrpool_get_wait_fd(tp);
    struct probe probe = PROBE(finish_job, -1);
    assert_int_equal(ns_add_job(tp, NS_JOB_NONE, probe_run, &probe, NULL), NS_SUCCESS);
    assert_readable(fd);
    assert_int_equal(latch_count(&probe.runs), 0);
    assert_int_equal(turn_for(tp, 0), NS_SUCCESS);
    assert_int_equal(latch_count(&probe.runs), 1);
    assert_int_equal(atomic_load(&probe.thread), gettid());
    turn_to_the_end(tp);
    assert_not_readable(fd);
    end(tp);
}

/* Before the first turn, and after some. */
TEST(every_kind_of_event_makes_the_descriptor_readable_while_nobody_is_inside)
{
    for (int turned = 0; turned < 2; turned++) {
        struct ns_thrpool_t *tp = caller_pool(1);
        needs_wait_fd(tp);
        int fd = ns_thrpool_get_wait_fd(tp);
        struct latch runs = LATCH_INIT;
        if (turned) {
            turn_to_the_end(tp);
        }
        long n = 0;

        /* A run-now job, from here and from another thread. */
        assert_not_readable(fd);
        add_now(tp, NS_JOB_NONE, &runs);
        assert_readable(fd);
        TURN_UNTIL(tp, latch_count(&runs) == n + 1);
        n++;
        turn_to_the_end(tp);
        struct add add = {tp, &runs, NS_JOB_NONE, 2000};
        pthread_t thread = start_thread(add_later, &add);
        assert_readable(fd);
        TURN_UNTIL(tp, latch_count(&runs) == n + 1);
        n++;
        join_thread(thread);
        turn_to_the_end(tp);

        /* A timer. */
        double begin = now_seconds();
        add_timer(tp, 200000, &runs);
        turn_to_the_end(tp);
        assert_not_readable(fd);
        assert_readable(fd);
        TURN_UNTIL(tp, latch_count(&runs) == n + 1);
        n++;
        assert_true(now_seconds() - begin >= 0.2);
        turn_to_the_end(tp);

        /* A descriptor. */
        int ends[2];
        socket_pair(ends);
        struct ns_job_t *job = NULL;
        assert_int_equal(ns_add_fd_job(tp, ends[0], NS_JOB_READ, count_and_finish, &runs, &job),
                         NS_SUCCESS);
        turn_to_the_end(tp);
        assert_not_readable(fd);
        send_byte(ends[1]);
        assert_readable(fd);
        TURN_UNTIL(tp, latch_count(&runs) == n + 1);
        n++;
        turn_to_the_end(tp);
        close(ends[1]);

        /* A signal. */
        assert_int_equal(ns_add_signal_job(tp, SIGUSR1, NS_JOB_NONE, count_and_finish, &runs, NULL),
                         NS_SUCCESS);
        turn_to_the_end(tp);
        assert_not_readable(fd);
        kill(getpid(), SIGUSR1);
        assert_readable(fd);
        TURN_UNTIL(tp, latch_count(&runs) == n + 1);
        n++;
        turn_to_the_end(tp);

        /* A worker that arms its job again. */
        socket_pair(ends);
        assert_int_equal(ns_add_fd_job(tp, ends[0], NS_JOB_READ | NS_JOB_THREAD | NS_JOB_PERSIST,
                                       read_one_byte, NULL, &job), NS_SUCCESS);
        turn_to_the_end(tp);
        for (int i = 0; i < 3; i++) {
            send_byte(ends[1]);
            char byte;
            TURN_UNTIL(tp, recv(ends[0], &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0);
        }
        /* The worker's request may be still to come. */
        assert_int_equal(ns_job_cancel(job) == NS_SUCCESS || 1, 1);
        TURN_UNTIL(tp, !fd_is_open(ends[0]));
        close(ends[1]);

        /* A group. */
        struct ns_group_t *group = NULL;
        assert_int_equal(ns_group_new(tp, 1, NULL, NULL, &group), NS_SUCCESS);
        turn_to_the_end(tp);
        assert_int_equal(ns_add_group_job(group, NS_JOB_NONE, count_and_finish, &runs, NULL),
                         NS_SUCCESS);
        assert_readable(fd);
        TURN_UNTIL(tp, latch_count(&runs) == n + 1);
        n++;
        ns_group_cancel(group);
        assert_readable(fd);
        ns_group_release(group);
        turn_to_the_end(tp);

        /* A cancel. */
        struct probe probe = PROBE(finish_job, -1);
        struct ns_job_t *timer = NULL;
        assert_int_equal(ns_add_timeout_job(tp, &far_away, NS_JOB_UNARMED, probe_run, &probe, &timer),
                         NS_SUCCESS);
        probe_arm(timer);
        turn_to_the_end(tp);
        assert_not_readable(fd);
        assert_int_equal(ns_job_cancel(timer), NS_SUCCESS);
        assert_readable(fd);
        TURN_UNTIL(tp, latch_count(&probe.disposals) == 1);
        turn_to_the_end(tp);

        /* The shutdown, and the last worker's leaving. */
        assert_not_readable(fd);
        ns_thrpool_shutdown(tp);
        ns_result_t result;
        do {
            assert_readable(fd);
            result = turn_for(tp, 0);
        } while (result != NS_SHUTDOWN);
        assert_not_readable(fd);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        ns_thrpool_destroy(tp);
    }
}

TEST(every_kind_of_event_ends_a_turn_that_waits)
{
    struct ns_thrpool_t *tp = caller_pool(1);
    struct latch runs = LATCH_INIT;
    long n = 0;

    struct add add = {tp, &runs, NS_JOB_NONE, 5000};
    pthread_t thread = start_thread(add_later, &add);
    while (latch_count(&runs) == n) {
        assert_int_equal(ns_thrpool_turn(tp, NULL), NS_SUCCESS);
    }
    n++;
    join_thread(thread);

    double begin = now_seconds();
    add_timer(tp, 5000, &runs);
    while (latch_count(&runs) == n) {
        assert_int_equal(turn_for(tp, 1000000L * LIMIT_SECONDS), NS_SUCCESS);
    }
    n++;
    assert_true(now_seconds() - begin >= 0.005);

    int ends[2];
    socket_pair(ends);
    assert_int_equal(ns_add_fd_job(tp, ends[0], NS_JOB_READ, count_and_finish, &runs, NULL), NS_SUCCESS);
    turn_to_the_end(tp);
    send_byte(ends[1]);
    assert_int_equal(ns_thrpool_turn(tp, NULL), NS_SUCCESS);
    n++;
    assert_int_equal(latch_count(&runs), n);
    close(ends[1]);

    assert_int_equal(ns_add_signal_job(tp, SIGUSR1, NS_JOB_NONE, count_and_finish, &runs, NULL),
                     NS_SUCCESS);
    turn_to_the_end(tp);
    kill(getpid(), SIGUSR1);
    while (latch_count(&runs) == n) {
        assert_int_equal(ns_thrpool_turn(tp, NULL), NS_SUCCESS);
    }
    n++;
    end(tp);
}

/* The signal that interrupts a turn is nobody's: the turn goes on. */
static atomic_int handled;

static void handle(int signum)
{
    UNUSED(signum);
    atomic_fetch_add(&handled, 1);
}

static void *interrupt(void *arg)
{
    pthread_t *thread = arg;
    for (int i = 0; i < 20; i++) {
        let_time_pass(1000);
        pthread_kill(*thread, SIGUSR2);
    }
    return NULL;
}

TEST(a_turn_is_never_early_and_its_time_leaves_nothing_behind)
{
    struct ns_thrpool_t *tp = caller_pool(1);
    int fd = ns_thrpool_get_wait_fd(tp);
    struct sigaction action = {.sa_handler = handle}, before;
    sigaction(SIGUSR2, &action, &before);
    pthread_t self = pthread_self();
    pthread_t other = start_thread(interrupt, &self);
    static const long times[] = {1, 10, 999, 1000, 1001, 12345, 40000};
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        double begin = now_seconds();
        assert_int_equal(turn_for(tp, times[i]), NS_TIMEOUT);
        double took = now_seconds() - begin;
        if (took < (double)times[i] / 1e6) {
            fail_msg("%g s of %ld us", took, times[i]);
        }
        assert_not_readable(fd);
    }
    join_thread(other);
    assert_true(atomic_load(&handled) > 0);
    sigaction(SIGUSR2, &before, NULL);

    /* A turn that ends sooner leaves no time set either; nor does a timer that was cancelled. */
    struct latch runs = LATCH_INIT;
    add_now(tp, NS_JOB_NONE, &runs);
    assert_int_equal(turn_for(tp, 30000), NS_SUCCESS);
    struct timeval tv = {0, 300000};
    struct ns_job_t *timer = NULL;
    assert_int_equal(ns_add_timeout_job(tp, &tv, NS_JOB_NONE, count_and_finish, &runs, &timer),
                     NS_SUCCESS);
    assert_int_equal(turn_for(tp, 0), NS_SUCCESS);
    assert_int_equal(ns_job_cancel(timer), NS_SUCCESS);
    turn_to_the_end(tp);
    assert_false(fd >= 0 && readable_in(fd, 350));
    assert_int_equal(latch_count(&runs), 1);
    end(tp);
}

TEST(what_a_bounded_turn_leaves_over_keeps_the_descriptor_readable)
{
    struct ns_thrpool_t *tp = caller_pool(1);
    needs_wait_fd(tp);
    int fd = ns_thrpool_get_wait_fd(tp);
    struct latch runs = LATCH_INIT;
    enum { JOBS = 5000 };
    for (int i = 0; i < JOBS; i++) {
        add_now(tp, NS_JOB_NONE, &runs);
    }
    int turns = 0;
    while (readable(fd)) {
        assert_int_equal(turn_for(tp, 0), NS_SUCCESS);
        turns++;
    }
    assert_int_equal(latch_count(&runs), JOBS);
    assert_true(turns > 1);

    for (int i = 0; i < JOBS; i++) {
        add_timer(tp, 0, &runs);
    }
    while (readable(fd)) {
        turn_for(tp, 0);
    }
    assert_int_equal(latch_count(&runs), 2 * JOBS);
    end(tp);
}

static void run_three_times(struct ns_job_t *job)
{
    struct latch *runs = ns_job_get_data(job);
    latch_add(runs, 1);
    if (latch_count(runs) == 3) {
        ns_job_done(job);
    }
}

TEST(a_job_that_goes_on_keeps_the_descriptor_readable)
{
    struct ns_thrpool_t *tp = caller_pool(0);
    needs_wait_fd(tp);
    int fd = ns_thrpool_get_wait_fd(tp);
    struct latch runs = LATCH_INIT;
    assert_int_equal(ns_add_job(tp, NS_JOB_PERSIST, run_three_times, &runs, NULL), NS_SUCCESS);
    int turns = 0;
    while (readable(fd)) {
        assert_int_equal(turn_for(tp, 0), NS_SUCCESS);
        turns++;
    }
    assert_int_equal(latch_count(&runs), 3);
    assert_true(turns >= 3);
    end(tp);
}

/* Under an edge-triggered poller, one edge is enough if each is followed by turns to the end. */
TEST(an_edge_triggered_host_loses_nothing)
{
    struct ns_thrpool_t *tp = caller_pool(1);
    needs_wait_fd(tp);
    int outer = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN | EPOLLET};
    assert_int_equal(epoll_ctl(outer, EPOLL_CTL_ADD, ns_thrpool_get_wait_fd(tp), &event), 0);
    turn_to_the_end(tp);
    struct latch runs = LATCH_INIT;
    int ends[2];
    socket_pair(ends);
    struct ns_job_t *reader = NULL;
    assert_int_equal(ns_add_fd_job(tp, ends[0], NS_JOB_READ | NS_JOB_PERSIST, read_one_byte, NULL,
                                   &reader), NS_SUCCESS);
    for (int i = 0; i < scaled(2000); i++) {
        switch (i % 4) {
        case 0: {
            struct add add = {tp, &runs, i % 8 ? NS_JOB_THREAD : NS_JOB_NONE, 0};
            pthread_t thread = start_thread(add_later, &add);
            join_thread(thread);
            break;
        }
        case 1:
            add_now(tp, NS_JOB_NONE, &runs);
            break;
        case 2:
            add_timer(tp, i % 50, &runs);
            break;
        default:
            add_now(tp, NS_JOB_NONE, &runs);
            send_byte(ends[1]);
        }
        while (latch_count(&runs) <= i) {
            assert_true(epoll_wait(outer, &event, 1, 10000) == 1 || latch_count(&runs) > i);
            turn_to_the_end(tp);
        }
    }
    close(outer);
    close(ends[1]);
    ns_job_cancel(reader);
    end(tp);
}

/* The poller is replaced when a descriptor that it still knows has no number any more. The host's
 * registration must not notice. */
TEST(the_descriptor_outlives_the_poller)
{
    struct ns_thrpool_t *tp = caller_pool(1);
    needs_wait_fd(tp);
    int fd = ns_thrpool_get_wait_fd(tp);
    int outer = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    assert_int_equal(epoll_ctl(outer, EPOLL_CTL_ADD, fd, &event), 0);

    int ends[2], other[2];
    socket_pair(ends);
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_fd_job(tp, ends[0], NS_JOB_READ | NS_JOB_PRESERVE_FD, do_nothing, NULL, &job),
                     NS_SUCCESS);
    turn_to_the_end(tp);
    /* The registration outlives the number, which becomes another file's. */
    int copy = dup(ends[0]);
    socket_pair(other);
    assert_int_equal(dup2(other[0], ends[0]), ends[0]);
    send_byte(ends[1]);
    turn_to_the_end(tp);
    assert_int_equal(epoll_wait(outer, &event, 1, 0), 0);

    assert_int_equal(ns_thrpool_get_wait_fd(tp), fd);
    struct latch runs = LATCH_INIT;
    add_now(tp, NS_JOB_NONE, &runs);
    assert_int_equal(epoll_wait(outer, &event, 1, 10000), 1);
    turn_to_the_end(tp);
    assert_int_equal(latch_count(&runs), 1);
    add_timer(tp, 2000, &runs);
    turn_for(tp, 0);
    while (latch_count(&runs) < 2) {
        assert_int_equal(epoll_wait(outer, &event, 1, 10000), 1);
        turn_for(tp, 0);
    }
    ns_job_cancel(job);
    end(tp);
    close(outer);
    close(copy);
    close(ends[0]);
    close(ends[1]);
    close(other[0]);
    close(other[1]);
}

TEST(no_job_of_the_pool_may_watch_its_wait_descriptor)
{
    struct ns_thrpool_t *tp = caller_pool(0), *other = caller_pool(0);
    needs_wait_fd(tp);
    int fd = ns_thrpool_get_wait_fd(tp);
    ns_job_type_t type = NS_JOB_READ | NS_JOB_PRESERVE_FD;
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_fd_job(tp, fd, type, do_nothing, NULL, &job), NS_INVALID_REQUEST);
    assert_int_equal(ns_add_fd_job(other, fd, type, do_nothing, NULL, &job), NS_SUCCESS);
    ns_job_cancel(job);
    end(other);
    end(tp);
}

TEST(the_callers_name_and_mask_are_not_touched)
{
    struct ns_thrpool_t *tp = caller_pool(1);
    sigset_t mask, before, after;
    sigemptyset(&mask);
    sigaddset(&mask, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &mask, &before);
    char name[16], name_after[16];
    prctl(PR_GET_NAME, name);
    struct latch runs = LATCH_INIT;
    assert_int_equal(ns_add_signal_job(tp, SIGUSR1, NS_JOB_NONE, count_and_finish, &runs, NULL),
                     NS_SUCCESS);
    turn_to_the_end(tp);
    pthread_sigmask(SIG_SETMASK, NULL, &after);
    assert_true(sigismember(&after, SIGUSR1));
    prctl(PR_GET_NAME, name_after);
    assert_string_equal(name, name_after);
    /* Once it is unblocked in some thread, it comes. */
    kill(getpid(), SIGUSR1);
    pthread_sigmask(SIG_UNBLOCK, &mask, NULL);
    TURN_UNTIL(tp, latch_count(&runs) == 1);
    end(tp);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void *cancelled_while_inside(void *arg)
{
    struct ns_thrpool_t *tp = arg;
    pthread_cancel(pthread_self());
    /* A cancellation is pending from the first step on. It takes effect only outside. */
    for (int i = 0; i < 100; i++) {
        int old;
        pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &old);
        ns_thrpool_turn(tp, &at_once);
        pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &old);
    }
    return tp;
}

TEST(nothing_is_cancelled_inside)
{
    struct ns_thrpool_t *tp = caller_pool(1);
    struct latch runs = LATCH_INIT;
    add_now(tp, NS_JOB_NONE, &runs);
    pthread_t thread = start_thread(cancelled_while_inside, tp);
    join_thread(thread);
    TURN_UNTIL(tp, latch_count(&runs) == 1);
    turn_to_the_end(tp);
    end(tp);
}

TEST(errno_is_kept)
{
    struct ns_thrpool_t *tp = caller_pool(0);
    errno = 12345;
    turn_for(tp, 0);
    assert_int_equal(errno, 12345);
    turn_for(tp, 1000);
    assert_int_equal(errno, 12345);
    ns_thrpool_get_wait_fd(tp);
    assert_int_equal(errno, 12345);
    end(tp);
}

TEST(no_thread_at_all)
{
    int threads = count_threads();
    struct ns_thrpool_t *tp = caller_pool(0);
    assert_int_equal(count_threads(), threads);
    struct ns_job_t *job = (void *)1;
    assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, do_nothing, NULL, &job), NS_INVALID_REQUEST);
    assert_null(job);
    assert_int_equal(ns_create_job(tp, NS_JOB_THREAD, do_nothing, &job), NS_INVALID_REQUEST);
    assert_int_equal(ns_add_timeout_job(tp, &at_once, NS_JOB_THREAD, do_nothing, NULL, NULL),
                     NS_INVALID_REQUEST);
    assert_int_equal(ns_add_signal_job(tp, SIGUSR1, NS_JOB_THREAD, do_nothing, NULL, NULL),
                     NS_INVALID_REQUEST);
    assert_int_equal(ns_add_jobs(tp, NS_JOB_THREAD, do_nothing, 2, NULL, NULL), NS_INVALID_REQUEST);
    struct ns_group_t *group = NULL;
    assert_int_equal(ns_group_new(tp, 1, NULL, NULL, &group), NS_SUCCESS);
    assert_int_equal(ns_add_group_job(group, NS_JOB_THREAD, do_nothing, NULL, NULL),
                     NS_INVALID_REQUEST);

    /* What a group has to do, and a close that lingers, is the loop's. */
    struct latch runs = LATCH_INIT;
    for (int i = 0; i < 10; i++) {
        assert_int_equal(ns_add_group_job(group, NS_JOB_NONE, count_and_finish, &runs, NULL),
                         NS_SUCCESS);
    }
    struct probe probe = PROBE(NULL, -1);
    struct ns_job_t *member = NULL;
    assert_int_equal(ns_add_group_job(group, NS_JOB_UNARMED, probe_run, &probe, &member), NS_SUCCESS);
    probe_arm(member);
    TURN_UNTIL(tp, latch_count(&runs) == 10 && latch_count(&probe.runs) == 1);
    assert_int_equal(ns_job_done(member), NS_SUCCESS);
    TURN_UNTIL(tp, latch_count(&probe.disposals) == 1);
    assert_int_equal(ns_group_cancel(group), NS_SUCCESS);
    ns_group_release(group);
    turn_to_the_end(tp);
    assert_not_readable(ns_thrpool_get_wait_fd(tp));
    assert_int_equal(count_threads(), threads);
    end(tp);
}

static void group_gone(struct ns_group_t *group)
{
    latch_add(ns_group_get_data(group), 1);
}

/* Groups of all widths, with jobs that were queued before the shutdown. */
TEST(groups_end_without_a_thread)
{
    for (size_t width = 0; width < 3; width++) {
        struct ns_thrpool_t *tp = caller_pool(0);
        struct latch gone = LATCH_INIT, runs = LATCH_INIT;
        struct ns_group_t *group = NULL;
        assert_int_equal(ns_group_new(tp, width, &gone, group_gone, &group), NS_SUCCESS);
        for (int i = 0; i < 200; i++) {
            assert_int_equal(ns_add_group_job(group, NS_JOB_NONE, count_and_finish, &runs, NULL),
                             NS_SUCCESS);
        }
        ns_group_release(group);
        ns_thrpool_shutdown(tp);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        assert_int_equal(latch_count(&runs), 200);
        ns_thrpool_destroy(tp);
        assert_int_equal(latch_count(&gone), 1);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_new_pool_has_nothing_to_do_and_no_loop_thread),
        cmocka_unit_test(a_job_runs_in_the_thread_that_turns_and_not_before),
        cmocka_unit_test(every_kind_of_event_makes_the_descriptor_readable_while_nobody_is_inside),
        cmocka_unit_test(every_kind_of_event_ends_a_turn_that_waits),
        cmocka_unit_test(a_turn_is_never_early_and_its_time_leaves_nothing_behind),
        cmocka_unit_test(what_a_bounded_turn_leaves_over_keeps_the_descriptor_readable),
        cmocka_unit_test(a_job_that_goes_on_keeps_the_descriptor_readable),
        cmocka_unit_test(an_edge_triggered_host_loses_nothing),
        cmocka_unit_test(the_descriptor_outlives_the_poller),
        cmocka_unit_test(no_job_of_the_pool_may_watch_its_wait_descriptor),
        cmocka_unit_test(the_callers_name_and_mask_are_not_touched),
        cmocka_unit_test(nothing_is_cancelled_inside),
        cmocka_unit_test(errno_is_kept),
        cmocka_unit_test(no_thread_at_all),
        cmocka_unit_test(groups_end_without_a_thread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
