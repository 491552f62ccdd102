// SPDX-License-Identifier: GPL-3.0-or-later
//! The C interface: the only place where pointers of the application's become references.
//!
//! The doc comments of the functions in [`pool`], [`job`] and [`extensions`] and of the types in
//! [`abi`](crate::abi) are those of the header, which `tests/header.rs` makes from these files. Every
//! function keeps errno, checks what it is given, and says in the log what it refuses: `call` does
//! that for all of them.

// What a caller must see to is told to C: it stands in the header, not under "# Safety".
#![allow(clippy::missing_safety_doc)]

mod add;
mod call;
pub mod extensions;
pub mod job;
pub mod pool;
