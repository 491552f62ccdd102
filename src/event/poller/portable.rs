// SPDX-License-Identifier: GPL-3.0-or-later
//! Any system: `polling` alone.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::RawFd;
use std::time::Duration;

use libc::c_int;

use super::{Event, Key, Numbers, Poller, Refusal, Registry, Trouble, Until, WAKE_KEY};
use crate::fds::{Interest, Mode};
use crate::sys;

const EVENTS: usize = 128;

/// The key of an event that is none of `polling`'s: a time has come.
const TIME_KEY: usize = usize::MAX - 2;

/// See the module.
pub(crate) struct Portable {
    registry: Registry,
    events: polling::Events,
    found: Vec<polling::Event>,
    /// When to end a wait, or `u64::MAX`.
    reminder: u64,
}

impl Poller for Portable {
    fn init(wake: RawFd) -> io::Result<Self> {
        let room = NonZeroUsize::new(EVENTS).unwrap_or(NonZeroUsize::MIN);
        Ok(Self {
            registry: Registry::new(wake)?,
            events: polling::Events::with_capacity(room),
            found: Vec::with_capacity(EVENTS + 1),
            reminder: u64::MAX,
        })
    }

    fn numbers(&self, wake: RawFd) -> Numbers {
        self.registry.numbers(wake)
    }

    fn is_sound(&mut self, wake: RawFd) -> bool {
        self.registry.disarm(wake)
    }

    fn arm(
        &mut self,
        key: Key,
        interest: Interest,
        mode: Mode,
        known: bool,
    ) -> Result<(), Refusal> {
        self.registry.arm(key, interest, mode, known)
    }

    fn disarm(&mut self, fd: c_int) -> bool {
        self.registry.disarm(fd)
    }

    fn wait(&mut self, until: Until) -> Result<(usize, bool), Trouble> {
        let deadline = match until {
            Until::Now => 0,
            Until::Event => self.reminder,
            Until::Deadline(deadline) => deadline.min(self.reminder),
        };
        let timeout = match deadline {
            0 => Some(Duration::ZERO),
            u64::MAX => None,
            _ => Some(Duration::from_nanos(deadline.saturating_sub(sys::now()))),
        };
        self.events.clear();
        match self.registry.polling.wait(&mut self.events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(Trouble::Broken(error.raw_os_error().unwrap_or(libc::EIO)));
            }
            _ => {}
        }
        self.found.clear();
        self.found.extend(self.events.iter());
        let full = self.found.len() == EVENTS;
        if deadline.min(self.reminder) <= sys::now() {
            self.reminder = u64::MAX;
            self.found.push(polling::Event::none(TIME_KEY));
        }
        Ok((self.found.len(), full))
    }

    fn remind(&mut self, deadline: u64) {
        self.reminder = self.reminder.min(deadline);
    }

    fn event(&mut self, index: usize) -> Event {
        let event = self.found[index];
        if event.key == WAKE_KEY {
            return Event::Wake;
        }
        if event.key == TIME_KEY {
            return Event::Time;
        }
        let key = Key::unpack(event.key);
        let read = event.readable && !(event.is_priority() && only_urgent(key.fd));
        Event::Ready(key, Interest::new(read, event.writable))
    }

    fn release_in_child(self) {
        self.registry.release_in_child();
    }
}

/// `polling` counts urgent data as readable; ask what it is.
fn only_urgent(fd: c_int) -> bool {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: one pollfd of ours, and no waiting.
    unsafe { libc::poll(&mut poll, 1, 0) == 0 }
}
