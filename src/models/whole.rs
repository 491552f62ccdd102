// SPDX-License-Identifier: GPL-3.0-or-later
//! A whole pool with a single job, which is run by a worker: the loop, the worker and the
//! application, from the first arming to the pool's end.

use loom::sync::Arc;
use loom::thread;

use super::wake::Pipe;
use super::{Job, explore};
use crate::job::state::{self, After, Arm, End, State, Work};
use crate::sync::{AtomicBool, AtomicUsize, Ordering};
use crate::workq::{Queue, Seat, WorkQueue};

/// Who does what for a job.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Armed and disposed of by the loop.
    Reader,
    /// Armed by the loop, disposed of by its worker.
    Timer,
    /// Armed without the loop, disposed of by its worker.
    Now,
}

use Kind::{Now, Reader, Timer};

/// What [`Shared`](crate::shared::Shared) has for it.
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

    /// It is armed, and carries the bit of its queue.
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

    // What the application calls.

    fn rearm(&self) {
        if !self.is_shutting_down() && self.job.state.arm(self.queue(), self.persist) == Arm::Push {
            self.start();
        }
    }

    /// The application's data is its own afterwards, unless the callback runs still.
    fn cancel(&self) {
        match self.job.end(true) {
            // Before it is pushed: it may be gone afterwards.
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
        let own = self.kind != Reader;
        let after = self.job.state.finish(
            &self.job.waiters,
            self.persist,
            || !self.is_shutting_down(),
            self.queue(),
            if own { 0 } else { state::REQ },
        );
        match after {
            After::Idle => {}
            After::Armed if self.kind == Now => self.work.push_near(seat, ()),
            After::Armed => self.start(),
            After::Dispose if own => self.job.dispose(),
            After::Dispose => self.request(),
        }
    }

    // The loop.

    /// Until it is quiet. The trigger of an armed job comes at once, but only the first two times.
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
        // What was asked for before.
        if self.take_requests(&mut triggers) {
            self.work.notify(1);
        }
    }

    /// True if a job was put on the work queue.
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
                self.job.dispose();
            }
        }
        dispatched
    }

    /// Quiet, or at its end: requests that came too late.
    fn take_late(&self) {
        while self.requests.pop().is_some() {
            if self.job.state.take_request() != state::ARMED {
                self.job.dispose();
            }
        }
    }

    /// The pool is destroyed: what is armed is disposed of, whoever has it.
    fn dispose_of_all(&self) {
        while self.work.pop().is_some() {
            if self.job.state.drop_work() {
                self.job.state.memory().free();
            }
        }
        self.take_late();
        if !self.job.is_freed() && self.job.state.now() == state::ARMED {
            assert_eq!(self.job.end(true), End::Push);
            self.job.take_and_dispose();
        }
    }
}

/// A pool's life, with a job of `kind` that is armed when it begins.
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
    // What is not over is the application's.
    assert!(pool.job.is_freed() || pool.job.state.now() == state::WAITING);
    pool.job.own();
}

fn nothing(_: &Pool) {}

/// In the callback: again, the first time.
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
