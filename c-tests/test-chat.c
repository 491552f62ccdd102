/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The example chat server, as its clients see it: rooms that are kept apart, one order in each,
 * clients that vanish, half-close, or never read, rooms that are ended, and a clean end. The server
 * itself exits with 0 only if every job, client, room and descriptor is gone.
 */
#include "servers.h"
#include "sockets.h"

/* A client that speaks and hears lines. */
struct talker {
    int fd;
    size_t len;
    char name[24];
    char line[1200]; /* the last that was heard */
    char in[4096];
};

static void speak(struct talker *t, const char *format, ...)
{
    char line[1200];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    assert_int_equal(send(t->fd, line, (size_t)length, MSG_NOSIGNAL), length); /* it blocks */
}

/* The next line, without its end; NULL at the end of the connection. */
static const char *hear(struct talker *t)
{
    char *end;
    while ((end = memchr(t->in, '\n', t->len)) == NULL) {
        ssize_t n = recv(t->fd, t->in + t->len, sizeof t->in - t->len, 0);
        if (n < 0 && errno != ECONNRESET) {
            fail_msg("%s hears nothing more: %s", t->name, strerror(errno));
        }
        if (n <= 0) {
            return NULL;
        }
        t->len += (size_t)n;
    }
    size_t length = (size_t)(end - t->in);
    assert_true(length < sizeof t->line);
    memcpy(t->line, t->in, length);
    t->line[length] = '\0';
    t->len -= length + 1;
    memmove(t->in, end + 1, t->len);
    return t->line;
}

/* Hear lines until this one comes. */
static void hear_until(struct talker *t, const char *format, ...)
{
    char wanted[1200];
    const char *line;
    va_list args;
    va_start(args, format);
    vsnprintf(wanted, sizeof wanted, format, args);
    va_end(args);
    while ((line = hear(t)) == NULL || strcmp(line, wanted) != 0) {
        if (line == NULL) {
            fail_msg("%s never hears: %s", t->name, wanted);
        }
    }
}

/* Hear lines that nobody said, until the connection ends. */
static void hear_the_end(struct talker *t)
{
    const char *line;
    while ((line = hear(t)) != NULL) {
        assert_int_equal(line[0], '*');
    }
    close(t->fd);
}

/* Connect, and go into a room. */
static void join(struct talker *t, const struct served *chat, const char *room, const char *name)
{
    t->fd = server_connect(chat);
    t->len = 0;
    snprintf(t->name, sizeof t->name, "%s", name);
    speak(t, "JOIN %s %s\n", room, name);
}

static struct served chat_start(int checked)
{
    const char *const argv[] = {VALGRIND, example("chat"), "-p", "0", "-t", "4", NULL};
    return server_start(checked ? argv : argv + VALGRIND_WORDS);
}

/*
 * Every member of a room, itself too, hears what each member says, in the order in which it said
 * it, and nothing from any other room; and all members of a room hear the same lines in the same
 * order.
 */
static void rooms_are_kept_apart(const struct served *chat, int rooms, int members, int lines)
{
    enum { MOST = 100 };
    static struct talker talkers[MOST];
    int count = rooms * members, all = members * lines;
    char room[16], name[16];
    char(*first)[64] = calloc((size_t)all, sizeof *first); /* what the room's first member heard */
    assert_non_null(first);
    assert_true(count <= MOST);
    for (int i = 0; i < count; i++) {
        snprintf(room, sizeof room, "r%d", i % rooms);
        snprintf(name, sizeof name, "c%d", i);
        join(&talkers[i], chat, room, name);
    }
    /* When all are in, they speak in turns, while what was said before is still under way. */
    for (int i = 0; i < count; i++) {
        hear_until(&talkers[i], "* %s has joined", talkers[i].name);
    }
    for (int k = 0; k < lines; k++) {
        for (int i = 0; i < count; i++) {
            speak(&talkers[i], "r%d line %d\n", i % rooms, k);
        }
    }
    for (int r = 0; r < rooms; r++) {
        for (int i = r; i < count; i += rooms) {
            int next[MOST] = {0};
            for (int n = 0; n < all; n++) {
                const char *line = hear(&talkers[i]);
                while (line != NULL && line[0] == '*') {
                    line = hear(&talkers[i]); /* others have joined */
                }
                assert_non_null(line);
                int who = -1, of = -1, number = -1;
                assert_int_equal(sscanf(line, "c%d: r%d line %d", &who, &of, &number), 3);
                assert_in_range(who, 0, count - 1);
                assert_int_equal(who % rooms, r);
                assert_int_equal(of, r);
                assert_int_equal(number, next[who]++);
                if (i == r) {
                    snprintf(first[n], sizeof first[n], "%s", line);
                } else {
                    assert_string_equal(line, first[n]);
                }
            }
        }
    }
    for (int i = 0; i < count; i++) {
        close(talkers[i].fd);
    }
    free(first);
}

/* Clients that go in every way, among those who stay: each of these hears each go, once. */
static void clients_vanish(const struct served *chat, int count)
{
    static struct talker stays, also, goes;
    char name[16];
    join(&stays, chat, "v", "stays");
    hear_until(&stays, "* stays has joined");
    join(&also, chat, "v", "also");
    hear_until(&stays, "* also has joined");
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "g%d", i);
        if (i % 5 == 0) {
            vanish(server_connect(chat)); /* before it has said a word */
            goes.fd = server_connect(chat);
            assert_int_equal(send(goes.fd, "JOI", 3, MSG_NOSIGNAL), 3);
            close(goes.fd); /* in the middle of one */
        }
        join(&goes, chat, "v", name);
        hear_until(&stays, "* %s has joined", name);
        speak(&goes, "I am %d\nand I", i);
        if (i % 2 == 0) {
            hear_until(&stays, "%s: I am %d", name, i);
            vanish(goes.fd);
        } else {
            /* Half-close: it hears all the same what it said, and then the end. */
            shutdown(goes.fd, SHUT_WR);
            hear_until(&goes, "%s: I am %d", name, i);
            hear_the_end(&goes);
        }
    }
    /* All who came in have gone out, once each. What they said that was no line was not said. */
    int joined = 0, left = 0, said = 0;
    while (left < count) {
        const char *line = hear(&also);
        assert_non_null(line);
        joined += strstr(line, " has joined") != NULL;
        left += strstr(line, " has left") != NULL;
        said += strstr(line, ": I am ") != NULL;
    }
    assert_int_equal(joined, count + 1); /* itself too */
    assert_int_equal(said, count);
    speak(&stays, "fin\n");
    assert_string_equal(hear(&also), "stays: fin");
    hear_until(&stays, "stays: fin");
    close(stays.fd);
    close(also.fd);
}

/*
 * One who never reads is dropped when what waits for it is more than the server keeps for one. The
 * others hear every line, and those who hear it are not delayed.
 */
static void one_never_reads(const struct served *chat)
{
    static struct talker mute, speaks, listens;
    static const char filler[1000 + 1];
    char line[sizeof filler];
    int least = 2048, lines = 0, left = 0;
    memset(line, 'x', sizeof line - 1);
    line[sizeof line - 1] = '\0';
    join(&speaks, chat, "m", "speaks");
    hear_until(&speaks, "* speaks has joined");
    join(&listens, chat, "m", "listens");
    hear_until(&listens, "* listens has joined");
    join(&mute, chat, "m", "mute");
    setsockopt(mute.fd, SOL_SOCKET, SO_RCVBUF, &least, sizeof least);
    hear_until(&speaks, "* mute has joined");
    hear_until(&listens, "* mute has joined");
    while (!left) {
        speak(&speaks, "%s\n", line);
        lines++;
        /* 64 kB in the server, twice that in its kernel, and what the client's takes. */
        assert_true(lines < 8000);
        const char *heard = hear(&speaks);
        assert_non_null(heard);
        if (heard[0] == '*') {
            assert_string_equal(heard, "* mute has left");
            left = 1;
            assert_non_null(heard = hear(&speaks));
        }
        assert_string_equal(heard + strlen("speaks: "), line);
        assert_non_null(heard = hear(&listens));
        if (heard[0] == '*') {
            assert_string_equal(heard, "* mute has left");
            assert_non_null(heard = hear(&listens));
        }
        assert_string_equal(heard + strlen("speaks: "), line);
    }
    print_message("# dropped after %d lines of %zu bytes\n", lines, sizeof line);
    close(mute.fd);
    close(speaks.fd);
    close(listens.fd);
}

/* "/end" ends a room for all in it, and no other; its name is free at once. */
static void a_room_is_ended(const struct served *chat, int count)
{
    enum { MOST = 50 };
    static struct talker in[MOST], other;
    char name[16];
    assert_true(count <= MOST);
    join(&other, chat, "stays", "other");
    hear_until(&other, "* other has joined");
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < count; i++) {
            snprintf(name, sizeof name, "e%d", i);
            join(&in[i], chat, "ends", name);
            hear_until(&in[i], "* %s has joined", name);
        }
        speak(&in[round], "last words\n/end\nnobody hears this\n");
        for (int i = 0; i < count; i++) {
            hear_until(&in[i], "e%d: last words", round);
            hear_until(&in[i], "* e%d has ended the room", round);
            hear_the_end(&in[i]);
        }
        speak(&other, "still here\n");
        hear_until(&other, "other: still here");
    }
    close(other.fd);
}

/* Those who don't say where to are told how, and those whose line has no end are dropped. */
static void some_speak_wrongly(const struct served *chat)
{
    static struct talker t;
    char line[1100];
    t.fd = server_connect(chat);
    t.len = 0;
    speak(&t, "hello\nJOIN only-a-room\nJOIN a b c\nJOIN room one\nand on\r\n");
    for (int i = 0; i < 3; i++) {
        assert_string_equal(hear(&t), "? JOIN room name");
    }
    assert_string_equal(hear(&t), "* one has joined");
    assert_string_equal(hear(&t), "one: and on");
    memset(line, 'x', sizeof line);
    assert_int_equal(send(t.fd, line, sizeof line, MSG_NOSIGNAL), sizeof line);
    assert_null(hear(&t));
    close(t.fd);
    t.fd = server_connect(chat);
    t.len = 0;
    assert_int_equal(send(t.fd, line, sizeof line, MSG_NOSIGNAL), sizeof line);
    assert_null(hear(&t));
    close(t.fd);
}

/* SIGTERM ends it while clients are in rooms, on their way in, and slow; all hear the end. */
static void ends_with_clients(struct served *chat, int count)
{
    enum { MOST = 50 };
    static struct talker in[MOST], late[MOST];
    char name[16], room[16];
    assert_true(count <= MOST);
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "t%d", i);
        snprintf(room, sizeof room, "s%d", i % 5);
        join(&in[i], chat, room, name);
        hear_until(&in[i], "* %s has joined", name);
    }
    for (int i = 0; i < count; i++) {
        snprintf(name, sizeof name, "u%d", i);
        if (i % 2 == 0) {
            late[i].fd = server_connect(chat);
        } else {
            join(&late[i], chat, "s1", name);
        }
    }
    assert_int_equal(server_stop(chat), 0);
    for (int i = 0; i < count; i++) {
        hear_the_end(&in[i]);
        close(late[i].fd);
    }
}

/* To see it fail: make the groups of rooms two wide. */
TEST(a_hundred_clients_in_ten_rooms_hear_their_room_and_in_one_order)
{
    struct served chat = chat_start(0);
    rooms_are_kept_apart(&chat, 10, 10, 50);
    assert_int_equal(server_stop(&chat), 0);
}

TEST(one_room_of_a_hundred_has_one_order)
{
    struct served chat = chat_start(0);
    rooms_are_kept_apart(&chat, 1, 100, 10);
    assert_int_equal(server_stop(&chat), 0);
}

TEST(clients_that_vanish_are_missed_once_each)
{
    struct served chat = chat_start(0);
    clients_vanish(&chat, 100);
    assert_int_equal(server_stop(&chat), 0);
}

/* To see it fail: let say grow the output, or wait, when a line does not fit. */
TEST(a_reader_that_never_reads_is_dropped_and_delays_nobody)
{
    struct served chat = chat_start(0);
    one_never_reads(&chat);
    assert_int_equal(server_stop(&chat), 0);
}

/* To see it fail: take ns_group_cancel out of end_room. */
TEST(a_room_is_ended_in_one_call_and_no_other)
{
    struct served chat = chat_start(0);
    a_room_is_ended(&chat, 50);
    assert_int_equal(server_stop(&chat), 0);
}

TEST(lines_that_are_wrong_do_no_harm)
{
    struct served chat = chat_start(0);
    some_speak_wrongly(&chat);
    assert_int_equal(server_stop(&chat), 0);
}

/* Those for whom it has no descriptor wait until others have gone. test-fm-descriptors measures that
 * a server rests meanwhile. To see it fail: let on_pause_over do nothing. */
TEST(clients_wait_while_it_has_no_descriptors)
{
    enum { CLIENTS = 40, FEW = 24 };
    static struct talker in[CLIENTS];
    const char *const argv[] = {"sh", "-c", "ulimit -n 24 && exec \"$@\"", "sh", example("chat"),
                                "-p", "0",  NULL};
    struct served chat = server_start(argv);
    char name[16];
    for (int i = 0; i < CLIENTS; i++) {
        snprintf(name, sizeof name, "w%d", i);
        join(&in[i], &chat, "w", name);
    }
    hear_until(&in[0], "* w0 has joined");
    for (int i = 0; i < FEW; i++) {
        vanish(in[i].fd);
    }
    for (int i = FEW; i < CLIENTS; i++) {
        hear_until(&in[i], "* w%d has joined", i);
        close(in[i].fd);
    }
    assert_int_equal(server_stop(&chat), 0);
}

TEST(it_ends_in_good_order_with_clients_everywhere)
{
    for (int i = 0; i < 10; i++) {
        struct served chat = chat_start(0);
        ends_with_clients(&chat, 50);
    }
}

TEST(valgrind_finds_nothing_in_a_small_form_of_it_all)
{
    if (!have_valgrind()) {
        skip();
    }
    struct served chat = chat_start(1);
    rooms_are_kept_apart(&chat, 3, 4, 5);
    clients_vanish(&chat, 10);
    one_never_reads(&chat);
    a_room_is_ended(&chat, 5);
    some_speak_wrongly(&chat);
    ends_with_clients(&chat, 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_hundred_clients_in_ten_rooms_hear_their_room_and_in_one_order),
        cmocka_unit_test(one_room_of_a_hundred_has_one_order),
        cmocka_unit_test(clients_that_vanish_are_missed_once_each),
        cmocka_unit_test(a_reader_that_never_reads_is_dropped_and_delays_nobody),
        cmocka_unit_test(a_room_is_ended_in_one_call_and_no_other),
        cmocka_unit_test(lines_that_are_wrong_do_no_harm),
        cmocka_unit_test(clients_wait_while_it_has_no_descriptors),
        cmocka_unit_test(it_ends_in_good_order_with_clients_everywhere),
        cmocka_unit_test(valgrind_finds_nothing_in_a_small_form_of_it_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
