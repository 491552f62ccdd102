// SPDX-License-Identifier: GPL-3.0-or-later
//! Descriptors: what the jobs want of them, what the poller is told, and what its events fire.
//!
//! The poller has one registration per descriptor, which several jobs may share. It is registered
//! for the union of what the armed jobs want. It is level-triggered if all of them run in the loop,
//! so that a job that is armed again when its callback returns costs no system call. It is oneshot
//! if one of them runs in a worker or in a group, so that the poller does not report the descriptor
//! while that job is queued or runs.
//!
//! The system reuses descriptor numbers, and a registration can outlive its number. The first
//! arming of a job always makes a system call, whose result shows whether the registration still
//! exists. If it does not, the jobs that relied on it are orphans: the file they were made for is
//! gone. Each registration has a serial, and its events carry it.

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
use crate::job::{Job, JobPtr, Kind, note};
use crate::perturb::perturb;
use crate::shared::Shared;
use crate::sys;

/// The directions that `job` wants.
fn interest(job: &Job) -> Interest {
    let look = job.look();
    Interest::new(
        look.has(NS_JOB_ACCEPT | NS_JOB_READ),
        look.has(NS_JOB_CONNECT | NS_JOB_WRITE),
    )
}

/// The output type for these directions.
fn output(directions: Interest) -> ns_job_type_t {
    (if directions.read() { NS_JOB_READ } else { 0 })
        | (if directions.write() { NS_JOB_WRITE } else { 0 })
}

/// The jobs in the list of `entry`. The caller may unlink each job that it is given.
pub(super) fn jobs(entry: &Entry) -> impl Iterator<Item = JobPtr> {
    let mut node = entry.jobs.first();
    std::iter::from_fn(move || {
        if node.is_null() {
            return None;
        }
        // SAFETY: a linked node belongs to a live job: disposal unlinks a job before it frees it.
        let job = unsafe { JobPtr::of_link(node) };
        node = job.trigger_part().link.next();
        Some(job)
    })
}

/// Put `job`, which is in no list, in the list of its descriptor.
fn link(entry: &Entry, job: JobPtr) {
    debug_assert!(!job.trigger_part().link.is_linked());
    // SAFETY: the node is not linked, a job does not move, and disposal unlinks it before the job
    // is freed.
    unsafe { entry.jobs.push(job.link()) };
}

/// The mode that `job` alone needs.
fn mode_of(job: &Job) -> Mode {
    if job.goes_to_queue() {
        Mode::Oneshot
    } else {
        Mode::Level
    }
}

/// The registration that the jobs of `entry` need.
///
/// A loop job that is about to run still counts: it will most likely be armed again.
fn wanted(entry: &Entry) -> (Interest, Mode) {
    let mut all = Interest::NONE;
    let mut mode = Mode::Level;
    for job in jobs(entry).filter(|job| job.is(note::MAY_FIRE | note::READY)) {
        all = all.or(interest(&job));
        if mode_of(&job) == Mode::Oneshot {
            mode = Mode::Oneshot;
        }
    }
    // Registered for nothing, a level-triggered descriptor would still report a hang-up at every
    // wait.
    if all.is_none() {
        mode = Mode::Oneshot;
    }
    (all, mode)
}

/// Whether the descriptor of `job` is ready in a direction that `job` wants, by poll(2).
pub(super) fn is_ready(job: JobPtr) -> bool {
    let interest = interest(&job);
    let mut poll = libc::pollfd {
        fd: job.fd(),
        events: if interest.read() { libc::POLLIN } else { 0 }
            | if interest.write() { libc::POLLOUT } else { 0 },
        revents: 0,
    };
    // SAFETY: the pointer and the length describe one local pollfd.
    unsafe { libc::poll(&mut poll, 1, 0) > 0 }
}

impl EventLoop {
    /// Watch the descriptor and the time-out of `job`, an I/O job whose state is ARMED already.
    pub(super) fn watch_fd(&mut self, pool: &Shared, job: JobPtr) {
        job.mark(note::MAY_FIRE);
        self.start_timer(job);
        if !job.is(note::ATTACHED) {
            self.attach(pool, job);
        } else if !job.is(note::ORPHAN) {
            self.watch_attached(pool, job);
        } else if sys::is_open(job.fd()) {
            self.report_lost(pool, job);
        } else {
            self.fire_all_directions(pool, job);
        }
    }

    /// `job` ran in the loop and is armed again. The registration still includes it: until it ran,
    /// [`wanted`] counted it as armed, and while it ran, nobody compared. Nor does the loop check
    /// here whether the callback closed the descriptor; [`EventLoop::check_later`] arranges for
    /// that.
    pub(super) fn watch_again(&mut self, pool: &Shared, job: JobPtr) {
        let registration = pool.fds.entry(job.fd()).registration();
        let in_step = matches!(registration, Registration::Polled(_, Mode::Level));
        if in_step && job.notes.get() & (note::ORPHAN | note::UNVERIFIED) == note::UNVERIFIED {
            job.mark(note::MAY_FIRE);
            self.start_timer(job);
        } else {
            self.watch_again_slowly(pool, job, in_step);
        }
    }

    /// The uncommon cases of [`EventLoop::watch_again`].
    #[cold]
    #[inline(never)]
    fn watch_again_slowly(&mut self, pool: &Shared, job: JobPtr, in_step: bool) {
        if !in_step || job.is(note::ORPHAN) || job.is_unusual() {
            return self.watch(pool, job);
        }
        job.mark(note::MAY_FIRE);
        self.start_timer(job);
        self.check_later(pool, job);
    }

    /// Begin to watch the descriptor of `job`, which is ARMED, for the first time: tell the kernel, and
    /// learn whether the number still refers to the registered file.
    fn attach(&mut self, pool: &Shared, job: JobPtr) {
        job.mark(note::ATTACHED);
        let fd = job.fd();
        let entry = pool.fds.entry(fd);
        // The number was closed after the add.
        if job.trigger_part().seen.get() != entry.closes() {
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
                // The number now refers to another file; the jobs registered under it are orphans.
                Err(Refusal::Lost | Refusal::AlwaysReady | Refusal::Closed) => {
                    job.trigger_part().link.unlink();
                    self.orphan_all(pool, fd);
                    link(entry, job);
                }
            }
        }
        if before == Registration::Always {
            return self.attach_to_file(pool, job);
        }
        // The usual case: nothing is registered under the number yet.
        if let Err(refusal) = self.register_wanted(entry, fd) {
            self.refused(pool, fd, refusal, Some(job));
        }
    }

    /// Begin to watch the descriptor of `job` for the first time, when the number last referred to a file that is always ready.
    #[cold]
    #[inline(never)]
    fn attach_to_file(&mut self, pool: &Shared, job: JobPtr) {
        let fd = job.fd();
        let entry = pool.fds.entry(fd);
        let done = self.register(entry, fd, interest(&job), mode_of(&job), false);
        if done != Err(Refusal::AlwaysReady) {
            // The number refers to another file now, so the other jobs are orphans.
            let registration = entry.registration();
            job.trigger_part().link.unlink();
            self.orphan_all(pool, fd);
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

    /// Begin to watch the descriptor of `job` again. This makes no system call if the registration is already right.
    fn watch_attached(&mut self, pool: &Shared, job: JobPtr) {
        let fd = job.fd();
        let entry = pool.fds.entry(fd);
        let done = match entry.registration() {
            Registration::Always => return self.fire_all_directions(pool, job),
            // The retry timer tries all refused descriptors in turn.
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

    /// Fire `job` in all the directions that it wants, without asking the poller: its own reads and
    /// writes report the rest.
    pub(super) fn fire_all_directions(&mut self, pool: &Shared, job: JobPtr) {
        self.fire(pool, job, output(interest(&job)));
    }

    /// Register `fd`, which the poller does not have, for what its jobs want.
    pub(super) fn register_wanted(&mut self, entry: &Entry, fd: c_int) -> Result<(), Refusal> {
        let (interest, mode) = wanted(entry);
        self.register(entry, fd, interest, mode, false)
    }

    /// Register `fd` with the poller, and record that in `entry`. `known`: the poller has it
    /// already, so change that registration.
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
        // When it is ready, `on_ready` (below) gets this key, from `EventLoop::poll` (event/mod.rs).
        self.poller.arm(key, interest, mode, known)?;
        entry.set_registration(Registration::Polled(interest, mode));
        Ok(())
    }

    /// Whether an armed job waits for the descriptor of `entry`.
    pub(super) fn is_wanted(&self, entry: &Entry) -> bool {
        !wanted(entry).0.is_none()
    }

    /// Change the registration of `fd` if its jobs want something else now. False if there was
    /// nothing to change.
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

    /// Adapt the registration of `fd` to what its jobs want, after an event or a disposal: no job
    /// is being armed. This makes no system call if nothing has changed.
    pub(super) fn sync(&mut self, pool: &Shared, fd: c_int) {
        if let Err(refusal) = self.update(pool.fds.entry(fd), fd) {
            self.refused(pool, fd, refusal, None);
        }
    }

    /// Handle an event that [`EventLoop::poll`] took from the poller. Returns whether it changed anything:
    /// a job fired, or a registration changed.
    pub(super) fn on_ready(&mut self, pool: &Shared, key: Key, ready: Interest) -> bool {
        let entry = pool.fds.find(key.fd);
        let known = entry.filter(|entry| key.is_of(entry.serial()));
        let Some((entry, Registration::Polled(told, mode))) =
            known.map(|entry| (entry, entry.registration()))
        else {
            self.drop_stale(pool, key.fd);
            return true;
        };
        if ready.is_none() {
            // Urgent data alone does not make a descriptor readable, and it stays until it is read.
            // So switch to edge-triggered reports. The switch itself reports it once more.
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
        // A job that fired in the loop counts as armed until it has run, so the registration is
        // still right.
        if mode == Mode::Level && fired {
            return true;
        }
        self.sync(pool, key.fd);
        fired || entry.registration() != Registration::Polled(told, mode)
    }

    /// An event came for a registration that no job has: keep it from coming again.
    fn drop_stale(&mut self, pool: &Shared, fd: c_int) {
        let free = pool
            .fds
            .find(fd)
            .is_none_or(|entry| !matches!(entry.registration(), Registration::Polled(..)));
        // If the number now refers to another file, no number names the stale registration: only a
        // new poller gets rid of it.
        if !(free && self.poller.disarm(fd)) {
            self.stale = Some(Stale::Registration);
        }
    }

    /// Register all descriptors with a new poller.
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

    /// The part of disposal that concerns the descriptor of `job`: take it out of the poller, then
    /// close it unless the job has `NS_JOB_PRESERVE_FD`. False if a worker has to close it, and the
    /// rest of the disposal must wait for that.
    // Not inlined: timers are disposed of most often, and need not pay for its stack frame.
    #[must_use]
    #[inline(never)]
    pub(super) fn detach_io(&mut self, pool: &Shared, job: JobPtr) -> bool {
        let detached = self.take_out(pool, job);
        if detached {
            pool.slots.of_loop().count_disposed(Kind::Io);
        }
        detached
    }

    #[inline(always)]
    fn take_out(&mut self, pool: &Shared, job: JobPtr) -> bool {
        job.trigger_part().link.unlink();
        let fd = job.fd();
        let entry = pool.fds.entry(fd);
        // Another job of the pool or the application has closed the file. If the number is open, it
        // is not this job's to close.
        if job.is(note::ORPHAN) || job.trigger_part().seen.get() != entry.closes() {
            // Or a worker has closed it at our request.
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
            self.orphan_others(pool, fd);
        }
        perturb("out of the poller, and not closed");
        // Count before the close: as soon as it is closed, the system may reuse the number.
        entry.count_close();
        if pool.workers.load(Ordering::SeqCst) > 0 && sys::lingers(fd) {
            self.close_in_worker(pool, job);
            return false;
        }
        job.close();
        true
    }

    /// Pass `job`, which is out of the poller, its list and the wheel, to a worker that closes its
    /// descriptor. The close may block, and the loop must serve others meanwhile. The worker then
    /// sends the job back for the rest of its disposal.
    #[cold]
    #[inline(never)]
    fn close_in_worker(&mut self, pool: &Shared, job: JobPtr) {
        if job.is(note::READY) {
            // WORK stands for the ready list as well as for the work queue.
            self.lists().ready.remove(job);
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

    /// All workers have left: close the descriptors that they did not get to.
    #[cold]
    #[inline(never)]
    pub(super) fn close_left(&mut self, pool: &Shared) {
        // A worker sent back each job that it closed before it left, and the loop has taken those
        // requests. So every job that `closing` still counts is in the work queue.
        while self.closing > 0 {
            let Some(task) = pool.work.pop() else {
                debug_assert!(false, "counted, and not in the queue");
                return;
            };
            let group::TaskKind::Job(job) = task.kind() else {
                pool.work.push_quietly(task);
                continue;
            };
            if job.state.take_close() {
                job.close();
                self.dispose(pool, job);
            } else {
                // Not one of them: it stays in the queue until the pool is destroyed.
                pool.work.push_quietly(task);
            }
        }
    }
}
