// SPDX-License-Identifier: GPL-3.0-or-later
//! Noise in the schedule, for tests: at points between two steps of a protocol a thread yields, or
//! sleeps a little, as drawn from a seed.
//!
//! Where loom can't go (the poller, signals, the kernel's timers) this makes the rare orders
//! frequent. Only under the private `cfg(ns_perturb)`, with the seed from `NS_SEED`; else nothing
//! is left of it. `make check-deep` runs tests on such a build.

/// A point between two steps, named for what has happened and what has not.
#[cfg(not(ns_perturb))]
#[inline(always)]
pub(crate) fn perturb(_point: &'static str) {}

/// A point between two steps, named for what has happened and what has not.
#[cfg(ns_perturb)]
pub(crate) fn perturb(point: &'static str) {
    use std::cell::Cell;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    static SEED: OnceLock<u64> = OnceLock::new();
    static THREADS: AtomicU64 = AtomicU64::new(1);
    thread_local! {
        static STATE: Cell<u64> = const { Cell::new(0) };
    }

    let _errno = crate::sys::ErrnoGuard::new();
    let seed = *SEED.get_or_init(|| {
        let seed = std::env::var("NS_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        seed.unwrap_or(1)
    });
    let mut state = STATE.get();
    if state == 0 {
        // The n-th thread draws the same with the same seed.
        let thread = THREADS.fetch_add(1, Ordering::Relaxed);
        state = (seed ^ thread.wrapping_mul(0x9e37_79b9_7f4a_7c15)) | 1;
    }
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    STATE.set(state);
    let draw = state.wrapping_add(point.len() as u64) >> 20;
    if draw.is_multiple_of(256) {
        std::thread::sleep(Duration::from_micros(draw / 256 % 100));
    } else if draw.is_multiple_of(8) {
        std::thread::yield_now();
    }
}
