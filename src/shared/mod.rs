// SPDX-License-Identifier: GPL-3.0-or-later
//! What all threads of a pool share, and the steps that pass a job between them: make, arm, finish,
//! wait.
//!
//! A job keeps the pool pointer that C has, and that is a pointer to the pool's [`Shared`].
//! [`Job::pool`] converts it.
//!
//! Nothing here blocks except [`Shared::wait_for`], and nothing calls a function of the application
//! while it holds a lock.

pub(crate) mod caller;
pub(crate) mod free;
pub(crate) mod groups;
pub(crate) mod layout;
pub(crate) mod look;
pub(crate) mod many;
mod members;
pub(crate) mod metrics;
mod outcome;
pub(crate) mod overload;
mod stats;
pub(crate) mod thread;
mod times;
mod unusual;
mod wake;
pub(crate) mod watchdog;

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};

use crossbeam_queue::SegQueue;
use libc::c_int;

use crate::abi::{NS_JOB_PERSIST, NS_JOB_THREAD, ns_thrpool_t};
use crate::alloc::Allocator;
use crate::fds::{Entry, OWN, Table};
use crate::fork;
use crate::group::{Group, GroupPtr, Groups, Task};
use crate::job::free::{DeferredFrees, Entering};
use crate::job::here::{self, in_callback_of};
use crate::job::idle::Idle;
use crate::job::state::{self, Arm, End, State};
use crate::job::wait::{Outcome, Waiters};
use crate::job::{Job, JobPtr, Kind, Look, Spec, Trigger, probes};
use crate::log::Logger;
use crate::perturb::perturb;
use crate::shared::caller::Caller;
use crate::shared::look::Desk;
use crate::shared::overload::Overload;
use crate::shared::watchdog::Watchdog;
use crate::signals::{self, Mailbox, NotSubscribed};
use crate::stats::{Made, Slots};
use crate::sync::{Mutex, tsan_acquire, tsan_release};
use crate::sys;
use crate::wake::Wake;
use crate::workq::WorkQueue;
pub(crate) use outcome::{Armed, Ended, MakeError};

/// How far the loop of a pool has come in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Callbacks run.
    Active = 0,
    /// The pool is shut down and every worker has left. No callback runs any more; done callbacks
    /// do.
    Quiet = 1,
    /// The loop must dispose of all jobs and exit.
    Stopping = 2,
}

/// The part of a pool that all of its threads share.
pub(crate) struct Shared {
    pub(crate) alloc: Allocator,
    pub(crate) logger: Logger,
    /// The process that made the pool: see [`fork`].
    pub(crate) generation: u32,
    /// Requests to the loop: jobs to watch (ARMED) and to dispose of (NEEDS_DELETE); groups that
    /// were cancelled. A [`Task`] is a job or a group, in one word.
    pub(crate) requests: SegQueue<Task>,
    /// Wakes the loop, which then looks at `requests`, `loop_work`, `mailbox` and the life cycle.
    pub(crate) wake: Wake,
    /// Jobs to run or to close, and groups to serve, in workers.
    pub(crate) work: WorkQueue<Task>,
    /// The number of workers that have started.
    pub(crate) seats: AtomicUsize,
    /// Run-now jobs, and groups to serve, in the loop. This queue is separate from the requests, so
    /// that a flood of run-now jobs does not delay the arming of others.
    pub(crate) loop_work: SegQueue<Task>,
    /// Threads that are blocked in a wait for a job or a group.
    pub(crate) waiters: Waiters,
    /// Jobs whose free is deferred, because a thread may be about to wait for them.
    pub(crate) deferred: DeferredFrees<Job>,
    /// Groups that have ended, which a thread that is about to wait for one of their jobs may read.
    pub(crate) deferred_groups: DeferredFrees<Group>,
    /// All groups.
    pub(crate) groups: Mutex<Groups>,
    /// The counts of idle jobs, which belong to the application.
    pub(crate) idle: Idle,
    /// The descriptor table. The thread that makes a job reserves the entry; only the loop uses it
    /// otherwise.
    pub(crate) fds: Table,
    /// The signals that have arrived.
    pub(crate) mailbox: Mailbox,
    /// Bits of [`gate`], which every add tests at once.
    pub(crate) gate: AtomicU8,
    /// The jobs that wait for workers, if there is a limit.
    pub(crate) overload: Overload,
    /// Where threads ask the loop for a look at all jobs.
    pub(crate) desk: Desk,
    /// Callbacks that take long.
    pub(crate) watchdog: Watchdog,
    /// The pool reads the clock for each callback: it has a watchdog, or measures times.
    pub(crate) is_clocked: bool,
    /// The number of workers that have not left yet.
    pub(crate) workers: AtomicUsize,
    /// Who is the loop, if the pool has no thread for it.
    pub(crate) caller: Option<Caller>,
    /// How far the loop has come: a [`Phase`].
    phase: AtomicU8,
    /// The jobs that were made.
    pub(crate) made: Made,
    /// What each thread does and has done.
    pub(crate) slots: Slots,
    /// How often the loop was woken, and adds refused because of a limit.
    pub(crate) wakes: AtomicU64,
    pub(crate) refused: AtomicU64,
    /// The most workers that were busy at once, as far as they saw.
    pub(crate) busy_max: AtomicUsize,
}

/// Bits of [`Shared::gate`]. Where none is set, an add has nothing to look at.
mod gate {
    /// The pool is shutting down: no job is armed any more.
    pub(super) const SHUT: u8 = 1;
    /// The pool limits how many jobs wait for workers.
    pub(super) const LIMITED: u8 = 2;
    /// The pool was made without workers.
    pub(super) const NO_WORKERS: u8 = 4;
    /// The pool measures times.
    pub(super) const TIMED: u8 = 8;
}

// Jobs and thread arguments carry references to it across threads as raw pointers, where the
// compiler does not check that it is Sync.
#[cfg(not(loom))]
const _: fn() = || {
    fn is_sync<T: Sync>() {}
    is_sync::<Shared>();
};

impl Job {
    /// The pool that the job belongs to.
    pub(crate) fn pool(&self) -> &Shared {
        // SAFETY: a pool outlives its live jobs, and `Shared::as_c` made the pointer.
        unsafe { self.pool_as_c().cast().as_ref() }
    }
}

/// What the application's options chose for the part that all threads share.
pub(crate) struct Chosen {
    pub(crate) overload: Overload,
    pub(crate) caller: Option<Caller>,
    pub(crate) watchdog: Watchdog,
}

impl Shared {
    /// The shared part of a pool that has no threads yet.
    pub(crate) fn new(
        alloc: Allocator,
        logger: Logger,
        wake: Wake,
        workers: usize,
        chosen: Chosen,
        slots: Slots,
    ) -> Self {
        let Chosen {
            overload,
            caller,
            watchdog,
        } = chosen;
        let bit = |set, bit| if set { bit } else { 0 };
        let timed = slots.are_timed();
        let gate = bit(overload.has_limit(), gate::LIMITED)
            | bit(workers == 0, gate::NO_WORKERS)
            | bit(timed, gate::TIMED);
        Self {
            alloc,
            logger,
            generation: fork::generation(),
            requests: SegQueue::new(),
            wake,
            work: WorkQueue::new(workers),
            seats: AtomicUsize::new(0),
            loop_work: SegQueue::new(),
            waiters: Waiters::new(),
            deferred: DeferredFrees::new(alloc),
            deferred_groups: DeferredFrees::new(alloc),
            groups: Mutex::new(Groups::new()),
            idle: Idle::new(),
            fds: Table::new(),
            mailbox: Mailbox::new(),
            gate: AtomicU8::new(gate),
            overload,
            desk: Desk::new(),
            is_clocked: watchdog.is_on() || timed,
            watchdog,
            workers: AtomicUsize::new(workers),
            caller,
            phase: AtomicU8::new(Phase::Active as u8),
            made: Made::new(),
            slots,
            wakes: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            busy_max: AtomicUsize::new(0),
        }
    }

    /// The pool pointer that C has: the shared part is the first field of a pool.
    pub(crate) fn as_c(&self) -> NonNull<ns_thrpool_t> {
        NonNull::from(self).cast()
    }

    /// Whether the pool is shutting down: no job is armed any more.
    pub(crate) fn is_shutting_down(&self) -> bool {
        self.gate.load(Ordering::SeqCst) & gate::SHUT != 0
    }

    /// Whether no bit of the gate is set: then an add need not ask about shutdown, missing workers, a limit
    /// or times.
    pub(crate) fn needs_no_checks(&self) -> bool {
        self.gate.load(Ordering::SeqCst) == 0
    }

    /// Whether the pool was made without workers.
    pub(crate) fn has_no_workers(&self) -> bool {
        self.gate.load(Ordering::Relaxed) & gate::NO_WORKERS != 0
    }

    /// Whether the pool limits how many jobs wait for workers.
    pub(crate) fn has_limit(&self) -> bool {
        self.gate.load(Ordering::Relaxed) & gate::LIMITED != 0
    }

    /// Whether the pool measures times.
    pub(crate) fn is_timed(&self) -> bool {
        self.gate.load(Ordering::Relaxed) & gate::TIMED != 0
    }

    /// Whether every worker has left, and none will come: callbacks end.
    pub(crate) fn is_ending(&self) -> bool {
        self.is_shutting_down() && self.workers.load(Ordering::SeqCst) == 0
    }

    /// The pool shuts down. False if it did before.
    pub(crate) fn shut(&self) -> bool {
        self.gate.fetch_or(gate::SHUT, Ordering::SeqCst) & gate::SHUT == 0
    }

    /// Whether this process is a forked child of the process that made the pool.
    pub(crate) fn is_forked(&self) -> bool {
        fork::is_over(self.generation)
    }

    /// How far the loop has come.
    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::SeqCst) {
            0 => Phase::Active,
            1 => Phase::Quiet,
            _ => Phase::Stopping,
        }
    }

    /// Moves on to `phase`.
    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::SeqCst);
    }

    /// Makes a job and reserves all that it needs until it is disposed of: no later step can fail.
    /// The job is WAITING, or it is ARMED and the caller must pass it to [`Shared::start`]. No
    /// other thread knows the job yet.
    pub(crate) fn make(&self, spec: &Spec) -> Result<JobPtr, MakeError> {
        let state = if spec.armed {
            State::armed(queue_of(spec.kind()))
        } else {
            self.idle.add(spec.func);
            State::waiting()
        };
        let failed = |why| {
            if !spec.armed {
                self.idle.remove(spec.func);
            }
            why
        };
        let seen = match spec.trigger {
            Trigger::Io { fd, .. } => {
                let entry = self.fds.reserve(&self.alloc, fd);
                let entry = entry.ok_or_else(|| failed(MakeError::NoMemory))?;
                let closes = entry.closes();
                if closes & OWN == 0 {
                    closes
                } else if self.is_own(fd) {
                    return Err(failed(MakeError::OwnDescriptor));
                } else {
                    self.give_up(entry)
                }
            }
            // Read the count before we catch the signal: a signal that arrives from then on must
            // fire the job.
            Trigger::Signal(signum) => self.mailbox.count(signum),
            Trigger::Now | Trigger::Timer(_) => 0,
        };
        let job = JobPtr::make(&self.alloc, self.as_c(), spec, state, seen)
            .ok_or_else(|| failed(MakeError::NoMemory))?;
        if let Trigger::Signal(signum) = spec.trigger {
            // This comes last, so that we catch no signal for a job that could not be allocated.
            let subscribed = signals::subscribe(&self.mailbox, &self.wake, signum);
            // Signals were blocked until now. The handler of one that arrived meanwhile may have
            // forked, and then we are in the child. The child must not wait for the parent's
            // threads, which may have been in the middle of a push.
            let subscribed = subscribed.and_then(|()| match self.is_forked() {
                true => Err(NotSubscribed::Forked),
                false => Ok(()),
            });
            subscribed.map_err(|why| {
                // SAFETY: no other thread knows the job.
                unsafe { self.free_job(job) };
                failed(match why {
                    NotSubscribed::NoMemory => MakeError::NoMemory,
                    NotSubscribed::Refused => MakeError::NoSignal,
                    NotSubscribed::Forked => MakeError::Forked,
                })
            })?;
        }
        Ok(job)
    }

    /// Whether `fd`, which the table has as one of the pool's own, still is. The application may
    /// have closed it and opened another file with the same number.
    #[cold]
    #[inline(never)]
    fn is_own(&self, fd: c_int) -> bool {
        // On a system that cannot tell, we take the number to be ours.
        let link = std::fs::read_link(format!("/proc/self/fd/{fd}"));
        self.wake.is_ours(fd)
            || link.is_ok_and(|link| {
                link.as_os_str()
                    .as_encoded_bytes()
                    .starts_with(b"anon_inode:")
            })
            || !cfg!(target_os = "linux")
    }

    /// The number of `entry` is no longer the pool's own: makes the loop replace its lost
    /// descriptors. Returns the close count for the new job of the application.
    #[cold]
    #[inline(never)]
    fn give_up(&self, entry: &Entry) -> u32 {
        entry.set_own(false);
        self.wake.lose();
        self.nudge();
        entry.closes()
    }

    /// `ns_job_rearm`.
    pub(crate) fn arm(&self, job: JobPtr) -> Armed {
        if self.gate.load(Ordering::SeqCst) & (gate::SHUT | gate::TIMED) != 0 {
            return self.arm_gated(job);
        }
        tsan_release(&raw const job.state);
        let look = job.look();
        if look.is_unusual() {
            return self.arm_unusual(job);
        }
        let queue = queue_of(look.kind());
        match job.state.arm(queue, look.has(NS_JOB_PERSIST)) {
            Arm::Push => {
                self.idle.remove(job.func());
                self.start(job);
            }
            // The timer starts when the callback returns.
            Arm::Recorded => {}
            Arm::Refused => return Armed::NotNow,
        }
        Armed::Yes
    }

    /// `ns_job_done` and, with `even_armed`, `ns_job_cancel`.
    #[inline(always)]
    pub(crate) fn end(&self, job: JobPtr, even_armed: bool) -> Ended {
        // A raw pointer, because the job may be freed as soon as it is finished with. From then on
        // we use its address alone.
        let state = &raw const job.state;
        tsan_release(state);
        // While its own callback runs, a job is neither idle nor in any queue: it ends like most.
        if job.is_unusual() && !in_callback_of(job) {
            return self.end_unusual(job, even_armed);
        }
        let end = job.state.end_from(&self.waiters, even_armed);
        self.ended(job, state, end)
    }

    /// `job`, whose state is at `state`, was asked to end. It may be gone, unless the caller must push
    /// it.
    #[inline(always)]
    fn ended(&self, job: JobPtr, state: *const State, end: End) -> Ended {
        match end {
            end @ (End::Push | End::PushIdle) => {
                tsan_acquire(state);
                if end == End::PushIdle {
                    self.idle.remove(job.func());
                }
                self.request(job);
                Ended::Yes
            }
            End::Queued | End::Over => {
                tsan_acquire(state);
                Ended::Yes
            }
            End::Marked | End::OverRunning => Ended::Running,
            End::Armed => Ended::Armed,
        }
    }

    /// Hands on a job that is ARMED: a run-now job to its queue, any other to the loop. `make` or `arm` has
    /// set that queue's bit.
    pub(crate) fn start(&self, job: JobPtr) {
        probes::armed(self, job);
        let look = job.look_in_hand();
        if look.kind() == Kind::Now {
            return self.queue_now(job, look);
        }
        // No other thread sets the timer before the job is handed on.
        if job.trigger_has_timer() {
            job.restart(sys::now());
        }
        self.request(job);
    }

    /// Hands a run-now job to the threads that run it, which take it in `run::work` (run/mod.rs) or in
    /// `EventLoop::run_now` (event/fire.rs). The caller's step on the state word has set WORK.
    fn queue_now(&self, job: JobPtr, look: Look) {
        perturb("its state says that it is queued, and it is not pushed");
        if look.has(NS_JOB_THREAD) {
            self.work.push(Task::job(job));
        } else {
            self.loop_work.push(Task::job(job));
            self.wake_loop();
        }
    }

    /// Hands `job` to the loop, which takes it in `EventLoop::take_requests` (event/requests.rs). The
    /// caller's step on the state word has set REQ.
    pub(crate) fn request(&self, job: JobPtr) {
        perturb("its state says that it is queued, it is not pushed");
        self.requests.push(Task::job(job));
        perturb("pushed, and the loop not woken");
        self.wake_loop();
    }

    /// `ns_job_wait` and `ns_job_timedwait`. Returns `None` if the calling thread would block what
    /// it waits for. The caller has entered [`Shared::waiters`].
    pub(crate) fn wait_for(
        &self,
        job: JobPtr,
        deadline: Option<u64>,
        entering: Entering,
    ) -> Option<Outcome> {
        if job.state.now() == state::WAITING {
            tsan_acquire(&raw const job.state);
            return Some(Outcome::Idle);
        }
        if in_callback_of(job) || self.is_loop_here() {
            return None;
        }
        let own = |group: &GroupPtr| here::callbacks_of(group.as_ptr().cast()) > 0;
        if (job.group()).is_some_and(|group| group.core.is_single() && own(&group)) {
            // It can't run before the caller has returned.
            return None;
        }
        let is_worker = self.is_here();
        let stopped = || self.phase() >= Phase::Quiet || is_worker && self.is_shutting_down();
        let waiters = &self.waiters;
        Some(waiters.wait(&job.state, is_worker, deadline, stopped, entering))
    }
}

/// The bit of the queue through which a job of this kind is armed.
pub(crate) fn queue_of(kind: Kind) -> u32 {
    if kind == Kind::Now {
        state::WORK
    } else {
        state::REQ
    }
}
