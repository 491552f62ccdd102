// SPDX-License-Identifier: GPL-3.0-or-later
//! The handler of all watched signals.

use libc::{c_int, c_void, siginfo_t};

use super::earlier;
use super::era::notify_pools;
use crate::sys::ErrnoGuard;

/// The handler of every watched signal. All signals are blocked while it runs.
pub(super) extern "C" fn handler(signum: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let _errno = ErrnoGuard::new();
    if !notify_pools(signum) {
        earlier::act(signum, info, context);
    }
}
