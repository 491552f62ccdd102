// SPDX-License-Identifier: GPL-3.0-or-later
//! A pool whose loop runs in threads of the application's. [`Caller`] says who may be the loop.

use crate::event::Turn;
use crate::shared::Phase;
use crate::shared::caller::{Caller, Entered, NotInside};
use crate::shared::thread::Thread;
use crate::sys::{self, CancelGuard};

use super::ending::Waited;
use super::threads::guarded;
use super::{Pool, is_own_thread};
use crate::job::here;

impl Pool {
    /// `ns_thrpool_turn`: one turn, which waits until the monotonic clock shows `limit`.
    pub(crate) fn turn(&self, limit: u64) -> Result<Turn, NotInside> {
        let _cancel = CancelGuard::new();
        let _in_call = self.shared.waiters.enter();
        self.inside(|| self.turn_here(limit))
    }

    /// `ns_thrpool_run`: turns until the pool has stopped.
    pub(crate) fn run(&self) -> Result<Waited, NotInside> {
        let _cancel = CancelGuard::new();
        let _in_call = self.shared.waiters.enter();
        self.inside(|| while self.turn_here(u64::MAX) != Turn::Quiet {})?;
        Ok(self.wait_for_workers(None))
    }

    /// `ns_thrpool_get_wait_fd`.
    pub(crate) fn wait_fd(&self) -> libc::c_int {
        let Some(caller) = &self.shared.caller else {
            return -1;
        };
        let _cancel = CancelGuard::new();
        caller.wait_fd.get(|fd| {
            // No job of this pool may watch it.
            let entry = self.shared.fds.reserve(&self.shared.alloc, fd);
            entry.is_some_and(|entry| {
                entry.set_own(true);
                true
            })
        })
    }

    /// Calls `call` as the loop.
    fn inside<T>(&self, call: impl FnOnce() -> T) -> Result<T, NotInside> {
        let caller = self.shared.caller.as_ref().ok_or(NotInside::OwnLoop)?;
        if is_own_thread(self) {
            return Err(NotInside::Callback);
        }
        if !caller.enter(Thread::current(), || self.shared.wake.rouse.enter_here()) {
            return Err(NotInside::Other);
        }
        Ok(self.as_loop(caller, call))
    }

    /// Calls `call` in this thread, which is inside, and leaves.
    fn as_loop<T>(&self, caller: &Caller, call: impl FnOnce() -> T) -> T {
        let result = guarded(|| {
            here::as_loop(self.shared.as_c(), self.shared.enter_loop(), || {
                let result = call();
                // SAFETY: this thread is inside, so it has the loop to itself.
                unsafe { self.event_loop() }.pause(&self.shared);
                result
            })
        });
        self.shared.slots.of_loop().leave();
        caller.leave();
        self.look_alone();
        result
    }

    /// One turn in this thread, which is inside.
    fn turn_here(&self, limit: u64) -> Turn {
        // SAFETY: this thread is inside, so it has the loop to itself.
        let event_loop = unsafe { self.event_loop() };
        event_loop.turn_until(&self.shared, limit, || self.ending.set_quiet())
    }

    /// As `Pool::wait`. Once the pool is shut down, the calling thread is the loop if no other will be;
    /// `anyway`: whoever was last. It is not counted as the thread last inside a turn: another that waits
    /// must not wait for this one if its time is up.
    pub(super) fn wait_as_loop(
        &self,
        caller: &Caller,
        deadline: Option<u64>,
        anyway: bool,
    ) -> Waited {
        let me = Thread::current();
        while self.shared.phase() < Phase::Quiet {
            let shut = || self.shared.is_shutting_down();
            let tell = || self.shared.wake.rouse.enter_here();
            match caller.enter_to_end(me.as_ref(), deadline, anyway, shut, tell) {
                Entered::Inside => {}
                Entered::Woken => continue,
                Entered::TimedOut => return Waited::TimedOut,
            }
            let limit = deadline.unwrap_or(u64::MAX);
            let quiet = self.as_loop(caller, || {
                loop {
                    match self.turn_here(limit) {
                        Turn::Quiet => break true,
                        Turn::Done if limit > sys::now() => {}
                        Turn::Done | Turn::Nothing => break false,
                    }
                }
            });
            if !quiet {
                return Waited::TimedOut;
            }
        }
        self.wait_for_workers(deadline)
    }

    /// The pool is destroyed: disposes of all that is left, as the loop, in this thread. Waits for a thread
    /// that is inside.
    pub(super) fn dispose_as_loop(&self, caller: &Caller) {
        let me = Thread::current();
        let tell = || self.shared.wake.rouse.enter_here();
        while caller.enter_to_end(me.as_ref(), None, true, || true, tell) != Entered::Inside {}
        guarded(|| {
            here::as_loop(self.shared.as_c(), self.shared.enter_loop(), || {
                // SAFETY: this thread is inside, so it has the loop to itself.
                unsafe { self.event_loop() }.dispose_of_all(&self.shared);
            });
        });
        caller.leave();
    }
}
