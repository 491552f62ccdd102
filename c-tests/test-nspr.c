/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Jobs for NSPR descriptors, with the real NSPR. */
#include "children.h"

#include <nspr.h>
#include <private/pprio.h>

static PRFileDesc *listen_on_loopback(PRNetAddr *address)
{
    PRFileDesc *fd = PR_OpenTCPSocket(PR_AF_INET);
    PRSocketOptionData option = {.option = PR_SockOpt_Nonblocking, .value.non_blocking = PR_TRUE};
    assert_non_null(fd);
    PR_InitializeNetAddr(PR_IpAddrLoopback, 0, address);
    assert_int_equal(PR_SetSocketOption(fd, &option), PR_SUCCESS);
    assert_int_equal(PR_Bind(fd, address), PR_SUCCESS);
    assert_int_equal(PR_Listen(fd, 16), PR_SUCCESS);
    assert_int_equal(PR_GetSockName(fd, address), PR_SUCCESS);
    return fd;
}

/* Connected sockets; the second does not block. */
static void tcp_pair(PRFileDesc *ends[2])
{
    PRNetAddr address;
    PRSocketOptionData option = {.option = PR_SockOpt_Nonblocking, .value.non_blocking = PR_TRUE};
    PRFileDesc *listener = listen_on_loopback(&address);
    ends[0] = PR_OpenTCPSocket(PR_AF_INET);
    assert_int_equal(PR_Connect(ends[0], &address, PR_INTERVAL_NO_TIMEOUT), PR_SUCCESS);
    PRPollDesc poll_for = {listener, PR_POLL_READ, 0};
    assert_int_equal(PR_Poll(&poll_for, 1, PR_SecondsToInterval(LIMIT_SECONDS)), 1);
    ends[1] = PR_Accept(listener, NULL, PR_INTERVAL_NO_WAIT);
    assert_non_null(ends[1]);
    assert_int_equal(PR_SetSocketOption(ends[1], &option), PR_SUCCESS);
    PR_Close(listener);
}

static struct ns_job_t *probe_io(struct ns_thrpool_t *tp, PRFileDesc *fd, ns_job_type_t type,
                                 struct probe *probe)
{
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_io_job(tp, fd, type | NS_JOB_UNARMED, probe_run, probe, &job),
                     NS_SUCCESS);
    return probe_arm(job);
}

/* A server and its client, all made of jobs */

static struct latch accepted = LATCH_INIT, served = LATCH_INIT, answered = LATCH_INIT;
static atomic_int wrong;

static void echo(struct ns_job_t *job)
{
    char bytes[64];
    PRInt32 n = PR_Recv(ns_job_get_fd(job), bytes, sizeof(bytes), 0, PR_INTERVAL_NO_WAIT);
    if (n > 0) {
        PR_Send(ns_job_get_fd(job), bytes, n, 0, PR_INTERVAL_NO_WAIT);
        ns_job_rearm(job);
    } else {
        ns_job_done(job);
        latch_add(&served, 1);
    }
}

static void accept_one(struct ns_job_t *job)
{
    PRSocketOptionData option = {.option = PR_SockOpt_Nonblocking, .value.non_blocking = PR_TRUE};
    if (ns_job_get_output_type(job) != NS_JOB_READ) {
        atomic_fetch_add(&wrong, 1);
    }
    PRFileDesc *fd = PR_Accept(ns_job_get_fd(job), NULL, PR_INTERVAL_NO_WAIT);
    if (fd != NULL) {
        PR_SetSocketOption(fd, &option);
        ns_add_io_job(ns_job_get_tp(job), fd, NS_JOB_READ | NS_JOB_THREAD, echo, NULL, NULL);
        latch_add(&accepted, 1);
    }
}

static void read_answer(struct ns_job_t *job)
{
    char bytes[64];
    PRInt32 n = PR_Recv(ns_job_get_fd(job), bytes, sizeof(bytes), 0, PR_INTERVAL_NO_WAIT);
    if (n != 5 || memcmp(bytes, "hello", 5) != 0) {
        atomic_fetch_add(&wrong, 1);
    }
    ns_job_done(job);
    latch_add(&answered, 1);
}

static void greet(struct ns_job_t *job)
{
    PRFileDesc *fd = ns_job_get_fd(job);
    if (ns_job_get_output_type(job) != NS_JOB_WRITE ||
        PR_Send(fd, "hello", 5, 0, PR_INTERVAL_NO_WAIT) != 5) {
        atomic_fetch_add(&wrong, 1);
    }
    ns_add_io_job(ns_job_get_tp(job), fd, NS_JOB_READ, read_answer, NULL, NULL);
    ns_job_done(job);
}

TEST(tcp_sockets_accept_connect_read_and_write)
{
    struct ns_thrpool_t *tp = pool_of(2);
    PRNetAddr address;
    PRFileDesc *listener = listen_on_loopback(&address);
    PRSocketOptionData option = {.option = PR_SockOpt_Nonblocking, .value.non_blocking = PR_TRUE};
    ns_job_type_t type = NS_JOB_ACCEPT | NS_JOB_PERSIST;
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_io_job(tp, listener, type | NS_JOB_THREAD, accept_one, NULL, &job),
                     NS_INVALID_REQUEST);
    assert_null(job);
    assert_int_equal(ns_add_io_job(tp, listener, type, accept_one, NULL, &job), NS_SUCCESS);
    enum { CLIENTS = 20 };
    for (int i = 0; i < CLIENTS; i++) {
        PRFileDesc *fd = PR_OpenTCPSocket(PR_AF_INET);
        assert_int_equal(PR_SetSocketOption(fd, &option), PR_SUCCESS);
        PR_Connect(fd, &address, PR_INTERVAL_NO_WAIT);
        assert_int_equal(ns_add_io_job(tp, fd, NS_JOB_CONNECT | NS_JOB_PRESERVE_FD, greet, NULL,
                                       NULL), NS_SUCCESS);
    }
    assert_latch(&answered, CLIENTS);
    assert_latch(&served, CLIENTS);
    assert_int_equal(latch_count(&accepted), CLIENTS);
    assert_int_equal(atomic_load(&wrong), 0);
    assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
    pool_end(tp);
}

TEST(the_very_pointer_and_its_native_descriptor_are_given_back)
{
    struct ns_thrpool_t *tp = pool_of(1);
    PRFileDesc *ends[2];
    tcp_pair(ends);
    int native = (int)PR_FileDesc2NativeHandle(ends[1]);
    struct probe probe = PROBE(NULL, -1);
    struct ns_job_t *job = probe_io(tp, ends[1], NS_JOB_READ, &probe);
    assert_ptr_equal(ns_job_get_fd(job), ends[1]);
    assert_int_equal(ns_job_get_native_fd(job), native);
    PR_Send(ends[0], "x", 1, 0, PR_INTERVAL_NO_WAIT);
    assert_latch(&probe.runs, 1);
    assert_int_equal(ns_job_wait(job), NS_SUCCESS);
    assert_ptr_equal(ns_job_get_fd(job), ends[1]);
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    assert_latch(&probe.disposals, 1);
    assert_false(fd_is_open(native));
    PR_Close(ends[0]);
    pool_end(tp);
}

TEST(time_out_on_an_nspr_descriptor_fires_alone)
{
    struct ns_thrpool_t *tp = pool_of(1);
    PRFileDesc *ends[2];
    tcp_pair(ends);
    struct probe probe = PROBE(finish_job, -1);
    struct timeval tv = {0, 10000};
    struct ns_job_t *job = NULL;
    double begin = now_seconds();
    assert_int_equal(ns_add_io_timeout_job(tp, ends[1], &tv, NS_JOB_READ | NS_JOB_UNARMED,
                                           probe_run, &probe, &job), NS_SUCCESS);
    probe_arm(job);
    assert_latch(&probe.disposals, 1);
    assert_true(now_seconds() - begin >= 0.01);
    assert_int_equal(atomic_load(&probe.output), NS_JOB_TIMER);
    PR_Close(ends[0]);
    pool_end(tp);
}

/* A layer, as TLS is one */

static PRIOMethods layer_methods;
static atomic_int layer_closes, layer_other_calls;

static PRStatus layer_close(PRFileDesc *fd)
{
    atomic_fetch_add(&layer_closes, 1);
    PRFileDesc *top = PR_PopIOLayer(fd, PR_TOP_IO_LAYER);
    PRStatus status = fd->methods->close(fd);
    top->dtor(top);
    return status;
}

static PRStatus layer_getsockname(PRFileDesc *fd, PRNetAddr *address)
{
    atomic_fetch_add(&layer_other_calls, 1);
    return PR_GetDefaultIOMethods()->getsockname(fd, address);
}

static PRInt16 layer_poll(PRFileDesc *fd, PRInt16 in_flags, PRInt16 *out_flags)
{
    atomic_fetch_add(&layer_other_calls, 1);
    return PR_GetDefaultIOMethods()->poll(fd, in_flags, out_flags);
}

/* Put the layer on a socket. */
static void push_layer(PRFileDesc *fd)
{
    layer_methods = *PR_GetDefaultIOMethods();
    layer_methods.close = layer_close;
    layer_methods.getsockname = layer_getsockname;
    layer_methods.poll = layer_poll;
    PRFileDesc *layer = PR_CreateIOLayerStub(PR_GetUniqueIdentity("a layer"), &layer_methods);
    assert_non_null(layer);
    assert_int_equal(PR_PushIOLayer(fd, PR_TOP_IO_LAYER, layer), PR_SUCCESS);
    atomic_store(&layer_closes, 0);
    atomic_store(&layer_other_calls, 0);
}

TEST(layer_sees_the_close_exactly_once)
{
    /* Done in the callback, done from outside, cancelled, destroyed with the pool. */
    for (int way = 0; way < 4; way++) {
        struct ns_thrpool_t *tp = pool_of(1);
        PRFileDesc *ends[2];
        tcp_pair(ends);
        push_layer(ends[1]);
        int native = (int)PR_FileDesc2NativeHandle(ends[1]);
        struct probe probe = PROBE(way == 0 ? finish_job : NULL, -1);
        struct ns_job_t *job = probe_io(tp, ends[1], NS_JOB_READ | NS_JOB_THREAD, &probe);
        if (way < 2) {
            PR_Send(ends[0], "x", 1, 0, PR_INTERVAL_NO_WAIT);
            assert_latch(&probe.runs, 1);
        }
        if (way == 1) {
            finish_idle(job);
        }
        if (way == 2) {
            assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
        }
        if (way < 3) {
            assert_latch(&probe.disposals, 1);
        }
        pool_end(tp);
        assert_int_equal(latch_count(&probe.disposals), 1);
        assert_int_equal(atomic_load(&layer_closes), 1);
        assert_int_equal(atomic_load(&layer_other_calls), 0);
        assert_false(fd_is_open(native));
        PR_Close(ends[0]);
    }
}

TEST(preserved_descriptor_is_never_touched)
{
    struct ns_thrpool_t *tp = pool_of(1);
    PRFileDesc *ends[2];
    tcp_pair(ends);
    push_layer(ends[1]);
    int native = (int)PR_FileDesc2NativeHandle(ends[1]);
    struct probe probe = PROBE(NULL, -1);
    struct ns_job_t *job =
        probe_io(tp, ends[1], NS_JOB_READ | NS_JOB_PERSIST | NS_JOB_PRESERVE_FD, &probe);
    /* The PRFileDesc is overwritten while the job is armed: the library must not look into it. */
    PRFileDesc kept = *ends[1];
    memset(ends[1], 0xa5, sizeof(*ends[1]));
    PR_Send(ends[0], "x", 1, 0, PR_INTERVAL_NO_WAIT);
    assert_latch(&probe.runs, 2);
    ns_job_cancel(job);
    assert_latch(&probe.disposals, 1);
    *ends[1] = kept;
    assert_true(fd_is_open(native));
    assert_int_equal(atomic_load(&layer_closes), 0);
    assert_int_equal(atomic_load(&layer_other_calls), 0);
    PR_Close(ends[0]);
    PR_Close(ends[1]);
    assert_int_equal(atomic_load(&layer_closes), 1);
    pool_end(tp);
}

TEST(descriptor_without_an_open_native_handle_is_refused)
{
    struct ns_thrpool_t *tp = pool_logging_to(1, recording_log);
    struct timeval tv = {1, 0};
    PRFileDesc *ends[2];
    tcp_pair(ends);
    PRFileDesc *bad[2] = {
        /* A layer without a descriptor below, and one whose descriptor was closed. */
        PR_CreateIOLayerStub(PR_GetUniqueIdentity("on nothing"), PR_GetDefaultIOMethods()),
        ends[1],
    };
    close((int)PR_FileDesc2NativeHandle(ends[1]));
    for (int i = 0; i < 2; i++) {
        int errors = count_logged_errors();
        struct ns_job_t *job = (struct ns_job_t *)&tv;
        assert_int_equal(ns_add_io_job(tp, bad[i], NS_JOB_READ, finish_job, NULL, &job),
                         NS_INVALID_REQUEST);
        assert_null(job);
        job = (struct ns_job_t *)&tv;
        assert_int_equal(ns_add_io_timeout_job(tp, bad[i], &tv, NS_JOB_READ, finish_job, NULL,
                                               &job), NS_INVALID_REQUEST);
        assert_null(job);
        assert_int_equal(count_logged_errors(), errors + 2);
    }
    pool_end(tp);
    PR_ChangeFileDescNativeHandle(ends[1], dup(STDIN_FILENO));
    PR_Close(ends[0]);
    PR_Close(ends[1]);
    bad[0]->dtor(bad[0]);
}

/* See both calls refuse, each with one message in the log that names the function and has this
 * word. */
static void refused_by_both(struct ns_thrpool_t *tp, PRFileDesc *fd, ns_job_type_t type,
                            ns_job_func_t func, const char *word)
{
    struct timeval tv = {1, 0};
    for (int with_time = 0; with_time < 2; with_time++) {
        struct ns_job_t *job = (struct ns_job_t *)&tv;
        int errors = count_logged_errors();
        ns_result_t result = with_time ? ns_add_io_timeout_job(tp, fd, &tv, type, func, NULL, &job)
                                       : ns_add_io_job(tp, fd, type, func, NULL, &job);
        assert_int_equal(result, NS_INVALID_REQUEST);
        assert_null(job);
        assert_int_equal(count_logged_errors(), errors + 1);
        assert_true(logged(with_time ? "ns_add_io_timeout_job:" : "ns_add_io_job:"));
        assert_true(logged(word));
    }
}

TEST(flags_and_callbacks_that_are_no_good_are_refused)
{
    struct ns_thrpool_t *tp = pool_logging_to(1, recording_log);
    PRFileDesc *ends[2];
    tcp_pair(ends);
    push_layer(ends[1]);
    int native = (int)PR_FileDesc2NativeHandle(ends[1]);
    refused_by_both(tp, ends[1], NS_JOB_READ, NULL, "func");
    const ns_job_type_t without[] = {NS_JOB_NONE, NS_JOB_TIMER, NS_JOB_THREAD, NS_JOB_PRESERVE_FD};
    for (size_t i = 0; i < 4; i++) {
        refused_by_both(tp, ends[1], without[i], finish_job, "job_type");
    }
    for (unsigned bit = 11; bit < 8 * sizeof(ns_job_type_t); bit++) {
        ns_job_type_t type = NS_JOB_READ | (ns_job_type_t)1 << bit;
        refused_by_both(tp, ends[1], type, finish_job, "job_type");
    }
    refused_by_both(tp, ends[1], NS_JOB_READ | NS_JOB_SIGNAL, finish_job, "job_type");
    refused_by_both(tp, ends[1], NS_JOB_READ | NS_JOB_SHUTDOWN_WORKER, finish_job,
                    "NS_JOB_SHUTDOWN_WORKER");
    refused_by_both(tp, ends[1], NS_JOB_ACCEPT | NS_JOB_THREAD, finish_job, "ACCEPT");
    refused_by_both(tp, NULL, NS_JOB_READ, finish_job, "fd");
    struct timeval tv = {1, 0};
    assert_int_equal(ns_add_io_job(tp, ends[1], NS_JOB_READ | NS_JOB_UNARMED, finish_job, NULL,
                                   NULL), NS_INVALID_REQUEST);
    assert_true(logged("ns_add_io_job: job is NULL"));
    assert_int_equal(ns_add_io_timeout_job(tp, ends[1], &tv, NS_JOB_READ | NS_JOB_UNARMED,
                                           finish_job, NULL, NULL), NS_INVALID_REQUEST);
    assert_true(logged("ns_add_io_timeout_job: job is NULL"));
    assert_int_equal(ns_add_io_job(NULL, ends[1], NS_JOB_READ, finish_job, NULL, NULL),
                     NS_INVALID_REQUEST);
    pool_end(tp);
    assert_int_equal(atomic_load(&layer_closes), 0);
    assert_true(fd_is_open(native));
    PR_Close(ends[0]);
    PR_Close(ends[1]);
}

TEST(several_jobs_on_one_descriptor_close_it_once)
{
    struct ns_thrpool_t *tp = pool_of(2);
    struct timeval far = {1000, 0};
    /* Which of three jobs preserves the descriptor, which ends first, and whether the last is
     * armed. */
    static const int orders[6][3] = {{0, 1, 2}, {0, 2, 1}, {1, 0, 2},
                                     {1, 2, 0}, {2, 0, 1}, {2, 1, 0}};
    for (int mix = 0; mix < 8 * 6 * 2; mix++) {
        const int *order = orders[mix / 8 % 6];
        int keep = mix % 8, unarmed = mix / 48, wanted = 0;
        PRFileDesc *ends[2];
        tcp_pair(ends);
        push_layer(ends[1]);
        int native = (int)PR_FileDesc2NativeHandle(ends[1]);
        struct probe probe = PROBE(NULL, -1);
        struct ns_job_t *jobs[3] = {NULL};
        for (int i = 0; i < 3; i++) {
            ns_job_type_t type = NS_JOB_READ | NS_JOB_UNARMED | (i == 1 ? NS_JOB_THREAD : 0) |
                                 (keep >> i & 1 ? NS_JOB_PRESERVE_FD : 0);
            assert_int_equal(ns_add_io_timeout_job(tp, ends[1], &far, type, probe_run, &probe,
                                                   &jobs[i]), NS_SUCCESS);
            assert_int_equal(ns_job_set_done_cb(jobs[i], probe_gone), NS_SUCCESS);
            if (i < 2 || !unarmed) {
                assert_int_equal(ns_job_rearm(jobs[i]), NS_SUCCESS);
            }
        }
        /* Wait until the loop has armed it: armed after the close, it would fire. */
        loop_passes(tp, 0);
        for (int i = 0; i < 3; i++) {
            assert_int_equal(ns_job_cancel(jobs[order[i]]), NS_SUCCESS);
            assert_latch(&probe.disposals, i + 1);
            /* The first job that owns it has closed it. */
            wanted |= !(keep >> order[i] & 1);
            assert_int_equal(atomic_load(&layer_closes), wanted);
            assert_int_equal(fd_is_open(native), !wanted);
        }
        assert_int_equal(latch_count(&probe.runs), 0);
        PR_Close(ends[0]);
        if (!wanted) {
            PR_Close(ends[1]);
        }
    }
    pool_end(tp);
}

static atomic_int allocations_left, allocation_failed;

static void *calloc_that_fails_once(size_t count, size_t size)
{
    if (atomic_fetch_sub(&allocations_left, 1) == 1) {
        atomic_store(&allocation_failed, 1);
        return NULL;
    }
    return counting_calloc(count, size);
}

TEST(fm41_any_allocation_of_an_add_may_fail)
{
    struct timeval far = {1000, 0};
    int refused = 0;
    for (int with_time = 0; with_time < 2; with_time++) {
        for (int n = 1;; n++) {
            assert_true(n < 100);
            atomic_store(&allocations_left, 0);
            struct ns_thrpool_t *tp =
                pool_with(1, quiet_log, calloc_that_fails_once, counting_free);
            PRFileDesc *ends[2];
            tcp_pair(ends);
            push_layer(ends[1]);
            int native = (int)PR_FileDesc2NativeHandle(ends[1]);
            atomic_store(&allocation_failed, 0);
            atomic_store(&allocations_left, n);
            struct ns_job_t *job = (struct ns_job_t *)&far;
            ns_result_t result =
                with_time ? ns_add_io_timeout_job(tp, ends[1], &far, NS_JOB_READ, finish_job, NULL,
                                                  &job)
                          : ns_add_io_job(tp, ends[1], NS_JOB_READ, finish_job, NULL, &job);
            int failed = atomic_load(&allocation_failed);
            atomic_store(&allocations_left, 0);
            assert_int_equal(result, failed ? NS_ALLOCATION_FAILURE : NS_SUCCESS);
            if (failed) {
                assert_null(job);
                refused++;
            } else {
                assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
            }
            pool_end(tp);
            /* The descriptor is still the application's, unless a job was added. */
            assert_int_equal(atomic_load(&layer_closes), !failed);
            assert_int_equal(fd_is_open(native), failed);
            assert_int_equal(atomic_load(&blocks_out), 0);
            PR_Close(ends[0]);
            if (!failed) {
                break;
            }
            PR_Close(ends[1]);
        }
    }
    /* The job's allocation failed each time. The block of table entries is there already, because
     * the pool's own descriptors have entries in it. */
    assert_true(refused >= 2);
}

TEST(calls_in_a_forked_child_answer_shutdown_and_close_nothing)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct timeval tv = {1, 0};
    PRFileDesc *ends[2];
    tcp_pair(ends);
    push_layer(ends[1]);
    int native = (int)PR_FileDesc2NativeHandle(ends[1]);
    struct probe probe = PROBE(NULL, -1);
    struct ns_job_t *job = probe_io(tp, ends[1], NS_JOB_READ, &probe);
    loop_passes(tp, 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(LIMIT_SECONDS);
        struct ns_job_t *made = job;
        CHILD_CHECK(ns_add_io_job(tp, ends[1], NS_JOB_READ, finish_job, NULL, &made) ==
                    NS_SHUTDOWN && made == NULL);
        made = job;
        CHILD_CHECK(ns_add_io_timeout_job(tp, ends[1], &tv, NS_JOB_READ | NS_JOB_UNARMED,
                                          finish_job, NULL, &made) == NS_SHUTDOWN && made == NULL);
        CHILD_CHECK(ns_job_cancel(job) == NS_SHUTDOWN);
        CHILD_CHECK(ns_job_get_fd(job) == ends[1]);
        CHILD_CHECK(ns_job_get_native_fd(job) == native);
        ns_thrpool_destroy(tp);
        CHILD_CHECK(fd_is_open(native) && atomic_load(&layer_closes) == 0);
        _exit(42);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 42);
    /* The parent's job is unaffected. */
    PR_Send(ends[0], "x", 1, 0, PR_INTERVAL_NO_WAIT);
    assert_latch(&probe.runs, 1);
    ns_job_cancel(job);
    assert_latch(&probe.disposals, 1);
    assert_int_equal(atomic_load(&layer_closes), 1);
    PR_Close(ends[0]);
    pool_end(tp);
}

static int null_fd;

/* A logger and an allocator that are cancellation points. */
static void writing_log(int priority, const char *format, va_list args)
{
    quiet_log(priority, format, args);
    if (write(null_fd, "x", 1) != 1) {
        abort();
    }
}

static void *writing_calloc(size_t count, size_t size)
{
    if (write(null_fd, "x", 1) != 1) {
        abort();
    }
    return calloc(count, size);
}

struct cancelled {
    struct ns_thrpool_t *tp;
    PRFileDesc *fd;
    atomic_int survived;
};

static void *add_with_cancellation_pending(void *arg)
{
    struct cancelled *it = arg;
    struct timeval tv = {1, 0};
    struct ns_job_t *jobs[2] = {NULL, NULL};
    ns_job_type_t type = NS_JOB_READ | NS_JOB_PRESERVE_FD;
    pthread_cancel(pthread_self());
    ns_add_io_job(it->tp, it->fd, type, finish_job, NULL, &jobs[0]);
    ns_add_io_timeout_job(it->tp, it->fd, &tv, type, finish_job, NULL, &jobs[1]);
    ns_add_io_job(it->tp, it->fd, NS_JOB_NONE, finish_job, NULL, NULL);
    ns_add_io_timeout_job(it->tp, NULL, &tv, type, finish_job, NULL, NULL);
    ns_job_get_fd(jobs[0]);
    ns_job_cancel(jobs[0]);
    ns_job_cancel(jobs[1]);
    atomic_store(&it->survived, 1);
    pthread_testcancel();
    /* Not reached: the cancellation was pending all the time. */
    atomic_store(&it->survived, 0);
    return NULL;
}

TEST(adds_are_no_cancellation_points)
{
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.log_fct = writing_log;
    config.calloc_fct = writing_calloc;
    config.free_fct = free;
    null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    PRFileDesc *ends[2];
    tcp_pair(ends);
    struct cancelled it = {.tp = ns_thrpool_new(&config), .fd = ends[1]};
    assert_non_null(it.tp);
    pthread_t thread;
    void *result = NULL;
    pthread_create(&thread, NULL, add_with_cancellation_pending, &it);
    pthread_join(thread, &result);
    assert_ptr_equal(result, PTHREAD_CANCELED);
    assert_int_equal(atomic_load(&it.survived), 1);
    pool_end(it.tp);
    PR_Close(ends[0]);
    PR_Close(ends[1]);
    close(null_fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tcp_sockets_accept_connect_read_and_write),
        cmocka_unit_test(the_very_pointer_and_its_native_descriptor_are_given_back),
        cmocka_unit_test(time_out_on_an_nspr_descriptor_fires_alone),
        cmocka_unit_test(layer_sees_the_close_exactly_once),
        cmocka_unit_test(preserved_descriptor_is_never_touched),
        cmocka_unit_test(descriptor_without_an_open_native_handle_is_refused),
        cmocka_unit_test(flags_and_callbacks_that_are_no_good_are_refused),
        cmocka_unit_test(several_jobs_on_one_descriptor_close_it_once),
        cmocka_unit_test(calls_in_a_forked_child_answer_shutdown_and_close_nothing),
        cmocka_unit_test(adds_are_no_cancellation_points),
        cmocka_unit_test(fm41_any_allocation_of_an_add_may_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
