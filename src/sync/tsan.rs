// SPDX-License-Identifier: GPL-3.0-or-later
//! Showing ThreadSanitizer who hands what to whom.
//!
//! An application may be instrumented while the library that it links is not. Then the sanitizer
//! does not see the library's atomics, and takes everything that is handed over through them (from
//! who arms a job to its callback, from the callback to who waited for it) for a race. So each such
//! step says so by the sanitizer's own functions, if the process has them: one comparison where it
//! has not.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the process is under ThreadSanitizer.
static ACTIVE: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    safe fn nunc_stans_shim_has_tsan() -> std::ffi::c_int;
    safe fn nunc_stans_shim_tsan_release(at: *mut c_void);
    safe fn nunc_stans_shim_tsan_acquire(at: *mut c_void);
}

/// Looks once, when the library is loaded. The sanitizer is part of the program, so it is there
/// before.
#[cfg(not(miri))]
#[used]
#[cfg_attr(not(target_os = "macos"), unsafe(link_section = ".init_array"))]
#[cfg_attr(target_os = "macos", unsafe(link_section = "__DATA,__mod_init_func"))]
static LOOK: extern "C" fn() = look;

#[cfg_attr(miri, expect(dead_code, reason = "Miri does not call C"))]
extern "C" fn look() {
    ACTIVE.store(nunc_stans_shim_has_tsan() != 0, Ordering::Relaxed);
}

/// What the caller has written is for whoever takes over at the same address.
#[inline(always)]
pub(crate) fn hand_over<T>(at: *const T) {
    if ACTIVE.load(Ordering::Relaxed) {
        release(at.cast());
    }
}

/// What was written by those who handed over at this address is for the caller.
#[inline(always)]
pub(crate) fn take_over<T>(at: *const T) {
    if ACTIVE.load(Ordering::Relaxed) {
        acquire(at.cast());
    }
}

/// `plain`, or under the sanitizer `shown`, out of the way of what is only a load or two.
#[inline(always)]
pub(crate) fn unless_instrumented<T>(plain: impl FnOnce() -> T, shown: impl FnOnce() -> T) -> T {
    #[cold]
    #[inline(never)]
    fn aside<T>(shown: impl FnOnce() -> T) -> T {
        shown()
    }
    if ACTIVE.load(Ordering::Relaxed) {
        aside(shown)
    } else {
        plain()
    }
}

#[cold]
#[inline(never)]
fn release(at: *const c_void) {
    nunc_stans_shim_tsan_release(at.cast_mut());
}

#[cold]
#[inline(never)]
fn acquire(at: *const c_void) {
    nunc_stans_shim_tsan_acquire(at.cast_mut());
}
