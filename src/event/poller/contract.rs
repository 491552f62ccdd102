// SPDX-License-Identifier: GPL-3.0-or-later
//! What the loop needs of an event framework.

use std::mem::MaybeUninit;
use std::os::fd::RawFd;

use libc::c_int;

use crate::fds::{Interest, Mode};

/// What an event is for: a descriptor's number and the serial of its registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) fd: c_int,
    pub(crate) serial: u32,
}

/// The key under which the wake pipe is registered: no descriptor's, as serials have 24 bits.
pub(super) const WAKE_KEY: usize = usize::MAX - 1;

const _: () = assert!(usize::BITS == 64, "keys need 64 bits");

impl Key {
    pub(super) fn pack(self) -> usize {
        (self.serial as usize) << 32 | self.fd as usize
    }

    pub(super) fn unpack(key: usize) -> Self {
        Self {
            fd: key as u32 as c_int,
            serial: (key >> 32) as u32,
        }
    }
}

/// The key under which a time that has come is reported.
pub(super) const TIME_KEY: usize = usize::MAX - 2;

/// Something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The wake pipe has a byte.
    Wake,
    /// A time has come that the poller waited for.
    Time,
    /// A descriptor is ready, in these directions: none of them if there is only urgent data.
    Ready(Key, Interest),
}

/// An event as the kernel writes it on Linux: so nothing is copied there.
#[cfg(target_os = "linux")]
pub(super) use libc::epoll_event as Raw;

/// The same, elsewhere.
#[cfg(not(target_os = "linux"))]
#[derive(Clone, Copy)]
pub(super) struct Raw {
    pub(super) events: u32,
    pub(super) u64: u64,
}

#[cfg(target_os = "linux")]
pub(super) const IN: u32 = libc::EPOLLIN as u32;
#[cfg(target_os = "linux")]
pub(super) const OUT: u32 = libc::EPOLLOUT as u32;
#[cfg(target_os = "linux")]
const BROKEN: u32 = (libc::EPOLLHUP | libc::EPOLLERR) as u32;
#[cfg(not(target_os = "linux"))]
pub(super) const IN: u32 = 1;
#[cfg(not(target_os = "linux"))]
pub(super) const OUT: u32 = 4;
#[cfg(not(target_os = "linux"))]
const BROKEN: u32 = 0;

/// Events in one wait. Also how many descriptors may be served between two looks at a listener.
pub(super) const EVENTS: usize = 128;

/// What one wait found.
pub(super) struct Batch {
    /// And room for a time that has come.
    pub(super) events: [MaybeUninit<Raw>; EVENTS + 1],
}

impl Batch {
    pub(super) const fn new() -> Self {
        Self {
            events: [const { MaybeUninit::uninit() }; EVENTS + 1],
        }
    }

    /// Write down one event, as the `index`th.
    pub(super) fn put(&mut self, index: usize, key: usize, events: u32) {
        self.events[index].write(Raw {
            events,
            u64: key as u64,
        });
    }

    /// One of the events of the last wait.
    ///
    /// # Safety
    /// `index` is below what that returned.
    pub(super) unsafe fn event(&self, index: usize) -> Event {
        // SAFETY: by the caller's promise, it was written.
        let event = unsafe { self.events[index].assume_init() };
        if event.u64 == WAKE_KEY as u64 {
            return Event::Wake;
        }
        if event.u64 == TIME_KEY as u64 {
            return Event::Time;
        }
        let flags = event.events;
        let has = |bits: u32| flags & bits != 0;
        let broken = has(BROKEN);
        Event::Ready(
            Key::unpack(event.u64 as usize),
            Interest::new(has(IN) || broken, has(OUT) || broken),
        )
    }
}

/// Why a descriptor was not registered. One errno has several causes: The registry tells them
/// apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The number is open, but the poller has no registration of it to change: the number stands
    /// for another file than when it was registered.
    Lost,
    /// It cannot be polled, since it never blocks.
    AlwaysReady,
    /// It is not open.
    Closed,
    /// Anything else, by errno: the system may take it later.
    Failed(c_int),
}

/// Why a wait failed, with an errno.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    /// The system does not set the timer. Told once: from now on waits end in whole milliseconds.
    Timer(c_int),
    /// The poller does not work, or was closed behind our back.
    Broken(c_int),
}

/// The most descriptors that a poller has.
const OWN: usize = 8;

/// The numbers of a poller's own descriptors.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Numbers {
    numbers: [c_int; OWN],
    pub(super) count: usize,
}

impl Numbers {
    /// One more.
    pub(crate) fn add(&mut self, fd: c_int) {
        if self.count < OWN && !self.iter().any(|known| known == fd) {
            self.numbers[self.count] = fd;
            self.count += 1;
        }
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = c_int> + '_ {
        self.numbers[..self.count].iter().copied()
    }
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

/// Milliseconds that a wait lasts at most which no signal would end.
pub(super) const LONGEST: c_int = 1_000;

/// What the loop needs of an event framework. One thread uses it.
pub(crate) trait Poller {
    /// The numbers of its own descriptors: no job is to watch them. `wake`, the readable end of the
    /// wake pipe, which it was made to watch, is not among them.
    fn numbers(&self, wake: RawFd) -> Numbers;

    /// Whether it still is what was made, and watches `wake`: its number may have been closed, and
    /// given to something else, behind our back. It does not watch `wake` afterwards.
    fn is_sound(&mut self, wake: RawFd) -> bool;

    /// Register `key.fd`, not registered before, or change its registration if `known`.
    fn arm(&mut self, key: Key, interest: Interest, mode: Mode, known: bool)
    -> Result<(), Refusal>;

    /// Forget `fd`. False if there was nothing to forget.
    fn disarm(&mut self, fd: c_int) -> bool;

    /// Wait, write down what happened, and return how many events that is, and whether there may be
    /// more.
    fn wait(&mut self, until: Until, found: &mut Batch) -> Result<(usize, bool), Trouble>;

    /// Have a wait end at `deadline` with [`Event::Time`], though nobody waits for that: once, and
    /// only if nothing is waited for that comes before. As far as the system allows.
    fn remind(&mut self, deadline: u64);

    /// The loop has come to an [`Event::Time`] of the last wait.
    fn time_came(&mut self);

    /// In a forked child: close the descriptors that it shares with its parent, and do nothing
    /// that would reach the parent's registrations.
    fn release_in_child(self);
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
