// SPDX-License-Identifier: GPL-3.0-or-later
//! What has arrived for one pool: written by handlers, read by its loop.

use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use libc::c_int;

use super::numbers::NUMBERS;
use crate::fork;
use crate::perturb::perturb_in_handler;
use crate::wake::Wake;

/// What has arrived for one pool.
pub(crate) struct Mailbox {
    /// The process that made the pool: see [`fork`].
    generation: u32,
    /// What gets the pool's loop to look here. Null until a job watches a signal.
    wake: AtomicPtr<Wake>,
    /// How many of each have arrived.
    counts: [AtomicU32; NUMBERS],
    /// Something has arrived since the loop last looked.
    any: AtomicBool,
    /// The pool's places in the lists of those who watch.
    pub(super) nodes: [Node; NUMBERS],
}

/// A pool in the list of one signal.
pub(super) struct Node {
    /// Kept when it leaves the list, for handlers that are at it.
    pub(super) next: AtomicPtr<Node>,
    pub(super) mailbox: AtomicPtr<Mailbox>,
    /// The pool's jobs for the signal: while there are any it is in the list. Under the lock.
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

    /// Whether this process is a forked child of the one that made it.
    pub(super) fn is_forked(&self) -> bool {
        fork::is_over(self.generation)
    }

    /// Before the first handler comes here: its pool's loop is woken by `wake`, which stays as long
    /// as this does.
    pub(super) fn belongs_to(&self, wake: &Wake) {
        self.wake
            .store(ptr::from_ref(wake).cast_mut(), Ordering::SeqCst);
    }

    /// In a signal handler: count it and wake the loop.
    pub(super) fn arrived(&self, signum: c_int) {
        self.counts[signum as usize].fetch_add(1, Ordering::SeqCst);
        perturb_in_handler("counted, and the mailbox says that it is empty");
        self.any.store(true, Ordering::SeqCst);
        perturb_in_handler("in the mailbox, and the loop not woken");
        // SAFETY: set before the mailbox was in a list, and there as long as it is.
        let wake = unsafe { &*self.wake.load(Ordering::SeqCst) };
        // Where there is no pipe any more, the loop sees to it, once something else wakes it.
        if wake.sleeping.take() && !wake.write() {
            wake.nudged.store(true, Ordering::SeqCst);
        }
    }

    /// How many of `signum` have arrived.
    pub(crate) fn count(&self, signum: c_int) -> u32 {
        self.counts[signum as usize].load(Ordering::SeqCst)
    }

    /// Whether something has arrived since the last [`Mailbox::take`].
    pub(crate) fn is_empty(&self) -> bool {
        !self.any.load(Ordering::SeqCst)
    }

    /// The loop is about to look. What arrives from now on says so again.
    pub(crate) fn take(&self) -> bool {
        // The load keeps a read-modify-write out of every turn.
        !self.is_empty() && self.any.swap(false, Ordering::SeqCst)
    }
}
