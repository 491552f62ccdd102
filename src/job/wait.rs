// SPDX-License-Identifier: GPL-3.0-or-later
//! Threads blocked in `ns_job_wait` and `ns_job_timedwait`.
//!
//! A job is small and may be freed the moment it is finished, so nobody sleeps on a job: waiters
//! sleep by a stripe of the pool's table, each on a node of its own on its own stack.
//!
//! The race this survives: a waker that has moved a job to WAITING and is about to wake its
//! waiters, while another thread finishes the job, the loop frees it, and its memory becomes
//! another job with waiters of its own. Hence a job with waiters (`WAITED` in its word) is moved
//! on only under its stripe's lock, in the same critical section that takes its waiters off the
//! list and hands each its outcome. A waiter that is still on the list thereby knows that its job
//! is alive, and one that is off it never looks at the job again. Until it is on the list,
//! [`Entering`](crate::job::free::Entering) keeps the job's memory.
//!
//! A pool that shuts down waits for its workers. One that is blocked here, in a callback, is
//! released then: what it waits for might never come, or wait for it.

use std::cell::Cell;
use std::ptr;

use crate::job::state::{State, Wait};
use crate::perturb::perturb;
use crate::sync::{
    AtomicUsize, Condvar, Memory, Mutex, MutexGuard, Ordering, Semaphore, hand_over, lock,
    take_over, wait, wait_until,
};
use crate::sys::{self, CancelGuard};

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The job is WAITING.
    Idle,
    /// The job is being disposed of.
    Deleting,
    /// The pool has stopped: the job can no longer run.
    Stopped,
    /// The time is up.
    TimedOut,
}

/// One blocked thread, on its own stack. Guarded by the stripe's lock.
struct Waiter {
    state: *const State,
    /// It is a worker of the pool.
    is_worker: bool,
    outcome: Cell<Option<Outcome>>,
    /// Where it sleeps, alone: it is woken for its own outcome only.
    wake: Condvar,
    next: Cell<*const Waiter>,
}

/// The head of a stripe's list of waiters.
struct List(*const Waiter);

// SAFETY: the nodes behind the pointer belong to blocked threads, and are touched only under the
// lock that this list is in.
unsafe impl Send for List {}

type Stripe = Mutex<List>;

#[cfg(not(loom))]
const STRIPES: usize = 16;
#[cfg(loom)]
const STRIPES: usize = 1;

/// A pool's table of blocked threads.
pub(crate) struct Waiters {
    stripes: [Stripe; STRIPES],
    /// Threads inside a call that the pool has to outlive; and [`DRAINING`].
    calls: AtomicUsize,
    /// Where the pool's end sleeps until they have left.
    left: Semaphore,
    /// The pool's.
    memory: Memory,
}

/// In [`Waiters::calls`]: the pool's end sleeps until the last has left.
const DRAINING: usize = 1 << (usize::BITS - 1);

/// Counts a thread in, and out as the very last thing that it does with the pool's memory.
pub(crate) struct InCall<'a>(&'a Waiters);

impl Drop for InCall<'_> {
    fn drop(&mut self) {
        self.0.memory.used();
        hand_over(&raw const self.0.calls);
        if self.0.calls.fetch_sub(1, Ordering::AcqRel) == DRAINING + 1 {
            // The pool stays until this permit is taken.
            self.0.left.post();
        }
    }
}

impl List {
    /// Take every waiter that `which` picks off the list, hand it `outcome` and wake it. The node is
    /// its thread's again once the lock is given back.
    fn release(&mut self, outcome: Outcome, which: impl Fn(&Waiter) -> bool) {
        let mut kept: *const Waiter = ptr::null();
        let mut at = self.0;
        while !at.is_null() {
            // SAFETY: nodes on the list belong to threads that are blocked until they are given
            // an outcome under the lock that we hold.
            let waiter = unsafe { &*at };
            at = waiter.next.get();
            if which(waiter) {
                waiter.outcome.set(Some(outcome));
                waiter.wake.notify_one();
            } else {
                waiter.next.set(kept);
                kept = waiter;
            }
        }
        self.0 = kept;
    }

    /// Whether anybody waits for `state`.
    fn has(&self, state: *const State) -> bool {
        let mut at = self.0;
        while !at.is_null() {
            // SAFETY: as in `release`.
            let waiter = unsafe { &*at };
            if ptr::eq(waiter.state, state) {
                return true;
            }
            at = waiter.next.get();
        }
        false
    }
}

impl Waiters {
    /// A table with nobody in it.
    pub(crate) fn new() -> Self {
        Self {
            stripes: std::array::from_fn(|_| Stripe::new(List(ptr::null()))),
            calls: AtomicUsize::new(0),
            left: Semaphore::new(),
            memory: Memory::new(),
        }
    }

    /// The caller is inside a call that the pool has to outlive, until it drops what it gets.
    pub(crate) fn enter(&self) -> InCall<'_> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        InCall(self)
    }

    /// The pool's memory, which a model gives back.
    #[cfg(loom)]
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    fn stripe(&self, state: *const State) -> &Stripe {
        &self.stripes[state as usize / 128 % STRIPES]
    }

    /// Block until the job behind `state` is settled, the pool has stopped (`stopped` is asked
    /// under the lock, so that [`Waiters::stop`] misses nobody) or `deadline` has come, in
    /// nanoseconds of the monotonic clock. `entering` goes when the job is marked. The caller has
    /// entered, and stays so until it has its outcome.
    ///
    /// Woken by: [`Waiters::release`], called by whoever moves the job on; [`Waiters::stop`].
    pub(crate) fn wait<T>(
        &self,
        state: &State,
        is_worker: bool,
        deadline: Option<u64>,
        stopped: impl Fn() -> bool,
        entering: T,
    ) -> Outcome {
        let _cancel = CancelGuard::new();
        let stripe = self.stripe(state);
        perturb("about to wait for a job, which is not marked");
        let mut list = lock(stripe);
        let marked = state.mark_waited();
        take_over(state);
        match marked {
            Wait::Idle => return Outcome::Idle,
            Wait::Deleting => return Outcome::Deleting,
            Wait::Marked => {}
        }
        drop(entering);
        let me = Waiter {
            state,
            is_worker,
            outcome: Cell::new(None),
            wake: Condvar::new(),
            next: Cell::new(list.0),
        };
        me.wake.go_by_monotonic_clock();
        list.0 = &me;
        if stopped() {
            list = self.leave(list, &me, Outcome::Stopped);
        }
        loop {
            if let Some(outcome) = me.outcome.get() {
                drop(list);
                return outcome;
            }
            list = match deadline {
                None => wait(&me.wake, list),
                Some(deadline) if deadline <= sys::now() => {
                    self.leave(list, &me, Outcome::TimedOut)
                }
                Some(deadline) => wait_until(&me.wake, list, deadline),
            };
        }
    }

    /// Take `me` off the list with `outcome`. It is on the list, so its job is alive.
    fn leave<'a>(
        &self,
        mut list: MutexGuard<'a, List>,
        me: &Waiter,
        outcome: Outcome,
    ) -> MutexGuard<'a, List> {
        list.release(outcome, |waiter| ptr::eq(waiter, me));
        if !list.has(me.state) {
            // SAFETY: `me` was on the list until now, under this lock: the job had not been
            // settled, and so not freed.
            unsafe { &*me.state }.clear_waited();
        }
        list
    }

    /// Take `step`, which settles the job behind `state` and clears its mark, and hand `outcome`
    /// to everybody who waits for it; neither if the step fails.
    #[cold]
    #[inline(never)]
    pub(crate) fn release<T, E>(
        &self,
        state: &State,
        outcome: Outcome,
        step: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        let key: *const State = state;
        let stripe = self.stripe(key);
        let mut list = lock(stripe);
        let done = step()?;
        list.release(outcome, |waiter| ptr::eq(waiter.state, key));
        Ok(done)
    }

    /// The pool shuts down, and waits for its workers: those who wait here are released. Whoever
    /// comes later finds `stopped`.
    pub(crate) fn stop_workers(&self) {
        self.stop_those(|waiter| waiter.is_worker);
    }

    /// The pool has stopped and no callback runs: nobody's job can run any more. Whoever comes
    /// later finds `stopped`.
    pub(crate) fn stop(&self) {
        self.stop_those(|_| true);
    }

    fn stop_those(&self, which: impl Fn(&Waiter) -> bool) {
        for stripe in &self.stripes {
            // The mark stays: to whoever settles the job that is a look at the list.
            lock(stripe).release(Outcome::Stopped, &which);
        }
    }

    /// Sleep until everybody has left. Only after [`Waiters::stop`], with no new call to come: all
    /// have been woken and are on their way out. The caller has cancellation disabled.
    ///
    /// Woken by: the last who leaves, in [`InCall`].
    pub(crate) fn drain(&self) {
        if self.calls.fetch_or(DRAINING, Ordering::AcqRel) != 0 {
            self.left.wait();
        }
        take_over(&raw const self.calls);
    }
}
