// SPDX-License-Identifier: GPL-3.0-or-later
//! Models of the protocols. Loom explores the orders in which the threads' steps can interleave, up
//! to a given number of preemptions per execution, and every value that a load may return.
//!
//! `make check-model` runs the models and prints how many executions each took. The steps are the
//! library's own code: the state word, the waiters, the deferred frees, the work queue, the wake
//! flag, the sink. The code between the steps is rewritten here, as short as possible: the loop's
//! turns, a worker's life, an application. Two parts are replaced: crossbeam's queue by a queue
//! under a lock (in `workq`), and the pipe by a counter under a lock (in [`wake`]).
//!
//! A model marks memory instead of freeing it. [`Memory`](crate::sync::Memory) detects a use after
//! the free, a second free, and a last use that does not happen before the free. The data that a
//! callback uses is in a loom cell, which detects unsynchronised access by two threads.
//!
//! Loom treats SeqCst accesses as AcqRel, and models fences as they are. It never fails a weak
//! compare-and-swap spuriously and never wakes a thread spuriously. A wait with a time-out never
//! times out, so the models use deadlines that have already passed.

mod caller;
mod desk;
mod free;
mod group;
mod life;
mod log;
mod queue;
mod signals;
mod wait;
mod wake;
mod watchdog;
mod whole;

use std::sync::Arc as StdArc;
use std::sync::atomic::{AtomicUsize as Counter, Ordering::Relaxed};

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread::{self, JoinHandle};

use crate::job::state::{self, After, End, State};
use crate::job::wait::{Outcome, Waiters};

/// Explore `model` with at most `preemptions` in each execution, and print how many executions that
/// took.
fn explore(name: &str, preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let executions = StdArc::new(Counter::new(0));
    let count = StdArc::clone(&executions);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(move || {
        count.fetch_add(1, Relaxed);
        model();
    });
    println!(
        "{name}: {} executions, up to {preemptions} preemptions each",
        executions.load(Relaxed)
    );
}

/// A job, with its pool's waiters.
struct Job {
    state: State,
    waiters: Waiters,
    /// How often the callback ran. The callback writes it, and the application accesses it whenever
    /// no callback can run: only the job's state separates the two.
    runs: UnsafeCell<usize>,
    /// Whether the done callback ran.
    done: UnsafeCell<bool>,
}

impl Job {
    /// A job in its initial state.
    fn new(state: State) -> Self {
        Self {
            state,
            waiters: Waiters::new(),
            runs: UnsafeCell::new(0),
            done: UnsafeCell::new(false),
        }
    }

    /// A job that the loop has armed; it is in no queue.
    fn armed() -> Arc<Self> {
        let job = Self::new(State::armed(state::REQ));
        assert_eq!(job.state.take_request(), state::ARMED);
        Arc::new(job)
    }

    /// A job whose callback is executing.
    fn begun() -> Arc<Self> {
        let job = Self::armed();
        assert!(job.state.begin());
        job
    }

    /// The callback.
    fn run(&self) {
        // SAFETY: loom reports any concurrent access to the cell.
        self.runs.with_mut(|runs| unsafe { *runs += 1 });
    }

    /// What the application does after it was told that no callback runs: use the callback's data.
    /// Returns how often the callback ran.
    fn own(&self) -> usize {
        // SAFETY: loom reports any concurrent access to the cell.
        self.runs.with_mut(|runs| unsafe { *runs })
    }

    /// The callback returned.
    fn finish(&self, arm: u32) -> After {
        self.state.finish(&self.waiters, false, || true, arm, 0)
    }

    fn end(&self, even_armed: bool) -> End {
        self.state.end(&self.waiters, even_armed)
    }

    /// Dispose of the job. Returns whether the caller must free the memory.
    fn bury(&self) -> bool {
        self.state.begin_disposal();
        // The done callback sees everything that the callback wrote.
        self.own();
        // SAFETY: loom reports any concurrent access to the cell.
        let before = self.done.with_mut(|done| unsafe { done.replace(true) });
        assert!(!before, "disposed of twice");
        self.state.end_disposal()
    }

    fn dispose(&self) {
        if self.bury() {
            self.state.memory().free();
        }
    }

    /// Handle a disposal request, as the loop does.
    fn take_and_dispose(&self) {
        assert_eq!(self.state.take_request(), state::NEEDS_DELETE);
        self.dispose();
    }

    fn is_freed(&self) -> bool {
        self.state.memory().is_freed()
    }

    fn wait(&self, deadline: Option<u64>) -> Outcome {
        let _in_call = self.waiters.enter();
        self.waiters
            .wait(&self.state, false, deadline, || false, ())
    }
}

/// A deadline that has passed.
fn passed() -> Option<u64> {
    Some(0)
}

/// A thread that waits for `job`.
fn waiter(job: &Arc<Job>, deadline: Option<u64>) -> JoinHandle<Outcome> {
    let job = Arc::clone(job);
    thread::spawn(move || job.wait(deadline))
}
