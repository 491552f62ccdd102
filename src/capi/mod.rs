// SPDX-License-Identifier: GPL-3.0-or-later
//! The C interface. Only here do pointers from the application become references.
//!
//! The header takes its text from the doc comments of the functions in [`pool`], [`add`], [`job`],
//! [`extensions`] and [`group`] and of the types in [`abi`](crate::abi); `tests/header.rs`
//! generates it from these files. Every function preserves errno, checks its arguments, and logs
//! what it refuses. The functions in `call` do that for all of them.

// The header tells C callers what they must ensure; there is no "# Safety" section.
#![allow(clippy::missing_safety_doc)]

pub mod add;
pub mod again;
mod call;
pub mod caller;
pub mod extensions;
pub mod group;
pub mod job;
pub mod look;
pub mod many;
pub mod options;
pub mod pool;
pub mod small;
pub mod stats;
mod trigger;
