// SPDX-License-Identifier: GPL-3.0-or-later
//! The loop in threads of the application's.

use libc::c_int;

use super::call::*;
use crate::abi::_ns_result_t as R;
use crate::abi::*;
use crate::event::Turn;
use crate::log::log;
use crate::pool::{Pool, Waited};
use crate::shared::caller::NotInside;
use crate::sys;

/// Act as the loop of a pool that was made with NS_POOL_CALLER_LOOP, until the pool has stopped: somebody
/// has called `ns_thrpool_shutdown`, every worker has left, and from now on no job's callback runs. Any
/// thread may call this, except one that is in a callback of the pool. Cancellation is disabled during
/// the call.
///
/// @param tp the pool
/// @return NS_SUCCESS; NS_THREAD_FAILURE if a worker could not be joined; NS_INVALID_STATE, at once, on a
/// pool without the flag, in a callback of the pool (also an outer one on the thread's stack), and while
/// another thread is the loop; NS_SHUTDOWN in a forked child; NS_INVALID_REQUEST for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_thrpool_run(tp: *mut ns_thrpool_t) -> ns_result_t {
    const NAME: &str = "ns_thrpool_run";
    let call = |pool: &Pool| {
        // Copy the logger: the pool may be freed once it has stopped.
        let logger = pool.shared.logger;
        pool.run().map(|ended| match ended {
            Waited::NotJoined => {
                log!(logger, LOG_ERR, "{NAME}: a worker could not be joined");
                R::NS_THREAD_FAILURE as ns_result_t
            }
            Waited::Over | Waited::TimedOut => SUCCESS,
        })
    };
    // SAFETY: the C interface requires `tp` to be NULL or a live pool.
    unsafe { as_loop(NAME, tp, Ok(()), |pool, ()| call(pool)) }
}

/// Act as the loop of a pool that was made with NS_POOL_CALLER_LOOP for one turn: wait until there is
/// something to do, and do it. The work of one turn is bounded; what it leaves over is for the next. Any
/// thread may call this, except one that is in a callback of the pool. Different threads may take
/// different turns. Cancellation is disabled during the call.
///
/// @param tp the pool
/// @param tv how long to wait at most: zero does not wait, NULL waits without limit; not negative
/// @return NS_SUCCESS if there was something to do, for the application or for the library itself;
/// NS_TIMEOUT if there was nothing, never before tv has passed; NS_SHUTDOWN once the pool has stopped
/// (then this call has disposed of what was done), and in a forked child; NS_INVALID_STATE as for
/// `ns_thrpool_run`; NS_INVALID_REQUEST for NULL, and if tv is negative
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_thrpool_turn(
    tp: *mut ns_thrpool_t,
    tv: *const libc::timeval,
) -> ns_result_t {
    let limit = if tv.is_null() {
        Ok(u64::MAX)
    } else {
        // SAFETY: the C interface requires `tv` to be NULL or a valid time.
        unsafe { nanoseconds(tv) }.map(|time| match time {
            0 => 0,
            time => sys::now().saturating_add(time),
        })
    };
    let call = |pool: &Pool, limit| {
        pool.turn(limit).map(|turn| match turn {
            Turn::Done => SUCCESS,
            Turn::Nothing => R::NS_TIMEOUT as ns_result_t,
            Turn::Quiet => SHUTDOWN,
        })
    };
    // SAFETY: the C interface requires `tp` to be NULL or a live pool.
    unsafe { as_loop("ns_thrpool_turn", tp, limit, call) }
}

/// Get a descriptor that polls readable when a turn of the pool would find something to do: a request
/// from another thread, a timer that is due, a descriptor that is ready, a signal, or work that a turn
/// left over. After each turn the descriptor is readable again, unless nothing is left to do. After a
/// turn that returned NS_TIMEOUT it is not readable until something new comes. Under an edge-triggered
/// poller, call `ns_thrpool_turn` until its result is not NS_SUCCESS. Any thread.
///
/// @param tp the pool, made with NS_POOL_CALLER_LOOP
/// @return the descriptor, always the same, valid until `ns_thrpool_destroy`. It belongs to the pool: do
/// not read or close it. -1 if the event framework has none, if the system is out of descriptors, on a
/// pool without the flag, in a forked child, and for NULL. If the application has closed descriptors of
/// the pool's, call this again
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_thrpool_get_wait_fd(tp: *mut ns_thrpool_t) -> c_int {
    let call = |pool: Option<&Pool>| match pool {
        Some(pool) if !pool.shared.is_forked() => pool.wait_fd(),
        _ => -1,
    };
    // SAFETY: the C interface requires `tp` to be NULL or a live pool.
    unsafe { on_pool(tp, call) }
}

/// Checks the arguments of `name` and makes `call`, which is the loop.
///
/// # Safety
/// `tp` is NULL or a live pool.
unsafe fn as_loop<T>(
    name: &str,
    tp: *mut ns_thrpool_t,
    argument: Result<T, &str>,
    call: impl FnOnce(&Pool, T) -> Result<ns_result_t, NotInside>,
) -> ns_result_t {
    let call = |pool: Option<&Pool>| {
        let Some(pool) = pool else {
            return refuse(None, name, "tp is NULL");
        };
        let argument = match argument {
            Ok(argument) => argument,
            Err(why) => return refuse(Some(pool), name, why),
        };
        if pool.shared.is_forked() {
            return forked(&pool.shared, name);
        }
        let logger = pool.shared.logger;
        call(pool, argument).unwrap_or_else(|error| {
            log!(logger, LOG_DEBUG, "{name}: {}", error.why());
            INVALID_STATE
        })
    };
    // SAFETY: guaranteed by the caller.
    unsafe { on_pool(tp, call) }
}
