// SPDX-License-Identifier: GPL-3.0-or-later
//! An epoll instance beside a framework that cannot tell that a registration was lost.
//!
//! Nobody waits on it. Each descriptor that the framework watches is registered in it, without
//! events. The kernel keeps a registration exactly as long as the number refers to the file that
//! was registered. So to change a registration shows whether it still does.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use libc::c_int;

use super::contract::Refusal;
use super::registry::why;
use crate::sys;

/// The instance.
pub(super) struct Beside(OwnedFd);

impl Beside {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: the call takes only flags.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was opened here, and nothing else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Its number.
    pub(super) fn number(&self) -> RawFd {
        self.0.as_raw_fd()
    }

    fn control(&self, op: c_int, fd: c_int) -> Result<(), c_int> {
        let mut event = libc::epoll_event { events: 0, u64: 0 };
        // SAFETY: the event is a local variable; the kernel checks the numbers.
        match unsafe { libc::epoll_ctl(self.number(), op, fd, &mut event) } {
            0 => Ok(()),
            _ => Err(sys::errno()),
        }
    }

    /// Register `fd`, or, if it is registered already (`known`), see that it still is. True if it
    /// was there before.
    pub(super) fn register(&self, fd: c_int, known: bool) -> Result<bool, Refusal> {
        let done = if known {
            self.control(libc::EPOLL_CTL_MOD, fd).map(|()| true)
        } else {
            match self.control(libc::EPOLL_CTL_ADD, fd) {
                Err(libc::EEXIST) => Ok(true),
                done => done.map(|()| false),
            }
        };
        done.map_err(|errno| why(self.number(), fd, known, errno))
    }

    /// Whether `fd` is registered, and still refers to the same file.
    pub(super) fn has(&self, fd: c_int) -> bool {
        self.control(libc::EPOLL_CTL_MOD, fd).is_ok()
    }

    /// Remove `fd`. False if it was not registered, or refers to another file now.
    pub(super) fn remove(&self, fd: c_int) -> bool {
        self.control(libc::EPOLL_CTL_DEL, fd).is_ok()
    }

    /// The number of a registration that is not in `known`, or is there for the second time: its
    /// file lives on, though its number is closed or refers to another file. `known` says of each
    /// number whether it is registered, and is called once for each registration. An error if the
    /// system does not tell now.
    pub(super) fn leftover(
        &self,
        mut known: impl FnMut(c_int) -> bool,
    ) -> io::Result<Option<c_int>> {
        let watched = watched_by(self.number())?;
        Ok(watched.into_iter().find(|&fd| !known(fd)))
    }
}

/// What the epoll instance `epoll` watches.
pub(super) fn watched_by(epoll: RawFd) -> io::Result<Vec<c_int>> {
    let text = std::fs::read_to_string(format!("/proc/self/fdinfo/{epoll}"))?;
    let lines = text.lines().filter_map(|line| line.strip_prefix("tfd:"));
    Ok(lines
        .filter_map(|line| line.split_ascii_whitespace().next()?.parse().ok())
        .collect())
}
