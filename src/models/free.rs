// SPDX-License-Identifier: GPL-3.0-or-later
//! Waits that begin while their job is being finished with: the count of entering threads, and the
//! deferred frees.

use std::ptr::{self, NonNull};

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::{Job, explore, passed};
use crate::alloc::Allocator;
use crate::job::free::{Deferred, DeferredFrees, Entering};
use crate::job::state::{self, After, End};
use crate::job::wait::Outcome;
use crate::sync::grace::{Epoch, Grace};
use crate::sync::{Mutex, Semaphore, lock};

/// A job whose free may be deferred, and what its application knows about it.
struct Mortal {
    job: Arc<Job>,
    /// The next deferred free and this one's epoch. No lock protects the cell.
    next: UnsafeCell<(*mut Mortal, Epoch)>,
    /// The done callback ran, so no other thread may use the job's pointer any more. Under the
    /// application's own lock.
    gone: Mutex<bool>,
}

// SAFETY: loom reports any concurrent access to the cell.
unsafe impl Send for Mortal {}
// SAFETY: loom reports any concurrent access to the cell.
unsafe impl Sync for Mortal {}

impl Deferred for Mortal {
    fn next(&self) -> *mut Self {
        // SAFETY: loom reports any concurrent access to the cell.
        self.next.with(|next| unsafe { (*next).0 })
    }

    fn epoch(&self) -> Epoch {
        // SAFETY: loom reports any concurrent access to the cell.
        self.next.with(|next| unsafe { (*next).1 })
    }

    fn defer(&self, to: *mut Self, epoch: Epoch) {
        // SAFETY: loom reports any concurrent access to the cell.
        self.next.with_mut(|next| unsafe { *next = (to, epoch) });
    }

    unsafe fn give_back(_: &Allocator, at: NonNull<Self>) {
        // SAFETY: the test holds an Arc to it until the execution ends.
        let mortal = unsafe { at.as_ref() };
        mortal.defer(ptr::null_mut(), Epoch(0));
        mortal.job.state.memory().free();
    }
}

type Pool = Arc<DeferredFrees<Mortal>>;

impl Mortal {
    fn new(job: Arc<Job>) -> Arc<Self> {
        Arc::new(Self {
            job,
            next: UnsafeCell::new((ptr::null_mut(), Epoch(0))),
            gone: Mutex::new(false),
        })
    }

    fn dispose(&self, pool: &Pool) {
        if self.job.bury() {
            *lock(&self.gone) = true;
            self.free(pool);
        }
    }

    fn free(&self, pool: &Pool) {
        // SAFETY: no other thread uses the job, and the test holds an Arc to it until the execution
        // ends.
        unsafe { pool.free(NonNull::from(self)) };
    }

    fn cancel(&self, pool: &Pool) {
        match self.job.end(true) {
            End::Push => {
                assert_eq!(self.job.state.take_request(), state::NEEDS_DELETE);
                self.dispose(pool);
            }
            ended => assert_eq!(ended, End::Marked),
        }
    }

    /// `ns_job_wait`, called while the application knows that the job exists.
    fn wait(&self, deadline: Option<u64>) {
        let entering = {
            let gone = lock(&self.gone);
            if *gone {
                return;
            }
            Entering::new()
        };
        if self.job.state.now() == state::WAITING {
            return;
        }
        let job = &self.job;
        let _in_call = job.waiters.enter();
        let outcome = job
            .waiters
            .wait(&job.state, false, deadline, || false, entering);
        assert!(outcome != Outcome::Stopped);
    }
}

/// A new pool. The global count is made here, so that making it does not synchronise two threads.
fn pool() -> Pool {
    drop(Entering::new());
    Arc::new(DeferredFrees::new(Allocator::new(None, None)))
}

/// A thread waits while the callback returns and another thread finishes with the job. No matter
/// which thread disposes of the job, its memory stays as long as the waiting thread may look at it.
fn a_wait_against_return_and_disposal(deadline: fn() -> Option<u64>) {
    let pool = pool();
    let it = Mortal::new(Job::begun());
    let waiter = {
        let it = Arc::clone(&it);
        thread::spawn(move || it.wait(deadline()))
    };
    let owner = {
        let (it, pool) = (Arc::clone(&it), Arc::clone(&pool));
        thread::spawn(move || it.cancel(&pool))
    };
    if it.job.finish(0) == After::Dispose {
        it.dispose(&pool);
    }
    owner.join().unwrap();
    // The pool is destroyed.
    pool.clear();
    assert!(it.job.is_freed());
    waiter.join().unwrap();
}

#[test]
fn a_wait_that_begins_against_return_and_disposal() {
    explore("a wait against return, cancel and free", 3, || {
        a_wait_against_return_and_disposal(|| None)
    });
}

#[test]
fn a_time_out_against_return_and_disposal() {
    explore("a time-out against return, cancel and free", 3, || {
        a_wait_against_return_and_disposal(passed)
    });
}

/// A thread goes through the deferred frees while another thread defers a job whose waiter has not
/// marked it yet. That job must not be freed together with the older ones.
#[test]
fn a_look_through_the_deferred_against_one_more() {
    explore("deferred frees looked through, and one more", 3, || {
        let pool = pool();
        let [it, old, young] = [(); 3].map(|()| Mortal::new(Job::armed()));
        {
            let _entering = Entering::new();
            old.free(&pool);
        }
        let waiter = {
            let it = Arc::clone(&it);
            thread::spawn(move || it.wait(None))
        };
        let other = {
            let (young, pool) = (Arc::clone(&young), Arc::clone(&pool));
            thread::spawn(move || young.free(&pool))
        };
        it.cancel(&pool);
        other.join().unwrap();
        pool.clear();
        for deferred in [&it, &old, &young] {
            assert!(deferred.job.is_freed());
        }
        waiter.join().unwrap();
    });
}

/// One thread is inside and leaves, while others keep entering. A thread that waits for the first
/// is woken although the count is never zero: the last to enter stays until the wait is over.
#[test]
fn a_wait_for_those_inside_against_endless_others() {
    explore("a grace period against endless others", 3, || {
        let grace = Arc::new(Grace::new());
        let first = grace.enter(0);
        let epoch = grace.now(0);
        let over = Arc::new(Semaphore::new());
        let others = {
            let (grace, over) = (Arc::clone(&grace), Arc::clone(&over));
            thread::spawn(move || {
                // Enter before leaving, so that a thread is always inside.
                let mut inside = grace.enter(0);
                for _ in 0..2 {
                    let next = grace.enter(0);
                    grace.leave(inside);
                    inside = next;
                }
                // If the grace period is over, this thread entered later and may stay. Otherwise
                // the wait may be for this thread, so it must leave.
                if grace.is_past(epoch, 0) {
                    over.wait();
                }
                grace.leave(inside);
            })
        };
        let leaver = {
            let grace = Arc::clone(&grace);
            thread::spawn(move || grace.leave(first))
        };
        grace.wait(epoch, 0);
        over.post();
        leaver.join().unwrap();
        others.join().unwrap();
        assert!(!grace.is_occupied());
    });
}

/// Memory that a thread looks at inside is not freed before that thread has left, however the epoch
/// advances.
#[test]
fn nobody_looks_at_what_a_grace_period_has_freed() {
    explore("memory behind a grace period", 3, || {
        let grace = Arc::new(Grace::new());
        let job = Job::armed();
        // Whether the job is in reach. Like an application, the test keeps this under its own lock.
        let in_reach = Arc::new(Mutex::new(true));
        let lookers: Vec<_> = (0..2)
            .map(|_| {
                let (grace, job, in_reach) =
                    (Arc::clone(&grace), Arc::clone(&job), Arc::clone(&in_reach));
                thread::spawn(move || {
                    let pin = {
                        let in_reach = lock(&in_reach);
                        in_reach.then(|| grace.enter(0))
                    };
                    if let Some(pin) = pin {
                        job.state.now();
                        grace.leave(pin);
                    }
                })
            })
            .collect();
        *lock(&in_reach) = false;
        let epoch = grace.now(0);
        grace.wait(epoch, 0);
        job.state.memory().free();
        for looker in lookers {
            looker.join().unwrap();
        }
    });
}
