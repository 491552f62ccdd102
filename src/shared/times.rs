// SPDX-License-Identifier: GPL-3.0-or-later
//! The steps of a pool that reads the clock for each callback: it has a watchdog, or measures times, or
//! both.

use super::Shared;
use crate::stats::{Slot, Times};

impl Shared {
    /// The times of the loop, if they are measured.
    pub(crate) fn loop_times(&self) -> Option<&Times> {
        self.slots.times_of(self.slots.of_loop())
    }

    /// The loop is about to wait for events. Unless it `sleeps`, it only asks for them.
    #[cold]
    #[inline(never)]
    pub(crate) fn before_wait(&self, sleeps: bool) {
        if let Some(times) = self.loop_times() {
            times.wait(sleeps);
        }
    }

    /// It has waited.
    #[cold]
    #[inline(never)]
    pub(crate) fn after_wait(&self) {
        if let Some(times) = self.loop_times() {
            times.waited();
        }
        if self.watchdog.is_on() {
            self.watchdog.woke();
        }
    }

    /// The calling thread is the loop from now on.
    pub(crate) fn loop_begins(&self) {
        if let Some(times) = self.loop_times() {
            times.enter();
        }
    }

    /// It is the loop no more, or has nothing more to run.
    pub(crate) fn loop_ends(&self) {
        if let Some(times) = self.loop_times() {
            times.leave();
        }
    }

    /// A thread of the application's is the loop for a turn.
    #[cold]
    #[inline(never)]
    pub(crate) fn turn_begins(&self) {
        self.loop_begins();
        if self.watchdog.is_on() {
            self.watchdog.woke();
        }
    }

    /// The worker with this slot has slept.
    #[cold]
    #[inline(never)]
    pub(crate) fn worker_woke(&self, slot: &Slot) {
        self.pause(slot);
        if self.watchdog.is_on() {
            self.watchdog.woke();
        }
    }

    /// The thread with this slot has done something that takes its time. The next callback does not begin
    /// when the last one returned.
    pub(crate) fn pause(&self, slot: &Slot) {
        if let Some(times) = self.slots.times_of(slot) {
            times.pause();
        }
    }
}
