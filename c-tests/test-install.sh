#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# make install into an empty directory, an example built against that by pkg-config alone, shared
# and static, and make uninstall. Run in the project's root.
. c-tests/tap.sh
root=$work/root

# Both calls are to see a tree that is built already, whatever flags an outer make passes on.
unset MAKEFLAGS MAKELEVEL
make --no-print-directory install "DESTDIR=$root" prefix=/usr >"$work/why" 2>&1
tap $? "make install"

export PKG_CONFIG_PATH="$root/usr/lib/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$root"
# shellcheck disable=SC2046 # pkg-config prints words
cc -Wall -Wextra -Werror examples/run-now.c -o "$work/shared" \
    $(pkg-config --cflags --libs nunc-stans) >"$work/why" 2>&1
tap $? "an example links against what is installed, shared"
LD_LIBRARY_PATH="$root/usr/lib" "$work/shared" >"$work/why" 2>&1
tap $? "and runs"

# shellcheck disable=SC2046
cc -Wall -Wextra -Werror examples/run-now.c -o "$work/static" $(pkg-config --cflags nunc-stans) \
    -Wl,-Bstatic $(pkg-config --static --libs-only-L --libs-only-l nunc-stans |
        sed 's/-lnunc-stans/& -Wl,-Bdynamic/') >"$work/why" 2>&1
tap $? "and static"
readelf -d "$work/static" | grep nunc-stans >"$work/why"
[ ! -s "$work/why" ] && "$work/static" >"$work/why" 2>&1
tap $? "and runs without the shared library"

# The linker warns of dlopen, by which NSPR is looked for: there is none in a static program.
# shellcheck disable=SC2046
cc -Wall -Wextra examples/run-now.c -o "$work/whole" -static \
    $(pkg-config --static --cflags --libs nunc-stans) >"$work/why" 2>&1 &&
    ! readelf -d "$work/whole" | grep NEEDED >"$work/why" && "$work/whole" >"$work/why" 2>&1
tap $? "an example links against everything statically, by pkg-config alone, and runs"

printf '#include <nunc-stans.h>\n#include <nunc-stans/nunc-stans.h>\nint main(void) { return NS_SUCCESS; }\n' \
    >"$work/both.c"
# shellcheck disable=SC2046
cc -Wall -Werror "$work/both.c" -o "$work/both" $(pkg-config --cflags nunc-stans) >"$work/why" 2>&1
tap $? "the header is reachable under both names"
for header in include/*; do
    name=$(basename "$header")
    cmp "$header" "$root/usr/include/nunc-stans/$name" && cmp "$header" "$root/usr/include/$name" || echo differs
done >"$work/why" 2>&1
[ ! -s "$work/why" ]
tap $? "and so is each of the others"

printf '#include <nunc-stans.hpp>\nint main() { nunc_stans::pool pool; pool.post([] {}); }\n' >"$work/pool.cpp"
# shellcheck disable=SC2046
c++ -std=c++17 -Wall -Wextra -Wold-style-cast -Werror "$work/pool.cpp" -o "$work/pool" \
    $(pkg-config --cflags --libs nunc-stans) -pthread >"$work/why" 2>&1 &&
    LD_LIBRARY_PATH="$root/usr/lib" "$work/pool" >"$work/why" 2>&1
tap $? "a program in C++ is built by pkg-config alone, and runs"

[ "$(pkg-config --modversion nunc-stans)" = 0.2.0 ] 2>"$work/why"
tap $? "pkg-config knows the version"

make --no-print-directory uninstall "DESTDIR=$root" prefix=/usr >"$work/why" 2>&1 &&
    find "$root" ! -type d >"$work/why" && [ ! -s "$work/why" ] &&
    [ ! -d "$root/usr/include/nunc-stans" ]
tap $? "make uninstall leaves nothing"

echo "1..$count"
