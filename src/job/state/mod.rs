// SPDX-License-Identifier: GPL-3.0-or-later
//! The job's state word: one atomic that says where a job is in its life and who holds it.
//!
//! Every change of state is one function here, and one atomic step. There is no lock on a job:
//! `done` from one thread against `rearm` from another against the callback's return on a third
//! are compare-and-swaps on this word, and the loser of each looks again.
//!
//! The word is a state and flag bits:
//!
//! | bit | means | set by | cleared by |
//! |---|---|---|---|
//! | `EXEC` | the callback is executing | who begins it | who ended it, in [`State::finish`] |
//! | `REQ` | the job is in the request queue, once; or the ending loop disposes of it | who is about to push it; the loop | the loop, popping it, or at once |
//! | `WORK` | the job is in the work queue, or the loop's own, once; or disposed of in the ready list | who is about to push it, or disposes of it | the worker or the loop, popping it |
//! | `WAITED` | somebody is blocked in `ns_job_wait` | the waiter, under its stripe's lock | who releases them, under that lock |
//! | `CLOSE` | the worker that takes it from the work queue is to close its descriptor | the loop, with `WORK` | the worker, popping it; the loop, when no worker is left |
//! | `DISPOSED` | everything is over but the memory | who disposed of it | nobody |
//!
//! `REQ` and `WORK` keep the memory, and setting the bit in the same step that decides to push is
//! what keeps a job from being in a queue twice. A job is disposed of by who took it from the
//! request queue, or ran it: `REQ` is clear by then, and only `WORK` is left to be asked for. So a
//! cancelled job that still sits in the work queue is disposed of at once by the loop, and freed by
//! whichever of the two, loop and worker, lets go of it last.
//!
//! Unless closing its descriptor may block. Then the loop takes it out of everything and leaves the
//! close to a worker: it sets `CLOSE` and `WORK` in one step. If the work queue holds the job already,
//! since it was cancelled there, the worker that pops it finds `CLOSE`; else the loop pushes it. The
//! worker closes, sets `REQ`, and the loop, which finds the job among the requests once more, has only
//! the done callback left to call.

mod snapshot;

use crate::job::wait::{Outcome, Waiters};
use crate::sync::{AtomicU32, Memory, Ordering};
pub(crate) use snapshot::{ARMED, DELETED, NEEDS_ARM, NEEDS_DELETE, REQ, RUNNING, WAITING, WORK};
use snapshot::{CLOSE, DISPOSED, Snapshot, WAITED};

/// See the module.
#[derive(Debug)]
pub(crate) struct State {
    word: AtomicU32,
    /// The job's.
    memory: Memory,
}

/// What became of a request to arm.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arm {
    /// Armed, with the queue's bit set: push it.
    Push,
    /// The callback is running: armed when it returns.
    Recorded,
    /// Not in this state.
    Refused,
}

/// What became of a request to finish a job.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// To be disposed of, with `REQ` set: push it.
    Push,
    /// The same, and it was WAITING: [`State::end_from`] tells.
    PushIdle,
    /// To be disposed of by the loop, which will find it in the request queue.
    Queued,
    /// The callback is running: disposed of when it returns.
    Marked,
    /// It was finished before, and no callback is running.
    Over,
    /// It was finished before, and its last callback is running.
    OverRunning,
    /// It is armed, and that was not to be undone.
    Armed,
}

/// What a worker is to do with a job that it took from the work queue.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    /// Run it.
    Run,
    /// It was cancelled; the loop is disposing of it.
    Leave,
    /// The loop waits for its descriptor to be closed: close it, then [`State::closed`].
    Close,
    /// It was cancelled and disposed of: free its memory.
    Free,
}

/// What comes after a callback.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum After {
    /// WAITING, and the application's: touch it no more, unless the loop owns parts of it.
    Idle,
    /// ARMED again, with the bit set that was asked for.
    Armed,
    /// NEEDS_DELETE, with the bit set that was asked for.
    Dispose,
}

/// What a thread that wants to wait finds.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wait {
    /// WAITING: nothing to wait for.
    Idle,
    /// Being disposed of.
    Deleting,
    /// Marked: whoever moves the job on will say so.
    Marked,
}

impl State {
    fn new(word: u32) -> Self {
        Self {
            word: AtomicU32::new(word),
            memory: Memory::new(),
        }
    }

    /// The word, about to be read or changed.
    fn word(&self) -> &AtomicU32 {
        self.memory.used();
        &self.word
    }

    /// The word as it is.
    fn look(&self) -> Snapshot {
        Snapshot(self.word().load(Ordering::Acquire))
    }

    /// Set bits, whatever else the word says. Returns the word before.
    fn set(&self, bits: u32) -> Snapshot {
        Snapshot(self.word().fetch_or(bits, Ordering::AcqRel))
    }

    /// Clear bits, whatever else the word says. Returns the word before.
    fn clear(&self, bits: u32) -> Snapshot {
        Snapshot(self.word().fetch_and(!bits, Ordering::AcqRel))
    }

    /// The job's memory, which a model gives back.
    #[cfg(loom)]
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// A job that is being made, and that nobody knows yet: WAITING, in no queue.
    pub(crate) fn waiting() -> Self {
        Self::new(WAITING)
    }

    /// The same: ARMED, with the bit of the queue (REQ or WORK) that it will be pushed on.
    pub(crate) fn armed(queue: u32) -> Self {
        Self::new(ARMED | queue)
    }

    /// The state alone, without the bits.
    pub(crate) fn now(&self) -> u32 {
        self.look().state()
    }

    /// Whether the callback is executing.
    pub(crate) fn is_executing(&self) -> bool {
        self.look().is_executing()
    }

    /// Change the word by `next` until it sticks; `None` leaves it alone. Returns the word before
    /// and whether it was changed.
    ///
    /// The order is AcqRel: what its armer wrote is seen by the callback, what the callback wrote
    /// by whoever sees the job WAITING or disposes of it.
    fn change(&self, next: impl Fn(Snapshot) -> Option<Snapshot>) -> Result<Snapshot, Snapshot> {
        let mut word = self.look();
        loop {
            let Some(new) = next(word) else {
                return Err(word);
            };
            match self.word().compare_exchange_weak(
                word.0,
                new.0,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => return Ok(word),
                Err(now) => word = Snapshot(now),
            }
        }
    }

    /// As [`State::change`], for a step that ends what waiters wait for: `next` also says with
    /// which outcome. The step that finds `WAITED` is taken under the stripe's lock, together
    /// with the hand-out of results, so that nobody can free the job in between.
    #[inline(always)]
    fn settle(
        &self,
        waiters: &Waiters,
        next: impl Fn(Snapshot) -> Option<(Snapshot, Option<Outcome>)>,
    ) -> Result<Snapshot, Snapshot> {
        let mut word = self.look();
        loop {
            let Some((new, outcome)) = next(word) else {
                return Err(word);
            };
            let step = |new: Snapshot| {
                self.word()
                    .compare_exchange(word.0, new.0, Ordering::AcqRel, Ordering::Acquire)
            };
            let done = match outcome {
                Some(outcome) if word.is_waited_for() => {
                    waiters.release(self, outcome, || step(new.no_longer_waited_for()))
                }
                _ => step(new),
            };
            match done {
                Ok(_) => return Ok(word),
                Err(now) => word = Snapshot(now),
            }
        }
    }

    /// WAITING → ARMED with `queue` (REQ or WORK) set; RUNNING → NEEDS_ARM, but not for a PERSIST
    /// job, which arms itself.
    pub(crate) fn arm(&self, queue: u32, persist: bool) -> Arm {
        let step = self.change(|word| match word.state() {
            // Nobody holds it, nor waits for it.
            WAITING => Some(Snapshot(ARMED).queued(queue)),
            RUNNING if !persist => Some(word.moved_to(NEEDS_ARM)),
            _ => None,
        });
        match step {
            Ok(word) if word.is_idle() => Arm::Push,
            Ok(_) => Arm::Recorded,
            Err(_) => Arm::Refused,
        }
    }

    /// Any state → NEEDS_DELETE; an ARMED job only if `even_armed`.
    ///
    /// An executing callback is left to return; its `finish` finds the mark. Otherwise the loop
    /// disposes of the job: it finds it in the request queue, where it either is already or is
    /// to be pushed now.
    #[inline(always)]
    pub(crate) fn end(&self, waiters: &Waiters, even_armed: bool) -> End {
        match self.end_from(waiters, even_armed) {
            End::PushIdle => End::Push,
            end => end,
        }
    }

    /// As [`State::end`], and tells a job that was WAITING from one that was armed.
    #[inline(always)]
    pub(crate) fn end_from(&self, waiters: &Waiters, even_armed: bool) -> End {
        let finished = |word: Snapshot| word.moved_to(NEEDS_DELETE);
        let step = self.settle(waiters, |word| match word.state() {
            NEEDS_DELETE | DELETED => None,
            ARMED if !even_armed => None,
            _ if word.is_executing() => Some((finished(word), None)),
            _ => Some((finished(word).queued(REQ), Some(Outcome::Deleting))),
        });
        match step {
            Ok(word) if word.is_executing() => End::Marked,
            Ok(word) if word.is_in_requests() => End::Queued,
            Ok(word) if word.is_idle() => End::PushIdle,
            Ok(_) => End::Push,
            Err(word) if word.is_armed() => End::Armed,
            Err(word) if word.is_executing() => End::OverRunning,
            Err(_) => End::Over,
        }
    }

    /// The loop took the job from the request queue. Returns the state that it finds.
    pub(crate) fn take_request(&self) -> u32 {
        let before = self.clear(REQ);
        debug_assert!(before.is_in_requests(), "in the queue, and not marked");
        before.state()
    }

    /// A threaded job fired: ARMED stays ARMED, with WORK set. False if it was cancelled.
    pub(crate) fn dispatch(&self) -> bool {
        self.change(|word| word.is_armed().then_some(word.queued(WORK)))
            .is_ok()
    }

    /// The loop is about to call the callback: ARMED → RUNNING. False if it was cancelled.
    pub(crate) fn begin(&self) -> bool {
        self.change(|word| word.is_armed().then_some(word.begun()))
            .is_ok()
    }

    /// A worker took the job from the work queue: ARMED → RUNNING, unless it was cancelled.
    pub(crate) fn take_work(&self) -> Work {
        let step = self.change(|word| {
            let taken = word.taken_from_work();
            Some(if word.is_armed() {
                taken.begun()
            } else {
                taken
            })
        });
        debug_assert!(step.is_ok_and(|word| word.is_in_work()));
        match step {
            Ok(word) if word.is_armed() => Work::Run,
            Ok(word) if word.is_disposed_of() => Work::Free,
            Ok(word) if word.is_to_be_closed() => Work::Close,
            _ => Work::Leave,
        }
    }

    /// The loop leaves the close of the job's descriptor to a worker. True if the caller is to push
    /// the job on the work queue; else it is there, and a worker will find it.
    #[must_use]
    pub(crate) fn ask_for_close(&self) -> bool {
        !self.set(WORK | CLOSE).is_in_work()
    }

    /// Its descriptor is closed: `REQ` is set, and the caller is to push it for the loop.
    pub(crate) fn closed(&self) {
        self.set(REQ);
    }

    /// The loop took the job from the work queue, since no worker is left. True if a worker was to
    /// close its descriptor: that is the loop's again. Else the queue still counts as holding it.
    #[must_use]
    pub(crate) fn take_close(&self) -> bool {
        self.change(|word| word.is_to_be_closed().then_some(word.taken_from_work()))
            .is_ok()
    }

    /// The loop is about to dispose of a job that is in its ready list: that keeps the memory, as
    /// the work queue would.
    pub(crate) fn hold(&self) {
        self.set(WORK);
    }

    /// Take the job from the work queue, or the ready list, without running it. True if that was
    /// all that held its memory.
    pub(crate) fn drop_work(&self) -> bool {
        self.clear(WORK).is_disposed_of()
    }

    /// The callback returned. `again` is asked only where it matters: whether a job may be armed
    /// at all (not once the pool shuts down). `arm` and `dispose` are the queue bits to set with
    /// the outcome, so that the caller can push; without one, the caller itself disposes of it, and
    /// the disposal begins here.
    #[cfg(test)]
    pub(crate) fn finish(
        &self,
        waiters: &Waiters,
        persist: bool,
        again: impl Fn() -> bool,
        arm: u32,
        dispose: u32,
    ) -> After {
        self.finish_noting(waiters, persist, again, arm, dispose, || {})
    }

    /// As [`State::finish`]. `note` is called whenever the job is about to become WAITING, which may
    /// then not come to pass: afterwards it may be gone.
    pub(crate) fn finish_noting(
        &self,
        waiters: &Waiters,
        persist: bool,
        again: impl Fn() -> bool,
        arm: u32,
        dispose: u32,
        note: impl Fn(),
    ) -> After {
        let after = |word: Snapshot| match word.state() {
            NEEDS_DELETE => After::Dispose,
            NEEDS_ARM if again() => After::Armed,
            RUNNING if persist && again() => After::Armed,
            _ => After::Idle,
        };
        let chosen = std::cell::Cell::new(After::Idle);
        let step = self.settle(waiters, |word| {
            chosen.set(after(word));
            let returned = word.returned();
            Some(match chosen.get() {
                After::Idle => {
                    note();
                    (returned.moved_to(WAITING), Some(Outcome::Idle))
                }
                After::Armed => (returned.moved_to(ARMED).queued(arm), None),
                After::Dispose => {
                    let state = if dispose == 0 { DELETED } else { NEEDS_DELETE };
                    (
                        returned.moved_to(state).queued(dispose),
                        Some(Outcome::Deleting),
                    )
                }
            })
        });
        debug_assert!(step.is_ok());
        chosen.get()
    }

    /// NEEDS_DELETE → DELETED, if [`State::finish`] has not done that: the done callback is about to
    /// run.
    pub(crate) fn begin_disposal(&self) {
        let step = self.change(|word| match word.state() {
            DELETED => None,
            _ => Some(word.moved_to(DELETED)),
        });
        debug_assert!(step.is_err() || step.is_ok_and(|word| word.state() == NEEDS_DELETE));
    }

    /// Everything is over but the memory. True if the caller is to free it: no queue holds it.
    #[must_use]
    pub(crate) fn end_disposal(&self) -> bool {
        let word = self.look();
        debug_assert!(
            !word.is_in_requests(),
            "who disposes of it took it from there first"
        );
        // WORK is not set again once this disposal has begun, so one look is enough if it is not set.
        !word.is_in_work() || !self.set(DISPOSED).is_in_work()
    }

    /// A thread wants to wait: mark the word, unless there is nothing to wait for. The caller
    /// holds the stripe's lock.
    pub(crate) fn mark_waited(&self) -> Wait {
        let step = self.change(|word| {
            let over = word.is_idle() || word.is_finished_with() && !word.is_executing();
            (!over).then_some(word.waited_for())
        });
        match step {
            Ok(_) => Wait::Marked,
            Err(word) if word.is_idle() => Wait::Idle,
            Err(_) => Wait::Deleting,
        }
    }

    /// The last waiter gave up, or all were released. The caller holds the stripe's lock.
    pub(crate) fn clear_waited(&self) {
        self.clear(WAITED);
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
