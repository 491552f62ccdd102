/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the programs of the benchmark share: the clock, the output, and the part of each work that
 * is the same for all peers.
 *
 * Each peer is a program that does the same works through its own interface:
 *
 *     X list                      lists the works that it can do, as work,param
 *     X WORK PARAM [UNITS]        does one and prints lines: work,param,metric,value
 *
 * Rates are per second; times are in microseconds unless the metric says otherwise. With UNITS, a
 * work does exactly that many units, and runs as repeatably as it can, for counting. BENCH_EFFORT
 * (default 1) scales how long a work without UNITS takes.
 *
 * The client of the echo and accept works is a forked process, the same for all peers. It keeps all
 * connections busy. It polls instead of sleeping, so that no server pays for waking it; it sleeps
 * only if there is a single connection.
 */
#ifndef BENCH_H
#define BENCH_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A row of a peer's table. The table ends with a row whose name is NULL. */
struct work {
    const char *name;
    const char *param;
    void (*run)(const struct work *work);
};

/* Each peer defines its own table. */
extern const struct work works[];

static unsigned long units; /* as asked for; 0: as many as fit into the time */
static double effort = 1;

static inline void check(bool good, const char *what)
{
    if (!good) {
        perror(what);
        _exit(EXIT_FAILURE);
    }
}

static inline uint64_t nanoseconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000U + (uint64_t)now.tv_nsec;
}

static inline void metric(const struct work *work, const char *name, double value)
{
    printf("%s,%s,%s,%.6g\n", work->name, work->param, name, value);
}

/* The number of repetitions of a work that would usually do `usual` of them. */
static inline size_t how_many(size_t usual)
{
    size_t scaled = (size_t)((double)usual * effort);
    return units ? units : scaled ? scaled : 1;
}

static inline int by_size(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;
    return (left > right) - (left < right);
}

/* Prints percentiles of `values`, and sorts them in place. */
static inline void percentiles(const struct work *work, uint64_t *values, size_t count)
{
    qsort(values, count, sizeof(*values), by_size);
    metric(work, "p50_us", (double)values[count / 2] / 1e3);
    metric(work, "p90_us", (double)values[count * 9 / 10] / 1e3);
    metric(work, "p99_us", (double)values[count * 99 / 100] / 1e3);
}

/* The resources that this process had used when the measurement began. */
static struct rusage usage_before;

static inline void usage_begin(void)
{
    getrusage(RUSAGE_SELF, &usage_before);
}

static inline double seconds_of(struct timeval time)
{
    return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

static inline void usage_end(const struct work *work, double count)
{
    struct rusage now;
    getrusage(RUSAGE_SELF, &now);
    double cpu = seconds_of(now.ru_utime) + seconds_of(now.ru_stime) -
                 seconds_of(usage_before.ru_utime) - seconds_of(usage_before.ru_stime);
    metric(work, "cpu_us", cpu * 1e6 / count);
    metric(work, "switches", (double)(now.ru_nvcsw - usage_before.ru_nvcsw) / count);
    metric(work, "faults", (double)(now.ru_minflt - usage_before.ru_minflt) / count);
}

/* Counts completed units, on any thread, and wakes the waiter after the last one. */
static struct {
    size_t count;
    char apart[120]; /* keeps the fields below, which are only read, off the count's cache line */
    size_t total;
    sem_t all;
} tally;

static inline void tally_start(size_t total)
{
    tally.count = 0;
    tally.total = total;
    sem_init(&tally.all, 0, 0);
}

static inline void tally_one(void)
{
    if (__atomic_add_fetch(&tally.count, 1, __ATOMIC_ACQ_REL) == tally.total)
        sem_post(&tally.all);
}

static inline size_t tally_count(void)
{
    return __atomic_load_n(&tally.count, __ATOMIC_ACQUIRE);
}

static inline void sem_wait_for(sem_t *semaphore)
{
    while (sem_wait(semaphore) != 0) {
    }
}

static inline void tally_wait(void)
{
    sem_wait_for(&tally.all);
}

static inline pthread_t thread(void *(*body)(void *), void *argument)
{
    pthread_t made;
    check(pthread_create(&made, NULL, body, argument) == 0, "pthread_create");
    return made;
}

/*
 * Run-now jobs. PARAM is producers x workers. post() makes a job whose callback calls tally_one().
 * In the work run-now-window, at most WINDOW jobs wait at a time.
 */

#define WINDOW ((size_t)4096)

typedef void (*post_fn)(void *context);

struct producer {
    post_fn post;
    void *context;
    size_t count;
    size_t window; /* shared by all producers, or 0 */
    size_t producers;
};

static inline void *produce(void *argument)
{
    struct producer *self = (struct producer *)argument;
    for (size_t i = 0; i < self->count; i++) {
        /* Rarely, so that the check costs nothing. */
        if (self->window && i % 256 == 0)
            while (i * self->producers > tally_count() + self->window)
                sched_yield();
        self->post(self->context);
    }
    return NULL;
}

static inline size_t workers_of(const struct work *work)
{
    return strtoul(strchr(work->param, 'x') + 1, NULL, 10);
}

static inline void run_now(const struct work *work, post_fn post, void *context)
{
    size_t producers = strtoul(work->param, NULL, 10);
    size_t each = how_many(1000000) / producers;
    bool windowed = strcmp(work->name, "run-now-window") == 0;
    struct producer producer = {post, context, each, windowed ? WINDOW : 0, producers};
    pthread_t threads[2];
    tally_start(each * producers);
    usage_begin();
    uint64_t start = nanoseconds();
    for (size_t i = 1; i < producers; i++)
        threads[i] = thread(produce, &producer);
    produce(&producer);
    tally_wait();
    double seconds = (double)(nanoseconds() - start) / 1e9;
    for (size_t i = 1; i < producers; i++)
        pthread_join(threads[i], NULL);
    metric(work, "rate", (double)tally.total / seconds);
    usage_end(work, (double)tally.total);
}

/*
 * Hand-off: one job at a time to one worker. With PARAM "busy", the next job comes as soon as the
 * callback has begun; with "idle", a moment later, when the worker certainly sleeps. The callback
 * calls hand_off_began().
 */

static uint64_t began;
static sem_t begun;

static inline void hand_off_began(void)
{
    began = nanoseconds();
    sem_post(&begun);
}

static inline bool hand_off_idles(const struct work *work)
{
    return strcmp(work->param, "idle") == 0;
}

static inline size_t hand_offs(const struct work *work)
{
    return how_many(hand_off_idles(work) ? 3000 : 30000);
}

static inline void pause_for_us(long us)
{
    struct timespec pause = {us / 1000000, us % 1000000 * 1000};
    nanosleep(&pause, NULL);
}

static inline void hand_off(const struct work *work, post_fn post, void *context)
{
    size_t count = hand_offs(work);
    uint64_t *took = (uint64_t *)calloc(count, sizeof(*took));
    sem_init(&begun, 0, 0);
    usage_begin();
    for (size_t i = 0; i < count; i++) {
        if (hand_off_idles(work))
            pause_for_us(units ? 1000 : 60);
        uint64_t start = nanoseconds();
        post(context);
        sem_wait_for(&begun);
        took[i] = began - start;
    }
    usage_end(work, (double)count);
    percentiles(work, took, count);
    free(took);
}

/*
 * Rearm: PARAM jobs that rearm themselves in their callback, with two workers. The callback asks
 * chain_again() whether to rearm.
 */

struct chain {
    uint64_t runs;
    uint64_t most;
    void *own; /* the peer's own data */
    char apart[104];
};

static struct chain chains[64];
static bool chains_stop;

static inline bool chain_again(struct chain *chain)
{
    if (++chain->runs < chain->most && !__atomic_load_n(&chains_stop, __ATOMIC_RELAXED))
        return true;
    tally_one();
    return false;
}

static inline void rearm(const struct work *work, void (*start)(void *context, struct chain *),
                         void *context)
{
    size_t count = strtoul(work->param, NULL, 10);
    tally_start(count);
    usage_begin();
    uint64_t begin = nanoseconds(), runs = 0;
    for (size_t i = 0; i < count; i++) {
        chains[i].most = units ? units / count : UINT64_MAX;
        start(context, &chains[i]);
    }
    if (!units) {
        pause_for_us((long)(300e3 * effort));
        __atomic_store_n(&chains_stop, true, __ATOMIC_RELAXED);
    }
    tally_wait();
    double seconds = (double)(nanoseconds() - begin) / 1e9;
    for (size_t i = 0; i < count; i++)
        runs += chains[i].runs;
    metric(work, "rate", (double)runs / seconds);
    usage_end(work, (double)runs);
}

/*
 * Echo and accept: the client.
 */

#define MESSAGE 64   /* bytes in an echo */
#define SAMPLES 65536
#define SLOTS 16     /* connections that the accept work keeps in progress */

struct client {
    uint64_t trips;
    uint64_t all_trips; /* including the warm-up */
    double seconds;
    size_t sampled;
    uint64_t samples[SAMPLES];
};

static struct client *client;
static pid_t client_pid;
static int client_go[2];
static struct sockaddr_in server_address;

static inline int listen_here(int backlog)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    socklen_t size = sizeof(server_address);
    server_address.sin_family = AF_INET;
    server_address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    check(bind(fd, (struct sockaddr *)&server_address, size) == 0, "bind");
    check(listen(fd, backlog) == 0, "listen");
    check(getsockname(fd, (struct sockaddr *)&server_address, &size) == 0, "getsockname");
    return fd;
}

static inline int connect_there(void)
{
    int one = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    check(fd >= 0, "socket");
    check(connect(fd, (struct sockaddr *)&server_address, sizeof(server_address)) == 0, "connect");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    return fd;
}

/* Returns true in the client. Call it before the process has a second thread. */
static inline bool fork_client(void)
{
    client = (struct client *)mmap(NULL, sizeof(*client), PROT_READ | PROT_WRITE,
                                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    check(client != MAP_FAILED, "mmap");
    check(pipe(client_go) == 0, "pipe");
    /* Like fork(), but strace does not follow the child: we count the server's calls. */
    client_pid = (pid_t)syscall(SYS_clone, CLONE_UNTRACED | SIGCHLD, 0, 0, 0, 0);
    check(client_pid >= 0, "fork");
    if (client_pid == 0)
        prctl(PR_SET_PDEATHSIG, SIGKILL);
    return client_pid == 0;
}

static inline void client_await_go(void)
{
    char byte;
    check(read(client_go[0], &byte, 1) == 1, "read");
}

/* Record one round trip that began at `sent`; returns false when the time is up. */
static inline bool client_trip(uint64_t start, uint64_t sent, uint64_t now)
{
    const uint64_t warm_up = 50000000, length = warm_up + (uint64_t)(400e6 * effort);
    client->all_trips++;
    if (units)
        return client->all_trips < units;
    if (now - start < warm_up)
        return true;
    client->samples[client->trips++ % SAMPLES] = now - sent;
    client->seconds = (double)(now - start - warm_up) / 1e9;
    return now - start < length;
}

/* Receive on a socket that will soon be readable. */
static inline void client_recv(int fd, char *bytes, size_t size, bool sleep)
{
    ssize_t got;
    for (unsigned tries = 1; (got = recv(fd, bytes, size, sleep ? 0 : MSG_DONTWAIT)) < 0; tries++)
        if (tries % 16 == 0)
            sched_yield();
    check(got == (ssize_t)size, "client: recv");
}

/* Handles a quarter of the connections at a time: waits for their answers, then sends on them
 * again. So the server has work while the client works, and is not woken for each message. */
static inline void echo_client(const int *fds, size_t count)
{
    char out[MESSAGE] = "echo", in[MESSAGE];
    uint64_t *sent = (uint64_t *)calloc(count, sizeof(*sent));
    size_t group = count < 4 ? 1 : count < 256 ? count / 4 : 64;
    client_await_go();
    uint64_t start = nanoseconds();
    for (size_t i = 0; i < count; i++) {
        sent[i] = nanoseconds();
        check(send(fds[i], out, sizeof(out), MSG_NOSIGNAL) == sizeof(out), "client: send");
    }
    for (size_t first = 0;; first = first + group < count ? first + group : 0) {
        size_t end = first + group < count ? first + group : count;
        for (size_t i = first; i < end; i++) {
            client_recv(fds[i], in, sizeof(in), count == 1);
            uint64_t now = nanoseconds();
            if (!client_trip(start, sent[i], now))
                _exit(EXIT_SUCCESS);
            sent[i] = now;
        }
        for (size_t i = first; i < end; i++)
            check(send(fds[i], out, sizeof(out), MSG_NOSIGNAL) == sizeof(out), "client: send");
    }
}

static inline void accept_client(void)
{
    struct linger reset = {1, 0}; /* no TIME_WAIT state, so ports do not run out */
    int fds[SLOTS];
    uint64_t sent[SLOTS];
    char byte = 1;
    memset(fds, -1, sizeof(fds));
    client_await_go();
    uint64_t start = nanoseconds();
    for (size_t i = 0;; i = (i + 1) % SLOTS) {
        if (fds[i] >= 0) {
            client_recv(fds[i], &byte, 1, false);
            setsockopt(fds[i], SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
            close(fds[i]);
            if (!client_trip(start, sent[i], nanoseconds()))
                _exit(EXIT_SUCCESS);
        }
        sent[i] = nanoseconds();
        fds[i] = connect_there();
        check(send(fds[i], &byte, 1, MSG_NOSIGNAL) == 1, "client: send");
    }
}

/* Make PARAM non-blocking connections; the caller frees the array. Call it before the peer sets up
 * anything. Unix stream sockets, for which the kernel does the least work; in the works ...-tcp,
 * TCP. */
static inline int *echo_connections(const struct work *work, size_t *count)
{
    bool tcp = strstr(work->name, "-tcp") != NULL;
    int one = 1, listener = tcp ? listen_here(4096) : -1;
    *count = strtoul(work->param, NULL, 10);
    int *here = (int *)calloc(*count, sizeof(*here));
    int *there = (int *)calloc(*count, sizeof(*there));
    for (size_t i = 0; i < *count; i++) {
        int pair[2];
        if (tcp) {
            pair[1] = connect_there();
            pair[0] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
            setsockopt(pair[0], IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
        } else {
            check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0, "socketpair");
            fcntl(pair[0], F_SETFL, O_NONBLOCK);
        }
        check(pair[0] >= 0, "accept4");
        here[i] = pair[0];
        there[i] = pair[1];
    }
    if (fork_client())
        echo_client(there, *count);
    for (size_t i = 0; i < *count; i++)
        close(there[i]);
    free(there);
    return here;
}

/* Make a non-blocking listener. Call it before the peer sets up anything. */
static inline int accept_listener(void)
{
    int listener = listen_here(4096);
    if (fork_client())
        accept_client();
    return listener;
}

/* Run the client; the server is ready, in other threads. Exits the program, because connections are
 * still open. */
static inline void client_run(const struct work *work)
{
    int status = 0;
    char byte = 1;
    usage_begin();
    check(write(client_go[1], &byte, 1) == 1, "write");
    while (waitpid(client_pid, &status, 0) < 0 && errno == EINTR) {
    }
    check(status == 0, "client");
    usage_end(work, (double)client->all_trips);
    struct rusage its;
    getrusage(RUSAGE_CHILDREN, &its);
    metric(work, "client_us", (seconds_of(its.ru_utime) + seconds_of(its.ru_stime)) * 1e6 /
                                  (double)client->all_trips);
    if (units) {
        metric(work, "client_pid", client_pid);
    } else {
        metric(work, "rate", (double)client->trips / client->seconds);
        percentiles(work, client->samples, client->trips < SAMPLES ? client->trips : SAMPLES);
    }
}

/* What every server does when a connection is readable. Returns false when the connection is over.
 * */
static inline bool echo_once(int fd)
{
    char buffer[4096];
    ssize_t n = recv(fd, buffer, sizeof(buffer), MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN;
    return n > 0 && send(fd, buffer, (size_t)n, MSG_NOSIGNAL) == n;
}

/*
 * Timers, set from outside the loop where the peer allows it.
 */

struct due {
    uint64_t deadline;
    uint64_t fired;
};

struct timers {
    /* Add a timer whose callback calls timer_fired(due) and frees it. Returns the handle for
     * cancel. */
    void *(*add)(uint64_t delay_us, struct due *due);
    /* Cancel the timer and free it. */
    void (*cancel)(void *timer);
    /* Return when the loop has processed all earlier calls. */
    void (*settle)(void);
    /* Return when all timers have fired. NULL: tally_wait does that. */
    void (*wait)(void);
};

static inline void timer_fired(struct due *due)
{
    due->fired = nanoseconds();
    tally_one();
}

static inline uint64_t scatter(uint64_t i)
{
    return (i * 0x9E3779B97F4A7C15U) >> 33;
}

/* PARAM timers that never fire: the cost of adding and cancelling them, and the cost of one more
 * beside them. */
static inline void timers(const struct work *work, const struct timers *peer)
{
    const uint64_t hour = 3600000000U;
    size_t count = strtoul(work->param, NULL, 10);
    size_t rounds = count < 100000 && !units ? 100000 / count : 1, singles = how_many(20000);
    uint64_t added = 0, settled = 0, cancelled = 0, gone = 0;
    usage_begin();
    void **made = (void **)calloc(count, sizeof(*made));
    struct due due;
    for (size_t i = 0; i < rounds; i++) {
        uint64_t start = nanoseconds();
        for (size_t k = 0; k < count; k++)
            made[k] = peer->add(hour + scatter(k) % hour, &due);
        added += nanoseconds() - start;
        peer->settle();
        settled += nanoseconds() - start;
        if (i + 1 == rounds) {
            uint64_t once = nanoseconds();
            for (size_t k = 0; k < singles; k++)
                peer->cancel(peer->add(hour + scatter(k) % hour, &due));
            peer->settle();
            metric(work, "one_ns", (double)(nanoseconds() - once) / (double)singles);
        }
        start = nanoseconds();
        for (size_t k = 0; k < count; k++)
            peer->cancel(made[k]);
        cancelled += nanoseconds() - start;
        peer->settle();
        gone += nanoseconds() - start;
    }
    double total = (double)(rounds * count) * 1e9;
    metric(work, "add", total / (double)added);
    metric(work, "add_settled", total / (double)settled);
    metric(work, "cancel", total / (double)cancelled);
    metric(work, "cancel_settled", total / (double)gone);
    usage_end(work, (double)(rounds * count + singles));
    free(made);
}

static inline uint64_t timers_add(const struct timers *peer, struct due *due, size_t count)
{
    uint64_t start = nanoseconds();
    for (size_t i = 0; i < count; i++) {
        uint64_t now = nanoseconds();
        uint64_t delay = due[i].deadline > now ? (due[i].deadline - now) / 1000 : 0;
        due[i].deadline = now + delay * 1000;
        peer->add(delay, &due[i]);
    }
    return nanoseconds() - start;
}

static inline void timers_wait(const struct timers *peer)
{
    if (peer->wait)
        peer->wait();
    else
        tally_wait();
}

/* PARAM timers that are all due at once. */
static inline void timers_fire(const struct work *work, const struct timers *peer)
{
    size_t count = how_many(strtoul(work->param, NULL, 10));
    struct due *due = (struct due *)calloc(count, sizeof(*due));
    tally_start(count);
    /* Adding is slow under a counting tool, and no timer may fire before all are added. */
    uint64_t lead = (50000000 + count * 800) * (units ? 20 : 1);
    uint64_t start = nanoseconds(), at = start + lead, last = 0;
    for (size_t i = 0; i < count; i++)
        due[i].deadline = at;
    usage_begin();
    uint64_t took = timers_add(peer, due, count);
    timers_wait(peer);
    usage_end(work, (double)count);
    for (size_t i = 0; i < count; i++)
        last = due[i].fired > last ? due[i].fired : last;
    uint64_t from = start + took > at ? start + took : at;
    metric(work, "rate", (double)count * 1e9 / (double)(last > from ? last - from : 1));
    free(due);
}

/* PARAM timers, due evenly spread over one second: how fast they are added, and how late they fire.
 * */
static inline void timers_due(const struct work *work, const struct timers *peer)
{
    size_t count = how_many(strtoul(work->param, NULL, 10));
    struct due *due = (struct due *)calloc(count, sizeof(*due));
    uint64_t *late = (uint64_t *)calloc(count, sizeof(*late));
    tally_start(count);
    uint64_t start = nanoseconds() + 300000000;
    for (size_t i = 0; i < count; i++)
        due[i].deadline = start + i * 1000000000 / count;
    usage_begin();
    uint64_t took = timers_add(peer, due, count);
    timers_wait(peer);
    usage_end(work, (double)count);
    metric(work, "add", (double)count * 1e9 / (double)took);
    size_t early = 0;
    for (size_t i = 0; i < count; i++) {
        early += due[i].fired < due[i].deadline;
        late[i] = due[i].fired < due[i].deadline ? 0 : due[i].fired - due[i].deadline;
    }
    metric(work, "early", (double)early);
    percentiles(work, late, count);
    free(due);
    free(late);
}

/*
 * PARAM idle descriptors, each with a time-out: the memory for each, and the cost of one that is
 * readable now and then. Each callback calls idle_touched(), which makes another descriptor
 * readable, and restarts its own time-out.
 */

static int *idle_fds;
static size_t idle_count;

#define IDLE_SECONDS 3600

static inline void idle_touched(size_t which)
{
    uint64_t value = 1;
    check(read(idle_fds[which], &value, sizeof(value)) == sizeof(value), "read");
    size_t seen = tally_count() + 1;
    if (seen < tally.total) {
        value = 1;
        size_t next = scatter(seen) % idle_count;
        check(write(idle_fds[next], &value, sizeof(value)) == sizeof(value), "write");
    }
    tally_one();
}

static inline size_t heap_in_use(void)
{
    struct mallinfo2 info = mallinfo2();
    return info.uordblks + info.hblkhd;
}

static inline void idle(const struct work *work, void (*watch)(size_t which, int fd),
                        void (*settle)(void))
{
    uint64_t value = 1;
    idle_count = strtoul(work->param, NULL, 10);
    idle_fds = (int *)calloc(idle_count, sizeof(*idle_fds));
    for (size_t i = 0; i < idle_count; i++) {
        idle_fds[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
        check(idle_fds[i] >= 0, "eventfd");
    }
    settle();
    size_t before = heap_in_use();
    for (size_t i = 0; i < idle_count; i++)
        watch(i, idle_fds[i]);
    settle();
    metric(work, "bytes", (double)(heap_in_use() - before) / (double)idle_count);
    tally_start(how_many(200000));
    usage_begin();
    uint64_t start = nanoseconds();
    check(write(idle_fds[0], &value, sizeof(value)) == sizeof(value), "write");
    tally_wait();
    metric(work, "touch_ns", (double)(nanoseconds() - start) / (double)tally.total);
    usage_end(work, (double)tally.total);
}

/* Signals, one at a time. The callback posts `begun`. */
static inline void signals(const struct work *work)
{
    size_t count = how_many(20000);
    usage_begin();
    uint64_t start = nanoseconds();
    for (size_t i = 0; i < count; i++) {
        kill(getpid(), SIGUSR1);
        sem_wait_for(&begun);
    }
    metric(work, "rate", (double)count * 1e9 / (double)(nanoseconds() - start));
    usage_end(work, (double)count);
}

/* Starting and stopping a loop and its workers. */
static inline void start_stop(const struct work *work, void (*once)(void))
{
    size_t count = how_many(500);
    usage_begin();
    uint64_t start = nanoseconds();
    for (size_t i = 0; i < count; i++)
        once();
    metric(work, "each_us", (double)(nanoseconds() - start) / 1e3 / (double)count);
    usage_end(work, (double)count);
}

int main(int argc, char **argv)
{
    const char *wanted_effort = getenv("BENCH_EFFORT");
    bool listing = argc == 2 && strcmp(argv[1], "list") == 0;
    if (!listing && (argc < 3 || argc > 4)) {
        fprintf(stderr, "usage: %s list | WORK PARAM [UNITS]\n", argv[0]);
        return EXIT_FAILURE;
    }
    if (wanted_effort)
        effort = strtod(wanted_effort, NULL);
    signal(SIGPIPE, SIG_IGN);
    units = argc == 4 ? strtoul(argv[3], NULL, 10) : 0;
    for (const struct work *work = works; work->name; work++) {
        if (listing) {
            printf("%s,%s\n", work->name, work->param);
        } else if (strcmp(work->name, argv[1]) == 0 && strcmp(work->param, argv[2]) == 0) {
            work->run(work);
            fflush(stdout);
            _exit(EXIT_SUCCESS); /* threads run and descriptors are open; the kernel cleans up */
        }
    }
    if (!listing)
        fprintf(stderr, "%s: does not do %s %s\n", argv[0], argv[1], argv[2]);
    return listing ? EXIT_SUCCESS : EXIT_FAILURE;
}

#endif
