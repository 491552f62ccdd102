// SPDX-License-Identifier: GPL-3.0-or-later
//! What a pool tells about itself: a slot for each of its threads, counts of the jobs that were made, and
//! where the pools of the process are.
//!
//! Each thread of a pool has a [`Slot`], which it alone writes, by plain relaxed stores. Everybody reads:
//! the statistics, and tools that look at the process's memory from outside. The calls that make jobs come
//! from any thread; they count in [stripes](Made).
//!
//! A pool with `NS_POOL_TIMINGS` has [`Times`] for each thread, too, behind the slots.
//!
//! A reader adds up what the owners have stored so far. Each count only grows. A job is counted as made
//! before it can run, or right after in a group, and as disposed of before its done callback; so the sums
//! agree as soon as nothing is under way.

mod made;
pub(crate) mod mark;
mod registry;
mod slot;
mod table;
mod times;

pub(crate) use made::Made;
pub(crate) use registry::{each, enroll, strike};
pub(crate) use slot::{Call, JobKind, Kind as Thread, NOBODY, Slot};
pub(crate) use table::Slots;
pub(crate) use times::{BUCKETS, Times};
