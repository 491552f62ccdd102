#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# What `make install` and `make uninstall` do: tools/install.sh install|uninstall. Directories come from
# the environment, so that they may have any characters: DESTDIR, prefix, exec_prefix, bindir, libdir, includedir,
# mandir, docdir. NS_BUILD is where the library was built, NS_VERSION and NS_SONAME are the library's.
# NS_FFI_EDIT is what sed changes in nunc-stans-ffi.h for this C library.
# With NS_DOCS=no neither documents nor examples are installed.
set -e
shared=libnunc-stans.so.$NS_VERSION
cmake=$libdir/cmake/nunc-stans
autoload=$prefix/share/gdb/auto-load$libdir
examples=$docdir/examples

# What does not depend on where it is: lines of MODE, FILE, DIRECTORY's variable and place below it.
files() {
    echo "755 $NS_BUILD/lib/$shared libdir ."
    echo "644 $NS_BUILD/lib/libnunc-stans.a libdir ."
    if [ -f "$NS_BUILD/ns-top/ns-top" ]; then
        echo "755 $NS_BUILD/ns-top/ns-top bindir ."
        echo "644 ns-top/ns-top.1 mandir man1"
    fi
    for file in include/*; do
        echo "644 $file includedir nunc-stans"
    done
    for file in adapters/*.h; do
        echo "644 $file includedir nunc-stans"
    done
    # Not where libverto would find it by itself.
    module=$NS_BUILD/adapters/libverto-nunc-stans.so
    [ ! -f "$module" ] || echo "755 $module libdir nunc-stans"
    for file in build/man/man*/*; do
        [ ! -f "$file" ] || echo "644 $file mandir $(basename "$(dirname "$file")")"
    done
    [ "$NS_DOCS" != no ] || return 0
    for file in tools/*.bt; do
        echo "755 $file docdir tools"
    done
    for file in README.md CHANGELOG.md COPYING COPYING.openssl; do
        echo "644 $file docdir ."
    done
    # With the folders that the documents' links name.
    find -H docs examples adapters bindings -type f ! -name '*.pyc' ! -name '*.so' ! -name '*.o' ! -path '*/tests/*' \
        ! -path '*/build/*' ! -path '*.egg-info/*' ! -path '*/target/*' ! -path '*/node_modules/*' \
        ! -path '*/zig-out/*' ! -path '*/.*' | LC_ALL=C sort | while read -r file; do
        mode=644
        [ ! -x "$file" ] || mode=755
        echo "$mode $file docdir $(dirname "$file")"
    done
}

# The directory of a variable: at NAME.
at() {
    eval "printf '%s' \"\$$1\""
}

# Fill in a template. A path may have any character: pkg-config wants a backslash before some.
fill() {
    escape=$2 awk '
        function literal(path) {
            if (ENVIRON["escape"] == "pkg-config") gsub(/[^A-Za-z0-9_\/.+,:@%~^=-]/, "\\\\&", path)
            return path
        }
        {
            while (match($0, /@[a-z_]+@/)) {
                name = substr($0, RSTART + 1, RLENGTH - 2)
                before = before substr($0, 1, RSTART - 1) literal(ENVIRON[name])
                $0 = substr($0, RSTART + RLENGTH)
            }
            print before $0
            before = ""
        }' "$1"
}

# From one directory to another: relative DIRECTORY FROM.
relative() {
    realpath -m --relative-to="$2" "$1"
}

case $1 in
install)
    files | while read -r mode file where below; do
        to=$DESTDIR$(at "$where")/$below
        install -d "$to"
        install -m "$mode" "$file" "$to/"
    done
    ln -sf "$shared" "$DESTDIR$libdir/$NS_SONAME"
    ln -sf "$NS_SONAME" "$DESTDIR$libdir/libnunc-stans.so"
    for file in include/*; do
        ln -sf "nunc-stans/$(basename "$file")" "$DESTDIR$includedir/"
    done
    if [ "$NS_DOCS" != no ]; then
        # The documents link to the headers; what they link to and is not installed is text.
        ln -sfn "$(relative "$includedir/nunc-stans" "$docdir")" "$DESTDIR$docdir/include"
        python3 tools/docs/links.py prune "$DESTDIR$docdir"
    fi
    [ -z "$NS_FFI_EDIT" ] || sed -i "$NS_FFI_EDIT" "$DESTDIR$includedir/nunc-stans/nunc-stans-ffi.h"
    export version="$NS_VERSION" soname="$NS_SONAME" prefix exec_prefix libdir includedir
    # gdb loads this by itself with a library of that name.
    install -d "$DESTDIR$autoload"
    install -m 644 gdb/nunc-stans-gdb.py "$DESTDIR$autoload/$shared-gdb.py"
    install -d "$DESTDIR$libdir/pkgconfig" "$DESTDIR$cmake"
    fill nunc-stans.pc.in pkg-config >"$DESTDIR$libdir/pkgconfig/nunc-stans.pc"
    from_cmake=$(relative "$includedir" "$cmake")
    export from_cmake
    for file in nunc-stans-config nunc-stans-config-version; do
        fill "cmake/$file.cmake.in" no >"$DESTDIR$cmake/$file.cmake"
    done
    ;;
uninstall)
    files | while read -r _ file where below; do
        rm -f "$DESTDIR$(at "$where")/$below/$(basename "$file")"
    done
    for file in include/*; do
        rm -f "$DESTDIR$includedir/$(basename "$file")"
    done
    rm -f "$DESTDIR$autoload/$shared-gdb.py" "$DESTDIR$docdir/include"
    rm -f "$DESTDIR$libdir/$NS_SONAME" "$DESTDIR$libdir/libnunc-stans.so" \
        "$DESTDIR$libdir/pkgconfig/nunc-stans.pc" "$cmake/nunc-stans-config.cmake" \
        "$DESTDIR$cmake"/nunc-stans-config*.cmake
    # Its own directories, once they are empty.
    for own in "$cmake" "$includedir/nunc-stans" "$libdir/nunc-stans" "$docdir"; do
        [ ! -d "$DESTDIR$own" ] || find "$DESTDIR$own" -depth -type d -empty -delete
    done
    ;;
*) exit 2 ;;
esac
