// SPDX-License-Identifier: GPL-3.0-or-later
//! What the library knows about the calling thread: the pool that it belongs to, and the job whose
//! callback it runs.
//!
//! Two thread-locals answer "am I inside this job's callback?" and "does this thread belong to that
//! pool?" without a lock. The first names the thread's [`Slot`], which holds the job.

use std::cell::Cell;
use std::ptr::{self, NonNull};

use super::{Job, JobPtr};
use crate::abi::ns_thrpool_t;
use crate::stats::{NOBODY, Slot};
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
    /// The slot of this thread: it says whose callback the thread runs.
    static SLOT: Cell<*const Slot> = const { Cell::new(&raw const NOBODY) };
    /// The innermost callback of a group's on this thread's stack, or null.
    static FRAMES: Cell<*const Frame> = const { Cell::new(ptr::null()) };
}

/// Makes the calling thread a thread of `pool`, with a slot that lives as long as the pool.
pub(crate) fn enter_pool(pool: NonNull<ns_thrpool_t>, is_loop: bool, slot: &Slot) {
    let pool = pool.as_ptr();
    HERE.set(Here { pool, is_loop });
    SLOT.set(slot);
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
    ptr::eq(running(), job)
}

/// The job whose callback this thread runs, or null.
fn running() -> *const Job {
    // SAFETY: nobody's slot is a static; a thread of a pool ends before the pool and its slots do.
    unsafe { &*SLOT.get() }.job().cast()
}

/// The job whose callback this thread runs, if it runs one.
pub(crate) fn callback() -> Option<JobPtr> {
    let job = NonNull::new(running().cast_mut())?;
    // SAFETY: it is live until its callback has returned, and later than the caller is done with it.
    Some(unsafe { JobPtr::new(job) })
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
