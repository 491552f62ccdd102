// SPDX-License-Identifier: GPL-3.0-or-later
//! Compiles the C shim and gives the shared library its name.

fn main() {
    println!("cargo:rerun-if-changed=src/shim.c");
    cc::Build::new()
        .file("src/shim.c")
        .flag_if_supported("-fvisibility=hidden")
        .warnings(true)
        .extra_warnings(true)
        .compile("nunc_stans_shim");

    let target = |what| std::env::var(format!("CARGO_CFG_{what}")).unwrap_or_default();
    let os = target("TARGET_OS");
    // Probes are notes in an ELF file, with operands that src/probe.rs knows for these processors.
    let known = ["x86_64", "aarch64", "riscv64"].contains(&target("TARGET_ARCH").as_str());
    let elf = ["linux", "android", "freebsd"].contains(&os.as_str());
    let interpreted = ["LOOM", "MIRI"].iter().any(|what| {
        println!("cargo:rerun-if-env-changed=CARGO_CFG_{what}");
        std::env::var_os(format!("CARGO_CFG_{what}")).is_some()
    });
    if known && elf && target("TARGET_POINTER_WIDTH") == "64" && !interpreted {
        println!("cargo:rustc-cfg=ns_probes");
    }
    if os == "linux" || os == "android" || os.ends_with("bsd") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libnunc-stans.so.0");
        // Our threads, signal handlers and fork handlers must survive a dlclose.
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
        println!("cargo:rustc-cdylib-link-arg=-Wl,-z,defs");
    }
}
