// SPDX-License-Identifier: GPL-3.0-or-later
//! The constants that are additions to 0.2.

use super::types::ns_job_type_t;

/// Defined if the header has what follows.
pub const NS_EXTENSIONS: i32 = 1;
/// The version of the header: major.
pub const NS_VERSION_MAJOR: i32 = 0;
/// The version of the header: minor.
pub const NS_VERSION_MINOR: i32 = 2;
/// The version of the header: patch.
pub const NS_VERSION_PATCH: i32 = 0;
/// A flag on any of the adding functions: the job is made with all that it was given but left
/// WAITING, so that its done callback can be set before `ns_job_rearm` arms it. The job argument
/// must then not be NULL. Not shown by `ns_job_get_type`.
pub const NS_JOB_UNARMED: ns_job_type_t = 1 << 10;

/// A flag for `ns_add_timeout_job`, with PERSIST and a time that is not zero: the n-th firing is due n
/// intervals after the job was armed, however long its callback takes. If firings were missed, one firing
/// makes up for all of them.
pub const NS_JOB_CADENCE: ns_job_type_t = 1 << 11;

/// A group as C sees it, opaque: `group` knows what is inside.
#[allow(non_camel_case_types)]
#[repr(C)]
#[derive(Debug)]
pub struct ns_group_t {
    _opaque: [u8; 0],
}

/// A group's done callback.
#[allow(non_camel_case_types)]
pub(crate) type ns_group_done_t = Option<unsafe extern "C" fn(group: *mut ns_group_t)>;
