// SPDX-License-Identifier: GPL-3.0-or-later
//! A job's block of memory: how it is made and given back, with room for a group and for a stamp or without.

use std::cell::Cell;
use std::mem::offset_of;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

use libc::c_void;

use super::flags::Flags;
use super::state::{self, State};
use super::{Front, Job, JobPtr, Spec, TriggerPart, WithTrigger};
use crate::abi::{ns_job_t, ns_job_type_t, ns_thrpool_t};
use crate::alloc::Allocator;
use crate::list::Link;

/// The block of a job that has room for a group: `J` is a [`Job`] or a [`WithTrigger`].
#[repr(C)]
struct Roomy<J> {
    /// Links the job into one of its group's lists.
    link: Link,
    job: J,
}

/// The block of a job that has room for a stamp. `J` is one of those above: what follows the stamp is where
/// it always is.
#[repr(C)]
struct Timed<J> {
    /// When the job fired or was armed, in a pool that measures times. The thread that has the job in
    /// hand writes it, and the thread that runs the job reads it.
    stamp: Cell<u64>,
    job: J,
}

/// Where a job begins in a [`Roomy`] block.
pub(super) const ROOM: usize = size_of::<Link>();
/// Where what follows the stamp begins in a [`Timed`] block.
const STAMP: usize = size_of::<Cell<u64>>();
const _: () =
    assert!(offset_of!(Roomy<Job>, job) == ROOM && offset_of!(Roomy<WithTrigger>, job) == ROOM);
const _: () =
    assert!(offset_of!(Timed<Job>, job) == STAMP && offset_of!(Timed<WithTrigger>, job) == STAMP);
const _: () = assert!(
    offset_of!(Timed<Roomy<Job>>, job) == STAMP
        && offset_of!(Timed<Roomy<WithTrigger>>, job) == STAMP
);

impl JobPtr {
    /// Makes a job in the given state. Returns `None` if there is no memory.
    #[inline(always)]
    pub(crate) fn make(
        alloc: &Allocator,
        pool: NonNull<ns_thrpool_t>,
        spec: &Spec,
        state: State,
        seen: u32,
    ) -> Option<Self> {
        let job = Job::new(pool, spec, state);
        if spec.front != Front::Nothing {
            return Self::make_behind(alloc, job, spec, seen);
        }
        // SAFETY: in both cases the block has the size and alignment of the value that is written.
        unsafe {
            match TriggerPart::new(spec.trigger, seen) {
                None => {
                    let at = alloc.block::<Job>()?;
                    at.write(job);
                    Some(Self(at))
                }
                Some(part) => {
                    let at = alloc.block::<WithTrigger>()?;
                    at.write(WithTrigger { job, part });
                    Some(Self(at.cast()))
                }
            }
        }
    }

    /// Makes a run-now job in `group`, which begins with the job's pool; it is armed, and carries WORK.
    /// As [`JobPtr::make`] and [`Job::set_group`], in a third of their steps.
    #[inline(always)]
    pub(crate) fn make_member(
        alloc: &Allocator,
        group: NonNull<c_void>,
        flags: ns_job_type_t,
        func: unsafe extern "C" fn(*mut ns_job_t),
        data: *mut c_void,
    ) -> Option<Self> {
        let job = Job {
            state: State::armed(state::WORK),
            flags: Flags::of_member(flags),
            output: AtomicU8::new(0),
            notes: Cell::new(0),
            pool: Cell::new(group.cast()),
            func,
            data: AtomicPtr::new(data),
            done_cb: AtomicPtr::new(ptr::null_mut()),
        };
        let link = Link::new();
        let at = alloc.block::<Roomy<Job>>()?;
        // SAFETY: the block has the size and alignment of the value that is written, and the job
        // begins in it where `ROOM` says.
        unsafe {
            at.write(Roomy { link, job });
            Some(Self(at.byte_add(ROOM).cast()))
        }
    }

    /// As [`JobPtr::make`], behind what `spec` wants in front of the job.
    #[cold]
    #[inline(never)]
    fn make_behind(alloc: &Allocator, job: Job, spec: &Spec, seen: u32) -> Option<Self> {
        match TriggerPart::new(spec.trigger, seen) {
            None => Self::put_behind(alloc, job, spec.front),
            Some(part) => Self::put_behind(alloc, WithTrigger { job, part }, spec.front),
        }
    }

    /// `J` is a [`Job`], or a [`WithTrigger`], which begins with one.
    fn put_behind<J>(alloc: &Allocator, job: J, front: Front) -> Option<Self> {
        let stamp = Cell::new(0);
        let link = Link::new();
        // SAFETY: each block has the size and alignment of the value that is written, and the job begins
        // in it where `ROOM` and `STAMP` say.
        let made = unsafe {
            match front {
                Front::Nothing => {
                    let at = alloc.block::<J>()?;
                    at.write(job);
                    Self(at.cast())
                }
                Front::Group => {
                    let at = alloc.block::<Roomy<J>>()?;
                    at.write(Roomy { link, job });
                    Self(at.byte_add(ROOM).cast())
                }
                Front::Stamp => {
                    let at = alloc.block::<Timed<J>>()?;
                    at.write(Timed { stamp, job });
                    Self(at.byte_add(STAMP).cast())
                }
                Front::Both => {
                    let at = alloc.block::<Timed<Roomy<J>>>()?;
                    let job = Roomy { link, job };
                    at.write(Timed { stamp, job });
                    Self(at.byte_add(STAMP + ROOM).cast())
                }
            }
        };
        if matches!(front, Front::Group | Front::Both) {
            made.flags.set_roomy();
        }
        if matches!(front, Front::Stamp | Front::Both) {
            made.flags.set_timed();
        }
        Some(made)
    }

    /// How many bytes of its block precede the job.
    fn front(self) -> usize {
        let look = self.look();
        let room = if look.is_roomy() { ROOM } else { 0 };
        room + if look.is_timed() { STAMP } else { 0 }
    }

    /// When the job fired or was armed. Its pool measures times, and the caller has the job in hand.
    #[inline(always)]
    pub(crate) fn stamp(&self) -> &Cell<u64> {
        let look = self.look();
        debug_assert!(look.is_timed());
        let front = if look.is_roomy() { STAMP + ROOM } else { STAMP };
        // SAFETY: the block of such a job begins with its stamp.
        unsafe { self.0.byte_sub(front).cast().as_ref() }
    }

    /// The job fires or is armed at this time. As for [`JobPtr::stamp`].
    #[inline(always)]
    pub(crate) fn set_stamp(self, now: u64) {
        self.stamp().set(now);
    }

    /// `next` follows this job. Nobody else knows either of the two yet: the link is where the done
    /// callback will be.
    pub(crate) fn chain(self, next: Self) {
        self.done_cb
            .store(next.0.as_ptr().cast(), Ordering::Relaxed);
    }

    /// The job that follows this one, which forgets it.
    pub(crate) fn unchain(self) -> Option<Self> {
        let next = self.done_cb.load(Ordering::Relaxed);
        self.done_cb.store(ptr::null_mut(), Ordering::Relaxed);
        NonNull::new(next.cast()).map(Self)
    }

    /// Frees the block.
    ///
    /// # Safety
    /// `alloc` allocated it, and nobody else holds the job.
    #[inline(always)]
    pub(crate) unsafe fn give_back(self, alloc: &Allocator) {
        // SAFETY: guaranteed by the caller; no field needs dropping. A block with anything in front of
        // the job begins before it.
        unsafe {
            if self.look().has_front() {
                alloc.free(self.0.byte_sub(self.front()));
            } else {
                alloc.free(self.0);
            }
        }
    }

    /// The link of a job that has room for a group, for the group's lists. [`JobPtr::of_group_link`]
    /// gets from there back to the job.
    pub(crate) fn group_link(self) -> *const Link {
        debug_assert!(self.has_room());
        // SAFETY: a link precedes every such job in its block.
        unsafe { self.0.byte_sub(ROOM).cast().as_ptr() }
    }

    /// The job that has this [`JobPtr::group_link`].
    ///
    /// # Safety
    /// It is that of a live job.
    pub(crate) unsafe fn of_group_link(link: *const Link) -> Self {
        // SAFETY: guaranteed by the caller; the job follows its link.
        unsafe {
            Self(NonNull::new_unchecked(
                link.byte_add(ROOM).cast_mut().cast(),
            ))
        }
    }
}
