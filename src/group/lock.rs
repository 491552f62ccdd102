// SPDX-License-Identifier: GPL-3.0-or-later
//! A lock of one byte: there may be a hundred thousand groups, and a lock of the C library's takes
//! 40 bytes in each.
//!
//! A thread that finds it held spins briefly, then sleeps in the pool's table of waiters. So a
//! thread of a higher priority spins only briefly against the one that holds the lock. It is held
//! for a few dozen instructions, never while the application's code runs.
//!
//! The race that it survives: a thread finds the lock held and is about to sleep, while the holder
//! unlocks and finds no thread asleep. The thread first marks the lock as waited for, and looks at
//! the mark once more under the table's lock. The holder takes the table's lock after it has
//! cleared the mark.

use crate::job::wait::Waiters;
use crate::perturb::perturb;
use crate::sync::{AtomicU8, Ordering, spin_loop};
use crate::sys::CancelGuard;

const FREE: u8 = 0;
const HELD: u8 = 1;
/// Held, and a thread may sleep until it is free.
const WAITED: u8 = 2;

/// How often a thread looks before it goes to sleep. In models, once.
const SPINS: usize = if cfg!(loom) { 1 } else { 100 };

/// See the module.
pub(super) struct Lock(AtomicU8);

impl Lock {
    pub(super) fn new() -> Self {
        Self(AtomicU8::new(FREE))
    }

    /// Take the lock. If another thread holds it for long, sleep in `waiters`.
    #[inline(always)]
    pub(super) fn lock(&self, waiters: &Waiters) {
        if !self.try_lock() {
            self.lock_slowly(waiters);
        }
    }

    fn try_lock(&self) -> bool {
        self.0
            .compare_exchange(FREE, HELD, Ordering::Acquire, Ordering::Relaxed)
            .is_ok()
    }

    /// Woken by: [`Lock::unlock`].
    #[cold]
    #[inline(never)]
    fn lock_slowly(&self, waiters: &Waiters) {
        for _ in 0..SPINS {
            if self.0.load(Ordering::Relaxed) == FREE && self.try_lock() {
                return;
            }
            spin_loop();
        }
        let _cancel = CancelGuard::new();
        // A thread that takes the lock here leaves the mark, since others may sleep.
        while self.0.swap(WAITED, Ordering::Acquire) != FREE {
            perturb("marked a group's lock as waited for, and not asleep");
            waiters.park(self, || self.0.load(Ordering::Relaxed) == WAITED);
        }
    }

    /// Release the lock. As soon as it is free, another thread may free it and what it protects:
    /// from then on this uses only `waiters`.
    #[inline(always)]
    pub(super) fn unlock(&self, waiters: &Waiters) {
        let at: *const Self = self;
        if self.0.swap(FREE, Ordering::Release) == WAITED {
            perturb("a group's lock is free, and nobody is woken");
            waiters.unpark(at);
        }
    }
}
