// SPDX-License-Identifier: GPL-3.0-or-later
//! Waits that begin while their job is finished with: the count of who enters, and the graves.

use std::ptr::{self, NonNull};
use std::time::Instant;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::{Job, explore, passed};
use crate::job::free::{Buried, Entering, Graves};
use crate::job::state::{self, After, End};
use crate::job::wait::Outcome;
use crate::sync::{Mutex, lock};

/// A job that may be buried, and what its application knows of it.
struct Mortal {
    job: Arc<Job>,
    /// Where it is linked to another: under no lock.
    next: UnsafeCell<*mut Mortal>,
    /// The done callback ran: nobody names the job any more. The application's own lock.
    gone: Mutex<bool>,
}

// SAFETY: loom says if two threads are at the cell that nothing keeps apart.
unsafe impl Send for Mortal {}
// SAFETY: as above.
unsafe impl Sync for Mortal {}

impl Buried for Mortal {
    fn next(&self) -> *mut Self {
        // SAFETY: as above.
        self.next.with(|next| unsafe { *next })
    }

    fn set_next(&self, to: *mut Self) {
        // SAFETY: as above.
        self.next.with_mut(|next| unsafe { *next = to });
    }

    unsafe fn give_back(at: NonNull<Self>) {
        // SAFETY: what holds it lives to the end of the execution.
        let mortal = unsafe { at.as_ref() };
        mortal.set_next(ptr::null_mut());
        mortal.job.state.memory().free();
    }
}

type Pool = Arc<Graves<Mortal>>;

impl Mortal {
    fn new(job: Arc<Job>) -> Arc<Self> {
        Arc::new(Self {
            job,
            next: UnsafeCell::new(ptr::null_mut()),
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
        // SAFETY: nobody names it, and what holds it lives to the end of the execution.
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

    /// `ns_job_wait`, called while the application knows that the job lives.
    fn wait(&self, deadline: Option<Instant>) {
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
        let outcome = job
            .waiters
            .wait(&job.state, false, deadline, || false, entering);
        assert!(outcome != Outcome::Stopped);
    }
}

/// A new pool; the count is made here, so that no thread sees another through its making.
fn pool() -> Pool {
    drop(Entering::new());
    Arc::new(Graves::new())
}

/// A thread waits while the callback returns and another finishes the job: whoever disposes of it
/// then, its memory stays as long as the first may look there.
fn a_wait_against_return_and_disposal(deadline: fn() -> Option<Instant>) {
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
    // The pool goes.
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

/// Somebody opens the graves just as a job is buried whose waiter has not marked it: that one is
/// not to be given back with what was there before.
#[test]
fn graves_are_opened_against_a_burial() {
    explore("graves opened against a burial", 3, || {
        let pool = pool();
        let [it, old, young] = [(); 3].map(|()| Mortal::new(Job::armed()));
        {
            let _entering = Entering::new();
            old.free(&pool);
        }
        assert!(!old.job.is_freed());
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
        for buried in [&it, &old, &young] {
            assert!(buried.job.is_freed());
        }
        waiter.join().unwrap();
    });
}
