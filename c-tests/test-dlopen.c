/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The library loaded privately (RTLD_LOCAL), as a plugin's dependency is: with NSPR in the process
 * publicly, privately, not at all, or only later. This program is linked with neither; each case
 * runs in a process of its own. NS_LIBRARY names the library, if it is not the one in build/lib.
 */
#include "harness.h"

#include <dlfcn.h>
#include <sys/wait.h>

/* The library's functions, as far as they are used here. */
static __typeof__(&ns_thrpool_config_init) config_init;
static __typeof__(&ns_thrpool_new) pool_new;
static __typeof__(&ns_thrpool_shutdown) pool_shutdown;
static __typeof__(&ns_thrpool_wait) pool_wait;
static __typeof__(&ns_thrpool_destroy) pool_destroy;
static __typeof__(&ns_add_job) add_job;
static __typeof__(&ns_add_io_job) add_io_job;
static __typeof__(&ns_add_fd_job) add_fd_job;
static __typeof__(&ns_add_signal_job) add_signal_job;
static __typeof__(&ns_job_cancel) job_cancel;
static __typeof__(&ns_job_get_data) get_data;
static __typeof__(&ns_job_get_fd) get_fd;
static __typeof__(&ns_job_done) job_done;
static __typeof__(&ns_version) version;

/* NSPR's functions. */
static struct PRFileDesc *(*import_socket)(intptr_t fd);

static void *symbol(void *handle, const char *name)
{
    void *found = dlsym(handle, name);
    if (found == NULL) {
        fail_msg("%s", dlerror());
    }
    return found;
}

/* POSIX's way to get a function from dlsym. */
#define RESOLVE(handle, pointer, name) (*(void **)(&(pointer)) = symbol((handle), (name)))

static void *load_library(void)
{
    const char *file = getenv("NS_LIBRARY");
    void *handle = dlopen(file != NULL ? file : "build/lib/libnunc-stans.so.0",
                          RTLD_NOW | RTLD_LOCAL);
    if (handle == NULL) {
        fail_msg("%s", dlerror());
    }
    RESOLVE(handle, config_init, "ns_thrpool_config_init");
    RESOLVE(handle, pool_new, "ns_thrpool_new");
    RESOLVE(handle, pool_shutdown, "ns_thrpool_shutdown");
    RESOLVE(handle, pool_wait, "ns_thrpool_wait");
    RESOLVE(handle, pool_destroy, "ns_thrpool_destroy");
    RESOLVE(handle, add_job, "ns_add_job");
    RESOLVE(handle, add_io_job, "ns_add_io_job");
    RESOLVE(handle, add_fd_job, "ns_add_fd_job");
    RESOLVE(handle, add_signal_job, "ns_add_signal_job");
    RESOLVE(handle, job_cancel, "ns_job_cancel");
    RESOLVE(handle, get_data, "ns_job_get_data");
    RESOLVE(handle, get_fd, "ns_job_get_fd");
    RESOLVE(handle, job_done, "ns_job_done");
    RESOLVE(handle, version, "ns_version");
    /* So the library was loaded privately. */
    assert_null(dlsym(RTLD_DEFAULT, "ns_thrpool_new"));
    return handle;
}

static void load_nspr(int how)
{
    void *handle = dlopen("libnspr4.so", RTLD_NOW | how);
    if (handle == NULL) {
        fail_msg("%s", dlerror());
    }
    RESOLVE(handle, import_socket, "PR_ImportTCPSocket");
}

/* Whether a file is mapped whose name contains this. */
static int is_mapped(const char *name)
{
    char line[4096];
    int found = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    assert_non_null(maps);
    while (fgets(line, sizeof line, maps) != NULL) {
        found |= strstr(line, name) != NULL;
    }
    fclose(maps);
    return found;
}

static struct ns_thrpool_t *start_pool(void)
{
    struct ns_thrpool_config config;
    config_init(&config);
    config.max_threads = 2;
    config.log_fct = recording_log;
    struct ns_thrpool_t *tp = pool_new(&config);
    assert_non_null(tp);
    return tp;
}

static void end_pool(struct ns_thrpool_t *tp)
{
    pool_shutdown(tp);
    assert_int_equal(pool_wait(tp), NS_SUCCESS);
    pool_destroy(tp);
}

/* A callback: count, and finish. */
static void count_and_end(struct ns_job_t *job)
{
    latch_add(get_data(job), 1);
    job_done(job);
}

/* A run-now job, and one on a plain descriptor, which it closes. */
static void use_without_nspr(struct ns_thrpool_t *tp)
{
    struct latch runs = LATCH_INIT;
    int ends[2];
    socket_pair(ends);
    assert_int_equal(add_job(tp, NS_JOB_THREAD, count_and_end, &runs, NULL), NS_SUCCESS);
    assert_int_equal(add_fd_job(tp, ends[0], NS_JOB_READ, count_and_end, &runs, NULL),
                     NS_SUCCESS);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_latch(&runs, 2);
    EVENTUALLY(!fd_is_open(ends[0]));
    close(ends[1]);
}

/* A job on a descriptor of NSPR's, which it closes. */
static void use_with_nspr(struct ns_thrpool_t *tp)
{
    struct latch runs = LATCH_INIT;
    struct ns_job_t *job = NULL;
    int ends[2];
    socket_pair(ends);
    struct PRFileDesc *prfd = import_socket(ends[0]);
    assert_non_null(prfd);
    assert_int_equal(add_io_job(tp, prfd, NS_JOB_READ | NS_JOB_THREAD, count_and_end, &runs,
                                &job), NS_SUCCESS);
    assert_ptr_equal(get_fd(job), prfd);
    assert_int_equal(write(ends[1], "x", 1), 1);
    assert_latch(&runs, 1);
    EVENTUALLY(!fd_is_open(ends[0]));
    close(ends[1]);
}

/* Without NSPR in the process, nothing can be one of its descriptors. */
static void refuses_nspr(struct ns_thrpool_t *tp)
{
    static char something[64];
    struct ns_job_t *job = (struct ns_job_t *)something;
    int before = count_logged_errors();
    assert_int_equal(add_io_job(tp, (struct PRFileDesc *)something, NS_JOB_READ,
                                count_and_end, NULL, &job), NS_INVALID_REQUEST);
    assert_null(job);
    assert_int_equal(count_logged_errors(), before + 1);
    assert_true(logged("ns_add_io_job"));
    assert_true(logged("NSPR"));
}

TEST(nspr_is_public)
{
    load_nspr(RTLD_GLOBAL);
    load_library();
    struct ns_thrpool_t *tp = start_pool();
    use_without_nspr(tp);
    use_with_nspr(tp);
    end_pool(tp);
}

TEST(nspr_is_private)
{
    load_nspr(RTLD_LOCAL);
    load_library();
    struct ns_thrpool_t *tp = start_pool();
    use_without_nspr(tp);
    use_with_nspr(tp);
    end_pool(tp);
}

TEST(nspr_is_not_there)
{
    load_library();
    struct ns_thrpool_t *tp = start_pool();
    use_without_nspr(tp);
    refuses_nspr(tp);
    end_pool(tp);
    assert_false(is_mapped("nspr"));
}

static void nspr_comes_later(int how)
{
    load_library();
    struct ns_thrpool_t *tp = start_pool();
    refuses_nspr(tp);
    load_nspr(how);
    use_with_nspr(tp);
    end_pool(tp);
}

TEST(nspr_comes_later_and_public)
{
    nspr_comes_later(RTLD_GLOBAL);
}

TEST(nspr_comes_later_and_private)
{
    nspr_comes_later(RTLD_LOCAL);
}

/* dlclose does not unload the library: its threads and handlers outlive it. */
TEST(dlclose_leaves_it_working)
{
    void *handle = load_library();
    struct ns_thrpool_t *tp = start_pool();
    use_without_nspr(tp);
    assert_int_equal(dlclose(handle), 0);
    assert_true(is_mapped("libnunc-stans.so"));
    use_without_nspr(tp);
    end_pool(tp);
    tp = start_pool();
    use_without_nspr(tp);
    end_pool(tp);
    const char *before = version();
    load_library();
    assert_ptr_equal(version(), before);
}

/* The program registers fork handlers before it loads the library, and they take a lock that is
 * held during an add. Handlers of the library's that prepare a fork would run before them. */
static pthread_mutex_t program = PTHREAD_MUTEX_INITIALIZER;
static atomic_int stop_adding;

static void take_lock(void)
{
    pthread_mutex_lock(&program);
}

static void give_lock_back(void)
{
    pthread_mutex_unlock(&program);
}

static void *add_under_the_lock(void *tp)
{
    while (!atomic_load(&stop_adding)) {
        struct ns_job_t *job = NULL;
        pthread_mutex_lock(&program);
        ns_result_t result = add_signal_job(tp, SIGUSR1, 0, count_and_end, NULL, &job);
        pthread_mutex_unlock(&program);
        if (result != NS_SUCCESS || job_cancel(job) != NS_SUCCESS) {
            abort();
        }
    }
    return NULL;
}

TEST(fork_handlers_from_before_the_load_take_a_lock_held_over_adds)
{
    pthread_t thread;
    assert_int_equal(pthread_atfork(take_lock, give_lock_back, give_lock_back), 0);
    load_library();
    struct ns_thrpool_t *tp = start_pool();
    atomic_store(&stop_adding, 0);
    assert_int_equal(pthread_create(&thread, NULL, add_under_the_lock, tp), 0);
    alarm(LIMIT_SECONDS); /* a fork that hangs */
    for (int i = 0; i < scaled(1000); i++) {
        int status = -1;
        pid_t child = fork();
        if (child == 0) {
            _exit(0);
        }
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_int_equal(status, 0);
    }
    alarm(0);
    atomic_store(&stop_adding, 1);
    pthread_join(thread, NULL);
    end_pool(tp);
}

/* The program as the child: run one case. */
static const struct CMUnitTest cases[] = {
    cmocka_unit_test(nspr_is_public),
    cmocka_unit_test(nspr_is_private),
    cmocka_unit_test(nspr_is_not_there),
    cmocka_unit_test(nspr_comes_later_and_public),
    cmocka_unit_test(nspr_comes_later_and_private),
    cmocka_unit_test(dlclose_leaves_it_working),
    cmocka_unit_test(fork_handlers_from_before_the_load_take_a_lock_held_over_adds),
};

enum { CASES = sizeof cases / sizeof cases[0] };

static int run_case(const char *name)
{
    for (int i = 0; i < CASES; i++) {
        if (strcmp(cases[i].name, name) == 0) {
            const struct CMUnitTest one[] = {cases[i]};
            return cmocka_run_group_tests(one, NULL, NULL);
        }
    }
    return EXIT_FAILURE;
}

/* The program as the parent: run one case in a child. */
static void in_a_process_of_its_own(void **state)
{
    const struct CMUnitTest *test = *state;
    if (getenv("NS_NO_NSPR") != NULL && strncmp(test->name, "nspr_", 5) == 0 &&
        strcmp(test->name, "nspr_is_not_there") != 0) {
        skip(); /* There is none of this architecture. */
    }
    char self[4096] = "";
    assert_true(readlink("/proc/self/exe", self, sizeof self - 1) > 0);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        /* Keep the child's TAP lines out of ours. */
        setenv("CMOCKA_MESSAGE_OUTPUT", "STDOUT", 1);
        execl(self, self, test->name, (char *)NULL);
        _exit(EXIT_FAILURE);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        return run_case(argv[1]);
    }
    struct CMUnitTest tests[CASES];
    for (int i = 0; i < CASES; i++) {
        tests[i] = (struct CMUnitTest){cases[i].name, in_a_process_of_its_own, NULL, NULL,
                                       (void *)&cases[i]};
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
