// SPDX-License-Identifier: GPL-3.0-or-later
//! Loom's atomics, with one ordering changed if the environment says so: then one build of the models
//! serves all trials of `tools/orderings.py`.
//!
//! `NS_TRIAL="src/workq.rs:228:9 0 AcqRel"` replaces the first ordering (0) of the call at that file, line
//! and column. A fence whose ordering becomes `Relaxed` is left out. With `NS_SITES=1` each call is
//! printed when it is met first.

use std::collections::HashSet;
use std::panic::Location;
use std::sync::{LazyLock, Mutex};

use loom::sync::atomic as looms;
pub(crate) use loom::sync::atomic::Ordering;

/// One ordering of a call, and what it is to be.
struct Trial {
    file: String,
    line: u32,
    column: u32,
    argument: usize,
    ordering: Ordering,
}

static TRIAL: LazyLock<Option<Trial>> = LazyLock::new(|| {
    let trial = std::env::var("NS_TRIAL").ok()?;
    let mut words = trial.split([':', ' ']);
    let mut next = || words.next().expect("FILE:LINE:COLUMN ARGUMENT ORDERING");
    Some(Trial {
        file: next().to_owned(),
        line: next().parse().expect("a line"),
        column: next().parse().expect("a column"),
        argument: next().parse().expect("which of the orderings"),
        ordering: match next() {
            "Relaxed" => Ordering::Relaxed,
            "Acquire" => Ordering::Acquire,
            "Release" => Ordering::Release,
            "AcqRel" => Ordering::AcqRel,
            "SeqCst" => Ordering::SeqCst,
            other => panic!("NS_TRIAL: {other} is no ordering"),
        },
    })
});

/// The calls met so far, if they are to be printed.
static SITES: LazyLock<Option<Mutex<HashSet<Location<'static>>>>> =
    LazyLock::new(|| std::env::var_os("NS_SITES").map(|_| Mutex::default()));

/// The ordering for the caller's caller, whose ordering number `argument` is `written`.
#[track_caller]
fn ordering(argument: usize, written: Ordering) -> Ordering {
    let place = Location::caller();
    if let Some(sites) = &*SITES {
        let mut sites = sites.lock().expect("nobody panics inside");
        if sites.insert(*place) {
            println!("site {place}");
        }
    }
    match &*TRIAL {
        Some(trial)
            if (place.line(), place.column()) == (trial.line, trial.column)
                && argument == trial.argument
                && place.file() == trial.file =>
        {
            trial.ordering
        }
        _ => written,
    }
}

#[track_caller]
pub(crate) fn fence(written: Ordering) {
    match ordering(0, written) {
        Ordering::Relaxed => (),
        ordering => looms::fence(ordering),
    }
}

/// An atomic of loom's whose calls ask [`ordering`]: `(operations that take a value and an ordering)`.
macro_rules! atomic {
    ($name:ident<$($of:ident)?>, $value:ty, $($operation:ident)*) => {
        #[derive(Debug)]
        pub(crate) struct $name$(<$of>)?(looms::$name$(<$of>)?);

        #[allow(dead_code, reason = "each has the operations of all")]
        impl$(<$of>)? $name$(<$of>)? {
            #[track_caller]
            pub(crate) fn new(value: $value) -> Self {
                Self(looms::$name::new(value))
            }

            #[track_caller]
            pub(crate) fn load(&self, order: Ordering) -> $value {
                self.0.load(ordering(0, order))
            }

            #[track_caller]
            pub(crate) fn store(&self, value: $value, order: Ordering) {
                self.0.store(value, ordering(0, order));
            }

            #[track_caller]
            pub(crate) fn compare_exchange(
                &self,
                old: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                let (success, failure) = (ordering(0, success), ordering(1, failure));
                self.0.compare_exchange(old, new, success, failure)
            }

            #[track_caller]
            pub(crate) fn compare_exchange_weak(
                &self,
                old: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                let (success, failure) = (ordering(0, success), ordering(1, failure));
                self.0.compare_exchange_weak(old, new, success, failure)
            }

            $(
                #[track_caller]
                pub(crate) fn $operation(&self, value: $value, order: Ordering) -> $value {
                    self.0.$operation(value, ordering(0, order))
                }
            )*
        }
    };
}

atomic!(AtomicBool<>, bool, swap fetch_or fetch_and);
atomic!(AtomicPtr<T>, *mut T, swap);
atomic!(AtomicU8<>, u8, swap fetch_add fetch_sub fetch_or fetch_and);
atomic!(AtomicU32<>, u32, swap fetch_add fetch_sub fetch_or fetch_and);
atomic!(AtomicU64<>, u64, swap fetch_add fetch_sub fetch_or fetch_and);
atomic!(AtomicUsize<>, usize, swap fetch_add fetch_sub fetch_or fetch_and fetch_max);
