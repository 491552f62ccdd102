// SPDX-License-Identifier: GPL-3.0-or-later
//! Any system: `polling` alone.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::RawFd;
use std::time::Duration;

use libc::c_int;

use super::contract::{
    Batch, EVENTS, IN, Key, Numbers, OUT, Poller, Refusal, TIME_KEY, Trouble, Until,
};
use super::registry::Registry;
use crate::fds::{Interest, Mode};
use crate::sys;

/// See the module.
pub(crate) struct Portable {
    registry: Registry,
    events: polling::Events,
    /// When to end a wait, or `u64::MAX`.
    reminder: u64,
}

impl Portable {
    /// Make one that watches the readable end of the wake pipe.
    pub(super) fn new(wake: RawFd) -> io::Result<Self> {
        let room = NonZeroUsize::new(EVENTS).unwrap_or(NonZeroUsize::MIN);
        Ok(Self {
            registry: Registry::new(wake)?,
            events: polling::Events::with_capacity(room),
            reminder: u64::MAX,
        })
    }
}

impl Poller for Portable {
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

    #[cfg_attr(target_os = "linux", cold)]
    #[inline(never)]
    fn wait(&mut self, until: Until, found: &mut Batch) -> Result<(usize, bool), Trouble> {
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
        let mut count = 0;
        for event in self.events.iter().take(EVENTS) {
            // What is for no descriptor has no urgent data.
            let fd = Key::unpack(event.key).fd;
            let read = event.readable && !(event.is_priority() && only_urgent(fd));
            let bit = |set, bit| if set { bit } else { 0 };
            found.put(count, event.key, bit(read, IN) | bit(event.writable, OUT));
            count += 1;
        }
        let full = count == EVENTS;
        if deadline.min(self.reminder) <= sys::now() {
            self.reminder = u64::MAX;
            found.put(count, TIME_KEY, 0);
            count += 1;
        }
        Ok((count, full))
    }

    fn remind(&mut self, deadline: u64) {
        self.reminder = self.reminder.min(deadline);
    }

    fn time_came(&mut self) {}

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
