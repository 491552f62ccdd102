// SPDX-License-Identifier: GPL-3.0-or-later
//! The functions of an event framework of the application's own.

use std::ffi::CStr;
use std::mem::{MaybeUninit, offset_of};
use std::ptr;

use libc::{c_int, c_void};

use crate::abi::{ns_framework, ns_framework_event};

/// The functions, all of which are there but the last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Functions {
    pub(super) arg: *mut c_void,
    pub(super) open: unsafe extern "C" fn(arg: *mut c_void) -> *mut c_void,
    pub(super) watch: unsafe extern "C" fn(
        fw: *mut c_void,
        fd: c_int,
        key: u64,
        interest: c_int,
        flags: c_int,
    ) -> c_int,
    pub(super) unwatch: unsafe extern "C" fn(fw: *mut c_void, fd: c_int) -> c_int,
    pub(super) wait: unsafe extern "C" fn(
        fw: *mut c_void,
        events: *mut ns_framework_event,
        max: c_int,
        until: i64,
    ) -> c_int,
    pub(super) wait_fd: Option<unsafe extern "C" fn(fw: *mut c_void) -> c_int>,
    pub(super) close: unsafe extern "C" fn(fw: *mut c_void, in_child: c_int),
}

impl Functions {
    /// The functions of `given`, and its name; or what is wrong with it. The struct has had one
    /// version; a larger one is taken if it says nothing in the fields that are new.
    ///
    /// # Safety
    /// `given` points at as many bytes as its `size` says, and `name` is NULL or a string that is
    /// valid for `'a`.
    pub(crate) unsafe fn new<'a>(
        given: *const ns_framework,
    ) -> Result<(Self, &'a CStr), &'static str> {
        const KNOWN: usize = size_of::<ns_framework>();
        /// More than any version will have.
        const LARGEST: usize = 4096;
        // SAFETY: guaranteed by the caller; the size comes first.
        let size = unsafe { (&raw const (*given).size).read() };
        if !(KNOWN..=LARGEST).contains(&size) {
            return Err("custom's size is that of no version");
        }
        let from = given.cast::<u8>();
        // SAFETY: guaranteed by the caller.
        if (KNOWN..size).any(|at| unsafe { from.add(at).read() } != 0) {
            return Err("custom has members set that this version does not know");
        }
        let mut copy = MaybeUninit::<ns_framework>::uninit();
        // SAFETY: both have so many bytes, and what a program writes there is a value.
        let given = unsafe {
            ptr::copy_nonoverlapping(from, copy.as_mut_ptr().cast(), KNOWN);
            copy.assume_init()
        };
        const { assert!(offset_of!(ns_framework, size) == 0) };
        if given.name.is_null() {
            return Err("custom has no name");
        }
        // SAFETY: guaranteed by the caller.
        let name = unsafe { CStr::from_ptr(given.name) };
        if name.is_empty() {
            return Err("custom has no name");
        }
        Ok((
            Self {
                arg: given.arg,
                open: given.open.ok_or("custom has no open")?,
                watch: given.watch.ok_or("custom has no watch")?,
                unwatch: given.unwatch.ok_or("custom has no unwatch")?,
                wait: given.wait.ok_or("custom has no wait")?,
                wait_fd: given.wait_fd,
                close: given.close.ok_or("custom has no close")?,
            },
            name,
        ))
    }
}
