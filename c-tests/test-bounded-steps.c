/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Each step of the loop's turn is bounded: a crowd in one keeps nothing else waiting, and what is left
 * over for the next turn is not taken for what it is not.
 */
#include "notify.h"

#include <sys/eventfd.h>

/* Room for so many more descriptors. 0 if the system does not give it. */
static int room_for(int count)
{
    struct rlimit limit;
    rlim_t want = (rlim_t)count + 100;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur >= want) {
        return 1;
    }
    if (limit.rlim_max != RLIM_INFINITY && limit.rlim_max < want) {
        return 0;
    }
    limit.rlim_cur = want;
    return setrlimit(RLIMIT_NOFILE, &limit) == 0;
}

static void stay_and_finish(struct ns_job_t *job)
{
    gate_callback(job);
    ns_job_done(job);
}

/* The loop stays in a callback until the gate is opened. */
static void block_loop(struct ns_thrpool_t *tp, struct gate *gate)
{
    assert_int_equal(ns_add_job(tp, NS_JOB_NONE, stay_and_finish, gate, NULL), NS_SUCCESS);
    assert_latch(&gate->begun, 1);
}

/* More than the loop looks at before the first time-outs are told: twice 16 waits of 128 events. */
#define READY 5000

static struct {
    atomic_int read;
    atomic_int timed_out;
    atomic_int at_timer;   /* how many had run when the timer did */
    atomic_int at_request;
    struct latch gone;
} crowd = {.gone = LATCH_INIT};

static void count_kind(struct ns_job_t *job)
{
    int is_read = ns_job_get_output_type(job) == NS_JOB_READ;
    atomic_fetch_add(is_read ? &crowd.read : &crowd.timed_out, 1);
    ns_job_done(job);
}

static void count_gone(struct ns_job_t *job)
{
    UNUSED(job);
    latch_add(&crowd.gone, 1);
}

static void note_and_finish(struct ns_job_t *job)
{
    atomic_store((atomic_int *)ns_job_get_data(job), atomic_load(&crowd.read));
    ns_job_done(job);
}

static void who_is_ready_in_a_crowd_is_told_no_time_out(void **state)
{
    UNUSED(state);
    static int fds[READY];
    if (!room_for(READY)) {
        print_message("    skipped: not so many descriptors\n");
        skip();
    }
    struct ns_thrpool_t *tp = pool_of(1);
    /* Long enough to arm them all. */
    long usec = getenv("NS_SLOW") == NULL ? 500000 : 10000000;
    double due = now_seconds() + (double)usec / 1e6;
    struct timeval tv = {usec / 1000000, usec % 1000000};
    for (int i = 0; i < READY; i++) {
        struct ns_job_t *job = NULL;
        fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        assert_true(fds[i] >= 0);
        assert_int_equal(ns_add_fd_timeout_job(tp, fds[i], &tv, NS_JOB_READ | NS_JOB_UNARMED,
                                               count_kind, NULL, &job), NS_SUCCESS);
        assert_int_equal(ns_job_set_done_cb(job, count_gone), NS_SUCCESS);
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
    }
    double last = now_seconds() + (double)usec / 1e6;
    loop_passes(tp, 0);
    struct gate gate = GATE_INIT;
    block_loop(tp, &gate);
    /* If time was up before the loop was blocked, the first descriptors are closed. */
    int in_time = now_seconds() < due;
    /* Those whose time comes first are reported last. */
    for (int i = READY - 1; in_time && i >= 0; i--) {
        assert_int_equal(eventfd_write(fds[i], 1), 0);
    }
    if (!in_time || now_seconds() >= due) {
        latch_add(&gate.leave, 1);
        pool_end(tp);
        print_message("    skipped: the machine took too long\n");
        skip();
    }
    atomic_store(&crowd.at_timer, READY);
    atomic_store(&crowd.at_request, READY);
    struct timeval now = {0, 0};
    assert_int_equal(ns_add_timeout_job(tp, &now, NS_JOB_NONE, note_and_finish, &crowd.at_timer,
                                        NULL), NS_SUCCESS);
    assert_int_equal(ns_add_job(tp, NS_JOB_NONE, note_and_finish, &crowd.at_request, NULL),
                     NS_SUCCESS);
    EVENTUALLY(now_seconds() > last);
    latch_add(&gate.leave, 1);
    assert_latch(&crowd.gone, READY);
    assert_int_equal(atomic_load(&crowd.timed_out), 0);
    assert_int_equal(atomic_load(&crowd.read), READY);
    assert_true(atomic_load(&crowd.at_timer) < READY);
    assert_true(atomic_load(&crowd.at_request) < READY);
    pool_end(tp);
}

/* A thousand adds, each of which takes the system a fifth of a millisecond. */
#define ADDS 1000
#define EACH_TAKES 0.0002

static atomic_int added;

static int take_time(const struct seccomp_data *data)
{
    if (data->nr == SYS_epoll_ctl && (int)data->args[1] == EPOLL_CTL_ADD) {
        double end = now_seconds() + EACH_TAKES;
        while (now_seconds() < end) {
        }
        atomic_fetch_add(&added, 1);
    }
    return 0;
}

static struct {
    struct latch beats;
    int last;  /* how many were added at the last beat; the loop's alone */
    int worst; /* between two beats */
} pulse = {.beats = LATCH_INIT};

static void beat(struct ns_job_t *job)
{
    UNUSED(job);
    int now = atomic_load(&added);
    if (now - pulse.last > pulse.worst) {
        pulse.worst = now - pulse.last;
    }
    pulse.last = now;
    latch_add(&pulse.beats, 1);
}

static void a_timer_beats_while_a_thousand_descriptors_are_armed(void **state)
{
    UNUSED(state);
    static int fds[ADDS];
    if (!room_for(ADDS) || !filter(take_time)) {
        print_message("    skipped: this system does not hand system calls to the test\n");
        skip();
    }
    struct ns_thrpool_t *tp = pool_of(1);
    struct timeval ms = {0, 1000};
    struct ns_job_t *timer = NULL;
    assert_int_equal(ns_add_timeout_job(tp, &ms, NS_JOB_PERSIST, beat, NULL, &timer), NS_SUCCESS);
    assert_latch(&pulse.beats, 3);
    struct gate gate = GATE_INIT;
    block_loop(tp, &gate);
    for (int i = 0; i < ADDS; i++) {
        fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        assert_true(fds[i] >= 0);
        assert_int_equal(ns_add_fd_job(tp, fds[i], NS_JOB_READ, count_callback, NULL, NULL),
                         NS_SUCCESS);
    }
    atomic_store(&added, 0);
    pulse.last = pulse.worst = 0;
    latch_add(&gate.leave, 1);
    EVENTUALLY(atomic_load(&added) >= ADDS);
    assert_latch(&pulse.beats, latch_count(&pulse.beats) + 1);
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    /* No callback runs any more; the timer is armed, or idle if it was beating. */
    assert_int_equal(ns_job_done(timer), NS_SUCCESS);
    ns_thrpool_destroy(tp);
    print_message("# %d adds, at most %d of them between two beats\n", ADDS, pulse.worst);
    assert_true(pulse.worst <= ADDS / 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_is_ready_in_a_crowd_is_told_no_time_out),
        /* Last: its filter stays. */
        cmocka_unit_test(a_timer_beats_while_a_thousand_descriptors_are_armed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
