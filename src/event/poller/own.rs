// SPDX-License-Identifier: GPL-3.0-or-later
//! An event framework of the application's own.

use std::io;
use std::os::fd::RawFd;
use std::ptr::NonNull;

use libc::{c_int, c_void};

use super::contract::{Batch, EVENTS, IN, OUT, Until};
use super::framework::{Framework, Traits, Watch};
use super::functions::Functions;
use crate::abi::{
    NS_FRAMEWORK_KNOWN, NS_FRAMEWORK_ONCE, NS_JOB_READ, NS_JOB_WRITE, ns_framework_event,
};
use crate::sys;

/// A context of the application's framework.
pub(super) struct Custom {
    functions: Functions,
    context: NonNull<c_void>,
    /// What a wait fills in.
    events: Box<[ns_framework_event; EVENTS]>,
}

impl Custom {
    /// Make a context.
    pub(super) fn open(functions: Functions) -> io::Result<Self> {
        // SAFETY: the application's function, with the argument that it chose.
        let context = unsafe { (functions.open)(functions.arg) };
        Ok(Self {
            functions,
            context: NonNull::new(context)
                .ok_or_else(|| io::Error::other("open of the framework returned NULL"))?,
            events: Box::new([ns_framework_event { key: 0, ready: 0 }; EVENTS]),
        })
    }
}

impl Framework for Custom {
    fn traits(&self) -> Traits {
        // What it does not tell is taken for the worse.
        Traits {
            keeps_time: true,
            by_number: true,
            outlives: true,
            closes_blindly: false,
            shows_ready: false,
            limit: c_int::MAX,
        }
    }

    fn watch(&mut self, watch: Watch) -> Result<(), c_int> {
        let bit = |set, bit| if set { bit } else { 0 };
        let interest = bit(watch.interest.read(), NS_JOB_READ as c_int)
            | bit(watch.interest.write(), NS_JOB_WRITE as c_int);
        let flags = bit(watch.once, NS_FRAMEWORK_ONCE) | bit(watch.known, NS_FRAMEWORK_KNOWN);
        let context = self.context.as_ptr();
        // SAFETY: the application's function, with its own context.
        match unsafe { (self.functions.watch)(context, watch.fd, watch.key, interest, flags) } {
            0 => Ok(()),
            errno => Err(errno),
        }
    }

    fn unwatch(&mut self, fd: c_int, _lost: bool) {
        // SAFETY: the application's function, with its own context. The result tells nothing that
        // is not known here.
        unsafe { (self.functions.unwatch)(self.context.as_ptr(), fd) };
    }

    fn wait(&mut self, until: Until, found: &mut Batch) -> Result<(usize, bool), c_int> {
        let until = match until {
            Until::Now => 0,
            Until::Event => -1,
            Until::Deadline(deadline) => i64::try_from(deadline).unwrap_or(i64::MAX).max(1),
        };
        let context = self.context.as_ptr();
        let (events, room) = (self.events.as_mut_ptr(), EVENTS as c_int);
        // SAFETY: the application's function, with its own context, and room for so many events.
        let count = unsafe { (self.functions.wait)(context, events, room, until) };
        let Ok(count) = usize::try_from(count) else {
            return match sys::errno() {
                libc::EINTR => Ok((0, false)),
                0 => Err(libc::EIO),
                errno => Err(errno),
            };
        };
        let count = count.min(EVENTS);
        let mut ready = 0;
        for event in &self.events[..count] {
            let bit = |flag: u32, bit| if event.ready & flag != 0 { bit } else { 0 };
            let bits = bit(NS_JOB_READ as u32, IN) | bit(NS_JOB_WRITE as u32, OUT);
            if bits != 0 {
                found.put(ready, event.key, bits);
                ready += 1;
            }
        }
        Ok((ready, count == EVENTS))
    }

    fn wait_fd(&self) -> Option<RawFd> {
        // SAFETY: the application's function, with its own context.
        let fd = unsafe { (self.functions.wait_fd?)(self.context.as_ptr()) };
        (fd >= 0).then_some(fd)
    }

    fn close(self: Box<Self>) {
        // SAFETY: the application's function, with its own context, which is not used again.
        unsafe { (self.functions.close)(self.context.as_ptr(), 0) };
    }

    fn leave_in_child(&mut self) {
        // SAFETY: as above.
        unsafe { (self.functions.close)(self.context.as_ptr(), 1) };
    }
}
