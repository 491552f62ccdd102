/* SPDX-License-Identifier: GPL-3.0-or-later */
/* nunc-stans-libpq.h, against the PostgreSQL of test-libpq.sh: libpq CONNINFO, or libpq CONNINFO crash,
 * which says "ready" and expects the server to be killed. */
#include "harness.h"

#include "nunc-stans-libpq.h"

static const char *conninfo;
enum { MOST = 10 };

struct client {
    struct ns_group_t *group;
    struct pqNuncStans *pq;
    atomic_int up, down, ended, failed, wrong, inside, freed, null;
    const char *sql;
    int left, rows, free_in_result;
    char number[16];
    char *large;
};
static ns_thrpool_t *tp;
static struct client clients[MOST];

static void send_next(struct client *c);

static void on_result(struct pqNuncStans *self, PGresult *result, void *data)
{
    struct client *c = data;
    if (atomic_fetch_add(&c->inside, 1) != 0 || self != c->pq || !ns_group_is_current(c->group))
        atomic_fetch_add(&c->wrong, 1);
    if (c->free_in_result) {
        pqNuncStansFree(self);
        c->pq = NULL;
        atomic_fetch_add(&c->freed, 1);
    } else if (result == NULL) {
        atomic_fetch_add(&c->ended, 1);
        if (--c->left > 0)
            send_next(c);
    } else if (PQresultStatus(result) == PGRES_TUPLES_OK) {
        c->rows += PQntuples(result);
        if (PQnparams(result) == 0 && c->large == NULL && PQnfields(result) == 1 &&
            atoi(PQgetvalue(result, 0, 0)) != c->left + 1)
            atomic_fetch_add(&c->wrong, 1);
        if (c->large != NULL && strcmp(PQgetvalue(result, 0, 0), c->large) != 0)
            atomic_fetch_add(&c->wrong, 1);
    } else {
        atomic_fetch_add(&c->failed, 1);
    }
    atomic_fetch_sub(&c->inside, 1);
}

static void send_next(struct client *c)
{
    snprintf(c->number, sizeof c->number, "%d", c->left);
    const char *values[] = {c->large != NULL ? c->large : c->number};
    int n = strchr(c->sql, '$') != NULL;
    /* On a connection that is lost it is refused. */
    if (!pqNuncStansQuery(c->pq, c->sql, n, values, on_result, c) && c->down == 0 &&
        PQstatus(c->pq->conn) == CONNECTION_OK)
        atomic_fetch_add(&c->wrong, 1);
}

static void on_state(struct pqNuncStans *self, int up)
{
    struct client *c = self->data;
    if (up) {
        c->pq = self;
        atomic_fetch_add(&c->up, 1);
        if (c->left > 0)
            send_next(c);
    } else {
        pqNuncStansFree(self);
        c->pq = NULL;
        atomic_fetch_add(&c->down, 1);
    }
}

static void begin(struct ns_job_t *job)
{
    struct client *c = ns_job_get_data(job);
    c->pq = pqNuncStansConnect(c->group, conninfo, on_state, c);
    if (c->pq == NULL)
        atomic_fetch_add(&c->null, 1);
    ns_job_done(job);
}

static void begin_wrong(struct ns_job_t *job)
{
    struct client *c = ns_job_get_data(job);
    if (pqNuncStansConnect(c->group, "host=/nowhere-at-all user=x", on_state, c) == NULL)
        atomic_fetch_add(&c->null, 1);
    ns_job_done(job);
}

static void free_it(struct ns_job_t *job)
{
    struct client *c = ns_job_get_data(job);
    if (c->pq != NULL)
        pqNuncStansFree(c->pq);
    c->pq = NULL;
    atomic_fetch_add(&c->freed, 1);
    ns_job_done(job);
}

static void post(struct client *c, ns_job_func_t func)
{
    assert_int_equal(ns_add_group_job(c->group, NS_JOB_THREAD, func, c, NULL), NS_SUCCESS);
}

static void all(const char *sql, int queries)
{
    for (int i = 0; i < MOST; i++) {
        clients[i].sql = sql;
        clients[i].left = queries;
        post(&clients[i], begin);
    }
}

static int setup(void **state)
{
    UNUSED(state);
    struct ns_thrpool_config config;
    memset(clients, 0, sizeof clients);
    ns_thrpool_config_init(&config);
    config.max_threads = 3;
    tp = ns_thrpool_new(&config);
    for (int i = 0; i < MOST; i++)
        if (tp == NULL || ns_group_new(tp, 1, NULL, NULL, &clients[i].group) != NS_SUCCESS)
            return 1;
    return 0;
}

static int teardown(void **state)
{
    UNUSED(state);
    ns_thrpool_shutdown(tp);
    ns_thrpool_wait(tp);
    int wrong = 0;
    for (int i = 0; i < MOST; i++) {
        if (clients[i].pq != NULL)
            pqNuncStansFree(clients[i].pq);
        ns_group_release(clients[i].group);
        wrong += clients[i].wrong;
    }
    ns_thrpool_destroy(tp);
    return wrong;
}

TEST(queries_one_after_the_other_on_ten_connections)
{
    all("SELECT $1::int + 1", 200);
    for (int i = 0; i < MOST; i++) {
        EVENTUALLY(clients[i].ended == 200);
        assert_int_equal(clients[i].rows, 200);
        assert_int_equal(clients[i].up, 1);
        assert_int_equal(clients[i].failed + clients[i].down, 0);
    }
}

TEST(what_is_large_goes_both_ways)
{
    struct client *c = &clients[0];
    c->large = malloc(8000001);
    memset(c->large, 'x', 8000000);
    c->large[8000000] = '\0';
    c->sql = "SELECT $1::text";
    c->left = 3;
    post(c, begin);
    EVENTUALLY(c->ended == 3);
    assert_int_equal(c->rows, 3);
    post(c, free_it);
    EVENTUALLY(c->freed == 1);
    free(c->large);
}

TEST(an_error_of_a_query_is_its_result)
{
    all("SELECT 1 / 0", 5);
    for (int i = 0; i < MOST; i++) {
        EVENTUALLY(clients[i].ended == 5);
        assert_int_equal(clients[i].failed, 5);
        assert_int_equal(clients[i].down, 0);
    }
}

TEST(the_server_ends_a_connection)
{
    all("SELECT pg_terminate_backend(pg_backend_pid())", 1);
    for (int i = 0; i < MOST; i++) {
        EVENTUALLY(clients[i].down == 1);
        assert_int_equal(clients[i].ended, 1); /* the query that was under way is told */
        assert_true(clients[i].failed >= 1);
    }
}

TEST(idle_connections_hear_of_their_end)
{
    for (int i = 1; i < MOST; i++) {
        clients[i].sql = "";
        post(&clients[i], begin);
    }
    for (int i = 1; i < MOST; i++)
        EVENTUALLY(clients[i].up == 1);
    struct client *c = &clients[0];
    c->sql = "SELECT pg_terminate_backend(pid), 1 FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
             "AND backend_type = 'client backend'";
    c->left = 1;
    post(c, begin);
    for (int i = 1; i < MOST; i++)
        EVENTUALLY(clients[i].down == 1);
    EVENTUALLY(c->ended == 1);
    assert_int_equal(c->down, 0);
}

TEST(freed_at_any_point)
{
    for (int round = 0; round < 20; round++) {
        all(round % 2 ? "SELECT $1::int + 1" : "SELECT pg_sleep(0.05)", 1000000);
        struct timespec pause = {0, round * 1000000};
        nanosleep(&pause, NULL);
        for (int i = 0; i < MOST; i++)
            post(&clients[i], free_it);
        for (int i = 0; i < MOST; i++)
            EVENTUALLY(clients[i].freed == round + 1);
        for (int i = 0; i < MOST; i++)
            assert_null(clients[i].pq);
    }
    /* The server still takes in those that were given up. While too many wait, it refuses others. */
    struct client *c = &clients[0];
    c->sql = "SELECT 1";
    c->left = 0;
    for (int up = c->up, tries = 0; c->up == up; tries++) {
        struct timespec pause = {0, 10000000};
        nanosleep(&pause, NULL);
        assert_true(tries < 1000);
        int told = c->null + c->down;
        post(c, begin);
        EVENTUALLY(c->up > up || c->null + c->down > told);
    }
}

TEST(freed_in_its_own_callback)
{
    for (int i = 0; i < MOST; i++)
        clients[i].free_in_result = 1;
    all("SELECT $1::int + 1", 10);
    for (int i = 0; i < MOST; i++) {
        EVENTUALLY(clients[i].freed == 1);
        assert_int_equal(clients[i].down, 0);
    }
}

TEST(nobody_listens)
{
    for (int i = 0; i < MOST; i++)
        post(&clients[i], begin_wrong);
    for (int i = 0; i < MOST; i++)
        EVENTUALLY(clients[i].null + clients[i].down == 1);
    assert_null(pqNuncStansConnect(clients[0].group, conninfo, on_state, NULL)); /* outside the group */
}

TEST(copy_counts_as_lost)
{
    all("COPY pg_am TO STDOUT", 1);
    for (int i = 0; i < MOST; i++)
        EVENTUALLY(clients[i].down == 1);
}

TEST(a_pool_ends_with_queries_under_way)
{
    all("SELECT pg_sleep(60)", 1);
    for (int i = 0; i < MOST; i++)
        EVENTUALLY(clients[i].up == 1);
}

TEST(the_server_is_killed)
{
    all("SELECT pg_sleep(60)", 10);
    for (int i = 0; i < MOST; i++)
        EVENTUALLY(clients[i].up == 1);
    printf("# ready\n");
    fflush(stdout);
    for (int i = 0; i < MOST; i++) {
        EVENTUALLY(clients[i].down == 1);
        assert_int_equal(clients[i].failed, 1);
    }
}

int main(int argc, char **argv)
{
    conninfo = argv[1];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(queries_one_after_the_other_on_ten_connections, setup, teardown),
        cmocka_unit_test_setup_teardown(what_is_large_goes_both_ways, setup, teardown),
        cmocka_unit_test_setup_teardown(an_error_of_a_query_is_its_result, setup, teardown),
        cmocka_unit_test_setup_teardown(the_server_ends_a_connection, setup, teardown),
        cmocka_unit_test_setup_teardown(idle_connections_hear_of_their_end, setup, teardown),
        cmocka_unit_test_setup_teardown(freed_at_any_point, setup, teardown),
        cmocka_unit_test_setup_teardown(freed_in_its_own_callback, setup, teardown),
        cmocka_unit_test_setup_teardown(nobody_listens, setup, teardown),
        cmocka_unit_test_setup_teardown(copy_counts_as_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(a_pool_ends_with_queries_under_way, setup, teardown),
    };
    const struct CMUnitTest crash[] = {
        cmocka_unit_test_setup_teardown(the_server_is_killed, setup, teardown),
    };
    return argc > 2 ? cmocka_run_group_tests(crash, NULL, NULL) : cmocka_run_group_tests(tests, NULL, NULL);
}
