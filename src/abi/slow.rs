// SPDX-License-Identifier: GPL-3.0-or-later
//! The report on a slow callback. The layout is part of the ABI: a new field goes to the end.

use libc::{c_char, c_int, c_void, pid_t, size_t};

use super::types::{ns_job_func_t, ns_job_t, ns_thrpool_t};

/// A report on a callback that takes too long: see `slow` in the options of a pool.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ns_slow_call {
    /// The size of this struct in the library. Fields are only ever added at the end.
    pub size: size_t,
    /// The pool.
    pub tp: *mut ns_thrpool_t,
    /// The job. For comparing only: the callback may have returned, and the job may be gone.
    pub job: *mut ns_job_t,
    /// The callback, or done callback.
    pub func: ns_job_func_t,
    /// Its name, if the dynamic linker knows it (link the program with -rdynamic); else NULL.
    pub name: *const c_char,
    /// The job's data when the callback began. For comparing only.
    pub data: *mut c_void,
    /// The thread's ID, as from gettid(2); 0 on systems without it.
    pub thread: pid_t,
    /// 1 if it runs in the pool's loop, 0 if in a worker.
    pub in_loop: c_int,
    /// 0 while the callback runs, 1 when it has returned.
    pub ended: c_int,
    /// For how many nanoseconds it has run so far or, once it has returned, in all. The real time may be
    /// longer.
    pub ns: u64,
}
