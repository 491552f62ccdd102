// SPDX-License-Identifier: GPL-3.0-or-later
//! `nunc-stans-ffi.h`: the public header as declarations alone, for programs that read C without a
//! preprocessor: cffi's `cdef`, LuaJIT's `ffi.cdef`, koffi.
//!
//! It is made of the text of the public header, so the two can't say different things. Object-like
//! macros become enumerators, function-like ones go. What those programs do not know is replaced by
//! what it is on Linux with glibc; `c-tests/test-ffi.sh` has the compiler compare.

const TOP: &str = "\
/* SPDX-License-Identifier: GPL-3.0-or-later */
/* With additional permission to link OpenSSL: see COPYING.openssl. */
/* nunc-stans-ffi.h: what nunc-stans.h declares, in plain C without preprocessor, for interfaces that
 * read declarations at run time: cffi, LuaJIT, koffi. For Linux with glibc. Generated from the
 * library's source. Do not edit. nunc-stans.h explains it all. */
struct timeval { long tv_sec; long tv_usec; };
";

/// Types that not every reader of declarations knows, and what they are. A `va_list` argument is a
/// pointer on every architecture that Linux with glibc and 64 bits runs on.
const TYPES: &[(&str, &str)] = &[
    ("uint_fast16_t", "unsigned long"),
    ("pid_t", "int"),
    ("va_list", "void *"),
];

/// C text without its comments.
fn without_comments(text: &str) -> String {
    let mut rest = text;
    let mut kept = String::new();
    while let Some((before, after)) = rest.split_once("/*") {
        kept += before;
        rest = after.split_once("*/").expect("the end of a comment").1;
    }
    kept + rest
}

/// Whether an `#if` holds for a reader without NSPR and C++, who wants every result.
fn holds(condition: &str) -> bool {
    match condition {
        "#ifndef NS_THRPOOL_H" | "#ifdef NS_EXTENDED_RESULTS" => true,
        "#ifndef NS_EXTENDED_RESULTS" | "#ifdef __cplusplus" => false,
        _ if condition.starts_with("#if defined(__cplusplus) &&") => false,
        // Times of 64 bits in programs of 32: a reader of declarations sees the library as it is.
        "#ifdef NS_TIME32" => false,
        _ if condition.starts_with("#if defined(__GLIBC__) && defined(__TIMESIZE)") => false,
        _ if condition.starts_with("#if !defined(NS_NO_NSPR) &&") => false,
        // Inside the part about NSPR, which is left out as a whole.
        _ if condition.starts_with("#if __has_include(<nspr") => false,
        _ => panic!("tests/header/ffi.rs does not know {condition}"),
    }
}

/// The value of an object-like macro; `None` for one without.
fn value(text: &str) -> Option<i64> {
    let text = text.trim_start_matches('(').trim_end_matches(')');
    if text.is_empty() {
        return None;
    }
    let number = |digits: &str| {
        let digits = digits.trim();
        digits
            .parse()
            .unwrap_or_else(|_| panic!("tests/header/ffi.rs can't read the number {digits}"))
    };
    Some(match text.split_once("<<") {
        Some((one, shift)) => number(one) << number(shift),
        None => number(text),
    })
}

/// The line of an enumerator for a `#define`, or nothing.
fn constant(define: &str) -> Option<String> {
    let (name, text) = define.split_once(' ').unwrap_or((define, ""));
    if name.contains('(') || text.trim() == name || name == "NS_THRPOOL_H" {
        return None;
    }
    Some(format!("enum {{ {name} = {} }};", value(text.trim())?))
}

/// The declarations alone, of the public header's text.
pub(crate) fn declarations(header: &str) -> String {
    let text = without_comments(header).replace("\\\n", " ");
    let mut open: Vec<bool> = Vec::new();
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let keeps = open.iter().all(|holds| *holds);
        if line.starts_with("#if") {
            open.push(holds(line));
        } else if line.starts_with("#else") {
            let last = open.last_mut().expect("an #if before the #else");
            *last = !*last;
        } else if line.starts_with("#elif") {
            // Only in the part about NSPR.
            assert!(!keeps, "tests/header/ffi.rs does not know {line}");
        } else if line.starts_with("#endif") {
            open.pop().expect("an #if before the #endif");
        } else if let (true, Some(define)) = (keeps, line.strip_prefix("#define ")) {
            lines.extend(constant(define));
        } else if keeps && !line.starts_with("#include") {
            assert!(!line.starts_with('#'), "tests/header/ffi.rs: {line}");
            lines.push(line.to_owned());
        }
    }
    // One declaration, or one field, on each line.
    let mut text = String::new();
    for line in lines {
        let ends = line.ends_with([';', '{', '}']) || line.starts_with("NS_");
        text += &line;
        text.push(if ends { '\n' } else { ' ' });
    }
    for (from, to) in TYPES {
        text = text.replace(from, to);
    }
    TOP.to_owned() + &text
}
