// SPDX-License-Identifier: GPL-3.0-or-later
//! The application's function for messages that belong to no pool.
//!
//! [`Sink::set`] may replace the function while other threads are calling it. Each call must get
//! the function together with its own argument, and the thread that has replaced a function may
//! free what the old argument points to. So function and argument form an immutable pair, and
//! setting another function makes another pair current. A thread with a message enters a [`Grace`]
//! before it loads the current pair, and leaves after the function has returned. The thread that
//! has replaced a pair waits for the grace period, and then frees the pair.
//!
//! A thread that is itself inside a logger must not wait. It leaves the pair to the next thread
//! that may.
//!
//! There is no lock that a fork could leave held, and a child does not wait for its parent's
//! threads. A child also never frees its parent's pairs: a signal handler may have forked it in a
//! thread that is about to look at one.

use std::ptr::{self, NonNull};

use libc::{c_char, c_int, c_void};

use crate::fork;
use crate::perturb::perturb;
use crate::sync::grace::Grace;
use crate::sync::{AtomicPtr, Memory, Ordering, tsan_acquire, tsan_release};

/// The type from the header: called with the argument, the priority and the message.
pub(crate) type TextFn = unsafe extern "C" fn(*mut c_void, c_int, *const c_char);

/// A function and its argument.
struct Pair {
    text: TextFn,
    arg: *mut c_void,
    /// The generation of the process that set them.
    generation: u32,
    /// The pair that was replaced before this one; the thread that replaces this one writes it.
    next: AtomicPtr<Pair>,
    /// The pair's own memory, for models.
    memory: Memory,
}

impl Pair {
    fn new(text: TextFn, arg: *mut c_void, generation: u32) -> Option<NonNull<Self>> {
        // SAFETY: malloc takes any size, and aligns for this type.
        let at = NonNull::new(unsafe { libc::malloc(size_of::<Self>()) }.cast::<Self>())?;
        // SAFETY: the memory is ours, and has room for one pair.
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
    /// `at` came from [`Pair::new`], and no thread uses it any more.
    unsafe fn free(at: NonNull<Self>) {
        // SAFETY: the caller promises that `at` came from `new` and is unused.
        unsafe {
            #[cfg(loom)]
            at.as_ref().memory.free();
            at.drop_in_place();
            libc::free(at.as_ptr().cast());
        }
    }
}

/// Where messages that belong to no pool go.
pub(crate) struct Sink {
    /// The pair that gets the messages, or null.
    current: AtomicPtr<Pair>,
    /// Threads that may be looking at a pair or may be inside its function.
    callers: Grace,
    /// Pairs that were replaced and are not yet freed.
    replaced: AtomicPtr<Pair>,
}

impl Sink {
    /// A sink without a function.
    #[cfg(not(loom))]
    pub(crate) const fn new() -> Self {
        Self {
            current: AtomicPtr::new(ptr::null_mut()),
            callers: Grace::new(),
            replaced: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// The same for loom, whose primitives have no const constructors.
    #[cfg(loom)]
    pub(crate) fn new() -> Self {
        Self {
            current: AtomicPtr::new(ptr::null_mut()),
            callers: Grace::new(),
            replaced: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Pass a message to the current function. Returns false if there is none.
    ///
    /// # Safety
    /// `message` ends in a NUL.
    pub(crate) unsafe fn write(&self, priority: c_int, message: *const c_char) -> bool {
        let pin = self.callers.enter(fork::generation());
        perturb("counted, and not looked which function is set");
        let at = self.current.load(Ordering::Acquire);
        // SAFETY: a pair is freed only after every thread that may have found it current has left.
        let pair = unsafe { at.as_ref() };
        if let Some(pair) = pair {
            tsan_acquire(pair);
            pair.memory.used();
            // SAFETY: the pair holds the application's function and its argument, called as the
            // header says.
            unsafe { (pair.text)(pair.arg, priority, message) };
            tsan_release(&raw const self.callers);
        }
        self.callers.leave(pin);
        pair.is_some()
    }

    /// Send all later messages to `text`, or nowhere. With `wait`, returns only when no other
    /// thread is inside the function that was set before; the caller has disabled cancellation.
    /// Returns false if there is no memory; then nothing has changed.
    ///
    /// Woken by: the last to leave of the threads that are inside now, in [`Sink::write`].
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
            tsan_release(new);
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

    /// Add a replaced pair to the list. Other threads may still be looking at it.
    fn keep(&self, at: NonNull<Pair>) {
        // No ABA problem: the list is only ever taken as a whole, so an equal head means an equal
        // list.
        let mut first = self.replaced.load(Ordering::Relaxed);
        loop {
            // SAFETY: the pair is not freed before it is in the list and is taken from there.
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

    /// Wait until every thread that may have found a replaced pair current has left, then free
    /// these pairs. If another thread has taken the caller's own pair, the caller waits only to
    /// keep the promise of [`Sink::set`].
    fn free_replaced(&self, generation: u32) {
        let mut next = self.replaced.swap(ptr::null_mut(), Ordering::AcqRel);
        perturb("the replaced pairs are taken, and nobody waited for");
        self.callers.wait(self.callers.now(generation), generation);
        tsan_acquire(&raw const self.callers);
        while let Some(at) = NonNull::new(next) {
            // SAFETY: this thread took the list, each pair is in it once, and the grace period is
            // over.
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

    /// What the argument of a function points to.
    struct Arg {
        /// The index of the function it was set with. Not its address: a function may have several.
        number: usize,
        gone: AtomicBool,
        calls: AtomicUsize,
    }

    /// # Safety
    /// `arg` points to an [`Arg`] that is not freed.
    unsafe fn called(number: usize, arg: *mut c_void) {
        // SAFETY: the caller promises that `arg` points to a live `Arg`.
        let arg = unsafe { &*arg.cast::<Arg>() };
        assert_eq!(arg.number, number, "function and argument of one pair");
        thread::yield_now();
        assert!(
            !arg.gone.load(Ordering::Relaxed),
            "called after it was replaced"
        );
        // Now and then a function replaces itself while it runs.
        if arg.calls.fetch_add(1, Ordering::Relaxed) == 5 {
            assert!(SINK.set(None, ptr::null_mut(), false));
        }
    }

    unsafe extern "C" fn first(arg: *mut c_void, priority: c_int, _: *const c_char) {
        assert_eq!(priority, 3);
        // SAFETY: the function was set with a pointer to an `Arg`.
        unsafe { called(0, arg) };
    }

    unsafe extern "C" fn second(arg: *mut c_void, priority: c_int, _: *const c_char) {
        assert_eq!(priority, 3);
        // SAFETY: the function was set with a pointer to an `Arg`.
        unsafe { called(1, arg) };
    }

    /// Returns the arguments, boxed, because other threads may still look at them at their
    /// addresses.
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
            // Even if another thread replaced this pair, every thread that was inside it has left.
            arg.gone.store(true, Ordering::Relaxed);
            args.push(arg);
        }
        args
    }

    // One test only, because these functions share one sink.
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
