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

use crate::job::wait::{Outcome, Waiters};
use crate::sync::{AtomicU32, Memory, Ordering};

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

const STATE: u32 = 0b111;
const EXEC: u32 = 1 << 3;
/// In the request queue.
pub(crate) const REQ: u32 = 1 << 4;
/// In the work queue.
pub(crate) const WORK: u32 = 1 << 5;
const WAITED: u32 = 1 << 6;
const DISPOSED: u32 = 1 << 7;
const CLOSE: u32 = 1 << 8;

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
        self.word().load(Ordering::Acquire) & STATE
    }

    /// Whether the callback is executing.
    pub(crate) fn is_executing(&self) -> bool {
        self.word().load(Ordering::Acquire) & EXEC != 0
    }

    /// Change the word by `next` until it sticks; `None` leaves it alone. Returns the word before
    /// and whether it was changed.
    ///
    /// The order is AcqRel: what its armer wrote is seen by the callback, what the callback wrote
    /// by whoever sees the job WAITING or disposes of it.
    fn change(&self, next: impl Fn(u32) -> Option<u32>) -> Result<u32, u32> {
        let mut word = self.word().load(Ordering::Acquire);
        loop {
            let Some(new) = next(word) else {
                return Err(word);
            };
            match self
                .word()
                .compare_exchange_weak(word, new, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return Ok(word),
                Err(now) => word = now,
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
        next: impl Fn(u32) -> Option<(u32, Option<Outcome>)>,
    ) -> Result<u32, u32> {
        let mut word = self.word().load(Ordering::Acquire);
        loop {
            let Some((new, outcome)) = next(word) else {
                return Err(word);
            };
            let step = |new: u32| {
                self.word()
                    .compare_exchange(word, new, Ordering::AcqRel, Ordering::Acquire)
            };
            let done = match outcome {
                Some(outcome) if word & WAITED != 0 => {
                    waiters.release(self, outcome, || step(new & !WAITED))
                }
                _ => step(new),
            };
            match done {
                Ok(_) => return Ok(word),
                Err(now) => word = now,
            }
        }
    }

    /// WAITING → ARMED with `queue` (REQ or WORK) set; RUNNING → NEEDS_ARM, but not for a PERSIST
    /// job, which arms itself.
    pub(crate) fn arm(&self, queue: u32, persist: bool) -> Arm {
        let step = self.change(|word| match word & STATE {
            WAITING => Some(ARMED | queue),
            RUNNING if !persist => Some(word & !STATE | NEEDS_ARM),
            _ => None,
        });
        match step {
            Ok(word) if word & STATE == WAITING => Arm::Push,
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
        let step = self.settle(waiters, |word| match word & STATE {
            NEEDS_DELETE | DELETED => None,
            ARMED if !even_armed => None,
            _ if word & EXEC != 0 => Some((word & !STATE | NEEDS_DELETE, None)),
            _ => Some((word & !STATE | NEEDS_DELETE | REQ, Some(Outcome::Deleting))),
        });
        match step {
            Ok(word) if word & EXEC != 0 => End::Marked,
            Ok(word) if word & REQ != 0 => End::Queued,
            Ok(word) if word & STATE == WAITING => End::PushIdle,
            Ok(_) => End::Push,
            Err(word) if word & STATE == ARMED => End::Armed,
            Err(word) if word & EXEC != 0 => End::OverRunning,
            Err(_) => End::Over,
        }
    }

    /// The loop took the job from the request queue. Returns the state that it finds.
    pub(crate) fn take_request(&self) -> u32 {
        let before = self.word().fetch_and(!REQ, Ordering::AcqRel);
        debug_assert!(before & REQ != 0, "in the queue, and not marked");
        before & STATE
    }

    /// A threaded job fired: ARMED stays ARMED, with WORK set. False if it was cancelled.
    pub(crate) fn dispatch(&self) -> bool {
        self.change(|word| (word & STATE == ARMED).then_some(word | WORK))
            .is_ok()
    }

    /// The loop is about to call the callback: ARMED → RUNNING. False if it was cancelled.
    pub(crate) fn begin(&self) -> bool {
        self.change(|word| (word & STATE == ARMED).then_some(word & !STATE | RUNNING | EXEC))
            .is_ok()
    }

    /// A worker took the job from the work queue: ARMED → RUNNING, unless it was cancelled.
    pub(crate) fn take_work(&self) -> Work {
        let step = self.change(|word| {
            let word = word & !(WORK | CLOSE);
            Some(match word & STATE {
                ARMED => word & !STATE | RUNNING | EXEC,
                _ => word,
            })
        });
        debug_assert!(step.is_ok_and(|word| word & WORK != 0));
        match step {
            Ok(word) if word & STATE == ARMED => Work::Run,
            Ok(word) if word & DISPOSED != 0 => Work::Free,
            Ok(word) if word & CLOSE != 0 => Work::Close,
            _ => Work::Leave,
        }
    }

    /// The loop leaves the close of the job's descriptor to a worker. True if the caller is to push
    /// the job on the work queue; else it is there, and a worker will find it.
    #[must_use]
    pub(crate) fn ask_for_close(&self) -> bool {
        self.word().fetch_or(WORK | CLOSE, Ordering::AcqRel) & WORK == 0
    }

    /// Its descriptor is closed: `REQ` is set, and the caller is to push it for the loop.
    pub(crate) fn closed(&self) {
        self.word().fetch_or(REQ, Ordering::AcqRel);
    }

    /// The loop took the job from the work queue, since no worker is left. True if a worker was to
    /// close its descriptor: that is the loop's again. Else the queue still counts as holding it.
    #[must_use]
    pub(crate) fn take_close(&self) -> bool {
        self.change(|word| (word & CLOSE != 0).then_some(word & !(WORK | CLOSE)))
            .is_ok()
    }

    /// The loop is about to dispose of a job that is in its ready list: that keeps the memory, as
    /// the work queue would.
    pub(crate) fn hold(&self) {
        self.word().fetch_or(WORK, Ordering::AcqRel);
    }

    /// Take the job from the work queue, or the ready list, without running it. True if that was
    /// all that held its memory.
    pub(crate) fn drop_work(&self) -> bool {
        self.word().fetch_and(!WORK, Ordering::AcqRel) & DISPOSED != 0
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
        let after = |word: u32| match word & STATE {
            NEEDS_DELETE => After::Dispose,
            NEEDS_ARM if again() => After::Armed,
            RUNNING if persist && again() => After::Armed,
            _ => After::Idle,
        };
        let chosen = std::cell::Cell::new(After::Idle);
        let step = self.settle(waiters, |word| {
            chosen.set(after(word));
            let bits = word & !STATE & !EXEC;
            Some(match chosen.get() {
                After::Idle => {
                    note();
                    (bits | WAITING, Some(Outcome::Idle))
                }
                After::Armed => (bits | ARMED | arm, None),
                After::Dispose => {
                    let state = if dispose == 0 { DELETED } else { NEEDS_DELETE };
                    (bits | state | dispose, Some(Outcome::Deleting))
                }
            })
        });
        debug_assert!(step.is_ok());
        chosen.get()
    }

    /// NEEDS_DELETE → DELETED, if [`State::finish`] has not done that: the done callback is about to
    /// run.
    pub(crate) fn begin_disposal(&self) {
        let step = self.change(|word| match word & STATE {
            DELETED => None,
            _ => Some(word & !STATE | DELETED),
        });
        debug_assert!(step.is_err() || step.is_ok_and(|word| word & STATE == NEEDS_DELETE));
    }

    /// Everything is over but the memory. True if the caller is to free it: no queue holds it.
    #[must_use]
    pub(crate) fn end_disposal(&self) -> bool {
        let word = self.word().load(Ordering::Acquire);
        debug_assert_eq!(word & REQ, 0, "who disposes of it took it from there first");
        // WORK is not set again once this disposal has begun, so one look is enough if it is not set.
        word & WORK == 0 || self.word().fetch_or(DISPOSED, Ordering::AcqRel) & WORK == 0
    }

    /// A thread wants to wait: mark the word, unless there is nothing to wait for. The caller
    /// holds the stripe's lock.
    pub(crate) fn mark_waited(&self) -> Wait {
        let step = self.change(|word| match word & STATE {
            WAITING => None,
            NEEDS_DELETE | DELETED if word & EXEC == 0 => None,
            _ => Some(word | WAITED),
        });
        match step {
            Ok(_) => Wait::Marked,
            Err(word) if word & STATE == WAITING => Wait::Idle,
            Err(_) => Wait::Deleting,
        }
    }

    /// The last waiter gave up, or all were released. The caller holds the stripe's lock.
    pub(crate) fn clear_waited(&self) {
        self.word().fetch_and(!WAITED, Ordering::AcqRel);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Every word that can be: each state, with each combination of bits that it allows.
    fn words() -> Vec<u32> {
        let mut all = Vec::new();
        for state in [WAITING, NEEDS_ARM, ARMED, RUNNING, NEEDS_DELETE, DELETED] {
            for bits in 0..64u32 {
                let word = state | bits << 3;
                let exec = word & EXEC != 0;
                let queued = word & (REQ | WORK) != 0;
                // Behind the last callback, in the work queue, and before the rest of the disposal.
                let closes = word & (WORK | EXEC | DISPOSED) == WORK && state >= NEEDS_DELETE;
                let back = word & (WORK | DISPOSED) == 0;
                let possible = match state {
                    _ if word & CLOSE != 0 && !closes => false,
                    WAITING => bits == 0,
                    NEEDS_ARM | RUNNING => exec && !queued && word & DISPOSED == 0,
                    ARMED => !exec && word & DISPOSED == 0,
                    NEEDS_DELETE => !(exec && queued) && word & DISPOSED == 0,
                    // With REQ: its descriptor was closed by a worker.
                    _ => !exec && word & WAITED == 0 && (word & REQ == 0 || back),
                };
                if possible {
                    all.push(word);
                }
            }
        }
        all
    }

    fn at(word: u32) -> State {
        State::new(word)
    }

    fn word(state: &State) -> u32 {
        state.word.load(Ordering::Relaxed)
    }

    #[test]
    fn arm_moves_waiting_and_running_only() {
        for before in words() {
            for persist in [false, true] {
                let state = at(before);
                let got = state.arm(REQ, persist);
                let (want, after) = match before & STATE {
                    WAITING => (Arm::Push, ARMED | REQ),
                    RUNNING if !persist => (Arm::Recorded, before & !STATE | NEEDS_ARM),
                    _ => (Arm::Refused, before),
                };
                assert_eq!((got, word(&state)), (want, after), "from {before:#b}");
            }
        }
    }

    #[test]
    fn end_follows_the_table() {
        let waiters = Waiters::new();
        for before in words() {
            for even_armed in [false, true] {
                let state = at(before);
                let got = state.end_from(&waiters, even_armed);
                let exec = before & EXEC != 0;
                let want = match before & STATE {
                    NEEDS_DELETE | DELETED if exec => End::OverRunning,
                    NEEDS_DELETE | DELETED => End::Over,
                    ARMED if !even_armed => End::Armed,
                    _ if exec => End::Marked,
                    _ if before & REQ != 0 => End::Queued,
                    WAITING => End::PushIdle,
                    _ => End::Push,
                };
                assert_eq!(got, want, "from {before:#b}");
                let changed = !matches!(want, End::Over | End::OverRunning | End::Armed);
                if changed {
                    assert_eq!(word(&state) & STATE, NEEDS_DELETE);
                    assert_eq!(word(&state) & REQ != 0, !exec, "from {before:#b}");
                    // A running job's waiters are released when it returns, the others now.
                    assert_eq!(
                        word(&state) & WAITED,
                        if exec { before & WAITED } else { 0 }
                    );
                } else {
                    assert_eq!(word(&state), before);
                }
            }
        }
    }

    #[test]
    fn only_an_armed_job_fires() {
        for before in words() {
            let armed = before & STATE == ARMED;
            let state = at(before);
            assert_eq!(state.begin(), armed, "from {before:#b}");
            assert_eq!(state.is_executing(), armed || before & EXEC != 0);
            let state = at(before);
            assert_eq!(state.dispatch(), armed, "from {before:#b}");
            assert_eq!(word(&state), if armed { before | WORK } else { before });
        }
    }

    #[test]
    fn a_worker_runs_leaves_or_frees() {
        for before in words().into_iter().filter(|word| word & WORK != 0) {
            let state = at(before);
            let want = match before & STATE {
                ARMED => Work::Run,
                _ if before & DISPOSED != 0 => Work::Free,
                _ if before & CLOSE != 0 => Work::Close,
                _ => Work::Leave,
            };
            assert_eq!(state.take_work(), want, "from {before:#b}");
            assert_eq!(word(&state) & (WORK | CLOSE), 0);
        }
    }

    #[test]
    fn a_close_is_pushed_unless_the_work_queue_holds_the_job() {
        for before in [NEEDS_DELETE, DELETED, NEEDS_DELETE | WORK] {
            for by_worker in [false, true] {
                let state = at(before);
                assert!(!state.take_close());
                assert_eq!(state.ask_for_close(), before & WORK == 0);
                if by_worker {
                    assert_eq!(state.take_work(), Work::Close);
                    state.closed();
                    assert_eq!(state.take_request(), before & STATE);
                } else {
                    assert!(state.take_close());
                }
                state.begin_disposal();
                assert!(state.end_disposal());
                assert_eq!(word(&state), DELETED);
            }
        }
    }

    #[test]
    fn finish_follows_the_table() {
        let waiters = Waiters::new();
        for before in words().into_iter().filter(|word| word & EXEC != 0) {
            for persist in [false, true] {
                for again in [false, true] {
                    let state = at(before);
                    let got = state.finish(&waiters, persist, || again, WORK, REQ);
                    let (want, after) = match before & STATE {
                        NEEDS_DELETE => (After::Dispose, NEEDS_DELETE | REQ),
                        NEEDS_ARM if again => (After::Armed, ARMED | WORK),
                        RUNNING if persist && again => (After::Armed, ARMED | WORK),
                        _ => (After::Idle, WAITING),
                    };
                    // Waiters go on waiting only for a job that is armed again.
                    let waited = if want == After::Armed {
                        before & WAITED
                    } else {
                        0
                    };
                    assert_eq!(
                        (got, word(&state)),
                        (want, after | waited),
                        "from {before:#b}"
                    );
                }
            }
        }
    }

    #[test]
    fn finish_begins_the_disposal_of_who_disposes_at_once() {
        let waiters = Waiters::new();
        let state = at(NEEDS_DELETE | EXEC);
        let after = state.finish(&waiters, false, || true, REQ, 0);
        assert_eq!((after, word(&state)), (After::Dispose, DELETED));
        state.begin_disposal();
        assert!(state.end_disposal());
    }

    #[test]
    fn memory_goes_with_the_last_that_holds_it() {
        // The loop is last.
        let state = at(NEEDS_DELETE | WORK);
        state.begin_disposal();
        assert_eq!(state.take_work(), Work::Leave);
        assert!(state.end_disposal());
        // The worker is last.
        let state = at(NEEDS_DELETE | WORK);
        state.begin_disposal();
        assert!(!state.end_disposal());
        assert_eq!(state.take_work(), Work::Free);
        // Nobody works any more.
        let state = at(NEEDS_DELETE | WORK);
        state.begin_disposal();
        assert!(!state.end_disposal());
        assert!(state.drop_work());
    }

    #[test]
    fn waiting_is_marked_only_where_something_is_to_come() {
        for before in words() {
            let state = at(before);
            let want = match before & STATE {
                WAITING => Wait::Idle,
                NEEDS_DELETE | DELETED if before & EXEC == 0 => Wait::Deleting,
                _ => Wait::Marked,
            };
            assert_eq!(state.mark_waited(), want, "from {before:#b}");
        }
    }
}
