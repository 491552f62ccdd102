#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Make Debian packages of the library that is built: what `make deb` does after `make all`. They
# land in build/deb. Run in the project's root; needs debhelper and dpkg-dev.
#
# debhelper works inside the tree that it packages. So it gets a temporary tree of its own: copies of
# the files and of debian/, and links to the other directories.
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
# -d: Rust comes by rustup here, not from a package. -nc: the tree is new.
DEB_BUILD_OPTIONS="nocheck noautodbgsym" dpkg-buildpackage -b -d -nc -us -uc
