// SPDX-License-Identifier: GPL-3.0-or-later
//! A pool with options.

use libc::{c_char, size_t};

use super::call::pool_of;
use super::pool::start;
use crate::abi::*;

/// Set options to their defaults, which are those of `ns_thrpool_new`.
///
/// @param options the options; NULL does nothing
/// @param size `sizeof *options`; if it is smaller than a size_t, the call does nothing
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_thrpool_options_init(options: *mut ns_thrpool_options, size: size_t) {
    if options.is_null() || size < size_of::<size_t>() {
        return;
    }
    // SAFETY: the C interface requires so many bytes that may be overwritten; the size comes first.
    unsafe {
        options.cast::<u8>().write_bytes(0, size);
        (&raw mut (*options).size).write(size);
    }
}

/// Make a pool, as `ns_thrpool_new` does, with options.
///
/// @param tp_config as for `ns_thrpool_new`
/// @param options initialized by `ns_thrpool_options_init`; copied; NULL for none
/// @return the pool, or NULL, as `ns_thrpool_new`; NULL also if an option is wrong, unknown, or not
/// available in this version: the log says which
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_thrpool_new_with(
    tp_config: *mut ns_thrpool_config,
    options: *const ns_thrpool_options,
) -> *mut ns_thrpool_t {
    // SAFETY: the C interface requires both to be NULL or valid.
    unsafe { start("ns_thrpool_new_with", tp_config, options) }
}

/// Get the name of the event framework that a pool runs over. Any thread; in a forked child too.
///
/// @param tp the pool
/// @return the name, as it was requested, valid as long as the pool; NULL for NULL
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_thrpool_get_framework(tp: *mut ns_thrpool_t) -> *const c_char {
    // SAFETY: the C interface requires `tp` to be NULL or a live pool.
    unsafe { pool_of(tp) }.map_or(std::ptr::null(), |pool| pool.framework().as_ptr())
}
