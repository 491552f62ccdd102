// SPDX-License-Identifier: GPL-3.0-or-later
//! One thread at a time loads a framework's library or makes a context: the frameworks' own
//! preparations are not safe for threads.
//!
//! The turn is a lock of one process. In a forked child the thread that holds the parent's lock may
//! not exist, so a child makes a lock of its own.

use std::alloc::{Layout, alloc};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use crate::fork;
use crate::sync::{Mutex, MutexGuard, lock};

/// One process's lock. Never freed: a thread that forked while it had the turn gives it back in the
/// child, too.
struct Gate {
    generation: u32,
    lock: Mutex<()>,
    /// The parent's. It keeps that memory reachable for leak checkers.
    #[allow(dead_code)]
    parent: *mut Gate,
}

static GATE: AtomicPtr<Gate> = AtomicPtr::new(ptr::null_mut());

impl Gate {
    /// The lock of this process; `None` if there is no memory for it.
    fn here() -> Option<&'static Self> {
        fork::check();
        loop {
            let found = GATE.load(Ordering::Acquire);
            // SAFETY: a gate is never freed.
            if let Some(gate) = unsafe { found.as_ref() } {
                if !fork::is_over(gate.generation) {
                    return Some(gate);
                }
            }
            let new = Self {
                generation: fork::generation(),
                lock: Mutex::new(()),
                parent: found,
            };
            // SAFETY: the layout's size is not zero, and the memory is written before it is
            // published. If another thread was quicker, nobody else knows the new one.
            unsafe {
                let at = alloc(Layout::new::<Self>()).cast::<Self>();
                if at.is_null() {
                    return None;
                }
                at.write(new);
                let (success, failure) = (Ordering::AcqRel, Ordering::Relaxed);
                if GATE.compare_exchange(found, at, success, failure).is_err() {
                    drop(Box::from_raw(at));
                }
            }
        }
    }
}

/// The turn, until it is dropped.
pub(super) struct Turn(#[allow(dead_code)] MutexGuard<'static, ()>);

impl Turn {
    /// Wait for the turn. A thread that gives it back wakes one that waits. An error if there is no
    /// memory.
    pub(super) fn take() -> io::Result<Self> {
        let gate = Gate::here().ok_or_else(|| io::Error::from_raw_os_error(libc::ENOMEM))?;
        Ok(Self(lock(&gate.lock)))
    }
}

#[cfg(all(test, not(loom), not(miri)))]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// How often this thread has gone to sleep.
    fn sleeps() -> i64 {
        // SAFETY: the struct is ours, and zeroes are a value of it.
        unsafe {
            let mut usage: libc::rusage = std::mem::zeroed();
            libc::getrusage(libc::RUSAGE_THREAD, &mut usage);
            usage.ru_nvcsw as i64
        }
    }

    #[test]
    fn who_waits_for_the_turn_sleeps_until_it_is_given_back() {
        let turn = Turn::take().expect("memory");
        let (tell, told) = mpsc::channel();
        let waiter = thread::spawn(move || {
            let before = sleeps();
            tell.send(()).expect("somebody listens");
            drop(Turn::take().expect("memory"));
            sleeps() - before
        });
        told.recv().expect("the thread runs");
        // Not to be right, but to give it time to wake up for nothing.
        thread::sleep(Duration::from_millis(50));
        drop(turn);
        let slept = waiter.join().expect("no panic");
        assert!(slept < 10, "it went to sleep {slept} times");
    }

    #[test]
    fn a_child_does_not_wait_for_a_turn_of_its_parents() {
        let turn = Turn::take().expect("memory");
        // In a thread that has not got the turn, so that nobody in the child has.
        let status = thread::spawn(|| {
            // SAFETY: the child calls only functions that use no lock of another thread's but
            // malloc's, which the C library keeps usable; then it ends.
            unsafe {
                let child = libc::fork();
                if child == 0 {
                    libc::alarm(20);
                    drop(Turn::take());
                    libc::_exit(i32::from(Turn::take().is_err()));
                }
                let mut status = -1;
                libc::waitpid(child, &mut status, 0);
                status
            }
        });
        let status = status.join().expect("no panic");
        drop(turn);
        assert_eq!(status, 0, "the child hung, or could not take its turn");
    }
}
