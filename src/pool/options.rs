// SPDX-License-Identifier: GPL-3.0-or-later
//! What was chosen for a pool, from the application's options and its environment.

use std::ffi::CStr;
use std::fmt;
use std::mem::{MaybeUninit, offset_of};
use std::ptr::{self, NonNull};

use libc::{c_char, c_void};

use crate::abi::{NS_POOL_CALLER_LOOP, NS_POOL_TIMINGS, ns_slow_call, ns_thrpool_options as Given};
use crate::alloc::Allocator;
use crate::event::{Framework, Functions, Named};
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
pub(crate) struct Options<'a> {
    pub(super) name: Name,
    pub(super) framework: Framework,
    /// The framework's name, as it was asked for.
    pub(super) framework_name: &'a CStr,
    /// The loop has no thread: those of the application's turn it.
    pub(super) caller_loop: bool,
    /// The pool measures times.
    pub(super) timed: bool,
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
    /// There is one, but not on this system.
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
                write!(out, "{source} is {name:?}, which is not on this system")
            }
        }
    }
}

impl<'a> Options<'a> {
    /// What the application chose; defaults where `given` is NULL.
    ///
    /// # Safety
    /// `given` is NULL or points at as many bytes as its `size` says, and its strings are valid for
    /// `'a`.
    pub(super) unsafe fn new(given: *const Given) -> Result<Self, Refused<'a>> {
        // SAFETY: guaranteed by the caller.
        let given = unsafe { read(given) }.map_err(Refused::Field)?;
        check(&given).map_err(Refused::Field)?;
        // SAFETY: guaranteed by the caller.
        let name = unsafe { name_of(given.name) }.map_err(Refused::Field)?;
        let caller_loop = given.flags & NS_POOL_CALLER_LOOP != 0;
        // SAFETY: guaranteed by the caller.
        let (framework, framework_name) = unsafe { framework_of(&given, caller_loop)? };
        Ok(Self {
            name,
            framework,
            framework_name,
            caller_loop,
            timed: given.flags & NS_POOL_TIMINGS != 0,
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

impl Options<'_> {
    /// A copy of the framework's name, in memory from `alloc`.
    pub(super) fn copy_framework_name(&self, alloc: &Allocator) -> Option<NonNull<c_char>> {
        let bytes = self.framework_name.to_bytes_with_nul();
        let copy = alloc.zeroed::<c_char>(bytes.len())?;
        // SAFETY: the block is new, and has as many bytes.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr().cast(), copy.as_ptr(), bytes.len()) };
        Some(copy)
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

/// What can't be.
fn check(given: &Given) -> Result<(), &'static str> {
    if given.flags & !(NS_POOL_CALLER_LOOP | NS_POOL_TIMINGS) != 0 {
        return Err("flags has an unknown bit");
    }
    if !given.custom.is_null() && !given.framework.is_null() {
        return Err("framework and custom are both set");
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

/// The framework that was chosen, and its name.
///
/// # Safety
/// As for [`Options::new`].
unsafe fn framework_of<'a>(
    given: &Given,
    caller_loop: bool,
) -> Result<(Framework, &'a CStr), Refused<'a>> {
    if !given.custom.is_null() {
        // SAFETY: guaranteed by the caller.
        let (functions, name) = unsafe { Functions::new(given.custom) }.map_err(Refused::Field)?;
        let framework = Framework::custom(functions);
        let refused = Refused::Field("custom is set, which is not on this system");
        return Ok((framework.ok_or(refused)?, name));
    }
    let (asked, source) = if given.framework.is_null() {
        // The variable is for programs that know nothing of frameworks. One that turns the loop itself
        // needs what the default can do.
        let asked = sys::environment(VARIABLE).filter(|name| !name.is_empty() && !caller_loop);
        (asked.unwrap_or(c"native"), Source::Environment)
    } else {
        // SAFETY: guaranteed by the caller.
        (unsafe { CStr::from_ptr(given.framework) }, Source::Options)
    };
    match Framework::named(asked) {
        Named::Known(framework, name) => Ok((framework, name)),
        Named::Elsewhere => Err(Refused::Missing(asked, source)),
        Named::Unknown => Err(Refused::Framework(asked, source)),
    }
}
