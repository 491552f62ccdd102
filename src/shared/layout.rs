// SPDX-License-Identifier: GPL-3.0-or-later
//! Where the fields of the shared part are, for debuggers.

use std::mem::offset_of;

use super::Shared;
use crate::fds::Table;
use crate::group::Groups;
use crate::symbol::Field;
#[cfg(not(loom))]
use crate::sync::Mutex;

/// Where the list of groups is in its mutex. Loom's does not tell, and no debugger looks there.
#[cfg(not(loom))]
const IN_MUTEX: usize = Mutex::<Groups>::VALUE;
#[cfg(loom)]
const IN_MUTEX: usize = 0;

/// See [`layout`](crate::layout).
pub(crate) const SHARED_LAYOUT: &[Field] = &[
    ("shared.fds", offset_of!(Shared, fds), size_of::<Table>()),
    (
        "shared.groups",
        offset_of!(Shared, groups) + IN_MUTEX,
        size_of::<Groups>(),
    ),
    ("shared.gate", offset_of!(Shared, gate), 1),
    ("shared.phase", offset_of!(Shared, phase), 1),
];
