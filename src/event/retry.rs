// SPDX-License-Identifier: GPL-3.0-or-later
//! Descriptors to come back to: those that the poller refuses, and those that nobody has heard of.
//!
//! A refusal for want of something (ENOSPC, ENOMEM …) may end at any time, and nothing tells when.
//! So the loop tries again: after a millisecond, then twice as long each time, up to a second.
//! Meanwhile the jobs of such a descriptor fire by their time only. One timer of the loop's own, in
//! the wheel beside those of the jobs, drives that for all descriptors.
//!
//! A *period* of refusals begins with the first, for each descriptor, which is logged. It ends when
//! the descriptor was taken and the back-off has come to a second: so one that is refused, taken and
//! refused again is logged once, and does not begin again at a millisecond each time.

use std::mem;
use std::ptr::NonNull;

use libc::c_int;

use super::backoff::{Backoff, FIRST};
use super::event_loop::EventLoop;
use super::io;
use super::poller::Refusal;
use crate::fds::Registration;
use crate::job::{JobPtr, note};
use crate::log::log;
use crate::shared::Shared;
use crate::sys;
use crate::timers::{Timer, Wheel};

/// Descriptors that one look tries at least. Of more, an eighth: each has its turn in a few seconds.
const TRIES: usize = 256;
/// Nanoseconds until a descriptor is looked at whose jobs were armed again without a word to the
/// poller and that was not heard of since: the least, for so many descriptors, and the most.
const UNHEARD: u64 = 50_000_000;
const FEW: usize = 16;
const MOST: u64 = 1_000_000_000;
/// Descriptors of that kind that one look takes, and nanoseconds until the next if there are more.
const CHECKS: usize = 1024;
const MORE: u64 = 5_000_000;

impl EventLoop {
    /// The timer, as the wheel knows it.
    pub(super) fn retry_timer(&self) -> NonNull<Timer> {
        // SAFETY: a field of a live block.
        unsafe { NonNull::new_unchecked(&raw mut (*self.lists.as_ptr()).retry) }
    }

    /// Have refused descriptors tried again `delay` nanoseconds from now, or before.
    fn retry_in(&mut self, delay: u64) {
        let now = sys::now();
        let timer = &self.lists().retry;
        if timer.is_linked() && timer.deadline() <= now + delay {
            return;
        }
        Wheel::remove(timer);
        timer.set_deadline(now + delay);
        if self.wheel.is_empty() {
            self.wheel.restart(now);
        }
        // SAFETY: not linked; the lists do not move, and the loop takes it out before it ends.
        unsafe { self.wheel.insert(self.retry_timer()) };
    }

    /// The system refuses `fd` for now: log it, once, and try again later. Meanwhile the poller has
    /// nothing of it: what it had would be reported, and nobody would be there for it.
    #[cold]
    #[inline(never)]
    pub(super) fn refuse(&mut self, pool: &Shared, fd: c_int, errno: c_int) {
        let entry = pool.fds.entry(fd);
        if let Registration::Polled(..) = entry.registration() {
            self.poller.disarm(fd);
        }
        entry.set_registration(Registration::Refused);
        if !entry.is_retried() {
            log!(
                pool.logger,
                LOG_ERR,
                "event loop: the poller refuses descriptor {fd}, which is tried again: {}",
                std::io::Error::from_raw_os_error(errno)
            );
            self.later.backoff = Backoff::new();
            self.list_refused(pool, fd);
        }
        self.retry_in(FIRST.max(self.later.backoff.0));
    }

    /// A job of `fd`, which was refused, waits for it.
    #[cold]
    #[inline(never)]
    pub(super) fn await_retry(&mut self, pool: &Shared, fd: c_int) {
        if !pool.fds.entry(fd).is_retried() {
            self.list_refused(pool, fd);
        }
        self.retry_in(FIRST.max(self.later.backoff.0));
    }

    /// `fd` is to be tried again.
    fn list_refused(&mut self, pool: &Shared, fd: c_int) {
        if self.later.refused.try_reserve(1).is_ok() {
            self.later.refused.push_back(fd);
            pool.fds.entry(fd).set_retried(true);
        } else {
            self.later.unlisted = true;
        }
    }

    /// Try descriptors again that were refused.
    #[cold]
    #[inline(never)]
    pub(super) fn retry(&mut self, pool: &Shared) {
        if mem::take(&mut self.later.unlisted) {
            for (fd, entry) in pool.fds.entries() {
                if entry.registration() == Registration::Refused && !entry.is_retried() {
                    self.list_refused(pool, fd);
                }
            }
        }
        let over = self.later.backoff.is_longest();
        let pause = self.later.backoff.next();
        let count = self.later.refused.len();
        let tries = TRIES.max(count / 8);
        let (mut tried, mut failed) = (0, 0);
        for _ in 0..count {
            let Some(fd) = self.later.refused.pop_front() else {
                break;
            };
            let entry = pool.fds.entry(fd);
            let refused = entry.registration() == Registration::Refused;
            if !refused && over {
                entry.set_retried(false);
                continue;
            }
            // Room is there: it was just taken out.
            self.later.refused.push_back(fd);
            if refused {
                tried += 1;
                failed += usize::from(!self.try_again(pool, fd));
            }
            if tried == tries {
                break;
            }
        }
        if self.later.refused.is_empty() && !self.later.unlisted {
            log!(
                pool.logger,
                LOG_INFO,
                "event loop: the poller takes all descriptors again"
            );
            return;
        }
        // All that were tried were taken, and there are more: the others will be, too.
        let more = tried == tries && failed == 0 && tried < count;
        self.retry_in(if more { FIRST } else { pause });
    }

    /// Register `fd`, which was refused. False if it still is.
    fn try_again(&mut self, pool: &Shared, fd: c_int) -> bool {
        let entry = pool.fds.entry(fd);
        if !self.is_wanted(entry) {
            // Nobody waits for it: the next arming registers it.
            entry.set_registration(Registration::Absent);
            return true;
        }
        match self.register_wanted(entry, fd) {
            Ok(()) => true,
            Err(refusal) => {
                self.refused(pool, fd, refusal, None);
                !matches!(refusal, Refusal::Failed(_))
            }
        }
    }

    /// `job` was armed again without a word to the poller: its descriptor is to be looked at if it is
    /// not heard of. The job's own callback may have closed it, and then nothing would ever come.
    /// While it is heard of, nobody needs to look.
    #[cold]
    #[inline(never)]
    pub(super) fn check_later(&mut self, pool: &Shared, job: JobPtr) {
        let fd = job.fd();
        job.mark(note::UNVERIFIED);
        if self.later.unheard.try_reserve(1).is_err() {
            return self.verify(pool, fd);
        }
        self.later.unheard.push_back(fd);
        if self.later.look == u64::MAX {
            self.check_in(UNHEARD);
        }
    }

    /// Look `delay` nanoseconds from now, however busy the loop is then.
    fn check_in(&mut self, delay: u64) {
        self.later.look = sys::now() + delay;
        self.poller.remind(self.later.look);
    }

    /// A time has come. Look at descriptors that nobody has heard of, if it was the time for that.
    #[cold]
    #[inline(never)]
    pub(super) fn check_unheard(&mut self, pool: &Shared) {
        if sys::now() < self.later.look {
            return;
        }
        self.later.look = u64::MAX;
        let count = self.later.unheard.len();
        for _ in 0..count.min(CHECKS) {
            let Some(fd) = self.later.unheard.pop_front() else {
                break;
            };
            let (mut any, mut heard) = (false, false);
            for job in io::jobs(pool.fds.entry(fd)) {
                any |= job.is(note::UNVERIFIED);
                heard |= job.is(note::HEARD);
                job.unmark(note::HEARD);
            }
            if any && heard {
                // Room is there: it was just taken out.
                self.later.unheard.push_back(fd);
            } else if any {
                self.verify(pool, fd);
            }
        }
        if !self.later.unheard.is_empty() {
            // The more there are, the less often: a look at each is to cost little beside what it does
            // meanwhile.
            let rarely = UNHEARD * (1 + self.later.unheard.len() / FEW) as u64;
            let more = count > CHECKS;
            self.check_in(if more { MORE } else { rarely.min(MOST) });
        }
    }
}
