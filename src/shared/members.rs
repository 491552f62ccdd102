// SPDX-License-Identifier: GPL-3.0-or-later
//! The pool's own threads: which the calling thread is, and how many are busy.

use std::sync::atomic::{Ordering, fence};

use super::Shared;
use crate::job::here::{self, on_loop_of, on_thread_of};
use crate::shared::caller::Caller;
use crate::stats::{Slot, Thread};

impl Shared {
    /// Makes the calling thread a thread of the pool.
    pub(crate) fn enter(&self, slot: &Slot, is_loop: bool) {
        slot.enter(if is_loop {
            Thread::Loop
        } else {
            Thread::Worker
        });
        here::enter_pool(self.as_c(), is_loop, slot);
    }

    /// The calling thread is the loop for a while. Returns the loop's slot.
    pub(crate) fn enter_loop(&self) -> &Slot {
        let slot = self.slots.of_loop();
        slot.enter(Thread::Loop);
        slot
    }

    /// Whether the calling thread belongs to the pool.
    pub(crate) fn is_here(&self) -> bool {
        on_thread_of(self.as_c())
    }

    /// Whether what the calling thread waits for could wait for it as the loop: it is the loop of the
    /// pool, or was last.
    pub(crate) fn is_loop_here(&self) -> bool {
        on_loop_of(self.as_c()) || self.caller.as_ref().is_some_and(Caller::was_here)
    }

    /// Notes how many workers are busy, if that may be more than ever before.
    ///
    /// A worker first says that it is busy, and then looks at the others. So the last of several that begin
    /// at once sees them all.
    pub(crate) fn note_busy(&self) {
        let most = self.busy_max.load(Ordering::Relaxed);
        if self.work.awake() > most {
            fence(Ordering::SeqCst);
            self.busy_max
                .fetch_max(self.slots.busy(), Ordering::Relaxed);
        }
    }
}
