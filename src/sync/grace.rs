// SPDX-License-Identifier: GPL-3.0-or-later
//! Grace periods: learning that everybody who was inside has left, whoever has come since.
//!
//! Some steps look at memory that another thread may be about to free, and nothing in that memory
//! tells of them. They count themselves in before they look. Who frees would wait for ever if it
//! waited until nobody is counted: others come all the time. So there are two counts, and an epoch
//! that says which of them those who come now are counted in. The epoch moves on when the other
//! count is zero. Who was inside in epoch `e` has left when the epoch is `e + 2`: from `e` to
//! `e + 1` waits for those of `e - 1`, from `e + 1` to `e + 2` for those of `e`. Those who come
//! after it has moved on are in the other count and hold nobody up.
//!
//! Epoch, counts and sleepers are one word, and every step is one compare-and-swap on it. So nobody
//! is counted in an epoch that is over, and who sleeps until a count is zero is seen by the one
//! that makes it so.
//!
//! A forked child has a copy of the word, but the threads that it counts are the parent's, all but
//! one. So the word also carries the generation of the process (see [`fork`](crate::fork)): in a
//! child it begins anew, and who leaves with a pin of the parent's time changes nothing.
//!
//! All but [`Grace::wait`] is async-signal-safe.

use super::{AtomicU64, Ordering, Semaphore};

/// A count of those who are inside, and the epoch that they came in.
pub(crate) struct Grace {
    word: AtomicU64,
    /// Where those sleep who wait: one permit for each sleeper in the word, when the count becomes
    /// zero that they wait for. A sleeper that looks again and sleeps again may take the permit of
    /// another, which then has the next one: there are as many permits as sleeps.
    left: Semaphore,
}

/// Being inside.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pin {
    generation: u64,
    parity: u64,
}

/// When something was taken out of everybody's reach: the epoch, modulo 256.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epoch(pub(crate) u8);

/// The word's fields, from the lowest bits up: two counts, the sleepers, the epoch, the generation.
/// More than a million threads are never inside at once.
const COUNT_BITS: u32 = 20;
const COUNT: u64 = (1 << COUNT_BITS) - 1;
const SLEEPERS_AT: u32 = 2 * COUNT_BITS;
const SLEEPERS: u64 = (1 << 10) - 1;
const EPOCH_AT: u32 = SLEEPERS_AT + 10;
const GENERATION_AT: u32 = EPOCH_AT + 8;
const GENERATIONS: u64 = 1 << 6;

/// The word, read.
#[derive(Clone, Copy)]
struct Word(u64);

impl Word {
    fn epoch(self) -> u8 {
        (self.0 >> EPOCH_AT) as u8
    }

    /// Which count those are in who come now.
    fn parity(self) -> u64 {
        u64::from(self.epoch() % 2)
    }

    fn sleepers(self) -> u64 {
        self.0 >> SLEEPERS_AT & SLEEPERS
    }

    fn count(self, parity: u64) -> u64 {
        self.0 >> (parity * u64::from(COUNT_BITS)) & COUNT
    }

    fn is_of(self, generation: u64) -> bool {
        self.0 >> GENERATION_AT == generation
    }

    /// Whether somebody is inside.
    fn is_occupied(self) -> bool {
        self.0 & ((1 << SLEEPERS_AT) - 1) != 0
    }

    fn one(parity: u64) -> u64 {
        1 << (parity * u64::from(COUNT_BITS))
    }

    /// With the epoch moved on, if nobody of the one before is inside.
    fn moved_on(self) -> Option<Self> {
        let next = u64::from(self.epoch().wrapping_add(1));
        let epochs = 0xff << EPOCH_AT;
        (self.count(next % 2) == 0).then_some(Self(self.0 & !epochs | next << EPOCH_AT))
    }

    /// Whether everybody has left who was inside in `epoch`. Epochs are counted modulo 256: one that
    /// was long ago may look as if it were now, and is over a little later.
    fn is_past(self, epoch: Epoch) -> bool {
        match self.epoch().wrapping_sub(epoch.0) {
            0 => !self.is_occupied(),
            1 => self.count(u64::from(epoch.0 % 2)) == 0,
            _ => true,
        }
    }
}

impl Grace {
    /// Nobody is inside.
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            left: Semaphore::new(),
        }
    }

    /// The same; loom's primitives are not made at compile time.
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            left: Semaphore::new(),
        }
    }

    /// The word, made anew in a child.
    fn load(&self, generation: u32) -> Word {
        let word = Word(self.word.load(Ordering::Acquire));
        let generation = u64::from(generation) % GENERATIONS;
        if word.is_of(generation) {
            return word;
        }
        let new = generation << GENERATION_AT;
        match self
            .word
            .compare_exchange(word.0, new, Ordering::AcqRel, Ordering::Acquire)
        {
            Ok(_) => Word(new),
            // Another thread of the child has made it anew.
            Err(now) => Word(now),
        }
    }

    /// Change the word, of this generation, by `next` until it sticks; `None` leaves it alone.
    fn change(&self, mut word: Word, next: impl Fn(Word) -> Option<u64>) -> Result<Word, Word> {
        loop {
            let Some(new) = next(word) else {
                return Err(word);
            };
            match self
                .word
                .compare_exchange_weak(word.0, new, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Ok(word),
                Err(now) => word = Word(now),
            }
        }
    }

    /// The caller is about to look at what another thread may take out of reach.
    pub(crate) fn enter(&self, generation: u32) -> Pin {
        let word = self.load(generation);
        let entered = |word: Word| Some(word.0 + Word::one(word.parity()));
        let (Ok(word) | Err(word)) = self.change(word, entered);
        Pin {
            generation: u64::from(generation) % GENERATIONS,
            parity: word.parity(),
        }
    }

    /// It looks no more.
    ///
    /// Wakes those who sleep in [`Grace::wait`], if nobody is left who came in the same epoch.
    pub(crate) fn leave(&self, pin: Pin) {
        let word = Word(self.word.load(Ordering::Relaxed));
        let last = |word: Word| word.count(pin.parity) == 1;
        let left = self.change(word, |word| {
            if !word.is_of(pin.generation) {
                return None;
            }
            let sleepers = if last(word) {
                SLEEPERS << SLEEPERS_AT
            } else {
                0
            };
            Some((word.0 & !sleepers) - Word::one(pin.parity))
        });
        if let Ok(word) = left
            && last(word)
        {
            for _ in 0..word.sleepers() {
                self.left.post();
            }
        }
    }

    /// Whether somebody may be inside. When the answer is no, everything that those did who were
    /// inside before is visible.
    #[inline]
    pub(crate) fn is_occupied(&self) -> bool {
        Word(self.word.load(Ordering::SeqCst)).is_occupied()
    }

    /// The epoch in which something is out of reach that was taken out before.
    ///
    /// The word is written, with what it says already: those who enter later read it and thereby
    /// see that the thing is out of reach; all others are counted.
    pub(crate) fn now(&self, generation: u32) -> Epoch {
        self.load(generation);
        Epoch(Word(self.word.fetch_or(0, Ordering::AcqRel)).epoch())
    }

    /// Whether everybody has left who was inside in `epoch` or before. Moves on, if that is possible.
    pub(crate) fn is_past(&self, epoch: Epoch, generation: u32) -> bool {
        let mut word = self.load(generation);
        while !word.is_past(epoch) {
            match self.change(word, |word| Some(word.moved_on()?.0)) {
                Ok(before) => word = before.moved_on().unwrap_or(before),
                Err(_) => return false,
            }
        }
        true
    }

    /// Sleep until everybody has left who was inside in `epoch` or before. The caller has
    /// cancellation disabled.
    ///
    /// Woken by: [`Grace::leave`] of the last who came in the same epoch.
    pub(crate) fn wait(&self, epoch: Epoch, generation: u32) {
        while !self.is_past(epoch, generation) {
            let asleep = self.change(self.load(generation), |word| {
                let room = word.sleepers() < SLEEPERS;
                let waits = !word.is_past(epoch) && word.moved_on().is_none();
                (waits && room).then_some(word.0 + (1 << SLEEPERS_AT))
            });
            match asleep {
                Ok(_) => self.left.wait(),
                // A thousand sleep already.
                Err(word) if word.sleepers() == SLEEPERS => pause(),
                Err(_) => {}
            }
        }
    }
}

/// Let a millisecond pass.
fn pause() {
    #[cfg(not(loom))]
    std::thread::sleep(std::time::Duration::from_millis(1));
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn those_who_come_later_hold_nobody_up() {
        let grace = Grace::new();
        let before = grace.enter(1);
        let epoch = grace.now(1);
        assert!(!grace.is_past(epoch, 1));
        // The epoch has moved on: this one is in the other count.
        let later = grace.enter(1);
        assert!(!grace.is_past(epoch, 1));
        grace.leave(before);
        assert!(grace.is_past(epoch, 1));
        assert!(grace.is_occupied());
        grace.leave(later);
        assert!(!grace.is_occupied());
    }

    #[test]
    fn epochs_go_round() {
        let grace = Grace::new();
        for _ in 0..1000 {
            let (pin, epoch) = (grace.enter(1), grace.now(1));
            assert!(!grace.is_past(epoch, 1));
            let next = grace.enter(1);
            grace.leave(pin);
            assert!(grace.is_past(epoch, 1));
            grace.leave(next);
        }
    }

    #[test]
    fn a_child_begins_anew_and_pins_of_before_change_nothing() {
        let grace = Grace::new();
        let (one, other) = (grace.enter(1), grace.enter(1));
        // Left before the child has looked at the word, and after.
        grace.leave(one);
        assert!(grace.is_past(grace.now(2), 2));
        grace.leave(other);
        let pin = grace.enter(2);
        assert!(!grace.is_past(grace.now(2), 2));
        grace.leave(other);
        assert!(grace.is_occupied());
        grace.leave(pin);
        assert!(!grace.is_occupied());
    }
}
