// SPDX-License-Identifier: GPL-3.0-or-later
//! Waiting until everybody who may have seen something has let go of it.
//!
//! Handlers count themselves in while they look at the list of pools. Who has taken a pool out of
//! the list waits for those who were inside then. Those who come later are counted apart, by the
//! parity of the epoch: a storm of signals holds nobody up. All of it is one word, so that the
//! epoch in which a handler counts itself in is the one that it has read.
//!
//! The order: a pool is taken out of the list before the epoch changes. A handler that counts
//! itself in before is waited for; one that does so after reads the word that the change has
//! written, and finds the list as it is now.

use crate::perturb::{perturb, perturb_in_handler};
use crate::sync::{AtomicUsize, Ordering};

/// The parity of the epoch.
const EPOCH: usize = 1;
/// Somebody waits for those of the other epoch.
const WAITING: usize = 2;
const BITS: u32 = usize::BITS / 2 - 1;
const COUNTS: usize = (1 << BITS) - 1;

/// Where the count of an epoch stands in the word.
fn shift(epoch: usize) -> u32 {
    2 + epoch as u32 * BITS
}

fn count(word: usize, epoch: usize) -> usize {
    word >> shift(epoch) & COUNTS
}

/// See the module.
pub(crate) struct Grace {
    word: AtomicUsize,
    over: Semaphore,
}

/// Inside, as [`Grace::leave`] wants it back.
pub(crate) struct Inside(usize);

impl Grace {
    /// Nobody is inside.
    pub(crate) fn new() -> Self {
        Self {
            word: AtomicUsize::new(0),
            over: Semaphore::new(),
        }
    }

    /// A handler: about to look. Async-signal-safe, and waits for nobody: the step is tried again
    /// only if another thread has made one.
    pub(crate) fn enter(&self) -> Inside {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let epoch = word & EPOCH;
            let new = word + (1 << shift(epoch));
            match self
                .word
                .compare_exchange(word, new, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) => return Inside(epoch),
                Err(now) => word = now,
            }
        }
    }

    /// A handler: it has let go of all that it saw. Async-signal-safe.
    pub(crate) fn leave(&self, inside: Inside) {
        let epoch = inside.0;
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            let mut new = word - (1 << shift(epoch));
            let last = word & WAITING != 0 && word & EPOCH != epoch && count(new, epoch) == 0;
            if last {
                new &= !WAITING;
            }
            match self
                .word
                .compare_exchange(word, new, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) if last => {
                    perturb_in_handler("the last of its epoch, and has not said so");
                    return self.over.post();
                }
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
    }

    /// Wait until nobody is inside who is now. One thread at a time.
    ///
    /// Woken by: the last handler of the epoch that ends here. With its signals blocked, it needs
    /// nothing but a processor.
    pub(crate) fn wait(&self) {
        let mut word = self.word.load(Ordering::Relaxed);
        loop {
            // Nobody: the word is written all the same, for those who come now to read it.
            let somebody = count(word, word & EPOCH) != 0;
            let new = if somebody {
                word ^ EPOCH | WAITING
            } else {
                word
            };
            match self
                .word
                .compare_exchange(word, new, Ordering::AcqRel, Ordering::Relaxed)
            {
                Ok(_) if somebody => break,
                Ok(_) => return,
                Err(now) => word = now,
            }
        }
        perturb("a new epoch has begun, and the old one is not waited for");
        // Posted once for each time that somebody says that he waits.
        self.over.wait();
        self.word.load(Ordering::Acquire);
    }
}

#[cfg(not(any(loom, target_os = "macos")))]
use posix::Semaphore;

#[cfg(not(any(loom, target_os = "macos")))]
mod posix {
    use std::cell::UnsafeCell;
    use std::mem;

    use crate::sys::CancelGuard;

    /// The C library's: what a signal handler may post. It stays where it is once it is used.
    pub(super) struct Semaphore(UnsafeCell<libc::sem_t>);

    // SAFETY: made for several threads.
    unsafe impl Sync for Semaphore {}

    impl Semaphore {
        /// Nothing is posted.
        pub(super) fn new() -> Self {
            // SAFETY: all zero is memory enough; sem_init makes it a semaphore, which may be moved
            // as long as nobody uses it.
            unsafe {
                let semaphore = Self(UnsafeCell::new(mem::zeroed()));
                libc::sem_init(semaphore.0.get(), 0, 0);
                semaphore
            }
        }

        /// Async-signal-safe.
        pub(super) fn post(&self) {
            // SAFETY: initialised above.
            unsafe { libc::sem_post(self.0.get()) };
        }

        pub(super) fn wait(&self) {
            let _cancel = CancelGuard::new();
            // SAFETY: as above. It fails only if a signal has come between.
            while unsafe { libc::sem_wait(self.0.get()) } != 0 {}
        }
    }
}

#[cfg(all(target_os = "macos", not(loom)))]
use mach::Semaphore;

/// There the C library has no semaphores without a name.
#[cfg(all(target_os = "macos", not(loom)))]
mod mach {
    use libc::{c_int, c_uint};

    unsafe extern "C" {
        static mach_task_self_: c_uint;
        fn semaphore_create(task: c_uint, out: *mut c_uint, policy: c_int, value: c_int) -> c_int;
        fn semaphore_signal(semaphore: c_uint) -> c_int;
        fn semaphore_wait(semaphore: c_uint) -> c_int;
    }

    /// The kernel's.
    pub(super) struct Semaphore(c_uint);

    impl Semaphore {
        /// Nothing is posted.
        pub(super) fn new() -> Self {
            let mut semaphore = 0;
            // SAFETY: this task, and room for a port.
            unsafe { semaphore_create(mach_task_self_, &mut semaphore, 0, 0) };
            Self(semaphore)
        }

        /// A trap into the kernel, and so async-signal-safe.
        pub(super) fn post(&self) {
            // SAFETY: made above.
            unsafe { semaphore_signal(self.0) };
        }

        pub(super) fn wait(&self) {
            const ABORTED: c_int = 14;
            // SAFETY: as above.
            while unsafe { semaphore_wait(self.0) } == ABORTED {}
        }
    }
}

#[cfg(loom)]
use model::Semaphore;

#[cfg(loom)]
mod model {
    use crate::sync::{Condvar, Mutex, lock, wait};

    /// A count under a lock.
    pub(super) struct Semaphore(Mutex<usize>, Condvar);

    impl Semaphore {
        /// Nothing is posted.
        pub(super) fn new() -> Self {
            Self(Mutex::new(0), Condvar::new())
        }

        pub(super) fn post(&self) {
            *lock(&self.0) += 1;
            self.1.notify_one();
        }

        pub(super) fn wait(&self) {
            let mut posted = lock(&self.0);
            while *posted == 0 {
                posted = wait(&self.1, posted);
            }
            *posted -= 1;
        }
    }
}
