// SPDX-License-Identifier: GPL-3.0-or-later
//! The results in words, and a wait for a pool that has an end.

use libc::{c_char, timeval};
use std::ffi::CStr;

use super::call::*;
use super::pool::wait_until;
use crate::abi::*;
use crate::sys;

/// Each result: its name, and what it says. A result is the index.
const RESULTS: [(&CStr, &CStr); 10] = [
    (
        c"NS_SUCCESS",
        c"the call has done what it was to do, or will",
    ),
    (
        c"NS_SHUTDOWN",
        c"the pool is shutting down, or belongs to the parent process",
    ),
    (
        c"NS_ALLOCATION_FAILURE",
        c"the pool's allocator has no memory",
    ),
    (
        c"NS_INVALID_REQUEST",
        c"an argument is wrong: the log says which",
    ),
    (
        c"NS_INVALID_STATE",
        c"the job's, group's or pool's state does not allow this call",
    ),
    (
        c"NS_THREAD_FAILURE",
        c"the pool's threads can't be waited for",
    ),
    (
        c"NS_DELETING",
        c"the job is being disposed of, or the group is cancelled",
    ),
    (c"NS_TIMEOUT", c"the time is up"),
    (
        c"NS_RUNNING",
        c"a callback runs on another thread, for the last time",
    ),
    (c"NS_OVERLOADED", c"too many jobs wait already"),
];

fn told(result: ns_result_t) -> (&'static CStr, &'static CStr) {
    let unknown = c"unknown result";
    let known = usize::try_from(result).ok().and_then(|at| RESULTS.get(at));
    known.copied().unwrap_or((unknown, unknown))
}

/// The name of a result, as this header spells it. Any thread; async-signal-safe.
///
/// @param result a result
/// @return "NS_SUCCESS" and so on; "unknown result" for any other number. Never NULL; valid as long as
/// the library is loaded
#[unsafe(no_mangle)]
pub extern "C" fn ns_result_name(result: ns_result_t) -> *const c_char {
    told(result).0.as_ptr()
}

/// What a result says, for people. Any thread; async-signal-safe.
///
/// @param result a result
/// @return a sentence without capital and full stop; "unknown result" for any other number. Never NULL;
/// valid as long as the library is loaded
#[unsafe(no_mangle)]
pub extern "C" fn ns_result_message(result: ns_result_t) -> *const c_char {
    told(result).1.as_ptr()
}

/// As `ns_thrpool_wait`, but with a time limit. Unlike all other waits, it may return NS_TIMEOUT early
/// when a signal handler has run in the calling thread. So an interpreter can handle its own signals
/// between two calls.
///
/// @param tp the pool
/// @param tv how long to wait at most; not negative
/// @return as `ns_thrpool_wait`; NS_TIMEOUT when the time is up; NS_INVALID_REQUEST also if tv is NULL
/// or negative
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_thrpool_timedwait(
    tp: *mut ns_thrpool_t,
    tv: *const timeval,
) -> ns_result_t {
    // SAFETY: the C interface requires `tv` to be NULL or a valid time.
    let time = unsafe { nanoseconds(tv) };
    let deadline = time.map(|time| Some(sys::now().saturating_add(time)));
    // SAFETY: the C interface requires `tp` to be NULL or a live pool.
    unsafe { wait_until("ns_thrpool_timedwait", tp, deadline) }
}
