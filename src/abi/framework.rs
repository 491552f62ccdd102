// SPDX-License-Identifier: GPL-3.0-or-later
//! An event framework of the application's own. The layout is part of the ABI.

use libc::{c_char, c_int, c_void, size_t};

/// A flag for `watch`: report the descriptor once, and then not until it is watched again.
pub const NS_FRAMEWORK_ONCE: c_int = 1;
/// A flag for `watch`: the descriptor is already being watched.
pub const NS_FRAMEWORK_KNOWN: c_int = 2;

/// An event: a descriptor is ready.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ns_framework_event {
    /// The key that the descriptor is watched with.
    pub key: u64,
    /// NS_JOB_READ, NS_JOB_WRITE or both. Report an error or a hang-up as both.
    pub ready: u32,
}

/// An event framework of the application's own, for `ns_thrpool_options`. The pool watches descriptors
/// through it, and waits with it. examples/framework-poll.c runs a pool over poll(2).
///
/// All functions but `wait_fd` are required; `arg` may be NULL. The pool copies the struct and its
/// name. It calls the functions from its loop thread, one at a time. It also calls `open` and `close`
/// from the threads that make and destroy the pool, and `close` in a forked child. The functions must
/// not call functions of this library on the pool.
///
/// The pool watches the library's own descriptors, such as the pipe that wakes the loop, in the same
/// way. An event for a descriptor that is not ready does no harm, nor does one with an earlier key. The
/// library verifies each event. So a framework may watch descriptor numbers, as poll(2) does, and need
/// not notice that a number was closed or reused.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ns_framework {
    /// sizeof(struct ns_framework). Members are only ever added at the end.
    pub size: size_t,
    /// The name, which `ns_thrpool_get_framework` returns. Not NULL, not empty.
    pub name: *const c_char,
    /// The argument of `open`; the application's own. What it points to must outlive the pool.
    pub arg: *mut c_void,
    /// Make a context. The other functions get it as `fw`. If it is NULL, no pool is made. The pool
    /// also calls this when it has to start over with a new context: when `wait` fails, when the pool's
    /// own descriptors were closed, and when a file may live on although its number was closed. Then it
    /// opens the new context before it closes the old one.
    pub open: Option<unsafe extern "C" fn(arg: *mut c_void) -> *mut c_void>,
    /// Watch `fd`. With NS_FRAMEWORK_KNOWN it is watched already: change how. `interest` has
    /// NS_JOB_READ and NS_JOB_WRITE bits; if it has none, report nothing. Events carry `key`; a later
    /// call may change it. Returns 0 or an errno: EPERM if `fd` cannot be watched because it is always
    /// ready, as regular files are; ENOENT if NS_FRAMEWORK_KNOWN was given but `fd` is no longer
    /// watched; EBADF if it is closed. After any other errno the pool logs it and tries again, at
    /// growing intervals.
    pub watch: Option<
        unsafe extern "C" fn(
            fw: *mut c_void,
            fd: c_int,
            key: u64,
            interest: c_int,
            flags: c_int,
        ) -> c_int,
    >,
    /// Stop watching `fd`. It may already be closed. Returns 0 or an errno; the pool does nothing about
    /// an errno.
    pub unwatch: Option<unsafe extern "C" fn(fw: *mut c_void, fd: c_int) -> c_int>,
    /// Wait until something is ready or the monotonic clock reaches `until`, in nanoseconds. If `until`
    /// is 0, do not wait; if it is -1, wait without limit. Write at most `max` events and return their
    /// number. A signal must interrupt the wait; then return 0 if nothing is ready. If more than `max`
    /// descriptors are ready, report them in turn. Return -1 and set errno if waiting fails: the pool
    /// then starts over with `open`.
    pub wait: Option<
        unsafe extern "C" fn(
            fw: *mut c_void,
            events: *mut ns_framework_event,
            max: c_int,
            until: i64,
        ) -> c_int,
    >,
    /// Return a descriptor that polls readable when `wait` would find something ready, or -1. May be
    /// NULL.
    pub wait_fd: Option<unsafe extern "C" fn(fw: *mut c_void) -> c_int>,
    /// Free the context. If `in_child` is 1, this is a forked child, and its parent still uses its own
    /// copy of the context: do nothing that affects the parent (with epoll: no epoll_ctl), and do not
    /// rely on a lock that the parent's loop thread may have held. The pool does not call this if the
    /// application has closed the pool's own descriptors: those of the context may be closed too, and
    /// their numbers reused for other files.
    pub close: Option<unsafe extern "C" fn(fw: *mut c_void, in_child: c_int)>,
}
