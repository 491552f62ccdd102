// SPDX-License-Identifier: GPL-3.0-or-later
//! Firing, whatever the trigger; passing a fired job on; and running the loop's own jobs.

use std::mem;

use super::event_loop::EventLoop;
use super::io;
use super::lists::Ready;
use super::poller::Until;
use crate::abi::{NS_JOB_SIGNAL, NS_JOB_TIMER, ns_job_type_t};
use crate::budget::Slice;
use crate::group::core::{Came, Place};
use crate::group::{self, GroupPtr, Task};
use crate::job::state::{self, After, Work};
use crate::job::{JobPtr, Kind, note, probes};
use crate::list::Ring;
use crate::log::trace;
use crate::perturb::perturb;
use crate::run::{self, agent};
use crate::shared::Shared;
use crate::sys;
use crate::timers::Timer;

/// If a descriptor turns out ready when its time-out is due, the time-out is checked again after
/// this many nanoseconds.
const AGAIN: u64 = 1_000_000;
/// How many timers one turn fires at most.
const TIMERS: usize = 1024;

impl EventLoop {
    /// Start the time-out of `job`, if it has one.
    #[inline]
    pub(super) fn start_timer(&mut self, job: JobPtr) {
        if job.trigger_has_timer() {
            self.link_timer(job);
        }
    }

    /// Link the timer of `job`. If it is still linked from an earlier arming, leave it there: the
    /// wheel moves it when the old deadline comes.
    fn link_timer(&mut self, job: JobPtr) {
        if job.trigger_part().timer.is_linked() {
            return;
        }
        let timer = job.timer();
        if job.is_due_at_once() {
            // SAFETY: the timer is not linked, a job does not move, and disposal unlinks the timer
            // before the job is freed.
            return unsafe { self.wheel.insert_due(timer) };
        }
        if self.wheel.is_empty() {
            self.wheel.restart(job.armed_at());
        }
        // SAFETY: as above.
        unsafe { self.wheel.insert(timer) };
    }

    /// Fire the timers that are due.
    ///
    /// A job must not be told of a time-out if its data came first. So the loop asks the poller
    /// once more after it has read the clock and before it fires the time-outs of descriptors. If
    /// more descriptors are ready than one turn can take, each one whose time is up is polled by
    /// itself.
    // As part of a turn: most turns have nothing to do here.
    #[inline(always)]
    pub(super) fn expire(&mut self, pool: &Shared) {
        if self.wheel.next().is_none() {
            return;
        }
        let due = Ready::default();
        let timed_out = Ring::new();
        let retry_timer = self.retry_timer();
        let mut retry = false;
        let now = sys::now();
        self.wheel.expire(
            now,
            TIMERS,
            |timer| {
                // SAFETY: a linked timer is the loop's own or belongs to a live job.
                let job = || unsafe { JobPtr::of_timer(timer) };
                timer == retry_timer || job().is(note::MAY_FIRE) || job().is_resting()
            },
            |timer| {
                if timer == retry_timer {
                    retry = true;
                    return;
                }
                // SAFETY: as above: it is not the loop's own, so it belongs to a live job.
                let job = unsafe { JobPtr::of_timer(timer) };
                let look = job.look_in_hand();
                if look.is_due_unusually() {
                    note_due(pool, job, now);
                }
                if look.kind() == Kind::Io && job.is(note::MAY_FIRE) {
                    // SAFETY: `expire` has just unlinked it; the loop below takes it out of the
                    // ring again.
                    unsafe { Timer::push_to(timer, &timed_out) };
                } else {
                    due.push(job);
                }
            },
        );
        while let Some(job) = due.pop() {
            if job.is(note::MAY_FIRE) {
                self.fire(pool, job, NS_JOB_TIMER);
            } else {
                self.end_rest(pool, job);
            }
        }
        if retry {
            self.retry(pool);
        }
        if timed_out.is_empty() {
            return;
        }
        pool.slots.of_loop().count_wait();
        let (_, all_seen) = self.poll(pool, Until::Now, true);
        while let Some(timer) = Timer::take_first(&timed_out) {
            // SAFETY: this ring holds only timers of jobs, and a linked timer's job is live.
            let job = unsafe { JobPtr::of_timer(timer) };
            if !job.is(note::MAY_FIRE) {
                continue;
            }
            if !all_seen && io::is_ready(job) {
                // The poller will most likely report its event next. The readiness may also belong
                // to another file that has the number now; so the time-out stays set.
                job.trigger_part().timer.set_deadline(sys::now() + AGAIN);
                self.link_timer(job);
            } else {
                let in_loop = !job.goes_to_queue();
                self.fire(pool, job, NS_JOB_TIMER);
                if in_loop {
                    // It fired by its time-out, which says nothing about its descriptor.
                    job.unmark(note::HEARD);
                }
            }
        }
    }

    /// Fire the jobs whose signals have arrived.
    pub(super) fn take_signals(&mut self, pool: &Shared) {
        if !pool.mailbox.take() {
            return;
        }
        perturb("emptied the mailbox, and not looked at the counts");
        let mut node = self.lists().signal_jobs.first();
        while !node.is_null() {
            // SAFETY: a linked node belongs to a live job: disposal unlinks a job before it frees
            // it.
            let job = unsafe { JobPtr::of_link(node) };
            node = job.trigger_part().link.next();
            if job.is(note::MAY_FIRE) {
                self.fire_if_signalled(pool, job);
            }
        }
    }

    pub(super) fn fire_if_signalled(&mut self, pool: &Shared, job: JobPtr) {
        let count = pool.mailbox.count(job.signum());
        if job.trigger_part().seen.replace(count) != count {
            self.fire(pool, job, NS_JOB_SIGNAL);
        }
    }

    /// Fire `job`: pass it to the workers, to its group's queue, or to the loop's ready list. A job that goes to the
    /// workers may be freed by the time this returns.
    pub(super) fn fire(&mut self, pool: &Shared, job: JobPtr, output: ns_job_type_t) {
        trace!(pool.logger, "job {:p}: fires with {output:#x}", job.as_c());
        job.unmark(note::MAY_FIRE);
        if self.quiet {
            return;
        }
        job.set_output(output);
        probes::fired(pool, job);
        let look = job.look_in_hand();
        // Without THREAD and outside groups: `run_ready` (below) runs it: in this turn, unless `run_ready` has
        // begun already or its time runs out; then in a later one.
        if look.goes_straight_to_ready() {
            job.mark(note::READY | note::HEARD);
            self.lists().ready.push(job);
            return;
        }
        if look.is_timed() && self.stamp_fired(pool, job) {
            return;
        }
        // `dispatch` is false for a job that was cancelled meanwhile: its disposal is requested
        // already.
        if job.state.dispatch() {
            perturb("dispatched, and not pushed");
            if let Some(group) = job.group() {
                return pool.enqueue(group, job);
            }
            // A worker takes it in `run::work` (run/mod.rs): one that is awake, at any moment from now; else
            // one that `notify_workers` (below) wakes.
            pool.work.push_quietly(Task::job(job));
            self.dispatched += 1;
        }
    }

    /// `job`, whose pool measures times, has fired. True if it is in the ready list now.
    #[cold]
    #[inline(never)]
    fn stamp_fired(&mut self, pool: &Shared, job: JobPtr) -> bool {
        if let Some(times) = pool.loop_times() {
            job.set_stamp(times.firing());
        }
        if job.goes_to_queue() {
            return false;
        }
        job.mark(note::READY | note::HEARD);
        self.lists().ready.push(job);
        true
    }

    /// Announce the jobs that were pushed on the work queue. The loop does this before anything
    /// slow: an application callback may even wait for one of them.
    pub(super) fn notify_workers(&mut self, pool: &Shared) {
        if self.dispatched > 0 {
            self.last_dispatched = mem::take(&mut self.dispatched);
            if self.last_dispatched > 1 {
                pool.work.note_length();
            }
            pool.work.notify(self.last_dispatched);
        }
    }

    /// Run the jobs that have fired. Jobs that fire meanwhile run in the next turn.
    pub(super) fn run_ready(&mut self, pool: &Shared) {
        self.notify_workers(pool);
        let ready = &self.lists().ready;
        if ready.is_empty() {
            return;
        }
        let mut slice = Slice::new();
        let last = ready.last();
        let slot = pool.slots.of_loop();
        while let Some(job) = ready.pop() {
            job.unmark(note::READY);
            perturb("about to run, and its state says that it is armed");
            if job.state.begin() {
                // No queue bits: the loop goes on with the job itself.
                match run::run(pool, slot, job, 0, 0) {
                    After::Idle => {
                        run::count_idle(pool);
                        self.stop_watching(pool, job);
                    }
                    After::Armed if job.look_in_hand().kind() == Kind::Io => {
                        self.watch_again(pool, job)
                    }
                    After::Armed => self.watch(pool, job),
                    After::Dispose => self.dispose(pool, job),
                }
            } else if job.state.drop_work() {
                // The job was cancelled and is already disposed of. (If `drop_work` is false, its
                // disposal is still to come.)
                // SAFETY: `drop_work` says that the ready list was the last to hold the job.
                unsafe { pool.free_job(job) };
            }
            if Some(job) == last || slice.is_over() {
                return;
            }
        }
    }

    /// Run the run-now jobs that are queued now, but no more than `most`.
    #[inline(always)]
    pub(super) fn run_now(&mut self, pool: &Shared, most: usize) {
        // Most turns have none, and the length of the queue takes longer to compute.
        if !pool.loop_work.is_empty() {
            self.run_some_now(pool, most);
        }
    }

    /// As [`EventLoop::run_now`], when there are some. A job that is armed again goes to the back
    /// of the queue.
    #[inline(never)]
    fn run_some_now(&mut self, pool: &Shared, most: usize) {
        let mut slice = Slice::new();
        let slot = pool.slots.of_loop();
        for _ in 0..pool.loop_work.len().min(most) {
            let Some(task) = pool.loop_work.pop() else {
                return;
            };
            let job = match task.kind() {
                group::TaskKind::Job(job) => job,
                group::TaskKind::Group(group) => {
                    self.serve(pool, group, Came::FromLoop);
                    if most != usize::MAX && slice.is_over() {
                        return;
                    }
                    continue;
                }
                group::TaskKind::LookAtAll => continue,
            };
            match job.state.take_work() {
                Work::Run => match run::run(pool, slot, job, state::WORK, 0) {
                    After::Idle => run::count_idle(pool),
                    After::Armed => pool.loop_work.push(Task::job(job)),
                    After::Dispose => self.dispose(pool, job),
                },
                // `Leave`: somebody else disposes of the job. `Close` cannot occur: a run-now job
                // has no descriptor.
                Work::Leave | Work::Close => {}
                // SAFETY: the job is disposed of, and `take_work` says that this queue was the last
                // to hold it.
                Work::Free => unsafe { pool.free_job(job) },
            }
            if most != usize::MAX && slice.is_over() {
                return;
            }
        }
    }

    /// Where this thread runs what a group has to do.
    pub(super) fn place(&self) -> Place {
        if self.quiet { Place::Late } else { Place::Loop }
    }

    /// Serve a group, whose slot came to the loop.
    #[cold]
    #[inline(never)]
    pub(super) fn serve(&mut self, pool: &Shared, group: GroupPtr, came: Came) {
        // SAFETY: `agent::serve` passes only jobs that nothing else holds.
        let free = |job| unsafe { pool.free_job(job) };
        agent::serve(pool, pool.slots.of_loop(), group, self.place(), came, free);
    }
}

/// The time of `job`, which is not like most, has come.
#[cold]
#[inline(never)]
fn note_due(pool: &Shared, job: JobPtr, now: u64) {
    let look = job.look_in_hand();
    if look.is_timed() && look.kind() == Kind::Timer && job.is(note::MAY_FIRE) {
        if let Some(times) = pool.loop_times() {
            // With a cadence, since the first of the periods that were missed.
            times.fires_late(job.trigger_part().timer.deadline(), now);
        }
    }
    job.skip_missed(now);
}
