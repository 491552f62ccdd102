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
//! mailboxes. A handler walks it inside a [`Grace`](crate::sync::grace::Grace); a pool that leaves waits for those inside. The
//! handler runs with all signals blocked: nothing can interrupt it there, fork, or jump out of it.
//!
//! **The order of a watch.** First the pool is in the list, then what is there is noted as the
//! earlier disposition, then ours is put in its place by the one call that says what it replaces.
//! So a signal takes either its earlier effect or ours, at whichever step it comes.
//!
//! **Forks.** Lists, lock and count belong to an [`Era`], which a process makes for itself; the
//! parent's stays as it is, for frames of its time, and is never looked at again. What passes from
//! parent to child are the dispositions, of which the handlers read a [`Latch`](latch::Latch): whole at every
//! step. All signals are blocked in the thread that holds the lock, so no handler runs there, and
//! forks. Nobody waits for anything around a fork.

mod disposition;
mod earlier;
mod era;
mod handler;
mod known;
pub(crate) mod latch;
mod mailbox;
mod numbers;

use std::ptr;
use std::sync::atomic::Ordering;

use libc::c_int;

use crate::perturb::perturb;
use crate::wake::Wake;
use era::{Era, Locked};
use known::SIGNALS;
pub(crate) use mailbox::Mailbox;
pub(crate) use numbers::can_catch;

/// Why a signal can't be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotSubscribed {
    NoMemory,
    /// The system refuses to deliver it.
    Refused,
    /// The pool is the parent process's.
    Forked,
}

/// One more job watches `signum`, a number that [`can_catch`]. From the return on it is
/// caught. If it fails, nothing is left of it.
pub(crate) fn subscribe(
    mailbox: &Mailbox,
    wake: &Wake,
    signum: c_int,
) -> Result<(), NotSubscribed> {
    let locked = Locked::new(Era::make).ok_or(NotSubscribed::NoMemory)?;
    // Now that no handler can fork under us any more.
    if mailbox.is_forked() {
        return Err(NotSubscribed::Forked);
    }
    let signal = &SIGNALS[signum as usize];
    let node = &mailbox.nodes[signum as usize];
    let jobs = node.jobs.load(Ordering::Relaxed);
    if jobs > 0 {
        signal
            .install(signum, false)
            .ok_or(NotSubscribed::Refused)?;
        node.jobs.store(jobs + 1, Ordering::Relaxed);
        return Ok(());
    }
    mailbox.belongs_to(wake);
    node.mailbox
        .store(ptr::from_ref(mailbox).cast_mut(), Ordering::SeqCst);
    let first = locked.link(signum, node);
    perturb("in the list, and the handler not in place");
    if signal.install(signum, first).is_none() {
        locked.unlink(signum, node);
        locked.era.wait_for_handlers();
        return Err(NotSubscribed::Refused);
    }
    node.jobs.store(1, Ordering::Relaxed);
    Ok(())
}

/// One job less watches `signum`. With the last job of the last pool the earlier
/// disposition is put back, unless somebody else has changed it meanwhile.
///
/// Waits, with the last job of the pool, until no handler is at the pool any more.
pub(crate) fn unsubscribe(mailbox: &Mailbox, signum: c_int) {
    let Some(locked) = Locked::new(Era::here) else {
        return;
    };
    if mailbox.is_forked() {
        return;
    }
    let node = &mailbox.nodes[signum as usize];
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
pub(crate) fn unsubscribe_all(mailbox: &Mailbox) {
    for (signum, node) in mailbox.nodes.iter().enumerate() {
        for _ in 0..node.jobs.load(Ordering::SeqCst) {
            unsubscribe(mailbox, signum as c_int);
        }
    }
}
