/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Faults: descriptors, threads and memory run out, the poller refuses, clients vanish, loggers and
 * callbacks block. Each time the call returns an error, one line is logged, nothing leaks, and
 * everything else goes on.
 */
#include "fm.h"
#include "groups.h"
#include "sockets.h"

#include <dlfcn.h>
#include <sys/epoll.h>
#include <sys/wait.h>

/*
 * How many more threads may be started; negative: any number. The library starts its threads
 * through this program's pthread_create, which fails when none are left.
 */
static atomic_int threads_left = -1;

static void *real(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*body)(void *),
                   void *arg)
{
    static int (*next)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    if (next == NULL) {
        void *at = real("pthread_create");
        memcpy(&next, &at, sizeof next);
    }
    if (atomic_load(&threads_left) == 0) {
        return EAGAIN;
    }
    if (atomic_load(&threads_left) > 0) {
        atomic_fetch_sub(&threads_left, 1);
    }
    return next(thread, attributes, body, arg);
}

/* The pool still does all that it is for. */
static void assert_works(struct ns_thrpool_t *tp)
{
    struct latch runs = LATCH_INIT;
    struct timeval soon = {0, 100};
    int ends[2];
    socket_pair(ends);
    assert_int_equal(write(ends[1], "x", 1), 1);
    for (int threaded = 0; threaded < 2; threaded++) {
        ns_job_type_t type = threaded ? NS_JOB_THREAD : 0;
        assert_int_equal(ns_add_job(tp, type, count_and_finish, &runs, NULL), NS_SUCCESS);
        assert_int_equal(ns_add_timeout_job(tp, &soon, type, count_and_finish, &runs, NULL),
                         NS_SUCCESS);
        assert_int_equal(ns_add_fd_job(tp, ends[0], type | NS_JOB_READ | NS_JOB_PRESERVE_FD,
                                       count_and_finish, &runs, NULL), NS_SUCCESS);
    }
    assert_latch(&runs, 6);
    loop_passes(tp, 0);
    close(ends[0]);
    close(ends[1]);
}

static struct ns_thrpool_t *recorded_pool(size_t workers)
{
    struct ns_thrpool_config config = checked_config(workers);
    config.log_fct = recording_log;
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    assert_non_null(tp);
    return tp;
}

TEST(threads_that_are_refused_undo_the_pool)
{
    struct ns_thrpool_config config = checked_config(7);
    config.log_fct = recording_log;
    int fds = count_fds();
    int threads = count_threads();
    for (int allowed = 0; allowed <= 8; allowed++) {
        int errors = count_logged_errors();
        atomic_store(&threads_left, allowed);
        struct ns_thrpool_t *tp = ns_thrpool_new(&config);
        atomic_store(&threads_left, -1);
        /* Seven workers and a loop. */
        assert_int_equal(tp != NULL, allowed == 8);
        if (tp != NULL) {
            checked_end(tp);
        } else {
            assert_int_equal(count_logged_errors(), errors + 1);
            assert_true(logged("threads"));
        }
        heap_check(&the_heap);
        assert_nothing_left(fds, threads);
    }
}

/* The kernel's own limit. It does not bind root, so a child becomes another user. */
static int refused_by_the_kernel(void)
{
    struct rlimit limit = {5, 5};
    struct ns_thrpool_config config = checked_config(16);
    config.log_fct = recording_log;
    if (getuid() == 0 && setuid(65534) != 0) {
        return 2;
    }
    int fds = count_fds();
    if (setrlimit(RLIMIT_NPROC, &limit) != 0) {
        return 2;
    }
    if (ns_thrpool_new(&config) != NULL) {
        return 3;
    }
    return count_fds() == fds && logged("threads") && the_heap.out == 0 ? 0 : 4;
}

TEST(threads_that_the_kernel_refuses_undo_the_pool)
{
    int status = 0;
    pid_t child = fork();
    if (child == 0) {
        _exit(refused_by_the_kernel());
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    if (WEXITSTATUS(status) == 2) {
        skip(); /* this process may not change its user */
    }
    assert_int_equal(WEXITSTATUS(status), 0);
}

/* The descriptors taken by take_all_descriptors. */
static int taken[64];

static int take_all_descriptors(void)
{
    struct rlimit limit;
    int count = 0;
    getrlimit(RLIMIT_NOFILE, &limit);
    int lowest = dup(0);
    close(lowest);
    struct rlimit small = {(rlim_t)lowest + 16, limit.rlim_max};
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &small), 0);
    while (count < 64 && (taken[count] = dup(0)) >= 0) {
        count++;
    }
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    small.rlim_cur = (rlim_t)lowest + (rlim_t)count;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &small), 0);
    return count;
}

static void give_back_descriptors(int count)
{
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max < 4096 ? limit.rlim_max : 4096;
    setrlimit(RLIMIT_NOFILE, &limit);
    while (count > 0) {
        close(taken[--count]);
    }
}

/* A pool that runs needs no more descriptors, and a second one is refused. */
TEST(a_running_pool_works_without_a_free_descriptor)
{
    struct ns_thrpool_t *tp = recorded_pool(2);
    struct ns_thrpool_config config = checked_config(1);
    config.log_fct = recording_log;
    struct latch runs = LATCH_INIT;
    struct timeval soon = {0, 100};
    int ends[2];
    socket_pair(ends);
    int count = take_all_descriptors();
    int refused = ns_thrpool_new(&config) == NULL;
    ns_result_t results[4] = {
        ns_add_job(tp, NS_JOB_THREAD, count_and_finish, &runs, NULL),
        ns_add_timeout_job(tp, &soon, NS_JOB_NONE, count_and_finish, &runs, NULL),
        ns_add_fd_job(tp, ends[0], NS_JOB_WRITE, count_and_finish, &runs, NULL),
        ns_add_signal_job(tp, SIGUSR1, NS_JOB_NONE, count_and_finish, &runs, NULL),
    };
    kill(getpid(), SIGUSR1);
    int reached = latch_reaches(&runs, 4);
    give_back_descriptors(count);
    assert_true(refused);
    assert_true(reached);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(results[i], NS_SUCCESS);
    }
    assert_works(tp);
    checked_end(tp);
    close(ends[1]);
}

/* A server whose clients vanish at every step of a request. */
enum step { CONNECTING, ACCEPTED, HALF_REQUEST, ANSWERING, HALF_CLOSED, STEPS };

static struct {
    int fd;
    atomic_int connections;
    atomic_int gone;
} server;

static void connection_gone(struct ns_job_t *job)
{
    UNUSED(job);
    atomic_fetch_add(&server.gone, 1);
}

static void serve(struct ns_job_t *job)
{
    char bytes[4096] = "";
    int fd = ns_job_get_native_fd(job);
    ns_job_type_t output = ns_job_get_output_type(job);
    if (output == NS_JOB_TIMER) {
        ns_job_done(job);
        return;
    }
    ssize_t got = read(fd, bytes, sizeof bytes);
    if (got == 0 || (got < 0 && errno != EAGAIN)) {
        ns_job_done(job);
        return;
    }
    /* An answer too large for the socket, to a client that may be gone. */
    for (int i = 0; got > 0 && i < 64; i++) {
        if (write(fd, bytes, sizeof bytes) < 0) {
            break;
        }
    }
    ns_job_rearm(job);
}

static void take_connection(struct ns_job_t *job)
{
    struct timeval idle = {0, 200000};
    struct ns_job_t *connection = NULL;
    int fd = accept4(server.fd, NULL, NULL, SOCK_NONBLOCK);
    if (fd < 0) {
        return;
    }
    int n = atomic_fetch_add(&server.connections, 1);
    ns_result_t result = ns_add_fd_timeout_job(ns_job_get_tp(job), fd, &idle,
                                               NS_JOB_READ | NS_JOB_UNARMED |
                                                   (n & 1 ? NS_JOB_THREAD : 0),
                                               serve, NULL, &connection);
    if (result != NS_SUCCESS) {
        close(fd);
        atomic_fetch_add(&server.gone, 1);
        return;
    }
    ns_job_set_done_cb(connection, connection_gone);
    ns_job_rearm(connection);
}

static void be_a_client(const struct sockaddr_in *at, enum step until, int reset)
{
    char bytes[256];
    int fd = socket(AF_INET, SOCK_STREAM | (until == CONNECTING ? SOCK_NONBLOCK : 0), 0);
    if (connect(fd, (const struct sockaddr *)at, sizeof *at) == 0 && until >= HALF_REQUEST) {
        assert_int_equal(write(fd, "GET / HT", 8), 8);
        if (until == ANSWERING) {
            assert_true(read(fd, bytes, sizeof bytes) > 0);
        }
        if (until == HALF_CLOSED) {
            shutdown(fd, SHUT_WR);
            while (read(fd, bytes, sizeof bytes) > 0) {
            }
        }
    }
    if (reset) {
        vanish(fd);
    } else {
        close(fd);
    }
}

TEST(clients_may_vanish_at_any_step)
{
    int fds = count_fds();
    struct sockaddr_in at;
    struct ns_thrpool_t *tp = recorded_pool(2);
    struct ns_job_t *listening = NULL;
    int errors = count_logged_errors();
    server.fd = listen_on_loopback(&at);
    assert_int_equal(ns_add_fd_job(tp, server.fd, NS_JOB_ACCEPT | NS_JOB_PERSIST, take_connection,
                                   NULL, &listening), NS_SUCCESS);
    for (long i = 0; i < count_of(100, 10000); i++) {
        for (int step = 0; step < STEPS; step++) {
            be_a_client(&at, (enum step)step, i & 1);
        }
    }
    be_a_client(&at, HALF_CLOSED, 0); /* accepted after all the others */
    EVENTUALLY(atomic_load(&server.connections) > 0 &&
               atomic_load(&server.gone) == atomic_load(&server.connections));
    assert_works(tp);
    assert_int_equal(ns_job_cancel(listening), NS_SUCCESS);
    checked_end(tp);
    assert_int_equal(count_logged_errors(), errors);
    assert_int_equal(count_fds(), fds);
}

/* Some allocations fail while jobs come and go. */
TEST(memory_that_is_refused_now_and_then_fails_the_adds_only)
{
    struct ns_thrpool_t *tp = recorded_pool(2);
    struct latch runs = LATCH_INIT;
    long made = 0;
    long refused = 0;
    for (long i = 0; i < count_of(3000, 300000); i++) {
        pthread_mutex_lock(&the_heap.lock);
        the_heap.left = i % 7 == 0 ? 0 : -1;
        pthread_mutex_unlock(&the_heap.lock);
        ns_result_t result =
            ns_add_job(tp, i & 1 ? NS_JOB_THREAD : 0, count_and_finish, &runs, NULL);
        made += result == NS_SUCCESS;
        refused += result == NS_ALLOCATION_FAILURE;
        assert_true(result == NS_SUCCESS || i % 7 == 0);
    }
    pthread_mutex_lock(&the_heap.lock);
    the_heap.left = -1;
    pthread_mutex_unlock(&the_heap.lock);
    assert_true(refused > 0);
    assert_true(logged("no memory"));
    assert_latch(&runs, made);
    assert_works(tp);
    checked_end(tp);
}

static void leave_allocations(long n)
{
    pthread_mutex_lock(&the_heap.lock);
    the_heap.left = n;
    pthread_mutex_unlock(&the_heap.lock);
}

static long blocks_in_use(void)
{
    pthread_mutex_lock(&the_heap.lock);
    long out = the_heap.out;
    pthread_mutex_unlock(&the_heap.lock);
    return out;
}

/* A step of what a group needs: make it, add to it, make a job for it, put that in. */
static ns_result_t take_step(int step, struct crew *crew, struct ns_job_t **job)
{
    struct ns_thrpool_t *tp = crew->tp;
    *job = (struct ns_job_t *)crew;
    switch (step) {
    case 0: return ns_group_new(tp, 1, crew, crew_ended, &crew->group);
    case 1: return ns_add_group_job(crew->group, NS_JOB_NONE, count_and_finish, &crew->runs, job);
    case 2: return ns_add_group_job(crew->group, NS_JOB_THREAD, count_and_finish, &crew->runs, job);
    case 3: return ns_add_group_job(crew->group, NS_JOB_UNARMED, count_and_finish, &crew->runs, job);
    case 4: return ns_create_job(tp, NS_JOB_TIMER, count_and_finish, job);
    default: return ns_add_timeout_job(tp, &at_once, NS_JOB_THREAD | NS_JOB_UNARMED, count_and_finish,
                                       &crew->runs, job);
    }
}

/*
 * To see it fail: count a job into its group before its memory is there, and not out again.
 */
TEST(each_allocation_of_a_group_may_fail_and_nothing_has_happened)
{
    enum { STEPS = 6 };
    struct ns_thrpool_t *tp = recorded_pool(2);
    int complete = 0;
    /* Fewer and fewer of the allocations fail, until none does. */
    for (long allowed = 0; !complete; allowed++) {
        struct crew crew = CREW_INIT;
        struct ns_job_t *jobs[STEPS] = {NULL};
        long made = 0;
        int done = 0;
        crew.tp = tp;
        assert_true(allowed < 100);
        for (; done < STEPS; done++) {
            long blocks = blocks_in_use();
            int errors = count_logged_errors();
            if (done == 0) {
                leave_allocations(allowed);
            }
            ns_result_t result = take_step(done, &crew, &jobs[done]);
            if (result != NS_SUCCESS) {
                leave_allocations(-1);
                assert_int_equal(result, NS_ALLOCATION_FAILURE);
                assert_int_equal(count_logged_errors(), errors + 1);
                assert_true(logged("no memory"));
                assert_true(blocks_in_use() <= blocks);
                if (done == 0) {
                    assert_null(crew.group);
                } else {
                    assert_null(jobs[done]);
                }
                break;
            }
            made += done > 0;
        }
        complete = done == STEPS;
        /* set_group needs no memory: it is all there, with none left. */
        leave_allocations(0);
        for (int i = 4; i < done; i++) {
            assert_int_equal(ns_job_set_group(jobs[i], crew.group), NS_SUCCESS);
            assert_int_equal(ns_job_set_data(jobs[i], &crew.runs), NS_SUCCESS);
        }
        for (int i = 3; i < done; i++) {
            assert_int_equal(ns_job_rearm(jobs[i]), NS_SUCCESS);
        }
        if (done > 0) {
            assert_latch(&crew.runs, made);
            assert_int_equal(ns_group_suspend(crew.group), NS_SUCCESS);
            assert_int_equal(ns_group_resume(crew.group), NS_SUCCESS);
            assert_int_equal(ns_group_wait(crew.group, NULL), NS_SUCCESS);
            assert_int_equal(ns_group_cancel(crew.group), NS_SUCCESS);
            crew_end(&crew);
        }
        assert_int_equal(latch_count(&crew.runs), made);
        leave_allocations(-1);
    }
    assert_works(tp);
    checked_end(tp);
}

/* The descriptor of the pool's epoll instance, or -1 where it polls in another way. */
static int find_poller(void)
{
    for (int fd = 0; fd < 100; fd++) {
        char path[64], target[64] = "";
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (readlink(path, target, sizeof target - 1) > 0 &&
            strstr(target, "[eventpoll]") != NULL) {
            return fd;
        }
    }
    return -1;
}

/* epoll instances that watch each other in a circle are refused with ELOOP. */
TEST(a_descriptor_that_the_poller_refuses_is_logged_and_tried_again)
{
    struct ns_thrpool_t *tp = recorded_pool(1);
    int poller = find_poller();
    if (poller >= 0) {
        struct epoll_event event = {.events = EPOLLIN};
        struct probe circle = PROBE(finish_job, epoll_create1(0));
        int inner[2];
        socket_pair(inner);
        assert_int_equal(write(inner[1], "x", 1), 1);
        assert_int_equal(epoll_ctl(circle.fd, EPOLL_CTL_ADD, inner[0], &event), 0);
        assert_int_equal(epoll_ctl(circle.fd, EPOLL_CTL_ADD, poller, &event), 0);
        probe_fd(tp, NS_JOB_READ, 0, &circle);
        loop_passes(tp, 20000);
        assert_int_equal(latch_count(&circle.runs), 0);
        assert_true(logged("the poller refuses descriptor"));
        assert_works(tp);
        assert_int_equal(epoll_ctl(circle.fd, EPOLL_CTL_DEL, poller, NULL), 0);
        assert_latch(&circle.disposals, 1);
        assert_int_equal(latch_count(&circle.runs), 1);
        assert_false(fd_is_open(circle.fd));
        assert_works(tp);
        close(inner[0]);
        close(inner[1]);
    }
    /* Close it behind the library's back, then arm the job again. */
    int ends[2];
    socket_pair(ends);
    struct probe probe = PROBE(NULL, ends[0]);
    assert_int_equal(write(ends[1], "x", 1), 1);
    struct ns_job_t *job = probe_fd(tp, NS_JOB_READ | NS_JOB_PRESERVE_FD, 0, &probe);
    assert_latch(&probe.runs, 1);
    assert_int_equal(ns_job_wait(job), NS_SUCCESS);
    close(ends[0]);
    assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
    assert_latch(&probe.runs, 2);
    finish_idle(job);
    assert_latch(&probe.disposals, 1);
    assert_works(tp);
    checked_end(tp);
    close(ends[1]);
}

/* Signals without end. */
static atomic_int storm_over;

static void *storm(void *arg)
{
    UNUSED(arg);
    while (!atomic_load(&storm_over)) {
        kill(getpid(), SIGUSR1);
        kill(getpid(), SIGUSR2);
    }
    return NULL;
}

TEST(signals_may_storm_while_jobs_come_and_go)
{
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    struct sigaction after;
    sigaction(SIGUSR1, &ignore, NULL);
    sigaction(SIGUSR2, &ignore, NULL);
    atomic_store(&storm_over, 0);
    pthread_t thread = start_thread(storm, NULL);
    for (long i = 0; i < count_of(20, 1000); i++) {
        struct ns_thrpool_t *tp = recorded_pool(2);
        struct latch runs = LATCH_INIT;
        for (int n = 0; n < 100; n++) {
            assert_int_equal(ns_add_signal_job(tp, n & 1 ? SIGUSR1 : SIGUSR2,
                                               n & 2 ? NS_JOB_THREAD : 0, count_and_finish, &runs,
                                               NULL), NS_SUCCESS);
            if (n % 10 == 9) {
                assert_latch(&runs, n + 1);
            }
        }
        assert_works(tp);
        checked_end(tp);
    }
    atomic_store(&storm_over, 1);
    pthread_join(thread, NULL);
    sigaction(SIGUSR1, NULL, &after);
    assert_ptr_equal(after.sa_handler, SIG_IGN);
}

/* A logger that blocks one thread. */
static struct gate log_gate;
static atomic_int log_blocks;

static void blocking_log(int priority, const char *format, va_list args)
{
    UNUSED(priority);
    UNUSED(format);
    UNUSED(args);
    if (atomic_exchange(&log_blocks, 0)) {
        stay_in_gate(&log_gate);
    }
}

static void *add_badly(void *arg)
{
    ns_add_job(arg, NS_JOB_SHUTDOWN_WORKER, count_and_finish, NULL, NULL);
    return NULL;
}

static void add_badly_inside(struct ns_job_t *job)
{
    ns_add_job(ns_job_get_tp(job), NS_JOB_SHUTDOWN_WORKER, count_and_finish, NULL, NULL);
    ns_job_done(job);
}

TEST(a_logger_that_blocks_holds_up_its_own_thread_only)
{
    struct ns_thrpool_config config = checked_config(2);
    config.log_fct = blocking_log;
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    assert_non_null(tp);
    for (int inside = 0; inside < 2; inside++) {
        log_gate = (struct gate)GATE_INIT;
        atomic_store(&log_blocks, 1);
        pthread_t thread;
        if (inside) {
            assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, add_badly_inside, NULL, NULL),
                             NS_SUCCESS);
        } else {
            thread = start_thread(add_badly, tp);
        }
        assert_latch(&log_gate.begun, 1);
        assert_works(tp);
        latch_add(&log_gate.leave, 1);
        if (!inside) {
            pthread_join(thread, NULL);
        }
        loop_passes(tp, 0);
    }
    checked_end(tp);
}

/*
 * While a callback blocks a worker, everything else goes on. While one blocks the loop, the workers
 * go on.
 *
 * To see it fail: in Shared::run_now, hand every job to the loop; or in EventLoop::fire, have the
 * loop run threaded jobs.
 */
TEST(a_callback_that_blocks_delays_its_thread_only)
{
    struct ns_thrpool_t *tp = recorded_pool(2);
    struct gate gates[2] = {GATE_INIT, GATE_INIT};
    struct ns_job_t *blockers[2];
    struct latch runs = LATCH_INIT;
    blockers[0] = occupy(tp, NS_JOB_THREAD, &gates[0]);
    assert_works(tp);
    blockers[1] = occupy(tp, NS_JOB_NONE, &gates[1]);
    for (int i = 0; i < 100; i++) {
        assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, count_and_finish, &runs, NULL), NS_SUCCESS);
    }
    assert_latch(&runs, 100);
    for (int i = 1; i >= 0; i--) {
        /* The callback still blocks: nothing above has waited for it. */
        assert_int_equal(latch_count(&gates[i].leave), 0);
        latch_add(&gates[i].leave, 1);
        finish_idle(blockers[i]);
    }
    assert_works(tp);
    checked_end(tp);
}

static void count_only(struct ns_job_t *job)
{
    atomic_fetch_add((atomic_long *)ns_job_get_data(job), 1);
}

/*
 * All at once: a registration outlives its descriptor number, no descriptor is free for a new
 * poller, as many descriptors are ready as one poll returns, and a timer is due. Everything goes
 * on.
 *
 * To see it fail: in EventLoop::poll, look again though the poller stays stale.
 */
TEST(a_registration_that_cannot_be_taken_out_keeps_the_loop_from_nothing)
{
    enum { READY = 127 };
    struct ns_thrpool_t *tp = recorded_pool(1);
    static int ends[READY][2];
    static struct ns_job_t *jobs[READY];
    struct timeval often = {0, 1000};
    struct probe stale = PROBE(NULL, -1);
    struct gate gate = GATE_INIT;
    struct ns_job_t *timer = NULL, *blocker = NULL;
    atomic_long io = 0, ticks = 0;
    int pair[2];
    socket_pair(pair);
    stale.fd = pair[0];
    struct ns_job_t *job = probe_fd(tp, NS_JOB_READ | NS_JOB_PRESERVE_FD, 0, &stale);
    loop_passes(tp, 0);
    assert_int_equal(ns_add_timeout_job(tp, &often, NS_JOB_PERSIST, count_only, &ticks, &timer),
                     NS_SUCCESS);
    for (int i = 0; i < READY; i++) {
        socket_pair(ends[i]);
        assert_int_equal(write(ends[i][1], "x", 1), 1);
        assert_int_equal(ns_add_fd_job(tp, ends[i][0], NS_JOB_READ | NS_JOB_PERSIST, count_only, &io,
                                       &jobs[i]), NS_SUCCESS);
    }
    EVENTUALLY(atomic_load(&io) > READY && atomic_load(&ticks) > 1);
    blocker = occupy(tp, NS_JOB_NONE, &gate);
    int copy = dup(pair[0]);
    close(pair[0]);
    int count = take_all_descriptors();
    int sent = write(pair[1], "x", 1) == 1;
    ns_result_t cancelled = ns_job_cancel(job);
    latch_add(&gate.leave, 1);
    int goes_on = latch_reaches(&stale.disposals, 1);
    long io_before = atomic_load(&io), ticks_before = atomic_load(&ticks);
    for (double end = now_seconds() + LIMIT_SECONDS;
         now_seconds() < end && (atomic_load(&io) < io_before + 3 * READY ||
                                 atomic_load(&ticks) < ticks_before + 10 ||
                                 !logged("no new poller"));) {
        sched_yield();
    }
    goes_on &= atomic_load(&io) >= io_before + 3 * READY && atomic_load(&ticks) >= ticks_before + 10;
    give_back_descriptors(count);
    assert_true(sent);
    assert_int_equal(cancelled, NS_SUCCESS);
    assert_true(goes_on);
    assert_true(logged("no new poller"));
    assert_works(tp);
    finish_idle(blocker);
    assert_true(ns_job_cancel(timer) <= NS_RUNNING);
    for (int i = 0; i < READY; i++) {
        assert_true(ns_job_cancel(jobs[i]) <= NS_RUNNING);
    }
    checked_end(tp);
    assert_int_equal(latch_count(&stale.runs), 0);
    for (int i = 0; i < READY; i++) {
        close(ends[i][1]);
    }
    close(copy);
    close(pair[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(threads_that_are_refused_undo_the_pool),
        cmocka_unit_test(threads_that_the_kernel_refuses_undo_the_pool),
        cmocka_unit_test(a_running_pool_works_without_a_free_descriptor),
        cmocka_unit_test(clients_may_vanish_at_any_step),
        cmocka_unit_test(memory_that_is_refused_now_and_then_fails_the_adds_only),
        cmocka_unit_test(each_allocation_of_a_group_may_fail_and_nothing_has_happened),
        cmocka_unit_test(a_descriptor_that_the_poller_refuses_is_logged_and_tried_again),
        cmocka_unit_test(signals_may_storm_while_jobs_come_and_go),
        cmocka_unit_test(a_logger_that_blocks_holds_up_its_own_thread_only),
        cmocka_unit_test(a_callback_that_blocks_delays_its_thread_only),
        cmocka_unit_test(a_registration_that_cannot_be_taken_out_keeps_the_loop_from_nothing),
    };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
