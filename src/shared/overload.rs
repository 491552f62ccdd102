// SPDX-License-Identifier: GPL-3.0-or-later
//! A pool's limit on the run-now jobs that wait for workers.
//!
//! A job counts from the moment that it is armed until its callback begins or it is finished with. Both
//! ends are steps of its state word, of which exactly one is taken, so nothing is counted twice. A
//! group's queue has its own limit, and its jobs do not count here.
//!
//! The thread that arms a job counts it after that step. Another thread may cancel the job in between, and
//! take it off the count before it is on it. So the number may be below zero for a moment, and is signed: as
//! an unsigned one it would be above any limit, and an add would be refused although nothing waits.

use std::sync::atomic::{AtomicIsize, Ordering};

/// How many jobs wait for workers. Only a pool with a limit counts.
// In a cache line of its own: every thread that adds writes it.
#[repr(align(64))]
pub(crate) struct Overload {
    /// 0 for none.
    limit: usize,
    waiting: AtomicIsize,
}

impl Overload {
    /// Nothing waits yet. A `limit` of 0 is none.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            waiting: AtomicIsize::new(0),
        }
    }

    /// Whether there is a limit.
    pub(super) fn has_limit(&self) -> bool {
        self.limit != 0
    }

    /// So many more jobs wait for workers. Call it before they are pushed.
    pub(crate) fn add(&self, jobs: usize) {
        self.waiting.fetch_add(jobs as isize, Ordering::Relaxed);
    }

    /// A job that was counted begins, or is finished with.
    pub(crate) fn remove(&self) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
    }

    /// Whether as many jobs wait as may.
    ///
    /// An add looks, and counts later: threads that add at once may pass the limit by one job each.
    pub(super) fn is_full(&self) -> bool {
        let waiting = self.waiting.load(Ordering::Relaxed);
        usize::try_from(waiting).is_ok_and(|waiting| waiting >= self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_that_is_cancelled_before_it_is_counted_does_not_fill_the_queue() {
        let overload = Overload::new(1);
        overload.remove();
        assert!(!overload.is_full());
        overload.add(1);
        assert!(!overload.is_full());
        overload.add(1);
        assert!(overload.is_full());
    }

    #[test]
    fn no_queue_is_as_long_as_the_longest_limit() {
        let overload = Overload::new(usize::MAX);
        overload.add(1000);
        assert!(!overload.is_full());
    }
}
