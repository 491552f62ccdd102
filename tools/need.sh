#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Make sure that Debian packages are installed: tools/need.sh PACKAGE...
#
# If root runs it, it installs the missing ones; otherwise it prints the command that does. On
# systems without dpkg it only prints the packages' names.
if ! command -v dpkg-query >/dev/null; then
    echo "needed here, by their Debian names: $*" >&2
    exit 0
fi
missing=
for package; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' ||
        missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
    echo "missing; please run: sudo apt-get install -y$missing" >&2
    exit 1
fi
echo "installing$missing"
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086 # a list of words
apt-get install -y -q $missing >/dev/null 2>&1 ||
    { apt-get update -q >/dev/null && apt-get install -y -q $missing >/dev/null; }
