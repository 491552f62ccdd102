// SPDX-License-Identifier: GPL-3.0-or-later
//! The statistics of a pool. The layout is part of the ABI: a new field goes to the end.

use libc::size_t;

/// What a pool has done so far, and what it is doing. Initialize it with `ns_thrpool_stats_init`, then
/// pass it to `ns_thrpool_get_stats`.
///
/// The numbers of jobs are consistent at every moment: jobs_made is jobs_disposed plus all live jobs.
/// Other counts may lag slightly behind what threads are doing while they are read.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ns_thrpool_stats {
    /// The size of this struct in the program, set by `ns_thrpool_stats_init`. Fields are only ever added
    /// at the end. Fields that the library does not know are set to zero.
    pub size: size_t,
    /// Jobs made since the pool began.
    pub jobs_made: u64,
    /// Jobs disposed of. A job is counted before its done callback is called.
    pub jobs_disposed: u64,
    /// Callbacks that have begun in the loop. Done callbacks are not counted.
    pub runs_loop: u64,
    /// Callbacks that have begun in workers.
    pub runs_worker: u64,
    /// Live jobs, by kind: run-now jobs.
    pub live_run_now: u64,
    /// Jobs with a descriptor.
    pub live_io: u64,
    /// Timers.
    pub live_timers: u64,
    /// Jobs for signals.
    pub live_signals: u64,
    /// Requests that wait for the loop now: to watch for a job's trigger, or to dispose of a job.
    pub requests: u64,
    /// What waits to run in the loop now: run-now jobs, and groups whose next job runs in the loop.
    pub loop_queue: u64,
    /// What waits for workers now: jobs, and groups that have a job for a worker.
    pub work_queue: u64,
    /// The most jobs and groups that waited for workers. The loop, workers and readers of statistics
    /// sample it, so a short peak may be missed.
    pub work_queue_max: u64,
    /// Workers that exist now.
    pub workers: u64,
    /// Workers that are busy now.
    pub workers_busy: u64,
    /// The most workers that were busy at once.
    pub workers_busy_max: u64,
    /// Turns of the loop.
    pub turns: u64,
    /// How often the loop asked its event framework for events. It sleeps in some of these calls.
    pub waits: u64,
    /// How often another thread woke the loop, at the cost of a system call.
    pub wakes: u64,
    /// Adds that returned NS_OVERLOADED, because of a pool's limit or a group's.
    pub refused_overload: u64,
    /// The fields from here on are zero unless the pool has NS_POOL_TIMINGS. In each histogram, element 0
    /// counts values of zero, element i those from 2^(i-1) to below 2^i nanoseconds, and the last element
    /// all longer ones. This one: how long jobs waited in the loop, from the time at which the job fired,
    /// or for a run-now job was armed, to the beginning of its callback.
    pub queue_loop_ns: [u64; 64],
    /// The same in workers.
    pub queue_worker_ns: [u64; 64],
    /// How long callbacks took in the loop. Done callbacks are not counted.
    pub run_loop_ns: [u64; 64],
    /// The same in workers.
    pub run_worker_ns: [u64; 64],
    /// How late timer jobs fired. With NS_JOB_CADENCE, periods that were missed are one firing, as late as
    /// the first of them.
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
    /// How long the loop was busy, in nanoseconds. Together with loop_idle_ns: how long there has been a
    /// loop, until it had nothing more to run. While no thread is inside a caller's loop, neither grows.
    pub loop_busy_ns: u64,
    /// How long the loop slept until something happened, in nanoseconds.
    pub loop_idle_ns: u64,
}
