// SPDX-License-Identifier: GPL-3.0-or-later
//! A group's queue: how jobs join it and leave it, and how they are counted.

use std::ptr;

use super::core::*;
use crate::job::state::{Arm, End, Work};
use crate::list::Link;
use crate::sync::Ordering;

impl<T: Member> Guard<'_, T> {
    /// Take in what is in the inbox.
    pub(super) fn empty_inbox(&self) {
        if !self.is_open() || !is_stack(self.core.inbox.load(Ordering::Relaxed)) {
            return;
        }
        self.take_in(self.core.inbox.swap(BUSY, Ordering::Acquire));
    }

    /// Take in a stack of jobs, with the oldest at the bottom.
    pub(super) fn take_in(&self, mut stack: *mut Link) {
        let queue = &self.core.queue;
        let mut newer = queue.end();
        let mut count = 0;
        let mut finished: *mut Link = ptr::null_mut();
        while is_stack(stack) {
            // SAFETY: the stack holds links of live jobs, which are in no ring, and this thread has
            // taken it.
            unsafe {
                let next = (*stack).chained();
                let job = T::of_link(stack);
                if job.state().is_armed() {
                    job.set_marks(QUEUED);
                    queue.insert(newer, stack);
                    newer = stack;
                    count += 1;
                } else {
                    (*stack).chain(finished);
                    finished = stack;
                }
                stack = next;
            }
        }
        add(&self.core.refs, count);
        add(&self.core.active, count);
        add(&self.core.length, count);
        self.take_in_finished(finished);
    }

    /// Take in those that were finished with on their way.
    fn take_in_finished(&self, mut finished: *mut Link) {
        while !finished.is_null() {
            // SAFETY: as above.
            let job = unsafe {
                let job = T::of_link(finished);
                let next = (*finished).chained();
                (*finished).chain(ptr::null_mut());
                finished = next;
                job
            };
            self.count_in(true);
            // `Free` can happen: a thread in `ns_add_group_job` has written `*job` and not pushed
            // the job yet; another thread reads the pointer and cancels the job; the loop disposes
            // of it and, since it carries WORK, leaves the memory to its arrival here.
            if self.arrive(job) == Arrived::Free {
                self.set_aside(job);
            }
        }
    }

    /// `job` was disposed of on its way here: have an agent free it, since the allocator must not
    /// be called under the lock.
    pub(super) fn set_aside(&self, job: T) {
        self.push_farewell(job);
    }

    /// Count one more job. `active` says that it is not idle.
    pub(super) fn count_in(&self, active: bool) {
        add(&self.core.refs, 1);
        add(&self.core.active, i64::from(active));
    }

    /// `job`, which carries WORK, comes to the queue.
    pub(super) fn arrive(&self, job: T) -> Arrived {
        if job.state().is_armed() {
            // SAFETY: the link is this group's: it is in `members` or in no ring.
            unsafe { (*job.link()).unlink() };
            job.set_marks(QUEUED);
            add(&self.core.length, 1);
            let ring = if self.is_unordered() && job.is_for_loop() && !self.has(CANCELLED) {
                &self.core.held
            } else {
                &self.core.queue
            };
            // SAFETY: it was just unlinked, and a queued job lives until it is taken out.
            unsafe { ring.push(job.link()) };
            return Arrived::Queued;
        }
        let pending = job.marks() & PENDING != 0;
        if job.state().drop_work() {
            return Arrived::Free;
        }
        if pending {
            self.push_farewell(job);
        }
        Arrived::Gone
    }

    /// A member that carries WORK comes to the queue: from the loop, from its rearm or from its
    /// last run. If the result is [`Arrived::Free`], the caller counts it out.
    pub(crate) fn enqueue(&self, job: T) -> Arrived {
        self.empty_inbox();
        self.arrive(job)
    }

    /// Adds a new job, which no other thread knows: armed and carrying WORK, or idle. The limit
    /// does not apply if the caller is `exempt`.
    pub(crate) fn add(&self, job: T, armed: bool, exempt: bool) -> Result<(), Refused> {
        if self.has(CANCELLED) {
            return Err(Refused::Cancelled);
        }
        self.empty_inbox();
        let limit = self.core.limit.load(Ordering::Relaxed);
        if armed && !exempt && limit != 0 && self.core.length.get() >= limit {
            return Err(Refused::Full);
        }
        self.count_in(armed);
        if armed {
            if self.arrive(job) == Arrived::Free {
                self.set_aside(job);
            }
        } else {
            // SAFETY: it is in no list, and lives until it is disposed of.
            unsafe { self.core.members.push(job.link()) };
        }
        Ok(())
    }

    pub(super) fn push_farewell(&self, job: T) {
        job.set_marks(FAREWELL);
        add(&self.core.farewells, 1);
        // SAFETY: it is in no list, and lives until its done callback has returned.
        unsafe {
            if self.is_unordered() {
                self.core.queue.push_first(job.link());
            } else {
                self.core.queue.push(job.link());
            }
        }
    }

    /// `job` is out of everything else: queue its done callback.
    pub(crate) fn farewell(&self, job: T) {
        self.empty_inbox();
        // SAFETY: the link is this group's.
        let link = unsafe { &*job.link() };
        if !link.is_linked() && job.state().is_in_work() {
            // It is on its way to the queue: the thread that brings it finds the mark.
            return job.set_marks(PENDING);
        }
        link.unlink();
        self.push_farewell(job);
    }

    /// `job`, which has no done callback, is out of everything else. True if the caller must free
    /// it; it is counted out then. If false, the thread that brings it to the queue does both.
    pub(crate) fn forget(&self, job: T) -> bool {
        self.empty_inbox();
        self.forget_run(job)
    }

    /// As [`Guard::forget`], for a job whose callback has just returned: it is not in the inbox.
    #[inline(always)]
    pub(crate) fn forget_run(&self, job: T) -> bool {
        // SAFETY: the link is this group's.
        unsafe { (*job.link()).unlink() };
        job.state().begin_disposal();
        let free = job.state().end_disposal();
        if free {
            self.count_out();
        }
        free
    }

    /// Count out a job that is gone.
    pub(crate) fn count_out(&self) {
        add(&self.core.refs, -1);
        add(&self.core.active, -1);
    }

    /// Arm a member that is idle or running. A job without a trigger joins the queue.
    pub(crate) fn arm(&self, job: T, queue: u32, persist: bool) -> Arm {
        if self.has(CANCELLED) {
            // The loop finishes with it soon.
            return Arm::Refused;
        }
        self.armed(job, job.state().arm(queue, persist))
    }

    /// The same, for a member with a trigger that the caller has claimed.
    pub(crate) fn arm_claimed(&self, job: T, queue: u32) -> Arm {
        self.armed(job, job.state().arm_claimed(queue))
    }

    fn armed(&self, job: T, armed: Arm) -> Arm {
        if armed == Arm::Push {
            add(&self.core.active, 1);
            if job.state().is_in_work() {
                let arrived = self.enqueue(job);
                debug_assert_eq!(arrived, Arrived::Queued);
            }
        }
        armed
    }

    /// Finish with a member; with `even_armed`, in any state. A queued job is taken out at once.
    pub(crate) fn end(&self, job: T, even_armed: bool) -> End {
        let end = job.state().end_from(self.waiters, even_armed);
        match end {
            End::PushIdle => add(&self.core.active, 1),
            End::Push => {
                self.empty_inbox();
                if job.marks() & QUEUED != 0 {
                    self.take_out(job);
                    let work = job.state().take_work();
                    debug_assert_eq!(work, Work::Leave);
                }
            }
            _ => {}
        }
        end
    }

    /// Take a callback out of the queue.
    pub(super) fn take_out(&self, job: T) {
        // SAFETY: linked in a ring of ours.
        unsafe { (*job.link()).unlink() };
        job.set_marks(0);
        add(&self.core.length, -1);
    }

    /// A member has become idle.
    pub(crate) fn count_idle(&self) {
        add(&self.core.active, -1);
    }

    /// A callback or a done callback has returned.
    pub(crate) fn returned(&self) {
        add(&self.core.running, -1);
    }
}
