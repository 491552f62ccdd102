// SPDX-License-Identifier: GPL-3.0-or-later
//! Logging: to the application's logger or to syslog, and messages that belong to no pool.
//!
//! We format a message in a buffer on the stack and pass it as the argument of `"%s"`. Any thread
//! may log. Messages from code that runs inside an application's logger or allocator are dropped,
//! because a logger that logs would recurse for ever.

pub(crate) mod sink;

use std::cell::Cell;
use std::ffi::CStr;
use std::fmt::{self, Write};

use libc::{c_char, c_int};

use crate::sys::{self, CancelGuard, ErrnoGuard};

use sink::Sink;
pub(crate) use sink::TextFn;

/// The config's logger: `void (*)(int, const char *, va_list)`.
pub(crate) type LogFn = unsafe extern "C" fn(c_int, *const c_char, crate::abi::va_list);

unsafe extern "C" {
    fn nunc_stans_shim_log(log: LogFn, priority: c_int, message: *const c_char);
}

thread_local! {
    /// Set while one of the application's loggers runs on this thread.
    static LOGGING: Cell<bool> = const { Cell::new(false) };
}

/// Where messages go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Logger {
    /// The logger of a pool's config, and the function to call when the pool is destroyed.
    Own(LogFn, Option<unsafe extern "C" fn()>),
    /// Syslog, for a pool whose config has no logger.
    Syslog,
    /// The function that `ns_set_log` set, for messages that belong to no pool.
    NoPool,
}

/// The process's function for messages that belong to no pool.
#[cfg(not(loom))]
static NO_POOL: Sink = Sink::new();

// A model makes it anew in each execution.
#[cfg(loom)]
loom::lazy_static! {
    static ref NO_POOL: Sink = Sink::new();
}

/// Stands before a message where other programs write too.
const PREFIX: &str = "nunc-stans: ";

/// Where syslog(3) finds a daemon.
#[cfg(not(any(target_os = "macos", target_os = "freebsd")))]
const SYSLOG_SOCKET: &CStr = c"/dev/log";
#[cfg(any(target_os = "macos", target_os = "freebsd"))]
const SYSLOG_SOCKET: &CStr = c"/var/run/log";

/// A line of text on the stack. It never allocates, and cuts off what does not fit.
struct Line {
    text: [u8; Line::ROOM],
    used: usize,
}

impl Line {
    const ROOM: usize = 1024;

    /// `prefix`, `message`, a newline and a NUL.
    fn new(prefix: &str, message: fmt::Arguments<'_>) -> Self {
        let mut line = Self {
            text: [0; Self::ROOM],
            used: 0,
        };
        // Writing to a line never fails: it cuts off what does not fit.
        let _ = line.write_str(prefix);
        let _ = line.write_fmt(message);
        line.text[line.used] = b'\n';
        line
    }

    /// The text as a C string, without its first `skip` bytes.
    fn from(&self, skip: usize) -> *const c_char {
        self.text[skip..].as_ptr().cast()
    }
}

impl Write for Line {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        // Two bytes stay free for the newline and the NUL.
        let n = s.len().min(Self::ROOM - 2 - self.used);
        self.text[self.used..self.used + n].copy_from_slice(&s.as_bytes()[..n]);
        self.used += n;
        Ok(())
    }
}

impl Logger {
    /// The config's logger, after calling `start`; syslog if `log` is `None`.
    pub(crate) fn start(
        log: Option<LogFn>,
        start: Option<unsafe extern "C" fn()>,
        close: Option<unsafe extern "C" fn()>,
    ) -> Self {
        let Some(log) = log else {
            return Self::Syslog;
        };
        if let Some(start) = start {
            // SAFETY: the config's function, called as its documentation says.
            guarded(|| unsafe { start() });
        }
        Self::Own(log, close)
    }

    /// The logger for the messages of a pool that could not be made.
    pub(crate) fn without_pool(self) -> Self {
        match self {
            Self::Own(..) => self,
            Self::Syslog | Self::NoPool => Self::NoPool,
        }
    }

    /// The pool is destroyed: call the config's close function.
    pub(crate) fn close(&self) {
        if let Self::Own(_, Some(close)) = *self {
            // SAFETY: the config's function, called as its documentation says.
            guarded(|| unsafe { close() });
        }
    }

    /// Log one message, which does not end in a newline: this adds one.
    pub(crate) fn log(&self, priority: c_int, message: fmt::Arguments<'_>) {
        if LOGGING.get() || crate::alloc::allocating() {
            return;
        }
        match *self {
            Self::Own(log, _) => {
                let line = Line::new("", message);
                // SAFETY: the line ends in a NUL; the shim only reads it.
                guarded(|| unsafe { nunc_stans_shim_log(log, priority, line.from(0)) });
            }
            Self::Syslog => {
                let line = Line::new(PREFIX, message);
                guarded(|| to_syslog(priority, &line));
            }
            Self::NoPool => {
                let line = Line::new(PREFIX, message);
                guarded(|| {
                    // SAFETY: the line ends in a NUL.
                    if !unsafe { NO_POOL.write(priority, line.from(PREFIX.len())) } {
                        to_syslog(priority, &line);
                        if !has_syslog() {
                            sys::write_stderr(&line.text[..=line.used]);
                        }
                    }
                });
            }
        }
    }
}

fn to_syslog(priority: c_int, line: &Line) {
    // SAFETY: the format is "%s" with one argument, and both strings end in a NUL.
    unsafe { libc::syslog(libc::LOG_LOCAL1 | priority, c"%s".as_ptr(), line.from(0)) };
}

/// Whether the system has a syslog daemon. Checked for each message, because a container or chroot
/// can change that. A program that opened syslog before a chroot hid the socket still has its
/// connection: its messages go both to syslog and to standard error.
fn has_syslog() -> bool {
    // SAFETY: the path ends in a NUL.
    unsafe { libc::access(SYSLOG_SOCKET.as_ptr(), libc::F_OK) == 0 }
}

/// `ns_set_log`. Returns false if there is no memory; then nothing has changed. Does not wait if it
/// is called in a logger, which may be the function that it would wait for.
pub(crate) fn set_text(text: Option<TextFn>, arg: *mut libc::c_void) -> bool {
    let _cancel = CancelGuard::new();
    NO_POOL.set(text, arg, !LOGGING.get())
}

/// Run the application's code or syslog: either may contain a cancellation point or change errno.
fn guarded(call: impl FnOnce()) {
    let _errno = ErrnoGuard::new();
    let _cancel = CancelGuard::new();
    LOGGING.set(true);
    call();
    LOGGING.set(false);
}

/// Log to a pool's logger: `log!(logger, LOG_ERR, "function: what", ...)`.
macro_rules! log {
    ($logger:expr, $priority:ident, $($message:tt)+) => {
        $logger.log(libc::$priority, format_args!($($message)+))
    };
}
pub(crate) use log;

/// Log one step of a job; only in builds with the feature `trace`.
macro_rules! trace {
    ($logger:expr, $($message:tt)+) => {
        if cfg!(feature = "trace") {
            $crate::log::log!($logger, LOG_DEBUG, $($message)+);
        }
    };
}
pub(crate) use trace;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_in_one_newline_and_are_cut_to_fit() {
        let line = Line::new("a: ", format_args!("{}", 7));
        assert_eq!(&line.text[..6], b"a: 7\n\0");
        let long = "x".repeat(5000);
        let line = Line::new("", format_args!("{long}"));
        assert_eq!(line.text[Line::ROOM - 2], b'\n');
        assert_eq!(line.text[Line::ROOM - 1], 0);
    }

    unsafe extern "C" {
        fn vsnprintf(
            out: *mut c_char,
            size: usize,
            format: *const c_char,
            args: crate::abi::va_list,
        ) -> c_int;
    }

    thread_local! {
        static HEARD: Cell<[u8; Line::ROOM]> = const { Cell::new([0; Line::ROOM]) };
    }

    unsafe extern "C" fn hear(priority: c_int, format: *const c_char, args: crate::abi::va_list) {
        assert_eq!(priority, libc::LOG_NOTICE);
        let mut text = [0; Line::ROOM];
        // SAFETY: the format and the arguments are the shim's, and `text` has the given length.
        unsafe {
            assert_eq!(std::ffi::CStr::from_ptr(format), c"%s");
            vsnprintf(text.as_mut_ptr().cast(), text.len(), format, args);
        }
        HEARD.set(text);
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri cannot call the shim, which is C")]
    fn percent_signs_reach_a_logger_unchanged() {
        let logger = Logger::start(Some(hear), None, None);
        logger.log(libc::LOG_NOTICE, format_args!("100%s %n %% %d"));
        let text = HEARD.get();
        assert!(text.starts_with(b"100%s %n %% %d\n\0"));
    }
}
