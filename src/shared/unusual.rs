// SPDX-License-Identifier: GPL-3.0-or-later
//! The steps of jobs that are not like most: those in groups, those that count against their pool's
//! limit, those that are armed in another way than before, and those whose pool measures times.

use super::{Armed, Ended, Shared, queue_of};
use crate::abi::NS_JOB_PERSIST;
use crate::job::again::Again;
use crate::job::here;
use crate::job::state::{self, Arm, End};
use crate::job::{JobPtr, Kind, probes};
use crate::perturb::perturb;
use crate::sync::tsan_release;
use crate::sys;

impl Shared {
    /// A new job, of which nobody else knows, counts against the pool's limit: at once if it is armed.
    pub(crate) fn count_new(&self, job: JobPtr, armed: bool) {
        job.set_counted();
        if armed {
            self.overload.add(1);
        }
    }

    /// In a pool that measures times: a run-now job, which is armed and which the caller has in hand, begins
    /// to wait. Other jobs do so when they fire.
    pub(crate) fn stamp(&self, job: JobPtr) {
        let look = job.look();
        if look.is_timed() && look.kind() == Kind::Now {
            job.set_stamp(sys::now());
        }
    }

    /// Whether an add by the calling thread is refused, because as many jobs wait for workers as may.
    pub(crate) fn is_overloaded(&self) -> bool {
        // A worker that had to wait for room would wait for itself.
        self.overload.is_full() && !here::on_worker_of(self.as_c())
    }

    /// `ns_job_rearm`, in a pool that shuts down or measures times.
    #[cold]
    #[inline(never)]
    pub(super) fn arm_gated(&self, job: JobPtr) -> Armed {
        if self.is_shutting_down() {
            return Armed::ShuttingDown;
        }
        tsan_release(&raw const job.state);
        self.arm_unusual(job)
    }

    /// `ns_job_rearm`, of a job that is not like most, or in a pool that measures times.
    #[cold]
    #[inline(never)]
    pub(super) fn arm_unusual(&self, job: JobPtr) -> Armed {
        if let Some(group) = job.group() {
            return self.arm_member(group, job);
        }
        match job.state.arm(queue_of(job.kind()), job.has(NS_JOB_PERSIST)) {
            Arm::Push => {
                self.idle.remove(job.func());
                if job.is_counted() {
                    perturb("armed, and not counted");
                    self.overload.add(1);
                }
                self.stamp(job);
                self.start(job);
            }
            Arm::Recorded => {}
            Arm::Refused => return Armed::NotNow,
        }
        Armed::Yes
    }

    /// `ns_job_rearm_after` and `ns_job_rearm_for`: arms a job with a trigger in another way than before.
    pub(crate) fn arm_otherwise(&self, job: JobPtr, again: Again) -> Armed {
        if self.is_shutting_down() {
            return Armed::ShuttingDown;
        }
        let own = here::in_callback_of(job);
        tsan_release(&raw const job.state);
        if !job.state.claim(own, job.has(NS_JOB_PERSIST)) {
            return Armed::NotNow;
        }
        perturb("claimed, and not changed");
        let now = sys::now();
        let before = job.change(again, own, now);
        perturb("changed, and not armed");
        let armed = match job.group() {
            None => job.state.arm_claimed(state::REQ),
            Some(group) => {
                let guard = self.lock_group(&group);
                let armed = guard.arm_claimed(job, state::REQ);
                let send = guard.unlock();
                self.send(group, send);
                armed
            }
        };
        match armed {
            Arm::Push => {
                self.idle.remove(job.func());
                if again.delay.is_none() && job.has_timer() {
                    job.restart(now);
                }
                probes::armed(self, job);
                self.request(job);
            }
            // What was written is seen to when the callback returns.
            Arm::Recorded => {}
            Arm::Refused => {
                job.restore(&before);
                return Armed::NotNow;
            }
        }
        Armed::Yes
    }

    /// `ns_job_done` and `ns_job_cancel`, of a job that is not like most, outside its own callback.
    #[cold]
    #[inline(never)]
    pub(super) fn end_unusual(&self, job: JobPtr, even_armed: bool) -> Ended {
        if let Some(group) = job.group() {
            return self.end_member(group, job, even_armed);
        }
        let state = &raw const job.state;
        let counted = job.is_counted();
        let end = job.state.end_from(&self.waiters, even_armed);
        if counted && end == End::Push {
            // It was armed, so it waited for a worker, and does not any more.
            self.overload.remove();
        }
        self.ended(job, state, end)
    }
}
