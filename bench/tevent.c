/* SPDX-License-Identifier: GPL-3.0-or-later */
/* The works of the benchmark that frameworks are compared by, through tevent: one loop, in its own
 * thread. tevent is not safe for threads, so timers are added before the loop begins. */
#include "bench.h"
#include <talloc.h>
#include <tevent.h>

static struct tevent_context *ev;

static void *loop(void *unused)
{
    (void)unused;
    tevent_loop_wait(ev);
    return NULL;
}

static void on_echo(struct tevent_context *context, struct tevent_fd *event, uint16_t flags, void *argument)
{
    int fd = *(int *)argument;
    (void)context, (void)flags;
    if (!echo_once(fd)) {
        talloc_free(event);
        close(fd);
    }
}

static void work_echo_loop(const struct work *work)
{
    size_t count;
    int *fds = echo_connections(work, &count);
    ev = tevent_context_init(NULL);
    for (size_t i = 0; i < count; i++)
        tevent_add_fd(ev, ev, fds[i], TEVENT_FD_READ, on_echo, &fds[i]);
    thread(loop, NULL);
    client_run(work);
}

static void on_timer(struct tevent_context *context, struct tevent_timer *timer, struct timeval now,
                     void *argument)
{
    (void)context, (void)timer, (void)now;
    timer_fired((struct due *)argument);
}

static void *timer_add(uint64_t delay_us, struct due *due)
{
    struct timeval at = tevent_timeval_current_ofs((uint32_t)(delay_us / 1000000), (uint32_t)(delay_us % 1000000));
    return tevent_add_timer(ev, ev, at, on_timer, due);
}

static void timer_cancel(void *timer)
{
    talloc_free(timer);
}

static void settle(void)
{
}

static void start_and_wait(void)
{
    thread(loop, NULL);
    tally_wait();
}

static const struct timers of_tevent = {timer_add, timer_cancel, settle, start_and_wait};

static void work_timers_due(const struct work *work)
{
    ev = tevent_context_init(NULL);
    timers_due(work, &of_tevent);
}

const struct work works[] = {
    {"echo-loop", "1", work_echo_loop},
    {"echo-loop", "32", work_echo_loop},
    {"echo-loop", "1000", work_echo_loop},
    {"timers-due", "200000", work_timers_due},
    {NULL, NULL, NULL},
};
