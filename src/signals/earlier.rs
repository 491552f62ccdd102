// SPDX-License-Identifier: GPL-3.0-or-later
//! What our handler does when no pool of this process watches the signal: what would have happened
//! without our handler.
//!
//! Our handler can run although no pool watches: in a forked child; between the end of the last
//! watch and the return of the earlier disposition; and when other code saved our handler while a
//! job watched and calls it later, as system(3), readline and a second copy of this library do.
//! There are two cases:
//!
//! * Our handler is the installed one. Then we restore the earlier disposition and act on it: the
//!   kernel performs a default action, and we call a handler as the kernel would have called it.
//! * Another handler, which was installed after ours, calls ours as its predecessor. Then we act on
//!   the disposition *below* ours. That is never the caller itself, even if a later job found the
//!   caller in place and saved it as the earlier disposition.
//!
//! Two handlers can each have saved the other. A handler that passes `info` on, as another copy of
//! this library does, is recognised when the signal comes back: see [`Delivery`].
//!
//! Everything here is async-signal-safe.

use std::mem;
use std::ptr;

use libc::{c_int, c_void, siginfo_t, sigset_t};

use super::disposition::{Disposition, Handler, put_back};
use super::era::notify_pools;
use super::known::SIGNALS;
use super::numbers::NUMBERS;
#[cfg(target_os = "linux")]
use super::numbers::can_catch;
use crate::perturb::perturb_in_handler;

/// The system or another handler has called our handler, and no pool of this process watches.
pub(super) fn act(signum: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let Some(known) = SIGNALS[signum as usize].read() else {
        return;
    };
    let delivery = Delivery::new(info);
    let again = delivery.count();
    if again > 1 {
        // The disposition below ours has had its turn as well.
        return;
    }
    let installed = Disposition::of(signum).is_some_and(|now| now.is_ours());
    if again == 1 || !installed {
        return call_or_default(signum, context, &known.below, false, &delivery);
    }
    perturb_in_handler("nobody watches, and the earlier disposition is not back");
    if put_back(signum, &known.earlier.as_entered()) && notify_pools(signum) {
        // A pool has begun to watch since. Either its watch found the restored disposition and
        // replaced it, or it installed ours before we restored the earlier one. In both cases ours
        // belongs there.
        Disposition::ours().set(signum);
        return;
    }
    call_or_default(signum, context, &known.earlier, true, &delivery);
}

/// Act on `disposition`. `in_place`: it is the disposition that is installed now.
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

/// Make the kernel perform the default action.
fn default_action(signum: c_int, in_place: bool) {
    if [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH].contains(&signum) {
        return;
    }
    let replaced = if in_place {
        None
    } else {
        Disposition::default().set(signum)
    };
    // SAFETY: the calls use sets that we own and send a signal to this thread. The system calls are
    // raw because some C libraries cache the thread's number, which differs in a child of vfork.
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
        // Still running: either the default action stopped the process and it was continued, or
        // another thread has just installed a handler.
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut());
    }
    if let Some(replaced) = replaced {
        let now = replaced.set(signum);
        if let Some(now) = now.filter(|now| now.handler() != libc::SIG_DFL) {
            now.set(signum);
        }
    }
}

/// Call a handler with the mask and the arguments that the kernel would have given it.
fn call(signum: c_int, context: *mut c_void, disposition: &Disposition, delivery: &Delivery) {
    let action = disposition.action();
    // SAFETY: the sets are ours. The system reported this function as the handler of this signal,
    // so it takes the arguments that the flags say.
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

/// Whether `at` can be an object that the kernel, or another copy of this library, put on this
/// thread's stack for this call. A caller that passes only the signal's number leaves any value in
/// the other arguments.
fn is_near<T>(at: *const T) -> bool {
    const NEAR: usize = 64 * 1024;
    let here = 0u8;
    let here = (&raw const here).addr();
    at.is_aligned() && (1..NEAR).contains(&at.addr().wrapping_sub(here))
}

/// If the kernel called our handler, all signals are blocked: set `mask` to the mask of the
/// interrupted code. If other code called it, the mask is the one that the caller wants: leave it.
fn interrupted_mask(mask: &mut sigset_t, context: *mut c_void) {
    #[cfg(target_os = "linux")]
    {
        let context: *const libc::ucontext_t = context.cast();
        // SAFETY: the call reads a set that we own.
        let blocked = |number| unsafe { libc::sigismember(mask, number) } == 1;
        let all_blocked = (1..NUMBERS as c_int).all(|number| !can_catch(number) || blocked(number));
        if all_blocked && is_near(context) {
            // The kernel's set is shorter than the C library's.
            const LENGTH: usize = NUMBERS / 8;
            // SAFETY: up to the mask, the kernel's context has the layout of the C library's.
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

/// One run of our handler for one signal, and the earlier runs that this same signal has been
/// through.
///
/// Those runs form a chain of visits on the stack. A mark in the unused end of the `info` that we
/// pass on points to the chain. The mark contains its own address, so a stale or copied mark is not
/// recognised.
struct Delivery {
    info: *mut siginfo_t,
    visits: *const Visit,
}

/// One copy of the library that has passed the signal on. All copies that use the same [`MARK`]
/// share this layout.
#[repr(C)]
struct Visit {
    copy: *const c_void,
    before: *const Visit,
}

const MARK: usize = 0x6e73_5f31_7669_7369_u64 as usize;
const WORDS: usize = 2;
/// Index of the word where the mark begins. The fields that a signal uses end long before it.
const AT: usize = size_of::<siginfo_t>() / size_of::<usize>() - WORDS;

impl Delivery {
    fn new(info: *mut siginfo_t) -> Self {
        let mut visits = ptr::null();
        if is_near(info) {
            // SAFETY: `is_near` says that `info` lies in the part of this thread's stack that our
            // callers use.
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

    /// An address that tells copies of the library apart.
    fn this_copy() -> *const c_void {
        (&raw const SIGNALS).cast()
    }

    /// How often this copy has passed the signal on.
    fn count(&self) -> usize {
        let mut count = 0;
        let mut visit = self.visits;
        // SAFETY: each visit is in the stack frame of one of our callers, which has not returned.
        while let Some(now) = unsafe { visit.as_ref() } {
            count += usize::from(now.copy == Self::this_copy());
            visit = now.before;
        }
        count
    }

    /// Call a handler with an `info` that records this visit.
    fn pass_on(&self, call: impl FnOnce(*mut siginfo_t)) {
        if !is_near(self.info) {
            return call(self.info);
        }
        let visit = Visit {
            copy: Self::this_copy(),
            before: self.visits,
        };
        // SAFETY: `info` is readable, as in `new`; the mark goes into a copy that we own and that
        // has room for it.
        unsafe {
            let mut info = *self.info;
            let at = &raw mut info;
            let mark = [MARK ^ at.addr(), (&raw const visit).expose_provenance()];
            at.cast::<[usize; WORDS]>()
                .byte_add(AT * size_of::<usize>())
                .write(mark);
            call(at);
            // The visit ends with this call: erase the mark.
            at.cast::<[usize; WORDS]>()
                .byte_add(AT * size_of::<usize>())
                .write([0; WORDS]);
        }
    }
}
