// SPDX-License-Identifier: GPL-3.0-or-later
//! Cells inside what all threads share, for one thread at a time.
//!
//! With these, the compiler sees whether the rest of [`Shared`](crate::shared::Shared) may be shared:
//! a field that may not has to say here by which rule it is all the same.

use std::ops::Deref;

/// What the loop thread alone touches; and when that has ended, who destroys the pool.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct LoopOnly<T>(T);

// SAFETY: by the rule of the type, which every access to such a field keeps, no two threads are at it
// at once: the loop's end comes before its join, and that before what `destroy` does.
unsafe impl<T> Sync for LoopOnly<T> {}

impl<T> Deref for LoopOnly<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
