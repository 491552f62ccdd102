/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What broke the original, shown absent: a job on its way from the caller to the thread that runs
 * it.
 *
 * Each test is named for its row in docs/RELIABILITY.md, and says what to take out of the library
 * to see it fail.
 */
#include "fm.h"

#include <dlfcn.h>

static void add_to_and_finish(struct ns_job_t *job)
{
    atomic_fetch_add((atomic_long *)ns_job_get_data(job), 1);
    ns_job_done(job);
}

/* The thread that last ran a job. */
static atomic_int worker_tid;

/* Reports its run just before it returns. */
static void tell_and_finish(struct ns_job_t *job)
{
    static uint64_t sequence; /* one worker runs it */
    atomic_long *told = ns_job_get_data(job);
    atomic_store_explicit(&worker_tid, (int)gettid(), memory_order_relaxed);
    ns_job_done(job);
    atomic_fetch_add(told, 1);
    hesitate(&sequence, 1024);
}

/* How often a thread has gone to sleep, by the kernel's count; -1 if the kernel does not count. */
static long sleeps_of(int tid)
{
    char path[64], line[128];
    long count = -1;
    snprintf(path, sizeof path, "/proc/self/task/%d/status", tid);
    FILE *file = fopen(path, "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        if (sscanf(line, "voluntary_ctxt_switches: %ld", &count) == 1) {
            break;
        }
    }
    if (file != NULL) {
        fclose(file);
    }
    return count;
}

/*
 * One job at a time. The next is added a moment after the last has reported: before its callback
 * returns, or while the worker looks for more, goes to sleep, or sleeps. The moments reach beyond
 * the two microseconds for which a worker looks.
 *
 * With NS_COUNT=full, until the worker has slept ten million times.
 *
 * To see it fail: in WorkQueue::next, sleep without the second look at the queue.
 */
TEST(fm01_no_job_is_stranded_by_a_worker_that_goes_to_sleep)
{
    struct ns_thrpool_t *tp = pool_of(1);
    uint64_t sequence = run_seed();
    atomic_long told = 0;
    long jobs = count_of(150000, 10000000);
    long wanted = count_of(0, 10000000);
    long slept = 0;
    double begin = now_seconds();
    for (long i = 1; i <= jobs || (slept >= 0 && slept < wanted); i++) {
        assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, tell_and_finish, &told, NULL), NS_SUCCESS);
        AT_ONCE(atomic_load(&told) == i);
        SOON(atomic_load(&told) == i);
        hesitate(&sequence, 16384);
        if (i % 4096 == 0 || i == jobs) {
            slept = sleeps_of(atomic_load(&worker_tid));
        }
    }
    pool_end(tp);
    print_message("# %ld hand-offs, the worker had gone to sleep before %ld, in %.0f s\n",
                  atomic_load(&told), slept, now_seconds() - begin);
    assert_true(slept < 0 || slept > 0);
}

/* As above, with bursts of a few jobs for several workers, some asleep and some going to sleep. */
TEST(fm01_no_burst_is_stranded_by_workers_that_go_to_sleep)
{
    struct ns_thrpool_t *tp = pool_of(3);
    uint64_t sequence = run_seed() ^ 1;
    atomic_long runs = 0;
    long jobs = count_of(60000, 1000000);
    for (long i = 0; i < jobs;) {
        for (long burst = (long)(next_random(&sequence) % 5) + 1; burst > 0; burst--, i++) {
            assert_int_equal(ns_add_job(tp, NS_JOB_THREAD, add_to_and_finish, &runs, NULL),
                             NS_SUCCESS);
            hesitate(&sequence, 1u << next_random(&sequence) % 13);
        }
        SOON(atomic_load(&runs) == i);
        hesitate(&sequence, 300);
    }
    pool_end(tp);
}

/*
 * As many jobs as there are workers, each rearmed on the worker that ran it. In its last run each
 * waits until all others are in theirs: a job that is stranded in one worker's local queue, while
 * another worker sleeps, blocks them all.
 */
struct meeting {
    atomic_long here;
    atomic_long gone;
    long wanted;
};

struct guest {
    struct meeting *meeting;
    int runs; /* runs before the meeting */
};

static void meet(struct ns_job_t *job)
{
    struct meeting *meeting = ((struct guest *)ns_job_get_data(job))->meeting;
    atomic_fetch_add(&meeting->here, 1);
    for (double end = now_seconds() + LIMIT_SECONDS;
         atomic_load(&meeting->here) < meeting->wanted && now_seconds() < end;) {
        sched_yield();
    }
    ns_job_done(job);
    atomic_fetch_add(&meeting->gone, 1);
}

static void run_and_meet(struct ns_job_t *job)
{
    struct guest *guest = ns_job_get_data(job);
    if (--guest->runs <= 0) {
        meet(job);
    }
}

/*
 * To see it fail: in WorkQueue::take_any, look at the worker's own near queue only.
 */
TEST(fm01_no_job_near_a_worker_is_stranded)
{
    enum { MOST = 4 };
    uint64_t sequence = run_seed() ^ 2;
    for (long workers = 2; workers <= MOST; workers++) {
        struct ns_thrpool_t *tp = pool_of((size_t)workers);
        for (long round = count_of(4000, 1000000) / MOST; round > 0; round--) {
            struct meeting meeting = {0, 0, workers};
            struct guest guests[MOST];
            for (long i = 0; i < workers; i++) {
                guests[i] = (struct guest){&meeting, (int)(next_random(&sequence) % 6) + 1};
                assert_int_equal(ns_add_job(tp, NS_JOB_THREAD | NS_JOB_PERSIST, run_and_meet,
                                            &guests[i], NULL), NS_SUCCESS);
                hesitate(&sequence, 1u << next_random(&sequence) % 13);
            }
            SOON(atomic_load(&meeting.gone) == workers);
            assert_int_equal(atomic_load(&meeting.here), workers);
            hesitate(&sequence, 16384);
        }
        pool_end(tp);
    }
}

/*
 * As many jobs for one descriptor as there are workers. They mostly fire in one turn of the loop,
 * which wakes the workers once. Each waits until all others run.
 *
 * To see it fail: in WorkQueue::next, have a worker that was woken wake nobody.
 */
TEST(fm01_no_job_of_a_batch_is_stranded)
{
    enum { MOST = 4 };
    uint64_t sequence = run_seed() ^ 3;
    int ends[2];
    char byte = 0;
    assert_int_equal(pipe(ends), 0);
    for (long workers = 2; workers <= MOST; workers++) {
        struct ns_thrpool_t *tp = pool_of((size_t)workers);
        for (long round = count_of(4000, 1000000) / MOST; round > 0; round--) {
            struct meeting meeting = {0, 0, workers};
            struct guest guest = {&meeting, 0};
            for (long i = 0; i < workers; i++) {
                assert_int_equal(ns_add_fd_job(tp, ends[0],
                                               NS_JOB_READ | NS_JOB_THREAD | NS_JOB_PRESERVE_FD,
                                               meet, &guest, NULL), NS_SUCCESS);
            }
            hesitate(&sequence, 1u << next_random(&sequence) % 15);
            assert_int_equal(write(ends[1], &byte, 1), 1);
            SOON(atomic_load(&meeting.gone) == workers);
            assert_int_equal(atomic_load(&meeting.here), workers);
            assert_int_equal(read(ends[0], &byte, 1), 1);
            hesitate(&sequence, 1u << next_random(&sequence) % 15);
        }
        pool_end(tp);
    }
    close(ends[0]);
    close(ends[1]);
}

/* Shut down while jobs are queued: all of them still run. */
struct tally {
    atomic_long runs;
    atomic_long disposals;
};

static void tally_run(struct ns_job_t *job)
{
    struct tally *tally = ns_job_get_data(job);
    atomic_fetch_add(&tally->runs, 1);
    if (!NS_JOB_IS_PERSIST(ns_job_get_type(job))) {
        ns_job_done(job);
    }
}

static void tally_gone(struct ns_job_t *job)
{
    struct tally *tally = ns_job_get_data(job);
    atomic_fetch_add(&tally->disposals, 1);
}

static struct ns_job_t *tally_job(struct ns_thrpool_t *tp, ns_job_type_t type,
                                  struct tally *tally)
{
    struct ns_job_t *job = NULL;
    assert_int_equal(ns_add_job(tp, type | NS_JOB_UNARMED, tally_run, tally, &job), NS_SUCCESS);
    return arm_with(job, tally_gone);
}

/*
 * To see it fail: in WorkQueue::next, return None as soon as `closed` is set. For the PERSIST jobs,
 * which would never end: in run::run, arm again although the pool is shutting down.
 */
TEST(fm07_queued_work_is_done_at_shutdown_and_repeating_jobs_end)
{
    for (int workers = 1; workers <= 4; workers++) {
        struct ns_thrpool_t *tp = checked_pool((size_t)workers);
        struct gate gates[5] = {GATE_INIT, GATE_INIT, GATE_INIT, GATE_INIT, GATE_INIT};
        struct ns_job_t *blockers[5] = {NULL};
        struct tally once = {0, 0};
        struct tally persist = {0, 0};
        struct ns_job_t *persistent[8];
        long jobs = count_of(5000, 200000);
        for (int i = 0; i <= workers; i++) {
            blockers[i] = occupy(tp, i < workers ? NS_JOB_THREAD : 0, &gates[i]);
        }
        for (long i = 0; i < jobs; i++) {
            tally_job(tp, i & 1 ? NS_JOB_THREAD : 0, &once);
        }
        for (int i = 0; i < 8; i++) {
            persistent[i] = tally_job(tp, NS_JOB_PERSIST | (i & 1 ? NS_JOB_THREAD : 0), &persist);
        }
        ns_thrpool_shutdown(tp);
        for (int i = 0; i <= workers; i++) {
            latch_add(&gates[i].leave, 1);
        }
        assert_int_equal(ns_thrpool_wait(tp), NS_SUCCESS);
        assert_int_equal(atomic_load(&once.runs), jobs);
        for (int i = 0; i < 8; i++) {
            assert_int_equal(ns_job_done(persistent[i]), NS_SUCCESS);
        }
        for (int i = 0; i <= workers; i++) {
            assert_int_equal(ns_job_done(blockers[i]), NS_SUCCESS);
        }
        checked_end(tp);
        assert_int_equal(atomic_load(&once.disposals), jobs);
        assert_int_equal(atomic_load(&persist.disposals), 8);
    }
}

/*
 * To see it fail: make the pipe of Wake::new without O_NONBLOCK, and have Wake::wake write always.
 */
TEST(fm16_a_blocked_loop_takes_any_number_of_adds)
{
    struct ns_thrpool_t *tp = pool_of(1);
    struct gate gate = GATE_INIT;
    atomic_long runs = 0;
    long jobs = count_of(1000000, 1000000); /* more than there is room for in a pipe */
    struct ns_job_t *blocker = occupy(tp, NS_JOB_NONE, &gate);
    for (long i = 0; i < jobs; i++) {
        ns_result_t result =
            i & 1 ? ns_add_job(tp, NS_JOB_NONE, add_to_and_finish, &runs, NULL)
                  : ns_add_timeout_job(tp, &at_once, NS_JOB_NONE, add_to_and_finish, &runs, NULL);
        assert_int_equal(result, NS_SUCCESS);
    }
    assert_int_equal(atomic_load(&runs), 0);
    latch_add(&gate.leave, 1);
    EVENTUALLY(atomic_load(&runs) == jobs);
    assert_int_equal(ns_job_done(blocker), NS_SUCCESS);
    pool_end(tp);
}

/* The variable to which an add writes its job, and what the callback found in it. */
struct out {
    struct ns_job_t *job;
    atomic_int right;
    atomic_int wrong;
};

static void look_at_out(struct ns_job_t *job)
{
    struct out *out = ns_job_get_data(job);
    atomic_fetch_add(out->job == job ? &out->right : &out->wrong, 1);
    ns_job_done(job);
}

/*
 * Each kind of job in turn; with NS_COUNT=full a million of each.
 *
 * To see it fail: in Make::finish, write the out pointer after the job was armed.
 */
TEST(fm17_the_out_pointer_is_written_before_the_job_can_run)
{
    struct ns_thrpool_t *tp = pool_of(2);
    int ends[2];
    socket_pair(ends);
    assert_int_equal(write(ends[1], "x", 1), 1);
    long adds = count_of(60000, 5 * 1000000);
    struct out out = {NULL, 0, 0};
    for (long i = 0; i < adds; i++) {
        ns_result_t result = NS_SUCCESS;
        out.job = NULL;
        switch (i % 5) {
        case 0: result = ns_add_job(tp, NS_JOB_THREAD, look_at_out, &out, &out.job); break;
        case 1: result = ns_add_job(tp, NS_JOB_NONE, look_at_out, &out, &out.job); break;
        case 2:
            result = ns_add_timeout_job(tp, &at_once, NS_JOB_NONE, look_at_out, &out, &out.job);
            break;
        case 3:
            result = ns_add_fd_job(tp, ends[0], NS_JOB_READ | NS_JOB_PRESERVE_FD, look_at_out,
                                   &out, &out.job);
            break;
        default:
            result = ns_add_fd_job(tp, ends[0], NS_JOB_READ | NS_JOB_PRESERVE_FD | NS_JOB_THREAD,
                                   look_at_out, &out, &out.job);
        }
        assert_int_equal(result, NS_SUCCESS);
        SOON(atomic_load(&out.right) + atomic_load(&out.wrong) == i + 1);
    }
    assert_int_equal(atomic_load(&out.wrong), 0);
    pool_end(tp);
    close(ends[0]);
    close(ends[1]);
}

/* Producers that number their items, and what came out of the queues. */
enum { PRODUCERS = 4 };

/* How an item is queued. */
enum way_in {
    BY_ADD,    /* a run-now job, in the workers' queue or the loop's */
    BY_TIMER,  /* a timer of no time, through the requests */
    BY_REARM,  /* the same, made UNARMED and armed afterwards */
    BY_REPEAT, /* a PERSIST job, which is armed again when it has run once */
    BY_DONE,   /* an idle job that is done, through the requests, to its done callback */
};

struct line {
    struct ns_thrpool_t *tp;
    enum way_in way;
    ns_job_type_t type;
    uintptr_t producer;
};

static struct {
    atomic_uchar *seen; /* how often each item came out */
    long items;         /* of each producer */
    long last[PRODUCERS]; /* the last number; touched only by the thread that runs them */
    atomic_long disorder;
    atomic_long taken;
    int ordered;
} belt;

static void take_item(struct ns_job_t *job)
{
    uintptr_t item = (uintptr_t)ns_job_get_data(job) - 1;
    long producer = (long)(item / (uintptr_t)belt.items);
    long number = (long)(item % (uintptr_t)belt.items);
    if (belt.ordered && belt.last[producer]++ != number) {
        atomic_fetch_add(&belt.disorder, 1);
    }
    atomic_fetch_add(&belt.seen[item], 1);
    atomic_fetch_add(&belt.taken, 1);
    ns_job_done(job);
}

/* Marks the second run, by the bit below the highest: no item has it. */
static void take_item_again(struct ns_job_t *job)
{
    uintptr_t item = (uintptr_t)ns_job_get_data(job), once = UINTPTR_MAX / 4 + 1;
    ns_job_set_data(job, (void *)(item ^ once));
    if (item & once) {
        take_item(job);
    }
}

static ns_result_t put_item(const struct line *line, void *item)
{
    struct ns_job_t *job = NULL;
    ns_result_t result;
    switch (line->way) {
    case BY_ADD: return ns_add_job(line->tp, line->type, take_item, item, NULL);
    case BY_TIMER:
        return ns_add_timeout_job(line->tp, &at_once, line->type, take_item, item, NULL);
    case BY_REPEAT:
        return ns_add_job(line->tp, line->type | NS_JOB_PERSIST, take_item_again, item, NULL);
    case BY_REARM:
        result = ns_add_timeout_job(line->tp, &at_once, line->type | NS_JOB_UNARMED, take_item,
                                    item, &job);
        return result == NS_SUCCESS ? ns_job_rearm(job) : result;
    default:
        result = ns_add_job(line->tp, line->type | NS_JOB_UNARMED, add_to_and_finish, item, &job);
        if (result == NS_SUCCESS) {
            ns_job_set_done_cb(job, take_item);
            result = ns_job_done(job);
        }
        return result;
    }
}

static void *produce(void *arg)
{
    struct line *line = arg;
    for (long i = 0; i < belt.items; i++) {
        uintptr_t item = line->producer * (uintptr_t)belt.items + (uintptr_t)i;
        if (put_item(line, (void *)(item + 1)) != NS_SUCCESS) {
            atomic_fetch_add(&belt.disorder, 1);
        }
        /* Bound the memory in use, and the wait for lost items. */
        double end = i % 1024 == 0 ? now_seconds() + LIMIT_SECONDS : 0;
        while (end != 0 && PRODUCERS * i - atomic_load(&belt.taken) > 500000 &&
               now_seconds() < end) {
            sched_yield();
        }
    }
    return NULL;
}

static void run_belt(size_t workers, enum way_in way, ns_job_type_t type, int ordered)
{
    struct ns_thrpool_t *tp = pool_of(workers);
    struct line lines[PRODUCERS];
    pthread_t threads[PRODUCERS];
    long items = count_of(60000, 10000000) / PRODUCERS + 1;
    double begin = now_seconds();
    memset(&belt, 0, sizeof belt);
    belt.items = items;
    belt.ordered = ordered;
    belt.seen = calloc((size_t)(items * PRODUCERS), sizeof *belt.seen);
    assert_non_null(belt.seen);
    for (uintptr_t i = 0; i < PRODUCERS; i++) {
        lines[i] = (struct line){tp, way, type, i};
        threads[i] = start_thread(produce, &lines[i]);
    }
    for (int i = 0; i < PRODUCERS; i++) {
        pthread_join(threads[i], NULL);
    }
    /* What is armed need not run once the pool shuts down. */
    EVENTUALLY(atomic_load(&belt.taken) == items * PRODUCERS);
    pool_end(tp);
    assert_int_equal(atomic_load(&belt.disorder), 0);
    assert_int_equal(atomic_load(&belt.taken), items * PRODUCERS);
    for (long i = 0; i < items * PRODUCERS; i++) {
        if (atomic_load(&belt.seen[i]) != 1) {
            fail_msg("item %ld came %d times", i, atomic_load(&belt.seen[i]));
        }
    }
    free(belt.seen);
    print_message("# %ld items in %.1f s\n", items * PRODUCERS, now_seconds() - begin);
}

/*
 * To see it fail: in WorkQueue::push, or push_local, push every 1000th item twice, or not at all; for
 * run-now jobs of the loop the same in Shared::run_now, and for the others in Shared::request.
 */
TEST(fm39_queues_neither_drop_nor_double_nor_reorder)
{
    run_belt(1, BY_ADD, NS_JOB_THREAD, 1);
    run_belt(3, BY_ADD, NS_JOB_THREAD, 0);
    run_belt(3, BY_REPEAT, NS_JOB_THREAD, 0);
    run_belt(1, BY_ADD, NS_JOB_NONE, 1);
    /* The wheel promises no order among timers that are long overdue. */
    run_belt(1, BY_TIMER, NS_JOB_NONE, 0);
    run_belt(1, BY_TIMER, NS_JOB_THREAD, 0);
    run_belt(1, BY_REARM, NS_JOB_NONE, 0);
    run_belt(1, BY_DONE, NS_JOB_NONE, 1);
}

/* How many messages a pool has logged. */
static atomic_int messages;

static void count_log(int priority, const char *format, va_list args)
{
    UNUSED(priority);
    UNUSED(format);
    UNUSED(args);
    atomic_fetch_add(&messages, 1);
}

/* To see it fail: build the library with the feature `trace`. */
TEST(fm46_nothing_is_logged_on_the_way_of_a_job)
{
    struct ns_thrpool_config config = checked_config(2);
    config.log_fct = count_log;
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    assert_non_null(tp);
    int before = atomic_load(&messages);
    atomic_long runs = 0;
    int ends[2];
    socket_pair(ends);
    assert_int_equal(write(ends[1], "x", 1), 1);
    for (int i = 0; i < 1000; i++) {
        ns_job_type_t thread = i & 1 ? NS_JOB_THREAD : 0;
        ns_add_job(tp, thread, add_to_and_finish, &runs, NULL);
        ns_add_timeout_job(tp, &at_once, thread, add_to_and_finish, &runs, NULL);
        ns_add_fd_job(tp, ends[0], NS_JOB_READ | NS_JOB_PRESERVE_FD | thread, add_to_and_finish,
                      &runs, NULL);
    }
    EVENTUALLY(atomic_load(&runs) == 3000);
    assert_int_equal(atomic_load(&messages), before);
    checked_end(tp);
    close(ends[0]);
    close(ends[1]);
}

/*
 * The library under test is a release build: its file does not contain the text of a debug
 * assertion.
 *
 * To see it fail: build the library without --release.
 */
TEST(fm43_the_library_under_test_is_a_release_build)
{
    Dl_info info;
    char assertion[] = "?ssertion failed: step.is_ok()";
    assertion[0] = 'a'; /* in two parts, since the library may be linked into this program */
    void *function;
    ns_result_t (*done)(struct ns_job_t *) = ns_job_done;
    memcpy(&function, &done, sizeof function);
    assert_int_not_equal(dladdr(function, &info), 0);
    FILE *file = fopen(info.dli_fname, "rb");
    assert_non_null(file);
    fseek(file, 0, SEEK_END);
    long size = ftell(file);
    rewind(file);
    char *bytes = malloc((size_t)size);
    assert_non_null(bytes);
    assert_int_equal(fread(bytes, 1, (size_t)size, file), size);
    fclose(file);
    void *found = memmem(bytes, (size_t)size, assertion, strlen(assertion));
    free(bytes);
    assert_null(found);
}

/* Whether a file holds a word, other than inside a longer one. */
static int file_has_word(const char *path, const char *word)
{
    char line[512];
    int found = 0;
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    while (fgets(line, sizeof line, file) != NULL) {
        for (char *at = strstr(line, word); at != NULL; at = strstr(at + 1, word)) {
            char before = at == line ? ' ' : at[-1];
            found |= strchr(" \t(!=;{", before) != NULL;
        }
    }
    fclose(file);
    return found;
}

/*
 * The words are written in two parts, so that this file does not contain them.
 *
 * To see it fail: call sleep, nanosleep, or poll of nothing in any test.
 */
TEST(fm49_no_test_sleeps_to_be_right_or_needs_ipv6)
{
    /* test-shutdown.c may poll nothing: it does so to give a fault time to show, and passes without
     * it. */
    const char *words[] = {"sle" "ep(",       "usle" "ep(", "nanosle" "ep(", "po" "ll(NULL",
                           "select(0, NU" "LL", "AF_IN" "ET6", "PF_IN" "ET6"};
    char directory[256];
    snprintf(directory, sizeof directory, "%s", __FILE__);
    *strrchr(directory, '/') = '\0';
    DIR *dir = opendir(directory);
    if (dir == NULL) {
        skip(); /* the source is not where it was at compile time */
    }
    int files = 0;
    for (struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
        const char *suffix = strrchr(entry->d_name, '.');
        int is_test = strncmp(entry->d_name, "test-", 5) == 0 && suffix != NULL &&
                      strcmp(suffix, ".c") == 0;
        /* The pause of EVENTUALLY is in harness.h. */
        int is_shared = suffix != NULL && strcmp(suffix, ".h") == 0 &&
                        strcmp(entry->d_name, "harness.h") != 0;
        if (!is_test && !is_shared) {
            continue;
        }
        char path[600];
        snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        files++;
        for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
            int spared = words[i][0] == 'p' && strcmp(entry->d_name, "test-shutdown.c") == 0;
            if (!spared && file_has_word(path, words[i])) {
                fail_msg("%s has %s", path, words[i]);
            }
        }
    }
    closedir(dir);
    assert_true(files > 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fm01_no_job_is_stranded_by_a_worker_that_goes_to_sleep),
        cmocka_unit_test(fm01_no_burst_is_stranded_by_workers_that_go_to_sleep),
        cmocka_unit_test(fm01_no_job_near_a_worker_is_stranded),
        cmocka_unit_test(fm01_no_job_of_a_batch_is_stranded),
        cmocka_unit_test(fm07_queued_work_is_done_at_shutdown_and_repeating_jobs_end),
        cmocka_unit_test(fm16_a_blocked_loop_takes_any_number_of_adds),
        cmocka_unit_test(fm17_the_out_pointer_is_written_before_the_job_can_run),
        cmocka_unit_test(fm39_queues_neither_drop_nor_double_nor_reorder),
        cmocka_unit_test(fm43_the_library_under_test_is_a_release_build),
        cmocka_unit_test(fm46_nothing_is_logged_on_the_way_of_a_job),
        cmocka_unit_test(fm49_no_test_sleeps_to_be_right_or_needs_ipv6),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
