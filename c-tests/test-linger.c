/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Closes that block: sockets with SO_LINGER and data that the peer has not read. Workers close
 * them, and the loop goes on meanwhile.
 *
 * Each socket lingers for longer than a test waits for anything, and its peer reads nothing until
 * the test tells it to, so a close lasts as long as the test wants. The descriptor number is free
 * as soon as the close has begun.
 */
#include "sockets.h"

#define FOR_EVER (4 * LIMIT_SECONDS)

/* A job for a lingering socket, and what its done callback saw. */
struct lingering {
    struct probe probe; /* the first member: probe_run takes the job's data for a probe */
    int peer;
    struct ns_job_t *job;
    atomic_int thread;  /* of the done callback */
    atomic_int was_open;
    pthread_t reader;
};

static void lingering_gone(struct ns_job_t *job)
{
    struct lingering *lingering = ns_job_get_data(job);
    atomic_store(&lingering->was_open, fd_is_open(lingering->probe.fd));
    atomic_store(&lingering->thread, (int)gettid());
    latch_add(&lingering->probe.disposals, 1);
}

/* Connected sockets. The first does not block, and has sent all that fits. */
static void full_pair(int ends[2], int seconds)
{
    struct sockaddr_in address;
    int listener = listen_on_loopback(&address), small = 4096;
    ends[1] = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(setsockopt(ends[1], SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)), 0);
    assert_int_equal(connect(ends[1], (struct sockaddr *)&address, sizeof(address)), 0);
    ends[0] = accept_soon(listener);
    close(listener);
    assert_int_equal(setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &small, sizeof(small)), 0);
    fill(ends[0]);
    struct linger linger = {1, seconds};
    assert_int_equal(setsockopt(ends[0], SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)), 0);
}

/* An unarmed job for a full socket that lingers for this many seconds. */
static void make(struct lingering *lingering, struct ns_thrpool_t *tp, ns_job_type_t type,
                 void (*act)(struct ns_job_t *), int seconds)
{
    int ends[2];
    full_pair(ends, seconds);
    *lingering = (struct lingering){.probe = PROBE(act, ends[0]), .peer = ends[1]};
    assert_int_equal(ns_add_fd_job(tp, ends[0], type | NS_JOB_UNARMED, probe_run, lingering,
                                   &lingering->job), NS_SUCCESS);
    if (type & NS_JOB_READ) {
        assert_int_equal(write(ends[1], "", 1), 1);
    }
    assert_int_equal(ns_job_set_done_cb(lingering->job, lingering_gone), NS_SUCCESS);
}

/* Read the byte: a close with unread data resets the connection and does not linger. */
static void read_byte(struct lingering *lingering)
{
    char byte;
    if (read(lingering->probe.fd, &byte, 1) != 1) {
        abort();
    }
}

static void read_and_finish(struct ns_job_t *job)
{
    read_byte(ns_job_get_data(job));
    ns_job_done(job);
}

static void arm(struct lingering *lingering)
{
    assert_int_equal(ns_job_rearm(lingering->job), NS_SUCCESS);
}

/* Have the peer read everything, to the end. */
static void *read_on(void *peer)
{
    char bytes[4096];
    while (read(*(int *)peer, bytes, sizeof(bytes)) > 0) {
    }
    return NULL;
}

/* Let the close finish, whichever thread began it. */
static void let_go(struct lingering *lingering)
{
    assert_int_equal(pthread_create(&lingering->reader, NULL, read_on, &lingering->peer), 0);
}

static void end_peer(struct lingering *lingering)
{
    pthread_join(lingering->reader, NULL);
    close(lingering->peer);
}

/* The close has begun. */
static void assert_closing(struct lingering *lingering)
{
    EVENTUALLY(!fd_is_open(lingering->probe.fd));
    assert_int_equal(latch_count(&lingering->probe.disposals), 0);
}

/* A timer of a millisecond that records how late it was at worst, and the loop's thread. */
static struct latch ticks;
static atomic_int loop_thread;
static double last_tick, longest_gap;

static void on_tick(struct ns_job_t *job)
{
    UNUSED(job);
    double now = now_seconds();
    if (last_tick > 0 && now - last_tick > longest_gap) {
        longest_gap = now - last_tick;
    }
    last_tick = now;
    atomic_store(&loop_thread, (int)gettid());
    latch_add(&ticks, 1);
}

static struct ns_job_t *start_ticking(struct ns_thrpool_t *tp)
{
    struct timeval tv = {0, 1000};
    struct ns_job_t *job = NULL;
    ticks = (struct latch)LATCH_INIT;
    last_tick = longest_gap = 0;
    assert_int_equal(ns_add_timeout_job(tp, &tv, NS_JOB_PERSIST, on_tick, NULL, &job), NS_SUCCESS);
    assert_latch(&ticks, 1);
    return job;
}

static void assert_still_ticking(void)
{
    assert_latch(&ticks, latch_count(&ticks) + 20);
}

/* The descriptor was closed, and then the done callback ran in the loop. */
static void assert_gone(struct lingering *lingering)
{
    assert_latch(&lingering->probe.disposals, 1);
    assert_int_equal(atomic_load(&lingering->was_open), 0);
    assert_int_equal(atomic_load(&lingering->thread), atomic_load(&loop_thread));
}

/* One pool's life: `finish` ends the job, the loop goes on, and the close ends. */
static void one_life(ns_job_type_t type, void (*act)(struct ns_job_t *), int cancelled)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct lingering one;
    struct ns_job_t *ticking = start_ticking(tp);
    make(&one, tp, type, act, FOR_EVER);
    arm(&one);
    if (cancelled) {
        assert_int_equal(ns_job_cancel(one.job), NS_SUCCESS);
    }
    assert_closing(&one);
    assert_still_ticking();
    assert_int_equal(latch_count(&one.probe.disposals), 0);
    let_go(&one);
    assert_gone(&one);
    end_peer(&one);
    ns_job_cancel(ticking);
    pool_end(tp);
    assert_int_equal(latch_count(&one.probe.disposals), 1);
}

TEST(one_that_is_cancelled_from_outside)
{
    /* Never writable, so it never fires. */
    one_life(NS_JOB_WRITE, NULL, 1);
}

TEST(one_that_is_done_in_its_callback_in_the_loop)
{
    one_life(NS_JOB_READ, read_and_finish, 0);
}

TEST(one_that_is_done_in_its_callback_in_a_worker)
{
    one_life(NS_JOB_READ | NS_JOB_THREAD, read_and_finish, 0);
}

TEST(a_timer_is_on_time_while_a_close_takes_its_seconds)
{
    struct ns_thrpool_t *tp = pool_of(2);
    struct lingering one;
    struct ns_job_t *ticking = start_ticking(tp);
    make(&one, tp, NS_JOB_WRITE, NULL, 2);
    arm(&one);
    double began = now_seconds();
    assert_int_equal(ns_job_cancel(one.job), NS_SUCCESS);
    assert_gone(&one);
    double took = now_seconds() - began;
    ns_job_cancel(ticking);
    pool_end(tp);
    close(one.peer);
    if (took < 1) {
        fail_msg("a close that lingers for 2 s took %.3f s", took);
    }
    /* Valgrind may keep any thread waiting for longer than that. */
    if (longest_gap > 0.5 && getenv("NS_SLOW") == NULL) {
        fail_msg("the loop was away for %.3f s", longest_gap);
    }
}

TEST(one_that_is_cancelled_in_the_work_queue)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct gate gate = GATE_INIT;
    struct lingering one;
    struct ns_job_t *ticking = start_ticking(tp);
    struct ns_job_t *busy = occupy(tp, NS_JOB_THREAD, &gate);
    make(&one, tp, NS_JOB_READ | NS_JOB_THREAD, NULL, FOR_EVER);
    arm(&one);
    /* It has fired by the time a later timer has. The only worker is busy. */
    loop_passes(tp, 1000);
    read_byte(&one);
    assert_int_equal(ns_job_cancel(one.job), NS_SUCCESS);
    loop_passes(tp, 1000);
    /* No thread has begun to close it. */
    assert_true(fd_is_open(one.probe.fd));
    assert_int_equal(latch_count(&one.probe.disposals), 0);
    latch_add(&gate.leave, 1);
    assert_closing(&one);
    assert_int_equal(latch_count(&one.probe.runs), 0);
    assert_still_ticking();
    let_go(&one);
    assert_gone(&one);
    end_peer(&one);
    assert_int_equal(ns_job_wait(busy), NS_SUCCESS);
    ns_job_done(busy);
    ns_job_cancel(ticking);
    pool_end(tp);
}

/* Two jobs that are ready in the same turn. The first to run cancels the other, and takes so long
 * that the turn ends. */
static struct lingering both[2];

static void cancel_the_other(struct ns_job_t *job)
{
    struct lingering *self = ns_job_get_data(job);
    struct lingering *other = &both[self == &both[0]];
    read_byte(self);
    read_byte(other);
    ns_job_cancel(other->job);
    for (double end = now_seconds() + 0.005; now_seconds() < end;) {
    }
    ns_job_done(job);
}

TEST(one_that_is_cancelled_when_it_is_about_to_run_in_the_loop)
{
    struct ns_thrpool_t *tp = pool_of(2);
    struct ns_job_t *ticking = start_ticking(tp);
    struct gate gate = GATE_INIT;
    struct ns_job_t *busy = occupy(tp, NS_JOB_NONE, &gate);
    for (int i = 0; i < 2; i++) {
        make(&both[i], tp, NS_JOB_READ, cancel_the_other, FOR_EVER);
        arm(&both[i]);
    }
    latch_add(&gate.leave, 1);
    for (int i = 0; i < 2; i++) {
        assert_closing(&both[i]);
    }
    assert_still_ticking();
    assert_int_equal(latch_count(&both[0].probe.runs) + latch_count(&both[1].probe.runs), 1);
    for (int i = 0; i < 2; i++) {
        let_go(&both[i]);
        assert_gone(&both[i]);
        end_peer(&both[i]);
    }
    assert_int_equal(ns_job_wait(busy), NS_SUCCESS);
    ns_job_done(busy);
    ns_job_cancel(ticking);
    pool_end(tp);
}

TEST(several_at_once_and_more_than_there_are_workers)
{
    enum { MANY = 12 };
    struct ns_thrpool_t *tp = pool_of(3);
    static struct lingering all[MANY];
    struct ns_job_t *ticking = start_ticking(tp);
    for (int i = 0; i < MANY; i++) {
        /* They end by their time-outs, in the loop, or are cancelled. */
        make(&all[i], tp, NS_JOB_WRITE | (i % 2 ? NS_JOB_THREAD : 0), NULL, FOR_EVER);
        arm(&all[i]);
    }
    for (int i = 0; i < MANY; i++) {
        assert_int_equal(ns_job_cancel(all[i].job), NS_SUCCESS);
    }
    assert_still_ticking();
    for (int i = 0; i < MANY; i++) {
        let_go(&all[i]);
    }
    for (int i = 0; i < MANY; i++) {
        assert_gone(&all[i]);
        end_peer(&all[i]);
    }
    ns_job_cancel(ticking);
    pool_end(tp);
}

static void *destroy_it(void *tp)
{
    pool_end(tp);
    return NULL;
}

TEST(a_pool_that_ends_meanwhile)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct lingering all[3];
    /* Tells which thread is the loop. It is not left to the pool's end, where it would be idle. */
    ns_job_cancel(start_ticking(tp));
    for (int i = 0; i < 3; i++) {
        make(&all[i], tp, NS_JOB_WRITE, NULL, FOR_EVER);
        arm(&all[i]);
    }
    /* One is being closed, one waits for the worker, and one is still armed. */
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ns_job_cancel(all[i].job), NS_SUCCESS);
    }
    /* They may be closed in either order, since a request from one's arming may still be queued. */
    EVENTUALLY(!fd_is_open(all[0].probe.fd) || !fd_is_open(all[1].probe.fd));
    pthread_t destroyer;
    assert_int_equal(pthread_create(&destroyer, NULL, destroy_it, tp), 0);
    let_go(&all[0]);
    let_go(&all[1]);
    /* Closed by the pool's end. Released only now: while armed, it would become writable and run.
     * */
    EVENTUALLY(!fd_is_open(all[2].probe.fd));
    let_go(&all[2]);
    pthread_join(destroyer, NULL);
    for (int i = 0; i < 3; i++) {
        assert_gone(&all[i]);
        end_peer(&all[i]);
    }
}

/* Pools that end at any moment of a close. */
TEST(pools_that_end_at_once)
{
    for (int round = 0; round < scaled(100); round++) {
        struct ns_thrpool_t *tp = pool_of(1 + (size_t)round % 2);
        struct lingering one;
        make(&one, tp, NS_JOB_WRITE | (round % 3 ? 0 : NS_JOB_THREAD), NULL, FOR_EVER);
        arm(&one);
        let_go(&one);
        if (round % 4 == 0) {
            loop_passes(tp, 1);
        }
        /* The peer already reads, so the socket may be writable and the job may run. */
        ns_result_t result = ns_job_cancel(one.job);
        assert_true(result == NS_SUCCESS || result == NS_RUNNING);
        for (int i = 0; i < round; i++) {
            __asm__ volatile("" ::: "memory");
        }
        pool_end(tp);
        assert_int_equal(latch_count(&one.probe.disposals), 1);
        assert_int_equal(atomic_load(&one.was_open), 0);
        end_peer(&one);
    }
}

static void *wait_for_it(void *job)
{
    return (void *)(intptr_t)ns_job_wait(job);
}

TEST(who_waits_for_the_job_does_not_wait_for_the_close)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct lingering one;
    pthread_t waiter;
    void *result = NULL;
    struct ns_job_t *ticking = start_ticking(tp);
    make(&one, tp, NS_JOB_WRITE, NULL, FOR_EVER);
    arm(&one);
    assert_int_equal(pthread_create(&waiter, NULL, wait_for_it, one.job), 0);
    loop_passes(tp, 20000);
    assert_int_equal(ns_job_cancel(one.job), NS_SUCCESS);
    pthread_join(waiter, &result);
    assert_int_equal((intptr_t)result, NS_DELETING);
    assert_closing(&one);
    let_go(&one);
    assert_gone(&one);
    end_peer(&one);
    ns_job_cancel(ticking);
    pool_end(tp);
}

TEST(closes_that_do_not_block_need_no_worker)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct gate gate = GATE_INIT;
    struct ns_job_t *ticking = start_ticking(tp);
    struct ns_job_t *busy = occupy(tp, NS_JOB_THREAD, &gate);
    /* A linger time of zero: the close resets the connection. */
    struct lingering reset;
    make(&reset, tp, NS_JOB_WRITE, NULL, 0);
    arm(&reset);
    assert_int_equal(ns_job_cancel(reset.job), NS_SUCCESS);
    assert_gone(&reset);
    close(reset.peer);
    /* Not a socket. */
    int ends[2];
    assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
    struct probe probe = PROBE(finish_job, ends[1]);
    probe_fd(tp, NS_JOB_WRITE, 0, &probe);
    assert_latch(&probe.disposals, 1);
    assert_false(fd_is_open(ends[1]));
    close(ends[0]);
    latch_add(&gate.leave, 1);
    assert_int_equal(ns_job_wait(busy), NS_SUCCESS);
    ns_job_done(busy);
    ns_job_cancel(ticking);
    pool_end(tp);
}

TEST(one_that_is_to_be_preserved_stays_open)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct lingering one;
    make(&one, tp, NS_JOB_READ | NS_JOB_PRESERVE_FD, read_and_finish, FOR_EVER);
    arm(&one);
    assert_latch(&one.probe.disposals, 1);
    pool_end(tp);
    assert_true(fd_is_open(one.probe.fd));
    let_go(&one);
    close(one.probe.fd);
    end_peer(&one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_that_is_cancelled_from_outside),
        cmocka_unit_test(one_that_is_done_in_its_callback_in_the_loop),
        cmocka_unit_test(one_that_is_done_in_its_callback_in_a_worker),
        cmocka_unit_test(a_timer_is_on_time_while_a_close_takes_its_seconds),
        cmocka_unit_test(one_that_is_cancelled_in_the_work_queue),
        cmocka_unit_test(one_that_is_cancelled_when_it_is_about_to_run_in_the_loop),
        cmocka_unit_test(several_at_once_and_more_than_there_are_workers),
        cmocka_unit_test(a_pool_that_ends_meanwhile),
        cmocka_unit_test(pools_that_end_at_once),
        cmocka_unit_test(who_waits_for_the_job_does_not_wait_for_the_close),
        cmocka_unit_test(closes_that_do_not_block_need_no_worker),
        cmocka_unit_test(one_that_is_to_be_preserved_stays_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
