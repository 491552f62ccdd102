# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads the Markdown of docs/MODEL.md as blocks, and writes blocks of the reference as Markdown."""

import re


def read(text):
    """Sections of a page: (title, [(heading of the second level, blocks)])."""
    lines = text.split("\n")
    title = lines[0].lstrip("# ")
    sections, blocks, i = [], [], 1
    while i < len(lines):
        line = lines[i]
        if line.startswith("## "):
            blocks = []
            sections.append((line[3:], blocks))
        elif line.startswith("### "):
            blocks.append(("h", line[4:]))
        elif line.startswith("```"):
            end = lines.index("```", i + 1)
            blocks.append(("code", "\n".join(lines[i + 1:end])))
            i = end
        elif line.startswith("|"):
            rows = []
            while lines[i].startswith("|"):
                rows.append([c.strip() for c in lines[i].strip("|").split("|")])
                i += 1
            blocks.append(("terms", [(r[0].strip("`"), r[1]) for r in rows[2:]]))
            continue
        elif line.startswith("* "):
            items = []
            while i < len(lines) and lines[i].strip():
                if lines[i].startswith("* "):
                    items.append(lines[i][2:])
                else:
                    items[-1] += " " + lines[i].strip()
                i += 1
            blocks.append(("bullets", items))
            continue
        elif line.startswith("!["):
            pass  # a picture, which the site shows
        elif line.strip():
            paragraph = []
            while i < len(lines) and lines[i].strip() and not lines[i].startswith(("```", "* ", "|")):
                paragraph.append(lines[i])
                i += 1
            if not sections:
                sections.append(("", blocks))
            blocks.append(("p", " ".join(paragraph)))
            continue
        i += 1
    return title, sections


def linked(text, where, this):
    """A sentence of the header with its names as code, and functions as links to their pages."""
    def name(match):
        word = match.group(0)
        plain = word.removesuffix("()")
        page = where.get(plain)
        if page is None:
            return f"`{word}`"
        target = f"#{plain}" if page == this else f"{page}.md#{plain}"
        return f"[`{word}`]({target})"

    text = re.sub(r"(?<!\w)\*(?=\w)", r"\\*", text)
    text = re.sub(r"<(?=\w)", r"\\<", text)
    return re.sub(r"`[^`]+`|\bns_\w+(\(\))?|\bNS_[A-Z_]+\b",
                  lambda m: m.group(0) if m.group(0)[0] == "`" else name(m), text)


def write(blocks, where, this):
    """Blocks, as pages.py makes them, as Markdown."""
    out = []

    def text(t):
        return linked(" ".join(t.split()), where, this)

    for block in blocks:
        kind = block[0]
        if kind == "h":
            anchor = block[1].split()[-1].removesuffix("()")
            mark = f" {{ #{anchor} }}" if anchor in where else ""
            out.append(f"### {block[1]}{mark}")
        elif kind == "p":
            out.append(text(block[1]))
        elif kind == "lead":
            out.append(f"**{block[1]}.** {text(block[2])}")
        elif kind == "returns":
            out.append(f"`{block[1]}()` returns {text(block[2])}")
        elif kind == "results":
            out.append("\n".join(f"* {', '.join(f'`{n}`' for n in names)}: {text(t)}" for names, t in block[1]))
        elif kind == "code":
            out.append(f"```c\n{block[1]}\n```")
        elif kind == "constants":
            out.append("\n".join(
                "* " + (f'<a id="{n}"></a>' if where.get(n) == this else "") + f"`{n}`: {text(t)}"
                for n, t in block[1]))
        elif kind in ("list", "fields", "functions"):
            out.append("\n".join(f"* `{n}`: {text(t)}" for n, t in block[1]))
    return "\n\n".join(out)
