// SPDX-License-Identifier: GPL-3.0-or-later
//! The slots of a pool, in one block that begins with a description of it. A process that can read this
//! one's memory finds the blocks through the [registry](super::registry).

use std::mem::align_of;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering;

use libc::c_void;

use super::made::Made;
use super::slot::{Kind, Slot};
use super::times::Times;
use crate::alloc::Allocator;
use crate::fork;

/// The version of the layout of [`Table`] and [`Slot`]. A reader that knows another must not read on.
const VERSION: u32 = 1;

/// What precedes the slots.
#[repr(C, align(64))]
pub(crate) struct Table {
    magic: [u8; 16],
    version: u32,
    /// Where the first slot begins.
    size: u32,
    /// The distance from one slot to the next.
    slot_size: u32,
    /// How many slots there are: the loop's first, then one for each worker.
    slots: u32,
    /// The pool, as C has it.
    pool: *const c_void,
    /// The counts of jobs made.
    made: *const Made,
    /// The pool's number in this process. No two pools have the same.
    number: u64,
    /// The process that made it: see [`fork`].
    generation: u32,
    /// Where the loop's [`Times`] begin, from here, then the workers'; 0 if no times are measured.
    times: u32,
    /// The name of the pool.
    name: [u8; 16],
    block: NonNull<u8>,
}

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// The slots of a pool. The pool frees them.
pub(crate) struct Slots {
    table: NonNull<Table>,
}

// SAFETY: the table is constant once the pool runs, and slots are atomics.
unsafe impl Send for Slots {}
// SAFETY: as above.
unsafe impl Sync for Slots {}

impl Slots {
    /// Slots for a loop and `workers` workers, `timed` if they measure times. `None` if there is no memory.
    pub(crate) fn make(alloc: &Allocator, workers: usize, timed: bool) -> Option<Self> {
        let slots = u32::try_from(workers).ok()?.checked_add(1)?;
        let known = size_of::<Table>() + slots as usize * size_of::<Slot>();
        let (times, room) = match timed {
            false => (0, known),
            true => {
                let all = (slots as usize).checked_mul(size_of::<Times>())?;
                (u32::try_from(known).ok()?, known.checked_add(all)?)
            }
        };
        let block = alloc.zeroed::<u8>(room + align_of::<Table>())?;
        let pad = block.as_ptr().align_offset(align_of::<Table>());
        // SAFETY: the block is longer than what it holds by the alignment.
        let table = unsafe { block.add(pad).cast::<Table>() };
        // SAFETY: there is room. Zeroed memory is a slot, and times.
        unsafe {
            table.write(Table {
                magic: *b"nunc-stans slots",
                version: VERSION,
                size: size_of::<Table>() as u32,
                slot_size: size_of::<Slot>() as u32,
                slots,
                pool: std::ptr::null(),
                made: std::ptr::null(),
                number: NUMBER.fetch_add(1, Ordering::Relaxed),
                generation: fork::generation(),
                times,
                name: [0; 16],
                block,
            });
        }
        Some(Self { table })
    }

    /// Notes whose slots these are. No other thread knows them yet.
    pub(crate) fn belong_to(&self, pool: *const c_void, made: *const Made, name: &[u8; 16]) {
        // SAFETY: the block lives as long as this, and no other thread reads it.
        let table = unsafe { &mut *self.table.as_ptr() };
        (table.pool, table.made, table.name) = (pool, made, *name);
    }

    pub(super) fn table(&self) -> NonNull<Table> {
        self.table
    }

    fn head(&self) -> &Table {
        // SAFETY: the block lives as long as this.
        unsafe { self.table.as_ref() }
    }

    /// The pool's number in this process.
    pub(crate) fn number(&self) -> u64 {
        self.head().number
    }

    /// The name of the pool, with NULs behind it.
    pub(crate) fn name(&self) -> &[u8; 16] {
        &self.head().name
    }

    fn at(&self, index: usize) -> &Slot {
        assert!(index < self.head().slots as usize);
        // SAFETY: the slots follow the table, and there are so many.
        unsafe { self.table.add(1).cast::<Slot>().add(index).as_ref() }
    }

    /// The loop's slot.
    #[inline(always)]
    pub(crate) fn of_loop(&self) -> &Slot {
        // SAFETY: there is one more slot than workers.
        unsafe { self.table.add(1).cast().as_ref() }
    }

    /// The slot of worker number `index`.
    pub(crate) fn of_worker(&self, index: usize) -> &Slot {
        self.at(index + 1)
    }

    /// All slots: the loop's, then the workers'.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Slot> {
        (0..self.head().slots as usize).map(|index| self.at(index))
    }

    /// The workers' slots.
    pub(crate) fn workers(&self) -> impl Iterator<Item = &Slot> {
        (1..self.head().slots as usize).map(|index| self.at(index))
    }

    /// Whether times are measured.
    pub(crate) fn are_timed(&self) -> bool {
        self.head().times != 0
    }

    /// The times of the thread with this slot, if they are measured.
    #[inline(always)]
    pub(crate) fn times_of(&self, slot: &Slot) -> Option<&Times> {
        let head = self.head();
        if head.times == 0 {
            return None;
        }
        let index =
            ((&raw const *slot).addr() - (&raw const *self.of_loop()).addr()) / size_of::<Slot>();
        debug_assert!(index < head.slots as usize);
        // SAFETY: the slot is one of this block, and there are as many times as slots.
        let times = unsafe {
            let first = self.table.byte_add(head.times as usize);
            first.cast::<Times>().add(index).as_ref()
        };
        Some(times)
    }

    /// The number of workers that have work.
    pub(crate) fn busy(&self) -> usize {
        self.workers().filter(|slot| slot.is_busy()).count()
    }

    /// Frees the block.
    ///
    /// # Safety
    /// `alloc` allocated it, nobody uses a slot any more, and the registry does not have the table.
    pub(crate) unsafe fn free(&self, alloc: &Allocator) {
        // SAFETY: guaranteed by the caller.
        unsafe { alloc.free(self.head().block) };
    }
}

impl Table {
    /// The pool, if this process made it.
    pub(super) fn pool(&self) -> Option<*const c_void> {
        (!fork::is_over(self.generation)).then_some(self.pool)
    }
}

// The loop's slot is the first, and its kind says so.
const _: () = assert!(Kind::Worker as u32 == 1 && Kind::Loop as u32 == 2);
// What tools outside rely on.
const _: () = assert!(size_of::<Slot>() == 128 && size_of::<Table>() == 128);
// So that the times follow without a gap.
const _: () = assert!(align_of::<Times>() <= align_of::<Table>());
