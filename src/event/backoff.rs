// SPDX-License-Identifier: GPL-3.0-or-later
//! Pauses that double, and what is put off by them: descriptors, and a new poller.

use std::collections::VecDeque;

use libc::c_int;

/// The first pause, and the longest, in nanoseconds.
pub(super) const FIRST: u64 = 1_000_000;
const LAST: u64 = 1_000_000_000;

/// Pauses that double.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff(pub(super) u64);

impl Backoff {
    /// Nothing was tried yet.
    pub(super) const fn new() -> Self {
        Self(0)
    }

    /// The next pause, in nanoseconds.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = (self.0 * 2).clamp(FIRST, LAST);
        self.0
    }

    /// Whether the longest pause was reached.
    pub(super) fn is_longest(self) -> bool {
        self.0 == LAST
    }
}

/// Descriptors to come back to.
pub(super) struct Later {
    /// Those that were refused in this period.
    pub(super) refused: VecDeque<c_int>,
    pub(super) backoff: Backoff,
    /// There was no memory to list one that was refused: it is to be looked for.
    pub(super) unlisted: bool,
    /// Those whose jobs were armed again without a word to the poller.
    pub(super) unheard: VecDeque<c_int>,
    /// When those are to be looked at, in nanoseconds of the monotonic clock; `u64::MAX`: never. Not
    /// a timer in the wheel: with one, each turn of a busy loop would look at the clock.
    pub(super) look: u64,
}

impl Later {
    pub(super) const fn new() -> Self {
        Self {
            refused: VecDeque::new(),
            backoff: Backoff::new(),
            unlisted: false,
            unheard: VecDeque::new(),
            look: u64::MAX,
        }
    }
}

/// Why a poller is to be made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stale {
    /// It has a registration that can't be named any more.
    Registration,
    /// It does not work.
    Broken,
    /// The wake pipe is gone.
    Wake,
}

/// How the poller comes to be made anew.
pub(super) struct Renewal {
    /// It is to be, and could not be, for this reason.
    pub(super) pending: Option<Stale>,
    pub(super) backoff: Backoff,
    /// When it is tried again.
    pub(super) next: u64,
    /// Trouble that comes before then belongs to what was logged.
    pub(super) calm: u64,
    /// Whether the old poller's numbers are its own to close, once that was asked: a number that
    /// was closed behind our back may stand for something of the application's.
    pub(super) sound: Option<bool>,
}

impl Renewal {
    pub(super) const fn new() -> Self {
        Self {
            pending: None,
            backoff: Backoff::new(),
            next: 0,
            calm: 0,
            sound: None,
        }
    }

    /// Whether the poller that is there does not serve.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether trouble that comes at `now` is new. If so, the back-off begins anew.
    pub(super) fn is_new(&mut self, now: u64) -> bool {
        let new = now >= self.calm;
        if new {
            self.backoff = Backoff::new();
        }
        self.calm = now + 2 * LAST;
        new
    }
}
