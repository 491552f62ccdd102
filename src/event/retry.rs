// SPDX-License-Identifier: GPL-3.0-or-later
//! Descriptors to retry, which the poller refused, and descriptors to check, which have been
//! silent.
//!
//! If the poller refuses a descriptor for lack of a resource (ENOSPC, ENOMEM …), that may end at
//! any time, and nothing reports it. So the loop tries again: after a millisecond, then twice as
//! long each time, up to a second. Meanwhile the jobs of the descriptor fire by their time-outs
//! only. A single timer, which is in the wheel beside those of the jobs, drives the retries of all
//! descriptors.
//!
//! A *period* of refusals of a descriptor begins with its first refusal, which is logged. It ends
//! when the poller has accepted the descriptor and the back-off has reached a second. So if the
//! poller refuses, accepts and refuses a descriptor again, the log has one message, and the
//! back-off does not start over.

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

/// How many descriptors one retry tries at least. Of many, it tries an eighth, so that each is
/// tried within a few seconds.
const TRIES: usize = 256;
/// When jobs are armed again without telling the poller, their silent descriptors are checked after
/// `UNHEARD` nanoseconds. Every `FEW` silent descriptors add as much again, up to `MOST`
/// nanoseconds.
const UNHEARD: u64 = 50_000_000;
const FEW: usize = 16;
const MOST: u64 = 1_000_000_000;
/// How many silent descriptors one check takes, and the nanoseconds until the next check if there
/// are more.
const CHECKS: usize = 1024;
const MORE: u64 = 5_000_000;

impl EventLoop {
    /// The retry timer, by the pointer that the wheel links.
    pub(super) fn retry_timer(&self) -> NonNull<Timer> {
        // SAFETY: the address of a field of `lists`, which is not null.
        unsafe { NonNull::new_unchecked(&raw mut (*self.lists.as_ptr()).retry) }
    }

    /// Retry refused descriptors in `delay` nanoseconds, or earlier if the timer is already set for
    /// that.
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
        // SAFETY: the timer is not linked, the lists do not move, and `dispose_of_all` unlinks it.
        unsafe { self.wheel.insert(self.retry_timer()) };
    }

    /// The system refuses `fd` for now: log it, once, and schedule a retry. Take an old
    /// registration out of the poller: it would report events that nobody expects.
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
                "event loop: the poller refuses descriptor {fd}, and is asked again later: {}",
                std::io::Error::from_raw_os_error(errno)
            );
            self.later.backoff = Backoff::new();
            self.list_refused(pool, fd);
        }
        self.retry_in(FIRST.max(self.later.backoff.0));
    }

    /// A job of `fd`, which the poller refused, waits for it: make sure that it is retried.
    #[cold]
    #[inline(never)]
    pub(super) fn await_retry(&mut self, pool: &Shared, fd: c_int) {
        if !pool.fds.entry(fd).is_retried() {
            self.list_refused(pool, fd);
        }
        self.retry_in(FIRST.max(self.later.backoff.0));
    }

    /// List `fd` for the next retry.
    fn list_refused(&mut self, pool: &Shared, fd: c_int) {
        if self.later.refused.try_reserve(1).is_ok() {
            self.later.refused.push_back(fd);
            pool.fds.entry(fd).set_retried(true);
        } else {
            self.later.unlisted = true;
        }
    }

    /// Retry refused descriptors.
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
            // This cannot allocate: we have just taken one element out.
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
                "event loop: the poller accepts all descriptors again"
            );
            return;
        }
        // If the poller accepted all that we tried, it will accept the others soon.
        let more = tried == tries && failed == 0 && tried < count;
        self.retry_in(if more { FIRST } else { pause });
    }

    /// Register `fd`, which the poller refused. False if it still refuses.
    fn try_again(&mut self, pool: &Shared, fd: c_int) -> bool {
        let entry = pool.fds.entry(fd);
        if !self.is_wanted(entry) {
            // No armed job wants it: the next arming registers it.
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

    /// `job` was armed again without telling the poller: check its descriptor later, unless events
    /// show that it still works. The job's own callback may have closed it, and then no event would
    /// ever come.
    #[cold]
    #[inline(never)]
    pub(super) fn check_later(&mut self, pool: &Shared, job: JobPtr) {
        let fd = job.fd();
        job.mark(note::UNVERIFIED);
        if self.later.unheard.try_reserve(1).is_err() {
            return self.verify(pool, fd);
        }
        self.later.unheard.push_back(fd);
        if self.later.check_at == u64::MAX {
            self.check_in(UNHEARD);
        }
    }

    /// Check silent descriptors in `delay` nanoseconds, however busy the loop is then.
    fn check_in(&mut self, delay: u64) {
        self.later.check_at = sys::now() + delay;
        self.poller.remind(self.later.check_at);
    }

    /// The poller reported a time: if the next check is due, verify the descriptors that have been
    /// silent.
    #[cold]
    #[inline(never)]
    pub(super) fn check_unheard(&mut self, pool: &Shared) {
        if sys::now() < self.later.check_at {
            return;
        }
        self.later.check_at = u64::MAX;
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
                // This cannot allocate: we have just taken one element out.
                self.later.unheard.push_back(fd);
            } else if any {
                self.verify(pool, fd);
            }
        }
        if !self.later.unheard.is_empty() {
            // Check less often when there are more: a check of each must cost little compared with
            // the loop's other work.
            let rarely = UNHEARD * (1 + self.later.unheard.len() / FEW) as u64;
            let more = count > CHECKS;
            self.check_in(if more { MORE } else { rarely.min(MOST) });
        }
    }
}
