/* SPDX-License-Identifier: GPL-3.0-or-later */
/* nunc-stans-cares.h, against a dnsmasq that the test starts, stops and kills. */
#include "harness.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "nunc-stans-cares.h"

static int port;
static pid_t server;

/* A free port, for both protocols. */
static int free_port(void)
{
    for (;;) {
        struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
        socklen_t length = sizeof a;
        int udp = socket(AF_INET, SOCK_DGRAM, 0), tcp = socket(AF_INET, SOCK_STREAM, 0);
        int good = bind(udp, (struct sockaddr *)&a, sizeof a) == 0 &&
                   getsockname(udp, (struct sockaddr *)&a, &length) == 0 &&
                   bind(tcp, (struct sockaddr *)&a, sizeof a) == 0;
        close(udp);
        close(tcp);
        if (good)
            return ntohs(a.sin_port);
    }
}

/* The name h-192-0-2-N.test has the address 192.0.2.N; nothing else is there. */
static void start_server(void)
{
    char port_option[32];
    snprintf(port_option, sizeof port_option, "--port=%d", port);
    server = fork();
    if (server == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL); /* also if the test crashes */
        execlp("dnsmasq", "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts",
               "--listen-address=127.0.0.1", "--bind-interfaces", "--user=", "--pid-file=", "--local=/test/",
               "--synth-domain=test,192.0.2.0/24,h-", "--log-facility=/dev/null", port_option, (char *)NULL);
        _exit(127);
    }
    for (;;) { /* the watchdog of run.sh ends it */
        struct sockaddr_in a = {
            .sin_family = AF_INET, .sin_port = htons((in_port_t)port), .sin_addr = {htonl(INADDR_LOOPBACK)}};
        int fd = socket(AF_INET, SOCK_STREAM, 0), up = connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
        close(fd);
        if (up)
            return;
        let_time_pass(20000);
    }
}

static void kill_server(void)
{
    kill(server, SIGKILL);
    waitpid(server, NULL, 0);
}

enum { CHANNELS = 4 };

/* A channel with its group, and what is asked of it: all but the counts belongs to the group. */
static struct channel {
    struct ns_group_t *group;
    struct caresNuncStans *cares;
    int left, flags, timeout_ms, tries;
    const char *name; /* NULL: many names, in turn */
    int next;
    atomic_int made, answered, ended, wrong, destroyed, inside;
    atomic_int failures[64]; /* by status */
} channels[CHANNELS], *t = channels;
static ns_thrpool_t *tp;

static void ask(struct channel *c);

/* ended counts what was not answered; whoever waits for a count finds the rest done. */
static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *found)
{
    struct channel *c = arg;
    UNUSED(timeouts);
    if (atomic_fetch_add(&c->inside, 1) != 0 || (status != ARES_EDESTRUCTION && !ns_group_is_current(c->group)))
        atomic_fetch_add(&c->wrong, 1);
    if (status == ARES_SUCCESS) {
        struct sockaddr_in *a = (struct sockaddr_in *)(void *)found->nodes->ai_addr;
        unsigned expected;
        if (sscanf(found->name, "h-192-0-2-%u.test", &expected) != 1 || found->nodes->ai_next != NULL ||
            ntohl(a->sin_addr.s_addr) != 0xc0000200 + expected)
            atomic_fetch_add(&c->wrong, 1);
    }
    ares_freeaddrinfo(found);
    if (c->left > 0 && status != ARES_EDESTRUCTION)
        ask(c);
    atomic_fetch_sub(&c->inside, 1);
    atomic_fetch_add(&c->failures[status], 1);
    atomic_fetch_add(status == ARES_SUCCESS ? &c->answered : &c->ended, 1);
}

static void ask(struct channel *c)
{
    char name[64];
    struct ares_addrinfo_hints hints = {.ai_family = AF_INET, .ai_flags = ARES_AI_NOSORT};
    snprintf(name, sizeof name, "h-192-0-2-%d.test.", c->next++ % 256);
    c->left--;
    ares_getaddrinfo(c->cares->channel, c->name != NULL ? c->name : name, NULL, &hints, on_answer, c);
}

static void make(struct ns_job_t *job)
{
    struct channel *c = ns_job_get_data(job);
    struct ares_options options = {
        .flags = c->flags | ARES_FLAG_NOSEARCH, .timeout = c->timeout_ms, .tries = c->tries, .lookups = (char *)"b"};
    char servers[32];
    snprintf(servers, sizeof servers, "127.0.0.1:%d", port);
    if (caresNuncStansNew(c->group, &options,
                          ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_LOOKUPS,
                          &c->cares) != ARES_SUCCESS ||
        ares_set_servers_ports_csv(c->cares->channel, servers) != ARES_SUCCESS)
        atomic_fetch_add(&c->wrong, 1);
    ns_job_done(job);
    atomic_fetch_add(&c->made, 1);
}

/* 64 at once, if so many are left; then each answer asks for the next. */
static void begin(struct ns_job_t *job)
{
    struct channel *c = ns_job_get_data(job);
    for (int i = 0; i < 64 && c->left > 0; i++)
        ask(c);
    caresNuncStansAsked(c->cares);
    ns_job_done(job);
}

static void destroy(struct ns_job_t *job)
{
    struct channel *c = ns_job_get_data(job);
    caresNuncStansFree(c->cares);
    c->cares = NULL;
    ns_job_done(job);
    atomic_fetch_add(&c->destroyed, 1);
}

static void post(struct channel *c, ns_job_func_t func)
{
    assert_int_equal(ns_add_group_job(c->group, NS_JOB_THREAD, func, c, NULL), NS_SUCCESS);
}

static void asks(struct channel *c, int n)
{
    c->left = n;
    post(c, begin);
}

static int setup(void **state)
{
    UNUSED(state);
    memset(channels, 0, sizeof channels);
    tp = pool_of(4);
    for (int i = 0; i < CHANNELS; i++) {
        channels[i].timeout_ms = 5000;
        channels[i].tries = 2;
        if (ns_group_new(tp, 1, NULL, NULL, &channels[i].group) != NS_SUCCESS)
            return -1;
    }
    return 0;
}

static int teardown(void **state)
{
    UNUSED(state);
    ns_thrpool_shutdown(tp);
    assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
    for (int i = 0; i < CHANNELS; i++) {
        if (channels[i].cares != NULL)
            caresNuncStansFree(channels[i].cares);
        ns_group_release(channels[i].group);
    }
    ns_thrpool_destroy(tp);
    return 0;
}

static void many_names(int flags, int tries)
{
    int n = scaled(2000);
    for (int i = 0; i < CHANNELS; i++) {
        channels[i].flags = flags;
        channels[i].tries = tries;
        post(&channels[i], make);
        asks(&channels[i], n);
    }
    for (int i = 0; i < CHANNELS; i++) {
        EVENTUALLY(channels[i].answered + channels[i].ended == n);
        assert_int_equal(channels[i].wrong + channels[i].ended, 0);
    }
}

TEST(many_names_on_four_channels)
{
    many_names(0, 2);
}

/* dnsmasq closes a connection after a hundred questions, with others under way: those are asked again. */
TEST(many_names_by_tcp)
{
    many_names(ARES_FLAG_USEVC, 100);
}

TEST(a_name_that_is_not_there)
{
    t->name = "nothing.test.";
    post(t, make);
    asks(t, 100);
    EVENTUALLY(t->ended == 100);
    assert_int_equal(t->failures[ARES_ENOTFOUND], 100);
    assert_int_equal(t->wrong, 0);
}

/* Of those that are under way some are answered, and all others are told. */
static void killed_and_back(int flags)
{
    t->flags = flags;
    t->timeout_ms = 100;
    post(t, make);
    for (int round = 0; round < 3; round++) {
        int n = t->answered + t->ended;
        asks(t, 2000);
        EVENTUALLY(t->answered + t->ended >= n + 200);
        kill_server();
        EVENTUALLY(t->answered + t->ended == n + 2000);
        /* Nobody is there. */
        n = t->ended;
        asks(t, 100);
        EVENTUALLY(t->ended == n + 100);
        start_server();
    }
    /* It is back: in the end all are answered. On a busy machine some take longer than the time-out, and by
     * TCP some are asked again when dnsmasq closes the connection, until their tries are used up. */
    int answered;
    do {
        answered = t->answered;
        int all = answered + t->ended;
        asks(t, 100);
        EVENTUALLY(t->answered + t->ended == all + 100);
    } while (t->answered != answered + 100);
    assert_int_equal(t->wrong, 0);
}

TEST(the_server_is_killed_and_comes_back)
{
    killed_and_back(0);
}

TEST(the_server_is_killed_and_comes_back_by_tcp)
{
    killed_and_back(ARES_FLAG_USEVC);
}

TEST(a_server_that_is_silent_costs_time_and_no_more)
{
    t->timeout_ms = 100;
    post(t, make);
    EVENTUALLY(t->made);
    kill(server, SIGSTOP);
    double begins = now_seconds();
    asks(t, 64);
    EVENTUALLY(t->ended == 64);
    double took = now_seconds() - begins;
    kill(server, SIGCONT);
    assert_int_equal(t->failures[ARES_ETIMEOUT], 64);
    assert_true(took >= 0.25); /* two tries, the second for twice as long; less what c-ares rounds */
    asks(t, 100);
    EVENTUALLY(t->answered == 100);
    assert_int_equal(t->wrong, 0);
}

TEST(a_channel_is_freed_with_queries_under_way)
{
    for (int round = 1; round <= 20; round++) {
        t->flags = round % 2 == 0 ? ARES_FLAG_USEVC : 0;
        post(t, make);
        int answered = t->answered;
        asks(t, 1 << 30);
        EVENTUALLY(t->answered >= answered + 50);
        post(t, destroy);
        EVENTUALLY(t->destroyed == round);
        assert_int_equal(t->ended, 64 * round);
        assert_int_equal(t->failures[ARES_EDESTRUCTION], 64 * round);
    }
    assert_int_equal(t->wrong, 0);
}

TEST(a_pool_ends_with_a_live_channel)
{
    post(t, make);
    asks(t, 1 << 30);
    EVENTUALLY(t->answered > 100);
    /* teardown does it */
}

TEST(outside_the_group_it_is_refused)
{
    struct caresNuncStans *cares;
    assert_int_equal(caresNuncStansNew(t->group, NULL, 0, &cares), ARES_ENOTINITIALIZED);
    assert_null(cares);
}

int main(void)
{
    signal(SIGPIPE, SIG_IGN);
    ares_library_init(ARES_LIB_INIT_ALL);
    port = free_port();
    start_server();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(many_names_on_four_channels, setup, teardown),
        cmocka_unit_test_setup_teardown(many_names_by_tcp, setup, teardown),
        cmocka_unit_test_setup_teardown(a_name_that_is_not_there, setup, teardown),
        cmocka_unit_test_setup_teardown(the_server_is_killed_and_comes_back, setup, teardown),
        cmocka_unit_test_setup_teardown(the_server_is_killed_and_comes_back_by_tcp, setup, teardown),
        cmocka_unit_test_setup_teardown(a_server_that_is_silent_costs_time_and_no_more, setup, teardown),
        cmocka_unit_test_setup_teardown(a_channel_is_freed_with_queries_under_way, setup, teardown),
        cmocka_unit_test_setup_teardown(a_pool_ends_with_a_live_channel, setup, teardown),
        cmocka_unit_test_setup_teardown(outside_the_group_it_is_refused, setup, teardown),
    };
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    kill_server();
    ares_library_cleanup();
    return failures;
}
