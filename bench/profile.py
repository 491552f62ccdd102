#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the instructions of the main paths go: bench/profile.py [PROGRAM].

It measures a run-now job that a worker runs, a round trip that the loop serves, and a job that is
posted to one group and to one of many. From callgrind's counts it prints the functions that take a
fiftieth or more of the instructions, and how many each takes per job or round trip. Inlined
functions count as their callers.
"""

import os
import sys

sys.dont_write_bytecode = True
import callgrind

PATHS = [("run-now", "1x1", 100000), ("echo-loop", "32", 50000), ("group-post", "1x1", 100000),
         ("groups", "1000:2x2", 100000)]


def main():
    program = sys.argv[1] if len(sys.argv) > 1 else "build/bench/ns"
    for work, param, units in PATHS:
        costs = callgrind.run([program, work, param, str(units)])
        total = sum(costs.values())
        objects = {}
        print(f"{work} {param}: {total / units:.0f} instructions each")
        for (where, function), cost in sorted(costs.items(), key=lambda item: -item[1]):
            where = os.path.basename(where).split(".so")[0]
            objects[where] = objects.get(where, 0) + cost
            if cost >= total / 50:
                print(f"  {cost / units:6.0f}  {100 * cost / total:4.1f} %  {where:15} "
                      f"{function.removesuffix(chr(39) + '2')}")
        print("  of all:", ", ".join(f"{where} {cost / units:.0f}"
                                     for where, cost in objects.items() if cost >= units))


if __name__ == "__main__":
    main()
