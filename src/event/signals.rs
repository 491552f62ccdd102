// SPDX-License-Identifier: GPL-3.0-or-later
//! Signals: from the handler to the pools that watch, and the disposition that was there before.
//!
//! Dispatch is signal-hook's: its handler runs, for each pool that watches the signal, an action
//! that counts it in the pool's [`Mailbox`] and wakes the pool's loop. What signal-hook does not
//! do is done here, in one registry for the process:
//!
//! * signal-hook always goes on to the handler that it found. So it is made to find one of ours
//!   that does nothing, put there in the same step that reads what was there before: no signal
//!   takes its default action in between.
//! * signal-hook never puts anything back. So the earlier disposition is put back here when no
//!   job watches any more, if ours is still in place; and when the next job comes, ours is put in
//!   place again.
//! * signal-hook counts the handlers that run, and whoever changes something waits until they
//!   have returned. A fork copies that count, but not the threads: a child would wait for ever.
//!   So its handler runs inside [`handler`], and a fork waits until none runs; what arrives during
//!   the fork is noted, and handed on behind it.

use std::cell::{Cell, UnsafeCell};
use std::mem::{self, MaybeUninit};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use libc::{c_int, c_void};
use signal_hook::SigId;

use crate::confined::UnderRegistry;
use crate::fork;
use crate::perturb::{perturb, perturb_in_handler};
use crate::shared::Shared;
use crate::sys::ErrnoGuard;

/// Signal numbers are below this.
const NUMBERS: usize = 65;

/// Whether `signum` is a signal that can be watched: not those that cannot be caught, not those
/// that mean a broken program, not those that the C library keeps for itself.
pub(crate) fn can_watch(signum: c_int) -> bool {
    const FORBIDDEN: [c_int; 5] = [
        libc::SIGKILL,
        libc::SIGSTOP,
        libc::SIGILL,
        libc::SIGFPE,
        libc::SIGSEGV,
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
    /// The pool's jobs for each signal, and its action with signal-hook. Under the registry's
    /// lock.
    watches: [UnderRegistry<Cell<Option<Watch>>>; NUMBERS],
}

#[derive(Clone, Copy)]
struct Watch {
    action: SigId,
    jobs: usize,
}

impl Mailbox {
    /// An empty one.
    pub(crate) fn new() -> Self {
        Self {
            counts: [const { AtomicU32::new(0) }; NUMBERS],
            any: AtomicBool::new(false),
            watches: [const { UnderRegistry::new(Cell::new(None)) }; NUMBERS],
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

/// What the process knows of one signal.
struct Signal {
    /// Pools that watch it, all of this generation: see [`fork`].
    pools: usize,
    generation: u32,
    /// The disposition before the first of them.
    earlier: libc::sigaction,
    /// What is installed in its place, once it is.
    ours: Option<libc::sigaction>,
}

impl Signal {
    /// Have our handler in place, and know what was there instead.
    fn install(&mut self, signum: c_int) -> Option<()> {
        if let Some(ours) = self.ours {
            let found = disposition(signum, Some(&ours))?;
            if found.sa_sigaction != ours.sa_sigaction {
                self.earlier = found;
            }
            return Some(());
        }
        // What signal-hook has installed, in ours. Programs with small stacks, Go's for one, ask
        // that handlers use their own.
        let mut ours = disposition(signum, None)?;
        HOOK.store(ours.sa_sigaction as *mut c_void, Ordering::SeqCst);
        ours.sa_sigaction = handler as *const () as usize;
        ours.sa_flags |= libc::SA_ONSTACK;
        disposition(signum, Some(&ours))?;
        self.ours = Some(ours);
        Some(())
    }
}

struct Registry {
    /// A pthread mutex, since it must be taken before a fork and given back on both sides.
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    signals: UnsafeCell<[Option<Signal>; NUMBERS]>,
    /// The mask of the thread that forks, meanwhile.
    mask: UnsafeCell<MaybeUninit<libc::sigset_t>>,
}

// SAFETY: the cells are touched only between lock and unlock of `mutex`.
unsafe impl Sync for Registry {}

static REGISTRY: Registry = Registry {
    mutex: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
    signals: UnsafeCell::new([const { None }; NUMBERS]),
    mask: UnsafeCell::new(MaybeUninit::uninit()),
};

/// The registry, locked.
struct Locked;

impl Locked {
    fn new() -> Self {
        // SAFETY: an initialised mutex that never moves.
        unsafe { libc::pthread_mutex_lock(REGISTRY.mutex.get()) };
        Self
    }

    /// What is known of `signum`.
    fn signal(&mut self, signum: c_int) -> &mut Option<Signal> {
        // SAFETY: under the lock, and for no longer than `self` is borrowed.
        unsafe { &mut (*REGISTRY.signals.get())[signum as usize] }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        // SAFETY: locked by this thread, in `new`.
        unsafe { libc::pthread_mutex_unlock(REGISTRY.mutex.get()) };
    }
}

type Handler = extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void);

/// signal-hook's handler, once it has installed it.
static HOOK: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
/// Threads inside signal-hook's handler.
static INSIDE: AtomicUsize = AtomicUsize::new(0);
/// The process is being forked: nobody is to go inside.
static FORKING: AtomicBool = AtomicBool::new(false);
/// What arrived meanwhile, and nobody was told of.
static HELD: [AtomicBool; NUMBERS] = [const { AtomicBool::new(false) }; NUMBERS];

/// The handler of all watched signals.
///
/// It counts itself in and then looks whether the process forks; [`before_fork`] says that it does
/// and then looks whether somebody is inside: one of the two sees the other. It does not wait for
/// the fork, which may itself wait for a lock of malloc's that the interrupted code holds.
extern "C" fn handler(signum: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let _errno = ErrnoGuard::new();
    let forking = || FORKING.load(Ordering::SeqCst);
    let held = &HELD[signum as usize];
    INSIDE.fetch_add(1, Ordering::SeqCst);
    perturb_in_handler("counted in, and not looked whether the process forks");
    if forking() {
        held.store(true, Ordering::SeqCst);
        perturb_in_handler("noted for after the fork, which may be over");
    }
    // Noted as the fork ended: if that has not found it, it is still here.
    if !forking() {
        held.store(false, Ordering::SeqCst);
        call_hook(signum, info, context);
    }
    INSIDE.fetch_sub(1, Ordering::SeqCst);
}

fn call_hook(signum: c_int, info: *mut libc::siginfo_t, context: *mut c_void) {
    let hook = HOOK.load(Ordering::SeqCst);
    if !hook.is_null() {
        // SAFETY: what was read back as the handler that takes just these.
        let hook = unsafe { mem::transmute::<*mut c_void, Handler>(hook) };
        hook(signum, info, context);
    }
}

/// How often a fork looks again, and then how often after a millisecond each, whether somebody is
/// still inside a handler. All that those wait for is a processor; but one that this very thread was
/// in would never return.
const LOOKS: usize = 1000;
const LATE_LOOKS: usize = 1000;

/// This thread is about to fork: have the registry whole, and nobody inside signal-hook's handler.
/// No signal comes to this thread until [`after_fork`], so none comes to the child before that
/// knows that it is one.
pub(crate) fn before_fork() {
    mem::forget(Locked::new());
    // SAFETY: a set of ours, and room for another, under the lock.
    unsafe {
        let mut all = mem::zeroed();
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, (*REGISTRY.mask.get()).as_mut_ptr());
    }
    FORKING.store(true, Ordering::SeqCst);
    perturb("said to fork, and not looked who is inside a handler");
    for look in 0..LOOKS + LATE_LOOKS {
        if INSIDE.load(Ordering::SeqCst) == 0 {
            break;
        }
        if look < LOOKS {
            std::thread::yield_now();
        } else {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// The fork is over, in the parent or in the child.
pub(crate) fn after_fork(in_child: bool) {
    if in_child {
        // Those who were about to look whether the process forks are not in this one.
        INSIDE.store(0, Ordering::SeqCst);
    }
    FORKING.store(false, Ordering::SeqCst);
    for (signum, held) in HELD.iter().enumerate() {
        if held.swap(false, Ordering::SeqCst) && !in_child {
            // SAFETY: all zero is a siginfo.
            let mut info = unsafe { mem::zeroed() };
            call_hook(signum as c_int, &mut info, ptr::null_mut());
        }
    }
    let locked = Locked;
    // SAFETY: filled by `before_fork`; locked since.
    unsafe {
        let mask = (*REGISTRY.mask.get()).assume_init();
        drop(locked);
        libc::pthread_sigmask(libc::SIG_SETMASK, &mask, ptr::null_mut());
    }
}

/// What the placeholder has seen.
static MISSED: [AtomicBool; NUMBERS] = [const { AtomicBool::new(false) }; NUMBERS];

/// Where signal-hook is to find a handler: its own calls this one each time. It matters only until
/// there is an action.
extern "C" fn placeholder(signum: c_int) {
    MISSED[signum as usize].store(true, Ordering::SeqCst);
}

/// Set the disposition of `signum` to `new`, if any, and return what it was.
fn disposition(signum: c_int, new: Option<&libc::sigaction>) -> Option<libc::sigaction> {
    // SAFETY: all zero is a sigaction.
    let mut old: libc::sigaction = unsafe { mem::zeroed() };
    let new = new.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: a disposition that was read from the system or made below, and room for another.
    (unsafe { libc::sigaction(signum, new, &mut old) } == 0).then_some(old)
}

/// A pool's address, for an action to keep.
#[derive(Clone, Copy)]
struct Pool(*const Shared);

// SAFETY: the mailbox and the wake pipe, all that an action touches, are for any thread.
unsafe impl Send for Pool {}
// SAFETY: as above.
unsafe impl Sync for Pool {}

impl Pool {
    /// In a signal handler: count it and wake the loop. Async-signal-safe; signal-hook keeps
    /// errno.
    fn arrived(self, signum: c_int) {
        // SAFETY: `unwatch` unregisters the action, and waits until it runs nowhere, before the
        // pool goes.
        let pool = unsafe { &*self.0 };
        // SAFETY: async-signal-safe.
        if pool.pid != unsafe { libc::getpid() } {
            return;
        }
        pool.mailbox.counts[signum as usize].fetch_add(1, Ordering::SeqCst);
        perturb_in_handler("counted, and the mailbox says that it is empty");
        pool.mailbox.any.store(true, Ordering::SeqCst);
        perturb_in_handler("in the mailbox, and the loop not woken");
        // Where there is no pipe any more, the loop sees to it, once something else wakes it.
        if pool.wake.sleeping.take() && !pool.wake.write() {
            pool.nudged.store(true, Ordering::SeqCst);
        }
    }
}

/// One more job of `pool` watches `signum`, a number that [`can_watch`]. From the return on it is
/// caught. `None` if the system refuses.
pub(crate) fn watch(pool: &Shared, signum: c_int) -> Option<()> {
    let mut registry = Locked::new();
    let place = &pool.mailbox.watches[signum as usize];
    let signal = registry.signal(signum);
    if let Some(watch) = place.get() {
        signal.as_mut()?.install(signum)?;
        let jobs = watch.jobs + 1;
        place.set(Some(Watch { jobs, ..watch }));
        return Some(());
    }
    if signal.is_none() {
        MISSED[signum as usize].store(false, Ordering::SeqCst);
        // SAFETY: all zero is a sigaction; the handler takes what the flags say.
        let mut first: libc::sigaction = unsafe { mem::zeroed() };
        first.sa_sigaction = placeholder as *const () as usize;
        first.sa_flags = libc::SA_RESTART;
        *signal = Some(Signal {
            pools: 0,
            generation: fork::generation(),
            earlier: disposition(signum, Some(&first))?,
            ours: None,
        });
    }
    let known = signal.as_mut()?;
    if known.generation != fork::generation() {
        // The pools were the parent process's.
        known.pools = 0;
        known.generation = fork::generation();
    }
    let address = Pool(pool);
    perturb("the placeholder is there, and no action");
    // SAFETY: the action does only what a signal handler may.
    let action =
        unsafe { signal_hook::low_level::register(signum, move || address.arrived(signum)) };
    let Ok(action) = action else {
        if known.ours.is_none() {
            disposition(signum, Some(&known.earlier));
            *signal = None;
        }
        return None;
    };
    perturb("the action is there, and the handler not ours");
    let is_first = known.ours.is_none();
    known.install(signum)?;
    known.pools += 1;
    place.set(Some(Watch { action, jobs: 1 }));
    // What came when the placeholder was there, and the action not yet.
    if is_first && MISSED[signum as usize].load(Ordering::SeqCst) {
        address.arrived(signum);
    }
    Some(())
}

/// One job of `pool` less watches `signum`. With the last job of the last pool the earlier
/// disposition is put back, unless somebody else has changed it meanwhile.
pub(crate) fn unwatch(pool: &Shared, signum: c_int) {
    let mut registry = Locked::new();
    let place = &pool.mailbox.watches[signum as usize];
    let Some(watch) = place.get() else { return };
    if watch.jobs > 1 {
        let jobs = watch.jobs - 1;
        place.set(Some(Watch { jobs, ..watch }));
        return;
    }
    place.set(None);
    if let Some(signal) = registry.signal(signum) {
        signal.pools -= 1;
        if signal.pools == 0 {
            let now = disposition(signum, None).map(|now| now.sa_sigaction);
            if now == signal.ours.map(|ours| ours.sa_sigaction) {
                disposition(signum, Some(&signal.earlier));
            }
        }
    }
    perturb("the earlier disposition is back, and the action still there");
    // Returns when the action runs nowhere.
    signal_hook::low_level::unregister(watch.action);
}

/// The pool goes: end what jobs that were never finished with still watch.
pub(crate) fn unwatch_all(pool: &Shared) {
    for signum in 0..NUMBERS as c_int {
        let place = &pool.mailbox.watches[signum as usize];
        let jobs = {
            let _registry = Locked::new();
            place.get().map_or(0, |watch| watch.jobs)
        };
        for _ in 0..jobs {
            unwatch(pool, signum);
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
            4,
            8,
            11,
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
