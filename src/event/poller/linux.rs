// SPDX-License-Identifier: GPL-3.0-or-later
//! Linux: epoll_wait on `polling`'s descriptor, without a time-out, beside a timerfd.
//!
//! A time-out given to epoll_wait is late by up to a thousandth of itself (timer slack); a timerfd
//! is not. It is set to an absolute time, and only when the earliest deadline got earlier: when
//! it got later, the old time comes, nothing is due, and the new one is set then. It is
//! registered edge-triggered, so that nobody needs to read it.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use libc::c_int;

use super::{Event, Key, Poller, Refusal, Registry, Until, WAKE_KEY};
use crate::event::fds::{Interest, Mode};

/// The key under which the timerfd is registered.
const TIMER_KEY: usize = usize::MAX - 2;

/// Events in one wait. Also how many descriptors may be served between two looks at a listener.
const EVENTS: usize = 128;

/// See the module.
pub(crate) struct Epoll {
    registry: Registry,
    timer: OwnedFd,
    /// What the timer is set to, in nanoseconds of the monotonic clock; `u64::MAX`: not set.
    set: u64,
    events: [MaybeUninit<libc::epoll_event>; EVENTS],
}

impl Poller for Epoll {
    fn init(wake: RawFd) -> io::Result<Self> {
        let registry = Registry::new(wake)?;
        let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
        // SAFETY: plain constants.
        let timer = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
        if timer < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, ours.
        let timer = unsafe { OwnedFd::from_raw_fd(timer) };
        let event = polling::Event::readable(TIMER_KEY);
        // SAFETY: both live in the same struct, and closing the timer unregisters it.
        unsafe {
            registry
                .polling
                .add_with_mode(&timer, event, polling::PollMode::Edge)?;
        }
        Ok(Self {
            registry,
            timer,
            set: u64::MAX,
            events: [MaybeUninit::uninit(); EVENTS],
        })
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

    fn wait(&mut self, until: Until) -> io::Result<(usize, bool)> {
        let timeout = match until {
            Until::Now => 0,
            Until::Event => -1,
            Until::Deadline(deadline) => {
                if deadline < self.set {
                    self.set_timer(deadline)?;
                }
                -1
            }
        };
        // SAFETY: room for as many events as is said.
        let count = unsafe {
            libc::epoll_wait(
                self.registry.polling.as_raw_fd(),
                self.events.as_mut_ptr().cast(),
                EVENTS as c_int,
                timeout,
            )
        };
        if count < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == io::ErrorKind::Interrupted {
                Ok((0, false))
            } else {
                Err(error)
            };
        }
        Ok((count as usize, count as usize == EVENTS))
    }

    fn event(&mut self, index: usize) -> Event {
        // SAFETY: the kernel wrote this one: `index` is below what `wait` returned.
        let event = unsafe { self.events[index].assume_init() };
        if event.u64 == WAKE_KEY as u64 {
            return Event::Wake;
        }
        if event.u64 == TIMER_KEY as u64 {
            self.set = u64::MAX;
            return Event::Time;
        }
        let flags = event.events;
        let has = |bits: c_int| flags & bits as u32 != 0;
        let broken = has(libc::EPOLLHUP | libc::EPOLLERR);
        Event::Ready(
            Key::unpack(event.u64 as usize),
            Interest::new(has(libc::EPOLLIN) || broken, has(libc::EPOLLOUT) || broken),
        )
    }

    fn release_in_child(self) {
        self.registry.release_in_child();
    }
}

impl Epoll {
    fn set_timer(&mut self, deadline: u64) -> io::Result<()> {
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
        // SAFETY: our timer, and a time of ours.
        let done = unsafe {
            libc::timerfd_settime(
                self.timer.as_raw_fd(),
                libc::TFD_TIMER_ABSTIME,
                &time,
                ptr::null_mut(),
            )
        };
        if done != 0 {
            return Err(io::Error::last_os_error());
        }
        self.set = deadline;
        Ok(())
    }
}
