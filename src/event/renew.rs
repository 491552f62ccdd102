// SPDX-License-Identifier: GPL-3.0-or-later
//! A new poller: where the old one has a registration that can't be named any more, where it does not
//! work, and where the pool's own descriptors were closed behind its back.
//!
//! If it can't be made, or does not work either, it is made later: after a millisecond, then twice as
//! long each time, up to a second. Meanwhile the loop sleeps on the wake pipe, with a time-out, so that
//! requests, timers and wakes are served.

use std::io;
use std::mem;
use std::ptr;
use std::sync::atomic::Ordering;

use libc::c_int;

use super::backoff::Stale;
use super::event_loop::EventLoop;
use super::poller::{AnyPoller, Trouble, Until};
use crate::log::log;
use crate::shared::Shared;
use crate::sys;
use crate::wake::Woken;

/// Nanoseconds between two looks at an old poller that is to be replaced and can't be: what it
/// reports for nobody, it reports at once.
const PAUSE: u64 = 10_000_000;

impl EventLoop {
    /// A wait failed that was to last `until`.
    #[cold]
    #[inline(never)]
    pub(super) fn in_trouble(
        &mut self,
        pool: &Shared,
        trouble: Trouble,
        until: Until,
    ) -> (usize, bool) {
        match trouble {
            Trouble::Timer(errno) => log!(
                pool.logger,
                LOG_ERR,
                "event loop: timerfd fails, and timers go by milliseconds: {}",
                io::Error::from_raw_os_error(errno)
            ),
            Trouble::Broken(errno) => self.broken(pool, errno, until),
        }
        (0, false)
    }

    /// The poller does not work. It is made anew at once if that is new, and else in its time:
    /// until then, sleep.
    fn broken(&mut self, pool: &Shared, errno: c_int, until: Until) {
        let now = sys::now();
        if self.renewal.pending.is_none() {
            let lately = now < self.renewal.calm;
            if self.renewal.is_new(now) {
                log!(
                    pool.logger,
                    LOG_CRIT,
                    "event loop: the poller fails, and is made anew: {}",
                    io::Error::from_raw_os_error(errno)
                );
            }
            if !lately {
                self.stale = Some(Stale::Broken);
                return;
            }
            // It was made anew just now, and that did not help.
            self.renewal.pending = Some(Stale::Broken);
            self.renewal.next = now + self.renewal.backoff.next();
        } else if now >= self.renewal.next {
            self.stale = Some(Stale::Broken);
            return;
        }
        self.sleep(pool, until, self.renewal.next);
    }

    /// Sleep `until`, but no longer than to `end`. Woken by: whoever wakes the loop.
    fn sleep(&mut self, pool: &Shared, until: Until, end: u64) {
        let end = match until {
            Until::Now => return,
            Until::Deadline(deadline) => end.min(deadline),
            Until::Event => end,
        };
        let pause = end.saturating_sub(sys::now()).div_ceil(1_000_000);
        self.doze(pool, c_int::try_from(pause).unwrap_or(c_int::MAX));
    }

    /// Sleep until somebody wakes the loop, or for so many milliseconds if that is not negative. If
    /// there is no pipe, a new one is made; if there can be none, sleep for a little.
    pub(super) fn doze(&mut self, pool: &Shared, timeout: c_int) {
        if pool.wake.wait(timeout) == Woken::Yes && pool.wake.clear() {
            return;
        }
        if self.mend(pool).is_err() {
            let most = (PAUSE / 1_000_000) as c_int;
            let timeout = if timeout < 0 { most } else { timeout.min(most) };
            // SAFETY: no descriptor, only the time.
            unsafe { libc::poll(ptr::null_mut(), 0, timeout) };
        }
    }

    /// See to it that there is a wake pipe.
    fn mend(&mut self, pool: &Shared) -> io::Result<bool> {
        let mended = pool.wake.mend()?;
        if mended {
            pool.wake.rouse.give_back();
            self.report_closed(pool);
        }
        Ok(mended)
    }

    fn report_closed(&mut self, pool: &Shared) {
        if self.renewal.is_new(sys::now()) {
            let what = "descriptors of its own were closed behind its back, and are made anew";
            log!(pool.logger, LOG_CRIT, "event loop: {what}");
        }
    }

    /// Whether the poller's numbers are still its own to close: it watches all that it did.
    fn is_sound(&mut self, pool: &Shared) -> bool {
        let (read, write) = (pool.wake.read_end(), pool.wake.write_end());
        let own = self.poller.numbers(read);
        let known = self.numbers.iter().filter(|fd| ![read, write].contains(fd));
        if self.numbers.iter().count() > 3 {
            return { known }.all(|fd| own.iter().any(|own| own == fd));
        }
        // The system does not tell what it watches. The pipe at least?
        self.poller.is_sound(read)
    }

    /// The numbers of the pool's own descriptors are for no job. False if there is no memory to say
    /// so.
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

    /// Make the poller anew, from what is registered: for registrations that outlive their
    /// descriptor's number and can't be reached any more, and where it does not work. Later, if it
    /// can't be.
    #[cold]
    #[inline(never)]
    pub(super) fn renew(&mut self, pool: &Shared, why: Stale) {
        let now = sys::now();
        let why = self.renewal.pending.unwrap_or(why);
        if self.renewal.is_pending() && now < self.renewal.next {
            if why == Stale::Broken {
                return;
            }
            // The old one works, and reports the same again at once. Not in a hurry.
            let until = if pool.wake.is_lost() && self.ready.is_empty() {
                self.wheel.next().map_or(Until::Event, Until::Deadline)
            } else {
                self.until(pool)
            };
            self.sleep(pool, until, self.renewal.next.min(now + PAUSE));
            pool.wake.sleeping.end();
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
            // Nobody can wake the loop while there is no pipe.
            pool.wake.nudged.store(true, Ordering::SeqCst);
        } else {
            self.renewal.pending = None;
        }
    }

    fn try_renew(&mut self, pool: &Shared, why: Stale) -> io::Result<()> {
        let sound = self.is_sound(pool);
        let mended = self.mend(pool)?;
        if self.renewal.sound.is_none() {
            // The pipe is whole: then it was another of ours that somebody found to be gone.
            let sound = sound && (mended || why != Stale::Wake);
            self.renewal.sound = Some(sound);
            if !sound {
                self.report_closed(pool);
            }
        }
        // Before the old one is closed, so that its descriptors get numbers that no job has lost.
        let poller = {
            let _low = sys::LowNumbers::take();
            AnyPoller::new(self.poller.framework(), pool.wake.read_end(), self.roused)?
        };
        if why == Stale::Registration {
            self.abandon_lost(pool);
        }
        let old = mem::replace(&mut self.poller, poller);
        if self.renewal.sound.take() == Some(false) {
            mem::forget(old);
        }
        self.claim(pool);
        self.register_all(pool);
        Ok(())
    }
}
