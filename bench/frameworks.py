#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Measures pools over each event framework beside the same framework used bare.

    bench/frameworks.py [ROUNDS]

For each work: the pool over the framework, the framework bare, and the ratio of the two, the median
of the rounds' ratios; above 1 the pool is better. native is beside a loop by hand. The runs of a round
follow one another, so that whatever else the machine does affects them alike.
"""

import os
import statistics
import subprocess
import sys

BUILD = "build"
# The name, the program of the bare framework, and what the two run with.
OVER = [
    ("native", "floor", {}),
    ("portable", "floor", {"NUNC_STANS_FRAMEWORK": "portable"}),
    ("libevent", "libevent", {"NUNC_STANS_FRAMEWORK": "libevent"}),
    ("libevent:poll", "libevent", {"NUNC_STANS_FRAMEWORK": "libevent:poll", "EVENT_NOEPOLL": "1"}),
    ("libevent:select", "libevent",
     {"NUNC_STANS_FRAMEWORK": "libevent:select", "EVENT_NOEPOLL": "1", "EVENT_NOPOLL": "1"}),
    ("tevent", "tevent", {"NUNC_STANS_FRAMEWORK": "tevent"}),
    ("tevent:poll", None, {"NUNC_STANS_FRAMEWORK": "tevent:poll"}),
    ("custom (poll)", None, {"LD_PRELOAD": f"{os.getcwd()}/{BUILD}/c-tests/over-poll.so"}),
]
# The work, its parameter, the metric, its divisor and unit, and whether more is better.
WORKS = [
    ("echo-loop", "32", "rate", 1e3, "k/s", True),
    ("echo-loop", "32", "cpu_us", 1, "us", False),
    ("timers-due", "200000", "p50_us", 1, "us late", False),
    ("timers-due", "200000", "cpu_us", 1, "us", False),
    ("timers-due", "200000", "early", 1, "early", False),
]


def measure(program, work, param, settings):
    if program is None:
        return {}
    run = subprocess.run([f"{BUILD}/bench/{program}", work, param], env={**os.environ, **settings},
                         capture_output=True, text=True, timeout=120, check=False)
    if run.returncode != 0:
        return {}
    lines = [line.split(",") for line in run.stdout.splitlines()]
    return {line[2]: float(line[3]) for line in lines}


def main():
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    found = {}
    for _ in range(rounds):
        for name, bare, settings in OVER:
            for work, param in dict.fromkeys(row[:2] for row in WORKS):
                for who, program in (("ns", "ns"), ("bare", bare)):
                    for metric, value in measure(program, work, param, settings).items():
                        found.setdefault((name, work, who, metric), []).append(value)
    print(f"{'work':<12}{'param':>8}  {'over':<16}{'ns':>10}{'bare':>10}  {'unit':<8}{'ns/bare':>8}")
    for work, param, metric, divisor, unit, more in WORKS:
        for name, _, _ in OVER:
            ours = found.get((name, work, "ns", metric), [])
            bare = found.get((name, work, "bare", metric), [])
            cells = [f"{statistics.median(runs) / divisor:.3g}" if runs else "-" for runs in (ours, bare)]
            each = [a / b if more else b / a for a, b in zip(ours, bare) if a and b]
            ratio = f"{statistics.median(each):.2f}" if each else "-"
            print(f"{work:<12}{param:>8}  {name:<16}{cells[0]:>10}{cells[1]:>10}  {unit:<8}{ratio:>8}")


if __name__ == "__main__":
    main()
