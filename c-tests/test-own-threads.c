/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The pool's own threads: their names, signal masks and stacks; and cancellation, in all threads. */
#include "signals.h"

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

/* Facts about a worker of the pool, or for type 0 the loop. */
static struct thread_facts facts_of(struct ns_thrpool_t *tp, ns_job_type_t type)
{
    struct thread_facts facts;
    struct ns_job_t *job = NULL;
    memset(&facts, 0, sizeof(facts));
    assert_int_equal(ns_add_job(tp, type, note_facts, &facts, &job), NS_SUCCESS);
    finish_idle(job);
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
        /* The loop unblocks the signals that its jobs watch. */
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
    /* glibc reuses the stack of an earlier thread if it is at most four times too large, so these
     * are further apart. */
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
            /* Some versions of glibc include the guard page. */
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

/* musl has threads on 2 KiB, on which no signal handler fits. */
#define LEAST_STACK ((size_t)(PTHREAD_STACK_MIN > 16384 ? PTHREAD_STACK_MIN : 16384))

/* The least that is accepted, and sizes that are no multiple of a page. */
TEST(stacks_may_be_of_the_least_size_and_of_any)
{
    const size_t sizes[] = {LEAST_STACK, LEAST_STACK + 1, 200001, 262143};
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
        watching = probe_signal(tp, SIGUSR1, NS_JOB_PERSIST, &signals);
        /* On each kind of thread, run a callback, and the library's handler on top of it. */
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
    config.stacksize = LEAST_STACK - 1;
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

/* A logger and an allocator that are cancellation points. */
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

/* Call everything with a cancellation pending: no call may act on it. */
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
    /* NSPR is looked for, and is not in this process. */
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
    /* Not reached, since the cancellation was pending all the time. */
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
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_have_names_of_their_own),
        cmocka_unit_test(threads_have_the_signal_mask_of_their_maker),
        cmocka_unit_test(stacksize_is_that_of_the_config_or_of_pthread),
        cmocka_unit_test(stacks_may_be_of_the_least_size_and_of_any),
        cmocka_unit_test(cancellation_is_disabled_in_our_threads),
        cmocka_unit_test(no_function_is_a_cancellation_point),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
