// SPDX-License-Identifier: GPL-3.0-or-later
//! Deferred free: frees a job's memory when no thread can be about to look at it.
//!
//! The race that this handles: a thread calls `ns_job_wait` on a live job. Before it has marked the
//! job as waited for, another thread finishes with the job. The job's word does not show the first
//! thread, which is about to look there. So a waiter counts itself in before it looks. While any
//! thread is counted, a free is deferred until all threads that were counted at that time have
//! left. Threads that come later use other jobs: such a call begins after the job's done callback
//! has returned, and the application must not use the job then.
//!
//! There is one count for the process, because finding the pool requires a look at the job. A
//! thread is counted for the few steps from the call to the mark, and never while code of the
//! application runs. [`Grace`] makes sure that no pool waits for threads that go on to wait for
//! jobs of another pool. To all other threads the count costs one load.

use std::ptr::{self, NonNull};

use crate::alloc::Allocator;
use crate::fork;
use crate::perturb::perturb;
use crate::sync::grace::{Epoch, Grace, Pin};
use crate::sync::{AtomicPtr, AtomicUsize, Ordering};

/// The threads that are about to mark a job.
#[cfg(not(loom))]
static ENTERING: Grace = Grace::new();

// loom makes it anew in each execution of a model.
#[cfg(loom)]
loom::lazy_static! {
    static ref ENTERING: Grace = Grace::new();
}

/// Counts a thread in, until this value is dropped.
pub(crate) struct Entering(Pin);

impl Entering {
    /// The calling thread is about to look at a job that another thread may finish with.
    pub(crate) fn new() -> Self {
        Self(ENTERING.enter(fork::generation()))
    }
}

impl Drop for Entering {
    fn drop(&mut self) {
        ENTERING.leave(self.0);
    }
}

/// An object whose free can be deferred.
pub(crate) trait Deferred {
    /// The object that was deferred before this one.
    fn next(&self) -> *mut Self;

    /// The epoch in which it was deferred.
    fn epoch(&self) -> Epoch;

    /// Stores both, in fields that nobody else reads any more.
    fn defer(&self, next: *mut Self, epoch: Epoch);

    /// Frees the object, which came from `alloc`.
    ///
    /// # Safety
    /// Nobody else holds the object.
    unsafe fn give_back(alloc: &Allocator, at: NonNull<Self>);
}

/// The deferred frees of a pool.
pub(crate) struct DeferredFrees<T> {
    alloc: Allocator,
    first: AtomicPtr<T>,
    /// The approximate number of deferred objects, and the number at which the next scan pays. Both
    /// are hints: correctness does not depend on them.
    count: AtomicUsize,
    scan_at: AtomicUsize,
}

/// The smallest number of objects at which a scan begins.
const SCAN_AT: usize = if cfg!(loom) { 1 } else { 64 };

impl<T: Deferred> DeferredFrees<T> {
    /// No deferred frees.
    pub(crate) fn new(alloc: Allocator) -> Self {
        Self {
            alloc,
            first: AtomicPtr::new(ptr::null_mut()),
            count: AtomicUsize::new(0),
            scan_at: AtomicUsize::new(SCAN_AT),
        }
    }

    /// Frees the object at `at`, now or a little later.
    ///
    /// # Safety
    /// Nobody else holds the object, and nobody may use it any more.
    pub(crate) unsafe fn free(&self, at: NonNull<T>) {
        if ENTERING.is_occupied() {
            perturb("somebody is counted, and the free not deferred");
            // SAFETY: the caller guarantees the same.
            return unsafe { self.free_later(at) };
        }
        if !self.first.load(Ordering::Relaxed).is_null() {
            self.scan();
        }
        // SAFETY: guaranteed by the caller, and no thread was about to look at the object.
        unsafe { T::give_back(&self.alloc, at) };
    }

    /// # Safety
    /// As for [`DeferredFrees::free`].
    #[cold]
    #[inline(never)]
    unsafe fn free_later(&self, at: NonNull<T>) {
        // Count it before another thread can free it and subtract it.
        let count = self.count.fetch_add(1, Ordering::Relaxed) + 1;
        // SAFETY: the caller guarantees the same.
        unsafe { self.push(at, ENTERING.now(fork::generation())) };
        // Scan now and then even if the count of threads never drops to zero: they may be different
        // threads by now.
        if count >= self.scan_at.load(Ordering::Relaxed) {
            self.scan();
        }
    }

    /// # Safety
    /// As for [`DeferredFrees::free`].
    unsafe fn push(&self, at: NonNull<T>, epoch: Epoch) {
        // No ABA problem: the list is only ever taken as a whole, so an equal head means an
        // unchanged list.
        let mut first = self.first.load(Ordering::Relaxed);
        loop {
            // SAFETY: nobody frees the object before it is in the list.
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

    /// Frees all objects that no thread can be about to look at any more.
    #[cold]
    #[inline(never)]
    fn scan(&self) {
        let generation = fork::generation();
        let mut next = self.first.swap(ptr::null_mut(), Ordering::AcqRel);
        perturb("the deferred frees are taken, and not looked whose epoch is past");
        let (mut freed, mut left) = (0, 0);
        while let Some(at) = NonNull::new(next) {
            // SAFETY: the object is in the list only once, and the swap made this list ours alone.
            unsafe {
                next = at.as_ref().next();
                let epoch = at.as_ref().epoch();
                if ENTERING.is_past(epoch, generation) {
                    T::give_back(&self.alloc, at);
                    freed += 1;
                } else {
                    self.push(at, epoch);
                    left += 1;
                }
            }
        }
        self.count.fetch_sub(freed, Ordering::Relaxed);
        // Scan next at twice the number that is left, so that each object is looked at about twice,
        // however long some of them stay.
        self.scan_at.store(SCAN_AT.max(2 * left), Ordering::Relaxed);
    }

    /// The pool is about to be freed, and no new call on its jobs begins: waits until all threads
    /// that are counted now have left, then frees all objects.
    ///
    /// Woken by the last of these threads that leaves. They wait for nothing but a stripe's lock.
    pub(crate) fn clear(&self) {
        let generation = fork::generation();
        ENTERING.wait(ENTERING.now(generation), generation);
        let mut next = self.first.swap(ptr::null_mut(), Ordering::AcqRel);
        while let Some(at) = NonNull::new(next) {
            // SAFETY: as in `scan`; the threads that were about to look have left.
            unsafe {
                next = at.as_ref().next();
                T::give_back(&self.alloc, at);
            }
        }
    }
}
