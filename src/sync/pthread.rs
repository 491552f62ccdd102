// SPDX-License-Identifier: GPL-3.0-or-later
//! Locks, condition variables and semaphores of the C library.
//!
//! Not the standard library's, which calls futex(2) itself: ThreadSanitizer knows the C library's
//! functions for what they are, in an application that is instrumented and a library that is not.
//! It sees who hands what to whom, and delivers signals to a thread that is blocked in one.
//!
//! All of them may be moved until they are first used, as Rust moves what it makes into its place:
//! no C library that the project builds for keeps the address of one before that.

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

// SAFETY: the value is reached only between lock and unlock of `raw`.
unsafe impl<T: Send> Send for Mutex<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Mutex<T> {}

/// The lock, until it is dropped by the thread that took it.
pub(crate) struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    /// It must go on the thread that made it.
    here: PhantomData<*const ()>,
}

impl<T> Mutex<T> {
    /// Unlocked.
    pub(crate) const fn new(value: T) -> Self {
        Self {
            raw: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
            value: UnsafeCell::new(value),
        }
    }

    fn lock(&self) -> MutexGuard<'_, T> {
        // SAFETY: initialised, and not moved from now on.
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
        // SAFETY: nobody else has it any more.
        unsafe { libc::pthread_mutex_destroy(self.raw.get()) };
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: this thread has the lock.
        unsafe { &*self.mutex.value.get() }
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: this thread has the lock, and the guard is borrowed mutably.
        unsafe { &mut *self.mutex.value.get() }
    }
}

impl<T> Drop for MutexGuard<'_, T> {
    fn drop(&mut self) {
        // SAFETY: locked by this thread.
        unsafe { libc::pthread_mutex_unlock(self.mutex.raw.get()) };
    }
}

/// Lock `mutex`.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

/// Where threads sleep until another says that what they wait for may have changed.
pub(crate) struct Condvar(UnsafeCell<libc::pthread_cond_t>);

// SAFETY: a condition variable is for any thread.
unsafe impl Send for Condvar {}
// SAFETY: as above.
unsafe impl Sync for Condvar {}

impl Condvar {
    /// For [`wait`]; for [`wait_until`] see [`Condvar::go_by_monotonic_clock`].
    pub(crate) const fn new() -> Self {
        Self(UnsafeCell::new(libc::PTHREAD_COND_INITIALIZER))
    }

    /// From now on it goes by the monotonic clock, for [`wait_until`]. Before its first use, and it does
    /// not move any more.
    pub(crate) fn go_by_monotonic_clock(&self) {
        #[cfg(not(target_os = "macos"))]
        // SAFETY: attributes of ours, made and destroyed here; the condition variable is unused.
        // None of these calls fails for these arguments.
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
        // SAFETY: initialised.
        unsafe { libc::pthread_cond_signal(self.0.get()) };
    }

    /// Wake all of them.
    pub(crate) fn notify_all(&self) {
        // SAFETY: initialised.
        unsafe { libc::pthread_cond_broadcast(self.0.get()) };
    }
}

impl Drop for Condvar {
    fn drop(&mut self) {
        // SAFETY: nobody else has it any more.
        unsafe { libc::pthread_cond_destroy(self.0.get()) };
    }
}

/// Wait on `cond`, giving up the lock meanwhile. May return for no reason: look again. The caller has
/// cancellation disabled.
pub(crate) fn wait<'a, T>(cond: &Condvar, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
    // SAFETY: this thread has the lock, and has it again on return.
    unsafe { libc::pthread_cond_wait(cond.0.get(), guard.mutex.raw.get()) };
    guard
}

/// As [`wait`], but no longer than until the monotonic clock shows so many nanoseconds.
pub(crate) fn wait_until<'a, T>(
    cond: &Condvar,
    guard: MutexGuard<'a, T>,
    deadline: u64,
) -> MutexGuard<'a, T> {
    let timespec = |nanoseconds: u64| libc::timespec {
        tv_sec: libc::time_t::try_from(nanoseconds / 1_000_000_000).unwrap_or(libc::time_t::MAX),
        tv_nsec: (nanoseconds % 1_000_000_000) as libc::c_long,
    };
    let raw = guard.mutex.raw.get();
    #[cfg(not(target_os = "macos"))]
    // SAFETY: as in `wait`; a time of ours.
    unsafe {
        libc::pthread_cond_timedwait(cond.0.get(), raw, &timespec(deadline));
    }
    #[cfg(target_os = "macos")]
    // SAFETY: as above.
    unsafe {
        let left = timespec(deadline.saturating_sub(crate::sys::now()));
        libc::pthread_cond_timedwait_relative_np(cond.0.get(), raw, &left);
    }
    guard
}

#[cfg(all(target_os = "linux", not(miri)))]
mod posix {
    use super::UnsafeCell;

    /// A count of permits: posted by any thread, taken by one that waits for it.
    pub(crate) struct Semaphore(UnsafeCell<libc::sem_t>);

    // SAFETY: a semaphore is for any thread.
    unsafe impl Send for Semaphore {}
    // SAFETY: as above.
    unsafe impl Sync for Semaphore {}

    impl Semaphore {
        /// No permit.
        pub(crate) const fn new() -> Self {
            // SAFETY: all zero is what sem_init makes of one without a permit, in glibc and musl;
            // a unit test looks.
            Self(UnsafeCell::new(unsafe { std::mem::zeroed() }))
        }

        /// One more permit. Async-signal-safe; may change errno.
        ///
        /// The thread that takes it may free the semaphore at once: this call looks at its memory
        /// no more once the permit can be taken.
        pub(crate) fn post(&self) {
            // SAFETY: initialised.
            unsafe { libc::sem_post(self.0.get()) };
        }

        /// Sleep until there is a permit, and take it. The caller has cancellation disabled.
        pub(crate) fn wait(&self) {
            // Interrupted by a signal: not taken yet.
            // SAFETY: initialised.
            while unsafe { libc::sem_wait(self.0.get()) } != 0 {}
        }
    }

    impl Drop for Semaphore {
        fn drop(&mut self) {
            // SAFETY: nobody else has it any more.
            unsafe { libc::sem_destroy(self.0.get()) };
        }
    }

    #[cfg(test)]
    #[test]
    fn all_zero_is_a_semaphore_without_a_permit() {
        let (zero, mut made) = (Semaphore::new(), Semaphore::new());
        // SAFETY: semaphores of ours, of which the bytes are compared.
        unsafe {
            assert_eq!(libc::sem_init(made.0.get_mut(), 0, 0), 0);
            let bytes = |semaphore: &Semaphore| {
                std::ptr::read(semaphore.0.get().cast::<[u8; size_of::<libc::sem_t>()]>())
            };
            assert_eq!(bytes(&zero), bytes(&made));
        }
    }
}

/// Where the C library's semaphores are none, or not all zero at first; and for Miri, which wants to
/// see them initialised.
#[cfg(any(not(target_os = "linux"), miri))]
mod by_condition {
    use super::{Condvar, Mutex, lock, wait};

    /// A count of permits: posted by any thread, taken by one that waits for it.
    pub(crate) struct Semaphore {
        permits: Mutex<usize>,
        posted: Condvar,
    }

    impl Semaphore {
        /// No permit.
        pub(crate) const fn new() -> Self {
            Self {
                permits: Mutex::new(0),
                posted: Condvar::new(),
            }
        }

        /// One more permit.
        pub(crate) fn post(&self) {
            *lock(&self.permits) += 1;
            self.posted.notify_one();
        }

        /// Sleep until there is a permit, and take it. The caller has cancellation disabled.
        pub(crate) fn wait(&self) {
            let mut permits = lock(&self.permits);
            while *permits == 0 {
                permits = wait(&self.posted, permits);
            }
            *permits -= 1;
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
