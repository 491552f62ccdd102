// SPDX-License-Identifier: GPL-3.0-or-later
use std::ops::{Deref, DerefMut};
use std::ptr;

use super::*;
use crate::alloc::Allocator;

/// The number of rounds of a test: `many`, or `few` under Miri, which is a thousand times slower.
const fn rounds(many: usize, few: usize) -> usize {
    if cfg!(miri) { few } else { many }
}

fn timers(n: usize) -> Vec<Timer> {
    (0..n).map(|_| Timer::new()).collect()
}

/// A small random-number generator with a fixed seed, so that a failure can be reproduced.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

/// A wheel that owns its rings.
struct Own(Wheel);

impl Deref for Own {
    type Target = Wheel;
    fn deref(&self) -> &Wheel {
        &self.0
    }
}

impl DerefMut for Own {
    fn deref_mut(&mut self) -> &mut Wheel {
        &mut self.0
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        // SAFETY: `wheel` made them with this allocator. Timers that are still linked are not used
        // after this.
        unsafe { Allocator::new(None, None).free(self.rings) };
    }
}

fn wheel(now: u64) -> Own {
    let rings = Allocator::new(None, None).zeroed(1).expect("memory");
    // SAFETY: the rings are zeroed, so they are empty; only this wheel uses them; and `drop` frees
    // them.
    Own(unsafe { Wheel::new(rings, now) })
}

/// The deadline of a timer that the wheel passed to `fire`.
fn due_at(timer: NonNull<Timer>) -> u64 {
    // SAFETY: the timers of a test outlive its wheel.
    unsafe { timer.as_ref() }.deadline()
}

/// The deadlines of all timers that are due at `now`, taken a few at a time.
fn fired(wheel: &mut Wheel, now: u64) -> Vec<u64> {
    let mut got = Vec::new();
    loop {
        let before = got.len();
        wheel.expire(now, 7, |_| true, |timer| got.push(due_at(timer)));
        if got.len() == before {
            return got;
        }
    }
}

#[test]
fn never_early_and_in_order_whatever_the_delay() {
    let start = 123_456_789_012;
    let all = timers(rounds(20_000, 40));
    let mut wheel = wheel(start);
    let mut random = Random(42);
    let mut due = Vec::new();
    for timer in &all {
        // From nanoseconds to days, each order of magnitude equally likely.
        let delay = random.next() >> (16 + random.next() % 48);
        timer.set_deadline(start + delay);
        due.push(start + delay);
        // SAFETY: the timer is not linked, and `all` outlives the wheel.
        unsafe { wheel.insert(timer.into()) };
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
fn set_and_removed_while_time_goes_on() {
    let all = timers(rounds(300, 30));
    let start = (1 << 40) - 5_000;
    let mut wheel = wheel(start);
    let mut random = Random(99);
    let mut now = start;
    let mut fired = 0;
    for _ in 0..rounds(300_000, 100) {
        let timer = &all[random.next() as usize % all.len()];
        match random.next() % 8 {
            0 => Wheel::remove(timer),
            1..4 if !timer.is_linked() => {
                timer.set_deadline(now + (random.next() >> (20 + random.next() % 44)));
                // SAFETY: the timer is not linked, and `all` outlives the wheel.
                unsafe { wheel.insert(timer.into()) };
            }
            1..4 => timer.set_deadline(timer.deadline() + random.next() % 10_000_000),
            _ => {
                // Advance to the next check, or part of the way, or beyond it.
                let next = wheel.next().unwrap_or(now + 1_000_000).max(now);
                now += match random.next() % 4 {
                    0 => random.next() % (next - now + 1),
                    1 => next - now + random.next() % 500_000,
                    _ => next - now,
                };
                loop {
                    wheel.expire(
                        now,
                        5,
                        |_| true,
                        |timer| {
                            assert!(due_at(timer) <= now, "early");
                            fired += 1;
                        },
                    );
                    if wheel.next().is_none_or(|next| next > now) {
                        break;
                    }
                }
                let overdue = |t: &Timer| t.is_linked() && t.deadline() + (1 << TICK_BITS) <= now;
                assert!(!all.iter().any(overdue), "an overdue timer has not fired");
            }
        }
    }
    assert!(fired > rounds(20_000, 2), "{fired} fired");
}

#[test]
fn a_late_look_finds_all_that_is_due() {
    let all = timers(rounds(5_000, 25));
    let mut wheel = wheel(0);
    let mut random = Random(7);
    for timer in &all {
        timer.set_deadline(random.next() % 10_000_000_000);
        // SAFETY: the timer is not linked, and outlives the wheel.
        unsafe { wheel.insert(timer.into()) };
    }
    let mut now = 0;
    let mut seen = 0;
    while seen < all.len() {
        now += random.next() % 500_000_000;
        seen += fired(&mut wheel, now).len();
        let left = all.iter().filter(|timer| timer.is_linked());
        // The other timers are due later, up to one tick of rounding.
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
        // SAFETY: the timer is not linked, and outlives the wheel.
        unsafe { wheel.insert(timer.into()) };
    }
    // The deadline moves by days while the timer stays linked.
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
    assert!(wheel.take_any().is_none());
}

#[test]
fn the_past_is_due_at_once_and_the_far_future_is_kept() {
    let all = timers(2);
    let mut wheel = wheel(1 << 40);
    all[0].set_deadline(5);
    all[1].set_deadline(u64::MAX / 2);
    for timer in &all {
        // SAFETY: the timer is not linked, and outlives the wheel.
        unsafe { wheel.insert(timer.into()) };
    }
    assert_eq!(fired(&mut wheel, 1 << 40), [5]);
    let mut now = 1 << 40;
    let mut looks = 0;
    while let Some(next) = wheel.next() {
        now = next.max(now);
        fired(&mut wheel, now);
        looks += 1;
        assert!(looks < 1000, "a far deadline is checked only rarely");
    }
    assert!(now >= u64::MAX / 2 && now - u64::MAX / 2 <= 1 << TICK_BITS);
}

#[test]
fn unwanted_timers_are_forgotten() {
    let all = timers(2);
    let mut wheel = wheel(0);
    for timer in &all {
        timer.set_deadline(1000);
        // SAFETY: the timer is not linked, and outlives the wheel.
        unsafe { wheel.insert(timer.into()) };
    }
    let mut count = 0;
    wheel.expire(
        5000,
        9,
        |t| ptr::eq(t.as_ptr(), &raw const all[0]),
        |_| count += 1,
    );
    assert_eq!(count, 1);
    assert!(!all[1].is_linked());
}

#[test]
fn timers_of_one_time_fire_in_the_order_in_which_they_came() {
    // These delays take the timers through none, one and two levels.
    for delay in [0, 200_000, 3_000_000, 900_000_000] {
        let all = timers(20);
        let mut wheel = wheel(77_777_777);
        for timer in &all {
            timer.set_deadline(77_777_777 + delay);
            // SAFETY: the timer is not linked, and `all` outlives the wheel.
            unsafe { wheel.insert(timer.into()) };
        }
        let mut got = Vec::new();
        let mut now = 77_777_777;
        while let Some(next) = wheel.next() {
            now = next.max(now);
            // Several calls, none of which can take all.
            let note =
                |t: NonNull<Timer>| got.extend(all.iter().position(|own| ptr::eq(own, t.as_ptr())));
            wheel.expire(now, 7, |_| true, note);
        }
        assert_eq!(got, Vec::from_iter(0..20), "delay {delay}");
    }
}

#[test]
fn a_crowded_slot_keeps_nobody_waiting() {
    let crowd = timers(3 * MOVES);
    let soon = Timer::new();
    let mut wheel = wheel(0);
    let second = 1_000_000_000;
    for timer in &crowd {
        timer.set_deadline(40 * second);
        // SAFETY: the timer is not linked, and outlives the wheel.
        unsafe { wheel.insert(timer.into()) };
    }
    // Advance to just before the slot of the crowd begins.
    let begins = (2 << 24) << TICK_BITS;
    assert!((begins..begins + (1 << 34)).contains(&(40 * second)));
    wheel.expire(begins - 1_000_000, 9, |_| true, |_| panic!("early"));
    soon.set_deadline(begins);
    // SAFETY: the timer is not linked, and outlives the wheel.
    unsafe { wheel.insert((&soon).into()) };
    let (mut looks, mut fired) = (0, 0);
    let mut now = begins;
    while looks == 0 || wheel.is_busy() {
        let fire =
            |timer: NonNull<Timer>| fired += u32::from(ptr::eq(timer.as_ptr(), &raw const soon));
        wheel.expire(now, 9, |_| true, fire);
        looks += 1;
        // The first call may have begun with the crowd.
        assert!(fired == 1 || looks == 1, "the timer waits for the crowd");
        now += 1024;
    }
    assert!((3..5).contains(&looks), "no call moves all of them");
    let mut left = crowd.len();
    while wheel.next().is_some() {
        wheel.expire(41 * second, 5000, |_| true, |_| left -= 1);
    }
    assert_eq!(left, 0);
}
