// SPDX-License-Identifier: GPL-3.0-or-later
//! The options of a pool. The layout is part of the ABI: a new field goes to the end.

use libc::{c_char, c_void, size_t, timeval};

use super::framework::ns_framework;
use super::slow::ns_slow_call;

/// A flag for the options: start no loop thread; see "The loop in the caller's thread".
pub const NS_POOL_CALLER_LOOP: u64 = 1 << 0;
/// A flag for the options: measure times for the statistics too: how long jobs wait, how long callbacks
/// take, how late timers are, how long the loop sleeps. Each job then takes 8 more bytes, and the pool
/// reads the clock two or three times for each callback.
pub const NS_POOL_TIMINGS: u64 = 1 << 1;

/// Options of a pool, in addition to its config. Initialize the struct with `ns_thrpool_options_init`,
/// set the fields that differ from the defaults, and pass it to `ns_thrpool_new_with`. The pool copies
/// the struct and its strings.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ns_thrpool_options {
    /// The size of this struct in the program that fills it in, set by `ns_thrpool_options_init`. Fields
    /// are only ever added at the end. A field that the program does not know has its default; one that
    /// the library does not know must be zero.
    pub size: size_t,
    /// NS_POOL_... flags, or'ed together.
    pub flags: u64,
    /// The prefix of the names of the pool's threads, 1 to 8 characters: NAME-loop, NAME-worker. NULL
    /// means "ns".
    pub name: *const c_char,
    /// The event framework that the pool runs over: "native" (epoll and timerfd on Linux), "portable"
    /// (only the polling crate), "libevent", "libevent:epoll", "libevent:poll", "libevent:select",
    /// "tevent", which is "tevent:standard", or "tevent:poll". The library loads libevent or tevent when
    /// a pool asks for it. If it is missing or lacks a function, no pool is made, and the log names it.
    /// If this and `custom` are NULL, the environment variable NUNC_STANS_FRAMEWORK decides, or else the
    /// pool is native. An empty variable counts as unset, and privileged programs (setuid, file
    /// capabilities) ignore it. docs/FRAMEWORKS.md says what each framework costs, and how they differ.
    pub framework: *const c_char,
    /// An event framework of the application's own, on Linux; then `framework` must be NULL. The pool
    /// copies it.
    pub custom: *const ns_framework,
    /// How many run-now jobs with NS_JOB_THREAD, outside groups, may wait for workers. When so many wait,
    /// adding another returns NS_OVERLOADED. 0 means no limit. See "Overload".
    pub queue_limit: size_t,
    /// Report callbacks and done callbacks of jobs that run longer than this: once while the callback is
    /// still running, and once when it has returned. Zero reports none. For this the pool has an
    /// additional thread, NAME-watch, and reads the clock twice for each callback. A time below a
    /// millisecond counts as one millisecond.
    pub slow: timeval,
    /// Called with each of these reports, in the thread NAME-watch, which is one of the pool's own
    /// threads. Its argument is valid during the call. If it is NULL, the reports go to the log, at
    /// LOG_WARNING.
    pub slow_fct: Option<unsafe extern "C" fn(call: *const ns_slow_call)>,
    /// Called first in each thread that the pool starts, with `thread_arg` and the thread's name: for
    /// example to attach the thread to a language's runtime, or to pin it to a processor. May be NULL.
    pub thread_start_fct: Option<unsafe extern "C" fn(arg: *mut c_void, name: *const c_char)>,
    /// Called last in each thread that the pool starts. `ns_thrpool_wait` returns after these calls in
    /// the workers have returned, and `ns_thrpool_destroy` after that in the loop thread. May be NULL.
    pub thread_end_fct: Option<unsafe extern "C" fn(arg: *mut c_void, name: *const c_char)>,
    /// The argument of these two functions; the application's own.
    pub thread_arg: *mut c_void,
}
