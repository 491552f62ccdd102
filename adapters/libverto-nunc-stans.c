/* SPDX-License-Identifier: GPL-3.0-or-later */
/* With additional permission to link OpenSSL: see COPYING.openssl. */
/*
 * libverto-nunc-stans.so - a module of libverto: its event contexts on a pool
 *
 * libverto loads a module by name, from its own folder and with its own suffix: if it is itself
 * FOLDER/libverto.so.1, verto_default("nunc-stans", 0) loads FOLDER/libverto-nunc-stans.so.1. adapters/README.md
 * shows how an unmodified program is put on it.
 *
 * One thread. A context is for one thread, so its pool has no threads: the caller of verto_run is the loop.
 *
 * Forks. A daemon makes its context, forks, and runs it in the child. So the pool is made by the first run, and
 * again by the first run after verto_reinitialize. Until then an event is only recorded; the time of a timer
 * begins with its job. Signals are caught from the start, all the same.
 *
 * Callbacks. A job's callback only notes that its event is ready. When the turn has returned, the event's
 * callback is called from outside the pool. So it may fork and return in the child, call verto_reinitialize, or
 * run the context again.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <nunc-stans.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

struct context;
struct event;
#define VERTO_MODULE_TYPES
typedef struct context verto_mod_ctx;
typedef struct event verto_mod_ev;
#include <verto-module.h>

#ifdef SYS_pidfd_open
enum { CHILDREN = VERTO_EV_TYPE_CHILD };
#else
enum { CHILDREN = 0 };
#endif

enum { RANKS = 3 }; /* high priority; medium, or none told; low */

struct links {
    struct event *next, **at;
};

struct event {
    struct context *context;
    verto_ev *verto;
    /* Descriptors have a job for each direction, so a change of directions allocates nothing. Of the others the
     * first is the only one. */
    struct ns_job_t *jobs[2];
    int armed[2];
    verto_ev_flag state; /* the directions that are ready */
    int pidfd;
    int caught; /* by early_signal */
    struct links all, ready;
};

struct context {
    ns_thrpool_t *tp;
    struct event *events;
    struct event *ready[RANKS], **ready_end[RANKS];
    size_t idle; /* how many events are for an idle loop */
    int exit;
};

/* The signals before there is a pool. */
static struct early {
    struct sigaction before;
    unsigned events;
    volatile sig_atomic_t came;
} early[NSIG];

static void early_signal(int signum)
{
    early[signum].came = 1;
}

static int catch_early(struct event *event)
{
    int signum = verto_get_signal(event->verto);
    if (signum < 1 || signum >= NSIG)
        return 0;
    struct sigaction action = {.sa_handler = early_signal, .sa_flags = SA_RESTART};
    sigfillset(&action.sa_mask);
    if (early[signum].events == 0) {
        early[signum].came = 0;
        if (sigaction(signum, &action, &early[signum].before) != 0)
            return 0;
    }
    early[signum].events++;
    return event->caught = 1;
}

static void uncatch_early(struct event *event)
{
    int signum = verto_get_signal(event->verto);
    event->caught = 0;
    if (--early[signum].events == 0)
        sigaction(signum, &early[signum].before, NULL);
}

static size_t rank(const struct event *event)
{
    verto_ev_flag flags = verto_get_flags(event->verto);
    return flags & VERTO_EV_FLAG_PRIORITY_HIGH ? 0 : flags & VERTO_EV_FLAG_PRIORITY_LOW ? 2 : 1;
}

static void set_ready(struct event *event, verto_ev_flag state)
{
    struct context *ctx = event->context;
    event->state |= state;
    if (event->ready.at != NULL)
        return;
    size_t r = rank(event);
    event->ready.next = NULL;
    event->ready.at = ctx->ready_end[r];
    *ctx->ready_end[r] = event;
    ctx->ready_end[r] = &event->ready.next;
}

static void unset_ready(struct event *event)
{
    struct context *ctx = event->context;
    if (event->ready.at == NULL)
        return;
    *event->ready.at = event->ready.next;
    if (event->ready.next != NULL)
        event->ready.next->ready.at = event->ready.at;
    for (size_t r = 0; r < RANKS; r++)
        if (ctx->ready_end[r] == &event->ready.next)
            ctx->ready_end[r] = event->ready.at;
    event->ready.at = NULL;
    event->state = VERTO_EV_FLAG_NONE;
}

static struct event *first_ready(const struct context *ctx)
{
    for (size_t r = 0; r < RANKS; r++)
        if (ctx->ready[r] != NULL)
            return ctx->ready[r];
    return NULL;
}

static void on_job(struct ns_job_t *job) /* PERSIST arms it again */
{
    set_ready((struct event *)ns_job_get_data(job), VERTO_EV_FLAG_NONE);
}

static const verto_ev_flag direction[2] = {VERTO_EV_FLAG_IO_READ, VERTO_EV_FLAG_IO_WRITE};

static void on_descriptor(struct ns_job_t *job)
{
    struct event *event = (struct event *)ns_job_get_data(job);
    int i = job == event->jobs[1];
    event->armed[i] = 0;
    if (!(verto_get_flags(event->verto) & direction[i]))
        return;
    event->armed[i] = ns_job_rearm(job) == NS_SUCCESS;
    set_ready(event, direction[i]);
}

/* A job that is armed for a direction that is not wanted any more fires once at most, and is not armed again. */
static void watch_descriptor(struct event *event)
{
    for (int i = 0; i < 2; i++)
        if (!event->armed[i] && verto_get_flags(event->verto) & direction[i])
            event->armed[i] = ns_job_rearm(event->jobs[i]) == NS_SUCCESS;
}

static int make_descriptor_jobs(struct event *event, int fd)
{
    static const ns_job_type_t types[2] = {NS_JOB_READ, NS_JOB_WRITE};
    for (int i = 0; i < 2; i++)
        if (ns_add_fd_job(event->context->tp, fd, types[i] | NS_JOB_PRESERVE_FD | NS_JOB_UNARMED, on_descriptor,
                          event, &event->jobs[i]) != NS_SUCCESS)
            return 0;
    watch_descriptor(event);
    return 1;
}

static int make_timer(struct event *event)
{
    time_t ms = verto_get_interval(event->verto);
    struct timeval tv = {0, 0};
    if (ms > 0) {
        tv.tv_sec = ms / 1000;
        tv.tv_usec = ms % 1000 * 1000;
    }
    return ns_add_timeout_job(event->context->tp, &tv, NS_JOB_PERSIST | (ms > 0 ? NS_JOB_CADENCE : 0), on_job, event,
                              &event->jobs[0]) == NS_SUCCESS;
}

static void cancel_jobs(struct event *event)
{
    for (int i = 0; i < 2; i++) {
        if (event->jobs[i] != NULL)
            ns_job_cancel(event->jobs[i]);
        event->jobs[i] = NULL;
    }
}

static int make_jobs(struct event *event)
{
    switch (verto_get_type(event->verto)) {
    case VERTO_EV_TYPE_IO:
        return make_descriptor_jobs(event, verto_get_fd(event->verto));
    case VERTO_EV_TYPE_TIMEOUT:
        return make_timer(event);
    case VERTO_EV_TYPE_SIGNAL:
        return ns_add_signal_job(event->context->tp, verto_get_signal(event->verto), NS_JOB_PERSIST, on_job, event,
                                 &event->jobs[0]) == NS_SUCCESS;
    case VERTO_EV_TYPE_CHILD:
        return ns_add_fd_job(event->context->tp, event->pidfd, NS_JOB_READ | NS_JOB_PRESERVE_FD, on_job, event,
                             &event->jobs[0]) == NS_SUCCESS;
    default:
        return 1;
    }
}

static int make_pool(struct context *ctx)
{
    if (ctx->tp != NULL)
        return 1;
    struct ns_thrpool_config config;
    struct ns_thrpool_options options;
    ns_thrpool_config_init(&config);
    ns_thrpool_options_init(&options, sizeof options);
    config.max_threads = 0;
    options.flags = NS_POOL_CALLER_LOOP;
    ctx->tp = ns_thrpool_new_with(&config, &options);
    if (ctx->tp == NULL)
        return 0;
    sigset_t all, mask;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &mask); /* no signal comes between the early handler and the library's */
    for (struct event *event = ctx->events; event != NULL; event = event->all.next)
        if (event->caught) {
            uncatch_early(event);
            if (early[verto_get_signal(event->verto)].came)
                set_ready(event, VERTO_EV_FLAG_NONE);
        }
    /* It is too late to refuse a descriptor that can't be watched: it is ready, with an error. The log says why. */
    for (struct event *event = ctx->events; event != NULL; event = event->all.next)
        if (!make_jobs(event) && verto_get_type(event->verto) == VERTO_EV_TYPE_IO)
            set_ready(event, VERTO_EV_FLAG_IO_ERROR);
    pthread_sigmask(SIG_SETMASK, &mask, NULL);
    return 1;
}

/* In a forked child this closes the descriptors of the parent's pool, and nothing else. */
static void end_pool(struct context *ctx)
{
    if (ctx->tp == NULL)
        return;
    ns_thrpool_shutdown(ctx->tp);
    ns_thrpool_destroy(ctx->tp);
    ctx->tp = NULL;
}

static verto_mod_ctx *ctx_new(void)
{
    struct context *ctx = calloc(1, sizeof *ctx);
    for (size_t r = 0; ctx != NULL && r < RANKS; r++)
        ctx->ready_end[r] = &ctx->ready[r];
    return ctx;
}

/* libverto has deleted the events. */
static void ctx_free(verto_mod_ctx *ctx)
{
    end_pool(ctx);
    free(ctx);
}

/* poll(2) knows more than the directions: libverto's users may ask whether there is an error. */
static verto_ev_flag descriptor_state(const struct event *event)
{
    struct pollfd fd = {.fd = verto_get_fd(event->verto), .events = POLLIN | POLLOUT};
    if (poll(&fd, 1, 0) == 1 &&
        (fd.revents & (POLLERR | POLLNVAL) || (fd.revents & (POLLHUP | POLLIN)) == POLLHUP))
        return VERTO_EV_FLAG_IO_ERROR;
    return event->state;
}

/* The callback may delete the event, and the end of verto_fire does unless it is persistent. Such a one must not be
 * ready again if the callback runs the context. */
static void fire(struct event *event)
{
    verto_ev *ev = event->verto;
    int status = 0;
    switch (verto_get_type(ev)) {
    case VERTO_EV_TYPE_IO:
        verto_set_fd_state(ev, descriptor_state(event));
        break;
    case VERTO_EV_TYPE_CHILD:
        if (waitpid(verto_get_proc(ev), &status, WNOHANG) == verto_get_proc(ev))
            verto_set_proc_status(ev, status);
        break;
    default:
        break;
    }
    unset_ready(event);
    if (!(verto_get_flags(ev) & VERTO_EV_FLAG_PERSIST))
        cancel_jobs(event);
    verto_fire(ev);
}

/* Wait until an event is ready. 0 if that can't be. */
static int wait_ready(struct context *ctx)
{
    static const struct timeval none = {0, 0};
    while (first_ready(ctx) == NULL) {
        ns_result_t result = ns_thrpool_turn(ctx->tp, ctx->idle > 0 ? &none : NULL);
        if (result == NS_TIMEOUT)
            for (struct event *event = ctx->events; event != NULL; event = event->all.next)
                if (verto_get_type(event->verto) == VERTO_EV_TYPE_IDLE)
                    set_ready(event, VERTO_EV_FLAG_NONE);
        if (result != NS_SUCCESS && result != NS_TIMEOUT)
            return 0;
    }
    return 1;
}

/* A callback may reinitialize the context: then the next wait has to make a pool. */
static void run(struct context *ctx, int once)
{
    while (!ctx->exit && make_pool(ctx) && wait_ready(ctx)) {
        for (struct event *event; !ctx->exit && (event = first_ready(ctx)) != NULL;)
            fire(event);
        if (once)
            break;
    }
    ctx->exit = 0;
}

static void ctx_run(verto_mod_ctx *ctx)
{
    run(ctx, 0);
}

static void ctx_run_once(verto_mod_ctx *ctx)
{
    if (ctx->events != NULL)
        run(ctx, 1);
}

static void ctx_break(verto_mod_ctx *ctx)
{
    ctx->exit = 1;
}

static void ctx_set_flags(verto_mod_ctx *ctx, const verto_ev *ev, verto_mod_ev *event)
{
    if (ctx->tp != NULL && verto_get_type(ev) == VERTO_EV_TYPE_IO && event->jobs[1] != NULL)
        watch_descriptor(event);
}

static void ctx_del(verto_mod_ctx *ctx, const verto_ev *ev, verto_mod_ev *event)
{
    unset_ready(event);
    cancel_jobs(event);
    if (event->caught)
        uncatch_early(event);
    if (event->pidfd >= 0)
        close(event->pidfd);
    ctx->idle -= verto_get_type(ev) == VERTO_EV_TYPE_IDLE;
    *event->all.at = event->all.next;
    if (event->all.next != NULL)
        event->all.next->all.at = event->all.at;
    free(event);
}

/* libverto has deleted the events, and adds those again that outlive this. One whose callback runs it only marks as
 * deleted, and adds it again. */
static void ctx_reinitialize(verto_mod_ctx *ctx)
{
    while (ctx->events != NULL)
        ctx_del(ctx, ctx->events->verto, ctx->events);
    end_pool(ctx);
}

/* What an event needs before there is a pool. */
static int prepare(struct event *event)
{
    switch (verto_get_type(event->verto)) {
    case VERTO_EV_TYPE_IO:
        return fcntl(verto_get_fd(event->verto), F_GETFD) >= 0;
    case VERTO_EV_TYPE_SIGNAL:
        return event->context->tp != NULL || catch_early(event);
#ifdef SYS_pidfd_open
    case VERTO_EV_TYPE_CHILD:
        event->pidfd = (int)syscall(SYS_pidfd_open, verto_get_proc(event->verto), 0);
        return event->pidfd >= 0;
#endif
    case VERTO_EV_TYPE_TIMEOUT:
        return 1;
    case VERTO_EV_TYPE_IDLE:
        event->context->idle++;
        return 1;
    default:
        return 0;
    }
}

static verto_mod_ev *ctx_add(verto_mod_ctx *ctx, const verto_ev *ev, verto_ev_flag *flags)
{
    struct event *event = calloc(1, sizeof *event);
    if (event == NULL)
        return NULL;
    event->context = ctx;
    event->verto = (verto_ev *)ev; /* libverto's own, which it lends as const */
    event->pidfd = -1;
    event->all.next = ctx->events;
    event->all.at = &ctx->events;
    if (ctx->events != NULL)
        ctx->events->all.at = &event->all.next;
    ctx->events = event;
    if (!prepare(event) || (ctx->tp != NULL && !make_jobs(event))) {
        ctx_del(ctx, ev, event);
        return NULL;
    }
    if (verto_get_type(ev) != VERTO_EV_TYPE_CHILD)
        *flags |= VERTO_EV_FLAG_PERSIST; /* jobs are armed again here, not by libverto */
    return event;
}

static verto_ctx_funcs funcs = {
    .ctx_new = ctx_new,
    .ctx_free = ctx_free,
    .ctx_run = ctx_run,
    .ctx_run_once = ctx_run_once,
    .ctx_break = ctx_break,
    .ctx_reinitialize = ctx_reinitialize,
    .ctx_set_flags = ctx_set_flags,
    .ctx_add = ctx_add,
    .ctx_del = ctx_del,
};

/* A program that is linked to the library gets this module if it names none. */
verto_module verto_module_table_nunc_stans = {
    VERTO_MODULE_VERSION,
    "nunc-stans",
    "ns_thrpool_new",
    VERTO_EV_TYPE_IO | VERTO_EV_TYPE_TIMEOUT | VERTO_EV_TYPE_IDLE | VERTO_EV_TYPE_SIGNAL | CHILDREN,
    &funcs,
};

/* libverto takes the table's name from the file's, and C has no names with a hyphen. */
__asm__(".globl \"verto_module_table_nunc-stans\"\n"
        ".set \"verto_module_table_nunc-stans\", verto_module_table_nunc_stans\n");
