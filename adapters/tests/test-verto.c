/* SPDX-License-Identifier: GPL-3.0-or-later */
/* libverto-nunc-stans.so through libverto: what libverto's own test programs don't ask for. */
#include "harness.h"

#include <sys/wait.h>
#include <verto.h>

#define READ VERTO_EV_FLAG_IO_READ
#define WRITE VERTO_EV_FLAG_IO_WRITE
#define PERSIST VERTO_EV_FLAG_PERSIST
#define REINITIABLE VERTO_EV_FLAG_REINITIABLE

static verto_ctx *ctx;
static verto_ev *other, *subject;
static int ends[2], calls, seen[100];
static verto_ev_flag io_state;

static int setup(void **unused)
{
    UNUSED(unused);
    calls = 0;
    other = subject = NULL;
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, ends), 0);
    ctx = verto_new("nunc-stans", VERTO_EV_TYPE_CHILD | VERTO_EV_TYPE_IDLE);
    assert_non_null(ctx);
    return 0;
}

static int teardown(void **unused)
{
    UNUSED(unused);
    verto_free(ctx);
    close(ends[0]);
    close(ends[1]);
    return 0;
}

/* Callbacks. Each notes in `seen` what its event's private pointer points at. */
static void note(verto_ctx *c, verto_ev *ev)
{
    UNUSED(c);
    const int *what = verto_get_private(ev);
    seen[calls++ % 100] = what != NULL ? *what : 0;
    if (verto_get_type(ev) == VERTO_EV_TYPE_IO)
        io_state = verto_get_fd_state(ev);
}

static void note_and_break(verto_ctx *c, verto_ev *ev)
{
    note(c, ev);
    verto_break(c);
}

static void drain_and_break(verto_ctx *c, verto_ev *ev)
{
    char buffer[16];
    note_and_break(c, ev);
    while (read(verto_get_fd(ev), buffer, sizeof buffer) > 0)
        continue;
}

/* An end that comes after everything that was ready, or due, when it was asked for. */
static void run_for(time_t ms)
{
    assert_non_null(verto_add_timeout(ctx, VERTO_EV_FLAG_PRIORITY_LOW, note_and_break, ms));
    verto_run(ctx);
    calls--; /* its own */
}

static void poke(void)
{
    assert_int_equal(write(ends[1], "x", 1), 1);
}

/* The result of what a child does: 0 if all of it was right. */
static int child_status(pid_t pid)
{
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

#define IN_CHILD(condition)                                                                                            \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            _exit(__LINE__ % 200 + 1);                                                                                 \
    } while (0)

TEST(events_of_all_kinds_outlive_a_fork_before_the_first_run)
{
    pid_t parent = getpid();
    assert_non_null(verto_add_io(ctx, READ | PERSIST, drain_and_break, ends[0]));
    assert_non_null(verto_add_signal(ctx, PERSIST, note_and_break, SIGUSR1));
    assert_non_null(verto_add_timeout(ctx, PERSIST, note_and_break, 1));
    assert_non_null(verto_add_idle(ctx, VERTO_EV_FLAG_NONE, note_and_break));
    pid_t pid = fork();
    if (pid == 0) {
        IN_CHILD(getppid() == parent);
        poke();
        for (int i = 1; i <= 4; i++) {
            if (i == 4)
                raise(SIGUSR1);
            verto_run(ctx);
            IN_CHILD(calls >= i);
        }
        verto_free(ctx);
        _exit(0);
    }
    assert_int_equal(child_status(pid), 0);
    /* And in the parent. */
    poke();
    verto_run(ctx);
    assert_true(calls > 0);
}

TEST(signals_are_caught_before_the_first_run_and_given_back)
{
    static const int one = 1, two = 2;
    struct sigaction before, now;
    sigaction(SIGUSR1, NULL, &before);
    assert_true(before.sa_handler == SIG_DFL);
    verto_ev *first = verto_add_signal(ctx, PERSIST, note, SIGUSR1);
    verto_ev *second = verto_add_signal(ctx, VERTO_EV_FLAG_NONE, note, SIGUSR1);
    verto_set_private(first, (void *)&one, NULL);
    verto_set_private(second, (void *)&two, NULL);
    assert_non_null(verto_add_signal(ctx, PERSIST, VERTO_SIG_IGN, SIGUSR2));
    raise(SIGUSR1);
    raise(SIGUSR2);
    run_for(1);
    assert_int_equal(calls, 2); /* the second is deleted now */
    assert_int_equal(seen[0] + seen[1], 3);
    raise(SIGUSR1);
    raise(SIGUSR2);
    run_for(1);
    assert_int_equal(calls, 3);
    assert_int_equal(seen[2], 1);
    verto_del(first);
    run_for(1);
    sigaction(SIGUSR1, NULL, &now);
    assert_true(now.sa_handler == before.sa_handler);
    /* Never run. */
    verto_ctx *unused = verto_new("nunc-stans", 0);
    first = verto_add_signal(unused, PERSIST, note, SIGUSR1);
    second = verto_add_signal(unused, PERSIST, note, SIGUSR1);
    raise(SIGUSR1);
    verto_del(first);
    raise(SIGUSR1);
    verto_free(unused);
    sigaction(SIGUSR1, NULL, &now);
    assert_true(now.sa_handler == before.sa_handler);
    assert_int_equal(calls, 3);
    /* What came to nobody comes to nobody later. */
    first = verto_add_signal(ctx, PERSIST, note, SIGUSR1);
    run_for(1);
    assert_int_equal(calls, 3);
    assert_null(verto_add_signal(ctx, PERSIST, note, SIGKILL));
    assert_null(verto_add_signal(ctx, PERSIST, note, 100000));
}

static pid_t forked;

static void end_child(verto_ctx *c, verto_ev *ev)
{
    UNUSED(c);
    UNUSED(ev);
    _exit(forked == 0 && calls == 2 ? 0 : 1);
}

static void note_in_parent(verto_ctx *c, verto_ev *ev)
{
    IN_CHILD(forked != 0);
    note(c, ev);
}

/* A server that forks for each client: the child returns into the same verto_run, and goes on there. */
static void fork_here(verto_ctx *c, verto_ev *ev)
{
    char byte;
    calls++;
    assert_int_equal(read(verto_get_fd(ev), &byte, 1), 1);
    if (forked == 0)
        return;
    forked = fork();
    if (forked == 0) {
        calls = 1;
        IN_CHILD(verto_reinitialize(c) && write(ends[1], "x", 1) == 1);
        IN_CHILD(verto_add_timeout(c, VERTO_EV_FLAG_NONE, end_child, 50) != NULL);
        return;
    }
    assert_int_equal(child_status(forked), 0);
    verto_break(c);
}

TEST(a_callback_forks_and_the_child_goes_on)
{
    forked = -1;
    assert_non_null(verto_add_io(ctx, READ | PERSIST | REINITIABLE, fork_here, ends[0]));
    /* It is deleted in the child, where it would come many times before the end. */
    assert_non_null(verto_add_timeout(ctx, PERSIST, note_in_parent, 1));
    for (int round = 1; round <= 3; round++) {
        poke();
        verto_run(ctx);
        IN_CHILD(forked != 0);
    }
    assert_true(calls >= 3);
}

TEST(generations_of_children_run_their_own_pools)
{
    subject = verto_add_io(ctx, READ | PERSIST | REINITIABLE, drain_and_break, ends[0]);
    assert_non_null(verto_add_signal(ctx, PERSIST | REINITIABLE, note, SIGUSR1));
    assert_non_null(verto_add_timeout(ctx, PERSIST | REINITIABLE, note, 1000000));
    run_for(1);
    pid_t top = fork();
    if (top == 0) {
        for (int generation = 0; generation < 4; generation++) {
            IN_CHILD(verto_reinitialize(ctx));
            calls = 0;
            raise(SIGUSR1);
            poke();
            verto_run(ctx);
            IN_CHILD(calls == 2);
            pid_t next = fork();
            if (next != 0) {
                poke(); /* this one's pool still works */
                verto_run(ctx);
                IN_CHILD(calls == 3 && child_status(next) == 0);
                verto_free(ctx);
                _exit(0);
            }
        }
        _exit(0);
    }
    assert_int_equal(child_status(top), 0);
    poke();
    raise(SIGUSR1);
    verto_run(ctx);
    assert_int_equal(calls, 2);
}

static void reinitialize(verto_ctx *c, verto_ev *ev)
{
    note(c, ev);
    if (calls > 1)
        return;
    assert_true(verto_reinitialize(c));
    assert_non_null(verto_add_timeout(c, VERTO_EV_FLAG_NONE, note_and_break, 20));
}

TEST(a_callback_reinitializes_without_a_fork)
{
    assert_non_null(verto_add_timeout(ctx, PERSIST | REINITIABLE, reinitialize, 1));
    verto_run(ctx);
    assert_true(calls > 2); /* the event itself outlives it */
    teardown(NULL);
    setup(NULL);
    /* This one doesn't. */
    assert_non_null(verto_add_timeout(ctx, VERTO_EV_FLAG_NONE, reinitialize, 1));
    assert_non_null(verto_add_io(ctx, READ | PERSIST | REINITIABLE, note, ends[0]));
    verto_run(ctx);
    assert_int_equal(calls, 2);
    assert_true(verto_reinitialize(ctx));
    poke();
    verto_run_once(ctx);
    assert_int_equal(calls, 3);
}

static void swap_directions(verto_ctx *c, verto_ev *ev)
{
    note(c, ev);
    verto_set_flags(ev, io_state == READ ? WRITE : READ);
}

TEST(directions_change_inside_and_outside_callbacks)
{
    verto_ev *ev = verto_add_io(ctx, READ | PERSIST, swap_directions, ends[0]);
    poke();
    for (int i = 0; i < 20; i++) {
        verto_run_once(ctx);
        assert_int_equal(calls, i + 1);
        assert_int_equal(io_state, i % 2 == 0 ? READ : WRITE);
    }
    verto_del(ev);
    calls = 0;
    ev = verto_add_io(ctx, READ | PERSIST, note, ends[1]); /* nothing to read there */
    for (int i = 0; i < 5; i++) {
        verto_set_flags(ev, READ);
        run_for(1);
        assert_int_equal(calls, 0);
        verto_set_flags(ev, WRITE);
        verto_run_once(ctx);
        assert_int_equal(calls, 1);
        assert_int_equal(io_state, WRITE);
        calls = 0;
    }
}

static void delete_other(verto_ctx *c, verto_ev *ev)
{
    note(c, ev);
    verto_del(other == ev ? subject : other);
    verto_del(ev);
}

TEST(an_event_that_is_ready_is_deleted)
{
    for (int i = 0; i < 100; i++) {
        calls = 0;
        subject = verto_add_io(ctx, WRITE | PERSIST, delete_other, ends[0]);
        other = verto_add_io(ctx, WRITE | PERSIST, delete_other, ends[1]);
        run_for(0);
        assert_int_equal(calls, 1);
    }
}

TEST(priorities_order_what_is_ready)
{
    static const int order[] = {1, 2, 3, 4};
    static const verto_ev_flag flags[] = {VERTO_EV_FLAG_PRIORITY_HIGH, VERTO_EV_FLAG_PRIORITY_MEDIUM,
                                          VERTO_EV_FLAG_NONE, VERTO_EV_FLAG_PRIORITY_LOW};
    for (int shift = 0; shift < 4; shift++) {
        verto_ev *ev[4];
        calls = 0;
        for (int i = 0; i < 4; i++) {
            int n = (i + shift) % 4;
            ev[n] = verto_add_io(ctx, WRITE | PERSIST | flags[n], note, ends[i % 2]);
            verto_set_private(ev[n], (void *)&order[n], NULL);
        }
        verto_run_once(ctx);
        assert_int_equal(calls, 4);
        assert_int_equal(seen[0], 1);
        assert_int_equal(seen[1] + seen[2], 5);
        assert_int_equal(seen[3], 4);
        for (int i = 0; i < 4; i++)
            verto_del(ev[i]);
    }
}

static void run_inside(verto_ctx *c, verto_ev *ev)
{
    note(c, ev);
    assert_non_null(verto_add_timeout(c, VERTO_EV_FLAG_NONE, note_and_break, 1));
    verto_run(c);
    assert_non_null(verto_add_timeout(c, VERTO_EV_FLAG_NONE, note, 1));
    verto_run_once(c);
    assert_non_null(verto_add_timeout(c, VERTO_EV_FLAG_NONE, note_and_break, 1));
}

TEST(a_callback_runs_the_context)
{
    assert_non_null(verto_add_timeout(ctx, VERTO_EV_FLAG_NONE, run_inside, 1));
    verto_run(ctx); /* the break inside ends the run inside only */
    assert_int_equal(calls, 4);
    assert_non_null(verto_add_io(ctx, WRITE, run_inside, ends[0]));
    verto_run(ctx);
    assert_int_equal(calls, 8);
}

TEST(a_break_leaves_nothing_out)
{
    verto_break(ctx);
    verto_run(ctx);
    assert_non_null(verto_add_timeout(ctx, VERTO_EV_FLAG_NONE, note_and_break, 0));
    assert_non_null(verto_add_timeout(ctx, VERTO_EV_FLAG_NONE, note_and_break, 0));
    assert_non_null(verto_add_signal(ctx, VERTO_EV_FLAG_NONE, note_and_break, SIGUSR1));
    raise(SIGUSR1);
    for (int i = 1; i <= 3; i++) {
        verto_run(ctx);
        assert_int_equal(calls, i);
    }
    verto_run_once(ctx); /* nothing is left to wait for */
}

TEST(idle_events_come_after_the_others)
{
    static const int busy = 1, idle = 2;
    verto_set_private(verto_add_idle(ctx, PERSIST, note), (void *)&idle, NULL);
    verto_set_private(verto_add_io(ctx, READ, note, ends[0]), (void *)&busy, NULL);
    poke();
    for (int i = 0; i < 10; i++)
        verto_run_once(ctx);
    assert_int_equal(calls, 10);
    assert_int_equal(seen[0], busy);
    for (int i = 1; i < 10; i++)
        assert_int_equal(seen[i], idle);
}

TEST(errors_are_told)
{
    int fds[2];
    assert_int_equal(pipe(fds), 0);
    subject = verto_add_io(ctx, READ | PERSIST, note, fds[0]);
    assert_int_equal(write(fds[1], "x", 1), 1);
    close(fds[1]);
    verto_run_once(ctx);
    assert_int_equal(io_state, READ); /* there is something to read first */
    char byte;
    assert_int_equal(read(fds[0], &byte, 1), 1);
    verto_run_once(ctx);
    assert_int_equal(io_state, VERTO_EV_FLAG_IO_ERROR);
    verto_del(subject);
    close(fds[0]);
    assert_null(verto_add_io(ctx, READ, note, fds[0]));

    /* Closed between the add and the first run. */
    teardown(NULL);
    setup(NULL);
    assert_int_equal(pipe(fds), 0);
    assert_non_null(verto_add_io(ctx, READ, note, fds[0]));
    close(fds[0]);
    close(fds[1]);
    assert_null(verto_add_io(ctx, READ, note, fds[0]));
    verto_run_once(ctx);
    assert_int_equal(calls, 1);
    assert_int_equal(io_state, VERTO_EV_FLAG_IO_ERROR);
}

static int status;

static void note_status(verto_ctx *c, verto_ev *ev)
{
    note(c, ev);
    status = verto_get_proc_status(ev);
}

TEST(children_are_reaped)
{
    for (int i = 0; i < 20; i++) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(i);
        siginfo_t info;
        if (i % 2 == 0) /* it has ended before it is watched */
            waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT);
        assert_non_null(verto_add_child(ctx, VERTO_EV_FLAG_NONE, note_status, pid));
        verto_run_once(ctx);
        assert_int_equal(calls, i + 1);
        assert_true(WIFEXITED(status) && WEXITSTATUS(status) == i);
        assert_int_equal(waitpid(pid, NULL, WNOHANG), -1);
        assert_null(verto_add_child(ctx, VERTO_EV_FLAG_NONE, note_status, pid));
    }
}

TEST(times_are_kept)
{
    double begin = now_seconds();
    verto_ev *ev = verto_add_timeout(ctx, PERSIST, note, 5);
    while (calls < 20)
        verto_run_once(ctx);
    assert_true(now_seconds() - begin >= 0.1); /* the twentieth is due at 100 ms */
    verto_del(ev);
    calls = 0;
    ev = verto_add_timeout(ctx, PERSIST, note, 0);
    while (calls < 1000)
        verto_run_once(ctx);
    verto_del(ev);
    begin = now_seconds();
    run_for(1500);
    assert_true(now_seconds() - begin >= 1.5);
}

/* Events come, change and go at random, on sockets that are closed with them or stay. */
TEST(a_thousand_events)
{
    enum { EVENTS = 1000 };
    static verto_ev *ev[EVENTS];
    static int fds[EVENTS][2];
    unsigned seed = 1;
    struct rlimit limit = {4096, 4096};
    setrlimit(RLIMIT_NOFILE, &limit);
    for (int i = 0; i < EVENTS; i++) {
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds[i]), 0);
        ev[i] = verto_add_io(ctx, READ | PERSIST, note, fds[i][0]);
    }
    for (int round = 0; round < 200; round++) {
        for (int n = 0; n < 50; n++) {
            int i = rand_r(&seed) % EVENTS;
            verto_ev_flag close_it = n % 2 == 0 ? VERTO_EV_FLAG_IO_CLOSE_FD : VERTO_EV_FLAG_NONE;
            char byte;
            switch (rand_r(&seed) % 4) {
            case 0:
                assert_int_equal(write(fds[i][1], "x", 1), 1);
                break;
            case 1:
                while (read(fds[i][0], &byte, 1) == 1)
                    continue;
                break;
            case 2:
                verto_set_flags(ev[i], verto_get_flags(ev[i]) & WRITE ? READ : WRITE);
                break;
            default:
                if (verto_get_flags(ev[i]) & VERTO_EV_FLAG_IO_CLOSE_FD) {
                    close(fds[i][1]);
                    verto_del(ev[i]);
                    assert_int_equal(fcntl(fds[i][0], F_GETFD), -1);
                    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds[i]), 0);
                } else {
                    verto_del(ev[i]);
                    assert_true(fcntl(fds[i][0], F_GETFD) >= 0);
                }
                ev[i] = verto_add_io(ctx, READ | PERSIST | close_it, note, fds[i][0]);
                assert_non_null(ev[i]);
            }
        }
        calls = 0;
        run_for(0);
        /* Level-triggered: as many as poll says, or none yet of those that were armed just now. */
        int ready = 0;
        for (int i = 0; i < EVENTS; i++) {
            struct pollfd fd = {fds[i][0], verto_get_flags(ev[i]) & WRITE ? POLLOUT : POLLIN, 0};
            ready += poll(&fd, 1, 0);
        }
        for (int turns = 0; calls < ready && turns < 1000; turns++)
            verto_run_once(ctx);
        assert_true(calls >= ready);
    }
    for (int i = 0; i < EVENTS; i++) {
        int closes = verto_get_flags(ev[i]) & VERTO_EV_FLAG_IO_CLOSE_FD;
        verto_del(ev[i]);
        close(fds[i][1]);
        if (!closes)
            close(fds[i][0]);
    }
}

static int descriptors(void)
{
    int n = 0;
    DIR *all = opendir("/proc/self/fd");
    while (readdir(all) != NULL)
        n++;
    closedir(all);
    return n;
}

static int open_before;

static int count_descriptors(void **unused)
{
    UNUSED(unused);
    verto_free(verto_new("nunc-stans", 0));
    open_before = descriptors();
    return 0;
}

static int compare_descriptors(void **unused)
{
    UNUSED(unused);
    return descriptors() - open_before;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(events_of_all_kinds_outlive_a_fork_before_the_first_run, setup, teardown),
        cmocka_unit_test_setup_teardown(signals_are_caught_before_the_first_run_and_given_back, setup, teardown),
        cmocka_unit_test_setup_teardown(a_callback_forks_and_the_child_goes_on, setup, teardown),
        cmocka_unit_test_setup_teardown(generations_of_children_run_their_own_pools, setup, teardown),
        cmocka_unit_test_setup_teardown(a_callback_reinitializes_without_a_fork, setup, teardown),
        cmocka_unit_test_setup_teardown(directions_change_inside_and_outside_callbacks, setup, teardown),
        cmocka_unit_test_setup_teardown(an_event_that_is_ready_is_deleted, setup, teardown),
        cmocka_unit_test_setup_teardown(priorities_order_what_is_ready, setup, teardown),
        cmocka_unit_test_setup_teardown(a_callback_runs_the_context, setup, teardown),
        cmocka_unit_test_setup_teardown(a_break_leaves_nothing_out, setup, teardown),
        cmocka_unit_test_setup_teardown(idle_events_come_after_the_others, setup, teardown),
        cmocka_unit_test_setup_teardown(errors_are_told, setup, teardown),
        cmocka_unit_test_setup_teardown(children_are_reaped, setup, teardown),
        cmocka_unit_test_setup_teardown(times_are_kept, setup, teardown),
        cmocka_unit_test_setup_teardown(a_thousand_events, setup, teardown),
    };
    return cmocka_run_group_tests(tests, count_descriptors, compare_descriptors);
}
