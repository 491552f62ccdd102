// SPDX-License-Identifier: GPL-3.0-or-later
//! Statistics as text, in the format that Prometheus reads (version 0.0.4): for each metric a line of help,
//! one with its type, and then the values of all pools. Times are in seconds. Only pools with
//! `NS_POOL_TIMINGS` have them.

use std::fmt::{self, Display, Write};

use super::Shared;
use crate::abi::ns_thrpool_stats as Stats;
use crate::stats::{self, BUCKETS};

/// A metric that is one number a pool.
struct Number {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    of: fn(&Stats) -> u64,
}

const COUNTER: &str = "counter";
const GAUGE: &str = "gauge";

macro_rules! number {
    ($kind:ident, $field:ident, $name:literal, $help:literal) => {
        Number {
            name: $name,
            kind: $kind,
            help: $help,
            of: |stats| stats.$field,
        }
    };
}

const NUMBERS: &[Number] = &[
    number!(
        COUNTER,
        jobs_made,
        "jobs_made_total",
        "Jobs that were made."
    ),
    number!(
        COUNTER,
        jobs_disposed,
        "jobs_disposed_total",
        "Jobs that were disposed of."
    ),
    number!(
        COUNTER,
        runs_loop,
        "runs_loop_total",
        "Callbacks that have begun in the loop."
    ),
    number!(
        COUNTER,
        runs_worker,
        "runs_worker_total",
        "Callbacks that have begun in workers."
    ),
    number!(
        GAUGE,
        live_run_now,
        "live_run_now",
        "Run-now jobs that live."
    ),
    number!(
        GAUGE,
        live_io,
        "live_io",
        "Jobs with a descriptor that live."
    ),
    number!(GAUGE, live_timers, "live_timers", "Timers that live."),
    number!(
        GAUGE,
        live_signals,
        "live_signals",
        "Jobs for signals that live."
    ),
    number!(
        GAUGE,
        requests,
        "requests",
        "Requests that wait for the loop."
    ),
    number!(
        GAUGE,
        loop_queue,
        "loop_queue",
        "Run-now jobs and groups that wait to run in the loop."
    ),
    number!(
        GAUGE,
        work_queue,
        "work_queue",
        "Jobs and groups that wait for workers."
    ),
    number!(
        GAUGE,
        work_queue_max,
        "work_queue_max",
        "The most jobs and groups that waited for workers."
    ),
    number!(GAUGE, workers, "workers", "Workers."),
    number!(
        GAUGE,
        workers_busy,
        "workers_busy",
        "Workers that have something to do."
    ),
    number!(
        GAUGE,
        workers_busy_max,
        "workers_busy_max",
        "The most workers that had something to do at once."
    ),
    number!(COUNTER, turns, "turns_total", "Turns of the loop."),
    number!(
        COUNTER,
        waits,
        "waits_total",
        "How often the loop asked for events."
    ),
    number!(
        COUNTER,
        wakes,
        "wakes_total",
        "How often the loop was woken by another thread."
    ),
    number!(
        COUNTER,
        refused_overload,
        "refused_overload_total",
        "Adds that were refused because too many jobs waited."
    ),
];

/// A metric that is a histogram.
struct Histogram {
    name: &'static str,
    help: &'static str,
    of: fn(&Stats) -> (&[u64; BUCKETS], u64),
}

macro_rules! histogram {
    ($buckets:ident, $sum:ident, $name:literal, $help:literal) => {
        Histogram {
            name: $name,
            help: $help,
            of: |stats| (&stats.$buckets, stats.$sum),
        }
    };
}

const HISTOGRAMS: &[Histogram] = &[
    histogram!(
        queue_loop_ns,
        queue_loop_sum,
        "queue_loop_seconds",
        "From the firing or the add of a job to the beginning of its callback, in the loop."
    ),
    histogram!(
        queue_worker_ns,
        queue_worker_sum,
        "queue_worker_seconds",
        "From the firing or the add of a job to the beginning of its callback, in workers."
    ),
    histogram!(
        run_loop_ns,
        run_loop_sum,
        "run_loop_seconds",
        "How long callbacks took in the loop."
    ),
    histogram!(
        run_worker_ns,
        run_worker_sum,
        "run_worker_seconds",
        "How long callbacks took in workers."
    ),
    histogram!(late_ns, late_sum, "late_seconds", "How late timers fired."),
];

/// The times of a pool that are one number, in nanoseconds.
const TIMES: &[Number] = &[
    number!(
        COUNTER,
        loop_busy_ns,
        "loop_busy_seconds_total",
        "How long the loop was busy."
    ),
    number!(
        COUNTER,
        loop_idle_ns,
        "loop_idle_seconds_total",
        "How long the loop waited for events."
    ),
];

/// The buckets that the text has: those that end below a quarter of a microsecond, as one, then each up to 17
/// seconds.
const SHOWN: std::ops::RangeInclusive<usize> = 8..=34;

/// Nanoseconds, in seconds.
struct Seconds(u64);

impl Display for Seconds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / 1_000_000_000, self.0 % 1_000_000_000);
        write!(out, "{whole}.{part:09}")
    }
}

/// What one pool has to say.
struct Snapshot {
    name: [u8; 16],
    number: u64,
    timed: bool,
    stats: Stats,
}

impl Snapshot {
    fn new(pool: &Shared) -> Self {
        Self {
            name: *pool.slots.name(),
            number: pool.slots.number(),
            timed: pool.is_timed(),
            stats: pool.stats(),
        }
    }
}

/// The value of the label: the pool's name and number, escaped.
impl Display for Snapshot {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.split(|&byte| byte == 0).next();
        for chunk in name.unwrap_or_default().utf8_chunks() {
            for char in chunk.valid().chars() {
                match char {
                    '\\' | '"' => write!(out, "\\{char}")?,
                    '\n' => out.write_str("\\n")?,
                    _ => out.write_char(char)?,
                }
            }
            if !chunk.invalid().is_empty() {
                out.write_char(char::REPLACEMENT_CHARACTER)?;
            }
        }
        write!(out, "-{}", self.number)
    }
}

/// Text in memory of the caller's, by the rule of snprintf: what does not fit is counted, and left out.
struct Text {
    at: *mut u8,
    room: usize,
    length: usize,
}

impl Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        // One byte stays for the NUL.
        let left = self.room.saturating_sub(1).saturating_sub(self.length);
        let fits = text.len().min(left);
        if fits > 0 {
            // SAFETY: the caller of `format` guarantees so much room.
            unsafe {
                self.at
                    .add(self.length)
                    .copy_from_nonoverlapping(text.as_ptr(), fits)
            };
        }
        self.length += text.len();
        Ok(())
    }
}

impl Text {
    fn end(self) -> usize {
        if self.room > 0 {
            // SAFETY: as above.
            unsafe { self.at.add(self.length.min(self.room - 1)).write(0) };
        }
        self.length
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) -> fmt::Result {
        writeln!(
            self,
            "# HELP nunc_stans_{name} {help}\n# TYPE nunc_stans_{name} {kind}"
        )
    }

    fn all(&mut self, pools: &[Snapshot]) -> fmt::Result {
        for Number {
            name,
            kind,
            help,
            of,
        } in NUMBERS
        {
            self.head(name, kind, help)?;
            for pool in pools {
                let value = of(&pool.stats);
                writeln!(self, "nunc_stans_{name}{{pool=\"{pool}\"}} {value}")?;
            }
        }
        if pools.iter().any(|pool| pool.timed) {
            self.times(pools)?;
        }
        Ok(())
    }

    /// What those of `pools` that measure times have measured.
    fn times(&mut self, pools: &[Snapshot]) -> fmt::Result {
        let timed = || pools.iter().filter(|pool| pool.timed);
        for Histogram { name, help, of } in HISTOGRAMS {
            self.head(name, "histogram", help)?;
            for pool in timed() {
                let (buckets, sum) = of(&pool.stats);
                let mut count = 0;
                for (at, bucket) in buckets.iter().enumerate() {
                    count += bucket;
                    if SHOWN.contains(&at) {
                        // The bound belongs to the bucket. Times are whole nanoseconds.
                        let bound = Seconds((1 << at) - 1);
                        self.bucket(name, pool, &bound, count)?;
                    }
                }
                self.bucket(name, pool, &"+Inf", count)?;
                let sum = Seconds(sum);
                writeln!(self, "nunc_stans_{name}_sum{{pool=\"{pool}\"}} {sum}")?;
                writeln!(self, "nunc_stans_{name}_count{{pool=\"{pool}\"}} {count}")?;
            }
        }
        for Number {
            name,
            kind,
            help,
            of,
        } in TIMES
        {
            self.head(name, kind, help)?;
            for pool in timed() {
                let value = Seconds(of(&pool.stats));
                writeln!(self, "nunc_stans_{name}{{pool=\"{pool}\"}} {value}")?;
            }
        }
        Ok(())
    }

    fn bucket(
        &mut self,
        name: &str,
        pool: &Snapshot,
        bound: &dyn Display,
        count: u64,
    ) -> fmt::Result {
        writeln!(
            self,
            "nunc_stans_{name}_bucket{{pool=\"{pool}\",le=\"{bound}\"}} {count}"
        )
    }
}

/// Writes the statistics of `pool`, or of all pools of this process, to `at`, which has room for so many
/// bytes. Returns the length of the whole text, by the rule of snprintf. `None` if there is no memory.
///
/// # Safety
/// `at` may be written for `room` bytes.
pub(crate) unsafe fn format(pool: Option<&Shared>, at: *mut u8, room: usize) -> Option<usize> {
    let mut text = Text {
        at,
        room,
        length: 0,
    };
    // Writing to a `Text` never fails.
    let _ = match pool {
        Some(pool) => text.all(&[Snapshot::new(pool)]),
        None => text.all(&all()?),
    };
    Some(text.end())
}

/// Snapshots of all pools. A pool that begins meanwhile may be missing. `None` if there is no memory.
fn all() -> Option<Vec<Snapshot>> {
    let mut count = 0;
    stats::each(|_| count += 1);
    let mut all = Vec::new();
    // Not while the pools wait for us: the allocator may be the application's.
    all.try_reserve_exact(count).ok()?;
    stats::each(|pool| {
        if all.len() < all.capacity() {
            // SAFETY: the pool stays until `each` returns, and was made before it was enrolled.
            all.push(Snapshot::new(unsafe { &*pool.cast::<Shared>() }));
        }
    });
    all.sort_unstable_by_key(|pool| pool.number);
    Some(all)
}
