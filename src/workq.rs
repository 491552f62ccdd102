// SPDX-License-Identifier: GPL-3.0-or-later
//! The work queues, and how workers sleep.
//!
//! What comes from outside goes through one queue, in order. A run-now job that is armed again when
//! its callback returns on a worker goes to a queue near that worker: two workers that pass jobs
//! through one queue spend most of their time on its cache lines. (A worker that is alone has the one
//! queue for both.) Any worker takes from any queue: from the shared one and its own by turns, then
//! from the others. Lest a worker that is blocked in a callback keep what is near it waiting, while
//! the rest always find something elsewhere, each queue comes first in its turn: every time if
//! callbacks are slow, now and then if they are quick.
//!
//! The queues are lock-free; workers sleep on a semaphore. The races that the protocol survives:
//!
//! * *A worker finds the queues empty, a job arrives, the worker sleeps.* The worker counts itself
//!   idle and then looks once more; the producer pushes and then looks at the count. With a
//!   SeqCst fence between the two steps on both sides, at least one of them sees the other.
//! * *Two jobs arrive, one wake.* A producer wakes nobody while a woken worker is on its way, or a
//!   second if it adds several. That worker, once it has taken its job and there is more, wakes the
//!   next. The second is for the case that the first must wait for its processor: what another
//!   could begin with does not wait with it. More than that the woken see to: each wake costs who
//!   makes it as much as a short job.
//! * *The woken worker has arrived just as a producer relies on its being on the way.* It first
//!   says that it has arrived and looks at the queues afterwards; the producer pushes first and then
//!   looks who is on the way. Again there is a fence between the steps on both sides.
//! * *A job is near a worker that runs another.* Nobody is told of the push: the worker itself looks
//!   at once. If it then takes one job and leaves another near, it is a producer like any other.
//!
//! A producer that finds every worker busy makes no system call.

use crate::perturb::perturb;
use crate::sync::{AtomicBool, AtomicUsize, Ordering, Semaphore, fence, spin_loop};
#[cfg(loom)]
use crate::sync::{Mutex, lock};
use crate::sys;

#[cfg(not(loom))]
use crossbeam_queue::SegQueue as Queue;

/// loom can't see into SegQueue: in models a queue under a lock stands in for it. Whether it is
/// empty shows without the lock, and no more reliably than in SegQueue: the lock is not to order
/// what the protocol has to.
#[cfg(loom)]
pub(crate) struct Queue<T> {
    len: AtomicUsize,
    items: Mutex<std::collections::VecDeque<T>>,
}

#[cfg(loom)]
impl<T> Queue<T> {
    pub(crate) fn new() -> Self {
        Self {
            len: AtomicUsize::new(0),
            items: Mutex::new(std::collections::VecDeque::new()),
        }
    }
    pub(crate) fn push(&self, item: T) {
        lock(&self.items).push_back(item);
        self.len.fetch_add(1, Ordering::Release);
    }
    pub(crate) fn pop(&self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let item = lock(&self.items).pop_front()?;
        self.len.fetch_sub(1, Ordering::Release);
        Some(item)
    }
    pub(crate) fn is_empty(&self) -> bool {
        self.len.load(Ordering::Acquire) == 0
    }
}

/// How long a worker without work goes on looking before it goes to sleep, in pauses of the
/// processor: for about two microseconds, less than what going to sleep and being woken takes. In
/// models, one look.
const SPINS: usize = if cfg!(loom) { 1 } else { 50 };
/// Pauses between two looks, at most. A look takes cache lines away from who is about to push.
const MOST: usize = 4;

/// Local queues of workers. If there are more workers than that, some share one.
const LOCAL_QUEUES: usize = if cfg!(loom) { 2 } else { 8 };

/// After so many looks at the queues, if all were quick, the next of them comes first.
const RARELY: usize = 64;
/// Looks between two at the clock, if all were quick.
const CHECK_EVERY: usize = 8;
/// Nanoseconds between two looks at the clock that are not quick.
const SLOW: u64 = 50_000;

/// One worker on the way, in [`WorkQueue::sleepers`].
const WAKING: usize = 1 << 32;
/// How many workers a producer has on the way at most, if it adds as many items.
const MAX_WAKES: usize = 2;

/// The queues and their sleepers.
pub(crate) struct WorkQueue<T> {
    /// What came from outside; and all that a worker that is alone armed again.
    shared: Queue<T>,
    /// What was armed again by a worker that ran it.
    local: [Queue<T>; LOCAL_QUEUES],
    /// How many of those are used: none if there is one worker only, whose own is the shared one.
    used: usize,
    /// How many workers are asleep or about to be; and, times [`WAKING`], how many were woken and
    /// have not looked at the queues yet. Those may be more, if an idle worker found the item when
    /// it looked once more: then the next that is about to sleep takes what was meant for it, and
    /// looks at the queues again.
    sleepers: AtomicUsize,
    /// No more is to come: workers leave when the queues are empty.
    closed: AtomicBool,
    /// Posted by who wakes workers, once for each; taken by those that wake.
    tokens: Semaphore,
    workers: usize,
}

/// A worker's place at the queues.
pub(crate) struct Seat {
    /// Which of the local queues is its own.
    own: usize,
    /// How often it has looked.
    looks: usize,
    /// The look at which it also looks at the clock, and when it did so last.
    check: usize,
    checked: u64,
    /// The look at which, at the latest, another queue comes first; and which.
    turn: usize,
    first: usize,
}

impl Seat {
    /// Another look. Returns whether the next queue is to come first.
    fn look(&mut self) -> bool {
        self.looks += 1;
        if cfg!(loom) {
            return self.looks.is_multiple_of(2);
        }
        if self.looks < self.check {
            return false;
        }
        let now = sys::now();
        let slow = now - self.checked > SLOW;
        self.checked = now;
        self.check = self.looks + if slow { 1 } else { CHECK_EVERY };
        if slow || self.looks >= self.turn {
            self.turn = self.looks + RARELY;
            return true;
        }
        false
    }
}

impl<T> WorkQueue<T> {
    /// Empty queues for so many workers.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            shared: Queue::new(),
            local: std::array::from_fn(|_| Queue::new()),
            used: if workers > 1 {
                workers.min(LOCAL_QUEUES)
            } else {
                0
            },
            sleepers: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            tokens: Semaphore::new(),
            workers,
        }
    }

    /// The place of worker number `index`.
    pub(crate) fn seat(&self, index: usize) -> Seat {
        Seat {
            own: index % self.used.max(1),
            looks: 0,
            check: 0,
            checked: 0,
            turn: 0,
            first: index,
        }
    }

    /// Add one item and see to it that somebody takes it.
    pub(crate) fn push(&self, item: T) {
        self.shared.push(item);
        self.notify(1);
    }

    /// A worker adds an item that it had taken. It calls [`WorkQueue::next`] at once, which sees to
    /// it that somebody takes it.
    pub(crate) fn push_local(&self, seat: &Seat, item: T) {
        let queue = if self.used == 0 {
            &self.shared
        } else {
            &self.local[seat.own]
        };
        queue.push(item);
        perturb("pushed to a local queue, and nobody has looked");
    }

    /// Add one item; the caller calls [`WorkQueue::notify`] when it has added all that it has.
    pub(crate) fn push_quietly(&self, item: T) {
        self.shared.push(item);
    }

    /// So many items were added: see to it that somebody takes them, or is on the way.
    pub(crate) fn notify(&self, added: usize) {
        perturb("pushed, and no worker woken");
        fence(Ordering::SeqCst);
        let mut sleepers = self.sleepers.load(Ordering::Relaxed);
        let wakes = loop {
            let (idle, waking) = (sleepers % WAKING, sleepers / WAKING);
            let wakes = added.min(MAX_WAKES).min(idle).saturating_sub(waking);
            if wakes == 0 {
                return;
            }
            match self.sleepers.compare_exchange_weak(
                sleepers,
                sleepers + wakes * WAKING,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => break wakes,
                Err(now) => sleepers = now,
            }
        };
        for _ in 0..wakes {
            self.tokens.post();
        }
    }

    /// Take an item without waiting, when no worker is there any more.
    pub(crate) fn pop(&self) -> Option<T> {
        self.shared
            .pop()
            .or_else(|| self.local.iter().find_map(Queue::pop))
    }

    fn is_empty(&self) -> bool {
        self.shared.is_empty() && self.local[..self.used].iter().all(Queue::is_empty)
    }

    /// Take an item, if there is one. If that leaves another in the own local queue, of which nobody was
    /// told when it was pushed, somebody is.
    fn take(&self, seat: &mut Seat) -> Option<T> {
        if self.used == 0 {
            return self.shared.pop();
        }
        let item = self.take_any(seat)?;
        if !self.local[seat.own].is_empty() {
            self.notify(1);
        }
        Some(item)
    }

    /// The same, and nobody is told.
    fn take_any(&self, seat: &mut Seat) -> Option<T> {
        let local = &self.local[..self.used];
        // Asking whether it is empty is quicker than finding out by a pop.
        let pop = |queue: &Queue<T>| if queue.is_empty() { None } else { queue.pop() };
        if seat.look() {
            // One more than there are local queues: the shared one has its turn too.
            seat.first = (seat.first + 1) % (self.used + 1);
            if let Some(item) = pop(local.get(seat.first).unwrap_or(&self.shared)) {
                return Some(item);
            }
        }
        let own = &local[seat.own];
        let (one, other) = if seat.looks.is_multiple_of(2) {
            (own, &self.shared)
        } else {
            (&self.shared, own)
        };
        pop(one)
            .or_else(|| pop(other))
            .or_else(|| local.iter().find_map(pop))
    }

    /// Take the next item, asleep until there is one; `None` when the queues are closed and empty.
    /// `before` is called if none came while it went on looking, before it goes to sleep.
    ///
    /// Woken by: [`WorkQueue::notify`], [`WorkQueue::close`].
    pub(crate) fn next(&self, seat: &mut Seat, before: impl FnOnce()) -> Option<T> {
        let (mut pauses, mut paused) = (1, 0);
        while paused < SPINS {
            if let Some(item) = self.take(seat) {
                return Some(item);
            }
            (0..pauses).for_each(|_| spin_loop());
            paused += pauses;
            pauses = MOST.min(2 * pauses);
        }
        before();
        loop {
            self.sleepers.fetch_add(1, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if let Some(item) = self.take(seat) {
                self.sleepers.fetch_sub(1, Ordering::Relaxed);
                return Some(item);
            }
            if self.closed.load(Ordering::SeqCst) {
                self.sleepers.fetch_sub(1, Ordering::Relaxed);
                // What was pushed before the close is visible now.
                return self.take(seat);
            }
            perturb("looked once more, and not asleep");
            self.sleep();
            if let Some(item) = self.take(seat) {
                if !self.is_empty() {
                    self.notify(1);
                }
                return Some(item);
            }
        }
    }

    /// Until there is a token. Then this worker does not count as a sleeper any more, nor as one on
    /// the way.
    fn sleep(&self) {
        self.tokens.wait();
        perturb("woken, and said to be on the way still");
        self.sleepers.fetch_sub(WAKING + 1, Ordering::Relaxed);
        // What was pushed by those who found it on the way is to be seen by the look that follows.
        fence(Ordering::SeqCst);
    }

    /// No more is to come. Workers take what is there and leave.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::SeqCst);
        // A token for each: whoever sleeps, or has looked at `closed` and is about to, takes one.
        self.sleepers
            .fetch_add(self.workers * WAKING, Ordering::Relaxed);
        for _ in 0..self.workers {
            self.tokens.post();
        }
    }
}
