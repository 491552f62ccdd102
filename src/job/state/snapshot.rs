// SPDX-License-Identifier: GPL-3.0-or-later
//! A value of the state word: what it says, and the values that follow it. The table in the module
//! above says which thread sets which bit.

/// Idle; the application owns the job.
pub(crate) const WAITING: u32 = 0;
/// The callback is executing, and a thread has rearmed the job: it becomes armed when the callback
/// returns.
pub(crate) const NEEDS_ARM: u32 = 1;
/// In a queue or in the poller.
pub(crate) const ARMED: u32 = 2;
/// The callback is executing.
pub(crate) const RUNNING: u32 = 3;
/// Finished with: no further callback will start.
pub(crate) const NEEDS_DELETE: u32 = 4;
/// The done callback runs or has run.
pub(crate) const DELETED: u32 = 5;

/// In the request queue.
pub(crate) const REQ: u32 = 1 << 4;
/// In the work queue.
pub(crate) const WORK: u32 = 1 << 5;

pub(super) const STATE: u32 = 0b111;
pub(super) const EXEC: u32 = 1 << 3;
pub(super) const WAITED: u32 = 1 << 6;
pub(super) const DISPOSED: u32 = 1 << 7;
pub(super) const CLOSE: u32 = 1 << 8;
pub(super) const NEW: u32 = 1 << 9;
pub(super) const CLAIMED: u32 = 1 << 10;

/// A value of the state word.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Snapshot(pub(super) u32);

impl Snapshot {
    fn has(self, bit: u32) -> bool {
        self.0 & bit != 0
    }

    fn with(self, bits: u32) -> Self {
        Self(self.0 | bits)
    }

    fn without(self, bits: u32) -> Self {
        Self(self.0 & !bits)
    }

    /// The state, without the flag bits.
    pub(super) fn state(self) -> u32 {
        self.0 & STATE
    }

    /// The state of a job that is not claimed; of one that is, no state at all.
    pub(super) fn unclaimed_state(self) -> u32 {
        self.0 & (STATE | CLAIMED)
    }

    pub(super) fn is_idle(self) -> bool {
        self.state() == WAITING
    }

    /// Whether it was never armed, nor finished with.
    pub(super) fn is_new(self) -> bool {
        self.is_idle() && self.has(NEW)
    }

    pub(super) fn is_armed(self) -> bool {
        self.state() == ARMED
    }

    /// Whether the job is finished with.
    pub(super) fn is_finished_with(self) -> bool {
        matches!(self.state(), NEEDS_DELETE | DELETED)
    }

    pub(super) fn is_executing(self) -> bool {
        self.has(EXEC)
    }

    pub(super) fn is_in_requests(self) -> bool {
        self.has(REQ)
    }

    pub(super) fn is_in_work(self) -> bool {
        self.has(WORK)
    }

    pub(super) fn is_waited_for(self) -> bool {
        self.has(WAITED)
    }

    pub(super) fn is_to_be_closed(self) -> bool {
        self.has(CLOSE)
    }

    /// Whether the job is disposed of, so that only its memory is left to free.
    pub(super) fn is_disposed_of(self) -> bool {
        self.has(DISPOSED)
    }

    /// In another state, with the same flag bits.
    pub(super) fn moved_to(self, state: u32) -> Self {
        self.without(STATE).with(state)
    }

    pub(super) fn claimed(self) -> Self {
        self.with(CLAIMED)
    }

    pub(super) fn no_longer_claimed(self) -> Self {
        self.without(CLAIMED)
    }

    /// RUNNING, with the callback executing.
    pub(super) fn begun(self) -> Self {
        self.moved_to(RUNNING).with(EXEC)
    }

    /// The callback has returned.
    pub(super) fn returned(self) -> Self {
        self.without(EXEC)
    }

    /// With the bit of a queue set: REQ, WORK, or no bit.
    pub(super) fn queued(self, queue: u32) -> Self {
        self.with(queue)
    }

    /// Taken from the work queue, together with the request to close.
    pub(super) fn taken_from_work(self) -> Self {
        self.without(WORK | CLOSE)
    }

    pub(super) fn waited_for(self) -> Self {
        self.with(WAITED)
    }

    pub(super) fn no_longer_waited_for(self) -> Self {
        self.without(WAITED)
    }
}
