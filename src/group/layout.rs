// SPDX-License-Identifier: GPL-3.0-or-later
//! Where the fields of a group are, for debuggers.

use std::mem::offset_of;

use super::core::{Core, QUEUED};
use super::handle::Group;
use crate::job::JobPtr;
use crate::list::Ring;
use crate::symbol::Field;

/// Where a field of the core is in a group.
macro_rules! core {
    ($field:ident) => {
        offset_of!(Group, core) + offset_of!(Core<JobPtr>, $field)
    };
}

/// See [`layout`](crate::layout).
pub(crate) const GROUP_LAYOUT: &[Field] = &[
    ("group.link", offset_of!(Group, link), 0),
    ("group.inbox", core!(inbox), size_of::<usize>()),
    ("group.queue", core!(queue), size_of::<Ring>()),
    ("group.held", core!(held), size_of::<Ring>()),
    ("group.members", core!(members), size_of::<Ring>()),
    ("group.width", core!(width), 2),
    ("QUEUED", QUEUED as usize, 0),
];
