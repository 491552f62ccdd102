#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs the programs of the benchmark, interleaved, and prints one table.

    bench/run.py [--rounds N] [--quick] [--only WORK,...] [--programs DIR]

Every peer does a work before the next work begins, and all works are repeated for several rounds.
So whatever else the machine does affects all peers alike. The table shows medians.
"""

import argparse
import csv
import os
import statistics
import subprocess
import sys
import time

PEERS = ["ns", "floor", "libevent", "libuv", "glib", "asio"]

# What is shown of each work: metric, unit, divisor, and whether more is better.
SHOWN = {
    "run-now": [("rate", "M/s", 1e6, True)],
    "run-now-window": [("rate", "M/s", 1e6, True)],
    "hand-off": [("p50_us", "us", 1, False), ("p90_us", "us", 1, False), ("p99_us", "us", 1, False)],
    "rearm": [("rate", "M/s", 1e6, True)],
    "echo": [("rate", "k/s", 1e3, True), ("p50_us", "us", 1, False), ("p99_us", "us", 1, False),
             ("cpu_us", "us", 1, False)],
    "own-threads": [("rate", "k/s", 1e3, True), ("p50_us", "us", 1, False),
                    ("p99_us", "us", 1, False), ("own_switches", "", 1, False)],
    "accept": [("rate", "k/s", 1e3, True), ("cpu_us", "us", 1, False)],
    "timers": [("add", "M/s", 1e6, True), ("cancel_settled", "M/s", 1e6, True),
               ("one_ns", "ns", 1, False)],
    "timers-fire": [("rate", "M/s", 1e6, True)],
    "timers-due": [("add", "M/s", 1e6, True), ("p50_us", "us", 1, False),
                   ("p90_us", "us", 1, False), ("p99_us", "us", 1, False), ("early", "", 1, False)],
    "idle": [("bytes", "B", 1, False), ("touch_ns", "ns", 1, False)],
    "signals": [("rate", "k/s", 1e3, True)],
    "start-stop": [("each_us", "us", 1, False)],
    "group-post": [("rate", "M/s", 1e6, True), ("cpu_us", "us", 1, False)],
    "groups": [("rate", "M/s", 1e6, True), ("cpu_us", "us", 1, False)],
    "groups-idle": [("bytes", "B", 1, False), ("make_ns", "ns", 1, False)],
    "group-ping": [("rate", "M/s", 1e6, True), ("cpu_us", "us", 1, False)],
    "overburdened": [("makespan_ms", "ms", 1, False), ("ideals", "", 1, False)],
}

# Works that only one peer does in several ways, and the work of the other peers to compare them
# with.
SAME_AS = {
    "echo-loop-persist": "echo-loop",
    "echo-loop-caller": "echo-loop",
    "echo-loop-turns": "echo-loop",
    "echo-workers-persist": "echo-workers",
    "echo-loop-oneshot": "echo-loop",
    "echo-workers-shared": "echo-workers",
    "echo-workers-owned": "echo-workers",
}

# A work that is another with something more: what each peer keeps of its own rate without.
MORE_THAN = {
    "echo-loop-caller": "echo-loop",
    "echo-loop-turns": "echo-loop",
    "run-now-loop-caller": "run-now-loop",
    "run-now-timed": "run-now",
    "rearm-timed": "rearm",
    "echo-loop-timed": "echo-loop",
    "echo-workers-timed": "echo-workers",
    "timers-fire-timed": "timers-fire",
    "group-post-timed": "group-post",
    "run-now-loop-turns": "run-now-loop",
    "group-post": "run-now",
    "group-post-window": "run-now-window",
}

NOTES = """\
Medians of all rounds; in brackets how far ns itself spreads (half of highest minus lowest).
ns/best and ns/floor say how many times as good as the best peer and as the floor ns is: above 1
is better, also where less is more. They are the medians of the rounds' ratios.
run-now-window: at most 4096 jobs wait. hand-off: one job at a time; idle: the worker sleeps.
echo: unix sockets, 64 bytes; cpu is what the serving process used for one round trip. The client
is one process, and never sleeps but with one connection. It bounds accept, where it takes as long
as the server, and, on two processors, partly echo with 1000 connections or with workers: there
cpu says more than the rate.
libuv: echo by uv_poll_t. Its jobs and timers are added on the loop's own thread, the only one
that may; its timers count milliseconds. libevent's are added from outside, with its locks.
caller: the loop is a thread of the program's, in ns_thrpool_run; turns: one that polls the wait
descriptor and turns the pool; beside them what is left of the rate of the pool's own thread.
timed: with NS_POOL_TIMINGS; beside it what is left of the rate without.
group: one callback of a group at a time, in order, on any worker; asio: strands; floor: a list and
a mutex for each group over the pool. group-post: to one group, and beside it what is left of the
same peer's run-now. groups: how many : producers x workers. group-ping: two groups, so many workers.
own-threads: threads of the server's own : connections. The loop only says what is readable; own_switches:
how often these threads went to sleep for each request.
overburdened: a hundred tasks that sleep 5 ms, 16 threads; one-loop: libuv, whose loops are bound to
threads, has all their connections on one. ideals: how many times 35 ms it took.
"""


def shown(work):
    names = work.split("-")
    return next(SHOWN[name] for end in range(len(names), 0, -1)
                if (name := "-".join(names[:end])) in SHOWN)


def works_of(program):
    lines = subprocess.run([program, "list"], check=True, capture_output=True, text=True).stdout
    return [tuple(line.split(",")) for line in lines.split()]


def measure(program, work, param, effort):
    """Returns the metrics of one run, or None after a message if the run fails."""
    env = dict(os.environ, BENCH_EFFORT=str(effort))
    try:
        run = subprocess.run([program, work, param], env=env, capture_output=True, text=True,
                             timeout=60, check=True)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        print(f"\n{error}", file=sys.stderr)
        return None
    return [line.split(",")[2:] for line in run.stdout.splitlines()]


def progress(text):
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()


def run_all(programs, works, rounds, effort):
    """Returns {(peer, work, param, metric): [a value for each round]}."""
    values = {}
    begin = time.monotonic()
    order = list(dict.fromkeys(work for peer in PEERS if peer in works for work in works[peer]))
    for number in range(rounds):
        for done, (work, param) in enumerate(order):
            seconds = time.monotonic() - begin
            progress(f"round {number + 1} of {rounds}, {done + 1} of {len(order)}: "
                     f"{work} {param}, {seconds:.0f} s")
            for peer in PEERS:
                if (work, param) not in works.get(peer, ()):
                    continue
                for metric, value in measure(programs[peer], work, param, effort) or ():
                    values.setdefault((peer, work, param, metric), []).append(float(value))
        if not sys.stderr.isatty():
            print(f"round {number + 1} of {rounds} done after "
                  f"{time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    progress("")
    return values, order


def write_csv(path, values):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", newline="", encoding="ascii") as file:
        out = csv.writer(file)
        out.writerow(["work", "param", "metric", "peer", "median", "lowest", "highest", "runs"])
        for (peer, work, param, metric), all_of_it in values.items():
            out.writerow([work, param, metric, peer, f"{statistics.median(all_of_it):.6g}",
                          f"{min(all_of_it):.6g}", f"{max(all_of_it):.6g}", len(all_of_it)])


def ratio(ours, theirs, more_is_better):
    if not ours or not theirs:
        return None
    return ours / theirs if more_is_better else theirs / ours


def ratio_of_rounds(ours, theirs, more_is_better):
    """Returns the median of the ratios per round, which cancels what slows a whole round down."""
    each = [ratio(a, b, more_is_better) for a, b in zip(ours or (), theirs or ())]
    each = [value for value in each if value is not None]
    return statistics.median(each) if each else None


def rows(values, order):
    """Yields table rows: [what], {peer: median}, ratio to the best peer, to the floor, spread."""
    for work, param in order:
        for metric, unit, divisor, more in shown(work):
            found = {}
            for peer in PEERS:
                runs = values.get((peer, work, param, metric)) or \
                    values.get((peer, SAME_AS.get(work), param, metric))
                if runs:
                    found[peer] = [value / divisor for value in runs]
            cells = {peer: statistics.median(runs) for peer, runs in found.items()}
            peers = [peer for peer in cells if peer not in ("ns", "floor")]
            best = (max if more else min)(peers, key=cells.get) if peers else None
            ours = found.get("ns")
            spread = None
            if ours and len(ours) > 1 and cells["ns"]:
                spread = (max(ours) - min(ours)) / 2 / cells["ns"]
            yield ((work, param, metric.removesuffix("_us").removesuffix("_ns"), unit), cells,
                   ratio_of_rounds(ours, found.get(best), more),
                   ratio_of_rounds(ours, found.get("floor"), more), spread)
        less = MORE_THAN.get(work)
        kept = {peer: ratio_of_rounds(values.get((peer, work, param, "rate")),
                                      values.get((peer, less, param, "rate")), True)
                for peer in PEERS}
        if any(kept.values()):
            yield (work, param, f"of {less}", ""), kept, None, None, None


def number(value):
    if value is None:
        return ""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def print_table(values, order):
    head = ["work", "param", "", ""] + PEERS + ["ns/best", "ns/floor", ""]
    table = [head]
    last = None
    for what, cells, best, floor, spread in rows(values, order):
        same = last == what[:2]
        last = what[:2]
        table.append((["", ""] if same else list(what[:2])) + list(what[2:]) +
                     [number(cells.get(peer)) for peer in PEERS] +
                     [f"{best:.2f}" if best else "", f"{floor:.2f}" if floor else "",
                      f"(±{spread * 100:.0f} %)" if spread is not None else ""])
    widths = [max(len(row[i]) for row in table) for i in range(len(head))]
    for row in table:
        print("  ".join(cell.ljust(width) if i < 4 else cell.rjust(width)
                        for i, (cell, width) in enumerate(zip(row, widths))).rstrip())
    print()
    print(NOTES, end="")


def main():
    parser = argparse.ArgumentParser(description="run the benchmark")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="one round of short works")
    parser.add_argument("--only", metavar="WORK,...", help="works whose names begin so")
    parser.add_argument("--programs", default="build/bench", metavar="DIR")
    options = parser.parse_args()
    programs = {peer: os.path.join(options.programs, peer) for peer in PEERS}
    programs = {peer: path for peer, path in programs.items() if os.access(path, os.X_OK)}
    only = tuple((options.only or "").split(","))
    works = {peer: [work for work in works_of(path) if work[0].startswith(only)]
             for peer, path in programs.items()}
    if not any(works.values()):
        sys.exit("no such work, or no programs: make bench builds them")
    rounds, effort = (1, 0.3) if options.quick else (options.rounds, 0.5)
    values, order = run_all(programs, works, rounds, effort)
    out = os.path.join(options.programs,
                       f"only-{options.only}.csv" if options.only else "out.csv")
    write_csv(out, values)
    print_table(values, order)
    print(f"All of it: {out}")


if __name__ == "__main__":
    main()
