// SPDX-License-Identifier: GPL-3.0-or-later
//! Groups: a set of jobs of one pool, with a rule for how many of them may run at once.
//!
//! [`core`] has the rule and its parts: [`queue`], [`slots`], [`control`]; [`lock`] its lock. A [`Task`] is what the pool's queues hold: a job, or a
//! group that an agent is to serve. How agents run and are sent is told in the rooms above.

mod control;
pub(crate) mod core;
mod handle;
mod list;
mod lock;
mod queue;
mod slots;
mod task;
#[cfg(all(test, not(loom)))]
mod tests;

pub(crate) use handle::{Group, GroupPtr};
pub(crate) use list::Groups;
pub(crate) use task::{Kind, Task};
