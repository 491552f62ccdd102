// SPDX-License-Identifier: GPL-3.0-or-later
//! The function for messages that belong to no pool: other threads, or the function itself, replace
//! it while it is being called.

use std::ptr;

use libc::{c_char, c_int, c_void};
use loom::sync::Arc;
use loom::thread::{self, JoinHandle};

use super::explore;
use crate::log::sink::Sink;
use crate::sync::Memory;

/// What the function's argument points to.
struct Arg {
    /// If set, the function sets another function on this sink, with this argument.
    sets: Option<(Arc<Sink>, Arc<Arg>)>,
    /// Freed when the function was replaced.
    memory: Memory,
}

// SAFETY: loom reports any unsynchronised access to the memory.
unsafe impl Send for Arg {}
// SAFETY: as above.
unsafe impl Sync for Arg {}

impl Arg {
    fn new(sets: Option<(Arc<Sink>, Arc<Arg>)>) -> Arc<Self> {
        Arc::new(Self {
            sets,
            memory: Memory::new(),
        })
    }
}

unsafe extern "C" fn hear(arg: *mut c_void, _: c_int, _: *const c_char) {
    // SAFETY: the test holds an Arc to it until the execution ends.
    let arg = unsafe { &*arg.cast::<Arg>() };
    arg.memory.used();
    if let Some((sink, next)) = &arg.sets {
        assert!(set(sink, next, false));
    }
    arg.memory.used();
}

fn set(sink: &Sink, arg: &Arc<Arg>, wait: bool) -> bool {
    sink.set(Some(hear), Arc::as_ptr(arg).cast_mut().cast(), wait)
}

fn set_none(sink: &Sink) {
    assert!(sink.set(None, ptr::null_mut(), true));
}

/// A thread that logs this many messages.
fn teller(sink: &Arc<Sink>, messages: usize) -> JoinHandle<()> {
    let sink = Arc::clone(sink);
    thread::spawn(move || {
        for _ in 0..messages {
            // SAFETY: the message is a C string.
            unsafe { sink.write(0, c"".as_ptr()) };
        }
    })
}

/// The function is replaced twice. Each argument is freed as soon as another function is set.
fn replaced_beside(tellers: usize, messages: usize) {
    let sink = Arc::new(Sink::new());
    let args = [(); 2].map(|()| Arg::new(None));
    assert!(set(&sink, &args[0], true));
    let tellers: Vec<_> = (0..tellers).map(|_| teller(&sink, messages)).collect();
    assert!(set(&sink, &args[1], true));
    args[0].memory.free();
    set_none(&sink);
    args[1].memory.free();
    for teller in tellers {
        teller.join().unwrap();
    }
}

#[test]
fn replaced_while_two_threads_are_told() {
    explore("log, replaced beside two that are told", 2, || {
        replaced_beside(2, 1);
    });
}

#[test]
fn replaced_while_a_thread_is_told_often() {
    explore("log, replaced beside one that is told often", 3, || {
        replaced_beside(1, 2);
    });
}

/// A thread that replaces another thread's function waits just as the thread that replaced the
/// first one does.
#[test]
fn replaced_by_two_while_a_thread_is_told() {
    explore("log, replaced by two beside one that is told", 2, || {
        let sink = Arc::new(Sink::new());
        let first = Arg::new(None);
        assert!(set(&sink, &first, true));
        let teller = teller(&sink, 1);
        let other = {
            let sink = Arc::clone(&sink);
            thread::spawn(move || set_none(&sink))
        };
        let second = Arg::new(None);
        assert!(set(&sink, &second, true));
        first.memory.free();
        set_none(&sink);
        second.memory.free();
        other.join().unwrap();
        teller.join().unwrap();
    });
}

/// The function sets another one, without waiting, while the main thread sets a third.
#[test]
fn replaced_by_itself_and_from_outside() {
    explore("log, replaced by itself and from outside", 3, || {
        let sink = Arc::new(Sink::new());
        let [second, third] = [(); 2].map(|()| Arg::new(None));
        let first = Arg::new(Some((Arc::clone(&sink), Arc::clone(&second))));
        assert!(set(&sink, &first, true));
        let teller = teller(&sink, 2);
        assert!(set(&sink, &third, true));
        first.memory.free();
        teller.join().unwrap();
        set_none(&sink);
        second.memory.free();
        third.memory.free();
    });
}
