/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What broke the original, shown absent: the beginning and the end of a pool.
 *
 * Each test is named for its row in docs/RELIABILITY.md, and says what to take out of the library
 * to see it fail.
 */
#include "fm.h"

static atomic_long runs, disposals;

static void run_and_finish(struct ns_job_t *job)
{
    atomic_fetch_add(&runs, 1);
    ns_job_done(job);
}

static void only_run(struct ns_job_t *job)
{
    UNUSED(job);
    atomic_fetch_add(&runs, 1);
}

static void gone(struct ns_job_t *job)
{
    UNUSED(job);
    atomic_fetch_add(&disposals, 1);
}

static void forget_counts(void)
{
    atomic_store(&runs, 0);
    atomic_store(&disposals, 0);
}

/* Restrict this process to one CPU, or let it use all it had before. */
static void pin(int to_one)
{
    static cpu_set_t before;
    cpu_set_t one;
    if (!to_one) {
        assert_int_equal(sched_setaffinity(0, sizeof before, &before), 0);
        return;
    }
    assert_int_equal(sched_getaffinity(0, sizeof before, &before), 0);
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        if (CPU_ISSET(cpu, &before)) {
            CPU_SET(cpu, &one);
            break;
        }
    }
    assert_int_equal(sched_setaffinity(0, sizeof one, &one), 0);
}

/* Each life has a time limit of its own, and a message for when it hangs. */
static void too_long(int signum)
{
    static const char words[] = "a pool does not end\n";
    UNUSED(signum);
    if (write(2, words, sizeof words - 1) < 0) {
        _exit(1);
    }
    abort();
}

static void watch_over_a_life(void)
{
    alarm(2 * LIMIT_SECONDS);
}

/* Many lives of a pool, with varying numbers of workers, ended at varying moments. */
static void live_and_die(long lives, uint64_t *sequence)
{
    for (long i = 0; i < lives; i++) {
        watch_over_a_life();
        struct ns_thrpool_t *tp = checked_pool((size_t)(next_random(sequence) % 64) + 1);
        long jobs = (long)(next_random(sequence) % 8);
        forget_counts();
        for (long job = 0; job < jobs; job++) {
            assert_int_equal(ns_add_job(tp, job & 1 ? NS_JOB_THREAD : 0, run_and_finish, NULL,
                                        NULL), NS_SUCCESS);
        }
        hesitate(sequence, 1u << next_random(sequence) % 15);
        if (i % 4 != 0) {
            ns_thrpool_shutdown(tp);
            hesitate(sequence, 300);
        }
        if (i % 4 > 1) {
            assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
            assert_int_equal(atomic_load(&runs), jobs);
        }
        ns_thrpool_destroy(tp);
        assert_int_equal(atomic_load(&runs), jobs);
    }
    heap_check(&the_heap);
}

/* Two jobs that meet in two workers: one returns, so that its worker goes to sleep, while the other
 * shuts the pool down. */
static atomic_int met;

static void meet(struct ns_job_t *job, int shuts_down)
{
    uint64_t sequence = run_seed() + (uint64_t)atomic_load(&disposals) + (uint64_t)shuts_down;
    ns_job_done(job);
    atomic_fetch_add(&met, 1);
    for (int tries = 0; tries < 300000 && atomic_load(&met) < 2; tries++) {
    }
    hesitate(&sequence, 2048);
    if (shuts_down) {
        ns_thrpool_shutdown(ns_job_get_tp(job));
    }
}

static void meet_and_leave(struct ns_job_t *job)
{
    meet(job, 0);
}

static void meet_and_shut_down(struct ns_job_t *job)
{
    meet(job, 1);
}

static void shut_down_while_a_worker_goes_to_sleep(long lives)
{
    forget_counts();
    for (long i = 0; i < lives; i++) {
        watch_over_a_life();
        struct ns_thrpool_t *tp = checked_pool(2);
        atomic_store(&met, 0);
        atomic_store(&disposals, (int)i);
        assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, meet_and_leave, NULL, NULL), NS_SUCCESS);
        assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, meet_and_shut_down, NULL, NULL),
                         NS_SUCCESS);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        ns_thrpool_destroy(tp);
    }
    heap_check(&the_heap);
}

/*
 * To see it fail: in WorkQueue::close, do not take the lock; and in WorkQueue::sleep, wait before
 * looking at `closed`.
 */
TEST(fm02_every_pool_ends_however_many_workers_it_has)
{
    uint64_t sequence = run_seed();
    signal(SIGALRM, too_long);
    live_and_die(20, &sequence); /* tools open their own descriptors with the first pools */
    int fds = count_fds();
    int threads = count_threads();
    double begin = now_seconds();
    live_and_die(count_of(700, 100000), &sequence);
    double free_seconds = now_seconds() - begin;
    shut_down_while_a_worker_goes_to_sleep(count_of(4000, 100000));
    begin = now_seconds();
    pin(1);
    live_and_die(count_of(500, 100000), &sequence);
    pin(0);
    print_message("# %ld lives in %.0f s, and %ld on one processor in %.0f s\n",
                  count_of(700, 100000), free_seconds, count_of(500, 100000),
                  now_seconds() - begin);
    alarm(0);
    signal(SIGALRM, SIG_DFL);
    assert_nothing_left(fds, threads);
}

/* How many messages said that a shutdown has begun. */
static atomic_int begun;

static void count_begun(int priority, const char *format, va_list args)
{
    char line[256];
    UNUSED(priority);
    vsnprintf(line, sizeof line, format, args);
    if (strstr(line, "shutting down") != NULL) {
        atomic_fetch_add(&begun, 1);
    }
}

struct crowd {
    pthread_barrier_t barrier;
    struct ns_thrpool_t *tp;
};

static void *shut_down_together(void *arg)
{
    struct crowd *crowd = arg;
    pthread_barrier_wait(&crowd->barrier);
    ns_thrpool_shutdown(crowd->tp);
    return NULL;
}

/* To see it fail: in Pool::shutdown, store the flag and go on whatever it was. */
TEST(fm03_shutdown_by_eight_at_once_happens_once)
{
    enum { CROWD = 8 };
    for (long i = 0; i < count_of(200, 10000); i++) {
        struct ns_thrpool_config config = checked_config(3);
        struct crowd crowd;
        pthread_t threads[CROWD];
        config.log_fct = count_begun;
        crowd.tp = ns_thrpool_new(&config);
        assert_non_null(crowd.tp);
        atomic_store(&begun, 0);
        pthread_barrier_init(&crowd.barrier, NULL, CROWD);
        for (int t = 0; t < CROWD; t++) {
            threads[t] = start_thread(shut_down_together, &crowd);
        }
        for (int t = 0; t < CROWD; t++) {
            pthread_join(threads[t], NULL);
        }
        assert_int_equal(ns_thrpool_is_shutdown(crowd.tp), 1);
        assert_int_equal(ns_thrpool_wait(crowd.tp), NS_SUCCESS);
        assert_int_equal(ns_thrpool_wait(crowd.tp), NS_SUCCESS);
        ns_thrpool_destroy(crowd.tp);
        assert_int_equal(atomic_load(&begun), 1);
        pthread_barrier_destroy(&crowd.barrier);
    }
    heap_check(&the_heap);
}

static void shut_down_inside(struct ns_job_t *job)
{
    ns_thrpool_shutdown(ns_job_get_tp(job));
    atomic_fetch_add(&runs, ns_thrpool_is_shutdown(ns_job_get_tp(job)));
    ns_job_done(job);
}

/* To see it fail: have Pool::shutdown wait for the pool before it returns. */
TEST(fm04_shutdown_comes_from_any_thread)
{
    struct timeval soon = {0, 1000};
    for (int from = 0; from < 8; from++) {
        ns_job_type_t thread = from & 1 ? NS_JOB_THREAD : 0;
        struct ns_thrpool_t *tp = checked_pool(2);
        ns_result_t result = NS_SUCCESS;
        int ends[2];
        socket_pair(ends);
        forget_counts();
        switch (from / 2) {
        case 0: result = ns_add_job(tp, thread, shut_down_inside, NULL, NULL); break;
        case 1:
            result = ns_add_timeout_job(tp, &soon, thread, shut_down_inside, NULL, NULL);
            break;
        case 2:
            result = ns_add_signal_job(tp, SIGUSR1, thread, shut_down_inside, NULL, NULL);
            kill(getpid(), SIGUSR1);
            break;
        default:
            result = ns_add_fd_job(tp, ends[0], NS_JOB_READ | NS_JOB_PRESERVE_FD | thread,
                                   shut_down_inside, NULL, NULL);
            assert_int_equal(write(ends[1], "x", 1), 1);
        }
        assert_int_equal(result, NS_SUCCESS);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        ns_thrpool_destroy(tp);
        assert_int_equal(atomic_load(&runs), 1);
        heap_check(&the_heap);
        close(ends[0]);
        close(ends[1]);
    }
    struct ns_thrpool_t *tp = checked_pool(2);
    ns_thrpool_shutdown(tp);
    checked_end(tp);
}

/* What an application would free once wait has returned. */
static atomic_int freed;
static atomic_int too_late;

static void use_what_is_freed(struct ns_job_t *job)
{
    UNUSED(job);
    atomic_fetch_add(&too_late, atomic_load(&freed));
    atomic_fetch_add(&runs, 1);
}

/* Keep the other ends of sockets busy until told to stop. */
struct talker {
    int ends[16][2];
    atomic_int stop;
};

static void *talk(void *arg)
{
    struct talker *talker = arg;
    for (unsigned i = 0; !atomic_load(&talker->stop); i++) {
        if (write(talker->ends[i % 16][1], "x", 1) < 0 && errno == EAGAIN) {
            sched_yield();
        }
        if (i % 64 == 0) {
            kill(getpid(), SIGUSR2);
        }
    }
    return NULL;
}

/* To see it fail: in EventLoop::run, go on with turn instead of quiet_turn. */
TEST(fm05_after_wait_no_callback_runs_though_sockets_receive)
{
    struct timeval often = {0, 50};
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGUSR2, &ignore, NULL);
    for (long round = 0; round < count_of(30, 3000); round++) {
        struct ns_thrpool_t *tp = checked_pool(2);
        struct talker talker;
        struct ns_job_t *jobs[18];
        atomic_store(&talker.stop, 0);
        forget_counts();
        atomic_store(&freed, 0);
        for (int i = 0; i < 16; i++) {
            socket_pair(talker.ends[i]);
            assert_int_equal(ns_add_fd_job(tp, talker.ends[i][0],
                                           NS_JOB_READ | NS_JOB_PERSIST |
                                               (i & 1 ? NS_JOB_THREAD : 0),
                                           use_what_is_freed, NULL, &jobs[i]), NS_SUCCESS);
        }
        assert_int_equal(ns_add_timeout_job(tp, &often, NS_JOB_PERSIST, use_what_is_freed, NULL,
                                            &jobs[16]), NS_SUCCESS);
        assert_int_equal(ns_add_signal_job(tp, SIGUSR2, NS_JOB_PERSIST, use_what_is_freed, NULL,
                                           &jobs[17]), NS_SUCCESS);
        pthread_t thread = start_thread(talk, &talker);
        SOON(atomic_load(&runs) > 100);
        ns_thrpool_shutdown(tp);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        atomic_store(&freed, 1);
        /* The other thread goes on until a socket is full: time in which a callback could run. */
        for (int i = 0; i < 16; i++) {
            while (write(talker.ends[i][1], "y", 1) == 1) {
            }
        }
        atomic_store(&talker.stop, 1);
        pthread_join(thread, NULL);
        for (int i = 0; i < 18; i++) {
            assert_int_equal(ns_job_done(jobs[i]), NS_SUCCESS);
        }
        ns_thrpool_destroy(tp);
        assert_int_equal(atomic_load(&too_late), 0);
        for (int i = 0; i < 16; i++) {
            close(talker.ends[i][1]);
        }
        heap_check(&the_heap);
    }
}

/* Add until the pool says that it is shutting down. */
struct adder {
    struct ns_thrpool_t *tp;
    pthread_barrier_t *barrier;
    long added;
    ns_result_t last;
};

static void *add_until_shutdown(void *arg)
{
    struct adder *adder = arg;
    struct timeval soon = {0, 0};
    pthread_barrier_wait(adder->barrier);
    do {
        struct ns_job_t *job = NULL;
        ns_job_type_t type = NS_JOB_UNARMED | (adder->added & 1 ? NS_JOB_THREAD : 0);
        adder->last = adder->added & 2
                          ? ns_add_timeout_job(adder->tp, &soon, type, run_and_finish, NULL, &job)
                          : ns_add_job(adder->tp, type, run_and_finish, NULL, &job);
        if (adder->last == NS_SUCCESS) {
            adder->added++;
            ns_job_set_done_cb(job, gone);
            if (ns_job_rearm(job) != NS_SUCCESS) {
                ns_job_done(job);
            }
        }
    } while (adder->last == NS_SUCCESS);
    return NULL;
}

/*
 * To see it fail: in worker_body, do not nudge the loop when the last worker leaves.
 */
TEST(fm06_shutdown_may_race_the_start_and_the_first_add)
{
    enum { ADDERS = 3 };
    for (long i = 0; i < count_of(300, 30000); i++) {
        /* Shut down at once, without any job. */
        struct ns_thrpool_t *tp = checked_pool(2);
        ns_thrpool_shutdown(tp);
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        ns_thrpool_destroy(tp);
        tp = checked_pool(2);
        ns_thrpool_destroy(tp);
        /* Shut down during the first adds. */
        tp = checked_pool(2);
        pthread_barrier_t barrier;
        pthread_t threads[ADDERS];
        struct adder adders[ADDERS];
        forget_counts();
        pthread_barrier_init(&barrier, NULL, ADDERS + 1);
        for (int a = 0; a < ADDERS; a++) {
            adders[a] = (struct adder){tp, &barrier, 0, NS_SUCCESS};
            threads[a] = start_thread(add_until_shutdown, &adders[a]);
        }
        pthread_barrier_wait(&barrier);
        ns_thrpool_shutdown(tp);
        long added = 0;
        for (int a = 0; a < ADDERS; a++) {
            pthread_join(threads[a], NULL);
            assert_int_equal(adders[a].last, NS_SHUTDOWN);
            added += adders[a].added;
        }
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        ns_thrpool_destroy(tp);
        assert_int_equal(atomic_load(&disposals), added);
        pthread_barrier_destroy(&barrier);
    }
    heap_check(&the_heap);
}

/* A callback that stays until the pool shuts down, and then rearms its job. */
struct late {
    struct gate gate;
    ns_result_t result;
};

static void rearm_late(struct ns_job_t *job)
{
    struct late *late = ns_job_get_data(job);
    stay_in_gate(&late->gate);
    late->result = ns_job_rearm(job);
}

/* To see it fail: in Shared::arm, do not ask whether the pool is shutting down. */
TEST(fm08_rearm_during_shutdown_is_refused_and_leaves_the_job_free)
{
    for (int threaded = 0; threaded < 2; threaded++) {
        struct ns_thrpool_t *tp = checked_pool(1);
        struct late late = {GATE_INIT, NS_SUCCESS};
        struct ns_job_t *job = NULL;
        struct ns_job_t *idle = NULL;
        forget_counts();
        assert_int_equal(ns_add_job(tp, threaded ? NS_JOB_THREAD : 0, rearm_late, &late, &job),
                         NS_SUCCESS);
        assert_int_equal(ns_create_job(tp, NS_JOB_NONE, only_run, &idle), NS_SUCCESS);
        assert_latch(&late.gate.begun, 1);
        assert_int_equal(ns_job_set_done_cb(job, gone), NS_SUCCESS);
        ns_thrpool_shutdown(tp);
        assert_int_equal(ns_job_rearm(idle), NS_SHUTDOWN);
        assert_int_equal(ns_job_done(idle), NS_SUCCESS);
        latch_add(&late.gate.leave, 1);
        assert_int_equal(ns_job_wait(job), NS_SUCCESS);
        assert_int_equal(late.result, NS_SHUTDOWN);
        assert_int_equal(ns_job_set_data(job, NULL), NS_SUCCESS);
        assert_int_equal(ns_job_done(job), NS_SUCCESS);
        checked_end(tp);
        assert_int_equal(atomic_load(&disposals), 1);
        assert_int_equal(atomic_load(&runs), 0);
    }
}

/*
 * Armed jobs in the poller and the wheel, and queued jobs behind busy threads, are all done while
 * the pool shuts down and the queues still refer to them.
 *
 * Ten thousand even under slow tools: fewer would all fit into the freed blocks that the heap
 * keeps.
 *
 * To see it fail: have State::end_disposal always return true.
 */
TEST(fm09_done_during_shutdown_frees_no_job_that_is_still_queued)
{
    long jobs = count_of(10000, 200000) > 10000 ? count_of(10000, 200000) : 10000;
    struct ns_job_t **all = calloc((size_t)jobs, sizeof *all);
    struct timeval far = {3600, 0};
    int ends[2];
    assert_non_null(all);
    socket_pair(ends);
    for (int busy = 0; busy < 2; busy++) {
        struct ns_thrpool_t *tp = checked_pool(2);
        struct gate gates[3] = {GATE_INIT, GATE_INIT, GATE_INIT};
        struct ns_job_t *blockers[3];
        forget_counts();
        for (int i = 0; busy && i < 3; i++) {
            blockers[i] = occupy(tp, i ? NS_JOB_THREAD : 0, &gates[i]);
        }
        for (long i = 0; i < jobs; i++) {
            ns_job_type_t type = NS_JOB_UNARMED | (i & 1 ? NS_JOB_THREAD : 0);
            ns_result_t result = NS_SUCCESS;
            switch (i / 2 % 4) {
            case 0: result = ns_add_timeout_job(tp, &far, type, only_run, NULL, &all[i]); break;
            case 1:
                result = ns_add_fd_job(tp, ends[0], type | NS_JOB_READ | NS_JOB_PRESERVE_FD,
                                       only_run, NULL, &all[i]);
                break;
            case 2:
                result = ns_add_signal_job(tp, SIGUSR1, type, only_run, NULL, &all[i]);
                break;
            default: result = ns_add_job(tp, type, only_run, NULL, &all[i]);
            }
            assert_int_equal(result, NS_SUCCESS);
            arm_with(all[i], gone);
        }
        ns_thrpool_shutdown(tp);
        for (long i = 0; i < jobs; i++) {
            assert_int_equal(ns_job_done(all[i]), NS_SUCCESS);
        }
        for (int i = 0; busy && i < 3; i++) {
            latch_add(&gates[i].leave, 1);
            assert_int_equal(ns_job_done(blockers[i]), NS_SUCCESS);
        }
        checked_end(tp);
        assert_int_equal(atomic_load(&disposals), jobs);
    }
    free(all);
    close(ends[0]);
    close(ends[1]);
}

/* To see it fail: take EventLoop::dispose_of_all out of EventLoop::run. */
TEST(fm10_destroy_disposes_of_all_that_is_armed)
{
    int fds = count_fds();
    struct timeval far = {3600, 0};
    struct sigaction before, after;
    sigaction(SIGUSR1, NULL, &before);
    for (int way = 0; way < 3; way++) {
        struct ns_thrpool_t *tp = checked_pool(2);
        int other[8];
        forget_counts();
        for (int i = 0; i < 8; i++) {
            ns_job_type_t type = NS_JOB_UNARMED | (i & 1 ? NS_JOB_THREAD : 0) |
                                 (i & 2 ? NS_JOB_PERSIST : 0);
            struct ns_job_t *job = NULL;
            int ends[2];
            socket_pair(ends);
            other[i] = ends[1];
            assert_int_equal(ns_add_fd_timeout_job(tp, ends[0], &far, type | NS_JOB_READ, only_run,
                                                   NULL, &job), NS_SUCCESS);
            arm_with(job, gone);
            assert_int_equal(ns_add_timeout_job(tp, &far, type, only_run, NULL, &job), NS_SUCCESS);
            arm_with(job, gone);
            assert_int_equal(ns_add_signal_job(tp, SIGUSR1, type, only_run, NULL, &job),
                             NS_SUCCESS);
            arm_with(job, gone);
        }
        if (way > 0) {
            loop_passes(tp, 1000); /* armed, and not only in the queue */
        }
        if (way > 1) {
            ns_thrpool_shutdown(tp);
            assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        }
        ns_thrpool_destroy(tp);
        assert_int_equal(atomic_load(&disposals), 24);
        assert_int_equal(atomic_load(&runs), 0);
        heap_check(&the_heap);
        for (int i = 0; i < 8; i++) {
            close(other[i]);
        }
        assert_int_equal(count_fds(), fds);
        sigaction(SIGUSR1, NULL, &after);
        assert_ptr_equal(after.sa_handler, before.sa_handler);
    }
}

/* What the first callbacks of a pool get from calls that depend on which thread calls. */
static struct {
    atomic_int wrong;
    atomic_int loop_tid;
} first;

static void first_in_loop(struct ns_job_t *job)
{
    struct timeval far = {3600, 0};
    struct ns_job_t *other = NULL;
    atomic_store(&first.loop_tid, (int)gettid());
    if (ns_add_timeout_job(ns_job_get_tp(job), &far, NS_JOB_NONE, only_run, NULL, &other) !=
            NS_SUCCESS ||
        ns_job_wait(other) != NS_INVALID_STATE || ns_job_cancel(other) != NS_SUCCESS ||
        ns_thrpool_wait(ns_job_get_tp(job)) != NS_THREAD_FAILURE) {
        atomic_fetch_add(&first.wrong, 1);
    }
    ns_job_done(job);
    atomic_fetch_add(&runs, 1);
}

static void first_in_worker(struct ns_job_t *job)
{
    struct ns_thrpool_t *tp = ns_job_get_tp(job);
    if (ns_add_job(tp, NS_JOB_NONE, first_in_loop, NULL, NULL) != NS_SUCCESS ||
        ns_thrpool_wait(tp) != NS_THREAD_FAILURE) {
        atomic_fetch_add(&first.wrong, 1);
    }
    atomic_fetch_add(&first.wrong, atomic_load(&first.loop_tid) == (int)gettid());
    ns_job_done(job);
    atomic_fetch_add(&runs, 1);
}

/* To see it fail: in EventLoop::run, do not enter the pool. */
TEST(fm44_the_pool_knows_its_threads_from_the_first_job_on)
{
    for (long i = 0; i < count_of(500, 50000); i++) {
        struct ns_thrpool_t *tp = checked_pool(2);
        forget_counts();
        atomic_store(&first.loop_tid, 0);
        assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, first_in_worker, NULL, NULL), NS_SUCCESS);
        SOON(atomic_load(&runs) == 2);
        pool_end(tp);
        assert_int_equal(atomic_load(&first.wrong), 0);
    }
    heap_check(&the_heap);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fm02_every_pool_ends_however_many_workers_it_has),
        cmocka_unit_test(fm03_shutdown_by_eight_at_once_happens_once),
        cmocka_unit_test(fm04_shutdown_comes_from_any_thread),
        cmocka_unit_test(fm05_after_wait_no_callback_runs_though_sockets_receive),
        cmocka_unit_test(fm06_shutdown_may_race_the_start_and_the_first_add),
        cmocka_unit_test(fm08_rearm_during_shutdown_is_refused_and_leaves_the_job_free),
        cmocka_unit_test(fm09_done_during_shutdown_frees_no_job_that_is_still_queued),
        cmocka_unit_test(fm10_destroy_disposes_of_all_that_is_armed),
        cmocka_unit_test(fm44_the_pool_knows_its_threads_from_the_first_job_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
