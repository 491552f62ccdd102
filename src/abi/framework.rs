// SPDX-License-Identifier: GPL-3.0-or-later
//! An event framework of the application's own. The layout is part of the ABI.

use libc::{c_char, c_int, c_void, size_t};

/// A flag for `watch`: report it once, then nothing until it is watched again.
pub const NS_FRAMEWORK_ONCE: c_int = 1;
/// A flag for `watch`: the descriptor is watched already.
pub const NS_FRAMEWORK_KNOWN: c_int = 2;

/// A descriptor is ready.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ns_framework_event {
    /// The key that it was watched with.
    pub key: u64,
    /// NS_JOB_READ, NS_JOB_WRITE or both. An error or a hang-up is both.
    pub ready: u32,
}

/// An event framework of the application's own, for `ns_thrpool_options`. The pool watches
/// descriptors through it, and waits by it. examples/framework-poll.c puts a pool over poll(2).
///
/// All functions but `arg` and `wait_fd` are required. The pool copies the struct and its name. It
/// calls the functions from its loop thread, one at a time; `open` and `close` also from the threads
/// that make and destroy the pool, and `close` in a forked child. They must not call functions of this
/// library on the pool.
///
/// The library's own descriptors, such as the pipe that wakes the loop, are watched in the same way.
/// An event for a descriptor that is not ready does no harm, nor does one with a key that was watched
/// before. The library verifies each event, so a framework may watch numbers, as poll(2) does, and need
/// not notice that a number was closed or reused.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ns_framework {
    /// sizeof(struct ns_framework). Members are only ever added at the end.
    pub size: size_t,
    /// What `ns_thrpool_get_framework` says. Not NULL, not empty.
    pub name: *const c_char,
    /// For `open`; the application's own. What it points at must outlive the pool.
    pub arg: *mut c_void,
    /// Make a context, which is `fw` for the other functions. NULL: no pool is made. The pool calls
    /// this again, for a second context, before it closes the first, when it has to begin anew: when
    /// `wait` fails, when the pool's own descriptors were closed, and when a file may live on though
    /// its number was closed.
    pub open: Option<unsafe extern "C" fn(arg: *mut c_void) -> *mut c_void>,
    /// Watch `fd`, or, with NS_FRAMEWORK_KNOWN, watch it in another way. `interest` has NS_JOB_READ
    /// and NS_JOB_WRITE bits; if it has none, nothing is to be reported. `key` comes back with the
    /// events; a later call may change it. Returns 0 or an errno: EPERM if it cannot be watched
    /// because it is always ready, as files are; ENOENT if one that is known is gone; EBADF if it
    /// is closed. After any other errno the pool logs it and tries again, later and later.
    pub watch: Option<
        unsafe extern "C" fn(
            fw: *mut c_void,
            fd: c_int,
            key: u64,
            interest: c_int,
            flags: c_int,
        ) -> c_int,
    >,
    /// Watch `fd` no more. It may be closed by now. Returns 0 or an errno, which changes nothing.
    pub unwatch: Option<unsafe extern "C" fn(fw: *mut c_void, fd: c_int) -> c_int>,
    /// Wait until something is ready or the monotonic clock shows `until` nanoseconds; with 0 do not
    /// wait, with -1 wait without limit. Write at most `max` events and return their number: 0 also
    /// if a signal interrupts the wait, which it must. Report all that is ready in turn, if it is
    /// more than `max`. -1 with errno if waiting fails: then the pool begins anew, by `open`.
    pub wait: Option<
        unsafe extern "C" fn(
            fw: *mut c_void,
            events: *mut ns_framework_event,
            max: c_int,
            until: i64,
        ) -> c_int,
    >,
    /// A descriptor that polls readable when `wait` would find something ready, or -1. May be NULL.
    pub wait_fd: Option<unsafe extern "C" fn(fw: *mut c_void) -> c_int>,
    /// Free the context. With `in_child` 1 this is a forked child, whose parent still uses its own: do
    /// nothing that has an effect there (for epoll: no epoll_ctl), and do not rely on a lock that the
    /// parent's loop thread may have held. Not called if the application has closed the pool's own
    /// descriptors: the context's may be closed too, and their numbers in use for other files.
    pub close: Option<unsafe extern "C" fn(fw: *mut c_void, in_child: c_int)>,
}
