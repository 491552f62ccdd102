// SPDX-License-Identifier: GPL-3.0-or-later
//! The end of the loop. It goes quiet when the workers have left, and disposes of all remaining
//! jobs when the pool is destroyed.

use std::sync::atomic::Ordering;

use super::event_loop::EventLoop;
use crate::group::core::Came;
use crate::group::{self, Task};
use crate::job::{JobPtr, Kind, note, state};
use crate::list::{Head, Node};
use crate::log::log;
use crate::perturb::perturb;
use crate::shared::{Phase, Shared};
use crate::timers::Wheel;

impl EventLoop {
    /// All workers have left: finish what was requested before the shutdown, then run nothing more.
    pub(super) fn go_quiet(&mut self, pool: &Shared) {
        // A request that counts was queued before we read the length. Nothing can be armed any
        // more, so a later request raced with the shutdown.
        let mut left = pool.requests.len();
        while left > 0 {
            left -= self.take_requests(pool, left);
        }
        while self.dispatched > 0 || !self.lists().ready.is_empty() {
            self.run_ready(pool);
        }
        // A group that has given way comes to the end of the queue.
        while !pool.loop_work.is_empty() {
            self.run_now(pool, usize::MAX);
        }
        self.close_left(pool);
        self.quiet = true;
        pool.set_phase(Phase::Quiet);
        perturb("quiet, and nobody released who waits for a job");
        pool.waiters.stop();
    }

    /// One turn of a quiet loop. It ignores descriptors, timers and signals.
    pub(super) fn quiet_turn(&mut self, pool: &Shared) {
        self.take_late(pool);
        self.serve_late(pool);
        let idle = || pool.requests.is_empty() && !pool.wake.nudged.swap(false, Ordering::SeqCst);
        if pool.wake.sleeping.begin(idle) {
            self.doze(pool, -1);
            pool.wake.sleeping.end();
            if pool.watchdog.is_on() {
                pool.watchdog.woke();
            }
        }
    }

    /// Take requests that came after the shutdown: dispose of finished jobs, keep armed ones for
    /// the end.
    pub(super) fn take_late(&mut self, pool: &Shared) {
        while let Some(task) = pool.requests.pop() {
            let job = match task.kind() {
                group::TaskKind::Job(job) => job,
                group::TaskKind::Group(group) => {
                    self.finish_members(pool, group);
                    continue;
                }
                group::TaskKind::LookAtAll => {
                    self.answer_look(pool);
                    continue;
                }
            };
            match job.state.take_request() {
                state::ARMED => self.keep(job),
                _ => self.dispose(pool, job),
            }
        }
    }

    /// Serve the groups in the loop's queue and in that of the workers, which have left: done
    /// callbacks go on. Jobs stay where they are.
    pub(super) fn serve_late(&mut self, pool: &Shared) {
        for _ in 0..pool.work.len() {
            let Some(task) = pool.work.pop() else { break };
            match task.kind() {
                group::TaskKind::Job(_) => pool.work.push_quietly(task),
                group::TaskKind::Group(group) => self.serve(pool, group, Came::FromWork),
                group::TaskKind::LookAtAll => {}
            }
        }
        for _ in 0..pool.loop_work.len() {
            let Some(task) = pool.loop_work.pop() else {
                break;
            };
            match task.kind() {
                group::TaskKind::Job(_) => pool.loop_work.push(task),
                group::TaskKind::Group(group) => self.serve(pool, group, Came::FromLoop),
                group::TaskKind::LookAtAll => {}
            }
        }
    }

    /// Empty the queues of run-now jobs and of jobs for workers. Jobs that came after the shutdown
    /// stay in them until now. True if there was a job.
    fn empty_queues(&mut self, pool: &Shared) -> bool {
        let mut any = false;
        while let Some((task, came)) = Self::pop_any(pool) {
            any = true;
            let job = match task.kind() {
                group::TaskKind::Job(job) => job,
                group::TaskKind::Group(group) => {
                    self.serve(pool, group, came);
                    continue;
                }
                group::TaskKind::LookAtAll => continue,
            };
            if job.state.drop_work() {
                // SAFETY: the job is disposed of, and `drop_work` says that this queue was the last
                // to hold it.
                unsafe { pool.free_job(job) };
            } else if job.kind() != Kind::Now {
                self.keep(job);
            } else if job.state.now() == state::ARMED {
                self.retire(pool, job);
            }
        }
        any
    }

    /// The next of both queues, and by which of them it came.
    fn pop_any(pool: &Shared) -> Option<(Task, Came)> {
        let work = || pool.work.pop().map(|task| (task, Came::FromWork));
        let own = || pool.loop_work.pop().map(|task| (task, Came::FromLoop));
        work().or_else(own)
    }

    /// Keep `job`, which will not run any more, where the destruction of the pool finds it. If the
    /// job is finished, its disposal is already requested, and unlinks it.
    fn keep(&mut self, job: JobPtr) {
        job.unmark(note::MAY_FIRE);
        if !job.trigger_part().link.is_linked() {
            // SAFETY: the node is not linked, and `dispose` unlinks it before the job is freed.
            unsafe { self.lists().strays.push(job.link()) };
        }
    }

    /// The pool is being destroyed: dispose of every armed job.
    pub(crate) fn dispose_of_all(&mut self, pool: &Shared) {
        Wheel::remove(&self.lists().retry);
        pool.cancel_groups();
        let mut held = 0;
        loop {
            let mut left = self.empty_queues(pool);
            self.take_late(pool);
            while let Some(timer) = self.wheel.take_any() {
                // SAFETY: the loop's own timer was removed above, so this timer belongs to a job; a
                // linked timer's job is live.
                self.keep(unsafe { JobPtr::of_timer(timer) });
            }
            for (_, entry) in pool.fds.entries() {
                left |= self.dispose_of_list(pool, &entry.jobs);
            }
            let lists = self.lists();
            for list in [&lists.signal_jobs, &lists.strays] {
                left |= self.dispose_of_list(pool, list);
            }
            // Done callbacks may have finished more jobs, and released groups.
            let queued = !pool.work.is_empty() || !pool.loop_work.is_empty();
            if left || queued || !pool.requests.is_empty() {
                continue;
            }
            // The only groups that are left are those that the application holds.
            let Some(group) = pool.left_group() else {
                break;
            };
            held += 1;
            if pool.end_group(group) {
                self.serve(pool, group, Came::Here);
            }
        }
        if held > 0 {
            let (it, s) = (pool.as_c(), if held == 1 { "" } else { "s" });
            log!(
                pool.logger,
                LOG_WARNING,
                "ns_thrpool_destroy: pool {it:p}: {held} group{s} still held by the application"
            );
        }
    }

    /// Dispose of the armed jobs in `list`, and empty it. True if it held a job.
    fn dispose_of_list(&mut self, pool: &Shared, list: &Head) -> bool {
        let any = !list.is_empty();
        while !list.is_empty() {
            let node: *const Node = list.first();
            // SAFETY: a linked node belongs to a live job: disposal unlinks a job before it frees
            // it.
            let job = unsafe { JobPtr::of_link(node) };
            match job.state.now() {
                state::ARMED if !job.state.is_in_work() => self.retire(pool, job),
                // The job is one of these:
                // * It is in the queue of a cancelled group, whose agent disposes of it.
                // * A done callback finished with it, and the pending request disposes of it.
                // * It is idle, and the application failed to finish with it.
                _ => job.trigger_part().link.unlink(),
            }
        }
        any
    }

    /// Finish an ARMED job and dispose of it.
    fn retire(&mut self, pool: &Shared, job: JobPtr) {
        let ended = job.state.end(&pool.waiters, true);
        debug_assert_eq!(ended, state::End::Push);
        // `end` set REQ, but nobody pushes the request: this is the disposal.
        let _ = job.state.take_request();
        self.dispose(pool, job);
    }
}
