// SPDX-License-Identifier: GPL-3.0-or-later
//! Where the fields of a timer are, for debuggers.

use std::mem::offset_of;

use super::{Rings, Timer};
use crate::list::Ring;
use crate::symbol::Field;

/// See [`layout`](crate::layout). Rings hold nothing but rings.
pub(crate) const TIMERS_LAYOUT: &[Field] = &[
    ("timer.link", offset_of!(Timer, link), 0),
    ("timer.deadline", offset_of!(Timer, deadline), 8),
    ("RINGS", size_of::<Rings>() / size_of::<Ring>(), 0),
];
