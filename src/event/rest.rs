// SPDX-License-Identifier: GPL-3.0-or-later
//! Jobs that are armed, and begin to watch for their trigger after a delay.
//!
//! A resting job is in the wheel and may not fire. The poller and the list of signal jobs know it from
//! before or not at all. It is disposed of as any armed job.

use super::event_loop::EventLoop;
use crate::job::{JobPtr, Kind, note};
use crate::shared::Shared;
use crate::sys;
use crate::timers::Wheel;

impl EventLoop {
    /// `job`, which is not like most, is ARMED. True if it rests first, so that it is not to be armed
    /// here yet.
    pub(super) fn lay_to_rest(&mut self, pool: &Shared, job: JobPtr) -> bool {
        let delayed = job.is_delayed();
        if !delayed && !job.is_changed() {
            return false;
        }
        job.settle();
        // Its new time may be earlier than that by which it is linked.
        Wheel::remove(&job.trigger_part().timer);
        if !delayed {
            return false;
        }
        job.rest();
        if job.kind() == Kind::Io && job.is(note::ATTACHED) && !job.is(note::ORPHAN) {
            // Nobody waits for it meanwhile.
            self.sync(pool, job.fd());
        }
        if self.wheel.is_empty() {
            self.wheel.restart(sys::now());
        }
        // SAFETY: just unlinked; the job does not move, and `dispose` unlinks the timer.
        unsafe { self.wheel.insert(job.timer()) };
        true
    }

    /// The delay of `job` is over: it waits for its trigger from now on.
    #[cold]
    #[inline(never)]
    pub(super) fn end_rest(&mut self, pool: &Shared, job: JobPtr) {
        if job.has_timer() {
            job.restart(sys::now());
        }
        self.watch(pool, job);
    }
}
