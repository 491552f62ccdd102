// SPDX-License-Identifier: GPL-3.0-or-later
//! A job's flags: those that the application gave it, and a few of the library's own.

use std::sync::atomic::{AtomicU16, Ordering};

use crate::abi::{NS_JOB_IO, NS_JOB_SIGNAL, NS_JOB_THREAD, NS_JOB_TIMER, ns_job_type_t};

/// The kind of a job: its trigger without the parameters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Now,
    Timer,
    Io,
    Signal,
}

/// The job is in a group.
const GROUPED: u16 = 1 << 15;
/// The job has room for a group. Not unusual in itself.
const ROOMY: u16 = 1 << 14;
/// The job counts against its pool's limit while it waits for a worker.
const COUNTED: u16 = 1 << 13;
/// The flags that are public.
const PUBLIC: u16 = (1 << 10) - 1;
/// A job with any of these takes steps that most jobs do not. Each step of a job tests once whether
/// it has any of them.
const UNUSUAL: u16 = GROUPED | COUNTED;

/// The flags of a job. They are set by the call that makes the job, and changed only by a call that no
/// other may overlap; any thread may read them.
pub(crate) struct Flags(AtomicU16);

impl Flags {
    /// The flags of a new job.
    pub(crate) fn new(public: ns_job_type_t) -> Self {
        Self(AtomicU16::new(public as u16))
    }

    #[inline(always)]
    fn get(&self) -> u16 {
        self.0.load(Ordering::Relaxed)
    }

    /// No other thread changes them meanwhile.
    fn replace(&self, old: u16, new: u16) {
        self.0.store(self.get() & !old | new, Ordering::Relaxed);
    }

    /// The public ones.
    #[inline(always)]
    pub(crate) fn public(&self) -> ns_job_type_t {
        ns_job_type_t::from(self.get() & PUBLIC)
    }

    /// Whether the job takes steps that most jobs do not.
    #[inline(always)]
    pub(crate) fn is_unusual(&self) -> bool {
        self.get() & UNUSUAL != 0
    }

    /// Whether the job is in a group.
    #[inline(always)]
    pub(crate) fn is_grouped(&self) -> bool {
        self.get() & GROUPED != 0
    }

    /// The job is in a group from now on, and counts in its queue alone.
    pub(crate) fn set_grouped(&self) {
        self.replace(COUNTED, GROUPED);
    }

    /// Whether the job runs in a worker, or from a group's queue.
    #[inline(always)]
    pub(crate) fn leaves_loop(&self) -> bool {
        self.get() & (NS_JOB_THREAD as u16 | GROUPED) != 0
    }

    /// Whether the job has room for a group.
    pub(crate) fn is_roomy(&self) -> bool {
        self.get() & ROOMY != 0
    }

    /// The job, which is new, has room for a group.
    pub(crate) fn set_roomy(&self) {
        self.replace(0, ROOMY);
    }

    /// Whether the job counts against its pool's limit.
    pub(crate) fn is_counted(&self) -> bool {
        self.get() & COUNTED != 0
    }

    /// The job counts against its pool's limit from now on.
    pub(crate) fn set_counted(&self) {
        self.replace(0, COUNTED);
    }

    /// The kind of the job.
    #[inline(always)]
    pub(crate) fn kind(&self) -> Kind {
        let flags = self.public();
        if flags & NS_JOB_IO != 0 {
            Kind::Io
        } else if flags & NS_JOB_SIGNAL != 0 {
            Kind::Signal
        } else if flags & NS_JOB_TIMER != 0 {
            Kind::Timer
        } else {
            Kind::Now
        }
    }
}
