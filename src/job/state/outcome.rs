// SPDX-License-Identifier: GPL-3.0-or-later
//! What became of the steps of a job: the results of the functions on its state word.

/// The result of a request to arm.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arm {
    /// The job is ARMED with the queue's bit set: the caller must push it.
    Push,
    /// The callback is running: the job will be armed when it returns.
    Recorded,
    /// The job cannot be armed in this state.
    Refused,
}

/// The result of a request to finish with a job.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The job has `REQ` set: the caller must push it, so that the loop disposes of it.
    Push,
    /// The same, and the job was WAITING; only [`State::end_from`] returns this.
    PushIdle,
    /// The job is in the request queue already: the loop will find it there and dispose of it.
    Queued,
    /// The callback is running: the job will be disposed of when it returns.
    Marked,
    /// The job was finished with before, and no callback is running.
    Over,
    /// The job was finished with before, and its last callback is running.
    OverRunning,
    /// The job is armed, and the caller did not ask to finish with armed jobs.
    Armed,
}

/// What a worker must do with a job that it took from the work queue.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Run it.
    Run,
    /// Nothing: it was cancelled, and the loop is disposing of it.
    Leave,
    /// Close its descriptor, for which the loop waits, then call [`State::closed`].
    Close,
    /// Free its memory: it was cancelled and is disposed of.
    Free,
}

/// What happens to a job after its callback.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// The job is WAITING and belongs to the application: do not touch it any more, except for the
    /// parts that the loop owns.
    Idle,
    /// The job is ARMED again, with the requested bit set.
    Armed,
    /// The job is NEEDS_DELETE with the requested bit set, or DELETED if no bit was requested.
    Dispose,
}

/// What a thread that wants to wait finds.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// The job is WAITING: there is nothing to wait for.
    Idle,
    /// The job is being disposed of.
    Deleting,
    /// The job is marked: the thread that settles it will hand out the outcome.
    Marked,
}
