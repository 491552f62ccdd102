// SPDX-License-Identifier: GPL-3.0-or-later
//! How many jobs were made, by kind. Any thread makes jobs, so there are several counts, and threads use
//! different ones.

use std::sync::atomic::{AtomicU64, Ordering};

use super::slot::{JobKind, KINDS};

const STRIPES: usize = 16;

/// One count for each kind of job.
#[repr(C, align(64))]
struct Stripe([AtomicU64; KINDS]);

/// How many jobs of each kind were made.
#[repr(C)]
pub(crate) struct Made([Stripe; STRIPES]);

impl Made {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| {
            Stripe(std::array::from_fn(|_| AtomicU64::new(0)))
        }))
    }

    /// `jobs` of this kind were made.
    #[inline(always)]
    pub(crate) fn add(&self, kind: JobKind, jobs: u64) {
        self.0[stripe()].0[kind as usize].fetch_add(jobs, Ordering::Relaxed);
    }

    /// How many of this kind.
    pub(crate) fn sum(&self, kind: JobKind) -> u64 {
        let counts = self.0.iter().map(|stripe| &stripe.0[kind as usize]);
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// The stripe of the calling thread: the page that its stack has reached. It costs three instructions,
/// where a thread-local costs a call. Stacks of one size lie a page more than that apart, so the threads of
/// a process use different stripes; which one a thread uses changes nothing but the time that it takes.
#[inline(always)]
fn stripe() -> usize {
    let here = 0u8;
    (&raw const here).addr() >> 12 & (STRIPES - 1)
}
