// SPDX-License-Identifier: GPL-3.0-or-later
//! Replacement of the poller: when it holds a registration that no number names any more, when it
//! fails, and when the application has closed the pool's own descriptors.
//!
//! If a new poller cannot be made, or fails too, the loop tries again: after a millisecond, then
//! twice as long each time, up to a second. Meanwhile it sleeps on the wake pipe, with a time-out,
//! and serves requests, timers and wakes.

use std::io;
use std::mem;
use std::ptr;
use std::sync::atomic::Ordering;

use libc::c_int;

use super::backoff::Stale;
use super::event_loop::EventLoop;
use super::poller::{AnyPoller, Until, WaitError};
use crate::log::log;
use crate::shared::Shared;
use crate::sys;
use crate::wake::Woken;

/// A poller that should be replaced but cannot be may report a stale event at every wait. The loop
/// pauses for this many nanoseconds between two waits on it.
const PAUSE: u64 = 10_000_000;

impl EventLoop {
    /// Handle the failure of a wait that should have lasted `until`.
    #[cold]
    #[inline(never)]
    pub(super) fn on_wait_error(
        &mut self,
        pool: &Shared,
        error: WaitError,
        until: Until,
    ) -> (usize, bool) {
        match error {
            WaitError::Timer(errno) => log!(
                pool.logger,
                LOG_ERR,
                "event loop: the timerfd fails, so timers have a resolution of a millisecond: {}",
                io::Error::from_raw_os_error(errno)
            ),
            WaitError::GaveUpEpoll => {
                log!(
                    pool.logger,
                    LOG_ERR,
                    "event loop: the framework gives up epoll and goes on by poll"
                );
                self.claim(pool);
            }
            WaitError::Broken(errno) => self.broken(pool, errno, until),
        }
        (0, false)
    }

    /// The poller fails. Replace it at once if this is a new incident, otherwise when the back-off
    /// allows it; until then, sleep.
    fn broken(&mut self, pool: &Shared, errno: c_int, until: Until) {
        let now = sys::now();
        if self.renewal.pending.is_none() {
            let in_incident = now < self.renewal.incident_end;
            if self.renewal.is_new(now) {
                log!(
                    pool.logger,
                    LOG_CRIT,
                    "event loop: the poller fails and is replaced: {}",
                    io::Error::from_raw_os_error(errno)
                );
            }
            if !in_incident {
                self.stale = Some(Stale::Broken);
                return;
            }
            // We have just replaced it, and that did not help.
            self.renewal.pending = Some(Stale::Broken);
            self.renewal.next = now + self.renewal.backoff.next();
        } else if now >= self.renewal.next {
            self.stale = Some(Stale::Broken);
            return;
        }
        if until == Until::Now && !self.own_thread {
            // No wait reports the byte, and the wait descriptor would stay readable. `pause` looks at the
            // queues once more.
            pool.wake.clear();
        }
        self.sleep(pool, until, self.renewal.next);
    }

    /// Sleep `until`, but not beyond `end`. A wake ends the sleep.
    fn sleep(&mut self, pool: &Shared, until: Until, end: u64) {
        let end = match until {
            Until::Now => return,
            Until::Deadline(deadline) => end.min(deadline),
            Until::Event => end,
        };
        let pause = end.saturating_sub(sys::now()).div_ceil(1_000_000);
        self.doze(pool, c_int::try_from(pause).unwrap_or(c_int::MAX));
    }

    /// Sleep until a wake, or for `timeout` milliseconds if that is not negative. If the wake pipe
    /// is gone, make a new one; if that fails, sleep for a short time.
    pub(super) fn doze(&mut self, pool: &Shared, timeout: c_int) {
        if pool.wake.wait(timeout) == Woken::Yes && pool.wake.clear() {
            return;
        }
        if self.mend(pool).is_err() {
            let most = (PAUSE / 1_000_000) as c_int;
            let timeout = if timeout < 0 { most } else { timeout.min(most) };
            // SAFETY: the array is empty, so its pointer may be null.
            unsafe { libc::poll(ptr::null_mut(), 0, timeout) };
        }
    }

    /// Make a new wake pipe if the old one is gone. True if so.
    fn mend(&mut self, pool: &Shared) -> io::Result<bool> {
        let mended = pool.wake.mend()?;
        if mended {
            pool.wake.rouse.give_back();
            self.report_closed(pool);
        }
        Ok(mended)
    }

    /// As [`EventLoop::mend`]. If it fails, whoever comes next tries again.
    pub(super) fn mend_or_leave(&mut self, pool: &Shared) {
        let _ = self.mend(pool);
    }

    fn report_closed(&mut self, pool: &Shared) {
        if self.renewal.is_new(sys::now()) {
            let what = "descriptors of the pool's own were closed, and are replaced";
            log!(pool.logger, LOG_CRIT, "event loop: {what}");
        }
    }

    /// Whether the poller still owns its descriptor numbers: whether it still watches everything
    /// that it should.
    fn is_sound(&mut self, pool: &Shared) -> bool {
        let (read, write) = (pool.wake.read_end(), pool.wake.write_end());
        let own = self.poller.numbers(read);
        let known = self.numbers.iter().filter(|fd| ![read, write].contains(fd));
        if self.numbers.iter().count() > 3 {
            return { known }.all(|fd| own.iter().any(|own| own == fd));
        }
        // The system does not list what the poller watches. Check the pipe at least.
        self.poller.is_sound(read)
    }

    /// Mark the numbers of the pool's own descriptors in the table, so that no job can use them.
    /// False if there is no memory for that.
    pub(crate) fn claim(&mut self, pool: &Shared) -> bool {
        let (read, write) = (pool.wake.read_end(), pool.wake.write_end());
        let mut numbers = self.poller.numbers(read);
        numbers.add(read);
        numbers.add(write);
        for fd in mem::take(&mut self.numbers).iter() {
            pool.fds.entry(fd).set_own(false);
        }
        for fd in numbers.iter() {
            let Some(entry) = pool.fds.reserve(&pool.alloc, fd) else {
                return false;
            };
            entry.set_own(true);
            self.numbers.add(fd);
        }
        true
    }

    /// Replace the poller, because of `why`, and register all descriptors with the new one. If that
    /// fails, try again later.
    #[cold]
    #[inline(never)]
    pub(super) fn renew(&mut self, pool: &Shared, why: Stale) {
        let now = sys::now();
        let why = self.renewal.pending.unwrap_or(why);
        if self.renewal.is_pending() && now < self.renewal.next {
            if why == Stale::Broken {
                return;
            }
            // The old poller works, but reports the same stale event at every wait. Pause before
            // the next.
            let until = if pool.wake.is_lost() && self.lists().ready.is_empty() {
                self.wheel.next().map_or(Until::Event, Until::Deadline)
            } else {
                self.until(pool)
            };
            self.sleep(pool, until, self.renewal.next.min(now + PAUSE));
            pool.wake.sleeping.end();
            if pool.watchdog.is_on() {
                pool.watchdog.woke();
            }
            pool.wake.nudged.store(true, Ordering::SeqCst);
            return;
        }
        if let Err(error) = self.try_renew(pool, why) {
            self.renewal.is_new(now);
            if self.renewal.backoff.0 == 0 {
                log!(pool.logger, LOG_ERR, "event loop: no new poller: {error}");
            }
            self.renewal.pending = Some(why);
            self.renewal.next = now + self.renewal.backoff.next();
            // While there is no pipe, nobody can wake the loop, so it must not sleep before it has
            // checked its queues.
            pool.wake.nudged.store(true, Ordering::SeqCst);
        } else {
            self.renewal.pending = None;
        }
    }

    fn try_renew(&mut self, pool: &Shared, why: Stale) -> io::Result<()> {
        let sound = self.is_sound(pool);
        let mended = self.mend(pool)?;
        if self.renewal.sound.is_none() {
            // If the pipe is intact although somebody found a descriptor of ours closed, it was one
            // of the poller's.
            let sound = sound && (mended || why != Stale::Wake);
            self.renewal.sound = Some(sound);
            if !sound {
                self.report_closed(pool);
            }
        }
        // Make the new poller before we close the old one, so that its descriptors do not get the
        // number of one that jobs have lost.
        let poller = {
            let _low = sys::LowNumbers::take();
            let mut poller =
                AnyPoller::new(self.poller.framework(), pool.wake.read_end(), self.roused)?;
            if !self.own_thread {
                poller.prepare_rest()?;
            }
            poller
        };
        if why == Stale::Registration {
            self.orphan_lost(pool);
        }
        let old = mem::replace(&mut self.poller, poller);
        // While the old one is open.
        self.watch_poller(pool);
        if self.renewal.sound.take() == Some(false) {
            old.abandon();
        }
        self.claim(pool);
        self.register_all(pool);
        Ok(())
    }
}
