// SPDX-License-Identifier: GPL-3.0-or-later
//! Waiting for a job.

use loom::sync::Arc;
use loom::thread;

use super::{Job, explore, passed, waiter};
use crate::job::state::{self, After, Arm, End, State};
use crate::job::wait::Outcome;
use crate::sync::{AtomicBool, Ordering};

#[test]
fn two_waiters_against_the_return() {
    explore("two waiters against the callback's return", 3, || {
        let job = Job::begun();
        let waiters = [waiter(&job, None), waiter(&job, None)];
        assert_eq!(job.finish(0), After::Idle);
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), Outcome::Idle);
        }
    });
}

/// Both wait on the only stripe. Each is told of its own job, and of no other.
#[test]
fn waiters_for_two_jobs_of_one_stripe() {
    explore("two jobs of one stripe", 2, || {
        let job = Job::begun();
        let other = Arc::new(State::armed(state::REQ));
        let patient = {
            let (job, other) = (Arc::clone(&job), Arc::clone(&other));
            thread::spawn(move || job.waiters.wait(&other, false, None, || false, ()))
        };
        let waiter = waiter(&job, None);
        assert_eq!(job.finish(0), After::Idle);
        assert_eq!(waiter.join().unwrap(), Outcome::Idle);
        assert_eq!(other.end(&job.waiters, true), End::Queued);
        assert_eq!(patient.join().unwrap(), Outcome::Deleting);
    });
}

#[test]
fn one_of_two_waiters_gives_up() {
    explore("two waiters, one of whom gives up", 3, || {
        let job = Job::begun();
        let patient = waiter(&job, None);
        let hasty = waiter(&job, passed());
        assert_eq!(job.finish(0), After::Idle);
        assert_eq!(patient.join().unwrap(), Outcome::Idle);
        let outcome = hasty.join().unwrap();
        assert!(outcome == Outcome::Idle || outcome == Outcome::TimedOut);
    });
}

/// The owner finishes with the job as soon as its wait is over: the thread that woke it must not
/// touch the job any more.
#[test]
fn done_as_soon_as_wait_says_so() {
    explore("done after wait, and freed", 4, || {
        let job = Job::begun();
        let owner = {
            let job = Arc::clone(&job);
            thread::spawn(move || {
                assert_eq!(job.wait(None), Outcome::Idle);
                assert_eq!(job.own(), 1);
                assert_eq!(job.end(false), End::Push);
                job.take_and_dispose();
            })
        };
        job.run();
        assert_eq!(job.finish(0), After::Idle);
        owner.join().unwrap();
        assert!(job.is_freed());
    });
}

#[test]
fn a_waiter_against_cancel() {
    explore("a waiter against cancel", 4, || {
        let job = Job::armed();
        let waiter = waiter(&job, None);
        assert_eq!(job.end(true), End::Push);
        assert_eq!(waiter.join().unwrap(), Outcome::Deleting);
        job.take_and_dispose();
        assert!(job.is_freed());
    });
}

#[test]
fn a_timed_out_waiter_against_the_return() {
    explore("a time-out against the callback's return", 4, || {
        let job = Job::begun();
        let waiter = waiter(&job, passed());
        assert_eq!(job.finish(0), After::Idle);
        let outcome = waiter.join().unwrap();
        assert!(outcome == Outcome::Idle || outcome == Outcome::TimedOut);
        // The waiter took its mark away: the next step needs no lock.
        assert_eq!(job.state.arm(state::REQ, false), Arm::Push);
        assert_eq!(job.state.now(), state::ARMED);
    });
}

#[test]
fn a_waiter_against_the_end_of_the_pool() {
    explore("a waiter against the end of the pool", 4, || {
        let job = Job::armed();
        let stopped = Arc::new(AtomicBool::new(false));
        let waiter = {
            let (job, stopped) = (Arc::clone(&job), Arc::clone(&stopped));
            thread::spawn(move || {
                let stopped = || stopped.load(Ordering::SeqCst);
                job.waiters.wait(&job.state, false, None, stopped, ())
            })
        };
        stopped.store(true, Ordering::SeqCst);
        job.waiters.stop();
        assert_eq!(waiter.join().unwrap(), Outcome::Stopped);
    });
}

/// A worker that waits in a callback is released when the pool shuts down. A thread that is not a
/// worker keeps waiting for the jobs that still run.
#[test]
fn workers_are_released_at_shutdown() {
    explore("a worker and another wait at shutdown", 3, || {
        let job = Job::begun();
        let shutdown = Arc::new(AtomicBool::new(false));
        let worker = {
            let (job, shutdown) = (Arc::clone(&job), Arc::clone(&shutdown));
            thread::spawn(move || {
                let stopped = || shutdown.load(Ordering::SeqCst);
                job.waiters.wait(&job.state, true, None, stopped, ())
            })
        };
        let other = waiter(&job, None);
        shutdown.store(true, Ordering::SeqCst);
        job.waiters.stop_workers();
        assert_eq!(worker.join().unwrap(), Outcome::Stopped);
        assert_eq!(job.finish(0), After::Idle);
        assert_eq!(other.join().unwrap(), Outcome::Idle);
    });
}

/// Reports, when it is dropped, that the job is marked.
struct Marked(Arc<AtomicBool>);

impl Drop for Marked {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// The waiters' table is freed with the pool, after every thread that was in it has left.
#[test]
fn the_pool_outlives_its_waiters() {
    explore("stop, drain, and the pool freed", 2, || {
        let job = Job::armed();
        let waiters = [(); 2].map(|()| {
            let is_marked = Arc::new(AtomicBool::new(false));
            let (job, marked) = (Arc::clone(&job), Marked(Arc::clone(&is_marked)));
            let wait = move || {
                let _in_call = job.waiters.enter();
                job.waiters.wait(&job.state, false, None, || false, marked)
            };
            (thread::spawn(wait), is_marked)
        });
        for (_, is_marked) in &waiters {
            // No call begins after this point.
            while !is_marked.load(Ordering::Acquire) {
                thread::yield_now();
            }
        }
        job.waiters.stop();
        job.waiters.drain();
        job.waiters.memory().free();
        for (waiter, _) in waiters {
            assert_eq!(waiter.join().unwrap(), Outcome::Stopped);
        }
    });
}

/// A thread that sees the shutdown destroys the pool before the call that began the shutdown has
/// returned.
#[test]
fn the_pool_outlives_its_shutdown() {
    explore("shutdown against drain, and the pool freed", 4, || {
        let job = Job::armed();
        let shutdown = Arc::new(AtomicBool::new(false));
        let other = {
            let (job, shutdown) = (Arc::clone(&job), Arc::clone(&shutdown));
            thread::spawn(move || {
                let _in_call = job.waiters.enter();
                shutdown.swap(true, Ordering::SeqCst);
                job.waiters.stop_workers();
            })
        };
        while !shutdown.load(Ordering::SeqCst) {
            thread::yield_now();
        }
        job.waiters.stop();
        job.waiters.drain();
        job.waiters.memory().free();
        other.join().unwrap();
    });
}
