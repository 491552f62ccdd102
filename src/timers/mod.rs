// SPDX-License-Identifier: GPL-3.0-or-later
//! Timers: a hierarchical timing wheel of intrusive rings.
//!
//! The cost of linking, unlinking and firing a timer does not depend on how many there are, and
//! none of them allocates. The wheel has six levels of 256 slots. A slot of the lowest level is one
//! tick of 1024 ns long, and a slot of any other level is 256 times as long as one of the level
//! below. A timer beyond the reach of the highest level (nine years) waits in one of its last
//! slots, and is linked again from there.
//!
//! Many timers are restarted with a later deadline, such as an idle time-out at every event. The
//! timer stays in its slot. When the slot comes up, the wheel finds the later deadline and moves
//! the timer. So a restart is a single store. The deadline is an atomic because another thread may
//! store it while the loop reads it.

pub(crate) mod layout;

use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::list::{Link, Ring};
use crate::perturb::perturb;

/// A timer, which one wheel can link.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Timer {
    link: Link,
    /// The deadline in nanoseconds of the monotonic clock.
    deadline: AtomicU64,
}

impl Timer {
    /// A timer that is not linked.
    pub(crate) const fn new() -> Self {
        Self {
            link: Link::new(),
            deadline: AtomicU64::new(0),
        }
    }

    /// The deadline, in nanoseconds of the monotonic clock.
    pub(crate) fn deadline(&self) -> u64 {
        self.deadline.load(Ordering::Relaxed)
    }

    /// Set the deadline. If the timer is linked, the new deadline must not be earlier than the old.
    pub(crate) fn set_deadline(&self, deadline: u64) {
        self.deadline.store(deadline, Ordering::Relaxed);
    }

    /// Append `timer` to `ring`, which later returns this very pointer.
    ///
    /// # Safety
    /// `timer` is not linked, and does not move until it is unlinked.
    pub(crate) unsafe fn push_to(timer: NonNull<Self>, ring: &Ring) {
        // SAFETY: by the caller's promise. `Timer` is `repr(C)` and begins with its link, so the
        // pointer is valid for both.
        unsafe { ring.push(timer.as_ptr().cast()) };
    }

    /// Unlink the first timer of `ring`, which must hold only timers. The timer lives as long as
    /// its job.
    pub(crate) fn take_first(ring: &Ring) -> Option<NonNull<Self>> {
        let link = NonNull::new(ring.first().cast_mut())?;
        // SAFETY: linked timers are live.
        unsafe { link.as_ref() }.unlink();
        // A `Timer` begins with its link.
        Some(link.cast())
    }

    /// Whether a ring links it.
    pub(crate) fn is_linked(&self) -> bool {
        self.link.is_linked()
    }
}

const LEVELS: usize = 6;
const SLOT_BITS: u32 = 8;
const SLOTS: usize = 1 << SLOT_BITS;
/// A tick is 2^10 ns long.
const TICK_BITS: u32 = 10;
/// How many ticks the wheel covers.
const SPAN: u64 = 1 << (LEVELS as u32 * SLOT_BITS);
/// The wheel searches a slot for its earliest timer only up to this many timers. In a fuller slot,
/// one extra wake-up is cheaper.
const SEARCH: usize = 16;
/// How many timers one call of [`Wheel::expire`] moves to lower levels at most, so that a slot of a
/// million timers does not delay all others.
const MOVES: usize = if cfg!(miri) { 64 } else { 4096 };

/// The rings of a [`Wheel`]. They are a separate allocation because timers point to them while the
/// wheel is changed through `&mut`. All zero is a valid value: empty rings.
pub(crate) struct Rings {
    slots: [[Ring; SLOTS]; LEVELS],
    /// For each upper level, the timers that were taken from a slot and still have to be linked on
    /// a lower level. The lowest level goes first, so that a crowd from higher up delays nobody.
    moving: [Ring; LEVELS - 1],
    /// Timers to fire: they were taken from a slot of the lowest level, or were due when they were
    /// linked.
    due: Ring,
}

impl Rings {
    /// The timers of ring number `index`; `None` if there are no more. A ring to which the timers of
    /// another move has a higher number.
    pub(crate) fn ring(
        &self,
        index: usize,
    ) -> Option<impl Iterator<Item = NonNull<Timer>> + use<>> {
        // A level has its slots, then the ring of those that move down.
        let (level, at) = (index / (SLOTS + 1), index % (SLOTS + 1));
        let ring = match (LEVELS.checked_sub(level + 1)?, at) {
            (level, at) if at < SLOTS => &self.slots[level][at],
            (0, _) => &self.due,
            (level, _) => &self.moving[level - 1],
        };
        let (mut link, ring) = (ring.first(), ptr::from_ref(ring));
        Some(std::iter::from_fn(move || {
            let timer = NonNull::new(link.cast_mut())?;
            // SAFETY: linked timers are live, and so is the ring while they are.
            link = unsafe { (*ring).after(timer.as_ref()) };
            // A `Timer` begins with its link.
            Some(timer.cast())
        }))
    }
}

/// All the timers of a loop.
///
/// The distance of a timer from the wheel's tick selects the level, and the timer's own tick
/// selects the slot. So a short timer never shares a slot with a crowd of long ones. The slots of
/// each level are circular, beginning at the slot of the wheel's tick. Timers of one slot fire in
/// the order in which they were linked.
pub(crate) struct Wheel {
    /// All timers before this tick have been handled.
    tick: u64,
    rings: NonNull<Rings>,
    /// One bit per slot, set if the slot may hold a timer.
    used: [[u64; SLOTS / 64]; LEVELS],
    /// One bit per level, set if the level may hold a timer.
    used_levels: u32,
    /// All that [`Wheel::next`] and [`Wheel::expire`] need in the usual turn, in which nothing is
    /// due.
    soonest: Soonest,
}

/// The value of [`Soonest::check_at`] that means: not known.
const UNKNOWN: u64 = 0;

/// Lower bounds on the times of the linked timers. Removing a timer leaves them too low, which
/// costs one check in vain.
#[derive(Clone, Copy)]
struct Soonest {
    /// The tick at which the earliest used slot begins.
    start: u64,
    /// When to check the wheel again, in nanoseconds of the monotonic clock.
    check_at: u64,
}

impl Soonest {
    /// The bounds of an empty wheel.
    const NEVER: Self = Self {
        start: u64::MAX,
        check_at: u64::MAX,
    };
    /// Not known: [`Wheel::next`] must find out. Also used while the wheel is busy.
    const UNKNOWN: Self = Self {
        start: 0,
        check_at: UNKNOWN,
    };
}

/// A slot: its level, its index on that level, and the tick at which it begins.
#[derive(Clone, Copy)]
struct Slot {
    level: usize,
    index: usize,
    start: u64,
}

impl Slot {
    /// The tick at which the next slot of this level begins.
    fn end(self) -> u64 {
        self.start + (1 << (self.level as u32 * SLOT_BITS))
    }
}

/// The first tick at which a timer with this deadline may fire. Rounded up, so that it is never
/// early.
fn tick_of(deadline: u64) -> u64 {
    deadline.div_ceil(1 << TICK_BITS)
}

impl Wheel {
    /// Make an empty wheel that begins at `now`.
    ///
    /// # Safety
    /// `rings` are empty, and outlive the wheel. Only this wheel uses them, and nobody makes a
    /// `&mut` to them meanwhile.
    pub(crate) unsafe fn new(rings: NonNull<Rings>, now: u64) -> Self {
        Self {
            tick: now >> TICK_BITS,
            rings,
            used: [[0; SLOTS / 64]; LEVELS],
            used_levels: 0,
            soonest: Soonest::NEVER,
        }
    }

    // The rings outlive the borrow of the wheel. These functions borrow no more than they need:
    // under Miri, a reference to all rings costs time in proportion to their number.

    /// The ring of a slot.
    fn slot<'a>(&self, level: usize, index: usize) -> &'a Ring {
        // SAFETY: the caller of `new` promised that the rings outlive the wheel and that nobody
        // makes a `&mut` to them.
        unsafe { &(*self.rings.as_ptr()).slots[level][index] }
    }

    /// See [`Rings::moving`].
    fn moving<'a>(&self) -> &'a [Ring; LEVELS - 1] {
        // SAFETY: the caller of `new` promised that the rings outlive the wheel and that nobody
        // makes a `&mut` to them.
        unsafe { &(*self.rings.as_ptr()).moving }
    }

    /// See [`Rings::due`].
    fn due<'a>(&self) -> &'a Ring {
        // SAFETY: the caller of `new` promised that the rings outlive the wheel and that nobody
        // makes a `&mut` to them.
        unsafe { &(*self.rings.as_ptr()).due }
    }

    /// Whether the wheel is certainly empty. It may be empty even if this is false.
    pub(crate) fn is_empty(&self) -> bool {
        self.used_levels == 0 && !self.is_busy()
    }

    /// Whether timers were taken from a slot but have neither fired nor been linked again.
    fn is_busy(&self) -> bool {
        !self.due().is_empty() || self.moving().iter().any(|ring| !ring.is_empty())
    }

    /// Move the tick of an empty wheel, which stood still, to `begin`. That must not be later than
    /// the time at which the first timer was set: timers that are overdue when they are linked then
    /// keep the order of their deadlines.
    pub(crate) fn restart(&mut self, begin: u64) {
        debug_assert!(self.is_empty());
        self.tick = self.tick.max(begin >> TICK_BITS);
    }

    /// Link `timer` by its deadline.
    ///
    /// # Safety
    /// `timer` is live and not linked, and does not move until it is unlinked.
    #[inline(always)]
    pub(crate) unsafe fn insert(&mut self, timer: NonNull<Timer>) {
        // SAFETY: by the caller's promise.
        let deadline = unsafe { timer.as_ref() }.deadline();
        let tick = tick_of(deadline).clamp(self.tick, self.tick + SPAN / 2);
        let mut level = ((tick - self.tick) | 1).ilog2() / SLOT_BITS;
        let round = |level: u32| (tick >> (level * SLOT_BITS)) - (self.tick >> (level * SLOT_BITS));
        // A whole round ahead would be the slot of the current tick: use the next level. This
        // cannot occur on the top level, where a timer is at most half a round ahead.
        if round(level) == SLOTS as u64 {
            level += 1;
        }
        let shift = level * SLOT_BITS;
        let index = (tick >> shift) as usize % SLOTS;
        let level = level as usize;
        self.soonest.start = self.soonest.start.min(tick >> shift << shift);
        self.soonest.check_at = self.soonest.check_at.min(tick << TICK_BITS);
        // SAFETY: by the caller's promise.
        unsafe { Timer::push_to(timer, self.slot(level, index)) };
        self.used[level][index / 64] |= 1 << (index % 64);
        self.used_levels |= 1 << level;
    }

    /// Link `timer`, whose deadline has passed. It fires in the next call of [`Wheel::expire`],
    /// after all timers that were linked in this way before.
    ///
    /// # Safety
    /// As for [`Wheel::insert`].
    pub(crate) unsafe fn insert_due(&mut self, timer: NonNull<Timer>) {
        // SAFETY: by the caller's promise.
        unsafe { Timer::push_to(timer, self.due()) };
        self.soonest = Soonest::UNKNOWN;
    }

    /// Unlink `timer`, if it is linked.
    pub(crate) fn remove(timer: &Timer) {
        timer.link.unlink();
    }

    /// The first slot of `level` from `from` to before `to` that holds a timer.
    fn used_slot(&mut self, level: usize, from: usize, to: usize) -> Option<usize> {
        let mut index = from;
        while index < to {
            let word = self.used[level][index / 64] >> (index % 64);
            if word == 0 {
                index = (index / 64 + 1) * 64;
                continue;
            }
            index += word.trailing_zeros() as usize;
            if index >= to {
                break;
            }
            if !self.slot(level, index).is_empty() {
                return Some(index);
            }
            // All of its timers were removed.
            self.used[level][index / 64] &= !(1 << (index % 64));
            index += 1;
        }
        None
    }

    /// The earliest slot of `level` that holds a timer.
    fn first_of(&mut self, level: usize) -> Option<Slot> {
        let shift = level as u32 * SLOT_BITS;
        let here = (self.tick >> shift) as usize % SLOTS;
        let found = self.used_slot(level, here, SLOTS);
        let Some(index) = found.or_else(|| self.used_slot(level, 0, here)) else {
            self.used_levels &= !(1 << level);
            return None;
        };
        let ahead = (index + SLOTS - here) % SLOTS;
        let start = ((self.tick >> shift) + ahead as u64) << shift;
        Some(Slot {
            level,
            index,
            start,
        })
    }

    /// For each level, the earliest slot that holds a timer.
    fn firsts(&mut self) -> [Option<Slot>; LEVELS] {
        std::array::from_fn(|level| {
            let used = self.used_levels & 1 << level != 0;
            used.then(|| self.first_of(level)).flatten()
        })
    }

    /// The earliest slot that holds a timer. If several begin at the same tick, the one on the
    /// highest level, since its timers move to the others.
    fn first(&mut self) -> Option<Slot> {
        let firsts = self.firsts();
        firsts
            .into_iter()
            .rev()
            .flatten()
            .min_by_key(|slot| slot.start)
    }

    /// Have [`Wheel::next`] find out anew, since timers may have been removed.
    pub(crate) fn look_anew(&mut self) {
        if self.soonest.check_at != u64::MAX {
            self.soonest = Soonest::UNKNOWN;
        }
    }

    /// When to check the wheel again, in nanoseconds of the monotonic clock: when the earliest
    /// timer is due, or earlier, if finding that out would cost more than one extra check.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<u64> {
        let check_at = match self.soonest.check_at {
            UNKNOWN => self.find_next(),
            known => known,
        };
        (check_at != Soonest::NEVER.check_at).then_some(check_at)
    }

    /// As [`Wheel::next`], when the answer is not known yet.
    #[inline(never)]
    fn find_next(&mut self) -> u64 {
        if self.is_busy() {
            return self.tick << TICK_BITS;
        }
        self.soonest = self.search();
        self.soonest.check_at
    }

    /// Compute [`Wheel::soonest`].
    fn search(&mut self) -> Soonest {
        let mut soonest = Soonest::NEVER;
        for slot in self.firsts().into_iter().flatten() {
            soonest.start = soonest.start.min(slot.start);
            soonest.check_at = soonest.check_at.min(self.due_in(slot) << TICK_BITS);
        }
        soonest
    }

    /// The tick at which the first timer in `slot` is due, or at which `slot` must be checked.
    fn due_in(&self, slot: Slot) -> u64 {
        if slot.level == 0 {
            return slot.start;
        }
        let ring = self.slot(slot.level, slot.index);
        let mut earliest = slot.end();
        let mut link = ring.first();
        for _ in 0..SEARCH {
            if link.is_null() {
                return earliest;
            }
            // SAFETY: a linked timer is live, and a `Timer` begins with its link.
            let timer = unsafe { &*link.cast::<Timer>() };
            earliest = earliest.min(tick_of(timer.deadline()));
            link = ring.after(&timer.link);
        }
        slot.start
    }

    /// Unlink every timer that is due at `now` and pass it to `fire`, in the order of their ticks.
    /// This stops after `most` timers, or after moving too many to lower levels; [`Wheel::next`]
    /// then reports that there are more.
    ///
    /// If the deadline of a timer has moved, it is linked again. If `live` returns false, the timer
    /// is unlinked and dropped. `live` and `fire` get the pointers that were linked.
    // As part of a turn: in most, nothing is due.
    #[inline(always)]
    pub(crate) fn expire(
        &mut self,
        now: u64,
        mut most: usize,
        live: impl Fn(NonNull<Timer>) -> bool,
        mut fire: impl FnMut(NonNull<Timer>),
    ) {
        let end = now >> TICK_BITS;
        if end < self.soonest.start {
            self.tick = self.tick.max(end);
            return;
        }
        self.soonest = Soonest::UNKNOWN;
        let mut moves = MOVES;
        let (due, moving) = (self.due(), self.moving());
        loop {
            while most > 0 {
                let Some(timer) = Timer::take_first(due) else {
                    break;
                };
                // SAFETY: it was linked until now, so it is live.
                if live(timer) && unsafe { timer.as_ref() }.deadline() <= now {
                    most -= 1;
                    fire(timer);
                } else if live(timer) {
                    perturb("its time was moved, it is unlinked and not linked anew");
                    // SAFETY: it has just been unlinked, and its owner does not move it.
                    unsafe { self.insert(timer) };
                }
            }
            while moves > 0 {
                let Some(timer) = moving.iter().find_map(Timer::take_first) else {
                    break;
                };
                moves -= 1;
                if live(timer) {
                    // SAFETY: as above: it has just been unlinked, and its owner does not move it.
                    unsafe { self.insert(timer) };
                }
            }
            let Some(slot) = self.first() else { break };
            if slot.start > end {
                break;
            }
            let next = match slot.level {
                0 => due,
                level => &moving[level - 1],
            };
            if most == 0 || slot.level > 0 && !next.is_empty() {
                return;
            }
            // No timer is linked before this slot, so the tick may advance to it. Then all timers
            // in it are due or move to lower levels.
            next.append(self.slot(slot.level, slot.index));
            self.tick = self.tick.max(slot.start);
        }
        // All linked timers are later than `now`, so the tick may advance to it.
        self.tick = self.tick.max(end);
    }

    /// Unlink the next timer that has to move to a lower level.
    fn take_moving(&self) -> Option<NonNull<Timer>> {
        self.moving().iter().find_map(Timer::take_first)
    }

    /// Unlink any timer, for emptying the wheel.
    pub(crate) fn take_any(&mut self) -> Option<NonNull<Timer>> {
        Timer::take_first(self.due())
            .or_else(|| self.take_moving())
            .or_else(|| {
                let slot = self.first()?;
                Timer::take_first(self.slot(slot.level, slot.index))
            })
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
