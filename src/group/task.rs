// SPDX-License-Identifier: GPL-3.0-or-later
//! What the queues of a pool hold: a job, or a group that has work to do.

use std::ptr::{self, NonNull};

use super::handle::GroupPtr;
use crate::job::JobPtr;

/// The lowest bit of the address, which says that it is a group's. Jobs and groups are aligned, so
/// their addresses have it clear.
const GROUP: usize = 1;

/// The word that is a request to look at all jobs: neither an address of a job's nor of a group's.
const LOOK: usize = 2;

/// A job or a group, in one word; or the request to look at all jobs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Task(NonNull<u8>);

// SAFETY: jobs and groups may be passed to other threads.
unsafe impl Send for Task {}

/// What a [`Task`] stands for.
pub(crate) enum TaskKind {
    Job(JobPtr),
    Group(GroupPtr),
    /// Somebody has asked to see all jobs. Only among requests.
    LookAtAll,
}

impl Task {
    /// `job`: its state says whether to run it, close its descriptor or look at it.
    #[inline(always)]
    pub(crate) fn job(job: JobPtr) -> Self {
        Self(job.as_job().cast())
    }

    /// `group`, which an agent has to serve.
    pub(crate) fn group(group: GroupPtr) -> Self {
        Self(group.as_ptr().cast().map_addr(|at| at | GROUP))
    }

    /// The request to look at all jobs.
    pub(crate) fn look() -> Self {
        // Rust 1.85 has no NonNull::without_provenance.
        const { assert!(LOOK != 0) };
        // SAFETY: it is not null.
        Self(unsafe { NonNull::new_unchecked(ptr::without_provenance_mut(LOOK)) })
    }

    /// Which of these it is.
    #[inline(always)]
    pub(crate) fn kind(self) -> TaskKind {
        if self.0.addr().get() & (GROUP | LOOK) == 0 {
            // SAFETY: `job` made it, and the queue keeps the job.
            TaskKind::Job(unsafe { JobPtr::new(self.0.cast()) })
        } else if self.0.addr().get() == LOOK {
            TaskKind::LookAtAll
        } else {
            let at = self.0.as_ptr().map_addr(|at| at & !GROUP);
            // SAFETY: `group` made it, and the slot keeps the group.
            TaskKind::Group(unsafe { GroupPtr::new(NonNull::new_unchecked(at).cast()) })
        }
    }
}
