// SPDX-License-Identifier: GPL-3.0-or-later
//! Knowing that this process is a forked child of the one that made a pool.
//!
//! A child has its parent's memory and descriptors, but none of its threads. Each pool remembers
//! the generation that it was made in; a fork makes the child one generation younger.

use std::sync::Once;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::event::signals;

static GENERATION: AtomicU32 = AtomicU32::new(0);

/// How many forks lie between this process and the first.
pub(crate) fn generation() -> u32 {
    GENERATION.load(Ordering::Relaxed)
}

/// Watch for forks. Before the first pool is made.
pub(crate) fn watch() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: three functions that stay (the library is never unloaded), each of which is
        // fit to run around a fork.
        unsafe { libc::pthread_atfork(Some(prepare), Some(parent), Some(child)) };
    });
}

/// The registry of signals is to be whole in the child: nobody may be in the middle of a change.
extern "C" fn prepare() {
    signals::lock_registry();
}

extern "C" fn parent() {
    signals::unlock_registry();
}

extern "C" fn child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    signals::unlock_registry();
}
