// SPDX-License-Identifier: GPL-3.0-or-later
//! Exponential back-off, and the two things that use it: descriptors to retry, and the replacement
//! of the poller.

use std::collections::VecDeque;

use libc::c_int;

/// The shortest and the longest pause, in nanoseconds.
pub(super) const FIRST: u64 = 1_000_000;
const LAST: u64 = 1_000_000_000;

/// Pauses that double from [`FIRST`] to [`LAST`]. The field is the last pause; 0 means none yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff(pub(super) u64);

impl Backoff {
    /// The state before the first try.
    pub(super) const fn new() -> Self {
        Self(0)
    }

    /// The next pause, in nanoseconds.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = (self.0 * 2).clamp(FIRST, LAST);
        self.0
    }

    /// Whether the pause has grown to the longest.
    pub(super) fn is_longest(self) -> bool {
        self.0 == LAST
    }
}

/// Descriptors that the loop must retry or check.
pub(super) struct Later {
    /// Descriptors that the poller refused in this period of refusals.
    pub(super) refused: VecDeque<c_int>,
    pub(super) backoff: Backoff,
    /// A refused descriptor could not be listed for want of memory: the next retry must search the
    /// table for it.
    pub(super) unlisted: bool,
    /// Descriptors whose jobs were armed again without telling the poller.
    pub(super) unheard: VecDeque<c_int>,
    /// When to check `unheard`, in nanoseconds of the monotonic clock; `u64::MAX` means never. This
    /// is not a timer in the wheel: with one, each turn of a busy loop would read the clock.
    pub(super) check_at: u64,
}

impl Later {
    pub(super) const fn new() -> Self {
        Self {
            refused: VecDeque::new(),
            backoff: Backoff::new(),
            unlisted: false,
            unheard: VecDeque::new(),
            check_at: u64::MAX,
        }
    }
}

/// Why the loop must replace its poller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stale {
    /// It holds a registration that no descriptor number names any more.
    Registration,
    /// Waiting on it fails.
    Broken,
    /// The application closed the wake pipe.
    Wake,
}

/// The state of the poller's replacement.
pub(super) struct Renewal {
    /// The poller must be replaced for this reason, but the last try failed.
    pub(super) pending: Option<Stale>,
    pub(super) backoff: Backoff,
    /// When to try again, in nanoseconds of the monotonic clock.
    pub(super) next: u64,
    /// A failure before this time belongs to an incident that is already in the log.
    pub(super) incident_end: u64,
    /// Whether the old poller still owns its descriptor numbers; `None` until somebody has checked.
    /// If the application closed them, a number may now refer to a file of the application's, and
    /// we must not close it.
    pub(super) sound: Option<bool>,
}

impl Renewal {
    pub(super) const fn new() -> Self {
        Self {
            pending: None,
            backoff: Backoff::new(),
            next: 0,
            incident_end: 0,
            sound: None,
        }
    }

    /// Whether the current poller is unusable and could not be replaced yet.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether a failure at `now` begins a new incident. If so, the back-off starts again.
    pub(super) fn is_new(&mut self, now: u64) -> bool {
        let new = now >= self.incident_end;
        if new {
            self.backoff = Backoff::new();
        }
        self.incident_end = now + 2 * LAST;
        new
    }
}
