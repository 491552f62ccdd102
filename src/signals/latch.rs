// SPDX-License-Identifier: GPL-3.0-or-later
//! Several words that a signal handler can read as a consistent whole at any time, even while
//! another thread writes them.
//!
//! There are two places. The writer fills the one that is not in use and then switches to it. So a
//! handler always finds one complete place, and so does a forked child, at whatever step of a write
//! the fork happens. A reader retries only if a write was completed while it read, because the next
//! write may then be overwriting its place. It never waits for a write that is in progress.

use crate::perturb::perturb;
use crate::sync::{AtomicUsize, Ordering, fence};

/// Words that a handler can read whole; see the module.
pub(crate) struct Latch<const N: usize> {
    /// The number of writes; the place in use is `turn % 2`. Zero: never written.
    turn: AtomicUsize,
    places: [[AtomicUsize; N]; 2],
}

impl<const N: usize> Latch<N> {
    /// Never written.
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self {
            turn: AtomicUsize::new(0),
            places: [const { [const { AtomicUsize::new(0) }; N] }; 2],
        }
    }

    /// Never written.
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        let place = || std::array::from_fn(|_| AtomicUsize::new(0));
        Self {
            turn: AtomicUsize::new(0),
            places: [place(), place()],
        }
    }

    /// The words that were written last, or `None` if nothing was written. Async-signal-safe.
    pub(crate) fn read(&self) -> Option<[usize; N]> {
        loop {
            let turn = self.turn.load(Ordering::Acquire);
            if turn == 0 {
                return None;
            }
            let place = &self.places[turn % 2];
            let words = std::array::from_fn(|word| place[word].load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            if self.turn.load(Ordering::Relaxed) == turn {
                return Some(words);
            }
        }
    }

    /// Replace the words. The caller makes sure that there is one writer at a time.
    pub(crate) fn write(&self, words: [usize; N]) {
        // On overflow, continue at 2: even, as zero is, but not zero.
        let turn = self.turn.load(Ordering::Relaxed);
        let next = turn.checked_add(1).unwrap_or(2);
        // A reader that sees one of the stores below also sees that its place is no longer in use.
        fence(Ordering::Release);
        for (at, word) in self.places[next % 2].iter().zip(words) {
            at.store(word, Ordering::Relaxed);
        }
        perturb("written, and the place not in use");
        self.turn.store(next, Ordering::Release);
    }
}
