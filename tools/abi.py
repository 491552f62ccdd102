#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""The interface of the library as abidiff compares it: tools/abi.py LIBRARY DEBUG-DIRECTORY >DUMP

abidw dumps what the debug information has, which is all of Rust's types. This keeps the exported functions
and the types that they reach. The dump of a release is in debian/abi; `make check-package` compares a build
with it, and leaves the build's own in build/package.
"""

import subprocess
import sys
import xml.etree.ElementTree as xml

ABIDW = [
    "abidw",
    "--no-corpus-path",
    "--no-comp-dir-path",
    "--no-show-locs",
    "--type-id-style",
    "hash",
]
REFERENCES = ("type-id", "naming-typedef-id")


def strip(parent, is_wanted):
    """Remove the declarations that are not wanted, and what holds nothing any more."""
    for child in list(parent):
        if child.tag in ("namespace-decl", "abi-instr"):
            strip(child, is_wanted)
            unwanted = len(child) == 0
        else:
            unwanted = not is_wanted(child)
        if unwanted:
            parent.remove(child)


def main():
    library, debug = sys.argv[1:]
    dump = subprocess.run(
        [*ABIDW, "--debug-info-dir", debug, library], stdout=subprocess.PIPE, text=True, check=True
    ).stdout
    corpus = xml.fromstring(dump)
    types = {node.get("id"): node for node in corpus.iter() if node.get("id")}
    functions = [node for node in corpus.iter("function-decl") if node.get("elf-symbol-id")]
    kept, todo = set(), list(functions)
    while todo:
        for node in todo.pop().iter():
            for reference in (node.get(name) for name in REFERENCES):
                if reference and reference not in kept:
                    kept.add(reference)
                    todo.append(types[reference])

    def is_wanted(node):
        if node.tag in ("elf-needed", "elf-function-symbols"):
            return True
        return node.get("elf-symbol-id") is not None or node.get("id") in kept

    strip(corpus, is_wanted)
    xml.indent(corpus)
    print(xml.tostring(corpus, encoding="unicode"))


if __name__ == "__main__":
    main()
