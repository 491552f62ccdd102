#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# What `make check-docs` does when the site and the packages are made. Run in the project's root.
status=0
c-tests/run.sh c-tests/test-manual.sh c-tests/test-guide.sh c-tests/test-recipes.sh || status=1

# Where the letters are depends on the fonts of the machine; what they say does not.
words() { sed -n 's/^<text[^>]*>\(.*\)<\/text>$/\1/p'; }
for picture in docs/pictures/*.dot; do
    drawn=$(dot -Tsvg "$picture" | words)
    [ "$drawn" = "$(words <"${picture%.dot}.svg")" ] || {
        echo "FAILED: $picture is newer than its .svg: make pictures"
        status=1
    }
done

if [ "$(id -u)" -eq 0 ]; then
    log=$(mktemp)
    # The packages of this machine's own architecture.
    if tools/docs/clean-chroot.sh build/deb/libnunc-stans0_*.deb build/deb/libnunc-stans-dev_*.deb >"$log" 2>&1; then
        echo "ok: chapter one of the guide in a clean chroot"
    else
        echo "FAILED: chapter one of the guide in a clean chroot"
        tail -n 30 "$log" | sed 's/^/    /'
        status=1
    fi
    rm -f "$log"
else
    echo "left out: chapter one in a clean chroot needs root"
fi
exit $status
