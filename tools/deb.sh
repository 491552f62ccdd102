#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Make Debian packages of the built library in build/deb: `make deb` runs this after `make all`. Run
# it in the project's root; it needs debhelper and dpkg-dev.
#
# debhelper works inside the tree that it packages. So it gets its own temporary tree: copies of the
# files and of debian/, and links to the other directories.
set -e
here=$(pwd)
tree=$here/build/deb/nunc-stans
rm -rf build/deb
mkdir -p "$tree"
trap 'rm -rf "$tree"' EXIT
for file in *; do
    if [ -f "$file" ]; then
        cp "$file" "$tree/$file" # what is installed as it is must not be a link
    elif [ "$file" != debian ]; then
        ln -s "$here/$file" "$tree/$file"
    fi
done
cp -R debian "$tree/debian"

# The packaging must not see the flags of an outer make.
unset MAKEFLAGS MAKELEVEL MFLAGS
cd "$tree"
# -d: do not check build dependencies; rustup, not a package, installs Rust here. -nc: the tree is
# new.
NS_BUILT=yes DEB_BUILD_OPTIONS="nocheck noautodbgsym" dpkg-buildpackage -b -d -nc -us -uc
