// SPDX-License-Identifier: GPL-3.0-or-later
//! Memory that models watch.

/// Memory that one thread gives back while others may just have let go of it: nothing, but in
/// models it notices who uses it afterwards, and whose last use is not ordered before.
#[cfg(not(loom))]
#[derive(Debug)]
pub(crate) struct Memory;

#[cfg(not(loom))]
impl Memory {
    pub(crate) fn new() -> Self {
        Self
    }

    /// It is about to be used.
    #[inline(always)]
    pub(crate) fn used(&self) {}
}

/// What stands in for the memory is a cell: true once it was given back.
#[cfg(loom)]
#[derive(Debug)]
pub(crate) struct Memory(loom::cell::UnsafeCell<bool>);

#[cfg(loom)]
impl Memory {
    pub(crate) fn new() -> Self {
        Self(loom::cell::UnsafeCell::new(false))
    }

    /// It is about to be used.
    pub(crate) fn used(&self) {
        assert!(!self.is_freed(), "used after it was freed");
    }

    /// It is given back.
    pub(crate) fn free(&self) {
        // SAFETY: loom says if anybody else is at the cell.
        let freed = self.0.with_mut(|freed| unsafe { freed.replace(true) });
        assert!(!freed, "freed twice");
    }

    /// Whether it was given back.
    pub(crate) fn is_freed(&self) -> bool {
        // SAFETY: as above.
        self.0.with(|freed| unsafe { *freed })
    }
}
