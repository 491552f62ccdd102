// SPDX-License-Identifier: GPL-3.0-or-later
//! Requests of other threads: jobs to arm, and jobs to dispose of.

use std::hint::spin_loop;
use std::mem;
use std::ptr;

use libc::c_int;

use super::event_loop::EventLoop;
use crate::budget::Slice;
use crate::group::{self, GroupPtr, Task};
use crate::job::{JobPtr, Kind, note, state};
use crate::log::trace;
use crate::shared::Shared;
use crate::timers::Wheel;

/// Requests to arm between two looks at the clock. Each may be a system call.
const ARMS: usize = 128;
/// How often the loop looks for a request that may be about to come, and how often in all of one
/// turn. A look takes some 20 to 50 nanoseconds, by processor.
const SPINS: usize = 100;
const SPINS_A_TURN: usize = 400;

impl EventLoop {
    /// Take what was asked for, but no more than `most`. Returns how much it was.
    #[inline(always)]
    pub(super) fn take_requests(&mut self, pool: &Shared, most: usize) -> usize {
        let mut slice = None;
        let mut looks = SPINS_A_TURN;
        for taken in 0..most {
            let Some(task) = self.next_request(pool, taken, &mut looks) else {
                return taken;
            };
            let job = match task.kind() {
                group::Kind::Job(job) => job,
                group::Kind::Group(group) => {
                    self.finish_members(pool, group);
                    continue;
                }
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
            self.notify_workers(pool);
            let slice = slice.get_or_insert_with(Slice::new);
            if job.is(note::READY) {
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

    /// `group` was cancelled: finish with its members. Some of them, if they are many; the rest is
    /// another request.
    #[cold]
    #[inline(never)]
    pub(super) fn finish_members(&mut self, pool: &Shared, group: GroupPtr) {
        // Done callbacks are the application's, and may take their time.
        self.notify_workers(pool);
        let mut slice = Slice::new();
        loop {
            let Some(job) = pool.next_member(group) else {
                return;
            };
            // It carries REQ for a request that is not made: the disposal is here and now.
            let _ = job.state.take_request();
            self.dispose(pool, job);
            if slice.is_over() {
                pool.requests.push(Task::group(group));
                return;
            }
        }
    }

    /// The next request of a turn that has taken so many. It may look so often for what is about to
    /// come.
    fn next_request(&mut self, pool: &Shared, taken: usize, looks: &mut usize) -> Option<Task> {
        // Most turns find none at first, and asking for that is quicker than a pop that finds none.
        if taken > 0 || !pool.requests.is_empty() {
            let next = pool.requests.pop();
            if next.is_some() {
                return next;
            }
        }
        if taken > 1 || self.given > 1 {
            self.spin_for_more(pool, looks)
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
    fn spin_for_more(&mut self, pool: &Shared, looks: &mut usize) -> Option<Task> {
        let nothing_else = self.dispatched == 0
            && self.ready.is_empty()
            && pool.loop_work.is_empty()
            && pool.mailbox.is_empty();
        if nothing_else {
            for _ in 0..SPINS.min(*looks) {
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

    /// `job` is ARMED: have it wait for its trigger.
    pub(super) fn arm(&mut self, pool: &Shared, job: JobPtr) {
        trace!(pool.logger, "job {:p}: armed", job.as_c());
        match job.kind() {
            // These go to their queues without the loop.
            Kind::Now => debug_assert!(false, "a request to arm a run-now job"),
            Kind::Timer => {
                job.mark(note::MAY_FIRE);
                self.start_timer(job);
            }
            Kind::Signal => self.arm_signal(pool, job),
            Kind::Io => self.arm_io(pool, job),
        }
    }

    /// Have `job` wait for its time, if it has one.
    #[inline]
    pub(super) fn start_timer(&mut self, job: JobPtr) {
        if job.has_timeout() {
            self.link_timer(job);
        }
    }

    /// Link the timer of `job`. One that is linked from an earlier arming is found and moved when
    /// its old time comes.
    pub(super) fn link_timer(&mut self, job: JobPtr) {
        if job.watch().timer.is_linked() {
            return;
        }
        let timer = job.timer();
        if job.is_due_at_once() {
            // SAFETY: not linked; the job does not move, and `dispose` unlinks it.
            return unsafe { self.wheel.insert_due(timer) };
        }
        if self.wheel.is_empty() {
            self.wheel.restart(job.armed_at());
        }
        // SAFETY: as above.
        unsafe { self.wheel.insert(timer) };
    }

    fn arm_signal(&mut self, pool: &Shared, job: JobPtr) {
        if !job.is(note::ATTACHED) {
            job.mark(note::ATTACHED);
            // SAFETY: not linked; `dispose` unlinks it.
            unsafe { self.lists().signal_jobs.push(job.link()) };
            self.block(libc::SIG_UNBLOCK, job.signum());
        }
        job.mark(note::MAY_FIRE);
        // What arrived before it was armed again counts.
        self.fire_if_signalled(pool, job);
    }

    /// Block `signum` in this thread, or unblock it.
    pub(super) fn block(&self, how: c_int, signum: c_int) {
        // SAFETY: a set of ours, and a number that was checked.
        unsafe {
            let mut set: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, signum);
            libc::pthread_sigmask(how, &set, ptr::null_mut());
        }
    }

    /// A job of the loop's own ran, and was not armed again.
    pub(super) fn rest(&mut self, pool: &Shared, job: JobPtr) {
        Wheel::remove(&job.watch().timer);
        if job.kind() == Kind::Io && !job.is(note::ORPHAN) {
            self.sync(pool, job.fd());
        }
    }
}
