#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Run the C tests: each file its own process, each with a time limit.
#
#   c-tests/run.sh [-t SECONDS] [-w "WRAPPER ARGS"] BINARY...
#
# With NS_TRIES=2 what fails is run once more, and only what fails again counts: for machines that
# are shared, and runs under tools that make everything slow. What failed first is shown all the same.
#
# The last line is "N passed, N failed"; the result is 0 only if none failed.
limit=120
wrapper=
while getopts t:w: option; do
    case $option in
    t) limit=$OPTARG ;;
    w) wrapper=$OPTARG ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))

passed=0
failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export CMOCKA_MESSAGE_OUTPUT=TAP

# Run one: run_one BINARY. Leaves the counts in ok, bad and skipped.
run_one() {
    # shellcheck disable=SC2086 # the wrapper is words
    timeout -k 5 "$limit" $wrapper "$1" >"$log" 2>&1
    status=$?
    ok=$(grep -c '^ok ' "$log")
    # cmocka says "not ok" of what it skips.
    bad=$(grep '^not ok ' "$log" | grep -vc '# SKIP')
    skipped=$(grep -c '# SKIP' "$log")
    case $status in
    0) ;;
    124 | 137) echo "$name: HANGS: no end after $limit s" && bad=$((bad + 1)) ;;
    *) [ "$bad" -gt 0 ] || { echo "$name: exit status $status" && bad=1; } ;;
    esac
    [ $((ok + bad + skipped)) -gt 0 ] || { echo "$name: ran no test" && bad=1; }
    [ "$bad" -eq 0 ] || sed 's/^/    /' "$log"
}

for binary; do
    name=$(basename "$binary")
    begin=$(date +%s)
    run_one "$binary"
    tries=1
    while [ "$bad" -gt 0 ] && [ "$tries" -lt "${NS_TRIES:-1}" ]; do
        echo "$name: $ok passed, $bad failed; run again"
        run_one "$binary"
        tries=$((tries + 1))
    done
    [ "$skipped" -eq 0 ] || sed -n 's/.*# SKIP/    skipped:/p' "$log"
    echo "$name: $ok passed, $bad failed, $skipped skipped ($(($(date +%s) - begin)) s)"
    passed=$((passed + ok))
    failed=$((failed + bad))
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
