/* SPDX-License-Identifier: GPL-3.0-or-later */
/* nunc-stans-hiredis.h, against a redis-server that the test starts and kills. */
#include "harness.h"

#include <sys/wait.h>

#include "nunc-stans-hiredis.h"

static char path[64];
static pid_t server;

static void start_server(void)
{
    server = fork();
    if (server == 0) {
        execlp("redis-server", "redis-server", "--port", "0", "--unixsocket", path, "--save", "",
               "--logfile", "/dev/null", (char *)NULL);
        _exit(127);
    }
    for (;;) { /* the watchdog of run.sh ends it */
        redisContext *c = redisConnectUnix(path);
        int up = c != NULL && c->err == 0;
        redisFree(c);
        if (up)
            return;
        struct timespec pause = {0, 20000000};
        nanosleep(&pause, NULL);
    }
}

static void kill_server(void)
{
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    unlink(path);
}

/* What the tests do with a context: all of it belongs to the group. */
static struct {
    ns_thrpool_t *tp;
    struct ns_group_t *group;
    redisAsyncContext *ac;
    atomic_int connected, failed, disconnected, lost, replies, nothing, wrong, inside;
    int count, next, refused;
} t;

static void enter(void)
{
    if (atomic_fetch_add(&t.inside, 1) != 0 || !ns_group_is_current(t.group))
        atomic_fetch_add(&t.wrong, 1);
}

static void leave(void)
{
    atomic_fetch_sub(&t.inside, 1);
}

static void on_connect(const redisAsyncContext *ac, int status)
{
    UNUSED(ac);
    if (status != REDIS_OK)
        t.ac = NULL;
    atomic_fetch_add(status == REDIS_OK ? &t.connected : &t.failed, 1);
}

static void on_disconnect(const redisAsyncContext *ac, int status)
{
    UNUSED(ac);
    t.ac = NULL;
    atomic_fetch_add(status == REDIS_OK ? &t.disconnected : &t.lost, 1);
}

static void on_set(redisAsyncContext *ac, void *reply, void *data)
{
    UNUSED(ac);
    UNUSED(data);
    if (reply == NULL)
        atomic_fetch_add(&t.nothing, 1);
}

/* Replies come in the order of the commands, one at a time; each asks for the next. */
static void on_get(redisAsyncContext *ac, void *arg, void *data)
{
    enter();
    redisReply *reply = arg;
    long number = (long)(intptr_t)data;
    if (reply == NULL) {
        atomic_fetch_add(&t.nothing, 1);
    } else {
        if (reply->type != REDIS_REPLY_STRING || atol(reply->str) != number || number != t.next++)
            atomic_fetch_add(&t.wrong, 1);
        long again = number + 20;
        if (again < t.count) {
            redisAsyncCommand(ac, on_set, NULL, "SET key:%ld %ld", again, again);
            redisAsyncCommand(ac, on_get, (void *)(intptr_t)again, "GET key:%ld", again);
        }
        atomic_fetch_add(&t.replies, 1);
    }
    leave();
}

static void begin(struct ns_job_t *job)
{
    enter();
    redisAsyncContext *ac = t.refused ? redisAsyncConnect("127.0.0.1", 1) : redisAsyncConnectUnix(path);
    if (ac != NULL && ac->err != 0) { /* nobody listens at the path: connect says so at once */
        redisAsyncFree(ac);
        atomic_fetch_add(&t.failed, 1);
    } else if (ac == NULL || redisNuncStansAttach(ac, t.group) != REDIS_OK ||
        redisNuncStansAttach(ac, t.group) != REDIS_ERR) {
        atomic_fetch_add(&t.wrong, 1);
    } else {
        t.ac = ac;
        redisAsyncSetConnectCallback(ac, on_connect);
        redisAsyncSetDisconnectCallback(ac, on_disconnect);
        for (long n = 0; n < 20 && n < t.count; n++) {
            redisAsyncCommand(ac, on_set, NULL, "SET key:%ld %ld", n, n);
            redisAsyncCommand(ac, on_get, (void *)(intptr_t)n, "GET key:%ld", n);
        }
    }
    leave();
    ns_job_done(job);
}

static void end_it(struct ns_job_t *job)
{
    if (t.ac != NULL)
        redisAsyncDisconnect(t.ac);
    ns_job_done(job);
}

static void free_it(struct ns_job_t *job)
{
    if (t.ac != NULL)
        redisAsyncFree(t.ac);
    ns_job_done(job);
}

static void post(ns_job_func_t func)
{
    assert_int_equal(ns_add_group_job(t.group, NS_JOB_THREAD, func, NULL, NULL), NS_SUCCESS);
}

static int setup(void **state)
{
    UNUSED(state);
    struct ns_thrpool_config config;
    memset(&t, 0, sizeof t);
    ns_thrpool_config_init(&config);
    config.max_threads = 3;
    t.tp = ns_thrpool_new(&config);
    return t.tp == NULL || ns_group_new(t.tp, 1, NULL, NULL, &t.group) != NS_SUCCESS;
}

static int teardown(void **state)
{
    UNUSED(state);
    ns_thrpool_shutdown(t.tp);
    ns_thrpool_wait(t.tp);
    if (t.ac != NULL)
        redisAsyncFree(t.ac); /* as the header says */
    ns_group_release(t.group);
    ns_thrpool_destroy(t.tp);
    return 0;
}

TEST(ten_thousand_commands_in_order)
{
    t.count = 10000;
    post(begin);
    EVENTUALLY(t.replies == t.count);
    post(end_it);
    EVENTUALLY(t.disconnected == 1);
    assert_int_equal(t.connected, 1);
    assert_int_equal(t.wrong + t.nothing + t.lost, 0);
}

TEST(a_context_is_freed_with_commands_under_way)
{
    t.count = 1 << 30;
    post(begin);
    EVENTUALLY(t.replies > 100);
    post(free_it);
    EVENTUALLY(t.disconnected + t.lost == 1);
    assert_true(t.nothing > 0); /* what was under way got no reply, but its callback was called */
    assert_int_equal(t.wrong, 0);
}

TEST(the_server_is_killed_and_comes_back)
{
    for (int round = 0; round < 3; round++) {
        t.count = 1 << 30;
        t.next = 0;
        int before = t.replies;
        post(begin);
        EVENTUALLY(t.replies > before + 100);
        kill_server();
        EVENTUALLY(t.lost == round + 1);
        assert_true(t.nothing > 0);
        /* Nobody is there. */
        int failed = t.failed;
        post(begin);
        EVENTUALLY(t.failed == failed + 1);
        assert_int_equal(t.connected, round + 1);
        start_server();
    }
    t.count = 100;
    t.next = 0;
    int before = t.replies;
    post(begin);
    EVENTUALLY(t.replies == before + 100);
    assert_int_equal(t.wrong, 0);
}

TEST(a_refused_connection_is_told)
{
    t.refused = 1;
    t.count = 10;
    for (int round = 1; round <= 20; round++) {
        post(begin);
        EVENTUALLY(t.failed == round);
    }
    assert_int_equal(t.connected + t.replies + t.wrong, 0);
}

TEST(a_pool_ends_with_a_live_context)
{
    t.count = 1 << 30;
    post(begin);
    EVENTUALLY(t.replies > 100);
    /* teardown does it */
}

TEST(attaching_outside_the_group_is_refused)
{
    redisAsyncContext *ac = redisAsyncConnectUnix(path);
    assert_int_equal(redisNuncStansAttach(ac, t.group), REDIS_ERR);
    redisAsyncFree(ac);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    snprintf(path, sizeof path, "/tmp/ns-redis-%ld", (long)getpid());
    start_server();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(ten_thousand_commands_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(a_context_is_freed_with_commands_under_way, setup, teardown),
        cmocka_unit_test_setup_teardown(the_server_is_killed_and_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(a_refused_connection_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(a_pool_ends_with_a_live_context, setup, teardown),
        cmocka_unit_test_setup_teardown(attaching_outside_the_group_is_refused, setup, teardown),
    };
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    kill_server();
    return failures;
}
