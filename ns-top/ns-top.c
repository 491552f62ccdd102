/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * ns-top: what the threads of another process's pools do.
 *
 * It reads the process's memory and does not disturb it: no signal, no stop, no help of its code. So it
 * tells of a process that is wedged as of any other.
 */
#define _GNU_SOURCE
#include "ns-top.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

/* What the library has in its memory: src/stats/registry.rs, table.rs, slot.rs and made.rs. */
#define VERSION 1
#define PLACES 29
#define KINDS 4
#define STRIPES 16

struct chunk {
    char magic[16];
    uint32_t version, places;
    uint64_t pools[PLACES];
    uint64_t more;
};

struct table {
    char magic[16];
    uint32_t version, size, slot_size, slots;
    uint64_t pool, made, number;
    uint32_t generation, spare;
    char name[16];
};

struct slot {
    uint64_t job, func, ending, since;
    int32_t thread;
    uint32_t kind;
    uint64_t runs, busy, data;
    uint64_t disposed[KINDS];
    uint64_t turns, waits, pauses, mark;
};

struct stripe {
    uint64_t made[8];
};

/* What was seen of a thread: its slot, and since when it has been in this call. */
struct thread {
    struct slot slot;
    uint64_t first_seen;
};

/* What was seen of a pool, for comparing at the next look. */
struct pool {
    uint64_t at;
    struct table table;
    uint64_t made[KINDS];
    struct thread *threads;
    uint64_t looked;
    int is_new, found;
    struct pool *next;
};

static struct pool *pools;

static void die(const char *format, const char *what)
{
    fprintf(stderr, "ns-top: ");
    fprintf(stderr, format, what);
    fprintf(stderr, "\n");
    exit(1);
}

static void *need(void *memory)
{
    if (memory == NULL) {
        die("%s", "no memory");
    }
    return memory;
}

static uint64_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static int is_same_call(const struct slot *one, const struct slot *other)
{
    return one->job == other->job && one->ending == other->ending && one->func == other->func &&
           one->runs == other->runs && one->since == other->since;
}

/* Read a slot. Its thread may be writing it: two readings that agree on the call are one. */
static int read_slot(pid_t pid, uint64_t at, struct slot *slot)
{
    struct slot again;
    if (peek(pid, at, slot, sizeof *slot) != 0) {
        return -1;
    }
    for (int tries = 0; tries < 5; tries++) {
        if (peek(pid, at, &again, sizeof again) != 0) {
            return -1;
        }
        int same = is_same_call(slot, &again);
        *slot = again;
        if (same) {
            break;
        }
    }
    return 0;
}

static int is_in_call(const struct slot *slot)
{
    return slot->job != 0 || slot->ending != 0;
}

/* The pool whose table is at this address, as it was seen before, or a new one. */
static struct pool *pool_at(uint64_t at, const struct table *table)
{
    struct pool *pool = pools;
    while (pool != NULL && (pool->at != at || pool->table.number != table->number)) {
        pool = pool->next;
    }
    if (pool == NULL) {
        pool = need(calloc(1, sizeof *pool));
        pool->threads = need(calloc(table->slots, sizeof *pool->threads));
        *pool = (struct pool){at, *table, {0}, pool->threads, 0, 1, 0, pools};
        pools = pool;
    }
    return pool;
}

static void show_rate(const char *what, uint64_t count, uint64_t before, uint64_t ns)
{
    printf(", %.0f %s/s", ns > 0 ? (double)(count - before) * 1e9 / (double)ns : 0.0, what);
}

/* R: runs, S: sleeps, D: in the kernel, not to be disturbed. */
static char state_of(pid_t pid, int thread)
{
    char path[64], line[400];
    char state = '?';
    snprintf(path, sizeof path, "/proc/%d/task/%d/stat", (int)pid, thread);
    FILE *file = fopen(path, "re");
    if (file != NULL) {
        if (fgets(line, sizeof line, file) != NULL && strrchr(line, ')') != NULL) {
            sscanf(strrchr(line, ')') + 1, " %c", &state);
        }
        fclose(file);
    }
    return state;
}

static void show_thread(pid_t pid, struct file *files, struct pool *pool, uint32_t number, struct slot *slot,
                        uint64_t time)
{
    struct thread *thread = &pool->threads[number];
    char name[32], since[32] = "-", what[200] = "", runs[32] = "-";
    if (pool->is_new || !is_same_call(&thread->slot, slot)) {
        thread->first_seen = time;
    }
    snprintf(name, sizeof name, number == 0 ? "%.16s-loop" : "%.16s-worker %u", pool->table.name, number);
    if (is_in_call(slot)) {
        uint64_t begun = slot->since != 0 ? slot->since : thread->first_seen;
        char function[160];
        /* Without a time in the slot it has been at least so long. */
        snprintf(since, sizeof since, "%s%.3f", slot->since != 0 ? "" : ">", time > begun ? (double)(time - begun) / 1e9 : 0.0);
        name_of(files, slot->func, function, sizeof function);
        snprintf(what, sizeof what, "%s%s (%s %#" PRIx64 ")", slot->job != 0 ? "" : "done callback ", function,
                 slot->job != 0 ? "job" : "of", slot->job != 0 ? slot->job : slot->ending);
    }
    if (!pool->is_new && time > pool->looked) {
        snprintf(runs, sizeof runs, "%.0f", (double)(slot->runs - thread->slot.runs) * 1e9 / (double)(time - pool->looked));
    }
    printf("  %-20s %8d %c %10s %10s  %s\n", name, (int)slot->thread,
           slot->thread != 0 ? state_of(pid, slot->thread) : '-', since, runs, what);
    thread->slot = *slot;
}

/* Look at one pool and show it. */
static int show_pool(pid_t pid, struct file *files, uint64_t at)
{
    static const char *const kinds[KINDS] = {"run-now", "timer", "descriptor", "signal"};
    struct table table;
    struct stripe stripes[STRIPES];
    uint64_t made[KINDS] = {0}, disposed[KINDS] = {0};
    uint64_t all_made = 0, all_gone = 0, made_before = 0, gone_before = 0;
    uint32_t busy = 0;
    if (peek(pid, at, &table, sizeof table) != 0) {
        return -1;
    }
    if (memcmp(table.magic, "nunc-stans slots", 16) != 0 || table.slots > 100000) {
        return 0;
    }
    if (table.version != VERSION || table.slot_size < sizeof(struct slot)) {
        die("%s", "the process has another version of the library");
    }
    table.name[sizeof table.name - 1] = '\0';
    struct pool *pool = pool_at(at, &table);
    struct slot *slots = need(calloc(table.slots, sizeof *slots));
    for (uint32_t i = 0; i < table.slots; i++) {
        if (read_slot(pid, at + table.size + (uint64_t)i * table.slot_size, &slots[i]) != 0) {
            free(slots);
            return -1;
        }
        busy += is_in_call(&slots[i]);
        for (int kind = 0; kind < KINDS; kind++) {
            disposed[kind] += slots[i].disposed[kind];
            gone_before += pool->threads[i].slot.disposed[kind];
        }
    }
    /* After what is disposed of, so that there are never fewer. */
    uint64_t time = now();
    if (peek(pid, table.made, stripes, sizeof stripes) != 0) {
        free(slots);
        return -1;
    }
    for (int kind = 0; kind < KINDS; kind++) {
        for (int i = 0; i < STRIPES; i++) {
            made[kind] += stripes[i].made[kind];
        }
        all_made += made[kind];
        all_gone += disposed[kind];
        made_before += pool->made[kind];
    }
    printf("pool %s (%#" PRIx64 "): %u of %u threads in callbacks; jobs:", table.name, table.pool, busy, table.slots);
    for (int kind = 0; kind < KINDS; kind++) {
        uint64_t live = made[kind] > disposed[kind] ? made[kind] - disposed[kind] : 0;
        printf(" %" PRIu64 " %s%s", live, kinds[kind], kind < KINDS - 1 ? "," : "");
    }
    if (!pool->is_new) {
        show_rate("made", all_made, made_before, time - pool->looked);
        show_rate("disposed of", all_gone, gone_before, time - pool->looked);
        show_rate("turns", slots[0].turns, pool->threads[0].slot.turns, time - pool->looked);
    }
    printf("\n  %-20s %8s %c %10s %10s  %s\n", "THREAD", "ID", 'S', "SECONDS", "RUNS/S", "CALLBACK");
    for (uint32_t i = 0; i < table.slots; i++) {
        show_thread(pid, files, pool, i, &slots[i], time);
    }
    memcpy(pool->made, made, sizeof made);
    pool->looked = time;
    pool->is_new = 0;
    pool->found = 1;
    free(slots);
    return 0;
}

static void forget_lost_pools(void)
{
    struct pool **at = &pools;
    while (*at != NULL) {
        struct pool *pool = *at;
        if (pool->found) {
            pool->found = 0;
            at = &pool->next;
        } else {
            *at = pool->next;
            free(pool->threads);
            free(pool);
        }
    }
}

/* Look at all pools. 0, or -1 with errno. */
static int look(pid_t pid, struct file *files, uint64_t registry)
{
    struct chunk chunk;
    int count = 0;
    for (uint64_t at = registry; at != 0; at = chunk.more) {
        if (peek(pid, at, &chunk, sizeof chunk) != 0) {
            return -1;
        }
        if (memcmp(chunk.magic, "nunc-stans pools", 16) != 0 || chunk.version != VERSION || chunk.places != PLACES) {
            die("%s", "the process has another version of the library");
        }
        for (int i = 0; i < PLACES; i++) {
            /* A pool may go while we look. */
            if (chunk.pools[i] != 0 && show_pool(pid, files, chunk.pools[i]) != 0 && errno != EFAULT) {
                return -1;
            }
            count += chunk.pools[i] != 0;
        }
        if (count > 100000) {
            break;
        }
    }
    if (count == 0) {
        printf("no pool\n");
    }
    forget_lost_pools();
    return 0;
}

static struct termios saved;
static int raw;

static void restore(void)
{
    if (raw) {
        tcsetattr(STDIN_FILENO, TCSANOW, &saved);
    }
}

static volatile sig_atomic_t stopped;

static void stop(int signum)
{
    (void)signum;
    stopped = 1;
}

/* Keys come without a return. */
static void take_keys(void)
{
    if (tcgetattr(STDIN_FILENO, &saved) == 0) {
        struct termios mode = saved;
        mode.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        raw = tcsetattr(STDIN_FILENO, TCSANOW, &mode) == 0;
        atexit(restore);
    }
    struct sigaction action = {.sa_handler = stop};
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

/* Wait until the next look. True if q was pressed. */
static int pause_for(double seconds, int keys)
{
    struct pollfd in = {keys ? STDIN_FILENO : -1, POLLIN, 0};
    char key = 0;
    if (poll(&in, 1, (int)(seconds * 1000)) > 0 && (in.revents & POLLIN) && read(STDIN_FILENO, &key, 1) == 1) {
        return key == 'q';
    }
    return 0;
}

static const char usage[] =
    "usage: ns-top [-b] [-n COUNT] [-d SECONDS] PID\n"
    "Shows what the threads of a process's nunc-stans pools do.\n"
    "  -b          print one look after the other; do not draw on the screen\n"
    "  -n COUNT    look so often, then end\n"
    "  -d SECONDS  between two looks (default 1)\n"
    "q ends it. The process needs to be yours, and you may have to be root.\n";

int main(int argc, char **argv)
{
    int option, batch = 0;
    long count = -1;
    double delay = 1;
    while ((option = getopt(argc, argv, "bn:d:h")) != -1) {
        switch (option) {
        case 'b':
            batch = 1;
            break;
        case 'n':
            count = atol(optarg);
            break;
        case 'd':
            delay = atof(optarg);
            break;
        case 'h':
            fputs(usage, stdout);
            return 0;
        default:
            fputs(usage, stderr);
            return 2;
        }
    }
    char *end = NULL;
    long pid = optind == argc - 1 ? strtol(argv[optind], &end, 10) : 0;
    if (pid <= 0 || pid > INT32_MAX || *end != '\0' || delay < 0 || delay > 86400 || count == 0) {
        fputs(usage, stderr);
        return 2;
    }
    struct file *files = files_of((pid_t)pid);
    if (files == NULL && errno != 0) {
        die("the process can't be looked at: %s", strerror(errno));
    }
    uint64_t registry = find_section(files, "nunc_stans_pools");
    if (registry == 0) {
        die("%s", "the process has not loaded nunc-stans, or a version that ns-top does not know");
    }
    int keys = !batch && isatty(STDIN_FILENO);
    if (keys) {
        take_keys();
    }
    while (!stopped) {
        char clock[20];
        time_t seconds = time(NULL);
        strftime(clock, sizeof clock, "%H:%M:%S", localtime(&seconds));
        printf("%sns-top: process %ld, %s\n", batch ? "" : "\033[H\033[J", pid, clock);
        errno = 0;
        if (look((pid_t)pid, files, registry) != 0) {
            fflush(stdout);
            die(errno == ESRCH ? "%s" : "the process's memory can't be read: %s",
                errno == ESRCH ? "the process has ended" : strerror(errno));
        }
        fflush(stdout);
        if ((count > 0 && --count == 0) || pause_for(delay, keys)) {
            break;
        }
        if (batch) {
            printf("\n");
        }
        /* More files may have been loaded since. */
        struct file *now_mapped = files_of((pid_t)pid);
        if (now_mapped != NULL) {
            forget_files(files);
            files = now_mapped;
        }
    }
    forget_files(files);
    return 0;
}
