// SPDX-License-Identifier: GPL-3.0-or-later
//! The event loop: the one thread that owns the poller.
//!
//! A turn: take requests, look at signals, wait, see which jobs fire, and run them, then some of
//! the run-now jobs. What fires for a worker goes to the work queue before the first callback of
//! the loop's own runs. Each step is bounded, so that none keeps the others waiting: a flood of
//! adds does not delay timers, nor busy descriptors requests. By number: requests, waits, timers,
//! run-now jobs; and by time: callbacks, done callbacks, and requests where there are many. What a
//! bound leaves over is for the next turn, which does not sleep then. The only step without a bound
//! of its own is a new poller, which is told of every descriptor at once.

mod backoff;
mod dispose;
mod end;
mod event_loop;
mod fire;
mod io;
mod lists;
mod lost;
mod poller;
mod renew;
mod requests;
mod retry;

use std::sync::atomic::Ordering;

use crate::perturb::perturb;
use crate::shared::{Phase, Shared};
use crate::sys;

use backoff::Stale;
pub(crate) use event_loop::EventLoop;
pub(crate) use lists::Lists;
pub(crate) use poller::Framework;
use poller::{Event, Until};

/// Requests that one turn takes.
const REQUESTS: usize = 4096;
/// Waits that one step makes, each for as many events as the poller has room for.
const WAITS: usize = 16;
/// Run-now jobs that one turn runs.
const RUN_NOW: usize = 1024;
/// Nanoseconds that are not worth sleeping.
const SOON: u64 = 2_000;

impl EventLoop {
    /// The loop thread's life, until the pool is destroyed. `quiet` is called when no callback
    /// runs any more.
    pub(crate) fn run(&mut self, pool: &Shared, quiet: impl FnOnce()) {
        pool.wake.rouse.enter(self.mask, self.roused);
        while !(pool.is_shutting_down() && pool.workers.load(Ordering::SeqCst) == 0) {
            self.turn(pool);
        }
        self.go_quiet(pool);
        quiet();
        while pool.phase() != Phase::Stopping {
            self.quiet_turn(pool);
        }
        self.dispose_of_all(pool);
    }

    /// One turn.
    fn turn(&mut self, pool: &Shared) {
        self.take_requests(pool, REQUESTS);
        self.take_signals(pool);
        let until = self.until(pool);
        self.poll(pool, until, false);
        perturb("polled, and no time-out told");
        self.expire(pool);
        self.run_ready(pool);
        self.run_now(pool, RUN_NOW);
    }

    /// How long this turn may wait. [`Wake`](crate::wake::Wake) says why what arrives after the look is
    /// not missed.
    fn until(&mut self, pool: &Shared) -> Until {
        if !self.ready.is_empty() || self.dispatched > 0 {
            return Until::Now;
        }
        let until = match self.wheel.next() {
            None if self.later.look == u64::MAX => Until::Event,
            None => Until::Deadline(self.later.look),
            // Not worth setting the timer for: a system call takes as long.
            Some(next) if next <= sys::now() + SOON => return Until::Now,
            Some(next) => Until::Deadline(next.min(self.later.look)),
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

    /// Wait, and see which descriptors' jobs fire. If timers are due, or with `to_the_end`, all of
    /// those that are ready, even if there are more than one wait can return, up to [`WAITS`]. False
    /// if there may still be more.
    fn poll(&mut self, pool: &Shared, until: Until, to_the_end: bool) -> bool {
        let mut until = until;
        let mut left = WAITS;
        loop {
            let (count, full) = self
                .poller
                .wait(until)
                .unwrap_or_else(|trouble| self.in_trouble(pool, trouble, until));
            pool.wake.sleeping.end();
            perturb("waited, and nothing dispatched");
            let mut changed = false;
            for index in 0..count {
                match self.poller.event(index) {
                    Event::Wake => {
                        if !pool.wake.clear() {
                            self.stale = Some(Stale::Wake);
                        }
                    }
                    // Each turn looks for itself which timers are due.
                    Event::Time => self.check_unheard(pool),
                    Event::Ready(key, directions) => {
                        changed |= self.on_ready(pool, key, directions);
                    }
                }
            }
            if let Some(stale) = self.stale.take() {
                self.notify_workers(pool);
                self.renew(pool, stale);
            }
            // What is ready is reported in turn: once nothing is new, all have been seen. What is
            // to be dropped and can't be is new each time.
            if !(full && changed) || self.renewal.is_pending() {
                return true;
            }
            if !to_the_end && self.wheel.next().is_none_or(|next| next > sys::now()) {
                return false;
            }
            left -= 1;
            if left == 0 {
                return false;
            }
            until = Until::Now;
        }
    }
}
