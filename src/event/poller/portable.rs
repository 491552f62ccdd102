// SPDX-License-Identifier: GPL-3.0-or-later
//! Any system: `polling`, except for sleeping.
//!
//! `polling` resumes its wait when a signal interrupts it, and on Linux it uses a timerfd of its
//! own. So the poller only asks `polling` for what is ready, and sleeps in poll(2) on `polling`'s
//! descriptor. A signal or a time-out ends that sleep, whatever descriptors the application has
//! closed.

use std::io;
use std::num::NonZeroUsize;
#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;
use std::os::fd::{AsRawFd, RawFd};
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
use std::ptr;
use std::time::Duration;

use libc::c_int;

use super::contract::{
    Batch, EVENTS, IN, Key, LONGEST, Numbers, OUT, Poller, Refusal, TIME_KEY, Until, WaitError,
};
use super::registry::{Keys, Registry};
#[cfg(target_os = "linux")]
use super::timerfd;
use crate::fds::{Interest, Mode};
use crate::sys;

/// The portable poller. See the module.
pub(crate) struct Portable {
    registry: Registry,
    events: polling::Events,
    /// The deadline that `remind` has set; `u64::MAX` for none.
    reminder: u64,
    /// The time-out of a wait without a deadline, if it needs one.
    longest: Option<Duration>,
    /// What stands for a deadline while nobody waits, and the time that it is set to.
    #[cfg(target_os = "linux")]
    timer: Option<(OwnedFd, u64)>,
}

impl Portable {
    /// See [`AnyPoller::new`](super::AnyPoller::new).
    pub(super) fn new(wake: RawFd, roused: bool) -> io::Result<Self> {
        let room = NonZeroUsize::new(EVENTS).unwrap_or(NonZeroUsize::MIN);
        Ok(Self {
            registry: Registry::new(wake, Keys::OfPolling)?,
            events: polling::Events::with_capacity(room),
            reminder: u64::MAX,
            longest: (!roused).then_some(Duration::from_millis(LONGEST as u64)),
            #[cfg(target_os = "linux")]
            timer: None,
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
    fn wait(&mut self, until: Until, found: &mut Batch) -> Result<(usize, bool), WaitError> {
        let deadline = match until {
            Until::Now => 0,
            Until::Event => self.reminder,
            Until::Deadline(deadline) => deadline.min(self.reminder),
        };
        if until != Until::Now {
            self.sleep(deadline);
        }
        self.events.clear();
        let polling = &self.registry.polling;
        match polling.wait(&mut self.events, Some(Duration::ZERO)) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                return Err(WaitError::Broken(error.raw_os_error().unwrap_or(libc::EIO)));
            }
            _ => {}
        }
        let (mut count, mut seen) = (0, 0);
        for event in self.events.iter().take(EVENTS) {
            seen += 1;
            #[cfg(target_os = "linux")]
            if event.key == TIME_KEY {
                // It says nothing that the clock does not say.
                if let Some((_, set_to)) = &mut self.timer {
                    *set_to = u64::MAX;
                }
                continue;
            }
            // The key of the wake pipe holds no number, but the pipe never has urgent data.
            let key = Keys::read(event.key);
            let fd = Key::unpack(key).fd;
            let read = event.readable && !(event.is_priority() && only_urgent(fd));
            let bit = |set, bit| if set { bit } else { 0 };
            found.put(count, key, bit(read, IN) | bit(event.writable, OUT));
            count += 1;
        }
        let full = seen == EVENTS;
        if deadline.min(self.reminder) <= sys::now() {
            self.reminder = u64::MAX;
            found.put(count, TIME_KEY as u64, 0);
            count += 1;
        }
        Ok((count, full))
    }

    fn remind(&mut self, deadline: u64) {
        self.reminder = self.reminder.min(deadline);
    }

    fn time_came(&mut self) {}

    #[cfg(target_os = "linux")]
    fn wait_fd(&self) -> Option<RawFd> {
        (self.timer.as_ref()).map(|_| self.registry.polling.as_raw_fd())
    }

    #[cfg(target_os = "linux")]
    fn prepare_rest(&mut self) -> io::Result<()> {
        let timer = match timerfd::make() {
            Ok(timer) => timer,
            // As in `Epoll`: for these reasons later calls would fail too.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM)
                ) =>
            {
                return Err(error);
            }
            Err(_) => return Ok(()),
        };
        timerfd::register(&timer, &self.registry)?;
        self.timer = Some((timer, u64::MAX));
        Ok(())
    }

    #[cfg(target_os = "linux")]
    fn rest(&mut self, deadline: u64, exact: bool) -> bool {
        let deadline = deadline.min(self.reminder);
        let Some((timer, set_to)) = &mut self.timer else {
            return true;
        };
        if deadline == *set_to || deadline > *set_to && !exact {
            return true;
        }
        if !timerfd::set(timer, deadline) {
            return deadline == u64::MAX;
        }
        *set_to = deadline;
        true
    }

    fn release_in_child(self) {
        self.registry.release_in_child();
    }
}

impl Portable {
    /// Sleep until `polling` has an event or the clock shows `deadline`.
    fn sleep(&self, deadline: u64) {
        let time = (deadline != u64::MAX)
            .then(|| Duration::from_nanos(deadline.saturating_sub(sys::now())));
        let time = match (time, self.longest) {
            (Some(time), Some(longest)) => Some(time.min(longest)),
            (time, longest) => time.or(longest),
        };
        let mut poll = libc::pollfd {
            fd: self.registry.polling.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
        {
            let time = time.map(|time| sys::timespec(time.as_nanos() as u64));
            let time = time.as_ref().map_or(ptr::null(), ptr::from_ref);
            // SAFETY: the pointer and the length describe one local pollfd; the time is a local
            // variable or null; the mask is null.
            unsafe { libc::ppoll(&mut poll, 1, time, ptr::null()) };
        }
        #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
        {
            let time = time.map_or(-1, |time| {
                c_int::try_from(time.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX)
            });
            // SAFETY: the pointer and the length describe one local pollfd.
            unsafe { libc::poll(&mut poll, 1, time) };
        }
    }
}

/// Whether `fd` has only urgent data, which `polling` reports as readable.
fn only_urgent(fd: c_int) -> bool {
    let mut poll = libc::pollfd {
        fd,
        events: libc::POLLIN,
        revents: 0,
    };
    // SAFETY: the pointer and the length describe one local pollfd.
    unsafe { libc::poll(&mut poll, 1, 0) == 0 }
}
