// SPDX-License-Identifier: GPL-3.0-or-later
//! What failed is tried again, ever more rarely: descriptors that the poller refuses, and the poller
//! itself.
//!
//! A refusal for want of something (ENOSPC, ENOMEM …) may end at any time, and nothing tells when.
//! So the loop tries again: after a millisecond, then twice as long each time, up to a second.
//! Meanwhile the jobs of such a descriptor fire by their time only. One timer of the loop's own, in
//! the wheel beside those of the jobs, drives that for all descriptors.
//!
//! A *period* of refusals begins with the first, for each descriptor, which is logged. It ends when
//! the descriptor was taken and the back-off has come to a second: so one that is refused, taken and
//! refused again is logged once, and does not begin again at a millisecond each time.

use std::collections::VecDeque;
use std::io;
use std::mem;
use std::ptr;
use std::sync::atomic::Ordering;

use libc::c_int;

use super::fds::Registration;
use super::poller::{Native, Poller, Refusal, Trouble, Until};
use super::timers::{Timer, Wheel};
use super::wake::Woken;
use super::{EventLoop, Stale};
use crate::job::{JobPtr, place};
use crate::log::log;
use crate::shared::Shared;
use crate::sys;

/// The first pause, and the longest, in nanoseconds.
const FIRST: u64 = 1_000_000;
const LAST: u64 = 1_000_000_000;
/// Descriptors that one look tries at least. Of more, an eighth: each has its turn in a few seconds.
const TRIES: usize = 256;
/// Nanoseconds until a descriptor is looked at whose jobs were armed again without a word to the
/// poller and that was not heard of since: the least, for so many descriptors, and the most.
const UNHEARD: u64 = 50_000_000;
const FEW: usize = 16;
const MOST: u64 = 1_000_000_000;
/// Descriptors of that kind that one look takes, and nanoseconds until the next if there are more.
const LOOKS: usize = 1024;
const MORE: u64 = 5_000_000;
/// Nanoseconds between two looks at an old poller that is to be replaced and can't be: what it
/// reports for nobody, it reports at once.
const PAUSE: u64 = 10_000_000;

/// Pauses that double.
#[derive(Clone, Copy, Debug)]
pub(super) struct Backoff(u64);

impl Backoff {
    /// Nothing was tried yet.
    pub(super) const fn new() -> Self {
        Self(0)
    }

    /// The next pause, in nanoseconds.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = (self.0 * 2).clamp(FIRST, LAST);
        self.0
    }

    /// Whether the longest pause was reached.
    fn is_longest(self) -> bool {
        self.0 == LAST
    }
}

/// Descriptors to come back to.
pub(super) struct Later {
    /// Those that were refused in this period.
    refused: VecDeque<c_int>,
    backoff: Backoff,
    /// There was no memory to list one that was refused: it is to be looked for.
    unlisted: bool,
    /// Tries them again. The loop's own, in the wheel among those of jobs.
    pub(super) timer: Timer,
    /// Those whose jobs were armed again without a word to the poller.
    unheard: VecDeque<c_int>,
    /// When those are to be looked at, in nanoseconds of the monotonic clock; `u64::MAX`: never. Not
    /// a timer in the wheel: with one, each turn of a busy loop would look at the clock.
    pub(super) look: u64,
}

impl Later {
    pub(super) const fn new() -> Self {
        Self {
            refused: VecDeque::new(),
            backoff: Backoff::new(),
            unlisted: false,
            timer: Timer::new(),
            unheard: VecDeque::new(),
            look: u64::MAX,
        }
    }
}

/// How the poller comes to be made anew.
pub(super) struct Renewal {
    /// It is to be, and could not be, for this reason.
    pending: Option<Stale>,
    backoff: Backoff,
    /// When it is tried again.
    next: u64,
    /// Trouble that comes before then belongs to what was logged.
    calm: u64,
    /// Whether the old poller's numbers are its own to close, once that was asked: a number that
    /// was closed behind our back may stand for something of the application's.
    sound: Option<bool>,
}

impl Renewal {
    pub(super) const fn new() -> Self {
        Self {
            pending: None,
            backoff: Backoff::new(),
            next: 0,
            calm: 0,
            sound: None,
        }
    }

    /// Whether the poller that is there does not serve.
    pub(super) fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether trouble that comes at `now` is new. If so, the back-off begins anew.
    fn is_new(&mut self, now: u64) -> bool {
        let new = now >= self.calm;
        if new {
            self.backoff = Backoff::new();
        }
        self.calm = now + 2 * LAST;
        new
    }
}

impl EventLoop {
    /// Have refused descriptors tried again `delay` nanoseconds from now, or before.
    fn retry_in(&mut self, delay: u64) {
        let now = sys::now();
        let timer = &self.later.timer;
        if timer.is_linked() && timer.deadline() <= now + delay {
            return;
        }
        Wheel::remove(timer);
        timer.set_deadline(now + delay);
        if self.wheel.is_empty() {
            self.wheel.restart(now);
        }
        // SAFETY: not linked; the loop does not move, and takes it out before it ends.
        unsafe { self.wheel.insert(timer) };
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
                io::Error::from_raw_os_error(errno)
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

    /// `job` was armed again without a word to the poller: its descriptor is to be looked at if it is not heard of: the job's own callback may have closed it, and then nothing
    /// would ever come. While it is heard of, nobody needs to look.
    #[cold]
    #[inline(never)]
    pub(super) fn look_later(&mut self, pool: &Shared, job: JobPtr) {
        let fd = job.fd();
        job.mark(place::UNVERIFIED);
        if self.later.unheard.try_reserve(1).is_err() {
            return self.verify(pool, fd);
        }
        self.later.unheard.push_back(fd);
        if self.later.look == u64::MAX {
            self.look_in(UNHEARD);
        }
    }

    /// Look `delay` nanoseconds from now, however busy the loop is then.
    fn look_in(&mut self, delay: u64) {
        self.later.look = sys::now() + delay;
        self.poller.remind(self.later.look);
    }

    /// A time has come. Look at descriptors that nobody has heard of, if it was the time for that.
    #[cold]
    #[inline(never)]
    pub(super) fn look_at_unheard(&mut self, pool: &Shared) {
        if sys::now() < self.later.look {
            return;
        }
        self.later.look = u64::MAX;
        let count = self.later.unheard.len();
        for _ in 0..count.min(LOOKS) {
            let Some(fd) = self.later.unheard.pop_front() else {
                break;
            };
            let (mut any, mut heard) = (false, false);
            for job in super::io::jobs(pool.fds.entry(fd)) {
                any |= job.is(place::UNVERIFIED);
                heard |= job.is(place::HEARD);
                job.unmark(place::HEARD);
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
            let more = count > LOOKS;
            self.look_in(if more { MORE } else { rarely.min(MOST) });
        }
    }

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
            self.tell_closed(pool);
        }
        Ok(mended)
    }

    fn tell_closed(&mut self, pool: &Shared) {
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
            pool.nudged.store(true, Ordering::SeqCst);
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
            pool.nudged.store(true, Ordering::SeqCst);
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
                self.tell_closed(pool);
            }
        }
        // Before the old one is closed, so that its descriptors get numbers that no job has lost.
        let poller = {
            let _low = sys::LowNumbers::take();
            Native::init(pool.wake.read_end())?
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
