// SPDX-License-Identifier: GPL-3.0-or-later
//! Descriptors that the poller does not accept, and jobs that have lost their descriptor.
//!
//! If the number of a job was closed, or refers to another file than the one that the job was made
//! for, the job is an orphan: it is in no descriptor's list, fires by its time-out only, and does
//! not close the number. If it is armed, the loop logs that, once.

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
    /// Handle the poller's refusal of `fd`: it does not accept the descriptor, or has lost it.
    /// `arming` is the job that is just being armed, if there is one.
    ///
    /// Every step that the poller can refuse calls this: the first arming and later ones, a change
    /// of what is wanted, urgent data, a new poller, and a retry.
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
                self.orphan_all(pool, fd);
            }
            Refusal::AlwaysReady => {
                let entry = pool.fds.entry(fd);
                entry.set_registration(Registration::Always);
                for job in jobs(entry).filter(|job| job.is(note::MAY_FIRE)) {
                    self.fire_all_directions(pool, job);
                }
            }
            Refusal::Closed => {
                let entry = pool.fds.entry(fd);
                // The application may close what it keeps once it has cancelled the jobs, while the
                // loop still arms them.
                let is_due = |job: JobPtr| job.is(note::MAY_FIRE) && !pool.is_over(job);
                if jobs(entry).any(is_due) {
                    log!(
                        pool.logger,
                        LOG_WARNING,
                        "event loop: descriptor {fd} is not open any more"
                    );
                }
                let registered = matches!(entry.registration(), Registration::Polled(..));
                entry.set_registration(Registration::Absent);
                for job in jobs(entry) {
                    job.trigger_part().link.unlink();
                    self.orphan(job);
                    if !job.is(note::MAY_FIRE) {
                        continue;
                    }
                    // A job that was armed after the poller last confirmed the number fires, as if
                    // the loop had checked when it armed the job: its own read or write then fails
                    // with EBADF.
                    if !registered || arming == Some(job) || job.is(note::UNVERIFIED) {
                        self.fire_all_directions(pool, job);
                    } else {
                        self.report_lost(pool, job);
                    }
                }
            }
        }
    }

    /// Ask the poller whether it still has `fd`, by registering again what it has.
    pub(super) fn verify(&mut self, pool: &Shared, fd: c_int) {
        let entry = pool.fds.entry(fd);
        if let Registration::Polled(told, mode) = entry.registration() {
            if let Err(refusal) = self.register(entry, fd, told, mode, true) {
                self.refused(pool, fd, refusal, None);
            }
        }
        for job in jobs(entry) {
            job.unmark(note::UNVERIFIED | note::HEARD);
        }
    }

    /// Arm `job` for the first time, when the pool has closed its descriptor since the job was
    /// made.
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
            self.fire_all_directions(pool, job);
        }
    }

    /// A job is about to close `fd`: make the descriptor's other jobs orphans.
    #[cold]
    #[inline(never)]
    pub(super) fn orphan_others(&mut self, pool: &Shared, fd: c_int) {
        let entry = pool.fds.entry(fd);
        let mut others = 0;
        for job in jobs(entry) {
            others += usize::from(!pool.is_over(job));
            job.mark(note::REPORTED);
        }
        self.orphan_all(pool, fd);
        if others > 0 {
            log!(
                pool.logger,
                LOG_WARNING,
                "event loop: descriptor {fd} is closed with one of its jobs; {others} other jobs \
                 for it fire by their time-outs only"
            );
        }
    }

    /// The file that the jobs of `fd` were made for is gone, and so is the registration. All of
    /// them become orphans, which fire by their time-outs only and never close the number. Those
    /// that are armed are reported.
    #[cold]
    #[inline(never)]
    pub(super) fn orphan_all(&mut self, pool: &Shared, fd: c_int) {
        let entry = pool.fds.entry(fd);
        entry.set_registration(Registration::Absent);
        for job in jobs(entry) {
            job.trigger_part().link.unlink();
            self.orphan(job);
            if job.is(note::MAY_FIRE) {
                self.report_lost(pool, job);
            }
        }
    }

    /// Mark `job`, which is in no list, as having lost its descriptor.
    pub(super) fn orphan(&mut self, job: JobPtr) {
        job.mark(note::ORPHAN);
        // SAFETY: the node is not linked, and disposal unlinks it before the job is freed.
        unsafe { self.lists().strays.push(job.link()) };
    }

    /// `job` is armed, but its number no longer refers to its file, so only its time-out can fire
    /// it. Log that, once.
    #[cold]
    #[inline(never)]
    pub(super) fn report_lost(&mut self, pool: &Shared, job: JobPtr) {
        if job.is(note::REPORTED) || job.state.now() != state::ARMED || pool.is_over(job) {
            return;
        }
        job.mark(note::REPORTED);
        let fd = job.fd();
        log!(
            pool.logger,
            LOG_WARNING,
            "event loop: descriptor {fd} was closed, and may refer to another file now: job {:p}, \
             made for the old one, fires by its time-out only",
            job.as_c()
        );
    }

    /// The poller works, but is about to be replaced. A registration that it cannot find by number
    /// any more must not be made again with the new poller, where the number would mean another
    /// file.
    pub(super) fn orphan_lost(&mut self, pool: &Shared) {
        for (fd, entry) in pool.fds.entries() {
            let registered = matches!(entry.registration(), Registration::Polled(..));
            if registered && !self.poller.disarm(fd) {
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
