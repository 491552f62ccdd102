// SPDX-License-Identifier: GPL-3.0-or-later
//! The list of the groups of a pool.

use super::handle::GroupPtr;
use crate::list::Ring;

/// A pool's list of groups. The end of the pool looks at all of them.
pub(crate) struct Groups(Ring);

// SAFETY: used under the lock that it is in.
unsafe impl Send for Groups {}

impl Groups {
    /// An empty list.
    pub(crate) fn new() -> Self {
        Self(Ring::new())
    }

    /// Adds a group.
    pub(crate) fn add(&self, group: GroupPtr) {
        // SAFETY: in no list yet; a group does not move, and leaves the list when it ends.
        unsafe { self.0.push(group.link()) };
    }

    /// The first group, if any.
    pub(crate) fn first(&self) -> Option<GroupPtr> {
        let first = self.0.first();
        // SAFETY: what is in the list is a live group's.
        (!first.is_null()).then(|| unsafe { GroupPtr::of_link(first) })
    }

    /// The group after `group`, which is in the list.
    pub(crate) fn after(&self, group: GroupPtr) -> Option<GroupPtr> {
        let next = self.0.after(&group.link);
        // SAFETY: as above.
        (!next.is_null()).then(|| unsafe { GroupPtr::of_link(next) })
    }

    /// Calls `visit` for each group.
    pub(crate) fn each(&self, mut visit: impl FnMut(GroupPtr)) {
        let mut link = self.0.first();
        while !link.is_null() {
            // SAFETY: as above.
            unsafe {
                visit(GroupPtr::of_link(link));
                link = self.0.after(&*link);
            }
        }
    }
}
