// SPDX-License-Identifier: GPL-3.0-or-later
//! The loop's lists of jobs.

use crate::job::JobPtr;
use crate::list::Head;
use crate::timers::{Rings, Timer};

/// The loop's lists of jobs, apart from the loop since jobs point at them, and the loop is changed
/// through `&mut`. All zero, they are empty.
pub(crate) struct Lists {
    /// The wheel's.
    pub(super) timers: Rings,
    /// When descriptors that the poller has refused are tried again: in the wheel, and no job's.
    pub(super) retry: Timer,
    /// Signal jobs that were armed once.
    pub(super) signal_jobs: Head,
    /// Jobs that no other list has: those whose descriptor is gone; those whose request to be armed
    /// came when the loop was quiet; and, at the end, those that were in the queues and in no list.
    pub(super) strays: Head,
}

/// Jobs that fired and are to run in the loop, in order.
#[derive(Default)]
pub(super) struct Ready {
    first: Option<JobPtr>,
    /// Where one turn ends: what fires while it runs comes behind.
    pub(super) last: Option<JobPtr>,
}

impl Ready {
    /// Put `job` last.
    pub(super) fn push(&mut self, job: JobPtr) {
        job.watch().next_ready.set(None);
        match self.last.replace(job) {
            None => self.first = Some(job),
            Some(last) => last.watch().next_ready.set(Some(job)),
        }
    }

    /// Take the first.
    pub(super) fn pop(&mut self) -> Option<JobPtr> {
        let job = self.first?;
        self.first = job.watch().next_ready.take();
        if self.first.is_none() {
            self.last = None;
        }
        Some(job)
    }

    /// Take `job` out, from wherever it is. For what happens rarely: it is looked for.
    pub(super) fn remove(&mut self, job: JobPtr) {
        let mut others = Self::default();
        while let Some(next) = self.pop() {
            if next != job {
                others.push(next);
            }
        }
        *self = others;
    }

    /// Whether there is none.
    pub(super) fn is_empty(&self) -> bool {
        self.first.is_none()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::ptr::{self, NonNull};

    use super::*;
    use crate::abi::{NS_JOB_READ, NS_JOB_SIGNAL, NS_JOB_TIMER, ns_job_t};
    use crate::alloc::Allocator;
    use crate::fds::Table;
    use crate::job::state::State;
    use crate::job::{Spec, Trigger, note};
    use crate::list::Ring;
    use crate::timers::Wheel;

    unsafe extern "C" fn nothing(_: *mut ns_job_t) {}

    const ALLOC: fn() -> Allocator = || Allocator::new(None, None);

    /// Jobs as the pool makes them, but of no pool.
    fn make(trigger: Trigger) -> JobPtr {
        let flags = match trigger {
            Trigger::Timer(_) => NS_JOB_TIMER,
            Trigger::Signal(_) => NS_JOB_SIGNAL,
            _ => NS_JOB_READ,
        };
        let spec = Spec {
            flags,
            trigger,
            func: nothing,
            data: ptr::null_mut(),
            armed: false,
            roomy: false,
        };
        // Nobody asks for the pool.
        JobPtr::make(&ALLOC(), NonNull::dangling(), &spec, State::waiting(), 0).expect("memory")
    }

    fn free(job: JobPtr) {
        assert!(!job.watch().link.is_linked() && !job.watch().timer.is_linked());
        // SAFETY: made above, and in no list.
        unsafe { job.give_back(&ALLOC()) };
    }

    /// Lists that a loop would have, which is changed through `&mut` all the while.
    struct Loop {
        wheel: Wheel,
        lists: NonNull<Lists>,
        ready: Ready,
    }

    impl Loop {
        fn new() -> Self {
            let lists = ALLOC().zeroed::<Lists>(1).expect("memory");
            // SAFETY: empty, and for this wheel.
            let wheel = unsafe {
                let timers = &raw mut (*lists.as_ptr()).timers;
                Wheel::new(NonNull::new_unchecked(timers), 0)
            };
            let ready = Ready::default();
            Self {
                wheel,
                lists,
                ready,
            }
        }

        fn lists<'a>(&self) -> &'a Lists {
            // SAFETY: freed when the loop goes.
            unsafe { self.lists.as_ref() }
        }

        fn start(&mut self, job: JobPtr, now: u64) {
            job.restart(now);
            job.mark(note::MAY_FIRE);
            // SAFETY: not linked, and unlinked before it is freed.
            unsafe { self.wheel.insert(job.timer()) };
        }

        /// What is due goes to the ready list.
        fn expire(&mut self, now: u64) {
            let Self { wheel, ready, .. } = self;
            wheel.expire(
                now,
                usize::MAX,
                // SAFETY: linked timers are those of live jobs.
                |timer| unsafe { JobPtr::of_timer(timer) }.is(note::MAY_FIRE),
                // SAFETY: as above.
                |timer| ready.push(unsafe { JobPtr::of_timer(timer) }),
            );
        }
    }

    impl Drop for Loop {
        fn drop(&mut self) {
            // SAFETY: nothing is linked any more.
            unsafe { ALLOC().free(self.lists) };
        }
    }

    #[test]
    fn jobs_are_found_from_their_timers() {
        let mut own = Loop::new();
        let jobs: Vec<JobPtr> = (0..20u64)
            .map(|i| make(Trigger::Timer(i * 1_000_000)))
            .collect();
        for (i, &job) in jobs.iter().enumerate() {
            own.start(job, i as u64);
        }
        jobs[3].unmark(note::MAY_FIRE);
        own.expire(10_500_000);
        let mut got = Vec::new();
        while let Some(job) = own.ready.pop() {
            got.extend(jobs.iter().position(|&other| other == job));
        }
        assert_eq!(got, [0, 1, 2, 4, 5, 6, 7, 8, 9, 10]);
        Wheel::remove(&jobs[12].watch().timer);
        let mut left = 0;
        while let Some(timer) = own.wheel.take_any() {
            // SAFETY: that of a live job.
            let job = unsafe { JobPtr::of_timer(timer) };
            assert!(jobs[11..].contains(&job) && job != jobs[12]);
            left += 1;
        }
        assert_eq!(left, 8);
        jobs.into_iter().for_each(free);
    }

    #[test]
    fn time_outs_wait_in_a_ring_until_the_poller_was_asked() {
        let mut own = Loop::new();
        let job = make(Trigger::Io {
            fd: 7,
            prfd: ptr::null_mut(),
            timeout: 1_000,
        });
        own.start(job, 0);
        let timed_out = Ring::new();
        // SAFETY: just unlinked, and unlinked again below.
        own.wheel.expire(
            9_000,
            9,
            |_| true,
            |timer| unsafe { Timer::push_to(timer, &timed_out) },
        );
        let timer = Timer::take_first(&timed_out).expect("it is due");
        // SAFETY: that of a live job.
        assert!(unsafe { JobPtr::of_timer(timer) } == job);
        assert!(timed_out.is_empty());
        free(job);
    }

    #[test]
    fn jobs_are_found_from_the_lists_of_signals_strays_and_descriptors() {
        let mut own = Loop::new();
        let table = Table::new();
        let entry = table.reserve(&ALLOC(), 7).expect("memory");
        let io = || {
            make(Trigger::Io {
                fd: 7,
                prfd: ptr::null_mut(),
                timeout: 5_000,
            })
        };
        let jobs = [
            make(Trigger::Signal(15)),
            io(),
            io(),
            make(Trigger::Signal(1)),
            io(),
        ];
        for job in jobs {
            let list = match job.fd() {
                7 => &entry.jobs,
                _ => &own.lists().signal_jobs,
            };
            // SAFETY: not linked, and unlinked before it is freed.
            unsafe { list.push(job.link()) };
        }
        own.start(jobs[1], 0);
        jobs[1].watch().link.unlink();
        // SAFETY: as above.
        unsafe { own.lists().strays.push(jobs[1].link()) };
        own.expire(9_000);
        assert!(own.ready.pop() == Some(jobs[1]) && own.ready.is_empty());
        let mut found = Vec::new();
        for list in [&entry.jobs, &own.lists().signal_jobs, &own.lists().strays] {
            while !list.is_empty() {
                // SAFETY: a node of these lists is that of a live job.
                let job = unsafe { JobPtr::of_link(list.first()) };
                job.watch().link.unlink();
                found.extend(jobs.iter().position(|&other| other == job));
            }
        }
        assert_eq!(found, [4, 2, 3, 0, 1]);
        jobs.into_iter().for_each(free);
        // SAFETY: nothing is linked, and nobody has it.
        unsafe { table.free(&ALLOC()) };
    }
}
