/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The pool's own logger, or syslog if it has none: what is logged, where, and at which priority. */
#include "kinds.h"

#include <sys/stat.h>
#include <sys/un.h>

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

/* Forget what was logged so far. */
static void messages_begin(void)
{
    pthread_mutex_lock(&messages.lock);
    messages.count = 0;
    pthread_mutex_unlock(&messages.lock);
    atomic_store(&malformed, 0);
}

/* See that one message was logged since, with this priority, which names this function. */
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
    struct ns_thrpool_t *tp = pool_logging_to(2, keep_messages);
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
    pool_end(pool_logging_to(2, keep_messages));
    assert_true(messages.count > 0);
    for (int i = 0; i < messages.count; i++) {
        assert_int_equal(messages.priority[i], LOG_INFO);
    }
    assert_int_equal(atomic_load(&malformed), 0);
}

TEST(fm46_nothing_is_logged_where_jobs_come_and_go)
{
    struct ns_thrpool_t *tp = pool_logging_to(2, keep_messages);
    int ends[2];
    socket_pair(ends);
    struct latch finished = LATCH_INIT;
    int made = 0, before = atomic_load(&messages_ever);
    for (int i = 0; i < scaled(300); i++) {
        assert_int_equal(run_each_kind(tp, ends, &finished, &made), NS_SUCCESS);
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
    struct ns_thrpool_t *tp = pool_logging_to(2, keep_messages);
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
    struct ns_thrpool_t *pools[2] = {pool_logging_to(2, hear_0), pool_logging_to(2, hear_1)};
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
    struct ns_thrpool_t *tp = pool_logging_to(2, watch_formats);
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
    struct ns_thrpool_t *tp = pool_logging_to(2, log_with_getters);
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

/* Make the library log. A message from inside a logger or an allocator is dropped. */
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
    struct ns_thrpool_t *tp = pool_with(1, log_that_logs, calloc_that_logs, free_that_logs);
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

/* Receive messages until one of this process contains this: the socket is the whole machine's. */
static int arrives(int fd, const char *what, char *text, size_t size)
{
    char sender[16];
    snprintf(sender, sizeof(sender), "[%d]", (int)getpid());
    double end = now_seconds() + LIMIT_SECONDS;
    while (now_seconds() < end) {
        struct pollfd poll_for = {fd, POLLIN, 0};
        ssize_t n = poll(&poll_for, 1, 1000) == 1 ? recv(fd, text, size - 1, 0) : 0;
        text[n > 0 ? n : 0] = '\0';
        if (strstr(text, what) != NULL && strstr(text, sender) != NULL) {
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
