// SPDX-License-Identifier: GPL-3.0-or-later
//! `ns_thrpool_dump`: what each job and each thread of a pool does, a line each.
//!
//! The jobs come from the loop ([`look`](crate::shared::look)), what the threads do from their slots. All is
//! collected first, in memory that this thread has allocated; then the application gets the lines, and the
//! call is over as far as the pool is concerned.

use std::ffi::CStr;
use std::ptr::NonNull;

use super::Pool;
use super::report::{Dumped, Report, Seen};
use crate::alloc::Allocator;
use crate::event::look_step;
use crate::group::Task;
use crate::job::here::on_loop_of;
use crate::shared::look::{Look, Record};
use crate::sys::{self, CancelGuard};

/// How long the loop has to answer, in nanoseconds.
const PATIENCE: u64 = 1_000_000_000;
/// How much room there is for jobs, at least, whenever the loop is asked for more.
const ROOM: usize = 4096;

/// Memory for so many values, of which some are in use.
struct Memory<T> {
    alloc: Allocator,
    at: Option<NonNull<T>>,
    room: usize,
}

impl<T: Copy> Memory<T> {
    fn new(alloc: Allocator) -> Self {
        let (at, room) = (None, 0);
        Self { alloc, at, room }
    }

    /// Makes room for `room` values; the first `used` stay. False if there is no memory.
    fn grow(&mut self, used: usize, room: usize) -> bool {
        if room <= self.room {
            return true;
        }
        let Some(new) = self.alloc.zeroed::<T>(room) else {
            return false;
        };
        if let Some(old) = self.at.replace(new) {
            // SAFETY: both have so many values, and nobody else knows either.
            unsafe {
                new.copy_from_nonoverlapping(old, used);
                self.alloc.free(old);
            }
        }
        self.room = room;
        true
    }

    /// The first `used`, which have been written.
    fn values(&mut self, used: usize) -> &mut [T] {
        match self.at {
            // SAFETY: there are so many, and `self` is borrowed.
            Some(at) => unsafe { std::slice::from_raw_parts_mut(at.as_ptr(), used) },
            None => &mut [],
        }
    }
}

impl<T> Drop for Memory<T> {
    fn drop(&mut self) {
        if let Some(at) = self.at {
            // SAFETY: it came from this allocator.
            unsafe { self.alloc.free(at) };
        }
    }
}

impl Pool {
    /// `ns_thrpool_dump`: calls `line` with each line.
    pub(crate) fn dump(&self, line: impl FnMut(&CStr)) -> Dumped {
        let shared = &self.shared;
        let mut look = Look::new();
        let mut records = Memory::<Record>::new(shared.alloc);
        let mut seen = Memory::<Seen>::new(shared.alloc);
        let threads = self.workers + 1;
        let queues;
        let outcome = {
            let _cancel = CancelGuard::new();
            let _in_call = shared.waiters.enter();
            let own = on_loop_of(shared.as_c());
            if !seen.grow(0, threads) {
                return Dumped::NoMemory;
            }
            self.see(&mut seen, None);
            let outcome = if own {
                self.look(&mut look, &mut records, |look| {
                    // SAFETY: the lists live as long as the pool. This thread is the loop, inside a
                    // callback: so nothing changes them meanwhile.
                    look_step(shared, unsafe { self.lists.as_ref() }, look);
                    if let Some(group) = look.take_released() {
                        shared.release_group(group);
                    }
                    true
                })
            } else if shared.desk.take(sys::now() + PATIENCE) {
                let outcome = self.look(&mut look, &mut records, |look| {
                    let send = || {
                        shared.requests.push(Task::look());
                        shared.wake_loop();
                    };
                    let deadline = sys::now() + PATIENCE;
                    shared.desk.ask(look, deadline, send, || self.look_alone())
                });
                shared.desk.give_back();
                outcome
            } else {
                Dumped::TimedOut
            };
            for group in look.let_go().into_iter().flatten() {
                shared.release_group(group);
            }
            self.see(&mut seen, Some(threads));
            queues = (
                shared.requests.len(),
                shared.loop_work.len(),
                shared.work.len(),
            );
            outcome
        };
        if outcome == Dumped::NoMemory {
            return outcome;
        }
        // From here on the pool may be destroyed: `line` may do so.
        let mut report = Report {
            now: sys::now(),
            name: self.name,
            seen: seen.values(threads),
            line,
        };
        report.tell(records.values(look.used), look.skipped, outcome, queues);
        outcome
    }

    /// If a thread has asked for a look, and no thread is the loop, answers.
    pub(super) fn look_alone(&self) {
        let shared = &self.shared;
        let Some(caller) = shared.caller.as_ref().filter(|_| shared.desk.is_wanted()) else {
            return;
        };
        let mut release = None;
        caller.while_outside(|| {
            release = shared.desk.answer(|look| {
                // SAFETY: the lists live as long as the pool, and no thread changes them meanwhile.
                look_step(shared, unsafe { self.lists.as_ref() }, look);
            });
        });
        if let Some(group) = release {
            shared.release_group(group);
        }
    }

    /// Notes what the threads do. A call that was seen before keeps its time.
    fn see(&self, seen: &mut Memory<Seen>, before: Option<usize>) {
        let now = sys::now();
        let known = before.is_some();
        let at = seen.at.expect("memory");
        for (number, slot) in self.shared.slots.all().enumerate() {
            // SAFETY: there is room for all threads, and what is known was written.
            unsafe {
                let at = at.add(number);
                let old = if known { Some(at.read()) } else { None };
                at.write(Seen::new(slot, number, now, old));
            }
        }
    }

    /// Has `step` note all jobs.
    fn look(
        &self,
        look: &mut Look,
        records: &mut Memory<Record>,
        mut step: impl FnMut(&mut Look) -> bool,
    ) -> Dumped {
        while !look.is_over() {
            let room = look.used + look.need.max(ROOM);
            let room = if room > records.room { room * 2 } else { room };
            if !records.grow(look.used, room) {
                return Dumped::NoMemory;
            }
            look.room = records.room;
            look.records = records.at.map_or(std::ptr::null_mut(), NonNull::as_ptr);
            if !step(look) {
                return Dumped::TimedOut;
            }
        }
        Dumped::All
    }
}
