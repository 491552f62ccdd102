/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Callbacks: where they run, never twice at once, with no lock held, free to call anything. */
#include "kinds.h"

static struct timeval often = {0, 500};

/* Add a job of a kind that is about to fire, again and again if it is persistent. */
static ns_result_t add_to_fire(struct ns_thrpool_t *tp, int kind, int fd, ns_job_type_t type,
                               ns_job_func_t func, void *data, struct ns_job_t **job)
{
    const struct trigger on = {kind == KIND_FD_TIMEOUT ? &far_away : &often, fd,
                               NS_JOB_WRITE | NS_JOB_PRESERVE_FD};
    return add_kind(tp, kind, &on, type, func, data, job);
}

/* Where and how often one job ran. */
struct sightings {
    struct latch runs;
    atomic_int now;   /* runs in progress */
    atomic_int most;  /* the most that were in progress at once */
    atomic_int loop;  /* runs on a thread with the loop's name */
    atomic_int other; /* and on one that is neither that nor a worker */
    atomic_int thread;
    int until;        /* runs until it is done */
};

static void see(struct ns_job_t *job)
{
    struct sightings *seen = ns_job_get_data(job);
    char name[16] = "";
    int now = atomic_fetch_add(&seen->now, 1) + 1;
    if (now > atomic_load(&seen->most)) {
        atomic_store(&seen->most, now);
    }
    pthread_getname_np(pthread_self(), name, sizeof name);
    int is_loop = strcmp(name, "ns-loop") == 0;
    atomic_fetch_add(&seen->loop, is_loop);
    atomic_fetch_add(&seen->other, !is_loop && strcmp(name, "ns-worker") != 0);
    atomic_store(&seen->thread, gettid());
    if (latch_count(&seen->runs) + 1 >= seen->until) {
        ns_job_done(job);
    } else if (!NS_JOB_IS_PERSIST(ns_job_get_type(job))) {
        ns_job_rearm(job);
    }
    atomic_fetch_sub(&seen->now, 1);
    latch_add(&seen->runs, 1);
}

TEST(every_kind_runs_in_the_loop_or_in_a_worker_as_its_flag_says)
{
    struct ns_thrpool_t *tp = pool_of(4);
    int ends[2];
    socket_pair(ends);
    int loop = 0;
    for (int kind = 0; kind < KINDS; kind++) {
        for EACH_THREAD(i) {
            for (int persist = 0; persist < 2; persist++) {
                struct sightings seen = {.runs = LATCH_INIT, .until = kind == KIND_SIGNAL ? 1 : 50};
                ns_job_type_t type = where[i] | (persist ? NS_JOB_PERSIST : 0);
                assert_int_equal(add_to_fire(tp, kind, ends[0], type, see, &seen, NULL), NS_SUCCESS);
                if (kind == KIND_SIGNAL) {
                    kill(getpid(), SIGUSR1);
                }
                assert_latch(&seen.runs, seen.until);
                assert_int_equal(atomic_load(&seen.other), 0);
                assert_int_equal(atomic_load(&seen.loop), where[i] == NS_JOB_NONE ? seen.until : 0);
                assert_int_equal(atomic_load(&seen.most), 1);
                if (where[i] == NS_JOB_NONE) {
                    /* One loop, one thread. */
                    loop = loop != 0 ? loop : atomic_load(&seen.thread);
                    assert_int_equal(atomic_load(&seen.thread), loop);
                } else {
                    assert_int_not_equal(atomic_load(&seen.thread), loop);
                }
            }
        }
    }
    pool_end(tp);
    close(ends[0]);
    close(ends[1]);
}

static atomic_int poking;

static void *rearm_all_the_time(void *job)
{
    while (atomic_load(&poking)) {
        ns_job_rearm(job);
        sched_yield();
    }
    return NULL;
}

static void see_and_stay(struct ns_job_t *job)
{
    struct sightings *seen = ns_job_get_data(job);
    int now = atomic_fetch_add(&seen->now, 1) + 1;
    if (now > atomic_load(&seen->most)) {
        atomic_store(&seen->most, now);
    }
    sched_yield(); /* so that another run may begin, if the library lets it */
    atomic_fetch_sub(&seen->now, 1);
    latch_add(&seen->runs, 1);
}

TEST(a_callback_never_runs_twice_at_once)
{
    int ends[2];
    socket_pair(ends);
    const ns_job_type_t triggers[] = {
        NS_JOB_NONE, NS_JOB_PERSIST, NS_JOB_TIMER, NS_JOB_TIMER | NS_JOB_PERSIST,
        NS_JOB_WRITE, NS_JOB_WRITE | NS_JOB_PERSIST,
    };
    int runs = scaled(3000);
    for EACH_THREAD(i) {
        for (size_t t = 0; t < sizeof triggers / sizeof *triggers; t++) {
            struct ns_thrpool_t *tp = pool_of(4);
            struct sightings seen = {.runs = LATCH_INIT};
            struct ns_job_t *job = NULL;
            pthread_t pokers[2];
            ns_job_type_t type = where[i] | triggers[t];
            /* The trigger stays: a descriptor that is never drained, or one that needs no event. */
            ns_result_t made = NS_JOB_IS_IO(type)
                ? ns_add_fd_job(tp, ends[0], type | NS_JOB_PRESERVE_FD, see_and_stay, &seen, &job)
                : ns_add_job(tp, type, see_and_stay, &seen, &job);
            assert_int_equal(made, NS_SUCCESS);
            atomic_store(&poking, 1);
            for (int p = 0; p < 2; p++) {
                assert_int_equal(pthread_create(&pokers[p], NULL, rearm_all_the_time, job), 0);
            }
            assert_latch(&seen.runs, runs);
            atomic_store(&poking, 0);
            for (int p = 0; p < 2; p++) {
                pthread_join(pokers[p], NULL);
            }
            ns_job_cancel(job);
            pool_end(tp);
            assert_int_equal(atomic_load(&seen.most), 1);
        }
    }
    close(ends[0]);
    close(ends[1]);
}

/* The application's lock: its callbacks, logger and allocator take it, and it is held while the
 * library is called. It is recursive, since the logger may be called by the thread that holds it.
 * */
static pthread_mutex_t application;
static struct latch wanting = LATCH_INIT; /* counts those about to take it */
static atomic_int want_in_logger;
static atomic_int want_in_calloc;
static atomic_int want_in_free;

static void take_application_lock(void)
{
    latch_add(&wanting, 1);
    pthread_mutex_lock(&application);
    pthread_mutex_unlock(&application);
}

static void locking_log(int priority, const char *format, va_list args)
{
    quiet_log(priority, format, args);
    if (atomic_load(&want_in_logger)) {
        take_application_lock();
    }
}

static void *locking_calloc(size_t count, size_t size)
{
    if (atomic_load(&want_in_calloc)) {
        take_application_lock();
    }
    return calloc(count, size);
}

static void locking_free(void *block)
{
    if (atomic_load(&want_in_free)) {
        take_application_lock();
    }
    free(block);
}

static struct ns_thrpool_t *locking_pool(size_t workers)
{
    return pool_with(workers, locking_log, locking_calloc, locking_free);
}

static void want_lock(struct ns_job_t *job)
{
    UNUSED(job);
    take_application_lock();
}

/* Call everything but the waits on a job. Each call must return although the job's callback is
 * blocked. The job ends. */
static void call_everything_on(struct ns_job_t *job, struct ns_thrpool_t *tp, int running)
{
    void *data = ns_job_get_data(job);
    assert_ptr_equal(ns_job_get_tp(job), tp);
    assert_int_equal(ns_job_get_output_type(job) & NS_JOB_SIGNAL, 0);
    ns_job_get_type(job);
    ns_job_get_fd(job);
    ns_job_get_native_fd(job);
    ns_job_is_func(job, want_lock);
    assert_int_equal(ns_thrpool_is_shutdown(tp), 0);
    ns_result_t settable = running ? NS_SUCCESS : NS_INVALID_STATE;
    assert_int_equal(ns_job_set_data(job, data), settable);
    assert_int_equal(ns_job_set_done_cb(job, NULL), settable);
    assert_int_equal(ns_job_rearm(job), settable);
    assert_int_equal(ns_job_done(job), settable);
    assert_int_equal(ns_job_cancel(job), running ? NS_RUNNING : NS_SUCCESS);
}

/* Call everything that needs only the pool. */
static void call_everything_on_pool(struct ns_thrpool_t *tp, int fd)
{
    for (int kind = 0; kind < KINDS; kind++) {
        for EACH_THREAD(i) {
            struct ns_job_t *job = NULL;
            assert_int_equal(add_to_fire(tp, kind, fd, where[i], finish_job, NULL, NULL), NS_SUCCESS);
            assert_int_equal(add_to_fire(tp, kind, fd, where[i] | NS_JOB_UNARMED, do_nothing, NULL,
                                      &job), NS_SUCCESS);
            assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
            /* It may be running. */
            ns_result_t result = ns_job_cancel(job);
            assert_true(result == NS_SUCCESS || result == NS_RUNNING);
        }
    }
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_create_job(tp, NS_JOB_NONE, finish_job, &job), NS_SUCCESS);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_thrpool_is_shutdown(tp), 1);
    assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, finish_job, NULL, NULL), NS_SHUTDOWN);
}

TEST(a_caller_may_hold_the_lock_that_the_callback_wants)
{
    int ends[2];
    socket_pair(ends);
    for (int kind = 0; kind < KINDS; kind++) {
        for EACH_THREAD(i) {
            struct ns_thrpool_t *tp = locking_pool(1);
            struct ns_job_t *job = NULL;
            long before = latch_count(&wanting);
            pthread_mutex_lock(&application);
            assert_int_equal(add_to_fire(tp, kind, ends[0], where[i], want_lock, NULL, &job),
                             NS_SUCCESS);
            if (kind == KIND_SIGNAL) {
                kill(getpid(), SIGUSR1);
            }
            assert_latch(&wanting, before + 1);
            if (kind == KIND_SIGNAL) {
                assert_int_equal(ns_job_get_output_type(job), NS_JOB_SIGNAL);
                assert_int_equal(ns_job_cancel(job), NS_RUNNING);
            } else {
                call_everything_on(job, tp, 1);
            }
            call_everything_on_pool(tp, ends[0]);
            pthread_mutex_unlock(&application);
            pool_end(tp);
        }
    }
    close(ends[0]);
    close(ends[1]);
}

TEST(a_caller_may_hold_the_lock_that_the_done_callback_wants)
{
    int ends[2];
    socket_pair(ends);
    for EACH_THREAD(i) {
        struct ns_thrpool_t *tp = locking_pool(1);
        struct ns_job_t *job = NULL;
        struct ns_job_t *other = NULL;
        long before = latch_count(&wanting);
        assert_int_equal(ns_add_timeout_job(tp, &far_away, NS_JOB_NONE, finish_job, NULL, &other),
                         NS_SUCCESS);
        assert_int_equal(ns_add_job(tp, where[i] | NS_JOB_UNARMED, finish_job, NULL, &job),
                         NS_SUCCESS);
        assert_int_equal(ns_job_set_done_cb(job, want_lock), NS_SUCCESS);
        pthread_mutex_lock(&application);
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        assert_latch(&wanting, before + 1);
        /* The job lives until its done callback has returned. */
        assert_int_equal(ns_job_get_type(job), where[i]);
        assert_int_equal(ns_job_done(job), NS_SUCCESS);
        assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
        assert_int_equal(ns_job_rearm(job), NS_INVALID_STATE);
        call_everything_on(other, tp, 0);
        call_everything_on_pool(tp, ends[0]);
        pthread_mutex_unlock(&application);
        pool_end(tp);
    }
    close(ends[0]);
    close(ends[1]);
}

/* What a callback calls while it holds the application's lock. */
struct caller {
    struct ns_job_t *other;
    int fd;
    struct latch over;
    int wrong;
};

static void call_with_lock_held(struct ns_job_t *job)
{
    struct caller *caller = ns_job_get_data(job);
    struct ns_thrpool_t *tp = ns_job_get_tp(job);
    struct ns_job_t *made = NULL;
    pthread_mutex_lock(&application);
    caller->wrong += ns_job_get_data(caller->other) != caller;
    caller->wrong += ns_job_set_data(caller->other, caller) != NS_SUCCESS;
    caller->wrong += ns_job_set_done_cb(caller->other, NULL) != NS_SUCCESS;
    caller->wrong += ns_job_rearm(caller->other) != NS_SUCCESS;
    caller->wrong += ns_job_done(caller->other) != NS_SUCCESS;
    caller->wrong += ns_job_cancel(caller->other) != NS_RUNNING;
    for (int kind = 0; kind < KINDS; kind++) {
        caller->wrong += add_to_fire(tp, kind, caller->fd, NS_JOB_UNARMED, finish_job, NULL, &made)
                         != NS_SUCCESS;
        caller->wrong += ns_job_done(made) != NS_SUCCESS;
    }
    ns_job_done(job);
    ns_thrpool_shutdown(tp);
    pthread_mutex_unlock(&application);
    latch_add(&caller->over, 1);
}

TEST(a_callback_may_hold_the_lock_that_another_wants)
{
    int ends[2];
    socket_pair(ends);
    for EACH_THREAD(i) {
        struct ns_thrpool_t *tp = locking_pool(2);
        struct caller caller = {.fd = ends[0], .over = LATCH_INIT};
        long before = latch_count(&wanting);
        /* The other job occupies a worker, so that the caller can run in the loop or in another
         * worker. */
        pthread_mutex_lock(&application);
        assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, want_lock, &caller, &caller.other),
                         NS_SUCCESS);
        assert_latch(&wanting, before + 1);
        pthread_mutex_unlock(&application);
        finish_idle(caller.other);

        struct gate gate = GATE_INIT;
        caller.other = occupy(tp, NS_JOB_THREAD, &gate);
        assert_int_equal(ns_job_set_data(caller.other, &caller), NS_SUCCESS);
        assert_int_equal(ns_add_job(tp, where[i], call_with_lock_held, &caller, NULL), NS_SUCCESS);
        assert_latch(&caller.over, 1);
        assert_int_equal(caller.wrong, 0);
        latch_add(&gate.leave, 1);
        pool_end(tp);
    }
    close(ends[0]);
    close(ends[1]);
}

static void log_something(struct ns_job_t *job)
{
    /* Refused, which is logged. */
    ns_add_job(ns_job_get_tp(job), NS_JOB_READ, finish_job, NULL, NULL);
}

static void allocate_something(struct ns_job_t *job)
{
    struct ns_job_t *made = NULL;
    if (ns_create_job(ns_job_get_tp(job), NS_JOB_NONE, finish_job, &made) == NS_SUCCESS) {
        ns_job_done(made);
    }
}

TEST(a_caller_may_hold_the_lock_that_the_logger_wants)
{
    int ends[2];
    socket_pair(ends);
    for EACH_THREAD(i) {
        struct ns_thrpool_t *tp = locking_pool(1);
        struct ns_job_t *job = NULL;
        long before = latch_count(&wanting);
        pthread_mutex_lock(&application);
        atomic_store(&want_in_logger, 1);
        assert_int_equal(ns_add_job(tp, where[i], log_something, NULL, &job), NS_SUCCESS);
        assert_latch(&wanting, before + 1);
        call_everything_on(job, tp, 1);
        call_everything_on_pool(tp, ends[0]);
        atomic_store(&want_in_logger, 0);
        pthread_mutex_unlock(&application);
        pool_end(tp);
    }
    close(ends[0]);
    close(ends[1]);
}

TEST(a_caller_may_hold_the_lock_that_the_allocator_wants)
{
    int ends[2];
    socket_pair(ends);
    atomic_int *const wants[] = {&want_in_calloc, &want_in_free};
    for (size_t which = 0; which < 2; which++) {
        for EACH_THREAD(i) {
            struct ns_thrpool_t *tp = locking_pool(1);
            struct ns_job_t *job = NULL;
            struct ns_job_t *other = NULL;
            long before = latch_count(&wanting);
            assert_int_equal(ns_add_timeout_job(tp, &far_away, NS_JOB_NONE, finish_job, NULL,
                                                &other), NS_SUCCESS);
            pthread_mutex_lock(&application);
            assert_int_equal(ns_add_job(tp, where[i] | NS_JOB_UNARMED,
                                        which == 0 ? allocate_something : finish_job, NULL, &job),
                             NS_SUCCESS);
            atomic_store(wants[which], 1);
            assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
            assert_latch(&wanting, before + 1);
            if (which == 0) {
                call_everything_on(job, tp, 1);
            }
            call_everything_on(other, tp, 0);
            call_everything_on_pool(tp, ends[0]);
            atomic_store(wants[which], 0);
            pthread_mutex_unlock(&application);
            pool_end(tp);
        }
    }
    close(ends[0]);
    close(ends[1]);
}

TEST(getters_answer_at_once_while_the_callback_stays)
{
    struct ns_thrpool_t *tp = pool_of(1);
    for EACH_THREAD(i) {
        struct gate gate = GATE_INIT;
        struct ns_job_t *job = NULL;
        assert_int_equal(ns_add_timeout_job(tp, &at_once, where[i], gate_callback, &gate, &job),
                         NS_SUCCESS);
        assert_latch(&gate.begun, 1);
        /* The gate is opened only after they have answered. */
        for (int n = 0; n < 1000; n++) {
            assert_ptr_equal(ns_job_get_data(job), &gate);
            assert_int_equal(ns_job_get_type(job), where[i] | NS_JOB_TIMER);
            assert_int_equal(ns_job_get_output_type(job), NS_JOB_TIMER);
            assert_ptr_equal(ns_job_get_tp(job), tp);
            assert_null(ns_job_get_fd(job));
            assert_int_equal(ns_job_get_native_fd(job), -1);
            assert_int_equal(ns_job_is_func(job, gate_callback), 1);
        }
        latch_add(&gate.leave, 1);
        finish_idle(job);
    }
    pool_end(tp);
}

/* A callback that ends other jobs, idle, armed and running. */
struct ender {
    struct ns_job_t *idle;
    struct ns_job_t *armed;
    struct ns_job_t *running;
    ns_result_t results[6];
    struct latch over;
};

static void end_others(struct ns_job_t *job)
{
    struct ender *ender = ns_job_get_data(job);
    ender->results[0] = ns_job_done(ender->idle);
    ender->results[1] = ns_job_done(ender->armed);
    ender->results[2] = ns_job_rearm(ender->armed);
    ender->results[3] = ns_job_cancel(ender->armed);
    ender->results[4] = ns_job_done(ender->running);
    ender->results[5] = ns_job_done(job);
    latch_add(&ender->over, 1);
}

static struct latch gone = LATCH_INIT;

static void count_going(struct ns_job_t *job)
{
    UNUSED(job);
    latch_add(&gone, 1);
}

TEST(a_callback_may_end_other_jobs)
{
    for EACH_THREAD(i) {
        struct ns_thrpool_t *tp = pool_of(2);
        struct gate gate = GATE_INIT;
        struct ender ender = {.over = LATCH_INIT};
        long before = latch_count(&gone);
        assert_int_equal(ns_create_job(tp, NS_JOB_NONE, finish_job, &ender.idle), NS_SUCCESS);
        assert_int_equal(ns_add_timeout_job(tp, &far_away, NS_JOB_UNARMED, finish_job, NULL,
                                            &ender.armed), NS_SUCCESS);
        ender.running = occupy(tp, NS_JOB_THREAD, &gate);
        assert_int_equal(ns_job_set_done_cb(ender.idle, count_going), NS_SUCCESS);
        assert_int_equal(ns_job_set_done_cb(ender.armed, count_going), NS_SUCCESS);
        assert_int_equal(ns_job_set_done_cb(ender.running, count_going), NS_SUCCESS);
        assert_int_equal(ns_job_rearm(ender.armed), NS_SUCCESS);
        assert_int_equal(ns_add_job(tp, where[i], end_others, &ender, NULL), NS_SUCCESS);
        assert_latch(&ender.over, 1);
        assert_latch(&gone, before + 2);
        const ns_result_t want[] = {
            NS_SUCCESS, NS_INVALID_STATE, NS_INVALID_STATE, NS_SUCCESS, NS_SUCCESS, NS_SUCCESS,
        };
        for (size_t at = 0; at < 6; at++) {
            assert_int_equal(ender.results[at], want[at]);
        }
        latch_add(&gate.leave, 1);
        assert_latch(&gone, before + 3);
        pool_end(tp);
        assert_int_equal(latch_count(&gone), before + 3);
    }
}

/* Done callbacks that add the next job and end others. */
struct relay {
    atomic_int left;
    atomic_int wrong;
    struct latch disposed;
};

static void pass_on(struct ns_job_t *job)
{
    struct relay *relay = ns_job_get_data(job);
    struct ns_thrpool_t *tp = ns_job_get_tp(job);
    int left = atomic_fetch_sub(&relay->left, 1);
    if (left > 0) {
        struct ns_job_t *next = NULL;
        ns_job_type_t type = (left & 1 ? NS_JOB_THREAD : 0) | (left & 2 ? NS_JOB_TIMER : 0);
        if (ns_add_job(tp, type | NS_JOB_UNARMED, finish_job, relay, &next) != NS_SUCCESS
            || ns_job_set_done_cb(next, pass_on) != NS_SUCCESS) {
            atomic_fetch_add(&relay->wrong, 1);
        }
        /* The next job ends after a run, or at once by done or cancel. */
        ns_result_t result = left % 3 == 0   ? ns_job_rearm(next)
                             : left % 3 == 1 ? ns_job_done(next)
                                             : ns_job_cancel(next);
        if (result != NS_SUCCESS) {
            atomic_fetch_add(&relay->wrong, 1);
        }
    }
    latch_add(&relay->disposed, 1);
}

TEST(a_done_callback_may_add_and_end_other_jobs)
{
    struct ns_thrpool_t *tp = pool_of(2);
    int jobs = scaled(5000);
    struct relay relay = {jobs, 0, LATCH_INIT};
    struct ns_job_t *first = NULL;
    assert_int_equal(ns_add_job(tp, NS_JOB_THREAD | NS_JOB_UNARMED, finish_job, &relay, &first),
                     NS_SUCCESS);
    arm_with(first, pass_on);
    assert_latch(&relay.disposed, jobs + 1);
    assert_int_equal(atomic_load(&relay.wrong), 0);
    pool_end(tp);
}

/* Plain memory, written by the callback and read by the done callback on another thread. */
struct page {
    int lines[64];
    int torn;
    struct latch read;
};

static void write_page(struct ns_job_t *job)
{
    struct page *page = ns_job_get_data(job);
    for (int i = 0; i < 64; i++) {
        page->lines[i]++;
    }
    ns_job_done(job);
}

static void read_page(struct ns_job_t *job)
{
    struct page *page = ns_job_get_data(job);
    for (int i = 0; i < 64; i++) {
        page->torn += page->lines[i] != 1;
    }
    latch_add(&page->read, 1);
}

TEST(a_done_callback_sees_what_the_callback_wrote)
{
    struct ns_thrpool_t *tp = pool_of(2);
    int ends[2];
    socket_pair(ends);
    int rounds = scaled(5000);
    for (int round = 0; round < rounds; round++) {
        struct page page = {.read = LATCH_INIT};
        struct ns_job_t *job = NULL;
        /* A worker's I/O job is disposed of by the loop. */
        assert_int_equal(add_to_fire(tp, round % 4, ends[0], NS_JOB_THREAD | NS_JOB_UNARMED,
                                  write_page, &page, &job), NS_SUCCESS);
        arm_with(job, read_page);
        assert_latch(&page.read, 1);
        assert_int_equal(page.torn, 0);
    }
    pool_end(tp);
    close(ends[0]);
    close(ends[1]);
}

TEST(done_callbacks_run_on_the_pools_own_threads)
{
    struct ns_thrpool_t *tp = pool_of(2);
    int ends[2];
    socket_pair(ends);
    for (int kind = 0; kind < KIND_SIGNAL; kind++) {
        for EACH_THREAD(i) {
            struct sightings seen = {.runs = LATCH_INIT, .until = 2};
            struct ns_job_t *job = NULL;
            assert_int_equal(add_to_fire(tp, kind, ends[0], where[i] | NS_JOB_UNARMED, finish_job,
                                      &seen, &job), NS_SUCCESS);
            arm_with(job, see);
            assert_latch(&seen.runs, 1);
            assert_int_equal(atomic_load(&seen.other), 0);
            if (where[i] == NS_JOB_NONE) {
                assert_int_equal(atomic_load(&seen.loop), 1);
            }
        }
    }
    pool_end(tp);
    close(ends[0]);
    close(ends[1]);
}

/* A done callback that waits for a threaded job that fired just before. */
static struct latch file_job_ran;
static atomic_int waited_for_it;

static void tell_that_file_job_ran(struct ns_job_t *job)
{
    latch_add(&file_job_ran, 1);
    ns_job_done(job);
}

static void wait_for_file_job(struct ns_job_t *job)
{
    UNUSED(job);
    atomic_store(&waited_for_it, latch_reaches(&file_job_ran, 1) ? 1 : -1);
}

/* To see it fail: in EventLoop::take_requests, do not tell the workers before it disposes. */
TEST(a_done_callback_may_wait_for_a_worker_that_slept)
{
    char path[] = "/tmp/nunc-stans-test-XXXXXX";
    int file = mkstemp(path); /* always ready: the job fires as soon as it is armed */
    assert_true(file >= 0);
    assert_int_equal(unlink(path), 0);
    for (int round = 0; round < 20; round++) {
        struct ns_thrpool_t *tp = pool_of(1);
        struct gate gate = GATE_INIT;
        struct ns_job_t *blocker = NULL, *waiting = NULL;
        file_job_ran = (struct latch)LATCH_INIT;
        atomic_store(&waited_for_it, 0);
        assert_int_equal(ns_create_job(tp, NS_JOB_NONE, tell_that_file_job_ran, &waiting), NS_SUCCESS);
        assert_int_equal(ns_job_set_done_cb(waiting, wait_for_file_job), NS_SUCCESS);
        /* The loop finds both requests at once. */
        blocker = occupy(tp, NS_JOB_NONE, &gate);
        assert_int_equal(ns_add_fd_job(tp, file, NS_JOB_READ | NS_JOB_THREAD | NS_JOB_PRESERVE_FD,
                                       tell_that_file_job_ran, NULL, NULL), NS_SUCCESS);
        assert_int_equal(ns_job_done(waiting), NS_SUCCESS);
        latch_add(&gate.leave, 1);
        EVENTUALLY(atomic_load(&waited_for_it) != 0);
        assert_int_equal(atomic_load(&waited_for_it), 1);
        finish_idle(blocker);
        pool_end(tp);
    }
    close(file);
}

int main(void)
{
    pthread_mutexattr_t recursive;
    pthread_mutexattr_init(&recursive);
    pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&application, &recursive);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_runs_in_the_loop_or_in_a_worker_as_its_flag_says),
        cmocka_unit_test(a_callback_never_runs_twice_at_once),
        cmocka_unit_test(a_caller_may_hold_the_lock_that_the_callback_wants),
        cmocka_unit_test(a_caller_may_hold_the_lock_that_the_done_callback_wants),
        cmocka_unit_test(a_callback_may_hold_the_lock_that_another_wants),
        cmocka_unit_test(a_caller_may_hold_the_lock_that_the_logger_wants),
        cmocka_unit_test(a_done_callback_may_wait_for_a_worker_that_slept),
        cmocka_unit_test(a_caller_may_hold_the_lock_that_the_allocator_wants),
        cmocka_unit_test(getters_answer_at_once_while_the_callback_stays),
        cmocka_unit_test(a_callback_may_end_other_jobs),
        cmocka_unit_test(a_done_callback_may_add_and_end_other_jobs),
        cmocka_unit_test(a_done_callback_sees_what_the_callback_wrote),
        cmocka_unit_test(done_callbacks_run_on_the_pools_own_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
