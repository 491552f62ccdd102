// SPDX-License-Identifier: GPL-3.0-or-later
//! What every function of the C interface does: check what it is given, and say what it refuses.

use std::ptr::NonNull;

use libc::{c_int, c_void};

use crate::abi::{
    _ns_result_t as R, NS_JOB_ACCEPT, NS_JOB_IO, NS_JOB_PERSIST, NS_JOB_PRESERVE_FD,
    NS_JOB_SHUTDOWN_WORKER, NS_JOB_THREAD, NS_JOB_UNARMED, PRFileDesc, ns_job_func_t, ns_job_t,
    ns_job_type_t, ns_result_t, ns_thrpool_t,
};
use crate::fork;
use crate::job::{Job, JobPtr, NEVER, Spec, Trigger};
use crate::log::{Logger, log};
use crate::nspr::{self, Unusable};
use crate::pool::Pool;
use crate::shared::{MakeError, Shared};
use crate::sync::hand_over;
use crate::sys::{self, ErrnoGuard};

/// What every add takes.
const MODIFIERS: ns_job_type_t =
    NS_JOB_PERSIST | NS_JOB_THREAD | NS_JOB_PRESERVE_FD | NS_JOB_UNARMED;
/// The flags that a job keeps.
const KEPT: ns_job_type_t = !NS_JOB_UNARMED;

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

/// Write `job` where the caller wants it, if it does.
///
/// # Safety
/// `out` is NULL or a place for a pointer.
unsafe fn tell(out: *mut *mut ns_job_t, job: Option<JobPtr>) {
    if !out.is_null() {
        // SAFETY: by the caller's promise.
        unsafe { *out = job.map_or(std::ptr::null_mut(), JobPtr::as_c) };
    }
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

/// One call that makes a job.
pub(super) struct Make<'a> {
    function: &'static str,
    pool: Option<&'a Pool>,
    out: *mut *mut ns_job_t,
    /// Errno is kept while this lives.
    _errno: ErrnoGuard,
}

impl<'a> Make<'a> {
    /// Begin: nothing is made yet, and `*out` says so.
    ///
    /// # Safety
    /// `tp` is NULL or a pool; `out` is NULL or a place for a pointer.
    pub(super) unsafe fn new(
        function: &'static str,
        tp: *mut ns_thrpool_t,
        out: *mut *mut ns_job_t,
    ) -> Self {
        let errno = ErrnoGuard::new();
        // SAFETY: by the caller's promise.
        let pool = unsafe {
            tell(out, None);
            pool_of(tp)
        };
        Self {
            function,
            pool,
            out,
            _errno: errno,
        }
    }

    pub(super) fn refuse(&self, why: &str) -> ns_result_t {
        refuse(self.pool, self.function, why)
    }

    fn shut_down(&self, pool: &Pool) -> ns_result_t {
        log!(
            pool.shared.logger,
            LOG_DEBUG,
            "{}: the pool is shutting down",
            self.function
        );
        SHUTDOWN
    }

    /// The trigger of a job for an NSPR descriptor.
    ///
    /// # Safety
    /// `fd` is NULL or an open NSPR descriptor.
    pub(super) unsafe fn nspr(
        &self,
        fd: *mut PRFileDesc,
        timeout: u64,
    ) -> Result<Trigger, ns_result_t> {
        if fd.is_null() {
            return Err(self.refuse("fd is NULL"));
        }
        // SAFETY: by the caller's promise.
        let native = unsafe { nspr::native_handle(fd) }.map_err(|why| {
            self.refuse(match why {
                Unusable::NoNspr => "fd is an NSPR descriptor, but NSPR is not in this process",
                Unusable::NotOpen => "fd stands for no open descriptor",
            })
        })?;
        Ok(Trigger::Io {
            fd: native,
            prfd: fd,
            timeout,
        })
    }

    /// The trigger of a job for a plain descriptor.
    pub(super) fn plain(&self, fd: c_int, timeout: u64) -> Result<Trigger, ns_result_t> {
        if !sys::is_open(fd) {
            return Err(self.refuse("fd is no open descriptor"));
        }
        Ok(Trigger::Io {
            fd,
            prfd: std::ptr::null_mut(),
            timeout,
        })
    }

    /// Check the rest, make the job and, unless `armed` is false, arm it.
    ///
    /// `allowed` are the flags that this call takes beside those that all take.
    pub(super) fn finish(
        &self,
        trigger: Trigger,
        flags: ns_job_type_t,
        allowed: ns_job_type_t,
        func: ns_job_func_t,
        data: *mut c_void,
        armed: bool,
    ) -> ns_result_t {
        let Some(pool) = self.pool else {
            return self.refuse("tp is NULL");
        };
        let Some(func) = func else {
            return self.refuse("func is NULL");
        };
        if flags & NS_JOB_SHUTDOWN_WORKER != 0 {
            return self
                .refuse("job_type has NS_JOB_SHUTDOWN_WORKER, which is not for applications");
        }
        if flags & !(allowed | MODIFIERS) != 0 {
            return self.refuse("job_type has a flag that this function does not take");
        }
        if matches!(trigger, Trigger::Io { .. }) {
            if flags & NS_JOB_IO == 0 {
                return self.refuse("job_type has none of ACCEPT, CONNECT, READ and WRITE");
            }
            if flags & NS_JOB_ACCEPT != 0 && flags & NS_JOB_THREAD != 0 {
                return self.refuse("job_type has both ACCEPT and THREAD");
            }
        }
        let unarmed = !armed || flags & NS_JOB_UNARMED != 0;
        if unarmed && self.out.is_null() {
            return self.refuse("job is NULL, and the job is not armed");
        }
        let shared = &pool.shared;
        if shared.is_shutting_down() || shared.is_forked() {
            return self.shut_down(pool);
        }
        let spec = Spec {
            flags: flags & KEPT,
            trigger,
            func,
            data,
            armed: !unarmed,
        };
        let job = match shared.make(&spec) {
            Ok(job) => job,
            Err(MakeError::NoMemory) => {
                log!(shared.logger, LOG_ERR, "{}: no memory", self.function);
                return R::NS_ALLOCATION_FAILURE as ns_result_t;
            }
            Err(MakeError::OwnDescriptor) => {
                return self.refuse("fd is one of the pool's own descriptors");
            }
            Err(MakeError::NoSignal) => return self.refuse("the system refuses to catch signum"),
            Err(MakeError::Forked) => return self.shut_down(pool),
        };
        // Before it can run, so that a callback which runs at once finds it.
        // SAFETY: `out` by the promise of `new`.
        unsafe { tell(self.out, Some(job)) };
        if spec.armed {
            hand_over(&raw const job.state);
            shared.start(job);
        }
        SUCCESS
    }
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
    fork::look();
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
