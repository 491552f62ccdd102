/* SPDX-License-Identifier: GPL-3.0-or-later */
/* I/O jobs: what fires them, how often and where, and that none starves another. */
#include "sockets.h"

/* What fires */

TEST(each_direction_fires_for_itself_and_both_together)
{
    struct ns_thrpool_t *tp = pool_of(1);
    int ends[2];
    socket_pair(ends);
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
    probe_cancel(read_job, &reader);
    probe_finish(write_job, &writer);
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
    probe_finish(job, &probe);
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
        vanish(ends[0]);
        assert_latch(&probe.runs, 1);
        assert_int_equal(atomic_load(&probe.output), direction);
        char byte;
        assert_int_equal(recv(ends[1], &byte, 1, 0), -1);
        assert_int_equal(errno, ECONNRESET);
        probe_finish(job, &probe);
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
        probe_finish(job, &probe);
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
    probe_finish(job, &probe);
    pool_end(tp);
    close(ends[1]);
}

/* How often */

TEST(without_persist_it_fires_once_and_is_waiting)
{
    struct ns_thrpool_t *tp = pool_of(2);
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
        probe_finish(job, &probe);
        close(ends[1]);
    }
    pool_end(tp);
}

TEST(with_persist_it_fires_until_done)
{
    struct ns_thrpool_t *tp = pool_of(4);
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
    /* Never drained, so it runs again and again from now on. */
    assert_latch(&probe.runs, 1000);
    assert_int_equal(atomic_load(&most_inside), 1);
    assert_int_not_equal(atomic_load(&probe.thread), atomic_load(&loop.thread));
    probe_cancel(job, &probe);
    pool_end(tp);
    assert_int_equal(atomic_load(&inside), 0);
    close(ends[1]);
}

/* Fairness */

/* What is awaited beside the busy job: since when it has been ready, in microseconds of now_seconds; whether it
 * has come; and how often the busy job ran in between. */
static atomic_long ready_since;
static atomic_int has_come;
static atomic_long runs_between;

static void stay_busy(struct ns_job_t *job)
{
    UNUSED(job);
    if (!atomic_load(&has_come) && (long)(now_seconds() * 1e6) > atomic_load(&ready_since)) {
        atomic_fetch_add(&runs_between, 1);
    }
}

static void come(struct ns_job_t *job)
{
    atomic_store(&has_come, 1);
    if (NS_JOB_IS_READ(ns_job_get_output_type(job))) {
        read_one_byte(job);
    } else {
        ns_job_done(job);
    }
}

static void await(void)
{
    atomic_store(&ready_since, LONG_MAX);
    atomic_store(&runs_between, 0);
    atomic_store(&has_come, 0);
}

/* Not by the clock, since other programs may hold us up: by what the busy job does meanwhile. */
TEST(busy_descriptor_keeps_neither_timers_nor_others_waiting)
{
    enum { FEW = 100 };
    struct ns_thrpool_t *tp = pool_of(2);
    for (int i = 0; i < 2; i++) {
        int busy[2], calm[2];
        socket_pair(busy);
        socket_pair(calm);
        send_byte(busy[1]);
        struct probe never_drained = PROBE(stay_busy, busy[0]), other = PROBE(come, calm[0]);
        struct ns_job_t *busy_job =
            probe_fd(tp, NS_JOB_READ | NS_JOB_PERSIST | where[i], 0, &never_drained);
        struct ns_job_t *calm_job = probe_fd(tp, NS_JOB_READ | NS_JOB_PERSIST, 0, &other);
        for (int n = 1; n <= 20; n++) {
            await();
            send_byte(calm[1]);
            atomic_store(&ready_since, (long)(now_seconds() * 1e6));
            assert_latch(&other.runs, n);
            assert_true(atomic_load(&runs_between) < FEW);

            struct timeval soon = {0, 5000};
            struct probe timer = PROBE(come, -1);
            struct ns_job_t *job = NULL;
            await();
            assert_int_equal(ns_add_timeout_job(tp, &soon, NS_JOB_UNARMED, probe_run, &timer, &job), NS_SUCCESS);
            probe_arm(job);
            atomic_store(&ready_since, (long)((now_seconds() + 0.006) * 1e6)); /* with the wheel's rounding */
            assert_latch(&timer.disposals, 1);
            assert_true(atomic_load(&runs_between) < FEW);
        }
        assert_true(latch_count(&never_drained.runs) > 20);
        probe_cancel(busy_job, &never_drained);
        probe_cancel(calm_job, &other);
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
        probe_cancel(jobs[i], &greedy[i]);
    }
    probe_cancel(other_job, &other);
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
        vanish(fd);
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
    probe_cancel(accept_job, &accepts);
    probe_cancel(busy_job, &never_drained);
    probe_cancel(read_job, &reads);
    pool_end(tp);
    close(busy[1]);
    close(calm[1]);
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
        cmocka_unit_test(busy_descriptor_keeps_neither_timers_nor_others_waiting),
        cmocka_unit_test(job_that_rearms_itself_at_once_does_not_keep_the_loop_from_polling),
        cmocka_unit_test(fm38_accepts_and_reads_do_not_starve_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
