/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * io-timeout - wait for a descriptor, but not for ever
 *
 *     io-timeout [milliseconds]
 *
 * One end of a pair of sockets is read by a job with a time-out. The other end sends once: the job
 * fires with READ. Then it is silent: the job fires with TIMER.
 */
#define _POSIX_C_SOURCE 200809L
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <nunc-stans.h>

struct reader {
    bool got_data, timed_out;
};

static void on_event(struct ns_job_t *job)
{
    struct reader *reader = ns_job_get_data(job);
    ns_job_type_t what = ns_job_get_output_type(job);

    if (NS_JOB_IS_READ(what)) {
        char text[64];
        ssize_t n = read(ns_job_get_native_fd(job), text, sizeof text);
        printf("READ: \"%.*s\"\n", n > 0 ? (int)n : 0, text);
        reader->got_data = n > 0;
        /* Arms the job again when this callback returns, with the full time. */
        if (n > 0 && ns_job_rearm(job) == NS_SUCCESS) {
            return;
        }
    } else {
        /* Never both at once. */
        printf("TIMER: nothing came\n");
        reader->timed_out = NS_JOB_IS_TIMER(what);
    }
    ns_job_done(job); /* closes the descriptor as well */
    ns_thrpool_shutdown(ns_job_get_tp(job));
}

int main(int argc, char **argv)
{
    char *end = "";
    long ms = argc > 1 ? strtol(argv[1], &end, 10) : 200;

    if (argc > 2 || *end != '\0' || ms < 1 || ms > 60000) {
        fprintf(stderr, "usage: io-timeout [milliseconds (1 to 60000)]\n");
        return 2;
    }
    struct ns_thrpool_config config;
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM, 0, ends) < 0) {
        perror("io-timeout: socketpair");
        return 1;
    }
    ns_thrpool_config_init(&config);
    struct ns_thrpool_t *pool = ns_thrpool_new(&config);
    if (!pool) {
        fprintf(stderr, "io-timeout: no pool: the system log says why\n");
        return 1;
    }
    /* Sent before the job is armed. The job fires all the same: it is level-triggered. */
    if (write(ends[1], "hello", 5) != 5) {
        perror("io-timeout: write");
        return 1;
    }
    struct reader reader = {0};
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
    ns_result_t result = ns_add_fd_timeout_job(pool, ends[0], &tv, NS_JOB_READ | NS_JOB_THREAD,
                                               on_event, &reader, NULL);
    if (result != NS_SUCCESS) {
        fprintf(stderr, "io-timeout: the job could not be made: result %d\n", (int)result);
        return 1;
    }
    result = ns_thrpool_wait(pool);
    ns_thrpool_destroy(pool);
    close(ends[1]); /* the other end was the job's */
    return result == NS_SUCCESS && reader.got_data && reader.timed_out ? 0 : 1;
}
