// SPDX-License-Identifier: GPL-3.0-or-later
//! Cells inside data that all threads share, each for one thread at a time.
//!
//! Because of these types the compiler checks whether the rest of [`Shared`](crate::shared::Shared)
//! may be shared between threads. A field that is not `Sync` must use one of them, and so name the
//! rule that makes it safe.

use std::ops::Deref;

/// Only the loop thread touches the value; after that thread has ended, only the thread that
/// destroys the pool does.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct LoopOnly<T>(T);

// SAFETY: every access to such a field keeps the rule of the type, so no two threads access it at
// once. The loop's end happens before its join, and the join happens before what `destroy` does.
unsafe impl<T> Sync for LoopOnly<T> {}

impl<T> Deref for LoopOnly<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
