// SPDX-License-Identifier: GPL-3.0-or-later
//! Bits of `Job::notes`, which only the loop uses.

/// The job has been armed before: the loop has verified its descriptor, or its signal is in the
/// list.
pub(crate) const ATTACHED: u8 = 1;
/// The job is armed in the loop: it may fire.
pub(crate) const MAY_FIRE: u8 = 2;
/// The job has fired and is in the ready list, about to run.
pub(crate) const READY: u8 = 4;
/// The job's number refers to another file now: the job never fires for I/O and never closes
/// the number.
pub(crate) const ORPHAN: u8 = 8;
/// The job was armed again without a call to the poller. The loop must check its descriptor
/// unless an event for it arrives.
pub(crate) const UNVERIFIED: u8 = 16;
/// The job has fired for its descriptor since the loop last checked that.
pub(crate) const HEARD: u8 = 32;
/// The log has said that the job lost its descriptor.
pub(crate) const REPORTED: u8 = 64;
/// A worker closes the job's descriptor. After that, only the done callback is left to call.
pub(crate) const CLOSING: u8 = 128;
