// SPDX-License-Identifier: GPL-3.0-or-later
//! The names of functions, as the dynamic linker knows them, and of fields, as debuggers look for them.

use std::ffi::CStr;
use std::fmt;
use std::mem::MaybeUninit;
use std::ptr;

use libc::{c_char, c_void};

/// A field of a type, for debuggers: the names of both with a dot in between, the offset, the size. Without
/// a dot, a number.
pub(crate) type Field = (&'static str, usize, usize);

/// A function as the reader of a log can find it: by name if the dynamic linker knows it, else by
/// its offset in its file, which debuggers accept.
pub(crate) struct Symbol(pub(crate) *mut c_void);

impl Symbol {
    /// What the dynamic linker says of the address.
    fn info(&self) -> Option<libc::Dl_info> {
        let mut info = MaybeUninit::<libc::Dl_info>::uninit();
        // SAFETY: dladdr accepts any address; `info` is ours.
        if unsafe { libc::dladdr(self.0, info.as_mut_ptr()) } == 0 {
            return None;
        }
        // SAFETY: dladdr has filled `info` in.
        Some(unsafe { info.assume_init() })
    }

    /// The name, a string that stays as long as the file that has the function is loaded; null if the
    /// dynamic linker knows none.
    pub(crate) fn name(&self) -> *const c_char {
        match self.info() {
            Some(info) if info.dli_saddr == self.0 => info.dli_sname,
            _ => ptr::null(),
        }
    }
}

impl fmt::Display for Symbol {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(info) = self.info() else {
            return write!(out, "{:p}", self.0);
        };
        // SAFETY: the strings stay as long as the file is loaded, and the file holds the function.
        let (name, file) = unsafe { (text(info.dli_sname), text(info.dli_fname)) };
        if !name.is_empty() && info.dli_saddr == self.0 {
            return write!(out, "{name:.120} ({:p})", self.0);
        }
        let file = file.rsplit('/').next().unwrap_or_default();
        let offset = (self.0 as usize).wrapping_sub(info.dli_fbase as usize);
        write!(out, "{:p} ({file:.60}+{offset:#x})", self.0)
    }
}

/// # Safety
/// `at` is NULL or a string that lives as long as the result.
unsafe fn text<'a>(at: *const c_char) -> &'a str {
    if at.is_null() {
        return "";
    }
    // SAFETY: guaranteed by the caller.
    unsafe { CStr::from_ptr(at) }.to_str().unwrap_or_default()
}
