// SPDX-License-Identifier: GPL-3.0-or-later
//! What every function of the C interface does: check what it is given, and say what it refuses.

use std::ptr::NonNull;

use crate::abi::{_ns_result_t as R, ns_job_t, ns_result_t, ns_thrpool_t};
use crate::fork;
use crate::job::{Job, JobPtr, NEVER};
use crate::log::{Logger, log};
use crate::pool::Pool;
use crate::shared::Shared;
use crate::sys::ErrnoGuard;

pub(super) const SUCCESS: ns_result_t = R::NS_SUCCESS as ns_result_t;
pub(super) const INVALID_REQUEST: ns_result_t = R::NS_INVALID_REQUEST as ns_result_t;
pub(super) const INVALID_STATE: ns_result_t = R::NS_INVALID_STATE as ns_result_t;
pub(super) const SHUTDOWN: ns_result_t = R::NS_SHUTDOWN as ns_result_t;

/// The pool behind `tp`, if it is not NULL.
///
/// # Safety
/// It is a pool that was not destroyed.
pub(super) unsafe fn pool_of<'a>(tp: *mut ns_thrpool_t) -> Option<&'a Pool> {
    // SAFETY: by the caller's promise; a pool is what `ns_thrpool_new` returned.
    unsafe { tp.cast::<Pool>().as_ref() }
}

/// The job behind `job`, if it is not NULL.
///
/// # Safety
/// It is a live job.
pub(super) unsafe fn job_of(job: *mut ns_job_t) -> Option<JobPtr> {
    // SAFETY: by the caller's promise; a job is what the adding functions wrote.
    NonNull::new(job.cast::<Job>()).map(|job| unsafe { JobPtr::new(job) })
}

/// Say why `function` refuses, to the pool's log or, without one, where `ns_set_log` says.
pub(super) fn refuse(pool: Option<&Pool>, function: &str, why: &str) -> ns_result_t {
    let logger = pool.map_or(Logger::NoPool, |pool| pool.shared.logger);
    log!(logger, LOG_ERR, "{function}: {why}");
    INVALID_REQUEST
}

/// `tv` in nanoseconds; why not, if it is no time. What is too long is never.
///
/// # Safety
/// `tv` is NULL or a time.
pub(super) unsafe fn nanoseconds(tv: *const libc::timeval) -> Result<u64, &'static str> {
    // SAFETY: by the caller's promise.
    let tv = unsafe { tv.as_ref() }.ok_or("tv is NULL")?;
    let seconds = u64::try_from(tv.tv_sec).map_err(|_| "tv is negative")?;
    let micros = u64::try_from(tv.tv_usec).map_err(|_| "tv is negative")?;
    Ok(seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(micros.saturating_mul(1000))
        .min(NEVER - 1))
}

/// A call on a job that changes it, once it is known that there is something to do. Errno is kept.
/// `call` gets the pool by itself, since the job may be gone when the call has had its effect.
///
/// # Safety
/// `job` is NULL or a live job.
#[inline(always)]
pub(super) unsafe fn on_job(
    function: &str,
    job: *mut ns_job_t,
    call: impl FnOnce(JobPtr, &Shared) -> ns_result_t,
) -> ns_result_t {
    let _errno = ErrnoGuard::new();
    // SAFETY: by the caller's promise.
    let Some(job) = (unsafe { job_of(job) }) else {
        return refuse(None, function, "job is NULL");
    };
    // SAFETY: a pool outlives its live jobs, and the calls on them.
    let pool = unsafe { &*std::ptr::from_ref(job.pool()) };
    if pool.is_forked() {
        return forked(pool, function);
    }
    call(job, pool)
}

/// A question about a job, which changes nothing, errno neither. `none` answers it for NULL.
///
/// # Safety
/// `job` is NULL or a live job.
#[inline(always)]
pub(super) unsafe fn ask<T>(job: *mut ns_job_t, none: T, answer: impl FnOnce(JobPtr) -> T) -> T {
    // SAFETY: by the caller's promise.
    unsafe { job_of(job) }.map_or(none, answer)
}

/// A call on a pool, that can afford to look whether the process was forked. Errno is kept.
///
/// # Safety
/// `tp` is NULL or a pool that was not destroyed.
pub(super) unsafe fn on_pool<T>(tp: *mut ns_thrpool_t, call: impl FnOnce(Option<&Pool>) -> T) -> T {
    let _errno = ErrnoGuard::new();
    fork::check();
    // SAFETY: by the caller's promise.
    call(unsafe { pool_of(tp) })
}

/// Say that `function` was called in a forked child.
pub(super) fn forked(pool: &Shared, function: &str) -> ns_result_t {
    let why = "the pool is the parent process's";
    log!(pool.logger, LOG_DEBUG, "{function}: {why}");
    SHUTDOWN
}

/// Say that `function` came at the wrong time.
pub(super) fn wrong_state(pool: &Shared, function: &str, why: &str) -> ns_result_t {
    log!(pool.logger, LOG_DEBUG, "{function}: the job {why}");
    INVALID_STATE
}
