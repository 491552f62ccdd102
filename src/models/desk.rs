// SPDX-License-Identifier: GPL-3.0-or-later
//! The desk: threads ask the loop for a look at all jobs, and may give up.
//!
//! The desk is the library's. The loop's other work is left out: it takes requests, one after the other, and
//! answers. What is asked for carries a cell that each answer writes and that the asker uses again when
//! [`Desk::ask`] has returned: loom reports an answer that comes later.

use std::ptr;

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread::{self, JoinHandle};

use super::explore;
use crate::shared::caller::Caller;
use crate::shared::look::{Desk, Look};
use crate::shared::thread::Thread;
use crate::sync::{AtomicUsize, Condvar, Mutex, Ordering, lock, wait};

/// No time: a thread that gives up at once. Time does not pass in models.
const NEVER: u64 = u64::MAX;
const AT_ONCE: u64 = 0;

/// A pool's desk, and the queue of requests to its loop.
struct Pool {
    desk: Desk,
    caller: Caller,
    /// How many requests are in the queue, and whether the loop is to end.
    queue: Mutex<(usize, bool)>,
    pushed: Condvar,
    answers: AtomicUsize,
}

impl Pool {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            desk: Desk::new(),
            caller: Caller::new(),
            queue: Mutex::new((0, false)),
            pushed: Condvar::new(),
            answers: AtomicUsize::new(0),
        })
    }

    fn send(&self) {
        let mut queue = lock(&self.queue);
        queue.0 += 1;
        assert_eq!(queue.0, 1, "two requests in the queue");
        drop(queue);
        self.pushed.notify_one();
    }

    /// As `EventLoop::answer_look`.
    fn answer_request(&self) {
        self.desk.take_request();
        self.answer();
    }

    fn answer(&self) {
        let none = self.desk.answer(|look| {
            // The model's cell is where the memory for records would be.
            let cell = look.records.cast::<UnsafeCell<usize>>();
            // SAFETY: the asker keeps it until the execution ends; loom reports concurrent access.
            unsafe { (*cell).with_mut(|noted| *noted += 1) };
            self.answers.fetch_add(1, Ordering::Relaxed);
        });
        assert!(none.is_none());
    }

    /// The loop, until it is to end. It takes what is in the queue first.
    fn run(&self) {
        loop {
            let mut queue = lock(&self.queue);
            while *queue == (0, false) {
                queue = wait(&self.pushed, queue);
            }
            if queue.0 == 0 {
                return;
            }
            queue.0 -= 1;
            drop(queue);
            self.answer_request();
        }
    }

    fn end(&self) {
        lock(&self.queue).1 = true;
        self.pushed.notify_one();
    }

    /// As `Pool::dump`, so often: false as soon as an answer does not come in time.
    fn dump(&self, cell: &UnsafeCell<usize>, looks: usize, patience: u64) -> bool {
        assert!(self.desk.take(NEVER));
        // On the heap, and kept: a late answer must meet loom's cell, not the freed stack.
        let look = Box::leak(Box::new(Look::new()));
        look.records = ptr::from_ref(cell).cast_mut().cast();
        let answered = (0..looks).all(|look_number| {
            let alone = || self.look_alone();
            let answered = self.desk.ask(look, patience, || self.send(), alone);
            // SAFETY: loom reports any concurrent access to the cell.
            let noted = cell.with_mut(|noted| unsafe { *noted });
            assert!(!answered || noted == look_number + 1, "no look, or two");
            answered
        });
        self.desk.give_back();
        answered
    }

    /// As `Pool::look_alone`.
    fn look_alone(&self) {
        if self.desk.is_wanted() {
            self.caller.while_outside(|| self.answer());
        }
    }
}

/// A thread that dumps.
fn dumper(pool: &Arc<Pool>, looks: usize, patience: u64) -> JoinHandle<bool> {
    let pool = Arc::clone(pool);
    thread::spawn(move || {
        let cell = Box::leak(Box::new(UnsafeCell::new(0)));
        pool.dump(cell, looks, patience)
    })
}

/// A pool whose loop has a thread: nobody looks alone.
fn pool_with_loop() -> (Arc<Pool>, JoinHandle<()>) {
    let pool = Pool::new();
    assert!(pool.caller.enter(None, || {}));
    let other = Arc::clone(&pool);
    let event_loop = thread::spawn(move || other.run());
    (pool, event_loop)
}

#[test]
fn every_look_is_answered() {
    explore("desk, two looks of one thread", 3, || {
        let (pool, event_loop) = pool_with_loop();
        assert!(dumper(&pool, 2, NEVER).join().unwrap());
        pool.end();
        event_loop.join().unwrap();
    });
}

#[test]
fn one_thread_at_a_time() {
    explore("desk, two threads", 3, || {
        let (pool, event_loop) = pool_with_loop();
        let dumpers = [dumper(&pool, 1, NEVER), dumper(&pool, 1, NEVER)];
        for dumper in dumpers {
            assert!(dumper.join().unwrap());
        }
        pool.end();
        event_loop.join().unwrap();
        assert_eq!(pool.answers.load(Ordering::Relaxed), 2);
    });
}

/// A thread gives up at any moment: its request may be in the queue, taken, or being answered. The next
/// thread's look is answered all the same, and once.
#[test]
fn who_gives_up_takes_nothing_from_the_next() {
    explore("desk, one that gives up and the next", 3, || {
        let (pool, event_loop) = pool_with_loop();
        let hasty = dumper(&pool, 1, AT_ONCE);
        assert!(dumper(&pool, 1, NEVER).join().unwrap());
        hasty.join().unwrap();
        pool.end();
        event_loop.join().unwrap();
    });
}

/// In a caller's loop: a thread is inside, and leaves without looking at requests. Nobody turns the pool
/// after that, and the look is answered.
#[test]
fn the_loop_leaves_while_a_thread_asks() {
    explore("desk, a caller's loop is left", 3, || {
        let pool = Pool::new();
        let host = {
            let pool = Arc::clone(&pool);
            thread::spawn(move || {
                let me = Thread::new().expect("memory");
                if pool.caller.enter(Some(me.clone()), || {}) {
                    pool.caller.leave();
                    pool.look_alone();
                }
                me.end();
            })
        };
        assert!(dumper(&pool, 1, NEVER).join().unwrap());
        host.join().unwrap();
    });
}
