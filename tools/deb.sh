#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Make Debian packages of the library that is built: what `make deb` does after `make all`. They
# land in build/deb. Run in the project's root; needs debhelper and dpkg-dev.
#
# debhelper works inside the tree that it packages. So it is given a tree of links, which goes
# afterwards, with everything in it but debian/ being the project's own.
set -e
here=$(pwd)
tree=$here/build/deb/nunc-stans
rm -rf build/deb
mkdir -p "$tree"
trap 'rm -rf "$tree"' EXIT
for file in *; do
    [ "$file" = debian ] || ln -s "$here/$file" "$tree/$file"
done
cp -R debian "$tree/debian"

# Flags of an outer make are none of the packaging's business.
unset MAKEFLAGS MAKELEVEL MFLAGS
cd "$tree"
# -d: Rust comes by rustup here, not from a package. -nc: the tree is new.
DEB_BUILD_OPTIONS="nocheck noautodbgsym" dpkg-buildpackage -b -d -nc -us -uc
