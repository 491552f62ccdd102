// SPDX-License-Identifier: GPL-3.0-or-later
//! Registration through the `polling` crate, which all pollers share.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use libc::c_int;

use super::contract::{Key, Numbers, Refusal, WAKE_KEY};
#[cfg(target_pointer_width = "32")]
use super::short;
use crate::fds::Interest;
use crate::fds::Mode;
use crate::sys;

/// Whose keys a poller reads. They differ only where a `usize` has 32 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Keys {
    /// Those of `polling`, which are a `usize`: there, a key has to be shortened.
    OfPolling,
    /// The kernel's, of 64 bits: there, the registry registers descriptors itself.
    #[cfg(target_os = "linux")]
    Whole,
}

impl Keys {
    /// What `polling` stores as the key of a registration.
    fn write(key: Key) -> usize {
        #[cfg(target_pointer_width = "32")]
        return short::write(key.fd, key.serial) as usize;
        #[cfg(not(target_pointer_width = "32"))]
        return key.pack() as usize;
    }

    /// A key that [`Keys::write`] has made, or that is none of a descriptor's.
    pub(super) fn read(key: usize) -> u64 {
        #[cfg(target_pointer_width = "32")]
        return short::read(key as u32)
            .map_or(key as u64, |(fd, serial)| Key { fd, serial }.pack());
        #[cfg(not(target_pointer_width = "32"))]
        return key as u64;
    }
}

/// Registers descriptors with `polling`.
pub(super) struct Registry {
    pub(super) polling: polling::Poller,
    #[cfg(all(target_os = "linux", target_pointer_width = "32"))]
    keys: Keys,
}

impl Registry {
    #[cfg_attr(not(target_pointer_width = "32"), allow(unused_variables))]
    pub(super) fn new(wake: RawFd, keys: Keys) -> io::Result<Self> {
        let polling = polling::Poller::new()?;
        let event = polling::Event::readable(WAKE_KEY);
        // SAFETY: `polling` requires that the descriptor is removed before it is closed. The pool
        // closes the pipe after the poller, which ends all registrations.
        unsafe { polling.add_with_mode(wake, event, polling::PollMode::Level)? };
        Ok(Self {
            polling,
            #[cfg(all(target_os = "linux", target_pointer_width = "32"))]
            keys,
        })
    }

    pub(super) fn arm(
        &self,
        key: Key,
        interest: Interest,
        mode: Mode,
        known: bool,
    ) -> Result<(), Refusal> {
        #[cfg(all(target_os = "linux", target_pointer_width = "32"))]
        if self.keys == Keys::Whole {
            return self.arm_whole(key, interest, mode, known);
        }
        let event = polling::Event::new(Keys::write(key), interest.read(), interest.write());
        let mode = match mode {
            Mode::Level => polling::PollMode::Level,
            Mode::Oneshot => polling::PollMode::Oneshot,
            Mode::Edge => polling::PollMode::Edge,
        };
        let add = || {
            // SAFETY: `polling` requires an open descriptor that is removed before it is closed.
            // The kernel refuses one that is not open; if one is closed while it is registered, its
            // serial makes its events stale.
            unsafe { self.polling.add_with_mode(key.fd, event, mode) }
        };
        // SAFETY: the borrow lasts for one call, which merely passes the number to the kernel.
        let fd = unsafe { BorrowedFd::borrow_raw(key.fd) };
        let modify = || self.polling.modify_with_mode(fd, event, mode);
        let done = if known {
            modify()
        } else {
            match add() {
                // The poller still has a registration of it under an earlier serial.
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => modify(),
                done => done,
            }
        };
        done.map_err(|error| {
            let errno = error.raw_os_error().unwrap_or(libc::EIO);
            why(self.polling.as_raw_fd(), key.fd, known, errno)
        })
    }

    /// Like [`Registry::arm`], with a key of 64 bits, which `polling` can't pass on here. It registers
    /// what `polling` would.
    #[cfg(all(target_os = "linux", target_pointer_width = "32"))]
    fn arm_whole(
        &self,
        key: Key,
        interest: Interest,
        mode: Mode,
        known: bool,
    ) -> Result<(), Refusal> {
        let flag = |set, flags| if set { flags } else { 0 };
        let broken = libc::EPOLLHUP | libc::EPOLLERR;
        let events = flag(interest.read(), libc::EPOLLIN | libc::EPOLLPRI | broken)
            | flag(interest.write(), libc::EPOLLOUT | broken)
            | match mode {
                Mode::Level => 0,
                Mode::Oneshot => libc::EPOLLONESHOT,
                Mode::Edge => libc::EPOLLET,
            };
        let mut event = libc::epoll_event {
            events: events as u32,
            u64: key.pack(),
        };
        let poller = self.polling.as_raw_fd();
        let mut control = |operation| {
            // SAFETY: the event is ours, and the kernel refuses numbers that are not open.
            let done = unsafe { libc::epoll_ctl(poller, operation, key.fd, &raw mut event) };
            if done == 0 { Ok(()) } else { Err(sys::errno()) }
        };
        let done = if known {
            control(libc::EPOLL_CTL_MOD)
        } else {
            match control(libc::EPOLL_CTL_ADD) {
                // The poller still has a registration of it under an earlier serial.
                Err(libc::EEXIST) => control(libc::EPOLL_CTL_MOD),
                done => done,
            }
        };
        done.map_err(|errno| why(poller, key.fd, known, errno))
    }

    /// See `Poller::numbers`. `polling` shows only one of its descriptors. On Linux, the others are
    /// found among the descriptors that this one watches.
    #[cfg_attr(not(target_os = "linux"), allow(unused_variables))]
    pub(super) fn numbers(&self, wake: RawFd) -> Numbers {
        let mut numbers = Numbers::default();
        let own = self.polling.as_raw_fd();
        numbers.add(own);
        #[cfg(target_os = "linux")]
        for line in std::fs::read_to_string(format!("/proc/self/fdinfo/{own}"))
            .unwrap_or_default()
            .lines()
        {
            let mut words = line.split_ascii_whitespace();
            if words.next() != Some("tfd:") {
                continue;
            }
            match words.next().map(str::parse) {
                Some(Ok(fd)) if fd != wake => numbers.add(fd),
                _ => {}
            }
        }
        numbers
    }

    /// See `Poller::release_in_child`.
    #[cfg(target_os = "linux")]
    pub(super) fn release_in_child(self) {
        // When `polling` is dropped, it removes its own descriptors from the epoll instance, which
        // is the parent's too. So first put another instance under its number.
        // SAFETY: plain calls on descriptors of ours; the new instance belongs to the child alone.
        unsafe {
            let other = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            if other < 0 {
                // There is no free descriptor: leave the old one open, to keep the parent's
                // registrations.
                std::mem::forget(self);
                return;
            }
            libc::dup3(other, self.polling.as_raw_fd(), libc::O_CLOEXEC);
            sys::close(other);
        }
        drop(self);
    }

    /// See `Poller::release_in_child`.
    #[cfg(not(target_os = "linux"))]
    pub(super) fn release_in_child(self) {
        // A child does not inherit a kqueue: there is nothing to close, and its number may refer to
        // another file.
        std::mem::forget(self);
    }

    pub(super) fn disarm(&self, fd: c_int) -> bool {
        // ENOENT, EBADF and EPERM all mean that there is no registration.
        // SAFETY: the borrow lasts for one call, which merely passes the number to the kernel.
        self.polling
            .delete(unsafe { BorrowedFd::borrow_raw(fd) })
            .is_ok()
    }
}

/// What `errno` means for `fd`, which was to be registered with `poller` or, if `known`, whose
/// registration was to be changed.
///
/// | errno | registering | changing |
/// |---|---|---|
/// | EBADF, the number is not open | closed | closed |
/// | EBADF, it is open | always ready: opened with O_PATH | lost: another file now |
/// | EPERM | always ready, as files are | lost: a file now |
/// | ENOENT | just closed by another thread: retried | lost |
/// | any other, or the poller itself is not open | retried | retried |
#[cold]
pub(super) fn why(poller: RawFd, fd: c_int, known: bool, errno: c_int) -> Refusal {
    match errno {
        libc::EBADF if !sys::is_open(fd) => Refusal::Closed,
        libc::EBADF if !sys::is_open(poller) => Refusal::Failed(errno),
        libc::EBADF | libc::EPERM | libc::ENOENT if known => Refusal::Lost,
        libc::EBADF | libc::EPERM => Refusal::AlwaysReady,
        errno => Refusal::Failed(errno),
    }
}
