// SPDX-License-Identifier: GPL-3.0-or-later
//! Pools: how they are made and how they end.

use std::any::Any;
use std::cell::Cell;
use std::collections::HashMap;
use std::ffi::CString;
use std::ops::Deref;
use std::os::fd::BorrowedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use crate::log;
use crate::prelude::*;

/// How to make a pool: `Pool::with(Options { workers: 4, ..Options::default() })`.
#[derive(Default)]
pub struct Options {
    /// Worker threads. `Options::default()` has 0, for which 1 is made, or none with `caller_loop`.
    pub workers: usize,
    /// The stack of each thread in bytes; 0 is the system's default.
    pub stack_size: usize,
    /// The prefix of the threads' names, at most 8 characters.
    pub name: Option<String>,
    /// The event framework: `native`, `portable`, `libevent`, `tevent` and so on.
    pub framework: Option<String>,
    /// No loop thread: who calls [`Pool::run_loop`] or [`Pool::turn`] is the loop meanwhile.
    pub caller_loop: bool,
    /// Gets the payload of a panic in a callback, in its thread.
    pub on_panic: Option<Box<PanicHook>>,
}

type PanicHook = dyn Fn(Box<dyn Any + Send>) + Send + Sync;

/// What a pool and everything that may outlive it share.
pub(crate) struct Inner {
    pub(crate) tp: Raw<ns_thrpool_t>,
    /// Read during each call from outside callbacks; true once no more come in.
    closed: RwLock<bool>,
    /// Jobs that have owners, and groups.
    pub(crate) jobs: Mutex<HashMap<usize, Weak<JobState>>>,
    pub(crate) groups: Mutex<HashMap<usize, Weak<GroupState>>>,
    options: Options,
}

thread_local! {
    /// The pool whose callback this thread runs.
    static RUNS: Cell<*const Inner> = const { Cell::new(ptr::null()) };
}

impl Inner {
    /// Begin a call on the pool, its jobs or its groups. All other locks are taken inside one, and calls don't nest.
    pub(crate) fn enter(&self) -> Result<RwLockReadGuard<'_, bool>> {
        if log::is_inside() {
            return Err(Error::InvalidState);
        }
        let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner);
        if *closed { Err(Error::Shutdown) } else { Ok(closed) }
    }

    /// Run others' code in one of the pool's threads. A panic ends here: true.
    pub(crate) fn guarded(&self, code: impl FnOnce()) -> bool {
        let before = RUNS.replace(self);
        let panicked = contain(code, |thrown| match &self.options.on_panic {
            Some(hook) => hook(thrown),
            None => log::line(libc::LOG_ERR, "a callback panicked, and its job is finished with"),
        });
        RUNS.set(before);
        panicked
    }
}

/// Run others' code and, if it panics, hand on the payload. That may panic, too, and so may the payload's own drop.
pub(crate) fn contain(code: impl FnOnce(), report: impl FnOnce(Box<dyn Any + Send>)) -> bool {
    let Err(thrown) = catch_unwind(AssertUnwindSafe(code)) else { return false };
    let mut again = catch_unwind(AssertUnwindSafe(|| report(thrown)));
    while let Err(thrown) = again {
        again = catch_unwind(AssertUnwindSafe(|| drop(thrown)));
    }
    true
}

/// A pool: worker threads and an event loop. What adds jobs is in [`Handle`], to which it dereferences.
///
/// Dropping it shuts it down, waits until no callback runs any more, cancels the jobs that are left, and drops
/// what they captured. Jobs, groups and handles may outlive it: their calls return `Error::Shutdown`. If one of
/// the pool's own threads drops it, another thread does this.
pub struct Pool(Handle);

impl Deref for Pool {
    type Target = Handle;
    fn deref(&self) -> &Handle {
        &self.0
    }
}

impl Pool {
    /// A pool with so many workers.
    pub fn new(workers: usize) -> Result<Pool> {
        Pool::with(Options { workers, ..Options::default() })
    }

    /// A pool with options. `InvalidRequest`: the log says what was wrong, or missing.
    pub fn with(options: Options) -> Result<Pool> {
        if log::is_inside() {
            return Err(Error::InvalidState);
        }
        let string = |text: &Option<String>| text.clone().map(CString::new).transpose();
        let name = string(&options.name).map_err(|_| Error::InvalidRequest)?;
        let framework = string(&options.framework).map_err(|_| Error::InvalidRequest)?;
        // SAFETY: both structs are plain C, and the library fills them in; it copies what they point to.
        let tp = unsafe {
            let mut config: ns_thrpool_config = std::mem::zeroed();
            ns_thrpool_config_init(&mut config);
            config.max_threads = options.workers.max(usize::from(!options.caller_loop));
            config.stacksize = options.stack_size;
            config.log_fct = log::function();
            let mut more: ns_thrpool_options = std::mem::zeroed();
            ns_thrpool_options_init(&mut more, size_of::<ns_thrpool_options>());
            more.name = name.as_ref().map_or(ptr::null(), |text| text.as_ptr());
            more.framework = framework.as_ref().map_or(ptr::null(), |text| text.as_ptr());
            more.flags = if options.caller_loop { NS_POOL_CALLER_LOOP } else { 0 };
            ns_thrpool_new_with(&mut config, &more)
        };
        if tp.is_null() {
            return Err(Error::InvalidRequest);
        }
        let (closed, jobs, groups) = Default::default();
        Ok(Pool(Handle::of(Arc::new(Inner { tp: Raw(tp), options, closed, jobs, groups }))))
    }

    /// Lives as long as `self`.
    fn tp(&self) -> Result<*mut ns_thrpool_t> {
        if log::is_inside() { Err(Error::InvalidState) } else { Ok(self.inner.tp.0) }
    }

    /// Wait until it has been shut down and no callback runs any more. `ThreadFailure` in its own threads.
    pub fn wait(&self) -> Result<()> {
        // SAFETY: the pool lives as long as `self`; so in the functions below.
        check(unsafe { ns_thrpool_wait(self.tp()?) })
    }

    /// The same, with a limit: `Timeout`. A signal handler that runs in this thread may end it early.
    pub fn wait_timeout(&self, time: Duration) -> Result<()> {
        // SAFETY: as in `wait`.
        check(unsafe { ns_thrpool_timedwait(self.tp()?, &c_time(time)) })
    }

    /// With `caller_loop`: be the loop until the pool is shut down and quiet.
    pub fn run_loop(&self) -> Result<()> {
        // SAFETY: as in `wait`.
        check(unsafe { ns_thrpool_run(self.tp()?) })
    }

    /// Be the loop for one turn, which waits for at most so long (`None`: without limit). `Ok(false)`: there was
    /// nothing to do. `Shutdown`: the pool is quiet.
    pub fn turn(&self, most: Option<Duration>) -> Result<bool> {
        let tp = self.tp()?;
        // SAFETY: as in `wait`.
        match check(c_limit(most, |tv| unsafe { ns_thrpool_turn(tp, tv) })) {
            Err(Error::Timeout) => Ok(false),
            result => result.map(|()| true),
        }
    }

    /// With `caller_loop`: polls readable when a turn would find something to do, for another event loop.
    pub fn wait_fd(&self) -> Option<BorrowedFd<'_>> {
        // SAFETY: as in `wait`.
        let fd = unsafe { ns_thrpool_get_wait_fd(self.inner.tp.0) };
        // SAFETY: the descriptor is the pool's, which outlives the borrow.
        (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let inner = self.inner.clone();
        let inside = log::is_inside() || RUNS.get() == Arc::as_ptr(&inner);
        if inside || !inner.end() {
            // If there is no thread to be had, the pool goes on, but nothing can be added.
            let _ = std::thread::Builder::new().spawn(move || inner.end());
        }
    }
}

impl Inner {
    /// End the pool; false in its own threads, which cannot.
    fn end(&self) -> bool {
        // SAFETY: the pool is there until it is destroyed. Then all calls have left, and no more come in.
        unsafe {
            ns_thrpool_shutdown(self.tp.0);
            let code = if self.options.caller_loop { ns_thrpool_run(self.tp.0) } else { ns_thrpool_wait(self.tp.0) };
            if !matches!(check(code), Ok(()) | Err(Error::Shutdown)) {
                return false;
            }
            *self.closed.write().unwrap_or_else(PoisonError::into_inner) = true;
            // Idle jobs and groups are ours to end; the library ends the others, too.
            let jobs: Vec<_> = lock(&self.jobs).values().filter_map(Weak::upgrade).collect();
            jobs.iter().for_each(|job| _ = job.end());
            let groups: Vec<_> = lock(&self.groups).values().filter_map(Weak::upgrade).collect();
            groups.iter().for_each(|group| ns_group_release(group.raw.0));
            ns_thrpool_destroy(self.tp.0);
        }
        true
    }
}
