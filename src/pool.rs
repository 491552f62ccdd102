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
pub(crate) mod look;
mod options;
mod slow;
mod threads;
mod watchdog;

use std::cell::UnsafeCell;
use std::ffi::CStr;
use std::io;
use std::mem::{MaybeUninit, offset_of};
use std::ptr::{self, NonNull};
use std::sync::atomic::Ordering;

use libc::{c_char, c_int, c_void, pthread_t};

use crate::abi::{INIT_FLAG, ns_thrpool_config, ns_thrpool_options};
use crate::alloc::Allocator;
use crate::event::{EventLoop, Lists};
use crate::job::here;
use crate::log::{Logger, log};
use crate::perturb::perturb;
use crate::run;
use crate::shared::caller::Caller;
use crate::shared::overload::Overload;
use crate::shared::watch::Watch;
use crate::shared::{Chosen, Phase, Shared};
use crate::signals;
use crate::stats::{self, NOBODY, Slots};
use crate::symbol::Field;
use crate::sync::tsan_release;
use crate::sys::CancelGuard;
use crate::wake::Wake;
use ending::Ending;
pub(crate) use ending::Waited;
use options::{Hooks, Name, Options, Refused, SlowFn};
use slow::Watched;
use threads::{Attributes, Body};

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
    watched: NonNull<Watched>,
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

/// Why a pool failed to start.
enum StartError<'a> {
    /// The options are no good.
    Options(Refused<'a>),
    /// `max_threads` is 0.
    NoThreads,
    /// The step that failed, and why: an errno, or what is wrong with an event framework.
    System(&'static str, io::Error),
    NoMemory,
}

impl Pool {
    /// `ns_thrpool_new` and `ns_thrpool_new_with`, by `name`: returns a running pool, or logs the reason
    /// and returns `None`.
    ///
    /// # Safety
    /// `options` is NULL, or points at as many bytes as its `size` says, with valid strings.
    pub(crate) unsafe fn start(
        name: &str,
        config: Option<&ns_thrpool_config>,
        options: *const ns_thrpool_options,
    ) -> Option<NonNull<Self>> {
        let Some(config) = config else {
            log!(Logger::NoPool, LOG_ERR, "{name}: config is NULL");
            return None;
        };
        if config.init_flag != INIT_FLAG {
            let what = "config was not initialised by ns_thrpool_config_init";
            log!(Logger::NoPool, LOG_ERR, "{name}: {what}");
            return None;
        }
        let logger = Logger::start(config.log_fct, config.log_start_fct, config.log_close_fct);
        if config.calloc_fct.is_some() != config.free_fct.is_some() {
            let what = "only one of calloc_fct and free_fct is set, the other is libc's";
            log!(logger, LOG_WARNING, "{name}: {what}");
        }
        let (threads, stack) = (config.max_threads, config.stacksize);
        // SAFETY: guaranteed by the caller.
        let made = unsafe { Options::new(options) }
            .map_err(StartError::Options)
            .and_then(|options| Self::make(config, &options, logger));
        let logger = logger.without_pool();
        match made {
            Ok(pool) => return Some(pool),
            Err(StartError::Options(why)) => log!(logger, LOG_ERR, "{name}: {why}"),
            Err(StartError::NoThreads) => log!(logger, LOG_ERR, "{name}: max_threads is 0"),
            Err(StartError::NoMemory) => {
                let what = "no memory, max_threads is";
                log!(logger, LOG_ERR, "{name}: {what} {threads}");
            }
            Err(StartError::System(_, why)) if why.raw_os_error().is_none() => {
                log!(logger, LOG_ERR, "{name}: {why}");
            }
            Err(StartError::System(what, why)) => {
                log!(
                    logger,
                    LOG_ERR,
                    "{name}: {what}: {why}; max_threads is {threads}, stacksize {stack}"
                );
            }
        }
        logger.close();
        None
    }

    fn make<'a>(
        config: &ns_thrpool_config,
        options: &Options<'_>,
        logger: Logger,
    ) -> Result<NonNull<Self>, StartError<'a>> {
        let system = |what| move |error| StartError::System(what, error);
        let by_number = |what| move |errno| system(what)(io::Error::from_raw_os_error(errno));
        if config.max_threads == 0 && !options.caller_loop {
            return Err(StartError::NoThreads);
        }
        let attributes = Attributes::new(config.stacksize).map_err(by_number("stacksize"))?;
        let workers = config.max_threads;
        let alloc = Allocator::new(config.calloc_fct, config.free_fct);
        let (place, block) = alloc.aligned::<Self>().ok_or(StartError::NoMemory)?;
        let free_block = |error| {
            // SAFETY: this function allocated the block and has put nothing in it.
            unsafe { alloc.free(block) };
            error
        };
        let count = workers.checked_add(2).ok_or(StartError::NoMemory);
        let threads = count
            .and_then(|count| alloc.zeroed::<pthread_t>(count).ok_or(StartError::NoMemory))
            .map_err(free_block)?;
        let free_threads = |error| {
            // SAFETY: this function allocated the array, and no thread uses it yet.
            unsafe { alloc.free(threads) };
            free_block(error)
        };
        let lists = alloc
            .zeroed::<Lists>(1)
            .ok_or(StartError::NoMemory)
            .map_err(free_threads)?;
        let free_lists = |error| {
            // SAFETY: this function allocated the lists, and they are empty.
            unsafe { alloc.free(lists) };
            free_threads(error)
        };
        let framework_name = options
            .copy_framework_name(&alloc)
            .ok_or(StartError::NoMemory)
            .map_err(free_lists)?;
        let free_name = |error| {
            // SAFETY: this function allocated the name, and nothing uses it yet.
            unsafe { alloc.free(framework_name) };
            free_lists(error)
        };
        let slots = Slots::make(&alloc, workers)
            .ok_or(StartError::NoMemory)
            .map_err(free_name)?;
        let free_slots = |error| {
            // SAFETY: this function allocated them, and nobody knows them.
            unsafe { slots.free(&alloc) };
            free_name(error)
        };
        // All zero is a thread of which nothing is known.
        let watched = alloc
            .zeroed::<Watched>(workers + 1)
            .ok_or(StartError::NoMemory)
            .map_err(free_slots)?;
        let free_slots = |error| {
            // SAFETY: as above.
            unsafe { alloc.free(watched) };
            free_slots(error)
        };
        let wake = Wake::new()
            .map_err(system("wake pipe"))
            .map_err(free_slots)?;
        let own_thread = !options.caller_loop;
        let framework = options.framework;
        // SAFETY: zeroed memory is a set of empty lists. `Pool::free` drops the loop before it
        // frees them.
        let made = unsafe { EventLoop::new(framework, wake.read_end(), lists, own_thread) };
        let event_loop = match made {
            Ok(event_loop) => event_loop,
            Err(error) => {
                wake.close();
                return Err(free_slots(system("poller")(error)));
            }
        };
        // SAFETY: `place` has the size and alignment of a pool.
        let pool = unsafe {
            place.write(Self {
                shared: Shared::new(
                    alloc,
                    logger,
                    wake,
                    workers,
                    Chosen {
                        overload: Overload::new(options.queue_limit),
                        caller: options.caller_loop.then(Caller::new),
                        watch: Watch::new(options.slow),
                    },
                    slots,
                ),
                name: options.name,
                hooks: options.hooks,
                framework: framework_name,
                ending: Ending::new(),
                event_loop: UnsafeCell::new(MaybeUninit::new(event_loop)),
                threads,
                watched,
                slow_fct: options.slow_fct,
                workers,
                lists,
                block,
            });
            place.as_ref()
        };
        pool.shared.desk.settle();
        // SAFETY: no thread runs yet.
        let event_loop = unsafe { pool.event_loop() };
        let claimed = event_loop.claim(&pool.shared);
        let (slots, made) = (&pool.shared.slots, &pool.shared.made);
        slots.belong_to(place.as_ptr().cast(), made, pool.name.bytes());
        if !claimed || !stats::enroll(slots) {
            // SAFETY: no thread runs, and no other code has the pointer.
            unsafe { Self::free(place) };
            return Err(StartError::NoMemory);
        }
        if options.caller_loop {
            event_loop.watch_poller(&pool.shared);
            event_loop.pause(&pool.shared);
        }
        // The watchdog is the last in the array, and the first to start: it can be stopped by itself.
        let watchdog = pool.shared.watch.is_on().then_some(workers + 1);
        let others = 0..workers + usize::from(!options.caller_loop);
        for index in watchdog.into_iter().chain(others) {
            let main = match index {
                _ if index < workers => worker_main,
                _ if index == workers => loop_main,
                _ => watchdog_main,
            };
            if let Err(errno) = pool.spawn(index, main, &attributes) {
                pool.shared.work.close();
                let workers = if Some(index) == watchdog { 0 } else { index };
                for started in 0..workers {
                    pool.join(started);
                }
                if Some(index) != watchdog {
                    pool.stop_watchdog();
                }
                // SAFETY: the threads are joined, and no other code has the pointer.
                unsafe { Self::free(place) };
                return Err(by_number("threads")(errno));
            }
        }
        log!(
            logger,
            LOG_INFO,
            "pool {place:p}: started with {workers} workers"
        );
        Ok(place)
    }

    /// Starts thread number `index`.
    fn spawn(
        &self,
        index: usize,
        main: extern "C" fn(*mut c_void) -> *mut c_void,
        attributes: &Attributes,
    ) -> Result<(), c_int> {
        // SAFETY: the array has `workers + 2` elements, and `index` is at most `workers + 1`.
        let at = unsafe { self.threads.as_ptr().add(index) };
        let arg = ptr::from_ref(self).cast_mut().cast();
        // SAFETY: `destroy` joins the threads before it frees the pool.
        match unsafe { libc::pthread_create(at, &attributes.0, main, arg) } {
            0 => Ok(()),
            errno => Err(errno),
        }
    }

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
        if self.shared.watch.is_on() {
            self.shared.watch.stop();
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
            alloc.free((*this).watched);
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

/// # Safety
/// `pool` is a pool, and outlives the thread.
unsafe fn thread_main(pool: *mut c_void, is_loop: bool, body: Body) -> *mut c_void {
    // SAFETY: guaranteed by the caller.
    let name = unsafe { &*pool.cast::<Pool>() }.thread_name(is_loop);
    threads::enter(name.as_c(), body, pool);
    ptr::null_mut()
}

extern "C" fn worker_main(pool: *mut c_void) -> *mut c_void {
    // SAFETY: the pool outlives its threads: `destroy` joins them first.
    unsafe { thread_main(pool, false, worker_body) }
}

extern "C" fn loop_main(pool: *mut c_void) -> *mut c_void {
    // SAFETY: as above.
    unsafe { thread_main(pool, true, loop_body) }
}

extern "C" fn watchdog_main(pool: *mut c_void) -> *mut c_void {
    // SAFETY: as above.
    let name = unsafe { &*pool.cast::<Pool>() }.name.with("-watch");
    threads::enter(name.as_c(), watchdog_body, pool);
    ptr::null_mut()
}

unsafe extern "C" fn watchdog_body(pool: *mut c_void) {
    // SAFETY: as above.
    let pool = unsafe { &*pool.cast::<Pool>() };
    let name = pool.name.with("-watch");
    // It is one of the pool's own, and runs no jobs.
    here::enter_pool(pool.shared.as_c(), false, &NOBODY);
    pool.hooks.start(name.as_c());
    pool.watch();
    pool.hooks.end(name.as_c());
}

unsafe extern "C" fn worker_body(pool: *mut c_void) {
    // SAFETY: as above.
    let pool = unsafe { &*pool.cast::<Pool>() };
    // Before the application's code, which then can neither wait for the pool nor destroy it.
    let index = pool.shared.seats.fetch_add(1, Ordering::Relaxed);
    let slot = pool.shared.slots.of_worker(index);
    pool.shared.enter(slot, false);
    let name = pool.thread_name(false);
    pool.hooks.start(name.as_c());
    run::work(&pool.shared, index);
    // While the worker still counts, so that a join does not wait for the application's code.
    pool.hooks.end(name.as_c());
    slot.leave();
    perturb("the worker has no more work, and counts still");
    if pool.shared.workers.fetch_sub(1, Ordering::SeqCst) == 1 {
        perturb("the last worker has left, and the loop does not know");
        pool.shared.nudge();
    }
}

unsafe extern "C" fn loop_body(pool: *mut c_void) {
    // SAFETY: as above.
    let pool = unsafe { &*pool.cast::<Pool>() };
    let slot = pool.shared.slots.of_loop();
    pool.shared.enter(slot, true);
    let name = pool.thread_name(true);
    pool.hooks.start(name.as_c());
    pool.run_loop();
    pool.hooks.end(name.as_c());
    slot.leave();
}

/// Whether the calling thread belongs to `pool`. Such a thread can neither wait for the pool nor
/// destroy it.
pub(crate) fn is_own_thread(pool: &Pool) -> bool {
    !pool.shared.is_forked() && pool.shared.is_here()
}
