// SPDX-License-Identifier: GPL-3.0-or-later
//! Random delays for tests: at points between two steps of a protocol, a thread yields or sleeps
//! briefly, as a seeded random number decides.
//!
//! Loom cannot explore the poller, signals or the kernel's timers; there, this makes rare orders
//! frequent. It exists only under the private `cfg(ns_perturb)`, and takes the seed from `NS_SEED`.
//! Other builds contain none of it. `make check-deep` runs tests on such a build.

/// A point between two steps. Its name says what has happened and what has not.
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
    use std::sync::atomic::{AtomicU64, Ordering};

    use crate::sys::{CancelGuard, ErrnoGuard};

    /// 0 until it is known. Not under a lock: a child that is forked meanwhile would wait for it for
    /// ever.
    static SEED: AtomicU64 = AtomicU64::new(0);
    const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

    /// A point between two steps. Its name says what has happened and what has not.
    pub(crate) fn perturb(point: &'static str) {
        static THREADS: AtomicU64 = AtomicU64::new(1);
        thread_local! {
            static STATE: Cell<u64> = const { Cell::new(0) };
        }
        let _errno = ErrnoGuard::new();
        let mut seed = SEED.load(Ordering::Relaxed);
        if seed == 0 {
            seed = std::env::var("NS_SEED")
                .map_or(1, |text| number(&text))
                .max(1);
            SEED.store(seed, Ordering::Relaxed);
        }
        let mut state = STATE.get();
        if state == 0 {
            // With the same seed, the n-th thread draws the same numbers.
            let thread = THREADS.fetch_add(1, Ordering::Relaxed);
            state = (seed ^ thread.wrapping_mul(GOLDEN)) | 1;
        }
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        STATE.set(state);
        delay(state, point);
    }

    /// The same, in a signal handler. It reads no environment variable and no thread-local data.
    /// Before the first call of [`perturb`] there is no seed, and so no delay.
    pub(crate) fn perturb_in_handler(point: &'static str) {
        static DRAWN: AtomicU64 = AtomicU64::new(0);
        let seed = SEED.load(Ordering::Relaxed);
        if seed == 0 {
            return;
        }
        let _errno = ErrnoGuard::new();
        let drawn = DRAWN.fetch_add(GOLDEN, Ordering::Relaxed);
        let state = (seed ^ drawn).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        delay(state ^ state >> 31, point);
    }

    fn delay(state: u64, point: &str) {
        let draw = state.wrapping_add(point.len() as u64) >> 20;
        if draw % 256 == 0 {
            // nanosleep is a cancellation point, and no function of ours may be one.
            let _cancel = CancelGuard::new();
            let time = libc::timespec {
                tv_sec: 0,
                tv_nsec: (draw / 256 % 100 * 1000) as libc::c_long,
            };
            // No retry after an interruption: under a flood of signals it would never end.
            // SAFETY: the time is ours.
            unsafe { libc::nanosleep(&time, std::ptr::null_mut()) };
        } else if draw % 8 == 0 {
            std::thread::yield_now();
        }
    }

    /// A number as strtoull(3) reads it with base 0: decimal, hexadecimal after 0x, octal after 0.
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
