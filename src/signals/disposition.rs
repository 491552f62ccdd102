// SPDX-License-Identifier: GPL-3.0-or-later
//! Signal dispositions: read one, install ours, and restore the earlier one.
//!
//! This file and [`handler`](super::handler) refer to each other: our disposition names the
//! handler, and the handler restores dispositions.

use std::ptr;

use libc::{c_int, c_void, siginfo_t};

use super::handler::handler;

pub(super) type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

pub(super) const WORDS: usize = size_of::<libc::sigaction>() / size_of::<usize>();

/// A signal's disposition: a `sigaction`, stored as words so that a latch can hold it. Every word
/// is initialised, even those that the C library does not write.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Disposition(pub(super) [usize; WORDS]);

const _: () = assert!(
    size_of::<libc::sigaction>() == size_of::<Disposition>()
        && align_of::<libc::sigaction>() <= align_of::<Disposition>()
);

impl Disposition {
    /// The default action. It is all zero: no handler, no flags, an empty mask.
    pub(super) fn default() -> Self {
        Self([0; WORDS])
    }

    /// Our disposition. The kernel blocks all signals while our handler runs. Programs with small
    /// thread stacks, such as Go's, require that a handler uses the alternate stack (`SA_ONSTACK`).
    pub(super) fn ours() -> Self {
        let mut ours = Self::default();
        // SAFETY: the words are an initialised `sigaction`; the assertion above checks its size and
        // alignment.
        let action = unsafe { &mut *ours.0.as_mut_ptr().cast::<libc::sigaction>() };
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
        // SAFETY: the call writes to a set that we own.
        unsafe { libc::sigfillset(&mut action.sa_mask) };
        ours
    }

    pub(super) fn action(&self) -> &libc::sigaction {
        // SAFETY: size and alignment fit, by the assertion above, and any words are a valid
        // `sigaction`.
        unsafe { &*self.0.as_ptr().cast() }
    }

    pub(super) fn handler(&self) -> usize {
        self.action().sa_sigaction
    }

    pub(super) fn is_ours(&self) -> bool {
        self.handler() == handler as *const () as usize
    }

    /// Whether it is a function, not the default action and not `SIG_IGN`.
    pub(super) fn is_function(&self) -> bool {
        ![libc::SIG_DFL, libc::SIG_IGN].contains(&self.handler())
    }

    /// The disposition that the kernel leaves in place when it enters this handler.
    pub(super) fn as_entered(&self) -> Self {
        if self.action().sa_flags & libc::SA_RESETHAND != 0 {
            Self::default()
        } else {
            *self
        }
    }

    /// The current disposition of `signum`.
    pub(super) fn of(signum: c_int) -> Option<Self> {
        Self::exchange(signum, ptr::null())
    }

    /// Make this the disposition of `signum`. Returns the one that it replaced, or `None` if the
    /// system refuses.
    pub(super) fn set(&self, signum: c_int) -> Option<Self> {
        Self::exchange(signum, self.action())
    }

    fn exchange(signum: c_int, new: *const libc::sigaction) -> Option<Self> {
        let mut old = Self::default();
        // SAFETY: `new` is null or a valid `sigaction`, and `old` has room for one.
        let result = unsafe { libc::sigaction(signum, new, old.0.as_mut_ptr().cast()) };
        (result == 0).then_some(old)
    }
}

/// Replace our disposition with `disposition`, unless another one is in place. Returns whether ours
/// was in place. Async-signal-safe.
pub(super) fn put_back(signum: c_int, disposition: &Disposition) -> bool {
    if !Disposition::of(signum).is_some_and(|now| now.is_ours()) {
        return false;
    }
    let Some(found) = disposition.set(signum) else {
        return false;
    };
    if !found.is_ours() {
        // Another thread changed the disposition between the two calls: restore its choice.
        found.set(signum);
        return false;
    }
    true
}
