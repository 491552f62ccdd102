// SPDX-License-Identifier: GPL-3.0-or-later
//! What the library knows about the calling thread: the pool that it belongs to, and the job whose
//! callback it runs.
//!
//! Two thread-locals answer "am I inside this job's callback?" and "does this thread belong to that
//! pool?" without a lock.

use std::cell::Cell;
use std::ptr::{self, NonNull};

use super::{Job, JobPtr};
use crate::abi::ns_thrpool_t;
use libc::c_void;

/// The pool that a thread belongs to.
#[derive(Clone, Copy)]
struct Here {
    /// The pool that this thread belongs to, or null.
    pool: *const ns_thrpool_t,
    /// Whether it is the loop thread of that pool.
    is_loop: bool,
}

/// A callback of a group's on the stack of this thread.
struct Frame {
    group: NonNull<c_void>,
    outer: *const Frame,
}

thread_local! {
    static HERE: Cell<Here> = const { Cell::new(Here { pool: ptr::null(), is_loop: false }) };
    /// The job whose callback this thread runs, or null.
    static RUNNING: Cell<*const Job> = const { Cell::new(ptr::null()) };
    /// The innermost callback of a group's on this thread's stack, or null.
    static FRAMES: Cell<*const Frame> = const { Cell::new(ptr::null()) };
}

/// Makes the calling thread a thread of `pool`.
pub(crate) fn enter_pool(pool: NonNull<ns_thrpool_t>, is_loop: bool) {
    let pool = pool.as_ptr();
    HERE.set(Here { pool, is_loop });
}

/// Whether the calling thread belongs to `pool`.
pub(crate) fn on_thread_of(pool: NonNull<ns_thrpool_t>) -> bool {
    ptr::eq(HERE.get().pool, pool.as_ptr())
}

/// Whether the calling thread is a worker of `pool`.
pub(crate) fn on_worker_of(pool: NonNull<ns_thrpool_t>) -> bool {
    on_thread_of(pool) && !HERE.get().is_loop
}

/// Whether the calling thread is the loop thread of `pool`.
pub(crate) fn on_loop_of(pool: NonNull<ns_thrpool_t>) -> bool {
    on_thread_of(pool) && HERE.get().is_loop
}

/// Whether the calling thread is inside the callback of `job`.
pub(crate) fn in_callback_of(job: &Job) -> bool {
    ptr::eq(RUNNING.get(), job)
}

/// The job whose callback this thread runs, if it runs one.
pub(crate) fn callback() -> Option<JobPtr> {
    let job = NonNull::new(RUNNING.get().cast_mut())?;
    // SAFETY: it is live until its callback has returned, and later than the caller is done with it.
    Some(unsafe { JobPtr::new(job) })
}

/// The callback of `job` begins on this thread.
pub(crate) fn enter_callback(job: &Job) {
    RUNNING.set(job);
}

/// The callback of this thread's job has returned.
pub(crate) fn leave_callback() {
    RUNNING.set(ptr::null());
}

/// Runs `call`, in which a callback of a job of `group`, or of the group itself, is called.
pub(crate) fn in_group<T>(group: NonNull<c_void>, call: impl FnOnce() -> T) -> T {
    let frame = Frame {
        group,
        outer: FRAMES.get(),
    };
    FRAMES.set(&frame);
    let result = call();
    FRAMES.set(frame.outer);
    result
}

/// The number of callbacks of `group` that the caller is inside of.
pub(crate) fn callbacks_of(group: NonNull<c_void>) -> u32 {
    let mut count = 0;
    let mut at = FRAMES.get();
    while !at.is_null() {
        // SAFETY: a frame stays on this thread's stack while it is the innermost, or an outer one.
        let frame = unsafe { &*at };
        count += u32::from(frame.group == group);
        at = frame.outer;
    }
    count
}
