/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * completion FILE... - add up the bytes of files in workers, and take the results in the loop
 *
 * The loop alone touches the totals, so nothing guards them.
 */
#include <err.h>
#include <nunc-stans.h>
#include <stdio.h>
#include <stdlib.h>

struct work {
    const char *path; /* given by the loop */
    long sum;         /* and this by the worker; -1: could not be read */
};

static int outstanding;
static long total;

static void in_the_loop(struct ns_job_t *job) /* the completion */
{
    struct work *w = ns_job_get_data(job);
    if (w->sum < 0)
        printf("%s: can't be read\n", w->path);
    else
        total += w->sum;
    free(w);
    ns_job_done(job);
    if (--outstanding == 0) {
        printf("total %ld\n", total);
        ns_thrpool_shutdown(ns_job_get_tp(job));
    }
}

static void in_a_worker(struct ns_job_t *job) /* the work, which blocks */
{
    struct work *w = ns_job_get_data(job);
    FILE *file = fopen(w->path, "r");
    int c;
    w->sum = file == NULL ? -1 : 0;
    while (file != NULL && (c = getc(file)) != EOF)
        w->sum += c;
    if (file != NULL)
        fclose(file);
    /* Back to the loop: all that was written above is visible there. */
    if (ns_add_job(ns_job_get_tp(job), NS_JOB_NONE, in_the_loop, w, NULL) != NS_SUCCESS)
        free(w); /* the pool is shutting down */
    ns_job_done(job);
}

static void begin(struct ns_job_t *job) /* in the loop, once: as if these were requests from clients */
{
    for (char **path = ns_job_get_data(job); *path != NULL; path++) {
        struct work *w = malloc(sizeof *w);
        if (w == NULL)
            err(1, "malloc");
        *w = (struct work){*path, 0};
        outstanding++;
        if (ns_add_job(ns_job_get_tp(job), NS_JOB_THREAD, in_a_worker, w, NULL) != NS_SUCCESS)
            errx(1, "can't start: the system log says why");
    }
    ns_job_done(job);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        errx(2, "usage: completion FILE...");
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.max_threads = 4;
    ns_thrpool_t *tp = ns_thrpool_new(&config);
    if (tp == NULL || ns_add_job(tp, NS_JOB_NONE, begin, argv + 1, NULL) != NS_SUCCESS)
        errx(1, "can't start: the system log says why");
    ns_thrpool_wait(tp);
    ns_thrpool_destroy(tp);
}
