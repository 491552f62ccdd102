// SPDX-License-Identifier: GPL-3.0-or-later
//! Getting the loop out of a wait that nothing else ends.
//!
//! A program that closes every descriptor it does not know (closefrom(3)) closes the loop's too. A
//! loop that sleeps in the kernel then sleeps on a poller that nobody can name any more, and the
//! pipe that was to wake it is gone. Only a signal reaches it. One is borrowed that nobody uses and
//! that the loop's thread does not block: its disposition is the default one. It gets a handler
//! that does nothing, is sent to the loop's thread alone, and the loop puts the disposition back
//! when it has come round.
//!
//! Where there is none, since the application blocks all signals (and takes them by sigwait(3) or a
//! signalfd), the loop looks by itself: no wait of the poller's lasts longer than a second. That is
//! known when the loop is made, and its poller is told.

use std::mem;
use std::ptr;

use libc::{c_int, pthread_t, sigaction, sigset_t};

use crate::sync::{Mutex, lock};

/// The thread to rouse, and what was borrowed for that.
struct Sleeper {
    thread: pthread_t,
    /// What it blocked when it began.
    mask: sigset_t,
    /// It does not rely on being roused.
    looks: bool,
    /// A signal, and its disposition before.
    borrowed: Option<(c_int, sigaction)>,
}

/// See the module.
pub(crate) struct Rouse(Mutex<Option<Sleeper>>);

/// A handler: that it ran is all that is wanted of it.
extern "C" fn nothing(_: c_int) {}

fn handler() -> usize {
    nothing as extern "C" fn(c_int) as usize
}

/// The signals to choose from: those that do nothing by default first.
fn signals() -> impl Iterator<Item = c_int> {
    #[cfg(target_os = "linux")]
    let others = libc::SIGRTMIN()..=libc::SIGRTMAX();
    #[cfg(not(target_os = "linux"))]
    let others = std::iter::empty();
    [libc::SIGURG, libc::SIGWINCH].into_iter().chain(others)
}

/// Whether a signal can be borrowed for a thread that blocks those of `mask`.
pub(crate) fn reaches(mask: &sigset_t) -> bool {
    signals().any(|signum| {
        // SAFETY: a mask that pthread_sigmask filled; all zero is a disposition to write over.
        unsafe {
            let mut now: sigaction = mem::zeroed();
            libc::sigismember(mask, signum) == 0
                && libc::sigaction(signum, ptr::null(), &mut now) == 0
                && now.sa_sigaction == libc::SIG_DFL
        }
    })
}

/// Set what `signum` does, and return what it did before.
fn set(signum: c_int, new: &sigaction) -> Option<sigaction> {
    // SAFETY: all zero is a disposition to write over; `new` is one.
    unsafe {
        let mut old: sigaction = mem::zeroed();
        (libc::sigaction(signum, new, &mut old) == 0).then_some(old)
    }
}

impl Rouse {
    /// For a thread that is not known yet.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// The calling thread is the one to rouse. It blocks the signals of `mask`, and if no other
    /// `reaches` it, it looks by itself.
    pub(crate) fn enter(&self, mask: sigset_t, reaches: bool) {
        // SAFETY: takes nothing, never fails.
        let thread = unsafe { libc::pthread_self() };
        *lock(&self.0) = Some(Sleeper {
            thread,
            mask,
            looks: !reaches,
            borrowed: None,
        });
    }

    /// Interrupt the thread's wait. False if every signal has come to be in use since the thread
    /// began. Not in a signal handler.
    pub(crate) fn rouse(&self) -> bool {
        let mut sleeper = lock(&self.0);
        let Some(sleeper) = &mut *sleeper else {
            // It did not begin yet, and looks for itself when it does.
            return true;
        };
        if sleeper.looks {
            return true;
        }
        if let Some((signum, _)) = sleeper.borrowed {
            // SAFETY: the loop's thread is joined only after all calls that may come here.
            return unsafe { libc::pthread_kill(sleeper.thread, signum) } == 0;
        }
        for signum in signals() {
            // SAFETY: the mask was filled by pthread_sigmask.
            if unsafe { libc::sigismember(&sleeper.mask, signum) } != 0 {
                continue;
            }
            // SAFETY: all zero is a disposition without flags, with an empty mask.
            let mut ours: sigaction = unsafe { mem::zeroed() };
            ours.sa_sigaction = handler();
            // Set first and looked at then, so that of two pools only one takes it.
            let Some(before) = set(signum, &ours) else {
                continue;
            };
            if before.sa_sigaction != libc::SIG_DFL {
                set(signum, &before);
                continue;
            }
            sleeper.borrowed = Some((signum, before));
            // SAFETY: as above.
            return unsafe { libc::pthread_kill(sleeper.thread, signum) } == 0;
        }
        false
    }

    /// The thread has come round: the signal does what it did before, unless somebody else wants
    /// something of it by now.
    pub(crate) fn give_back(&self) {
        let mut sleeper = lock(&self.0);
        let Some((signum, before)) = sleeper.as_mut().and_then(|it| it.borrowed.take()) else {
            return;
        };
        // SAFETY: all zero is a disposition to write over.
        let now = unsafe {
            let mut now: sigaction = mem::zeroed();
            libc::sigaction(signum, ptr::null(), &mut now);
            now
        };
        if now.sa_sigaction == handler() {
            set(signum, &before);
        }
    }
}
