/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Adds of signal jobs that meet trouble: a system call that fails, no memory, others that set
 * handlers at the same time; and two copies of the library in one process.
 *
 * This program intercepts sigaction, as sanitizers do, so it does not run under them.
 */
#include "children.h"
#include "signals.h"

#include <dlfcn.h>
#include <sys/mman.h>

/* What happens to the library's calls of sigaction for one signal, counted from 1. */
static struct {
    atomic_int signum;
    atomic_int refuse;   /* the call that fails */
    atomic_int followed; /* the call right after which another handler is set */
    atomic_int calls;
} fate;

static void begin_fate(int signum, int refuse, int followed)
{
    atomic_store(&fate.calls, 0);
    atomic_store(&fate.refuse, refuse);
    atomic_store(&fate.followed, followed);
    atomic_store(&fate.signum, signum);
}

/* Returns how many calls there were. */
static int end_fate(void)
{
    atomic_store(&fate.signum, 0);
    return atomic_load(&fate.calls);
}

static int real_sigaction(int signum, const struct sigaction *new, struct sigaction *old)
{
    static int (*_Atomic real)(int, const struct sigaction *, struct sigaction *);
    if (real == NULL) {
        int (*next)(int, const struct sigaction *, struct sigaction *);
        *(void **)&next = dlsym(RTLD_NEXT, "sigaction");
        real = next;
    }
    return real(signum, new, old);
}

static atomic_int wrong_signal;

static void only_usr1(int signum)
{
    if (signum != SIGUSR1) {
        atomic_fetch_add(&wrong_signal, 1);
    }
}

int sigaction(int signum, const struct sigaction *new, struct sigaction *old)
{
    if (atomic_load(&fate.signum) != signum) {
        return real_sigaction(signum, new, old);
    }
    int call = atomic_fetch_add(&fate.calls, 1) + 1;
    if (call == atomic_load(&fate.refuse)) {
        errno = EPERM;
        return -1;
    }
    int result = real_sigaction(signum, new, old);
    if (call == atomic_load(&fate.followed)) {
        struct sigaction theirs;
        memset(&theirs, 0, sizeof theirs);
        theirs.sa_handler = only_usr1;
        real_sigaction(signum, &theirs, NULL);
    }
    return result;
}

/* Have the n-th call fail. Exits with 1 if there are fewer calls. */
static void fail_an_add(int n)
{
    int watched = n & 1;
    n >>= 1;
    struct ns_thrpool_t *keeper = pool_of(1);
    struct probe kept = PROBE(NULL, -1), probe = PROBE(NULL, -1);
    struct ns_job_t *keeping = NULL, *job = (struct ns_job_t *)&probe;
    struct sigaction before, after;
    atomic_store(&handled, 0);
    signal(SIGUSR1, count_handled);
    if (watched) {
        keeping = probe_signal(keeper, SIGUSR1, NS_JOB_PERSIST, &kept);
    }
    real_sigaction(SIGUSR1, NULL, &before);
    struct ns_thrpool_t *tp = pool_of(1);
    begin_fate(SIGUSR1, n, 0);
    ns_result_t result = ns_add_signal_job(tp, SIGUSR1, 0, probe_run, &probe, &job);
    if (end_fate() < n) {
        CHILD_CHECK(result == NS_SUCCESS);
        _exit(1);
    }
    CHILD_CHECK(result == NS_INVALID_REQUEST && job == NULL);
    real_sigaction(SIGUSR1, NULL, &after);
    CHILD_CHECK(before.sa_sigaction == after.sa_sigaction);
    ns_thrpool_destroy(tp);
    /* No handler refers to the pool any more. */
    for (int i = 0; i < 10; i++) {
        raise(SIGUSR1);
    }
    CHILD_CHECK(atomic_load(&handled) == (watched ? 0 : 10));
    if (watched) {
        CHILD_CHECK(latch_reaches(&kept.runs, 1));
        probe_cancel(keeping, &kept);
    }
    real_sigaction(SIGUSR1, NULL, &after);
    CHILD_CHECK(after.sa_handler == count_handled);
}

TEST(an_add_that_fails_leaves_nothing_behind)
{
    for (int watched = 0; watched < 2; watched++) {
        int n = 0, status = 0;
        while (status == 0) {
            n++;
            status = in_child_with(fail_an_add, n << 1 | watched);
        }
        assert_exits(status, 1);
        assert_true(n > 1);
    }
}

static atomic_int no_memory;

static void *failing_calloc(size_t count, size_t size)
{
    return atomic_load(&no_memory) ? NULL : calloc(count, size);
}

TEST(an_add_without_memory_touches_no_disposition)
{
    struct ns_job_t *job = NULL;
    struct ns_thrpool_t *tp = pool_with(1, quiet_log, failing_calloc, free);
    begin_fate(SIGUSR1, 0, 0);
    atomic_store(&no_memory, 1);
    assert_int_equal(ns_add_signal_job(tp, SIGUSR1, 0, probe_run, NULL, &job),
                     NS_ALLOCATION_FAILURE);
    atomic_store(&no_memory, 0);
    assert_int_equal(end_fate(), 0);
    pool_end(tp);
}

/* Another handler is set for a signal in the middle of the first add of a job for it. Jobs for a
 * different signal still fire, and that handler gets none of those signals. */

/* Runs in a process where neither signal was ever watched. Exits with 1 if there is no n-th call.
 * */
static void watch_beside_others_sigaction(int n)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct probe one = PROBE(NULL, -1), two = PROBE(NULL, -1), more = PROBE(NULL, -1);
    struct sigaction now;
    signal(SIGUSR2, count_handled);
    probe_signal(tp, SIGUSR2, NS_JOB_PERSIST, &two);
    begin_fate(SIGUSR1, 0, n);
    struct ns_job_t *job = probe_signal(tp, SIGUSR1, NS_JOB_PERSIST, &one);
    if (end_fate() < n) {
        _exit(1);
    }
    raise(SIGUSR2);
    CHILD_CHECK(latch_reaches(&two.runs, 1));
    CHILD_CHECK(atomic_load(&wrong_signal) == 0);
    /* Now the library's handler is installed, or theirs. With one more job it is the library's, and
     * in the end theirs or the one from before. */
    struct ns_job_t *another = probe_signal(tp, SIGUSR1, NS_JOB_PERSIST, &more);
    raise(SIGUSR1);
    CHILD_CHECK(latch_reaches(&more.runs, 1) && latch_reaches(&one.runs, 1));
    probe_cancel(job, &one);
    probe_cancel(another, &more);
    real_sigaction(SIGUSR1, NULL, &now);
    CHILD_CHECK(now.sa_handler == only_usr1 || now.sa_handler == SIG_DFL);
    ns_thrpool_destroy(tp);
}

TEST(handlers_that_others_set_during_an_add_are_not_taken_for_ours)
{
    int n = 0, status = 0;
    while (status == 0) {
        n++;
        status = in_child_with(watch_beside_others_sigaction, n);
    }
    assert_exits(status, 1);
    assert_true(n > 1);
}

/* A second copy of the library in this process, from a file of its own. */

struct copy {
    __typeof__(&ns_thrpool_config_init) config_init;
    __typeof__(&ns_thrpool_new) pool_new;
    __typeof__(&ns_thrpool_destroy) pool_destroy;
    __typeof__(&ns_add_signal_job) add_signal_job;
    __typeof__(&ns_job_cancel) job_cancel;
    struct ns_thrpool_t *tp;
    struct ns_job_t *job;
};

#define RESOLVE(handle, copy, field, name)                                                     \
    do {                                                                                       \
        *(void **)(&(copy)->field) = dlsym((handle), (name));                                  \
        assert_non_null((copy)->field);                                                        \
    } while (0)

static void load_copy(struct copy *copy)
{
    const char *file = getenv("NS_LIBRARY");
    char path[64], bytes[65536];
    int from = open(file != NULL ? file : "build/lib/libnunc-stans.so.0", O_RDONLY | O_CLOEXEC);
    int to = memfd_create("copy", MFD_CLOEXEC);
    assert_true(from >= 0 && to >= 0);
    for (ssize_t n; (n = read(from, bytes, sizeof bytes)) > 0;) {
        assert_int_equal(write(to, bytes, (size_t)n), n);
    }
    close(from);
    snprintf(path, sizeof path, "/proc/self/fd/%d", to);
    void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        fail_msg("%s", dlerror());
    }
    RESOLVE(handle, copy, config_init, "ns_thrpool_config_init");
    RESOLVE(handle, copy, pool_new, "ns_thrpool_new");
    RESOLVE(handle, copy, pool_destroy, "ns_thrpool_destroy");
    RESOLVE(handle, copy, add_signal_job, "ns_add_signal_job");
    RESOLVE(handle, copy, job_cancel, "ns_job_cancel");
    assert_true(copy->pool_new != ns_thrpool_new);
}

static atomic_int runs;

static void count_run(struct ns_job_t *job)
{
    UNUSED(job);
    atomic_fetch_add(&runs, 1);
}

static void copy_begin(struct copy *copy, int signum)
{
    struct ns_thrpool_config config;
    copy->config_init(&config);
    config.log_fct = quiet_log;
    copy->tp = copy->pool_new(&config);
    assert_non_null(copy->tp);
    assert_int_equal(copy->add_signal_job(copy->tp, signum, NS_JOB_PERSIST, count_run, NULL,
                                          &copy->job), NS_SUCCESS);
    atomic_store(&runs, 0);
    assert_int_equal(raise(signum), 0);
    EVENTUALLY(atomic_load(&runs) == 1);
}

static void copy_end(struct copy *copy)
{
    copy->job_cancel(copy->job);
    copy->pool_destroy(copy->tp);
}

/* Each copy finds the other's handler. The bits of `order` say which begins and ends first. */
static void two_copies(int order)
{
    struct copy copies[2] = {
        {ns_thrpool_config_init, ns_thrpool_new, ns_thrpool_destroy, ns_add_signal_job,
         ns_job_cancel, NULL, NULL},
    };
    load_copy(&copies[1]);
    int first = order & 1, then = (order >> 1) & 1, handler = order & 4;
    if (handler) {
        signal(SIGTERM, count_handled);
    }
    copy_begin(&copies[first], SIGTERM);
    copy_begin(&copies[!first], SIGTERM);
    struct sigaction saved;
    sigaction(SIGTERM, NULL, &saved);
    copy_end(&copies[first]);
    copy_begin(&copies[first], SIGTERM);
    copy_end(&copies[then]);
    copy_end(&copies[!then]);
    if (order & 8) {
        sigaction(SIGTERM, &saved, NULL);
    }
    atomic_store(&handled, 0);
    raise(SIGTERM);
    CHILD_CHECK(handler && atomic_load(&handled) == 1);
}

TEST(two_copies_of_the_library_find_each_others_handlers)
{
    for (int order = 0; order < 16; order++) {
        int status = in_child_with(two_copies, order);
        if (order & 4) {
            assert_exits(status, 0);
        } else {
            assert_killed_by(status, SIGTERM);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_add_that_fails_leaves_nothing_behind),
        cmocka_unit_test(an_add_without_memory_touches_no_disposition),
        cmocka_unit_test(handlers_that_others_set_during_an_add_are_not_taken_for_ours),
        cmocka_unit_test(two_copies_of_the_library_find_each_others_handlers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
