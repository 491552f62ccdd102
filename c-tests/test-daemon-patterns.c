/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * A directory server was the original's big client. This is a daemon built on its patterns, at
 * load:
 *
 * - listeners are ACCEPT | PERSIST | PRESERVE_FD and signal jobs PERSIST, all in the loop;
 * - each connection has one READ | PRESERVE_FD job at a time, with an idle time-out, in the loop.
 *   It is done at the end of its own callback, after the next job for the same descriptor was
 *   added, in there or by a thread of the daemon's own; both hold the connection's mutex;
 * - a connection that is to end closes its descriptor while a job may still be armed on it.
 *   ns_job_done refuses that job, and nobody cares: it fires by its time-out, long after the
 *   number went to another connection;
 * - close jobs post themselves again until nobody refers to the connection any more;
 * - threads go on calling all this after shutdown, and after ns_thrpool_wait.
 *
 * Clients are processes of their own. Some are polite, some never speak, some vanish.
 */
#include "daemon-clients.h"

#include <nspr.h>
#include <private/pprio.h>
#include <sys/wait.h>

#define THREADS 4       /* of the daemon's own */
#define CLIENTS 2       /* processes */
#define CONNECTIONS 10000
#define PATIENT_SECONDS 20

enum { ALIVE = 0x600d600d, DEAD = 0x0bad0bad };

struct server;

struct connection {
    atomic_uint magic;
    pthread_mutex_t mutex;
    PRFileDesc *prfd;           /* NULL when closed */
    int fd;                     /* its number; a refused job may still be armed on it */
    struct ns_job_t *job;       /* the READ job that was added last, if it may still be named */
    struct timeval idle;
    int references;             /* jobs and orders */
    int turns;
    int closing;
    struct errand *errands;     /* all of this connection's */
    struct server *server;
    struct connection *next;
};

/* A job's data: the connection, and whether the done callback came as often as it should. Atomic,
 * so that tools that can't see into the library know what orders the accesses. */
struct errand {
    _Atomic(struct connection *) connection;
    atomic_int wanted;
    atomic_int told;
    int refused;                /* left armed on a closed descriptor; guarded by the mutex */
    struct errand *next;
};

/* What the daemon's threads are to do with a connection. */
struct order {
    struct connection *connection;
    void (*carry_out)(struct connection *connection);
    struct order *next;
};

struct listener {
    struct server *server;
    PRFileDesc *prfd;
    struct timeval idle;        /* of its connections */
    struct ns_job_t *job;
};

struct server {
    struct ns_thrpool_t *tp;
    int unarmed;                /* make jobs unarmed, to set their done callbacks first */
    int frees;                  /* free a job's data in its done callback */
    pthread_mutex_t lock;       /* for what follows */
    pthread_cond_t wanted;
    struct order *first;
    struct order **last;
    int no_more_orders;
    struct connection *connections;
};

/* What happened. */
static atomic_long inside, stopped, late_callbacks, callbacks_after_wait, doubled;
static atomic_long accepted, buried, timed_out, refusals, reused, refused_adds, done_after_wait;
static atomic_long own_jobs, own_jobs_gone;     /* listeners' and signals' */
static atomic_long errands_out;                 /* that are to be freed by a done callback */
static atomic_int stale_on[20000];
static atomic_int logs_started, logs_closed, logged_errors_here;

/*
 * Callbacks
 */

/* Each callback begins and ends with these: none may run once ns_thrpool_wait has returned. */
static void enter(void)
{
    atomic_fetch_add(&inside, 1);
    if (atomic_load(&stopped)) {
        atomic_fetch_add(&callbacks_after_wait, 1);
    }
}

static void leave(void)
{
    atomic_fetch_sub(&inside, 1);
}

static void errand_over(struct ns_job_t *job)
{
    struct errand *errand = ns_job_get_data(job);
    if (atomic_fetch_add(&errand->told, 1) != 0) {
        atomic_fetch_add(&doubled, 1);
    }
    if (atomic_load(&errand->connection)->server->frees) {
        /* A later callback would touch freed memory, which tools report. */
        atomic_fetch_sub(&errands_out, 1);
        free(errand);
    }
}

/* Does not touch the data, which is freed before. */
static void own_job_over(struct ns_job_t *job)
{
    UNUSED(job);
    atomic_fetch_add(&own_jobs_gone, 1);
}

/* With the original's interface, the done callback can be set only inside the callback. */
static struct connection *begin_errand(struct ns_job_t *job)
{
    struct errand *errand = ns_job_get_data(job);
    struct connection *connection = atomic_load(&errand->connection);
    if (atomic_load(&connection->magic) != ALIVE) {
        atomic_fetch_add(&late_callbacks, 1);
        return NULL;
    }
    if (!connection->server->unarmed && ns_job_set_done_cb(job, errand_over) == NS_SUCCESS) {
        atomic_store(&errand->wanted, 1);
    }
    return connection;
}

/*
 * Connections. Everything from here to the threads is called with the connection's mutex held.
 */

static struct errand *errand_for(struct connection *connection)
{
    struct errand *errand = calloc(1, sizeof *errand);
    atomic_store(&errand->connection, connection);
    if (connection->server->frees) {
        atomic_fetch_add(&errands_out, 1);
    } else {
        errand->next = connection->errands;
        connection->errands = errand;
    }
    return errand;
}

/* The errand of a job that could not be added. */
static void drop_errand(struct errand *errand)
{
    if (atomic_load(&errand->connection)->server->frees) {
        atomic_fetch_sub(&errands_out, 1);
        free(errand);
    }
}

/* Arm a job that was made unarmed, with its done callback. */
static ns_result_t arm_errand(struct ns_job_t *job, struct errand *errand)
{
    ns_job_set_done_cb(job, errand_over);
    atomic_store(&errand->wanted, 1);
    ns_result_t result = ns_job_rearm(job);
    if (result != NS_SUCCESS) {
        ns_job_done(job);
    }
    return result;
}

static void on_readable(struct ns_job_t *job);
static void on_closing(struct ns_job_t *job);

static ns_result_t post_read(struct connection *connection)
{
    struct server *server = connection->server;
    struct errand *errand = errand_for(connection);
    ns_job_type_t unarmed = server->unarmed ? NS_JOB_UNARMED : 0;
    ns_result_t result = ns_add_io_timeout_job(
        server->tp, connection->prfd, &connection->idle,
        NS_JOB_READ | NS_JOB_PRESERVE_FD | unarmed, on_readable, errand, &connection->job);
    if (result != NS_SUCCESS) {
        drop_errand(errand);
    } else if (unarmed) {
        result = arm_errand(connection->job, errand);
    }
    if (result == NS_SUCCESS) {
        connection->references++;
    } else {
        connection->job = NULL;
        atomic_fetch_add(&refused_adds, 1);
    }
    return result;
}

static void post_closing(struct connection *connection)
{
    struct server *server = connection->server;
    struct errand *errand = errand_for(connection);
    struct ns_job_t *job = NULL;
    ns_job_type_t unarmed = server->unarmed ? NS_JOB_UNARMED : 0;
    ns_result_t result = ns_add_job(server->tp, NS_JOB_TIMER | unarmed, on_closing, errand,
                                    unarmed ? &job : NULL);
    if (result != NS_SUCCESS) {
        drop_errand(errand);
    } else if (unarmed) {
        result = arm_errand(job, errand);
    }
    if (result == NS_SUCCESS) {
        connection->references++;
    } else {
        atomic_fetch_add(&refused_adds, 1);
    }
}

/* End the connection: close its descriptor now, and bury it when nobody refers to it any more. */
static void disconnect(struct connection *connection)
{
    if (connection->closing) {
        return;
    }
    connection->closing = 1;
    if (connection->job != NULL) {
        struct errand *errand = ns_job_get_data(connection->job);
        if (ns_job_done(connection->job) != NS_SUCCESS) {
            errand->refused = 1;
            atomic_fetch_add(&refusals, 1);
            atomic_fetch_add(&stale_on[connection->fd], 1);
        } else if (atomic_load(&stopped)) {
            atomic_fetch_add(&done_after_wait, 1);
        }
        connection->job = NULL;
    }
    PR_Close(connection->prfd);
    connection->prfd = NULL;
    post_closing(connection);
}

enum outcome { STAYS, LEAVES, GONE };

/* Read what is there and answer it. */
static enum outcome serve(struct connection *connection)
{
    char buffer[64];
    PRInt32 n = PR_Recv(connection->prfd, buffer, sizeof buffer, 0, PR_INTERVAL_NO_WAIT);
    if (n < 0) {
        return PR_GetError() == PR_WOULD_BLOCK_ERROR ? STAYS : GONE;
    }
    if (n == 0) {
        return GONE;
    }
    if (memchr(buffer, 'q', (size_t)n) != NULL) {
        return LEAVES;
    }
    PRInt32 sent = PR_Send(connection->prfd, buffer, n, 0, PR_INTERVAL_NO_WAIT);
    return sent < 0 && PR_GetError() != PR_WOULD_BLOCK_ERROR ? GONE : STAYS;
}

/*
 * The daemon's own threads
 */

static void give_order(struct connection *connection, void (*carry_out)(struct connection *))
{
    struct server *server = connection->server;
    struct order *order = calloc(1, sizeof *order);
    order->connection = connection;
    order->carry_out = carry_out;
    connection->references++;
    pthread_mutex_lock(&server->lock);
    *server->last = order;
    server->last = &order->next;
    pthread_cond_signal(&server->wanted);
    pthread_mutex_unlock(&server->lock);
}

static struct order *next_order(struct server *server)
{
    pthread_mutex_lock(&server->lock);
    while (server->first == NULL && !server->no_more_orders) {
        pthread_cond_wait(&server->wanted, &server->lock);
    }
    struct order *order = server->first;
    if (order != NULL) {
        server->first = order->next;
        if (server->first == NULL) {
            server->last = &server->first;
        }
    }
    pthread_mutex_unlock(&server->lock);
    return order;
}

static void *daemon_thread(void *arg)
{
    struct order *order;
    while ((order = next_order(arg)) != NULL) {
        struct connection *connection = order->connection;
        pthread_mutex_lock(&connection->mutex);
        order->carry_out(connection);
        connection->references--;
        pthread_mutex_unlock(&connection->mutex);
        free(order);
    }
    return NULL;
}

/* Serve, and add the next job, though the last job's callback may not have returned yet. */
static void serve_in_thread(struct connection *connection)
{
    if (connection->closing) {
        return;
    }
    enum outcome outcome = serve(connection);
    if (outcome == GONE || post_read(connection) != NS_SUCCESS || outcome == LEAVES) {
        disconnect(connection);
    }
}

/*
 * The loop
 */

static void on_readable(struct ns_job_t *job)
{
    enter();
    struct connection *connection = begin_errand(job);
    if (connection == NULL) {
        leave();
        return;
    }
    pthread_mutex_lock(&connection->mutex);
    struct errand *errand = ns_job_get_data(job);
    if (errand->refused) {
        atomic_fetch_sub(&stale_on[connection->fd], 1);
    }
    if (connection->job == job) {
        connection->job = NULL;
    }
    if (connection->closing) {
        /* A job whose done was refused has fired by its time-out. */
    } else if (NS_JOB_IS_TIMER(ns_job_get_output_type(job))) {
        atomic_fetch_add(&timed_out, 1);
        disconnect(connection);
    } else if (connection->turns++ % 2 == 1) {
        give_order(connection, serve_in_thread);
    } else {
        enum outcome outcome = serve(connection);
        if (outcome == GONE || post_read(connection) != NS_SUCCESS) {
            disconnect(connection);
        } else if (outcome == LEAVES) {
            give_order(connection, disconnect);
        }
    }
    connection->references--;
    pthread_mutex_unlock(&connection->mutex);
    ns_job_done(job);
    leave();
}

/* Nobody refers to the connection any more. Its memory stays until the end, so that a late use is
 * detected. */
static void bury(struct connection *connection)
{
    atomic_store(&connection->magic, DEAD);
    atomic_fetch_add(&buried, 1);
}

static void on_closing(struct ns_job_t *job)
{
    enter();
    struct connection *connection = begin_errand(job);
    if (connection == NULL) {
        leave();
        return;
    }
    pthread_mutex_lock(&connection->mutex);
    connection->references--;
    int last = connection->references == 0;
    if (!last) {
        post_closing(connection);
    }
    pthread_mutex_unlock(&connection->mutex);
    ns_job_done(job);
    if (last) {
        bury(connection);
    }
    leave();
}

static void on_connection(struct ns_job_t *job)
{
    enter();
    struct listener *listener = ns_job_get_data(job);
    struct server *server = listener->server;
    ns_job_set_done_cb(job, own_job_over);
    PRFileDesc *prfd;
    for (int i = 0; i < 32 && (prfd = PR_Accept(listener->prfd, NULL, PR_INTERVAL_NO_WAIT)); i++) {
        PRSocketOptionData option = {.option = PR_SockOpt_Nonblocking,
                                     .value.non_blocking = PR_TRUE};
        PR_SetSocketOption(prfd, &option);
        struct connection *connection = calloc(1, sizeof *connection);
        atomic_store(&connection->magic, ALIVE);
        pthread_mutex_init(&connection->mutex, NULL);
        connection->prfd = prfd;
        connection->fd = (int)PR_FileDesc2NativeHandle(prfd);
        connection->idle = listener->idle;
        connection->server = server;
        if (atomic_load(&stale_on[connection->fd]) > 0) {
            atomic_fetch_add(&reused, 1);
        }
        atomic_fetch_add(&accepted, 1);
        pthread_mutex_lock(&server->lock);
        connection->next = server->connections;
        server->connections = connection;
        pthread_mutex_unlock(&server->lock);
        pthread_mutex_lock(&connection->mutex);
        if (post_read(connection) != NS_SUCCESS) {
            disconnect(connection);
        }
        pthread_mutex_unlock(&connection->mutex);
    }
    leave();
}

static void on_signal(struct ns_job_t *job)
{
    enter();
    int *signum = ns_job_get_data(job);
    ns_job_set_done_cb(job, own_job_over);
    if (*signum == SIGTERM) {
        ns_thrpool_shutdown(ns_job_get_tp(job));
    }
    leave();
}

/*
 * The daemon
 */

static void count_log_start(void)
{
    atomic_fetch_add(&logs_started, 1);
}

static void count_log_close(void)
{
    atomic_fetch_add(&logs_closed, 1);
}

static void own_log(int priority, const char *format, va_list args)
{
    char line[1024];
    vsnprintf(line, sizeof line, format, args);
    if (priority <= LOG_ERR) {
        atomic_fetch_add(&logged_errors_here, 1);
        fprintf(stderr, "# %s", line);
    }
}

static PRFileDesc *listen_somewhere(int *port)
{
    PRFileDesc *prfd = PR_OpenTCPSocket(PR_AF_INET);
    PRSocketOptionData option = {.option = PR_SockOpt_Nonblocking, .value.non_blocking = PR_TRUE};
    PRNetAddr address;
    PR_InitializeNetAddr(PR_IpAddrLoopback, 0, &address);
    assert_non_null(prfd);
    assert_int_equal(PR_SetSocketOption(prfd, &option), PR_SUCCESS);
    assert_int_equal(PR_Bind(prfd, &address), PR_SUCCESS);
    assert_int_equal(PR_Listen(prfd, 4096), PR_SUCCESS);
    assert_int_equal(PR_GetSockName(prfd, &address), PR_SUCCESS);
    *port = PR_ntohs(PR_NetAddrInetPort(&address));
    return prfd;
}

/* Arm one of the daemon's own jobs, which live as long as it does. */
static void arm_own(struct server *server, struct ns_job_t *job)
{
    if (server->unarmed) {
        assert_int_equal(ns_job_set_done_cb(job, own_job_over), NS_SUCCESS);
        assert_int_equal(ns_job_rearm(job), NS_SUCCESS);
        atomic_fetch_add(&own_jobs, 1);
    }
}

static struct connection *all_connections(struct server *server)
{
    pthread_mutex_lock(&server->lock);
    struct connection *first = server->connections;
    pthread_mutex_unlock(&server->lock);
    return first;
}

/* End every n-th of the connections that are left. */
static void end_some(struct server *server, int n, int by_thread)
{
    int i = 0;
    for (struct connection *c = all_connections(server); c != NULL; c = c->next) {
        pthread_mutex_lock(&c->mutex);
        if (!c->closing && i++ % n == 0) {
            if (by_thread) {
                give_order(c, disconnect);
            } else {
                disconnect(c);
            }
        }
        pthread_mutex_unlock(&c->mutex);
    }
}

static void run_daemon(int unarmed, int frees)
{
    static const int signals[3] = {SIGINT, SIGTERM, SIGHUP};
    int connections = scaled(CONNECTIONS) / CLIENTS;
    struct server *server = calloc(1, sizeof *server);
    struct listener *listeners[2];
    struct ns_job_t *signal_jobs[3];
    int *signal_data[3];
    pthread_t threads[THREADS];
    pid_t clients[CLIENTS];
    int ports[2], ready[2];

    pool_end(pool_of(1)); /* tools open their own descriptors with the first pool */
    int fds = count_fds();
    long blocks = atomic_load(&blocks_out);
    atomic_store(&stopped, 0);
    atomic_store(&accepted, 0);
    atomic_store(&buried, 0);
    atomic_store(&own_jobs, 0);
    atomic_store(&own_jobs_gone, 0);
    atomic_store(&timed_out, 0);
    struct timeval idle[2] = {{PATIENT_SECONDS, 0}, {0, getenv("NS_SLOW") ? 400000 : 50000}};
    for (size_t i = 0; i < sizeof stale_on / sizeof stale_on[0]; i++) {
        atomic_store(&stale_on[i], 0);
    }

    server->unarmed = unarmed;
    server->frees = frees;
    pthread_mutex_init(&server->lock, NULL);
    pthread_cond_init(&server->wanted, NULL);
    server->last = &server->first;
    for (int i = 0; i < 2; i++) {
        listeners[i] = calloc(1, sizeof *listeners[i]);
        listeners[i]->server = server;
        listeners[i]->prfd = listen_somewhere(&ports[i]);
        listeners[i]->idle = idle[i];
    }
    assert_int_equal(pipe(ready), 0);
    for (int i = 0; i < CLIENTS; i++) {
        clients[i] = fork();
        assert_true(clients[i] >= 0);
        if (clients[i] == 0) {
            client(ports, connections, ready[1]);
        }
    }

    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.max_threads = 2;
    config.stacksize = 256 * 1024;
    config.log_fct = own_log;
    config.log_start_fct = count_log_start;
    config.log_close_fct = count_log_close;
    config.calloc_fct = counting_calloc;
    config.free_fct = counting_free;
    for (int i = 0; i < 3; i++) {
        signal_data[i] = malloc(sizeof(int));
        *signal_data[i] = signals[i];
    }
    server->tp = ns_thrpool_new(&config);
    assert_non_null(server->tp);
    ns_job_type_t with = unarmed ? NS_JOB_UNARMED : 0;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ns_add_signal_job(server->tp, signals[i], NS_JOB_PERSIST | with,
                                           on_signal, signal_data[i], &signal_jobs[i]),
                         NS_SUCCESS);
        arm_own(server, signal_jobs[i]);
    }
    for (int i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_create(&threads[i], NULL, daemon_thread, server), 0);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(
            ns_add_io_job(server->tp, listeners[i]->prfd,
                          NS_JOB_ACCEPT | NS_JOB_PERSIST | NS_JOB_PRESERVE_FD | with,
                          on_connection, listeners[i], &listeners[i]->job),
            NS_SUCCESS);
        arm_own(server, listeners[i]->job);
    }

    /* Wait until all clients are connected. Some are still busy. */
    for (int i = 0; i < CLIENTS; i++) {
        char byte;
        struct pollfd told = {ready[0], POLLIN, 0};
        assert_int_equal(poll(&told, 1, 4 * LIMIT_SECONDS * 1000), 1);
        assert_int_equal(read(ready[0], &byte, 1), 1);
    }
    kill(getpid(), SIGHUP);
    kill(getpid(), SIGTERM);
    EVENTUALLY(ns_thrpool_is_shutdown(server->tp));
    kill(getpid(), SIGINT);
    end_some(server, 3, 0);
    assert_int_equal(ns_thrpool_wait(server->tp), NS_SUCCESS);
    atomic_store(&stopped, 1);
    assert_int_equal(atomic_load(&inside), 0);
    assert_int_equal(ns_thrpool_wait(server->tp), NS_SUCCESS);

    /* The clients go on, and so do the daemon's threads. */
    end_some(server, 2, 1);
    end_some(server, 1, 0);
    pthread_mutex_lock(&server->lock);
    server->no_more_orders = 1;
    pthread_cond_broadcast(&server->wanted);
    pthread_mutex_unlock(&server->lock);
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ns_job_done(listeners[i]->job), NS_SUCCESS);
        assert_int_equal(PR_Close(listeners[i]->prfd), PR_SUCCESS);
        free(listeners[i]);
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ns_job_done(signal_jobs[i]), NS_SUCCESS);
        free(signal_data[i]);
    }
    for (struct connection *c = all_connections(server); c != NULL; c = c->next) {
        if (atomic_load(&c->magic) == ALIVE) {
            bury(c);
        }
    }
    ns_thrpool_destroy(server->tp);

    for (int i = 0; i < CLIENTS; i++) {
        int status;
        assert_int_equal(waitpid(clients[i], &status, 0), clients[i]);
        assert_int_equal(status, 0);
    }
    for (int i = 0; i < 3; i++) {
        struct sigaction now;
        assert_int_equal(sigaction(signals[i], NULL, &now), 0);
        assert_ptr_equal(now.sa_handler, SIG_DFL);
    }
    close(ready[0]);
    close(ready[1]);
    assert_int_equal(count_fds(), fds);
    assert_int_equal(atomic_load(&blocks_out), blocks);
    assert_int_equal(atomic_load(&logs_started), atomic_load(&logs_closed));
    assert_int_equal(atomic_load(&logged_errors_here), 0);
    assert_int_equal(atomic_load(&inside), 0);
    assert_int_equal(atomic_load(&callbacks_after_wait), 0);
    assert_int_equal(atomic_load(&late_callbacks), 0);
    assert_int_equal(atomic_load(&doubled), 0);
    assert_int_equal(atomic_load(&errands_out), 0);
    assert_int_equal(atomic_load(&accepted), atomic_load(&buried));
    assert_true(atomic_load(&accepted) >= CLIENTS * connections);
    assert_true(atomic_load(&timed_out) >= CLIENTS * connections / KINDS);
    assert_true(atomic_load(&own_jobs_gone) >= atomic_load(&own_jobs));
    assert_true(atomic_load(&own_jobs_gone) <= 5);
    long jobs = 0;
    for (struct connection *c = server->connections, *next; c != NULL; c = next) {
        for (struct errand *e = c->errands, *after; e != NULL; e = after) {
            assert_int_equal(atomic_load(&e->told), atomic_load(&e->wanted));
            after = e->next;
            jobs++;
            free(e);
        }
        next = c->next;
        pthread_mutex_destroy(&c->mutex);
        free(c);
    }
    print_message("# %ld connections, %ld jobs; so far %ld time-outs, %ld refusals of done, "
                  "%ld numbers reused under an armed job, %ld refused adds\n",
                  atomic_load(&accepted), jobs, atomic_load(&timed_out), atomic_load(&refusals),
                  atomic_load(&reused), atomic_load(&refused_adds));
    pthread_mutex_destroy(&server->lock);
    pthread_cond_destroy(&server->wanted);
    free(server);
}

TEST(a_daemon_that_uses_what_the_original_had)
{
    run_daemon(0, 0);
}

TEST(a_daemon_that_sees_every_job_go)
{
    run_daemon(1, 0);
}

/* To see it fail: in run::dispose, call the done callback twice. */
TEST(a_daemon_that_frees_what_a_job_has_when_it_goes)
{
    run_daemon(1, 1);
}

/* The runs above met every case that they are meant to meet. */
TEST(nothing_was_spared)
{
    assert_true(atomic_load(&refusals) > 0);
    assert_true(atomic_load(&refused_adds) > 0);
    assert_true(atomic_load(&done_after_wait) > 0);
    /* With few connections, perhaps no number was reused. */
    assert_true(atomic_load(&reused) > 0 || scaled(CONNECTIONS) < CONNECTIONS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_daemon_that_uses_what_the_original_had),
        cmocka_unit_test(a_daemon_that_sees_every_job_go),
        cmocka_unit_test(a_daemon_that_frees_what_a_job_has_when_it_goes),
        cmocka_unit_test(nothing_was_spared),
    };
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max < 20000 ? files.rlim_max : 20000;
    setrlimit(RLIMIT_NOFILE, &files);
    PR_Init(PR_USER_THREAD, PR_PRIORITY_NORMAL, 0);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
