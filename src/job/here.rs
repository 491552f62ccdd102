// SPDX-License-Identifier: GPL-3.0-or-later
//! What the library knows about the calling thread: the pool that it belongs to, and the job whose
//! callback it runs.
//!
//! Two thread-locals answer "am I inside this job's callback?" and "does this thread belong to that
//! pool?" without a lock. A callback of one pool may turn the loop of another, and that runs callbacks in
//! turn: so both questions go for everything on the thread's stack. The first names the thread's [`Slot`] in
//! each of these pools, which holds the job.

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
    /// What the thread was doing when it became the loop of this pool; null in a pool's own threads.
    outer: *const Outer,
}

/// What a thread was doing when it became the loop of another pool.
struct Outer {
    here: Here,
    /// Its slot there.
    slot: *const Slot,
}

/// A callback of a group's on the stack of this thread.
struct Frame {
    group: NonNull<c_void>,
    outer: *const Frame,
}

thread_local! {
    static HERE: Cell<Here> = const {
        Cell::new(Here { pool: ptr::null(), is_loop: false, outer: ptr::null() })
    };
    /// The slot of this thread, in the innermost pool: it says whose callback the thread runs.
    static SLOT: Cell<*const Slot> = const { Cell::new(&raw const NOBODY) };
    /// The innermost callback of a group's on this thread's stack, or null.
    static FRAMES: Cell<*const Frame> = const { Cell::new(ptr::null()) };
}

impl Outer {
    /// What is on this thread's stack, from the inside out, without the innermost.
    fn all<'a>() -> impl Iterator<Item = &'a Self> {
        // SAFETY: it stays on this thread's stack, further out than the caller.
        let outer = |here: Here| unsafe { here.outer.as_ref() };
        std::iter::successors(outer(HERE.get()), move |at| outer(at.here))
    }

    /// The job whose callback it was in, or null.
    fn running(&self) -> *const Job {
        running_in(self.slot)
    }
}

/// The job whose callback runs in this slot of the calling thread's, or null.
#[inline(always)]
fn running_in(slot: *const Slot) -> *const Job {
    // SAFETY: nobody's slot is a static; a thread leaves a pool before the pool and its slots end.
    unsafe { &*slot }.job().cast()
}

/// Makes the calling thread a thread of `pool`, for all its life, with this slot.
pub(crate) fn enter_pool(pool: NonNull<ns_thrpool_t>, is_loop: bool, slot: &Slot) {
    SLOT.set(slot);
    HERE.set(Here {
        pool: pool.as_ptr(),
        is_loop,
        outer: ptr::null(),
    });
}

/// Runs `call`, in which the calling thread is the loop thread of `pool`, with this slot.
pub(crate) fn as_loop<T>(pool: NonNull<ns_thrpool_t>, slot: &Slot, call: impl FnOnce() -> T) -> T {
    let outer = Outer {
        here: HERE.get(),
        slot: SLOT.replace(slot),
    };
    HERE.set(Here {
        pool: pool.as_ptr(),
        is_loop: true,
        outer: &outer,
    });
    let result = call();
    HERE.set(outer.here);
    SLOT.set(outer.slot);
    result
}

/// Whether `test` holds for something on this thread's stack.
#[inline(always)]
fn any(test: impl Fn(Here) -> bool) -> bool {
    #[cold]
    #[inline(never)]
    fn any_outer(test: impl Fn(Here) -> bool) -> bool {
        Outer::all().any(|outer| test(outer.here))
    }
    let here = HERE.get();
    test(here) || !here.outer.is_null() && any_outer(test)
}

/// Whether the calling thread belongs to `pool`.
pub(crate) fn on_thread_of(pool: NonNull<ns_thrpool_t>) -> bool {
    any(|here| ptr::eq(here.pool, pool.as_ptr()))
}

/// Whether the calling thread is a worker of `pool`.
pub(crate) fn on_worker_of(pool: NonNull<ns_thrpool_t>) -> bool {
    any(|here| ptr::eq(here.pool, pool.as_ptr()) && !here.is_loop)
}

/// Whether the calling thread is the loop thread of `pool`.
pub(crate) fn on_loop_of(pool: NonNull<ns_thrpool_t>) -> bool {
    any(|here| ptr::eq(here.pool, pool.as_ptr()) && here.is_loop)
}

/// Whether the calling thread is inside the callback of `job`.
pub(crate) fn in_callback_of(job: &Job) -> bool {
    #[cold]
    #[inline(never)]
    fn further_out(job: *const Job) -> bool {
        Outer::all().any(|outer| ptr::eq(outer.running(), job))
    }
    ptr::eq(running_in(SLOT.get()), job) || !HERE.get().outer.is_null() && further_out(job)
}

/// The innermost job on this thread's stack whose callback runs and that `which` selects.
pub(crate) fn callback(which: impl Fn(JobPtr) -> bool) -> Option<JobPtr> {
    let outer = Outer::all().map(Outer::running);
    std::iter::once(running_in(SLOT.get()))
        .chain(outer)
        .filter_map(|job| NonNull::new(job.cast_mut()))
        // SAFETY: it is live until its callback has returned, and later than the caller is done with
        // it.
        .map(|job| unsafe { JobPtr::new(job) })
        .find(|job| which(*job))
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
