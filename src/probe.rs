// SPDX-License-Identifier: GPL-3.0-or-later
//! Probes: places where a tracer may look in, of provider `nunc_stans`.
//!
//! A probe is one `nop`, and a note in the ELF file in the format of SystemTap's `sys/sdt.h`, which
//! gdb, bpftrace, perf and SystemTap read. A tracer that looks replaces the `nop` meanwhile. The note
//! says where the arguments are: in a register that has the value anyway, or in memory that such a
//! register points at. So nothing is computed or loaded for a probe. (The crate `probe` passes each
//! argument in a register. With it, each step of a job would load the job's callback and its data for
//! nobody.)
//!
//! The build script sets `ns_probes` on Linux and FreeBSD for the processors whose operands are known
//! here. Elsewhere, and under loom and Miri, probes are nothing.

// Where the linker put the probes, for tracers: they compare it with where it is at run time.
#[cfg(ns_probes)]
std::arch::global_asm!(
    ".pushsection .stapsdt.base,\"aGR\",%progbits,.stapsdt.base,comdat",
    ".weak _.stapsdt.base",
    ".hidden _.stapsdt.base",
    "_.stapsdt.base: .space 1",
    ".size _.stapsdt.base, 1",
    ".popsection",
);

/// An argument that is a value: its length in bytes, and the operand.
#[cfg(all(ns_probes, target_arch = "x86_64"))]
macro_rules! value {
    ($bytes:literal, $operand:literal) => {
        concat!($bytes, "@%{", $operand, "}")
    };
}

/// An argument that is in memory: its length in bytes, the operand that is its offset, and the one
/// that is the address.
#[cfg(all(ns_probes, target_arch = "x86_64"))]
macro_rules! field {
    ($bytes:literal, $offset:literal, $base:literal) => {
        concat!($bytes, "@{", $offset, "}(%{", $base, "})")
    };
}

/// An argument that is a constant: the operand. A dollar goes before it, which would not get through to
/// the assembler as itself.
#[cfg(all(ns_probes, target_arch = "x86_64"))]
macro_rules! constant {
    ($operand:literal) => {
        concat!("4@\\044{", $operand, "}")
    };
}

#[cfg(all(ns_probes, not(target_arch = "x86_64")))]
macro_rules! value {
    ($bytes:literal, $operand:literal) => {
        concat!($bytes, "@{", $operand, "}")
    };
}

#[cfg(all(ns_probes, target_arch = "aarch64"))]
macro_rules! field {
    ($bytes:literal, $offset:literal, $base:literal) => {
        concat!($bytes, "@[{", $base, "}, {", $offset, "}]")
    };
}

#[cfg(all(ns_probes, target_arch = "riscv64"))]
macro_rules! field {
    ($bytes:literal, $offset:literal, $base:literal) => {
        concat!($bytes, "@{", $offset, "}({", $base, "})")
    };
}

#[cfg(all(ns_probes, not(target_arch = "x86_64")))]
macro_rules! constant {
    ($operand:literal) => {
        concat!("4@{", $operand, "}")
    };
}

/// A probe: its name, its arguments, and the operands that these refer to. The tracer may read memory,
/// so all that was stored before is there.
#[cfg(ns_probes)]
macro_rules! probe {
    ($name:literal, [$first:expr $(, $argument:expr)*], $($operands:tt)+) => {
        // SAFETY: a `nop`; the rest is not code.
        unsafe {
            std::arch::asm!(
                "990: nop",
                ".pushsection .note.stapsdt,\"\",%note",
                ".balign 4",
                ".4byte 992f-991f, 994f-993f, 3",
                "991: .asciz \"stapsdt\"",
                "992: .balign 4",
                "993: .8byte 990b",
                ".8byte _.stapsdt.base",
                ".8byte 0",
                ".asciz \"nunc_stans\"",
                concat!(".asciz \"", $name, "\""),
                concat!(".asciz \"", $first, $(" ", $argument,)* "\""),
                "994: .balign 4",
                ".popsection",
                $($operands)+,
                options(readonly, nostack, preserves_flags)
            )
        }
    };
}

#[cfg(ns_probes)]
pub(crate) use {constant, field, probe, value};
