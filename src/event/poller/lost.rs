// SPDX-License-Identifier: GPL-3.0-or-later
//! Descriptors whose number was closed or reused while the framework watched them.

use std::io;

use libc::c_int;

use super::contract::{Batch, EVENTS, IN, Key, OUT, TIME_KEY, WAKE_KEY, nobody};
use super::over::Over;
use crate::sys;

/// When a descriptor was lost, the kernel's list is read after so many nanoseconds, for all that were
/// lost until then; or after [`RARELY`] times as long as the last reading took, if that is longer.
const LATER: u64 = 5_000_000;
const RARELY: u64 = 50;
/// Whether a descriptor is ready in one of these directions, by poll(2).
fn is_ready(fd: c_int, bits: u32) -> bool {
    let bit = |has, bit| if bits & has != 0 { bit } else { 0 };
    let mut poll = libc::pollfd {
        fd,
        events: bit(IN, libc::POLLIN) | bit(OUT, libc::POLLOUT),
        revents: 0,
    };
    // SAFETY: the pointer and the length describe one local pollfd.
    unsafe { libc::poll(&mut poll, 1, 0) > 0 }
}

impl Over {
    /// Whether the instance beside, the wake pipe and all descriptors of the poller's own are there:
    /// what the instance says counts for something. If not, the next wait fails.
    pub(super) fn is_there(&mut self) -> bool {
        self.gave_up_epoll();
        let mut own = self.own.iter().chain([self.wake]);
        self.broken |= !own.all(|fd| self.beside.has(fd));
        !self.broken
    }

    /// The number of `slot` was closed while the framework watched it: stop that, and see later
    /// whether its file lives on.
    #[cold]
    pub(super) fn lose(&mut self, fd: c_int) {
        let slot = &mut self.slots[fd as usize];
        slot.beside = false;
        if !slot.watched {
            return;
        }
        slot.watched = false;
        let outlives = self.traits.outlives;
        if outlives && !slot.suspect && self.lost.try_reserve(1).is_ok() {
            slot.suspect = true;
            self.lost.push(fd);
        }
        self.framework().unwatch(fd, outlives);
        if outlives && self.rests && self.traits.shows_ready {
            // Such a file would keep that descriptor readable though there is nothing to do.
            self.check_at = 0;
        } else if outlives && self.check_at == u64::MAX {
            self.check_later();
        }
    }

    fn check_later(&mut self) {
        self.check_at = sys::now() + LATER.max(self.check_took * RARELY);
    }

    /// Read the kernel's list. If a lost file lives on, report an event that no job has.
    #[cold]
    pub(super) fn check_lost(&mut self, found: &mut Batch) -> usize {
        self.check_at = u64::MAX;
        let start = sys::now();
        for slot in &mut self.slots {
            slot.listed = false;
        }
        let (slots, own) = (&mut self.slots, &self.own);
        let leftover = self.beside.leftover(|fd| {
            if own.iter().any(|known| known == fd) {
                return true;
            }
            match slots.get_mut(fd as usize) {
                // The wake pipe has no slot of its own, or one that is empty.
                None => true,
                Some(slot) => {
                    let twice = std::mem::replace(&mut slot.listed, true);
                    !twice && (slot.beside || !slot.suspect)
                }
            }
        });
        self.check_took = sys::now() - start;
        let fd = match leftover {
            Ok(fd) => fd,
            // There is no /proc: take it that a file lives on.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.lost.first().copied(),
            // No descriptor is free to read the list with, for example.
            Err(_) => {
                self.check_later();
                return 0;
            }
        };
        if let Some(fd) = fd {
            self.haunted = Some(fd);
            found.put(0, nobody(fd), 0);
            return 1;
        }
        for fd in std::mem::take(&mut self.lost) {
            self.slots[fd as usize].suspect = false;
        }
        self.framework().forget_lost();
        0
    }

    /// The framework's wait fails, which a closed number may cause: report those that are lost.
    #[cold]
    pub(super) fn find_lost(&mut self, found: &mut Batch) -> usize {
        let mut count = 0;
        if !self.is_there() {
            return 0;
        }
        for fd in 0..self.slots.len() as c_int {
            let slot = self.slots[fd as usize];
            if count < EVENTS && slot.watched && !self.beside.has(fd) {
                self.lose(fd);
                found.put(count, slot.key, 0);
                count += 1;
            }
        }
        count
    }

    /// Look through the events of a wait. Returns how many are left.
    pub(super) fn review(&mut self, found: &mut Batch, count: usize) -> usize {
        let doubtful = self.traits.by_number || !self.lost.is_empty();
        let mut left = 0;
        for index in 0..count {
            // SAFETY: the framework has written this many.
            let raw = unsafe { found.raw(index) };
            let (key, bits) = (raw.u64, raw.events);
            if key == TIME_KEY as u64 {
                self.read_timer();
            } else if doubtful && key != WAKE_KEY as u64 {
                let Some(bits) = self.verify(key, bits) else {
                    continue;
                };
                let key = bits.1.unwrap_or(key);
                found.put(left, key, bits.0);
                left += 1;
                continue;
            }
            if left != index {
                found.put(left, key, bits);
            }
            left += 1;
        }
        left
    }

    /// Whether an event is of the file that was watched: what to report, and under which key if not
    /// its own. `None` to drop it.
    fn verify(&mut self, key: u64, bits: u32) -> Option<(u32, Option<u64>)> {
        let fd = Key::unpack(key).fd;
        let slot = *self.slots.get(usize::try_from(fd).ok()?)?;
        if slot.key != key || !slot.watched {
            // The framework reports what it no longer should, or one that has just been lost.
            return None;
        }
        if self.traits.by_number && !self.beside.has(fd) && self.is_there() {
            // An event without a direction makes the loop verify it, and so learn of this.
            self.lose(fd);
            return Some((0, None));
        }
        if slot.suspect && !is_ready(fd, bits) {
            return Some((0, Some(nobody(fd))));
        }
        Some((bits, None))
    }
}
