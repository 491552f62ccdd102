// SPDX-License-Identifier: GPL-3.0-or-later
//! Arming a job again in another way than before.

use libc::timeval;

use super::call::*;
use crate::abi::*;
use crate::job::again::Again;
use crate::job::{JobPtr, Kind, NEVER};
use crate::log::log;
use crate::shared::Shared;

/// As `ns_job_rearm`, but the job begins to watch for its trigger only after a delay. The delay begins when
/// the callback returns if this is called in the callback, otherwise with this call. So a listener can pause
/// when the process has run out of descriptors: `ns_job_rearm_after(job, &tenth)`. The delay applies to this
/// arming only. During the delay the job is armed, and can be cancelled. A time-out or a timer's time begins
/// at the end of the delay; signals that arrive during it fire the job at its end. Unlike with
/// `ns_job_rearm`, a PERSIST job may be rearmed in its own callback: this delays its next arming. Any thread.
///
/// @param job a live job with a trigger, WAITING or RUNNING
/// @param tv the delay; not negative
/// @return NS_SUCCESS; NS_SHUTDOWN; NS_INVALID_STATE if it is armed, has been rearmed already or is
/// finished with, or has PERSIST and runs and this is not its callback; NS_INVALID_REQUEST for a
/// run-now job, for NULL and for a negative tv
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_job_rearm_after(job: *mut ns_job_t, tv: *const timeval) -> ns_result_t {
    const NAME: &str = "ns_job_rearm_after";
    let call = |job: JobPtr, pool: &Shared| {
        // SAFETY: the C interface requires `tv` to be NULL or a valid time.
        let delay = match unsafe { nanoseconds(tv) } {
            _ if job.kind() == Kind::Now => return bad(pool, NAME, "job is a run-now job"),
            Ok(delay) => delay,
            Err(why) => return bad(pool, NAME, why),
        };
        let again = Again {
            delay: Some(delay),
            directions: None,
            timeout: None,
        };
        arm(NAME, job, pool, again)
    };
    // SAFETY: the C interface requires `job` to be NULL or a live job.
    unsafe { on_job(NAME, job, call) }
}

/// As `ns_job_rearm`, but from now on for other directions, or with another time. So one job can serve
/// a connection that reads first and writes next: `ns_job_rearm_for(job, NS_JOB_WRITE, NULL)`. From this
/// call on `ns_job_get_type` shows the new flags: TIMER too, if a descriptor now has a time-out. Unlike
/// with `ns_job_rearm`, a PERSIST job may be rearmed in its own callback. Any thread.
///
/// @param job a live job for a descriptor or a time, WAITING or RUNNING
/// @param directions READ, WRITE, CONNECT, which replace those that it had; 0: as before, and the
/// only choice for a timer
/// @param tv for a descriptor, the time-out (zero: none); for a timer, its time (zero: the next turn of
/// the loop); NULL: as before; not negative
/// @return NS_SUCCESS; NS_SHUTDOWN; NS_INVALID_STATE as `ns_job_rearm_after`; NS_INVALID_REQUEST for a
/// run-now or signal job, for NULL, for other flags, for directions without a descriptor, for a negative
/// tv, and for a tv of zero with NS_JOB_CADENCE
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_job_rearm_for(
    job: *mut ns_job_t,
    directions: ns_job_type_t,
    tv: *const timeval,
) -> ns_result_t {
    const NAME: &str = "ns_job_rearm_for";
    let call = |job: JobPtr, pool: &Shared| {
        let io = match job.kind() {
            Kind::Now => return bad(pool, NAME, "job is a run-now job"),
            Kind::Signal => return bad(pool, NAME, "job is a signal job"),
            Kind::Timer => false,
            Kind::Io => true,
        };
        if directions & !(NS_JOB_READ | NS_JOB_WRITE | NS_JOB_CONNECT) != 0 {
            return bad(
                pool,
                NAME,
                "directions has a flag that is not READ, WRITE or CONNECT",
            );
        }
        if directions != 0 && !io {
            return bad(
                pool,
                NAME,
                "directions is not 0, and the job has no descriptor",
            );
        }
        let timeout = match tv.is_null() {
            true => None,
            // SAFETY: the C interface requires a valid time.
            false => match unsafe { nanoseconds(tv) } {
                Ok(0) if io => Some(NEVER),
                Ok(0) if job.is_cadence() => {
                    return bad(pool, NAME, "tv is zero, and the job has CADENCE");
                }
                Ok(time) => Some(time),
                Err(why) => return bad(pool, NAME, why),
            },
        };
        let again = Again {
            delay: None,
            directions: (directions != 0).then_some(directions),
            timeout,
        };
        arm(NAME, job, pool, again)
    };
    // SAFETY: the C interface requires `job` to be NULL or a live job.
    unsafe { on_job(NAME, job, call) }
}

fn bad(pool: &Shared, function: &str, why: &str) -> ns_result_t {
    log!(pool.logger, LOG_ERR, "{function}: {why}");
    INVALID_REQUEST
}

fn arm(function: &str, job: JobPtr, pool: &Shared, again: Again) -> ns_result_t {
    rearmed(pool, function, pool.arm_otherwise(job, again))
}
