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

    /// Take in a stack of jobs, the oldest of which is at its bottom. One pass over them: each job is
    /// another thread's cache line until then.
    pub(super) fn take_in(&self, mut stack: *mut Link) {
        let queue = &self.core.queue;
        let mut newer = queue.end();
        let mut count = 0;
        let mut finished: *mut Link = ptr::null_mut();
        while is_stack(stack) {
            // SAFETY: what is on the stack is a member's, has come to us, and is in no ring.
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
            // Nobody frees it but who has arrived with it, and that is not now.
            if self.arrive(job) == Arrived::Free {
                self.set_aside(job);
            }
        }
    }

    /// A job that was disposed of on its way here: an agent frees it, since the allocator is not
    /// called under the lock.
    pub(super) fn set_aside(&self, job: T) {
        self.push_farewell(job);
    }

    /// One more job, idle or not.
    pub(super) fn count_in(&self, active: bool) {
        add(&self.core.refs, 1);
        add(&self.core.active, i64::from(active));
    }

    /// `job`, which carries WORK, comes to the queue.
    pub(super) fn arrive(&self, job: T) -> Arrived {
        if job.state().is_armed() {
            // SAFETY: as the member lists say; the link is this group's.
            unsafe { (*job.link()).unlink() };
            job.set_marks(QUEUED);
            add(&self.core.length, 1);
            let ring = if self.is_unordered() && job.is_for_loop() && !self.has(CANCELLED) {
                &self.core.held
            } else {
                &self.core.queue
            };
            // SAFETY: just unlinked; a queued job stays until it is taken out.
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

    /// A member that carries WORK comes to the queue, from the loop, from its rearm or its last run.
    /// If it was freed on its way, the caller counts it out.
    pub(crate) fn enqueue(&self, job: T) -> Arrived {
        self.empty_inbox();
        self.arrive(job)
    }

    /// A new job, of which nobody knows, comes to the group: armed, carrying WORK, or idle.
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
            // SAFETY: in no list, and stays until it is disposed of.
            unsafe { self.core.members.push(job.link()) };
        }
        Ok(())
    }

    pub(super) fn push_farewell(&self, job: T) {
        job.set_marks(FAREWELL);
        add(&self.core.farewells, 1);
        // SAFETY: in no list, and stays until its done callback has returned.
        unsafe {
            if self.is_unordered() {
                self.core.queue.push_first(job.link());
            } else {
                self.core.queue.push(job.link());
            }
        }
    }

    /// `job` is out of everything else: its done callback takes its turn.
    pub(crate) fn farewell(&self, job: T) {
        self.empty_inbox();
        // SAFETY: the link is this group's.
        let link = unsafe { &*job.link() };
        if !link.is_linked() && job.state().is_in_work() {
            // On its way to the queue: who brings it finds the mark.
            return job.set_marks(PENDING);
        }
        link.unlink();
        self.push_farewell(job);
    }

    /// `job`, which has no done callback, is out of everything else. True if the caller is to free it,
    /// having counted it out; else the thread that brings it to the queue does both.
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

    /// A job is gone.
    pub(crate) fn count_out(&self) {
        add(&self.core.refs, -1);
        add(&self.core.active, -1);
    }

    /// Arm an idle member, or one that runs. One without a trigger joins the queue.
    pub(crate) fn arm(&self, job: T, queue: u32, persist: bool) -> Arm {
        if self.has(CANCELLED) {
            // The loop has yet to finish with it.
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

    /// Finish with a member, in whatever state if `even_armed`. One in the queue is taken out at once.
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
