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

use super::EventLoop;
use super::fds::{Entry, Interest, Mode, Registration};
use super::poller::{Key, Poller, Refusal};
use crate::capi::{
    NS_JOB_ACCEPT, NS_JOB_CONNECT, NS_JOB_PRESERVE_FD, NS_JOB_READ, NS_JOB_THREAD, NS_JOB_WRITE,
    ns_job_type_t,
};
use crate::job::{Job, JobPtr, place};
use crate::log::log;
use crate::nspr;
use crate::shared::Shared;
use crate::sys;

/// The directions that `job` asks for.
fn interest(job: &Job) -> Interest {
    Interest {
        read: job.has(NS_JOB_ACCEPT | NS_JOB_READ),
        write: job.has(NS_JOB_CONNECT | NS_JOB_WRITE),
    }
}

/// Directions as an output type.
fn output(directions: Interest) -> ns_job_type_t {
    (if directions.read { NS_JOB_READ } else { 0 })
        | (if directions.write { NS_JOB_WRITE } else { 0 })
}

/// Each job in the list of `entry`. The body may unlink the job that it is given.
fn jobs(entry: &Entry) -> impl Iterator<Item = JobPtr> {
    let mut node = entry.jobs.first();
    std::iter::from_fn(move || {
        if node.is_null() {
            return None;
        }
        // SAFETY: a node of this list is that of a live job.
        let job = unsafe { JobPtr::of_link(node) };
        node = job.link.next();
        Some(job)
    })
}

/// How the poller is to report for `job` alone.
fn mode_of(job: &Job) -> Mode {
    if job.has(NS_JOB_THREAD) {
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
    for job in jobs(entry).filter(|job| job.is(place::LIVE | place::READY)) {
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

impl EventLoop {
    /// An I/O job is ARMED: have it wait for its descriptor and its time.
    pub(super) fn arm_io(&mut self, pool: &Shared, job: JobPtr) {
        job.mark(place::LIVE);
        self.start_timer(job);
        if !job.is(place::ATTACHED) {
            self.attach(pool, job);
        } else if !job.is(place::ORPHAN) {
            self.sync(pool, job.fd());
        } else if !sys::is_open(job.fd()) {
            self.fire(pool, job, output(interest(&job)));
        }
    }

    /// The first arming of `job`: tell the kernel, and learn whether the number still means what
    /// it meant.
    fn attach(&mut self, pool: &Shared, job: JobPtr) {
        job.mark(place::ATTACHED);
        let fd = job.fd();
        let entry = pool.fds.entry(fd);
        if job.seen.get() != entry.closes.load(Ordering::SeqCst) {
            log!(
                pool.logger,
                LOG_WARNING,
                "event loop: descriptor {fd} was closed by another job before this one was armed"
            );
            self.orphan(job);
            return;
        }
        // SAFETY: not linked; the job's disposal unlinks it.
        unsafe { entry.jobs.push(&raw const job.link) };
        if matches!(entry.registration(), Registration::Polled(..)) {
            let (interest, mode) = wanted(entry);
            match self.register(entry, fd, interest, mode, true) {
                Err(Refusal::Unknown) => {}
                done => return self.settle(pool, fd, done),
            }
        }
        // Nothing is registered under the number, or it was a file's: unless it still is one,
        // the jobs that had the number have lost what it stood for.
        job.link.unlink();
        let done = self.register(entry, fd, interest(&job), mode_of(&job), false);
        if done != Err(Refusal::AlwaysReady) {
            self.orphan_all(entry);
        }
        // SAFETY: just unlinked.
        unsafe { entry.jobs.push(&raw const job.link) };
        self.settle(pool, fd, done);
    }

    /// Tell the poller, and note what it knows then.
    fn register(
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

    /// Deal with what the poller said to a registration of `fd`.
    fn settle(&mut self, pool: &Shared, fd: c_int, done: Result<(), Refusal>) {
        let entry = pool.fds.entry(fd);
        match done {
            Ok(()) => {}
            Err(Refusal::AlwaysReady) => {
                entry.set_registration(Registration::Always);
                self.fire_all(pool, entry);
            }
            Err(Refusal::Unknown) => {
                self.abandon(pool, fd);
            }
            Err(Refusal::Closed) => {
                log!(
                    pool.logger,
                    LOG_WARNING,
                    "event loop: descriptor {fd} is not open any more"
                );
                self.fire_all(pool, entry);
                self.abandon(pool, fd);
            }
            Err(Refusal::Failed(errno)) => {
                log!(
                    pool.logger,
                    LOG_ERR,
                    "event loop: the poller refuses descriptor {fd}: {}",
                    std::io::Error::from_raw_os_error(errno)
                );
                entry.set_registration(Registration::Always);
                self.fire_all(pool, entry);
            }
        }
    }

    /// Bring the poller in step with what the jobs of `fd` want. No system call if it is.
    pub(super) fn sync(&mut self, pool: &Shared, fd: c_int) {
        let entry = pool.fds.entry(fd);
        match entry.registration() {
            Registration::Absent => {}
            Registration::Always => self.fire_all(pool, entry),
            Registration::Polled(told, mode) => {
                let want = wanted(entry);
                let same = want == (told, mode);
                if same || want.0.is_none() && told.is_none() {
                    return;
                }
                let done = self.register(entry, fd, want.0, want.1, true);
                self.settle(pool, fd, done);
            }
        }
    }

    /// An event came. Returns how many jobs it fires.
    pub(super) fn on_ready(&mut self, pool: &Shared, key: Key, ready: Interest) -> usize {
        let entry = pool.fds.find(key.fd);
        let known = entry.filter(|entry| entry.serial() == key.serial);
        let Some((entry, Registration::Polled(told, mode))) =
            known.map(|entry| (entry, entry.registration()))
        else {
            self.drop_stale(pool, key.fd);
            return 0;
        };
        if ready.is_none() {
            // Urgent data alone is not for reading. It stays until it is read, so be told of
            // changes only; which registering reports it once more.
            if mode != Mode::Edge {
                let done = self.register(entry, key.fd, told, Mode::Edge, true);
                self.settle(pool, key.fd, done);
            }
            return 0;
        }
        if mode == Mode::Oneshot {
            entry.set_registration(Registration::Polled(Interest::NONE, mode));
        }
        let mut fired = 0;
        for job in jobs(entry) {
            let directions = interest(&job).and(ready);
            if job.is(place::LIVE) && !directions.is_none() {
                self.fire(pool, job, output(directions));
                fired += 1;
            }
        }
        self.sync(pool, key.fd);
        fired
    }

    /// An event of a registration that no job has: see to it that it does not come again.
    fn drop_stale(&mut self, pool: &Shared, fd: c_int) {
        let free = pool
            .fds
            .find(fd)
            .is_none_or(|entry| !matches!(entry.registration(), Registration::Polled(..)));
        // If the number stands for something else now, the registration can't be named any more.
        if !(free && self.poller.disarm(fd)) {
            self.poller_is_stale = true;
        }
    }

    /// Register everything with a new poller.
    pub(super) fn register_all(&mut self, pool: &Shared) {
        for (fd, entry) in pool.fds.entries() {
            if let Registration::Polled(..) = entry.registration() {
                let (interest, mode) = wanted(entry);
                let done = self.register(entry, fd, interest, mode, false);
                self.settle(pool, fd, done);
            }
        }
    }

    /// Fire every armed job of `entry` in all the directions that it asks for.
    fn fire_all(&mut self, pool: &Shared, entry: &Entry) {
        for job in jobs(entry).filter(|job| job.is(place::LIVE)) {
            self.fire(pool, job, output(interest(&job)));
        }
    }

    /// What the jobs of `fd` were made for is gone, and so is the registration. Returns how many
    /// jobs there were.
    fn abandon(&mut self, pool: &Shared, fd: c_int) -> usize {
        let entry = pool.fds.entry(fd);
        entry.set_registration(Registration::Absent);
        self.orphan_all(entry)
    }

    /// What the jobs of `entry` were made for is gone. They can fire by time only, and none of
    /// them closes the number.
    fn orphan_all(&mut self, entry: &Entry) -> usize {
        let mut count = 0;
        for job in jobs(entry) {
            job.link.unlink();
            self.orphan(job);
            count += 1;
        }
        count
    }

    /// `job`, which is in no list, has lost its descriptor.
    fn orphan(&mut self, job: JobPtr) {
        job.mark(place::ORPHAN);
        // SAFETY: not linked; the job's disposal unlinks it.
        unsafe { self.strays.push(&raw const job.link) };
    }

    /// `job` is disposed of: out of the poller first, then its descriptor is closed, unless it is
    /// to be preserved.
    pub(super) fn detach_io(&mut self, pool: &Shared, job: JobPtr) {
        job.link.unlink();
        let fd = job.fd();
        let entry = pool.fds.entry(fd);
        // Closed by another job of the pool, or found closed: the number is somebody else's.
        if job.is(place::ORPHAN) || job.seen.get() != entry.closes.load(Ordering::SeqCst) {
            return;
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
            return;
        }
        if registered {
            self.poller.disarm(fd);
        }
        let others = self.abandon(pool, fd);
        if others > 0 {
            log!(
                pool.logger,
                LOG_WARNING,
                "event loop: descriptor {fd} is closed with its first job, {others} more had it"
            );
        }
        // Before the close: the number may be given out again at once.
        entry.closes.fetch_add(1, Ordering::SeqCst);
        if job.prfd().is_null() {
            sys::close(fd);
        } else {
            // SAFETY: it was open when the job was made, and is the library's to close since.
            unsafe { nspr::close(job.prfd()) };
        }
    }
}
