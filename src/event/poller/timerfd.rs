// SPDX-License-Identifier: GPL-3.0-or-later
//! A timerfd: a descriptor that is readable from a time on.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use super::contract::TIME_KEY;
use super::registry::Registry;
use crate::sys;

/// Make a timerfd. If that fails, errno says why.
pub(super) fn make() -> io::Result<OwnedFd> {
    let flags = libc::TFD_CLOEXEC | libc::TFD_NONBLOCK;
    // SAFETY: a call without pointers.
    let timer = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, flags) };
    if timer < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was opened here, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(timer) })
}

/// Have `registry` watch `timer`, edge-triggered, so that nobody needs to read it.
pub(super) fn register(timer: &OwnedFd, registry: &Registry) -> io::Result<()> {
    let event = polling::Event::readable(TIME_KEY);
    // SAFETY: `polling` requires that the timer is removed before it is closed. Both are fields of one
    // struct, and closing the only descriptor of the timer unregisters it.
    unsafe {
        registry
            .polling
            .add_with_mode(timer, event, polling::PollMode::Edge)
    }
}

/// Set `timer` to a time of the monotonic clock, in nanoseconds; `u64::MAX` for none. False if that failed;
/// then errno says why.
// Inlined in the loop's wait, its divisions would be made for waits that set no timer, too.
#[inline(never)]
pub(super) fn set(timer: &OwnedFd, deadline: u64) -> bool {
    // Zero disarms the timer.
    let deadline = match deadline {
        u64::MAX => 0,
        deadline => deadline.max(1),
    };
    let time = libc::itimerspec {
        it_interval: sys::timespec(0),
        it_value: sys::timespec(deadline),
    };
    let flags = libc::TFD_TIMER_ABSTIME;
    // SAFETY: the new value is a local variable, and the old one is not asked for.
    unsafe { libc::timerfd_settime(timer.as_raw_fd(), flags, &time, ptr::null_mut()) == 0 }
}
