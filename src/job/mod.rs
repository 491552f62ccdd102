// SPDX-License-Identifier: GPL-3.0-or-later
//! The job: a callback, the event that triggers it, and its state.
//!
//! A job has up to two parts. Every job has the first part, [`Job`]. Run-now jobs have only that.
//! They are made and freed most often. Without the second part they take a third of the memory,
//! which fits the second smallest block of malloc. That matters because the threads that make jobs
//! and the threads that run them exchange the cache lines of these blocks. A job that waits for a
//! trigger has a [`TriggerPart`] behind its [`Job`], in the same block.
//!
//! Which thread may touch which field, and when:
//!
//! | field | written by | read by |
//! |---|---|---|
//! | `state` | any thread, see [`state`] | any thread |
//! | `flags` | see [`flags`] | any thread |
//! | `func`, `prfd`, `number` | the call that makes the job | any thread |
//! | `pool` | the call that makes the job, and `ns_job_set_group` | any thread |
//! | `timeout` | the call that makes the job; the thread that has claimed it ([`state`]) | the thread that arms the job or has run it; the loop |
//! | `data`, `done_cb` | any thread (atomic) | any thread |
//! | `output` | the loop, when the job fires; in a group also its marks, under the group's lock | any thread, while the callback executes; the marks, under the group's lock |
//! | `timer.deadline` | the thread that arms the job or has run it (atomic) | the loop |
//! | `seen`, `notes`, `timer`, `link`, `next_ready` | the call that makes the job, then only the loop | the same |

pub(crate) mod again;
mod block;
mod flags;
pub(crate) mod free;
pub(crate) mod here;
pub(crate) mod idle;
pub(crate) mod layout;
pub(crate) mod note;
pub(crate) mod probes;
mod spec;
pub(crate) mod state;
pub(crate) mod wait;

use std::cell::Cell;
use std::mem::offset_of;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU8, Ordering};

use libc::{c_int, c_void};

use crate::abi::{
    NS_JOB_READ, NS_JOB_SIGNAL, NS_JOB_TIMER, NS_JOB_WRITE, PRFileDesc, ns_job_func_t, ns_job_t,
    ns_job_type_t, ns_thrpool_t,
};
use crate::job::flags::Flags;
pub(crate) use crate::job::flags::{Kind, Look};
pub(crate) use crate::job::spec::{Front, NEVER, Spec, Trigger};
use crate::job::state::State;
use crate::list::Node;
use crate::nspr;
use crate::sync::{tsan_acquire, tsan_release, unless_tsan};
use crate::sys;
use crate::timers::Timer;

/// The part that every job has. It lives in memory from the pool's allocator, and C holds its
/// address.
#[repr(C)]
pub(crate) struct Job {
    pub(crate) state: State,
    flags: Flags,
    /// What fired, as public flags. The loop writes it before it hands the job on. In a group, the
    /// marks of its queue too: [`MARKS`].
    output: AtomicU8,
    /// The loop's notes on the job: bits of [`note`].
    pub(crate) notes: Cell<u8>,
    /// The pool pointer that C has. Only modules above this one know the type behind it. In a group,
    /// the group, which begins with its pool.
    pool: Cell<NonNull<ns_thrpool_t>>,
    func: unsafe extern "C" fn(*mut ns_job_t),
    data: AtomicPtr<c_void>,
    done_cb: AtomicPtr<c_void>,
}

/// The part that only a job with a trigger has. It follows the [`Job`] in the same block.
#[repr(C)]
pub(crate) struct TriggerPart {
    /// Links the job into its descriptor's list, the loop's list of signal jobs, or the loop's list
    /// of strays.
    pub(crate) link: Node,
    prfd: *mut PRFileDesc,
    /// The descriptor, the signal number, or -1.
    number: c_int,
    /// I/O: the close count of the descriptor number when the job was made. Signal: how many of
    /// that signal had arrived when the job last fired, or was made.
    pub(crate) seen: Cell<u32>,
    /// Nanoseconds from arming to the timer's firing; [`NEVER`] for none. Changed by the thread that
    /// has claimed the job.
    timeout: Cell<u64>,
    /// Links the job into the timer wheel while its timer runs.
    pub(crate) timer: Timer,
    /// The next job in the loop's ready list.
    pub(crate) next_ready: Cell<Option<JobPtr>>,
}

/// The block of a job that has both parts.
#[repr(C)]
pub(crate) struct WithTrigger {
    job: Job,
    part: TriggerPart,
}

/// Bits of [`Job::output`] that a group's queue uses, under the group's lock. They are not among the
/// flags that say what fired.
pub(crate) const MARKS: u8 = !(NS_JOB_READ | NS_JOB_WRITE | NS_JOB_TIMER | NS_JOB_SIGNAL) as u8;

#[cfg(not(loom))]
const _: () = assert!(
    size_of::<Job>() <= 40,
    "a run-now job must fit a 48 byte block"
);
#[cfg(not(loom))]
const _: () = assert!(
    size_of::<WithTrigger>() <= 120,
    "a job must fit a 128 byte block"
);

impl Job {
    fn new(pool: NonNull<ns_thrpool_t>, spec: &Spec, state: State) -> Self {
        Self {
            state,
            flags: Flags::new(spec.flags),
            output: AtomicU8::new(0),
            notes: Cell::new(0),
            pool: Cell::new(pool),
            func: spec.func,
            data: AtomicPtr::new(spec.data),
            done_cb: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// The flags, for a step that asks for several.
    #[inline(always)]
    pub(crate) fn look(&self) -> Look {
        self.flags.look()
    }

    /// As `look`, by a plain load: only for the thread that hands an armed job on, fires it, watches it
    /// again or disposes of it.
    #[inline(always)]
    pub(crate) fn look_in_hand(&self) -> Look {
        self.flags.look_in_hand()
    }

    /// The pool that the job belongs to. It outlives the job.
    #[inline(always)]
    pub(crate) fn pool_as_c(&self) -> NonNull<ns_thrpool_t> {
        let pool = self.pool.get();
        if self.look().is_grouped() {
            // SAFETY: a group outlives its members, and begins with its pool.
            return unsafe { pool.cast::<NonNull<ns_thrpool_t>>().read() };
        }
        pool
    }

    /// Whether the job's steps differ from those of most jobs.
    #[inline(always)]
    pub(crate) fn is_unusual(&self) -> bool {
        self.look().is_unusual()
    }

    /// The group that the job is in: its address, which only modules above this one can use.
    #[inline(always)]
    pub(crate) fn group_as_ptr(&self) -> Option<NonNull<c_void>> {
        self.look().is_grouped().then(|| self.pool.get().cast())
    }

    /// Whether the job can be put in a group.
    pub(crate) fn has_room(&self) -> bool {
        self.look().is_roomy()
    }

    /// From now on the job is in `group`, which begins with the job's pool. No other thread uses the
    /// job at that moment.
    pub(crate) fn set_group(&self, group: NonNull<c_void>) {
        debug_assert!(self.has_room() && !self.look().is_grouped());
        self.pool.set(group.cast());
        self.flags.set_grouped();
    }

    /// Whether the job counts against its pool's limit while it waits for a worker.
    pub(crate) fn is_counted(&self) -> bool {
        self.look().is_counted()
    }

    /// The job, which nobody else knows yet, counts against its pool's limit.
    pub(crate) fn set_counted(&self) {
        self.flags.set_counted();
    }

    /// Whether the callback runs in a worker or from a group's queue.
    pub(crate) fn goes_to_queue(&self) -> bool {
        self.look().goes_to_queue()
    }

    /// The marks of its group's queue.
    pub(crate) fn group_marks(&self) -> u8 {
        self.output.load(Ordering::Relaxed) & MARKS
    }

    /// Replaces the marks.
    pub(crate) fn set_group_marks(&self, marks: u8) {
        let output = self.output.load(Ordering::Relaxed) & !MARKS;
        self.output.store(output | marks, Ordering::Relaxed);
    }

    /// The public flags.
    pub(crate) fn flags(&self) -> ns_job_type_t {
        self.look().public()
    }

    /// Whether the job has any of `flags`.
    pub(crate) fn has(&self, flags: ns_job_type_t) -> bool {
        self.look().has(flags)
    }

    /// The kind of the job, according to its flags.
    pub(crate) fn kind(&self) -> Kind {
        self.look().kind()
    }

    /// The callback.
    pub(crate) fn func(&self) -> unsafe extern "C" fn(*mut ns_job_t) {
        self.func
    }

    /// The application's pointer.
    pub(crate) fn data(&self) -> *mut c_void {
        self.data.load(Ordering::Acquire)
    }

    /// As [`Job::data`], for the application: what a thread wrote before it set the pointer happens
    /// before the caller's reads.
    pub(crate) fn take_data(&self) -> *mut c_void {
        let data = || {
            let data = self.data();
            tsan_acquire(&raw const self.data);
            data
        };
        unless_tsan(|| self.data(), data)
    }

    /// Replaces the application's pointer.
    pub(crate) fn set_data(&self, data: *mut c_void) {
        tsan_release(&raw const self.data);
        self.data.store(data, Ordering::Release);
    }

    /// The done callback.
    pub(crate) fn done_cb(&self) -> ns_job_func_t {
        let at = self.done_cb.load(Ordering::Acquire);
        // SAFETY: `set_done_cb` stored a function pointer of this type, or null, which stands for
        // None.
        unsafe { std::mem::transmute::<*mut c_void, ns_job_func_t>(at) }
    }

    /// Replaces the done callback.
    pub(crate) fn set_done_cb(&self, func: ns_job_func_t) {
        let at = func.map_or(ptr::null_mut(), |func| func as *mut c_void);
        self.done_cb.store(at, Ordering::Release);
    }

    /// What fired, while the callback executes; otherwise no flags.
    pub(crate) fn output(&self) -> ns_job_type_t {
        if self.state.is_executing() {
            ns_job_type_t::from(self.output.load(Ordering::Acquire) & !MARKS)
        } else {
            0
        }
    }

    /// Sets `output`, before the job fires.
    pub(crate) fn set_output(&self, output: ns_job_type_t) {
        self.output.store(output as u8, Ordering::Release);
    }

    /// Whether any of these bits of [`note`] is set.
    pub(crate) fn is(&self, bit: u8) -> bool {
        self.notes.get() & bit != 0
    }

    /// Sets a bit of [`note`].
    pub(crate) fn mark(&self, bit: u8) {
        self.notes.set(self.notes.get() | bit);
    }

    /// Clears a bit of [`note`].
    pub(crate) fn unmark(&self, bit: u8) {
        self.notes.set(self.notes.get() & !bit);
    }
}

impl TriggerPart {
    /// Returns `None` for a run-now job, which has no trigger to wait for.
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
            timeout: Cell::new(timeout),
            timer: Timer::new(),
            next_ready: Cell::new(None),
        })
    }
}

/// A pointer to a live job, as queues and lists hold it.
///
/// Every holder has something that keeps the job alive: a bit in the state word (for a queue), a
/// place in one of the loop's lists, the run of its callback, or its disposal.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct JobPtr(NonNull<Job>);

// SAFETY: the fields of a job are atomics, constants, or used by the loop thread alone; see the
// table at the top of this file.
unsafe impl Send for JobPtr {}

impl Deref for JobPtr {
    type Target = Job;

    fn deref(&self) -> &Job {
        // SAFETY: by the invariant of the type, the job is alive.
        unsafe { self.0.as_ref() }
    }
}

impl JobPtr {
    /// The job at `at`.
    ///
    /// # Safety
    /// The job is live, and one of the things that the type's invariant names keeps it alive as
    /// long as the result is used.
    pub(crate) unsafe fn new(at: NonNull<Job>) -> Self {
        Self(at)
    }

    /// The job's [`TriggerPart::link`], for a list. [`JobPtr::of_link`] gets from there back to the job.
    pub(crate) fn link(self) -> *const Node {
        debug_assert!(self.kind() != Kind::Now);
        // SAFETY: as for `trigger_part`. No reference in between: a pointer made from a reference to the
        // link could access the link alone.
        unsafe { &raw const (*self.0.cast::<WithTrigger>().as_ptr()).part.link }
    }

    /// The job's [`TriggerPart::timer`], for the timer wheel. [`JobPtr::of_timer`] gets from there back
    /// to the job.
    pub(crate) fn timer(self) -> NonNull<Timer> {
        debug_assert!(self.kind() != Kind::Now);
        // SAFETY: as for `link`; the address of a field is not null.
        unsafe {
            NonNull::new_unchecked(&raw mut (*self.0.cast::<WithTrigger>().as_ptr()).part.timer)
        }
    }

    /// The part of the job that its trigger needs. Run-now jobs have none.
    pub(crate) fn trigger_part(&self) -> &TriggerPart {
        debug_assert!(self.kind() != Kind::Now);
        // SAFETY: every job that is not a run-now job is the first part of a `WithTrigger`.
        unsafe { &self.0.cast::<WithTrigger>().as_ref().part }
    }

    /// The job's descriptor, or -1.
    pub(crate) fn fd(self) -> c_int {
        match self.kind() {
            Kind::Io => self.trigger_part().number,
            _ => -1,
        }
    }

    /// The number of the job's signal, or -1.
    pub(crate) fn signum(self) -> c_int {
        match self.kind() {
            Kind::Signal => self.trigger_part().number,
            _ => -1,
        }
    }

    /// The job's NSPR descriptor, or NULL.
    pub(crate) fn prfd(self) -> *mut PRFileDesc {
        match self.kind() {
            Kind::Io => self.trigger_part().prfd,
            _ => ptr::null_mut(),
        }
    }

    /// Closes the job's descriptor. The library must own it, and the number must still refer to the
    /// file that the job was made for.
    pub(crate) fn close(self) {
        // ThreadSanitizer sees the close. It has to know that the callbacks, which may have read the descriptor
        // in another thread, have returned before.
        tsan_acquire(&raw const self.state);
        if self.prfd().is_null() {
            sys::close(self.fd());
        } else {
            // SAFETY: the descriptor was open when the job was made, and since then only the
            // library may close it.
            unsafe { nspr::close(self.prfd()) };
        }
    }

    /// Whether the job, of any kind, has a timer.
    pub(crate) fn has_timer(self) -> bool {
        self.kind() != Kind::Now && self.trigger_has_timer()
    }

    /// Whether the job, which is not a run-now job, has a timer.
    #[inline(always)]
    pub(crate) fn trigger_has_timer(self) -> bool {
        self.trigger_part().timeout.get() != NEVER
    }

    /// Whether the job's time is zero, so that it is due in the loop's next turn. Such jobs must
    /// keep their order, however long the queue.
    pub(crate) fn is_due_at_once(self) -> bool {
        self.trigger_part().timeout.get() == 0
    }

    /// Restarts the job's timer from `now`.
    pub(crate) fn restart(self, now: u64) {
        let part = self.trigger_part();
        part.timer
            .set_deadline(now.saturating_add(part.timeout.get()));
    }

    /// The time at which the timer was last started, or an earlier one.
    pub(crate) fn armed_at(self) -> u64 {
        let part = self.trigger_part();
        part.timer.deadline().saturating_sub(part.timeout.get())
    }

    /// The first part of the job, at the start of its memory.
    pub(crate) fn as_job(self) -> NonNull<Job> {
        self.0
    }

    /// The job pointer that C has.
    pub(crate) fn as_c(self) -> *mut ns_job_t {
        self.0.as_ptr().cast()
    }

    /// The job whose [`TriggerPart::link`] is `node`.
    ///
    /// # Safety
    /// `node` came from [`JobPtr::link`], and its job is live.
    pub(crate) unsafe fn of_link(node: *const Node) -> Self {
        // SAFETY: the caller guarantees that the field is inside a live `WithTrigger`.
        unsafe { Self::around(node.cast(), offset_of!(WithTrigger, part.link)) }
    }

    /// The job whose [`TriggerPart::timer`] is `timer`.
    ///
    /// # Safety
    /// `timer` came from [`JobPtr::timer`], and its job is live.
    pub(crate) unsafe fn of_timer(timer: NonNull<Timer>) -> Self {
        // SAFETY: the caller guarantees that the field is inside a live `WithTrigger`.
        unsafe { Self::around(timer.as_ptr().cast(), offset_of!(WithTrigger, part.timer)) }
    }

    unsafe fn around(field: *const u8, offset: usize) -> Self {
        // SAFETY: the field is `offset` bytes behind the start of a `WithTrigger`, so the result is its
        // start and not null.
        unsafe { Self(NonNull::new_unchecked(field.sub(offset).cast_mut().cast())) }
    }
}
