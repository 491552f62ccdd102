// SPDX-License-Identifier: GPL-3.0-or-later
//! The wake pipe: how other threads, and signal handlers, get the loop out of its wait.
//!
//! The race this survives: the loop finds its queue empty and is about to sleep, a thread pushes,
//! the loop sleeps. The loop says that it sleeps and then looks at the queue again; the producer
//! pushes and then looks whether the loop sleeps. With a SeqCst fence between the two steps on
//! both sides at least one sees the other.
//!
//! Only the producer that takes the flag back writes a byte: a busy loop is written nothing, and
//! no more than one byte is written for each time that the loop was about to sleep, however many
//! push. A byte may come late, when the loop has long seen what it was written for; then the next
//! wait is over at once, and the loop looks for nothing. A byte may also stay for a while: a wait
//! that returns as many events as it has room for may leave the pipe's for the next, and the flag
//! is set anew over a byte that nobody has read, so that even a single thread may write twice. But
//! ready descriptors are reported in turn, and a few such waits later the pipe is among them and
//! emptied. So a handful of bytes is all that it ever holds: it does not fill up, and would not
//! block if it did.
//!
//! An end may be closed behind our back, by who closes all descriptors. The producer whose write
//! finds none says so, leaves the flag as it was, so that the next one tries again, and rouses the
//! loop by other means ([`Rouse`]); the loop makes a new pipe. A number that was closed and is in
//! use again gets a stray byte: to ask before each write would cost more than the write.

mod rouse;

use std::io;
use std::mem;
use std::sync::atomic::{AtomicI32, AtomicU64};

use libc::c_int;

use crate::fork;
use crate::perturb::perturb;
use crate::sync::{AtomicBool, Ordering, fence};
use crate::sys;
use rouse::Rouse;
pub(crate) use rouse::reaches;

/// Whether the loop sleeps, as both sides see it.
pub(crate) struct Sleeping(AtomicBool);

impl Sleeping {
    /// Awake.
    pub(crate) fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// The loop: say that it is about to sleep. True if it may: `idle` is asked afterwards.
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

    /// The loop: awake, for whatever reason.
    pub(crate) fn end(&self) {
        self.0.store(false, Ordering::Relaxed);
    }

    /// A producer that was the one to wake the loop, and could not: somebody else is to try.
    fn failed(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// A producer, after its push: whether it is the one to wake the loop.
    pub(crate) fn take(&self) -> bool {
        fence(Ordering::SeqCst);
        // Not a swap: one that comes too late would write, and what it wrote could hide that the
        // loop has gone to sleep again.
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
    /// The process whose loop reads it: see [`fork`].
    generation: u32,
    read: AtomicI32,
    write: AtomicI32,
    /// What both ends are, as the system tells them from everything else: device and inode.
    identity: [AtomicU64; 2],
    /// Somebody found that an end is gone, or another descriptor of the pool's.
    lost: AtomicBool,
    /// The loop is to look at more than its queues: the pool's life has moved on, or a descriptor
    /// of its own is gone.
    pub(crate) nudged: AtomicBool,
    /// It was said that the loop cannot be roused.
    pub(crate) hopeless: AtomicBool,
    pub(crate) rouse: Rouse,
}

/// How a wait on the pipe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    /// A byte is there, the time is up, or a signal came.
    Yes,
    /// There is no pipe.
    Lost,
}

/// A pipe, neither end of which blocks or survives an exec, nor is a standard stream.
fn pipe() -> io::Result<[c_int; 2]> {
    let _low = sys::LowNumbers::take();
    let mut ends = [-1; 2];
    #[cfg(not(target_os = "macos"))]
    // SAFETY: room for two descriptors.
    if unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) } != 0 {
        return Err(io::Error::last_os_error());
    }
    #[cfg(target_os = "macos")]
    // SAFETY: room for two descriptors, and plain calls on them.
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

/// Device and inode of what `fd` stands for; `None` if it is not open.
fn identity(fd: c_int) -> Option<[u64; 2]> {
    // SAFETY: all zero is memory for fstat to fill; it takes any number.
    unsafe {
        let mut status: libc::stat = mem::zeroed();
        (libc::fstat(fd, &mut status) == 0).then_some([status.st_dev as u64, status.st_ino as u64])
    }
}

impl Wake {
    /// Make the pipe.
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

    /// The caller is the one to wake the loop: write a byte. False if there is no pipe to do that
    /// with: then it is for [`Rouse::rouse`] to do. Async-signal-safe; may change errno.
    pub(crate) fn write(&self) -> bool {
        // A call that a forking handler has interrupted may go on in the child: the pipe is the
        // parent's there.
        if fork::is_over(self.generation) || sys::write_byte(self.write_end()) {
            return true;
        }
        self.lost.store(true, Ordering::SeqCst);
        self.sleeping.failed();
        false
    }

    /// The loop: empty the pipe. False if an end of it is gone.
    pub(crate) fn clear(&self) -> bool {
        let mut bytes = [0u8; 64];
        // SAFETY: room for what is asked for. A pipe with more in it is still readable and is
        // read again.
        let got = unsafe { libc::read(self.read_end(), bytes.as_mut_ptr().cast(), bytes.len()) };
        // The end of the pipe, or none: somebody closed the other end, or this.
        if got == 0 || got < 0 && sys::errno() == libc::EBADF {
            self.lost.store(true, Ordering::SeqCst);
            return false;
        }
        true
    }

    /// The loop: whether it is known that the pipe, or another descriptor, is gone.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::SeqCst)
    }

    /// Block until a byte is there, or `timeout` milliseconds have passed if it is not negative.
    /// Only this descriptor is looked at.
    pub(crate) fn wait(&self, timeout: c_int) -> Woken {
        let mut poll = libc::pollfd {
            fd: self.read_end(),
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd of ours. An interrupted call is as good as a wake.
        unsafe { libc::poll(&mut poll, 1, timeout) };
        if poll.revents & (libc::POLLNVAL | libc::POLLHUP | libc::POLLERR) != 0 || self.is_lost() {
            Woken::Lost
        } else {
            Woken::Yes
        }
    }

    /// Somebody found that a descriptor of the pool's is gone. The loop is to be woken for it.
    pub(crate) fn lose(&self) {
        self.lost.store(true, Ordering::SeqCst);
    }

    /// Whether `fd` is an end of the pipe.
    pub(crate) fn is_ours(&self, fd: c_int) -> bool {
        identity(fd) == Some([0, 1].map(|part| self.identity[part].load(Ordering::Relaxed)))
    }

    /// The loop: make a new pipe, if an end of this one is gone. Returns whether one was made. An
    /// end that is still ours keeps its number, so that nobody writes to one that is closed.
    pub(crate) fn mend(&self) -> io::Result<bool> {
        let old = [&self.read, &self.write].map(|end| end.load(Ordering::Relaxed));
        let ours = old.map(|end| self.is_ours(end));
        if ours == [true; 2] {
            self.lost.store(false, Ordering::SeqCst);
            return Ok(false);
        }
        let new = pipe()?;
        for (at, end) in [&self.read, &self.write].into_iter().enumerate() {
            // SAFETY: both are ours.
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

    /// Close both ends, but no number that stands for something else by now.
    pub(crate) fn close(&self) {
        for end in [self.write_end(), self.read_end()] {
            if self.is_ours(end) {
                sys::close(end);
            }
        }
    }
}

/// Have the number `old` stand for what `new` stands for.
///
/// # Safety
/// `old` is the caller's.
unsafe fn replace(new: c_int, old: c_int) -> bool {
    #[cfg(target_os = "linux")]
    // SAFETY: by the caller's promise.
    unsafe {
        libc::dup3(new, old, libc::O_CLOEXEC) == old
    }
    #[cfg(not(target_os = "linux"))]
    // SAFETY: as above.
    unsafe {
        libc::dup2(new, old) == old && libc::fcntl(old, libc::F_SETFD, libc::FD_CLOEXEC) == 0
    }
}
