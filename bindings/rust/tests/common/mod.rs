// SPDX-License-Identifier: GPL-3.0-or-later
//! What the tests share.
#![allow(dead_code, unreachable_pub)]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Far more than anything here takes, under valgrind too.
pub const LONG: Duration = Duration::from_secs(60);

/// Counts of rounds: fewer under valgrind.
pub fn scaled(n: usize) -> usize {
    if std::env::var_os("NS_SLOW").is_some() { n.div_ceil(100) } else { n }
}

/// A number that threads raise, and wait for.
#[derive(Clone, Default)]
pub struct Count(Arc<(Mutex<usize>, Condvar)>);

impl Count {
    pub fn up(&self) {
        *self.0.0.lock().unwrap() += 1;
        self.0.1.notify_all();
    }

    pub fn get(&self) -> usize {
        *self.0.0.lock().unwrap()
    }

    /// Waits until it is at least `n`.
    pub fn wait(&self, n: usize) {
        let guard = self.0.0.lock().unwrap();
        let (guard, late) = self.0.1.wait_timeout_while(guard, LONG, |at| *at < n).unwrap();
        assert!(!late.timed_out(), "{} of {n} in {LONG:?}", *guard);
    }
}

/// Counts what lives; a callback that captures one shows when it is dropped.
#[derive(Clone, Default)]
pub struct Alive(Arc<AtomicUsize>);

pub struct Token(Alive);

impl Alive {
    pub fn token(&self) -> Token {
        self.0.fetch_add(1, Ordering::SeqCst);
        Token(self.clone())
    }

    pub fn get(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }

    pub fn wait_for_none(&self) {
        eventually(|| self.get() == 0);
    }
}

impl Drop for Token {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

pub fn eventually(condition: impl Fn() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < LONG, "it does not come");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Uses things, so that a callback captures them.
pub fn touch<T>(_: T) {}
