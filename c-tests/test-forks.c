/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Children beside a pool that watches signals: made by fork, by _Fork and clone, which run no fork
 * handlers, by vfork, and in a signal handler that has interrupted the library itself.
 */
#include "fm.h"

#include <dlfcn.h>
#include <sys/syscall.h>
#include <sys/wait.h>

/* In a child there is no test to fail: say what failed, and end. */
#define CHILD_CHECK(cond)                                                                      \
    do {                                                                                       \
        if (!(cond)) {                                                                         \
            fprintf(stderr, "# child: line %d: %s\n", __LINE__, #cond);                        \
            _exit(99);                                                                         \
        }                                                                                      \
    } while (0)

/* The ways to make a child. */

static pid_t by_fork(void)
{
    return fork();
}

/* Not in every C library: it is looked for. */
static pid_t (*found_fork)(void);

static pid_t by_raw_fork(void)
{
    return found_fork();
}

static pid_t by_clone(void)
{
    return (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
}

static pid_t (*const ways[])(void) = {by_fork, by_clone, by_raw_fork};

static int count_of_ways(void)
{
    *(void **)&found_fork = dlsym(RTLD_DEFAULT, "_Fork");
    return found_fork != NULL ? 3 : 2;
}

static int in_child(pid_t (*make)(void), void (*body)(void *), void *arg)
{
    fflush(NULL);
    pid_t child = make();
    if (child == 0) {
        alarm(LIMIT_SECONDS);
        body(arg);
        _exit(0);
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    return status;
}

#define assert_exits(status, code)                                                             \
    do {                                                                                       \
        int exits_status = (status);                                                           \
        if (!WIFEXITED(exits_status) || WEXITSTATUS(exits_status) != (code)) {                 \
            fail_msg("wait status %#x, wanted exit status %d", exits_status, (code));          \
        }                                                                                      \
    } while (0)

static struct ns_job_t *probe_signal(struct ns_thrpool_t *tp, int signum, struct probe *probe)
{
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_signal_job(tp, signum, NS_JOB_PERSIST | NS_JOB_UNARMED, probe_run, probe,
                                       &job), NS_SUCCESS);
    return probe_arm(job);
}

static void cancel(struct ns_job_t *job, struct probe *probe)
{
    ns_result_t result = ns_job_cancel(job);
    assert_true(result == NS_SUCCESS || result == NS_RUNNING);
    assert_latch(&probe->disposals, 1);
}

/* What the parent watches is as it was in the child */

static atomic_int handled;

static void count_handled(int signum)
{
    UNUSED(signum);
    atomic_fetch_add(&handled, 1);
}

static void get_a_term(void *expected)
{
    kill(getpid(), SIGTERM);
    CHILD_CHECK(atomic_load(&handled) == *(int *)expected);
}

TEST(a_child_gets_its_signals_as_before_the_first_job)
{
    static void (*const earlier[])(int) = {SIG_DFL, SIG_IGN, count_handled};
    int ways_there_are = count_of_ways();
    for (int i = 0; i < 3; i++) {
        int expected = i == 2;
        signal(SIGTERM, earlier[i]);
        struct ns_thrpool_t *tp = pool_of(1);
        struct probe probe = PROBE(NULL, -1);
        struct ns_job_t *job = probe_signal(tp, SIGTERM, &probe);
        for (int way = 0; way < ways_there_are; way++) {
            int status = in_child(ways[way], get_a_term, &expected);
            if (earlier[i] == SIG_DFL) {
                assert_true(WIFSIGNALED(status));
                assert_int_equal(WTERMSIG(status), SIGTERM);
            } else {
                assert_exits(status, 0);
            }
        }
        /* Nothing of that has come to the parent. */
        loop_passes(tp, 1000);
        assert_int_equal(latch_count(&probe.runs), 0);
        assert_int_equal(raise(SIGTERM), 0);
        assert_latch(&probe.runs, 1);
        assert_int_equal(atomic_load(&handled), 0);
        cancel(job, &probe);
        pool_end(tp);
        signal(SIGTERM, SIG_DFL);
    }
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"

/* Such a child shares the memory, and not the signals. */
TEST(a_child_of_vfork_gets_its_signals_as_before_the_first_job)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct probe probe = PROBE(NULL, -1);
    struct ns_job_t *job = probe_signal(tp, SIGTERM, &probe);
    int status = -1;
    pid_t child = vfork();
    if (child == 0) {
        syscall(SYS_kill, syscall(SYS_getpid), SIGTERM);
        _exit(0);
    }
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGTERM);
    loop_passes(tp, 1000);
    assert_int_equal(latch_count(&probe.runs), 0);
    assert_int_equal(raise(SIGTERM), 0);
    assert_latch(&probe.runs, 1);
    cancel(job, &probe);
    pool_end(tp);
}

#pragma GCC diagnostic pop

/* The parent's pool, and one of its own, in a child */

struct parent {
    struct ns_thrpool_t *tp;
    struct ns_job_t *watching, *idle;
    struct probe watched;
    int pool_fds;
};

/* Without stopping the test, which is in the parent: whether a pool of one's own serves signals. */
static void use_a_pool_of_ones_own(void)
{
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.log_fct = quiet_log;
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    CHILD_CHECK(tp != NULL);
    for (int i = 0; i < 2; i++) {
        struct probe probe = PROBE(NULL, -1);
        struct ns_job_t *job = NULL;
        CHILD_CHECK(ns_add_signal_job(tp, SIGTERM, NS_JOB_PERSIST | NS_JOB_UNARMED, probe_run,
                                      &probe, &job) == NS_SUCCESS);
        ns_job_set_done_cb(job, probe_gone);
        CHILD_CHECK(ns_job_rearm(job) == NS_SUCCESS);
        kill(getpid(), SIGTERM);
        CHILD_CHECK(latch_reaches(&probe.runs, 1));
        ns_job_cancel(job);
        CHILD_CHECK(latch_reaches(&probe.disposals, 1));
    }
    ns_thrpool_destroy(tp);
    struct sigaction now;
    CHILD_CHECK(sigaction(SIGTERM, NULL, &now) == 0 && now.sa_handler == SIG_IGN);
}

static void call_all(void *arg)
{
    struct parent *parent = arg;
    struct ns_job_t *job = NULL;
    struct timeval tv = {1, 0};
    CHILD_CHECK(ns_thrpool_is_shutdown(parent->tp) == 1);
    CHILD_CHECK(ns_add_signal_job(parent->tp, SIGUSR1, 0, probe_run, NULL, &job) == NS_SHUTDOWN);
    CHILD_CHECK(job == NULL);
    CHILD_CHECK(ns_add_signal_job(parent->tp, SIGTERM, 0, probe_run, NULL, NULL) == NS_SHUTDOWN);
    CHILD_CHECK(ns_add_job(parent->tp, NS_JOB_THREAD, probe_run, NULL, NULL) == NS_SHUTDOWN);
    CHILD_CHECK(ns_job_wait(parent->watching) == NS_SHUTDOWN);
    CHILD_CHECK(ns_job_timedwait(parent->watching, &tv) == NS_SHUTDOWN);
    CHILD_CHECK(ns_job_cancel(parent->watching) == NS_SHUTDOWN);
    CHILD_CHECK(ns_job_done(parent->idle) == NS_SHUTDOWN);
    CHILD_CHECK(ns_job_rearm(parent->idle) == NS_SHUTDOWN);
    ns_thrpool_shutdown(parent->tp);
    CHILD_CHECK(ns_thrpool_wait(parent->tp) == NS_SHUTDOWN);
    use_a_pool_of_ones_own();
    int before = count_fds();
    ns_thrpool_destroy(parent->tp);
    CHILD_CHECK(count_fds() == before - parent->pool_fds);
    use_a_pool_of_ones_own();
}

/* And a child of that child, which had a pool too. */
static void call_all_in_a_grandchild(void *arg)
{
    use_a_pool_of_ones_own();
    for (int way = 0; way < count_of_ways(); way++) {
        int status = -1;
        pid_t child = ways[way]();
        if (child == 0) {
            alarm(LIMIT_SECONDS);
            call_all(arg);
            _exit(0);
        }
        CHILD_CHECK(waitpid(child, &status, 0) == child && status == 0);
    }
}

TEST(children_answer_and_have_pools_of_their_own)
{
    struct parent parent = {.watched = PROBE(NULL, -1)};
    int before = count_fds();
    signal(SIGTERM, SIG_IGN);
    parent.tp = pool_of(1);
    parent.pool_fds = count_fds() - before;
    parent.watching = probe_signal(parent.tp, SIGTERM, &parent.watched);
    assert_int_equal(ns_create_job(parent.tp, NS_JOB_THREAD, finish_job, &parent.idle), NS_SUCCESS);
    loop_passes(parent.tp, 0);
    for (int way = 0; way < count_of_ways(); way++) {
        assert_exits(in_child(ways[way], call_all, &parent), 0);
        assert_exits(in_child(ways[way], call_all_in_a_grandchild, &parent), 0);
    }
    assert_int_equal(latch_count(&parent.watched.runs), 0);
    assert_int_equal(raise(SIGTERM), 0);
    assert_latch(&parent.watched.runs, 1);
    cancel(parent.watching, &parent.watched);
    assert_int_equal(ns_job_done(parent.idle), NS_SUCCESS);
    pool_end(parent.tp);
    struct sigaction now;
    assert_int_equal(sigaction(SIGTERM, NULL, &now), 0);
    assert_true(now.sa_handler == SIG_IGN);
    signal(SIGTERM, SIG_DFL);
}

/* A fork in a handler that has interrupted the library */

/* A child's allocations would wait for ever for what this thread was in the middle of: there the
 * handler does not fork. Nobody promises that fork may be called there. */
static _Thread_local volatile int allocating;

void *__libc_malloc(size_t);
void *__libc_calloc(size_t, size_t);
void *__libc_realloc(void *, size_t);
void *__libc_memalign(size_t, size_t);
void __libc_free(void *);

#define ALLOCATING(call)                                                                       \
    do {                                                                                       \
        allocating++;                                                                          \
        call;                                                                                  \
        allocating--;                                                                          \
    } while (0)

void *malloc(size_t size)
{
    void *block;
    ALLOCATING(block = __libc_malloc(size));
    return block;
}

void *calloc(size_t count, size_t size)
{
    void *block;
    ALLOCATING(block = __libc_calloc(count, size));
    return block;
}

void *realloc(void *old, size_t size)
{
    void *block;
    ALLOCATING(block = __libc_realloc(old, size));
    return block;
}

int posix_memalign(void **block, size_t alignment, size_t size)
{
    ALLOCATING(*block = __libc_memalign(alignment, size));
    return *block == NULL ? ENOMEM : 0;
}

void free(void *block)
{
    ALLOCATING(__libc_free(block));
}

static atomic_int handled, forks, broken, broken_status;
/* Not on stacks alone: valgrind would take it for lost in a child, which has one of them. */
static struct ns_thrpool_t *forked_beside[2];
static volatile sig_atomic_t is_child;

static void fork_in_handler(int signum)
{
    UNUSED(signum);
    int error = errno;
    if (allocating || is_child) {
        atomic_fetch_add(&handled, 1);
        return;
    }
    pid_t child = fork();
    if (child == 0) {
        alarm(LIMIT_SECONDS);
        is_child = 1;
        signal(SIGTERM, SIG_IGN);
        use_a_pool_of_ones_own();
        /* And back into the frames of the library that were interrupted. */
        errno = error;
        return;
    }
    int status = -1;
    while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
    if (status != 0) {
        atomic_fetch_add(&broken, 1);
        atomic_store(&broken_status, status);
    }
    atomic_fetch_add(&forks, 1);
    atomic_fetch_add(&handled, 1);
    errno = error;
}

static atomic_int stop;

static void *add_and_cancel(void *tp)
{
    while (!atomic_load(&stop) && !is_child) {
        struct ns_job_t *job = NULL;
        ns_result_t result = ns_add_signal_job(tp, SIGUSR2, 0, finish_job, NULL, &job);
        if (is_child) {
            _exit(result == NS_SHUTDOWN || result == NS_SUCCESS ? 0 : 98);
        }
        CHILD_CHECK(result == NS_SUCCESS);
        result = ns_job_cancel(job);
        if (!is_child) {
            CHILD_CHECK(result == NS_SUCCESS);
        }
    }
    if (is_child) {
        _exit(0);
    }
    return NULL;
}

TEST(a_fork_in_a_handler_inside_the_library_leaves_all_sound)
{
    if (getenv("NS_SLOW") != NULL) {
        /* Valgrind looks for leaks in each child. A job that a thread is adding or the loop is
         * disposing of is known to that thread's stack alone, and a child has only the stack of the
         * thread that forked: there it takes the job of any other for lost. */
        skip();
    }
    pthread_t threads[2];
    signal(SIGUSR1, fork_in_handler);
    atomic_store(&stop, 0);
    /* A pool each: a child that goes on in the middle of an add may wait for ever for a thread of the
     * parent's that was in the middle of another to the same pool (docs/NOTES.md). */
    for (int i = 0; i < 2; i++) {
        forked_beside[i] = pool_of(1);
        pthread_create(&threads[i], NULL, add_and_cancel, forked_beside[i]);
    }
    double end = now_seconds() + LIMIT_SECONDS;
    int wanted = scaled(300);
    for (unsigned i = 0; atomic_load(&forks) < wanted && now_seconds() < end; i++) {
        int before = atomic_load(&handled);
        pthread_kill(threads[i % 2], SIGUSR1);
        SOON(atomic_load(&handled) > before);
        /* The next comes upon the thread at another step. */
        for (volatile unsigned spin = i % 64 * 200; spin > 0; spin--) {
        }
    }
    atomic_store(&stop, 1);
    pthread_join(threads[0], NULL);
    pthread_join(threads[1], NULL);
    signal(SIGUSR1, SIG_DFL);
    assert_true(atomic_load(&forks) > 0);
    if (atomic_load(&broken) > 0) {
        fail_msg("%d children, the last with status %#x", atomic_load(&broken),
                 (unsigned)atomic_load(&broken_status));
    }
    /* The parent's pools have noticed nothing. */
    for (int i = 0; i < 2; i++) {
        struct probe probe = PROBE(NULL, -1);
        struct ns_job_t *job = probe_signal(forked_beside[i], SIGUSR2, &probe);
        assert_int_equal(raise(SIGUSR2), 0);
        assert_latch(&probe.runs, 1);
        cancel(job, &probe);
        pool_end(forked_beside[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_child_gets_its_signals_as_before_the_first_job),
        cmocka_unit_test(a_child_of_vfork_gets_its_signals_as_before_the_first_job),
        cmocka_unit_test(children_answer_and_have_pools_of_their_own),
        cmocka_unit_test(a_fork_in_a_handler_inside_the_library_leaves_all_sound),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
