/* SPDX-License-Identifier: GPL-3.0-or-later */
/* With additional permission to link OpenSSL: see COPYING.openssl. */
/*
 * nunc-stans-dbus.h - a connection of libdbus on a pool
 *
 * libdbus runs filters, methods and replies one at a time. So give a connection a group of width 1, and make
 * every call on it in a callback of a job of that group. libdbus' own callbacks run there, too.
 *
 *     static void begin(struct ns_job_t *job)
 *     {
 *         DBusConnection *bus = dbus_bus_get_private(DBUS_BUS_SYSTEM, NULL);   waits for the bus
 *         dbus_connection_set_exit_on_disconnect(bus, FALSE);
 *         if (dbusNuncStansAttach(bus, ns_job_get_group(job), &self) &&
 *             dbus_connection_send_with_reply(bus, message, &pending, timeout_ms))
 *             dbus_pending_call_set_notify(pending, on_reply, data, NULL);
 *         ns_job_done(job);
 *     }
 *     ns_add_group_job(group, NS_JOB_THREAD, begin, NULL, NULL);
 *
 * When the connection is lost, filters get errors for the calls that are under way and then the signal Disconnected
 * of DBUS_INTERFACE_LOCAL. libdbus does not call the notify functions of these calls. Its functions that wait, such as
 * dbus_connection_send_with_reply_and_block, still block their thread.
 *
 * The end. dbusNuncStansDetach in a callback of the group, libdbus' own included, or in any one thread after
 * ns_thrpool_wait and before ns_thrpool_destroy; then dbus_connection_close and dbus_connection_unref. Do not
 * cancel the group before.
 *
 * Written for libdbus 1.14.
 */
#ifndef NUNC_STANS_DBUS_H
#define NUNC_STANS_DBUS_H

#include <dbus/dbus.h>
#include <nunc-stans.h>
#include <stdlib.h>

struct dbusNuncStans {
    DBusConnection *connection;
    struct ns_group_t *group;
    struct ns_job_t *dispatcher;
    int dispatching; /* the dispatcher is armed */
    int inside;      /* in the dispatcher's callback, which frees this at its end */
    int detached;
};

/* A watch or a timeout of libdbus. Its job is made when that is added, so enabling it never lacks memory. */
struct dbusNuncStansSource {
    struct dbusNuncStans *all;
    DBusWatch *watch;
    DBusTimeout *timeout;
    struct ns_job_t *job;
    int armed;
    int firing;  /* in the job's callback, which frees or rearms it at its end */
    int removed; /* libdbus is through with it */
};

static inline dbus_bool_t dbusNuncStansIsEnabled(const struct dbusNuncStansSource *source)
{
    return source->watch != NULL ? dbus_watch_get_enabled(source->watch) : dbus_timeout_get_enabled(source->timeout);
}

/* A job that is armed and not wanted any more fires once at most, and is not armed again. */
static inline void dbusNuncStansArm(struct dbusNuncStansSource *source)
{
    if (!source->firing && !source->armed && dbusNuncStansIsEnabled(source))
        source->armed = ns_job_rearm(source->job) == NS_SUCCESS;
}

static inline void dbusNuncStansOnSource(struct ns_job_t *job)
{
    struct dbusNuncStansSource *source = (struct dbusNuncStansSource *)ns_job_get_data(job);
    source->armed = 0;
    source->firing = 1;
    if (!dbusNuncStansIsEnabled(source)) {
        source->firing = 0;
        return;
    }
    if (source->watch != NULL)
        dbus_watch_handle(source->watch, dbus_watch_get_flags(source->watch) &
                                             (unsigned)(DBUS_WATCH_READABLE | DBUS_WATCH_WRITABLE));
    else
        dbus_timeout_handle(source->timeout);
    source->firing = 0;
    if (source->removed) {
        ns_job_done(job);
        free(source);
    } else {
        dbusNuncStansArm(source);
    }
}

static inline struct ns_job_t *dbusNuncStansMakeJob(struct dbusNuncStansSource *source)
{
    ns_thrpool_t *tp = ns_group_get_tp(source->all->group);
    struct ns_job_t *job;
    ns_result_t result;
    if (source->watch != NULL) {
        unsigned flags = dbus_watch_get_flags(source->watch);
        ns_job_type_t directions = (flags & DBUS_WATCH_READABLE ? NS_JOB_READ : NS_JOB_NONE) |
                                   (flags & DBUS_WATCH_WRITABLE ? NS_JOB_WRITE : NS_JOB_NONE);
        result = ns_add_fd_job(tp, dbus_watch_get_unix_fd(source->watch),
                               directions | NS_JOB_THREAD | NS_JOB_PRESERVE_FD | NS_JOB_UNARMED,
                               dbusNuncStansOnSource, source, &job);
    } else {
        int ms = dbus_timeout_get_interval(source->timeout);
        struct timeval tv;
        tv.tv_sec = ms / 1000;
        tv.tv_usec = ms % 1000 * 1000;
        result = ns_add_timeout_job(tp, &tv, NS_JOB_THREAD | NS_JOB_UNARMED, dbusNuncStansOnSource, source, &job);
    }
    if (result != NS_SUCCESS)
        return NULL;
    ns_job_set_group(job, source->all->group);
    return job;
}

/* libdbus says the rest to its objects: a source is their data. */
static inline struct dbusNuncStansSource *dbusNuncStansAdd(void *self, DBusWatch *watch, DBusTimeout *timeout)
{
    struct dbusNuncStansSource *source = (struct dbusNuncStansSource *)calloc(1, sizeof *source);
    if (source == NULL)
        return NULL;
    source->all = (struct dbusNuncStans *)self;
    source->watch = watch;
    source->timeout = timeout;
    source->job = dbusNuncStansMakeJob(source);
    if (source->job == NULL) {
        free(source);
        return NULL;
    }
    dbusNuncStansArm(source);
    return source;
}

static inline void dbusNuncStansRemove(struct dbusNuncStansSource *source)
{
    if (source == NULL)
        return;
    source->removed = 1;
    if (source->firing)
        return;
    ns_job_cancel(source->job); /* none of its callbacks begins any more, and it does not run */
    free(source);
}

static inline dbus_bool_t dbusNuncStansAddWatch(DBusWatch *watch, void *self)
{
    struct dbusNuncStansSource *source = dbusNuncStansAdd(self, watch, NULL);
    dbus_watch_set_data(watch, source, NULL);
    return source != NULL;
}

static inline void dbusNuncStansRemoveWatch(DBusWatch *watch, void *self)
{
    (void)self;
    dbusNuncStansRemove((struct dbusNuncStansSource *)dbus_watch_get_data(watch));
    dbus_watch_set_data(watch, NULL, NULL);
}

static inline void dbusNuncStansToggleWatch(DBusWatch *watch, void *self)
{
    (void)self;
    dbusNuncStansArm((struct dbusNuncStansSource *)dbus_watch_get_data(watch));
}

static inline dbus_bool_t dbusNuncStansAddTimeout(DBusTimeout *timeout, void *self)
{
    struct dbusNuncStansSource *source = dbusNuncStansAdd(self, NULL, timeout);
    dbus_timeout_set_data(timeout, source, NULL);
    return source != NULL;
}

static inline void dbusNuncStansRemoveTimeout(DBusTimeout *timeout, void *self)
{
    (void)self;
    dbusNuncStansRemove((struct dbusNuncStansSource *)dbus_timeout_get_data(timeout));
    dbus_timeout_set_data(timeout, NULL, NULL);
}

/* The interval begins anew, and may be another. If that job can't be had, the old one stays. */
static inline void dbusNuncStansToggleTimeout(DBusTimeout *timeout, void *self)
{
    struct dbusNuncStansSource *source = (struct dbusNuncStansSource *)dbus_timeout_get_data(timeout);
    struct ns_job_t *job;
    (void)self;
    if (source->firing || !dbusNuncStansIsEnabled(source))
        return;
    job = dbusNuncStansMakeJob(source);
    if (job != NULL) {
        ns_job_cancel(source->job);
        source->job = job;
        source->armed = 0;
    }
    dbusNuncStansArm(source);
}

static inline void dbusNuncStansWake(struct dbusNuncStans *self)
{
    if (!self->dispatching)
        self->dispatching = ns_job_rearm(self->dispatcher) == NS_SUCCESS;
}

/* One message at a time, so that the group's other jobs have their turn. */
static inline void dbusNuncStansDispatch(struct ns_job_t *job)
{
    struct dbusNuncStans *self = (struct dbusNuncStans *)ns_job_get_data(job);
    DBusDispatchStatus status;
    self->dispatching = 0;
    self->inside = 1;
    status = dbus_connection_dispatch(self->connection);
    self->inside = 0;
    if (self->detached)
        free(self);
    else if (status != DBUS_DISPATCH_COMPLETE)
        dbusNuncStansWake(self);
}

/* libdbus must not dispatch in here. */
static inline void dbusNuncStansOnStatus(DBusConnection *connection, DBusDispatchStatus status, void *self)
{
    (void)connection;
    if (status != DBUS_DISPATCH_COMPLETE)
        dbusNuncStansWake((struct dbusNuncStans *)self);
}

/** Take a connection off its group. In the group, libdbus' callbacks included; or when no callback runs any more. */
static inline void dbusNuncStansDetach(struct dbusNuncStans *self)
{
    dbus_connection_set_dispatch_status_function(self->connection, NULL, NULL, NULL);
    dbus_connection_set_timeout_functions(self->connection, NULL, NULL, NULL, NULL, NULL);
    dbus_connection_set_watch_functions(self->connection, NULL, NULL, NULL, NULL, NULL);
    ns_job_cancel(self->dispatcher);
    dbus_connection_unref(self->connection);
    ns_group_release(self->group);
    self->detached = 1;
    if (!self->inside)
        free(self);
}

/**
 * Put a connection on a group. This takes a hold on both.
 *
 * @param connection one that is on no main loop
 * @param group of width 1; the caller is in one of its callbacks
 * @param self for dbusNuncStansDetach; NULL if it fails
 * @return FALSE if the caller is not in the group, memory is out, or the pool shuts down
 */
static inline dbus_bool_t dbusNuncStansAttach(DBusConnection *connection, struct ns_group_t *group,
                                              struct dbusNuncStans **self)
{
    *self = NULL;
    if (!ns_group_is_current(group))
        return FALSE;
    struct dbusNuncStans *made = (struct dbusNuncStans *)calloc(1, sizeof *made);
    if (made == NULL)
        return FALSE;
    made->group = group;
    made->connection = connection;
    if (ns_add_group_job(group, NS_JOB_THREAD | NS_JOB_UNARMED, dbusNuncStansDispatch, made, &made->dispatcher) !=
        NS_SUCCESS) {
        free(made);
        return FALSE;
    }
    ns_group_hold(group);
    dbus_connection_ref(connection);
    dbus_connection_set_dispatch_status_function(connection, dbusNuncStansOnStatus, made, NULL);
    if (!dbus_connection_set_watch_functions(connection, dbusNuncStansAddWatch, dbusNuncStansRemoveWatch,
                                             dbusNuncStansToggleWatch, made, NULL) ||
        !dbus_connection_set_timeout_functions(connection, dbusNuncStansAddTimeout, dbusNuncStansRemoveTimeout,
                                               dbusNuncStansToggleTimeout, made, NULL)) {
        dbusNuncStansDetach(made);
        return FALSE;
    }
    dbusNuncStansOnStatus(connection, dbus_connection_get_dispatch_status(connection), made);
    *self = made;
    return TRUE;
}

#endif /* NUNC_STANS_DBUS_H */
