// SPDX-License-Identifier: GPL-3.0-or-later
//! Calling the application: a job's callback, and its done callback.
//!
//! No lock is held here.

use std::cell::Cell;

use crate::abi::{NS_JOB_PERSIST, ns_job_t};
use crate::job::state::After;
use crate::job::{JobPtr, here};
use crate::log::{log, trace};
use crate::perturb::perturb;
use crate::shared::Shared;
use crate::sync::{hand_over, take_over, unless_instrumented};
use crate::sys;

thread_local! {
    /// The callback that ran last on this thread and left its job idle. Kept here and not in [`run`],
    /// since that would cost each run that ends otherwise five to ten instructions.
    static IDLE: Cell<Option<Func>> = const { Cell::new(None) };
}

/// A job's callback.
type Func = unsafe extern "C" fn(*mut ns_job_t);

/// Call the callback of `job`, which has begun, and move it on. `arm` and `dispose` are the queue
/// bits that its state is to carry when it is armed again or finished with.
///
/// The time of a job that is armed again starts when the callback returns. One that is idle is the
/// application's, and may be gone: the caller has it counted by [`count_idle`].
pub(crate) fn run(job: JobPtr, arm: u32, dispose: u32) -> After {
    let pool = job.pool();
    trace!(pool.logger, "job {:p}: callback begins", job.as_c());
    here::enter_callback(&job);
    unless_instrumented(
        || call(job, job.func()),
        || {
            take_over(&raw const job.state);
            call(job, job.func());
            hand_over(&raw const job.state);
        },
    );
    here::leave_callback();
    perturb("the callback returned, its state says that it runs");
    let after = job.state.finish_noting(
        &pool.waiters,
        job.has(NS_JOB_PERSIST),
        || !pool.is_shutting_down(),
        arm,
        dispose,
        || note_idle(job),
    );
    // Not before: a rearm from outside may have come until then, and its time starts no earlier.
    // Armed again, the job is ours until it is handed on.
    if after == After::Armed && job.has_timeout() {
        job.restart(sys::now());
    }
    after
}

/// `job`, which ran here, is about to be idle.
// These two are out of the way of jobs that are not.
#[cold]
#[inline(never)]
fn note_idle(job: JobPtr) {
    IDLE.set(Some(job.func()));
}

/// The job that [`run`] ran here just now is idle.
#[cold]
#[inline(never)]
pub(crate) fn count_idle(pool: &Shared) {
    perturb("idle, and not counted");
    if let Some(func) = IDLE.get() {
        pool.idle.came(func);
    }
}

/// Run the done callback. Everything else that the job had is gone. True if the caller is to free
/// it: no queue holds it, no list has it, and nobody may name it after its done callback.
#[must_use]
pub(crate) fn dispose(job: JobPtr) -> bool {
    trace!(job.pool().logger, "job {:p}: disposed of", job.as_c());
    job.state.begin_disposal();
    take_over(&raw const job.state);
    perturb("being disposed of, and the done callback not called");
    if let Some(done) = job.done_cb() {
        call(job, done);
    }
    job.state.end_disposal()
}

/// The end of a job that is out of everything: its done callback, and its memory. Any thread.
pub(crate) fn farewell(job: JobPtr) {
    if dispose(job) {
        // SAFETY: `dispose` says so.
        unsafe { job.free() };
    }
}

fn call(job: JobPtr, func: unsafe extern "C" fn(*mut ns_job_t)) {
    // SAFETY: the application's function, called with its job. An exception that leaves it
    // ends the process: nothing here catches it.
    unsafe { func(job.as_c()) };
    let pool = job.pool();
    if pool.is_forked() {
        // This thread would go on with the parent's descriptors.
        log!(
            pool.logger,
            LOG_CRIT,
            "a callback returned in a forked child"
        );
        std::process::abort();
    }
}
