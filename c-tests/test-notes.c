/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What docs/NOTES.md says of descriptors, waits and urgent data, as it happens. Most of it is how
 * the kernel works.
 */
#include "signals.h"
#include "sockets.h"

#include <linux/errqueue.h>
#include <netinet/ip.h>

/* A job for fd that reports to probe and keeps fd open. */
static struct ns_job_t *watch(struct ns_thrpool_t *tp, ns_job_type_t type, struct probe *probe)
{
    return probe_fd(tp, type | NS_JOB_PRESERVE_FD, 0, probe);
}

/* A TCP socket that is bound to 127.0.0.1 but does not listen; its address. */
static int tcp_socket(struct sockaddr_in *at)
{
    socklen_t size = sizeof *at;
    *at = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)at, size), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)at, &size), 0);
    return fd;
}

/* Non-blocking descriptors */

static atomic_int found_data, found_nothing;

static void read_all(struct ns_job_t *job)
{
    char data[16];
    ssize_t n = read(ns_job_get_native_fd(job), data, sizeof data);
    if (n > 0) {
        atomic_fetch_add(&found_data, 1);
    } else if (n < 0 && errno == EAGAIN) {
        atomic_fetch_add(&found_nothing, 1);
    }
    ns_job_done(job);
}

TEST(what_was_readable_may_be_gone)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct gate gate = GATE_INIT;
    struct probe probes[2] = {PROBE(read_all, -1), PROBE(read_all, -1)};
    int ends[2];
    socket_pair(ends);
    /* Both fire for the same byte. */
    struct ns_job_t *gate_job = occupy(tp, NS_JOB_NONE, &gate);
    for (int n = 0; n < 2; n++) {
        probes[n].fd = ends[0];
        watch(tp, NS_JOB_READ, &probes[n]);
    }
    assert_int_equal(write(ends[1], "x", 1), 1);
    latch_add(&gate.leave, 1);
    for (int n = 0; n < 2; n++) {
        assert_latch(&probes[n].disposals, 1);
    }
    assert_int_equal(ns_job_done(gate_job), NS_SUCCESS);
    assert_int_equal(atomic_load(&found_data), 1);
    assert_int_equal(atomic_load(&found_nothing), 1);
    pool_end(tp);
    close(ends[0]);
    close(ends[1]);
}

/* Sockets that don't listen, or connect, yet */

static void accept_one(struct ns_job_t *job)
{
    struct probe *probe = ns_job_get_data(job);
    int fd = accept(ns_job_get_native_fd(job), NULL, NULL);
    probe->fd = fd >= 0 ? fd : -errno;
}

TEST(a_socket_that_does_not_listen_yet_fires_at_once)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct sockaddr_in at;
    int fd = tcp_socket(&at);
    struct probe probe = PROBE(accept_one, fd);
    struct ns_job_t *job = watch(tp, NS_JOB_ACCEPT, &probe);
    assert_latch(&probe.runs, 1);
    assert_int_equal(probe.fd, -EINVAL);
    assert_int_equal(ns_job_wait(job), NS_SUCCESS);
    /* As it should be. */
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
    loop_passes(tp, 20000);
    assert_int_equal(latch_count(&probe.runs), 1);
    int client = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(client, (struct sockaddr *)&at, sizeof at), 0);
    assert_latch(&probe.runs, 2);
    assert_true(probe.fd >= 0);
    probe_cancel(job, &probe);
    pool_end(tp);
    close(probe.fd);
    close(client);
    close(fd);
}

TEST(a_socket_that_does_not_connect_yet_fires_at_once)
{
    struct ns_thrpool_t *tp = pool_of(1);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), error = -1;
    struct probe probe = PROBE(NULL, fd);
    struct ns_job_t *job = watch(tp, NS_JOB_CONNECT, &probe);
    assert_latch(&probe.runs, 1);
    assert_int_equal(atomic_load(&probe.output), NS_JOB_WRITE);
    /* No error says that there is no connection. */
    socklen_t size = sizeof error;
    assert_int_equal(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size), 0);
    assert_int_equal(error, 0);
    probe_cancel(job, &probe);
    pool_end(tp);
    close(fd);
}

/* The error queue */

static atomic_int take_errors;

static void receive(struct ns_job_t *job)
{
    char data[64], control[512];
    struct iovec part = {data, sizeof data};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
    int fd = ns_job_get_native_fd(job);
    while (recv(fd, data, sizeof data, 0) >= 0 || errno != EAGAIN) {
    }
    if (atomic_load(&take_errors)) {
        while (recvmsg(fd, &message, MSG_ERRQUEUE) >= 0) {
        }
    }
}

TEST(what_is_left_in_the_error_queue_fires_a_persist_job_for_ever)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof at;
    /* Send to a port that nobody has, and ask for the error. */
    int nobody = socket(AF_INET, SOCK_DGRAM, 0), fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(nobody, (struct sockaddr *)&at, size), 0);
    assert_int_equal(getsockname(nobody, (struct sockaddr *)&at, &size), 0);
    close(nobody);
    assert_int_equal(setsockopt(fd, SOL_IP, IP_RECVERR, &(int){1}, sizeof(int)), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&at, size), 0);
    struct probe probe = PROBE(receive, fd);
    struct ns_job_t *job = watch(tp, NS_JOB_READ | NS_JOB_PERSIST, &probe);
    assert_int_equal(send(fd, "x", 1, 0), 1);
    /* It has nothing to read, and fires again and again. */
    assert_latch(&probe.runs, 100);
    atomic_store(&take_errors, 1);
    /* One run reads everything. It may be under way, but no other run follows. */
    long before = latch_count(&probe.runs);
    assert_latch(&probe.runs, before + 1);
    loop_passes(tp, 1000);
    before = latch_count(&probe.runs);
    loop_passes(tp, 20000);
    assert_int_equal(latch_count(&probe.runs), before);
    probe_cancel(job, &probe);
    pool_end(tp);
    close(fd);
}

/* A descriptor that is closed while its job is armed */

enum { NONE, DUP, IN_FLIGHT };

static void send_fd(int over, int fd)
{
    char space[CMSG_SPACE(sizeof fd)] = {0};
    struct iovec part = {"x", 1};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = space,
                             .msg_controllen = sizeof space};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    assert_int_equal(sendmsg(over, &message, 0), 1);
}

TEST(a_closed_number_fires_by_time_only_if_nobody_else_has_the_file)
{
    for (int kept = NONE; kept <= IN_FLIGHT; kept++) {
        struct ns_thrpool_t *tp = pool_of(1);
        int ends[2], carriers[2], copy = -1;
        socket_pair(ends);
        socket_pair(carriers);
        struct probe probe = PROBE(NULL, ends[0]);
        struct ns_job_t *job = probe_fd(tp, NS_JOB_READ | NS_JOB_PRESERVE_FD, 200000, &probe);
        loop_passes(tp, 0);
        if (kept == DUP) {
            copy = dup(ends[0]);
        } else if (kept == IN_FLIGHT) {
            send_fd(carriers[0], ends[0]);
        }
        close(ends[0]);
        send(ends[1], "x", 1, MSG_NOSIGNAL);
        assert_latch(&probe.runs, 1);
        assert_int_equal(atomic_load(&probe.output), kept == NONE ? NS_JOB_TIMER : NS_JOB_READ);
        probe_cancel(job, &probe);
        pool_end(tp);
        close(copy);
        close(ends[1]);
        close(carriers[0]);
        close(carriers[1]);
    }
}

/* A worker that waits for a job that needs a worker */

struct waiting {
    struct latch over;
    atomic_int timed, waited;
    atomic_int ran;
};

static void run_late(struct ns_job_t *job)
{
    struct waiting *waiting = ns_job_get_data(job);
    atomic_fetch_add(&waiting->ran, 1);
    ns_job_done(job);
}

static void wait_for_another(struct ns_job_t *job)
{
    struct waiting *waiting = ns_job_get_data(job);
    struct ns_job_t *other;
    struct timeval tv = {0, 20000};
    if (ns_add_job(ns_job_get_tp(job), NS_JOB_THREAD, run_late, waiting, &other) == NS_SUCCESS) {
        atomic_store(&waiting->timed, (int)ns_job_timedwait(other, &tv));
        latch_add(&waiting->over, 1);
        atomic_store(&waiting->waited, (int)ns_job_wait(other));
    }
    ns_job_done(job);
}

TEST(a_worker_that_waits_for_a_job_keeps_it_from_running)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct waiting waiting = {LATCH_INIT, -1, -1, 0};
    assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, wait_for_another, &waiting, NULL), NS_SUCCESS);
    assert_latch(&waiting.over, 1);
    assert_int_equal(atomic_load(&waiting.timed), NS_TIMEOUT);
    assert_int_equal(atomic_load(&waiting.ran), 0);
    /* The shutdown ends its wait, and the queued job runs. */
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    assert_int_equal(atomic_load(&waiting.waited), NS_SHUTDOWN);
    assert_int_equal(atomic_load(&waiting.ran), 1);
    ns_thrpool_destroy(tp);
}

/* Urgent data */

TEST(urgent_data_is_not_readable_unless_it_is_asked_for)
{
    struct ns_thrpool_t *tp = pool_of(1);
    for (int in_line = 0; in_line < 2; in_line++) {
        int ends[2];
        char byte = 0;
        tcp_pair(ends);
        setsockopt(ends[0], SOL_SOCKET, SO_OOBINLINE, &in_line, sizeof in_line);
        struct probe probe = PROBE(NULL, ends[0]), urgent = PROBE(NULL, -1);
        struct ns_job_t *job = watch(tp, NS_JOB_READ, &probe);
        struct ns_job_t *signal_job = probe_signal(tp, SIGURG, 0, &urgent);
        assert_int_equal(fcntl(ends[0], F_SETOWN, getpid()), 0);
        assert_int_equal(send(ends[1], "u", 1, MSG_OOB), 1);
        assert_latch(&urgent.runs, 1);
        if (in_line) {
            assert_latch(&probe.runs, 1);
            assert_int_equal(recv(ends[0], &byte, 1, 0), 1);
        } else {
            loop_passes(tp, 20000);
            assert_int_equal(latch_count(&probe.runs), 0);
            assert_int_equal(recv(ends[0], &byte, 1, MSG_OOB), 1);
        }
        assert_int_equal(byte, 'u');
        probe_cancel(job, &probe);
        probe_cancel(signal_job, &urgent);
        close(ends[0]);
        close(ends[1]);
    }
    pool_end(tp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_readable_may_be_gone),
        cmocka_unit_test(a_socket_that_does_not_listen_yet_fires_at_once),
        cmocka_unit_test(a_socket_that_does_not_connect_yet_fires_at_once),
        cmocka_unit_test(what_is_left_in_the_error_queue_fires_a_persist_job_for_ever),
        cmocka_unit_test(a_closed_number_fires_by_time_only_if_nobody_else_has_the_file),
        cmocka_unit_test(a_worker_that_waits_for_a_job_keeps_it_from_running),
        cmocka_unit_test(urgent_data_is_not_readable_unless_it_is_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
