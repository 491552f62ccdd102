// SPDX-License-Identifier: GPL-3.0-or-later
//! Calls into the application: a job's callback and its done callback.
//!
//! The library holds no lock during these calls.

pub(crate) mod agent;

use std::cell::Cell;

use libc::c_void;

use crate::abi::{NS_JOB_PERSIST, ns_job_t};
use crate::group::core::{Came, Place};
use crate::group::{self, GroupPtr, Task};
use crate::job::state::{self, After, Work};
use crate::job::{JobPtr, Kind, probes};
use crate::log::{log, trace};
use crate::perturb::perturb;
use crate::shared::free::FreeBatch;
use crate::shared::{Shared, queue_of};
use crate::stats::Slot;
use crate::sync::{tsan_acquire, tsan_release, unless_tsan};
use crate::sys;
use crate::workq::Seat;

thread_local! {
    /// The callback that last left its job idle on this thread. [`run`] stores it before the job
    /// becomes idle; [`count_idle`] reads it afterwards, when the job may be gone. A thread-local
    /// rather than a variable of [`run`]: a variable would add five to ten instructions to every
    /// run that ends in another state.
    static IDLE: Cell<Option<Func>> = const { Cell::new(None) };
}

/// The type of a job's callback.
type Func = unsafe extern "C" fn(*mut ns_job_t);

/// The main function of a worker: runs jobs until the work queue is closed and empty.
pub(crate) fn work(pool: &Shared, index: usize) {
    let mut seat = pool.work.seat(index);
    let slot = pool.slots.of_worker(index);
    let mut batch = FreeBatch::new(pool);
    // It begins without work: what it takes first makes it busy.
    let mut next = wait(pool, slot, &mut seat, &mut batch);
    while let Some(task) = next {
        run_task(pool, slot, task, &seat, &mut batch);
        next = match pool.work.take(&mut seat) {
            None => wait(pool, slot, &mut seat, &mut batch),
            task => task,
        };
    }
    debug_assert!(batch.is_empty());
}

/// Does what `task` asks for.
#[inline(always)]
fn run_task(pool: &Shared, slot: &Slot, task: Task, seat: &Seat, batch: &mut FreeBatch<'_>) {
    let job = match task.kind() {
        group::TaskKind::Job(job) => job,
        group::TaskKind::Group(group) => return serve(pool, slot, group, batch),
        group::TaskKind::LookAtAll => return,
    };
    match job.state.take_work() {
        Work::Run if job.is_unusual() => run_unusual(pool, slot, job, seat, batch),
        Work::Run => run_job(pool, slot, job, seat, batch, || {}),
        Work::Leave => {}
        Work::Close => close(pool, slot, job),
        // SAFETY: the job is disposed of, and the work queue was its last holder.
        Work::Free => unsafe { batch.free(job) },
    }
}

/// The worker has found nothing: waits for the next task.
#[cold]
#[inline(never)]
fn wait(pool: &Shared, slot: &Slot, seat: &mut Seat, batch: &mut FreeBatch<'_>) -> Option<Task> {
    slot.set_busy(false);
    let task = pool.work.next(seat, || batch.give_back())?;
    slot.set_busy(true);
    if pool.is_clocked {
        pool.worker_woke(slot);
    }
    pool.note_busy();
    Some(task)
}

/// Closes the descriptor of `job`. The loop leaves this to a worker because the close may block.
#[cold]
#[inline(never)]
fn close(pool: &Shared, slot: &Slot, job: JobPtr) {
    pool.pause(slot);
    // The loop has counted a close already. Count again: a job added for this number since then was
    // added for the file that we close now.
    pool.fds.entry(job.fd()).count_close();
    job.close();
    job.state.closed();
    perturb("closed by a worker, and the loop not asked for the rest");
    pool.request(job);
}

/// Serves a group whose slot came to this worker.
// Out of line, so that jobs outside groups take a short path.
#[cold]
#[inline(never)]
fn serve(pool: &Shared, slot: &Slot, group: GroupPtr, batch: &mut FreeBatch<'_>) {
    // SAFETY: `serve` calls this for a job that nothing else holds.
    let free = |job| unsafe { batch.free(job) };
    agent::serve(pool, slot, group, Place::Worker, Came::FromWork, free);
}

/// Runs a job. `again` is called when a run-now job is about to be queued again.
#[inline(always)]
fn run_job(
    pool: &Shared,
    slot: &Slot,
    job: JobPtr,
    seat: &Seat,
    batch: &mut FreeBatch<'_>,
    again: impl FnOnce(),
) {
    let kind = job.kind();
    let now = kind == Kind::Now;
    // Only the loop releases descriptors and signals. It holds no part of a timer or run-now job at
    // this point, so the worker disposes of those itself.
    let own = now || kind == Kind::Timer;
    let arm = queue_of(kind);
    let disposal = if own { 0 } else { state::REQ };
    match run(pool, slot, job, arm, disposal) {
        After::Idle => count_idle(pool),
        After::Armed if now => {
            again();
            pool.work.push_local(seat, Task::job(job));
        }
        After::Dispose if own => {
            slot.count_disposed(if now { Kind::Now } else { Kind::Timer });
            if dispose(pool, slot, job) {
                // SAFETY: `dispose` returned true: nothing else holds the job.
                unsafe { batch.free(job) };
            }
        }
        After::Armed | After::Dispose => pool.request(job),
    }
}

/// Runs a job that may count against the pool's limit while it waits.
#[cold]
#[inline(never)]
fn run_unusual(pool: &Shared, slot: &Slot, job: JobPtr, seat: &Seat, batch: &mut FreeBatch<'_>) {
    if !job.is_counted() {
        return run_job(pool, slot, job, seat, batch, || {});
    }
    pool.overload.remove();
    run_job(pool, slot, job, seat, batch, || {
        perturb("armed again, and not counted");
        pool.overload.add(1);
    });
}

/// Calls the callback of `job`, whose state is already RUNNING, and moves the job to its next
/// state. `arm` and `dispose` are the queue bits to set if the job is armed again or finished with.
///
/// The timer of a job that is armed again starts when the callback returns. An idle job belongs to
/// the application, which may end it at any moment; the caller then counts it with [`count_idle`].
pub(crate) fn run(pool: &Shared, slot: &Slot, job: JobPtr, arm: u32, dispose: u32) -> After {
    trace!(pool.logger, "job {:p}: callback begins", job.as_c());
    if pool.is_clocked {
        return run_clocked(pool, slot, job, arm, dispose);
    }
    slot.begin(job.as_c().cast(), job.func() as *const c_void);
    execute(pool, job);
    slot.end();
    move_on(pool, job, arm, dispose)
}

/// As [`run`], in a pool that reads the clock for each callback.
#[cold]
#[inline(never)]
fn run_clocked(pool: &Shared, slot: &Slot, job: JobPtr, arm: u32, dispose: u32) -> After {
    let kind = job.kind();
    // If times are measured: they, and the job's stamp.
    let timed = (pool.slots.times_of(slot)).map(|times| (times, job.stamp()));
    let since = timed.map_or_else(sys::now, |(times, stamp)| times.begin(stamp.get()));
    slot.begin_at(since, job.data());
    slot.begin(job.as_c().cast(), job.func() as *const c_void);
    execute(pool, job);
    perturb("returned, and the mark not looked at");
    let end = timed.map_or(0, |(times, stamp)| {
        let end = times.end(since);
        // A run-now job that is armed again waits from now on. Until the next step no other thread arms it.
        stamp.set(end);
        end
    });
    if slot.mark().returned(since, sys::now) {
        pool.watchdog.ring();
    }
    slot.end();
    let after = move_on(pool, job, arm, dispose);
    if let Some((times, _)) = timed {
        // What follows elsewhere may be a system call.
        let in_loop = std::ptr::eq(slot, pool.slots.of_loop());
        let quick = kind == Kind::Now || in_loop && (after == After::Armed || kind == Kind::Timer);
        times.go_on(if quick { end } else { 0 });
    }
    after
}

/// The callback of `job` has returned: moves the job to its next state.
#[inline(always)]
fn move_on(pool: &Shared, job: JobPtr, arm: u32, dispose: u32) -> After {
    perturb("the callback returned, its state says that it runs");
    let after = job.state.callback_returned(
        &pool.waiters,
        job.has(NS_JOB_PERSIST),
        || !pool.is_shutting_down(),
        arm,
        dispose,
        || note_idle(job),
    );
    // Only now: until the callback returned, another thread could still rearm the job, and its
    // timer must not start earlier than that. No other thread sets the timer of an armed job before
    // we hand the job on.
    if after == After::Armed {
        job.restart_after_run();
        probes::armed(pool, job);
    }
    after
}

/// Calls the callback; under ThreadSanitizer with what it has to be told.
#[inline(always)]
fn execute(pool: &Shared, job: JobPtr) {
    probes::run_begin(pool, job);
    unless_tsan(
        || call(pool, job, job.func()),
        || {
            tsan_acquire(&raw const job.state);
            call(pool, job, job.func());
            tsan_release(&raw const job.state);
        },
    );
    probes::run_return(pool, job);
}

/// Records that `job`, whose callback ran on this thread, is about to become idle.
// Out of line, so that jobs that do not become idle take a short path.
#[cold]
#[inline(never)]
fn note_idle(job: JobPtr) {
    IDLE.set(Some(job.func()));
}

/// Counts as idle the job that [`run`] has just run on this thread.
#[cold]
#[inline(never)]
pub(crate) fn count_idle(pool: &Shared) {
    perturb("idle, and not counted");
    if let Some(func) = IDLE.get() {
        pool.idle.add(func);
    }
}

/// Calls the done callback, once all other resources of the job are released. Returns true if the
/// caller must free the job: no queue or list holds it, and the application must not use it after
/// its done callback.
#[must_use]
#[inline(always)]
fn dispose(pool: &Shared, slot: &Slot, job: JobPtr) -> bool {
    trace!(pool.logger, "job {:p}: disposed of", job.as_c());
    job.state.begin_disposal();
    tsan_acquire(&raw const job.state);
    perturb("being disposed of, and the done callback not called");
    if let Some(done) = job.done_cb() {
        call_done(pool, slot, job, done);
    }
    probes::disposed(pool, job);
    job.state.end_disposal()
}

/// Calls the done callback `done` of `job`.
// Out of line, so that jobs without one need no frame for it.
#[inline(never)]
fn call_done(pool: &Shared, slot: &Slot, job: JobPtr, done: unsafe extern "C" fn(*mut ns_job_t)) {
    let begin = || slot.begin_ending(job.as_c().cast(), done as *const c_void);
    let execute = || {
        probes::done_begin(pool, job);
        call(pool, job, done);
        probes::done_return(pool, job);
    };
    if pool.is_clocked {
        pool.watchdog
            .timed(slot, job.data(), begin, execute, || slot.end_ending());
        pool.pause(slot);
    } else {
        begin();
        execute();
        slot.end_ending();
    }
}

/// Calls the done callback of a job that is in no queue and no list, and frees the job. The loop does
/// this, in `place`; in a group the done callback takes its turn.
#[inline(always)]
pub(crate) fn farewell(pool: &Shared, slot: &Slot, job: JobPtr, place: impl FnOnce() -> Place) {
    if let Some(group) = job.group() {
        return agent::farewell(pool, slot, group, job, place());
    }
    if dispose(pool, slot, job) {
        // SAFETY: `dispose` returned true: nothing else holds the job.
        unsafe { pool.free_job(job) };
    }
}

fn call(pool: &Shared, job: JobPtr, func: unsafe extern "C" fn(*mut ns_job_t)) {
    // SAFETY: the application supplied the function, and we pass the job that it belongs to. If an
    // exception leaves it, the process ends: nothing here catches it.
    unsafe { func(job.as_c()) };
    abort_if_forked(pool);
}

fn abort_if_forked(pool: &Shared) {
    if pool.is_forked() {
        // If we continued, this thread would use the parent's descriptors.
        log!(
            pool.logger,
            LOG_CRIT,
            "a callback returned in a forked child"
        );
        std::process::abort();
    }
}
