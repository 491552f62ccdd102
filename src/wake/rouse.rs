// SPDX-License-Identifier: GPL-3.0-or-later
//! Interrupting the loop's wait when nothing else can.
//!
//! A program that closes every descriptor it does not know (closefrom(3)) closes those of the loop
//! too. If the loop sleeps in the kernel at that moment, it sleeps on a poller that no number
//! refers to any more, and the wake pipe is closed. Only a signal reaches it. We borrow a signal
//! that nobody uses, one with the default disposition, and that the loop thread does not block. We
//! give it an empty handler and send it to the loop thread alone. The loop restores the disposition
//! when it has woken up.
//!
//! There is no such signal if the application blocks all signals (and takes them by sigwait(3) or a
//! signalfd). Then the loop checks by itself: none of its waits in the poller lasts longer than a
//! second. This is known when the loop is made, and its poller is told then.

use std::cell::Cell;
use std::mem;
use std::ptr;

use libc::{c_int, c_void, pthread_t, sigaction, sigset_t};

use crate::sync::{Mutex, lock};

/// The thread to interrupt, and the signal that we borrowed for that.
struct Sleeper {
    thread: pthread_t,
    /// The signals that the thread blocked when it began.
    mask: sigset_t,
    /// No signal reaches the thread: it limits its waits and checks by itself.
    looks: bool,
    /// The borrowed signal, and its disposition before.
    borrowed: Option<(c_int, sigaction)>,
}

// SAFETY: a thread's id, which is a pointer in some C libraries, names the thread to any other.
unsafe impl Send for Sleeper {}

/// How to interrupt the loop's wait: see the module.
pub(crate) struct Rouse(Mutex<Option<Sleeper>>);

/// What ends the wait of a framework that goes on when a signal interrupts it: a function that is
/// async-signal-safe, and its argument.
type Stop = (unsafe extern "C" fn(*mut c_void) -> c_int, *mut c_void);

thread_local! {
    static STOP: Cell<Option<Stop>> = const { Cell::new(None) };
}

/// Have a rouse of this thread call `stop`, or nothing.
#[cfg_attr(not(target_os = "linux"), allow(dead_code))]
pub(crate) fn when_roused(stop: Option<Stop>) {
    // An error means that the thread is about to end.
    let _ = STOP.try_with(|it| it.set(stop));
}

/// The handler's main purpose is to interrupt the wait.
extern "C" fn interrupt(_: c_int) {
    // The loop thread has used thread-locals of the library before, so this allocates nothing.
    if let Ok(Some((stop, arg))) = STOP.try_with(Cell::get) {
        // SAFETY: who set the function vouches for it.
        unsafe { stop(arg) };
    }
}

fn handler() -> usize {
    interrupt as extern "C" fn(c_int) as usize
}

/// The signals that may be borrowed. Those that do nothing by default come first.
fn signals() -> impl Iterator<Item = c_int> {
    #[cfg(target_os = "linux")]
    let others = libc::SIGRTMIN()..=libc::SIGRTMAX();
    #[cfg(not(target_os = "linux"))]
    let others = std::iter::empty();
    [libc::SIGURG, libc::SIGWINCH].into_iter().chain(others)
}

/// Whether there is a signal to borrow for a thread that blocks the signals in `mask`.
pub(crate) fn reaches(mask: &sigset_t) -> bool {
    signals().any(|signum| {
        // SAFETY: pthread_sigmask filled the mask; zeroed memory is a valid disposition, which
        // sigaction overwrites.
        unsafe {
            let mut now: sigaction = mem::zeroed();
            libc::sigismember(mask, signum) == 0
                && libc::sigaction(signum, ptr::null(), &mut now) == 0
                && now.sa_sigaction == libc::SIG_DFL
        }
    })
}

/// Sets the disposition of `signum` and returns the old one.
fn set(signum: c_int, new: &sigaction) -> Option<sigaction> {
    // SAFETY: `new` is a valid disposition, and so is zeroed memory, which sigaction overwrites.
    unsafe {
        let mut old: sigaction = mem::zeroed();
        (libc::sigaction(signum, new, &mut old) == 0).then_some(old)
    }
}

impl Rouse {
    /// No thread yet.
    pub(crate) fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Makes the calling thread the one to interrupt. It blocks the signals in `mask`. `reaches`
    /// says whether another signal can reach it; if not, it limits its waits itself.
    pub(crate) fn enter(&self, mask: sigset_t, reaches: bool) {
        // SAFETY: pthread_self takes no argument and never fails.
        let thread = unsafe { libc::pthread_self() };
        *lock(&self.0) = Some(Sleeper {
            thread,
            mask,
            looks: !reaches,
            borrowed: None,
        });
    }

    /// Makes the calling thread the one to interrupt, in the place of another that is the loop no longer.
    pub(crate) fn enter_here(&self) {
        // SAFETY: all zero is a valid `sigset_t`. With a null set, pthread_sigmask only writes the current
        // mask to it. pthread_self never fails.
        let (thread, mask) = unsafe {
            let mut mask: sigset_t = mem::zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &mut mask);
            (libc::pthread_self(), mask)
        };
        let mut sleeper = lock(&self.0);
        let borrowed = sleeper.take().and_then(|sleeper| sleeper.borrowed);
        *sleeper = Some(Sleeper {
            thread,
            mask,
            looks: false,
            borrowed,
        });
    }

    /// Interrupts the thread's wait. Returns false if every usable signal has come into use since
    /// the thread began. Not for use in a signal handler.
    pub(crate) fn rouse(&self) -> bool {
        let mut sleeper = lock(&self.0);
        let Some(sleeper) = &mut *sleeper else {
            // The thread has not begun yet; it checks for lost descriptors when it begins.
            return true;
        };
        if sleeper.looks {
            return true;
        }
        if let Some((signum, _)) = sleeper.borrowed {
            // SAFETY: the loop thread is joined only after all calls that may get here have
            // returned.
            return unsafe { libc::pthread_kill(sleeper.thread, signum) } == 0;
        }
        for signum in signals() {
            // SAFETY: pthread_sigmask filled the mask.
            if unsafe { libc::sigismember(&sleeper.mask, signum) } != 0 {
                continue;
            }
            // SAFETY: zeroed memory is a valid disposition, without flags and with an empty mask.
            let mut ours: sigaction = unsafe { mem::zeroed() };
            ours.sa_sigaction = handler();
            // Set first, then check what was there: so only one of two pools can take the signal.
            let Some(before) = set(signum, &ours) else {
                continue;
            };
            if before.sa_sigaction != libc::SIG_DFL {
                set(signum, &before);
                continue;
            }
            sleeper.borrowed = Some((signum, before));
            // SAFETY: as above, the loop thread is joined only after all calls that may get here.
            return unsafe { libc::pthread_kill(sleeper.thread, signum) } == 0;
        }
        false
    }

    /// Called when the thread has woken up: restores the signal's disposition, unless somebody else
    /// has changed it since.
    pub(crate) fn give_back(&self) {
        let mut sleeper = lock(&self.0);
        let Some((signum, before)) = sleeper.as_mut().and_then(|it| it.borrowed.take()) else {
            return;
        };
        // SAFETY: zeroed memory is a valid disposition, which sigaction overwrites.
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
