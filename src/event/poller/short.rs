// SPDX-License-Identifier: GPL-3.0-or-later
//! Keys for `polling` where a `usize` has 32 bits.
//!
//! There, a number and a serial of 24 bits do not fit into a key. So the serial is shortened: the
//! smaller the number, the more of the serial is kept.
//!
//! | key | numbers | bits of the serial |
//! |---|---|---|
//! | `0` serial number | below 2^12 | 19 |
//! | `10` serial number | below 2^20 | 10 |
//! | `11` serial number | below 2^28 | 2 |
//!
//! There are no larger numbers: an entry of the descriptor table has 16 bytes, a block of the table
//! is a power of two of them, and an allocation is shorter than 2^31 bytes. So the last block ends at
//! number 2^27, and no number beyond it can be watched.
//!
//! An event is stale if its registration is gone. Two kinds of stale events come:
//!
//! * Its registration was replaced after the wait had returned the event, and before the loop looked
//!   at it. The loop reads all events of a wait before it registers a number anew, so one bit would do.
//! * Its registration has outlived its number, because another descriptor refers to the same open
//!   file. With kqueue there is no such registration: a close removes it. With epoll there is, and it
//!   may stay silent for long. If the number was registered anew 2^n times meanwhile, n being the bits
//!   that are kept, and exactly so often, its event is taken for one of the new registration: a job
//!   fires although its descriptor is not ready, and its read or write then fails with EAGAIN. So the
//!   epoll poller does not use these keys: it stores the whole serial in the 64 bits that the kernel
//!   has for it.

use libc::c_int;

/// A bit of a serial that was shortened. Whole serials have 24 bits.
pub(super) const SHORT: u32 = 1 << 31;

/// How many bits the number `fd` has in a key, how many the serial, and the bits above.
fn parts(fd: c_int) -> (u32, u32, u32) {
    match fd {
        0..0x1000 => (12, 19, 0),
        0x1000..0x10_0000 => (20, 10, 0b10 << 30),
        _ => (28, 2, 0b11 << 30),
    }
}

/// What a short key of `fd` holds of `serial`, and [`SHORT`].
pub(super) fn of(fd: c_int, serial: u32) -> u32 {
    let (_, bits, _) = parts(fd);
    serial & ((1 << bits) - 1) | SHORT
}

/// The short key of the number `fd` with this serial.
pub(super) fn write(fd: c_int, serial: u32) -> u32 {
    let (bits, _, class) = parts(fd);
    debug_assert!(fd >> bits == 0, "the descriptor table ends before it");
    class | (of(fd, serial) & !SHORT) << bits | fd as u32
}

/// The number and the short serial that [`write`] has made this key of; `None` for a key of the
/// poller's own.
pub(super) fn read(key: u32) -> Option<(c_int, u32)> {
    // The numbers of descriptors leave one of these bits zero.
    if key >= 0xffff_fff0 {
        return None;
    }
    let bits = match key >> 30 {
        0 | 1 => 12,
        0b10 => 20,
        _ => 28,
    };
    let fd = (key & ((1 << bits) - 1)) as c_int;
    let (_, len, _) = parts(fd);
    Some((fd, key >> bits & ((1 << len) - 1) | SHORT))
}
