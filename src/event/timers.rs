// SPDX-License-Identifier: GPL-3.0-or-later
//! Timers: a hierarchical wheel of intrusive lists.
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

use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::list::{Head, Node};

/// One timer's place in the wheel.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Timer {
    node: Node,
    /// Nanoseconds of the monotonic clock.
    deadline: AtomicU64,
}

impl Timer {
    /// A timer that is not linked.
    pub(crate) const fn new() -> Self {
        Self {
            node: Node::new(),
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

    /// Put it in `list`.
    ///
    /// # Safety
    /// It is not linked, and stays where it is until it is unlinked.
    pub(crate) unsafe fn push_to(&self, list: &Head) {
        // SAFETY: by the caller's promise.
        unsafe { list.push(&raw const self.node) };
    }

    /// The first timer in `list`, which holds nothing else.
    pub(crate) fn first_of(list: &Head) -> Option<*const Self> {
        // A `Timer` begins with its node.
        (!list.is_empty()).then(|| list.first().cast())
    }

    /// Whether it is in a wheel.
    pub(crate) fn is_linked(&self) -> bool {
        self.node.is_linked()
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

/// All the timers of a loop. It must not move while a timer is linked.
///
/// A timer is linked on the level at which its tick first differs from the wheel's own, so that
/// everything on a level comes before everything on the levels above.
pub(crate) struct Wheel {
    /// Everything before this tick has been dealt with.
    tick: u64,
    slots: [[Head; SLOTS]; LEVELS],
    /// A bit for each slot that may hold something.
    used: [[u64; SLOTS / 64]; LEVELS],
    /// A bit for each level that may hold something.
    used_levels: u32,
    /// What [`Wheel::next`] and [`Wheel::expire`] need to know in most turns, where nothing is due.
    soonest: Soonest,
}

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
    /// Not known: to be found out by [`Wheel::next`].
    const UNKNOWN: Self = Self { start: 0, look: 0 };
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
    pub(crate) fn new(now: u64) -> Self {
        Self {
            tick: now >> TICK_BITS,
            slots: [const { [const { Head::new() }; SLOTS] }; LEVELS],
            used: [[0; SLOTS / 64]; LEVELS],
            used_levels: 0,
            soonest: Soonest::NEVER,
        }
    }

    /// Whether it surely holds nothing.
    pub(crate) fn is_empty(&self) -> bool {
        self.used_levels == 0
    }

    /// Count from `now`: an empty wheel that nobody looked at has stood still.
    pub(crate) fn restart(&mut self, now: u64) {
        debug_assert!(self.is_empty());
        self.tick = self.tick.max(now >> TICK_BITS);
    }

    /// Link `timer` by its deadline.
    ///
    /// # Safety
    /// It is not linked, and stays where it is until it is unlinked.
    pub(crate) unsafe fn insert(&mut self, timer: *const Timer) {
        // SAFETY: live by the caller's promise.
        let deadline = unsafe { (*timer).deadline() };
        let tick = tick_of(deadline).clamp(self.tick, self.tick + SPAN / 2);
        let differ = (tick ^ self.tick) | 1;
        // What differs above the top level is on it all the same: its slots go round, and half a
        // round ahead is the most that `tick` can be.
        let level = (differ.ilog2() / SLOT_BITS).min(LEVELS as u32 - 1);
        let shift = level * SLOT_BITS;
        let index = (tick >> shift) as usize % SLOTS;
        let level = level as usize;
        self.soonest.start = self.soonest.start.min(tick >> shift << shift);
        self.soonest.look = self.soonest.look.min(tick << TICK_BITS);
        // SAFETY: by the caller's promise. A `Timer` begins with its node.
        unsafe { self.slots[level][index].push(timer.cast::<Node>()) };
        self.used[level][index / 64] |= 1 << (index % 64);
        self.used_levels |= 1 << level;
    }

    /// Unlink `timer`, if it is linked.
    pub(crate) fn remove(timer: &Timer) {
        timer.node.unlink();
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
            if !self.slots[level][index].is_empty() {
                return Some(index);
            }
            // Its timers were removed.
            self.used[level][index / 64] &= !(1 << (index % 64));
            index += 1;
        }
        None
    }

    /// The earliest slot that holds something.
    fn first(&mut self) -> Option<Slot> {
        while self.used_levels != 0 {
            let level = self.used_levels.trailing_zeros() as usize;
            let shift = level as u32 * SLOT_BITS;
            let here = (self.tick >> shift) as usize % SLOTS;
            let mut found = self.used_slot(level, here, SLOTS);
            if found.is_none() && level == LEVELS - 1 {
                // Only the top level goes round.
                found = self.used_slot(level, 0, here);
            }
            if let Some(index) = found {
                let ahead = (index + SLOTS - here) % SLOTS;
                let start = ((self.tick >> shift) + ahead as u64) << shift;
                return Some(Slot {
                    level,
                    index,
                    start,
                });
            }
            self.used_levels &= !(1 << level);
        }
        None
    }

    /// When to look again, in nanoseconds of the monotonic clock: when the earliest timer is due,
    /// or before, where finding that out would cost more than looking twice.
    pub(crate) fn next(&mut self) -> Option<u64> {
        if self.soonest.look == Soonest::UNKNOWN.look {
            self.soonest = self.search();
        }
        (self.soonest.look != Soonest::NEVER.look).then_some(self.soonest.look)
    }

    /// Find out what [`Wheel::soonest`] is to be.
    fn search(&mut self) -> Soonest {
        let Some(slot) = self.first() else {
            return Soonest::NEVER;
        };
        let start = slot.start;
        let look = self.due_in(slot) << TICK_BITS;
        Soonest { start, look }
    }

    /// The tick at which something in `slot`, the earliest, is due, or `slot` is to be looked at.
    fn due_in(&self, slot: Slot) -> u64 {
        if slot.level == 0 {
            return slot.start;
        }
        let mut earliest = slot.end();
        let mut node = self.slots[slot.level][slot.index].first();
        for _ in 0..SEARCH {
            if node.is_null() {
                return earliest;
            }
            // SAFETY: linked timers are live; a `Timer` begins with its node.
            let timer = unsafe { &*node.cast::<Timer>() };
            earliest = earliest.min(tick_of(timer.deadline()));
            node = timer.node.next();
        }
        slot.start
    }

    /// Unlink every timer that is due at `now` and hand it to `fire`, in the order of their
    /// ticks, until `most` were handed out: [`Wheel::next`] tells of more.
    ///
    /// A timer whose deadline was moved is linked anew; one that `live` says is no longer wanted
    /// is unlinked and forgotten.
    pub(crate) fn expire(
        &mut self,
        now: u64,
        mut most: usize,
        live: impl Fn(*const Timer) -> bool,
        mut fire: impl FnMut(*const Timer),
    ) {
        let end = now >> TICK_BITS;
        if end < self.soonest.start {
            self.tick = self.tick.max(end);
            return;
        }
        self.soonest = Soonest::UNKNOWN;
        while let Some(slot) = self.first() {
            if slot.start > end {
                break;
            }
            // Nothing is linked before this slot, so time may go on to it; then what is in it
            // goes to lower levels, all of it, or is due.
            self.tick = self.tick.max(slot.start);
            loop {
                let node = self.slots[slot.level][slot.index].first();
                if node.is_null() {
                    break;
                }
                if slot.level == 0 && most == 0 {
                    return;
                }
                // SAFETY: linked timers are live; a `Timer` begins with its node.
                let timer = unsafe { &*node.cast::<Timer>() };
                timer.node.unlink();
                if !live(timer) {
                    continue;
                }
                if slot.level == 0 && timer.deadline() <= now {
                    most -= 1;
                    fire(timer);
                } else {
                    // SAFETY: just unlinked, and it stays where it is.
                    unsafe { self.insert(timer) };
                }
            }
        }
        // Whatever is linked is later than `now`: what comes is counted from there.
        self.tick = self.tick.max(end);
    }

    /// Some linked timer, or null. For taking the wheel apart.
    pub(crate) fn any(&mut self) -> *const Timer {
        match self.first() {
            Some(slot) => self.slots[slot.level][slot.index].first().cast(),
            None => ptr::null(),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn timers(n: usize) -> Vec<Timer> {
        (0..n).map(|_| Timer::new()).collect()
    }

    /// A small generator of its own, so that a failure can be run again.
    struct Random(u64);

    impl Random {
        fn next(&mut self) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0
        }
    }

    fn wheel(now: u64) -> Box<Wheel> {
        Box::new(Wheel::new(now))
    }

    /// Everything that is due at `now`, a few at a time.
    fn fired(wheel: &mut Wheel, now: u64) -> Vec<u64> {
        let mut got = Vec::new();
        loop {
            let before = got.len();
            wheel.expire(
                now,
                7,
                |_| true,
                |timer| {
                    // SAFETY: the tests' timers outlive their wheels.
                    got.push(unsafe { (*timer).deadline() });
                },
            );
            if got.len() == before {
                return got;
            }
        }
    }

    #[test]
    fn never_early_and_in_order_whatever_the_delay() {
        let start = 123_456_789_012;
        let all = timers(20_000);
        let mut wheel = wheel(start);
        let mut random = Random(42);
        let mut due = Vec::new();
        for timer in &all {
            // From nanoseconds to days, each magnitude as likely.
            let delay = random.next() >> (16 + random.next() % 48);
            timer.set_deadline(start + delay);
            due.push(start + delay);
            // SAFETY: not linked; `all` outlives the wheel.
            unsafe { wheel.insert(timer) };
        }
        due.sort_unstable();
        let mut got = Vec::new();
        let mut now = start;
        while let Some(next) = wheel.next() {
            assert!(next >= now, "time does not go back");
            now = now.max(next);
            for deadline in fired(&mut wheel, now) {
                assert!(deadline <= now, "early");
                assert!(
                    now - deadline <= 1 << TICK_BITS,
                    "late by {}",
                    now - deadline
                );
                got.push(deadline);
            }
        }
        assert_eq!(got.len(), due.len());
        assert!(
            got.windows(2)
                .all(|w| w[0] >> TICK_BITS <= (w[1] >> TICK_BITS) + 1)
        );
        got.sort_unstable();
        assert_eq!(got, due);
    }

    #[test]
    fn a_late_look_finds_all_that_is_due() {
        let all = timers(5_000);
        let mut wheel = wheel(0);
        let mut random = Random(7);
        for timer in &all {
            timer.set_deadline(random.next() % 10_000_000_000);
            // SAFETY: as above.
            unsafe { wheel.insert(timer) };
        }
        let mut now = 0;
        let mut seen = 0;
        while seen < all.len() {
            now += random.next() % 500_000_000;
            seen += fired(&mut wheel, now).len();
            let left = all.iter().filter(|timer| timer.is_linked());
            // What is left is due later, give or take the rounding up.
            assert!(left.clone().all(|t| t.deadline() + (1 << TICK_BITS) > now));
            assert_eq!(left.count(), all.len() - seen);
        }
    }

    #[test]
    fn moved_and_removed_timers() {
        let all = timers(3);
        let mut wheel = wheel(0);
        for (timer, deadline) in all.iter().zip([1_000_000, 2_000_000, 3_000_000]) {
            timer.set_deadline(deadline);
            // SAFETY: as above.
            unsafe { wheel.insert(timer) };
        }
        // Moved without being linked anew, by days.
        all[0].set_deadline(200_000_000_000_000);
        Wheel::remove(&all[1]);
        Wheel::remove(&all[1]);
        assert_eq!(fired(&mut wheel, 4_000_000), [3_000_000]);
        assert!(all[0].is_linked() && !all[1].is_linked());
        assert_eq!(fired(&mut wheel, 199_999_000_000_000), []);
        assert_eq!(
            fired(&mut wheel, 200_000_001_000_000),
            [200_000_000_000_000]
        );
        assert!(wheel.any().is_null());
    }

    #[test]
    fn the_past_is_due_at_once_and_the_far_future_is_kept() {
        let all = timers(2);
        let mut wheel = wheel(1 << 40);
        all[0].set_deadline(5);
        all[1].set_deadline(u64::MAX / 2);
        for timer in &all {
            // SAFETY: as above.
            unsafe { wheel.insert(timer) };
        }
        assert_eq!(fired(&mut wheel, 1 << 40), [5]);
        let mut now = 1 << 40;
        let mut looks = 0;
        while let Some(next) = wheel.next() {
            now = next.max(now);
            fired(&mut wheel, now);
            looks += 1;
            assert!(
                looks < 1000,
                "the far future is looked at now and then only"
            );
        }
        assert!(now >= u64::MAX / 2 && now - u64::MAX / 2 <= 1 << TICK_BITS);
    }

    #[test]
    fn unwanted_timers_are_forgotten() {
        let all = timers(2);
        let mut wheel = wheel(0);
        for timer in &all {
            timer.set_deadline(1000);
            // SAFETY: as above.
            unsafe { wheel.insert(timer) };
        }
        let mut count = 0;
        wheel.expire(5000, 9, |t| ptr::eq(t, &all[0]), |_| count += 1);
        assert_eq!(count, 1);
        assert!(!all[1].is_linked());
    }
}
