// SPDX-License-Identifier: GPL-3.0-or-later
//! Disposing of a job, in two steps. It is *detached*: out of the poller, its list and the wheel, its
//! descriptor closed. That is the loop's to do. Then comes its *farewell*: its done callback runs, and
//! it is freed, on whatever thread. ([`run::farewell`])

use super::event_loop::EventLoop;
use crate::job::{JobPtr, Kind};
use crate::run;
use crate::shared::Shared;
use crate::signals;
use crate::timers::Wheel;

impl EventLoop {
    /// `job` is NEEDS_DELETE and no callback of its runs: dispose of it.
    pub(super) fn dispose(&mut self, pool: &Shared, job: JobPtr) {
        if self.detach(pool, job) {
            run::farewell(pool, job, self.place());
        }
    }

    /// The first step, the loop's: take `job` out of everything, and close its descriptor. False if
    /// the close may block: then a worker does that, and the job comes back as a request for what is
    /// left.
    #[must_use]
    fn detach(&mut self, pool: &Shared, job: JobPtr) -> bool {
        match job.kind() {
            Kind::Now => {}
            Kind::Timer => {
                Wheel::remove(&job.watch().timer);
                job.watch().link.unlink();
            }
            Kind::Io => {
                Wheel::remove(&job.watch().timer);
                return self.detach_io(pool, job);
            }
            Kind::Signal => {
                job.watch().link.unlink();
                self.detach_signal(job);
                signals::unsubscribe(&pool.mailbox, job.signum());
            }
        }
        true
    }

    /// With the last job for a signal, the thread's mask is what it was.
    fn detach_signal(&self, gone: JobPtr) {
        let signum = gone.signum();
        let mut node = self.lists().signal_jobs.first();
        while !node.is_null() {
            // SAFETY: a node of this list is that of a live job.
            let job = unsafe { JobPtr::of_link(node) };
            if job.signum() == signum {
                return;
            }
            node = job.watch().link.next();
        }
        // SAFETY: the mask was filled when the loop was made.
        if unsafe { libc::sigismember(&self.mask, signum) } == 1 {
            self.block(libc::SIG_BLOCK, signum);
        }
    }
}
