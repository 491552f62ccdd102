// SPDX-License-Identifier: GPL-3.0-or-later
//! The descriptor that tells an application when its pool's loop has something to do.
//!
//! It is an epoll instance with one member: the poller's own descriptor, or the wake pipe once nothing else
//! counts. So it stays the same when the poller is replaced, which would otherwise drop out of the
//! application's own poller without a word. Nobody waits on it here; it is made when it is first asked
//! for.

use std::sync::atomic::{AtomicI32, Ordering};

use libc::c_int;

use crate::sync::{Mutex, lock};
use crate::sys;

/// See the module.
pub(crate) struct WaitFd {
    /// Guards changes.
    lock: Mutex<()>,
    /// The number of the instance; -1: there is none.
    outer: AtomicI32,
    /// What it watches; -1: nothing.
    watched: AtomicI32,
}

impl WaitFd {
    /// Not made yet, and nothing to watch.
    pub(crate) fn new() -> Self {
        Self {
            lock: Mutex::new(()),
            outer: AtomicI32::new(-1),
            watched: AtomicI32::new(-1),
        }
    }

    fn outer(&self) -> c_int {
        self.outer.load(Ordering::Relaxed)
    }

    fn watched(&self) -> c_int {
        self.watched.load(Ordering::Relaxed)
    }

    /// From here on it is readable when `fd` is; -1: never. What it watched before is still open, unless
    /// the application has closed it.
    pub(crate) fn watch(&self, fd: c_int) {
        if self.watched() == fd {
            return;
        }
        let _lock = lock(&self.lock);
        let ours = self.is_ours();
        let before = self.watched.swap(fd, Ordering::Relaxed);
        if ours && (fd < 0 || control(self.outer(), Change::Add, fd)) {
            control(self.outer(), Change::Remove, before);
        } else {
            // Lost, or there is no memory: the next who asks gets another.
            self.outer.store(-1, Ordering::Relaxed);
        }
    }

    /// The descriptor, made if there is none; -1 if there can't be one. `claim` is called with the number
    /// of a new one, and says whether it may be used.
    pub(crate) fn get(&self, claim: impl FnOnce(c_int) -> bool) -> c_int {
        let _lock = lock(&self.lock);
        let watched = self.watched();
        if watched >= 0 && !self.is_ours() {
            let mut new = make();
            if new >= 0 && !(control(new, Change::Add, watched) && claim(new)) {
                sys::close(new);
                new = -1;
            }
            self.outer.store(new, Ordering::Relaxed);
        }
        self.outer()
    }

    /// Close it, unless its number refers to another file by now. Nobody else uses it. Takes no lock: in a
    /// child, a thread of the parent's may have held it at the time of the fork.
    pub(crate) fn close(&self) {
        if self.is_ours() {
            sys::close(self.outer());
        }
    }

    /// Whether the number still refers to the instance that we made: it watches what it should.
    fn is_ours(&self) -> bool {
        self.outer() >= 0 && control(self.outer(), Change::Same, self.watched())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Change {
    Add,
    Same,
    Remove,
}

#[cfg(target_os = "linux")]
fn make() -> c_int {
    let _low = sys::LowNumbers::take();
    // SAFETY: a call without pointers.
    unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }
}

#[cfg(target_os = "linux")]
fn control(outer: c_int, change: Change, fd: c_int) -> bool {
    let what = match change {
        Change::Add => libc::EPOLL_CTL_ADD,
        Change::Same => libc::EPOLL_CTL_MOD,
        Change::Remove => libc::EPOLL_CTL_DEL,
    };
    let mut event = libc::epoll_event {
        events: libc::EPOLLIN as u32,
        u64: 0,
    };
    // SAFETY: the event is a local variable, and the rest are numbers.
    unsafe { libc::epoll_ctl(outer, what, fd, &mut event) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn make() -> c_int {
    -1
}

#[cfg(not(target_os = "linux"))]
fn control(_: c_int, _: Change, _: c_int) -> bool {
    false
}
