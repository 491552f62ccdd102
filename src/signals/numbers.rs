// SPDX-License-Identifier: GPL-3.0-or-later
//! The signal numbers, and which signals can be watched.

use std::mem;

use libc::c_int;

/// Signal numbers are below this.
pub(super) const NUMBERS: usize = 65;

/// Whether `signum` can be watched. It cannot if it cannot be caught, if the running code itself
/// raises it and would raise it again when the handler returns, or if the C library reserves it.
pub(crate) fn can_catch(signum: c_int) -> bool {
    const FORBIDDEN: &[c_int] = &[
        libc::SIGKILL,
        libc::SIGSTOP,
        libc::SIGILL,
        libc::SIGFPE,
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGTRAP,
        libc::SIGSYS,
        #[cfg(any(
            target_vendor = "apple",
            target_os = "freebsd",
            target_os = "netbsd",
            target_os = "openbsd"
        ))]
        libc::SIGEMT,
    ];
    // SAFETY: the set is ours, and sigaddset checks the number.
    let exists = unsafe {
        let mut set = mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signum) == 0
    };
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let exists = exists && !(32..libc::SIGRTMIN()).contains(&signum);
    exists && (1..NUMBERS as c_int).contains(&signum) && !FORBIDDEN.contains(&signum)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no signal sets")]
    fn signals_that_cannot_be_watched() {
        for signum in [
            -1,
            0,
            9,
            19,
            libc::SIGILL,
            libc::SIGFPE,
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGTRAP,
            libc::SIGSYS,
            32,
            33,
            65,
            1000,
            c_int::MIN,
            c_int::MAX,
        ] {
            assert!(!can_catch(signum), "{signum}");
        }
        for signum in [
            libc::SIGTERM,
            libc::SIGCHLD,
            libc::SIGRTMIN(),
            libc::SIGRTMAX(),
        ] {
            assert!(can_catch(signum), "{signum}");
        }
    }
}
