// SPDX-License-Identifier: GPL-3.0-or-later
//! The functions of 0.2 that make jobs, and the common part of all functions that do. docs/ARCHITECTURE.md
//! follows a job from here to its callback.

use libc::{c_void, timeval};

use super::call::{SUCCESS, nanoseconds, not_made, pool_of, refuse, refused, shut_down};
use crate::abi::*;
use crate::group::GroupPtr;
use crate::group::core::Refused;
use crate::job::{Front, JobPtr, Kind, NEVER, Spec, Trigger, probes};
use crate::pool::Pool;
use crate::shared::{MakeError, Shared};
use crate::signals::can_catch;
use crate::sync::tsan_release;
use crate::sys::{self, ErrnoGuard};

/// The flags that every function that adds jobs accepts.
pub(super) const MODIFIERS: ns_job_type_t =
    NS_JOB_PERSIST | NS_JOB_THREAD | NS_JOB_PRESERVE_FD | NS_JOB_UNARMED;
/// Why a pool that was made without workers refuses a job.
pub(super) const NO_WORKERS: &str = "job_type has THREAD, and the pool has no workers";
/// The flags that a job keeps.
pub(super) const KEPT: ns_job_type_t = !NS_JOB_UNARMED;

/// Make a job without arming it, so that its data and done callback can be set first; then arm it
/// with `ns_job_rearm`. Its data is NULL until `ns_job_set_data`. Run-now jobs and timers of time
/// zero only; for all others see NS_JOB_UNARMED.
///
/// @param tp the pool
/// @param job_type NS_JOB_TIMER for one that fires at the loop's next turn after it is armed,
/// else a run-now job; with THREAD, PERSIST
/// @param func the callback
/// @param job where the job is written; must not be NULL
/// @return NS_SUCCESS, NS_SHUTDOWN, NS_ALLOCATION_FAILURE or NS_INVALID_REQUEST; if not the
/// first, *job is NULL and nothing happened
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_create_job(
    tp: *mut ns_thrpool_t,
    job_type: ns_job_type_t,
    func: ns_job_func_t,
    job: *mut *mut ns_job_t,
) -> ns_result_t {
    // SAFETY: the C interface requires `tp` and `job` to be NULL or valid.
    let make = unsafe { Make::new("ns_create_job", tp, job) };
    if job.is_null() {
        return make.refuse("job is NULL");
    }
    make.add(
        default_trigger(job_type),
        job_type,
        NS_JOB_TIMER,
        func,
        std::ptr::null_mut(),
        false,
    )
}

/// Make a job that needs no descriptor, time or signal, and arm it. With NS_JOB_TIMER it fires in
/// the loop's next turn; else it is a run-now job: with THREAD it goes straight to the workers,
/// without to the loop. Run-now jobs start in the order in which one thread adds them. With
/// PERSIST it runs again and again, behind others, until it is finished with. A job that its
/// callback does not finish with stays, idle, and can be armed again.
///
/// @param tp the pool
/// @param job_type THREAD, PERSIST, TIMER
/// @param func the callback
/// @param data for `ns_job_get_data`; the application's own
/// @param job where the job is written before it can run; may be NULL
/// @return NS_SUCCESS, NS_SHUTDOWN, NS_ALLOCATION_FAILURE or NS_INVALID_REQUEST; NS_OVERLOADED if the
/// pool has a queue_limit and so many jobs wait for workers; if not the first, *job is NULL and nothing happened
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_add_job(
    tp: *mut ns_thrpool_t,
    job_type: ns_job_type_t,
    func: ns_job_func_t,
    data: *mut c_void,
    job: *mut *mut ns_job_t,
) -> ns_result_t {
    // SAFETY: the C interface requires `tp` and `job` to be NULL or valid.
    let make = unsafe { Make::new("ns_add_job", tp, job) };
    make.add(
        default_trigger(job_type),
        job_type,
        NS_JOB_TIMER,
        func,
        data,
        true,
    )
}

/// Make a job for an NSPR descriptor and arm it. It fires once when the descriptor is ready in a
/// direction that it asks for, or was when it was armed; with PERSIST again after each return.
/// Without PRESERVE_FD the descriptor is the job's: PR_Close is called when the job is disposed
/// of. Several jobs may watch one descriptor.
///
/// @param tp the pool
/// @param fd an open NSPR descriptor over one of the system's; see "Descriptors" above
/// @param job_type at least one of ACCEPT, CONNECT, READ, WRITE; with THREAD (not with ACCEPT),
/// PERSIST, PRESERVE_FD
/// @param func the callback; `ns_job_get_output_type` tells it what fired
/// @param data for `ns_job_get_data`; the application's own
/// @param job where the job is written before it can run; may be NULL
/// @return NS_SUCCESS, NS_SHUTDOWN, NS_ALLOCATION_FAILURE or NS_INVALID_REQUEST; if not the
/// first, *job is NULL, the descriptor is open and still the caller's, and nothing happened
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_add_io_job(
    tp: *mut ns_thrpool_t,
    fd: *mut PRFileDesc,
    job_type: ns_job_type_t,
    func: ns_job_func_t,
    data: *mut c_void,
    job: *mut *mut ns_job_t,
) -> ns_result_t {
    // SAFETY: the C interface requires `tp` and `job` to be NULL or valid.
    let make = unsafe { Make::new("ns_add_io_job", tp, job) };
    // SAFETY: the C interface requires `fd` to be NULL or open.
    match unsafe { make.nspr_trigger(fd, NEVER) } {
        // Clients of 0.2 pass NS_JOB_TIMER here too. Without a time-out it has no effect.
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

/// Make a job for a time and arm it. It fires when the time has passed, never before; with
/// PERSIST again and again, each time counted from the callback's return.
///
/// @param tp the pool
/// @param tv from now; zero is the loop's next turn; tv_usec may exceed 999999; not negative
/// @param job_type THREAD, PERSIST; TIMER is implied; see NS_JOB_CADENCE for times that do not drift
/// @param func the callback
/// @param data for `ns_job_get_data`; the application's own
/// @param job where the job is written before it can run; may be NULL
/// @return NS_SUCCESS, NS_SHUTDOWN, NS_ALLOCATION_FAILURE or NS_INVALID_REQUEST; if not the
/// first, *job is NULL and nothing happened
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_add_timeout_job(
    tp: *mut ns_thrpool_t,
    tv: *mut timeval,
    job_type: ns_job_type_t,
    func: ns_job_func_t,
    data: *mut c_void,
    job: *mut *mut ns_job_t,
) -> ns_result_t {
    // SAFETY: the C interface requires `tp` and `job` to be NULL or valid.
    let make = unsafe { Make::new("ns_add_timeout_job", tp, job) };
    // SAFETY: the C interface requires `tv` to be NULL or valid.
    match unsafe { nanoseconds(tv) } {
        Ok(time) => {
            let flags = job_type | NS_JOB_TIMER;
            if flags & NS_JOB_CADENCE != 0 && (flags & NS_JOB_PERSIST == 0 || time == 0) {
                return make
                    .refuse("job_type has CADENCE, which takes PERSIST, and a tv above zero");
            }
            let allowed = NS_JOB_TIMER | NS_JOB_CADENCE;
            make.add(Trigger::Timer(time), flags, allowed, func, data, true)
        }
        Err(why) => make.refuse(why),
    }
}

/// As `ns_add_io_job`, with a time-out: whichever comes first fires, alone. The output type is
/// then NS_JOB_TIMER and nothing else, or directions and no TIMER. Each arming starts the full
/// time afresh.
///
/// @param tp the pool
/// @param fd an open NSPR descriptor over one of the system's
/// @param tv the time-out; zero for none; not negative
/// @param job_type as for `ns_add_io_job`; TIMER is implied
/// @param func the callback
/// @param data for `ns_job_get_data`; the application's own
/// @param job where the job is written before it can run; may be NULL
/// @return as `ns_add_io_job`
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_add_io_timeout_job(
    tp: *mut ns_thrpool_t,
    fd: *mut PRFileDesc,
    tv: *mut timeval,
    job_type: ns_job_type_t,
    func: ns_job_func_t,
    data: *mut c_void,
    job: *mut *mut ns_job_t,
) -> ns_result_t {
    // SAFETY: the C interface requires `tp` and `job` to be NULL or valid.
    let make = unsafe { Make::new("ns_add_io_timeout_job", tp, job) };
    // SAFETY: the C interface requires `fd` to be NULL or open, and `tv` to be NULL or valid.
    let trigger = unsafe {
        make.timeout_of(tv)
            .and_then(|timeout| make.nspr_trigger(fd, timeout))
    };
    match trigger {
        Ok(trigger) => {
            let flags = job_type | NS_JOB_TIMER;
            make.add(trigger, flags, NS_JOB_IO | NS_JOB_TIMER, func, data, true)
        }
        Err(refused) => refused,
    }
}

/// Make a job for a signal and arm it. It fires once for what has arrived since it was made or
/// last fired, however much that was: signals coalesce. Without PERSIST the signal stays caught
/// after the first firing, until the job is finished with, and what arrives meanwhile fires the
/// job when it is armed again. While a job watches a signal, the handler that was there before
/// does not run; with the last job for it that one is put back. Several jobs, in several pools,
/// may watch one signal: all fire.
///
/// @param tp the pool
/// @param signum not SIGKILL or SIGSTOP, not one that the running code raises by itself (SIGILL,
/// SIGFPE, SIGSEGV, SIGBUS, SIGTRAP, SIGSYS), not one of the C library's own
/// @param job_type THREAD, PERSIST; SIGNAL is implied
/// @param func the callback, in an ordinary thread and free to do what it likes
/// @param data for `ns_job_get_data`; the application's own
/// @param job where the job is written before it can run; may be NULL
/// @return NS_SUCCESS, NS_SHUTDOWN, NS_ALLOCATION_FAILURE or NS_INVALID_REQUEST; if not the
/// first, *job is NULL and nothing happened
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_add_signal_job(
    tp: *mut ns_thrpool_t,
    signum: i32,
    job_type: ns_job_type_t,
    func: ns_job_func_t,
    data: *mut c_void,
    job: *mut *mut ns_job_t,
) -> ns_result_t {
    // SAFETY: the C interface requires `tp` and `job` to be NULL or valid.
    let make = unsafe { Make::new("ns_add_signal_job", tp, job) };
    if !can_catch(signum) {
        return make.refuse("signum is not a signal that can be watched");
    }
    let flags = job_type | NS_JOB_SIGNAL;
    make.add(
        Trigger::Signal(signum),
        flags,
        NS_JOB_SIGNAL,
        func,
        data,
        true,
    )
}

/// Writes `job`, or NULL, to `*out`, unless `out` is NULL.
///
/// # Safety
/// `out` is NULL or writable.
unsafe fn write_job(out: *mut *mut ns_job_t, job: Option<JobPtr>) {
    if !out.is_null() {
        // SAFETY: guaranteed by the caller.
        unsafe { *out = job.map_or(std::ptr::null_mut(), JobPtr::as_c) };
    }
}

/// One call that makes a job.
pub(super) struct Make<'a> {
    pub(super) function: &'static str,
    pub(super) pool: Option<&'a Pool>,
    out: *mut *mut ns_job_t,
    /// Restores errno when it is dropped.
    _errno: ErrnoGuard,
}

impl<'a> Make<'a> {
    /// Begins the call: sets `*out` to NULL, since there is no job yet.
    ///
    /// # Safety
    /// `tp` is NULL or a live pool; `out` is NULL or writable.
    pub(super) unsafe fn new(
        function: &'static str,
        tp: *mut ns_thrpool_t,
        out: *mut *mut ns_job_t,
    ) -> Self {
        let errno = ErrnoGuard::new();
        // SAFETY: guaranteed by the caller.
        let pool = unsafe {
            write_job(out, None);
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

    /// Checks the remaining arguments, makes the job and, unless `armed` is false, arms it.
    ///
    /// `allowed` are the flags that this call accepts in addition to those that all calls accept.
    #[inline]
    pub(super) fn add(
        &self,
        trigger: Trigger,
        flags: ns_job_type_t,
        allowed: ns_job_type_t,
        func: ns_job_func_t,
        data: *mut c_void,
        armed: bool,
    ) -> ns_result_t {
        self.add_in(None, trigger, flags, allowed, func, data, armed)
    }

    /// As [`Make::add`]; in `group`, if there is one.
    #[expect(
        clippy::too_many_arguments,
        reason = "they are those of the C functions"
    )]
    #[inline(always)]
    pub(super) fn add_in(
        &self,
        group: Option<GroupPtr>,
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
        let mut spec = Spec {
            flags: flags & KEPT,
            trigger,
            func,
            data,
            armed: !unarmed,
            front: Front::new(unarmed || group.is_some()),
        };
        if !shared.needs_no_checks() || shared.is_forked() {
            if shared.is_shutting_down() || shared.is_forked() {
                return shut_down(shared, self.function);
            }
            if shared.has_no_workers() && flags & NS_JOB_THREAD != 0 {
                return self.refuse(NO_WORKERS);
            }
            return add_unusual(self.function, pool, self.out, group, &mut spec);
        }
        self.make_and_start(shared, group, &spec, false, false)
    }

    /// Makes the job, already ARMED if `spec.armed`, and then hands it on. `timed`: the pool measures times.
    #[inline(always)]
    fn make_and_start(
        &self,
        shared: &Shared,
        group: Option<GroupPtr>,
        spec: &Spec,
        counted: bool,
        timed: bool,
    ) -> ns_result_t {
        let made = match group {
            Some(group) if spec.trigger == Trigger::Now && spec.armed && !timed => {
                let at = group.as_ptr().cast();
                JobPtr::make_member(&shared.alloc, at, spec.flags, spec.func, spec.data)
                    .ok_or(MakeError::NoMemory)
            }
            _ => shared.make(spec),
        };
        let job = match made {
            Ok(job) => job,
            Err(why) => return not_made(self.function, self.pool, why),
        };
        probes::made(shared, job);
        if counted {
            shared.count_new(job, spec.armed);
        }
        if timed && spec.armed && spec.trigger == Trigger::Now {
            job.set_stamp(sys::now());
        }
        // Write the pointer before the job can run: its callback may run at once and read it.
        // SAFETY: the caller of `new` guaranteed that `out` is NULL or writable.
        unsafe { write_job(self.out, Some(job)) };
        tsan_release(&raw const job.state);
        if let Some(group) = group {
            if job.group_as_ptr().is_none() {
                job.set_group(group.as_ptr().cast());
            }
            return self.add_to_group(shared, group, job, spec.kind(), spec.armed);
        }
        shared.made.add(spec.kind(), 1);
        if spec.armed {
            shared.start(job);
        }
        SUCCESS
    }
}

/// Makes a job in a pool that has a limit, measures times, or has no workers. It takes by value what it needs
/// of a [`Make`]: so the compiler can keep that in registers.
#[cold]
#[inline(never)]
fn add_unusual(
    function: &'static str,
    pool: &Pool,
    out: *mut *mut ns_job_t,
    group: Option<GroupPtr>,
    spec: &mut Spec,
) -> ns_result_t {
    let shared = &pool.shared;
    let make = Make {
        function,
        pool: Some(pool),
        out,
        _errno: ErrnoGuard::new(),
    };
    let counted = shared.has_limit() && group.is_none() && spec.is_threaded_run_now();
    if counted && spec.armed && shared.is_overloaded() {
        return refused(shared, function, Refused::Full);
    }
    if !shared.is_timed() {
        return make.make_and_start(shared, group, spec, counted, false);
    }
    spec.front = spec.front.timed();
    make.make_and_start(shared, group, spec, counted, true)
}

impl Make<'_> {
    /// Puts a new job into a group. If the group refuses it, the job is gone again.
    #[inline(always)]
    fn add_to_group(
        &self,
        shared: &Shared,
        group: GroupPtr,
        job: JobPtr,
        kind: Kind,
        armed: bool,
    ) -> ns_result_t {
        let Err(why) = shared.add_to_group(group, job, armed) else {
            // Only now, since what was counted can't be taken back. It may have run already.
            shared.made.add(kind, 1);
            return SUCCESS;
        };
        // SAFETY: the caller of `new` guaranteed that `out` is NULL or writable. The group refused
        // the job, so no other thread knows it.
        unsafe {
            write_job(self.out, None);
            shared.unmake(job, armed);
        }
        refused(shared, self.function, why)
    }
}

/// The trigger of a job that has no argument for one: the loop's next turn for a timer, otherwise
/// none.
fn default_trigger(job_type: ns_job_type_t) -> Trigger {
    if job_type & NS_JOB_TIMER != 0 {
        Trigger::Timer(0)
    } else {
        Trigger::Now
    }
}
