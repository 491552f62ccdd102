/* SPDX-License-Identifier: GPL-3.0-or-later */
/* nunc-stans-dbus.h, against a dbus-daemon that the test starts and kills. */
#include "harness.h"

#include <sys/prctl.h>
#include <sys/wait.h>

#include "nunc-stans-dbus.h"

static char address[80];
static const char *path;
static pid_t server;

/* A connection that is said hello, or NULL. */
static DBusConnection *open_bus(void)
{
    DBusConnection *bus = dbus_connection_open_private(address, NULL);
    if (bus == NULL)
        return NULL;
    dbus_connection_set_exit_on_disconnect(bus, FALSE);
    if (dbus_bus_register(bus, NULL))
        return bus;
    dbus_connection_close(bus);
    dbus_connection_unref(bus);
    return NULL;
}

static void start_server(void)
{
    char option[100];
    snprintf(option, sizeof option, "--address=%s", address);
    server = fork();
    if (server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* also if the test crashes */
        execlp("dbus-daemon", "dbus-daemon", "--session", "--nofork", "--nopidfile", "--nosyslog", option, (char *)NULL);
        _exit(127);
    }
    for (;;) { /* the watchdog of run.sh ends it */
        DBusConnection *bus = open_bus();
        if (bus != NULL) {
            dbus_connection_close(bus);
            dbus_connection_unref(bus);
            return;
        }
        let_time_pass(20000);
    }
}

static void kill_server(void)
{
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
    unlink(path);
}

/* Two ends: one serves, the other calls. All but the counts belongs to the end's group. */
static struct end {
    struct ns_group_t *group;
    DBusConnection *bus;
    struct dbusNuncStans *attached;
    const char *member;
    int left, next, timeout_ms, detach_when_lost;
    size_t payload;
    char *text;
    atomic_int up, replies, errors, no_replies, lost, lost_calls, gone, wrong, inside, signals;
} ends[2], *service = &ends[0], *t = &ends[1];
static ns_thrpool_t *tp;

static void enter(struct end *e)
{
    if (atomic_fetch_add(&e->inside, 1) != 0 || (e->attached != NULL && !ns_group_is_current(e->group)))
        atomic_fetch_add(&e->wrong, 1);
}

static void leave(struct end *e)
{
    atomic_fetch_sub(&e->inside, 1);
}

static void drop(struct end *e)
{
    dbusNuncStansDetach(e->attached);
    e->attached = NULL;
    dbus_connection_close(e->bus);
    dbus_connection_unref(e->bus);
    e->bus = NULL;
    atomic_fetch_add(&e->gone, 1);
}

/* Echo answers with what it got; Silence does not answer; Shout is a signal. */
static DBusHandlerResult on_message(DBusConnection *bus, DBusMessage *message, void *data)
{
    struct end *e = data;
    DBusHandlerResult result = DBUS_HANDLER_RESULT_HANDLED;
    enter(e);
    if (dbus_message_is_signal(message, DBUS_INTERFACE_LOCAL, "Disconnected")) {
        leave(e);
        if (e->detach_when_lost)
            drop(e);
        atomic_fetch_add(&e->lost, 1);
        return DBUS_HANDLER_RESULT_HANDLED;
    }
    if (dbus_message_is_method_call(message, "org.test", "Echo")) {
        int n;
        const char *text;
        DBusMessage *reply = dbus_message_new_method_return(message);
        if (!dbus_message_get_args(message, NULL, DBUS_TYPE_INT32, &n, DBUS_TYPE_STRING, &text, DBUS_TYPE_INVALID) ||
            !dbus_message_append_args(reply, DBUS_TYPE_INT32, &n, DBUS_TYPE_STRING, &text, DBUS_TYPE_INVALID) ||
            !dbus_connection_send(bus, reply, NULL))
            atomic_fetch_add(&e->wrong, 1);
        dbus_message_unref(reply);
    } else if (dbus_message_get_type(message) == DBUS_MESSAGE_TYPE_ERROR) {
        atomic_fetch_add(&e->lost_calls, 1);
    } else if (dbus_message_is_signal(message, "org.test", "Shout")) {
        atomic_fetch_add(&e->signals, 1);
    } else if (!dbus_message_is_method_call(message, "org.test", "Silence")) {
        result = DBUS_HANDLER_RESULT_NOT_YET_HANDLED;
    }
    leave(e);
    return result;
}

static void call(struct end *e);

static void on_reply(DBusPendingCall *pending, void *data)
{
    struct end *e = data;
    DBusMessage *reply = dbus_pending_call_steal_reply(pending);
    atomic_int *count = &e->replies;
    enter(e);
    if (dbus_message_get_type(reply) == DBUS_MESSAGE_TYPE_ERROR) {
        count = dbus_message_is_error(reply, DBUS_ERROR_NO_REPLY) ? &e->no_replies : &e->errors;
    } else {
        int n;
        const char *text;
        if (!dbus_message_get_args(reply, NULL, DBUS_TYPE_INT32, &n, DBUS_TYPE_STRING, &text, DBUS_TYPE_INVALID) ||
            n < 0 || n >= e->next || strlen(text) != e->payload)
            atomic_fetch_add(&e->wrong, 1);
    }
    dbus_message_unref(reply);
    if (e->left > 0)
        call(e);
    leave(e);
    atomic_fetch_add(count, 1);
}

static void call(struct end *e)
{
    DBusMessage *message = dbus_message_new_method_call("org.test.Service", "/", "org.test", e->member);
    DBusPendingCall *pending = NULL;
    const char *text = e->text;
    e->left--;
    dbus_message_append_args(message, DBUS_TYPE_INT32, &e->next, DBUS_TYPE_STRING, &text, DBUS_TYPE_INVALID);
    e->next++;
    if (!dbus_connection_send_with_reply(e->bus, message, &pending, e->timeout_ms))
        atomic_fetch_add(&e->wrong, 1);
    if (pending == NULL) { /* the connection is lost already */
        atomic_fetch_add(&e->errors, 1);
    } else {
        dbus_pending_call_set_notify(pending, on_reply, e, NULL);
        dbus_pending_call_unref(pending); /* libdbus' own hold lasts until then, or until the connection ends */
    }
    dbus_message_unref(message);
}

static void connect_end(struct ns_job_t *job)
{
    struct end *e = ns_job_get_data(job);
    enter(e);
    e->bus = open_bus();
    if (e->bus == NULL || !dbus_connection_add_filter(e->bus, on_message, e, NULL) ||
        (e == service && dbus_bus_request_name(e->bus, "org.test.Service", 0, NULL) < 1) ||
        !dbusNuncStansAttach(e->bus, e->group, &e->attached))
        atomic_fetch_add(&e->wrong, 1);
    ns_job_done(job);
    leave(e);
    atomic_fetch_add(&e->up, 1);
}

/* 64 at once, if so many are left; then each reply calls the next. */
static void begin(struct ns_job_t *job)
{
    struct end *e = ns_job_get_data(job);
    enter(e);
    for (int i = 0; i < 64 && e->left > 0; i++)
        call(e);
    ns_job_done(job);
    leave(e);
}

static void drop_end(struct ns_job_t *job)
{
    drop(ns_job_get_data(job));
    ns_job_done(job);
}

static void shout(struct ns_job_t *job)
{
    struct end *e = ns_job_get_data(job);
    DBusMessage *message = dbus_message_new_signal("/", "org.test", "Shout");
    enter(e);
    dbus_connection_send(e->bus, message, NULL);
    dbus_message_unref(message);
    ns_job_done(job);
    leave(e);
}

static void listen_for_shouts(struct ns_job_t *job)
{
    struct end *e = ns_job_get_data(job);
    enter(e);
    dbus_bus_add_match(e->bus, "type='signal',interface='org.test'", NULL); /* does not wait */
    ns_job_done(job);
    leave(e);
}

static void post(struct end *e, ns_job_func_t func)
{
    assert_int_equal(ns_add_group_job(e->group, NS_JOB_THREAD, func, e, NULL), NS_SUCCESS);
}

static void calls(const char *member, int n, int timeout_ms)
{
    t->member = member;
    t->left = n;
    t->timeout_ms = timeout_ms;
    post(t, begin);
}

static void connect_both(int round)
{
    post(service, connect_end);
    EVENTUALLY(service->up == round);
    post(t, connect_end);
    EVENTUALLY(t->up == round);
    assert_int_equal(service->wrong + t->wrong, 0);
}

static int setup(void **state)
{
    UNUSED(state);
    memset(ends, 0, sizeof ends);
    tp = pool_of(4);
    for (int i = 0; i < 2; i++) {
        ends[i].text = calloc(1, 1);
        if (ns_group_new(tp, 1, NULL, NULL, &ends[i].group) != NS_SUCCESS)
            return -1;
    }
    connect_both(1);
    return 0;
}

static int teardown(void **state)
{
    UNUSED(state);
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    for (int i = 0; i < 2; i++) {
        if (ends[i].attached != NULL)
            drop(&ends[i]);
        ns_group_release(ends[i].group);
        free(ends[i].text);
    }
    ns_thrpool_destroy(tp);
    return 0;
}

TEST(many_calls_between_two_groups)
{
    int n = scaled(5000);
    calls("Echo", n, 20000);
    EVENTUALLY(t->replies == n);
    assert_int_equal(t->errors + t->no_replies + t->wrong + service->wrong, 0);
}

TEST(long_messages)
{
    t->payload = 1000000;
    t->text = realloc(t->text, t->payload + 1);
    memset(t->text, 'x', t->payload);
    t->text[t->payload] = 0;
    calls("Echo", 30, 20000);
    EVENTUALLY(t->replies == 30);
    assert_int_equal(t->errors + t->no_replies + t->wrong + service->wrong, 0);
}

TEST(signals_arrive)
{
    post(service, listen_for_shouts);
    calls("Echo", 1, 20000); /* after it the bus knows of the match */
    EVENTUALLY(t->replies == 1);
    for (int i = 0; i < 100; i++)
        post(t, shout);
    EVENTUALLY(service->signals == 100);
}

TEST(calls_without_reply_end_by_their_time)
{
    double begins = now_seconds();
    calls("Silence", 64, 100);
    EVENTUALLY(t->no_replies == 64);
    assert_true(now_seconds() - begins >= 0.1);
    calls("Echo", 100, 20000);
    EVENTUALLY(t->replies == 100);
    assert_int_equal(t->errors + t->wrong, 0);
}

TEST(the_bus_is_killed_and_comes_back)
{
    int in_all = 0;
    for (int round = 1; round <= 4; round++) {
        int replies = t->replies, lost_calls = t->lost_calls;
        service->detach_when_lost = t->detach_when_lost = round % 2 == 0;
        calls("Echo", 1 << 30, 20000);
        EVENTUALLY(t->replies >= replies + 100);
        kill_server();
        EVENTUALLY(t->lost == round && service->lost == round);
        assert_true(t->lost_calls - lost_calls <= 64);
        in_all += t->lost_calls - lost_calls;
        if (round % 2 != 0) {
            post(service, drop_end);
            post(t, drop_end);
        }
        EVENTUALLY(service->gone == round && t->gone == round);
        start_server();
        connect_both(round + 1);
    }
    assert_true(in_all > 0);
    int replies = t->replies;
    calls("Echo", 100, 20000);
    EVENTUALLY(t->replies >= replies + 100);
    assert_int_equal(t->wrong + service->wrong, 0);
}

TEST(an_end_is_dropped_with_calls_under_way)
{
    for (int round = 1; round <= 10; round++) {
        int replies = t->replies;
        calls("Echo", 1 << 30, 20000);
        EVENTUALLY(t->replies >= replies + 50);
        post(t, drop_end);
        EVENTUALLY(t->gone == round);
        post(t, connect_end);
        EVENTUALLY(t->up == round + 1);
    }
    assert_int_equal(t->wrong + service->wrong, 0);
}

TEST(a_pool_ends_with_live_connections)
{
    calls("Echo", 1 << 30, 20000);
    EVENTUALLY(t->replies > 100);
    /* teardown does it */
}

TEST(outside_the_group_it_is_refused)
{
    struct dbusNuncStans *attached;
    DBusConnection *bus = open_bus();
    assert_false(dbusNuncStansAttach(bus, t->group, &attached));
    assert_null(attached);
    dbus_connection_close(bus);
    dbus_connection_unref(bus);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    snprintf(address, sizeof address, "unix:path=/tmp/ns-dbus-%ld", (long)getpid());
    path = strchr(address, '=') + 1;
    start_server();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(many_calls_between_two_groups, setup, teardown),
        cmocka_unit_test_setup_teardown(long_messages, setup, teardown),
        cmocka_unit_test_setup_teardown(signals_arrive, setup, teardown),
        cmocka_unit_test_setup_teardown(calls_without_reply_end_by_their_time, setup, teardown),
        cmocka_unit_test_setup_teardown(the_bus_is_killed_and_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(an_end_is_dropped_with_calls_under_way, setup, teardown),
        cmocka_unit_test_setup_teardown(a_pool_ends_with_live_connections, setup, teardown),
        cmocka_unit_test_setup_teardown(outside_the_group_it_is_refused, setup, teardown),
    };
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    kill_server();
    dbus_shutdown();
    return failures;
}
