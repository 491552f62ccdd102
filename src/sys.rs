// SPDX-License-Identifier: GPL-3.0-or-later
//! The few system facilities that every module may need: errno, cancellation, the clock, closing
//! a descriptor. None of them is a POSIX cancellation point.

use std::marker::PhantomData;

use libc::{c_int, c_void};

/// Puts errno back when it goes.
pub(crate) struct ErrnoGuard(c_int);

#[cfg(any(target_os = "linux", target_os = "emscripten", target_os = "redox"))]
use libc::__errno_location as errno_location;

#[cfg(any(target_os = "macos", target_os = "ios", target_os = "freebsd"))]
use libc::__error as errno_location;

#[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))]
use libc::__errno as errno_location;

/// The calling thread's errno.
pub(crate) fn errno() -> c_int {
    // SAFETY: the C library's own, valid for the life of the thread.
    unsafe { *errno_location() }
}

impl ErrnoGuard {
    /// Remember errno as it is now.
    pub(crate) fn new() -> Self {
        Self(errno())
    }
}

impl Drop for ErrnoGuard {
    fn drop(&mut self) {
        // SAFETY: as in `errno`.
        unsafe { *errno_location() = self.0 };
    }
}

unsafe extern "C" {
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

/// `PTHREAD_CANCEL_DISABLE`, which the libc crate does not carry.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const CANCEL_DISABLE: c_int = 1;
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
const CANCEL_DISABLE: c_int = 0;

/// While it lives, the calling thread cannot be cancelled.
pub(crate) struct CancelGuard {
    old: c_int,
    /// It must go on the thread that made it.
    here: PhantomData<*const ()>,
}

impl CancelGuard {
    /// Disable cancellation of the calling thread.
    pub(crate) fn new() -> Self {
        let mut old = 0;
        // SAFETY: a plain call; `old` is ours.
        unsafe { pthread_setcancelstate(CANCEL_DISABLE, &mut old) };
        Self {
            old,
            here: PhantomData,
        }
    }
}

impl Drop for CancelGuard {
    fn drop(&mut self) {
        let mut unused = 0;
        // SAFETY: a plain call, with the state that was there before.
        unsafe { pthread_setcancelstate(self.old, &mut unused) };
    }
}

/// The monotonic clock, in nanoseconds.
pub(crate) fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the clock exists everywhere; `time` is ours.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Whether `fd` is an open descriptor of this process.
pub(crate) fn is_open(fd: c_int) -> bool {
    // SAFETY: F_GETFD takes any number.
    fd >= 0 && unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0
}

/// Whether closing `fd` may block, until its peer has taken what was sent: a socket that is to linger.
pub(crate) fn lingers(fd: c_int) -> bool {
    let mut linger = libc::linger {
        l_onoff: 0,
        l_linger: 0,
    };
    let mut len = size_of::<libc::linger>() as libc::socklen_t;
    let at: *mut c_void = (&raw mut linger).cast();
    // SAFETY: room for the option's value, and its length. What is no socket has no such option.
    let error =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, at, &raw mut len) };
    // Without a time to linger for, close drops what was not sent, at once.
    error == 0 && linger.l_onoff != 0 && linger.l_linger != 0
}

/// Close `fd`, once: on Linux a close that was interrupted has closed.
pub(crate) fn close(fd: c_int) {
    // The raw call, since close(2) of the C library is a cancellation point.
    #[cfg(target_os = "linux")]
    // SAFETY: the caller owns the descriptor.
    unsafe {
        libc::syscall(libc::SYS_close, fd)
    };
    #[cfg(not(target_os = "linux"))]
    {
        let _cancel = CancelGuard::new();
        // SAFETY: the caller owns the descriptor.
        unsafe { libc::close(fd) };
    }
}

/// Write to the standard error output, as well as that goes: at once, whole or not at all where it
/// is a pipe. Without SIGPIPE; changes errno. The caller has disabled cancellation.
pub(crate) fn write_stderr(text: &[u8]) {
    // SAFETY: sets of ours, and a text of that length. SIGPIPE for a write comes to the thread that
    // writes, where it is blocked, and is taken away unless one was pending before.
    unsafe {
        let mut pipe: libc::sigset_t = std::mem::zeroed();
        let mut old = pipe;
        libc::sigemptyset(&mut pipe);
        libc::sigaddset(&mut pipe, libc::SIGPIPE);
        libc::pthread_sigmask(libc::SIG_BLOCK, &pipe, &mut old);
        let was_pending = sigpipe_is_pending();
        let written = libc::write(libc::STDERR_FILENO, text.as_ptr().cast(), text.len());
        if written < 0 && errno() == libc::EPIPE && !was_pending && sigpipe_is_pending() {
            let mut signal = 0;
            libc::sigwait(&pipe, &mut signal);
        }
        libc::pthread_sigmask(libc::SIG_SETMASK, &old, std::ptr::null_mut());
    }
}

fn sigpipe_is_pending() -> bool {
    // SAFETY: a set of ours.
    unsafe {
        let mut pending: libc::sigset_t = std::mem::zeroed();
        libc::sigpending(&mut pending);
        libc::sigismember(&pending, libc::SIGPIPE) == 1
    }
}

/// Write one byte to a pipe that does not block. False if there is no such pipe any more.
/// Async-signal-safe; changes errno.
pub(crate) fn write_byte(fd: c_int) -> bool {
    let byte = 1u8;
    let at: *const c_void = std::ptr::from_ref(&byte).cast();
    #[cfg(target_os = "linux")]
    // SAFETY: one byte of ours; the raw call, since write(2) is a cancellation point.
    let written = unsafe { libc::syscall(libc::SYS_write, fd, at, 1usize) };
    #[cfg(not(target_os = "linux"))]
    let written = {
        let _cancel = CancelGuard::new();
        // SAFETY: one byte of ours.
        unsafe { libc::write(fd, at, 1) }
    };
    // A full pipe is fine: whoever reads it has a byte to find.
    written >= 0 || !matches!(errno(), libc::EBADF | libc::EPIPE)
}

/// While it lives, 0, 1 and 2 are taken, so that no descriptor that is opened gets one of these
/// numbers: a program that has closed them, or its library, takes them for the standard streams.
pub(crate) struct LowNumbers([c_int; 3]);

impl LowNumbers {
    /// Take those that are free. Where the system lets nothing be opened for that, what comes next
    /// fails for the same reason.
    pub(crate) fn take() -> Self {
        let mut taken = Self([-1; 3]);
        for place in &mut taken.0 {
            #[cfg(target_os = "linux")]
            // SAFETY: a plain call.
            let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
            #[cfg(not(target_os = "linux"))]
            // SAFETY: a path of ours.
            let fd = unsafe { libc::open(c"/".as_ptr(), libc::O_RDONLY | libc::O_CLOEXEC) };
            if fd > 2 {
                close(fd);
            }
            if !(0..=2).contains(&fd) {
                break;
            }
            *place = fd;
        }
        taken
    }
}

impl Drop for LowNumbers {
    fn drop(&mut self) {
        for fd in self.0 {
            if fd >= 0 {
                close(fd);
            }
        }
    }
}
