// SPDX-License-Identifier: GPL-3.0-or-later
//! A poller over a foreign event framework: libevent, tevent, or one of the application's own.
//!
//! The framework waits, and its callbacks bring the events. What it cannot do is done here:
//!
//! * *Time.* Unless the framework waits by the monotonic clock, the next deadline is a timerfd,
//!   which the framework watches like any descriptor. Where there is no timerfd, the framework's own
//!   timer ends the wait.
//! * *Closed and reused numbers.* Each descriptor is registered in an epoll instance [`Beside`] the
//!   framework too, which nobody waits on. Each arming first asks that instance whether the number
//!   still refers to the same file. If the framework watches numbers, as poll(2) does, each event is
//!   verified too: a closed number is always ready there, and a reused one may be.
//! * *Registrations that outlive their number.* If a number was closed while it was watched, but
//!   its file lives on (dup, fork), a framework that watches files goes on to report it. The kernel's
//!   list of what the instance beside watches shows that. It is read a little later, once for all
//!   descriptors that were lost until then. Then a new framework context has to replace this one, and
//!   the loop is told so by an event that no job has. Until then, events of a number that was lost
//!   are verified by poll(2).
//! * *Forks.* In a child the framework is not called. The descriptors that are known are closed.

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::c_int;

use super::beside::Beside;
use super::contract::{
    Batch, EVENTS, Key, LONGEST, Numbers, Poller, Refusal, TIME_KEY, Until, WAKE_KEY, WaitError,
    nobody,
};
use super::framework::{Framework, Traits, Watch};
use super::functions::Functions;
use super::{libevent, own, tevent};
use crate::fds::{Interest, Mode};
use crate::sys;

/// A foreign framework.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Foreign {
    Libevent(libevent::Method),
    Tevent(tevent::Method),
    Custom(Functions),
}

/// What is known of one number.
#[derive(Clone, Copy, Default)]
pub(super) struct Slot {
    pub(super) key: u64,
    /// The framework watches it.
    pub(super) watched: bool,
    /// The instance beside has it.
    pub(super) beside: bool,
    /// A registration under this number was lost, and its file may live on.
    pub(super) suspect: bool,
    /// Found once in the kernel's list.
    pub(super) listed: bool,
}

/// The poller. See the module.
pub(super) struct Over {
    /// `None` only while it is taken away.
    pub(super) framework: Option<Box<dyn Framework>>,
    pub(super) traits: Traits,
    pub(super) beside: Beside,
    /// The timerfd, or the errno that says why there is none; 0 if none is needed.
    pub(super) timer: Result<OwnedFd, c_int>,
    /// As in the epoll poller.
    pub(super) retry_at: u64,
    /// The time that the timer is set to; `u64::MAX` if it is not set.
    pub(super) set_to: u64,
    /// The deadline that `remind` has set, if there is no timer; `u64::MAX` for none.
    pub(super) reminder: u64,
    /// By number.
    pub(super) slots: Vec<Slot>,
    /// When to read the kernel's list; `u64::MAX` for never. How long that took when it was last read.
    pub(super) check_at: u64,
    pub(super) check_took: u64,
    /// The number of a file that lives on: only a new poller is rid of it.
    pub(super) haunted: Option<c_int>,
    /// The numbers of lost descriptors, as far as there was memory for them.
    pub(super) lost: Vec<c_int>,
    /// The loop is in a thread of the application's, which may watch the framework's descriptor.
    pub(super) rests: bool,
    /// No signal can interrupt a wait.
    pub(super) limited: bool,
    /// The read end of the wake pipe.
    pub(super) wake: RawFd,
    /// The application has closed the instance beside: the next wait fails.
    pub(super) broken: bool,
    /// The descriptors of the framework's context, and of this poller, but `beside`.
    pub(super) own: Numbers,
    /// The framework's epoll instance.
    pub(super) epoll: Option<RawFd>,
    /// The framework has given that up, and the loop is not told yet.
    pub(super) fell_back: bool,
}

impl Over {
    /// See [`AnyPoller::new`](super::AnyPoller::new).
    pub(super) fn new(foreign: &Foreign, wake: RawFd, roused: bool) -> io::Result<Self> {
        let beside = Beside::new()?;
        let framework: Box<dyn Framework> = match foreign {
            Foreign::Libevent(method) => Box::new(libevent::Libevent::open(*method)?),
            Foreign::Tevent(method) => Box::new(tevent::Tevent::open(*method)?),
            Foreign::Custom(functions) => Box::new(own::Custom::open(*functions)?),
        };
        let traits = framework.traits();
        // From here on, a failure closes the context.
        let mut this = Self {
            framework: Some(framework),
            traits,
            beside,
            timer: Err(0),
            retry_at: 0,
            set_to: u64::MAX,
            reminder: u64::MAX,
            slots: Vec::new(),
            check_at: u64::MAX,
            check_took: 0,
            haunted: None,
            lost: Vec::new(),
            rests: false,
            limited: !roused,
            wake,
            broken: false,
            own: Numbers::default(),
            epoll: None,
            fell_back: false,
        };
        this.watch_own(wake, WAKE_KEY as u64)?;
        if !traits.keeps_time {
            this.make_timer()?;
        }
        for fd in this.framework().own().into_iter().flatten() {
            this.add_own(fd)?;
        }
        if let Some(fd) = this.find_inner() {
            this.add_own(fd)?;
            this.epoll = Some(fd);
        } else if traits.closes_blindly {
            // It has none, as far as the system tells.
            this.take_for_poll();
        }
        Ok(this)
    }

    pub(super) fn framework(&mut self) -> &mut dyn Framework {
        match &mut self.framework {
            Some(framework) => &mut **framework,
            None => unreachable!("taken away only at the end"),
        }
    }

    /// Have the framework watch a descriptor of the pool's own.
    pub(super) fn watch_own(&mut self, fd: RawFd, key: u64) -> io::Result<()> {
        let error = io::Error::from_raw_os_error;
        if fd >= self.traits.limit {
            return Err(error(libc::ERANGE));
        }
        let watch = Watch {
            fd,
            key,
            interest: Interest::new(true, false),
            once: false,
            known: false,
        };
        self.framework().watch(watch).map_err(error)?;
        self.register_own(fd)
    }

    /// A descriptor of the pool's own: have the instance beside tell whether it is still there.
    fn register_own(&mut self, fd: RawFd) -> io::Result<()> {
        match self.beside.register(fd, false) {
            Ok(_) => Ok(()),
            Err(Refusal::Failed(errno)) => Err(io::Error::from_raw_os_error(errno)),
            Err(_) => Err(io::Error::from_raw_os_error(libc::EBADF)),
        }
    }

    fn add_own(&mut self, fd: RawFd) -> io::Result<()> {
        self.register_own(fd)?;
        self.own.add(fd);
        Ok(())
    }

    fn is_own(&self, fd: RawFd) -> bool {
        self.own.iter().any(|own| own == fd)
    }

    /// The slot of `fd`; `None` if there is no memory for it.
    fn slot(&mut self, fd: c_int) -> Option<&mut Slot> {
        let index = fd as usize;
        if self.slots.len() <= index {
            self.slots.try_reserve(index + 1 - self.slots.len()).ok()?;
            self.slots.resize(index + 1, Slot::default());
        }
        Some(&mut self.slots[index])
    }
}

/// A poller that cannot be freed: of the parent's, in a forked child, where its memory stays as the fork
/// found it, perhaps in the middle of a change; or one whose descriptors the application has closed. Tools
/// that look for lost memory find it here.
struct Kept {
    _poller: Over,
    before: *mut Kept,
}

static KEPT: AtomicPtr<Kept> = AtomicPtr::new(ptr::null_mut());

impl Kept {
    fn keep(poller: Over) {
        let kept = Box::into_raw(Box::new(Self {
            _poller: poller,
            before: ptr::null_mut(),
        }));
        // SAFETY: it is never freed, and only this thread writes to it.
        unsafe { (*kept).before = KEPT.swap(kept, Ordering::AcqRel) };
    }
}

impl Poller for Over {
    fn numbers(&self, _wake: RawFd) -> Numbers {
        let mut numbers = Numbers::default();
        let mut any = false;
        for fd in self.own.iter().filter(|&fd| self.beside.has(fd)) {
            numbers.add(fd);
            any = true;
        }
        if any || self.own.iter().next().is_none() {
            numbers.add(self.beside.number());
        }
        numbers
    }

    fn is_sound(&mut self, wake: RawFd) -> bool {
        // That it still has any of them shows that its number is its own.
        let mut numbers = 0..self.slots.len() as c_int;
        self.beside.remove(wake)
            || numbers.any(|fd| self.slots[fd as usize].beside && self.beside.has(fd))
    }

    fn arm(
        &mut self,
        key: Key,
        interest: Interest,
        mode: Mode,
        known: bool,
    ) -> Result<(), Refusal> {
        let fd = key.fd;
        if fd >= self.traits.limit {
            return Err(Refusal::Failed(libc::ERANGE));
        }
        if self.slot(fd).is_none() {
            return Err(Refusal::Failed(libc::ENOMEM));
        }
        let there = match self.beside.register(fd, known) {
            Ok(there) => there,
            Err(refusal) => {
                // A descriptor that is refused is not lost: the loop disarms it.
                let failed = matches!(refusal, Refusal::Failed(_));
                if !failed && self.is_there() {
                    self.lose(fd);
                }
                return Err(refusal);
            }
        };
        if self.is_own(fd) {
            // The framework may have given up its epoll instance: then the number is not ours any more.
            self.gave_up_epoll();
            if self.is_own(fd) {
                // The application has closed a descriptor of ours, and its number is in use again.
                self.own.remove(fd);
                self.broken = true;
            }
        }
        let slot = &mut self.slots[fd as usize];
        if slot.watched && !there {
            // The framework's registration is of a file that has lost this number.
            self.lose(fd);
        }
        let slot = &mut self.slots[fd as usize];
        slot.beside = true;
        let watch = Watch {
            fd,
            key: key.pack(),
            interest,
            once: mode == Mode::Oneshot,
            known: slot.watched,
        };
        let done = self.framework().watch(watch);
        let slot = &mut self.slots[fd as usize];
        slot.key = watch.key;
        slot.watched = done.is_ok() || watch.known;
        done.map_err(|errno| {
            if !self.is_there() {
                return Refusal::Failed(errno);
            }
            self.disarm(fd);
            match errno {
                libc::EBADF if !sys::is_open(fd) => Refusal::Closed,
                libc::ENOENT | libc::EPERM if known => Refusal::Lost,
                libc::EPERM => Refusal::AlwaysReady,
                errno => Refusal::Failed(errno),
            }
        })
    }

    fn disarm(&mut self, fd: c_int) -> bool {
        let there = self.beside.remove(fd);
        if self.slots.len() <= fd as usize {
            return there;
        }
        if !there {
            self.lose(fd);
            return false;
        }
        let slot = &mut self.slots[fd as usize];
        slot.beside = false;
        if slot.watched {
            slot.watched = false;
            self.framework().unwatch(fd, false);
        }
        true
    }

    #[inline(never)]
    fn wait(&mut self, until: Until, found: &mut Batch) -> Result<(usize, bool), WaitError> {
        self.gave_up_epoll();
        let lost = |fd| self.traits.closes_blindly && !self.beside.has(fd);
        if self.broken || self.epoll.is_some_and(lost) {
            return Err(WaitError::Broken(libc::EBADF));
        }
        if std::mem::take(&mut self.fell_back) {
            return Err(WaitError::GaveUpEpoll);
        }
        if self.check_at != u64::MAX && sys::now() >= self.check_at {
            let count = self.check_lost(found);
            if count > 0 {
                return Ok((count, false));
            }
        }
        let deadline = match until {
            Until::Now | Until::Event => u64::MAX,
            Until::Deadline(deadline) => deadline,
        };
        let deadline = deadline.min(self.reminder);
        let mut how = match until {
            Until::Now => Until::Now,
            _ => match deadline.min(self.check_at) {
                u64::MAX => Until::Event,
                deadline => self.wait_with(deadline)?,
            },
        };
        if self.limited && how != Until::Now {
            let limit = sys::now() + LONGEST as u64 * 1_000_000;
            how = match how {
                Until::Deadline(deadline) if deadline < limit => how,
                _ => Until::Deadline(limit),
            };
        }
        if self.haunted.is_some() {
            // The framework may keep such an event to itself and wait on, at the cost of a processor.
            how = Until::Now;
        }
        let waited = self.framework().wait(how, found);
        self.gave_up_epoll();
        let (mut count, full) = match waited {
            // A framework may pass over descriptors of ours that are closed. Nothing would end its
            // wait then. That this one has ended without an event may be due to that.
            Ok((0, _)) if until != Until::Now && !self.is_there() => {
                return Err(WaitError::Broken(libc::EBADF));
            }
            Ok((count, full)) => (self.review(found, count), full),
            Err(errno) => match self.find_lost(found) {
                0 => return Err(WaitError::Broken(errno)),
                count => (count, false),
            },
        };
        if let Some(fd) = self.haunted {
            if count < EVENTS {
                found.put(count, nobody(fd), 0);
                count += 1;
            }
        }
        // Where there is no timer, nothing else reports the time.
        let timed = self.traits.keeps_time || self.retry_at != 0;
        if timed && deadline != u64::MAX && sys::now() >= deadline {
            self.reminder = u64::MAX;
            found.put(count, TIME_KEY as u64, 0);
            count += 1;
        }
        Ok((count, full))
    }

    fn remind(&mut self, deadline: u64) {
        if self.traits.keeps_time || self.retry_at != 0 {
            self.reminder = self.reminder.min(deadline);
        } else if deadline < self.set_to {
            self.set_timer(deadline);
        }
    }

    fn time_came(&mut self) {
        self.set_to = u64::MAX;
    }

    fn wait_fd(&self) -> Option<RawFd> {
        let framework = self.framework.as_ref().filter(|_| self.timer.is_ok());
        let framework = framework.and_then(|framework| framework.wait_fd());
        let shown = || self.epoll.filter(|_| self.traits.shows_ready);
        framework.or_else(|| shown().filter(|_| self.timer.is_ok()))
    }

    fn prepare_rest(&mut self) -> io::Result<()> {
        self.rests = true;
        // Nobody may wait when the time comes: a timerfd makes the framework's descriptor readable.
        if self.traits.keeps_time {
            self.traits.keeps_time = false;
            self.make_timer()?;
        }
        Ok(())
    }

    fn rest(&mut self, deadline: u64, exact: bool) -> bool {
        let deadline = deadline.min(self.check_at);
        if deadline == self.set_to {
            return true;
        }
        // A time that has come, and that no wait has reported because waiting fails, would keep the
        // descriptor readable.
        if deadline > self.set_to && !exact && self.set_to > sys::now() {
            return true;
        }
        let may_set = self.retry_at == 0 || sys::now() >= self.retry_at;
        may_set && self.set_timer(deadline) || deadline == u64::MAX
    }

    fn abandon(self) {
        Kept::keep(self);
    }

    fn release_in_child(mut self) {
        self.gave_up_epoll();
        if let Some(framework) = &mut self.framework {
            framework.leave_in_child();
        }
        // To close a number has no effect on the parent's registrations.
        for fd in self.own.iter() {
            sys::close(fd);
        }
        sys::close(self.beside.number());
        Kept::keep(self);
    }
}

impl Drop for Over {
    fn drop(&mut self) {
        if let Some(framework) = self.framework.take() {
            framework.close();
        }
    }
}
