#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Builds the site: tools/docs/site.py DIR makes DIR/site, with an index.html.

Run it in the project's root, by a Python that has what tools/docs/requirements.txt lists. The pages are those
in docs/, the README, and the reference, which tools/docs/manual.py makes from the header. Links stay as they are in
the repository: the site has the same folders, and a page for each source file that some page links to.

It fails if a link leads nowhere.
"""

import html
import html.parser
import os
import pathlib
import re
import shutil
import subprocess
import sys
import urllib.parse

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.dont_write_bytecode = True
import pages as manual  # noqa: E402
LINK = re.compile(r"(\]\()([^)#\s]+)([^)]*\))")
LANGUAGES = {".c": "c", ".h": "c", ".sh": "bash", ".py": "python", ".rs": "rust", ".bt": "c", ".lua": "lua",
             ".go": "go", ".js": "javascript", ".zig": "zig"}

# The order of the pages; those in docs/ that are not here come at the end of "Inside".
TABS = [
    ("Guide", ["docs/GUIDE.md", "docs/MODEL.md", "docs/NOTES.md", "docs/FRAMEWORKS.md",
               "docs/OBSERVING.md", "docs/MIGRATING.md", "bindings/*/README.md", "adapters/README.md"]),
    ("Recipes", ["docs/recipes/README.md", "docs/recipes/*.md"]),
    ("Reference", ["reference/index.md", "reference/*.md"]),
    ("Inside", ["docs/ARCHITECTURE.md", "docs/PERFORMANCE.md", "docs/RELIABILITY.md", "docs/*.md",
                "CONTRIBUTING.md", "CHANGELOG.md"]),
]
# Headings that are too long, or say too little, in a list.
TITLES = {"docs/MODEL.md": "The model", "docs/recipes/README.md": "Recipes", "CHANGELOG.md": "Changes",
          "docs/NOTES.md": "Notes"}


def add_page(source, target, out, where):
    """Copy a page, with links from functions to the reference; return the files that it links to."""
    text = source.read_text("utf-8")
    linked = set()

    def link(match):
        before, to, after = match.groups()
        if re.match(r"[a-z]+:", to):
            return match.group(0)
        path = pathlib.Path(os.path.normpath(source.parent / to))
        if path.name == "README.md" and path.parent == pathlib.Path():
            return before + os.path.relpath("index.md", target.parent) + after
        if not path.exists():
            return match.group(0)
        if path.is_dir() and (path / "README.md").exists():
            path, to = path / "README.md", to.rstrip("/") + "/README.md"
            linked.add(path)
            return before + to + after
        if path.is_dir():
            linked.add(path)
            return before + to.rstrip("/") + "/index.md" + after
        linked.add(path)
        return match.group(0) if path.suffix in (".md", ".svg") else before + to + ".md" + after

    # Not in code.
    parts = re.split(r"(^```.*?^```$|`[^`\n]+`)", text, flags=re.M | re.S)
    for i in range(1, len(parts), 2):
        if "\\|" in parts[i] and not parts[i].startswith("```"):  # in a table; here it would be printed so
            parts[i] = "<code>" + html.escape(parts[i].strip("`")).replace("\\|", "&#124;") + "</code>"
        name = parts[i].strip("`").removesuffix("()")
        line = (parts[i - 1].rpartition("\n")[2] if i > 1 else parts[0].rpartition("\n")[2])
        if name in where and name.startswith("ns_") and not parts[i - 1].endswith("[") and not line.startswith("#"):
            to = os.path.relpath(f"reference/{where[name]}.md", target.parent)
            parts[i] = f"[{parts[i]}]({to}#{name})"
    parts[::2] = [LINK.sub(link, p) for p in parts[::2]]
    text = "".join(parts)
    # What rustdoc is told of a listing, and the site can't read.
    text = re.sub(r"^```rust,\S+$", "```rust", text, flags=re.M)
    if target.name == "index.md" and target.parent == pathlib.Path():
        text = "---\nhide:\n  - navigation\n---\n" + text
    page = out / target
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text, "utf-8")
    return linked


def add_source(path, out):
    """A page that shows a source file or lists a folder; or a copy of a picture."""
    page = out / path
    page.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        page.mkdir(exist_ok=True)
        files = "\n".join(f"* `{p.name}`" for p in sorted(path.iterdir()) if not p.name.startswith("__"))
        (page / "index.md").write_text(f"# {path}\n\nIn the source, this folder has:\n\n{files}\n", "utf-8")
        return
    if path.suffix == ".svg":
        drawing = path.with_suffix(".dot")
        if drawing.exists():
            subprocess.run(["dot", "-Tsvg", drawing, "-o", page], check=True)
        else:
            shutil.copy(path, page)
        return
    language = LANGUAGES.get(path.suffix, "text")
    fence = "~~~~"
    page.with_name(page.name + ".md").write_text(
        f"---\nsearch:\n  exclude: true\n---\n# {path}\n\n{fence}{language}\n{path.read_text('utf-8')}{fence}\n", "utf-8")


def navigation(out, reference):
    """The list of pages for mkdocs.yml; those of the reference in their own order."""
    lines = ["nav:", "  - Home: index.md"]
    seen = set()
    for title, patterns in TABS:
        lines.append(f"  - {title}:")
        for pattern in patterns:
            for path in sorted(out.glob(pattern), key=lambda p: (
                    reference.index(p.stem) if p.stem in reference else 0, p)):
                page = str(path.relative_to(out))
                if page in seen:
                    continue
                seen.add(page)
                if pattern == patterns[0] and path.name in ("README.md", "index.md"):
                    lines.append(f"      - {page}")
                else:
                    heading = path.read_text("utf-8").split("\n", 1)[0].lstrip("# ")
                    lines.append(f'      - "{TITLES.get(page, heading)}": {page}')
    return "\n".join(lines) + "\n"


class Links(html.parser.HTMLParser):
    """What a page links to, and the places in it that can be linked to."""

    def __init__(self):
        super().__init__()
        self.links, self.places = [], set()

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.places |= {values[k] for k in ("id", "name") if values.get(k)}
        self.links += [values[k] for k in ("href", "src") if values.get(k)]


def broken_links(site):
    """Links in the finished site that lead nowhere, or out of it to what it needs."""
    pages = {}
    for path in site.rglob("*.html"):
        pages[path.resolve()] = links = Links()
        links.feed(path.read_text("utf-8"))
    count, broken = 0, []
    for path, page in pages.items():
        for link in page.links:
            url = urllib.parse.urlsplit(link)
            if url.scheme in ("http", "https", "mailto", "data"):
                continue
            count += 1
            target = path if not url.path else (path.parent / urllib.parse.unquote(url.path)).resolve()
            if target.is_dir():
                target = target / "index.html"
            if path.name == "404.html":
                continue
            if not target.exists():
                broken.append(f"{path.relative_to(site.resolve())}: {link}: no such page")
            elif url.fragment and target in pages and urllib.parse.unquote(url.fragment) not in pages[target].places:
                if not url.fragment.startswith("__"):
                    broken.append(f"{path.relative_to(site.resolve())}: {link}: no such place in it")
    return len(pages), count, broken


def main():
    """The command line."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    base = pathlib.Path(sys.argv[1])
    out, site = base / "pages", base / "site"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    _, all_pages, where, _, _ = manual.load("include/nunc-stans.h")
    linked = add_page(pathlib.Path("README.md"), pathlib.Path("index.md"), out, where)
    todo = {*pathlib.Path("docs").rglob("*.md"), pathlib.Path("CONTRIBUTING.md"), pathlib.Path("CHANGELOG.md")}
    while todo:
        page = todo.pop()
        linked |= add_page(page, page, out, where)
        todo |= {p for p in linked if p.suffix == ".md" and not (out / p).exists()}
    for path in linked:
        if path.suffix != ".md":
            add_source(path, out)
    subprocess.run([sys.executable, HERE / "manual.py", "markdown", out / "reference"], check=True)
    shutil.copy(HERE / "site.css", out)
    config = base / "mkdocs.yml"
    config.write_text(
        f"INHERIT: {os.path.relpath(HERE / 'mkdocs.yml', base)}\ndocs_dir: pages\nsite_dir: site\n"
        + navigation(out, list(all_pages)), "utf-8")
    subprocess.run([sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-f", config], check=True,
                   env={**os.environ, "NO_MKDOCS_2_WARNING": "1"})
    count, links, broken = broken_links(site)
    print("\n".join(broken))
    print(f"{count} pages, {links} links, {len(broken)} broken: {site}/index.html")
    sys.exit(bool(broken))


if __name__ == "__main__":
    main()
