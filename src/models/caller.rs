// SPDX-License-Identifier: GPL-3.0-or-later
//! The loop in threads of the application's: the wake protocol with the wait descriptor, and who is the
//! loop.

use std::sync::atomic::{AtomicUsize as Plain, Ordering::Relaxed};

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use super::explore;
use super::wake::Pipe;
use crate::shared::caller::{Caller, Entered};
use crate::shared::thread::Thread;
use crate::sync::{AtomicBool, Ordering};
use crate::workq::Queue;

/// Producers add to a pool that a host turns when its wait descriptor is readable, and never otherwise. A
/// turn takes no more than `most`.
fn until_all_are_turned(producers: usize, pushes: usize, most: usize) {
    let pipe = Arc::new(Pipe::new());
    let requests = Arc::new(Queue::new());
    pipe.pause(|| true);
    let others: Vec<_> = (0..producers)
        .map(|_| {
            let (pipe, requests) = (Arc::clone(&pipe), Arc::clone(&requests));
            thread::spawn(move || {
                for _ in 0..pushes {
                    requests.push(());
                    pipe.wake();
                }
            })
        })
        .collect();
    let mut taken = 0;
    while taken < producers * pushes {
        pipe.wait_readable();
        pipe.resume();
        for _ in 0..most {
            taken += usize::from(requests.pop().is_some());
        }
        pipe.poll(|| requests.is_empty());
        pipe.pause(|| requests.is_empty());
    }
    for other in others {
        other.join().unwrap();
    }
    // Nothing is left, and the host finds that out.
    while pipe.is_readable() {
        pipe.resume();
        assert!(requests.pop().is_none());
        pipe.poll(|| true);
        pipe.pause(|| true);
    }
}

#[test]
fn the_host_is_told_of_everything() {
    explore("wait descriptor, two producers", 3, || {
        until_all_are_turned(2, 1, 2)
    });
}

#[test]
fn and_of_what_a_turn_leaves_over() {
    explore("wait descriptor, bounded turns", 2, || {
        until_all_are_turned(2, 2, 1)
    });
}

/// A pool, and what only the loop uses.
struct Pool {
    caller: Caller,
    shut: AtomicBool,
    quiet: AtomicBool,
    turns: UnsafeCell<usize>,
    /// The [`Thread::id`] of the thread that was last inside a turn of its own; 0 if it has ended. Not
    /// loom's, since it is not part of the protocol.
    owner: Plain,
}

impl Pool {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            caller: Caller::new(),
            shut: AtomicBool::new(false),
            quiet: AtomicBool::new(false),
            turns: UnsafeCell::new(0),
            owner: Plain::new(0),
        })
    }

    /// Inside.
    fn turn(&self) {
        // SAFETY: loom reports any concurrent access to the cell.
        self.turns.with_mut(|turns| unsafe { *turns += 1 });
        if self.shut.load(Ordering::SeqCst) {
            self.quiet.store(true, Ordering::SeqCst);
        }
        self.caller.leave();
    }

    /// A turn, unless another thread is inside.
    fn try_turn(&self, me: &Thread) -> bool {
        let inside = self.caller.enter(Some(me.clone()), || {});
        if inside {
            self.owner.store(me.id(), Relaxed);
            self.turn();
        }
        inside
    }

    fn shut_down(&self) {
        self.shut.store(true, Ordering::SeqCst);
        self.caller.ring();
    }

    /// The thread `me` ends.
    fn end(&self, me: Thread) {
        // A step between its last turn and its end: others may come here.
        self.quiet.load(Ordering::SeqCst);
        let _ = (self.owner).compare_exchange(me.id(), 0, Relaxed, Relaxed);
        me.end();
    }

    /// As `Pool::wait_as_loop`.
    fn wait(&self, me: &Thread, anyway: bool) {
        while !self.quiet.load(Ordering::SeqCst) {
            let may = || self.shut.load(Ordering::SeqCst);
            match self.caller.enter_to_end(Some(me), None, anyway, may, || {}) {
                Entered::Inside => {
                    let owner = self.owner.load(Relaxed);
                    let may = anyway || owner == 0 || owner == me.id();
                    assert!(may, "the loop of a thread that lives");
                    self.turn();
                }
                Entered::Woken => {}
                Entered::TimedOut => unreachable!("there is no deadline"),
            }
        }
    }
}

/// Run `body` in a thread of the application's, which then ends.
fn spawn(pool: &Arc<Pool>, body: impl FnOnce(&Pool, &Thread) + 'static) -> thread::JoinHandle<()> {
    let pool = Arc::clone(pool);
    thread::spawn(move || {
        let me = Thread::new().expect("memory");
        body(&pool, &me);
        pool.end(me);
    })
}

fn all_end(threads: impl IntoIterator<Item = thread::JoinHandle<()>>) {
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn one_thread_at_a_time_and_each_sees_what_the_one_before_wrote() {
    explore("caller's loop, three threads by turns", 3, || {
        let pool = Pool::new();
        let turn = |pool: &Pool, me: &Thread| {
            pool.try_turn(me);
        };
        let threads = [spawn(&pool, turn), spawn(&pool, turn)];
        let me = Thread::new().expect("memory");
        pool.try_turn(&me);
        all_end(threads);
        assert!(pool.try_turn(&me));
        me.end();
    });
}

/// Two threads wait, a third shuts the pool down; nobody was ever inside.
#[test]
fn a_shutdown_makes_one_that_waits_the_loop() {
    explore("caller's loop, two waiters and a shutdown", 3, || {
        let pool = Pool::new();
        let wait = |pool: &Pool, me: &Thread| pool.wait(me, false);
        let threads = [spawn(&pool, wait), spawn(&pool, wait)];
        pool.shut_down();
        all_end(threads);
    });
}

/// The thread that was last inside ends while another waits for it; the shutdown comes at any time.
#[test]
fn the_end_of_the_last_thread_wakes_who_waits() {
    explore("caller's loop, the thread last inside ends", 3, || {
        let pool = Pool::new();
        let last = spawn(&pool, |pool, me| {
            pool.try_turn(me);
        });
        let waiter = spawn(&pool, |pool, me| pool.wait(me, false));
        pool.shut_down();
        all_end([last, waiter]);
    });
}

/// Two threads turn the pool, one after the other, and end in any order.
#[test]
fn whichever_was_the_last() {
    explore("caller's loop, two threads that end", 2, || {
        let pool = Pool::new();
        pool.shut.store(true, Ordering::SeqCst);
        let turn = |pool: &Pool, me: &Thread| {
            if pool.caller.enter(Some(me.clone()), || {}) {
                pool.owner.store(me.id(), Relaxed);
                pool.caller.leave();
            }
        };
        let others = [spawn(&pool, turn), spawn(&pool, turn)];
        let me = Thread::new().expect("memory");
        pool.wait(&me, false);
        me.end();
        all_end(others);
    });
}

/// The thread that was last inside waits, as another does: it does not wait for itself, and the other not
/// only for its end.
#[test]
fn the_last_thread_waits_as_well() {
    explore("caller's loop, the thread last inside waits", 3, || {
        let pool = Pool::new();
        let last = spawn(&pool, |pool, me| {
            pool.try_turn(me);
            pool.wait(me, false);
        });
        let waiter = spawn(&pool, |pool, me| pool.wait(me, false));
        pool.shut_down();
        all_end([last, waiter]);
    });
}

/// Destroy waits for a thread that is inside, and for no other: not for the end of the one last inside.
#[test]
fn destroy_waits_for_who_is_inside() {
    explore("caller's loop, destroy", 3, || {
        let pool = Pool::new();
        let lingers = Thread::new().expect("memory");
        let inside = spawn(&pool, |pool, me| {
            pool.try_turn(me);
        });
        pool.try_turn(&lingers);
        let me = Thread::new().expect("memory");
        pool.shut_down();
        pool.wait(&me, true);
        all_end([inside]);
        me.end();
        lingers.end();
    });
}
