// SPDX-License-Identifier: GPL-3.0-or-later
//! Adding many run-now jobs at once.

use std::ptr;

use libc::{c_void, size_t};

use super::add::{KEPT, MODIFIERS, Make, NO_WORKERS};
use super::call::*;
use crate::abi::*;
use crate::group::core::Refused;
use crate::job::{Front, Spec, Trigger};
use crate::shared::MakeError;
use crate::shared::many::Batch;

/// Make many run-now jobs for workers at once, and arm them: all or none, in order. It wakes as many
/// workers as there is work for, and takes less time than so many calls of `ns_add_job`.
///
/// @param tp the pool
/// @param job_type THREAD, which must be there; PERSIST, UNARMED
/// @param func the callback of each
/// @param n how many; 0 does nothing
/// @param data n pointers for `ns_job_get_data`, one for each job; NULL: NULL for each
/// @param jobs where n jobs are written before the first can run; may be NULL, but not with UNARMED
/// @return NS_SUCCESS, NS_SHUTDOWN, NS_ALLOCATION_FAILURE or NS_INVALID_REQUEST; NS_OVERLOADED if the
/// pool has a queue_limit and so many jobs wait for workers already. If not the first, all of jobs are
/// NULL and nothing happened
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_add_jobs(
    tp: *mut ns_thrpool_t,
    job_type: ns_job_type_t,
    func: ns_job_func_t,
    n: size_t,
    data: *const *mut c_void,
    jobs: *mut *mut ns_job_t,
) -> ns_result_t {
    // SAFETY: the C interface requires `tp` to be NULL or valid.
    let make = unsafe { Make::new("ns_add_jobs", tp, ptr::null_mut()) };
    // SAFETY: the C interface requires room for `n` pointers, or NULL.
    unsafe { forget(jobs, n) };
    let Some(pool) = make.pool else {
        return make.refuse("tp is NULL");
    };
    let Some(func) = func else {
        return make.refuse("func is NULL");
    };
    if job_type & NS_JOB_THREAD == 0 {
        return make.refuse("job_type does not have THREAD");
    }
    if job_type & NS_JOB_SHUTDOWN_WORKER != 0 {
        return make.refuse("job_type has NS_JOB_SHUTDOWN_WORKER, which is not for applications");
    }
    if job_type & !MODIFIERS != 0 {
        return make.refuse("job_type has a flag that this function does not take");
    }
    let armed = job_type & NS_JOB_UNARMED == 0;
    if !armed && jobs.is_null() {
        return make.refuse("jobs is NULL, and the jobs are not armed");
    }
    let shared = &pool.shared;
    if shared.is_forked() {
        return shut_down(shared, make.function);
    }
    if n == 0 {
        return SUCCESS;
    }
    let mut counted = false;
    let mut front = Front::new(!armed);
    if !shared.needs_no_checks() {
        if shared.is_shutting_down() {
            return shut_down(shared, make.function);
        }
        if shared.has_no_workers() {
            return make.refuse(NO_WORKERS);
        }
        if shared.is_timed() {
            front = front.timed();
        }
        counted = shared.has_limit();
        if armed && counted && shared.is_overloaded() {
            return refused(shared, make.function, Refused::Full);
        }
    }
    let mut batch = Batch::new(shared, armed, counted);
    for at in 0..n {
        let spec = Spec {
            flags: job_type & KEPT,
            trigger: Trigger::Now,
            func,
            data: match data.is_null() {
                true => ptr::null_mut(),
                // SAFETY: the C interface requires `n` pointers, or NULL.
                false => unsafe { *data.add(at) },
            },
            armed,
            front,
        };
        match batch.make(&spec) {
            // SAFETY: as for `forget`.
            Some(job) if !jobs.is_null() => unsafe { *jobs.add(at) = job.as_c() },
            Some(_) => {}
            None => {
                batch.unmake();
                // SAFETY: as above.
                unsafe { forget(jobs, at) };
                return not_made(make.function, make.pool, MakeError::NoMemory);
            }
        }
    }
    batch.start();
    SUCCESS
}

/// Writes NULL to the first `n` places of `jobs`, if that is not NULL.
///
/// # Safety
/// It has room for `n` pointers, or is NULL.
unsafe fn forget(jobs: *mut *mut ns_job_t, n: usize) {
    if !jobs.is_null() {
        for at in 0..n {
            // SAFETY: guaranteed by the caller.
            unsafe { *jobs.add(at) = ptr::null_mut() };
        }
    }
}
