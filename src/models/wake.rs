// SPDX-License-Identifier: GPL-3.0-or-later
//! The wake pipe, beside another event source of the loop.

use std::sync::atomic::{AtomicUsize as Counter, Ordering::Relaxed};

use loom::sync::Arc;
use loom::thread;

use super::explore;
use crate::sync::{Condvar, Mutex, lock, wait};
use crate::wake::Sleeping;
use crate::workq::Queue;

/// The poller's state.
#[derive(Default)]
struct Poller {
    /// Bytes in the pipe.
    bytes: usize,
    /// Another descriptor is ready.
    other: bool,
}

/// The sleep flag, and a pipe beside another descriptor.
pub(super) struct Pipe {
    sleeping: Sleeping,
    poller: Mutex<Poller>,
    readable: Condvar,
    /// How often the loop was about to sleep, and how many bytes were ever written. Not loom's
    /// atomics, since they are not part of the protocol.
    sleeps: Counter,
    written: Counter,
}

impl Pipe {
    pub(super) fn new() -> Self {
        Self {
            sleeping: Sleeping::new(),
            poller: Mutex::new(Poller::default()),
            readable: Condvar::new(),
            sleeps: Counter::new(0),
            written: Counter::new(0),
        }
    }

    /// After a push.
    pub(super) fn wake(&self) {
        if self.sleeping.take() {
            let written = self.written.fetch_add(1, Relaxed) + 1;
            assert!(
                written <= self.sleeps.load(Relaxed),
                "more bytes than sleeps"
            );
            lock(&self.poller).bytes += 1;
            self.readable.notify_one();
        }
    }

    /// The other descriptor becomes ready.
    fn interrupt(&self) {
        lock(&self.poller).other = true;
        self.readable.notify_one();
    }

    /// The wait descriptor: what a host polls while nobody is inside.
    pub(super) fn wait_readable(&self) {
        let mut poller = lock(&self.poller);
        while poller.bytes == 0 {
            poller = wait(&self.readable, poller);
        }
    }

    pub(super) fn is_readable(&self) -> bool {
        lock(&self.poller).bytes > 0
    }

    /// A turn in a thread of the application's begins.
    pub(super) fn resume(&self) {
        self.sleeping.end();
    }

    /// It polls without waiting.
    pub(super) fn poll(&self, idle: impl FnOnce() -> bool) {
        self.sleeps.fetch_add(1, Relaxed);
        self.sleeping.begin(idle);
        lock(&self.poller).bytes = 0;
        self.sleeping.end();
    }

    /// It ends: what `idle` finds makes the descriptor readable at once.
    pub(super) fn pause(&self, idle: impl FnOnce() -> bool) {
        self.sleeps.fetch_add(1, Relaxed);
        if !self.sleeping.begin(idle) {
            lock(&self.poller).bytes += 1;
            self.readable.notify_one();
        }
    }

    /// The loop's sleep: until something is ready, if the loop is idle.
    pub(super) fn sleep(&self, idle: impl FnOnce() -> bool) {
        self.sleeps.fetch_add(1, Relaxed);
        if !self.sleeping.begin(idle) {
            return;
        }
        let mut poller = lock(&self.poller);
        while poller.bytes == 0 && !poller.other {
            poller = wait(&self.readable, poller);
        }
        let other = std::mem::take(&mut poller.other);
        drop(poller);
        self.sleeping.end();
        // Like a wait whose buffer has no room for the pipe beside the other event: the byte stays
        // for the next wait.
        if !other {
            lock(&self.poller).bytes = 0;
        }
    }
}

fn until_all_are_taken(producers: usize, pushes: usize, interrupt: bool) {
    let pipe = Arc::new(Pipe::new());
    let requests = Arc::new(Queue::new());
    let others: Vec<_> = (0..producers)
        .map(|_| {
            let (pipe, requests) = (Arc::clone(&pipe), Arc::clone(&requests));
            thread::spawn(move || {
                for _ in 0..pushes {
                    requests.push(());
                    pipe.wake();
                }
                if interrupt {
                    pipe.interrupt();
                }
            })
        })
        .collect();
    let mut taken = 0;
    while taken < producers * pushes {
        while requests.pop().is_some() {
            taken += 1;
        }
        if taken < producers * pushes {
            pipe.sleep(|| requests.is_empty());
        }
    }
    for other in others {
        other.join().unwrap();
    }
}

#[test]
fn the_loop_sleeps_through_nothing() {
    explore("wake pipe, two producers", 3, || {
        until_all_are_taken(2, 1, false)
    });
}

/// The flag is set again although a byte is still unread, and a producer writes its byte late.
#[test]
fn nor_beside_other_events() {
    explore("wake pipe, two pushes each, another event", 2, || {
        until_all_are_taken(2, 2, true)
    });
}
