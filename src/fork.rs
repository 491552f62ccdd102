// SPDX-License-Identifier: GPL-3.0-or-later
//! Knowing that this process is a forked child of the one that made a pool.
//!
//! A child has its parent's memory and descriptors, but none of its threads. Each pool remembers
//! the generation that it was made in; a child belongs to another.
//!
//! The number of the generation stands in a page that the kernel wipes in every child, however
//! that was made: by fork, by `_Fork`, by a clone that copies the memory. No handler has to run for
//! it, and so nothing is waited for around a fork. A child reads 0, which is no pool's generation;
//! the first that needs a number of its own there takes one ([`renew`]).
//!
//! Where the page is not wiped (other systems, old kernels, emulators that only say that they have
//! done it), a handler in the child renews the number behind `fork`, and calls that can afford a
//! system call compare the process's number ([`look`]).

#[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, Ordering};

/// The generation of the process that loaded the library.
const FIRST: u32 = 1;

/// Stands in for the page, until there is one and where there is none.
static UNWIPED: AtomicU32 = AtomicU32::new(FIRST);
/// Where the generation is: never null, written only while the library is loaded.
static GENERATION: AtomicPtr<AtomicU32> = AtomicPtr::new((&raw const UNWIPED).cast_mut());
/// The kernel says that it wipes the page.
static WIPES: AtomicBool = AtomicBool::new(false);
/// The last number that was taken in this process or in those that it comes from.
static LAST: AtomicU32 = AtomicU32::new(FIRST);
/// The process that took the number in use.
static OWNER: AtomicI32 = AtomicI32::new(0);

fn word() -> &'static AtomicU32 {
    // SAFETY: a static, or a word of a page that stays.
    unsafe { &*GENERATION.load(Ordering::Relaxed) }
}

fn pid() -> libc::pid_t {
    // SAFETY: takes nothing, never fails.
    unsafe { libc::getpid() }
}

/// The generation of this process: not 0, and no other's among those that it comes from.
/// Async-signal-safe.
#[inline]
pub(crate) fn generation() -> u32 {
    match word().load(Ordering::Relaxed) {
        0 => renew(0),
        generation => generation,
    }
}

/// Whether `generation`, which [`generation`] once returned, is not that of this process.
#[inline(always)]
pub(crate) fn is_over(generation: u32) -> bool {
    word().load(Ordering::Relaxed) != generation
}

/// Have a number of this process's own instead of `old`, unless another thread was quicker.
#[cold]
#[inline(never)]
fn renew(old: u32) -> u32 {
    // Taken first: a child that is forked between the two steps takes a later one.
    let new = LAST
        .fetch_add(1, Ordering::SeqCst)
        .wrapping_add(1)
        .max(FIRST);
    match word().compare_exchange(old, new, Ordering::SeqCst, Ordering::SeqCst) {
        Ok(_) => {
            OWNER.store(pid(), Ordering::SeqCst);
            new
        }
        Err(now) => now,
    }
}

/// For calls that can afford it: notice a fork that neither the page nor the handler has told of.
pub(crate) fn check() {
    if !WIPES.load(Ordering::Relaxed) && OWNER.load(Ordering::SeqCst) != pid() {
        renew(word().load(Ordering::SeqCst));
    }
}

#[used]
#[cfg_attr(not(target_os = "macos"), unsafe(link_section = ".init_array"))]
#[cfg_attr(target_os = "macos", unsafe(link_section = "__DATA,__mod_init_func"))]
static LOADED: extern "C" fn() = loaded;

extern "C" fn loaded() {
    OWNER.store(pid(), Ordering::SeqCst);
    // Miri has no such pages.
    #[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
    make_page();
    // In the child only: nothing is to be waited for before a fork. It does not matter what other
    // handlers do before this one.
    // SAFETY: a function that stays, since the library is never unloaded.
    unsafe { libc::pthread_atfork(None, None, Some(child)) };
}

#[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
fn make_page() {
    const LENGTH: usize = size_of::<AtomicU32>();
    // SAFETY: new memory, of the zeroes that an atomic may begin with; it is never unmapped. What
    // a constructor that ran before this one has taken from the other word stays the same.
    unsafe {
        let page = libc::mmap(
            ptr::null_mut(),
            LENGTH,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
            -1,
            0,
        );
        if page == libc::MAP_FAILED {
            return;
        }
        if libc::madvise(page, LENGTH, libc::MADV_WIPEONFORK) != 0 {
            libc::munmap(page, LENGTH);
            return;
        }
        let page: *mut AtomicU32 = page.cast();
        (*page).store(UNWIPED.load(Ordering::SeqCst), Ordering::SeqCst);
        GENERATION.store(page, Ordering::SeqCst);
    }
    WIPES.store(true, Ordering::SeqCst);
}

extern "C" fn child() {
    let now = word().load(Ordering::SeqCst);
    // Not wiped, although this is a child; a handler that ran before this one may have had it
    // renewed.
    if now != 0 && OWNER.load(Ordering::SeqCst) != pid() {
        renew(now);
    }
}
