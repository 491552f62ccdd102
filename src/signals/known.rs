// SPDX-License-Identifier: GPL-3.0-or-later
//! What the process knows of each signal: the disposition that was there before ours.

use std::sync::atomic::{AtomicBool, Ordering};

use libc::c_int;

use super::disposition::{Disposition, WORDS, put_back};
use super::latch::Latch;
#[cfg(not(loom))]
use super::numbers::NUMBERS;
use crate::perturb::perturb;

/// What the process knows of one signal, whatever becomes of pools: for handlers and children.
pub(super) struct Signal {
    known: Latch<{ 2 * WORDS }>,
    /// Somebody has put a handler in the place of ours while a job watched. It may have saved ours,
    /// and go on to it; so may all that come after it, until none is there. Under the lock.
    covered: AtomicBool,
}

#[derive(Clone, Copy)]
pub(super) struct Known {
    /// What stood there before the first job: put back with the last one.
    pub(super) earlier: Disposition,
    /// The same, unless that is a handler that came after ours and may go on to it: then what was
    /// there before both.
    pub(super) below: Disposition,
}

impl Signal {
    #[cfg(not(loom))]
    const fn new() -> Self {
        Self {
            known: Latch::new(),
            covered: AtomicBool::new(false),
        }
    }

    /// Async-signal-safe.
    pub(super) fn read(&self) -> Option<Known> {
        let words = self.known.read()?;
        Some(Known {
            earlier: Disposition(std::array::from_fn(|word| words[word])),
            below: Disposition(std::array::from_fn(|word| words[WORDS + word])),
        })
    }

    /// `found` is there, before the first job. Under the lock.
    fn learn(&self, found: &Disposition) {
        let mut below = *found;
        if !found.is_function() {
            self.covered.store(false, Ordering::Relaxed);
        } else if self.covered.load(Ordering::Relaxed) {
            below = self.read().map_or(below, |known| known.below);
        }
        let words = [found.0, below.0];
        self.known.write(std::array::from_fn(|word| {
            words[word / WORDS][word % WORDS]
        }));
    }

    /// Have our handler in place: for the first job of the process, or for a further one. `None` if
    /// the system refuses.
    pub(super) fn install(&self, signum: c_int, first: bool) -> Option<()> {
        if !first {
            // What others have put there meanwhile, for good or for a while, is not what was there
            // before.
            return Disposition::ours().set(signum).map(|_| ());
        }
        let found = Disposition::of(signum)?;
        // Beforehand, for signals, and for children, behind the next step.
        if !found.is_ours() {
            self.learn(&found);
        }
        perturb("noted what is there, and ours is not in place");
        let found = Disposition::ours().set(signum)?;
        if !found.is_ours() {
            self.learn(&found);
        }
        Some(())
    }

    /// With the last job: put back what was there, unless somebody else has changed it.
    pub(super) fn uninstall(&self, signum: c_int) {
        let Some(known) = self.read() else { return };
        if !put_back(signum, &known.earlier)
            && Disposition::of(signum).is_some_and(|now| now.is_function())
        {
            self.covered.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(not(loom))]
pub(super) static SIGNALS: [Signal; NUMBERS] = [const { Signal::new() }; NUMBERS];

// A model's, made anew in each execution; none looks at it.
#[cfg(loom)]
loom::lazy_static! {
    pub(super) static ref SIGNALS: Vec<Signal> = Vec::new();
}
