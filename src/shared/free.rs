// SPDX-License-Identifier: GPL-3.0-or-later
//! Freeing a job's memory: at once, deferred while a thread may be about to wait for the job (see
//! [`free`](crate::job::free)), or in batches.

use std::ptr::NonNull;

use super::Shared;
use crate::alloc::Allocator;
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

    #[inline(always)]
    unsafe fn give_back(alloc: &Allocator, at: NonNull<Self>) {
        // SAFETY: the caller guarantees that nobody else holds the job; its memory is still valid.
        unsafe { JobPtr::new(at).give_back(alloc) };
    }
}

impl Shared {
    /// Frees a job's memory, now or a little later.
    ///
    /// # Safety
    /// No queue, list or thread holds the job, and the application must not use it any more.
    #[inline(always)]
    pub(crate) unsafe fn free_job(&self, job: JobPtr) {
        // SAFETY: guaranteed by the caller.
        unsafe { self.deferred.free(job.as_job()) };
    }
}

/// The number of blocks that a worker frees at once.
const BATCH: usize = 32;

/// Jobs whose last holder was this worker, and that it frees in batches. The threads that make jobs
/// need the cache lines of malloc's free lists too; fewer handovers of these lines make both sides
/// quicker. A worker frees all of its batch before it goes to sleep, so at most 31 jobs wait here,
/// and only while the worker is busy. With the application's own allocator, a job is freed at once.
pub(crate) struct FreeBatch<'a> {
    pool: &'a Shared,
    jobs: [Option<JobPtr>; BATCH],
    count: usize,
}

impl<'a> FreeBatch<'a> {
    /// An empty batch.
    pub(crate) fn new(pool: &'a Shared) -> Self {
        Self {
            pool,
            jobs: [None; BATCH],
            count: 0,
        }
    }

    /// As [`Shared::free_job`], but adds the job to the batch.
    ///
    /// # Safety
    /// As for [`Shared::free_job`].
    #[inline(never)]
    pub(crate) unsafe fn free(&mut self, job: JobPtr) {
        if self.pool.alloc.is_custom() {
            // SAFETY: guaranteed by the caller.
            return unsafe { self.pool.free_job(job) };
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
    #[inline(never)]
    pub(crate) fn give_back(&mut self) {
        for job in &mut self.jobs[..self.count] {
            if let Some(job) = job.take() {
                // SAFETY: the caller of `free` guaranteed it, and `take` lets us free each job only
                // once.
                unsafe { self.pool.free_job(job) };
            }
        }
        self.count = 0;
    }
}
