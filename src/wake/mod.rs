// SPDX-License-Identifier: GPL-3.0-or-later
//! The wake pipe: how other threads, and signal handlers, wake the loop.
//!
//! The race that it handles: the loop finds its queue empty and is about to sleep, a thread pushes,
//! the loop sleeps. The loop sets the flag [`Sleeping`] and then looks at the queue again. The
//! producer pushes and then reads the flag. Both sides put a SeqCst fence between the two steps, so
//! at least one sees the other.
//!
//! Only the producer that clears the flag writes a byte. Nobody writes to a busy loop, and each
//! time that the loop goes to sleep costs at most one byte, however many threads push.
//!
//! A byte may come late, after the loop has seen the item that it was written for. Then the next
//! wait ends at once and the loop finds nothing to do. A byte may also stay in the pipe for a
//! while. A wait that returns as many events as it has room for may leave the pipe's event to the
//! next wait; meanwhile the loop sets the flag again over an unread byte, so even a single thread
//! may write twice. But the poller reports ready descriptors in turn: a few such waits later the
//! pipe is among them, and the loop empties it. So the pipe never holds more than a handful of
//! bytes. It does not fill up, and a write would not block if it did.
//!
//! A program that closes all descriptors may close an end of the pipe. The producer whose write
//! then fails marks the pipe as lost, sets the flag again so that the next producer tries too, and
//! interrupts the loop by other means ([`Rouse`]). The loop then makes a new pipe. If a closed
//! number is in use again, the new file gets a stray byte: a check before each write would cost
//! more than the write.

mod rouse;
mod wait_fd;

use std::io;
use std::mem;
use std::sync::atomic::{AtomicI32, AtomicU64};

use libc::c_int;

use crate::fork;
use crate::perturb::perturb;
#[cfg(ns_probes)]
use crate::probe::{field, probe, value};
use crate::sync::{AtomicBool, Ordering, fence};
use crate::sys;
use rouse::Rouse;
pub(crate) use rouse::reaches;
#[cfg(target_os = "linux")]
pub(crate) use rouse::when_roused;
pub(crate) use wait_fd::WaitFd;

/// The flag that says whether the loop sleeps.
pub(crate) struct Sleeping(AtomicBool);

impl Sleeping {
    /// The loop is awake.
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Called by the loop when it is about to sleep: sets the flag and then calls `idle`. Returns
    /// what `idle` returned: true if the loop may sleep.
    pub(crate) fn begin(&self, idle: impl FnOnce() -> bool) -> bool {
        self.0.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        perturb("said to sleep, and not looked once more");
        let sleep = idle();
        if !sleep {
            self.end();
        }
        sleep
    }

    /// Called by the loop when it is awake, for whatever reason.
    pub(crate) fn end(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// Whether the loop sleeps, or is about to.
    pub(crate) fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Called by a producer that had to wake the loop and failed: the next producer must try.
    fn failed(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Called by a producer after its push. Returns whether this producer must wake the loop.
    pub(crate) fn take(&self) -> bool {
        fence(Ordering::SeqCst);
        // Not a swap: a late swap would write false all the same, and could hide that the loop has
        // gone to sleep again.
        self.0.load(Ordering::Relaxed)
            && self
                .0
                .compare_exchange(true, false, Ordering::AcqRel, Ordering::Relaxed)
                .is_ok()
    }
}

/// The pipe and the flag.
pub(crate) struct Wake {
    pub(crate) sleeping: Sleeping,
    /// The process whose loop reads the pipe: see [`fork`].
    generation: u32,
    read: AtomicI32,
    write: AtomicI32,
    /// The device and inode of the pipe, which both ends share. They identify it among all files.
    identity: [AtomicU64; 2],
    /// A thread has found that an end of the pipe, or another descriptor of the pool, is closed.
    lost: AtomicBool,
    /// The loop must look at more than its queues: the pool's life cycle has moved on, or one of
    /// the pool's own descriptors is closed.
    pub(crate) nudged: AtomicBool,
    /// The log has said that nothing can wake the loop.
    pub(crate) hopeless: AtomicBool,
    pub(crate) rouse: Rouse,
}

/// How a wait on the pipe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// A byte has arrived, the timeout has expired, or a signal has come.
    Yes,
    /// An end of the pipe is closed.
    Lost,
}

/// Makes a pipe whose ends do not block, close on exec, and have no number of a standard stream.
fn pipe() -> io::Result<[c_int; 2]> {
    let _low = sys::LowNumbers::take();
    let mut ends = [-1; 2];
    #[cfg(not(target_os = "macos"))]
    // SAFETY: the array has room for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    #[cfg(target_os = "macos")]
    // SAFETY: the array has room for two descriptors; the other calls take plain numbers.
    unsafe {
        if libc::pipe(ends.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        for end in ends {
            libc::fcntl(end, libc::F_SETFD, libc::FD_CLOEXEC);
            libc::fcntl(end, libc::F_SETFL, libc::O_NONBLOCK);
        }
    }
    Ok(ends)
}

/// The device and inode of the file behind `fd`; `None` if `fd` is not open.
fn identity(fd: c_int) -> Option<[u64; 2]> {
    // SAFETY: zeroed memory is a valid `stat`, which fstat overwrites; fstat accepts any number.
    unsafe {
        let mut status: libc::stat = mem::zeroed();
        (libc::fstat(fd, &mut status) == 0).then_some([status.st_dev as u64, status.st_ino as u64])
    }
}

impl Wake {
    /// Makes the pipe.
    pub(crate) fn new() -> io::Result<Self> {
        let [read, write] = pipe()?;
        Ok(Self {
            sleeping: Sleeping::new(),
            generation: fork::generation(),
            read: AtomicI32::new(read),
            write: AtomicI32::new(write),
            identity: identity(read).unwrap_or_default().map(AtomicU64::new),
            lost: AtomicBool::new(false),
            nudged: AtomicBool::new(false),
            hopeless: AtomicBool::new(false),
            rouse: Rouse::new(),
        })
    }

    /// The end that the loop polls.
    pub(crate) fn read_end(&self) -> c_int {
        self.read.load(Ordering::Relaxed)
    }

    /// The end that producers write to.
    pub(crate) fn write_end(&self) -> c_int {
        self.write.load(Ordering::Relaxed)
    }

    /// Wakes the loop with a byte. The caller is the producer that has cleared the flag. Returns
    /// false if the pipe is closed; the caller must then use [`Rouse::rouse`]. Async-signal-safe;
    /// may change errno.
    ///
    /// `pool` is for tracers; null in a signal handler, which knows none.
    pub(crate) fn write<P>(&self, pool: *const P) -> bool {
        self.tell_tracers(pool);
        // A signal handler that interrupts this call may fork, and the call may go on in the child.
        // There the pipe is the parent's.
        if fork::is_over(self.generation) || sys::write_byte(self.write_end()) {
            return true;
        }
        self.lost.store(true, Ordering::SeqCst);
        self.sleeping.failed();
        false
    }

    /// The probe of a byte that is about to be written.
    #[inline(always)]
    fn tell_tracers<P>(&self, pool: *const P) {
        #[cfg(ns_probes)]
        probe!(
            "wake_written",
            [value!("8", "pool"), field!("-4", "fd", "wake")],
            pool = in(reg) pool,
            wake = in(reg) self,
            fd = const std::mem::offset_of!(Self, write)
        );
        let _ = pool;
    }

    /// Called by the loop: empties the pipe. Returns false if an end is closed.
    pub(crate) fn clear(&self) -> bool {
        let mut bytes = [0u8; 64];
        // SAFETY: the buffer has the size that is passed. If the pipe holds more, it stays readable
        // and the loop reads it again.
        let got = unsafe { libc::read(self.read_end(), bytes.as_mut_ptr().cast(), bytes.len()) };
        // Zero means that somebody closed the write end, EBADF that somebody closed the read end.
        if got == 0 || got < 0 && sys::errno() == libc::EBADF {
            self.lost.store(true, Ordering::SeqCst);
            return false;
        }
        true
    }

    /// Called by the loop: whether a thread has found that the pipe, or another descriptor of the
    /// pool, is closed.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// Blocks until a byte arrives, or until `timeout` milliseconds have passed; a negative timeout
    /// never expires. Watches the pipe and no other descriptor.
    pub(crate) fn wait(&self, timeout: c_int) -> Woken {
        let mut poll = libc::pollfd {
            fd: self.read_end(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: we pass one pollfd, which lives on our stack. An interrupted call counts as a
        // wake.
        unsafe { libc::poll(&mut poll, 1, timeout) };
        if poll.revents & (libc::POLLNVAL | libc::POLLHUP | libc::POLLERR) != 0 || self.is_lost() {
            Woken::Lost
        } else {
            Woken::Yes
        }
    }

    /// Records that a descriptor of the pool is closed. The caller must then wake the loop.
    pub(crate) fn lose(&self) {
        self.lost.store(true, Ordering::SeqCst);
    }

    /// Whether `fd` is an end of this pipe.
    pub(crate) fn is_ours(&self, fd: c_int) -> bool {
        identity(fd) == Some([0, 1].map(|part| self.identity[part].load(Ordering::Relaxed)))
    }

    /// Called by the loop: makes a new pipe if an end of this one is closed, and returns whether it
    /// made one. An end that is still open keeps its number, so that no producer writes to a closed
    /// one.
    pub(crate) fn mend(&self) -> io::Result<bool> {
        let old = [&self.read, &self.write].map(|end| end.load(Ordering::Relaxed));
        let ours = old.map(|end| self.is_ours(end));
        if ours == [true; 2] {
            self.lost.store(false, Ordering::SeqCst);
            return Ok(false);
        }
        let new = pipe()?;
        for (at, end) in [&self.read, &self.write].into_iter().enumerate() {
            // SAFETY: both numbers belong to this pipe: we just made `new`, and `is_ours` has
            // checked `old`.
            if ours[at] && unsafe { replace(new[at], old[at]) } {
                sys::close(new[at]);
            } else {
                end.store(new[at], Ordering::Relaxed);
            }
        }
        for (part, value) in identity(self.read_end())
            .unwrap_or_default()
            .into_iter()
            .enumerate()
        {
            self.identity[part].store(value, Ordering::Relaxed);
        }
        self.lost.store(false, Ordering::SeqCst);
        Ok(true)
    }

    /// Closes both ends. Skips a number that refers to another file by now.
    pub(crate) fn close(&self) {
        for end in [self.write_end(), self.read_end()] {
            if self.is_ours(end) {
                sys::close(end);
            }
        }
    }
}

/// Makes the number `old` refer to the file behind `new`.
///
/// # Safety
/// The caller owns the number `old`.
unsafe fn replace(new: c_int, old: c_int) -> bool {
    #[cfg(target_os = "linux")]
    // SAFETY: the caller owns `old`.
    unsafe {
        libc::dup3(new, old, libc::O_CLOEXEC) == old
    }
    #[cfg(not(target_os = "linux"))]
    // SAFETY: the caller owns `old`.
    unsafe {
        libc::dup2(new, old) == old && libc::fcntl(old, libc::F_SETFD, libc::FD_CLOEXEC) == 0
    }
}
