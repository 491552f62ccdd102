// SPDX-License-Identifier: GPL-3.0-or-later
//! What a pool's threads do with groups: make them, send agents to serve them, and the steps in
//! which a member differs from other jobs.
//!
//! An agent is a [`Task`] in the workers' queue or in the loop's. It may meet the end of the pool:
//!
//! * *The workers are about to leave, and a group with jobs for them is served elsewhere:* in the
//!   loop, or by an agent that another thread is about to send. The shutdown looks at each group
//!   before it closes the work queue. While a slot is held that was held then, the work queue expects
//!   more, and no worker leaves. Nor does one while an agent is in the loop, or in its queue: a
//!   group may be resumed, and so served, after the shutdown.
//! * *An agent is sent to the workers just as the last leaves.* The sender pushes and then looks
//!   whether there are workers; the last worker leaves and then tells the loop. So either the sender
//!   tells the loop, or the loop sees the agent; it calls done callbacks in the workers' place.

use std::sync::atomic::Ordering;

use libc::c_void;

use super::{Armed, Ended, Phase, Shared, queue_of};
use crate::abi::{NS_JOB_PERSIST, NS_JOB_THREAD, ns_group_done_t};
use crate::group::core::{Arrived, Guard, Place, Refused, Send};
use crate::group::{GroupPtr, Task};
use crate::job::free::Entering;
use crate::job::here;
use crate::job::state::{self, Arm, End};
use crate::job::wait::Outcome;
use crate::job::{JobPtr, Kind, probes};
use crate::perturb::perturb;
use crate::sync::{lock, tsan_acquire, tsan_release};
use crate::sys;

/// The result of a request to cancel a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cancelled {
    Yes,
    /// Callbacks run on other threads.
    Running,
}

/// The result of a request to put a job into a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Joined {
    Yes,
    /// It was armed before, has no room, or is in a group.
    NotNow,
    Cancelled,
}

impl Shared {
    /// Take the lock of `group`.
    #[inline(always)]
    pub(crate) fn lock_group<'a>(&'a self, group: &'a GroupPtr) -> Guard<'a, JobPtr> {
        group.core.lock(&self.waiters)
    }

    /// Make a group, on which the caller has a hold. `None` when there is no memory.
    pub(crate) fn make_group(
        &self,
        width: usize,
        data: *mut c_void,
        done: ns_group_done_t,
    ) -> Option<GroupPtr> {
        let group = GroupPtr::make(&self.alloc, self.as_c(), width, data, done)?;
        lock(&self.groups).add(group);
        Some(group)
    }

    /// `group` has ended: free it. Only a thread that is about to wait for it, or for one of its
    /// jobs, can still read it.
    ///
    /// # Safety
    /// No thread holds a reference, a slot or the lock of it.
    pub(crate) unsafe fn free_group(&self, group: GroupPtr) {
        let groups = lock(&self.groups);
        group.link.unlink();
        drop(groups);
        // SAFETY: by the caller's promise.
        unsafe { self.deferred_groups.free(group.as_ptr()) };
    }

    /// Send agents for `group` to where they are wanted. Their slots keep the group.
    pub(crate) fn send(&self, group: GroupPtr, send: Send) {
        if send.to_worker {
            self.send_to_worker(group);
        }
        if send.to_loop {
            self.send_to_loop(group);
        }
        if send.let_go {
            self.work.expect_no_more();
        }
    }

    /// The pool shuts down, and its work queue is still open: make the workers stay for each group
    /// that is being served, since its next job may be for them.
    pub(crate) fn keep_workers(&self) {
        let groups = lock(&self.groups);
        groups.each(|group| {
            // Before the lock is given back: from then on the group may let the workers go. Nothing is
            // sent from here: that may log, and the lock of the list is held.
            self.work.expect_more();
            if !self.lock_group(&group).keep_workers() {
                self.work.expect_no_more();
            }
        });
    }

    /// Send an agent for `group`, with its slot, to the workers.
    #[inline(never)]
    pub(crate) fn send_to_worker(&self, group: GroupPtr) {
        perturb("an agent has its slot, and is not pushed");
        self.work.push(Task::group(group));
        self.nudge_if_late();
    }

    /// Send an agent for `group`, with its slot, to the loop.
    #[inline(never)]
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

    /// Adds a new job, which no other thread knows, to `group`: idle, or armed and carrying WORK.
    #[inline(always)]
    pub(crate) fn add_to_group(
        &self,
        group: GroupPtr,
        job: JobPtr,
        armed: bool,
    ) -> Result<(), Refused> {
        if armed {
            probes::armed(self, job);
            probes::queued(self, job);
        }
        if !armed || !group.core.is_single() || group.core.has_limit() {
            return self.add_slowly(group, job, armed);
        }
        if group.core.push(job)? {
            let to_worker = job.has(NS_JOB_THREAD);
            let send = Send {
                to_worker,
                to_loop: !to_worker,
                let_go: false,
            };
            self.send(group, send);
        }
        Ok(())
    }

    #[inline(never)]
    fn add_slowly(&self, group: GroupPtr, job: JobPtr, armed: bool) -> Result<(), Refused> {
        // The limit does not apply in a worker: one that waited for room could wait for itself.
        let exempt = here::on_worker_of(self.as_c());
        let guard = self.lock_group(&group);
        let added = guard.add(job, armed, exempt);
        let send = guard.unlock();
        self.send(group, send);
        added
    }

    /// The group refused a new job: undo [`Shared::make`].
    ///
    /// # Safety
    /// No other thread knows the job.
    pub(crate) unsafe fn unmake(&self, job: JobPtr, armed: bool) {
        if !armed {
            self.idle.remove(job.func());
        }
        probes::disposed(self, job);
        // SAFETY: guaranteed by the caller.
        unsafe { self.free_job(job) };
    }

    /// `ns_job_set_group`.
    pub(crate) fn join_group(&self, group: GroupPtr, job: JobPtr) -> Joined {
        if !job.has_room() || job.group().is_some() || !job.state.is_new() {
            return Joined::NotNow;
        }
        let guard = self.lock_group(&group);
        let joined = guard.join(job);
        if joined {
            job.set_group(group.as_ptr().cast());
        }
        let send = guard.unlock();
        self.send(group, send);
        if joined {
            Joined::Yes
        } else {
            Joined::Cancelled
        }
    }

    /// Puts `job` into the queue of its group: it fired, or is armed again without a trigger, and
    /// carries WORK.
    #[cold]
    #[inline(never)]
    pub(crate) fn enqueue(&self, group: GroupPtr, job: JobPtr) {
        probes::queued(self, job);
        let guard = self.lock_group(&group);
        let arrived = guard.enqueue(job);
        if arrived == Arrived::Free {
            guard.count_out();
        }
        let send = guard.unlock();
        self.send(group, send);
        if arrived == Arrived::Free {
            // SAFETY: it is disposed of, and only its way here held it.
            unsafe { self.free_job(job) };
        }
    }

    /// `ns_job_rearm`, of a member.
    #[cold]
    #[inline(never)]
    pub(super) fn arm_member(&self, group: GroupPtr, job: JobPtr) -> Armed {
        // Under the lock, so that it comes before the job fires or runs.
        let queue = queue_of(job.kind());
        let guard = self.lock_group(&group);
        let armed = guard.arm(job, queue, job.has(NS_JOB_PERSIST));
        if armed == Arm::Push {
            // The callback, which may free the job, comes after the lock.
            self.idle.remove(job.func());
            self.stamp(job);
            if job.kind() != Kind::Now && job.has_timer() {
                job.restart(sys::now());
            }
            probes::armed(self, job);
            if queue == state::WORK {
                probes::queued(self, job);
            }
        }
        let send = guard.unlock();
        if armed == Arm::Push && queue == state::REQ {
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
        let state = &raw const job.state;
        tsan_release(state);
        let guard = self.lock_group(&group);
        let end = guard.end(job, even_armed);
        if end == End::PushIdle {
            self.idle.remove(job.func());
        }
        let send = guard.unlock();
        if matches!(end, End::Push | End::PushIdle) {
            tsan_acquire(state);
            self.request(job);
        }
        self.send(group, send);
        match end {
            End::Push | End::PushIdle | End::Queued | End::Over => Ended::Yes,
            End::Marked | End::OverRunning => Ended::Running,
            End::Armed => Ended::Armed,
        }
    }

    /// `ns_group_release`.
    pub(crate) fn release_group(&self, group: GroupPtr) {
        tsan_release(group.as_ptr().as_ptr());
        let guard = self.lock_group(&group);
        let held = guard.release();
        let send = guard.unlock();
        self.send(group, send);
        debug_assert!(held, "released once too often");
    }

    /// `ns_group_wait`. Returns `None` if the calling thread would block what it waits for.
    /// The caller has entered [`Shared::waiters`]. `entering` keeps the group's memory until the wait has
    /// begun: the end of the pool may end the group.
    pub(crate) fn wait_for_group(
        &self,
        group: GroupPtr,
        deadline: Option<u64>,
        entering: Entering,
    ) -> Option<Outcome> {
        let at = group.as_ptr();
        let own = here::callbacks_of(at.cast());
        let guard = self.lock_group(&group);
        let quiet = guard.is_quiet(own);
        if quiet || own > 0 || self.is_loop_here() {
            let send = guard.unlock();
            self.send(group, send);
            tsan_acquire(at.as_ptr());
            return quiet.then_some(Outcome::Idle);
        }
        let is_worker = self.is_here();
        let stopped = || self.phase() >= Phase::Quiet || is_worker && self.is_shutting_down();
        let outcome = guard.wait(is_worker, deadline, stopped, entering);
        tsan_acquire(at.as_ptr());
        Some(outcome)
    }

    /// `ns_group_cancel`.
    pub(crate) fn cancel_group(&self, group: GroupPtr) -> Cancelled {
        let own = here::callbacks_of(group.as_ptr().cast());
        let inner = match own {
            0 => None,
            _ => here::callback(|job| job.group() == Some(group)),
        };
        let guard = self.lock_group(&group);
        let first = guard.cancel();
        let running = guard.running() > own;
        if let Some(job) = inner {
            // The loop ends the members later. End the caller's own job now, so that its calls see
            // that.
            let end = guard.end(job, true);
            debug_assert!(matches!(end, End::Marked | End::OverRunning));
        }
        let send = guard.unlock();
        if first {
            self.requests.push(Task::group(group));
            self.wake_loop();
        }
        tsan_acquire(group.as_ptr().as_ptr());
        self.send(group, send);
        if running {
            Cancelled::Running
        } else {
            Cancelled::Yes
        }
    }

    /// Whether no callback of `job` will begin any more. The application knows that before the loop
    /// finishes with the members of a group, and may have closed a descriptor that it keeps.
    #[cold]
    pub(crate) fn is_over(&self, job: JobPtr) -> bool {
        let is_cancelled = |group: GroupPtr| {
            let guard = self.lock_group(&group);
            let cancelled = guard.is_cancelled();
            let send = guard.unlock();
            self.send(group, send);
            cancelled
        };
        job.state.now() == state::NEEDS_DELETE || job.group().is_some_and(is_cancelled)
    }

    /// The next member of a cancelled group that the loop must dispose of; it carries REQ. `None`
    /// if none is left; the group may be gone then.
    pub(crate) fn next_member(&self, group: GroupPtr) -> Option<JobPtr> {
        let guard = self.lock_group(&group);
        let next = guard.next_member();
        let send = guard.unlock();
        self.send(group, send);
        let (job, end) = next?;
        if end == End::PushIdle {
            self.idle.remove(job.func());
        }
        Some(job)
    }

    /// The pool is being destroyed: cancel each group.
    pub(crate) fn cancel_groups(&self) {
        let groups = lock(&self.groups);
        groups.each(|group| {
            let guard = self.lock_group(&group);
            let first = guard.cancel();
            // No agent is sent to the loop: a cancelled group never wants one there.
            let send = guard.unlock();
            if first {
                self.requests.push(Task::group(group));
            }
            if send.to_worker {
                self.work.push_quietly(Task::group(group));
            }
        });
    }

    /// `group` has no jobs: end it, even if the application still holds it. True if the caller has
    /// the slot, and must serve the group.
    pub(crate) fn end_group(&self, group: GroupPtr) -> bool {
        let guard = self.lock_group(&group);
        guard.drop_holds();
        let here = guard.take_slot_here(Place::Late);
        let send = guard.unlock();
        self.send(group, send);
        here
    }

    /// A group that is left when no job is: the application holds it.
    pub(crate) fn left_group(&self) -> Option<GroupPtr> {
        lock(&self.groups).first()
    }
}
