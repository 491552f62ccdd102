// SPDX-License-Identifier: GPL-3.0-or-later
//! Threads that are blocked in `ns_job_wait` and `ns_job_timedwait`.
//!
//! A job is small and may be freed the moment it is finished with, so no thread sleeps on the job
//! itself. The pool has a table of stripes, and a job's address selects its stripe. Each waiter
//! puts a node, which lives on its own stack, on the stripe's list, and sleeps there.
//!
//! The race that this handles: a waker moves a job to WAITING and is about to wake its waiters.
//! Meanwhile another thread finishes with the job, the loop frees it, and its memory becomes
//! another job with waiters of its own. Therefore a job with waiters (`WAITED` in its word) changes
//! to such a state only under its stripe's lock. The same critical section takes its waiters off
//! the list and hands each its outcome. So a waiter that is on the list knows that its job is
//! alive, and one that is off it never looks at the job again. Until the waiter is on the list,
//! [`Entering`](crate::job::free::Entering) keeps the job's memory.
//!
//! A pool that shuts down waits for its workers. A worker that is blocked here, inside a callback,
//! is therefore released at shutdown: otherwise what it waits for might never come, or might itself
//! wait for the worker.

use std::cell::Cell;
use std::ptr;

use crate::job::state::{State, Wait};
use crate::perturb::perturb;
use crate::sync::{
    AtomicUsize, Condvar, Memory, Mutex, MutexGuard, Ordering, Semaphore, lock, tsan_acquire,
    tsan_release, wait, wait_until,
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
    /// The deadline has passed.
    TimedOut,
}

/// One blocked thread. The node lives on that thread's stack; the stripe's lock guards it.
struct Waiter {
    state: *const State,
    /// Whether the thread is a worker of the pool.
    is_worker: bool,
    outcome: Cell<Option<Outcome>>,
    /// Only this thread sleeps here: it is woken for its own outcome only.
    wake: Condvar,
    next: Cell<*const Waiter>,
}

/// The head of a stripe's list of waiters.
struct List(*const Waiter);

// SAFETY: the nodes behind the pointer belong to blocked threads, and are accessed only under the
// lock that guards this list.
unsafe impl Send for List {}

type Stripe = Mutex<List>;

#[cfg(not(loom))]
const STRIPES: usize = 16;
#[cfg(loom)]
const STRIPES: usize = 1;

/// The table of a pool's blocked threads.
pub(crate) struct Waiters {
    stripes: [Stripe; STRIPES],
    /// Threads sleep here, with the lock of the stripe, that wait for a group's lock.
    parked: [Condvar; STRIPES],
    /// The number of threads inside a call that the pool must outlive; and [`DRAINING`].
    calls: AtomicUsize,
    /// [`Waiters::drain`] sleeps here until these threads have left.
    left: Semaphore,
    /// The pool's memory.
    memory: Memory,
}

/// A bit in [`Waiters::calls`]: [`Waiters::drain`] sleeps until the last thread has left.
const DRAINING: usize = 1 << (usize::BITS - 1);

/// Counts a thread in. When it is dropped, it counts the thread out, as the last thing that the
/// thread does with the pool's memory.
pub(crate) struct InCall<'a>(&'a Waiters);

impl Drop for InCall<'_> {
    fn drop(&mut self) {
        self.0.memory.used();
        tsan_release(&raw const self.0.calls);
        if self.0.calls.fetch_sub(1, Ordering::AcqRel) == DRAINING + 1 {
            // `drain` takes this permit before the pool is freed.
            self.0.left.post();
        }
    }
}

impl Waiter {
    fn new(state: *const State, is_worker: bool) -> Self {
        let wake = Condvar::new();
        wake.go_by_monotonic_clock();
        Self {
            state,
            is_worker,
            outcome: Cell::new(None),
            wake,
            next: Cell::new(ptr::null()),
        }
    }
}

impl List {
    /// Puts `waiter`, which does not move from here on, on the list.
    fn add(&mut self, waiter: &Waiter) {
        waiter.next.set(self.0);
        self.0 = waiter;
    }

    /// Takes every waiter that `which` selects off the list, gives it `outcome` and wakes it. When
    /// the lock is released, the node belongs to its thread again.
    fn release(&mut self, outcome: Outcome, which: impl Fn(&Waiter) -> bool) {
        let mut kept: *const Waiter = ptr::null();
        let mut at = self.0;
        while !at.is_null() {
            // SAFETY: a node on the list belongs to a thread that stays blocked until somebody
            // gives it an outcome under this lock, which we hold.
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

    /// Whether any thread waits for `state`.
    fn has(&self, state: *const State) -> bool {
        let mut at = self.0;
        while !at.is_null() {
            // SAFETY: as in `release`, the node stays valid while we hold the lock.
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
    /// An empty table.
    pub(crate) fn new() -> Self {
        Self {
            stripes: std::array::from_fn(|_| Stripe::new(List(ptr::null()))),
            parked: std::array::from_fn(|_| Condvar::new()),
            calls: AtomicUsize::new(0),
            left: Semaphore::new(),
            memory: Memory::new(),
        }
    }

    /// Counts the calling thread as inside a call that the pool must outlive, until the result is
    /// dropped.
    pub(crate) fn enter(&self) -> InCall<'_> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        InCall(self)
    }

    /// The pool's memory, which a model frees.
    #[cfg(loom)]
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    fn stripe(&self, state: *const State) -> &Stripe {
        &self.stripes[state as usize / 128 % STRIPES]
    }

    /// Blocks until the job behind `state` is settled, the pool has stopped, or `deadline` has
    /// passed, in nanoseconds of the monotonic clock. `stopped` is called under the lock, so that
    /// [`Waiters::stop`] misses nobody. `entering` is dropped once the job is marked. The caller
    /// has called [`Waiters::enter`] and keeps the result until it has its outcome.
    ///
    /// Woken by [`Waiters::release`], which the thread that settles the job calls, and by
    /// [`Waiters::stop`] and [`Waiters::stop_workers`].
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
        tsan_acquire(state);
        match marked {
            Wait::Idle => return Outcome::Idle,
            Wait::Deleting => return Outcome::Deleting,
            Wait::Marked => {}
        }
        drop(entering);
        let me = Waiter::new(state, is_worker);
        list.add(&me);
        if stopped() {
            list = self.leave(list, &me, Outcome::Stopped);
        }
        self.sleep(list, &me, deadline, |list| {
            self.leave(list, &me, Outcome::TimedOut)
        })
    }

    /// As [`Waiters::wait`], for a group, whose address is `key`. `unlock` gives back the lock of the
    /// group once the caller is on the list; the group may be gone from then on.
    ///
    /// Woken by [`Waiters::release_group`], which is called under the group's lock, and by
    /// [`Waiters::stop`] and [`Waiters::stop_workers`].
    pub(crate) fn wait_for_group(
        &self,
        key: *const State,
        is_worker: bool,
        deadline: Option<u64>,
        stopped: impl Fn() -> bool,
        unlock: impl FnOnce(),
    ) -> Outcome {
        let _cancel = CancelGuard::new();
        let stripe = self.stripe(key);
        let me = Waiter::new(key, is_worker);
        let mut list = lock(stripe);
        list.add(&me);
        if stopped() {
            list.release(Outcome::Stopped, |waiter| ptr::eq(waiter, &me));
        }
        // Not under this lock: who unlocks a group may have to wake threads that sleep by it.
        drop(list);
        unlock();
        perturb("the waiter for a group is on the list, and does not sleep");
        self.sleep(lock(stripe), &me, deadline, |mut list| {
            list.release(Outcome::TimedOut, |waiter| ptr::eq(waiter, &me));
            list
        })
    }

    /// Sleeps until `me` has its outcome. `time_is_up` takes it off the list with one.
    fn sleep<'a>(
        &'a self,
        mut list: MutexGuard<'a, List>,
        me: &Waiter,
        deadline: Option<u64>,
        time_is_up: impl Fn(MutexGuard<'a, List>) -> MutexGuard<'a, List>,
    ) -> Outcome {
        loop {
            if let Some(outcome) = me.outcome.get() {
                drop(list);
                return outcome;
            }
            list = match deadline {
                None => wait(&me.wake, list),
                Some(deadline) if deadline <= sys::now() => time_is_up(list),
                Some(deadline) => wait_until(&me.wake, list, deadline),
            };
        }
    }

    /// Gives every thread that waits for the group with this key its outcome. The caller holds the
    /// group's lock, so that nobody who comes later is among them.
    #[cold]
    #[inline(never)]
    pub(crate) fn release_group(&self, key: *const State) {
        lock(self.stripe(key)).release(Outcome::Idle, |waiter| ptr::eq(waiter.state, key));
    }

    /// Sleeps while `still` is true, which is asked under the lock that [`Waiters::unpark`] takes.
    /// `key` is an address that both know. May return early. The caller has disabled cancellation.
    ///
    /// Woken by [`Waiters::unpark`].
    pub(crate) fn park<T>(&self, key: *const T, still: impl Fn() -> bool) {
        let mut list = lock(self.stripe(key.cast()));
        while still() {
            list = wait(self.parked(key), list);
        }
    }

    /// What made [`Waiters::park`] wait is over.
    #[cold]
    #[inline(never)]
    pub(crate) fn unpark<T>(&self, key: *const T) {
        drop(lock(self.stripe(key.cast())));
        self.parked(key).notify_all();
    }

    fn parked<T>(&self, key: *const T) -> &Condvar {
        &self.parked[key as usize / 128 % STRIPES]
    }

    /// Takes `me` off the list and gives it `outcome`. The caller has `me` on the list, so its job
    /// is alive.
    fn leave<'a>(
        &self,
        mut list: MutexGuard<'a, List>,
        me: &Waiter,
        outcome: Outcome,
    ) -> MutexGuard<'a, List> {
        list.release(outcome, |waiter| ptr::eq(waiter, me));
        if !list.has(me.state) {
            // SAFETY: `me` was on the list until now, under this lock, so the job has not been
            // settled and not been freed.
            unsafe { &*me.state }.clear_waited();
        }
        list
    }

    /// Runs `step`, which settles the job behind `state` and clears its mark, and gives `outcome`
    /// to every thread that waits for the job. If the step fails, nobody gets an outcome.
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

    /// The pool shuts down and waits for its workers: releases every worker that waits here. A
    /// worker that comes later sees `stopped`.
    pub(crate) fn stop_workers(&self) {
        self.stop_those(|waiter| waiter.is_worker);
    }

    /// The pool has stopped, and no job can run any more: releases every thread. A thread that
    /// comes later sees `stopped`.
    pub(crate) fn stop(&self) {
        self.stop_those(|_| true);
    }

    fn stop_those(&self, which: impl Fn(&Waiter) -> bool) {
        for stripe in &self.stripes {
            // The mark stays. It costs the thread that settles the job one look at the list.
            lock(stripe).release(Outcome::Stopped, &which);
        }
    }

    /// Sleeps until every thread has left. Call it only after [`Waiters::stop`], when no new call
    /// can begin: then all threads are woken and on their way out. The caller has disabled
    /// cancellation.
    ///
    /// Woken by the last thread that leaves, in [`InCall`].
    pub(crate) fn drain(&self) {
        if self.calls.fetch_or(DRAINING, Ordering::AcqRel) != 0 {
            self.left.wait();
        }
        tsan_acquire(&raw const self.calls);
    }
}
