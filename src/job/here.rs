// SPDX-License-Identifier: GPL-3.0-or-later
//! What the library knows about the calling thread: the pool that it belongs to, and the job whose
//! callback it runs.
//!
//! A thread-local answers "am I inside this job's callback?" and "does this thread belong to that
//! pool?" without a lock. A callback of one pool may turn the loop of another, and that runs callbacks in
//! turn: so both questions go for everything on the thread's stack. For each of these pools it names the
//! thread's [`Slot`], which holds the job.

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
    /// The pool whose loop thread it is, which is the same one; or null.
    loop_of: *const ns_thrpool_t,
    /// Its slot there, which says whose callback it runs.
    slot: *const Slot,
    /// What the thread was doing when it became the loop of this pool; null in a pool's own threads.
    outer: *const Here,
}

/// A callback of a group's on the stack of this thread.
struct Frame {
    group: NonNull<c_void>,
    outer: *const Frame,
}

thread_local! {
    static HERE: Cell<Here> = const {
        Cell::new(Here {
            pool: ptr::null(),
            loop_of: ptr::null(),
            slot: &raw const NOBODY,
            outer: ptr::null(),
        })
    };
    /// The innermost callback of a group's on this thread's stack, or null.
    static FRAMES: Cell<*const Frame> = const { Cell::new(ptr::null()) };
}

impl Here {
    /// What is on this thread's stack, from the inside out, without the innermost.
    fn outer<'a>() -> impl Iterator<Item = &'a Self> {
        // SAFETY: it stays on this thread's stack, further out than the caller.
        let outer = |here: &Self| unsafe { here.outer.as_ref() };
        std::iter::successors(outer(&HERE.get()), move |at| outer(at))
    }

    /// The job whose callback the thread runs in this pool, or null.
    #[inline(always)]
    fn running(&self) -> *const Job {
        // SAFETY: nobody's slot is a static; a thread leaves a pool before the pool and its slots end.
        unsafe { &*self.slot }.job().cast()
    }
}

/// Makes the calling thread a thread of `pool`, for all its life, with this slot.
pub(crate) fn enter_pool(pool: NonNull<ns_thrpool_t>, is_loop: bool, slot: &Slot) {
    let pool = pool.as_ptr().cast_const();
    HERE.set(Here {
        pool,
        loop_of: if is_loop { pool } else { ptr::null() },
        slot,
        outer: ptr::null(),
    });
}

/// Runs `call`, in which the calling thread is the loop thread of `pool`, with this slot.
pub(crate) fn as_loop<T>(pool: NonNull<ns_thrpool_t>, slot: &Slot, call: impl FnOnce() -> T) -> T {
    let outer = HERE.get();
    HERE.set(Here {
        pool: pool.as_ptr(),
        loop_of: pool.as_ptr(),
        slot,
        outer: &outer,
    });
    let result = call();
    HERE.set(outer);
    result
}

/// Whether `test` holds for something on this thread's stack.
#[inline(always)]
fn any(test: impl Fn(&Here) -> bool) -> bool {
    #[cold]
    #[inline(never)]
    fn any_outer(test: impl Fn(&Here) -> bool) -> bool {
        Here::outer().any(test)
    }
    let here = HERE.get();
    test(&here) || !here.outer.is_null() && any_outer(test)
}

/// Whether the calling thread belongs to `pool`.
pub(crate) fn on_thread_of(pool: NonNull<ns_thrpool_t>) -> bool {
    any(|here| ptr::eq(here.pool, pool.as_ptr()))
}

/// Whether the calling thread is a worker of `pool`.
pub(crate) fn on_worker_of(pool: NonNull<ns_thrpool_t>) -> bool {
    any(|here| ptr::eq(here.pool, pool.as_ptr()) && here.loop_of.is_null())
}

/// Whether the calling thread is the loop thread of `pool`.
pub(crate) fn on_loop_of(pool: NonNull<ns_thrpool_t>) -> bool {
    any(|here| ptr::eq(here.loop_of, pool.as_ptr()))
}

/// Whether the calling thread is inside the callback of `job`, of which only the address is used.
pub(crate) fn in_callback_of(job: JobPtr) -> bool {
    #[cold]
    #[inline(never)]
    fn further_out(job: *const Job) -> bool {
        Here::outer().any(|outer| ptr::eq(outer.running(), job))
    }
    let job = job.0.as_ptr();
    let here = HERE.get();
    ptr::eq(here.running(), job) || !here.outer.is_null() && further_out(job)
}

/// The innermost job on this thread's stack whose callback runs and that `which` selects.
pub(crate) fn callback(which: impl Fn(JobPtr) -> bool) -> Option<JobPtr> {
    let outer = Here::outer().map(Here::running);
    std::iter::once(HERE.get().running())
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
