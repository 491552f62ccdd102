// SPDX-License-Identifier: GPL-3.0-or-later
//! What the queues of a pool hold: a job, or a group that has work to do.

use std::ptr::NonNull;

use super::handle::GroupPtr;
use crate::job::JobPtr;

/// In the lowest bit of the address: it is a group's. Jobs and groups are aligned to more than that.
const GROUP: usize = 1;

/// A job or a group, in one word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Task(NonNull<u8>);

// SAFETY: what it stands for may be handed to other threads.
unsafe impl Send for Task {}

/// What a [`Task`] stands for.
pub(crate) enum Kind {
    Job(JobPtr),
    Group(GroupPtr),
}

impl Task {
    /// `job` is to be run, closed or looked at, by its state.
    #[inline(always)]
    pub(crate) fn job(job: JobPtr) -> Self {
        Self(job.as_job().cast())
    }

    /// `group` is to be served.
    pub(crate) fn group(group: GroupPtr) -> Self {
        Self(group.as_ptr().cast().map_addr(|at| at | GROUP))
    }

    /// Which of the two it is.
    #[inline(always)]
    pub(crate) fn kind(self) -> Kind {
        if self.0.addr().get() & GROUP == 0 {
            // SAFETY: made of a job, which the queue has kept.
            Kind::Job(unsafe { JobPtr::new(self.0.cast()) })
        } else {
            let at = self.0.as_ptr().map_addr(|at| at & !GROUP);
            // SAFETY: made of a group, which its slot has kept.
            Kind::Group(unsafe { GroupPtr::new(NonNull::new_unchecked(at).cast()) })
        }
    }
}
