// SPDX-License-Identifier: GPL-3.0-or-later
//! Linux: epoll_wait on `polling`'s descriptor, without a time-out, beside a timerfd.
//!
//! A time-out given to epoll_wait is late by up to a thousandth of itself (timer slack); a timerfd
//! is not. It is set to an absolute time, and only when the earliest deadline got earlier: when
//! it got later, the old time comes, nothing is due, and the new one is set then. It is
//! registered edge-triggered, so that nobody needs to read it.
//!
//! Where the system has no timerfd, or does not set it (a sandbox), waits have a time-out after all:
//! in milliseconds, rounded up, so that none ends early. Setting is tried again once a second.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::c_int;

use super::contract::{
    Batch, EVENTS, IN, Key, LONGEST, Numbers, Poller, Refusal, TIME_KEY, Trouble, Until,
};
use super::registry::Registry;
use crate::fds::{Interest, Mode};
use crate::sys;

/// Nanoseconds until a timer is set again that the system did not set.
const RETRY: u64 = 1_000_000_000;

/// See the module.
pub(crate) struct Epoll {
    registry: Registry,
    /// Or why there is none, an errno.
    timer: Result<OwnedFd, c_int>,
    /// The timer is not set before then, by the monotonic clock: the system refuses to. 0: it does
    /// not refuse. `u64::MAX`: never.
    rests: u64,
    /// What the timer is set to, in nanoseconds of the monotonic clock; `u64::MAX`: not set.
    set: u64,
    /// The time-out of a wait that nothing else bounds, in milliseconds, or -1.
    longest: c_int,
}

impl Poller for Epoll {
    fn numbers(&self, wake: RawFd) -> Numbers {
        self.registry.numbers(wake)
    }

    fn is_sound(&mut self, wake: RawFd) -> bool {
        self.registry.disarm(wake)
    }

    fn arm(
        &mut self,
        key: Key,
        interest: Interest,
        mode: Mode,
        known: bool,
    ) -> Result<(), Refusal> {
        self.registry.arm(key, interest, mode, known)
    }

    fn disarm(&mut self, fd: c_int) -> bool {
        self.registry.disarm(fd)
    }

    #[inline(always)]
    fn wait(&mut self, until: Until, found: &mut Batch) -> Result<(usize, bool), Trouble> {
        let timeout = match until {
            Until::Now => 0,
            Until::Event => self.longest,
            Until::Deadline(deadline) if deadline >= self.set => self.longest,
            Until::Deadline(deadline) if self.rests == 0 && self.set_timer(deadline) => {
                self.longest
            }
            Until::Deadline(deadline) => self.without_timer(deadline)?,
        };
        // SAFETY: room for as many events as is said.
        let count = unsafe {
            libc::epoll_wait(
                self.registry.polling.as_raw_fd(),
                found.events.as_mut_ptr().cast(),
                EVENTS as c_int,
                timeout,
            )
        };
        if count <= 0 {
            return self.nothing(count, timeout, found);
        }
        Ok((count as usize, count as usize == EVENTS))
    }

    fn remind(&mut self, deadline: u64) {
        if deadline < self.set && self.rests == 0 {
            self.set_timer(deadline);
        }
    }

    fn time_came(&mut self) {
        self.set = u64::MAX;
    }

    fn release_in_child(self) {
        self.registry.release_in_child();
    }
}

impl Epoll {
    /// See [`AnyPoller::new`](super::AnyPoller::new).
    pub(super) fn new(wake: RawFd, roused: bool) -> io::Result<Self> {
        let registry = Registry::new(wake)?;
        let timer = match Self::make_timer() {
            // Others would fail for the same reason later.
            Err(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => {
                return Err(io::Error::last_os_error());
            }
            timer => timer,
        };
        if let Ok(timer) = &timer {
            let event = polling::Event::readable(TIME_KEY);
            // SAFETY: both live in the same struct, and closing the timer unregisters it.
            unsafe {
                registry
                    .polling
                    .add_with_mode(timer, event, polling::PollMode::Edge)?;
            }
        }
        Ok(Self {
            registry,
            timer,
            rests: 0,
            set: u64::MAX,
            longest: if roused { -1 } else { LONGEST },
        })
    }

    /// A timer, or an errno.
    fn make_timer() -> Result<OwnedFd, c_int> {
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: plain constants.
        let timer = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
        if timer < 0 {
            return Err(sys::errno());
        }
        // SAFETY: just opened, ours.
        Ok(unsafe { OwnedFd::from_raw_fd(timer) })
    }

    /// Set the timer. False if it is not set; errno says why.
    fn set_timer(&mut self, deadline: u64) -> bool {
        let Ok(timer) = &self.timer else {
            return false;
        };
        // Zero would switch the timer off.
        let deadline = deadline.max(1);
        let time = libc::itimerspec {
            it_interval: libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: libc::timespec {
                tv_sec: (deadline / 1_000_000_000) as libc::time_t,
                tv_nsec: (deadline % 1_000_000_000) as libc::c_long,
            },
        };
        let flags = libc::TFD_TIMER_ABSTIME;
        // SAFETY: our timer, and a time of ours.
        if unsafe { libc::timerfd_settime(timer.as_raw_fd(), flags, &time, ptr::null_mut()) } != 0 {
            return false;
        }
        self.set = deadline;
        true
    }

    /// A wait returned no event: `count` is 0, or less if it failed. It had the time-out `timeout`.
    #[cold]
    #[inline(never)]
    fn nothing(
        &self,
        count: c_int,
        timeout: c_int,
        found: &mut Batch,
    ) -> Result<(usize, bool), Trouble> {
        if count < 0 {
            return match sys::errno() {
                libc::EINTR => Ok((0, false)),
                errno => Err(Trouble::Broken(errno)),
            };
        }
        if timeout == 0 || timeout == self.longest {
            return Ok((0, false));
        }
        // As the timer would say it.
        found.put(0, TIME_KEY, IN);
        Ok((1, false))
    }

    /// The time-out of a wait, in milliseconds, while the timer is not set for `deadline`: because
    /// it could not just now, which is told, or could not before.
    #[cold]
    #[inline(never)]
    fn without_timer(&mut self, deadline: u64) -> Result<c_int, Trouble> {
        let errno = sys::errno();
        let now = sys::now();
        if self.rests == 0 {
            let errno = match self.timer {
                Err(errno) => errno,
                Ok(_) => errno,
            };
            self.rests = now + RETRY;
            self.let_go_if_lost();
            return Err(Trouble::Timer(errno));
        }
        if now >= self.rests && self.timer.is_ok() {
            self.rests = 0;
            if self.set_timer(deadline) {
                return Ok(self.longest);
            }
            self.rests = now + RETRY;
            self.let_go_if_lost();
        }
        // Not 0, or nobody would be told that the time has come.
        let left = deadline.saturating_sub(now).div_ceil(1_000_000).max(1);
        let left = c_int::try_from(left).unwrap_or(c_int::MAX);
        // Below that, a wait that ends has come to its deadline.
        Ok(if self.longest < 0 {
            left
        } else {
            left.min(self.longest)
        })
    }

    /// The timer's number may have been closed behind our back and stand for something else: then
    /// it is not ours to set, nor to close.
    fn let_go_if_lost(&mut self) {
        if let Ok(timer) = &self.timer {
            let event = polling::Event::readable(TIME_KEY);
            let edge = polling::PollMode::Edge;
            if self
                .registry
                .polling
                .modify_with_mode(timer, event, edge)
                .is_err()
            {
                let lost = std::mem::replace(&mut self.timer, Err(libc::EBADF));
                std::mem::forget(lost);
            }
        }
    }
}
