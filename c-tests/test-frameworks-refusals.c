/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * libevent and tevent are refused memory, or a system call: each refusal has its result and its line in
 * the log, nothing is lost, and all is as ever once it is over.
 *
 * Memory is refused by their own means: libevent asks functions that an application may set, and talloc
 * has limits. Where the system does not hand its calls to the test (notify.h), those tests are skipped.
 */
#include "frameworks.h"
#include "notify.h"

#include <dlfcn.h>

static const char *const names[] = {
    "libevent:epoll", "libevent:poll", "libevent:select", "tevent:standard", "tevent:poll",
};
#define EACH_FRAMEWORK(name)                                                                   \
    for (size_t at_ = 0; at_ < sizeof names / sizeof *names; at_++)                            \
        for (const char *name = names[at_]; name != NULL; name = NULL)

static int is_tevent(const char *name)
{
    return strncmp(name, "tevent", 6) == 0;
}

static struct ns_thrpool_t *try_over(const char *name)
{
    struct ns_thrpool_config config;
    struct ns_thrpool_options options;
    ns_thrpool_config_init(&config);
    ns_thrpool_options_init(&options, sizeof options);
    config.max_threads = 1;
    config.log_fct = recording_log;
    options.framework = name;
    return ns_thrpool_new_with(&config, &options);
}

static struct ns_thrpool_t *pool_over(const char *name)
{
    return made_over(name, try_over(name));
}

/*
 * Memory
 */

/* How many more blocks libevent gets; -1: as many as it wants. How many it has. */
static atomic_long blocks_left = -1, blocks;

static int may_have_block(void)
{
    long left = atomic_load(&blocks_left);
    if (left > 0) {
        atomic_fetch_sub(&blocks_left, 1);
    }
    return left != 0;
}

static void *give(size_t size)
{
    void *block = may_have_block() ? malloc(size) : NULL;
    if (block != NULL) {
        atomic_fetch_add(&blocks, 1);
    }
    return block;
}

static void *give_larger(void *block, size_t size)
{
    if (block == NULL) {
        return give(size);
    }
    return may_have_block() ? realloc(block, size) : NULL;
}

static void take_back(void *block)
{
    if (block != NULL) {
        atomic_fetch_sub(&blocks, 1);
    }
    free(block);
}

static int (*limit_talloc)(const void *context, size_t size);
static size_t (*size_of_talloc)(const void *context);
/* What every talloc context of the process is in. */
static void *all_of_talloc;

static void take_over_memory(void)
{
    void *libevent = dlopen("libevent_core-2.1.so.7", RTLD_NOW | RTLD_LOCAL);
    void *talloc = dlopen("libtalloc.so.2", RTLD_NOW | RTLD_LOCAL);
    assert_non_null(libevent);
    assert_non_null(talloc);
    void (*set_mem_functions)(void *(*)(size_t), void *(*)(void *, size_t), void (*)(void *));
    *(void **)&set_mem_functions = dlsym(libevent, "event_set_mem_functions");
    set_mem_functions(give, give_larger, take_back);

    void (*track)(void);
    void *(*make)(const void *, size_t, const char *);
    void *(*parent_of)(const void *);
    *(void **)&track = dlsym(talloc, "talloc_enable_null_tracking");
    *(void **)&make = dlsym(talloc, "talloc_named_const");
    *(void **)&parent_of = dlsym(talloc, "talloc_parent");
    *(void **)&limit_talloc = dlsym(talloc, "talloc_set_memlimit");
    *(void **)&size_of_talloc = dlsym(talloc, "talloc_total_size");
    track();
    all_of_talloc = parent_of(make(NULL, 1, "here"));
    assert_non_null(all_of_talloc);
    assert_int_equal(limit_talloc(all_of_talloc, 0), 0);
}

/* From now on the framework gets a little memory: `steps` of what it counts in, or all that it wants (-1).
 * Nothing else uses it meanwhile. */
static void allow_memory(const char *name, long steps)
{
    if (!is_tevent(name)) {
        atomic_store(&blocks_left, steps);
    } else {
        size_t now = size_of_talloc(all_of_talloc);
        limit_talloc(all_of_talloc, steps < 0 ? 0 : now + 1 + (size_t)steps * 32);
    }
}

/* Both have what they had before. */
static void assert_no_memory_lost(long had, size_t had_of_talloc)
{
    assert_int_equal(atomic_load(&blocks), had);
    assert_int_equal(size_of_talloc(all_of_talloc), had_of_talloc);
}

TEST(each_allocation_of_a_context_may_fail_and_there_is_no_pool)
{
    EACH_FRAMEWORK(name)
    {
        pool_end(pool_over(name));
        int fds = count_fds(), threads = count_threads();
        long had = atomic_load(&blocks), refused = 0;
        size_t had_of_talloc = size_of_talloc(all_of_talloc);
        struct ns_thrpool_t *tp = NULL;
        for (; tp == NULL; refused++) {
            int errors = count_logged_errors();
            assert_true(refused < 1000);
            allow_memory(name, refused);
            tp = try_over(name);
            allow_memory(name, -1);
            if (tp != NULL) {
                break;
            }
            assert_int_equal(count_logged_errors(), errors + 1);
            assert_true(logged("ns_thrpool_new_with: "));
            if (!logged("Cannot allocate memory") && !logged("makes no ")) {
                fail_msg("%s: %s", name, logged_last);
            }
            assert_nothing_left(fds, threads);
            assert_no_memory_lost(had, had_of_talloc);
        }
        print_message("    %s: %ld times no pool\n", name, refused);
        assert_true(refused > 2);
        works(tp);
        pool_end(tp);
        assert_nothing_left(fds, threads);
        assert_no_memory_lost(had, had_of_talloc);
    }
}

TEST(a_descriptor_that_there_is_no_memory_for_is_logged_and_tried_again)
{
    EACH_FRAMEWORK(name)
    {
        for EACH_THREAD(i) {
            struct ns_thrpool_t *tp = pool_over(name);
            int known[2], ends[2], high;
            socket_pair(known);
            socket_pair(ends);
            /* One that has needed no array so large. */
            high = fcntl(ends[0], F_DUPFD_CLOEXEC, 700);
            assert_true(high >= 700);
            close(ends[0]);
            struct probe probe = PROBE(NULL, high), other = PROBE(NULL, known[0]);
            struct ns_job_t *other_job = probe_fd(tp, NS_JOB_READ | NS_JOB_PERSIST, 0, &other);
            loop_passes(tp, 0);
            int errors = count_logged_errors();
            assert_int_equal(write(ends[1], "x", 1), 1);
            allow_memory(name, 0);
            struct ns_job_t *job = probe_fd(tp, NS_JOB_READ | where[i], 10000, &probe);
            /* Its time-out comes in its time; a refusal is one line, however often it is tried. */
            for (int run = 1; run <= 3; run++) {
                assert_latch(&probe.runs, run);
                assert_int_equal(atomic_load(&probe.output), NS_JOB_TIMER);
                assert_int_equal(ns_job_wait(job), NS_SUCCESS);
                assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
            }
            assert_int_equal(count_logged_errors(), errors + 1);
            assert_true(logged("refuses descriptor"));
            /* Others go on. */
            assert_int_equal(write(known[1], "x", 1), 1);
            EVENTUALLY(latch_count(&other.runs) > 0);
            probe_cancel(other_job, &other);
            allow_memory(name, -1);
            for (int run = 4; atomic_load(&probe.output) != NS_JOB_READ; run++) {
                assert_latch(&probe.runs, run);
                if (atomic_load(&probe.output) != NS_JOB_READ) {
                    assert_int_equal(ns_job_wait(job), NS_SUCCESS);
                    assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
                }
            }
            probe_finish(job, &probe);
            assert_int_equal(count_logged_errors(), errors + 1);
            works(tp);
            pool_end(tp);
            close(known[1]);
            close(ends[1]);
        }
    }
}

/* A file that outlives its number makes the loop want a new context, for which there is no memory. */
TEST(a_context_that_can_not_be_replaced_yet_is_replaced_later)
{
    EACH_FRAMEWORK(name)
    {
        if (strcmp(name, "libevent:poll") == 0 || strcmp(name, "libevent:select") == 0) {
            continue; /* what watches numbers alone needs no other */
        }
        struct ns_thrpool_t *tp = pool_over(name);
        int ends[2], others[2], fds;
        socket_pair(ends);
        socket_pair(others);
        struct probe probe = PROBE(NULL, ends[0]), other = PROBE(finish_job, others[0]);
        struct ns_job_t *job = probe_fd(tp, NS_JOB_READ | NS_JOB_PRESERVE_FD, 0, &probe);
        probe_fd(tp, NS_JOB_READ, 0, &other);
        loop_passes(tp, 0);
        fds = count_fds();
        int errors = count_logged_errors();
        int copy = dup(ends[0]);
        allow_memory(name, 0);
        close(ends[0]);
        probe_cancel(job, &probe);
        assert_int_equal(write(ends[1], "x", 1), 1);
        EVENTUALLY(count_logged_errors() > errors);
        assert_true(logged("no new poller"));
        double cpu = cpu_seconds();
        loop_passes(tp, 100000);
        assert_true(getenv("NS_SLOW") != NULL || cpu_seconds() - cpu < 0.08);
        assert_int_equal(count_logged_errors(), errors + 1);
        allow_memory(name, -1);
        assert_int_equal(write(others[1], "x", 1), 1);
        assert_latch(&other.disposals, 1);
        works(tp);
        close(copy);
        close(ends[1]);
        close(others[1]);
        EVENTUALLY(count_fds() == fds - 4);
        pool_end(tp);
    }
}

/*
 * System calls
 */

/* The call that is refused: this one, and for epoll_ctl, on this instance; the first `spared` are let
 * through. */
static struct {
    atomic_int error, call, epoll, spared;
    atomic_long hits;
} rule;

static int answer(const struct seccomp_data *data)
{
    /* libevent tries both ways to make one. */
    int call = data->nr == SYS_epoll_create ? SYS_epoll_create1 : data->nr;
    if (atomic_load(&rule.error) == 0 || call != atomic_load(&rule.call)) {
        return 0;
    }
    if (call == SYS_epoll_ctl &&
        ((int)data->args[0] != atomic_load(&rule.epoll) || (int)data->args[1] == EPOLL_CTL_DEL)) {
        return 0;
    }
    if (atomic_fetch_sub(&rule.spared, 1) > 0) {
        return 0;
    }
    atomic_fetch_add(&rule.hits, 1);
    return atomic_load(&rule.error);
}

static int is_filtered;

static void needs_filter(void)
{
    if (!is_filtered) {
        skip();
    }
}

static void refuse(int call, int epoll, int spared, int error)
{
    atomic_store(&rule.call, call);
    atomic_store(&rule.epoll, epoll);
    atomic_store(&rule.spared, spared);
    atomic_store(&rule.hits, 0);
    atomic_store(&rule.error, error);
}

static void allow(void)
{
    atomic_store(&rule.error, 0);
}

/* The epoll instance of the framework of the only pool: the one that watches something for reading. */
static int inner_epoll(void)
{
    for (int fd = 3; fd < 200; fd++) {
        char path[64], line[256];
        int found = 0;
        snprintf(path, sizeof path, "/proc/self/fdinfo/%d", fd);
        FILE *info = fopen(path, "re");
        while (info != NULL && fgets(line, sizeof line, info) != NULL) {
            int watched;
            unsigned events;
            found |= sscanf(line, "tfd: %d events: %x", &watched, &events) == 2 && events & EPOLLIN;
        }
        if (info != NULL) {
            fclose(info);
        }
        if (found) {
            return fd;
        }
    }
    fail_msg("%s", "no epoll instance");
    return -1;
}

/* The library's own instance accepts the descriptor, and libevent's does not. */
TEST(a_descriptor_that_libevents_epoll_refuses_is_logged_and_tried_again)
{
    needs_filter();
    static const int errors[] = {ENOSPC, ENOMEM, ELOOP};
    for (int i = 0; i < 3; i++) {
        struct ns_thrpool_t *tp = pool_over("libevent");
        int ends[2], before = count_logged_errors();
        socket_pair(ends);
        struct probe probe = PROBE(NULL, ends[0]);
        refuse(SYS_epoll_ctl, inner_epoll(), 0, errors[i]);
        assert_int_equal(write(ends[1], "x", 1), 1);
        struct ns_job_t *job = probe_fd(tp, NS_JOB_READ | NS_JOB_PERSIST, 20000, &probe);
        assert_latch(&probe.runs, 3);
        assert_int_equal(atomic_load(&probe.output), NS_JOB_TIMER);
        assert_true(atomic_load(&rule.hits) >= 2);
        assert_int_equal(count_logged_errors(), before + 1);
        assert_true(logged("refuses descriptor"));
        assert_true(logged(strerror(errors[i])));
        allow();
        EVENTUALLY(atomic_load(&probe.output) == NS_JOB_READ);
        probe_cancel(job, &probe);
        works(tp);
        pool_end(tp);
        close(ends[1]);
    }
}

/* What watches numbers does not fire a job for another file. */
static void tells_files_apart(struct ns_thrpool_t *tp)
{
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
    probe_cancel(job, &probe);
    close(old[0]);
    close(old[1]);
    close(new[0]);
    close(new[1]);
}

/* tevent's epoll refuses a descriptor, or to wait: it goes on by poll, and the pool with it. */
TEST(a_pool_goes_on_when_tevent_gives_up_epoll)
{
    needs_filter();
    static const int calls[] = {SYS_epoll_ctl, SYS_epoll_wait};
    for (int i = 0; i < 2; i++) {
        struct ns_thrpool_t *tp = pool_over("tevent");
        int ends[2], others[2], again[2], errors = count_logged_errors(), inner = inner_epoll();
        socket_pair(ends);
        socket_pair(others);
        socket_pair(again);
        struct probe probe = PROBE(finish_job, ends[0]), other = PROBE(finish_job, others[0]);
        probe_fd(tp, NS_JOB_READ, 0, &other);
        loop_passes(tp, 0);
        int fds = count_fds();
        refuse(calls[i], inner, 0, ENOSPC);
        probe_fd(tp, NS_JOB_READ, 0, &probe);
        loop_passes(tp, 10000);
        EVENTUALLY(count_fds() == fds - 1 && count_logged_errors() > errors);
        allow();
        assert_true(atomic_load(&rule.hits) > 0);
        assert_int_equal(count_logged_errors(), errors + 1);
        assert_true(logged("the framework gives up epoll and goes on by poll"));
        assert_int_equal(write(ends[1], "x", 1), 1);
        assert_latch(&probe.disposals, 1);
        assert_int_equal(write(others[1], "x", 1), 1);
        assert_latch(&other.disposals, 1);
        tells_files_apart(tp);

        /* The number of its epoll instance is nobody's, and the application may use it. */
        move_to_closed(again[0], inner);
        struct probe reused = PROBE(finish_job, inner);
        probe_fd(tp, NS_JOB_READ, 0, &reused);
        assert_int_equal(write(again[1], "x", 1), 1);
        assert_latch(&reused.disposals, 1);
        works(tp);
        assert_int_equal(count_logged_errors(), errors + 1);
        pool_end(tp);
        close(again[1]);
        close(ends[1]);
        close(others[1]);
    }
}

/* Each of the epoll instances of a pool is refused in turn. Without its own, tevent goes by poll. */
TEST(a_framework_that_gets_no_epoll_instance)
{
    needs_filter();
    static const char *const by_epoll[] = {"libevent", "tevent"};
    for (int i = 0; i < 2; i++) {
        int fds = count_fds(), threads = count_threads(), own_refused = 0, hits = 1;
        for (int spared = 0; hits > 0; spared++) {
            int errors = count_logged_errors();
            refuse(SYS_epoll_create1, -1, spared, ENOMEM);
            struct ns_thrpool_t *tp = try_over(by_epoll[i]);
            hits = (int)atomic_load(&rule.hits);
            allow();
            if (tp == NULL) {
                assert_int_equal(count_logged_errors(), errors + 1);
                assert_true(logged("ns_thrpool_new_with: "));
                own_refused |= i == 0 && logged("libevent makes no event_base");
            } else {
                own_refused |= i == 1 && hits > 0;
                tells_files_apart(tp);
                works(tp);
                pool_end(tp);
            }
            assert_nothing_left(fds, threads);
        }
        assert_true(own_refused);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_allocation_of_a_context_may_fail_and_there_is_no_pool),
        cmocka_unit_test(a_descriptor_that_there_is_no_memory_for_is_logged_and_tried_again),
        cmocka_unit_test(a_context_that_can_not_be_replaced_yet_is_replaced_later),
        cmocka_unit_test(a_descriptor_that_libevents_epoll_refuses_is_logged_and_tried_again),
        cmocka_unit_test(a_pool_goes_on_when_tevent_gives_up_epoll),
        cmocka_unit_test(a_framework_that_gets_no_epoll_instance),
    };
    is_filtered = filter(answer);
    take_over_memory();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
