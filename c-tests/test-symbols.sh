#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# The ABI that a linker sees: name, needed libraries, exported symbols. Run in the project's root.
. c-tests/tap.sh
library=build/lib/libnunc-stans.so.0.2.0

nm -D --defined-only "$library" | awk '{print $3}' | LC_ALL=C sort >"$work/have"
diff c-tests/symbols.txt "$work/have" >"$work/why"
tap $? "exports the symbols in c-tests/symbols.txt and no others (< missing, > too many)"

grep -o '\bns_[a-z_]* *(' include/nunc-stans.h | tr -d ' (' | LC_ALL=C sort -u >"$work/declared"
diff c-tests/symbols.txt "$work/declared" >"$work/why"
tap $? "the header declares these functions and no others"

readelf -d "$library" >"$work/dynamic"
grep SONAME "$work/dynamic" | tee "$work/why" | grep -q '\[libnunc-stans\.so\.0\]'
tap $? "SONAME is libnunc-stans.so.0"

sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' "$work/dynamic" |
    grep -v -e '^libc\.so' -e '^libgcc_s\.so' -e '^ld-' >"$work/why"
[ ! -s "$work/why" ]
tap $? "needs libc, libgcc_s and the loader only"

grep -q NODELETE "$work/dynamic" 2>"$work/why"
tap $? "is never unloaded"

# Rust's own thread-locals ask for __cxa_thread_atexit_impl, which is for the end of a thread.
nm -Du "$library" | awk '{print $2}' | grep -E '^(__cxa_)?(atexit|at_quick_exit|on_exit)(@|$)' >"$work/why"
[ ! -s "$work/why" ]
tap $? "registers nothing for the end of the process"

# A static link keeps Rust's own symbols, but none of ours may clash with an application's.
nm -g --defined-only build/lib/libnunc-stans.a 2>/dev/null | awk '$2 ~ /[TDBR]/ {print $3}' |
    grep '^ns_' | LC_ALL=C sort -u >"$work/static"
diff c-tests/symbols.txt "$work/static" >"$work/why"
tap $? "the static library has the same functions"

echo "1..$count"
