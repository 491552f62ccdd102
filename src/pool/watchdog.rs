// SPDX-License-Identifier: GPL-3.0-or-later
//! The watchdog: a thread that reports callbacks that take long. See [`watch`](crate::shared::watch) for how
//! it and the pool's threads learn of each other.

use std::ffi::CStr;
use std::mem;
use std::ptr;

use libc::c_int;

use super::Pool;
use crate::abi::ns_slow_call;
use crate::log::log;
use crate::stats::{Call, Slot};
use crate::symbol::Symbol;
use crate::sys;

/// Two looks are at least so far apart, in nanoseconds.
const PAUSE: u64 = 1_000_000;

/// A callback that was reported, and when it was seen last.
#[derive(Clone, Copy)]
struct Slow {
    call: Call,
    seen: u64,
    /// The number of its thread, which may have left when it is over.
    thread: c_int,
}

/// What the watchdog knows of one thread. All zero is a valid value: nothing.
pub(super) struct Watched {
    /// Whether there is one.
    reported: bool,
    slow: Slow,
}

/// What there is to report.
struct Report {
    call: Call,
    thread: c_int,
    ns: u64,
    ended: bool,
}

impl Watched {
    /// Looks at a thread. Returns a report, if there is one, and when to look again.
    fn look(&mut self, slot: &Slot, slow: u64) -> (Option<Report>, u64) {
        // Before the slot: a callback that is found there ran at that time.
        let now = sys::now();
        let call = slot.call();
        if self.reported {
            if call.is_some_and(|call| call.is(&self.slow.call)) {
                self.slow.seen = now;
                return (None, now + slow);
            }
            let Slow { call, seen, thread } = self.slow;
            self.reported = false;
            // After the look at the callback: it is over, so its thread has looked at the mark.
            let end = slot.take_end().unwrap_or(seen);
            let ns = end.saturating_sub(call.since);
            let ended = true;
            return (
                Some(Report {
                    call,
                    thread,
                    ns,
                    ended,
                }),
                now,
            );
        }
        match call {
            Some(call) if call.since != 0 && call.since + slow <= now => {
                slot.mark(call.since);
                let (seen, thread) = (now, slot.thread());
                self.slow = Slow { call, seen, thread };
                self.reported = true;
                let (ns, ended) = (now - call.since, false);
                (
                    Some(Report {
                        call,
                        thread,
                        ns,
                        ended,
                    }),
                    now + slow,
                )
            }
            Some(call) if call.since != 0 => (None, call.since + slow),
            _ => (None, u64::MAX),
        }
    }
}

impl Pool {
    /// The watchdog's work, until the pool is destroyed.
    pub(super) fn watch(&self) {
        let watch = &self.shared.watch;
        loop {
            let stopped = watch.is_stopped();
            let mut next = u64::MAX;
            for (number, slot) in self.shared.slots.all().enumerate() {
                // SAFETY: there is one for each slot, and only this thread uses them.
                let known = unsafe { &mut *self.watched.as_ptr().add(number) };
                loop {
                    let (report, at) = known.look(slot, watch.slow);
                    next = next.min(at);
                    let Some(report) = report else { break };
                    self.report(&report, number);
                }
            }
            if stopped {
                return;
            }
            if next != u64::MAX {
                watch.sleep_until(next.max(sys::now() + PAUSE));
            } else if !watch.sleep(|| self.all_sleep()) {
                watch.sleep_until(sys::now() + watch.slow.max(PAUSE));
            } else if !watch.is_stopped() {
                // What runs now has begun since, and is not slow before that.
                watch.sleep_until(sys::now() + watch.slow.max(PAUSE));
            }
        }
    }

    /// Whether neither the loop nor a worker is awake.
    fn all_sleep(&self) -> bool {
        self.shared.wake.sleeping.is_set() && self.shared.slots.busy() == 0
    }

    fn report(&self, report: &Report, number: usize) {
        let Report {
            call, ns, ended, ..
        } = report;
        let (in_loop, thread) = (number == 0, report.thread);
        let symbol = Symbol(call.func);
        if let Some(slow_fct) = self.slow_fct {
            let slow = ns_slow_call {
                size: mem::size_of::<ns_slow_call>(),
                tp: self.shared.as_c().as_ptr(),
                job: call.job.cast_mut().cast(),
                // SAFETY: the slot has a job's callback, or done callback, of this type.
                func: unsafe {
                    mem::transmute::<*mut libc::c_void, crate::abi::ns_job_func_t>(call.func)
                },
                name: symbol.name(),
                data: call.data,
                thread,
                in_loop: c_int::from(in_loop),
                ended: c_int::from(*ended),
                ns: *ns,
            };
            // SAFETY: the application's function; what it gets stays meanwhile.
            return unsafe { slow_fct(ptr::from_ref(&slow)) };
        }
        let what = if call.ending {
            "done callback"
        } else {
            "callback"
        };
        let name = self.thread_name(in_loop);
        let name: &CStr = name.as_c();
        let name = name.to_str().unwrap_or_default();
        let job = call.job;
        let ms = ns / 1_000_000;
        match ended {
            false => log!(
                self.shared.logger,
                LOG_WARNING,
                "{what} {symbol} of job {job:p} has been running for {ms} ms in {name} (thread {thread})"
            ),
            true => log!(
                self.shared.logger,
                LOG_WARNING,
                "{what} {symbol} of job {job:p} has returned after {ms} ms in {name} (thread {thread})"
            ),
        }
    }
}
