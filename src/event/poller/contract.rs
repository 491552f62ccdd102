// SPDX-License-Identifier: GPL-3.0-or-later
//! What the loop needs of an event framework.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::RawFd;

use libc::c_int;

#[cfg(any(target_pointer_width = "32", test))]
use super::short;
use crate::fds::{Interest, Mode};

/// The key of a registration: the descriptor's number and the serial of its registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) fd: c_int,
    pub(crate) serial: u32,
}

/// The key of the wake pipe's registration. It is no descriptor's key, as no number is negative. It
/// has 32 bits, and so is the same whether a framework stores a `usize` or 64 bits.
pub(super) const WAKE_KEY: usize = 0xffff_fffe;

/// The key of [`Event::Time`].
pub(super) const TIME_KEY: usize = 0xffff_fffd;

impl Key {
    /// The key as 64 bits, which is what epoll stores.
    pub(super) fn pack(self) -> u64 {
        u64::from(self.serial) << 32 | self.fd as u64
    }

    pub(super) fn unpack(key: u64) -> Self {
        Self {
            fd: key as u32 as c_int,
            serial: (key >> 32) as u32,
        }
    }

    /// Whether this is the key of the registration of its number under `serial`.
    #[inline(always)]
    pub(crate) fn is_of(self, serial: u32) -> bool {
        #[cfg(any(target_pointer_width = "32", test))]
        if self.serial & short::SHORT != 0 {
            return self.serial == short::of(self.fd, serial);
        }
        self.serial == serial
    }
}

/// The serial of an event that no job has: serials have 24 bits.
#[cfg(target_os = "linux")]
const NOBODY: u32 = 1 << 24;

/// The key of an event that says that the file that had the number `fd` lives on.
#[cfg(target_os = "linux")]
pub(super) fn nobody(fd: c_int) -> u64 {
    Key { fd, serial: NOBODY }.pack()
}

/// What a wait reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// The wake pipe is readable.
    Wake,
    /// A deadline that the poller waited for has passed.
    Time,
    /// A descriptor is ready in these directions; in none of them if only urgent data has come.
    Ready(Key, Interest),
}

/// An event. On Linux this is the kernel's type, so a wait copies nothing.
#[cfg(target_os = "linux")]
pub(super) use libc::epoll_event as Raw;

/// An event, on other systems.
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

/// How many events one wait returns at most. So the loop serves at most this many descriptors
/// before it gets to a listener again.
pub(super) const EVENTS: usize = 128;

/// The events of one wait.
pub(super) struct Batch {
    /// One more than a wait returns: room for an [`Event::Time`].
    pub(super) events: [MaybeUninit<Raw>; EVENTS + 1],
}

impl Batch {
    pub(super) const fn new() -> Self {
        Self {
            events: [const { MaybeUninit::uninit() }; EVENTS + 1],
        }
    }

    /// Write the event at `index`.
    pub(super) fn put(&mut self, index: usize, key: u64, events: u32) {
        self.events[index].write(Raw { events, u64: key });
    }

    /// The event at `index`, as it was written.
    ///
    /// # Safety
    /// The last wait has written so many.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    pub(super) unsafe fn raw(&self, index: usize) -> Raw {
        // SAFETY: by the caller's promise.
        unsafe { self.events[index].assume_init() }
    }

    /// Read the event at `index`.
    ///
    /// # Safety
    /// `index` is below the number of events that the last wait returned.
    pub(super) unsafe fn event(&self, index: usize) -> Event {
        // SAFETY: by the caller's promise, the wait has written this element.
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
            Key::unpack(event.u64),
            Interest::new(has(IN) || broken, has(OUT) || broken),
        )
    }
}

/// Why the poller refused a descriptor. One errno can have several causes;
/// `Registry::why` tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The number is open, but the poller has no registration of it: the number refers to another
    /// file than when it was registered.
    Lost,
    /// It cannot be polled, because it never blocks.
    AlwaysReady,
    /// The number is not open.
    Closed,
    /// Another reason, an errno. The system may accept the descriptor later.
    Failed(c_int),
}

/// Why a wait failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitError {
    /// The system refuses to set the timer. The poller reports this once; from then on, waits end
    /// in whole milliseconds. An errno.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    Timer(c_int),
    /// The framework has given up its epoll instance and goes on by poll. The poller reports this once;
    /// its own descriptors are others than before.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    GaveUpEpoll,
    /// Waiting fails, or the application has closed the poller's descriptors. An errno.
    Broken(c_int),
}

/// How many descriptors a poller has at most.
const OWN: usize = 8;

/// The numbers of a poller's own descriptors.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Numbers {
    numbers: [c_int; OWN],
    pub(super) count: usize,
}

impl Numbers {
    /// Add `fd`, unless it is there already.
    pub(crate) fn add(&mut self, fd: c_int) {
        if self.count < OWN && !self.iter().any(|known| known == fd) {
            self.numbers[self.count] = fd;
            self.count += 1;
        }
    }

    /// Take `fd` out.
    #[cfg(target_os = "linux")]
    pub(super) fn remove(&mut self, fd: c_int) {
        let place = self.iter().position(|known| known == fd);
        if let Some(at) = place {
            self.count -= 1;
            self.numbers[at] = self.numbers[self.count];
        }
    }

    /// The numbers.
    pub(crate) fn iter(&self) -> impl Iterator<Item = c_int> + '_ {
        self.numbers[..self.count].iter().copied()
    }
}

/// How long to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Until {
    /// Do not wait: only report what is ready.
    Now,
    /// Wait for an event, or until the monotonic clock shows this many nanoseconds.
    Deadline(u64),
    /// Wait for an event.
    Event,
}

/// If no signal can end a wait, it lasts at most this many milliseconds.
pub(super) const LONGEST: c_int = 1_000;

/// What the loop needs of an event framework. Only the loop thread uses it.
pub(crate) trait Poller {
    /// The numbers of its own descriptors, which no job may watch. They do not include `wake`, the
    /// read end of the wake pipe, which it was made to watch.
    fn numbers(&self, wake: RawFd) -> Numbers;

    /// Whether its descriptors are still its own and it watches `wake`. The application may have
    /// closed them, and the system may have reused their numbers. This ends the watch on `wake`.
    fn is_sound(&mut self, wake: RawFd) -> bool;

    /// Register `key.fd`; or, if it is registered already (`known`), change its registration.
    fn arm(&mut self, key: Key, interest: Interest, mode: Mode, known: bool)
    -> Result<(), Refusal>;

    /// Remove the registration of `fd`. False if there was none.
    fn disarm(&mut self, fd: c_int) -> bool;

    /// Wait, and write the events to `found`. Returns their number and whether there may be more.
    fn wait(&mut self, until: Until, found: &mut Batch) -> Result<(usize, bool), WaitError>;

    /// Make a wait end at `deadline` with [`Event::Time`], even if no wait has that deadline. It
    /// works once, only if no earlier deadline is set, and only as far as the system has timers.
    fn remind(&mut self, deadline: u64);

    /// The loop has read an [`Event::Time`] of the last wait.
    fn time_came(&mut self);

    /// A descriptor that polls readable when a wait would find something, a deadline too, if it has been
    /// told that by [`Poller::rest`]. `None`: it has none.
    fn wait_fd(&self) -> Option<RawFd> {
        None
    }

    /// Reserve what [`Poller::rest`] needs.
    fn prepare_rest(&mut self) -> io::Result<()> {
        Ok(())
    }

    /// Nobody waits from here on: make [`Poller::wait_fd`] readable at `deadline`, `u64::MAX` for never.
    /// It may be readable earlier, at a deadline that some wait had, unless `exact` is true. False if it
    /// can't be readable at that time.
    fn rest(&mut self, deadline: u64, exact: bool) -> bool {
        let _ = (deadline, exact);
        true
    }

    /// The application has closed its descriptors, and their numbers may refer to other files: close none,
    /// and free nothing that would.
    fn abandon(self)
    where
        Self: Sized,
    {
        std::mem::forget(self);
    }

    /// In a forked child: close the descriptors that it shares with its parent, without any effect
    /// on the parent's registrations.
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
            assert!(key.is_of(serial) && !key.is_of(serial ^ 1));
            assert!(![WAKE_KEY as u64, TIME_KEY as u64].contains(&key.pack()));
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn nobodys_key_is_no_other() {
        for fd in [0, 7, c_int::MAX] {
            let key = Key { fd, serial: NOBODY };
            assert_eq!(Key::unpack(key.pack()), key);
            assert!(![WAKE_KEY as u64, TIME_KEY as u64].contains(&key.pack()));
        }
    }

    #[test]
    fn a_short_key_names_its_registration() {
        let last = (1 << 27) - 1;
        for fd in [0, 7, 0xfff, 0x1000, 0xf_ffff, 0x10_0000, last] {
            for serial in [0, 1, 2, 3, 0x7f_ffff, 0xff_ffff] {
                let short = short::write(fd, serial);
                assert!(short < TIME_KEY as u32);
                let (number, kept) = short::read(short).expect("a descriptor's key");
                assert_eq!(number, fd);
                let key = Key { fd, serial: kept };
                assert!(key.is_of(serial));
                for later in 1..4 {
                    assert!(!key.is_of((serial + later) & 0xff_ffff), "{fd} {serial}");
                }
            }
        }
        for key in [WAKE_KEY, TIME_KEY] {
            assert_eq!(short::read(key as u32), None);
        }
    }
}
