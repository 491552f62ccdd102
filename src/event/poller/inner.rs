// SPDX-License-Identifier: GPL-3.0-or-later
//! The framework's own epoll instance, which it does not tell: which descriptor it is, and what
//! becomes of it.

use std::os::fd::{AsRawFd, RawFd};

use super::beside::watched_by;
use super::contract::TIME_KEY;
use super::framework::Watch;
use super::over::Over;
use crate::fds::Interest;

/// The epoll instances, apart from `beside`, that say that they watch `fd`.
fn watchers(fd: RawFd, beside: RawFd) -> Vec<RawFd> {
    let Ok(list) = std::fs::read_dir("/proc/self/fd") else {
        return Vec::new();
    };
    let numbers = list.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    numbers
        .filter(|&epoll: &RawFd| epoll != beside && is_epoll(epoll) && watches(epoll, fd))
        .collect()
}

fn watches(epoll: RawFd, fd: RawFd) -> bool {
    watched_by(epoll).is_ok_and(|watched| watched.contains(&fd))
}

/// Whether `fd` is an epoll instance.
fn is_epoll(fd: RawFd) -> bool {
    std::fs::read_link(format!("/proc/self/fd/{fd}"))
        .is_ok_and(|link| link.as_os_str() == "anon_inode:[eventpoll]")
}

impl Over {
    /// Find the framework's epoll instance: the one that watches the timer. `None` if the framework has
    /// none, or the system does not tell.
    pub(super) fn find_inner(&mut self) -> Option<RawFd> {
        if self.traits.by_number {
            return None;
        }
        let timer = self.timer.as_ref().ok()?.as_raw_fd();
        let mut found = watchers(timer, self.beside.number());
        if found.len() > 1 {
            // Another may have had a file under this number before, which lives on.
            self.framework().unwatch(timer, false);
            found.retain(|&epoll| !watches(epoll, timer));
            let again = Watch {
                fd: timer,
                key: TIME_KEY as u64,
                interest: Interest::new(true, false),
                once: false,
                known: false,
            };
            self.framework().watch(again).ok()?;
        }
        match found[..] {
            [epoll] => Some(epoll),
            _ => None,
        }
    }

    /// The framework watches numbers from here on, or may.
    pub(super) fn take_for_poll(&mut self) {
        self.framework().gave_up_epoll();
        self.traits = self.framework().traits();
    }

    /// Whether the framework has given up its epoll instance since the last call. Its number is not
    /// ours any more then, and the framework watches numbers.
    pub(super) fn gave_up_epoll(&mut self) -> bool {
        if !self.traits.closes_blindly || !self.framework().has_failed() {
            return false;
        }
        if self.epoll.is_some_and(|epoll| self.beside.has(epoll)) {
            return false;
        }
        self.take_for_poll();
        if let Some(epoll) = self.epoll.take() {
            self.own.remove(epoll);
        }
        self.fell_back = true;
        true
    }
}
