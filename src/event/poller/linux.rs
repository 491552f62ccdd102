// SPDX-License-Identifier: GPL-3.0-or-later
//! Linux: epoll_wait on `polling`'s descriptor, without a time-out, beside a timerfd.
//!
//! The timer slack makes epoll_wait's time-out late by up to a thousandth of its length; a timerfd
//! is not late. It is set to an absolute time, and only when the earliest deadline gets earlier.
//! When that gets later, the timer expires at the old time, nothing is due, and only then is it set
//! to the new one. It is registered edge-triggered, so nobody needs to read it.
//!
//! If the system has no timerfd, or refuses to set it (in a sandbox), waits do have a time-out: in
//! milliseconds, rounded up, so that none ends early. The timer is tried again once a second.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use libc::c_int;

use super::contract::{
    Batch, EVENTS, IN, Key, LONGEST, Numbers, Poller, Refusal, TIME_KEY, Until, WaitError,
};
use super::registry::{Keys, Registry};
use super::timerfd;
use crate::fds::{Interest, Mode};
use crate::sys;

/// After the system has refused to set the timer, it is tried again after this many nanoseconds.
const RETRY: u64 = 1_000_000_000;

/// The epoll poller. See the module.
pub(crate) struct Epoll {
    registry: Registry,
    /// The timerfd, or the errno that says why there is none.
    timer: Result<OwnedFd, c_int>,
    /// The system has refused to set the timer, and it is not tried again before this time of the
    /// monotonic clock. 0: it has not refused. `u64::MAX`: never try again.
    retry_at: u64,
    /// The time that the timer is set to, in nanoseconds of the monotonic clock; `u64::MAX` if it
    /// is not set.
    set_to: u64,
    /// The time-out of a wait without a deadline, in milliseconds; -1 for none.
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
    fn wait(&mut self, until: Until, found: &mut Batch) -> Result<(usize, bool), WaitError> {
        let timeout = match until {
            Until::Now => 0,
            Until::Event => self.longest,
            Until::Deadline(deadline) if deadline >= self.set_to => self.longest,
            Until::Deadline(deadline) if self.retry_at == 0 && self.set_timer(deadline) => {
                self.longest
            }
            Until::Deadline(deadline) => self.without_timer(deadline)?,
        };
        // SAFETY: `events` has room for `EVENTS` events, and `Raw` is the kernel's type.
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
        if deadline < self.set_to && self.retry_at == 0 {
            self.set_timer(deadline);
        }
    }

    fn time_came(&mut self) {
        self.set_to = u64::MAX;
    }

    fn wait_fd(&self) -> Option<RawFd> {
        self.timer
            .is_ok()
            .then(|| self.registry.polling.as_raw_fd())
    }

    fn rest(&mut self, deadline: u64, exact: bool) -> bool {
        if deadline == self.set_to || deadline > self.set_to && !exact {
            return true;
        }
        let may_set = self.retry_at == 0 || sys::now() >= self.retry_at;
        may_set && self.set_timer(deadline) || deadline == u64::MAX
    }

    fn release_in_child(self) {
        self.registry.release_in_child();
    }
}

impl Epoll {
    /// See [`AnyPoller::new`](super::AnyPoller::new).
    pub(super) fn new(wake: RawFd, roused: bool) -> io::Result<Self> {
        let registry = Registry::new(wake, Keys::Whole)?;
        let timer = timerfd::make().map_err(|error| error.raw_os_error().unwrap_or(libc::EIO));
        let timer = match timer {
            // For these reasons later calls would fail too.
            Err(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => {
                return Err(io::Error::last_os_error());
            }
            timer => timer,
        };
        if let Ok(timer) = &timer {
            timerfd::register(timer, &registry)?;
        }
        Ok(Self {
            registry,
            timer,
            retry_at: 0,
            set_to: u64::MAX,
            longest: if roused { -1 } else { LONGEST },
        })
    }

    /// Set the timer. False if that failed; then errno says why.
    fn set_timer(&mut self, deadline: u64) -> bool {
        let Ok(timer) = &self.timer else {
            return false;
        };
        if !timerfd::set(timer, deadline) {
            return false;
        }
        self.set_to = deadline;
        true
    }

    /// The result of an epoll_wait with the time-out `timeout` that returned no event: `count` is
    /// 0, or negative if it failed.
    #[cold]
    #[inline(never)]
    fn nothing(
        &self,
        count: c_int,
        timeout: c_int,
        found: &mut Batch,
    ) -> Result<(usize, bool), WaitError> {
        if count < 0 {
            return match sys::errno() {
                libc::EINTR => Ok((0, false)),
                errno => Err(WaitError::Broken(errno)),
            };
        }
        if timeout == 0 || timeout == self.longest {
            return Ok((0, false));
        }
        // Report the deadline as the timer would.
        found.put(0, TIME_KEY as u64, IN);
        Ok((1, false))
    }

    /// The time-out in milliseconds of a wait with a `deadline` that the timer is not set for,
    /// because setting it has just failed (which this reports) or failed earlier.
    #[cold]
    #[inline(never)]
    fn without_timer(&mut self, deadline: u64) -> Result<c_int, WaitError> {
        let errno = sys::errno();
        let now = sys::now();
        if self.retry_at == 0 {
            let errno = match self.timer {
                Err(errno) => errno,
                Ok(_) => errno,
            };
            self.retry_at = now + RETRY;
            self.let_go_if_lost();
            return Err(WaitError::Timer(errno));
        }
        if now >= self.retry_at && self.timer.is_ok() {
            self.retry_at = 0;
            if self.set_timer(deadline) {
                return Ok(self.longest);
            }
            self.retry_at = now + RETRY;
            self.let_go_if_lost();
        }
        // At least 1: a wait with time-out 0 would not report that the deadline has passed.
        let left = deadline.saturating_sub(now).div_ceil(1_000_000).max(1);
        let left = c_int::try_from(left).unwrap_or(c_int::MAX);
        // `nothing` takes any other time-out than `longest` for a deadline that has passed.
        Ok(if self.longest < 0 {
            left
        } else {
            left.min(self.longest)
        })
    }

    /// The application may have closed the timer's number, which may now refer to another file.
    /// Then we must neither set nor close it.
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
