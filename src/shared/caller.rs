// SPDX-License-Identifier: GPL-3.0-or-later
//! A pool whose loop runs in threads of the application's: who is the loop, and who waits to be it.
//!
//! At most one thread is *inside*: it has the event loop to itself. A lock guards that, so what one thread
//! did inside happens before what the next does. The lock is not held while a thread is inside, but only
//! when one comes or leaves.
//!
//! The thread that was last inside a turn counts as the loop while nobody is inside. A thread that waits
//! for the end of the pool must not count on a turn that never comes. So it becomes the loop itself if
//! that thread is the caller, does not exist or has ended. The races:
//!
//! * *The waiter finds the pool not shut down, it is shut down, the waiter sleeps.* The waiter is on the
//!   list before it looks, under the lock; whoever shuts the pool down takes the lock later, and wakes it.
//! * *It finds another thread inside, which leaves.* The same: a thread that leaves takes the lock.
//! * *It finds that the thread last inside still lives, and that ends.* The waiter is on that thread's
//!   list too, or learns that it has ended. For that the lock of the thread's token is taken under ours;
//!   never the other way round.
//! * *It waits for the end of one thread, and another becomes the last inside.* That one takes the lock,
//!   and wakes it when it leaves.

use crate::perturb::perturb;
use crate::shared::thread::Thread;
use crate::sync::bell::{Bell, Bells};
use crate::sync::{AtomicUsize, Mutex, Ordering, Semaphore, lock};
use crate::wake::WaitFd;

/// The thread that was last inside a turn.
enum Last {
    /// There was none.
    Nobody,
    Known(Thread),
    /// Its end could not be noticed, so it counts as one that has ended.
    Unknown,
}

struct Inner {
    /// A thread is inside.
    inside: bool,
    last: Last,
    /// [`Thread::id`] of the thread that was last made the one to interrupt; 0 if it is not known.
    told: usize,
    /// Threads that wait to be the loop, or for the end of the pool.
    bells: Bells,
}

impl Inner {
    /// The calling thread, `me`, is inside from here on. Calls `tell` if another was before.
    fn begin(&mut self, me: Option<&Thread>, tell: impl FnOnce()) {
        self.inside = true;
        let id = me.map_or(0, Thread::id);
        if id == 0 || id != self.told {
            self.told = id;
            tell();
        }
    }
}

/// The loop of a pool that has no thread for it.
pub(crate) struct Caller {
    inner: Mutex<Inner>,
    /// [`Thread::id`] of the thread last inside; 0 if it is not known.
    last: AtomicUsize,
    pub(crate) wait_fd: WaitFd,
}

/// What became of a thread that waits for the end of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entered {
    /// It is inside.
    Inside,
    /// It has slept, and something has changed.
    Woken,
    /// Its time is up, or a signal handler has run.
    TimedOut,
}

/// Why a thread can't be the loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotInside {
    /// The pool has a thread of its own for that.
    OwnLoop,
    /// It is in a callback of the pool.
    Callback,
    /// Another thread is the loop.
    Other,
}

impl NotInside {
    /// For the log.
    pub(crate) fn why(self) -> &'static str {
        match self {
            Self::OwnLoop => "the pool has a loop thread of its own",
            Self::Callback => "the caller is in a callback of the pool, or is one of its threads",
            Self::Other => "another thread is the loop",
        }
    }
}

impl Caller {
    /// Nobody is, or was, inside.
    pub(crate) fn new() -> Self {
        Self {
            inner: Mutex::new(Inner {
                inside: false,
                last: Last::Nobody,
                told: 0,
                bells: Bells::new(),
            }),
            last: AtomicUsize::new(0),
            wait_fd: WaitFd::new(),
        }
    }

    /// The calling thread, `me`, is the loop from here on, until [`Caller::leave`]; unless another is.
    /// `tell` makes it the one to interrupt, and is called under the lock if that was another.
    pub(crate) fn enter(&self, me: Option<Thread>, tell: impl FnOnce()) -> bool {
        let mut inner = lock(&self.inner);
        if inner.inside {
            return false;
        }
        inner.begin(me.as_ref(), tell);
        if !matches!((&inner.last, &me), (Last::Known(last), Some(me)) if last == me) {
            let id = me.as_ref().map_or(0, Thread::id);
            self.last.store(id, Ordering::Relaxed);
            let last = me.map_or(Last::Unknown, Last::Known);
            let before = std::mem::replace(&mut inner.last, last);
            drop(inner);
            drop(before);
        }
        true
    }

    /// Calls `look` if no thread is inside, and lets none in meanwhile. False if one is. `look` is short, and
    /// calls nothing of the application's.
    pub(crate) fn while_outside(&self, look: impl FnOnce()) -> bool {
        let inner = lock(&self.inner);
        if inner.inside {
            return false;
        }
        look();
        true
    }

    /// The calling thread is the loop no longer.
    pub(crate) fn leave(&self) {
        perturb("outside, and nobody can be the loop");
        let mut inner = lock(&self.inner);
        inner.inside = false;
        inner.bells.ring();
    }

    /// The calling thread, `me`, waits for the end of the pool, and is the loop from here on if it can be;
    /// `anyway`: whoever was inside last. It is not while `may` is false, which is asked under the lock.
    /// `tell` as for [`Caller::enter`]. If it can't be, it sleeps until that may have changed, or until
    /// `deadline`, in nanoseconds of the monotonic clock. The caller has disabled cancellation.
    ///
    /// Woken by [`Caller::leave`] and [`Caller::ring`], and by the end of the thread that was last inside.
    pub(crate) fn enter_to_end(
        &self,
        me: Option<&Thread>,
        deadline: Option<u64>,
        anyway: bool,
        may: impl FnOnce() -> bool,
        tell: impl FnOnce(),
    ) -> Entered {
        let rings = Semaphore::new();
        let (bell, at_end) = (Bell::new(&rings), Bell::new(&rings));
        let mut inner = lock(&self.inner);
        let mut other = None;
        if !inner.inside && may() {
            match &inner.last {
                Last::Known(last) if !anyway && me != Some(last) => other = Some(last.clone()),
                _ => {}
            }
            if !other.as_ref().is_some_and(|last| last.ring_at_end(&at_end)) {
                inner.begin(me, tell);
                return Entered::Inside;
            }
        }
        inner.bells.add(&bell);
        drop(inner);
        perturb("on the list of those who wait to be the loop, and not asleep");
        let woken = match deadline {
            Some(deadline) => rings.wait_until(deadline),
            None => {
                rings.wait();
                true
            }
        };
        if let Some(other) = other {
            other.forget(&at_end);
        }
        lock(&self.inner).bells.remove(&bell);
        if woken {
            Entered::Woken
        } else {
            Entered::TimedOut
        }
    }

    /// What [`Caller::enter_to_end`] asks about has changed.
    pub(crate) fn ring(&self) {
        lock(&self.inner).bells.ring();
    }

    /// Calls `call` if a thread is inside, which does not leave meanwhile. `None` if there is none.
    pub(crate) fn while_inside<T>(&self, call: impl FnOnce() -> T) -> Option<T> {
        let inner = lock(&self.inner);
        inner.inside.then(call)
    }

    /// Whether the calling thread was the last inside.
    pub(crate) fn was_here(&self) -> bool {
        Thread::is_current(self.last.load(Ordering::Relaxed))
    }
}
