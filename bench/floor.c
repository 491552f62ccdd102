/* SPDX-License-Identifier: GPL-3.0-or-later */
/*
 * The works of the benchmark by hand: raw epoll, a mutex with a condition variable and an intrusive
 * list, a timerfd with a binary heap. About the least that such an interface can cost.
 */
#include "floor-pool.h"
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/timerfd.h>

static void on_run_now(struct job *job)
{
    tally_one();
    free(job);
}

static void post_run_now(void *context)
{
    (void)context;
    post(on_run_now, NULL);
}

static void work_run_now(const struct work *work)
{
    workers(workers_of(work));
    run_now(work, post_run_now, NULL);
}

static void on_hand_off(struct job *job)
{
    hand_off_began();
    free(job);
}

static void post_hand_off(void *context)
{
    (void)context;
    post(on_hand_off, NULL);
}

static void work_hand_off(const struct work *work)
{
    workers(1);
    hand_off(work, post_hand_off, NULL);
}

static void on_rearm(struct job *job)
{
    if (chain_again(job->data))
        push(job);
    else
        free(job);
}

static void start_chain(void *context, struct chain *chain)
{
    (void)context;
    post(on_rearm, chain);
}

static void work_rearm(const struct work *work)
{
    workers(2);
    rearm(work, start_chain, NULL);
}

/* The loop: a handler for each descriptor. */

struct handler {
    void (*func)(struct handler *handler);
    int fd;
    struct job job;       /* queued for the workers */
    struct handler *next; /* in the list of handlers that the workers give back */
};

static int poller;

static void tell(int operation, struct handler *handler, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = handler};
    check(epoll_ctl(poller, operation, handler->fd, &event) == 0, "epoll_ctl");
}

static struct handler *handle(int fd, uint32_t events, void (*func)(struct handler *))
{
    struct handler *handler = calloc(1, sizeof(*handler));
    handler->func = func;
    handler->fd = fd;
    tell(EPOLL_CTL_ADD, handler, events);
    return handler;
}

static void *loop(void *unused)
{
    struct epoll_event events[128];
    (void)unused;
    for (;;) {
        int count = epoll_wait(poller, events, 128, -1);
        for (int i = 0; i < count; i++) {
            struct handler *handler = events[i].data.ptr;
            if (!handler)
                return NULL;
            handler->func(handler);
        }
    }
}

static void on_echo(struct handler *handler)
{
    if (!echo_once(handler->fd)) {
        close(handler->fd);
        free(handler);
    }
}

static void on_echo_oneshot(struct handler *handler)
{
    if (echo_once(handler->fd)) {
        tell(EPOLL_CTL_MOD, handler, EPOLLIN | EPOLLONESHOT);
    } else {
        close(handler->fd);
        free(handler);
    }
}

static void echo(const struct work *work, uint32_t events, void (*func)(struct handler *),
                 void *(*body)(void *), size_t threads)
{
    size_t count;
    int *fds = echo_connections(work, &count);
    for (size_t i = 0; i < count; i++)
        handle(fds[i], events, func);
    free(fds);
    for (size_t i = 0; i < threads; i++)
        thread(body, NULL);
    client_run(work);
}

static void work_echo_loop(const struct work *work)
{
    poller = epoll_create1(EPOLL_CLOEXEC);
    echo(work, EPOLLIN, on_echo, loop, 1);
}

static void work_echo_loop_oneshot(const struct work *work)
{
    poller = epoll_create1(EPOLL_CLOEXEC);
    echo(work, EPOLLIN | EPOLLONESHOT, on_echo_oneshot, loop, 1);
}

/* Two threads, each waiting in epoll: no hand-off, and no thread that owns the poller. */
static void work_echo_shared(const struct work *work)
{
    poller = epoll_create1(EPOLL_CLOEXEC);
    echo(work, EPOLLIN | EPOLLONESHOT, on_echo_oneshot, loop, 2);
}

static void in_worker(struct job *job)
{
    struct handler *handler = job->data;
    handler->func(handler);
}

/* Push all ready handlers to the workers at once. */
static void push_all(const struct epoll_event *events, int count)
{
    pthread_mutex_lock(&queue.lock);
    for (int i = 0; i < count; i++) {
        struct handler *handler = events[i].data.ptr;
        handler->job.func = in_worker;
        handler->job.data = handler;
        handler->job.next = NULL;
        *queue.last = &handler->job;
        queue.last = &handler->job.next;
    }
    size_t idle = queue.idle;
    pthread_mutex_unlock(&queue.lock);
    if (idle > 1 && count > 1)
        pthread_cond_broadcast(&queue.more);
    else if (idle > 0)
        pthread_cond_signal(&queue.more);
}

static void *loop_to_workers(void *unused)
{
    struct epoll_event events[128];
    (void)unused;
    for (;;)
        push_all(events, epoll_wait(poller, events, 128, -1));
    return NULL;
}

static void echo_in_workers(const struct work *work, void (*func)(struct handler *),
                            void *(*body)(void *))
{
    workers(2);
    echo(work, EPOLLIN | EPOLLONESHOT, func, body, 1);
}

static void work_echo_workers(const struct work *work)
{
    poller = epoll_create1(EPOLL_CLOEXEC);
    echo_in_workers(work, on_echo_oneshot, loop_to_workers);
}

/*
 * The same with a poller that only the loop uses. A worker gives the connection back to the loop
 * through a list, and wakes the loop if it sleeps. This is the library's design, by hand.
 */
static struct {
    pthread_mutex_t lock;
    struct handler *first;
    bool asleep;
    int wake;
} returned = {PTHREAD_MUTEX_INITIALIZER, NULL, false, -1};

static void on_echo_give_back(struct handler *handler)
{
    uint64_t one = 1;
    if (!echo_once(handler->fd)) {
        close(handler->fd);
        free(handler);
        return;
    }
    pthread_mutex_lock(&returned.lock);
    handler->next = returned.first;
    returned.first = handler;
    bool wake = returned.asleep;
    returned.asleep = false;
    pthread_mutex_unlock(&returned.lock);
    if (wake)
        check(write(returned.wake, &one, sizeof(one)) == sizeof(one), "write");
}

static void before_the_wait(void)
{
    for (;;) {
        pthread_mutex_lock(&returned.lock);
        struct handler *handler = returned.first;
        returned.first = NULL;
        returned.asleep = !handler;
        pthread_mutex_unlock(&returned.lock);
        if (!handler)
            return;
        for (struct handler *next; handler; handler = next) {
            next = handler->next;
            tell(EPOLL_CTL_MOD, handler, EPOLLIN | EPOLLONESHOT);
        }
    }
}

static void *owning_loop_to_workers(void *unused)
{
    struct epoll_event events[128];
    uint64_t wakes;
    (void)unused;
    for (;;) {
        before_the_wait();
        int count = epoll_wait(poller, events, 128, -1);
        pthread_mutex_lock(&returned.lock);
        returned.asleep = false;
        pthread_mutex_unlock(&returned.lock);
        for (int i = 0; i < count; i++) {
            if (!events[i].data.ptr) {
                check(read(returned.wake, &wakes, sizeof(wakes)) == sizeof(wakes), "read");
                events[i] = events[--count];
            }
        }
        if (count > 0)
            push_all(events, count);
    }
    return NULL;
}

static void work_echo_owned(const struct work *work)
{
    poller = epoll_create1(EPOLL_CLOEXEC);
    returned.wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    check(epoll_ctl(poller, EPOLL_CTL_ADD, returned.wake, &event) == 0, "epoll_ctl");
    echo_in_workers(work, on_echo_give_back, owning_loop_to_workers);
}

static void on_first_byte(struct handler *handler)
{
    echo_once(handler->fd);
    close(handler->fd);
    free(handler);
}

static void on_connection(struct handler *handler)
{
    int fd = accept4(handler->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0)
        handle(fd, EPOLLIN, on_first_byte);
}

static void work_accept(const struct work *work)
{
    int listener = accept_listener();
    poller = epoll_create1(EPOLL_CLOEXEC);
    handle(listener, EPOLLIN, on_connection);
    thread(loop, NULL);
    client_run(work);
}

/* Timers: a binary heap under a lock. */

struct timer {
    uint64_t deadline;
    size_t at; /* index in the heap */
    struct due *due;
    struct handler *handler; /* if it belongs to an idle descriptor */
};

static struct {
    pthread_mutex_t lock;
    struct timer **all;
    size_t count, room;
    int fd;
    uint64_t set; /* the deadline that fd is set to */
} heap = {PTHREAD_MUTEX_INITIALIZER, NULL, 0, 0, -1, UINT64_MAX};

static void place(struct timer *timer, size_t at)
{
    heap.all[at] = timer;
    timer->at = at;
}

static void sift(struct timer *timer)
{
    size_t at = timer->at;
    while (at > 0 && heap.all[(at - 1) / 2]->deadline > timer->deadline) {
        place(heap.all[(at - 1) / 2], at);
        at = (at - 1) / 2;
    }
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= heap.count)
            break;
        if (child + 1 < heap.count &&
            heap.all[child + 1]->deadline < heap.all[child]->deadline)
            child++;
        if (heap.all[child]->deadline >= timer->deadline)
            break;
        place(heap.all[child], at);
        at = child;
    }
    place(timer, at);
}

static void take_out(struct timer *timer)
{
    struct timer *last = heap.all[--heap.count];
    if (last != timer) {
        last->at = timer->at;
        sift(last);
    }
}

static void set_timer(uint64_t deadline)
{
    struct itimerspec when = {{0, 0},
                              {(time_t)(deadline / 1000000000), (long)(deadline % 1000000000)}};
    heap.set = deadline;
    timerfd_settime(heap.fd, TFD_TIMER_ABSTIME, &when, NULL);
}

static void put_in(struct timer *timer)
{
    if (heap.count == heap.room) {
        heap.room = heap.room ? heap.room * 2 : 64;
        heap.all = realloc(heap.all, heap.room * sizeof(struct timer *));
    }
    timer->at = heap.count++;
    sift(timer);
    if (timer->deadline < heap.set)
        set_timer(timer->deadline);
}

static void on_time(struct handler *handler)
{
    uint64_t expirations;
    bool expired = read(handler->fd, &expirations, sizeof(expirations)) > 0;
    pthread_mutex_lock(&heap.lock);
    if (expired)
        heap.set = UINT64_MAX;
    uint64_t now = nanoseconds();
    while (heap.count > 0) {
        struct timer *timer = heap.all[0];
        if (timer->deadline > now && timer->deadline > (now = nanoseconds()))
            break;
        take_out(timer);
        pthread_mutex_unlock(&heap.lock);
        timer_fired(timer->due);
        free(timer);
        pthread_mutex_lock(&heap.lock);
    }
    if (heap.count > 0 && heap.all[0]->deadline < heap.set)
        set_timer(heap.all[0]->deadline);
    pthread_mutex_unlock(&heap.lock);
}

static void *timer_add(uint64_t delay_us, struct due *due)
{
    struct timer *timer = malloc(sizeof(*timer));
    timer->deadline = nanoseconds() + delay_us * 1000;
    timer->due = due;
    pthread_mutex_lock(&heap.lock);
    put_in(timer);
    pthread_mutex_unlock(&heap.lock);
    return timer;
}

static void timer_cancel(void *timer)
{
    pthread_mutex_lock(&heap.lock);
    take_out(timer);
    pthread_mutex_unlock(&heap.lock);
    free(timer);
}

static void settle(void)
{
}

static const struct timers by_hand = {timer_add, timer_cancel, settle, NULL};

static void start_loop(void)
{
    poller = epoll_create1(EPOLL_CLOEXEC);
    heap.fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    handle(heap.fd, EPOLLIN, on_time);
    thread(loop, NULL);
}

static void work_timers(const struct work *work)
{
    start_loop();
    timers(work, &by_hand);
}

static void work_timers_fire(const struct work *work)
{
    start_loop();
    timers_fire(work, &by_hand);
}

static void work_timers_due(const struct work *work)
{
    start_loop();
    timers_due(work, &by_hand);
}

/* An idle descriptor, with its handler and its timer. */
struct watched {
    struct handler handler;
    struct timer timer;
    size_t which;
};

static void on_idle(struct handler *handler)
{
    struct watched *watched = (struct watched *)(void *)handler;
    idle_touched(watched->which);
    pthread_mutex_lock(&heap.lock);
    watched->timer.deadline = nanoseconds() + IDLE_SECONDS * 1000000000ULL;
    sift(&watched->timer);
    pthread_mutex_unlock(&heap.lock);
}

static void watch(size_t which, int fd)
{
    struct watched *watched = calloc(1, sizeof(*watched));
    watched->handler.func = on_idle;
    watched->handler.fd = fd;
    watched->timer.deadline = nanoseconds() + IDLE_SECONDS * 1000000000ULL;
    watched->which = which;
    pthread_mutex_lock(&heap.lock);
    put_in(&watched->timer);
    pthread_mutex_unlock(&heap.lock);
    tell(EPOLL_CTL_ADD, &watched->handler, EPOLLIN);
}

static void work_idle(const struct work *work)
{
    start_loop();
    idle(work, watch, settle);
}

static void on_signal(struct handler *handler)
{
    struct signalfd_siginfo info;
    if (read(handler->fd, &info, sizeof(info)) > 0)
        sem_post(&begun);
}

static void work_signals(const struct work *work)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    start_loop();
    handle(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), EPOLLIN, on_signal);
    signals(work);
}

/* Make a poller, a timerfd, an eventfd for waking, a loop and two workers, and stop them again. */
static void once(void)
{
    pthread_t threads[2], looping;
    poller = epoll_create1(EPOLL_CLOEXEC);
    int timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    int wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    struct handler *handler = handle(timer, EPOLLIN, on_time);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL};
    epoll_ctl(poller, EPOLL_CTL_ADD, wake, &event);
    looping = thread(loop, NULL);
    start_workers(threads, 2);
    pthread_mutex_lock(&queue.lock);
    queue.closed = true;
    pthread_mutex_unlock(&queue.lock);
    pthread_cond_broadcast(&queue.more);
    for (size_t i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    uint64_t one = 1;
    check(write(wake, &one, sizeof(one)) == sizeof(one), "write");
    pthread_join(looping, NULL);
    free(handler);
    close(timer);
    close(wake);
    close(poller);
}

static void work_start_stop(const struct work *work)
{
    start_stop(work, once);
}

const struct work works[] = {
    {"run-now", "1x1", work_run_now},
    {"run-now", "1x2", work_run_now},
    {"run-now", "1x8", work_run_now},
    {"run-now", "2x1", work_run_now},
    {"run-now", "2x2", work_run_now},
    {"run-now", "2x8", work_run_now},
    {"run-now-window", "1x1", work_run_now},
    {"run-now-window", "1x2", work_run_now},
    {"run-now-window", "2x2", work_run_now},
    {"hand-off", "busy", work_hand_off},
    {"hand-off", "idle", work_hand_off},
    {"rearm", "1", work_rearm},
    {"rearm", "4", work_rearm},
    {"rearm", "64", work_rearm},
    {"echo-loop", "1", work_echo_loop},
    {"echo-loop", "32", work_echo_loop},
    {"echo-loop", "1000", work_echo_loop},
    {"echo-loop-oneshot", "32", work_echo_loop_oneshot},
    {"echo-workers", "1", work_echo_workers},
    {"echo-workers", "32", work_echo_workers},
    {"echo-workers", "1000", work_echo_workers},
    {"echo-workers-shared", "32", work_echo_shared},
    {"echo-workers-owned", "32", work_echo_owned},
    {"echo-workers-owned", "1000", work_echo_owned},
    {"echo-loop-tcp", "32", work_echo_loop},
    {"echo-workers-tcp", "32", work_echo_workers},
    {"accept", "16", work_accept},
    {"timers", "1000", work_timers},
    {"timers", "10000", work_timers},
    {"timers", "100000", work_timers},
    {"timers", "1000000", work_timers},
    {"timers-fire", "100000", work_timers_fire},
    {"timers-fire", "1000000", work_timers_fire},
    {"timers-due", "200000", work_timers_due},
    {"idle", "100", work_idle},
    {"idle", "1000", work_idle},
    {"idle", "19000", work_idle},
    {"signals", "1", work_signals},
    {"start-stop", "2", work_start_stop},
    {"group-post", "1x1", work_groups},
    {"group-post", "1x2", work_groups},
    {"group-post", "2x2", work_groups},
    {"group-post-window", "1x1", work_groups},
    {"group-post-window", "1x2", work_groups},
    {"groups", "1000:1x1", work_groups},
    {"groups", "1000:1x2", work_groups},
    {"groups", "1000:2x1", work_groups},
    {"groups", "1000:2x2", work_groups},
    {"groups", "10000:1x1", work_groups},
    {"groups", "10000:1x2", work_groups},
    {"groups", "10000:2x1", work_groups},
    {"groups", "10000:2x2", work_groups},
    {"groups-window", "1000:1x1", work_groups},
    {"groups-window", "1000:2x2", work_groups},
    {"groups-window", "10000:2x2", work_groups},
    {"groups-idle", "1000", work_groups_idle},
    {"groups-idle", "10000", work_groups_idle},
    {"group-ping", "1", work_group_ping},
    {"group-ping", "2", work_group_ping},
    {"overburdened", "one-loop", work_overburdened},
    {"overburdened", "all-loops", work_overburdened},
    {NULL, NULL, NULL},
};
