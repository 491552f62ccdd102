# SPDX-License-Identifier: GPL-3.0-or-later
"""Which page of the manual has which function, and what a page says: blocks, in no format yet.

A function that no page below names still gets one: with the others of its part of the header, on a
page that has the name of the first. So what is added to the header is in the manual at once.
"""

import os
import re

import header

# name of the page: (what it is about, its functions)
PAGES = {
    "ns_thrpool_new": ("make a pool of threads", ["ns_thrpool_config_init", "ns_thrpool_new"]),
    "ns_thrpool_new_with": (
        "make a pool with options",
        ["ns_thrpool_options_init", "ns_thrpool_new_with", "ns_thrpool_get_framework"]),
    "ns_thrpool_shutdown": (
        "end a pool",
        ["ns_thrpool_shutdown", "ns_thrpool_is_shutdown", "ns_thrpool_wait", "ns_thrpool_timedwait",
         "ns_thrpool_destroy"]),
    "ns_add_job": ("make jobs that run at once", ["ns_create_job", "ns_add_job", "ns_add_jobs"]),
    "ns_add_io_job": (
        "make jobs for descriptors",
        ["ns_add_io_job", "ns_add_io_timeout_job", "ns_add_fd_job", "ns_add_fd_timeout_job"]),
    "ns_add_timeout_job": ("make a job for a time", ["ns_add_timeout_job"]),
    "ns_add_signal_job": ("make a job for a signal", ["ns_add_signal_job"]),
    "ns_job_rearm": (
        "arm a job again", ["ns_job_rearm", "ns_job_rearm_after", "ns_job_rearm_for"]),
    "ns_job_done": ("finish with a job", ["ns_job_done", "ns_job_cancel"]),
    "ns_job_wait": ("wait until a job is idle", ["ns_job_wait", "ns_job_timedwait"]),
    "ns_job_get_data": (
        "what a job is, and what it carries",
        ["ns_job_get_data", "ns_job_set_data", "ns_job_set_done_cb", "ns_job_get_type",
         "ns_job_get_output_type", "ns_job_get_tp", "ns_job_get_fd", "ns_job_get_native_fd",
         "ns_job_is_func"]),
    "ns_thrpool_run": (
        "be the event loop of a pool",
        ["ns_thrpool_run", "ns_thrpool_turn", "ns_thrpool_get_wait_fd"]),
    "ns_thrpool_get_stats": (
        "statistics of a pool",
        ["ns_thrpool_stats_init", "ns_thrpool_get_stats", "ns_thrpool_reset_stats",
         "ns_thrpool_format_stats"]),
    "ns_thrpool_dump": ("what a pool is doing", ["ns_thrpool_dump"]),
    "ns_framework": ("an event framework of the application's own", []),
    "ns_job_type_t": ("flags of jobs", []),
    "ns_result_t": ("results of calls", ["ns_result_name", "ns_result_message"]),
    "ns_set_log": ("where messages go that have no pool", ["ns_set_log"]),
    "ns_version": ("the version of the library", ["ns_version"]),
    "ns_group_new": (
        "make a group of jobs",
        ["ns_group_new", "ns_group_hold", "ns_group_release", "ns_group_get_data",
         "ns_group_get_tp", "ns_group_is_current"]),
    "ns_add_group_job": (
        "put jobs into a group",
        ["ns_add_group_job", "ns_job_set_group", "ns_job_get_group", "ns_group_set_limit",
         "ns_group_get_length"]),
    "ns_group_cancel": (
        "cancel, wait for, or hold up the jobs of a group",
        ["ns_group_cancel", "ns_group_wait", "ns_group_suspend", "ns_group_resume"]),
}

# Examples on a page: what they show, a program that the tests run, and functions of it.
EXAMPLES = {
    "ns_thrpool_new": (
        "A pool, from its making to its end:", "examples/recipes/fan-in.c", ["main"]),
    "ns_thrpool_new_with": (
        "A pool whose threads have a name of their own, and what it listens to:",
        "examples/recipes/one-port.c", ["start"]),
    "ns_thrpool_shutdown": (
        "SIGTERM shuts the pool down, and the main thread waits for that:",
        "examples/recipes/file-changes.c", ["on_sigterm", "main"]),
    "ns_add_job": (
        "Work in a worker, and its result in the event loop:",
        "examples/recipes/completion.c", ["in_the_loop", "in_a_worker"]),
    "ns_add_io_job": (
        "A connect that is given up when its time is over:",
        "examples/recipes/connect.c", ["on_connected", "main"]),
    "ns_add_timeout_job": (
        "Two timers, of which one keeps its cadence:", "examples/recipes/periodic.c", ["on_time", "main"]),
    "ns_add_signal_job": (
        "SIGTERM ends the program:", "examples/recipes/file-changes.c", ["on_sigterm", "main"]),
    "ns_job_rearm": (
        "A client over TLS, whose job waits for what OpenSSL wants next:",
        "examples/recipes/tls.c", ["on_ready"]),
    "ns_job_done": (
        "A job ends itself, and its done callback frees what it used:",
        "docs/GUIDE.md:owner.c", ["greet", "gone", "main"]),
    "ns_job_get_data": (
        "What a callback asks of its job:", "examples/recipes/child-processes.c", ["on_end"]),
    "ns_thrpool_run": (
        "A pool in a loop of the application's own:", "docs/GUIDE.md:guest.c", ["on_time", "main"]),
    "ns_thrpool_get_stats": (
        "A number, and the whole as text for Prometheus:", "docs/GUIDE.md:stats.c", ["main"]),
    "ns_thrpool_dump": (
        "SIGUSR1 has the program print what its pool does:", "docs/GUIDE.md:stuck.c", ["print", "on_usr1"]),
    "ns_group_new": (
        "Parts of a computation, and what is done when the last is finished:",
        "examples/recipes/fan-in.c", ["count", "all_done", "main"]),
    "ns_add_group_job": (
        "Each client that is accepted goes into the group of all clients:",
        "examples/recipes/tls.c", ["on_client"]),
    "ns_group_cancel": (
        "A limit of requests in a time: the group is suspended, and a timer resumes it:",
        "examples/recipes/rate-limit.c", ["serve", "on_fifth"]),
}

# Where types and macros belong that are not with their functions: the first pattern that matches.
HOMES = [
    (r"NS_JOB_|ns_job_type_t$", "ns_job_type_t"),
    (r"_ns_result_t$|ns_result_t$|NS_(TIMEOUT|RUNNING|OVERLOADED)$", "ns_result_t"),
    (r"NS_FRAMEWORK_|ns_framework", "ns_framework"),
    (r"NS_VERSION_|NS_EXTENSIONS$", "ns_version"),
    (r"ns_thrpool_config$", "ns_thrpool_new"),
    (r"ns_job_func_t$", "ns_add_job"),
]

# Parts of the header whose opening text is told elsewhere.
NO_INTRO = {"Job types", "Additions"}

GENERAL = ("Every function may be called from any thread, callbacks included. Where one may not, it "
           "says so. None is to be called in a signal handler, unless it says so.")


class Page:
    """A page of the manual, section 3."""

    def __init__(self, name, about):
        self.name, self.about = name, about
        self.functions, self.others, self.intros = [], [], []

    def names(self):
        """All that the page can be found by."""
        return [f.name for f in self.functions] + [
            o.name for o in self.others if o.kind in ("struct", "typedef") and o.name != "_ns_result_t"]


def assign(sections):
    """The pages, by name, and which page has which name."""
    pages = {name: Page(name, about) for name, (about, _) in PAGES.items()}
    there = {i.name for s in sections for i in s.items}
    where = {f: name for name, (_, functions) in PAGES.items() for f in functions if f in there}
    for section in sections:
        extra = None
        for item in section.items:
            if item.kind == "func" and item.name not in where:
                if extra is None:
                    extra = item.name
                    title = section.title[0].lower() + section.title[1:]
                    pages[extra] = Page(extra, title)
                where[item.name] = extra
        functions = [i for i in section.items if i.kind == "func"]
        home = where[functions[0].name] if functions else None
        if section.text and home and section.title not in NO_INTRO:
            pages[home].intros.append(section)
        for item in section.items:
            if item.kind == "func":
                pages[where[item.name]].functions.append(item)
                continue
            place = next((p for pattern, p in HOMES if re.match(pattern, item.name)), home)
            if place and item.kind != "opaque":
                pages[place].others.append(item)
                where[item.name] = place
    for name, (_, order) in PAGES.items():
        pages[name].functions.sort(key=lambda f, order=order: order.index(f.name))
    return {n: p for n, p in pages.items() if p.functions or p.others}, where


def results_of(function, functions, seen=()):
    """The results that a function's doc comment names, those of "as ns_x" included."""
    found = set(re.findall(r"\bNS_[A-Z_]+\b", function.returns))
    for other in re.findall(r"\b[Aa]s (ns_\w+)", function.returns):
        if other in functions and other not in seen:
            found |= results_of(functions[other], functions, (*seen, function.name))
    return found


def thread_safety(function):
    """What a function's own text says of threads: its sentences that do."""
    text = " ".join(function.doc.split())
    sentences = re.split(r"(?<=[.])\s+(?=[A-Z])", text)
    told = [s for s in sentences
            if re.search(r"^Any (number of )?thread|[Nn]ot (from|in) the|can't wait in|async-signal-safe", s)]
    return " ".join(told)


def blocks_of(text):
    """The prose of a comment: ("p", text) and ("code", text)."""
    blocks = []
    for paragraph in re.split(r"\n\s*\n", text):
        lines = paragraph.split("\n")
        if all(line.startswith("    ") for line in lines):
            code = "\n".join(line[4:] for line in lines)
            if blocks and blocks[-1][0] == "code":
                code = blocks.pop()[1] + "\n\n" + code
            blocks.append(("code", code))
        elif paragraph.strip():
            head = []
            while lines and not lines[0].startswith("    "):
                head.append(lines.pop(0))
            blocks.append(("p", " ".join(" ".join(head).split())))
            if lines:
                blocks.append(("code", "\n".join(line[4:] for line in lines)))
    return blocks


def first_sentence_leads(block):
    """A paragraph "Order. A job that ..." of a part's head: its lead word, and the rest."""
    match = block[0] == "p" and re.match(r"([A-Z][a-z]+(?: [a-z]+)?)\. (.*)", block[1], re.S)
    return match and (match.group(1), match.group(2))


def section_blocks(section):
    """The text at the head of a part of the header."""
    for block in blocks_of(section.text):
        lead = first_sentence_leads(block)
        if lead:
            yield ("lead", *lead)
        else:
            yield block


def return_blocks(function):
    """What a function returns: a sentence, and a list of the results that the comment explains."""
    pieces = re.split(r";\s+(?=NS_|if not the first)|(?<=\.)\s+(?=NS_|If not the first)", function.returns)
    plain, explained, rest = [], [], []
    for piece in pieces:
        match = re.match(r"(NS_[A-Z_]+(?:(?:, | or )NS_[A-Z_]+)*)[:,]?\s*(.*)$", piece, re.S)
        if not match:
            (rest if plain or explained else plain).append(piece.rstrip("."))
        elif match.group(2).strip(". "):
            explained.append((re.findall(r"NS_[A-Z_]+", match.group(1)), match.group(2)))
        else:
            plain.append(match.group(1))
    blocks = [("returns", function.name, "; ".join(plain) + (", or:" if plain and explained else ""))]
    if not plain:
        blocks = [("returns", function.name, "one of these:")]
    if explained:
        blocks.append(("results", explained))
    return blocks + [("p", r[0].upper() + r[1:] + ".") for r in rest]


def example_blocks(page):
    """The example of a page: functions of a program that the tests run."""
    about, path, names = EXAMPLES[page.name]
    file, _, listing = path.partition(":")
    with open(file, encoding="utf-8") as source:
        text = source.read()
    if listing:
        text = re.search(r'^```c title="' + re.escape(listing) + r'"\n(.*?)^```', text, re.M | re.S).group(1)
    code = [re.search(r"^(?:static )?\w+ \*?" + name + r"\(.*?^}$", text, re.M | re.S).group(0) for name in names]
    whole = f"The whole program is recipes/{os.path.basename(file)}, among the examples." if not listing else "The whole program is in the guide."
    return [("p", about), ("code", "\n\n".join(code)), ("p", whole)]


def body(page, functions, result_docs):
    """All of a page between SYNOPSIS and SEE ALSO: [(section, blocks)]."""
    description = []
    for section in page.intros:
        description += section_blocks(section)
    for function in page.functions:
        description.append(("h", function.name + "()"))
        description += blocks_of(function.doc)
        if function.params:
            description.append(("list", function.params))
    macros = [o for o in page.others if o.kind == "macro"]
    for other in page.others:
        if other.kind == "struct":
            description.append(("h", "struct " + other.name))
            description += blocks_of(other.doc)
            description.append(("fields", [(d, " ".join(t.split())) for d, t in other.fields]))
        elif other.kind == "typedef":
            description.append(("h", other.name))
            description += blocks_of(other.doc)
    simple = [(m.name, m.doc) for m in macros if "(" not in m.declaration.split(None, 2)[1]
              and m.name not in result_docs]
    if simple:
        title = "The flags" if page.name == "ns_job_type_t" else "Macros"
        description += [("h", title), ("constants", simple)]
    with_arguments = {}
    for m in macros:
        if "(" in m.declaration.split(None, 2)[1]:
            with_arguments.setdefault(m.doc, []).append(m.name)
    if with_arguments:
        description.append(("h", "Macros with an argument"))
        for doc, names in with_arguments.items():
            description += [("p", " ".join(doc.split())),
                            ("code", "\n".join(f"{n}(type)" for n in names))]
    if page.name == "ns_result_t":
        description += [("h", "The results"), ("constants", list(result_docs.items()))]
        enum = next(o for o in page.others if o.kind == "enum")
        description += blocks_of(enum.doc.partition("\n")[2])
    parts = [("DESCRIPTION", description)]

    returns = []
    for function in page.functions:
        if function.returns:
            returns += return_blocks(function)
    if returns:
        parts.append(("RETURN VALUES", returns))
    found = set()
    for function in page.functions:
        found |= results_of(function, functions)
    if page.name in EXAMPLES:
        parts.append(("EXAMPLES", example_blocks(page)))
    errors = [(r, d) for r, d in result_docs.items() if r in found and r != "NS_SUCCESS"]
    if errors and page.name != "ns_result_t":
        parts.append(("ERRORS", [("constants", errors)]))
    if page.functions:
        threads = [("p", GENERAL)]
        told = [(f.name, thread_safety(f)) for f in page.functions if thread_safety(f)]
        if told:
            threads.append(("functions", told))
        parts.append(("THREAD SAFETY", threads))
    return parts


def named_by(page, where):
    """The pages that a page's text names."""
    named = set()
    texts = [f.doc + " " + f.returns + " " + " ".join(t for _, t in f.params) for f in page.functions]
    texts += [o.doc + " ".join(t for _, t in o.fields) for o in page.others]
    texts += [s.text for s in page.intros]
    for word in re.findall(r"\bns_\w+|\bNS_JOB_\w+", " ".join(texts)):
        if word in where:
            named.add(where[word])
    return named


def see_also(page, pages, where):
    """The pages to read next: those that a page names, and those that name it."""
    named = named_by(page, where)
    if page.functions:
        named |= {p.name for p in pages.values() if page.name in named_by(p, where) and p.functions}
    if any("job_type" == n for f in page.functions for n, _ in f.params):
        named.add("ns_job_type_t")
    if any("ns_result_t" in f.declaration for f in page.functions):
        named.add("ns_result_t")
    return sorted(named - {page.name})


def load(path):
    """The header at `path` as pages: (introduction, pages, where, functions, result_docs)."""
    with open(path, encoding="utf-8") as file:
        introduction, sections = header.parse(file.read())
    functions = {i.name: i for s in sections for i in s.items if i.kind == "func"}
    enum = next(i for s in sections for i in s.items if i.name == "_ns_result_t")
    result_docs = {d.split()[0]: " ".join(t.split()) for d, t in enum.fields}
    pages, where = assign(sections)
    where.update((name, "ns_result_t") for name in result_docs)
    return introduction, pages, where, functions, result_docs
