// SPDX-License-Identifier: GPL-3.0-or-later
//! Where the fields of a job are, for debuggers.

use std::mem::offset_of;

use super::block::ROOM;
use super::flags::{GROUPED, PUBLIC};
use super::{Job, WithTrigger, note, state};
use crate::symbol::Field;

/// See [`layout`](crate::layout).
pub(crate) const JOB_LAYOUT: &[Field] = &[
    ("job.state", offset_of!(Job, state), 4),
    ("job.flags", offset_of!(Job, flags), 2),
    ("job.output", offset_of!(Job, output), 1),
    ("job.notes", offset_of!(Job, notes), 1),
    ("job.pool", offset_of!(Job, pool), size_of::<usize>()),
    ("job.func", offset_of!(Job, func), size_of::<usize>()),
    ("job.data", offset_of!(Job, data), size_of::<usize>()),
    ("job.link", offset_of!(WithTrigger, part.link), 0),
    ("job.number", offset_of!(WithTrigger, part.number), 4),
    ("job.timeout", offset_of!(WithTrigger, part.timeout), 8),
    ("job.timer", offset_of!(WithTrigger, part.timer), 0),
    (
        "job.next",
        offset_of!(WithTrigger, part.next_ready),
        size_of::<usize>(),
    ),
    ("ROOM", ROOM, 0),
    ("GROUPED", GROUPED as usize, 0),
    ("PUBLIC", PUBLIC as usize, 0),
    ("MAY_FIRE", note::MAY_FIRE as usize, 0),
    ("ATTACHED", note::ATTACHED as usize, 0),
    ("STATES", state::STATES as usize, 0),
    ("ARMED", state::ARMED as usize, 0),
    ("EXECUTING", state::EXECUTING as usize, 0),
];
