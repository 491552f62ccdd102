// SPDX-License-Identifier: GPL-3.0-or-later
//! The time that one step of a turn may take.

use crate::sys;

/// Nanoseconds after which a turn runs no further callbacks, but looks what else there is.
const SLICE: u64 = 500_000;
/// Callbacks between two looks at the clock, if they are quick: a slice would be enough for as
/// many.
const CHECK_EVERY: usize = 8;

/// The time that code of the application's may take of a turn.
pub(crate) struct Slice {
    begin: u64,
    calls: usize,
    /// The call after which the clock is looked at.
    next_check: usize,
}

impl Slice {
    /// It begins now.
    pub(crate) fn new() -> Self {
        Self {
            begin: sys::now(),
            calls: 0,
            next_check: 1,
        }
    }

    /// After a call: whether that was enough. The clock is looked at after each slow one, but now
    /// and then only if all are quick.
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

    /// Whether that was enough, now. If there is none, one begins.
    #[cold]
    #[inline(never)]
    pub(crate) fn is_late(slice: &mut Option<Self>) -> bool {
        let begin = slice.get_or_insert_with(Self::new).begin;
        sys::now() - begin > SLICE
    }
}
