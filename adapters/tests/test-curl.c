/* SPDX-License-Identifier: GPL-3.0-or-later */
/* nunc-stans-curl.h, against the example server: test-curl HTTPD, or the environment's HTTPD. */
#include "harness.h"

#include <arpa/inet.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "nunc-stans-curl.h"

enum { BIG = 300000 };
static char root[64], url[64], silent_url[64];
static pid_t server;
static int silent = -1;

static struct {
    ns_thrpool_t *tp;
    struct ns_group_t *group;
    struct curlNuncStans *curl;
    atomic_int ended, failed, wrong, inside, aborted, freed;
    int to_begin, abort_each;
    CURLcode last;
} t;

struct transfer {
    CURL *easy;
    size_t size;
};

static size_t on_data(char *data, size_t size, size_t n, void *arg)
{
    struct transfer *transfer = arg;
    for (size_t i = 0; i < size * n; i++)
        if (data[i] != (char)('a' + (transfer->size + i) % 26))
            atomic_fetch_add(&t.wrong, 1);
    if (!ns_group_is_current(t.group))
        atomic_fetch_add(&t.wrong, 1);
    transfer->size += size * n;
    return size * n;
}

static void add(const char *where, long timeout_ms);

static void done(struct curlNuncStans *self, CURL *easy, CURLcode code)
{
    struct transfer *transfer;
    curl_easy_getinfo(easy, CURLINFO_PRIVATE, &transfer);
    if (atomic_fetch_add(&t.inside, 1) != 0 || self != t.curl || self->data != &t)
        atomic_fetch_add(&t.wrong, 1);
    if (code != CURLE_OK)
        atomic_fetch_add(&t.failed, 1);
    else if (transfer->size != BIG)
        atomic_fetch_add(&t.wrong, 1);
    t.last = code;
    curl_easy_cleanup(easy);
    free(transfer);
    if (t.to_begin > 0) {
        t.to_begin--;
        add(url, 0);
    }
    atomic_fetch_sub(&t.inside, 1);
    atomic_fetch_add(&t.ended, 1);
}

static struct transfer *last_added;

static void add(const char *where, long timeout_ms)
{
    struct transfer *transfer = calloc(1, sizeof *transfer);
    transfer->easy = curl_easy_init();
    curl_easy_setopt(transfer->easy, CURLOPT_URL, where);
    curl_easy_setopt(transfer->easy, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(transfer->easy, CURLOPT_WRITEDATA, transfer);
    curl_easy_setopt(transfer->easy, CURLOPT_PRIVATE, transfer);
    curl_easy_setopt(transfer->easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(transfer->easy, CURLOPT_TIMEOUT_MS, timeout_ms);
    if (curlNuncStansAdd(t.curl, transfer->easy) != CURLM_OK)
        atomic_fetch_add(&t.wrong, 1);
    last_added = transfer;
}

static int begun;

static void begin(struct ns_job_t *job)
{
    t.curl = t.curl ? t.curl : curlNuncStansNew(t.group, done, &t);
    for (int i = 0; i < begun; i++)
        add(url, 0);
    ns_job_done(job);
}

static void begin_silent(struct ns_job_t *job)
{
    t.curl = t.curl ? t.curl : curlNuncStansNew(t.group, done, &t);
    for (int i = 0; i < begun; i++)
        add(silent_url, 50);
    ns_job_done(job);
}

static void begin_refused(struct ns_job_t *job)
{
    t.curl = t.curl ? t.curl : curlNuncStansNew(t.group, done, &t);
    for (int i = 0; i < begun; i++)
        add("http://127.0.0.1:1/", 0);
    ns_job_done(job);
}

/* Begin some and take each second one out again, later. */
static void begin_and_abort(struct ns_job_t *job)
{
    struct transfer *mine[20];
    t.curl = t.curl ? t.curl : curlNuncStansNew(t.group, done, &t);
    for (int i = 0; i < 20; i++) {
        add(i % 2 ? silent_url : url, 0);
        mine[i] = last_added;
    }
    for (int i = 1; i < 20; i += 2) {
        if (i % 4 == 1) { /* at once, before it has a socket */
            curlNuncStansRemove(t.curl, mine[i]->easy);
            curl_easy_cleanup(mine[i]->easy);
            free(mine[i]);
            atomic_fetch_add(&t.aborted, 1);
        } else {
            struct transfer **to = ns_job_get_data(job);
            to[i / 4] = mine[i];
        }
    }
    ns_job_done(job);
}

static void abort_late(struct ns_job_t *job)
{
    struct transfer **mine = ns_job_get_data(job);
    for (int i = 0; i < 5; i++) {
        curlNuncStansRemove(t.curl, mine[i]->easy);
        curl_easy_cleanup(mine[i]->easy);
        free(mine[i]);
        atomic_fetch_add(&t.aborted, 1);
    }
    ns_job_done(job);
}

static void free_it(struct ns_job_t *job)
{
    if (t.curl != NULL)
        curlNuncStansFree(t.curl);
    t.curl = NULL;
    atomic_fetch_add(&t.freed, 1);
    ns_job_done(job);
}

static void post(ns_job_func_t func, void *data)
{
    assert_int_equal(ns_add_group_job(t.group, NS_JOB_THREAD, func, data, NULL), NS_SUCCESS);
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
    if (t.curl != NULL)
        curlNuncStansFree(t.curl);
    ns_group_release(t.group);
    ns_thrpool_destroy(t.tp);
    return 0;
}

TEST(a_hundred_downloads_at_once)
{
    begun = 100;
    t.to_begin = 300; /* each that ends begins another, on connections that are kept */
    post(begin, NULL);
    EVENTUALLY(t.ended == 400);
    assert_int_equal(t.failed + t.wrong, 0);
    post(free_it, NULL);
    EVENTUALLY(t.freed == 1);
}

TEST(a_silent_server_times_out)
{
    begun = 10;
    post(begin_silent, NULL);
    EVENTUALLY(t.ended == 10);
    assert_int_equal(t.failed, 10);
    assert_int_equal(t.last, CURLE_OPERATION_TIMEDOUT);
    assert_int_equal(t.wrong, 0);
}

TEST(a_refused_connection_is_told)
{
    begun = 10;
    post(begin_refused, NULL);
    EVENTUALLY(t.ended == 10);
    assert_int_equal(t.failed, 10);
    assert_int_equal(t.last, CURLE_COULDNT_CONNECT);
}

TEST(transfers_are_aborted)
{
    struct transfer *late[5];
    post(begin_and_abort, late);
    EVENTUALLY(t.ended == 10); /* the others end well */
    post(abort_late, late);
    EVENTUALLY(t.aborted == 10);
    assert_int_equal(t.ended, 10);
    assert_int_equal(t.failed + t.wrong, 0);
}

static void remember(struct ns_job_t *job)
{
    struct transfer **to = ns_job_get_data(job);
    t.curl = curlNuncStansNew(t.group, done, &t);
    for (int i = 0; i < 5; i++) {
        add(silent_url, 0);
        to[i] = last_added;
    }
    ns_job_done(job);
}

TEST(a_pool_ends_with_transfers_under_way)
{
    struct transfer *mine[5];
    post(remember, mine);
    assert_int_equal(ns_group_wait(t.group, &at_once) == NS_DELETING, 0);
    EVENTUALLY(ns_group_get_length(t.group) == 0 && t.curl != NULL);
    ns_thrpool_shutdown(t.tp);
    ns_thrpool_wait(t.tp);
    curlNuncStansFree(t.curl);
    t.curl = NULL;
    for (int i = 0; i < 5; i++) { /* still the application's */
        curl_easy_cleanup(mine[i]->easy);
        free(mine[i]);
    }
}

TEST(made_outside_the_group_is_refused)
{
    assert_null(curlNuncStansNew(t.group, done, NULL));
}

/* A server that accepts, in the kernel, and never answers. */
static int listen_silently(void)
{
    struct sockaddr_in at = {AF_INET, 0, {htonl(INADDR_LOOPBACK)}, {0}};
    socklen_t length = sizeof at;
    silent = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(silent, (struct sockaddr *)&at, sizeof at) != 0 || listen(silent, 128) != 0 ||
        getsockname(silent, (struct sockaddr *)&at, &length) != 0)
        return 0;
    snprintf(silent_url, sizeof silent_url, "http://127.0.0.1:%d/big", ntohs(at.sin_port));
    return 1;
}

static void start_server(void)
{
    char file[80], port[16];
    snprintf(root, sizeof root, "/tmp/ns-curl-%ld", (long)getpid());
    snprintf(file, sizeof file, "%s/big", root);
    mkdir(root, 0755);
    FILE *big = fopen(file, "w");
    for (int i = 0; i < BIG; i++)
        putc('a' + i % 26, big);
    fclose(big);
    /* Below those that the system gives to who asks for none. If it is taken, the server ends. */
    int number = 10000 + (int)getpid() % 20000, up = 0;
    while (!up) {
        snprintf(port, sizeof port, "%d", ++number);
        server = fork();
        if (server == 0) {
            execl(getenv("HTTPD"), "httpd", "-p", port, root, (char *)NULL);
            _exit(127);
        }
        struct sockaddr_in at = {AF_INET, htons((in_port_t)number), {htonl(INADDR_LOOPBACK)}, {0}};
        while (!up && waitpid(server, NULL, WNOHANG) == 0) {
            int fd = socket(AF_INET, SOCK_STREAM, 0);
            let_time_pass(20000);
            up = connect(fd, (struct sockaddr *)&at, sizeof at) == 0;
            close(fd);
        }
    }
    snprintf(url, sizeof url, "http://127.0.0.1:%d/big", number);
}

int main(void)
{
    if (getenv("HTTPD") == NULL || !listen_silently() || curl_global_init(CURL_GLOBAL_DEFAULT) != 0)
        return 2;
    start_server();
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_hundred_downloads_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(a_silent_server_times_out, setup, teardown),
        cmocka_unit_test_setup_teardown(a_refused_connection_is_told, setup, teardown),
        cmocka_unit_test_setup_teardown(transfers_are_aborted, setup, teardown),
        cmocka_unit_test_setup_teardown(a_pool_ends_with_transfers_under_way, setup, teardown),
        cmocka_unit_test_setup_teardown(made_outside_the_group_is_refused, setup, teardown),
    };
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    kill(server, SIGTERM);
    waitpid(server, NULL, 0);
    char file[80];
    snprintf(file, sizeof file, "%s/big", root);
    unlink(file);
    rmdir(root);
    return failures;
}
