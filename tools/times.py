#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""Draws how long jobs waited and how long callbacks took, from a pool's statistics as text.

    tools/times.py draw [FILE] >SVG       FILE (or standard input): what ns_thrpool_format_stats has written
    tools/times.py run HTTPD >SVG         runs the example daemon under load for a while, and draws its /metrics

If the text has several pools, the one with the most callbacks is drawn.
"""

import concurrent.futures
import http.client
import math
import re
import subprocess
import sys
import tempfile
import time

PANELS = [("queue_loop", "jobs waited for the loop"), ("queue_worker", "jobs waited for a worker"),
          ("run_loop", "callbacks in the loop"), ("run_worker", "callbacks in workers")]
LINE = re.compile(r'nunc_stans_(\w+)_seconds_(bucket|sum)\{pool="((?:[^"\\]|\\.)*)"(?:,le="([^"]+)")?\} (\S+)')
WIDTH, HEIGHT, GAP, LEFT, TOP = 340, 130, 68, 20, 56


class Histogram:
    def __init__(self):
        self.bounds, self.sum = [], 0.0

    def buckets(self):
        """Yields the upper bound of each bucket, and how many times are in it."""
        before = 0
        for bound, count in sorted(self.bounds):
            yield bound, count - before
            before = count

    @property
    def count(self):
        return max((count for _, count in self.bounds), default=0)


def read(text):
    """Returns the histograms, by name, of the pool with the most callbacks."""
    pools = {}
    for name, what, pool, bound, value in LINE.findall(text):
        histogram = pools.setdefault(pool, {}).setdefault(name, Histogram())
        if what == "sum":
            histogram.sum = float(value)
        else:
            histogram.bounds.append((float(bound), int(value)))
    if not pools:
        sys.exit("no times in this text: does a pool have NS_POOL_TIMINGS?")
    return max(pools.values(), key=lambda all: all["run_loop"].count + all["run_worker"].count)


def words(seconds):
    for unit, size in (("s", 1), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= size * 0.9995:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def text(x, y, line, anchor="start", extra=""):
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{extra}>{line}</text>'


def panel(x, y, title, histogram, low, high):
    """A bar for each power of two from 2^low to 2^high nanoseconds. Its height is the logarithm of the count."""
    out = [text(x, y - 16, title, extra=' font-weight="bold"')]
    if histogram.count:
        mean = words(histogram.sum / histogram.count)
        out.append(text(x + WIDTH, y - 16, f"{histogram.count}, mean {mean}", "end", ' fill="#555"'))
    step, floor = WIDTH / (high - low + 1), y + HEIGHT
    tops = math.log10(max(count for _, count in histogram.buckets())) + 0.3 if histogram.count else 1
    for bound, count in histogram.buckets():
        if count:
            place = high if math.isinf(bound) else round(math.log2(bound * 1e9 + 1))
            tall = HEIGHT * (math.log10(count) + 0.3) / tops
            out.append(f'<rect x="{x + (place - low) * step + 1:.1f}" y="{floor - tall:.1f}" '
                       f'width="{step - 2:.1f}" height="{tall:.1f}" fill="#3b78a8"/>')
            out.append(text(x + (place - low + 0.5) * step, floor - tall - 3, count, "middle",
                            ' font-size="7" fill="#555"'))
    out.append(f'<line x1="{x}" x2="{x + WIDTH}" y1="{floor}" y2="{floor}" stroke="#000"/>')
    for power in range(3, 11):
        at = x + (math.log2(10 ** power) - low + 1) * step
        if x <= at <= x + WIDTH:
            out.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="{floor}" y2="{floor + 4}" stroke="#000"/>')
            out.append(text(at, floor + 16, words(10 ** power / 1e9), "middle", ' fill="#555"'))
    return out


def draw(histograms):
    seen = [round(math.log2(bound * 1e9 + 1)) for name, _ in PANELS
            for bound, count in histograms[name].buckets() if count and not math.isinf(bound)]
    low, high = min(seen, default=8), max(seen, default=34)
    low, high = min(low, high - 12), high + 1
    right, bottom = 2 * WIDTH + 3 * LEFT, TOP + 2 * (HEIGHT + GAP)
    out = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{right}" height="{bottom}" '
           f'viewBox="0 0 {right} {bottom}" font-family="sans-serif" font-size="11">',
           f'<rect width="{right}" height="{bottom}" fill="white"/>',
           text(LEFT, 18, "How many times of each length, by powers of two. Both scales are logarithmic.",
                extra=' fill="#555"')]
    for index, (name, title) in enumerate(PANELS):
        x = LEFT + index % 2 * (WIDTH + LEFT)
        y = TOP + index // 2 * (HEIGHT + GAP)
        out += panel(x, y, title, histograms[name], low, high)
    out.append("</svg>")
    return "\n".join(out) + "\n"


def load(port, end, which):
    """A client: most fetch a small file again and again, some ask for what takes time."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    while time.monotonic() < end:
        client.request("GET", "/index.html" if which % 4 else f"/slow?ms={which + 1}")
        client.getresponse().read()


def run(httpd, seconds=5, clients=12):
    """Returns the /metrics of the daemon after some load."""
    with tempfile.TemporaryDirectory() as root:
        with open(f"{root}/index.html", "w", encoding="ascii") as file:
            file.write("hello\n")
        with subprocess.Popen([httpd, "-p", "0", root], stdout=subprocess.PIPE, text=True) as daemon:
            port = int(daemon.stdout.readline().rsplit(":", 1)[1])
            end = time.monotonic() + seconds
            with concurrent.futures.ThreadPoolExecutor(clients) as pool:
                for done in [pool.submit(load, port, end, which) for which in range(clients)]:
                    done.result()
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            client.request("GET", "/metrics")
            metrics = client.getresponse().read().decode()
            client.close()
            daemon.terminate()
    if daemon.returncode:
        sys.exit(f"{httpd} ended with {daemon.returncode}")
    return metrics


def main():
    what, *rest = sys.argv[1:] or [""]
    if what == "run" and len(rest) == 1:
        metrics = run(rest[0])
    elif what == "draw" and len(rest) <= 1:
        with open(rest[0] if rest else 0, encoding="utf-8") as file:
            metrics = file.read()
    else:
        sys.exit(__doc__)
    sys.stdout.write(draw(read(metrics)))


if __name__ == "__main__":
    main()
