// SPDX-License-Identifier: GPL-3.0-or-later
//! How far the shutdown of a pool has come, and the threads that wait for its end.
//!
//! A thread that waits for no longer than a time sleeps on a semaphore of its own: unlike a condition
//! variable, a semaphore lets the thread out when a signal handler has run.

use libc::c_int;

use crate::perturb::perturb;
use crate::sync::bell::{Bell, Bells};
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

struct Inner {
    stage: Stage,
    /// Threads that wait with a time.
    bells: Bells,
}

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
                bells: Bells::new(),
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
        inner.bells.ring();
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
        let rings = Semaphore::new();
        let bell = Bell::new(&rings);
        inner.bells.add(&bell);
        drop(inner);
        let rung = rings.wait_until(deadline);
        let mut inner = lock(&self.inner);
        inner.bells.remove(&bell);
        (inner, !rung)
    }
}
