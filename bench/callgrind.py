# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs a program under callgrind and reads its counts."""

import os
import re
import subprocess
import sys
import tempfile

LIBRARY = "libnunc-stans.so"


def run(command):
    """Returns {(object, function): instructions of its own}."""
    with tempfile.TemporaryDirectory() as directory:
        out = os.path.join(directory, "callgrind.%p")
        process = subprocess.Popen(
            ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *command],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        message = process.communicate(timeout=120)[1]
        if process.returncode != 0:
            sys.exit(f"{' '.join(command)} fails under valgrind:\n{message}")
        # The client process has an output file of its own.
        with open(out.replace("%p", str(process.pid)), encoding="utf-8") as file:
            return read(file)


def read(file):
    """Returns the costs by place. A cost line belongs to the object and function named before it.
    The line after calls= is the callee's cost, which is listed there, too. A name is spelled out
    once; later it is a number."""
    names, costs, place, skip = {}, {}, {}, False
    for line in file:
        named = re.match(r"(c?)(ob|fn)=\((\d+)\)(?: (.*))?", line)
        if named:
            callee, kind, number, name = named.groups()
            if name:
                names[kind, number] = name
            if not callee:
                place[kind] = names[kind, number]
        elif line.startswith("calls="):
            skip = True
        elif re.match(r"[-+*0-9]", line):
            if not skip:
                where = place.get("ob", ""), place.get("fn", "")
                costs[where] = costs.get(where, 0) + int(line.split()[1])
            skip = False
    return costs
