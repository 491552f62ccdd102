#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Links between documents in a directory.

    links.py list DIRECTORY     each document with the file that it links to, below the directory
    links.py check DIRECTORY    fails if one of these files is missing
    links.py prune DIRECTORY    replaces each link to a missing file by its text: `make install` does so, since it
                                installs no tests
"""

import os
import pathlib
import re
import sys

LINK = re.compile(r"(?<!!)\[([^][]*)\]\(([^()\s]+)\)")
PICTURE = re.compile(r"!\[[^][]*\]\(([^()\s]+)\)|<img [^>]*src=\"([^\"]+)\"")
FENCED = re.compile(r"(^```.*?^```)", re.MULTILINE | re.DOTALL)


def target(directory, document, link):
    """What a link leads to, relative to the directory; None for one to elsewhere or within the page."""
    if re.match(r"[a-z]+:|#", link):
        return None
    return os.path.normpath(document.relative_to(directory).parent / link.split("#")[0])


def documents(directory):
    return sorted(directory.rglob("*.md"))


def links(directory):
    for document in documents(directory):
        for part in FENCED.split(document.read_text("utf-8"))[::2]:
            found = [link for _, link in LINK.findall(part)]
            found += [one or other for one, other in PICTURE.findall(part)]
            for to in filter(None, (target(directory, document, link) for link in found)):
                yield document.relative_to(directory), to


def prune(directory):
    for document in documents(directory):

        def kept(link, document=document):
            to = target(directory, document, link.group(2))
            return link.group() if to is None or (directory / to).exists() else link.group(1)

        parts = FENCED.split(document.read_text("utf-8"))
        parts[::2] = [LINK.sub(kept, part) for part in parts[::2]]
        document.write_text("".join(parts), "utf-8")


def main():
    what, directory = sys.argv[1], pathlib.Path(sys.argv[2])
    if what == "prune":
        prune(directory)
    elif what == "list":
        for document, to in links(directory):
            print(document, to)
    else:
        broken = [link for link in links(directory) if not (directory / link[1]).exists()]
        for document, to in broken:
            print(f"{document}: {to} is missing")
        sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
