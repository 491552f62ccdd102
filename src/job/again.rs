// SPDX-License-Identifier: GPL-3.0-or-later
//! Jobs that are armed again in another way than before: after a delay, for other directions, with
//! another time; and those that fire at a fixed cadence.
//!
//! A thread that arms a job so first claims it ([`State::claim`](super::state::State::claim)), then
//! writes here what is to be, then arms it. So of threads that arm one job at once only one writes.
//!
//! A *delay* is in the timer's deadline, which nothing else needs meanwhile: as the time at which it is
//! over or, if the job's own callback asked for it, as a length, with [`LENGTH`] set, until the callback
//! returns. The loop takes the job, links its timer, and marks the job as *resting*: its link to the next
//! ready job points to itself. When the time comes, the job is armed as ever.

use super::{Job, JobPtr, Kind, NEVER, here, note};
use crate::abi::{NS_JOB_IO, NS_JOB_TIMER, ns_job_type_t};
use crate::sys;

/// In a deadline: it is a length. The monotonic clock does not come so far.
const LENGTH: u64 = 1 << 63;

/// How a job is armed that is not armed as before. What is `None` stays as it is.
#[derive(Clone, Copy)]
pub(crate) struct Again {
    /// Nanoseconds until the job begins to watch for its trigger.
    pub(crate) delay: Option<u64>,
    /// The directions of its descriptor.
    pub(crate) directions: Option<ns_job_type_t>,
    /// Its time, in nanoseconds, or [`NEVER`].
    pub(crate) timeout: Option<u64>,
}

/// What a job was like before.
pub(crate) struct Before {
    flags: ns_job_type_t,
    timeout: u64,
}

impl JobPtr {
    /// Changes the job to what `again` says. The caller has claimed it. `own`: in its own callback. The
    /// result is for [`JobPtr::restore`].
    pub(crate) fn change(self, again: Again, own: bool, now: u64) -> Before {
        let part = self.trigger_part();
        let before = Before {
            flags: self.flags(),
            timeout: part.timeout.get(),
        };
        if let Some(delay) = again.delay {
            let delay = delay.min(LENGTH - 1);
            let deadline = if own {
                delay | LENGTH
            } else {
                now.saturating_add(delay).min(LENGTH - 1)
            };
            part.timer.set_deadline(deadline);
            self.flags.set_delayed();
            return before;
        }
        let (mut old, mut new) = (0, 0);
        if let Some(directions) = again.directions {
            (old, new) = (NS_JOB_IO, directions);
        }
        if let Some(timeout) = again.timeout {
            part.timeout.set(timeout);
            if before.flags & NS_JOB_IO != 0 {
                old |= NS_JOB_TIMER;
                new |= if timeout == NEVER { 0 } else { NS_JOB_TIMER };
            }
        }
        self.flags.set_changed(old, new);
        before
    }

    /// The job could not be armed: undoes [`JobPtr::change`]. The caller still has it claimed.
    pub(crate) fn restore(self, before: &Before) {
        self.trigger_part().timeout.set(before.timeout);
        self.flags.set_changed(
            NS_JOB_IO | NS_JOB_TIMER,
            before.flags & (NS_JOB_IO | NS_JOB_TIMER),
        );
        self.flags.settle();
    }

    /// The job fires at `now`. With a cadence, periods that were missed until now are this firing.
    #[cold]
    #[inline(never)]
    pub(crate) fn skip_missed(self, now: u64) {
        if !self.look().is_cadence() {
            return;
        }
        let part = self.trigger_part();
        let (deadline, interval) = (part.timer.deadline(), part.timeout.get());
        let missed = now.saturating_sub(deadline) / interval;
        part.timer.set_deadline(deadline + missed * interval);
    }

    /// The callback has returned, and the job is armed again: its timer starts now, if it has one.
    #[inline(always)]
    pub(crate) fn restart_after_run(self) {
        let look = self.look_in_hand();
        if look.kind() == Kind::Now {
        } else if look.is_unusual() {
            self.restart_unusual(sys::now());
        } else if self.trigger_has_timer() {
            self.restart(sys::now());
        }
    }

    #[cold]
    #[inline(never)]
    fn restart_unusual(self, now: u64) {
        let part = self.trigger_part();
        let deadline = part.timer.deadline();
        let look = self.look();
        if here::on_loop_of(self.pool_as_c()) && (look.is_delayed() || look.is_changed()) {
            // The loop is not to take it for a job that waits for the same as before.
            self.unmark(note::UNVERIFIED);
        }
        if look.is_delayed() {
            if deadline & LENGTH != 0 {
                let over = now.saturating_add(deadline & !LENGTH);
                part.timer.set_deadline(over.min(LENGTH - 1));
            }
        } else if !self.trigger_has_timer() {
        } else if look.is_cadence() && !look.is_changed() {
            let interval = part.timeout.get();
            // Periods that were missed are one firing, which is due at once.
            let periods = (now.saturating_sub(deadline) / interval).max(1);
            part.timer
                .set_deadline(deadline.saturating_add(periods.saturating_mul(interval)));
        } else {
            self.restart(now);
        }
    }

    /// Marks the job as resting. It is in no ready list.
    pub(crate) fn rest(self) {
        self.trigger_part().next_ready.set(Some(self));
    }

    /// Whether the job is resting.
    pub(crate) fn is_resting(self) -> bool {
        self.trigger_part().next_ready.get() == Some(self)
    }
}

impl Job {
    /// Whether the job begins to watch for its trigger after a delay, which has not begun.
    pub(crate) fn is_delayed(&self) -> bool {
        self.look().is_delayed()
    }

    /// Whether the job waits for something else than when it was last armed.
    pub(crate) fn is_changed(&self) -> bool {
        self.look().is_changed()
    }

    /// Whether the job's firings are so many intervals after it was armed.
    pub(crate) fn is_cadence(&self) -> bool {
        self.look().is_cadence()
    }

    /// The loop knows what was changed.
    pub(crate) fn settle(&self) {
        self.flags.settle();
    }
}
