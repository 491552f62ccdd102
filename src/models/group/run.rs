// SPDX-License-Identifier: GPL-3.0-or-later
//! How jobs come to run: exclusion, order, going idle, the loop, suspension, waits.

use super::*;

const IN_LOOP: Kind = Kind {
    in_loop: true,
    ..NOW
};

/// An agent leaves just as a job comes, which relies on it.
#[test]
fn a_push_against_going_idle() {
    explore("group: a push against going idle", 5, || {
        let pool = Pool::new(1, &[NOW, NOW]);
        pool.add(0).unwrap();
        let worker = beside(&pool, Pool::work);
        pool.add(1).unwrap();
        pool.work();
        worker.join().unwrap();
        pool.rest();
        assert_eq!(pool.log(), [0, 1]);
        pool.close();
    });
}

/// What one thread adds begins in the order of its adds, and no two callbacks run at once.
#[test]
fn two_adders_and_a_worker() {
    explore("group: two adders of two, width 1", 2, || {
        let pool = Pool::new(1, &[NOW; 4]);
        let other = beside(&pool, |pool| {
            pool.add(2).unwrap();
            pool.add(3).unwrap();
        });
        let worker = beside(&pool, Pool::work);
        pool.add(0).unwrap();
        pool.add(1).unwrap();
        pool.work();
        other.join().unwrap();
        worker.join().unwrap();
        pool.rest();
        let log = pool.log();
        assert_eq!(log.len(), 4);
        let at = |number| log.iter().position(|ran| *ran == number).unwrap();
        assert!(at(0) < at(1) && at(2) < at(3), "{log:?}");
    });
}

/// The same with a width of 2, and of none: never more at once than that.
fn three_workers(width: usize) {
    let pool = Pool::new(width, &[NOW; 3]);
    pool.add(0).unwrap();
    let workers = [beside(&pool, Pool::work), beside(&pool, Pool::work)];
    pool.add(1).unwrap();
    pool.add(2).unwrap();
    pool.work();
    for worker in workers {
        worker.join().unwrap();
    }
    pool.rest();
    assert!(pool.jobs.iter().all(|job| job.runs() == 1));
    pool.close();
}

#[test]
fn two_of_three_at_once() {
    explore("group: three workers, width 2", 2, || three_workers(2));
}

#[test]
fn any_of_three_at_once() {
    explore("group: three workers, width 0", 1, || three_workers(0));
}

/// The group goes from a worker to the loop and back.
#[test]
fn a_loop_job_between_two_of_workers() {
    explore("group: a loop job between two of workers", 4, || {
        let pool = Pool::new(1, &[NOW, IN_LOOP, NOW]);
        let worker = beside(&pool, Pool::work);
        for number in 0..3 {
            pool.add(number).unwrap();
        }
        pool.turns();
        worker.join().unwrap();
        pool.rest();
        assert_eq!(pool.log(), [0, 1, 2]);
        pool.close();
    });
}

/// The same with a width of 2, where several agents may want the loop.
#[test]
fn loop_jobs_in_a_wide_group() {
    explore("group: loop jobs among others, width 2", 4, || {
        let pool = Pool::new(2, &[NOW, IN_LOOP, NOW, IN_LOOP]);
        let worker = beside(&pool, Pool::work);
        for number in 0..4 {
            pool.add(number).unwrap();
        }
        pool.turns();
        worker.join().unwrap();
        pool.rest();
        assert!(pool.jobs.iter().all(|job| job.runs() == 1));
        pool.close();
    });
}

/// An agent gives way after each job, so its slot goes through the queue.
#[test]
fn a_slot_in_the_queue() {
    explore("group: a slot in the queue, two workers", 4, || {
        let pool = Pool::with_turn(1, &[NOW; 3], 1);
        pool.add(0).unwrap();
        pool.add(1).unwrap();
        let worker = beside(&pool, Pool::work);
        pool.add(2).unwrap();
        pool.work();
        worker.join().unwrap();
        pool.rest();
        assert_eq!(pool.log(), [0, 1, 2]);
    });
}

/// A job of a trigger and one that arms itself, among others.
#[test]
fn jobs_that_come_again() {
    explore(
        "group: rearm from a callback, and a job that fires",
        4,
        || {
            let again = Kind { again: true, ..NOW };
            let watched = Kind {
                watched: true,
                idle: true,
                ..NOW
            };
            let pool = Pool::new(1, &[again, watched]);
            pool.add(1).unwrap();
            pool.add(0).unwrap();
            let worker = beside(&pool, Pool::work);
            assert_eq!(pool.rearm(1), Arm::Push);
            pool.turns();
            worker.join().unwrap();
            pool.rest();
            assert_eq!((pool.job(0).runs(), pool.job(1).runs()), (2, 1));
            pool.close();
        },
    );
}

/// Suspended, nothing begins; resumed, everything does, in order.
fn suspended(width: usize) {
    let pool = Pool::new(width, &[NOW; 3]);
    pool.add(0).unwrap();
    let worker = beside(&pool, Pool::work);
    assert!(pool.change(|group| group.suspend()));
    let ran = pool.job(0).runs();
    pool.add(1).unwrap();
    pool.work();
    assert_eq!(pool.job(1).runs(), 0);
    assert!(pool.job(0).runs() <= ran + 1);
    assert!(pool.change(|group| group.resume()));
    assert!(!pool.change(|group| group.resume()));
    pool.add(2).unwrap();
    pool.work();
    worker.join().unwrap();
    pool.rest();
    if width == 1 {
        assert_eq!(pool.log(), [0, 1, 2]);
    }
    assert!(pool.jobs.iter().all(|job| job.runs() == 1));
    pool.close();
}

#[test]
fn suspend_and_resume() {
    explore("group: suspend and resume, width 1", 2, || suspended(1));
}

#[test]
fn suspend_and_resume_a_wide_one() {
    explore("group: suspend and resume, width 2", 2, || suspended(2));
}

/// A done callback passes what is held back, which keeps its order.
#[test]
fn a_done_callback_of_a_suspended_group() {
    explore("group: a done callback passes what is held back", 4, || {
        let pool = Pool::new(1, &[NOW; 3]);
        assert!(pool.change(|group| group.suspend()));
        let worker = beside(&pool, Pool::work);
        for number in 0..3 {
            pool.add(number).unwrap();
        }
        assert_eq!(pool.cancel(1), End::Push);
        pool.turns();
        worker.join().unwrap();
        pool.rest();
        assert_eq!(pool.log(), [101]);
        assert!(pool.change(|group| group.resume()));
        pool.rest();
        assert_eq!(pool.log(), [101, 0, 2]);
        pool.close();
    });
}

/// All that was held back is cancelled, and has no done callback. The next job must not rely on an
/// agent that has left.
#[test]
fn what_is_held_back_is_cancelled() {
    explore("group: all that is held back is cancelled", 5, || {
        let silent = Kind {
            silent: true,
            ..NOW
        };
        let pool = Pool::new(1, &[silent, NOW]);
        assert!(pool.change(|group| group.suspend()));
        pool.add(0).unwrap();
        let worker = beside(&pool, Pool::work);
        assert_eq!(pool.cancel(0), End::Push);
        pool.turns();
        assert!(pool.change(|group| group.resume()));
        pool.add(1).unwrap();
        worker.join().unwrap();
        pool.rest();
        assert_eq!(pool.log(), [1]);
        pool.close();
    });
}

/// A wait ends with the last job, and then the callbacks' data is the waiter's.
fn waited_for(width: usize, deadline: Option<u64>) {
    let pool = Pool::new(width, &[NOW; 2]);
    pool.add(0).unwrap();
    pool.add(1).unwrap();
    let waiter = {
        let pool = Arc::clone(&pool);
        thread::spawn(move || {
            let outcome = pool.wait(deadline);
            if outcome == Outcome::Idle {
                pool.job(0).own();
                pool.job(1).own();
            } else {
                assert!(outcome == Outcome::TimedOut && deadline.is_some());
            }
        })
    };
    if width == 1 {
        pool.work();
    } else {
        let worker = beside(&pool, Pool::work);
        pool.work();
        worker.join().unwrap();
    }
    waiter.join().unwrap();
    assert!(pool.jobs.iter().all(|job| job.runs() == 1));
}

#[test]
fn a_wait_against_the_last_job() {
    explore("group: a wait against the last job, width 1", 3, || {
        waited_for(1, None)
    });
}

#[test]
fn a_wait_for_two_at_once() {
    explore("group: a wait against the last job, width 2", 2, || {
        waited_for(2, None)
    });
}

#[test]
fn a_wait_that_times_out() {
    explore("group: a wait that times out", 3, || {
        waited_for(1, super::super::passed())
    });
}

/// The lock: no two threads inside, which `Exclusive` says, and none asleep for ever.
#[test]
fn three_threads_and_the_lock() {
    explore("group: three threads and the lock", 3, || {
        let pool = Pool::new(2, &[]);
        let hold = |pool: &Pool| {
            pool.change(|group| group.hold());
            pool.change(|group| assert!(group.release()));
        };
        let others = [beside(&pool, hold), beside(&pool, hold)];
        hold(&pool);
        for other in others {
            other.join().unwrap();
        }
        pool.close();
    });
}
