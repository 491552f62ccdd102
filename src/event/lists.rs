// SPDX-License-Identifier: GPL-3.0-or-later
//! The loop's lists of jobs.

use std::cell::Cell;
use std::mem::offset_of;

use crate::job::JobPtr;
use crate::list::Head;
use crate::symbol::Field;
use crate::timers::{Rings, Timer};

/// The loop's lists of jobs. They are a separate allocation because jobs point to them while the
/// loop is changed through `&mut`. All zero is a valid value: empty lists.
pub(crate) struct Lists {
    /// The rings of the wheel.
    pub(super) timers: Rings,
    /// The timer for the next retry of refused descriptors. It is in the wheel, and belongs to no
    /// job.
    pub(super) retry: Timer,
    /// Signal jobs that have been armed at least once.
    pub(super) signal_jobs: Head,
    /// Jobs that have fired, and run in the loop.
    pub(super) ready: Ready,
    /// Jobs in no other list: orphans; jobs whose request to be armed came when the loop was quiet;
    /// and, at the end of the pool, jobs that were only in a queue.
    pub(super) strays: Head,
}

/// See [`layout`](crate::layout).
pub(crate) const LISTS_LAYOUT: &[Field] = &[
    (
        "lists.timers",
        offset_of!(Lists, timers),
        size_of::<Rings>(),
    ),
    ("lists.retry", offset_of!(Lists, retry), size_of::<Timer>()),
    (
        "lists.signals",
        offset_of!(Lists, signal_jobs),
        size_of::<Head>(),
    ),
    (
        "lists.ready",
        offset_of!(Lists, ready) + offset_of!(Ready, first),
        size_of::<usize>(),
    ),
    ("lists.strays", offset_of!(Lists, strays), size_of::<Head>()),
];

/// Jobs that have fired and will run in the loop, in order. All zero is a valid value: no job.
#[derive(Default)]
pub(super) struct Ready {
    first: Cell<Option<JobPtr>>,
    last: Cell<Option<JobPtr>>,
}

impl Ready {
    /// Append `job`.
    pub(super) fn push(&self, job: JobPtr) {
        job.trigger_part().next_ready.set(None);
        match self.last.replace(Some(job)) {
            None => self.first.set(Some(job)),
            Some(last) => last.trigger_part().next_ready.set(Some(job)),
        }
    }

    /// The last job. A turn stops after the job that was last when it began: jobs that fire
    /// meanwhile are queued behind it.
    pub(super) fn last(&self) -> Option<JobPtr> {
        self.last.get()
    }

    /// All jobs, which stay.
    pub(super) fn jobs(&self) -> impl Iterator<Item = JobPtr> {
        std::iter::successors(self.first.get(), |job| job.trigger_part().next_ready.get())
    }

    /// Take the first job.
    pub(super) fn pop(&self) -> Option<JobPtr> {
        let job = self.first.get()?;
        let next = job.trigger_part().next_ready.take();
        self.first.set(next);
        if next.is_none() {
            self.last.set(None);
        }
        Some(job)
    }

    /// Take `job` out, wherever it is. This walks the whole list, so it is for rare cases.
    pub(super) fn remove(&self, job: JobPtr) {
        let others = Self::default();
        while let Some(next) = self.pop() {
            if next != job {
                others.push(next);
            }
        }
        self.first.swap(&others.first);
        self.last.swap(&others.last);
    }

    /// Whether the list is empty.
    pub(super) fn is_empty(&self) -> bool {
        self.first.get().is_none()
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
    use crate::job::{Front, Spec, Trigger, note};
    use crate::list::Ring;
    use crate::timers::Wheel;

    unsafe extern "C" fn nothing(_: *mut ns_job_t) {}

    const ALLOC: fn() -> Allocator = || Allocator::new(None, None);

    /// Make a job as a pool does, but without a pool.
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
            front: Front::Nothing,
        };
        // Nothing in these tests follows the pointer to the pool.
        JobPtr::make(&ALLOC(), NonNull::dangling(), &spec, State::waiting(), 0).expect("memory")
    }

    fn free(job: JobPtr) {
        assert!(!job.trigger_part().link.is_linked() && !job.trigger_part().timer.is_linked());
        // SAFETY: `make` allocated it from the same allocator, and no list points to it.
        unsafe { job.give_back(&ALLOC()) };
    }

    /// The wheel and the lists of a loop. As in the loop, they are changed through `&mut` while
    /// jobs point to the lists.
    struct Loop {
        wheel: Wheel,
        lists: NonNull<Lists>,
        ready: Ready,
    }

    impl Loop {
        fn new() -> Self {
            let lists = ALLOC().zeroed::<Lists>(1).expect("memory");
            // SAFETY: the rings are zeroed, so they are empty; only this wheel uses them; and
            // `drop` frees them when it is no longer used.
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
            // SAFETY: `drop` frees the lists, at the end of the test.
            unsafe { self.lists.as_ref() }
        }

        fn start(&mut self, job: JobPtr, now: u64) {
            job.restart(now);
            job.mark(note::MAY_FIRE);
            // SAFETY: the node is not linked, and the test unlinks it before it frees the job.
            unsafe { self.wheel.insert(job.timer()) };
        }

        /// Put the jobs that are due on the ready list.
        fn expire(&mut self, now: u64) {
            let Self { wheel, ready, .. } = self;
            wheel.expire(
                now,
                usize::MAX,
                // SAFETY: a linked timer belongs to a live job.
                |timer| unsafe { JobPtr::of_timer(timer) }.is(note::MAY_FIRE),
                // SAFETY: as above.
                |timer| ready.push(unsafe { JobPtr::of_timer(timer) }),
            );
        }
    }

    impl Drop for Loop {
        fn drop(&mut self) {
            // SAFETY: `new` allocated it from the same allocator. Each test has unlinked its jobs.
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
        Wheel::remove(&jobs[12].trigger_part().timer);
        let mut left = 0;
        while let Some(timer) = own.wheel.take_any() {
            // SAFETY: the timer belongs to a live job.
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
        // SAFETY: `expire` has just unlinked it; `take_first` below unlinks it again.
        own.wheel.expire(
            9_000,
            9,
            |_| true,
            |timer| unsafe { Timer::push_to(timer, &timed_out) },
        );
        let timer = Timer::take_first(&timed_out).expect("it is due");
        // SAFETY: the timer belongs to a live job.
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
            // SAFETY: the node is not linked, and the test unlinks it before it frees the job.
            unsafe { list.push(job.link()) };
        }
        own.start(jobs[1], 0);
        jobs[1].trigger_part().link.unlink();
        // SAFETY: as above.
        unsafe { own.lists().strays.push(jobs[1].link()) };
        own.expire(9_000);
        assert!(own.ready.pop() == Some(jobs[1]) && own.ready.is_empty());
        let mut found = Vec::new();
        for list in [&entry.jobs, &own.lists().signal_jobs, &own.lists().strays] {
            while !list.is_empty() {
                // SAFETY: every node of these lists belongs to a live job.
                let job = unsafe { JobPtr::of_link(list.first()) };
                job.trigger_part().link.unlink();
                found.extend(jobs.iter().position(|&other| other == job));
            }
        }
        assert_eq!(found, [4, 2, 3, 0, 1]);
        jobs.into_iter().for_each(free);
        // SAFETY: no job is linked in the table any more, and nothing else uses it.
        unsafe { table.free(&ALLOC()) };
    }
}
