#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Run the C tests over each event framework: c-tests/frameworks.sh BUILD-DIR HOW [FRAMEWORK...]
#
# HOW is
#   least  one program of each kind, in a few seconds: for make check
#   some   those that ask most of a framework: for make check-deep
#   all    everything that uses a pool: for make check-full
#   tools  those for which a sanitizer or valgrind may find something in how a framework is used
#   original  the two programs that know nothing of options, by the environment variable alone
#
# NS_WRAP, if it is set, is a command that runs each program, and NS_LEAVE_OUT names tests to leave out.
# c-tests/frameworks.txt says which tests do not hold over which framework, and why. They are left
# out. The last line is "N passed, N failed".
build=$1
how=$2
shift 2
table=c-tests/frameworks.txt
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# Left out everywhere: what looks at the library as a file, loads it, or names frameworks itself; what
# uses no pool; and the examples' own tests.
all() {
    for file in c-tests/test-*.c; do
        name=$(basename "$file" .c)
        case $name in
        test-abi | test-dlopen | test-options | test-frameworks* | test-chat | test-notes) ;;
        *) echo "$name" ;;
        esac
    done
}

case $how in
least) names="test-frameworks-least" ;;
tools) names="test-frameworks-least test-fd-reuse test-io test-io-descriptors test-io-timeouts
        test-own-descriptors test-refusals test-shutdown test-signals test-caller-turns test-caller-end" ;;
original) names="test-original-shape test-daemon-patterns" ;;
some) names="test-frameworks-least test-bounded-steps test-destroy test-fd-reuse test-forks test-io test-io-descriptors
        test-io-timeouts test-own-descriptors test-refusals test-shutdown test-signals
        test-fm-descriptors test-caller-turns test-caller-end" ;;
all) names=$(all) ;;
*) exit 2 ;;
esac
# Of a framework with several back ends, one gets the whole choice and the others what concerns the
# back end most.
few="test-frameworks-least test-fd-reuse test-io-timeouts test-refusals"
frameworks="native portable libevent:epoll libevent:poll libevent:select tevent:standard tevent:poll custom"
# `make check` runs everything over native, and a part of `make check-deep` is about portable.
case $how in some | tools) frameworks=$(echo "$frameworks" | sed 's/native portable //') ;; esac

# These serve thousands of connections at once. select takes no descriptor above 1023, and tevent by poll looks
# at all of its descriptors for each event.
thousands="test-original-shape test-daemon-patterns"

# The tests that do not hold over $1, as words.
left_out() {
    grep -v '^#' "$table" | while IFS="$(printf '\t')" read -r test frameworks _; do
        set -f
        for pattern in $frameworks; do
            # shellcheck disable=SC2254 # it is a pattern
            case $1 in
            $pattern) printf '%s ' "$test" ;;
            esac
        done
        set +f
    done
}

passed=0
failed=0
for framework in ${*:-$frameworks}; do
    case $how/$framework in
    some/libevent:poll | some/libevent:select | some/tevent:poll) chosen=$few ;;
    tools/libevent:select | tools/custom) chosen=$few ;;
    *) chosen=$names ;;
    esac
    # With a hundredth of their connections.
    small=
    case $framework in
    libevent:select | tevent:poll) small=$thousands ;;
    esac
    programs=
    small_programs=
    for name in $chosen; do
        case " $small " in
        *" $name "*) small_programs="$small_programs $build/c-tests/$name" ;;
        *) programs="$programs $build/c-tests/$name" ;;
        esac
    done
    begin=$(date +%s)
    NS_SKIP="$(left_out "$framework")${NS_LEAVE_OUT:-}"
    export NS_SKIP
    if [ "$framework" = custom ]; then
        wrapper="env LD_PRELOAD=$PWD/$build/c-tests/over-poll.so"
    else
        wrapper="env NUNC_STANS_FRAMEWORK=$framework"
    fi
    wrapper="$wrapper${NS_WRAP:+ $NS_WRAP}"
    # shellcheck disable=SC2086 # lists of words
    {
        [ -z "$programs" ] || c-tests/run.sh -t "${NS_LIMIT:-120}" -w "$wrapper" $programs
        [ -z "$small_programs" ] || NS_SLOW=1 c-tests/run.sh -t "${NS_LIMIT:-120}" -w "$wrapper" $small_programs
    } >"$log" 2>&1
    ok=$(sed -n 's/^\([0-9]*\) passed, [0-9]* failed$/\1/p' "$log" | awk '{ n += $1 } END { print n }')
    bad=$(sed -n 's/^[0-9]* passed, \([0-9]*\) failed$/\1/p' "$log" | awk '{ n += $1 } END { print n }')
    if [ "${bad:-1}" -ne 0 ]; then
        grep -v ' 0 failed, ' "$log" | sed "s/^/$framework: /"
    fi
    passed=$((passed + ${ok:-0}))
    failed=$((failed + ${bad:-1}))
    echo "over $framework: ${ok:-0} passed, ${bad:-1} failed ($(($(date +%s) - begin)) s)"
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
