// SPDX-License-Identifier: GPL-3.0-or-later
//! What one process has of the registry: who watches each signal, the lock on that, and the handlers
//! that are looking.

use std::alloc::{Layout, alloc};
use std::cell::UnsafeCell;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::{c_int, sigset_t};

use super::mailbox::Node;
use super::numbers::NUMBERS;
use crate::fork;
use crate::perturb::perturb_in_handler;
use crate::sync::grace::Grace;
use crate::sys::CancelGuard;

/// What one process has of the registry. Never freed: handlers, and frames of a parent's that go on
/// in a child, may be at it.
pub(super) struct Era {
    generation: u32,
    pid: libc::pid_t,
    lock: UnsafeCell<libc::pthread_mutex_t>,
    /// Handlers that walk a list.
    handlers: Grace,
    /// Those who watch each signal.
    pools: [AtomicPtr<Node>; NUMBERS],
    /// The parent's, so that it stays in reach of tools that look for leaks.
    #[allow(dead_code)]
    parent: *mut Era,
}

static ERA: AtomicPtr<Era> = AtomicPtr::new(ptr::null_mut());

impl Era {
    /// That of this process, if it has one. Async-signal-safe.
    pub(super) fn here() -> Option<&'static Self> {
        // SAFETY: never freed.
        let era = unsafe { ERA.load(Ordering::SeqCst).as_ref() }?;
        // SAFETY: takes nothing, never fails. It is asked, too, since a child of vfork's shares the
        // memory, and since not every system wipes the generation.
        let here = || era.pid == unsafe { libc::getpid() };
        (!fork::is_over(era.generation) && here()).then_some(era)
    }

    /// That of this process; `None` if there is no memory for one.
    pub(super) fn make() -> Option<&'static Self> {
        fork::check();
        loop {
            if let Some(era) = Self::here() {
                return Some(era);
            }
            let parent = ERA.load(Ordering::SeqCst);
            let new = Self {
                generation: fork::generation(),
                // SAFETY: as above.
                pid: unsafe { libc::getpid() },
                lock: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
                handlers: Grace::new(),
                pools: [const { AtomicPtr::new(ptr::null_mut()) }; NUMBERS],
                parent,
            };
            // SAFETY: not of size zero; written before anybody knows it.
            let at = unsafe {
                let at = alloc(Layout::new::<Self>()).cast::<Self>();
                if at.is_null() {
                    return None;
                }
                at.write(new);
                at
            };
            let won = ERA.compare_exchange(parent, at, Ordering::SeqCst, Ordering::SeqCst);
            if won.is_err() {
                // SAFETY: made above, and nobody else knows it.
                drop(unsafe { Box::from_raw(at) });
            }
        }
    }
}

impl Era {
    /// Sleep until no handler is inside that may have seen what was unlinked.
    ///
    /// Woken by: the last of them. With its signals blocked, it needs nothing but a processor.
    pub(super) fn wait_for_handlers(&self) {
        let _cancel = CancelGuard::new();
        let unlinked = self.handlers.now(self.generation);
        self.handlers.wait(unlinked, self.generation);
    }
}

/// The registry, locked; all signals are blocked in this thread.
pub(super) struct Locked {
    pub(super) era: &'static Era,
    mask: sigset_t,
}

impl Locked {
    /// Lock the era that `find` finds; `None` if it finds none.
    pub(super) fn new(find: impl FnOnce() -> Option<&'static Era>) -> Option<Self> {
        // SAFETY: sets of ours, and a mutex that never moves.
        unsafe {
            let (mut all, mut mask): (sigset_t, sigset_t) = (mem::zeroed(), mem::zeroed());
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut mask);
            // From here on no handler forks under this thread. A child that went on with the era it
            // had found before would wait for its parent's lock.
            let Some(era) = find() else {
                libc::pthread_sigmask(libc::SIG_SETMASK, &mask, ptr::null_mut());
                return None;
            };
            libc::pthread_mutex_lock(era.lock.get());
            Some(Self { era, mask })
        }
    }

    /// Add `node` to the list of `signum`. True if it is the first.
    pub(super) fn link(&self, signum: c_int, node: &Node) -> bool {
        let head = &self.era.pools[signum as usize];
        let first = head.load(Ordering::SeqCst);
        node.next.store(first, Ordering::SeqCst);
        head.store(ptr::from_ref(node).cast_mut(), Ordering::SeqCst);
        first.is_null()
    }

    /// Take `node` out of the list of `signum`. True if it was the last. Handlers may be at it until
    /// the caller has waited for them.
    pub(super) fn unlink(&self, signum: c_int, node: &Node) -> bool {
        let head = &self.era.pools[signum as usize];
        let mut at = head;
        loop {
            let next = at.load(Ordering::SeqCst);
            if ptr::eq(next, node) {
                break;
            }
            // SAFETY: those in the list are there until they are unlinked, which is under the lock.
            at = unsafe { &(*next).next };
        }
        at.store(node.next.load(Ordering::SeqCst), Ordering::SeqCst);
        head.load(Ordering::SeqCst).is_null()
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // SAFETY: locked by this thread, in `new`, with this mask.
        unsafe {
            libc::pthread_mutex_unlock(self.era.lock.get());
            libc::pthread_sigmask(libc::SIG_SETMASK, &self.mask, ptr::null_mut());
        }
    }
}

/// Tell all pools of this process that watch `signum`. False if there is none.
/// Async-signal-safe.
pub(super) fn notify_pools(signum: c_int) -> bool {
    let Some(era) = Era::here() else { return false };
    let pin = era.handlers.enter(era.generation);
    perturb_in_handler("inside, and not looked who watches");
    let mut node = era.pools[signum as usize].load(Ordering::SeqCst);
    let any = !node.is_null();
    // SAFETY: who leaves the list waits until nobody is inside who may have seen him there, before
    // his memory goes.
    while let Some(watch) = unsafe { node.as_ref() } {
        // SAFETY: as above; written before the node was linked.
        unsafe { &*watch.mailbox.load(Ordering::SeqCst) }.arrived(signum);
        node = watch.next.load(Ordering::SeqCst);
    }
    era.handlers.leave(pin);
    any
}
