// SPDX-License-Identifier: GPL-3.0-or-later
//! The next deadline: a timerfd that the framework watches, or the framework's own time.

use std::io;
use std::os::fd::AsRawFd;

use super::contract::{TIME_KEY, Until, WaitError};
use super::over::Over;
use super::timerfd;
use crate::sys;

/// After the system has refused to set the timer, it is tried again after this many nanoseconds.
const RETRY: u64 = 1_000_000_000;
impl Over {
    /// Make the timerfd, and have the framework watch it.
    pub(super) fn make_timer(&mut self) -> io::Result<()> {
        let timer = match timerfd::make() {
            Ok(timer) => timer,
            Err(error) => {
                return match error.raw_os_error() {
                    // Descriptors or memory are short: later calls would fail too.
                    None | Some(libc::EMFILE | libc::ENFILE | libc::ENOMEM) => Err(error),
                    // The system has none.
                    Some(errno) => {
                        self.timer = Err(errno);
                        Ok(())
                    }
                };
            }
        };
        self.watch_own(timer.as_raw_fd(), TIME_KEY as u64)?;
        self.own.add(timer.as_raw_fd());
        self.timer = Ok(timer);
        Ok(())
    }

    pub(super) fn read_timer(&self) {
        let mut times = 0u64;
        if let Ok(timer) = &self.timer {
            // SAFETY: the buffer has eight bytes. The timer does not block.
            unsafe { libc::read(timer.as_raw_fd(), (&raw mut times).cast(), 8) };
        }
    }

    /// Set the timer. False if that failed.
    pub(super) fn set_timer(&mut self, deadline: u64) -> bool {
        let done = self
            .timer
            .as_ref()
            .is_ok_and(|timer| timerfd::set(timer, deadline));
        if done {
            self.set_to = deadline;
        }
        done
    }

    /// How the framework has to wait for `deadline`, which the timer is not set for. Reports once
    /// that the timer cannot be set.
    pub(super) fn wait_with(&mut self, deadline: u64) -> Result<Until, WaitError> {
        if self.traits.keeps_time {
            return Ok(Until::Deadline(deadline));
        }
        if deadline >= self.set_to {
            return Ok(Until::Event);
        }
        let now = if self.retry_at == 0 { 0 } else { sys::now() };
        if now >= self.retry_at {
            if self.set_timer(deadline) {
                self.retry_at = 0;
                return Ok(Until::Event);
            }
            let errno = match self.timer {
                Err(errno) => errno,
                Ok(_) => sys::errno(),
            };
            self.let_go_if_lost();
            let first = self.retry_at == 0;
            self.retry_at = sys::now() + RETRY;
            if first {
                return Err(WaitError::Timer(errno));
            }
        }
        Ok(Until::Deadline(deadline))
    }

    /// The application may have closed the timer's number, which may now refer to another file.
    /// Then we must neither set nor close it.
    fn let_go_if_lost(&mut self) {
        if let Ok(timer) = &self.timer {
            if !self.beside.has(timer.as_raw_fd()) {
                let lost = std::mem::replace(&mut self.timer, Err(libc::EBADF));
                std::mem::forget(lost);
            }
        }
    }
}
