#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# The manual: every exported function has a page that says all there is to say, the pages are sound,
# and man finds them once they are installed. Run in the project's root.
. c-tests/tap.sh
unset MAKEFLAGS MAKELEVEL

make --no-print-directory man >"$work/why" 2>&1
tap $? "the pages are made from the header"

# "check": each function with each parameter, its results and when they come, what NULL does.
python3 tools/docs/manual.py check >"$work/why" 2>&1
tap $? "the header documents every exported function"

# Pages that mandoc does not find on this system are none of its business here: see below.
for page in build/man/man3/* build/man/man7/*; do
    grep -q '^\.so ' "$page" || mandoc -T lint "$page"
done 2>&1 | grep -v -e 'referenced manual not found' -e 'outdated mandoc.db' >"$work/why"
[ ! -s "$work/why" ]
tap $? "mandoc finds no fault in the pages"

sed -n 's/^\.so //p' build/man/man3/* | sort -u | while read -r page; do
    [ -f "build/man/$page" ] || echo "$page is missing"
done >"$work/why"
sed -n 's/^\.\(Pf [^ ]* \)\{0,1\}Xr \(ns_[a-z_]*\) 3.*/\2/p' build/man/man[37]/* | sort -u |
    while read -r name; do
        [ -f "build/man/man3/$name.3" ] || echo "$name(3) is referred to"
    done >>"$work/why"
[ ! -s "$work/why" ]
tap $? "every reference between the pages leads to one"

for page in build/man/man3/*; do
    grep -q '^\.so ' "$page" && continue
    parts='NAME SYNOPSIS DESCRIPTION SEE'
    grep -q '^\.Fo' "$page" && parts="$parts THREAD"
    grep -q '^\.Ft ns_result_t' "$page" && parts="$parts RETURN ERRORS"
    for part in $parts; do
        grep -q "^\.Sh $part" "$page" || echo "$page: $part"
    done
done >"$work/why"
[ ! -s "$work/why" ]
tap $? "every page has all its parts"

root=$work/root
make --no-print-directory install "DESTDIR=$root" prefix=/usr >"$work/why" 2>&1
tap $? "make install installs them"
for name in $(cat c-tests/symbols.txt); do
    page=$(man -M "$root/usr/share/man" -w "$name" 2>&1) && grep -q "^\.Fo $name\$" \
        "$(sed -n "s|^\.so |$root/usr/share/man/|p" "$page" | grep . || echo "$page")" || echo "$name"
done >"$work/why"
[ ! -s "$work/why" ]
tap $? "man finds every function on a page that declares it"
MANWIDTH=1000 man -M "$root/usr/share/man" ns_add_io_job >"$work/page" 2>"$work/why" &&
    grep -q '^ *ns_add_io_job(struct ns_thrpool_t \*tp, struct PRFileDesc \*fd,' "$work/page" &&
    MANWIDTH=1000 man -M "$root/usr/share/man" ns_add_fd_timeout_job 2>"$work/why" |
    diff "$work/page" - >"$work/why"
tap $? "man ns_add_io_job works, and a function's page is that of its family"
man -M "$root/usr/share/man" 7 nunc-stans 2>"$work/why" | grep -q 'NUNC_STANS_FRAMEWORK'
tap $? "man shows nunc-stans(7)"

# What is added to the header is in the manual at once, and what it leaves out is noticed.
tree=$work/tree
mkdir -p "$tree/include" "$tree/c-tests"
ln -s "$PWD/docs" "$PWD/examples" "$tree"
cp c-tests/symbols.txt "$tree/c-tests"
manual=$PWD/tools/docs/manual.py
add() { # add TEXT: the header, with this before its end
    awk -v text="$1" '/^#ifdef __cplusplus/ && ++n == 2 { print text "\n" } { print }' \
        include/nunc-stans.h >"$tree/include/nunc-stans.h"
    (cd "$tree" && python3 "$manual" "${2:-check}" ${3:+"$3"}) >"$work/why" 2>&1
}
new='/*
 * Birds
 *
 * Flight. A bird flies.
 */

/**
 * Let a bird fly. Any thread.
 *
 * @param tp the pool; NULL does nothing
 * @param height how high
 * @return NS_SUCCESS; NS_INVALID_REQUEST if it is a penguin
 */
ns_result_t ns_bird_fly(struct ns_thrpool_t *tp, size_t height);'
add "$new"
tap $? "a new function that is documented passes"
add "$new" man "$tree/man" && mandoc -T lint "$tree/man/man3/ns_bird_fly.3" 2>&1 |
    grep -v -e 'referenced manual' -e outdated >"$work/why"
[ ! -s "$work/why" ] && man -l "$tree/man/man3/ns_bird_fly.3" | grep -q 'penguin' &&
    grep -q ns_bird_fly "$tree/man/man7/nunc-stans.7"
tap $? "and has a page of its own, and nunc-stans(7) names it"
for left_out in 'height how high' 'NS_INVALID_REQUEST if' 'Let a bird fly. Any thread.' '; NULL does nothing' '@return'; do
    add "$(echo "$new" | sed "s/$left_out//")"
    [ $? -eq 1 ] && grep -q ns_bird_fly "$work/why" || echo "$left_out" >>"$work/unnoticed"
done
echo 'ns_bird_sing' >>"$tree/c-tests/symbols.txt"
add "$new"
grep -q 'ns_bird_sing is exported' "$work/why" || echo 'a symbol' >>"$work/unnoticed"
[ ! -s "$work/unnoticed" ]
tap $? "what its comment leaves out is noticed"

make --no-print-directory uninstall "DESTDIR=$root" prefix=/usr >"$work/why" 2>&1 &&
    find "$root" ! -type d >"$work/why" && [ ! -s "$work/why" ]
tap $? "make uninstall takes them away"

echo "1..$count"
