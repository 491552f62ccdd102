// SPDX-License-Identifier: GPL-3.0-or-later
//! Loading a framework's library when a pool asks for it.
//!
//! The library is loaded privately, so its functions stand in for none of the application's. It
//! binds to its own functions first (RTLD_DEEPBIND): some libraries have unversioned symbols, and
//! an application may have functions of the same name. It stays loaded. A failure is not
//! remembered: the library may be installed later.

use std::ffi::CStr;
use std::io;
use std::mem::ManuallyDrop;

use libc::c_int;
use libloading::os::unix::{Library, Symbol};

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

    /// The function `name`.
    ///
    /// # Safety
    /// `F` is its type, a pointer to a function.
    pub(super) unsafe fn function<F: Copy>(&self, name: &CStr) -> io::Result<F> {
        let bytes = name.to_bytes_with_nul();
        // A library may have the symbol without an address, which dlsym does not call an error.
        // SAFETY: the caller says that `F` is the type of a pointer to the function. Such a pointer is never
        // null, so the option has its size, and is `None` where the address is null.
        let symbol = unsafe { self.library.get::<Option<F>>(bytes) };
        let function = symbol.ok().and_then(Symbol::lift_option);
        function.map(|function| *function).ok_or_else(|| {
            let function = name.to_string_lossy();
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
