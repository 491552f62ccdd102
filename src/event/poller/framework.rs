// SPDX-License-Identifier: GPL-3.0-or-later
//! What a foreign event framework has to do for [`Over`](super::Over).

use std::os::fd::RawFd;

use libc::c_int;

use super::contract::{Batch, Until};
use crate::fds::Interest;

/// What a framework is told of a descriptor.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    pub(super) fd: c_int,
    /// Comes back with the events.
    pub(super) key: u64,
    /// Empty: report nothing.
    pub(super) interest: Interest,
    /// Report it once, until it is watched again.
    pub(super) once: bool,
    /// The framework watches it already: change that.
    pub(super) known: bool,
}

/// What a framework can do, and what it needs done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traits {
    /// It waits until a time of the monotonic clock, to the nanosecond, so it needs no timerfd.
    pub(super) keeps_time: bool,
    /// It watches numbers, as poll(2) does, not files. So an event may be of another file than the
    /// one that was watched, and each has to be verified.
    pub(super) by_number: bool,
    /// It may go on watching a file whose number is closed, as epoll does: then no number names the
    /// registration any more.
    pub(super) outlives: bool,
    /// When its epoll instance fails, it closes the number, which may be another file's by then.
    pub(super) closes_blindly: bool,
    /// Its epoll instance is readable exactly when it has something to report.
    pub(super) shows_ready: bool,
    /// It cannot watch this number or any above.
    pub(super) limit: c_int,
}

/// A context of a framework. Only the loop thread uses it, and the thread that makes or destroys
/// the pool.
pub(super) trait Framework {
    /// What it can do.
    fn traits(&self) -> Traits;

    /// Watch a descriptor, or return an errno.
    fn watch(&mut self, watch: Watch) -> Result<(), c_int>;

    /// Watch `fd` no more. Its number may be closed, and may refer to another file. `lost`: its
    /// file may live on, and the framework may go on to report it until [`Framework::forget_lost`].
    fn unwatch(&mut self, fd: c_int, lost: bool);

    /// No file of those that were lost lives on.
    fn forget_lost(&mut self) {}

    /// Wait, write the events to `found`, and return their number and whether there may be more; or
    /// return an errno.
    fn wait(&mut self, until: Until, found: &mut Batch) -> Result<(usize, bool), c_int>;

    /// Whether something inside has failed since the last call.
    fn has_failed(&mut self) -> bool {
        false
    }

    /// It has no epoll instance, or has given it up, and watches numbers from here on.
    fn gave_up_epoll(&mut self) {}

    /// The descriptors of this context that are made here, beside those of the framework's own.
    fn own(&self) -> [Option<RawFd>; 2] {
        [None, None]
    }

    /// A descriptor that polls readable when the framework has something to report.
    fn wait_fd(&self) -> Option<RawFd> {
        None
    }

    /// The pool ends, or its poller is replaced: free everything.
    fn close(self: Box<Self>);

    /// In a forked child. To free the context would take the parent's registrations out of the kernel,
    /// so nothing is freed. The descriptors that this library knows of are closed elsewhere.
    fn leave_in_child(&mut self) {}
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::super::libevent::{self, Libevent};
    use super::super::tevent::Tevent;
    use super::super::tevent_state;
    use super::*;
    use crate::sys;

    /// Each look without waiting finds what became ready since the look before, wherever the framework
    /// has put that in its order.
    fn looks(mut framework: impl Framework) {
        const COUNT: usize = 3;
        let mut found = Batch::new();
        let mut take = |framework: &mut dyn Framework, until| {
            let (count, _) = framework.wait(until, &mut found).expect("a wait");
            // SAFETY: the wait has written so many.
            let mut keys: Vec<_> = (0..count).map(|i| unsafe { found.raw(i) }.u64).collect();
            keys.sort_unstable();
            keys.dedup();
            keys
        };
        let pairs = [(); COUNT].map(|()| UnixStream::pair().expect("a pair"));
        let watch = |framework: &mut dyn Framework, i: usize| {
            let watched = framework.watch(Watch {
                fd: pairs[i].0.as_raw_fd(),
                key: i as u64,
                interest: Interest::new(true, false),
                once: false,
                known: false,
            });
            assert_eq!(watched, Ok(()));
        };
        // Behind a wait that found nothing.
        watch(&mut framework, 0);
        for _ in 0..COUNT {
            let until = Until::Deadline(sys::now() + 1_000_000);
            assert_eq!(take(&mut framework, until), []);
            (&pairs[0].1).write_all(b"x").expect("room");
            assert_eq!(take(&mut framework, Until::Now), [0]);
            (&pairs[0].0).read_exact(&mut [0]).expect("a byte");
        }
        let mut ready = Vec::new();
        for (i, pair) in pairs.iter().enumerate() {
            watch(&mut framework, i);
            assert_eq!(take(&mut framework, Until::Now), ready);
            (&pair.1).write_all(b"x").expect("room");
            ready.push(i as u64);
            // They are level-triggered: what was ready still is.
            for _ in 0..COUNT {
                assert_eq!(take(&mut framework, Until::Now), ready);
            }
        }
        Box::new(framework).close();
    }

    #[cfg_attr(miri, ignore)]
    #[test]
    fn a_look_over_libevent_finds_what_came_since_the_last() {
        for method in [
            libevent::Method::Epoll,
            libevent::Method::Poll,
            libevent::Method::Select,
        ] {
            looks(Libevent::open(method).expect("libevent"));
        }
    }

    #[cfg_attr(miri, ignore)]
    #[test]
    fn a_look_over_tevent_finds_what_came_since_the_last() {
        for method in [tevent_state::Method::Standard, tevent_state::Method::Poll] {
            looks(Tevent::open(method).expect("tevent"));
        }
    }
}
