#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# The recipes: the library is installed, the programs of docs/recipes are compiled and run against real
# peers as the pages say, and print what the pages show. Run in the project's root.
. c-tests/tap.sh
unset MAKEFLAGS MAKELEVEL
make --no-print-directory install "DESTDIR=$work/root" prefix=/usr >"$work/why" 2>&1 || {
    tap 1 "make install"
    echo 1..1
    exit
}
export PKG_CONFIG_PATH="$work/root/usr/lib/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$work/root"
# Where programs find the library; systemd-socket-activate would not pass LD_LIBRARY_PATH on.
export LD_RUN_PATH="$work/root/usr/lib"
python3 tools/docs/listings.py "$work/listings" docs/recipes/*.md
