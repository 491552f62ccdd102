// SPDX-License-Identifier: GPL-3.0-or-later
//! The threads of a pool: how they are made, and what each does first and last.

use std::ffi::CStr;
use std::mem;

use libc::{c_int, c_void, size_t};

use crate::sys::{self, CancelGuard};

/// What a thread of the pool does.
pub(super) type Body = unsafe extern "C" fn(*mut c_void);

unsafe extern "C" {
    fn nunc_stans_shim_thread(body: Body, arg: *mut c_void);
    fn nunc_stans_shim_join(thread: libc::pthread_t, until: i64, now: i64) -> c_int;
}

/// The last time that fits in the numbers of [`nunc_stans_shim_join`].
const FAR: u64 = i64::MAX as u64;

/// Joins a thread until the monotonic clock reaches `deadline`, in nanoseconds: an errno, ETIMEDOUT
/// among them. May be late where the system has no such call.
///
/// # Safety
/// The thread is to be joined.
pub(super) unsafe fn join_by(thread: libc::pthread_t, deadline: u64) -> c_int {
    loop {
        let now = sys::now() as i64;
        // SAFETY: guaranteed by the caller.
        match unsafe { nunc_stans_shim_join(thread, deadline.min(FAR) as i64, now) } {
            // By another clock, perhaps, which was set meanwhile.
            libc::ETIMEDOUT if sys::now() < deadline => {}
            errno => return errno,
        }
    }
}

/// No stack is smaller, even where the system has smaller ones, as musl has: the frame of a signal
/// handler alone takes several kilobytes.
const LEAST_STACK: size_t = 16 * 1024;

/// The attributes of the threads of a pool.
pub(super) struct Attributes(pub(super) libc::pthread_attr_t);

impl Attributes {
    /// Attributes with a stack of `stacksize` bytes, or of the default size if that is 0.
    pub(super) fn new(stacksize: size_t) -> Result<Self, c_int> {
        // SAFETY: `pthread_attr_init` initialises the zeroed memory. If it fails, the value is
        // forgotten and `Drop` does not see it.
        let mut attributes = unsafe {
            let mut attributes = Self(mem::zeroed());
            match libc::pthread_attr_init(&mut attributes.0) {
                0 => attributes,
                errno => {
                    mem::forget(attributes);
                    return Err(errno);
                }
            }
        };
        if stacksize != 0 {
            if stacksize < LEAST_STACK {
                return Err(libc::EINVAL);
            }
            // SAFETY: `pthread_attr_init` has succeeded.
            match unsafe { libc::pthread_attr_setstacksize(&mut attributes.0, stacksize) } {
                0 => {}
                errno => return Err(errno),
            }
        }
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: `new` has initialised the attributes.
        unsafe { libc::pthread_attr_destroy(&mut self.0) };
    }
}

fn name_thread(name: &CStr) {
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    // SAFETY: the thread is the caller, and the name is a C string of a length that the system
    // takes.
    unsafe {
        libc::pthread_setname_np(libc::pthread_self(), name.as_ptr())
    };
    #[cfg(target_os = "macos")]
    // SAFETY: the name is a C string of a length that the system takes.
    unsafe {
        libc::pthread_setname_np(name.as_ptr())
    };
}

/// The start of every thread of a pool: disables cancellation, names the thread, and calls `body` with
/// `pool`.
pub(super) fn enter(name: &CStr, body: Body, pool: *mut c_void) {
    // Cancellation stays disabled: the guard is never dropped.
    mem::forget(CancelGuard::new());
    name_thread(name);
    // SAFETY: `body` expects the pool pointer that it gets here.
    unsafe { nunc_stans_shim_thread(body, pool) };
}

/// Calls `call` in a thread of the application's. If a callback ends the thread there, the process ends, as
/// in a thread of the pool.
pub(super) fn guarded<T>(call: impl FnOnce() -> T) -> T {
    struct Call<F, T> {
        call: Option<F>,
        result: Option<T>,
    }
    unsafe extern "C" fn body<F: FnOnce() -> T, T>(at: *mut c_void) {
        // SAFETY: the pointer that `guarded` passes, to a local variable of its own.
        let this = unsafe { &mut *at.cast::<Call<F, T>>() };
        this.result = this.call.take().map(|call| call());
    }
    fn body_of<F: FnOnce() -> T, T>(_: &Call<F, T>) -> Body {
        body::<F, T>
    }
    let mut this = Call {
        call: Some(call),
        result: None,
    };
    let body = body_of(&this);
    // SAFETY: `body` is made for this pointer.
    unsafe { nunc_stans_shim_thread(body, (&raw mut this).cast()) };
    match this.result {
        Some(result) => result,
        None => unreachable!("the body was called"),
    }
}
