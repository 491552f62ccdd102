/* SPDX-License-Identifier: GPL-3.0-or-later */
/* With additional permission to link OpenSSL: see COPYING.openssl. */
/* nunc-stans-ffi.h: what nunc-stans.h declares, in plain C without preprocessor, for interfaces that
 * read declarations at run time: cffi, LuaJIT, koffi. For Linux with glibc. Generated from the
 * library's source. Do not edit. nunc-stans.h explains it all. */
struct timeval { long tv_sec; long tv_usec; };
struct ns_thrpool_t;
typedef struct ns_thrpool_t ns_thrpool_t;
struct ns_job_t;
struct PRFileDesc;
typedef unsigned long ns_job_type_t;
enum { NS_JOB_NONE = 0 };
enum { NS_JOB_ACCEPT = 1 };
enum { NS_JOB_CONNECT = 2 };
enum { NS_JOB_READ = 4 };
enum { NS_JOB_WRITE = 8 };
enum { NS_JOB_TIMER = 16 };
enum { NS_JOB_SIGNAL = 32 };
enum { NS_JOB_PERSIST = 64 };
enum { NS_JOB_THREAD = 128 };
enum { NS_JOB_PRESERVE_FD = 256 };
enum { NS_JOB_SHUTDOWN_WORKER = 512 };
enum _ns_result_t {
NS_SUCCESS = 0,
NS_SHUTDOWN = 1,
NS_ALLOCATION_FAILURE = 2,
NS_INVALID_REQUEST = 3,
NS_INVALID_STATE = 4,
NS_THREAD_FAILURE = 5,
NS_DELETING = 6,
NS_TIMEOUT = 7,
NS_RUNNING = 8,
NS_OVERLOADED = 9,
};
typedef enum _ns_result_t ns_result_t;
struct ns_thrpool_config {
int32_t init_flag;
size_t max_threads;
size_t stacksize;
void (*log_fct)(int, const char*, void *);
void (*log_start_fct)(void);
void (*log_close_fct)(void);
void *(*malloc_fct)(size_t);
void *(*memalign_fct)(size_t, size_t);
void *(*calloc_fct)(size_t, size_t);
void *(*realloc_fct)(void*, size_t);
void (*free_fct)(void*);
};
typedef void (*ns_job_func_t)(struct ns_job_t *job);
void ns_thrpool_config_init(struct ns_thrpool_config *tp_config);
struct ns_thrpool_t *ns_thrpool_new(struct ns_thrpool_config *tp_config);
void ns_thrpool_shutdown(struct ns_thrpool_t *tp);
int32_t ns_thrpool_is_shutdown(struct ns_thrpool_t *tp);
ns_result_t ns_thrpool_wait(struct ns_thrpool_t *tp);
void ns_thrpool_destroy(struct ns_thrpool_t *tp);
ns_result_t ns_create_job(struct ns_thrpool_t *tp, ns_job_type_t job_type, ns_job_func_t func, struct ns_job_t **job);
ns_result_t ns_add_job(struct ns_thrpool_t *tp, ns_job_type_t job_type, ns_job_func_t func, void *data, struct ns_job_t **job);
ns_result_t ns_add_io_job(struct ns_thrpool_t *tp, struct PRFileDesc *fd, ns_job_type_t job_type, ns_job_func_t func, void *data, struct ns_job_t **job);
ns_result_t ns_add_timeout_job(struct ns_thrpool_t *tp, struct timeval *tv, ns_job_type_t job_type, ns_job_func_t func, void *data, struct ns_job_t **job);
ns_result_t ns_add_io_timeout_job(struct ns_thrpool_t *tp, struct PRFileDesc *fd, struct timeval *tv, ns_job_type_t job_type, ns_job_func_t func, void *data, struct ns_job_t **job);
ns_result_t ns_add_signal_job(struct ns_thrpool_t *tp, int32_t signum, ns_job_type_t job_type, ns_job_func_t func, void *data, struct ns_job_t **job);
ns_result_t ns_job_rearm(struct ns_job_t *job);
ns_result_t ns_job_done(struct ns_job_t *job);
ns_result_t ns_job_wait(struct ns_job_t *job);
void *ns_job_get_data(struct ns_job_t *job);
ns_result_t ns_job_set_data(struct ns_job_t *job, void *data);
ns_result_t ns_job_set_done_cb(struct ns_job_t *job, ns_job_func_t func);
ns_job_type_t ns_job_get_type(struct ns_job_t *job);
ns_job_type_t ns_job_get_output_type(struct ns_job_t *job);
struct ns_thrpool_t *ns_job_get_tp(struct ns_job_t *job);
struct PRFileDesc *ns_job_get_fd(struct ns_job_t *job);
int ns_job_is_func(struct ns_job_t *job, ns_job_func_t func);
enum { NS_EXTENSIONS = 1 };
enum { NS_VERSION_MAJOR = 0 };
enum { NS_VERSION_MINOR = 2 };
enum { NS_VERSION_PATCH = 0 };
enum { NS_JOB_UNARMED = 1024 };
enum { NS_JOB_CADENCE = 2048 };
const char *ns_version(void);
ns_result_t ns_add_fd_job(struct ns_thrpool_t *tp, int fd, ns_job_type_t job_type, ns_job_func_t func, void *data, struct ns_job_t **job);
ns_result_t ns_add_fd_timeout_job(struct ns_thrpool_t *tp, int fd, struct timeval *tv, ns_job_type_t job_type, ns_job_func_t func, void *data, struct ns_job_t **job);
int ns_job_get_native_fd(struct ns_job_t *job);
ns_result_t ns_job_cancel(struct ns_job_t *job);
ns_result_t ns_job_timedwait(struct ns_job_t *job, const struct timeval *tv);
void ns_set_log(void (*text)(void *arg, int priority, const char *message), void *arg);
ns_result_t ns_job_rearm_after(struct ns_job_t *job, const struct timeval *tv);
ns_result_t ns_job_rearm_for(struct ns_job_t *job, ns_job_type_t directions, const struct timeval *tv);
ns_result_t ns_add_jobs(struct ns_thrpool_t *tp, ns_job_type_t job_type, ns_job_func_t func, size_t n, void *const *data, struct ns_job_t **jobs);
const char *ns_result_name(ns_result_t result);
const char *ns_result_message(ns_result_t result);
ns_result_t ns_thrpool_timedwait(struct ns_thrpool_t *tp, const struct timeval *tv);
struct ns_slow_call;
enum { NS_POOL_CALLER_LOOP = 1 };
enum { NS_POOL_TIMINGS = 2 };
enum { NS_FRAMEWORK_ONCE = 1 };
enum { NS_FRAMEWORK_KNOWN = 2 };
struct ns_framework_event {
uint64_t key;
uint32_t ready;
};
struct ns_framework {
size_t size;
const char *name;
void *arg;
void *(*open)(void *arg);
int (*watch)(void *fw, int fd, uint64_t key, int interest, int flags);
int (*unwatch)(void *fw, int fd);
int (*wait)(void *fw, struct ns_framework_event *events, int max, int64_t until);
int (*wait_fd)(void *fw);
void (*close)(void *fw, int in_child);
};
struct ns_thrpool_options {
size_t size;
uint64_t flags;
const char *name;
const char *framework;
const struct ns_framework *custom;
size_t queue_limit;
struct timeval slow;
void (*slow_fct)(const struct ns_slow_call *call);
void (*thread_start_fct)(void *arg, const char *name);
void (*thread_end_fct)(void *arg, const char *name);
void *thread_arg;
};
void ns_thrpool_options_init(struct ns_thrpool_options *options, size_t size);
struct ns_thrpool_t *ns_thrpool_new_with(struct ns_thrpool_config *tp_config, const struct ns_thrpool_options *options);
const char *ns_thrpool_get_framework(struct ns_thrpool_t *tp);
ns_result_t ns_thrpool_run(struct ns_thrpool_t *tp);
ns_result_t ns_thrpool_turn(struct ns_thrpool_t *tp, const struct timeval *tv);
int ns_thrpool_get_wait_fd(struct ns_thrpool_t *tp);
struct ns_group_t;
typedef struct ns_group_t ns_group_t;
ns_result_t ns_group_new(struct ns_thrpool_t *tp, size_t width, void *data, void (*done)(struct ns_group_t *group), struct ns_group_t **group);
void ns_group_hold(struct ns_group_t *group);
void ns_group_release(struct ns_group_t *group);
void *ns_group_get_data(struct ns_group_t *group);
struct ns_thrpool_t *ns_group_get_tp(struct ns_group_t *group);
ns_result_t ns_add_group_job(struct ns_group_t *group, ns_job_type_t job_type, ns_job_func_t func, void *data, struct ns_job_t **job);
ns_result_t ns_job_set_group(struct ns_job_t *job, struct ns_group_t *group);
struct ns_group_t *ns_job_get_group(struct ns_job_t *job);
ns_result_t ns_group_cancel(struct ns_group_t *group);
ns_result_t ns_group_wait(struct ns_group_t *group, const struct timeval *tv);
ns_result_t ns_group_suspend(struct ns_group_t *group);
ns_result_t ns_group_resume(struct ns_group_t *group);
int ns_group_is_current(struct ns_group_t *group);
ns_result_t ns_group_set_limit(struct ns_group_t *group, size_t limit);
size_t ns_group_get_length(struct ns_group_t *group);
struct ns_thrpool_stats {
size_t size;
uint64_t jobs_made;
uint64_t jobs_disposed;
uint64_t runs_loop;
uint64_t runs_worker;
uint64_t live_run_now;
uint64_t live_io;
uint64_t live_timers;
uint64_t live_signals;
uint64_t requests;
uint64_t loop_queue;
uint64_t work_queue;
uint64_t work_queue_max;
uint64_t workers;
uint64_t workers_busy;
uint64_t workers_busy_max;
uint64_t turns;
uint64_t waits;
uint64_t wakes;
uint64_t refused_overload;
uint64_t queue_loop_ns[64];
uint64_t queue_worker_ns[64];
uint64_t run_loop_ns[64];
uint64_t run_worker_ns[64];
uint64_t late_ns[64];
uint64_t queue_loop_sum;
uint64_t queue_worker_sum;
uint64_t run_loop_sum;
uint64_t run_worker_sum;
uint64_t late_sum;
uint64_t loop_busy_ns;
uint64_t loop_idle_ns;
};
void ns_thrpool_stats_init(struct ns_thrpool_stats *stats, size_t size);
ns_result_t ns_thrpool_get_stats(struct ns_thrpool_t *tp, struct ns_thrpool_stats *stats);
void ns_thrpool_reset_stats(struct ns_thrpool_t *tp);
size_t ns_thrpool_format_stats(struct ns_thrpool_t *tp, char *text, size_t size);
struct ns_slow_call {
size_t size;
struct ns_thrpool_t *tp;
struct ns_job_t *job;
ns_job_func_t func;
const char *name;
void *data;
int thread;
int in_loop;
int ended;
uint64_t ns;
};
ns_result_t ns_thrpool_dump(struct ns_thrpool_t *tp, void (*line)(void *arg, const char *text), void *arg);
