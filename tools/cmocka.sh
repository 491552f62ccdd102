#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Build cmocka, which the C tests use, for another architecture: tools/cmocka.sh DIRECTORY COMPILER.
# Leaves libcmocka.a and the header in DIRECTORY.
#
# Debian has it built for its own architectures only, and to install those would make this system one
# of several architectures. So this builds Debian's source package, which is one C file. apt-get
# fetches it with lists of its own: those of the system stay as they are.
set -e
to=$1 compiler=$2
source=$(pwd)/build/cmocka
sources() {
    apt-get -q -o "Dir::Etc::SourceList=$source/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o "Dir::State::Lists=$source/lists" -o "Dir::Cache=$source/cache" -o APT::Sandbox::User=root "$@"
}
if [ ! -f "$source/cmocka/src/cmocka.c" ]; then
    rm -rf "$source"
    mkdir -p "$source/lists/partial" "$source/cache/archives/partial" "$source/cmocka"
    # shellcheck disable=SC2016 # these are apt-get's
    apt-get indextargets --format '$(REPO_URI) $(CODENAME) $(COMPONENT)' 'Created-By: Packages' 'Origin: Debian' |
        awk '$2 !~ /-/' | sed 's|^|deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] |' \
        >"$source/sources.list"
    sources update >/dev/null
    (cd "$source" && sources source --download-only cmocka >/dev/null)
    tar -xf "$source"/cmocka_*.orig.tar.?z -C "$source/cmocka" --strip-components=1
fi
mkdir -p "$to"
"$compiler" -O1 -D_GNU_SOURCE -DHAVE_MALLOC_H -DHAVE_INTTYPES_H -DHAVE_SIGNAL_H -DHAVE_STRINGS_H \
    -DHAVE_STRSIGNAL -DHAVE_STRUCT_TIMESPEC -DHAVE_CLOCK_REALTIME -DHAVE_SIGLONGJMP \
    -DHAVE_GCC_THREAD_LOCAL_STORAGE -I"$source/cmocka/include" -c "$source/cmocka/src/cmocka.c" \
    -o "$to/cmocka.o"
cp "$source/cmocka/include/cmocka.h" "$to/"
rm -f "$to/libcmocka.a"
ar rcs "$to/libcmocka.a" "$to/cmocka.o"
