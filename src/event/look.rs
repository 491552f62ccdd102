// SPDX-License-Identifier: GPL-3.0-or-later
//! A look at all jobs that the loop or a group knows: see [`look`](crate::shared::look).
//!
//! Jobs are found where they are linked. One list is looked at as a whole, since it changes between two
//! steps: the jobs of one descriptor, of one slot of the wheel, of one group.

use std::ptr;

use super::event_loop::EventLoop;
use super::lists::Lists;
use crate::group::GroupPtr;
use crate::job::{JobPtr, Kind, note};
use crate::list::Head;
use crate::shared::Shared;
use crate::shared::look::{Look, MOST_OF_GROUP, Place};
use crate::sync::lock;
use crate::timers::Timer;

/// How much one step looks at, at most: jobs, empty lists and groups. A single list may be longer.
const STEP: usize = 4096;
/// How much a group counts, beside its jobs.
const GROUP: usize = 16;

impl EventLoop {
    /// The loop has come to a request to look.
    #[cold]
    #[inline(never)]
    pub(super) fn answer_look(&self, pool: &Shared) {
        let lists = self.lists();
        pool.desk.take_request();
        if let Some(group) = pool.desk.answer(|look| step(pool, lists, look)) {
            pool.release_group(group);
        }
    }
}

/// Looks at some more jobs. The caller is the loop.
pub(crate) fn step(pool: &Shared, lists: &Lists, look: &mut Look) {
    look.need = 0;
    let mut left = STEP;
    while left > 0 {
        let before = look.used;
        let went = match look.place {
            Place::Lists => at_lists(lists, look),
            Place::Fds(fd) => at_fd(pool, fd, look),
            Place::Timers(ring) => at_ring(lists, ring, look),
            Place::Groups | Place::Group(_) => {
                at_groups(pool, look, left);
                return;
            }
            Place::End => return,
        };
        if !went {
            return;
        }
        left = left.saturating_sub(1 + (look.used - before));
    }
}

/// Notes the jobs of a list and goes on at `next`; or says how much room they need.
fn note_all<I: Iterator<Item = JobPtr>>(
    look: &mut Look,
    jobs: impl Fn() -> I,
    next: Place,
) -> bool {
    let count = jobs().count();
    if count > look.left() {
        look.need = count;
        return false;
    }
    jobs().for_each(|job| look.note(job, false));
    look.place = next;
    true
}

/// The jobs of a list that is linked through `Watch::link`. It does not change meanwhile.
fn nodes(head: &Head) -> impl Iterator<Item = JobPtr> + use<> {
    let mut node = head.first();
    std::iter::from_fn(move || {
        if node.is_null() {
            return None;
        }
        // SAFETY: a linked node belongs to a live job.
        let job = unsafe { JobPtr::of_link(node) };
        node = job.trigger_part().link.next();
        Some(job)
    })
}

fn at_lists(lists: &Lists, look: &mut Look) -> bool {
    let jobs = || {
        let linked = nodes(&lists.signal_jobs).chain(nodes(&lists.strays));
        lists.ready.jobs().chain(linked)
    };
    note_all(look, jobs, Place::Fds(0))
}

fn at_fd(pool: &Shared, fd: i32, look: &mut Look) -> bool {
    let Some(entry) = pool.fds.find(fd) else {
        // Each block is reserved by itself, so there may be others behind a missing one.
        let next = pool.fds.next_block(fd);
        look.place = next.map_or(Place::Timers(0), Place::Fds);
        return true;
    };
    let next = fd.checked_add(1).map_or(Place::Timers(0), Place::Fds);
    note_all(look, || nodes(&entry.jobs), next)
}

fn at_ring(lists: &Lists, ring: usize, look: &mut Look) -> bool {
    if lists.timers.ring(ring).is_none() {
        look.place = Place::Groups;
        return true;
    }
    let retry: *const Timer = &raw const lists.retry;
    let jobs = || {
        let timers = lists.timers.ring(ring).into_iter().flatten();
        let timers = timers.filter(move |timer| !ptr::eq(timer.as_ptr(), retry));
        // SAFETY: a linked timer that is not the loop's own belongs to a live job.
        let jobs = timers.map(|timer| unsafe { JobPtr::of_timer(timer) });
        // Others are in the list of their descriptor or signal.
        jobs.filter(|job| job.kind() == Kind::Timer || !job.is(note::ATTACHED))
    };
    note_all(look, jobs, Place::Timers(ring + 1))
}

/// Looks at groups. The lock of their list keeps them; the one at which the next step begins has a hold.
fn at_groups(pool: &Shared, look: &mut Look, mut left: usize) {
    let groups = lock(&pool.groups);
    let (mut at, held) = match look.place {
        Place::Group(group) => (Some(group), Some(group)),
        _ => (groups.first(), None),
    };
    look.place = Place::End;
    while let Some(group) = at {
        if left == 0 || !note_group(pool, look, group) {
            if pool.lock_group(&group).keep() {
                look.place = Place::Group(group);
                break;
            }
            look.need = 0;
        }
        left = left.saturating_sub(GROUP);
        at = groups.after(group);
    }
    drop(groups);
    look.release = held;
}

/// Notes the jobs of a group, if there is room.
fn note_group(pool: &Shared, look: &mut Look, group: GroupPtr) -> bool {
    let (before, room) = (look.used, look.left());
    let mut count = 0;
    pool.lock_group(&group).each(|queued, job| {
        count += 1;
        if count <= room.min(MOST_OF_GROUP) {
            look.note(job, queued);
        }
    });
    if count.min(MOST_OF_GROUP) > room {
        look.need = count.min(MOST_OF_GROUP);
        look.used = before;
        return false;
    }
    look.skipped += count.saturating_sub(MOST_OF_GROUP);
    true
}
