// SPDX-License-Identifier: GPL-3.0-or-later
//! The event loop: the one thread that owns the poller.
//!
//! A turn: take requests, look at signals, wait, see which jobs fire, and run them, then some of
//! the run-now jobs. What fires for a worker goes to the work queue before the first callback of
//! the loop's own runs. Each step is bounded, so that none keeps the others waiting: a flood of
//! adds does not delay timers, nor busy descriptors requests. By number: requests, waits, timers,
//! run-now jobs; and by time: callbacks, done callbacks, and requests where there are many. What a
//! bound leaves over is for the next turn, which does not sleep then. The only step without a bound
//! of its own is a new poller, which is told of every descriptor at once.

pub(crate) mod fds;
mod io;
mod lists;
mod lost;
pub(crate) mod poller;
mod renew;
mod retry;
pub(crate) mod rouse;
pub(crate) mod signals;
pub(crate) mod timers;
pub(crate) mod wake;

use std::hint::spin_loop;
use std::io as stdio;
use std::mem;
use std::os::fd::RawFd;
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering;

use libc::c_int;

use crate::capi::{NS_JOB_SIGNAL, NS_JOB_THREAD, NS_JOB_TIMER, ns_job_type_t};
use crate::job::state::{self, After, Work};
use crate::job::{JobPtr, Kind, place, run};
use crate::list::{Head, Node, Ring};
use crate::log::trace;
use crate::perturb::perturb;
use crate::shared::{Phase, Shared};
use crate::sys;

pub(crate) use lists::Lists;
use lists::Ready;
use poller::{Event, Native, Numbers, Poller, Until};
use renew::Renewal;
use retry::Later;
use timers::{Timer, Wheel};

/// Requests that one turn takes.
const REQUESTS: usize = 4096;
/// Requests to arm between two looks at the clock. Each may be a system call.
const ARMS: usize = 128;
/// Waits that one step makes, each for as many events as the poller has room for.
const WAITS: usize = 16;
/// Nanoseconds until a time-out is looked at again whose descriptor turned out ready.
const AGAIN: u64 = 1_000_000;
/// How often the loop looks for a request that may be about to come, and how often in all of one
/// turn. A look takes some 20 to 50 nanoseconds, by processor.
const LINGER: usize = 100;
const LINGERS: usize = 400;
/// Run-now jobs that one turn runs.
const RUN_NOW: usize = 1024;
/// Timers that one turn fires.
const TIMERS: usize = 1024;
/// Nanoseconds after which a turn runs no further callbacks, but looks what else there is.
const SLICE: u64 = 500_000;
/// Callbacks between two looks at the clock, if they are quick: a slice would be enough for as
/// many.
const LOOK: usize = 8;
/// Nanoseconds that are not worth sleeping.
const SOON: u64 = 2_000;

/// The time that code of the application's may take of a turn.
struct Slice {
    begin: u64,
    calls: usize,
    /// The call after which the clock is looked at.
    look: usize,
}

impl Slice {
    /// It begins now.
    fn new() -> Self {
        Self {
            begin: sys::now(),
            calls: 0,
            look: 1,
        }
    }

    /// After a call: whether that was enough. The clock is looked at after each slow one, but now
    /// and then only if all are quick.
    fn is_over(&mut self) -> bool {
        self.calls += 1;
        if self.calls < self.look {
            return false;
        }
        let took = sys::now() - self.begin;
        let quick = took < self.calls as u64 * (SLICE / LOOK as u64);
        self.look = self.calls + if quick { LOOK } else { 1 };
        took > SLICE
    }

    /// Whether that was enough, now. If there is none, one begins.
    #[cold]
    #[inline(never)]
    fn is_late(slice: &mut Option<Self>) -> bool {
        sys::now() - slice.get_or_insert_with(Self::new).begin > SLICE
    }
}

/// Why a poller is to be made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stale {
    /// It has a registration that can't be named any more.
    Registration,
    /// It does not work.
    Broken,
    /// The wake pipe is gone.
    Wake,
}

/// What belongs to the loop thread alone.
pub(crate) struct EventLoop {
    poller: Native,
    wheel: Wheel,
    ready: Ready,
    /// How many jobs were put on the work queue of which nobody was told yet.
    dispatched: usize,
    /// How many the workers were told of last; none, once it was in vain to linger for them.
    given: usize,
    /// The poller is to be made anew, when the events of the last wait have been dealt with.
    stale: Option<Stale>,
    renewal: Renewal,
    later: Later,
    /// The numbers of the pool's own descriptors.
    numbers: Numbers,
    lists: NonNull<Lists>,
    /// How many jobs wait for a worker that closes their descriptor.
    closing: usize,
    /// Nothing fires any more.
    quiet: bool,
    /// Whether a signal can end its waits.
    roused: bool,
    /// The signal mask that the thread began with.
    mask: libc::sigset_t,
}

impl EventLoop {
    /// A loop that is woken through the pipe end `wake`, with these lists.
    ///
    /// # Safety
    /// `lists` are empty, and stay until the loop goes. No `&mut` to them is made meanwhile.
    pub(crate) unsafe fn new(wake: RawFd, lists: NonNull<Lists>) -> stdio::Result<Self> {
        // SAFETY: all zero is a set; filled by pthread_sigmask, which only reads the mask here.
        let mask = unsafe {
            let mut mask: libc::sigset_t = mem::zeroed();
            libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &mut mask);
            mask
        };
        let roused = rouse::reaches(&mask);
        let _low = sys::LowNumbers::take();
        Ok(Self {
            poller: Native::init(wake, roused)?,
            // SAFETY: by the caller's promise.
            wheel: unsafe {
                let timers = &raw mut (*lists.as_ptr()).timers;
                Wheel::new(NonNull::new_unchecked(timers), sys::now())
            },
            ready: Ready::default(),
            dispatched: 0,
            given: 0,
            stale: None,
            renewal: Renewal::new(),
            later: Later::new(),
            numbers: Numbers::default(),
            lists,
            closing: 0,
            quiet: false,
            roused,
            mask,
        })
    }

    /// Its lists. They outlive the borrow of the loop.
    fn lists<'a>(&self) -> &'a Lists {
        // SAFETY: by the promise of `new`.
        unsafe { self.lists.as_ref() }
    }

    /// In a forked child: let go of the descriptors.
    pub(crate) fn release_in_child(self) {
        // Nothing else of it: the parent's loop may have been in the middle of changing it.
        let this = mem::ManuallyDrop::new(self);
        // SAFETY: read once, and never dropped.
        unsafe { ptr::read(&raw const this.poller) }.release_in_child();
    }

    /// The loop thread's life, until the pool is destroyed. `quiet` is called when no callback
    /// runs any more.
    pub(crate) fn run(&mut self, pool: &Shared, quiet: impl FnOnce()) {
        run::enter_pool(pool, true);
        pool.wake.rouse.enter(self.mask, self.roused);
        while !(pool.is_shutting_down() && pool.workers.load(Ordering::SeqCst) == 0) {
            self.turn(pool);
        }
        self.go_quiet(pool);
        quiet();
        while pool.phase() != Phase::Stopping {
            self.quiet_turn(pool);
        }
        self.dispose_of_all(pool);
    }

    /// One turn.
    fn turn(&mut self, pool: &Shared) {
        self.take_requests(pool, REQUESTS);
        self.take_signals(pool);
        let until = self.until(pool);
        self.poll(pool, until, false);
        perturb("polled, and no time-out told");
        self.expire(pool);
        self.run_ready(pool);
        self.run_now(pool, RUN_NOW);
    }

    /// How long this turn may wait. [`Wake`](wake::Wake) says why what arrives after the look is
    /// not missed.
    fn until(&mut self, pool: &Shared) -> Until {
        if !self.ready.is_empty() || self.dispatched > 0 {
            return Until::Now;
        }
        let until = match self.wheel.next() {
            None if self.later.look == u64::MAX => Until::Event,
            None => Until::Deadline(self.later.look),
            // Not worth setting the timer for: a system call takes as long.
            Some(next) if next <= sys::now() + SOON => return Until::Now,
            Some(next) => Until::Deadline(next.min(self.later.look)),
        };
        let idle = || {
            pool.requests.is_empty()
                && pool.loop_work.is_empty()
                && pool.mailbox.is_empty()
                && !pool.nudged.swap(false, Ordering::SeqCst)
        };
        if pool.wake.sleeping.begin(idle) {
            return until;
        }
        if pool.wake.is_lost() {
            self.stale = Some(Stale::Wake);
        }
        Until::Now
    }

    /// Wait, and see which descriptors' jobs fire. If timers are due, or with `to_the_end`, all of
    /// those that are ready, even if there are more than one wait can return, up to [`WAITS`]. False
    /// if there may still be more.
    fn poll(&mut self, pool: &Shared, until: Until, to_the_end: bool) -> bool {
        let mut until = until;
        let mut left = WAITS;
        loop {
            let (count, full) = self
                .poller
                .wait(until)
                .unwrap_or_else(|trouble| self.in_trouble(pool, trouble, until));
            pool.wake.sleeping.end();
            perturb("waited, and nothing dispatched");
            let mut changed = false;
            for index in 0..count {
                match self.poller.event(index) {
                    Event::Wake => {
                        if !pool.wake.clear() {
                            self.stale = Some(Stale::Wake);
                        }
                    }
                    // Each turn looks for itself which timers are due.
                    Event::Time => self.look_at_unheard(pool),
                    Event::Ready(key, directions) => {
                        changed |= self.on_ready(pool, key, directions);
                    }
                }
            }
            if let Some(stale) = self.stale.take() {
                self.tell_workers(pool);
                self.renew(pool, stale);
            }
            // What is ready is reported in turn: once nothing is new, all have been seen. What is
            // to be dropped and can't be is new each time.
            if !(full && changed) || self.renewal.is_pending() {
                return true;
            }
            if !to_the_end && self.wheel.next().is_none_or(|next| next > sys::now()) {
                return false;
            }
            left -= 1;
            if left == 0 {
                return false;
            }
            until = Until::Now;
        }
    }

    /// See which timers fire.
    ///
    /// A time-out is not to be told if the data came before it: so after the time was taken, and
    /// before the time-outs of descriptors fire, the poller is asked once more. If more is ready
    /// than may be looked at in one turn, each of these descriptors is asked for itself.
    fn expire(&mut self, pool: &Shared) {
        if self.wheel.next().is_none() {
            return;
        }
        let mut due = Ready::default();
        let timed_out = Ring::new();
        let own = self.retry_timer();
        let mut retry = false;
        self.wheel.expire(
            sys::now(),
            TIMERS,
            // SAFETY: linked timers are the loop's own or those of live jobs.
            |timer| timer == own || unsafe { JobPtr::of_timer(timer) }.is(place::LIVE),
            |timer| {
                if timer == own {
                    retry = true;
                    return;
                }
                // SAFETY: as above.
                let job = unsafe { JobPtr::of_timer(timer) };
                if job.kind() == Kind::Io {
                    // SAFETY: just unlinked, and unlinked again below.
                    unsafe { Timer::push_to(timer, &timed_out) };
                } else {
                    due.push(job);
                }
            },
        );
        while let Some(job) = due.pop() {
            self.fire(pool, job, NS_JOB_TIMER);
        }
        if retry {
            self.retry(pool);
        }
        if timed_out.is_empty() {
            return;
        }
        let all_seen = self.poll(pool, Until::Now, true);
        while let Some(timer) = Timer::take_first(&timed_out) {
            // SAFETY: linked timers are those of live jobs.
            let job = unsafe { JobPtr::of_timer(timer) };
            if !job.is(place::LIVE) {
                continue;
            }
            if !all_seen && io::is_ready(job) {
                // Its event is among those that the poller has yet to report. Unless it is somebody
                // else's, who has the number now: so its time is not forgotten.
                job.watch().timer.set_deadline(sys::now() + AGAIN);
                self.link_timer(job);
            } else {
                let in_loop = !job.has(NS_JOB_THREAD);
                self.fire(pool, job, NS_JOB_TIMER);
                if in_loop {
                    // Of its time only.
                    job.unmark(place::HEARD);
                }
            }
        }
    }

    /// See which signals' jobs fire.
    fn take_signals(&mut self, pool: &Shared) {
        if !pool.mailbox.take() {
            return;
        }
        perturb("emptied the mailbox, and not looked at the counts");
        let mut node = self.lists().signal_jobs.first();
        while !node.is_null() {
            // SAFETY: a node of this list is that of a live job.
            let job = unsafe { JobPtr::of_link(node) };
            node = job.watch().link.next();
            if job.is(place::LIVE) {
                self.fire_if_signalled(pool, job);
            }
        }
    }

    fn fire_if_signalled(&mut self, pool: &Shared, job: JobPtr) {
        let count = pool.mailbox.count(job.signum());
        if job.watch().seen.replace(count) != count {
            self.fire(pool, job, NS_JOB_SIGNAL);
        }
    }

    /// `job` fires: to the workers, or to the loop's own ready list. A job of the workers' may be
    /// gone on return.
    fn fire(&mut self, pool: &Shared, job: JobPtr, output: ns_job_type_t) {
        trace!(pool.logger, "job {:p}: fires with {output:#x}", job.as_c());
        job.unmark(place::LIVE);
        if self.quiet {
            return;
        }
        job.set_output(output);
        if !job.has(NS_JOB_THREAD) {
            job.mark(place::READY | place::HEARD);
            self.ready.push(job);
        } else if job.state.dispatch() {
            // One that was cancelled meanwhile is not dispatched: its disposal is on its way.
            perturb("dispatched, and not pushed");
            pool.work.push_quietly(job);
            self.dispatched += 1;
        }
    }

    /// Somebody is to take what was put on the work queue. Before anything that may take its time:
    /// a callback of the application's may even wait for it.
    fn tell_workers(&mut self, pool: &Shared) {
        if self.dispatched > 0 {
            self.given = mem::take(&mut self.dispatched);
            pool.work.notify(self.given);
        }
    }

    /// Run what fired; not what fires meanwhile, that is for the next turn.
    fn run_ready(&mut self, pool: &Shared) {
        self.tell_workers(pool);
        if self.ready.is_empty() {
            return;
        }
        let mut slice = Slice::new();
        let last = self.ready.last;
        while let Some(job) = self.ready.pop() {
            job.unmark(place::READY);
            perturb("about to run, and its state says that it is armed");
            if job.state.begin() {
                match run::run(job, 0, 0) {
                    After::Idle => {
                        run::count_idle(pool);
                        self.rest(pool, job);
                    }
                    After::Armed if job.kind() == Kind::Io => self.arm_again(pool, job),
                    After::Armed => self.arm(pool, job),
                    After::Dispose => self.dispose(pool, job),
                }
            } else if job.state.drop_work() {
                // Cancelled, and disposed of already. Otherwise that is on its way.
                // SAFETY: the list was the last that held it.
                unsafe { job.free() };
            }
            if Some(job) == last || slice.is_over() {
                return;
            }
        }
    }

    /// Run the run-now jobs that are there, but no more than `most`.
    #[inline(always)]
    fn run_now(&mut self, pool: &Shared, most: usize) {
        // In most turns, and counting them takes longer.
        if !pool.loop_work.is_empty() {
            self.run_some_now(pool, most);
        }
    }

    /// The same, where there are some. One that is armed again queues behind the others.
    #[inline(never)]
    fn run_some_now(&mut self, pool: &Shared, most: usize) {
        let mut slice = Slice::new();
        for _ in 0..pool.loop_work.len().min(most) {
            let Some(job) = pool.loop_work.pop() else {
                return;
            };
            match job.state.take_work() {
                Work::Run => match run::run(job, state::WORK, 0) {
                    After::Idle => run::count_idle(pool),
                    After::Armed => pool.loop_work.push(job),
                    After::Dispose => self.dispose(pool, job),
                },
                // A run-now job has no descriptor.
                Work::Leave | Work::Close => {}
                // SAFETY: disposed of, and the queue was the last that held it.
                Work::Free => unsafe { job.free() },
            }
            if most != usize::MAX && slice.is_over() {
                return;
            }
        }
    }

    /// Take what was asked for, but no more than `most`. Returns how much it was.
    #[inline(always)]
    fn take_requests(&mut self, pool: &Shared, most: usize) -> usize {
        let mut slice = None;
        let mut looks = LINGERS;
        for taken in 0..most {
            let Some(job) = self.next_request(pool, taken, &mut looks) else {
                return taken;
            };
            if job.state.take_request() == state::ARMED {
                self.arm(pool, job);
                // A turn that takes few does not look at the clock at all.
                if taken % ARMS == ARMS - 1 && Slice::is_late(&mut slice) {
                    return taken + 1;
                }
                continue;
            }
            // Done callbacks are the application's, and may take their time.
            self.tell_workers(pool);
            let slice = slice.get_or_insert_with(Slice::new);
            if job.is(place::READY) {
                // The list has it still, as a work queue would.
                job.state.hold();
            }
            self.dispose(pool, job);
            if slice.is_over() {
                return taken + 1;
            }
        }
        most
    }

    /// The next request of a turn that has taken so many. It may look so often for what is about to
    /// come.
    fn next_request(&mut self, pool: &Shared, taken: usize, looks: &mut usize) -> Option<JobPtr> {
        // Most turns find none at first, and asking for that is quicker than a pop that finds none.
        if taken > 0 || !pool.requests.is_empty() {
            let next = pool.requests.pop();
            if next.is_some() {
                return next;
            }
        }
        if taken > 1 || self.given > 1 {
            self.linger(pool, looks)
        } else {
            None
        }
    }

    /// Where several jobs were given to workers, or several requests came, there will soon be more:
    /// the loop looks for the next for a little, as a wake takes both the loop and who wakes it
    /// longer than that. Nobody has to wake it meanwhile, and what else there is waits no longer
    /// than it would for a short callback.
    // Not that it is rare: turns without workers are to stay as short as they would be without it.
    #[cold]
    fn linger(&mut self, pool: &Shared, looks: &mut usize) -> Option<JobPtr> {
        let nothing_else = self.dispatched == 0
            && self.ready.is_empty()
            && pool.loop_work.is_empty()
            && pool.mailbox.is_empty();
        if nothing_else {
            for _ in 0..LINGER.min(*looks) {
                if !pool.requests.is_empty() {
                    return pool.requests.pop();
                }
                *looks -= 1;
                spin_loop();
            }
        }
        self.given = 0;
        None
    }

    /// `job` is ARMED: have it wait for its trigger.
    fn arm(&mut self, pool: &Shared, job: JobPtr) {
        trace!(pool.logger, "job {:p}: armed", job.as_c());
        match job.kind() {
            // These go to their queues without the loop.
            Kind::Now => debug_assert!(false, "a request to arm a run-now job"),
            Kind::Timer => {
                job.mark(place::LIVE);
                self.start_timer(job);
            }
            Kind::Signal => self.arm_signal(pool, job),
            Kind::Io => self.arm_io(pool, job),
        }
    }

    /// Have `job` wait for its time, if it has one.
    #[inline]
    fn start_timer(&mut self, job: JobPtr) {
        if job.has_timeout() {
            self.link_timer(job);
        }
    }

    /// Link the timer of `job`. One that is linked from an earlier arming is found and moved when
    /// its old time comes.
    fn link_timer(&mut self, job: JobPtr) {
        if job.watch().timer.is_linked() {
            return;
        }
        let timer = job.timer();
        if job.is_due_at_once() {
            // SAFETY: not linked; the job does not move, and `dispose` unlinks it.
            return unsafe { self.wheel.insert_due(timer) };
        }
        if self.wheel.is_empty() {
            self.wheel.restart(job.armed_at());
        }
        // SAFETY: as above.
        unsafe { self.wheel.insert(timer) };
    }

    fn arm_signal(&mut self, pool: &Shared, job: JobPtr) {
        if !job.is(place::ATTACHED) {
            job.mark(place::ATTACHED);
            // SAFETY: not linked; `dispose` unlinks it.
            unsafe { self.lists().signal_jobs.push(job.link()) };
            self.block(libc::SIG_UNBLOCK, job.signum());
        }
        job.mark(place::LIVE);
        // What arrived before it was armed again counts.
        self.fire_if_signalled(pool, job);
    }

    /// Block `signum` in this thread, or unblock it.
    fn block(&self, how: c_int, signum: c_int) {
        // SAFETY: a set of ours, and a number that was checked.
        unsafe {
            let mut set: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&mut set);
            libc::sigaddset(&mut set, signum);
            libc::pthread_sigmask(how, &set, ptr::null_mut());
        }
    }

    /// A job of the loop's own ran, and was not armed again.
    fn rest(&mut self, pool: &Shared, job: JobPtr) {
        Wheel::remove(&job.watch().timer);
        if job.kind() == Kind::Io && !job.is(place::ORPHAN) {
            self.sync(pool, job.fd());
        }
    }

    /// `job` is NEEDS_DELETE and no callback of its runs: take it out of everything, close its
    /// descriptor, run its done callback, free it. If the close may block, a worker does that, and the
    /// job comes back as a request for what is left.
    fn dispose(&mut self, pool: &Shared, job: JobPtr) {
        match job.kind() {
            Kind::Now => {}
            Kind::Timer => {
                Wheel::remove(&job.watch().timer);
                job.watch().link.unlink();
            }
            Kind::Io => {
                Wheel::remove(&job.watch().timer);
                if !self.detach_io(pool, job) {
                    return;
                }
            }
            Kind::Signal => {
                job.watch().link.unlink();
                self.detach_signal(job);
                signals::unwatch(pool, job.signum());
            }
        }
        if run::dispose(job) {
            // SAFETY: `dispose` says so.
            unsafe { job.free() };
        }
    }

    /// With the last job for a signal, the thread's mask is what it was.
    fn detach_signal(&self, gone: JobPtr) {
        let signum = gone.signum();
        let mut node = self.lists().signal_jobs.first();
        while !node.is_null() {
            // SAFETY: a node of this list is that of a live job.
            let job = unsafe { JobPtr::of_link(node) };
            if job.signum() == signum {
                return;
            }
            node = job.watch().link.next();
        }
        // SAFETY: the mask was filled when the loop was made.
        if unsafe { libc::sigismember(&self.mask, signum) } == 1 {
            self.block(libc::SIG_BLOCK, signum);
        }
    }

    /// Every worker is gone: finish what was asked for before the shutdown, then no more.
    fn go_quiet(&mut self, pool: &Shared) {
        // Each was queued before it was looked at; nothing is armed any more, so what comes
        // later raced with the shutdown.
        let mut left = pool.requests.len();
        while left > 0 {
            left -= self.take_requests(pool, left);
        }
        while self.dispatched > 0 || !self.ready.is_empty() {
            self.run_ready(pool);
        }
        self.run_now(pool, usize::MAX);
        self.close_left(pool);
        self.quiet = true;
        pool.set_phase(Phase::Quiet);
        perturb("quiet, and nobody released who waits for a job");
        pool.waiters.stop();
    }

    /// One turn of a quiet loop: descriptors, timers and signals are not looked at any more.
    fn quiet_turn(&mut self, pool: &Shared) {
        self.take_late(pool);
        let idle = || pool.requests.is_empty() && !pool.nudged.swap(false, Ordering::SeqCst);
        if pool.wake.sleeping.begin(idle) {
            self.doze(pool, -1);
            pool.wake.sleeping.end();
        }
    }

    /// Requests that came too late: dispose of what is finished with, keep hold of what is armed.
    fn take_late(&mut self, pool: &Shared) {
        while let Some(job) = pool.requests.pop() {
            match job.state.take_request() {
                state::ARMED => self.keep(job),
                _ => self.dispose(pool, job),
            }
        }
    }

    /// Run-now jobs, and jobs for workers, that came too late. They stay in their queues until here.
    /// True if there was something.
    fn empty_queues(&mut self, pool: &Shared) -> bool {
        let mut any = false;
        while let Some(job) = pool.work.pop().or_else(|| pool.loop_work.pop()) {
            any = true;
            if job.state.drop_work() {
                // SAFETY: disposed of, and the queue was the last that held it.
                unsafe { job.free() };
            } else if job.kind() != Kind::Now {
                self.keep(job);
            } else if job.state.now() == state::ARMED {
                self.retire(pool, job);
            }
        }
        any
    }

    /// `job` will not run any more, but is to be found when the pool is destroyed. If it is finished
    /// with, its disposal is on its way, and unlinks it.
    fn keep(&mut self, job: JobPtr) {
        job.unmark(place::LIVE);
        if !job.watch().link.is_linked() {
            // SAFETY: not linked; `dispose` unlinks it.
            unsafe { self.lists().strays.push(job.link()) };
        }
    }

    /// The pool is destroyed: dispose of every job that is not the application's.
    pub(crate) fn dispose_of_all(&mut self, pool: &Shared) {
        Wheel::remove(&self.lists().retry);
        loop {
            let mut left = self.empty_queues(pool);
            self.take_late(pool);
            while let Some(timer) = self.wheel.take_any() {
                // SAFETY: linked timers are those of live jobs.
                self.keep(unsafe { JobPtr::of_timer(timer) });
            }
            for (_, entry) in pool.fds.entries() {
                left |= self.dispose_of_list(pool, &entry.jobs);
            }
            let lists = self.lists();
            for list in [&lists.signal_jobs, &lists.strays] {
                left |= self.dispose_of_list(pool, list);
            }
            // Done callbacks may have finished further jobs.
            if !left && pool.requests.is_empty() {
                return;
            }
        }
    }

    /// Dispose of what is armed in `list`, and empty it. True if there was something.
    fn dispose_of_list(&mut self, pool: &Shared, list: &Head) -> bool {
        let any = !list.is_empty();
        while !list.is_empty() {
            let node: *const Node = list.first();
            // SAFETY: a node of this list is that of a live job.
            let job = unsafe { JobPtr::of_link(node) };
            match job.state.now() {
                state::ARMED => self.retire(pool, job),
                // Finished with by a done callback, and its request not taken yet: disposed of for
                // that. Or the application's, which was to finish it before.
                _ => job.watch().link.unlink(),
            }
        }
        any
    }

    /// Finish with an ARMED job and dispose of it.
    fn retire(&mut self, pool: &Shared, job: JobPtr) {
        let ended = job.state.end(&pool.waiters, true);
        debug_assert_eq!(ended, state::End::Push);
        // `end` set REQ for a request that is not made: the disposal is here and now.
        let _ = job.state.take_request();
        self.dispose(pool, job);
    }
}
