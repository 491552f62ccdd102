// SPDX-License-Identifier: GPL-3.0-or-later
//! What the call that makes a job knows of it.

use libc::{c_int, c_void};

use super::flags::Kind;
use crate::abi::{NS_JOB_THREAD, PRFileDesc, ns_job_t, ns_job_type_t};

/// What triggers a job. The flags say in which directions a descriptor triggers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// Nothing: the job runs as soon as it is armed.
    Now,
    /// A time after it is armed, in nanoseconds.
    Timer(u64),
    /// A descriptor. `timeout` is in nanoseconds, [`NEVER`] for none.
    Io {
        fd: c_int,
        prfd: *mut PRFileDesc,
        timeout: u64,
    },
    /// A signal.
    Signal(c_int),
}

/// No time at all: later than every deadline.
pub(crate) const NEVER: u64 = u64::MAX;

/// The parameters of a new job.
pub(crate) struct Spec {
    pub(crate) flags: ns_job_type_t,
    pub(crate) trigger: Trigger,
    pub(crate) func: unsafe extern "C" fn(*mut ns_job_t),
    pub(crate) data: *mut c_void,
    /// Whether to arm the job.
    pub(crate) armed: bool,
    /// What to make room for in front of the job.
    pub(crate) front: Front,
}

/// What is in front of a job in its block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Front {
    Nothing,
    /// Room for a group: only what is made unarmed can be put in one later.
    Group,
    /// Room for a stamp: the job's pool measures times.
    Stamp,
    Both,
}

impl Front {
    /// Room for a group, if `group` says so.
    #[inline(always)]
    pub(crate) fn new(group: bool) -> Self {
        if group { Self::Group } else { Self::Nothing }
    }

    /// The same and room for a stamp.
    pub(crate) fn timed(self) -> Self {
        match self {
            Self::Nothing | Self::Stamp => Self::Stamp,
            Self::Group | Self::Both => Self::Both,
        }
    }
}

impl Spec {
    /// Whether the job goes straight to the workers when it is armed, outside groups.
    pub(crate) fn is_threaded_run_now(&self) -> bool {
        self.trigger == Trigger::Now && self.flags & NS_JOB_THREAD != 0
    }

    /// The kind of the job.
    pub(crate) fn kind(&self) -> Kind {
        match self.trigger {
            Trigger::Now => Kind::Now,
            Trigger::Timer(_) => Kind::Timer,
            Trigger::Io { .. } => Kind::Io,
            Trigger::Signal(_) => Kind::Signal,
        }
    }
}
