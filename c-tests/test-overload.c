/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The example HTTP server when it is asked for more slow work than it takes on: the surplus is
 * refused, the rest is done, and what is not slow is served meanwhile. It exits with 0 only if
 * every job was disposed of and every descriptor closed.
 */
#include "servers.h"
#include "sockets.h"

enum { WORKERS = 4, WIDTH = 2, LIMIT = 4, SURPLUS = 40, FAST = 200 };

static char root[] = "/tmp/ns-overload-XXXXXX", fast[sizeof root + sizeof "/fast"];

static int make_root(void **state)
{
    UNUSED(state);
    if (mkdtemp(root) == NULL) {
        return -1;
    }
    snprintf(fast, sizeof fast, "%s/fast", root);
    FILE *file = fopen(fast, "w");
    return file == NULL || fputs("It is fast\n", file) < 0 || fclose(file) != 0 ? -1 : 0;
}

static int remove_root(void **state)
{
    UNUSED(state);
    return unlink(fast) != 0 || rmdir(root) != 0 ? -1 : 0;
}

static struct served httpd_start(int checked)
{
    char workers[12], width[12], limit[12];
    snprintf(workers, sizeof workers, "%d", WORKERS);
    snprintf(width, sizeof width, "%d", WIDTH);
    snprintf(limit, sizeof limit, "%d", LIMIT);
    const char *const argv[] = {VALGRIND, example("httpd"), "-p",  "0", "-t", workers,
                                "-s",     width,            "-q", limit, root, NULL};
    return server_start(checked ? argv : argv + VALGRIND_WORDS);
}

static int ask(const struct served *httpd, const char *path)
{
    char request[128];
    int fd = server_connect(httpd);
    int length = snprintf(request, sizeof request, "GET %s HTTP/1.0\r\n\r\n", path);
    assert_int_equal(send(fd, request, (size_t)length, MSG_NOSIGNAL), length);
    return fd;
}

/* The whole answer, up to the end of the connection. */
static const char *answer(int fd)
{
    static char text[4096];
    size_t length = 0;
    ssize_t n;
    while ((n = recv(fd, text + length, sizeof text - 1 - length, 0)) > 0) {
        length += (size_t)n;
    }
    assert_int_equal(n, 0);
    close(fd);
    text[length] = '\0';
    return text;
}

static void assert_answer(const char *text, const char *status, const char *part)
{
    if (strncmp(text, "HTTP/1.1 ", 9) != 0 || strncmp(text + 9, status, 3) != 0 ||
        strstr(text, part) == NULL) {
        fail_msg("wanted %s with \"%s\", got: %s", status, part, text);
    }
}

/* A number out of /status. */
static long status_of(const struct served *httpd, const char *name)
{
    char quoted[32];
    const char *text = answer(ask(httpd, "/status"));
    assert_answer(text, "200", "{");
    snprintf(quoted, sizeof quoted, "\"%s\": ", name);
    const char *at = strstr(text, quoted);
    assert_non_null(at);
    return strtol(at + strlen(quoted), NULL, 10);
}

/* Have slow work in all places that there are for it, running and waiting. */
static void fill_up(const struct served *httpd, int fds[WIDTH + LIMIT], const char *running)
{
    for (int i = 0; i < WIDTH; i++) {
        fds[i] = ask(httpd, running);
    }
    EVENTUALLY(status_of(httpd, "slow_running") == WIDTH);
    for (int i = WIDTH; i < WIDTH + LIMIT; i++) {
        fds[i] = ask(httpd, "/slow?ms=1");
    }
    EVENTUALLY(status_of(httpd, "slow_waiting") == LIMIT);
}

/* To see it fail: take ns_group_set_limit out of the daemon, or make the group as wide as there are
 * workers. */
TEST(the_surplus_of_slow_requests_is_refused_and_the_rest_is_served)
{
    struct served httpd = httpd_start(0);
    int fds[WIDTH + LIMIT], surplus[SURPLUS];
    double took[FAST];
    fill_up(&httpd, fds, "/slow?ms=5000");
    /* All at once, and then what is not slow, while they are refused. */
    for (int i = 0; i < SURPLUS; i++) {
        surplus[i] = ask(&httpd, "/slow?ms=1");
    }
    for (int i = 0; i < FAST; i++) {
        double begin = now_seconds();
        assert_answer(answer(ask(&httpd, "/fast")), "200", "It is fast");
        took[i] = now_seconds() - begin;
    }
    for (int i = 0; i < SURPLUS; i++) {
        assert_answer(answer(surplus[i]), "503", "\r\nRetry-After: 1\r\n");
    }
    /* It was overloaded all the time. */
    assert_int_equal(status_of(&httpd, "slow_running"), WIDTH);
    assert_int_equal(status_of(&httpd, "slow_waiting"), LIMIT);
    assert_int_equal(status_of(&httpd, "refused"), SURPLUS);
    qsort(took, FAST, sizeof *took, compare_doubles);
    print_message("# /fast: median %.2f ms, worst %.2f ms\n", took[FAST / 2] * 1e3,
                  took[FAST - 1] * 1e3);
    assert_true(took[FAST / 2] < 0.1);
    assert_true(took[FAST - 1] < 2);
    for (int i = 0; i < WIDTH + LIMIT; i++) {
        assert_answer(answer(fds[i]), "200", i < WIDTH ? "5000 ms" : "1 ms");
    }
    /* When it is over, it takes on more. */
    assert_answer(answer(ask(&httpd, "/slow?ms=1")), "200", "1 ms");
    assert_int_equal(server_stop(&httpd), 0);
}

/* Clients that vanish or half-close while their slow requests run and wait; pipelined requests. */
static void clients_go(int checked, int rounds)
{
    struct served httpd = httpd_start(checked);
    int fds[WIDTH + LIMIT];
    char buffer[2048] = "";
    for (int round = 0; round < rounds; round++) {
        fill_up(&httpd, fds, checked ? "/slow?ms=3000" : "/slow?ms=500");
        assert_answer(answer(ask(&httpd, "/slow?ms=1")), "503", "Retry-After");
        for (int i = 0; i < WIDTH + LIMIT; i++) {
            if (i % 2 == 0) {
                vanish(fds[i]);
            } else {
                shutdown(fds[i], SHUT_WR);
            }
        }
        for (int i = 1; i < WIDTH + LIMIT; i += 2) {
            assert_answer(answer(fds[i]), "200", " ms\n");
        }
        EVENTUALLY(status_of(&httpd, "slow_running") == 0 &&
                   status_of(&httpd, "slow_waiting") == 0);
    }
    const char two[] = "GET /slow?ms=20 HTTP/1.1\r\nHost: x\r\n\r\nGET /fast HTTP/1.0\r\n\r\n";
    int fd = server_connect(&httpd);
    assert_int_equal(send(fd, two, sizeof two - 1, MSG_NOSIGNAL), sizeof two - 1);
    strcpy(buffer, answer(fd));
    assert_answer(buffer, "200", "\r\n\r\n20 ms\n");
    assert_answer(strstr(buffer, "20 ms\n") + strlen("20 ms\n"), "200", "It is fast");
    const char *const bad[] = {"/slow", "/slow?ms=", "/slow?ms=x", "/slow?ms=-1", "/slow?ms=1x",
                               "/slow?ms=60001", "/slow?s=1"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_answer(answer(ask(&httpd, bad[i])), "400", "400");
    }
    /* Only the asking of this question is open, when those who went have been found out. */
    EVENTUALLY(status_of(&httpd, "open") == 1);
    assert_int_equal(server_stop(&httpd), 0);
}

TEST(clients_of_slow_requests_may_go)
{
    clients_go(0, 5);
}

TEST(valgrind_finds_nothing_in_a_small_form_of_it)
{
    if (!have_valgrind()) {
        skip();
    }
    clients_go(1, 1);
}

/* A minute of slow work does not keep it from ending. */
TEST(it_ends_with_slow_requests_running_and_waiting)
{
    struct served httpd = httpd_start(0);
    int fds[WIDTH + LIMIT];
    fill_up(&httpd, fds, "/slow?ms=60000");
    double begin = now_seconds();
    assert_int_equal(server_stop(&httpd), 0);
    assert_true(now_seconds() - begin < 20);
    for (int i = 0; i < WIDTH + LIMIT; i++) {
        close(fds[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_surplus_of_slow_requests_is_refused_and_the_rest_is_served),
        cmocka_unit_test(clients_of_slow_requests_may_go),
        cmocka_unit_test(valgrind_finds_nothing_in_a_small_form_of_it),
        cmocka_unit_test(it_ends_with_slow_requests_running_and_waiting),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
