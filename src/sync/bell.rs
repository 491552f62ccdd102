// SPDX-License-Identifier: GPL-3.0-or-later
//! Lists of sleeping threads that are all woken at once.
//!
//! Each thread sleeps on a semaphore of its own. Unlike a condition variable, a semaphore lets the thread
//! out when a signal handler has run, and a thread may be on several lists, each under another lock.

use std::cell::Cell;
use std::ptr;

use super::Semaphore;

/// A thread that sleeps, or is about to. It is on that thread's stack; the lock of the list guards it.
pub(crate) struct Bell {
    /// Of the same thread, and lives as long.
    rings: *const Semaphore,
    next: Cell<*const Bell>,
}

impl Bell {
    /// A bell that rings `rings`. The caller takes it off each list before either goes away.
    pub(crate) fn new(rings: &Semaphore) -> Self {
        Self {
            rings,
            next: Cell::new(ptr::null()),
        }
    }
}

/// A list of bells, behind a lock.
pub(crate) struct Bells(*const Bell);

// SAFETY: the bells are those of threads that wait, and are used only under the lock that guards the list.
unsafe impl Send for Bells {}

impl Bells {
    /// An empty list.
    pub(crate) const fn new() -> Self {
        Self(ptr::null())
    }

    /// Put `bell`, which does not move from here on, on the list.
    pub(crate) fn add(&mut self, bell: &Bell) {
        bell.next.set(self.0);
        self.0 = bell;
    }

    /// Take `bell` off the list, if it is there.
    pub(crate) fn remove(&mut self, bell: &Bell) {
        if ptr::eq(self.0, bell) {
            self.0 = bell.next.get();
            return;
        }
        let mut at = self.0;
        while !at.is_null() {
            // SAFETY: a bell in the list belongs to a thread that waits until it has taken it off.
            let other = unsafe { &*at };
            at = other.next.get();
            if ptr::eq(at, bell) {
                other.next.set(bell.next.get());
                return;
            }
        }
    }

    /// Wake every thread on the list.
    pub(crate) fn ring(&self) {
        let mut at = self.0;
        while !at.is_null() {
            // SAFETY: a thread takes its bell off the list under the lock, which the caller holds; the
            // semaphore outlives the bell.
            let bell = unsafe { &*at };
            // SAFETY: as above.
            unsafe { &*bell.rings }.post();
            at = bell.next.get();
        }
    }
}
