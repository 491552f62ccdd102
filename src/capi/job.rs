// SPDX-License-Identifier: GPL-3.0-or-later
//! The functions of 0.2 that take a job.

use libc::{c_int, c_void};

use super::call::*;
use crate::abi::_ns_result_t as R;
use crate::abi::*;
use crate::job::free::Entering;
use crate::job::state;
use crate::job::wait::Outcome;
use crate::job::{Job, JobPtr};
use crate::log::log;
use crate::shared::{Ended, Shared};
use crate::sync::tsan_acquire;
use crate::sys::ErrnoGuard;

/// Arm a job again: the same trigger, its time started afresh. Inside the job's callback, or
/// while it runs, it takes effect when the callback returns. Any thread.
///
/// @param job a live job, WAITING or RUNNING
/// @return NS_SUCCESS; NS_SHUTDOWN; NS_INVALID_STATE if it is armed, has been rearmed already or is
/// finished with, or runs and has PERSIST; NS_INVALID_REQUEST for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_job_rearm(job: *mut ns_job_t) -> ns_result_t {
    const NAME: &str = "ns_job_rearm";
    let call = |job: JobPtr, pool: &Shared| rearmed(pool, NAME, pool.arm(job));
    // SAFETY: the C interface requires `job` to be NULL or a live job.
    unsafe { on_job(NAME, job, call) }
}

/// Finish with a job. The library disposes of it soon: it closes the job's descriptor, unless the job has
/// PRESERVE_FD, calls its done callback, and frees it. If the job's callback is running, that happens when
/// the callback returns. An armed job is refused until the pool is shutting down: use `ns_job_cancel`
/// for it. Any thread; never waits. On success the job belongs to the library: after that use it only in
/// its own callback and its done callback.
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
    // SAFETY: the C interface requires `job` to be NULL or a live job.
    unsafe { on_job(NAME, job, call) }
}

/// Block until a job is idle. Any number of threads. Nobody may finish with the job until the
/// waiting thread is inside this call; then anybody may. It can't wait in the pool's loop thread,
/// in the job's own callback or, if the job is in a group of width 1, in a callback of that group.
/// In a callback in one of the pool's workers the wait ends when the pool shuts down, because the
/// shutdown waits for the workers. A worker that waits here runs no other job: if all workers wait for
/// jobs that are queued for workers, none of these jobs runs.
///
/// @param job a live job
/// @return NS_SUCCESS when it is WAITING; NS_DELETING when it is being disposed of; NS_SHUTDOWN
/// when the pool has stopped and it can no longer run (in a worker of the pool: when it shuts
/// down), or in a forked child; NS_INVALID_STATE from the loop thread, the job's own callback or a
/// callback of the group of width 1 that it is in, unless it is WAITING; NS_INVALID_REQUEST for
/// NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_job_wait(job: *mut ns_job_t) -> ns_result_t {
    // This comes first: from here on, a job that is live stays in memory.
    let entering = Entering::new();
    // SAFETY: the C interface requires `job` to be NULL or a live job.
    unsafe { wait_until("ns_job_wait", job, Ok(None), entering) }
}

/// The application's pointer. Any thread, any state.
///
/// @param job a live job
/// @return what was set last; NULL for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_job_get_data(job: *mut ns_job_t) -> *mut c_void {
    // SAFETY: the C interface requires `job` to be NULL or a live job.
    unsafe { query(job, std::ptr::null_mut(), |job| job.take_data()) }
}

/// Replace the application's pointer, at once. Any thread.
///
/// @param job a live job, WAITING or RUNNING
/// @param data the application's own; the old one is not touched
/// @return NS_SUCCESS; NS_INVALID_STATE if it is in another state; NS_SHUTDOWN in a forked child;
/// NS_INVALID_REQUEST for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_job_set_data(job: *mut ns_job_t, data: *mut c_void) -> ns_result_t {
    // SAFETY: the C interface requires `job` to be NULL or a live job.
    unsafe { set("ns_job_set_data", job, |job| job.set_data(data)) }
}

/// Set the done callback: called exactly once when the job is disposed of, after its last run and
/// after its descriptor was closed, in the loop or in a worker. A close that may block, of a socket
/// with SO_LINGER, is left to a worker, and waits for one. The callback may call the getters; the
/// job is gone when it returns. To set it before the job can run, make the job with NS_JOB_UNARMED
/// or `ns_create_job`. Any thread.
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
    // SAFETY: the C interface requires `job` to be NULL or a live job.
    unsafe { set("ns_job_set_done_cb", job, |job| job.set_done_cb(func)) }
}

/// The flags that the job was made with, and those that were implied. Any thread, any state.
///
/// @param job a live job
/// @return NS_JOB_... flags; 0 for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_job_get_type(job: *mut ns_job_t) -> ns_job_type_t {
    // SAFETY: the C interface requires `job` to be NULL or a live job.
    unsafe { query(job, 0, |job| job.flags()) }
}

/// What fired, for the length of the callback: READ and WRITE (ACCEPT counts as READ, CONNECT as
/// WRITE), or TIMER, or SIGNAL. Any thread.
///
/// @param job a live job
/// @return NS_JOB_... flags; 0 outside the callback, for run-now jobs and for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_job_get_output_type(job: *mut ns_job_t) -> ns_job_type_t {
    // SAFETY: the C interface requires `job` to be NULL or a live job.
    unsafe { query(job, 0, |job| job.output()) }
}

/// The pool that a job belongs to. Any thread, any state.
///
/// @param job a live job
/// @return its pool; NULL for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_job_get_tp(job: *mut ns_job_t) -> *mut ns_thrpool_t {
    // SAFETY: the C interface requires `job` to be NULL or a live job.
    unsafe { query(job, std::ptr::null_mut(), |job| job.pool_as_c().as_ptr()) }
}

/// The NSPR descriptor that a job was made with. Any thread, any state.
///
/// @param job a live job
/// @return the same pointer; NULL if it has none, and for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_job_get_fd(job: *mut ns_job_t) -> *mut PRFileDesc {
    // SAFETY: the C interface requires `job` to be NULL or a live job.
    unsafe { query(job, std::ptr::null_mut(), JobPtr::prfd) }
}

/// Whether a job has this callback. Any thread, any state.
///
/// @param job a live job
/// @param func a callback
/// @return 1 or 0; 0 if either is NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_job_is_func(job: *mut ns_job_t, func: ns_job_func_t) -> c_int {
    // SAFETY: the C interface requires `job` to be NULL or a live job.
    unsafe {
        query(job, 0, |job| {
            c_int::from(func.is_some_and(|func| job.func() as usize == func as usize))
        })
    }
}

/// Changes a field that the application may change while it owns the job or the callback runs.
///
/// # Safety
/// `job` is NULL or a live job.
unsafe fn set(name: &str, job: *mut ns_job_t, change: impl FnOnce(&Job)) -> ns_result_t {
    let call = |job: JobPtr, pool: &Shared| match job.state.now() {
        state::WAITING | state::RUNNING => {
            tsan_acquire(&raw const job.state);
            change(&job);
            SUCCESS
        }
        _ => wrong_state(pool, name, "is neither waiting nor running"),
    };
    // SAFETY: guaranteed by the caller.
    unsafe { on_job(name, job, call) }
}

/// Blocks until `job` is idle or `deadline` has passed, in nanoseconds of the monotonic clock. An
/// `Err` is the reason why the deadline is not valid.
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
    // SAFETY: guaranteed by the caller.
    let Some(job) = (unsafe { job_of(job) }) else {
        drop(entering);
        return refuse(None, name, deadline.err().unwrap_or("job is NULL"));
    };
    // SAFETY: a pool outlives its live jobs, and the calls that have entered it.
    let pool: &Shared = unsafe { &*std::ptr::from_ref(job.pool()) };
    // Enter before `entering` is dropped, which has kept the job. From here on the pool stays, so
    // the code below can drop `entering` before it calls the logger: no thread may be counted as
    // entering while code of the application runs.
    let _in_call = pool.waiters.enter();
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
