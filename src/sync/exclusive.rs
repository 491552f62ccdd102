// SPDX-License-Identifier: GPL-3.0-or-later
//! What one thread at a time may use: models check that.

/// Nothing, but in models it notices two threads that nothing keeps apart.
#[cfg(not(loom))]
pub(crate) struct Exclusive;

#[cfg(not(loom))]
impl Exclusive {
    pub(crate) fn new() -> Self {
        Self
    }

    /// The caller has it to itself from here on.
    #[inline(always)]
    pub(crate) fn begin(&self) {}

    /// And no longer.
    #[inline(always)]
    pub(crate) fn end(&self) {}
}

/// True while somebody is inside.
#[cfg(loom)]
pub(crate) struct Exclusive(loom::cell::UnsafeCell<bool>);

#[cfg(loom)]
impl Exclusive {
    pub(crate) fn new() -> Self {
        Self(loom::cell::UnsafeCell::new(false))
    }

    /// The caller has it to itself from here on.
    pub(crate) fn begin(&self) {
        // SAFETY: loom checks that no other thread uses the cell.
        let inside = self.0.with_mut(|inside| unsafe { inside.replace(true) });
        assert!(!inside, "two threads inside");
    }

    /// And no longer.
    pub(crate) fn end(&self) {
        // SAFETY: as above.
        let inside = self.0.with_mut(|inside| unsafe { inside.replace(false) });
        assert!(inside, "left without being inside");
    }
}
