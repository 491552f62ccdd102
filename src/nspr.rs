// SPDX-License-Identifier: GPL-3.0-or-later
//! NSPR, if the process has it.
//!
//! Nothing here links or loads NSPR. We look up its two functions in what the process has already
//! loaded: first in the global scope, then in a `libnspr4` that other code loaded privately. A
//! success is cached for ever; a failure is not, because NSPR may be loaded later.

use std::mem::ManuallyDrop;
use std::sync::OnceLock;

use libc::c_int;
use libloading::os::unix::Library;

use crate::abi::PRFileDesc;

/// Returns a `PROsfd`, which is an int wherever descriptors are ints.
type NativeHandle = unsafe extern "C" fn(*mut PRFileDesc) -> c_int;
type Close = unsafe extern "C" fn(*mut PRFileDesc) -> c_int;

#[derive(Clone, Copy)]
struct Nspr {
    native_handle: NativeHandle,
    close: Close,
}

static FOUND: OnceLock<Nspr> = OnceLock::new();

#[cfg(target_os = "macos")]
const FILE: &str = "libnspr4.dylib";
#[cfg(not(target_os = "macos"))]
const FILE: &str = "libnspr4.so";

/// `RTLD_NOLOAD`, which libloading does not name.
const NOLOAD: c_int = libc::RTLD_NOLOAD;

fn look_in(library: Library) -> Option<Nspr> {
    // Never closed: the global scope cannot be, and a private libnspr4 must stay loaded while we
    // have its functions.
    let library = ManuallyDrop::new(library);
    // A symbol may be there without an address, which dlsym does not call an error.
    // SAFETY: the types are those of NSPR's own declarations.
    unsafe {
        Some(Nspr {
            native_handle: *library
                .get::<Option<NativeHandle>>(b"PR_FileDesc2NativeHandle\0")
                .ok()?
                .lift_option()?,
            close: *library
                .get::<Option<Close>>(b"PR_Close\0")
                .ok()?
                .lift_option()?,
        })
    }
}

fn find() -> Option<Nspr> {
    if let Some(found) = FOUND.get() {
        return Some(*found);
    }
    // `Library::this` would not search libraries that were loaded privately together with us;
    // RTLD_DEFAULT does.
    // SAFETY: RTLD_DEFAULT is a pseudo handle that dlsym accepts, and it is never closed.
    let global = unsafe { Library::from_raw(libc::RTLD_DEFAULT) };
    let found = look_in(global).or_else(|| {
        // SAFETY: with NOLOAD, the call runs no initialiser.
        let private = unsafe { Library::open(Some(FILE), libc::RTLD_NOW | NOLOAD) }.ok()?;
        look_in(private)
    })?;
    Some(*FOUND.get_or_init(|| found))
}

/// Why an NSPR descriptor cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    /// The process has no NSPR.
    NoNspr,
    /// It does not stand for an open system descriptor.
    NotOpen,
}

/// The system descriptor behind `prfd`.
///
/// # Safety
/// `prfd` is an open NSPR descriptor, and not NULL.
pub(crate) unsafe fn native_handle(prfd: *mut PRFileDesc) -> Result<c_int, Unusable> {
    let nspr = find().ok_or(Unusable::NoNspr)?;
    // SAFETY: the caller promises that `prfd` is an open NSPR descriptor.
    let fd = unsafe { (nspr.native_handle)(prfd) };
    if crate::sys::is_open(fd) {
        Ok(fd)
    } else {
        Err(Unusable::NotOpen)
    }
}

/// Close `prfd` through its layers. That also closes the system descriptor, so the caller must not
/// close it again.
///
/// # Safety
/// `prfd` went through [`native_handle`], and was not closed since.
pub(crate) unsafe fn close(prfd: *mut PRFileDesc) {
    if let Some(nspr) = find() {
        // SAFETY: the caller promises that `prfd` is open.
        unsafe { (nspr.close)(prfd) };
    }
}
