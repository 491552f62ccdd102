// SPDX-License-Identifier: GPL-3.0-or-later
//! The job's state word: one atomic that says which state a job is in and what holds it.
//!
//! Each change of state is one function in this file and one atomic step. A job has no lock: if one
//! thread calls done while another rearms the job and its callback returns on a third, each does a
//! compare-and-swap on this word, and each that fails reads the word again.
//!
//! The word holds a state and flag bits:
//!
//! | bit | means | set by | cleared by |
//! |---|---|---|---|
//! | `EXEC` | the callback is executing | the thread that starts it | the same thread, in [`State::finish`] |
//! | `REQ` | the job is in the request queue, once; or the loop disposes of it as it ends | the thread that is about to push it; the loop | the loop, when it pops it, or at once |
//! | `WORK` | the job is in the work queue or the loop's own, or in a group's queue or inbox or on its way there, once; or it is disposed of in the ready list | the thread that is about to push it, or disposes of it | the worker or the loop, when it pops it |
//! | `WAITED` | a thread is blocked in `ns_job_wait` | the waiter, under its stripe's lock | the thread that releases the waiters, under that lock |
//! | `CLOSE` | the worker that takes the job from the work queue must close its descriptor | the loop, together with `WORK` | the worker, when it pops it; the loop, when no worker is left |
//! | `DISPOSED` | only the memory is left to free | the thread that disposed of it | nobody |
//! | `NEW` | the job was made WAITING and was never armed | the call that makes it | who arms it |
//! | `CLAIMED` | a thread is about to arm the job, and writes before that how | that thread, in [`State::claim`] | the same, when it arms the job |
//!
//! `REQ` and `WORK` act as references that keep the memory. The step that decides to push also sets
//! the bit, so a job is never in a queue twice. The thread that took a job from the request queue,
//! or ran it, disposes of it. `REQ` is clear by then, so that thread only has to check `WORK`. A
//! cancelled job that is still in the work queue is disposed of by the loop at once. Of the two,
//! loop and worker, the one that lets go last frees it.
//!
//! `CLAIMED` keeps two threads that arm one job from writing both what it is to wait for. It is set while
//! the job is WAITING or RUNNING, and refuses every other thread that would arm the job, as if the
//! claimer's step had been taken. It holds up nothing else: the callback may return, and the job be
//! finished with; then the claimer finds the new state.
//!
//! There is an exception: the close of a descriptor may block. Then the loop takes the job out of
//! all its structures and leaves the close to a worker: it sets `CLOSE` and `WORK` in one step. If
//! the cancelled job is still in the work queue, the worker that pops it finds `CLOSE`; otherwise
//! the loop pushes it. The worker closes the descriptor, sets `REQ` and pushes the job. When the
//! loop pops that request, only the done callback is left to call.

mod outcome;
mod snapshot;

use crate::job::wait::{Outcome, Waiters};
use crate::sync::{AtomicU32, Memory, Ordering};
pub(crate) use outcome::{After, Arm, End, Wait, Work};
pub(crate) use snapshot::{ARMED, DELETED, NEEDS_ARM, NEEDS_DELETE, REQ, RUNNING, WAITING, WORK};
use snapshot::{CLOSE, DISPOSED, NEW, Snapshot, WAITED};

/// For debuggers: the bits that are the state, and the one that says that the callback executes.
pub(crate) const STATES: u32 = snapshot::STATE;
pub(crate) const EXECUTING: u32 = snapshot::EXEC;

/// The state word of a job: see the module.
#[derive(Debug)]
pub(crate) struct State {
    word: AtomicU32,
    /// The job's memory.
    memory: Memory,
}

impl State {
    fn new(word: u32) -> Self {
        Self {
            word: AtomicU32::new(word),
            memory: Memory::new(),
        }
    }

    /// The word, for an access. loom checks that the memory is not freed yet.
    fn word(&self) -> &AtomicU32 {
        self.memory.used();
        &self.word
    }

    /// Reads the word.
    fn look(&self) -> Snapshot {
        Snapshot(self.word().load(Ordering::Acquire))
    }

    /// Sets bits unconditionally. Returns the old word.
    fn set(&self, bits: u32) -> Snapshot {
        Snapshot(self.word().fetch_or(bits, Ordering::AcqRel))
    }

    /// Clears bits unconditionally. Returns the old word.
    fn clear(&self, bits: u32) -> Snapshot {
        Snapshot(self.word().fetch_and(!bits, Ordering::AcqRel))
    }

    /// The job's memory, which a model frees.
    #[cfg(loom)]
    pub(crate) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The state of a new job that no other thread knows: WAITING, in no queue.
    pub(crate) fn waiting() -> Self {
        Self::new(WAITING | NEW)
    }

    /// The state of a new job that is ARMED, with the bit (REQ or WORK) of the queue that it will
    /// be pushed on.
    pub(crate) fn armed(queue: u32) -> Self {
        Self::new(ARMED | queue)
    }

    /// The state, without the flag bits.
    pub(crate) fn now(&self) -> u32 {
        self.look().state()
    }

    /// Whether it is ARMED.
    pub(crate) fn is_armed(&self) -> bool {
        self.look().is_armed()
    }

    /// Whether it was never armed, nor finished with.
    pub(crate) fn is_new(&self) -> bool {
        self.look().is_new()
    }

    /// Whether a work queue, or a group's, holds it or is about to.
    pub(crate) fn is_in_work(&self) -> bool {
        self.look().is_in_work()
    }

    /// Whether everything is over but the memory.
    pub(crate) fn is_disposed_of(&self) -> bool {
        self.look().is_disposed_of()
    }

    /// Whether the callback is executing.
    pub(crate) fn is_executing(&self) -> bool {
        self.look().is_executing()
    }

    /// Changes the word to what `next` returns, in a compare-and-swap loop. If `next` returns
    /// `None`, the word stays. Returns the old word: `Ok` if it was changed, `Err` if not.
    ///
    /// The order is AcqRel. What the thread that arms a job wrote happens before the callback. What
    /// the callback wrote happens before the steps of any thread that sees the job WAITING, or
    /// disposes of it.
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

    /// As [`State::change`], for a step that ends what waiters wait for: `next` also returns their
    /// outcome. If `WAITED` is set, the step is taken under the stripe's lock, in the same critical
    /// section that hands out the outcomes, so that no thread can free the job in between.
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

    /// WAITING → ARMED with `queue` (REQ or WORK) set; RUNNING → NEEDS_ARM. Refuses a running
    /// PERSIST job, which is armed again anyway.
    pub(crate) fn arm(&self, queue: u32, persist: bool) -> Arm {
        let step = self.change(|word| match word.unclaimed_state() {
            // No queue holds the job, and no thread waits for it, so all bits are clear.
            WAITING => Some(Snapshot(ARMED).queued(queue)),
            RUNNING if !persist => Some(word.moved_to(NEEDS_ARM)),
            _ => None,
        });
        match step {
            Ok(word) if word.unclaimed_state() == WAITING => Arm::Push,
            Ok(_) => Arm::Recorded,
            Err(_) => Arm::Refused,
        }
    }

    /// The calling thread is about to arm the job, and first writes how. Returns false if the job can't
    /// be armed in this state, or is claimed. A running PERSIST job may be claimed only in its own
    /// callback.
    #[must_use]
    pub(crate) fn claim(&self, own: bool, persist: bool) -> bool {
        let step = self.change(|word| match word.unclaimed_state() {
            WAITING => Some(word.claimed()),
            RUNNING if own || !persist => Some(word.claimed()),
            _ => None,
        });
        step.is_ok()
    }

    /// As [`State::arm`], by the thread that has claimed the job. Refused only if the job was finished
    /// with meanwhile; then it stays claimed, so that nobody arms it any more.
    pub(crate) fn arm_claimed(&self, queue: u32) -> Arm {
        let step = self.change(|word| match word.state() {
            WAITING => Some(Snapshot(ARMED).queued(queue)),
            RUNNING => Some(word.no_longer_claimed().moved_to(NEEDS_ARM)),
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
    /// If the callback is executing, its `finish` will find the new state. Otherwise the loop
    /// disposes of the job when it finds it in the request queue. The job is there already, or the
    /// caller must push it now.
    #[inline(always)]
    pub(crate) fn end(&self, waiters: &Waiters, even_armed: bool) -> End {
        match self.end_from(waiters, even_armed) {
            End::PushIdle => End::Push,
            end => end,
        }
    }

    /// As [`State::end`], but distinguishes a job that was WAITING from one that was armed.
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

    /// The loop has taken the job from the request queue. Returns the state that it finds.
    pub(crate) fn take_request(&self) -> u32 {
        let before = self.clear(REQ);
        debug_assert!(
            before.is_in_requests(),
            "the job was in the request queue without REQ"
        );
        before.state()
    }

    /// A job that goes to a queue (THREAD, or in a group) has fired: ARMED stays ARMED, and WORK is set. Returns false if the job was
    /// cancelled.
    pub(crate) fn dispatch(&self) -> bool {
        self.change(|word| word.is_armed().then_some(word.queued(WORK)))
            .is_ok()
    }

    /// The loop is about to call the callback: ARMED → RUNNING. Returns false if the job was
    /// cancelled.
    pub(crate) fn begin(&self) -> bool {
        self.change(|word| word.is_armed().then_some(word.begun()))
            .is_ok()
    }

    /// A worker has taken the job from the work queue: ARMED → RUNNING, unless the job was
    /// cancelled.
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

    /// The loop leaves the close of the job's descriptor to a worker. Returns true if the caller
    /// must push the job on the work queue. If false, the job is in that queue already, and a
    /// worker will find it.
    #[must_use]
    pub(crate) fn ask_for_close(&self) -> bool {
        !self.set(WORK | CLOSE).is_in_work()
    }

    /// A worker has closed the descriptor: sets `REQ`. The caller must push the job for the loop.
    pub(crate) fn closed(&self) {
        self.set(REQ);
    }

    /// The loop has taken the job from the work queue because no worker is left. Returns true if a
    /// worker had to close the descriptor: the loop must do that now. If false, the job still
    /// counts as held by the queue.
    #[must_use]
    pub(crate) fn take_close(&self) -> bool {
        self.change(|word| word.is_to_be_closed().then_some(word.taken_from_work()))
            .is_ok()
    }

    /// The loop is about to dispose of a job that is in its ready list. Sets `WORK`: the list keeps
    /// the memory just as the work queue would.
    pub(crate) fn hold(&self) {
        self.set(WORK);
    }

    /// The loop takes the job from the work queue, or from the ready list, without running it.
    /// Returns true if nothing else holds the memory.
    pub(crate) fn drop_work(&self) -> bool {
        self.clear(WORK).is_disposed_of()
    }

    /// The callback has returned. `again` is called only where it matters; it says whether a job
    /// may still be armed (not once the pool shuts down). `arm` and `dispose` are the queue bits to
    /// set with these outcomes, so that the caller can push the job. If `dispose` is 0, the caller
    /// itself disposes of the job, and this step begins the disposal.
    #[cfg(test)]
    pub(crate) fn finish(
        &self,
        waiters: &Waiters,
        persist: bool,
        again: impl Fn() -> bool,
        arm: u32,
        dispose: u32,
    ) -> After {
        self.callback_returned(waiters, persist, again, arm, dispose, || {})
    }

    /// As [`State::finish`]. `note` is called each time that a step to WAITING is about to be
    /// tried; the step may fail. It is called before the step because the job may be freed right
    /// after.
    // Inlined also where rare runs call it, so that it is in all others.
    #[inline(always)]
    pub(crate) fn callback_returned(
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

    /// NEEDS_DELETE → DELETED, unless [`State::finish`] has done that. The done callback is about
    /// to run.
    pub(crate) fn begin_disposal(&self) {
        let step = self.change(|word| match word.state() {
            DELETED => None,
            _ => Some(word.moved_to(DELETED)),
        });
        debug_assert!(step.is_err() || step.is_ok_and(|word| word.state() == NEEDS_DELETE));
    }

    /// The done callback has returned, and only the memory is left. Returns true if the caller must
    /// free it, because no queue holds the job.
    #[must_use]
    pub(crate) fn end_disposal(&self) -> bool {
        let word = self.look();
        debug_assert!(
            !word.is_in_requests(),
            "a job must leave the request queue before its disposal ends"
        );
        // Nobody sets WORK once the disposal has begun: if it is clear, one look is enough.
        !word.is_in_work() || !self.set(DISPOSED).is_in_work()
    }

    /// A thread wants to wait: marks the word, unless there is nothing to wait for. The caller
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

    /// Clears the mark, when the last waiter has given up or all were released. The caller holds
    /// the stripe's lock.
    pub(crate) fn clear_waited(&self) {
        self.clear(WAITED);
    }
}

#[cfg(all(test, not(loom)))]
mod tests;
