// SPDX-License-Identifier: GPL-3.0-or-later
//! Signals: from the handler to the pools that watch, and the disposition that was there before.
//!
//! One handler serves all watched signals. It counts the signal in the [`Mailbox`] of each pool
//! that watches it and wakes the pool's loop. Where no pool of this process watches, it does what
//! the earlier disposition would have done ([`earlier`]).
//!
//! The dispatch is our own, and no crate's. signal-hook's waits for handlers by yielding, so a
//! thread at real-time priority would spin against one that it has preempted; a fork copies its
//! count of them, and a child would wait for ever; its handler is learned only by reading back what
//! another thread may have replaced; and it goes on to the handler that it found, every time, with
//! no way to put that back.
//!
//! **The lists.** Each signal has a list of the pools that watch it, through nodes in their
//! mailboxes. A handler walks it inside a [`Grace`]; a pool that leaves waits for those inside. The
//! handler runs with all signals blocked: nothing can interrupt it there, fork, or jump out of it.
//!
//! **The order of a watch.** First the pool is in the list, then what is there is noted as the
//! earlier disposition, then ours is put in its place by the one call that says what it replaces.
//! So a signal takes either its earlier effect or ours, at whichever step it comes.
//!
//! **Forks.** Lists, lock and count belong to an [`Era`], which a process makes for itself; the
//! parent's stays as it is, for frames of its time, and is never looked at again. What passes from
//! parent to child are the dispositions, of which the handlers read a [`Latch`]: whole at every
//! step. All signals are blocked in the thread that holds the lock, so no handler runs there, and
//! forks. Nobody waits for anything around a fork.

mod earlier;
pub(crate) mod latch;

use std::alloc::{Layout, alloc};
use std::cell::UnsafeCell;
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use libc::{c_int, c_void, siginfo_t, sigset_t};

use crate::fork;
use crate::perturb::{perturb, perturb_in_handler};
use crate::shared::{MakeError, Shared};
use crate::sync::grace::Grace;
use crate::sys::{CancelGuard, ErrnoGuard};
use latch::Latch;

/// Signal numbers are below this.
const NUMBERS: usize = 65;

/// Whether `signum` is a signal that can be watched: not those that cannot be caught, not those
/// that the code which runs raises by itself and would raise again when the handler returns, not
/// those that the C library keeps for itself.
pub(crate) fn can_watch(signum: c_int) -> bool {
    const FORBIDDEN: &[c_int] = &[
        libc::SIGKILL,
        libc::SIGSTOP,
        libc::SIGILL,
        libc::SIGFPE,
        libc::SIGSEGV,
        libc::SIGBUS,
        libc::SIGTRAP,
        libc::SIGSYS,
        #[cfg(any(
            target_vendor = "apple",
            target_os = "freebsd",
            target_os = "netbsd",
            target_os = "openbsd"
        ))]
        libc::SIGEMT,
    ];
    // SAFETY: a set of ours, and a number that sigaddset checks.
    let exists = unsafe {
        let mut set = mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, signum) == 0
    };
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let exists = exists && !(32..libc::SIGRTMIN()).contains(&signum);
    exists && (1..NUMBERS as c_int).contains(&signum) && !FORBIDDEN.contains(&signum)
}

/// What has arrived for one pool.
pub(crate) struct Mailbox {
    /// How many of each have arrived.
    counts: [AtomicU32; NUMBERS],
    /// Something has arrived since the loop last looked.
    any: AtomicBool,
    /// The pool's places in the lists of those who watch.
    nodes: [Node; NUMBERS],
}

/// A pool in the list of one signal.
struct Node {
    /// Kept when it leaves the list, for handlers that are at it.
    next: AtomicPtr<Node>,
    pool: AtomicPtr<Shared>,
    /// The pool's jobs for the signal: while there are any it is in the list. Under the lock.
    jobs: AtomicUsize,
}

impl Mailbox {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self {
            counts: [const { AtomicU32::new(0) }; NUMBERS],
            any: AtomicBool::new(false),
            nodes: [const {
                Node {
                    next: AtomicPtr::new(ptr::null_mut()),
                    pool: AtomicPtr::new(ptr::null_mut()),
                    jobs: AtomicUsize::new(0),
                }
            }; NUMBERS],
        }
    }

    /// How many of `signum` have arrived.
    pub(crate) fn count(&self, signum: c_int) -> u32 {
        self.counts[signum as usize].load(Ordering::SeqCst)
    }

    /// Whether something has arrived since the last [`Mailbox::take`].
    pub(crate) fn is_empty(&self) -> bool {
        !self.any.load(Ordering::SeqCst)
    }

    /// The loop is about to look. What arrives from now on says so again.
    pub(crate) fn take(&self) -> bool {
        // The load keeps a read-modify-write out of every turn.
        !self.is_empty() && self.any.swap(false, Ordering::SeqCst)
    }
}

type Handler = extern "C" fn(c_int, *mut siginfo_t, *mut c_void);

const WORDS: usize = size_of::<libc::sigaction>() / size_of::<usize>();

/// What the system does with a signal: a sigaction, as words that a [`Latch`] can hold. All of it
/// is initialised, whatever the C library writes.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Disposition([usize; WORDS]);

const _: () = assert!(
    size_of::<libc::sigaction>() == size_of::<Disposition>()
        && align_of::<libc::sigaction>() <= align_of::<Disposition>()
);

impl Disposition {
    /// The default action. (All zero is that: no handler, no flags, an empty mask.)
    fn default() -> Self {
        Self([0; WORDS])
    }

    /// Ours. All signals are blocked while it runs. Programs with small stacks, Go's for one, ask
    /// that handlers use their own.
    fn ours() -> Self {
        let mut ours = Self::default();
        // SAFETY: a sigaction, all of it initialised.
        let action = unsafe { &mut *ours.0.as_mut_ptr().cast::<libc::sigaction>() };
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_RESTART | libc::SA_ONSTACK;
        // SAFETY: a set of ours.
        unsafe { libc::sigfillset(&mut action.sa_mask) };
        ours
    }

    fn action(&self) -> &libc::sigaction {
        // SAFETY: as large and as aligned, and any words are a sigaction.
        unsafe { &*self.0.as_ptr().cast() }
    }

    fn handler(&self) -> usize {
        self.action().sa_sigaction
    }

    fn is_ours(&self) -> bool {
        self.handler() == handler as *const () as usize
    }

    /// Whether it is a function, and not the default action or none.
    fn is_function(&self) -> bool {
        ![libc::SIG_DFL, libc::SIG_IGN].contains(&self.handler())
    }

    /// What the kernel leaves in place when it enters the handler.
    fn as_entered(&self) -> Self {
        if self.action().sa_flags & libc::SA_RESETHAND != 0 {
            Self::default()
        } else {
            *self
        }
    }

    /// That of `signum` now.
    fn of(signum: c_int) -> Option<Self> {
        Self::exchange(signum, ptr::null())
    }

    /// Have it be that of `signum`. Returns what was there, or `None` if the system refuses.
    fn set(&self, signum: c_int) -> Option<Self> {
        Self::exchange(signum, self.action())
    }

    fn exchange(signum: c_int, new: *const libc::sigaction) -> Option<Self> {
        let mut old = Self::default();
        // SAFETY: null or a disposition of the system's or of ours; room for another.
        let result = unsafe { libc::sigaction(signum, new, old.0.as_mut_ptr().cast()) };
        (result == 0).then_some(old)
    }
}

/// Put `disposition` in the place of ours, unless somebody else's is there. True if it was ours.
/// Async-signal-safe.
fn put_back(signum: c_int, disposition: &Disposition) -> bool {
    if !Disposition::of(signum).is_some_and(|now| now.is_ours()) {
        return false;
    }
    let Some(found) = disposition.set(signum) else {
        return false;
    };
    if !found.is_ours() {
        // Set between the two calls.
        found.set(signum);
        return false;
    }
    true
}

/// What the process knows of one signal, whatever becomes of pools: for handlers and children.
struct Signal {
    known: Latch<{ 2 * WORDS }>,
    /// Somebody has put a handler in the place of ours while a job watched. It may have saved ours,
    /// and go on to it; so may all that come after it, until none is there. Under the lock.
    covered: AtomicBool,
}

#[derive(Clone, Copy)]
struct Known {
    /// What stood there before the first job: put back with the last one.
    earlier: Disposition,
    /// The same, unless that is a handler that came after ours and may go on to it: then what was
    /// there before both.
    below: Disposition,
}

impl Signal {
    #[cfg(not(loom))]
    const fn new() -> Self {
        Self {
            known: Latch::new(),
            covered: AtomicBool::new(false),
        }
    }

    /// Async-signal-safe.
    fn read(&self) -> Option<Known> {
        let words = self.known.read()?;
        Some(Known {
            earlier: Disposition(std::array::from_fn(|word| words[word])),
            below: Disposition(std::array::from_fn(|word| words[WORDS + word])),
        })
    }

    /// `found` is there, before the first job. Under the lock.
    fn learn(&self, found: &Disposition) {
        let mut below = *found;
        if !found.is_function() {
            self.covered.store(false, Ordering::Relaxed);
        } else if self.covered.load(Ordering::Relaxed) {
            below = self.read().map_or(below, |known| known.below);
        }
        let words = [found.0, below.0];
        self.known.write(std::array::from_fn(|word| {
            words[word / WORDS][word % WORDS]
        }));
    }

    /// Have our handler in place: for the first job of the process, or for a further one. `None` if
    /// the system refuses.
    fn install(&self, signum: c_int, first: bool) -> Option<()> {
        if !first {
            // What others have put there meanwhile, for good or for a while, is not what was there
            // before.
            return Disposition::ours().set(signum).map(|_| ());
        }
        let found = Disposition::of(signum)?;
        // Beforehand, for signals, and for children, behind the next step.
        if !found.is_ours() {
            self.learn(&found);
        }
        perturb("noted what is there, and ours is not in place");
        let found = Disposition::ours().set(signum)?;
        if !found.is_ours() {
            self.learn(&found);
        }
        Some(())
    }

    /// With the last job: put back what was there, unless somebody else has changed it.
    fn uninstall(&self, signum: c_int) {
        let Some(known) = self.read() else { return };
        if !put_back(signum, &known.earlier)
            && Disposition::of(signum).is_some_and(|now| now.is_function())
        {
            self.covered.store(true, Ordering::Relaxed);
        }
    }
}

#[cfg(not(loom))]
static SIGNALS: [Signal; NUMBERS] = [const { Signal::new() }; NUMBERS];

// A model's, made anew in each execution; none looks at it.
#[cfg(loom)]
loom::lazy_static! {
    static ref SIGNALS: Vec<Signal> = Vec::new();
}

/// What one process has of the registry. Never freed: handlers, and frames of a parent's that go on
/// in a child, may be at it.
struct Era {
    generation: u32,
    pid: libc::pid_t,
    lock: UnsafeCell<libc::pthread_mutex_t>,
    /// Handlers that walk a list.
    inside: Grace,
    /// Those who watch each signal.
    pools: [AtomicPtr<Node>; NUMBERS],
    /// The parent's, so that it stays in reach of tools that look for leaks.
    #[allow(dead_code)]
    parent: *mut Era,
}

static ERA: AtomicPtr<Era> = AtomicPtr::new(ptr::null_mut());

impl Era {
    /// That of this process, if it has one. Async-signal-safe.
    fn here() -> Option<&'static Self> {
        // SAFETY: never freed.
        let era = unsafe { ERA.load(Ordering::SeqCst).as_ref() }?;
        // SAFETY: takes nothing, never fails. It is asked, too, since a child of vfork's shares the
        // memory, and since not every system wipes the generation.
        let here = || era.pid == unsafe { libc::getpid() };
        (!fork::is_over(era.generation) && here()).then_some(era)
    }

    /// That of this process; `None` if there is no memory for one.
    fn make() -> Option<&'static Self> {
        fork::look();
        loop {
            if let Some(era) = Self::here() {
                return Some(era);
            }
            let parent = ERA.load(Ordering::SeqCst);
            let new = Self {
                generation: fork::generation(),
                // SAFETY: as above.
                pid: unsafe { libc::getpid() },
                lock: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
                inside: Grace::new(),
                pools: [const { AtomicPtr::new(ptr::null_mut()) }; NUMBERS],
                parent,
            };
            // SAFETY: not of size zero; written before anybody knows it.
            let at = unsafe {
                let at = alloc(Layout::new::<Self>()).cast::<Self>();
                if at.is_null() {
                    return None;
                }
                at.write(new);
                at
            };
            let won = ERA.compare_exchange(parent, at, Ordering::SeqCst, Ordering::SeqCst);
            if won.is_err() {
                // SAFETY: made above, and nobody else knows it.
                drop(unsafe { Box::from_raw(at) });
            }
        }
    }
}

impl Era {
    /// Sleep until no handler is inside that may have seen what was unlinked.
    ///
    /// Woken by: the last of them. With its signals blocked, it needs nothing but a processor.
    fn wait_for_handlers(&self) {
        let _cancel = CancelGuard::new();
        let unlinked = self.inside.now(self.generation);
        self.inside.wait(unlinked, self.generation);
    }
}

/// The registry, locked; all signals are blocked in this thread.
struct Locked {
    era: &'static Era,
    mask: sigset_t,
}

impl Locked {
    /// Lock what `find` finds. All signals are blocked before it looks: a handler that forked between
    /// the look and the lock would leave the child with its parent's lock, held by a thread that the
    /// child does not have.
    fn new(find: impl FnOnce() -> Option<&'static Era>) -> Option<Self> {
        // SAFETY: sets of ours.
        let mask = unsafe {
            let (mut all, mut mask): (sigset_t, sigset_t) = (mem::zeroed(), mem::zeroed());
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut mask);
            mask
        };
        let Some(era) = find() else {
            unblock(&mask);
            return None;
        };
        // SAFETY: a mutex that never moves.
        unsafe { libc::pthread_mutex_lock(era.lock.get()) };
        Some(Self { era, mask })
    }

    /// Add `node` to the list of `signum`. True if it is the first.
    fn link(&self, signum: c_int, node: &Node) -> bool {
        let head = &self.era.pools[signum as usize];
        let first = head.load(Ordering::SeqCst);
        node.next.store(first, Ordering::SeqCst);
        head.store(ptr::from_ref(node).cast_mut(), Ordering::SeqCst);
        first.is_null()
    }

    /// Take `node` out of the list of `signum`. True if it was the last. Handlers may be at it until
    /// the caller has waited for them.
    fn unlink(&self, signum: c_int, node: &Node) -> bool {
        let head = &self.era.pools[signum as usize];
        let mut at = head;
        loop {
            let next = at.load(Ordering::SeqCst);
            if ptr::eq(next, node) {
                break;
            }
            // SAFETY: those in the list are there until they are unlinked, which is under the lock.
            at = unsafe { &(*next).next };
        }
        at.store(node.next.load(Ordering::SeqCst), Ordering::SeqCst);
        head.load(Ordering::SeqCst).is_null()
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // SAFETY: locked by this thread, in `new`.
        unsafe { libc::pthread_mutex_unlock(self.era.lock.get()) };
        unblock(&self.mask);
    }
}

/// Have this thread block what it did before.
fn unblock(mask: &sigset_t) {
    // SAFETY: a mask that pthread_sigmask has told.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, mask, ptr::null_mut()) };
}

/// The handler of all watched signals.
extern "C" fn handler(signum: c_int, info: *mut siginfo_t, context: *mut c_void) {
    let _errno = ErrnoGuard::new();
    if !tell_pools(signum) {
        earlier::act(signum, info, context);
    }
}

/// Tell all pools of this process that watch `signum`. False if there is none.
/// Async-signal-safe.
fn tell_pools(signum: c_int) -> bool {
    let Some(era) = Era::here() else { return false };
    let pin = era.inside.enter(era.generation);
    perturb_in_handler("inside, and not looked who watches");
    let mut node = era.pools[signum as usize].load(Ordering::SeqCst);
    let any = !node.is_null();
    // SAFETY: who leaves the list waits until nobody is inside who may have seen him there, before
    // his memory goes.
    while let Some(watch) = unsafe { node.as_ref() } {
        // SAFETY: as above; written before the node was linked.
        unsafe { &*watch.pool.load(Ordering::SeqCst) }.signal_arrived(signum);
        node = watch.next.load(Ordering::SeqCst);
    }
    era.inside.leave(pin);
    any
}

impl Shared {
    /// In a signal handler: count it and wake the loop.
    fn signal_arrived(&self, signum: c_int) {
        self.mailbox.counts[signum as usize].fetch_add(1, Ordering::SeqCst);
        perturb_in_handler("counted, and the mailbox says that it is empty");
        self.mailbox.any.store(true, Ordering::SeqCst);
        perturb_in_handler("in the mailbox, and the loop not woken");
        // Where there is no pipe any more, the loop sees to it, once something else wakes it.
        if self.wake.sleeping.take() && !self.wake.write() {
            self.nudged.store(true, Ordering::SeqCst);
        }
    }
}

/// One more job of `pool` watches `signum`, a number that [`can_watch`]. From the return on it is
/// caught. If it fails, nothing is left of it.
pub(crate) fn watch(pool: &Shared, signum: c_int) -> Result<(), MakeError> {
    let locked = Locked::new(Era::make).ok_or(MakeError::NoMemory)?;
    // Now that no handler can fork under us any more.
    if pool.is_forked() {
        return Err(MakeError::Forked);
    }
    let signal = &SIGNALS[signum as usize];
    let node = &pool.mailbox.nodes[signum as usize];
    let jobs = node.jobs.load(Ordering::Relaxed);
    if jobs > 0 {
        signal.install(signum, false).ok_or(MakeError::NoSignal)?;
        node.jobs.store(jobs + 1, Ordering::Relaxed);
        return Ok(());
    }
    node.pool
        .store(ptr::from_ref(pool).cast_mut(), Ordering::SeqCst);
    let first = locked.link(signum, node);
    perturb("in the list, and the handler not in place");
    if signal.install(signum, first).is_none() {
        locked.unlink(signum, node);
        locked.era.wait_for_handlers();
        return Err(MakeError::NoSignal);
    }
    node.jobs.store(1, Ordering::Relaxed);
    Ok(())
}

/// One job of `pool` less watches `signum`. With the last job of the last pool the earlier
/// disposition is put back, unless somebody else has changed it meanwhile.
///
/// Waits, with the last job of the pool, until no handler is at the pool any more.
pub(crate) fn unwatch(pool: &Shared, signum: c_int) {
    let Some(locked) = Locked::new(Era::here) else {
        return;
    };
    if pool.is_forked() {
        return;
    }
    let node = &pool.mailbox.nodes[signum as usize];
    let jobs = node.jobs.load(Ordering::Relaxed);
    if jobs == 0 {
        return;
    }
    node.jobs.store(jobs - 1, Ordering::Relaxed);
    if jobs > 1 {
        return;
    }
    if locked.unlink(signum, node) {
        perturb("nobody watches, and the earlier disposition is not back");
        SIGNALS[signum as usize].uninstall(signum);
    }
    perturb("out of the list, and handlers not waited for");
    locked.era.wait_for_handlers();
}

/// The pool goes, and nobody else calls: end what jobs that were never finished with still watch.
pub(crate) fn unwatch_all(pool: &Shared) {
    for (signum, node) in pool.mailbox.nodes.iter().enumerate() {
        for _ in 0..node.jobs.load(Ordering::SeqCst) {
            unwatch(pool, signum as c_int);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no signal sets")]
    fn signals_that_cannot_be_watched() {
        for signum in [
            -1,
            0,
            9,
            19,
            libc::SIGILL,
            libc::SIGFPE,
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGTRAP,
            libc::SIGSYS,
            32,
            33,
            65,
            1000,
            c_int::MIN,
            c_int::MAX,
        ] {
            assert!(!can_watch(signum), "{signum}");
        }
        for signum in [
            libc::SIGTERM,
            libc::SIGCHLD,
            libc::SIGRTMIN(),
            libc::SIGRTMAX(),
        ] {
            assert!(can_watch(signum), "{signum}");
        }
    }
}
