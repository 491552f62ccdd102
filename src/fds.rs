// SPDX-License-Identifier: GPL-3.0-or-later
//! The descriptor table: which jobs watch which descriptor, and what the poller knows of it.
//!
//! The table is an array that grows by doubling blocks and never moves an entry. A block is
//! reserved by the call that makes a job, on whatever thread, so that arming cannot fail for
//! memory. The entries' contents belong to the loop, but for the count of closes.

use std::cell::Cell;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use libc::c_int;

use crate::alloc::Allocator;
use crate::confined::LoopOnly;
use crate::list::Head;

/// A set of directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Interest(u8);

impl Interest {
    const READ: u8 = 1;
    const WRITE: u8 = 2;

    /// Neither direction.
    pub(crate) const NONE: Self = Self(0);

    /// These directions.
    pub(crate) fn new(read: bool, write: bool) -> Self {
        Self((u8::from(read) * Self::READ) | (u8::from(write) * Self::WRITE))
    }

    /// Whether reading is among them.
    pub(crate) fn read(self) -> bool {
        self.0 & Self::READ != 0
    }

    /// Whether writing is among them.
    pub(crate) fn write(self) -> bool {
        self.0 & Self::WRITE != 0
    }

    /// What is in both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What is in either.
    pub(crate) fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether it is [`Interest::NONE`].
    pub(crate) fn is_none(self) -> bool {
        self == Self::NONE
    }
}

/// How long the poller keeps reporting a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// As long as it is ready: for jobs that run in the loop, which are armed again at once.
    Level,
    /// Once, then not until it is registered again: for jobs that run in workers.
    Oneshot,
    /// Each time something happens: while there is urgent data, which would be reported for ever.
    Edge,
}

/// What the poller knows of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registration {
    /// Nothing.
    Absent,
    /// Nothing: it did not take it, for want of something that may come back.
    Refused,
    /// Nothing: it cannot be polled, and is always ready, as files are.
    Always,
    /// It is registered, for this, under the entry's serial.
    Polled(Interest, Mode),
}

/// One descriptor.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The jobs that were armed on what the number stands for now.
    pub(crate) jobs: LoopOnly<Head>,
    /// Twice how often the pool has closed the number, or given it up; and [`OWN`]. A job that was
    /// made when this was another number was made for something else.
    closes: AtomicU32,
    /// Serial in the upper 24 bits, registration in the lower 8.
    word: LoopOnly<Cell<u32>>,
}

// Every thread gets references to entries, and the table's pointers hide that from the compiler.
const _: fn() = || {
    fn is_sync<T: Sync>() {}
    is_sync::<Entry>();
};

/// Bits of [`Entry::word`], above those of the interest: it is registered, and how; or why not.
const POLLED: u32 = 1 << 2;
const ONESHOT: u32 = 1 << 3;
const EDGE: u32 = 1 << 4;
const ALWAYS: u32 = 1 << 5;
const REFUSED: u32 = 1 << 6;
/// It was refused, and is in the list of what is to be tried again.
const RETRIED: u32 = 1 << 7;

/// Bit of [`Entry::closes`]: the number is that of a descriptor of the pool's own.
pub(crate) const OWN: u32 = 1;

impl Entry {
    /// What [`Entry::closes`] is about. Any thread.
    pub(crate) fn closes(&self) -> u32 {
        self.closes.load(Ordering::SeqCst)
    }

    /// The pool is about to close the number.
    pub(crate) fn count_close(&self) {
        self.closes.fetch_add(2, Ordering::SeqCst);
    }

    /// Whether the number is from now on that of a descriptor of the pool's own. Any thread.
    pub(crate) fn set_own(&self, own: bool) {
        // Both ways one more: what was made for the number before was made for something else.
        let change =
            |closes: u32| (closes & OWN != u32::from(own)).then(|| closes.wrapping_add(OWN));
        let (store, load) = (Ordering::SeqCst, Ordering::SeqCst);
        // An error says that it was so before.
        let _ = self.closes.fetch_update(store, load, change);
    }

    /// Whether it is in the list of what is to be tried again.
    pub(crate) fn is_retried(&self) -> bool {
        self.word.get() & RETRIED != 0
    }

    /// It is in that list, or not.
    pub(crate) fn set_retried(&self, retried: bool) {
        let rest = self.word.get() & !RETRIED;
        self.word.set(rest | if retried { RETRIED } else { 0 });
    }

    /// What the poller knows.
    pub(crate) fn registration(&self) -> Registration {
        let word = self.word.get();
        if word & POLLED != 0 {
            let mode = match word & (ONESHOT | EDGE) {
                0 => Mode::Level,
                ONESHOT => Mode::Oneshot,
                _ => Mode::Edge,
            };
            return Registration::Polled(Interest(word as u8 & 3), mode);
        }
        match word & (ALWAYS | REFUSED) {
            0 => Registration::Absent,
            ALWAYS => Registration::Always,
            _ => Registration::Refused,
        }
    }

    /// Note what the poller knows now.
    pub(crate) fn set_registration(&self, registration: Registration) {
        let bits = match registration {
            Registration::Absent => 0,
            Registration::Always => ALWAYS,
            Registration::Refused => REFUSED,
            Registration::Polled(interest, mode) => {
                let mode = match mode {
                    Mode::Level => 0,
                    Mode::Oneshot => ONESHOT,
                    Mode::Edge => EDGE,
                };
                POLLED | mode | u32::from(interest.0)
            }
        };
        self.word.set(self.word.get() & !(0xff & !RETRIED) | bits);
    }

    /// The serial of the current registration: 24 bits.
    pub(crate) fn serial(&self) -> u32 {
        self.word.get() >> 8
    }

    /// A new registration begins: events of earlier ones are stale.
    pub(crate) fn next_serial(&self) {
        self.word.set(self.word.get().wrapping_add(1 << 8));
    }
}

/// The first block holds this many entries, the next as many, each further one twice as many.
const FIRST: usize = 64;
const FIRST_BITS: u32 = FIRST.ilog2();
/// Enough for every number that fits an int.
const BLOCKS: usize = 32 - FIRST_BITS as usize;

/// See the module.
#[derive(Debug)]
pub(crate) struct Table {
    blocks: [AtomicPtr<Entry>; BLOCKS],
}

/// The block that `fd` is in, its length, and the index there.
fn position(fd: c_int) -> (usize, usize, usize) {
    let fd = fd as usize;
    if fd < FIRST {
        return (0, FIRST, fd);
    }
    let bits = fd.ilog2();
    let len = 1 << bits;
    ((bits - FIRST_BITS) as usize + 1, len, fd - len)
}

impl Table {
    /// A table without a block.
    pub(crate) const fn new() -> Self {
        Self {
            blocks: [const { AtomicPtr::new(ptr::null_mut()) }; BLOCKS],
        }
    }

    /// See to it that `fd`, a number of 0 or more, has an entry. `None` when there is no memory.
    /// Any thread.
    #[inline(always)]
    pub(crate) fn reserve(&self, alloc: &Allocator, fd: c_int) -> Option<&Entry> {
        let (block, len, _) = position(fd);
        if self.blocks[block].load(Ordering::Acquire).is_null() {
            // All zero is an empty entry.
            let new = alloc.zeroed::<Entry>(len)?;
            let lost = self.blocks[block].compare_exchange(
                ptr::null_mut(),
                new.as_ptr(),
                Ordering::AcqRel,
                Ordering::Acquire,
            );
            if lost.is_err() {
                // SAFETY: ours, and nobody saw it.
                unsafe { alloc.free(new) };
            }
        }
        Some(self.entry(fd))
    }

    /// The entry of `fd`, which was reserved.
    pub(crate) fn entry(&self, fd: c_int) -> &Entry {
        let entry = self.find(fd);
        debug_assert!(entry.is_some());
        // SAFETY: a reserved number's block is there, until the table goes.
        unsafe { entry.unwrap_unchecked() }
    }

    /// The entry of `fd`, if its block was ever reserved.
    pub(crate) fn find(&self, fd: c_int) -> Option<&Entry> {
        let (block, _, index) = position(fd);
        let at = self.blocks[block].load(Ordering::Acquire);
        // SAFETY: a block is as long as `position` says, and stays until the table goes.
        (!at.is_null()).then(|| unsafe { &*at.add(index) })
    }

    /// Every entry that there is, with its number.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (c_int, &Entry)> {
        self.blocks
            .iter()
            .enumerate()
            .flat_map(|(block, at)| {
                let at = at.load(Ordering::Acquire);
                let first = if block == 0 { 0 } else { FIRST << (block - 1) };
                let len = match (at.is_null(), block) {
                    (true, _) => 0,
                    (false, 0) => FIRST,
                    (false, _) => first,
                };
                (first..first + len).map(|fd| fd as c_int)
            })
            .map(|fd| (fd, self.entry(fd)))
    }

    /// Give the blocks back.
    ///
    /// # Safety
    /// Nothing is linked in an entry, and nobody uses the table any more.
    pub(crate) unsafe fn free(&self, alloc: &Allocator) {
        for block in &self.blocks {
            if let Some(block) = NonNull::new(block.swap(ptr::null_mut(), Ordering::AcqRel)) {
                // SAFETY: from this allocator, and by the caller's promise unused.
                unsafe { alloc.free(block) };
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_entries_of_their_own() {
        let alloc = Allocator::new(None, None);
        let table = Table::new();
        assert!(table.find(5).is_none());
        let numbers: &[c_int] = if cfg!(miri) {
            &[0, 1, 63, 64, 65, 127, 128, 255, 256]
        } else {
            &[0, 1, 63, 64, 65, 127, 128, 255, 256, 1000, 19_999]
        };
        let mut at: Vec<*const Entry> = Vec::new();
        for &fd in numbers {
            let entry: *const Entry = table.reserve(&alloc, fd).expect("memory");
            assert!(!at.contains(&entry));
            at.push(entry);
        }
        for (&fd, entry) in numbers.iter().zip(&at) {
            assert!(ptr::eq(table.entry(fd), *entry));
        }
        for (fd, entry) in table.entries() {
            assert!(ptr::eq(table.entry(fd), entry));
        }
        let count = |limit| table.entries().filter(|(fd, _)| *fd < limit).count();
        assert_eq!(count(512), 512);
        let last = if cfg!(miri) { 511 } else { 32_767 };
        assert_eq!(table.entries().map(|(fd, _)| fd).max(), Some(last));
        // SAFETY: unused from here on.
        unsafe { table.free(&alloc) };
        assert_eq!(position(c_int::MAX).0, BLOCKS - 1);
    }

    #[test]
    fn a_registration_is_kept_beside_its_serial() {
        let alloc = Allocator::new(None, None);
        let table = Table::new();
        let entry = table.reserve(&alloc, 3).expect("memory");
        assert_eq!(entry.registration(), Registration::Absent);
        for read in [false, true] {
            for write in [false, true] {
                for mode in [Mode::Level, Mode::Oneshot, Mode::Edge] {
                    let want = Registration::Polled(Interest::new(read, write), mode);
                    let serial = entry.serial();
                    entry.set_registration(want);
                    assert_eq!((entry.registration(), entry.serial()), (want, serial));
                    entry.next_serial();
                    assert_eq!((entry.registration(), entry.serial()), (want, serial + 1));
                }
            }
        }
        for want in [
            Registration::Always,
            Registration::Refused,
            Registration::Absent,
        ] {
            entry.set_registration(want);
            assert_eq!(entry.registration(), want);
        }
        entry.set_retried(true);
        entry.set_registration(Registration::Refused);
        entry.next_serial();
        assert!(entry.is_retried() && entry.registration() == Registration::Refused);
        entry.set_retried(false);
        assert!(!entry.is_retried() && entry.registration() == Registration::Refused);
        let seen = entry.closes();
        entry.set_own(true);
        assert_eq!(entry.closes() & OWN, OWN);
        entry.set_own(false);
        assert_eq!(entry.closes() & OWN, 0);
        assert_ne!(
            entry.closes(),
            seen,
            "a job from before has lost the number"
        );
        // The serial goes round without touching the rest.
        entry.word.set(u32::MAX << 8);
        entry.set_registration(Registration::Always);
        entry.next_serial();
        assert_eq!(
            (entry.registration(), entry.serial()),
            (Registration::Always, 0)
        );
        // SAFETY: unused from here on.
        unsafe { table.free(&alloc) };
    }
}
