// SPDX-License-Identifier: GPL-3.0-or-later
//! Adding jobs.

use std::os::fd::{AsFd, AsRawFd};

use crate::job::{Add, Callback};
use crate::prelude::*;

// SAFETY: see `Add`.
const ADD_NOW: fn(Add<'_>) -> ns_result_t = |a| unsafe { ns_add_job(a.tp, a.flags, a.func, a.data, a.raw) };

/// Where jobs are added, and how: to a pool or a group, in workers or in the loop. Cheap to clone; it may outlive
/// its pool. Every function may be called from any thread, in callbacks too.
///
/// [`in_loop`](Handle::in_loop), [`persist`](Handle::persist), [`cadence`](Handle::cadence) and
/// [`timeout`](Handle::timeout) return one that differs in that: `pool.in_loop().persist().on_readable(...)`.
#[derive(Clone)]
pub struct Handle {
    pub(crate) inner: Arc<Inner>,
    pub(crate) group: Option<Arc<GroupState>>,
    pub(crate) flags: ns_job_type_t,
    pub(crate) time: Option<Duration>,
}

impl Handle {
    pub(crate) fn of(inner: Arc<Inner>) -> Handle {
        Handle { inner, group: None, flags: NS_JOB_THREAD, time: None }
    }

    /// The same by itself: for callbacks, and to outlive the pool or group.
    pub fn to_handle(&self) -> Handle {
        self.clone()
    }

    /// Callbacks run in the loop, where nothing may block. Otherwise they run in workers.
    pub fn in_loop(&self) -> Handle {
        Handle { flags: self.flags & !NS_JOB_THREAD, ..self.clone() }
    }

    /// Jobs are armed again whenever their callback returns, until they are cancelled or done.
    pub fn persist(&self) -> Handle {
        Handle { flags: self.flags | NS_JOB_PERSIST, ..self.clone() }
    }

    /// For [`every`](Handle::every): at multiples of the time, without drift.
    pub fn cadence(&self) -> Handle {
        Handle { flags: self.flags | NS_JOB_PERSIST | NS_JOB_CADENCE, ..self.clone() }
    }

    /// Jobs for descriptors, and waits of tasks, have this time-out, which begins anew when they are armed.
    pub fn timeout(&self, time: Duration) -> Handle {
        Handle { time: Some(time), ..self.clone() }
    }

    /// Run `f` once, as soon as a thread is free. `Overloaded`: too many wait ([`Group::set_limit`]).
    pub fn post(&self, f: impl FnOnce() + Send + 'static) -> Result<()> {
        let mut f = Some(f);
        let call = move |_: &Event<'_>| f.take().into_iter().for_each(|f| f());
        let handle = Handle { flags: self.flags & NS_JOB_THREAD, ..self.clone() };
        JobState::start(&handle, false, Box::new(call), ADD_NOW).map(drop)
    }

    /// Run a callback as soon as a thread is free, with a job that may be rearmed.
    pub fn run(&self, f: impl FnMut(&Event<'_>) + Send + 'static) -> Result<Job> {
        self.add(0, Box::new(f), ADD_NOW)
    }

    /// Call it when a time has passed; never before.
    pub fn after(&self, time: Duration, f: impl FnMut(&Event<'_>) + Send + 'static) -> Result<Job> {
        let mut tv = c_time(time);
        // SAFETY: see `Add`; so in the functions below.
        self.add(0, Box::new(f), |a| unsafe { ns_add_timeout_job(a.tp, &mut tv, a.flags, a.func, a.data, a.raw) })
    }

    /// Call it whenever a time has passed.
    pub fn every(&self, time: Duration, f: impl FnMut(&Event<'_>) + Send + 'static) -> Result<Job> {
        self.persist().after(time, f)
    }

    /// Call it when a signal has arrived: in an ordinary thread, where everything may be called.
    pub fn on_signal(&self, number: i32, f: impl FnMut(&Event<'_>) + Send + 'static) -> Result<Job> {
        // SAFETY: as in `after`.
        self.add(0, Box::new(f), |a| unsafe { ns_add_signal_job(a.tp, number, a.flags, a.func, a.data, a.raw) })
    }

    /// Call it when a descriptor is ready, or the [`timeout`](Handle::timeout) is up. The job owns what has the
    /// descriptor, and drops it when the job is gone; to share it, pass an `Arc`.
    pub fn on_io<S: AsFd + Send + 'static>(
        &self, mut source: S, interest: Interest, mut f: impl FnMut(&Event<'_>, &mut S) + Send + 'static,
    ) -> Result<Job> {
        let fd = source.as_fd().as_raw_fd();
        // In C a time-out of zero is none: what is over already is a microsecond.
        let mut tv = c_time(self.time.map_or(Duration::ZERO, |time| time.max(Duration::from_micros(1))));
        let f = Box::new(move |event: &Event<'_>| f(event, &mut source));
        // SAFETY: as in `after`.
        self.add(interest.0 | NS_JOB_PRESERVE_FD, f, |a| unsafe {
            ns_add_fd_timeout_job(a.tp, fd, &mut tv, a.flags, a.func, a.data, a.raw)
        })
    }

    /// [`on_io`](Handle::on_io) for reading, which includes accepting, the end and errors.
    pub fn on_readable<S: AsFd + Send + 'static>(
        &self, source: S, f: impl FnMut(&Event<'_>, &mut S) + Send + 'static,
    ) -> Result<Job> {
        self.on_io(source, Interest::READ, f)
    }

    fn add(&self, more: ns_job_type_t, f: Callback, add: impl FnOnce(Add<'_>) -> ns_result_t) -> Result<Job> {
        let handle = Handle { flags: self.flags | more, ..self.clone() };
        JobState::start(&handle, true, f, add).map(|state| Job(Some(state)))
    }

    /// A group, of whose jobs at most `width` run at once, in order; 0: no limit and no order.
    pub fn group(&self, width: usize) -> Result<Group> {
        Group::new(self, width)
    }

    /// Begin to end the pool: what is queued still runs, nothing is armed any more.
    pub fn shutdown(&self) {
        if let Ok(_call) = self.inner.enter() {
            // SAFETY: the pool is there.
            unsafe { ns_thrpool_shutdown(self.inner.tp.0) }
        }
    }

    /// Whether that has begun.
    pub fn is_shutdown(&self) -> bool {
        // SAFETY: the pool is there.
        self.inner.enter().map_or(true, |_call| unsafe { ns_thrpool_is_shutdown(self.inner.tp.0) } != 0)
    }
}
