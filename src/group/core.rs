// SPDX-License-Identifier: GPL-3.0-or-later
//! The rule of a group: which of its jobs may run now, and who runs them.
//!
//! A job that fires, or is armed without a trigger, joins the *queue*. An *agent* serves the queue:
//! a worker or the loop, which takes one job after the other, runs each, and leaves when it finds
//! none or has had its turn. Each agent holds a *slot*, and there are no more slots than the group
//! is wide: that limits how many callbacks run at once. A slot goes with the group through the
//! pool's queues, so no thread waits, and no thread owns a group.
//!
//! Everything here happens under the group's lock, which is held for a few dozen instructions. The
//! one exception is a new run-now job for a group of width 1, which is by far the most frequent step:
//! it goes to the *inbox*, a stack, by one compare-and-swap. The races that the protocol survives:
//!
//! * *A job joins the queue just as the last agent leaves.* For width 1 the inbox says whether an
//!   agent holds the slot: it is [`IDLE`], or [`BUSY`], or a stack of jobs. The agent leaves by a
//!   compare-and-swap from `BUSY` to `IDLE`, which fails if a job has come. A thread whose job
//!   finds `IDLE` has taken the slot in the same step and sends an agent. For other widths both
//!   steps are under the lock.
//! * *Cancel against the begin of a callback.* An agent decides to run a job, and moves its state to
//!   RUNNING, under the lock; cancel marks the group under the lock. So when cancel returns, each
//!   callback has begun, and is counted as running, or never begins.
//! * *Cancel, by group or by job, against a job on its way to the queue.* Such a job carries WORK.
//!   It is in `members` or, if it is new or a cancel has already taken it from there, in no list.
//!   If it is in `members`, its farewell is queued at once; if it is in no list, it gets the mark
//!   [`PENDING`]. A job without a done callback is disposed of at once in either case. The thread
//!   that brings the job finds that it is not ARMED, and does the rest.
//! * *The last release against an agent.* References are counted under the lock, and only an agent
//!   ends the group, alone: no other thread holds a slot, a reference or the lock. (`keep_workers`
//!   may hold the lock. But it does so under the lock of the pool's list, which `free_group`
//!   needs.)
//!
//! A suspension leaves what fires in the queue. Done callbacks go on: the agent moves the callbacks
//! that are in front of them to `held`, each only once, and the resume puts these back in front.

use std::cell::Cell;
use std::marker::PhantomData;
use std::ptr;

use super::lock::Lock;
use crate::job::state::State;
use crate::job::wait::Waiters;
use crate::list::{Link, Ring};
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
    /// Whether the thread that ran it may dispose of it: neither the poller nor the signals know
    /// it.
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

/// How an agent came to its slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Came {
    /// From the workers' queue.
    FromWork,
    /// From the loop's queue.
    FromLoop,
    /// It was not sent: it has taken the slot itself.
    Here,
}

/// What an agent does next. It holds its slot, except after [`Next::Leave`].
#[must_use]
pub(crate) enum Next<T> {
    /// Run the callback, which has begun.
    Run(T),
    /// Dispose of the job, which is out of everything else: call its done callback.
    Farewell(T),
    /// The same, for a job that was in the queue of a cancelled group. Nobody has counted it yet.
    Finish(T),
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

/// The agents to send once the lock is released. They have their slots.
#[must_use]
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq)]
pub(crate) struct Send {
    pub(crate) to_worker: bool,
    pub(crate) to_loop: bool,
    /// No agent serves the group any more: the workers need not stay for it. See
    /// [`Guard::keep_workers`].
    pub(crate) let_go: bool,
}

/// What became of a job that came to the queue.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrived {
    Queued,
    /// It was finished with on its way. The caller has nothing left to do.
    Gone,
    /// It was finished with on its way, and the caller must free it.
    Free,
}

/// Why a group refuses a new job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    Cancelled,
    Full,
}

/// In the inbox: no thread holds the slot, and no job is there.
pub(super) const IDLE: *mut Link = ptr::null_mut();
/// In the inbox: a thread holds the slot, or it is parked; no job is there.
pub(super) const BUSY: *mut Link = ptr::without_provenance_mut(1);
/// In the inbox: cancelled. Slots are counted from here on.
pub(super) const CLOSED: *mut Link = ptr::without_provenance_mut(2);

pub(super) fn is_stack(inbox: *mut Link) -> bool {
    inbox.addr() > CLOSED.addr()
}

/// Bits of [`Core::bits`].
pub(super) const CANCELLED: u8 = 1;
/// No thread holds the one slot, though the inbox says [`BUSY`]: the thread that makes a job
/// eligible takes the slot and sends an agent.
pub(super) const PARKED: u8 = 2;
/// An agent is in the loop's queue.
pub(super) const IN_LOOP_QUEUE: u8 = 4;
/// A thread waits until no job is active.
pub(super) const WAITED: u8 = 8;
/// The workers have left: no callback begins any more.
pub(super) const LATE: u8 = 32;
/// The pool shuts down, and its workers stay until no agent serves the group.
pub(super) const KEEPS_WORKERS: u8 = 64;
/// At most one job runs at once. This bit and the next never change: they tell agents the width
/// without a look at the cache line that posts write to.
pub(super) const SINGLE: u8 = 16;
/// The group sets no limit and keeps no order.
pub(super) const UNORDERED: u8 = 128;

/// Agents on the way at a time. Each that begins sends another, if there is more to do.
pub(super) const SENT: u16 = 2;

/// What the count of references says when an agent has found that everything is over.
pub(super) const ENDED: u32 = u32::MAX;

/// See the module. All but the inbox, the lock and the width is used under the lock, and never by
/// `&mut`: what is linked points at the rings.
///
/// The fields that posting threads use come first, with the group's constants. Those that agents
/// use for each job come last, from `queue` on. So the two seldom write to the same cache line.
#[repr(C)]
pub(crate) struct Core<T> {
    pub(super) inbox: AtomicPtr<Link>,
    /// How long the queue may get; 0 for no limit.
    pub(super) limit: AtomicU32,
    /// How many slots there are; 0 for no limit, and no order.
    pub(super) width: u16,
    /// Agents on the way. Not counted for width 1.
    pub(super) sent: Cell<u16>,
    /// Callbacks held back, which were in front of a done callback. If the group is unordered:
    /// those for the loop.
    pub(super) held: Ring,
    /// Jobs whose callback or done callback is due, in order. If the group is unordered: those for
    /// workers, with due done callbacks in front.
    pub(super) queue: Ring,
    /// Jobs that are idle, armed or running.
    pub(super) members: Ring,
    /// Holds, jobs, and a cancellation that the loop has not carried out yet.
    pub(super) refs: Cell<u32>,
    /// Jobs that are not idle, not counting those in the inbox.
    pub(super) active: Cell<u32>,
    /// Callbacks in `queue` and `held`.
    pub(super) length: Cell<u32>,
    /// Done callbacks in `queue`.
    pub(super) farewells: Cell<u32>,
    pub(super) suspended: Cell<u16>,
    /// Slots that are held. Not counted while the inbox is open.
    pub(super) slots: Cell<u16>,
    /// Callbacks and done callbacks that are running.
    pub(super) running: Cell<u16>,
    pub(super) bits: Cell<u8>,
    pub(super) lock: Lock,
    pub(super) exclusive: Exclusive,
    pub(super) member: PhantomData<T>,
}

// SAFETY: the cells are used under the lock.
unsafe impl<T> Sync for Core<T> {}
// SAFETY: what is linked is live, on whatever thread.
unsafe impl<T> std::marker::Send for Core<T> {}

/// The lock of a group, held.
pub(crate) struct Guard<'a, T> {
    pub(super) core: &'a Core<T>,
    pub(super) waiters: &'a Waiters,
}

/// Add `by` to a count, which does not get below zero.
#[inline(always)]
pub(super) fn add<N: Copy + Into<i64> + Count>(cell: &Cell<N>, by: i64) {
    let new = cell.get().into() + by;
    debug_assert!(N::new(new).into() == new, "a count below zero");
    cell.set(N::new(new));
}

/// What counts are.
pub(super) trait Count {
    /// The lowest bits of `value`.
    fn new(value: i64) -> Self;
}

impl Count for u32 {
    fn new(value: i64) -> Self {
        value as Self
    }
}

impl Count for u16 {
    fn new(value: i64) -> Self {
        value as Self
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
            bits: Cell::new(match width {
                0 => UNORDERED,
                1 => SINGLE,
                _ => 0,
            }),
            lock: Lock::new(),
            exclusive: Exclusive::new(),
            member: PhantomData,
        }
    }

    /// Whether at most one of its jobs runs at once.
    pub(crate) fn is_single(&self) -> bool {
        self.width == 1
    }

    /// Whether new jobs are counted against a limit. Without the lock: one that is set meanwhile
    /// counts for the next.
    pub(crate) fn has_limit(&self) -> bool {
        self.limit.load(Ordering::Relaxed) != 0
    }

    /// Callbacks in the queue, without the lock, in a forked child: its threads are gone. What one of
    /// them was moving at the fork may be missing.
    pub(crate) fn length_in_child(&self) -> usize {
        let mut length = self.length.get() as usize;
        let mut link = self.inbox.load(Ordering::Acquire);
        while is_stack(link) {
            length += 1;
            // SAFETY: what is on the stack is live: nobody in this process takes it from there.
            link = unsafe { &*link }.chained();
        }
        if self.bits.get() & CANCELLED == 0 {
            length
        } else {
            0
        }
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

    /// Adds a new run-now job, armed and carrying WORK, which no other thread knows, to a group of
    /// width 1 that has no limit. True if the caller must send an agent.
    #[inline(always)]
    pub(crate) fn push(&self, job: T) -> Result<bool, Refused> {
        let link = job.link();
        let mut inbox = self.inbox.load(Ordering::Relaxed);
        loop {
            if inbox == CLOSED {
                return Err(Refused::Cancelled);
            }
            // SAFETY: no other thread touches the link of a new job that is on its way.
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
    pub(super) fn has(&self, bit: u8) -> bool {
        self.core.bits.get() & bit != 0
    }

    pub(super) fn set(&self, bit: u8) {
        self.core.bits.set(self.core.bits.get() | bit);
    }

    pub(super) fn clear(&self, bit: u8) {
        self.core.bits.set(self.core.bits.get() & !bit);
    }

    /// Whether at most one of its jobs runs at once.
    pub(super) fn is_single(&self) -> bool {
        self.has(SINGLE)
    }

    /// Whether it sets no limit and keeps no order.
    pub(super) fn is_unordered(&self) -> bool {
        self.has(UNORDERED)
    }

    /// Whether the inbox tells who has the slot.
    pub(super) fn is_open(&self) -> bool {
        self.core.bits.get() & (SINGLE | CANCELLED) == SINGLE
    }

    /// Reserve slots for the agents that are wanted, and release the lock.
    #[inline(always)]
    pub(crate) fn unlock(self) -> Send {
        let send = self.wanted();
        self.unlock_sending_nobody();
        send
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.has(CANCELLED)
    }

    #[inline(always)]
    pub(super) fn unlock_sending_nobody(self) {
        if self.has(WAITED) && self.is_quiet(0) {
            self.clear(WAITED);
            self.waiters.release_group(self.key());
        }
        self.core.exclusive.end();
        self.core.lock.unlock(self.waiters);
    }

    /// Waiters know the group by this address.
    pub(super) fn key(&self) -> *const State {
        ptr::from_ref(self.core).cast()
    }
}
