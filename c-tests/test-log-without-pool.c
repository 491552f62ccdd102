/* SPDX-License-Identifier: GPL-3.0-or-later */
/* Messages that have no pool: where ns_set_log says, else syslog, and stderr where there is none. */
#include "harness.h"

#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

/* A function that keeps what it is told */

struct heard {
    atomic_int messages;
    int priority;
    char last[1024];
    void (*act)(void);   /* may be NULL */
};

static void hear(void *arg, int priority, const char *message)
{
    struct heard *heard = arg;
    heard->priority = priority;
    snprintf(heard->last, sizeof heard->last, "%s", message);
    atomic_fetch_add(&heard->messages, 1);
    if (heard->act != NULL) {
        heard->act();
    }
}

static void count(void *arg, int priority, const char *message)
{
    UNUSED(priority);
    UNUSED(message);
    atomic_fetch_add(&((struct heard *)arg)->messages, 1);
}

/* It was told once, at LOG_ERR, in one line that begins with the function's name. */
#define assert_heard(heard, function)                                                          \
    do {                                                                                       \
        assert_int_equal((heard)->messages, 1);                                                \
        assert_int_equal((heard)->priority, LOG_ERR);                                          \
        assert_int_equal(strncmp((heard)->last, function ": ", strlen(function ": ")), 0);     \
        assert_ptr_equal(strchr((heard)->last, '\n'),                                          \
                         (heard)->last + strlen((heard)->last) - 1);                           \
        (heard)->messages = 0;                                                                 \
    } while (0)

static void nothing(struct ns_job_t *job)
{
    UNUSED(job);
}

TEST(every_refusal_without_a_pool_is_told)
{
    struct heard heard = {0};
    struct timeval tv = {1, 0}, negative = {-1, 0};
    struct ns_job_t *job = NULL;
    struct PRFileDesc *no_fd = NULL;
    ns_set_log(hear, &heard);

#define REFUSED(result, function, ...)                                                         \
    do {                                                                                       \
        errno = 4711;                                                                          \
        assert_int_equal(function(__VA_ARGS__), result);                                       \
        assert_int_equal(errno, 4711);                                                         \
        assert_heard(&heard, #function);                                                       \
    } while (0)
#define INVALID(...) REFUSED(NS_INVALID_REQUEST, __VA_ARGS__)
    INVALID(ns_create_job, NULL, NS_JOB_THREAD, nothing, &job);
    INVALID(ns_create_job, NULL, NS_JOB_THREAD, nothing, NULL);
    INVALID(ns_add_job, NULL, NS_JOB_THREAD, nothing, NULL, &job);
    INVALID(ns_add_timeout_job, NULL, &tv, NS_JOB_THREAD, nothing, NULL, &job);
    INVALID(ns_add_timeout_job, NULL, &negative, NS_JOB_THREAD, nothing, NULL, &job);
    INVALID(ns_add_timeout_job, NULL, NULL, NS_JOB_THREAD, nothing, NULL, &job);
    INVALID(ns_add_io_job, NULL, no_fd, NS_JOB_READ, nothing, NULL, &job);
    INVALID(ns_add_io_timeout_job, NULL, no_fd, &tv, NS_JOB_READ, nothing, NULL, &job);
    INVALID(ns_add_io_timeout_job, NULL, no_fd, NULL, NS_JOB_READ, nothing, NULL, &job);
    INVALID(ns_add_signal_job, NULL, SIGUSR1, NS_JOB_NONE, nothing, NULL, &job);
    INVALID(ns_add_signal_job, NULL, -1, NS_JOB_NONE, nothing, NULL, &job);
    INVALID(ns_add_fd_job, NULL, 0, NS_JOB_READ, nothing, NULL, &job);
    INVALID(ns_add_fd_job, NULL, -1, NS_JOB_READ, nothing, NULL, &job);
    INVALID(ns_add_fd_timeout_job, NULL, 0, &tv, NS_JOB_READ, nothing, NULL, &job);
    INVALID(ns_add_fd_timeout_job, NULL, 0, NULL, NS_JOB_READ, nothing, NULL, &job);
    INVALID(ns_add_fd_timeout_job, NULL, -1, &tv, NS_JOB_READ, nothing, NULL, &job);
    INVALID(ns_job_rearm, NULL);
    INVALID(ns_job_done, NULL);
    INVALID(ns_job_cancel, NULL);
    INVALID(ns_job_wait, NULL);
    INVALID(ns_job_timedwait, NULL, &tv);
    INVALID(ns_job_timedwait, NULL, &negative);
    INVALID(ns_job_timedwait, NULL, NULL);
    INVALID(ns_job_set_data, NULL, &heard);
    INVALID(ns_job_set_done_cb, NULL, nothing);
    INVALID(ns_thrpool_wait, NULL);

#define NO_POOL(config)                                                                        \
    do {                                                                                       \
        assert_null(ns_thrpool_new(config));                                                   \
        assert_heard(&heard, "ns_thrpool_new");                                                \
    } while (0)
    struct ns_thrpool_config config = {0};
    NO_POOL(NULL);
    NO_POOL(&config);
    ns_thrpool_config_init(&config);
    config.max_threads = 0;
    NO_POOL(&config);
    config.max_threads = 1;
    config.stacksize = 1;
    NO_POOL(&config);
    config.stacksize = 0;
    config.max_threads = SIZE_MAX;
    NO_POOL(&config);

    /* What has a pool, or a logger of its own, goes there. */
    logged_errors = 0;
    config.log_fct = recording_log;
    config.max_threads = 0;
    assert_null(ns_thrpool_new(&config));
    assert_int_equal(count_logged_errors(), 1);
    config.max_threads = 1;
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    assert_int_equal(ns_add_fd_job(tp, -1, NS_JOB_READ, nothing, NULL, NULL), NS_INVALID_REQUEST);
    assert_int_equal(count_logged_errors(), 2);
    pool_end(tp);

    /* These take NULL. */
    ns_thrpool_config_init(NULL);
    ns_thrpool_shutdown(NULL);
    assert_int_equal(ns_thrpool_is_shutdown(NULL), 0);
    ns_thrpool_destroy(NULL);
    assert_null(ns_job_get_data(NULL));
    assert_int_equal(ns_job_get_type(NULL), 0);
    assert_int_equal(ns_job_get_output_type(NULL), 0);
    assert_null(ns_job_get_tp(NULL));
    assert_null(ns_job_get_fd(NULL));
    assert_int_equal(ns_job_get_native_fd(NULL), -1);
    assert_int_equal(ns_job_is_func(NULL, nothing), 0);
    assert_int_equal(heard.messages, 0);
    ns_set_log(NULL, NULL);
}

/* What a pool without a log_fct says goes to syslog, as ever. */
TEST(a_pool_that_there_is_is_not_without_one)
{
    struct heard heard = {0};
    ns_set_log(hear, &heard);
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    assert_non_null(tp);
    assert_int_equal(ns_add_fd_job(tp, -1, NS_JOB_READ, nothing, NULL, NULL), NS_INVALID_REQUEST);
    pool_end(tp);
    assert_int_equal(heard.messages, 0);
    ns_set_log(NULL, NULL);
}

static void refused_again(void)
{
    assert_int_equal(ns_job_done(NULL), NS_INVALID_REQUEST);
}

TEST(a_message_raised_inside_is_dropped)
{
    struct heard heard = {.act = refused_again};
    ns_set_log(hear, &heard);
    ns_job_rearm(NULL);
    assert_heard(&heard, "ns_job_rearm");
    ns_job_rearm(NULL);
    assert_heard(&heard, "ns_job_rearm");
    ns_set_log(NULL, NULL);
}

static struct heard another;

static void set_another(void)
{
    ns_set_log(hear, &another);
}

static void set_none(void)
{
    ns_set_log(NULL, NULL);
}

TEST(it_may_replace_itself)
{
    struct heard heard = {.act = set_another};
    ns_set_log(hear, &heard);
    ns_job_rearm(NULL);
    assert_heard(&heard, "ns_job_rearm");
    another.act = set_none;
    ns_job_done(NULL);
    assert_heard(&another, "ns_job_done");
    assert_int_equal(heard.messages, 0);
    /* Many at once that do, and each is called no more afterwards. */
    for (int n = 0; n < 100; n++) {
        ns_set_log(hear, &heard);
        ns_job_rearm(NULL);
        ns_set_log(NULL, NULL);
    }
}

static void errno_and_cancellation(void)
{
    errno = EBADMSG;
    pthread_testcancel();
}

static void *refused_and_cancelled(void *arg)
{
    pthread_cancel(pthread_self());
    errno = 4711;
    ns_job_done(NULL);
    ns_set_log(count, arg);
    *(int *)((struct heard *)arg)->last = errno;
    pthread_testcancel();
    return NULL;
}

TEST(neither_it_nor_setting_it_is_a_cancellation_point_or_changes_errno)
{
    struct heard heard = {.act = errno_and_cancellation}, after = {0};
    ns_set_log(hear, &heard);
    pthread_t thread;
    void *end;
    assert_int_equal(pthread_create(&thread, NULL, refused_and_cancelled, &after), 0);
    assert_int_equal(pthread_join(thread, &end), 0);
    assert_ptr_equal(end, PTHREAD_CANCELED);
    assert_heard(&heard, "ns_job_done");
    assert_int_equal(*(int *)after.last, 4711);
    ns_set_log(NULL, NULL);
}

/* A function and an argument that belong together: each argument says whose it is, and is
 * overwritten and freed once it was replaced. */

struct owned {
    int owner;
    char padding[60];
};

static atomic_long told, mixed;

static void owned_by(const struct owned *owned, int who)
{
    if (owned->owner != who) {
        atomic_fetch_add(&mixed, 1);
    }
    atomic_fetch_add(&told, 1);
}

static void first(void *arg, int priority, const char *message)
{
    UNUSED(priority);
    UNUSED(message);
    owned_by(arg, 1);
}

static void second(void *arg, int priority, const char *message)
{
    UNUSED(priority);
    UNUSED(message);
    owned_by(arg, 2);
}

static atomic_int refusing;

static void *be_refused(void *arg)
{
    UNUSED(arg);
    while (atomic_load(&refusing)) {
        ns_job_done(NULL);
        ns_thrpool_wait(NULL);
    }
    return NULL;
}

TEST(replacing_it_while_others_are_told)
{
    atomic_store(&refusing, 1);
    struct heard quiet = {0};
    ns_set_log(count, &quiet);
    pthread_t threads[3];
    for (int n = 0; n < 3; n++) {
        assert_int_equal(pthread_create(&threads[n], NULL, be_refused, NULL), 0);
    }
    EVENTUALLY(atomic_load(&quiet.messages) > 0);
    struct owned *last = NULL;
    int rounds = 0;
    while (rounds++ < scaled(20000) || atomic_load(&told) == 0) {
        struct owned *next = calloc(1, sizeof *next);
        next->owner = 1 + rounds % 2;
        ns_set_log(next->owner == 1 ? first : second, next);
        if (last != NULL) {
            last->owner = -1;
            free(last);
        }
        last = next;
    }
    ns_set_log(count, &quiet);
    free(last);
    atomic_store(&refusing, 0);
    for (int n = 0; n < 3; n++) {
        pthread_join(threads[n], NULL);
    }
    assert_int_equal(atomic_load(&mixed), 0);
    ns_set_log(NULL, NULL);
}

/* Replaced while another thread is inside: it comes back only when that has left. */

struct staying {
    struct gate gate;
    atomic_int entered;
    atomic_int left;
};

/* The first that is told stays; others pass. */
static void stays(void *arg, int priority, const char *message)
{
    struct staying *staying = arg;
    UNUSED(priority);
    UNUSED(message);
    if (atomic_fetch_add(&staying->entered, 1) == 0) {
        stay_in_gate(&staying->gate);
        atomic_store(&staying->left, 1);
    }
}

static void *be_refused_once(void *arg)
{
    UNUSED(arg);
    ns_job_done(NULL);
    return NULL;
}

static void *replace(void *arg)
{
    struct heard *quiet = arg;
    ns_set_log(count, quiet);
    return NULL;
}

TEST(whoever_replaces_it_waits_for_those_inside)
{
    struct staying *staying = calloc(1, sizeof *staying);
    staying->gate = (struct gate)GATE_INIT;
    struct heard quiet = {0};
    pthread_t inside, replacing;
    ns_set_log(stays, staying);
    assert_int_equal(pthread_create(&inside, NULL, be_refused_once, NULL), 0);
    assert_latch(&staying->gate.begun, 1);
    assert_int_equal(pthread_create(&replacing, NULL, replace, &quiet), 0);
    /* The new one is told, while the old one is waited for. */
    EVENTUALLY((ns_job_rearm(NULL), atomic_load(&quiet.messages) > 0));
    assert_int_equal(pthread_tryjoin_np(replacing, NULL), EBUSY);
    latch_add(&staying->gate.leave, 1);
    pthread_join(replacing, NULL);
    assert_int_equal(atomic_load(&staying->left), 1);
    free(staying);
    pthread_join(inside, NULL);
    ns_set_log(NULL, NULL);
}

/* In a child. Exits with what act returns. */
static int in_child(int (*act)(void))
{
    pid_t child = fork();
    if (child == 0) {
        _exit(act());
    }
    int status = -1;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + status;
}

static int refused_and_set(void)
{
    struct heard mine = {0};
    ns_job_done(NULL);
    /* The thread that is inside is the parent's. */
    ns_set_log(count, &mine);
    ns_job_done(NULL);
    ns_set_log(NULL, NULL);
    return mine.messages;
}

TEST(a_child_does_not_wait_for_its_parents_threads)
{
    struct staying staying = {GATE_INIT, 0, 0};
    pthread_t inside;
    ns_set_log(stays, &staying);
    assert_int_equal(pthread_create(&inside, NULL, be_refused_once, NULL), 0);
    assert_latch(&staying.gate.begun, 1);
    assert_int_equal(in_child(refused_and_set), 1);
    latch_add(&staying.gate.leave, 1);
    pthread_join(inside, NULL);
    ns_set_log(NULL, NULL);
}

/* Without a function */

static char root[] = "/tmp/nunc-stans-XXXXXX";

/* A root without a /dev/log, or, with one, with a socket that listens there. -1: not allowed to. */
static int enter_root(void)
{
    if (geteuid() != 0 && unshare(CLONE_NEWUSER) != 0) {
        return -1;
    }
    return chroot(root) == 0 && chdir("/") == 0 ? 0 : -1;
}

enum { DONE = 0, NOT_ALLOWED = 77 };

static int refused_in_root(void)
{
    if (enter_root() != 0) {
        return NOT_ALLOWED;
    }
    errno = 4711;
    ns_result_t result = ns_job_done(NULL);
    if (ns_thrpool_new(NULL) != NULL || result != NS_INVALID_REQUEST) {
        return 1;
    }
    return errno == 4711 ? DONE : 2;
}

static int refused_without_stderr(void)
{
    close(2);
    return refused_in_root();
}

static int deaf[2];

static int refused_to_nobody(void)
{
    /* The reader has gone: SIGPIPE would end this process. One of its own stays pending. */
    close(deaf[0]);
    dup2(deaf[1], 2);
    int code = refused_in_root();
    sigset_t set;
    sigpending(&set);
    return sigismember(&set, SIGPIPE) ? 3 : code;
}

static int refused_to_nobody_with_one_pending(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGPIPE);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGPIPE);
    int code = refused_to_nobody();
    return code == 3 ? DONE : 4;
}

/* What a child that does act writes to its stderr. */
static int stderr_of(int (*act)(void), char *text, size_t size)
{
    int ends[2], code;
    assert_int_equal(pipe(ends), 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 2);
        close(ends[0]);
        close(ends[1]);
        _exit(act());
    }
    close(ends[1]);
    size_t length = 0;
    ssize_t n;
    while (length < size - 1 && (n = read(ends[0], text + length, size - 1 - length)) > 0) {
        length += (size_t)n;
    }
    text[length] = '\0';
    close(ends[0]);
    assert_int_equal(waitpid(child, &code, 0), child);
    assert_true(WIFEXITED(code));
    return WEXITSTATUS(code);
}

TEST(without_syslog_it_is_stderr)
{
    char text[4096];
    assert_non_null(mkdtemp(root));
    int code = stderr_of(refused_in_root, text, sizeof text);
    if (code == NOT_ALLOWED) {
        rmdir(root);
        skip();
    }
    assert_int_equal(code, DONE);
    assert_string_equal(text, "nunc-stans: ns_job_done: job is NULL\n"
                              "nunc-stans: ns_thrpool_new: config is NULL\n");
    assert_int_equal(stderr_of(refused_without_stderr, text, sizeof text), DONE);
    assert_string_equal(text, "");
    for (int pending = 0; pending < 2; pending++) {
        assert_int_equal(pipe(deaf), 0);
        assert_int_equal(in_child(pending ? refused_to_nobody_with_one_pending
                                          : refused_to_nobody), DONE);
        close(deaf[0]);
        close(deaf[1]);
    }
    rmdir(root);
}

TEST(with_syslog_it_is_that_alone)
{
    char text[4096], path[100], line[1024];
    strcpy(root, "/tmp/nunc-stans-XXXXXX");
    assert_non_null(mkdtemp(root));
    snprintf(path, sizeof path, "%s/dev", root);
    assert_int_equal(mkdir(path, 0755), 0);
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    snprintf(at.sun_path, sizeof at.sun_path, "%s/dev/log", root);
    int log = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    assert_int_equal(bind(log, (struct sockaddr *)&at, sizeof at), 0);
    int code = stderr_of(refused_in_root, text, sizeof text);
    ssize_t length = recv(log, line, sizeof line - 1, 0);
    close(log);
    unlink(at.sun_path);
    rmdir(path);
    rmdir(root);
    if (code == NOT_ALLOWED) {
        skip();
    }
    assert_int_equal(code, DONE);
    assert_string_equal(text, "");
    assert_true(length > 0);
    line[length] = '\0';
    assert_non_null(strstr(line, "nunc-stans: ns_job_done: job is NULL"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_refusal_without_a_pool_is_told),
        cmocka_unit_test(a_pool_that_there_is_is_not_without_one),
        cmocka_unit_test(a_message_raised_inside_is_dropped),
        cmocka_unit_test(it_may_replace_itself),
        cmocka_unit_test(neither_it_nor_setting_it_is_a_cancellation_point_or_changes_errno),
        cmocka_unit_test(replacing_it_while_others_are_told),
        cmocka_unit_test(whoever_replaces_it_waits_for_those_inside),
        cmocka_unit_test(a_child_does_not_wait_for_its_parents_threads),
        cmocka_unit_test(without_syslog_it_is_stderr),
        cmocka_unit_test(with_syslog_it_is_that_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
