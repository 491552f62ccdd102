/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * httpd - a small HTTP/1.1 server of static files: how a daemon is written with nunc-stans
 *
 *     httpd [-p port] [-t workers] [-i idle-seconds] [-n max-fds] root-directory
 *
 * GET and HEAD, kept-alive and pipelined connections, and counters at /status. Port 0 lets the
 * kernel choose. SIGTERM or SIGINT ends it in good order; the exit status is 0 only if every job
 * was disposed of and every descriptor closed. Symbolic links below the root are followed.
 *
 * The jobs:
 *
 *   listener       ACCEPT | PERSIST, in the event loop: accepting is quick and never blocks.
 *   pause          TIMER, in the loop: brings the listener back when descriptors had run out.
 *   SIGTERM/SIGINT PERSIST, in the loop: begin the shutdown.
 *   reader         READ | THREAD with a time-out, one for each connection, in a worker because
 *                  opening and reading files may block.
 *   writer         WRITE | THREAD with a time-out, made for a connection when its client is first
 *                  found slower than we are. A job's flags are fixed, hence two jobs.
 *
 * Who owns a connection: at most one of its two jobs is armed at any time, and whoever arms one
 * hands the connection over and touches it no more. So no lock guards a connection. It is closed
 * by the job that runs (close_connection), or, once the pool has stopped, by main: both jobs are
 * finished with then. They have PRESERVE_FD, because two jobs share one socket: it is closed, once,
 * and the memory freed, in the done callback of the one that is disposed of last.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include <nunc-stans.h>

#include "http.h"

enum {
    INPUT_SIZE = 8192,        /* the longest request head */
    OUTPUT_SIZE = 1024,       /* a response head and a small body */
    ACCEPTS_PER_TURN = 64,    /* then the loop serves others */
    SEND_PER_TURN = 1 << 20,  /* bytes of a file, then the worker serves others */
    LINGER_BYTES = 256 << 10, /* of a refused request that are read and dropped */
    PAUSE_MS = 100,           /* without the listener, when descriptors have run out */
};

/* What comes after the response that is being sent. */
enum after {
    NEXT,   /* the next request */
    LAST,   /* close */
    LINGER, /* close when the client has: it may still be sending, and closing with unread input
               would reset the connection and lose the response */
};

struct connection {
    struct connection *next, *prev; /* list of the open ones, under server.lock */
    int fd;
    struct ns_job_t *reader;
    struct ns_job_t *writer; /* NULL until first needed */
    atomic_int jobs;         /* of these two, not disposed of yet */
    size_t in_len;
    size_t out_at, out_len;
    int file;        /* the file that is being sent, or -1 */
    off_t file_left; /* bytes of it to send */
    enum after after;
    size_t lingered; /* bytes dropped */
    char in[INPUT_SIZE + 1];
    char out[OUTPUT_SIZE];
};

static struct {
    struct ns_thrpool_t *pool;
    int listen_fd;
    int root_fd;
    struct timeval idle;
    /* The loop's while the pool runs, main's before and after. */
    struct ns_job_t *listener; /* NULL while accepting is paused */
    struct ns_job_t *pause;
    struct ns_job_t *sigterm, *sigint;
    bool starved; /* the lack of descriptors has been reported */

    pthread_mutex_t lock;
    struct connection *connections;

    atomic_ulong requests, open, accepted, timeouts, pauses, jobs_made, jobs_disposed;
} server = {.listen_fd = -1, .root_fd = -1, .lock = PTHREAD_MUTEX_INITIALIZER};

/*
 * Jobs
 */

/* The done callback of every job that has nothing else to clean up. */
static void job_disposed(struct ns_job_t *job)
{
    (void)job;
    atomic_fetch_add(&server.jobs_disposed, 1);
}

/*
 * Finish making a job: `result` is that of an add with NS_JOB_UNARMED. Such a job can't run yet, so
 * its done callback can be set safely. ns_job_rearm arms it.
 */
static bool job_made(ns_result_t result, struct ns_job_t *job, ns_job_func_t done)
{
    if (result != NS_SUCCESS) {
        return false;
    }
    atomic_fetch_add(&server.jobs_made, 1);
    ns_job_set_done_cb(job, done);
    return true;
}

/*
 * Connections: their end
 */

static void connection_job_disposed(struct ns_job_t *job)
{
    struct connection *c = ns_job_get_data(job);

    job_disposed(job);
    if (atomic_fetch_sub(&c->jobs, 1) == 1) {
        close(c->fd);
        free(c);
    }
}

/* The owner calls this as the last thing that it does with the connection. */
static void close_connection(struct connection *c)
{
    struct ns_job_t *reader = c->reader;
    struct ns_job_t *writer = c->writer;

    pthread_mutex_lock(&server.lock);
    if (c->next) {
        c->next->prev = c->prev;
    }
    if (c->prev) {
        c->prev->next = c->next;
    } else {
        server.connections = c->next;
    }
    pthread_mutex_unlock(&server.lock);
    atomic_fetch_sub(&server.open, 1);
    if (c->file >= 0) {
        close(c->file);
    }
    /* Neither is armed, unless the pool has shut down; one may be running, even this one. That is
     * all right: ns_job_done never waits, and a running job is disposed of when it returns. */
    if (writer) {
        ns_job_done(writer);
    }
    ns_job_done(reader);
}

/* Hand the connection to one of its jobs. The caller must not touch it afterwards. */
static void hand_over(struct connection *c, struct ns_job_t *job)
{
    ns_result_t result = ns_job_rearm(job);

    /* In a shutdown nothing is armed any more: the connection stays, and main closes it. */
    if (result != NS_SUCCESS && result != NS_SHUTDOWN) {
        close_connection(c);
    }
}

/*
 * Responses
 */

static void put_head(struct connection *c, int status, const char *type, long long length)
{
    c->out_at = 0;
    c->out_len = http_head(c->out, sizeof c->out, status, type, length, c->after == NEXT);
}

static void reply_text(struct connection *c, const struct request *r, int status, const char *type,
                       const char *text)
{
    size_t length = strlen(text);

    put_head(c, status, type, (long long)length);
    if (!r->head) {
        memcpy(c->out + c->out_len, text, length);
        c->out_len += length;
    }
}

static void reply_error(struct connection *c, const struct request *r, int status)
{
    char text[64];

    snprintf(text, sizeof text, "%d %s\n", status, http_reason(status));
    reply_text(c, r, status, "text/plain", text);
}

static void reply_status(struct connection *c, const struct request *r)
{
    char text[384];

    snprintf(text, sizeof text,
             "{\"requests\": %lu, \"open\": %lu, \"accepted\": %lu, \"timeouts\": %lu, "
             "\"pauses\": %lu, \"jobs_made\": %lu, \"jobs_disposed\": %lu}\n",
             atomic_load(&server.requests), atomic_load(&server.open),
             atomic_load(&server.accepted), atomic_load(&server.timeouts),
             atomic_load(&server.pauses), atomic_load(&server.jobs_made),
             atomic_load(&server.jobs_disposed));
    reply_text(c, r, 200, "application/json", text);
}

/* `path` is decoded, begins with a slash and has no dot-dot in it. */
static void reply_file(struct connection *c, const struct request *r, const char *path)
{
    char name[INPUT_SIZE + sizeof "index.html"];
    struct stat st;

    /* All leading slashes: a second one would make the name absolute again. */
    path += strspn(path, "/");
    size_t length = strlen(path);
    snprintf(name, sizeof name, "%s%s", path,
             length == 0 || path[length - 1] == '/' ? "index.html" : "");
    /* O_NONBLOCK: opening a FIFO must not hold the worker. */
    int file = openat(server.root_fd, name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) {
        reply_error(c, r, errno == EMFILE || errno == ENFILE ? 503 : 404);
        return;
    }
    if (fstat(file, &st) < 0 || !S_ISREG(st.st_mode)) {
        close(file);
        reply_error(c, r, 404);
        return;
    }
    put_head(c, 200, http_type(name), (long long)st.st_size);
    if (r->head || st.st_size == 0) {
        close(file);
        return;
    }
    c->file = file;
    c->file_left = st.st_size;
}

/*
 * Requests
 */

/* What a connection needs next. */
enum step { GO_ON, WANT_READ, WANT_WRITE, CLOSE };

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
    atomic_fetch_add(&server.requests, 1);
    int status;
    if (!end) {
        status = memchr(c->in, '\n', c->in_len) ? 431 : 414;
    } else {
        *end = '\0';
        status = strlen(c->in) < (size_t)(end - c->in) ? 400 : http_parse(c->in, &r);
    }
    /* After a malformed request nobody knows where the next one begins. */
    bool clear = status == 0 || (status == 405 && !r.body);
    c->after = !clear ? LINGER : r.keep ? NEXT : LAST;
    if (status != 0) {
        reply_error(c, &r, status);
    } else if (strcmp(r.target, "/status") == 0) {
        reply_status(c, &r);
    } else {
        reply_file(c, &r, r.target);
    }
    c->in_len -= end ? (size_t)(end + 4 - c->in) : c->in_len;
    if (end) {
        memmove(c->in, end + 4, c->in_len);
    }
    return GO_ON;
}

/* Send as much of the response as the socket takes. */
static enum step send_response(struct connection *c)
{
    while (c->out_at < c->out_len) {
        /* MSG_MORE: head and beginning of the file in one packet. */
        ssize_t n = send(c->fd, c->out + c->out_at, c->out_len - c->out_at,
                         c->file >= 0 ? MSG_MORE : 0);
        if (n < 0) {
            return errno == EAGAIN ? WANT_WRITE : CLOSE;
        }
        c->out_at += (size_t)n;
    }
    if (c->file >= 0) {
        size_t most = c->file_left < SEND_PER_TURN ? (size_t)c->file_left : SEND_PER_TURN;
        ssize_t n = sendfile(c->fd, c->file, NULL, most);
        if (n <= 0) {
            /* 0: the file has become shorter than the length that was promised. */
            return n < 0 && errno == EAGAIN ? WANT_WRITE : CLOSE;
        }
        c->file_left -= n;
        if (c->file_left > 0) {
            return WANT_WRITE;
        }
        close(c->file);
        c->file = -1;
    }
    c->out_at = c->out_len = 0;
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

/* The writer is made when it is first needed: most connections never need one. */
static ns_result_t make_writer(struct connection *c)
{
    ns_result_t result = ns_add_fd_timeout_job(
        server.pool, c->fd, &server.idle,
        NS_JOB_WRITE | NS_JOB_THREAD | NS_JOB_PRESERVE_FD | NS_JOB_UNARMED, on_writable, c,
        &c->writer);

    if (job_made(result, c->writer, connection_job_disposed)) {
        atomic_fetch_add(&c->jobs, 1);
    }
    return result;
}

/* Go on with a connection as far as input and socket allow, then hand it to the job that waits. */
static void serve(struct connection *c)
{
    enum step step = GO_ON;

    while (step == GO_ON) {
        step = c->out_len > 0 ? send_response(c) : answer(c);
    }
    if (step == CLOSE) {
        close_connection(c);
    } else if (step == WANT_READ) {
        hand_over(c, c->reader);
    } else {
        ns_result_t result = c->writer ? NS_SUCCESS : make_writer(c);
        if (result == NS_SUCCESS) {
            hand_over(c, c->writer);
        } else if (result != NS_SHUTDOWN) {
            close_connection(c);
        }
    }
}

/* The reader's callback, in a worker. One read for each firing: a busy client can't hold a worker,
 * and if there is more the job fires again. */
static void on_readable(struct ns_job_t *job)
{
    struct connection *c = ns_job_get_data(job);

    if (NS_JOB_IS_TIMER(ns_job_get_output_type(job))) {
        atomic_fetch_add(&server.timeouts, 1);
        close_connection(c);
        return;
    }
    ssize_t n = read(c->fd, c->in + c->in_len, INPUT_SIZE - c->in_len);
    if (n < 0 && errno == EAGAIN) {
        hand_over(c, job);
    } else if (n <= 0) {
        close_connection(c);
    } else if (c->after == LINGER) {
        c->lingered += (size_t)n;
        if (c->lingered > LINGER_BYTES) {
            close_connection(c);
        } else {
            hand_over(c, job);
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

    if (NS_JOB_IS_TIMER(ns_job_get_output_type(job))) {
        atomic_fetch_add(&server.timeouts, 1);
        close_connection(c);
    } else {
        serve(c);
    }
}

/*
 * The listener
 */

/* Take over a new socket. */
static void open_connection(int fd)
{
    struct connection *c = calloc(1, sizeof *c);

    if (!c) {
        close(fd);
        return;
    }
    c->fd = fd;
    c->file = -1;
    ns_result_t result = ns_add_fd_timeout_job(
        server.pool, fd, &server.idle,
        NS_JOB_READ | NS_JOB_THREAD | NS_JOB_PRESERVE_FD | NS_JOB_UNARMED, on_readable, c,
        &c->reader);
    if (!job_made(result, c->reader, connection_job_disposed)) {
        close(fd);
        free(c);
        return;
    }
    atomic_init(&c->jobs, 1);
    atomic_fetch_add(&server.accepted, 1);
    atomic_fetch_add(&server.open, 1);
    pthread_mutex_lock(&server.lock);
    c->next = server.connections;
    if (c->next) {
        c->next->prev = c;
    }
    server.connections = c;
    pthread_mutex_unlock(&server.lock);
    hand_over(c, c->reader);
}

/*
 * accept has failed and would fail again at once: the connection still waits, and a level-triggered
 * listener would fire without end. So the listener is given up for a while.
 */
static void pause_accepting(struct ns_job_t *listener, int error)
{
    atomic_fetch_add(&server.pauses, 1);
    if (!server.starved) {
        fprintf(stderr, "httpd: accept: %s; trying again every %d ms\n", strerror(error), PAUSE_MS);
        server.starved = true;
    }
    if (ns_job_rearm(server.pause) == NS_SUCCESS) {
        ns_job_done(listener);
        server.listener = NULL;
    }
}

static void on_connection(struct ns_job_t *job)
{
    for (int i = 0; i < ACCEPTS_PER_TURN; i++) {
        int fd = accept4(server.listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0) {
            if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED) {
                pause_accepting(job, errno);
            }
            return;
        }
        server.starved = false;
        open_connection(fd);
    }
}

/* PRESERVE_FD: the listening socket outlives its job, which comes and goes. */
static bool add_listener(void)
{
    ns_result_t result = ns_add_fd_job(
        server.pool, server.listen_fd,
        NS_JOB_ACCEPT | NS_JOB_PERSIST | NS_JOB_PRESERVE_FD | NS_JOB_UNARMED, on_connection, NULL,
        &server.listener);

    return job_made(result, server.listener, job_disposed) &&
           ns_job_rearm(server.listener) == NS_SUCCESS;
}

static void on_pause_over(struct ns_job_t *job)
{
    if (!add_listener()) {
        ns_job_rearm(job); /* no memory: later, perhaps. In a shutdown this is refused too */
    }
}

/*
 * The daemon
 */

static void on_stop_signal(struct ns_job_t *job)
{
    ns_thrpool_shutdown(ns_job_get_tp(job));
}

static bool add_stop_signal(int signum, struct ns_job_t **job)
{
    ns_result_t result = ns_add_signal_job(
        server.pool, signum, NS_JOB_PERSIST | NS_JOB_UNARMED, on_stop_signal, NULL, job);

    return job_made(result, *job, job_disposed) && ns_job_rearm(*job) == NS_SUCCESS;
}

/* Make the jobs that a daemon has from its beginning. */
static bool add_jobs(void)
{
    struct timeval pause = {.tv_usec = PAUSE_MS * 1000};
    ns_result_t result = ns_add_timeout_job(server.pool, &pause, NS_JOB_UNARMED, on_pause_over,
                                            NULL, &server.pause);

    return job_made(result, server.pause, job_disposed) &&
           add_stop_signal(SIGTERM, &server.sigterm) && add_stop_signal(SIGINT, &server.sigint) &&
           add_listener();
}

/*
 * By main, after ns_thrpool_wait: no callback runs any more, so all is main's. ns_job_done now
 * takes armed jobs too. Done callbacks run in the loop thread meanwhile.
 */
static void finish_jobs(void)
{
    struct ns_job_t *const jobs[] = {server.listener, server.pause, server.sigterm, server.sigint};

    while (server.connections) {
        close_connection(server.connections);
    }
    for (size_t i = 0; i < sizeof jobs / sizeof *jobs; i++) {
        if (jobs[i]) {
            ns_job_done(jobs[i]);
        }
    }
}

static void log_message(int priority, const char *format, va_list args)
{
    char text[512];

    if (priority <= LOG_WARNING) {
        vsnprintf(text, sizeof text, format, args);
        fprintf(stderr, "httpd: %s", text);
    }
}

static int open_listener(uint16_t port)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof at;
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

    /* TCP_NODELAY is inherited by the sockets that are accepted. */
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0 ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0 ||
        bind(fd, (struct sockaddr *)&at, sizeof at) < 0 || listen(fd, SOMAXCONN) < 0 ||
        getsockname(fd, (struct sockaddr *)&at, &length) < 0) {
        fprintf(stderr, "httpd: port %u: %s\n", port, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return -1;
    }
    printf("listening on 127.0.0.1:%u\n", ntohs(at.sin_port));
    fflush(stdout);
    return fd;
}

/* Descriptors that this process has open, or -1. */
static int count_fds(void)
{
    DIR *dir = opendir("/proc/self/fd");
    int count = -3; /* ".", ".." and the directory's own */

    if (!dir) {
        return -1;
    }
    while (readdir(dir)) {
        count++;
    }
    closedir(dir);
    return count;
}

static void usage(void)
{
    fprintf(stderr, "usage: httpd [-p port] [-t workers] [-i idle-seconds] [-n max-fds] "
                    "root-directory\n"
                    "  -p  port on 127.0.0.1, 0: the kernel chooses (default 8080)\n"
                    "  -t  worker threads (default: one for each processor)\n"
                    "  -i  seconds until an idle connection is closed (default 10)\n"
                    "  -n  limit of open descriptors (default: as it is)\n");
    exit(2);
}

static long number(const char *text, long least, long most)
{
    char *end;

    errno = 0;
    long value = strtol(text, &end, 10);
    if (errno || end == text || *end || value < least || value > most) {
        fprintf(stderr, "httpd: %s: not a number from %ld to %ld\n", text, least, most);
        usage();
    }
    return value;
}

/* Read the arguments, and do what they ask for. Exits on errors. */
static uint16_t configure(int argc, char **argv, struct ns_thrpool_config *config)
{
    uint16_t port = 8080;
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    struct rlimit limit;
    int option;

    ns_thrpool_config_init(config);
    config->max_threads = processors > 0 ? (size_t)processors : 1;
    config->log_fct = log_message;
    server.idle.tv_sec = 10;
    while ((option = getopt(argc, argv, "p:t:i:n:")) != -1) {
        switch (option) {
        case 'p': port = (uint16_t)number(optarg, 0, 65535); break;
        case 't': config->max_threads = (size_t)number(optarg, 1, 1024); break;
        case 'i': server.idle.tv_sec = number(optarg, 1, 86400); break;
        case 'n':
            getrlimit(RLIMIT_NOFILE, &limit);
            limit.rlim_cur = (rlim_t)number(optarg, 16, 1 << 20);
            if (setrlimit(RLIMIT_NOFILE, &limit) < 0) {
                fprintf(stderr, "httpd: -n %s: %s\n", optarg, strerror(errno));
                exit(2);
            }
            break;
        default: usage();
        }
    }
    if (optind + 1 != argc) {
        usage();
    }
    server.root_fd = open(argv[optind], O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (server.root_fd < 0) {
        fprintf(stderr, "httpd: %s: %s\n", argv[optind], strerror(errno));
        exit(2);
    }
    return port;
}

int main(int argc, char **argv)
{
    struct ns_thrpool_config config;
    int fds = count_fds();
    uint16_t port = configure(argc, argv, &config);

    /* Writing to a connection that the client has closed should fail, not kill the process. */
    signal(SIGPIPE, SIG_IGN);
    server.listen_fd = open_listener(port);
    if (server.listen_fd < 0) {
        return 1;
    }
    server.pool = ns_thrpool_new(&config);
    if (!server.pool) {
        return 1;
    }
    /* The first signal may already have come. */
    bool started = add_jobs() || ns_thrpool_is_shutdown(server.pool);
    if (!started) {
        fprintf(stderr, "httpd: the first jobs could not be made\n");
        ns_thrpool_shutdown(server.pool);
    }
    ns_result_t result = ns_thrpool_wait(server.pool); /* here the daemon spends its life */
    if (result != NS_SUCCESS) {
        fprintf(stderr, "httpd: ns_thrpool_wait: result %d\n", (int)result);
    }
    finish_jobs();
    ns_thrpool_destroy(server.pool); /* all that is done has been disposed of when it returns */
    close(server.listen_fd);
    close(server.root_fd);

    unsigned long made = atomic_load(&server.jobs_made);
    unsigned long disposed = atomic_load(&server.jobs_disposed);
    int left = count_fds() - fds;
    printf("requests served: %lu, connections: %lu, jobs made: %lu, jobs disposed: %lu, "
           "descriptors left open: %d\n",
           atomic_load(&server.requests), atomic_load(&server.accepted), made, disposed, left);
    return started && result == NS_SUCCESS && made == disposed && left == 0 ? 0 : 1;
}
