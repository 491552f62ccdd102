// SPDX-License-Identifier: GPL-3.0-or-later
//! What belongs to the loop thread: the state that its turn and its steps change.

use std::io;
use std::mem;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};

use super::backoff::{Later, Renewal, Stale};
use super::lists::{Lists, Ready};
use super::poller::{AnyPoller, Framework, Numbers};
use crate::sys;
use crate::timers::Wheel;
use crate::wake;

/// What belongs to the loop thread alone.
pub(crate) struct EventLoop {
    pub(super) poller: AnyPoller,
    pub(super) wheel: Wheel,
    pub(super) ready: Ready,
    /// How many jobs were put on the work queue of which nobody was told yet.
    pub(super) dispatched: usize,
    /// How many the workers were told of last; none, once it was in vain to linger for them.
    pub(super) given: usize,
    /// The poller is to be made anew, when the events of the last wait have been dealt with.
    pub(super) stale: Option<Stale>,
    pub(super) renewal: Renewal,
    pub(super) later: Later,
    /// The numbers of the pool's own descriptors.
    pub(super) numbers: Numbers,
    pub(super) lists: NonNull<Lists>,
    /// How many jobs wait for a worker that closes their descriptor.
    pub(super) closing: usize,
    /// Nothing fires any more.
    pub(super) quiet: bool,
    /// Whether a signal can end its waits.
    pub(super) roused: bool,
    /// The signal mask that the thread began with.
    pub(super) mask: libc::sigset_t,
}

impl EventLoop {
    /// A loop over `framework` that is woken through the pipe end `pipe`, with these lists.
    ///
    /// # Safety
    /// `lists` are empty, and stay until the loop goes. No `&mut` to them is made meanwhile.
    pub(crate) unsafe fn new(
        framework: Framework,
        pipe: RawFd,
        lists: NonNull<Lists>,
    ) -> io::Result<Self> {
        // SAFETY: all zero is a set; filled by pthread_sigmask, which only reads the mask here.
        let mask = unsafe {
            let mut mask: libc::sigset_t = mem::zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &mut mask);
            mask
        };
        let roused = wake::reaches(&mask);
        let _low = sys::LowNumbers::take();
        Ok(Self {
            poller: AnyPoller::new(framework, pipe, roused)?,
            // SAFETY: by the caller's promise.
            wheel: unsafe {
                let timers = &raw mut (*lists.as_ptr()).timers;
                Wheel::new(NonNull::new_unchecked(timers), sys::now())
            },
            ready: Ready::default(),
            dispatched: 0,
            given: 0,
            stale: None,
            renewal: Renewal::new(),
            later: Later::new(),
            numbers: Numbers::default(),
            lists,
            closing: 0,
            quiet: false,
            roused,
            mask,
        })
    }

    /// Its lists. They outlive the borrow of the loop.
    pub(super) fn lists<'a>(&self) -> &'a Lists {
        // SAFETY: by the promise of `new`.
        unsafe { self.lists.as_ref() }
    }

    /// In a forked child: let go of the descriptors.
    pub(crate) fn release_in_child(self) {
        // Nothing else of it: the parent's loop may have been in the middle of changing it.
        let this = mem::ManuallyDrop::new(self);
        // SAFETY: read once, and never dropped.
        unsafe { ptr::read(&raw const this.poller) }.release_in_child();
    }
}
