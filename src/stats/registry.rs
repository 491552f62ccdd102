// SPDX-License-Identifier: GPL-3.0-or-later
//! Where the pools of this process are.
//!
//! The registry is a list of places, which are never freed. A pool claims a free place by one
//! compare-and-swap, and gives it back at its end. There is no lock, so a fork leaves none held. A child
//! inherits the places of its parent's pools, and skips them.
//!
//! A thread that walks the list is inside a [grace period](crate::sync::grace). A pool that leaves the list
//! waits for those that were inside then, and only for those: nothing of the application's runs inside.
//!
//! The first places lie in a section of their own, `nunc_stans_pools`. Debuggers and `ns-top` find it in the
//! file of the library by that name, stripped or not.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

use libc::c_void;

use super::table::{Slots, Table};
use crate::fork;
use crate::perturb::perturb;
use crate::sync::grace::Grace;

const PLACES: usize = 29;

/// A number of places.
#[repr(C)]
struct Chunk {
    magic: [u8; 16],
    version: u32,
    places: u32,
    /// Null if the place is free.
    pools: [AtomicPtr<Table>; PLACES],
    /// The next chunk, or null.
    more: AtomicPtr<Chunk>,
}

impl Chunk {
    const fn new() -> Self {
        Self {
            magic: *b"nunc-stans pools",
            version: 1,
            places: PLACES as u32,
            pools: [const { AtomicPtr::new(ptr::null_mut()) }; PLACES],
            more: AtomicPtr::new(ptr::null_mut()),
        }
    }
}

#[used]
#[cfg_attr(target_os = "linux", unsafe(link_section = "nunc_stans_pools"))]
static POOLS: Chunk = Chunk::new();

/// The threads that walk the list.
#[cfg(not(loom))]
static READERS: Grace = Grace::new();
#[cfg(loom)]
loom::lazy_static! {
    static ref READERS: Grace = Grace::new();
}

/// The chunks, from the first on.
fn chunks() -> impl Iterator<Item = &'static Chunk> {
    let mut next: *const Chunk = &raw const POOLS;
    std::iter::from_fn(move || {
        // SAFETY: a chunk is never freed.
        let chunk = unsafe { next.as_ref() }?;
        next = chunk.more.load(Ordering::Acquire);
        Some(chunk)
    })
}

fn places() -> impl Iterator<Item = &'static AtomicPtr<Table>> {
    chunks().flat_map(|chunk| chunk.pools.iter())
}

/// Adds a pool. False if there is no memory for more places.
pub(crate) fn enroll(slots: &Slots) -> bool {
    let table = slots.table().as_ptr();
    let claim = |place: &AtomicPtr<Table>| {
        let free = ptr::null_mut();
        let claimed = place.compare_exchange(free, table, Ordering::AcqRel, Ordering::Relaxed);
        claimed.is_ok()
    };
    while !places().any(claim) {
        let Some(last) = chunks().last() else {
            return false;
        };
        // From libc, since it outlives every pool.
        // SAFETY: malloc takes any size.
        let new = unsafe { libc::malloc(size_of::<Chunk>()) }.cast::<Chunk>();
        if new.is_null() {
            return false;
        }
        // SAFETY: there is room, and nobody else knows it. If another thread was quicker, it is free.
        unsafe {
            new.write(Chunk::new());
            let none = ptr::null_mut();
            let added = last
                .more
                .compare_exchange(none, new, Ordering::AcqRel, Ordering::Relaxed);
            if added.is_err() {
                libc::free(new.cast());
            }
        }
    }
    true
}

/// Takes a pool off the list, if it is there, and waits for the threads that may have found it there. The
/// caller has disabled cancellation.
pub(crate) fn strike(slots: &Slots) {
    let table = slots.table().as_ptr();
    let found = places().find(|place| place.load(Ordering::Relaxed) == table);
    let Some(place) = found else {
        return;
    };
    place.store(ptr::null_mut(), Ordering::SeqCst);
    perturb("off the list of pools, and readers not waited for");
    let generation = fork::generation();
    READERS.wait(READERS.now(generation), generation);
}

/// Calls `see` with each pool of this process, which stays while it runs. `see` must call none of the
/// application's code.
pub(crate) fn each(mut see: impl FnMut(*const c_void)) {
    let generation = fork::generation();
    let pin = READERS.enter(generation);
    for place in places() {
        // SAFETY: a table in the list stays until the readers that can have found it have left.
        if let Some(table) = unsafe { place.load(Ordering::SeqCst).as_ref() } {
            table.pool().into_iter().for_each(&mut see);
        }
    }
    READERS.leave(pin);
}
