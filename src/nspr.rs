// SPDX-License-Identifier: GPL-3.0-or-later
//! NSPR, if the process has it.
//!
//! Nothing here links or loads NSPR. Its two functions are looked for in what the process has
//! loaded already: in the global scope, then in a `libnspr4` that somebody loaded privately. A
//! find is kept for ever, a miss is not: NSPR may be loaded later.

use std::mem::ManuallyDrop;
use std::sync::OnceLock;

use libc::c_int;
use libloading::os::unix::Library;

use crate::abi::PRFileDesc;

/// Returns a `PROsfd`, an int wherever descriptors are ints.
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
    // Never closed: the global scope cannot be, and a private libnspr4 is to stay while we have
    // its functions.
    let library = ManuallyDrop::new(library);
    // SAFETY: NSPR's own declarations of the two.
    unsafe {
        Some(Nspr {
            native_handle: *library
                .get::<NativeHandle>(c"PR_FileDesc2NativeHandle")
                .ok()?,
            close: *library.get::<Close>(c"PR_Close").ok()?,
        })
    }
}

fn find() -> Option<Nspr> {
    if let Some(found) = FOUND.get() {
        return Some(*found);
    }
    // `Library::this` would not see libraries that were loaded privately together with us;
    // RTLD_DEFAULT does.
    // SAFETY: a pseudo handle that dlsym takes.
    let global = unsafe { Library::from_raw(libc::RTLD_DEFAULT) };
    let found = look_in(global).or_else(|| {
        // SAFETY: NOLOAD runs no initialiser.
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
    /// It stands for no open descriptor of the system.
    NotOpen,
}

/// The system's descriptor behind `prfd`, which is not NULL.
///
/// # Safety
/// `prfd` is an open NSPR descriptor.
pub(crate) unsafe fn native_handle(prfd: *mut PRFileDesc) -> Result<c_int, Unusable> {
    let nspr = find().ok_or(Unusable::NoNspr)?;
    // SAFETY: by the caller's promise.
    let fd = unsafe { (nspr.native_handle)(prfd) };
    if crate::sys::is_open(fd) {
        Ok(fd)
    } else {
        Err(Unusable::NotOpen)
    }
}

/// Close `prfd` through its layers. Once, instead of closing the system's descriptor.
///
/// # Safety
/// `prfd` went through [`native_handle`], and nobody closed it since.
pub(crate) unsafe fn close(prfd: *mut PRFileDesc) {
    if let Some(nspr) = find() {
        // SAFETY: by the caller's promise.
        unsafe { (nspr.close)(prfd) };
    }
}
