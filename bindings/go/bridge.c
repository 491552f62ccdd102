/* SPDX-License-Identifier: GPL-3.0-or-later */
#include "bridge.h"
#include "_cgo_export.h"
#include <stdio.h>

static uintptr_t handle_of(struct ns_job_t *job) { return (uintptr_t)ns_job_get_data(job); }
static void on_run(struct ns_job_t *job) { goRun(handle_of(job), ns_job_get_output_type(job)); }
static void on_gone(struct ns_job_t *job) { goGone(handle_of(job)); }
static void on_group_gone(struct ns_group_t *group) { goGroupGone((uintptr_t)ns_group_get_data(group)); }
static void on_line(void *arg, int priority, const char *line) { (void)arg, goLog(priority, (char *)(uintptr_t)line); }

static void on_posted(struct ns_job_t *job)
{
    uintptr_t handle = handle_of(job);
    ns_job_done(job);
    goPosted(handle);
}

static void on_log(int priority, const char *format, va_list arguments)
{
    char line[2048];
    vsnprintf(line, sizeof line, format, arguments);
    on_line(NULL, priority, line);
}

ns_thrpool_t *ns_go_new(size_t workers, size_t stack_size, size_t queue_limit, const char *name, const char *framework)
{
    struct ns_thrpool_config config;
    struct ns_thrpool_options options;
    ns_thrpool_config_init(&config);
    ns_thrpool_options_init(&options, sizeof options);
    config.max_threads = workers;
    config.stacksize = stack_size;
    config.log_fct = on_log;
    ns_set_log(on_line, NULL);
    options.queue_limit = queue_limit;
    options.name = *name != '\0' ? name : NULL;
    options.framework = *framework != '\0' ? framework : NULL;
    return ns_thrpool_new_with(&config, &options);
}

/* Unarmed, then done callback and group, then armed: nothing of it runs before all is set. */
struct ns_go_added ns_go_add(ns_thrpool_t *tp, struct ns_group_t *group, enum ns_go_trigger trigger, int number,
                             struct timeval tv, ns_job_type_t flags, uintptr_t handle)
{
    struct ns_go_added added = {NS_SUCCESS, NULL};
    void *data = (void *)handle;
    flags |= NS_JOB_UNARMED;
    if (trigger == NS_GO_NOW)
        added.result = ns_add_job(tp, flags, on_run, data, &added.job);
    else if (trigger == NS_GO_TIME)
        added.result = ns_add_timeout_job(tp, &tv, flags, on_run, data, &added.job);
    else if (trigger == NS_GO_FD)
        added.result = ns_add_fd_timeout_job(tp, number, &tv, flags, on_run, data, &added.job);
    else
        added.result = ns_add_signal_job(tp, number, flags, on_run, data, &added.job);
    if (added.result != NS_SUCCESS)
        return added;
    ns_job_set_done_cb(added.job, on_gone);
    if (group != NULL)
        added.result = ns_job_set_group(added.job, group);
    if (added.result == NS_SUCCESS)
        added.result = ns_job_rearm(added.job);
    if (added.result != NS_SUCCESS)
        ns_job_done(added.job);
    return added;
}

ns_result_t ns_go_post(ns_thrpool_t *tp, struct ns_group_t *group, ns_job_type_t flags, uintptr_t handle)
{
    return group != NULL ? ns_add_group_job(group, flags, on_posted, (void *)handle, NULL)
                         : ns_add_job(tp, flags, on_posted, (void *)handle, NULL);
}

ns_result_t ns_go_group_new(ns_thrpool_t *tp, size_t width, uintptr_t handle, struct ns_group_t **group)
{
    return ns_group_new(tp, width, (void *)handle, on_group_gone, group);
}
