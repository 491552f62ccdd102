// SPDX-License-Identifier: GPL-3.0-or-later
//! The probes on a job's way. docs/OBSERVING.md has their table for users.
//!
//! Each has the pool, the job, the callback, the application's pointer and the flags; then what is its
//! own. All but the first two are where the job has them. bpftrace reads no more than six arguments on
//! most processors.

use super::JobPtr;
#[cfg(ns_probes)]
use super::{Job, WithTrigger};
#[cfg(ns_probes)]
use crate::probe::{constant, field, probe, value};
#[cfg(ns_probes)]
use std::mem::offset_of;

/// A probe of a job, with the arguments that all of them have and those that are given.
#[cfg(ns_probes)]
macro_rules! job_probe {
    ($name:literal, $pool:expr, $job:expr, [$($more:expr),*] $(, $($operands:tt)+)?) => {
        job_probe!(of func, $name, $pool, $job, [$($more),*] $(, $($operands)+)?)
    };
    (of $func:ident, $name:literal, $pool:expr, $job:expr,
     [$($more:expr),*] $(, $($operands:tt)+)?) => {
        probe!(
            $name,
            [
                value!("8", "pool"),
                value!("8", "job"),
                field!("8", "func", "job"),
                field!("8", "data", "job"),
                field!("2", "flags", "job")
                $(, $more)*
            ],
            pool = in(reg) $pool,
            job = in(reg) $job.as_c(),
            func = const offset_of!(Job, $func),
            data = const offset_of!(Job, data),
            flags = const offset_of!(Job, flags)
            $(, $($operands)+)?
        )
    };
}

/// The argument that is the job's descriptor or signal. A run-now job has none: what a tracer reads
/// there is what follows the job in memory.
#[cfg(ns_probes)]
macro_rules! number {
    () => {
        field!("-4", "number", "job")
    };
}

#[cfg(ns_probes)]
const NUMBER: usize = offset_of!(WithTrigger, part.number);

/// `job` was made: no other thread knows it yet.
#[inline(always)]
pub(crate) fn made<P>(pool: *const P, job: JobPtr) {
    #[cfg(ns_probes)]
    job_probe!("job_made", pool, job, [number!()], number = const NUMBER);
    let _ = (pool, job);
}

/// `job` is armed, and about to be handed on.
#[inline(always)]
pub(crate) fn armed<P>(pool: *const P, job: JobPtr) {
    #[cfg(ns_probes)]
    job_probe!("job_armed", pool, job, [number!()], number = const NUMBER);
    let _ = (pool, job);
}

/// `job` fires: its output says for what.
#[inline(always)]
pub(crate) fn fired<P>(pool: *const P, job: JobPtr) {
    #[cfg(ns_probes)]
    job_probe!(
        "job_fired",
        pool,
        job,
        [field!("1", "output", "job"), number!()],
        output = const offset_of!(Job, output),
        number = const NUMBER
    );
    let _ = (pool, job);
}

/// The callback of `job` is about to be called.
#[inline(always)]
pub(crate) fn run_begin<P>(pool: *const P, job: JobPtr) {
    #[cfg(ns_probes)]
    job_probe!("run_begin", pool, job, [constant!("done")], done = const 0);
    let _ = (pool, job);
}

/// The callback of `job` has returned.
#[inline(always)]
pub(crate) fn run_return<P>(pool: *const P, job: JobPtr) {
    #[cfg(ns_probes)]
    job_probe!("run_return", pool, job, [constant!("done")], done = const 0);
    let _ = (pool, job);
}

/// The done callback of `job` is about to be called.
#[inline(always)]
pub(crate) fn done_begin<P>(pool: *const P, job: JobPtr) {
    #[cfg(ns_probes)]
    job_probe!(of done_cb, "run_begin", pool, job, [constant!("done")], done = const 1);
    let _ = (pool, job);
}

/// The done callback of `job` has returned.
#[inline(always)]
pub(crate) fn done_return<P>(pool: *const P, job: JobPtr) {
    #[cfg(ns_probes)]
    job_probe!(of done_cb, "run_return", pool, job, [constant!("done")], done = const 1);
    let _ = (pool, job);
}

/// `job` is finished with, and its done callback, if it has one, has returned.
#[inline(always)]
pub(crate) fn disposed<P>(pool: *const P, job: JobPtr) {
    #[cfg(ns_probes)]
    job_probe!("job_disposed", pool, job, [number!()], number = const NUMBER);
    let _ = (pool, job);
}

/// `job` is about to join the queue of its group, which it points at in the pool's place.
#[inline(always)]
pub(crate) fn queued<P>(pool: *const P, job: JobPtr) {
    #[cfg(ns_probes)]
    job_probe!(
        "group_queued",
        pool,
        job,
        [field!("8", "group", "job")],
        group = const offset_of!(Job, pool)
    );
    let _ = (pool, job);
}
