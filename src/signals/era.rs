// SPDX-License-Identifier: GPL-3.0-or-later
//! One process's part of the registry: the pools that watch each signal, the lock on those lists,
//! and the handlers that are walking them.

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

/// One process's part of the registry. It is never freed: handlers may use it, and so may stack
/// frames of the parent that continue in a forked child.
pub(super) struct Era {
    generation: u32,
    pid: libc::pid_t,
    lock: UnsafeCell<libc::pthread_mutex_t>,
    /// Counts the handlers that walk a list.
    handlers: Grace,
    /// The pools that watch each signal.
    pools: [AtomicPtr<Node>; NUMBERS],
    /// The parent's era. It keeps that memory reachable for leak checkers.
    #[allow(dead_code)]
    parent: *mut Era,
}

static ERA: AtomicPtr<Era> = AtomicPtr::new(ptr::null_mut());

impl Era {
    /// The era of this process, if it has one. Async-signal-safe.
    pub(super) fn here() -> Option<&'static Self> {
        // SAFETY: an era is never freed.
        let era = unsafe { ERA.load(Ordering::SeqCst).as_ref() }?;
        // SAFETY: getpid takes no argument and never fails. The generation alone is not enough: a
        // child of vfork shares our memory, and not every system wipes the generation.
        let here = || era.pid == unsafe { libc::getpid() };
        (!fork::is_over(era.generation) && here()).then_some(era)
    }

    /// The era of this process, made if necessary; `None` if there is no memory for it.
    pub(super) fn make() -> Option<&'static Self> {
        fork::check();
        loop {
            if let Some(era) = Self::here() {
                return Some(era);
            }
            let parent = ERA.load(Ordering::SeqCst);
            let new = Self {
                generation: fork::generation(),
                // SAFETY: getpid takes no argument and never fails.
                pid: unsafe { libc::getpid() },
                lock: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
                handlers: Grace::new(),
                pools: [const { AtomicPtr::new(ptr::null_mut()) }; NUMBERS],
                parent,
            };
            // SAFETY: the layout's size is not zero, and the memory is written before it is
            // published.
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
                // SAFETY: made above, and never published.
                drop(unsafe { Box::from_raw(at) });
            }
        }
    }
}

impl Era {
    /// Sleep until every handler that may have seen an unlinked node has left.
    ///
    /// Woken by: the last of these handlers. A handler runs with its signals blocked, so it needs
    /// nothing but a processor to finish.
    pub(super) fn wait_for_handlers(&self) {
        let _cancel = CancelGuard::new();
        let unlinked = self.handlers.now(self.generation);
        self.handlers.wait(unlinked, self.generation);
    }
}

/// The locked registry. All signals are blocked in this thread while it exists.
pub(super) struct Locked {
    pub(super) era: &'static Era,
    mask: sigset_t,
}

impl Locked {
    /// Lock the era that `find` returns; `None` if it returns none.
    pub(super) fn new(find: impl FnOnce() -> Option<&'static Era>) -> Option<Self> {
        // SAFETY: the sets are ours, and the mutex never moves.
        unsafe {
            let (mut all, mut mask): (sigset_t, sigset_t) = (mem::zeroed(), mem::zeroed());
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut mask);
            // From here on no handler can run, and so none can fork, in this thread. A child that
            // continued here with an era found earlier would wait for its parent's lock.
            let Some(era) = find() else {
                libc::pthread_sigmask(libc::SIG_SETMASK, &mask, ptr::null_mut());
                return None;
            };
            libc::pthread_mutex_lock(era.lock.get());
            Some(Self { era, mask })
        }
    }

    /// Add `node` to the list of `signum`. Returns whether it is the only one.
    pub(super) fn link(&self, signum: c_int, node: &Node) -> bool {
        let head = &self.era.pools[signum as usize];
        let first = head.load(Ordering::SeqCst);
        node.next.store(first, Ordering::SeqCst);
        head.store(ptr::from_ref(node).cast_mut(), Ordering::SeqCst);
        first.is_null()
    }

    /// Remove `node` from the list of `signum`. Returns whether the list is now empty. Handlers may
    /// still use the node until the caller has called [`Era::wait_for_handlers`].
    pub(super) fn unlink(&self, signum: c_int, node: &Node) -> bool {
        let head = &self.era.pools[signum as usize];
        let mut at = head;
        loop {
            let next = at.load(Ordering::SeqCst);
            if ptr::eq(next, node) {
                break;
            }
            // SAFETY: a node in the list is live until it is unlinked, and that requires the lock.
            at = unsafe { &(*next).next };
        }
        at.store(node.next.load(Ordering::SeqCst), Ordering::SeqCst);
        head.load(Ordering::SeqCst).is_null()
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // SAFETY: `new` locked the mutex in this thread and saved this mask.
        unsafe {
            libc::pthread_mutex_unlock(self.era.lock.get());
            libc::pthread_sigmask(libc::SIG_SETMASK, &self.mask, ptr::null_mut());
        }
    }
}

/// Notify all pools of this process that watch `signum`. Returns false if there is none.
/// Async-signal-safe.
pub(super) fn notify_pools(signum: c_int) -> bool {
    let Some(era) = Era::here() else { return false };
    let pin = era.handlers.enter(era.generation);
    perturb_in_handler("inside, and not looked who watches");
    let mut node = era.pools[signum as usize].load(Ordering::SeqCst);
    let any = !node.is_null();
    // SAFETY: a pool that leaves the list waits, before its memory is freed, until every handler
    // that may have seen its node has left.
    while let Some(watch) = unsafe { node.as_ref() } {
        // SAFETY: as above; the pointer was written before the node was linked.
        unsafe { &*watch.mailbox.load(Ordering::SeqCst) }.arrived(signum);
        node = watch.next.load(Ordering::SeqCst);
    }
    era.handlers.leave(pin);
    any
}
