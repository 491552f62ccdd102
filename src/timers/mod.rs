// SPDX-License-Identifier: GPL-3.0-or-later
//! Timers: a hierarchical wheel of intrusive rings.
//!
//! Linking, unlinking and firing cost the same however many timers there are, and none of them
//! allocates. Six levels of 256 slots; a slot of the lowest level is one tick of 1024 ns, a slot
//! of each further level 256 of the one below. What lies beyond the highest level (nine years)
//! waits in its last slots and is looked at again from there.
//!
//! A timer that is restarted with a later deadline, as every idle time-out is on every event,
//! stays where it is linked: when that slot comes up the wheel finds the later deadline and moves
//! it. That makes a restart one store. Hence the deadline is an atomic: another thread may write
//! it while the loop looks.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::list::{Link, Ring};
use crate::perturb::perturb;

/// One timer's place in the wheel.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Timer {
    link: Link,
    /// Nanoseconds of the monotonic clock.
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

    /// When it is due, in nanoseconds of the monotonic clock.
    pub(crate) fn deadline(&self) -> u64 {
        self.deadline.load(Ordering::Relaxed)
    }

    /// Set when it is due. If it is linked, not to an earlier time than before.
    pub(crate) fn set_deadline(&self, deadline: u64) {
        self.deadline.store(deadline, Ordering::Relaxed);
    }

    /// Put `timer` last in `ring`, which gives back the very pointer that it was given.
    ///
    /// # Safety
    /// It is not linked, and stays where it is until it is unlinked.
    pub(crate) unsafe fn push_to(timer: NonNull<Self>, ring: &Ring) {
        // SAFETY: by the caller's promise. A `Timer` begins with its link.
        unsafe { ring.push(timer.as_ptr().cast()) };
    }

    /// Unlink the first timer of `ring`, which holds nothing else. It lives until the job does not.
    pub(crate) fn take_first(ring: &Ring) -> Option<NonNull<Self>> {
        let link = NonNull::new(ring.first().cast_mut())?;
        // SAFETY: linked timers are live.
        unsafe { link.as_ref() }.unlink();
        // A `Timer` begins with its link.
        Some(link.cast())
    }

    /// Whether it is in a wheel.
    pub(crate) fn is_linked(&self) -> bool {
        self.link.is_linked()
    }
}

const LEVELS: usize = 6;
const SLOT_BITS: u32 = 8;
const SLOTS: usize = 1 << SLOT_BITS;
/// A tick is 2^10 ns.
const TICK_BITS: u32 = 10;
/// Ticks that the wheel covers.
const SPAN: u64 = 1 << (LEVELS as u32 * SLOT_BITS);
/// A slot is searched for its earliest timer only if it holds no more than this many: beyond,
/// waking once for the slot is cheaper.
const SEARCH: usize = 16;
/// Timers that one look moves to lower levels: when a slot with a million comes up, the others do
/// not wait for that.
const MOVES: usize = if cfg!(miri) { 64 } else { 4096 };

/// The rings of a [`Wheel`], apart from it since timers point at them, and the wheel is changed
/// through `&mut`. All zero, they are empty.
pub(crate) struct Rings {
    slots: [[Ring; SLOTS]; LEVELS],
    /// Taken from a slot of each upper level, and to be linked on lower ones: those of the lowest
    /// first, so that a crowd that comes down from further up keeps nobody waiting.
    moving: [Ring; LEVELS - 1],
    /// Taken from a slot of the lowest level, or due when they were set, and to fire.
    due: Ring,
}

/// All the timers of a loop.
///
/// A timer is linked on the level that its distance from the wheel's tick asks for, in the slot
/// that its tick falls in: a short one never shares a slot with a crowd of long ones. Each level's
/// slots go round, from that of the wheel's tick on. Timers of one slot fire in the order in which
/// they were linked.
pub(crate) struct Wheel {
    /// Everything before this tick has been dealt with.
    tick: u64,
    rings: NonNull<Rings>,
    /// A bit for each slot that may hold something.
    used: [[u64; SLOTS / 64]; LEVELS],
    /// A bit for each level that may hold something.
    used_levels: u32,
    /// What [`Wheel::next`] and [`Wheel::expire`] need to know in most turns, where nothing is due.
    soonest: Soonest,
}

/// [`Soonest::look`], where that is not known.
const UNKNOWN: u64 = 0;

/// Bounds on what a wheel holds. Timers that are removed leave them as they are: too low, which
/// costs one look for nothing.
#[derive(Clone, Copy)]
struct Soonest {
    /// The tick at which the earliest slot begins that holds something.
    start: u64,
    /// When to look again, in nanoseconds of the monotonic clock.
    look: u64,
}

impl Soonest {
    /// Of a wheel that holds nothing.
    const NEVER: Self = Self {
        start: u64::MAX,
        look: u64::MAX,
    };
    /// Not known: to be found out by [`Wheel::next`]. Also while the wheel is busy.
    const UNKNOWN: Self = Self {
        start: 0,
        look: UNKNOWN,
    };
}

/// A slot: its level, its index there, and the tick at which it begins.
#[derive(Clone, Copy)]
struct Slot {
    level: usize,
    index: usize,
    start: u64,
}

impl Slot {
    /// The tick at which the next slot of its level begins.
    fn end(self) -> u64 {
        self.start + (1 << (self.level as u32 * SLOT_BITS))
    }
}

/// The first tick at which something due at `deadline` may fire: rounded up, so never early.
fn tick_of(deadline: u64) -> u64 {
    deadline.div_ceil(1 << TICK_BITS)
}

impl Wheel {
    /// An empty wheel that begins at `now`.
    ///
    /// # Safety
    /// `rings` are empty, and stay for as long as the wheel is used, by it alone. No `&mut` to them
    /// is made meanwhile.
    pub(crate) unsafe fn new(rings: NonNull<Rings>, now: u64) -> Self {
        Self {
            tick: now >> TICK_BITS,
            rings,
            used: [[0; SLOTS / 64]; LEVELS],
            used_levels: 0,
            soonest: Soonest::NEVER,
        }
    }

    // Rings outlive the borrow of the wheel. Each by itself: under Miri a reference to all of them
    // takes as long as there are many.

    /// The timers of a slot.
    fn slot<'a>(&self, level: usize, index: usize) -> &'a Ring {
        // SAFETY: by the promise of `new`.
        unsafe { &(*self.rings.as_ptr()).slots[level][index] }
    }

    /// See [`Rings::moving`].
    fn moving<'a>(&self) -> &'a [Ring; LEVELS - 1] {
        // SAFETY: by the promise of `new`.
        unsafe { &(*self.rings.as_ptr()).moving }
    }

    /// See [`Rings::due`].
    fn due<'a>(&self) -> &'a Ring {
        // SAFETY: by the promise of `new`.
        unsafe { &(*self.rings.as_ptr()).due }
    }

    /// Whether it surely holds nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.used_levels == 0 && !self.is_busy()
    }

    /// Whether something was taken from a slot that did not fire yet, nor was linked again.
    fn is_busy(&self) -> bool {
        !self.due().is_empty() || self.moving().iter().any(|ring| !ring.is_empty())
    }

    /// Count from `begin`: an empty wheel that nobody looked at has stood still. No later than the
    /// first timer was set, so that those that are overdue when they are linked keep the order of
    /// their times.
    pub(crate) fn restart(&mut self, begin: u64) {
        debug_assert!(self.is_empty());
        self.tick = self.tick.max(begin >> TICK_BITS);
    }

    /// Link `timer` by its deadline.
    ///
    /// # Safety
    /// It is live, not linked, and stays where it is until it is unlinked.
    #[inline(always)]
    pub(crate) unsafe fn insert(&mut self, timer: NonNull<Timer>) {
        // SAFETY: by the caller's promise.
        let deadline = unsafe { timer.as_ref() }.deadline();
        let tick = tick_of(deadline).clamp(self.tick, self.tick + SPAN / 2);
        let mut level = ((tick - self.tick) | 1).ilog2() / SLOT_BITS;
        let round = |level: u32| (tick >> (level * SLOT_BITS)) - (self.tick >> (level * SLOT_BITS));
        // A whole round ahead is where the round begins. Not on the top level: half a round is the
        // most.
        if round(level) == SLOTS as u64 {
            level += 1;
        }
        let shift = level * SLOT_BITS;
        let index = (tick >> shift) as usize % SLOTS;
        let level = level as usize;
        self.soonest.start = self.soonest.start.min(tick >> shift << shift);
        self.soonest.look = self.soonest.look.min(tick << TICK_BITS);
        // SAFETY: by the caller's promise.
        unsafe { Timer::push_to(timer, self.slot(level, index)) };
        self.used[level][index / 64] |= 1 << (index % 64);
        self.used_levels |= 1 << level;
    }

    /// Link `timer`, whose deadline has passed, to fire at the next look, behind all of those that
    /// were linked so before.
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

    /// The first slot of `level` from `from` up to `to` that holds something.
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
            // Its timers were removed.
            self.used[level][index / 64] &= !(1 << (index % 64));
            index += 1;
        }
        None
    }

    /// The earliest slot of `level` that holds something.
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

    /// The earliest slot of each level that holds something.
    fn firsts(&mut self) -> [Option<Slot>; LEVELS] {
        std::array::from_fn(|level| {
            let used = self.used_levels & 1 << level != 0;
            used.then(|| self.first_of(level)).flatten()
        })
    }

    /// The earliest slot that holds something; of several, that of the highest level, from which
    /// timers go to the others.
    fn first(&mut self) -> Option<Slot> {
        let firsts = self.firsts();
        firsts
            .into_iter()
            .rev()
            .flatten()
            .min_by_key(|slot| slot.start)
    }

    /// When to look again, in nanoseconds of the monotonic clock: when the earliest timer is due,
    /// or before, where finding that out would cost more than looking twice.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> Option<u64> {
        let look = match self.soonest.look {
            UNKNOWN => self.find_next(),
            known => known,
        };
        (look != Soonest::NEVER.look).then_some(look)
    }

    /// The same, where it is not known.
    #[inline(never)]
    fn find_next(&mut self) -> u64 {
        if self.is_busy() {
            return self.tick << TICK_BITS;
        }
        self.soonest = self.search();
        self.soonest.look
    }

    /// Find out what [`Wheel::soonest`] is to be.
    fn search(&mut self) -> Soonest {
        let mut soonest = Soonest::NEVER;
        for slot in self.firsts().into_iter().flatten() {
            soonest.start = soonest.start.min(slot.start);
            soonest.look = soonest.look.min(self.due_in(slot) << TICK_BITS);
        }
        soonest
    }

    /// The tick at which something in `slot` is due, or `slot` is to be looked at.
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
            // SAFETY: linked timers are live; a `Timer` begins with its link.
            let timer = unsafe { &*link.cast::<Timer>() };
            earliest = earliest.min(tick_of(timer.deadline()));
            link = ring.after(&timer.link);
        }
        slot.start
    }

    /// Unlink every timer that is due at `now` and hand it to `fire`, in the order of their
    /// ticks, until `most` were handed out or too many had to be moved to lower levels:
    /// [`Wheel::next`] tells of more.
    ///
    /// A timer whose deadline was moved is linked anew; one that `live` says is no longer wanted
    /// is unlinked and forgotten. Both get the pointers that were linked.
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
            while most > 0
                && let Some(timer) = Timer::take_first(due)
            {
                // SAFETY: it was linked, so it is live.
                if live(timer) && unsafe { timer.as_ref() }.deadline() <= now {
                    most -= 1;
                    fire(timer);
                } else if live(timer) {
                    perturb("its time was moved, it is unlinked and not linked anew");
                    // SAFETY: just unlinked, and it stays where it is.
                    unsafe { self.insert(timer) };
                }
            }
            while moves > 0
                && let Some(timer) = moving.iter().find_map(Timer::take_first)
            {
                moves -= 1;
                if live(timer) {
                    // SAFETY: as above.
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
            // Nothing is linked before this slot, so time may go on to it; then what is in it
            // goes to lower levels, all of it, or is due.
            next.append(self.slot(slot.level, slot.index));
            self.tick = self.tick.max(slot.start);
        }
        // Whatever is linked is later than `now`: what comes is counted from there.
        self.tick = self.tick.max(end);
    }

    /// Unlink the next timer to be linked on a lower level.
    fn take_moving(&self) -> Option<NonNull<Timer>> {
        self.moving().iter().find_map(Timer::take_first)
    }

    /// Unlink some timer. For taking the wheel apart.
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
