// SPDX-License-Identifier: GPL-3.0-or-later
//! The event loop in a thread of the application's: one turn at a time.
//!
//! Between two turns nobody waits, but the application may watch the pool's wait descriptor. So a turn
//! ends as a sleep begins: it sets the flag [`Sleeping`](crate::wake::Sleeping) and looks once more. What
//! came before makes the descriptor readable at once, by a byte in the wake pipe; what comes later does so
//! by itself. The poller has the deadline, as it would if the loop slept.

use std::sync::atomic::Ordering;

use super::event_loop::{EventLoop, Turn};
use super::poller::Until;
use super::{REQUESTS, RUN_NOW, SOON};
use crate::group;
use crate::group::core::Came;
use crate::perturb::perturb;
use crate::shared::Shared;
use crate::sys;

impl EventLoop {
    /// A turn that waits until the monotonic clock shows `limit`, in nanoseconds: 0 not at all,
    /// `u64::MAX` for ever. Calls `quiet` when no callback runs any more. The caller then calls
    /// [`EventLoop::pause`], unless it makes another turn.
    pub(crate) fn turn_until(&mut self, pool: &Shared, limit: u64, quiet: impl FnOnce()) -> Turn {
        pool.wake.sleeping.end();
        if pool.is_clocked {
            pool.turn_begins();
        }
        let done = loop {
            if self.quiet || pool.is_ending() {
                self.quiet_step(pool, quiet);
                pool.loop_ends();
                return Turn::Quiet;
            }
            if self.step(pool, limit) {
                break Turn::Done;
            }
            perturb("found nothing, and not looked whether the pool ends");
            if !pool.is_ending() && (limit == 0 || limit <= sys::now()) {
                break Turn::Nothing;
            }
        };
        if done == Turn::Nothing {
            // A time that the poller still has, although nobody wants it any more, would be found.
            self.exact = true;
        }
        if pool.is_clocked {
            pool.loop_ends();
        }
        done
    }

    /// Nobody is inside from here on: see to it that what is left, and what comes, makes the wait
    /// descriptor readable.
    pub(crate) fn pause(&mut self, pool: &Shared) {
        let exact = std::mem::take(&mut self.exact);
        let readable = if self.quiet {
            self.watch_pipe(pool);
            let idle =
                || pool.requests.is_empty() && !pool.wake.nudged.swap(false, Ordering::SeqCst);
            !pool.wake.sleeping.begin(idle)
        } else {
            if exact {
                self.wheel.look_anew();
            }
            let until = self.until(pool);
            perturb("said to sleep outside, and the poller does not know how long");
            let deadline = match until {
                Until::Now => 0,
                Until::Deadline(deadline) => deadline,
                Until::Event => u64::MAX,
            };
            let deadline = match self.renewal.is_pending() {
                true => deadline.min(self.renewal.next),
                false => deadline,
            };
            deadline == 0 || !self.poller.rest(deadline, exact) || pool.is_ending()
        };
        if readable && !pool.wake.write(pool) {
            pool.wake.nudged.store(true, Ordering::SeqCst);
        }
    }

    /// One step of a turn, which waits for no longer than until `limit`. True if it found something.
    fn step(&mut self, pool: &Shared, limit: u64) -> bool {
        pool.slots.of_loop().count_turn();
        let mut found = self.take_requests(pool, REQUESTS) > 0;
        found |= !pool.mailbox.is_empty();
        self.take_signals(pool);
        let until = self.until(pool);
        if self.renewal.is_pending() && self.renewal.next <= sys::now() {
            // The wait that failed may work again, and then nothing else would end this.
            self.stale = self.renewal.pending;
        }
        found |= self.stale.is_some();
        let until = if found {
            Until::Now
        } else {
            self.limited(until, limit)
        };
        let (events, _) = self.poll(pool, until, false);
        found |= events > 0;
        perturb("polled, and no time-out told");
        found |= self.wheel.next().is_some_and(|next| next <= sys::now());
        self.expire(pool);
        found |= !self.lists().ready.is_empty();
        self.run_ready(pool);
        found |= self.serve_work(pool);
        found |= !pool.loop_work.is_empty();
        self.run_now(pool, RUN_NOW);
        found
    }

    /// `until`, but no later than `limit`.
    fn limited(&mut self, until: Until, limit: u64) -> Until {
        let sooner = match until {
            Until::Now => return Until::Now,
            Until::Deadline(deadline) => limit < deadline,
            Until::Event => limit != u64::MAX,
        };
        if !sooner {
            return until;
        }
        if limit == 0 || limit <= sys::now() + SOON {
            return Until::Now;
        }
        self.exact = true;
        Until::Deadline(limit)
    }

    /// In a pool without workers, serve the groups in the queue that is theirs. True if there were any.
    fn serve_work(&mut self, pool: &Shared) -> bool {
        if pool.work.is_empty() || !pool.has_no_workers() {
            return false;
        }
        for _ in 0..pool.work.len() {
            match pool.work.pop().map(|task| task.kind()) {
                Some(group::TaskKind::Group(group)) => self.serve(pool, group, Came::FromWork),
                // No function makes a job for workers that there are not, and a look is a request.
                Some(group::TaskKind::Job(_) | group::TaskKind::LookAtAll) => {
                    debug_assert!(false, "a task for a worker");
                }
                None => break,
            }
        }
        true
    }

    /// A turn of a loop that is quiet, or goes quiet now.
    fn quiet_step(&mut self, pool: &Shared, quiet: impl FnOnce()) {
        if !self.quiet {
            while self.serve_work(pool) {
                self.run_now(pool, RUN_NOW);
            }
            self.go_quiet(pool);
            quiet();
        }
        if !pool.wake.clear() {
            self.mend_or_leave(pool);
        }
        pool.wake.nudged.store(false, Ordering::SeqCst);
        self.take_late(pool);
        self.serve_late(pool);
    }

    /// The wait descriptor speaks for the poller.
    pub(crate) fn watch_poller(&self, pool: &Shared) {
        if let Some(caller) = &pool.caller {
            caller.wait_fd.watch(self.poller.wait_fd().unwrap_or(-1));
        }
    }

    /// The quiet loop takes only what comes with a wake: descriptors and timers fire no more.
    fn watch_pipe(&self, pool: &Shared) {
        if let Some(caller) = &pool.caller {
            caller.wait_fd.watch(pool.wake.read_end());
        }
    }
}
