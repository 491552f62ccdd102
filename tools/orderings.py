#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""The orderings of the library's atomics: docs/ORDERINGS.md beside the source, and trials of others.

    tools/orderings.py list     what the table has to say: file, atomic, operations with their orderings
    tools/orderings.py check    compare that with docs/ORDERINGS.md; fails if either has what the other lacks
    tools/orderings.py try [--limit SECONDS] [--only PLACES] [--models NAMES] [--stronger]
                                weaken each ordering that the models reach, one at a time, and run the
                                models that reach it (with --stronger: strengthen each relaxed one)
    tools/orderings.py strengthen   write every relaxed ordering stronger into src, to see what all of them save:
                                for a copy of the repository

`try` wants the models built:

    RUSTFLAGS="--cfg loom -C debug-assertions" CARGO_TARGET_DIR=target/loom \\
        cargo test --release --locked --lib --no-run
"""

import argparse
import glob
import os
import re
import resource
import signal
import subprocess
import sys

DOCUMENT = "docs/ORDERINGS.md"
CALL = re.compile(r"\.(load|store|swap|fetch_[a-z]+|compare_exchange(?:_weak)?)\(|\b(fence)\(")
# These have an ordering for success and one for failure.
TWO = ("compare_exchange", "compare_exchange_weak", "fetch_update")
ORDERING = re.compile(r"Ordering::(\w+)")
# `let (success, failure) = (Ordering::A, Ordering::B)`: names for what would not fit a line.
NAMES = re.compile(r"let \((\w+), (\w+)\) = \(Ordering::(\w+), Ordering::(\w+)\);")


class Site:
    """One operation on an atomic, or a fence."""

    def __init__(self, path, line, column, atomic, operation, orderings):
        self.place = f"{path}:{line}:{column}"
        self.path, self.line = path, line
        self.atomic, self.operation, self.orderings = atomic, operation, orderings

    def row(self):
        return self.path, self.atomic, f"{self.operation} {', '.join(self.orderings)}"


def blank(text):
    """The text without comments and tests; what is left stands where it stood."""

    def spaces(found):
        return re.sub(r"[^\n]", " ", found.group())

    text = re.sub(r"//[^\n]*", spaces, text)
    return re.sub(r"#\[cfg\((?:all\()?test\b.*?\n(?=\S).*?\n\}\n", spaces, text, flags=re.DOTALL)


def closing(text, start):
    """Where the bracket that opens before `start` closes."""
    depth = 1
    while depth:
        depth += {"(": 1, ")": -1}.get(text[start], 0)
        start += 1
    return start - 1


def receiver(text, end):
    """The name of what a method is called on: the last field, variable or function before `end`."""
    before = text[:end].rstrip()
    whole = before
    while before.endswith((")", "]")):
        depth, at = 1, len(before) - 1
        while depth:
            at -= 1
            depth += {")": 1, "]": 1, "(": -1, "[": -1}.get(before[at], 0)
        before = before[:at]
    name = re.search(r"\w+$", before)
    # `(*page).store`: there is nothing before the brackets.
    return name.group() if name else re.search(r"\w+", whole[len(before) :]).group()


def sites():
    """All of them, by file and line."""
    found = []
    for path in sorted(glob.glob("src/**/*.rs", recursive=True)):
        if path.startswith("src/models/") or path.endswith(("/tests.rs", "src/sync/trial.rs")):
            continue
        with open(path, encoding="utf-8") as file:
            text = blank(file.read())
        names = {}
        for first, second, *values in NAMES.findall(text):
            names |= zip((first, second), values)
        for call in CALL.finditer(text):
            operation = call.group(1) or call.group(2)
            at = call.start(1) if call.group(1) else call.start(2)
            arguments = text[call.end() : closing(text, call.end())]
            for name, value in names.items():
                arguments = re.sub(rf"\b{name}\b", f"Ordering::{value}", arguments)
            # The orderings of calls inside stand before this one's own.
            orderings = ORDERING.findall(arguments)[-2 if operation in TWO else -1 :]
            if not orderings:
                continue
            line = text.count("\n", 0, at) + 1
            column = at - text.rfind("\n", 0, at)
            atomic = receiver(text, call.start()) if call.group(1) else "(a fence)"
            found.append(Site(path, line, column, atomic, operation, orderings))
    return found


def from_source():
    """For each atomic of each file, its operations."""
    rows = {}
    for site in sites():
        path, atomic, operation = site.row()
        rows.setdefault((path, atomic), set()).add(operation)
    return rows


def from_document():
    """The same by the document: rows of file, atomic, operations and a reason."""
    rows = {}
    with open(DOCUMENT, encoding="utf-8") as file:
        for line in file:
            cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
            if line.startswith("| `") and len(cells) == 4 and cells[3]:
                path, atomic = (cell.strip("`") for cell in cells[:2])
                rows[f"src/{path}", atomic] = set(cells[2].split("; "))
    return rows


def check():
    source, document = from_source(), from_document()
    wrong = 0
    for key in sorted(source.keys() | document.keys()):
        for operation in sorted(source.get(key, set()) ^ document.get(key, set())):
            where = "source" if operation in source.get(key, set()) else DOCUMENT
            print(f"{key[0]}: `{key[1]}`: only {where} has: {operation}")
            wrong += 1
    return wrong == 0


def weaker(operation, ordering):
    """The next weaker orderings. Loom takes accesses with SeqCst for AcqRel: it is one with that here."""
    if operation == "fence":
        return {"SeqCst": ["AcqRel", "Relaxed"], "AcqRel": ["Acquire", "Release"]}.get(ordering, ["Relaxed"])
    if ordering == "Relaxed":
        return []
    if ordering in ("SeqCst", "AcqRel") and operation not in ("load", "store"):
        return ["Acquire", "Release"]
    return ["Relaxed"]


def stronger(operation, ordering, on_failure):
    """The next stronger of a relaxed one. A compare-and-swap that fails is a load, and so is a look by fetch_update."""
    if ordering != "Relaxed" or operation == "fence":
        return []
    return {"load": ["Acquire"], "store": ["Release"]}.get("load" if on_failure else operation, ["AcqRel"])


def strengthen():
    """Write them into the source. What stands in a `let` for lack of room stays as it is."""
    written = 0
    for path in sorted({site.path for site in sites()}):
        with open(path, encoding="utf-8") as file:
            text = file.read()
        bare, changes = blank(text), []
        for call in CALL.finditer(bare):
            operation = call.group(1) or call.group(2)
            end = closing(bare, call.end())
            names = list(ORDERING.finditer(bare, call.end(), end))
            names = names[-2:] if operation in TWO else names[-1:]
            for argument, name in enumerate(names):
                for new in stronger(operation, name.group(1), argument == 1):
                    changes.append((name.span(1), new))
        for (start, end), new in sorted(changes, reverse=True):
            text = text[:start] + new + text[end:]
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        written += len(changes)
    print(f"{written} orderings are stronger now")


def run(binary, model, environment, limit):
    """Run one model: whether it passed (None: it took more processor time), its output and the seconds."""
    limit = max(1, round(limit))

    def bound():
        resource.setrlimit(resource.RLIMIT_CPU, (limit, limit))

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [binary, "--exact", model, "--nocapture"],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        preexec_fn=bound,
        check=False,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    if -done.returncode in (signal.SIGXCPU, signal.SIGKILL):
        return None, done.stdout, seconds
    return done.returncode == 0, done.stdout, seconds


def executions(output):
    return sum(int(count) for count in re.findall(r": (\d+) executions", output))


def attempt(options):
    binaries = glob.glob("target/loom/release/deps/nunc_stans-*")
    binaries = [path for path in binaries if os.access(path, os.X_OK) and not path.endswith(".so")]
    if not binaries:
        sys.exit(__doc__)
    binary = max(binaries, key=os.path.getmtime)
    listed = subprocess.run([binary, "--list"], capture_output=True, text=True, check=True).stdout
    names = re.findall(r"^(.*): test$", listed, re.MULTILINE)
    models = [name for name in names if name.startswith("models::") and re.search(options.models, name)]

    # Who reaches what, and how long each model takes as it is.
    reached, takes, counts = {}, {}, {}
    for model in models:
        passed, output, seconds = run(binary, model, {"NS_SITES": "1"}, options.limit)
        if passed is None:
            print(f"left out, since it takes more than {options.limit} s: {model}", flush=True)
            continue
        if not passed:
            sys.exit(f"{model} fails as it is:\n{output}")
        takes[model], counts[model] = seconds, executions(output)
        for place in re.findall(r"^site (\S+)$", output, re.MULTILINE):
            reached.setdefault(place, []).append(model)
    print(f"{len(takes)} models, {sum(takes.values()):.0f} s", flush=True)

    def others(site, argument):
        written = site.orderings[argument]
        if options.stronger:
            return stronger(site.operation, written, argument == 1)
        return weaker(site.operation, written)

    tried = caught = fewer = unreached = 0
    for site in sites():
        if not re.search(options.only, site.place):
            continue
        who = sorted(reached.get(site.place, []), key=takes.get)
        if not who:
            unreached += sum(len(others(site, argument)) for argument in range(len(site.orderings)))
            continue
        for argument, written in enumerate(site.orderings):
            for new in others(site, argument):
                trial = {"NS_TRIAL": f"{site.place} {argument} {new}"}
                tried += 1
                outcome, open_ones, ran, spent, before, after = None, 0, 0, 0.0, 0, 0
                for model in who:
                    if spent + takes[model] > options.limit and ran:
                        break
                    passed, output, seconds = run(binary, model, trial, 5 + 5 * takes[model])
                    ran, spent = ran + 1, spent + seconds
                    if passed is None:  # it has more orders of steps to explore
                        open_ones += 1
                        continue
                    before, after = before + counts[model], after + executions(output)
                    if not passed:
                        outcome = f"caught by {model}"
                        break
                if outcome:
                    caught += 1
                else:
                    outcome = f"passed by {ran - open_ones} of {len(who)} models"
                    fewer += after < before
                    if open_ones:
                        outcome += f", {open_ones} not ended"
                    if after != before:
                        outcome += f", {after} executions for {before}"
                what = f"{site.atomic}.{site.operation}" if site.operation != "fence" else "fence"
                which = " on failure" if argument else ""
                print(f"{site.place} {what}{which}: {written} -> {new}: {outcome}", flush=True)
    less = f", {fewer} with fewer executions" if options.stronger else ""
    print(f"{tried} tried, {caught} caught{less}; {unreached} that none of these models reaches")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["list", "check", "try", "strengthen"])
    parser.add_argument("--limit", type=float, default=60, help="seconds of the processor for each trial")
    parser.add_argument("--only", default="", help="only places that this regular expression matches")
    parser.add_argument("--models", default="", help="only models that this regular expression matches")
    parser.add_argument("--stronger", action="store_true", help="relaxed ones stronger, not strong ones weaker")
    options = parser.parse_args()
    if options.what == "list":
        for (path, atomic), operations in from_source().items():
            print(f"| `{path.removeprefix('src/')}` | `{atomic}` | {'; '.join(sorted(operations))} | |")
    elif options.what == "check":
        sys.exit(0 if check() else 1)
    elif options.what == "strengthen":
        strengthen()
    else:
        attempt(options)


if __name__ == "__main__":
    main()
