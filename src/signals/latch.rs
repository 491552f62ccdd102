// SPDX-License-Identifier: GPL-3.0-or-later
//! Several words that a signal handler can read whole, whoever is writing them.
//!
//! There are two places. The writer fills the one that is not in use, and then says that it is. So
//! a handler always finds one that is whole; so does a forked child, at whichever step of the
//! writer's it begins. A reader looks again only if a second write has come to the place that it
//! was reading: it waits for nobody.

use crate::perturb::perturb;
use crate::sync::{AtomicUsize, Ordering, fence};

/// See the module.
pub(crate) struct Latch<const N: usize> {
    /// How often it was written; the place in use is this modulo two. Zero: never.
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

    /// What was written last, if anything was. Async-signal-safe.
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

    /// Have `words` read from now on. One writer at a time.
    pub(crate) fn write(&self, words: [usize; N]) {
        // Past the end it goes on at 2: even as zero is, and not zero.
        let turn = self.turn.load(Ordering::Relaxed);
        let next = turn.checked_add(1).unwrap_or(2);
        // Who reads one of the words below sees that the place he took them from is not in use.
        fence(Ordering::Release);
        for (at, word) in self.places[next % 2].iter().zip(words) {
            at.store(word, Ordering::Relaxed);
        }
        perturb("written, and the place not in use");
        self.turn.store(next, Ordering::Release);
    }
}
