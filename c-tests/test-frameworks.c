/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Event frameworks: the names, several in one process, one of the application's own and what it may do
 * wrong, and what does not hold over some. frameworks.sh runs the other tests over each of them.
 */
#include "children.h"
#include "frameworks.h"

#define FRAMEWORK_ONLY
#include "../examples/framework-poll.c"

#include <dlfcn.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

/*
 * An application may have functions of the same names as libevent, whose symbols have no versions. This
 * one exports two. libevent must call its own.
 */
static atomic_int mixed_up;

int event_del(void *event);
int event_base_loopbreak(void *base);

int event_del(void *event)
{
    UNUSED(event);
    atomic_fetch_add(&mixed_up, 1);
    return -1;
}

int event_base_loopbreak(void *base)
{
    UNUSED(base);
    atomic_fetch_add(&mixed_up, 1);
    return -1;
}

static const char *const names[] = {
    "native",      "portable",    "libevent", "libevent:epoll",  "libevent:poll", "libevent:select",
    "tevent",      "tevent:poll", "tevent:standard",
};
enum { NAMES = sizeof names / sizeof *names };

static struct ns_thrpool_t *try_with(const struct ns_thrpool_options *options)
{
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.max_threads = 2;
    config.log_fct = recording_log;
    config.calloc_fct = counting_calloc;
    config.free_fct = counting_free;
    return ns_thrpool_new_with(&config, options);
}

static struct ns_thrpool_t *pool_over(const char *name)
{
    struct ns_thrpool_options options;
    ns_thrpool_options_init(&options, sizeof options);
    options.framework = name;
    return made_over(name, try_with(&options));
}

static struct ns_thrpool_t *pool_over_table(const struct ns_framework *table)
{
    struct ns_thrpool_options options;
    ns_thrpool_options_init(&options, sizeof options);
    options.custom = table;
    return try_with(&options);
}

TEST(each_is_named_as_it_was_asked_for)
{
    int fds = count_fds(), threads = count_threads();
    for (int i = 0; i < NAMES; i++) {
        char name[32];
        snprintf(name, sizeof name, "%s", names[i]);
        struct ns_thrpool_t *tp = pool_over(name);
        memset(name, 'x', sizeof name);
        assert_string_equal(ns_thrpool_get_framework(tp), names[i]);
        works(tp);
        pool_end(tp);
    }
    assert_nothing_left(fds, threads);
    assert_int_equal(atomic_load(&blocks_out), 0);
    assert_int_equal(atomic_load(&mixed_up), 0);
}

TEST(pools_over_each_live_side_by_side)
{
    struct ns_thrpool_t *pools[NAMES];
    int ends[NAMES][2];
    struct probe probes[NAMES];
    for (int i = 0; i < NAMES; i++) {
        pools[i] = pool_over(names[i]);
        socket_pair(ends[i]);
        probes[i] = (struct probe)PROBE(finish_job, ends[i][0]);
        probe_fd(pools[i], NS_JOB_READ, 0, &probes[i]);
    }
    for (int i = NAMES - 1; i >= 0; i--) {
        assert_int_equal(write(ends[i][1], "x", 1), 1);
        assert_latch(&probes[i].disposals, 1);
        close(ends[i][1]);
    }
    for (int i = 0; i < NAMES; i++) {
        pool_end(pools[i]);
    }
}

static void *make_and_destroy(void *name)
{
    for (int i = 0; i < 10; i++) {
        struct ns_thrpool_t *tp = pool_over(name);
        loop_passes(tp, 0);
        pool_end(tp);
    }
    return NULL;
}

TEST(pools_are_made_and_destroyed_by_several_threads_at_once)
{
    pthread_t threads[NAMES];
    for (int i = 0; i < NAMES; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, make_and_destroy, (void *)names[i]), 0);
    }
    for (int i = 0; i < NAMES; i++) {
        pthread_join(threads[i], NULL);
    }
}

/* A base of the application's own, in the same process, with a function of its own in between. */
TEST(an_application_may_use_libevent_too)
{
    void *library = dlopen("libevent_core-2.1.so.7", RTLD_NOW | RTLD_GLOBAL);
    assert_non_null(library);
    void *(*base_new)(void);
    void (*base_free)(void *);
    int (*base_loop)(void *, int);
    *(void **)&base_new = dlsym(library, "event_base_new");
    *(void **)&base_free = dlsym(library, "event_base_free");
    *(void **)&base_loop = dlsym(library, "event_base_loop");
    void *base = base_new();
    struct ns_thrpool_t *tp = pool_over("libevent");
    assert_int_equal(base_loop(base, 2), 1); /* EVLOOP_NONBLOCK; it has no events */
    works(tp);
    base_free(base);
    works(tp);
    pool_end(tp);
}

TEST(a_table_without_a_member_is_refused)
{
    const struct ns_framework whole = framework_poll();
    struct ns_framework table;
    int fds = count_fds();
#define WITHOUT(member, what)                                                                  \
    table = whole;                                                                             \
    table.member = NULL;                                                                       \
    assert_null(pool_over_table(&table));                                                      \
    assert_true(logged("ns_thrpool_new_with: custom has no " what))
    WITHOUT(name, "name");
    WITHOUT(open, "open");
    WITHOUT(watch, "watch");
    WITHOUT(unwatch, "unwatch");
    WITHOUT(wait, "wait");
    WITHOUT(close, "close");
    table = whole;
    table.name = "";
    assert_null(pool_over_table(&table));
    assert_true(logged("custom has no name"));
    for (size_t size = 0; size < sizeof table; size++) {
        table = whole;
        table.size = size;
        assert_null(pool_over_table(&table));
        assert_true(logged("custom's size is that of no version"));
    }
    union {
        struct ns_framework table;
        char bytes[sizeof(struct ns_framework) + 8];
    } larger;
    memset(&larger, 0, sizeof larger);
    larger.table = whole;
    larger.table.size = sizeof larger;
    struct ns_thrpool_t *tp = pool_over_table(&larger.table);
    assert_non_null(tp);
    pool_end(tp);
    larger.bytes[sizeof larger - 1] = 1;
    assert_null(pool_over_table(&larger.table));
    assert_true(logged("members set that this version does not know"));
    assert_int_equal(count_fds(), fds);
}

/* A framework that does what it is told to do wrong. */
static struct {
    atomic_int opens, closes, refuse_open, waits, wait_error, watch_error, watch_fd, noise;
} faulty;

static void *faulty_open(void *arg)
{
    assert_ptr_equal(arg, &faulty);
    if (atomic_load(&faulty.refuse_open)) {
        return NULL;
    }
    atomic_fetch_add(&faulty.opens, 1);
    return fw_open(NULL);
}

static int faulty_watch(void *fw, int fd, uint64_t key, int interest, int flags)
{
    if (fd == atomic_load(&faulty.watch_fd) && atomic_load(&faulty.watch_error) != 0) {
        return atomic_load(&faulty.watch_error);
    }
    return fw_watch(fw, fd, key, interest, flags);
}

static int faulty_wait(void *fw, struct ns_framework_event *events, int max, int64_t until)
{
    atomic_fetch_add(&faulty.waits, 1);
    if (atomic_load(&faulty.wait_error) != 0) {
        errno = atomic_load(&faulty.wait_error);
        return -1;
    }
    int found = fw_wait(fw, events, max, until);
    if (atomic_load(&faulty.noise) && found >= 0 && found + 2 < max) {
        /* A key that nobody has, one without a direction, and more events than there are. */
        events[found].key = 0x123400000bad;
        events[found++].ready = NS_JOB_READ | NS_JOB_WRITE;
        events[found].key = 0xffffffffffffffff;
        events[found++].ready = 0;
    }
    return found;
}

static void faulty_close(void *fw, int in_child)
{
    atomic_fetch_add(&faulty.closes, 1);
    fw_close(fw, in_child);
}

static struct ns_framework faulty_table(void)
{
    struct ns_framework table = framework_poll();
    memset(&faulty, 0, sizeof faulty);
    table.name = "faulty";
    table.arg = &faulty;
    table.open = faulty_open;
    table.watch = faulty_watch;
    table.wait = faulty_wait;
    table.close = faulty_close;
    return table;
}

TEST(open_that_returns_null_makes_no_pool)
{
    struct ns_framework table = faulty_table();
    int fds = count_fds(), threads = count_threads();
    atomic_store(&faulty.refuse_open, 1);
    assert_null(pool_over_table(&table));
    assert_true(logged("ns_thrpool_new_with: open of the framework returned NULL"));
    assert_nothing_left(fds, threads);
    assert_int_equal(atomic_load(&faulty.closes), 0);
}

TEST(the_table_and_its_name_are_copied)
{
    struct ns_framework table = faulty_table();
    char name[] = "mine";
    table.name = name;
    struct ns_thrpool_t *tp = pool_over_table(&table);
    memset(&table, 0, sizeof table);
    memset(name, 'x', 4);
    assert_string_equal(ns_thrpool_get_framework(tp), "mine");
    works(tp);
    pool_end(tp);
    assert_int_equal(atomic_load(&faulty.opens), 1);
    assert_int_equal(atomic_load(&faulty.closes), 1);
}

TEST(a_wait_that_fails_is_logged_once_and_tried_again)
{
    struct ns_framework table = faulty_table();
    struct ns_thrpool_t *tp = pool_over_table(&table);
    int ends[2];
    socket_pair(ends);
    struct probe probe = PROBE(finish_job, ends[0]);
    probe_fd(tp, NS_JOB_READ, 0, &probe);
    loop_passes(tp, 0);
    atomic_store(&faulty.wait_error, ENOMEM);
    int waits = atomic_load(&faulty.waits);
    double cpu = cpu_seconds();
    /* Timers come though nothing can be waited for. */
    for (int i = 0; i < 5; i++) {
        loop_passes(tp, 20000);
    }
    assert_true(getenv("NS_SLOW") != NULL || cpu_seconds() - cpu < 0.05);
    assert_true(atomic_load(&faulty.waits) - waits < 200);
    atomic_store(&faulty.wait_error, 0);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_latch(&probe.disposals, 1);
    works(tp);
    pool_end(tp);
    close(ends[1]);
    assert_true(atomic_load(&faulty.opens) > 1);
    assert_int_equal(atomic_load(&faulty.closes), atomic_load(&faulty.opens));
}

TEST(a_descriptor_that_is_refused_is_tried_again)
{
    struct ns_framework table = faulty_table();
    struct ns_thrpool_t *tp = pool_over_table(&table);
    int ends[2], errors = count_logged_errors();
    socket_pair(ends);
    struct probe probe = PROBE(NULL, ends[0]);
    atomic_store(&faulty.watch_fd, ends[0]);
    atomic_store(&faulty.watch_error, ENOSPC);
    struct ns_job_t *job = probe_fd(tp, NS_JOB_READ | NS_JOB_PERSIST, 10000, &probe);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_latch(&probe.runs, 3);
    assert_int_equal(atomic_load(&probe.output), NS_JOB_TIMER);
    assert_int_equal(count_logged_errors(), errors + 1);
    assert_true(logged("refuses descriptor"));
    atomic_store(&faulty.watch_error, 0);
    EVENTUALLY(atomic_load(&probe.output) == NS_JOB_READ);
    probe_cancel(job, &probe);
    close(ends[1]);

    /* Always ready, it says. */
    socket_pair(ends);
    struct probe ready = PROBE(finish_job, ends[0]);
    atomic_store(&faulty.watch_fd, ends[0]);
    atomic_store(&faulty.watch_error, EPERM);
    probe_fd(tp, NS_JOB_READ, 0, &ready);
    assert_latch(&ready.disposals, 1);
    assert_int_equal(atomic_load(&ready.output), NS_JOB_READ);
    atomic_store(&faulty.watch_error, 0);
    close(ends[1]);
    works(tp);
    pool_end(tp);
}

TEST(spurious_events_do_no_harm)
{
    struct ns_framework table = faulty_table();
    struct ns_thrpool_t *tp = pool_over_table(&table);
    atomic_store(&faulty.noise, 1);
    for (int i = 0; i < 20; i++) {
        works(tp);
    }
    assert_int_equal(atomic_load(&faulty.opens), 1);
    pool_end(tp);
}

/* Numbers from 1024: the job fires by its time-out, the log says why, and others go on. */
TEST(select_has_no_place_for_large_numbers)
{
    struct rlimit limit;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_max < 1100) {
        skip();
    }
    limit.rlim_cur = limit.rlim_max < 4096 ? limit.rlim_max : 4096;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    struct ns_thrpool_t *tp = pool_over("libevent:select");
    int ends[2], high, errors = count_logged_errors();
    socket_pair(ends);
    high = fcntl(ends[0], F_DUPFD_CLOEXEC, 1024);
    assert_true(high >= 1024);
    struct probe probe = PROBE(finish_job, high);
    assert_int_equal(write(ends[1], "x", 1), 1);
    probe_fd(tp, NS_JOB_READ, 20000, &probe);
    assert_latch(&probe.disposals, 1);
    assert_int_equal(atomic_load(&probe.output), NS_JOB_TIMER);
    assert_int_equal(count_logged_errors(), errors + 1);
    assert_true(logged("Numerical result out of range"));
    works(tp);
    pool_end(tp);
    close(ends[0]);
    close(ends[1]);

    /* Its own pipe: no pool. */
    static int filled[1100];
    int count = 0;
    while (count < 1100 && (filled[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0 &&
           filled[count++] < 1030) {
    }
    struct ns_thrpool_options options;
    ns_thrpool_options_init(&options, sizeof options);
    options.framework = "libevent:select";
    tp = try_with(&options);
    while (count > 0) {
        close(filled[--count]);
    }
    assert_null(tp);
    assert_true(logged("Numerical result out of range"));
}

/* What watches numbers finds a number that was closed, and one that is another file's without an add. */
TEST(an_event_of_another_file_under_the_number_is_nobodys)
{
    const char *const by_number[] = {"libevent:poll", "libevent:select", "tevent:poll"};
    for (int i = 0; i < 3; i++) {
        struct ns_thrpool_t *tp = pool_over(by_number[i]);
        int old[2], new[2];
        socket_pair(old);
        socket_pair(new);
        struct probe probe = PROBE(finish_job, old[0]);
        struct ns_job_t *job = probe_fd(tp, NS_JOB_READ | NS_JOB_PRESERVE_FD, 0, &probe);
        loop_passes(tp, 0);
        assert_int_equal(dup2(new[0], old[0]), old[0]);
        assert_int_equal(write(new[1], "x", 1), 1);
        loop_passes(tp, 20000);
        assert_latch(&probe.runs, 0);
        double before = cpu_seconds();
        loop_passes(tp, 50000);
        assert_true(getenv("NS_SLOW") != NULL || cpu_seconds() - before < 0.04);
        probe_cancel(job, &probe);
        works(tp);
        pool_end(tp);
        close(old[0]);
        close(old[1]);
        close(new[0]);
        close(new[1]);
    }
}

/* A child that destroys the pool is left with what only libevent knows: its pipe, closed by exec. */
TEST(a_child_keeps_libevents_pipe_until_exec)
{
    int before = count_fds();
    /* A child leaves the memory of its parent's pool as it is; valgrind looks for who knows it. */
    static struct ns_thrpool_t *tp;
    tp = pool_over("libevent");
    pid_t child = fork();
    if (child == 0) {
        ns_thrpool_destroy(tp);
        int left = count_fds() - before;
        /* In a child, valgrind's own descriptors count too. */
        _exit(left == 2 || getenv("NS_SLOW") != NULL ? 0 : 1);
    }
    int status = 1;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    works(tp);
    pool_end(tp);
    assert_int_equal(count_fds(), before);
}

/* An instance of the application's lists the numbers that the pool gets: of files that live on. */
TEST(an_epoll_instance_of_the_applications_is_not_taken_for_the_frameworks)
{
    enum { FILES = 40 };
    static const char *const by_epoll[] = {"libevent", "tevent"};
    for (int i = 0; i < 2; i++) {
        int mine = epoll_create1(EPOLL_CLOEXEC), copies[FILES], low[FILES], count = 0;
        struct epoll_event event = {.events = EPOLLIN};
        for (; count < FILES; count++) {
            low[count] = eventfd(0, EFD_CLOEXEC);
            copies[count] = fcntl(low[count], F_DUPFD_CLOEXEC, 300);
            assert_int_equal(epoll_ctl(mine, EPOLL_CTL_ADD, low[count], &event), 0);
        }
        while (count > 0) {
            close(low[--count]);
        }
        struct ns_thrpool_t *tp = pool_over(by_epoll[i]);
        works(tp);
        /* As one of the pool's own it would be refused. */
        struct probe probe = PROBE(finish_job, mine);
        struct ns_job_t *job = probe_fd(tp, NS_JOB_READ | NS_JOB_PRESERVE_FD, 0, &probe);
        loop_passes(tp, 0);
        uint64_t one = 1;
        assert_int_equal(write(copies[0], &one, sizeof one), sizeof one);
        assert_latch(&probe.disposals, 1);
        UNUSED(job);
        pool_end(tp);
        assert_true(fd_is_open(mine));
        close(mine);
        while (count < FILES) {
            close(copies[count++]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_is_named_as_it_was_asked_for),
        cmocka_unit_test(pools_over_each_live_side_by_side),
        cmocka_unit_test(pools_are_made_and_destroyed_by_several_threads_at_once),
        cmocka_unit_test(an_application_may_use_libevent_too),
        cmocka_unit_test(a_table_without_a_member_is_refused),
        cmocka_unit_test(open_that_returns_null_makes_no_pool),
        cmocka_unit_test(the_table_and_its_name_are_copied),
        cmocka_unit_test(a_wait_that_fails_is_logged_once_and_tried_again),
        cmocka_unit_test(a_descriptor_that_is_refused_is_tried_again),
        cmocka_unit_test(spurious_events_do_no_harm),
        cmocka_unit_test(select_has_no_place_for_large_numbers),
        cmocka_unit_test(an_event_of_another_file_under_the_number_is_nobodys),
        cmocka_unit_test(a_child_keeps_libevents_pipe_until_exec),
        cmocka_unit_test(an_epoll_instance_of_the_applications_is_not_taken_for_the_frameworks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
