// SPDX-License-Identifier: GPL-3.0-or-later
//! Loom's replacements for the C library's locks.

pub(crate) use loom::sync::{Condvar as Plain, Mutex, MutexGuard};

/// Like `pthread::Condvar`.
pub(crate) struct Condvar(Plain);

impl Condvar {
    pub(crate) fn new() -> Self {
        Self(Plain::new())
    }

    pub(crate) fn go_by_monotonic_clock(&self) {}

    pub(crate) fn notify_one(&self) {
        self.0.notify_one();
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// Like `pthread::lock`.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Like `pthread::wait`.
pub(crate) fn wait<'a, T>(cond: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    cond.0
        .wait(guard)
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Like `pthread::wait_until`, but a sleep never times out: in models a deadline has always passed
/// before the call.
pub(crate) fn wait_until<'a, T>(
    cond: &Condvar,
    guard: MutexGuard<'a, T>,
    _deadline: u64,
) -> MutexGuard<'a, T> {
    wait(cond, guard)
}

/// Like `pthread::Semaphore`.
pub(crate) struct Semaphore {
    permits: Mutex<usize>,
    posted: Condvar,
}

impl Semaphore {
    pub(crate) fn new() -> Self {
        Self {
            permits: Mutex::new(0),
            posted: Condvar::new(),
        }
    }

    pub(crate) fn post(&self) {
        *lock(&self.permits) += 1;
        self.posted.notify_one();
    }

    pub(crate) fn wait(&self) {
        let mut permits = lock(&self.permits);
        while *permits == 0 {
            permits = wait(&self.posted, permits);
        }
        *permits -= 1;
    }

    /// Like `pthread::Semaphore::wait_until`; see [`wait_until`].
    pub(crate) fn wait_until(&self, _deadline: u64) -> bool {
        self.wait();
        true
    }
}
