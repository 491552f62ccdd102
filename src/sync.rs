// SPDX-License-Identifier: GPL-3.0-or-later
//! Atomics, locks and condition variables: std's, or loom's when the models run.
//!
//! Everything that a model explores takes its primitives from here. `cfg(loom)` is private:
//! `make check-model` sets it, nobody else does.

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering, fence},
};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering, fence},
};

#[cfg(not(loom))]
pub(crate) use std::{hint::spin_loop, thread::yield_now};

#[cfg(loom)]
pub(crate) use loom::{hint::spin_loop, thread::yield_now};

/// Lock, whatever happened to an earlier holder. Nothing that can panic runs under a lock of
/// ours, and a panic aborts anyway: poisoning has nothing to tell.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Wait on `cond`, giving up the lock meanwhile. May return for no reason: look again.
pub(crate) fn wait<'a, T>(cond: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    cond.wait(guard)
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

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
