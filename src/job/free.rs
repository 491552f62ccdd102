// SPDX-License-Identifier: GPL-3.0-or-later
//! Giving a job's memory back, and not too soon.
//!
//! The race this survives: a thread calls `ns_job_wait` on a live job, and before it has marked
//! the job as waited for, another finishes it. Nothing in the job's word tells of the first, which
//! is about to look there. So it counts itself in before it looks, and memory that is to be freed
//! while anybody is counted is buried instead: it is freed later, when nobody is counted who was
//! when it was buried.
//!
//! The count is the process's, since finding the pool takes a look at the job. Waits are rare, and
//! counted for a moment only: to everybody else it is a load that finds zero. A call that begins
//! after that load names a job whose done callback has returned, which nobody may.

use std::ptr::{self, NonNull};

use crate::job::{Job, JobPtr};
use crate::perturb::perturb;
use crate::sync::{AtomicPtr, AtomicUsize, Ordering, yield_now};

/// Threads that are about to mark a job.
#[cfg(not(loom))]
static ENTERING: AtomicUsize = AtomicUsize::new(0);

// A model's, made anew in each execution.
#[cfg(loom)]
loom::lazy_static! {
    static ref ENTERING: AtomicUsize = AtomicUsize::new(0);
}

/// Counts a thread in, until it is dropped.
pub(crate) struct Entering(());

impl Entering {
    /// The caller is about to look at a job that another thread may finish.
    pub(crate) fn new() -> Self {
        ENTERING.fetch_add(1, Ordering::SeqCst);
        Self(())
    }
}

impl Drop for Entering {
    fn drop(&mut self) {
        ENTERING.fetch_sub(1, Ordering::SeqCst);
    }
}

/// In a forked child: those who were counted are not in this process.
pub(crate) fn forked() {
    ENTERING.store(0, Ordering::SeqCst);
}

/// What can be buried.
pub(crate) trait Buried {
    /// What was buried before it.
    fn next(&self) -> *mut Self;

    /// Say so, where nobody looks for anything else any more.
    fn set_next(&self, next: *mut Self);

    /// Free it.
    ///
    /// # Safety
    /// Nobody has it.
    unsafe fn give_back(at: NonNull<Self>);
}

/// What a pool has buried.
pub(crate) struct Graves<T>(AtomicPtr<T>);

impl<T: Buried> Graves<T> {
    /// None.
    pub(crate) fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Give the memory at `at` back, now or a little later.
    ///
    /// # Safety
    /// Nobody holds it any more, and nobody may name it.
    pub(crate) unsafe fn free(&self, at: NonNull<T>) {
        if ENTERING.load(Ordering::SeqCst) != 0 {
            perturb("somebody is counted, and the job not buried");
            // SAFETY: by the caller's promise it is only to be freed.
            return unsafe { self.bury(at) };
        }
        if !self.0.load(Ordering::Relaxed).is_null() {
            self.open();
        }
        // SAFETY: by the caller's promise, and nobody was about to look.
        unsafe { T::give_back(at) };
    }

    /// # Safety
    /// As for [`Graves::free`].
    unsafe fn bury(&self, at: NonNull<T>) {
        // The list is only ever taken whole, so a head that looks the same is the same.
        let mut first = self.0.load(Ordering::Relaxed);
        loop {
            // SAFETY: not freed before it is buried.
            unsafe { at.as_ref() }.set_next(first);
            match self.0.compare_exchange_weak(
                first,
                at.as_ptr(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => first = now,
            }
        }
    }

    /// Free what was buried, unless somebody is counted.
    fn open(&self) {
        let mut next = self.0.swap(ptr::null_mut(), Ordering::AcqRel);
        // After the list was taken: who was counted when one of these was buried still is, or has
        // marked his job.
        perturb("the graves are open, and not looked who is counted");
        let nobody = ENTERING.load(Ordering::SeqCst) == 0;
        while let Some(at) = NonNull::new(next) {
            // SAFETY: buried once, and nobody has it.
            unsafe {
                next = at.as_ref().next();
                if nobody {
                    T::give_back(at);
                } else {
                    self.bury(at);
                }
            }
        }
    }

    /// The pool is about to go, and no call on its jobs begins any more: wait until nobody is
    /// counted, and free all.
    ///
    /// Woken by: nobody, it looks again. Who is counted waits for nothing but a stripe's lock.
    pub(crate) fn clear(&self) {
        while ENTERING.load(Ordering::SeqCst) != 0 {
            yield_now();
        }
        while !self.0.load(Ordering::Acquire).is_null() {
            self.open();
        }
    }
}

/// Linked through the application's pointer, which nobody reads any more.
impl Buried for Job {
    fn next(&self) -> *mut Self {
        self.data().cast()
    }

    fn set_next(&self, next: *mut Self) {
        self.set_data(next.cast());
    }

    unsafe fn give_back(at: NonNull<Self>) {
        let alloc = JobPtr(at).pool().alloc;
        // SAFETY: made by `make` from this allocator; no field needs dropping.
        unsafe { alloc.free(at) };
    }
}

impl JobPtr {
    /// Give its memory back, now or a little later.
    ///
    /// # Safety
    /// Nobody holds it any more, and nobody may name it.
    pub(crate) unsafe fn free(self) {
        // SAFETY: the caller's promise.
        unsafe { self.pool().graves.free(self.0) };
    }
}

/// How many blocks a worker gives back to malloc at once.
const AT_ONCE: usize = 32;

/// Jobs that a worker was the last to hold, and will give back several at a time: malloc's lists
/// are in cache lines that the threads which make jobs need as well, so taking turns less often is
/// quicker for both. It gives all back before it goes to sleep: no more than 31 wait here, for as
/// long as it is busy. An application's allocator is not kept waiting at all.
pub(crate) struct Spent {
    jobs: [Option<JobPtr>; AT_ONCE],
    count: usize,
}

impl Spent {
    /// None.
    pub(crate) fn new() -> Self {
        Self {
            jobs: [None; AT_ONCE],
            count: 0,
        }
    }

    /// As [`JobPtr::free`], now or a little later.
    ///
    /// # Safety
    /// As there.
    pub(crate) unsafe fn free(&mut self, job: JobPtr) {
        if job.pool().alloc.is_custom() {
            // SAFETY: the caller's promise.
            return unsafe { job.free() };
        }
        self.jobs[self.count] = Some(job);
        self.count += 1;
        if self.count == AT_ONCE {
            self.give_back();
        }
    }

    /// Whether none waits to be given back.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Free all of them.
    pub(crate) fn give_back(&mut self) {
        for job in &mut self.jobs[..self.count] {
            if let Some(job) = job.take() {
                // SAFETY: by the promise to `free`, and each is given back once.
                unsafe { job.free() };
            }
        }
        self.count = 0;
    }
}
