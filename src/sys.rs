// SPDX-License-Identifier: GPL-3.0-or-later
//! Small system facilities that every module may need: errno, cancellation, the clock, closing a
//! descriptor. None of these functions is a POSIX cancellation point.

use std::ffi::CStr;
use std::marker::PhantomData;

use libc::{c_int, c_void};

/// Restores errno when it is dropped.
pub(crate) struct ErrnoGuard(c_int);

#[cfg(any(target_os = "linux", target_os = "emscripten", target_os = "redox"))]
use libc::__errno_location as errno_location;

#[cfg(any(target_os = "macos", target_os = "ios", target_os = "freebsd"))]
use libc::__error as errno_location;

#[cfg(any(target_os = "android", target_os = "netbsd", target_os = "openbsd"))]
use libc::__errno as errno_location;

/// Set the calling thread's errno.
#[cfg(target_os = "linux")]
pub(crate) fn set_errno(errno: c_int) {
    // SAFETY: the pointer is to this thread's own.
    unsafe { *errno_location() = errno };
}

/// The calling thread's errno.
pub(crate) fn errno() -> c_int {
    // SAFETY: the C library's pointer is valid for the life of the thread.
    unsafe { *errno_location() }
}

impl ErrnoGuard {
    /// Save the current errno.
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

/// `PTHREAD_CANCEL_DISABLE`, which the libc crate does not define.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
const CANCEL_DISABLE: c_int = 1;
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
const CANCEL_DISABLE: c_int = 0;

/// The calling thread cannot be cancelled while this guard exists.
pub(crate) struct CancelGuard {
    old: c_int,
    /// Makes the guard `!Send`: the thread that made it must drop it.
    here: PhantomData<*const ()>,
}

impl CancelGuard {
    /// Disable cancellation of the calling thread.
    pub(crate) fn new() -> Self {
        let mut old = 0;
        // SAFETY: the call writes only to `old`.
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
        // SAFETY: the call gets the state that was in force before, and writes only to `unused`.
        unsafe { pthread_setcancelstate(self.old, &mut unused) };
    }
}

/// The monotonic clock, in nanoseconds.
pub(crate) fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: every system has this clock; the call writes only to `time`.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// `nanoseconds` as the system takes them; if that has 32 bits for seconds, no more than fit.
pub(crate) fn timespec(nanoseconds: u64) -> libc::timespec {
    let most = if size_of::<libc::timespec>() == 8 {
        i32::MAX as u64
    } else {
        u64::MAX
    };
    libc::timespec {
        tv_sec: (nanoseconds / 1_000_000_000).min(most) as _,
        tv_nsec: (nanoseconds % 1_000_000_000) as libc::c_long,
    }
}

/// What the environment says of `name`; nothing in a program with privileges of its own. Valid until
/// the application changes its environment.
pub(crate) fn environment<'a>(name: &CStr) -> Option<&'a CStr> {
    #[cfg(target_os = "linux")]
    unsafe extern "C" {
        fn secure_getenv(name: *const libc::c_char) -> *mut libc::c_char;
    }
    #[cfg(target_os = "linux")]
    // SAFETY: the name is a string.
    let value = unsafe { secure_getenv(name.as_ptr()) };
    #[cfg(not(target_os = "linux"))]
    // SAFETY: as above.
    let value = unsafe {
        if libc::issetugid() == 0 {
            libc::getenv(name.as_ptr())
        } else {
            std::ptr::null_mut()
        }
    };
    // SAFETY: NULL or a string.
    (!value.is_null()).then(|| unsafe { CStr::from_ptr(value) })
}

/// How the system calls the calling thread; 0 where it has no number for it.
pub(crate) fn thread_id() -> c_int {
    #[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
    // SAFETY: gettid takes no argument and never fails.
    return unsafe { libc::syscall(libc::SYS_gettid) } as c_int;
    #[cfg(not(all(any(target_os = "linux", target_os = "android"), not(miri))))]
    0
}

/// Whether `fd` is an open descriptor of this process.
pub(crate) fn is_open(fd: c_int) -> bool {
    // SAFETY: F_GETFD accepts any number.
    fd >= 0 && unsafe { libc::fcntl(fd, libc::F_GETFD) } >= 0
}

/// Whether close may block on `fd` until the peer has taken the data: a socket with SO_LINGER and a
/// time.
pub(crate) fn lingers(fd: c_int) -> bool {
    let mut linger = libc::linger {
        l_onoff: 0,
        l_linger: 0,
    };
    let mut len = size_of::<libc::linger>() as libc::socklen_t;
    let at: *mut c_void = (&raw mut linger).cast();
    // SAFETY: `at` has room for the option's value, and `len` says how much. The call fails if `fd`
    // is not a socket.
    let error =
        unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, at, &raw mut len) };
    // With a time of zero, close drops unsent data at once.
    error == 0 && linger.l_onoff != 0 && linger.l_linger != 0
}

/// Close `fd`. Never retried: on Linux an interrupted close has closed the descriptor.
pub(crate) fn close(fd: c_int) {
    // The raw system call, since the C library's close(2) is a cancellation point. ThreadSanitizer sees only
    // the C library's. If it did not see that a number was closed, the next threads to open that number
    // would look like a race.
    #[cfg(target_os = "linux")]
    if nunc_stans_shim_has_tsan() == 0 {
        // SAFETY: the caller owns the descriptor.
        unsafe { libc::syscall(libc::SYS_close, fd) };
        return;
    }
    let _cancel = CancelGuard::new();
    // SAFETY: the caller owns the descriptor.
    unsafe { libc::close(fd) };
}

#[cfg(target_os = "linux")]
unsafe extern "C" {
    safe fn nunc_stans_shim_has_tsan() -> c_int;
}

/// Write to standard error, best effort: one write, which a pipe takes whole or not at all. Raises
/// no SIGPIPE; changes errno. The caller has disabled cancellation.
pub(crate) fn write_stderr(text: &[u8]) {
    // SAFETY: the sets are ours, and the text has the given length. A write raises SIGPIPE in the
    // writing thread. The thread blocks the signal, and takes it unless one was pending before.
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
    // SAFETY: the calls use only a set that we own.
    unsafe {
        let mut pending: libc::sigset_t = std::mem::zeroed();
        libc::sigpending(&mut pending);
        libc::sigismember(&pending, libc::SIGPIPE) == 1
    }
}

/// Write one byte to a non-blocking pipe. Returns false if the pipe no longer exists.
/// Async-signal-safe; changes errno.
pub(crate) fn write_byte(fd: c_int) -> bool {
    let byte = 1u8;
    let at: *const c_void = std::ptr::from_ref(&byte).cast();
    #[cfg(target_os = "linux")]
    // SAFETY: the byte is ours. The raw system call, since write(2) is a cancellation point.
    let written = unsafe { libc::syscall(libc::SYS_write, fd, at, 1usize) };
    #[cfg(not(target_os = "linux"))]
    let written = {
        let _cancel = CancelGuard::new();
        // SAFETY: the byte is ours.
        unsafe { libc::write(fd, at, 1) }
    };
    // A full pipe is fine: its reader already has a byte to find.
    written >= 0 || !matches!(errno(), libc::EBADF | libc::EPIPE)
}

/// Occupies descriptors 0, 1 and 2 while it exists, so that no descriptor opened meanwhile gets one
/// of these numbers. A program that has closed them, or one of its libraries, would take that
/// descriptor for a standard stream.
pub(crate) struct LowNumbers([c_int; 3]);

impl LowNumbers {
    /// Occupy the numbers that are free. If the system lets us open no descriptor for that, the
    /// caller's own open fails for the same reason.
    pub(crate) fn take() -> Self {
        let mut taken = Self([-1; 3]);
        for place in &mut taken.0 {
            #[cfg(target_os = "linux")]
            // SAFETY: the call takes only flags.
            let fd = unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) };
            #[cfg(not(target_os = "linux"))]
            // SAFETY: the path ends in a NUL.
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
