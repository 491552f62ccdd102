#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# The Debian packages: made, installed into an empty root, used there, and removed. Run in the
# project's root, with the library built.
. c-tests/tap.sh
root=$work/root

# dpkg on the empty root. It has no other package, so what ours depend on is missing there.
as_root=
[ "$(id -u)" -eq 0 ] || as_root="fakeroot --"
in_root() {
    $as_root dpkg --root="$root" --force-depends --force-script-chrootless --force-not-root \
        --log=/dev/null "$@"
}

ls -AR debian >"$work/before"
tools/deb.sh >"$work/why" 2>&1
tap $? "the packages can be made"
ls -AR debian | diff "$work/before" - >"$work/why"
tap $? "which leaves nothing behind in debian/"

runtime=$(echo build/deb/libnunc-stans0_*.deb)
devel=$(echo build/deb/libnunc-stans-dev_*.deb)
more=$(echo build/deb/nunc-stans-tools_*.deb)
libdir=usr/lib/$(dpkg-architecture -q DEB_HOST_MULTIARCH)

mkdir -p "$root/var/lib/dpkg/info" "$root/var/lib/dpkg/updates"
: >"$root/var/lib/dpkg/status"
in_root -i "$runtime" "$devel" "$more" >"$work/why" 2>&1
tap $? "they can be installed"

# Documentation aside, these files and links are in the packages, and no others.
cat >"$work/want" <<END
usr/bin/ns-top
usr/share/gdb/auto-load/$libdir/libnunc-stans.so.0.2.0-gdb.py
usr/share/lintian/overrides/libnunc-stans-dev
usr/share/lintian/overrides/libnunc-stans0
usr/share/lintian/overrides/nunc-stans-tools
usr/include/nunc-stans-coroutines.hpp -> nunc-stans/nunc-stans-coroutines.hpp
usr/include/nunc-stans-ffi.h -> nunc-stans/nunc-stans-ffi.h
usr/include/nunc-stans-jobs.hpp -> nunc-stans/nunc-stans-jobs.hpp
usr/include/nunc-stans.h -> nunc-stans/nunc-stans.h
usr/include/nunc-stans.hpp -> nunc-stans/nunc-stans.hpp
usr/include/nunc-stans/nunc-stans-cares.h
usr/include/nunc-stans/nunc-stans-coroutines.hpp
usr/include/nunc-stans/nunc-stans-curl.h
usr/include/nunc-stans/nunc-stans-dbus.h
usr/include/nunc-stans/nunc-stans-ffi.h
usr/include/nunc-stans/nunc-stans-hiredis.h
usr/include/nunc-stans/nunc-stans-jobs.hpp
usr/include/nunc-stans/nunc-stans-libpq.h
usr/include/nunc-stans/nunc-stans.h
usr/include/nunc-stans/nunc-stans.hpp
$libdir/cmake/nunc-stans/nunc-stans-config-version.cmake
$libdir/cmake/nunc-stans/nunc-stans-config.cmake
$libdir/libnunc-stans.a
$libdir/libnunc-stans.so -> libnunc-stans.so.0
$libdir/libnunc-stans.so.0 -> libnunc-stans.so.0.2.0
$libdir/libnunc-stans.so.0.2.0
$libdir/pkgconfig/nunc-stans.pc
END
(cd "$root" && find usr \( -path usr/share/doc -o -path usr/share/man \) -prune -o \
    -type l -printf '%p -> %l\n' -o -type f -print | LC_ALL=C sort) >"$work/have"
LC_ALL=C sort "$work/want" | diff - "$work/have" >"$work/why"
tap $? "the packages' files and links are those that are to be there (< missing, > too many)"

for name in nunc-stans ns-top $(cat c-tests/symbols.txt); do
    man -M "$root/usr/share/man" -w "$name" >/dev/null || echo "$name"
done >"$work/why" 2>&1
[ ! -s "$work/why" ]
tap $? "man finds every function in them"

doc=$root/usr/share/doc
ls -l "$doc/libnunc-stans0/copyright" "$doc/libnunc-stans-dev/copyright" "$doc/nunc-stans-tools/copyright" \
    >"$work/why" 2>&1
tap $? "the licence is with each"

# The licence is that of the system, which has no packages here.
mkdir -p "$root/usr/share/common-licenses" && : >"$root/usr/share/common-licenses/GPL-3"
python3 tools/docs/links.py check "$doc/libnunc-stans-dev" >"$work/why" 2>&1 &&
    [ "$(python3 tools/docs/links.py list "$doc/libnunc-stans-dev" | wc -l)" -gt 80 ]
tap $? "the links of the documents lead to what is there"
rm -r "$root/usr/share/common-licenses"

dpkg-deb -f "$runtime" Depends | tr ',' '\n' | grep -v -e libc6 -e libgcc-s1 >"$work/why"
[ ! -s "$work/why" ]
tap $? "the runtime package depends on libc6 and libgcc-s1 only"

readelf -d "$root/$libdir/libnunc-stans.so.0" | grep SONAME | tee "$work/why" |
    grep -q '\[libnunc-stans\.so\.0\]' &&
    nm -D --defined-only "$root/$libdir/libnunc-stans.so.0" | awk '{print $3}' | LC_ALL=C sort |
    diff c-tests/symbols.txt - >"$work/why"
tap $? "its library has the SONAME and the symbols"

export PKG_CONFIG_LIBDIR="$root/$libdir/pkgconfig" PKG_CONFIG_SYSROOT_DIR="$root"
# shellcheck disable=SC2046 # pkg-config prints words
cc -Wall -Wextra -Werror "$doc/libnunc-stans-dev/examples/run-now.c" \
    -o "$work/shared" $(pkg-config --cflags --libs nunc-stans) >"$work/why" 2>&1 &&
    LD_LIBRARY_PATH="$root/$libdir" "$work/shared" >"$work/why" 2>&1
tap $? "an example builds with them by pkg-config, and runs"

# shellcheck disable=SC2046
cc -Wall -Wextra -Werror examples/run-now.c -o "$work/static" $(pkg-config --cflags nunc-stans) \
    -Wl,-Bstatic $(pkg-config --static --libs nunc-stans |
        sed 's/-lnunc-stans/& -Wl,-Bdynamic/') >"$work/why" 2>&1 &&
    "$work/static" >"$work/why" 2>&1
tap $? "and with the static library"

in_root --purge nunc-stans-tools libnunc-stans-dev libnunc-stans0 >"$work/why" 2>&1 &&
    find "$root" -mindepth 1 ! -path "$root/var*" >"$work/why" && [ ! -s "$work/why" ]
tap $? "they can be removed, and nothing is left"

echo "1..$count"
