// SPDX-License-Identifier: GPL-3.0-or-later
//! Groups: a set of jobs of one pool, with a rule for how many of them may run at once.
//!
//! [`core`] has the rule; [`queue`], [`slots`] and [`control`] are its parts, and [`lock`] is its
//! lock. [`handle`] has the group that C holds, and [`list`] the list of a pool's groups. [`task`]
//! is what the pool's queues hold: a job, or a group that an agent has to serve. See `run/agent.rs`
//! for how an agent runs, and `shared/groups.rs` for how it is sent.

mod control;
pub(crate) mod core;
mod handle;
mod layout;
mod list;
mod lock;
mod queue;
mod slots;
mod task;
#[cfg(all(test, not(loom)))]
mod tests;

pub(crate) use handle::{Group, GroupPtr};
pub(crate) use layout::GROUP_LAYOUT;
pub(crate) use list::Groups;
pub(crate) use task::{Task, TaskKind};
