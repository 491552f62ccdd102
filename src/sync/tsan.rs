// SPDX-License-Identifier: GPL-3.0-or-later
//! Annotations that show ThreadSanitizer our happens-before edges.
//!
//! An application may be instrumented while the library that it links is not. Then the sanitizer
//! does not see the library's atomics. It would report a race for all data that is passed through
//! them: from the thread that arms a job to its callback, and from the callback to the thread that
//! waited for it. So each such step calls the sanitizer's own functions if the process has them. If
//! it has not, the cost is one comparison.

use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the process runs under ThreadSanitizer.
static ACTIVE: AtomicBool = AtomicBool::new(false);

unsafe extern "C" {
    safe fn nunc_stans_shim_has_tsan() -> std::ffi::c_int;
    safe fn nunc_stans_shim_tsan_release(at: *mut c_void);
    safe fn nunc_stans_shim_tsan_acquire(at: *mut c_void);
}

/// Runs once, when the library is loaded. The sanitizer is part of the program, so it is loaded
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

/// Release: what the caller has written happens before every later [`tsan_acquire`] at the same
/// address.
#[inline(always)]
pub(crate) fn tsan_release<T>(at: *const T) {
    if ACTIVE.load(Ordering::Relaxed) {
        release(at.cast());
    }
}

/// Acquire: what was written before each earlier [`tsan_release`] at this address happens before
/// what the caller does next.
#[inline(always)]
pub(crate) fn tsan_acquire<T>(at: *const T) {
    if ACTIVE.load(Ordering::Relaxed) {
        acquire(at.cast());
    }
}

/// Run `shown` under the sanitizer, else `plain`. `shown` is out of line, so that it does not slow
/// down a `plain` that is only a load or two.
#[inline(always)]
pub(crate) fn unless_tsan<T>(plain: impl FnOnce() -> T, shown: impl FnOnce() -> T) -> T {
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
