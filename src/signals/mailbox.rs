// SPDX-License-Identifier: GPL-3.0-or-later
//! The signals that have arrived for one pool: handlers write them, the pool's loop reads them.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use libc::c_int;

use super::numbers::NUMBERS;
use crate::fork;
use crate::perturb::perturb_in_handler;
use crate::wake::Wake;

/// The signals that have arrived for one pool.
pub(crate) struct Mailbox {
    /// The generation of the process that made the pool: see [`fork`].
    generation: u32,
    /// Wakes the pool's loop. Null until a job watches a signal.
    wake: AtomicPtr<Wake>,
    /// How many of each signal have arrived.
    counts: [AtomicU32; NUMBERS],
    /// A signal has arrived since the loop last looked.
    any: AtomicBool,
    /// The pool's nodes in the lists of the pools that watch.
    pub(super) nodes: [Node; NUMBERS],
}

/// A pool's entry in the list of one signal.
pub(super) struct Node {
    /// Kept when the node leaves the list, because a handler may be about to follow it.
    pub(super) next: AtomicPtr<Node>,
    pub(super) mailbox: AtomicPtr<Mailbox>,
    /// How many of the pool's jobs watch the signal. The node is in the list while this is not
    /// zero. Protected by the lock.
    pub(super) jobs: AtomicUsize,
}

impl Mailbox {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self {
            generation: fork::generation(),
            wake: AtomicPtr::new(ptr::null_mut()),
            counts: [const { AtomicU32::new(0) }; NUMBERS],
            any: AtomicBool::new(false),
            nodes: [const {
                Node {
                    next: AtomicPtr::new(ptr::null_mut()),
                    mailbox: AtomicPtr::new(ptr::null_mut()),
                    jobs: AtomicUsize::new(0),
                }
            }; NUMBERS],
        }
    }

    /// Whether this process is a forked child of the one that made the mailbox.
    pub(super) fn is_forked(&self) -> bool {
        fork::is_over(self.generation)
    }

    /// Set what wakes the pool's loop. Call it before a handler can find this mailbox. `wake` lives
    /// as long as the mailbox.
    pub(super) fn belongs_to(&self, wake: &Wake) {
        self.wake
            .store(ptr::from_ref(wake).cast_mut(), Ordering::SeqCst);
    }

    /// In a signal handler: count the signal and wake the loop.
    pub(super) fn arrived(&self, signum: c_int) {
        self.counts[signum as usize].fetch_add(1, Ordering::SeqCst);
        perturb_in_handler("counted, and the mailbox says that it is empty");
        self.any.store(true, Ordering::SeqCst);
        perturb_in_handler("in the mailbox, and the loop not woken");
        // SAFETY: set before the mailbox was in a list, and it lives as long as the mailbox.
        let wake = unsafe { &*self.wake.load(Ordering::SeqCst) };
        // If the pipe is gone, leave a note: the loop deals with the signal when something else
        // wakes it.
        if wake.sleeping.take() && !wake.write(ptr::null::<Self>()) {
            wake.nudged.store(true, Ordering::SeqCst);
        }
    }

    /// How many of `signum` have arrived.
    pub(crate) fn count(&self, signum: c_int) -> u32 {
        self.counts[signum as usize].load(Ordering::SeqCst)
    }

    /// Whether no signal has arrived since the last [`Mailbox::take`].
    pub(crate) fn is_empty(&self) -> bool {
        !self.any.load(Ordering::SeqCst)
    }

    /// Returns whether a signal has arrived, and resets that. The loop calls it before it reads the
    /// counts, so a signal that arrives later is reported by the next call.
    pub(crate) fn take(&self) -> bool {
        // The load avoids a read-modify-write in every turn.
        !self.is_empty() && self.any.swap(false, Ordering::SeqCst)
    }
}
