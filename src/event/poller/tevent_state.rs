// SPDX-License-Identifier: GPL-3.0-or-later
//! What tevent's handlers use, and the handlers.

use std::cell::Cell;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr::{self, NonNull};

use libc::{c_char, c_int, c_short, c_void, timeval};

use super::contract::{Batch, EVENTS, IN, OUT};
use super::tevent_api::{Api, DEBUG_ERROR, FD_READ, FD_WRITE, HERE};
use crate::fds::Interest;

/// tevent's ways to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// epoll, and poll where that fails.
    Standard,
    Poll,
}

/// What the context has for one number. It never moves: tevent's events keep its address.
pub(super) struct Slot {
    pub(super) state: *mut State,
    pub(super) fd: c_int,
    /// tevent's event, or null.
    pub(super) event: *mut c_void,
    pub(super) key: u64,
    pub(super) interest: Interest,
    pub(super) once: bool,
    /// It is in `writers`.
    pub(super) writer: bool,
}

/// What the handlers use too.
pub(super) struct State {
    pub(super) api: Api,
    pub(super) ev: *mut c_void,
    pub(super) method: Method,
    /// By number. They are live until the context is closed.
    pub(super) slots: Vec<Option<NonNull<Slot>>>,
    /// The batch of the current wait.
    pub(super) found: *mut Batch,
    pub(super) count: usize,
    /// The descriptor that is always ready has come.
    pub(super) always_came: bool,
    /// The epoll instance for descriptors that are watched for WRITE alone.
    pub(super) writers: OwnedFd,
}

impl State {
    fn put(&mut self, key: u64, bits: u32) {
        // SAFETY: a handler runs only in `wait`, and the batch lives as long as that.
        unsafe { (*self.found).put(self.count, key, bits) };
        self.count += 1;
    }

    /// Have tevent report nothing for `slot`; `for_good`: do not keep its event for the next time.
    /// tevent's poll would be ended at once, again and again, by a hang-up of a descriptor whose
    /// event has no flags, so there the event goes.
    pub(super) fn switch_off(&mut self, slot: &mut Slot, for_good: bool) {
        if slot.event.is_null() {
            return;
        }
        // SAFETY: a slot's event is live; tevent allows a handler to free its own.
        unsafe {
            if for_good || self.method == Method::Poll {
                (self.api.talloc_free)(slot.event, HERE.as_ptr());
                slot.event = ptr::null_mut();
            } else {
                (self.api.fd_set_flags)(slot.event, 0);
            }
        }
    }
}

/// A descriptor is ready.
pub(super) unsafe extern "C" fn ready(
    _: *mut c_void,
    event: *mut c_void,
    flags: u16,
    arg: *mut c_void,
) {
    // SAFETY: the loop thread is in `wait`, which keeps no reference to the state meanwhile. The
    // slot is live, and so is its event.
    unsafe {
        let slot = &mut *arg.cast::<Slot>();
        let state = &mut *slot.state;
        if slot.event != event {
            return;
        }
        let bit = |set, bit| if set { bit } else { 0 };
        let mut bits = bit(flags & FD_READ != 0, IN) | bit(flags & FD_WRITE != 0, OUT);
        if bits == IN && slot.interest.write() && is_ready(slot.fd, 0) {
            bits |= OUT;
        }
        if slot.once {
            slot.interest = Interest::NONE;
            state.switch_off(slot, false);
        }
        state.put(slot.key, bits);
    }
}

/// Descriptors that are watched for WRITE alone are ready.
pub(super) unsafe extern "C" fn writers_ready(
    _: *mut c_void,
    _: *mut c_void,
    _: u16,
    arg: *mut c_void,
) {
    // SAFETY: as above.
    let state = unsafe { &mut *arg.cast::<State>() };
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
    let room = EVENTS - state.count;
    if room == 0 {
        return;
    }
    let epoll = state.writers.as_raw_fd();
    // SAFETY: the array has room for so many.
    let count = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), room as c_int, 0) };
    for event in &events[..usize::try_from(count).unwrap_or(0)] {
        state.put(event.u64, OUT);
    }
}

/// The descriptor that is always ready has come.
pub(super) unsafe extern "C" fn always_ready(
    _: *mut c_void,
    _: *mut c_void,
    _: u16,
    arg: *mut c_void,
) {
    // SAFETY: as above.
    unsafe { (*arg.cast::<State>()).always_came = true };
}

/// The time of a wait is over: that this has run ends the wait.
pub(super) unsafe extern "C" fn time_over(
    _: *mut c_void,
    _: *mut c_void,
    _: timeval,
    _: *mut c_void,
) {
    OVER.with(|over| over.set(true));
}

/// tevent says something. `arg` is the flag that says that something has failed.
pub(super) unsafe extern "C" fn message(arg: *mut c_void, level: c_int, _: *const c_char) {
    if level <= DEBUG_ERROR {
        // SAFETY: the flag is live as long as the context, and only this thread uses it.
        unsafe { (*arg.cast::<Cell<bool>>()).set(true) };
    }
}

/// Whether `fd` has one of these events, an error or a hang-up.
pub(super) fn is_ready(fd: c_int, events: c_short) -> bool {
    let mut poll = libc::pollfd {
        fd,
        events,
        revents: 0,
    };
    // SAFETY: the pointer and the length describe one local pollfd.
    unsafe { libc::poll(&mut poll, 1, 0) > 0 && poll.revents & libc::POLLNVAL == 0 }
}

thread_local! {
    /// The timer of the current wait has run, and tevent has freed it.
    pub(super) static OVER: Cell<bool> = const { Cell::new(false) };
}
