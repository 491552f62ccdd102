// SPDX-License-Identifier: GPL-3.0-or-later
//! Nunc Stans hands events to threads: worker threads behind one event loop.
//!
//! From any thread a program posts *jobs*. A job is a callback and what triggers it: a descriptor, a time, a
//! signal, or nothing, which means "run now". The event-loop thread owns the poller. The callback of a job with
//! `NS_JOB_THREAD` runs in a worker, that of any other job in the loop. A job's callback never runs twice at
//! once. *Groups* run their jobs one at a time and in order, or so many at a time, without a lock and without a
//! thread of their own.
//!
//! ```text
//!  app ──add, rearm, done──► request queue ──► event loop ──► poller
//!                             ▲ (wake pipe)      │  └── not NS_JOB_THREAD: the callback runs here
//!                             │                  └───── NS_JOB_THREAD ──► work queue ──► worker
//!                             └──── rearm, done, new jobs ◄──────────────────────────────┘
//! ```
//!
//! # From Rust: take `nunc-stans-rs`
//!
//! This crate is the library itself, whose interface is C's. For Rust programs the crate `nunc-stans-rs`, in
//! `bindings/rust` of the source, puts a safe interface over it: pools, jobs and groups that end when they are
//! dropped, closures as callbacks, `Result`s, descriptors by `AsFd`, panics contained. With it
//!
//! ```ignore
//! let pool = Pool::new(4)?;
//! pool.post(|| println!("in a worker"))?;
//! let clock = pool.every(Duration::from_secs(1), |_| println!("tick"))?; // until `clock` is dropped
//! let reader = pool.on_readable(socket, |event, socket| serve(event, socket))?;
//! ```
//!
//! # The interface itself
//!
//! [`capi`] has the functions and [`abi`] the types and constants, under C's names. They are `unsafe`, and their
//! pages say what each asks for. Nobody has to declare them a second time: they are what a `-sys` crate would be.
//!
//! ```
//! use nunc_stans::abi::*;
//! use nunc_stans::capi::{add::ns_add_timeout_job, job::*, pool::*};
//! use std::ptr;
//! use std::sync::atomic::{AtomicUsize, Ordering};
//!
//! static TICKS: AtomicUsize = AtomicUsize::new(0);
//!
//! // A callback must not panic.
//! unsafe extern "C" fn tick(job: *mut ns_job_t) {
//!     // SAFETY: a job lives while its callback runs, and its pool does.
//!     unsafe {
//!         if TICKS.fetch_add(1, Ordering::Relaxed) == 2 {
//!             ns_thrpool_shutdown(ns_job_get_tp(job));
//!             ns_job_done(job);
//!         }
//!     }
//! }
//!
//! // SAFETY: the config is initialised, and the pool is used until it is destroyed.
//! unsafe {
//!     let mut config: ns_thrpool_config = std::mem::zeroed();
//!     ns_thrpool_config_init(&mut config);
//!     config.max_threads = 2;
//!     let tp = ns_thrpool_new(&mut config);
//!     assert!(!tp.is_null());
//!     let mut millisecond = libc::timeval { tv_sec: 0, tv_usec: 1000 };
//!     let flags = NS_JOB_THREAD | NS_JOB_PERSIST;
//!     let added = ns_add_timeout_job(tp, &mut millisecond, flags, Some(tick), ptr::null_mut(), ptr::null_mut());
//!     assert_eq!(added, _ns_result_t::NS_SUCCESS as ns_result_t);
//!     ns_thrpool_wait(tp); // until the callback shuts it down
//!     ns_thrpool_destroy(tp);
//! }
//! assert_eq!(TICKS.load(Ordering::Relaxed), 3);
//! ```
//!
//! # What to know
//!
//! * It is for Linux. FreeBSD and macOS compile, but nothing was run there. Rust 1.85 and later; a C compiler, for
//!   a small part of it.
//! * As a dependency it is an `rlib`, under your program's profile. A panic must not leave a callback: it ends the
//!   process. `nunc-stans-rs` catches it.
//! * The symbols `ns_*` are C's. A C library in the same program that needs `libnunc-stans.so.0` may be bound to
//!   the copy in your program; the README of `nunc-stans-rs` says when, and how to keep two copies apart.
//! * The feature `trace` logs every step of every job, for debugging the library.

// The modules. A module uses only the modules that its row names, and those are further down.
// `tests/dependencies.rs` reads this table and checks the source against it.
//
// | module | what it holds | uses |
// |---|---|---|
// | `capi` | the functions that C calls: they check arguments and turn pointers into references | all below |
// | `layout` | where fields are, for debuggers | all below |
// | `pool` | start, shutdown, wait, destroy | all below |
// | `event` | the event loop: what the loop thread does | all below |
// | `run` | the worker threads; the calls of callbacks and done callbacks | all below |
// | `shared` | what all threads of a pool share, and how a job passes between them | all below |
// | `group` | groups: which of their jobs may run, and where | `job`, `symbol`, `alloc`, `list`, `sync`, `perturb`, `sys`, `abi` |
// | `job` | the job, its state word, the threads that wait for it, whose callback a thread runs; its probes | `stats`, `timers`, `nspr`, `probe`, `symbol`, `alloc`, `fork`, `list`, `sync`, `perturb`, `sys`, `abi` |
// | `signals` | the process's signals: handler, registry, a mailbox for each pool | `wake`, `fork`, `sync`, `perturb`, `sys` |
// | `wake` | waking the loop | `fork`, `probe`, `sync`, `perturb`, `sys` |
// | `workq` | the work queues and their sleeping workers | `sync`, `perturb`, `sys` |
// | `stats` | what a pool counts of itself, a slot for each thread, and where the pools are | `alloc`, `fork`, `sync`, `perturb`, `sys` |
// | `fds`, `timers` | the descriptor table; the timer wheel | `alloc`, `list`, `symbol`, `confined`, `perturb` |
// | `log`, `nspr` | code outside the library: the application's logger, NSPR | `alloc`, `fork`, `sync`, `perturb`, `sys`, `abi` |
// | `alloc`, `sync`, `perturb`, `budget` | the allocator; primitives from std or loom; random delays, for tests; how long a step may take | `sys` |
// | `list` | intrusive lists | `symbol` |
// | `fork`, `confined`, `sys`, `abi`, `probe`, `symbol` | fork detection; cells for one thread; system calls; the types and flags that C sees; what tracers look for; the names of functions and of fields | |
//
// `models` holds the loom models. Only tests compile it, and each model uses the code that it
// checks.
//
// `docs/ARCHITECTURE.md` describes how the modules work together.

pub mod abi;
mod alloc;
mod budget;
pub mod capi;
mod confined;
mod event;
mod fds;
mod fork;
mod group;
mod job;
mod layout;
mod list;
mod log;
#[cfg(all(test, loom))]
mod models;
mod nspr;
mod perturb;
mod pool;
mod probe;
mod run;
mod shared;
mod signals;
mod stats;
mod symbol;
mod sync;
mod sys;
mod timers;
mod wake;
mod workq;
