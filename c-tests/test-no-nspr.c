/* SPDX-License-Identifier: GPL-3.0-or-later */
/* A program that is neither linked with NSPR nor compiled with its header, and loads it later. */
#define NS_NO_NSPR
#include "harness.h"

#include <dlfcn.h>

/* Whether libnspr4 is in this process. */
static int nspr_is_loaded(void)
{
    char line[1024];
    int found = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    assert_non_null(maps);
    while (fgets(line, sizeof(line), maps) != NULL) {
        found |= strstr(line, "libnspr4") != NULL;
    }
    fclose(maps);
    return found;
}

static struct ns_thrpool_t *logging_pool(void)
{
    return pool_logging_to(1, recording_log);
}

TEST(library_neither_links_nor_loads_nspr)
{
    assert_false(nspr_is_loaded());
    struct ns_thrpool_t *tp = pool_of(1);
    int ends[2];
    socket_pair(ends);
    struct probe probe = PROBE(finish_job, ends[0]);
    probe_fd(tp, NS_JOB_READ, 0, &probe);
    close(ends[1]);
    assert_latch(&probe.disposals, 1);
    pool_end(tp);
    assert_false(nspr_is_loaded());
}

TEST(nspr_descriptor_is_refused_and_logged_where_there_is_no_nspr)
{
    struct ns_thrpool_t *tp = logging_pool();
    struct timeval tv = {1, 0};
    struct PRFileDesc *fd = (struct PRFileDesc *)&tv;
    for (int i = 0; i < 4; i++) {
        struct ns_job_t *job = (struct ns_job_t *)&tv;
        int errors = count_logged_errors();
        ns_result_t result =
            i % 2 ? ns_add_io_job(tp, fd, NS_JOB_READ, finish_job, NULL, &job)
                  : ns_add_io_timeout_job(tp, fd, &tv, NS_JOB_READ, finish_job, NULL, &job);
        assert_int_equal(result, NS_INVALID_REQUEST);
        assert_null(job);
        assert_int_equal(count_logged_errors(), errors + 1);
        assert_non_null(strstr(logged_last, "NSPR"));
        assert_non_null(strstr(logged_last, i % 2 ? "ns_add_io_job" : "ns_add_io_timeout_job"));
    }
    pool_end(tp);
    assert_false(nspr_is_loaded());
}

TEST(nspr_that_is_loaded_privately_afterwards_is_found)
{
    struct ns_thrpool_t *tp = logging_pool();
    void *nspr = dlopen("libnspr4.so", RTLD_NOW | RTLD_LOCAL);
    if (nspr == NULL) {
        print_message("# skipped: %s\n", dlerror());
        pool_end(tp);
        skip();
    }
    assert_null(dlsym(RTLD_DEFAULT, "PR_Close"));
    struct PRFileDesc *(*import)(int32_t);
    *(void **)&import = dlsym(nspr, "PR_ImportTCPSocket");
    int ends[2];
    socket_pair(ends);
    struct PRFileDesc *fd = import(ends[0]);
    assert_non_null(fd);
    struct probe probe = PROBE(finish_job, -1);
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_io_job(tp, fd, NS_JOB_READ | NS_JOB_UNARMED, probe_run, &probe, &job),
                     NS_SUCCESS);
    assert_ptr_equal(ns_job_get_fd(job), fd);
    assert_int_equal(ns_job_get_native_fd(job), ends[0]);
    probe_arm(job);
    close(ends[1]);
    assert_latch(&probe.disposals, 1);
    assert_int_equal(latch_count(&probe.runs), 1);
    assert_false(fd_is_open(ends[0]));
    pool_end(tp);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(library_neither_links_nor_loads_nspr),
        cmocka_unit_test(nspr_descriptor_is_refused_and_logged_where_there_is_no_nspr),
        cmocka_unit_test(nspr_that_is_loaded_privately_afterwards_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
