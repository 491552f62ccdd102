// SPDX-License-Identifier: GPL-3.0-or-later
//! Statistics as text, in the format that Prometheus reads (version 0.0.4): for each metric a line of help,
//! one with its type, and then the values of all pools.

use std::fmt::{self, Display, Write};

use super::Shared;
use crate::abi::ns_thrpool_stats as Stats;
use crate::stats;

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

/// A metric that is a number of seconds, kept with the timings.
const TIMES: &[Number] = &[
    number!(
        COUNTER,
        loop_busy_ns,
        "loop_busy_seconds_total",
        "Time that the loop was at work."
    ),
    number!(
        COUNTER,
        loop_idle_ns,
        "loop_idle_seconds_total",
        "Time that the loop waited for events."
    ),
];

/// A metric that is a histogram of times, kept with the timings.
struct Histogram {
    name: &'static str,
    help: &'static str,
    of: fn(&Stats) -> (&[u64; 64], u64),
}

const HISTOGRAMS: &[Histogram] = &[
    Histogram {
        name: "queue_loop_seconds",
        help: "Time from firing or add to the beginning of the callback, in the loop.",
        of: |stats| (&stats.queue_loop_ns, stats.queue_loop_sum),
    },
    Histogram {
        name: "queue_worker_seconds",
        help: "Time from firing or add to the beginning of the callback, in workers.",
        of: |stats| (&stats.queue_worker_ns, stats.queue_worker_sum),
    },
    Histogram {
        name: "run_loop_seconds",
        help: "How long callbacks took in the loop.",
        of: |stats| (&stats.run_loop_ns, stats.run_loop_sum),
    },
    Histogram {
        name: "run_worker_seconds",
        help: "How long callbacks took in workers.",
        of: |stats| (&stats.run_worker_ns, stats.run_worker_sum),
    },
    Histogram {
        name: "late_seconds",
        help: "How long after its time a timer fired.",
        of: |stats| (&stats.late_ns, stats.late_sum),
    },
];

/// The bounds that are told: those of these elements of a histogram. The first is 255 ns, the last 69 s.
const BOUNDS: std::ops::RangeInclusive<usize> = 8..=36;

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

/// Nanoseconds, written as seconds.
struct Seconds(u64);

impl Display for Seconds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{}.{:09}",
            self.0 / 1_000_000_000,
            self.0 % 1_000_000_000
        )
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
        let timed = || pools.iter().filter(|pool| pool.timed);
        if timed().next().is_none() {
            return Ok(());
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
        for Histogram { name, help, of } in HISTOGRAMS {
            self.head(name, "histogram", help)?;
            for pool in timed() {
                let (counts, sum) = of(&pool.stats);
                self.histogram(name, pool, counts, sum)?;
            }
        }
        Ok(())
    }

    fn histogram(
        &mut self,
        name: &str,
        pool: &Snapshot,
        counts: &[u64; 64],
        sum: u64,
    ) -> fmt::Result {
        let mut below = 0;
        for (element, count) in counts.iter().enumerate() {
            below += count;
            if BOUNDS.contains(&element) {
                // A bound belongs to its bucket, and the next element begins with 2^element.
                let bound = Seconds((1 << element) - 1);
                writeln!(
                    self,
                    "nunc_stans_{name}_bucket{{pool=\"{pool}\",le=\"{bound}\"}} {below}"
                )?;
            }
        }
        let sum = Seconds(sum);
        writeln!(
            self,
            "nunc_stans_{name}_bucket{{pool=\"{pool}\",le=\"+Inf\"}} {below}\n\
             nunc_stans_{name}_sum{{pool=\"{pool}\"}} {sum}\n\
             nunc_stans_{name}_count{{pool=\"{pool}\"}} {below}"
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
