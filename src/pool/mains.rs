// SPDX-License-Identifier: GPL-3.0-or-later
//! What each thread of a pool does, from its start to its end.

use std::ptr;
use std::sync::atomic::Ordering;

use libc::c_void;

use super::Pool;
use super::threads::{self, Body};
use crate::job::here;
use crate::perturb::perturb;
use crate::run;
use crate::stats::NOBODY;

/// # Safety
/// `pool` is a pool, and outlives the thread.
unsafe fn thread_main(pool: *mut c_void, is_loop: bool, body: Body) -> *mut c_void {
    // SAFETY: guaranteed by the caller.
    let name = unsafe { &*pool.cast::<Pool>() }.thread_name(is_loop);
    threads::enter(name.as_c(), body, pool);
    ptr::null_mut()
}

pub(super) extern "C" fn worker_main(pool: *mut c_void) -> *mut c_void {
    // SAFETY: the pool outlives its threads: `destroy` joins them first.
    unsafe { thread_main(pool, false, worker_body) }
}

pub(super) extern "C" fn loop_main(pool: *mut c_void) -> *mut c_void {
    // SAFETY: as above.
    unsafe { thread_main(pool, true, loop_body) }
}

pub(super) extern "C" fn watchdog_main(pool: *mut c_void) -> *mut c_void {
    // SAFETY: as above.
    let name = unsafe { &*pool.cast::<Pool>() }.name.with("-watch");
    threads::enter(name.as_c(), watchdog_body, pool);
    ptr::null_mut()
}

unsafe extern "C" fn watchdog_body(pool: *mut c_void) {
    // SAFETY: as above.
    let pool = unsafe { &*pool.cast::<Pool>() };
    let name = pool.name.with("-watch");
    // It is one of the pool's own, and runs no jobs.
    here::enter_pool(pool.shared.as_c(), false, &NOBODY);
    pool.hooks.start(name.as_c());
    pool.run_watchdog();
    pool.hooks.end(name.as_c());
}

unsafe extern "C" fn worker_body(pool: *mut c_void) {
    // SAFETY: as above.
    let pool = unsafe { &*pool.cast::<Pool>() };
    // Before the application's code, which then can neither wait for the pool nor destroy it.
    let index = pool.shared.seats.fetch_add(1, Ordering::Relaxed);
    let slot = pool.shared.slots.of_worker(index);
    pool.shared.enter(slot, false);
    let name = pool.thread_name(false);
    pool.hooks.start(name.as_c());
    run::work(&pool.shared, index);
    // While the worker still counts, so that a join does not wait for the application's code.
    pool.hooks.end(name.as_c());
    slot.leave();
    perturb("the worker has no more work, and counts still");
    if pool.shared.workers.fetch_sub(1, Ordering::SeqCst) == 1 {
        perturb("the last worker has left, and the loop does not know");
        pool.shared.nudge();
    }
}

unsafe extern "C" fn loop_body(pool: *mut c_void) {
    // SAFETY: as above.
    let pool = unsafe { &*pool.cast::<Pool>() };
    let slot = pool.shared.slots.of_loop();
    pool.shared.enter(slot, true);
    let name = pool.thread_name(true);
    pool.hooks.start(name.as_c());
    pool.run_loop();
    pool.hooks.end(name.as_c());
    slot.leave();
}
