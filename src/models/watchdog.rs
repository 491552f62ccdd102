// SPDX-License-Identifier: GPL-3.0-or-later
//! The watchdog: how it goes to sleep while threads wake, and how it learns that a callback that it has
//! reported returned.
//!
//! [`Watchdog`] and [`Mark`] are the library's. A thread's slot is two words here: when its callback began,
//! which says whether one runs, and the mark.

use loom::sync::Arc;
use loom::sync::atomic::AtomicU64;
use loom::thread;

use super::explore;
use crate::shared::watchdog::Watchdog;
use crate::stats::mark::Mark;
use crate::sync::{AtomicBool, AtomicUsize, Ordering};

/// What the watchdog looks at.
struct Pool {
    watchdog: Watchdog,
    busy: [AtomicBool; 2],
    wakes: AtomicUsize,
}

impl Pool {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            watchdog: Watchdog::new(1),
            busy: [AtomicBool::new(false), AtomicBool::new(false)],
            wakes: AtomicUsize::new(0),
        })
    }

    /// Worker number `index` wakes, as in `run::wait`, and is in a callback from here on.
    fn wake(&self, index: usize) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        self.busy[index].store(true, Ordering::Relaxed);
        self.watchdog.woke();
    }

    fn all_sleep(&self) -> bool {
        let is_busy = |busy: &AtomicBool| busy.load(Ordering::Relaxed);
        !self.busy.iter().any(is_busy)
    }
}

/// A worker wakes just as the watchdog goes to sleep. The watchdog does not sleep while it is awake: loom
/// reports a thread that sleeps for ever.
#[test]
fn it_does_not_sleep_while_a_thread_is_awake() {
    explore("watchdog, a worker wakes", 4, || {
        let pool = Pool::new();
        let worker = {
            let pool = Arc::clone(&pool);
            thread::spawn(move || pool.wake(0))
        };
        pool.watchdog.sleep(|| pool.all_sleep());
        worker.join().unwrap();
    });
}

/// Two workers wake beside each other. One ring at most: once both sleep again, so does the watchdog, until
/// the next wakes.
#[test]
fn each_sleep_takes_one_ring() {
    explore("watchdog, two workers wake, and one again", 3, || {
        let pool = Pool::new();
        let workers = [0, 1].map(|index| {
            let pool = Arc::clone(&pool);
            thread::spawn(move || pool.wake(index))
        });
        pool.watchdog.sleep(|| pool.all_sleep());
        for worker in workers {
            worker.join().unwrap();
        }
        pool.busy
            .iter()
            .for_each(|busy| busy.store(false, Ordering::Relaxed));
        let again = {
            let pool = Arc::clone(&pool);
            thread::spawn(move || pool.wake(0))
        };
        pool.watchdog.sleep(|| pool.all_sleep());
        assert_eq!(pool.wakes.load(Ordering::SeqCst), 3, "a ring was left over");
        again.join().unwrap();
    });
}

/// The pool is destroyed while the watchdog goes to sleep.
#[test]
fn it_ends() {
    explore("watchdog, told to end", 4, || {
        let pool = Pool::new();
        let ender = {
            let pool = Arc::clone(&pool);
            thread::spawn(move || pool.watchdog.stop())
        };
        while !pool.watchdog.is_stopped() {
            pool.watchdog.sleep(|| true);
        }
        ender.join().unwrap();
    });
}

/// A thread's slot, as far as the watchdog looks at it.
struct Slot {
    /// When the callback that runs began; 0 if none does.
    since: AtomicU64,
    mark: Mark<AtomicU64>,
}

/// How long after its beginning each callback returns.
const LENGTH: u64 = 5;

impl Slot {
    /// Runs a callback, as `Watchdog::timed` does. Returns whether it found itself reported.
    fn run(&self, since: u64) -> bool {
        self.since.store(since, Ordering::Release);
        let reported = self.mark.returned(since, || since + LENGTH);
        self.since.store(0, Ordering::Release);
        reported
    }
}

/// What the watchdog has told of one callback: its beginning, and when it returned, if the thread said so.
type Told = Vec<(u64, Option<u64>)>;

/// The watchdog looks so often, as `pool::slow::Watched` does; each callback that it sees is slow. At the end it
/// looks once more when the thread has left.
fn watch(slot: &Slot, looks: usize, left: impl FnOnce()) -> Told {
    let (mut reported, mut told) = (0, Vec::new());
    let mut look = || {
        let since = slot.since.load(Ordering::Acquire);
        if reported != 0 && reported != since {
            told.push((reported, slot.mark.take_end()));
            reported = 0;
        }
        if reported == 0 && since != 0 {
            slot.mark.set(since);
            reported = since;
        }
    };
    for _ in 0..looks {
        look();
    }
    left();
    look();
    told
}

/// Callbacks run one after the other, while the watchdog looks at any moment. Each that it has reported it
/// also reports as returned: with the thread's own time, if the thread saw the mark, and never with that of
/// another callback.
#[test]
fn each_return_is_told_of_its_own_callback() {
    explore("watchdog, two callbacks and three looks", 4, || {
        let slot = Arc::new(Slot {
            since: AtomicU64::new(0),
            mark: Mark(AtomicU64::new(0)),
        });
        let callbacks = {
            let slot = Arc::clone(&slot);
            thread::spawn(move || [10, 20].map(|since| (since, slot.run(since))))
        };
        let (mut seen, mut callbacks) = (None, Some(callbacks));
        let told = watch(&slot, 3, || {
            seen = callbacks.take().map(|thread| thread.join().unwrap());
        });
        for (since, saw_mark) in seen.unwrap() {
            let ends: Vec<_> = told.iter().filter(|told| told.0 == since).collect();
            assert!(ends.len() <= 1, "told twice");
            let end = saw_mark.then_some(since + LENGTH);
            assert!(
                ends.iter().all(|told| told.1 == end),
                "another's end, or none"
            );
            assert!(!saw_mark || ends.len() == 1, "not told");
        }
    });
}
