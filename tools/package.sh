#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Debian's packages as a distribution makes them: tools/package.sh VERSION. Root runs it.
#
# From the tarball of `make dist` it makes a source package. In a fresh system of Debian's (debootstrap)
# it installs what the package says that it needs, takes the network away, and builds: twice, in two
# places and at two times. Then lintian, and abidiff with the last release. In another fresh system the
# packages are installed, used and removed. They stay in build/package. NS_SUITE is the release of Debian.
# The last line is "N passed, N failed".
version=$1
suite=${NS_SUITE:-bookworm}
package=$PWD/build/package
log=$(mktemp)
passed=0
failed=0
mkdir -p "$package"

tell() {
    if [ "$1" -eq 0 ]; then
        passed=$((passed + 1))
        echo "ok: $2"
    else
        failed=$((failed + 1))
        echo "FAILED: $2"
        tail -n 40 "$log" | sed 's/^/    /'
    fi
}

finish() {
    echo "$passed passed, $failed failed"
    [ "$failed" -eq 0 ]
    exit
}

# The systems are temporary; nothing is mounted in them.
systems=$(mktemp -d)
trap 'rm -rf "$systems" "$log"' EXIT
# From where this machine has its packages, whatever release of Debian it is.
uri() {
    apt-get indextargets --format '$(REPO_URI) $(CODENAME)' 'Created-By: Packages' 'Origin: Debian' |
        awk -v is_security="$1" '($2 ~ /-security$/) == is_security { print $1; exit }'
}
mirror=$(uri 0)
security=$(uri 1)

# Run in a system, as root: inside SYSTEM COMMAND...
inside() {
    system=$1
    shift
    env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive HOME=/root \
        chroot "$systems/$system" "$@"
}

fresh() {
    cp -a --reflink=auto "$systems/base" "$systems/$1"
}

debootstrap --variant=minbase "$suite" "$systems/base" "$mirror" >"$log" 2>&1
tell $? "a fresh system ($suite)"
# rustc of a stable release comes with its updates.
[ -z "$security" ] || echo "deb $security $suite-security main" >>"$systems/base/etc/apt/sources.list"
inside base apt-get update -q >"$log" 2>&1

tools/dist.sh "$version" >"$log" 2>&1
tell $? "make dist"
rm -rf "$package"/*.dsc "$package"/*.deb "$package"/*.tar.* "$package/source"
# As a distribution has it: the release without debian/, and that beside it.
xz -dc "build/dist/nunc-stans-$version.tar.xz" | tar -f - --delete "nunc-stans-$version/debian" |
    xz -T1 >"$package/nunc-stans_$version.orig.tar.xz"
(
    mkdir "$package/source" && tar -xf "$package/nunc-stans_$version.orig.tar.xz" -C "$package/source" --strip-components=1 &&
        git archive HEAD debian | tar -xf - -C "$package/source" && cd "$package/source" && dpkg-source -b . && rm -rf "$package/source"
) >"$log" 2>&1
tell $? "the source package"

fresh builder
mkdir -p "$systems/builder/src"
cp "$package"/nunc-stans_* "$systems/builder/src/"
inside builder sh -c "apt-get install -y -q --no-install-recommends build-essential fakeroot && cd /src &&
    apt-get build-dep -y -q --no-install-recommends ./nunc-stans_$version-*.dsc" >"$log" 2>&1
tell $? "what it needs to be built can be installed"

# build PLACE: without a network.
build() {
    inside builder sh -c "mkdir -p /$1 && cd /$1 && dpkg-source -x /src/nunc-stans_$version-*.dsc work" >"$log" 2>&1 &&
        unshare -n env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C.UTF-8 HOME=/nonexistent \
            chroot "$systems/builder" sh -c "cd /$1/work && dpkg-buildpackage -b -us -uc" >"$package/build-$1.log" 2>&1
    status=$?
    tail -n 30 "$package/build-$1.log" >"$log"
    return $status
}
build first
tell $? "it builds without a network"
# Without packages there is nothing to look at. This can only end a run that has failed.
[ "$failed" -eq 0 ] || finish
build a-second-and-longer-place
tell $? "and again elsewhere"
(cd "$systems/builder" && for deb in first/*.deb; do
    cmp "$deb" "a-second-and-longer-place/$(basename "$deb")" || echo "$deb differs"
done) >"$log" 2>&1
[ ! -s "$log" ]
tell $? "both times it makes the same bytes"
cp "$systems"/builder/first/*.deb "$systems"/builder/first/*.changes "$systems"/builder/first/*.buildinfo "$package/"

ls "$package"/libnunc-stans0-dbgsym_*.deb >"$log" 2>&1
tell $? "there is a package with debug symbols"
lintian --allow-root --fail-on error,warning "$package"/*.dsc "$package"/*.deb >"$log" 2>&1
tell $? "lintian finds no error and nothing to warn of"

# The dump is of one architecture, and each has its own.
dump=debian/abi/libnunc-stans.so.0.$(dpkg --print-architecture).abi
debug=$systems/unpacked/usr/lib/debug
mkdir "$systems/unpacked"
dpkg-deb -x "$package"/libnunc-stans0_*.deb "$systems/unpacked"
dpkg-deb -x "$package"/libnunc-stans0-dbgsym_*.deb "$systems/unpacked"
library=$(echo "$systems"/unpacked/usr/lib/*/libnunc-stans.so.0)
tools/abi.py "$library" "$debug" >"$package/$(basename "$dump")" 2>"$log"
tell $? "abidw dumps the interface"
if [ -f "$dump" ]; then
    abidiff --no-added-syms --debug-info-dir2 "$debug" "$dump" "$library" >"$log" 2>&1
    tell $? "abidiff: the interface of the last release is as it was"
    sed 's/layout-offset-in-bits="64"/layout-offset-in-bits="96"/' "$dump" >"$systems/other.abi"
    ! abidiff --no-added-syms --debug-info-dir2 "$debug" "$systems/other.abi" "$library" >"$log" 2>&1
    tell $? "and it is told if a member has moved"
fi

fresh user
cp "$package"/*.deb examples/run-now.c "$systems/user/root/"
inside user sh -c 'apt-get install -y -q --no-install-recommends gcc libc6-dev pkg-config man-db' >"$log" 2>&1
(cd "$systems/user" && find . -xdev ! -path './var/*' ! -path './root/*' ! -name '*.cache' | LC_ALL=C sort) >"$systems/before"
inside user sh -c 'apt-get install -y -q --no-install-recommends /root/*.deb' >"$log" 2>&1
tell $? "in another fresh system they are installed"
python3 tools/docs/links.py check "$systems/user/usr/share/doc/libnunc-stans-dev" >"$log" 2>&1
tell $? "the links of the installed documents lead to what is there"
inside user sh -c 'man -w ns_add_job nunc-stans ns-top && ns-top -h' >"$log" 2>&1
tell $? "with the manual and ns-top"
inside user sh -c 'cd /root && gcc -Wall -Werror run-now.c -o shared $(pkg-config --cflags --libs nunc-stans) && ./shared &&
    gcc -Wall run-now.c -o static -static $(pkg-config --static --cflags --libs nunc-stans) && ./static' >"$log" 2>&1
tell $? "used, shared and static"
inside user sh -c 'apt-get purge -y -q "libnunc-stans*" "nunc-stans*"' >"$log" 2>&1 &&
    (cd "$systems/user" && find . -xdev ! -path './var/*' ! -path './root/*' ! -name '*.cache' | LC_ALL=C sort) |
    diff "$systems/before" - >"$log"
tell $? "and removed, and nothing is left"
finish
