// SPDX-License-Identifier: GPL-3.0-or-later
//! Jobs: what owns them, and what their callbacks see of them.

use std::ffi::c_void;
use std::ptr;
use std::sync::atomic::Ordering;

use crate::prelude::*;

pub(crate) type Callback = Box<dyn FnMut(&Event<'_>) + Send>;

/// What `JobState::start` gives to a function of the library's that adds a job: a pool that is there, and what
/// belongs together of callback, data and the place for the job.
pub(crate) struct Add<'a> {
    pub(crate) tp: *mut ns_thrpool_t,
    pub(crate) flags: ns_job_type_t,
    pub(crate) func: ns_job_func_t,
    pub(crate) data: *mut c_void,
    pub(crate) raw: &'a mut *mut ns_job_t,
}

/// What a job waits for on its descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest(pub(crate) ns_job_type_t);

impl Interest {
    /// As before, and the only choice for a timer. For [`Event::rearm_for`].
    pub const UNCHANGED: Interest = Interest(0);
    /// Readable, at its end, or in error.
    pub const READ: Interest = Interest(NS_JOB_READ);
    /// Writable, connected, or in error.
    pub const WRITE: Interest = Interest(NS_JOB_WRITE);
    /// Either.
    pub const BOTH: Interest = Interest(NS_JOB_READ | NS_JOB_WRITE);
}

/// A job's part that its owner and the library share. The library's share ends with the done callback.
pub(crate) struct JobState {
    inner: Arc<Inner>,
    group: Option<Arc<GroupState>>,
    life: Mutex<Life>,
    /// Never contended: one run at a time, and the done callback comes after the last.
    callback: Mutex<Option<Callback>>,
}

struct Life {
    /// What may be finished with, or null: who finishes with the job takes it, under the lock.
    raw: Raw<ns_job_t>,
    /// It has no owner, and is finished with when it is idle.
    detached: bool,
    persist: bool,
    /// A job that is not PERSIST is idle when it has run as often as it was armed.
    armings: usize,
    runs: usize,
}

impl Life {
    fn take(&mut self) -> *mut ns_job_t {
        std::mem::replace(&mut self.raw, Raw(ptr::null_mut())).0
    }

    fn settle(&mut self) {
        let idle = self.runs == self.armings && !self.persist;
        if self.detached && idle && !self.raw.0.is_null() {
            // SAFETY: it is not finished with, as nobody has taken it.
            unsafe { ns_job_done(self.take()) };
        }
    }

    fn arm(&mut self, call: impl FnOnce(*mut ns_job_t) -> ns_result_t) -> Result<()> {
        check(call(self.raw.0))?;
        self.armings += 1;
        Ok(())
    }
}

impl JobState {
    /// Unarmed, then done callback and group, then armed: nothing of it runs before all is set.
    pub(crate) fn start(
        handle: &Handle, owned: bool, callback: Callback, add: impl FnOnce(Add<'_>) -> ns_result_t,
    ) -> Result<Arc<JobState>> {
        let Handle { inner, group, flags, .. } = handle.clone();
        let persist = flags & NS_JOB_PERSIST != 0;
        let life = Mutex::new(Life { raw: Raw(ptr::null_mut()), detached: !owned, persist, armings: 1, runs: 0 });
        // If it fails, what was captured is dropped after the locks below.
        let state = Arc::new(JobState { inner, group, life, callback: Mutex::new(Some(callback)) });
        let _call = state.inner.enter()?;
        let _gate = state.group.as_ref().map(|group| group.gate()).transpose()?;
        let mut life = lock(&state.life);
        let at = Arc::as_ptr(&state);
        // SAFETY: the pool is there, and the group held. The job is idle until it is armed or done, and has a share
        // in its data until its done callback.
        unsafe {
            if let (false, Some(group)) = (owned, &state.group) {
                let limit = group.limit.load(Ordering::Relaxed);
                if limit > 0 && ns_group_get_length(group.raw.0) >= limit {
                    return Err(Error::Overloaded);
                }
            }
            let (tp, flags, data) = (state.inner.tp.0, flags | NS_JOB_UNARMED, at.cast_mut().cast());
            check(add(Add { tp, flags, func: Some(run), data, raw: &mut life.raw.0 }))?;
            Arc::increment_strong_count(at);
            if owned {
                lock(&state.inner.jobs).insert(at.addr(), Arc::downgrade(&state));
            }
            ns_job_set_done_cb(life.raw.0, Some(gone));
            let mut code = state.group.as_ref().map_or(0, |group| ns_job_set_group(life.raw.0, group.raw.0));
            if code == 0 {
                code = ns_job_rearm(life.raw.0);
            }
            if code != 0 {
                ns_job_done(life.take());
            }
            check(code)?;
        }
        drop((life, _gate, _call));
        Ok(state)
    }

    /// Name a job from outside its callbacks: in a call, or at the end of the pool.
    fn with<T>(&self, call: impl FnOnce(&mut Life) -> Result<T>) -> Result<T> {
        let _gate = self.group.as_ref().map(|group| group.gate()).transpose()?;
        let mut life = lock(&self.life);
        if life.raw.0.is_null() { Err(Error::Deleting) } else { call(&mut life) }
    }

    pub(crate) fn end(&self) -> Result<()> {
        // SAFETY: it is not finished with, as nobody had taken it, and its group is not cancelled.
        self.with(|life| check(unsafe { ns_job_cancel(life.take()) }))
    }
}

/// A job, and its owner: dropping it cancels the job, and does not wait for a run that is in progress. The job
/// keeps its callback, with what that captured, until it is gone.
#[must_use = "dropping it cancels the job; detach() lets it live on"]
pub struct Job(pub(crate) Option<Arc<JobState>>);

impl Job {
    /// Finish with it, whatever its state, without waiting. `Ok`: no run is in progress but perhaps the caller's own,
    /// and none will begin. `Running`: one is in progress on another thread, and is the last. `Deleting`, `Shutdown`:
    /// it was finished with before, or is by the end of its group or pool.
    pub fn cancel(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let state = self.0.take().ok_or(Error::Deleting)?;
        let _call = state.inner.enter()?;
        state.end()
    }

    fn with<T>(&self, call: impl FnOnce(&mut Life) -> Result<T>) -> Result<T> {
        let state = self.0.as_ref().ok_or(Error::Deleting)?;
        let _call = state.inner.enter()?;
        state.with(call)
    }

    /// Let it live on without an owner, until it is done, or its callback returns without having rearmed it.
    pub fn detach(mut self) {
        let _ = self.with(|life| {
            life.detached = true;
            life.settle();
            Ok(())
        });
        self.0 = None;
    }

    /// Arm it again, once it is idle; while its callback runs, for when that returns. `InvalidState`: it is
    /// armed. `Deleting`: it is finished with.
    pub fn rearm(&self) -> Result<()> {
        // SAFETY: it is not finished with, as nobody has taken it, and its group is not cancelled.
        self.with(|life| life.arm(|raw| unsafe { ns_job_rearm(raw) }))
    }

    /// Whether it is finished with.
    pub fn is_over(&self) -> bool {
        self.with(|_| Ok(())).is_err()
    }
}

impl Drop for Job {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// A job in its callback.
pub struct Event<'a> {
    raw: *mut ns_job_t,
    state: &'a JobState,
}

impl Event<'_> {
    fn fired(&self, what: ns_job_type_t) -> bool {
        // SAFETY: in its callback a job lives; so in the functions below.
        unsafe { ns_job_get_output_type(self.raw) & what != 0 }
    }

    /// Whether its descriptor is readable.
    pub fn is_readable(&self) -> bool {
        self.fired(NS_JOB_READ)
    }

    /// Whether its descriptor is writable.
    pub fn is_writable(&self) -> bool {
        self.fired(NS_JOB_WRITE)
    }

    /// Whether its time is up.
    pub fn is_timed_out(&self) -> bool {
        self.fired(NS_JOB_TIMER)
    }

    fn arm(&self, call: impl FnOnce(*mut ns_job_t) -> ns_result_t) -> Result<()> {
        lock(&self.state.life).arm(|_| call(self.raw))
    }

    /// Arm it again when the callback returns. `Shutdown`: the pool ends.
    pub fn rearm(&self) -> Result<()> {
        // SAFETY: as in `fired`.
        self.arm(|raw| unsafe { ns_job_rearm(raw) })
    }

    /// The same, for another interest or time. `None`: the time as before; zero: on a descriptor no time-out, on
    /// a timer at once.
    pub fn rearm_for(&self, interest: Interest, time: Option<Duration>) -> Result<()> {
        // SAFETY: as in `fired`.
        self.arm(|raw| c_limit(time, |tv| unsafe { ns_job_rearm_for(raw, interest.0, tv) }))
    }

    /// The same as `rearm`, but it begins to watch only when a time has passed.
    pub fn rearm_after(&self, time: Duration) -> Result<()> {
        // SAFETY: as in `fired`.
        self.arm(|raw| unsafe { ns_job_rearm_after(raw, &c_time(time)) })
    }

    /// This is its last run.
    pub fn done(&self) {
        lock(&self.state.life).take();
        // SAFETY: as in `fired`. A second time it does nothing.
        unsafe { ns_job_done(self.raw) };
    }
}

unsafe extern "C" fn run(raw: *mut ns_job_t) {
    // SAFETY: the job has a share in its data until its done callback.
    let state = unsafe { &*ns_job_get_data(raw).cast::<JobState>() };
    let event = Event { raw, state };
    if state.inner.guarded(|| lock(&state.callback).iter_mut().for_each(|callback| callback(&event))) {
        event.done();
    }
    let mut life = lock(&state.life);
    life.runs += 1;
    life.settle();
}

unsafe extern "C" fn gone(raw: *mut ns_job_t) {
    // SAFETY: `arm` gave it this share, which it gives back here.
    let state = unsafe { Arc::from_raw(ns_job_get_data(raw).cast::<JobState>()) };
    lock(&state.inner.jobs).remove(&Arc::as_ptr(&state).addr());
    lock(&state.life).take();
    state.inner.guarded(|| drop(lock(&state.callback).take()));
}
