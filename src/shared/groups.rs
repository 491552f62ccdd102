// SPDX-License-Identifier: GPL-3.0-or-later
//! What a pool's threads do with groups: make them, send agents to serve them, and a member's ways
//! that differ from those of other jobs.
//!
//! An agent is a [`Task`] in the workers' queue or in the loop's. It may meet the end of the pool:
//!
//! * *The workers are about to leave, and an agent in the loop will hand its group to them.* While an
//!   agent is in the loop, or in its queue, the work queue expects more, and no worker leaves.
//! * *An agent is sent to the workers just as the last leaves.* The sender pushes and then looks
//!   whether there are workers; the last worker leaves and then tells the loop. So either the sender
//!   tells the loop, or the loop sees the agent; it calls done callbacks in the workers' place.

use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use libc::c_void;

use super::{Armed, Ended, Shared, queue_of};
use crate::abi::{NS_JOB_PERSIST, ns_group_done_t};
use crate::group::core::{Arrived, Guard, Refused, Send};
use crate::group::{GroupPtr, Task};
use crate::job::here;
use crate::job::state::{Arm, End};
use crate::job::{JobPtr, Kind};
use crate::list::Ring;
use crate::perturb::perturb;
use crate::sync::{hand_over, lock, take_over};
use crate::sys;

/// A pool's list of groups, for its end.
pub(crate) struct Groups(Ring);

// SAFETY: used under the lock that it is in.
unsafe impl std::marker::Send for Groups {}

impl Groups {
    /// None.
    pub(super) fn new() -> Self {
        Self(Ring::new())
    }

    /// One of them.
    pub(crate) fn first(&self) -> Option<GroupPtr> {
        let first = self.0.first();
        // SAFETY: what is in the list is a live group's.
        (!first.is_null()).then(|| unsafe { GroupPtr::of_link(first) })
    }

    /// Each of them.
    pub(crate) fn each(&self, mut visit: impl FnMut(GroupPtr)) {
        let mut link = self.0.first();
        while !link.is_null() {
            // SAFETY: as above.
            unsafe {
                visit(GroupPtr::of_link(link));
                link = self.0.after(&*link);
            }
        }
    }
}

/// What an application is told of a request to cancel a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cancelled {
    Yes,
    /// Callbacks run on other threads.
    Running,
}

impl Shared {
    /// Take the lock of `group`.
    #[inline(always)]
    pub(crate) fn lock_group<'a>(&'a self, group: &'a GroupPtr) -> Guard<'a, JobPtr> {
        group.core.lock(&self.waiters)
    }

    /// Make a group, which the caller holds. `None` when there is no memory.
    pub(crate) fn make_group(
        &self,
        width: usize,
        data: *mut c_void,
        done: ns_group_done_t,
    ) -> Option<GroupPtr> {
        let group = GroupPtr::make(&self.alloc, self.as_c(), width, data, done)?;
        let groups = lock(&self.groups);
        // SAFETY: in no list; a group does not move, and leaves the list when it ends.
        unsafe { groups.0.push(group.link()) };
        Some(group)
    }

    /// `group` has ended: nobody but those who were about to look at one of its jobs can have it.
    ///
    /// # Safety
    /// No reference, no slot, no lock of it is held.
    pub(crate) unsafe fn free_group(&self, group: GroupPtr) {
        let groups = lock(&self.groups);
        group.link.unlink();
        drop(groups);
        // SAFETY: by the caller's promise.
        unsafe { self.deferred_groups.free(&self.alloc, group.as_ptr()) };
    }

    /// Send agents for `group` to where they are wanted. They have their slots, which keep the group.
    pub(crate) fn send(&self, group: GroupPtr, send: Send) {
        if send.to_worker {
            self.send_to_worker(group);
        }
        if send.to_loop {
            self.send_to_loop(group);
        }
    }

    /// An agent for `group`, with its slot, to the workers.
    pub(crate) fn send_to_worker(&self, group: GroupPtr) {
        perturb("an agent has its slot, and is not pushed");
        self.work.push(Task::group(group));
        self.nudge_if_late();
    }

    /// An agent for `group`, with its slot, to the loop.
    pub(crate) fn send_to_loop(&self, group: GroupPtr) {
        self.work.expect_more();
        perturb("an agent has its slot, and is not pushed");
        self.loop_work.push(Task::group(group));
        self.wake_loop();
        self.nudge_if_late();
    }

    fn nudge_if_late(&self) {
        // After the push: see the module.
        if self.workers.load(Ordering::SeqCst) == 0 {
            self.nudge();
        }
    }

    /// A run-now job, armed and carrying WORK, of which nobody else knows but by name, comes to
    /// `group`. `exempt`: no limit counts.
    pub(crate) fn add_to_group(
        &self,
        group: GroupPtr,
        job: JobPtr,
        armed: bool,
        exempt: bool,
    ) -> Result<(), Refused> {
        // A limit that is set meanwhile counts for the next.
        if armed && group.core.is_single() && (exempt || !group.core.has_limit()) {
            let for_loop = !job.has(crate::abi::NS_JOB_THREAD);
            if group.core.push(job)? {
                let send = Send {
                    to_worker: !for_loop,
                    to_loop: for_loop,
                };
                self.send(group, send);
            }
            return Ok(());
        }
        let guard = self.lock_group(&group);
        let added = guard.add(job, armed, exempt);
        let send = guard.unlock();
        self.send(group, send);
        added
    }

    /// A member fired, or is armed again without a trigger, and carries WORK: it joins the queue.
    pub(crate) fn enqueue(&self, group: GroupPtr, job: JobPtr) {
        let guard = self.lock_group(&group);
        let arrived = guard.enqueue(job);
        if arrived == Arrived::Free {
            guard.count_out();
        }
        let send = guard.unlock();
        self.send(group, send);
        if arrived == Arrived::Free {
            // SAFETY: disposed of, and it was on its way here only.
            unsafe { self.free_job(job) };
        }
    }

    /// `ns_job_rearm`, of a member.
    #[cold]
    #[inline(never)]
    pub(super) fn arm_member(&self, group: GroupPtr, job: JobPtr) -> Armed {
        // Before it can fire, or be run.
        let queue = queue_of(job.kind());
        let guard = self.lock_group(&group);
        let armed = guard.arm(job, queue, job.has(NS_JOB_PERSIST));
        if armed == Arm::Push {
            // The callback, which may free the job, comes after the lock.
            self.idle.remove(job.func());
            if job.kind() != Kind::Now && job.has_timeout() {
                job.restart(sys::now());
            }
        }
        let send = guard.unlock();
        if armed == Arm::Push && queue == crate::job::state::REQ {
            self.request(job);
        }
        self.send(group, send);
        match armed {
            Arm::Push | Arm::Recorded => Armed::Yes,
            Arm::Refused => Armed::NotNow,
        }
    }

    /// `ns_job_done` and `ns_job_cancel`, of a member.
    #[cold]
    #[inline(never)]
    pub(super) fn end_member(&self, group: GroupPtr, job: JobPtr, even_armed: bool) -> Ended {
        let own = here::in_callback_of(&job);
        let state = &raw const job.state;
        hand_over(state);
        let guard = self.lock_group(&group);
        let end = guard.end(job, even_armed);
        if end == End::PushIdle {
            self.idle.remove(job.func());
        }
        let send = guard.unlock();
        if matches!(end, End::Push | End::PushIdle) {
            take_over(state);
            self.request(job);
        }
        self.send(group, send);
        match end {
            End::Push | End::PushIdle | End::Queued | End::Over => Ended::Yes,
            End::Marked | End::OverRunning if own => Ended::Yes,
            End::Marked | End::OverRunning => Ended::Running,
            End::Armed => Ended::Armed,
        }
    }

    /// `ns_group_cancel`.
    pub(crate) fn cancel_group(&self, group: GroupPtr) -> Cancelled {
        let own = here::callbacks_of(group.as_ptr().cast());
        let guard = self.lock_group(&group);
        let first = guard.cancel();
        let running = guard.running() > own;
        let send = guard.unlock();
        if first {
            self.requests.push(Task::group(group));
            self.wake_loop();
        }
        take_over(group.as_ptr().as_ptr());
        self.send(group, send);
        if running {
            Cancelled::Running
        } else {
            Cancelled::Yes
        }
    }

    /// Everything that a pool has is to end: each group is cancelled.
    pub(crate) fn cancel_groups(&self) {
        let groups = lock(&self.groups);
        groups.each(|group| {
            let guard = self.lock_group(&group);
            let first = guard.cancel();
            // What is queued is found with the members: the loop serves the group for both.
            let send = guard.unlock();
            if first {
                self.requests.push(Task::group(group));
            }
            if send.to_worker {
                self.work.push_quietly(Task::group(group));
            }
        });
    }

    /// A group that is left though it has no job any more: the application holds it.
    pub(crate) fn left_group(&self) -> Option<GroupPtr> {
        lock(&self.groups).first()
    }
}

/// A job's block came from the pool's allocator.
impl Shared {
    /// Give the memory of a job back, now or a little later.
    ///
    /// # Safety
    /// Nobody holds it any more, and nobody may name it.
    pub(crate) unsafe fn free_job(&self, job: JobPtr) {
        // SAFETY: the caller's promise.
        unsafe { self.deferred.free(&self.alloc, job.as_job()) };
    }
}

/// The group at `at`, if there is one.
pub(crate) fn group_at(at: *mut c_void) -> Option<GroupPtr> {
    // SAFETY: a live group, by the interface's rules.
    NonNull::new(at).map(|at| unsafe { GroupPtr::new(at.cast()) })
}
