/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * fan-in - count the primes below two million in parts, and go on when the last part is done
 *
 * The parts are jobs of a group without a limit. The group's done callback runs when they are all gone:
 * it is the place to go on, and no thread waits.
 */
#include <err.h>
#include <nunc-stans.h>
#include <stdio.h>

enum { PARTS = 20, EACH = 100000 };

static long found[PARTS];

static void count(struct ns_job_t *job) /* in a worker; each writes to its own place */
{
    long *mine = ns_job_get_data(job);
    long from = (mine - found) * EACH;
    for (long n = from < 2 ? 2 : from; n < from + EACH; n++) {
        long d = 2;
        while (d * d <= n && n % d != 0)
            d++;
        *mine += d * d > n;
    }
    ns_job_done(job);
}

static void all_done(struct ns_group_t *group) /* sees all that the parts wrote */
{
    long sum = 0;
    for (int i = 0; i < PARTS; i++)
        sum += found[i];
    printf("%ld primes\n", sum);
    ns_thrpool_shutdown(ns_group_get_tp(group));
}

int main(void)
{
    struct ns_thrpool_config config;
    ns_thrpool_config_init(&config);
    config.max_threads = 4;
    ns_thrpool_t *tp = ns_thrpool_new(&config);
    struct ns_group_t *parts;
    if (tp == NULL || ns_group_new(tp, 0, NULL, all_done, &parts) != NS_SUCCESS)
        errx(1, "can't start: the system log says why");
    for (int i = 0; i < PARTS; i++)
        if (ns_add_group_job(parts, NS_JOB_THREAD, count, &found[i], NULL) != NS_SUCCESS)
            errx(1, "can't add a part");
    ns_group_release(parts); /* nothing is added any more: the group ends with its last job */
    ns_thrpool_wait(tp);
    ns_thrpool_destroy(tp);
}
