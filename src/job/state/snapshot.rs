// SPDX-License-Identifier: GPL-3.0-or-later
//! The state word as it was seen at one moment, or is to be: what it says, and what it becomes. See
//! the table in the module above for who sets which bit.

/// Idle, owned by the application.
pub(crate) const WAITING: u32 = 0;
/// Asked for, and armed when the callback that runs now returns.
pub(crate) const NEEDS_ARM: u32 = 1;
/// In a queue or in the poller.
pub(crate) const ARMED: u32 = 2;
/// The callback is executing.
pub(crate) const RUNNING: u32 = 3;
/// Finished with: no further callback.
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

/// A word.
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

    /// The state alone.
    pub(super) fn state(self) -> u32 {
        self.0 & STATE
    }

    pub(super) fn is_idle(self) -> bool {
        self.state() == WAITING
    }

    pub(super) fn is_armed(self) -> bool {
        self.state() == ARMED
    }

    /// Whether it was finished with.
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

    /// Whether everything is over but the memory.
    pub(super) fn is_disposed_of(self) -> bool {
        self.has(DISPOSED)
    }

    /// In another state, held by the same.
    pub(super) fn moved_to(self, state: u32) -> Self {
        self.without(STATE).with(state)
    }

    /// RUNNING, and its callback executes.
    pub(super) fn begun(self) -> Self {
        self.moved_to(RUNNING).with(EXEC)
    }

    /// Its callback has returned.
    pub(super) fn returned(self) -> Self {
        self.without(EXEC)
    }

    /// Held by a queue: REQ, WORK, or none.
    pub(super) fn queued(self, queue: u32) -> Self {
        self.with(queue)
    }

    /// Taken from the work queue, with what the worker was to do there.
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
