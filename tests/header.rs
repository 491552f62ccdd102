// SPDX-License-Identifier: GPL-3.0-or-later
//! The public headers. cbindgen makes `nunc-stans.h` from `src/abi/` and `src/capi/`, and
//! `nunc-stans-ffi.h` is made from that; these tests compare the results with the committed files.
//!
//! `NS_WRITE_HEADER=1 cargo test --test header` (`make header`) writes the files.

#[path = "header/ffi.rs"]
mod ffi;

use std::path::Path;

use cbindgen::{Builder, Config, ItemType};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The C declarations of the items of these `types` in one file of `src/`.
fn section(file: &str, types: &[ItemType], exclude: &[&str]) -> String {
    let mut config =
        Config::from_file(Path::new(ROOT).join("cbindgen.toml")).expect("cbindgen.toml");
    config.export.item_types = types.to_vec();
    config.export.exclude = exclude.iter().map(|name| (*name).to_owned()).collect();
    config.export.include = vec![
        "_ns_result_t".to_owned(),
        "ns_thrpool_config".to_owned(),
        "ns_thrpool_options".to_owned(),
        "ns_framework".to_owned(),
        "ns_framework_event".to_owned(),
        "ns_thrpool_stats".to_owned(),
        "ns_slow_call".to_owned(),
        "ns_job_func_t".to_owned(),
    ];
    if types != [ItemType::Functions] {
        // cbindgen itself writes the tag where a struct is defined.
        config.export.rename.remove("ns_thrpool_config");
        config.export.rename.remove("ns_thrpool_options");
        if file == "abi/framework.rs" {
            config.export.rename.remove("ns_framework");
            config.export.rename.remove("ns_framework_event");
        }
        config.export.rename.remove("ns_thrpool_stats");
    }
    if file == "abi/slow.rs" {
        config.export.rename.remove("ns_slow_call");
    }
    let mut text = Vec::new();
    Builder::new()
        .with_config(config)
        .with_src(Path::new(ROOT).join("src").join(file))
        .generate()
        .expect("bindings")
        .write(&mut text);
    tidy(&String::from_utf8(text).expect("UTF-8"))
}

/// Put a one-line comment on one line, remove blank lines between defines, and drop backticks.
fn tidy(text: &str) -> String {
    let lines: Vec<&str> = text.trim().lines().collect();
    let mut tidy: Vec<String> = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        match lines[at..] {
            [open, text, close, ..] if open.trim() == "/**" && close.trim() == "*/" => {
                let indent = &open[..open.len() - 3];
                let text = text.trim_start().trim_start_matches("* ");
                tidy.push(format!("{indent}/** {text} */"));
                at += 3;
            }
            ["", next, ..]
                if next.starts_with("/**") && at > 0 && lines[at - 1].starts_with("#") =>
            {
                at += 1;
            }
            [line, ..] => {
                tidy.push(line.to_owned());
                at += 1;
            }
            [] => unreachable!(),
        }
    }
    tidy.join("\n").replace('`', "")
}

/// The enum of results, with two things added that cbindgen cannot express: its underlying type in
/// C++, which makes every number a valid value; and an `#ifdef` around the values that version 0.2
/// does not have.
fn results(text: &str) -> String {
    let open = "enum _ns_result_t {";
    let last = "    NS_DELETING = 6,\n";
    let (before, values) = text.split_once(open).expect("the enum");
    let (of_0_2, additions) = values.split_once(last).expect("the last value of 0.2");
    let additions = additions.strip_suffix("};").expect("the end of the enum");
    format!(
        "{before}#if defined(__cplusplus) && __cplusplus >= 201103L\n\
         enum _ns_result_t : unsigned int {{\n#else\n{open}\n#endif\
         {of_0_2}{last}#ifdef NS_EXTENDED_RESULTS\n{additions}#endif\n}};"
    )
}

fn header() -> String {
    let rust_only = ["ns_job_type_t", "ns_result_t", "va_list", "INIT_FLAG"];
    let opaque = ["ns_job_t", "ns_thrpool_t", "PRFileDesc"];
    let not_c: Vec<&str> = rust_only.into_iter().chain(opaque).collect();
    let functions = [ItemType::Functions];
    let parts = [
        include_str!("header/top.h").trim().to_owned(),
        section("abi/types.rs", &[ItemType::Constants], &not_c),
        include_str!("header/macros.h").trim().to_owned(),
        results(&section("abi/types.rs", &[ItemType::Enums], &not_c)),
        include_str!("header/result.h").trim().to_owned(),
        section(
            "abi/types.rs",
            &[ItemType::Typedefs, ItemType::Structs],
            &not_c,
        ),
        include_str!("header/pool.h").trim().to_owned(),
        section("capi/pool.rs", &functions, &[]),
        include_str!("header/job.h").trim().to_owned(),
        section("capi/add.rs", &functions, &[]),
        section("capi/job.rs", &functions, &[]),
        include_str!("header/extensions.h").trim().to_owned(),
        section("abi/extensions.rs", &[ItemType::Constants], &[]),
        include_str!("header/extension-results.h").trim().to_owned(),
        section("capi/extensions.rs", &functions, &[]),
        section("capi/again.rs", &functions, &[]),
        section("capi/many.rs", &functions, &[]),
        section("capi/small.rs", &functions, &[]),
        include_str!("header/options.h").trim().to_owned(),
        section("abi/options.rs", &[ItemType::Constants], &[]),
        section("abi/framework.rs", &[ItemType::Constants], &[]),
        section("abi/framework.rs", &[ItemType::Structs], &[]),
        section("abi/options.rs", &[ItemType::Structs], &[]),
        section("capi/options.rs", &functions, &[]),
        include_str!("header/caller.h").trim().to_owned(),
        section("capi/caller.rs", &functions, &[]),
        include_str!("header/groups.h").trim().to_owned(),
        section("capi/group.rs", &functions, &[]),
        include_str!("header/stats.h").trim().to_owned(),
        section("abi/stats.rs", &[ItemType::Structs], &[]),
        section("capi/stats.rs", &functions, &[]),
        include_str!("header/look.h").trim().to_owned(),
        section("abi/slow.rs", &[ItemType::Structs], &[]),
        section("capi/look.rs", &functions, &[]),
        include_str!("header/time32.h").trim().to_owned(),
        include_str!("header/bottom.h").trim().to_owned(),
    ];
    parts.join("\n\n").trim().to_owned() + "\n"
}

/// Compare a committed header with what it should be, or write it.
fn in_step(file: &str, want: &str) {
    let path = Path::new(ROOT).join("include").join(file);
    if std::env::var_os("NS_WRITE_HEADER").is_some() {
        std::fs::write(&path, want).expect("writing the header");
    }
    let have = std::fs::read_to_string(&path).unwrap_or_default();
    let first = want
        .lines()
        .zip(have.lines())
        .position(|(want, have)| want != have);
    assert!(
        want == have,
        "include/{file} is out of step with src/abi/ and src/capi/ (from line {}): run `make header`",
        first.unwrap_or(want.lines().count().min(have.lines().count())) + 1
    );
}

#[test]
fn the_committed_header_is_in_step() {
    in_step("nunc-stans.h", &header());
}

#[test]
fn the_header_without_preprocessor_is_in_step() {
    in_step("nunc-stans-ffi.h", &ffi::declarations(&header()));
}

/// In programs of 32 bits whose times have 64, inline functions convert them: each function that takes
/// a time needs one.
#[test]
fn each_function_that_takes_a_time_converts_it() {
    let header = header();
    let (declared, _) = header
        .split_once("#undef timeval")
        .expect("the inline functions");
    let mut count = 0;
    for statement in declared.split(';') {
        let Some((before, arguments)) = statement.rsplit_once('(') else {
            continue;
        };
        if !arguments.contains("struct timeval *") {
            continue;
        }
        let name = before
            .rsplit(|c: char| c != '_' && !c.is_alphanumeric())
            .next();
        let name = name.expect("a name");
        assert!(
            header.contains(&format!("#define {name} {name}_time64")),
            "{name} takes a time: it needs a function in tests/header/time32.h"
        );
        count += 1;
    }
    assert!(count >= 9, "found only {count} functions");
}
