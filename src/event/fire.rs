// SPDX-License-Identifier: GPL-3.0-or-later
//! What fires: by time or by a signal; where it goes from there; and the loop runs what is its own.

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
use crate::job::{JobPtr, Kind, note};

use crate::list::Ring;
use crate::log::trace;
use crate::perturb::perturb;
use crate::run::{self, agent};
use crate::shared::Shared;
use crate::sys;
use crate::timers::Timer;

/// Nanoseconds until a time-out is looked at again whose descriptor turned out ready.
const AGAIN: u64 = 1_000_000;
/// Timers that one turn fires.
const TIMERS: usize = 1024;

impl EventLoop {
    /// See which timers fire.
    ///
    /// A time-out is not to be told if the data came before it: so after the time was taken, and
    /// before the time-outs of descriptors fire, the poller is asked once more. If more is ready
    /// than may be looked at in one turn, each of these descriptors is asked for itself.
    pub(super) fn expire(&mut self, pool: &Shared) {
        if self.wheel.next().is_none() {
            return;
        }
        let mut due = Ready::default();
        let timed_out = Ring::new();
        let own = self.retry_timer();
        let mut retry = false;
        self.wheel.expire(
            sys::now(),
            TIMERS,
            // SAFETY: linked timers are the loop's own or those of live jobs.
            |timer| timer == own || unsafe { JobPtr::of_timer(timer) }.is(note::MAY_FIRE),
            |timer| {
                if timer == own {
                    retry = true;
                    return;
                }
                // SAFETY: as above.
                let job = unsafe { JobPtr::of_timer(timer) };
                if job.kind() == Kind::Io {
                    // SAFETY: just unlinked, and unlinked again below.
                    unsafe { Timer::push_to(timer, &timed_out) };
                } else {
                    due.push(job);
                }
            },
        );
        while let Some(job) = due.pop() {
            self.fire(pool, job, NS_JOB_TIMER);
        }
        if retry {
            self.retry(pool);
        }
        if timed_out.is_empty() {
            return;
        }
        let all_seen = self.poll(pool, Until::Now, true);
        while let Some(timer) = Timer::take_first(&timed_out) {
            // SAFETY: linked timers are those of live jobs.
            let job = unsafe { JobPtr::of_timer(timer) };
            if !job.is(note::MAY_FIRE) {
                continue;
            }
            if !all_seen && io::is_ready(job) {
                // Its event is among those that the poller has yet to report. Unless it is somebody
                // else's, who has the number now: so its time is not forgotten.
                job.watch().timer.set_deadline(sys::now() + AGAIN);
                self.link_timer(job);
            } else {
                let in_loop = !job.leaves_loop();
                self.fire(pool, job, NS_JOB_TIMER);
                if in_loop {
                    // Of its time only.
                    job.unmark(note::HEARD);
                }
            }
        }
    }

    /// See which signals' jobs fire.
    pub(super) fn take_signals(&mut self, pool: &Shared) {
        if !pool.mailbox.take() {
            return;
        }
        perturb("emptied the mailbox, and not looked at the counts");
        let mut node = self.lists().signal_jobs.first();
        while !node.is_null() {
            // SAFETY: a node of this list is that of a live job.
            let job = unsafe { JobPtr::of_link(node) };
            node = job.watch().link.next();
            if job.is(note::MAY_FIRE) {
                self.fire_if_signalled(pool, job);
            }
        }
    }

    pub(super) fn fire_if_signalled(&mut self, pool: &Shared, job: JobPtr) {
        let count = pool.mailbox.count(job.signum());
        if job.watch().seen.replace(count) != count {
            self.fire(pool, job, NS_JOB_SIGNAL);
        }
    }

    /// `job` fires: to the workers, or to the loop's own ready list. A job of the workers' may be
    /// gone on return.
    pub(super) fn fire(&mut self, pool: &Shared, job: JobPtr, output: ns_job_type_t) {
        trace!(pool.logger, "job {:p}: fires with {output:#x}", job.as_c());
        job.unmark(note::MAY_FIRE);
        if self.quiet {
            return;
        }
        job.set_output(output);
        if !job.leaves_loop() {
            job.mark(note::READY | note::HEARD);
            self.ready.push(job);
        } else if job.state.dispatch() {
            // One that was cancelled meanwhile is not dispatched: its disposal is on its way.
            perturb("dispatched, and not pushed");
            if let Some(group) = job.group() {
                return pool.enqueue(group, job);
            }
            pool.work.push_quietly(Task::job(job));
            self.dispatched += 1;
        }
    }

    /// Somebody is to take what was put on the work queue. Before anything that may take its time:
    /// a callback of the application's may even wait for it.
    pub(super) fn notify_workers(&mut self, pool: &Shared) {
        if self.dispatched > 0 {
            self.given = mem::take(&mut self.dispatched);
            pool.work.notify(self.given);
        }
    }

    /// Run what fired; not what fires meanwhile, that is for the next turn.
    pub(super) fn run_ready(&mut self, pool: &Shared) {
        self.notify_workers(pool);
        if self.ready.is_empty() {
            return;
        }
        let mut slice = Slice::new();
        let last = self.ready.last;
        while let Some(job) = self.ready.pop() {
            job.unmark(note::READY);
            perturb("about to run, and its state says that it is armed");
            if job.state.begin() {
                match run::run(pool, job, 0, 0) {
                    After::Idle => {
                        run::count_idle(pool);
                        self.rest(pool, job);
                    }
                    After::Armed if job.kind() == Kind::Io => self.arm_again(pool, job),
                    After::Armed => self.arm(pool, job),
                    After::Dispose => self.dispose(pool, job),
                }
            } else if job.state.drop_work() {
                // Cancelled, and disposed of already. Otherwise that is on its way.
                // SAFETY: the list was the last that held it.
                unsafe { pool.free_job(job) };
            }
            if Some(job) == last || slice.is_over() {
                return;
            }
        }
    }

    /// Run the run-now jobs that are there, but no more than `most`.
    #[inline(always)]
    pub(super) fn run_now(&mut self, pool: &Shared, most: usize) {
        // In most turns, and counting them takes longer.
        if !pool.loop_work.is_empty() {
            self.run_some_now(pool, most);
        }
    }

    /// The same, where there are some. One that is armed again queues behind the others.
    #[inline(never)]
    fn run_some_now(&mut self, pool: &Shared, most: usize) {
        let mut slice = Slice::new();
        for _ in 0..pool.loop_work.len().min(most) {
            let Some(task) = pool.loop_work.pop() else {
                return;
            };
            let job = match task.kind() {
                group::Kind::Job(job) => job,
                group::Kind::Group(group) => {
                    self.serve(pool, group, Came::FromLoop);
                    if most != usize::MAX && slice.is_over() {
                        return;
                    }
                    continue;
                }
            };
            match job.state.take_work() {
                Work::Run => match run::run(pool, job, state::WORK, 0) {
                    After::Idle => run::count_idle(pool),
                    After::Armed => pool.loop_work.push(Task::job(job)),
                    After::Dispose => self.dispose(pool, job),
                },
                // A run-now job has no descriptor.
                Work::Leave | Work::Close => {}
                // SAFETY: disposed of, and the queue was the last that held it.
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
        // SAFETY: `serve` says so.
        let free = |job| unsafe { pool.free_job(job) };
        agent::serve(pool, group, self.place(), came, free);
    }
}
