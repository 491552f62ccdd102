// SPDX-License-Identifier: GPL-3.0-or-later
//! The common parts of all functions of the C interface: argument checks, and the logging of
//! refused calls.

use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use libc::c_void;

use crate::abi::{_ns_result_t as R, ns_job_t, ns_result_t, ns_thrpool_t};
use crate::fork;
use crate::group::GroupPtr;
use crate::group::core::Refused;
use crate::job::{Job, JobPtr, NEVER};
use crate::log::{Logger, log};
use crate::pool::Pool;
use crate::shared::{Armed, MakeError, Shared};
use crate::sys::ErrnoGuard;

pub(super) const SUCCESS: ns_result_t = R::NS_SUCCESS as ns_result_t;
pub(super) const INVALID_REQUEST: ns_result_t = R::NS_INVALID_REQUEST as ns_result_t;
pub(super) const INVALID_STATE: ns_result_t = R::NS_INVALID_STATE as ns_result_t;
pub(super) const SHUTDOWN: ns_result_t = R::NS_SHUTDOWN as ns_result_t;

/// The pool behind `tp`, or `None` if `tp` is NULL.
///
/// # Safety
/// `tp` is NULL or a pool that has not been destroyed.
pub(super) unsafe fn pool_of<'a>(tp: *mut ns_thrpool_t) -> Option<&'a Pool> {
    // SAFETY: guaranteed by the caller; `ns_thrpool_new` returns a pointer to a `Pool`.
    unsafe { tp.cast::<Pool>().as_ref() }
}

/// The job behind `job`, or `None` if `job` is NULL.
///
/// # Safety
/// `job` is NULL or a live job.
pub(super) unsafe fn job_of(job: *mut ns_job_t) -> Option<JobPtr> {
    // SAFETY: guaranteed by the caller; the functions that add jobs return pointers to a `Job`.
    NonNull::new(job.cast::<Job>()).map(|job| unsafe { JobPtr::new(job) })
}

/// The group at `at`, or `None` if `at` is NULL.
pub(super) fn group_at(at: *mut c_void) -> Option<GroupPtr> {
    // SAFETY: the C interface requires a live group.
    NonNull::new(at).map(|at| unsafe { GroupPtr::new(at.cast()) })
}

/// Logs why `function` refuses a call: to the pool's log or, without a pool, to the log that
/// `ns_set_log` has set.
#[cold]
#[inline(never)]
pub(super) fn refuse(pool: Option<&Pool>, function: &str, why: &str) -> ns_result_t {
    let logger = pool.map_or(Logger::NoPool, |pool| pool.shared.logger);
    log!(logger, LOG_ERR, "{function}: {why}");
    INVALID_REQUEST
}

/// Converts `tv` to nanoseconds, or says why it is not a valid time. A time that is too long
/// becomes the longest.
///
/// # Safety
/// `tv` is NULL or a valid time.
pub(super) unsafe fn nanoseconds(tv: *const libc::timeval) -> Result<u64, &'static str> {
    // SAFETY: guaranteed by the caller.
    let tv = unsafe { tv.as_ref() }.ok_or("tv is NULL")?;
    let seconds = u64::try_from(tv.tv_sec).map_err(|_| "tv is negative")?;
    let micros = u64::try_from(tv.tv_usec).map_err(|_| "tv is negative")?;
    Ok(seconds
        .saturating_mul(1_000_000_000)
        .saturating_add(micros.saturating_mul(1000))
        .min(NEVER - 1))
}

/// Makes a call that changes a job: refuses NULL and pools of the parent process, and preserves
/// errno. `call` gets the pool as well, because the job may be freed as soon as the call has taken
/// effect.
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
    // SAFETY: guaranteed by the caller.
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

/// Reads a property of a job. Changes nothing, not even errno. Returns `none` for NULL.
///
/// # Safety
/// `job` is NULL or a live job.
#[inline(always)]
pub(super) unsafe fn query<T>(job: *mut ns_job_t, none: T, answer: impl FnOnce(JobPtr) -> T) -> T {
    // SAFETY: guaranteed by the caller.
    unsafe { job_of(job) }.map_or(none, answer)
}

/// Makes a call on a pool that has time to check whether the process has forked. Preserves errno.
///
/// # Safety
/// `tp` is NULL or a pool that has not been destroyed.
pub(super) unsafe fn on_pool<T>(tp: *mut ns_thrpool_t, call: impl FnOnce(Option<&Pool>) -> T) -> T {
    let _errno = ErrnoGuard::new();
    fork::check();
    // SAFETY: guaranteed by the caller.
    call(unsafe { pool_of(tp) })
}

/// Logs that `function` was called in a forked child.
#[cold]
#[inline(never)]
pub(super) fn forked(pool: &Shared, function: &str) -> ns_result_t {
    let why = "the pool belongs to the parent process";
    log!(pool.logger, LOG_DEBUG, "{function}: {why}");
    SHUTDOWN
}

/// Logs that the state of the job does not allow a call of `function`.
#[cold]
#[inline(never)]
pub(super) fn wrong_state(pool: &Shared, function: &str, why: &str) -> ns_result_t {
    log!(pool.logger, LOG_DEBUG, "{function}: the job {why}");
    INVALID_STATE
}

/// The result of a request to arm a job; logged if it is refused.
#[inline(always)]
pub(super) fn rearmed(pool: &Shared, function: &str, armed: Armed) -> ns_result_t {
    match armed {
        Armed::Yes => SUCCESS,
        Armed::NotNow => wrong_state(pool, function, "can't be armed now"),
        Armed::ShuttingDown => shut_down(pool, function),
    }
}

/// Logs that the pool of `function` is shutting down.
#[cold]
#[inline(never)]
pub(super) fn shut_down(pool: &Shared, function: &str) -> ns_result_t {
    log!(
        pool.logger,
        LOG_DEBUG,
        "{function}: the pool is shutting down"
    );
    SHUTDOWN
}

/// Logs that `function` named a group that is cancelled.
#[cold]
#[inline(never)]
pub(super) fn cancelled(pool: &Shared, function: &str) -> ns_result_t {
    log!(pool.logger, LOG_DEBUG, "{function}: the group is cancelled");
    R::NS_DELETING as ns_result_t
}

/// Logs why a group refuses the job of `function`.
#[cold]
#[inline(never)]
pub(super) fn refused(pool: &Shared, function: &str, why: Refused) -> ns_result_t {
    match why {
        Refused::Cancelled => cancelled(pool, function),
        Refused::Full => {
            pool.refused.fetch_add(1, Ordering::Relaxed);
            log!(pool.logger, LOG_DEBUG, "{function}: the queue is full");
            R::NS_OVERLOADED as ns_result_t
        }
    }
}

/// Says why there is no job.
#[cold]
#[inline(never)]
pub(super) fn not_made(function: &str, pool: Option<&Pool>, why: MakeError) -> ns_result_t {
    match (why, pool) {
        (MakeError::NoMemory, _) => {
            refuse(pool, function, "no memory");
            R::NS_ALLOCATION_FAILURE as ns_result_t
        }
        (MakeError::OwnDescriptor, _) => {
            refuse(pool, function, "fd is one of the pool's own descriptors")
        }
        (MakeError::NoSignal, _) => refuse(pool, function, "the system refuses to catch signum"),
        (MakeError::Forked, Some(pool)) => shut_down(&pool.shared, function),
        (MakeError::Forked, None) => SHUTDOWN,
    }
}
