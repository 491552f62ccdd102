// SPDX-License-Identifier: GPL-3.0-or-later
//! A job's flags: those that the application gave it, and a few of the library's own.

use std::sync::atomic::{AtomicU16, Ordering};

use crate::abi::{
    NS_JOB_CADENCE, NS_JOB_IO, NS_JOB_SHUTDOWN_WORKER, NS_JOB_SIGNAL, NS_JOB_THREAD, NS_JOB_TIMER,
    ns_job_type_t,
};

/// The kind of a job: its trigger without the parameters.
pub(crate) use crate::stats::JobKind as Kind;

/// The job is in a group.
pub(super) const GROUPED: u16 = 1 << 15;
/// The job has room for a group. Not unusual in itself.
const ROOMY: u16 = 1 << 14;
/// The job counts against its pool's limit while it waits for a worker.
const COUNTED: u16 = 1 << 13;
/// The job begins to watch for its trigger after a delay: see [`crate::job`].
const DELAYED: u16 = 1 << 12;
/// The job waits for something else than when it was last armed.
const CHANGED: u16 = 1 << 10;
/// The firings of the job are so many intervals after it was armed. Public.
const CADENCE: u16 = NS_JOB_CADENCE as u16;
/// The job has room for a time, its stamp, since its pool measures times. Not unusual in itself. In the
/// place of a public flag that no job can have.
const TIMED: u16 = NS_JOB_SHUTDOWN_WORKER as u16;
/// The flags that are public.
pub(super) const PUBLIC: u16 = ((1 << 9) - 1) | CADENCE;
/// A job with any of these takes steps that most jobs do not. Each step of a job tests once whether
/// it has any of them.
const UNUSUAL: u16 = GROUPED | COUNTED | DELAYED | CHANGED | CADENCE;

/// The flags of a job. Any thread may read them. They are set by the call that makes the job. Later
/// they are changed by `ns_job_set_group`, which no other call may overlap; by the thread that has
/// [claimed](crate::job::state::State::claim) the job; and, while the job is armed, by the loop.
pub(crate) struct Flags(AtomicU16);

impl Flags {
    /// The flags of a new job.
    pub(crate) fn new(public: ns_job_type_t) -> Self {
        Self(AtomicU16::new(public as u16))
    }

    /// The flags of a new job that is made in a group.
    #[inline(always)]
    pub(crate) fn of_member(public: ns_job_type_t) -> Self {
        Self(AtomicU16::new(public as u16 | ROOMY | GROUPED))
    }

    /// What they are now. A step looks once, however much it asks.
    #[inline(always)]
    pub(crate) fn look(&self) -> Look {
        Look(self.0.load(Ordering::Relaxed))
    }

    /// As `look`, by a plain load, which the compiler may share between several questions. Only for the
    /// thread that hands an armed job on, fires it, watches it again or disposes of it: no other thread
    /// changes the flags then.
    #[inline(always)]
    pub(crate) fn look_in_hand(&self) -> Look {
        // SAFETY: flags are written only by a thread that has claimed the job, which is then neither
        // armed nor finished with, and whose step to ARMED happens before this; or by the loop, and
        // then the loop has the job in hand.
        Look(unsafe { *self.0.as_ptr() })
    }

    /// No other thread changes them meanwhile.
    fn replace(&self, old: u16, new: u16) {
        self.0.store(self.look().0 & !old | new, Ordering::Relaxed);
    }

    /// The job is in a group from now on, and counts in its queue alone.
    pub(crate) fn set_grouped(&self) {
        self.replace(COUNTED, GROUPED);
    }

    /// The job, which is new, has room for a group.
    pub(crate) fn set_roomy(&self) {
        self.replace(0, ROOMY);
    }

    /// The job, which is new, has room for its stamp.
    pub(crate) fn set_timed(&self) {
        self.replace(0, TIMED);
    }

    /// The job counts against its pool's limit from now on.
    pub(crate) fn set_counted(&self) {
        self.replace(0, COUNTED);
    }

    /// The job begins to watch for its trigger after a delay.
    pub(crate) fn set_delayed(&self) {
        self.replace(0, DELAYED);
    }

    /// The job has these public flags in the place of `old` ones.
    pub(crate) fn set_changed(&self, old: ns_job_type_t, new: ns_job_type_t) {
        self.replace(old as u16, new as u16 | CHANGED);
    }

    /// What was changed is known, and the delay begins or has been dropped.
    pub(crate) fn settle(&self) {
        self.replace(DELAYED | CHANGED, 0);
    }
}

/// The flags of a job at one moment.
#[derive(Clone, Copy)]
pub(crate) struct Look(u16);

impl Look {
    /// The public ones.
    #[inline(always)]
    pub(crate) fn public(self) -> ns_job_type_t {
        ns_job_type_t::from(self.0 & PUBLIC)
    }

    /// Whether the job has any of these public flags.
    #[inline(always)]
    pub(crate) fn has(self, flags: ns_job_type_t) -> bool {
        self.public() & flags != 0
    }

    /// The kind of the job.
    #[inline(always)]
    pub(crate) fn kind(self) -> Kind {
        if self.has(NS_JOB_IO) {
            Kind::Io
        } else if self.has(NS_JOB_SIGNAL) {
            Kind::Signal
        } else if self.has(NS_JOB_TIMER) {
            Kind::Timer
        } else {
            Kind::Now
        }
    }

    /// Whether the job takes steps that most jobs do not.
    #[inline(always)]
    pub(crate) fn is_unusual(self) -> bool {
        self.0 & UNUSUAL != 0
    }

    /// Whether the job is in a group.
    #[inline(always)]
    pub(crate) fn is_grouped(self) -> bool {
        self.0 & GROUPED != 0
    }

    /// Whether the job runs in a worker, or from a group's queue.
    #[inline(always)]
    pub(crate) fn goes_to_queue(self) -> bool {
        self.0 & (NS_JOB_THREAD as u16 | GROUPED) != 0
    }

    /// Whether the job has room for a group.
    #[inline(always)]
    pub(crate) fn is_roomy(self) -> bool {
        self.0 & ROOMY != 0
    }

    /// Whether the job has room for its stamp.
    #[inline(always)]
    pub(crate) fn is_timed(self) -> bool {
        self.0 & TIMED != 0
    }

    /// Whether there is anything in front of the job in its block.
    #[inline(always)]
    pub(crate) fn has_front(self) -> bool {
        self.0 & (ROOMY | TIMED) != 0
    }

    /// Whether something is to be seen to when the job's time comes, besides its firing.
    #[inline(always)]
    pub(crate) fn is_due_unusually(self) -> bool {
        self.0 & (UNUSUAL | TIMED) != 0
    }

    /// Whether it goes from its trigger straight to the loop's ready list.
    #[inline(always)]
    pub(crate) fn goes_straight_to_ready(self) -> bool {
        self.0 & (NS_JOB_THREAD as u16 | GROUPED | TIMED) == 0
    }

    /// Whether the job counts against its pool's limit.
    pub(crate) fn is_counted(self) -> bool {
        self.0 & COUNTED != 0
    }

    /// Whether the job's firings are so many intervals after it was armed.
    pub(crate) fn is_cadence(self) -> bool {
        self.0 & CADENCE != 0
    }

    /// Whether the job begins to watch for its trigger after a delay, which has not begun.
    pub(crate) fn is_delayed(self) -> bool {
        self.0 & DELAYED != 0
    }

    /// Whether the job waits for something else than when it was last armed.
    pub(crate) fn is_changed(self) -> bool {
        self.0 & CHANGED != 0
    }
}
