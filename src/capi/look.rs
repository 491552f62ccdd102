// SPDX-License-Identifier: GPL-3.0-or-later
//! Looking in: what the jobs and threads of a pool do.

use libc::{c_char, c_void};

use super::call::*;
use crate::abi::_ns_result_t as R;
use crate::abi::*;
use crate::log::log;
use crate::pool::report::Dumped;

/// Report what each job and each thread of a pool is doing, in lines of text for people: one line for
/// each job that is armed, in the queue of its group, or running, and one with the lengths of the queues.
/// The line of a job has its address, its flags, its descriptor or signal, what it is doing, how much
/// time it has left, for how long it has been running and in which thread, its callback by name (where
/// the dynamic linker knows one: link the program with -rdynamic), its data, and its group. The form of
/// the lines may change.
///
/// The pool goes on meanwhile. The loop collects all lines, some thousand jobs in each turn, before the
/// first is passed to `line`. If there are more jobs, one that is armed again meanwhile may be missing.
/// Jobs in the queue of the workers, and run-now jobs that wait for the loop, are only counted, unless
/// they are in groups.
///
/// If the loop does not answer within a second, the last line says in which callback it is, and for how
/// long. Other lines then say what the workers are doing.
///
/// Any thread, callbacks included; in the loop it answers at once. If several threads call this at the
/// same time, they take turns. It works after the shutdown too.
///
/// @param tp the pool
/// @param line called with each line, without a newline at its end, in the calling thread, when the call
/// has nothing more to do with the pool; the text is valid during the call
/// @param arg the first argument of `line`
/// @return NS_SUCCESS; NS_TIMEOUT if the loop did not answer; NS_ALLOCATION_FAILURE, and `line` was not
/// called; NS_SHUTDOWN in a forked child; NS_INVALID_REQUEST if `tp` or `line` is NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_thrpool_dump(
    tp: *mut ns_thrpool_t,
    line: Option<unsafe extern "C" fn(arg: *mut c_void, text: *const c_char)>,
    arg: *mut c_void,
) -> ns_result_t {
    const NAME: &str = "ns_thrpool_dump";
    let call = |pool: Option<&crate::pool::Pool>| {
        let Some(pool) = pool else {
            return refuse(None, NAME, "tp is NULL");
        };
        let Some(line) = line else {
            return refuse(Some(pool), NAME, "line is NULL");
        };
        if pool.shared.is_forked() {
            return forked(&pool.shared, NAME);
        }
        // Copy the logger: `line` may destroy the pool.
        let logger = pool.shared.logger;
        // SAFETY: the application's function, with its argument, and a text that stays meanwhile.
        match pool.dump(|text| unsafe { line(arg, text.as_ptr()) }) {
            Dumped::All => SUCCESS,
            Dumped::TimedOut => R::NS_TIMEOUT as ns_result_t,
            Dumped::NoMemory => {
                log!(logger, LOG_ERR, "{NAME}: no memory");
                R::NS_ALLOCATION_FAILURE as ns_result_t
            }
        }
    };
    // SAFETY: the C interface requires `tp` to be NULL or a live pool.
    unsafe { on_pool(tp, call) }
}
