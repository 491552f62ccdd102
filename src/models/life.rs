// SPDX-License-Identifier: GPL-3.0-or-later
//! The job's state word: a job against its callback's return, its owner, and the end of its pool.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::{Job, explore, waiter};
use crate::job::state::{self, After, Arm, End, Work};
use crate::job::wait::Outcome;
use crate::sync::{AtomicBool, Ordering};
use crate::workq::Queue;

/// The job is in the loop's ready list. A turn takes requests first, so a job that is disposed of
/// there is held until the list releases it.
#[test]
fn cancel_against_firing_in_the_loop() {
    explore("cancel against firing in the loop", 5, || {
        let job = Job::armed();
        let requests = Arc::new(Queue::new());
        let canceller = {
            let (job, requests) = (Arc::clone(&job), Arc::clone(&requests));
            thread::spawn(move || {
                let ended = job.end(true);
                if ended == End::Push {
                    job.own();
                    requests.push(());
                }
                ended
            })
        };
        let mut is_ready = true;
        let take_requests = |is_ready: bool| {
            while requests.pop().is_some() {
                assert_eq!(job.state.take_request(), state::NEEDS_DELETE);
                if is_ready {
                    job.state.hold();
                }
                job.dispose();
            }
        };
        let mut began = false;
        while is_ready {
            take_requests(true);
            is_ready = false;
            began = job.state.begin();
            if began {
                job.run();
                if job.finish(0) == After::Dispose {
                    job.dispose();
                }
            } else if job.state.drop_work() {
                job.state.memory().free();
            }
        }
        let ended = canceller.join().unwrap();
        assert!(ended == End::Push || began && ended == End::Marked);
        take_requests(is_ready);
        assert!(job.is_freed());
    });
}

/// The job is in the work queue. `own`: the worker disposes of the job itself, as it does for a
/// timer.
fn cancel_against_a_worker(own: bool) {
    let job = Job::armed();
    assert!(job.state.dispatch());
    let worker = {
        let job = Arc::clone(&job);
        thread::spawn(move || match job.state.take_work() {
            Work::Run => {
                job.run();
                let dispose = if own { 0 } else { state::REQ };
                let after = job
                    .state
                    .finish(&job.waiters, false, || true, state::REQ, dispose);
                if own && after == After::Dispose {
                    job.dispose();
                }
                after
            }
            Work::Leave => After::Idle,
            Work::Close => panic!("nobody asked for that"),
            Work::Free => {
                job.state.memory().free();
                After::Idle
            }
        })
    };
    let ended = job.end(true);
    if ended == End::Push {
        // No run is in progress, and none begins later. The loop disposes of the job at once,
        // whatever the worker does.
        job.own();
        job.take_and_dispose();
    }
    let after = worker.join().unwrap();
    match ended {
        End::Push => assert_eq!(after, After::Idle),
        End::Marked => {
            assert_eq!(after, After::Dispose);
            if !own {
                job.take_and_dispose();
            }
        }
        other => panic!("{other:?}"),
    }
    assert!(job.is_freed());
}

#[test]
fn cancel_against_a_worker_of_the_loops_job() {
    explore("cancel against a worker, the loop disposes", 5, || {
        cancel_against_a_worker(false)
    });
}

#[test]
fn cancel_against_a_worker_of_its_own_job() {
    explore("cancel against a worker, which disposes", 5, || {
        cancel_against_a_worker(true)
    });
}

#[test]
fn done_rearm_and_the_return_of_the_callback() {
    explore("rearm and done from outside against the return", 4, || {
        let job = Job::begun();
        let rearm = {
            let job = Arc::clone(&job);
            thread::spawn(move || job.state.arm(state::REQ, false))
        };
        let done = {
            let job = Arc::clone(&job);
            thread::spawn(move || job.end(false))
        };
        job.run();
        let after = job.finish(state::REQ);
        let rearmed = rearm.join().unwrap();
        let ended = done.join().unwrap();
        // Exactly the call that set the bit pushes.
        let pushes = [
            after == After::Armed,
            rearmed == Arm::Push,
            ended == End::Push,
        ];
        match ended {
            End::Marked => assert_eq!(after, After::Dispose),
            End::Push => assert!(after == After::Idle && rearmed != Arm::Push),
            // `end` found the job armed again, by the callback's return or by `arm`.
            End::Armed => assert!(pushes[0] || pushes[1]),
            other => panic!("{other:?}"),
        }
        assert!(pushes.iter().filter(|&&push| push).count() <= 1);
    });
}

#[test]
fn two_rearms_push_once() {
    explore("two rearms", 5, || {
        let job = Job::begun();
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

/// Threads that arm a job in another way than before write how, and the thread that hands the job on
/// reads it. A thread that arms the job as before competes with them.
#[test]
fn claims_against_the_return_and_a_plain_rearm() {
    explore("claims against the return and a plain rearm", 3, || {
        let job = Job::begun();
        let how = Arc::new(UnsafeCell::new(0));
        let claimer = |number: usize| {
            let (job, how) = (Arc::clone(&job), Arc::clone(&how));
            thread::spawn(move || {
                if !job.state.claim(false, false) {
                    return Arm::Refused;
                }
                // SAFETY: loom reports any concurrent access to the cell.
                how.with_mut(|how| unsafe { *how = number });
                let armed = job.state.arm_claimed(state::REQ);
                if armed == Arm::Push {
                    // SAFETY: as above.
                    assert_eq!(how.with(|how| unsafe { *how }), number);
                }
                armed
            })
        };
        let (one, two) = (claimer(1), claimer(2));
        let plain = {
            let job = Arc::clone(&job);
            thread::spawn(move || job.state.arm(state::REQ, false))
        };
        job.run();
        let after = job.finish(state::REQ);
        if after == After::Armed {
            // SAFETY: as above.
            how.with(|how| unsafe { std::hint::black_box(*how) });
        }
        let results = [one, two, plain].map(|thread| thread.join().unwrap());
        let of = |wanted| results.iter().filter(|&&result| result == wanted).count();
        assert_eq!(of(Arm::Push) + of(Arm::Recorded), 1, "{results:?}");
        assert_eq!(of(Arm::Recorded) == 1, after == After::Armed);
        assert!(job.state.is_armed());
    });
}

/// The callback arms its own job in another way, while another thread cancels the job. `persist`: it is
/// armed again anyway.
fn a_claim_in_the_callback_against_cancel(persist: bool) {
    let job = Job::begun();
    let canceller = {
        let job = Arc::clone(&job);
        thread::spawn(move || job.end(true))
    };
    job.run();
    let armed = if job.state.claim(true, persist) {
        job.own();
        job.state.arm_claimed(state::REQ)
    } else {
        Arm::Refused
    };
    let after = job
        .state
        .finish(&job.waiters, persist, || true, state::REQ, 0);
    match canceller.join().unwrap() {
        // The callback ran still: the cancel wins, whatever the claimer was told.
        End::Marked => assert_eq!(after, After::Dispose),
        // It was armed again.
        End::Queued => assert!(after == After::Armed && armed == Arm::Recorded),
        other => panic!("{other:?}"),
    }
    if after == After::Dispose {
        job.dispose();
    } else {
        job.take_and_dispose();
    }
    assert!(job.is_freed());
}

#[test]
fn a_claim_in_the_callback_against_a_cancel() {
    explore("a claim in the callback against a cancel", 5, || {
        a_claim_in_the_callback_against_cancel(false)
    });
}

#[test]
fn a_claim_in_the_callback_of_a_persistent_job_against_a_cancel() {
    explore("a claim, PERSIST, against a cancel", 5, || {
        a_claim_in_the_callback_against_cancel(true)
    });
}

/// The job asks to be armed again. While its callback returns, other threads wait for it, cancel
/// it, and shut the pool down. Each retry of the step must check again whether rearming is allowed;
/// only the check of the attempt that succeeds counts.
fn the_return_against_cancel_and_shutdown(persist: bool) {
    let job = Job::begun();
    let shutdown = Arc::new(AtomicBool::new(false));
    let waiter = waiter(&job, None);
    let owner = {
        let (job, shutdown) = (Arc::clone(&job), Arc::clone(&shutdown));
        thread::spawn(move || {
            shutdown.store(true, Ordering::SeqCst);
            job.end(true)
        })
    };
    job.run();
    if !persist {
        let asked = job.state.arm(state::REQ, false);
        assert!(asked == Arm::Recorded || asked == Arm::Refused);
    }
    let again = || !shutdown.load(Ordering::SeqCst);
    let after = job
        .state
        .finish(&job.waiters, persist, again, state::REQ, state::REQ);
    match owner.join().unwrap() {
        End::Marked => assert_eq!(after, After::Dispose),
        End::Push => assert_eq!(after, After::Idle),
        End::Queued => assert_eq!(after, After::Armed),
        other => panic!("{other:?}"),
    }
    // It is in the request queue once, whichever thread pushed it, and no other thread uses it any
    // more.
    let outcome = waiter.join().unwrap();
    assert!(outcome == Outcome::Deleting || outcome == Outcome::Idle && after == After::Idle);
    job.take_and_dispose();
    assert!(job.is_freed());
}

#[test]
fn the_return_of_a_rearmed_job_against_cancel_and_shutdown() {
    explore("rearm, return, cancel, shutdown, a waiter", 3, || {
        the_return_against_cancel_and_shutdown(false)
    });
}

#[test]
fn the_return_of_a_persistent_job_against_cancel_and_shutdown() {
    explore("persist, return, cancel, shutdown, a waiter", 3, || {
        the_return_against_cancel_and_shutdown(true)
    });
}

/// Closing the job's descriptor may block, so the loop leaves that to a worker. The job is
/// cancelled while it is queued for a worker, which may already run it: then the loop either finds
/// WORK set or must push. Each of the two workers takes at most one item, so the close may be left
/// to the loop at the end.
#[test]
fn a_close_by_a_worker_of_a_job_that_is_cancelled_in_the_work_queue() {
    explore("a close by a worker, cancel in the work queue", 3, || {
        let job = Job::armed();
        let (work, requests) = (Arc::new(Queue::new()), Arc::new(Queue::new()));
        // Whether the descriptor is closed. The worker writes it, and the done callback reads it
        // later.
        let closed = Arc::new(UnsafeCell::new(false));
        assert!(job.state.dispatch());
        work.push(());
        let worker = || {
            let (job, work, requests, closed) = (
                Arc::clone(&job),
                Arc::clone(&work),
                Arc::clone(&requests),
                Arc::clone(&closed),
            );
            thread::spawn(move || {
                if work.pop().is_some() {
                    match job.state.take_work() {
                        Work::Run => {
                            job.run();
                            let after = job.state.finish(
                                &job.waiters,
                                false,
                                || true,
                                state::REQ,
                                state::REQ,
                            );
                            // If Idle: the job was cancelled after its callback had returned.
                            if after == After::Dispose {
                                requests.push(());
                            }
                        }
                        Work::Leave => {}
                        Work::Close => {
                            // SAFETY: loom reports any concurrent access to the cell.
                            let before = closed.with_mut(|closed| unsafe { closed.replace(true) });
                            assert!(!before, "closed twice");
                            job.state.closed();
                            requests.push(());
                        }
                        Work::Free => panic!("the loop waits for the close"),
                    }
                }
            })
        };
        let workers = [worker(), worker()];
        let ended = job.end(true);
        let mut requested = match ended {
            End::Push => true,
            End::Marked => false,
            other => panic!("{other:?}"),
        };
        // The loop. The request comes from the canceller, or from the worker that ran the job.
        let mut handed_over = false;
        let mut turn = |requested: bool| {
            if !requested {
                return;
            }
            assert_eq!(job.state.take_request(), state::NEEDS_DELETE);
            if !std::mem::replace(&mut handed_over, true) {
                // The loop's last use of the descriptor, such as removing it from the poller.
                // SAFETY: loom reports any concurrent access to the cell.
                assert!(!closed.with(|closed| unsafe { *closed }));
                if job.state.ask_for_close() {
                    work.push(());
                }
            } else {
                // SAFETY: loom reports any concurrent access to the cell.
                assert!(
                    closed.with(|closed| unsafe { *closed }),
                    "done before it is closed"
                );
                job.dispose();
            }
        };
        turn(requested);
        requested = requests.pop().is_some();
        turn(requested);
        for worker in workers {
            worker.join().unwrap();
        }
        while requests.pop().is_some() {
            turn(true);
        }
        // No worker is left, so the loop closes the descriptors that remain in the queue.
        while work.pop().is_some() {
            assert!(job.state.take_close());
            // SAFETY: loom reports any concurrent access to the cell.
            closed.with_mut(|closed| unsafe { *closed = true });
            job.dispose();
        }
        assert!(job.is_freed());
    });
}

#[test]
fn shutdown_against_cancel_of_a_queued_job() {
    explore("a queued job at the end of its pool", 5, || {
        let job = Job::armed();
        assert!(job.state.dispatch());
        let canceller = {
            let job = Arc::clone(&job);
            thread::spawn(move || assert_eq!(job.end(true), End::Push))
        };
        // No worker is left: the loop empties the work queue.
        assert!(!job.state.drop_work());
        canceller.join().unwrap();
        job.take_and_dispose();
        assert!(job.is_freed());
    });
}
