// SPDX-License-Identifier: GPL-3.0-or-later
//! Forks, in a process where no other test's thread is in a call.

mod common;

use common::*;
use nunc_stans_rs::{Error, Pool};

#[test]
fn a_forked_child_is_refused() {
    let pool = Pool::new(1).unwrap();
    // SAFETY: the child only makes calls of this crate, none of which is under way elsewhere, and ends.
    match unsafe { libc::fork() } {
        0 => {
            let refused =
                pool.run(|_| {}).err() == Some(Error::Shutdown) && pool.group(1).err() == Some(Error::Shutdown);
            drop(pool);
            // SAFETY: it ends the child.
            unsafe { libc::_exit(if refused { 7 } else { 1 }) }
        }
        child => {
            let mut status = 0;
            // SAFETY: the child is ours.
            assert_eq!(unsafe { libc::waitpid(child, &mut status, 0) }, child);
            assert!(libc::WIFEXITED(status) && libc::WEXITSTATUS(status) == 7, "{status}");
        }
    }
    let ran = Count::default();
    let seen = ran.clone();
    pool.post(move || seen.up()).unwrap();
    ran.wait(1);
}
