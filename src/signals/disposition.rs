// SPDX-License-Identifier: GPL-3.0-or-later
//! What the system does with a signal, and putting ours in its place and back.
//!
//! A disposition names our handler, and that puts dispositions back: the two know each other.

use std::ptr;

use libc::{c_int, c_void, siginfo_t};

use super::handler::handler;

pub(super) type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

pub(super) const WORDS: usize = size_of::<libc::sigaction>() / size_of::<usize>();

/// What the system does with a signal: a sigaction, as words that a latch can hold. All of it is
/// initialised, whatever the C library writes.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Disposition(pub(super) [usize; WORDS]);

const _: () = assert!(
    size_of::<libc::sigaction>() == size_of::<Disposition>()
        && align_of::<libc::sigaction>() <= align_of::<Disposition>()
);

impl Disposition {
    /// The default action. (All zero is that: no handler, no flags, an empty mask.)
    pub(super) fn default() -> Self {
        Self([0; WORDS])
    }

    /// Ours. All signals are blocked while it runs. Programs with small stacks, Go's for one, ask
    /// that handlers use their own.
    pub(super) fn ours() -> Self {
        let mut ours = Self::default();
        // SAFETY: a sigaction, all of it initialised.
        let action = unsafe { &mut *ours.0.as_mut_ptr().cast::<libc::sigaction>() };
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
        // SAFETY: a set of ours.
        unsafe { libc::sigfillset(&mut action.sa_mask) };
        ours
    }

    pub(super) fn action(&self) -> &libc::sigaction {
        // SAFETY: as large and as aligned, and any words are a sigaction.
        unsafe { &*self.0.as_ptr().cast() }
    }

    pub(super) fn handler(&self) -> usize {
        self.action().sa_sigaction
    }

    pub(super) fn is_ours(&self) -> bool {
        self.handler() == handler as *const () as usize
    }

    /// Whether it is a function, and not the default action or none.
    pub(super) fn is_function(&self) -> bool {
        ![libc::SIG_DFL, libc::SIG_IGN].contains(&self.handler())
    }

    /// What the kernel leaves in place when it enters the handler.
    pub(super) fn as_entered(&self) -> Self {
        if self.action().sa_flags & libc::SA_RESETHAND != 0 {
            Self::default()
        } else {
            *self
        }
    }

    /// That of `signum` now.
    pub(super) fn of(signum: c_int) -> Option<Self> {
        Self::exchange(signum, ptr::null())
    }

    /// Have it be that of `signum`. Returns what was there, or `None` if the system refuses.
    pub(super) fn set(&self, signum: c_int) -> Option<Self> {
        Self::exchange(signum, self.action())
    }

    fn exchange(signum: c_int, new: *const libc::sigaction) -> Option<Self> {
        let mut old = Self::default();
        // SAFETY: null or a disposition of the system's or of ours; room for another.
        let result = unsafe { libc::sigaction(signum, new, old.0.as_mut_ptr().cast()) };
        (result == 0).then_some(old)
    }
}

/// Put `disposition` in the place of ours, unless somebody else's is there. True if it was ours.
/// Async-signal-safe.
pub(super) fn put_back(signum: c_int, disposition: &Disposition) -> bool {
    if !Disposition::of(signum).is_some_and(|now| now.is_ours()) {
        return false;
    }
    let Some(found) = disposition.set(signum) else {
        return false;
    };
    if !found.is_ours() {
        // Set between the two calls.
        found.set(signum);
        return false;
    }
    true
}
