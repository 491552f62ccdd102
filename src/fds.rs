// SPDX-License-Identifier: GPL-3.0-or-later
//! The descriptor table: which jobs watch which descriptor, and which registration the poller has.
//!
//! The table is an array of blocks, each twice as long as the one before, and never moves an entry.
//! The call that makes a job reserves its block, on any thread, so arming never needs memory.
//! Except for the count of closes, only the loop uses the contents of an entry.

use std::cell::Cell;
use std::mem::offset_of;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};

use libc::c_int;

use crate::alloc::Allocator;
use crate::confined::LoopOnly;
use crate::list::Head;
use crate::symbol::Field;

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

    /// The directions that are in both sets.
    pub(crate) fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// The directions that are in either set.
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
    /// Level-triggered, at every wait while it is ready: for jobs that run in the loop, which are
    /// usually armed again at once.
    Level,
    /// Oneshot, once until it is registered again: for jobs that run in workers.
    Oneshot,
    /// Edge-triggered, at each change: while there is urgent data, which would otherwise be
    /// reported by every wait.
    Edge,
}

/// The registration that the poller has of a descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registration {
    /// None.
    Absent,
    /// None: the poller refused the descriptor, for lack of something that may become available.
    Refused,
    /// None: the descriptor cannot be polled and is always ready, as files are.
    Always,
    /// Registered for these directions in this mode, under the entry's serial.
    Polled(Interest, Mode),
}

/// The entry of one descriptor number.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The jobs that have been armed on the file that the number refers to now.
    pub(crate) jobs: LoopOnly<Head>,
    /// Twice the number of times that the pool has closed or released the number, plus [`OWN`] if
    /// it is the pool's. A job that was made when this had another value was made for another file.
    closes: AtomicU32,
    /// The serial in the upper 24 bits, the registration in the lower 8.
    word: LoopOnly<Cell<u32>>,
}

// Every thread may refer to entries, but the table's atomic pointers keep the compiler from
// checking that.
const _: fn() = || {
    fn is_sync<T: Sync>() {}
    is_sync::<Entry>();
};

/// Bits of [`Entry::word`], above those of the interest. The descriptor is registered, and how; or
/// it is not, and why.
const POLLED: u32 = 1 << 2;
const ONESHOT: u32 = 1 << 3;
const EDGE: u32 = 1 << 4;
const ALWAYS: u32 = 1 << 5;
const REFUSED: u32 = 1 << 6;
/// The descriptor was refused, and is in the list of those to retry.
const RETRIED: u32 = 1 << 7;

/// Bit of [`Entry::closes`]: the number belongs to one of the pool's own descriptors.
pub(crate) const OWN: u32 = 1;

impl Entry {
    /// The current value of the count of closes. Any thread may call this.
    pub(crate) fn closes(&self) -> u32 {
        self.closes.load(Ordering::SeqCst)
    }

    /// Count a close: the pool is about to close the number.
    pub(crate) fn count_close(&self) {
        self.closes.fetch_add(2, Ordering::SeqCst);
    }

    /// Record whether the number belongs to one of the pool's own descriptors. Any thread may call
    /// this.
    pub(crate) fn set_own(&self, own: bool) {
        // Either change adds one: a job that was made for the number before was made for another
        // file.
        let change =
            |closes: u32| (closes & OWN != u32::from(own)).then(|| closes.wrapping_add(OWN));
        let (store, load) = (Ordering::SeqCst, Ordering::SeqCst);
        // An error means that nothing had to change.
        let _ = self.closes.fetch_update(store, load, change);
    }

    /// Whether it is in the list of descriptors to retry.
    pub(crate) fn is_retried(&self) -> bool {
        self.word.get() & RETRIED != 0
    }

    /// Record whether it is in the list of descriptors to retry.
    pub(crate) fn set_retried(&self, retried: bool) {
        let rest = self.word.get() & !RETRIED;
        self.word.set(rest | if retried { RETRIED } else { 0 });
    }

    /// The registration that the poller has.
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

    /// Record the registration that the poller has now.
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

    /// Take the next serial for a new registration: events of earlier ones are stale.
    pub(crate) fn next_serial(&self) {
        self.word.set(self.word.get().wrapping_add(1 << 8));
    }
}

/// The number of entries in the first block. The second is as long, and each further block is twice
/// as long as the one before it.
const FIRST: usize = 64;
const FIRST_BITS: u32 = FIRST.ilog2();
/// Enough blocks for every number that fits in an int.
const BLOCKS: usize = 32 - FIRST_BITS as usize;

/// The descriptor table. See the module.
#[derive(Debug)]
pub(crate) struct Table {
    blocks: [AtomicPtr<Entry>; BLOCKS],
}

/// See [`layout`](crate::layout). A table begins with the pointers to its blocks.
pub(crate) const FDS_LAYOUT: &[Field] = &[
    ("fds.blocks", offset_of!(Table, blocks), size_of::<Table>()),
    ("entry.jobs", offset_of!(Entry, jobs), size_of::<Head>()),
    ("ENTRY", size_of::<Entry>(), 0),
    ("FIRST", FIRST, 0),
];

/// The block that holds `fd`, the length of that block, and the index of `fd` in it.
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
    /// An empty table.
    pub(crate) const fn new() -> Self {
        Self {
            blocks: [const { AtomicPtr::new(ptr::null_mut()) }; BLOCKS],
        }
    }

    /// Make sure that `fd`, which is not negative, has an entry. `None` if there is no memory. Any
    /// thread may call this.
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
                // SAFETY: `alloc` made it, and the failed exchange published it to no other thread.
                unsafe { alloc.free(new) };
            }
        }
        Some(self.entry(fd))
    }

    /// The entry of `fd`, which must be reserved.
    pub(crate) fn entry(&self, fd: c_int) -> &Entry {
        let entry = self.find(fd);
        debug_assert!(entry.is_some());
        // SAFETY: `fd` is reserved, and a block stays until the table is freed, so `find` found it.
        unsafe { entry.unwrap_unchecked() }
    }

    /// The entry of `fd`, if its block has been reserved.
    pub(crate) fn find(&self, fd: c_int) -> Option<&Entry> {
        let (block, _, index) = position(fd);
        let at = self.blocks[block].load(Ordering::Acquire);
        // SAFETY: `index` is below the length of the block, by `position`; a block stays until the
        // table is freed.
        (!at.is_null()).then(|| unsafe { &*at.add(index) })
    }

    /// The first number after the missing block of `fd`; `None` if there is none.
    pub(crate) fn next_block(&self, fd: c_int) -> Option<c_int> {
        let (_, len, index) = position(fd);
        c_int::try_from(fd as usize - index + len).ok()
    }

    /// All entries that exist, with their numbers.
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

    /// Free all blocks.
    ///
    /// # Safety
    /// No job is linked in an entry, and no thread uses the table any more.
    pub(crate) unsafe fn free(&self, alloc: &Allocator) {
        for block in &self.blocks {
            if let Some(block) = NonNull::new(block.swap(ptr::null_mut(), Ordering::AcqRel)) {
                // SAFETY: `reserve` got the block from this allocator; by the caller's promise,
                // nothing uses it.
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
        // SAFETY: no job is linked, and nothing uses the table after this.
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
        assert_ne!(entry.closes(), seen, "an earlier job has lost the number");
        // When the serial overflows, the other bits stay.
        entry.word.set(u32::MAX << 8);
        entry.set_registration(Registration::Always);
        entry.next_serial();
        assert_eq!(
            (entry.registration(), entry.serial()),
            (Registration::Always, 0)
        );
        // SAFETY: no job is linked, and nothing uses the table after this.
        unsafe { table.free(&alloc) };
    }
}
