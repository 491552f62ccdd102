/* SPDX-License-Identifier: GPL-3.0-or-later */
/* I/O jobs: what fires them, how often, where, and beside whom. */
#include "harness.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <syslog.h>

static int listen_on_loopback(struct sockaddr_in *address)
{
    socklen_t length = sizeof(*address);
    memset(address, 0, sizeof(*address));
    address->sin_family = AF_INET;
    address->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    assert_true(fd >= 0);
    assert_int_equal(bind(fd, (struct sockaddr *)address, sizeof(*address)), 0);
    assert_int_equal(listen(fd, SOMAXCONN), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)address, &length), 0);
    return fd;
}

static void tcp_pair(int ends[2])
{
    struct sockaddr_in address;
    int listener = listen_on_loopback(&address);
    ends[0] = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(ends[0], (struct sockaddr *)&address, sizeof(address)), 0);
    struct pollfd poll_for = {listener, POLLIN, 0};
    assert_int_equal(poll(&poll_for, 1, LIMIT_SECONDS * 1000), 1);
    ends[1] = accept4(listener, NULL, NULL, SOCK_NONBLOCK);
    assert_true(ends[1] >= 0);
    close(listener);
}

/* Write until the socket takes no more. */
static void fill(int fd)
{
    char bytes[4096] = {0};
    while (write(fd, bytes, sizeof(bytes)) > 0) {
    }
    while (write(fd, bytes, 1) > 0) {
    }
    assert_int_equal(errno, EAGAIN);
}

static void drain(int fd)
{
    char bytes[4096];
    while (read(fd, bytes, sizeof(bytes)) > 0) {
    }
}

static void drain_own(struct ns_job_t *job)
{
    drain(ns_job_get_native_fd(job));
}

static void read_one_byte(struct ns_job_t *job)
{
    char byte;
    if (read(ns_job_get_native_fd(job), &byte, 1) != 1) {
        ns_job_done(job);
    }
}

static void send_byte(int fd)
{
    assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), 1);
}

/* Finish a job that is WAITING, and see it go. */
static void finish(struct ns_job_t *job, struct probe *probe)
{
    ns_result_t result = ns_job_wait(job);
    assert_true(result == NS_SUCCESS || result == NS_DELETING);
    if (result == NS_SUCCESS) {
        assert_int_equal(ns_job_done(job), NS_SUCCESS);
    }
    assert_latch(&probe->disposals, 1);
}

/* Cancel a job in whatever state, and see it go. */
static void cancel(struct ns_job_t *job, struct probe *probe)
{
    ns_result_t result = ns_job_cancel(job);
    assert_true(result == NS_SUCCESS || result == NS_RUNNING);
    assert_latch(&probe->disposals, 1);
}

/* One job of this type on this descriptor, which is ready: what is its output type? */
static unsigned long output_of(struct ns_thrpool_t *tp, int fd, ns_job_type_t type)
{
    struct probe probe = PROBE(finish_job, fd);
    probe_fd(tp, type | NS_JOB_PRESERVE_FD, 0, &probe);
    assert_latch(&probe.disposals, 1);
    assert_int_equal(latch_count(&probe.runs), 1);
    return atomic_load(&probe.output);
}

/* What fires */

TEST(each_direction_fires_for_itself_and_both_together)
{
    struct ns_thrpool_t *tp = pool_of(1);
    int ends[2];
    socket_pair(ends);
    static const ns_job_type_t where[] = {0, NS_JOB_THREAD};
    for (int i = 0; i < 2; i++) {
        ns_job_type_t both = NS_JOB_READ | NS_JOB_WRITE | where[i];
        assert_int_equal(output_of(tp, ends[0], NS_JOB_WRITE | where[i]), NS_JOB_WRITE);
        assert_int_equal(output_of(tp, ends[0], both), NS_JOB_WRITE);
        send_byte(ends[1]);
        assert_int_equal(output_of(tp, ends[0], NS_JOB_READ | where[i]), NS_JOB_READ);
        assert_int_equal(output_of(tp, ends[0], NS_JOB_WRITE | where[i]), NS_JOB_WRITE);
        assert_int_equal(output_of(tp, ends[0], both), NS_JOB_READ | NS_JOB_WRITE);
        fill(ends[0]);
        assert_int_equal(output_of(tp, ends[0], both), NS_JOB_READ);
        drain(ends[0]);
        drain(ends[1]);
    }
    pool_end(tp);
    close(ends[0]);
    close(ends[1]);
}

TEST(a_direction_that_is_not_ready_does_not_fire)
{
    struct ns_thrpool_t *tp = pool_of(1);
    int ends[2];
    socket_pair(ends);
    fill(ends[0]);
    struct probe reader = PROBE(NULL, ends[0]), writer = PROBE(NULL, ends[0]);
    struct ns_job_t *read_job = probe_fd(tp, NS_JOB_READ | NS_JOB_PRESERVE_FD, 0, &reader);
    struct ns_job_t *write_job = probe_fd(tp, NS_JOB_WRITE | NS_JOB_PRESERVE_FD, 0, &writer);
    loop_passes(tp, 20000);
    assert_int_equal(latch_count(&reader.runs), 0);
    assert_int_equal(latch_count(&writer.runs), 0);
    drain(ends[1]);
    assert_latch(&writer.runs, 1);
    loop_passes(tp, 0);
    assert_int_equal(latch_count(&reader.runs), 0);
    cancel(read_job, &reader);
    finish(write_job, &writer);
    pool_end(tp);
    close(ends[0]);
    close(ends[1]);
}

TEST(accept_fires_as_read)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct sockaddr_in address;
    int listener = listen_on_loopback(&address);
    struct probe probe = PROBE(NULL, listener);
    struct ns_job_t *job = probe_fd(tp, NS_JOB_ACCEPT, 0, &probe);
    loop_passes(tp, 5000);
    assert_int_equal(latch_count(&probe.runs), 0);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(client, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_latch(&probe.runs, 1);
    assert_int_equal(atomic_load(&probe.output), NS_JOB_READ);
    close(client);
    finish(job, &probe);
    pool_end(tp);
}

TEST(connect_fires_as_write_when_it_succeeds_and_when_it_fails)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct sockaddr_in address;
    int listener = listen_on_loopback(&address);
    for (int refused = 0; refused < 2; refused++) {
        if (refused) {
            close(listener);
        }
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        int begun = connect(fd, (struct sockaddr *)&address, sizeof(address));
        assert_true(begun == 0 || errno == EINPROGRESS);
        assert_int_equal(output_of(tp, fd, NS_JOB_CONNECT | NS_JOB_THREAD), NS_JOB_WRITE);
        int error = 0;
        socklen_t length = sizeof(error);
        assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length), 0);
        assert_int_equal(error, refused ? ECONNREFUSED : 0);
        close(fd);
    }
    pool_end(tp);
}

TEST(hang_up_counts_as_every_direction_asked_for)
{
    struct ns_thrpool_t *tp = pool_of(1);
    static const ns_job_type_t types[] = {
        NS_JOB_READ,
        NS_JOB_WRITE,
        NS_JOB_READ | NS_JOB_WRITE,
    };
    for (int i = 0; i < 6; i++) {
        int ends[2];
        socket_pair(ends);
        fill(ends[0]);
        struct probe probe = PROBE(finish_job, ends[0]);
        probe_fd(tp, types[i / 2] | (i % 2 ? NS_JOB_THREAD : 0), 0, &probe);
        close(ends[1]);
        assert_latch(&probe.disposals, 1);
        assert_int_equal(atomic_load(&probe.output), types[i / 2]);
    }
    pool_end(tp);
}

TEST(reset_by_a_client_that_vanishes_reaches_the_callback)
{
    struct ns_thrpool_t *tp = pool_of(1);
    for (int i = 0; i < 4; i++) {
        ns_job_type_t direction = i % 2 ? NS_JOB_WRITE : NS_JOB_READ;
        int ends[2];
        tcp_pair(ends);
        fill(ends[1]);
        struct probe probe = PROBE(NULL, ends[1]);
        struct ns_job_t *job = probe_fd(tp, direction | (i / 2 ? NS_JOB_THREAD : 0), 0, &probe);
        struct linger at_once = {1, 0};
        setsockopt(ends[0], SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
        close(ends[0]);
        assert_latch(&probe.runs, 1);
        assert_int_equal(atomic_load(&probe.output), direction);
        char byte;
        assert_int_equal(recv(ends[1], &byte, 1, 0), -1);
        assert_int_equal(errno, ECONNRESET);
        finish(job, &probe);
        assert_false(fd_is_open(ends[1]));
    }
    pool_end(tp);
}

TEST(half_closed_peer_is_readable_at_its_end)
{
    struct ns_thrpool_t *tp = pool_of(1);
    int ends[2];
    tcp_pair(ends);
    shutdown(ends[0], SHUT_WR);
    assert_int_equal(output_of(tp, ends[1], NS_JOB_READ), NS_JOB_READ);
    char byte;
    assert_int_equal(recv(ends[1], &byte, 1, 0), 0);
    pool_end(tp);
    close(ends[0]);
    close(ends[1]);
}

TEST(urgent_data_alone_does_not_fire_and_costs_nothing)
{
    struct ns_thrpool_t *tp = pool_of(1);
    static const ns_job_type_t where[] = {0, NS_JOB_THREAD};
    for (int i = 0; i < 2; i++) {
        int ends[2];
        tcp_pair(ends);
        struct probe probe = PROBE(drain_own, ends[1]);
        struct ns_job_t *job =
            probe_fd(tp, NS_JOB_READ | NS_JOB_PRESERVE_FD | where[i], 0, &probe);
        assert_int_equal(send(ends[0], "!", 1, MSG_OOB), 1);
        struct pollfd urgent = {ends[1], POLLPRI, 0};
        assert_int_equal(poll(&urgent, 1, LIMIT_SECONDS * 1000), 1);
        double before = cpu_seconds();
        loop_passes(tp, 200000);
        assert_int_equal(latch_count(&probe.runs), 0);
        assert_true(cpu_seconds() - before < 0.1);
        send_byte(ends[0]);
        assert_latch(&probe.runs, 1);
        assert_int_equal(atomic_load(&probe.output), NS_JOB_READ);
        assert_int_equal(ns_job_wait(job), NS_SUCCESS);
        /* And again, with the urgent data still there. */
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        loop_passes(tp, 20000);
        assert_int_equal(latch_count(&probe.runs), 1);
        send_byte(ends[0]);
        assert_latch(&probe.runs, 2);
        finish(job, &probe);
        close(ends[0]);
        close(ends[1]);
    }
    pool_end(tp);
}

TEST(data_that_was_there_before_arming_fires)
{
    struct ns_thrpool_t *tp = pool_of(1);
    int ends[2];
    socket_pair(ends);
    send_byte(ends[1]);
    struct probe probe = PROBE(NULL, ends[0]);
    struct ns_job_t *job = probe_fd(tp, NS_JOB_READ, 0, &probe);
    for (int run = 1; run <= 20; run++) {
        assert_latch(&probe.runs, run);
        assert_int_equal(ns_job_wait(job), NS_SUCCESS);
        /* Never drained: each rearm finds the byte. */
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
    }
    assert_latch(&probe.runs, 21);
    finish(job, &probe);
    pool_end(tp);
    close(ends[1]);
}

/* How often */

TEST(without_persist_it_fires_once_and_is_waiting)
{
    struct ns_thrpool_t *tp = pool_of(2);
    static const ns_job_type_t where[] = {0, NS_JOB_THREAD};
    for (int i = 0; i < 2; i++) {
        int ends[2];
        socket_pair(ends);
        struct probe probe = PROBE(NULL, ends[0]);
        struct ns_job_t *job = probe_fd(tp, NS_JOB_READ | where[i], 0, &probe);
        send_byte(ends[1]);
        assert_latch(&probe.runs, 1);
        assert_int_equal(ns_job_wait(job), NS_SUCCESS);
        send_byte(ends[1]);
        loop_passes(tp, 20000);
        assert_int_equal(latch_count(&probe.runs), 1);
        assert_int_equal(ns_job_get_output_type(job), 0);
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        assert_latch(&probe.runs, 2);
        finish(job, &probe);
        close(ends[1]);
    }
    pool_end(tp);
}

TEST(with_persist_it_fires_until_done)
{
    struct ns_thrpool_t *tp = pool_of(4);
    static const ns_job_type_t where[] = {0, NS_JOB_THREAD};
    for (int i = 0; i < 2; i++) {
        int ends[2];
        socket_pair(ends);
        struct probe probe = PROBE(read_one_byte, ends[0]);
        probe_fd(tp, NS_JOB_READ | NS_JOB_PERSIST | where[i], 0, &probe);
        for (int byte = 1; byte <= 50; byte++) {
            send_byte(ends[1]);
            assert_latch(&probe.runs, byte);
        }
        for (int byte = 0; byte < 50; byte++) {
            send_byte(ends[1]);
        }
        assert_latch(&probe.runs, 100);
        close(ends[1]);
        assert_latch(&probe.disposals, 1);
        assert_int_equal(latch_count(&probe.runs), 101);
    }
    pool_end(tp);
}

static struct latch may_leave = LATCH_INIT;
static atomic_int inside, most_inside;

static void stay_until_told(struct ns_job_t *job)
{
    UNUSED(job);
    int now = atomic_fetch_add(&inside, 1) + 1;
    if (now > atomic_load(&most_inside)) {
        atomic_store(&most_inside, now);
    }
    latch_reaches(&may_leave, 1);
    atomic_fetch_sub(&inside, 1);
}

TEST(fm26_threaded_persist_runs_one_at_a_time_in_workers_and_does_not_spin)
{
    struct ns_thrpool_t *tp = pool_of(4);
    struct probe loop = PROBE(finish_job, -1);
    struct ns_job_t *loop_job = NULL;
    assert_int_equal(ns_create_job(tp, NS_JOB_NONE, probe_run, &loop_job), NS_SUCCESS);
    assert_int_equal(ns_job_set_data(loop_job, &loop), NS_SUCCESS);
    probe_arm(loop_job);
    assert_latch(&loop.disposals, 1);

    int ends[2];
    socket_pair(ends);
    send_byte(ends[1]);
    struct probe probe = PROBE(stay_until_told, ends[0]);
    struct ns_job_t *job =
        probe_fd(tp, NS_JOB_READ | NS_JOB_THREAD | NS_JOB_PERSIST, 0, &probe);
    EVENTUALLY(atomic_load(&inside) == 1);
    double before = cpu_seconds();
    for (int i = 0; i < 10; i++) {
        send_byte(ends[1]);
        loop_passes(tp, 20000);
    }
    assert_true(cpu_seconds() - before < 0.1);
    assert_int_equal(latch_count(&probe.runs), 0);
    latch_add(&may_leave, 1);
    /* Never drained: it runs again and again from now on. */
    assert_latch(&probe.runs, 1000);
    assert_int_equal(atomic_load(&most_inside), 1);
    assert_int_not_equal(atomic_load(&probe.thread), atomic_load(&loop.thread));
    cancel(job, &probe);
    pool_end(tp);
    assert_int_equal(atomic_load(&inside), 0);
    close(ends[1]);
}

/* Time-outs */

TEST(io_or_time_fires_but_not_both)
{
    struct ns_thrpool_t *tp = pool_of(2);
    static const ns_job_type_t where[] = {0, NS_JOB_THREAD};
    for (int i = 0; i < 2; i++) {
        ns_job_type_t type = NS_JOB_READ | NS_JOB_WRITE | where[i];
        int ends[2];
        socket_pair(ends);
        fill(ends[0]);
        struct probe probe = PROBE(NULL, ends[0]);
        struct ns_job_t *job = probe_fd(tp, type, 20000, &probe);
        assert_int_equal(ns_job_get_type(job), type | NS_JOB_TIMER);
        assert_latch(&probe.runs, 1);
        assert_int_equal(atomic_load(&probe.output), NS_JOB_TIMER);
        finish(job, &probe);

        close(ends[1]);
        socket_pair(ends);
        send_byte(ends[1]);
        struct probe quick = PROBE(NULL, ends[0]);
        job = probe_fd(tp, NS_JOB_READ | where[i], 20000, &quick);
        assert_latch(&quick.runs, 1);
        assert_int_equal(atomic_load(&quick.output), NS_JOB_READ);
        loop_passes(tp, 40000);
        assert_int_equal(latch_count(&quick.runs), 1);
        finish(job, &quick);
        close(ends[1]);
    }
    pool_end(tp);
}

TEST(time_out_of_zero_means_none)
{
    struct ns_thrpool_t *tp = pool_of(1);
    int ends[2];
    socket_pair(ends);
    struct probe probe = PROBE(NULL, ends[0]);
    struct ns_job_t *job = probe_fd(tp, NS_JOB_READ, 0, &probe);
    loop_passes(tp, 50000);
    assert_int_equal(latch_count(&probe.runs), 0);
    send_byte(ends[1]);
    assert_latch(&probe.runs, 1);
    assert_int_equal(atomic_load(&probe.output), NS_JOB_READ);
    finish(job, &probe);
    pool_end(tp);
    close(ends[1]);
}

#define TIME_OUT 0.060

static double armed_at;
static atomic_int early;

/* Drain, and if it was the time-out that fired, see that it was full. */
static void check_time_out(struct ns_job_t *job)
{
    drain_own(job);
    double now = now_seconds();
    if (NS_JOB_IS_TIMER(ns_job_get_output_type(job)) && now - armed_at < TIME_OUT) {
        atomic_fetch_add(&early, 1);
    }
    armed_at = now;
}

TEST(each_firing_of_a_persist_job_starts_the_full_time_afresh)
{
    struct ns_thrpool_t *tp = pool_of(1);
    static const ns_job_type_t where[] = {0, NS_JOB_THREAD};
    for (int i = 0; i < 2; i++) {
        int ends[2];
        socket_pair(ends);
        struct probe probe = PROBE(check_time_out, ends[0]);
        armed_at = now_seconds();
        struct ns_job_t *job =
            probe_fd(tp, NS_JOB_READ | NS_JOB_PERSIST | where[i], TIME_OUT * 1e6, &probe);
        long runs = 0;
        for (int n = 0; n < 5; n++) {
            loop_passes(tp, 30000);
            send_byte(ends[1]);
            assert_latch(&probe.runs, ++runs);
            runs = latch_count(&probe.runs);
        }
        /* Then nothing more comes: time-outs follow each other. */
        assert_latch(&probe.runs, runs + 2);
        assert_int_equal(atomic_load(&probe.output), NS_JOB_TIMER);
        cancel(job, &probe);
        close(ends[1]);
    }
    assert_int_equal(atomic_load(&early), 0);
    pool_end(tp);
}

TEST(each_rearm_starts_the_full_time_afresh)
{
    struct ns_thrpool_t *tp = pool_of(1);
    int ends[2];
    socket_pair(ends);
    struct probe probe = PROBE(drain_own, ends[0]);
    struct ns_job_t *job = probe_fd(tp, NS_JOB_READ, TIME_OUT * 1e6, &probe);
    loop_passes(tp, 40000);
    send_byte(ends[1]);
    assert_latch(&probe.runs, 1);
    assert_int_equal(ns_job_wait(job), NS_SUCCESS);
    loop_passes(tp, 40000);
    double rearmed = now_seconds();
    assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
    assert_latch(&probe.runs, 2);
    assert_int_equal(atomic_load(&probe.output), NS_JOB_TIMER);
    assert_true(now_seconds() - rearmed >= TIME_OUT);
    finish(job, &probe);
    pool_end(tp);
    close(ends[1]);
}

TEST(fm29_data_at_about_the_deadline_gives_one_true_answer)
{
    struct ns_thrpool_t *tp = pool_of(2);
    unsigned seed = 29;
    int times = 0, reads = 0;
    for (int i = 0; i < scaled(600); i++) {
        int ends[2];
        socket_pair(ends);
        struct probe probe = PROBE(NULL, ends[0]);
        ns_job_type_t where = i % 2 ? NS_JOB_THREAD : 0;
        double begin = now_seconds();
        struct ns_job_t *job = probe_fd(tp, NS_JOB_READ | where, 1000, &probe);
        seed = seed * 1103515245 + 12345;
        double at = begin + (700 + (seed >> 8) % 600) / 1e6;
        while (now_seconds() < at) {
            sched_yield();
        }
        send_byte(ends[1]);
        double sent = now_seconds();
        assert_latch(&probe.runs, 1);
        double seen = now_seconds();
        unsigned long output = atomic_load(&probe.output);
        if (output == NS_JOB_TIMER) {
            times++;
            assert_true(seen - begin >= 0.001);
            /* The deadline was not before this: what was sent earlier came first. */
            assert_true(sent > begin + 0.001);
        } else {
            reads++;
            assert_int_equal(output, NS_JOB_READ);
        }
        finish(job, &probe);
        assert_int_equal(latch_count(&probe.runs), 1);
        close(ends[1]);
    }
    print_message("# %d times data, %d times the time-out\n", reads, times);
    pool_end(tp);
}

/* Several jobs on one descriptor */

TEST(fm34_reader_and_writer_of_one_descriptor_fire_each_by_itself)
{
    struct ns_thrpool_t *tp = pool_of(2);
    for (int i = 0; i < 4; i++) {
        ns_job_type_t reads_in = i % 2 ? NS_JOB_THREAD : 0, writes_in = i / 2 ? NS_JOB_THREAD : 0;
        int ends[2];
        socket_pair(ends);
        fill(ends[0]);
        struct probe reader = PROBE(drain_own, ends[0]), writer = PROBE(NULL, ends[0]);
        struct ns_job_t *read_job = probe_fd(tp, NS_JOB_READ | reads_in, 0, &reader);
        struct ns_job_t *write_job =
            probe_fd(tp, NS_JOB_WRITE | NS_JOB_PRESERVE_FD | writes_in, 0, &writer);
        send_byte(ends[1]);
        assert_latch(&reader.runs, 1);
        loop_passes(tp, 0);
        assert_int_equal(latch_count(&writer.runs), 0);
        drain(ends[1]);
        assert_latch(&writer.runs, 1);
        assert_int_equal(latch_count(&reader.runs), 1);
        assert_int_equal(atomic_load(&writer.output), NS_JOB_WRITE);
        assert_int_equal(atomic_load(&reader.output), NS_JOB_READ);
        finish(write_job, &writer);
        finish(read_job, &reader);
        close(ends[1]);
    }
    pool_end(tp);
}

TEST(fm34_either_of_reader_and_writer_can_be_cancelled)
{
    struct ns_thrpool_t *tp = pool_of(2);
    for (int i = 0; i < 4; i++) {
        ns_job_type_t where = NS_JOB_PRESERVE_FD | (i % 2 ? NS_JOB_THREAD : 0);
        int ends[2];
        socket_pair(ends);
        fill(ends[0]);
        struct probe reader = PROBE(NULL, ends[0]), writer = PROBE(NULL, ends[0]);
        struct ns_job_t *read_job = probe_fd(tp, NS_JOB_READ | where, 0, &reader);
        struct ns_job_t *write_job = probe_fd(tp, NS_JOB_WRITE | where, 0, &writer);
        struct probe *left = i / 2 ? &reader : &writer;
        struct probe *gone = i / 2 ? &writer : &reader;
        cancel(i / 2 ? write_job : read_job, gone);
        drain(ends[1]);
        send_byte(ends[1]);
        assert_latch(&left->runs, 1);
        finish(i / 2 ? read_job : write_job, left);
        assert_int_equal(latch_count(&gone->runs), 0);
        assert_true(fd_is_open(ends[0]));
        close(ends[0]);
        close(ends[1]);
    }
    pool_end(tp);
}

TEST(two_readers_both_fire)
{
    struct ns_thrpool_t *tp = pool_of(2);
    static const ns_job_type_t where[] = {0, NS_JOB_THREAD};
    for (int i = 0; i < 4; i++) {
        int ends[2];
        socket_pair(ends);
        struct probe one = PROBE(NULL, ends[0]), other = PROBE(NULL, ends[0]);
        ns_job_type_t type = NS_JOB_READ | NS_JOB_PRESERVE_FD;
        struct ns_job_t *first = probe_fd(tp, type | where[i % 2], 0, &one);
        struct ns_job_t *second = probe_fd(tp, type | where[i / 2], 0, &other);
        send_byte(ends[1]);
        assert_latch(&one.runs, 1);
        assert_latch(&other.runs, 1);
        finish(first, &one);
        finish(second, &other);
        close(ends[0]);
        close(ends[1]);
    }
    pool_end(tp);
}

static struct probe replacement;
static struct ns_job_t *replacement_job;
static ns_job_type_t replacement_type;

/* Add a new job for the same descriptor, and only then finish the old one. */
static void replace(struct ns_job_t *job)
{
    char byte;
    if (read(ns_job_get_native_fd(job), &byte, 1) == 1) {
        ns_add_fd_job(ns_job_get_tp(job), ns_job_get_native_fd(job), replacement_type, probe_run,
                      &replacement, &replacement_job);
    }
    ns_job_done(job);
}

TEST(job_added_inside_the_callback_of_the_old_one_takes_over)
{
    struct ns_thrpool_t *tp = pool_of(2);
    static const ns_job_type_t where[] = {0, NS_JOB_THREAD};
    for (int i = 0; i < scaled(400); i++) {
        int ends[2];
        socket_pair(ends);
        replacement = (struct probe)PROBE(NULL, ends[0]);
        replacement_type = NS_JOB_READ | NS_JOB_PRESERVE_FD | where[i % 2];
        struct probe old = PROBE(replace, ends[0]);
        probe_fd(tp, NS_JOB_READ | NS_JOB_PRESERVE_FD | where[i / 2 % 2], 0, &old);
        send_byte(ends[1]);
        assert_latch(&old.disposals, 1);
        assert_int_equal(latch_count(&replacement.runs), 0);
        send_byte(ends[1]);
        assert_latch(&replacement.runs, 1);
        assert_int_equal(latch_count(&old.runs), 1);
        assert_int_equal(ns_job_wait(replacement_job), NS_SUCCESS);
        assert_int_equal(ns_job_set_done_cb(replacement_job, probe_gone), NS_SUCCESS);
        finish(replacement_job, &replacement);
        assert_true(fd_is_open(ends[0]));
        close(ends[0]);
        close(ends[1]);
    }
    pool_end(tp);
}

static atomic_int warnings;

static void count_warnings(int priority, const char *format, va_list args)
{
    UNUSED(format);
    UNUSED(args);
    if (priority == LOG_WARNING) {
        atomic_fetch_add(&warnings, 1);
    }
}

TEST(shared_descriptor_is_closed_once_and_the_others_keep_their_time)
{
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.log_fct = count_warnings;
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    int ends[2];
    socket_pair(ends);
    struct probe first = PROBE(NULL, ends[0]), timed = PROBE(NULL, ends[0]);
    struct probe idle = PROBE(NULL, ends[0]);
    struct ns_job_t *first_job = probe_fd(tp, NS_JOB_READ, 0, &first);
    struct ns_job_t *timed_job = probe_fd(tp, NS_JOB_READ, 100000, &timed);
    struct ns_job_t *idle_job = probe_fd(tp, NS_JOB_READ | NS_JOB_WRITE, 0, &idle);
    assert_latch(&idle.runs, 1);
    assert_int_equal(ns_job_wait(idle_job), NS_SUCCESS);
    drain(ends[1]);
    assert_int_equal(atomic_load(&warnings), 0);
    cancel(first_job, &first);
    assert_false(fd_is_open(ends[0]));
    assert_int_equal(atomic_load(&warnings), 1);
    /* The number is given out again: the jobs left are not for this. */
    int again[2];
    socket_pair(again);
    assert_true(again[0] == ends[0] || again[1] == ends[0]);
    send_byte(again[0]);
    send_byte(again[1]);
    assert_latch(&timed.runs, 1);
    assert_int_equal(atomic_load(&timed.output), NS_JOB_TIMER);
    finish(timed_job, &timed);
    assert_int_equal(ns_job_rearm(idle_job), NS_SUCCESS);
    loop_passes(tp, 10000);
    assert_int_equal(latch_count(&idle.runs), 1);
    cancel(idle_job, &idle);
    assert_true(fd_is_open(again[0]));
    assert_true(fd_is_open(again[1]));
    ns_thrpool_destroy(tp);
    close(again[0]);
    close(again[1]);
    close(ends[1]);
}

static atomic_int open_in_done_callback;

static void note_whether_open(struct ns_job_t *job)
{
    atomic_store(&open_in_done_callback, fd_is_open(ns_job_get_native_fd(job)));
    probe_gone(job);
}

TEST(descriptor_is_closed_before_the_done_callback_unless_preserved)
{
    struct ns_thrpool_t *tp = pool_of(2);
    for (int i = 0; i < 8; i++) {
        int preserved = i % 2, threaded = i / 2 % 2, cancelled = i / 4;
        int ends[2];
        socket_pair(ends);
        struct probe probe = PROBE(cancelled ? NULL : finish_job, ends[0]);
        struct ns_job_t *job = NULL;
        ns_job_type_t type = NS_JOB_READ | NS_JOB_UNARMED;
        type |= (preserved ? NS_JOB_PRESERVE_FD : 0) | (threaded ? NS_JOB_THREAD : 0);
        assert_int_equal(ns_add_fd_job(tp, ends[0], type, probe_run, &probe, &job), NS_SUCCESS);
        assert_int_equal(ns_job_set_done_cb(job, note_whether_open), NS_SUCCESS);
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        if (cancelled) {
            assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
        } else {
            send_byte(ends[1]);
        }
        assert_latch(&probe.disposals, 1);
        assert_int_equal(atomic_load(&open_in_done_callback), preserved);
        assert_int_equal(fd_is_open(ends[0]), preserved);
        if (preserved) {
            close(ends[0]);
        }
        close(ends[1]);
    }
    pool_end(tp);
}

/* Descriptors that are no sockets, or not open */

TEST(fm37_files_directories_and_dev_null_are_always_ready)
{
    struct ns_thrpool_t *tp = pool_of(1);
    char path[] = "/tmp/test-io-XXXXXX";
    int file = mkstemp(path);
    unlink(path);
    int fds[] = {file, open("/", O_RDONLY | O_DIRECTORY), open("/dev/null", O_RDWR)};
    for (int i = 0; i < 3; i++) {
        assert_true(fds[i] >= 0);
        for (int threaded = 0; threaded < 2; threaded++) {
            ns_job_type_t where = threaded ? NS_JOB_THREAD : 0;
            ns_job_type_t both = NS_JOB_READ | NS_JOB_WRITE;
            assert_int_equal(output_of(tp, fds[i], NS_JOB_READ | where), NS_JOB_READ);
            assert_int_equal(output_of(tp, fds[i], both | where), both);
            struct probe probe = PROBE(NULL, fds[i]);
            struct ns_job_t *job =
                probe_fd(tp, NS_JOB_READ | NS_JOB_PERSIST | NS_JOB_PRESERVE_FD | where, 0, &probe);
            assert_latch(&probe.runs, 100);
            /* Others are served meanwhile. */
            loop_passes(tp, 1000);
            cancel(job, &probe);
        }
        close(fds[i]);
    }
    pool_end(tp);
}

static atomic_int read_errno;

static void read_own(struct ns_job_t *job)
{
    char byte;
    ssize_t n = read(ns_job_get_native_fd(job), &byte, 1);
    atomic_store(&read_errno, n < 0 ? errno : 0);
}

TEST(fm37_descriptor_closed_before_it_is_armed_fires_and_its_read_fails)
{
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.log_fct = count_warnings;
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    static const ns_job_type_t where[] = {0, NS_JOB_THREAD};
    for (int i = 0; i < 4; i++) {
        ns_job_type_t type = NS_JOB_READ | (i % 2 ? NS_JOB_WRITE : 0);
        int fd = dup(0);
        struct probe probe = PROBE(read_own, fd);
        struct ns_job_t *job = NULL;
        assert_int_equal(ns_add_fd_job(tp, fd,
                                       type | where[i / 2] | NS_JOB_UNARMED | NS_JOB_PRESERVE_FD,
                                       probe_run, &probe, &job), NS_SUCCESS);
        close(fd);
        atomic_store(&warnings, 0);
        atomic_store(&read_errno, 0);
        probe_arm(job);
        assert_latch(&probe.runs, 1);
        assert_int_equal(atomic_load(&probe.output), type);
        assert_int_equal(atomic_load(&read_errno), EBADF);
        assert_true(atomic_load(&warnings) >= 1);
        /* And so it does when it is armed again. */
        assert_int_equal(ns_job_wait(job), NS_SUCCESS);
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        assert_latch(&probe.runs, 2);
        assert_int_equal(atomic_load(&read_errno), EBADF);
        finish(job, &probe);
    }
    ns_thrpool_destroy(tp);
}

TEST(fm37_duplicate_that_outlives_its_number_costs_nothing)
{
    struct ns_thrpool_t *tp = pool_of(1);
    static const ns_job_type_t where[] = {0, NS_JOB_THREAD};
    /* The number is left closed, or stands for something else, which has a job or has none. */
    for (int i = 0; i < 6; i++) {
        int ends[2], other[2];
        socket_pair(ends);
        struct probe probe = PROBE(NULL, ends[0]);
        ns_job_type_t type = NS_JOB_READ | NS_JOB_PRESERVE_FD | where[i % 2];
        struct ns_job_t *job = probe_fd(tp, type, 0, &probe);
        loop_passes(tp, 0);
        int copy = dup(ends[0]);
        close(ends[0]);
        struct probe new_probe = PROBE(NULL, ends[0]);
        struct ns_job_t *new_job = NULL;
        if (i / 2 > 0) {
            socket_pair(other);
            assert_int_equal(other[0], ends[0]);
        }
        if (i / 2 == 2) {
            new_job = probe_fd(tp, type, 0, &new_probe);
            loop_passes(tp, 0);
        }
        cancel(job, &probe);
        send_byte(ends[1]);
        loop_passes(tp, 0);
        double before = cpu_seconds();
        loop_passes(tp, 100000);
        assert_true(cpu_seconds() - before < 0.05);
        assert_int_equal(latch_count(&probe.runs), 0);
        if (new_job != NULL) {
            assert_int_equal(latch_count(&new_probe.runs), 0);
            send_byte(other[1]);
            assert_latch(&new_probe.runs, 1);
            finish(new_job, &new_probe);
        }
        if (i / 2 > 0) {
            close(other[0]);
            close(other[1]);
        }
        close(copy);
        close(ends[1]);
    }
    pool_end(tp);
}

TEST(registrations_of_others_survive_a_stale_one)
{
    struct ns_thrpool_t *tp = pool_of(1);
    enum { OTHERS = 20 };
    struct probe others[OTHERS];
    struct ns_job_t *jobs[OTHERS];
    int ends[OTHERS][2];
    for (int i = 0; i < OTHERS; i++) {
        socket_pair(ends[i]);
        others[i] = (struct probe)PROBE(drain_own, ends[i][0]);
        jobs[i] = probe_fd(tp, NS_JOB_READ | (i % 2 ? NS_JOB_THREAD : 0), 0, &others[i]);
    }
    int stale[2];
    socket_pair(stale);
    struct probe probe = PROBE(NULL, stale[0]);
    struct ns_job_t *job = probe_fd(tp, NS_JOB_READ | NS_JOB_PRESERVE_FD, 0, &probe);
    loop_passes(tp, 0);
    int copy = dup(stale[0]);
    close(stale[0]);
    cancel(job, &probe);
    send_byte(stale[1]);
    loop_passes(tp, 10000);
    for (int i = 0; i < OTHERS; i++) {
        assert_int_equal(latch_count(&others[i].runs), 0);
        send_byte(ends[i][1]);
        assert_latch(&others[i].runs, 1);
        finish(jobs[i], &others[i]);
        close(ends[i][1]);
    }
    pool_end(tp);
    close(copy);
    close(stale[1]);
}

/* Fairness */

TEST(busy_descriptor_keeps_neither_timers_nor_others_waiting)
{
    struct ns_thrpool_t *tp = pool_of(2);
    static const ns_job_type_t where[] = {0, NS_JOB_THREAD};
    for (int i = 0; i < 2; i++) {
        int busy[2], calm[2];
        socket_pair(busy);
        socket_pair(calm);
        send_byte(busy[1]);
        struct probe never_drained = PROBE(NULL, busy[0]), other = PROBE(read_one_byte, calm[0]);
        struct ns_job_t *busy_job =
            probe_fd(tp, NS_JOB_READ | NS_JOB_PERSIST | where[i], 0, &never_drained);
        struct ns_job_t *calm_job = probe_fd(tp, NS_JOB_READ | NS_JOB_PERSIST, 0, &other);
        for (int n = 1; n <= 20; n++) {
            double begin = now_seconds();
            send_byte(calm[1]);
            assert_latch(&other.runs, n);
            loop_passes(tp, 5000);
            assert_true(now_seconds() - begin < 1);
        }
        assert_true(latch_count(&never_drained.runs) > 20);
        cancel(busy_job, &never_drained);
        cancel(calm_job, &other);
        close(busy[1]);
        close(calm[1]);
    }
    pool_end(tp);
}

static void rearm_own(struct ns_job_t *job)
{
    ns_job_rearm(job);
}

TEST(job_that_rearms_itself_at_once_does_not_keep_the_loop_from_polling)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct probe greedy[2] = {PROBE(rearm_own, -1), PROBE(rearm_own, -1)};
    struct ns_job_t *jobs[2];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ns_create_job(tp, i ? NS_JOB_TIMER : NS_JOB_NONE, probe_run, &jobs[i]),
                         NS_SUCCESS);
        assert_int_equal(ns_job_set_data(jobs[i], &greedy[i]), NS_SUCCESS);
        probe_arm(jobs[i]);
    }
    int ends[2];
    socket_pair(ends);
    struct probe other = PROBE(read_one_byte, ends[0]);
    struct ns_job_t *other_job = probe_fd(tp, NS_JOB_READ | NS_JOB_PERSIST, 0, &other);
    for (int n = 1; n <= 20; n++) {
        double begin = now_seconds();
        send_byte(ends[1]);
        assert_latch(&other.runs, n);
        loop_passes(tp, 2000);
        assert_true(now_seconds() - begin < 1);
    }
    for (int i = 0; i < 2; i++) {
        assert_true(latch_count(&greedy[i].runs) > 20);
        cancel(jobs[i], &greedy[i]);
    }
    cancel(other_job, &other);
    pool_end(tp);
    close(ends[1]);
}

static atomic_int accepted;

static void accept_one(struct ns_job_t *job)
{
    int fd = accept(ns_job_get_native_fd(job), NULL, NULL);
    if (fd >= 0) {
        atomic_fetch_add(&accepted, 1);
        close(fd);
    }
}

struct flood {
    struct sockaddr_in address;
    int count;
    atomic_int failed;
};

static void *connect_often(void *arg)
{
    struct flood *flood = arg;
    for (int i = 0; i < flood->count; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&flood->address, sizeof(flood->address)) != 0) {
            atomic_fetch_add(&flood->failed, 1);
        }
        struct linger at_once = {1, 0};
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
        close(fd);
    }
    return NULL;
}

TEST(fm38_accepts_and_reads_do_not_starve_each_other)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct flood flood = {.count = scaled(2000)};
    int listener = listen_on_loopback(&flood.address);
    struct probe accepts = PROBE(accept_one, listener);
    struct ns_job_t *accept_job = probe_fd(tp, NS_JOB_ACCEPT | NS_JOB_PERSIST, 0, &accepts);
    int busy[2], calm[2];
    socket_pair(busy);
    socket_pair(calm);
    send_byte(busy[1]);
    struct probe never_drained = PROBE(NULL, busy[0]), reads = PROBE(read_one_byte, calm[0]);
    struct ns_job_t *busy_job = probe_fd(tp, NS_JOB_READ | NS_JOB_PERSIST, 0, &never_drained);
    struct ns_job_t *read_job = probe_fd(tp, NS_JOB_READ | NS_JOB_PERSIST, 0, &reads);
    pthread_t clients;
    pthread_create(&clients, NULL, connect_often, &flood);
    double longest = 0;
    int n = 0;
    do {
        double begin = now_seconds();
        send_byte(calm[1]);
        assert_latch(&reads.runs, ++n);
        double took = now_seconds() - begin;
        longest = took > longest ? took : longest;
    } while (atomic_load(&accepted) < flood.count && longest < LIMIT_SECONDS);
    pthread_join(clients, NULL);
    assert_int_equal(atomic_load(&flood.failed), 0);
    assert_int_equal(atomic_load(&accepted), flood.count);
    print_message("# %d reads beside %d accepts, the slowest took %.1f ms\n", n, flood.count,
                  longest * 1e3);
    assert_true(longest < 1);
    cancel(accept_job, &accepts);
    cancel(busy_job, &never_drained);
    cancel(read_job, &reads);
    pool_end(tp);
    close(busy[1]);
    close(calm[1]);
}

/*
 * One job closes the descriptor of another that was never armed.
 *
 * To see it fail: in EventLoop::attach, leave a job whose descriptor is closed to its time-out.
 */
TEST(an_unarmed_job_whose_descriptor_the_pool_has_closed_fires)
{
    struct ns_thrpool_t *tp = pool_of(1);
    for (int threaded = 0; threaded < 2; threaded++) {
        int ends[2];
        socket_pair(ends);
        struct probe first = PROBE(NULL, ends[0]);
        struct probe second = PROBE(finish_job, ends[0]);
        struct ns_job_t *closes = probe_fd(tp, NS_JOB_READ, 0, &first);
        struct ns_job_t *job = NULL;
        assert_int_equal(ns_add_fd_job(tp, ends[0], NS_JOB_READ | NS_JOB_UNARMED |
                                       (threaded ? NS_JOB_THREAD : 0), probe_run, &second, &job),
                         NS_SUCCESS);
        assert_int_equal(ns_job_cancel(closes), NS_SUCCESS);
        assert_latch(&first.disposals, 1);
        assert_false(fd_is_open(ends[0]));
        probe_arm(job);
        assert_latch(&second.disposals, 1);
        assert_int_equal(latch_count(&second.runs), 1);
        assert_int_equal(atomic_load(&second.output), NS_JOB_READ);
        close(ends[1]);
    }
    pool_end(tp);
}

static atomic_long file_runs, file_time_outs;

static void note_output(struct ns_job_t *job)
{
    atomic_fetch_add(&file_runs, 1);
    atomic_fetch_add(&file_time_outs, NS_JOB_IS_TIMER(ns_job_get_output_type(job)) != 0);
}

/*
 * What poll(2) calls always ready is so within any time.
 *
 * To see it fail: in EventLoop::rearm, let what is always ready wait for its time-out.
 */
TEST(a_file_with_a_time_out_is_ready_again_and_again_and_the_loop_goes_on)
{
    struct ns_thrpool_t *tp = pool_of(2);
    for (int threaded = 0; threaded < 2; threaded++) {
        struct timeval soon = {0, 1};
        struct ns_job_t *jobs[2];
        int ends[2];
        socket_pair(ends);
        atomic_store(&file_runs, 0);
        atomic_store(&file_time_outs, 0);
        for (int i = 0; i < 2; i++) {
            int fd = open(i ? "/" : "/proc/self/exe", O_RDONLY);
            assert_int_equal(ns_add_fd_timeout_job(tp, fd, &soon, NS_JOB_READ | NS_JOB_PERSIST |
                                                   (threaded ? NS_JOB_THREAD : 0), note_output, NULL,
                                                   &jobs[i]), NS_SUCCESS);
        }
        for (int i = 0; i < 50; i++) {
            long runs = atomic_load(&file_runs);
            struct probe probe = PROBE(finish_job, ends[0]);
            probe_fd(tp, NS_JOB_READ | NS_JOB_PRESERVE_FD, 0, &probe);
            loop_passes(tp, 100);
            send_byte(ends[1]);
            assert_latch(&probe.disposals, 1);
            drain(ends[0]);
            EVENTUALLY(atomic_load(&file_runs) > runs);
        }
        for (int i = 0; i < 2; i++) {
            assert_true(ns_job_cancel(jobs[i]) <= NS_RUNNING);
        }
        assert_int_equal(atomic_load(&file_time_outs), 0);
        close(ends[0]);
        close(ends[1]);
    }
    pool_end(tp);
}

static void stay_and_read(struct ns_job_t *job)
{
    stay_in_gate(ns_job_get_data(job));
    drain(ns_job_get_native_fd(job));
}

/*
 * Its time is up, and while its callback runs there is data: that is for the next arming.
 *
 * To see it fail: have io::mode_of say Level always, and io::wanted count all jobs.
 */
TEST(fm26_a_threaded_job_whose_time_is_up_is_out_of_the_poller_while_it_runs)
{
    struct ns_thrpool_t *tp = pool_of(3);
    /* Until the pool has ended: a run may be on its way out of them. */
    struct gate gates[2] = {GATE_INIT, GATE_INIT};
    for (int persist = 0; persist < 2; persist++) {
        struct gate *gate = &gates[persist];
        struct ns_job_t *job = NULL;
        struct timeval soon = {0, 2000};
        int ends[2];
        socket_pair(ends);
        assert_int_equal(ns_add_fd_timeout_job(tp, ends[0], &soon, NS_JOB_READ | NS_JOB_THREAD |
                                               (persist ? NS_JOB_PERSIST : 0), stay_and_read, gate,
                                               &job), NS_SUCCESS);
        assert_latch(&gate->begun, 1);
        assert_int_equal(ns_job_get_output_type(job), NS_JOB_TIMER);
        double cpu = cpu_seconds(), begin = now_seconds();
        send_byte(ends[1]);
        for (int i = 0; i < 50; i++) {
            loop_passes(tp, 2000);
        }
        /* Nobody has anything to do. */
        assert_true((cpu_seconds() - cpu) / (now_seconds() - begin) < 0.5);
        assert_int_equal(latch_count(&gate->begun), 1);
        assert_int_equal(ns_job_get_output_type(job), NS_JOB_TIMER);
        latch_add(&gate->leave, 1);
        if (persist) {
            assert_latch(&gate->begun, 3);
        } else {
            assert_int_equal(ns_job_wait(job), NS_SUCCESS);
            assert_int_equal(latch_count(&gate->begun), 1);
        }
        assert_true(ns_job_cancel(job) <= NS_RUNNING);
        close(ends[1]);
    }
    pool_end(tp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_direction_fires_for_itself_and_both_together),
        cmocka_unit_test(a_direction_that_is_not_ready_does_not_fire),
        cmocka_unit_test(accept_fires_as_read),
        cmocka_unit_test(connect_fires_as_write_when_it_succeeds_and_when_it_fails),
        cmocka_unit_test(hang_up_counts_as_every_direction_asked_for),
        cmocka_unit_test(reset_by_a_client_that_vanishes_reaches_the_callback),
        cmocka_unit_test(half_closed_peer_is_readable_at_its_end),
        cmocka_unit_test(urgent_data_alone_does_not_fire_and_costs_nothing),
        cmocka_unit_test(data_that_was_there_before_arming_fires),
        cmocka_unit_test(without_persist_it_fires_once_and_is_waiting),
        cmocka_unit_test(with_persist_it_fires_until_done),
        cmocka_unit_test(fm26_threaded_persist_runs_one_at_a_time_in_workers_and_does_not_spin),
        cmocka_unit_test(io_or_time_fires_but_not_both),
        cmocka_unit_test(time_out_of_zero_means_none),
        cmocka_unit_test(each_firing_of_a_persist_job_starts_the_full_time_afresh),
        cmocka_unit_test(each_rearm_starts_the_full_time_afresh),
        cmocka_unit_test(fm29_data_at_about_the_deadline_gives_one_true_answer),
        cmocka_unit_test(fm34_reader_and_writer_of_one_descriptor_fire_each_by_itself),
        cmocka_unit_test(fm34_either_of_reader_and_writer_can_be_cancelled),
        cmocka_unit_test(two_readers_both_fire),
        cmocka_unit_test(job_added_inside_the_callback_of_the_old_one_takes_over),
        cmocka_unit_test(shared_descriptor_is_closed_once_and_the_others_keep_their_time),
        cmocka_unit_test(descriptor_is_closed_before_the_done_callback_unless_preserved),
        cmocka_unit_test(fm37_files_directories_and_dev_null_are_always_ready),
        cmocka_unit_test(fm37_descriptor_closed_before_it_is_armed_fires_and_its_read_fails),
        cmocka_unit_test(fm37_duplicate_that_outlives_its_number_costs_nothing),
        cmocka_unit_test(registrations_of_others_survive_a_stale_one),
        cmocka_unit_test(busy_descriptor_keeps_neither_timers_nor_others_waiting),
        cmocka_unit_test(job_that_rearms_itself_at_once_does_not_keep_the_loop_from_polling),
        cmocka_unit_test(fm38_accepts_and_reads_do_not_starve_each_other),
        cmocka_unit_test(an_unarmed_job_whose_descriptor_the_pool_has_closed_fires),
        cmocka_unit_test(a_file_with_a_time_out_is_ready_again_and_again_and_the_loop_goes_on),
        cmocka_unit_test(fm26_a_threaded_job_whose_time_is_up_is_out_of_the_poller_while_it_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
