// SPDX-License-Identifier: GPL-3.0-or-later
//! What the application asks of a group: hold, release, cancel, suspend, wait.

use super::core::*;
use crate::job::state::End;
use crate::job::wait::Outcome;
use crate::sync::Ordering;

impl<T: Member> Guard<'_, T> {
    /// Add a hold.
    pub(crate) fn hold(&self) {
        add(&self.core.refs, 1);
    }

    /// Drop a hold. False if there is none.
    pub(crate) fn release(&self) -> bool {
        let held = self.core.refs.get() > 0;
        add(&self.core.refs, -i64::from(held));
        held
    }

    /// The pool is being destroyed: no thread can release the group any more.
    pub(crate) fn drop_holds(&self) {
        self.core.refs.set(0);
    }

    /// Take in a job that was never armed. False if the group is cancelled.
    pub(crate) fn join(&self, job: T) -> bool {
        self.add(job, false, true).is_ok()
    }

    /// Cancel the group: no callback of its jobs begins any more. True if this is the first call:
    /// then the caller must have the loop finish with the members, and a reference is held for
    /// that.
    pub(crate) fn cancel(&self) -> bool {
        if self.has(CANCELLED) {
            return false;
        }
        let at = self.core;
        let stack = if self.is_single() {
            // From here on slots are counted.
            let inbox = self.core.inbox.swap(CLOSED, Ordering::AcqRel);
            at.slots.set(u16::from(inbox != IDLE && !self.has(PARKED)));
            inbox
        } else {
            IDLE
        };
        self.clear(PARKED);
        self.set(CANCELLED);
        self.take_in(stack);
        self.put_back();
        add(&at.refs, 1);
        true
    }

    /// The next member for the loop to finish with: it carries REQ, and is in no list. `None` when
    /// there is none: then the reference is given back.
    pub(crate) fn next_member(&self) -> Option<(T, End)> {
        loop {
            let first = self.core.members.first();
            if first.is_null() {
                add(&self.core.refs, -1);
                return None;
            }
            // SAFETY: what is in the list is a member's, and live.
            let job = unsafe {
                (*first).unlink();
                T::of_link(first)
            };
            let end = job.state().end_from(self.waiters, true);
            if matches!(end, End::Push | End::PushIdle) {
                add(&self.core.active, i64::from(end == End::PushIdle));
                return Some((job, end));
            }
            // `Marked`: its callback runs, and it is disposed of after that. `Queued`: its request
            // is on the way, and the loop disposes of it then.
        }
    }

    /// Put what was held back in front of the rest.
    pub(super) fn put_back(&self) {
        let at = self.core;
        at.held.append(&at.queue);
        at.queue.append(&at.held);
    }

    /// Add a suspension. False if there are too many.
    pub(crate) fn suspend(&self) -> bool {
        let new = self.core.suspended.get().checked_add(1);
        new.is_some_and(|new| {
            self.core.suspended.set(new);
            true
        })
    }

    /// Drop a suspension. False if there is none.
    pub(crate) fn resume(&self) -> bool {
        let at = self.core;
        let Some(new) = at.suspended.get().checked_sub(1) else {
            return false;
        };
        at.suspended.set(new);
        if new == 0 && !self.is_unordered() && !self.has(CANCELLED) {
            self.put_back();
        }
        true
    }

    /// The pool shuts down. True if an agent has a slot, or is about to be sent with one: then the
    /// workers must stay until no agent serves the group. [`Send::let_go`] says when that is.
    /// This gives the lock back. No agent is wanted that was not before.
    pub(crate) fn keep_workers(self) -> bool {
        let served = self.is_served() && self.core.refs.get() != ENDED;
        if served {
            self.set(KEEPS_WORKERS);
        }
        self.unlock_sending_nobody();
        served
    }

    /// Calls `visit` with each job: whether its callback waits in the queue, and the job. It may not
    /// unlink any. Gives the lock back; no agent is wanted that was not before.
    pub(crate) fn each(self, mut visit: impl FnMut(bool, T)) {
        let at = self.core;
        for ring in [&at.held, &at.queue, &at.members] {
            let mut link = ring.first();
            while !link.is_null() {
                // SAFETY: what is in the rings is a live member's.
                let job = unsafe {
                    let job = T::of_link(link);
                    link = ring.after(&*link);
                    job
                };
                visit(job.marks() & QUEUED != 0, job);
            }
        }
        // The newest comes first. Only a thread that has the lock takes jobs out.
        let mut link = at.inbox.load(Ordering::Acquire);
        while self.is_open() && is_stack(link) {
            // SAFETY: the stack holds links of live jobs.
            unsafe {
                visit(true, T::of_link(link));
                link = (*link).chained();
            }
        }
        self.unlock_sending_nobody();
    }

    /// Adds a hold, unless the group is about to end. Gives the lock back; no agent is wanted that was not
    /// before. True if there is a hold.
    pub(crate) fn keep(self) -> bool {
        let refs = self.core.refs.get();
        let live = refs > 0 && refs != ENDED;
        add(&self.core.refs, i64::from(live));
        self.unlock_sending_nobody();
        live
    }

    /// Set how long the queue may get; 0 for no limit.
    pub(crate) fn set_limit(&self, limit: u32) {
        self.core.limit.store(limit, Ordering::Relaxed);
    }

    /// Callbacks in the queue.
    pub(crate) fn length(&self) -> u32 {
        self.empty_inbox();
        match self.has(CANCELLED) {
            true => 0,
            false => self.core.length.get(),
        }
    }

    /// How many callbacks and done callbacks are running.
    pub(crate) fn running(&self) -> u32 {
        self.core.running.get().into()
    }

    /// Whether at most `own` jobs are active.
    pub(crate) fn is_quiet(&self, own: u32) -> bool {
        !is_stack(self.core.inbox.load(Ordering::Acquire)) && self.core.active.get() <= own
    }

    /// Wait until no job is active, as [`Waiters::wait`] does. Once the caller is on the list, this
    /// releases the lock, drops `entering`, and does not use the group any more. The caller has
    /// seen that the group is not quiet.
    pub(crate) fn wait<E>(
        self,
        is_worker: bool,
        deadline: Option<u64>,
        stopped: impl Fn() -> bool,
        entering: E,
    ) -> Outcome {
        self.set(WAITED);
        let (key, waiters) = (self.key(), self.waiters);
        waiters.wait_for_group(key, is_worker, deadline, stopped, || {
            self.unlock_sending_nobody();
            drop(entering);
        })
    }
}
