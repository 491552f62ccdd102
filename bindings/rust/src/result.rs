// SPDX-License-Identifier: GPL-3.0-or-later
//! The library's results, as `Result`.

use std::ffi::CStr;
use std::sync::{MutexGuard, PoisonError};

use libc::timeval;

use crate::prelude::*;

/// What a call returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call was refused: the library's results but `NS_SUCCESS`, under its names and numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Error {
    /// The pool is shutting down, or has ended, or belongs to the parent of this process.
    Shutdown = 1,
    /// There is no memory.
    AllocationFailure,
    /// An argument is wrong, and the log says which.
    InvalidRequest,
    /// The job, group or pool is not in a state that allows this call.
    InvalidState,
    /// One of the pool's own threads waited for the pool.
    ThreadFailure,
    /// The job is finished with, or the group is cancelled.
    Deleting,
    /// The time is up.
    Timeout,
    /// A run had begun on another thread.
    Running,
    /// Too many jobs wait already.
    Overloaded,
}

impl Error {
    #[rustfmt::skip]
    const ALL: [Error; 9] = [
        Error::Shutdown, Error::AllocationFailure, Error::InvalidRequest, Error::InvalidState, Error::ThreadFailure,
        Error::Deleting, Error::Timeout, Error::Running, Error::Overloaded,
    ];
}

/// With its name in C: `NS_SHUTDOWN: ...`.
impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let code = *self as ns_result_t;
        // SAFETY: the library returns static strings.
        let text = unsafe { [ns_result_name(code), ns_result_message(code)].map(|text| CStr::from_ptr(text)) };
        write!(f, "{}: {}", text[0].to_string_lossy(), text[1].to_string_lossy())
    }
}

impl std::error::Error for Error {}

/// A result of the library's. An unknown one, of a later version, counts as `InvalidState`.
pub(crate) fn check(code: ns_result_t) -> Result<()> {
    if code == 0 { Ok(()) } else { Err(*Error::ALL.get(code as usize - 1).unwrap_or(&Error::InvalidState)) }
}

/// A time for C: rounded up, and what is longer than C's time is as good as for ever.
pub(crate) fn c_time(time: Duration) -> timeval {
    let us = time.as_nanos().div_ceil(1000);
    timeval {
        tv_sec: (us / 1_000_000).try_into().unwrap_or(libc::time_t::MAX),
        tv_usec: (us % 1_000_000) as libc::suseconds_t,
    }
}

/// Call C with a time, or with NULL for none.
pub(crate) fn c_limit<T>(limit: Option<Duration>, call: impl FnOnce(*const timeval) -> T) -> T {
    let tv = limit.map(c_time);
    call(tv.as_ref().map_or(std::ptr::null(), |tv| tv))
}

/// A pool, job or group of the library's. Any thread may name it, as long as it lives.
pub(crate) struct Raw<T>(pub(crate) *mut T);

// SAFETY: it is only handed to the library, whose functions may be called from any thread.
unsafe impl<T> Send for Raw<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Raw<T> {}

/// No lock here guards anything that a panic could leave half done.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_error_has_its_number_and_name() {
        for (i, error) in Error::ALL.into_iter().enumerate() {
            assert_eq!(check(i as ns_result_t + 1), Err(error));
            let text = error.to_string();
            let (name, message) = text.strip_prefix("NS_").unwrap().split_once(": ").unwrap();
            assert_eq!(format!("{error:?}").to_uppercase(), name.replace('_', ""));
            assert!(message.len() > 10);
        }
        assert_eq!(check(0), Ok(()));
        assert_eq!(check(1000), Err(Error::InvalidState));
    }

    #[test]
    fn times_are_rounded_up_and_bounded() {
        let split = |time| {
            let tv = c_time(time);
            (tv.tv_sec, tv.tv_usec)
        };
        assert_eq!(split(Duration::ZERO), (0, 0));
        assert_eq!(split(Duration::from_nanos(1)), (0, 1));
        assert_eq!(split(Duration::from_nanos(1_999_999_001)), (2, 0));
        assert_eq!(split(Duration::new(7, 5000)), (7, 5));
        assert_eq!(split(Duration::MAX).0, libc::time_t::MAX);
    }
}
