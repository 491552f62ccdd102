// SPDX-License-Identifier: GPL-3.0-or-later
//! Run-now jobs for workers that are made together and armed together.

use super::Shared;
use crate::group::Task;
use crate::job::state::{self, State};
use crate::job::{JobPtr, Kind, Spec, probes};
use crate::perturb::perturb;
use crate::sync::tsan_release;
use crate::sys;

/// How many jobs are pushed before workers are told of them.
const PUSHES: usize = 64;

/// Jobs that were made and that nobody else knows yet. They are chained to each other.
pub(crate) struct Batch<'a> {
    pool: &'a Shared,
    /// Whether they are to be armed.
    armed: bool,
    /// Whether they count against the pool's limit.
    counted: bool,
    first: Option<JobPtr>,
    last: Option<JobPtr>,
    count: usize,
}

impl<'a> Batch<'a> {
    /// No job yet.
    pub(crate) fn new(pool: &'a Shared, armed: bool, counted: bool) -> Self {
        Self {
            pool,
            armed,
            counted,
            first: None,
            last: None,
            count: 0,
        }
    }

    /// Makes one more run-now job. `None` if there is no memory.
    #[inline(always)]
    pub(crate) fn make(&mut self, spec: &Spec) -> Option<JobPtr> {
        let pool = self.pool;
        let state = if self.armed {
            State::armed(state::WORK)
        } else {
            State::waiting()
        };
        // Short, since all that `Shared::make` reserves is for jobs with a trigger.
        debug_assert!(spec.is_threaded_run_now());
        let job = JobPtr::make(&pool.alloc, pool.as_c(), spec, state, 0)?;
        if !self.armed {
            pool.idle.add(spec.func);
        }
        probes::made(pool, job);
        if self.counted {
            self.pool.count_new(job, false);
        }
        match self.last.replace(job) {
            None => self.first = Some(job),
            Some(last) => last.chain(job),
        }
        self.count += 1;
        Some(job)
    }

    /// One could not be made: frees all.
    pub(crate) fn unmake(&mut self) {
        while let Some(job) = self.pop() {
            // SAFETY: nobody else knows the job.
            unsafe { self.pool.unmake(job, self.armed) };
        }
    }

    fn pop(&mut self) -> Option<JobPtr> {
        let job = self.first?;
        self.first = job.unchain();
        Some(job)
    }

    /// Hands all of them on.
    pub(crate) fn start(&mut self) {
        if self.armed && self.counted {
            self.pool.overload.add(self.count);
        }
        if !self.armed {
            self.pool.made.add(Kind::Now, self.count as u64);
            while let Some(job) = self.pop() {
                tsan_release(&raw const job.state);
            }
            return;
        }
        let work = &self.pool.work;
        // They are added together.
        let stamp = self.pool.is_timed().then(sys::now);
        self.pool.made.add(Kind::Now, self.count as u64);
        loop {
            for pushed in 0..PUSHES {
                let Some(job) = self.pop() else {
                    if pushed > 0 {
                        work.notify(pushed);
                    }
                    return;
                };
                if let Some(stamp) = stamp {
                    job.set_stamp(stamp);
                }
                tsan_release(&raw const job.state);
                probes::armed(self.pool, job);
                perturb("made with others, and not pushed");
                work.push_quietly(Task::job(job));
            }
            work.notify(PUSHES);
        }
    }
}
