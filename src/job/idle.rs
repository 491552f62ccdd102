// SPDX-License-Identifier: GPL-3.0-or-later
//! Counts idle jobs by callback, so that the destruction of a pool can log which jobs were left.
//!
//! An idle job belongs to the application and is in no list, so the library cannot find it. Instead
//! we count each step into WAITING and out of it, by callback. Such steps are rare: a job that is
//! made armed, and is finished with or armed again in its callback, is never WAITING and costs
//! nothing here.
//!
//! A thread counts a step after it has taken it. So one thread may count that a job has left
//! WAITING before another counts that it entered. The counts are sums, and they are read only after
//! all calls are over; until then they may even be negative, and nobody sees it.

use std::fmt;
use std::ptr;
use std::sync::atomic::{AtomicIsize, AtomicPtr, Ordering};

use libc::c_void;

use crate::abi::ns_job_t;
use crate::symbol::Symbol;

/// The type of a job's callback.
type Func = unsafe extern "C" fn(*mut ns_job_t);

/// The number of callbacks that we can tell apart. An application that leaves jobs idle between two
/// runs has only a few.
const SLOTS: usize = 32;

/// The number of callbacks that the log names.
const NAMED: usize = 4;

/// The count of idle jobs of one callback.
struct Slot {
    /// Null until the slot is taken; then the same callback for good.
    func: AtomicPtr<c_void>,
    jobs: AtomicIsize,
}

/// The counts of the idle jobs of one pool.
// In cache lines of their own: the neighbouring fields are used more often.
#[repr(align(64))]
pub(crate) struct Idle {
    /// A hash table with linear probing. A slot, once taken, is never given back, so a callback is
    /// always found in the first slot from its hash on that has its address.
    slots: [Slot; SLOTS],
    /// The count for all callbacks that found no slot.
    others: AtomicIsize,
}

impl Idle {
    /// No idle job.
    pub(crate) fn new() -> Self {
        Self {
            slots: [const {
                Slot {
                    func: AtomicPtr::new(ptr::null_mut()),
                    jobs: AtomicIsize::new(0),
                }
            }; SLOTS],
            others: AtomicIsize::new(0),
        }
    }

    /// A job with this callback has become idle.
    // Cold not because it is rare, but to keep the paths without it as short as they were.
    #[cold]
    #[inline(never)]
    pub(crate) fn add(&self, func: Func) {
        self.jobs_of(func).fetch_add(1, Ordering::Relaxed);
    }

    /// A job with this callback was idle and no longer is.
    #[cold]
    #[inline(never)]
    pub(crate) fn remove(&self, func: Func) {
        self.jobs_of(func).fetch_sub(1, Ordering::Relaxed);
    }

    fn jobs_of(&self, func: Func) -> &AtomicIsize {
        let func = func as *mut c_void;
        // Functions begin at multiples of 16. The multiplier is 2^64 divided by the golden ratio.
        let hash = (func as u64 >> 4).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
        for step in 0..SLOTS {
            let slot = &self.slots[(hash as usize + step) % SLOTS];
            let mut found = slot.func.load(Ordering::Relaxed);
            if found.is_null() {
                let taken = slot.func.compare_exchange(
                    ptr::null_mut(),
                    func,
                    Ordering::Relaxed,
                    Ordering::Relaxed,
                );
                found = taken.map_or_else(|other| other, |_| func);
            }
            if found == func {
                return &slot.jobs;
            }
        }
        &self.others
    }

    /// The idle jobs that are left when all calls are over; `None` if there are none.
    pub(crate) fn left(&self) -> Option<Left> {
        let others = self.others.load(Ordering::Relaxed);
        let mut left = Left {
            total: others,
            most: [(0, ptr::null_mut()); NAMED],
        };
        for slot in &self.slots {
            let mut one = (
                slot.jobs.load(Ordering::Relaxed),
                slot.func.load(Ordering::Relaxed),
            );
            left.total += one.0;
            for kept in &mut left.most {
                if kept.0 < one.0 {
                    std::mem::swap(kept, &mut one);
                }
            }
        }
        (left.total != 0).then_some(left)
    }
}

/// How many idle jobs are left, and the callbacks that most of them have.
pub(crate) struct Left {
    total: isize,
    /// The counts and their callbacks, largest first; 0 in unused elements.
    most: [(isize, *mut c_void); NAMED],
}

impl fmt::Display for Left {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.total == 1 { "" } else { "s" };
        write!(out, "{} idle job{s} never finished with:", self.total)?;
        let mut others = self.total;
        let mut between = "";
        for &(jobs, func) in self.most.iter().filter(|(jobs, _)| *jobs > 0) {
            write!(out, "{between} {jobs} of {}", Symbol(func))?;
            others -= jobs;
            between = ",";
        }
        if others != 0 {
            write!(out, "{between} {others} of others")?;
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn func(number: usize) -> Func {
        // SAFETY: the pointer is not null, and nobody calls it.
        unsafe { std::mem::transmute::<usize, Func>(0x1000 + number * 16) }
    }

    fn jobs(idle: &Idle) -> isize {
        idle.left().map_or(0, |left| left.total)
    }

    #[test]
    #[cfg_attr(miri, ignore = "the callbacks are made-up addresses")]
    fn counts_by_callback_come_and_go() {
        let idle = Idle::new();
        assert!(idle.left().is_none());
        for number in 0..SLOTS {
            for _ in 0..=number {
                idle.add(func(number));
            }
        }
        let left = idle.left().expect("some");
        assert_eq!(left.total, (1..=SLOTS as isize).sum());
        for (rank, (jobs, at)) in left.most.into_iter().enumerate() {
            let number = SLOTS - 1 - rank;
            assert_eq!(jobs, number as isize + 1);
            assert_eq!(at, func(number) as *mut c_void);
        }
        for number in 0..SLOTS {
            for _ in 0..=number {
                idle.remove(func(number));
            }
        }
        assert!(idle.left().is_none());
    }

    #[test]
    #[cfg_attr(miri, ignore = "the callbacks are made-up addresses")]
    fn those_without_a_place_are_counted_together() {
        let idle = Idle::new();
        for number in 0..SLOTS + 100 {
            idle.add(func(number));
        }
        assert_eq!(idle.others.load(Ordering::Relaxed), 100);
        assert_eq!(jobs(&idle), SLOTS as isize + 100);
        for number in (0..SLOTS + 100).rev() {
            idle.remove(func(number));
        }
        assert!(idle.left().is_none());
    }

    #[test]
    #[cfg_attr(miri, ignore = "the callbacks are made-up addresses")]
    fn threads_that_meet_find_one_place_for_a_callback() {
        let idle = Idle::new();
        std::thread::scope(|scope| {
            for first in 0..4 {
                let idle = &idle;
                scope.spawn(move || {
                    for round in 0..1000 {
                        let number = (round + first * 7) % 50;
                        // Also count a job as gone before it is counted as idle.
                        idle.remove(func(number));
                        idle.add(func(number));
                    }
                    idle.add(func(first));
                });
            }
        });
        assert_eq!(jobs(&idle), 4);
        let mut keys: Vec<_> = (idle.slots.iter())
            .map(|slot| slot.func.load(Ordering::Relaxed))
            .collect();
        keys.sort_unstable();
        keys.dedup();
        assert_eq!(keys.len(), SLOTS);
    }

    #[test]
    #[cfg_attr(miri, ignore = "the callbacks are made-up addresses")]
    fn the_log_says_how_many_and_which() {
        let idle = Idle::new();
        idle.add(func(0));
        let text = idle.left().expect("one").to_string();
        assert_eq!(text, "1 idle job never finished with: 1 of 0x1000");
        idle.remove(func(0));
        for number in 0..9 {
            idle.add(func(number));
            idle.add(func(number));
        }
        let text = idle.left().expect("18").to_string();
        assert!(text.starts_with("18 idle jobs never"), "{text}");
        assert!(text.ends_with(", 10 of others"), "{text}");
        assert_eq!(text.matches(" 2 of 0x").count(), NAMED);
    }
}
