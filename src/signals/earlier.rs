// SPDX-License-Identifier: GPL-3.0-or-later
//! What our handler does where nobody watches: what would have been done without it.
//!
//! Nobody watches, and yet our handler runs: in a forked child; between the end of the last watch
//! and the return of the earlier disposition; and where others have saved our handler while a job
//! watched, and use it later (as system(3), readline, and a second copy of this library do). Two
//! cases:
//!
//! * Ours is what the system calls. Then the earlier disposition goes back in its place, and is
//!   acted upon: the default action is the kernel's own, and a handler is called as the kernel
//!   would have called it.
//! * Somebody's handler calls ours as the one that it found. It came after ours, so it gets what
//!   was there *below* ours: not itself, even if a later job has found it in our place.
//!
//! Two handlers may each have found the other. Whoever hands `info` on, as another copy of this
//! library does, is recognised when it comes back: see [`Delivery`].
//!
//! All of it is async-signal-safe.

use std::mem;
use std::ptr;

use libc::{c_int, c_void, siginfo_t, sigset_t};

use super::disposition::{Disposition, Handler, put_back};
use super::era::notify_pools;
use super::known::SIGNALS;
use super::numbers::{NUMBERS, can_catch};
use crate::perturb::perturb_in_handler;

/// The system has called our handler, or somebody has, and no pool of this process watches.
pub(super) fn act(signum: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let Some(known) = SIGNALS[signum as usize].read() else {
        return;
    };
    let delivery = Delivery::new(info);
    let again = delivery.count();
    if again > 1 {
        // What was below ours has had its turn as well.
        return;
    }
    let installed = Disposition::of(signum).is_some_and(|now| now.is_ours());
    if again == 1 || !installed {
        return call_or_default(signum, context, &known.below, false, &delivery);
    }
    perturb_in_handler("nobody watches, and the earlier disposition is not back");
    if put_back(signum, &known.earlier.as_entered()) && notify_pools(signum) {
        // Somebody watches since. Either the watch has seen what was put back and replaced it, or
        // it came before that.
        Disposition::ours().set(signum);
        return;
    }
    call_or_default(signum, context, &known.earlier, true, &delivery);
}

/// Do what `disposition` says. `in_place`: it is what the system does now.
fn call_or_default(
    signum: c_int,
    context: *mut c_void,
    disposition: &Disposition,
    in_place: bool,
    delivery: &Delivery,
) {
    match disposition.handler() {
        libc::SIG_IGN => {}
        libc::SIG_DFL => default_action(signum, in_place),
        _ => call(signum, context, disposition, delivery),
    }
}

/// Have the kernel do what it does by default.
fn default_action(signum: c_int, in_place: bool) {
    if [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH].contains(&signum) {
        return;
    }
    let replaced = if in_place {
        None
    } else {
        Disposition::default().set(signum)
    };
    // SAFETY: sets of ours, and a signal to this thread. Raw calls: those of some C libraries
    // remember the thread's number, which is another in a child of vfork's.
    unsafe {
        let (mut only, mut before): (sigset_t, sigset_t) = (mem::zeroed(), mem::zeroed());
        libc::sigemptyset(&mut only);
        libc::sigaddset(&mut only, signum);
        #[cfg(any(target_os = "linux", target_os = "android"))]
        libc::syscall(
            libc::SYS_tgkill,
            libc::getpid(),
            libc::syscall(libc::SYS_gettid),
            signum,
        );
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        libc::raise(signum);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &only, &mut before);
        // It stopped the process, and that goes on; or somebody has just set a handler.
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut());
    }
    if let Some(replaced) = replaced {
        let now = replaced.set(signum);
        if let Some(now) = now.filter(|now| now.handler() != libc::SIG_DFL) {
            now.set(signum);
        }
    }
}

/// Call a handler with the mask, and the arguments, that the kernel would have given it.
fn call(signum: c_int, context: *mut c_void, disposition: &Disposition, delivery: &Delivery) {
    let action = disposition.action();
    // SAFETY: sets of ours. The handler is what the system has told of as one for this signal, and
    // takes what the flags say.
    unsafe {
        let mut mask: sigset_t = mem::zeroed();
        libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &mut mask);
        let entered = mask;
        interrupted_mask(&mut mask, context);
        for number in 1..NUMBERS as c_int {
            if libc::sigismember(&action.sa_mask, number) == 1 {
                libc::sigaddset(&mut mask, number);
            }
        }
        if action.sa_flags & libc::SA_NODEFER == 0 {
            libc::sigaddset(&mut mask, signum);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &mask, ptr::null_mut());
        if action.sa_flags & libc::SA_SIGINFO != 0 {
            let handler = mem::transmute::<usize, Handler>(action.sa_sigaction);
            delivery.pass_on(|info| handler(signum, info, context));
        } else {
            let handler = mem::transmute::<usize, extern "C" fn(c_int)>(action.sa_sigaction);
            handler(signum);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &entered, ptr::null_mut());
    }
}

/// Whether `at` may be what the kernel, or another copy of ours, has put on this thread's stack for
/// this call. Somebody who calls our handler with the number alone leaves anything there.
fn is_near<T>(at: *const T) -> bool {
    const NEAR: usize = 64 * 1024;
    let here = 0u8;
    let here = (&raw const here).addr();
    at.is_aligned() && (1..NEAR).contains(&at.addr().wrapping_sub(here))
}

/// If ours was called by the kernel, which blocks everything meanwhile: the mask of the code that
/// it has interrupted. If somebody else calls, the mask is as he wants it.
fn interrupted_mask(mask: &mut sigset_t, context: *mut c_void) {
    #[cfg(target_os = "linux")]
    {
        let context: *const libc::ucontext_t = context.cast();
        // SAFETY: a number of a signal, and a set of ours.
        let blocked = |number| unsafe { libc::sigismember(mask, number) } == 1;
        let all_blocked = (1..NUMBERS as c_int).all(|number| !can_catch(number) || blocked(number));
        if all_blocked && is_near(context) {
            // The kernel's set is shorter than the C library's.
            const LENGTH: usize = NUMBERS / 8;
            // SAFETY: a context of the kernel's begins as the C library's does, up to the mask.
            unsafe {
                libc::sigemptyset(mask);
                let from = (&raw const (*context).uc_sigmask).cast::<u8>();
                from.copy_to_nonoverlapping(ptr::from_mut(mask).cast(), LENGTH);
            }
        }
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (mask, context);
}

/// One run of our handler, and which runs of it this very signal has been through before: in a
/// chain of visits on the stack, found by a mark in the unused end of the `info` that is handed on.
/// The mark names its own place, so none that is older, or copied, is taken for it.
struct Delivery {
    info: *mut siginfo_t,
    visits: *const Visit,
}

/// One copy of the library has handed the signal on. Its layout is that of [`MARK`].
#[repr(C)]
struct Visit {
    copy: *const c_void,
    before: *const Visit,
}

const MARK: usize = 0x6e73_5f31_7669_7369_u64 as usize;
const WORDS: usize = 2;
/// Where the mark begins. What any signal tells of itself ends long before.
const AT: usize = size_of::<siginfo_t>() / size_of::<usize>() - WORDS;

impl Delivery {
    fn new(info: *mut siginfo_t) -> Self {
        let mut visits = ptr::null();
        if is_near(info) {
            // SAFETY: in the part of this thread's stack that calls us.
            let mark = unsafe {
                info.cast::<[usize; WORDS]>()
                    .byte_add(AT * size_of::<usize>())
                    .read()
            };
            if mark[0] == MARK ^ info.addr() {
                visits = ptr::with_exposed_provenance(mark[1]);
            }
        }
        Self { info, visits }
    }

    /// What tells copies of the library apart.
    fn this_copy() -> *const c_void {
        (&raw const SIGNALS).cast()
    }

    /// How often this copy has handed it on.
    fn count(&self) -> usize {
        let mut count = 0;
        let mut visit = self.visits;
        // SAFETY: a visit is in the frame of a caller of ours.
        while let Some(now) = unsafe { visit.as_ref() } {
            count += usize::from(now.copy == Self::this_copy());
            visit = now.before;
        }
        count
    }

    /// Call somebody with an `info` that tells of this visit.
    fn pass_on(&self, call: impl FnOnce(*mut siginfo_t)) {
        if !is_near(self.info) {
            return call(self.info);
        }
        let visit = Visit {
            copy: Self::this_copy(),
            before: self.visits,
        };
        // SAFETY: as in `new`, and room for the mark in a copy of ours.
        unsafe {
            let mut info = *self.info;
            let at = &raw mut info;
            let mark = [MARK ^ at.addr(), (&raw const visit).expose_provenance()];
            at.cast::<[usize; WORDS]>()
                .byte_add(AT * size_of::<usize>())
                .write(mark);
            call(at);
            // It ends with this call.
            at.cast::<[usize; WORDS]>()
                .byte_add(AT * size_of::<usize>())
                .write([0; WORDS]);
        }
    }
}
