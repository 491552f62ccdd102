// SPDX-License-Identifier: GPL-3.0-or-later
//! Nunc Stans: an event framework that hands events to threads.
//!
//! An application adds *jobs* from any thread. A job is a callback and the event that triggers it.
//! One event-loop thread owns the poller. Jobs flagged `NS_JOB_THREAD` run in a pool of worker
//! threads; all others run in the event loop. The interface is a C interface, declared in
//! `include/nunc-stans.h`.
//!
//! ```text
//!  app ──add, rearm, done──► request queue ──► event loop ──► poller
//!                             ▲ (wake pipe)      │  └── not NS_JOB_THREAD: the callback runs here
//!                             │                  └───── NS_JOB_THREAD ──► work queue ──► worker
//!                             └──── rearm, done, new jobs ◄──────────────────────────────┘
//! ```
//!
//! The modules. A module uses only the modules that its row names, and those are further down.
//! `tests/dependencies.rs` reads this table and checks the source against it.
//!
//! | module | what it holds | uses |
//! |---|---|---|
//! | [`capi`] | the functions that C calls: they check arguments and turn pointers into references | all below |
//! | `layout` | where fields are, for debuggers | all below |
//! | `pool` | start, shutdown, wait, destroy | all below |
//! | `event` | the event loop: what the loop thread does | all below |
//! | `run` | the worker threads; the calls of callbacks and done callbacks | all below |
//! | `shared` | what all threads of a pool share, and how a job passes between them | all below |
//! | `group` | groups: which of their jobs may run, and where | `job`, `symbol`, `alloc`, `list`, `sync`, `perturb`, `sys`, `abi` |
//! | `job` | the job, its state word, the threads that wait for it, whose callback a thread runs; its probes | `stats`, `timers`, `nspr`, `probe`, `symbol`, `alloc`, `fork`, `list`, `sync`, `perturb`, `sys`, `abi` |
//! | `signals` | the process's signals: handler, registry, a mailbox for each pool | `wake`, `fork`, `sync`, `perturb`, `sys` |
//! | `wake` | waking the loop | `fork`, `probe`, `sync`, `perturb`, `sys` |
//! | `workq` | the work queues and their sleeping workers | `sync`, `perturb`, `sys` |
//! | `stats` | what a pool counts of itself, a slot for each thread, and where the pools are | `alloc`, `fork`, `sync`, `perturb`, `sys` |
//! | `fds`, `timers` | the descriptor table; the timer wheel | `alloc`, `list`, `symbol`, `confined`, `perturb` |
//! | `log`, `nspr` | code outside the library: the application's logger, NSPR | `alloc`, `fork`, `sync`, `perturb`, `sys`, `abi` |
//! | `alloc`, `sync`, `perturb`, `budget` | the allocator; primitives from std or loom; random delays, for tests; how long a step may take | `sys` |
//! | `list` | intrusive lists | `symbol` |
//! | `fork`, `confined`, `sys`, `abi`, `probe`, `symbol` | fork detection; cells for one thread; system calls; the types and flags that C sees; what tracers look for; the names of functions and of fields | |
//!
//! `models` holds the loom models. Only tests compile it, and each model uses the code that it
//! checks.
//!
//! `docs/ARCHITECTURE.md` describes how the modules work together.

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
