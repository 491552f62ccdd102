// SPDX-License-Identifier: GPL-3.0-or-later
//! A stand-in for memory, through which models check how the memory is used.

/// Stands for memory that one thread frees soon after others have stopped using it. It is empty
/// outside of models. In a model it detects a use after the free, and a last use that does not
/// happen before the free.
#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct Memory;

#[cfg(not(loom))]
impl Memory {
    pub(crate) fn new() -> Self {
        Self
    }

    /// The memory is about to be used.
    #[inline(always)]
    pub(crate) fn used(&self) {}
}

/// A loom cell stands for the memory. Its value is true once the memory is freed.
#[cfg(loom)]
#[derive(Debug)]
pub(crate) struct Memory(loom::cell::UnsafeCell<bool>);

#[cfg(loom)]
impl Memory {
    pub(crate) fn new() -> Self {
        Self(loom::cell::UnsafeCell::new(false))
    }

    /// The memory is about to be used.
    pub(crate) fn used(&self) {
        assert!(!self.is_freed(), "used after it was freed");
    }

    /// The memory is freed.
    pub(crate) fn free(&self) {
        // SAFETY: loom reports any concurrent access to the cell.
        let freed = self.0.with_mut(|freed| unsafe { freed.replace(true) });
        assert!(!freed, "freed twice");
    }

    /// Whether the memory was freed.
    pub(crate) fn is_freed(&self) -> bool {
        // SAFETY: loom reports any concurrent access to the cell.
        self.0.with(|freed| unsafe { *freed })
    }
}
