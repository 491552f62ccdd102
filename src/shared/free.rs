// SPDX-License-Identifier: GPL-3.0-or-later
//! Giving a job's memory back to its pool: at once, deferred while somebody may be about to wait for
//! the job (see [`free`](crate::job::free)), or several at a time.

use std::ptr::NonNull;

use crate::job::free::Deferred;
use crate::job::{Job, JobPtr};
use crate::sync::grace::Epoch;

/// Linked through the application's pointer, which nobody reads any more.
impl Deferred for Job {
    fn next(&self) -> *mut Self {
        self.data().cast()
    }

    fn epoch(&self) -> Epoch {
        Epoch(self.notes.get())
    }

    fn defer(&self, next: *mut Self, epoch: Epoch) {
        self.set_data(next.cast());
        self.notes.set(epoch.0);
    }

    unsafe fn give_back(at: NonNull<Self>) {
        // SAFETY: only to be freed, so it is there.
        let alloc = unsafe { at.as_ref() }.pool().alloc;
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
        unsafe { self.pool().deferred.free(self.as_job()) };
    }
}

/// How many blocks a worker gives back to malloc at once.
const BATCH: usize = 32;

/// Jobs that a worker was the last to hold, and will give back several at a time: malloc's lists
/// are in cache lines that the threads which make jobs need as well, so taking turns less often is
/// quicker for both. It gives all back before it goes to sleep: no more than 31 wait here, for as
/// long as it is busy. An application's allocator is not kept waiting at all.
pub(crate) struct Spent {
    jobs: [Option<JobPtr>; BATCH],
    count: usize,
}

impl Spent {
    /// None.
    pub(crate) fn new() -> Self {
        Self {
            jobs: [None; BATCH],
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
        if self.count == BATCH {
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
