// SPDX-License-Identifier: GPL-3.0-or-later
//! The watchdog: a thread that reports callbacks that take long.
//! See [`shared::watchdog`](crate::shared::watchdog) for how it and the pool's threads learn of each other.

use std::ffi::CStr;
use std::mem;
use std::ptr;

use libc::c_int;

use super::Pool;
use super::slow::Report;
use crate::abi::ns_slow_call;
use crate::log::log;
use crate::symbol::Symbol;
use crate::sys;

/// Two looks are at least so far apart, in nanoseconds.
const PAUSE: u64 = 1_000_000;

impl Pool {
    /// The watchdog's work, until the pool is destroyed.
    pub(super) fn run_watchdog(&self) {
        let watchdog = &self.shared.watchdog;
        loop {
            let stopped = watchdog.is_stopped();
            let mut next = u64::MAX;
            for (number, slot) in self.shared.slots.all().enumerate() {
                // SAFETY: there is one for each slot, and only this thread uses them.
                let known = unsafe { &mut *self.known.as_ptr().add(number) };
                loop {
                    let (report, at) = known.look(slot, watchdog.slow);
                    next = next.min(at);
                    let Some(report) = report else { break };
                    self.report(&report, number);
                }
            }
            if stopped {
                return;
            }
            if next != u64::MAX {
                watchdog.sleep_until(next.max(sys::now() + PAUSE));
            } else if !watchdog.sleep(|| self.all_sleep()) {
                watchdog.sleep_until(sys::now() + watchdog.slow.max(PAUSE));
            } else if !watchdog.is_stopped() {
                // What runs now has begun since, and is not slow before that.
                watchdog.sleep_until(sys::now() + watchdog.slow.max(PAUSE));
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
