// SPDX-License-Identifier: GPL-3.0-or-later
//! The group as C holds it, and the job as a group sees it.

use std::ops::Deref;
use std::ptr::NonNull;

use libc::c_void;

use super::core::{Core, Member};
use crate::abi::{ns_group_done_t, ns_group_t, ns_thrpool_t};
use crate::alloc::Allocator;
use crate::job::free::Deferred;
use crate::job::state::State;
use crate::job::{JobPtr, Kind as JobKind};
use crate::list::Link;
use crate::sync::grace::Epoch;

/// One group. Lives in memory of the pool's allocator, at an address that C holds.
#[repr(C)]
pub(crate) struct Group {
    /// Members find their pool here.
    pool: NonNull<ns_thrpool_t>,
    /// In the pool's list of groups, under that list's lock. When the group has ended, it holds the
    /// next deferred group and the epoch.
    pub(crate) link: Link,
    data: *mut c_void,
    done: ns_group_done_t,
    pub(crate) core: Core<JobPtr>,
}

#[cfg(not(loom))]
const _: () = assert!(
    size_of::<Group>() <= 128,
    "an idle group takes at most 128 bytes"
);

/// A live group.
///
/// A thread that has one also has what keeps the group: a hold, a member, a slot, or the task of
/// ending it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupPtr(NonNull<Group>);

// SAFETY: a group's fields are constants, or used under its lock or that of the pool's list.
unsafe impl Send for GroupPtr {}

impl Deref for GroupPtr {
    type Target = Group;

    fn deref(&self) -> &Group {
        // SAFETY: by the type's invariant.
        unsafe { self.0.as_ref() }
    }
}

impl GroupPtr {
    /// The group at `at`.
    ///
    /// # Safety
    /// It is live, and stays so as long as the type's invariant says.
    pub(crate) unsafe fn new(at: NonNull<Group>) -> Self {
        Self(at)
    }

    /// Make a group, on which the caller has a hold. `None` when there is no memory.
    pub(crate) fn make(
        alloc: &Allocator,
        pool: NonNull<ns_thrpool_t>,
        width: usize,
        data: *mut c_void,
        done: ns_group_done_t,
    ) -> Option<Self> {
        let at = alloc.block::<Group>()?;
        // SAFETY: a block of the size that is written.
        unsafe {
            at.write(Group {
                pool,
                link: Link::new(),
                data,
                done,
                core: Core::new(width),
            });
        }
        Some(Self(at))
    }

    /// Its address.
    pub(crate) fn as_ptr(self) -> NonNull<Group> {
        self.0
    }

    /// As C sees it.
    pub(crate) fn as_c(self) -> *mut ns_group_t {
        self.0.as_ptr().cast()
    }

    /// Its [`Group::link`], as the pool's list must hold it: [`GroupPtr::of_link`] gets back to the
    /// group from there.
    pub(crate) fn link(self) -> *const Link {
        // SAFETY: the group is live. This makes no reference, which would be valid for the link
        // alone.
        unsafe { &raw const (*self.0.as_ptr()).link }
    }

    /// The group that `link` is the [`Group::link`] of.
    ///
    /// # Safety
    /// It is that of a live group, from [`GroupPtr::link`].
    pub(crate) unsafe fn of_link(link: *const Link) -> Self {
        let offset = std::mem::offset_of!(Group, link);
        // SAFETY: the link is inside a group, `offset` behind its start.
        unsafe {
            Self(NonNull::new_unchecked(
                link.byte_sub(offset).cast_mut().cast(),
            ))
        }
    }
}

impl Group {
    /// The pool that it belongs to, which outlives it.
    pub(crate) fn pool_as_c(&self) -> NonNull<ns_thrpool_t> {
        self.pool
    }

    /// The application's pointer.
    pub(crate) fn data(&self) -> *mut c_void {
        self.data
    }

    /// The done callback.
    pub(crate) fn done(&self) -> ns_group_done_t {
        self.done
    }
}

/// Linked through its link, which is in no list any more: `link.next` holds the next deferred
/// group, `link.previous` the epoch.
impl Deferred for Group {
    fn next(&self) -> *mut Self {
        self.link.chained().cast()
    }

    fn epoch(&self) -> Epoch {
        Epoch(self.link.tag() as u8)
    }

    fn defer(&self, next: *mut Self, epoch: Epoch) {
        self.link.chain(next.cast());
        self.link.set_tag(epoch.0.into());
    }

    unsafe fn give_back(alloc: &Allocator, at: NonNull<Self>) {
        // SAFETY: made by `make` from this allocator; no field needs dropping.
        unsafe { alloc.free(at) };
    }
}

impl Member for JobPtr {
    fn link(self) -> *const Link {
        self.group_link()
    }

    unsafe fn of_link(link: *const Link) -> Self {
        // SAFETY: by the caller's promise.
        unsafe { Self::of_group_link(link) }
    }

    fn state(&self) -> &State {
        &self.state
    }

    fn is_for_loop(&self) -> bool {
        !self.has(crate::abi::NS_JOB_THREAD)
    }

    fn is_own(&self) -> bool {
        matches!(self.kind(), JobKind::Now | JobKind::Timer)
    }

    fn marks(&self) -> u8 {
        self.group_marks()
    }

    fn set_marks(&self, marks: u8) {
        self.set_group_marks(marks);
    }
}

impl JobPtr {
    /// The group that it is in.
    pub(crate) fn group(self) -> Option<GroupPtr> {
        // SAFETY: a group outlives its members.
        self.group_as_ptr()
            .map(|at| unsafe { GroupPtr::new(at.cast()) })
    }
}
