// SPDX-License-Identifier: GPL-3.0-or-later
//! What was chosen for a pool, from the application's options and its environment.

use std::ffi::CStr;
use std::fmt;
use std::mem::{MaybeUninit, offset_of};
use std::ptr;

use libc::{c_char, c_void};

use crate::abi::{NS_POOL_CALLER_LOOP, NS_POOL_TIMINGS, ns_slow_call, ns_thrpool_options as Given};
use crate::event::Framework;
use crate::sys;

/// The most characters that a pool's name may have: with what follows, a thread's name fits the system.
const MOST: usize = 8;

/// The name of a pool, or of one of its threads: a string and its NUL.
#[derive(Clone, Copy)]
pub(super) struct Name([u8; 16]);

impl Name {
    const DEFAULT: Self = Self(*b"ns\0\0\0\0\0\0\0\0\0\0\0\0\0\0");

    /// The pool's name with `suffix`, which is at most seven characters long.
    pub(super) fn with(mut self, suffix: &str) -> Self {
        let used = self.as_c().count_bytes();
        self.0[used..used + suffix.len()].copy_from_slice(suffix.as_bytes());
        self
    }

    /// The string, and NULs behind it.
    pub(super) fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    pub(super) fn as_c(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.0).unwrap_or_default()
    }
}

/// The application's function for reports on slow callbacks.
pub(super) type SlowFn = unsafe extern "C" fn(call: *const ns_slow_call);

type Hook = unsafe extern "C" fn(arg: *mut c_void, name: *const c_char);

/// What the application has called in each thread.
#[derive(Clone, Copy)]
pub(super) struct Hooks {
    start: Option<Hook>,
    end: Option<Hook>,
    arg: *mut c_void,
}

impl Hooks {
    /// First in a thread.
    pub(super) fn start(&self, name: &CStr) {
        if let Some(start) = self.start {
            // SAFETY: the application's function, with the argument that it chose.
            unsafe { start(self.arg, name.as_ptr()) };
        }
    }

    /// Last in a thread.
    pub(super) fn end(&self, name: &CStr) {
        if let Some(end) = self.end {
            // SAFETY: as above.
            unsafe { end(self.arg, name.as_ptr()) };
        }
    }
}

/// What was chosen for a pool.
pub(crate) struct Options {
    pub(super) name: Name,
    pub(super) framework: Framework,
    /// The framework's name, as it was asked for.
    pub(super) framework_name: &'static CStr,
    /// How many jobs may wait for workers; 0 for no limit.
    pub(super) queue_limit: usize,
    pub(super) hooks: Hooks,
    /// After how many nanoseconds a callback is slow; 0: none is.
    pub(super) slow: u64,
    /// Gets the reports on those.
    pub(super) slow_fct: Option<SlowFn>,
}

/// Why options are refused.
pub(super) enum Refused<'a> {
    /// What is wrong.
    Field(&'static str),
    /// There is no framework of this name.
    Framework(&'a CStr, Source),
    /// There is one, but not in this version.
    Missing(&'a CStr, Source),
}

/// Where a framework's name came from.
#[derive(Clone, Copy)]
pub(super) enum Source {
    Options,
    Environment,
}

const VARIABLE: &CStr = c"NUNC_STANS_FRAMEWORK";

impl fmt::Display for Source {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Options => out.write_str("framework"),
            Self::Environment => out.write_str("NUNC_STANS_FRAMEWORK"),
        }
    }
}

impl fmt::Display for Refused<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(what) => out.write_str(what),
            Self::Framework(name, source) => write!(out, "{source} is {name:?}, which is unknown"),
            Self::Missing(name, source) => {
                write!(out, "{source} is {name:?}, which is not in this version")
            }
        }
    }
}

impl Options {
    /// What the application chose; defaults where `given` is NULL.
    ///
    /// # Safety
    /// `given` is NULL or points at as many bytes as its `size` says, and its strings are valid for
    /// `'a`.
    pub(super) unsafe fn new<'a>(given: *const Given) -> Result<Self, Refused<'a>> {
        // SAFETY: guaranteed by the caller.
        let given = unsafe { read(given) }.map_err(Refused::Field)?;
        check(&given).map_err(Refused::Field)?;
        // SAFETY: guaranteed by the caller.
        let name = unsafe { name_of(given.name) }.map_err(Refused::Field)?;
        let (asked, source) = match given.framework.is_null() {
            // SAFETY: guaranteed by the caller.
            false => (unsafe { CStr::from_ptr(given.framework) }, Source::Options),
            true => (
                sys::environment(VARIABLE).unwrap_or(c""),
                Source::Environment,
            ),
        };
        let (framework, framework_name) = framework_of(asked, source)?;
        Ok(Self {
            name,
            framework,
            framework_name,
            queue_limit: given.queue_limit,
            slow: nanoseconds(&given.slow),
            slow_fct: given.slow_fct,
            hooks: Hooks {
                start: given.thread_start_fct,
                end: given.thread_end_fct,
                arg: given.thread_arg,
            },
        })
    }
}

/// The options that the program gave, at their full size. An earlier version of the struct ends after
/// one of its fields; a later one is taken if it says nothing in the fields that are new.
///
/// # Safety
/// As for [`Options::new`].
unsafe fn read(given: *const Given) -> Result<Given, &'static str> {
    /// More than any version will have. It keeps us from reading far beyond a struct that was never
    /// made ready.
    const LARGEST: usize = 4096;
    const KNOWN: usize = size_of::<Given>();
    const ENDS: [usize; 10] = [
        offset_of!(Given, name),
        offset_of!(Given, framework),
        offset_of!(Given, custom),
        offset_of!(Given, queue_limit),
        offset_of!(Given, slow),
        offset_of!(Given, slow_fct),
        offset_of!(Given, thread_start_fct),
        offset_of!(Given, thread_end_fct),
        offset_of!(Given, thread_arg),
        KNOWN,
    ];
    let mut all = MaybeUninit::<Given>::zeroed();
    if !given.is_null() {
        // SAFETY: guaranteed by the caller; the size comes first.
        let size = unsafe { (&raw const (*given).size).read() };
        if !ENDS.contains(&size) && !(KNOWN..=LARGEST).contains(&size) {
            return Err(
                "the options' size is that of no version: was ns_thrpool_options_init called?",
            );
        }
        let from = given.cast::<u8>();
        // SAFETY: guaranteed by the caller.
        let more = (KNOWN..size).any(|at| unsafe { from.add(at).read() } != 0);
        if more {
            return Err("the options have fields set that this version does not know");
        }
        // SAFETY: both have so many bytes.
        unsafe { ptr::copy_nonoverlapping(from, all.as_mut_ptr().cast(), size.min(KNOWN)) };
    }
    // SAFETY: all zero is a value of this struct, and so is what a program writes there.
    Ok(unsafe { all.assume_init() })
}

/// A time, which is not negative, in nanoseconds: at most a century, so that one can be added to the
/// clock's.
fn nanoseconds(tv: &libc::timeval) -> u64 {
    let seconds = (tv.tv_sec as u64).min(3_155_760_000);
    let micros = (tv.tv_usec as u64).min(1_000_000_000_000);
    seconds * 1_000_000_000 + micros * 1000
}

/// What this version has no use for, and what can't be.
fn check(given: &Given) -> Result<(), &'static str> {
    if given.flags & !(NS_POOL_CALLER_LOOP | NS_POOL_TIMINGS) != 0 {
        return Err("flags has an unknown bit");
    }
    if given.flags & NS_POOL_CALLER_LOOP != 0 {
        return Err("flags has NS_POOL_CALLER_LOOP, which is not in this version");
    }
    if given.flags & NS_POOL_TIMINGS != 0 {
        return Err("flags has NS_POOL_TIMINGS, which is not in this version");
    }
    if !given.custom.is_null() {
        return Err(match given.framework.is_null() {
            false => "framework and custom are both set",
            true => "custom is set, which is not in this version",
        });
    }
    if given.slow.tv_sec < 0 || given.slow.tv_usec < 0 {
        return Err("slow is negative");
    }
    Ok(())
}

/// # Safety
/// `name` is NULL or a string.
unsafe fn name_of(name: *const c_char) -> Result<Name, &'static str> {
    if name.is_null() {
        return Ok(Name::DEFAULT);
    }
    // SAFETY: guaranteed by the caller.
    let name = unsafe { CStr::from_ptr(name) }.to_bytes();
    match name.len() {
        0 => Err("name is empty"),
        1..=MOST => {
            let mut copy = [0; 16];
            copy[..name.len()].copy_from_slice(name);
            Ok(Name(copy))
        }
        _ => Err("name is longer than 8 characters"),
    }
}

fn framework_of(asked: &CStr, source: Source) -> Result<(Framework, &'static CStr), Refused<'_>> {
    if asked.is_empty() && matches!(source, Source::Environment) {
        return Ok((Framework::DEFAULT, c"native"));
    }
    let base = asked.to_bytes().split(|&byte| byte == b':').next();
    match asked.to_bytes() {
        b"native" => Ok((Framework::DEFAULT, c"native")),
        b"portable" => Ok((Framework::Portable, c"portable")),
        _ if matches!(base, Some(b"libevent" | b"tevent")) => Err(Refused::Missing(asked, source)),
        _ => Err(Refused::Framework(asked, source)),
    }
}
