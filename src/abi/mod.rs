// SPDX-License-Identifier: GPL-3.0-or-later
//! What C sees beside functions: the ground floor, since every room speaks of jobs by these types and
//! flags. The two files are two parts of the header, whose text their doc comments are.

pub mod extensions;
pub mod types;

pub use extensions::*;
pub use types::*;

/// The directions of a descriptor.
pub(crate) const NS_JOB_IO: ns_job_type_t =
    NS_JOB_ACCEPT | NS_JOB_CONNECT | NS_JOB_READ | NS_JOB_WRITE;
