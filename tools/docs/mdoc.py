# SPDX-License-Identifier: GPL-3.0-or-later
"""Writes blocks of text as mdoc(7)."""

import re
import textwrap

# What is set in its own way inside a sentence: code, strong, a link, a function, a constant.
INLINE = re.compile(r"`([^`]+)`|\b(ns_\w+\([^()]+\))|\*\*([^*]+)\*\*|\b(ns_\w+)(?:\(\))?|\b(NS_[A-Z_]+)\b"
                    r"|\b([a-z_]+)\(([2378])\)|(?<!\w)\*([a-z]+)\*(?!\w)")
CLOSING = ".,;:?!)]"


def escape(text):
    """Text as roff takes it."""
    text = text.replace("\\", "\\e")
    return re.sub(r"^([.'])", r"\\&\1", text)


def capital(text):
    """The text with a capital at its beginning, unless a name of C's is there."""
    return text if re.match(r"\w*_|sizeof|tv\b|n\b", text) else text[:1].upper() + text[1:]


def full_stop(text):
    """The text with a full stop at its end."""
    return text if not text or text[-1] in ".:" else text + "."


def word(text):
    """One argument of a macro."""
    text = escape(text).replace('"', r"\(dq")
    if re.fullmatch(r"[A-Z][a-z]", text) or text in (".", ",", ":", ";", "(", ")", "[", "]", "?", "!", "|"):
        text = "\\&" + text
    return f'"{text}"' if " " in text or text == "" else text


class Writer:
    """Collects the lines of one page."""

    def __init__(self, functions, where, this=None):
        self.functions, self.where, self.this = functions, where, this
        self.lines = []

    def macro(self, name, *args):
        """A line of a macro and its arguments."""
        self.lines.append(" ".join([f".{name}", *(word(a) for a in args)]))

    def raw(self, line):
        """A line as it is."""
        self.lines.append(line)

    def fill(self, text):
        """Plain text, in lines of a length that people can read."""
        for line in textwrap.wrap(text, 76, break_long_words=False, break_on_hyphens=False):
            self.raw(escape(line))

    def inline(self, match):
        """The macro for one piece of a sentence that is set in its own way."""
        code, call, strong, name, constant, page, section, stressed = match.groups()
        if code:
            plain = code[:-2] if code.endswith("()") else code
            if plain in self.functions:
                name = plain
            elif re.fullmatch(r"NS_[A-Z_]+", code):
                constant = code
            else:
                return "Ql " + word(code)
        if strong:
            return "Sy " + word(strong)
        if call:
            return "Ql " + word(call)
        if stressed:
            return "Em " + word(stressed)
        if page:
            return f"Xr {page} {section}"
        if name:
            if name not in self.functions:
                return "Vt " + name
            here = self.where[name]
            return f"Fn {name}" if here == self.this else f"Xr {name} 3"
        return "Dv " + constant

    def text(self, text):
        """A paragraph's text, a sentence a line, with the macros that it needs."""
        text = re.sub(r"\[([^\]]+)\]\([^)]*\)", r"\1", " ".join(text.split()))
        for sentence in re.split(r"(?<=[.?!])\s+(?=[A-Z`*(\"]|ns_)|(?<=[.?!]\))\s+", text):
            self.sentence(sentence)

    def sentence(self, text):
        """One sentence."""
        at = 0
        for match in INLINE.finditer(text):
            before = text[at:match.start()]
            at = match.end()
            macro = self.inline(match)
            prefix = ""
            if before and not before[-1].isspace():
                plain, _, prefix = before.rpartition(" ")
                before = plain
            if before.strip():
                self.fill(before.strip())
            # What follows without a space stays with it.
            tail = re.match(r"[^\s]*", text[at:]).group(0)
            inner = INLINE.search(tail)
            if inner:
                tail = tail[:inner.start()]
            at += len(tail)
            line = f".Pf {word(prefix)} {macro}" if prefix else f".{macro}"
            closing = ""
            while tail and tail[0] in CLOSING:
                closing += " " + tail[0]
                tail = tail[1:]
            line += closing
            if tail:
                line += " Ns " + word(tail)
            self.raw(line)
        rest = text[at:].strip()
        if rest:
            self.fill(rest)

    def code(self, text):
        """Lines to be shown as they are."""
        self.raw(".Bd -literal -offset indent")
        for line in text.split("\n"):
            self.raw(escape(line).replace("-", "\\-") if line else "")
        self.raw(".Ed")

    def tags(self, entries, macro, width):
        """A list of names, each with its text."""
        self.raw(f".Bl -tag -width {width}")
        for name, text in entries:
            self.raw(f".It {macro} {word(name)}" if macro else f".It {word(name)}")
            self.text(full_stop(capital(text)))
        self.raw(".El")

    def blocks(self, blocks):
        """Blocks, as pages.py makes them."""
        fresh = True  # directly behind a heading no .Pp is wanted
        for block in blocks:
            kind = block[0]
            if kind == "h":
                self.raw(".Ss " + " ".join(word(w) for w in block[1].split()))
                fresh = True
                continue
            if kind in ("p", "lead", "returns") and not fresh:
                self.raw(".Pp")
            if kind == "p":
                self.text(block[1])
            elif kind == "lead":
                self.raw(f".Em {word(block[1])} .")
                self.text(block[2])
            elif kind == "returns":
                self.macro("Fn", block[1])
                self.raw("returns")
                self.text(full_stop(block[2]))
            elif kind == "results":
                self.raw(".Bl -tag -width Ds")
                for names, text in block[1]:
                    self.raw(".It " + " , ".join("Dv " + n for n in names))
                    self.text(full_stop(capital(text)))
                self.raw(".El")
            elif kind == "code":
                self.code(block[1])
            elif kind == "list":
                self.tags(block[1], "Fa", "options")
            elif kind == "fields":
                self.tags([(self.member(d), t) for d, t in block[1]], "Va", "Ds")
            elif kind == "constants":
                self.tags(block[1], "Dv", "Ds")
            elif kind == "functions":
                self.tags(block[1], "Fn", "Ds")
            elif kind == "terms":
                self.tags(block[1], "", "Ds")
            elif kind == "bullets":
                self.raw(".Bl -bullet")
                for text in block[1]:
                    self.raw(".It")
                    self.text(text)
                self.raw(".El")
            fresh = False

    @staticmethod
    def member(declaration):
        """A struct's member, or an enumerator, as it is shown in a list."""
        return declaration

    def __str__(self):
        return "\n".join(self.lines) + "\n"
