// SPDX-License-Identifier: GPL-3.0-or-later
//! The functions of tevent and talloc.

use std::io;
use std::sync::OnceLock;

use libc::{c_char, c_int, c_void, timeval};

use super::load::Loaded;
use super::turn::Turn;

// tevent's constants.
pub(super) const FD_READ: u16 = 1;
pub(super) const FD_WRITE: u16 = 2;
/// The level of the message that epoll is given up.
pub(super) const DEBUG_ERROR: c_int = 1;

/// Where tevent's messages say that a call came from.
pub(super) const HERE: &std::ffi::CStr = c"nunc-stans";

pub(super) type FdHandler =
    unsafe extern "C" fn(ev: *mut c_void, event: *mut c_void, flags: u16, arg: *mut c_void);
/// The C function has a `va_list` after these, which is of no interest here.
pub(super) type MessageHandler =
    unsafe extern "C" fn(arg: *mut c_void, level: c_int, format: *const c_char);
pub(super) type TimeHandler =
    unsafe extern "C" fn(ev: *mut c_void, timer: *mut c_void, now: timeval, arg: *mut c_void);

/// The functions of tevent and talloc. Their structs are opaque: `ev` is a context, `event` one for
/// a descriptor, `parent` a talloc context.
#[derive(Clone, Copy)]
pub(super) struct Api {
    pub(super) talloc_named_const: unsafe extern "C" fn(
        parent: *const c_void,
        size: usize,
        name: *const c_char,
    ) -> *mut c_void,
    pub(super) talloc_free:
        unsafe extern "C" fn(what: *mut c_void, location: *const c_char) -> c_int,
    pub(super) context_init:
        unsafe extern "C" fn(parent: *mut c_void, backend: *const c_char) -> *mut c_void,
    pub(super) set_debug:
        unsafe extern "C" fn(ev: *mut c_void, handler: MessageHandler, arg: *mut c_void) -> c_int,
    pub(super) add_fd: unsafe extern "C" fn(
        ev: *mut c_void,
        parent: *mut c_void,
        fd: c_int,
        flags: u16,
        handler: FdHandler,
        arg: *mut c_void,
        handler_name: *const c_char,
        location: *const c_char,
    ) -> *mut c_void,
    pub(super) fd_set_flags: unsafe extern "C" fn(event: *mut c_void, flags: u16),
    pub(super) fd_get_flags: unsafe extern "C" fn(event: *mut c_void) -> u16,
    pub(super) add_timer: unsafe extern "C" fn(
        ev: *mut c_void,
        parent: *mut c_void,
        at: timeval,
        handler: TimeHandler,
        arg: *mut c_void,
        handler_name: *const c_char,
        location: *const c_char,
    ) -> *mut c_void,
    pub(super) loop_once: unsafe extern "C" fn(ev: *mut c_void, location: *const c_char) -> c_int,
}

static API: OnceLock<Api> = OnceLock::new();

/// These functions, loaded when they are first asked for.
pub(super) fn api(_turn: &Turn) -> io::Result<Api> {
    if let Some(api) = API.get() {
        return Ok(*api);
    }
    let talloc = Loaded::open("libtalloc.so.2")?;
    let tevent = Loaded::open("libtevent.so.0")?;
    // SAFETY: the types are those of the libraries' own declarations.
    let api = unsafe {
        Api {
            talloc_named_const: talloc.function(c"talloc_named_const")?,
            talloc_free: talloc.function(c"_talloc_free")?,
            context_init: tevent.function(c"tevent_context_init_byname")?,
            set_debug: tevent.function(c"tevent_set_debug")?,
            add_fd: tevent.function(c"_tevent_add_fd")?,
            fd_set_flags: tevent.function(c"tevent_fd_set_flags")?,
            fd_get_flags: tevent.function(c"tevent_fd_get_flags")?,
            add_timer: tevent.function(c"_tevent_add_timer")?,
            loop_once: tevent.function(c"_tevent_loop_once")?,
        }
    };
    Ok(*API.get_or_init(|| api))
}
