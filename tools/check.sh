#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Runs the steps of `make check` after everything is built: tools/check.sh BUILD-DIR. The last line
# is "N passed, N failed".
build=$1
passed=0
failed=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Count one step: report NAME STATUS. Its output is shown only if it failed.
report() {
    if [ "$2" -eq 0 ]; then
        passed=$((passed + 1))
        echo "ok: $1"
    else
        failed=$((failed + 1))
        echo "FAILED: $1"
        sed 's/^/    /' "$log"
    fi
}

step() {
    name=$1
    shift
    timeout -k 5 600 "$@" >"$log" 2>&1
    report "$name" $?
}

step "cargo fmt --check" cargo fmt --check
step "cargo clippy, warnings are errors" \
    cargo clippy --quiet --locked --all-targets -- -D warnings
step "the header is in step with the source" cargo test --quiet --locked --test header

# Rust's unit tests, in the release profile too.
timeout -k 5 600 cargo test --quiet --release --locked --lib >"$log" 2>&1
report "Rust unit tests" $?
count=$(sed -n 's/^test result: ok\. \([0-9]*\) passed.*/\1/p' "$log" | head -n 1)
[ -z "$count" ] || passed=$((passed + count - 1))

sed -n '/^```c$/,/^```$/{p;/^```$/q}' README.md | sed '1d;$d' | diff - examples/udp-echo.c >"$log"
report "README's example is examples/udp-echo.c" $?

for example in run-now timers signals io-timeout cancel nspr-echo; do
    step "example $example" "$build/examples/$example"
done

# The C tests, on the release library. run.sh counts them itself.
c-tests/run.sh "$build"/c-tests/test-* c-tests/test-*.sh >"$log" 2>&1
cat "$log"
summary=$(tail -n 1 "$log")
passed=$((passed + $(echo "$summary" | sed -n 's/^\([0-9]*\) passed.*/\1/p')))
failed=$((failed + $(echo "$summary" | sed -n 's/.* \([0-9]*\) failed$/\1/p')))

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
