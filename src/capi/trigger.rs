// SPDX-License-Identifier: GPL-3.0-or-later
//! The triggers of new jobs: descriptors and times, checked.

use libc::{c_int, timeval};

use super::add::Make;
use super::call::nanoseconds;
use crate::abi::{PRFileDesc, ns_result_t};
use crate::job::{NEVER, Trigger};
use crate::nspr::{self, Unusable};
use crate::sys;

impl Make<'_> {
    /// The trigger of a job for an NSPR descriptor.
    ///
    /// # Safety
    /// `fd` is NULL or an open NSPR descriptor.
    pub(super) unsafe fn nspr_trigger(
        &self,
        fd: *mut PRFileDesc,
        timeout: u64,
    ) -> Result<Trigger, ns_result_t> {
        if fd.is_null() {
            return Err(self.refuse("fd is NULL"));
        }
        // SAFETY: guaranteed by the caller.
        let native = unsafe { nspr::native_handle(fd) }.map_err(|why| {
            self.refuse(match why {
                Unusable::NoNspr => "fd is an NSPR descriptor, but NSPR is not in this process",
                Unusable::NotOpen => "fd does not refer to an open descriptor",
            })
        })?;
        Ok(Trigger::Io {
            fd: native,
            prfd: fd,
            timeout,
        })
    }

    /// The trigger of a job for a plain descriptor.
    pub(super) fn fd_trigger(&self, fd: c_int, timeout: u64) -> Result<Trigger, ns_result_t> {
        if !sys::is_open(fd) {
            return Err(self.refuse("fd is not an open descriptor"));
        }
        Ok(Trigger::Io {
            fd,
            prfd: std::ptr::null_mut(),
            timeout,
        })
    }

    /// Converts a timeout to nanoseconds; zero means no timeout.
    ///
    /// # Safety
    /// `tv` is NULL or a valid time.
    pub(super) unsafe fn timeout_of(&self, tv: *const timeval) -> Result<u64, ns_result_t> {
        // SAFETY: guaranteed by the caller.
        match unsafe { nanoseconds(tv) } {
            Ok(0) => Ok(NEVER),
            Ok(time) => Ok(time),
            Err(why) => Err(self.refuse(why)),
        }
    }
}
