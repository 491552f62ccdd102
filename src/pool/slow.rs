// SPDX-License-Identifier: GPL-3.0-or-later
//! What the watchdog knows of a thread: the callback that it has reported, until that has returned.

use libc::c_int;

use crate::stats::{Call, Slot};
use crate::sys;

/// A callback that was reported, and when it was seen last.
#[derive(Clone, Copy)]
struct Slow {
    call: Call,
    seen: u64,
    /// The number of its thread, which may have left when it is over.
    thread: c_int,
}

/// What the watchdog knows of one thread. All zero is a valid value: nothing.
pub(super) struct Known {
    /// Whether there is one.
    reported: bool,
    slow: Slow,
}

/// What there is to report.
pub(super) struct Report {
    pub(super) call: Call,
    pub(super) thread: c_int,
    pub(super) ns: u64,
    pub(super) ended: bool,
}

impl Known {
    /// Looks at a thread. Returns a report, if there is one, and when to look again.
    pub(super) fn look(&mut self, slot: &Slot, slow: u64) -> (Option<Report>, u64) {
        // Before the slot: a callback that is found there ran at that time.
        let now = sys::now();
        let call = slot.call();
        if self.reported {
            if call.is_some_and(|call| call.is(&self.slow.call)) {
                self.slow.seen = now;
                return (None, now + slow);
            }
            let Slow { call, seen, thread } = self.slow;
            self.reported = false;
            // After the look at the callback: it is over, so its thread has looked at the mark.
            let end = slot.mark().take_end().unwrap_or(seen);
            let ns = end.saturating_sub(call.since);
            let ended = true;
            return (
                Some(Report {
                    call,
                    thread,
                    ns,
                    ended,
                }),
                now,
            );
        }
        match call {
            Some(call) if call.since != 0 && call.since + slow <= now => {
                slot.mark().set(call.since);
                let (seen, thread) = (now, slot.thread());
                self.slow = Slow { call, seen, thread };
                self.reported = true;
                let (ns, ended) = (now - call.since, false);
                (
                    Some(Report {
                        call,
                        thread,
                        ns,
                        ended,
                    }),
                    now + slow,
                )
            }
            Some(call) if call.since != 0 => (None, call.since + slow),
            _ => (None, u64::MAX),
        }
    }
}
