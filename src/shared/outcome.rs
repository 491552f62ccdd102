// SPDX-License-Identifier: GPL-3.0-or-later
//! What came of a call on a job.

/// The result of a request to arm a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Armed {
    Yes,
    ShuttingDown,
    NotNow,
}

/// The result of a request to finish with a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// Its callback is not running.
    Yes,
    /// Its callback is running, for the last time: perhaps on this thread, which makes the request.
    Running,
    /// The job is armed, and the caller did not ask to finish with armed jobs.
    Armed,
}

/// Why a job could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MakeError {
    NoMemory,
    /// The system refuses to deliver the signal.
    NoSignal,
    /// The descriptor is one of the pool's own.
    OwnDescriptor,
    /// The pool belongs to the parent process.
    Forked,
}
