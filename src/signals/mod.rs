// SPDX-License-Identifier: GPL-3.0-or-later
//! Signals: delivery from the handler to the pools that watch, and the disposition that was in
//! place before.
//!
//! One handler serves all watched signals. It counts the signal in the [`Mailbox`] of each pool
//! that watches it and wakes the pool's loop. If no pool of this process watches, it does what the
//! earlier disposition would have done ([`earlier`]).
//!
//! We do not use a crate for this, because signal-hook does not fit. It waits for handlers by
//! yielding, so a thread at real-time priority would spin against a handler that it has preempted.
//! A fork copies its count of running handlers, so a child could wait for ever. One can learn its
//! handler's address only by reading back a disposition that another thread may have replaced. And
//! it always calls the handler that it found, which cannot be restored.
//!
//! **The lists.** Each signal has a list of the pools that watch it; the nodes are in the pools'
//! mailboxes. A handler walks the list inside a [`Grace`](crate::sync::grace::Grace), and a pool
//! that leaves waits for the handlers that are inside. The handler runs with all signals blocked,
//! so no other handler can interrupt it there, fork or jump out of it.
//!
//! **The order of a watch.** First the pool enters the list. Then we record the current disposition
//! as the earlier one. Then one sigaction call installs ours and returns what it replaced. So a
//! signal that arrives between any two steps has either its earlier effect or ours.
//!
//! **Forks.** Lists, lock and count belong to an [`Era`], and each process makes its own. The
//! parent's era stays unchanged for stack frames that were using it at the fork; nothing else in
//! the child uses it. The child inherits the dispositions. Handlers read them from a
//! [`Latch`](latch::Latch), which is consistent at every step of a write. The thread that holds the
//! lock has all signals blocked, so no handler runs in it and forks. Nothing waits around a fork.

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

/// Why a signal cannot be watched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotSubscribed {
    NoMemory,
    /// The system refuses to deliver it.
    Refused,
    /// The pool belongs to the parent process.
    Forked,
}

/// Add one job that watches `signum`, a number that [`can_catch`] accepts. The signal is caught
/// from the return of this call on. A call that fails changes nothing.
pub(crate) fn subscribe(
    mailbox: &Mailbox,
    wake: &Wake,
    signum: c_int,
) -> Result<(), NotSubscribed> {
    let locked = Locked::new(Era::make).ok_or(NotSubscribed::NoMemory)?;
    // Checked only now: from here on no handler can fork in this thread.
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

/// Remove one job that watches `signum`. The last job of the last pool restores the earlier
/// disposition, unless other code has changed it meanwhile.
///
/// The last job of a pool waits until no handler uses the pool's mailbox any more.
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

/// The pool is being destroyed, and no other thread calls in: end the watches of jobs that were
/// never finished with.
pub(crate) fn unsubscribe_all(mailbox: &Mailbox) {
    for (signum, node) in mailbox.nodes.iter().enumerate() {
        for _ in 0..node.jobs.load(Ordering::SeqCst) {
            unsubscribe(mailbox, signum as c_int);
        }
    }
}
