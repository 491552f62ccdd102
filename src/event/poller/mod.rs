// SPDX-License-Identifier: GPL-3.0-or-later
//! The poller: the event framework that a loop waits on. The loop chooses it when it starts.
//!
//! [`Poller`] is all that the loop needs of an event framework. On every system, the `polling`
//! crate registers the descriptors. On Linux, [`linux`] waits on `polling`'s own descriptor, beside
//! a timerfd: one system call where `polling` makes five. On other systems, [`portable`] does the
//! waiting. It also works on Linux, where `cfg(ns_portable_poller)` selects it. [`over`] waits by a
//! foreign framework: libevent, tevent, or one of the application's own.

#[cfg(target_os = "linux")]
mod beside;
mod contract;
#[cfg(target_os = "linux")]
mod framework;
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
mod functions;
#[cfg(target_os = "linux")]
mod inner;
#[cfg(target_os = "linux")]
mod libevent;
#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
mod load;
#[cfg(target_os = "linux")]
mod lost;
#[cfg(target_os = "linux")]
mod over;
#[cfg(target_os = "linux")]
mod own;
mod portable;
mod registry;
#[cfg(any(target_pointer_width = "32", test))]
mod short;
#[cfg(target_os = "linux")]
mod tevent;
#[cfg(target_os = "linux")]
mod tevent_api;
#[cfg(target_os = "linux")]
mod tevent_state;
#[cfg(target_os = "linux")]
mod time;
#[cfg(target_os = "linux")]
mod timerfd;
#[cfg(target_os = "linux")]
mod turn;

use std::ffi::CStr;
use std::io;
use std::os::fd::RawFd;

use libc::c_int;

use crate::fds::{Interest, Mode};
use contract::{Batch, Poller};
pub(crate) use contract::{Event, Key, Numbers, Refusal, Until, WaitError};
pub(crate) use functions::Functions;
#[cfg(target_os = "linux")]
use linux::Epoll;
#[cfg(target_os = "linux")]
use over::{Foreign, Over};
use portable::Portable;

/// The event frameworks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Framework {
    #[cfg(target_os = "linux")]
    Epoll,
    Portable,
    #[cfg(target_os = "linux")]
    Foreign(Foreign),
}

/// What a framework's name may be.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Named {
    Known(Framework, &'static CStr),
    /// There is one, but not on this system.
    #[cfg_attr(target_os = "linux", allow(dead_code))]
    Elsewhere,
    Unknown,
}

impl Framework {
    /// The default framework.
    #[cfg(target_os = "linux")]
    pub(crate) const DEFAULT: Self = if cfg!(ns_portable_poller) {
        Self::Portable
    } else {
        Self::Epoll
    };

    /// The default framework.
    #[cfg(not(target_os = "linux"))]
    pub(crate) const DEFAULT: Self = Self::Portable;

    /// The framework of this name.
    pub(crate) fn named(name: &CStr) -> Named {
        let kinds: [(&'static CStr, Self); 2] =
            [(c"native", Self::DEFAULT), (c"portable", Self::Portable)];
        if let Some((name, kind)) = kinds.into_iter().find(|(known, _)| *known == name) {
            return Named::Known(kind, name);
        }
        Self::foreign(name)
    }

    /// The framework of the application's own.
    #[cfg(target_os = "linux")]
    pub(crate) fn custom(functions: Functions) -> Option<Self> {
        Some(Self::Foreign(Foreign::Custom(functions)))
    }

    /// The framework of the application's own; not on this system.
    #[cfg(not(target_os = "linux"))]
    pub(crate) fn custom(_: Functions) -> Option<Self> {
        None
    }

    #[cfg(target_os = "linux")]
    fn foreign(name: &CStr) -> Named {
        use libevent::Method as Event;
        use tevent::Method as Tevent;
        let kinds: [(&'static CStr, Foreign); 7] = [
            (c"libevent", Foreign::Libevent(Event::Epoll)),
            (c"libevent:epoll", Foreign::Libevent(Event::Epoll)),
            (c"libevent:poll", Foreign::Libevent(Event::Poll)),
            (c"libevent:select", Foreign::Libevent(Event::Select)),
            (c"tevent", Foreign::Tevent(Tevent::Standard)),
            (c"tevent:standard", Foreign::Tevent(Tevent::Standard)),
            (c"tevent:poll", Foreign::Tevent(Tevent::Poll)),
        ];
        match kinds.into_iter().find(|(known, _)| *known == name) {
            Some((name, kind)) => Named::Known(Self::Foreign(kind), name),
            None => Named::Unknown,
        }
    }

    #[cfg(not(target_os = "linux"))]
    fn foreign(name: &CStr) -> Named {
        match name.to_bytes().split(|&byte| byte == b':').next() {
            Some(b"libevent" | b"tevent") => Named::Elsewhere,
            _ => Named::Unknown,
        }
    }
}

/// The poller of a loop, of any framework.
pub(crate) struct AnyPoller {
    poller: Inner,
    framework: Framework,
    found: Batch,
}

/// A poller of one of the frameworks. With a tag of its own, so that a wait finds the poller by one
/// comparison.
#[repr(u8)]
enum Inner {
    #[cfg(target_os = "linux")]
    Epoll(Epoll),
    Portable(Portable),
    #[cfg(target_os = "linux")]
    Over(Box<Over>),
}

/// Evaluate an expression with the poller of `$any`, of whichever framework.
macro_rules! which {
    ($any:expr, $poller:ident => $what:expr) => {
        match $any {
            #[cfg(target_os = "linux")]
            Inner::Epoll($poller) => $what,
            Inner::Portable($poller) => $what,
            #[cfg(target_os = "linux")]
            Inner::Over($poller) => $what,
        }
    };
}

impl AnyPoller {
    /// Make a poller that watches `wake`, the read end of the wake pipe. The application may close
    /// the poller's descriptors while it waits, and then a signal ends the wait. If no signal can
    /// reach the thread (`roused` is false), no wait lasts longer than [`contract::LONGEST`], and
    /// the next one fails.
    pub(crate) fn new(framework: Framework, wake: RawFd, roused: bool) -> io::Result<Self> {
        let poller = match framework {
            #[cfg(target_os = "linux")]
            Framework::Epoll => Inner::Epoll(Epoll::new(wake, roused)?),
            Framework::Portable => Inner::Portable(Portable::new(wake, roused)?),
            #[cfg(target_os = "linux")]
            Framework::Foreign(ref foreign) => {
                Inner::Over(Box::new(Over::new(foreign, wake, roused)?))
            }
        };
        Ok(Self {
            poller,
            framework,
            found: Batch::new(),
        })
    }

    /// The framework of this poller.
    pub(crate) fn framework(&self) -> Framework {
        self.framework
    }

    /// See [`Poller::numbers`].
    pub(crate) fn numbers(&self, wake: RawFd) -> Numbers {
        which!(&self.poller, poller => poller.numbers(wake))
    }

    /// See [`Poller::is_sound`].
    pub(crate) fn is_sound(&mut self, wake: RawFd) -> bool {
        which!(&mut self.poller, poller => poller.is_sound(wake))
    }

    /// See [`Poller::arm`].
    pub(crate) fn arm(
        &mut self,
        key: Key,
        interest: Interest,
        mode: Mode,
        known: bool,
    ) -> Result<(), Refusal> {
        which!(&mut self.poller, poller => poller.arm(key, interest, mode, known))
    }

    /// See [`Poller::disarm`].
    pub(crate) fn disarm(&mut self, fd: c_int) -> bool {
        which!(&mut self.poller, poller => poller.disarm(fd))
    }

    /// Wait, and return the number of events and whether there may be more.
    #[inline(always)]
    pub(crate) fn wait(&mut self, until: Until) -> Result<(usize, bool), WaitError> {
        which!(&mut self.poller, poller => poller.wait(until, &mut self.found))
    }

    /// See [`Poller::remind`].
    pub(crate) fn remind(&mut self, deadline: u64) {
        which!(&mut self.poller, poller => poller.remind(deadline));
    }

    /// An event of the last wait. The loop asks for each before the next wait.
    #[inline(always)]
    pub(crate) fn event(&mut self, index: usize) -> Event {
        // SAFETY: `index` is below the number that `wait` returned, and `wait` wrote that many.
        let event = unsafe { self.found.event(index) };
        if event == Event::Time {
            which!(&mut self.poller, poller => poller.time_came());
        }
        event
    }

    /// See [`Poller::wait_fd`].
    pub(crate) fn wait_fd(&self) -> Option<RawFd> {
        which!(&self.poller, poller => poller.wait_fd())
    }

    /// See [`Poller::prepare_rest`].
    pub(crate) fn prepare_rest(&mut self) -> io::Result<()> {
        which!(&mut self.poller, poller => poller.prepare_rest())
    }

    /// See [`Poller::rest`].
    pub(crate) fn rest(&mut self, deadline: u64, exact: bool) -> bool {
        which!(&mut self.poller, poller => poller.rest(deadline, exact))
    }

    /// See [`Poller::abandon`].
    pub(crate) fn abandon(self) {
        which!(self.poller, poller => poller.abandon());
    }

    /// See [`Poller::release_in_child`].
    pub(crate) fn release_in_child(self) {
        which!(self.poller, poller => poller.release_in_child());
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use crate::sys;

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no timerfd")]
    fn a_poller_knows_the_numbers_of_its_own_descriptors() {
        let mut ends = [-1; 2];
        // SAFETY: `ends` has room for two descriptors.
        let made = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) };
        assert_eq!(made, 0);
        // `polling` has an epoll instance, an eventfd and a timerfd; [`Epoll`] adds a timerfd.
        for (framework, count) in [(Framework::Epoll, 4), (Framework::Portable, 3)] {
            knows_its_numbers(framework, count, ends[0]);
        }
        ends.into_iter().for_each(sys::close);
    }

    fn knows_its_numbers(framework: Framework, count: usize, wake: RawFd) {
        let mut poller = AnyPoller::new(framework, wake, true).expect("descriptors");
        let numbers = poller.numbers(wake);
        assert_eq!(numbers.count, count, "{numbers:?}");
        for fd in numbers.iter() {
            let link = std::fs::read_link(format!("/proc/self/fd/{fd}")).expect("open");
            assert!(
                link.to_string_lossy().starts_with("anon_inode:"),
                "{link:?}"
            );
        }
        assert!(poller.is_sound(wake));
        assert!(
            !poller.is_sound(wake),
            "it does not watch the pipe any more"
        );
    }
}
