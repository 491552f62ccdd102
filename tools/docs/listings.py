#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Compiles and runs the listings of pages in Markdown, as they are printed.

    tools/docs/listings.py DIR PAGE.md...        prints results as TAP

In a page, a block in a fence of three backquotes is

    c title="echo.c"     a file, written to DIR/PAGE before any command of the page runs. What comes
                         again under a title, in any page, is the same.
    c, ini               a part of a file: its lines are, in this order and without a gap, in a file of
                         the page, in examples/ or in the header.
    console              a session in bash: "$ " is before a command, "> " before its further lines. All
                         other lines are what the command prints, where "..." stands for anything. A
                         command has to end with status 0.

Sessions run in DIR/PAGE (a recipe's with its program from examples/recipes), one after the other in one
bash. They run in a network of their own, so that they may use the ports that they name, and are left out
where the system does not let them. Everything that a session starts ends with it. With NS_LISTING_ROOT,
which DIR has to be in, they run in that root.
"""

import fnmatch
import os
import pathlib
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

LIMIT = float(os.environ.get("NS_LISTING_LIMIT", "60"))  # for one command, in seconds
FENCE = re.compile(r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$", re.M | re.S)
results = []


def tap(problems, name):
    """One result."""
    results.append(not problems)
    print(f"{'not ok' if problems else 'ok'} {len(results)} - {name}", flush=True)
    for line in problems[:40]:
        print("# " + line, flush=True)


def sources():
    """The files that a part of a file may be from."""
    for root in ("examples", "include", "c-tests"):
        yield from sorted(pathlib.Path(root).rglob("*.[ch]"))


def stripped(text):
    """A text's lines without their indentation."""
    return "\n".join(line.strip() for line in text.strip().split("\n"))


def apart():
    """The command that gives a session namespaces of its own."""
    return ["unshare", "--net", "--mount"] + ([] if os.getuid() == 0 else ["--user", "--map-root-user"])


def can_be_apart():
    """Whether the system lets sessions have them."""
    return subprocess.run([*apart(), "true"], check=False, capture_output=True).returncode == 0


class Session:
    """A bash that runs commands and is asked what they print."""

    def __init__(self, directory):
        root = os.environ.get("NS_LISTING_ROOT")
        shell = "exec bash --norc"
        if root:
            inside = "/" + os.path.relpath(directory, root)
            shell = f"exec chroot {shlex.quote(root)} sh -c 'cd {shlex.quote(inside)} && exec bash --norc'"
        # The directory where the guide installs its daemon is this session's own.
        command = [*apart(), "sh", "-c",
                   "ip link set lo up && mount -t tmpfs none /usr/local/sbin && " + shell]
        self.bash = subprocess.Popen(command, cwd=directory, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                     stderr=subprocess.STDOUT, start_new_session=True)
        self.lines = queue.Queue()
        threading.Thread(target=self.read, daemon=True).start()
        self.number = 0

    def read(self):
        """Pass on what the session prints."""
        for line in self.bash.stdout:
            self.lines.put(line.decode("utf-8", "replace").rstrip("\n"))

    def run(self, command, wanted):
        """Run a command, and say what is wrong with what it does."""
        self.number += 1
        mark = f"@@{self.number}:"
        # jobs: as at a prompt, what has ended loses its number.
        self.bash.stdin.write(f"jobs >/dev/null\n{command}\necho {mark}$?\n".encode())
        self.bash.stdin.flush()
        got, status = [], None
        end = time.monotonic() + LIMIT
        # What a command in the background prints may come after the mark.
        while status is None or not matches(got, wanted):
            if status not in (None, "0"):
                break
            if status is not None and not command.rstrip().endswith("&") and len(got) >= len(wanted) \
                    and "..." not in wanted:
                break
            try:
                line = self.lines.get(timeout=max(end - time.monotonic(), 0.001))
            except queue.Empty:
                return ["no end:", "$ " + command, *got, "wanted:", *wanted]
            before, found, after = line.partition(mark)
            if found:
                status = after
                line = before
            if line or not found:
                got.append(line)
        if status == "0" and matches(got, wanted):
            return []
        return ["$ " + command, f"status {status}", *got, "wanted:", *wanted]

    def end(self):
        """End it and all that it started."""
        try:
            os.killpg(self.bash.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.bash.wait()


def matches(got, wanted):
    """Whether lines are those that are wanted, where "..." stands for anything."""
    if not wanted:
        return not got
    if wanted[0] == "...":
        return len(wanted) == 1 or any(matches(got[i:], wanted[1:]) for i in range(len(got) + 1))
    if not got:
        return False
    pattern = re.sub(r"([\[?*])", r"[\1]", wanted[0]).replace("...", "*")
    return fnmatch.fnmatchcase(got[0], pattern) and matches(got[1:], wanted[1:])


def commands(text):
    """The commands of a session: [(command, lines that it prints)]."""
    found = []
    for line in text.rstrip("\n").split("\n"):
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif line.startswith("> ") and not found[-1][1]:
            found[-1] = (found[-1][0] + "\n" + line[2:], [])
        else:
            found[-1][1].append(line)
    return found


def check_page(path, directory, known):
    """All listings of one page."""
    text = pathlib.Path(path).read_text("utf-8")
    directory = pathlib.Path(directory, pathlib.Path(path).stem)
    directory.mkdir(parents=True, exist_ok=True)
    program = pathlib.Path("examples/recipes", pathlib.Path(path).stem + ".c")
    if pathlib.Path(path).parent.name == "recipes" and program.exists():
        shutil.copy(program, directory)
    blocks = [(m.group(1), m.group(2), m.group(3), text.count("\n", 0, m.start()) + 1)
              for m in FENCE.finditer(text)]
    here = {}
    for _, title, body, line in blocks:
        if title:
            if known.setdefault(title, body) != body:
                tap([f"{path}:{line}: {title} is another elsewhere"], f"{path}: {title} is one text")
            (directory / title).write_text(body, "utf-8")
            here[title] = body
    parts = [b for b in blocks if b[0] in ("c", "ini") and not b[1]]
    if parts:
        files = [stripped(t) for t in here.values()] + [stripped(p.read_text("utf-8")) for p in sources()]
        lost = [f"{path}:{line}: in no file" for _, _, body, line in parts
                if not any(stripped(body) in f for f in files)]
        tap(lost, f"{path}: {len(parts)} parts of files are where they are said to be")
    sessions = [(body, line) for language, _, body, line in blocks if language == "console"]
    if not sessions:
        return
    if not can_be_apart():
        print(f"not ok {len(results) + 1} - {path}: {len(sessions)} sessions # SKIP no namespaces here")
        results.append(True)
        return
    session = Session(directory)
    for body, line in sessions:
        problems = []
        for command, wanted in commands(body):
            problems = session.run(command, wanted)
            if problems:
                break
        tap(problems, f"{path}:{line}: the commands do what is printed")
    session.end()


def main():
    """The command line."""
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    known = {}
    for page in sys.argv[2:]:
        check_page(page, sys.argv[1], known)
    print(f"1..{len(results)}")
    sys.exit(not all(results))


if __name__ == "__main__":
    main()
