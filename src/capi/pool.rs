// SPDX-License-Identifier: GPL-3.0-or-later
//! The functions that take a pool.

use std::ptr::{self, NonNull};

use super::call::*;
use crate::abi::_ns_result_t as R;
use crate::abi::*;
use crate::fork;
use crate::log::log;
use crate::pool::{Pool, Waited, is_own_thread};
use crate::sync::tsan_acquire;
use crate::sys::{CancelGuard, ErrnoGuard};

/// Set a config to its defaults: one worker, default stacks, libc's allocator, syslog.
///
/// @param tp_config the config; NULL does nothing
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_thrpool_config_init(tp_config: *mut ns_thrpool_config) {
    if tp_config.is_null() {
        return;
    }
    // SAFETY: the C interface requires a config that may be overwritten.
    unsafe {
        tp_config.write(ns_thrpool_config {
            init_flag: INIT_FLAG,
            max_threads: 1,
            stacksize: 0,
            log_fct: None,
            log_start_fct: None,
            log_close_fct: None,
            malloc_fct: None,
            memalign_fct: None,
            calloc_fct: None,
            realloc_fct: None,
            free_fct: None,
        });
    }
}

/// Make a pool: start its workers and its event-loop thread. They inherit the caller's signal
/// mask; the loop unblocks the signals that jobs watch.
///
/// @param tp_config initialised by `ns_thrpool_config_init`, max_threads at least 1; copied
/// @return the pool, or NULL if the config is no good or memory, descriptors or threads are
/// exhausted: the log says which, and nothing is left behind. End it with
/// `ns_thrpool_shutdown`, `ns_thrpool_wait` and `ns_thrpool_destroy`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_thrpool_new(tp_config: *mut ns_thrpool_config) -> *mut ns_thrpool_t {
    // SAFETY: the C interface requires `tp_config` to be NULL or a valid config.
    unsafe { start("ns_thrpool_new", tp_config, ptr::null()) }
}

/// Makes a pool.
///
/// # Safety
/// `config` is NULL or a config; `options` is NULL or valid options.
pub(super) unsafe fn start(
    name: &str,
    config: *mut ns_thrpool_config,
    options: *const ns_thrpool_options,
) -> *mut ns_thrpool_t {
    let _errno = ErrnoGuard::new();
    fork::check();
    let _cancel = CancelGuard::new();
    // SAFETY: guaranteed by the caller.
    let pool = unsafe { Pool::start(name, config.as_ref(), options) };
    pool.map_or(ptr::null_mut(), |pool| pool.as_ptr().cast())
}

/// Begin to end a pool. From now on adding and rearming return NS_SHUTDOWN and no job is armed
/// again. Run-now jobs that were queued before still run, except in a suspended group; then the
/// workers leave. Returns at once. Any thread, callbacks included; a second call does nothing.
///
/// @param tp the pool; NULL does nothing
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_thrpool_shutdown(tp: *mut ns_thrpool_t) {
    let call = |pool: Option<&Pool>| {
        if let Some(pool) = pool.filter(|pool| !pool.shared.is_forked()) {
            pool.shutdown();
        }
    };
    // SAFETY: the C interface requires `tp` to be NULL or a live pool.
    unsafe { on_pool(tp, call) };
}

/// Whether `ns_thrpool_shutdown` was called. Any thread.
///
/// @param tp the pool
/// @return 1 or 0; 1 in a forked child; 0 for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_thrpool_is_shutdown(tp: *mut ns_thrpool_t) -> i32 {
    // SAFETY: the C interface requires `tp` to be NULL or a live pool.
    unsafe { pool_of(tp) }.map_or(0, |pool| {
        let shutdown = pool.shared.is_shutting_down();
        tsan_acquire(&raw const pool.shared.gate);
        i32::from(shutdown || pool.shared.is_forked())
    })
}

/// Wait until a pool has stopped: somebody has called `ns_thrpool_shutdown`, every worker has
/// left, and from now on no job's callback runs (done callbacks do). The application may then
/// free what its callbacks used. Does not itself begin the shutdown. Any thread but the pool's
/// own; several at once; again later.
///
/// @param tp the pool
/// @return NS_SUCCESS; NS_THREAD_FAILURE if a worker could not be joined, or, at once, from one
/// of the pool's own threads; NS_SHUTDOWN in a forked child; NS_INVALID_REQUEST for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_thrpool_wait(tp: *mut ns_thrpool_t) -> ns_result_t {
    // SAFETY: the C interface requires `tp` to be NULL or a live pool.
    unsafe { wait_until("ns_thrpool_wait", tp, Ok(None)) }
}

/// Waits until the pool has stopped, or `deadline` has passed, in nanoseconds of the monotonic clock. An
/// `Err` is the reason why the deadline is not valid.
///
/// # Safety
/// `tp` is NULL or a live pool.
pub(super) unsafe fn wait_until(
    name: &str,
    tp: *mut ns_thrpool_t,
    deadline: Result<Option<u64>, &str>,
) -> ns_result_t {
    let call = |pool: Option<&Pool>| {
        let Some(pool) = pool else {
            return refuse(None, name, "tp is NULL");
        };
        let deadline = match deadline {
            Ok(deadline) => deadline,
            Err(why) => return refuse(Some(pool), name, why),
        };
        if pool.shared.is_forked() {
            return forked(&pool.shared, name);
        }
        if is_own_thread(pool) {
            let why = "a pool can't be waited for by its own threads";
            log!(pool.shared.logger, LOG_ERR, "{name}: {why}");
            return R::NS_THREAD_FAILURE as ns_result_t;
        }
        // Copy the logger: the pool may be freed once the wait is over.
        let logger = pool.shared.logger;
        match pool.wait(deadline) {
            Waited::Over => SUCCESS,
            Waited::TimedOut => R::NS_TIMEOUT as ns_result_t,
            Waited::NotJoined => {
                log!(logger, LOG_ERR, "{name}: a worker could not be joined");
                R::NS_THREAD_FAILURE as ns_result_t
            }
        }
    };
    // SAFETY: guaranteed by the caller.
    unsafe { on_pool(tp, call) }
}

/// End a pool and free it. Shuts down first, if nobody has, and waits as `ns_thrpool_wait` does:
/// for callbacks that run, and for run-now jobs that are queued. Then it disposes of every job that
/// is armed (closes its descriptor, runs its done callback) and of all that was done, and waits for
/// these done callbacks, for the end of the pool's threads, and for the threads that are blocked in
/// a wait for a job or a group, which it releases. Jobs that are WAITING and in no group belong to the
/// application: call `ns_job_done` on them before, since this function does not dispose of them and
/// they leak; the log says, at LOG_WARNING, how many and of which callbacks. It disposes of every job
/// that is in a group, WAITING ones too, and ends every group. When this call begins, no other
/// call on the pool, its jobs or its groups may be under way, except waits and calls in callbacks,
/// and none may begin later. (A call that made a callback run may not have returned when the
/// callback does.) The pool, its jobs and its groups are gone when it returns. Not from the pool's
/// own threads: logged, and nothing happens. In a forked child it closes the pool's descriptors and
/// nothing else.
///
/// @param tp the pool; NULL does nothing
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_thrpool_destroy(tp: *mut ns_thrpool_t) {
    // This does not use `on_pool`: no function argument may refer to the memory that is freed here.
    let _errno = ErrnoGuard::new();
    fork::check();
    // SAFETY: the C interface requires `tp` to be NULL or a live pool.
    let Some(pool) = (unsafe { pool_of(tp) }) else {
        return;
    };
    if is_own_thread(pool) {
        let why = "a pool can't be destroyed by its own threads";
        log!(pool.shared.logger, LOG_ERR, "ns_thrpool_destroy: {why}");
        return;
    }
    // SAFETY: the caller is not a thread of the pool, and the C interface requires that nobody else
    // is in a call on it.
    unsafe { Pool::destroy(NonNull::from(pool)) };
}
