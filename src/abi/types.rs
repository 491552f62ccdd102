// SPDX-License-Identifier: GPL-3.0-or-later
//! The types and constants of 0.2.
//!
//! The header takes its text from the doc comments here. Layouts, widths and values are the ABI of
//! 0.2 and never change; `c-tests/test-abi.c` asserts every one of them.

use libc::{c_char, c_int, c_void, size_t};

/// Result of a call.
///
/// The results after NS_DELETING are additions: macros, so that a switch over 0.2's results stays
/// complete. Define NS_EXTENDED_RESULTS before the include, in all files, to have them as
/// enumerators (for `case NS_RUNNING`, and for generators of bindings).
#[allow(non_camel_case_types, missing_docs, dead_code)]
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum _ns_result_t {
    /// Done, or accepted and certain to be done.
    NS_SUCCESS = 0,
    /// The pool is shutting down (or belongs to the parent of this forked process).
    NS_SHUTDOWN = 1,
    /// An allocation function of the pool returned NULL. Nothing happened.
    NS_ALLOCATION_FAILURE = 2,
    /// An argument is wrong. The log names the function and the argument. Nothing happened.
    NS_INVALID_REQUEST = 3,
    /// The job is not in a state that allows this call. Nothing happened.
    NS_INVALID_STATE = 4,
    /// Threads could not be waited for, or a pool's own callback waits for the pool.
    NS_THREAD_FAILURE = 5,
    /// The job is being disposed of, or the group is cancelled.
    NS_DELETING = 6,
    /// The time of `ns_job_timedwait` is up.
    NS_TIMEOUT = 7,
    /// `ns_job_cancel`, `ns_group_cancel`: a run had begun on another thread.
    NS_RUNNING = 8,
    /// Too many jobs wait already. Nothing happened.
    NS_OVERLOADED = 9,
}

/// `ns_result_t`: C's `enum _ns_result_t`, as the integer that it is.
#[allow(non_camel_case_types)]
pub type ns_result_t = libc::c_uint;

/// Job flags, or'ed together from `NS_JOB_...`. Its width is that of `uint_fast16_t` on the
/// target: with glibc that of a pointer.
#[allow(non_camel_case_types)]
#[cfg(all(target_os = "linux", target_env = "gnu", target_pointer_width = "64"))]
pub type ns_job_type_t = u64;
#[allow(non_camel_case_types, missing_docs)]
#[cfg(any(
    all(target_os = "linux", target_env = "gnu", target_pointer_width = "32"),
    all(target_os = "linux", target_env = "musl"),
    target_os = "freebsd"
))]
pub type ns_job_type_t = u32;
#[allow(non_camel_case_types, missing_docs)]
#[cfg(target_os = "macos")]
pub type ns_job_type_t = u16;

/// No flag.
pub const NS_JOB_NONE: ns_job_type_t = 0;
/// A listening descriptor has a connection to accept. Fires as NS_JOB_READ. Not with THREAD.
pub const NS_JOB_ACCEPT: ns_job_type_t = 1 << 0;
/// A connect that was begun has ended, well or not. Fires as NS_JOB_WRITE.
pub const NS_JOB_CONNECT: ns_job_type_t = 1 << 1;
/// The descriptor is readable, at its end, or in error.
pub const NS_JOB_READ: ns_job_type_t = 1 << 2;
/// The descriptor is writable, or in error.
pub const NS_JOB_WRITE: ns_job_type_t = 1 << 3;
/// A time has passed.
pub const NS_JOB_TIMER: ns_job_type_t = 1 << 4;
/// A signal arrived.
pub const NS_JOB_SIGNAL: ns_job_type_t = 1 << 5;
/// Armed again by itself whenever its callback returns, until it is finished with.
pub const NS_JOB_PERSIST: ns_job_type_t = 1 << 6;
/// The callback runs in a worker thread; without this flag, in the event-loop thread.
pub const NS_JOB_THREAD: ns_job_type_t = 1 << 7;
/// The descriptor stays open when the job is disposed of; without this flag it is closed.
pub const NS_JOB_PRESERVE_FD: ns_job_type_t = 1 << 8;
/// Of the library's own use; refused everywhere.
pub const NS_JOB_SHUTDOWN_WORKER: ns_job_type_t = 1 << 9;

/// A job's callback. Called with the job; its data is at `ns_job_get_data`.
///
/// It must return normally: no longjmp out of it, no pthread_exit, no C++ exception; and not in a
/// child that it forked, which is to call _exit or one of exec's functions.
/// No lock of the library is held while it runs, and it may call everything in this header on
/// its own job or any other, except `ns_thrpool_wait` and `ns_thrpool_destroy` on its own pool.
#[allow(non_camel_case_types)]
pub type ns_job_func_t = Option<unsafe extern "C" fn(job: *mut ns_job_t)>;

/// How to make a pool. Initialise it with `ns_thrpool_config_init`, set what differs, pass it to
/// `ns_thrpool_new`. It is copied: the caller may drop it afterwards.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ns_thrpool_config {
    /// Set by `ns_thrpool_config_init`; anything else is refused.
    pub init_flag: i32,
    /// Number of worker threads, at least 1.
    pub max_threads: size_t,
    /// Stack of each thread in bytes; 0: what pthread gives by default.
    pub stacksize: size_t,
    /// Called as vsyslog(3) is, from any thread. NULL: syslog at LOG_LOCAL1. It may call the
    /// getters of this header and nothing else of it.
    pub log_fct: Option<unsafe extern "C" fn(c_int, *const c_char, va_list)>,
    /// Called once, before the first message. Only with a `log_fct`. May be NULL.
    pub log_start_fct: Option<unsafe extern "C" fn()>,
    /// Called once, after the last message: when the pool is destroyed, or could not be made.
    /// Only with a `log_fct`. May be NULL.
    pub log_close_fct: Option<unsafe extern "C" fn()>,
    /// As malloc(3). Kept for compatibility: the library calls `calloc_fct` and `free_fct` only.
    pub malloc_fct: Option<unsafe extern "C" fn(size_t) -> *mut c_void>,
    /// As memalign(3), but size first and alignment second. Kept for compatibility.
    pub memalign_fct: Option<unsafe extern "C" fn(size_t, size_t) -> *mut c_void>,
    /// As calloc(3); NULL: calloc. Set it and `free_fct` together. Called from any thread; it
    /// must not call this library.
    pub calloc_fct: Option<unsafe extern "C" fn(size_t, size_t) -> *mut c_void>,
    /// As realloc(3). Kept for compatibility.
    pub realloc_fct: Option<unsafe extern "C" fn(*mut c_void, size_t) -> *mut c_void>,
    /// As free(3); NULL: free. As `calloc_fct`.
    pub free_fct: Option<unsafe extern "C" fn(*mut c_void)>,
}

/// C's `va_list` as an argument: only ever handed from C to C, never made or read here.
#[allow(non_camel_case_types)]
pub type va_list = *mut c_void;

/// What `ns_thrpool_config_init` writes into `init_flag`.
pub const INIT_FLAG: i32 = 0xdefa014;

/// A job as C sees it, opaque: `job` knows what is inside.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Debug)]
pub struct ns_job_t {
    _opaque: [u8; 0],
}

/// A pool as C sees it, opaque: `shared` and `pool` know what is inside.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Debug)]
pub struct ns_thrpool_t {
    _opaque: [u8; 0],
}

/// NSPR's file descriptor, opaque: only NSPR's own functions look inside.
#[repr(C)]
#[derive(Debug)]
pub struct PRFileDesc {
    _opaque: [u8; 0],
}
