#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Draws what bench/run.py measured: bench/plot.py [CSV [SVG]].

One bar for each work: how many times as good as the best peer nunc-stans is. A mark shows where the
hand-written floor would be on the same scale.
"""

import csv
import math
import sys
from xml.sax.saxutils import escape

sys.dont_write_bytecode = True  # leave no files but the output
from run import SAME_AS, number, ratio, shown

PEERS = ["libevent", "libuv", "glib", "asio"]
LEFT, BAR, GAP, WIDTH, TOP = 260, 14, 8, 420, 56
LEAST, MOST = 1 / 8, 8


def rows(path):
    """Yields (work, param, metric, unit), ns, best peer, ratio to it, the floor's ratio to it."""
    values = {}
    with open(path, newline="", encoding="ascii") as file:
        for row in csv.DictReader(file):
            key = (row["work"], row["param"], row["metric"])
            values.setdefault(key, {})[row["peer"]] = float(row["median"])
    seen = dict.fromkeys(key[:2] for key in values)
    for work, param in seen:
        metric, unit, divisor, more = shown(work)[0]
        beside = dict(values.get((SAME_AS.get(work, work), param, metric), {}))
        beside.update(values.get((work, param, metric), {}))
        peers = {peer: beside[peer] for peer in PEERS if beside.get(peer)}
        ours = values[(work, param, metric)].get("ns")
        if not ours or not peers:
            continue
        best = (max if more else min)(peers, key=peers.get)
        yield ((work, param, metric.removesuffix("_us"), unit), ours / divisor, best,
               ratio(ours, peers[best], more), ratio(beside.get("floor"), peers[best], more))


def x_of(value):
    value = min(max(value, LEAST), MOST)
    return LEFT + WIDTH * math.log(value / LEAST) / math.log(MOST / LEAST)


def text(x, y, words, anchor="start", extra=""):
    return f'<text x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}"{extra}>{escape(words)}</text>'


def draw(all_rows):
    height = TOP + len(all_rows) * (BAR + GAP) + 16
    right = LEFT + WIDTH + 210
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{right}" height="{height}" '
           f'viewBox="0 0 {right} {height}" font-family="sans-serif" font-size="12">',
           f'<rect width="{right}" height="{height}" fill="white"/>',
           text(10, 18, "nunc-stans beside the best of libevent, libuv, GLib and Asio "
                        "(bar), and the same by hand (line)", extra=' font-weight="bold"')]
    power = LEAST
    while power <= MOST:
        x = x_of(power)
        label = f"{power:g} ×" if power >= 1 else f"1/{1 / power:g}"
        out.append(text(x, TOP - 10, label, "middle", ' fill="#555"'))
        out.append(f'<line x1="{x:.0f}" x2="{x:.0f}" y1="{TOP - 4}" y2="{height - 12}" '
                   f'stroke="{"#000" if power == 1 else "#ddd"}"/>')
        power *= 2
    for index, ((work, param, metric, unit), ours, best, versus, floor) in enumerate(all_rows):
        y = TOP + index * (BAR + GAP)
        from_x, to_x = sorted((x_of(1), x_of(versus)))
        colour = "#4a8f5c" if versus >= 1 else "#c9803a"
        out.append(text(LEFT - 8, y + 11, f"{work} {param}, {metric}", "end"))
        out.append(f'<rect x="{from_x:.1f}" y="{y}" width="{max(to_x - from_x, 1):.1f}" '
                   f'height="{BAR}" fill="{colour}"/>')
        if floor:
            x = x_of(floor)
            out.append(f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{y - 2}" y2="{y + BAR + 2}" '
                       f'stroke="#222" stroke-width="2"/>')
        out.append(text(LEFT + WIDTH + 10, y + 11,
                        f"{number(ours)} {unit}, {versus:.2f} × {best}"))
    out.append("</svg>")
    return "\n".join(out) + "\n"


def main():
    source = sys.argv[1] if len(sys.argv) > 1 else "build/bench/out.csv"
    target = sys.argv[2] if len(sys.argv) > 2 else "docs/performance.svg"
    with open(target, "w", encoding="utf-8") as file:
        file.write(draw(list(rows(source))))


if __name__ == "__main__":
    main()
