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
//! The rooms, each depending on those below it only:
//!
//! | | |
//! |---|---|
//! | [`capi`] | all that C sees: arguments checked, pointers made references |
//! | `pool` | start, shutdown, wait, destroy |
//! | `event` | the loop thread: descriptors, timers, signals, the wake pipe |
//! | `shared` | what all threads share, and a job's ways between them |
//! | `workq` | the work queue and its sleeping workers |
//! | `job` | the job, its state word, its waiters, the call of its callback |
//! | `nspr`, `log`, `alloc`, `fork`, `sys` | the outside worlds |
//! | `list`, `confined`, `sync` | intrusive lists; cells for one thread; std's primitives or loom's |
//! | `perturb`, `models` | for tests only: noise in the schedule, loom models |
//!
//! `docs/ARCHITECTURE.md` tells how they work together.

mod alloc;
pub mod capi;
mod confined;
mod event;
mod fork;
mod job;
mod list;
mod log;
#[cfg(all(test, loom))]
mod models;
mod nspr;
mod perturb;
mod pool;
mod shared;
mod sync;
mod sys;
mod workq;
