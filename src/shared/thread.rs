// SPDX-License-Identifier: GPL-3.0-or-later
//! Threads of the application's that were the loop of a pool: which one it was, and whether it has ended.
//!
//! The system reuses the ids of threads, and says nothing of the end of a thread that somebody else
//! joins. So such a thread gets a token of its own, which it marks when it ends: by the destructor of a
//! thread-local. Whoever needs to know later keeps the token. A thread that is that far gone when it
//! first asks for its token gets none, and counts as one that has ended.

use std::cell::Cell;
use std::ptr::{self, NonNull};

use crate::alloc::Allocator;
use crate::fork;
use crate::perturb::perturb;
use crate::sync::bell::{Bell, Bells};
use crate::sync::{AtomicUsize, Mutex, Ordering, lock};

/// What is known of a thread.
struct Token {
    /// How many references there are. One is the thread's own, until it ends.
    references: AtomicUsize,
    /// The process that the thread belongs to.
    generation: u32,
    life: Mutex<Life>,
}

impl Token {
    /// Of a thread that lives, which has the one reference.
    fn new() -> Self {
        Self {
            references: AtomicUsize::new(1),
            generation: fork::generation(),
            life: Mutex::new(Life {
                ended: false,
                bells: Bells::new(),
            }),
        }
    }
}

struct Life {
    ended: bool,
    /// Threads that wait for its end.
    bells: Bells,
}

/// A reference to a thread's token.
pub(crate) struct Thread(NonNull<Token>);

// SAFETY: any thread may use a token: its fields are atomic, constant, or behind its lock.
unsafe impl Send for Thread {}
// SAFETY: as above.
unsafe impl Sync for Thread {}

/// The calling thread's own reference, or null.
struct Own(Cell<*const Token>);

thread_local! {
    static OWN: Own = const { Own(Cell::new(ptr::null())) };
}

impl Drop for Own {
    fn drop(&mut self) {
        if let Some(token) = NonNull::new(self.0.replace(ptr::null()).cast_mut()) {
            let thread = Thread(token);
            if fork::is_over(thread.token().generation) {
                // In a child: see [`Thread::current`].
                std::mem::forget(thread);
            } else {
                thread.end();
            }
        }
    }
}

impl Thread {
    /// The calling thread; `None` if there is no memory, or if it is about to end.
    pub(crate) fn current() -> Option<Self> {
        OWN.try_with(|own| {
            let token = match NonNull::new(own.0.get().cast_mut()) {
                Some(token) => Self(token),
                None => Self::new()?,
            };
            own.0.set(token.0.as_ptr());
            if fork::is_over(token.token().generation) {
                // This is a copy of the thread, in a child, where nobody else looks at the copy of its
                // token. Another thread of the parent's may have held the lock at the time of the fork.
                // SAFETY: see above; the memory is that of a token.
                unsafe { token.0.write(Token::new()) };
            }
            let copy = token.clone();
            // The thread-local keeps this one.
            std::mem::forget(token);
            Some(copy)
        })
        .ok()
        .flatten()
    }

    /// Whether `id` is the [`Thread::id`] of the calling thread.
    pub(crate) fn is_current(id: usize) -> bool {
        id != 0 && OWN.try_with(|own| own.0.get() as usize == id) == Ok(true)
    }

    /// A new thread.
    pub(crate) fn new() -> Option<Self> {
        // Not a pool's allocator: the token may outlive all pools.
        let place = Allocator::new(None, None).block::<Token>()?;
        // SAFETY: the block has the size of a token, and the alignment of any C type.
        unsafe { place.write(Token::new()) };
        Some(Self(place))
    }

    fn token(&self) -> &Token {
        // SAFETY: the reference that we hold keeps it.
        unsafe { self.0.as_ref() }
    }

    /// A number that no other live token has. Not 0.
    pub(crate) fn id(&self) -> usize {
        self.0.as_ptr() as usize
    }

    /// The thread ends: wakes those who wait for that.
    pub(crate) fn end(self) {
        let mut life = lock(&self.token().life);
        life.ended = true;
        life.bells.ring();
    }

    /// Have `bell` rung when the thread ends. False if it has ended.
    pub(crate) fn ring_at_end(&self, bell: &Bell) -> bool {
        let mut life = lock(&self.token().life);
        if !life.ended {
            life.bells.add(bell);
        }
        !life.ended
    }

    /// Take `bell` off the list again.
    pub(crate) fn forget(&self, bell: &Bell) {
        lock(&self.token().life).bells.remove(bell);
    }
}

impl Clone for Thread {
    fn clone(&self) -> Self {
        self.token().references.fetch_add(1, Ordering::Relaxed);
        Self(self.0)
    }
}

impl PartialEq for Thread {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        perturb("a reference to a thread is about to go");
        // AcqRel, and no fence: ThreadSanitizer does not know what a fence orders.
        if self.token().references.fetch_sub(1, Ordering::AcqRel) == 1 {
            // SAFETY: this was the last reference; `new` allocated it from the same allocator.
            unsafe {
                ptr::drop_in_place(self.0.as_ptr());
                Allocator::new(None, None).free(self.0);
            }
        }
    }
}
