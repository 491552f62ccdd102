// SPDX-License-Identifier: GPL-3.0-or-later
//! The start of a pool. Everything that can fail comes before the first thread; then the workers start,
//! then the loop. If a step fails, the steps before are undone.

use std::cell::UnsafeCell;
use std::io;
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};

use libc::{c_int, c_void, pthread_t};

use super::Pool;
use super::ending::Ending;
use super::mains::{loop_main, watchdog_main, worker_main};
use super::options::{Options, Refused};
use super::slow::Known;
use super::threads::Attributes;
use crate::abi::{INIT_FLAG, ns_thrpool_config, ns_thrpool_options};
use crate::alloc::Allocator;
use crate::event::{EventLoop, Lists};
use crate::log::{Logger, log};
use crate::shared::caller::Caller;
use crate::shared::overload::Overload;
use crate::shared::watchdog::Watchdog;
use crate::shared::{Chosen, Shared};
use crate::stats::{self, Slots};
use crate::wake::Wake;

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
        let slots = Slots::make(&alloc, workers, options.timed)
            .ok_or(StartError::NoMemory)
            .map_err(free_name)?;
        let free_slots = |error| {
            // SAFETY: this function allocated them, and nobody knows them.
            unsafe { slots.free(&alloc) };
            free_name(error)
        };
        // All zero is a thread of which nothing is known.
        let known = alloc
            .zeroed::<Known>(workers + 1)
            .ok_or(StartError::NoMemory)
            .map_err(free_slots)?;
        let free_slots = |error| {
            // SAFETY: as above.
            unsafe { alloc.free(known) };
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
                        watchdog: Watchdog::new(options.slow),
                    },
                    slots,
                ),
                name: options.name,
                hooks: options.hooks,
                framework: framework_name,
                ending: Ending::new(),
                event_loop: UnsafeCell::new(MaybeUninit::new(event_loop)),
                threads,
                known,
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
        let watchdog = pool.shared.watchdog.is_on().then_some(workers + 1);
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
}
