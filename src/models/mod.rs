// SPDX-License-Identifier: GPL-3.0-or-later
//! Models of the protocols, explored by loom: every order in which the threads' steps can fall,
//! up to a bound on preemptions, and every value that a load may see.
//!
//! `make check-model` runs them and prints how many executions each took. They run the library's
//! own code: only the crossbeam queue is stood in for (by a queue under a lock, in `workq`), and
//! the pipe (by a flag and a condition variable, here).

use std::sync::Arc as StdArc;
use std::sync::atomic::{AtomicUsize as Counter, Ordering::Relaxed};

use loom::sync::Arc;
use loom::thread;

use crate::event::wake::Sleeping;
use crate::job::state::{self, After, Arm, End, State, Work};
use crate::job::wait::{Outcome, Waiters};
use crate::sync::{AtomicUsize, Condvar, Mutex, Ordering, lock, wait};
use crate::workq::WorkQueue;

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

// Parking workers.

/// Every item is taken once, whoever sleeps when; everybody leaves after the close.
fn workers_and_producers(workers: usize, producers: usize, items: usize) {
    let queue = Arc::new(WorkQueue::new());
    let taken = Arc::new(AtomicUsize::new(0));
    let workers: Vec<_> = (0..workers)
        .map(|_| {
            let (queue, taken) = (Arc::clone(&queue), Arc::clone(&taken));
            thread::spawn(move || {
                while queue.next().is_some() {
                    taken.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let others: Vec<_> = (1..producers)
        .map(|_| {
            let queue = Arc::clone(&queue);
            thread::spawn(move || (0..items).for_each(|item| queue.push(item)))
        })
        .collect();
    (0..items).for_each(|item| queue.push(item));
    for producer in others {
        producer.join().unwrap();
    }
    queue.close();
    for worker in workers {
        worker.join().unwrap();
    }
    assert_eq!(taken.load(Ordering::Relaxed), producers * items);
}

#[test]
fn one_worker_two_producers() {
    explore("one worker, two producers", 3, || {
        workers_and_producers(1, 2, 1)
    });
}

#[test]
fn one_worker_two_items() {
    explore("one worker, one producer of two", 4, || {
        workers_and_producers(1, 1, 2)
    });
}

#[test]
fn two_workers_two_items() {
    explore("two workers, one producer of two", 2, || {
        workers_and_producers(2, 1, 2)
    });
}

/// Items that are pushed without a close behind them: a worker that sleeps must be woken for each,
/// or this never ends.
#[test]
fn a_worker_is_woken_without_a_close() {
    explore("hand-off, then another", 3, || {
        let queue = Arc::new(WorkQueue::new());
        let worker = {
            let queue = Arc::clone(&queue);
            thread::spawn(move || {
                assert!(queue.next().is_some());
                assert!(queue.next().is_some());
            })
        };
        queue.push(1);
        queue.push(2);
        worker.join().unwrap();
    });
}

/// Two items for two workers, nobody else to wake the second: the first must.
#[test]
fn a_woken_worker_wakes_the_next() {
    explore("two workers that take one each", 2, || {
        let queue = Arc::new(WorkQueue::new());
        let workers: Vec<_> = (0..2)
            .map(|_| {
                let queue = Arc::clone(&queue);
                thread::spawn(move || assert!(queue.next().is_some()))
            })
            .collect();
        queue.push(1);
        queue.push(2);
        for worker in workers {
            worker.join().unwrap();
        }
    });
}

// The wake pipe.

#[test]
fn the_loop_sleeps_through_nothing() {
    explore("wake pipe, two producers", 3, || {
        struct Pipe {
            sleeping: Sleeping,
            requests: AtomicUsize,
            bytes: Mutex<usize>,
            readable: Condvar,
        }
        let pipe = Arc::new(Pipe {
            sleeping: Sleeping::new(),
            requests: AtomicUsize::new(0),
            bytes: Mutex::new(0),
            readable: Condvar::new(),
        });
        let producers: Vec<_> = (0..2)
            .map(|_| {
                let pipe = Arc::clone(&pipe);
                thread::spawn(move || {
                    pipe.requests.fetch_add(1, Ordering::Release);
                    if pipe.sleeping.take() {
                        let mut bytes = lock(&pipe.bytes);
                        *bytes += 1;
                        assert!(*bytes <= 2, "never more bytes than threads that add");
                        pipe.readable.notify_one();
                    }
                })
            })
            .collect();
        let mut taken = 0;
        while taken < 2 {
            taken += pipe.requests.swap(0, Ordering::AcqRel);
            if taken < 2
                && pipe
                    .sleeping
                    .begin(|| pipe.requests.load(Ordering::Acquire) == 0)
            {
                let mut bytes = lock(&pipe.bytes);
                while *bytes == 0 {
                    bytes = wait(&pipe.readable, bytes);
                }
                *bytes = 0;
                pipe.sleeping.end();
            }
        }
        for producer in producers {
            producer.join().unwrap();
        }
    });
}

// The job's state word.

/// A job, and what has happened to it.
struct Model {
    state: State,
    waiters: Waiters,
    runs: AtomicUsize,
    disposals: AtomicUsize,
    freed: AtomicUsize,
}

impl Model {
    /// A job that is armed in the loop, in no queue.
    fn armed() -> Arc<Self> {
        let model = Self {
            state: State::armed(state::REQ),
            waiters: Waiters::new(),
            runs: AtomicUsize::new(0),
            disposals: AtomicUsize::new(0),
            freed: AtomicUsize::new(0),
        };
        assert_eq!(model.state.take_request(), state::ARMED);
        Arc::new(model)
    }

    fn free(&self) {
        assert_eq!(self.freed.fetch_add(1, Ordering::Relaxed), 0, "freed once");
    }

    /// The loop's disposal of a job that is in no queue but perhaps the work queue.
    fn dispose(&self) {
        self.state.begin_disposal();
        self.disposals.fetch_add(1, Ordering::Relaxed);
        if self.state.end_disposal() {
            self.free();
        }
    }

    /// What the loop does for a request that was pushed.
    fn take_and_dispose(&self) {
        assert_eq!(self.state.take_request(), state::NEEDS_DELETE);
        self.dispose();
    }

    fn run(&self) {
        self.runs.fetch_add(1, Ordering::Relaxed);
    }

    fn finish(&self, arm: u32) -> After {
        self.state.finish(&self.waiters, false, || true, arm, 0)
    }
}

#[test]
fn cancel_against_firing_in_the_loop() {
    explore("cancel against firing in the loop", 5, || {
        let job = Model::armed();
        let canceller = {
            let job = Arc::clone(&job);
            thread::spawn(move || job.state.end(&job.waiters, true))
        };
        let began = job.state.begin();
        if began {
            job.run();
            if job.finish(0) == After::Dispose {
                job.dispose();
            }
        }
        match canceller.join().unwrap() {
            // Before the run, or after it: the request is the loop's to take.
            End::Push => job.take_and_dispose(),
            End::Marked => assert!(began),
            other => panic!("{other:?}"),
        }
        assert_eq!(job.disposals.load(Ordering::Relaxed), 1);
        assert_eq!(job.freed.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn cancel_against_a_worker() {
    explore("cancel and disposal against a worker", 5, || {
        let job = Model::armed();
        assert!(job.state.dispatch());
        let worker = {
            let job = Arc::clone(&job);
            thread::spawn(move || match job.state.take_work() {
                Work::Run => {
                    job.run();
                    job.finish(0)
                }
                Work::Leave => After::Idle,
                Work::Free => {
                    job.free();
                    After::Idle
                }
            })
        };
        let ended = job.state.end(&job.waiters, true);
        let ran_before = job.runs.load(Ordering::Relaxed);
        if ended == End::Push {
            // The loop disposes at once, whatever the worker does.
            job.take_and_dispose();
        }
        let after = worker.join().unwrap();
        match ended {
            End::Push => {
                // No run in progress, and none that began later: unless it was over, none at all.
                assert_eq!(after, After::Idle);
                assert!(job.runs.load(Ordering::Relaxed) >= ran_before);
            }
            End::Marked => {
                assert_eq!(after, After::Dispose);
                job.dispose();
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(job.disposals.load(Ordering::Relaxed), 1);
        assert_eq!(job.freed.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn done_rearm_and_the_return_of_the_callback() {
    explore("rearm and done from outside against the return", 4, || {
        let job = Model::armed();
        assert!(job.state.begin());
        let rearm = {
            let job = Arc::clone(&job);
            thread::spawn(move || job.state.arm(state::REQ, false))
        };
        let done = {
            let job = Arc::clone(&job);
            thread::spawn(move || job.state.end(&job.waiters, false))
        };
        let after = job.finish(state::REQ);
        let rearmed = rearm.join().unwrap();
        let ended = done.join().unwrap();
        // Who pushes is who set the bit, and nobody else does.
        let pushes = [
            after == After::Armed,
            rearmed == Arm::Push,
            ended == End::Push,
        ];
        match ended {
            End::Marked => assert_eq!(after, After::Dispose),
            End::Push => assert!(after == After::Idle && rearmed != Arm::Push),
            // It found the job armed again, by either.
            End::Armed => assert!(pushes[0] || pushes[1]),
            other => panic!("{other:?}"),
        }
        assert!(pushes.iter().filter(|&&push| push).count() <= 1);
    });
}

#[test]
fn two_rearms_push_once() {
    explore("two rearms", 5, || {
        let job = Model::armed();
        assert!(job.state.begin());
        assert_eq!(job.finish(0), After::Idle);
        let other = {
            let job = Arc::clone(&job);
            thread::spawn(move || job.state.arm(state::REQ, false))
        };
        let mine = job.state.arm(state::REQ, false);
        let pushes = [mine, other.join().unwrap()];
        assert!(pushes.contains(&Arm::Push) && pushes.contains(&Arm::Refused));
    });
}

#[test]
fn shutdown_against_cancel_of_a_queued_job() {
    explore("a queued job at the end of its pool", 5, || {
        let job = Model::armed();
        assert!(job.state.dispatch());
        let canceller = {
            let job = Arc::clone(&job);
            thread::spawn(move || {
                let ended = job.state.end(&job.waiters, true);
                assert_eq!(ended, End::Push);
            })
        };
        // No worker is left: the loop empties the work queue.
        assert!(!job.state.drop_work());
        canceller.join().unwrap();
        job.take_and_dispose();
        assert_eq!(job.freed.load(Ordering::Relaxed), 1);
    });
}

// Waiting for a job.

#[test]
fn two_waiters_against_the_return() {
    explore("two waiters against the callback's return", 2, || {
        let job = Model::armed();
        assert!(job.state.begin());
        let waiters: Vec<_> = (0..2)
            .map(|_| {
                let job = Arc::clone(&job);
                thread::spawn(move || job.waiters.wait(&job.state, false, None, || false, ()))
            })
            .collect();
        assert_eq!(job.finish(0), After::Idle);
        for waiter in waiters {
            assert_eq!(waiter.join().unwrap(), Outcome::Idle);
        }
        job.waiters.drain();
    });
}

#[test]
fn a_waiter_against_cancel_and_disposal() {
    explore("a waiter against cancel and disposal", 3, || {
        let job = Model::armed();
        let waiter = {
            let job = Arc::clone(&job);
            thread::spawn(move || job.waiters.wait(&job.state, false, None, || false, ()))
        };
        assert_eq!(job.state.end(&job.waiters, true), End::Push);
        job.take_and_dispose();
        assert_eq!(waiter.join().unwrap(), Outcome::Deleting);
    });
}

#[test]
fn a_timed_out_waiter_against_the_return() {
    explore("a time-out against the callback's return", 3, || {
        let job = Model::armed();
        assert!(job.state.begin());
        let waiter = {
            let job = Arc::clone(&job);
            let past = Some(std::time::Instant::now());
            thread::spawn(move || job.waiters.wait(&job.state, false, past, || false, ()))
        };
        assert_eq!(job.finish(0), After::Idle);
        let outcome = waiter.join().unwrap();
        assert!(outcome == Outcome::Idle || outcome == Outcome::TimedOut);
        // The mark went with the waiter: the next step needs nobody's lock.
        assert_eq!(job.state.arm(state::REQ, false), Arm::Push);
        assert_eq!(job.state.now(), state::ARMED);
    });
}

#[test]
fn a_waiter_against_the_end_of_the_pool() {
    explore("a waiter against the end of the pool", 3, || {
        let job = Model::armed();
        let stopped = Arc::new(AtomicUsize::new(0));
        let waiter = {
            let (job, stopped) = (Arc::clone(&job), Arc::clone(&stopped));
            thread::spawn(move || {
                let stopped = || stopped.load(Ordering::SeqCst) == 1;
                job.waiters.wait(&job.state, false, None, stopped, ())
            })
        };
        stopped.store(1, Ordering::SeqCst);
        job.waiters.stop();
        assert_eq!(waiter.join().unwrap(), Outcome::Stopped);
        job.waiters.drain();
    });
}
