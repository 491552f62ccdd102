// SPDX-License-Identifier: GPL-3.0-or-later
//! Knowing that this process is a forked child of the one that made a pool.
//!
//! A child has its parent's memory and descriptors, but none of its threads. Each pool remembers
//! the generation that it was made in; a fork makes the child one generation younger.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::event::signals;

static GENERATION: AtomicU32 = AtomicU32::new(0);

/// How many forks lie between this process and the first.
pub(crate) fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// Watch for forks, from when the library is loaded: so that of all that watches, the signals'
/// registry is locked last. A thread that holds a lock of the application's, which a fork handler
/// takes too, may be waiting for the registry.
#[used]
#[cfg_attr(not(target_os = "macos"), unsafe(link_section = ".init_array"))]
#[cfg_attr(target_os = "macos", unsafe(link_section = "__DATA,__mod_init_func"))]
static WATCH: extern "C" fn() = watch;

extern "C" fn watch() {
    // SAFETY: three functions that stay (the library is never unloaded), each of which is fit to
    // run around a fork.
    unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
}

extern "C" fn prepare() {
    signals::before_fork();
}

extern "C" fn parent() {
    signals::after_fork(false);
}

extern "C" fn child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    signals::after_fork(true);
}
