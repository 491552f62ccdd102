// SPDX-License-Identifier: GPL-3.0-or-later
//! Where the fields of a pool and its jobs are, for debuggers: a table in the library's data, so that
//! `nunc-stans-gdb.py` works on the stripped library and on cores of it.
//!
//! The table is in a section of its own, `nunc_stans_layout`. The modules name their fields; a name is the
//! type's and the field's. A script that does not find a name, or finds another version, gives up.

use crate::event::LISTS_LAYOUT;
use crate::fds::FDS_LAYOUT;
use crate::group::GROUP_LAYOUT;
use crate::job::layout::JOB_LAYOUT;
use crate::list::LIST_LAYOUT;
use crate::pool::POOL_LAYOUT;
use crate::shared::layout::SHARED_LAYOUT;
use crate::symbol::Field;
use crate::timers::layout::TIMERS_LAYOUT;

/// Counts the changes of meaning, not those of offsets.
const VERSION: u32 = 1;
/// The length of a name and its NULs.
const NAME: usize = 24;

/// A field, as the script reads it.
#[repr(C)]
#[derive(Clone, Copy)]
struct Entry {
    name: [u8; NAME],
    /// Where it is, in bytes from the start of its type; or a size, or a number.
    offset: u32,
    /// How long it is.
    size: u32,
}

const PARTS: [&[Field]; 8] = [
    POOL_LAYOUT,
    SHARED_LAYOUT,
    LISTS_LAYOUT,
    GROUP_LAYOUT,
    JOB_LAYOUT,
    FDS_LAYOUT,
    TIMERS_LAYOUT,
    LIST_LAYOUT,
];

const COUNT: usize = {
    let (mut count, mut part) = (0, 0);
    while part < PARTS.len() {
        count += PARTS[part].len();
        part += 1;
    }
    count
};

#[repr(C)]
struct Layout {
    magic: [u8; 16],
    version: u32,
    count: u32,
    entries: [Entry; COUNT],
}

const fn entry(field: &Field) -> Entry {
    let from = field.0.as_bytes();
    let mut name = [0; NAME];
    let mut at = 0;
    assert!(from.len() < NAME);
    while at < from.len() {
        name[at] = from[at];
        at += 1;
    }
    Entry {
        name,
        offset: field.1 as u32,
        size: field.2 as u32,
    }
}

#[used]
#[cfg_attr(target_os = "linux", unsafe(link_section = "nunc_stans_layout"))]
static LAYOUT: Layout = {
    let mut entries = [Entry {
        name: [0; NAME],
        offset: 0,
        size: 0,
    }; COUNT];
    let (mut count, mut part) = (0, 0);
    while part < PARTS.len() {
        let mut at = 0;
        while at < PARTS[part].len() {
            entries[count] = entry(&PARTS[part][at]);
            count += 1;
            at += 1;
        }
        part += 1;
    }
    Layout {
        magic: *b"nunc-stans parts",
        version: VERSION,
        count: COUNT as u32,
        entries,
    }
};
