// SPDX-License-Identifier: GPL-3.0-or-later
//! Arming: a job waits for its trigger. And resting: it was not armed again.

use std::mem;
use std::ptr;

use libc::c_int;

use super::event_loop::EventLoop;
use crate::job::{JobPtr, Kind, place};
use crate::log::trace;
use crate::shared::Shared;
use crate::timers::Wheel;

impl EventLoop {
    /// `job` is ARMED: have it wait for its trigger.
    pub(super) fn arm(&mut self, pool: &Shared, job: JobPtr) {
        trace!(pool.logger, "job {:p}: armed", job.as_c());
        match job.kind() {
            // These go to their queues without the loop.
            Kind::Now => debug_assert!(false, "a request to arm a run-now job"),
            Kind::Timer => {
                job.mark(place::LIVE);
                self.start_timer(job);
            }
            Kind::Signal => self.arm_signal(pool, job),
            Kind::Io => self.arm_io(pool, job),
        }
    }

    /// Have `job` wait for its time, if it has one.
    #[inline]
    pub(super) fn start_timer(&mut self, job: JobPtr) {
        if job.has_timeout() {
            self.link_timer(job);
        }
    }

    /// Link the timer of `job`. One that is linked from an earlier arming is found and moved when
    /// its old time comes.
    pub(super) fn link_timer(&mut self, job: JobPtr) {
        if job.watch().timer.is_linked() {
            return;
        }
        let timer = job.timer();
        if job.is_due_at_once() {
            // SAFETY: not linked; the job does not move, and `dispose` unlinks it.
            return unsafe { self.wheel.insert_due(timer) };
        }
        if self.wheel.is_empty() {
            self.wheel.restart(job.armed_at());
        }
        // SAFETY: as above.
        unsafe { self.wheel.insert(timer) };
    }

    fn arm_signal(&mut self, pool: &Shared, job: JobPtr) {
        if !job.is(place::ATTACHED) {
            job.mark(place::ATTACHED);
            // SAFETY: not linked; `dispose` unlinks it.
            unsafe { self.lists().signal_jobs.push(job.link()) };
            self.block(libc::SIG_UNBLOCK, job.signum());
        }
        job.mark(place::LIVE);
        // What arrived before it was armed again counts.
        self.fire_if_signalled(pool, job);
    }

    /// Block `signum` in this thread, or unblock it.
    pub(super) fn block(&self, how: c_int, signum: c_int) {
        // SAFETY: a set of ours, and a number that was checked.
        unsafe {
            let mut set: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, signum);
            libc::pthread_sigmask(how, &set, ptr::null_mut());
        }
    }

    /// A job of the loop's own ran, and was not armed again.
    pub(super) fn rest(&mut self, pool: &Shared, job: JobPtr) {
        Wheel::remove(&job.watch().timer);
        if job.kind() == Kind::Io && !job.is(place::ORPHAN) {
            self.sync(pool, job.fd());
        }
    }
}
