// SPDX-License-Identifier: GPL-3.0-or-later
//! A group's slots: which job an agent takes next, when it leaves, and when another is sent.

use super::core::*;
use crate::job::state::{End, Work};
use crate::perturb::perturb;
use crate::sync::Ordering;

impl<T: Member> Guard<'_, T> {
    /// An agent begins.
    pub(crate) fn begin(&self, came: Came) {
        if came == Came::FromLoop {
            self.clear(IN_LOOP_QUEUE);
        }
        if came != Came::Here && !self.is_single() {
            add(&self.core.sent, -1);
        }
    }

    /// Take a slot. False if none is free.
    pub(crate) fn take_slot(&self) -> bool {
        if self.is_open() {
            if self.has(PARKED) {
                self.clear(PARKED);
                return true;
            }
            return self
                .core
                .inbox
                .compare_exchange(IDLE, BUSY, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok();
        }
        let free = self.is_unordered() || self.core.slots.get() < self.core.width;
        add(&self.core.slots, i64::from(free));
        free
    }

    /// Give a slot back. False if a job has come to the inbox: then the agent stays.
    pub(super) fn give_slot(&self) -> bool {
        if !self.is_open() {
            add(&self.core.slots, -1);
            return true;
        }
        if !self.core.queue.is_empty() || !self.core.held.is_empty() {
            // What is left is held back. No job that comes needs an agent until a resume, a cancel,
            // or a done callback.
            self.set(PARKED);
            return true;
        }
        perturb("a group's queue is empty, and its slot not given back");
        self.core
            .inbox
            .compare_exchange(BUSY, IDLE, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Whether only done callbacks may run.
    pub(super) fn is_held_back(&self) -> bool {
        (self.core.suspended.get() > 0 || self.has(LATE)) && !self.has(CANCELLED)
    }

    /// Whether everything is over, and the caller, if it is an agent, is the last.
    pub(super) fn is_over(&self) -> bool {
        self.core.refs.get() == 0
    }

    /// What the caller, which holds a slot, does next in `place`. With `give_way` it does not begin
    /// another callback, but goes to the end of the pool's queue.
    pub(crate) fn next(self, place: Place, give_way: bool) -> (Next<T>, Send) {
        let next = self.choose(place, give_way);
        let send = match next {
            Next::End => Send {
                let_go: self.let_go(),
                ..Send::default()
            },
            Next::Move(_) => Send::default(),
            // The only slot is the caller's, or goes with the inbox.
            _ if self.is_open() && !self.has(KEEPS_WORKERS) => Send::default(),
            _ => self.wanted(),
        };
        self.unlock_sending_nobody();
        (next, send)
    }

    #[inline(always)]
    pub(super) fn choose(&self, place: Place, give_way: bool) -> Next<T> {
        if place == Place::Late {
            self.set(LATE);
        }
        loop {
            // Not for each job: posting threads write to the inbox all the time, and each look at
            // it takes its cache line away from them.
            let held_back = self.is_held_back();
            if self.core.queue.is_empty() || held_back {
                self.empty_inbox();
            }
            let job = match self.first(place, held_back) {
                Some(job) => job,
                None => {
                    let alone = self.is_single() || self.core.slots.get() == 1;
                    if self.is_over() && alone {
                        self.core.refs.set(ENDED);
                        return Next::End;
                    }
                    if self.give_slot() {
                        return Next::Leave;
                    }
                    continue;
                }
            };
            let farewell = job.marks() & FAREWELL != 0;
            let there = match job.is_for_loop() {
                true => Place::Loop,
                false => Place::Worker,
            };
            let anywhere = farewell || self.has(CANCELLED);
            if !anywhere && there != place {
                return self.move_to(there);
            }
            if give_way {
                return self.move_to(match place {
                    Place::Worker => Place::Worker,
                    _ => Place::Loop,
                });
            }
            if farewell {
                // SAFETY: linked in a ring of ours.
                unsafe { (*job.link()).unlink() };
                job.set_marks(0);
                add(&self.core.farewells, -1);
                if job.state().is_disposed_of() {
                    return Next::Free(job);
                }
                add(&self.core.running, 1);
                return Next::Farewell(job);
            }
            self.take_out(job);
            if self.has(CANCELLED) {
                if let Some(next) = self.finish_with(job) {
                    return next;
                }
                continue;
            }
            let work = job.state().take_work();
            debug_assert_eq!(work, Work::Run, "what is finished with is not in the queue");
            // SAFETY: just taken out of the queue; unlinked when it is disposed of.
            unsafe { self.core.members.push(job.link()) };
            add(&self.core.running, 1);
            return Next::Run(job);
        }
    }

    /// The job whose turn it is in `place`, or `None`.
    #[inline(always)]
    pub(super) fn first(&self, place: Place, held_back: bool) -> Option<T> {
        let at = self.core;
        if held_back {
            if at.farewells.get() == 0 {
                return None;
            }
            while !self.is_unordered() {
                // SAFETY: what is in the queue is a member's, and live.
                let job = unsafe { T::of_link(at.queue.first()) };
                if job.marks() & FAREWELL != 0 {
                    break;
                }
                // SAFETY: it is linked in `queue`, and after that in no ring.
                unsafe {
                    (*job.link()).unlink();
                    at.held.push(job.link());
                }
            }
        }
        let mut first = at.queue.first();
        if self.is_unordered() && !self.has(CANCELLED) && place != Place::Worker {
            // Done callbacks are in front of the others.
            let farewell = at.farewells.get() > 0;
            if !farewell {
                first = at.held.first();
            }
        }
        // SAFETY: as above.
        (!first.is_null()).then(|| unsafe { T::of_link(first) })
    }

    /// The group is cancelled: finish with `job`, which was in its queue.
    pub(super) fn finish_with(&self, job: T) -> Option<Next<T>> {
        let end = job.state().end_from(self.waiters, true);
        let work = job.state().take_work();
        debug_assert!(end == End::Push && work == Work::Leave);
        if !job.is_own() {
            return Some(Next::Request(job));
        }
        // The caller disposes of it now.
        let _ = job.state().take_request();
        add(&self.core.running, 1);
        Some(Next::Finish(job))
    }

    /// Send the caller's slot on to `place`, unless an agent is on the way there already.
    pub(super) fn move_to(&self, place: Place) -> Next<T> {
        if place == Place::Loop {
            if self.has(IN_LOOP_QUEUE) {
                // A group of width 1 has one agent, which is not there.
                debug_assert!(!self.is_single());
                add(&self.core.slots, -1);
                return Next::Leave;
            }
            self.set(IN_LOOP_QUEUE);
        }
        if !self.is_single() {
            add(&self.core.sent, 1);
        }
        Next::Move(place)
    }

    /// The agents to send, each with its slot.
    #[inline(always)]
    pub(super) fn wanted(&self) -> Send {
        let at = self.core;
        // In most steps the one agent that may serve the group is there already.
        if self.is_open() && self.core.inbox.load(Ordering::Relaxed) != IDLE && !self.has(PARKED) {
            return Send::default();
        }
        if !self.is_single() && at.slots.get() >= at.width && !self.is_unordered() {
            return Send::default();
        }
        self.wanted_slowly()
    }

    #[inline(never)]
    pub(super) fn wanted_slowly(&self) -> Send {
        let at = self.core;
        let mut send = Send::default();
        if at.refs.get() == ENDED {
            return send;
        }
        self.unpark_if_empty();
        let (to_worker, to_loop) = if self.is_over() {
            (self.is_single() || at.slots.get() == 0, false)
        } else if self.is_held_back() {
            (at.farewells.get() > 0, false)
        } else if self.is_unordered() && !self.has(CANCELLED) {
            (!at.queue.is_empty(), !at.held.is_empty())
        } else {
            let first = at.queue.first();
            // SAFETY: what is in the queue is a member's, and live.
            let first = (!first.is_null()).then(|| unsafe { T::of_link(first) });
            let to_loop = first.is_some_and(|job| {
                job.is_for_loop() && job.marks() & FAREWELL == 0 && !self.has(CANCELLED)
            });
            (first.is_some() && !to_loop, to_loop)
        };
        // An agent in the loop's queue takes no job for workers, and the loop may be busy for long.
        let sent = at.sent.get();
        let sent = sent.saturating_sub(u16::from(self.has(IN_LOOP_QUEUE)));
        let jobs = u64::from(at.length.get()) + u64::from(at.farewells.get());
        let enough = sent >= SENT || u64::from(sent) >= jobs && !self.is_over();
        if to_loop && !self.has(IN_LOOP_QUEUE) && self.take_slot() {
            self.set(IN_LOOP_QUEUE);
            send.to_loop = true;
        }
        if to_worker && !enough && self.take_slot() {
            send.to_worker = true;
        }
        if !self.is_single() {
            add(
                &at.sent,
                i64::from(send.to_loop) + i64::from(send.to_worker),
            );
        }
        send.let_go = !self.is_served() && self.let_go();
        send
    }

    /// Whether a slot is held: by an agent, or by a thread that is about to send one.
    pub(super) fn is_served(&self) -> bool {
        if self.is_open() {
            self.core.inbox.load(Ordering::Acquire) != IDLE && !self.has(PARKED)
        } else {
            self.core.slots.get() > 0
        }
    }

    /// Whether the workers have stayed for the group. From now on they need not.
    fn let_go(&self) -> bool {
        let kept = self.has(KEEPS_WORKERS);
        self.clear(KEEPS_WORKERS);
        kept
    }

    /// Free a parked slot once nothing is held back: all of it may have been cancelled, and then
    /// the next job must send an agent.
    fn unpark_if_empty(&self) {
        while self.has(PARKED) {
            self.empty_inbox();
            if !self.core.queue.is_empty() || !self.core.held.is_empty() {
                return;
            }
            perturb("a parked slot has nothing held back, and is not free");
            let freed =
                self.core
                    .inbox
                    .compare_exchange(BUSY, IDLE, Ordering::AcqRel, Ordering::Relaxed);
            if freed.is_ok() {
                self.clear(PARKED);
            }
        }
    }

    /// Whether more than one job waits for its turn.
    pub(crate) fn is_long(&self) -> bool {
        self.empty_inbox();
        u64::from(self.core.length.get()) + u64::from(self.core.farewells.get()) > 1
    }

    /// Take a slot for the caller, which is the loop, if a done callback is next, or the group's end.
    pub(crate) fn take_slot_here(&self, place: Place) -> bool {
        self.empty_inbox();
        let due = match self.first(place, self.is_held_back()) {
            Some(job) => job.marks() & FAREWELL != 0,
            None => self.is_over() && (self.is_single() || self.core.slots.get() == 0),
        };
        due && self.take_slot()
    }
}
