#!/bin/bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Chapter one of the guide as a newcomer meets it: a new Debian system that has the packages of the library, those
# that the chapter names, man, and nothing else of ours. Its commands have to do what is printed.
# tools/docs/clean-chroot.sh PACKAGE.deb... Run it as root in the project's root; it needs mmdebstrap.
set -e
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work"
# shellcheck disable=SC2016 # printed in the guide as `...`
named=$(tr '\n' ' ' <docs/GUIDE.md | sed 's/.*(on Debian: `libnunc-stans-dev \([^`]*\)`).*/\1/')
copies=()
for package; do
    copies+=("--customize-hook=copy-in $package /root")
done
# The system's own sources of packages, and how apt reaches them.
options=()
for file in /etc/apt/apt.conf.d/*; do
    case $file in *proxy*) options+=("--aptopt=$file") ;; esac
done
sources=$(cat /etc/apt/sources.list /etc/apt/sources.list.d/*.sources 2>/dev/null || true)
mmdebstrap --quiet --variant=apt --include="man-db ${named%" "}" "${options[@]}" "${copies[@]}" \
    --customize-hook='chroot "$1" sh -c "dpkg -i /root/*.deb"' \
    "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$work/root" - <<<"$sources"
# The chapter, and no more.
sed '/^## 2\./,$d' docs/GUIDE.md >"$work/GUIDE.md"
NS_LISTING_ROOT=$work/root python3 tools/docs/listings.py "$work/root/home" "$work/GUIDE.md"
for page in nunc-stans ns_thrpool_new ns_add_fd_job ns_job_rearm_for; do
    chroot "$work/root" man "$page" | grep -q "$page"
    echo "man $page: found"
done
