// SPDX-License-Identifier: GPL-3.0-or-later
//! Models of the protocols, explored by loom: the orders in which the threads' steps can fall, with
//! up to so many preemptions in each, and every value that a load may see.
//!
//! `make check-model` runs them and prints how many executions each took. The steps are the
//! library's own code: the state word, the waiters, the graves, the work queue, the wake flag, the sink. What
//! lies between them is told again here, as short as it can be: the turns of the loop, a worker's
//! life, an application. Stood in for are crossbeam's queue (by one under a lock, in `workq`) and
//! the pipe (by a count under a lock, in [`wake`]).
//!
//! Memory is not given back in a model, it is marked: [`Memory`](crate::sync::Memory) notices who
//! uses it afterwards, who gives it back twice, and whose last use was not ordered before. What a
//! callback uses is in a cell of loom's, which notices two threads at it that nothing keeps apart.
//!
//! loom takes accesses that are SeqCst for AcqRel, and fences for what they are; it never fails a
//! weak compare-and-swap for nothing, wakes nobody for nothing, and a wait with a time-out never
//! times out: the deadlines here have passed.

mod free;
mod life;
mod log;
mod queue;
mod signals;
mod wait;
mod wake;
mod whole;

use std::sync::Arc as StdArc;
use std::sync::atomic::{AtomicUsize as Counter, Ordering::Relaxed};

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread::{self, JoinHandle};

use crate::job::state::{self, After, End, State};
use crate::job::wait::{Outcome, Waiters};

/// Explore `model`, with at most `preemptions` in each execution, and say how much that was.
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

/// A job, with the waiters of its pool.
struct Job {
    state: State,
    waiters: Waiters,
    /// How often the callback ran. The callback's, and the application's whenever no callback can
    /// run: nothing but the job's state keeps the two apart.
    runs: UnsafeCell<usize>,
    /// Whether the done callback ran.
    done: UnsafeCell<bool>,
}

impl Job {
    /// A job in the state that it is made in.
    fn new(state: State) -> Self {
        Self {
            state,
            waiters: Waiters::new(),
            runs: UnsafeCell::new(0),
            done: UnsafeCell::new(false),
        }
    }

    /// A job that is armed in the loop, in no queue.
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
        // SAFETY: loom says if anybody else is at the cell.
        self.runs.with_mut(|runs| unsafe { *runs += 1 });
    }

    /// What the application does where it was told that no callback runs. Returns how often one
    /// did.
    fn own(&self) -> usize {
        // SAFETY: as above.
        self.runs.with_mut(|runs| unsafe { *runs })
    }

    /// The callback returned.
    fn finish(&self, arm: u32) -> After {
        self.state.finish(&self.waiters, false, || true, arm, 0)
    }

    fn end(&self, even_armed: bool) -> End {
        self.state.end(&self.waiters, even_armed)
    }

    /// The disposal. True if the caller is to free the memory.
    fn bury(&self) -> bool {
        self.state.begin_disposal();
        // The done callback sees what the callback left.
        self.own();
        // SAFETY: as above.
        let before = self.done.with_mut(|done| unsafe { done.replace(true) });
        assert!(!before, "disposed of twice");
        self.state.end_disposal()
    }

    fn dispose(&self) {
        if self.bury() {
            self.state.memory().free();
        }
    }

    /// What the loop does for a request to dispose.
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
