// SPDX-License-Identifier: GPL-3.0-or-later
//! What fires: by time, by a signal, and where it goes from there.

use std::mem;

use super::event_loop::EventLoop;
use super::io;
use super::lists::Ready;
use super::poller::Until;
use crate::abi::{NS_JOB_SIGNAL, NS_JOB_THREAD, NS_JOB_TIMER, ns_job_type_t};
use crate::job::{JobPtr, Kind, place};
use crate::list::Ring;
use crate::log::trace;
use crate::perturb::perturb;
use crate::shared::Shared;
use crate::sys;
use crate::timers::Timer;

/// Nanoseconds until a time-out is looked at again whose descriptor turned out ready.
const AGAIN: u64 = 1_000_000;
/// Timers that one turn fires.
const TIMERS: usize = 1024;

impl EventLoop {
    /// See which timers fire.
    ///
    /// A time-out is not to be told if the data came before it: so after the time was taken, and
    /// before the time-outs of descriptors fire, the poller is asked once more. If more is ready
    /// than may be looked at in one turn, each of these descriptors is asked for itself.
    pub(super) fn expire(&mut self, pool: &Shared) {
        if self.wheel.next().is_none() {
            return;
        }
        let mut due = Ready::default();
        let timed_out = Ring::new();
        let own = self.retry_timer();
        let mut retry = false;
        self.wheel.expire(
            sys::now(),
            TIMERS,
            // SAFETY: linked timers are the loop's own or those of live jobs.
            |timer| timer == own || unsafe { JobPtr::of_timer(timer) }.is(place::LIVE),
            |timer| {
                if timer == own {
                    retry = true;
                    return;
                }
                // SAFETY: as above.
                let job = unsafe { JobPtr::of_timer(timer) };
                if job.kind() == Kind::Io {
                    // SAFETY: just unlinked, and unlinked again below.
                    unsafe { Timer::push_to(timer, &timed_out) };
                } else {
                    due.push(job);
                }
            },
        );
        while let Some(job) = due.pop() {
            self.fire(pool, job, NS_JOB_TIMER);
        }
        if retry {
            self.retry(pool);
        }
        if timed_out.is_empty() {
            return;
        }
        let all_seen = self.poll(pool, Until::Now, true);
        while let Some(timer) = Timer::take_first(&timed_out) {
            // SAFETY: linked timers are those of live jobs.
            let job = unsafe { JobPtr::of_timer(timer) };
            if !job.is(place::LIVE) {
                continue;
            }
            if !all_seen && io::is_ready(job) {
                // Its event is among those that the poller has yet to report. Unless it is somebody
                // else's, who has the number now: so its time is not forgotten.
                job.watch().timer.set_deadline(sys::now() + AGAIN);
                self.link_timer(job);
            } else {
                let in_loop = !job.has(NS_JOB_THREAD);
                self.fire(pool, job, NS_JOB_TIMER);
                if in_loop {
                    // Of its time only.
                    job.unmark(place::HEARD);
                }
            }
        }
    }

    /// See which signals' jobs fire.
    pub(super) fn take_signals(&mut self, pool: &Shared) {
        if !pool.mailbox.take() {
            return;
        }
        perturb("emptied the mailbox, and not looked at the counts");
        let mut node = self.lists().signal_jobs.first();
        while !node.is_null() {
            // SAFETY: a node of this list is that of a live job.
            let job = unsafe { JobPtr::of_link(node) };
            node = job.watch().link.next();
            if job.is(place::LIVE) {
                self.fire_if_signalled(pool, job);
            }
        }
    }

    pub(super) fn fire_if_signalled(&mut self, pool: &Shared, job: JobPtr) {
        let count = pool.mailbox.count(job.signum());
        if job.watch().seen.replace(count) != count {
            self.fire(pool, job, NS_JOB_SIGNAL);
        }
    }

    /// `job` fires: to the workers, or to the loop's own ready list. A job of the workers' may be
    /// gone on return.
    pub(super) fn fire(&mut self, pool: &Shared, job: JobPtr, output: ns_job_type_t) {
        trace!(pool.logger, "job {:p}: fires with {output:#x}", job.as_c());
        job.unmark(place::LIVE);
        if self.quiet {
            return;
        }
        job.set_output(output);
        if !job.has(NS_JOB_THREAD) {
            job.mark(place::READY | place::HEARD);
            self.ready.push(job);
        } else if job.state.dispatch() {
            // One that was cancelled meanwhile is not dispatched: its disposal is on its way.
            perturb("dispatched, and not pushed");
            pool.work.push_quietly(job);
            self.dispatched += 1;
        }
    }

    /// Somebody is to take what was put on the work queue. Before anything that may take its time:
    /// a callback of the application's may even wait for it.
    pub(super) fn tell_workers(&mut self, pool: &Shared) {
        if self.dispatched > 0 {
            self.given = mem::take(&mut self.dispatched);
            pool.work.notify(self.given);
        }
    }
}
