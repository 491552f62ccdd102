// SPDX-License-Identifier: GPL-3.0-or-later
//! A slot's mark: how the watchdog, which has reported a callback, learns when that callback returned.
//!
//! The watchdog leaves the time at which the callback began. The thread, when a callback has returned,
//! compares the mark with when that one began; if they are the same, it replaces the mark by the time of the
//! return. Only then does it say in its slot that the callback is over. So when the watchdog finds there that
//! the callback is over, the thread has looked at the mark for the last time, and the watchdog may take it.
//!
//! The race: the watchdog leaves the mark just as the callback returns, and the thread has looked before.
//! Then the mark is as the watchdog has left it. The thread's later callbacks began at other times, so they
//! leave it alone.

use std::sync::atomic::{AtomicU64, Ordering};

/// A word that both change. Models have one of their own.
pub(crate) trait Word {
    fn load(&self, order: Ordering) -> u64;
    fn store(&self, value: u64, order: Ordering);
    fn swap(&self, value: u64, order: Ordering) -> u64;
}

macro_rules! is_word {
    ($atomic:ty) => {
        impl Word for $atomic {
            #[inline(always)]
            fn load(&self, order: Ordering) -> u64 {
                <$atomic>::load(self, order)
            }

            #[inline(always)]
            fn store(&self, value: u64, order: Ordering) {
                <$atomic>::store(self, value, order);
            }

            #[inline(always)]
            fn swap(&self, value: u64, order: Ordering) -> u64 {
                <$atomic>::swap(self, value, order)
            }
        }
    };
}

is_word!(AtomicU64);
#[cfg(loom)]
is_word!(loom::sync::atomic::AtomicU64);

/// See the module. 0 for none.
#[repr(transparent)]
pub(crate) struct Mark<W>(pub(crate) W);

/// A bit that no time has: the callback is over, and the rest is when it returned.
const OVER: u64 = 1 << 63;

impl<W: Word> Mark<W> {
    /// The watchdog has reported the callback that began at `since`.
    pub(crate) fn set(&self, since: u64) {
        self.0.store(since, Ordering::Release);
    }

    /// The thread's callback that began at `since` has returned. True if the watchdog waits for that.
    #[inline(always)]
    pub(crate) fn returned(&self, since: u64, now: impl FnOnce() -> u64) -> bool {
        self.0.load(Ordering::Acquire) == since && {
            self.0.store(now() | OVER, Ordering::Release);
            true
        }
    }

    /// The watchdog has found that the callback that it reported is over. Returns when that returned, if its
    /// thread has seen the mark.
    pub(crate) fn take_end(&self) -> Option<u64> {
        let mark = self.0.swap(0, Ordering::AcqRel);
        (mark & OVER != 0).then_some(mark & !OVER)
    }
}
