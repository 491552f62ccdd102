// SPDX-License-Identifier: GPL-3.0-or-later
//! Nunc Stans: hand events to threads.
//!
//! An application posts *jobs* from any thread: a callback and what triggers it. One event-loop
//! thread owns the poller; jobs flagged `NS_JOB_THREAD` run in a pool of workers, all others in
//! the loop. The interface is C's, in `include/nunc-stans.h`.
//!
//! ```text
//!  app ──add, rearm, done──► request queue ──► event loop ──► poller
//!                             ▲ (wake pipe)      │  └── not NS_JOB_THREAD: the callback runs here
//!                             │                  └───── NS_JOB_THREAD ──► work queue ──► worker
//!                             └──── rearm, done, new jobs ◄──────────────────────────────┘
//! ```
//!
//! The rooms. Each uses only what its line says, which is below it; `tests/dependencies.rs` reads
//! this table and holds the source to it.
//!
//! | room | what lives there | uses |
//! |---|---|---|
//! | [`capi`] | the functions that C calls: arguments checked, pointers made references | all below |
//! | `pool` | start, shutdown, wait, destroy | all below |
//! | `event` | the life of the loop thread | all below |
//! | `run` | the life of a worker; the call of a callback, and of a done callback | all below |
//! | `shared` | what all threads of a pool share, and a job's ways between them | all below |
//! | `job` | the job, its state word, who waits for it, whose callback runs where | `timers`, `nspr`, `alloc`, `fork`, `list`, `sync`, `perturb`, `sys`, `abi` |
//! | `signals` | the process's signals: handler, registry, a mailbox for each pool | `wake`, `fork`, `sync`, `perturb`, `sys` |
//! | `wake` | getting the loop out of its wait | `fork`, `sync`, `perturb`, `sys` |
//! | `workq` | the work queues and their sleeping workers | `sync`, `perturb`, `sys` |
//! | `fds`, `timers` | the table of descriptors; the wheel | `alloc`, `list`, `confined`, `perturb` |
//! | `log`, `nspr` | the outside worlds: the application's logger, NSPR | `alloc`, `fork`, `sync`, `perturb`, `sys`, `abi` |
//! | `alloc`, `sync`, `perturb` | the allocator; std's primitives or loom's; noise in the schedule, for tests | `sys` |
//! | `fork`, `list`, `confined`, `sys`, `abi` | forks; intrusive lists; cells for one thread; the system; the types and flags that C sees | |
//!
//! `models`, for tests only, are loom's, and use what they model.
//!
//! `docs/ARCHITECTURE.md` tells how they work together.

pub mod abi;
mod alloc;
pub mod capi;
mod confined;
mod event;
mod fds;
mod fork;
mod job;
mod list;
mod log;
#[cfg(all(test, loom))]
mod models;
mod nspr;
mod perturb;
mod pool;
mod run;
mod shared;
mod signals;
mod sync;
mod sys;
mod timers;
mod wake;
mod workq;
