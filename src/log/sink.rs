// SPDX-License-Identifier: GPL-3.0-or-later
//! The application's function for messages that have no pool.
//!
//! [`Sink::set`] may come while other threads are calling the function that was set before. Each
//! message goes to one function with its own argument, and who has replaced a function may free what
//! its argument points to. So the two stand in a pair that never changes, and another is set by
//! making another pair current. Who has a message is counted by a [`Grace`] from before it looks
//! which pair is current until the function has returned; who has replaced a pair waits until all
//! have left who were counted then, and gives the pair's memory back.
//!
//! Who is in a logger itself must not wait. It leaves the pair to the next that may.
//!
//! There is no lock that a fork could leave held, and a child does not wait for the threads of its
//! parent. It also keeps its parent's pairs: it may have been forked by a handler that has
//! interrupted a thread which is about to look at one.

use std::ptr::{self, NonNull};

use libc::{c_char, c_int, c_void};

use crate::fork;
use crate::perturb::perturb;
use crate::sync::grace::Grace;
use crate::sync::{AtomicPtr, Memory, Ordering, hand_over, take_over};

/// As in the header: called with the argument, the priority and the message.
pub(crate) type TextFn = unsafe extern "C" fn(*mut c_void, c_int, *const c_char);

/// A function and its argument.
struct Pair {
    text: TextFn,
    arg: *mut c_void,
    /// The process that has set them.
    generation: u32,
    /// The pair that was replaced before it; written by who replaces it.
    next: AtomicPtr<Pair>,
    /// Its own.
    memory: Memory,
}

impl Pair {
    fn new(text: TextFn, arg: *mut c_void, generation: u32) -> Option<NonNull<Self>> {
        // SAFETY: malloc takes any size, and aligns for this one.
        let at = NonNull::new(unsafe { libc::malloc(size_of::<Self>()) }.cast::<Self>())?;
        // SAFETY: memory of ours for one.
        unsafe {
            at.write(Self {
                text,
                arg,
                generation,
                next: AtomicPtr::new(ptr::null_mut()),
                memory: Memory::new(),
            });
        }
        Some(at)
    }

    /// # Safety
    /// Made by [`Pair::new`], and nobody has it any more.
    unsafe fn free(at: NonNull<Self>) {
        // SAFETY: by the caller's promise.
        unsafe {
            #[cfg(loom)]
            at.as_ref().memory.free();
            at.drop_in_place();
            libc::free(at.as_ptr().cast());
        }
    }
}

/// Where messages go that have no pool.
pub(crate) struct Sink {
    /// The pair that messages go to, or null.
    current: AtomicPtr<Pair>,
    /// Threads that may be looking at a pair or be inside its function.
    callers: Grace,
    /// Pairs that were replaced, and are not freed.
    replaced: AtomicPtr<Pair>,
}

impl Sink {
    /// No function is set.
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self {
            current: AtomicPtr::new(ptr::null_mut()),
            callers: Grace::new(),
            replaced: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// The same; loom's primitives are not made at compile time.
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            current: AtomicPtr::new(ptr::null_mut()),
            callers: Grace::new(),
            replaced: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Hand a message to the function that is set. False if there is none.
    ///
    /// # Safety
    /// The message ends in a NUL.
    pub(crate) unsafe fn write(&self, priority: c_int, message: *const c_char) -> bool {
        let pin = self.callers.enter(fork::generation());
        perturb("counted, and not looked which function is set");
        let at = self.current.load(Ordering::Acquire);
        // SAFETY: pairs are freed when all have left who may have found them current.
        let pair = unsafe { at.as_ref() };
        if let Some(pair) = pair {
            take_over(pair);
            pair.memory.used();
            // SAFETY: the application's function, called as the header says.
            unsafe { (pair.text)(pair.arg, priority, message) };
            hand_over(&raw const self.callers);
        }
        self.callers.leave(pin);
        pair.is_some()
    }

    /// From now on messages go to `text`, or nowhere. With `wait` returns only when no other thread
    /// is inside the function that was set before; the caller has cancellation disabled. False if
    /// there is no memory, and nothing was done.
    ///
    /// Woken by: the last who leaves of those that are inside now, in [`Sink::tell`].
    pub(crate) fn set(&self, text: Option<TextFn>, arg: *mut c_void, wait: bool) -> bool {
        let generation = fork::generation();
        let new = match text {
            None => ptr::null_mut(),
            Some(text) => match Pair::new(text, arg, generation) {
                Some(new) => new.as_ptr(),
                None => return false,
            },
        };
        if !new.is_null() {
            hand_over(new);
        }
        let old = self.current.swap(new, Ordering::AcqRel);
        if let Some(old) = NonNull::new(old) {
            self.keep(old);
        }
        if wait {
            self.free_replaced(generation);
        }
        true
    }

    /// A pair is replaced, and may still be looked at.
    fn keep(&self, at: NonNull<Pair>) {
        // The list is only ever taken whole, so a head that looks the same is the same.
        let mut first = self.replaced.load(Ordering::Relaxed);
        loop {
            // SAFETY: not freed before it is in the list and taken from there.
            unsafe { at.as_ref() }.next.store(first, Ordering::Relaxed);
            match self.replaced.compare_exchange_weak(
                first,
                at.as_ptr(),
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return,
                Err(now) => first = now,
            }
        }
    }

    /// Wait until nobody is inside who may have found one of the replaced pairs, and free these. If
    /// another thread has taken the caller's own, the wait is for the caller's promise alone.
    fn free_replaced(&self, generation: u32) {
        let mut next = self.replaced.swap(ptr::null_mut(), Ordering::AcqRel);
        perturb("the replaced pairs are taken, and nobody waited for");
        self.callers.wait(self.callers.now(generation), generation);
        take_over(&raw const self.callers);
        while let Some(at) = NonNull::new(next) {
            // SAFETY: in the list once; nobody else has it.
            unsafe {
                next = at.as_ref().next.load(Ordering::Relaxed);
                if at.as_ref().generation == generation {
                    Pair::free(at);
                } else {
                    self.keep(at);
                }
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, AtomicUsize};
    use std::thread;

    static SINK: Sink = Sink::new();

    /// What an argument points to, and who is to find it there.
    struct Arg {
        /// Which function it was set with. Not the function itself: one may have several addresses.
        number: usize,
        gone: AtomicBool,
        calls: AtomicUsize,
    }

    /// # Safety
    /// `arg` is an [`Arg`] that is not freed.
    unsafe fn called(number: usize, arg: *mut c_void) {
        // SAFETY: by the caller's promise.
        let arg = unsafe { &*arg.cast::<Arg>() };
        assert_eq!(arg.number, number, "of one pair");
        thread::yield_now();
        assert!(!arg.gone.load(Ordering::Relaxed), "after it was replaced");
        // One that replaces itself while it runs, now and then.
        if arg.calls.fetch_add(1, Ordering::Relaxed) == 5 {
            assert!(SINK.set(None, ptr::null_mut(), false));
        }
    }

    unsafe extern "C" fn first(arg: *mut c_void, priority: c_int, _: *const c_char) {
        assert_eq!(priority, 3);
        // SAFETY: set with such an argument.
        unsafe { called(0, arg) };
    }

    unsafe extern "C" fn second(arg: *mut c_void, priority: c_int, _: *const c_char) {
        assert_eq!(priority, 3);
        // SAFETY: set with such an argument.
        unsafe { called(1, arg) };
    }

    /// Returns what the others may still look at, where it is.
    #[allow(clippy::vec_box)]
    fn set_and_replace() -> Vec<Box<Arg>> {
        let mut args = Vec::new();
        for round in 0..if cfg!(miri) { 20 } else { 2000 } {
            let number = round % 2;
            let text: TextFn = [first, second][number];
            let arg = Box::new(Arg {
                number,
                gone: AtomicBool::new(false),
                calls: AtomicUsize::new(0),
            });
            let at = ptr::from_ref(&*arg).cast_mut().cast();
            assert!(SINK.set(Some(text), at, true));
            assert!(SINK.set((round % 3 == 0).then_some(text), at, true));
            assert!(SINK.set(None, ptr::null_mut(), true));
            // Whoever else has replaced it, all have left since.
            arg.gone.store(true, Ordering::Relaxed);
            args.push(arg);
        }
        args
    }

    // One test, since there is one sink that these functions know.
    #[test]
    fn messages_go_to_one_pair_and_never_to_one_that_was_replaced() {
        // SAFETY: the message is a C string.
        assert!(!unsafe { SINK.write(3, c"".as_ptr()) }, "none is set");
        for setters in [1, 2] {
            let over = AtomicBool::new(false);
            thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        while !over.load(Ordering::Relaxed) {
                            // SAFETY: as above.
                            unsafe { SINK.write(3, c"".as_ptr()) };
                        }
                    });
                }
                let setting: Vec<_> = (0..setters).map(|_| scope.spawn(set_and_replace)).collect();
                let args: Vec<_> = setting.into_iter().map(|one| one.join()).collect();
                over.store(true, Ordering::Relaxed);
                args
            });
        }
        assert!(SINK.set(None, ptr::null_mut(), true));
        assert!(SINK.replaced.load(Ordering::Relaxed).is_null());
        assert!(!SINK.callers.is_occupied());
    }
}
