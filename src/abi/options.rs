// SPDX-License-Identifier: GPL-3.0-or-later
//! The options of a pool. The layout is part of the ABI: a new field goes to the end.

use libc::{c_char, c_void, size_t, timeval};

use super::framework::ns_framework;
use super::slow::ns_slow_call;

/// A flag for the options: no loop thread is started; see "The loop in the caller's thread".
pub const NS_POOL_CALLER_LOOP: u64 = 1 << 0;
/// A flag for the options: the statistics have times too. Not in this version.
pub const NS_POOL_TIMINGS: u64 = 1 << 1;

/// What can be chosen when a pool is made, beside its config. Make it ready with
/// `ns_thrpool_options_init`, set what differs, pass it to `ns_thrpool_new_with`. It is copied, and so
/// is what its strings say.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ns_thrpool_options {
    /// The size of this struct in the program that fills it in: set by `ns_thrpool_options_init`.
    /// Fields are only ever added at the end. What a program does not know of is default; what the
    /// library does not know of must be zero.
    pub size: size_t,
    /// NS_POOL_... flags, or'ed together.
    pub flags: u64,
    /// 1 to 8 characters, with which the names of the pool's threads begin: NAME-loop, NAME-worker.
    /// NULL: ns.
    pub name: *const c_char,
    /// The event framework that the pool runs over: "native" (epoll and timerfd on Linux), "portable"
    /// (the polling crate alone), "libevent", "libevent:epoll", "libevent:poll", "libevent:select",
    /// "tevent", which is "tevent:standard", or "tevent:poll". The libraries of libevent and tevent are
    /// loaded when a pool asks for them; if one is not there, or lacks a function, no pool is made, and
    /// the log names it. NULL, and `custom` NULL too: what the environment variable
    /// NUNC_STANS_FRAMEWORK says (not in a program with privileges of its own; empty is unset), else
    /// native. docs/FRAMEWORKS.md says what each costs, and what differs.
    pub framework: *const c_char,
    /// An event framework of the application's own, on Linux; then `framework` must be NULL. Copied.
    pub custom: *const ns_framework,
    /// How many run-now jobs with NS_JOB_THREAD, outside groups, may wait for workers: an add that
    /// finds so many is refused with NS_OVERLOADED. 0: no limit. See "Overload".
    pub queue_limit: size_t,
    /// Report callbacks and done callbacks of jobs that run longer than this: once while one still runs,
    /// and once when it has returned. Zero reports none. The pool has one more thread for it, NAME-watch,
    /// and reads the clock twice for each callback. A time below a millisecond counts as one.
    pub slow: timeval,
    /// Gets these reports, in the thread NAME-watch, which is one of the pool's own. Its argument is valid
    /// during the call. NULL: the reports go to the log, at LOG_WARNING.
    pub slow_fct: Option<unsafe extern "C" fn(call: *const ns_slow_call)>,
    /// Called first in each thread that the pool starts, with `thread_arg` and the thread's name: to
    /// attach it to a language's runtime, or to pin it to a processor. May be NULL.
    pub thread_start_fct: Option<unsafe extern "C" fn(arg: *mut c_void, name: *const c_char)>,
    /// Called last in each thread that the pool starts. `ns_thrpool_wait` returns after those of the
    /// workers have returned, and `ns_thrpool_destroy` after that of the loop. May be NULL.
    pub thread_end_fct: Option<unsafe extern "C" fn(arg: *mut c_void, name: *const c_char)>,
    /// For these two; the application's own.
    pub thread_arg: *mut c_void,
}
