// SPDX-License-Identifier: GPL-3.0-or-later
//! Loading a framework's library when a pool asks for it.
//!
//! The library is loaded privately, so its functions stand in for none of the application's. It
//! binds to its own functions first (RTLD_DEEPBIND): some libraries have unversioned symbols, and
//! an application may have functions of the same name. It stays loaded. A failure is not
//! remembered: the library may be installed later.

use std::io;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicU32, Ordering};

use libc::c_int;
use libloading::os::unix::Library;

use crate::fork;
use crate::sys;

/// A loaded library.
pub(super) struct Loaded {
    name: &'static str,
    /// Never closed: pools keep its functions.
    library: ManuallyDrop<Library>,
}

impl Loaded {
    /// Load `name`, or say why it cannot be loaded.
    pub(super) fn open(name: &'static str) -> io::Result<Self> {
        // SAFETY: the library's initialisers do nothing but what a program that is linked with it
        // gets too.
        match unsafe { Library::open(Some(name), libc::RTLD_NOW | libc::RTLD_LOCAL | deep()) } {
            Ok(library) => Ok(Self {
                name,
                library: ManuallyDrop::new(library),
            }),
            // The dynamic linker's message begins with the name.
            Err(error) => Err(io::Error::other(format!("cannot load {name}: {error}"))),
        }
    }

    /// The function `name`, which ends in a NUL.
    ///
    /// # Safety
    /// `F` is its type.
    pub(super) unsafe fn function<F: Copy>(&self, name: &str) -> io::Result<F> {
        // SAFETY: guaranteed by the caller.
        let found = unsafe { self.library.get::<F>(name.as_bytes()) };
        found.map(|function| *function).map_err(|_| {
            let function = name.trim_end_matches('\0');
            io::Error::other(format!("{} has no function {function}", self.name))
        })
    }
}

/// `RTLD_DEEPBIND`, where there is such a flag; but not beside a sanitizer, whose run-time library
/// ends the process then.
fn deep() -> c_int {
    #[cfg(target_env = "gnu")]
    {
        let sanitized = [c"__asan_init", c"__tsan_init"].iter().any(|name| {
            // SAFETY: the name is a string.
            !unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }.is_null()
        });
        if sanitized { 0 } else { libc::RTLD_DEEPBIND }
    }
    #[cfg(not(target_env = "gnu"))]
    0
}

/// The generation of the process in which a thread holds the turn, or 0. A thread that has forked
/// does not find it held by one that exists in the parent only.
static HOLDER: AtomicU32 = AtomicU32::new(0);

/// One thread at a time loads a library or makes a context: the frameworks' own preparations are
/// not safe for threads. It is a turn of a millisecond at most, so a thread that waits for it
/// sleeps for that long.
pub(super) struct Turn(u32);

impl Turn {
    /// Wait for the turn.
    pub(super) fn take() -> Self {
        let own = fork::generation();
        loop {
            let holder = HOLDER.load(Ordering::Relaxed);
            let free = holder == 0 || fork::is_over(holder);
            let (success, failure) = (Ordering::Acquire, Ordering::Relaxed);
            if free
                && HOLDER
                    .compare_exchange(holder, own, success, failure)
                    .is_ok()
            {
                return Self(own);
            }
            sys::sleep(1);
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let (success, failure) = (Ordering::Release, Ordering::Relaxed);
        // An error means that this is a child, and another thread of it has the turn.
        let _ = HOLDER.compare_exchange(self.0, 0, success, failure);
    }
}
