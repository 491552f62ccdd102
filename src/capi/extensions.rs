// SPDX-License-Identifier: GPL-3.0-or-later
//! The functions that are additions to 0.2.

use std::ffi::c_char;

use libc::{c_int, c_void, timeval};

use super::add::Make;
use super::call::*;
use super::job::wait_until;
use crate::abi::_ns_result_t as R;
use crate::abi::*;
use crate::job::free::Entering;
use crate::job::here::in_callback_of;
use crate::job::{JobPtr, NEVER};
use crate::log::{Logger, log};
use crate::shared::{Ended, Shared};
use crate::sys::{self, ErrnoGuard};

/// The version of the library that is loaded, as "0.2.0".
///
/// @return a string that stays valid while the library is loaded
#[unsafe(no_mangle)]
pub extern "C" fn ns_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    VERSION.as_ptr().cast()
}

/// As `ns_add_io_job`, for a plain descriptor, which is closed with close(2) when the job is
/// disposed of, unless it has PRESERVE_FD.
///
/// @param tp the pool
/// @param fd an open descriptor; see "Descriptors" above
/// @param job_type at least one of ACCEPT, CONNECT, READ, WRITE; with THREAD (not with ACCEPT),
/// PERSIST, PRESERVE_FD
/// @param func the callback
/// @param data for `ns_job_get_data`; the application's own
/// @param job where the job is written before it can run; may be NULL
/// @return as `ns_add_io_job`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_add_fd_job(
    tp: *mut ns_thrpool_t,
    fd: c_int,
    job_type: ns_job_type_t,
    func: ns_job_func_t,
    data: *mut c_void,
    job: *mut *mut ns_job_t,
) -> ns_result_t {
    // SAFETY: the C interface requires `tp` and `job` to be NULL or valid.
    let make = unsafe { Make::new("ns_add_fd_job", tp, job) };
    match make.fd_trigger(fd, NEVER) {
        Ok(trigger) => make.add(
            trigger,
            job_type,
            NS_JOB_IO | NS_JOB_TIMER,
            func,
            data,
            true,
        ),
        Err(refused) => refused,
    }
}

/// As `ns_add_io_timeout_job`, for a plain descriptor.
///
/// @param tp the pool
/// @param fd an open descriptor
/// @param tv the time-out; zero for none; not negative
/// @param job_type as for `ns_add_fd_job`; TIMER is implied
/// @param func the callback
/// @param data for `ns_job_get_data`; the application's own
/// @param job where the job is written before it can run; may be NULL
/// @return as `ns_add_io_job`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_add_fd_timeout_job(
    tp: *mut ns_thrpool_t,
    fd: c_int,
    tv: *mut timeval,
    job_type: ns_job_type_t,
    func: ns_job_func_t,
    data: *mut c_void,
    job: *mut *mut ns_job_t,
) -> ns_result_t {
    // SAFETY: the C interface requires `tp` and `job` to be NULL or valid.
    let make = unsafe { Make::new("ns_add_fd_timeout_job", tp, job) };
    // SAFETY: the C interface requires `tv` to be NULL or a valid time.
    let trigger = unsafe { make.timeout_of(tv) }.and_then(|timeout| make.fd_trigger(fd, timeout));
    match trigger {
        Ok(trigger) => {
            let flags = job_type | NS_JOB_TIMER;
            make.add(trigger, flags, NS_JOB_IO | NS_JOB_TIMER, func, data, true)
        }
        Err(refused) => refused,
    }
}

/// The system's descriptor of an I/O job, NSPR's or plain. Any thread, any state.
///
/// @param job a live job
/// @return the descriptor; -1 if it has none, and for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_job_get_native_fd(job: *mut ns_job_t) -> c_int {
    // SAFETY: the C interface requires `job` to be NULL or a live job.
    unsafe { query(job, -1, JobPtr::fd) }
}

/// Finish with a job in any state, armed or not. Any thread, any time; never waits. As after
/// `ns_job_done`, the job belongs to the library, which closes its descriptor, unless it has
/// PRESERVE_FD, and calls its done callback.
///
/// @param job a live job
/// @return NS_SUCCESS: no run is in progress and none will start (also from the job's own
/// callback), so what its callback uses may be freed; NS_RUNNING: a run had begun on another
/// thread, and the job is disposed of when that returns: free in the done callback. NS_SHUTDOWN in
/// a forked child; NS_INVALID_REQUEST for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_job_cancel(job: *mut ns_job_t) -> ns_result_t {
    let call = |job: JobPtr, pool: &Shared| match pool.end(job, true) {
        Ended::Yes => SUCCESS,
        // Only its address is used: a job whose callback runs on another thread may be gone.
        Ended::Running if in_callback_of(job) => SUCCESS,
        Ended::Running | Ended::Armed => R::NS_RUNNING as ns_result_t,
    };
    // SAFETY: the C interface requires `job` to be NULL or a live job.
    unsafe { on_job("ns_job_cancel", job, call) }
}

/// As `ns_job_wait`, but with a time limit.
///
/// @param job a live job
/// @param tv how long; not negative
/// @return as `ns_job_wait`; NS_TIMEOUT when the time is up, also if it is zero; NS_INVALID_REQUEST
/// also if tv is NULL or negative
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_job_timedwait(job: *mut ns_job_t, tv: *const timeval) -> ns_result_t {
    // This comes first, as in `ns_job_wait`.
    let entering = Entering::new();
    // SAFETY: the C interface requires `tv` to be NULL or a valid time.
    let time = unsafe { nanoseconds(tv) };
    // A deadline past the end of the clock is no deadline.
    let deadline = time.map(|time| sys::now().checked_add(time));
    // SAFETY: the C interface requires `job` to be NULL or a live job.
    unsafe { wait_until("ns_job_timedwait", job, deadline, entering) }
}

/// Say where messages go that have no pool: those of calls with a NULL pool or job, and of a
/// `ns_thrpool_new` that fails and whose config has no `log_fct`. One place for the whole process.
/// Before this is called, and after a call with NULL, it is syslog at LOG_LOCAL1 and, where there
/// is no /dev/log (in a container), the standard error output as well.
///
/// `text` is called by the thread whose call is refused, by several threads at once, with `arg`, a
/// priority as in syslog.h, and one line, which names the function and ends in a newline. It has
/// to return. It may call the getters of this header, and this function; if what it calls is
/// refused, that is not logged.
///
/// When this returns, no other thread is in the function that was set before, nor will be: its
/// `arg` may be freed. For that it waits until every thread has left that is in such a function, the
/// old or the new, so do not call it with a lock that they may want. It does not wait when it is
/// called in a logger, nor, in a forked child, for what was going on before the fork. Any thread.
///
/// @param text the function; NULL for none
/// @param arg for text; the application's own
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_set_log(
    text: Option<unsafe extern "C" fn(arg: *mut c_void, priority: c_int, message: *const c_char)>,
    arg: *mut c_void,
) {
    let _errno = ErrnoGuard::new();
    if !crate::log::set_text(text, arg) {
        log!(Logger::NoPool, LOG_ERR, "ns_set_log: no memory");
    }
}
