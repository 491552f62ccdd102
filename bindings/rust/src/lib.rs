// SPDX-License-Identifier: GPL-3.0-or-later
#![doc = include_str!("../README.md")]

mod group;
mod handle;
mod job;
mod log;
mod pool;
mod result;

pub use group::Group;
pub use handle::Handle;
pub use job::{Event, Interest, Job};
pub use log::set_log;
pub use pool::{Options, Pool};
pub use result::{Error, Result};

/// What all modules use; of the library, its C interface.
mod prelude {
    pub(crate) use std::sync::{Arc, Mutex, Weak};
    pub(crate) use std::time::Duration;

    pub(crate) use nunc_stans::abi::*;
    pub(crate) use nunc_stans::capi::{add::*, again::*, caller::*, extensions::*, group::*, job::*};
    pub(crate) use nunc_stans::capi::{options::*, pool::*, small::*};

    pub(crate) use crate::group::GroupState;
    pub(crate) use crate::job::JobState;
    pub(crate) use crate::pool::Inner;
    pub(crate) use crate::result::{Raw, c_limit, c_time, check, lock};
    pub(crate) use crate::{Error, Event, Group, Handle, Interest, Job, Result};
}
