// SPDX-License-Identifier: GPL-3.0-or-later
//! A whole pool with a single job, which a worker runs: the loop, the worker and the application,
//! from the first arming to the end of the pool.

use std::sync::atomic::AtomicBool as StdBool;
use std::sync::atomic::Ordering::Relaxed;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::wake::Pipe;
use super::{Job, explore};
use crate::job::state::{self, After, Arm, End, State, Work};
use crate::sync::{AtomicBool, AtomicUsize, Ordering};
use crate::workq::{Queue, Seat, WorkQueue};

/// Which thread does what for a job.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The loop arms it and disposes of it.
    Reader,
    /// The same, but a worker closes its descriptor if there is a worker.
    Lingering,
    /// The loop arms it, and the worker that ran it disposes of it.
    Timer,
    /// It is armed without the loop, and the worker that ran it disposes of it.
    Now,
}

use Kind::{Lingering, Now, Reader, Timer};

/// The model's part of [`Shared`](crate::shared::Shared).
struct Pool {
    kind: Kind,
    persist: bool,
    callback: fn(&Pool),
    job: Job,
    requests: Queue<()>,
    pipe: Pipe,
    work: WorkQueue<()>,
    workers: AtomicUsize,
    shutdown: AtomicBool,
    nudged: AtomicBool,
    /// The loop's own note that a worker is to close the descriptor.
    closing: StdBool,
    /// The descriptor is closed.
    closed: UnsafeCell<bool>,
}

impl Pool {
    fn queue(&self) -> u32 {
        if self.kind == Now {
            state::WORK
        } else {
            state::REQ
        }
    }

    fn request(&self) {
        self.requests.push(());
        self.pipe.wake();
    }

    /// Push the job, which is armed and carries the bit of its queue.
    fn start(&self) {
        if self.kind == Now {
            self.work.push(());
        } else {
            self.request();
        }
    }

    fn nudge(&self) {
        self.nudged.swap(true, Ordering::SeqCst);
        self.pipe.wake();
    }

    fn is_shutting_down(&self) -> bool {
        self.shutdown.load(Ordering::SeqCst)
    }

    // The application's calls.

    fn rearm(&self) {
        if !self.is_shutting_down() && self.job.state.arm(self.queue(), self.persist) == Arm::Push {
            self.start();
        }
    }

    /// Cancel the job. Afterwards the application owns its data, unless the callback still runs.
    fn cancel(&self) {
        match self.job.end(true) {
            // Before the push: afterwards the job may be freed.
            End::Push => {
                self.job.own();
                self.request();
            }
            End::Queued | End::Marked => {}
            other => panic!("{other:?}"),
        }
    }

    fn shut_down(&self) {
        self.shutdown.swap(true, Ordering::SeqCst);
        self.work.close();
        self.nudge();
    }

    // A worker.

    fn work(&self) {
        let mut seat = self.work.seat(0);
        while self.work.next(&mut seat, || ()).is_some() {
            match self.job.state.take_work() {
                Work::Run => self.run(&seat),
                Work::Leave => {}
                Work::Close => {
                    self.close();
                    self.job.state.closed();
                    self.request();
                }
                Work::Free => self.job.state.memory().free(),
            }
        }
        if self.workers.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.nudge();
        }
    }

    fn run(&self, seat: &Seat) {
        self.job.run();
        (self.callback)(self);
        let own = self.kind == Timer || self.kind == Now;
        let after = self.job.state.finish(
            &self.job.waiters,
            self.persist,
            || !self.is_shutting_down(),
            self.queue(),
            if own { 0 } else { state::REQ },
        );
        match after {
            After::Idle => {}
            After::Armed if self.kind == Now => self.work.push_local(seat, ()),
            After::Armed => self.start(),
            After::Dispose if own => self.job.dispose(),
            After::Dispose => self.request(),
        }
    }

    fn close(&self) {
        // SAFETY: loom reports any concurrent access to the cell.
        let before = self
            .closed
            .with_mut(|closed| unsafe { std::mem::replace(&mut *closed, true) });
        assert!(!before, "closed twice");
    }

    // The loop.

    fn dispose(&self) {
        if self.kind == Lingering && !self.closing.swap(false, Relaxed) {
            if self.workers.load(Ordering::SeqCst) > 0 {
                self.closing.store(true, Relaxed);
                if self.job.state.ask_for_close() {
                    self.work.push(());
                }
                return;
            }
            self.close();
        }
        // SAFETY: loom reports any concurrent access to the cell.
        let closed = self.closed.with(|closed| unsafe { *closed });
        assert!(
            closed || self.kind != Lingering,
            "the done callback before the close"
        );
        self.job.dispose();
    }

    /// Every worker has left: do the closes that remain.
    fn close_left(&self) {
        while self.closing.load(Relaxed) {
            assert!(self.work.pop().is_some(), "a close is due, but not queued");
            assert!(self.job.state.take_close());
            self.close();
            self.dispose();
        }
    }

    /// Turn until the pool is quiet. The trigger of an armed job fires at once, but only the first
    /// two times.
    fn turns(&self) {
        let mut triggers = 2;
        while !(self.is_shutting_down() && self.workers.load(Ordering::SeqCst) == 0) {
            if self.take_requests(&mut triggers) {
                self.work.notify(1);
            } else {
                let nudged = || self.nudged.swap(false, Ordering::SeqCst);
                self.pipe.sleep(|| self.requests.is_empty() && !nudged());
            }
        }
        // Handle the requests that were made before.
        if self.take_requests(&mut triggers) {
            self.work.notify(1);
        }
        self.close_left();
    }

    /// Returns whether a job was put on the work queue.
    fn take_requests(&self, triggers: &mut usize) -> bool {
        let mut dispatched = false;
        while self.requests.pop().is_some() {
            if self.job.state.take_request() == state::ARMED {
                if *triggers > 0 && self.job.state.dispatch() {
                    *triggers -= 1;
                    self.work.push_quietly(());
                    dispatched = true;
                }
            } else {
                self.dispose();
            }
        }
        dispatched
    }

    /// Requests that came too late: the pool is quiet or at its end.
    fn take_late(&self) {
        while self.requests.pop().is_some() {
            if self.job.state.take_request() != state::ARMED {
                self.dispose();
            }
        }
    }

    /// The pool is destroyed: dispose of every armed job, in whichever queue it is.
    fn dispose_of_all(&self) {
        while self.work.pop().is_some() {
            if self.job.state.drop_work() {
                self.job.state.memory().free();
            }
        }
        self.take_late();
        if !self.job.is_freed() && self.job.state.now() == state::ARMED {
            assert_eq!(self.job.end(true), End::Push);
            assert_eq!(self.job.state.take_request(), state::NEEDS_DELETE);
            self.dispose();
        }
    }
}

/// The life of a pool with one job of `kind`, which is armed at the start.
fn life(kind: Kind, persist: bool, callback: fn(&Pool), application: fn(&Pool)) {
    let queue = if kind == Now { state::WORK } else { state::REQ };
    let pool = Arc::new(Pool {
        kind,
        persist,
        callback,
        job: Job::new(State::armed(queue)),
        requests: Queue::new(),
        pipe: Pipe::new(),
        work: WorkQueue::new(1),
        workers: AtomicUsize::new(1),
        shutdown: AtomicBool::new(false),
        nudged: AtomicBool::new(false),
        closing: StdBool::new(false),
        closed: UnsafeCell::new(false),
    });
    let worker = {
        let pool = Arc::clone(&pool);
        thread::spawn(move || pool.work())
    };
    let application = {
        let pool = Arc::clone(&pool);
        thread::spawn(move || {
            application(&pool);
            pool.shut_down();
        })
    };
    pool.start();
    pool.turns();
    pool.take_late();
    worker.join().unwrap();
    application.join().unwrap();
    pool.dispose_of_all();
    // A job that was not finished with belongs to the application.
    assert!(pool.job.is_freed() || pool.job.state.now() == state::WAITING);
    pool.job.own();
}

fn nothing(_: &Pool) {}

/// In the callback: rearm, the first time only.
fn once_more(pool: &Pool) {
    if pool.job.own() == 1 {
        pool.rearm();
    }
}

fn rearm_and_cancel(pool: &Pool) {
    pool.rearm();
    pool.cancel();
}

#[test]
fn a_readers_life() {
    explore("whole: a reader, rearm, cancel, shutdown", 2, || {
        life(Reader, false, nothing, rearm_and_cancel)
    });
}

#[test]
fn the_life_of_a_reader_that_lingers() {
    explore("whole: a reader that lingers, cancel, shutdown", 2, || {
        life(Lingering, false, nothing, Pool::cancel)
    });
}

#[test]
fn a_reader_that_lingers_and_ends_itself() {
    explore("whole: a lingering reader's own done, shutdown", 2, || {
        life(Lingering, false, Pool::cancel, nothing)
    });
}

#[test]
fn a_timers_life() {
    explore("whole: a timer, cancel, shutdown", 2, || {
        life(Timer, false, nothing, Pool::cancel)
    });
}

#[test]
fn a_run_now_jobs_life() {
    explore("whole: a run-now job, rearm, cancel, shutdown", 2, || {
        life(Now, false, nothing, rearm_and_cancel)
    });
}

#[test]
fn a_reader_that_arms_itself() {
    explore("whole: a reader's own rearm, cancel, shutdown", 1, || {
        life(Reader, false, once_more, Pool::cancel)
    });
}

#[test]
fn a_timer_that_arms_itself() {
    explore("whole: a timer's own rearm, cancel, shutdown", 1, || {
        life(Timer, false, once_more, Pool::cancel)
    });
}

#[test]
fn a_reader_that_ends_itself() {
    explore("whole: a reader's own done, shutdown", 2, || {
        life(Reader, false, Pool::cancel, nothing)
    });
}

#[test]
fn a_timer_that_ends_itself() {
    explore("whole: a timer's own done, shutdown", 2, || {
        life(Timer, false, Pool::cancel, nothing)
    });
}

#[test]
fn a_persistent_reader() {
    explore("whole: a persistent reader, cancel, shutdown", 1, || {
        life(Reader, true, nothing, Pool::cancel)
    });
}

#[test]
fn a_persistent_reader_that_is_left_to_its_pool() {
    explore("whole: a persistent reader, shutdown", 2, || {
        life(Reader, true, nothing, nothing)
    });
}
