/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * Jobs that are idle when their pool is destroyed are lost: the log says how many, and with which
 * callbacks.
 *
 * The memory of jobs that are left idle here is freed by this file's allocator, which keeps a list
 * of its blocks.
 */
#include "harness.h"

#include <dlfcn.h>

/* All blocks in use, so that lost jobs can be freed. */

static pthread_mutex_t blocks_lock = PTHREAD_MUTEX_INITIALIZER;
static struct kept { struct kept *next, **at; max_align_t content[]; } *blocks;

static void *keeping_calloc(size_t count, size_t size)
{
    struct kept *block = calloc(1, sizeof *block + count * size);
    pthread_mutex_lock(&blocks_lock);
    block->next = blocks;
    block->at = &blocks;
    if (blocks != NULL) {
        blocks->at = &block->next;
    }
    blocks = block;
    pthread_mutex_unlock(&blocks_lock);
    return block->content;
}

static void keeping_free(void *content)
{
    if (content == NULL) {
        return;
    }
    struct kept *block = (struct kept *)((char *)content - offsetof(struct kept, content));
    pthread_mutex_lock(&blocks_lock);
    *block->at = block->next;
    if (block->next != NULL) {
        block->next->at = block->at;
    }
    pthread_mutex_unlock(&blocks_lock);
    free(block);
}

/* What destroy says */

static char said[1024];
static int warned;

static void warning_log(int priority, const char *format, va_list args)
{
    if (priority <= LOG_WARNING) {
        pthread_mutex_lock(&logged_lock);
        vsnprintf(said, sizeof said, format, args);
        warned++;
        pthread_mutex_unlock(&logged_lock);
    }
}

static struct ns_thrpool_t *pool(void)
{
    struct ns_thrpool_t *tp = pool_with(2, warning_log, keeping_calloc, keeping_free);
    warned = 0;
    said[0] = '\0';
    return tp;
}

/* Free the blocks that are left: as many as the log said jobs were lost. */
static void free_what_is_left(int jobs)
{
    while (blocks != NULL) {
        keeping_free(blocks->content);
        jobs--;
    }
    assert_int_equal(jobs, 0);
}

/* How many jobs with the callback func the message counts; 0 if it does not name func. */
static int told(ns_job_func_t func)
{
    char address[40];
    snprintf(address, sizeof address, "%p", (void *)(uintptr_t)func);
    for (char *part = strchr(said, ' '); part != NULL; part = strpbrk(part + 1, ":,")) {
        int jobs = 0, length = 0;
        if (sscanf(part, "%*1[:,] %d of %n", &jobs, &length) == 1 && length > 0) {
            char one[300];
            snprintf(one, sizeof one, "%.*s", (int)strcspn(part + length, ",\n"), part + length);
            if (strstr(one, address) != NULL) {
                return jobs;
            }
        }
    }
    return 0;
}

/* Destroy the pool, and see one warning about this many jobs; for 0, none. */
static void destroy(struct ns_thrpool_t *tp, int jobs)
{
    ns_thrpool_destroy(tp);
    if (jobs == 0) {
        assert_int_equal(warned, 0);
    } else {
        char want[100];
        snprintf(want, sizeof want, ": %d idle job%s never finished with: ", jobs,
                 jobs == 1 ? "" : "s");
        assert_int_equal(warned, 1);
        assert_non_null(strstr(said, "ns_thrpool_destroy: "));
        assert_non_null(strstr(said, want));
        assert_ptr_equal(strchr(said, '\n'), said + strlen(said) - 1);
    }
    free_what_is_left(jobs);
}

/* The callbacks, which the message tells apart by their addresses. The data of each job is a latch.
 * */
#define CALLBACK(name)                                                                         \
    static void name(struct ns_job_t *job)                                                     \
    {                                                                                          \
        static atomic_int ran;                                                                 \
        atomic_fetch_add(&ran, 1);                                                             \
        latch_add(ns_job_get_data(job), 1);                                                    \
    }
CALLBACK(rests)
CALLBACK(rests_too)
CALLBACK(third)
CALLBACK(fourth)
CALLBACK(fifth)
CALLBACK(sixth)

static void finishes(struct ns_job_t *job)
{
    latch_add(ns_job_get_data(job), 1);
    ns_job_done(job);
}

static void rearms_twice(struct ns_job_t *job)
{
    struct latch *runs = ns_job_get_data(job);
    latch_add(runs, 1);
    if (latch_count(runs) < 3) {
        ns_job_rearm(job);
    }
}

enum { NOW, NOW_THREAD, TIMER, TIMER_THREAD, FD, FD_THREAD, SIGNALLED, SIGNALLED_THREAD, KINDS };

/* An unarmed job of each kind that fires once it is armed. */
static struct ns_job_t *make(struct ns_thrpool_t *tp, int kind, ns_job_func_t func,
                             struct latch *runs, int fd)
{
    struct ns_job_t *job = NULL;
    struct timeval tv = {0, 100};
    ns_job_type_t type = NS_JOB_UNARMED | (kind % 2 != 0 ? NS_JOB_THREAD : 0);
    ns_result_t result;
    switch (kind / 2 * 2) {
    case NOW:
        result = ns_add_job(tp, type, func, runs, &job);
        break;
    case TIMER:
        result = ns_add_timeout_job(tp, &tv, type, func, runs, &job);
        break;
    case FD:
        result = ns_add_fd_job(tp, fd, type | NS_JOB_WRITE | NS_JOB_PRESERVE_FD, func, runs, &job);
        break;
    default:
        result = ns_add_signal_job(tp, SIGUSR1, type, func, runs, &job);
    }
    assert_int_equal(result, NS_SUCCESS);
    return job;
}

/* Arm it, and have it fire. */
static void fire(struct ns_job_t *job, int kind)
{
    assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
    if (kind >= SIGNALLED) {
        kill(getpid(), SIGUSR1);
    }
}

TEST(jobs_that_never_ran)
{
    int ends[2];
    socket_pair(ends);
    struct latch runs = LATCH_INIT;
    for (int kind = 0; kind < KINDS; kind++) {
        struct ns_thrpool_t *tp = pool();
        make(tp, kind, rests, &runs, ends[0]);
        destroy(tp, 1);
        assert_int_equal(told(rests), 1);
    }
    struct ns_thrpool_t *tp = pool();
    struct ns_job_t *job;
    assert_int_equal(ns_create_job(tp, NS_JOB_THREAD, rests, &job), NS_SUCCESS);
    destroy(tp, 1);
    assert_int_equal(latch_count(&runs), 0);
    close(ends[0]);
    close(ends[1]);
}

TEST(jobs_that_came_to_rest)
{
    int ends[2];
    socket_pair(ends);
    for (int kind = 0; kind < KINDS; kind++) {
        struct latch runs = LATCH_INIT;
        struct ns_thrpool_t *tp = pool();
        struct ns_job_t *job = make(tp, kind, rests, &runs, ends[0]);
        for (int round = 1; round <= 5; round++) {
            fire(job, kind);
            assert_latch(&runs, round);
            assert_int_equal(ns_job_wait(job), NS_SUCCESS);
        }
        destroy(tp, 1);
        assert_int_equal(told(rests), 1);
    }
    close(ends[0]);
    close(ends[1]);
}

TEST(jobs_that_were_finished_with_are_not_told_of)
{
    int ends[2];
    socket_pair(ends);
    struct latch runs = LATCH_INIT;
    struct ns_thrpool_t *tp = pool();
    long want = 0;
    for (int kind = 0; kind < KINDS; kind++) {
        /* Jobs done in their callbacks, done from outside before and after they ran, and left
         * armed. */
        fire(make(tp, kind, finishes, &runs, ends[0]), kind);
        assert_latch(&runs, ++want);
        assert_int_equal(ns_job_done(make(tp, kind, rests, &runs, ends[0])), NS_SUCCESS);
        assert_int_equal(ns_job_cancel(make(tp, kind, rests, &runs, ends[0])), NS_SUCCESS);
        for (int cancelled = 0; cancelled < 2; cancelled++) {
            struct ns_job_t *job = make(tp, kind, rests, &runs, ends[0]);
            fire(job, kind);
            assert_latch(&runs, ++want);
            assert_int_equal(ns_job_wait(job), NS_SUCCESS);
            assert_int_equal(cancelled ? ns_job_cancel(job) : ns_job_done(job), NS_SUCCESS);
        }
        /* Jobs that are rearmed in their own callbacks, then idle, then done. */
        struct latch chain = LATCH_INIT;
        if (kind < SIGNALLED) {
            struct ns_job_t *job = make(tp, kind, rearms_twice, &chain, ends[0]);
            fire(job, kind);
            assert_latch(&chain, 3);
            finish_idle(job);
        }
    }
    /* Left armed, for destroy to dispose of. */
    struct timeval hour = {3600, 0};
    for (int n = 0; n < 10; n++) {
        struct ns_job_t *job;
        assert_int_equal(ns_add_timeout_job(tp, &hour, NS_JOB_UNARMED, rests, &runs, &job),
                         NS_SUCCESS);
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        assert_int_equal(ns_add_timeout_job(tp, &hour, NS_JOB_NONE, rests, &runs, NULL),
                         NS_SUCCESS);
    }
    destroy(tp, 0);
    close(ends[0]);
    close(ends[1]);
}

TEST(what_could_not_be_made_is_not_counted)
{
    struct ns_thrpool_t *tp = pool();
    struct latch runs = LATCH_INIT;
    struct ns_job_t *job;
    assert_int_equal(ns_add_job(tp, NS_JOB_UNARMED, rests, &runs, NULL), NS_INVALID_REQUEST);
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_add_job(tp, NS_JOB_UNARMED, rests, &runs, &job), NS_SHUTDOWN);
    warned = 0;
    destroy(tp, 0);
}

/* An allocator that fails while no_memory is set. */
static atomic_int no_memory;

static void *failing_calloc(size_t count, size_t size)
{
    return atomic_load(&no_memory) ? NULL : keeping_calloc(count, size);
}

TEST(nor_what_there_was_no_memory_for)
{
    struct ns_thrpool_t *tp = pool_with(1, warning_log, failing_calloc, keeping_free);
    struct ns_job_t *job;
    struct latch runs = LATCH_INIT;
    int far = fcntl(0, F_DUPFD_CLOEXEC, 700);
    assert_true(far >= 700);
    atomic_store(&no_memory, 1);
    assert_int_equal(ns_add_job(tp, NS_JOB_UNARMED, rests, &runs, &job), NS_ALLOCATION_FAILURE);
    assert_int_equal(ns_add_signal_job(tp, SIGUSR1, NS_JOB_UNARMED, rests, &runs, &job),
                     NS_ALLOCATION_FAILURE);
    /* The table entry for so high a descriptor is allocated before the job, so it is what fails. */
    assert_int_equal(ns_add_fd_job(tp, far, NS_JOB_READ | NS_JOB_UNARMED, rests, &runs, &job),
                     NS_ALLOCATION_FAILURE);
    atomic_store(&no_memory, 0);
    warned = 0;
    destroy(tp, 0);
    close(far);
}

TEST(the_shutdown_leaves_jobs_idle)
{
    struct ns_thrpool_t *tp = pool();
    struct latch runs = LATCH_INIT;
    struct gate gate = GATE_INIT;
    struct ns_job_t *job, *persistent;
    /* At shutdown a rearm that was accepted is dropped, and a PERSIST job is not armed again. */
    job = occupy(tp, NS_JOB_THREAD, &gate);
    assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
    assert_int_equal(ns_add_job(tp, NS_JOB_PERSIST, rests, &runs, &persistent), NS_SUCCESS);
    assert_latch(&runs, 1);
    ns_thrpool_shutdown(tp);
    latch_add(&gate.leave, 1);
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    /* The shutdown caught the PERSIST job in its queue, so that destroy disposes of it, or as it
     * returned, so that it is idle. */
    int idle = ns_job_wait(persistent) == NS_SUCCESS;
    destroy(tp, 1 + idle);
    assert_int_equal(told(gate_callback), 1);
    assert_int_equal(told(rests), idle);
}

TEST(the_most_are_named_and_the_others_counted)
{
    ns_job_func_t funcs[] = {rests, rests_too, third, fourth, fifth, sixth};
    struct ns_thrpool_t *tp = pool();
    struct latch runs = LATCH_INIT;
    long ran = 0;
    for (int which = 0; which < 6; which++) {
        for (int n = 0; n < 10 - which; n++) {
            struct ns_job_t *job = make(tp, n % 4, funcs[which], &runs, -1);
            if (n % 3 == 0) {
                fire(job, n % 4);
                assert_latch(&runs, ++ran);
            }
        }
    }
    destroy(tp, 10 + 9 + 8 + 7 + 6 + 5);
    for (int which = 0; which < 6; which++) {
        assert_int_equal(told(funcs[which]), which < 4 ? 10 - which : 0);
    }
    assert_non_null(strstr(said, ", 11 of others\n"));
}

TEST(a_callback_is_named_where_its_name_is_known)
{
    struct ns_thrpool_t *tp = pool();
    struct ns_job_t *job;
    /* Never called: a function that the dynamic linker knows by name. It is the C library's, and no
     * sanitizer intercepts it. */
    ns_job_func_t known;
    *(void **)&known = dlsym(RTLD_DEFAULT, "lfind");
    assert_non_null(known);
    assert_int_equal(ns_create_job(tp, NS_JOB_THREAD, known, &job), NS_SUCCESS);
    assert_int_equal(ns_create_job(tp, NS_JOB_THREAD, rests, &job), NS_SUCCESS);
    destroy(tp, 2);
    assert_non_null(strstr(said, " 1 of lfind (0x"));
    /* The message names the others by file and offset. */
    assert_non_null(strstr(said, "test-idle-jobs+0x"));
}

/* Threads that rearm and finish jobs which become idle on other threads. */
struct crowd {
    struct ns_thrpool_t *tp;
    struct latch runs;
    atomic_long left;
};

static void *come_and_go(void *arg)
{
    struct crowd *crowd = arg;
    unsigned seed = (unsigned)(uintptr_t)&seed;
    struct ns_job_t *jobs[16];
    for (int n = 0; n < 16; n++) {
        jobs[n] = make(crowd->tp, n % 4, rests, &crowd->runs, -1);
    }
    for (int round = 0; round < scaled(20000); round++) {
        struct ns_job_t **job = &jobs[rand_r(&seed) % 16];
        if (rand_r(&seed) % 4 != 0) {
            ns_job_rearm(*job);
        } else {
            ns_job_cancel(*job);
            *job = make(crowd->tp, rand_r(&seed) % 4, rests, &crowd->runs, -1);
        }
    }
    for (int n = 0; n < 16; n++) {
        if (n % 2 == 0) {
            assert_int_equal(ns_job_wait(jobs[n]), NS_SUCCESS);
            atomic_fetch_add(&crowd->left, 1);
        } else {
            ns_job_cancel(jobs[n]);
        }
    }
    return NULL;
}

TEST(the_count_is_right_after_races)
{
    struct crowd crowd = {pool(), LATCH_INIT, 0};
    pthread_t threads[4];
    for (int n = 0; n < 4; n++) {
        assert_int_equal(pthread_create(&threads[n], NULL, come_and_go, &crowd), 0);
    }
    for (int n = 0; n < 4; n++) {
        pthread_join(threads[n], NULL);
    }
    destroy(crowd.tp, (int)crowd.left);
    assert_int_equal(told(rests), crowd.left);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(jobs_that_never_ran),
        cmocka_unit_test(jobs_that_came_to_rest),
        cmocka_unit_test(jobs_that_were_finished_with_are_not_told_of),
        cmocka_unit_test(what_could_not_be_made_is_not_counted),
        cmocka_unit_test(nor_what_there_was_no_memory_for),
        cmocka_unit_test(the_shutdown_leaves_jobs_idle),
        cmocka_unit_test(the_most_are_named_and_the_others_counted),
        cmocka_unit_test(a_callback_is_named_where_its_name_is_known),
        cmocka_unit_test(the_count_is_right_after_races),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
