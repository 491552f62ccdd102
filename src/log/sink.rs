// SPDX-License-Identifier: GPL-3.0-or-later
//! The application's function for messages that have no pool.
//!
//! [`set`] may come while other threads are calling the function that was set before. Each message
//! goes to one function with its own argument, and who has replaced a function may free what its
//! argument points to. So the two stand in a slot, with a count of the threads that use them:
//!
//! * Who has a message counts himself in the slot that is current, and then looks whether it still
//!   is. If it is, what it holds stays until he has counted himself out. If not, he looks again.
//! * Who sets another function makes another slot current, and then looks whether anybody is
//!   counted in the old one. The order of these steps is total, so each sees the other, or is seen.
//!
//! Slots are used again and never freed: who counts himself in too late has hold of a slot, and of
//! nothing that is in it. There is no lock that a fork could leave held. A child's slots may count
//! threads that it does not have; it never waits for those, and never uses these slots again.

use std::cell::UnsafeCell;
use std::ptr;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicUsize, Ordering};

use libc::{c_char, c_int, c_void};

use crate::perturb::perturb;

/// As in the header: called with the argument, the priority and the message.
pub(crate) type TextFn = unsafe extern "C" fn(*mut c_void, c_int, *const c_char);

/// The slot is current, or somebody fills or empties it.
const TAKEN: usize = 1;
/// Somebody waits until nobody is counted.
const WAITED: usize = 2;
/// One thread.
const USER: usize = 4;

/// A function and its argument.
struct Slot {
    /// The bits above, and how many threads are counted. Zero: free.
    users: AtomicUsize,
    text: AtomicPtr<c_void>,
    arg: AtomicPtr<c_void>,
    /// The process that has set them.
    pid: AtomicI32,
    /// Posted by the last to leave, if that is waited for.
    left: UnsafeCell<libc::sem_t>,
    /// The slot made before it.
    next: AtomicPtr<Slot>,
}

/// The slot that messages go to, or null.
static CURRENT: AtomicPtr<Slot> = AtomicPtr::new(ptr::null_mut());

/// All slots: as many as were ever in use at once.
static SLOTS: AtomicPtr<Slot> = AtomicPtr::new(ptr::null_mut());

/// Hand a message to the function that is set. False if there is none.
///
/// # Safety
/// The message ends in a NUL.
pub(super) unsafe fn tell(priority: c_int, message: *const c_char) -> bool {
    loop {
        let at = CURRENT.load(Ordering::SeqCst);
        // SAFETY: slots are never freed.
        let Some(slot) = (unsafe { at.as_ref() }) else {
            return false;
        };
        perturb("about to use a slot, and not counted");
        slot.users.fetch_add(USER, Ordering::SeqCst);
        let current = CURRENT.load(Ordering::SeqCst) == at;
        if current {
            let text = slot.text.load(Ordering::Relaxed);
            // SAFETY: `set` stored a function of this very type.
            let text = unsafe { std::mem::transmute::<*mut c_void, TextFn>(text) };
            // SAFETY: the application's function, called as the header says.
            unsafe { text(slot.arg.load(Ordering::Relaxed), priority, message) };
        }
        slot.leave();
        if current {
            return true;
        }
    }
}

/// From now on messages go to `text`, or nowhere. With `wait` returns only when no other thread is
/// inside the function that was set before. False if there is no memory, and nothing was done.
pub(super) fn set(text: Option<TextFn>, arg: *mut c_void, wait: bool) -> bool {
    // SAFETY: takes nothing, never fails.
    let pid = unsafe { libc::getpid() };
    let new = match text {
        None => ptr::null_mut(),
        Some(text) => {
            let Some(slot) = Slot::take() else {
                return false;
            };
            slot.text.store(text as *mut c_void, Ordering::Relaxed);
            slot.arg.store(arg, Ordering::Relaxed);
            slot.pid.store(pid, Ordering::Relaxed);
            ptr::from_ref(slot).cast_mut()
        }
    };
    let old = CURRENT.swap(new, Ordering::SeqCst);
    perturb("the old slot is not current, and nobody waited for");
    // SAFETY: slots are never freed.
    if let Some(slot) = unsafe { old.as_ref() } {
        if wait && slot.pid.load(Ordering::Relaxed) == pid {
            slot.wait();
        }
        slot.users.fetch_and(!TAKEN, Ordering::SeqCst);
    }
    true
}

impl Slot {
    /// A slot that nobody else has.
    fn take() -> Option<&'static Self> {
        let mut at = SLOTS.load(Ordering::Acquire);
        // SAFETY: slots are never freed.
        while let Some(slot) = unsafe { at.as_ref() } {
            let taken = slot
                .users
                .compare_exchange(0, TAKEN, Ordering::SeqCst, Ordering::Relaxed);
            if taken.is_ok() {
                return Some(slot);
            }
            at = slot.next.load(Ordering::Relaxed);
        }
        // SAFETY: zeroed memory is a slot, but for its semaphore, which is made here. Nobody else
        // knows it before it is in the list.
        let slot: &'static Self = unsafe {
            let at = libc::calloc(1, size_of::<Self>()).cast::<Self>();
            libc::sem_init(at.as_ref()?.left.get(), 0, 0);
            &*at
        };
        slot.users.store(TAKEN, Ordering::Relaxed);
        let mut first = SLOTS.load(Ordering::Relaxed);
        loop {
            slot.next.store(first, Ordering::Relaxed);
            let this = ptr::from_ref(slot).cast_mut();
            match SLOTS.compare_exchange(first, this, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some(slot),
                Err(now) => first = now,
            }
        }
    }

    /// Whoever waits is told once: by the step that takes this word to TAKEN alone.
    fn nobody_is_left(&self) -> bool {
        let waited = TAKEN | WAITED;
        self.users
            .compare_exchange(waited, TAKEN, Ordering::SeqCst, Ordering::Relaxed)
            .is_ok()
    }

    /// The calling thread does not use it any more.
    fn leave(&self) {
        let before = self.users.fetch_sub(USER, Ordering::SeqCst);
        if before == TAKEN | WAITED | USER && self.nobody_is_left() {
            perturb("nobody is left, and nobody told");
            // SAFETY: made with the slot. Where it is waited for, it is posted once.
            unsafe { libc::sem_post(self.left.get()) };
        }
    }

    /// The slot is ours and not current any more: wait until nobody is counted. Who is counted
    /// afterwards was late, and leaves.
    ///
    /// Woken by: the last to leave.
    fn wait(&self) {
        self.users.fetch_or(WAITED, Ordering::SeqCst);
        if self.nobody_is_left() {
            return;
        }
        // SAFETY: as in `leave`.
        while unsafe { libc::sem_wait(self.left.get()) } != 0 && crate::sys::errno() == libc::EINTR
        {
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    /// What an argument points to, and who is to find it there.
    struct Arg {
        text: TextFn,
        gone: AtomicBool,
        calls: AtomicUsize,
    }

    /// # Safety
    /// `arg` is an [`Arg`] that is not freed.
    unsafe fn called(text: TextFn, arg: *mut c_void) {
        // SAFETY: by the caller's promise.
        let arg = unsafe { &*arg.cast::<Arg>() };
        assert_eq!(arg.text as usize, text as usize, "of one pair");
        thread::yield_now();
        assert!(!arg.gone.load(Ordering::Relaxed), "after it was replaced");
        arg.calls.fetch_add(1, Ordering::Relaxed);
    }

    unsafe extern "C" fn first(arg: *mut c_void, priority: c_int, _: *const c_char) {
        assert_eq!(priority, 3);
        // SAFETY: set with such an argument.
        unsafe { called(first, arg) };
    }

    unsafe extern "C" fn second(arg: *mut c_void, priority: c_int, _: *const c_char) {
        assert_eq!(priority, 3);
        // SAFETY: set with such an argument.
        unsafe { called(second, arg) };
    }

    /// Returns what the others may still look at, where it is.
    #[allow(clippy::vec_box)]
    fn set_and_replace(alone: bool) -> Vec<Box<Arg>> {
        let mut args = Vec::new();
        for round in 0..2000 {
            let text: TextFn = if round % 2 == 0 { first } else { second };
            let arg = Box::new(Arg {
                text,
                gone: AtomicBool::new(false),
                calls: AtomicUsize::new(0),
            });
            let at = ptr::from_ref(&*arg).cast_mut().cast();
            assert!(set(Some(text), at, true));
            assert!(set((round % 3 == 0).then_some(text), at, true));
            assert!(set(None, ptr::null_mut(), true));
            arg.gone.store(alone, Ordering::Relaxed);
            args.push(arg);
        }
        args
    }

    // One test, since there is one current slot.
    #[test]
    fn messages_go_to_one_pair_and_never_to_one_that_was_replaced() {
        // SAFETY: the message is a C string.
        assert!(!unsafe { tell(3, c"".as_ptr()) }, "none is set");
        // A setter by itself may free what it has replaced. Of two, one may have replaced what the
        // other has set, and wait for it still.
        for setters in [1, 2] {
            let over = AtomicBool::new(false);
            thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        while !over.load(Ordering::Relaxed) {
                            // SAFETY: as above.
                            unsafe { tell(3, c"".as_ptr()) };
                        }
                    });
                }
                let setting: Vec<_> = (0..setters)
                    .map(|_| scope.spawn(|| set_and_replace(setters == 1)))
                    .collect();
                let args: Vec<_> = setting.into_iter().map(|one| one.join()).collect();
                over.store(true, Ordering::Relaxed);
                args
            });
        }
        let mut slots = 0;
        let mut at = SLOTS.load(Ordering::Relaxed);
        // SAFETY: slots are never freed.
        while let Some(slot) = unsafe { at.as_ref() } {
            assert_eq!(slot.users.load(Ordering::Relaxed), 0);
            slots += 1;
            at = slot.next.load(Ordering::Relaxed);
        }
        assert!(slots <= 5, "{slots} slots for two threads that set");
    }
}
