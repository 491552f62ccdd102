// SPDX-License-Identifier: GPL-3.0-or-later
//! Detecting that this process is a forked child of the one that made a pool.
//!
//! A child has its parent's memory and descriptors, but only one of its threads. Each pool
//! remembers the generation of the process that made it; a child has another generation.
//!
//! The generation is stored in a page that the kernel wipes in every child: after fork, after
//! `_Fork`, and after a clone that copies the memory. No handler has to run for that, so nothing
//! waits around a fork. A child reads 0, which is no pool's generation. The first call there that
//! needs a generation takes a new number ([`renew`]).
//!
//! Some systems do not wipe the page: other operating systems, old kernels, and emulators that
//! accept the request and ignore it. There, a handler that runs in the child after `fork` renews
//! the number, and calls that can afford a system call compare the process ID ([`check`]).

#[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, Ordering};

/// The generation of the process that loaded the library.
const FIRST: u32 = 1;

/// Holds the generation before the page exists, and on systems that have no such page.
static UNWIPED: AtomicU32 = AtomicU32::new(FIRST);
/// Points to the generation. Never null; written only while the library is loaded.
static GENERATION: AtomicPtr<AtomicU32> = AtomicPtr::new((&raw const UNWIPED).cast_mut());
/// The kernel says that it wipes the page.
static WIPES: AtomicBool = AtomicBool::new(false);
/// The last number that this process or one of its ancestors took.
static LAST: AtomicU32 = AtomicU32::new(FIRST);
/// The ID of the process that took the current number.
static OWNER: AtomicI32 = AtomicI32::new(0);

fn word() -> &'static AtomicU32 {
    // SAFETY: it points to a static, or into a page that is never unmapped.
    unsafe { &*GENERATION.load(Ordering::Relaxed) }
}

fn pid() -> libc::pid_t {
    // SAFETY: getpid takes no argument and never fails.
    unsafe { libc::getpid() }
}

/// The generation of this process. It is not 0, and differs from that of every ancestor.
/// Async-signal-safe.
#[inline]
pub(crate) fn generation() -> u32 {
    match word().load(Ordering::Relaxed) {
        0 => renew(0),
        generation => generation,
    }
}

/// Whether `generation`, which [`generation`] once returned, belongs to another process.
#[inline(always)]
pub(crate) fn is_over(generation: u32) -> bool {
    word().load(Ordering::Relaxed) != generation
}

/// Replace `old` with a new number for this process, unless another thread has already done so.
#[cold]
#[inline(never)]
fn renew(old: u32) -> u32 {
    // Take the number before storing it: a child that is forked between the two steps takes a later
    // one.
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

/// Detect a fork that neither the page nor the handler has reported. For calls that can afford a
/// system call.
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
    // Miri does not have such pages.
    #[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
    make_page();
    // Register a handler for the child only, so that nothing waits before a fork. It does not
    // depend on its order among other handlers.
    // SAFETY: the function stays valid, because the library is never unloaded.
    unsafe { libc::pthread_atfork(None, None, Some(child)) };
}

#[cfg(all(any(target_os = "linux", target_os = "android"), not(miri)))]
fn make_page() {
    const LENGTH: usize = size_of::<AtomicU32>();
    // SAFETY: the memory is new and never unmapped, and its zeroes are a valid atomic. The page
    // takes over the current value, so a number that an earlier constructor has read stays valid.
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
    // The page was not wiped although this is a child. The second check: a handler that ran before
    // this one may already have renewed the number.
    if now != 0 && OWNER.load(Ordering::SeqCst) != pid() {
        renew(now);
    }
}
