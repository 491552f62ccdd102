/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The functions that add jobs, and the getters: a job has the properties that it was added with. */
#include "harness.h"

static void another(struct ns_job_t *job)
{
    UNUSED(job);
}

/* Check the getters of a live job. */
static void assert_says(struct ns_job_t *job, struct ns_thrpool_t *tp, ns_job_type_t type,
                        ns_job_func_t func, void *data, int fd)
{
    assert_non_null(job);
    assert_ptr_equal(ns_job_get_data(job), data);
    assert_int_equal(ns_job_get_type(job), type);
    assert_ptr_equal(ns_job_get_tp(job), tp);
    assert_null(ns_job_get_fd(job));
    assert_int_equal(ns_job_get_native_fd(job), fd);
    assert_int_equal(ns_job_get_output_type(job), 0);
    assert_int_equal(ns_job_is_func(job, func), 1);
    assert_int_equal(ns_job_is_func(job, another), 0);
}

TEST(add_job_makes_what_was_asked_for)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct gate gate = GATE_INIT;
    struct ns_job_t *job = occupy(tp, NS_JOB_THREAD, &gate);
    assert_says(job, tp, NS_JOB_THREAD, gate_callback, &gate, -1);
    latch_add(&gate.leave, 1);
    assert_int_equal(ns_job_wait(job), NS_SUCCESS);
    assert_says(job, tp, NS_JOB_THREAD, gate_callback, &gate, -1);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    pool_end(tp);
}

TEST(create_job_makes_it_without_data_and_idle)
{
    struct ns_thrpool_t *tp = pool_of(1);
    const ns_job_type_t types[] = {
        NS_JOB_NONE, NS_JOB_THREAD, NS_JOB_PERSIST, NS_JOB_TIMER, NS_JOB_TIMER | NS_JOB_THREAD,
    };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        struct ns_job_t *job = NULL;
        assert_int_equal(ns_create_job(tp, types[i], do_nothing, &job), NS_SUCCESS);
        assert_says(job, tp, types[i], do_nothing, NULL, -1);
        assert_int_equal(ns_job_timedwait(job, &at_once), NS_SUCCESS);
        assert_int_equal(ns_job_done(job), NS_SUCCESS);
    }
    pool_end(tp);
}

TEST(timer_is_implied_by_a_time)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct ns_job_t *job = NULL;
    int data;
    assert_int_equal(ns_add_timeout_job(tp, &far_away, NS_JOB_THREAD, do_nothing, &data, &job),
                     NS_SUCCESS);
    assert_says(job, tp, NS_JOB_THREAD | NS_JOB_TIMER, do_nothing, &data, -1);
    assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
    assert_int_equal(ns_add_timeout_job(tp, &far_away, NS_JOB_TIMER, do_nothing, &data, &job),
                     NS_SUCCESS);
    assert_says(job, tp, NS_JOB_TIMER, do_nothing, &data, -1);
    assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
    pool_end(tp);
}

TEST(signal_is_implied_by_a_signal)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct ns_job_t *job = NULL;
    int data;
    assert_int_equal(ns_add_signal_job(tp, SIGUSR2, NS_JOB_PERSIST, do_nothing, &data, &job),
                     NS_SUCCESS);
    assert_says(job, tp, NS_JOB_PERSIST | NS_JOB_SIGNAL, do_nothing, &data, -1);
    assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
    pool_end(tp);
}

TEST(fd_jobs_tell_their_descriptor)
{
    struct ns_thrpool_t *tp = pool_of(1);
    int ends[2];
    int data;
    socket_pair(ends);
    const ns_job_type_t directions[] = {
        NS_JOB_READ, NS_JOB_ACCEPT, NS_JOB_ACCEPT | NS_JOB_READ | NS_JOB_PERSIST,
        NS_JOB_READ | NS_JOB_THREAD | NS_JOB_TIMER,
    };
    for (size_t i = 0; i < sizeof directions / sizeof *directions; i++) {
        ns_job_type_t type = directions[i] | NS_JOB_PRESERVE_FD;
        struct ns_job_t *job = NULL;
        assert_int_equal(ns_add_fd_job(tp, ends[0], type, do_nothing, &data, &job), NS_SUCCESS);
        assert_says(job, tp, type, do_nothing, &data, ends[0]);
        assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
        assert_int_equal(ns_add_fd_timeout_job(tp, ends[0], &far_away, type, do_nothing, &data,
                                               &job), NS_SUCCESS);
        assert_says(job, tp, type | NS_JOB_TIMER, do_nothing, &data, ends[0]);
        assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
    }
    pool_end(tp);
    close(ends[0]);
    close(ends[1]);
}

TEST(an_unarmed_job_of_each_kind_waits_and_does_not_show_the_flag)
{
    struct ns_thrpool_t *tp = pool_of(1);
    int ends[2];
    socket_pair(ends);
    const ns_job_type_t unarmed = NS_JOB_UNARMED | NS_JOB_THREAD;
    const ns_job_type_t io = unarmed | NS_JOB_WRITE | NS_JOB_PRESERVE_FD;
    struct probe probe = PROBE(finish_job, -1);
    struct ns_job_t *jobs[7] = {NULL};
    assert_int_equal(ns_create_job(tp, unarmed, probe_run, &jobs[0]), NS_SUCCESS);
    assert_int_equal(ns_job_set_data(jobs[0], &probe), NS_SUCCESS);
    assert_int_equal(ns_add_job(tp, unarmed, probe_run, &probe, &jobs[1]), NS_SUCCESS);
    assert_int_equal(ns_add_job(tp, unarmed | NS_JOB_TIMER, probe_run, &probe, &jobs[2]),
                     NS_SUCCESS);
    assert_int_equal(ns_add_timeout_job(tp, &at_once, unarmed, probe_run, &probe, &jobs[3]),
                     NS_SUCCESS);
    assert_int_equal(ns_add_fd_job(tp, ends[0], io, probe_run, &probe, &jobs[4]), NS_SUCCESS);
    assert_int_equal(ns_add_fd_timeout_job(tp, ends[0], &far_away, io, probe_run, &probe,
                                           &jobs[5]), NS_SUCCESS);
    assert_int_equal(ns_add_signal_job(tp, SIGUSR2, unarmed, probe_run, &probe, &jobs[6]),
                     NS_SUCCESS);
    loop_passes(tp, 1000);
    assert_int_equal(latch_count(&probe.runs), 0);
    for (size_t i = 0; i < 7; i++) {
        assert_int_equal(ns_job_get_type(jobs[i]) & NS_JOB_UNARMED, 0);
        assert_int_equal(ns_job_get_type(jobs[i]) & NS_JOB_THREAD, NS_JOB_THREAD);
        assert_int_equal(ns_job_timedwait(jobs[i], &at_once), NS_SUCCESS);
        probe_arm(jobs[i]);
    }
    kill(getpid(), SIGUSR2);
    assert_latch(&probe.disposals, 7);
    assert_int_equal(latch_count(&probe.runs), 7);
    pool_end(tp);
    close(ends[0]);
    close(ends[1]);
}

/* Any pointer but NULL, to see that the call overwrites it. */
#define STALE ((struct ns_job_t *)&far_away)

/* See a call fail with this result, and set job to NULL. */
#define assert_fails(expected, call)                                                           \
    do {                                                                                       \
        struct ns_job_t *job = STALE;                                                          \
        assert_int_equal(call, expected);                                                      \
        assert_null(job);                                                                      \
    } while (0)

TEST(a_failure_sets_the_job_to_null)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct timeval negative = {-1, 0};
    assert_fails(NS_INVALID_REQUEST, ns_create_job(tp, NS_JOB_READ, do_nothing, &job));
    assert_fails(NS_INVALID_REQUEST, ns_create_job(NULL, NS_JOB_NONE, do_nothing, &job));
    assert_fails(NS_INVALID_REQUEST, ns_add_job(tp, NS_JOB_SIGNAL, do_nothing, NULL, &job));
    assert_fails(NS_INVALID_REQUEST, ns_add_job(tp, NS_JOB_NONE, NULL, NULL, &job));
    assert_fails(NS_INVALID_REQUEST,
                 ns_add_io_job(tp, NULL, NS_JOB_READ, do_nothing, NULL, &job));
    assert_fails(NS_INVALID_REQUEST,
                 ns_add_io_timeout_job(tp, NULL, &far_away, NS_JOB_READ, do_nothing, NULL, &job));
    assert_fails(NS_INVALID_REQUEST,
                 ns_add_timeout_job(tp, &negative, NS_JOB_NONE, do_nothing, NULL, &job));
    assert_fails(NS_INVALID_REQUEST,
                 ns_add_signal_job(tp, SIGKILL, NS_JOB_NONE, do_nothing, NULL, &job));
    assert_fails(NS_INVALID_REQUEST, ns_add_fd_job(tp, -1, NS_JOB_READ, do_nothing, NULL, &job));
    assert_fails(NS_INVALID_REQUEST,
                 ns_add_fd_timeout_job(tp, -1, &far_away, NS_JOB_READ, do_nothing, NULL, &job));
    ns_thrpool_shutdown(tp);
    assert_fails(NS_SHUTDOWN, ns_create_job(tp, NS_JOB_NONE, do_nothing, &job));
    assert_fails(NS_SHUTDOWN, ns_add_job(tp, NS_JOB_NONE, do_nothing, NULL, &job));
    assert_fails(NS_SHUTDOWN,
                 ns_add_timeout_job(tp, &far_away, NS_JOB_NONE, do_nothing, NULL, &job));
    assert_fails(NS_SHUTDOWN, ns_add_signal_job(tp, SIGUSR2, NS_JOB_NONE, do_nothing, NULL, &job));
    assert_fails(NS_SHUTDOWN, ns_add_fd_job(tp, 0, NS_JOB_READ, do_nothing, NULL, &job));
    pool_end(tp);
}

static atomic_int allocations_fail;

static void *failing_calloc(size_t count, size_t size)
{
    return atomic_load(&allocations_fail) ? NULL : counting_calloc(count, size);
}

TEST(a_failed_allocation_sets_the_job_to_null_and_leaves_nothing)
{
    long before = atomic_load(&blocks_out);
    struct ns_thrpool_t *tp = pool_with(1, quiet_log, failing_calloc, counting_free);
    long with_pool = atomic_load(&blocks_out);
    int ends[2];
    socket_pair(ends);
    atomic_store(&allocations_fail, 1);
    assert_fails(NS_ALLOCATION_FAILURE, ns_create_job(tp, NS_JOB_NONE, do_nothing, &job));
    assert_fails(NS_ALLOCATION_FAILURE, ns_add_job(tp, NS_JOB_NONE, do_nothing, NULL, &job));
    assert_fails(NS_ALLOCATION_FAILURE,
                 ns_add_timeout_job(tp, &far_away, NS_JOB_NONE, do_nothing, NULL, &job));
    assert_fails(NS_ALLOCATION_FAILURE,
                 ns_add_signal_job(tp, SIGUSR2, NS_JOB_NONE, do_nothing, NULL, &job));
    assert_fails(NS_ALLOCATION_FAILURE,
                 ns_add_fd_job(tp, ends[0], NS_JOB_READ, do_nothing, NULL, &job));
    assert_fails(NS_ALLOCATION_FAILURE, ns_add_fd_timeout_job(tp, ends[0], &far_away, NS_JOB_READ,
                                                              do_nothing, NULL, &job));
    atomic_store(&allocations_fail, 0);
    assert_int_equal(atomic_load(&blocks_out), with_pool);
    assert_true(fd_is_open(ends[0]));
    struct sigaction now;
    assert_int_equal(sigaction(SIGUSR2, NULL, &now), 0);
    assert_true(now.sa_handler == SIG_DFL);
    pool_end(tp);
    assert_int_equal(atomic_load(&blocks_out), before);
    close(ends[0]);
    close(ends[1]);
}

/* What the callback finds in the variable to which the add writes its job. */
struct slot {
    struct ns_job_t *job;
    struct latch *ran;
    atomic_int *wrong;
};

static void compare_with_slot(struct ns_job_t *job)
{
    struct slot *slot = ns_job_get_data(job);
    if (slot->job != job) {
        atomic_fetch_add(slot->wrong, 1);
    }
    ns_job_done(job);
    latch_add(slot->ran, 1);
}

/* Add one job of each kind, in turn, that fires at once. */
static ns_result_t add_at_once(struct ns_thrpool_t *tp, int kind, int fd, struct slot *slot)
{
    const ns_job_type_t thread = kind & 1 ? NS_JOB_THREAD : 0;
    const ns_job_type_t io = thread | NS_JOB_WRITE | NS_JOB_PRESERVE_FD;
    switch (kind / 2) {
    case 0:
        return ns_add_job(tp, thread, compare_with_slot, slot, &slot->job);
    case 1:
        return ns_add_timeout_job(tp, &at_once, thread, compare_with_slot, slot, &slot->job);
    case 2:
        return ns_add_fd_job(tp, fd, io, compare_with_slot, slot, &slot->job);
    case 3:
        return ns_add_fd_timeout_job(tp, fd, &far_away, io, compare_with_slot, slot, &slot->job);
    default:
        return ns_add_job(tp, thread | NS_JOB_TIMER, compare_with_slot, slot, &slot->job);
    }
}

TEST(the_job_is_written_before_it_can_run)
{
    enum { KINDS = 10, BATCH = 8 };
    struct ns_thrpool_t *tp = pool_of(2);
    int ends[2];
    socket_pair(ends);
    struct latch ran = LATCH_INIT;
    atomic_int wrong = 0;
    int rounds = scaled(20000) / BATCH + 1;
    for (int kind = 0; kind < KINDS; kind++) {
        for (int round = 0; round < rounds; round++) {
            struct slot slots[BATCH];
            long before = latch_count(&ran);
            for (int i = 0; i < BATCH; i++) {
                slots[i] = (struct slot){NULL, &ran, &wrong};
                assert_int_equal(add_at_once(tp, kind, ends[0], &slots[i]), NS_SUCCESS);
            }
            assert_latch(&ran, before + BATCH);
        }
    }
    assert_int_equal(atomic_load(&wrong), 0);
    pool_end(tp);
    close(ends[0]);
    close(ends[1]);
}

static atomic_int raising;

static void *raise_all_the_time(void *unused)
{
    while (atomic_load(&raising)) {
        kill(getpid(), SIGUSR2);
        sched_yield();
    }
    return unused;
}

static void ignore_signal(int signum)
{
    UNUSED(signum);
}

TEST(the_signal_job_is_written_before_it_can_run)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct latch ran = LATCH_INIT;
    atomic_int wrong = 0;
    pthread_t raiser;
    /* Between two jobs the signal is handled as before the first. */
    struct sigaction ignore = {.sa_handler = ignore_signal};
    assert_int_equal(sigaction(SIGUSR2, &ignore, NULL), 0);
    atomic_store(&raising, 1);
    assert_int_equal(pthread_create(&raiser, NULL, raise_all_the_time, NULL), 0);
    int rounds = scaled(2000);
    for (int i = 0; i < rounds; i++) {
        struct slot slot = {NULL, &ran, &wrong};
        assert_int_equal(ns_add_signal_job(tp, SIGUSR2, NS_JOB_NONE, compare_with_slot, &slot,
                                           &slot.job), NS_SUCCESS);
        assert_latch(&ran, i + 1);
    }
    atomic_store(&raising, 0);
    pthread_join(raiser, NULL);
    assert_int_equal(atomic_load(&wrong), 0);
    pool_end(tp);
    signal(SIGUSR2, SIG_DFL);
}

TEST(the_job_pointer_may_be_null)
{
    struct ns_thrpool_t *tp = pool_of(1);
    int ends[2];
    socket_pair(ends);
    struct probe probe = PROBE(finish_job, -1);
    const ns_job_type_t io = NS_JOB_WRITE | NS_JOB_PRESERVE_FD;
    assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, probe_run, &probe, NULL), NS_SUCCESS);
    assert_int_equal(ns_add_timeout_job(tp, &at_once, NS_JOB_NONE, probe_run, &probe, NULL),
                     NS_SUCCESS);
    assert_int_equal(ns_add_fd_job(tp, ends[0], io, probe_run, &probe, NULL), NS_SUCCESS);
    assert_int_equal(ns_add_fd_timeout_job(tp, ends[0], &far_away, io, probe_run, &probe, NULL),
                     NS_SUCCESS);
    assert_int_equal(ns_add_signal_job(tp, SIGUSR2, NS_JOB_NONE, probe_run, &probe, NULL),
                     NS_SUCCESS);
    kill(getpid(), SIGUSR2);
    assert_latch(&probe.runs, 5);
    pool_end(tp);
    close(ends[0]);
    close(ends[1]);
}

static atomic_ulong output_during;
static atomic_ulong output_after_rearm;

static void look_at_output_and_rearm(struct ns_job_t *job)
{
    atomic_store(&output_during, ns_job_get_output_type(job));
    ns_job_rearm(job);
    ns_job_done(job);
    atomic_store(&output_after_rearm, ns_job_get_output_type(job));
    stay_in_gate(ns_job_get_data(job));
}

TEST(output_type_lasts_as_long_as_the_callback)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct gate gate = GATE_INIT;
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_timeout_job(tp, &at_once, NS_JOB_THREAD, look_at_output_and_rearm,
                                        &gate, &job), NS_SUCCESS);
    assert_latch(&gate.begun, 1);
    assert_int_equal(atomic_load(&output_during), NS_JOB_TIMER);
    assert_int_equal(atomic_load(&output_after_rearm), NS_JOB_TIMER);
    assert_int_equal(ns_job_get_output_type(job), NS_JOB_TIMER);
    latch_add(&gate.leave, 1);
    pool_end(tp);
}

TEST(output_type_is_zero_before_and_after_the_callback)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct probe probe = PROBE(NULL, -1);
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_timeout_job(tp, &at_once, NS_JOB_UNARMED, probe_run, &probe, &job),
                     NS_SUCCESS);
    assert_int_equal(ns_job_get_output_type(job), 0);
    assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
    assert_int_equal(ns_job_wait(job), NS_SUCCESS);
    assert_int_equal(atomic_load(&probe.output), NS_JOB_TIMER);
    assert_int_equal(ns_job_get_output_type(job), 0);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    pool_end(tp);
}

TEST(output_type_of_a_run_now_job_is_zero_inside_it_too)
{
    struct ns_thrpool_t *tp = pool_of(1);
    for EACH_THREAD(i) {
        struct gate gate = GATE_INIT;
        struct ns_job_t *job = occupy(tp, where[i], &gate);
        assert_int_equal(ns_job_get_output_type(job), 0);
        latch_add(&gate.leave, 1);
        finish_idle(job);
    }
    pool_end(tp);
}

#define KEEPS_ERRNO(call)                                                                      \
    do {                                                                                       \
        errno = 4711;                                                                          \
        call;                                                                                  \
        if (errno != 4711) {                                                                   \
            fail_msg("%s sets errno to %d", #call, errno);                                     \
        }                                                                                      \
    } while (0)

/* A logger that does what a real one may do. */
static void errno_changing_log(int priority, const char *format, va_list args)
{
    quiet_log(priority, format, args);
    errno = ENOSPC;
}

static void *errno_changing_calloc(size_t count, size_t size)
{
    void *block = calloc(count, size);
    errno = EAGAIN;
    return block;
}

static void errno_changing_free(void *block)
{
    free(block);
    errno = EBUSY;
}

TEST(no_function_changes_errno)
{
    struct ns_thrpool_config config;
    struct ns_thrpool_t *tp = NULL;
    struct ns_job_t *job = NULL;
    struct ns_job_t *armed = NULL;
    struct timeval negative = {0, -1}, a_moment = {0, 2000};
    int ends[2];
    socket_pair(ends);
    const ns_job_type_t io = NS_JOB_READ | NS_JOB_PRESERVE_FD;
    KEEPS_ERRNO(ns_version());
    KEEPS_ERRNO(ns_set_log(NULL, NULL));
    KEEPS_ERRNO(ns_thrpool_config_init(NULL));
    KEEPS_ERRNO(ns_thrpool_config_init(&config));
    config.log_fct = errno_changing_log;
    config.calloc_fct = errno_changing_calloc;
    config.free_fct = errno_changing_free;
    config.max_threads = 0;
    KEEPS_ERRNO(assert_null(ns_thrpool_new(&config)));
    config.max_threads = 1;
    config.stacksize = 1;
    KEEPS_ERRNO(assert_null(ns_thrpool_new(&config)));
    config.stacksize = 0;
    KEEPS_ERRNO(tp = ns_thrpool_new(&config));
    assert_non_null(tp);

    KEEPS_ERRNO(ns_create_job(tp, NS_JOB_READ, do_nothing, &job));
    KEEPS_ERRNO(ns_create_job(tp, NS_JOB_TIMER, do_nothing, &job));
    KEEPS_ERRNO(ns_job_set_data(job, &job));
    KEEPS_ERRNO(ns_job_set_done_cb(job, another));
    KEEPS_ERRNO(ns_job_set_done_cb(job, NULL));
    KEEPS_ERRNO(ns_job_rearm(job));
    KEEPS_ERRNO(ns_job_wait(job));
    KEEPS_ERRNO(ns_job_timedwait(job, &at_once));
    KEEPS_ERRNO(ns_job_done(job));
    KEEPS_ERRNO(ns_add_job(tp, NS_JOB_SIGNAL, do_nothing, NULL, &job));
    KEEPS_ERRNO(ns_add_job(tp, NS_JOB_NONE, finish_job, NULL, NULL));
    KEEPS_ERRNO(ns_add_io_job(tp, NULL, io, do_nothing, NULL, &job));
    KEEPS_ERRNO(ns_add_io_timeout_job(tp, NULL, &far_away, io, do_nothing, NULL, &job));
    KEEPS_ERRNO(ns_add_timeout_job(tp, &negative, NS_JOB_NONE, do_nothing, NULL, &job));
    KEEPS_ERRNO(ns_add_timeout_job(tp, &at_once, NS_JOB_NONE, finish_job, NULL, NULL));
    KEEPS_ERRNO(ns_add_signal_job(tp, SIGKILL, NS_JOB_NONE, do_nothing, NULL, &job));
    KEEPS_ERRNO(ns_add_signal_job(tp, SIGUSR2, NS_JOB_NONE, do_nothing, NULL, &job));
    KEEPS_ERRNO(ns_job_cancel(job));
    KEEPS_ERRNO(ns_add_fd_job(tp, -1, io, do_nothing, NULL, &job));
    KEEPS_ERRNO(ns_add_fd_job(tp, ends[0], io, do_nothing, NULL, &armed));
    KEEPS_ERRNO(ns_add_fd_timeout_job(tp, ends[0], NULL, io, do_nothing, NULL, &job));
    KEEPS_ERRNO(ns_add_fd_timeout_job(tp, ends[0], &far_away, io, do_nothing, NULL, &job));
    KEEPS_ERRNO(ns_job_cancel(job));

    KEEPS_ERRNO(ns_job_done(armed));
    KEEPS_ERRNO(ns_job_rearm(armed));
    KEEPS_ERRNO(ns_job_set_data(armed, NULL));
    KEEPS_ERRNO(ns_job_set_done_cb(armed, NULL));
    KEEPS_ERRNO(ns_job_timedwait(armed, &at_once));
    KEEPS_ERRNO(ns_job_timedwait(armed, &a_moment));
    KEEPS_ERRNO(ns_job_timedwait(armed, &negative));
    KEEPS_ERRNO(ns_job_get_data(armed));
    KEEPS_ERRNO(ns_job_get_type(armed));
    KEEPS_ERRNO(ns_job_get_output_type(armed));
    KEEPS_ERRNO(ns_job_get_tp(armed));
    KEEPS_ERRNO(ns_job_get_fd(armed));
    KEEPS_ERRNO(ns_job_get_native_fd(armed));
    KEEPS_ERRNO(ns_job_is_func(armed, do_nothing));
    KEEPS_ERRNO(ns_job_cancel(armed));

    KEEPS_ERRNO(ns_job_done(NULL));
    KEEPS_ERRNO(ns_job_rearm(NULL));
    KEEPS_ERRNO(ns_job_cancel(NULL));
    KEEPS_ERRNO(ns_job_wait(NULL));
    KEEPS_ERRNO(ns_job_timedwait(NULL, &at_once));
    KEEPS_ERRNO(ns_job_set_data(NULL, NULL));
    KEEPS_ERRNO(ns_job_set_done_cb(NULL, NULL));
    KEEPS_ERRNO(ns_job_get_data(NULL));

    KEEPS_ERRNO(ns_thrpool_is_shutdown(tp));
    KEEPS_ERRNO(ns_thrpool_shutdown(tp));
    KEEPS_ERRNO(ns_add_job(tp, NS_JOB_NONE, do_nothing, NULL, NULL));
    KEEPS_ERRNO(ns_thrpool_wait(tp));
    KEEPS_ERRNO(ns_thrpool_wait(NULL));
    KEEPS_ERRNO(ns_thrpool_destroy(tp));
    KEEPS_ERRNO(ns_thrpool_destroy(NULL));
    KEEPS_ERRNO(ns_thrpool_shutdown(NULL));
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(add_job_makes_what_was_asked_for),
        cmocka_unit_test(create_job_makes_it_without_data_and_idle),
        cmocka_unit_test(timer_is_implied_by_a_time),
        cmocka_unit_test(signal_is_implied_by_a_signal),
        cmocka_unit_test(fd_jobs_tell_their_descriptor),
        cmocka_unit_test(an_unarmed_job_of_each_kind_waits_and_does_not_show_the_flag),
        cmocka_unit_test(a_failure_sets_the_job_to_null),
        cmocka_unit_test(a_failed_allocation_sets_the_job_to_null_and_leaves_nothing),
        cmocka_unit_test(the_job_is_written_before_it_can_run),
        cmocka_unit_test(the_signal_job_is_written_before_it_can_run),
        cmocka_unit_test(the_job_pointer_may_be_null),
        cmocka_unit_test(output_type_lasts_as_long_as_the_callback),
        cmocka_unit_test(output_type_is_zero_before_and_after_the_callback),
        cmocka_unit_test(output_type_of_a_run_now_job_is_zero_inside_it_too),
        cmocka_unit_test(no_function_changes_errno),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
