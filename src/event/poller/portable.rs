// SPDX-License-Identifier: GPL-3.0-or-later
//! Any system: `polling` alone.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::RawFd;
use std::time::Duration;

use libc::c_int;

use super::{Event, Key, Numbers, Poller, Refusal, Registry, Trouble, Until, WAKE_KEY};
use crate::event::fds::{Interest, Mode};
use crate::sys;

const EVENTS: usize = 128;

/// See the module.
pub(crate) struct Portable {
    registry: Registry,
    events: polling::Events,
    found: Vec<polling::Event>,
}

impl Poller for Portable {
    fn init(wake: RawFd) -> io::Result<Self> {
        let room = NonZeroUsize::new(EVENTS).unwrap_or(NonZeroUsize::MIN);
        Ok(Self {
            registry: Registry::new(wake)?,
            events: polling::Events::with_capacity(room),
            found: Vec::with_capacity(EVENTS),
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
        let timeout = match until {
            Until::Now => Some(Duration::ZERO),
            Until::Event => None,
            Until::Deadline(deadline) => {
                Some(Duration::from_nanos(deadline.saturating_sub(sys::now())))
            }
        };
        self.events.clear();
        match self.registry.polling.wait(&mut self.events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(Trouble::Broken(error));
            }
            _ => {}
        }
        self.found.clear();
        self.found.extend(self.events.iter());
        Ok((self.found.len(), self.found.len() == EVENTS))
    }

    fn event(&mut self, index: usize) -> Event {
        let event = self.found[index];
        if event.key == WAKE_KEY {
            return Event::Wake;
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
