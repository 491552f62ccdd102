// SPDX-License-Identifier: GPL-3.0-or-later
//! An agent: it serves a group, in a worker or in the loop, one job after the other, until there is
//! none whose turn it is, or the group has had its own turn. [`core`](crate::group::core) says which
//! job comes next; no lock is held here while the application's code runs.

use super::{abort_if_forked, count_idle, dispose, run};
use crate::budget::Slice;
use crate::group::GroupPtr;
use crate::group::core::{Arrived, Came, Guard, Next, Place};
use crate::job::state::{self, After};
use crate::job::{JobPtr, Kind, here};
use crate::perturb::perturb;
use crate::shared::{Shared, queue_of};
use crate::sync::{hand_over, take_over};

/// Jobs of a group that one agent runs while anything else waits.
const JOBS: usize = 64;

/// A group's turn.
struct Turn {
    jobs: usize,
    /// None for a group that had a single job when its turn began: a second has come since, and waits
    /// for what else there is.
    slice: Option<Slice>,
}

impl Turn {
    fn new(more: bool) -> Self {
        Self {
            jobs: 0,
            slice: more.then(Slice::new),
        }
    }

    /// A job was run: whether the group is to give way, if anything else waits.
    fn is_over(&mut self) -> bool {
        self.jobs += 1;
        let late = self.slice.as_mut().is_none_or(Slice::is_over);
        late || self.jobs >= JOBS
    }
}

/// What is left to do for a job when it was run or disposed of.
enum Rest {
    Nothing,
    /// Its callback returned.
    Ran(JobPtr, After),
    /// Its done callback returned. Whether the caller is to free it.
    Gone(JobPtr, bool),
    /// It was disposed of before, and the caller is to free it.
    Freed(JobPtr),
}

/// Serve `group`, whose slot the caller holds. `free` frees a job.
pub(crate) fn serve(
    pool: &Shared,
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
            Next::Run(job) => Rest::Ran(job, call_member(pool, group, job)),
            Next::Farewell(job) => {
                let free = here::in_group(group.as_ptr().cast(), || {
                    take_over(group.as_ptr().as_ptr());
                    let free = dispose(pool, job);
                    hand_over(group.as_ptr().as_ptr());
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
                end(pool, group);
                break;
            }
        };
        perturb("an agent has run a job, and not counted it");
        let mut give_way = turn.is_over();
        // There is always something else that the loop may look at.
        if give_way && place == Place::Worker && pool.work.is_empty() {
            give_way = false;
            turn = Turn::new(true);
        }
        // Before the lock is given back: from then on another agent may run the job and free it.
        let request = for_loop(&rest);
        let guard = pool.lock_group(&group);
        let spent = settle(&guard, &rest);
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
fn call_member(pool: &Shared, group: GroupPtr, job: JobPtr) -> After {
    let at = group.as_ptr();
    // A job whose trigger the loop knows of goes by way of the loop.
    let disposal = if is_own(job) { 0 } else { state::REQ };
    let after = here::in_group(at.cast(), || {
        take_over(at.as_ptr());
        run(pool, job, queue_of(job.kind()), disposal)
    });
    hand_over(at.as_ptr());
    if after == After::Idle {
        count_idle(pool);
    }
    after
}

fn is_own(job: JobPtr) -> bool {
    matches!(job.kind(), Kind::Now | Kind::Timer)
}

/// Under the lock: what follows from `rest`. Returns the job that the caller is to free.
#[inline(always)]
fn settle(guard: &Guard<'_, JobPtr>, rest: &Rest) -> Option<JobPtr> {
    match *rest {
        Rest::Nothing => None,
        Rest::Ran(job, after) => {
            guard.returned();
            match after {
                // The job may be gone by now.
                After::Idle => guard.count_idle(),
                After::Armed if job.kind() == Kind::Now => {
                    if guard.enqueue(job) == Arrived::Free {
                        guard.count_out();
                        return Some(job);
                    }
                }
                After::Dispose if is_own(job) => {
                    if job.done_cb().is_some() {
                        guard.farewell(job);
                    } else if guard.forget_run(job) {
                        return Some(job);
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

/// The job that the loop is to arm again or to dispose of. It carries REQ, which keeps it until it is
/// pushed.
fn for_loop(rest: &Rest) -> Option<JobPtr> {
    match *rest {
        Rest::Ran(job, After::Armed) if job.kind() != Kind::Now => Some(job),
        Rest::Ran(job, After::Dispose) if !is_own(job) => Some(job),
        _ => None,
    }
}

/// The group has ended: call its done callback, and free it.
fn end(pool: &Shared, group: GroupPtr) {
    let at = group.as_ptr();
    take_over(at.as_ptr());
    if let Some(done) = group.done() {
        // SAFETY: the application supplied the function, and we pass the group that it belongs to.
        here::in_group(at.cast(), || unsafe { done(group.as_c()) });
        abort_if_forked(pool);
    }
    // SAFETY: nobody holds it, and no job is in it.
    unsafe { pool.free_group(group) };
}

/// The loop has taken `job`, a member, out of everything: its done callback takes its turn, here if
/// that is now.
#[cold]
#[inline(never)]
pub(super) fn farewell(pool: &Shared, group: GroupPtr, job: JobPtr, place: Place) {
    let guard = pool.lock_group(&group);
    let mut spent = None;
    if job.done_cb().is_some() {
        guard.farewell(job);
    } else if guard.forget(job) {
        spent = Some(job);
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
        serve(pool, group, place, Came::Here, free);
    }
}
