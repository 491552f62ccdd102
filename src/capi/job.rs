// SPDX-License-Identifier: GPL-3.0-or-later
//! The jobs' functions that 0.2 has.

use libc::{c_int, c_void, timeval};

use super::call::*;
use crate::abi::_ns_result_t as R;
use crate::abi::*;
use crate::job::free::Entering;
use crate::job::state;
use crate::job::wait::Outcome;
use crate::job::{Job, JobPtr, NEVER, Trigger};
use crate::log::log;
use crate::shared::{Armed, Ended, Shared};
use crate::signals::can_watch;
use crate::sync::take_over;
use crate::sys::ErrnoGuard;

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
    // SAFETY: by the interface's rules.
    let make = unsafe { Make::new("ns_create_job", tp, job) };
    if job.is_null() {
        return make.refuse("job is NULL");
    }
    make.finish(
        soon(job_type),
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
/// @return NS_SUCCESS, NS_SHUTDOWN, NS_ALLOCATION_FAILURE or NS_INVALID_REQUEST; if not the
/// first, *job is NULL and nothing happened
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_add_job(
    tp: *mut ns_thrpool_t,
    job_type: ns_job_type_t,
    func: ns_job_func_t,
    data: *mut c_void,
    job: *mut *mut ns_job_t,
) -> ns_result_t {
    // SAFETY: by the interface's rules.
    let make = unsafe { Make::new("ns_add_job", tp, job) };
    make.finish(soon(job_type), job_type, NS_JOB_TIMER, func, data, true)
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
    // SAFETY: by the interface's rules.
    let make = unsafe { Make::new("ns_add_io_job", tp, job) };
    // SAFETY: as above.
    match unsafe { make.nspr(fd, NEVER) } {
        Ok(trigger) => make.finish(
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
/// @param job_type THREAD, PERSIST; TIMER is implied
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
    // SAFETY: by the interface's rules.
    let make = unsafe { Make::new("ns_add_timeout_job", tp, job) };
    // SAFETY: as above.
    match unsafe { nanoseconds(tv) } {
        Ok(time) => {
            let flags = job_type | NS_JOB_TIMER;
            make.finish(Trigger::Timer(time), flags, NS_JOB_TIMER, func, data, true)
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
    // SAFETY: by the interface's rules.
    let make = unsafe { Make::new("ns_add_io_timeout_job", tp, job) };
    // SAFETY: as above.
    let trigger = unsafe { idle_time(&make, tv).and_then(|timeout| make.nspr(fd, timeout)) };
    match trigger {
        Ok(trigger) => {
            let flags = job_type | NS_JOB_TIMER;
            make.finish(trigger, flags, NS_JOB_IO | NS_JOB_TIMER, func, data, true)
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
    // SAFETY: by the interface's rules.
    let make = unsafe { Make::new("ns_add_signal_job", tp, job) };
    if !can_watch(signum) {
        return make.refuse("signum is no signal that can be watched");
    }
    let flags = job_type | NS_JOB_SIGNAL;
    make.finish(
        Trigger::Signal(signum),
        flags,
        NS_JOB_SIGNAL,
        func,
        data,
        true,
    )
}

/// Arm a job again: the same trigger, its time started afresh. Inside the job's callback, or
/// while it runs, it takes effect when the callback returns. Any thread.
///
/// @param job a live job, WAITING or RUNNING
/// @return NS_SUCCESS; NS_SHUTDOWN; NS_INVALID_STATE if it is armed, has been rearmed already or is
/// finished with, or runs and has PERSIST; NS_INVALID_REQUEST for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_job_rearm(job: *mut ns_job_t) -> ns_result_t {
    const NAME: &str = "ns_job_rearm";
    let call = |job: JobPtr, pool: &Shared| match pool.arm(job) {
        Armed::Yes => SUCCESS,
        Armed::NotNow => wrong_state(pool, NAME, "can't be armed now"),
        Armed::ShuttingDown => {
            log!(pool.logger, LOG_DEBUG, "{NAME}: the pool is shutting down");
            SHUTDOWN
        }
    };
    // SAFETY: NULL or a live job, by the interface's rules.
    unsafe { on_job(NAME, job, call) }
}

/// Finish with a job. It is disposed of soon: its descriptor is closed, unless it has
/// PRESERVE_FD, its done callback runs, it is freed. If its callback is running, that happens when
/// the callback returns. An armed job can't be done (but see `ns_job_cancel`) until the pool is
/// shutting down. Any thread; never waits. On success the job is the library's: do not use it
/// again, but in its own callback and its done callback.
///
/// @param job a live job, or, in its callbacks, one that is finished with
/// @return NS_SUCCESS, also if it is finished with already; NS_INVALID_STATE if it is armed;
/// NS_SHUTDOWN in a forked child; NS_INVALID_REQUEST for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_job_done(job: *mut ns_job_t) -> ns_result_t {
    const NAME: &str = "ns_job_done";
    let call = |job: JobPtr, pool: &Shared| match pool.end(job, pool.is_shutting_down()) {
        Ended::Yes | Ended::Running => SUCCESS,
        Ended::Armed => wrong_state(pool, NAME, "is armed"),
    };
    // SAFETY: NULL or a live job, by the interface's rules.
    unsafe { on_job(NAME, job, call) }
}

/// Block until a job is idle. Any number of threads. Nobody may finish with the job until the
/// waiting thread is inside this call; then anybody may. It can't wait in the pool's loop thread,
/// nor in the job's own callback. In a callback in one of the pool's workers the wait ends when
/// the pool shuts down, for that waits for the workers. A worker that waits runs nothing: if all of
/// them wait for jobs that are queued for workers, none of these runs.
///
/// @param job a live job
/// @return NS_SUCCESS when it is WAITING; NS_DELETING when it is being disposed of; NS_SHUTDOWN
/// when the pool has stopped and it can no longer run (in a worker of the pool: when it shuts
/// down), or in a forked child; NS_INVALID_STATE from the loop thread or the job's own callback,
/// unless it is WAITING; NS_INVALID_REQUEST for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_job_wait(job: *mut ns_job_t) -> ns_result_t {
    // First of all: from here on a job that is live stays in memory.
    let entering = Entering::new();
    // SAFETY: NULL or a live job, by the interface's rules.
    unsafe { wait_until("ns_job_wait", job, Ok(None), entering) }
}

/// The application's pointer. Any thread, any state.
///
/// @param job a live job
/// @return what was set last; NULL for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_job_get_data(job: *mut ns_job_t) -> *mut c_void {
    // SAFETY: NULL or a live job, by the interface's rules.
    unsafe { ask(job, std::ptr::null_mut(), |job| job.take_data()) }
}

/// Replace the application's pointer, at once. Any thread.
///
/// @param job a live job, WAITING or RUNNING
/// @param data the application's own; the old one is not touched
/// @return NS_SUCCESS; NS_INVALID_STATE if it is in another state; NS_SHUTDOWN in a forked child;
/// NS_INVALID_REQUEST for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_job_set_data(job: *mut ns_job_t, data: *mut c_void) -> ns_result_t {
    // SAFETY: NULL or a live job, by the interface's rules.
    unsafe { set("ns_job_set_data", job, |job| job.set_data(data)) }
}

/// Set the done callback: called exactly once when the job is disposed of, after its last run and
/// after its descriptor was closed, in the loop or the worker that ran it last. A close that may
/// block, of a socket with SO_LINGER, is left to a worker, and waits for one. The callback may
/// call the getters; the job is gone when it returns. To set it before the job can run, make the job with
/// NS_JOB_UNARMED or `ns_create_job`. Any thread.
///
/// @param job a live job, WAITING or RUNNING
/// @param func the done callback; NULL for none
/// @return NS_SUCCESS; NS_INVALID_STATE if it is in another state; NS_SHUTDOWN in a forked child;
/// NS_INVALID_REQUEST for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_job_set_done_cb(
    job: *mut ns_job_t,
    func: ns_job_func_t,
) -> ns_result_t {
    // SAFETY: NULL or a live job, by the interface's rules.
    unsafe { set("ns_job_set_done_cb", job, |job| job.set_done_cb(func)) }
}

/// The flags that the job was made with, and those that were implied. Any thread, any state.
///
/// @param job a live job
/// @return NS_JOB_... flags; 0 for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_job_get_type(job: *mut ns_job_t) -> ns_job_type_t {
    // SAFETY: NULL or a live job, by the interface's rules.
    unsafe { ask(job, 0, |job| job.flags()) }
}

/// What fired, for the length of the callback: READ and WRITE (ACCEPT counts as READ, CONNECT as
/// WRITE), or TIMER, or SIGNAL. Any thread.
///
/// @param job a live job
/// @return NS_JOB_... flags; 0 outside the callback, for run-now jobs and for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_job_get_output_type(job: *mut ns_job_t) -> ns_job_type_t {
    // SAFETY: NULL or a live job, by the interface's rules.
    unsafe { ask(job, 0, |job| job.output()) }
}

/// The pool that a job belongs to. Any thread, any state.
///
/// @param job a live job
/// @return its pool; NULL for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_job_get_tp(job: *mut ns_job_t) -> *mut ns_thrpool_t {
    // SAFETY: NULL or a live job, by the interface's rules.
    unsafe { ask(job, std::ptr::null_mut(), |job| job.pool_as_c().as_ptr()) }
}

/// The NSPR descriptor that a job was made with. Any thread, any state.
///
/// @param job a live job
/// @return the very pointer; NULL if it has none, and for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_job_get_fd(job: *mut ns_job_t) -> *mut PRFileDesc {
    // SAFETY: NULL or a live job, by the interface's rules.
    unsafe { ask(job, std::ptr::null_mut(), JobPtr::prfd) }
}

/// Whether a job has this callback. Any thread, any state.
///
/// @param job a live job
/// @param func a callback
/// @return 1 or 0; 0 if either is NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_job_is_func(job: *mut ns_job_t, func: ns_job_func_t) -> c_int {
    // SAFETY: NULL or a live job, by the interface's rules.
    unsafe {
        ask(job, 0, |job| {
            c_int::from(func.is_some_and(|func| job.func() as usize == func as usize))
        })
    }
}

/// The trigger of a job that is given none: the loop's next turn for a timer, else nothing.
fn soon(job_type: ns_job_type_t) -> Trigger {
    if job_type & NS_JOB_TIMER != 0 {
        Trigger::Timer(0)
    } else {
        Trigger::Now
    }
}

/// A time-out in nanoseconds: zero means none.
///
/// # Safety
/// `tv` is NULL or a time.
pub(super) unsafe fn idle_time(make: &Make<'_>, tv: *const timeval) -> Result<u64, ns_result_t> {
    // SAFETY: by the caller's promise.
    match unsafe { nanoseconds(tv) } {
        Ok(0) => Ok(NEVER),
        Ok(time) => Ok(time),
        Err(why) => Err(make.refuse(why)),
    }
}

/// Change what the application may change while the job is its own.
///
/// # Safety
/// `job` is NULL or a live job.
unsafe fn set(name: &str, job: *mut ns_job_t, change: impl FnOnce(&Job)) -> ns_result_t {
    let call = |job: JobPtr, pool: &Shared| match job.state.now() {
        state::WAITING | state::RUNNING => {
            take_over(&raw const job.state);
            change(&job);
            SUCCESS
        }
        _ => wrong_state(pool, name, "is neither waiting nor running"),
    };
    // SAFETY: by the caller's promise.
    unsafe { on_job(name, job, call) }
}

/// Block until `job` is idle or `deadline` has come, in nanoseconds of the monotonic clock; or say
/// why there is none.
///
/// # Safety
/// `job` is NULL or a live job.
pub(super) unsafe fn wait_until(
    name: &str,
    job: *mut ns_job_t,
    deadline: Result<Option<u64>, &str>,
    entering: Entering,
) -> ns_result_t {
    let _errno = ErrnoGuard::new();
    // SAFETY: by the caller's promise.
    let Some(job) = (unsafe { job_of(job) }) else {
        drop(entering);
        return refuse(None, name, deadline.err().unwrap_or("job is NULL"));
    };
    // SAFETY: a pool outlives its live jobs, and those who have entered it.
    let pool: &Shared = unsafe { &*std::ptr::from_ref(job.pool()) };
    // Before `entering` goes, which has kept the job: from here on the pool stays, for the logger
    // too, during which nobody may be counted as entering.
    let _inside = pool.waiters.enter();
    let deadline = match deadline {
        _ if pool.is_forked() => {
            drop(entering);
            return forked(pool, name);
        }
        Ok(deadline) => deadline,
        Err(why) => {
            drop(entering);
            log!(pool.logger, LOG_ERR, "{name}: {why}");
            return INVALID_REQUEST;
        }
    };
    match pool.wait_for(job, deadline, entering) {
        None => wrong_state(pool, name, "can't be waited for from here"),
        Some(Outcome::Idle) => SUCCESS,
        Some(Outcome::Deleting) => R::NS_DELETING as ns_result_t,
        Some(Outcome::Stopped) => SHUTDOWN,
        Some(Outcome::TimedOut) => R::NS_TIMEOUT as ns_result_t,
    }
}
