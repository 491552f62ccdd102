// SPDX-License-Identifier: GPL-3.0-or-later
//! The event loop: the one thread that owns the poller.
//!
//! In each turn the loop takes requests, looks for signals, waits for events, fires jobs, runs the
//! fired jobs that are its own, and then some of the run-now jobs. Jobs that fire for workers go to
//! the work queue before the first callback in the loop runs. Each step is bounded, so that none
//! starves the others: a flood of adds does not delay timers, and busy descriptors do not delay
//! requests. Requests, waits, timers and run-now jobs are bounded by number. Callbacks, done
//! callbacks and large numbers of requests are bounded by time. The next turn takes what a bound
//! left over, without sleeping first. Only the replacement of the poller has no bound of its own:
//! it registers all descriptors at once.

mod backoff;
mod caller;
mod dispose;
mod end;
mod event_loop;
mod fire;
mod io;
mod lists;
mod look;
mod lost;
mod poller;
mod renew;
mod requests;
mod rest;
mod retry;

use std::sync::atomic::Ordering;

use crate::perturb::perturb;
use crate::shared::{Phase, Shared};
use crate::sys;

use backoff::Stale;
pub(crate) use event_loop::{EventLoop, Turn};
pub(crate) use lists::{LISTS_LAYOUT, Lists};
pub(crate) use look::step as look_step;
use poller::{Event, Until};
pub(crate) use poller::{Framework, Functions, Named};

/// How many requests one turn takes at most.
const REQUESTS: usize = 4096;
/// How many waits one step makes at most. Each returns as many events as the poller has room for.
const WAITS: usize = 16;
/// How many run-now jobs one turn runs at most.
const RUN_NOW: usize = 1024;
/// If the next deadline is no more than this many nanoseconds away, the loop does not sleep.
const SOON: u64 = 2_000;

impl EventLoop {
    /// Run the loop until the pool is destroyed. Calls `quiet` when no callback runs any more.
    pub(crate) fn run(&mut self, pool: &Shared, quiet: impl FnOnce()) {
        pool.wake.rouse.enter(self.mask, self.roused);
        pool.loop_begins();
        while !pool.is_ending() {
            self.turn(pool);
        }
        self.go_quiet(pool);
        pool.loop_ends();
        quiet();
        while pool.phase() != Phase::Stopping {
            self.quiet_turn(pool);
        }
        self.dispose_of_all(pool);
    }

    /// One turn.
    fn turn(&mut self, pool: &Shared) {
        pool.slots.of_loop().count_turn();
        self.take_requests(pool, REQUESTS);
        self.take_signals(pool);
        let until = self.until(pool);
        self.poll(pool, until, false);
        perturb("polled, and no time-out told");
        self.expire(pool);
        // This first announces the jobs that fired for workers.
        self.run_ready(pool);
        self.run_now(pool, RUN_NOW);
    }

    /// How long this turn may wait. [`Wake`](crate::wake::Wake) explains why the loop does not miss
    /// what arrives after this check.
    // As part of a turn.
    #[inline(always)]
    fn until(&mut self, pool: &Shared) -> Until {
        if !self.lists().ready.is_empty() || self.dispatched > 0 {
            return Until::Now;
        }
        let until = match self.wheel.next() {
            None if self.later.check_at == u64::MAX => Until::Event,
            None => Until::Deadline(self.later.check_at),
            // Setting the timer would take as long as the wait: it is a system call.
            Some(next) if next <= sys::now() + SOON => return Until::Now,
            Some(next) => Until::Deadline(next.min(self.later.check_at)),
        };
        let idle = || {
            pool.requests.is_empty()
                && pool.loop_work.is_empty()
                && pool.mailbox.is_empty()
                && !pool.wake.nudged.swap(false, Ordering::SeqCst)
        };
        if pool.wake.sleeping.begin(idle) {
            return until;
        }
        if pool.wake.is_lost() {
            self.stale = Some(Stale::Wake);
        }
        Until::Now
    }

    /// Wait, and fire the jobs of ready descriptors.
    ///
    /// One wait can return only so many events. If timers are due, or with `to_the_end`, this takes
    /// all that are ready, in at most [`WAITS`] waits. Returns the number of events, apart from those
    /// that only say what time it is, and whether all that are ready were seen.
    fn poll(&mut self, pool: &Shared, until: Until, to_the_end: bool) -> (usize, bool) {
        let mut until = until;
        let mut events = 0;
        let mut left = WAITS;
        loop {
            if pool.is_clocked {
                pool.before_wait(!matches!(until, Until::Now));
            }
            let (count, full) = self
                .poller
                .wait(until)
                .unwrap_or_else(|error| self.on_wait_error(pool, error, until));
            pool.wake.sleeping.end();
            if pool.is_clocked {
                pool.after_wait();
            }
            perturb("waited, and nothing dispatched");
            events += count;
            let mut changed = false;
            for index in 0..count {
                match self.poller.event(index) {
                    Event::Wake => {
                        if !pool.wake.clear() {
                            self.stale = Some(Stale::Wake);
                        }
                    }
                    // Every turn checks the timers anyway.
                    Event::Time => {
                        events -= 1;
                        self.check_unheard(pool);
                    }
                    Event::Ready(key, directions) => {
                        changed |= self.on_ready(pool, key, directions);
                    }
                }
            }
            if let Some(stale) = self.stale.take() {
                self.notify_workers(pool);
                self.renew(pool, stale);
            }
            // The poller reports ready descriptors round-robin: when a wait brings nothing new, the
            // loop has seen all of them. An event that we cannot stop is reported again by every
            // wait, so do not go on until the poller is replaced.
            if !(full && changed) || self.renewal.is_pending() {
                return (events, true);
            }
            if !to_the_end && self.wheel.next().is_none_or(|next| next > sys::now()) {
                return (events, false);
            }
            left -= 1;
            if left == 0 {
                return (events, false);
            }
            until = Until::Now;
            pool.slots.of_loop().count_wait();
        }
    }
}
