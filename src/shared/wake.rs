// SPDX-License-Identifier: GPL-3.0-or-later
//! Waking the loop.

use std::sync::atomic::Ordering;

use super::Shared;
use crate::log::log;

impl Shared {
    /// Makes the loop look at the pool's life cycle.
    pub(crate) fn nudge(&self) {
        self.wake.nudged.swap(true, Ordering::SeqCst);
        self.wake_loop();
    }

    /// Wakes the loop if it sleeps. Not for use in a signal handler.
    pub(crate) fn wake_loop(&self) {
        if self.wake.sleeping.take() {
            self.write_wake();
        }
    }

    /// Writes the byte that wakes the loop. The caller has cleared the sleeping flag.
    #[cold]
    #[inline(never)]
    fn write_wake(&self) {
        self.wakes.fetch_add(1, Ordering::Relaxed);
        if !self.wake.write(self) {
            self.wake.nudged.store(true, Ordering::SeqCst);
            self.rouse_loop();
        }
    }

    /// Interrupts the loop's wait when the wake pipe is closed: the application has closed the
    /// pool's descriptors.
    fn rouse_loop(&self) {
        let rouse = || self.wake.rouse.rouse();
        let roused = match &self.caller {
            None => rouse(),
            // If nobody is inside, the next who comes looks.
            Some(caller) => caller.while_inside(rouse).unwrap_or(true),
        };
        // Without the lock that keeps a thread inside: the logger is the application's.
        if !roused && !self.wake.hopeless.swap(true, Ordering::SeqCst) {
            log!(
                self.logger,
                LOG_CRIT,
                "the application has closed the pool's descriptors, and its loop sleeps: every \
                 signal that could wake it is blocked or in use"
            );
        }
    }
}
