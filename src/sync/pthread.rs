// SPDX-License-Identifier: GPL-3.0-or-later
//! Locks, condition variables and semaphores of the C library.
//!
//! We do not use the standard library's, which call futex(2) themselves. ThreadSanitizer intercepts
//! the C library's functions, even if the application is instrumented and this library is not. So
//! it sees the happens-before edges, and it delivers signals to a thread that is blocked in one of
//! these functions.
//!
//! Rust moves a value into its place after making it, so each of these may be moved until its first
//! use. No C library that the project builds for stores the address of one before that.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

#[cfg(any(not(target_os = "linux"), miri))]
pub(crate) use by_condition::Semaphore;
#[cfg(all(target_os = "linux", not(miri)))]
pub(crate) use posix::Semaphore;

/// A value that one thread uses at a time.
pub(crate) struct Mutex<T> {
    raw: UnsafeCell<libc::pthread_mutex_t>,
    value: UnsafeCell<T>,
}

// SAFETY: only the thread that holds `raw` reaches the value, and `T: Send` lets any thread do so.
unsafe impl<T: Send> Send for Mutex<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Mutex<T> {}

/// Holds the lock until it is dropped, by the thread that took the lock.
pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// Makes the guard `!Send`: the thread that locked must unlock.
    here: PhantomData<*const ()>,
}

impl<T> Mutex<T> {
    /// Where the value is.
    pub(crate) const VALUE: usize = std::mem::offset_of!(Self, value);

    /// An unlocked mutex.
    pub(crate) const fn new(value: T) -> Self {
        Self {
            raw: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
            value: UnsafeCell::new(value),
        }
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        // SAFETY: the mutex is initialised, and it does not move from now on.
        let result = unsafe { libc::pthread_mutex_lock(self.raw.get()) };
        debug_assert_eq!(result, 0);
        MutexGuard {
            mutex: self,
            here: PhantomData,
        }
    }
}

impl<T> Drop for Mutex<T> {
    fn drop(&mut self) {
        // SAFETY: we own the mutex, so no other thread uses it.
        unsafe { libc::pthread_mutex_destroy(self.raw.get()) };
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this thread holds the lock.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this thread holds the lock, and the guard is borrowed mutably.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: this thread locked the mutex.
        unsafe { libc::pthread_mutex_unlock(self.mutex.raw.get()) };
    }
}

/// Lock `mutex`.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

/// Where threads sleep until another thread reports that their condition may have changed.
pub(crate) struct Condvar(UnsafeCell<libc::pthread_cond_t>);

// SAFETY: any thread may use a condition variable.
unsafe impl Send for Condvar {}
// SAFETY: as above.
unsafe impl Sync for Condvar {}

impl Condvar {
    /// A condition variable for [`wait`]. For [`wait_until`], call
    /// [`Condvar::go_by_monotonic_clock`] first.
    pub(crate) const fn new() -> Self {
        Self(UnsafeCell::new(libc::PTHREAD_COND_INITIALIZER))
    }

    /// Use the monotonic clock for [`wait_until`]. Call it before the first use; the condition
    /// variable must not move afterwards.
    pub(crate) fn go_by_monotonic_clock(&self) {
        #[cfg(not(target_os = "macos"))]
        // SAFETY: the attributes are ours, made and destroyed here; the condition variable is
        // unused. None of these calls fails for these arguments.
        unsafe {
            let mut attributes: libc::pthread_condattr_t = std::mem::zeroed();
            libc::pthread_condattr_init(&mut attributes);
            libc::pthread_condattr_setclock(&mut attributes, libc::CLOCK_MONOTONIC);
            libc::pthread_cond_init(self.0.get(), &attributes);
            libc::pthread_condattr_destroy(&mut attributes);
        }
    }

    /// Wake one of the threads that sleep here.
    pub(crate) fn notify_one(&self) {
        // SAFETY: the condition variable is initialised.
        unsafe { libc::pthread_cond_signal(self.0.get()) };
    }

    /// Wake all threads that sleep here.
    pub(crate) fn notify_all(&self) {
        // SAFETY: the condition variable is initialised.
        unsafe { libc::pthread_cond_broadcast(self.0.get()) };
    }
}

impl Drop for Condvar {
    fn drop(&mut self) {
        // SAFETY: we own the condition variable, so no other thread uses it.
        unsafe { libc::pthread_cond_destroy(self.0.get()) };
    }
}

/// Wait on `cond`, and release the lock meanwhile. It may wake spuriously, so the caller checks its
/// condition again. The caller has disabled cancellation.
pub(crate) fn wait<'a, T>(cond: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    // SAFETY: this thread holds the lock, and holds it again on return.
    unsafe { libc::pthread_cond_wait(cond.0.get(), guard.mutex.raw.get()) };
    guard
}

/// Like [`wait`], but returns at the latest when the monotonic clock reaches `deadline`, in
/// nanoseconds.
pub(crate) fn wait_until<'a, T>(
    cond: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: u64,
) -> MutexGuard<'a, T> {
    let raw = guard.mutex.raw.get();
    #[cfg(not(target_os = "macos"))]
    // SAFETY: as in `wait`; the time is ours.
    unsafe {
        libc::pthread_cond_timedwait(cond.0.get(), raw, &crate::sys::timespec(deadline));
    }
    #[cfg(target_os = "macos")]
    // SAFETY: as above.
    unsafe {
        let left = crate::sys::timespec(deadline.saturating_sub(crate::sys::now()));
        libc::pthread_cond_timedwait_relative_np(cond.0.get(), raw, &left);
    }
    guard
}

#[cfg(all(target_os = "linux", not(miri)))]
mod posix {
    use super::UnsafeCell;

    /// A count of permits. Any thread may post one; a thread that waits takes one.
    pub(crate) struct Semaphore(UnsafeCell<libc::sem_t>);

    // SAFETY: any thread may use a semaphore.
    unsafe impl Send for Semaphore {}
    // SAFETY: as above.
    unsafe impl Sync for Semaphore {}

    impl Semaphore {
        /// A semaphore without a permit.
        pub(crate) const fn new() -> Self {
            // SAFETY: in glibc and musl, sem_init makes a semaphore without a permit all zero; a
            // unit test checks it.
            Self(UnsafeCell::new(unsafe { std::mem::zeroed() }))
        }

        /// Add a permit. Async-signal-safe; may change errno.
        ///
        /// The thread that takes the permit may free the semaphore at once: this call does not
        /// touch its memory after the permit can be taken.
        pub(crate) fn post(&self) {
            // SAFETY: the semaphore is initialised.
            unsafe { libc::sem_post(self.0.get()) };
        }

        /// Sleep until there is a permit, and take it. The caller has disabled cancellation.
        pub(crate) fn wait(&self) {
            // A signal interrupts the wait before it takes a permit: retry.
            // SAFETY: the semaphore is initialised.
            while unsafe { libc::sem_wait(self.0.get()) } != 0 {}
        }

        /// Sleep until there is a permit, and take it; or until the monotonic clock reaches `deadline`,
        /// in nanoseconds, or a signal handler has run. Returns whether it took a permit. The caller has
        /// disabled cancellation.
        pub(crate) fn wait_until(&self, deadline: u64) -> bool {
            unsafe extern "C" {
                fn nunc_stans_shim_sem_wait(
                    sem: *mut libc::sem_t,
                    until: i64,
                    now: i64,
                ) -> libc::c_int;
            }
            let until = deadline.min(i64::MAX as u64) as i64;
            loop {
                let now = crate::sys::now() as i64;
                // SAFETY: the semaphore is initialised.
                match unsafe { nunc_stans_shim_sem_wait(self.0.get(), until, now) } {
                    0 => return true,
                    // By another clock, perhaps, which was set meanwhile.
                    libc::ETIMEDOUT if crate::sys::now() < deadline => {}
                    _ => return false,
                }
            }
        }
    }

    impl Drop for Semaphore {
        fn drop(&mut self) {
            // SAFETY: we own the semaphore, so no other thread uses it.
            unsafe { libc::sem_destroy(self.0.get()) };
        }
    }

    #[cfg(test)]
    #[test]
    fn all_zero_is_a_semaphore_without_a_permit() {
        let (zero, mut made) = (Semaphore::new(), Semaphore::new());
        // SAFETY: the semaphores are ours, and only their bytes are compared.
        unsafe {
            assert_eq!(libc::sem_init(made.0.get_mut(), 0, 0), 0);
            let bytes = |semaphore: &Semaphore| {
                std::ptr::read(semaphore.0.get().cast::<[u8; size_of::<libc::sem_t>()]>())
            };
            assert_eq!(bytes(&zero), bytes(&made));
        }
    }
}

/// For systems where the C library has no usable semaphores or an all-zero one is not initialised;
/// and for Miri, which requires that they are initialised.
#[cfg(any(not(target_os = "linux"), miri))]
mod by_condition {
    use super::{Condvar, Mutex, lock, wait, wait_until};

    /// A count of permits. Any thread may post one; a thread that waits takes one.
    pub(crate) struct Semaphore {
        permits: Mutex<usize>,
        posted: Condvar,
    }

    impl Semaphore {
        /// A semaphore without a permit.
        pub(crate) const fn new() -> Self {
            Self {
                permits: Mutex::new(0),
                posted: Condvar::new(),
            }
        }

        /// Add a permit.
        pub(crate) fn post(&self) {
            *lock(&self.permits) += 1;
            self.posted.notify_one();
        }

        /// Sleep until there is a permit, and take it. The caller has disabled cancellation.
        pub(crate) fn wait(&self) {
            let mut permits = lock(&self.permits);
            while *permits == 0 {
                permits = wait(&self.posted, permits);
            }
            *permits -= 1;
        }

        /// Sleep until there is a permit, and take it; or until the monotonic clock reaches `deadline`,
        /// in nanoseconds. Returns whether it took a permit.
        pub(crate) fn wait_until(&self, deadline: u64) -> bool {
            let mut permits = lock(&self.permits);
            while *permits == 0 {
                if crate::sys::now() >= deadline {
                    return false;
                }
                permits = wait_until(&self.posted, permits, deadline);
            }
            *permits -= 1;
            true
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_with_its_time() {
        let (mutex, cond) = (Mutex::new(()), Condvar::new());
        cond.go_by_monotonic_clock();
        let deadline = crate::sys::now() + 1_000_000;
        let mut guard = lock(&mutex);
        while crate::sys::now() < deadline {
            guard = wait_until(&cond, guard, deadline);
        }
    }
}
