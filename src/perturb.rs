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

/// The same, in a signal handler.
#[cfg(not(ns_perturb))]
#[inline(always)]
pub(crate) fn perturb_in_handler(_point: &'static str) {}

#[cfg(ns_perturb)]
pub(crate) use noise::{perturb, perturb_in_handler};

#[cfg(ns_perturb)]
mod noise {
    use std::cell::Cell;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    use crate::sys::{CancelGuard, ErrnoGuard};

    static SEED: OnceLock<u64> = OnceLock::new();
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

    /// A point between two steps, named for what has happened and what has not.
    pub(crate) fn perturb(point: &'static str) {
        static THREADS: AtomicU64 = AtomicU64::new(1);
        thread_local! {
            static STATE: Cell<u64> = const { Cell::new(0) };
        }
        let _errno = ErrnoGuard::new();
        let seed = *SEED.get_or_init(|| std::env::var("NS_SEED").map_or(1, |text| number(&text)));
        let mut state = STATE.get();
        if state == 0 {
            // The n-th thread draws the same with the same seed.
            let thread = THREADS.fetch_add(1, Ordering::Relaxed);
            state = (seed ^ thread.wrapping_mul(GOLDEN)) | 1;
        }
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        STATE.set(state);
        delay(state, point);
    }

    /// The same, in a signal handler: no environment, nothing of the thread's own. Before the first
    /// other point there is no seed, and no noise.
    pub(crate) fn perturb_in_handler(point: &'static str) {
        static DRAWN: AtomicU64 = AtomicU64::new(0);
        let Some(seed) = SEED.get() else { return };
        let _errno = ErrnoGuard::new();
        let drawn = DRAWN.fetch_add(GOLDEN, Ordering::Relaxed);
        let state = (seed ^ drawn).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        delay(state ^ state >> 31, point);
    }

    fn delay(state: u64, point: &str) {
        let draw = state.wrapping_add(point.len() as u64) >> 20;
        if draw.is_multiple_of(256) {
            // Sleeping is a cancellation point, which no function of ours is.
            let _cancel = CancelGuard::new();
            let time = libc::timespec {
                tv_sec: 0,
                tv_nsec: (draw / 256 % 100 * 1000) as libc::c_long,
            };
            // Once: if signals rain, each new try begins and ends without any time going by.
            // SAFETY: a time of ours.
            unsafe { libc::nanosleep(&time, std::ptr::null_mut()) };
        } else if draw.is_multiple_of(8) {
            std::thread::yield_now();
        }
    }

    /// A number as strtoull(3) takes it with base 0: decimal, 0x and hexadecimal, 0 and octal.
    fn number(text: &str) -> u64 {
        let text = text.trim();
        let hexadecimal = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X"));
        let value = match (hexadecimal, text.strip_prefix('0')) {
            (Some(digits), _) => u64::from_str_radix(digits, 16),
            (None, Some(digits)) if !digits.is_empty() => u64::from_str_radix(digits, 8),
            _ => text.parse(),
        };
        value.unwrap_or(1)
    }

    #[cfg(test)]
    #[test]
    fn seeds_are_taken_as_c_takes_them() {
        let taken = ["0", "17", "0x1F", "0X10", "010", "x"].map(number);
        assert_eq!(taken, [0, 17, 31, 16, 8, 1]);
    }
}
