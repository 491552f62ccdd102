// SPDX-License-Identifier: GPL-3.0-or-later
//! The loop thread's state.

use std::io;
use std::mem;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};

use super::backoff::{Later, Renewal, Stale};
use super::lists::Lists;
use super::poller::{AnyPoller, Framework, Numbers};
use crate::sys;
use crate::timers::Wheel;
use crate::wake;

/// What a turn in a thread of the application's has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It has done something.
    Done,
    /// Nothing came in its time.
    Nothing,
    /// The loop is quiet.
    Quiet,
}

/// The event loop. Only the loop thread uses it.
pub(crate) struct EventLoop {
    pub(super) poller: AnyPoller,
    pub(super) wheel: Wheel,
    /// Jobs that were pushed on the work queue and not announced to the workers yet.
    pub(super) dispatched: usize,
    /// How many jobs the last announcement was for; 0 after the loop has spun for them in vain.
    pub(super) last_dispatched: usize,
    /// Why the poller must be replaced after the events of the last wait, if it must.
    pub(super) stale: Option<Stale>,
    pub(super) renewal: Renewal,
    pub(super) later: Later,
    /// The numbers of the pool's own descriptors.
    pub(super) numbers: Numbers,
    pub(super) lists: NonNull<Lists>,
    /// How many jobs wait for a worker to close their descriptor.
    pub(super) closing: usize,
    /// The loop has gone quiet: nothing fires any more.
    pub(super) quiet: bool,
    /// Whether a signal can interrupt its waits.
    pub(super) roused: bool,
    /// The signal mask that the thread started with.
    pub(super) mask: libc::sigset_t,
    /// The loop has a thread of the pool's own. Else its thread, mask and all, is the application's.
    pub(super) own_thread: bool,
    /// The poller may have been told a deadline that nobody else wants.
    pub(super) exact: bool,
}

impl EventLoop {
    /// Make a loop over `framework` that watches `pipe`, the read end of the wake pipe, and uses
    /// `lists`. It runs in a thread of the pool's if `own_thread` is true, else in those of the
    /// application's that turn it.
    ///
    /// # Safety
    /// `lists` are empty and outlive the loop. Nobody makes a `&mut` to them meanwhile.
    pub(crate) unsafe fn new(
        framework: Framework,
        pipe: RawFd,
        lists: NonNull<Lists>,
        own_thread: bool,
    ) -> io::Result<Self> {
        // SAFETY: all zero is a valid `sigset_t`. With a null set, pthread_sigmask only writes the
        // current mask to it.
        let mask = unsafe {
            let mut mask: libc::sigset_t = mem::zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &mut mask);
            mask
        };
        // The masks of threads that turn the loop are not known.
        let roused = !own_thread || wake::reaches(&mask);
        let _low = sys::LowNumbers::take();
        let mut poller = AnyPoller::new(framework, pipe, roused)?;
        if !own_thread {
            poller.prepare_rest()?;
        }
        Ok(Self {
            poller,
            // SAFETY: by the caller's promise, which covers the rings inside the lists.
            wheel: unsafe {
                let timers = &raw mut (*lists.as_ptr()).timers;
                Wheel::new(NonNull::new_unchecked(timers), sys::now())
            },
            dispatched: 0,
            last_dispatched: 0,
            stale: None,
            renewal: Renewal::new(),
            later: Later::new(),
            numbers: Numbers::default(),
            lists,
            closing: 0,
            quiet: false,
            roused,
            mask,
            own_thread,
            exact: false,
        })
    }

    /// The lists. They outlive the borrow of the loop.
    pub(super) fn lists<'a>(&self) -> &'a Lists {
        // SAFETY: the caller of `new` promised that the lists outlive the loop and that nobody
        // makes a `&mut` to them.
        unsafe { self.lists.as_ref() }
    }

    /// In a forked child: release the poller's descriptors.
    pub(crate) fn release_in_child(self) {
        // Drop nothing else: the fork may have caught the parent's loop in the middle of a change.
        let this = mem::ManuallyDrop::new(self);
        // SAFETY: `ManuallyDrop` keeps the field from being dropped, so this is its only owner.
        unsafe { ptr::read(&raw const this.poller) }.release_in_child();
    }
}
