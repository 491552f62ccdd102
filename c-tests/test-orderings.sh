#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# docs/ORDERINGS.md names every atomic in the source, with its orderings. Run in the project's root.
. c-tests/tap.sh

python3 tools/orderings.py check >"$work/why" 2>&1
tap $? "the table has every operation on an atomic, and no other"

mkdir -p "$work/tree/docs"
cp -R src "$work/tree/src"
cp docs/ORDERINGS.md "$work/tree/docs/"
orderings=$PWD/tools/orderings.py
echo 'fn added(word: &AtomicU32) -> u32 { word.fetch_xor(1, Ordering::Acquire) }' >>"$work/tree/src/workq.rs"
(cd "$work/tree" && python3 "$orderings" check) >"$work/why" 2>&1
[ $? -eq 1 ] && grep -q 'workq.rs: `word`: only source has: fetch_xor Acquire' "$work/why"
tap $? "one that the table lacks is noticed"

echo "1..$count"
