// SPDX-License-Identifier: GPL-3.0-or-later
//! Disposal of a job, in two steps. First the loop *detaches* the job: it takes the job out of the
//! poller, its list and the wheel, and closes its descriptor. Then comes the *farewell*
//! ([`run::farewell`]): the done callback runs and the job is freed. Both happen in the loop; for a
//! job in a group, an agent may do the second. Workers dispose of their own run-now and timer jobs
//! directly (`run::dispose`).

use libc::c_int;

use super::event_loop::EventLoop;
use crate::job::{JobPtr, Kind};
use crate::run;
use crate::shared::Shared;
use crate::signals;
use crate::timers::Wheel;

impl EventLoop {
    /// Dispose of `job`, which is NEEDS_DELETE and whose callback does not run.
    pub(super) fn dispose(&mut self, pool: &Shared, job: JobPtr) {
        if self.detach(pool, job) {
            run::farewell(pool, pool.slots.of_loop(), job, || self.place());
        }
    }

    /// The first step: take `job` out of the poller, its list and the wheel, and close its
    /// descriptor. False if the close may block: then a worker closes it and sends the job back as
    /// a request for the second step.
    #[must_use]
    fn detach(&mut self, pool: &Shared, job: JobPtr) -> bool {
        let count = |kind| pool.slots.of_loop().count_disposed(kind);
        match job.look_in_hand().kind() {
            Kind::Now => count(Kind::Now),
            Kind::Timer => {
                count(Kind::Timer);
                Wheel::remove(&job.trigger_part().timer);
                job.trigger_part().link.unlink();
            }
            Kind::Io => {
                Wheel::remove(&job.trigger_part().timer);
                return self.detach_io(pool, job);
            }
            Kind::Signal => {
                count(Kind::Signal);
                self.detach_signal(pool, job);
            }
        }
        true
    }

    // Out of line, so that other jobs need no frame for the masks.
    #[cold]
    #[inline(never)]
    fn detach_signal(&self, pool: &Shared, job: JobPtr) {
        // If it rests.
        Wheel::remove(&job.trigger_part().timer);
        job.trigger_part().link.unlink();
        self.restore_mask(job.signum());
        signals::unsubscribe(&pool.mailbox, job.signum());
    }

    /// When the last job for a signal has gone, block the signal again if the thread's original mask
    /// did.
    fn restore_mask(&self, signum: c_int) {
        let mut node = self.lists().signal_jobs.first();
        while !node.is_null() {
            // SAFETY: a linked node belongs to a live job: disposal unlinks a job before it frees
            // it.
            let job = unsafe { JobPtr::of_link(node) };
            if job.signum() == signum {
                return;
            }
            node = job.trigger_part().link.next();
        }
        // SAFETY: `EventLoop::new` filled the mask.
        if unsafe { libc::sigismember(&self.mask, signum) } == 1 {
            self.block(libc::SIG_BLOCK, signum);
        }
    }
}
