// SPDX-License-Identifier: GPL-3.0-or-later
//! The lines of a dump.

use std::cmp::Reverse;
use std::ffi::CStr;
use std::fmt::{self, Write};

use super::options::Name;
use crate::abi::*;
use crate::job::Kind;
use crate::shared::look::{Doing, Record};
use crate::stats::{Call, Slot};
use crate::symbol::Symbol;

/// How a dump went.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dumped {
    All,
    /// The loop did not answer. The lines say what the threads do.
    TimedOut,
    NoMemory,
}

/// What a thread did when it was looked at, and since when that is known.
#[derive(Clone, Copy)]
pub(super) struct Seen {
    call: Option<Call>,
    since: u64,
    /// The thread's number, as the system calls it; 0 if it has ended.
    thread: i32,
    /// The loop is number 0.
    number: usize,
}

/// A time in seconds.
struct Seconds(u64);

impl fmt::Display for Seconds {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            out,
            "{}.{:03} s",
            self.0 / 1_000_000_000,
            self.0 / 1_000_000 % 1000
        )
    }
}

/// A line, cut if it is too long, with room for its NUL.
struct Line {
    text: [u8; 1024],
    used: usize,
}

impl Line {
    fn new() -> Self {
        Self {
            text: [0; 1024],
            used: 0,
        }
    }

    fn as_c(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.text).unwrap_or_default()
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let text = &text.as_bytes()[..text.len().min(self.text.len() - 1 - self.used)];
        self.text[self.used..self.used + text.len()].copy_from_slice(text);
        self.used += text.len();
        Ok(())
    }
}

/// The lines of one dump. Everything is known by now.
pub(super) struct Report<'a, F> {
    pub(super) now: u64,
    pub(super) name: Name,
    pub(super) seen: &'a [Seen],
    pub(super) line: F,
}

impl<F: FnMut(&CStr)> Report<'_, F> {
    fn say(&mut self, message: fmt::Arguments<'_>) {
        let mut line = Line::new();
        // It never fails: a line is cut.
        let _ = line.write_fmt(message);
        (self.line)(line.as_c());
    }

    /// How a thread is called in a line.
    fn thread(&self, seen: &Seen) -> impl fmt::Display + use<F> {
        let suffix = if seen.number == 0 { "-loop" } else { "-worker" };
        Thread(self.name.with(suffix), seen.thread, seen.number)
    }

    fn time(&self, seen: &Seen) -> Since {
        Since {
            exact: seen.call.is_some_and(|call| call.since != 0),
            ns: self.now.saturating_sub(seen.since),
        }
    }

    /// The line of a job.
    fn job(&mut self, record: &Record) {
        let in_thread = (self.seen.iter())
            .find(|seen| seen.call.is_some_and(|call| call.is_of(record.job)))
            .map(|seen| (self.thread(seen), self.time(seen)));
        let mut line = Line::new();
        let _ = self.write_job(&mut line, record, in_thread);
        (self.line)(line.as_c());
    }

    fn write_job(
        &self,
        line: &mut Line,
        record: &Record,
        in_thread: Option<(impl fmt::Display, Since)>,
    ) -> fmt::Result {
        write!(line, "job {:#x}: {}", record.job, Flags(record.flags))?;
        match record.kind {
            Kind::Io => write!(line, " on descriptor {}", record.number)?,
            Kind::Signal => write!(line, " signal {}", record.number)?,
            Kind::Now | Kind::Timer => {}
        }
        let left = Seconds(record.due.saturating_sub(self.now));
        match record.doing {
            Doing::Running => line.write_str(", running")?,
            Doing::Waiting => line.write_str(", armed")?,
            Doing::Resting => write!(line, ", rests for {left}")?,
            Doing::Fired => line.write_str(", has fired")?,
            Doing::Queued => line.write_str(", in its group's queue")?,
        }
        match in_thread {
            Some((thread, time)) if record.doing == Doing::Running => {
                write!(line, " in {thread}{time}")?;
            }
            _ => {}
        }
        if record.doing == Doing::Waiting && record.due != u64::MAX {
            write!(line, ", due in {left}")?;
        }
        write!(
            line,
            ", callback {}, data {:p}",
            Symbol(record.func),
            record.data
        )?;
        if record.group != 0 {
            write!(line, ", group {:#x}", record.group)?;
        }
        Ok(())
    }

    /// What a thread runs.
    fn call(&mut self, seen: &Seen, call: &Call) {
        let (thread, time) = (self.thread(seen), self.time(seen));
        let of = if call.ending {
            "done callback"
        } else {
            "callback"
        };
        self.say(format_args!(
            "job {:#x}: running in {thread}{time}, {of} {}",
            call.job.addr(),
            Symbol(call.func)
        ));
    }
}

struct Thread(Name, i32, usize);

impl fmt::Display for Thread {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.0.as_c().to_str().unwrap_or_default();
        write!(out, "{name}")?;
        if self.2 > 0 {
            write!(out, " {}", self.2)?;
        }
        if self.1 != 0 {
            write!(out, " (thread {})", self.1)?;
        }
        Ok(())
    }
}

/// For how long a callback has run.
struct Since {
    /// The pool reads the clock for each callback. Otherwise it is the time since this was seen first.
    exact: bool,
    ns: u64,
}

impl fmt::Display for Since {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.exact, self.ns) {
            (true, ns) => write!(out, " for {}", Seconds(ns)),
            (false, 0) => Ok(()),
            (false, ns) => write!(out, " for at least {}", Seconds(ns)),
        }
    }
}

/// Flags by their names.
struct Flags(ns_job_type_t);

impl fmt::Display for Flags {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        const NAMES: [(ns_job_type_t, &str); 11] = [
            (NS_JOB_ACCEPT, "ACCEPT"),
            (NS_JOB_CONNECT, "CONNECT"),
            (NS_JOB_READ, "READ"),
            (NS_JOB_WRITE, "WRITE"),
            (NS_JOB_TIMER, "TIMER"),
            (NS_JOB_SIGNAL, "SIGNAL"),
            (NS_JOB_PERSIST, "PERSIST"),
            (NS_JOB_CADENCE, "CADENCE"),
            (NS_JOB_THREAD, "THREAD"),
            (NS_JOB_PRESERVE_FD, "PRESERVE_FD"),
            (NS_JOB_SHUTDOWN_WORKER, "SHUTDOWN_WORKER"),
        ];
        let triggers = NS_JOB_IO | NS_JOB_TIMER | NS_JOB_SIGNAL;
        if self.0 & triggers == 0 {
            out.write_str("run-now")?;
        }
        let mut between = if self.0 & triggers == 0 { " " } else { "" };
        for (flag, name) in NAMES {
            if self.0 & flag != 0 {
                write!(out, "{between}{name}")?;
                between = " ";
            }
        }
        Ok(())
    }
}

impl Seen {
    /// Looks at a thread, of which `old` is known.
    pub(super) fn new(slot: &Slot, number: usize, now: u64, old: Option<Self>) -> Self {
        let call = slot.call();
        let known = |call: &Call| match old {
            Some(old) if old.call.is_some_and(|old| old.is(call)) => old.since,
            _ => now,
        };
        Self {
            since: call.as_ref().map_or(now, |call| match call.since {
                0 => known(call),
                since => since,
            }),
            call,
            thread: slot.thread(),
            number,
        }
    }
}

impl<F: FnMut(&CStr)> Report<'_, F> {
    /// Says all of it.
    pub(super) fn tell(
        &mut self,
        records: &mut [Record],
        skipped: usize,
        outcome: Dumped,
        queues: (usize, usize, usize),
    ) {
        // Of a job that was noted twice, what was noted last is true.
        records.sort_unstable_by_key(|record| (record.job, Reverse(record.order)));
        let mut kept = 0;
        for at in 0..records.len() {
            if kept == 0 || records[kept - 1].job != records[at].job {
                records[kept] = records[at];
                kept += 1;
            }
        }
        let records = &mut records[..kept];
        // Those with a callback that runs, of which no list has the job.
        for seen in self.seen {
            let Some(call) = &seen.call else { continue };
            let at = records.binary_search_by_key(&call.job.addr(), |record| record.job);
            let listed = at.is_ok_and(|at| records[at].doing == Doing::Running && !call.ending);
            let told = outcome == Dumped::TimedOut && seen.number == 0;
            if !listed && !told {
                self.call(seen, call);
            }
        }
        records.sort_unstable_by_key(|record| record.order);
        records.iter().for_each(|record| self.job(record));
        if skipped > 0 {
            self.say(format_args!("{skipped} more jobs in groups' queues"));
        }
        let (requests, own, work) = queues;
        self.say(format_args!(
            "queues: {requests} requests to the loop, {own} run-now jobs and groups for the loop, \
             {work} jobs and groups for workers"
        ));
        if outcome == Dumped::TimedOut {
            let seen = &self.seen[0];
            let (thread, time) = (self.thread(seen), self.time(seen));
            match &seen.call {
                Some(call) => {
                    let of = if call.ending {
                        "done callback"
                    } else {
                        "callback"
                    };
                    self.say(format_args!(
                        "{thread} does not answer: it is in {of} {} of job {:#x}{time}",
                        Symbol(call.func),
                        call.job.addr()
                    ));
                }
                None => self.say(format_args!("{thread} does not answer")),
            }
        }
    }
}
