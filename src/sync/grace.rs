// SPDX-License-Identifier: GPL-3.0-or-later
//! Grace periods: wait until every thread that was inside has left, while others keep coming in.
//!
//! Some steps look at memory that another thread may be about to free, and nothing in that memory
//! can count them. So they enter a count here before they look. A thread that frees cannot wait for
//! that count to be zero: other threads keep entering, and it would wait for ever. So there are two
//! counts and an epoch. A thread that enters is counted in the current epoch's count. The epoch
//! advances when the other count is zero. Every thread that entered in epoch `e` has left when the
//! epoch is `e + 2`: the step to `e + 1` waits for the threads of `e - 1`, and the step to `e + 2`
//! waits for those of `e`. Threads that enter after the epoch has advanced are in the other count
//! and do not delay it.
//!
//! Epoch, counts and number of sleepers share one word, and each change is one compare-and-swap on
//! it. So no thread is counted in an epoch that is over, and the thread that makes a count zero
//! sees every thread that sleeps until it is zero.
//!
//! A forked child has a copy of the word, but all the threads that it counts except one are the
//! parent's. So the word also carries the generation of the process (see [`fork`](crate::fork)). A
//! child resets the word, and leaving with a pin of the parent's generation has no effect.
//!
//! Everything but [`Grace::wait`] is async-signal-safe.

use super::{AtomicU64, Ordering, Semaphore};

/// The count of the threads that are inside, by the epoch in which they entered.
pub(crate) struct Grace {
    word: AtomicU64,
    /// Where waiting threads sleep. When the count that they wait for becomes zero, each sleeper
    /// counted in the word gets one permit. A thread that checks again and sleeps again may take
    /// the permit of another, which then takes the next one: there are as many permits as sleeps.
    left: Semaphore,
}

/// Proof that a thread is inside; it goes back to [`Grace::leave`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pin {
    generation: u64,
    parity: u64,
}

/// The epoch, modulo 256, in which something was taken out of reach.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epoch(pub(crate) u8);

/// The word's fields, from the lowest bits up: two counts, the sleepers, the epoch, the generation.
/// Fewer than 2^20 threads are inside at once.
const COUNT_BITS: u32 = 20;
const COUNT: u64 = (1 << COUNT_BITS) - 1;
const SLEEPERS_AT: u32 = 2 * COUNT_BITS;
const SLEEPERS: u64 = (1 << 10) - 1;
const EPOCH_AT: u32 = SLEEPERS_AT + 10;
const GENERATION_AT: u32 = EPOCH_AT + 8;
const GENERATIONS: u64 = 1 << 6;

/// A value of the word.
#[derive(Clone, Copy)]
struct Word(u64);

impl Word {
    fn epoch(self) -> u8 {
        (self.0 >> EPOCH_AT) as u8
    }

    /// The count that a thread which enters now belongs to.
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

    /// Whether a thread is inside.
    fn is_occupied(self) -> bool {
        self.0 & ((1 << SLEEPERS_AT) - 1) != 0
    }

    fn one(parity: u64) -> u64 {
        1 << (parity * u64::from(COUNT_BITS))
    }

    /// The word with the next epoch; `None` if a thread of the previous epoch is still inside.
    fn moved_on(self) -> Option<Self> {
        let next = u64::from(self.epoch().wrapping_add(1));
        let epochs = 0xff << EPOCH_AT;
        (self.count(next % 2) == 0).then_some(Self(self.0 & !epochs | next << EPOCH_AT))
    }

    /// Whether every thread that was inside in `epoch` has left. Epochs are modulo 256, so an old
    /// one may equal the current one; it is then reported as past a little later than it could be.
    fn is_past(self, epoch: Epoch) -> bool {
        match self.epoch().wrapping_sub(epoch.0) {
            0 => !self.is_occupied(),
            1 => self.count(u64::from(epoch.0 % 2)) == 0,
            _ => true,
        }
    }
}

impl Grace {
    /// A grace period that no thread is inside.
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            left: Semaphore::new(),
        }
    }

    /// The same for loom, whose primitives have no const constructors.
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            word: AtomicU64::new(0),
            left: Semaphore::new(),
        }
    }

    /// Read the word. In a child that has not used it yet, reset it first.
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
            // Another thread of this process has reset the word.
            Err(now) => Word(now),
        }
    }

    /// Replace the word, which is of this generation, with `next` of it; retry until that succeeds.
    /// `next` returns `None` to leave the word alone.
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

    /// Enter: the caller is about to look at memory that another thread may take out of reach.
    pub(crate) fn enter(&self, generation: u32) -> Pin {
        let word = self.load(generation);
        let entered = |word: Word| Some(word.0 + Word::one(word.parity()));
        let (Ok(word) | Err(word)) = self.change(word, entered);
        Pin {
            generation: u64::from(generation) % GENERATIONS,
            parity: word.parity(),
        }
    }

    /// Leave: the caller looks no more.
    ///
    /// Wakes the threads that sleep in [`Grace::wait`] if no other thread of the same epoch is
    /// inside.
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
        match left {
            Ok(word) if last(word) => (0..word.sleepers()).for_each(|_| self.left.post()),
            _ => {}
        }
    }

    /// Whether a thread may be inside. If not, everything that the threads which were inside did is
    /// visible to the caller.
    #[inline]
    pub(crate) fn is_occupied(&self) -> bool {
        Word(self.word.load(Ordering::SeqCst)).is_occupied()
    }

    /// The epoch that covers everything taken out of reach before this call: pass it to
    /// [`Grace::is_past`] or [`Grace::wait`].
    ///
    /// It writes the word with its own value. A thread that enters later reads that write, so it
    /// sees that the memory is out of reach; every thread that entered before is counted.
    pub(crate) fn now(&self, generation: u32) -> Epoch {
        self.load(generation);
        Epoch(Word(self.word.fetch_or(0, Ordering::AcqRel)).epoch())
    }

    /// Whether every thread that was inside in `epoch` or before has left. Advances the epoch if
    /// possible.
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

    /// Sleep until every thread that was inside in `epoch` or before has left. The caller has
    /// disabled cancellation.
    ///
    /// Woken by: [`Grace::leave`] of the last thread that entered in the same epoch.
    pub(crate) fn wait(&self, epoch: Epoch, generation: u32) {
        while !self.is_past(epoch, generation) {
            let asleep = self.change(self.load(generation), |word| {
                let room = word.sleepers() < SLEEPERS;
                let waits = !word.is_past(epoch) && word.moved_on().is_none();
                (waits && room).then_some(word.0 + (1 << SLEEPERS_AT))
            });
            match asleep {
                Ok(_) => self.left.wait(),
                // The sleepers' field is full: poll instead.
                Err(word) if word.sleepers() == SLEEPERS => pause(),
                Err(_) => {}
            }
        }
    }
}

/// Sleep for a millisecond.
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
        // The epoch has advanced: this thread is in the other count.
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
        // One pin is left before the child has first read the word, the other after.
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
