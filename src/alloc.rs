// SPDX-License-Identifier: GPL-3.0-or-later
//! The application's allocator, or libc's.
//!
//! Each pool keeps the functions of its own config. It calls only `calloc` and `free`, so an
//! application that sets these two controls every allocation. `calloc` returns memory that is
//! zeroed and aligned for any C type; [`Allocator::aligned`] aligns further where Rust needs more.

use std::cell::Cell;
use std::mem::{align_of, size_of};
use std::ptr::NonNull;

use libc::{c_void, size_t};

use crate::sys::CancelGuard;

/// The functions that one pool allocates with.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allocator {
    calloc: unsafe extern "C" fn(size_t, size_t) -> *mut c_void,
    free: unsafe extern "C" fn(*mut c_void),
    /// At least one of them is the application's.
    custom: bool,
}

thread_local! {
    /// Set while a function of the application's allocator runs on this thread. A message that we
    /// would log meanwhile is dropped instead of recursing.
    static ALLOCATING: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread is inside an application's allocator.
pub(crate) fn allocating() -> bool {
    ALLOCATING.get()
}

/// The alignment that `calloc` promises: enough for any C type.
const C_ALIGN: usize = 2 * size_of::<usize>();

impl Allocator {
    /// The config's functions; libc's for each that is missing.
    pub(crate) fn new(
        calloc: Option<unsafe extern "C" fn(size_t, size_t) -> *mut c_void>,
        free: Option<unsafe extern "C" fn(*mut c_void)>,
    ) -> Self {
        Self {
            custom: calloc.is_some() || free.is_some(),
            calloc: calloc.unwrap_or(libc::calloc),
            free: free.unwrap_or(libc::free),
        }
    }

    /// Whether at least one of its functions is the application's.
    pub(crate) fn is_custom(&self) -> bool {
        self.custom
    }

    /// Zeroed memory for `count` values of `T`, or `None` if there is none.
    pub(crate) fn zeroed<T>(&self, count: usize) -> Option<NonNull<T>> {
        const { assert!(align_of::<T>() <= C_ALIGN) };
        // An application's calloc may not check whether the product overflows.
        count.checked_mul(size_of::<T>())?;
        // SAFETY: calloc accepts any two sizes.
        let block = self.guarded(|| unsafe { (self.calloc)(count, size_of::<T>()) });
        NonNull::new(block.cast())
    }

    /// Uninitialised memory for one `T`, or `None` if there is none.
    ///
    /// It comes from the application's `calloc` if there is one, else from libc's malloc, which is
    /// much faster than calloc for a block of the size of a job.
    pub(crate) fn block<T>(&self) -> Option<NonNull<T>> {
        const { assert!(align_of::<T>() <= C_ALIGN) };
        if self.custom {
            return self.zeroed(1);
        }
        // SAFETY: malloc accepts any size.
        NonNull::new(unsafe { libc::malloc(size_of::<T>()) }.cast())
    }

    /// Free memory that came from [`Allocator::zeroed`] or [`Allocator::block`].
    ///
    /// # Safety
    /// `block` came from this allocator, and no thread uses it any more.
    pub(crate) unsafe fn free<T>(&self, block: NonNull<T>) {
        // SAFETY: the caller promises that `block` came from this allocator and is unused.
        self.guarded(|| unsafe { (self.free)(block.as_ptr().cast()) });
    }

    /// Call a function of the allocator. If it is the application's, [`allocating`] is true
    /// meanwhile.
    fn guarded<T>(&self, call: impl FnOnce() -> T) -> T {
        if !self.custom {
            return call();
        }
        // The application's code may contain cancellation points.
        let _cancel = CancelGuard::new();
        ALLOCATING.set(true);
        let result = call();
        ALLOCATING.set(false);
        result
    }

    /// An uninitialised place for one `T` of any alignment, and the block to free afterwards.
    pub(crate) fn aligned<T>(&self) -> Option<(NonNull<T>, NonNull<u8>)> {
        let block = self.zeroed::<u8>(size_of::<T>() + align_of::<T>())?;
        let pad = block.as_ptr().align_offset(align_of::<T>());
        // SAFETY: pad < align_of::<T>(), and the block is longer than T by align_of::<T>().
        Some((unsafe { block.add(pad) }.cast(), block))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_aligned() {
        #[repr(align(256))]
        struct Wide(#[allow(dead_code)] [u8; 300]);
        let alloc = Allocator::new(None, None);
        for _ in 0..100 {
            let (place, block) = alloc.aligned::<Wide>().expect("memory");
            assert_eq!(place.as_ptr() as usize % 256, 0);
            // SAFETY: the block was just allocated and is unused.
            unsafe { alloc.free(block) };
        }
    }
}
