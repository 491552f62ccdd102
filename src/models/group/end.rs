// SPDX-License-Identifier: GPL-3.0-or-later
//! The end of a group, and that of its pool.

use super::*;
use crate::workq::WorkQueue;

/// The last hold goes just after an add, as the agent leaves.
#[test]
fn the_last_release_against_a_worker() {
    for width in [1, 2] {
        explore(
            &format!("group: an add and the last release, a worker, width {width}"),
            3,
            move || {
                let pool = Pool::new(width, &[NOW, NOW]);
                let worker = beside(&pool, Pool::work);
                pool.add(0).unwrap();
                // The job is the application's when it has run: it is finished with first.
                let _ = pool.cancel(0);
                pool.release();
                pool.turns();
                worker.join().unwrap();
                pool.rest();
                assert!(pool.job(0).is_freed());
                assert!(pool.has_ended());
            },
        );
    }
}

/// Two threads give back a hold each, while an agent leaves.
#[test]
fn two_releases_against_a_worker() {
    for width in [0, 1, 2] {
        explore(
            &format!("group: two releases, an agent that leaves, width {width}"),
            3,
            move || {
                let pool = Pool::new(width, &[NOW]);
                pool.change(|group| group.hold());
                pool.add(0).unwrap();
                assert_eq!(pool.cancel(0), End::Push);
                pool.turns();
                let other = beside(&pool, |pool| {
                    pool.release();
                    pool.work();
                });
                pool.release();
                pool.work();
                other.join().unwrap();
                pool.rest();
                assert!(pool.has_ended());
            },
        );
    }
}

/// The pool is destroyed with a full group: suspended, with jobs for both threads. No callback runs,
/// every done callback does.
#[test]
fn destroyed_with_a_full_group() {
    for width in [0, 1, 2] {
        explore(
            &format!("group: destroyed with a full group, width {width}"),
            2,
            move || {
                let in_loop = Kind {
                    in_loop: true,
                    ..NOW
                };
                let pool =
                    Pool::with_turn(width, &[NOW, in_loop, NOW, Kind { idle: true, ..NOW }], 1);
                assert!(pool.change(|group| group.suspend()));
                let worker = beside(&pool, Pool::work);
                for number in 0..4 {
                    pool.add(number).unwrap();
                }
                pool.turns();
                worker.join().unwrap();
                // The workers have left.
                pool.late.set(true);
                pool.late_turns();
                assert!(pool.change(|group| group.resume()));
                pool.late_turns();
                pool.cancel_group();
                pool.late_turns();
                assert!(
                    pool.jobs
                        .iter()
                        .all(|job| job.runs() == 0 && job.is_freed())
                );
                let here = pool.change(|group| {
                    group.drop_holds();
                    group.take_slot_here(Place::Late)
                });
                assert!(here);
                pool.serve(Place::Late, Came::Here);
                assert!(pool.has_ended());
            },
        );
    }
}

impl Pool {
    /// The loop, alone: it serves in the workers' place.
    fn late_turns(&self) {
        loop {
            self.turns();
            if self.work.pop().is_none() {
                return;
            }
            self.serve(Place::Late, Came::FromWork);
        }
    }
}

/// A pool with a group of width 1 whose worker sleeps, and leaves when the work queue is closed.
struct Ending {
    pool: Arc<Pool>,
    work: WorkQueue<()>,
}

impl Ending {
    fn new(kinds: &[Kind]) -> Arc<Self> {
        Arc::new(Self {
            // An agent gives way after each job, and so comes back to the queue that is modelled.
            pool: Pool::with_turn(1, kinds, 1),
            work: WorkQueue::new(1),
        })
    }

    /// Pass on the agents for workers, and say that nobody need stay.
    fn pass_on(&self) {
        while self.pool.work.pop().is_some() {
            self.work.push(());
        }
        if self.pool.let_go.swap(false, Ordering::AcqRel) {
            self.work.expect_no_more();
        }
    }

    fn add(&self, number: usize) {
        self.pool.add(number).unwrap();
        self.pass_on();
    }

    fn shut_down(&self) {
        self.work.expect_more();
        if !self.pool.lock().keep_workers() {
            self.work.expect_no_more();
        }
        self.pass_on();
        self.work.close();
    }

    fn worker(&self) {
        let mut seat = self.work.seat(0);
        while self.work.next(&mut seat, || ()).is_some() {
            self.pool.serve(Place::Worker, Came::FromWork);
            self.pass_on();
        }
    }

    /// The loop turns until the worker has left.
    fn turns(&self) {
        self.pool.turns();
        self.pass_on();
    }
}

/// A thread has taken the slot and not sent the agent; another adds behind it, and shuts down.
#[test]
fn workers_stay_for_an_agent_that_is_not_sent_yet() {
    explore("group: workers that leave against an add", 2, || {
        let ending = Ending::new(&[NOW, NOW]);
        let worker = {
            let ending = Arc::clone(&ending);
            thread::spawn(move || ending.worker())
        };
        let other = {
            let ending = Arc::clone(&ending);
            thread::spawn(move || ending.add(0))
        };
        ending.add(1);
        ending.shut_down();
        other.join().unwrap();
        worker.join().unwrap();
        assert_eq!(ending.pool.job(1).runs(), 1, "the workers left before");
    });
}

/// The group is in the loop, and a job for workers is behind.
#[test]
fn workers_stay_for_an_agent_in_the_loop() {
    explore(
        "group: workers that leave against an agent in the loop",
        2,
        || {
            let in_loop = Kind {
                in_loop: true,
                ..NOW
            };
            let ending = Ending::new(&[in_loop, NOW]);
            let worker = {
                let ending = Arc::clone(&ending);
                thread::spawn(move || ending.worker())
            };
            ending.add(0);
            let other = {
                let ending = Arc::clone(&ending);
                thread::spawn(move || {
                    ending.add(1);
                    ending.shut_down();
                })
            };
            ending.turns();
            other.join().unwrap();
            ending.turns();
            worker.join().unwrap();
            assert_eq!(ending.pool.log(), [0, 1], "the workers left before");
        },
    );
}
