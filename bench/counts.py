#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Counts what one unit of each main work costs, in numbers that hardly vary.

    bench/counts.py [--write] [--only WORK,...] [--programs DIR] [--counts FILE]

It counts the instructions in user space (callgrind) of the library and of the whole process, the
system calls (strace) and the context switches (getrusage). Each count is the difference between
a run with twice the units and a run with the units, per unit, so the cost of starting cancels out.
It fails if a count is more than a tenth above the committed file's. Counts that depend on how
threads happen to meet, or on the layout of malloc's heap, are shown but not checked.
"""

import argparse
import csv
import os
import re
import statistics
import subprocess
import sys
import tempfile

sys.dont_write_bytecode = True
import callgrind

# Work, param, units, and the counts that are repeatable enough to be checked.
WORKS = [
    ("run-now", "1x1", 40000, ("own", "calls")),
    ("run-now", "2x2", 40000, ("own", "calls")),
    ("run-now-timed", "1x1", 40000, ("own", "calls")),
    ("add-jobs", "64", 64000, ("own", "calls")),
    ("hand-off", "idle", 500, ()),
    ("rearm", "4", 40000, ("own", "calls")),
    ("rearm-timed", "4", 40000, ("own", "calls")),
    ("echo-loop", "1", 2000, ("own", "calls")),
    ("echo-loop", "32", 10000, ("unshared",)),
    ("echo-loop-timed", "1", 2000, ("own", "calls")),
    ("echo-loop-persist", "32", 10000, ("unshared",)),
    ("echo-loop-caller", "1", 2000, ("own", "calls")),
    ("echo-loop-turns", "1", 2000, ("own", "calls")),
    ("echo-workers", "1", 2000, ("calls",)),
    ("echo-workers", "32", 10000, ("unshared",)),
    ("accept", "16", 1000, ("own", "calls")),
    ("timers", "1000", 20000, ("own", "calls")),
    ("timers-fire", "100000", 20000, ("own", "calls")),
    ("timers-fire-timed", "100000", 20000, ("own", "calls")),
    ("idle", "1000", 10000, ("own", "calls")),
    ("signals", "1", 1000, ("unshared",)),
    ("group-post", "1x1", 40000, ("own", "calls")),
    ("group-post-timed", "1x1", 40000, ("own", "calls")),
    ("groups", "1000:1x1", 40000, ("own", "calls")),
    ("groups", "1000:2x2", 40000, ("own", "calls")),
    ("group-ping", "1", 40000, ("own", "calls")),
]

# Calls that the work's own driver makes, not the library.
OUTSIDE = {"clock_nanosleep", "sched_yield"}

# Calls that one turn or one wake makes for any number of units.
SHARED = {"epoll_wait", "read", "write", "futex"}

# The instructions of the library and of the process; all calls, and those that each unit makes
# itself; the context switches.
KINDS = ("own", "instructions", "calls", "unshared", "switches")

# The tolerance is a tenth; for counts near zero it is this absolute value.
SLACK = {"own": 5, "calls": 0.05, "unshared": 0.05}

ROUNDS = 3


def run(command):
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def instructions(command):
    """Returns (instructions of the library, instructions of the whole process)."""
    costs = callgrind.run(command)
    return (sum(cost for (where, _), cost in costs.items() if callgrind.LIBRARY in where),
            sum(costs.values()))


def calls(command, directory):
    """Returns {system call: count}."""
    out = os.path.join(directory, "strace")
    run(["strace", "-f", "-qq", "-o", out, *command])
    count = {}
    with open(out, encoding="utf-8", errors="replace") as file:
        for line in file:
            found = re.match(r"\d+ +(\w+)\(", line)
            if found and found.group(1) not in OUTSIDE:
                count[found.group(1)] = count.get(found.group(1), 0) + 1
    return count


def switches(command):
    lines = run(command).splitlines()
    return next(float(line.split(",")[3]) for line in lines if line.split(",")[2] == "switches")


def count(program, work, param, units, directory):
    """Returns {kind: count per unit}, and the system calls by name."""
    def of(factor):
        return [program, work, param, str(units * factor)]

    def per_unit(measure):
        return statistics.median((measure(2) - measure(1)) / units for _ in range(ROUNDS))

    names = {}

    def all_calls(factor):
        by_name = calls(of(factor), directory)
        for name, number in by_name.items():
            names.setdefault(name, {}).setdefault(factor, []).append(number)
        return sum(by_name.values())

    # The same in every run, except for how the threads happen to meet.
    once, twice = (instructions(of(factor)) for factor in (1, 2))
    result = {
        "own": (twice[0] - once[0]) / units,
        "instructions": (twice[1] - once[1]) / units,
        "calls": per_unit(all_calls),
        "switches": statistics.median(switches(of(2)) for _ in range(ROUNDS)),
    }
    each = {name: (statistics.median(found[2]) - statistics.median(found.get(1, [0]))) / units
            for name, found in names.items() if 2 in found}
    result["unshared"] = sum(value for name, value in each.items() if name not in SHARED)
    return result, {name: value for name, value in each.items() if value >= 0.005}


def read(path):
    if not os.path.exists(path):
        return {}
    with open(path, newline="", encoding="ascii") as file:
        return {(row["work"], row["param"], row["kind"]): float(row["each"])
                for row in csv.DictReader(file)}


def write(path, held):
    with open(path, "w", newline="", encoding="ascii") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["work", "param", "kind", "each"])
        for key, value in held.items():
            out.writerow([*key, f"{max(value, 0):.2f}"])


def main():
    parser = argparse.ArgumentParser(description="count what one unit of each work costs")
    parser.add_argument("--write", action="store_true", help="note the counts as those to hold")
    parser.add_argument("--only", default="", metavar="WORK,...", help="works whose names begin so")
    parser.add_argument("--programs", default="build/bench", metavar="DIR")
    parser.add_argument("--counts", default="bench/counts.csv", metavar="FILE")
    options = parser.parse_args()
    program = os.path.join(options.programs, "ns")
    before, now, worse = read(options.counts), {}, []
    print(f"{'':27} {'instructions':>17} {'calls':>17}\n{'work':18} {'':8} {'own':>8} {'all':>8} "
          f"{'all':>8} {'unshared':>8} {'switches':>9}   of the calls")
    with tempfile.TemporaryDirectory() as directory:
        for work, param, units, held in WORKS:
            if not work.startswith(tuple(options.only.split(","))):
                continue
            result, names = count(program, work, param, units, directory)
            cells = [f"{max(result[kind], 0):.{0 if kind in ('own', 'instructions') else 2}f}"
                     f"{' ' if kind in held else '~'}" for kind in KINDS]
            by_name = ", ".join(f"{name} {value:.2f}"
                                for name, value in sorted(names.items(), key=lambda x: -x[1]))
            print(f"{work:18} {param:8} {' '.join(f'{cell:>8}' for cell in cells)}   {by_name}",
                  flush=True)
            for kind in held:
                key = (work, param, kind)
                now[key] = result[kind]
                allowed = before.get(key, float("inf")) * 1.1 + SLACK[kind]
                if result[kind] > allowed:
                    worse.append(f"{work} {param}: {result[kind]:.2f} {kind}, "
                                 f"{before[key]:.2f} before")
    print("~ shown, not held: it depends on how the threads happen to meet.")
    if options.write:
        write(options.counts, {**before, **now})
    elif not before:
        sys.exit(f"nothing to compare with: --write makes {options.counts}")
    elif worse:
        sys.exit("risen by more than a tenth:\n  " + "\n  ".join(worse))


if __name__ == "__main__":
    main()
