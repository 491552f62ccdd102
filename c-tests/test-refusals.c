/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The system refuses: each errno on each road by which the loop tells the poller of a descriptor,
 * for a while or for good. Expected each time: one line in the log, no callback for what did not
 * happen, time-outs in their time, no processor time, and everything as ever once it is over.
 *
 * Where the system does not hand its calls to the test (notify.h), the tests are skipped.
 */
#include "notify.h"

#include <arpa/inet.h>
#include <netinet/in.h>

/* Which calls are refused, and how many were. */
static struct {
    atomic_int error; /* 0: none */
    atomic_int call;
    atomic_int fd;    /* of epoll_ctl; -1: any */
    atomic_int op;    /* of epoll_ctl; 0: any but EPOLL_CTL_DEL */
    atomic_long hits;
} rule;

/* The same name for calls that do the same. */
static int kind_of_call(int call)
{
    switch (call) {
    case SYS_epoll_pwait:
    case SYS_epoll_pwait2: return SYS_epoll_wait;
    case SYS_ppoll: return SYS_poll;
    case SYS_pselect6: return SYS_select;
    default: return call;
    }
}

static int is_refused(const struct seccomp_data *data)
{
    int call = kind_of_call(data->nr);
    if (atomic_load(&rule.error) == 0 || call != atomic_load(&rule.call)) {
        return 0;
    }
    if (call == SYS_poll) {
        return data->args[1] >= 2; /* else it is no framework's: a sleep, or a look at one descriptor */
    }
    if (call != SYS_epoll_ctl) {
        return 1;
    }
    int op = atomic_load(&rule.op);
    int fd = atomic_load(&rule.fd);
    return (op != 0 ? (int)data->args[1] == op : (int)data->args[1] != EPOLL_CTL_DEL) &&
           (fd < 0 || (int)data->args[2] == fd);
}

/* What notify.h asks: the errno to answer with, or 0. */
static int answer(const struct seccomp_data *data)
{
    if (!is_refused(data)) {
        return 0;
    }
    atomic_fetch_add(&rule.hits, 1);
    return atomic_load(&rule.error);
}

static void refuse(int call, int fd, int op, int error)
{
    atomic_store(&rule.call, call);
    atomic_store(&rule.fd, fd);
    atomic_store(&rule.op, op);
    atomic_store(&rule.hits, 0);
    atomic_store(&rule.error, error);
}

static void allow(void)
{
    atomic_store(&rule.error, 0);
}

/* Lines of LOG_WARNING and worse. */
static atomic_int lines;

static void count_lines(int priority, const char *format, va_list args)
{
    UNUSED(format);
    UNUSED(args);
    if (priority <= LOG_WARNING) {
        atomic_fetch_add(&lines, 1);
    }
}

static struct ns_thrpool_t *counted_pool(void)
{
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.log_fct = count_lines;
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    assert_non_null(tp);
    atomic_store(&lines, 0);
    return tp;
}

static void drain(struct ns_job_t *job)
{
    char bytes[64];
    while (read(ns_job_get_native_fd(job), bytes, sizeof bytes) > 0) {
    }
}

/* Connected by TCP, which has urgent data. */
static void tcp_pair(int ends[2])
{
    struct sockaddr_in name = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t size = sizeof name;
    int at = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(at, (struct sockaddr *)&name, sizeof name), 0);
    assert_int_equal(listen(at, 1), 0);
    assert_int_equal(getsockname(at, (struct sockaddr *)&name, &size), 0);
    ends[1] = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(connect(ends[1], (struct sockaddr *)&name, sizeof name), 0);
    ends[0] = accept4(at, NULL, NULL, SOCK_NONBLOCK);
    assert_true(ends[0] >= 0);
    close(at);
}

/* A job whose descriptor is being refused. */
struct scene {
    struct ns_thrpool_t *tp;
    int ends[2];
    int error;
    struct probe probe;
    struct ns_job_t *job;
};

#define TYPE (NS_JOB_READ | NS_JOB_PRESERVE_FD)

/* The job's first arming. */
static void first(struct scene *scene, long usec)
{
    refuse(SYS_epoll_ctl, scene->ends[0], 0, scene->error);
    scene->job = probe_fd(scene->tp, TYPE, usec, &scene->probe);
}

/* Armed once more, by a job that runs in a worker. */
static void rearmed(struct scene *scene, long usec)
{
    scene->job = probe_fd(scene->tp, TYPE | NS_JOB_THREAD, usec, &scene->probe);
    assert_int_equal(write(scene->ends[1], "x", 1), 1);
    assert_latch(&scene->probe.runs, 1);
    assert_int_equal(ns_job_wait(scene->job), NS_SUCCESS);
    latch_add(&scene->probe.runs, -1);
    refuse(SYS_epoll_ctl, scene->ends[0], 0, scene->error);
    assert_int_equal(ns_job_rearm(scene->job), NS_SUCCESS);
}

static struct scene *in_sync;

static void refuse_from_now_on(struct ns_job_t *job)
{
    UNUSED(job);
    refuse(SYS_epoll_ctl, in_sync->ends[0], 0, in_sync->error);
}

/* Another job of the descriptor's has run, and what is wanted of it has changed. */
static void changed(struct scene *scene, long usec)
{
    static struct probe writer;
    writer = (struct probe)PROBE(refuse_from_now_on, scene->ends[0]);
    in_sync = scene;
    scene->job = probe_fd(scene->tp, TYPE, usec, &scene->probe);
    struct ns_job_t *job = probe_fd(scene->tp, NS_JOB_WRITE | NS_JOB_PRESERVE_FD, 0, &writer);
    assert_latch(&writer.runs, 1);
    assert_int_equal(ns_job_wait(job), NS_SUCCESS);
    EVENTUALLY(atomic_load(&rule.hits) > 0);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    assert_latch(&writer.disposals, 1);
}

/* There is urgent data. */
static void urgent(struct scene *scene, long usec)
{
    close(scene->ends[0]);
    close(scene->ends[1]);
    tcp_pair(scene->ends);
    scene->probe.fd = scene->ends[0];
    scene->job = probe_fd(scene->tp, TYPE, usec, &scene->probe);
    loop_passes(scene->tp, 0);
    refuse(SYS_epoll_ctl, scene->ends[0], 0, scene->error);
    assert_int_equal(send(scene->ends[1], "!", 1, MSG_OOB), 1);
    EVENTUALLY(atomic_load(&rule.hits) > 0);
}

/* The poller is made anew, since it has a registration that outlived its number. */
static void renewed(struct scene *scene, long usec)
{
    int other[2];
    socket_pair(other);
    struct probe probe = PROBE(NULL, other[0]);
    scene->job = probe_fd(scene->tp, TYPE, usec, &scene->probe);
    struct ns_job_t *job = probe_fd(scene->tp, TYPE, 0, &probe);
    loop_passes(scene->tp, 0);
    int copy = dup(other[0]);
    refuse(SYS_epoll_ctl, scene->ends[0], EPOLL_CTL_ADD, scene->error);
    close(other[0]);
    assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
    assert_latch(&probe.disposals, 1);
    assert_int_equal(write(other[1], "x", 1), 1);
    EVENTUALLY(atomic_load(&rule.hits) > 0);
    close(copy);
    close(other[1]);
}

static const struct {
    const char *name;
    void (*begin)(struct scene *, long usec);
} roads[] = {
    {"first armed", first},
    {"armed again", rearmed},
    {"what is wanted has changed", changed},
    {"urgent data", urgent},
    {"a new poller", renewed},
};

static void begin(struct scene *scene, int road, int error, long usec)
{
    memset(scene, 0, sizeof *scene);
    scene->tp = counted_pool();
    scene->error = error;
    socket_pair(scene->ends);
    scene->probe = (struct probe)PROBE(drain, scene->ends[0]);
    print_message("    %s: %s\n", roads[road].name, strerror(error));
    roads[road].begin(scene, usec);
}

static void end(struct scene *scene)
{
    allow();
    if (latch_count(&scene->probe.disposals) == 0) {
        /* Its callback may just be returning. */
        ns_result_t result = ns_job_cancel(scene->job);
        assert_true(result == NS_SUCCESS || (int)result == NS_RUNNING);
        assert_latch(&scene->probe.disposals, 1);
    }
    pool_end(scene->tp);
    close(scene->ends[0]);
    close(scene->ends[1]);
}

/* Whether the pool's framework is one of these words. */
static int is_over(struct ns_thrpool_t *tp, const char *names)
{
    size_t length = strlen(ns_thrpool_get_framework(tp));
    for (const char *word = names; *word != '\0'; word += strcspn(word, " ")) {
        word += strspn(word, " ");
        if (strcspn(word, " ") == length &&
            strncmp(word, ns_thrpool_get_framework(tp), length) == 0) {
            return 1;
        }
    }
    return 0;
}

/* Whether the loop goes this road: only native tells the poller of urgent data, and over what watches
 * numbers, no registration outlives its number. */
static int is_gone(size_t road)
{
    struct ns_thrpool_t *tp = counted_pool();
    int gone = 1;
    if (roads[road].begin == urgent) {
        gone = is_over(tp, "native portable");
    } else if (roads[road].begin == renewed) {
        gone = !is_over(tp, "libevent:poll libevent:select");
    }
    pool_end(tp);
    return gone;
}

#define EACH(road, error, errors)                                                              \
    for (size_t road = 0; road < sizeof roads / sizeof roads[0]; road++)                       \
        if (is_gone(road))                                                                     \
        for (size_t at_ = 0, error = 0;                                                        \
             at_ < sizeof errors / sizeof errors[0] && (error = (size_t)errors[at_], 1); at_++)

static const int transient[] = {ENOSPC, ENOMEM, ELOOP, EINVAL};

TEST(a_refusal_is_logged_once_tried_again_and_over_when_it_is_over)
{
    EACH(road, error, transient)
    {
        struct scene scene;
        begin(&scene, (int)road, (int)error, 0);
        EVENTUALLY(atomic_load(&rule.hits) >= 2);
        assert_int_equal(write(scene.ends[1], "data", 4), 4);
        double cpu = cpu_seconds();
        atomic_store(&rule.hits, 0);
        loop_passes(scene.tp, 100000);
        /* Pauses that double: 100 ms have room for a few. */
        assert_true(atomic_load(&rule.hits) <= 9);
        assert_true(getenv("NS_SLOW") != NULL || cpu_seconds() - cpu < 0.05);
        assert_int_equal(latch_count(&scene.probe.runs), 0);
        assert_int_equal(atomic_load(&lines), 1);
        allow();
        assert_latch(&scene.probe.runs, 1);
        assert_int_equal(atomic_load(&scene.probe.output), NS_JOB_READ);
        /* And from then on as ever. */
        assert_int_equal(ns_job_wait(scene.job), NS_SUCCESS);
        assert_int_equal(ns_job_rearm(scene.job), NS_SUCCESS);
        assert_int_equal(write(scene.ends[1], "data", 4), 4);
        assert_latch(&scene.probe.runs, 2);
        assert_int_equal(atomic_load(&lines), 1);
        end(&scene);
    }
}

TEST(the_time_out_of_a_refused_descriptor_comes_in_its_time)
{
    EACH(road, error, transient)
    {
        struct scene scene;
        double start = now_seconds();
        begin(&scene, (int)road, (int)error, 300000);
        assert_int_equal(write(scene.ends[1], "data", 4), 4);
        assert_latch(&scene.probe.runs, 1);
        assert_int_equal(atomic_load(&scene.probe.output), NS_JOB_TIMER);
        assert_true(now_seconds() - start >= 0.3);
        assert_int_equal(atomic_load(&lines), 1);
        /* Armed again, it is refused still, and the next time comes too. */
        assert_int_equal(ns_job_wait(scene.job), NS_SUCCESS);
        assert_int_equal(ns_job_rearm(scene.job), NS_SUCCESS);
        assert_int_equal(write(scene.ends[1], "data", 4), 4);
        if (error == ENOSPC) {
            assert_latch(&scene.probe.runs, 2);
            assert_int_equal(atomic_load(&scene.probe.output), NS_JOB_TIMER);
        }
        end(&scene);
    }
}

TEST(a_job_of_a_refused_descriptor_is_cancelled_and_its_pool_destroyed)
{
    int before = count_fds();
    for (int by_destroy = 0; by_destroy < 2; by_destroy++) {
        struct ns_thrpool_t *tp = counted_pool();
        int ends[2];
        socket_pair(ends);
        struct probe probe = PROBE(drain, ends[0]);
        refuse(SYS_epoll_ctl, ends[0], 0, ENOSPC);
        struct ns_job_t *job = probe_fd(tp, NS_JOB_READ, 0, &probe);
        EVENTUALLY(atomic_load(&rule.hits) >= 2);
        if (!by_destroy) {
            assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
            assert_latch(&probe.disposals, 1);
            assert_false(fd_is_open(ends[0]));
        }
        pool_end(tp);
        assert_latch(&probe.disposals, 1);
        assert_int_equal(latch_count(&probe.runs), 0);
        allow();
        close(ends[1]);
        assert_int_equal(count_fds(), before);
    }
}

/* What is refused for good does not keep another, which is refused for a moment, waiting. */
TEST(each_descriptor_has_its_own_first_tries)
{
    struct ns_thrpool_t *tp = counted_pool();
    int circle = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    int inner = -1;
    for (int fd = 3; fd < 100 && inner < 0; fd++) {
        char path[64], target[64] = "";
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (fd != circle && readlink(path, target, sizeof target - 1) > 0 &&
            strstr(target, "[eventpoll]") != NULL) {
            inner = fd;
        }
    }
    assert_int_equal(epoll_ctl(circle, EPOLL_CTL_ADD, inner, &event), 0);
    struct probe stuck = PROBE(NULL, circle);
    struct ns_job_t *stuck_job = probe_fd(tp, TYPE, 0, &stuck);
    loop_passes(tp, 900000);
    assert_int_equal(atomic_load(&lines), 1);
    int ends[2];
    socket_pair(ends);
    struct probe probe = PROBE(drain, ends[0]);
    refuse(SYS_epoll_ctl, ends[0], 0, ENOMEM);
    struct ns_job_t *job = probe_fd(tp, TYPE, 0, &probe);
    EVENTUALLY(atomic_load(&rule.hits) >= 2);
    allow();
    double start = now_seconds();
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_latch(&probe.runs, 1);
    assert_true(getenv("NS_SLOW") != NULL || now_seconds() - start < 0.4);
    assert_int_equal(atomic_load(&lines), 2);
    assert_int_equal(latch_count(&stuck.runs), 0);
    /* Out of the circle, it is taken too. */
    assert_int_equal(epoll_ctl(circle, EPOLL_CTL_DEL, inner, NULL), 0);
    event.data.u32 = 1;
    assert_int_equal(epoll_ctl(circle, EPOLL_CTL_ADD, ends[0], &event), 0);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_latch(&stuck.runs, 1);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    assert_int_equal(ns_job_wait(stuck_job), NS_SUCCESS);
    assert_int_equal(ns_job_done(stuck_job), NS_SUCCESS);
    pool_end(tp);
    close(circle);
    close(ends[0]);
    close(ends[1]);
}

static void finish_third(struct ns_job_t *job)
{
    struct probe *probe = ns_job_get_data(job);
    if (latch_count(&probe->runs) < 2) {
        ns_job_rearm(job);
    } else {
        ns_job_done(job);
    }
}

/* Open, and not to be polled: always ready. */
TEST(what_is_open_and_cannot_be_polled_is_always_ready)
{
    static const int errors[] = {EPERM, EBADF, 0};
    for (int threaded = 0; threaded < 2; threaded++) {
        for (int i = 0; i < 3; i++) {
            struct ns_thrpool_t *tp = counted_pool();
            /* With O_PATH the system says EBADF by itself. */
            int fd = errors[i] == 0 ? open("/", O_PATH | O_CLOEXEC) : dup(0);
            struct probe probe = PROBE(finish_third, fd);
            refuse(SYS_epoll_ctl, fd, EPOLL_CTL_ADD, errors[i]);
            probe_fd(tp, NS_JOB_READ | (threaded ? NS_JOB_THREAD : 0), 0, &probe);
            assert_latch(&probe.disposals, 1);
            assert_int_equal(latch_count(&probe.runs), 3);
            assert_int_equal(atomic_load(&probe.output), NS_JOB_READ);
            assert_false(fd_is_open(fd));
            assert_int_equal(atomic_load(&lines), 0);
            allow();
            pool_end(tp);
        }
    }
}

/* The poller does not know the descriptor any more, though the number is open. */
TEST(a_registration_that_is_gone_is_told_once_and_leaves_the_time_out)
{
    static const int errors[] = {ENOENT, EPERM, EBADF};
    /* Each road that changes a registration. */
    for (int road = 1; road <= 3; road++) {
        for (int i = 0; i < 3; i++) {
            struct scene scene;
            begin(&scene, road, errors[i], 100000);
            assert_int_equal(write(scene.ends[1], "data", 4), 4);
            for (int run = 1; run <= 2; run++) {
                assert_latch(&scene.probe.runs, run);
                assert_int_equal(atomic_load(&scene.probe.output), NS_JOB_TIMER);
                assert_int_equal(ns_job_wait(scene.job), NS_SUCCESS);
                assert_int_equal(ns_job_rearm(scene.job), NS_SUCCESS);
            }
            assert_int_equal(atomic_load(&lines), 1);
            end(&scene);
        }
    }
}

/* timerfd_settime is refused for good, as a sandbox does. */
TEST(timers_go_on_without_a_timerfd)
{
    refuse(SYS_timerfd_settime, -1, 0, EINVAL);
    struct ns_thrpool_t *tp = counted_pool();
    double cpu = cpu_seconds();
    double start = now_seconds();
    for (int i = 0; i < 5; i++) {
        double before = now_seconds();
        loop_passes(tp, 30500);
        assert_true(now_seconds() - before >= 0.0305);
    }
    int ends[2];
    socket_pair(ends);
    struct probe probe = PROBE(NULL, ends[0]);
    struct ns_job_t *job = probe_fd(tp, TYPE, 20000, &probe);
    assert_latch(&probe.runs, 1);
    assert_int_equal(atomic_load(&probe.output), NS_JOB_TIMER);
    loop_passes(tp, 400000);
    assert_true(getenv("NS_SLOW") != NULL || cpu_seconds() - cpu < 0.1);
    assert_true(atomic_load(&rule.hits) <= 200 + 50 * (long)(now_seconds() - start));
    assert_int_equal(atomic_load(&lines), 1);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    pool_end(tp);
    allow();
    close(ends[0]);
    close(ends[1]);
}

static void drain_and_rearm(struct ns_job_t *job)
{
    drain(job);
    ns_job_rearm(job);
}

/* The time to look at a descriptor that is not heard of has come while the loop was in a callback. */
static void an_overdue_look_without_a_timerfd_does_not_spin(void **state)
{
    UNUSED(state);
    refuse(SYS_timerfd_settime, -1, 0, EINVAL);
    struct ns_thrpool_t *tp = counted_pool();
    loop_passes(tp, 1000);
    int ends[2];
    socket_pair(ends);
    struct probe probe = PROBE(drain_and_rearm, ends[0]);
    struct ns_job_t *job = probe_fd(tp, TYPE, 0, &probe);
    struct gate gate = GATE_INIT;
    struct ns_job_t *blocker = NULL;
    assert_int_equal(write(ends[1], "x", 1), 1);
    loop_passes(tp, 1000);
    /* The portable poller sets a timer for each wait, and has no descriptors without: then there is
     * nothing to look at, and it is not to spin either. */
    assert_true(latch_count(&probe.runs) == 1 || atomic_load(&rule.hits) > 1);
    assert_int_equal(ns_add_job(tp, NS_JOB_NONE, gate_callback, &gate, &blocker), NS_SUCCESS);
    assert_latch(&gate.begun, 1);
    double start = now_seconds();
    EVENTUALLY(now_seconds() > start + 0.1);
    latch_add(&gate.leave, 1);
    double cpu = cpu_seconds();
    loop_passes(tp, 300000);
    assert_true(getenv("NS_SLOW") != NULL || cpu_seconds() - cpu < 0.1);
    assert_int_equal(ns_job_wait(blocker), NS_SUCCESS);
    assert_int_equal(ns_job_done(blocker), NS_SUCCESS);
    assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
    pool_end(tp);
    allow();
    close(ends[0]);
    close(ends[1]);
}

/* The call by which the pool's framework waits. */
static int how_it_waits(struct ns_thrpool_t *tp)
{
    if (is_over(tp, "libevent:select")) {
        return SYS_select;
    }
    return is_over(tp, "libevent:poll tevent:poll poll") ? SYS_poll : SYS_epoll_wait;
}

/* Waiting itself is refused: all that needs no descriptor goes on, and descriptors afterwards. */
TEST(a_poller_that_fails_for_good_neither_spins_nor_floods_the_log)
{
    int before = count_fds();
    struct ns_thrpool_t *tp = counted_pool();
    int ends[2];
    socket_pair(ends);
    struct probe probe = PROBE(drain, ends[0]);
    struct ns_job_t *job = probe_fd(tp, TYPE, 0, &probe);
    loop_passes(tp, 0);
    refuse(how_it_waits(tp), -1, 0, EPERM);
    double cpu = cpu_seconds();
    for (int i = 0; i < 5; i++) {
        loop_passes(tp, 50000);
    }
    struct latch ran = LATCH_INIT;
    struct ns_job_t *run_now = NULL;
    assert_int_equal(ns_add_job(tp, NS_JOB_NONE, count_callback, &ran, &run_now), NS_SUCCESS);
    assert_latch(&ran, 1);
    assert_int_equal(ns_job_wait(run_now), NS_SUCCESS);
    assert_int_equal(ns_job_done(run_now), NS_SUCCESS);
    assert_true(atomic_load(&rule.hits) < 200);
    assert_true(getenv("NS_SLOW") != NULL || cpu_seconds() - cpu < 0.1);
    assert_int_equal(atomic_load(&lines), 1);
    assert_int_equal(write(ends[1], "x", 1), 1);
    if (is_over(tp, "tevent:standard tevent")) {
        /* It goes on by poll. */
        assert_latch(&probe.runs, 1);
    } else {
        loop_passes(tp, 5000);
        assert_int_equal(latch_count(&probe.runs), 0);
    }
    allow();
    assert_latch(&probe.runs, 1);
    assert_int_equal(ns_job_wait(job), NS_SUCCESS);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    pool_end(tp);
    close(ends[0]);
    close(ends[1]);
    assert_int_equal(count_fds(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_refusal_is_logged_once_tried_again_and_over_when_it_is_over),
        cmocka_unit_test(the_time_out_of_a_refused_descriptor_comes_in_its_time),
        cmocka_unit_test(a_job_of_a_refused_descriptor_is_cancelled_and_its_pool_destroyed),
        cmocka_unit_test(each_descriptor_has_its_own_first_tries),
        cmocka_unit_test(what_is_open_and_cannot_be_polled_is_always_ready),
        cmocka_unit_test(a_registration_that_is_gone_is_told_once_and_leaves_the_time_out),
        cmocka_unit_test(timers_go_on_without_a_timerfd),
        cmocka_unit_test(an_overdue_look_without_a_timerfd_does_not_spin),
        cmocka_unit_test(a_poller_that_fails_for_good_neither_spins_nor_floods_the_log),
    };
    if (!filter(answer)) {
        printf("1..1\nok 1 - # SKIP this system does not hand system calls to the test\n");
        return 0;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
