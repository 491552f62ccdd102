# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads include/nunc-stans.h: what it declares, and the comments that say what that is for."""

import re

COMMENT = re.compile(r"/\*(.*?)\*/", re.S)


class Item:
    """One declaration: a function, macro, struct, enum or typedef."""

    def __init__(self, kind, name, doc, declaration, section):
        self.kind, self.name, self.declaration, self.section = kind, name, declaration, section
        self.doc, self.params, self.returns = split_doc(doc)
        self.fields = []


class Section:
    """A part of the header, and the text at its head."""

    def __init__(self, title, text):
        self.title, self.text, self.items = title, text, []


def plain(comment):
    """A comment's text without the stars."""
    lines = [re.sub(r"^\s*\* ?", "", line) for line in comment.strip("*").split("\n")]
    return "\n".join(line.rstrip() for line in lines).strip("\n").strip()


def split_doc(text):
    """The prose of a doc comment, its @param entries [(name, text)], and its @return text."""
    parts = re.split(r"^@(param|return)\s+", text, flags=re.M)
    params, returns = [], ""
    for tag, body in zip(parts[1::2], parts[2::2]):
        if tag == "param":
            name, _, rest = body.partition(" ")
            params.append((name, " ".join(rest.split())))
        else:
            returns = " ".join(body.split())
    return parts[0].strip(), params, returns


def declaration_after(text, at):
    """The declaration that begins at or after `at`: its text, without comments."""
    at = re.compile(r"\s*").match(text, at).end()
    if text.startswith("#define", at):
        return text[at:text.index("\n", at)]
    if text.startswith("#if", at):  # an enum with two heads
        return text[at:text.index("\n};", at) + 3]
    depth = 0
    i = at
    while i < len(text):
        if text.startswith("/*", i):
            i = text.index("*/", i) + 2
            continue
        if text[i] == "{":
            depth += 1
        elif text[i] == "}":
            depth -= 1
        elif text[i] == ";" and depth == 0:
            return text[at:i + 1]
        elif text[i] == "#" and depth == 0:
            return ""
        i += 1
    return ""


def kind_and_name(declaration):
    """What a declaration declares: ("func", "ns_add_job") and so on."""
    for kind, pattern in (
        ("macro", r"#define (\w+)"),
        ("enum", r"(?:#.*\n)*enum (\w+)"),
        ("struct", r"struct (\w+)\s*\{"),
        ("opaque", r"struct (\w+);"),
        ("typedef", r"typedef .*?\(\*(\w+)\)"),
        ("typedef", r"typedef .*?(\w+);"),
        ("func", r"[^(]*?(\w+)\s*\("),
    ):
        match = re.match(pattern, declaration, re.S)
        if match:
            return kind, match.group(1)
    return None, None


def fields_of(text, start):
    """The documented members of the struct or enum at `start`: [(declaration, doc)]."""
    end = text.index("\n}", start)
    fields = []
    for comment in COMMENT.finditer(text, start, end):
        if not comment.group(0).startswith("/**"):
            continue
        stop = re.compile(r"[;,]\n|\n(?=\s*/\*|})").search(text, comment.end(), end + 2)
        member = " ".join(text[comment.end():stop.start()].split()).rstrip(",;")
        fields.append((member, plain(comment.group(1))))
    return fields


def parse(text):
    """The header's first comment, and its sections."""
    comments = list(COMMENT.finditer(text))
    first = next(c for c in comments if "hand events to threads" in c.group(0))
    sections = []
    skip_to = text.index("extern \"C\"")
    for comment in comments:
        if comment.start() < skip_to:
            continue
        body = comment.group(0)
        if body.startswith("/**"):
            declaration = declaration_after(text, comment.end())
            kind, name = kind_and_name(declaration)
            if kind is None or not sections:
                continue
            item = Item(kind, name, plain(comment.group(1)), declaration, sections[-1])
            if kind in ("struct", "enum"):
                at = text.index("{", comment.end())
                item.fields = fields_of(text, at)
                skip_to = text.index("\n}", at)
            if item.name not in [i.name for s in sections for i in s.items]:
                sections[-1].items.append(item)
        elif re.match(r"/\* -+ .* -+ \*/", body):
            sections.append(Section(body.strip("/*- "), ""))
        elif sections and not sections[-1].text and not sections[-1].items and body.startswith("/*\n"):
            sections[-1].text = plain(comment.group(1))
        elif re.match(r"/\*\n \* [A-Z][^\n]*\n (\*\n|\*/)", body):
            title, _, rest = plain(comment.group(1)).partition("\n")
            sections.append(Section(title, rest.strip("\n")))
        else:
            # One comment over macros that are alike.
            for line in re.findall(r"#define [^\n]+\n", following_macros(text, comment.end())):
                if sections:
                    name = re.match(r"#define (\w+)", line).group(1)
                    if name not in [i.name for s in sections for i in s.items]:
                        sections[-1].items.append(
                            Item("macro", name, plain(comment.group(1)), line.strip(), sections[-1]))
    return plain(first.group(1)), sections


def following_macros(text, at):
    """The lines of macros with arguments directly behind a comment."""
    return re.compile(r"\n?((?:#define \w+\([^\n]*\n)*)").match(text, at).group(1)


def prototype(item):
    """A function's result type and its parameters [(type and name)]."""
    text = " ".join(item.declaration.rstrip(";").split())
    head, _, tail = text.partition(item.name)
    inner = tail.strip()[1:-1]
    params, depth, start = [], 0, 0
    for i, c in enumerate(inner):
        depth += (c == "(") - (c == ")")
        if c == "," and depth == 0:
            params.append(inner[start:i].strip())
            start = i + 1
    params.append(inner[start:].strip())
    return head.strip(), params


def parameter_name(param):
    """The name in one parameter's declaration; None for void."""
    if param == "void":
        return None
    pointer = re.search(r"\(\*(\w+)\)", param)
    return pointer.group(1) if pointer else re.search(r"(\w+)(\[\])?$", param).group(1)
