// SPDX-License-Identifier: GPL-3.0-or-later
//! Requests from other threads: to watch for a job's trigger, to dispose of a job, and to end the
//! members of a cancelled group.

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

/// How many jobs the loop begins to watch between two readings of the clock. Each may take a system
/// call.
const ARMS: usize = 128;
/// How many times the loop spins for one request that is expected soon, and how many times in a
/// whole turn. Once around takes 20 to 50 nanoseconds, depending on the processor.
const SPINS: usize = 100;
const SPINS_A_TURN: usize = 400;

impl EventLoop {
    /// Take requests, but no more than `most`. Returns how many it took.
    #[inline(always)]
    pub(super) fn take_requests(&mut self, pool: &Shared, most: usize) -> usize {
        let mut slice = None;
        let mut spins_left = SPINS_A_TURN;
        for taken in 0..most {
            let Some(task) = self.next_request(pool, taken, &mut spins_left) else {
                return taken;
            };
            let job = match task.kind() {
                group::TaskKind::Job(job) => job,
                group::TaskKind::Group(group) => {
                    if self.finish_members(pool, group) {
                        continue;
                    }
                    return taken + 1;
                }
                group::TaskKind::LookAtAll => {
                    self.answer_look(pool);
                    continue;
                }
            };
            if job.state.take_request() == state::ARMED {
                self.watch(pool, job);
                // A turn that takes few requests never reads the clock.
                if taken % ARMS == ARMS - 1 && Slice::is_late(&mut slice) {
                    return taken + 1;
                }
                continue;
            }
            // Disposal runs a done callback of the application's, which may be slow.
            self.notify_workers(pool);
            let slice = slice.get_or_insert_with(Slice::new);
            if job.is(note::READY) {
                // The ready list still holds the job: mark that as a work queue would.
                job.state.hold();
            }
            self.dispose(pool, job);
            if slice.is_over() {
                return taken + 1;
            }
        }
        most
    }

    /// `group` was cancelled: dispose of its members. False if there are many: then the rest has
    /// become another request, for the next turn.
    #[cold]
    #[inline(never)]
    pub(super) fn finish_members(&mut self, pool: &Shared, group: GroupPtr) -> bool {
        // Done callbacks are application code and may take long.
        self.notify_workers(pool);
        let mut slice = Slice::new();
        loop {
            let Some(job) = pool.next_member(group) else {
                return true;
            };
            // It carries REQ for a request that nobody makes, since the loop disposes of it now.
            let _ = job.state.take_request();
            self.dispose(pool, job);
            if slice.is_over() {
                pool.requests.push(Task::group(group));
                return false;
            }
        }
    }

    /// The next request of a turn that has taken `taken` so far. If there is none, it may spin for
    /// one, up to `spins_left` times.
    fn next_request(
        &mut self,
        pool: &Shared,
        taken: usize,
        spins_left: &mut usize,
    ) -> Option<Task> {
        // Most turns find the queue empty, and `is_empty` is quicker than a `pop` that fails.
        if taken > 0 || !pool.requests.is_empty() {
            let next = pool.requests.pop();
            if next.is_some() {
                return next;
            }
        }
        if taken > 1 || self.last_dispatched > 1 {
            self.spin_for_more(pool, spins_left)
        } else {
            None
        }
    }

    /// Spin for the next request. When several jobs went to workers, or several requests came, more
    /// will come soon. A wake costs the loop and the producer more than a short spin does, and no
    /// producer needs to wake a loop that spins. Everything else waits no longer than it would for
    /// a short callback.
    // Cold not because it is rare, but to keep turns without workers as short as they would be
    // without this.
    #[cold]
    fn spin_for_more(&mut self, pool: &Shared, spins_left: &mut usize) -> Option<Task> {
        let nothing_else = self.dispatched == 0
            && self.lists().ready.is_empty()
            && pool.loop_work.is_empty()
            && pool.mailbox.is_empty();
        if nothing_else {
            for _ in 0..SPINS.min(*spins_left) {
                if !pool.requests.is_empty() {
                    return pool.requests.pop();
                }
                *spins_left -= 1;
                spin_loop();
            }
        }
        self.last_dispatched = 0;
        None
    }

    /// Watch for the trigger of `job`, whose state is ARMED already.
    pub(super) fn watch(&mut self, pool: &Shared, job: JobPtr) {
        trace!(pool.logger, "job {:p}: watched", job.as_c());
        let look = job.look_in_hand();
        // Unusual: in a group, counted against a limit, with a cadence, or armed in another way than before.
        if look.is_unusual() {
            return self.watch_unusual(pool, job);
        }
        self.watch_kind(pool, job, look.kind());
    }

    /// As `watch`, for an unusual job.
    // A tail call, so that others need no frame.
    #[cold]
    #[inline(never)]
    fn watch_unusual(&mut self, pool: &Shared, job: JobPtr) {
        if !self.lay_to_rest(pool, job) {
            self.watch_kind(pool, job, job.kind());
        }
    }

    #[inline(always)]
    fn watch_kind(&mut self, pool: &Shared, job: JobPtr, kind: Kind) {
        match kind {
            // Run-now jobs go to their queues directly.
            Kind::Now => debug_assert!(false, "a request to arm a run-now job"),
            Kind::Timer => {
                job.mark(note::MAY_FIRE);
                self.start_timer(job);
            }
            Kind::Signal => self.watch_signal(pool, job),
            Kind::Io => self.watch_fd(pool, job),
        }
    }

    fn watch_signal(&mut self, pool: &Shared, job: JobPtr) {
        if !job.is(note::ATTACHED) {
            job.mark(note::ATTACHED);
            // SAFETY: the node is not linked, and `dispose` unlinks it before the job is freed.
            unsafe { self.lists().signal_jobs.push(job.link()) };
            self.block(libc::SIG_UNBLOCK, job.signum());
        }
        job.mark(note::MAY_FIRE);
        // A signal that arrived between two armings counts.
        self.fire_if_signalled(pool, job);
    }

    /// Block or unblock `signum` in this thread, as `how` says, if the thread is the pool's own.
    pub(super) fn block(&self, how: c_int, signum: c_int) {
        if !self.own_thread {
            return;
        }
        // SAFETY: the set is a local variable that sigemptyset initializes; the add checked the
        // number.
        unsafe {
            let mut set: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, signum);
            libc::pthread_sigmask(how, &set, ptr::null_mut());
        }
    }

    /// `job` ran in the loop and was not armed again: stop its time-out and adapt the registration
    /// of its descriptor.
    pub(super) fn stop_watching(&mut self, pool: &Shared, job: JobPtr) {
        Wheel::remove(&job.trigger_part().timer);
        if job.kind() == Kind::Io && !job.is(note::ORPHAN) {
            self.sync(pool, job.fd());
        }
    }
}
