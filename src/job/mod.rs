// SPDX-License-Identifier: GPL-3.0-or-later
//! The job: a callback, what triggers it, and where it is in its life.
//!
//! A job is in two parts. All jobs have the first, [`Job`], and run-now jobs no more than that: a
//! third of the memory, for what is made and gone most often. It fits the smallest block of malloc's
//! but one: what the threads that make jobs and those that run them pass to each other is cache
//! lines. Jobs that wait for a trigger have a [`Watch`] behind it.
//!
//! Who may touch which field, when:
//!
//! | field | written by | read by |
//! |---|---|---|
//! | `state` | everybody, see [`state`] | everybody |
//! | `flags`, `func`, `pool`, `target`, `timeout` | the call that makes the job | everybody |
//! | `data`, `done_cb` | any thread (atomics) | any thread |
//! | `output` | the loop, when the job fires | any thread, while the callback executes |
//! | `timer.deadline` | who arms the job, or ran it (atomic) | the loop |
//! | `seen`, `notes`, `timer`, `link`, `next_ready` | the call that makes the job, then the loop alone | the same |

pub(crate) mod free;
pub(crate) mod here;
pub(crate) mod idle;
pub(crate) mod state;
pub(crate) mod wait;

use std::cell::Cell;
use std::mem::offset_of;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

use libc::{c_int, c_void};

use crate::abi::{
    NS_JOB_IO, NS_JOB_SIGNAL, NS_JOB_TIMER, PRFileDesc, ns_job_func_t, ns_job_t, ns_job_type_t,
    ns_thrpool_t,
};
use crate::alloc::Allocator;
use crate::job::state::State;
use crate::list::Node;
use crate::nspr;
use crate::sync::{hand_over, take_over, unless_instrumented};
use crate::sys;
use crate::timers::Timer;

/// What triggers a job, beside the flags' directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// Nothing: it runs when it is armed.
    Now,
    /// A time after it is armed, in nanoseconds.
    Timer(u64),
    /// A descriptor; the time-out is in nanoseconds, [`NEVER`] for none.
    Io {
        fd: c_int,
        prfd: *mut PRFileDesc,
        timeout: u64,
    },
    /// A signal.
    Signal(c_int),
}

/// No time at all: later than every deadline.
pub(crate) const NEVER: u64 = u64::MAX;

/// The kind of a job, from its trigger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Now,
    Timer,
    Io,
    Signal,
}

/// One job. Lives in memory of the pool's allocator, at an address that C holds.
#[repr(C)]
pub(crate) struct Job {
    pub(crate) state: State,
    /// The public flags, all of which fit.
    flags: u16,
    /// What fired, in public flags; the loop writes it before it hands the job on.
    output: AtomicU8,
    /// Where the loop has it: bits of [`note`].
    pub(crate) notes: Cell<u8>,
    /// As C sees it: what a pool is, the rooms above know.
    pool: NonNull<ns_thrpool_t>,
    func: unsafe extern "C" fn(*mut ns_job_t),
    data: AtomicPtr<c_void>,
    done_cb: AtomicPtr<c_void>,
}

/// What a job has that waits for a trigger: behind its [`Job`], in the same block.
#[repr(C)]
pub(crate) struct Watch {
    /// In its descriptor's list, the loop's list of signal jobs, or its list of strays.
    pub(crate) link: Node,
    prfd: *mut PRFileDesc,
    /// A descriptor, a signal number, or -1.
    number: c_int,
    /// I/O: what the closes of the number were when the job was made.
    /// Signal: how many had arrived when the job last fired, or was made.
    pub(crate) seen: Cell<u32>,
    /// Nanoseconds from arming to firing by time; [`NEVER`] for none.
    timeout: u64,
    /// In the wheel, when it has a time to wait for.
    pub(crate) timer: Timer,
    /// In the loop's ready list.
    pub(crate) next_ready: Cell<Option<JobPtr>>,
}

/// The block of a job that has both.
#[repr(C)]
pub(crate) struct Watched {
    job: Job,
    watch: Watch,
}

/// Bits of [`Job::notes`]: the loop's own notes.
pub(crate) mod note {
    /// Was armed before: its descriptor was verified, its signal is in the list.
    pub(crate) const ATTACHED: u8 = 1;
    /// Armed in the loop: it may fire.
    pub(crate) const MAY_FIRE: u8 = 2;
    /// In the ready list, about to fire.
    pub(crate) const READY: u8 = 4;
    /// Its descriptor is not what it was made for any more: it never fires for I/O, and never
    /// closes the number.
    pub(crate) const ORPHAN: u8 = 8;
    /// It was armed again without a word to the poller: its descriptor is to be looked at unless
    /// it is heard of.
    pub(crate) const UNVERIFIED: u8 = 16;
    /// It fired for its descriptor since that was last looked at.
    pub(crate) const HEARD: u8 = 32;
    /// It was said that it lost its descriptor.
    pub(crate) const REPORTED: u8 = 64;
    /// A worker closes its descriptor; what is left to do is its done callback.
    pub(crate) const CLOSING: u8 = 128;
}

#[cfg(not(loom))]
const _: () = assert!(
    size_of::<Job>() <= 40,
    "a run-now job is to fit a 48 byte block"
);
#[cfg(not(loom))]
const _: () = assert!(
    size_of::<Watched>() <= 120,
    "a job is to fit a 128 byte block"
);

/// What the call that makes a job knows.
pub(crate) struct Spec {
    pub(crate) flags: ns_job_type_t,
    pub(crate) trigger: Trigger,
    pub(crate) func: unsafe extern "C" fn(*mut ns_job_t),
    pub(crate) data: *mut c_void,
    /// To be armed.
    pub(crate) armed: bool,
}

impl Spec {
    /// Of which kind its job will be.
    pub(crate) fn kind(&self) -> Kind {
        match self.trigger {
            Trigger::Now => Kind::Now,
            Trigger::Timer(_) => Kind::Timer,
            Trigger::Io { .. } => Kind::Io,
            Trigger::Signal(_) => Kind::Signal,
        }
    }
}

impl Job {
    fn new(pool: NonNull<ns_thrpool_t>, spec: &Spec, state: State) -> Self {
        Self {
            state,
            flags: spec.flags as u16,
            output: AtomicU8::new(0),
            notes: Cell::new(0),
            pool,
            func: spec.func,
            data: AtomicPtr::new(spec.data),
            done_cb: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// The pool that it belongs to, which outlives it.
    pub(crate) fn pool_as_c(&self) -> NonNull<ns_thrpool_t> {
        self.pool
    }

    /// The public flags.
    pub(crate) fn flags(&self) -> ns_job_type_t {
        ns_job_type_t::from(self.flags)
    }

    /// Whether any of `flags` is among the job's.
    pub(crate) fn has(&self, flags: ns_job_type_t) -> bool {
        self.flags() & flags != 0
    }

    /// What triggers it, from the flags.
    pub(crate) fn kind(&self) -> Kind {
        if self.has(NS_JOB_IO) {
            Kind::Io
        } else if self.has(NS_JOB_SIGNAL) {
            Kind::Signal
        } else if self.has(NS_JOB_TIMER) {
            Kind::Timer
        } else {
            Kind::Now
        }
    }

    /// Its callback.
    pub(crate) fn func(&self) -> unsafe extern "C" fn(*mut ns_job_t) {
        self.func
    }

    /// The application's pointer.
    pub(crate) fn data(&self) -> *mut c_void {
        self.data.load(Ordering::Acquire)
    }

    /// As [`Job::data`], for the application: what was written before it was set is for the caller.
    pub(crate) fn take_data(&self) -> *mut c_void {
        let data = || {
            let data = self.data();
            take_over(&raw const self.data);
            data
        };
        unless_instrumented(|| self.data(), data)
    }

    /// Replace the application's pointer.
    pub(crate) fn set_data(&self, data: *mut c_void) {
        hand_over(&raw const self.data);
        self.data.store(data, Ordering::Release);
    }

    /// The done callback.
    pub(crate) fn done_cb(&self) -> ns_job_func_t {
        let at = self.done_cb.load(Ordering::Acquire);
        // SAFETY: `set_done_cb` stored a pointer of this very type, and None is null.
        unsafe { std::mem::transmute::<*mut c_void, ns_job_func_t>(at) }
    }

    /// Replace the done callback.
    pub(crate) fn set_done_cb(&self, func: ns_job_func_t) {
        let at = func.map_or(ptr::null_mut(), |func| func as *mut c_void);
        self.done_cb.store(at, Ordering::Release);
    }

    /// What fired, while the callback executes; else nothing.
    pub(crate) fn output(&self) -> ns_job_type_t {
        if self.state.is_executing() {
            ns_job_type_t::from(self.output.load(Ordering::Acquire))
        } else {
            0
        }
    }

    /// It is about to fire, with `output`.
    pub(crate) fn set_output(&self, output: ns_job_type_t) {
        self.output.store(output as u8, Ordering::Release);
    }

    /// Whether a bit of [`note`] is set.
    pub(crate) fn is(&self, bit: u8) -> bool {
        self.notes.get() & bit != 0
    }

    /// Set a bit of [`note`].
    pub(crate) fn mark(&self, bit: u8) {
        self.notes.set(self.notes.get() | bit);
    }

    /// Clear a bit of [`note`].
    pub(crate) fn unmark(&self, bit: u8) {
        self.notes.set(self.notes.get() & !bit);
    }
}

impl Watch {
    /// `None` where there is no trigger to wait for.
    fn new(trigger: Trigger, seen: u32) -> Option<Self> {
        let (prfd, number, timeout) = match trigger {
            Trigger::Now => return None,
            Trigger::Timer(time) => (ptr::null_mut(), -1, time),
            Trigger::Io { fd, prfd, timeout } => (prfd, fd, timeout),
            Trigger::Signal(signum) => (ptr::null_mut(), signum, NEVER),
        };
        Some(Self {
            link: Node::new(),
            prfd,
            number,
            seen: Cell::new(seen),
            timeout,
            timer: Timer::new(),
            next_ready: Cell::new(None),
        })
    }
}

/// A live job, as it goes through queues and lists.
///
/// Whoever holds one holds what keeps the job alive: its bit in the state word (in a queue), a
/// place in one of the loop's lists, the run of its callback, or its disposal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct JobPtr(NonNull<Job>);

// SAFETY: a job's fields are atomics, constants, or the loop's own; see the table above.
unsafe impl Send for JobPtr {}

impl Deref for JobPtr {
    type Target = Job;

    fn deref(&self) -> &Job {
        // SAFETY: by the type's invariant.
        unsafe { self.0.as_ref() }
    }
}

impl JobPtr {
    /// The job at `at`.
    ///
    /// # Safety
    /// It is live, and stays so as long as the type's invariant says.
    pub(crate) unsafe fn new(at: NonNull<Job>) -> Self {
        Self(at)
    }

    /// Make a job, in the state that it is to be made in. `None` when there is no memory.
    pub(crate) fn make(
        alloc: &Allocator,
        pool: NonNull<ns_thrpool_t>,
        spec: &Spec,
        state: State,
        seen: u32,
    ) -> Option<Self> {
        let job = Job::new(pool, spec, state);
        // SAFETY: in both cases a block of the size that is written.
        unsafe {
            match Watch::new(spec.trigger, seen) {
                None => {
                    let at = alloc.block::<Job>()?;
                    at.write(job);
                    Some(Self(at))
                }
                Some(watch) => {
                    let at = alloc.block::<Watched>()?;
                    at.write(Watched { job, watch });
                    Some(Self(at.cast()))
                }
            }
        }
    }

    /// Its [`Watch::link`], as lists are to have it: [`JobPtr::of_link`] gets from there to the job.
    pub(crate) fn link(self) -> *const Node {
        debug_assert!(self.kind() != Kind::Now);
        // SAFETY: as for `watch`. No reference on the way, which would be good for the link alone.
        unsafe { &raw const (*self.0.cast::<Watched>().as_ptr()).watch.link }
    }

    /// Its [`Watch::timer`], as the wheel is to have it: [`JobPtr::of_timer`] gets from there to the
    /// job.
    pub(crate) fn timer(self) -> NonNull<Timer> {
        debug_assert!(self.kind() != Kind::Now);
        // SAFETY: as for `link`.
        unsafe { NonNull::new_unchecked(&raw mut (*self.0.cast::<Watched>().as_ptr()).watch.timer) }
    }

    /// What it waits for. Run-now jobs have none.
    pub(crate) fn watch(&self) -> &Watch {
        debug_assert!(self.kind() != Kind::Now);
        // SAFETY: every other job is the first part of a `Watched`.
        unsafe { &self.0.cast::<Watched>().as_ref().watch }
    }

    /// Its descriptor, or -1.
    pub(crate) fn fd(self) -> c_int {
        match self.kind() {
            Kind::Io => self.watch().number,
            _ => -1,
        }
    }

    /// The number of its signal, or -1.
    pub(crate) fn signum(self) -> c_int {
        match self.kind() {
            Kind::Signal => self.watch().number,
            _ => -1,
        }
    }

    /// Its NSPR descriptor, or NULL.
    pub(crate) fn prfd(self) -> *mut PRFileDesc {
        match self.kind() {
            Kind::Io => self.watch().prfd,
            _ => ptr::null_mut(),
        }
    }

    /// Close its descriptor, which was given to the library, and is still what it was then.
    pub(crate) fn close(self) {
        if self.prfd().is_null() {
            sys::close(self.fd());
        } else {
            // SAFETY: it was open when the job was made, and is the library's to close since.
            unsafe { nspr::close(self.prfd()) };
        }
    }

    /// Whether it has a time to wait for.
    pub(crate) fn has_timeout(self) -> bool {
        let waits = self.has(NS_JOB_IO | NS_JOB_SIGNAL | NS_JOB_TIMER);
        waits && self.watch().timeout != NEVER
    }

    /// Whether its time is zero: the next turn of the loop. Jobs with the same are to keep their
    /// order, however long the queue.
    pub(crate) fn is_due_at_once(self) -> bool {
        self.watch().timeout == 0
    }

    /// Start its time afresh, from `now`.
    pub(crate) fn restart(self, now: u64) {
        let watch = self.watch();
        watch.timer.set_deadline(now.saturating_add(watch.timeout));
    }

    /// When its time was started, or before.
    pub(crate) fn armed_at(self) -> u64 {
        let watch = self.watch();
        watch.timer.deadline().saturating_sub(watch.timeout)
    }

    /// Its first part, which is where its memory begins.
    pub(crate) fn as_job(self) -> NonNull<Job> {
        self.0
    }

    /// As C sees it.
    pub(crate) fn as_c(self) -> *mut ns_job_t {
        self.0.as_ptr().cast()
    }

    /// The job that `node` is the [`Watch::link`] of.
    ///
    /// # Safety
    /// It is that of a live job, from [`JobPtr::link`].
    pub(crate) unsafe fn of_link(node: *const Node) -> Self {
        // SAFETY: by the caller's promise there is a job around it.
        unsafe { Self::around(node.cast(), offset_of!(Watched, watch.link)) }
    }

    /// The job that `timer` is the [`Watch::timer`] of.
    ///
    /// # Safety
    /// It is that of a live job, from [`JobPtr::timer`].
    pub(crate) unsafe fn of_timer(timer: NonNull<Timer>) -> Self {
        // SAFETY: by the caller's promise there is a job around it.
        unsafe { Self::around(timer.as_ptr().cast(), offset_of!(Watched, watch.timer)) }
    }

    unsafe fn around(field: *const u8, offset: usize) -> Self {
        // SAFETY: the field is inside a job, `offset` behind its start, so neither leaves it.
        unsafe { Self(NonNull::new_unchecked(field.sub(offset).cast_mut().cast())) }
    }
}
