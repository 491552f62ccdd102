// SPDX-License-Identifier: GPL-3.0-or-later
//! The statistics of a pool, from what its threads have counted.

use std::sync::atomic::Ordering;

use super::Shared;
use crate::abi::ns_thrpool_stats;
use crate::job::Kind;
use crate::stats::Slot;
use crate::sys;

/// What was made, what was disposed of, and what lives.
#[derive(Default)]
struct Jobs {
    made: u64,
    disposed: u64,
}

impl Shared {
    /// What the pool has done so far.
    pub(crate) fn stats(&self) -> ns_thrpool_stats {
        // SAFETY: all zero is a value of this struct.
        let mut stats: ns_thrpool_stats = unsafe { std::mem::zeroed() };
        stats.size = size_of::<ns_thrpool_stats>();
        let mut all = Jobs::default();
        let mut live = |kind| {
            let jobs = self.jobs(kind);
            all.made += jobs.made;
            all.disposed += jobs.disposed;
            jobs.made - jobs.disposed
        };
        stats.live_run_now = live(Kind::Now);
        stats.live_io = live(Kind::Io);
        stats.live_timers = live(Kind::Timer);
        stats.live_signals = live(Kind::Signal);
        (stats.jobs_made, stats.jobs_disposed) = (all.made, all.disposed);
        let own = self.slots.of_loop();
        stats.runs_loop = own.runs();
        stats.runs_worker = self.slots.workers().map(Slot::runs).sum();
        (stats.turns, stats.waits) = (own.turns(), own.waits());
        stats.requests = self.requests.len() as u64;
        stats.loop_queue = self.loop_work.len() as u64;
        let (waiting, most) = self.work.note_length();
        (stats.work_queue, stats.work_queue_max) = (waiting as u64, most as u64);
        stats.workers = self.workers.load(Ordering::Relaxed) as u64;
        let busy = self.slots.busy();
        let most = self.busy_max.fetch_max(busy, Ordering::Relaxed).max(busy);
        (stats.workers_busy, stats.workers_busy_max) = (busy as u64, most as u64);
        stats.wakes = self.wakes.load(Ordering::Relaxed);
        stats.refused_overload = self.refused.load(Ordering::Relaxed);
        self.add_times(&mut stats);
        stats
    }

    /// What threads have measured, if they do.
    fn add_times(&self, stats: &mut ns_thrpool_stats) {
        let Some(own) = self.loop_times() else { return };
        (own.queue).add_to(&mut stats.queue_loop_ns, &mut stats.queue_loop_sum);
        (own.run).add_to(&mut stats.run_loop_ns, &mut stats.run_loop_sum);
        own.late.add_to(&mut stats.late_ns, &mut stats.late_sum);
        stats.loop_busy_ns = own.busy.length(sys::now);
        stats.loop_idle_ns = own.idle.length(sys::now);
        for times in self
            .slots
            .workers()
            .filter_map(|slot| self.slots.times_of(slot))
        {
            (times.queue).add_to(&mut stats.queue_worker_ns, &mut stats.queue_worker_sum);
            (times.run).add_to(&mut stats.run_worker_ns, &mut stats.run_worker_sum);
        }
    }

    fn jobs(&self, kind: Kind) -> Jobs {
        // In this order: a job that is disposed of meanwhile was made before.
        let loop_and_workers = self.slots.workers().chain([self.slots.of_loop()]);
        let disposed = loop_and_workers.map(|slot| slot.disposed(kind)).sum();
        // A job of a group may be counted as made a little after it has gone.
        let made = self.made.sum(kind).max(disposed);
        Jobs { made, disposed }
    }

    /// The maxima begin anew.
    pub(crate) fn reset_stats(&self) {
        self.work.forget_length();
        self.busy_max.store(0, Ordering::Relaxed);
    }
}
