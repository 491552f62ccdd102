/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What ns_thrpool_dump tells, kept for tests to look at. */
#ifndef DUMPS_H
#define DUMPS_H

#include "harness.h"

struct dump {
    char **lines;
    size_t count;
    ns_result_t result;
    double seconds;
};

static inline void keep_line(void *arg, const char *text)
{
    struct dump *dump = arg;
    if ((dump->count & (dump->count - 1)) == 0) {
        dump->lines = realloc(dump->lines, (dump->count == 0 ? 1 : 2 * dump->count) * sizeof(char *));
    }
    dump->lines[dump->count++] = strdup(text);
}

static inline struct dump dump_of(struct ns_thrpool_t *tp)
{
    struct dump dump = {NULL, 0, NS_SUCCESS, 0};
    double begin = now_seconds();
    dump.result = ns_thrpool_dump(tp, keep_line, &dump);
    dump.seconds = now_seconds() - begin;
    return dump;
}

static inline void forget_dump(struct dump *dump)
{
    for (size_t i = 0; i < dump->count; i++) {
        free(dump->lines[i]);
    }
    free(dump->lines);
}

/* How many lines have all of these; NULL stands for nothing more. */
static inline size_t lines_with(const struct dump *dump, const char *one, const char *two, const char *three)
{
    size_t count = 0;
    for (size_t i = 0; i < dump->count; i++) {
        const char *line = dump->lines[i];
        count += strstr(line, one) != NULL && (two == NULL || strstr(line, two) != NULL) &&
                 (three == NULL || strstr(line, three) != NULL);
    }
    return count;
}

static inline void print_dump(const struct dump *dump)
{
    for (size_t i = 0; i < dump->count && i < 50; i++) {
        print_message("# %s\n", dump->lines[i]);
    }
}

#define assert_line(dump, one, two, three)                                                     \
    do {                                                                                       \
        if (lines_with((dump), (one), (two), (three)) != 1) {                                  \
            print_dump(dump);                                                                  \
            fail_msg("not one line with %s, %s, %s", #one, #two, #three);                      \
        }                                                                                      \
    } while (0)

/* How a job's line begins. */
struct head {
    char text[40];
};

static inline struct head line_of(struct ns_job_t *job)
{
    struct head head;
    snprintf(head.text, sizeof head.text, "job %p:", (void *)job);
    return head;
}

#endif
