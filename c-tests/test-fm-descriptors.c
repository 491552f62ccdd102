/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What broke the original, shown absent: descriptors, their numbers, and the poller.
 *
 * Each test is named for its row in docs/RELIABILITY.md, and says what to take out of the library
 * to see it fail.
 */
#include "fm.h"
#include "servers.h"
#include "sockets.h"

static void read_byte(struct ns_job_t *job)
{
    struct probe *probe = ns_job_get_data(job);
    char byte;
    if (read(probe->fd, &byte, 1) < 0) {
        return; /* nothing to read: the output type says so */
    }
}

static void read_and_finish(struct ns_job_t *job)
{
    read_byte(job);
    ns_job_done(job);
}

/* The share of a processor that the process uses while usec microseconds pass in the pool's loop.
 * */
static double cpu_share(struct ns_thrpool_t *tp, long usec)
{
    double cpu = cpu_seconds();
    double begin = now_seconds();
    loop_passes(tp, usec);
    return (cpu_seconds() - cpu) / (now_seconds() - begin);
}

static int connect_to(const struct sockaddr_in *at)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    assert_int_equal(connect(fd, (const struct sockaddr *)at, sizeof *at), 0);
    return fd;
}

/* To see it fail: have State::end refuse ARMED jobs always. */
TEST(fm25_the_job_of_an_idle_connection_is_replaced_at_once)
{
    struct ns_thrpool_t *tp = checked_pool(2);
    int ends[2];
    socket_pair(ends);
    struct probe old = PROBE(read_byte, ends[0]);
    struct probe new = PROBE(read_and_finish, ends[0]);
    for (long i = 0; i < count_of(2000, 100000); i++) {
        ns_job_type_t thread = i & 1 ? NS_JOB_THREAD : 0;
        struct ns_job_t *job = probe_fd(tp, NS_JOB_READ | NS_JOB_PRESERVE_FD | thread, 0, &old);
        if (i % 3 == 0) {
            loop_passes(tp, 0);
        }
        assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
        probe_fd(tp, NS_JOB_READ | NS_JOB_PRESERVE_FD | thread, 0, &new);
        assert_int_equal(write(ends[1], "x", 1), 1);
        SOON(latch_count(&new.disposals) == i + 1);
        assert_int_equal(latch_count(&old.runs), 0);
    }
    checked_end(tp);
    assert_int_equal(latch_count(&new.runs), latch_count(&old.disposals));
    close(ends[0]);
    close(ends[1]);
}

/* A job that never reads its data. */
static struct {
    atomic_int now;
    atomic_int most;
    atomic_int on_loop;
    atomic_int loop_tid;
    atomic_int slow; /* stay in the gate */
    struct gate gate;
} lazy;

static void do_not_read(struct ns_job_t *job)
{
    UNUSED(job);
    int now = atomic_fetch_add(&lazy.now, 1) + 1;
    if (now > atomic_load(&lazy.most)) {
        atomic_store(&lazy.most, now);
    }
    atomic_fetch_add(&lazy.on_loop, atomic_load(&lazy.loop_tid) == (int)gettid());
    if (atomic_load(&lazy.slow)) {
        stay_in_gate(&lazy.gate);
    } else {
        latch_add(&lazy.gate.begun, 1);
    }
    atomic_fetch_sub(&lazy.now, 1);
}

static void tell_thread(struct ns_job_t *job)
{
    atomic_store(&lazy.loop_tid, (int)gettid());
    ns_job_done(job);
}

/* To see it fail: have io::mode_of say Level always, and io::wanted count all jobs. */
TEST(fm26_a_threaded_persist_job_runs_once_at_a_time_and_does_not_spin)
{
    struct ns_thrpool_t *tp = checked_pool(3);
    struct ns_job_t *job = NULL;
    int ends[2];
    socket_pair(ends);
    assert_int_equal(write(ends[1], "x", 1), 1);
    lazy.gate = (struct gate)GATE_INIT;
    assert_int_equal(ns_add_job(tp, NS_JOB_NONE, tell_thread, NULL, NULL), NS_SUCCESS);
    EVENTUALLY(atomic_load(&lazy.loop_tid) != 0);
    assert_int_equal(ns_add_fd_job(tp, ends[0], NS_JOB_READ | NS_JOB_PERSIST | NS_JOB_THREAD,
                                   do_not_read, NULL, &job), NS_SUCCESS);
    assert_latch(&lazy.gate.begun, 1000);
    atomic_store(&lazy.slow, 1);
    long begun;
    do {
        begun = latch_count(&lazy.gate.begun);
        loop_passes(tp, 20000);
    } while (latch_count(&lazy.gate.begun) != begun);
    /* The callback blocks and its descriptor is readable: no thread has anything to do. */
    double share = cpu_share(tp, 300000);
    assert_int_equal(latch_count(&lazy.gate.begun), begun);
    assert_true(share < 0.3);
    atomic_store(&lazy.slow, 0);
    latch_add(&lazy.gate.leave, 1);
    assert_latch(&lazy.gate.begun, begun + 1000);
    assert_true(ns_job_cancel(job) <= NS_RUNNING);
    checked_end(tp);
    assert_int_equal(atomic_load(&lazy.most), 1);
    assert_int_equal(atomic_load(&lazy.on_loop), 0);
    close(ends[1]);
}

/* Data that is written just when the job is rearmed, in its callback or from outside. */
struct rally {
    int fd;
    int rearm_first;
    atomic_long strokes;
};

static void stroke(struct ns_job_t *job)
{
    struct rally *rally = ns_job_get_data(job);
    char byte;
    if (rally->rearm_first) {
        ns_job_rearm(job);
    }
    while (read(rally->fd, &byte, 1) == 1) {
        atomic_fetch_add(&rally->strokes, 1);
    }
    if (!rally->rearm_first && !NS_JOB_IS_PERSIST(ns_job_get_type(job))) {
        ns_job_rearm(job);
    }
}

static void stroke_only(struct ns_job_t *job)
{
    struct rally *rally = ns_job_get_data(job);
    char byte;
    if (read(rally->fd, &byte, 1) == 1) {
        atomic_fetch_add(&rally->strokes, 1);
    }
}

/* To see it fail: in EventLoop::rearm, do not tell the poller. */
TEST(fm27_no_event_is_lost_around_rearm)
{
    const struct {
        ns_job_type_t type;
        int rearm_first; /* in its callback, before it reads */
        int outside;     /* armed again by this thread */
    } kinds[] = {
        {NS_JOB_NONE, 0, 0},    {NS_JOB_NONE, 1, 0},
        {NS_JOB_THREAD, 0, 0},  {NS_JOB_THREAD, 1, 0},
        {NS_JOB_PERSIST, 0, 0}, {NS_JOB_PERSIST | NS_JOB_THREAD, 0, 0},
        {NS_JOB_NONE, 0, 1},    {NS_JOB_THREAD, 0, 1},
    };
    /* One for each job, until the pool ends: a callback may still run when its job is cancelled. */
    struct rally rallies[sizeof kinds / sizeof *kinds];
    struct ns_thrpool_t *tp = checked_pool(2);
    uint64_t sequence = run_seed();
    for (size_t kind = 0; kind < sizeof kinds / sizeof *kinds; kind++) {
        int ends[2];
        socket_pair(ends);
        struct rally *rally = &rallies[kind];
        rally->fd = ends[0];
        rally->rearm_first = kinds[kind].rearm_first;
        atomic_init(&rally->strokes, 0);
        struct ns_job_t *job = NULL;
        assert_int_equal(ns_add_fd_job(tp, ends[0], NS_JOB_READ | kinds[kind].type,
                                       kinds[kind].outside ? stroke_only : stroke, rally, &job),
                         NS_SUCCESS);
        for (long i = 1; i <= count_of(5000, 200000); i++) {
            assert_int_equal(write(ends[1], "x", 1), 1);
            SOON(atomic_load(&rally->strokes) == i);
            if (kinds[kind].outside) {
                /* Still RUNNING or already WAITING: either accepts the rearm. */
                assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
            }
            hesitate(&sequence, 200);
        }
        assert_true(ns_job_cancel(job) <= NS_RUNNING);
        close(ends[1]);
    }
    checked_end(tp);
}

/*
 * The application closes the descriptor of a PRESERVE_FD job, and the number is reused for another
 * connection with a job of its own.
 *
 * To see it fail: in EventLoop::attach, keep the jobs that the number had instead of abandoning
 * them; in EventLoop::detach_io, take the number out of the poller whoever has it.
 */
TEST(fm33_a_number_that_is_reused_belongs_to_its_new_job)
{
    for (int kind = 0; kind < 16; kind++) {
        struct ns_thrpool_t *tp = checked_pool(2);
        int waiting = kind & 1;
        int first_to_go = kind & 8; /* the old job goes before the new one fires, or after */
        ns_job_type_t type = NS_JOB_READ | NS_JOB_PRESERVE_FD | (kind & 2 ? NS_JOB_THREAD : 0);
        int first[2], second[2];
        socket_pair(first);
        struct probe old = PROBE(read_byte, first[0]);
        struct probe new = PROBE(read_byte, first[0]);
        struct ns_job_t *old_job = probe_fd(tp, type, 0, &old);
        if (waiting) {
            assert_int_equal(write(first[1], "x", 1), 1);
            assert_int_equal(ns_job_wait(old_job), NS_SUCCESS);
        } else {
            loop_passes(tp, 0);
            assert_int_equal(ns_job_done(old_job), NS_INVALID_STATE);
        }
        long before = latch_count(&old.runs);
        socket_pair(second);
        int number = first[0];
        close(number);
        move_to_closed(second[0], number);
        struct ns_job_t *new_job = probe_fd(tp, type & ~(kind & 4 ? NS_JOB_PRESERVE_FD : 0u), 0,
                                            &new);
        loop_passes(tp, 0);
        /* Cancelling the old job does not affect the new one. */
        if (first_to_go) {
            assert_int_equal(waiting ? ns_job_done(old_job) : ns_job_cancel(old_job), NS_SUCCESS);
            assert_latch(&old.disposals, 1);
            assert_true(fd_is_open(number));
        }
        assert_int_equal(write(second[1], "y", 1), 1);
        assert_latch(&new.runs, 1);
        assert_int_equal(ns_job_wait(new_job), NS_SUCCESS);
        loop_passes(tp, 0);
        assert_int_equal(latch_count(&old.runs), before);
        if (!first_to_go) {
            assert_int_equal(waiting ? ns_job_done(old_job) : ns_job_cancel(old_job), NS_SUCCESS);
            assert_latch(&old.disposals, 1);
            assert_true(fd_is_open(number));
        }
        assert_int_equal(ns_job_done(new_job), NS_SUCCESS);
        assert_latch(&new.disposals, 1);
        checked_end(tp);
        assert_int_equal(fd_is_open(number), !(kind & 4));
        if (!(kind & 4)) {
            close(number);
        }
        close(first[1]);
        close(second[1]);
    }
}

/* To see it fail: in EventLoop::on_ready, fire every job of the descriptor. */
TEST(fm34_a_reader_and_a_writer_share_a_descriptor)
{
    struct ns_thrpool_t *tp = checked_pool(2);
    for (int kind = 0; kind < 8; kind++) {
        int ends[2];
        socket_pair(ends);
        char filling[4096] = "";
        while (write(ends[0], filling, sizeof filling) > 0) {
        }
        struct probe reader = PROBE(read_byte, ends[0]);
        struct probe writer = PROBE(NULL, ends[0]);
        struct ns_job_t *read_job = probe_fd(tp, NS_JOB_READ | NS_JOB_PRESERVE_FD |
                                             (kind & 1 ? NS_JOB_THREAD : 0), 0, &reader);
        struct ns_job_t *write_job = probe_fd(tp, NS_JOB_WRITE | NS_JOB_PRESERVE_FD |
                                              (kind & 2 ? NS_JOB_THREAD : 0), 0, &writer);
        loop_passes(tp, 0);
        /* One is cancelled; the other goes on. */
        if (kind & 4) {
            assert_int_equal(ns_job_cancel(write_job), NS_SUCCESS);
            assert_int_equal(write(ends[1], "x", 1), 1);
            assert_latch(&reader.runs, 1);
            assert_int_equal(atomic_load(&reader.output), NS_JOB_READ);
        } else {
            assert_int_equal(write(ends[1], "x", 1), 1);
            assert_latch(&reader.runs, 1);
            assert_int_equal(ns_job_wait(read_job), NS_SUCCESS);
            assert_int_equal(latch_count(&writer.runs), 0);
            assert_int_equal(ns_job_rearm(read_job), NS_SUCCESS);
            loop_passes(tp, 0);
            assert_int_equal(ns_job_cancel(read_job), NS_SUCCESS);
            while (read(ends[1], filling, sizeof filling) > 0) {
            }
            assert_latch(&writer.runs, 1);
            assert_int_equal(atomic_load(&writer.output), NS_JOB_WRITE);
            assert_int_equal(ns_job_wait(write_job), NS_SUCCESS);
            assert_int_equal(latch_count(&reader.runs), 1);
        }
        struct ns_job_t *left = kind & 4 ? read_job : write_job;
        finish_idle(left);
        assert_latch(&reader.disposals, 1);
        assert_latch(&writer.disposals, 1);
        close(ends[0]);
        close(ends[1]);
    }
    checked_end(tp);
}

/* A listener that rests when no descriptor is free for a connection. */
static struct {
    int fd;
    struct ns_job_t *job;
    atomic_int failures;
    struct latch accepted;
    int fds[64];
} door;

static void open_again(struct ns_job_t *job)
{
    ns_job_rearm(door.job);
    ns_job_done(job);
}

static void let_in(struct ns_job_t *job)
{
    struct timeval pause = {0, 20000};
    int fd = accept(door.fd, NULL, NULL);
    if (fd < 0 && (errno == EMFILE || errno == ENFILE)) {
        atomic_fetch_add(&door.failures, 1);
        ns_add_timeout_job(ns_job_get_tp(job), &pause, NS_JOB_NONE, open_again, NULL, NULL);
        return;
    }
    if (fd >= 0) {
        door.fds[latch_count(&door.accepted)] = fd;
        latch_add(&door.accepted, 1);
    }
    ns_job_rearm(job);
}

/* To see it fail: in EventLoop::rest and EventLoop::on_ready, do not sync the descriptor. */
TEST(fm36_a_listener_without_descriptors_does_not_spin_and_recovers)
{
    const char *preload = getenv("LD_PRELOAD");
    if (preload != NULL && strstr(preload, "vgpreload") != NULL) {
        skip(); /* valgrind enforces the limit itself: it accepts, closes, and returns EMFILE */
    }
    enum { CLIENTS = 64, ROOM = 4 };
    struct ns_thrpool_t *tp = checked_pool(1);
    struct rlimit before, small;
    struct sockaddr_in at;
    int clients[CLIENTS];
    int highest = 0;
    door.fd = listen_on_loopback(&at);
    door.accepted = (struct latch)LATCH_INIT;
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = connect_to(&at);
        highest = clients[i] > highest ? clients[i] : highest;
    }
    getrlimit(RLIMIT_NOFILE, &before);
    small = before;
    small.rlim_cur = (rlim_t)highest + 1 + ROOM;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &small), 0);
    assert_int_equal(ns_add_fd_job(tp, door.fd, NS_JOB_ACCEPT, let_in, NULL, &door.job),
                     NS_SUCCESS);
    EVENTUALLY(atomic_load(&door.failures) > 0);
    double share = cpu_share(tp, 500000);
    assert_true(latch_count(&door.accepted) < CLIENTS);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    assert_true(share < 0.3);
    assert_true(atomic_load(&door.failures) < 100);
    assert_latch(&door.accepted, CLIENTS);
    assert_true(ns_job_cancel(door.job) <= NS_RUNNING);
    checked_end(tp);
    for (int i = 0; i < CLIENTS; i++) {
        close(clients[i]);
        close(door.fds[i]);
    }
}

/* User and system CPU seconds of a process. */
static double cpu_of(pid_t pid)
{
    char path[64], line[1024] = "";
    unsigned long user = 0, kernel = 0;
    snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_non_null(fgets(line, sizeof line, file));
    fclose(file);
    const char *after = strrchr(line, ')');
    assert_non_null(after);
    assert_int_equal(sscanf(after + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user,
                            &kernel), 2);
    return (double)(user + kernel) / (double)sysconf(_SC_CLK_TCK);
}

/* Ask for the daemon's counters, and read the answer to its end. Returns -1 if there is none. */
static long ask_daemon(const struct sockaddr_in *at)
{
    char answer[4096];
    const char request[] = "GET /status HTTP/1.0\r\n\r\n";
    struct timeval patience = {LIMIT_SECONDS, 0};
    int fd = connect_to(at);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    ssize_t said = write(fd, request, sizeof request - 1);
    ssize_t got = said < 0 ? -1 : read(fd, answer, sizeof answer);
    close(fd);
    return got > 0 && strncmp(answer, "HTTP/1.", 7) == 0 && strstr(answer, "200") != NULL ? got : -1;
}

/*
 * The example daemon, limited to sixteen descriptors, with more clients than that which stay.
 *
 * To see it fail: take the call of pause_accepting out of the daemon.
 */
TEST(fm36_the_example_daemon_pauses_without_descriptors_and_recovers)
{
    enum { CLIENTS = 100 };
    const char *const argv[] = {example("httpd"), "-p", "0",  "-t", "2", "-i", "60",
                                "-n",             "16", "/", NULL};
    struct served served = server_start(argv);
    struct sockaddr_in at = served.at;
    assert_true(ask_daemon(&at) > 0);
    int clients[CLIENTS];
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = connect_to(&at);
    }
    /* For a second, the clients that it has no descriptor for wait in the backlog. */
    struct ns_thrpool_t *tp = checked_pool(1);
    double cpu = cpu_of(served.pid);
    loop_passes(tp, 999999);
    cpu = cpu_of(served.pid) - cpu;
    checked_end(tp);
    for (int i = 0; i < CLIENTS; i++) {
        close(clients[i]);
    }
    int again = ask_daemon(&at) > 0;
    int status = server_stop(&served);
    print_message("# %.0f ms of CPU in the second in which %d clients knocked\n", cpu * 1e3, CLIENTS);
    assert_true(again);
    assert_true(cpu < 0.3);
    /* The daemon exits with 0 only if its own counts of jobs and descriptors agree. */
    assert_int_equal(status, 0);
}

/* To see it fail: in EventLoop::drop_stale, do nothing. */
TEST(fm37_descriptors_that_cannot_be_polled_do_not_make_the_loop_spin)
{
    struct ns_thrpool_t *tp = checked_pool(1);
    /* A file and a directory: always ready. */
    const char *paths[] = {"/proc/self/exe", "/"};
    for (size_t i = 0; i < 2; i++) {
        struct probe probe = PROBE(NULL, open(paths[i], O_RDONLY));
        struct ns_job_t *job = probe_fd(tp, NS_JOB_READ, 0, &probe);
        assert_latch(&probe.runs, 1);
        assert_int_equal(atomic_load(&probe.output), NS_JOB_READ);
        assert_int_equal(ns_job_wait(job), NS_SUCCESS);
        assert_true(cpu_share(tp, 100000) < 0.5);
        assert_int_equal(latch_count(&probe.runs), 1);
        assert_int_equal(ns_job_done(job), NS_SUCCESS);
        assert_latch(&probe.disposals, 1);
        assert_closed(probe.fd);
    }
    /* A descriptor that is closed before the loop can arm the job: it fires, so that the callback
     * learns of it. */
    int ends[2];
    socket_pair(ends);
    struct probe closed = PROBE(finish_job, ends[0]);
    struct gate gate = GATE_INIT;
    struct ns_job_t *blocker = occupy(tp, NS_JOB_NONE, &gate);
    probe_fd(tp, NS_JOB_READ | NS_JOB_PRESERVE_FD, 0, &closed);
    close(ends[0]);
    latch_add(&gate.leave, 1);
    assert_latch(&closed.disposals, 1);
    assert_int_equal(atomic_load(&closed.output), NS_JOB_READ);
    assert_int_equal(ns_job_done(blocker), NS_SUCCESS);
    close(ends[1]);
    /* A duplicate that outlives its number: the poller reports events that belong to no job. */
    socket_pair(ends);
    struct probe gone = PROBE(NULL, ends[0]);
    struct ns_job_t *job = probe_fd(tp, NS_JOB_READ | NS_JOB_PRESERVE_FD, 0, &gone);
    loop_passes(tp, 0);
    int copy = dup(ends[0]);
    close(ends[0]);
    assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
    assert_latch(&gone.disposals, 1);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_true(cpu_share(tp, 300000) < 0.3);
    assert_int_equal(latch_count(&gone.runs), 0);
    checked_end(tp);
    close(copy);
    close(ends[1]);
}

/* Two floods: clients that come and go, and a socket that is never empty. */
static struct {
    struct sockaddr_in at;
    int listen_fd;
    int busy[2];
    atomic_int stop;
    atomic_long accepts;
    atomic_long reads;
} rush;

static void *keep_coming(void *arg)
{
    UNUSED(arg);
    while (!atomic_load(&rush.stop)) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)&rush.at, sizeof rush.at) != 0) {
            sched_yield();
        }
        vanish(fd);
    }
    return NULL;
}

static void *keep_sending(void *arg)
{
    UNUSED(arg);
    char block[512] = "";
    while (!atomic_load(&rush.stop)) {
        if (write(rush.busy[1], block, sizeof block) < 0) {
            sched_yield();
        }
    }
    return NULL;
}

static void rush_accept(struct ns_job_t *job)
{
    UNUSED(job);
    int fd = accept(rush.listen_fd, NULL, NULL);
    if (fd >= 0) {
        atomic_fetch_add(&rush.accepts, 1);
        close(fd);
    }
}

static void rush_read(struct ns_job_t *job)
{
    UNUSED(job);
    char byte;
    atomic_fetch_add(&rush.reads, read(rush.busy[0], &byte, 1) == 1);
}

/* To see it fail: in EventLoop::run_ready, run a job that is armed again until it is not ready. */
TEST(fm38_accepts_and_reads_get_their_turns_beside_floods_of_the_other)
{
    struct ns_thrpool_t *tp = checked_pool(1);
    struct ns_job_t *jobs[2];
    rush.listen_fd = listen_on_loopback(&rush.at);
    socket_pair(rush.busy);
    assert_int_equal(ns_add_fd_job(tp, rush.listen_fd, NS_JOB_ACCEPT | NS_JOB_PERSIST, rush_accept,
                                   NULL, &jobs[0]), NS_SUCCESS);
    assert_int_equal(ns_add_fd_job(tp, rush.busy[0], NS_JOB_READ | NS_JOB_PERSIST, rush_read, NULL,
                                   &jobs[1]), NS_SUCCESS);
    pthread_t threads[2] = {start_thread(keep_coming, NULL), start_thread(keep_sending, NULL)};
    for (int step = 1; step <= 5; step++) {
        EVENTUALLY(atomic_load(&rush.accepts) >= 200 * step &&
                   atomic_load(&rush.reads) >= 200 * step);
    }
    atomic_store(&rush.stop, 1);
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
        assert_true(ns_job_cancel(jobs[i]) <= NS_RUNNING);
    }
    checked_end(tp);
    close(rush.busy[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fm25_the_job_of_an_idle_connection_is_replaced_at_once),
        cmocka_unit_test(fm26_a_threaded_persist_job_runs_once_at_a_time_and_does_not_spin),
        cmocka_unit_test(fm27_no_event_is_lost_around_rearm),
        cmocka_unit_test(fm33_a_number_that_is_reused_belongs_to_its_new_job),
        cmocka_unit_test(fm34_a_reader_and_a_writer_share_a_descriptor),
        cmocka_unit_test(fm36_a_listener_without_descriptors_does_not_spin_and_recovers),
        cmocka_unit_test(fm36_the_example_daemon_pauses_without_descriptors_and_recovers),
        cmocka_unit_test(fm37_descriptors_that_cannot_be_polled_do_not_make_the_loop_spin),
        cmocka_unit_test(fm38_accepts_and_reads_get_their_turns_beside_floods_of_the_other),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
