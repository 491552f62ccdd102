// SPDX-License-Identifier: GPL-3.0-or-later
//! Time limits on the steps of a turn.

use crate::sys;

/// A step that has taken this many nanoseconds starts no further callback.
const SLICE: u64 = 500_000;
/// If callbacks are quick, the clock is read once in this many calls. A callback is quick if a
/// slice has time for this many of its length.
const CHECK_EVERY: usize = 8;

/// How much of its slice a step of the turn has used for application code.
pub(crate) struct Slice {
    begin: u64,
    calls: usize,
    /// The call after which to read the clock.
    next_check: usize,
}

impl Slice {
    /// Start a slice now.
    pub(crate) fn new() -> Self {
        Self {
            begin: sys::now(),
            calls: 0,
            next_check: 1,
        }
    }

    /// Count a call, and return whether the slice is used up. The clock is read after each slow
    /// call, but only now and then while all calls are quick.
    pub(crate) fn is_over(&mut self) -> bool {
        self.calls += 1;
        if self.calls < self.next_check {
            return false;
        }
        let took = sys::now() - self.begin;
        let quick = took < self.calls as u64 * (SLICE / CHECK_EVERY as u64);
        self.next_check = self.calls + if quick { CHECK_EVERY } else { 1 };
        took > SLICE
    }

    /// Whether the slice is used up, by the clock. If there is no slice yet, start one.
    #[cold]
    #[inline(never)]
    pub(crate) fn is_late(slice: &mut Option<Self>) -> bool {
        let begin = slice.get_or_insert_with(Self::new).begin;
        sys::now() - begin > SLICE
    }
}
