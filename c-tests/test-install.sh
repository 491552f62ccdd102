#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# make install into an empty directory, an example built against that by pkg-config alone, shared
# and static, and make uninstall. Run in the project's root.
count=0
here=$(mktemp -d)
trap 'rm -rf "$here"' EXIT
root=$here/root

tap() {
    count=$((count + 1))
    if [ "$1" -eq 0 ]; then
        echo "ok $count - $2"
    else
        echo "not ok $count - $2"
        sed 's/^/# /' "$here/why"
    fi
}

# Both calls are to see a tree that is built already, whatever flags an outer make passes on.
unset MAKEFLAGS MAKELEVEL
make --no-print-directory install "DESTDIR=$root" prefix=/usr >"$here/why" 2>&1
tap $? "make install"

export PKG_CONFIG_PATH="$root/usr/lib/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$root"
# shellcheck disable=SC2046 # pkg-config prints words
cc -Wall -Wextra -Werror examples/run-now.c -o "$here/shared" \
    $(pkg-config --cflags --libs nunc-stans) >"$here/why" 2>&1
tap $? "an example links against what is installed, shared"
LD_LIBRARY_PATH="$root/usr/lib" "$here/shared" >"$here/why" 2>&1
tap $? "and runs"

# shellcheck disable=SC2046
cc -Wall -Wextra -Werror examples/run-now.c -o "$here/static" $(pkg-config --cflags nunc-stans) \
    -Wl,-Bstatic $(pkg-config --static --libs-only-L --libs-only-l nunc-stans |
        sed 's/-lnunc-stans/& -Wl,-Bdynamic/') >"$here/why" 2>&1
tap $? "and static"
readelf -d "$here/static" | grep nunc-stans >"$here/why"
[ ! -s "$here/why" ] && "$here/static" >"$here/why" 2>&1
tap $? "and runs without the shared library"

# The linker warns of dlopen, by which NSPR is looked for: there is none in a static program.
# shellcheck disable=SC2046
cc -Wall -Wextra examples/run-now.c -o "$here/whole" -static \
    $(pkg-config --static --cflags --libs nunc-stans) >"$here/why" 2>&1 &&
    ! readelf -d "$here/whole" | grep NEEDED >"$here/why" && "$here/whole" >"$here/why" 2>&1
tap $? "an example links against everything statically, by pkg-config alone, and runs"

printf '#include <nunc-stans.h>\n#include <nunc-stans/nunc-stans.h>\nint main(void) { return NS_SUCCESS; }\n' \
    >"$here/both.c"
# shellcheck disable=SC2046
cc -Wall -Werror "$here/both.c" -o "$here/both" $(pkg-config --cflags nunc-stans) >"$here/why" 2>&1
tap $? "the header is reachable under both names"

[ "$(pkg-config --modversion nunc-stans)" = 0.2.0 ] 2>"$here/why"
tap $? "pkg-config knows the version"

make --no-print-directory uninstall "DESTDIR=$root" prefix=/usr >"$here/why" 2>&1 &&
    find "$root" ! -type d >"$here/why" && [ ! -s "$here/why" ] &&
    [ ! -d "$root/usr/include/nunc-stans" ]
tap $? "make uninstall leaves nothing"

echo "1..$count"
