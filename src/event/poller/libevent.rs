// SPDX-License-Identifier: GPL-3.0-or-later
//! libevent 2.1. Each context is an event_base of its own, without locks, that looks at nothing in
//! the environment.
//!
//! One `struct event` stands for one number. libevent remembers what it has told the kernel, so an
//! add for a number that was closed and opened again would change nothing there: an event is always
//! taken out before it is put in anew.
//!
//! A callback writes its event to the batch of the wait that it runs in. When the batch is full, it
//! breaks the loop, and libevent keeps what is left for the next.

use std::cell::UnsafeCell;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;
use std::sync::OnceLock;

use libc::{c_char, c_int, c_short, c_void, timeval};

use super::contract::{Batch, EVENTS, IN, OUT, Until};
use super::framework::{Framework, Traits, Watch};
use super::load::Loaded;
use super::turn::Turn;
use crate::sys;
use crate::wake;

const LIBRARY: &str = "libevent_core-2.1.so.7";

/// libevent's ways to wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Epoll,
    Poll,
    Select,
}

const METHODS: [(Method, &std::ffi::CStr); 3] = [
    (Method::Epoll, c"epoll"),
    (Method::Poll, c"poll"),
    (Method::Select, c"select"),
];

// libevent's constants.
const BASE_NOLOCK: c_int = 0x01;
const BASE_IGNORE_ENV: c_int = 0x02;
const BASE_NO_CACHE_TIME: c_int = 0x08;
const LOOP_ONCE: c_int = 0x01;
const LOOP_NONBLOCK: c_int = 0x02;
const EV_TIMEOUT: c_short = 0x01;
const EV_READ: c_short = 0x02;
const EV_WRITE: c_short = 0x04;
const EV_PERSIST: c_short = 0x10;

type Callback = unsafe extern "C" fn(fd: c_int, what: c_short, arg: *mut c_void);

/// libevent's functions. Its structs are opaque: `config`, `base` and `event` are pointers.
#[derive(Clone, Copy)]
struct Api {
    config_new: unsafe extern "C" fn() -> *mut c_void,
    config_free: unsafe extern "C" fn(config: *mut c_void),
    config_set_flag: unsafe extern "C" fn(config: *mut c_void, flag: c_int) -> c_int,
    config_avoid_method: unsafe extern "C" fn(config: *mut c_void, method: *const c_char) -> c_int,
    base_new: unsafe extern "C" fn(config: *const c_void) -> *mut c_void,
    base_free: unsafe extern "C" fn(base: *mut c_void),
    base_loop: unsafe extern "C" fn(base: *mut c_void, flags: c_int) -> c_int,
    base_loopbreak: unsafe extern "C" fn(base: *mut c_void) -> c_int,
    event_new: unsafe extern "C" fn(
        base: *mut c_void,
        fd: c_int,
        what: c_short,
        callback: Callback,
        arg: *mut c_void,
    ) -> *mut c_void,
    event_assign: unsafe extern "C" fn(
        event: *mut c_void,
        base: *mut c_void,
        fd: c_int,
        what: c_short,
        callback: Callback,
        arg: *mut c_void,
    ) -> c_int,
    event_free: unsafe extern "C" fn(event: *mut c_void),
    event_add: unsafe extern "C" fn(event: *mut c_void, timeout: *const timeval) -> c_int,
    event_del: unsafe extern "C" fn(event: *mut c_void) -> c_int,
}

static API: OnceLock<Api> = OnceLock::new();

/// libevent's functions, loaded when they are first asked for.
fn api(_turn: &Turn) -> io::Result<Api> {
    if let Some(api) = API.get() {
        return Ok(*api);
    }
    let library = Loaded::open(LIBRARY)?;
    // SAFETY: the types are those of libevent's own declarations.
    let api = unsafe {
        Api {
            config_new: library.function(c"event_config_new")?,
            config_free: library.function(c"event_config_free")?,
            config_set_flag: library.function(c"event_config_set_flag")?,
            config_avoid_method: library.function(c"event_config_avoid_method")?,
            base_new: library.function(c"event_base_new_with_config")?,
            base_free: library.function(c"event_base_free")?,
            base_loop: library.function(c"event_base_loop")?,
            base_loopbreak: library.function(c"event_base_loopbreak")?,
            event_new: library.function(c"event_new")?,
            event_assign: library.function(c"event_assign")?,
            event_free: library.function(c"event_free")?,
            event_add: library.function(c"event_add")?,
            event_del: library.function(c"event_del")?,
        }
    };
    Ok(*API.get_or_init(|| api))
}

/// What the context has for one number.
#[derive(Clone, Copy)]
struct Slot {
    /// Null until the number is first watched.
    event: *mut c_void,
    key: u64,
    /// What it was assigned.
    what: c_short,
    once: bool,
    added: bool,
}

const EMPTY: Slot = Slot {
    event: ptr::null_mut(),
    key: 0,
    what: 0,
    once: false,
    added: false,
};

/// What the callbacks use too.
struct State {
    api: Api,
    base: *mut c_void,
    /// By number.
    slots: Vec<Slot>,
    /// The batch of the current wait.
    found: *mut Batch,
    count: usize,
}

/// A context of libevent.
pub(super) struct Libevent {
    /// In a block of its own: libevent keeps its address.
    state: Box<UnsafeCell<State>>,
    method: Method,
    /// An event without a descriptor, for the time of a wait; null until it is first needed.
    time: *mut c_void,
}

/// A descriptor is ready.
unsafe extern "C" fn ready(fd: c_int, what: c_short, arg: *mut c_void) {
    // SAFETY: the loop thread is in `wait`, which keeps no reference to the state meanwhile. The
    // number has a slot, and the batch lives as long as the wait.
    unsafe {
        let state = &mut *arg.cast::<State>();
        let slot = &mut state.slots[fd as usize];
        if slot.once {
            slot.added = false;
            (state.api.event_del)(slot.event);
        }
        let bit = |has: c_short, bit| if what & has != 0 { bit } else { 0 };
        let bits = bit(EV_READ, IN) | bit(EV_WRITE, OUT);
        (*state.found).put(state.count, slot.key, bits);
        state.count += 1;
        if state.count == EVENTS {
            (state.api.base_loopbreak)(state.base);
        }
    }
}

/// The time of a wait is over: that the loop has something to run ends the wait.
unsafe extern "C" fn time_over(_: c_int, _: c_short, _: *mut c_void) {}

/// How many descriptors a base opens: an epoll instance and a pipe.
const DESCRIPTORS: usize = 3;

/// See that a base will get its descriptors. libevent ends the process if it cannot make its pipe.
/// If other threads take all descriptors that are left in the next instant, it still does.
fn see_room() -> io::Result<()> {
    let mut taken = [const { None }; DESCRIPTORS];
    for place in &mut taken {
        // SAFETY: the call takes only flags.
        let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor was opened here, and nothing else owns it.
        *place = Some(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    Ok(())
}

impl Libevent {
    /// Make a context.
    pub(super) fn open(method: Method) -> io::Result<Self> {
        let turn = Turn::take()?;
        let api = api(&turn)?;
        see_room()?;
        let no_memory = || io::Error::from_raw_os_error(libc::ENOMEM);
        // SAFETY: libevent's functions, as its documentation says.
        let base = unsafe {
            let config = (api.config_new)();
            if config.is_null() {
                return Err(no_memory());
            }
            for flag in [BASE_NOLOCK, BASE_IGNORE_ENV, BASE_NO_CACHE_TIME] {
                (api.config_set_flag)(config, flag);
            }
            for (other, name) in METHODS {
                if method != other {
                    (api.config_avoid_method)(config, name.as_ptr());
                }
            }
            let base = (api.base_new)(config);
            (api.config_free)(config);
            base
        };
        if base.is_null() {
            return Err(io::Error::other("libevent makes no event_base"));
        }
        Ok(Self {
            state: Box::new(UnsafeCell::new(State {
                api,
                base,
                slots: Vec::new(),
                found: ptr::null_mut(),
                count: 0,
            })),
            method,
            time: ptr::null_mut(),
        })
    }

    /// A look that finds fewer events than this has found all. libevent asks its epoll instance for 32 events,
    /// and for twice as many each time that there were as many as it asked for.
    fn all_below(&self) -> usize {
        match self.method {
            Method::Epoll => 32,
            Method::Poll | Method::Select => EVENTS,
        }
    }

    /// Have the wait end at `deadline`.
    fn set_time(&mut self, deadline: u64) -> Result<(), c_int> {
        let (arg, now) = (self.state.get(), sys::now());
        // SAFETY: no callback runs now, so nothing else uses the state. The event is of this base.
        unsafe {
            let (api, base) = ((*arg).api, (*arg).base);
            if self.time.is_null() {
                self.time = (api.event_new)(base, -1, EV_TIMEOUT, time_over, ptr::null_mut());
            }
            if self.time.is_null() {
                return Err(libc::ENOMEM);
            }
            // Rounded up, so that the wait does not end early.
            let left = deadline.saturating_sub(now).div_ceil(1_000);
            let left = timeval {
                tv_sec: libc::time_t::try_from(left / 1_000_000).unwrap_or(libc::time_t::MAX),
                tv_usec: (left % 1_000_000) as libc::suseconds_t,
            };
            match (api.event_add)(self.time, &left) {
                0 => Ok(()),
                _ => Err(libc::ENOMEM),
            }
        }
    }
}

impl Framework for Libevent {
    fn traits(&self) -> Traits {
        let by_number = matches!(self.method, Method::Poll | Method::Select);
        Traits {
            keeps_time: false,
            by_number,
            outlives: !by_number,
            closes_blindly: false,
            // It registers at once, and what it has read from the instance but not reported is still
            // ready.
            shows_ready: !by_number,
            limit: match self.method {
                Method::Select => libc::FD_SETSIZE as c_int,
                _ => c_int::MAX,
            },
        }
    }

    fn watch(&mut self, watch: Watch) -> Result<(), c_int> {
        let arg = self.state.get();
        let fd = watch.fd as usize;
        // SAFETY: no callback runs now, so nothing else uses the state.
        let state = unsafe { &mut *arg };
        if state.slots.len() <= fd {
            let more = fd + 1 - state.slots.len();
            state.slots.try_reserve(more).map_err(|_| libc::ENOMEM)?;
            state.slots.resize(fd + 1, EMPTY);
        }
        let (api, base) = (state.api, state.base);
        let slot = &mut state.slots[fd];
        let bit = |set, bit| if set { bit } else { 0 };
        let interest = watch.interest;
        let what = bit(interest.read(), EV_READ) | bit(interest.write(), EV_WRITE) | EV_PERSIST;
        slot.key = watch.key;
        slot.once = watch.once;
        if slot.added && watch.known && slot.what == what {
            return Ok(());
        }
        // SAFETY: the event, once made, is of this base, and not added when it is assigned.
        unsafe {
            if slot.added {
                slot.added = false;
                (api.event_del)(slot.event);
            }
            if interest.is_none() {
                return Ok(());
            }
            if slot.event.is_null() {
                slot.event = (api.event_new)(base, watch.fd, what, ready, arg.cast());
                if slot.event.is_null() {
                    return Err(libc::ENOMEM);
                }
            } else if slot.what != what
                && (api.event_assign)(slot.event, base, watch.fd, what, ready, arg.cast()) != 0
            {
                return Err(libc::EINVAL);
            }
            slot.what = what;
            // libevent sets no errno if it has no memory.
            sys::set_errno(0);
            if (api.event_add)(slot.event, ptr::null()) != 0 {
                return Err(match sys::errno() {
                    0 => libc::ENOMEM,
                    errno => errno,
                });
            }
        }
        slot.added = true;
        Ok(())
    }

    fn unwatch(&mut self, fd: c_int, _lost: bool) {
        // SAFETY: no callback runs now, so nothing else uses the state.
        let state = unsafe { &mut *self.state.get() };
        let api = state.api;
        if let Some(slot) = state.slots.get_mut(fd as usize).filter(|slot| slot.added) {
            slot.added = false;
            // SAFETY: the event is of this base.
            unsafe { (api.event_del)(slot.event) };
        }
    }

    #[inline]
    fn wait(&mut self, until: Until, found: &mut Batch) -> Result<(usize, bool), c_int> {
        let flags = match until {
            // Without ONCE it goes on as long as anything is ready, and that is until the loop has read it.
            Until::Now => LOOP_NONBLOCK | LOOP_ONCE,
            Until::Event => LOOP_ONCE,
            Until::Deadline(deadline) => {
                self.set_time(deadline)?;
                LOOP_ONCE
            }
        };
        let state = self.state.get();
        // SAFETY: the state is used through the pointer only, by this function and by the callbacks
        // that run in the middle.
        unsafe {
            (*state).found = found;
            (*state).count = 0;
            // A signal interrupts only the system call: libevent would go on to wait. So a rouse,
            // which says that the pool's own descriptors are closed, breaks its loop. That is a
            // store in the base.
            wake::when_roused(Some(((*state).api.base_loopbreak, (*state).base)));
            sys::set_errno(0);
            let done = ((*state).api.base_loop)((*state).base, flags);
            wake::when_roused(None);
            let count = (*state).count;
            if matches!(until, Until::Deadline(_)) {
                ((*state).api.event_del)(self.time);
            }
            if done < 0 && count == 0 {
                return Err(match sys::errno() {
                    0 | libc::EINTR => libc::EIO,
                    errno => errno,
                });
            }
            Ok((count, count >= self.all_below()))
        }
    }

    fn close(self: Box<Self>) {
        let state = self.state.get();
        // SAFETY: nothing uses the state any more, and the events are of this base.
        unsafe {
            let api = (*state).api;
            for slot in &(*state).slots {
                if !slot.event.is_null() {
                    (api.event_free)(slot.event);
                }
            }
            if !self.time.is_null() {
                (api.event_free)(self.time);
            }
            (api.base_free)((*state).base);
        }
    }
}
