#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes the manual from the header's comments and docs/MODEL.md.

    tools/docs/manual.py man DIR         man3 and man7 in DIR
    tools/docs/manual.py markdown DIR    the same pages for the site
    tools/docs/manual.py check           exit status 1 if a function lacks something

Run it in the project's root. It needs nothing but Python 3.
"""

import datetime
import os
import pathlib
import re
import sys

sys.path.insert(0, os.path.dirname(__file__))
sys.dont_write_bytecode = True  # the tree stays as it is
# pylint: disable=wrong-import-position
import header
import markdown
import mdoc
import pages as manual

HEADER = "include/nunc-stans.h"
MODEL = "docs/MODEL.md"


def date_of(path):
    """A page's date: SOURCE_DATE_EPOCH, or when its source changed."""
    seconds = int(os.environ.get("SOURCE_DATE_EPOCH") or os.stat(path).st_mtime)
    day = datetime.datetime.fromtimestamp(seconds, datetime.timezone.utc)
    return f"{day:%B} {day.day}, {day.year}"


def begin(writer, name, section, source):
    """The head of a page."""
    writer.raw('.\\" Generated from ' + source + ". Do not edit.")
    writer.raw(f".Dd {date_of(source)}")
    writer.raw(f".Dt {name.upper()} {section}")
    writer.raw(".Os")
    writer.raw(".Sh NAME")


def synopsis(writer, page):
    """The declarations of a page's functions and types."""
    writer.raw(".Sh LIBRARY")
    writer.raw("Nunc Stans (libnunc\\-stans, \\-lnunc\\-stans)")
    writer.raw(".Sh SYNOPSIS")
    writer.raw(".In nunc-stans.h")
    for other in page.others:
        if other.kind == "typedef":
            writer.raw(".Pp")
            writer.raw(f".Vt {mdoc.word(' '.join(other.declaration.split()))}")
        elif other.kind == "struct" and not page.functions:
            writer.raw(".Pp")
            writer.raw(f".Vt {mdoc.word('struct ' + other.name + ';')}")
    for function in page.functions:
        result, params = header.prototype(function)
        writer.raw(f".Ft {mdoc.word(result)}")
        writer.raw(f".Fo {function.name}")
        for param in params:
            writer.raw(f".Fa {mdoc.word(param)}")
        writer.raw(".Fc")


def see_also(writer, entries):
    """References: [(name, section)]."""
    writer.raw(".Sh SEE ALSO")
    entries = sorted(set(entries), key=lambda e: (e[1], e[0]))
    for i, (name, section) in enumerate(entries):
        writer.raw(f".Xr {name} {section}" + (" ," if i + 1 < len(entries) else ""))


def man_page(page, pages, where, functions, result_docs):
    """A page of section 3."""
    writer = mdoc.Writer(functions, where, page.name)
    begin(writer, page.name, 3, HEADER)
    names = page.names() or [page.name]
    if page.name in names:
        names.remove(page.name)
        names.insert(0, page.name)
    for i, name in enumerate(names):
        writer.raw(f".Nm {name}" + (" ," if i + 1 < len(names) else ""))
    writer.raw(f".Nd {page.about}")
    synopsis(writer, page)
    for title, blocks in manual.body(page, functions, result_docs):
        writer.raw(f".Sh {title}")
        writer.blocks(blocks)
    see_also(writer, [("nunc-stans", 7)] + [(n, 3) for n in manual.see_also(page, pages, where)])
    return str(writer)


def model_page(where, functions, pages):
    """nunc-stans(7)."""
    with open(MODEL, encoding="utf-8") as file:
        title, sections = markdown.read(file.read())
    writer = mdoc.Writer(functions, where)
    begin(writer, "nunc-stans", 7, MODEL)
    writer.raw(".Nm nunc-stans")
    writer.raw(f".Nd {title.partition(': ')[2]}")
    last = []
    for name, blocks in sections:
        if name in ("Example", "Environment"):
            last.append((name, blocks))
            continue
        writer.raw(".Sh " + (name.upper() or "DESCRIPTION"))
        writer.blocks(blocks)
    writer.raw(".Sh THE PAGES")
    writer.raw(".Bl -tag -width Ds")
    for page in pages.values():
        writer.raw(f".It Xr {page.name} 3")
        writer.raw(page.about[0].upper() + page.about[1:])
    writer.raw(".El")
    for name, blocks in sorted(last):
        writer.raw(".Sh " + {"Example": "EXAMPLES"}.get(name, name.upper()))
        writer.blocks(blocks)
    see_also(writer, [(p, 3) for p in pages] + [("epoll", 7), ("pthreads", 7)])
    return str(writer)


def write_man(directory):
    """All pages, and a page that points to another for each further name."""
    _, pages, where, functions, result_docs = manual.load(HEADER)
    man3, man7 = pathlib.Path(directory, "man3"), pathlib.Path(directory, "man7")
    for folder in (man3, man7):
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()
    for page in pages.values():
        (man3 / f"{page.name}.3").write_text(man_page(page, pages, where, functions, result_docs), "utf-8")
        for name in page.names():
            if name != page.name:
                (man3 / f"{name}.3").write_text(f".so man3/{page.name}.3\n", "utf-8")
    (man7 / "nunc-stans.7").write_text(model_page(where, functions, pages), "utf-8")


def write_markdown(directory):
    """The reference of the site: a page each, and a list of them."""
    _, pages, where, functions, result_docs = manual.load(HEADER)
    folder = pathlib.Path(directory)
    folder.mkdir(parents=True, exist_ok=True)
    index = ["# Reference", "Each page is also one of the manual: `man ns_add_io_job`.",
             "| page | functions |\n|---|---|\n" + "\n".join(
                 f"| [{p.name}]({p.name}.md): {p.about} | "
                 + ", ".join(f"[`{f.name}`]({p.name}.md#{f.name})" for f in p.functions) + " |"
                 for p in pages.values())]
    (folder / "index.md").write_text("\n\n".join(index) + "\n", "utf-8")
    for page in pages.values():
        out = [f"# {page.name}", page.about[0].upper() + page.about[1:] + "."]
        if page.functions:
            out.append("```c\n#include <nunc-stans.h>\n\n"
                       + "\n\n".join(f.declaration for f in page.functions) + "\n```")
        for title, blocks in manual.body(page, functions, result_docs):
            out += [f"## {title.capitalize()}", markdown.write(blocks, where, page.name)]
        others = manual.see_also(page, pages, where)
        if others:
            out += ["## See also", ", ".join(f"[{n}]({n}.md)" for n in others)]
        (folder / f"{page.name}.md").write_text("\n\n".join(out) + "\n", "utf-8")


def check():
    """What the header's comments lack, one line each."""
    _, pages, where, functions, result_docs = manual.load(HEADER)
    faults = []
    with open("c-tests/symbols.txt", encoding="utf-8") as file:
        exported = {line.split()[-1].split("@")[0] for line in file if line.strip().startswith("ns_")}
    for name in sorted(exported - set(functions)):
        faults.append(f"{name} is exported, and the header does not say what it is")
    for name, function in functions.items():
        if name not in {f.name for f in pages[where[name]].functions}:
            faults.append(f"{name} has no page")
        result, params = header.prototype(function)
        told = [n for n, _ in function.params]
        wanted = [n for n in map(header.parameter_name, params) if n]
        if told != wanted:
            faults.append(f"{name}: parameters {wanted}, told are {told}")
        faults += [f"{name}: nothing is said of {n}" for n, t in function.params if not t]
        if not function.doc:
            faults.append(f"{name}: nothing says what it does")
        if (result != "void") != bool(function.returns):
            faults.append(f"{name}: what it returns")
        found = manual.results_of(function, functions)
        if "ns_result_t" in result and not {"NS_SUCCESS", "NS_INVALID_REQUEST"} <= found:
            faults.append(f"{name}: which results it returns, and when")
        faults += [f"{name}: {r} is no result" for r in found
                   if r not in result_docs and not re.match("NS_(JOB|POOL)_", r)]
        pointers = [p for p in params if "*" in p and "(" not in p]
        if pointers and "NULL" not in function.declaration + function.doc + function.returns + "".join(
                t for _, t in function.params) and not re.search(r"[Aa]s ns_", function.doc + function.returns):
            faults.append(f"{name}: nothing says what NULL does")
    return faults


def main():
    """The command line."""
    if len(sys.argv) == 3 and sys.argv[1] == "man":
        write_man(sys.argv[2])
    elif len(sys.argv) == 3 and sys.argv[1] == "markdown":
        write_markdown(sys.argv[2])
    elif sys.argv[1:] == ["check"]:
        faults = check()
        print("\n".join(faults) or "all is documented")
        sys.exit(bool(faults))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main()
