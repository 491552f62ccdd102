// SPDX-License-Identifier: GPL-3.0-or-later
//! Atomics, locks, condition variables and semaphores: those of std and the C library, or loom's in
//! models. Also grace periods, which are built from these alone.
//!
//! All code that a model explores takes its primitives from here. `cfg(loom)` is private: only
//! `make check-model` sets it.

pub(crate) mod bell;
mod exclusive;
pub(crate) mod grace;
mod memory;
#[cfg(not(loom))]
mod pthread;
mod tsan;

pub(crate) use exclusive::Exclusive;
pub(crate) use memory::Memory;
pub(crate) use tsan::{tsan_acquire, tsan_release, unless_tsan};

#[cfg(not(loom))]
pub(crate) use pthread::{Condvar, Mutex, MutexGuard, Semaphore, lock, wait, wait_until};
#[cfg(not(loom))]
pub(crate) use std::hint::spin_loop;
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

#[cfg(loom)]
mod model;
#[cfg(loom)]
mod trial;

#[cfg(loom)]
pub(crate) use loom::hint::spin_loop;
#[cfg(loom)]
pub(crate) use model::{Condvar, Mutex, MutexGuard, Semaphore, lock, wait, wait_until};
#[cfg(loom)]
pub(crate) use trial::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
