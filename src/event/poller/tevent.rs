// SPDX-License-Identifier: GPL-3.0-or-later
//! tevent. Each context is a tevent_context of its own, in a talloc context of its own.
//!
//! What tevent does, and what this module does about it:
//!
//! * `tevent_loop_once` brings one event. It has no way not to wait, and with a timer of tevent's
//!   due it asks for no descriptor. So when the loop must not wait, a descriptor that is always
//!   ready is watched too. tevent takes ready descriptors in turn: when this one comes, all others
//!   that were ready have come.
//! * It tells a watcher of WRITE alone nothing of errors and hang-ups, so a refused connect would
//!   be lost. Descriptors that are watched for WRITE alone are registered in an epoll instance of
//!   ours, and tevent watches that.
//! * It tells a watcher of both directions of errors as READ. So for these, poll(2) is asked too.
//! * It switches an event off for good when the kernel refuses its descriptor. So a number that is
//!   watched anew gets a new event.
//! * Its poll backend says nothing of a poll(2) that fails. So errno is looked at, too.
//! * If a call on its epoll instance fails, it closes that, goes on by poll, and says so in a message.
//! * With its epoll, an event's address is in the kernel. If the file lives on though its number is
//!   closed, the kernel may report the address for ever. So such an event is not freed before the
//!   file is known to be gone.

use std::cell::{Cell, UnsafeCell};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr::{self, NonNull};

use libc::{c_int, c_void, timeval};

use super::contract::{Batch, EVENTS, Until};
use super::framework::{Framework, Traits, Watch};
use super::tevent_api::{FD_READ, FD_WRITE, FdHandler, HERE, api};
pub(crate) use super::tevent_state::Method;
use super::tevent_state::{
    OVER, Slot, State, always_ready, is_ready, message, ready, time_over, writers_ready,
};
use super::turn::Turn;
use crate::fds::Interest;
use crate::sys;

/// A context of tevent.
pub(super) struct Tevent {
    /// In a block of its own: tevent keeps its address.
    state: Box<UnsafeCell<State>>,
    /// The talloc context of everything of this one.
    parent: *mut c_void,
    /// A descriptor that is always ready, its event, and whether it is watched.
    always: OwnedFd,
    always_event: *mut c_void,
    is_watched: bool,
    /// Set by tevent's message that something has failed. In a block of its own.
    failed: Box<Cell<bool>>,
    /// Events whose address may still be in the kernel.
    buried: Vec<*mut c_void>,
}

impl Tevent {
    /// Make a context.
    pub(super) fn open(method: Method) -> io::Result<Self> {
        let turn = Turn::take()?;
        let api = api(&turn)?;
        // SAFETY: plain calls; the descriptors were opened here, and nothing else owns them.
        let (always, writers) = unsafe {
            let always = libc::eventfd(1, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK);
            if always < 0 {
                return Err(io::Error::last_os_error());
            }
            let always = OwnedFd::from_raw_fd(always);
            let writers = libc::epoll_create1(libc::EPOLL_CLOEXEC);
            if writers < 0 {
                return Err(io::Error::last_os_error());
            }
            (always, OwnedFd::from_raw_fd(writers))
        };
        let backend = match method {
            Method::Standard => c"standard",
            Method::Poll => c"poll",
        };
        // SAFETY: the functions of talloc and tevent, as their documentation says.
        let (parent, ev) = unsafe {
            let parent = (api.talloc_named_const)(ptr::null(), 0, HERE.as_ptr());
            if parent.is_null() {
                return Err(io::Error::from_raw_os_error(libc::ENOMEM));
            }
            let ev = (api.context_init)(parent, backend.as_ptr());
            if ev.is_null() {
                (api.talloc_free)(parent, HERE.as_ptr());
                return Err(io::Error::other("tevent makes no context"));
            }
            (parent, ev)
        };
        let mut this = Self {
            state: Box::new(UnsafeCell::new(State {
                api,
                ev,
                method,
                slots: Vec::new(),
                found: ptr::null_mut(),
                count: 0,
                always_came: false,
                writers,
            })),
            parent,
            always,
            always_event: ptr::null_mut(),
            is_watched: false,
            failed: Box::new(Cell::new(false)),
            buried: Vec::new(),
        };
        // SAFETY: the context is live, and does not outlive the flag.
        unsafe {
            let flag: *const Cell<bool> = &*this.failed;
            (api.set_debug)(ev, message, flag.cast_mut().cast());
        }
        let state: *mut c_void = this.state.get().cast();
        let writers = this.own()[1].unwrap_or(-1);
        let always = this.always.as_raw_fd();
        let made = this.add(writers, FD_READ, writers_ready, state);
        this.always_event = this.add(always, 0, always_ready, state);
        if made.is_null() || this.always_event.is_null() {
            Box::new(this).close();
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        Ok(this)
    }

    /// Add an event; null if there is no memory.
    fn add(&self, fd: c_int, flags: u16, handler: FdHandler, arg: *mut c_void) -> *mut c_void {
        let state = self.state.get();
        let here = HERE.as_ptr();
        // SAFETY: the context is live, and `arg` outlives the event.
        unsafe {
            ((*state).api.add_fd)(
                (*state).ev,
                self.parent,
                fd,
                flags,
                handler,
                arg,
                here,
                here,
            )
        }
    }

    /// The slot of `fd`.
    fn slot(&mut self, fd: c_int) -> Result<&mut Slot, c_int> {
        let at = self.state.get();
        // SAFETY: no handler runs now, so nothing else uses the state.
        let state = unsafe { &mut *at };
        let index = fd as usize;
        if state.slots.len() <= index {
            let more = index + 1 - state.slots.len();
            state.slots.try_reserve(more).map_err(|_| libc::ENOMEM)?;
            state.slots.resize(index + 1, None);
        }
        let slot = state.slots[index].get_or_insert_with(|| {
            let slot = Slot {
                state: at,
                fd,
                event: ptr::null_mut(),
                key: 0,
                interest: Interest::NONE,
                once: false,
                writer: false,
            };
            NonNull::from(Box::leak(Box::new(slot)))
        });
        // SAFETY: a slot is live, and no handler uses it now.
        Ok(unsafe { slot.as_mut() })
    }

    /// Register `slot` with the epoll instance for writers, or take it out.
    fn write_alone(&self, slot: &mut Slot, on: bool) -> Result<(), c_int> {
        let state = self.state.get();
        // SAFETY: no handler runs now, so nothing else uses the state.
        let epoll = unsafe { (*state).writers.as_raw_fd() };
        let once = if slot.once { libc::EPOLLONESHOT } else { 0 };
        let mut event = libc::epoll_event {
            events: (libc::EPOLLOUT | once) as u32,
            u64: slot.key,
        };
        let mut control = |op| {
            // SAFETY: the event is a local variable; the kernel checks the numbers.
            match unsafe { libc::epoll_ctl(epoll, op, slot.fd, &mut event) } {
                0 => Ok(()),
                _ => Err(sys::errno()),
            }
        };
        if !on {
            // It may be gone with its file.
            let _ = control(libc::EPOLL_CTL_DEL);
            slot.writer = false;
            return Ok(());
        }
        match control(libc::EPOLL_CTL_ADD) {
            Err(libc::EEXIST) => control(libc::EPOLL_CTL_MOD)?,
            done => done?,
        }
        slot.writer = true;
        Ok(())
    }

    /// Watch or stop watching the descriptor that is always ready.
    fn watch_always(&mut self, on: bool) {
        if on != self.is_watched {
            self.is_watched = on;
            let state = self.state.get();
            // SAFETY: the event is live.
            unsafe {
                ((*state).api.fd_set_flags)(self.always_event, if on { FD_READ } else { 0 });
            }
        }
    }

    /// One turn of tevent, which may wait.
    fn once(&mut self) -> Result<(), c_int> {
        let state = self.state.get();
        sys::set_errno(0);
        // SAFETY: the context is live; nothing here keeps a reference to the state meanwhile.
        let (done, idle) = unsafe {
            let before = (*state).count;
            let done = ((*state).api.loop_once)((*state).ev, HERE.as_ptr());
            let idle = (*state).count == before && !(*state).always_came;
            (done, idle && (*state).method == Method::Poll)
        };
        match (done, sys::errno()) {
            (0, 0 | libc::EINTR) => Ok(()),
            (0, errno) if idle => Err(errno),
            (0, _) => Ok(()),
            (_, 0 | libc::EINTR) => Err(libc::EIO),
            (_, errno) => Err(errno),
        }
    }

    /// Take what is ready, without waiting.
    ///
    /// tevent serves one descriptor at a time, in turn. When the one that is always ready comes, all that stood
    /// before it have come. What became ready since the look before stands behind it, so it has to come twice;
    /// but epoll puts it last if it was not watched meanwhile.
    fn take_ready(&mut self) -> Result<bool, c_int> {
        // If the application has closed it, tevent would wait.
        if !is_ready(self.always.as_raw_fd(), libc::POLLIN) {
            return Err(libc::EBADF);
        }
        let state = self.state.get();
        // SAFETY: nothing here keeps a reference to the state.
        let epoll = unsafe { (*state).method } == Method::Standard;
        let mut rounds = u32::from(epoll && !self.is_watched);
        self.watch_always(true);
        // tevent passes over a ready descriptor only if it switches it off. That ends.
        for _ in 0..16 * EVENTS {
            // SAFETY: as above.
            unsafe { (*state).always_came = false };
            self.once()?;
            // SAFETY: as above.
            unsafe {
                rounds += u32::from((*state).always_came);
                if rounds == 2 {
                    return Ok(false);
                }
                if (*state).count >= EVENTS {
                    break;
                }
            }
        }
        Ok(true)
    }

    /// Wait for one event, or until `deadline`.
    fn wait_for_one(&mut self, deadline: Option<u64>) -> Result<bool, c_int> {
        self.watch_always(false);
        let state = self.state.get();
        let mut timer = ptr::null_mut();
        if let Some(deadline) = deadline {
            let here = HERE.as_ptr();
            let at = wall_clock(deadline);
            // SAFETY: the context is live, and the handler needs no argument.
            timer = unsafe {
                let (api, ev) = ((*state).api, (*state).ev);
                (api.add_timer)(ev, self.parent, at, time_over, ptr::null_mut(), here, here)
            };
            if timer.is_null() {
                return Err(libc::ENOMEM);
            }
        }
        OVER.with(|over| over.set(false));
        // SAFETY: nothing here keeps a reference to the state.
        unsafe { (*state).always_came = false };
        let done = self.once();
        if !timer.is_null() && !OVER.with(|over| over.get()) {
            // SAFETY: the timer has not run, so tevent has not freed it.
            unsafe { ((*state).api.talloc_free)(timer, HERE.as_ptr()) };
        }
        done?;
        // SAFETY: nothing here keeps a reference to the state.
        Ok(unsafe { (*state).count } > 0)
    }
}

impl Framework for Tevent {
    fn traits(&self) -> Traits {
        // SAFETY: the field does not change.
        let by_number = unsafe { (*self.state.get()).method } == Method::Poll;
        Traits {
            keeps_time: false,
            by_number,
            // With poll, the epoll instance for writers does.
            outlives: true,
            closes_blindly: !by_number,
            // It may give up epoll at any time.
            shows_ready: false,
            limit: c_int::MAX,
        }
    }

    fn watch(&mut self, watch: Watch) -> Result<(), c_int> {
        let slot: *mut Slot = self.slot(watch.fd)?;
        // SAFETY: the slot is live, and no handler uses it now.
        let slot = unsafe { &mut *slot };
        slot.key = watch.key;
        slot.once = watch.once;
        slot.interest = watch.interest;
        let alone = watch.interest.write() && !watch.interest.read();
        if alone || slot.writer {
            self.write_alone(slot, alone)?;
        }
        let mut flags = 0;
        if watch.interest.read() {
            flags = FD_READ | if watch.interest.write() { FD_WRITE } else { 0 };
        }
        // SAFETY: no handler runs now, so nothing else uses the state.
        let state = unsafe { &mut *self.state.get() };
        if flags == 0 {
            state.switch_off(slot, false);
            return Ok(());
        }
        if !slot.event.is_null() {
            // SAFETY: a slot's event is live.
            let now = unsafe {
                (state.api.fd_set_flags)(slot.event, flags);
                (state.api.fd_get_flags)(slot.event)
            };
            if now == flags {
                return Ok(());
            }
            // tevent has switched it off.
            self.buried.push(slot.event);
            slot.event = ptr::null_mut();
        }
        slot.event = self.add(watch.fd, flags, ready, ptr::from_mut(slot).cast());
        if slot.event.is_null() {
            return Err(libc::ENOMEM);
        }
        Ok(())
    }

    fn unwatch(&mut self, fd: c_int, lost: bool) {
        // SAFETY: no handler runs now, so nothing else uses the state.
        let state = unsafe { &mut *self.state.get() };
        let Some(mut slot) = state.slots.get(fd as usize).copied().flatten() else {
            return;
        };
        // SAFETY: a slot is live, and no handler uses it now.
        let slot = unsafe { slot.as_mut() };
        if slot.writer {
            let _ = self.write_alone(slot, false);
        }
        if lost {
            // Not freed while the kernel may have its address.
            state.switch_off(slot, false);
            if !slot.event.is_null() {
                self.buried.push(slot.event);
                slot.event = ptr::null_mut();
            }
        } else {
            state.switch_off(slot, true);
        }
    }

    fn forget_lost(&mut self) {
        // SAFETY: no handler runs now; these events are live, and the kernel has forgotten them.
        unsafe {
            let api = (*self.state.get()).api;
            for event in self.buried.drain(..) {
                (api.talloc_free)(event, HERE.as_ptr());
            }
        }
    }

    fn wait(&mut self, until: Until, found: &mut Batch) -> Result<(usize, bool), c_int> {
        let state = self.state.get();
        // SAFETY: the state is used through the pointer only, by this function and by the handlers
        // that run in the middle.
        unsafe {
            (*state).found = found;
            (*state).count = 0;
        }
        let mut more = match until {
            // When the loop sleeps after it was busy, first see what is ready.
            Until::Now => self.take_ready(),
            _ if self.is_watched => self.take_ready(),
            _ => Ok(false),
        };
        // SAFETY: as above.
        if more == Ok(false) && until != Until::Now && unsafe { (*state).count } == 0 {
            more = self.wait_for_one(match until {
                Until::Deadline(deadline) => Some(deadline),
                _ => None,
            });
        }
        // SAFETY: as above.
        let count = unsafe { (*state).count };
        match more {
            Err(errno) if count == 0 => Err(errno),
            more => Ok((count, more.unwrap_or(true))),
        }
    }

    fn has_failed(&mut self) -> bool {
        self.failed.take()
    }

    fn gave_up_epoll(&mut self) {
        // SAFETY: no handler runs now, so nothing else uses the state.
        unsafe { (*self.state.get()).method = Method::Poll };
    }

    fn own(&self) -> [Option<RawFd>; 2] {
        // SAFETY: the field does not change.
        let writers = unsafe { (*self.state.get()).writers.as_raw_fd() };
        [Some(self.always.as_raw_fd()), Some(writers)]
    }

    fn close(self: Box<Self>) {
        let state = self.state.get();
        // SAFETY: nothing uses the state any more. To free the parent frees the context and all
        // events; then nothing refers to the slots.
        unsafe {
            ((*state).api.talloc_free)(self.parent, HERE.as_ptr());
            for slot in (*state).slots.drain(..).flatten() {
                drop(Box::from_raw(slot.as_ptr()));
            }
        }
    }
}

/// The time of the wall clock, by which tevent's timers go, at which the monotonic clock will show
/// `deadline`.
fn wall_clock(deadline: u64) -> timeval {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: every system has this clock; the call writes only to `now`.
    unsafe { libc::clock_gettime(libc::CLOCK_REALTIME, &mut now) };
    // Rounded up, so that the wait does not end early.
    let left = deadline.saturating_sub(sys::now()).div_ceil(1_000) + 1;
    let microseconds = now.tv_nsec as u64 / 1_000 + left % 1_000_000;
    timeval {
        tv_sec: now.tv_sec + (left / 1_000_000 + microseconds / 1_000_000) as libc::time_t,
        tv_usec: (microseconds % 1_000_000) as libc::suseconds_t,
    }
}
