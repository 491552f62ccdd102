// SPDX-License-Identifier: GPL-3.0-or-later
//! The work queues, and how workers sleep.
//!
//! Jobs from outside go through one shared queue, in order. A run-now job that is armed again when
//! its callback returns on a worker goes to that worker's local queue: two workers that pass jobs
//! through one queue spend most of their time on its cache lines. (A lone worker uses the shared
//! queue for both.)
//!
//! Any worker takes from any queue. It alternates between the shared queue and its own, and then
//! tries the others. A worker that is blocked in a callback must not strand the jobs in its local
//! queue while all other workers keep finding work elsewhere. So each queue in turn comes first: at
//! every look if callbacks are slow, now and then if they are quick.
//!
//! The queues are lock-free; workers sleep on a semaphore. The protocol handles these races:
//!
//! * *A worker finds the queues empty, a job arrives, the worker sleeps.* The worker counts itself
//!   idle and then looks at the queues again; the producer pushes and then looks at the count. Both
//!   sides put a SeqCst fence between the two steps, so at least one of them sees the other.
//! * *Two jobs arrive, one wake.* A producer wakes nobody while a woken worker is on its way, or
//!   wakes a second one if it adds several jobs. The woken worker takes a job, and if more are
//!   left, it wakes the next worker. The second wake covers a first worker that has to wait for a
//!   processor: another worker can begin in the meantime. Producers wake no more than two, because
//!   each wake costs the producer as much as a short job.
//! * *The woken worker arrives just as a producer relies on its being on the way.* The worker first
//!   says that it has arrived and then looks at the queues; the producer first pushes and then
//!   looks for workers on the way. Again both sides put a fence between the steps.
//! * *A job is in the local queue of a worker that runs another job.* The push notifies nobody,
//!   because the worker itself looks at once. If it then takes one job and leaves another in its
//!   local queue, it notifies like any other producer.
//!
//! If all workers are busy, a producer makes no system call.

use crate::perturb::perturb;
use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Ordering, Semaphore, fence, spin_loop};
#[cfg(loom)]
use crate::sync::{Mutex, lock};
use crate::sys;

#[cfg(not(loom))]
use crossbeam_queue::SegQueue as Queue;

/// loom cannot see into SegQueue, so models use a queue under a lock. `is_empty` does not take the
/// lock, and is no more reliable than that of SegQueue: the lock must not provide ordering that the
/// protocol has to provide itself.
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
        self.len() == 0
    }
    pub(crate) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }
}

/// A number that nothing depends on, and that models do not explore.
type Statistic = std::sync::atomic::AtomicUsize;

/// How long a worker spins before it sleeps, in pauses of the processor. That is about two
/// microseconds, less than a sleep and a wake take. In models, one look.
const SPINS: usize = if cfg!(loom) { 1 } else { 50 };
/// The maximum number of pauses between two looks. A look takes cache lines away from producers.
const MAX_PAUSES: usize = 4;

/// The number of local queues. If there are more workers, some of them share one.
const LOCAL_QUEUES: usize = if cfg!(loom) { 2 } else { 8 };

/// The number of looks after which another queue comes first, if all callbacks were quick.
const OTHER_FIRST_EVERY: u64 = 64;
/// The number of looks between two readings of the clock, if all callbacks were quick.
const CHECK_EVERY: u64 = 8;
/// The number of looks after which a lone worker notes how many items wait.
const NOTE_EVERY: u64 = 16;
/// If more nanoseconds than this pass between two readings of the clock, callbacks are slow.
const SLOW_NS: u64 = 50_000;

/// One worker on the way, in the count [`WorkQueue::sleepers`].
const WAKING: u64 = 1 << 32;
/// The maximum number of workers that a producer has on the way at once.
const MAX_WAKES: u64 = 2;

/// The queues and the sleeping workers.
pub(crate) struct WorkQueue<T> {
    /// Jobs from outside; with a lone worker, also the jobs that it armed again.
    shared: Queue<T>,
    /// Jobs that a worker armed again after it ran them.
    local: [Queue<T>; LOCAL_QUEUES],
    /// How many of the local queues are in use. None if there is only one worker: it uses the
    /// shared queue.
    used: usize,
    /// Two counts in one word. The low half counts the workers that are asleep or about to be. The
    /// high half, in units of [`WAKING`], counts the workers that were woken and have not looked at
    /// the queues yet. The second count may exceed the first: an idle worker may find the item in
    /// its last look, before it takes the token. Then the next worker that is about to sleep takes
    /// that token, and looks at the queues again.
    sleepers: AtomicU64,
    /// No more items will come: workers leave when the queues are empty.
    closed: AtomicBool,
    /// Items on the way from elsewhere, for which workers stay though the queues are closed.
    expected: AtomicUsize,
    /// One token for each wake. A waker posts it, and a worker that wakes takes it.
    tokens: Semaphore,
    workers: usize,
    /// The most items that waited, as far as anybody has looked. Not of the protocol.
    most: Statistic,
}

/// What a worker remembers between two looks at the queues.
pub(crate) struct Seat {
    /// The index of its own local queue.
    own: usize,
    /// How many times it has looked. In 32 bits this would overflow within an hour or two.
    looks: u64,
    /// The number of the look at which it next reads the clock, and the time of the last reading.
    check_at: u64,
    checked: u64,
    /// The number of the look at which another queue comes first, at the latest; and the index of
    /// that queue.
    other_at: u64,
    other: usize,
}

impl Seat {
    /// Counts a look. Returns whether the next queue comes first in it.
    fn look(&mut self) -> bool {
        self.looks += 1;
        if cfg!(loom) {
            return self.looks % 2 == 0;
        }
        if self.looks < self.check_at {
            return false;
        }
        let now = sys::now();
        let slow = now - self.checked > SLOW_NS;
        self.checked = now;
        self.check_at = self.looks + if slow { 1 } else { CHECK_EVERY };
        if slow || self.looks >= self.other_at {
            self.other_at = self.looks + OTHER_FIRST_EVERY;
            return true;
        }
        false
    }
}

impl<T> WorkQueue<T> {
    /// Empty queues for `workers` workers.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            shared: Queue::new(),
            local: std::array::from_fn(|_| Queue::new()),
            used: if workers > 1 {
                workers.min(LOCAL_QUEUES)
            } else {
                0
            },
            sleepers: AtomicU64::new(0),
            closed: AtomicBool::new(false),
            expected: AtomicUsize::new(0),
            tokens: Semaphore::new(),
            workers,
            most: Statistic::new(0),
        }
    }

    /// The seat of worker number `index`.
    pub(crate) fn seat(&self, index: usize) -> Seat {
        Seat {
            own: index % self.used.max(1),
            looks: 0,
            check_at: 0,
            checked: 0,
            other_at: 0,
            other: index,
        }
    }

    /// Adds one item and makes sure that a worker takes it.
    pub(crate) fn push(&self, item: T) {
        self.shared.push(item);
        self.notify(1);
    }

    /// A worker adds an item that it has taken before. It must call [`WorkQueue::next`] at once,
    /// which makes sure that a worker takes the item.
    pub(crate) fn push_local(&self, seat: &Seat, item: T) {
        let queue = if self.used == 0 {
            &self.shared
        } else {
            &self.local[seat.own]
        };
        queue.push(item);
        perturb("pushed to a local queue, and nobody has looked");
    }

    /// Adds one item. The caller calls [`WorkQueue::notify`] after it has added the last of a
    /// batch.
    pub(crate) fn push_quietly(&self, item: T) {
        self.shared.push(item);
    }

    /// Tells the workers that `added` items were pushed: makes sure that a worker is awake or on
    /// the way to take them.
    pub(crate) fn notify(&self, added: usize) {
        perturb("pushed, and no worker woken");
        fence(Ordering::SeqCst);
        let mut sleepers = self.sleepers.load(Ordering::Relaxed);
        let wakes = loop {
            let (idle, waking) = (sleepers % WAKING, sleepers / WAKING);
            let wakes = (added as u64)
                .min(MAX_WAKES)
                .min(idle)
                .saturating_sub(waking);
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

    /// Looks how many items wait. Returns that, and the most that anybody has seen.
    #[cold]
    #[inline(never)]
    pub(crate) fn note_length(&self) -> (usize, usize) {
        let (now, most) = (self.len(), self.most.load(Ordering::Relaxed));
        if now > most {
            self.most.fetch_max(now, Ordering::Relaxed);
        }
        (now, most.max(now))
    }

    /// The maximum begins anew.
    pub(crate) fn forget_length(&self) {
        self.most.store(0, Ordering::Relaxed);
    }

    /// How many workers are awake.
    pub(crate) fn awake(&self) -> usize {
        let asleep = self.sleepers.load(Ordering::Relaxed) % WAKING;
        self.workers.saturating_sub(asleep as usize)
    }

    /// Takes an item without waiting, after all workers have left.
    pub(crate) fn pop(&self) -> Option<T> {
        self.shared
            .pop()
            .or_else(|| self.local.iter().find_map(Queue::pop))
    }

    /// How many items wait. While workers take them, about.
    pub(crate) fn len(&self) -> usize {
        self.shared.len() + self.local.iter().map(Queue::len).sum::<usize>()
    }

    /// Whether no item waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.shared.is_empty() && self.local[..self.used].iter().all(Queue::is_empty)
    }

    /// Takes an item, if there is one, and does not wait. The push to a local queue notified nobody, so if another
    /// item stays in the worker's own queue, this notifies a worker.
    #[inline(always)]
    pub(crate) fn take(&self, seat: &mut Seat) -> Option<T> {
        if self.used == 0 {
            seat.looks += 1;
            if seat.looks % NOTE_EVERY == 0 {
                self.note_length();
            }
            return self.shared.pop();
        }
        let item = self.take_any(seat)?;
        if !self.local[seat.own].is_empty() {
            self.notify(1);
        }
        Some(item)
    }

    /// As [`WorkQueue::take`], but notifies nobody.
    fn take_any(&self, seat: &mut Seat) -> Option<T> {
        let local = &self.local[..self.used];
        // `is_empty` is quicker than a `pop` that fails.
        let pop = |queue: &Queue<T>| if queue.is_empty() { None } else { queue.pop() };
        if seat.look() {
            self.note_length();
            // The shared queue has its turn too, so there is one more queue than local queues.
            seat.other = (seat.other + 1) % (self.used + 1);
            if let Some(item) = pop(local.get(seat.other).unwrap_or(&self.shared)) {
                return Some(item);
            }
        }
        let own = &local[seat.own];
        let (one, other) = if seat.looks % 2 == 0 {
            (own, &self.shared)
        } else {
            (&self.shared, own)
        };
        pop(one)
            .or_else(|| pop(other))
            .or_else(|| local.iter().find_map(pop))
    }

    /// Takes the next item, and sleeps until there is one. Returns `None` when the queues are
    /// closed and empty. It first spins; if no item comes, it calls `before` and then sleeps.
    ///
    /// Woken by [`WorkQueue::notify`] and [`WorkQueue::close`].
    pub(crate) fn next(&self, seat: &mut Seat, before: impl FnOnce()) -> Option<T> {
        let (mut pauses, mut paused) = (1, 0);
        while paused < SPINS {
            if let Some(item) = self.take(seat) {
                return Some(item);
            }
            (0..pauses).for_each(|_| spin_loop());
            paused += pauses;
            pauses = MAX_PAUSES.min(2 * pauses);
        }
        before();
        loop {
            self.sleepers.fetch_add(1, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            if let Some(item) = self.take(seat) {
                self.sleepers.fetch_sub(1, Ordering::Relaxed);
                return Some(item);
            }
            // In this order: what was expected was pushed before it was expected no more.
            if self.closed.load(Ordering::Acquire) && self.expected.load(Ordering::Acquire) == 0 {
                self.sleepers.fetch_sub(1, Ordering::Relaxed);
                // All items pushed before the close are visible now.
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

    /// Sleeps until there is a token. Afterwards this worker no longer counts as sleeping or on the
    /// way.
    fn sleep(&self) {
        self.tokens.wait();
        perturb("woken, and said to be on the way still");
        self.sleepers.fetch_sub(WAKING + 1, Ordering::Relaxed);
        // A producer that saw this worker on the way has woken nobody: the next look must see its
        // item.
        fence(Ordering::SeqCst);
    }

    /// Closes the queues: no more items will come. Workers take the remaining items and leave.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        self.wake_all();
    }

    /// An item is on its way from elsewhere, or may come of one that is: until
    /// [`WorkQueue::expect_no_more`] no worker leaves.
    pub(crate) fn expect_more(&self) {
        self.expected.fetch_add(1, Ordering::Relaxed);
    }

    /// It has been pushed, or there is none.
    pub(crate) fn expect_no_more(&self) {
        perturb("pushed what was expected, and it still is");
        if self.expected.fetch_sub(1, Ordering::Release) == 1 {
            // Either we see the close, or who closes wakes the workers after this.
            fence(Ordering::SeqCst);
            if self.closed.load(Ordering::Relaxed) {
                self.wake_all();
            }
        }
    }

    fn wake_all(&self) {
        // One token for each worker. A worker that sleeps, or has found a reason to sleep that is
        // no more and is about to, takes one.
        self.sleepers
            .fetch_add(self.workers as u64 * WAKING, Ordering::Relaxed);
        for _ in 0..self.workers {
            self.tokens.post();
        }
    }
}
