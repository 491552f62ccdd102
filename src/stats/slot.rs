// SPDX-License-Identifier: GPL-3.0-or-later
//! A thread's slot: which callback it runs, and what it has done.
//!
//! The thread writes `job` and `func` when a callback begins, and clears `job` when it has returned. So
//! `func` says something only while `job` or `ending` is not null. `runs` grows at each begin: a reader that
//! finds the same job and the same `runs` twice has seen one call that lasts.

use std::cell::Cell;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};

use libc::c_void;

use super::mark::Mark;
use crate::{fork, sys};

/// What one thread of a pool does. Debuggers and `ns-top` know this layout: [`VERSION`](super::table)
/// counts its changes.
// In cache lines of its own, since its thread writes it for each job.
#[repr(C, align(64))]
pub(crate) struct Slot {
    /// The job whose callback runs, or null.
    job: AtomicPtr<c_void>,
    /// The callback, done callback or done callback of a group that runs.
    func: AtomicPtr<c_void>,
    /// The job or group whose done callback runs, or null.
    ending: AtomicPtr<c_void>,
    /// When the callback began, by the monotonic clock, in nanoseconds. Only in a pool that reads the clock
    /// for each callback; else 0.
    since: AtomicU64,
    /// How the system calls the thread; 0 if it has not begun, or has ended.
    thread: AtomicI32,
    /// A [`Kind`].
    kind: AtomicU32,
    /// How many callbacks have begun.
    runs: AtomicU64,
    /// 1 while a worker has work, or finds more each time that it looks.
    busy: AtomicU64,
    /// The data of the job, in a pool that notes `since`.
    data: AtomicPtr<c_void>,
    /// How many jobs it has disposed of, by kind.
    disposed: [AtomicU64; KINDS],
    /// Turns of the loop.
    turns: AtomicU64,
    /// How often the loop has asked the poller for events, beside once a turn.
    waits: AtomicU64,
    /// How often a worker has found nothing to do.
    pauses: AtomicU64,
    /// See [`mark`](super::mark).
    mark: Mark<AtomicU64>,
}

/// A callback that runs, as its thread has noted it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Call {
    /// The job or, for a done callback, the job or group. For comparing only.
    pub(crate) job: *const c_void,
    pub(crate) func: *mut c_void,
    /// When it began, or 0.
    pub(crate) since: u64,
    /// How many callbacks of jobs the thread had begun then, this one included.
    pub(crate) runs: u64,
    /// The job's data, if `since` is known. For comparing only.
    pub(crate) data: *mut c_void,
    /// Whether it is a done callback.
    pub(crate) ending: bool,
}

impl Call {
    /// Whether both are the same call.
    pub(crate) fn is(&self, other: &Self) -> bool {
        (self.job, self.runs, self.ending, self.since, self.func)
            == (other.job, other.runs, other.ending, other.since, other.func)
    }

    /// Whether it is a run of the callback of the job at this address.
    pub(crate) fn is_of(&self, job: usize) -> bool {
        self.job.addr() == job && !self.ending
    }
}

/// The kinds of jobs: what they wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum JobKind {
    Now,
    Timer,
    Io,
    Signal,
}

/// How many there are.
pub(super) const KINDS: usize = 4;

/// What a thread is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Kind {
    Worker = 1,
    Loop = 2,
}

/// The slot of threads that belong to no pool. Nobody writes it.
pub(crate) static NOBODY: Slot = Slot::new();

thread_local! {
    /// How the system calls this thread, and the process that it asked in.
    static THREAD: Cell<(u32, i32)> = const { Cell::new((0, 0)) };
}

/// How the system calls this thread. It asks once: an application's thread may be the loop for a turn at a
/// time.
fn thread_id() -> i32 {
    let here = fork::generation();
    let (process, id) = THREAD.get();
    if process == here {
        return id;
    }
    let id = sys::thread_id();
    THREAD.set((here, id));
    id
}

/// Adds one to a count that only this thread writes.
#[inline(always)]
fn bump(count: &AtomicU64) {
    count.store(count.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
}

impl Slot {
    const fn new() -> Self {
        Self {
            job: AtomicPtr::new(ptr::null_mut()),
            func: AtomicPtr::new(ptr::null_mut()),
            ending: AtomicPtr::new(ptr::null_mut()),
            since: AtomicU64::new(0),
            thread: AtomicI32::new(0),
            kind: AtomicU32::new(0),
            runs: AtomicU64::new(0),
            busy: AtomicU64::new(0),
            data: AtomicPtr::new(ptr::null_mut()),
            disposed: [const { AtomicU64::new(0) }; KINDS],
            turns: AtomicU64::new(0),
            waits: AtomicU64::new(0),
            pauses: AtomicU64::new(0),
            mark: Mark(AtomicU64::new(0)),
        }
    }

    /// The calling thread has this slot from now on.
    pub(crate) fn enter(&self, kind: Kind) {
        self.kind.store(kind as u32, Ordering::Relaxed);
        self.thread.store(thread_id(), Ordering::Relaxed);
    }

    /// The calling thread leaves it.
    pub(crate) fn leave(&self) {
        self.thread.store(0, Ordering::Relaxed);
    }

    /// The callback `func` of `job` begins.
    #[inline(always)]
    pub(crate) fn begin(&self, job: *const c_void, func: *const c_void) {
        self.func.store(func.cast_mut(), Ordering::Relaxed);
        bump(&self.runs);
        // Last, for those who look: what they find with this job belongs to it.
        self.job.store(job.cast_mut(), Ordering::Release);
    }

    /// It has returned.
    #[inline(always)]
    pub(crate) fn end(&self) {
        // Release: whoever finds that it is over finds the mark as this callback has left it.
        self.job.store(ptr::null_mut(), Ordering::Release);
        // And whoever finds what the next callback notes finds that this one is over.
        fence(Ordering::Release);
    }

    /// In a pool that notes it: a callback is about to begin at this time, of a job with this data.
    pub(crate) fn begin_at(&self, since: u64, data: *mut c_void) {
        self.since.store(since, Ordering::Relaxed);
        self.data.store(data, Ordering::Relaxed);
    }

    /// The watchdog's mark.
    #[inline(always)]
    pub(crate) fn mark(&self) -> &Mark<AtomicU64> {
        &self.mark
    }

    /// The job whose callback this thread runs, or null.
    #[inline(always)]
    pub(crate) fn job(&self) -> *const c_void {
        self.job.load(Ordering::Relaxed)
    }

    /// The done callback `func` of `ending`, a job or a group, begins.
    pub(crate) fn begin_ending(&self, ending: *const c_void, func: *const c_void) {
        self.func.store(func.cast_mut(), Ordering::Relaxed);
        self.ending.store(ending.cast_mut(), Ordering::Release);
    }

    /// It has returned.
    pub(crate) fn end_ending(&self) {
        // Both as in `end`.
        self.ending.store(ptr::null_mut(), Ordering::Release);
        fence(Ordering::Release);
    }

    /// A job of this kind is disposed of.
    #[inline(always)]
    pub(crate) fn count_disposed(&self, kind: JobKind) {
        bump(&self.disposed[kind as usize]);
    }

    /// The callback that runs now, if one does.
    pub(crate) fn call(&self) -> Option<Call> {
        loop {
            let runs = self.runs.load(Ordering::Acquire);
            let job = self.job.load(Ordering::Acquire);
            let ending = self.ending.load(Ordering::Acquire);
            let func = self.func.load(Ordering::Relaxed);
            let since = self.since.load(Ordering::Relaxed);
            let data = self.data.load(Ordering::Relaxed);
            fence(Ordering::Acquire);
            // If another callback has begun meanwhile, look again. The count comes last: if the same job
            // has begun again, it is another.
            if self.job.load(Ordering::Acquire) == job
                && self.ending.load(Ordering::Relaxed) == ending
                && self.runs.load(Ordering::Relaxed) == runs
            {
                let is_ending = job.is_null();
                let of = if is_ending { ending } else { job };
                return (!of.is_null()).then_some(Call {
                    job: of,
                    func,
                    since,
                    runs,
                    data,
                    ending: is_ending,
                });
            }
        }
    }

    /// How the system calls the thread; 0 if it has ended.
    pub(crate) fn thread(&self) -> i32 {
        self.thread.load(Ordering::Relaxed)
    }

    /// A turn of the loop begins.
    #[inline(always)]
    pub(crate) fn count_turn(&self) {
        bump(&self.turns);
    }

    /// The loop asks for events once more in a turn.
    #[inline(always)]
    pub(crate) fn count_wait(&self) {
        bump(&self.waits);
    }

    /// Says whether the worker has work.
    pub(crate) fn set_busy(&self, busy: bool) {
        if !busy {
            bump(&self.pauses);
        }
        self.busy.store(busy.into(), Ordering::Relaxed);
    }

    pub(crate) fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed) != 0
    }

    pub(crate) fn runs(&self) -> u64 {
        self.runs.load(Ordering::Relaxed)
    }

    pub(crate) fn disposed(&self, kind: JobKind) -> u64 {
        self.disposed[kind as usize].load(Ordering::Acquire)
    }

    pub(crate) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    pub(crate) fn waits(&self) -> u64 {
        self.turns() + self.waits.load(Ordering::Relaxed)
    }
}
