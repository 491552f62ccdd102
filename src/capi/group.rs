// SPDX-License-Identifier: GPL-3.0-or-later
//! Groups of jobs.

use libc::{c_int, c_void, size_t, timeval};

use super::add::Make;
use super::call::*;
use crate::abi::_ns_result_t as R;
use crate::abi::*;
use crate::group::GroupPtr;
use crate::job::free::Entering;
use crate::job::here;
use crate::job::wait::Outcome;
use crate::job::{JobPtr, Trigger};
use crate::log::log;
use crate::shared::Shared;
use crate::shared::groups::{Cancelled, Joined};
use crate::sys::{self, ErrnoGuard};

/// Make a group.
///
/// @param tp the pool
/// @param width how many of its callbacks may run at once; 1 runs them one at a time and in order;
/// 0 sets no limit and keeps no order
/// @param data for `ns_group_get_data`; the application's own
/// @param done called once, when the last hold and the last job are gone, in the loop or in a
/// worker, never inside a call of the application's; it may use the getters and may free data, and
/// the group is gone when it returns; NULL for none
/// @param group where the group is written; must not be NULL. The caller has a hold, for
/// `ns_group_release`
/// @return NS_SUCCESS, NS_SHUTDOWN, NS_ALLOCATION_FAILURE or NS_INVALID_REQUEST; if not the first,
/// *group is NULL and nothing happened
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_group_new(
    tp: *mut ns_thrpool_t,
    width: size_t,
    data: *mut c_void,
    done: Option<unsafe extern "C" fn(group: *mut ns_group_t)>,
    group: *mut *mut ns_group_t,
) -> ns_result_t {
    const NAME: &str = "ns_group_new";
    let _errno = ErrnoGuard::new();
    if !group.is_null() {
        // SAFETY: a place for a pointer, by the interface's rules.
        unsafe { *group = std::ptr::null_mut() };
    }
    // SAFETY: NULL or a live pool, by the interface's rules.
    let Some(pool) = (unsafe { pool_of(tp) }) else {
        return refuse(None, NAME, "tp is NULL");
    };
    if group.is_null() {
        return refuse(Some(pool), NAME, "group is NULL");
    }
    let shared = &pool.shared;
    if shared.is_shutting_down() || shared.is_forked() {
        return shut_down(shared, NAME);
    }
    let Some(made) = shared.make_group(width, data, done) else {
        log!(shared.logger, LOG_ERR, "{NAME}: no memory");
        return R::NS_ALLOCATION_FAILURE as ns_result_t;
    };
    // SAFETY: as above.
    unsafe { *group = made.as_c() };
    SUCCESS
}

/// Take one more hold on a group, which keeps it until `ns_group_release`. Any thread; not in the
/// group's own done callback.
///
/// @param group a group that the caller has a hold on, or called in a callback of one of its jobs;
/// NULL does nothing
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_group_hold(group: *mut ns_group_t) {
    let _errno = ErrnoGuard::new();
    // SAFETY: NULL or a live group, by the interface's rules.
    match unsafe { group_and_pool(group) } {
        Some((group, pool)) if !pool.is_forked() => {
            let guard = pool.lock_group(&group);
            guard.hold();
            let send = guard.unlock();
            pool.send(group, send);
        }
        _ => {}
    }
}

/// Give a hold back: the maker's, or one of `ns_group_hold`. With the last hold and the last job the
/// group ends: its done callback is called soon, and its memory goes. Any thread; never waits.
///
/// @param group a group that the caller has a hold on, which it may not use any more afterwards; NULL
/// does nothing
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_group_release(group: *mut ns_group_t) {
    let _errno = ErrnoGuard::new();
    // SAFETY: NULL or a live group, by the interface's rules.
    match unsafe { group_and_pool(group) } {
        Some((group, pool)) if !pool.is_forked() => pool.release_group(group),
        _ => {}
    }
}

/// The pointer that a group was made with. Any thread.
///
/// @param group a live group
/// @return the data of `ns_group_new`; NULL for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_group_get_data(group: *mut ns_group_t) -> *mut c_void {
    group_at(group.cast()).map_or(std::ptr::null_mut(), |group| group.data())
}

/// The pool that a group belongs to. Any thread.
///
/// @param group a live group
/// @return its pool; NULL for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_group_get_tp(group: *mut ns_group_t) -> *mut ns_thrpool_t {
    group_at(group.cast()).map_or(std::ptr::null_mut(), |group| group.pool_as_c().as_ptr())
}

/// Make a run-now job in a group, and arm it: it joins the end of the group's queue. As `ns_add_job`
/// otherwise.
///
/// @param group a group that the caller has a hold on, or called in a callback of one of its jobs
/// @param job_type THREAD, PERSIST, UNARMED
/// @param func the callback
/// @param data for `ns_job_get_data`; the application's own
/// @param job where the job is written before it can run; may be NULL, but not with UNARMED
/// @return NS_SUCCESS, NS_SHUTDOWN, NS_ALLOCATION_FAILURE or NS_INVALID_REQUEST; NS_DELETING if the
/// group is cancelled; NS_OVERLOADED if its queue is as long as `ns_group_set_limit` allows; if not
/// the first, *job is NULL and nothing happened
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_add_group_job(
    group: *mut ns_group_t,
    job_type: ns_job_type_t,
    func: ns_job_func_t,
    data: *mut c_void,
    job: *mut *mut ns_job_t,
) -> ns_result_t {
    const NAME: &str = "ns_add_group_job";
    let at = group_at(group.cast());
    let tp = at.map_or(std::ptr::null_mut(), |group| group.pool_as_c().as_ptr());
    // SAFETY: a group's pool; `job` is NULL or a place for a pointer, by the interface's rules.
    let make = unsafe { Make::new(NAME, tp, job) };
    let Some(group) = at else {
        return make.refuse("group is NULL");
    };
    make.add_in(Some(group), Trigger::Now, job_type, 0, func, data, true)
}

/// Put a job into a group, for good. The job is of any kind, was made by `ns_create_job` or with
/// NS_JOB_UNARMED, and was never armed. No other call on the job may overlap this one.
///
/// @param job a live job, WAITING
/// @param group a group of the same pool
/// @return NS_SUCCESS; NS_INVALID_STATE if the job was armed before, was made armed, or is in a group
/// already; NS_DELETING if the group is cancelled; NS_SHUTDOWN in a forked child; NS_INVALID_REQUEST
/// for NULL and for a group of another pool
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_job_set_group(
    job: *mut ns_job_t,
    group: *mut ns_group_t,
) -> ns_result_t {
    const NAME: &str = "ns_job_set_group";
    let call = |job: JobPtr, pool: &Shared| {
        let Some(group) = group_at(group.cast()) else {
            log!(pool.logger, LOG_ERR, "{NAME}: group is NULL");
            return INVALID_REQUEST;
        };
        if group.pool_as_c() != pool.as_c() {
            log!(pool.logger, LOG_ERR, "{NAME}: group is another pool's");
            return INVALID_REQUEST;
        }
        match pool.join_group(group, job) {
            Joined::Yes => SUCCESS,
            Joined::NotNow => wrong_state(pool, NAME, "was armed before, or is in a group"),
            Joined::Cancelled => cancelled(pool, NAME),
        }
    };
    // SAFETY: NULL or a live job, by the interface's rules.
    unsafe { on_job(NAME, job, call) }
}

/// The group that a job is in. Any thread, any state.
///
/// @param job a live job
/// @return its group; NULL if it is in none, and for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_job_get_group(job: *mut ns_job_t) -> *mut ns_group_t {
    let group = |job: JobPtr| {
        let group = job.group_as_ptr();
        group.map_or(std::ptr::null_mut(), |at| at.as_ptr().cast())
    };
    // SAFETY: NULL or a live job, by the interface's rules.
    unsafe { query(job, std::ptr::null_mut(), group) }
}

/// Finish with every job in a group, as by `ns_job_cancel`, idle ones too, and let none in any more.
/// Their done callbacks follow. Afterwards all of them are the library's: only callbacks and done
/// callbacks may name them. Any thread, the group's own callbacks included; never waits, however
/// many jobs there are. The group itself stays until it is released. Adds to the group, and rearms in
/// its callbacks, may overlap this; a rearm from outside must not.
///
/// @param group a group that the caller has a hold on, or called in a callback of one of its jobs
/// @return NS_SUCCESS: no callback of its jobs runs, the caller's own aside, done callbacks included,
/// and no callback but done callbacks will begin; NS_RUNNING: some run on other threads, and none
/// but done callbacks will begin. A second call answers as it finds. NS_SHUTDOWN in a forked
/// child; NS_INVALID_REQUEST for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_group_cancel(group: *mut ns_group_t) -> ns_result_t {
    let call = |group: GroupPtr, pool: &Shared| match pool.cancel_group(group) {
        Cancelled::Yes => SUCCESS,
        Cancelled::Running => R::NS_RUNNING as ns_result_t,
    };
    // SAFETY: NULL or a live group, by the interface's rules.
    unsafe { on_group("ns_group_cancel", group, call) }
}

/// Block until no job of a group is armed, queued or running: each is idle, or is gone and its done
/// callback has returned. Any number of threads. It can't wait in the pool's loop thread, nor in a
/// callback of the group's own.
///
/// @param group a group that the caller has a hold on until the call returns
/// @param tv how long; NULL for no limit; not negative
/// @return NS_SUCCESS; NS_TIMEOUT when the time is up; NS_SHUTDOWN when the pool has stopped (in a
/// worker of the pool: when it shuts down), or in a forked child; NS_INVALID_STATE from the loop
/// thread or a callback of the group's own, unless there is nothing to wait for but the caller's own
/// job; NS_INVALID_REQUEST for NULL and for a negative tv
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_group_wait(group: *mut ns_group_t, tv: *const timeval) -> ns_result_t {
    const NAME: &str = "ns_group_wait";
    // This comes first, as in `ns_job_wait`: from here on the group's memory stays.
    let entering = Entering::new();
    let _errno = ErrnoGuard::new();
    // SAFETY: NULL or a live group, by the interface's rules.
    let Some((group, pool)) = (unsafe { group_and_pool(group) }) else {
        drop(entering);
        return refuse(None, NAME, "group is NULL");
    };
    // Enter before `entering` is dropped. From here on the pool stays.
    let _in_call = pool.waiters.enter();
    if pool.is_forked() {
        drop(entering);
        return forked(pool, NAME);
    }
    let deadline = if tv.is_null() {
        None
    } else {
        // SAFETY: a time, by the interface's rules.
        match unsafe { nanoseconds(tv) } {
            // A deadline past the end of the clock is no deadline.
            Ok(time) => sys::now().checked_add(time),
            Err(why) => {
                drop(entering);
                log!(pool.logger, LOG_ERR, "{NAME}: {why}");
                return INVALID_REQUEST;
            }
        }
    };
    match pool.wait_for_group(group, deadline, entering) {
        None => {
            let why = "the group can't be waited for from here";
            log!(pool.logger, LOG_DEBUG, "{NAME}: {why}");
            INVALID_STATE
        }
        Some(Outcome::Idle | Outcome::Deleting) => SUCCESS,
        Some(Outcome::Stopped) => SHUTDOWN,
        Some(Outcome::TimedOut) => R::NS_TIMEOUT as ns_result_t,
    }
}

/// Let no callback of a group begin until `ns_group_resume`: what fires queues up. Done callbacks
/// go on. Suspensions are counted, up to 65,535. A callback that runs goes on. Suspend a group of
/// width 1 to wait for an answer that a job outside it brings. Any thread.
///
/// @param group a group that the caller has a hold on, or called in a callback of one of its jobs
/// @return NS_SUCCESS; NS_INVALID_STATE if it is suspended 65,535 times; NS_SHUTDOWN in a forked
/// child; NS_INVALID_REQUEST for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_group_suspend(group: *mut ns_group_t) -> ns_result_t {
    // SAFETY: NULL or a live group, by the interface's rules.
    unsafe { change("ns_group_suspend", group, true) }
}

/// Undo one `ns_group_suspend`. With the last the group goes on. Any thread.
///
/// @param group a group that the caller has a hold on, or called in a callback of one of its jobs
/// @return NS_SUCCESS; NS_INVALID_STATE if it is not suspended; NS_SHUTDOWN in a forked child;
/// NS_INVALID_REQUEST for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_group_resume(group: *mut ns_group_t) -> ns_result_t {
    // SAFETY: NULL or a live group, by the interface's rules.
    unsafe { change("ns_group_resume", group, false) }
}

/// Whether the caller is inside a callback or done callback of a job of this group, or in the
/// group's own done callback, anywhere on the thread's stack.
///
/// @param group a live group
/// @return 1 or 0; 0 for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_group_is_current(group: *mut ns_group_t) -> c_int {
    let group = std::ptr::NonNull::new(group.cast());
    c_int::from(group.is_some_and(|group| here::callbacks_of(group) > 0))
}

/// Limit the length of a group's queue: `ns_add_group_job` of an armed job returns NS_OVERLOADED
/// when `limit` jobs wait already. What a worker of the pool adds in a callback is never refused,
/// nor what fires or is armed again; what the loop adds is. Any thread.
///
/// @param group a group that the caller has a hold on, or called in a callback of one of its jobs
/// @param limit how many; 0 for no limit, which is the default
/// @return NS_SUCCESS; NS_SHUTDOWN in a forked child; NS_INVALID_REQUEST for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_group_set_limit(group: *mut ns_group_t, limit: size_t) -> ns_result_t {
    let call = |group: GroupPtr, pool: &Shared| {
        let guard = pool.lock_group(&group);
        // A larger limit would never be reached.
        guard.set_limit(u32::try_from(limit).unwrap_or(u32::MAX));
        let send = guard.unlock();
        pool.send(group, send);
        SUCCESS
    };
    // SAFETY: NULL or a live group, by the interface's rules.
    unsafe { on_group("ns_group_set_limit", group, call) }
}

/// How many jobs are in a group's queue: they have fired or were armed, have not begun, and are not
/// cancelled. Any thread.
///
/// @param group a live group
/// @return how many at that moment; 0 for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_group_get_length(group: *mut ns_group_t) -> size_t {
    let _errno = ErrnoGuard::new();
    // SAFETY: NULL or a live group, by the interface's rules.
    let Some((group, pool)) = (unsafe { group_and_pool(group) }) else {
        return 0;
    };
    if pool.is_forked() {
        // The lock may be that of a thread which is not in this process.
        return group.core.length_in_child();
    }
    let guard = pool.lock_group(&group);
    let length = guard.length();
    let send = guard.unlock();
    pool.send(group, send);
    length as size_t
}

/// The group behind `group`, and its pool, if it is not NULL.
///
/// # Safety
/// It is a live group.
unsafe fn group_and_pool<'a>(group: *mut ns_group_t) -> Option<(GroupPtr, &'a Shared)> {
    let group = group_at(group.cast())?;
    // SAFETY: a pool outlives its groups, and begins with its shared part.
    let pool = unsafe { group.pool_as_c().cast::<Shared>().as_ref() };
    Some((group, pool))
}

/// Makes a call on a group: refuses NULL and pools of the parent process, and preserves errno.
///
/// # Safety
/// `group` is NULL or a live group.
unsafe fn on_group(
    function: &str,
    group: *mut ns_group_t,
    call: impl FnOnce(GroupPtr, &Shared) -> ns_result_t,
) -> ns_result_t {
    let _errno = ErrnoGuard::new();
    // SAFETY: guaranteed by the caller.
    let Some((group, pool)) = (unsafe { group_and_pool(group) }) else {
        return refuse(None, function, "group is NULL");
    };
    if pool.is_forked() {
        return forked(pool, function);
    }
    call(group, pool)
}

/// Suspends a group, or resumes it.
///
/// # Safety
/// As for [`on_group`].
unsafe fn change(function: &str, group: *mut ns_group_t, suspend: bool) -> ns_result_t {
    let call = |group: GroupPtr, pool: &Shared| {
        let guard = pool.lock_group(&group);
        let done = if suspend {
            guard.suspend()
        } else {
            guard.resume()
        };
        let send = guard.unlock();
        pool.send(group, send);
        if done {
            return SUCCESS;
        }
        let why = if suspend {
            "is suspended too often"
        } else {
            "is not suspended"
        };
        log!(pool.logger, LOG_DEBUG, "{function}: the group {why}");
        INVALID_STATE
    };
    // SAFETY: guaranteed by the caller.
    unsafe { on_group(function, group, call) }
}
