#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# libverto's own test programs, from Debian's source package, with libverto-nunc-stans.so. Run in the project's
# root; VERTO_MODULE is the module, and VERTO_SOURCE a folder where the source stays for the next time.
. c-tests/tap.sh
. adapters/tests/verto.sh

# The source of the libverto that is installed, by apt, with a list of sources of its own.
fetch() {
    [ ! -f "$VERTO_SOURCE/fetched" ] || return 0
    mkdir -p "$VERTO_SOURCE" "$work/apt/lists/partial" "$work/apt/cache/archives/partial" || return 1
    codename=$(. /etc/os-release && echo "$VERSION_CODENAME")
    echo "deb-src http://deb.debian.org/debian $codename main" >"$work/apt/sources.list"
    set -- -q -o Dir::Etc::sourcelist="$work/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::lists="$work/apt/lists" -o Dir::Cache="$work/apt/cache" -o APT::Sandbox::User=root
    apt-get "$@" update && (cd "$VERTO_SOURCE" && apt-get "$@" source --download-only --tar-only libverto &&
        tar xzf libverto_*.orig.tar.gz --strip-components=1) && touch "$VERTO_SOURCE/fetched"
}

fetch >"$work/why" 2>&1 && verto_folder "$work/folder" >>"$work/why" 2>&1
tap $? "libverto's source is there"
# Two of them want things to happen within some ten milliseconds, which a busy machine may miss.
passes() {
    for _ in 1 2 3 4 5; do
        timeout -k 5 60 "$work/$1" nunc-stans >"$work/why" 2>&1 && ! grep -q WARNING "$work/why" && return
    done
    return 1
}

for program in child idle read signal timeout write; do
    cc -g -I"$VERTO_SOURCE/tests" "$VERTO_SOURCE/tests/$program.c" -o "$work/$program" -lverto >"$work/why" 2>&1 &&
        passes $program
    tap $? "libverto's $program"
done
echo "1..$count"
