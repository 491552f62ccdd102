// SPDX-License-Identifier: GPL-3.0-or-later
//! The poller: what the loop needs of an event framework, and the `polling` crate behind it.
//!
//! [`Poller`] is the small trait through which the loop reaches a framework. Registration goes
//! through `polling` everywhere. Waiting does on Linux not: there [`linux`] waits on `polling`'s
//! own descriptor, beside a timerfd, which takes one system call where `polling` takes five.
//! [`portable`] is for every other system, and for Linux under `cfg(ns_portable_poller)`.

use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use libc::c_int;

use crate::event::fds::{Interest, Mode};

#[cfg(all(target_os = "linux", not(ns_portable_poller)))]
mod linux;
#[cfg(any(not(target_os = "linux"), ns_portable_poller))]
mod portable;

#[cfg(all(target_os = "linux", not(ns_portable_poller)))]
pub(crate) use linux::Epoll as Native;
#[cfg(any(not(target_os = "linux"), ns_portable_poller))]
pub(crate) use portable::Portable as Native;

/// What an event is for: a descriptor's number and the serial of its registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) fd: c_int,
    pub(crate) serial: u32,
}

/// The key under which the wake pipe is registered: no descriptor's, as serials have 24 bits.
const WAKE_KEY: usize = usize::MAX - 1;

const _: () = assert!(usize::BITS == 64, "keys need 64 bits");

impl Key {
    fn pack(self) -> usize {
        (self.serial as usize) << 32 | self.fd as usize
    }

    fn unpack(key: usize) -> Self {
        Self {
            fd: key as u32 as c_int,
            serial: (key >> 32) as u32,
        }
    }
}

/// Something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The wake pipe has a byte.
    Wake,
    /// The time has come that the poller waited for.
    #[cfg_attr(any(not(target_os = "linux"), ns_portable_poller), allow(dead_code))]
    Time,
    /// A descriptor is ready, in these directions: none of them if there is only urgent data.
    Ready(Key, Interest),
}

/// Why a descriptor was not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The poller has no registration to modify.
    Unknown,
    /// It cannot be polled, since it never blocks.
    AlwaysReady,
    /// It is not open.
    Closed,
    /// Anything else, by errno.
    Failed(c_int),
}

/// How long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Not at all: see what is there.
    Now,
    /// Until something happens or the monotonic clock shows this many nanoseconds.
    Deadline(u64),
    /// Until something happens.
    Event,
}

/// What the loop needs of an event framework. One thread uses it.
pub(crate) trait Poller: Sized {
    /// Make one that watches the readable end of the wake pipe.
    fn init(wake: RawFd) -> io::Result<Self>;

    /// Register `key.fd`, not registered before, or change its registration if `known`.
    fn arm(&mut self, key: Key, interest: Interest, mode: Mode, known: bool)
    -> Result<(), Refusal>;

    /// Forget `fd`. False if there was nothing to forget.
    fn disarm(&mut self, fd: c_int) -> bool;

    /// Wait, and return how many events there are, and whether there may be more.
    fn wait(&mut self, until: Until) -> io::Result<(usize, bool)>;

    /// One of the events of the last wait. Each is asked for before the next wait.
    fn event(&mut self, index: usize) -> Event;

    /// In a forked child: close the descriptors that it shares with its parent, and do nothing
    /// that would reach the parent's registrations.
    fn release_in_child(self);
}

/// Registration by the `polling` crate, which all implementations share.
struct Registry {
    polling: polling::Poller,
}

impl Registry {
    fn new(wake: RawFd) -> io::Result<Self> {
        let polling = polling::Poller::new()?;
        let event = polling::Event::readable(WAKE_KEY);
        // SAFETY: the pool closes the pipe after the poller.
        unsafe { polling.add_with_mode(wake, event, polling::PollMode::Level)? };
        Ok(Self { polling })
    }

    fn arm(&self, key: Key, interest: Interest, mode: Mode, known: bool) -> Result<(), Refusal> {
        let event = polling::Event::new(key.pack(), interest.read(), interest.write());
        let mode = match mode {
            Mode::Level => polling::PollMode::Level,
            Mode::Oneshot => polling::PollMode::Oneshot,
            Mode::Edge => polling::PollMode::Edge,
        };
        let add = || {
            // SAFETY: a descriptor that is not open is refused; one that is closed while it is
            // registered is what the serials are for.
            unsafe { self.polling.add_with_mode(key.fd, event, mode) }
        };
        // SAFETY: only for the length of a call that takes any number.
        let fd = unsafe { BorrowedFd::borrow_raw(key.fd) };
        let modify = || self.polling.modify_with_mode(fd, event, mode);
        let done = if known {
            modify()
        } else {
            match add() {
                // Registered under an earlier serial and never taken out.
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => modify(),
                done => done,
            }
        };
        done.map_err(|error| match error.raw_os_error().unwrap_or(libc::EIO) {
            libc::ENOENT => Refusal::Unknown,
            libc::EPERM => Refusal::AlwaysReady,
            libc::EBADF => Refusal::Closed,
            errno => Refusal::Failed(errno),
        })
    }

    /// See [`Poller::release_in_child`].
    #[cfg(target_os = "linux")]
    fn release_in_child(self) {
        use std::os::fd::AsRawFd;
        // polling takes its own descriptors out of the epoll instance when it is dropped, and
        // that instance is the parent's too. So another is put under its number first.
        // SAFETY: plain calls on descriptors of ours; the new instance is the child's alone.
        unsafe {
            let other = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            if other < 0 {
                // No descriptor to be had: leave this one open rather than reach the parent.
                std::mem::forget(self);
                return;
            }
            libc::dup3(other, self.polling.as_raw_fd(), libc::O_CLOEXEC);
            crate::sys::close(other);
        }
        drop(self);
    }

    /// See [`Poller::release_in_child`].
    #[cfg(not(target_os = "linux"))]
    fn release_in_child(self) {
        // A kqueue is not inherited: there is nothing to close, and its number may be another's.
        std::mem::forget(self);
    }

    fn disarm(&self, fd: c_int) -> bool {
        // ENOENT, EBADF and EPERM all mean that there is nothing to forget.
        // SAFETY: only for the length of a call that takes any number.
        self.polling
            .delete(unsafe { BorrowedFd::borrow_raw(fd) })
            .is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_no_other_events() {
        for (fd, serial) in [(0, 0), (7, 1), (c_int::MAX, 0xff_ffff)] {
            let key = Key { fd, serial };
            assert_eq!(Key::unpack(key.pack()), key);
            assert!(key.pack() < WAKE_KEY - 1);
        }
    }
}
