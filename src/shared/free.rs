// SPDX-License-Identifier: GPL-3.0-or-later
//! Freeing a job's memory: at once, deferred while a thread may be about to wait for the job (see
//! [`free`](crate::job::free)), or in batches.

use std::ptr::NonNull;

use crate::job::free::Deferred;
use crate::job::{Job, JobPtr};
use crate::sync::grace::Epoch;

/// The list of deferred jobs is linked through the application's data pointer, which nobody reads
/// any more.
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
        // SAFETY: the caller guarantees that nobody else holds the job; its memory is still valid.
        let alloc = unsafe { at.as_ref() }.pool().alloc;
        // SAFETY: `JobPtr::make` allocated it from this allocator, and no field needs dropping.
        unsafe { alloc.free(at) };
    }
}

impl JobPtr {
    /// Frees the job's memory, now or a little later.
    ///
    /// # Safety
    /// No queue, list or thread holds the job, and the application must not use it any more.
    pub(crate) unsafe fn free(self) {
        // SAFETY: guaranteed by the caller.
        unsafe { self.pool().deferred.free(self.as_job()) };
    }
}

/// The number of blocks that a worker frees at once.
const BATCH: usize = 32;

/// Jobs whose last holder was this worker, and that it frees in batches. The threads that make jobs
/// need the cache lines of malloc's free lists too; fewer handovers of these lines make both sides
/// quicker. A worker frees all of its batch before it goes to sleep, so at most 31 jobs wait here,
/// and only while the worker is busy. With the application's own allocator, a job is freed at once.
pub(crate) struct FreeBatch {
    jobs: [Option<JobPtr>; BATCH],
    count: usize,
}

impl FreeBatch {
    /// An empty batch.
    pub(crate) fn new() -> Self {
        Self {
            jobs: [None; BATCH],
            count: 0,
        }
    }

    /// As [`JobPtr::free`], but adds the job to the batch.
    ///
    /// # Safety
    /// As for [`JobPtr::free`].
    pub(crate) unsafe fn free(&mut self, job: JobPtr) {
        if job.pool().alloc.is_custom() {
            // SAFETY: guaranteed by the caller.
            return unsafe { job.free() };
        }
        self.jobs[self.count] = Some(job);
        self.count += 1;
        if self.count == BATCH {
            self.give_back();
        }
    }

    /// Whether the batch is empty.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Frees all jobs in the batch.
    pub(crate) fn give_back(&mut self) {
        for job in &mut self.jobs[..self.count] {
            if let Some(job) = job.take() {
                // SAFETY: the caller of `free` guaranteed it, and `take` lets us free each job only
                // once.
                unsafe { job.free() };
            }
        }
        self.count = 0;
    }
}
