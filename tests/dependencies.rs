// SPDX-License-Identifier: GPL-3.0-or-later
//! Dependencies run one way: between the modules of `src/`, called rooms here, as the table in
//! `src/lib.rs` says, and between the files of one room without cycles.
//!
//! The test reads the paths in the source, `crate::room` and `super::file`, outside comments, tests
//! and models. A method needs no path, so several files may each define methods of one type.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Files of one room that may refer to each other, and why.
const TOGETHER: &[&[&str]] = &[
    // A step that moves a job on also gives its waiters their result; a waiter marks the state
    // word.
    &["job/state", "job/wait"],
    // A worker serves groups, and an agent calls callbacks as a worker does.
    &["run", "run/agent"],
    // A disposition names the handler, and the handler restores dispositions.
    &["signals/disposition", "signals/earlier", "signals/handler"],
];

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// One row of the table: its rooms, and the rooms that they may use.
struct Row {
    rooms: Vec<String>,
    uses: BTreeSet<String>,
}

/// The names in backticks.
fn names(cell: &str) -> Vec<String> {
    let quoted = cell.split('`').skip(1).step_by(2);
    quoted.map(str::to_owned).collect()
}

/// The table in `lib.rs`, from top to bottom.
fn table() -> Vec<Row> {
    let text = fs::read_to_string(source().join("lib.rs")).expect("lib.rs");
    let cells: Vec<Vec<&str>> = text
        .lines()
        .filter_map(|line| line.strip_prefix("// | "))
        .map(|line| {
            line.trim_end_matches('|')
                .split(" |")
                .map(str::trim)
                .collect()
        })
        .filter(|cells: &Vec<&str>| cells[0].contains('`'))
        .collect();
    let mut below = BTreeSet::new();
    let mut rows: Vec<Row> = Vec::new();
    for cells in cells.iter().rev() {
        let rooms = names(cells[0]);
        let uses = match cells.get(2).copied().unwrap_or_default() {
            "all below" => below.clone(),
            some => names(some).into_iter().collect(),
        };
        for room in &uses {
            assert!(
                below.contains(room),
                "the table has {rooms:?} use {room}, which is not in a row below"
            );
        }
        below.extend(rooms.iter().cloned());
        rows.push(Row { rooms, uses });
    }
    rows.reverse();
    rows
}

/// Every file below `dir`: its path in `src` without extension and without `/mod`, and its code.
fn files(dir: &Path, into: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(dir).expect("src") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files(&path, into);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let inside = path.strip_prefix(source()).expect("in src");
            let name = inside.with_extension("").to_string_lossy().into_owned();
            let name = name.strip_suffix("/mod").unwrap_or(&name).to_owned();
            into.insert(name, code(&fs::read_to_string(&path).expect("UTF-8")));
        }
    }
}

/// The source without comments and test-only items.
fn code(text: &str) -> String {
    let mut code = String::new();
    let mut within = false;
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let line = line.split("//").next().unwrap_or_default();
        let for_tests = ["#[cfg(test", "#[cfg(all(test"]
            .iter()
            .any(|attribute| line.trim_start().starts_with(attribute));
        if !for_tests {
            // In a module inside the file, `super` is the file itself.
            within = match line {
                line if line.ends_with('{') && line.split(' ').any(|word| word == "mod") => true,
                "}" => false,
                _ => within,
            };
            code += &if within {
                line.replace("super::", "self::")
            } else {
                line.to_owned()
            };
            code.push('\n');
            continue;
        }
        // Skip to the end of the item: the line that closes it has the indentation of its
        // attribute.
        let indent = &line[..line.len() - line.trim_start().len()];
        let (brace, one) = (format!("{indent}}}"), |line: &str| line.ends_with(';'));
        let mut first = true;
        for line in lines.by_ref() {
            if line == brace || first && one(line) {
                break;
            }
            first &= line.trim_start().starts_with("#[");
        }
    }
    code
}

/// Every file that belongs to a room.
fn all() -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    files(&source(), &mut all);
    all.retain(|name, _| name != "lib" && !name.starts_with("models") && !name.ends_with("/tests"));
    assert!(all.len() > 30, "the source was not found");
    all
}

fn room(file: &str) -> &str {
    file.split('/').next().unwrap_or(file)
}

/// The names that follow `prefix` in paths, including those in braces.
fn after(code: &str, prefix: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let mut found = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        let whole = code[..at].chars().next_back();
        if whole.is_some_and(|before| is_name(before) || before == ':') {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        let list = match rest.strip_prefix('{') {
            Some(list) => list
                .split('}')
                .next()
                .unwrap_or_default()
                .split(',')
                .collect(),
            None => vec![rest],
        };
        for item in list {
            let name: String = item.trim().chars().take_while(|&c| is_name(c)).collect();
            if !name.is_empty() {
                found.insert(name);
            }
        }
    }
    found
}

#[test]
fn rooms_use_what_is_below_them() {
    let table = table();
    let all = all();
    let in_table: BTreeSet<&str> = { table.iter() }
        .flat_map(|row| row.rooms.iter().map(String::as_str))
        .collect();
    let in_source: BTreeSet<&str> = all.keys().map(|file| room(file)).collect();
    assert_eq!(in_table, in_source, "rooms in the table and in the source");
    let mut wrong = Vec::new();
    for (file, code) in &all {
        let own = room(file);
        let row = table
            .iter()
            .find(|row| row.rooms.iter().any(|it| it == own));
        let row = row.expect("in the table");
        for used in after(code, "crate::")
            .iter()
            .chain(&after(code, "$crate::"))
        {
            if used != own && !row.uses.contains(used) {
                wrong.push(format!("src/{file} uses {used}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "uses of a room that the table in lib.rs does not allow: {wrong:#?}"
    );
}

/// The files of the same room that `file` refers to.
fn neighbours(file: &str, code: &str, all: &BTreeMap<String, String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut name = |dir: &str, used: &str| {
        let child = format!("{dir}/{used}");
        let there = if all.contains_key(&child) {
            child
        } else {
            dir.to_owned()
        };
        if all.contains_key(&there) {
            found.insert(there);
        }
    };
    if let Some((parent, _)) = file.rsplit_once('/') {
        for used in after(code, "super::") {
            assert_ne!(used, "super", "src/{file}: write this path from `crate`");
            name(parent, &used);
        }
    }
    for used in after(code, &format!("crate::{}::", room(file))) {
        // A path may go on into a folder of the room.
        let folder = format!("{}/{used}", room(file));
        let inside = after(code, &format!("crate::{}::{used}::", room(file)));
        if inside.is_empty() {
            name(room(file), &used);
        }
        for used in &inside {
            name(&folder, used);
        }
    }
    for child in all.keys() {
        let Some(("", used)) = child
            .strip_prefix(file)
            .and_then(|rest| rest.split_once('/'))
        else {
            continue;
        };
        if !used.contains('/') && !after(code, &format!("{used}::")).is_empty() {
            name(file, used);
        }
    }
    found.remove(file);
    found
}

#[test]
fn files_of_a_room_form_no_circle() {
    let all = all();
    let together = |a: &str, b: &str| {
        let has = |group: &&[&str], file: &str| group.contains(&file);
        TOGETHER.iter().any(|group| has(group, a) && has(group, b))
    };
    let mut left: BTreeMap<&str, BTreeSet<String>> = all
        .iter()
        .map(|(file, code)| {
            let mut uses = neighbours(file, code, &all);
            uses.retain(|used| !together(file, used));
            (file.as_str(), uses)
        })
        .collect();
    // A file that uses none of the remaining files is in no cycle: remove it.
    loop {
        let before = left.len();
        let there: BTreeSet<String> = left.keys().map(|&file| file.to_owned()).collect();
        left.retain(|_, uses| uses.iter().any(|used| there.contains(used)));
        if left.len() == before {
            break;
        }
    }
    assert!(left.is_empty(), "in a cycle, or using one: {left:#?}");
}
