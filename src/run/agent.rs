// SPDX-License-Identifier: GPL-3.0-or-later
//! An agent serves a group, in a worker or in the loop. It takes one job after the other, until no
//! job may run or the group's turn is over. [`core`](crate::group::core) says which job comes next.
//! No lock is held here while the application's code runs.

use libc::c_void;

use super::{abort_if_forked, count_idle, dispose, run};
use crate::budget::Slice;
use crate::group::GroupPtr;
use crate::group::core::{Arrived, Came, Guard, Next, Place};
use crate::job::state::{self, After};
use crate::job::{JobPtr, Kind, here, probes};
use crate::perturb::perturb;
use crate::shared::{Shared, queue_of};
use crate::stats::Slot;
use crate::sync::{tsan_acquire, tsan_release};

/// An agent gives way after this many jobs if anything else waits.
const JOBS: usize = 64;

/// A group's turn.
struct Turn {
    jobs: usize,
    /// None if only one job waited when the turn began: then the group gives way after that job.
    slice: Option<Slice>,
}

impl Turn {
    fn new(more: bool) -> Self {
        Self {
            jobs: 0,
            slice: more.then(Slice::new),
        }
    }

    /// Counts a job that was run. Whether the group must give way if anything else waits.
    fn is_over(&mut self) -> bool {
        self.jobs += 1;
        let late = self.slice.as_mut().is_none_or(Slice::is_over);
        late || self.jobs >= JOBS
    }
}

/// What is left to do for a job that was run or disposed of.
enum Rest {
    Nothing,
    /// Its callback returned.
    Ran(JobPtr, After),
    /// Its done callback returned. The flag says whether the caller must free it.
    Gone(JobPtr, bool),
    /// It was disposed of before, and the caller must free it.
    Freed(JobPtr),
}

/// Serve `group`, whose slot the caller holds. `free` frees a job.
pub(crate) fn serve(
    pool: &Shared,
    slot: &Slot,
    group: GroupPtr,
    place: Place,
    came: Came,
    mut free: impl FnMut(JobPtr),
) {
    if came == Came::Here {
        pool.work.expect_more();
    }
    let guard = pool.lock_group(&group);
    guard.begin(came);
    let mut turn = Turn::new(guard.is_long());
    let (mut next, mut send) = guard.next(place, false);
    loop {
        pool.send(group, send);
        let rest = match next {
            Next::Run(job) => Rest::Ran(job, call_member(pool, slot, group, job)),
            Next::Farewell(job) | Next::Finish(job) => {
                if matches!(next, Next::Finish(_)) {
                    slot.count_disposed(job.kind());
                }
                let free = here::in_group(group.as_ptr().cast(), || {
                    tsan_acquire(group.as_ptr().as_ptr());
                    let free = dispose(pool, slot, job);
                    tsan_release(group.as_ptr().as_ptr());
                    free
                });
                Rest::Gone(job, free)
            }
            Next::Free(job) => Rest::Freed(job),
            Next::Request(job) => {
                pool.request(job);
                Rest::Nothing
            }
            Next::Move(Place::Worker) => {
                pool.send_to_worker(group);
                break;
            }
            Next::Move(_) => {
                pool.send_to_loop(group);
                break;
            }
            Next::Leave => break,
            Next::End => {
                end(pool, slot, group);
                break;
            }
        };
        perturb("an agent has run a job, and not counted it");
        let mut give_way = turn.is_over();
        // The loop always has other work to look at.
        if give_way && place == Place::Worker && pool.work.is_empty() {
            give_way = false;
            turn = Turn::new(true);
        }
        // Before the lock is released: from then on another agent may run the job and free it.
        let request = for_loop(&rest);
        let guard = pool.lock_group(&group);
        let spent = settle(pool, slot, &guard, &rest);
        (next, send) = guard.next(place, give_way);
        if let Some(job) = request {
            pool.request(job);
        }
        if let Some(job) = spent {
            free(job);
        }
    }
    if came != Came::FromWork {
        pool.work.expect_no_more();
    }
}

/// Calls the callback of a member, which has begun.
fn call_member(pool: &Shared, slot: &Slot, group: GroupPtr, job: JobPtr) -> After {
    let at = group.as_ptr();
    // A job that the poller or the signal list knows is disposed of by the loop.
    let disposal = if is_own(job) { 0 } else { state::REQ };
    let after = here::in_group(at.cast(), || {
        tsan_acquire(at.as_ptr());
        run(pool, slot, job, queue_of(job.kind()), disposal)
    });
    tsan_release(at.as_ptr());
    if after == After::Idle {
        count_idle(pool);
    }
    after
}

fn is_own(job: JobPtr) -> bool {
    matches!(job.kind(), Kind::Now | Kind::Timer)
}

/// Does under the lock what follows from `rest`. Returns the job that the caller must free.
#[inline(always)]
fn settle(pool: &Shared, slot: &Slot, guard: &Guard<'_, JobPtr>, rest: &Rest) -> Option<JobPtr> {
    match *rest {
        Rest::Nothing => None,
        Rest::Ran(job, after) => {
            guard.returned();
            match after {
                // The job may be gone by now.
                After::Idle => guard.count_idle(),
                After::Armed if job.kind() == Kind::Now => {
                    probes::queued(pool, job);
                    if guard.enqueue(job) == Arrived::Free {
                        guard.count_out();
                        return Some(job);
                    }
                }
                After::Dispose if is_own(job) => {
                    slot.count_disposed(job.kind());
                    if job.done_cb().is_some() {
                        guard.farewell(job);
                    } else {
                        probes::disposed(pool, job);
                        if guard.forget_run(job) {
                            return Some(job);
                        }
                    }
                }
                After::Armed | After::Dispose => {}
            }
            None
        }
        Rest::Gone(job, free) => {
            guard.returned();
            if free {
                guard.count_out();
            }
            free.then_some(job)
        }
        Rest::Freed(job) => {
            guard.count_out();
            Some(job)
        }
    }
}

/// The job that the loop must watch again or dispose of. It carries REQ, which keeps it until it is
/// pushed.
fn for_loop(rest: &Rest) -> Option<JobPtr> {
    match *rest {
        Rest::Ran(job, After::Armed) if job.kind() != Kind::Now => Some(job),
        Rest::Ran(job, After::Dispose) if !is_own(job) => Some(job),
        _ => None,
    }
}

/// The group has ended: call its done callback, and free it.
fn end(pool: &Shared, slot: &Slot, group: GroupPtr) {
    let at = group.as_ptr();
    tsan_acquire(at.as_ptr());
    if let Some(done) = group.done() {
        slot.begin_at(0, std::ptr::null_mut());
        slot.begin_ending(at.as_ptr().cast(), done as *const c_void);
        // SAFETY: the application supplied the function, and we pass the group that it belongs to.
        here::in_group(at.cast(), || unsafe { done(group.as_c()) });
        slot.end_ending();
        pool.pause(slot);
        abort_if_forked(pool);
    }
    // SAFETY: the last hold and the last job are gone.
    unsafe { pool.free_group(group) };
}

/// The loop has taken `job`, a member, out of the poller, its list and the wheel: queue its done
/// callback, and serve the group here if that callback is next.
#[cold]
#[inline(never)]
pub(super) fn farewell(pool: &Shared, slot: &Slot, group: GroupPtr, job: JobPtr, place: Place) {
    let guard = pool.lock_group(&group);
    let mut spent = None;
    if job.done_cb().is_some() {
        guard.farewell(job);
    } else {
        probes::disposed(pool, job);
        if guard.forget(job) {
            spent = Some(job);
        }
    }
    let here = guard.take_slot_here(place);
    let send = guard.unlock();
    pool.send(group, send);
    // SAFETY: `forget` returned true: nothing else holds the job.
    let free = |job| unsafe { pool.free_job(job) };
    if let Some(job) = spent {
        free(job);
    }
    if here {
        serve(pool, slot, group, place, Came::Here, free);
    }
}
