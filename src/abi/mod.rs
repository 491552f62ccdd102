// SPDX-License-Identifier: GPL-3.0-or-later
//! The types, constants and flags of the C interface. All other modules may use these. The
//! files are parts of the header: their doc comments become its text.

pub mod extensions;
pub mod framework;
pub mod options;
pub mod slow;
pub mod stats;
pub mod types;

pub use extensions::*;
pub use framework::*;
pub use options::*;
pub use slow::*;
pub use stats::*;
pub use types::*;

/// The flags of I/O jobs: the directions of a descriptor.
pub(crate) const NS_JOB_IO: ns_job_type_t =
    NS_JOB_ACCEPT | NS_JOB_CONNECT | NS_JOB_READ | NS_JOB_WRITE;
