// SPDX-License-Identifier: GPL-3.0-or-later
//! The statistics of a pool. The layout is part of the ABI: a new field goes to the end.

use libc::size_t;

/// What a pool has done, and what it is doing. Make it ready with `ns_thrpool_stats_init`, pass it to
/// `ns_thrpool_get_stats`.
///
/// Numbers of jobs agree at every moment: jobs_made is jobs_disposed and all that live. Counts that threads
/// are changing while they are read may be behind by what is under way.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ns_thrpool_stats {
    /// The size of this struct in the program: set by `ns_thrpool_stats_init`. Fields are only ever added
    /// at the end. What the library does not know of becomes zero.
    pub size: size_t,
    /// Jobs that were made since the pool began.
    pub jobs_made: u64,
    /// Jobs that were disposed of. A job counts before its done callback is called.
    pub jobs_disposed: u64,
    /// Callbacks that have begun in the loop. Done callbacks do not count.
    pub runs_loop: u64,
    /// Callbacks that have begun in workers.
    pub runs_worker: u64,
    /// Jobs that live now, by kind: run-now jobs.
    pub live_run_now: u64,
    /// Jobs with a descriptor.
    pub live_io: u64,
    /// Timers.
    pub live_timers: u64,
    /// Jobs for signals.
    pub live_signals: u64,
    /// Requests that wait for the loop now: to watch for a job's trigger, or to dispose of a job.
    pub requests: u64,
    /// What waits to run in the loop now: run-now jobs, and groups whose next job is the loop's.
    pub loop_queue: u64,
    /// What waits for workers now: jobs, and groups that have a job for a worker.
    pub work_queue: u64,
    /// The most that waited for workers, as far as the loop, workers and readers of statistics saw when
    /// they looked.
    pub work_queue_max: u64,
    /// Workers that live now.
    pub workers: u64,
    /// Workers that have something to do now.
    pub workers_busy: u64,
    /// The most that had something to do at once.
    pub workers_busy_max: u64,
    /// Turns of the loop.
    pub turns: u64,
    /// How often the loop asked its event framework for events. It sleeps in some of these calls.
    pub waits: u64,
    /// How often the loop was woken by another thread, at the cost of a system call.
    pub wakes: u64,
    /// Adds that were refused with NS_OVERLOADED, because of a pool's limit or a group's.
    pub refused_overload: u64,
    /// The rest needs NS_POOL_TIMINGS, which is not in this version: it is zero. In each histogram, element i counts values
    /// from 2^(i-1) to below 2^i nanoseconds, element 0 those of zero, and the last all that are longer.
    /// Here: from firing or add to the beginning of the callback, in the loop.
    pub queue_loop_ns: [u64; 64],
    /// The same in workers.
    pub queue_worker_ns: [u64; 64],
    /// How long callbacks took in the loop. Done callbacks do not count.
    pub run_loop_ns: [u64; 64],
    /// The same in workers.
    pub run_worker_ns: [u64; 64],
    /// How long after its time a timer job fired.
    pub late_ns: [u64; 64],
    /// The sum of what is in queue_loop_ns, in nanoseconds.
    pub queue_loop_sum: u64,
    /// The sum of what is in queue_worker_ns.
    pub queue_worker_sum: u64,
    /// The sum of what is in run_loop_ns.
    pub run_loop_sum: u64,
    /// The sum of what is in run_worker_ns.
    pub run_worker_sum: u64,
    /// The sum of what is in late_ns.
    pub late_sum: u64,
    /// How long the loop was at work, in nanoseconds.
    pub loop_busy_ns: u64,
    /// How long the loop waited for events.
    pub loop_idle_ns: u64,
}
