// SPDX-License-Identifier: GPL-3.0-or-later
//! Descriptors that the poller does not take, and jobs that have lost theirs.
//!
//! A job whose number was closed, or stands for something else than what the job was made for, is an
//! orphan: it is in no descriptor's list, fires by its time only, and does not close the number. The log
//! says so once, for those that are armed.

use libc::c_int;

use super::event_loop::EventLoop;
use super::io::jobs;
use super::poller::Refusal;
use crate::fds::Registration;
use crate::job::{JobPtr, note, state};
use crate::log::log;
use crate::shared::Shared;
use crate::sys;

impl EventLoop {
    /// The poller does not take `fd`, or does not have it any more. `arming` is just being armed.
    ///
    /// This is the one road for it, whichever of the loop's steps meets it: the first arming and
    /// the next, a change of what is wanted, urgent data, a new poller, and another try.
    #[cold]
    #[inline(never)]
    pub(super) fn refused(
        &mut self,
        pool: &Shared,
        fd: c_int,
        refusal: Refusal,
        arming: Option<JobPtr>,
    ) {
        match refusal {
            Refusal::Failed(errno) => self.refuse(pool, fd, errno),
            Refusal::Lost => {
                self.abandon(pool, fd);
            }
            Refusal::AlwaysReady => {
                let entry = pool.fds.entry(fd);
                entry.set_registration(Registration::Always);
                for job in jobs(entry).filter(|job| job.is(note::MAY_FIRE)) {
                    self.fire_unasked(pool, job);
                }
            }
            Refusal::Closed => {
                log!(
                    pool.logger,
                    LOG_WARNING,
                    "event loop: descriptor {fd} is not open any more"
                );
                let entry = pool.fds.entry(fd);
                let registered = matches!(entry.registration(), Registration::Polled(..));
                entry.set_registration(Registration::Absent);
                for job in jobs(entry) {
                    job.watch().link.unlink();
                    self.orphan(job);
                    if !job.is(note::MAY_FIRE) {
                        continue;
                    }
                    // Who was armed since the poller last answered for the number learns of it from
                    // its own read or write, as if the loop had asked when it armed the job.
                    if !registered || arming == Some(job) || job.is(note::UNVERIFIED) {
                        self.fire_unasked(pool, job);
                    } else {
                        self.report_lost(pool, job);
                    }
                }
            }
        }
    }

    /// Ask the poller whether it still has `fd`, by telling it again what it knows.
    pub(super) fn verify(&mut self, pool: &Shared, fd: c_int) {
        let entry = pool.fds.entry(fd);
        if let Registration::Polled(told, mode) = entry.registration()
            && let Err(refusal) = self.register(entry, fd, told, mode, true)
        {
            self.refused(pool, fd, refusal, None);
        }
        for job in jobs(entry) {
            job.unmark(note::UNVERIFIED | note::HEARD);
        }
    }

    /// The first arming of `job`, whose descriptor the pool has closed since the job was made.
    #[cold]
    #[inline(never)]
    pub(super) fn attach_late(&mut self, pool: &Shared, job: JobPtr) {
        let fd = job.fd();
        log!(
            pool.logger,
            LOG_WARNING,
            "event loop: descriptor {fd} was closed by another job before this one was armed"
        );
        job.mark(note::REPORTED);
        self.orphan(job);
        if !sys::is_open(fd) {
            self.fire_unasked(pool, job);
        }
    }

    /// `fd` is about to be closed with one of its jobs: the others lose it.
    #[cold]
    #[inline(never)]
    pub(super) fn take_from_others(&mut self, pool: &Shared, fd: c_int) {
        let entry = pool.fds.entry(fd);
        let mut others = 0;
        for job in jobs(entry) {
            others += usize::from(job.state.now() != state::NEEDS_DELETE);
            job.mark(note::REPORTED);
        }
        self.abandon(pool, fd);
        if others > 0 {
            log!(
                pool.logger,
                LOG_WARNING,
                "event loop: descriptor {fd} is closed with its first job, {others} more had it \
                 and fire by their time-outs only"
            );
        }
    }

    /// What the jobs of `fd` were made for is gone, and so is the registration: they can fire by
    /// time only, and none of them closes the number. Those that are armed are told of.
    #[cold]
    #[inline(never)]
    pub(super) fn abandon(&mut self, pool: &Shared, fd: c_int) {
        let entry = pool.fds.entry(fd);
        entry.set_registration(Registration::Absent);
        for job in jobs(entry) {
            job.watch().link.unlink();
            self.orphan(job);
            if job.is(note::MAY_FIRE) {
                self.report_lost(pool, job);
            }
        }
    }

    /// `job`, which is in no list, has lost its descriptor.
    pub(super) fn orphan(&mut self, job: JobPtr) {
        job.mark(note::ORPHAN);
        // SAFETY: not linked; the job's disposal unlinks it.
        unsafe { self.lists().strays.push(job.link()) };
    }

    /// `job` is armed, and its descriptor is not what it was: nothing but its time can fire it. Say
    /// so, once.
    #[cold]
    #[inline(never)]
    pub(super) fn report_lost(&mut self, pool: &Shared, job: JobPtr) {
        if job.is(note::REPORTED) || job.state.now() != state::ARMED {
            return;
        }
        job.mark(note::REPORTED);
        let fd = job.fd();
        log!(
            pool.logger,
            LOG_WARNING,
            "event loop: descriptor {fd} was closed, and may be another file now: job {:p}, made \
             for the old one, fires by its time-out only",
            job.as_c()
        );
    }

    /// The poller works, and is about to be replaced: what it can't find under its number any
    /// more must not be registered with the next one, where it would be something else.
    pub(super) fn abandon_lost(&mut self, pool: &Shared) {
        for (fd, entry) in pool.fds.entries() {
            if let Registration::Polled(..) = entry.registration()
                && !self.poller.disarm(fd)
            {
                let closed = !sys::is_open(fd);
                let why = if closed {
                    Refusal::Closed
                } else {
                    Refusal::Lost
                };
                self.refused(pool, fd, why, None);
            }
        }
    }
}
