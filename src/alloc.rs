// SPDX-License-Identifier: GPL-3.0-or-later
//! The application's allocator, or libc's.
//!
//! Each pool keeps the functions of its own config. Only `calloc` and `free` are used, so an
//! application that sets these two has set them all. What they return is zeroed and aligned for
//! any C type; [`Allocator::aligned`] aligns further where Rust needs more.

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
    /// Either of them is the application's.
    custom: bool,
}

thread_local! {
    /// Set while a function of the application's allocator runs on this thread, so that what it
    /// might make us log is dropped instead of recursing.
    static ALLOCATING: Cell<bool> = const { Cell::new(false) };
}

/// Whether the calling thread is inside an allocator of the application's.
pub(crate) fn allocating() -> bool {
    ALLOCATING.get()
}

/// What `calloc` promises: alignment for any C type.
const C_ALIGN: usize = 2 * size_of::<usize>();

impl Allocator {
    /// The config's functions; for each that is missing, libc's.
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

    /// Whether one of its functions is the application's.
    pub(crate) fn is_custom(&self) -> bool {
        self.custom
    }

    /// Zeroed memory for `count` values of `T`, or `None` when there is none.
    pub(crate) fn zeroed<T>(&self, count: usize) -> Option<NonNull<T>> {
        const { assert!(align_of::<T>() <= C_ALIGN) };
        // An application's calloc need not look whether the product of the two overflows.
        count.checked_mul(size_of::<T>())?;
        // SAFETY: calloc takes any two sizes.
        let block = self.guarded(|| unsafe { (self.calloc)(count, size_of::<T>()) });
        NonNull::new(block.cast())
    }

    /// Memory for one `T`, uninitialised. `None` when there is none.
    ///
    /// From `calloc` if that is the application's; else from libc's malloc, which finds memory of
    /// the size of a job much sooner.
    pub(crate) fn block<T>(&self) -> Option<NonNull<T>> {
        const { assert!(align_of::<T>() <= C_ALIGN) };
        if self.custom {
            return self.zeroed(1);
        }
        // SAFETY: malloc takes any size.
        NonNull::new(unsafe { libc::malloc(size_of::<T>()) }.cast())
    }

    /// Give back what [`Allocator::zeroed`] or [`Allocator::block`] gave.
    ///
    /// # Safety
    /// `block` came from this allocator and nobody uses it any more.
    pub(crate) unsafe fn free<T>(&self, block: NonNull<T>) {
        // SAFETY: by the caller's promise.
        self.guarded(|| unsafe { (self.free)(block.as_ptr().cast()) });
    }

    /// Call a function of the allocator, known to [`allocating`] if it is the application's.
    fn guarded<T>(&self, call: impl FnOnce() -> T) -> T {
        if !self.custom {
            return call();
        }
        // The application's own code may have cancellation points.
        let _cancel = CancelGuard::new();
        ALLOCATING.set(true);
        let result = call();
        ALLOCATING.set(false);
        result
    }

    /// A place for one `T` of any alignment, uninitialised; and the block to free afterwards.
    pub(crate) fn aligned<T>(&self) -> Option<(NonNull<T>, NonNull<u8>)> {
        let block = self.zeroed::<u8>(size_of::<T>() + align_of::<T>())?;
        let pad = block.as_ptr().align_offset(align_of::<T>());
        // SAFETY: pad < align_of::<T>(), by which the block is longer than T.
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
            // SAFETY: just allocated, unused.
            unsafe { alloc.free(block) };
        }
    }
}
