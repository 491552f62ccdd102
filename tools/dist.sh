#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Make the release's tarball, build/dist/nunc-stans-VERSION.tar.xz: tools/dist.sh VERSION.
#
# It has what the last commit has, and all crates in vendor/, so that it builds without a network. Two
# calls for one commit make the same bytes.
set -e
name=nunc-stans-$1
dist=build/dist
rm -rf "$dist"
mkdir -p "$dist/$name"
git archive HEAD | tar -xf - -C "$dist/$name"
(
    cd "$dist/$name"
    mkdir .cargo
    cargo vendor --quiet --locked vendor >/dev/null
    printf '[source.crates-io]\nreplace-with = "vendor"\n\n[source.vendor]\ndirectory = "vendor"\n' \
        >.cargo/config.toml
    # What other systems' linkers need has no source here. Cargo compares each crate with its list of files.
    find vendor -name '*.dll' -o -name '*.lib' -o -name '*.a' | while read -r binary; do
        below=${binary#vendor/*/}
        crate=${binary%"/$below"}
        rm "$binary"
        sed -i "s|\"$below\":\"[0-9a-f]*\",\{0,1\}||; s|,}|}|" "$crate/.cargo-checksum.json"
    done
)
tar --sort=name --mtime="@$(git log -1 --format=%ct)" --owner=0 --group=0 --numeric-owner --mode=go=rX,u+rw,a-s \
    -C "$dist" -cf - "$name" | xz -T1 >"$dist/$name.tar.xz"
rm -rf "${dist:?}/$name"
echo "$dist/$name.tar.xz"
