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
use crate::sys;

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
    /// A time has come that the poller waited for.
    Time,
    /// A descriptor is ready, in these directions: none of them if there is only urgent data.
    Ready(Key, Interest),
}

/// Why a descriptor was not registered. One errno has several causes: [`Registry::arm`] tells them
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
    #[cfg_attr(any(not(target_os = "linux"), ns_portable_poller), allow(dead_code))]
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
    count: usize,
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
const LONGEST: c_int = 1_000;

/// What the loop needs of an event framework. One thread uses it.
pub(crate) trait Poller: Sized {
    /// Make one that watches the readable end of the wake pipe. Its descriptors may be closed behind
    /// its back while it waits. A signal ends the wait then; without one that reaches the thread, not
    /// `roused`, no wait lasts longer than [`LONGEST`], and the next fails.
    fn init(wake: RawFd, roused: bool) -> io::Result<Self>;

    /// The numbers of its own descriptors: no job is to watch them. `wake` was given to
    /// [`Poller::init`] and is not among them.
    fn numbers(&self, wake: RawFd) -> Numbers;

    /// Whether it still is what was made, and watches `wake`: its number may have been closed, and
    /// given to something else, behind our back. It does not watch `wake` afterwards.
    fn is_sound(&mut self, wake: RawFd) -> bool;

    /// Register `key.fd`, not registered before, or change its registration if `known`.
    fn arm(&mut self, key: Key, interest: Interest, mode: Mode, known: bool)
    -> Result<(), Refusal>;

    /// Forget `fd`. False if there was nothing to forget.
    fn disarm(&mut self, fd: c_int) -> bool;

    /// Wait, and return how many events there are, and whether there may be more.
    fn wait(&mut self, until: Until) -> Result<(usize, bool), Trouble>;

    /// Have a wait end at `deadline` with [`Event::Time`], though nobody waits for that: once, and
    /// only if nothing is waited for that comes before. As far as the system allows.
    fn remind(&mut self, deadline: u64);

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
        done.map_err(|error| self.why(key.fd, known, error.raw_os_error().unwrap_or(libc::EIO)))
    }

    /// What `errno` says of `fd`, which was to be registered or, if `known`, to be changed.
    ///
    /// | errno | registering | changing |
    /// |---|---|---|
    /// | EBADF, the number is not open | closed | closed |
    /// | EBADF, it is open | always ready: opened with O_PATH | lost: another file now |
    /// | EPERM | always ready, as files are | lost: a file now |
    /// | ENOENT | it was closed this very moment: tried again | lost |
    /// | any other, or the poller itself is not open | tried again | tried again |
    #[cold]
    fn why(&self, fd: c_int, known: bool, errno: c_int) -> Refusal {
        use std::os::fd::AsRawFd;
        match errno {
            libc::EBADF if !sys::is_open(fd) => Refusal::Closed,
            libc::EBADF if !sys::is_open(self.polling.as_raw_fd()) => Refusal::Failed(errno),
            libc::EBADF | libc::EPERM | libc::ENOENT if known => Refusal::Lost,
            libc::EBADF | libc::EPERM => Refusal::AlwaysReady,
            errno => Refusal::Failed(errno),
        }
    }

    /// See [`Poller::numbers`]. On Linux, what `polling` opens beside the descriptor that it shows
    /// is found among what that watches.
    fn numbers(&self, wake: RawFd) -> Numbers {
        use std::os::fd::AsRawFd;
        let mut numbers = Numbers::default();
        let own = self.polling.as_raw_fd();
        numbers.add(own);
        #[cfg(target_os = "linux")]
        for line in std::fs::read_to_string(format!("/proc/self/fdinfo/{own}"))
            .unwrap_or_default()
            .lines()
        {
            let mut words = line.split_ascii_whitespace();
            if words.next() == Some("tfd:")
                && let Some(Ok(fd)) = words.next().map(str::parse)
                && fd != wake
            {
                numbers.add(fd);
            }
        }
        numbers
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
            sys::close(other);
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
    #[cfg(target_os = "linux")]
    #[cfg_attr(miri, ignore = "Miri has no timerfd")]
    fn a_poller_knows_the_numbers_of_its_own_descriptors() {
        let mut ends = [-1; 2];
        // SAFETY: room for two descriptors.
        let made = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) };
        assert_eq!(made, 0);
        let mut poller = Native::init(ends[0], true).expect("descriptors");
        let numbers = poller.numbers(ends[0]);
        // epoll, an eventfd and a timerfd of polling's, and one timerfd of ours but on the portable
        // one.
        assert!((3..=4).contains(&numbers.count), "{numbers:?}");
        for fd in numbers.iter() {
            let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).expect("open");
            assert!(
                link.to_string_lossy().starts_with("anon_inode:"),
                "{link:?}"
            );
        }
        assert!(poller.is_sound(ends[0]));
        assert!(
            !poller.is_sound(ends[0]),
            "it does not watch the pipe any more"
        );
        drop(poller);
        ends.into_iter().for_each(sys::close);
    }

    #[test]
    fn keys_are_no_other_events() {
        for (fd, serial) in [(0, 0), (7, 1), (c_int::MAX, 0xff_ffff)] {
            let key = Key { fd, serial };
            assert_eq!(Key::unpack(key.pack()), key);
            assert!(key.pack() < WAKE_KEY - 1);
        }
    }
}
