// SPDX-License-Identifier: GPL-3.0-or-later
//! The rule of a group: which of its jobs may run now, and who runs them.
//!
//! A job that fires, or is armed without a trigger, joins the *queue*. An *agent* serves the queue: a
//! worker or the loop, which takes one job after the other, runs each, and leaves when it finds none
//! or has had its turn. Each agent holds a *slot*, and there are no more slots than the group is
//! wide: that is what keeps callbacks apart. A slot goes with the group through the pool's queues, so
//! no thread waits, and no thread owns a group.
//!
//! Everything here happens under the group's lock, which is held for a few dozen instructions. The
//! one exception is a new run-now job for a group of width 1, which is by far the most frequent step:
//! it goes to the *inbox*, a stack, by one compare-and-swap. The races that the protocol survives:
//!
//! * *A job joins the queue just as the last agent leaves.* For width 1 the inbox says whether
//!   anybody holds the slot: it is [`IDLE`], or [`BUSY`], or a stack of jobs. The agent leaves by a
//!   compare-and-swap from `BUSY` to `IDLE`, which fails if a job has come. A thread whose job finds
//!   `IDLE` has taken the slot in the same step and sends an agent. For other widths both steps are
//!   under the lock.
//! * *Cancel against the begin of a callback.* An agent decides to run a job, and moves its state to
//!   RUNNING, under the lock; cancel marks the group under the lock. So when cancel returns, each
//!   callback has begun, and is counted as running, or never begins.
//! * *Cancel, by group or by job, against a job on its way to the queue.* Such a job carries WORK but
//!   is in no list. Whoever disposes of it does not touch its link, and leaves a mark ([`PENDING`])
//!   or DISPOSED; the thread that brings the job finds that and does the rest.
//! * *The last release against an agent.* References are counted under the lock, and only an agent
//!   ends the group, alone: nobody else holds a slot, a reference or the lock.
//!
//! A suspension leaves what fires in the queue. Done callbacks go on: the agent moves the callbacks
//! that are in front of them to `held`, each only once, and the resume puts these back in front.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr;

use super::lock::Lock;
use crate::job::state::{Arm, End, State, Work};
use crate::job::wait::{Outcome, Waiters};
use crate::list::{Link, Ring};
use crate::perturb::perturb;
use crate::sync::{AtomicPtr, AtomicU32, Exclusive, Ordering};

/// The job is in the queue, to be called.
pub(crate) const QUEUED: u8 = 0x80;
/// The job is in the queue for its done callback.
pub(crate) const FAREWELL: u8 = 0x40;
/// The job is on its way to the queue, and was finished with meanwhile: its done callback is due when
/// it arrives.
pub(crate) const PENDING: u8 = 0x01;

/// What a group needs to know of a job, and may do with it.
pub(crate) trait Member: Copy {
    /// Its place in the group's lists. Used under the group's lock.
    fn link(self) -> *const Link;
    /// The job that has this link.
    ///
    /// # Safety
    /// It is that of a live member.
    unsafe fn of_link(link: *const Link) -> Self;
    fn state(&self) -> &State;
    /// Whether its callback runs in the loop.
    fn is_for_loop(&self) -> bool;
    /// Whether whoever ran it may dispose of it: neither poller nor signals know it.
    fn is_own(&self) -> bool;
    /// The marks above. Used under the group's lock.
    fn marks(&self) -> u8;
    fn set_marks(&self, marks: u8);
}

/// Where an agent runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Worker,
    Loop,
    /// In the loop after the workers have left: done callbacks only.
    Late,
}

/// By which way an agent came to its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// From the workers' queue.
    FromWork,
    /// From the loop's queue.
    FromLoop,
    /// It was not sent: it has taken the slot itself.
    Here,
}

/// What an agent does next. It holds its slot, but after [`Next::Leave`].
#[must_use]
pub(crate) enum Next<T> {
    /// Run the callback, which has begun.
    Run(T),
    /// Dispose of the job: call its done callback.
    Farewell(T),
    /// Count the job out and free it: it was disposed of on its way through the inbox.
    Free(T),
    /// Have the loop dispose of the job, which carries REQ. Then ask again.
    Request(T),
    /// Send the group, slot and all, to this queue.
    Move(Place),
    /// Nothing.
    Leave,
    /// The group has ended: call its done callback, free it.
    End,
}

/// The agents to send when the lock was given back. They have their slots.
#[must_use]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(crate) struct Send {
    pub(crate) to_worker: bool,
    pub(crate) to_loop: bool,
}

/// What became of a job that came to the queue, beside being in it.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    Queued,
    /// It was finished with on its way; others see to it.
    Gone,
    /// The same, and the caller is to free it.
    Free,
}

/// Why a new job is not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Cancelled,
    Full,
}

/// In the inbox: nobody holds the slot, and nothing is there.
const IDLE: *mut Link = ptr::null_mut();
/// In the inbox: somebody holds the slot, or it is parked; nothing is there.
const BUSY: *mut Link = ptr::without_provenance_mut(1);
/// In the inbox: cancelled. Slots are counted from here on.
const CLOSED: *mut Link = ptr::without_provenance_mut(2);

fn is_stack(inbox: *mut Link) -> bool {
    inbox.addr() > CLOSED.addr()
}

/// Bits of [`Core::bits`].
const CANCELLED: u8 = 1;
/// The one slot is nobody's, though the inbox says [`BUSY`]: whoever has something for an agent sends
/// one.
const PARKED: u8 = 2;
/// An agent is in the loop's queue.
const IN_LOOP_QUEUE: u8 = 4;
/// Somebody waits until no job is active.
const WAITED: u8 = 8;
/// An agent has found that everything is over.
const ENDED: u8 = 16;
/// The workers have left: no callback begins any more.
const LATE: u8 = 32;

/// Agents on the way at a time. Each that begins sends another, if there is more to do.
const SENT: u16 = 2;

/// See the module. All but the inbox, the lock and the width is used under the lock, and never by
/// `&mut`: what is linked points at the rings.
pub(crate) struct Core<T> {
    inbox: AtomicPtr<Link>,
    /// Jobs to be called, and to be told farewell, in order. If it is unordered: for workers, with
    /// those to be told farewell in front.
    queue: Ring,
    /// Callbacks held back, which were in front of a done callback. If it is unordered: those for
    /// the loop.
    held: Ring,
    /// Jobs that are idle, armed or running.
    members: Ring,
    /// Holds, jobs, and a cancellation that the loop has yet to see to.
    refs: Cell<u32>,
    /// Jobs that are not idle, but those in the inbox.
    active: Cell<u32>,
    /// Callbacks in `queue` and `held`.
    length: Cell<u32>,
    /// Done callbacks in `queue`.
    farewells: Cell<u32>,
    /// How long the queue may get; 0 for no limit.
    limit: AtomicU32,
    suspended: Cell<u16>,
    /// Slots that are held. Not counted while the inbox is open.
    slots: Cell<u16>,
    /// Agents on the way. Not counted for width 1.
    sent: Cell<u16>,
    /// Callbacks and done callbacks that run.
    running: Cell<u16>,
    /// How many slots there are; 0 for no limit, and no order.
    width: u16,
    bits: Cell<u8>,
    lock: Lock,
    exclusive: Exclusive,
    member: PhantomData<T>,
}

// SAFETY: the cells are used under the lock.
unsafe impl<T> Sync for Core<T> {}
// SAFETY: what is linked is live, on whatever thread.
unsafe impl<T> std::marker::Send for Core<T> {}

/// The lock of a group, held.
pub(crate) struct Guard<'a, T> {
    core: &'a Core<T>,
    waiters: &'a Waiters,
}

fn add<N: Copy + Into<u64> + TryFrom<u64>>(cell: &Cell<N>, by: i64) {
    let new = cell.get().into().wrapping_add_signed(by);
    debug_assert!(N::try_from(new).is_ok(), "a count below zero");
    if let Ok(new) = N::try_from(new) {
        cell.set(new);
    }
}

impl<T: Member> Core<T> {
    /// The rule of a group of this width, with one hold. It must not move once it is used.
    pub(crate) fn new(width: usize) -> Self {
        Self {
            inbox: AtomicPtr::new(IDLE),
            queue: Ring::new(),
            held: Ring::new(),
            members: Ring::new(),
            refs: Cell::new(1),
            active: Cell::new(0),
            length: Cell::new(0),
            farewells: Cell::new(0),
            limit: AtomicU32::new(0),
            suspended: Cell::new(0),
            slots: Cell::new(0),
            sent: Cell::new(0),
            running: Cell::new(0),
            // No pool has so many threads.
            width: u16::try_from(width).unwrap_or(u16::MAX),
            bits: Cell::new(0),
            lock: Lock::new(),
            exclusive: Exclusive::new(),
            member: PhantomData,
        }
    }

    /// Whether at most one of its jobs runs at once.
    pub(crate) fn is_single(&self) -> bool {
        self.width == 1
    }

    /// Whether it sets no limit and keeps no order.
    fn is_unordered(&self) -> bool {
        self.width == 0
    }

    /// Whether new jobs are counted against a limit. Without the lock: one that is set meanwhile
    /// counts for the next.
    pub(crate) fn has_limit(&self) -> bool {
        self.limit.load(Ordering::Relaxed) != 0
    }

    /// Callbacks in the queue, without the lock, in a forked child: its threads are gone.
    pub(crate) fn length_in_child(&self) -> u32 {
        self.length.get()
    }

    /// Take the lock.
    #[inline(always)]
    pub(crate) fn lock<'a>(&'a self, waiters: &'a Waiters) -> Guard<'a, T> {
        self.lock.lock(waiters);
        self.exclusive.begin();
        Guard {
            core: self,
            waiters,
        }
    }

    /// A new run-now job, armed and carrying WORK, of which nobody knows, comes to a group of width 1
    /// that has no limit. True if the caller is to send an agent.
    #[inline(always)]
    pub(crate) fn push(&self, job: T) -> Result<bool, Refused> {
        let link = job.link();
        let mut inbox = self.inbox.load(Ordering::Relaxed);
        loop {
            if inbox == CLOSED {
                return Err(Refused::Cancelled);
            }
            // SAFETY: nobody else touches the link of a job that is on its way.
            unsafe { &*link }.chain(inbox);
            match self.inbox.compare_exchange_weak(
                inbox,
                link.cast_mut(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return Ok(inbox == IDLE),
                Err(now) => inbox = now,
            }
        }
    }
}

impl<T: Member> Guard<'_, T> {
    fn has(&self, bit: u8) -> bool {
        self.core.bits.get() & bit != 0
    }

    fn set(&self, bit: u8) {
        self.core.bits.set(self.core.bits.get() | bit);
    }

    fn clear(&self, bit: u8) {
        self.core.bits.set(self.core.bits.get() & !bit);
    }

    /// Whether the inbox tells who has the slot.
    fn is_open(&self) -> bool {
        self.core.is_single() && !self.has(CANCELLED)
    }

    /// Give the lock back, having reserved slots for the agents that are wanted.
    #[inline(always)]
    pub(crate) fn unlock(self) -> Send {
        let send = self.wanted();
        self.unlock_sending_nobody();
        send
    }

    #[inline(always)]
    fn unlock_sending_nobody(self) {
        if self.has(WAITED) && self.is_quiet(0) {
            self.clear(WAITED);
            self.waiters.release_group(self.key());
        }
        self.core.exclusive.end();
        self.core.lock.unlock(self.waiters);
    }

    /// Waiters know the group by this address.
    fn key(&self) -> *const State {
        ptr::from_ref(self.core).cast()
    }

    // ---- The queue.

    /// Take in what is in the inbox.
    fn empty_inbox(&self) {
        if !self.is_open() || !is_stack(self.core.inbox.load(Ordering::Relaxed)) {
            return;
        }
        self.take_in(self.core.inbox.swap(BUSY, Ordering::Acquire));
    }

    /// Take in a stack of jobs, the oldest of which is at its bottom.
    fn take_in(&self, mut stack: *mut Link) {
        let mut oldest: *mut Link = ptr::null_mut();
        while is_stack(stack) {
            // SAFETY: what is on the stack is a member's, and has come to us.
            let link = unsafe { &*stack };
            let next = link.chained();
            link.chain(oldest);
            oldest = stack;
            stack = next;
        }
        while !oldest.is_null() {
            // SAFETY: as above.
            let job = unsafe {
                let next = (*oldest).chained();
                let job = T::of_link(oldest);
                (*oldest).chain(ptr::null_mut());
                oldest = next;
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
    fn set_aside(&self, job: T) {
        job.set_marks(FAREWELL);
        add(&self.core.farewells, 1);
        // SAFETY: in no list, and freed only when it was taken out.
        unsafe { self.core.queue.push(job.link()) };
    }

    /// One more job, idle or not.
    fn count_in(&self, active: bool) {
        add(&self.core.refs, 1);
        add(&self.core.active, i64::from(active));
    }

    /// `job`, which carries WORK, comes to the queue.
    fn arrive(&self, job: T) -> Arrived {
        if job.state().is_armed() {
            // SAFETY: as the member lists say; the link is this group's.
            unsafe { (*job.link()).unlink() };
            job.set_marks(QUEUED);
            add(&self.core.length, 1);
            let ring = if self.core.is_unordered() && job.is_for_loop() && !self.has(CANCELLED) {
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

    fn push_farewell(&self, job: T) {
        job.set_marks(FAREWELL);
        add(&self.core.farewells, 1);
        // SAFETY: in no list, and stays until its done callback has returned.
        unsafe {
            if self.core.is_unordered() {
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
        let armed = job.state().arm(queue, persist);
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
    fn take_out(&self, job: T) {
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

    // ---- Agents.

    /// An agent begins.
    pub(crate) fn begin(&self, came: Came) {
        if came == Came::FromLoop {
            self.clear(IN_LOOP_QUEUE);
        }
        if came != Came::Here && !self.core.is_single() {
            add(&self.core.sent, -1);
        }
    }

    /// Take a slot, if one is free.
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
        let free = self.core.is_unordered() || self.core.slots.get() < self.core.width;
        add(&self.core.slots, i64::from(free));
        free
    }

    /// Give a slot back. False if a job has come to the inbox: then the agent stays.
    fn give_slot(&self) -> bool {
        if !self.is_open() {
            add(&self.core.slots, -1);
            return true;
        }
        if !self.core.queue.is_empty() || !self.core.held.is_empty() {
            // Held back. Nothing that comes needs an agent until somebody says so.
            self.set(PARKED);
            return true;
        }
        perturb("a group's queue is empty, and its slot not given back");
        self.core
            .inbox
            .compare_exchange(BUSY, IDLE, Ordering::AcqRel, Ordering::Relaxed)
            .is_ok()
    }

    /// Whether only done callbacks go on.
    fn is_held_back(&self) -> bool {
        !self.has(CANCELLED) && (self.core.suspended.get() > 0 || self.has(LATE))
    }

    /// Whether everything is over, and the caller, if it is an agent, is the last.
    fn is_over(&self) -> bool {
        self.core.refs.get() == 0 && !self.has(ENDED)
    }

    /// What the caller, which holds a slot, does next in `place`. With `give_way` it does not begin
    /// another callback, but goes to the end of the pool's queue.
    pub(crate) fn next(self, place: Place, give_way: bool) -> (Next<T>, Send) {
        let next = self.choose(place, give_way);
        let send = match next {
            Next::End | Next::Move(_) => Send::default(),
            _ => self.wanted(),
        };
        self.unlock_sending_nobody();
        (next, send)
    }

    fn choose(&self, place: Place, give_way: bool) -> Next<T> {
        if place == Place::Late {
            self.set(LATE);
        }
        loop {
            self.empty_inbox();
            let job = match self.first(place) {
                Some(job) => job,
                None => {
                    let alone = self.core.is_single() || self.core.slots.get() == 1;
                    if self.is_over() && alone {
                        self.set(ENDED);
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

    /// The job whose turn it is in `place`, if any's is.
    fn first(&self, place: Place) -> Option<T> {
        let at = self.core;
        if self.is_held_back() {
            if at.farewells.get() == 0 {
                return None;
            }
            while !self.core.is_unordered() {
                // SAFETY: what is in the queue is a member's, and live.
                let job = unsafe { T::of_link(at.queue.first()) };
                if job.marks() & FAREWELL != 0 {
                    break;
                }
                // SAFETY: linked, then not.
                unsafe {
                    (*job.link()).unlink();
                    at.held.push(job.link());
                }
            }
        }
        let mut first = at.queue.first();
        if self.core.is_unordered() && !self.has(CANCELLED) && place != Place::Worker {
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
    fn finish_with(&self, job: T) -> Option<Next<T>> {
        let end = job.state().end_from(self.waiters, true);
        let work = job.state().take_work();
        debug_assert!(end == End::Push && work == Work::Leave);
        if !job.is_own() {
            return Some(Next::Request(job));
        }
        // The disposal is here and now.
        let _ = job.state().take_request();
        add(&self.core.running, 1);
        Some(Next::Farewell(job))
    }

    /// The caller's slot goes on to `place`, unless an agent is on the way there already.
    fn move_to(&self, place: Place) -> Next<T> {
        if place == Place::Loop {
            if self.has(IN_LOOP_QUEUE) {
                // A group of width 1 has one agent, which is not there.
                debug_assert!(!self.core.is_single());
                add(&self.core.slots, -1);
                return Next::Leave;
            }
            self.set(IN_LOOP_QUEUE);
        }
        if !self.core.is_single() {
            add(&self.core.sent, 1);
        }
        Next::Move(place)
    }

    /// The agents that are to be sent, each with a slot.
    #[inline(always)]
    fn wanted(&self) -> Send {
        let at = self.core;
        // In most steps an agent is there, and the only one that may be.
        if self.is_open() && self.core.inbox.load(Ordering::Relaxed) != IDLE && !self.has(PARKED) {
            return Send::default();
        }
        if !at.is_single() && at.slots.get() >= at.width && !at.is_unordered() {
            return Send::default();
        }
        self.wanted_slowly()
    }

    #[inline(never)]
    fn wanted_slowly(&self) -> Send {
        let at = self.core;
        let mut send = Send::default();
        if self.has(ENDED) {
            return send;
        }
        let (to_worker, to_loop) = if self.is_over() {
            (at.is_single() || at.slots.get() == 0, false)
        } else if self.is_held_back() {
            (at.farewells.get() > 0, false)
        } else if self.core.is_unordered() && !self.has(CANCELLED) {
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
        let enough = at.sent.get() >= SENT
            || u64::from(at.sent.get())
                >= u64::from(at.length.get()) + u64::from(at.farewells.get())
                && !self.is_over();
        if to_loop && !self.has(IN_LOOP_QUEUE) && self.take_slot() {
            self.set(IN_LOOP_QUEUE);
            send.to_loop = true;
        }
        if to_worker && !enough && self.take_slot() {
            send.to_worker = true;
        }
        if !self.core.is_single() {
            add(
                &at.sent,
                i64::from(send.to_loop) + i64::from(send.to_worker),
            );
        }
        send
    }

    /// Whether more than one job waits for its turn.
    pub(crate) fn is_long(&self) -> bool {
        self.empty_inbox();
        u64::from(self.core.length.get()) + u64::from(self.core.farewells.get()) > 1
    }

    /// Take a slot for the caller, which is the loop, if a done callback is next, or the group's end.
    pub(crate) fn take_slot_here(&self, place: Place) -> bool {
        self.empty_inbox();
        let due = match self.first(place) {
            Some(job) => job.marks() & FAREWELL != 0,
            None => self.is_over() && (self.core.is_single() || self.core.slots.get() == 0),
        };
        due && self.take_slot()
    }

    // ---- The application's calls.

    /// One more hold.
    pub(crate) fn hold(&self) {
        add(&self.core.refs, 1);
    }

    /// One hold less. False if there is none.
    pub(crate) fn release(&self) -> bool {
        let held = self.core.refs.get() > 0;
        add(&self.core.refs, -i64::from(held));
        held
    }

    /// The pool is destroyed: nobody can release it any more.
    pub(crate) fn drop_holds(&self) {
        self.core.refs.set(0);
    }

    /// Take in a job that was never armed. False if the group is cancelled.
    pub(crate) fn join(&self, job: T) -> bool {
        self.add(job, false, true).is_ok()
    }

    /// Whether it was cancelled.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.has(CANCELLED)
    }

    /// No callback of its jobs begins any more. True if this call did that: then the caller has the
    /// loop finish with the members, and a reference is held for that.
    pub(crate) fn cancel(&self) -> bool {
        if self.has(CANCELLED) {
            return false;
        }
        let at = self.core;
        let stack = if self.core.is_single() {
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
            // Its callback runs, or its request is on the way: it is disposed of after that.
        }
    }

    /// Put what was held back in front of the rest.
    fn put_back(&self) {
        let at = self.core;
        at.held.append(&at.queue);
        at.queue.append(&at.held);
    }

    /// One more suspension. False if that is too many.
    pub(crate) fn suspend(&self) -> bool {
        let new = self.core.suspended.get().checked_add(1);
        new.is_some_and(|new| {
            self.core.suspended.set(new);
            true
        })
    }

    /// One suspension less. False if there is none.
    pub(crate) fn resume(&self) -> bool {
        let at = self.core;
        let Some(new) = at.suspended.get().checked_sub(1) else {
            return false;
        };
        at.suspended.set(new);
        if new == 0 && !self.core.is_unordered() && !self.has(CANCELLED) {
            self.put_back();
        }
        true
    }

    /// How long the queue may get.
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

    /// How many callbacks of either kind run.
    pub(crate) fn running(&self) -> u32 {
        self.core.running.get().into()
    }

    /// Whether all jobs but so many are idle or gone.
    pub(crate) fn is_quiet(&self, own: u32) -> bool {
        !is_stack(self.core.inbox.load(Ordering::Acquire)) && self.core.active.get() <= own
    }

    /// Wait until no job is active, as [`Waiters::wait`] does; the lock is given back meanwhile.
    pub(crate) fn wait(
        self,
        is_worker: bool,
        deadline: Option<u64>,
        stopped: impl Fn() -> bool,
    ) -> Outcome {
        self.empty_inbox();
        if self.is_quiet(0) {
            let send = self.wanted();
            debug_assert_eq!(send, Send::default());
            self.unlock_sending_nobody();
            return Outcome::Idle;
        }
        self.set(WAITED);
        let (key, waiters) = (self.key(), self.waiters);
        waiters.wait_for_group(key, is_worker, deadline, stopped, || {
            self.unlock_sending_nobody();
        })
    }
}
