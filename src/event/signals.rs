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
//!   job watches any more, if ours is still in place; and when the next job comes, what
//!   signal-hook installed is put in place again.

use std::cell::{Cell, UnsafeCell};
use std::mem;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use libc::c_int;
use signal_hook::SigId;

use crate::fork;
use crate::shared::Shared;

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
    watches: [Cell<Option<Watch>>; NUMBERS],
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
            watches: [const { Cell::new(None) }; NUMBERS],
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
    /// What signal-hook installed, once it has.
    ours: Option<libc::sigaction>,
}

struct Registry {
    /// A pthread mutex, since it must be taken before a fork and given back on both sides.
    mutex: UnsafeCell<libc::pthread_mutex_t>,
    signals: UnsafeCell<[Option<Signal>; NUMBERS]>,
}

// SAFETY: `signals` is touched only between lock and unlock of `mutex`.
unsafe impl Sync for Registry {}

static REGISTRY: Registry = Registry {
    mutex: UnsafeCell::new(libc::PTHREAD_MUTEX_INITIALIZER),
    signals: UnsafeCell::new([const { None }; NUMBERS]),
};

/// Hold the registry still, around a fork too.
pub(crate) fn lock_registry() {
    // SAFETY: an initialised mutex that never moves.
    unsafe { libc::pthread_mutex_lock(REGISTRY.mutex.get()) };
}

/// The counterpart of [`lock_registry`].
pub(crate) fn unlock_registry() {
    // SAFETY: as above, and locked by this thread.
    unsafe { libc::pthread_mutex_unlock(REGISTRY.mutex.get()) };
}

/// The registry, locked.
struct Locked;

impl Locked {
    fn new() -> Self {
        lock_registry();
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
        unlock_registry();
    }
}

/// Where signal-hook is to find a handler: its own calls this one each time.
extern "C" fn nothing(_signum: c_int) {}

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
        if pool.generation != fork::generation() {
            return;
        }
        pool.mailbox.counts[signum as usize].fetch_add(1, Ordering::SeqCst);
        pool.mailbox.any.store(true, Ordering::SeqCst);
        pool.wake.wake();
    }
}

/// One more job of `pool` watches `signum`, a number that [`can_watch`]. From the return on it is
/// caught. `None` if the system refuses.
pub(crate) fn watch(pool: &Shared, signum: c_int) -> Option<()> {
    let mut registry = Locked::new();
    let place = &pool.mailbox.watches[signum as usize];
    if let Some(watch) = place.get() {
        let jobs = watch.jobs + 1;
        place.set(Some(Watch { jobs, ..watch }));
        return Some(());
    }
    let signal = registry.signal(signum);
    if signal.is_none() {
        // SAFETY: all zero is a sigaction; the handler takes what the flags say.
        let mut placeholder: libc::sigaction = unsafe { mem::zeroed() };
        placeholder.sa_sigaction = nothing as *const () as usize;
        placeholder.sa_flags = libc::SA_RESTART;
        *signal = Some(Signal {
            pools: 0,
            generation: fork::generation(),
            earlier: disposition(signum, Some(&placeholder))?,
            ours: None,
        });
    }
    let signal = signal.as_mut()?;
    if signal.generation != fork::generation() {
        // The pools were the parent process's.
        signal.pools = 0;
        signal.generation = fork::generation();
    }
    let address = Pool(pool);
    // SAFETY: the action does only what a signal handler may.
    let action =
        unsafe { signal_hook::low_level::register(signum, move || address.arrived(signum)) };
    let Ok(action) = action else {
        if signal.ours.is_none() {
            disposition(signum, Some(&signal.earlier));
            *registry.signal(signum) = None;
        }
        return None;
    };
    match signal.ours {
        None => {
            // Programs with small stacks, Go's for one, ask that handlers use their own.
            let mut ours = disposition(signum, None)?;
            ours.sa_flags |= libc::SA_ONSTACK;
            disposition(signum, Some(&ours));
            signal.ours = Some(ours);
        }
        Some(ours) if signal.pools == 0 => {
            let found = disposition(signum, Some(&ours))?;
            // In a forked child ours may still be there from the parent.
            if found.sa_sigaction != ours.sa_sigaction {
                signal.earlier = found;
            }
        }
        Some(_) => {}
    }
    signal.pools += 1;
    place.set(Some(Watch { action, jobs: 1 }));
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
    // Returns when the action runs nowhere.
    signal_hook::low_level::unregister(watch.action);
}

/// The pool goes: end what jobs that were never finished with still watch. Returns how many
/// signals those are.
pub(crate) fn unwatch_all(pool: &Shared) -> usize {
    let mut left = 0;
    for signum in 0..NUMBERS as c_int {
        let place = &pool.mailbox.watches[signum as usize];
        let jobs = {
            let _registry = Locked::new();
            place.get().map_or(0, |watch| watch.jobs)
        };
        for _ in 0..jobs {
            unwatch(pool, signum);
        }
        left += usize::from(jobs > 0);
    }
    left
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
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
