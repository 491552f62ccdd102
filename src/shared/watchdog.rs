// SPDX-License-Identifier: GPL-3.0-or-later
//! The watchdog's part that all threads of a pool see: how it learns when a callback begins, and when one
//! that it has reported returns. The watchdog itself is in `pool/watchdog.rs`.
//!
//! In a pool with a watchdog, a thread notes in its slot when a callback begins. The watchdog looks at the
//! slots when the earliest of these times is long enough ago. While every thread of the pool sleeps, so does
//! the watchdog, without a time. The race: a thread wakes, and runs a callback, just as the watchdog goes to
//! sleep. The watchdog says that it sleeps and then looks whether a thread is awake; a thread says that it is
//! awake, then looks whether the watchdog sleeps, and rings. With a fence between the two steps on both
//! sides, at least one sees the other. Each sleep takes at most one ring.
//!
//! A callback that was reported is to be reported again when it has returned. For that there is a
//! [mark](crate::stats::mark) in the slot. A thread that finds it rings. If it has looked before the watchdog
//! left the mark, nobody rings, and the watchdog finds at its next look that the callback is over; the
//! callback has taken until the last look, at least.

use libc::c_void;

use crate::perturb::perturb;
use crate::stats::Slot;
use crate::sync::{AtomicBool, Ordering, Semaphore, fence};
use crate::sys;

/// See the module.
pub(crate) struct Watchdog {
    /// After how many nanoseconds a callback is slow; 0 if there is no watchdog.
    pub(crate) slow: u64,
    /// The watchdog sleeps until a thread of the pool wakes.
    asleep: AtomicBool,
    /// The pool is being destroyed.
    stop: AtomicBool,
    rings: Semaphore,
}

impl Watchdog {
    /// The watchdog of a pool; for 0, of one that has none.
    pub(crate) fn new(slow: u64) -> Self {
        Self {
            slow,
            asleep: AtomicBool::new(false),
            stop: AtomicBool::new(false),
            rings: Semaphore::new(),
        }
    }

    /// Whether there is a watchdog.
    #[inline(always)]
    pub(crate) fn is_on(&self) -> bool {
        self.slow != 0
    }

    /// The calling thread has woken, and said so.
    #[cold]
    #[inline(never)]
    pub(crate) fn woke(&self) {
        fence(Ordering::SeqCst);
        perturb("awake, and the watchdog not told");
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::AcqRel) {
            self.rings.post();
        }
    }

    /// The watchdog sleeps until a thread wakes. `all_sleep` says whether every thread sleeps; if not, this
    /// returns false at once.
    pub(crate) fn sleep(&self, all_sleep: impl FnOnce() -> bool) -> bool {
        self.asleep.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        perturb("said to sleep, and not looked once more");
        if !all_sleep() && self.asleep.swap(false, Ordering::AcqRel) {
            return false;
        }
        // A thread that was quicker has rung.
        self.rings.wait();
        true
    }

    /// The watchdog sleeps until `deadline`, or until something rings.
    pub(crate) fn sleep_until(&self, deadline: u64) {
        self.rings.wait_until(deadline);
    }

    /// Something has happened that the watchdog waits for.
    pub(crate) fn ring(&self) {
        self.rings.post();
    }

    /// The watchdog is to end.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.rings.post();
    }

    /// Whether it is to end.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Calls `call`, a callback or done callback of a job with this data, and notes when it begins. `begin`
    /// notes which it is, and `end` that it is over.
    #[cold]
    #[inline(never)]
    pub(crate) fn timed(
        &self,
        slot: &Slot,
        data: *mut c_void,
        begin: impl FnOnce(),
        call: impl FnOnce(),
        end: impl FnOnce(),
    ) {
        let since = sys::now();
        slot.begin_at(since, data);
        begin();
        call();
        perturb("returned, and the mark not looked at");
        if slot.mark().returned(since, sys::now) {
            self.ring();
        }
        end();
    }
}
