// SPDX-License-Identifier: GPL-3.0-or-later
//! Cancel, by job and by group, against everything that a job may be at.

use super::*;

const AGAIN: Kind = Kind { again: true, ..NOW };
const SILENT: Kind = Kind {
    silent: true,
    ..NOW
};

/// A job in the queue, or beginning, is cancelled; the canceller's thread is the loop as well, and
/// disposes of it at once. Another job is behind it.
fn cancelled_job(width: usize, kind: Kind) {
    let pool = Pool::new(width, &[kind, NOW]);
    pool.add(0).unwrap();
    let worker = beside(&pool, Pool::work);
    pool.add(1).unwrap();
    let end = pool.cancel(0);
    assert!(matches!(end, End::Push | End::PushIdle | End::Marked));
    pool.turns();
    worker.join().unwrap();
    pool.rest();
    let job = pool.job(0);
    assert!(job.is_freed());
    assert_eq!(job.disposals.load(Relaxed), usize::from(!kind.silent));
    assert_eq!(pool.job(1).runs(), 1);
    pool.close();
}

#[test]
fn a_job_against_its_run() {
    explore("group: cancel of a job against its run", 3, || {
        cancelled_job(1, NOW)
    });
}

#[test]
fn a_silent_job_against_its_run() {
    explore(
        "group: cancel of a job that has no done callback",
        3,
        || cancelled_job(1, SILENT),
    );
}

#[test]
fn a_job_against_its_own_rearm() {
    explore("group: cancel of a job against its own rearm", 3, || {
        cancelled_job(1, AGAIN)
    });
}

#[test]
fn a_silent_job_against_its_own_rearm() {
    let kind = Kind {
        again: true,
        ..SILENT
    };
    explore("group: the same, without done callback", 3, move || {
        cancelled_job(1, kind)
    });
}

/// With a second slot its done callback may run while the thread that ran it brings it back.
#[test]
fn a_job_against_its_own_rearm_in_a_wide_group() {
    explore("group: cancel against own rearm, width 2", 4, || {
        cancelled_job(2, AGAIN)
    });
}

/// The loop fires a job while another thread cancels it.
fn cancelled_firing(width: usize) {
    let watched = Kind {
        watched: true,
        idle: true,
        ..NOW
    };
    let pool = Pool::new(width, &[watched]);
    pool.add(0).unwrap();
    assert_eq!(pool.rearm(0), Arm::Push);
    let worker = beside(&pool, Pool::work);
    let canceller = beside(&pool, |pool| {
        let _ = pool.cancel(0);
    });
    pool.turns();
    worker.join().unwrap();
    canceller.join().unwrap();
    pool.rest();
    assert!(pool.job(0).is_freed());
    assert_eq!(pool.job(0).disposals.load(Relaxed), 1);
    pool.close();
}

#[test]
fn a_job_against_its_firing() {
    explore(
        "group: cancel of a job against its firing, width 1",
        2,
        || cancelled_firing(1),
    );
}

#[test]
fn a_job_against_its_firing_in_a_wide_group() {
    explore(
        "group: cancel of a job against its firing, width 2",
        4,
        || cancelled_firing(2),
    );
}

/// When cancel of the group has returned, no callback begins.
fn cancelled_group(width: usize, kinds: &[Kind]) {
    let pool = Pool::new(width, kinds);
    pool.add(0).unwrap();
    let adder = {
        let pool = Arc::clone(&pool);
        thread::spawn(move || {
            let added = pool.add(1);
            pool.work();
            added
        })
    };
    let running = pool.cancel_group();
    let begun = |number| pool.job(number).runs();
    let before = [begun(0), begun(1)];
    pool.turns();
    let added = adder.join().unwrap();
    pool.rest();
    if !running {
        assert_eq!([begun(0), begun(1)], before, "a callback after cancel");
    }
    assert!(pool.job(0).is_freed());
    assert_eq!(pool.job(1).is_freed(), added.is_ok());
    pool.release();
    pool.rest();
    assert!(pool.has_ended());
}

#[test]
fn a_group_against_an_add() {
    explore(
        "group: cancel of a group against an add and a run",
        5,
        || cancelled_group(1, &[NOW, NOW]),
    );
}

#[test]
fn a_wide_group_against_an_add() {
    explore("group: the same, width 2", 4, || {
        cancelled_group(2, &[NOW, NOW])
    });
}

/// What a thread wrote before its add happens before the done callback, when it is the cancel that
/// takes the job from the inbox.
#[test]
fn a_group_against_an_add_of_another_thread() {
    explore(
        "group: cancel of a group against an add beside it",
        3,
        || {
            let pool = Pool::new(1, &[NOW, NOW]);
            pool.add(0).unwrap();
            let adder = beside(&pool, |pool| {
                let _ = pool.add(1);
            });
            pool.cancel_group();
            pool.turns();
            pool.work();
            adder.join().unwrap();
            pool.rest();
            assert_eq!(pool.job(0).runs() + pool.job(1).runs(), 0);
            assert!(pool.job(0).is_freed());
            pool.release();
            pool.rest();
            assert!(pool.has_ended());
        },
    );
}

#[test]
fn a_group_against_a_rearm() {
    explore("group: cancel of a group against a rearm", 5, || {
        cancelled_group(1, &[AGAIN, SILENT])
    });
}

#[test]
fn an_unordered_group_against_a_rearm() {
    explore("group: the same, width 0", 4, || {
        cancelled_group(0, &[AGAIN, NOW])
    });
}

/// Idle, armed and queued members of a group, which a wait then finds gone.
#[test]
fn a_group_with_members_of_each_kind() {
    explore(
        "group: cancel with members of each kind, and a wait",
        3,
        || {
            let idle = Kind { idle: true, ..NOW };
            let watched = Kind {
                watched: true,
                idle: true,
                ..NOW
            };
            let pool = Pool::new(1, &[idle, watched, NOW]);
            for number in 0..3 {
                pool.add(number).unwrap();
            }
            assert_eq!(pool.rearm(1), Arm::Push);
            pool.turns();
            pool.cancel_group();
            let waiter = beside(&pool, |pool| {
                assert_eq!(pool.wait(None), Outcome::Idle);
                (0..3).for_each(|number| pool.job(number).own());
            });
            pool.rest();
            waiter.join().unwrap();
            assert!(pool.jobs.iter().all(|job| job.is_freed()));
            assert_eq!(pool.cancel_group(), false);
            pool.release();
            pool.rest();
            assert!(pool.has_ended());
        },
    );
}
