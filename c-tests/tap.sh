# SPDX-License-Identifier: GPL-3.0-or-later
# Sourced by the tests that are shell scripts: a directory for what they make, and their results.
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
count=0

# tap STATUS NAME: one result. If it is a failure, the end of $work/why is told.
tap() {
    count=$((count + 1))
    if [ "$1" -eq 0 ]; then
        echo "ok $count - $2"
    else
        echo "not ok $count - $2"
        tail -n 50 "$work/why" | sed 's/^/# /'
    fi
}

# eventually COMMAND...: true when it succeeds within thirty seconds.
eventually() {
    local tries=0
    until "$@" 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -lt 600 ] || return 1
        sleep 0.05
    done
}
