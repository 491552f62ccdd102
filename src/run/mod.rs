// SPDX-License-Identifier: GPL-3.0-or-later
//! Calling the application: a job's callback, and its done callback.
//!
//! No lock is held here.

use std::cell::Cell;
use std::sync::atomic::Ordering;

use crate::abi::{NS_JOB_PERSIST, ns_job_t};
use crate::job::state::{self, After, Work};
use crate::job::{JobPtr, Kind, here};
use crate::log::{log, trace};
use crate::perturb::perturb;
use crate::shared::free::Spent;
use crate::shared::{Shared, queue_of};
use crate::sync::{hand_over, take_over, unless_instrumented};
use crate::sys;
use crate::workq::Seat;

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

/// A worker's life: run what comes, until nothing more does.
pub(crate) fn work(pool: &Shared) {
    pool.enter(false);
    let mut seat = pool.work.seat(pool.seats.fetch_add(1, Ordering::Relaxed));
    let mut spent = Spent::new();
    while let Some(job) = pool.work.next(&mut seat, || spent.give_back()) {
        match job.state.take_work() {
            Work::Run => run_job(pool, job, &seat, &mut spent),
            Work::Leave => {}
            Work::Close => close(pool, job),
            // SAFETY: disposed of, and the work queue was the last that held it.
            Work::Free => unsafe { spent.free(job) },
        }
    }
    debug_assert!(spent.is_empty());
}

/// The loop left it to a worker to close the descriptor of `job`, which may block.
#[cold]
#[inline(never)]
fn close(pool: &Shared, job: JobPtr) {
    // Once more: a job that was made for the number since the loop counted was made for what is
    // closed now.
    pool.fds.entry(job.fd()).count_close();
    job.close();
    job.state.closed();
    perturb("closed by a worker, and the loop not asked for the rest");
    pool.request(job);
}

fn run_job(pool: &Shared, job: JobPtr, seat: &Seat, spent: &mut Spent) {
    let now = job.kind() == Kind::Now;
    // Descriptors and signals are the loop's to let go of; the others nobody else knows.
    let own = now || job.kind() == Kind::Timer;
    let arm = queue_of(job.kind());
    let disposal = if own { 0 } else { state::REQ };
    match run(job, arm, disposal) {
        After::Idle => count_idle(pool),
        After::Armed if now => pool.work.push_local(seat, job),
        After::Dispose if own => {
            if dispose(job) {
                // SAFETY: `dispose` says so.
                unsafe { spent.free(job) };
            }
        }
        After::Armed | After::Dispose => pool.request(job),
    }
}
