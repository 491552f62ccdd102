/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * httpd - a small HTTP/1.1 server of static files: how a daemon is written with nunc-stans
 *
 *     httpd [-p port] [-t threads] [-s threads] [-q number] [-i seconds] [-n number] root-directory
 *
 * GET and HEAD, kept-alive and pipelined connections, counters at /status, the pool's statistics for
 * Prometheus at /metrics, and at /slow?ms=N an answer that takes N milliseconds to make. Port 0 lets the kernel choose. SIGTERM or SIGINT ends
 * it in good order; the exit status is 0 only if every job was disposed of and every descriptor
 * closed. Symbolic links below the root are followed.
 *
 * The jobs, besides those of server.h. A connection has up to three, which form a group of width 1:
 *
 *   reader     READ | THREAD with a time-out, in a worker because opening and reading files may
 *              block.
 *   writer     WRITE | THREAD with a time-out, made when the client is first found slower than we
 *              are. A job's flags are fixed, hence two jobs.
 *   admission  in the loop, made for the first slow request: see below.
 *
 * What the group does for a connection: no two callbacks of it run at once, so no lock guards it,
 * and a callback may arm another job and go on. ns_group_cancel ends all its jobs in one call, from
 * anywhere. When the last of them is gone, the group's done callback closes the socket, once, and
 * frees the memory. At most one of the three is armed at any time.
 *
 * Slow requests are a class of work with bounds of its own, another group. Its width is how many
 * workers they may hold; the other workers serve the rest. Its limit is how many may wait. The
 * surplus is answered 503 at once, because an early refusal is better than a late answer to
 * everybody. What a worker adds is never refused, so admission is a job of the loop. The answer
 * comes back as a job of the connection's group.
 */
#define _GNU_SOURCE
#include <time.h>

#include "http.h"
#include "server.h"

enum {
    INPUT_SIZE = 8192,        /* the longest request head */
    LINGER_BYTES = 256 << 10, /* of a refused request that are read and dropped */
    SLOW_MOST_MS = 60000,     /* of ?ms= */
    METRICS_MOST = 32768,     /* bytes of the pool's statistics as text */
};

/* What comes after the response that is being sent. */
enum after {
    NEXT,   /* the next request */
    LAST,   /* close */
    LINGER, /* close when the client has: it may still be sending, and closing with unread input
               would reset the connection and lose the response */
};

struct connection {
    struct ns_group_t *group; /* of the jobs below */
    struct ns_job_t *reader;
    struct ns_job_t *writer, *admission; /* NULL until first needed */
    int fd;
    size_t in_len;
    char in[INPUT_SIZE + 1];
    struct response out;
    enum after after;
    size_t lingered;     /* bytes dropped */
    struct request slow; /* the slow request that is being answered, and its ?ms= */
    long slow_ms;
};

static int root_fd;
static struct timeval idle = {.tv_sec = 10};
static struct ns_group_t *slow;
static atomic_ulong requests, open_connections, accepted, timeouts, slow_running, refused;

/*
 * Connections: their jobs and their end
 */

/* The group's done callback: all jobs of the connection are gone. */
static void connection_gone(struct ns_group_t *group)
{
    struct connection *c = ns_group_get_data(group);

    http_forget(&c->out);
    close(c->fd);
    free(c);
    atomic_fetch_sub(&open_connections, 1);
}

/* From any thread. It does not wait: what runs, this callback perhaps, runs to its end first. */
static void close_connection(struct connection *c)
{
    ns_group_cancel(c->group);
}

/* When one job goes, all go. So ns_thrpool_destroy, which disposes of the one that is armed, ends
 * the whole connection. */
static void connection_job_disposed(struct ns_job_t *job)
{
    job_disposed(job);
    close_connection(ns_job_get_data(job));
}

/* Let one of its jobs wait for the connection. A shutdown refuses. */
static void wait_with(struct connection *c, struct ns_job_t *job)
{
    if (ns_job_rearm(job) != NS_SUCCESS) {
        close_connection(c);
    }
}

/* PRESERVE_FD: the jobs share one socket. */
static bool make_io_job(struct connection *c, ns_job_type_t direction, ns_job_func_t func,
                        struct ns_job_t **job)
{
    return job_made(ns_add_fd_timeout_job(server.pool, c->fd, &idle,
                                          direction | NS_JOB_THREAD | NS_JOB_PRESERVE_FD |
                                              NS_JOB_UNARMED,
                                          func, c, job),
                    job, connection_job_disposed, c->group);
}

/*
 * Requests
 */

static void reply_status(struct connection *c, const struct request *r)
{
    char text[512];

    snprintf(text, sizeof text,
             "{\"requests\": %lu, \"open\": %lu, \"accepted\": %lu, \"timeouts\": %lu, "
             "\"pauses\": %lu, \"jobs_made\": %lu, \"jobs_disposed\": %lu, "
             "\"slow_running\": %lu, \"slow_waiting\": %zu, \"refused\": %lu}\n",
             atomic_load(&requests), atomic_load(&open_connections), atomic_load(&accepted),
             atomic_load(&timeouts), atomic_load(&server.pauses), atomic_load(&server.jobs_made),
             atomic_load(&server.jobs_disposed), atomic_load(&slow_running),
             ns_group_get_length(slow), atomic_load(&refused));
    http_text(&c->out, r, 200, "application/json", text);
}

/* The pool's statistics, as Prometheus reads them. */
static void reply_metrics(struct connection *c, const struct request *r)
{
    char text[METRICS_MOST];
    size_t length = ns_thrpool_format_stats(server.pool, text, sizeof text);

    if (length < sizeof text) {
        http_long_text(&c->out, r, "text/plain; version=0.0.4", text, length);
    } else {
        http_error(&c->out, r, 500);
    }
}

/* What a connection needs next. */
enum step { GO_ON, WANT_READ, WANT_WRITE, WANT_ADMISSION, CLOSE };

/* Answer the first request in the buffer. */
static enum step answer(struct connection *c)
{
    struct request r = {0};
    size_t blank = 0;

    /* Empty lines before a request are ignored. */
    while (blank < c->in_len && (c->in[blank] == '\r' || c->in[blank] == '\n')) {
        blank++;
    }
    c->in_len -= blank;
    memmove(c->in, c->in + blank, c->in_len);
    char *end = memmem(c->in, c->in_len, "\r\n\r\n", 4);
    if (!end && c->in_len < INPUT_SIZE) {
        return WANT_READ;
    }
    atomic_fetch_add(&requests, 1);
    enum step step = GO_ON;
    int status;
    if (!end) {
        status = memchr(c->in, '\n', c->in_len) ? 431 : 414;
    } else {
        *end = '\0';
        status = strlen(c->in) < (size_t)(end - c->in) ? 400 : http_parse(c->in, &r);
    }
    /* After a malformed request nobody knows where the next one begins. */
    bool clear = status == 0 || (status == 405 && !r.body);
    r.keep = r.keep && clear;
    c->after = !clear ? LINGER : r.keep ? NEXT : LAST;
    if (status != 0) {
        http_error(&c->out, &r, status);
    } else if (strcmp(r.target, "/status") == 0) {
        reply_status(c, &r);
    } else if (strcmp(r.target, "/metrics") == 0) {
        reply_metrics(c, &r);
    } else if (strcmp(r.target, "/slow") == 0) {
        c->slow_ms = http_number(r.query, "ms", SLOW_MOST_MS);
        c->slow = r;
        if (c->slow_ms >= 0) {
            step = WANT_ADMISSION;
        } else {
            http_error(&c->out, &r, 400);
        }
    } else {
        http_file(&c->out, &r, root_fd);
    }
    c->in_len -= end ? (size_t)(end + 4 - c->in) : c->in_len;
    if (end) {
        memmove(c->in, end + 4, c->in_len);
    }
    return step;
}

/* Send as much of the response as the socket takes. */
static enum step send_response(struct connection *c)
{
    enum sent sent = http_send(&c->out, c->fd);

    if (sent != SENT) {
        return sent == LATER ? WANT_WRITE : CLOSE;
    }
    if (c->after == LINGER) {
        shutdown(c->fd, SHUT_WR);
        return WANT_READ;
    }
    return c->after == LAST ? CLOSE : GO_ON;
}

/*
 * Connections: what their jobs do
 */

static void on_writable(struct ns_job_t *job);
static void on_admission(struct ns_job_t *job);

/* Both are made when they are first needed: most connections never need them. */
static bool has_writer(struct connection *c)
{
    return c->writer || make_io_job(c, NS_JOB_WRITE, on_writable, &c->writer);
}

static bool has_admission(struct connection *c)
{
    return c->admission ||
           job_made(ns_add_job(server.pool, NS_JOB_UNARMED, on_admission, c, &c->admission),
                    &c->admission, connection_job_disposed, c->group);
}

/* Go on with a connection as far as input and socket allow, then let one of its jobs wait. */
static void serve(struct connection *c)
{
    enum step step = GO_ON;

    while (step == GO_ON) {
        step = c->out.length > 0 ? send_response(c) : answer(c);
    }
    if (step == WANT_READ) {
        wait_with(c, c->reader);
    } else if (step == WANT_WRITE && has_writer(c)) {
        wait_with(c, c->writer);
    } else if (step == WANT_ADMISSION && has_admission(c)) {
        wait_with(c, c->admission);
    } else {
        close_connection(c);
    }
}

static bool is_over_time(struct ns_job_t *job)
{
    bool over = NS_JOB_IS_TIMER(ns_job_get_output_type(job));

    atomic_fetch_add(&timeouts, over);
    return over;
}

/* The reader's callback, in a worker. One read for each firing: a busy client can't hold a worker,
 * and if there is more the job fires again. */
static void on_readable(struct ns_job_t *job)
{
    struct connection *c = ns_job_get_data(job);

    if (is_over_time(job)) {
        close_connection(c);
        return;
    }
    ssize_t n = read(c->fd, c->in + c->in_len, INPUT_SIZE - c->in_len);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
        wait_with(c, job);
    } else if (n <= 0) {
        close_connection(c);
    } else if (c->after == LINGER) {
        c->lingered += (size_t)n;
        if (c->lingered > LINGER_BYTES) {
            close_connection(c);
        } else {
            wait_with(c, job);
        }
    } else {
        c->in_len += (size_t)n;
        serve(c);
    }
}

/* The writer's callback, in a worker. */
static void on_writable(struct ns_job_t *job)
{
    struct connection *c = ns_job_get_data(job);

    if (is_over_time(job)) {
        close_connection(c);
    } else {
        serve(c);
    }
}

/*
 * Slow requests
 */

/* In the connection's group again, in a worker: its response is ready. */
static void on_answered(struct ns_job_t *job)
{
    serve(ns_job_get_data(job));
    ns_job_done(job);
}

static void send_answer(struct connection *c)
{
    if (ns_add_group_job(c->group, NS_JOB_THREAD, on_answered, c, NULL) != NS_SUCCESS) {
        close_connection(c); /* no memory, or a shutdown */
    }
}

/*
 * In the group of slow work, in a worker. Sleeping stands for asking a slow back end. The hold
 * keeps the connection. Its own jobs are idle, so nobody else writes its response. That a client
 * has gone meanwhile is found when it is answered.
 */
static void on_slow(struct ns_job_t *job)
{
    struct connection *c = ns_job_get_data(job);
    char text[64];

    atomic_fetch_add(&slow_running, 1);
    /* A shutdown runs what is queued to its end, so this hurries. */
    for (long left = c->slow_ms; left > 0 && !ns_thrpool_is_shutdown(server.pool); left -= 50) {
        nanosleep(&(struct timespec){.tv_nsec = (left < 50 ? left : 50) * 1000000}, NULL);
    }
    atomic_fetch_sub(&slow_running, 1);
    snprintf(text, sizeof text, "%ld ms\n", c->slow_ms);
    http_text(&c->out, &c->slow, 200, "text/plain", text);
    send_answer(c);
    ns_group_release(c->group);
    ns_job_done(job);
}

/* In the loop: take a slow request on, or refuse it. */
static void on_admission(struct ns_job_t *job)
{
    struct connection *c = ns_job_get_data(job);

    ns_group_hold(c->group);
    ns_result_t result = ns_add_group_job(slow, NS_JOB_THREAD, on_slow, c, NULL);
    if (result == NS_SUCCESS) {
        return; /* on_slow may have answered by now */
    }
    ns_group_release(c->group);
    if (result == NS_OVERLOADED) {
        atomic_fetch_add(&refused, 1);
        http_error(&c->out, &c->slow, 503);
        send_answer(c);
    } else {
        close_connection(c);
    }
}

/*
 * The daemon
 */

/* A new client, from the listener. */
static void on_client(int fd)
{
    struct connection *c = calloc(1, sizeof *c);

    if (!c || ns_group_new(server.pool, 1, c, connection_gone, &c->group) != NS_SUCCESS) {
        close(fd);
        free(c);
        return;
    }
    struct ns_group_t *group = c->group;
    c->fd = fd;
    c->out.file = -1;
    atomic_fetch_add(&accepted, 1);
    atomic_fetch_add(&open_connections, 1);
    if (make_io_job(c, NS_JOB_READ, on_readable, &c->reader)) {
        wait_with(c, c->reader);
    }
    /* From now on its jobs keep the group, and c with it. Without any, it goes at once. */
    ns_group_release(group);
}

static void on_stop(void)
{
    ns_thrpool_shutdown(server.pool);
}

static void usage(void)
{
    errx(2, "usage: httpd [option...] root-directory\n"
            "  -p port     on 127.0.0.1, 0: the kernel chooses (default 8080)\n"
            "  -t threads  workers (default: one for each processor, at least two)\n"
            "  -s threads  of these, for slow requests (default: half)\n"
            "  -q number   of slow requests that may wait (default 16)\n"
            "  -i seconds  until an idle connection is closed (default 10)\n"
            "  -n number   limit of open descriptors (default: as it is)");
}

int main(int argc, char **argv)
{
    struct ns_thrpool_config config;
    struct ns_thrpool_options options;
    uint16_t port = 8080;
    size_t slow_width = 0, slow_limit = 16;
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    int option, fds = count_fds();

    ns_thrpool_config_init(&config);
    config.max_threads = processors > 2 ? (size_t)processors : 2;
    config.log_fct = log_message;
    while ((option = getopt(argc, argv, "p:t:s:q:i:n:")) != -1) {
        switch (option) {
        case 'p': port = (uint16_t)number(optarg, 0, 65535); break;
        case 't': config.max_threads = (size_t)number(optarg, 1, 1024); break;
        case 's': slow_width = (size_t)number(optarg, 1, 1024); break;
        case 'q': slow_limit = (size_t)number(optarg, 1, 1 << 20); break;
        case 'i': idle.tv_sec = number(optarg, 1, 86400); break;
        case 'n': limit_fds(number(optarg, 16, 1 << 20)); break;
        default: usage();
        }
    }
    if (optind + 1 != argc) {
        usage();
    }
    root_fd = open(argv[optind], O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0) {
        err(2, "%s", argv[optind]);
    }
    /* Writing to a connection that the client has closed should fail, not kill the process. */
    signal(SIGPIPE, SIG_IGN);
    open_listener(port);
    slow_width = slow_width ? slow_width : (config.max_threads + 1) / 2;
    ns_thrpool_options_init(&options, sizeof options);
    options.flags = NS_POOL_TIMINGS; /* for /metrics */
    server.pool = ns_thrpool_new_with(&config, &options);
    if (!server.pool || ns_group_new(server.pool, slow_width, NULL, NULL, &slow) != NS_SUCCESS ||
        ns_group_set_limit(slow, slow_limit) != NS_SUCCESS) {
        return 1;
    }
    bool ran = server_run(on_client, on_stop, NULL);
    server_end(slow);
    close(root_fd);
    printf("requests served: %lu, connections: %lu, ", atomic_load(&requests),
           atomic_load(&accepted));
    return nothing_left(fds) && atomic_load(&open_connections) == 0 && ran ? 0 : 1;
}
