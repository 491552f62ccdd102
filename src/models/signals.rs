// SPDX-License-Identifier: GPL-3.0-or-later
//! Signals: a pool that stops watching, against handlers that may be using its mailbox; and
//! handlers that read a latch while it is written.

use loom::sync::Arc;
use loom::thread;

use super::explore;
use crate::signals::latch::Latch;
use crate::sync::grace::Grace;
use crate::sync::{AtomicUsize, Memory, Ordering};

/// A list of at most one of the model's pools: its index plus one, or zero.
struct Registry<const POOLS: usize> {
    handlers: Grace,
    first: AtomicUsize,
    pools: [Memory; POOLS],
}

impl<const POOLS: usize> Registry<POOLS> {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            handlers: Grace::new(),
            first: AtomicUsize::new(1),
            pools: std::array::from_fn(|_| Memory::new()),
        })
    }

    /// The handler's steps.
    fn signal(&self) {
        let inside = self.handlers.enter(0);
        if let Some(pool) = self.first.load(Ordering::SeqCst).checked_sub(1) {
            self.pools[pool].used();
        }
        self.handlers.leave(inside);
    }

    /// Replace the pool in the list with `next` (zero: none), and free the old one.
    fn replace(&self, next: usize) {
        let gone = self.first.load(Ordering::SeqCst) - 1;
        self.first.store(next, Ordering::SeqCst);
        let gone_since = self.handlers.now(0);
        self.handlers.wait(gone_since, 0);
        self.pools[gone].free();
    }
}

fn a_pool_goes<const POOLS: usize>(handlers: usize, signals: usize) {
    let registry = Registry::<POOLS>::new();
    let others: Vec<_> = (0..handlers)
        .map(|_| {
            let registry = Arc::clone(&registry);
            thread::spawn(move || {
                for _ in 0..signals {
                    registry.signal();
                }
            })
        })
        .collect();
    for pool in 0..POOLS {
        registry.replace(if pool + 1 < POOLS { pool + 2 } else { 0 });
    }
    for other in others {
        other.join().unwrap();
    }
}

#[test]
fn a_pool_goes_beside_two_handlers() {
    explore("signals, a pool goes beside two handlers", 2, || {
        a_pool_goes::<1>(2, 1);
    });
}

/// The epoch advances twice: handlers of the first epoch are not taken for handlers of the third.
#[test]
fn two_pools_go_one_after_the_other() {
    explore("signals, two pools go beside two handlers", 2, || {
        a_pool_goes::<2>(2, 1);
    });
}

#[test]
fn a_pool_goes_in_a_storm() {
    explore("signals, two pools go in a storm", 2, || {
        a_pool_goes::<2>(1, 3);
    });
}

/// Each write stores the same value in all words.
#[test]
fn a_handler_reads_what_was_written_whole() {
    explore("signals, what is known, read while written", 2, || {
        let latch = Arc::new(Latch::<2>::new());
        latch.write([1; 2]);
        let readers: Vec<_> = (0..2)
            .map(|_| {
                let latch = Arc::clone(&latch);
                thread::spawn(move || {
                    let words = latch.read().unwrap();
                    assert_eq!(words[0], words[1], "words of two different writes");
                })
            })
            .collect();
        latch.write([2; 2]);
        latch.write([3; 2]);
        for reader in readers {
            reader.join().unwrap();
        }
        assert_eq!(latch.read(), Some([3; 2]));
    });
}
