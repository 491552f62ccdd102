// SPDX-License-Identifier: GPL-3.0-or-later
//! How far the shutdown of a pool has come, and the threads that wait for its end.
//!
//! A thread that waits for no longer than a time sleeps on a semaphore of its own, in a list under the
//! lock: unlike a condition variable, a semaphore lets the thread out when a signal handler has run.

use std::cell::Cell;
use std::ptr;

use libc::c_int;

use crate::perturb::perturb;
use crate::sync::{Condvar, Mutex, MutexGuard, Semaphore, lock, wait};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The loop is not quiet yet.
    Busy,
    /// The loop is quiet. So many workers are joined; nobody joins the next. The second value is the
    /// errno of the first join that failed, or 0.
    Quiet(usize, c_int),
    /// A thread is joining the workers.
    Joining,
    /// The workers are joined. The value is the errno of the first join that failed, or 0.
    Over(c_int),
}

/// A thread that waits with a time. It is on that thread's stack; the lock guards it.
struct Bell {
    rings: Semaphore,
    next: Cell<*const Bell>,
}

struct Inner {
    stage: Stage,
    bells: *const Bell,
}

// SAFETY: the bells are in threads that wait, and used only under the lock that guards this.
unsafe impl Send for Inner {}

/// How a wait for a pool ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waited {
    /// The pool has stopped.
    Over,
    /// It has, and a worker could not be joined.
    NotJoined,
    /// The time is up, or a signal handler has run.
    TimedOut,
}

/// How far the shutdown of a pool has come.
pub(super) struct Ending {
    inner: Mutex<Inner>,
    moved_on: Condvar,
}

impl Ending {
    /// The loop is not quiet yet.
    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                stage: Stage::Busy,
                bells: ptr::null(),
            }),
            moved_on: Condvar::new(),
        }
    }

    /// The loop is quiet.
    pub(super) fn set_quiet(&self) {
        self.move_on(lock(&self.inner), Stage::Quiet(0, 0));
    }

    fn move_on<'a>(&self, mut inner: MutexGuard<'a, Inner>, stage: Stage) -> MutexGuard<'a, Inner> {
        inner.stage = stage;
        self.moved_on.notify_all();
        let mut at = inner.bells;
        while !at.is_null() {
            // SAFETY: a thread takes its bell off the list under the lock, which we hold.
            let bell = unsafe { &*at };
            bell.rings.post();
            at = bell.next.get();
        }
        inner
    }

    /// Waits until the pool has stopped and its workers are joined, or until `deadline`, in nanoseconds
    /// of the monotonic clock. `join` joins the worker of that number, and returns an errno, or `None`
    /// when the deadline has passed. The caller has disabled cancellation.
    ///
    /// Woken by the loop when it goes quiet, and by the thread that joined workers.
    pub(super) fn wait(
        &self,
        deadline: Option<u64>,
        workers: usize,
        join: impl Fn(usize) -> Option<c_int>,
    ) -> Waited {
        let mut inner = lock(&self.inner);
        let mut time_is_up = false;
        loop {
            match inner.stage {
                Stage::Over(0) => return Waited::Over,
                Stage::Over(_) => return Waited::NotJoined,
                Stage::Busy | Stage::Joining if time_is_up => return Waited::TimedOut,
                Stage::Busy | Stage::Joining => match deadline {
                    None => inner = wait(&self.moved_on, inner),
                    Some(deadline) => (inner, time_is_up) = self.sleep(inner, deadline),
                },
                Stage::Quiet(mut joined, mut errno) => {
                    inner.stage = Stage::Joining;
                    // Join without the lock: an exiting thread runs the application's thread-local
                    // destructors.
                    drop(inner);
                    while joined < workers {
                        let Some(error) = join(joined) else {
                            break;
                        };
                        joined += 1;
                        errno = if errno == 0 { error } else { errno };
                    }
                    perturb("the workers are joined, and nobody told");
                    inner = lock(&self.inner);
                    if joined == workers {
                        inner = self.move_on(inner, Stage::Over(errno));
                    } else {
                        // Somebody else may have more time.
                        let _inner = self.move_on(inner, Stage::Quiet(joined, errno));
                        return Waited::TimedOut;
                    }
                }
            }
        }
    }

    /// Sleeps until the stage has changed or the deadline has passed. The second value says whether the
    /// caller is to give up.
    fn sleep<'a>(
        &'a self,
        mut inner: MutexGuard<'a, Inner>,
        deadline: u64,
    ) -> (MutexGuard<'a, Inner>, bool) {
        let bell = Bell {
            rings: Semaphore::new(),
            next: Cell::new(inner.bells),
        };
        inner.bells = &bell;
        drop(inner);
        let rung = bell.rings.wait_until(deadline);
        let mut inner = lock(&self.inner);
        inner.bells = without(inner.bells, &bell);
        (inner, !rung)
    }
}

/// The list that begins at `first`, without `bell`. The caller holds the lock.
fn without(first: *const Bell, bell: &Bell) -> *const Bell {
    if ptr::eq(first, bell) {
        return bell.next.get();
    }
    let mut at = first;
    while !at.is_null() {
        // SAFETY: a bell in the list belongs to a thread that waits until it has taken it off.
        let other = unsafe { &*at };
        at = other.next.get();
        if ptr::eq(at, bell) {
            other.next.set(bell.next.get());
            break;
        }
    }
    first
}
