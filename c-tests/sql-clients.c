/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * sql-clients PORT CLIENTS [SECONDS] - the clients of test-sql-gateway.sh and of make demo-sql
 *
 * Clients of a sql-gateway at 127.0.0.1:PORT, until SIGTERM comes or the seconds are over. Most ask
 * for a text that nobody else asks for, and want exactly that back, or an error of HTTP's. The
 * others hang up: before the request, within it, behind it, within the answer. Five times a second a
 * line says how far they are. The result is 0 only if no client got another's answer, was left without
 * an answer, or had its query cancelled for another's sake, and every kind of client has come.
 * NS_SEED draws again what is drawn at random.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { CLIENTS_MOST = 1000, BIG = 300000, PATIENCE = 60 /* seconds */, SHOWN = 10 };

enum kind {
    QUICK,
    SLOW,
    TWO,   /* both sent at once */
    LARGE, /* its answer */
    BAD,   /* SQL; the message has the text in it */
    LATE,  /* longer than the gateway allows */
    BEFORE_REQUEST,
    IN_REQUEST,
    BEHIND_REQUEST, /* its query waits or runs */
    IN_ANSWER,
    KINDS,
};

static const char *const names[KINDS] = {
    "quick", "slow", "two at once", "large", "bad", "late",
    "gone before the request", "gone in the request", "gone behind it", "gone in the answer",
};

struct client {
    pthread_t thread;
    int number;
    unsigned long asked;
    uint64_t sequence; /* of what it draws */
    int fd;
    size_t length; /* of what is read and not used */
    char in[BIG + 4096];
};

static struct sockaddr_in gateway;
static atomic_int stop;
static atomic_ulong came[KINDS], answers, errors, gone;
static atomic_ulong wrong, unanswered, cancelled; /* none must be */

static uint64_t draw(struct client *c, uint64_t below)
{
    uint64_t z = c->sequence += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (z ^ z >> 31) % below;
}

/* Count a failure, and tell of the first ones. */
static void fail(struct client *c, atomic_ulong *counter, const char *asked, const char *got)
{
    if (atomic_fetch_add(counter, 1) < SHOWN) {
        printf("client %d: asked for %s, got: %.200s\n", c->number, asked, got);
    }
}

static void pause_some(struct client *c, unsigned most_us)
{
    usleep((useconds_t)draw(c, most_us));
}

static void hang_up(struct client *c)
{
    /* Half of them by a reset. */
    struct linger now = {.l_onoff = 1};
    if (draw(c, 2) == 0) {
        setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    }
    close(c->fd);
    c->fd = -1;
    c->length = 0;
}

static bool dial(struct client *c)
{
    struct timeval limit = {PATIENCE, 0};

    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0) {
        return false;
    }
    setsockopt(c->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (connect(c->fd, (struct sockaddr *)&gateway, sizeof gateway) != 0) {
        close(c->fd);
        c->fd = -1;
        return false;
    }
    return true;
}

static bool say(struct client *c, const char *text, size_t length)
{
    return send(c->fd, text, length, MSG_NOSIGNAL) == (ssize_t)length;
}

/* A request of this kind; the text that it is to bring back. */
static size_t make_request(struct client *c, enum kind kind, char *request, size_t size, char *text,
                           size_t text_size)
{
    char sql[256];

    snprintf(text, text_size, "c%d-%lu-%016llx", c->number, c->asked++,
             (unsigned long long)draw(c, UINT64_MAX));
    switch (kind) {
    case BAD: snprintf(sql, sizeof sql, "SELECT%%20'%s'::int", text); break;
    case LATE: snprintf(sql, sizeof sql, "SELECT%%20'%s'%%20FROM%%20pg_sleep(600)", text); break;
    case LARGE:
    case IN_ANSWER:
        snprintf(sql, sizeof sql, "SELECT%%20'%s'||repeat('x',%d)", text, BIG);
        break;
    case SLOW:
    case BEHIND_REQUEST:
        snprintf(sql, sizeof sql, "SELECT%%20'%s'%%20FROM%%20pg_sleep(0.0%d)", text,
                 (int)draw(c, 5));
        break;
    default: snprintf(sql, sizeof sql, "SELECT%%20'%s'", text);
    }
    return (size_t)snprintf(request, size, "GET /sql/%s HTTP/1.1\r\nHost: localhost\r\n\r\n", sql);
}

/*
 * Read an answer. Returns its status, or 0 if there is none; its body is in c->in and ends at
 * *end, what follows begins there.
 */
static int read_answer(struct client *c, char **body, char **end, bool *keep)
{
    for (;;) {
        c->in[c->length] = '\0';
        char *blank = strstr(c->in, "\r\n\r\n");
        if (blank) {
            char *at = strcasestr(c->in, "Content-Length: ");
            size_t length = at && at < blank ? strtoul(at + 16, NULL, 10) : 0;
            *body = blank + 4;
            *end = *body + length;
            at = strcasestr(c->in, "Connection: keep-alive");
            *keep = at && at < blank;
            if ((size_t)(*end - c->in) <= c->length) {
                return atoi(c->in + strlen("HTTP/1.1 "));
            }
        }
        size_t room = sizeof c->in - 1 - c->length;
        ssize_t n = room ? recv(c->fd, c->in + c->length, room, 0) : 0;
        if (n <= 0) {
            return 0;
        }
        c->length += (size_t)n;
    }
}

/* Whether this is the answer to that. */
static bool is_right(enum kind kind, const char *text, int status, const char *body, size_t length)
{
    size_t n = strlen(text);

    if (kind == BAD) {
        return status == 400 && memmem(body, length, text, n);
    }
    return kind != LATE && status == 200 && length == n + (kind == LARGE ? BIG : 0) + 1 &&
           memcmp(body, text, n) == 0;
}

/* Take an answer, and judge it. True if the connection stays. */
static bool expect(struct client *c, enum kind kind, const char *text)
{
    char *body, *end;
    bool keep = false;
    int status = read_answer(c, &body, &end, &keep);

    if (status == 0) {
        fail(c, &unanswered, text, strerror(errno));
        return false;
    }
    char after = *end;
    *end = '\0';
    if (is_right(kind, text, status, body, (size_t)(end - body))) {
        atomic_fetch_add(&answers, 1);
    } else if (status == 502 || status == 503 || status == 504) {
        /* Only those who leave have their queries cancelled, and they do not read this. */
        if (strstr(body, "canceling")) {
            fail(c, &cancelled, text, c->in);
        }
        atomic_fetch_add(&errors, 1);
    } else {
        fail(c, &wrong, text, c->in);
    }
    *end = after;
    c->length -= (size_t)(end - c->in);
    memmove(c->in, end, c->length);
    if (status == 503) {
        pause_some(c, 50000);
    }
    return keep;
}

static void ask(struct client *c, enum kind kind)
{
    char request[1024], text[64], second[64] = "";
    size_t length = make_request(c, kind, request, sizeof request / 2, text, sizeof text);

    if (kind == TWO) {
        length += make_request(c, kind, request + length, sizeof request - length, second,
                               sizeof second);
    }
    bool keep = say(c, request, length);
    if (!keep) {
        fail(c, &unanswered, text, "the connection was closed");
    }
    keep = keep && expect(c, kind, text);
    if (keep && kind == TWO) {
        keep = expect(c, kind, second);
    }
    if (!keep || draw(c, 4) == 0) {
        close(c->fd);
        c->fd = -1;
        c->length = 0;
    }
}

static void leave(struct client *c, enum kind kind)
{
    char request[1024], text[64];
    size_t length = make_request(c, kind, request, sizeof request, text, sizeof text);

    if (kind != BEFORE_REQUEST) {
        say(c, request, kind == IN_REQUEST ? 1 + draw(c, length - 1) : length);
    }
    if (kind == BEHIND_REQUEST) {
        pause_some(c, 60000);
    } else if (kind == IN_ANSWER) {
        recv(c->fd, c->in, 1 + draw(c, 1000), 0);
    } else if (draw(c, 2) == 0) {
        pause_some(c, 5000);
    }
    hang_up(c);
    atomic_fetch_add(&gone, 1);
}

static void *run_client(void *arg)
{
    struct client *c = arg;

    while (!atomic_load(&stop)) {
        uint64_t n = draw(c, 2000);
        enum kind kind = n < 600 ? QUICK : (enum kind)(n % KINDS);
        if (kind == LATE) {
            kind = TWO;
        }
        /* Few of these: each keeps a connection of the database for long. */
        if (n == 0 || (c->number == 0 && c->asked == 0)) {
            kind = LATE;
        }
        if (c->fd < 0 && !dial(c)) {
            fail(c, &unanswered, "a connection", strerror(errno));
            pause_some(c, 100000);
            continue;
        }
        atomic_fetch_add(&came[kind], 1);
        if (kind < BEFORE_REQUEST) {
            ask(c, kind);
        } else {
            leave(c, kind);
        }
    }
    if (c->fd >= 0) {
        close(c->fd);
    }
    return NULL;
}

static void on_signal(int number)
{
    (void)number;
    atomic_store(&stop, 1);
}

int main(int argc, char **argv)
{
    int port = argc > 2 ? atoi(argv[1]) : 0;
    int count = argc > 2 ? atoi(argv[2]) : 0;
    int seconds = argc > 3 ? atoi(argv[3]) : 0;
    const char *seed = getenv("NS_SEED");
    uint64_t sequence = seed ? strtoull(seed, NULL, 0) : (uint64_t)time(NULL);

    if (port < 1 || port > 65535 || count < 1 || count > CLIENTS_MOST || seconds < 0) {
        fprintf(stderr, "usage: sql-clients port clients(1 to %d) [seconds]\n", CLIENTS_MOST);
        return 2;
    }
    struct client *clients = calloc((size_t)count, sizeof *clients);
    if (!clients) {
        return 1;
    }
    signal(SIGTERM, on_signal);
    printf("NS_SEED=%llu\n", (unsigned long long)sequence);
    gateway.sin_family = AF_INET;
    gateway.sin_port = htons((uint16_t)port);
    gateway.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < count; i++) {
        clients[i].number = i;
        clients[i].fd = -1;
        clients[i].sequence = sequence + (uint64_t)i * 1000003;
        if (pthread_create(&clients[i].thread, NULL, run_client, &clients[i]) != 0) {
            fprintf(stderr, "sql-clients: no thread\n");
            return 1;
        }
    }
    for (int tenths = 0; !atomic_load(&stop); tenths++) {
        if (seconds && tenths >= 10 * seconds) {
            atomic_store(&stop, 1);
        } else if (tenths % 2 == 0) {
            printf("%lu answers, %lu errors, %lu hung up\n", atomic_load(&answers),
                   atomic_load(&errors), atomic_load(&gone));
            fflush(stdout);
        }
        usleep(100000);
    }
    for (int i = 0; i < count; i++) {
        pthread_join(clients[i].thread, NULL);
    }
    free(clients);
    bool all = true;
    for (int i = 0; i < KINDS; i++) {
        printf("%s%lu %s", i ? ", " : "clients: ", atomic_load(&came[i]), names[i]);
        all = all && atomic_load(&came[i]) > 0;
    }
    printf("\nright answers: %lu, HTTP errors: %lu, wrong: %lu, unanswered: %lu, "
           "cancelled for another: %lu\n",
           atomic_load(&answers), atomic_load(&errors), atomic_load(&wrong),
           atomic_load(&unanswered), atomic_load(&cancelled));
    return all && atomic_load(&answers) && !atomic_load(&wrong) && !atomic_load(&unanswered) &&
                   !atomic_load(&cancelled)
               ? 0
               : 1;
}
