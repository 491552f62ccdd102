# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands for gdb: what the pools of nunc-stans do, in a live process or in a core.

    info ns-pools         the pools, and what each of their threads does
    info ns-jobs [POOL]   the jobs that are armed, queued in groups, or running; POOL is an address

gdb loads this file by itself if it is installed beside the library's name in its directory for that
(share/gdb/auto-load). Otherwise: source nunc-stans-gdb.py

The library needs no debug information. It has two tables in sections of their own: of its pools, and of
where the fields of its types are. A process that was stopped in the middle of a change may have lists that
lead astray: every walk has a limit, and says so if it comes to it.
"""

import re
import struct

import gdb

VERSION = 1
# A walk of one list, and of all groups, ends after so many steps.
LIMIT = 1000000
FLAGS = [(1, "ACCEPT"), (2, "CONNECT"), (4, "READ"), (8, "WRITE"), (0x10, "TIMER"), (0x20, "SIGNAL"),
         (0x40, "PERSIST"), (0x800, "CADENCE"), (0x80, "THREAD"), (0x100, "PRESERVE_FD"),
         (0x200, "SHUTDOWN_WORKER")]
IO, TIMER, SIGNAL = 0xf, 0x10, 0x20


class Lost(Exception):
    """Something is not where it is to be."""


def memory(at, size):
    try:
        return bytes(gdb.selected_inferior().read_memory(at, size))
    except gdb.MemoryError as error:
        raise Lost("no memory at %#x" % at) from error


def number(at, size):
    return int.from_bytes(memory(at, size), "little")


def pointer(at):
    return number(at, 8)


def section(name):
    """The address of a section of the library's, in whatever file it is."""
    for line in gdb.execute("info files", to_string=True).splitlines():
        found = re.match(r"\s*(0x[0-9a-f]+) - (0x[0-9a-f]+) is %s( in .*)?$" % name, line)
        if found:
            return int(found.group(1), 16)
    raise Lost("this process has not loaded nunc-stans (no section %s)" % name)


class Layout:
    """The library's table of offsets."""

    def __init__(self):
        at = section("nunc_stans_layout")
        magic, version, count = struct.unpack("<16sII", memory(at, 24))
        if magic != b"nunc-stans parts" or version != VERSION or count > 1000:
            raise Lost("the library is of a version that this script does not know")
        self.entries = {}
        for name, offset, size in struct.iter_unpack("<24sII", memory(at + 24, 32 * count)):
            self.entries[name.rstrip(b"\0").decode()] = (offset, size)

    def __getitem__(self, name):
        if name not in self.entries:
            raise Lost("the library's table has no %s" % name)
        return self.entries[name][0]

    def field(self, base, name):
        """The value of a field of the object at base."""
        self[name]
        offset, size = self.entries[name]
        return number(base + offset, size)


class Slot:
    """What a thread does."""
    FORMAT = "<QQQQiIQQQ4QQQQQ"

    def __init__(self, at):
        (self.job, self.func, self.ending, self.since, self.thread, self.kind, self.runs, self.busy,
         self.data, *rest) = struct.unpack(self.FORMAT, memory(at, struct.calcsize(self.FORMAT)))
        self.disposed = rest[:4]


class Pool:
    """A pool, found through the table of its slots."""

    def __init__(self, at):
        (magic, version, size, slot_size, slots, self.address, made, self.number, _, _,
         name) = struct.unpack("<16sIIIIQQQII16s", memory(at, 80))
        if magic != b"nunc-stans slots" or version != VERSION or slots > 100000:
            raise Lost("the pool's slots at %#x are of a version that this script does not know" % at)
        self.name = name.rstrip(b"\0").decode(errors="replace")
        self.slots = [Slot(at + size + slot_size * i) for i in range(slots)]
        stripes = struct.unpack("<128Q", memory(made, 1024))
        self.live = [sum(stripes[kind::8]) - sum(slot.disposed[kind] for slot in self.slots)
                     for kind in range(4)]

    def thread(self, index):
        return "%s-loop" % self.name if index == 0 else "%s-worker %d" % (self.name, index)


def pools():
    at = section("nunc_stans_pools")
    for _ in range(1000):
        magic, version, places = struct.unpack("<16sII", memory(at, 24))
        if magic != b"nunc-stans pools" or version != VERSION or places > 1000:
            raise Lost("the library is of a version that this script does not know")
        for table in struct.unpack("<%dQ" % places, memory(at + 24, 8 * places)):
            if table:
                yield Pool(table)
        at = pointer(at + 24 + 8 * places)
        if not at:
            return


def function(address):
    """A function by name, if gdb knows it."""
    text = gdb.execute("info symbol %#x" % address, to_string=True)
    found = re.match(r"(\S+)( \+ \d+)? in section", text)
    return "%s (%#x)" % (found.group(1), address) if found else "%#x" % address


def elapsed(since):
    """How long ago that was, where gdb can read the clock that the process reads."""
    if not since or gdb.selected_inferior().pid == 0:
        return ""
    try:
        import time
        if "core" in gdb.execute("info target", to_string=True):
            return ""
        return " for %.3f s" % (time.monotonic() - since / 1e9)
    except gdb.error:
        return ""


def walk(first, following, what):
    """The addresses of a list, from first on, as long as it does not go round for ever."""
    seen = set()
    at = first
    while at:
        if at in seen or len(seen) >= LIMIT:
            print("  (the %s is in the middle of a change, or longer than %d)" % (what, LIMIT))
            return
        seen.add(at)
        yield at
        at = following(at)


class Jobs:
    """The jobs of a pool."""

    def __init__(self, layout, pool):
        self.layout, self.pool = layout, pool
        self.jobs = {}
        self.lost = []

    def collect(self):
        lists = self.layout.field(self.pool.address, "pool.lists")
        for look in (lambda: self.ready(lists), lambda: self.heads(lists), self.descriptors,
                     lambda: self.timers(lists), self.groups):
            try:
                look()
            except Lost as why:
                self.lost.append(str(why))

    def add(self, job, doing=None):
        """Notes a job, if it is armed or running."""
        layout = self.layout
        state = layout.field(job, "job.state")
        if state & layout["EXECUTING"]:
            self.jobs[job] = "running"
        elif state & layout["STATES"] != layout["ARMED"]:
            return
        elif doing:
            self.jobs[job] = doing
        elif self.has_trigger(job) and layout.field(job, "job.next") == job:
            self.jobs[job] = "rests"
        elif self.has_trigger(job) and layout.field(job, "job.notes") & layout["MAY_FIRE"]:
            self.jobs[job] = "armed"
        else:
            self.jobs[job] = "has fired"

    def has_trigger(self, job):
        return self.layout.field(job, "job.flags") & (IO | TIMER | SIGNAL) != 0

    def ready(self, lists):
        first = self.layout.field(lists, "lists.ready")
        for job in walk(first, lambda job: self.layout.field(job, "job.next"), "list of fired jobs"):
            self.add(job)

    def list_of(self, head, what):
        """The jobs of a list that begins with a pointer to the first node."""
        following = lambda node: self.layout.field(node, "node.next")
        for node in walk(pointer(head), following, what):
            self.add(node - self.layout["job.link"])

    def heads(self, lists):
        self.list_of(lists + self.layout["lists.signals"], "list of signal jobs")
        self.list_of(lists + self.layout["lists.strays"], "list of other jobs")

    def descriptors(self):
        """The table is an array of blocks, each as long as all before it."""
        layout = self.layout
        table = self.pool.address + layout["pool.shared"] + layout["shared.fds"] + layout["fds.blocks"]
        size, length = layout["ENTRY"], layout["FIRST"]
        for block in range(layout.entries["fds.blocks"][1] // 8):
            at = pointer(table + 8 * block)
            if block > 1:
                length *= 2
            if not at:
                continue
            heads = memory(at, size * length)
            for index in range(length):
                if any(heads[index * size + layout["entry.jobs"]:][:8]):
                    self.list_of(at + index * size + layout["entry.jobs"], "list of a descriptor's jobs")

    def ring(self, ring, what):
        """The links of a ring: its own comes before the first and after the last."""
        following = lambda link: self.layout.field(link, "link.next")
        first = following(ring)
        return walk(0 if first == ring else first,
                    lambda link: 0 if following(link) == ring else following(link), what)

    def timers(self, lists):
        layout = self.layout
        size, first = layout["RING"], lists + layout["lists.timers"]
        retry = lists + layout["lists.retry"]
        rings = memory(first, size * layout["RINGS"])
        for index in range(layout["RINGS"]):
            at = first + size * index
            follows = int.from_bytes(rings[index * size + layout["link.next"]:][:8], "little")
            if follows in (0, at):
                continue
            for link in self.ring(at, "timer wheel"):
                if link != retry:
                    self.add(link - layout["timer.link"] - layout["job.timer"])

    def groups(self):
        layout = self.layout
        ring = self.pool.address + layout["pool.shared"] + layout["shared.groups"]
        for link in self.ring(ring, "list of groups"):
            self.group(link - layout["group.link"])

    def group(self, group):
        layout = self.layout
        queued = "in its group's queue"
        for name in ("group.held", "group.queue", "group.members"):
            for link in self.ring(group + layout[name], "group's list"):
                job = link + layout["ROOM"]
                is_queued = layout.field(job, "job.output") & layout["QUEUED"]
                self.add(job, queued if is_queued else None)
        inbox = layout.field(group, "group.inbox")
        # Small numbers say who serves the group.
        if inbox > 2:
            following = lambda link: max(layout.field(link, "link.next"), 2) if link > 2 else 0
            for link in walk(inbox, following, "group's inbox"):
                if link > 2:
                    self.add(link + layout["ROOM"], queued)

    def text(self, job, doing):
        layout = self.layout
        flags = layout.field(job, "job.flags")
        public = flags & layout["PUBLIC"]
        names = [name for bit, name in FLAGS if public & bit]
        if not public & (IO | TIMER | SIGNAL):
            names.insert(0, "run-now")
        parts = " ".join(names)
        value = layout.field(job, "job.number") if public & (IO | SIGNAL) else None
        if public & IO:
            parts += " on descriptor %d" % value
        elif public & SIGNAL:
            parts += " signal %d" % value
        line = "job %#x: %s, %s" % (job, parts, doing)
        for index, slot in enumerate(self.pool.slots):
            if slot.job == job and doing == "running":
                line += " in %s (thread %d)%s" % (self.pool.thread(index), slot.thread, elapsed(slot.since))
        line += ", callback %s" % function(layout.field(job, "job.func"))
        line += ", data %#x" % layout.field(job, "job.data")
        if flags & layout["GROUPED"]:
            line += ", group %#x" % layout.field(job, "job.pool")
        return line


def say_thread(pool, index, slot):
    text = "  %s (thread %d)" % (pool.thread(index), slot.thread)
    if slot.job or slot.ending:
        kind = "callback" if slot.job else "done callback"
        text += ": in %s %s of %#x%s" % (kind, function(slot.func), slot.job or slot.ending,
                                        elapsed(slot.since))
    else:
        text += ": in no callback" if slot.thread else ": has ended"
    print(text)


class InfoPools(gdb.Command):
    """The pools of nunc-stans, and which callback each of their threads is in."""

    def __init__(self):
        super().__init__("info ns-pools", gdb.COMMAND_STATUS)

    def invoke(self, argument, from_tty):
        try:
            layout = Layout()
            none = True
            for pool in pools():
                none = False
                shut = layout.field(pool.address + layout["pool.shared"], "shared.gate") & 1
                print("pool %#x (%s)%s: %d run-now, %d timer, %d descriptor, %d signal jobs" % (
                    pool.address, pool.name, ", shut down" if shut else "", *pool.live))
                for index, slot in enumerate(pool.slots):
                    say_thread(pool, index, slot)
            if none:
                print("no pool")
        except Lost as why:
            raise gdb.GdbError(str(why))


class InfoJobs(gdb.Command):
    """The jobs of nunc-stans that are armed, queued in groups, or running: info ns-jobs [POOL].
Run-now jobs that wait for a worker outside groups are not listed; info ns-pools counts them."""

    def __init__(self):
        super().__init__("info ns-jobs", gdb.COMMAND_STATUS)

    def invoke(self, argument, from_tty):
        try:
            wanted = int(gdb.parse_and_eval(argument)) if argument.strip() else None
            layout = Layout()
            for pool in pools():
                if wanted in (None, pool.address):
                    self.show(layout, pool)
        except Lost as why:
            raise gdb.GdbError(str(why))

    def show(self, layout, pool):
        jobs = Jobs(layout, pool)
        jobs.collect()
        print("pool %#x (%s):" % (pool.address, pool.name))
        for job, doing in jobs.jobs.items():
            try:
                print("  " + jobs.text(job, doing))
            except Lost as why:
                jobs.lost.append(str(why))
        for index, slot in enumerate(pool.slots):
            # No list has a run-now or timer job whose callback runs.
            if slot.job and slot.job not in jobs.jobs:
                jobs.jobs[slot.job] = "running"
                try:
                    print("  " + jobs.text(slot.job, "running"))
                except Lost as why:
                    jobs.lost.append(str(why))
        for why in jobs.lost:
            print("  (%s: the process was in the middle of a change)" % why)


InfoPools()
InfoJobs()
