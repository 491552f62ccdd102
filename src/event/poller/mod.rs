// SPDX-License-Identifier: GPL-3.0-or-later
//! The poller: the event framework that a loop waits on, chosen when the loop is made.
//!
//! [`Poller`] is all that the loop asks of one. Registration goes through the `polling` crate
//! everywhere. Waiting does on Linux not: there [`linux`] waits on `polling`'s own descriptor, beside a
//! timerfd, which takes one system call where `polling` takes five. [`portable`] is for every other
//! system; Linux has it too, and uses it under `cfg(ns_portable_poller)`.

mod contract;
#[cfg(target_os = "linux")]
mod linux;
mod portable;
mod registry;

use std::io;
use std::os::fd::RawFd;

use libc::c_int;

use crate::fds::{Interest, Mode};
use contract::{Batch, Poller};
pub(crate) use contract::{Event, Key, Numbers, Refusal, Trouble, Until};
#[cfg(target_os = "linux")]
use linux::Epoll;
use portable::Portable;

/// Which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framework {
    #[cfg(target_os = "linux")]
    Epoll,
    Portable,
}

impl Framework {
    /// The one to use where nobody asks for another.
    #[cfg(target_os = "linux")]
    pub(crate) const DEFAULT: Self = if cfg!(ns_portable_poller) {
        Self::Portable
    } else {
        Self::Epoll
    };

    /// The one to use where nobody asks for another.
    #[cfg(not(target_os = "linux"))]
    pub(crate) const DEFAULT: Self = Self::Portable;
}

/// The poller of a loop, of whichever framework.
pub(crate) struct AnyPoller {
    poller: Made,
    found: Batch,
}

/// One of each framework.
enum Made {
    #[cfg(target_os = "linux")]
    Epoll(Epoll),
    Portable(Portable),
}

/// Have the poller that is there do it, whichever that is.
macro_rules! which {
    ($any:expr, $poller:ident => $what:expr) => {
        match $any {
            #[cfg(target_os = "linux")]
            Made::Epoll($poller) => $what,
            Made::Portable($poller) => $what,
        }
    };
}

impl AnyPoller {
    /// Make one that watches the readable end of the wake pipe. Its descriptors may be closed behind
    /// its back while it waits. A signal ends the wait then; without one that reaches the thread, not
    /// `roused`, no wait lasts longer than [`contract::LONGEST`], and the next fails.
    pub(crate) fn new(framework: Framework, wake: RawFd, roused: bool) -> io::Result<Self> {
        let poller = match framework {
            #[cfg(target_os = "linux")]
            Framework::Epoll => Made::Epoll(Epoll::new(wake, roused)?),
            Framework::Portable => Made::Portable(Portable::new(wake, roused)?),
        };
        Ok(Self {
            poller,
            found: Batch::new(),
        })
    }

    /// Of which framework it is.
    pub(crate) fn framework(&self) -> Framework {
        match self.poller {
            #[cfg(target_os = "linux")]
            Made::Epoll(_) => Framework::Epoll,
            Made::Portable(_) => Framework::Portable,
        }
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

    /// Wait, and return how many events there are, and whether there may be more.
    #[inline(always)]
    pub(crate) fn wait(&mut self, until: Until) -> Result<(usize, bool), Trouble> {
        which!(&mut self.poller, poller => poller.wait(until, &mut self.found))
    }

    /// See [`Poller::remind`].
    pub(crate) fn remind(&mut self, deadline: u64) {
        which!(&mut self.poller, poller => poller.remind(deadline));
    }

    /// One of the events of the last wait. Each is asked for before the next wait.
    #[inline(always)]
    pub(crate) fn event(&mut self, index: usize) -> Event {
        // SAFETY: `index` is below what `wait` returned, which wrote so many.
        let event = unsafe { self.found.event(index) };
        if event == Event::Time {
            which!(&mut self.poller, poller => poller.time_came());
        }
        event
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
        // SAFETY: room for two descriptors.
        let made = unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) };
        assert_eq!(made, 0);
        // epoll, an eventfd and a timerfd of polling's; and one timerfd of ours.
        for (framework, count) in [(Framework::Epoll, 4), (Framework::Portable, 3)] {
            knows_its_numbers(framework, count, ends[0]);
        }
        ends.into_iter().for_each(sys::close);
    }

    fn knows_its_numbers(framework: Framework, count: usize, wake: RawFd) {
        let mut poller = AnyPoller::new(framework, wake, true).expect("descriptors");
        assert_eq!(poller.framework(), framework);
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
