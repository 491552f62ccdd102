/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * What the reliability tests share beyond the harness: counts that grow with NS_COUNT, a seed, a
 * heap that detects misuse, and threads.
 */
#ifndef FM_H
#define FM_H

#include "harness.h"

/*
 * How often to repeat something: `quick` by default, `full` with NS_COUNT=full, a hundredth of
 * `full` with NS_COUNT=deep, and a hundredth of `quick` if NS_SLOW says that a tool slows the run
 * down.
 */
static inline long count_of(long quick, long full)
{
    const char *how = getenv("NS_COUNT");
    if (getenv("NS_SLOW") != NULL) {
        return quick < 200 ? 2 : quick / 100;
    }
    if (how != NULL && strcmp(how, "full") == 0) {
        return full;
    }
    if (how != NULL && strcmp(how, "deep") == 0) {
        return full / 100 > quick ? full / 100 : quick;
    }
    return quick;
}

/* The seed of this run: NS_SEED, or a new one. It is printed, so that a failing run can be
 * repeated. */
static inline uint64_t run_seed(void)
{
    static uint64_t seed;
    if (seed == 0) {
        const char *given = getenv("NS_SEED");
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        seed = given != NULL ? strtoull(given, NULL, 0)
                             : (uint64_t)now.tv_sec * 1000000007u ^ (uint64_t)now.tv_nsec << 13;
        seed |= 1;
        printf("# NS_SEED=%llu\n", (unsigned long long)seed);
        fflush(stdout);
    }
    return seed;
}

/* The next number of a sequence (splitmix64). */
static inline uint64_t next_random(uint64_t *sequence)
{
    uint64_t z = *sequence += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

/* Spin for a random moment of up to a few microseconds, to meet another thread at a different point
 * each time. */
static inline void hesitate(uint64_t *sequence, unsigned most)
{
    for (volatile unsigned i = (unsigned)(next_random(sequence) % most); i > 0; i--) {
    }
}

/* As EVENTUALLY, for conditions that should hold within microseconds. */
#define SOON(cond)                                                                             \
    do {                                                                                       \
        for (int soon_tries = 0; soon_tries < 2000 && !(cond); soon_tries++) {                 \
            sched_yield();                                                                     \
        }                                                                                      \
        EVENTUALLY(cond);                                                                      \
    } while (0)

/* Spin until cond holds, but not for long: to see at once what a thread on another processor does.
 * */
#define AT_ONCE(cond)                                                                          \
    do {                                                                                       \
        for (int at_once_tries = 0; at_once_tries < 30000 && !(cond); at_once_tries++) {       \
        }                                                                                      \
    } while (0)

/*
 * A heap that detects blocks that are freed twice, or written to after they were freed: freed
 * blocks are kept for a while, filled with a pattern. A tag tells the heaps of several pools apart.
 */
enum { HEAP_HELD = 1024, HEAP_LIVE = 0x11fe, HEAP_FREED = 0xdead };

struct heap_block {
    _Alignas(max_align_t) size_t size; /* and so what follows it is aligned for any type */
    int magic;
    int tag;
};

struct heap {
    pthread_mutex_t lock;
    long out;  /* blocks in use */
    long bad;  /* misuses */
    long left; /* allocations that still succeed; negative: all */
    struct heap_block *held[HEAP_HELD];
    size_t at;
};

#define HEAP_INIT {PTHREAD_MUTEX_INITIALIZER, 0, 0, -1, {NULL}, 0}

static inline void heap_let_go(struct heap *heap, struct heap_block *block)
{
    const unsigned char *bytes = (const unsigned char *)(block + 1);
    if (block->magic != HEAP_FREED) {
        heap->bad++;
    }
    for (size_t i = 0; i < block->size; i++) {
        if (bytes[i] != 0xdb) {
            heap->bad++;
            break;
        }
    }
    free(block);
}

static inline void *heap_calloc(struct heap *heap, int tag, size_t count, size_t size)
{
    pthread_mutex_lock(&heap->lock);
    struct heap_block *block = NULL;
    size_t bytes;
    if (heap->left != 0 && !__builtin_mul_overflow(count, size, &bytes) &&
        bytes < SIZE_MAX - sizeof *block) {
        heap->left -= heap->left > 0;
        block = calloc(1, sizeof *block + bytes);
    }
    if (block != NULL) {
        *block = (struct heap_block){bytes, HEAP_LIVE, tag};
        heap->out++;
    }
    pthread_mutex_unlock(&heap->lock);
    return block == NULL ? NULL : block + 1;
}

static inline void heap_free(struct heap *heap, int tag, void *at)
{
    if (at == NULL) {
        return;
    }
    struct heap_block *block = (struct heap_block *)at - 1;
    pthread_mutex_lock(&heap->lock);
    if (block->magic != HEAP_LIVE || block->tag != tag) {
        heap->bad++;
    } else {
        block->magic = HEAP_FREED;
        heap->out--;
        memset(at, 0xdb, block->size);
        if (heap->held[heap->at] != NULL) {
            heap_let_go(heap, heap->held[heap->at]);
        }
        heap->held[heap->at] = block;
        heap->at = (heap->at + 1) % HEAP_HELD;
    }
    pthread_mutex_unlock(&heap->lock);
}

/* All blocks are back, and none was misused. */
static inline void heap_check(struct heap *heap)
{
    pthread_mutex_lock(&heap->lock);
    for (size_t i = 0; i < HEAP_HELD; i++) {
        if (heap->held[i] != NULL) {
            heap_let_go(heap, heap->held[i]);
            heap->held[i] = NULL;
        }
    }
    long out = heap->out;
    long bad = heap->bad;
    pthread_mutex_unlock(&heap->lock);
    assert_int_equal(out, 0);
    assert_int_equal(bad, 0);
}

/* The heap of most tests. */
static struct heap the_heap = HEAP_INIT;

static inline void *the_calloc(size_t count, size_t size)
{
    return heap_calloc(&the_heap, 0, count, size);
}

static inline void the_free(void *at)
{
    heap_free(&the_heap, 0, at);
}

/* A config of n workers with a silent log and the heap above. */
static inline struct ns_thrpool_config checked_config(size_t workers)
{
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.max_threads = workers;
    config.log_fct = quiet_log;
    config.calloc_fct = the_calloc;
    config.free_fct = the_free;
    return config;
}

static inline struct ns_thrpool_t *checked_pool(size_t workers)
{
    struct ns_thrpool_config config = checked_config(workers);
    struct ns_thrpool_t *tp = ns_thrpool_new(&config);
    assert_non_null(tp);
    return tp;
}

/* Shut down, wait, destroy; and see that all memory is back. */
static inline void checked_end(struct ns_thrpool_t *tp)
{
    pool_end(tp);
    heap_check(&the_heap);
}

/* As a callback: count in the job's data, an atomic_long, and finish. */
static inline void tally_and_finish(struct ns_job_t *job)
{
    atomic_fetch_add((atomic_long *)ns_job_get_data(job), 1);
    ns_job_done(job);
}

/* A thread of the test's. */
static inline pthread_t start_thread(void *(*body)(void *), void *arg)
{
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, body, arg), 0);
    return thread;
}

#endif
