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

use std::io;

use libc::c_int;

use crate::fork;
use crate::perturb::perturb;
use crate::sync::{AtomicBool, Ordering, fence};
use crate::sys;

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
    read: c_int,
    write: c_int,
}

impl Wake {
    /// Make the pipe: neither end blocks, neither survives an exec.
    pub(crate) fn new() -> io::Result<Self> {
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
        Ok(Self {
            sleeping: Sleeping::new(),
            generation: fork::generation(),
            read: ends[0],
            write: ends[1],
        })
    }

    /// The end that the loop polls.
    pub(crate) fn read_end(&self) -> c_int {
        self.read
    }

    /// After a push: get the loop out of its wait, if it is in one. Async-signal-safe; may change
    /// errno.
    pub(crate) fn wake(&self) {
        // A call that a forking handler has interrupted may go on in the child: the pipe is the
        // parent's there.
        if self.sleeping.take() && !fork::is_over(self.generation) {
            sys::write_byte(self.write);
        }
    }

    /// The loop: empty the pipe.
    pub(crate) fn clear(&self) {
        let mut bytes = [0u8; 64];
        // SAFETY: room for what is asked for. A pipe with more in it is still readable and is
        // read again.
        unsafe { libc::read(self.read, bytes.as_mut_ptr().cast(), bytes.len()) };
    }

    /// Block until a byte is there. Only this descriptor is looked at.
    pub(crate) fn wait(&self) {
        let mut poll = libc::pollfd {
            fd: self.read,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one pollfd of ours. An interrupted call is as good as a wake.
        unsafe { libc::poll(&mut poll, 1, -1) };
    }

    /// Close both ends.
    pub(crate) fn close(&self) {
        sys::close(self.write);
        sys::close(self.read);
    }
}
