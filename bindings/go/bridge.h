/* SPDX-License-Identifier: GPL-3.0-or-later */
/* What Go calls in C. A handle is what Go knows a job, a group or a posted function by. */
#pragma once
#define NS_NO_NSPR
#define NS_EXTENDED_RESULTS
#include <nunc-stans.h>

enum ns_go_trigger { NS_GO_NOW, NS_GO_TIME, NS_GO_FD, NS_GO_SIGNAL };
/* A job that was made has a done callback to come, also if it could not be armed. */
struct ns_go_added { ns_result_t result; struct ns_job_t *job; };

ns_thrpool_t *ns_go_new(size_t workers, size_t stack_size, size_t queue_limit, const char *name, const char *framework);
struct ns_go_added ns_go_add(ns_thrpool_t *tp, struct ns_group_t *group, enum ns_go_trigger trigger, int number,
                             struct timeval tv, ns_job_type_t flags, uintptr_t handle);
ns_result_t ns_go_post(ns_thrpool_t *tp, struct ns_group_t *group, ns_job_type_t flags, uintptr_t handle);
ns_result_t ns_go_group_new(ns_thrpool_t *tp, size_t width, uintptr_t handle, struct ns_group_t **group);
