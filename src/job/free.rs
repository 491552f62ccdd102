// SPDX-License-Identifier: GPL-3.0-or-later
//! Giving a job's memory back, and not too soon.
//!
//! The race this survives: a thread calls `ns_job_wait` on a live job, and before it has marked
//! the job as waited for, another finishes it. Nothing in the job's word tells of the first, which
//! is about to look there. So it counts itself in before it looks. Memory that is to be freed while
//! anybody is counted is deferred: it is freed when all have left who were counted then. Those who
//! come later name other jobs: a call that begins after the memory was to be freed names a job whose
//! done callback has returned, which nobody may.
//!
//! The count is the process's, since finding the pool takes a look at the job. It is held for the
//! few steps from the call to the mark, never while code of the application's runs; and by
//! [`Grace`] no pool waits for those who go on waiting for jobs of another. To everybody else it is
//! a load that finds nobody.

use std::ptr::{self, NonNull};

use crate::fork;
use crate::perturb::perturb;
use crate::sync::grace::{Epoch, Grace, Pin};
use crate::sync::{AtomicPtr, AtomicUsize, Ordering};

/// Threads that are about to mark a job.
#[cfg(not(loom))]
static ENTERING: Grace = Grace::new();

// A model's, made anew in each execution.
#[cfg(loom)]
loom::lazy_static! {
    static ref ENTERING: Grace = Grace::new();
}

/// Counts a thread in, until it is dropped.
pub(crate) struct Entering(Pin);

impl Entering {
    /// The caller is about to look at a job that another thread may finish.
    pub(crate) fn new() -> Self {
        Self(ENTERING.enter(fork::generation()))
    }
}

impl Drop for Entering {
    fn drop(&mut self) {
        ENTERING.leave(self.0);
    }
}

/// What can be freed later.
pub(crate) trait Deferred {
    /// What was deferred before it.
    fn next(&self) -> *mut Self;

    /// When it was deferred.
    fn epoch(&self) -> Epoch;

    /// Note both, where nobody looks for anything else any more.
    fn defer(&self, next: *mut Self, epoch: Epoch);

    /// Free it.
    ///
    /// # Safety
    /// Nobody has it.
    unsafe fn give_back(at: NonNull<Self>);
}

/// What a pool will free later.
pub(crate) struct DeferredFrees<T> {
    first: AtomicPtr<T>,
    /// About how many there are, and at how many the next look pays. Hints: nothing depends on them.
    count: AtomicUsize,
    scan_at: AtomicUsize,
}

/// So many are looked through at once, at least.
const SCAN_AT: usize = if cfg!(loom) { 1 } else { 64 };

impl<T: Deferred> DeferredFrees<T> {
    /// None.
    pub(crate) fn new() -> Self {
        Self {
            first: AtomicPtr::new(ptr::null_mut()),
            count: AtomicUsize::new(0),
            scan_at: AtomicUsize::new(SCAN_AT),
        }
    }

    /// Give the memory at `at` back, now or a little later.
    ///
    /// # Safety
    /// Nobody holds it any more, and nobody may name it.
    pub(crate) unsafe fn free(&self, at: NonNull<T>) {
        if ENTERING.is_occupied() {
            perturb("somebody is counted, and the free not deferred");
            // SAFETY: by the caller's promise it is only to be freed.
            return unsafe { self.free_later(at) };
        }
        if !self.first.load(Ordering::Relaxed).is_null() {
            self.scan();
        }
        // SAFETY: by the caller's promise, and nobody was about to look.
        unsafe { T::give_back(at) };
    }

    /// # Safety
    /// As for [`DeferredFrees::free`].
    #[cold]
    #[inline(never)]
    unsafe fn free_later(&self, at: NonNull<T>) {
        // Before another can free it and count it out.
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        // SAFETY: the caller's promise.
        unsafe { self.push(at, ENTERING.now(fork::generation())) };
        // Now and then, though somebody is counted all the time: it may be somebody else.
        if count >= self.scan_at.load(Ordering::Relaxed) {
            self.scan();
        }
    }

    /// # Safety
    /// As for [`DeferredFrees::free`].
    unsafe fn push(&self, at: NonNull<T>, epoch: Epoch) {
        // The list is only ever taken whole, so a head that looks the same is the same.
        let mut first = self.first.load(Ordering::Relaxed);
        loop {
            // SAFETY: not freed before it is in the list.
            unsafe { at.as_ref() }.defer(first, epoch);
            match self.first.compare_exchange_weak(
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

    /// Free those that nobody can be about to look at any more.
    #[cold]
    #[inline(never)]
    fn scan(&self) {
        let generation = fork::generation();
        let mut next = self.first.swap(ptr::null_mut(), Ordering::AcqRel);
        perturb("the deferred frees are taken, and not looked whose epoch is past");
        let (mut freed, mut left) = (0, 0);
        while let Some(at) = NonNull::new(next) {
            // SAFETY: in the list once, and nobody else has it.
            unsafe {
                next = at.as_ref().next();
                let epoch = at.as_ref().epoch();
                if ENTERING.is_past(epoch, generation) {
                    T::give_back(at);
                    freed += 1;
                } else {
                    self.push(at, epoch);
                    left += 1;
                }
            }
        }
        self.count.fetch_sub(freed, Ordering::Relaxed);
        // Twice as many next time, so that each is looked at twice or so, however long one stays.
        self.scan_at.store(SCAN_AT.max(2 * left), Ordering::Relaxed);
    }

    /// The pool is about to go, and no call on its jobs begins any more: free all, as soon as those
    /// have left who are counted now.
    ///
    /// Woken by: the last of them who leaves. They wait for nothing but a stripe's lock.
    pub(crate) fn clear(&self) {
        let generation = fork::generation();
        ENTERING.wait(ENTERING.now(generation), generation);
        let mut next = self.first.swap(ptr::null_mut(), Ordering::AcqRel);
        while let Some(at) = NonNull::new(next) {
            // SAFETY: as in `scan`; those who were about to look have left.
            unsafe {
                next = at.as_ref().next();
                T::give_back(at);
            }
        }
    }
}
