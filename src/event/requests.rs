// SPDX-License-Identifier: GPL-3.0-or-later
//! Requests of other threads: jobs to arm, and jobs to dispose of.

use std::hint::spin_loop;

use super::budget::Slice;
use super::event_loop::EventLoop;
use crate::job::{JobPtr, place, state};
use crate::shared::Shared;

/// Requests to arm between two looks at the clock. Each may be a system call.
const ARMS: usize = 128;
/// How often the loop looks for a request that may be about to come, and how often in all of one
/// turn. A look takes some 20 to 50 nanoseconds, by processor.
const LINGER: usize = 100;
const LINGERS: usize = 400;

impl EventLoop {
    /// Take what was asked for, but no more than `most`. Returns how much it was.
    #[inline(always)]
    pub(super) fn take_requests(&mut self, pool: &Shared, most: usize) -> usize {
        let mut slice = None;
        let mut looks = LINGERS;
        for taken in 0..most {
            let Some(job) = self.next_request(pool, taken, &mut looks) else {
                return taken;
            };
            if job.state.take_request() == state::ARMED {
                self.arm(pool, job);
                // A turn that takes few does not look at the clock at all.
                if taken % ARMS == ARMS - 1 && Slice::is_late(&mut slice) {
                    return taken + 1;
                }
                continue;
            }
            // Done callbacks are the application's, and may take their time.
            self.tell_workers(pool);
            let slice = slice.get_or_insert_with(Slice::new);
            if job.is(place::READY) {
                // The list has it still, as a work queue would.
                job.state.hold();
            }
            self.dispose(pool, job);
            if slice.is_over() {
                return taken + 1;
            }
        }
        most
    }

    /// The next request of a turn that has taken so many. It may look so often for what is about to
    /// come.
    fn next_request(&mut self, pool: &Shared, taken: usize, looks: &mut usize) -> Option<JobPtr> {
        // Most turns find none at first, and asking for that is quicker than a pop that finds none.
        if taken > 0 || !pool.requests.is_empty() {
            let next = pool.requests.pop();
            if next.is_some() {
                return next;
            }
        }
        if taken > 1 || self.given > 1 {
            self.linger(pool, looks)
        } else {
            None
        }
    }

    /// Where several jobs were given to workers, or several requests came, there will soon be more:
    /// the loop looks for the next for a little, as a wake takes both the loop and who wakes it
    /// longer than that. Nobody has to wake it meanwhile, and what else there is waits no longer
    /// than it would for a short callback.
    // Not that it is rare: turns without workers are to stay as short as they would be without it.
    #[cold]
    fn linger(&mut self, pool: &Shared, looks: &mut usize) -> Option<JobPtr> {
        let nothing_else = self.dispatched == 0
            && self.ready.is_empty()
            && pool.loop_work.is_empty()
            && pool.mailbox.is_empty();
        if nothing_else {
            for _ in 0..LINGER.min(*looks) {
                if !pool.requests.is_empty() {
                    return pool.requests.pop();
                }
                *looks -= 1;
                spin_loop();
            }
        }
        self.given = 0;
        None
    }
}
