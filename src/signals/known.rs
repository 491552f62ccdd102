// SPDX-License-Identifier: GPL-3.0-or-later
//! What the process knows about each signal: the disposition that was in place before ours.

use std::sync::atomic::{AtomicBool, Ordering};

use libc::c_int;

use super::disposition::{Disposition, WORDS, put_back};
use super::latch::Latch;
#[cfg(not(loom))]
use super::numbers::NUMBERS;
use crate::perturb::perturb;

/// What the process knows about one signal. It outlives every pool, because handlers and forked
/// children read it.
pub(super) struct Signal {
    known: Latch<{ 2 * WORDS }>,
    /// Another handler replaced ours while a job watched. It may have saved ours and may call it;
    /// so may every handler installed later, until no handler is in place. Protected by the lock.
    covered: AtomicBool,
}

#[derive(Clone, Copy)]
pub(super) struct Known {
    /// The disposition that was in place before the first job. The last job restores it.
    pub(super) earlier: Disposition,
    /// The same, unless `earlier` is a handler that was installed after ours and may call ours.
    /// Then it is the disposition that was in place before both.
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

    /// Record `found`, the disposition in place before the first job. The caller holds the lock.
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

    /// Install our handler. `first`: for the first job of the process that watches the signal.
    /// `None` if the system refuses.
    pub(super) fn install(&self, signum: c_int, first: bool) -> Option<()> {
        if !first {
            // Other code may have installed a handler since, permanently or for a while. It is not
            // the earlier disposition.
            return Disposition::ours().set(signum).map(|_| ());
        }
        let found = Disposition::of(signum)?;
        // Record it before the next step, for signals that arrive and children that are forked
        // right after that step.
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

    /// The last job has gone: restore the earlier disposition, unless other code has changed it.
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

// A model makes it anew in each execution; no model reads it.
#[cfg(loom)]
loom::lazy_static! {
    pub(super) static ref SIGNALS: Vec<Signal> = Vec::new();
}
