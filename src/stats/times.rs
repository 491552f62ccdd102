// SPDX-License-Identifier: GPL-3.0-or-later
//! What a thread measures, in a pool with `NS_POOL_TIMINGS`: how long jobs wait, how long callbacks take,
//! how late timers are, and how long the loop sleeps.
//!
//! Each thread has its own [`Times`], and it alone writes there, by relaxed stores. A job carries the time
//! at which it fired or was added: its *stamp*. The thread that runs the job reads the clock before and
//! after the callback. A read takes about as long as everything else here together, so one read serves
//! twice where nothing slow lies between: when a callback has returned, the next one begins, if the
//! thread has one; and all jobs that fire in a row fire at once.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::sys;

/// How many buckets a histogram has.
pub(crate) const BUCKETS: usize = 64;

/// Adds to a number that only this thread writes.
#[inline(always)]
fn add(number: &AtomicU64, more: u64) {
    number.store(number.load(Ordering::Relaxed) + more, Ordering::Relaxed);
}

/// How often times of each length were seen.
#[repr(C)]
pub(crate) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    sum: AtomicU64,
}

impl Histogram {
    /// One more time, in nanoseconds.
    #[inline(always)]
    fn add(&self, ns: u64) {
        add(&self.buckets[bucket(ns)], 1);
        add(&self.sum, ns);
    }

    /// Adds what was counted here.
    pub(crate) fn add_to(&self, buckets: &mut [u64; BUCKETS], sum: &mut u64) {
        for (to, from) in buckets.iter_mut().zip(&self.buckets) {
            *to += from.load(Ordering::Relaxed);
        }
        *sum += self.sum.load(Ordering::Relaxed);
    }
}

/// Bucket 0 is for zero, bucket i for times from 2^(i-1) to below 2^i, and the last one for all that are
/// longer, too.
#[inline(always)]
fn bucket(ns: u64) -> usize {
    ((u64::BITS - ns.leading_zeros()) as usize).min(BUCKETS - 1)
}

/// How long something has lasted, as a whole, that begins and ends again and again.
///
/// One word, so that a reader always has both halves of it: while it lasts, the time of the monotonic
/// clock at which it would have begun, had it never stopped, and [`LASTS`]; otherwise its length.
///
/// The race: the thread reads the clock and is held up before it stores that the span has ended. Who reads
/// meanwhile sees that it lasts, and makes it longer than it will have been. So readers keep what they told,
/// and never tell less.
#[repr(C)]
pub(crate) struct Span {
    word: AtomicU64,
    /// The greatest length that anybody was told.
    told: AtomicU64,
}

/// A bit that no time has.
const LASTS: u64 = 1 << 63;

/// The length that a [`Span`]'s word stands for.
fn length(word: u64, now: u64) -> u64 {
    if word & LASTS == 0 {
        return word;
    }
    now.saturating_sub(word & !LASTS)
}

impl Span {
    /// It begins. Nothing happens if it lasts.
    pub(crate) fn begin(&self, now: u64) {
        let word = self.word.load(Ordering::Relaxed);
        if word & LASTS == 0 {
            let begun = now.saturating_sub(word);
            self.word.store(begun | LASTS, Ordering::Relaxed);
        }
    }

    /// It ends. Nothing happens if it does not last.
    pub(crate) fn end(&self, now: u64) {
        let word = self.word.load(Ordering::Relaxed);
        self.word.store(length(word, now), Ordering::Relaxed);
    }

    /// Whether it lasts.
    fn lasts(&self) -> bool {
        self.word.load(Ordering::Relaxed) & LASTS != 0
    }

    /// How long it has lasted until now, and never less than before. Any thread.
    pub(crate) fn length(&self, now: impl Fn() -> u64) -> u64 {
        let length = self.length_now(now);
        self.told.fetch_max(length, Ordering::Relaxed).max(length)
    }

    fn length_now(&self, now: impl Fn() -> u64) -> u64 {
        let mut word = self.word.load(Ordering::Acquire);
        loop {
            let now = now();
            // A word belongs to the times while it stays. With one that has come or gone meanwhile, the
            // length could be more than it will be, or less than it has been.
            let later = self.word.load(Ordering::Acquire);
            if later == word {
                return length(word, now);
            }
            word = later;
        }
    }
}

/// What one thread has measured. Zeroed memory is a value: nothing yet.
// In cache lines of its own, since its thread writes it for each job.
#[repr(C, align(64))]
pub(crate) struct Times {
    /// From the stamp of a job to the beginning of its callback.
    pub(crate) queue: Histogram,
    /// From the beginning of a callback to its return.
    pub(crate) run: Histogram,
    /// From the time at which a timer was due to its firing. The loop's alone, as all that follows but
    /// `returned`.
    pub(crate) late: Histogram,
    /// The loop does something.
    pub(crate) busy: Span,
    /// The loop waits for events.
    pub(crate) idle: Span,
    /// When the last callback returned, if the thread has done nothing slow since; else 0. Only its own
    /// thread reads it, as the next.
    returned: AtomicU64,
    /// When the jobs fired that fire now, or 0.
    firing: AtomicU64,
}

impl Times {
    /// The callback of a job with this stamp begins. Returns when.
    #[inline(always)]
    pub(crate) fn begin(&self, stamp: u64) -> u64 {
        let begin = match self.returned.load(Ordering::Relaxed) {
            0 => sys::now(),
            // The job may have come after that.
            returned => returned.max(stamp),
        };
        self.queue.add(begin.saturating_sub(stamp));
        self.firing.store(0, Ordering::Relaxed);
        begin
    }

    /// The callback that began at `begin` has returned. Returns when.
    #[inline(always)]
    pub(crate) fn end(&self, begin: u64) -> u64 {
        let end = sys::now();
        self.run.add(end.saturating_sub(begin));
        end
    }

    /// The last callback returned at this time, and another one may begin at once.
    #[inline(always)]
    pub(crate) fn go_on(&self, returned: u64) {
        self.returned.store(returned, Ordering::Relaxed);
    }

    /// The thread does something that takes its time.
    #[inline(always)]
    pub(crate) fn pause(&self) {
        self.returned.store(0, Ordering::Relaxed);
    }

    /// The stamp of a job that fires now.
    pub(crate) fn firing(&self) -> u64 {
        match self.firing.load(Ordering::Relaxed) {
            0 => {
                let now = sys::now();
                self.firing.store(now, Ordering::Relaxed);
                now
            }
            firing => firing,
        }
    }

    /// A timer that was due at `due` fires at `now`.
    pub(crate) fn fires_late(&self, due: u64, now: u64) {
        self.late.add(now.saturating_sub(due));
        self.firing.store(now, Ordering::Relaxed);
    }

    /// The loop is about to wait for events: until it has them, unless it only asks.
    pub(crate) fn wait(&self, sleeps: bool) {
        if sleeps {
            let now = sys::now();
            self.busy.end(now);
            self.idle.begin(now);
        }
    }

    /// It has waited.
    pub(crate) fn waited(&self) {
        self.returned.store(0, Ordering::Relaxed);
        let mut firing = 0;
        if self.idle.lasts() {
            firing = sys::now();
            self.idle.end(firing);
            self.busy.begin(firing);
        }
        self.firing.store(firing, Ordering::Relaxed);
    }

    /// The calling thread is the loop from now on.
    pub(crate) fn enter(&self) {
        self.pause();
        self.firing.store(0, Ordering::Relaxed);
        self.busy.begin(sys::now());
    }

    /// It is the loop no more.
    pub(crate) fn leave(&self) {
        self.busy.end(sys::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Span {
        fn new() -> Span {
            let (word, told) = (AtomicU64::new(0), AtomicU64::new(0));
            Span { word, told }
        }
    }

    #[test]
    fn each_time_has_its_bucket() {
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(1), 1);
        for i in 1..BUCKETS - 1 {
            let low = 1 << (i - 1);
            assert_eq!(bucket(low), i);
            assert_eq!(bucket(2 * low - 1), i);
        }
        assert_eq!(bucket(1 << 62), 63);
        assert_eq!(bucket(u64::MAX), 63);
    }

    #[test]
    fn a_span_goes_on_where_it_stopped() {
        let span = Span::new();
        assert_eq!(span.length(|| 100), 0);
        span.begin(100);
        assert_eq!(span.length(|| 130), 30);
        span.begin(120);
        span.end(140);
        assert_eq!(span.length(|| 1000), 40);
        span.begin(1000);
        assert_eq!(span.length(|| 1000), 40);
        assert_eq!(span.length(|| 1005), 45);
        span.end(1010);
        assert_eq!(span.length(|| 2000), 50);
    }

    #[test]
    fn a_span_never_gets_shorter() {
        let span = Span::new();
        span.begin(100);
        // The thread reads the clock at 110 to end it, and is held up; somebody asks at 150.
        assert_eq!(span.length(|| 150), 50);
        span.end(110);
        assert_eq!(span.length(|| 160), 50);
        span.begin(200);
        assert_eq!(span.length(|| 230), 50);
        assert_eq!(span.length(|| 250), 60);
    }
}
