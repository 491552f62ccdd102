// SPDX-License-Identifier: GPL-3.0-or-later
//! What the calling thread is to the library: a thread of which pool, in which job's callback.
//!
//! "Am I inside this job's callback?" and "is this a thread of that pool?" are answered by two
//! thread-locals, without a lock.

use std::cell::Cell;
use std::ptr::{self, NonNull};

use super::Job;
use crate::abi::ns_thrpool_t;

/// What a thread is to the library.
#[derive(Clone, Copy)]
struct Here {
    /// The pool whose thread this is, or null.
    pool: *const ns_thrpool_t,
    /// Whether it is that pool's loop thread.
    is_loop: bool,
}

thread_local! {
    static HERE: Cell<Here> = const { Cell::new(Here { pool: ptr::null(), is_loop: false }) };
    /// The job whose callback runs on this thread, or null.
    static RUNNING: Cell<*const Job> = const { Cell::new(ptr::null()) };
}

/// The calling thread is a thread of `pool` from now on.
pub(crate) fn enter_pool(pool: NonNull<ns_thrpool_t>, is_loop: bool) {
    let pool = pool.as_ptr();
    HERE.set(Here { pool, is_loop });
}

/// Whether the caller is on a thread of `pool`.
pub(crate) fn on_thread_of(pool: NonNull<ns_thrpool_t>) -> bool {
    ptr::eq(HERE.get().pool, pool.as_ptr())
}

/// Whether the caller is on the loop thread of `pool`.
pub(crate) fn on_loop_of(pool: NonNull<ns_thrpool_t>) -> bool {
    on_thread_of(pool) && HERE.get().is_loop
}

/// Whether the caller is inside the callback of `job`.
pub(crate) fn in_callback_of(job: &Job) -> bool {
    ptr::eq(RUNNING.get(), job)
}

/// The callback of `job` begins on this thread.
pub(crate) fn enter_callback(job: &Job) {
    RUNNING.set(job);
}

/// The callback returned.
pub(crate) fn leave_callback() {
    RUNNING.set(ptr::null());
}
