// SPDX-License-Identifier: GPL-3.0-or-later
//! Descriptors: from the jobs that watch them to what the poller is told, and back.
//!
//! The poller knows one registration per descriptor; several jobs may share it. What it is told is
//! the union of what the armed jobs want: level-triggered if all of them run in the loop, so that
//! a job that is armed again when its callback returns costs no system call; oneshot if one runs
//! in a worker, so that the descriptor stays out of the poller while it is queued or runs.
//!
//! Numbers are reused, and registrations outlive numbers. An add always tells the kernel, which
//! thereby tells whether the registration is still there; if not, the jobs that had it are
//! orphans: they were made for something that is gone. Each registration has a serial, which
//! comes back with its events.

use std::sync::atomic::Ordering;

use libc::c_int;

use super::backoff::Stale;
use super::event_loop::EventLoop;
use super::poller::{Key, Refusal};
use crate::abi::{
    NS_JOB_ACCEPT, NS_JOB_CONNECT, NS_JOB_PRESERVE_FD, NS_JOB_READ, NS_JOB_WRITE, ns_job_type_t,
};
use crate::fds::{Entry, Interest, Mode, Registration};
use crate::group::{self, Task};
use crate::job::{Job, JobPtr, note};
use crate::perturb::perturb;
use crate::shared::Shared;
use crate::sys;

/// The directions that `job` asks for.
fn interest(job: &Job) -> Interest {
    Interest::new(
        job.has(NS_JOB_ACCEPT | NS_JOB_READ),
        job.has(NS_JOB_CONNECT | NS_JOB_WRITE),
    )
}

/// Directions as an output type.
fn output(directions: Interest) -> ns_job_type_t {
    (if directions.read() { NS_JOB_READ } else { 0 })
        | (if directions.write() { NS_JOB_WRITE } else { 0 })
}

/// Each job in the list of `entry`. The body may unlink the job that it is given.
pub(super) fn jobs(entry: &Entry) -> impl Iterator<Item = JobPtr> {
    let mut node = entry.jobs.first();
    std::iter::from_fn(move || {
        if node.is_null() {
            return None;
        }
        // SAFETY: a node of this list is that of a live job.
        let job = unsafe { JobPtr::of_link(node) };
        node = job.watch().link.next();
        Some(job)
    })
}

/// Put `job`, which is in no list, in that of its descriptor.
fn link(entry: &Entry, job: JobPtr) {
    debug_assert!(!job.watch().link.is_linked());
    // SAFETY: not linked; the job does not move, and its disposal unlinks it.
    unsafe { entry.jobs.push(job.link()) };
}

/// How the poller is to report for `job` alone.
fn mode_of(job: &Job) -> Mode {
    if job.leaves_loop() {
        Mode::Oneshot
    } else {
        Mode::Level
    }
}

/// What the poller is to be told of `entry`.
///
/// A job of the loop's that is about to run still counts: it will most likely be armed again.
fn wanted(entry: &Entry) -> (Interest, Mode) {
    let mut all = Interest::NONE;
    let mut mode = Mode::Level;
    for job in jobs(entry).filter(|job| job.is(note::MAY_FIRE | note::READY)) {
        all = all.or(interest(&job));
        if mode_of(&job) == Mode::Oneshot {
            mode = Mode::Oneshot;
        }
    }
    // With no interest at all, a level-triggered descriptor would report its hang-up for ever.
    if all.is_none() {
        mode = Mode::Oneshot;
    }
    (all, mode)
}

/// Whether the descriptor of `job` is ready for it, by the system's word on the number.
pub(super) fn is_ready(job: JobPtr) -> bool {
    let interest = interest(&job);
    let mut poll = libc::pollfd {
        fd: job.fd(),
        events: if interest.read() { libc::POLLIN } else { 0 }
            | if interest.write() { libc::POLLOUT } else { 0 },
        revents: 0,
    };
    // SAFETY: one pollfd of ours, and no waiting.
    unsafe { libc::poll(&mut poll, 1, 0) > 0 }
}

impl EventLoop {
    /// An I/O job is ARMED: have it wait for its descriptor and its time.
    pub(super) fn arm_io(&mut self, pool: &Shared, job: JobPtr) {
        job.mark(note::MAY_FIRE);
        self.start_timer(job);
        if !job.is(note::ATTACHED) {
            self.attach(pool, job);
        } else if !job.is(note::ORPHAN) {
            self.rearm(pool, job);
        } else if sys::is_open(job.fd()) {
            self.report_lost(pool, job);
        } else {
            self.fire_unasked(pool, job);
        }
    }

    /// `job` ran in the loop and is armed again. The poller was told nothing meanwhile: until it
    /// ran, the job counted as armed, and while it ran, nobody looked. Nor does anybody ask now
    /// whether its callback has closed the descriptor: see [`EventLoop::check_later`].
    pub(super) fn arm_again(&mut self, pool: &Shared, job: JobPtr) {
        let registration = pool.fds.entry(job.fd()).registration();
        let in_step = matches!(registration, Registration::Polled(_, Mode::Level));
        if in_step && job.notes.get() & (note::ORPHAN | note::UNVERIFIED) == note::UNVERIFIED {
            job.mark(note::MAY_FIRE);
            self.start_timer(job);
        } else {
            self.arm_again_slowly(pool, job, in_step);
        }
    }

    /// As [`EventLoop::arm_again`], where there is more to do.
    #[cold]
    #[inline(never)]
    fn arm_again_slowly(&mut self, pool: &Shared, job: JobPtr, in_step: bool) {
        if !in_step || job.is(note::ORPHAN) {
            return self.arm_io(pool, job);
        }
        job.mark(note::MAY_FIRE);
        self.start_timer(job);
        self.check_later(pool, job);
    }

    /// The first arming of `job`: tell the kernel, and learn whether the number still means what
    /// it meant.
    fn attach(&mut self, pool: &Shared, job: JobPtr) {
        job.mark(note::ATTACHED);
        let fd = job.fd();
        let entry = pool.fds.entry(fd);
        if job.watch().seen.get() != entry.closes() {
            return self.attach_late(pool, job);
        }
        link(entry, job);
        perturb("in its descriptor's list, and not in the poller");
        let before = entry.registration();
        if let Registration::Polled(..) = before {
            let (interest, mode) = wanted(entry);
            match self.register(entry, fd, interest, mode, true) {
                Ok(()) => return,
                Err(Refusal::Failed(errno)) => return self.refuse(pool, fd, errno),
                // Whoever was thought to be registered under the number has lost it.
                Err(Refusal::Lost | Refusal::AlwaysReady | Refusal::Closed) => {
                    job.watch().link.unlink();
                    self.abandon(pool, fd);
                    link(entry, job);
                }
            }
        }
        if before == Registration::Always {
            return self.attach_to_file(pool, job);
        }
        if let Err(refusal) = self.register_wanted(entry, fd) {
            self.refused(pool, fd, refusal, Some(job));
        }
    }

    /// The first arming of `job`, whose number was that of a file: of one that is always ready.
    #[cold]
    #[inline(never)]
    fn attach_to_file(&mut self, pool: &Shared, job: JobPtr) {
        let fd = job.fd();
        let entry = pool.fds.entry(fd);
        let done = self.register(entry, fd, interest(&job), mode_of(&job), false);
        if done != Err(Refusal::AlwaysReady) {
            // It is not any more.
            let registration = entry.registration();
            job.watch().link.unlink();
            self.abandon(pool, fd);
            entry.set_registration(if done.is_ok() {
                registration
            } else {
                Registration::Absent
            });
            link(entry, job);
        }
        if let Err(refusal) = done {
            self.refused(pool, fd, refusal, Some(job));
        }
    }

    /// `job`, which was armed before, is armed again. No system call if the poller is in step.
    fn rearm(&mut self, pool: &Shared, job: JobPtr) {
        let fd = job.fd();
        let entry = pool.fds.entry(fd);
        let done = match entry.registration() {
            Registration::Always => return self.fire_unasked(pool, job),
            // In its turn.
            Registration::Refused => return self.await_retry(pool, fd),
            Registration::Absent => self.register_wanted(entry, fd),
            Registration::Polled(..) => match self.update(entry, fd) {
                Ok(false) if job.is(note::UNVERIFIED) => Ok(()),
                Ok(false) => return self.check_later(pool, job),
                Ok(true) => Ok(()),
                Err(refusal) => Err(refusal),
            },
        };
        if let Err(refusal) = done {
            self.refused(pool, fd, refusal, Some(job));
        }
    }

    /// Fire `job` in all the directions that it asks for: its own reads and writes tell it more.
    pub(super) fn fire_unasked(&mut self, pool: &Shared, job: JobPtr) {
        self.fire(pool, job, output(interest(&job)));
    }

    /// Tell the poller, and note what it knows then.
    pub(super) fn register(
        &mut self,
        entry: &Entry,
        fd: c_int,
        interest: Interest,
        mode: Mode,
        known: bool,
    ) -> Result<(), Refusal> {
        if !known {
            entry.next_serial();
        }
        let key = Key {
            fd,
            serial: entry.serial(),
        };
        self.poller.arm(key, interest, mode, known)?;
        entry.set_registration(Registration::Polled(interest, mode));
        Ok(())
    }

    /// Register what the jobs of `fd` want, of which the poller knows nothing.
    pub(super) fn register_wanted(&mut self, entry: &Entry, fd: c_int) -> Result<(), Refusal> {
        let (interest, mode) = wanted(entry);
        self.register(entry, fd, interest, mode, false)
    }

    /// Whether a job waits for the descriptor of `entry`.
    pub(super) fn is_wanted(&self, entry: &Entry) -> bool {
        !wanted(entry).0.is_none()
    }

    /// Tell the poller of a registered descriptor what its jobs want, if that has changed. False if
    /// it has not.
    fn update(&mut self, entry: &Entry, fd: c_int) -> Result<bool, Refusal> {
        let (interest, mode) = wanted(entry);
        match entry.registration() {
            Registration::Polled(told, told_mode)
                if (interest, mode) != (told, told_mode)
                    && !(interest.is_none() && told.is_none()) =>
            {
                self.register(entry, fd, interest, mode, true)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Bring the poller in step with what the jobs of `fd` want, none of which is just being
    /// armed. No system call if it is.
    pub(super) fn sync(&mut self, pool: &Shared, fd: c_int) {
        if let Err(refusal) = self.update(pool.fds.entry(fd), fd) {
            self.refused(pool, fd, refusal, None);
        }
    }

    /// An event came. Returns whether that changed anything: a job fires, or the poller is told
    /// something else.
    pub(super) fn on_ready(&mut self, pool: &Shared, key: Key, ready: Interest) -> bool {
        let entry = pool.fds.find(key.fd);
        let known = entry.filter(|entry| entry.serial() == key.serial);
        let Some((entry, Registration::Polled(told, mode))) =
            known.map(|entry| (entry, entry.registration()))
        else {
            self.drop_stale(pool, key.fd);
            return true;
        };
        if ready.is_none() {
            // Urgent data alone is not for reading. It stays until it is read, so be told of
            // changes only; which registering reports it once more.
            if mode == Mode::Edge {
                return false;
            }
            if let Err(refusal) = self.register(entry, key.fd, told, Mode::Edge, true) {
                self.refused(pool, key.fd, refusal, None);
            }
            return true;
        }
        if mode == Mode::Oneshot {
            entry.set_registration(Registration::Polled(Interest::NONE, mode));
        }
        let mut fired = false;
        for job in jobs(entry) {
            let directions = interest(&job).and(ready);
            if job.is(note::MAY_FIRE) && !directions.is_none() {
                self.fire(pool, job, output(directions));
                fired = true;
            }
        }
        // What runs in the loop is wanted on until it has run.
        if mode == Mode::Level && fired {
            return true;
        }
        self.sync(pool, key.fd);
        fired || entry.registration() != Registration::Polled(told, mode)
    }

    /// An event of a registration that no job has: see to it that it does not come again.
    fn drop_stale(&mut self, pool: &Shared, fd: c_int) {
        let free = pool
            .fds
            .find(fd)
            .is_none_or(|entry| !matches!(entry.registration(), Registration::Polled(..)));
        // If the number stands for something else now, the registration can't be named any more.
        if !(free && self.poller.disarm(fd)) {
            self.stale = Some(Stale::Registration);
        }
    }

    /// Register everything with a new poller.
    pub(super) fn register_all(&mut self, pool: &Shared) {
        for (fd, entry) in pool.fds.entries() {
            if let Registration::Polled(..) = entry.registration() {
                entry.set_registration(Registration::Absent);
                if let Err(refusal) = self.register_wanted(entry, fd) {
                    self.refused(pool, fd, refusal, None);
                }
            }
        }
    }

    /// `job` is disposed of: out of the poller first, then its descriptor is closed, unless it is
    /// to be preserved. False if a worker is to close it, and the rest must wait for that.
    // Apart, so that timers, which are disposed of most, do not pay for what it needs.
    #[must_use]
    #[inline(never)]
    pub(super) fn detach_io(&mut self, pool: &Shared, job: JobPtr) -> bool {
        job.watch().link.unlink();
        let fd = job.fd();
        let entry = pool.fds.entry(fd);
        // Closed by another job of the pool, or by the application: the number, if it is open, is
        // not this job's to close.
        if job.is(note::ORPHAN) || job.watch().seen.get() != entry.closes() {
            // Or by a worker, that was asked to.
            self.closing -= usize::from(job.is(note::CLOSING));
            return true;
        }
        let registered = matches!(entry.registration(), Registration::Polled(..));
        if job.has(NS_JOB_PRESERVE_FD) {
            if entry.jobs.is_empty() && registered {
                self.poller.disarm(fd);
            }
            if entry.jobs.is_empty() {
                entry.set_registration(Registration::Absent);
            } else {
                self.sync(pool, fd);
            }
            return true;
        }
        if registered {
            self.poller.disarm(fd);
        }
        entry.set_registration(Registration::Absent);
        if !entry.jobs.is_empty() {
            self.take_from_others(pool, fd);
        }
        perturb("out of the poller, and not closed");
        // Before the close: the number may be given out again at once.
        entry.count_close();
        if pool.workers.load(Ordering::SeqCst) > 0 && sys::lingers(fd) {
            self.close_in_worker(pool, job);
            return false;
        }
        job.close();
        true
    }

    /// Closing the descriptor of `job`, which is out of everything, may block, and the loop has others
    /// to look after: a worker is to do it, and to hand the job back for the rest.
    #[cold]
    #[inline(never)]
    fn close_in_worker(&mut self, pool: &Shared, job: JobPtr) {
        if job.is(note::READY) {
            // The same bit stands for this list and for the work queue.
            self.ready.remove(job);
            job.unmark(note::READY);
            let _ = job.state.drop_work();
        }
        job.mark(note::ORPHAN | note::CLOSING);
        self.closing += 1;
        perturb("a worker is to close it, and its state does not say so");
        if job.state.ask_for_close() {
            perturb("a worker is to close it, and it is not pushed");
            pool.work.push(Task::job(job));
        }
    }

    /// Every worker is gone: close what none of them has come to.
    #[cold]
    #[inline(never)]
    pub(super) fn close_left(&mut self, pool: &Shared) {
        // What a worker closed it had handed back before it left, and that was taken. So whatever is
        // still counted is in the work queue.
        while self.closing > 0 {
            let Some(task) = pool.work.pop() else {
                debug_assert!(false, "counted, and not in the queue");
                return;
            };
            let group::Kind::Job(job) = task.kind() else {
                pool.work.push_quietly(task);
                continue;
            };
            if job.state.take_close() {
                job.close();
                self.dispose(pool, job);
            } else {
                // It stays where it is until the pool is destroyed.
                pool.work.push_quietly(task);
            }
        }
    }
}
