// SPDX-License-Identifier: GPL-3.0-or-later
//! Where the library's log goes.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int};
use std::sync::{PoisonError, RwLock};

use crate::prelude::*;

type Sink = dyn Fn(i32, &str) + Send + Sync;

static SINK: RwLock<Option<Arc<Sink>>> = RwLock::new(None);

thread_local! {
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

unsafe extern "C" {
    fn vsnprintf(text: *mut c_char, size: usize, format: *const c_char, args: va_list) -> c_int;
}

/// Send the log to a function, for the process: that of the pools that are made from now on, and of their panics.
/// It gets a priority as in `syslog.h` (3 error, 4 warning, 6 info, 7 debug) and one line. Any thread calls it,
/// several at once. What it calls of this crate is refused. Until then the log goes to syslog.
pub fn set_log(sink: impl Fn(i32, &str) + Send + Sync + 'static) {
    drop(SINK.write().unwrap_or_else(PoisonError::into_inner).replace(Arc::new(sink)));
}

/// The `log_fct` of a pool that is made now.
pub(crate) fn function() -> Option<unsafe extern "C" fn(c_int, *const c_char, va_list)> {
    SINK.read().unwrap_or_else(PoisonError::into_inner).is_some().then_some(formatted as _)
}

/// Whether this thread is in the function: then it may call nothing of the library.
pub(crate) fn is_inside() -> bool {
    INSIDE.get()
}

pub(crate) fn line(priority: i32, text: &str) {
    let sink = SINK.read().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(sink) = sink else { return };
    if !INSIDE.replace(true) {
        crate::pool::contain(|| sink(priority, text.trim_end_matches('\n')), drop);
        INSIDE.set(false);
    }
}

unsafe extern "C" fn formatted(priority: c_int, format: *const c_char, args: va_list) {
    let mut text = [0; 2048];
    // SAFETY: the library passes a format and what it asks for; the text is ended by a zero.
    let text = unsafe {
        vsnprintf(text.as_mut_ptr(), text.len(), format, args);
        CStr::from_ptr(text.as_ptr())
    };
    line(priority, &text.to_string_lossy());
}
