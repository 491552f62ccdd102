// SPDX-License-Identifier: GPL-3.0-or-later
//! The job of the models of groups.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize as Counter, Ordering::Relaxed};

use loom::cell::UnsafeCell;

use crate::group::core::Member;
use crate::job::state::{self, State};
use crate::list::Link;

/// What a job is.
#[derive(Clone, Copy, Default)]
pub(super) struct Kind {
    /// Its callback runs in the loop.
    pub(super) in_loop: bool,
    /// The loop arms it and disposes of it: otherwise it is a run-now job.
    pub(super) watched: bool,
    /// It has no done callback.
    pub(super) silent: bool,
    /// It is not armed when it joins.
    pub(super) idle: bool,
    /// Its callback arms it again, the first time.
    pub(super) again: bool,
}

pub(super) const NOW: Kind = Kind {
    in_loop: false,
    watched: false,
    silent: false,
    idle: false,
    again: false,
};

#[repr(C)]
pub(super) struct Job {
    pub(super) link: Link,
    pub(super) state: State,
    pub(super) marks: Cell<u8>,
    pub(super) kind: Kind,
    pub(super) number: usize,
    pub(super) runs: Counter,
    pub(super) disposals: Counter,
    /// The adder writes it, then the callback and the done callback use it.
    pub(super) data: UnsafeCell<usize>,
}

impl Job {
    pub(super) fn queue(&self) -> u32 {
        if self.kind.watched {
            state::REQ
        } else {
            state::WORK
        }
    }

    /// Use the data.
    pub(super) fn own(&self) {
        // SAFETY: loom reports any concurrent access to the cell.
        self.data.with_mut(|data| unsafe { *data += 1 });
    }

    pub(super) fn free(&self) {
        self.state.memory().free();
    }

    pub(super) fn is_freed(&self) -> bool {
        self.state.memory().is_freed()
    }

    pub(super) fn runs(&self) -> usize {
        self.runs.load(Relaxed)
    }
}

#[derive(Clone, Copy)]
pub(super) struct Ptr(pub(super) *const Job);

// SAFETY: the jobs are the pool's, which outlives its threads; loom checks how they are used.
unsafe impl Send for Ptr {}

impl std::ops::Deref for Ptr {
    type Target = Job;

    fn deref(&self) -> &Job {
        // SAFETY: as above.
        unsafe { &*self.0 }
    }
}

impl Member for Ptr {
    fn link(self) -> *const Link {
        self.state.memory().used();
        self.0.cast()
    }

    unsafe fn of_link(link: *const Link) -> Self {
        let job = Self(link.cast());
        job.state.memory().used();
        job
    }

    fn state(&self) -> &State {
        &self.state
    }

    fn is_for_loop(&self) -> bool {
        self.state.memory().used();
        self.kind.in_loop
    }

    fn is_own(&self) -> bool {
        self.state.memory().used();
        !self.kind.watched
    }

    fn marks(&self) -> u8 {
        self.state.memory().used();
        self.marks.get()
    }

    fn set_marks(&self, marks: u8) {
        self.state.memory().used();
        self.marks.set(marks);
    }
}
