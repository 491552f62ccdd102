// SPDX-License-Identifier: GPL-3.0-or-later
//! What all threads of a pool share, and the ways of a job between them: made, armed, finished,
//! waited for.
//!
//! A job knows its pool by the pointer that C has, which is that of its [`Shared`]: here it becomes one.
//!
//! Nothing here blocks but [`Shared::wait_for`], and nothing holds a lock while a function of the
//! application's runs.

pub(crate) mod free;

use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use crossbeam_queue::SegQueue;
use libc::c_int;

use crate::abi::{NS_JOB_PERSIST, NS_JOB_THREAD, ns_thrpool_t};
use crate::alloc::Allocator;
use crate::fds::{Entry, OWN, Table};
use crate::fork;
use crate::job::free::{DeferredFrees, Entering};
use crate::job::here::{self, in_callback_of, on_loop_of, on_thread_of};
use crate::job::idle::Idle;
use crate::job::state::{self, Arm, End, State};
use crate::job::wait::{Outcome, Waiters};
use crate::job::{Job, JobPtr, Kind, Spec, Trigger};
use crate::log::{Logger, log};
use crate::perturb::perturb;
use crate::signals::{self, Mailbox, NotSubscribed};
use crate::sync::{hand_over, take_over};
use crate::sys;
use crate::wake::Wake;
use crate::workq::WorkQueue;

/// How far a pool's loop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    /// Callbacks run.
    Active = 0,
    /// Shut down, every worker gone, and no callback runs any more; done callbacks do.
    Quiet = 1,
    /// To dispose of everything and end.
    Stopping = 2,
}

/// See the module.
pub(crate) struct Shared {
    pub(crate) alloc: Allocator,
    pub(crate) logger: Logger,
    /// The process that made the pool: see [`fork`].
    pub(crate) generation: u32,
    /// Requests to the loop: jobs to arm (ARMED) and to dispose of (NEEDS_DELETE).
    pub(crate) requests: SegQueue<JobPtr>,
    /// Gets the loop to look at `requests`, `loop_work`, `mailbox`, and the life cycle.
    pub(crate) wake: Wake,
    /// Jobs for the workers.
    pub(crate) work: WorkQueue<JobPtr>,
    /// Workers that have begun.
    pub(crate) seats: AtomicUsize,
    /// Run-now jobs for the loop. Apart from the requests, so that a flood of them does not keep
    /// others from being armed.
    pub(crate) loop_work: SegQueue<JobPtr>,
    /// Threads in `ns_job_wait`.
    pub(crate) waiters: Waiters,
    /// Jobs that are free but for those who may be about to wait for them.
    pub(crate) deferred: DeferredFrees<Job>,
    /// Jobs that are the application's.
    pub(crate) idle: Idle,
    /// Descriptors. Reserved by who makes a job; otherwise the loop's.
    pub(crate) fds: Table,
    /// Signals that have arrived.
    pub(crate) mailbox: Mailbox,
    /// Nothing is armed any more.
    pub(crate) shutdown: AtomicBool,
    /// Workers that have not left yet.
    pub(crate) workers: AtomicUsize,
    /// How far the loop has come, as [`Phase`].
    phase: AtomicU8,
}

// References to it cross threads as raw pointers, in jobs and as threads' arguments, where the
// compiler does not ask.
#[cfg(not(loom))]
const _: fn() = || {
    fn is_sync<T: Sync>() {}
    is_sync::<Shared>();
};

impl Job {
    /// The pool that it belongs to.
    pub(crate) fn pool(&self) -> &Shared {
        // SAFETY: a pool outlives its live jobs, and is what `Shared::make` has put there.
        unsafe { self.pool_as_c().cast().as_ref() }
    }
}

/// What an application is told of a request to arm a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Armed {
    Yes,
    ShuttingDown,
    NotNow,
}

/// What an application is told of a request to finish a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// No callback runs, or only the caller's own.
    Yes,
    /// A callback runs on another thread; it is the last.
    Running,
    /// It is armed, and that was not to be undone.
    Armed,
}

/// What an application is told of a job that it wants to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MakeError {
    NoMemory,
    /// The system refuses to deliver the signal.
    NoSignal,
    /// The descriptor is one of the pool's own.
    OwnDescriptor,
    /// The pool is the parent process's.
    Forked,
}

impl Shared {
    /// What threads of a pool share, before it has any.
    pub(crate) fn new(alloc: Allocator, logger: Logger, wake: Wake, workers: usize) -> Self {
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
            deferred: DeferredFrees::new(),
            idle: Idle::new(),
            fds: Table::new(),
            mailbox: Mailbox::new(),
            shutdown: AtomicBool::new(false),
            workers: AtomicUsize::new(workers),
            phase: AtomicU8::new(Phase::Active as u8),
        }
    }

    /// As C sees it: a pool begins with its shared part.
    pub(crate) fn as_c(&self) -> NonNull<ns_thrpool_t> {
        NonNull::from(self).cast()
    }

    /// The calling thread is a thread of the pool's from now on.
    pub(crate) fn enter(&self, is_loop: bool) {
        here::enter_pool(self.as_c(), is_loop);
    }

    /// Whether the caller is on a thread of the pool's.
    pub(crate) fn is_here(&self) -> bool {
        on_thread_of(self.as_c())
    }

    /// Whether nothing is armed any more.
    pub(crate) fn is_shutting_down(&self) -> bool {
        self.shutdown.load(Ordering::SeqCst)
    }

    /// Whether this process is a forked child of the one that made the pool.
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

    /// Move on to `phase`.
    pub(crate) fn set_phase(&self, phase: Phase) {
        self.phase.store(phase as u8, Ordering::SeqCst);
    }

    /// Have the loop look at the life cycle.
    pub(crate) fn nudge(&self) {
        self.wake.nudged.swap(true, Ordering::SeqCst);
        self.wake_loop();
    }

    /// Get the loop out of its wait, if it is in one. Not in a signal handler.
    fn wake_loop(&self) {
        if self.wake.sleeping.take() {
            self.write_wake();
        }
    }

    /// The caller is the one to wake the loop.
    #[cold]
    #[inline(never)]
    fn write_wake(&self) {
        if !self.wake.write() {
            self.wake.nudged.store(true, Ordering::SeqCst);
            self.rouse_loop();
        }
    }

    /// The loop sleeps, and there is no pipe to wake it: somebody has closed our descriptors.
    fn rouse_loop(&self) {
        if !self.wake.rouse.rouse() && !self.wake.hopeless.swap(true, Ordering::SeqCst) {
            log!(
                self.logger,
                LOG_CRIT,
                "the pool's descriptors were closed behind its back, and its loop sleeps: every \
                 signal that could wake it is blocked or in use"
            );
        }
    }

    /// Hand `job`, which carries REQ, to the loop.
    pub(crate) fn request(&self, job: JobPtr) {
        perturb("its state says that it is queued, it is not pushed");
        self.requests.push(job);
        perturb("pushed, and the loop not woken");
        self.wake_loop();
    }

    /// Hand a run-now job, which carries WORK, to whoever is to run it.
    fn run_now(&self, job: JobPtr) {
        perturb("its state says that it is queued, and it is not pushed");
        if job.has(NS_JOB_THREAD) {
            self.work.push(job);
        } else {
            self.loop_work.push(job);
            self.wake_loop();
        }
    }

    /// Make a job and reserve all that it will need until it is disposed of: nothing can fail
    /// afterwards. It is WAITING, or ARMED and to be handed to [`Shared::start`]; nobody else knows
    /// it.
    pub(crate) fn make(&self, spec: &Spec) -> Result<JobPtr, MakeError> {
        let state = if spec.armed {
            State::armed(queue_of(spec.kind()))
        } else {
            self.idle.came(spec.func);
            State::waiting()
        };
        let failed = |why| {
            if !spec.armed {
                self.idle.went(spec.func);
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
            // Before it is caught: what arrives from then on is to fire the job.
            Trigger::Signal(signum) => self.mailbox.count(signum),
            Trigger::Now | Trigger::Timer(_) => 0,
        };
        let job = JobPtr::make(&self.alloc, self.as_c(), spec, state, seen)
            .ok_or_else(|| failed(MakeError::NoMemory))?;
        if let Trigger::Signal(signum) = spec.trigger {
            // Last, so that no signal is caught for a job that there is no memory for.
            let watched = signals::subscribe(&self.mailbox, &self.wake, signum);
            // A signal that came meanwhile was blocked until now, and its handler may have forked: the
            // child must not wait for threads of the parent's that are in the middle of a push.
            let watched = watched.and_then(|()| match self.is_forked() {
                true => Err(NotSubscribed::Forked),
                false => Ok(()),
            });
            watched.map_err(|why| {
                // SAFETY: nobody else knows it.
                unsafe { job.free() };
                failed(match why {
                    NotSubscribed::NoMemory => MakeError::NoMemory,
                    NotSubscribed::Refused => MakeError::NoSignal,
                    NotSubscribed::Forked => MakeError::Forked,
                })
            })?;
        }
        Ok(job)
    }

    /// Whether `fd`, a number of the pool's own, still is: it may have been closed behind our back
    /// and be the application's by now.
    #[cold]
    #[inline(never)]
    fn is_own(&self, fd: c_int) -> bool {
        // Where the system does not tell, it is taken to be.
        let link = std::fs::read_link(format!("/proc/self/fd/{fd}"));
        self.wake.is_ours(fd)
            || link.is_ok_and(|link| {
                link.as_os_str()
                    .as_encoded_bytes()
                    .starts_with(b"anon_inode:")
            })
            || !cfg!(target_os = "linux")
    }

    /// The number of `entry` is not the pool's own any more: the loop is to make new ones. Returns
    /// what a job of the application's is to know of it.
    #[cold]
    #[inline(never)]
    fn give_up(&self, entry: &Entry) -> u32 {
        entry.set_own(false);
        self.wake.lose();
        self.nudge();
        entry.closes()
    }

    /// Hand on a job that is ARMED and carries the bit of its queue.
    pub(crate) fn start(&self, job: JobPtr) {
        if job.kind() == Kind::Now {
            return self.run_now(job);
        }
        // Nobody else sets its time until it is handed on.
        if job.has_timeout() {
            job.restart(sys::now());
        }
        self.request(job);
    }

    /// `ns_job_rearm`.
    pub(crate) fn arm(&self, job: JobPtr) -> Armed {
        if self.is_shutting_down() {
            return Armed::ShuttingDown;
        }
        hand_over(&raw const job.state);
        match job.state.arm(queue_of(job.kind()), job.has(NS_JOB_PERSIST)) {
            Arm::Push => {
                self.idle.went(job.func());
                self.start(job);
            }
            // Its time starts when its callback returns.
            Arm::Recorded => {}
            Arm::Refused => return Armed::NotNow,
        }
        Armed::Yes
    }

    /// `ns_job_done` and, with `even_armed`, `ns_job_cancel`.
    #[inline(always)]
    pub(crate) fn end(&self, job: JobPtr, even_armed: bool) -> Ended {
        let own = in_callback_of(&job);
        // By its address alone once the job is finished with: it may be gone.
        let state = &raw const job.state;
        hand_over(state);
        match job.state.end_from(&self.waiters, even_armed) {
            end @ (End::Push | End::PushIdle) => {
                take_over(state);
                if end == End::PushIdle {
                    self.idle.went(job.func());
                }
                self.request(job);
                Ended::Yes
            }
            End::Queued | End::Over => {
                take_over(state);
                Ended::Yes
            }
            End::Marked | End::OverRunning if own => Ended::Yes,
            End::Marked | End::OverRunning => Ended::Running,
            End::Armed => Ended::Armed,
        }
    }

    /// `ns_job_wait` and `ns_job_timedwait`. `None`: the caller is in the way of what it would
    /// wait for. The caller has entered [`Shared::waiters`].
    pub(crate) fn wait_for(
        &self,
        job: JobPtr,
        deadline: Option<u64>,
        entering: Entering,
    ) -> Option<Outcome> {
        if job.state.now() == state::WAITING {
            take_over(&raw const job.state);
            return Some(Outcome::Idle);
        }
        if in_callback_of(&job) || on_loop_of(self.as_c()) {
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
