// SPDX-License-Identifier: GPL-3.0-or-later
//! The life of a pool: start, shutdown, wait, destroy.
//!
//! 1. [`Pool::start`] first does everything that can fail before the first thread, then starts the
//!    workers, then the loop. If a step fails, it undoes the steps before.
//! 2. [`Pool::shutdown`] sets a flag, closes the work queue and wakes all threads.
//! 3. Each worker empties the work queue and exits. The last one wakes the loop.
//! 4. The loop finishes its current turn and goes quiet: from then on no callback runs.
//!    [`Pool::wait`] waits for that.
//! 5. [`Pool::destroy`] tells the quiet loop to dispose of the remaining jobs and exit, then frees
//!    the pool.

mod caller;
mod ending;
mod look;
mod mains;
mod options;
pub(crate) mod report;
mod slow;
mod start;
mod threads;
mod watchdog;

use std::cell::UnsafeCell;
use std::ffi::CStr;
use std::mem::{MaybeUninit, offset_of};
use std::ptr::{self, NonNull};

use libc::{c_char, c_int, pthread_t};

use crate::event::{EventLoop, Lists};
use crate::log::log;
use crate::perturb::perturb;
use crate::shared::{Phase, Shared};
use crate::signals;
use crate::stats;
use crate::symbol::Field;
use crate::sync::tsan_release;
use crate::sys::CancelGuard;
use ending::Ending;
pub(crate) use ending::Waited;
use options::{Hooks, Name, SlowFn};
use slow::Known;

/// A pool, in memory from the allocator that its config names.
#[repr(C)]
pub(crate) struct Pool {
    /// The first field, so that a pool and its shared part have the same address. Jobs keep a
    /// pointer to the shared part.
    pub(crate) shared: Shared,
    /// How the names of its threads begin.
    name: Name,
    /// What the application has called in each thread.
    hooks: Hooks,
    /// The name of its event framework: a string in memory from the pool's allocator.
    framework: NonNull<c_char>,
    ending: Ending,
    /// Only the loop thread uses this, from its start to its exit; or, one after the other, the threads of
    /// the application's that turn the loop.
    event_loop: UnsafeCell<MaybeUninit<EventLoop>>,
    /// The thread ids: the workers first, then the loop, if it has a thread, and the watchdog, if there
    /// is one.
    threads: NonNull<pthread_t>,
    /// What the watchdog knows of each thread.
    known: NonNull<Known>,
    /// Gets its reports, instead of the log.
    slow_fct: Option<SlowFn>,
    workers: usize,
    /// The lists of the loop.
    lists: NonNull<Lists>,
    /// The allocated block that contains this pool.
    block: NonNull<u8>,
}

/// See [`layout`](crate::layout). A pool begins with its shared part.
pub(crate) const POOL_LAYOUT: &[Field] = &[
    ("pool.shared", offset_of!(Pool, shared), size_of::<Shared>()),
    ("pool.lists", offset_of!(Pool, lists), size_of::<usize>()),
    (
        "pool.workers",
        offset_of!(Pool, workers),
        size_of::<usize>(),
    ),
];

impl Pool {
    fn thread_name(&self, is_loop: bool) -> Name {
        self.name.with(if is_loop { "-loop" } else { "-worker" })
    }

    /// The name of the pool's event framework, as it was asked for.
    pub(crate) fn framework(&self) -> &CStr {
        // SAFETY: a string that lives as long as the pool.
        unsafe { CStr::from_ptr(self.framework.as_ptr()) }
    }

    fn join(&self, index: usize) -> c_int {
        // SAFETY: the thread was started, and each thread is joined only once.
        unsafe { libc::pthread_join(*self.threads.as_ptr().add(index), ptr::null_mut()) }
    }

    /// As [`Pool::join`]; `None` when the deadline has passed.
    fn join_by(&self, index: usize, deadline: u64) -> Option<c_int> {
        // SAFETY: as above; a join that timed out has not joined.
        let errno = unsafe { threads::join_by(*self.threads.as_ptr().add(index), deadline) };
        (errno != libc::ETIMEDOUT).then_some(errno)
    }

    /// Ends the watchdog, if there is one.
    fn stop_watchdog(&self) {
        if self.shared.watchdog.is_on() {
            self.shared.watchdog.stop();
            self.join(self.workers + 1);
        }
    }

    /// `ns_thrpool_shutdown`.
    pub(crate) fn shutdown(&self) {
        // Another thread may see that the pool has stopped, and destroy it, before this call
        // returns. `destroy` waits until we leave.
        let _in_call = self.shared.waiters.enter();
        tsan_release(&raw const self.shared.gate);
        if !self.shared.shut() {
            return;
        }
        log!(self.shared.logger, LOG_INFO, "pool {self:p}: shutting down");
        perturb("said to shut down, and the work queue is open");
        self.shared.keep_workers();
        self.shared.work.close();
        perturb("the work queue is closed, and no waiting worker released");
        self.shared.waiters.stop_workers();
        perturb("the workers may leave, and the loop does not know");
        self.shared.nudge();
        if let Some(caller) = &self.shared.caller {
            caller.ring();
        }
    }

    /// `ns_thrpool_wait` and `ns_thrpool_timedwait`, called from a thread that does not belong to the
    /// pool. The deadline is in nanoseconds of the monotonic clock.
    pub(crate) fn wait(&self, deadline: Option<u64>) -> Waited {
        let _cancel = CancelGuard::new();
        // The first thread whose wait ends may destroy the pool; `destroy` waits until we leave.
        let _in_call = self.shared.waiters.enter();
        match &self.shared.caller {
            Some(caller) => self.wait_as_loop(caller, deadline, false),
            None => self.wait_for_workers(deadline),
        }
    }

    /// Waits until the loop is quiet, and joins the workers.
    fn wait_for_workers(&self, deadline: Option<u64>) -> Waited {
        self.ending
            .wait(deadline, self.workers, |index| match deadline {
                None => Some(self.join(index)),
                Some(deadline) => self.join_by(index, deadline),
            })
    }

    /// `ns_thrpool_destroy`, called from a thread that does not belong to the pool.
    ///
    /// # Safety
    /// No other thread is in a call on the pool, and none makes one afterwards.
    pub(crate) unsafe fn destroy(pool: NonNull<Self>) {
        // SAFETY: the pool lives until `free` below.
        let this = unsafe { pool.as_ref() };
        let _cancel = CancelGuard::new();
        if this.shared.is_forked() {
            // SAFETY: the caller guarantees that nobody else uses the pool, and the parent's
            // threads do not exist in this process.
            unsafe { this.release_in_child() };
            return;
        }
        this.shutdown();
        if let Some(caller) = &this.shared.caller {
            this.wait_as_loop(caller, None, true);
            this.shared.set_phase(Phase::Stopping);
            this.dispose_as_loop(caller);
        } else {
            let _ = this.wait(None);
            this.shared.set_phase(Phase::Stopping);
            perturb("to stop, and the loop does not know");
            this.shared.nudge();
            this.join(this.workers);
        }
        perturb("the loop has ended, and nothing is freed");
        this.stop_watchdog();
        // Thread-local destructors that ran when the loop thread exited may have finished with
        // jobs.
        if !this.shared.requests.is_empty() {
            // SAFETY: the loop thread has been joined.
            unsafe { this.event_loop() }.dispose_of_all(&this.shared);
        }
        this.shared.deferred.clear();
        this.shared.deferred_groups.clear();
        this.shared.waiters.drain();
        let logger = this.shared.logger;
        signals::unsubscribe_all(&this.shared.mailbox);
        if let Some(left) = this.shared.idle.left() {
            log!(
                logger,
                LOG_WARNING,
                "ns_thrpool_destroy: pool {pool:p}: {left}"
            );
        }
        log!(logger, LOG_INFO, "pool {pool:p}: destroyed");
        // SAFETY: the threads are joined, and the caller guarantees that nobody else uses the pool.
        unsafe { Self::free(pool) };
        logger.close();
    }

    /// Frees all that [`Pool::make`] allocated.
    ///
    /// # Safety
    /// No thread uses the pool.
    unsafe fn free(pool: NonNull<Self>) {
        // SAFETY: the pool is live, and the caller guarantees that no thread uses it.
        unsafe {
            let this = pool.as_ptr();
            if let Some(caller) = &(*this).shared.caller {
                caller.wait_fd.close();
            }
            // The poller watches the pipe, so it goes first.
            stats::strike(&(*this).shared.slots);
            (*(*this).event_loop.get()).assume_init_drop();
            (*this).shared.wake.close();
            let alloc = (*this).shared.alloc;
            (*this).shared.fds.free(&alloc);
            alloc.free((*this).threads);
            alloc.free((*this).framework);
            alloc.free((*this).lists);
            alloc.free((*this).known);
            (*this).shared.slots.free(&alloc);
            let block = (*this).block;
            ptr::drop_in_place(this);
            alloc.free(block);
        }
    }

    /// In a forked child: closes the descriptors and does nothing else. The memory stays allocated:
    /// a thread of the parent may have been changing it at the time of the fork.
    ///
    /// # Safety
    /// Nobody else uses the pool in this process.
    unsafe fn release_in_child(&self) {
        // SAFETY: the loop thread exists only in the parent, so nothing else uses the loop here.
        let event_loop = unsafe { (*self.event_loop.get()).assume_init_read() };
        if let Some(caller) = &self.shared.caller {
            caller.wait_fd.close();
        }
        // Close the pipe first: releasing the poller needs a free descriptor number.
        stats::strike(&self.shared.slots);
        self.shared.wake.close();
        event_loop.release_in_child();
    }

    /// The loop.
    ///
    /// # Safety
    /// The calling thread is the loop thread, or no thread is.
    #[expect(clippy::mut_from_ref, reason = "the cell is there for that")]
    unsafe fn event_loop(&self) -> &mut EventLoop {
        // SAFETY: `make` has initialised it, and only the caller uses it.
        unsafe { (*self.event_loop.get()).assume_init_mut() }
    }

    fn run_loop(&self) {
        // SAFETY: this is the loop thread.
        let event_loop = unsafe { self.event_loop() };
        event_loop.run(&self.shared, || {
            self.ending.set_quiet();
        });
    }
}

/// Whether the calling thread belongs to `pool`. Such a thread can neither wait for the pool nor
/// destroy it.
pub(crate) fn is_own_thread(pool: &Pool) -> bool {
    !pool.shared.is_forked() && pool.shared.is_here()
}
