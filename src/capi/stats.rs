// SPDX-License-Identifier: GPL-3.0-or-later
//! The statistics of a pool.

use std::mem::offset_of;
use std::ptr;

use libc::{c_char, size_t};

use super::call::*;
use crate::abi::*;
use crate::pool::Pool;
use crate::shared::metrics::format;

/// More than any version will have. It keeps us from writing far beyond a struct that was never made ready.
const LARGEST: usize = 1 << 16;

/// Initialize a struct for `ns_thrpool_get_stats`: all zero except its size.
///
/// @param stats the struct; NULL does nothing
/// @param size `sizeof *stats`; if it is smaller than a size_t, the call does nothing
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_thrpool_stats_init(stats: *mut ns_thrpool_stats, size: size_t) {
    if stats.is_null() || size < size_of::<size_t>() {
        return;
    }
    // SAFETY: the C interface requires so many bytes that may be overwritten; the size comes first.
    unsafe {
        stats.cast::<u8>().write_bytes(0, size);
        (&raw mut (*stats).size).write(size);
    }
}

/// Get what a pool has done so far, and what it is doing. Any thread, callbacks included, also while the
/// pool shuts down and after it has stopped. The call neither waits nor allocates.
///
/// @param tp the pool
/// @param stats initialized by `ns_thrpool_stats_init`; written up to its size
/// @return NS_SUCCESS; NS_SHUTDOWN in a forked child, where stats is left unchanged; NS_INVALID_REQUEST
/// if tp or stats is NULL, or if its size is not one that `ns_thrpool_stats_init` has set
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_thrpool_get_stats(
    tp: *mut ns_thrpool_t,
    stats: *mut ns_thrpool_stats,
) -> ns_result_t {
    const NAME: &str = "ns_thrpool_get_stats";
    let call = |pool: Option<&Pool>| {
        let Some(pool) = pool else {
            return refuse(None, NAME, "tp is NULL");
        };
        if stats.is_null() {
            return refuse(Some(pool), NAME, "stats is NULL");
        }
        if pool.shared.is_forked() {
            return forked(&pool.shared, NAME);
        }
        // SAFETY: the C interface requires a struct that was made ready; the size comes first.
        let size = unsafe { (&raw const (*stats).size).read() };
        if !(size_of::<size_t>()..=LARGEST).contains(&size) {
            let why = "the size is that of no version: was ns_thrpool_stats_init called?";
            return refuse(Some(pool), NAME, why);
        }
        let all = pool.shared.stats();
        // SAFETY: the struct has `size` bytes, of which `known` are known here. Its size stays.
        unsafe {
            const { assert!(offset_of!(ns_thrpool_stats, size) == 0) };
            let known = size.min(size_of::<ns_thrpool_stats>());
            let first = size_of::<size_t>();
            let (from, to) = ((&raw const all).cast::<u8>(), stats.cast::<u8>());
            ptr::copy_nonoverlapping(from.add(first), to.add(first), known - first);
            to.add(known).write_bytes(0, size - known);
        }
        SUCCESS
    };
    // SAFETY: the C interface requires `tp` to be NULL or a live pool.
    unsafe { on_pool(tp, call) }
}

/// Reset the maxima of a pool: work_queue_max and workers_busy_max. All other numbers stay. Any thread.
///
/// @param tp the pool; NULL does nothing, nor does a pool of the parent process
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_thrpool_reset_stats(tp: *mut ns_thrpool_t) {
    let call = |pool: Option<&Pool>| {
        if let Some(pool) = pool.filter(|pool| !pool.shared.is_forked()) {
            pool.shared.reset_stats();
        }
    };
    // SAFETY: the C interface requires `tp` to be NULL or a live pool.
    unsafe { on_pool(tp, call) };
}

/// Write the statistics of a pool as text, in the text format of Prometheus (version 0.0.4): serve it as
/// `text/plain; version=0.0.4`. Each metric has a help text and a type. It is named after its field, with
/// the prefix nunc_stans_; names of counters end in _total. The label pool has the pool's name and
/// number, as in "ns-0". Any thread, callbacks included. Other threads may make and destroy pools
/// meanwhile.
///
/// @param tp the pool; NULL: all pools of the process in one text
/// @param text where to write it, at most size bytes with its NUL; may be NULL if size is 0
/// @param size how many bytes there are
/// @return the length of the whole text without its NUL, even if it did not fit, like snprintf. 0, and an
/// empty text, for a pool of the parent process, if text is NULL and size is not 0, or if there is no
/// memory
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_thrpool_format_stats(
    tp: *mut ns_thrpool_t,
    text: *mut c_char,
    size: size_t,
) -> size_t {
    const NAME: &str = "ns_thrpool_format_stats";
    let call = |pool: Option<&Pool>| {
        if text.is_null() && size > 0 {
            refuse(pool, NAME, "text is NULL, and size is not 0");
            return 0;
        }
        if size > 0 {
            // SAFETY: the C interface requires so much room.
            unsafe { text.write(0) };
        }
        if let Some(pool) = pool.filter(|pool| pool.shared.is_forked()) {
            forked(&pool.shared, NAME);
            return 0;
        }
        // SAFETY: as above.
        let length = unsafe { format(pool.map(|pool| &pool.shared), text.cast(), size) };
        length.unwrap_or_else(|| {
            refuse(pool, NAME, "no memory");
            0
        })
    };
    // SAFETY: the C interface requires `tp` to be NULL or a live pool.
    unsafe { on_pool(tp, call) }
}
