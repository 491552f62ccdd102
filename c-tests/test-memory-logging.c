/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The pool's own allocator and logger. */
#include "harness.h"

#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>

/* An allocator that marks its blocks and can be told to fail */

struct block {
    int tag;
    size_t size;
    max_align_t content[];
};

struct heap {
    atomic_long out;       /* blocks that are not freed yet */
    atomic_long made;
    atomic_long foreign;   /* blocks freed here that come from elsewhere, or were freed before */
    atomic_long fail_at;   /* the allocation that is to fail, counted from 1; 0: none */
    atomic_long failed;
};

static struct heap heaps[2];

static void *heap_calloc(int tag, size_t count, size_t size)
{
    struct heap *heap = &heaps[tag];
    if (atomic_fetch_add(&heap->made, 1) + 1 == atomic_load(&heap->fail_at)) {
        atomic_fetch_add(&heap->failed, 1);
        return NULL;
    }
    struct block *block = calloc(1, sizeof(*block) + count * size);
    block->tag = 4711 + tag;
    block->size = count * size;
    atomic_fetch_add(&heap->out, 1);
    return block->content;
}

static void heap_free(int tag, void *content)
{
    if (content == NULL) {
        return;
    }
    struct block *block = (struct block *)((char *)content - offsetof(struct block, content));
    if (block->tag != 4711 + tag) {
        atomic_fetch_add(&heaps[tag].foreign, 1);
        return;
    }
    block->tag = 0;
    /* Whoever reads it later, reads nonsense. */
    memset(content, 0xa5, block->size);
    atomic_fetch_sub(&heaps[tag].out, 1);
    free(block);
}

static void *calloc_0(size_t count, size_t size)
{
    return heap_calloc(0, count, size);
}

static void free_0(void *content)
{
    heap_free(0, content);
}

static void *calloc_1(size_t count, size_t size)
{
    return heap_calloc(1, count, size);
}

static void free_1(void *content)
{
    heap_free(1, content);
}

static void heap_begin(int tag, long fail_at)
{
    atomic_store(&heaps[tag].out, 0);
    atomic_store(&heaps[tag].made, 0);
    atomic_store(&heaps[tag].foreign, 0);
    atomic_store(&heaps[tag].fail_at, fail_at);
    atomic_store(&heaps[tag].failed, 0);
}

static void assert_heap_is_empty(int tag)
{
    assert_int_equal(atomic_load(&heaps[tag].out), 0);
    assert_int_equal(atomic_load(&heaps[tag].foreign), 0);
}

static struct ns_thrpool_config config_with_heap(int tag)
{
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.max_threads = 2;
    config.log_fct = quiet_log;
    config.calloc_fct = tag ? calloc_1 : calloc_0;
    config.free_fct = tag ? free_1 : free_0;
    return config;
}

/* A whole life: a pool and a job of each kind. The first result that is no success, or NS_SUCCESS;
 * how many jobs were made is added to *made. */
static ns_result_t live(struct ns_thrpool_t *tp, int ends[2], struct latch *finished, int *made)
{
    struct timeval tv = {0, 100}, zero = {0, 0};
    ns_result_t result = NS_SUCCESS;
    for (int kind = 0; kind < 7 && result == NS_SUCCESS; kind++) {
        struct ns_job_t *job = (struct ns_job_t *)finished;
        switch (kind) {
        case 0:
            result = ns_add_job(tp, NS_JOB_UNARMED, finish_job, finished, &job);
            break;
        case 1:
            result = ns_add_job(tp, NS_JOB_THREAD | NS_JOB_UNARMED, finish_job, finished, &job);
            break;
        case 2:
            result = ns_add_timeout_job(tp, &tv, NS_JOB_UNARMED, finish_job, finished, &job);
            break;
        case 3:
            result = ns_add_fd_job(tp, ends[0],
                                   NS_JOB_WRITE | NS_JOB_PRESERVE_FD | NS_JOB_UNARMED, finish_job,
                                   finished, &job);
            break;
        case 4:
            /* A number far away from the first. */
            result = ns_add_fd_timeout_job(tp, ends[1], &zero,
                                           NS_JOB_WRITE | NS_JOB_THREAD | NS_JOB_PRESERVE_FD |
                                               NS_JOB_UNARMED, finish_job, finished, &job);
            break;
        case 5:
            result = ns_add_signal_job(tp, SIGUSR1, NS_JOB_UNARMED, finish_job, finished, &job);
            break;
        default:
            result = ns_create_job(tp, NS_JOB_THREAD, finish_job, &job);
            if (result == NS_SUCCESS) {
                assert_int_equal(ns_job_set_data(job, finished), NS_SUCCESS);
            }
        }
        if (result != NS_SUCCESS) {
            assert_null(job);
            break;
        }
        ++*made;
        assert_int_equal(ns_job_set_done_cb(job, count_callback), NS_SUCCESS);
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        if (kind == 5) {
            assert_int_equal(raise(SIGUSR1), 0);
        }
    }
    return result;
}

TEST(all_memory_comes_from_the_pools_allocator_and_goes_back)
{
    heap_begin(0, 0);
    struct ns_thrpool_config config = config_with_heap(0);
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    assert_non_null(tp);
    int ends[2];
    socket_pair(ends);
    struct latch finished = LATCH_INIT;
    long before = atomic_load(&heaps[0].made);
    assert_true(before > 0);
    int made = 0;
    for (int i = 0; i < 10; i++) {
        assert_int_equal(live(tp, ends, &finished, &made), NS_SUCCESS);
    }
    assert_true(atomic_load(&heaps[0].made) - before >= made);
    assert_latch(&finished, made);
    pool_end(tp);
    assert_heap_is_empty(0);
    close(ends[0]);
    close(ends[1]);
}

static void *live_often(void *arg)
{
    struct ns_thrpool_t *tp = arg;
    struct latch finished = LATCH_INIT;
    int rounds = scaled(400);
    for (int i = 0; i < rounds; i++) {
        ns_job_type_t type = i % 2 ? NS_JOB_THREAD : 0;
        struct timeval tv = {0, 10 * (i % 20)};
        struct ns_job_t *job = NULL;
        ns_add_timeout_job(tp, &tv, type | NS_JOB_UNARMED, finish_job, &finished, &job);
        ns_job_set_done_cb(job, count_callback);
        ns_job_rearm(job);
    }
    latch_reaches(&finished, rounds);
    return NULL;
}

TEST(fm42_allocators_of_two_pools_never_mix)
{
    struct ns_thrpool_t *pools[2];
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
        heap_begin(i, 0);
        struct ns_thrpool_config config = config_with_heap(i);
        pools[i] = ns_thrpool_new(&config);
        assert_non_null(pools[i]);
    }
    for (int i = 0; i < 2; i++) {
        pthread_create(&threads[i], NULL, live_often, pools[i]);
    }
    for (int i = 0; i < 2; i++) {
        pthread_join(threads[i], NULL);
    }
    pool_end(pools[0]);
    assert_heap_is_empty(0);
    pool_end(pools[1]);
    assert_heap_is_empty(1);
}

TEST(fm41_any_allocation_may_fail)
{
    int ends[2];
    socket_pair(ends);
    assert_int_equal(fcntl(ends[1], F_DUPFD, 900), 900);
    close(ends[1]);
    ends[1] = 900;
    /* Once, so that what is made once for the process is there. */
    pool_end(pool_of(1));
    int fds = count_fds(), threads = count_threads(), refused_pools = 0, refused_jobs = 0;
    for (long n = 1;; n++) {
        assert_true(n < 1000);
        heap_begin(0, n);
        struct ns_thrpool_config config = config_with_heap(0);
        struct ns_thrpool_t *tp = ns_thrpool_new(&config);
        if (tp != NULL) {
            struct latch finished = LATCH_INIT;
            int made = 0;
            ns_result_t result = live(tp, ends, &finished, &made);
            assert_int_equal(result, atomic_load(&heaps[0].failed) ? NS_ALLOCATION_FAILURE
                                                                   : NS_SUCCESS);
            refused_jobs += result != NS_SUCCESS;
            assert_latch(&finished, made);
            /* What failed once is not spoiled for ever. */
            atomic_store(&heaps[0].fail_at, 0);
            int again = 0;
            assert_int_equal(live(tp, ends, &finished, &again), NS_SUCCESS);
            assert_latch(&finished, made + again);
            pool_end(tp);
        } else {
            assert_int_equal(atomic_load(&heaps[0].failed), 1);
            refused_pools++;
        }
        assert_heap_is_empty(0);
        assert_int_equal(count_fds(), fds);
        EVENTUALLY(count_threads() == threads);
        struct sigaction now;
        assert_int_equal(sigaction(SIGUSR1, NULL, &now), 0);
        assert_true(now.sa_handler == SIG_DFL);
        if (atomic_load(&heaps[0].failed) == 0) {
            break;
        }
    }
    print_message("# %d pools and %d jobs were refused\n", refused_pools, refused_jobs);
    assert_true(refused_pools > 0);
    assert_true(refused_jobs >= 7);
    close(ends[0]);
    close(ends[1]);
}

TEST(nothing_is_allocated_between_the_add_and_the_disposal)
{
    heap_begin(0, 0);
    struct ns_thrpool_config config = config_with_heap(0);
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    int ends[2];
    socket_pair(ends);
    assert_int_equal(write(ends[1], "x", 1), 1);
    struct probe probe = PROBE(NULL, ends[0]);
    struct ns_job_t *job = NULL;
    struct timeval tv = {1, 0};
    assert_int_equal(ns_add_fd_timeout_job(tp, ends[0], &tv, NS_JOB_READ | NS_JOB_UNARMED,
                                           probe_run, &probe, &job), NS_SUCCESS);
    assert_int_equal(ns_job_set_done_cb(job, probe_gone), NS_SUCCESS);
    long made = atomic_load(&heaps[0].made);
    for (int run = 1; run <= 100; run++) {
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        assert_latch(&probe.runs, run);
        assert_int_equal(ns_job_wait(job), NS_SUCCESS);
    }
    assert_int_equal(ns_job_done(job), NS_SUCCESS);
    assert_latch(&probe.disposals, 1);
    assert_int_equal(atomic_load(&heaps[0].made), made);
    pool_end(tp);
    assert_heap_is_empty(0);
    close(ends[1]);
}

TEST(a_missing_function_is_libcs)
{
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.log_fct = quiet_log;
    config.calloc_fct = counting_calloc; /* free_fct stays NULL */
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    assert_non_null(tp);
    assert_true(atomic_load(&blocks_out) > 0);
    loop_passes(tp, 0);
    pool_end(tp);
    config.calloc_fct = NULL;
    config.free_fct = counting_free;
    tp = ns_thrpool_new(&config);
    assert_non_null(tp);
    loop_passes(tp, 0);
    pool_end(tp);
    assert_int_equal(atomic_load(&blocks_out), 0);
}

/* Loggers */

enum { MESSAGES = 256 };

static struct {
    pthread_mutex_t lock;
    int count;
    int priority[MESSAGES];
    char text[MESSAGES][512];
} messages = {.lock = PTHREAD_MUTEX_INITIALIZER};

static atomic_int malformed, messages_ever;

/* Whether a message is one line. */
static int is_one_line(const char *text)
{
    const char *end = strchr(text, '\n');
    return end != NULL && end != text && end[1] == '\0';
}

static void keep_messages(int priority, const char *format, va_list args)
{
    pthread_mutex_lock(&messages.lock);
    int at = messages.count++ % MESSAGES;
    messages.priority[at] = priority;
    vsnprintf(messages.text[at], sizeof(messages.text[at]), format, args);
    if (!is_one_line(messages.text[at])) {
        atomic_fetch_add(&malformed, 1);
    }
    pthread_mutex_unlock(&messages.lock);
    atomic_fetch_add(&messages_ever, 1);
}

static struct ns_thrpool_t *pool_that_logs_to(void (*log_fct)(int, const char *, va_list))
{
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.max_threads = 2;
    config.log_fct = log_fct;
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    assert_non_null(tp);
    return tp;
}

/* Forget what was logged so far. */
static void messages_begin(void)
{
    pthread_mutex_lock(&messages.lock);
    messages.count = 0;
    pthread_mutex_unlock(&messages.lock);
    atomic_store(&malformed, 0);
}

/* One message was logged since, of this priority, and it names this function. */
static void assert_logged(int priority, const char *function)
{
    pthread_mutex_lock(&messages.lock);
    int count = messages.count, given = messages.priority[0];
    int named = strstr(messages.text[0], function) != NULL;
    pthread_mutex_unlock(&messages.lock);
    assert_int_equal(count, 1);
    assert_int_equal(given, priority);
    assert_true(named);
    assert_int_equal(atomic_load(&malformed), 0);
    messages_begin();
}

TEST(refusals_are_errors_and_daily_routine_is_for_debugging)
{
    struct ns_thrpool_t *tp = pool_that_logs_to(keep_messages);
    struct timeval negative = {-1, 0}, never = {1000000, 0};
    struct ns_job_t *job = NULL, *waiting = NULL;
    assert_int_equal(ns_add_timeout_job(tp, &never, 0, finish_job, NULL, &job), NS_SUCCESS);
    assert_int_equal(ns_create_job(tp, 0, finish_job, &waiting), NS_SUCCESS);
    messages_begin();
    assert_int_equal(ns_add_job(tp, 0, NULL, NULL, NULL), NS_INVALID_REQUEST);
    assert_logged(LOG_ERR, "ns_add_job");
    assert_int_equal(ns_add_job(tp, NS_JOB_READ, finish_job, NULL, NULL), NS_INVALID_REQUEST);
    assert_logged(LOG_ERR, "ns_add_job");
    assert_int_equal(ns_create_job(tp, 0, finish_job, NULL), NS_INVALID_REQUEST);
    assert_logged(LOG_ERR, "ns_create_job");
    assert_int_equal(ns_add_io_job(tp, NULL, NS_JOB_READ, finish_job, NULL, NULL),
                     NS_INVALID_REQUEST);
    assert_logged(LOG_ERR, "ns_add_io_job");
    assert_int_equal(ns_add_fd_job(tp, -1, NS_JOB_READ, finish_job, NULL, NULL),
                     NS_INVALID_REQUEST);
    assert_logged(LOG_ERR, "ns_add_fd_job");
    assert_int_equal(ns_add_timeout_job(tp, &negative, 0, finish_job, NULL, NULL),
                     NS_INVALID_REQUEST);
    assert_logged(LOG_ERR, "ns_add_timeout_job");
    assert_int_equal(ns_add_signal_job(tp, SIGKILL, 0, finish_job, NULL, NULL),
                     NS_INVALID_REQUEST);
    assert_logged(LOG_ERR, "ns_add_signal_job");
    assert_int_equal(ns_job_timedwait(job, NULL), NS_INVALID_REQUEST);
    assert_logged(LOG_ERR, "ns_job_timedwait");
    assert_int_equal(ns_job_done(job), NS_INVALID_STATE);
    assert_logged(LOG_DEBUG, "ns_job_done");
    assert_int_equal(ns_job_rearm(job), NS_INVALID_STATE);
    assert_logged(LOG_DEBUG, "ns_job_rearm");
    assert_int_equal(ns_job_set_data(job, NULL), NS_INVALID_STATE);
    assert_logged(LOG_DEBUG, "ns_job_set_data");
    assert_int_equal(ns_job_set_done_cb(job, NULL), NS_INVALID_STATE);
    assert_logged(LOG_DEBUG, "ns_job_set_done_cb");
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    messages_begin();
    assert_int_equal(ns_add_job(tp, 0, finish_job, NULL, NULL), NS_SHUTDOWN);
    assert_logged(LOG_DEBUG, "ns_add_job");
    assert_int_equal(ns_job_rearm(waiting), NS_SHUTDOWN);
    assert_logged(LOG_DEBUG, "ns_job_rearm");
    assert_int_equal(ns_job_done(waiting), NS_SUCCESS);
    ns_thrpool_destroy(tp);
}

TEST(life_cycle_is_for_information)
{
    messages_begin();
    pool_end(pool_that_logs_to(keep_messages));
    assert_true(messages.count > 0);
    for (int i = 0; i < messages.count; i++) {
        assert_int_equal(messages.priority[i], LOG_INFO);
    }
    assert_int_equal(atomic_load(&malformed), 0);
}

TEST(fm46_nothing_is_logged_where_jobs_come_and_go)
{
    struct ns_thrpool_t *tp = pool_that_logs_to(keep_messages);
    int ends[2];
    socket_pair(ends);
    struct latch finished = LATCH_INIT;
    int made = 0, before = atomic_load(&messages_ever);
    for (int i = 0; i < scaled(300); i++) {
        assert_int_equal(live(tp, ends, &finished, &made), NS_SUCCESS);
    }
    assert_latch(&finished, made);
    assert_int_equal(atomic_load(&messages_ever), before);
    pool_end(tp);
    close(ends[0]);
    close(ends[1]);
}

static void *be_refused_often(void *arg)
{
    for (int i = 0; i < scaled(500); i++) {
        ns_add_job(arg, NS_JOB_READ, finish_job, NULL, NULL);
    }
    return NULL;
}

static void be_refused(struct ns_job_t *job)
{
    ns_add_job(ns_job_get_tp(job), NS_JOB_READ, finish_job, NULL, NULL);
    ns_job_done(job);
}

TEST(any_thread_may_log_and_every_message_is_one_line)
{
    struct ns_thrpool_t *tp = pool_that_logs_to(keep_messages);
    int before = atomic_load(&messages_ever);
    messages_begin();
    pthread_t threads[4];
    for (int i = 0; i < 4; i++) {
        pthread_create(&threads[i], NULL, be_refused_often, tp);
    }
    for (int i = 0; i < scaled(500); i++) {
        ns_job_type_t type = i % 2 ? NS_JOB_THREAD : 0;
        assert_int_equal(ns_add_job(tp, type, be_refused, NULL, NULL), NS_SUCCESS);
    }
    for (int i = 0; i < 4; i++) {
        pthread_join(threads[i], NULL);
    }
    EVENTUALLY(atomic_load(&messages_ever) - before == 5 * scaled(500));
    assert_int_equal(atomic_load(&malformed), 0);
    pool_end(tp);
}

static atomic_int heard[2];

static void hear_0(int priority, const char *format, va_list args)
{
    quiet_log(priority, format, args);
    atomic_fetch_add(&heard[0], 1);
}

static void hear_1(int priority, const char *format, va_list args)
{
    quiet_log(priority, format, args);
    atomic_fetch_add(&heard[1], 1);
}

TEST(fm42_loggers_of_two_pools_never_mix)
{
    struct ns_thrpool_t *pools[2] = {pool_that_logs_to(hear_0), pool_that_logs_to(hear_1)};
    for (int i = 0; i < 2; i++) {
        int own = atomic_load(&heard[i]), other = atomic_load(&heard[!i]);
        assert_int_equal(ns_add_job(pools[i], 0, NULL, NULL, NULL), NS_INVALID_REQUEST);
        assert_int_equal(atomic_load(&heard[i]), own + 1);
        assert_int_equal(atomic_load(&heard[!i]), other);
    }
    pool_end(pools[0]);
    pool_end(pools[1]);
}

static atomic_int starts, closes;

static void count_start(void)
{
    atomic_fetch_add(&starts, 1);
}

static void count_close(void)
{
    atomic_fetch_add(&closes, 1);
}

TEST(log_start_and_log_close_are_called_once_and_only_with_a_logger)
{
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.log_start_fct = count_start;
    config.log_close_fct = count_close;
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    assert_non_null(tp);
    pool_end(tp);
    assert_int_equal(atomic_load(&starts), 0);
    assert_int_equal(atomic_load(&closes), 0);
    config.log_fct = quiet_log;
    tp = ns_thrpool_new(&config);
    assert_non_null(tp);
    assert_int_equal(atomic_load(&starts), 1);
    loop_passes(tp, 0);
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    assert_int_equal(atomic_load(&closes), 0);
    ns_thrpool_destroy(tp);
    assert_int_equal(atomic_load(&starts), 1);
    assert_int_equal(atomic_load(&closes), 1);
}

static void *no_calloc(size_t count, size_t size)
{
    UNUSED(count);
    UNUSED(size);
    return NULL;
}

TEST(a_log_that_was_started_is_closed_when_there_is_no_pool)
{
    for (int way = 0; way < 3; way++) {
        struct ns_thrpool_config config;
        ns_thrpool_config_init(&config);
        config.log_fct = quiet_log;
        config.log_start_fct = count_start;
        config.log_close_fct = count_close;
        if (way == 0) {
            config.max_threads = 0;
        } else if (way == 1) {
            config.stacksize = 1;
        } else {
            config.calloc_fct = no_calloc;
            config.free_fct = free;
        }
        int started = atomic_load(&starts), closed = atomic_load(&closes);
        assert_null(ns_thrpool_new(&config));
        assert_int_equal(atomic_load(&starts), started + 1);
        assert_int_equal(atomic_load(&closes), closed + 1);
    }
}

static atomic_int formats, other_formats;

static void watch_formats(int priority, const char *format, va_list args)
{
    quiet_log(priority, format, args);
    atomic_fetch_add(&formats, 1);
    if (strcmp(format, "%s") != 0) {
        atomic_fetch_add(&other_formats, 1);
    }
}

TEST(the_format_is_percent_s_and_nothing_else)
{
    struct ns_thrpool_t *tp = pool_that_logs_to(watch_formats);
    int before = atomic_load(&formats);
    assert_true(before > 0);
    assert_int_equal(ns_add_job(tp, NS_JOB_READ, finish_job, NULL, NULL), NS_INVALID_REQUEST);
    assert_int_equal(atomic_load(&formats), before + 1);
    pool_end(tp);
    assert_int_equal(atomic_load(&other_formats), 0);
}

TEST(an_allocator_that_is_half_given_is_warned_of)
{
    for (int half = 0; half < 2; half++) {
        struct ns_thrpool_config config;
        ns_thrpool_config_init(&config);
        config.log_fct = keep_messages;
        config.calloc_fct = half == 0 ? calloc : NULL;
        config.free_fct = half == 1 ? free : NULL;
        messages_begin();
        pool_end(ns_thrpool_new(&config));
        int warnings = 0;
        for (int i = 0; i < messages.count; i++) {
            if (messages.priority[i] == LOG_WARNING) {
                assert_non_null(strstr(messages.text[i], "ns_thrpool_new: "));
                assert_non_null(strstr(messages.text[i], "calloc_fct"));
                assert_non_null(strstr(messages.text[i], "free_fct"));
                warnings++;
            }
        }
        assert_int_equal(warnings, 1);
    }
}

static struct ns_job_t *_Atomic known_job;
static atomic_int getters_called;

static void log_with_getters(int priority, const char *format, va_list args)
{
    quiet_log(priority, format, args);
    struct ns_job_t *job = atomic_load(&known_job);
    if (job != NULL && ns_job_get_type(job) == (NS_JOB_TIMER | NS_JOB_PERSIST) &&
        ns_job_get_data(job) == &known_job && ns_job_get_native_fd(job) == -1 &&
        ns_job_is_func(job, finish_job) && ns_job_get_output_type(job) == 0 &&
        ns_job_get_fd(job) == NULL && ns_thrpool_is_shutdown(ns_job_get_tp(job)) == 0) {
        atomic_fetch_add(&getters_called, 1);
    }
}

TEST(logger_may_call_getters)
{
    struct ns_thrpool_t *tp = pool_that_logs_to(log_with_getters);
    struct timeval never = {1000000, 0};
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_timeout_job(tp, &never, NS_JOB_PERSIST, finish_job,
                                        (void *)&known_job, &job), NS_SUCCESS);
    atomic_store(&known_job, job);
    assert_int_equal(ns_job_done(job), NS_INVALID_STATE);
    assert_int_equal(ns_job_rearm(job), NS_INVALID_STATE);
    assert_int_equal(atomic_load(&getters_called), 2);
    atomic_store(&known_job, NULL);
    assert_int_equal(ns_job_cancel(job), NS_SUCCESS);
    pool_end(tp);
}

static struct ns_thrpool_t *_Atomic refusing_pool;
static atomic_int calls, nested;
static __thread int depth;

/* Make the library log: from inside a logger or an allocator that is to be dropped. */
static void raise_a_message(void)
{
    struct ns_thrpool_t *tp = atomic_load(&refusing_pool);
    if (tp != NULL) {
        ns_add_job(tp, NS_JOB_READ, finish_job, NULL, NULL);
    }
}

static void log_that_logs(int priority, const char *format, va_list args)
{
    quiet_log(priority, format, args);
    atomic_fetch_add(&calls, 1);
    if (depth > 0) {
        atomic_fetch_add(&nested, 1);
        return;
    }
    depth++;
    raise_a_message();
    depth--;
}

static void *calloc_that_logs(size_t count, size_t size)
{
    raise_a_message();
    return calloc(count, size);
}

static void free_that_logs(void *content)
{
    raise_a_message();
    free(content);
}

TEST(message_raised_inside_a_logger_or_an_allocator_is_dropped)
{
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.log_fct = log_that_logs;
    config.calloc_fct = calloc_that_logs;
    config.free_fct = free_that_logs;
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    assert_non_null(tp);
    atomic_store(&refusing_pool, tp);
    int before = atomic_load(&calls);
    raise_a_message();
    assert_int_equal(atomic_load(&calls), before + 1);
    loop_passes(tp, 0);
    assert_int_equal(atomic_load(&calls), before + 1);
    assert_int_equal(atomic_load(&nested), 0);
    atomic_store(&refusing_pool, NULL);
    pool_end(tp);
}

/* Syslog */

static const char *const LOG_SOCKET = "/dev/log";

/* Receive what comes from us, until a message contains this. */
static int arrives(int fd, const char *what, char *text, size_t size)
{
    double end = now_seconds() + LIMIT_SECONDS;
    while (now_seconds() < end) {
        struct pollfd poll_for = {fd, POLLIN, 0};
        ssize_t n = poll(&poll_for, 1, 1000) == 1 ? recv(fd, text, size - 1, 0) : 0;
        text[n > 0 ? n : 0] = '\0';
        if (strstr(text, what) != NULL) {
            return 1;
        }
    }
    return 0;
}

TEST(without_a_logger_it_is_syslog_at_local1_under_the_applications_ident)
{
    struct stat there;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strcpy(address.sun_path, LOG_SOCKET);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (lstat(LOG_SOCKET, &there) == 0 ||
        bind(fd, (struct sockaddr *)&address, sizeof(address)) != 0) {
        print_message("# skipped: %s is taken, or may not be made\n", LOG_SOCKET);
        close(fd);
        skip();
    }
    openlog("an-application", LOG_PID, LOG_USER);
    char text[2048], priority[16];
    snprintf(priority, sizeof(priority), "<%d>", LOG_LOCAL1 | LOG_ERR);
    assert_null(ns_thrpool_new(NULL));
    int refused = arrives(fd, "nunc-stans: ns_thrpool_new", text, sizeof(text));
    int right = strncmp(text, priority, strlen(priority)) == 0;
    int ident = strstr(text, "an-application[") != NULL;
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    int begun = arrives(fd, "nunc-stans: ", text, sizeof(text));
    snprintf(priority, sizeof(priority), "<%d>", LOG_LOCAL1 | LOG_INFO);
    int information = strncmp(text, priority, strlen(priority)) == 0;
    syslog(LOG_INFO, "still mine");
    int mine = arrives(fd, "still mine", text, sizeof(text));
    snprintf(priority, sizeof(priority), "<%d>", LOG_USER | LOG_INFO);
    int user = strncmp(text, priority, strlen(priority)) == 0;
    pool_end(tp);
    closelog();
    close(fd);
    unlink(LOG_SOCKET);
    assert_true(refused && right && ident);
    assert_true(begun && information);
    assert_true(mine && user);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_memory_comes_from_the_pools_allocator_and_goes_back),
        cmocka_unit_test(fm42_allocators_of_two_pools_never_mix),
        cmocka_unit_test(fm41_any_allocation_may_fail),
        cmocka_unit_test(nothing_is_allocated_between_the_add_and_the_disposal),
        cmocka_unit_test(a_missing_function_is_libcs),
        cmocka_unit_test(refusals_are_errors_and_daily_routine_is_for_debugging),
        cmocka_unit_test(life_cycle_is_for_information),
        cmocka_unit_test(fm46_nothing_is_logged_where_jobs_come_and_go),
        cmocka_unit_test(any_thread_may_log_and_every_message_is_one_line),
        cmocka_unit_test(fm42_loggers_of_two_pools_never_mix),
        cmocka_unit_test(log_start_and_log_close_are_called_once_and_only_with_a_logger),
        cmocka_unit_test(a_log_that_was_started_is_closed_when_there_is_no_pool),
        cmocka_unit_test(the_format_is_percent_s_and_nothing_else),
        cmocka_unit_test(an_allocator_that_is_half_given_is_warned_of),
        cmocka_unit_test(logger_may_call_getters),
        cmocka_unit_test(message_raised_inside_a_logger_or_an_allocator_is_dropped),
        cmocka_unit_test(without_a_logger_it_is_syslog_at_local1_under_the_applications_ident),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
