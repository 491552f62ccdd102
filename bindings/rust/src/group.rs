// SPDX-License-Identifier: GPL-3.0-or-later
//! Groups.

use std::ops::Deref;
use std::sync::MutexGuard;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::prelude::*;

/// A hold of a group: that of its handles, and of its jobs' owners.
pub(crate) struct GroupState {
    pub(crate) raw: Raw<ns_group_t>,
    pub(crate) limit: AtomicUsize,
    /// Whether it is cancelled. After that no call from outside may name its jobs.
    gate: Mutex<bool>,
    inner: Arc<Inner>,
}

impl GroupState {
    /// All calls that name jobs of the group from outside their callbacks are made with this. No call under it waits.
    pub(crate) fn gate(&self) -> Result<MutexGuard<'_, bool>> {
        let gate = lock(&self.gate);
        if *gate { Err(Error::Deleting) } else { Ok(gate) }
    }
}

impl Drop for GroupState {
    fn drop(&mut self) {
        // Once the pool ends, that releases it.
        if let Ok(_call) = self.inner.enter() {
            lock(&self.inner.groups).remove(&self.raw.0.addr());
            // SAFETY: it was held until now.
            unsafe { ns_group_release(self.raw.0) };
        }
    }
}

/// Jobs with a rule for how many of them run at once. What adds jobs is in [`Handle`], to which it dereferences.
/// Clones are the same group. It lives until they and its jobs are gone.
///
/// In a group of width 1 no two callbacks run at once, and each sees what those before it have written.
#[derive(Clone)]
pub struct Group(Handle, Arc<GroupState>);

impl Deref for Group {
    type Target = Handle;
    fn deref(&self) -> &Handle {
        &self.0
    }
}

impl Group {
    pub(crate) fn new(handle: &Handle, width: usize) -> Result<Group> {
        let inner = handle.inner.clone();
        let call = inner.enter()?;
        let mut raw = std::ptr::null_mut();
        // SAFETY: the pool is there.
        check(unsafe { ns_group_new(inner.tp.0, width, std::ptr::null_mut(), None, &mut raw) })?;
        let (limit, gate) = (AtomicUsize::new(0), Mutex::new(false));
        let state = Arc::new(GroupState { raw: Raw(raw), limit, gate, inner: inner.clone() });
        lock(&inner.groups).insert(raw.addr(), Arc::downgrade(&state));
        drop(call);
        Ok(Group(Handle { group: Some(state.clone()), ..handle.clone() }, state))
    }

    /// A call on the group, which is held.
    fn with<T>(&self, call: impl FnOnce(*mut ns_group_t) -> T) -> Result<T> {
        let _call = self.inner.enter()?;
        Ok(call(self.1.raw.0))
    }

    /// Finish with all its jobs, and let none in any more, without waiting. `Ok`: no callback runs but the caller's
    /// own, and none will begin. `Running`: some run on other threads, and are the last.
    pub fn cancel(&self) -> Result<()> {
        let _call = self.inner.enter()?;
        let mut cancelled = lock(&self.1.gate);
        *cancelled = true;
        // SAFETY: the group is held; so in the functions below.
        check(unsafe { ns_group_cancel(self.1.raw.0) })
    }

    /// Wait until none of its jobs is armed, queued or running, or until `Timeout`. `InvalidState` in the pool's
    /// loop and in the group's own callbacks.
    pub fn wait(&self, limit: Option<Duration>) -> Result<()> {
        // SAFETY: as in `cancel`.
        check(self.with(|raw| c_limit(limit, |tv| unsafe { ns_group_wait(raw, tv) }))?)
    }

    /// Let no callback begin, until as many calls of `resume`.
    pub fn suspend(&self) -> Result<()> {
        // SAFETY: as in `cancel`.
        check(self.with(|raw| unsafe { ns_group_suspend(raw) })?)
    }

    /// Take back one `suspend`. `InvalidState`: there was none.
    pub fn resume(&self) -> Result<()> {
        // SAFETY: as in `cancel`.
        check(self.with(|raw| unsafe { ns_group_resume(raw) })?)
    }

    /// From now on [`Handle::post`] is `Overloaded` when so many wait. 0: no limit.
    pub fn set_limit(&self, most: usize) {
        self.1.limit.store(most, Ordering::Relaxed);
    }

    /// How many of its jobs wait for their turn.
    pub fn queue_length(&self) -> usize {
        // SAFETY: as in `cancel`.
        self.with(|raw| unsafe { ns_group_get_length(raw) }).unwrap_or(0)
    }

    /// Whether this thread is in one of its callbacks.
    pub fn is_current(&self) -> bool {
        // SAFETY: as in `cancel`.
        self.with(|raw| unsafe { ns_group_is_current(raw) != 0 }).unwrap_or(false)
    }
}
