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

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

use crate::job::{Job, JobPtr};
use crate::perturb::perturb;

/// Threads that are about to mark a job.
static ENTERING: AtomicUsize = AtomicUsize::new(0);

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

/// Jobs that a pool has buried, linked through their data, which nobody reads any more.
pub(crate) struct Graves(AtomicPtr<Job>);

impl Graves {
    /// None.
    pub(crate) const fn new() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    fn bury(&self, job: JobPtr) {
        let at = job.0.as_ptr();
        // The list is only ever taken whole, so a head that looks the same is the same.
        let mut first = self.0.load(Ordering::Relaxed);
        loop {
            job.set_data(first.cast());
            match self
                .0
                .compare_exchange_weak(first, at, Ordering::AcqRel, Ordering::Relaxed)
            {
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
        while let Some(at) = ptr::NonNull::new(next) {
            let job = JobPtr(at);
            next = job.data().cast();
            if nobody {
                // SAFETY: buried once, and nobody has it.
                unsafe { job.give_back() };
            } else {
                self.bury(job);
            }
        }
    }

    /// The pool is about to go, and no call on its jobs begins any more: wait until nobody is
    /// counted, and free all.
    ///
    /// Woken by: nobody, it looks again. Who is counted waits for nothing but a stripe's lock.
    pub(crate) fn clear(&self) {
        while ENTERING.load(Ordering::SeqCst) != 0 {
            std::thread::yield_now();
        }
        while !self.0.load(Ordering::Acquire).is_null() {
            self.open();
        }
    }
}

impl JobPtr {
    /// Give its memory back, now or a little later.
    ///
    /// # Safety
    /// Nobody holds it any more, and nobody may name it.
    pub(crate) unsafe fn free(self) {
        let graves = &self.pool().graves;
        if ENTERING.load(Ordering::SeqCst) != 0 {
            perturb("somebody is counted, and the job not buried");
            return graves.bury(self);
        }
        if !graves.0.load(Ordering::Relaxed).is_null() {
            graves.open();
        }
        // SAFETY: by the caller's promise, and nobody was about to look.
        unsafe { self.give_back() };
    }

    unsafe fn give_back(self) {
        let alloc = self.pool().alloc;
        // SAFETY: made by `make` from this allocator; no field needs dropping.
        unsafe { alloc.free(self.0) };
    }
}
