// SPDX-License-Identifier: GPL-3.0-or-later
//! Atomics, locks and condition variables: std's, or loom's when the models run.
//!
//! Everything that a model explores takes its primitives from here. `cfg(loom)` is private:
//! `make check-model` sets it, nobody else does.

#[cfg(not(loom))]
pub(crate) use std::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence},
};

#[cfg(loom)]
pub(crate) use loom::sync::{
    Condvar, Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence},
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
