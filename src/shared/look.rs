// SPDX-License-Identifier: GPL-3.0-or-later
//! A look at all jobs, for `ns_thrpool_dump`: how a thread that wants one asks the loop, and what the loop
//! notes of each job.
//!
//! The thread puts what it wants on the *desk*, and sends the loop a request. The loop, when it comes to
//! the request, notes some jobs in the thread's memory and says how far it has come. Then the thread asks
//! for more, so each step is short, and turns of the loop are in between. A job that is armed again
//! meanwhile may be noted twice, or not at all.
//!
//! Everything on the desk happens under its lock, and the loop holds that for a whole step. So a thread
//! that does not want to wait longer takes its memory back under the lock, and no step is under way then.
//! A request that finds nothing on the desk has no effect; there is at most one in the queue.
//!
//! Where the loop runs in the application's threads, nobody may be the loop. Then the thread that asks looks
//! for itself, and keeps others from being the loop meanwhile. The race: it finds that another thread is the
//! loop, which has seen an empty desk and leaves. So it puts what it wants on the desk before it looks who is
//! the loop, and a thread that has left looks at the desk.

use libc::c_void;

use crate::abi::ns_job_type_t;
use crate::group::GroupPtr;
use crate::job::{JobPtr, Kind, note, state};
use crate::sync::{AtomicBool, Condvar, Mutex, Ordering, lock, wait_until};
use crate::sys;

/// What an armed job does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Its callback executes.
    Running,
    /// It waits for its trigger.
    Waiting,
    /// It begins to wait for its trigger later.
    Resting,
    /// It has fired, and waits for the loop or a worker.
    Fired,
    /// It waits in the queue of its group.
    Queued,
}

/// What is noted of a job.
#[derive(Clone, Copy)]
pub(crate) struct Record {
    /// Its address, for comparing: the job may be gone.
    pub(crate) job: usize,
    pub(crate) func: *mut c_void,
    pub(crate) data: *mut c_void,
    /// The group's address, or 0.
    pub(crate) group: usize,
    /// When its timer is due, in nanoseconds of the monotonic clock; `u64::MAX` for never.
    pub(crate) due: u64,
    pub(crate) flags: ns_job_type_t,
    pub(crate) kind: Kind,
    pub(crate) doing: Doing,
    /// The descriptor or signal, or -1.
    pub(crate) number: i32,
    /// In which order it was noted.
    pub(crate) order: u32,
}

impl Record {
    /// What `job` does; `None` if it is idle or finished with. The loop calls this for a job that one of
    /// its lists holds; for one of a group's, the thread that has the group's lock.
    pub(crate) fn of(job: JobPtr, queued: bool) -> Option<Self> {
        let kind = job.kind();
        let doing = if job.state.is_executing() {
            Doing::Running
        } else if job.state.now() != state::ARMED {
            return None;
        } else if queued {
            Doing::Queued
        } else if kind == Kind::Now {
            Doing::Fired
        } else if job.is_resting() {
            Doing::Resting
        } else if job.is(note::MAY_FIRE) {
            Doing::Waiting
        } else {
            Doing::Fired
        };
        let timed = matches!(doing, Doing::Waiting | Doing::Resting)
            && (doing == Doing::Resting || job.has_timer());
        Some(Self {
            job: job.as_c().addr(),
            func: job.func() as *mut c_void,
            data: job.data(),
            group: job.group().map_or(0, |group| group.as_c().addr()),
            due: match timed {
                true => job.trigger_part().timer.deadline(),
                false => u64::MAX,
            },
            flags: job.flags(),
            kind,
            doing,
            number: match kind {
                Kind::Io => job.fd(),
                Kind::Signal => job.signum(),
                Kind::Now | Kind::Timer => -1,
            },
            order: 0,
        })
    }
}

/// Where a look goes on. Each is a list that is looked at as a whole, or several.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    /// What has fired for the loop; signal jobs; jobs in no other list.
    Lists,
    /// From this descriptor on.
    Fds(i32),
    /// From this ring of the timer wheel on.
    Timers(usize),
    /// From the first group on.
    Groups,
    /// From this group on, which is held for that.
    Group(GroupPtr),
    End,
}

/// A look at all jobs, and the memory for what is noted. The records are the memory's first `used`.
pub(crate) struct Look {
    pub(crate) place: Place,
    pub(crate) records: *mut Record,
    pub(crate) room: usize,
    pub(crate) used: usize,
    /// If the next list has no room: how much it needs.
    pub(crate) need: usize,
    /// How many jobs in queues of groups were not noted.
    pub(crate) skipped: usize,
    /// A group that is held and need not be any more. Released when no lock is held.
    pub(crate) release: Option<GroupPtr>,
}

/// How many jobs of one group's queue are noted at most, while its lock is held.
pub(crate) const MOST_OF_GROUP: usize = 1 << 16;

impl Look {
    /// A look that begins, without memory.
    pub(crate) fn new() -> Self {
        Self {
            place: Place::Lists,
            records: std::ptr::null_mut(),
            room: 0,
            used: 0,
            need: 0,
            skipped: 0,
            release: None,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.place, Place::End)
    }

    /// Gives up: the groups that it held are to be released, when no lock is held.
    #[must_use]
    pub(crate) fn let_go(&mut self) -> [Option<GroupPtr>; 2] {
        let here = match std::mem::replace(&mut self.place, Place::End) {
            Place::Group(group) => Some(group),
            _ => None,
        };
        [here, self.release.take()]
    }

    /// The group that it need not hold any more, to be released when no lock is held.
    #[must_use]
    pub(crate) fn take_released(&mut self) -> Option<GroupPtr> {
        self.release.take()
    }

    pub(crate) fn left(&self) -> usize {
        self.room - self.used
    }

    /// Notes a job, if it does anything. There is room.
    pub(crate) fn note(&mut self, job: JobPtr, queued: bool) {
        debug_assert!(self.left() > 0);
        if let Some(record) = Record::of(job, queued) {
            let order = self.used as u32;
            // SAFETY: the memory has `room` places, and this is none of those in use.
            unsafe {
                let at = self.records.add(self.used);
                at.write(Record { order, ..record });
            }
            self.used += 1;
        }
    }
}

struct Inner {
    /// A thread is looking.
    taken: bool,
    /// The request is in the queue.
    sent: bool,
    /// What it wants next, or null. On that thread's stack.
    asked: *mut Look,
}

// SAFETY: what is asked for stays while it is on the desk, and is used under the lock.
unsafe impl Send for Inner {}

/// See the module.
pub(crate) struct Desk {
    /// Something is asked for: a hint for a thread that was the loop.
    wanted: AtomicBool,
    inner: Mutex<Inner>,
    moved_on: Condvar,
}

impl Desk {
    /// Nobody looks.
    pub(crate) fn new() -> Self {
        Self {
            wanted: AtomicBool::new(false),
            inner: Mutex::new(Inner {
                taken: false,
                sent: false,
                asked: std::ptr::null_mut(),
            }),
            moved_on: Condvar::new(),
        }
    }

    /// Call it once, when the desk does not move any more.
    pub(crate) fn settle(&self) {
        self.moved_on.go_by_monotonic_clock();
    }

    /// Whether something is asked for.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::SeqCst)
    }

    /// Takes the desk, when it is free. False if it is not by `deadline`, in nanoseconds of the monotonic
    /// clock. The caller has disabled cancellation.
    pub(crate) fn take(&self, deadline: u64) -> bool {
        let mut inner = lock(&self.inner);
        while inner.taken {
            if sys::now() >= deadline {
                return false;
            }
            inner = wait_until(&self.moved_on, inner, deadline);
        }
        inner.taken = true;
        true
    }

    /// Gives it back.
    pub(crate) fn give_back(&self) {
        lock(&self.inner).taken = false;
        self.moved_on.notify_all();
    }

    /// Has the loop look at more. False if it does not by `deadline`. The caller has taken the desk. `send`
    /// sends the request; `alone` does what it asks for if no thread is the loop.
    pub(crate) fn ask(
        &self,
        look: &mut Look,
        deadline: u64,
        send: impl FnOnce(),
        alone: impl FnOnce(),
    ) -> bool {
        let mut inner = lock(&self.inner);
        inner.asked = look;
        self.wanted.store(true, Ordering::SeqCst);
        let sent = std::mem::replace(&mut inner.sent, true);
        drop(inner);
        if !sent {
            send();
        }
        alone();
        let mut inner = lock(&self.inner);
        while !inner.asked.is_null() && sys::now() < deadline {
            inner = wait_until(&self.moved_on, inner, deadline);
        }
        let answered = inner.asked.is_null();
        inner.asked = std::ptr::null_mut();
        self.wanted.store(false, Ordering::SeqCst);
        answered
    }

    /// The loop has come to a request to look.
    pub(crate) fn take_request(&self) {
        lock(&self.inner).sent = false;
    }

    /// Calls `step` with what is asked for, if anything is; the caller is the loop, or keeps others from being
    /// it. `step` calls nothing of the application's. The caller releases the group that this returns.
    #[must_use]
    pub(crate) fn answer(&self, step: impl FnOnce(&mut Look)) -> Option<GroupPtr> {
        let mut inner = lock(&self.inner);
        // SAFETY: it stays while it is on the desk.
        let look = unsafe { inner.asked.as_mut() }?;
        step(look);
        let release = look.release.take();
        inner.asked = std::ptr::null_mut();
        drop(inner);
        self.moved_on.notify_all();
        release
    }
}
